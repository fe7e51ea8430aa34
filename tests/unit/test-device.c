/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of a device's life, its classifier, its parsers, and admission. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "libxl-vtpm/admission.h"
#include "libxl-vtpm/device.h"

/*
 * The whole table once more, as letters, written down independently of the
 * code: rows are states, columns events, a cell is the state that follows;
 * '-' is illegal, '.' stays. A changed cell has to be changed here as well.
 */
struct row {
    enum xlv_device_state state;
    char letter;
    const char *cells;
};

/* columns: nothing init ring new-ring closing closed end end-closed gone |
 *          admit admit-found refuse claimed ready exit fatal adopted retry deadline */
static const struct row rows[XLV_DEVICE_STATES] = {
    { XLV_DEVICE_UNDECIDED, 'u', "......hex" "wwr---f---" },
    { XLV_DEVICE_REFUSED, 'r', "........x" "----------" },
    { XLV_DEVICE_WAITING, 'w', "....dchex" "---o--f---" },
    { XLV_DEVICE_OPEN, 'o', "..ssdchex" "----------" },
    { XLV_DEVICE_STARTING, 's', ".p.pllnnv" "----Stf---" },
    { XLV_DEVICE_SERVING, 'S', ".p.pllnnv" "-----tf---" },
    { XLV_DEVICE_RESTARTING, 't', "....dchex" "------f-o-" },
    { XLV_DEVICE_REPLACING, 'p', "....llnnv" "----.tf---" },
    { XLV_DEVICE_CLOSING, 'l', "......nnv" "----.dd---" },
    { XLV_DEVICE_HOLDING, 'd', ".ccc.chex" "----------" },
    { XLV_DEVICE_CLOSED, 'c', ".uuu..eex" "----------" },
    { XLV_DEVICE_ENDING, 'n', "........v" "----.hh---" },
    { XLV_DEVICE_ENDING_HOLD, 'h', ".......ex" "---------e" },
    { XLV_DEVICE_ENDED, 'e', "........x" "----------" },
    { XLV_DEVICE_FAILED, 'f', "......eex" "----------" },
    { XLV_DEVICE_VANISHING, 'v', "........." "----.xx---" },
    { XLV_DEVICE_ADOPTING, 'a', "........." "-----ttS--" },
    { XLV_DEVICE_GONE, 'x', "---------" "----------" },
};

static void every_pair_is_legal_with_its_successor_or_rejected(void **state)
{
    int legal = 0, illegal = 0;

    (void)state;
    for (size_t i = 0; i < XLV_DEVICE_STATES; i++) {
        assert_int_equal(rows[i].state, i);
        assert_int_equal(strlen(rows[i].cells), XLV_DEVICE_EVENTS);
        for (unsigned ev = 0; ev < XLV_DEVICE_EVENTS; ev++) {
            struct xlv_device_step step = { .actions = 0xdead, .next = 99 };
            int rc = xlv_device_next(rows[i].state, ev, &step);
            char cell = rows[i].cells[ev];

            if (cell == '-') {
                assert_int_equal(rc, XLV_E_INVALID);
                assert_int_equal(step.actions, 0xdead);
                illegal++;
                continue;
            }
            if (rc)
                fail_msg("%s in %s is rejected", xlv_device_event_name(ev),
                         xlv_device_state_name(rows[i].state));
            if (cell == '.')
                cell = rows[i].letter;
            if (rows[step.next].letter != cell)
                fail_msg("%s in %s leads to %s", xlv_device_event_name(ev),
                         xlv_device_state_name(rows[i].state), xlv_device_state_name(step.next));
            legal++;
        }
    }
    assert_int_equal(legal + illegal, XLV_DEVICE_STATES * XLV_DEVICE_EVENTS);
    print_message("# %d legal pairs, %d rejected\n", legal, illegal);
}

