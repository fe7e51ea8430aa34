/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The real daemon and the real backends over the fakes, with a scripted toolstack and guest: the
 * life of a device, what survives what, hostile guests, crashes. Over the mock xenstore; the main
 * path again over Debian's real xenstored.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>

#include "tests/integration/scene.h"

/* ------------------------------------------------------------------ life */

static void init_wait_comes_at_once(void)
{
    struct vm v;
    int64_t t;

    assert_int_equal(fx_domain_create(H.m, 5, "guest5"), 0);
    fx_vtpm_init(&v.dev, H.be_domid, 5, 0, UUID_A);
    assert_int_equal(fx_vtpm_add(H.m, &v.dev), 0);
    t = fx_now();
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, SOON), 0);
    assert_true(fx_now() - t < AT_ONCE);
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);
}

static void a_tpm_answers_and_remembers(void)
{
    uint8_t data[TPM2_NV_SIZE] = "written in the first life", back[TPM2_NV_SIZE];
    struct vm v;
    char *s;

    vm_boot(&v, 5, UUID_A);
    s = fx_read(H.m, v.dev.backend, "instance");
    assert_non_null(s);
    free(s);
    vm_random(&v);
    assert_pcr(&v, 10, "", 0);
    extend(&v, 10, "first");
    assert_pcr(&v, 10, "first", 1);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    assert_int_equal(tpm2_nv_write(v.f, data), 0);
    assert_int_equal(tpm2_nv_read(v.f, back), 0);
    assert_memory_equal(back, data, sizeof(data));
    vm_shutdown(&v);
    assert_null(fx_read(H.m, v.dev.backend, "state"));
    assert_true(backends_wait(&H, 0, NULL, SOON));

    vm_boot(&v, 6, UUID_A);          /* xl create of the same configuration */
    assert_int_equal(tpm2_nv_read(v.f, back), 0);
    assert_memory_equal(back, data, sizeof(data));
    assert_pcr(&v, 10, "", 0);       /* a new boot */
    vm_destroy(&v);

    vm_boot(&v, 7, UUID_A);          /* and after a destroy */
    assert_int_equal(tpm2_nv_read(v.f, back), 0);
    assert_memory_equal(back, data, sizeof(data));
    vm_destroy(&v);
}

/* xl save: suspended, and then all of it is gone. */
static void vm_save(struct vm *v)
{
    assert_int_equal(fx_domain_shutdown(H.m, v->domid, 2), 0);
    vm_destroy(v);
}

/* xl restore of domain 5, up to where its driver has connected again. */
static int vm_restore(struct vm *v, uint32_t domid, uint32_t mark)
{
    char home[64];
    int r;

    memset(v, 0, sizeof(*v));
    v->domid = domid;
    assert_int_equal(fx_domain_create(H.m, domid, "guest5"), 0);
    assert_int_equal(fx_domain_incarnation(H.m, domid, 2), 0);
    assert_int_equal(fx_domain_mark(H.m, domid, mark), 0);
    snprintf(home, sizeof(home), "/local/domain/%u", domid);
    assert_int_equal(fx_write(H.m, home, "vm", "/vm/00000000-0000-4000-8000-000000000005"), 0);
    fx_vtpm_init(&v->dev, H.be_domid, domid, 0, UUID_A);
    r = fx_vtpm_create(H.m, &v->dev);
    if (r)
        return r;
    assert_int_equal(fx_guest_open(&v->g, H.m, domid), 0);
    vm_probe(v);
    return 0;
}

static void a_saved_guest_finds_its_tpm_as_it_was(void)
{
    struct vm v, w;

    vm_boot(&v, 5, UUID_A);
    assert_int_equal(fx_domain_mark(H.m, 5, 4321), 0);
    extend(&v, 10, "before");
    vm_save(&v);
    /* the host is switched off and on: nothing of /run is left */
    assert_true(backends_wait(&H, 0, NULL, SOON));
    assert_int_equal(daemon_stop(&H), 0);
    harness_clear_run(&H);
    assert_int_equal(daemon_start(&H), 0);
    assert_int_equal(vm_restore(&w, 6, 4321), 0);
    assert_pcr(&w, 10, "before", 1);
    extend(&w, 10, "before");
    assert_pcr(&w, 10, "before", 2);
    /* the same file once more: its TPM has gone on */
    vm_destroy(&w);
    assert_int_equal(vm_restore(&w, 7, 4321), -ENOENT);
    assert_int_equal(fx_vtpm_vanish(H.m, &w.dev), 0);
    assert_int_equal(fx_domain_destroy(H.m, 7), 0);
    assert_int_equal(fx_domain_erase(H.m, 7), 0);
    vm_boot(&v, 8, UUID_A);
    assert_pcr(&v, 10, "", 0);
    vm_destroy(&v);
}

/* A guest that starts another kernel by kexec may have its domain soft-reset for it: libxl destroys
 * the devices and makes them again, for the same domain. No TPM is reset for that, or a guest could
 * give itself the PCRs that it likes. Either way round: the driver has closed before, or has not. */
static void a_soft_reset_of_the_domain_is_no_boot(void)
{
    for (unsigned closes = 0; closes < 2; closes++) {
        struct vm v;

        vm_boot(&v, 5 + closes, UUID_A);
        assert_int_equal(fx_domain_ran(H.m, v.domid), 0);
        extend(&v, 10, "before");
        if (closes)
            assert_int_equal(fx_frontend_close(v.f, SOON), 0);
        assert_int_equal(fx_domain_soft_reset_begin(H.m, v.domid), 0);
        assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);
        assert_true(log_wait_for(&H, "#1: forgotten", 2 * closes + 1, SOON));
        fx_frontend_free(v.f);
        fx_guest_close(v.g);
        assert_int_equal(fx_domain_soft_reset_end(H.m, v.domid, "guest"), 0);
        assert_int_equal(fx_vtpm_create(H.m, &v.dev), 0);
        assert_int_equal(fx_domain_soft_reset_over(H.m, v.domid), 0);
        assert_int_equal(fx_guest_open(&v.g, H.m, v.domid), 0);
        vm_probe(&v);
        assert_pcr(&v, 10, "before", 1);
        vm_destroy(&v);
        assert_true(log_wait_for(&H, "#1: forgotten", 2 * closes + 2, SOON));
    }
}

