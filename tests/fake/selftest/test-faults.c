/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What only the mock xenstore and the fake libxenstore can do: go wrong when asked to. */
#include "config.h"

#include "tests/fake/selftest/selftest.h"

#include <xenstore.h>

static struct xs_handle *xs;

static int up(void **state)
{
    int r = machine_up(state);

    xs = r ? NULL : fx_xs_open(machine, 0);
    return xs ? 0 : -1;
}

static int down(void **state)
{
    xs_close(xs);
    xs = NULL;
    return machine_down(state);
}

static bool put(const char *path, const char *value)
{
    return xs_write(xs, XBT_NULL, path, value, (unsigned int)strlen(value));
}

/* The event that waits, if one does; "" if none. The connection's requests are answered in
 * order, so after one round trip everything sent before has arrived. */
static const char *event(void)
{
    static char path[128];
    unsigned int len;
    char **ev;

    free(xs_read(xs, XBT_NULL, "/local/domain/0/domid", &len));
    ev = xs_check_watch(xs);
    snprintf(path, sizeof(path), "%s", ev ? ev[XS_WATCH_PATH] : "");
    free(ev);
    return path;
}

static void conflicts_come_when_ordered(void **state)
{
    unsigned int len;

    (void)state;
    assert_int_equal(fx_store_conflict(machine, 0, 2), 0);
    for (int i = 0; i < 3; i++) {
        xs_transaction_t t = xs_transaction_start(xs);

        assert_true(xs_write(xs, t, "/t/a", "1", 1));
        if (i < 2) {
            assert_errno(!xs_transaction_end(xs, t, false), EAGAIN);
            assert_errno(!xs_read(xs, XBT_NULL, "/t/a", &len), ENOENT);
        } else {
            assert_true(xs_transaction_end(xs, t, false));
        }
    }
    /* another domain's are not hit */
    assert_int_equal(fx_store_conflict(machine, 5, 1), 0);
    assert_true(xs_transaction_end(xs, xs_transaction_start(xs), false));
    assert_true(put("/t/a", "2"));       /* nor is what is no transaction */
}

static void held_events_coalesce(void **state)
{
    struct fx_store_stats s;

    (void)state;
    assert_true(xs_watch(xs, "/t", "t"));
    assert_string_equal(event(), "/t");
    assert_int_equal(fx_store_hold(machine, 0, true), 0);
    for (int i = 0; i < 5; i++)
        assert_true(put("/t/state", "1"));
    assert_true(put("/t/other", "1"));
    assert_string_equal(event(), "");
    fx_store_stats(machine, 0, &s);
    assert_int_equal(s.pending, 2);
    assert_int_equal(s.events_merged, 4);
    assert_int_equal(fx_store_hold(machine, 0, false), 0);
    assert_string_equal(event(), "/t/state");
    assert_string_equal(event(), "/t/other");
    assert_string_equal(event(), "");
}

static void watches_fire_without_a_reason(void **state)
{
    (void)state;
    assert_true(xs_watch(xs, "/t/a", "1"));
    assert_true(xs_watch(xs, "@releaseDomain", "2"));
    assert_string_equal(event(), "/t/a");
    assert_string_equal(event(), "@releaseDomain");
    assert_int_equal(fx_store_spurious(machine, 0), 0);
    assert_string_equal(event(), "/t/a");
    assert_string_equal(event(), "@releaseDomain");
    assert_string_equal(event(), "");
}

static void a_connection_can_be_cut_and_refused(void **state)
{
    struct xs_handle *guest = fx_xs_open(machine, 5);
    unsigned int len;
    char *s;

    (void)state;
    assert_int_equal(fx_store_drop(machine, 5, true), 0);
    assert_true(!xs_read(guest, XBT_NULL, "domid", &len));
    xs_close(guest);
    s = xs_read(xs, XBT_NULL, "domid", &len);        /* domain 0's is untouched */
    assert_non_null(s);
    free(s);
    guest = fx_xs_open(machine, 5);
    assert_true(!guest || !xs_read(guest, XBT_NULL, "domid", &len));
    xs_close(guest);
    assert_int_equal(fx_store_drop(machine, 5, false), 0);
    guest = fx_xs_open(machine, 5);
    s = xs_read(guest, XBT_NULL, "domid", &len);
    assert_non_null(s);
    free(s);
    xs_close(guest);
}

