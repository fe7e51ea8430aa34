/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal on an intact and a damaged file. Kills at any instruction are in
 * tests/fault/test-journal-kill.c.
 */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/sha.h>

#include "backend/journal.h"
#include "backend/seal.h"
#include "common/bytes.h"
#include "common/fd.h"

static const struct xlv_uuid uuid_a = { { 0xaa, 1 } }, uuid_b = { { 0xbb, 2 } };
static const uint8_t key_a[XLV_KEY_SIZE] = { 1 }, key_b[XLV_KEY_SIZE] = { 2 };

/* The layout (docs/formats.md). */
#define CURRENT_AT 64
#define PLACES_AT 4096
#define PLACE_SIZE 1323008
#define EXCHANGE_AT 256
#define EXCHANGES_AT (PLACES_AT + 2 * PLACE_SIZE)

static int fd = -1;
static struct xlv_journal *journal;

static struct xlv_journal *open_journal(const struct xlv_uuid *uuid, const uint8_t *key)
{
    struct xlv_journal *j;
    struct xlv_error e = XLV_ERROR_INIT;

    if (xlv_journal_new(&j, fd, uuid, key, &e))
        fail_msg("%s", e.text);
    return j;
}

static int begin(void **state)
{
    (void)state;
    fd = memfd_create("journal", MFD_CLOEXEC);
    journal = open_journal(&uuid_a, key_a);
    return 0;
}

static int end(void **state)
{
    (void)state;
    xlv_journal_free(journal);
    journal = NULL;
    xlv_close(&fd);
    return 0;
}

/* As after a kill: a new process maps the same file. */
static void reopen(void)
{
    xlv_journal_free(journal);
    journal = open_journal(&uuid_a, key_a);
}

static uint8_t bytes[XLV_PERMANENT_MAX + 4096];

static unsigned amid_copy;
int __real_xlv_pwrite_all(int to, const void *data, size_t length, off_t offset);
int __wrap_xlv_pwrite_all(int to, const void *data, size_t length, off_t offset);

/* A record whose every field follows from its sequence and lengths. */
static struct xlv_journal_record record_of(uint64_t sequence, uint32_t request, uint32_t response,
                                           uint32_t volatile_length, uint32_t permanent)
{
    static int filled;
    unsigned at = (unsigned)(sequence % 199);

    if (!filled)
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(i * 13 + (i >> 9));
    filled = 1;
    return (struct xlv_journal_record){
        .sequence = sequence,
        .generation = sequence / 3 + 1,
        .ring = { (uint32_t)sequence + 1, 2, 3, 4 },
        .outcome = XLV_JOURNAL_FINISH,
        .request_length = request, .response_length = response,
        .volatile_length = volatile_length, .permanent_length = permanent,
        .request = bytes + at, .response = bytes + at + 1,
        .volatile_state = bytes + at + 2, .permanent = bytes + at + 3,
    };
}

static void append(const struct xlv_journal_record *r)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_journal_append(journal, r, &e);

    if (rc)
        fail_msg("append gave %d: %s", rc, e.text);
}

/* The next process appends while a copy is made. */
int __wrap_xlv_pwrite_all(int to, const void *data, size_t length, off_t offset)
{
    while (amid_copy) {
        struct xlv_journal_record r = record_of(5 - amid_copy, 10, 20, 300, 0);

        amid_copy--;
        append(&r);
    }
    return __real_xlv_pwrite_all(to, data, length, offset);
}

static void assert_record(const struct xlv_journal_record *expected)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_journal_record r;
    int rc = xlv_journal_load(journal, &r, &e);

    if (rc)
        fail_msg("load gave %d: %s", rc, e.text);
    assert_int_equal(r.sequence, expected->sequence);
    assert_int_equal(r.generation, expected->generation);
    assert_memory_equal(&r.ring, &expected->ring, sizeof(r.ring));
    assert_int_equal(r.outcome, expected->outcome);
    assert_int_equal(r.request_length, expected->request_length);
    assert_int_equal(r.response_length, expected->response_length);
    assert_int_equal(r.volatile_length, expected->volatile_length);
    assert_int_equal(r.permanent_length, expected->permanent_length);
    assert_memory_equal(r.request, expected->request, r.request_length);
    assert_memory_equal(r.response, expected->response, r.response_length);
    assert_memory_equal(r.volatile_state, expected->volatile_state, r.volatile_length);
    assert_memory_equal(r.permanent, expected->permanent, r.permanent_length);
}