/* Its process was told that the driver had gone before the domain was suspended, and is slow. */
static void a_save_amid_a_close_keeps_the_state(void)
{
    struct vm v;
    pid_t pid;

    vm_boot(&v, 5, UUID_A);
    assert_int_equal(fx_domain_mark(H.m, 5, 4321), 0);
    extend(&v, 10, "before");
    assert_true(backends_wait(&H, 1, &pid, SOON));
    process_freeze(pid);
    assert_int_equal(fx_frontend_set_state(v.f, XenbusStateClosing), 0);
    assert_true(log_wait(&H, "serving -> closing", SOON));
    assert_int_equal(fx_domain_shutdown(H.m, 5, 2), 0);
    assert_int_equal(fx_vtpm_remove_begin(H.m, &v.dev, FX_DESTROY), 0);
    assert_true(log_wait(&H, "closing -> ending", SOON));
    assert_int_equal(kill(pid, SIGCONT), 0);
    vm_destroy(&v);
    assert_int_equal(vm_restore(&v, 6, 4321), 0);
    assert_pcr(&v, 10, "before", 1);
    vm_destroy(&v);
}

/* Saved and restored again and again, with kills of backend and daemon in between and amid. */
static void saves_and_kills_mix(void)
{
    struct vm v;
    uint32_t mark = 100;

    vm_boot(&v, 5, UUID_A);
    for (unsigned int i = 1; i <= 12; i++) {
        pid_t pid;

        assert_int_equal(fx_domain_mark(H.m, v.domid, ++mark), 0);
        extend(&v, 10, "again");
        assert_true(backends_wait(&H, 1, &pid, 5000));
        /* killed as the save begins, or told to keep and killed at some point of that */
        switch (i % 4) {
        case 0:
            process_kill(pid);
            break;
        case 1:
            process_freeze(pid); /* the daemon loses patience */
            break;
        case 2:
            daemon_kill(&H);
            assert_int_equal(daemon_start(&H), 0);
            break;
        }
        vm_save(&v);
        if (i % 3 == 0) {
            daemon_kill(&H);
            assert_int_equal(daemon_start(&H), 0);
        }
        assert_int_equal(vm_restore(&v, 5 + i, mark), 0);
        assert_pcr(&v, 10, "again", i);
    }
    vm_destroy(&v);
}

static void two_guests_have_two_tpms(void)
{
    uint8_t a[TPM2_NV_SIZE] = "a", b[TPM2_NV_SIZE] = "b", back[TPM2_NV_SIZE];
    struct vm v, w;

    vm_boot(&v, 5, UUID_A);
    vm_boot(&w, 6, UUID_B);
    assert_true(backends_wait(&H, 2, NULL, SOON));
    assert_int_equal(tpm2_nv_define(v.f), 0);
    assert_int_equal(tpm2_nv_write(v.f, a), 0);
    assert_int_not_equal(tpm2_nv_read(w.f, back), 0);
    assert_int_equal(tpm2_nv_define(w.f), 0);
    assert_int_equal(tpm2_nv_write(w.f, b), 0);
    extend(&v, 3, "only a");
    assert_pcr(&w, 3, "", 0);
    assert_int_equal(tpm2_nv_read(v.f, back), 0);
    assert_memory_equal(back, a, sizeof(a));
    vm_destroy(&v);
    assert_int_equal(tpm2_nv_read(w.f, back), 0);
    assert_memory_equal(back, b, sizeof(b));
    vm_destroy(&w);
}

/* Binding it to a name is impossible then, and the administrator has to know. */
static void a_name_that_may_not_be_read_is_told(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    assert_true(log_has(&H, "only this uuid finds it again"));
    vm_destroy(&v);
}

static void a_device_without_uuid_is_refused(void)
{
    struct vm v;

    /* libxl always writes one, so this is no device of libxl's. */
    assert_int_equal(vm_create(&v, 5, ""), -ENOENT);
    fx_guest_close(v.g);
    assert_int_equal(fx_vtpm_vanish(H.m, &v.dev), 0);
}

static void the_first_command_may_come_with_the_ring(void)
{
    uint8_t cmd[64], rsp[4096];
    struct vm v;
    size_t n;

    assert_int_equal(vm_create(&v, 5, UUID_A), 0);
    assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
    assert_int_equal(fx_frontend_publish(v.f), 0);
    assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_get_random(cmd, 8)), 0);
    assert_int_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, TPM_TIMEOUT), 0);
    assert_int_equal(tpm_response(rsp, n), 0);
    assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateConnected, SOON), 0);
    vm_destroy(&v);
}

static void a_hot_attached_frontend_is_at_3_before_anybody_looks(void)
{
    uint8_t cmd[64], rsp[4096];
    struct vm v = { .domid = 5 };
    size_t n;

    /* The guest's driver has published everything before the backend saw the device; libxl must
     * still get to see the 2. */
    assert_int_equal(fx_domain_create(H.m, 5, "guest5"), 0);
    assert_int_equal(fx_guest_open(&v.g, H.m, 5), 0);
    fx_vtpm_init(&v.dev, H.be_domid, 5, 0, UUID_A);
    fx_store_hold(H.m, H.be_domid, true);
    assert_int_equal(fx_vtpm_add(H.m, &v.dev), 0);
    assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
    assert_int_equal(fx_frontend_publish(v.f), 0);
    assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_get_random(cmd, 8)), 0);
    fx_store_hold(H.m, H.be_domid, false);
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, SOON), 0);
    assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateConnected, SOON), 0);
    assert_int_equal(fx_frontend_set_state(v.f, XenbusStateConnected), 0);
    assert_int_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, TPM_TIMEOUT), 0);
    assert_int_equal(tpm_response(rsp, n), 0);
    vm_destroy(&v);
}

static void a_device_that_waits_is_served_when_the_daemon_comes(void)
{
    struct vm v = { .domid = 5 };

    assert_int_equal(daemon_stop(&H), 0);
    assert_int_equal(fx_domain_create(H.m, 5, "guest5"), 0);
    fx_vtpm_init(&v.dev, H.be_domid, 5, 0, UUID_A);
    assert_int_equal(fx_vtpm_add(H.m, &v.dev), 0);
    assert_int_equal(daemon_start(&H), 0);
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, SOON), 0);
    assert_int_equal(fx_guest_open(&v.g, H.m, 5), 0);
    vm_probe(&v);
    vm_random(&v);
    vm_destroy(&v);
}

