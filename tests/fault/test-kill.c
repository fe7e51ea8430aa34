/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Promise 3, exactly once through crashes: the unmodified daemon and backend
 * serve a guest (tests/fake) whose commands never stop, while the backend is
 * killed with SIGKILL at random points of a command, or while it restarts.
 *
 * What must hold, and how a violation would show:
 *   a command is executed once    the NV counter goes up by exactly one per
 *                                 increment; a repeated one would also break the
 *                                 session's rolling nonces (TPM_RC_AUTH_FAIL)
 *   no acknowledged change lost   counter and PCR always equal our own reckoning
 *   volatile state survives       the HMAC session made at the start is used to
 *                                 the end, each answer's HMAC verified
 *   no answer from a repeated DRBG  no random bytes ever come twice
 *   the guest sees no error       every command is answered, with success
 * The reckoning beside it is the uninterrupted reference run.
 *
 * XLV_KILLS sets the number of kills (default below), XLV_SEED the seed.
 */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fake/frontend.h"
#include "tests/fake/machine.h"
#include "tests/fault/tpm2-client.h"
#include "tests/integration/harness.h"

#define KILLS_DEFAULT 1000
#define ANSWER_MS 20000
#define PCR 16u
#define RANDOM_BYTES 16u

struct guest_view {
    struct t2_session session;
    uint8_t name[2 + T2_HASH];
    size_t name_length;
    uint64_t counter;
    uint8_t pcr[T2_HASH];
    uint8_t (*randoms)[RANDOM_BYTES];
    size_t nrandoms, room;
};

struct world {
    struct harness h;
    struct fx_vtpm device;
    struct fx_guest *guest;
    struct fx_frontend *frontend;
    struct guest_view view;
    unsigned kills;
};

static uint64_t seed;

/* xorshift64*: the run can be repeated from its seed */
static uint64_t rnd(uint64_t below)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (seed * 2685821657736338717ull) % below;
}

static void transact(struct world *w, const struct t2_command *c, uint8_t *r, size_t *length)
{
    int rc = fx_frontend_transact(w->frontend, 0, c->data, c->length, r, T2_MAX, length, ANSWER_MS);

    if (rc)
        fail_msg("a command was not answered: %s", strerror(-rc));
}

/* Spins for a time far below what a sleep can do. */
static void spin_us(uint64_t us)
{
    struct timespec a, b;

    clock_gettime(CLOCK_MONOTONIC, &a);
    do
        clock_gettime(CLOCK_MONOTONIC, &b);
    while ((uint64_t)(b.tv_sec - a.tv_sec) * 1000000u + (uint64_t)(b.tv_nsec - a.tv_nsec) / 1000u <
           us);
}

/* The one process that serves; 0: none just now. */
static pid_t the_backend(struct world *w)
{
    pid_t pids[MAX_BACKENDS];

    return backends(&w->h, pids) == 1 ? pids[0] : 0;
}

/* As transact, with the backend killed somewhere between now and the answer. */
static void transact_under_fire(struct world *w, const struct t2_command *c, uint8_t *r,
                                size_t *length)
{
    pid_t pid = the_backend(w);
    int rc = fx_frontend_submit(w->frontend, 0, c->data, c->length);

    assert_int_equal(rc, 0);
    if (pid > 0) {
        spin_us(rnd(rnd(4) ? 60 : 600));
        w->kills += kill(pid, SIGKILL) == 0;
    }
    rc = fx_frontend_wait(w->frontend, r, T2_MAX, length, ANSWER_MS);
    if (rc)
        fail_msg("a command was not answered after kill %u: %s", w->kills, strerror(-rc));
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, RANDOM_BYTES);
}

static void set_up_tpm(struct world *w)
{
    struct guest_view *v = &w->view;
    struct t2_command c;
    uint8_t r[T2_MAX];
    size_t length;

    t2_nv_define_counter(&c, T2_COUNTER_INDEX, T2_COUNTER_AUTH);
    transact(w, &c, r, &length);
    assert_true(t2_ok(r, length));
    t2_nv_increment_password(&c, T2_COUNTER_INDEX, T2_COUNTER_AUTH);
    transact(w, &c, r, &length);
    assert_true(t2_ok(r, length));
    t2_nv_read_public(&c, T2_COUNTER_INDEX);
    transact(w, &c, r, &length);
    assert_true(t2_parse_name(r, length, v->name, &v->name_length));
    t2_start_hmac_session(&c, &v->session);
    transact(w, &c, r, &length);
    assert_true(t2_parse_session(r, length, &v->session));
    t2_nv_read_counter(&c, &v->session, T2_COUNTER_INDEX, T2_COUNTER_AUTH, v->name,
                       v->name_length);
    transact(w, &c, r, &length);
    assert_true(t2_session_verify(r, length, &v->session, T2_COUNTER_AUTH));
    assert_true(t2_parse_counter(r, length, &v->counter));
}

