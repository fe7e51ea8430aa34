/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looking at a store, and choosing one of its slots: see recover.h.
 *
 * Order of a choice, each step durable before the next:
 *     copy of the other slot, under a name of its own
 *     a blank file where the other slot is missing
 *     xlv_store_choose(): one commit over the other slot
 * Interrupted anywhere, the same choice is possible again.
 */
#include "config.h"

#include "libxl-vtpm/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>
#include <openssl/crypto.h>

#include "backend/store.h"
#include "common/fd.h"
#include "common/uuid.h"
#include "libxl-vtpm/client.h"
#include "libxl-vtpm/keys.h"

static const char *const names[2] = { XLV_STORE_SLOT_0, XLV_STORE_SLOT_1 };

struct look {
    const struct xlv_recover *r;
    char directory[PATH_MAX]; /* absolute */
    uint64_t number;
    struct xlv_uuid uuid;
    struct xlv_keys *keys;
    int dirfd, fds[2];
    bool missing[2];
    struct xlv_store_report slots[2];
    unsigned key_of[2]; /* candidate that slots[] was seen with */
    /* the loader's */
    int outcome;
    uint64_t generation;
    int newest; /* -1: none */
    struct xlv_error why;
};

static struct json_object *member(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(json, key, &value);
    return value;
}

static int no_memory(struct xlv_error *e)
{
    return xlv_fail(e, -ENOMEM, "no memory for a report");
}

/* Takes over value; NULL is JSON null. */
static bool put(struct json_object *o, const char *key, struct json_object *value)
{
    if (!json_object_object_add(o, key, value))
        return true;
    json_object_put(value);
    return false;
}

static int lock(const struct look *l, int fd, struct xlv_error *e)
{
    char user[64];
    bool known = xlv_client_user(l->r->instance, user, sizeof(user));
    int64_t patience = known ? 0 : XLV_STORE_PATIENCE;
    int rc = xlv_lock_within(fd, &patience);

    if (!rc)
        return 0;
    if (rc != -EWOULDBLOCK)
        return xlv_fail(e, rc, "cannot lock the state of instance %" PRIu64 ": %s", l->number,
                        strerror(-rc));
    return xlv_fail(e, XLV_E_IN_USE, "instance %" PRIu64 " is in use by %s; shut the domain down "
                    "first", l->number, known ? user : "another process");
}

