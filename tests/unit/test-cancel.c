/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The watch over a running command. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "backend/cancel.h"
#include "backend/engine.h"
#include "backend/ring.h"

static volatile sig_atomic_t cancelled;

/* libtpms is not wanted here. */
void xlv_engine_cancel(void)
{
    cancelled++;
}

static uint8_t page[XLV_RING_HEADER_SIZE];

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* A command: computes until it is cancelled, or for that long. */
static void compute(int64_t ms)
{
    int64_t end = now_ms() + ms;

    while (!cancelled && now_ms() < end)
        continue;
}

static int up(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    cancelled = 0;
    xlv_ring_set_state(page, XLV_RING_SUBMIT);
    assert_int_equal(xlv_cancel_init(&e), 0);
    return 0;
}

static int down(void **state)
{
    (void)state;
    xlv_cancel_deinit();
    return 0;
}

static void a_command_that_computes_is_cancelled(void **state)
{
    (void)state;
    xlv_cancel_begin(page);
    xlv_ring_set_state(page, XLV_RING_CANCEL);
    compute(60000);
    xlv_cancel_end();
    assert_true(cancelled);
}

static void what_comes_after_the_command_is_not_cancelled(void **state)
{
    (void)state;
    xlv_cancel_begin(page);
    xlv_cancel_end();
    xlv_ring_set_state(page, XLV_RING_CANCEL);
    compute(20 * XLV_CANCEL_POLL_MS);
    assert_int_equal(cancelled, 0);
    /* and the next one is, whether or not the timer ran out in between */
    xlv_cancel_begin(page);
    compute(60000);
    xlv_cancel_end();
    assert_true(cancelled);
}

/* Who is woken by a signal waits for a processor among those that compute; a command that comes
 * meanwhile waits with it, for some milliseconds on a busy machine. */
static void who_waits_for_the_next_command_is_left_asleep(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        xlv_cancel_begin(page);
        xlv_cancel_end();
        assert_int_equal(poll(NULL, 0, 5 * XLV_CANCEL_POLL_MS), 0);
    }
}

/* Of one turn on the processor, as the kernel has it noted; 0 where it does not tell. */
static uint64_t slice_ms(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } has = { 0 };

    assert_int_equal(syscall(SYS_sched_getattr, 0, &has, sizeof(has), 0), 0);
    assert_int_equal(has.policy, SCHED_OTHER);
    return has.runtime / 1000000;
}

static void a_long_command_steps_back_until_it_is_done(void **state)
{
    uint64_t before = slice_ms();

    (void)state;
    if (!before) {
        print_message("# this kernel does not tell (6.12 does)\n");
        return;
    }
    assert_true(before < XLV_LONG_SLICE_MS);
    for (int i = 0; i < 3; i++) {
        int64_t end = now_ms() + 60000;

        xlv_cancel_begin(page);
        while (slice_ms() != XLV_LONG_SLICE_MS && now_ms() < end)
            continue;
        assert_int_equal(slice_ms(), XLV_LONG_SLICE_MS);
        xlv_cancel_end();
        assert_int_equal(slice_ms(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_command_that_computes_is_cancelled, up, down),
        cmocka_unit_test_setup_teardown(what_comes_after_the_command_is_not_cancelled, up, down),
        cmocka_unit_test_setup_teardown(who_waits_for_the_next_command_is_left_asleep, up, down),
        cmocka_unit_test_setup_teardown(a_long_command_steps_back_until_it_is_done, up, down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