static void assert_load(int outcome, const char *words)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_journal_record r;
    int rc = xlv_journal_load(journal, &r, &e);

    if (rc != outcome || !strstr(e.text, words))
        fail_msg("expected %d \"%s\", load gave %d: %s", outcome, words, rc, e.text);
    assert_null(r.volatile_state);
}

static void flip(off_t byte, unsigned bit)
{
    uint8_t b;

    assert_int_equal(xlv_pread_all(fd, &b, 1, byte), 0);
    b ^= (uint8_t)(1u << bit);
    assert_int_equal(xlv_pwrite_all(fd, &b, 1, byte), 0);
}

static void a_new_journal_is_empty(void **state)
{
    (void)state;
    assert_load(XLV_E_EMPTY, "");
    assert_int_equal(xlv_journal_marked(journal), 0);
    reopen();
    assert_load(XLV_E_EMPTY, "");
}

static void the_newest_record_comes_back_whole(void **state)
{
    static const uint32_t lengths[][4] = {
        { 10, 10, 9000, 0 }, { 12, 200, 9000, 1300 }, { 0, 0, 0, 0 }, { 4096, 4096, 12600, 7400 },
        { 1, 1, 1, 1 }, { 10, 10, 9000, 150000 }, { 10, 10, 9000, 0 },
        { XLV_TPM_BUFFER_MAX, XLV_TPM_BUFFER_MAX, XLV_VOLATILE_MAX, XLV_PERMANENT_MAX },
        { 22, 10, 9000, 0 },
        { XLV_TPM_BUFFER_MAX, XLV_TPM_BUFFER_MAX, XLV_VOLATILE_MAX, XLV_PERMANENT_MAX },
    };

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct xlv_journal_record r = record_of(i + 1, lengths[i][0], lengths[i][1], lengths[i][2],
                                                lengths[i][3]);

        append(&r);
        assert_record(&r);
        reopen();
        assert_record(&r);
    }
}

static void a_record_above_the_limits_is_refused_and_the_last_one_kept(void **state)
{
    struct xlv_journal_record good = record_of(1, 10, 10, 9000, 0), r;
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&good);
    r = record_of(2, XLV_TPM_BUFFER_MAX + 1, 0, 0, 0);
    assert_int_equal(xlv_journal_append(journal, &r, &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, "4097"));
    r = record_of(2, 0, XLV_TPM_BUFFER_MAX + 1, 0, 0);
    assert_int_equal(xlv_journal_append(journal, &r, NULL), XLV_E_INVALID);
    r = record_of(2, 0, 0, XLV_VOLATILE_MAX + 1, 0);
    assert_int_equal(xlv_journal_append(journal, &r, NULL), XLV_E_INVALID);
    r = record_of(2, 0, 0, 0, XLV_PERMANENT_MAX + 1);
    assert_int_equal(xlv_journal_append(journal, &r, NULL), XLV_E_INVALID);
    r = record_of(2, 0, 0, 0, 0xffffffff);
    assert_int_equal(xlv_journal_append(journal, &r, NULL), XLV_E_INVALID);
    assert_record(&good);
}

static void an_ordinary_record_takes_little_memory(void **state)
{
    struct xlv_journal_record r = record_of(1, 4096, 4096, 12600, 7400);
    struct stat st;

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&r);
    append(&r);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_blocks * 512 <= 4096 + 2 * 32768);
}

static void damage_to_the_newest_record_is_refused_and_no_older_one_taken(void **state)
{
    struct xlv_journal_record one = record_of(1, 10, 10, 500, 0);
    struct xlv_journal_record two = record_of(2, 10, 10, 500, 9);
    uint32_t length = XLV_SEAL_HEAD + 64 + 10 + 10 + 500 + 9;

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&one);
    append(&two); /* in place 0 */
    for (uint32_t i = 0; i < length; i++) {
        flip(PLACES_AT + i, i % 8);
        assert_load(XLV_E_CORRUPT, "does not verify");
        flip(PLACES_AT + i, i % 8);
    }
    assert_record(&two);
    /* a journal that did not load takes no appends until it is cleared */
    flip(PLACES_AT, 0);
    assert_load(XLV_E_CORRUPT, "is damaged");
    assert_true(xlv_journal_append(journal, &one, NULL) < 0);
    assert_int_equal(xlv_journal_clear(journal, NULL), 0);
    assert_load(XLV_E_EMPTY, "");
    append(&one);
    assert_record(&one);
}