/* A missing slot gets a blank one in memory, to have something to look at. */
static int open_slots(struct look *l, struct xlv_error *e)
{
    int rc;

    for (int i = 0; i < 2; i++) {
        struct stat st;

        l->fds[i] = openat(l->dirfd, names[i], O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (l->fds[i] >= 0) {
            if (fstat(l->fds[i], &st) || !S_ISREG(st.st_mode))
                return xlv_fail(e, XLV_E_CORRUPT, "%s/%s is not a regular file",
                                l->directory, names[i]);
            continue;
        }
        if (errno != ENOENT)
            return xlv_fail(e, -errno, "cannot open %s/%s: %s", l->directory, names[i],
                            strerror(errno));
        l->missing[i] = true;
    }
    if (l->missing[0] && l->missing[1])
        return xlv_fail(e, XLV_E_NOT_FOUND, "%s holds no state: either its TPM was never made, "
                        "or its files are lost and have to come from a backup", l->directory);
    /* without slot 0 no daemon can take the instance; then this is among us */
    rc = lock(l, l->fds[l->missing[0] ? 1 : 0], e);
    for (int i = 0; i < 2 && !rc; i++) {
        if (!l->missing[i])
            continue;
        l->fds[i] = memfd_create("slot", MFD_CLOEXEC);
        rc = l->fds[i] < 0 ? xlv_fail(e, -errno, "no memory for a slot")
                           : xlv_store_prepare(l->fds[i], e);
    }
    return rc;
}

static int store_with(const struct look *l, unsigned candidate, struct xlv_store **store,
                      struct xlv_error *e)
{
    uint8_t key[XLV_KEY_SIZE];
    int rc = xlv_keys_candidate(l->keys, candidate, &l->uuid, key, e);

    *store = NULL;
    if (!rc)
        rc = xlv_store_new(store, l->fds, &l->uuid, key, e);
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

/* What the backend would find. Only an error that says nothing about the state is returned. */
static int load(struct look *l, struct xlv_error *e)
{
    struct xlv_store *store = NULL;
    uint8_t key[XLV_KEY_SIZE], *data = NULL;
    unsigned candidate = 0;
    size_t length = 0;
    int rc = xlv_keys_of_store(l->keys, &l->uuid, l->fds, key, &candidate, e);

    xlv_error_clear(&l->why);
    OPENSSL_cleanse(key, sizeof(key));
    if (!rc)
        rc = store_with(l, candidate, &store, e);
    if (rc)
        return rc;
    l->outcome = xlv_store_load(store, &data, &length, &l->generation, &l->why);
    if (data)
        OPENSSL_cleanse(data, length);
    free(data);
    xlv_store_free(store);
    return l->outcome < 0 ? xlv_fail(e, l->outcome, "%s", l->why.text) : 0;
}

/* Each slot under the key that it was sealed with, if that is one of ours. */
static int inspect(struct look *l, struct xlv_error *e)
{
    int rc = load(l, e);

    for (unsigned k = 0; k < xlv_keys_count(l->keys) && !rc; k++) {
        struct xlv_store_report seen[2];
        struct xlv_store *store;

        rc = store_with(l, k, &store, e);
        if (!rc)
            rc = xlv_store_inspect(store, seen, e);
        xlv_store_free(store);
        for (unsigned i = 0; i < 2 && !rc; i++)
            if (!k || (l->slots[i].outcome == XLV_E_WRONG_KEY &&
                       seen[i].outcome != XLV_E_WRONG_KEY)) {
                l->slots[i] = seen[i];
                l->key_of[i] = k;
            }
    }
    l->newest = -1;
    for (int i = 0; i < 2 && !rc; i++) {
        if (l->missing[i]) {
            l->slots[i] = (struct xlv_store_report){ .outcome = XLV_E_NOT_FOUND };
            snprintf(l->slots[i].text, sizeof(l->slots[i].text), "is missing");
            xlv_error_clear(&l->why);
            l->outcome = xlv_fail(&l->why, XLV_E_NOT_FOUND, "%s is missing; it may have held the "
                                  "newest generation: put it back from a backup, or choose the "
                                  "other slot", names[i]);
        }
        if (!l->outcome && !l->slots[i].outcome && l->slots[i].generation == l->generation)
            l->newest = i;
    }
    return rc;
}

static const char *state_word(const struct xlv_store_report *slot)
{
    if (slot->cut_short)
        return "cut short";
    switch (slot->outcome) {
    case 0:
        return "good";
    case XLV_E_EMPTY:
        return "blank";
    case XLV_E_NOT_FOUND:
        return "missing";
    case XLV_E_WRONG_KEY:
        return "wrong key";
    case XLV_E_WRONG_OWNER:
        return "wrong owner";
    case XLV_E_VERSION:
        return "too new";
    default:
        return "damaged";
    }
}

static struct json_object *number_or_null(uint64_t number)
{
    return number ? json_object_new_int64((int64_t)number) : NULL;
}

static int report_slots(const struct look *l, struct json_object *report, struct xlv_error *e)
{
    struct json_object *slots = json_object_new_array(), *usable = json_object_new_array();
    bool ok = slots && usable;

    for (int i = 0; i < 2 && ok; i++) {
        struct json_object *o = json_object_new_object();
        struct stat st;
        bool there = !l->missing[i] && !fstat(l->fds[i], &st);

        ok = o && put(o, "slot", json_object_new_int(i)) &&
             put(o, "file", json_object_new_string(names[i])) &&
             put(o, "size", there ? json_object_new_int64(st.st_size) : NULL) &&
             put(o, "state", json_object_new_string(state_word(&l->slots[i]))) &&
             put(o, "generation", number_or_null(l->slots[i].generation)) &&
             put(o, "length", number_or_null(l->slots[i].length)) &&
             put(o, "text", json_object_new_string(l->slots[i].text)) &&
             (!l->key_of[i] || put(o, "key", json_object_new_string("old")));
        if (!ok || json_object_array_add(slots, o)) {
            json_object_put(o);
            ok = false;
        }
        if (ok && !l->slots[i].outcome)
            ok = !json_object_array_add(usable, json_object_new_int(i));
    }
    if (!ok || !put(report, "slots", slots)) {
        json_object_put(slots);
        json_object_put(usable);
        return no_memory(e);
    }
    return put(report, "usable", usable) ? 0 : no_memory(e);
}

static int fill_report(const struct look *l, struct json_object *report, struct xlv_error *e)
{
    static const char *const copied[] = { "number", "uuid", "life" };
    char verdict[XLV_TEXT_MAX];

    if (l->newest >= 0)
        snprintf(verdict, sizeof(verdict), "slot %d is the newest, generation %" PRIu64 ": the TPM "
                 "goes on from it", l->newest, l->generation);
    else if (l->outcome == XLV_E_EMPTY)
        snprintf(verdict, sizeof(verdict), "no generation was ever complete: no TPM was made yet");
    else
        snprintf(verdict, sizeof(verdict), "%s", l->why.text);
    for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
        if (!put(report, copied[i], json_object_get(member(l->r->instance, copied[i]))))
            return no_memory(e);
    if (!put(report, "directory", json_object_new_string(l->directory)) ||
        !put(report, "loads", json_object_new_boolean(l->newest >= 0)) ||
        !put(report, "empty", json_object_new_boolean(l->outcome == XLV_E_EMPTY)) ||
        !put(report, "slot", l->newest >= 0 ? json_object_new_int(l->newest) : NULL) ||
        !put(report, "verdict", json_object_new_string(verdict)) || !put(report, "chosen", NULL))
        return no_memory(e);
    return report_slots(l, report, e);
}

/* Copies a slot to "slot-1.kept-20260115T101500Z" beside it; name is room for that. */
static int set_aside(const struct look *l, int which, char name[64], struct xlv_error *e)
{
    char stamp[24], part[80];
    uint8_t buffer[16384];
    int fd XLV_CLOSE = -1, rc = 0;
    time_t now = time(NULL);
    struct tm tm;
    off_t at = 0;
    ssize_t n;

    gmtime_r(&now, &tm);
    strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &tm);
    snprintf(name, 64, "%s.kept-%s", names[which], stamp);
    /* twice in one second */
    for (unsigned i = 2; !faccessat(l->dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) && i < 100; i++)
        snprintf(name, 64, "%s.kept-%s-%u", names[which], stamp, i);
    snprintf(part, sizeof(part), "%s.part", name);
    fd = openat(l->dirfd, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        rc = -errno;
    while (!rc) {
        n = pread(l->fds[which], buffer, sizeof(buffer), at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = n < 0 ? -errno : 0;
            break;
        }
        rc = xlv_write_all(fd, buffer, (size_t)n);
        at += n;
    }
    if (!rc && (fsync(fd) || renameat(l->dirfd, part, l->dirfd, name) || fsync(l->dirfd)))
        rc = -errno;
    if (!rc)
        return 0;
    if (fd >= 0)
        unlinkat(l->dirfd, part, 0);
    return xlv_fail(e, rc, "instance %" PRIu64 ": %s cannot be set aside: %s; nothing was changed",
                    l->number, names[which], xlv_strerror(rc));
}

/* A file for a slot that is missing. Locked before it has its name. */
static int replace_missing(struct look *l, int which, struct xlv_error *e)
{
    char temporary[16];
    int fd XLV_CLOSE = -1, rc;

    snprintf(temporary, sizeof(temporary), "%s.new", names[which]);
    fd = openat(l->dirfd, temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return xlv_fail(e, -errno, "cannot create %s: %s", temporary, strerror(errno));
    rc = xlv_store_prepare(fd, e);
    if (!rc)
        rc = lock(l, fd, e);
    if (!rc && (renameat(l->dirfd, temporary, l->dirfd, names[which]) || fsync(l->dirfd)))
        rc = xlv_fail(e, -errno, "cannot create %s: %s", names[which], strerror(errno));
    if (rc)
        return rc;
    xlv_close(&l->fds[which]);
    l->fds[which] = fd;
    fd = -1;
    l->missing[which] = false;
    return 0;
}

static int choose(struct look *l, struct json_object *report, struct xlv_error *e)
{
    int slot = l->r->use_slot, other = 1 - slot;
    bool keep = !l->missing[other] && l->slots[other].outcome != XLV_E_EMPTY;
    char question[512], kept[64] = "", path[PATH_MAX + NAME_MAX], user[64];
    struct json_object *chosen;
    struct xlv_store *store = NULL;
    uint64_t generation = 0;
    int rc;

    if (l->newest == slot)
        return 0;
    if (l->slots[slot].outcome)
        return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 ": slot %d cannot be chosen: it %s",
                        l->number, slot, l->slots[slot].text);
    /* its backend may be dead, but the boot of the domain is not over */
    if (xlv_client_user(l->r->instance, user, sizeof(user)))
        return xlv_fail(e, XLV_E_IN_USE, "instance %" PRIu64 " is in use by %s; shut the domain "
                        "down first", l->number, user);
    snprintf(question, sizeof(question), "The TPM of instance %" PRIu64 " will go on from "
             "generation %" PRIu64 " in slot %d. Slot %d is overwritten%s. Whatever the guest "
             "changed after generation %" PRIu64 " is gone, and what is left of its last boot in "
             "the journal is removed.", l->number, l->slots[slot].generation, slot, other,
             keep ? ", after a copy of it is set aside" : "", l->slots[slot].generation);
    if (l->r->agree && !l->r->agree(report, question, l->r->opaque))
        return XLV_E_REFUSED;

    /* It may be of the generation that the choice gets, and of another state. */
    xlv_settings_journal(l->r->settings, l->number, path);
    if (unlink(path) && errno != ENOENT)
        return xlv_fail(e, -errno, "instance %" PRIu64 ": its old journal %s cannot be removed: %s; "
                        "nothing else was changed", l->number, path, strerror(errno));
    rc = keep ? set_aside(l, other, kept, e) : 0;
    if (!rc && l->missing[other])
        rc = replace_missing(l, other, e);
    if (!rc)
        rc = store_with(l, l->key_of[slot], &store, e);
    if (!rc)
        rc = xlv_store_choose(store, (unsigned)slot, &generation, e);
    xlv_store_free(store);
    if (!rc)
        rc = inspect(l, e);
    if (!rc)
        rc = fill_report(l, report, e);
    chosen = rc ? NULL : json_object_new_object();
    if (!chosen)
        return rc ? rc : no_memory(e);
    snprintf(path, sizeof(path), "%s/%s", l->directory, kept);
    if (put(chosen, "slot", json_object_new_int(slot)) &&
        put(chosen, "generation", json_object_new_int64((int64_t)generation)) &&
        put(chosen, "kept", *kept ? json_object_new_string(path) : NULL) &&
        put(report, "chosen", json_object_get(chosen)))
        rc = 0;
    else
        rc = no_memory(e);
    json_object_put(chosen);
    return rc;
}

static int look_at(struct look *l, struct json_object *report, struct xlv_error *e)
{
    const struct xlv_settings *settings = l->r->settings;
    const char *uuid = json_object_get_string(member(l->r->instance, "uuid"));
    const char *directory = json_object_get_string(member(l->r->instance, "directory"));
    int rc;

    l->number = (uint64_t)json_object_get_int64(member(l->r->instance, "number"));
    if (!directory || !uuid || xlv_uuid_parse(&l->uuid, uuid))
        return xlv_fail(e, XLV_E_INVALID, "the answer is no instance");
    snprintf(l->directory, sizeof(l->directory), "%s%s%s",
             directory[0] == '/' ? "" : settings->state_dir, directory[0] == '/' ? "" : "/",
             directory);
    l->dirfd = open(l->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (l->dirfd < 0)
        return xlv_fail(e, errno == ENOENT ? XLV_E_NOT_FOUND : -errno, "cannot open %s: %s",
                        l->directory, strerror(errno));
    rc = open_slots(l, e);
    if (!rc)
        rc = xlv_keys_new(&l->keys, settings->key_provider, settings->key_source, false, e);
    if (!rc)
        rc = inspect(l, e);
    if (!rc)
        rc = fill_report(l, report, e);
    if (!rc && l->r->use_slot >= 0)
        rc = choose(l, report, e);
    return rc;
}

int xlv_recover(const struct xlv_recover *recover, struct json_object **report,
                struct xlv_error *e)
{
    struct look l = { .r = recover, .dirfd = -1, .fds = { -1, -1 }, .why = XLV_ERROR_INIT };
    struct json_object *json = json_object_new_object();
    int rc;

    *report = NULL;
    if (!json)
        return no_memory(e);
    rc = look_at(&l, json, e);
    xlv_keys_free(l.keys);
    xlv_close(&l.fds[0]);
    xlv_close(&l.fds[1]);
    xlv_close(&l.dirfd);
    if (!rc || json_object_object_length(json))
        *report = json;
    else
        json_object_put(json);
    return rc;
}