/* One command of the stream, checked against the reckoning. */
static void one_command(struct world *w, uint64_t i, bool under_fire)
{
    void (*go)(struct world *, const struct t2_command *, uint8_t *, size_t *) =
        under_fire ? transact_under_fire : transact;
    struct guest_view *v = &w->view;
    struct t2_command c;
    uint8_t r[T2_MAX], digest[T2_HASH];
    size_t length;
    uint64_t counter;

    switch (i % 5) {
    case 0:
        t2_nv_increment(&c, &v->session, T2_COUNTER_INDEX, T2_COUNTER_AUTH, v->name,
                        v->name_length);
        go(w, &c, r, &length);
        v->counter++;
        if (!t2_session_verify(r, length, &v->session, T2_COUNTER_AUTH))
            fail_msg("increment after kill %u: code 0x%x", w->kills, t2_code(r, length));
        break;
    case 1:
        t2_nv_read_counter(&c, &v->session, T2_COUNTER_INDEX, T2_COUNTER_AUTH, v->name,
                           v->name_length);
        go(w, &c, r, &length);
        if (!t2_session_verify(r, length, &v->session, T2_COUNTER_AUTH))
            fail_msg("read after kill %u: code 0x%x", w->kills, t2_code(r, length));
        assert_true(t2_parse_counter(r, length, &counter));
        assert_int_equal(counter, v->counter);
        break;
    case 2:
        for (size_t k = 0; k < T2_HASH; k++)
            digest[k] = (uint8_t)(i >> (8 * (k % 8)));
        t2_pcr_extend(&c, PCR, digest);
        go(w, &c, r, &length);
        assert_true(t2_ok(r, length));
        t2_extend_digest(v->pcr, digest);
        break;
    case 3:
        t2_pcr_read(&c, PCR);
        go(w, &c, r, &length);
        assert_true(t2_parse_pcr(r, length, digest));
        assert_memory_equal(digest, v->pcr, T2_HASH);
        break;
    default:
        t2_get_random(&c, RANDOM_BYTES);
        go(w, &c, r, &length);
        if (v->nrandoms == v->room) {
            v->room = v->room ? 2 * v->room : 256;
            v->randoms = realloc(v->randoms, v->room * RANDOM_BYTES);
            assert_non_null(v->randoms);
        }
        assert_true(t2_parse_random(r, length, v->randoms[v->nrandoms++], RANDOM_BYTES));
        break;
    }
}

static void guest_sees_nothing_of_kills(void **state)
{
    struct world *w = *state;
    const char *env = getenv("XLV_KILLS");
    unsigned wanted = env ? (unsigned)atoi(env) : KILLS_DEFAULT;
    uint64_t i = 0;

    set_up_tpm(w);
    while (w->kills < wanted) {
        one_command(w, i, rnd(3) != 0);
        i++;
    }
    /* and everything is as it should be when the smoke has cleared */
    for (uint64_t end = i + 5; i < end; i++)
        one_command(w, i, false);
    qsort(w->view.randoms, w->view.nrandoms, RANDOM_BYTES, by_bytes);
    for (size_t k = 1; k < w->view.nrandoms; k++)
        assert_memory_not_equal(w->view.randoms[k - 1], w->view.randoms[k], RANDOM_BYTES);
    print_message("# %llu commands, %u kills, counter +%llu\n", (unsigned long long)i, w->kills,
                  (unsigned long long)w->view.counter);
}

struct replacement {
    struct world *w;
    pid_t pid;
};

static bool is_replaced(void *arg)
{
    struct replacement *before = arg;
    pid_t now = the_backend(before->w);

    return now > 0 && now != before->pid;
}

static void guest_sees_nothing_of_daemon_kills(void **state)
{
    struct world *w = *state;
    struct replacement before = { .w = w };
    unsigned wanted = 20;
    uint64_t i = 0;

    set_up_tpm(w);
    for (unsigned k = 0; k < wanted; k++) {
        unsigned n = 1 + (unsigned)rnd(20);

        daemon_kill(&w->h);
        /* served on with no daemon at all */
        for (unsigned j = 0; j < n; j++)
            one_command(w, i++, false);
        assert_int_equal(daemon_start(&w->h), 0);
        for (unsigned j = 0; j < n; j++)
            one_command(w, i++, false);
        /* and its new parent replaces the backend when that dies */
        before.pid = the_backend(w);
        one_command(w, i++, true);
        assert_true(fx_wait(is_replaced, &before, ANSWER_MS));
        /* a daemon that dies before the new process has its LAUNCH leaves nobody to serve */
        one_command(w, i++, false);
    }
    print_message("# %llu commands, %u daemon kills, %u backend kills\n", (unsigned long long)i,
                  wanted, w->kills);
}

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    *state = w;
    assert_int_equal(harness_up(&w->h, false, NULL), 0);
    assert_int_equal(fx_domain_create(w->h.m, 5, "guest"), 0);
    assert_int_equal(daemon_start(&w->h), 0);
    fx_vtpm_init(&w->device, 0, 5, 0, "dcdb124b-9fed-4040-b149-dd2dfd8d094c");
    assert_int_equal(fx_vtpm_create(w->h.m, &w->device), 0);
    assert_int_equal(fx_guest_open(&w->guest, w->h.m, 5), 0);
    assert_int_equal(fx_frontend_open(&w->frontend, w->guest, &w->device, 0), 0);
    assert_int_equal(fx_frontend_connect(w->frontend, ANSWER_MS), 0);
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    assert_int_equal(fx_frontend_close(w->frontend, ANSWER_MS), 0);
    fx_frontend_free(w->frontend);
    assert_int_equal(fx_vtpm_remove(w->h.m, &w->device, FX_DETACH), 0);
    fx_guest_close(w->guest);
    /* a clean end: no process left behind, every page and port given back */
    assert_true(backends_wait(&w->h, 0, NULL, ANSWER_MS));
    daemon_stop(&w->h);
    assert_true(fx_balanced(w->h.m, 0));
    assert_int_equal(harness_down(&w->h), 0);
    free(w->view.randoms);
    free(w);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(guest_sees_nothing_of_kills, set_up, tear_down),
        cmocka_unit_test_setup_teardown(guest_sees_nothing_of_daemon_kills, set_up, tear_down),
    };
    const char *env = getenv("XLV_SEED");

    seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL) | 1u;
    print_message("# XLV_SEED=%llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
