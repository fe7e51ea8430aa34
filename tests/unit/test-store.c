/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The store on intact and on damaged files: what comes back, what is refused,
 * with which outcome and words, and that a refusal writes nothing. Power cuts
 * and failing system calls are in tests/fault/test-store-disk.c.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/sha.h>

#include "backend/seal.h"
#include "backend/store-sector.h"
#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"

#define FILE_MAX (XLV_STORE_SLOT_SIZE * 64)

static const struct xlv_uuid uuid_a = { { 0xaa, 1 } }, uuid_b = { { 0xbb, 2 } };
static const uint8_t key_a[XLV_KEY_SIZE] = { 1 }, key_b[XLV_KEY_SIZE] = { 2 };

static unsigned warnings, notices;

static void count_lines(enum xlv_log_level level, const struct xlv_log_subject *subject,
                        const char *text)
{
    (void)subject;
    (void)text;
    warnings += level == XLV_LOG_WARNING;
    notices += level == XLV_LOG_NOTICE;
}

/* An instance on two memory files. */
struct instance {
    int fds[2];
    struct xlv_uuid uuid;
    const uint8_t *key;
};

static void instance_new(struct instance *in, const struct xlv_uuid *uuid, const uint8_t *key)
{
    in->uuid = *uuid;
    in->key = key;
    for (int i = 0; i < 2; i++) {
        in->fds[i] = memfd_create("slot", MFD_CLOEXEC);
        assert_true(in->fds[i] >= 0);
        assert_int_equal(xlv_store_prepare(in->fds[i], NULL), 0);
    }
}

static void instance_free(struct instance *in)
{
    xlv_close(&in->fds[0]);
    xlv_close(&in->fds[1]);
}

static struct xlv_store *store_of(const struct instance *in)
{
    struct xlv_store *store;

    assert_int_equal(xlv_store_new(&store, in->fds, &in->uuid, in->key, NULL), 0);
    return store;
}

struct found {
    int rc;
    uint64_t generation;
    size_t length;
    uint8_t *data;
    struct xlv_error e;
};

static void load(const struct instance *in, struct found *f)
{
    struct xlv_store *store = store_of(in);

    xlv_error_clear(&f->e);
    f->rc = xlv_store_load(store, &f->data, &f->length, &f->generation, &f->e);
    if (f->rc) {
        assert_null(f->data);
        assert_int_equal(f->length, 0);
    }
    xlv_store_free(store);
}

static void fill(uint8_t *data, size_t length, uint64_t generation)
{
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)(generation * 31 + i + (i >> 8) * 7);
}

/* Commits the generations up to last, each of the given length. */
static void commit_up_to(const struct instance *in, uint64_t last, size_t length)
{
    struct xlv_store *store = store_of(in);
    uint8_t *data = malloc(length + 1), *old;
    uint64_t generation;
    size_t old_length;
    int rc = xlv_store_load(store, &old, &old_length, &generation, NULL);

    assert_true(rc == 0 || rc == XLV_E_EMPTY);
    free(old);
    while (generation < last) {
        fill(data, length, generation + 1);
        assert_int_equal(xlv_store_commit(store, data, length, &generation, NULL), 0);
    }
    free(data);
    xlv_store_free(store);
}

static void assert_generation(const struct instance *in, uint64_t generation, size_t length)
{
    uint8_t *expected = malloc(length + 1);
    struct found f;

    load(in, &f);
    if (f.rc)
        fail_msg("load gave %d: %s", f.rc, f.e.text);
    assert_int_equal(f.generation, generation);
    assert_int_equal(f.length, length);
    fill(expected, length, generation);
    assert_memory_equal(f.data, expected, length);
    free(expected);
    free(f.data);
}

/* The files before and after must be the same, to the byte. */
struct image {
    uint8_t *bytes[2];
    size_t size[2];
};

static void image_take(const struct instance *in, struct image *image)
{
    for (int i = 0; i < 2; i++) {
        struct stat st;

        assert_int_equal(fstat(in->fds[i], &st), 0);
        image->size[i] = (size_t)st.st_size;
        image->bytes[i] = malloc(image->size[i] + 1);
        assert_int_equal(xlv_pread_all(in->fds[i], image->bytes[i], image->size[i], 0), 0);
    }
}