#define DEADLINE " deadline: "    /* the daemon has waited for a guest that did not move */

static void detach_asks_the_guest(void)
{
    struct vm v;
    int64_t t;

    vm_boot(&v, 5, UUID_A);
    assert_int_equal(fx_vtpm_remove_begin(H.m, &v.dev, FX_DETACH), 0);
    assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateClosing, SOON), 0);
    assert_int_equal(fx_frontend_set_state(v.f, XenbusStateClosing), 0);
    assert_int_equal(fx_frontend_set_state(v.f, XenbusStateClosed), 0);
    t = fx_now();
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateClosed, SOON), 0);
    assert_true(fx_now() - t < AT_ONCE);
    assert_false(log_has(&H, DEADLINE));
    fx_frontend_free(v.f);
    v.f = NULL;
    vm_destroy(&v);
}

static void destroying_a_hung_guest_is_quick(void)
{
    struct vm v;
    int64_t t;

    vm_boot(&v, 5, UUID_A);
    t = fx_now();
    vm_destroy(&v);                      /* its driver never moves */
    assert_true(fx_now() - t < AT_ONCE);
    assert_false(log_has(&H, DEADLINE));
}

static void a_device_may_just_vanish(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    vm_random(&v);
    assert_int_equal(fx_vtpm_vanish(H.m, &v.dev), 0);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    assert_null(fx_read(H.m, v.dev.backend, "state"));   /* and is not brought back */
    fx_frontend_free(v.f);
    fx_guest_close(v.g);
    assert_int_equal(fx_domain_destroy(H.m, 5), 0);
    vm_boot(&v, 6, UUID_A);
    vm_destroy(&v);
}

static void a_domain_may_just_die(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    fx_frontend_free(v.f);
    fx_guest_close(v.g);
    assert_int_equal(fx_domain_destroy(H.m, 5), 0);      /* its nodes go, the backend's stay */
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    vm_boot(&v, 6, UUID_A);
    vm_random(&v);
    vm_destroy(&v);
}

static void two_devices_of_one_guest(void)
{
    struct fx_frontend *second;
    struct fx_vtpm dev;
    uint8_t out[8];
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    fx_vtpm_init(&dev, H.be_domid, 5, 1, UUID_B);
    assert_int_equal(fx_vtpm_create(H.m, &dev), 0);
    assert_int_equal(fx_frontend_open(&second, v.g, &dev, 0), 0);
    assert_int_equal(fx_frontend_connect(second, SOON), 0);
    assert_int_equal(tpm2_random(second, out, sizeof(out)), 0);
    vm_random(&v);
    assert_int_equal(fx_vtpm_remove(H.m, &dev, FX_DESTROY), 0);
    fx_frontend_free(second);
    vm_random(&v);
    vm_destroy(&v);
}

static void the_same_uuid_twice_is_refused(void)
{
    struct vm v, w;
    int64_t t;
    char *s;

    vm_boot(&v, 5, UUID_A);
    extend(&v, 4, "mine");
    t = fx_now();
    assert_int_equal(vm_create(&w, 6, UUID_A), -ENOENT);     /* libxl: "it was removed" */
    assert_true(fx_now() - t < AT_ONCE);
    s = fx_read(H.m, w.dev.backend, "error");
    assert_non_null(s);
    assert_true(strlen(s) > 10);
    free(s);
    assert_int_equal(fx_vtpm_vanish(H.m, &w.dev), 0);
    vm_random(&v);
    assert_pcr(&v, 4, "mine", 1);
    vm_destroy(&v);
    assert_int_equal(fx_domain_destroy(H.m, 6), 0);
    vm_boot(&w, 7, UUID_A);              /* free again */
    vm_destroy(&w);
}

/* ------------------------------------------------------------------ reconnecting */

static void a_new_ring_without_a_word_keeps_the_pcrs(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    extend(&v, 7, "boot");
    for (int i = 0; i < 3; i++) {
        fx_frontend_free(v.f);               /* Linux' resume: remove, probe */
        vm_probe(&v);
        assert_pcr(&v, 7, "boot", 1);
        vm_random(&v);
    }
    vm_destroy(&v);
}

/* libxl finds no state to wait for, and does not remove what is in a driver domain's directory. */
static void a_refused_device_leaves_nothing_in_a_driver_domain(void)
{
    struct vm v, w;

    vm_boot(&v, 5, UUID_A);
    assert_int_equal(vm_create(&w, 6, UUID_A), -ENOENT);
    assert_int_equal(fx_vtpm_remove(H.m, &w.dev, FX_DESTROY), 0);
    for (int64_t end = fx_now() + SOON; fx_read_int(H.m, w.dev.backend, "frontend-id") != -1;) {
        assert_true(fx_now() < end);
        usleep(20000);
    }
    assert_int_equal(fx_domain_destroy(H.m, 6), 0);
    vm_random(&v);
    vm_destroy(&v);
}

static void reloading_the_driver_keeps_the_pcrs(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    extend(&v, 7, "boot");
    assert_int_equal(fx_frontend_close(v.f, SOON), 0);
    fx_frontend_free(v.f);
    assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
    assert_int_equal(fx_frontend_set_state(v.f, XenbusStateInitialising), 0);
    assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateInitWait, SOON), 0);
    assert_int_equal(fx_frontend_connect(v.f, SOON), 0);
    assert_pcr(&v, 7, "boot", 1);
    vm_destroy(&v);
}

static void a_guest_cannot_make_a_detach_look_like_its_end(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    assert_int_equal(fx_domain_ran(H.m, 5), 0);
    extend(&v, 7, "boot");
    /* As a destroy leaves it, when the daemon comes to look: but this frontend the guest removed,
     * which saw the toolstack's detach first. */
    fx_store_hold(H.m, H.be_domid, true);
    assert_int_equal(fx_vtpm_remove_begin(H.m, &v.dev, FX_DETACH), 0);
    assert_int_equal(fx_guest_remove(v.g, "device/vtpm/0"), 0);
    fx_store_hold(H.m, H.be_domid, false);
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateClosed, SOON), 0);
    assert_int_equal(fx_vtpm_vanish(H.m, &v.dev), 0);
    fx_frontend_free(v.f);
    assert_int_equal(fx_vtpm_create(H.m, &v.dev), 0);
    vm_probe(&v);
    assert_pcr(&v, 7, "boot", 1);
    vm_destroy(&v);
}

/* ------------------------------------------------------------------ crashes */

