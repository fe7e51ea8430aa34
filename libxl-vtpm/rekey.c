/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changing the master key: see rekey.h for the steps and why they are safe. */
#include "config.h"

#include "libxl-vtpm/rekey.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>
#include <openssl/crypto.h>

#include "backend/journal.h"
#include "backend/store.h"
#include "common/fd.h"
#include "libxl-vtpm/client.h"
#include "libxl-vtpm/control.h"
#include "libxl-vtpm/keys.h"
#include "libxl-vtpm/registry.h"

#define INSTANCES "instances"
#define USER_TEXT 64

struct rekey {
    const struct xlv_settings *settings;
    struct xlv_client *client;
    struct xlv_registry *registry; /* NULL: there is none yet */
    struct xlv_keys *keys;
    bool have_journal_key;
    int state_dirfd, instances_dirfd;
    unsigned sealed, already, empty, done, of;
    int64_t patience; /* milliseconds for instances that no domain is known to have */
    void (*progress)(unsigned done, unsigned of, void *opaque);
    void *opaque;
    struct json_object *left;
    struct xlv_error *e;
};

static int no_memory(struct rekey *r)
{
    return xlv_fail(r->e, -ENOMEM, "no memory for a report");
}

/* Takes over value. */
static bool put(struct json_object *o, const char *key, struct json_object *value)
{
    if (!json_object_object_add(o, key, value))
        return true;
    json_object_put(value);
    return false;
}

/* uuid NULL: not known. */
static int leave(struct rekey *r, uint64_t number, const struct xlv_uuid *uuid, const char *reason)
{
    struct json_object *o = json_object_new_object();
    char text[XLV_UUID_TEXT];

    if (o && put(o, "number", json_object_new_int64((int64_t)number)) &&
        put(o, "uuid", uuid ? json_object_new_string(xlv_uuid_format(uuid, text)) : NULL) &&
        put(o, "reason", xlv_json_text(reason)) && !json_object_array_add(r->left, o))
        return 0;
    json_object_put(o);
    return no_memory(r);
}

/* "domain 5 (device 0)", if the daemon knows one. */
static bool used_by(struct rekey *r, const struct xlv_instance *instance, char text[USER_TEXT])
{
    struct json_object *request = json_object_new_object(), *shown = NULL;
    bool known = r->client && request && put(request, "call", json_object_new_string("show")) &&
                 put(request, "number", json_object_new_int64((int64_t)instance->number)) &&
                 !xlv_client_call(r->client, request, &shown, NULL) &&
                 xlv_client_user(shown, text, USER_TEXT);

    json_object_put(shown);
    json_object_put(request);
    return known;
}

/* *left: it cannot be locked, and is in the report. */
static int lock_or_leave(struct rekey *r, const struct xlv_instance *instance, int slot,
                         bool *left)
{
    char domain[USER_TEXT], text[XLV_DOMAIN_NAME_MAX + 128];
    int64_t none = 0;
    int rc = xlv_lock_within(slot, &none);
    bool known = rc == -EWOULDBLOCK && used_by(r, instance, domain);

    if (rc == -EWOULDBLOCK && !known)
        rc = xlv_lock_within(slot, &r->patience);
    *left = rc;
    if (!rc)
        return 0;
    if (known)
        snprintf(text, sizeof(text), "in use by %s", domain);
    else if (rc != -EWOULDBLOCK)
        snprintf(text, sizeof(text), "its state cannot be locked: %s", strerror(-rc));
    else if (instance->last_domain_name[0])
        snprintf(text, sizeof(text), "in use; its last domain was %s",
                 instance->last_domain_name);
    else
        snprintf(text, sizeof(text), "in use; by which domain is not known");
    return leave(r, instance->number, &instance->uuid, text);
}