static void image_put(const struct instance *in, const struct image *image)
{
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ftruncate(in->fds[i], (off_t)image->size[i]), 0);
        assert_int_equal(xlv_pwrite_all(in->fds[i], image->bytes[i], image->size[i], 0), 0);
    }
}

static void image_free(struct image *image)
{
    free(image->bytes[0]);
    free(image->bytes[1]);
}

static void assert_unchanged(const struct instance *in, const struct image *image)
{
    struct image now;

    image_take(in, &now);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(now.size[i], image->size[i]);
        assert_memory_equal(now.bytes[i], image->bytes[i], image->size[i]);
    }
    image_free(&now);
}

/* The load is refused with this outcome and these words, and changes nothing. */
static void assert_refused(const struct instance *in, int outcome, const char *words)
{
    struct image image;
    struct found f;

    image_take(in, &image);
    load(in, &f);
    if (f.rc != outcome)
        fail_msg("expected %d, load gave %d (generation %" PRIu64 "): %s", outcome, f.rc,
                 f.generation, f.e.text);
    if (!strstr(f.e.text, words))
        fail_msg("\"%s\" is not in: %s", words, f.e.text);
    assert_unchanged(in, &image);
    image_free(&image);
}

static void put(const struct instance *in, int slot, const void *data, size_t length, off_t at)
{
    assert_int_equal(xlv_pwrite_all(in->fds[slot], data, length, at), 0);
}

static void flip(const struct instance *in, int slot, size_t bit)
{
    uint8_t b;

    assert_int_equal(xlv_pread_all(in->fds[slot], &b, 1, (off_t)(bit / 8)), 0);
    b ^= (uint8_t)(1u << bit % 8);
    put(in, slot, &b, 1, (off_t)(bit / 8));
}

static void copy_slot(const struct instance *to, int to_slot, const struct instance *from,
                      int from_slot)
{
    uint8_t *data = malloc(FILE_MAX);
    struct stat st;

    assert_int_equal(fstat(from->fds[from_slot], &st), 0);
    assert_int_equal(xlv_pread_all(from->fds[from_slot], data, (size_t)st.st_size, 0), 0);
    assert_int_equal(ftruncate(to->fds[to_slot], st.st_size), 0);
    put(to, to_slot, data, (size_t)st.st_size, 0);
    free(data);
}

/* --- intact ---------------------------------------------------------------------- */

static void prepared_slots_are_empty(void **state)
{
    struct instance in;
    struct found f;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    load(&in, &f);
    assert_int_equal(f.rc, XLV_E_EMPTY);
    instance_free(&in);
}

static void what_was_committed_comes_back(void **state)
{
    /* at the edges of a sector, of the smallest commit and of a slot, too */
    static const size_t lengths[] = { 0, 1, 287, 288, 289, 3759, 3760, 3761, 1300, 7400, 31535,
                                      31536, 31537, 147 * 1024, XLV_PERMANENT_MAX - 1,
                                      XLV_PERMANENT_MAX, 1300, 0 };
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        commit_up_to(&in, i + 1, lengths[i]);
        assert_generation(&in, i + 1, lengths[i]);
    }
    instance_free(&in);
}

static void generations_alternate_between_the_slots(void **state)
{
    struct instance in;
    struct image before, after;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    for (uint64_t g = 1; g < 7; g++) {
        image_take(&in, &before);
        commit_up_to(&in, g, 1000);
        image_take(&in, &after);
        for (int i = 0; i < 2; i++)
            assert_int_equal(!memcmp(before.bytes[i], after.bytes[i], before.size[i]),
                             i == (int)(g & 1));
        image_free(&before);
        image_free(&after);
    }
    instance_free(&in);
}

/* In 2009 a vTPM wrote a shorter state over a longer one and kept its tail. */
static void a_shorter_state_over_a_longer_one_leaves_nothing_of_it(void **state)
{
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 2, 20000);
    commit_up_to(&in, 3, 700);
    assert_generation(&in, 3, 700);
    commit_up_to(&in, 4, 20);
    assert_generation(&in, 4, 20);
    commit_up_to(&in, 5, 15000);
    assert_generation(&in, 5, 15000);
    commit_up_to(&in, 6, 0);
    assert_generation(&in, 6, 0);
    instance_free(&in);
}