static void a_killed_backend_costs_the_guest_nothing(void)
{
    uint8_t cmd[128], rsp[4096], d[32];
    pid_t pids[MAX_BACKENDS];
    struct vm v;
    size_t n;

    vm_boot(&v, 5, UUID_A);
    digest_of(d, "counted");
    for (unsigned int i = 0; i < 10; i++) {
        assert_true(backends_wait(&H, 1, pids, SOON));
        process_freeze(pids[0]);
        assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_pcr_extend(cmd, 8, d)), 0);
        process_kill(pids[0]);
        assert_int_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, TPM_TIMEOUT), 0);
        assert_int_equal(tpm_response(rsp, n), 0);
        assert_int_equal(fx_read_int(H.m, v.dev.backend, "state"), XenbusStateConnected);
        assert_pcr(&v, 8, "counted", i + 1);
    }
    vm_destroy(&v);
}

static void a_backend_killed_at_any_call_executes_exactly_once(void)
{
    static const struct {
        const char *function;
        int skip;
    } deaths[] = {
        { "xenevtchn_notify", 0 },   { "xenevtchn_unmask", 0 }, { "xenevtchn_pending", 0 },
        { "xenevtchn_notify", 1 },   { "xenevtchn_unmask", 1 }, { "xenevtchn_pending", 1 },
    };
    uint8_t cmd[128], rsp[4096], d[32];
    unsigned int done = 0;
    struct vm v;
    size_t n;

    vm_boot(&v, 5, UUID_A);
    digest_of(d, "counted");
    for (size_t i = 0; i < sizeof(deaths) / sizeof(deaths[0]); i++) {
        int slot = fx_fault(H.m, deaths[i].function, H.be_domid, FX_FAULT_KILL, deaths[i].skip, 1);

        for (int k = 0; k < 3; k++, done++) {
            assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_pcr_extend(cmd, 8, d)), 0);
            assert_int_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, TPM_TIMEOUT), 0);
            assert_int_equal(tpm_response(rsp, n), 0);
        }
        assert_int_equal(fx_fault_hits(H.m, slot), 1);
        fx_fault_clear(H.m);
        assert_pcr(&v, 8, "counted", done);
    }
    vm_destroy(&v);
}

static void a_restarted_daemon_adopts(bool kill_it)
{
    pid_t before[MAX_BACKENDS], after[MAX_BACKENDS];
    struct vm v, w;

    vm_boot(&v, 5, UUID_A);
    vm_boot(&w, 6, UUID_B);
    extend(&v, 9, "kept");
    assert_true(backends_wait(&H, 2, before, SOON));
    for (int i = 0; i < 2; i++) {
        if (kill_it)
            daemon_kill(&H);
        else
            assert_int_equal(daemon_stop(&H), 0);
        vm_random(&v);                   /* served by nobody's child */
        assert_int_equal(daemon_start(&H), 0);
        assert_true(backends_wait(&H, 2, after, SOON));
        assert_memory_equal(before, after, 2 * sizeof(pid_t));
        vm_random(&v);
        vm_random(&w);
        assert_pcr(&v, 9, "kept", 1);
        assert_int_equal(fx_read_int(H.m, v.dev.backend, "state"), XenbusStateConnected);
    }
    /* The new daemon is in charge of the old backends: it replaces, closes, ends them. */
    process_kill(after[0]);
    vm_random(&v);
    vm_random(&w);
    vm_shutdown(&v);
    vm_destroy(&w);
}

/* What a new daemon cannot read in xenstore, the process that serves tells. */
static void a_process_is_adopted_by_what_it_says(void)
{
    pid_t before[MAX_BACKENDS], after[MAX_BACKENDS];
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    extend(&v, 9, "kept");
    assert_true(backends_wait(&H, 1, before, SOON));
    daemon_kill(&H);
    assert_int_equal(fx_write(H.m, v.dev.backend, "uuid", "none"), 0);
    assert_int_equal(daemon_start(&H), 0);
    vm_random(&v);
    assert_pcr(&v, 9, "kept", 1);
    assert_true(log_wait(&H, "found process", SOON));
    assert_true(backends_wait(&H, 1, after, SOON));
    assert_int_equal(before[0], after[0]);
    /* and is one like any other: a process follows it */
    process_kill(after[0]);
    vm_random(&v);
    assert_pcr(&v, 9, "kept", 1);
    vm_shutdown(&v);
    assert_false(log_has(&H, "a mistake in the program"));
    vm_boot(&v, 6, UUID_A);
    assert_pcr(&v, 9, "", 0);
    vm_destroy(&v);
}

static void a_killed_daemon_finds_its_backends(void)
{
    a_restarted_daemon_adopts(true);
}

static void a_stopped_daemon_leaves_its_backends(void)
{
    a_restarted_daemon_adopts(false);
}

static void daemon_and_backend_may_die_together(void)
{
    uint8_t cmd[128], rsp[4096], d[32];
    pid_t pids[MAX_BACKENDS];
    struct vm v;
    size_t n;

    vm_boot(&v, 5, UUID_A);
    digest_of(d, "x");
    for (unsigned int i = 0; i < 3; i++) {
        assert_true(backends_wait(&H, 1, pids, SOON));
        process_freeze(pids[0]);
        assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_pcr_extend(cmd, 8, d)), 0);
        daemon_kill(&H);
        process_kill(pids[0]);
        assert_int_equal(daemon_start(&H), 0);
        assert_int_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, TPM_TIMEOUT), 0);
        assert_int_equal(tpm_response(rsp, n), 0);
        assert_pcr(&v, 8, "x", i + 1);
    }
    vm_destroy(&v);
}

static void devices_that_went_while_nobody_looked(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    daemon_kill(&H);
    assert_int_equal(fx_vtpm_vanish(H.m, &v.dev), 0);
    fx_frontend_free(v.f);
    fx_guest_close(v.g);
    assert_int_equal(fx_domain_destroy(H.m, 5), 0);
    assert_int_equal(daemon_start(&H), 0);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    vm_boot(&v, 6, UUID_A);
    vm_destroy(&v);
}

/* ------------------------------------------------------------------ hostile guests */