static void values_outside_of_the_table_are_rejected(void **state)
{
    struct xlv_device_step step;

    (void)state;
    assert_int_equal(xlv_device_next(XLV_DEVICE_STATES, XLV_SEE_INIT, &step), XLV_E_INVALID);
    assert_int_equal(xlv_device_next(XLV_DEVICE_OPEN, XLV_DEVICE_EVENTS, &step), XLV_E_INVALID);
    assert_int_equal(xlv_device_next((enum xlv_device_state)-1, XLV_SEE_INIT, &step),
                     XLV_E_INVALID);
}

/* What has to hold for every transition, whatever the table says. */
static void actions_keep_the_invariants(void **state)
{
    (void)state;
    for (unsigned s = 0; s < XLV_DEVICE_STATES; s++)
        for (unsigned ev = 0; ev < XLV_DEVICE_EVENTS; ev++) {
            struct xlv_device_step step;
            bool process, ended;

            if (xlv_device_next(s, ev, &step))
                continue;
            process = xlv_device_has_process(s);
            ended = ev == XLV_EVENT_EXIT || ev == XLV_EVENT_FATAL;
            /* who has a process keeps it until it is gone; who gets one starts it */
            if (process && !ended)
                assert_true(xlv_device_has_process(step.next));
            if (!process && xlv_device_has_process(step.next))
                assert_true(step.actions & XLV_ACT_START);
            if (step.actions & XLV_ACT_START)
                assert_false(process);
            if (step.actions & XLV_ACT_STOP)
                assert_true(process);
            /* Closed is never said while a process may still touch the guest's page */
            if (step.actions & XLV_ACT_STATE_CLOSED)
                assert_false(xlv_device_has_process(step.next));
            /* nor is the instance let go */
            if (step.actions & XLV_ACT_RELEASE)
                assert_false(xlv_device_has_process(step.next));
            if (step.actions & XLV_ACT_FORGET)
                assert_int_equal(step.next, XLV_DEVICE_GONE);
            /* the leaf goes only when the end was said, or when there was no beginning */
            if (step.actions & XLV_ACT_REMOVE_LEAF)
                assert_true((step.next == XLV_DEVICE_ENDED &&
                             step.actions & XLV_ACT_STATE_CLOSED) ||
                            (s == XLV_DEVICE_REFUSED && step.next == XLV_DEVICE_REFUSED));
            /* one new backend state at most */
            int writes = !!(step.actions & XLV_ACT_INIT_WAIT) +
                         !!(step.actions & XLV_ACT_STATE_CONNECTED) +
                         !!(step.actions & XLV_ACT_STATE_CLOSING) +
                         !!(step.actions & XLV_ACT_STATE_CLOSED);
            assert_true(writes <= 1);
        }
}

static unsigned actions_of(enum xlv_device_state s, enum xlv_device_event ev)
{
    struct xlv_device_step step;

    assert_int_equal(xlv_device_next(s, ev, &step), 0);
    return step.actions;
}

