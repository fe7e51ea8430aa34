/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crashes and failures placed exactly: the daemon or a backend dies in, or is refused, a given
 * call into a Xen library. A guest may wait; it may not see an error, lose a change it was told
 * of, or have a command executed twice.
 */
#include "config.h"

#include "tests/integration/scene.h"

/* The daemon is a driver domain here, so that xenstore faults hit nobody else. */
#define FAULTY DRIVER_DOMID

/* Starts the daemon again whenever it is found dead, until done() or time is up. */
static void nurse_until(bool (*done)(void *arg), void *arg, int timeout)
{
    int64_t end = fx_now() + timeout;

    while (!done(arg)) {
        assert_true(fx_now() < end);
        if (!daemon_alive(&H))
            assert_int_equal(daemon_start(&H), 0);
        fx_wait(done, arg, 20);
    }
}

struct want {
    struct vm *v;
    int state;
};

static bool backend_is(void *arg)
{
    struct want *w = arg;

    return fx_read_int(H.m, w->v->dev.backend, "state") == w->state;
}

static bool nodes_gone(void *arg)
{
    return fx_read_int(H.m, ((struct vm *)arg)->dev.backend, "state") < 0;
}

/* Each fault strikes at least once of three times: as the device, its driver and its end come. */
static void the_daemon_dies_at_each_call_of_a_life(void)
{
    static const struct {
        const char *function;
        int skip;
    } calls[] = {
        { "xs_write", 0 },
        { "xs_write", 1 },
        { "xs_write", 2 },
        { "xs_read", 0 },
        { "xs_read", 5 },
        { "xs_transaction_start", 0 },
        { "xs_transaction_start", 1 },
        { "xs_transaction_end", 0 },
        { "xs_transaction_end", 1 },
        { "xs_watch", 0 },
        { "xs_check_watch", 0 },
        { "xs_check_watch", 5 },
        { "xs_rm", 0 },
    };
    uint8_t data[TPM2_NV_SIZE], back[TPM2_NV_SIZE];
    uint32_t domid = 10;
    struct vm v;

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct want want = { &v, XenbusStateInitWait };
        uint32_t struck;
        int fault;

        memset(&v, 0, sizeof(v));
        v.domid = domid++;
        assert_int_equal(fx_domain_create(H.m, v.domid, "g"), 0);
        assert_int_equal(fx_guest_open(&v.g, H.m, v.domid), 0);
        fx_vtpm_init(&v.dev, H.be_domid, v.domid, 0, UUID_A);
        fault = fx_fault(H.m, calls[i].function, FAULTY, FX_FAULT_KILL, calls[i].skip, 1);
        assert_int_equal(fx_vtpm_add(H.m, &v.dev), 0);
        nurse_until(backend_is, &want, 30000);
        assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
        struck = fx_fault_hits(H.m, fault);
        fx_fault_clear(H.m);
        fault = fx_fault(H.m, calls[i].function, FAULTY, FX_FAULT_KILL, calls[i].skip, 1);
        assert_int_equal(fx_frontend_publish(v.f), 0);
        want.state = XenbusStateConnected;
        nurse_until(backend_is, &want, 30000);
        assert_int_equal(fx_frontend_set_state(v.f, XenbusStateConnected), 0);
        struck += fx_fault_hits(H.m, fault);
        fx_fault_clear(H.m);
        if (i) {
            assert_int_equal(tpm2_nv_read(v.f, back), 0);
            assert_memory_equal(back, data, sizeof(data));
        } else {
            assert_int_equal(tpm2_nv_define(v.f), 0);
        }
        memset(data, (int)i + 1, sizeof(data));
        assert_int_equal(tpm2_nv_write(v.f, data), 0);
        extend(&v, 5, "x");
        assert_pcr(&v, 5, "x", 1);
        fault = fx_fault(H.m, calls[i].function, FAULTY, FX_FAULT_KILL, calls[i].skip, 1);
        assert_int_equal(fx_vtpm_remove_begin(H.m, &v.dev, FX_DESTROY), 0);
        nurse_until(nodes_gone, &v, 30000);      /* a driver domain removes its leaf */
        struck += fx_fault_hits(H.m, fault);
        fx_fault_clear(H.m);
        if (!daemon_alive(&H))
            assert_int_equal(daemon_start(&H), 0);
        vm_destroy(&v);
        if (!struck)
            fail_msg("%s, after %d of them, was not called", calls[i].function, calls[i].skip);
    }
}