static void frontend_states_in_any_order(void)
{
    static const char *const states[] = { "0", "4", "6", "5", "2", "8", "7", "-1", "", "garbage",
                                          "4294967296", "3", "1", "6", "3", "5", "1" };
    struct vm v, w;

    vm_boot(&w, 6, UUID_B);
    assert_int_equal(vm_create(&v, 5, UUID_A), 0);
    for (size_t i = 0; i < 2 * sizeof(states) / sizeof(states[0]); i++) {
        const char *s = states[i % (sizeof(states) / sizeof(states[0]))];

        assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", s), 0);
        if (i % 3 == 0)
            vm_random(&w);               /* others do not notice */
    }
    assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", "6"), 0);
    assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", "1"), 0);
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, SOON), 0);
    vm_probe(&v);
    vm_random(&v);
    vm_destroy(&v);
    vm_destroy(&w);
}

static void garbage_in_the_frontends_nodes(void)
{
    static const char *const garbage[] = { "", "x", "-1", "0", "1", "99999999999999999999", "7 ",
                                           "0x10", "4294967295", "12345" };
    static const char *const keys[] = { "ring-ref", "event-channel" };
    struct vm v, w;
    char path[64];

    vm_boot(&w, 6, UUID_B);
    assert_int_equal(vm_create(&v, 5, UUID_A), 0);
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
            assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
            /* the right ones first, then one of them spoilt, then state 3 */
            assert_int_equal(fx_frontend_publish(v.f), 0);
            snprintf(path, sizeof(path), "device/vtpm/0/%s", keys[k]);
            assert_int_equal(fx_guest_write(v.g, path, garbage[i]), 0);
            assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", "3"), 0);
            vm_random(&w);
            assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", "5"), 0);
            assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", "6"), 0);
            fx_frontend_free(v.f);
            v.f = NULL;
        }
    /* a link elsewhere is not followed */
    assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/backend",
                                    "/local/domain/0/backend/vtpm/6/0"), 0);
    vm_random(&w);
    assert_true(daemon_alive(&H));
    vm_destroy(&v);
    vm_random(&w);
    vm_destroy(&w);
}

static void a_guest_may_wreck_its_own_directory(void)
{
    static char huge[1800];
    struct vm v, w;
    char path[64];

    vm_boot(&w, 6, UUID_B);
    vm_boot(&v, 5, UUID_A);
    extend(&v, 3, "x");
    memset(huge, '4', sizeof(huge) - 1);
    assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", huge), 0);
    assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/ring-ref", huge), 0);
    for (int i = 0; i < 200; i++) {
        snprintf(path, sizeof(path), "device/vtpm/0/junk%d", i);
        assert_int_equal(fx_guest_write(v.g, path, "junk"), 0);
    }
    assert_int_equal(fx_guest_remove(v.g, "device/vtpm/0/state"), 0);
    vm_random(&w);
    /* Its directory is its own to remove; it is not its own to make again. */
    assert_int_equal(fx_guest_remove(v.g, "device/vtpm/0"), 0);
    assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", "3"), -EACCES);
    vm_random(&w);
    assert_true(daemon_alive(&H));
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);
    fx_frontend_free(v.f);
    fx_guest_close(v.g);
    vm_random(&w);
    vm_destroy(&w);
    vm_boot(&v, 7, UUID_A);
    vm_destroy(&v);
}

static void a_guest_that_never_stops_writing_harms_nobody(void)
{
    struct vm v, w;
    int64_t t;

    vm_boot(&v, 5, UUID_A);
    t = fx_now();
    for (int i = 0; i < 3000; i++)
        assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", i & 1 ? "4" : "3"), 0);
    fprintf(stderr, "# 3000 writes in %d ms\n", (int)(fx_now() - t));
    vm_boot(&w, 6, UUID_B);
    vm_random(&w);
    vm_destroy(&w);
    assert_int_equal(fx_guest_write(v.g, "device/vtpm/0/state", "4"), 0);
    vm_random(&v);
    vm_destroy(&v);
}

static void missing_and_malformed_backend_nodes(void)
{
    static const char *const uuids[] = { "nonsense", "dcdb124b-9fed-4040-b149-dd2dfd8d094",
                                         "{dcdb124b-9fed-4040-b149-dd2dfd8d094c}",
                                         "dcdb124b9fed4040b149dd2dfd8d094c",
                                         "dcdb124b-9fed-4040-b149-dd2dfd8d094czz", "../../etc" };
    struct vm v;

    for (size_t i = 0; i < sizeof(uuids) / sizeof(uuids[0]); i++) {
        int64_t t = fx_now();
        int r = vm_create(&v, (uint32_t)(10 + i), uuids[i]);

        if (r == 0)
            fprintf(stderr, "# uuid \"%s\" was accepted\n", uuids[i]);
        assert_int_equal(r, -ENOENT);
        assert_true(fx_now() - t < AT_ONCE);
        fx_guest_close(v.g);
        assert_int_equal(fx_vtpm_vanish(H.m, &v.dev), 0);
    }
    /* directories that are no devices */
    assert_int_equal(fx_write(H.m, "/local/domain/0/backend/vtpm/x/0", "state", "1"), 0);
    assert_int_equal(fx_write(H.m, "/local/domain/0/backend/vtpm/5/x", "state", "1"), 0);
    assert_int_equal(fx_write(H.m, "/local/domain/0/backend/vtpm/5", "0", ""), 0);
    assert_int_equal(fx_write(H.m, "/local/domain/0/backend/vtpm/99999999999/0", "state", "1"), 0);
    vm_boot(&v, 20, UUID_A);
    vm_random(&v);
    vm_destroy(&v);
}

static void malformed_commands_get_an_answer(void)
{
    static const uint8_t junk[64] = { 0x80, 0x01, 0, 0, 0, 64, 0xff, 0xff, 0xff, 0xff };
    uint8_t rsp[4096], cmd[64];
    struct vm v;
    size_t n;

    vm_boot(&v, 5, UUID_A);
    for (size_t len = 0; len <= sizeof(junk); len += len < 12 ? 1 : 13) {
        int r = fx_frontend_transact(v.f, 0, junk, len, rsp, sizeof(rsp), &n, TPM_TIMEOUT);

        assert_int_equal(r, 0);
        assert_true(tpm_response(rsp, n) > 0);
    }
    /* a locality above the configured maximum */
    assert_int_equal(fx_frontend_transact(v.f, 3, cmd, tpm2_get_random(cmd, 8), rsp, sizeof(rsp),
                                          &n, TPM_TIMEOUT), 0);
    assert_true(tpm_response(rsp, n) > 0);
    vm_random(&v);
    vm_destroy(&v);
}

