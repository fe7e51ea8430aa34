/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys: the providers and their refusals, derivation against constants, and
 * the journal's root in the kernel (real where the kernel allows it, and one
 * that refuses, by wrapped calls).
 */
#include "config.h"

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
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <keyutils.h>
#include <linux/magic.h>

#include "common/fd.h"
#include "common/log.h"
#include "libxl-vtpm/keys.h"

static const struct xlv_uuid uuid_a = { { 0xaa, 1 } }, uuid_b = { { 0xbb, 2 } };

static char directory[64], path[96];
static unsigned warnings, notices;
static char last_line[512];

static void count_lines(enum xlv_log_level level, const struct xlv_log_subject *subject,
                        const char *text)
{
    (void)subject;
    warnings += level == XLV_LOG_WARNING;
    notices += level == XLV_LOG_NOTICE;
    snprintf(last_line, sizeof(last_line), "%s", text);
}

/* --- a kernel with or without keyrings, and any kind of file system -------------- */

static int keyring_error;   /* 0: the real thing */
static long run_dir_type;   /* 0: the real one */

key_serial_t __real_add_key(const char *type, const char *description, const void *payload,
                            size_t length, key_serial_t ring);
key_serial_t __wrap_add_key(const char *type, const char *description, const void *payload,
                            size_t length, key_serial_t ring);
key_serial_t __wrap_add_key(const char *type, const char *description, const void *payload,
                            size_t length, key_serial_t ring)
{
    if (!keyring_error)
        return __real_add_key(type, description, payload, length, ring);
    errno = keyring_error;
    return -1;
}

long __real_keyctl_search(key_serial_t ring, const char *type, const char *description,
                          key_serial_t destination);
long __wrap_keyctl_search(key_serial_t ring, const char *type, const char *description,
                          key_serial_t destination);
long __wrap_keyctl_search(key_serial_t ring, const char *type, const char *description,
                          key_serial_t destination)
{
    if (!keyring_error)
        return __real_keyctl_search(ring, type, description, destination);
    errno = keyring_error;
    return -1;
}

int __real_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs)
{
    int rc = __real_fstatfs(fd, fs);

    if (!rc && run_dir_type)
        fs->f_type = run_dir_type;
    return rc;
}

static bool synced_file, synced_directory;
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st;

    if (!fstat(fd, &st)) {
        synced_directory |= S_ISDIR(st.st_mode) && !access(path, F_OK);
        synced_file |= S_ISREG(st.st_mode) && access(path, F_OK) && st.st_size == XLV_KEY_SIZE;
    }
    return __real_fsync(fd);
}

static int begin(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/xl-vtpm-keys-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof(path), "%s/master.key", directory);
    unsetenv("CREDENTIALS_DIRECTORY");
    keyring_error = 0;
    run_dir_type = 0;
    warnings = notices = 0;
    synced_file = synced_directory = false;
    return 0;
}

static void forget_kernel_key(void)
{
    char description[128];
    long id;

    snprintf(description, sizeof(description), "xl-vtpm:journal:%s", directory);
    id = __real_keyctl_search(KEY_SPEC_USER_KEYRING, "user", description, 0);
    if (id >= 0)
        keyctl_unlink((key_serial_t)id, KEY_SPEC_USER_KEYRING);
}

static int end(void **state)
{
    static const char *const names[] = { "master.key", "journal.key", "vtpm", "other" };
    char name[128];

    (void)state;
    forget_kernel_key();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(name, sizeof(name), "%s/%s", directory, names[i]);
        unlink(name);
    }
    /* fails if anything else was left behind */
    return rmdir(directory);
}

static void write_file(const char *name, size_t length, mode_t mode)
{
    uint8_t data[64];
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    memset(data, 0x42, sizeof(data));
    assert_true(fd >= 0);
    assert_int_equal(xlv_write_all(fd, data, length), 0);
    assert_int_equal(fchmod(fd, mode), 0);
    xlv_close(&fd);
}

static struct xlv_keys *keys_of(enum xlv_key_provider provider, const char *source, bool create)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_keys *keys;

    if (xlv_keys_new(&keys, provider, source, create, &e))
        fail_msg("%s", e.text);
    return keys;
}

static void assert_refused(enum xlv_key_provider provider, const char *source, bool create,
                           int outcome, const char *words)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_keys *keys;
    int rc = xlv_keys_new(&keys, provider, source, create, &e);

    if (rc != outcome || !strstr(e.text, words))
        fail_msg("expected %d \"%s\", got %d: %s", outcome, words, rc, e.text);
    assert_null(keys);
}

/* --- master key -------------------------------------------------------------------- */