static void a_state_above_the_limit_is_refused_and_nothing_written(void **state)
{
    uint8_t *data = calloc(1, XLV_PERMANENT_MAX + 1), *old;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_store *store;
    struct instance in;
    struct image image;
    uint64_t generation;
    size_t length;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 3, 100);
    store = store_of(&in);
    assert_int_equal(xlv_store_load(store, &old, &length, &generation, &e), 0);
    free(old);
    image_take(&in, &image);
    assert_int_equal(xlv_store_commit(store, data, XLV_PERMANENT_MAX + 1, &generation, &e),
                     XLV_E_INVALID);
    assert_non_null(strstr(e.text, "limit"));
    assert_unchanged(&in, &image);
    xlv_store_free(store);
    image_free(&image);
    free(data);
    instance_free(&in);
}

static void a_commit_needs_a_load_that_succeeded(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct instance in, other;
    struct xlv_store *store;
    struct image image;
    uint64_t generation;
    size_t length;
    uint8_t *data;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    instance_new(&other, &uuid_a, key_b);
    commit_up_to(&in, 3, 100);
    image_take(&in, &image);
    store = store_of(&in);
    assert_true(xlv_store_commit(store, key_a, 1, &generation, &e) < 0);
    xlv_store_free(store);
    assert_int_equal(xlv_store_new(&store, in.fds, &uuid_a, key_b, NULL), 0);
    assert_int_equal(xlv_store_load(store, &data, &length, &generation, NULL), XLV_E_WRONG_KEY);
    assert_true(xlv_store_commit(store, key_a, 1, &generation, NULL) < 0);
    xlv_store_free(store);
    assert_unchanged(&in, &image);
    image_free(&image);
    instance_free(&in);
    instance_free(&other);
}

/* --- damaged ----------------------------------------------------------------------- */

static void another_key_is_told_from_damage(void **state)
{
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    for (uint64_t g = 1; g < 4; g++) {
        commit_up_to(&in, g, 5000);
        in.key = key_b;
        assert_refused(&in, XLV_E_WRONG_KEY, "sealed with another key");
        in.key = key_a;
    }
    assert_generation(&in, 3, 5000);
    instance_free(&in);
}

#define SECTORS_OF_5000 11u

static void any_flipped_bit_of_the_newest_generation_is_refused(void **state)
{
    struct instance in;
    struct found f;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 5000);
    for (size_t byte = 0; byte < SECTORS_OF_5000 * 512; byte++)
        for (size_t bit = 0; bit < 8; bit++) {
            flip(&in, 1, byte * 8 + bit);
            load(&in, &f);
            if (f.rc != XLV_E_CORRUPT)
                fail_msg("bit %zu of byte %zu: %d %s", bit, byte, f.rc, f.e.text);
            assert_non_null(strstr(f.e.text, "is damaged"));
            assert_non_null(strstr(f.e.text, "slot 1"));
            assert_non_null(strstr(f.e.text, "xl-vtpm recover"));
            flip(&in, 1, byte * 8 + bit);
        }
    assert_generation(&in, 4, 5000);
    instance_free(&in);
}

static void a_flipped_bit_of_the_only_generation_is_refused(void **state)
{
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 1, 1300);
    for (size_t byte = 0; byte < 8 * 512; byte += 13) {
        flip(&in, 0, byte * 8);
        assert_refused(&in, XLV_E_CORRUPT, "is damaged");
        flip(&in, 0, byte * 8);
    }
    instance_free(&in);
}

static void a_flipped_bit_of_the_older_generation_does_not_cost_the_newest(void **state)
{
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 5000);
    for (size_t byte = 0; byte < SECTORS_OF_5000 * 512; byte++) {
        flip(&in, 0, byte * 8 + byte % 8);
        warnings = notices = 0;
        assert_generation(&in, 4, 5000);
        assert_int_equal(warnings, 1);
        assert_int_equal(notices, 0);
        flip(&in, 0, byte * 8 + byte % 8);
    }
    /* and the store heals with the next commits */
    flip(&in, 0, 511 * 8);
    commit_up_to(&in, 6, 6000);
    assert_generation(&in, 6, 6000);
    flip(&in, 0, 100);
    assert_generation(&in, 6, 6000);
    instance_free(&in);
}

