/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every system call of the registry that can fail is made to fail in turn, once
 * or from then on: those of SQLite and our own alike, for this program's
 * definitions below come before the C library's. After each: what was
 * acknowledged is there, what was not is there whole or not at all, and the
 * registry goes on.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "libxl-vtpm/registry.h"

/* Counts calls; those from fail_from to fail_to fail with fail_with (0: short). */
static unsigned calls, fail_from, fail_to;
static int fail_with;
static bool armed;

#define SHORT_WRITE 0

static bool fails(void)
{
    if (!armed)
        return false;
    calls++;
    return calls >= fail_from && calls <= fail_to;
}

static long checked(long result)
{
    return result; /* syscall() has set errno */
}

#define FAIL_OR(call) \
    do { \
        if (fails() && fail_with != SHORT_WRITE) { \
            errno = fail_with; \
            return -1; \
        } \
        return checked(call); \
    } while (0)

int mkdir(const char *path, mode_t mode)
{
    FAIL_OR(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

int mkdirat(int fd, const char *path, mode_t mode)
{
    FAIL_OR(syscall(SYS_mkdirat, fd, path, mode));
}

int fsync(int fd)
{
    FAIL_OR(syscall(SYS_fsync, fd));
}

int fdatasync(int fd)
{
    FAIL_OR(syscall(SYS_fdatasync, fd));
}

int ftruncate(int fd, off_t length)
{
    FAIL_OR(syscall(SYS_ftruncate, fd, length));
}

int ftruncate64(int fd, off_t length)
{
    FAIL_OR(syscall(SYS_ftruncate, fd, length));
}

int unlink(const char *path)
{
    FAIL_OR(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

static ssize_t do_pwrite(int fd, const void *data, size_t length, off_t offset)
{
    if (fails()) {
        if (fail_with != SHORT_WRITE) {
            errno = fail_with;
            return -1;
        }
        length = length > 1 ? length / 2 : length;
    }
    return checked(syscall(SYS_pwrite64, fd, data, length, offset));
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return do_pwrite(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset)
{
    return do_pwrite(fd, data, length, offset);
}

ssize_t pread(int fd, void *data, size_t length, off_t offset)
{
    FAIL_OR(syscall(SYS_pread64, fd, data, length, offset));
}

ssize_t pread64(int fd, void *data, size_t length, off_t offset)
{
    FAIL_OR(syscall(SYS_pread64, fd, data, length, offset));
}

static int do_open(int dir, const char *path, int flags, mode_t mode)
{
    FAIL_OR(syscall(SYS_openat, dir, path, flags, mode));
}

#define OPEN_LIKE(name, dir, ...) \
    int name(__VA_ARGS__, int flags, ...) \
    { \
        mode_t mode = 0; \
        va_list ap; \
        va_start(ap, flags); \
        if (flags & (O_CREAT | O_TMPFILE)) \
            mode = va_arg(ap, mode_t); \
        va_end(ap); \
        return do_open(dir, path, flags, mode); \
    }
OPEN_LIKE(open, AT_FDCWD, const char *path)
OPEN_LIKE(open64, AT_FDCWD, const char *path)
OPEN_LIKE(openat, fd, int fd, const char *path)
OPEN_LIKE(openat64, fd, int fd, const char *path)

/*
 * The run: three assignments, one made ahead, a binding, a use, and a second
 * opening, so that the log is written back, too.
 */

enum { UUIDS = 4 };

struct outcome {
    uint64_t number[UUIDS]; /* acknowledged; 0 not */
    bool bound, used;
    unsigned failures;
};

static char dir[64], state_dir[80];

static struct xlv_uuid uuid_of(unsigned n)
{
    return (struct xlv_uuid){ .b = { 0xdc, [15] = (uint8_t)(n + 1) } };
}

static struct xlv_lookup lookup_of(unsigned n)
{
    return (struct xlv_lookup){ .uuid = uuid_of(n),
                                .domain_name = "web",
                                .devid = n,
                                .unknown_uuid = XLV_UNKNOWN_UUID_ASSIGN,
                                .default_version = XLV_TPM_2_0 };
}

/* Each failure must come with a sentence. */
static bool went_well(struct outcome *o, int rc, const struct xlv_error *e, const char *what)
{
    if (!rc)
        return true;
    o->failures++;
    if (!e->text[0] || rc == XLV_E_EXISTS)
        fail_msg("call %u, errno %d: %s gave %d, \"%s\"", fail_from, fail_with, what, rc, e->text);
    return false;
}

static void run(struct outcome *o)
{
    struct xlv_instance i;
    enum xlv_rule rule;

    memset(o, 0, sizeof(*o));
    for (int opening = 0; opening < 2; opening++) {
        struct xlv_error e = XLV_ERROR_INIT;
        struct xlv_registry *r;

        if (!went_well(o, xlv_registry_open(&r, state_dir, true, &e), &e, "open"))
            continue;
        for (unsigned n = 0; n < 2; n++) {
            struct xlv_lookup lookup = lookup_of(n + 2 * (unsigned)opening);

            xlv_error_clear(&e);
            if (went_well(o, xlv_registry_resolve(r, &lookup, &i, &rule, &e), &e, "resolve"))
                o->number[n + 2 * opening] = i.number;
        }
        xlv_error_clear(&e);
        if (!opening && o->number[0] &&
            went_well(o, xlv_registry_bind(r, o->number[0], "db", 0, &e), &e, "bind"))
            o->bound = true;
        xlv_error_clear(&e);
        if (!opening && o->number[0] &&
            went_well(o, xlv_registry_used(r, o->number[0], "web", NULL, XLV_USE_BOOT, &e), &e, "used"))
            o->used = true;
        xlv_registry_close(r);
    }
}

static int count_good(const struct xlv_instance *i, void *opaque)
{
    struct stat st;
    char path[PATH_MAX];

    (void)xlv_instance_path(state_dir, i, path);
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return 99;
    ++*(unsigned *)opaque;
    return 0;
}

/* With nothing failing any more. */
static void check(const struct outcome *o)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_registry *r;
    unsigned rows = 0;
    int rc = xlv_registry_open(&r, state_dir, true, &e);

    if (rc)
        fail_msg("call %u, errno %d: then open gives %d, \"%s\"", fail_from, fail_with, rc, e.text);
    rc = xlv_registry_each(r, count_good, &rows, &e);
    if (rc || rows > UUIDS)
        fail_msg("call %u, errno %d: %d, %u rows, \"%s\"", fail_from, fail_with, rc, rows, e.text);
    for (unsigned n = 0; n < UUIDS; n++) {
        struct xlv_lookup lookup = lookup_of(n);
        struct xlv_instance i;
        enum xlv_rule rule;

        if (xlv_registry_resolve(r, &lookup, &i, &rule, &e))
            fail_msg("call %u, errno %d: %s", fail_from, fail_with, e.text);
        if (o->number[n] && (i.number != o->number[n] || rule != XLV_RULE_UUID))
            fail_msg("call %u, errno %d: uuid %u was %llu and is %llu by %s", fail_from, fail_with,
                     n, (unsigned long long)o->number[n], (unsigned long long)i.number,
                     xlv_rule_name(rule));
        if (n == 0 && o->used)
            assert_string_equal(i.last_domain_name, "web");
    }
    if (o->bound) {
        struct xlv_lookup lookup = { .domain_name = "db" };
        struct xlv_instance i;
        enum xlv_rule rule;

        assert_int_equal(xlv_registry_preview(r, &lookup, &i, &rule, NULL), 0);
        assert_int_equal(rule, XLV_RULE_BINDING);
        assert_int_equal(i.number, o->number[0]);
    }
    xlv_registry_close(r);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void fresh(void)
{
    static unsigned n;

    if (state_dir[0])
        assert_int_equal(nftw(state_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    snprintf(state_dir, sizeof(state_dir), "%s/%u", dir, n++);
}

static void every_call_fails_in_turn(void **state)
{
    static const int errors[] = { EIO, ENOSPC, EINTR, SHORT_WRITE };
    struct outcome o;
    unsigned total, injected = 0, noticed = 0;

    (void)state;
    fresh();
    fail_from = fail_to = 0;
    calls = 0;
    armed = true;
    run(&o);
    armed = false;
    total = calls;
    assert_int_equal(o.failures, 0);
    assert_true(total > 60);
    check(&o);
    for (size_t k = 0; k < sizeof(errors) / sizeof(errors[0]); k++)
        /* SQLite tries for ever where a call is for ever interrupted, as it should */
        for (int for_good = 0; for_good < (errors[k] == EINTR ? 1 : 2); for_good++)
            for (unsigned at = 1; at <= total; at++) {
                fresh();
                fail_from = at;
                fail_to = for_good ? UINT32_MAX : at;
                fail_with = errors[k];
                calls = 0;
                armed = true;
                run(&o);
                armed = false;
                injected++;
                noticed += o.failures > 0;
                if (fail_with == SHORT_WRITE)
                    assert_int_equal(o.failures, 0);
                check(&o);
            }
    print_message("%u calls, %u runs with a fault, %u of them noticed, nothing lost\n", total,
                  injected, noticed);
    assert_true(noticed > injected / 4);
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/dev/shm/xlv-faults-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_call_fails_in_turn) };

    return cmocka_run_group_tests(tests, setup, teardown);
}