static void damage_to_the_control_words_is_refused(void **state)
{
    struct xlv_journal_record one = record_of(1, 10, 10, 500, 0);
    struct xlv_journal_record two = record_of(2, 10, 10, 500, 9);

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&one);
    append(&two);
    for (unsigned bit = 0; bit < 64; bit++) {
        flip(CURRENT_AT + bit / 8, bit % 8);
        assert_load(XLV_E_CORRUPT, "does not verify");
        flip(CURRENT_AT + bit / 8, bit % 8);
    }
    for (unsigned bit = 0; bit < 56; bit++) {
        flip(bit / 8, bit % 8);
        assert_load(XLV_E_CORRUPT, "does not begin as one");
        flip(bit / 8, bit % 8);
    }
    flip(7, 2);
    assert_load(XLV_E_VERSION, "layout 7, this program knows 1 to 3");
    flip(7, 2);
    assert_record(&two);
}

static void append_exchange(const struct xlv_journal_record *r)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_journal_append_exchange(journal, r, &e);

    if (rc)
        fail_msg("append of an exchange gave %d: %s", rc, e.text);
}

/* What a load gives for an exchange on a whole record. */
static struct xlv_journal_record on_top_of(const struct xlv_journal_record *whole,
                                           const struct xlv_journal_record *exchange)
{
    struct xlv_journal_record r = *exchange;

    if (!r.repeat_changes)
        r.generation = whole->generation;
    r.volatile_length = whole->volatile_length;
    r.volatile_state = whole->volatile_state;
    r.permanent_length = whole->permanent_length;
    r.permanent = whole->permanent;
    return r;
}

static struct xlv_journal_record exchange_of(uint64_t sequence, uint32_t repeat)
{
    struct xlv_journal_record r = record_of(sequence, 22, 48, 0, 0);

    r.repeat = bytes + 77;
    r.repeat_length = repeat;
    return r;
}

static void assert_exchange(const struct xlv_journal_record *whole,
                            const struct xlv_journal_record *exchange)
{
    struct xlv_journal_record expected = on_top_of(whole, exchange), r;

    assert_record(&expected);
    assert_int_equal(xlv_journal_load(journal, &r, NULL), 0);
    assert_int_equal(r.repeat_length, exchange->repeat_length);
    assert_memory_equal(r.repeat, exchange->repeat, exchange->repeat_length);
    assert_int_equal(r.repeat_changes, exchange->repeat_changes);
}

static void an_exchange_goes_on_top_of_the_last_whole_record(void **state)
{
    struct xlv_journal_record whole = record_of(1, 10, 10, 9000, 1300);
    struct xlv_journal_record next = record_of(5, 10, 10, 8000, 0), r;

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&whole);
    for (uint64_t s = 2; s <= 4; s++) {
        struct xlv_journal_record exchange = exchange_of(s, (uint32_t)(s - 2) * 1000);

        append_exchange(&exchange);
        assert_exchange(&whole, &exchange);
        reopen();
        assert_exchange(&whole, &exchange);
    }
    /* and is over with the next one */
    append(&next);
    assert_record(&next);
    reopen();
    assert_record(&next);
    assert_int_equal(xlv_journal_load(journal, &r, NULL), 0);
    assert_int_equal(r.repeat_length, 0);
}

static void an_exchange_needs_a_whole_record(void **state)
{
    struct xlv_journal_record exchange = exchange_of(1, 0);
    struct xlv_journal_record whole = record_of(1, 10, 10, 500, 0);

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    assert_int_equal(xlv_journal_append_exchange(journal, &exchange, NULL), -EINVAL);
    append(&whole);
    append_exchange(&exchange);
    assert_int_equal(xlv_journal_clear(journal, NULL), 0);
    assert_int_equal(xlv_journal_append_exchange(journal, &exchange, NULL), -EINVAL);
    assert_load(XLV_E_EMPTY, "");
    append(&whole);
    assert_record(&whole);
}

