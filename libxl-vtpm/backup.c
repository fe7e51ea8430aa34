/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Backups: see backup.h. */
#include "config.h"

#include "libxl-vtpm/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "backend/store.h"
#include "common/fd.h"
#include "libxl-vtpm/control.h"
#include "libxl-vtpm/states.h"

#define DATABASE "vtpm.db"
#define INSTANCES "instances"
#define MASTER_KEY "master.key"
#define CA_KEY "ca.key"
#define CA_CERTIFICATE "ca.pem"
#define CONFIG "xl-vtpm.conf"
#define LEFT "left.json"
#define NEW ".new" /* of a master key that is changing, see keys.h */
#define BEFORE ".before-restore"
#define STAGING ".restoring"
#define RESTORED ".restored" /* a file that is about to take its place */
#define MOVING "moving" /* in it: what is in it may have taken its place already */

/* An instance may be purged between the copy of the registry and its own. */
#define TRIES 5

static int no_memory(struct xlv_error *e)
{
    return xlv_fail(e, -ENOMEM, "no memory for a backup");
}

/*
 * Files
 */

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *ftw)
{
    (void)st;
    (void)what;
    (void)ftw;
    return remove(path);
}

/* What an interrupted run left. */
static int remove_tree(const char *path, struct xlv_error *e)
{
    if (!nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) || errno == ENOENT)
        return 0;
    return xlv_fail(e, -errno, "%s, which an interrupted run left, cannot be removed: %s", path,
                    strerror(errno));
}

/* A directory that is being filled; locked while it is, else it is left over. *fd: the lock. */
static int make_unfinished(const char *path, int *fd, struct xlv_error *e)
{
    int rc;

    *fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd >= 0) {
        if (flock(*fd, LOCK_EX | LOCK_NB))
            return xlv_fail(e, XLV_E_IN_USE, "another run is at %s", path);
        rc = remove_tree(path, e);
        xlv_close(fd);
        if (rc)
            return rc;
    }
    if (mkdir(path, 0700))
        return xlv_fail(e, -errno, "cannot make the directory %s: %s", path, strerror(errno));
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0 || flock(*fd, LOCK_EX | LOCK_NB))
        return xlv_fail(e, -errno, "cannot lock the directory %s: %s", path, strerror(errno));
    return 0;
}

static int copy_bytes(int from, int to)
{
    uint8_t block[16384];
    off_t at = 0;

    for (;;) {
        ssize_t n = pread(from, block, sizeof(block), at);
        int rc;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            explicit_bzero(block, sizeof(block));
            return n ? -errno : 0;
        }
        rc = xlv_write_all(to, block, (size_t)n);
        if (rc)
            return rc;
        at += n;
    }
}

/* A new file; durable with the file system. */
static int put_file(int from, int dirfd, const char *directory, const char *name,
                    struct xlv_error *e)
{
    int to XLV_CLOSE = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                              0600);
    int rc = to < 0 ? -errno : copy_bytes(from, to);

    return rc ? xlv_fail(e, rc, "%s/%s cannot be written: %s", directory, name, xlv_strerror(rc))
              : 0;
}

/* XLV_E_NOT_FOUND without a sentence: there is none. */
static int copy_file(const char *path, int dirfd, const char *directory, const char *name,
                     struct xlv_error *e)
{
    int from XLV_CLOSE = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;