static void a_damaged_sector_of_the_newest_is_refused(void **state)
{
    static const uint8_t values[] = { 0x00, 0xff, 0x5a };
    uint8_t sector[512];
    struct instance in;
    struct image image;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 5000);
    image_take(&in, &image);
    for (unsigned s = 0; s < SECTORS_OF_5000; s++)
        for (size_t v = 0; v < sizeof(values); v++) {
            memset(sector, values[v], sizeof(sector));
            put(&in, 1, sector, sizeof(sector), s * 512);
            assert_refused(&in, XLV_E_CORRUPT, "is damaged");
            image_put(&in, &image);
        }
    image_free(&image);
    instance_free(&in);
}

static void a_truncated_slot_is_refused(void **state)
{
    static const off_t sizes[] = { 0, 1, 511, 512, 5000, 32767 };
    struct instance in;
    struct image image;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 5000);
    image_take(&in, &image);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int slot = 0; slot < 3; slot++) {
            if (slot != 1)
                assert_int_equal(ftruncate(in.fds[0], sizes[i]), 0);
            if (slot != 0)
                assert_int_equal(ftruncate(in.fds[1], sizes[i]), 0);
            assert_refused(&in, XLV_E_CORRUPT, "truncated");
            image_put(&in, &image);
        }
    commit_up_to(&in, 6, 100000);
    assert_int_equal(ftruncate(in.fds[1], 65536), 0);
    assert_refused(&in, XLV_E_CORRUPT, "truncated: 65536 bytes do not hold its state of 100000");
    image_free(&image);
    instance_free(&in);
}

static void files_of_another_instance_are_refused(void **state)
{
    struct instance in, other;
    struct image image;
    char name[XLV_UUID_TEXT];

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    instance_new(&other, &uuid_b, key_b);
    commit_up_to(&in, 5, 2000);
    commit_up_to(&other, 5, 2000);
    image_take(&in, &image);
    for (int slots = 1; slots < 4; slots++) {
        for (int i = 0; i < 2; i++)
            if (slots & 1 << i)
                copy_slot(&in, i, &other, i);
        assert_refused(&in, XLV_E_WRONG_OWNER, "belongs to another instance");
        assert_refused(&in, XLV_E_WRONG_OWNER, xlv_uuid_format(&uuid_b, name));
        image_put(&in, &image);
    }
    /* the provider "none" gives all instances keys from one constant */
    in.uuid = uuid_b;
    assert_refused(&in, XLV_E_WRONG_OWNER, "belongs to another instance");
    image_free(&image);
    instance_free(&in);
    instance_free(&other);
}

static void exchanged_or_doubled_slots_are_refused(void **state)
{
    struct instance in, was;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    instance_new(&was, &uuid_a, key_a);
    commit_up_to(&in, 5, 2000);
    for (int i = 0; i < 2; i++)
        copy_slot(&was, i, &in, i);
    copy_slot(&in, 0, &was, 1);
    assert_refused(&in, XLV_E_CORRUPT, "slot 0 holds the contents of the other slot");
    copy_slot(&in, 1, &was, 0);
    assert_refused(&in, XLV_E_CORRUPT, "holds the contents of the other slot");
    copy_slot(&in, 0, &was, 0);
    assert_refused(&in, XLV_E_CORRUPT, "slot 1 holds the contents of the other slot");
    instance_free(&in);
    instance_free(&was);
}

static void only_an_older_slot_is_refused(void **state)
{
    static uint8_t zeros[XLV_STORE_SLOT_SIZE];
    struct instance in, old;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    instance_new(&old, &uuid_a, key_a);
    commit_up_to(&in, 4, 2000);
    copy_slot(&old, 0, &in, 0);
    copy_slot(&old, 1, &in, 1);
    commit_up_to(&in, 8, 2000);
    /* the newest made blank, zeroed, or put back from further than one commit ago */
    assert_int_equal(xlv_store_prepare(in.fds[1], NULL), 0);
    assert_refused(&in, XLV_E_CORRUPT, "emptied: only generation 7 in slot 0 is left");
    put(&in, 1, zeros, sizeof(zeros), 0);
    assert_refused(&in, XLV_E_CORRUPT, "slot 1 has been overwritten with zeros");
    copy_slot(&in, 1, &old, 1);
    assert_refused(&in, XLV_E_CORRUPT, "one of them is an old copy");
    instance_free(&in);
    instance_free(&old);
}