static void quotas_can_be_lowered(void **state)
{
    struct xs_handle *guest = fx_xs_open(machine, 5);
    struct fx_store_stats s;

    (void)state;
    fx_store_stats(machine, 5, &s);
    assert_int_equal(fx_store_quota(machine, FX_QUOTA_NODES, s.nodes + 1), 0);
    assert_true(xs_write(guest, XBT_NULL, "data/a", "", 0));
    assert_errno(!xs_write(guest, XBT_NULL, "data/b", "", 0), ENOSPC);
    assert_true(xs_write(guest, XBT_NULL, "data/a", "x", 1));
    assert_int_equal(fx_store_quota(machine, FX_QUOTA_WATCHES, 0), 0);
    assert_true(xs_watch(guest, "data", "1"));
    assert_errno(!xs_watch(guest, "data", "2"), E2BIG);
    xs_close(guest);
}

static void a_quota_error_dooms_its_transaction(void **state)
{
    struct xs_handle *guest = fx_xs_open(machine, 5);
    xs_transaction_t t;

    (void)state;
    assert_int_equal(fx_store_quota(machine, FX_QUOTA_NODES, 0), 0);
    t = xs_transaction_start(guest);
    assert_errno(!xs_write(guest, t, "data/a", "", 0), ENOSPC);
    assert_errno(!xs_transaction_end(guest, t, false), ENOMEM);
    xs_close(guest);
}

static void every_function_fails_as_told(void **state)
{
    xs_transaction_t t;
    unsigned int n;

    (void)state;
    fx_fault(machine, "xs_write", 0, ENOSPC, 0, 1);
    assert_errno(!put("/t/a", "1"), ENOSPC);
    assert_true(put("/t/a", "1"));
    fx_fault(machine, "xs_read", 0, EIO, 1, 1);
    free(xs_read(xs, XBT_NULL, "/t/a", &n));
    assert_errno(!xs_read(xs, XBT_NULL, "/t/a", &n), EIO);
    fx_fault(machine, "xs_directory", 0, ENOMEM, 0, 1);
    assert_errno(!xs_directory(xs, XBT_NULL, "/", &n), ENOMEM);
    fx_fault(machine, "xs_watch", 0, ENOMEM, 0, 1);
    assert_errno(!xs_watch(xs, "/t", "t"), ENOMEM);
    fx_fault(machine, "xs_open", FX_FAULT_ANY, ECONNREFUSED, 0, 1);
    assert_errno(!xs_open(0), ECONNREFUSED);
    fx_fault(machine, "xs_transaction_start", 0, EBUSY, 0, 1);
    assert_errno(xs_transaction_start(xs) == XBT_NULL, EBUSY);
    fx_fault(machine, "xs_transaction_end", 0, EAGAIN, 0, 1);
    t = xs_transaction_start(xs);
    assert_true(xs_write(xs, t, "/t/b", "1", 1));
    assert_errno(!xs_transaction_end(xs, t, false), EAGAIN);
    assert_errno(!xs_read(xs, XBT_NULL, "/t/b", &n), ENOENT);    /* and nothing of it happened */
    assert_errno(!xs_write(xs, t, "/t/b", "1", 1), ENOENT);
    fx_fault(machine, "xs_rm", 0, EACCES, 0, 100);
    assert_errno(!xs_rm(xs, XBT_NULL, "/t/a"), EACCES);
    fx_fault_clear(machine);
    assert_true(xs_rm(xs, XBT_NULL, "/t/a"));
}

static void killed_clients_leave_nothing(void **state)
{
    struct fx_store_stats before, after;
    pid_t pid;

    (void)state;
    fx_store_stats(machine, 0, &before);
    pid = fork();
    if (!pid) {
        struct xs_handle *h = xs_open(0);
        xs_transaction_t t = xs_transaction_start(h);

        xs_watch(h, "/t", "t");
        xs_write(h, t, "/t/half", "1", 1);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    put("/t/x", "1");
    fx_store_stats(machine, 0, &after);
    assert_int_equal(after.connections, before.connections);
    assert_int_equal(after.watches, before.watches);
    assert_int_equal(after.transactions, before.transactions);
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, up, down)
    const struct CMUnitTest tests[] = {
        test(conflicts_come_when_ordered),
        test(held_events_coalesce),
        test(watches_fire_without_a_reason),
        test(a_connection_can_be_cut_and_refused),
        test(quotas_can_be_lowered),
        test(a_quota_error_dooms_its_transaction),
        test(every_function_fails_as_told),
        test(killed_clients_leave_nothing),
    };

    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
