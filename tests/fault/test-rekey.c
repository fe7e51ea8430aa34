/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A change of the master key with every system call killing the process, the
 * host, or failing, in turn. After each of them a daemon that starts now, and
 * one that was started before the change, find every state, and make new TPMs
 * with a key that the rest of the change finds; and the change can be finished,
 * after which nothing opens with the old key and no file holds it.
 *
 * A killed pwrite writes its first half, sectors as they are. A power cut takes
 * back all names in the key's directory to what its last fsync saw (held as
 * hard links, so contents stay what they became).
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
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"
#include "libxl-vtpm/keys.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/rekey.h"

enum { WITH_STATE = 3, BLANK = 4, CUT_SHORT = 5, NO_FILES = 6, INSTANCES = 6 };
static const size_t lengths[WITH_STATE + 1] = { 0, 5000, 900, 40000 };

enum way { KILL, POWER, FAIL_EIO, FAIL_ENOSPC, WAYS };
static const char *const way_names[] = { "kill", "power cut", "EIO", "ENOSPC" };

static char root[64], durable[96], key_dir[96], key_path[112];
static struct xlv_settings settings;

/* --- faults ------------------------------------------------------------------------ */

static unsigned calls, fail_at;
static enum way way;
static char *order; /* shared: what a child did */

static void restore_names(void);

static bool strikes(const char *call)
{
    if (!fail_at)
        return false;
    calls++;
    if (strlen(order) < 8000) {
        strcat(order, call);
        strcat(order, " ");
    }
    return calls == fail_at;
}

static void die_or_fail(void)
{
    if (way == POWER)
        restore_names();
    if (way == KILL || way == POWER)
        _exit(99);
    errno = way == FAIL_EIO ? EIO : ENOSPC;
}

