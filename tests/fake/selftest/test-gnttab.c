/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The fake libxengnttab behaves like Xen's grants under Linux' gntdev and gntalloc. */
#include "config.h"

#include "tests/fake/selftest/selftest.h"

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xentoolcore.h>

#define RW (PROT_READ | PROT_WRITE)

static xengntshr_handle *guest_open(void)
{
    xengntshr_handle *h;

    fx_become(machine, 5);
    h = xengntshr_open(NULL, 0);
    fx_become(machine, 0);
    assert_non_null(h);
    return h;
}

static void both_sides_see_one_page(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    uint32_t ref;
    char *mine = xengntshr_share_pages(g, 0, 1, &ref, 1), *theirs;

    (void)state;
    assert_non_null(mine);
    assert_true(ref >= 8);
    theirs = xengnttab_map_grant_ref(h, 5, ref, RW);
    assert_non_null(theirs);
    mine[7] = 'a';
    assert_int_equal(theirs[7], 'a');
    theirs[4095] = 'z';
    assert_int_equal(mine[4095], 'z');
    assert_false(fx_balanced(machine, 0));
    assert_int_equal(xengnttab_unmap(h, theirs, 1), 0);
    xengnttab_close(h);
    assert_true(fx_balanced(machine, 0));
    xengntshr_close(g);
}

static void several_pages_are_next_to_each_other(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    uint32_t refs[3], swapped[3], dom[3] = { 5, 5, 5 };
    char *mine = xengntshr_share_pages(g, 0, 3, refs, 1), *theirs;

    (void)state;
    memset(mine, 'x', 3 * 4096);
    mine[4095] = '0';
    mine[4096] = '1';
    mine[8192] = '2';
    theirs = xengnttab_map_domain_grant_refs(h, 3, 5, refs, RW);
    assert_non_null(theirs);
    assert_memory_equal(theirs, mine, 3 * 4096);
    assert_int_equal(xengnttab_unmap(h, theirs, 3), 0);
    swapped[0] = refs[2];
    swapped[1] = refs[0];
    swapped[2] = refs[1];
    theirs = xengnttab_map_grant_refs(h, 3, dom, swapped, PROT_READ);
    assert_int_equal(theirs[0], '2');
    assert_int_equal(theirs[8192], '1');
    assert_int_equal(xengnttab_unmap(h, theirs, 3), 0);
    xengnttab_close(h);
    xengntshr_close(g);
}

static void bad_and_foreign_grants_are_refused(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    uint32_t refs[2], mixed[2], other, ro;
    struct fx_stats s;

    (void)state;
    assert_int_equal(fx_domain_create(machine, 6, NULL), 0);
    xengntshr_share_pages(g, 0, 2, refs, 1);
    xengntshr_share_pages(g, 6, 1, &other, 1);
    xengntshr_share_pages(g, 0, 1, &ro, 0);
    assert_errno(!xengnttab_map_grant_ref(h, 5, 12345, RW), EINVAL);
    assert_errno(!xengnttab_map_grant_ref(h, 5, UINT32_MAX, RW), EINVAL);
    assert_errno(!xengnttab_map_grant_ref(h, 5, 0, RW), EINVAL);
    assert_errno(!xengnttab_map_grant_ref(h, 6, refs[0], RW), EINVAL);
    assert_errno(!xengnttab_map_grant_ref(h, 60, refs[0], RW), EINVAL);
    assert_errno(!xengnttab_map_grant_ref(h, 70000, refs[0], RW), EINVAL);
    assert_errno(!xengnttab_map_grant_ref(h, 5, other, RW), EINVAL);
    assert_errno(!xengnttab_map_grant_ref(h, 5, ro, RW), EINVAL);
    /* One bad page spoils the call and leaves nothing mapped. */
    mixed[0] = refs[0];
    mixed[1] = 12345;
    assert_errno(!xengnttab_map_domain_grant_refs(h, 2, 5, mixed, RW), EINVAL);
    fx_stats(machine, 0, &s);
    assert_int_equal(s.live, 0);
    assert_int_equal(s.mapped, 0);
    assert_int_equal(s.map_refused, 9);
    assert_non_null(xengnttab_map_grant_ref(h, 5, ro, PROT_READ));
    xengnttab_close(h);
    xengntshr_close(g);
}