static void zeroed_or_vanished_contents_are_never_a_new_instance(void **state)
{
    static uint8_t zeros[XLV_STORE_SLOT_SIZE];
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    put(&in, 0, zeros, sizeof(zeros), 0);
    assert_refused(&in, XLV_E_CORRUPT, "zeros");
    put(&in, 1, zeros, sizeof(zeros), 0);
    assert_refused(&in, XLV_E_CORRUPT, "zeros");
    assert_int_equal(ftruncate(in.fds[0], 0), 0);
    assert_int_equal(ftruncate(in.fds[1], 0), 0);
    assert_refused(&in, XLV_E_CORRUPT, "truncated");
    instance_free(&in);
}

/* Gives a slot's header another value at an offset, with the checksum set right. */
static void rewrite_header(const struct instance *in, int slot, size_t at, uint32_t value)
{
    uint8_t head[XLV_SEAL_HEADER];
    struct xlv_bytes w;

    assert_int_equal(xlv_pread_all(in->fds[slot], head, sizeof(head), 0), 0);
    w = xlv_bytes_writer(head + at, 4);
    xlv_put_u32(&w, value);
    SHA256(head, sizeof(head) - 32, head + sizeof(head) - 32);
    put(in, slot, head, sizeof(head), 0);
}

static void a_newer_format_version_is_refused(void **state)
{
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 1, 3000);
    rewrite_header(&in, 0, 8, 2);
    assert_refused(&in, XLV_E_VERSION, "format version 2, this program knows up to 1");
    rewrite_header(&in, 0, 8, 1);
    commit_up_to(&in, 4, 3000);
    for (int slot = 0; slot < 2; slot++) {
        rewrite_header(&in, slot, 8, 7);
        assert_refused(&in, XLV_E_VERSION, "format version 7");
        rewrite_header(&in, slot, 8, 1);
    }
    assert_generation(&in, 4, 3000);
    instance_free(&in);
}

static void a_forged_header_does_not_verify(void **state)
{
    struct instance in;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 3000);
    rewrite_header(&in, 1, 40, 6); /* generation */
    assert_refused(&in, XLV_E_CORRUPT, "is damaged");
    rewrite_header(&in, 1, 40, 4);
    rewrite_header(&in, 1, 48, 2999); /* length */
    assert_refused(&in, XLV_E_CORRUPT, "is damaged");
    rewrite_header(&in, 1, 48, 0xffffffff);
    assert_refused(&in, XLV_E_CORRUPT, "");
    rewrite_header(&in, 1, 48, 3000);
    rewrite_header(&in, 1, 16, XLV_SEAL_JOURNAL); /* purpose */
    assert_refused(&in, XLV_E_CORRUPT, "record of a journal");
    instance_free(&in);
}

/* --- commits cut short, sector by sector --------------------------------------------- */

static void a_commit_cut_short_leaves_the_generation_before(void **state)
{
    struct instance in;
    struct image before, after;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    for (uint64_t g = 1; g < 5; g++) {
        int slot = !(g & 1);

        image_take(&in, &before);
        commit_up_to(&in, g, 5000);
        image_take(&in, &after);
        for (unsigned s = 0; s < SECTORS_OF_5000; s++) {
            struct found f;

            /* one sector is still what it was */
            put(&in, slot, before.bytes[slot] + s * 512, 512, s * 512);
            warnings = notices = 0;
            load(&in, &f);
            assert_int_equal(warnings, 0);
            assert_int_equal(notices, 1);
            assert_int_equal(f.rc, g == 1 ? XLV_E_EMPTY : 0);
            assert_int_equal(f.generation, g - 1);
            free(f.data);
            image_put(&in, &after);
        }
        image_free(&before);
        image_free(&after);
    }
    instance_free(&in);
}

static void a_cut_short_commit_is_no_excuse_for_damage_to_the_other_slot(void **state)
{
    struct instance in;
    struct image before;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 5, 5000);
    image_take(&in, &before);
    commit_up_to(&in, 6, 5000);
    put(&in, 1, before.bytes[1] + 512, 512, 512);
    assert_generation(&in, 5, 5000);
    flip(&in, 0, 2000 * 8);
    assert_refused(&in, XLV_E_CORRUPT, "is damaged");
    image_free(&before);
    instance_free(&in);
}

/* --- keys and nonces ------------------------------------------------------------------ */

