/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal of a process that is killed: at every single instruction of
 * begin, append, mark and clear (the process is stepped through them and the
 * file looked at after each step), and at random moments of a long run.
 *
 * Invariant: a load gives the last record that was complete, or the one being
 * appended, whole; never another, never damage.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/journal.h"
#include "common/fd.h"
#include "tests/fault/disk.h"

static const struct xlv_uuid uuid = { { 0xaa, 1 } };
static const uint8_t key[XLV_KEY_SIZE] = { 1 };

/* What parent and child share besides the journal. */
struct report {
    _Atomic uint64_t appended; /* the last sequence whose append returned */
    _Atomic uint64_t marked;   /* the last sequence whose mark returned */
};
static struct report *report;
static int fd = -1;

static uint8_t bytes[300000];

/* Two of three commands are an exchange alone, on the states of the whole record before. */
static bool is_exchange(uint64_t sequence)
{
    return sequence % 3 != 1;
}

static struct xlv_journal_record record_of(uint64_t sequence, uint32_t unit)
{
    uint64_t random = sequence;
    uint64_t r = disk_random(&random);

    struct xlv_journal_record record = {
        .sequence = sequence,
        .generation = sequence * 2,
        .ring = { 1, 2, 3, (uint32_t)sequence },
        .outcome = XLV_JOURNAL_FINISH,
        .request_length = 10 + r % 30,
        .response_length = 10 + (r >> 8) % 200,
        .volatile_length = (uint32_t)(unit + (r >> 16) % (unit / 8 + 1)),
        /* now and then one that makes the file grow */
        .permanent_length = sequence % 63 == 61 ? unit * 12 : sequence % 4 == 3 ? unit / 4 : 0,
        .request = bytes + r % 1000, .response = bytes + r % 999,
        .volatile_state = bytes + r % 998, .permanent = bytes + r % 997,
    };

    if (is_exchange(sequence)) {
        struct xlv_journal_record whole = record_of(sequence - (sequence + 2) % 3, unit);

        record.generation = whole.generation;
        record.volatile_length = whole.volatile_length;
        record.volatile_state = whole.volatile_state;
        record.permanent_length = whole.permanent_length;
        record.permanent = whole.permanent;
        record.repeat = bytes + r % 996;
        record.repeat_length = (uint32_t)((r >> 24) % (unit / 4));
    }
    return record;
}

static int append(struct xlv_journal *journal, const struct xlv_journal_record *record,
                  struct xlv_error *e)
{
    return is_exchange(record->sequence) ? xlv_journal_append_exchange(journal, record, e)
                                         : xlv_journal_append(journal, record, e);
}

static bool same(const struct xlv_journal_record *a, const struct xlv_journal_record *b)
{
    return a->sequence == b->sequence && a->generation == b->generation &&
           !memcmp(&a->ring, &b->ring, sizeof(a->ring)) && a->outcome == b->outcome &&
           a->request_length == b->request_length && a->response_length == b->response_length &&
           a->volatile_length == b->volatile_length &&
           a->permanent_length == b->permanent_length &&
           a->repeat_length == b->repeat_length &&
           (!a->repeat_length || !memcmp(a->repeat, b->repeat, a->repeat_length)) &&
           !memcmp(a->request, b->request, a->request_length) &&
           !memcmp(a->response, b->response, a->response_length) &&
           !memcmp(a->volatile_state, b->volatile_state, a->volatile_length) &&
           !memcmp(a->permanent, b->permanent, a->permanent_length);
}

static struct xlv_journal *open_journal(void)
{
    struct xlv_journal *journal;
    struct xlv_error e = XLV_ERROR_INIT;

    if (xlv_journal_new(&journal, fd, &uuid, key, &e)) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    return journal;
}

/* Loads and checks; returns the sequence found (0: empty). */
static uint64_t check(struct xlv_journal *journal, uint64_t least, uint64_t most, uint32_t unit)
{
    struct xlv_journal_record found, expected;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_journal_load(journal, &found, &e);

    if (rc == XLV_E_EMPTY) {
        if (least)
            fail_msg("the journal is empty, record %" PRIu64 " was complete", least);
        return 0;
    }
    if (rc)
        fail_msg("load gave %d: %s", rc, e.text);
    if (found.sequence < least || found.sequence > most)
        fail_msg("load gave record %" PRIu64 ", not %" PRIu64 " to %" PRIu64, found.sequence,
                 least, most);
    expected = record_of(found.sequence, unit);
    if (!same(&found, &expected))
        fail_msg("record %" PRIu64 " is not what was appended", found.sequence);
    return found.sequence;
}

