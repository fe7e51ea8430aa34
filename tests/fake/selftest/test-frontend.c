/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The scripted toolstack and guest, against a small backend in a child process, over the mock and
 * over a real xenstored.
 */
#include "config.h"

#include "tests/fake/selftest/selftest.h"

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "tests/fake/frontend.h"
#include "tests/fake/selftest/debian.h"

#define UUID "dcdb124b-9fed-4040-b149-dd2dfd8d094c"

static struct fx_vtpm dev;
static struct fx_guest *guest;

static int up(void **state)
{
    struct fx_options o = { 0 };
    int r;

    if (*state) {
        o.xenstored = debian_program("xenstored");
        if (!o.xenstored)
            return -1;
    }
    r = fx_start(&machine, &o);
    if (!r)
        r = fx_domain_create(machine, 5, "guest");
    if (!r)
        r = fx_guest_open(&guest, machine, 5);
    fx_vtpm_init(&dev, 0, 5, 0, UUID);
    return r;
}

static int down(void **state)
{
    fx_guest_close(guest);
    guest = NULL;
    return machine_down(state);
}

/* ------------------------------------------------------------------ a backend */

enum mood { POLITE, SILENT, LIAR, CANCELLER };

static enum mood mood;

static void set_state(struct xs_handle *xs, const char *value)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/state", dev.backend);
    if (!xs_write(xs, XBT_NULL, path, value, 1))
        abort();
}

static int get(struct xs_handle *xs, const char *dir, const char *key)
{
    char path[160], *s;
    unsigned int len;
    int v;

    snprintf(path, sizeof(path), "%s/%s", dir, key);
    s = xs_read(xs, XBT_NULL, path, &len);
    v = s ? atoi(s) : 0;
    free(s);
    return v;
}

/* Answers each request with its bytes in reverse order, however many pages it has. */
static void answer(xengnttab_handle *gt, struct tpmif_shared_page *p, uint32_t ref,
                   xenevtchn_handle *ev, int port)
{
    uint32_t refs[FX_MAX_GRANTS], n = p->nr_extra_pages, len = p->length;
    uint8_t *all, *data;

    if (__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) != TPMIF_STATE_SUBMIT)
        return;
    refs[0] = ref;
    for (uint32_t i = 0; i < n; i++)
        refs[i + 1] = p->extra_pages[i];
    all = xengnttab_map_domain_grant_refs(gt, n + 1, 5, refs, PROT_READ | PROT_WRITE);
    if (!all)
        abort();
    data = all + 8 + 4 * n;
    for (uint32_t i = 0; i < len / 2; i++) {
        uint8_t t = data[i];

        data[i] = data[len - 1 - i];
        data[len - 1 - i] = t;
    }
    xengnttab_unmap(gt, all, n + 1);
    if (mood == LIAR)
        p->length = 100000;
    __atomic_store_n(&p->state, mood == CANCELLER ? TPMIF_STATE_IDLE : TPMIF_STATE_FINISH,
                     __ATOMIC_SEQ_CST);
    if (mood != SILENT)
        xenevtchn_notify(ev, (evtchn_port_t)port);
}

static void backend(void)
{
    struct xs_handle *xs;
    xenevtchn_handle *ev;
    xengnttab_handle *gt;
    struct tpmif_shared_page *page = NULL;
    uint32_t ref = 0;
    int port = -1, was = 0;

    fx_become(machine, dev.be_domid);
    xs = xs_open(0);
    ev = xenevtchn_open(NULL, 0);
    gt = xengnttab_open(NULL, 0);
    if (!xs || !ev || !gt || !xs_watch(xs, dev.backend, "b"))
        abort();
    if (get(xs, dev.backend, "state") == 1)
        set_state(xs, "2");
    xs_watch(xs, dev.frontend, "f");
    for (;;) {
        struct pollfd p[2] = { { xs_fileno(xs), POLLIN, 0 }, { xenevtchn_fd(ev), POLLIN, 0 } };
        int fe = get(xs, dev.frontend, "state"), be = get(xs, dev.backend, "state");
        char **w;

        if (fe == 3 && !page) {
            ref = (uint32_t)get(xs, dev.frontend, "ring-ref");
            page = xengnttab_map_grant_ref(gt, 5, ref, PROT_READ | PROT_WRITE);
            port = xenevtchn_bind_interdomain(
                ev, 5, (evtchn_port_t)get(xs, dev.frontend, "event-channel"));
            if (!page || port < 0)
                abort();
            set_state(xs, "4");
            answer(gt, page, ref, ev, port);
        } else if (fe == 5 && was != 5) {
            set_state(xs, "5");
        } else if (be && be != 6 && ((fe == 6 && was != 6) || (be == 5 && fe == 0))) {
            if (page)
                xengnttab_unmap(gt, page, 1);
            page = NULL;
            set_state(xs, "6");
            if (dev.be_domid) {
                /* A driver domain cleans up after itself, but dwells in 6 until libxl has seen
                 * it, for which there is no sign. */
                poll(NULL, 0, 200);
                xs_rm(xs, XBT_NULL, dev.backend);
            }
        }
        was = fe;
        poll(p, 2, -1);
        while ((w = xs_check_watch(xs)))
            free(w);
        if (readable(xenevtchn_fd(ev))) {
            int e = xenevtchn_pending(ev);

            xenevtchn_unmask(ev, (evtchn_port_t)e);
            if (page)
                answer(gt, page, ref, ev, port);
        }
    }
}