static void the_actions_that_xen_counts_on_are_there(void **state)
{
    (void)state;
    assert_int_equal(actions_of(XLV_DEVICE_UNDECIDED, XLV_EVENT_ADMIT),
                     XLV_ACT_INIT_WAIT | XLV_ACT_CLAIM);
    assert_int_equal(actions_of(XLV_DEVICE_UNDECIDED, XLV_EVENT_ADMIT_FOUND), XLV_ACT_CLAIM);
    assert_int_equal(actions_of(XLV_DEVICE_UNDECIDED, XLV_EVENT_REFUSE),
                     XLV_ACT_ERROR | XLV_ACT_REFUSE);
    assert_int_equal(actions_of(XLV_DEVICE_OPEN, XLV_SEE_RING), XLV_ACT_START);
    assert_int_equal(actions_of(XLV_DEVICE_STARTING, XLV_EVENT_READY), XLV_ACT_STATE_CONNECTED);
    /* a crash is invisible: no state is written */
    assert_int_equal(actions_of(XLV_DEVICE_SERVING, XLV_EVENT_EXIT), XLV_ACT_ARM_RETRY);
    assert_int_equal(actions_of(XLV_DEVICE_RESTARTING, XLV_EVENT_RETRY), 0);
    /* a closing frontend sees 5 at once, and 6 only after its own 6 */
    assert_int_equal(actions_of(XLV_DEVICE_SERVING, XLV_SEE_CLOSING),
                     XLV_ACT_STATE_CLOSING | XLV_ACT_STOP);
    assert_int_equal(actions_of(XLV_DEVICE_CLOSING, XLV_EVENT_EXIT), XLV_ACT_RELEASE);
    assert_int_equal(actions_of(XLV_DEVICE_HOLDING, XLV_SEE_CLOSING), 0);
    assert_int_equal(actions_of(XLV_DEVICE_HOLDING, XLV_SEE_CLOSED), XLV_ACT_STATE_CLOSED);
    assert_int_equal(actions_of(XLV_DEVICE_ENDING, XLV_EVENT_EXIT),
                     XLV_ACT_RELEASE | XLV_ACT_ARM_DEADLINE);
    assert_int_equal(actions_of(XLV_DEVICE_ENDING_HOLD, XLV_EVENT_DEADLINE),
                     XLV_ACT_STATE_CLOSED | XLV_ACT_REMOVE_LEAF);
    /* told to stop by a guest's close; a toolstack that waits has less patience */
    assert_int_equal(actions_of(XLV_DEVICE_CLOSING, XLV_SEE_END), XLV_ACT_STOP);
    assert_int_equal(actions_of(XLV_DEVICE_CLOSING, XLV_SEE_END_CLOSED), XLV_ACT_STOP);
    assert_int_equal(actions_of(XLV_DEVICE_REPLACING, XLV_SEE_END),
                     XLV_ACT_STOP | XLV_ACT_STATE_CLOSING);
    assert_int_equal(actions_of(XLV_DEVICE_REPLACING, XLV_SEE_END_CLOSED),
                     XLV_ACT_STOP | XLV_ACT_STATE_CLOSING);
    /* a re-probe or resume without any handshake */
    assert_int_equal(actions_of(XLV_DEVICE_SERVING, XLV_SEE_NEW_RING), XLV_ACT_STOP);
    assert_int_equal(actions_of(XLV_DEVICE_REPLACING, XLV_EVENT_EXIT), XLV_ACT_ARM_RETRY);
}

/* The same view, classified again and again, brings every state to rest. */
static void no_view_keeps_a_device_moving(void **state)
{
    long views = 0;

    (void)state;
    for (unsigned s = 0; s < XLV_DEVICE_GONE; s++)
        for (unsigned bits = 0; bits < 256; bits++)
            for (unsigned frontend = 0; frontend <= XLV_XENBUS_CLOSED; frontend++) {
                struct xlv_device_view view = {
                    .exists = bits & 1,
                    .online = bits & 2,
                    .domain_dead = bits & 4,
                    .frontend_exists = bits & 8,
                    .has_ring = bits & 16,
                    .frontend = frontend,
                    .ring = { 8, 3 },
                };
                struct xlv_served served = {
                    .any = xlv_device_has_process(s),
                    .stale = bits & 32,
                    .was_connected = bits & 64,
                    .ring = { bits & 128 ? 9 : 8, 3 },
                };
                enum xlv_device_state now = s;
                int steps = 0;

                views++;
                while (now != XLV_DEVICE_GONE) {
                    struct xlv_device_step step;

                    assert_int_equal(
                        xlv_device_next(now, xlv_device_classify(&view, &served), &step), 0);
                    if (step.next == now)
                        break;
                    if (step.actions & XLV_ACT_START)
                        served = (struct xlv_served){ .any = true, .ring = view.ring };
                    now = step.next;
                    if (++steps > 6)
                        fail_msg("no rest from %s", xlv_device_state_name(s));
                }
            }
    print_message("# %ld views\n", views);
}