static void a_backend_that_cannot_start_is_tried_again(void)
{
    static const struct {
        const char *function;
        int err;
    } faults[] = {
        { "xengnttab_open", ENOMEM },        { "xengnttab_map", ENOMEM },
        { "xenevtchn_open", ENOMEM },        { "xenevtchn_bind_interdomain", ENOSPC },
        { "xengnttab_open", FX_FAULT_KILL }, { "xengnttab_map", FX_FAULT_KILL },
        { "xenevtchn_open", FX_FAULT_KILL }, { "xenevtchn_bind_interdomain", FX_FAULT_KILL },
    };
    uint8_t cmd[64], rsp[4096];
    size_t n;

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct vm v;
        int slot;

        assert_int_equal(vm_create(&v, (uint32_t)(20 + i), UUID_A), 0);
        slot = fx_fault(H.m, faults[i].function, FAULTY, faults[i].err, 0, 1);
        assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
        assert_int_equal(fx_frontend_publish(v.f), 0);
        assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_get_random(cmd, 8)), 0);
        assert_int_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &n, TPM_TIMEOUT), 0);
        assert_int_equal(tpm_response(rsp, n), 0);
        assert_int_equal(fx_fault_hits(H.m, slot), 1);
        assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateConnected, SOON), 0);
        fx_fault_clear(H.m);
        vm_destroy(&v);
    }
}

static void changes_told_of_survive_every_kill(void)
{
    uint8_t data[TPM2_NV_SIZE], back[TPM2_NV_SIZE];
    pid_t pids[MAX_BACKENDS];
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    for (unsigned int i = 0; i < 15; i++) {
        memset(data, (int)i + 1, sizeof(data));
        assert_int_equal(tpm2_nv_write(v.f, data), 0);
        assert_true(backends_wait(&H, 1, pids, SOON));
        process_kill(pids[0]);
        if (i % 5 == 4) {
            /* and where the whole host went: nothing in memory is left of us */
            daemon_kill(&H);
            assert_int_equal(daemon_start(&H), 0);
        }
        assert_int_equal(tpm2_nv_read(v.f, back), 0);
        assert_memory_equal(back, data, sizeof(data));
    }
    vm_destroy(&v);
}

static void a_new_ring_with_a_command_in_flight(void)
{
    uint8_t cmd[128], d[32];
    pid_t pids[MAX_BACKENDS];
    uint8_t got[32], none[32], once[32];
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    digest_of(d, "either");
    assert_true(backends_wait(&H, 1, pids, SOON));
    process_freeze(pids[0]);
    assert_int_equal(fx_frontend_submit(v.f, 0, cmd, tpm2_pcr_extend(cmd, 6, d)), 0);
    fx_frontend_free(v.f);
    kill(pids[0], SIGCONT);
    vm_probe(&v);
    /* The guest gave that command up: executed or not, but not twice. */
    tpm2_expected_pcr(none, d, 0);
    tpm2_expected_pcr(once, d, 1);
    assert_int_equal(tpm2_read_pcr(v.f, 6, got), 0);
    assert_true(!memcmp(got, none, 32) || !memcmp(got, once, 32));
    vm_destroy(&v);
}

static void a_backend_that_hangs_does_not_hold_up_the_others(void)
{
    pid_t pids[MAX_BACKENDS];
    struct vm v, w;
    int64_t t;

    vm_boot(&v, 5, UUID_A);
    assert_true(backends_wait(&H, 1, pids, SOON));
    process_freeze(pids[0]);
    vm_boot(&w, 6, UUID_B);
    vm_random(&w);
    t = fx_now();
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);    /* it is killed, in time */
    assert_true(fx_now() - t < 8000);
    fx_frontend_free(v.f);
    fx_guest_close(v.g);
    assert_true(backends_wait(&H, 1, NULL, SOON));
    vm_random(&w);
    vm_destroy(&w);
}

static void a_detach_where_neither_side_moves_waits_for_both_at_once(void)
{
    pid_t pids[MAX_BACKENDS];
    struct vm v;
    int64_t t;

    vm_boot(&v, 5, UUID_A);
    assert_true(backends_wait(&H, 1, pids, SOON));
    process_freeze(pids[0]);
    t = fx_now();
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DETACH), 0);
    assert_true(fx_now() - t < 6000);        /* three seconds for each, after another */
    assert_true(backends_wait(&H, 0, NULL, SOON));
    fx_frontend_free(v.f);
    fx_guest_close(v.g);
    assert_int_equal(fx_domain_destroy(H.m, 5), 0);
}

