/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The formats of store and journal against files kept in tests/unit/golden/:
 * they must be readable for ever, and what we write today must be the same to
 * the byte. Random numbers (salts, attempts) come from a wrapped getrandom().
 *
 * XLV_GOLDEN_WRITE=1 writes the files anew; do that for a new format version
 * only, under new names, and keep the old ones readable.
 */
#include "config.h"

#include <fcntl.h>
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

#include "backend/journal.h"
#include "backend/store.h"
#include "common/fd.h"

#define STORE_BYTES XLV_STORE_SLOT_SIZE
#define JOURNAL_BYTES 8192u /* control page and the start of place 0 */
/* and, since layout 2, the start of the first place for exchanges */
#define EXCHANGES_AT (4096u + 2u * 1323008u)
#define EXCHANGE_BYTES 4096u

static const struct xlv_uuid uuid = { { 0xdc, 0xdb, 0x12, 0x4b, 0x9f, 0xed, 0x40, 0x40, 0xb1, 0x49,
                                        0xdd, 0x2d, 0xfd, 0x8d, 0x09, 0x4c } };
static uint8_t key[XLV_KEY_SIZE];

static uint8_t next_random;
ssize_t __wrap_getrandom(void *data, size_t length, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t length, unsigned flags)
{
    uint8_t *p = data;

    (void)flags;
    for (size_t i = 0; i < length; i++)
        p[i] = next_random++;
    return (ssize_t)length;
}

static void fill(uint8_t *data, size_t length, uint8_t seed)
{
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)(seed + i * 3);
}

static void path_of(char out[512], const char *name)
{
    const char *top = getenv("top_srcdir");

    snprintf(out, 512, "%s/tests/unit/golden/%s", top ? top : ".", name);
}

static void read_golden(const char *name, uint8_t *data, size_t length)
{
    char path[512];
    struct stat st;
    int fd;

    path_of(path, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail_msg("%s is missing", path);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, length);
    assert_int_equal(xlv_read_all(fd, data, length), 0);
    xlv_close(&fd);
}