static void the_frontend_is_named_by_what_it_says(void **state)
{
    static const struct {
        enum xlv_xenbus frontend;
        bool has_ring;
        enum xlv_device_event event;
    } cases[] = {
        { XLV_XENBUS_UNKNOWN, true, XLV_SEE_NOTHING },
        { XLV_XENBUS_INITIALISING, true, XLV_SEE_INIT },
        { XLV_XENBUS_INIT_WAIT, true, XLV_SEE_INIT },
        { XLV_XENBUS_INITIALISED, true, XLV_SEE_RING },
        { XLV_XENBUS_INITIALISED, false, XLV_SEE_NOTHING },
        { XLV_XENBUS_CONNECTED, true, XLV_SEE_RING },
        { XLV_XENBUS_CONNECTED, false, XLV_SEE_NOTHING },
        { XLV_XENBUS_CLOSING, true, XLV_SEE_CLOSING },
        { XLV_XENBUS_CLOSED, true, XLV_SEE_CLOSED },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct xlv_device_view view = {
            .exists = true, .online = true, .frontend_exists = true,
            .frontend = cases[i].frontend, .has_ring = cases[i].has_ring, .ring = { 8, 3 },
        };
        struct xlv_served none = { .any = false };

        assert_int_equal(xlv_device_classify(&view, &none), cases[i].event);
    }
}

static void the_toolstack_goes_before_the_frontend(void **state)
{
    struct xlv_served none = { .any = false };
    struct xlv_device_view view = {
        .exists = true, .online = false, .frontend_exists = true,
        .frontend = XLV_XENBUS_CONNECTED, .has_ring = true,
    };

    (void)state;
    assert_int_equal(xlv_device_classify(&view, &none), XLV_SEE_END);
    view.frontend = XLV_XENBUS_CLOSED;
    assert_int_equal(xlv_device_classify(&view, &none), XLV_SEE_END_CLOSED);
    view.frontend = XLV_XENBUS_CONNECTED;
    view.frontend_exists = false;
    assert_int_equal(xlv_device_classify(&view, &none), XLV_SEE_END_CLOSED);
    view.online = true;
    assert_int_equal(xlv_device_classify(&view, &none), XLV_SEE_CLOSED);
    view.frontend_exists = true;
    view.domain_dead = true;
    assert_int_equal(xlv_device_classify(&view, &none), XLV_SEE_END_CLOSED);
    view.exists = false;
    assert_int_equal(xlv_device_classify(&view, &none), XLV_SEE_GONE);
}

static void another_ring_is_seen(void **state)
{
    struct xlv_device_view view = {
        .exists = true, .online = true, .frontend_exists = true,
        .frontend = XLV_XENBUS_CONNECTED, .has_ring = true, .ring = { 8, 3 },
    };
    struct xlv_served served = { .any = true, .ring = { 8, 3 } };

    (void)state;
    assert_int_equal(xlv_device_classify(&view, &served), XLV_SEE_RING);
    served.ring.ring_ref = 9;
    assert_int_equal(xlv_device_classify(&view, &served), XLV_SEE_NEW_RING);
    served.ring = (struct xlv_ring){ 8, 4 };
    assert_int_equal(xlv_device_classify(&view, &served), XLV_SEE_NEW_RING);
    served.ring = view.ring;
    served.stale = true;
    assert_int_equal(xlv_device_classify(&view, &served), XLV_SEE_NEW_RING);
    served.stale = false;
    served.was_connected = true;
    assert_int_equal(xlv_device_classify(&view, &served), XLV_SEE_RING);
    view.frontend = XLV_XENBUS_INITIALISED;
    assert_int_equal(xlv_device_classify(&view, &served), XLV_SEE_NEW_RING);
    served.was_connected = false;
    assert_int_equal(xlv_device_classify(&view, &served), XLV_SEE_RING);
}

