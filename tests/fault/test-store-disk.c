/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The store on a disk that fails: power cuts at every write, torn and reordered
 * sectors, every system call made to fail in turn, kills in between.
 *
 * The invariant after anything: a load gives the last acknowledged state or one
 * that was in flight, byte for byte, and never refuses. What a load has
 * returned is acknowledged from then on.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/store.h"
#include "common/log.h"
#include "tests/fault/disk.h"

static const struct xlv_uuid uuid = { { 0xdc, 0xdb, 0x12, 0x4b, 0x9f, 0xed, 0x40, 0x40, 0xb1, 0x49,
                                        0xdd, 0x2d, 0xfd, 0x8d, 0x09, 0x4c } };
static const uint8_t key[XLV_KEY_SIZE] = { 1, 2, 3 };
static const int fds[2] = { DISK_FD(0), DISK_FD(1) };

static struct disk main_disk, scratch;

/* A state is its length and the seed of its bytes; length 0 and seed 0: none. */
struct state {
    uint64_t generation, seed;
    size_t length;
};

#define IN_FLIGHT_MAX 64
static struct state acknowledged, in_flight[IN_FLIGHT_MAX];
static size_t flights;
static unsigned long loads;

static void fill(uint8_t *data, const struct state *s)
{
    uint64_t random = s->seed;

    for (size_t i = 0; i < s->length; i += 8) {
        uint64_t v = disk_random(&random);

        memcpy(data + i, &v, s->length - i < 8 ? s->length - i : 8);
    }
}

static bool matches(const struct state *s, const uint8_t *data, size_t length, uint64_t generation)
{
    static uint8_t expected[XLV_PERMANENT_MAX + 8];

    if (s->generation != generation || s->length != length)
        return false;
    fill(expected, s);
    return !memcmp(expected, data, length);
}

/* What a load gave, as one of the states it may be; NULL: none of them. */
static const struct state *recognise(int rc, const uint8_t *data, size_t length,
                                     uint64_t generation)
{
    static const struct state none;

    if (rc == XLV_E_EMPTY)
        return acknowledged.generation ? NULL : &none;
    if (rc)
        return NULL;
    if (matches(&acknowledged, data, length, generation))
        return &acknowledged;
    for (size_t i = 0; i < flights; i++)
        if (matches(&in_flight[i], data, length, generation))
            return &in_flight[i];
    return NULL;
}

static struct xlv_store *open_store(void)
{
    struct xlv_store *store;
    struct xlv_error e = XLV_ERROR_INIT;

    if (xlv_store_new(&store, fds, &uuid, key, &e))
        fail_msg("%s", e.text);
    return store;
}

/* Loads without a fault; fails the test if the invariant does not hold. */
static const struct state *load_checked(struct xlv_store *store, const char *when)
{
    struct xlv_error e = XLV_ERROR_INIT;
    const struct state *s;
    uint64_t generation;
    size_t length;
    uint8_t *data;
    int rc = xlv_store_load(store, &data, &length, &generation, &e);

    loads++;
    s = recognise(rc, data, length, generation);
    if (!s)
        fail_msg("%s: load gave %d, generation %" PRIu64 " of %zu bytes; acknowledged is %" PRIu64
                 ", %zu in flight: %s", when, rc, generation, length, acknowledged.generation,
                 flights, e.text);
    free(data);
    return s;
}

static void settle(const struct state *s)
{
    acknowledged = *s;
    flights = 0;
}

/* One commit; keeps the books. */
static int commit(struct xlv_store *store, size_t length, uint64_t seed)
{
    static uint8_t data[XLV_PERMANENT_MAX + 8];
    struct xlv_error e = XLV_ERROR_INIT;
    struct state s = { acknowledged.generation + 1, seed, length };
    uint64_t generation = 0;
    int rc;

    assert_true(flights < IN_FLIGHT_MAX);
    fill(data, &s);
    in_flight[flights++] = s;
    rc = xlv_store_commit(store, data, length, &generation, &e);
    if (!rc) {
        assert_int_equal(generation, s.generation);
        settle(&s);
    } else {
        assert_true(rc < 0);
        assert_true(strlen(e.text) > 0);
    }
    return rc;
}

static int begin_with_blank_slots(void **state)
{
    (void)state;
    disk = &main_disk;
    disk_before_sync = NULL;
    disk_fail(0, DISK_EIO, false, 0);
    disk_reset(&main_disk);
    disk_reset(&scratch);
    memset(&acknowledged, 0, sizeof(acknowledged));
    flights = 0;
    loads = 0;
    return xlv_store_prepare(fds[0], NULL) || xlv_store_prepare(fds[1], NULL);
}

/* --- power cuts at every write of a long run ------------------------------------ */