static pid_t backend_start(enum mood how)
{
    pid_t pid;

    mood = how;
    pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        backend();
    }
    return pid;
}

/* ------------------------------------------------------------------ toolstack */

static void assert_value(const char *dir, const char *key, const char *value)
{
    char *s = fx_read(machine, dir, key);

    assert_non_null(s);
    assert_string_equal(s, value);
    free(s);
}

static void assert_perms(const char *dir, const char *key, unsigned int owner, unsigned int reader)
{
    struct xs_handle *xs = fx_xs_open(machine, 0);
    struct xs_permissions *p;
    char path[160];
    unsigned int n;

    snprintf(path, sizeof(path), "%s%s%s", dir, *key ? "/" : "", key);
    p = xs_get_permissions(xs, XBT_NULL, path, &n);
    assert_non_null(p);
    assert_int_equal(n, 2);
    assert_int_equal(p[0].id, owner);
    assert_int_equal(p[0].perms, XS_PERM_NONE);
    assert_int_equal(p[1].id, reader);
    assert_int_equal(p[1].perms, XS_PERM_READ);
    free(p);
    xs_close(xs);
}

static void a_device_is_written_as_libxl_writes_it(void **state)
{
    static const char *const front[] = { "backend-id", "state", "handle" };
    static const char *const back[] = { "frontend", "frontend-id", "online", "state", "handle",
                                        "uuid", "resume" };

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    assert_value(dev.backend, "frontend", "/local/domain/5/device/vtpm/0");
    assert_value(dev.backend, "frontend-id", "5");
    assert_value(dev.backend, "online", "1");
    assert_value(dev.backend, "state", "1");
    assert_value(dev.backend, "handle", "0");
    assert_value(dev.backend, "uuid", UUID);
    assert_value(dev.backend, "resume", "False");
    assert_value(dev.frontend, "backend", "/local/domain/0/backend/vtpm/5/0");
    assert_value(dev.frontend, "backend-id", "0");
    assert_value(dev.frontend, "state", "1");
    assert_value(dev.frontend, "handle", "0");
    assert_value(dev.libxl, "backend", dev.backend);
    assert_value(dev.libxl, "uuid", UUID);
    assert_perms(dev.frontend, "", 5, 0);
    assert_perms(dev.backend, "", 0, 5);
    for (size_t i = 0; i < sizeof(front) / sizeof(front[0]); i++)
        assert_perms(dev.frontend, front[i], 5, 0);
    for (size_t i = 0; i < sizeof(back) / sizeof(back[0]); i++)
        assert_perms(dev.backend, back[i], 0, 5);
    /* The guest may do with its directory what it likes, and nothing with the backend's. */
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/backend", "/nonsense"), 0);
    assert_int_equal(fx_guest_write(guest, dev.backend, "x"), -EACCES);
    /* Written again, nothing of the old one stays. */
    assert_int_equal(fx_write(machine, dev.backend, "instance", "3"), 0);
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    assert_int_equal(fx_read_int(machine, dev.backend, "instance"), -1);
    assert_value(dev.frontend, "backend", "/local/domain/0/backend/vtpm/5/0");
}

static void waiting_ends_at_its_deadline(void **state)
{
    int64_t t = fx_now();

    (void)state;
    assert_int_equal(fx_vtpm_wait(machine, &dev, XenbusStateInitWait, 100), -ENOENT);
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    assert_int_equal(fx_vtpm_wait(machine, &dev, XenbusStateInitWait, 100), -ETIMEDOUT);
    assert_in_range(fx_now() - t, 100, 3000);
}