static void numbers_are_digits_within_bounds_and_nothing_else(void **state)
{
    static const char *const bad[] = {
        "", " 1", "1 ", "+1", "-1", "0x1", "01", "00", "1\n", "4294967296", "99999999999",
        "18446744073709551617", "a", "1a", "\xd9\xa1",
    };
    uint32_t n = 77;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(xlv_parse_number(bad[i], strlen(bad[i]), UINT32_MAX, &n), XLV_E_INVALID);
        assert_int_equal(n, 77);
    }
    /* a NUL inside is no end */
    assert_int_equal(xlv_parse_number("1\0002", 3, UINT32_MAX, &n), XLV_E_INVALID);
    assert_int_equal(xlv_parse_number("0", 1, 5, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(xlv_parse_number("4294967295", 10, UINT32_MAX, &n), 0);
    assert_int_equal(n, UINT32_MAX);
    assert_int_equal(xlv_parse_number("5", 1, 5, &n), 0);
    assert_int_equal(xlv_parse_number("6", 1, 5, &n), XLV_E_INVALID);
    /* only length bytes are looked at */
    assert_int_equal(xlv_parse_number("123456", 3, UINT32_MAX, &n), 0);
    assert_int_equal(n, 123);
}

static void states_and_bools_that_do_not_parse_are_not_guessed(void **state)
{
    bool b = true;

    (void)state;
    assert_int_equal(xlv_parse_xenbus("4", 1), XLV_XENBUS_CONNECTED);
    assert_int_equal(xlv_parse_xenbus("0", 1), XLV_XENBUS_UNKNOWN);
    assert_int_equal(xlv_parse_xenbus("7", 1), XLV_XENBUS_UNKNOWN);
    assert_int_equal(xlv_parse_xenbus("04", 2), XLV_XENBUS_UNKNOWN);
    assert_int_equal(xlv_parse_xenbus("", 0), XLV_XENBUS_UNKNOWN);
    assert_int_equal(xlv_parse_bool("0", 1, &b), 0);
    assert_false(b);
    assert_int_equal(xlv_parse_bool("True", 4, &b), 0);
    assert_true(b);
    assert_int_equal(xlv_parse_bool("False", 5, &b), 0);
    assert_false(b);
    b = true;
    assert_int_equal(xlv_parse_bool("true", 4, &b), XLV_E_INVALID);
    assert_int_equal(xlv_parse_bool("2", 1, &b), XLV_E_INVALID);
    assert_int_equal(xlv_parse_bool("", 0, &b), XLV_E_INVALID);
    assert_true(b);
}

static void paths_and_listener_names_are_taken_apart(void **state)
{
    uint32_t domid = 0, dev = 0;
    int64_t devid = 0;

    (void)state;
    assert_int_equal(xlv_parse_device_path("5/0", &domid, &devid), 0);
    assert_int_equal(domid, 5);
    assert_int_equal(devid, 0);
    assert_int_equal(xlv_parse_device_path("17/3/state", &domid, &devid), 0);
    assert_int_equal(domid, 17);
    assert_int_equal(devid, 3);
    assert_int_equal(xlv_parse_device_path("17", &domid, &devid), 0);
    assert_int_equal(devid, -1);
    assert_int_equal(xlv_parse_device_path("", &domid, &devid), XLV_E_INVALID);
    assert_int_equal(xlv_parse_device_path("x/0", &domid, &devid), XLV_E_INVALID);
    assert_int_equal(xlv_parse_device_path("5/", &domid, &devid), XLV_E_INVALID);
    assert_int_equal(xlv_parse_device_path("5/256", &domid, &devid), XLV_E_INVALID);
    assert_int_equal(xlv_parse_device_path("32752/0", &domid, &devid), XLV_E_INVALID);
    assert_int_equal(xlv_parse_device_path("5/0x", &domid, &devid), XLV_E_INVALID);

    assert_int_equal(xlv_parse_listener_name("5-0", &domid, &dev), 0);
    assert_int_equal(xlv_parse_listener_name("5-0.tmp", &domid, &dev), XLV_E_INVALID);
    assert_int_equal(xlv_parse_listener_name("5", &domid, &dev), XLV_E_INVALID);
    assert_int_equal(xlv_parse_listener_name("-", &domid, &dev), XLV_E_INVALID);
}

static void a_received_domain_loses_its_suffix(void **state)
{
    char a[] = "web--incoming", b[] = "--incoming", c[] = "web--incoming2", d[] = "web";

    (void)state;
    assert_true(xlv_strip_incoming(a));
    assert_string_equal(a, "web");
    assert_false(xlv_strip_incoming(b));
    assert_false(xlv_strip_incoming(c));
    assert_false(xlv_strip_incoming(d));
}

static void admission_follows_the_rules(void **state)
{
    static const struct {
        struct xlv_admission facts;
        enum xlv_admission_why why;
    } cases[] = {
        { { 0, XLV_LIFE_READY, XLV_HOLDER_NONE, false, false }, XLV_WHY_ADMITTED },
        { { 0, XLV_LIFE_NEW, XLV_HOLDER_NONE, false, false }, XLV_WHY_ADMITTED },
        { { 0, XLV_LIFE_QUARANTINED, XLV_HOLDER_NONE, false, false }, XLV_WHY_QUARANTINED },
        { { 0, XLV_LIFE_QUARANTINED, XLV_HOLDER_LIVE, true, true }, XLV_WHY_QUARANTINED },
        { { XLV_E_REFUSED, XLV_LIFE_NEW, XLV_HOLDER_NONE, false, false }, XLV_WHY_UNRESOLVED },
        { { -28, XLV_LIFE_NEW, XLV_HOLDER_NONE, true, true }, XLV_WHY_UNRESOLVED },
        { { 0, XLV_LIFE_READY, XLV_HOLDER_LIVE, false, false }, XLV_WHY_IN_USE },
        { { 0, XLV_LIFE_READY, XLV_HOLDER_CLOSING, false, false }, XLV_WHY_WAITS },
        { { 0, XLV_LIFE_READY, XLV_HOLDER_LIVE, true, false }, XLV_WHY_WAITS },
        { { 0, XLV_LIFE_READY, XLV_HOLDER_LIVE, false, true }, XLV_WHY_WAITS },
        { { 0, XLV_LIFE_NEW, XLV_HOLDER_LIVE, false, false }, XLV_WHY_IN_USE },
        /* nobody knows whether it was restored */
        { { .life = XLV_LIFE_READY, .untold = true, .refuse_untold = true }, XLV_WHY_UNTOLD },
        { { .life = XLV_LIFE_READY, .untold = true }, XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .untold = true, .refuse_untold = true, .past = true },
          XLV_WHY_ADMITTED },
        /* restored: the state of its own save, or what an administrator says, or nothing */
        { { .life = XLV_LIFE_READY, .restored = true, .kept = true }, XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .restored = true }, XLV_WHY_OTHER_SAVE },
        { { .life = XLV_LIFE_NEW, .restored = true }, XLV_WHY_OTHER_SAVE },
        { { .life = XLV_LIFE_READY, .restored = true, .accept = XLV_ACCEPT_RESET },
          XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .restored = true, .accept = XLV_ACCEPT_KEPT },
          XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .restored = true, .past = true }, XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .restored = true, .kept = true, .incoming = true,
            .holder = XLV_HOLDER_LIVE }, XLV_WHY_WAITS },
        { { .life = XLV_LIFE_QUARANTINED, .restored = true, .kept = true },
          XLV_WHY_QUARANTINED },
        /* a boot that was not measured */
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_DEPARTED }, XLV_WHY_ELSEWHERE },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_DEPARTED, .on_its_way = true },
          XLV_WHY_ELSEWHERE },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_DEPARTED, .past = true },
          XLV_WHY_ELSEWHERE },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_DEPARTED, .past = true,
            .on_its_way = true }, XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_ARRIVING }, XLV_WHY_ELSEWHERE },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_ARRIVING, .incoming = true,
            .restored = true, .kept = true }, XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_ARRIVING, .incoming = true,
            .restored = true }, XLV_WHY_OTHER_SAVE },
        { { .life = XLV_LIFE_NEW, .handover = XLV_HANDOVER_ARRIVING, .incoming = true,
            .restored = true, .kept = true }, XLV_WHY_ELSEWHERE },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_DEPARTED, .incoming = true,
            .restored = true, .kept = true }, XLV_WHY_ELSEWHERE },
        { { .life = XLV_LIFE_NEW, .handover = XLV_HANDOVER_ARRIVING, .past = true },
          XLV_WHY_ELSEWHERE },
        { { .life = XLV_LIFE_READY, .handover = XLV_HANDOVER_DEPARTING }, XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .late = true }, XLV_WHY_ADMITTED },
        { { .life = XLV_LIFE_READY, .late = true, .refuse_late = true }, XLV_WHY_LATE },
        { { .life = XLV_LIFE_READY, .late = true, .refuse_late = true, .past = true },
          XLV_WHY_ADMITTED },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (xlv_admission_decide(&cases[i].facts) != cases[i].why)
            fail_msg("case %zu", i);
}

