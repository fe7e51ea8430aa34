/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making the slots and the master key, with every system call failing or
 * killing the process in turn. Afterwards a second try must succeed, find no
 * half-made file under a name that counts, and leave nothing else behind.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"
#include "libxl-vtpm/keys.h"

static const struct xlv_uuid uuid = { { 0xaa, 1 } };
static const uint8_t key[XLV_KEY_SIZE] = { 1 };

static unsigned calls, fail_at, faults;
static int fail_errno; /* 0: kill the process instead */
static char order[4096];

static bool strikes(const char *call)
{
    calls++;
    strncat(order, call, sizeof(order) - strlen(order) - 1);
    strncat(order, " ", sizeof(order) - strlen(order) - 1);
    if (calls != fail_at)
        return false;
    if (!fail_errno)
        _exit(99);
    faults++;
    errno = fail_errno;
    return true;
}

#define WRAP(type, name, failed, parameters, arguments) \
    type __real_##name parameters; \
    type __wrap_##name parameters; \
    type __wrap_##name parameters \
    { \
        return strikes(#name) ? (failed) : __real_##name arguments; \
    }

WRAP(int, fsync, -1, (int fd), (fd))
WRAP(int, renameat, -1, (int a, const char *b, int c, const char *d), (a, b, c, d))
WRAP(int, linkat, -1, (int a, const char *b, int c, const char *d, int e), (a, b, c, d, e))
WRAP(int, fstatat, -1, (int a, const char *b, struct stat *c, int d), (a, b, c, d))
WRAP(ssize_t, pwrite, -1, (int a, const void *b, size_t c, off_t d),
     (a, b, c, d))
WRAP(ssize_t, write, -1, (int a, const void *b, size_t c), (a, b, c))

int __real_openat(int dirfd, const char *name, int flags, mode_t mode);
int __wrap_openat(int dirfd, const char *name, int flags, mode_t mode);
int __wrap_openat(int dirfd, const char *name, int flags, mode_t mode)
{
    return strikes("openat") ? -1 : __real_openat(dirfd, name, flags, mode);
}

static char directory[64];
static int dir = -1;

static int begin(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/xl-vtpm-slots-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fail_at = 0;
    return dir < 0;
}

/* Removes everything; returns how many files there were. */
static int empty_directory(void)
{
    DIR *d = opendir(directory);
    struct dirent *entry;
    int n = 0;

    assert_non_null(d);
    while ((entry = readdir(d)))
        if (entry->d_name[0] != '.' || strlen(entry->d_name) > 2) {
            assert_int_equal(unlinkat(dir, entry->d_name, 0), 0);
            n++;
        }
    closedir(d);
    return n;
}

static int end(void **state)
{
    (void)state;
    fail_at = 0;
    empty_directory();
    xlv_close(&dir);
    return rmdir(directory);
}

/* Runs step with call number `at` failing (error) or killing (0). 1: it struck. */
static bool run(int (*step)(void), unsigned at, int error)
{
    int status, rc;
    pid_t child;

    if (!error) {
        child = fork();
        assert_true(child >= 0);
        if (!child) {
            calls = 0;
            fail_at = at;
            fail_errno = 0;
            (void)step();
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status) == 99;
    }
    calls = 0;
    fail_at = at;
    fail_errno = error;
    rc = step();
    fail_at = 0;
    if (calls < at) {
        assert_int_equal(rc, 0);
        return false;
    }
    if (rc >= 0)
        fail_msg("call %u failed with %d and nobody noticed", at, error);
    return true;
}

static int create(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_store_create(dir, &e);

    if (rc)
        assert_true(strlen(e.text) > 0);
    return rc;
}

static void slots_are_whole_or_not_there_whatever_fails(void **state)
{
    static const int errors[] = { 0, EIO, ENOSPC };
    unsigned struck = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        for (unsigned at = 1; run(create, at, errors[i]); at++) {
            struct xlv_store *store;
            uint64_t generation;
            uint8_t *data;
            size_t length;
            int fds[2];

            struck++;
            assert_int_equal(create(), 0);
            assert_int_equal(xlv_store_open(dir, fds, NULL), 0);
            assert_int_equal(xlv_store_new(&store, fds, &uuid, key, NULL), 0);
            assert_int_equal(xlv_store_load(store, &data, &length, &generation, NULL), XLV_E_EMPTY);
            assert_int_equal(xlv_store_commit(store, key, 5, &generation, NULL), 0);
            xlv_store_free(store);
            xlv_close(&fds[0]);
            xlv_close(&fds[1]);
            /* and a third call sees what is there */
            assert_int_equal(create(), 0);
            assert_int_equal(empty_directory(), 2);
        }
    assert_true(struck > 25);
    printf("# slots: %u calls failed or killed\n", struck);
}

static void slots_are_synced_before_they_get_their_names(void **state)
{
    (void)state;
    order[0] = '\0';
    assert_int_equal(create(), 0);
    assert_string_equal(order, "fstatat fstatat openat pwrite fsync renameat "
                               "openat pwrite fsync renameat fsync ");
}

static char key_path[96];

static int create_key(void)
{
    struct xlv_keys *keys;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_keys_new(&keys, XLV_KEY_FILE, key_path, true, &e);

    xlv_keys_free(keys);
    if (rc)
        assert_true(strlen(e.text) > 0);
    return rc;
}

static void a_master_key_is_whole_or_not_there_whatever_fails(void **state)
{
    static const int errors[] = { 0, EIO, ENOSPC };
    unsigned struck = 0;

    (void)state;
    snprintf(key_path, sizeof(key_path), "%s/master.key", directory);
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        for (unsigned at = 1; run(create_key, at, errors[i]); at++) {
            struct xlv_keys *keys;
            uint8_t before[XLV_KEY_SIZE], after[XLV_KEY_SIZE];
            struct stat st;
            bool there = !stat(key_path, &st);

            struck++;
            /* a key that was there once is never replaced by another */
            if (there) {
                assert_int_equal(st.st_size, XLV_KEY_SIZE);
                assert_int_equal(xlv_keys_new(&keys, XLV_KEY_FILE, key_path, false, NULL), 0);
                assert_int_equal(xlv_keys_instance(keys, &uuid, before, NULL), 0);
                xlv_keys_free(keys);
            }
            assert_int_equal(create_key(), 0);
            assert_int_equal(xlv_keys_new(&keys, XLV_KEY_FILE, key_path, false, NULL), 0);
            assert_int_equal(xlv_keys_instance(keys, &uuid, after, NULL), 0);
            xlv_keys_free(keys);
            if (there)
                assert_memory_equal(before, after, sizeof(before));
            /* a killed process may leave its temporary, a living one does not */
            if (errors[i])
                assert_int_equal(empty_directory(), 1);
            else
                assert_in_range(empty_directory(), 1, 2);
        }
    assert_true(struck > 12);
    printf("# master key: %u calls failed or killed\n", struck);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(slots_are_whole_or_not_there_whatever_fails),
        TEST(slots_are_synced_before_they_get_their_names),
        TEST(a_master_key_is_whole_or_not_there_whatever_fails),
    };

    xlv_log_set_level(XLV_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