static void vanishing_cleans_up_empty_parents(void **state)
{
    struct fx_vtpm other;
    char *s;

    (void)state;
    fx_vtpm_init(&other, 0, 5, 1, UUID);
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    assert_int_equal(fx_vtpm_add(machine, &other), 0);
    assert_int_equal(fx_vtpm_vanish(machine, &dev), 0);
    assert_value(other.backend, "state", "1");
    assert_int_equal(fx_vtpm_vanish(machine, &other), 0);
    s = fx_read(machine, "/local/domain/0/backend", "");
    assert_null(s);
}

/* ------------------------------------------------------------------ life of a device */

static void exchange(struct fx_frontend *f, size_t len)
{
    static uint8_t cmd[16384], rsp[16384];
    size_t n;

    for (size_t i = 0; i < len; i++)
        cmd[i] = (uint8_t)(i * 7 + i / 256);
    assert_int_equal(fx_frontend_transact(f, 0, cmd, len, rsp, sizeof(rsp), &n, 5000), 0);
    assert_int_equal(n, len);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(rsp[i], cmd[len - 1 - i]);
}

static void a_whole_life_with_detach(void **state)
{
    struct fx_frontend *f;
    pid_t pid;

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    pid = backend_start(POLITE);
    assert_int_equal(fx_vtpm_wait(machine, &dev, XenbusStateInitWait, 5000), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &dev, 0), 0);
    assert_int_equal(fx_frontend_connect(f, 5000), 0);
    exchange(f, 10);
    exchange(f, 4088);
    assert_int_equal(fx_frontend_submit(f, 0, f, 4089), -EMSGSIZE);
    /* what was seen in the page first has its event still to come */
    if (!fx_frontend_events(f))
        assert_int_equal(fx_frontend_wait_event(f, 5000), 0);
    assert_true(fx_frontend_events(f) >= 1);
    assert_int_equal(fx_frontend_close(f, 5000), 0);
    fx_frontend_free(f);
    assert_int_equal(fx_vtpm_remove(machine, &dev, FX_DETACH), 0);
    assert_null(fx_read(machine, dev.backend, "state"));
    assert_null(fx_read(machine, dev.frontend, "state"));
    assert_null(fx_read(machine, dev.libxl, "backend"));
    child_kill(pid);
    assert_true(fx_balanced(machine, 0));
}

static void the_first_command_may_precede_the_backend(void **state)
{
    struct fx_frontend *f;
    uint8_t rsp[8];
    size_t n;
    pid_t pid;

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &dev, 0), 0);
    assert_int_equal(fx_frontend_publish(f), 0);
    assert_int_equal(fx_frontend_submit(f, 0, "abc", 3), 0);
    pid = backend_start(POLITE);
    assert_int_equal(fx_frontend_wait(f, rsp, sizeof(rsp), &n, 5000), 0);
    assert_memory_equal(rsp, "cba", 3);
    fx_frontend_free(f);
    child_kill(pid);
}

static void several_pages_carry_one_request(void **state)
{
    struct fx_frontend *f;
    pid_t pid;

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    pid = backend_start(POLITE);
    assert_int_equal(fx_frontend_open(&f, guest, &dev, 2), 0);
    assert_int_equal(fx_frontend_capacity(f), 3 * 4096 - 8 - 8);
    assert_int_equal(fx_frontend_connect(f, 5000), 0);
    exchange(f, 5000);
    exchange(f, 3 * 4096 - 16);
    fx_frontend_free(f);
    child_kill(pid);
    assert_true(fx_balanced(machine, 0));
}

static void bad_backends_are_told_apart(void **state)
{
    static const struct {
        enum mood mood;
        int result;
    } cases[] = { { SILENT, -ENOMSG }, { LIAR, -EPROTO }, { CANCELLER, -ECANCELED } };
    struct fx_frontend *f;
    uint8_t rsp[8];
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pid_t pid;

        assert_int_equal(fx_vtpm_add(machine, &dev), 0);
        pid = backend_start(cases[i].mood);
        assert_int_equal(fx_frontend_open(&f, guest, &dev, 0), 0);
        assert_int_equal(fx_frontend_connect(f, 5000), 0);
        assert_int_equal(fx_frontend_transact(f, 0, "abc", 3, rsp, sizeof(rsp), &n, 300),
                         cases[i].result);
        fx_frontend_free(f);
        child_kill(pid);
    }
}