static int store_with(struct rekey *r, const struct xlv_instance *instance, const int slots[2],
                      unsigned candidate, struct xlv_store **store)
{
    uint8_t key[XLV_KEY_SIZE];
    int rc = xlv_keys_candidate(r->keys, candidate, &instance->uuid, key, r->e);

    *store = NULL;
    if (!rc)
        rc = xlv_store_new(store, slots, &instance->uuid, key, r->e);
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

static void wipe(uint8_t *data, size_t length)
{
    if (data)
        OPENSSL_cleanse(data, length);
    free(data);
}

/* The record again, now with the permanent state that goes with it. */
static int repeat_record(struct xlv_journal *journal, const struct xlv_journal_record *record,
                         const uint8_t *data, size_t length, struct xlv_error *why)
{
    struct xlv_journal_record again = *record;
    size_t size = (size_t)record->request_length + record->response_length +
                  record->volatile_length + record->repeat_length;
    /* an append may reuse what the record points to */
    uint8_t *copy = malloc(size + 1), *p = copy;
    int rc;

    if (!copy)
        return xlv_fail(why, -ENOMEM, "no memory for a record of the journal");
    again.request = p;
    p = mempcpy(p, record->request, record->request_length);
    again.response = p;
    p = mempcpy(p, record->response, record->response_length);
    again.volatile_state = p;
    p = mempcpy(p, record->volatile_state, record->volatile_length);
    again.repeat = p;
    memcpy(p, record->repeat, record->repeat_length);
    again.permanent = data;
    again.permanent_length = (uint32_t)length;
    rc = xlv_journal_append(journal, &again, why);
    wipe(copy, size);
    return rc;
}

/*
 * The journal outlives a backend that crashed, and the boot of its domain goes
 * on from it; so it must not be parted from the store by the generations that
 * sealing makes. A record that carries the permanent state belongs to any
 * generation with the same bytes (session.c), before, while and after the
 * store is sealed: the last record is repeated with it, in one step. One whose
 * commands are done again to come to the permanent state belongs to any store
 * that is not of a later generation: it gets that of the last commit to come.
 */
static int keep_boot(struct rekey *r, const struct xlv_instance *instance, const uint8_t *data,
                     size_t length, uint64_t generation, struct xlv_error *why)
{
    struct xlv_journal_record record;
    struct xlv_journal *journal = NULL;
    int fd XLV_CLOSE = -1, rc = 0;
    uint8_t key[XLV_KEY_SIZE];
    char path[PATH_MAX];
    struct stat st;

    xlv_settings_journal(r->settings, instance->number, path);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &st))
        return xlv_fail(why, -errno, "cannot open the journal %s: %s", path, strerror(errno));
    if (!st.st_size)
        return 0;
    if (!r->have_journal_key)
        rc = xlv_keys_open_journal(r->keys, r->settings->run_dir, NULL, why);
    if (!rc) {
        r->have_journal_key = true;
        rc = xlv_keys_journal(r->keys, &instance->uuid, key, why);
    }
    if (!rc)
        rc = xlv_journal_new(&journal, fd, &instance->uuid, key, why);
    OPENSSL_cleanse(key, sizeof(key));
    if (!rc)
        rc = xlv_journal_load(journal, &record, why);
    if (rc == XLV_E_EMPTY || rc == XLV_E_CORRUPT) {
        /* nothing to go on from in any case */
        xlv_error_clear(why);
        rc = 0;
    } else if (!rc && record.repeat_changes && record.generation >= generation) {
        record.generation = generation + XLV_STORE_REKEY_COMMITS;
        rc = xlv_journal_append_exchange(journal, &record, why);
    } else if (!rc && record.repeat_changes) {
        /* an older one's: nothing to go on from */
    } else if (!rc && !record.permanent_length && record.generation == generation) {
        rc = repeat_record(journal, &record, data, length, why);
    } else if (!rc && record.permanent_length && record.generation > generation &&
               (record.permanent_length != length || memcmp(record.permanent, data, length))) {
        rc = xlv_fail(why, XLV_E_IN_USE, "its journal holds a change that was not committed: start "
                      "its domain once and shut it down");
    }
    xlv_journal_free(journal);
    return rc;
}

/*
 * Seals a store, locked, under the new key, and looks at the result. *outcome
 * as of xlv_store_load() with the key that it has, why its sentence; a failure
 * to write is an outcome, too: other instances may do better.
 */