enum subset { NONE, ALL, ONLY, EXCEPT, PREFIX, SUFFIX, RANDOM };
struct choice {
    enum subset subset;
    size_t n;
    uint64_t random;
};

static bool keep_choice(size_t index, void *opaque)
{
    struct choice *c = opaque;

    switch (c->subset) {
    case NONE: return false;
    case ALL: return true;
    case ONLY: return index == c->n;
    case EXCEPT: return index != c->n;
    case PREFIX: return index < c->n;
    case SUFFIX: return index >= c->n;
    case RANDOM: return disk_random(&c->random) & 1;
    }
    return false;
}

static unsigned long cuts, cut_points;
static uint64_t probe_random;

/* One cut of a copy of the disk: load, commit on top of it, load again. */
static void probe_one(enum subset subset, size_t n, bool grown)
{
    void (*hook)(void) = disk_before_sync;
    struct choice c = { subset, n, disk_random(&probe_random) };
    struct state acknowledged_saved = acknowledged, in_flight_saved[IN_FLIGHT_MAX];
    size_t flights_saved = flights;
    struct xlv_store *store;
    const struct state *s;

    memcpy(in_flight_saved, in_flight, sizeof(in_flight));
    disk_copy(&scratch, &main_disk);
    disk = &scratch;
    disk_before_sync = NULL;
    disk_cut(&scratch, keep_choice, &c, grown);
    store = open_store();
    s = load_checked(store, "after a power cut");
    /* nothing of an unfinished write: exactly the old state */
    if (subset == NONE)
        assert_true(s->generation == acknowledged.generation);
    settle(&(struct state){ s->generation, s->seed, s->length });
    assert_int_equal(commit(store, 300, c.random), 0);
    xlv_store_free(store);
    store = open_store();
    s = load_checked(store, "after a power cut and one more commit");
    assert_true(s == &acknowledged);
    xlv_store_free(store);
    disk = &main_disk;
    disk_before_sync = hook;
    acknowledged = acknowledged_saved;
    memcpy(in_flight, in_flight_saved, sizeof(in_flight));
    flights = flights_saved;
    cuts++;
}

static void probe(void)
{
    static struct disk_sector dirty[2 * DISK_SECTORS_MAX];
    size_t n = disk_dirty(&main_disk, dirty, 2 * DISK_SECTORS_MAX);
    /* all of a small write, a sample of a large one */
    size_t step = n > 100 ? n / 6 : n / 24 + 1;

    cut_points++;
    for (int grown = 0; grown < 2; grown++) {
        probe_one(NONE, 0, grown);
        probe_one(ALL, 0, grown);
        for (size_t i = 0; i < n; i += step) {
            probe_one(ONLY, i, grown);
            probe_one(EXCEPT, i, grown);
            probe_one(PREFIX, i, grown);
            probe_one(SUFFIX, i, grown);
        }
        for (int i = 0; i < 8 && n; i++)
            probe_one(RANDOM, 0, grown);
        if (main_disk.file[0].size == main_disk.file[0].medium_size &&
            main_disk.file[1].size == main_disk.file[1].medium_size)
            break;
    }
}

static size_t length_of_commit(unsigned i, uint64_t *random)
{
    /* late: every look at slots that have grown takes its time */
    if (i == 185 || i == 188)
        return 147 * 1024;
    if (i == 210)
        return XLV_PERMANENT_MAX;
    if (i % 10 == 9)
        return disk_random(random) % 40000;
    return disk_random(random) % 9000;
}

static void power_cut_at_every_write_keeps_an_acknowledged_state(void **state)
{
    uint64_t random = disk_seed(0x5eed1);
    struct xlv_store *store = open_store();

    (void)state;
    probe_random = random;
    cuts = cut_points = 0;
    load_checked(store, "at the start");
    disk_before_sync = probe;
    for (unsigned i = 0; i < 220; i++) {
        assert_int_equal(commit(store, length_of_commit(i, &random), disk_random(&random)), 0);
        if (i % 8 == 0)
            probe();
    }
    xlv_store_free(store);
    printf("# power cut: 220 commits, %lu cut points, %lu cuts, %lu loads\n", cut_points, cuts,
           loads);
}

/* --- every system call fails in turn ------------------------------------------- */

static const size_t fault_lengths[] = { 1300, 7400, 40, 150000, 9, 20000, 1300 };
#define FAULT_COMMITS (sizeof(fault_lengths) / sizeof(fault_lengths[0]))

/* A load under faults may fail, but what it gives must be right. */
static bool load_under_faults(struct xlv_store *store)
{
    struct xlv_error e = XLV_ERROR_INIT;
    const struct state *s;
    uint64_t generation;
    size_t length;
    uint8_t *data;
    int rc = xlv_store_load(store, &data, &length, &generation, &e);

    if (rc < 0) {
        assert_null(data);
        assert_true(strlen(e.text) > 0);
        return false;
    }
    s = recognise(rc, data, length, generation);
    free(data);
    if (!s)
        fail_msg("under faults: load gave %d: %s", rc, e.text);
    settle(&(struct state){ s->generation, s->seed, s->length });
    return true;
}