static void a_reboot_overlaps_with_the_old_domain(void)
{
    uint8_t data[TPM2_NV_SIZE] = "before the reboot", back[TPM2_NV_SIZE];
    struct vm old, new = { .domid = 6 };

    vm_boot(&old, 5, UUID_A);
    assert_int_equal(tpm2_nv_define(old.f), 0);
    assert_int_equal(tpm2_nv_write(old.f, data), 0);
    extend(&old, 1, "x");
    /* The old device is on its way out, the new one is there already. */
    assert_int_equal(fx_vtpm_remove_begin(H.m, &old.dev, FX_DESTROY), 0);
    assert_int_equal(vm_create(&new, 6, UUID_A), 0);
    vm_probe(&new);
    vm_destroy(&old);
    assert_int_equal(tpm2_nv_read(new.f, back), 0);
    assert_memory_equal(back, data, sizeof(data));
    assert_pcr(&new, 1, "", 0);
    vm_destroy(&new);
}

static void many_guests_at_once(void)
{
    enum { N = 12 };
    static struct vm v[N];
    char uuid[40], name[16];
    int64_t t = fx_now();

    for (uint32_t i = 0; i < N; i++) {
        memset(&v[i], 0, sizeof(v[i]));
        v[i].domid = 20 + i;
        snprintf(uuid, sizeof(uuid), "00000000-1111-4222-8333-%012u", i);
        /* a name of its own: an unknown uuid is looked up by the domain's name next */
        snprintf(name, sizeof(name), "g%u", i);
        assert_int_equal(fx_domain_create(H.m, v[i].domid, name), 0);
        assert_int_equal(fx_guest_open(&v[i].g, H.m, v[i].domid), 0);
        fx_vtpm_init(&v[i].dev, H.be_domid, v[i].domid, 0, uuid);
        assert_int_equal(fx_vtpm_add(H.m, &v[i].dev), 0);
    }
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(fx_vtpm_wait(H.m, &v[i].dev, XenbusStateInitWait, SOON), 0);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(fx_frontend_open(&v[i].f, v[i].g, &v[i].dev, 0), 0);
        assert_int_equal(fx_frontend_publish(v[i].f), 0);
    }
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(fx_frontend_wait_backend(v[i].f, XenbusStateConnected, SOON), 0);
        vm_random(&v[i]);
    }
    assert_true(backends_wait(&H, N, NULL, SOON));
    fprintf(stderr, "# %d guests served after %d ms\n", N, (int)(fx_now() - t));
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(fx_vtpm_remove_begin(H.m, &v[i].dev, FX_DESTROY), 0);
    for (uint32_t i = 0; i < N; i++)
        vm_destroy(&v[i]);
}

static void a_store_that_conflicts_all_the_time(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    /* While every transaction of the daemon fails, guests are served; then all is made up for. */
    fx_store_conflict(H.m, H.be_domid, 1000000);
    for (int i = 0; i < 5; i++)
        vm_random(&v);
    assert_int_equal(fx_frontend_set_state(v.f, XenbusStateClosing), 0);
    assert_true(daemon_alive(&H));
    fx_store_conflict(H.m, H.be_domid, 0);
    assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateClosing, SOON), 0);
    assert_int_equal(fx_frontend_set_state(v.f, XenbusStateClosed), 0);
    assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateClosed, SOON), 0);
    vm_destroy(&v);
}

static void grants_withdrawn_under_the_backend(void)
{
    pid_t pids[MAX_BACKENDS];
    struct vm v, w;

    vm_boot(&w, 6, UUID_B);
    vm_boot(&v, 5, UUID_A);
    assert_true(backends_wait(&H, 2, pids, SOON));
    /* The ring goes, the backend dies, the nodes still say 3 or 4: nothing to map any more. */
    fx_frontend_free(v.f);
    v.f = NULL;
    process_kill(pids[1]);
    vm_random(&w);
    assert_true(daemon_alive(&H));
    vm_probe(&v);
    vm_random(&v);
    vm_destroy(&v);
    vm_destroy(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        SCENE("", the_daemon_dies_at_each_call_of_a_life, NULL, false, FAULTY),
        SCENE("", a_backend_that_cannot_start_is_tried_again, NULL, false, FAULTY),
        SCENE("", changes_told_of_survive_every_kill, NULL, false, 0),
        SCENE("", a_new_ring_with_a_command_in_flight, NULL, false, 0),
        SCENE("", a_backend_that_hangs_does_not_hold_up_the_others, NULL, false, 0),
        SCENE("", a_detach_where_neither_side_moves_waits_for_both_at_once, NULL, false, 0),
        SCENE("", a_reboot_overlaps_with_the_old_domain, NULL, false, 0),
        SCENE("", many_guests_at_once, NULL, false, 0),
        SCENE("", a_store_that_conflicts_all_the_time, NULL, false, 0),
        SCENE("", grants_withdrawn_under_the_backend, NULL, false, 0),
        SCENE("xenstored: ", a_reboot_overlaps_with_the_old_domain, NULL, true, 0),
        SCENE("xenstored: ", many_guests_at_once, NULL, true, 0),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("crashes", tests, NULL, NULL);
}