static void a_change_of_key_leaves_nothing_under_the_old_one(void **state)
{
    struct instance in;
    struct xlv_store *store;
    uint64_t generation;
    size_t length;
    uint8_t *data;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 2000);
    store = store_of(&in);
    assert_true(xlv_store_rekey(store, key_b, &generation, NULL) < 0); /* not loaded */
    assert_int_equal(xlv_store_load(store, &data, &length, &generation, NULL), 0);
    free(data);
    assert_int_equal(xlv_store_rekey(store, key_b, &generation, NULL), 0);
    assert_int_equal(generation, 6);
    xlv_store_free(store);
    assert_refused(&in, XLV_E_WRONG_KEY, "is sealed with another key");
    in.key = key_b;
    store = store_of(&in);
    assert_int_equal(xlv_store_load(store, &data, &length, &generation, NULL), 0);
    assert_int_equal(generation, 6);
    free(data);
    xlv_store_free(store);
    instance_free(&in);
}

static void a_change_of_key_may_be_interrupted(void **state)
{
    struct instance in, renewed;
    struct image old, whole;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    instance_new(&renewed, &uuid_a, key_b);
    commit_up_to(&in, 4, 5000);
    commit_up_to(&renewed, 5, 5000);
    image_take(&in, &old);
    /* generation 5 is under the new key, 4 still under the old one */
    copy_slot(&in, 0, &renewed, 0);
    image_take(&in, &whole);
    assert_refused(&in, XLV_E_WRONG_KEY, "slot 0 is sealed with another key");
    in.key = key_b;
    assert_generation(&in, 5, 5000);
    /* its commit cut short in any sector: the old key, and not the new one */
    for (unsigned s = 0; s < SECTORS_OF_5000; s++) {
        put(&in, 0, old.bytes[0] + s * 512, 512, s * 512);
        in.key = key_a;
        assert_generation(&in, 4, 5000);
        in.key = key_b;
        assert_refused(&in, XLV_E_WRONG_KEY, "is sealed with another key");
        image_put(&in, &whole);
    }
    /* an unreadable slot that is the newer one, or from elsewhere, is not passed over */
    commit_up_to(&renewed, 8, 5000);
    copy_slot(&in, 0, &renewed, 0);
    assert_refused(&in, XLV_E_WRONG_KEY, "slot 1 is sealed with another key");
    image_free(&old);
    image_free(&whole);
    instance_free(&in);
    instance_free(&renewed);
}

/* --- the administrator's choice --------------------------------------------------------- */

static void an_inspection_tells_what_each_slot_holds(void **state)
{
    struct xlv_store_report report[2];
    struct instance in;
    struct image image;
    struct xlv_store *store;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    store = store_of(&in);
    commit_up_to(&in, 1, 1234);
    assert_int_equal(xlv_store_inspect(store, report, NULL), 0);
    assert_int_equal(report[0].outcome, 0);
    assert_int_equal(report[0].generation, 1);
    assert_int_equal(report[0].length, 1234);
    assert_int_equal(report[1].outcome, XLV_E_EMPTY);
    commit_up_to(&in, 4, 2000);
    flip(&in, 1, 9000);
    image_take(&in, &image);
    assert_int_equal(xlv_store_inspect(store, report, NULL), 0);
    assert_int_equal(report[0].outcome, 0);
    assert_non_null(strstr(report[0].text, "is good (generation 3)"));
    assert_int_equal(report[1].outcome, XLV_E_CORRUPT);
    assert_int_equal(report[1].generation, 4);
    assert_non_null(strstr(report[1].text, "generation 4 does not verify"));
    assert_unchanged(&in, &image);
    image_free(&image);
    xlv_store_free(store);
    instance_free(&in);
}

static void an_older_generation_is_taken_when_it_is_chosen(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_store *store;
    struct instance in;
    struct image damaged;
    uint64_t generation;
    struct found f;
    uint8_t expected[5000];

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 5000);
    flip(&in, 1, 20000);
    assert_refused(&in, XLV_E_CORRUPT, "xl-vtpm recover");
    image_take(&in, &damaged);
    store = store_of(&in);
    assert_int_equal(xlv_store_choose(store, 1, &generation, &e), XLV_E_REFUSED);
    assert_non_null(strstr(e.text, "slot 1 cannot be chosen: it is damaged"));
    assert_unchanged(&in, &damaged);
    assert_int_equal(xlv_store_choose(store, 0, &generation, NULL), 0);
    assert_int_equal(generation, 4);
    xlv_store_free(store);
    load(&in, &f);
    assert_int_equal(f.rc, 0);
    assert_int_equal(f.generation, 4);
    fill(expected, sizeof(expected), 3);
    assert_int_equal(f.length, sizeof(expected));
    assert_memory_equal(f.data, expected, sizeof(expected));
    free(f.data);
    /* the choice cut short: an older write of that slot is still there */
    put(&in, 1, damaged.bytes[1] + 512, 512, 512);
    assert_generation(&in, 3, 5000);
    image_free(&damaged);
    instance_free(&in);
}