/*
 * The scenario with one fault; then power cut or kill, and a load without
 * faults. Returns how many calls the scenario made.
 */
static unsigned long run_with_fault(unsigned long at, enum disk_fault fault, bool forever,
                                    uint64_t *random, bool cut)
{
    struct xlv_store *store;
    unsigned long calls;
    const struct state *s;

    begin_with_blank_slots(NULL);
    store = open_store();
    disk_fail(at, fault, forever, disk_random(random));
    if (load_under_faults(store)) {
        for (size_t i = 0; i < FAULT_COMMITS; i++) {
            int rc = commit(store, fault_lengths[i], disk_random(random));

            if (fault == DISK_EINTR || fault == DISK_SHORT)
                assert_int_equal(rc, 0);
            /* as the backend would: once more, then it gives up */
            if (rc && commit(store, fault_lengths[i], disk_random(random)))
                break;
        }
        load_under_faults(store);
    }
    xlv_store_free(store);
    calls = disk_calls();

    disk_fail(0, fault, false, 0);
    if (cut)
        disk_cut_randomly(&main_disk, random);
    store = open_store();
    s = load_checked(store, "after a failed system call");
    settle(&(struct state){ s->generation, s->seed, s->length });
    /* what was given is durable: it is still there after a cut right behind it */
    disk_cut_randomly(&main_disk, random);
    s = load_checked(store, "after a failed system call, a load and a power cut");
    assert_true(s->generation == acknowledged.generation);
    assert_int_equal(commit(store, 777, disk_random(random)), 0);
    s = load_checked(store, "after a failed system call and one more commit");
    assert_true(s == &acknowledged);
    xlv_store_free(store);
    return calls;
}

static void every_system_call_may_fail(void **state)
{
    static const enum disk_fault faults[] = { DISK_EIO, DISK_ENOSPC, DISK_EINTR, DISK_SHORT,
                                              DISK_KILL };
    uint64_t random = disk_seed(0x5eed2);
    unsigned long total = run_with_fault(0, DISK_EIO, false, &random, false);
    unsigned long before = disk_injected(), runs = 0;

    (void)state;
    assert_true(total > 20);
    for (size_t f = 0; f < sizeof(faults) / sizeof(faults[0]); f++)
        for (unsigned long at = 1; at <= total; at++)
            for (int variant = 0; variant < 6; variant++) {
                /* a call interrupted for ever would be tried for ever */
                bool forever = (variant & 1) && faults[f] != DISK_EINTR;

                run_with_fault(at, faults[f], forever, &random, variant & 2);
                runs++;
            }
    printf("# faults: %lu calls in the scenario, %lu runs, %lu faults injected\n", total, runs,
           disk_injected() - before);
}

/* --- a life of everything ------------------------------------------------------- */

static void a_long_life_of_cuts_kills_and_faults_loses_nothing(void **state)
{
    uint64_t random = disk_seed(0x5eed3);
    unsigned long commits = 0, kills = 0, power_cuts = 0, before = disk_injected();
    struct xlv_store *store = open_store();

    (void)state;
    load_checked(store, "at the start");
    for (unsigned i = 0; i < 6000; i++) {
        uint64_t what = disk_random(&random) % 100;
        size_t length = disk_random(&random) % (what < 3 ? 200000 : 6000);
        const struct state *s;

        enum disk_fault fault = (enum disk_fault)(disk_random(&random) % 5);

        disk_fail(what % 3 ? 0 : disk_random(&random) % 4 + 1, fault,
                  fault != DISK_EINTR && (what & 8), disk_random(&random));
        if (commit(store, length, disk_random(&random)) == 0)
            commits++;
        disk_fail(0, DISK_EIO, false, 0);
        if (what < 70 && flights < IN_FLIGHT_MAX / 2)
            continue;
        xlv_store_free(store);
        kills++;
        if (what & 1) {
            disk_cut_randomly(&main_disk, &random);
            power_cuts++;
        }
        store = open_store();
        s = load_checked(store, "in a long life");
        settle(&(struct state){ s->generation, s->seed, s->length });
    }
    xlv_store_free(store);
    printf("# life: %lu commits, %lu kills, %lu of them power cuts, %lu faults\n", commits, kills,
           power_cuts, disk_injected() - before);
}

/* --- a change of key --------------------------------------------------------------- */