    if (from < 0 && errno == ENOENT)
        return XLV_E_NOT_FOUND;
    if (from < 0 || fstat(from, &st))
        return xlv_fail(e, -errno, "%s cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return xlv_fail(e, XLV_E_INVALID, "%s is no regular file", path);
    return put_file(from, dirfd, directory, name, e);
}

static int join(char path[PATH_MAX], const char *directory, const char *name, struct xlv_error *e)
{
    return snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX
               ? 0 : xlv_fail(e, -ENAMETOOLONG, "the name %.80s... is too long", directory);
}

/* path with a suffix. */
static int beside(char other[PATH_MAX], const char *path, const char *suffix, struct xlv_error *e)
{
    return snprintf(other, PATH_MAX, "%s%s", path, suffix) < PATH_MAX
               ? 0 : xlv_fail(e, -ENAMETOOLONG, "the name %.80s... is too long", path);
}

/* The file of the CA's key; NULL: it is none. Borrowed. */
static const char *ca_key_file(const struct xlv_settings *s)
{
    return strncmp(s->ca_key, "file:", 5) ? NULL : s->ca_key + 5;
}

/*
 * The instances of a registry, as they were at one instant.
 */

struct list {
    struct xlv_instance *instances;
    unsigned count;
    size_t room;
};

static int note(const struct xlv_instance *instance, void *opaque)
{
    struct list *list = opaque;

    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        struct xlv_instance *more = reallocarray(list->instances, room, sizeof(*more));

        if (!more)
            return -ENOMEM;
        list->instances = more;
        list->room = room;
    }
    list->instances[list->count++] = *instance;
    return 0;
}

static int leave(struct json_object *left, const struct xlv_instance *i, int rc, const char *why)
{
    struct json_object *one = json_object_new_object();
    char uuid[XLV_UUID_TEXT];

    if (one && xlv_json_add(one, "number", json_object_new_int64((int64_t)i->number)) &&
        xlv_json_add(one, "uuid", json_object_new_string(xlv_uuid_format(&i->uuid, uuid))) &&
        xlv_json_add(one, "reason", xlv_json_text(why[0] ? why : xlv_strerror(rc))) &&
        json_object_array_add(left, one) == 0)
        return 0;
    json_object_put(one);
    return -ENOMEM;
}

/* The report; takes over left. 0, or XLV_E_CONFLICT where it says of some that they are left. */
static int make_report(const struct xlv_backup *b, unsigned count, bool keys,
                       struct json_object *left, struct json_object **report, struct xlv_error *e)
{
    struct json_object *json = json_object_new_object();
    size_t bad = json_object_array_length(left);

    if (json && xlv_json_add(json, "directory", xlv_json_text(b->directory)) &&
        xlv_json_add(json, "instances", json_object_new_int64(count)) &&
        xlv_json_add(json, "keys", json_object_new_boolean(keys)) &&
        xlv_json_add(json, "left", json_object_get(left))) {
        *report = json;
        return bad ? XLV_E_CONFLICT : 0;
    }
    json_object_put(json);
    return no_memory(e);
}

static void tell(const struct xlv_backup *b, unsigned done, unsigned of)
{
    if (b->progress)
        b->progress(done, of, b->opaque);
}

/*
 * backup
 */

/* Something of it is missing. XLV_E_NOT_FOUND: since the copy of the registry it was purged or
 * went elsewhere, so that all has to be looked at again; 0: it is broken. */
static int look_again(struct xlv_states *s, const struct xlv_instance *then, struct xlv_error *e)
{
    struct xlv_instance now;
    int rc = xlv_registry_get_number(s->registry, then->number, &now, e);

    if (!rc && (strcmp(now.directory, then->directory) || now.handover != then->handover))
        rc = xlv_fail(e, XLV_E_NOT_FOUND, "instance %" PRIu64 " went elsewhere meanwhile",
                      then->number);
    return rc;
}

/* One instance into instances/N, where it would be at home; XLV_E_NOT_FOUND: it is not there any
 * more. *why: what is wrong with its state, and the code of that in *outcome. */
static int back_up_one(struct xlv_states *s, const struct xlv_instance *i, int dirfd,
                       const char *directory, int *outcome, struct xlv_error *why,
                       struct xlv_error *e)
{
    int to XLV_CLOSE = -1, slots[2] = { -1, -1 }, rc;
    struct xlv_instance home = *i;
    char path[PATH_MAX];
    bool whole;