static void lies_in_the_page_hurt_only_the_liar(void)
{
    uint8_t rsp[4096], cmd[64];
    struct vm v, w;

    vm_boot(&w, 6, UUID_B);
    vm_boot(&v, 5, UUID_A);
    for (unsigned int i = 0; i < 24; i++) {
        static const uint32_t lengths[] = { 4089, 4096, 65536, UINT32_MAX, 0x80000000u, 11 };
        volatile struct tpmif_shared_page *p = fx_frontend_page(v.f);
        size_t n, len = tpm2_get_random(cmd, 8);

        for (size_t k = 0; k < len; k++)
            ((volatile uint8_t *)p)[8 + k] = cmd[k];
        p->length = lengths[i % 6];
        p->locality = i & 1 ? 255 : 0;
        p->nr_extra_pages = i < 6 ? 0 : i < 12 ? 1 : i < 18 ? 255 : 3;
        for (unsigned int k = 0; k < 3; k++)
            p->extra_pages[k] = i & 1 ? UINT32_MAX : fx_frontend_ref(v.f, 0);
        __atomic_store_n(&p->state, TPMIF_STATE_SUBMIT, __ATOMIC_SEQ_CST);
        assert_int_equal(fx_frontend_notify(v.f), 0);
        /* Whatever comes, something comes: an error answer, or IDLE. */
        assert_int_not_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, 5000), -ETIMEDOUT);
    }
    for (unsigned int state = 0; state < 256; state += 5) {
        fx_frontend_page(v.f)->state = (uint8_t)(state == TPMIF_STATE_SUBMIT ? 77 : state);
        fx_frontend_notify(v.f);
    }
    vm_random(&v);
    vm_random(&w);
    vm_destroy(&v);
    vm_destroy(&w);
}

/* All that a process that its guest has taken over can write to: files that it has open. */
static void spoil(pid_t pid, const char *name, const char *or_this, size_t *spoilt)
{
    uint8_t nonsense[65536];
    char directory[64];
    struct dirent *e;
    DIR *d;

    snprintf(directory, sizeof(directory), "/proc/%d/fd", (int)pid);
    d = opendir(directory);
    assert_non_null(d);
    while ((e = readdir(d))) {
        char path[400], target[256];
        ssize_t n;
        int fd;

        snprintf(path, sizeof(path), "%s/%s", directory, e->d_name);
        n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        if (!strstr(target, name) && !strstr(target, or_this))
            continue;
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        for (size_t i = 0; i < sizeof(nonsense); i++)
            nonsense[i] = (uint8_t)random();
        for (int i = 0; i < 32; i++)
            assert_int_equal(pwrite(fd, nonsense, sizeof(nonsense),
                                    (off_t)(i * (int)sizeof(nonsense))), sizeof(nonsense));
        close(fd);
        ++*spoilt;
    }
    closedir(d);
}

/* What it writes is lost to itself: its TPM is not served, or as after a power cut, never replaced by a
 * new one; the log says which file it is, and nobody else notices. */
static void a_process_that_spoils_its_files_loses_its_own_tpm(void)
{
    static const struct {
        const char *name, *or_this; /* of its files */
        size_t files;
        bool served;
        const char *said;
    } what[] = {
        { "/slot-", "/slot-", 2, false,
          "000000000001: slot 0 is damaged: its header does not verify; slot 1 is damaged" },
        { "/journal/", "/journal/", 1, true, "000000000002: the journal is damaged" },
        { "/slot-", "/journal/", 3, false, "000000000003: slot 0 is damaged" },
    };
    pid_t before[MAX_BACKENDS], pids[MAX_BACKENDS];
    struct vm v, w;

    vm_boot(&w, 6, UUID_B);
    extend(&w, 9, "kept");
    assert_true(backends_wait(&H, 1, before, SOON));
    for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
        char uuid[40];
        size_t spoilt = 0;

        snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012zu", i + 1);
        vm_boot(&v, 20 + (uint32_t)i, uuid);
        extend(&v, 9, "lost");
        assert_true(backends_wait(&H, 2, pids, SOON));
        spoil(pids[0] == before[0] ? pids[1] : pids[0], what[i].name, what[i].or_this,
              &spoilt);
        assert_int_equal(spoilt, what[i].files);
        process_kill(pids[0] == before[0] ? pids[1] : pids[0]);
        if (what[i].served) {
            vm_random(&v);
            assert_pcr(&v, 9, "lost", 0);
        } else {
            assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateClosing, SOON), 0);
        }
        assert_true(log_has(&H, what[i].said));
        vm_random(&w);
        vm_destroy(&v);
    }
    assert_pcr(&w, 9, "kept", 1);
    assert_true(backends_wait(&H, 1, pids, SOON));
    assert_int_equal(pids[0], before[0]);
    vm_destroy(&w);
}

static void several_pages_carry_a_request(void)
{
    struct vm v;

    assert_int_equal(vm_create(&v, 5, UUID_A), 0);
    assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 2), 0);
    assert_int_equal(fx_frontend_connect(v.f, SOON), 0);
    for (int i = 0; i < 5; i++)
        vm_random(&v);
    vm_destroy(&v);
}

static void uids_of(pid_t pid, char *uids, size_t size)
{
    char path[64], line[256];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    f = fopen(path, "re");
    assert_non_null(f);
    uids[0] = '\0';
    while (fgets(line, sizeof(line), f))
        if (!strncmp(line, "Uid:", 4))
            snprintf(uids, size, "%.60s", line + 4);
    fclose(f);
}

static void each_backend_is_a_user_of_its_own(void)
{
    char of_v[64], of_w[64], again[64];
    pid_t pids[MAX_BACKENDS];
    struct vm v, w;

    if (geteuid() != 0) {
        print_message("# only root has users to give\n"); /* cmocka's skip() is "not ok" */
        return;
    }
    vm_boot(&v, 5, UUID_A);
    assert_true(backends_wait(&H, 1, pids, SOON));
    uids_of(pids[0], of_v, sizeof(of_v));
    assert_string_equal(of_v, "\t700001\t700001\t700001\t700001\n");
    vm_boot(&w, 6, UUID_B);
    assert_true(backends_wait(&H, 2, pids, SOON));
    uids_of(pids[1], of_w, sizeof(of_w));
    assert_string_equal(of_w, "\t700002\t700002\t700002\t700002\n");
    vm_destroy(&v);
    vm_boot(&v, 7, UUID_A);
    assert_true(backends_wait(&H, 2, pids, SOON));
    uids_of(pids[1], again, sizeof(again));
    assert_string_equal(again, of_v);
    vm_random(&v);
    vm_random(&w);
    vm_destroy(&v);
    vm_destroy(&w);
}

