/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The fake libxenevtchn behaves like Xen's event channels under Linux' /dev/xen/evtchn. */
#include "config.h"

#include "tests/fake/selftest/selftest.h"

#include <fcntl.h>
#include <xenevtchn.h>

static xenevtchn_handle *open_as(uint32_t domid)
{
    xenevtchn_handle *h;

    fx_become(machine, domid);
    h = xenevtchn_open(NULL, 0);
    fx_become(machine, 0);
    assert_non_null(h);
    return h;
}

struct pair {
    xenevtchn_handle *guest, *back;
    int gport, bport;
};

static struct pair make_pair(void)
{
    struct pair p = { open_as(5), open_as(0), -1, -1 };

    p.gport = xenevtchn_bind_unbound_port(p.guest, 0);
    assert_true(p.gport > 0);
    p.bport = xenevtchn_bind_interdomain(p.back, 5, (evtchn_port_t)p.gport);
    assert_true(p.bport > 0);
    return p;
}

static void close_pair(struct pair *p)
{
    xenevtchn_close(p->guest);
    xenevtchn_close(p->back);
}

static void take(xenevtchn_handle *h, int port)
{
    assert_true(readable(xenevtchn_fd(h)));
    assert_int_equal(xenevtchn_pending(h), port);
    assert_int_equal(xenevtchn_unmask(h, (evtchn_port_t)port), 0);
}

static void bind_raises_one_event(void **state)
{
    struct pair p = make_pair();

    (void)state;
    take(p.back, p.bport);
    assert_false(readable(xenevtchn_fd(p.back)));
    assert_false(readable(xenevtchn_fd(p.guest)));
    close_pair(&p);
}

static void notify_reaches_only_the_peer(void **state)
{
    struct pair p = make_pair();

    (void)state;
    take(p.back, p.bport);
    assert_int_equal(xenevtchn_notify(p.guest, (evtchn_port_t)p.gport), 0);
    assert_false(readable(xenevtchn_fd(p.guest)));
    take(p.back, p.bport);
    assert_int_equal(xenevtchn_notify(p.back, (evtchn_port_t)p.bport), 0);
    take(p.guest, p.gport);
    close_pair(&p);
}

static void events_coalesce_until_unmask(void **state)
{
    struct pair p = make_pair();

    (void)state;
    take(p.back, p.bport);
    for (int i = 0; i < 5; i++)
        assert_int_equal(xenevtchn_notify(p.guest, (evtchn_port_t)p.gport), 0);
    /* The first is in the queue; the other four are one that waits for the unmask. */
    assert_int_equal(xenevtchn_pending(p.back), p.bport);
    assert_false(readable(xenevtchn_fd(p.back)));
    assert_int_equal(xenevtchn_unmask(p.back, (evtchn_port_t)p.bport), 0);
    take(p.back, p.bport);
    assert_false(readable(xenevtchn_fd(p.back)));
    close_pair(&p);
}

static void a_masked_port_stays_silent(void **state)
{
    struct pair p = make_pair();

    (void)state;
    assert_int_equal(xenevtchn_pending(p.back), p.bport);
    assert_int_equal(xenevtchn_notify(p.guest, (evtchn_port_t)p.gport), 0);
    assert_false(readable(xenevtchn_fd(p.back)));
    close_pair(&p);
}

static void second_bind_is_refused_while_the_first_lives(void **state)
{
    struct pair p = make_pair();
    xenevtchn_handle *other = open_as(0);

    (void)state;
    assert_errno(xenevtchn_bind_interdomain(other, 5, (evtchn_port_t)p.gport) == -1, EINVAL);
    xenevtchn_close(p.back);
    p.back = NULL;
    p.bport = xenevtchn_bind_interdomain(other, 5, (evtchn_port_t)p.gport);
    assert_true(p.bport > 0);
    take(other, p.bport);
    assert_int_equal(xenevtchn_notify(p.guest, (evtchn_port_t)p.gport), 0);
    take(other, p.bport);
    xenevtchn_close(other);
    xenevtchn_close(p.guest);
}

static int peer_port;

static void bind_in_child(void)
{
    xenevtchn_handle *h = xenevtchn_open(NULL, 0);

    if (!h || xenevtchn_bind_interdomain(h, 5, (evtchn_port_t)peer_port) < 0)
        abort();
}