    xlv_instance_at_home(&home);
    rc = join(path, directory, home.directory, e);
    if (rc)
        return rc;
    if (mkdirat(dirfd, home.directory, 0700))
        return xlv_fail(e, -errno, "%s cannot be made: %s", path, strerror(errno));
    to = openat(dirfd, home.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0)
        return xlv_fail(e, -errno, "%s cannot be opened: %s", path, strerror(errno));
    *outcome = xlv_states_copy(s, i, slots, why);
    whole = slots[0] >= 0 && slots[1] >= 0;
    /* its TPM was not made yet, or is another host's */
    if (*outcome == XLV_E_EMPTY || i->handover == XLV_HANDOVER_DEPARTED) {
        xlv_error_clear(why);
        *outcome = 0;
    }
    if (slots[0] >= 0)
        rc = put_file(slots[0], to, path, XLV_STORE_SLOT_0, e);
    if (!rc && slots[1] >= 0)
        rc = put_file(slots[1], to, path, XLV_STORE_SLOT_1, e);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    if (!rc && *outcome && !whole)
        rc = look_again(s, i, e);
    return rc;
}

/* The list of what was left, for the restore. */
static int put_left(struct json_object *left, int dirfd, const char *unfinished,
                    struct xlv_error *e)
{
    const char *text = json_object_to_json_string_ext(left, JSON_C_TO_STRING_PRETTY);
    int fd XLV_CLOSE = -1, rc;

    if (!json_object_array_length(left))
        return 0;
    if (!text)
        return no_memory(e);
    fd = openat(dirfd, LEFT, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    rc = fd < 0 ? -errno : xlv_write_all(fd, text, strlen(text));
    if (!rc)
        rc = xlv_write_all(fd, "\n", 1);
    return rc ? xlv_fail(e, rc, "%s/" LEFT " cannot be written: %s", unfinished, xlv_strerror(rc))
              : 0;
}

static int back_up_registry(const struct xlv_backup *b, struct xlv_states *s, int dirfd,
                            const char *unfinished, struct list *list, struct json_object *left,
                            struct xlv_error *e)
{
    char path[PATH_MAX];
    int rc = join(path, unfinished, DATABASE, e);

    list->count = 0;
    if (!rc)
        rc = xlv_registry_snapshot(s->registry, path, note, list, e);
    if (!rc && mkdirat(dirfd, INSTANCES, 0700))
        rc = xlv_fail(e, -errno, "%s/" INSTANCES " cannot be made: %s", unfinished,
                      strerror(errno));
    for (unsigned i = 0; !rc && i < list->count; i++) {
        struct xlv_error why = XLV_ERROR_INIT;
        int outcome = 0;

        tell(b, i, list->count);
        rc = back_up_one(s, &list->instances[i], dirfd, unfinished, &outcome, &why, e);
        if (!rc && outcome && leave(left, &list->instances[i], outcome, why.text))
            rc = no_memory(e);
    }
    return rc;
}

static int back_up_keys(const struct xlv_backup *b, int dirfd, const char *unfinished,
                        struct xlv_error *e)
{
    const struct xlv_settings *s = b->settings;
    const char *ca = ca_key_file(s);
    char path[PATH_MAX];
    int rc = 0;

    if (s->key_provider == XLV_KEY_CREDENTIAL)
        return xlv_fail(e, XLV_E_REFUSED, "the master key is the credential %s of systemd: back up "
                        "what that is made from, and leave out --with-keys", s->key_source);
    if (s->key_provider == XLV_KEY_FILE) {
        rc = beside(path, s->key_source, NEW, e);
        if (!rc)
            rc = copy_file(path, dirfd, unfinished, MASTER_KEY NEW, e);
        if (!rc || rc == XLV_E_NOT_FOUND)
            rc = copy_file(s->key_source, dirfd, unfinished, MASTER_KEY, e);
        if (rc == XLV_E_NOT_FOUND)
            return xlv_fail(e, rc, "the master key %s is not there", s->key_source);
    }
    if (!rc && ca)
        rc = copy_file(ca, dirfd, unfinished, CA_KEY, e);
    if (!rc && ca)
        rc = copy_file(s->ca_certificate, dirfd, unfinished, CA_CERTIFICATE, e);
    return rc == XLV_E_NOT_FOUND ? 0 : rc; /* no CA yet */
}

/* Rekey has this lock alone as long as it seals (rekey.c): it is waited for, and none begins until
 * the keys are copied that open what was copied. Without instances/ there is nothing to seal. */
static int lock_out_rekey(const struct xlv_settings *s, int *fd, struct xlv_error *e)
{
    char path[PATH_MAX];
    int rc = join(path, s->state_dir, INSTANCES, e);

    if (rc)
        return rc;
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT)
        return 0;
    if (*fd < 0)
        return xlv_fail(e, -errno, "the directory %s cannot be opened: %s", path, strerror(errno));
    while (flock(*fd, LOCK_SH))
        if (errno != EINTR)
            return xlv_fail(e, -errno, "the directory %s cannot be locked: %s", path,
                            strerror(errno));
    return 0;
}