static void a_holder_is_live_until_it_shows_that_it_goes(void **state)
{
    const struct xlv_device_view live = {
        .exists = true, .online = true, .frontend_exists = true, .frontend = XLV_XENBUS_CONNECTED,
    };
    struct xlv_device_view v;

    (void)state;
    assert_int_equal(xlv_admission_holder(XLV_DEVICE_SERVING, &live), XLV_HOLDER_LIVE);
    assert_int_equal(xlv_admission_holder(XLV_DEVICE_OPEN, &live), XLV_HOLDER_LIVE);
    assert_int_equal(xlv_admission_holder(XLV_DEVICE_RESTARTING, &live), XLV_HOLDER_LIVE);
    assert_int_equal(xlv_admission_holder(XLV_DEVICE_ADOPTING, &live), XLV_HOLDER_LIVE);
    assert_int_equal(xlv_admission_holder(XLV_DEVICE_CLOSING, &live), XLV_HOLDER_CLOSING);
    assert_int_equal(xlv_admission_holder(XLV_DEVICE_ENDING, &live), XLV_HOLDER_CLOSING);
    assert_int_equal(xlv_admission_holder(XLV_DEVICE_VANISHING, &live), XLV_HOLDER_CLOSING);
#define GOES(change) \
    do { \
        v = live; \
        v.change; \
        assert_int_equal(xlv_admission_holder(XLV_DEVICE_SERVING, &v), XLV_HOLDER_CLOSING); \
    } while (0)
    GOES(exists = false);
    GOES(online = false);
    GOES(domain_dead = true);
    GOES(frontend_exists = false);
    GOES(frontend = XLV_XENBUS_CLOSING);
    GOES(frontend = XLV_XENBUS_CLOSED);
#undef GOES
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_is_legal_with_its_successor_or_rejected),
        cmocka_unit_test(values_outside_of_the_table_are_rejected),
        cmocka_unit_test(actions_keep_the_invariants),
        cmocka_unit_test(the_actions_that_xen_counts_on_are_there),
        cmocka_unit_test(no_view_keeps_a_device_moving),
        cmocka_unit_test(the_frontend_is_named_by_what_it_says),
        cmocka_unit_test(the_toolstack_goes_before_the_frontend),
        cmocka_unit_test(another_ring_is_seen),
        cmocka_unit_test(numbers_are_digits_within_bounds_and_nothing_else),
        cmocka_unit_test(states_and_bools_that_do_not_parse_are_not_guessed),
        cmocka_unit_test(paths_and_listener_names_are_taken_apart),
        cmocka_unit_test(a_received_domain_loses_its_suffix),
        cmocka_unit_test(admission_follows_the_rules),
        cmocka_unit_test(a_holder_is_live_until_it_shows_that_it_goes),
    };

    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