/* What is repeated may change the permanent state: of before it, if the record has it. */
static void an_exchange_may_have_a_generation_of_its_own(void **state)
{
    struct xlv_journal_record with = record_of(1, 10, 10, 500, 700);
    struct xlv_journal_record without = record_of(5, 10, 10, 500, 0);
    struct xlv_journal_record exchange = exchange_of(9, 100), reads = exchange_of(10, 0);

    (void)state;
    exchange.repeat_changes = true;
    assert_int_not_equal(exchange.generation, with.generation);
    assert_load(XLV_E_EMPTY, "");
    for (unsigned reopened = 0; reopened < 2; reopened++) {
        append(&without);
        if (reopened) {
            reopen();
            assert_record(&without);
        }
        assert_int_equal(xlv_journal_append_exchange(journal, &exchange, NULL), -EINVAL);
        assert_record(&without);
        append(&with);
        if (reopened) {
            reopen();
            assert_record(&with);
        }
        append_exchange(&exchange);
        assert_exchange(&with, &exchange);
        append_exchange(&reads);
        assert_exchange(&with, &reads);
    }
    with.repeat_changes = true;
    assert_int_equal(xlv_journal_append(journal, &with, NULL), XLV_E_INVALID);
}

static void a_whole_record_may_have_something_to_be_repeated(void **state)
{
    struct xlv_journal_record whole = record_of(1, 10, 10, 500, 700);
    struct xlv_journal_record exchange = exchange_of(2, 50);

    (void)state;
    whole.repeat = bytes + 99;
    whole.repeat_length = XLV_JOURNAL_REPEAT_MAX;
    assert_load(XLV_E_EMPTY, "");
    append(&whole);
    reopen();
    assert_exchange(&whole, &whole);
    append_exchange(&exchange);
    assert_exchange(&whole, &exchange);
}

static void an_exchange_above_the_limits_is_refused(void **state)
{
    struct xlv_journal_record whole = record_of(1, 10, 10, 500, 0), exchange;
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&whole);
    exchange = record_of(2, XLV_TPM_BUFFER_MAX, XLV_TPM_BUFFER_MAX, 0, 0);
    exchange.repeat = bytes;
    exchange.repeat_length = XLV_JOURNAL_REPEAT_MAX + 1;
    assert_int_equal(xlv_journal_append_exchange(journal, &exchange, &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, "3073"));
    assert_record(&whole);
    exchange.repeat_length = XLV_JOURNAL_REPEAT_MAX;
    append_exchange(&exchange);
    assert_exchange(&whole, &exchange);
    exchange.request_length++;
    assert_int_equal(xlv_journal_append_exchange(journal, &exchange, NULL), XLV_E_INVALID);
    whole.repeat = bytes;
    whole.repeat_length = XLV_JOURNAL_REPEAT_MAX + 1;
    assert_int_equal(xlv_journal_append(journal, &whole, NULL), XLV_E_INVALID);
}

static void damage_to_the_newest_exchange_is_refused(void **state)
{
    struct xlv_journal_record whole = record_of(1, 10, 10, 500, 0);
    struct xlv_journal_record two = exchange_of(2, 30), three = exchange_of(3, 30);
    uint32_t length = XLV_SEAL_HEAD + 64 + 22 + 48 + 30;
    uint8_t old[8], now[8];

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&whole);
    append_exchange(&two);
    assert_int_equal(xlv_pread_all(fd, old, 8, EXCHANGE_AT), 0);
    append_exchange(&three); /* in the first place of the two */
    for (uint32_t i = 0; i < length; i++) {
        flip(EXCHANGES_AT + i, i % 8);
        assert_load(XLV_E_CORRUPT, "does not verify");
        flip(EXCHANGES_AT + i, i % 8);
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        flip(EXCHANGE_AT + bit / 8, bit % 8);
        assert_load(XLV_E_CORRUPT, "does not verify");
        flip(EXCHANGE_AT + bit / 8, bit % 8);
    }
    assert_exchange(&whole, &three);
    /* not the older one either, once its place is another's */
    append_exchange(&two);
    append_exchange(&two);
    assert_int_equal(xlv_pread_all(fd, now, 8, EXCHANGE_AT), 0);
    assert_memory_not_equal(old, now, 8);
    assert_int_equal(xlv_pwrite_all(fd, old, 8, EXCHANGE_AT), 0);
    assert_load(XLV_E_CORRUPT, "does not verify");
}