static void a_killed_backend_is_replaced(void **state)
{
    struct fx_frontend *f;
    uint8_t rsp[8];
    size_t n;
    pid_t pid;

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    pid = backend_start(POLITE);
    assert_int_equal(fx_frontend_open(&f, guest, &dev, 0), 0);
    assert_int_equal(fx_frontend_connect(f, 5000), 0);
    exchange(f, 100);
    child_kill(pid);
    assert_int_equal(fx_frontend_submit(f, 0, "abc", 3), 0);
    assert_int_equal(fx_frontend_wait(f, rsp, sizeof(rsp), &n, 100), -ETIMEDOUT);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateInitialised), 0);
    pid = backend_start(POLITE);
    assert_int_equal(fx_frontend_wait(f, rsp, sizeof(rsp), &n, 5000), 0);
    assert_memory_equal(rsp, "cba", 3);
    fx_frontend_free(f);
    child_kill(pid);
}

static void destroy_takes_the_frontend_first(void **state)
{
    struct fx_frontend *f;
    pid_t pid;

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    pid = backend_start(POLITE);
    assert_int_equal(fx_frontend_open(&f, guest, &dev, 0), 0);
    assert_int_equal(fx_frontend_connect(f, 5000), 0);
    assert_int_equal(fx_vtpm_remove(machine, &dev, FX_DESTROY), 0);
    assert_null(fx_read(machine, dev.backend, "state"));
    fx_frontend_free(f);
    child_kill(pid);
    assert_true(fx_balanced(machine, 0));
}

static void the_backend_may_be_a_driver_domain(void **state)
{
    struct fx_frontend *f;
    pid_t pid;

    (void)state;
    assert_int_equal(fx_domain_create(machine, 7, "driver"), 0);
    fx_vtpm_init(&dev, 7, 5, 3, UUID);
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    assert_perms(dev.backend, "state", 7, 5);
    assert_perms(dev.frontend, "state", 5, 7);
    pid = backend_start(POLITE);
    assert_int_equal(fx_vtpm_wait(machine, &dev, XenbusStateInitWait, 5000), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &dev, 0), 0);
    assert_int_equal(fx_frontend_connect(f, 5000), 0);
    exchange(f, 20);
    assert_int_equal(fx_vtpm_remove(machine, &dev, FX_DESTROY), 0);
    assert_null(fx_read(machine, dev.backend, "state"));
    fx_frontend_free(f);
    child_kill(pid);
    assert_true(fx_balanced(machine, 7));
    assert_true(fx_balanced(machine, 0));
}

static void a_thousand_round_trips(void **state)
{
    struct fx_frontend *f;
    pid_t pid;
    int64_t t;

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &dev), 0);
    pid = backend_start(POLITE);
    assert_int_equal(fx_frontend_open(&f, guest, &dev, 0), 0);
    assert_int_equal(fx_frontend_connect(f, 5000), 0);
    t = fx_now();
    for (int i = 0; i < 1000; i++)
        exchange(f, 12);
    fprintf(stderr, "# 1000 round trips in %d ms\n", (int)(fx_now() - t));
    fx_frontend_free(f);
    child_kill(pid);
}

int main(void)
{
#define test(f) { #f, f, up, down, NULL }
    static const struct CMUnitTest list[] = {
        test(a_device_is_written_as_libxl_writes_it),
        test(waiting_ends_at_its_deadline),
        test(vanishing_cleans_up_empty_parents),
        test(a_whole_life_with_detach),
        test(the_first_command_may_precede_the_backend),
        test(several_pages_carry_one_request),
        test(bad_backends_are_told_apart),
        test(a_killed_backend_is_replaced),
        test(destroy_takes_the_frontend_first),
        test(the_backend_may_be_a_driver_domain),
        test(a_thousand_round_trips),
    };
    enum { N = sizeof(list) / sizeof(list[0]) };
    static struct CMUnitTest tests[2 * N];
    static char names[2 * N][96];

    for (int i = 0; i < 2 * N; i++) {
        tests[i] = list[i % N];
        snprintf(names[i], sizeof(names[i]), "%s: %s", i < N ? "mock" : "xenstored",
                 list[i % N].name);
        tests[i].name = names[i];
        tests[i].initial_state = i < N ? NULL : &tests[i];
    }
    return cmocka_run_group_tests_name("frontend", tests, NULL, NULL);
}
