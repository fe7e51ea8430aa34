/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole states of instances: see states.h. */
#include "config.h"

#include "libxl-vtpm/states.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend/container.h"
#include "backend/journal.h"
#include "backend/kept.h"
#include "backend/store.h"
#include "common/bytes.h"
#include "common/fd.h"
#include "libxl-vtpm/task.h"

/* A read meets a commit: the next one rarely does. A damaged state stays so. */
#define TRIES 50

int xlv_states_init(struct xlv_states *s, const struct xlv_settings *settings, bool create,
                    struct xlv_error *e)
{
    bool any = true;
    int rc;

    *s = (struct xlv_states){ .settings = settings };
    rc = xlv_registry_open(&s->registry, settings->state_dir, create, e);
    if (!rc && create)
        rc = xlv_registry_any_state(s->registry, &any, e);
    return rc ? rc : xlv_keys_new(&s->keys, settings->key_provider, settings->key_source, !any, e);
}

void xlv_states_deinit(struct xlv_states *s)
{
    xlv_keys_free(s->keys);
    xlv_registry_close(s->registry);
    *s = (struct xlv_states){ .registry = NULL };
}

static int refuse_elsewhere(const struct xlv_instance *instance, struct xlv_error *e)
{
    if (instance->handover == XLV_HANDOVER_HELD)
        return 0;
    return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is %s (other host: %s)",
                    instance->number, xlv_handover_name(instance->handover),
                    instance->handover_peer);
}

static int not_made(const struct xlv_instance *instance, struct xlv_error *e)
{
    return xlv_fail(e, XLV_E_EMPTY, "the TPM of instance %" PRIu64 " was not made yet; that "
                    "happens at its first use", instance->number);
}

/* Its slots, for reading; XLV_E_EMPTY: no TPM was made yet. */
static int open_slots(struct xlv_states *s, const struct xlv_instance *instance, int slots[2],
                      struct xlv_error *e)
{
    int dirfd XLV_CLOSE = -1;
    int rc = xlv_registry_directory(s->registry, instance, &dirfd, e);

    if (rc)
        return rc;
    rc = xlv_store_open(dirfd, slots, e);
    if (rc != XLV_E_NOT_FOUND || instance->life != XLV_LIFE_NEW)
        return rc;
    xlv_error_clear(e);
    return not_made(instance, e);
}

/*
 * Whatever loads was sealed as one generation and is therefore whole. What a commit or a change
 * of key does meanwhile can only make a load fail, never return a mixture.
 */
int xlv_states_read(struct xlv_states *s, const struct xlv_instance *instance, uint8_t **data,
                    size_t *length, struct xlv_error *e)
{
    int slots[2] = { -1, -1 };
    struct xlv_kept kept;
    uint64_t generation;
    size_t size = 0;
    int rc = refuse_elsewhere(instance, e);

    *data = NULL;
    *length = 0;
    if (!rc)
        rc = open_slots(s, instance, slots, e);
    if (rc)
        return rc;
    for (int i = 0; i < TRIES; i++) {
        struct xlv_store *store;

        if (i)
            xlv_error_clear(e);
        rc = xlv_keys_open_store(s->keys, &instance->uuid, slots, &store, e);
        if (!rc)
            rc = xlv_store_load(store, data, &size, &generation, e);
        xlv_store_free(store);
        if (rc <= 0 || rc == XLV_E_EMPTY)
            break;
    }
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    if (rc == XLV_E_EMPTY)
        return not_made(instance, e);
    if (!rc && xlv_container_marked(*data, size, length)) {
        xlv_wipe(*data, size);
        *data = NULL;
        *length = 0;
        return not_made(instance, e);
    }
    if (!rc)
        rc = xlv_kept_split(*data, size, &kept, length);
    if (rc) {
        xlv_wipe(*data, size);
        *data = NULL;
        return xlv_fail(e, rc, "the state of instance %" PRIu64 " cannot be read: %s",
                        instance->number, xlv_strerror(rc));
    }
    return 0;
}