static void nonce_of(const struct instance *in, int slot, uint8_t nonce[40])
{
    /* counter and salt of the header (docs/formats.md) */
    assert_int_equal(xlv_pread_all(in->fds[slot], nonce, 40, 56), 0);
}

static void a_nonce_is_never_used_twice_though_an_old_copy_is_put_back(void **state)
{
    enum { ROUNDS = 40 };
    static uint8_t seen[ROUNDS * 2][40];
    size_t n = 0;
    struct instance in;
    struct image old;

    (void)state;
    instance_new(&in, &uuid_a, key_a);
    commit_up_to(&in, 4, 2000);
    image_take(&in, &old);
    for (int i = 0; i < ROUNDS; i++) {
        /* the same generations, the same plaintext, the same key */
        commit_up_to(&in, 6, 2000);
        nonce_of(&in, 0, seen[n++]);
        nonce_of(&in, 1, seen[n++]);
        image_put(&in, &old);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(seen[i], seen[j], 40);
    image_free(&old);
    instance_free(&in);
}

/* --- making and opening slots ---------------------------------------------------------- */

static char directory[] = "/tmp/xl-vtpm-test-XXXXXX";
static int dirfd_ = -1;

static int make_directory(void **state)
{
    (void)state;
    strcpy(directory + sizeof(directory) - 7, "XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    dirfd_ = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dirfd_ < 0;
}

static int remove_directory(void **state)
{
    static const char *const names[] = { XLV_STORE_SLOT_0, XLV_STORE_SLOT_1, "slot-0.new",
                                         "slot-1.new" };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlinkat(dirfd_, names[i], 0);
    xlv_close(&dirfd_);
    return rmdir(directory);
}

static void created_slots_are_private_empty_and_usable(void **state)
{
    struct instance in = { .uuid = uuid_a, .key = key_a };
    struct found f;
    struct stat st;

    (void)state;
    assert_int_equal(xlv_store_create(dirfd_, NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fstatat(dirfd_, i ? XLV_STORE_SLOT_1 : XLV_STORE_SLOT_0, &st, 0), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(st.st_size, XLV_STORE_SLOT_SIZE);
        /* allocated, not a hole: a commit must not need metadata */
        assert_true(st.st_blocks * 512 >= XLV_STORE_SLOT_SIZE);
    }
    assert_int_equal(xlv_store_open(dirfd_, in.fds, NULL), 0);
    assert_int_equal(fcntl(in.fds[0], F_GETFD), FD_CLOEXEC);
    load(&in, &f);
    assert_int_equal(f.rc, XLV_E_EMPTY);
    commit_up_to(&in, 3, 9000);
    assert_generation(&in, 3, 9000);
    instance_free(&in);
}

static void creating_again_changes_nothing(void **state)
{
    struct instance in = { .uuid = uuid_a, .key = key_a };

    (void)state;
    assert_int_equal(xlv_store_create(dirfd_, NULL), 0);
    assert_int_equal(xlv_store_open(dirfd_, in.fds, NULL), 0);
    commit_up_to(&in, 3, 9000);
    instance_free(&in);
    assert_int_equal(xlv_store_create(dirfd_, NULL), 0);
    assert_int_equal(xlv_store_open(dirfd_, in.fds, NULL), 0);
    assert_generation(&in, 3, 9000);
    instance_free(&in);
}

static void a_missing_slot_is_named_and_not_made_beside_a_used_one(void **state)
{
    struct instance in = { .uuid = uuid_a, .key = key_a };
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    assert_int_equal(xlv_store_open(dirfd_, in.fds, &e), XLV_E_NOT_FOUND);
    assert_non_null(strstr(e.text, XLV_STORE_SLOT_0));
    assert_int_equal(in.fds[0], -1);
    assert_int_equal(xlv_store_create(dirfd_, NULL), 0);
    /* a creation cut short is completed */
    assert_int_equal(unlinkat(dirfd_, XLV_STORE_SLOT_1, 0), 0);
    assert_int_equal(xlv_store_create(dirfd_, NULL), 0);
    assert_int_equal(xlv_store_open(dirfd_, in.fds, NULL), 0);
    commit_up_to(&in, 2, 100);
    instance_free(&in);
    for (int i = 0; i < 2; i++) {
        const char *gone = i ? XLV_STORE_SLOT_1 : XLV_STORE_SLOT_0;

        assert_int_equal(renameat(dirfd_, gone, dirfd_, "slot-0.new"), 0);
        xlv_error_clear(&e);
        assert_int_equal(xlv_store_create(dirfd_, &e), XLV_E_CORRUPT);
        assert_non_null(strstr(e.text, gone));
        xlv_error_clear(&e);
        assert_int_equal(xlv_store_open(dirfd_, in.fds, &e), XLV_E_NOT_FOUND);
        assert_non_null(strstr(e.text, gone));
        assert_int_equal(in.fds[0], -1);
        assert_int_equal(in.fds[1], -1);
        assert_int_equal(renameat(dirfd_, "slot-0.new", dirfd_, gone), 0);
    }
}

static void a_link_or_another_kind_of_file_is_no_slot(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(xlv_store_create(dirfd_, NULL), 0);
    assert_int_equal(unlinkat(dirfd_, XLV_STORE_SLOT_1, 0), 0);
    assert_int_equal(symlinkat(XLV_STORE_SLOT_0, dirfd_, XLV_STORE_SLOT_1), 0);
    assert_true(xlv_store_open(dirfd_, fds, NULL) < 0);
    assert_int_equal(unlinkat(dirfd_, XLV_STORE_SLOT_1, 0), 0);
    assert_int_equal(mkfifoat(dirfd_, XLV_STORE_SLOT_1, 0600), 0);
    assert_int_equal(xlv_store_open(dirfd_, fds, NULL), XLV_E_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prepared_slots_are_empty),
        cmocka_unit_test(what_was_committed_comes_back),
        cmocka_unit_test(generations_alternate_between_the_slots),
        cmocka_unit_test(a_shorter_state_over_a_longer_one_leaves_nothing_of_it),
        cmocka_unit_test(a_state_above_the_limit_is_refused_and_nothing_written),
        cmocka_unit_test(a_commit_needs_a_load_that_succeeded),
        cmocka_unit_test(another_key_is_told_from_damage),
        cmocka_unit_test(any_flipped_bit_of_the_newest_generation_is_refused),
        cmocka_unit_test(a_flipped_bit_of_the_only_generation_is_refused),
        cmocka_unit_test(a_flipped_bit_of_the_older_generation_does_not_cost_the_newest),
        cmocka_unit_test(a_damaged_sector_of_the_newest_is_refused),
        cmocka_unit_test(a_truncated_slot_is_refused),
        cmocka_unit_test(files_of_another_instance_are_refused),
        cmocka_unit_test(exchanged_or_doubled_slots_are_refused),
        cmocka_unit_test(only_an_older_slot_is_refused),
        cmocka_unit_test(zeroed_or_vanished_contents_are_never_a_new_instance),
        cmocka_unit_test(a_newer_format_version_is_refused),
        cmocka_unit_test(a_forged_header_does_not_verify),
        cmocka_unit_test(a_commit_cut_short_leaves_the_generation_before),
        cmocka_unit_test(a_cut_short_commit_is_no_excuse_for_damage_to_the_other_slot),
        cmocka_unit_test(a_change_of_key_leaves_nothing_under_the_old_one),
        cmocka_unit_test(a_change_of_key_may_be_interrupted),
        cmocka_unit_test(an_inspection_tells_what_each_slot_holds),
        cmocka_unit_test(an_older_generation_is_taken_when_it_is_chosen),
        cmocka_unit_test(a_nonce_is_never_used_twice_though_an_old_copy_is_put_back),
        cmocka_unit_test_setup_teardown(created_slots_are_private_empty_and_usable,
                                        make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(creating_again_changes_nothing, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(a_missing_slot_is_named_and_not_made_beside_a_used_one,
                                        make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(a_link_or_another_kind_of_file_is_no_slot,
                                        make_directory, remove_directory),
    };

    xlv_log_set_sink(count_lines);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