static void a_change_of_key_survives_whatever_fails(void **state)
{
    static const uint8_t new_key[XLV_KEY_SIZE] = { 9, 9 };
    static const enum disk_fault faults[] = { DISK_EIO, DISK_ENOSPC, DISK_EINTR, DISK_SHORT,
                                              DISK_KILL };
    uint64_t random = disk_seed(0x5eed6), generation;
    unsigned runs = 0, under[2] = { 0 };

    (void)state;
    for (size_t f = 0; f < sizeof(faults) / sizeof(faults[0]); f++)
        for (unsigned long at = 1; at <= 14; at++)
            for (int variant = 0; variant < 8; variant++) {
                struct xlv_store *store;
                int rc, loaded = 0;

                begin_with_blank_slots(NULL);
                store = open_store();
                load_checked(store, "at the start");
                for (int i = 0; i < 4; i++)
                    assert_int_equal(commit(store, 5000, disk_random(&random)), 0);
                disk_fail(at, faults[f], false, disk_random(&random));
                rc = xlv_store_rekey(store, new_key, &generation, NULL);
                if (!rc)
                    assert_int_equal(generation, 6);
                xlv_store_free(store);
                disk_fail(0, DISK_EIO, false, 0);
                if (variant & 1)
                    disk_cut_randomly(&main_disk, &random);
                /* exactly one of the keys, with the state of generation 4 */
                for (int k = 0; k < 2; k++) {
                    struct xlv_error e = XLV_ERROR_INIT;
                    uint8_t *data;
                    size_t length;
                    int found;

                    assert_int_equal(xlv_store_new(&store, fds, &uuid, k ? key : new_key, NULL), 0);
                    found = xlv_store_load(store, &data, &length, &generation, &e);
                    if (!found) {
                        assert_true(generation >= 4 && generation <= 6);
                        assert_true(matches(&acknowledged, data, length, 4));
                        free(data);
                        loaded++;
                        under[k]++;
                        if (!rc)
                            assert_int_equal(k, 0);
                    } else if (found != XLV_E_WRONG_KEY) {
                        fail_msg("call %lu, fault %d: load gave %d: %s", at, (int)faults[f], found,
                                 e.text);
                    }
                    xlv_store_free(store);
                }
                assert_int_equal(loaded, 1);
                runs++;
            }
    assert_true(under[0] > 20 && under[1] > 20);
    printf("# change of key: %u runs, ended %u times under the new key, %u under the old\n", runs,
           under[0], under[1]);
}

/* --- growth ---------------------------------------------------------------------- */

static void a_growth_cut_short_is_done_again(void **state)
{
    uint64_t random = disk_seed(0x5eed4);
    struct xlv_store *store = open_store();
    unsigned long at;
    const struct state *s;

    (void)state;
    load_checked(store, "at the start");
    for (int i = 0; i < 4; i++)
        assert_int_equal(commit(store, 1000, disk_random(&random)), 0);
    /* power goes while the slot grows: the size is there, the sectors are zeros */
    disk_fail(2, DISK_KILL, true, 1);
    assert_true(commit(store, 60000, disk_random(&random)) < 0);
    disk_fail(0, DISK_EIO, false, 0);
    xlv_store_free(store);
    disk_cut(&main_disk, keep_choice, &(struct choice){ NONE, 0, 0 }, true);
    assert_true(main_disk.file[0].size > XLV_STORE_SLOT_SIZE);

    /* each sector of the next long commit may be the one that is missing */
    for (at = 0; at < 120; at++) {
        disk_copy(&scratch, &main_disk);
        disk = &scratch;
        store = open_store();
        s = load_checked(store, "after a growth cut short");
        assert_true(s == &acknowledged);
        disk_fail(4, DISK_KILL, true, 1); /* growth: 2 calls, commit: 2 */
        assert_true(commit(store, 58000, disk_random(&random)) < 0);
        disk_fail(0, DISK_EIO, false, 0);
        xlv_store_free(store);
        disk_cut(&scratch, keep_choice, &(struct choice){ EXCEPT, at, 0 }, true);
        store = open_store();
        s = load_checked(store, "after a growth and a commit cut short");
        if (at < (58000 + 208) / 496)
            assert_true(s == &acknowledged);
        xlv_store_free(store);
        flights = 0;
        disk = &main_disk;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(power_cut_at_every_write_keeps_an_acknowledged_state,
                               begin_with_blank_slots),
        cmocka_unit_test_setup(every_system_call_may_fail, begin_with_blank_slots),
        cmocka_unit_test_setup(a_long_life_of_cuts_kills_and_faults_loses_nothing,
                               begin_with_blank_slots),
        cmocka_unit_test_setup(a_change_of_key_survives_whatever_fails, begin_with_blank_slots),
        cmocka_unit_test_setup(a_growth_cut_short_is_done_again, begin_with_blank_slots),
    };

    xlv_log_set_level(XLV_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