static void a_key_file_is_made_once_private_and_durable(void **state)
{
    struct xlv_keys *one, *two;
    uint8_t a[XLV_KEY_SIZE], b[XLV_KEY_SIZE];
    struct stat st;

    (void)state;
    one = keys_of(XLV_KEY_FILE, path, true);
    assert_int_equal(notices, 1);
    assert_true(synced_file);
    assert_true(synced_directory);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, XLV_KEY_SIZE);
    assert_int_equal(st.st_nlink, 1);
    /* its maker may have been killed before the name was durable */
    synced_directory = false;
    two = keys_of(XLV_KEY_FILE, path, true);
    assert_true(synced_directory);
    assert_int_equal(notices, 1);
    assert_int_equal(xlv_keys_instance(one, &uuid_a, a, NULL), 0);
    assert_int_equal(xlv_keys_instance(two, &uuid_a, b, NULL), 0);
    assert_memory_equal(a, b, sizeof(a));
    xlv_keys_free(one);
    xlv_keys_free(two);
}

static void two_new_key_files_differ(void **state)
{
    struct xlv_keys *one, *two;
    uint8_t a[XLV_KEY_SIZE], b[XLV_KEY_SIZE];

    (void)state;
    one = keys_of(XLV_KEY_FILE, path, true);
    assert_int_equal(unlink(path), 0);
    two = keys_of(XLV_KEY_FILE, path, true);
    assert_int_equal(xlv_keys_instance(one, &uuid_a, a, NULL), 0);
    assert_int_equal(xlv_keys_instance(two, &uuid_a, b, NULL), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    xlv_keys_free(one);
    xlv_keys_free(two);
}

static void a_missing_key_file_is_not_replaced_unless_asked(void **state)
{
    (void)state;
    assert_refused(XLV_KEY_FILE, path, false, XLV_E_NOT_FOUND, "is missing");
    assert_int_equal(access(path, F_OK), -1);
    assert_refused(XLV_KEY_FILE, "", false, XLV_E_INVALID, "path");
    assert_refused(XLV_KEY_FILE, "/nonexistent/dir/key", true, -ENOENT, "/nonexistent/dir");
}

static void a_key_file_that_others_can_read_is_refused(void **state)
{
    static const mode_t modes[] = { 0640, 0604, 0620, 0602, 0644, 0610 };

    (void)state;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        write_file(path, XLV_KEY_SIZE, modes[i]);
        assert_refused(XLV_KEY_FILE, path, true, XLV_E_REFUSED, "chmod 600");
    }
    write_file(path, XLV_KEY_SIZE, 0400);
    xlv_keys_free(keys_of(XLV_KEY_FILE, path, false));
}

static void a_key_file_of_another_user_is_refused(void **state)
{
    (void)state;
    write_file(path, XLV_KEY_SIZE, 0600);
    if (chown(path, 12345, 12345)) {
        printf("# skipped: not root, cannot give a file away\n");
        skip();
    }
    assert_refused(XLV_KEY_FILE, path, true, XLV_E_REFUSED, "belongs to user 12345");
}

static void a_key_file_of_another_length_is_refused_and_kept(void **state)
{
    static const size_t lengths[] = { 0, 1, 31, 33, 64 };
    struct stat st;

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        write_file(path, lengths[i], 0600);
        assert_refused(XLV_KEY_FILE, path, true, XLV_E_CORRUPT, "instead of 32");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, lengths[i]);
    }
}

static void a_credential_is_read_from_where_systemd_puts_it(void **state)
{
    char name[128];
    struct xlv_keys *credential, *file;
    uint8_t a[XLV_KEY_SIZE], b[XLV_KEY_SIZE];

    (void)state;
    assert_refused(XLV_KEY_CREDENTIAL, "vtpm", true, XLV_E_NOT_FOUND, "CREDENTIALS_DIRECTORY");
    setenv("CREDENTIALS_DIRECTORY", directory, 1);
    assert_refused(XLV_KEY_CREDENTIAL, "vtpm", true, XLV_E_NOT_FOUND, "no credential vtpm");
    snprintf(name, sizeof(name), "%s/vtpm", directory);
    write_file(name, 31, 0400);
    assert_refused(XLV_KEY_CREDENTIAL, "vtpm", true, XLV_E_CORRUPT, "instead of 32");
    unlink(name);
    write_file(name, XLV_KEY_SIZE, 0440);
    credential = keys_of(XLV_KEY_CREDENTIAL, "vtpm", false);
    write_file(path, XLV_KEY_SIZE, 0600);
    file = keys_of(XLV_KEY_FILE, path, false);
    assert_int_equal(xlv_keys_instance(credential, &uuid_a, a, NULL), 0);
    assert_int_equal(xlv_keys_instance(file, &uuid_a, b, NULL), 0);
    assert_memory_equal(a, b, sizeof(a));
    xlv_keys_free(credential);
    xlv_keys_free(file);
}