/* A copy in memory of a slot that may be written to meanwhile: what is torn does not verify. */
static int copy_slot(int from, int *to, struct xlv_error *e)
{
    uint8_t block[16384];
    off_t at = 0;
    int rc = 0;

    *to = memfd_create("slot", MFD_CLOEXEC);
    if (*to < 0)
        return xlv_fail(e, -errno, "no memory for a slot: %s", strerror(errno));
    while (!rc) {
        ssize_t n = pread(from, block, sizeof(block), at);

        if (!n)
            return 0;
        rc = n < 0 ? -errno : xlv_pwrite_all(*to, block, (size_t)n, at);
        at += n;
    }
    return xlv_fail(e, rc, "a slot cannot be copied: %s", strerror(-rc));
}

static int try_copy(struct xlv_states *s, const struct xlv_instance *instance, const int from[2],
                    int slots[2], struct xlv_error *e)
{
    struct xlv_store *store = NULL;
    uint8_t *data = NULL;
    size_t length = 0;
    uint64_t generation;
    int rc = copy_slot(from[0], &slots[0], e);

    if (!rc)
        rc = copy_slot(from[1], &slots[1], e);
    if (!rc)
        rc = xlv_keys_open_store(s->keys, &instance->uuid, slots, &store, e);
    if (!rc)
        rc = xlv_store_load(store, &data, &length, &generation, e);
    xlv_wipe(data, length);
    xlv_store_free(store);
    return rc;
}