static int seal_store(struct rekey *r, const struct xlv_instance *instance, const int slots[2],
                      int *outcome, struct xlv_error *why)
{
    struct xlv_store *store = NULL, *check = NULL;
    struct xlv_store_report seen[2];
    uint8_t key[XLV_KEY_SIZE], *data = NULL, *again = NULL;
    size_t length = 0, again_length = 0;
    uint64_t generation;
    unsigned candidate;
    bool under_new = false;
    int rc;

    *outcome = xlv_keys_of_store(r->keys, &instance->uuid, slots, key, &candidate, why);
    OPENSSL_cleanse(key, sizeof(key));
    if (*outcome)
        return 0;
    rc = store_with(r, instance, slots, candidate, &store);
    if (rc)
        return rc;
    *outcome = xlv_store_load(store, &data, &length, &generation, why);
    if (!candidate && (!*outcome || *outcome == XLV_E_EMPTY)) {
        /* between its two commits the older slot is still under the old key */
        int looked = xlv_store_inspect(store, seen, why);

        if (looked)
            *outcome = looked;
        else
            under_new = seen[0].outcome != XLV_E_WRONG_KEY && seen[1].outcome != XLV_E_WRONG_KEY;
    }
    if (under_new || (*outcome && *outcome != XLV_E_EMPTY)) {
        if (!*outcome)
            r->already++;
        goto out;
    }
    if (!*outcome)
        *outcome = keep_boot(r, instance, data, length, generation, why);
    if (*outcome && *outcome != XLV_E_EMPTY)
        goto out;
    rc = xlv_keys_candidate(r->keys, 0, &instance->uuid, key, r->e);
    if (!rc)
        rc = store_with(r, instance, slots, 0, &check);
    if (!rc) {
        int sealed = xlv_store_rekey(store, key, &generation, why);

        if (!sealed)
            sealed = xlv_store_load(check, &again, &again_length, &generation, why);
        if (sealed != *outcome || length != again_length ||
            (length && memcmp(data, again, length)))
            *outcome = sealed ? sealed
                              : xlv_fail(why, -EIO, "the state that was written reads back as "
                                         "another one");
        else if (!*outcome)
            r->sealed++;
    }
    OPENSSL_cleanse(key, sizeof(key));
out:
    wipe(data, length);
    wipe(again, again_length);
    xlv_store_free(store);
    xlv_store_free(check);
    return rc;
}

static int one_instance(struct rekey *r, const struct xlv_instance *instance)
{
    int dirfd XLV_CLOSE = -1, slots[2] = { -1, -1 }, rc = 0, outcome;
    struct xlv_error why = XLV_ERROR_INIT;
    bool left = false;

    dirfd = openat(r->state_dirfd, instance->directory,
                   O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dirfd < 0) {
        outcome = xlv_fail(&why, -errno, "cannot open its directory %s: %s", instance->directory,
                           strerror(errno));
        return leave(r, instance->number, &instance->uuid, why.text);
    }
    outcome = xlv_store_open(dirfd, slots, &why);
    if (outcome == XLV_E_NOT_FOUND && instance->life == XLV_LIFE_NEW &&
        faccessat(dirfd, XLV_STORE_SLOT_0, F_OK, 0) &&
        faccessat(dirfd, XLV_STORE_SLOT_1, F_OK, 0)) {
        /* whoever makes them reads the key files afterwards */
        r->empty++;
        return 0;
    }
    if (!outcome)
        rc = lock_or_leave(r, instance, slots[0], &left);
    if (!left) {
        if (!outcome)
            rc = seal_store(r, instance, slots, &outcome, &why);
        if (!rc && outcome == XLV_E_EMPTY && instance->life == XLV_LIFE_READY)
            rc = leave(r, instance->number, &instance->uuid, "its TPM was made, but its store is "
                       "empty: put it back from a backup");
        else if (!rc && outcome == XLV_E_EMPTY)
            r->empty++;
        else if (!rc && outcome)
            rc = leave(r, instance->number, &instance->uuid,
                       why.text[0] ? why.text : xlv_strerror(outcome));
    }
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

/* Other hosts open it with the key that this one has. */
static int refuse_shared(const struct xlv_instance *instance, void *opaque)
{
    struct rekey *r = opaque;

    r->of++;
    if (!xlv_instance_shared(instance) || instance->handover == XLV_HANDOVER_DEPARTED)
        return 0;
    return xlv_fail(r->e, XLV_E_REFUSED, "instance %" PRIu64 " is in %s, where other hosts use it "
                    "under this master key: xl-vtpm unshare it before", instance->number,
                    instance->directory);
}

static int visit(const struct xlv_instance *instance, void *opaque)
{
    struct rekey *r = opaque;

    if (r->progress)
        r->progress(r->done++, r->of, r->opaque);
    /* what is shared was given away, and is the other host's to seal */
    return xlv_instance_shared(instance) ? 0 : one_instance(r, instance);
}

/* States of instances that the registry does not know: an old copy of it may be in place. */
static int unknown_states(struct rekey *r)
{
    DIR *directory;
    struct dirent *entry;
    int copy = openat(r->instances_dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory) {
        rc = -errno;
        xlv_close(&copy);
        return xlv_fail(r->e, rc, "cannot list %s/" INSTANCES ": %s", r->settings->state_dir,
                        xlv_strerror(rc));
    }
    while (!rc && (errno = 0, entry = readdir(directory))) {
        char path[NAME_MAX + 16], *rest;
        uint64_t number = strtoull(entry->d_name, &rest, 10);
        struct xlv_instance instance;

        snprintf(path, sizeof(path), "%s/" XLV_STORE_SLOT_0, entry->d_name);
        if (*rest || rest == entry->d_name ||
            faccessat(r->instances_dirfd, path, F_OK, AT_SYMLINK_NOFOLLOW))
            continue;
        rc = xlv_registry_get_number(r->registry, number, &instance, NULL);
        if (rc == XLV_E_NOT_FOUND)
            rc = leave(r, number, NULL, "the registry does not know this state; is an old copy of "
                       "vtpm.db in place?");
        else if (rc)
            xlv_fail(r->e, rc, "cannot look up instance %" PRIu64 ": %s", number, xlv_strerror(rc));
    }
    if (!rc && errno)
        rc = xlv_fail(r->e, -errno, "cannot list %s/" INSTANCES ": %s", r->settings->state_dir,
                      strerror(errno));
    closedir(directory);
    return rc;
}

/* One run at a time, and none while states and keys are backed up. Without any instance there is
 * nothing to lock, nor to seal. */
static int open_states(struct rekey *r)
{
    const char *state_dir = r->settings->state_dir;
    int rc;

    rc = xlv_registry_open(&r->registry, state_dir, false, r->e);
    if (rc)
        return rc;
    r->state_dirfd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->state_dirfd >= 0)
        r->instances_dirfd = openat(r->state_dirfd, INSTANCES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->instances_dirfd < 0)
        return xlv_fail(r->e, -errno, "cannot open %s/" INSTANCES ": %s", state_dir,
                        strerror(errno));
    if (!flock(r->instances_dirfd, LOCK_EX | LOCK_NB))
        return 0;
    if (errno == EWOULDBLOCK)
        return xlv_fail(r->e, XLV_E_IN_USE, "another xl-vtpm rekey, or a backup, runs: wait until "
                        "it has ended");
    return xlv_fail(r->e, -errno, "cannot lock %s/" INSTANCES ": %s", state_dir, strerror(errno));
}