static void a_credential_name_stays_in_its_directory(void **state)
{
    (void)state;
    setenv("CREDENTIALS_DIRECTORY", directory, 1);
    write_file(path, XLV_KEY_SIZE, 0600);
    assert_refused(XLV_KEY_CREDENTIAL, "../master.key", true, XLV_E_INVALID, "name");
    assert_refused(XLV_KEY_CREDENTIAL, "..", true, XLV_E_INVALID, "name");
    assert_refused(XLV_KEY_CREDENTIAL, "", true, XLV_E_INVALID, "name");
    assert_refused(XLV_KEY_CREDENTIAL, NULL, true, XLV_E_INVALID, "name");
}

static void no_key_is_warned_about_at_every_start(void **state)
{
    (void)state;
    xlv_keys_free(keys_of(XLV_KEY_NONE, NULL, false));
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_line, "none"));
    xlv_keys_free(keys_of(XLV_KEY_NONE, NULL, false));
    assert_int_equal(warnings, 2);
}

/* --- derivation ----------------------------------------------------------------------- */

static void instance_keys_never_change_and_differ_by_uuid(void **state)
{
    /* HKDF-SHA256 by another implementation, for the well-known key and 32 x 0x42 */
    static const uint8_t of_none[XLV_KEY_SIZE] = {
        0xf0, 0x21, 0x74, 0x15, 0xe0, 0xff, 0x59, 0x50, 0x26, 0x0b, 0x78, 0xa1,
        0x08, 0xf6, 0x02, 0x5d, 0x3e, 0x3b, 0x9c, 0x1b, 0x73, 0xbe, 0x70, 0x7d,
        0x36, 0xb3, 0x68, 0xa2, 0xc8, 0xc3, 0xa5, 0xe7,
    };
    static const uint8_t of_file[XLV_KEY_SIZE] = {
        0x94, 0xed, 0x40, 0x2c, 0xc5, 0x6c, 0x6b, 0xc0, 0xc0, 0x44, 0x34, 0x1e,
        0x44, 0x53, 0x0c, 0x87, 0x14, 0xbd, 0x2e, 0x47, 0x89, 0xb4, 0xca, 0xf4,
        0x04, 0x39, 0x73, 0x30, 0x4d, 0x98, 0x52, 0x41,
    };
    struct xlv_keys *keys = keys_of(XLV_KEY_NONE, NULL, false);
    uint8_t a[XLV_KEY_SIZE], b[XLV_KEY_SIZE];

    (void)state;
    assert_int_equal(xlv_keys_instance(keys, &uuid_a, a, NULL), 0);
    assert_memory_equal(a, of_none, sizeof(a));
    assert_int_equal(xlv_keys_instance(keys, &uuid_b, b, NULL), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    xlv_keys_free(keys);
    write_file(path, XLV_KEY_SIZE, 0600);
    keys = keys_of(XLV_KEY_FILE, path, false);
    assert_int_equal(xlv_keys_instance(keys, &uuid_a, a, NULL), 0);
    assert_memory_equal(a, of_file, sizeof(a));
    xlv_keys_free(keys);
}

/* --- the journal's key ------------------------------------------------------------------ */

static enum xlv_journal_key_home journal_key(const struct xlv_uuid *uuid, uint8_t key[XLV_KEY_SIZE])
{
    struct xlv_keys *keys = keys_of(XLV_KEY_NONE, NULL, false);
    struct xlv_error e = XLV_ERROR_INIT;
    enum xlv_journal_key_home home;

    warnings = 0;
    if (xlv_keys_open_journal(keys, directory, &home, &e))
        fail_msg("%s", e.text);
    assert_int_equal(xlv_keys_journal(keys, uuid, key, NULL), 0);
    xlv_keys_free(keys);
    return home;
}

static void a_journal_key_needs_opening_first(void **state)
{
    struct xlv_keys *keys = keys_of(XLV_KEY_NONE, NULL, false);
    uint8_t key[XLV_KEY_SIZE];

    (void)state;
    assert_true(xlv_keys_journal(keys, &uuid_a, key, NULL) < 0);
    xlv_keys_free(keys);
}

static void a_restarted_daemon_finds_the_journal_key_in_the_kernel(void **state)
{
    uint8_t one[XLV_KEY_SIZE], two[XLV_KEY_SIZE], other[XLV_KEY_SIZE], fresh[XLV_KEY_SIZE];
    char journal_file[128];
    pid_t child;
    int status;

    (void)state;
    if (journal_key(&uuid_a, one) != XLV_JOURNAL_KEY_KEYRING) {
        printf("# skipped: the kernel refuses keyrings here\n");
        skip();
    }
    assert_int_equal(warnings, 0);
    snprintf(journal_file, sizeof(journal_file), "%s/journal.key", directory);
    assert_int_equal(access(journal_file, F_OK), -1);
    assert_int_equal(journal_key(&uuid_b, other), XLV_JOURNAL_KEY_KEYRING);
    assert_memory_not_equal(one, other, sizeof(one));

    /* a new process with a new session keyring, as systemd gives a service */
    child = fork();
    assert_true(child >= 0);
    if (!child) {
        if (keyctl_join_session_keyring(NULL) < 0 ||
            journal_key(&uuid_a, two) != XLV_JOURNAL_KEY_KEYRING)
            _exit(1);
        _exit(memcmp(one, two, sizeof(one)) ? 2 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);

    /* another boot */
    forget_kernel_key();
    assert_int_equal(journal_key(&uuid_a, fresh), XLV_JOURNAL_KEY_KEYRING);
    assert_memory_not_equal(one, fresh, sizeof(one));
}

static void without_keyrings_the_journal_key_is_a_file_on_tmpfs_with_a_warning(void **state)
{
    static const int errors[] = { ENOSYS, EPERM, EACCES, EDQUOT };
    uint8_t one[XLV_KEY_SIZE], two[XLV_KEY_SIZE];
    char name[128];
    struct stat st;

    (void)state;
    run_dir_type = TMPFS_MAGIC;
    snprintf(name, sizeof(name), "%s/journal.key", directory);
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        keyring_error = errors[i];
        assert_int_equal(journal_key(&uuid_a, one), XLV_JOURNAL_KEY_FILE);
        assert_int_equal(warnings, 1);
        assert_non_null(strstr(last_line, strerror(errors[i])));
        assert_int_equal(stat(name, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(journal_key(&uuid_a, two), XLV_JOURNAL_KEY_FILE);
        assert_memory_equal(one, two, sizeof(one));
        assert_int_equal(unlink(name), 0);
    }
}

static void without_keyrings_and_tmpfs_the_journal_key_is_never_on_disk(void **state)
{
    uint8_t one[XLV_KEY_SIZE], two[XLV_KEY_SIZE];
    char name[128];

    (void)state;
    keyring_error = ENOSYS;
    run_dir_type = EXT4_SUPER_MAGIC;
    snprintf(name, sizeof(name), "%s/journal.key", directory);
    assert_int_equal(journal_key(&uuid_a, one), XLV_JOURNAL_KEY_MEMORY);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_line, "memory only"));
    assert_int_equal(access(name, F_OK), -1);
    assert_int_equal(journal_key(&uuid_a, two), XLV_JOURNAL_KEY_MEMORY);
    assert_memory_not_equal(one, two, sizeof(one));
}

static void a_journal_key_file_that_others_can_read_is_refused(void **state)
{
    struct xlv_keys *keys = keys_of(XLV_KEY_NONE, NULL, false);
    char name[128];

    (void)state;
    keyring_error = ENOSYS;
    run_dir_type = TMPFS_MAGIC;
    snprintf(name, sizeof(name), "%s/journal.key", directory);
    write_file(name, XLV_KEY_SIZE, 0644);
    assert_int_equal(xlv_keys_open_journal(keys, directory, NULL, NULL), XLV_E_REFUSED);
    xlv_keys_free(keys);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_key_file_is_made_once_private_and_durable),
        TEST(two_new_key_files_differ),
        TEST(a_missing_key_file_is_not_replaced_unless_asked),
        TEST(a_key_file_that_others_can_read_is_refused),
        TEST(a_key_file_of_another_user_is_refused),
        TEST(a_key_file_of_another_length_is_refused_and_kept),
        TEST(a_credential_is_read_from_where_systemd_puts_it),
        TEST(a_credential_name_stays_in_its_directory),
        TEST(no_key_is_warned_about_at_every_start),
        TEST(instance_keys_never_change_and_differ_by_uuid),
        TEST(a_journal_key_needs_opening_first),
        TEST(a_restarted_daemon_finds_the_journal_key_in_the_kernel),
        TEST(without_keyrings_the_journal_key_is_a_file_on_tmpfs_with_a_warning),
        TEST(without_keyrings_and_tmpfs_the_journal_key_is_never_on_disk),
        TEST(a_journal_key_file_that_others_can_read_is_refused),
    };

    xlv_log_set_sink(count_lines);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