static void write_golden(const char *name, const uint8_t *data, size_t length)
{
    char path[512];
    int fd;

    path_of(path, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(xlv_write_all(fd, data, length), 0);
    xlv_close(&fd);
}

static void compare_golden(const char *name, const uint8_t *now, size_t length)
{
    uint8_t *golden = malloc(length);

    if (getenv("XLV_GOLDEN_WRITE"))
        write_golden(name, now, length);
    read_golden(name, golden, length);
    for (size_t i = 0; i < length; i++)
        if (golden[i] != now[i])
            fail_msg("%s: byte %zu is now 0x%02x, was 0x%02x", name, i, now[i], golden[i]);
    free(golden);
}

static int file_with(const uint8_t *data, size_t length)
{
    int fd = memfd_create("golden", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(xlv_pwrite_all(fd, data, length, 0), 0);
    return fd;
}

/* Generations 1 to 3; slot 0 has a longer past. */
static void today_s_store_is_written_as_the_golden_one(void **state)
{
    static const size_t lengths[] = { 6000, 5000, 900 };
    static uint8_t data[6000], now[STORE_BYTES];
    struct xlv_store *store;
    uint64_t generation;
    uint8_t *old;
    size_t length;
    int fds[2];

    (void)state;
    next_random = 0;
    for (int i = 0; i < 2; i++) {
        fds[i] = memfd_create("slot", MFD_CLOEXEC);
        assert_int_equal(xlv_store_prepare(fds[i], NULL), 0);
    }
    assert_int_equal(xlv_store_new(&store, fds, &uuid, key, NULL), 0);
    assert_int_equal(xlv_store_load(store, &old, &length, &generation, NULL), XLV_E_EMPTY);
    for (uint8_t i = 0; i < 3; i++) {
        fill(data, lengths[i], i);
        assert_int_equal(xlv_store_commit(store, data, lengths[i], &generation, NULL), 0);
    }
    xlv_store_free(store);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(xlv_pread_all(fds[i], now, sizeof(now), 0), 0);
        compare_golden(i ? "store-v1-slot-1" : "store-v1-slot-0", now, sizeof(now));
        xlv_close(&fds[i]);
    }
}

static void the_golden_store_is_read(void **state)
{
    static uint8_t bytes[STORE_BYTES], expected[5000];
    struct xlv_store *store;
    uint64_t generation;
    uint8_t *data;
    size_t length;
    int fds[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        read_golden(i ? "store-v1-slot-1" : "store-v1-slot-0", bytes, sizeof(bytes));
        fds[i] = file_with(bytes, sizeof(bytes));
    }
    assert_int_equal(xlv_store_new(&store, fds, &uuid, key, NULL), 0);
    assert_int_equal(xlv_store_load(store, &data, &length, &generation, NULL), 0);
    assert_int_equal(generation, 3);
    assert_int_equal(length, 900);
    fill(expected, 900, 2);
    assert_memory_equal(data, expected, 900);
    free(data);
    xlv_store_free(store);
    xlv_close(&fds[0]);
    xlv_close(&fds[1]);
}

static struct xlv_journal_record record_of(uint64_t sequence)
{
    static uint8_t bytes[4000];

    fill(bytes, sizeof(bytes), 9);
    return (struct xlv_journal_record){
        .sequence = sequence, .generation = 5, .ring = { 7, 0, 8, 23 },
        .outcome = XLV_JOURNAL_FINISH,
        .request_length = 22, .response_length = 48,
        .volatile_length = 1200, .permanent_length = 1300,
        .request = bytes, .response = bytes + 100, .volatile_state = bytes + 200,
        .permanent = bytes + 300,
    };
}

static struct xlv_journal_record exchange_of(uint64_t sequence)
{
    struct xlv_journal_record r = record_of(sequence);

    r.repeat = r.request + 500;
    r.repeat_length = 73;
    r.repeat_changes = sequence == 4;
    r.generation += r.repeat_changes;
    return r;
}

static void today_s_journal_is_written_as_the_golden_one(void **state)
{
    static uint8_t now[JOURNAL_BYTES + EXCHANGE_BYTES];
    struct xlv_journal_record found, r;
    struct xlv_journal *journal;
    int fd = memfd_create("journal", MFD_CLOEXEC);

    (void)state;
    next_random = 0;
    assert_int_equal(xlv_journal_new(&journal, fd, &uuid, key, NULL), 0);
    assert_int_equal(xlv_journal_load(journal, &found, NULL), XLV_E_EMPTY);
    for (uint64_t s = 1; s <= 2; s++) {
        r = record_of(s);
        xlv_journal_begin(journal, s);
        assert_int_equal(xlv_journal_append(journal, &r, NULL), 0);
    }
    for (uint64_t s = 3; s <= 4; s++) {
        r = exchange_of(s);
        assert_int_equal(xlv_journal_append_exchange(journal, &r, NULL), 0);
    }
    xlv_journal_mark(journal, 1);
    xlv_journal_free(journal);
    assert_int_equal(xlv_pread_all(fd, now, JOURNAL_BYTES, 0), 0);
    assert_int_equal(xlv_pread_all(fd, now + JOURNAL_BYTES, EXCHANGE_BYTES, EXCHANGES_AT), 0);
    compare_golden("journal-v3", now, sizeof(now));
    xlv_close(&fd);
}

static void read_journal(const char *name, uint64_t sequence, uint32_t repeat, bool changes)
{
    static uint8_t bytes[JOURNAL_BYTES + EXCHANGE_BYTES];
    struct xlv_journal_record found, r = exchange_of(sequence);
    struct xlv_journal *journal;
    int fd;

    read_golden(name, bytes, JOURNAL_BYTES + (repeat ? EXCHANGE_BYTES : 0));
    fd = file_with(bytes, JOURNAL_BYTES);
    if (repeat)
        assert_int_equal(xlv_pwrite_all(fd, bytes + JOURNAL_BYTES, EXCHANGE_BYTES, EXCHANGES_AT),
                         0);
    assert_int_equal(xlv_journal_new(&journal, fd, &uuid, key, NULL), 0);
    assert_int_equal(xlv_journal_load(journal, &found, NULL), 0);
    assert_int_equal(found.sequence, sequence);
    assert_int_equal(found.generation, changes ? 6 : 5);
    assert_int_equal(found.repeat_changes, changes);
    assert_memory_equal(&found.ring, &r.ring, sizeof(r.ring));
    assert_int_equal(found.outcome, XLV_JOURNAL_FINISH);
    assert_int_equal(found.request_length, 22);
    assert_int_equal(found.response_length, 48);
    assert_int_equal(found.volatile_length, 1200);
    assert_int_equal(found.permanent_length, 1300);
    assert_memory_equal(found.request, r.request, 22);
    assert_memory_equal(found.response, r.response, 48);
    assert_memory_equal(found.volatile_state, r.volatile_state, 1200);
    assert_memory_equal(found.permanent, r.permanent, 1300);
    assert_int_equal(found.repeat_length, repeat);
    assert_memory_equal(found.repeat, r.repeat, repeat);
    assert_int_equal(xlv_journal_marked(journal), 1);
    assert_int_equal(xlv_journal_begin(journal, 2), 2);
    xlv_journal_free(journal);
    xlv_close(&fd);
}

static void the_golden_journal_is_read(void **state)
{
    (void)state;
    read_journal("journal-v3", 4, 73, true);
}

/* Backends of versions before left them to their successors. */
static void golden_journals_of_earlier_layouts_are_read(void **state)
{
    (void)state;
    read_journal("journal-v2", 4, 73, false);
    read_journal("journal-v1", 2, 0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(today_s_store_is_written_as_the_golden_one),
        cmocka_unit_test(the_golden_store_is_read),
        cmocka_unit_test(today_s_journal_is_written_as_the_golden_one),
        cmocka_unit_test(the_golden_journal_is_read),
        cmocka_unit_test(golden_journals_of_earlier_layouts_are_read),
    };

    for (uint8_t i = 0; i < XLV_KEY_SIZE; i++)
        key[i] = (uint8_t)(0xa0 + i);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