static void a_cancelled_command_ends(void)
{
    uint8_t cmd[128], rsp[4096];
    struct vm v;
    size_t n;
    int r;

    vm_boot(&v, 5, UUID_A);
    assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_create_primary_rsa(cmd)), 0);
    assert_int_equal(fx_frontend_cancel(v.f), 0);
    r = fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, TPM_TIMEOUT);
    assert_true(r == 0 || r == -ECANCELED);
    if (!r)
        assert_true(tpm_response(rsp, n) >= 0);
    vm_random(&v);
    vm_destroy(&v);
}

/* ------------------------------------------------------------------ a xenstore in a bad mood */

static void conflicts_and_spurious_watches_change_nothing(void)
{
    struct vm v;

    fx_store_conflict(H.m, H.be_domid, 3);
    vm_boot(&v, 5, UUID_A);
    for (int i = 0; i < 20; i++) {
        fx_store_spurious(H.m, H.be_domid);
        vm_random(&v);
    }
    fx_store_conflict(H.m, H.be_domid, 3);
    vm_shutdown(&v);
    vm_boot(&v, 6, UUID_A);
    vm_destroy(&v);
}

static void failing_calls_are_tried_again(void)
{
    enum when { AS_IT_STARTS, AS_THE_DEVICE_COMES, AS_ITS_DRIVER_COMES };
    static const struct {
        const char *function;
        enum when when;
    } calls[] = {
        { "xs_directory", AS_IT_STARTS },
        { "xs_watch", AS_THE_DEVICE_COMES },
        { "xs_write", AS_ITS_DRIVER_COMES },
        { "xs_read", AS_ITS_DRIVER_COMES },
        { "xs_transaction_end", AS_ITS_DRIVER_COMES },
        { "xs_transaction_start", AS_ITS_DRIVER_COMES },
    };
    struct vm v;

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        int fault = -1;

        if (calls[i].when == AS_IT_STARTS)
            assert_int_equal(daemon_stop(&H), 0);
        /* The daemon is a driver domain here, so the faults are its alone. */
        if (calls[i].when < AS_ITS_DRIVER_COMES)
            fault = fx_fault(H.m, calls[i].function, H.be_domid, ENOMEM, 0, 2);
        if (calls[i].when == AS_IT_STARTS)
            assert_int_equal(daemon_start(&H), 0);
        fx_become(H.m, 0);
        assert_int_equal(fx_domain_create(H.m, (uint32_t)(20 + i), "g"), 0);
        fx_vtpm_init(&v.dev, H.be_domid, (uint32_t)(20 + i), 0, UUID_A);
        assert_int_equal(fx_vtpm_add(H.m, &v.dev), 0);
        v.domid = (uint32_t)(20 + i);
        assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, SOON), 0);
        assert_int_equal(fx_guest_open(&v.g, H.m, v.domid), 0);
        if (calls[i].when == AS_ITS_DRIVER_COMES)
            fault = fx_fault(H.m, calls[i].function, H.be_domid, ENOMEM, 0, 2);
        vm_probe(&v);
        vm_random(&v);
        if (fx_fault_hits(H.m, fault) < 1)
            fail_msg("%s was not called", calls[i].function);
        fx_fault_clear(H.m);
        vm_destroy(&v);
    }
}

/* The first time that the daemon writes at all is when it says InitWait. */
static void an_init_wait_that_was_tried_again_is_whole(void)
{
    struct vm v = { .domid = 5 };
    char *flag;

    fx_become(H.m, 0);
    assert_int_equal(fx_domain_create(H.m, 5, "guest5"), 0);
    fx_vtpm_init(&v.dev, H.be_domid, 5, 0, UUID_A);
    fx_fault(H.m, "xs_write", H.be_domid, ENOMEM, 0, 1);
    assert_int_equal(fx_vtpm_add(H.m, &v.dev), 0);
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, SOON), 0);
    fx_fault_clear(H.m);
    flag = fx_read(H.m, v.dev.backend, "feature-protocol-v2");
    assert_non_null(flag);
    free(flag);
    assert_int_equal(fx_read_int(H.m, v.dev.backend, "instance"), 1);
    assert_int_equal(fx_guest_open(&v.g, H.m, 5), 0);
    vm_probe(&v);
    vm_random(&v);
    vm_destroy(&v);
}

static void watches_that_are_refused_cost_time_only(void)
{
    static struct vm v[4];
    char uuid[40];

    /* As much as a driver domain with very many devices. */
    assert_int_equal(fx_store_quota(H.m, FX_QUOTA_WATCHES, 3), 0);
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(uuid, sizeof(uuid), "00000000-1111-4222-8333-%012u", i);
        vm_boot(&v[i], 20 + i, uuid);
        vm_random(&v[i]);
    }
    assert_int_equal(fx_store_quota(H.m, FX_QUOTA_WATCHES, 128), 0);
    for (uint32_t i = 0; i < 4; i++)
        vm_destroy(&v[i]);
}

static void a_device_made_while_xenstore_was_out_of_reach(void)
{
    struct vm v = { .domid = 5 };

    assert_int_equal(fx_domain_create(H.m, 5, "guest5"), 0);
    assert_int_equal(fx_guest_open(&v.g, H.m, 5), 0);
    assert_int_equal(fx_store_drop(H.m, H.be_domid, true), 0);
    fx_vtpm_init(&v.dev, H.be_domid, 5, 0, UUID_A);
    assert_int_equal(fx_vtpm_add(H.m, &v.dev), 0);
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, 1500), -ETIMEDOUT);
    assert_int_equal(fx_store_drop(H.m, H.be_domid, false), 0);
    assert_int_equal(fx_vtpm_wait(H.m, &v.dev, XenbusStateInitWait, SOON), 0);
    vm_probe(&v);
    vm_random(&v);
    vm_destroy(&v);
}