static void an_older_record_is_not_taken_for_the_newest(void **state)
{
    struct xlv_journal_record r = record_of(1, 10, 10, 500, 0);
    uint8_t old[8], now[8];

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&r);
    append(&r);
    assert_int_equal(xlv_pread_all(fd, old, 8, CURRENT_AT), 0);
    append(&r);
    append(&r);
    assert_int_equal(xlv_pread_all(fd, now, 8, CURRENT_AT), 0);
    assert_memory_not_equal(old, now, 8);
    assert_int_equal(xlv_pwrite_all(fd, old, 8, CURRENT_AT), 0);
    assert_load(XLV_E_CORRUPT, "does not verify");
}

static void wrong_key_owner_and_version_are_told_apart(void **state)
{
    struct xlv_journal_record one = record_of(1, 10, 10, 500, 0);
    uint8_t head[XLV_SEAL_HEADER];

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&one);
    xlv_journal_free(journal);
    journal = open_journal(&uuid_a, key_b);
    assert_load(XLV_E_WRONG_KEY, "sealed with another key");
    xlv_journal_free(journal);
    journal = open_journal(&uuid_b, key_a);
    assert_load(XLV_E_WRONG_OWNER, "belongs to another instance");
    reopen();
    assert_record(&one);
    /* the first record is in place 1 */
    assert_int_equal(xlv_pread_all(fd, head, sizeof(head), PLACES_AT + PLACE_SIZE), 0);
    head[8] = 2;
    SHA256(head, sizeof(head) - 32, head + sizeof(head) - 32);
    assert_int_equal(xlv_pwrite_all(fd, head, sizeof(head), PLACES_AT + PLACE_SIZE), 0);
    assert_load(XLV_E_VERSION, "newer format");
}

static void any_other_file_is_refused_and_not_written_to(void **state)
{
    uint8_t text[64] = "#!/bin/sh\n", now[64];
    struct xlv_journal_record one = record_of(1, 10, 10, 500, 0);

    (void)state;
    assert_int_equal(xlv_pwrite_all(fd, text, sizeof(text), 0), 0);
    reopen();
    assert_load(XLV_E_CORRUPT, "does not begin as one");
    assert_true(xlv_journal_append(journal, &one, NULL) < 0);
    assert_int_equal(xlv_pread_all(fd, now, sizeof(now), 0), 0);
    assert_memory_equal(now, text, sizeof(now));
}

static void attempts_are_counted_per_sequence_and_survive(void **state)
{
    (void)state;
    assert_int_equal(xlv_journal_begin(journal, 1), 1);
    assert_int_equal(xlv_journal_begin(journal, 1), 2);
    reopen();
    assert_load(XLV_E_EMPTY, "");
    assert_int_equal(xlv_journal_begin(journal, 1), 3);
    assert_int_equal(xlv_journal_begin(journal, 2), 1);
    assert_int_equal(xlv_journal_begin(journal, 1), 1);
    assert_int_equal(xlv_journal_begin(journal, 0), 1);
    assert_int_equal(xlv_journal_begin(journal, UINT64_C(1) << 47), 1);
    assert_int_equal(xlv_journal_begin(journal, UINT64_C(1) << 47), 2);
    for (int i = 0; i < 70000; i++)
        assert_true(xlv_journal_begin(journal, 5) <= 65535);
    assert_int_equal(xlv_journal_begin(journal, 5), 65535);
}

static void a_mark_survives_and_stays_through_appends(void **state)
{
    struct xlv_journal_record one = record_of(1, 10, 10, 500, 0);
    struct xlv_journal_record two = record_of(2, 10, 10, 500, 0);

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&one);
    assert_int_equal(xlv_journal_marked(journal), 0);
    xlv_journal_mark(journal, 1);
    assert_int_equal(xlv_journal_marked(journal), 1);
    append(&two);
    reopen();
    assert_record(&two);
    assert_int_equal(xlv_journal_marked(journal), 1);
    xlv_journal_mark(journal, 2);
    reopen();
    assert_int_equal(xlv_journal_marked(journal), 2);
}