int xlv_backup(const struct xlv_backup *b, struct json_object **report, struct xlv_error *e)
{
    struct xlv_states s = { .registry = NULL };
    struct json_object *left = NULL;
    struct list list = { .count = 0 };
    char unfinished[PATH_MAX];
    int dirfd XLV_CLOSE = -1, lock XLV_CLOSE = -1, rc;
    struct stat st;

    *report = NULL;
    rc = beside(unfinished, b->directory, ".unfinished", e);
    if (!rc && !lstat(b->directory, &st))
        rc = xlv_fail(e, XLV_E_EXISTS, "%s exists, and is not written over", b->directory);
    if (!rc)
        rc = lock_out_rekey(b->settings, &lock, e);
    if (!rc)
        rc = xlv_states_init(&s, b->settings, false, e);
    for (int i = 0; !rc && i < TRIES; i++) {
        xlv_close(&dirfd);
        json_object_put(left);
        left = json_object_new_array();
        rc = left ? make_unfinished(unfinished, &dirfd, e) : no_memory(e);
        if (!rc)
            rc = back_up_registry(b, &s, dirfd, unfinished, &list, left, e);
        if (rc != XLV_E_NOT_FOUND || i + 1 == TRIES)
            break;
        xlv_error_clear(e);
        rc = 0;
    }
    if (!rc)
        rc = put_left(left, dirfd, unfinished, e);
    if (!rc && b->with_keys)
        rc = back_up_keys(b, dirfd, unfinished, e);
    xlv_close(&lock);
    if (!rc) {
        rc = copy_file(b->config, dirfd, unfinished, CONFIG, e);
        rc = rc == XLV_E_NOT_FOUND ? 0 : rc; /* all is as built in */
    }
    if (!rc && (syncfs(dirfd) || rename(unfinished, b->directory)))
        rc = xlv_fail(e, -errno, "%s cannot be finished: %s", b->directory, strerror(errno));
    if (!rc) {
        int parent XLV_CLOSE = openat(dirfd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (parent < 0 || fsync(parent))
            rc = xlv_fail(e, -errno, "the directory of %s cannot be synced: %s", b->directory,
                          strerror(errno));
    }
    if (!rc) {
        tell(b, list.count, list.count);
        rc = make_report(b, list.count, b->with_keys, left, report, e);
    } else if (dirfd >= 0) {
        (void)remove_tree(unfinished, NULL);
    }
    json_object_put(left);
    free(list.instances);
    xlv_states_deinit(&s);
    return rc;
}

/*
 * restore
 */

static int one(const struct xlv_instance *instance, void *opaque)
{
    *(uint64_t *)opaque = instance->number;
    return XLV_E_EXISTS;
}

/* The lock that a daemon has as long as it runs. */
static int lock_out_daemon(const struct xlv_settings *s, int *fd, struct xlv_error *e)
{
    if (mkdir(s->state_dir, 0700) && errno != EEXIST)
        return xlv_fail(e, -errno, "%s cannot be made: %s", s->state_dir, strerror(errno));
    *fd = open(s->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd >= 0 && !flock(*fd, LOCK_EX | LOCK_NB))
        return 0;
    if (*fd >= 0 && errno == EWOULDBLOCK)
        return xlv_fail(e, XLV_E_REFUSED, "xl-vtpmd runs: systemctl stop xl-vtpmd first");
    return xlv_fail(e, -errno, "the directory %s cannot be locked: %s", s->state_dir,
                    strerror(errno));
}

/* There is nothing that a restore could take away. */
static int expect_fresh_host(const struct xlv_settings *s, struct xlv_error *e)
{
    struct xlv_registry *registry = NULL;
    struct xlv_error why = XLV_ERROR_INIT;
    uint64_t number = 0;
    int rc = xlv_registry_open(&registry, s->state_dir, false, &why);

    if (rc == XLV_E_NOT_FOUND)
        return 0;
    if (!rc)
        rc = xlv_registry_each(registry, one, &number, &why);
    xlv_registry_close(registry);
    if (rc == XLV_E_EXISTS)
        return xlv_fail(e, XLV_E_REFUSED, "this host has instances (the first: %" PRIu64 "): a "
                        "restore is for one that has none; single TPMs go by export and import",
                        number);
    return rc ? xlv_fail(e, rc, "%s", why.text) : 0;
}

/* What the backup had to leave; *gaps NULL: nothing. */
static int read_left(const struct xlv_backup *b, struct json_object **gaps, struct xlv_error *e)
{
    char path[PATH_MAX];
    int fd XLV_CLOSE = -1, rc = join(path, b->directory, LEFT, e);
    struct json_object *number;
    bool good;

    *gaps = NULL;
    if (rc)
        return rc;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return xlv_fail(e, -errno, "%s cannot be read: %s", path, strerror(errno));
    *gaps = json_object_from_fd(fd);
    good = json_object_is_type(*gaps, json_type_array);
    for (size_t i = 0; good && i < json_object_array_length(*gaps); i++) {
        struct json_object *one = json_object_array_get_idx(*gaps, i);

        good = json_object_is_type(one, json_type_object) &&
               json_object_object_get_ex(one, "number", &number) &&
               json_object_is_type(number, json_type_int);
    }
    if (good)
        return 0;
    json_object_put(*gaps);
    *gaps = NULL;
    return xlv_fail(e, XLV_E_INVALID, "%s is no list of what the backup left, so that it is not "
                    "known what may be missing in it: take another backup, or this file from "
                    "another copy of it", path);
}

/* Why the backup has not all of this instance; NULL: nothing of it may be missing. */
static const char *gap_of(struct json_object *gaps, const struct xlv_instance *instance)
{
    for (size_t i = 0; i < xlv_json_count(gaps); i++) {
        struct json_object *one = json_object_array_get_idx(gaps, i), *member = NULL;

        json_object_object_get_ex(one, "number", &member);
        if (json_object_get_int64(member) != (int64_t)instance->number)
            continue;
        json_object_object_get_ex(one, "reason", &member);
        return json_object_is_type(member, json_type_string) ? json_object_get_string(member)
                                                             : "it was left";
    }
    return NULL;
}

/* Everything of the backup, beside what is there. */
static int stage(const struct xlv_backup *b, int dirfd, const char *staging, struct list *list,
                 struct json_object *gaps, struct xlv_states *s, struct xlv_error *e)
{
    static const char *const names[] = { DATABASE, MASTER_KEY, MASTER_KEY NEW, CA_KEY,
                                         CA_CERTIFICATE };
    char path[PATH_MAX];
    int rc = 0;

    for (size_t i = 0; !rc && i < sizeof(names) / sizeof(names[0]); i++) {
        rc = join(path, b->directory, names[i], e);
        if (!rc)
            rc = copy_file(path, dirfd, staging, names[i], e);
        if (rc == XLV_E_NOT_FOUND)
            rc = i ? 0 : xlv_fail(e, XLV_E_INVALID, "%s is no backup: it has no " DATABASE,
                                  b->directory);
    }
    if (!rc && mkdirat(dirfd, INSTANCES, 0700))
        rc = xlv_fail(e, -errno, "%s/" INSTANCES " cannot be made: %s", staging, strerror(errno));
    /* brought up to date, where it is of an earlier version */
    if (!rc)
        rc = xlv_registry_open(&s->registry, staging, true, e);
    if (!rc)
        rc = xlv_registry_each(s->registry, note, list, e);
    for (unsigned i = 0; !rc && i < list->count; i++) {
        struct xlv_instance *instance = &list->instances[i];
        static const char *const slots[] = { XLV_STORE_SLOT_0, XLV_STORE_SLOT_1 };
        int to XLV_CLOSE = -1;
        char from[PATH_MAX];

        xlv_instance_at_home(instance);
        if (mkdirat(dirfd, instance->directory, 0700) ||
            (to = openat(dirfd, instance->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            rc = xlv_fail(e, -errno, "%s/%s cannot be made: %s", staging, instance->directory,
                          strerror(errno));
        for (int k = 0; !rc && k < 2; k++) {
            rc = join(path, b->directory, instance->directory, e);
            if (!rc)
                rc = join(from, path, slots[k], e);
            if (!rc)
                rc = copy_file(from, to, instance->directory, slots[k], e);
            if (rc == XLV_E_NOT_FOUND && (instance->life == XLV_LIFE_NEW ||
                                          instance->handover == XLV_HANDOVER_DEPARTED ||
                                          gap_of(gaps, instance)))
                rc = 0;
            else if (rc == XLV_E_NOT_FOUND)
                rc = xlv_fail(e, XLV_E_INVALID, "the backup is not whole: it has no %s", from);
        }
    }
    return rc;
}

/* The keys that the states will have: those of the backup, else those that are here. */
static int open_keys(const struct xlv_backup *b, const char *staging, bool *theirs,
                     struct xlv_states *s, struct xlv_error *e)
{
    char path[PATH_MAX];
    int rc = join(path, staging, MASTER_KEY, e);

    if (rc)
        return rc;
    *theirs = !access(path, F_OK);
    if (*theirs && b->settings->key_provider != XLV_KEY_FILE)
        return xlv_fail(e, XLV_E_REFUSED, "the backup has a master key, but master-key of %s is "
                        "not file: here", b->config);
    if (*theirs)
        return xlv_keys_new(&s->keys, XLV_KEY_FILE, path, false, e);
    rc = xlv_keys_new(&s->keys, b->settings->key_provider, b->settings->key_source, false, e);
    if (rc == XLV_E_NOT_FOUND) {
        xlv_error_clear(e);
        return xlv_fail(e, XLV_E_WRONG_KEY, "the backup is without its master key: put it at %s "
                        "first, mode 0600", b->settings->key_source);
    }
    return rc;
}

static int verify(const struct xlv_backup *b, struct xlv_states *s, const struct list *list,
                  struct json_object *gaps, struct json_object *left, struct xlv_error *e)
{
    for (unsigned i = 0; i < list->count; i++) {
        const struct xlv_instance *instance = &list->instances[i];
        const char *gap = gap_of(gaps, instance);
        struct xlv_error why = XLV_ERROR_INIT;
        bool whole;
        int slots[2], rc;

        tell(b, i, list->count);
        if (instance->handover == XLV_HANDOVER_DEPARTED) /* another host's */
            continue;
        rc = xlv_states_copy(s, instance, slots, &why);
        whole = slots[0] >= 0 && slots[1] >= 0;
        xlv_close(&slots[0]);
        xlv_close(&slots[1]);
        if (rc == XLV_E_WRONG_KEY && !gap)
            return xlv_fail(e, rc, "instance %" PRIu64 " of the backup is sealed under another "
                            "master key than that at %s: put the right one there first, mode 0600",
                            instance->number, b->settings->key_source);
        if (rc && rc != XLV_E_EMPTY &&
            leave(left, instance, rc, whole || !gap ? why.text : gap))
            return no_memory(e);
    }
    return 0;
}

/* Do both files have the same bytes? They are small ones. */
static bool same_bytes(const char *a, const char *b)
{
    int fds[2] = { open(a, O_RDONLY | O_CLOEXEC), open(b, O_RDONLY | O_CLOEXEC) };
    uint8_t blocks[2][512];
    ssize_t n = 1;
    bool same = fds[0] >= 0 && fds[1] >= 0;

    for (off_t at = 0; same && n > 0; at += n) {
        n = pread(fds[0], blocks[0], sizeof(blocks[0]), at);
        same = n >= 0 && pread(fds[1], blocks[1], sizeof(blocks[1]), at) == n &&
               !memcmp(blocks[0], blocks[1], (size_t)n);
    }
    explicit_bzero(blocks, sizeof(blocks));
    xlv_close(&fds[0]);
    xlv_close(&fds[1]);
    return same;
}

/* What is at path keeps a second name; an interrupted run may have given it that. */
static int keep_aside(const char *path, const char *before, struct xlv_error *e)
{
    struct stat old, kept;

    if (!link(path, before) || errno == ENOENT)
        return 0;
    if (errno == EEXIST && !lstat(path, &old) && !lstat(before, &kept) &&
        old.st_ino == kept.st_ino && old.st_dev == kept.st_dev)
        return 0;
    return xlv_fail(e, -errno, "%s cannot be kept as %s: %s", path, before, strerror(errno));
}

/* A file takes its place; another one that was there has a name of its own then. */
static int place(const char *staging, const char *name, const char *path, struct xlv_error *e)
{
    char from[PATH_MAX], before[PATH_MAX], directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int dirfd XLV_CLOSE = -1, to XLV_CLOSE = -1;
    int rc = join(from, staging, name, e);

    if (rc || access(from, F_OK) || same_bytes(from, path))
        return rc;
    /* another file system, perhaps: so a copy beside it first */
    rc = beside(before, path, BEFORE, e);
    if (!rc)
        rc = snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) + 1 : 2,
                      slash ? path : "./") < (int)sizeof(directory) ? 0 : -ENAMETOOLONG;
    if (rc)
        return rc;
    dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return xlv_fail(e, -errno, "the directory %s cannot be opened: %s", directory,
                        strerror(errno));
    (void)unlinkat(dirfd, RESTORED, 0);
    rc = copy_file(from, dirfd, directory, RESTORED, e);
    to = rc ? -1 : openat(dirfd, RESTORED, O_RDONLY | O_CLOEXEC);
    if (!rc)
        rc = keep_aside(path, before, e);
    if (!rc && (to < 0 || fsync(to) || renameat(dirfd, RESTORED, AT_FDCWD, path) || fsync(dirfd)))
        rc = xlv_fail(e, -errno, "%s cannot be put in place: %s", path, strerror(errno));
    return rc;
}

static int mark_moving(const char *staging, struct xlv_error *e)
{
    char path[PATH_MAX];
    int fd XLV_CLOSE = -1, dirfd XLV_CLOSE = open(staging, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = join(path, staging, MOVING, e);

    if (rc)
        return rc;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || dirfd < 0 || fsync(dirfd))
        return xlv_fail(e, -errno, "%s cannot be made: %s", path, strerror(errno));
    return 0;
}

static int take_place(const struct xlv_backup *b, const char *staging, bool theirs,
                      const struct list *list, struct xlv_error *e)
{
    const struct xlv_settings *s = b->settings;
    const char *ca = ca_key_file(s);
    char from[PATH_MAX], to[PATH_MAX];
    int dirfd XLV_CLOSE = open(s->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (dirfd < 0 || syncfs(dirfd))
        return xlv_fail(e, -errno, "%s cannot be synced: %s", s->state_dir, strerror(errno));
    if (theirs) {
        rc = beside(to, s->key_source, NEW, e);
        if (!rc)
            rc = place(staging, MASTER_KEY NEW, to, e);
        if (!rc)
            rc = place(staging, MASTER_KEY, s->key_source, e);
    }
    if (!rc && ca)
        rc = place(staging, CA_KEY, ca, e);
    if (!rc && ca)
        rc = place(staging, CA_CERTIFICATE, s->ca_certificate, e);
    /* of another life of this host */
    for (unsigned i = 0; !rc && i < list->count; i++) {
        xlv_settings_journal(s, list->instances[i].number, to);
        if (unlink(to) && errno != ENOENT)
            rc = xlv_fail(e, -errno, "the old journal %s cannot be removed: %s", to,
                          strerror(errno));
    }
    /* From here on what is in instances/ is without a registry, so that whoever starts is refused;
     * until then the one that goes is that of an empty host. */
    if (!rc)
        rc = mark_moving(staging, e);
    if (!rc)
        rc = join(to, s->state_dir, DATABASE, e);
    if (!rc && ((unlink(to) && errno != ENOENT) || fsync(dirfd)))
        rc = xlv_fail(e, -errno, "the empty %s cannot be removed: %s", to, strerror(errno));
    if (!rc)
        rc = join(from, staging, INSTANCES, e);
    if (!rc)
        rc = join(to, s->state_dir, INSTANCES, e);
    /* over an empty one, or none */
    if (!rc && (rename(from, to) || fsync(dirfd)))
        rc = xlv_fail(e, -errno, "%s cannot be put in place: %s", to,
                      errno == ENOTEMPTY || errno == EEXIST
                          ? "there is something in it; move it away first" : strerror(errno));
    if (!rc)
        rc = join(from, staging, DATABASE, e);
    if (!rc)
        rc = join(to, s->state_dir, DATABASE, e);
    if (!rc && (rename(from, to) || fsync(dirfd)))
        rc = xlv_fail(e, -errno, "%s cannot be put in place: %s", to, strerror(errno));
    return rc;
}

/* A restore that was interrupted between its last steps has taken the states away from where it
 * begins anew: they go back there. No registry has come into being meanwhile, for beside them none
 * does. */
static int go_back(const char *staging, const char *state_dir, struct xlv_error *e)
{
    char moving[PATH_MAX], database[PATH_MAX], ours[PATH_MAX], theirs[PATH_MAX];
    int rc = join(moving, staging, MOVING, e);

    if (!rc)
        rc = join(database, state_dir, DATABASE, e);
    if (!rc)
        rc = join(ours, state_dir, INSTANCES, e);
    if (!rc)
        rc = join(theirs, staging, INSTANCES, e);
    if (rc || access(moving, F_OK) || !access(database, F_OK) || !access(theirs, F_OK) ||
        access(ours, F_OK))
        return rc;
    return rename(ours, theirs) ? xlv_fail(e, -errno, "%s cannot be moved to %s: %s", ours, theirs,
                                           strerror(errno)) : 0;
}

int xlv_restore(const struct xlv_backup *b, struct json_object **report, struct xlv_error *e)
{
    struct xlv_states s = { .settings = b->settings };
    struct json_object *left = json_object_new_array(), *gaps = NULL;
    struct list list = { .count = 0 };
    char staging[PATH_MAX];
    int lock XLV_CLOSE = -1, dirfd XLV_CLOSE = -1, rc;
    bool theirs = false;

    *report = NULL;
    rc = left ? join(staging, b->settings->state_dir, STAGING, e) : no_memory(e);
    if (!rc)
        rc = lock_out_daemon(b->settings, &lock, e);
    if (!rc)
        rc = go_back(staging, b->settings->state_dir, e);
    if (!rc)
        rc = expect_fresh_host(b->settings, e);
    if (!rc)
        rc = make_unfinished(staging, &dirfd, e);
    if (!rc)
        rc = read_left(b, &gaps, e);
    if (!rc)
        rc = stage(b, dirfd, staging, &list, gaps, &s, e);
    if (!rc)
        rc = open_keys(b, staging, &theirs, &s, e);
    if (!rc)
        rc = verify(b, &s, &list, gaps, left, e);
    xlv_states_deinit(&s); /* and with it what SQLite has beside the database */
    if (!rc)
        rc = take_place(b, staging, theirs, &list, e);
    if (dirfd >= 0)
        (void)remove_tree(staging, NULL);
    if (!rc) {
        tell(b, list.count, list.count);
        rc = make_report(b, list.count, theirs, left, report, e);
    }
    json_object_put(gaps);
    json_object_put(left);
    free(list.instances);
    return rc;
}