static void a_revoked_grant_is_refused_but_a_mapping_stays(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    uint32_t ref, again;
    char *mine = xengntshr_share_pages(g, 0, 1, &ref, 1), *theirs;

    (void)state;
    theirs = xengnttab_map_grant_ref(h, 5, ref, RW);
    theirs[0] = 's';
    assert_int_equal(xengntshr_unshare(g, mine, 1), 0);
    assert_int_equal(theirs[0], 's');
    assert_errno(!xengnttab_map_grant_ref(h, 5, ref, RW), EINVAL);
    xengntshr_share_pages(g, 0, 1, &again, 1);
    assert_int_not_equal(again, ref);    /* a stale number is never somebody else's page */
    assert_int_equal(xengnttab_unmap(h, theirs, 1), 0);
    xengnttab_close(h);
    xengntshr_close(g);
    assert_true(fx_balanced(machine, 0));
}

static void unmap_wants_what_was_mapped(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    uint32_t refs[2];
    char *theirs;

    (void)state;
    xengntshr_share_pages(g, 0, 2, refs, 1);
    theirs = xengnttab_map_domain_grant_refs(h, 2, 5, refs, RW);
    assert_errno(xengnttab_unmap(h, theirs, 1) == -1, EINVAL);
    assert_errno(xengnttab_unmap(h, theirs + 4096, 1) == -1, EINVAL);
    assert_errno(xengnttab_unmap(h, NULL, 2) == -1, EINVAL);
    assert_int_equal(xengnttab_unmap(h, theirs, 2), 0);
    assert_errno(xengnttab_unmap(h, theirs, 2) == -1, EINVAL);
    xengnttab_close(h);
    xengntshr_close(g);
}

static uint32_t shared_ref;

static void map_in_child(void)
{
    xengnttab_handle *h = xengnttab_open(NULL, 0);

    if (!h || !xengnttab_map_grant_ref(h, 5, shared_ref, RW))
        abort();
}

static void a_killed_process_is_counted_and_cleaned(void **state)
{
    xengntshr_handle *g = guest_open();
    struct fx_stats s;
    pid_t pid;

    (void)state;
    xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    pid = child_start(map_in_child);
    fx_stats(machine, 0, &s);
    assert_int_equal(s.live, 1);
    child_kill(pid);
    fx_stats(machine, 0, &s);
    assert_int_equal(s.live, 0);
    assert_int_equal(s.mapped, 1);
    assert_int_equal(s.unmapped, 0);
    assert_int_equal(s.reclaimed, 1);
    assert_true(fx_balanced(machine, 0));
    xengntshr_close(g);
}

static void a_mapping_outlives_its_handle_and_keeps_the_domain(void **state)
{
    xengntshr_handle *g = guest_open();
    pid_t pid;

    (void)state;
    xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    pid = child_start(map_in_child);
    assert_int_equal(fx_domain_destroy(machine, 5), 0);
    assert_int_equal(fx_domain_state(machine, 5), FX_DOM_DYING);
    child_kill(pid);
    assert_int_equal(fx_domain_state(machine, 5), FX_DOM_NONE);
    xengntshr_close(g);
}

static void close_without_unmap_shows_in_the_books(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    char *theirs;

    (void)state;
    xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    theirs = xengnttab_map_grant_ref(h, 5, shared_ref, RW);
    xengnttab_close(h);
    theirs[0] = 1;                   /* still there, as with gntdev */
    assert_false(fx_balanced(machine, 0));
    xengntshr_close(g);
}

