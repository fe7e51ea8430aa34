/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instances on storage that several hosts have: see share.h. */
#include "config.h"

#include "libxl-vtpm/share.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend/journal.h"
#include "backend/store.h"
#include "common/bytes.h"
#include "common/fd.h"

/* One of the two places. */
struct side {
    int dirfd, slots[2];
    struct xlv_store *store;
    uint8_t *data;
    size_t length;
};

static void side_deinit(struct side *side)
{
    xlv_wipe(side->data, side->length);
    xlv_store_free(side->store);
    xlv_close(&side->slots[0]);
    xlv_close(&side->slots[1]);
    xlv_close(&side->dirfd);
}

/* Locks and loads what is in its directory; XLV_E_EMPTY: nothing yet. */
static int side_open(struct xlv_states *s, const struct xlv_instance *instance, struct side *side,
                     struct xlv_error *e)
{
    uint64_t generation;
    int rc = xlv_store_open(side->dirfd, side->slots, e);

    if (!rc)
        rc = xlv_keys_lock_store(instance->number, side->slots, e);
    if (!rc)
        rc = xlv_keys_open_store(s->keys, &instance->uuid, side->slots, &side->store, e);
    return rc ? rc : xlv_store_load(side->store, &side->data, &side->length, &generation, e);
}

/* Makes the directory on shared storage, durably, where it is not there. */
static int make_place(const struct xlv_settings *settings, const char *place, int *dirfd,
                      struct xlv_error *e)
{
    int parent XLV_CLOSE = open(settings->shared_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (parent < 0)
        return xlv_fail(e, -errno, "cannot open shared-dir %s: %s; is it mounted?",
                        settings->shared_dir, strerror(errno));
    if (mkdir(place, 0700) && errno != EEXIST)
        return xlv_fail(e, -errno, "cannot make %s: %s", place, strerror(errno));
    *dirfd = open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*dirfd < 0 || fsync(*dirfd) || fsync(parent))
        return xlv_fail(e, -errno, "cannot make %s: %s", place, strerror(errno));
    return 0;
}

static int check(struct xlv_states *s, const struct xlv_instance *instance, struct xlv_error *e)
{
    char path[PATH_MAX];

    if (instance->deleted_s)
        return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is deleted: xl-vtpm undelete it "
                        "first", instance->number);
    if (instance->handover != XLV_HANDOVER_HELD)
        return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is %s (other host: %s)",
                        instance->number, xlv_handover_name(instance->handover),
                        instance->handover_peer);
    xlv_settings_journal(s->settings, instance->number, path);
    if (xlv_journal_has_record(path))
        return xlv_fail(e, XLV_E_IN_USE, "the last boot of its domain did not end in order: start "
                        "the domain once and shut it down");
    return 0;
}

/* What is in the instance's own directory while it is elsewhere, as the registry says: of a share
 * that was killed, or of a backup. */
static int discard(const struct xlv_instance *instance, int dirfd, struct xlv_error *e)
{
    static const char *const names[] = { XLV_STORE_SLOT_0, XLV_STORE_SLOT_1 };

    for (int i = 0; i < 2; i++)
        if (unlinkat(dirfd, names[i], 0) && errno != ENOENT)
            return xlv_fail(e, -errno, "the old %s in the own directory of instance %" PRIu64
                            " cannot be removed: %s", names[i], instance->number, strerror(errno));
    return 0;
}

/* Puts the state into the other place, if it is not there by an earlier try. */
static int copy(struct xlv_states *s, const struct xlv_instance *instance, const struct side *from,
                struct side *to, const char *place, struct xlv_error *e)
{
    uint64_t generation;
    int rc = xlv_store_create(to->dirfd, e);

    if (!rc)
        rc = side_open(s, instance, to, e);
    if (rc == XLV_E_EMPTY) {
        xlv_error_clear(e);
        return xlv_store_commit(to->store, from->data, from->length, &generation, e);
    }
    if (rc > 0 && rc != XLV_E_IN_USE)
        xlv_error_clear(e);
    else if (rc)
        return rc;
    else if (to->length == from->length && !CRYPTO_memcmp(to->data, from->data, to->length))
        return 0;
    return xlv_fail(e, XLV_E_CONFLICT, "%s holds another state already%s: if no host has that TPM, "
                    "move the directory away", place, rc ? ", which this host's master key does "
                    "not open or which is damaged" : "");
}

int xlv_share(struct xlv_states *s, const struct xlv_uuid *uuid, bool shared,
              struct xlv_instance *instance, struct xlv_error *e)
{
    struct side from = { .dirfd = -1, .slots = { -1, -1 } }, to = from;
    char place[XLV_DIRECTORY_MAX + 1] = "", path[PATH_MAX];
    struct xlv_instance before;
    int rc = xlv_registry_get(s->registry, uuid, instance, e);

    if (!rc && xlv_instance_shared(instance) == shared)
        rc = xlv_fail(e, XLV_E_EXISTS, "instance %" PRIu64 " is in %s already", instance->number,
                      xlv_instance_path(s->settings->state_dir, instance, path));
    if (!rc && shared)
        rc = xlv_settings_shared(s->settings, uuid, place, e);
    if (!rc)
        rc = xlv_registry_directory(s->registry, instance, &from.dirfd, e);
    if (!rc)
        rc = side_open(s, instance, &from, e);
    if (rc == XLV_E_NOT_FOUND && instance->life == XLV_LIFE_NEW)
        rc = xlv_fail(e, XLV_E_EMPTY, "the TPM of instance %" PRIu64 " was not made yet; that "
                      "happens at its first use", instance->number);
    before = *instance;
    if (!rc)
        rc = xlv_registry_get(s->registry, uuid, instance, e);
    if (!rc)
        rc = check(s, instance, e);
    if (!rc && strcmp(before.directory, instance->directory))
        rc = xlv_fail(e, XLV_E_CONFLICT, "it was put elsewhere just now");
    if (!rc && shared)
        rc = make_place(s->settings, place, &to.dirfd, e);
    else if (!rc)
        rc = xlv_registry_own_directory(s->registry, instance, &to.dirfd, e);
    if (!rc && !shared)
        rc = discard(instance, to.dirfd, e);
    if (!rc)
        rc = copy(s, instance, &from, &to, shared ? place : "its own directory", e);
    if (!rc)
        rc = xlv_registry_place(s->registry, instance->number, place, e);
    if (!rc)
        rc = xlv_registry_get(s->registry, uuid, instance, e);
    if (!rc) {
        /* the registry says that these do not count any more */
        (void)unlinkat(from.dirfd, XLV_STORE_SLOT_0, 0);
        (void)unlinkat(from.dirfd, XLV_STORE_SLOT_1, 0);
        if (!shared)
            (void)rmdir(before.directory);
    }
    side_deinit(&from);
    side_deinit(&to);
    return rc;
}