static int run(struct rekey *r)
{
    const struct xlv_settings *s = r->settings;
    bool cleaned = false;
    int rc = open_states(r);

    if (!rc)
        rc = xlv_registry_each(r->registry, refuse_shared, r, r->e);
    if (!rc)
        rc = xlv_keys_new(&r->keys, s->key_provider, s->key_source, false, r->e);
    /* the last run may lack its last step only; then this is no new change of key */
    if (!rc)
        rc = xlv_keys_rotate_leftover(r->keys, &cleaned, r->e);
    if (rc || (cleaned && xlv_keys_count(r->keys) == 1))
        return rc;
    rc = xlv_keys_rotate_begin(r->keys, r->e);
    /* an instance that is being adopted may have the old key, and is on the list afterwards */
    if (!rc)
        rc = xlv_registry_sweep(r->registry, r->e);
    if (!rc)
        rc = xlv_registry_each(r->registry, visit, r, r->e);
    if (!rc)
        rc = unknown_states(r);
    if (!rc && !json_object_array_length(r->left))
        rc = xlv_keys_rotate_finish(r->keys, r->e);
    return rc;
}

int xlv_rekey(const struct xlv_settings *settings, struct xlv_client *client,
              void (*progress)(unsigned done, unsigned of, void *opaque), void *opaque,
              struct json_object **report, struct xlv_error *e)
{
    struct rekey r = {
        .settings = settings, .client = client, .patience = XLV_STORE_PATIENCE,
        .progress = progress, .opaque = opaque, .state_dirfd = -1, .instances_dirfd = -1,
        .left = json_object_new_array(), .e = e,
    };
    struct json_object *o = json_object_new_object();
    bool complete;
    int rc;

    *report = NULL;
    rc = o && r.left ? run(&r) : no_memory(&r);
    complete = !rc && !json_object_array_length(r.left);
    if (!rc && put(o, "result", json_object_new_string(complete ? "complete" : "unfinished")) &&
        put(o, "key", json_object_new_string(settings->key_source)) &&
        put(o, "sealed", json_object_new_int64(r.sealed)) &&
        put(o, "already", json_object_new_int64(r.already)) &&
        put(o, "empty", json_object_new_int64(r.empty)) &&
        put(o, "left", json_object_get(r.left))) {
        *report = o;
        o = NULL;
        rc = complete ? 0 : XLV_E_CONFLICT;
    } else if (!rc) {
        rc = no_memory(&r);
    }
    json_object_put(o);
    json_object_put(r.left);
    xlv_keys_free(r.keys);
    xlv_registry_close(r.registry);
    xlv_close(&r.instances_dirfd);
    xlv_close(&r.state_dirfd);
    return rc;
}