static int begin(void **state)
{
    uint64_t random = 99;

    (void)state;
    for (size_t i = 0; i + 8 <= sizeof(bytes); i += 8) {
        uint64_t v = disk_random(&random);

        memcpy(bytes + i, &v, 8);
    }
    fd = memfd_create("journal", MFD_CLOEXEC);
    report = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return fd < 0 || report == MAP_FAILED;
}

static int end(void **state)
{
    (void)state;
    munmap(report, 4096);
    xlv_close(&fd);
    return 0;
}

/* --- random moments --------------------------------------------------------------- */

#define UNIT 9000u

static void append_for_ever(uint64_t sequence)
{
    struct xlv_journal *journal = open_journal();
    struct xlv_journal_record found;
    int rc = xlv_journal_load(journal, &found, NULL);

    if (rc && rc != XLV_E_EMPTY)
        _exit(1);
    for (;; sequence++) {
        struct xlv_journal_record r = record_of(sequence, UNIT);

        xlv_journal_begin(journal, sequence);
        if (append(journal, &r, NULL))
            _exit(1);
        atomic_store(&report->appended, sequence);
        xlv_journal_mark(journal, sequence);
        atomic_store(&report->marked, sequence);
    }
}

static void a_kill_at_a_random_moment_leaves_a_whole_record(void **state)
{
    uint64_t random = disk_seed(0x5eed5), sequence = 0, in_append = 0;
    unsigned kills = 0;

    (void)state;
    for (kills = 0; kills < 400; kills++) {
        struct xlv_journal *journal;
        struct timespec wait;
        uint64_t done, found, marked;
        pid_t child;
        int status;

        child = fork();
        assert_true(child >= 0);
        if (!child)
            append_for_ever(sequence + 1);
        /* from its first append on; then up to 600 us, some 100 appends */
        while (atomic_load(&report->appended) <= sequence && !waitpid(child, &status, WNOHANG))
            ;
        wait = (struct timespec){ 0, (long)(disk_random(&random) % 600000) };
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

        done = atomic_load(&report->appended);
        journal = open_journal();
        found = check(journal, done, done + 1, UNIT);
        assert_true(found > 0);
        in_append += found > done;
        /* the mark never runs ahead of the record */
        marked = xlv_journal_marked(journal);
        assert_true(marked >= atomic_load(&report->marked) && marked <= found);
        xlv_journal_free(journal);
        sequence = found;
    }
    printf("# %u kills, %" PRIu64 " appends, %" PRIu64 " killed between publishing and returning\n",
           kills, sequence, in_append);
}

/* --- every instruction -------------------------------------------------------------- */

enum { SMALL = 96, LAST = 5 };

static void stepped_child(void)
{
    struct xlv_journal *journal = open_journal();
    struct xlv_journal_record r, found;

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
        _exit(77);
    if (xlv_journal_load(journal, &found, NULL) != XLV_E_EMPTY)
        _exit(1);
    /* warm: lazy work of OpenSSL is not what is looked at */
    for (uint64_t s = 1; s <= 2; s++) {
        r = record_of(s, SMALL);
        if (append(journal, &r, NULL))
            _exit(1);
        xlv_journal_mark(journal, s);
    }
    atomic_store(&report->appended, 2);
    atomic_store(&report->marked, 2);
    raise(SIGSTOP); /* stepping begins: an exchange, a whole record, an exchange on that one */
    for (uint64_t s = 3; s <= LAST; s++) {
        r = record_of(s, SMALL);
        xlv_journal_begin(journal, s);
        if (append(journal, &r, NULL))
            _exit(1);
        atomic_store(&report->appended, s);
        xlv_journal_mark(journal, s);
        atomic_store(&report->marked, s);
    }
    xlv_journal_clear(journal, NULL);
    atomic_store(&report->appended, 0);
    _exit(0);
}

static void at_every_single_instruction_the_journal_holds_a_whole_record(void **state)
{
    unsigned long steps = 0, looks = 0;
    uint64_t last = 2;
    struct xlv_journal *journal;
    bool cleared = false;
    pid_t child;
    int status;

    (void)state;
    child = fork();
    assert_true(child >= 0);
    if (!child)
        stepped_child();
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf("# skipped: ptrace is not allowed here\n");
        skip();
    }
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    journal = open_journal();
    for (;;) {
        uint64_t done, found, marked;

        assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status))
            break;
        assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        steps++;
        done = atomic_load(&report->appended);
        found = check(journal, last == LAST ? 0 : done, LAST, SMALL);
        looks++;
        if (!found) {
            assert_true(last == LAST);
            cleared = true;
        } else {
            /* forward only, one by one, and no record after the clear */
            assert_true(!cleared && found >= last && found <= last + 1);
            last = found;
        }
        marked = xlv_journal_marked(journal);
        assert_true(marked <= found);
        if (!cleared)
            assert_true(marked >= atomic_load(&report->marked));
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(last, LAST);
    assert_true(cleared);
    xlv_journal_free(journal);
    printf("# %lu instructions, %lu loads between them\n", steps, looks);
}