static void a_killed_peer_leaves_the_port_bindable(void **state)
{
    xenevtchn_handle *guest = open_as(5), *back;
    int bport;
    pid_t pid;

    (void)state;
    peer_port = xenevtchn_bind_unbound_port(guest, 0);
    pid = child_start(bind_in_child);
    back = open_as(0);
    assert_errno(xenevtchn_bind_interdomain(back, 5, (evtchn_port_t)peer_port) == -1, EINVAL);
    for (int i = 0; i < 20; i++) {
        /* As soon as the process was waited for, its end is unbound: no delay, no retry. */
        child_kill(pid);
        assert_int_equal(xenevtchn_notify(guest, (evtchn_port_t)peer_port), 0);
        pid = child_start(bind_in_child);
    }
    child_kill(pid);
    bport = xenevtchn_bind_interdomain(back, 5, (evtchn_port_t)peer_port);
    assert_true(bport > 0);
    take(back, bport);
    xenevtchn_close(guest);
    xenevtchn_close(back);
    assert_true(fx_balanced(machine, 0));
}

static void wrong_ports_are_refused(void **state)
{
    struct pair p = make_pair();
    xenevtchn_handle *third;
    int for_another;

    (void)state;
    assert_int_equal(fx_domain_create(machine, 6, NULL), 0);
    third = open_as(6);
    for_another = xenevtchn_bind_unbound_port(p.guest, 6);
    assert_true(for_another > 0);
    assert_errno(xenevtchn_bind_interdomain(p.back, 5, 200) == -1, EINVAL);
    assert_errno(xenevtchn_bind_interdomain(p.back, 5, 0) == -1, EINVAL);
    assert_errno(xenevtchn_bind_interdomain(p.back, 5, UINT32_MAX) == -1, EINVAL);
    assert_errno(xenevtchn_bind_interdomain(p.back, 40, 1) == -1, ESRCH);
    /* not meant for this domain */
    assert_errno(xenevtchn_bind_interdomain(p.back, 5, (evtchn_port_t)for_another) == -1, EINVAL);
    /* not this handle's */
    assert_errno(xenevtchn_notify(third, (evtchn_port_t)p.gport) == -1, ENOTCONN);
    assert_errno(xenevtchn_unbind(p.back, 77) == -1, ENOTCONN);
    assert_int_equal(xenevtchn_unmask(p.back, 77), 0);
    xenevtchn_close(third);
    close_pair(&p);
}

static void unbind_returns_the_port_to_the_peer(void **state)
{
    struct pair p = make_pair();

    (void)state;
    take(p.back, p.bport);
    assert_int_equal(xenevtchn_unbind(p.back, (evtchn_port_t)p.bport), 0);
    assert_errno(xenevtchn_notify(p.back, (evtchn_port_t)p.bport) == -1, ENOTCONN);
    p.bport = xenevtchn_bind_interdomain(p.back, 5, (evtchn_port_t)p.gport);
    assert_true(p.bport > 0);
    close_pair(&p);
}

static void restrict_confines_to_one_domain(void **state)
{
    xenevtchn_handle *g5 = open_as(5), *g6, *back = open_as(0);
    int p5, p6;

    (void)state;
    assert_int_equal(fx_domain_create(machine, 6, NULL), 0);
    g6 = open_as(6);
    p5 = xenevtchn_bind_unbound_port(g5, 0);
    p6 = xenevtchn_bind_unbound_port(g6, 0);
    assert_errno(xenevtchn_restrict(back, 0) == -1, EINVAL);
    assert_int_equal(xenevtchn_restrict(back, 5), 0);
    assert_errno(xenevtchn_restrict(back, 6) == -1, EACCES);
    assert_errno(xenevtchn_bind_interdomain(back, 6, (evtchn_port_t)p6) == -1, EACCES);
    assert_errno(xenevtchn_bind_virq(back, 3) == -1, EACCES);
    assert_true(xenevtchn_bind_interdomain(back, 5, (evtchn_port_t)p5) > 0);
    xenevtchn_close(g5);
    xenevtchn_close(g6);
    xenevtchn_close(back);
}

static void fdopen_is_the_same_open_file(void **state)
{
    struct pair p = make_pair();
    int copy = dup(xenevtchn_fd(p.back));
    xenevtchn_handle *h;

    (void)state;
    assert_errno(!xenevtchn_fdopen(NULL, copy, XENEVTCHN_NO_CLOEXEC), EINVAL);
    h = xenevtchn_fdopen(NULL, copy, 0);
    assert_non_null(h);
    xenevtchn_close(p.back);         /* the port lives on: the open file does */
    take(h, p.bport);
    assert_int_equal(xenevtchn_notify(h, (evtchn_port_t)p.bport), 0);
    take(p.guest, p.gport);
    xenevtchn_close(h);
    /* Now it does not. */
    h = open_as(0);
    assert_true(xenevtchn_bind_interdomain(h, 5, (evtchn_port_t)p.gport) > 0);
    xenevtchn_close(h);
    xenevtchn_close(p.guest);
}