static void a_forked_child_has_no_mapping(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    volatile char *theirs;
    int status;
    pid_t pid;

    (void)state;
    xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    theirs = xengnttab_map_grant_ref(h, 5, shared_ref, RW);
    pid = fork();
    if (!pid) {
        signal(SIGSEGV, SIG_DFL);
        _exit(theirs[0]);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    xengnttab_unmap(h, (void *)(uintptr_t)theirs, 1);
    xengnttab_close(h);
    xengntshr_close(g);
}

static void restriction_ends_mapping_and_unmapping(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h;
    xenevtchn_handle *ev;
    char *theirs;
    int status;
    pid_t pid;

    (void)state;
    xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    pid = fork();
    if (!pid) {
        /* In a process of its own: it is for all handles, the test's as well. */
        h = xengnttab_open(NULL, 0);
        ev = xenevtchn_open(NULL, 0);
        theirs = xengnttab_map_grant_ref(h, 5, shared_ref, RW);
        if (!theirs || xentoolcore_restrict_all(5))
            _exit(1);
        theirs[0] = 'k';
        if (xengnttab_map_grant_ref(h, 5, shared_ref, RW) || errno != ENOTTY)
            _exit(2);
        if (xengnttab_unmap(h, theirs, 1) != -1 || errno != ENOTTY)
            _exit(3);
        if (xenevtchn_bind_virq(ev, 1) != -1 || errno != EACCES)
            _exit(4);
        if (xenevtchn_bind_unbound_port(ev, 5) < 0)
            _exit(5);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_true(fx_balanced(machine, 0));
    xengntshr_close(g);
}

static void an_unmap_notification_reaches_the_granter(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    xenevtchn_handle *ev = xenevtchn_open(NULL, 0), *gev;
    char *mine, *theirs;
    int gport, port;

    (void)state;
    mine = xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    fx_become(machine, 5);
    gev = xenevtchn_open(NULL, 0);
    fx_become(machine, 0);
    gport = xenevtchn_bind_unbound_port(gev, 0);
    port = xenevtchn_bind_interdomain(ev, 5, (evtchn_port_t)gport);
    mine[100] = 1;
    theirs = xengnttab_map_grant_ref_notify(h, 5, shared_ref, RW, 100, (evtchn_port_t)port);
    assert_non_null(theirs);
    assert_false(readable(xenevtchn_fd(gev)));
    assert_int_equal(xengnttab_unmap(h, theirs, 1), 0);
    assert_int_equal(mine[100], 0);
    assert_true(readable(xenevtchn_fd(gev)));
    xengnttab_close(h);
    xenevtchn_close(ev);
    xenevtchn_close(gev);
    xengntshr_close(g);
}

static void grant_copy_goes_both_ways(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    char buf[16] = "to the guest", *mine = xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    xengnttab_grant_copy_segment_t s[2] = {
        { .source.virt = buf, .dest.foreign = { shared_ref, 50, 5 }, .len = 12,
          .flags = GNTCOPY_dest_gref },
        { .source.foreign = { 999, 0, 5 }, .dest.virt = buf, .len = 4,
          .flags = GNTCOPY_source_gref },
    };

    (void)state;
    assert_int_equal(xengnttab_grant_copy(h, 2, s), 0);
    assert_int_equal(s[0].status, GNTST_okay);
    assert_int_equal(s[1].status, GNTST_bad_gntref);
    assert_memory_equal(mine + 50, "to the guest", 12);
    xengnttab_close(h);
    xengntshr_close(g);
}

static void faults_hit_maps(void **state)
{
    xengntshr_handle *g = guest_open();
    xengnttab_handle *h = xengnttab_open(NULL, 0);
    char *theirs;

    (void)state;
    xengntshr_share_pages(g, 0, 1, &shared_ref, 1);
    fx_fault(machine, "xengnttab_map", 0, ENOMEM, 0, 1);
    fx_fault(machine, "xengnttab_unmap", 0, EIO, 0, 1);
    assert_errno(!xengnttab_map_grant_ref(h, 5, shared_ref, RW), ENOMEM);
    theirs = xengnttab_map_grant_ref(h, 5, shared_ref, RW);
    assert_errno(xengnttab_unmap(h, theirs, 1) == -1, EIO);
    assert_int_equal(xengnttab_unmap(h, theirs, 1), 0);
    xengnttab_close(h);
    xengntshr_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_machine(both_sides_see_one_page),
        on_machine(several_pages_are_next_to_each_other),
        on_machine(bad_and_foreign_grants_are_refused),
        on_machine(a_revoked_grant_is_refused_but_a_mapping_stays),
        on_machine(unmap_wants_what_was_mapped),
        on_machine(a_killed_process_is_counted_and_cleaned),
        on_machine(a_mapping_outlives_its_handle_and_keeps_the_domain),
        on_machine(close_without_unmap_shows_in_the_books),
        on_machine(a_forked_child_has_no_mapping),
        on_machine(restriction_ends_mapping_and_unmapping),
        on_machine(an_unmap_notification_reaches_the_granter),
        on_machine(grant_copy_goes_both_ways),
        on_machine(faults_hit_maps),
    };

    return cmocka_run_group_tests_name("gnttab", tests, NULL, NULL);
}