static void a_cleared_journal_is_as_new(void **state)
{
    struct xlv_journal_record one = record_of(1, 10, 10, 500, 0);
    struct xlv_journal_record two = record_of(9, 10, 10, 500, 0);

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&one);
    xlv_journal_begin(journal, 2);
    xlv_journal_mark(journal, 1);
    assert_int_equal(xlv_journal_clear(journal, NULL), 0);
    assert_load(XLV_E_EMPTY, "");
    assert_int_equal(xlv_journal_marked(journal), 0);
    assert_int_equal(xlv_journal_begin(journal, 2), 1);
    append(&two);
    assert_int_equal(xlv_journal_marked(journal), 0);
    reopen();
    assert_record(&two);
    assert_int_equal(xlv_journal_marked(journal), 0);
}

/* While it is appended to: what a copy holds is what there was at some moment, or it says no. */
static void a_copy_is_of_one_moment(void **state)
{
    struct xlv_journal_record whole = record_of(1, 100, 200, 3000, 4000), loaded;
    struct xlv_journal *j;
    int empty XLV_CLOSE = memfd_create("empty", MFD_CLOEXEC);
    int to XLV_CLOSE = memfd_create("copy", MFD_CLOEXEC);
    int again XLV_CLOSE = memfd_create("copy", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(xlv_journal_copy(empty, to), 0);
    assert_int_equal(lseek(to, 0, SEEK_END), 0);
    assert_load(XLV_E_EMPTY, "");
    append(&whole);
    assert_int_equal(xlv_journal_copy(fd, to), 0);
    /* what is appended after it is not in it */
    whole = record_of(2, 10, 20, 300, 0);
    append(&whole);
    assert_int_equal(xlv_journal_new(&j, to, &uuid_a, key_a, NULL), 0);
    assert_int_equal(xlv_journal_load(j, &loaded, NULL), 0);
    assert_int_equal(loaded.sequence, 1);
    assert_int_equal(loaded.permanent_length, 4000);
    xlv_journal_free(j);
    /* amid it, two appends: the first is where the named one was not */
    amid_copy = 2;
    assert_int_equal(xlv_journal_copy(fd, again), XLV_E_CONFLICT);
    amid_copy = 0;
    assert_int_equal(xlv_journal_copy(fd, again), 0);
    assert_int_equal(xlv_journal_new(&j, again, &uuid_a, key_a, NULL), 0);
    assert_int_equal(xlv_journal_load(j, &loaded, NULL), 0);
    assert_int_equal(loaded.sequence, 4);
    xlv_journal_free(j);
}

static void nothing_readable_is_left_in_the_file(void **state)
{
    struct xlv_journal_record r = record_of(1, 100, 100, 9000, 1300);
    uint8_t *file = malloc(PLACES_AT + 2 * PLACE_SIZE);

    (void)state;
    assert_load(XLV_E_EMPTY, "");
    append(&r);
    append(&r);
    assert_int_equal(xlv_pread_all(fd, file, PLACES_AT + 2 * PLACE_SIZE, 0), 0);
    assert_null(memmem(file, PLACES_AT + 2 * PLACE_SIZE, r.request, 12));
    assert_null(memmem(file, PLACES_AT + 2 * PLACE_SIZE, r.volatile_state + 4000, 12));
    assert_null(memmem(file, PLACES_AT + 2 * PLACE_SIZE, r.permanent + 1000, 12));
    free(file);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_new_journal_is_empty),
        TEST(the_newest_record_comes_back_whole),
        TEST(a_record_above_the_limits_is_refused_and_the_last_one_kept),
        TEST(an_ordinary_record_takes_little_memory),
        TEST(damage_to_the_newest_record_is_refused_and_no_older_one_taken),
        TEST(damage_to_the_control_words_is_refused),
        TEST(an_exchange_goes_on_top_of_the_last_whole_record),
        TEST(an_exchange_needs_a_whole_record),
        TEST(an_exchange_may_have_a_generation_of_its_own),
        TEST(a_whole_record_may_have_something_to_be_repeated),
        TEST(an_exchange_above_the_limits_is_refused),
        TEST(damage_to_the_newest_exchange_is_refused),
        TEST(an_older_record_is_not_taken_for_the_newest),
        TEST(wrong_key_owner_and_version_are_told_apart),
        TEST(any_other_file_is_refused_and_not_written_to),
        TEST(attempts_are_counted_per_sequence_and_survive),
        TEST(a_mark_survives_and_stays_through_appends),
        TEST(a_cleared_journal_is_as_new),
        TEST(a_copy_is_of_one_moment),
        TEST(nothing_readable_is_left_in_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