static void a_lost_xenstore_connection_is_found_again(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    extend(&v, 2, "x");
    assert_int_equal(fx_store_drop(H.m, H.be_domid, false), 0);
    vm_random(&v);                       /* a backend needs no xenstore */
    assert_true(daemon_alive(&H));
    assert_pcr(&v, 2, "x", 1);
    vm_destroy(&v);
    vm_boot(&v, 6, UUID_A);
    vm_destroy(&v);
}

/* ------------------------------------------------------------------ TPM 1.2 */

static void tpm_1_2_comes_up_enabled_and_remembers_nothing_of_a_boot(void)
{
    uint8_t zero[20] = { 0 }, d[20] = "measured", pcr[20], out[8];
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    tpm12_startup(v.f);                  /* "already started" is fine */
    assert_int_equal(tpm12_random(v.f, out, sizeof(out)), 0);
    assert_int_equal(tpm12_read_pcr(v.f, 10, pcr), 0);
    assert_memory_equal(pcr, zero, 20);
    assert_int_equal(tpm12_extend(v.f, 10, d), 0);
    assert_int_equal(tpm12_read_pcr(v.f, 10, pcr), 0);
    assert_memory_not_equal(pcr, zero, 20);
    fx_frontend_free(v.f);
    vm_probe(&v);
    assert_int_equal(tpm12_read_pcr(v.f, 10, pcr), 0);
    assert_memory_not_equal(pcr, zero, 20);
    vm_shutdown(&v);
    vm_boot(&v, 6, UUID_A);
    tpm12_startup(v.f);
    assert_int_equal(tpm12_read_pcr(v.f, 10, pcr), 0);
    assert_memory_equal(pcr, zero, 20);
    vm_destroy(&v);
}

/* ------------------------------------------------------------------ the daemon itself */

static void a_second_daemon_is_refused(void)
{
    struct harness other = H;
    struct vm v;

    other.daemon = 0;
    assert_int_equal(daemon_start(&other), -ECHILD);
    assert_true(daemon_alive(&H));
    vm_boot(&v, 5, UUID_A);
    vm_destroy(&v);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define MOCK(t) SCENE("", t, NULL, false, 0)
#define REAL(t) SCENE("xenstored: ", t, NULL, true, 0)
        MOCK(init_wait_comes_at_once),
        MOCK(a_tpm_answers_and_remembers),
        MOCK(two_guests_have_two_tpms),
        MOCK(the_first_command_may_come_with_the_ring),
        MOCK(a_hot_attached_frontend_is_at_3_before_anybody_looks),
        MOCK(a_device_that_waits_is_served_when_the_daemon_comes),
        MOCK(detach_asks_the_guest),
        MOCK(destroying_a_hung_guest_is_quick),
        MOCK(a_device_may_just_vanish),
        MOCK(a_domain_may_just_die),
        MOCK(two_devices_of_one_guest),
        MOCK(the_same_uuid_twice_is_refused),
        MOCK(a_new_ring_without_a_word_keeps_the_pcrs),
        MOCK(a_saved_guest_finds_its_tpm_as_it_was),
        MOCK(saves_and_kills_mix),
        MOCK(reloading_the_driver_keeps_the_pcrs),
        MOCK(a_guest_cannot_make_a_detach_look_like_its_end),
        MOCK(a_killed_backend_costs_the_guest_nothing),
        MOCK(a_backend_killed_at_any_call_executes_exactly_once),
        MOCK(a_killed_daemon_finds_its_backends),
        MOCK(a_process_is_adopted_by_what_it_says),
        MOCK(a_save_amid_a_close_keeps_the_state),
        MOCK(a_soft_reset_of_the_domain_is_no_boot),
        MOCK(a_stopped_daemon_leaves_its_backends),
        MOCK(daemon_and_backend_may_die_together),
        MOCK(devices_that_went_while_nobody_looked),
        MOCK(frontend_states_in_any_order),
        MOCK(garbage_in_the_frontends_nodes),
        MOCK(missing_and_malformed_backend_nodes),
        MOCK(a_guest_may_wreck_its_own_directory),
        MOCK(a_guest_that_never_stops_writing_harms_nobody),
        MOCK(a_device_without_uuid_is_refused),
        MOCK(malformed_commands_get_an_answer),
        MOCK(lies_in_the_page_hurt_only_the_liar),
        MOCK(a_process_that_spoils_its_files_loses_its_own_tpm),
        MOCK(several_pages_carry_a_request),
        MOCK(a_cancelled_command_ends),
        MOCK(conflicts_and_spurious_watches_change_nothing),
        MOCK(a_lost_xenstore_connection_is_found_again),
        MOCK(a_second_daemon_is_refused),
        SCENE("", each_backend_is_a_user_of_its_own, "backend-uid-base = 700001\n", false, 0),
        SCENE("driver domain: ", a_tpm_answers_and_remembers, NULL, false, DRIVER_DOMID),
        SCENE("", a_refused_device_leaves_nothing_in_a_driver_domain, NULL, false, DRIVER_DOMID),
        SCENE("", a_name_that_may_not_be_read_is_told, NULL, false, DRIVER_DOMID),
        SCENE("", watches_that_are_refused_cost_time_only, NULL, false, DRIVER_DOMID),
        SCENE("", a_device_made_while_xenstore_was_out_of_reach, NULL, false, DRIVER_DOMID),
        SCENE("", failing_calls_are_tried_again, NULL, false, DRIVER_DOMID),
        SCENE("", an_init_wait_that_was_tried_again_is_whole, NULL, false, DRIVER_DOMID),
        SCENE("", tpm_1_2_comes_up_enabled_and_remembers_nothing_of_a_boot,
              "default-tpm-version = 1.2\n", false, 0),
        REAL(a_tpm_answers_and_remembers),
        REAL(a_hot_attached_frontend_is_at_3_before_anybody_looks),
        REAL(the_same_uuid_twice_is_refused),
        REAL(reloading_the_driver_keeps_the_pcrs),
        REAL(a_killed_backend_costs_the_guest_nothing),
        REAL(a_killed_daemon_finds_its_backends),
        REAL(frontend_states_in_any_order),
        REAL(a_guest_may_wreck_its_own_directory),
        REAL(a_guest_that_never_stops_writing_harms_nobody),
        SCENE("xenstored, driver domain: ", a_tpm_answers_and_remembers, NULL, true,
              DRIVER_DOMID),
        SCENE("xenstored: ", a_refused_device_leaves_nothing_in_a_driver_domain, NULL, true,
              DRIVER_DOMID),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("daemon", tests, NULL, NULL);
}