/* What there is of a store that is not whole, or cannot be read whole. */
static void copy_what_is_there(int dirfd, int slots[2])
{
    static const char *const names[] = { XLV_STORE_SLOT_0, XLV_STORE_SLOT_1 };

    for (int i = 0; i < 2; i++) {
        int from XLV_CLOSE = slots[i] >= 0 ? -1 : openat(dirfd, names[i], O_RDONLY | O_CLOEXEC |
                                                         O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        struct stat st;

        if (from >= 0 && !fstat(from, &st) && S_ISREG(st.st_mode) &&
            copy_slot(from, &slots[i], NULL))
            xlv_close(&slots[i]);
    }
}

int xlv_states_copy(struct xlv_states *s, const struct xlv_instance *instance, int slots[2],
                    struct xlv_error *e)
{
    int dirfd XLV_CLOSE = -1, from[2] = { -1, -1 };
    int rc = xlv_registry_directory(s->registry, instance, &dirfd, e);

    slots[0] = slots[1] = -1;
    if (!rc)
        rc = xlv_store_open(dirfd, from, e);
    for (int i = 0; from[0] >= 0 && i < TRIES; i++) {
        if (i)
            xlv_error_clear(e);
        xlv_close(&slots[0]);
        xlv_close(&slots[1]);
        rc = try_copy(s, instance, from, slots, e);
        if (rc <= 0 || rc == XLV_E_EMPTY)
            break;
    }
    if (rc && dirfd >= 0)
        copy_what_is_there(dirfd, slots);
    xlv_close(&from[0]);
    xlv_close(&from[1]);
    if (rc != XLV_E_NOT_FOUND || instance->life != XLV_LIFE_NEW)
        return rc;
    xlv_error_clear(e);
    return not_made(instance, e);
}

/* The journal as it is now, if there is one, and whose it is. */
static int copy_journal(struct xlv_states *s, const struct xlv_instance *instance,
                        struct xlv_copies *c, struct xlv_error *e)
{
    struct xlv_journal *journal = NULL;
    struct xlv_journal_record record;
    int fd XLV_CLOSE = -1, rc;
    char path[PATH_MAX];

    xlv_settings_journal(s->settings, instance->number, path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : xlv_fail(e, -errno, "cannot open the journal %s: %s", path,
                                              strerror(errno));
    c->journal = memfd_create("journal", MFD_CLOEXEC);
    if (c->journal < 0)
        return xlv_fail(e, -errno, "no memory for a journal: %s", strerror(errno));
    rc = xlv_journal_copy(fd, c->journal);
    if (rc)
        return xlv_fail(e, rc, "the journal %s cannot be copied: %s", path, xlv_strerror(rc));
    if (!s->have_journal_key)
        rc = xlv_keys_open_journal(s->keys, s->settings->run_dir, NULL, e);
    if (!rc) {
        s->have_journal_key = true;
        rc = xlv_keys_journal(s->keys, &instance->uuid, c->journal_key, e);
    }
    if (!rc)
        rc = xlv_journal_new(&journal, c->journal, &instance->uuid, c->journal_key, e);
    if (!rc)
        rc = xlv_journal_load(journal, &record, e);
    if (!rc)
        c->domid = record.ring.domid;
    xlv_journal_free(journal);
    if (rc == XLV_E_EMPTY) { /* its boot begins just now */
        xlv_error_clear(e);
        xlv_close(&c->journal);
        rc = 0;
    }
    return rc;
}

/* The store first: then the journal may know of one commit more, and can make up for that. */
static int try_pcrs(struct xlv_states *s, const struct xlv_instance *instance,
                    const int slots[2], uint8_t **data, size_t *length, bool *suspended,
                    struct xlv_error *e)
{
    struct xlv_copies c = { .uuid = instance->uuid, .slots = { -1, -1 }, .journal = -1 };
    int rc = copy_slot(slots[0], &c.slots[0], e);

    if (!rc)
        rc = copy_slot(slots[1], &c.slots[1], e);
    if (!rc)
        rc = xlv_keys_of_store(s->keys, &instance->uuid, c.slots, c.instance_key, NULL, e);
    if (!rc)
        rc = copy_journal(s, instance, &c, e);
    *suspended = c.journal < 0;
    if (!rc)
        rc = xlv_task_pcrs(s->settings, instance->tpm_version, &c, data, length, e);
    OPENSSL_cleanse(&c.instance_key, sizeof(c.instance_key));
    OPENSSL_cleanse(&c.journal_key, sizeof(c.journal_key));
    xlv_close(&c.slots[0]);
    xlv_close(&c.slots[1]);
    xlv_close(&c.journal);
    return rc;
}

int xlv_states_pcrs(struct xlv_states *s, const struct xlv_instance *instance, uint8_t **data,
                    size_t *length, bool *suspended, struct xlv_error *e)
{
    int slots[2] = { -1, -1 };
    int rc = refuse_elsewhere(instance, e);

    *data = NULL;
    *length = 0;
    if (!rc)
        rc = open_slots(s, instance, slots, e);
    if (rc)
        return rc;
    for (int i = 0; i < TRIES; i++) {
        if (i)
            xlv_error_clear(e);
        rc = try_pcrs(s, instance, slots, data, length, suspended, e);
        if (rc != XLV_E_CONFLICT && rc != XLV_E_CORRUPT)
            break;
    }
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

/* What is committed where. */
struct commit {
    struct xlv_states *states;
    const uint8_t *data;
    size_t length;
};

/* Under the lock of the store. */
static int commit(struct xlv_states *s, const struct xlv_uuid *uuid, const int slots[2],
                  const struct commit *c, struct xlv_error *e)
{
    struct xlv_store *store;
    uint8_t *old = NULL;
    size_t old_length = 0;
    uint64_t generation;
    int rc = xlv_keys_open_store(s->keys, uuid, slots, &store, e);

    if (!rc)
        rc = xlv_store_load(store, &old, &old_length, &generation, e);
    xlv_wipe(old, old_length);
    if (rc == XLV_E_EMPTY) {
        xlv_error_clear(e);
        rc = 0;
    }
    if (!rc)
        rc = xlv_store_commit(store, c->data, c->length, &generation, e);
    xlv_store_free(store);
    return rc;
}

static int fill(int dirfd, const struct xlv_instance *instance, void *opaque, struct xlv_error *e)
{
    const struct commit *c = opaque;
    int slots[2] = { -1, -1 };
    int rc = xlv_store_create(dirfd, e);

    if (!rc)
        rc = xlv_store_open(dirfd, slots, e);
    if (!rc)
        rc = xlv_keys_lock_store(instance->number, slots, e);
    if (!rc)
        rc = commit(c->states, &instance->uuid, slots, c, e);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

int xlv_states_adopt(struct xlv_states *s, const struct xlv_uuid *uuid,
                     enum xlv_tpm_version version, const char *label, const uint8_t *data,
                     size_t length, struct xlv_instance *instance, struct xlv_error *e)
{
    struct commit c = { .states = s, .data = data, .length = length };

    return xlv_registry_adopt(s->registry, uuid, version, label, XLV_LIFE_READY, fill, &c,
                              instance, e);
}

/* Its store, opened and locked; *instance is as it is under the lock. create: also where there is
 * none yet. */
static int open_locked(struct xlv_states *s, const struct xlv_uuid *uuid, bool create,
                       struct xlv_instance *instance, int slots[2], struct xlv_error *e)
{
    int dirfd XLV_CLOSE = -1;
    int rc = xlv_registry_directory(s->registry, instance, &dirfd, e);

    if (!rc && create)
        rc = xlv_store_create(dirfd, e);
    if (!rc)
        rc = xlv_store_open(dirfd, slots, e);
    if (!rc)
        rc = xlv_keys_lock_store(instance->number, slots, e);
    if (!rc)
        rc = xlv_registry_get(s->registry, uuid, instance, e);
    if (!rc)
        rc = refuse_elsewhere(instance, e);
    if (!rc && instance->deleted_s)
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is deleted: xl-vtpm undelete it "
                      "first", instance->number);
    return rc;
}

static int drop_journal(struct xlv_states *s, const struct xlv_instance *instance,
                        struct xlv_error *e)
{
    char path[PATH_MAX];

    xlv_settings_journal(s->settings, instance->number, path);
    if (unlink(path) && errno != ENOENT)
        return xlv_fail(e, -errno, "cannot remove the old journal %s: %s", path, strerror(errno));
    return 0;
}

/* Opened and locked, and what a journal knows of it is gone: until a commit its TPM goes on as
 * after a power cut. */
static int take_store(struct xlv_states *s, const struct xlv_uuid *uuid, bool create,
                      struct xlv_instance *instance, int slots[2], struct xlv_error *e)
{
    int rc = open_locked(s, uuid, create, instance, slots, e);

    return rc ? rc : drop_journal(s, instance, e);
}

int xlv_states_replace(struct xlv_states *s, const struct xlv_uuid *uuid,
                       enum xlv_tpm_version version, const uint8_t *data, size_t length,
                       struct xlv_instance *instance, struct xlv_error *e)
{
    const struct commit c = { .states = s, .data = data, .length = length };
    int slots[2] = { -1, -1 };
    int rc = xlv_registry_get(s->registry, uuid, instance, e);

    if (!rc && instance->tpm_version != version)
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is a TPM %s, this is the state of a "
                      "TPM %s: give it a uuid of its own", instance->number,
                      xlv_tpm_version_name(instance->tpm_version), xlv_tpm_version_name(version));
    if (!rc)
        rc = take_store(s, uuid, true, instance, slots, e);
    if (!rc)
        rc = commit(s, uuid, slots, &c, e);
    if (!rc)
        rc = xlv_registry_replaced(s->registry, instance->number, e);
    if (!rc)
        rc = xlv_registry_get(s->registry, uuid, instance, e);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

static int refuse_suspended(const struct xlv_instance *instance, struct xlv_error *e)
{
    if (!instance->suspended.at_s)
        return 0;
    return xlv_fail(e, XLV_E_REFUSED, "a domain that was saved goes on with instance %" PRIu64 ": "
                    "restore it first, or let the next one be reset (xl-vtpm accept --reset) and "
                    "boot", instance->number);
}

int xlv_states_clear(struct xlv_states *s, const struct xlv_uuid *uuid,
                     struct xlv_instance *instance, struct xlv_error *e)
{
    struct commit c = { .states = s };
    int slots[2] = { -1, -1 };
    uint8_t *old = NULL, *cleared = NULL;
    size_t length = 0;
    int rc = xlv_registry_get(s->registry, uuid, instance, e);

    if (!rc)
        rc = refuse_suspended(instance, e);
    if (!rc)
        rc = take_store(s, uuid, false, instance, slots, e);
    if (!rc)
        rc = xlv_states_read(s, instance, &old, &length, e);
    if (!rc)
        rc = xlv_task(s->settings, XLV_LAUNCH_CLEAR, instance->tpm_version, old, length, &cleared,
                      &c.length, e);
    c.data = cleared;
    if (!rc)
        rc = commit(s, uuid, slots, &c, e);
    xlv_wipe(old, length);
    xlv_wipe(cleared, c.length);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

int xlv_states_clone(struct xlv_states *s, const struct xlv_uuid *source,
                     const struct xlv_uuid *uuid, const char *label, bool renew,
                     struct xlv_instance *instance, struct xlv_error *e)
{
    struct commit c = { .states = s };
    int slots[2] = { -1, -1 };
    uint8_t *state = NULL, *marked = NULL;
    size_t length = 0;
    struct xlv_instance from;
    int rc = xlv_registry_get(s->registry, source, &from, e);

    if (!rc && renew && from.tpm_version == XLV_TPM_1_2)
        rc = xlv_fail(e, XLV_E_REFUSED, "a TPM 1.2 keeps its endorsement key for life, so a clone "
                      "of instance %" PRIu64 " can have --keep-identity only; xl-vtpm create makes "
                      "a new one", from.number);
    if (!rc)
        rc = open_locked(s, source, false, &from, slots, e);
    if (rc == XLV_E_NOT_FOUND && from.life == XLV_LIFE_NEW) {
        xlv_error_clear(e);
        rc = not_made(&from, e);
    }
    if (!rc)
        rc = xlv_states_read(s, &from, &state, &length, e);
    if (!rc && renew)
        rc = xlv_container_mark(state, length, &marked, &c.length, e);
    c.data = marked ? marked : state;
    c.length = marked ? c.length : length;
    if (!rc)
        rc = xlv_registry_adopt(s->registry, uuid, from.tpm_version, label,
                                renew ? XLV_LIFE_NEW : XLV_LIFE_READY, fill, &c, instance, e);
    xlv_wipe(marked, c.length);
    xlv_wipe(state, length);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

int xlv_states_reset(struct xlv_states *s, const struct xlv_uuid *uuid,
                     struct xlv_instance *instance, struct xlv_instance *earlier,
                     struct xlv_error *e)
{
    struct commit c = { .states = s };
    char label[XLV_LABEL_MAX + 1], text[XLV_UUID_TEXT];
    int slots[2] = { -1, -1 };
    uint8_t *state = NULL;
    struct xlv_instance from;
    struct xlv_uuid tombstone;
    int rc = xlv_registry_get(s->registry, uuid, &from, e);

    if (!rc)
        rc = refuse_suspended(&from, e);
    if (!rc && xlv_instance_shared(&from))
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is in %s, where the earlier TPM would "
                      "stay in the way of the new one: xl-vtpm unshare it first", from.number,
                      from.directory);
    if (!rc)
        rc = take_store(s, uuid, false, &from, slots, e);
    if (rc == XLV_E_NOT_FOUND && from.life == XLV_LIFE_NEW) {
        xlv_error_clear(e);
        rc = not_made(&from, e);
    }
    if (!rc)
        rc = xlv_states_read(s, &from, &state, &c.length, e);
    if (!rc) {
        c.data = state;
        xlv_uuid_generate(&tombstone);
        snprintf(label, sizeof(label), "before the reset of %s", xlv_uuid_format(uuid, text));
        rc = xlv_registry_reset(s->registry, uuid, &tombstone, label, fill, &c, instance, earlier,
                                e);
    }
    xlv_wipe(state, c.length);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

/* What a state tells of its TPM; with certificates, of the state that has them, which is *out. */
static int look(struct xlv_states *s, const struct xlv_instance *instance,
                const uint8_t *state, size_t length, const struct xlv_msg_certificates *new,
                struct xlv_endorsement *found, uint8_t **out, size_t *out_length,
                struct xlv_error *e)
{
    struct xlv_msg_certificates *held = malloc(sizeof(*held));
    struct xlv_msg_endorsement keys;
    int rc = held ? 0 : xlv_fail(e, -ENOMEM, "no memory for certificates");

    if (!rc)
        rc = xlv_task_identify(s->settings, instance->tpm_version, state, length, &keys, held, new,
                               out, out_length, e);
    for (size_t i = 0; !rc && new && i < XLV_CERTIFICATES; i++)
        if (new->certificate[i].length)
            held->certificate[i] = new->certificate[i];
    if (!rc)
        rc = xlv_certificates_found(&keys, held, found, e);
    free(held);
    return rc;
}

int xlv_states_identify(struct xlv_states *s, const struct xlv_instance *instance,
                        struct xlv_error *e)
{
    struct xlv_endorsement *found = malloc(sizeof(*found));
    uint8_t *state = NULL, *nothing = NULL;
    size_t length = 0, none;
    int rc = found ? xlv_states_read(s, instance, &state, &length, e)
                   : xlv_fail(e, -ENOMEM, "no memory for certificates");

    if (!rc)
        rc = look(s, instance, state, length, NULL, found, &nothing, &none, e);
    if (!rc)
        rc = xlv_registry_identified(s->registry, instance->number, found, e);
    xlv_wipe(state, length);
    free(found);
    return rc;
}

/* Of which key is it? XLV_EKS: of none. */
static unsigned key_of(const struct xlv_endorsement *found, const struct xlv_certificate *c)
{
    unsigned i = 0;

    while (i < XLV_EKS && strcmp(found->key[i].fingerprint, c->key_fingerprint))
        i++;
    return i;
}

/* *place: where it is wanted; XLV_CERTIFICATES: where its key is. */
static int find_place(const struct xlv_instance *instance, const struct xlv_endorsement *found,
                      const struct xlv_certificate *c, unsigned *place, struct xlv_error *e)
{
    unsigned wanted = *place == XLV_CERTIFICATE_PLATFORM ? XLV_EK_RSA_2048 : *place;
    unsigned key = key_of(found, c);

    if (key == XLV_EKS || (*place == XLV_CERTIFICATE_PLATFORM && key != wanted))
        return xlv_fail(e, XLV_E_REFUSED, "the certificate is for another key (SHA-256 %s) than %s "
                        "of instance %" PRIu64 "; xl-vtpm show %" PRIu64 " tells which it has",
                        c->key_fingerprint, *place == XLV_CERTIFICATE_PLATFORM
                        ? "the RSA endorsement key" : "those", instance->number, instance->number);
    if (wanted != XLV_CERTIFICATES && wanted != key)
        return xlv_fail(e, XLV_E_REFUSED, "the certificate is for the %s key, not for %s: leave "
                        "out --key, or take the certificate of that key",
                        xlv_certificate_name(key), xlv_certificate_name(wanted));
    if (*place == XLV_CERTIFICATES)
        *place = key;
    return 0;
}

/* Under the lock of the store. *found: what the TPM tells, with the certificate. */
static int certify(struct xlv_states *s, const struct xlv_instance *instance, const int slots[2],
                   const struct xlv_certificate *certificate, unsigned place,
                   struct xlv_endorsement *found, struct xlv_error *e)
{
    struct xlv_msg_certificates *new = calloc(1, sizeof(*new));
    struct commit c = { .states = s };
    uint8_t *state = NULL, *certified = NULL;
    size_t length = 0;
    int rc = new ? xlv_states_read(s, instance, &state, &length, e)
                 : xlv_fail(e, -ENOMEM, "no memory for certificates");

    if (!rc)
        rc = look(s, instance, state, length, NULL, found, &certified, &c.length, e);
    if (!rc)
        rc = find_place(instance, found, certificate, &place, e);
    if (rc)
        goto out;
    if (instance->tpm_version == XLV_TPM_1_2) {
        found->certificate[place] = certificate->document;
        goto out;
    }
    new->h = (struct xlv_msg_header){ XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION,
                                      XLV_MSG_CERTIFICATES };
    new->certificate[place].length = (uint32_t)certificate->document.length;
    memcpy(new->certificate[place].der, certificate->document.der, certificate->document.length);
    rc = look(s, instance, state, length, new, found, &certified, &c.length, e);
    c.data = certified;
    if (!rc)
        rc = drop_journal(s, instance, e);
    if (!rc)
        rc = commit(s, &instance->uuid, slots, &c, e);
out:
    xlv_wipe(state, length);
    xlv_wipe(certified, c.length);
    free(new);
    return rc;
}

int xlv_states_certify(struct xlv_states *s, const struct xlv_uuid *uuid,
                       const struct xlv_certificate *certificate, unsigned place, bool *noted,
                       struct xlv_instance *instance, struct xlv_error *e)
{
    struct xlv_endorsement *found = malloc(sizeof(*found));
    int slots[2] = { -1, -1 };
    int rc = found ? xlv_registry_get(s->registry, uuid, instance, e)
                   : xlv_fail(e, -ENOMEM, "no memory for certificates");

    if (!rc)
        rc = refuse_suspended(instance, e);
    if (!rc)
        rc = open_locked(s, uuid, false, instance, slots, e);
    if (!rc)
        rc = certify(s, instance, slots, certificate, place, found, e);
    *noted = !rc && instance->tpm_version == XLV_TPM_1_2;
    if (!rc)
        rc = xlv_registry_identified(s->registry, instance->number, found, e);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    free(found);
    return rc;
}