#define WRAP(type, name, failed, parameters, arguments) \
    type __real_##name parameters; \
    type __wrap_##name parameters; \
    type __wrap_##name parameters \
    { \
        if (strikes(#name)) { \
            die_or_fail(); \
            return failed; \
        } \
        return __real_##name arguments; \
    }

WRAP(int, fdatasync, -1, (int fd), (fd))
WRAP(int, renameat, -1, (int a, const char *b, int c, const char *d), (a, b, c, d))
WRAP(int, linkat, -1, (int a, const char *b, int c, const char *d, int e), (a, b, c, d, e))
WRAP(int, unlinkat, -1, (int a, const char *b, int c), (a, b, c))
WRAP(int, flock, -1, (int a, int b), (a, b))
WRAP(ssize_t, write, -1, (int a, const void *b, size_t c), (a, b, c))

int __real_openat(int dirfd, const char *name, int flags, mode_t mode);
int __wrap_openat(int dirfd, const char *name, int flags, mode_t mode);
int __wrap_openat(int dirfd, const char *name, int flags, mode_t mode)
{
    if (strikes("openat")) {
        die_or_fail();
        return -1;
    }
    return __real_openat(dirfd, name, flags, mode);
}

ssize_t __real_pwrite(int fd, const void *data, size_t length, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t at)
{
    if (strikes("pwrite")) {
        (void)!__real_pwrite(fd, data, length / 1024 * 512, at);
        die_or_fail();
        return -1;
    }
    return __real_pwrite(fd, data, length, at);
}

static void each_file(const char *directory, void (*visit)(const char *directory, const char *name))
{
    DIR *d = opendir(directory);
    struct dirent *entry;

    if (!d)
        return;
    while ((entry = readdir(d)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            visit(directory, entry->d_name);
    closedir(d);
}

static void drop(const char *directory, const char *name)
{
    char path[384];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    (void)unlink(path);
}

static void copy_link(const char *directory, const char *name)
{
    char from[384], to[384];

    snprintf(from, sizeof(from), "%s/%s", directory, name);
    snprintf(to, sizeof(to), "%s/%s", directory == durable ? key_dir : durable, name);
    (void)!link(from, to);
}

static void note_names(void)
{
    each_file(durable, drop);
    each_file(key_dir, copy_link);
}

static void restore_names(void)
{
    each_file(key_dir, drop);
    each_file(durable, copy_link);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st, directory;
    unsigned armed = fail_at;
    int rc;

    if (strikes("fsync")) {
        die_or_fail();
        return -1;
    }
    rc = __real_fsync(fd);
    fail_at = 0;
    if (!rc && !fstat(fd, &st) && !stat(key_dir, &directory) && st.st_ino == directory.st_ino &&
        st.st_dev == directory.st_dev)
        note_names();
    fail_at = armed;
    return rc;
}

/* --- the states -------------------------------------------------------------------- */

static struct xlv_uuid uuid_of(unsigned number)
{
    return (struct xlv_uuid){ { 0x10, (uint8_t)number, 7 } };
}

static void fill(uint8_t *data, size_t length, unsigned number)
{
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)(i * 31 + number * 7 + i / 251);
}

static void path_of(unsigned number, char path[128])
{
    snprintf(path, 128, "%s/state/instances/%u", root, number);
}

/* Opened and locked, as by the daemon. */
static void open_locked(unsigned number, bool create, int slots[2])
{
    char path[128];
    int dirfd XLV_CLOSE = -1;

    path_of(number, path);
    dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dirfd >= 0);
    if (create)
        assert_int_equal(xlv_store_create(dirfd, NULL), 0);
    assert_int_equal(xlv_store_open(dirfd, slots, NULL), 0);
    assert_int_equal(flock(slots[0], LOCK_EX | LOCK_NB), 0);
}

/* What a backend makes of an instance with the key that it is given. */
static int use(struct xlv_keys *keys, unsigned number, bool make, size_t *length,
               struct xlv_error *e)
{
    struct xlv_uuid uuid = uuid_of(number);
    uint8_t key[XLV_KEY_SIZE], *data, *expected = malloc(65536);
    struct xlv_store *store = NULL;
    uint64_t generation;
    int slots[2], rc;

    assert_non_null(expected);
    open_locked(number, make, slots);
    rc = xlv_keys_of_store(keys, &uuid, slots, key, NULL, e);
    if (!rc)
        rc = xlv_store_new(&store, slots, &uuid, key, e);
    if (!rc)
        rc = xlv_store_load(store, &data, length, &generation, e);
    if (!rc) {
        fill(expected, *length, number);
        assert_memory_equal(data, expected, *length);
        free(data);
    } else if (rc == XLV_E_EMPTY && make) {
        fill(expected, 700, number);
        rc = xlv_store_commit(store, expected, 700, &generation, e);
        *length = 700;
    }
    free(expected);
    xlv_store_free(store);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

static struct xlv_keys *new_keys(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_keys *keys;

    if (xlv_keys_new(&keys, XLV_KEY_FILE, key_path, false, &e))
        fail_msg("%s", e.text);
    return keys;
}

static void check_states(struct xlv_keys *keys, bool made, const char *when)
{
    for (unsigned i = 1; i <= (made ? INSTANCES : CUT_SHORT); i++) {
        struct xlv_error e = XLV_ERROR_INIT;
        size_t length = 0;
        int rc = use(keys, i, false, &length, &e);

        if (rc != (i <= WITH_STATE || made ? 0 : XLV_E_EMPTY))
            fail_msg("%s: instance %u gives %d: %s", when, i, rc, e.text);
        if (i <= WITH_STATE)
            assert_int_equal(length, lengths[i]);
    }
}

static void make_rest(struct xlv_keys *keys, const char *when)
{
    for (unsigned i = BLANK; i <= INSTANCES; i++) {
        struct xlv_error e = XLV_ERROR_INIT;
        size_t length;

        if (use(keys, i, true, &length, &e))
            fail_msg("%s: instance %u cannot be made: %s", when, i, e.text);
    }
}

static void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void shell(const char *fmt, ...)
{
    char command[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    assert_int_equal(system(command), 0);
}

/* A store whose every generation is under the old key, in root/template. */
static int begin(void **state)
{
    struct xlv_registry *registry;
    struct xlv_keys *keys;

    (void)state;
    xlv_log_set_level(XLV_LOG_ERROR);
    /* where syncing costs nothing; what it means is the model's matter here */
    strcpy(root, access("/dev/shm", W_OK) ? "/tmp/xl-vtpm-rekey-XXXXXX"
                                          : "/dev/shm/xl-vtpm-rekey-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    snprintf(key_dir, sizeof(key_dir), "%s/keys", root);
    snprintf(durable, sizeof(durable), "%s/durable", root);
    snprintf(key_path, sizeof(key_path), "%s/master.key", key_dir);
    assert_int_equal(mkdir(key_dir, 0700), 0);
    assert_int_equal(mkdir(durable, 0700), 0);
    assert_int_equal(xlv_settings_init(&settings), 0);
    free(settings.state_dir);
    free(settings.run_dir);
    free(settings.key_source);
    assert_true(asprintf(&settings.state_dir, "%s/state", root) > 0);
    assert_true(asprintf(&settings.run_dir, "%s/run", root) > 0);
    settings.key_source = strdup(key_path);
    order = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(order != MAP_FAILED);

    assert_int_equal(xlv_registry_open(&registry, settings.state_dir, true, NULL), 0);
    assert_int_equal(xlv_keys_new(&keys, XLV_KEY_FILE, key_path, true, NULL), 0);
    for (unsigned i = 1; i <= INSTANCES; i++) {
        uint8_t key[XLV_KEY_SIZE], data[40000];
        struct xlv_uuid uuid = uuid_of(i);
        struct xlv_instance instance;
        struct xlv_store *store;
        uint64_t generation;
        size_t length;
        uint8_t *loaded;
        int slots[2];

        assert_int_equal(xlv_registry_create(registry, &uuid, XLV_TPM_2_0, NULL, &instance, NULL),
                         0);
        if (i == NO_FILES)
            continue;
        open_locked(i, true, slots);
        assert_int_equal(xlv_keys_instance(keys, &uuid, key, NULL), 0);
        assert_int_equal(xlv_store_new(&store, slots, &uuid, key, NULL), 0);
        assert_int_equal(xlv_store_load(store, &loaded, &length, &generation, NULL), XLV_E_EMPTY);
        if (i == CUT_SHORT) {
            /* two sectors of eight */
            uint8_t blank[6 * 512];

            assert_int_equal(xlv_pread_all(slots[0], blank, sizeof(blank), 1024), 0);
            fill(data, 700, i);
            assert_int_equal(xlv_store_commit(store, data, 700, &generation, NULL), 0);
            assert_int_equal(xlv_pwrite_all(slots[0], blank, sizeof(blank), 1024), 0);
        } else if (i <= WITH_STATE) {
            fill(data, lengths[i], i);
            /* instance 2 has one generation, its other slot is blank */
            for (unsigned k = 0; k < (i == 2 ? 1 : 4 + i); k++)
                assert_int_equal(xlv_store_commit(store, data, lengths[i], &generation, NULL), 0);
            assert_int_equal(xlv_registry_set_life(registry, i, XLV_LIFE_READY, NULL), 0);
        }
        xlv_store_free(store);
        xlv_close(&slots[0]);
        xlv_close(&slots[1]);
    }
    xlv_keys_free(keys);
    xlv_registry_close(registry);
    shell("mkdir %s/template && cp -a %s/state %s/keys %s/template", root, root, root, root);
    return 0;
}

static int end(void **state)
{
    (void)state;
    shell("rm -r %s", root);
    xlv_settings_deinit(&settings);
    return munmap(order, 16384);
}

static void start_over(void)
{
    shell("cd %s && rm -r state keys durable && cp -a template/* . && mkdir durable", root);
    note_names();
}

/* --- running it -------------------------------------------------------------------- */

static int rekey(struct xlv_error *e)
{
    struct json_object *report;
    int rc = xlv_rekey(&settings, NULL, NULL, NULL, &report, e);

    json_object_put(report);
    return rc;
}

/* Call number at (0: none) is struck; *struck tells. Returns what rekey returned. */
static int run(unsigned at, enum way how, bool *struck)
{
    int status;
    pid_t child;

    order[0] = '\0';
    *struck = false;
    fflush(stdout);
    child = fork();
    assert_true(child >= 0);
    if (!child) {
        struct xlv_error e = XLV_ERROR_INIT;
        int rc;

        calls = 0;
        way = how;
        fail_at = at ? at : ~0u;
        rc = rekey(&e);
        _exit((rc < 0 ? 50 : rc) + (calls >= at && at ? 100 : 0));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    status = WEXITSTATUS(status);
    *struck = status >= 99;
    return status == 99 ? 99 : status % 100;
}

/* The old key is in no file beside the key, under no name, and opens no slot. */
static void nothing_is_left_of_the_old_key(void)
{
    struct xlv_keys *old;
    char path[160];

    shell("test \"$(ls -A %s)\" = master.key", key_dir);
    shell("! cmp -s %s %s/template/keys/master.key", key_path, root);
    snprintf(path, sizeof(path), "%s/template/keys/master.key", root);
    assert_int_equal(xlv_keys_new(&old, XLV_KEY_FILE, path, false, NULL), 0);
    for (unsigned i = 1; i <= CUT_SHORT; i++) {
        struct xlv_uuid uuid = uuid_of(i);
        struct xlv_store_report seen[2];
        uint8_t key[XLV_KEY_SIZE];
        struct xlv_store *store;
        int slots[2];

        open_locked(i, false, slots);
        assert_int_equal(xlv_keys_instance(old, &uuid, key, NULL), 0);
        assert_int_equal(xlv_store_new(&store, slots, &uuid, key, NULL), 0);
        assert_int_equal(xlv_store_inspect(store, seen, NULL), 0);
        for (int s = 0; s < 2; s++)
            assert_true(seen[s].outcome == XLV_E_WRONG_KEY || seen[s].outcome == XLV_E_EMPTY);
        xlv_store_free(store);
        xlv_close(&slots[0]);
        xlv_close(&slots[1]);
    }
    xlv_keys_free(old);
}

static void a_change_of_key_survives_a_strike_at_any_call(void **state)
{
    unsigned struck[WAYS] = { 0 }, twice = 0;

    (void)state;
    for (enum way how = 0; how < WAYS; how++)
        for (unsigned at = 1;; at++) {
            struct xlv_error e = XLV_ERROR_INIT;
            struct xlv_keys *before, *now;
            bool hit, made = at % 3 == 0;
            char when[64];
            int rc;

            start_over();
            before = new_keys();
            rc = run(at, how, &hit);
            if (!hit) {
                assert_int_equal(rc, 0);
                xlv_keys_free(before);
                break;
            }
            struck[how]++;
            snprintf(when, sizeof(when), "%s at call %u", way_names[how], at);
            now = new_keys();
            check_states(now, false, when);
            check_states(before, false, when);
            if (made)
                make_rest(at % 2 ? before : now, when);
            check_states(before, made, when);
            check_states(now, made, when);
            xlv_keys_free(now);
            /* and again, somewhere in what is left to do */
            for (unsigned more = 0; more < 2; more++) {
                note_names();
                rc = run(1 + (at * 7 + more * 13) % 60, how, &hit);
                twice += hit;
                now = new_keys();
                check_states(now, made, when);
                xlv_keys_free(now);
            }
            rc = rekey(&e);
            if (rc)
                fail_msg("%s: not finished afterwards: %d, %s", when, rc, e.text);
            /* after a run that was struck at its very end, this was a second change */
            nothing_is_left_of_the_old_key();
            now = new_keys();
            check_states(now, made, when);
            check_states(before, made, when);
            make_rest(at % 2 ? before : now, when);
            check_states(now, true, when);
            xlv_keys_free(now);
            xlv_keys_free(before);
        }
    for (enum way how = 0; how < WAYS; how++) {
        printf("# rekey: %s at each of %u calls\n", way_names[how], struck[how]);
        assert_true(struck[how] > 60);
    }
    printf("# rekey: %u times struck again while it was gone on with\n", twice);
}

/* The new key has its name, only the old one is not wiped yet: no new change of key. */
static void a_run_that_lacked_its_last_steps_only_is_not_begun_anew(void **state)
{
    char old[160], newer[160];
    unsigned seen = 0;
    bool hit = true;

    (void)state;
    snprintf(old, sizeof(old), "%s.to-be-wiped", key_path);
    snprintf(newer, sizeof(newer), "%s.new", key_path);
    for (unsigned at = 1; hit; at++) {
        start_over();
        (void)run(at, KILL, &hit);
        shell("cp %s %s/seen", key_path, root);
        if (!hit || access(old, F_OK) || !access(newer, F_OK))
            continue;
        seen++;
        assert_int_equal(rekey(NULL), 0);
        shell("cmp -s %s %s/seen", key_path, root);
        nothing_is_left_of_the_old_key();
    }
    assert_true(seen >= 3);
}

/* What a kill cannot show: data is synced before names, names before use. */
static void the_new_key_is_durable_before_its_use_and_the_old_one_goes_last(void **state)
{
    const char *begins = "unlinkat openat write fsync renameat fsync ", *found, *last;
    const char *ends = "linkat renameat fsync openat pwrite fsync unlinkat fsync ";
    bool hit;

    (void)state;
    start_over();
    assert_int_equal(run(0, KILL, &hit), 0);
    found = strstr(order, begins);
    assert_non_null(found);
    assert_true(strstr(order, "pwrite") > found);
    last = strstr(order, ends);
    if (!last)
        fail_msg("the end is: %s", order + (strlen(order) > 200 ? strlen(order) - 200 : 0));
    assert_true(last > found);
    assert_null(strstr(last + strlen(ends), "pwrite"));
}

static void a_second_run_beside_the_first_is_refused(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    char path[128];
    int fd;

    (void)state;
    start_over();
    snprintf(path, sizeof(path), "%s/state/instances", root);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(rekey(&e), XLV_E_IN_USE);
    assert_non_null(strstr(e.text, "another xl-vtpm rekey"));
    xlv_close(&fd);
    assert_int_equal(rekey(NULL), 0);
}

static void a_daemon_with_the_old_key_in_memory_does_not_use_it_blindly(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_keys *before;
    size_t length;

    (void)state;
    start_over();
    before = new_keys();
    /* the file is away for a moment: what it opened before it opens still ... */
    shell("mv %s %s/away", key_path, root);
    assert_int_equal(use(before, 1, false, &length, &e), 0);
    /* ... but nothing is made under a key that may be out of use */
    assert_int_equal(use(before, BLANK, true, &length, &e), XLV_E_NOT_FOUND);
    assert_non_null(strstr(e.text, "is missing"));
    shell("mv %s/away %s", root, key_path);
    assert_int_equal(rekey(NULL), 0);
    shell("mv %s %s/away", key_path, root);
    assert_int_equal(use(before, 1, false, &length, NULL), XLV_E_NOT_FOUND);
    shell("mv %s/away %s", root, key_path);
    assert_int_equal(use(before, 1, false, &length, NULL), 0);
    assert_int_equal(use(before, BLANK, true, &length, NULL), 0);
    xlv_keys_free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_of_key_survives_a_strike_at_any_call),
        cmocka_unit_test(a_run_that_lacked_its_last_steps_only_is_not_begun_anew),
        cmocka_unit_test(the_new_key_is_durable_before_its_use_and_the_old_one_goes_last),
        cmocka_unit_test(a_second_run_beside_the_first_is_refused),
        cmocka_unit_test(a_daemon_with_the_old_key_in_memory_does_not_use_it_blindly),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