static void cloexec_is_the_default(void **state)
{
    xenevtchn_handle *a = xenevtchn_open(NULL, 0);
    xenevtchn_handle *b = xenevtchn_open(NULL, XENEVTCHN_NO_CLOEXEC);

    (void)state;
    assert_true(fcntl(xenevtchn_fd(a), F_GETFD) & FD_CLOEXEC);
    assert_false(fcntl(xenevtchn_fd(b), F_GETFD) & FD_CLOEXEC);
    xenevtchn_close(a);
    xenevtchn_close(b);
}

static void nonblocking_pending_says_eagain(void **state)
{
    struct pair p = make_pair();

    (void)state;
    take(p.back, p.bport);
    fcntl(xenevtchn_fd(p.back), F_SETFL, O_NONBLOCK);
    assert_errno(xenevtchn_pending(p.back) == -1, EAGAIN);
    close_pair(&p);
}

static void destroying_the_domain_unbinds(void **state)
{
    struct pair p = make_pair();

    (void)state;
    take(p.back, p.bport);
    assert_int_equal(fx_domain_destroy(machine, 5), 0);
    /* Notifying into the void is no error, as with Xen. */
    assert_int_equal(xenevtchn_notify(p.back, (evtchn_port_t)p.bport), 0);
    assert_errno(xenevtchn_bind_interdomain(p.back, 5, (evtchn_port_t)p.gport) == -1, ESRCH);
    close_pair(&p);
}

static void the_books_see_ports_and_handles(void **state)
{
    struct pair p = make_pair();
    struct fx_stats s;

    (void)state;
    fx_stats(machine, 0, &s);
    assert_int_equal(s.bound, 1);
    assert_int_equal(s.ports, 1);
    assert_int_equal(s.handles, 1);
    assert_false(fx_balanced(machine, 0));
    close_pair(&p);
    assert_true(fx_balanced(machine, 0));
}

static void faults_hit_the_calls_they_name(void **state)
{
    struct pair p = make_pair();
    int slot = fx_fault(machine, "xenevtchn_notify", 0, EIO, 1, 2);

    (void)state;
    assert_int_equal(xenevtchn_notify(p.back, (evtchn_port_t)p.bport), 0);
    assert_int_equal(xenevtchn_notify(p.guest, (evtchn_port_t)p.gport), 0);   /* not domain 0 */
    assert_errno(xenevtchn_notify(p.back, (evtchn_port_t)p.bport) == -1, EIO);
    assert_errno(xenevtchn_notify(p.back, (evtchn_port_t)p.bport) == -1, EIO);
    assert_int_equal(xenevtchn_notify(p.back, (evtchn_port_t)p.bport), 0);
    assert_int_equal(fx_fault_hits(machine, slot), 2);
    fx_fault(machine, "xenevtchn_open", FX_FAULT_ANY, ENODEV, 0, 1);
    assert_errno(!xenevtchn_open(NULL, 0), ENODEV);
    close_pair(&p);
}

static void notify_and_die(void)
{
    xenevtchn_handle *h = xenevtchn_open(NULL, 0);
    int port = xenevtchn_bind_unbound_port(h, 5);

    xenevtchn_notify(h, (evtchn_port_t)port);
    _exit(0);
}

static void a_fault_can_kill(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    fx_fault(machine, "xenevtchn_notify", 0, -1, 0, 1);
    pid = fork();
    if (!pid)
        notify_and_die();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(fx_balanced(machine, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_machine(bind_raises_one_event),
        on_machine(notify_reaches_only_the_peer),
        on_machine(events_coalesce_until_unmask),
        on_machine(a_masked_port_stays_silent),
        on_machine(second_bind_is_refused_while_the_first_lives),
        on_machine(a_killed_peer_leaves_the_port_bindable),
        on_machine(wrong_ports_are_refused),
        on_machine(unbind_returns_the_port_to_the_peer),
        on_machine(restrict_confines_to_one_domain),
        on_machine(fdopen_is_the_same_open_file),
        on_machine(cloexec_is_the_default),
        on_machine(nonblocking_pending_says_eagain),
        on_machine(destroying_the_domain_unbinds),
        on_machine(the_books_see_ports_and_handles),
        on_machine(faults_hit_the_calls_they_name),
        on_machine(a_fault_can_kill),
    };

    return cmocka_run_group_tests_name("evtchn", tests, NULL, NULL);
}