/* --- a full file system --------------------------------------------------------------- */

static int fallocate_error;
static unsigned fallocate_calls;
int __real_posix_fallocate(int file, off_t offset, off_t length);
int __wrap_posix_fallocate(int file, off_t offset, off_t length);
int __wrap_posix_fallocate(int file, off_t offset, off_t length)
{
    fallocate_calls++;
    if (fallocate_error) {
        int error = fallocate_error;

        if (error == EINTR)
            fallocate_error = 0;
        return error;
    }
    return __real_posix_fallocate(file, offset, length);
}

static int ftruncate_error, mmap_error;
int __real_ftruncate(int file, off_t length);
int __wrap_ftruncate(int file, off_t length);
int __wrap_ftruncate(int file, off_t length)
{
    if (!ftruncate_error)
        return __real_ftruncate(file, length);
    errno = ftruncate_error;
    if (ftruncate_error == EINTR)
        ftruncate_error = 0;
    return -1;
}

void *__real_mmap(void *at, size_t length, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int file, off_t offset)
{
    if (!mmap_error)
        return __real_mmap(at, length, protection, flags, file, offset);
    errno = mmap_error;
    return MAP_FAILED;
}

static void a_journal_that_cannot_be_sized_or_mapped_says_so(void **state)
{
    struct xlv_journal_record r = record_of(1, 2000), found;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_journal *journal;

    (void)state;
    ftruncate_error = EIO;
    assert_int_equal(xlv_journal_new(&journal, fd, &uuid, key, &e), -EIO);
    assert_null(journal);
    assert_non_null(strstr(e.text, "cannot size the journal"));
    ftruncate_error = EINTR;
    journal = open_journal();
    assert_int_equal(xlv_journal_load(journal, &found, NULL), XLV_E_EMPTY);
    assert_int_equal(xlv_journal_append(journal, &r, NULL), 0);
    xlv_journal_free(journal);
    mmap_error = ENOMEM;
    xlv_error_clear(&e);
    assert_int_equal(xlv_journal_new(&journal, fd, &uuid, key, &e), -ENOMEM);
    assert_null(journal);
    assert_non_null(strstr(e.text, "cannot map the journal"));
    mmap_error = 0;
    /* a closed descriptor, whatever the reason */
    xlv_error_clear(&e);
    assert_int_equal(xlv_journal_new(&journal, -1, &uuid, key, &e), -EBADF);
    assert_null(journal);
    journal = open_journal();
    check(journal, 1, 1, 2000);
    xlv_journal_free(journal);
}

static void a_full_file_system_fails_an_append_and_keeps_the_last_record(void **state)
{
    struct xlv_journal *journal = open_journal();
    struct xlv_journal_record small = record_of(1, 2000), large = record_of(61, 20000), found;
    struct xlv_error e = XLV_ERROR_INIT;
    unsigned calls;

    (void)state;
    assert_int_equal(xlv_journal_load(journal, &found, NULL), XLV_E_EMPTY);
    assert_int_equal(xlv_journal_append(journal, &small, NULL), 0);
    assert_int_equal(xlv_journal_append(journal, &small, NULL), 0);
    fallocate_error = ENOSPC;
    assert_int_equal(xlv_journal_append(journal, &large, &e), -ENOSPC);
    assert_non_null(strstr(e.text, "full"));
    check(journal, 1, 1, 2000);
    /* what is allocated already needs no system call */
    calls = fallocate_calls;
    assert_int_equal(xlv_journal_append(journal, &small, NULL), 0);
    assert_int_equal(fallocate_calls, calls);
    fallocate_error = EINTR;
    assert_int_equal(xlv_journal_append(journal, &large, NULL), 0);
    check(journal, 61, 61, 20000);
    xlv_journal_free(journal);

    fallocate_error = ENOSPC;
    xlv_error_clear(&e);
    assert_int_equal(xlv_journal_new(&journal, fd, &uuid, key, &e), -ENOSPC);
    assert_null(journal);
    assert_non_null(strstr(e.text, "full"));
    fallocate_error = 0;
    journal = open_journal();
    check(journal, 61, 61, 20000);
    xlv_journal_free(journal);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_kill_at_a_random_moment_leaves_a_whole_record),
        TEST(at_every_single_instruction_the_journal_holds_a_whole_record),
        TEST(a_journal_that_cannot_be_sized_or_mapped_says_so),
        TEST(a_full_file_system_fails_an_append_and_keeps_the_last_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
