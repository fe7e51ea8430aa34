/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who holds which instance: see instances.h. */
#include "config.h"

#include "libxl-vtpm/instances.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "backend/journal.h"
#include "backend/store.h"
#include "common/bytes.h"
#include "common/fd.h"
#include "libxl-vtpm/ca.h"

/* Processes that make TPMs at the same time: RSA keys take a processor each. */
#define MAKERS_MAX 4u

/* A guest that has migrated here waits at most this much longer for its TPM. */
#define ARRIVAL_US (20 * 1000ull)

struct xlv_instances {
    struct xlv_instances_config c;
    void *tree; /* of struct xlv_slot, by number */
    struct xlv_ca *ca; /* NULL: not needed so far, or none */
    unsigned makers;
    struct xlv_slot *make_first, *make_last;
};

static int by_number(const void *a, const void *b)
{
    const struct xlv_slot *x = a, *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

int xlv_instances_new(struct xlv_instances **out, const struct xlv_instances_config *config,
                      struct xlv_error *e)
{
    struct xlv_instances *is = calloc(1, sizeof(*is));

    *out = NULL;
    if (!is)
        return xlv_fail(e, -ENOMEM, "no memory for the instances");
    is->c = *config;
    *out = is;
    return 0;
}

static void slot_free(void *p)
{
    struct xlv_slot *slot = p;

    sd_event_source_disable_unref(slot->make_retry);
    sd_event_source_disable_unref(slot->keep_retry);
    sd_event_source_disable_unref(slot->arrival);
    if (slot->maker)
        xlv_child_abandon(slot->maker);
    if (slot->keeper)
        xlv_child_abandon(slot->keeper);
    free(slot);
}

void xlv_instances_free(struct xlv_instances *is)
{
    if (!is)
        return;
    tdestroy(is->tree, slot_free);
    xlv_ca_free(is->ca);
    free(is);
}

struct xlv_slot *xlv_instances_find(struct xlv_instances *is, uint64_t number)
{
    struct xlv_slot key = { .number = number };
    struct xlv_slot **found = tfind(&key, &is->tree, by_number);

    return found ? *found : NULL;
}

int xlv_instances_slot(struct xlv_instances *is, const struct xlv_instance *info,
                       struct xlv_slot **out, struct xlv_error *e)
{
    struct xlv_slot *slot = xlv_instances_find(is, info->number);

    if (!slot) {
        slot = calloc(1, sizeof(*slot));
        if (!slot)
            return xlv_fail(e, -ENOMEM, "no memory for instance %" PRIu64, info->number);
        slot->number = info->number;
        slot->owner = is;
        if (!tsearch(slot, &is->tree, by_number)) {
            free(slot);
            return xlv_fail(e, -ENOMEM, "no memory for instance %" PRIu64, info->number);
        }
    }
    slot->info = *info;
    slot->subject = (struct xlv_log_subject){
        .domid = -1, .devid = -1, .uuid = &slot->info.uuid, .instance = slot->number,
    };
    *out = slot;
    return 0;
}

/* --- files ------------------------------------------------------------------- */

/*
 * With the lock held: does this host have the instance? Whoever gives it away holds the lock
 * from the offer until the outcome is written down. So an offer that is found here is nobody's
 * any more, and as it was never made good, the other host may not serve it: it is taken back.
 */
static int still_ours(struct xlv_instances *is, const struct xlv_slot *slot,
                      const char *directory, struct xlv_error *e)
{
    struct xlv_instance now;
    int rc = xlv_registry_get_number(is->c.registry, slot->number, &now, e);

    if (rc)
        return rc;
    if (strcmp(now.directory, directory))
        return xlv_fail(e, XLV_E_IN_USE, "instance %" PRIu64 " was moved from %s to %s just now",
                        slot->number, directory, now.directory);
    if (now.deleted_s)
        return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " was deleted; xl-vtpm undelete "
                        "brings it back", slot->number);
    switch (now.handover) {
    case XLV_HANDOVER_HELD:
        return 0;
    case XLV_HANDOVER_DEPARTING:
        rc = xlv_registry_move(is->c.registry, slot->number, now.handover_token,
                               XLV_HANDOVER_DEPARTING, XLV_HANDOVER_HELD, e);
        if (!rc)
            xlv_log_about(&slot->subject, XLV_LOG_NOTICE,
                          "its handover to %s was broken off; it stays here", now.handover_peer);
        return rc;
    default:
        return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is %s (other host: %s)",
                        slot->number, xlv_handover_name(now.handover), now.handover_peer);
    }
}

bool xlv_instances_on_its_way(struct xlv_instances *is, const struct xlv_instance *instance)
{
    int fd XLV_CLOSE = -1;

    if (xlv_registry_own_directory(is->c.registry, instance, &fd, NULL))
        return false;
    return flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
}

static int open_instance(struct xlv_instances *is, const struct xlv_slot *slot, bool create,
                         int slots[2], struct xlv_error *e)
{
    struct xlv_instance now;
    int dirfd XLV_CLOSE = -1;
    int rc;

    slots[0] = slots[1] = -1;
    /* where it is now */
    rc = xlv_registry_get_number(is->c.registry, slot->number, &now, e);
    if (!rc)
        rc = xlv_registry_directory(is->c.registry, &now, &dirfd, e);
    if (!rc && xlv_instances_on_its_way(is, &now))
        rc = xlv_fail(e, XLV_E_IN_USE, "instance %" PRIu64 " is on its way to another host",
                      slot->number);
    if (rc)
        return rc;
    if (create) {
        rc = xlv_store_create(dirfd, e);
        if (rc)
            return rc;
    }
    rc = xlv_store_open(dirfd, slots, e);
    if (rc)
        return rc;
    if (flock(slots[0], LOCK_EX | LOCK_NB) < 0) {
        char path[PATH_MAX];
        int saved = errno;

        xlv_close(&slots[0]);
        xlv_close(&slots[1]);
        if (saved == EWOULDBLOCK)
            return xlv_fail(e, XLV_E_IN_USE,
                            "the state of instance %" PRIu64 " (%s) is in use by another "
                            "process", slot->number,
                            xlv_instance_path(is->c.settings->state_dir, &now, path));
        return xlv_fail(e, -saved, "cannot lock the state of instance %" PRIu64 ": %s",
                        slot->number, strerror(saved));
    }
    rc = still_ours(is, slot, now.directory, e);
    if (rc) {
        xlv_close(&slots[0]);
        xlv_close(&slots[1]);
    }
    return rc;
}

static void journal_name(const struct xlv_slot *slot, char name[32])
{
    snprintf(name, 32, "%" PRIu64, slot->number);
}

static int open_journal(struct xlv_instances *is, const struct xlv_slot *slot, int *fd,
                        struct xlv_error *e)
{
    char name[32];

    journal_name(slot, name);
    *fd = openat(is->c.journal_dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd < 0)
        return xlv_fail(e, -errno, "cannot open the journal %s/journal/%s: %s",
                        is->c.settings->run_dir, name, strerror(errno));
    return 0;
}

void xlv_instances_drop_journal(struct xlv_instances *is, const struct xlv_slot *slot)
{
    char name[32];

    journal_name(slot, name);
    (void)unlinkat(is->c.journal_dirfd, name, 0);
}

/* A uid of its own, or the one that all share. */
static int choose_user(struct xlv_instances *is, const struct xlv_slot *slot,
                       struct xlv_msg_launch *launch, struct xlv_error *e)
{
    const struct xlv_settings *settings = is->c.settings;
    struct xlv_error why = XLV_ERROR_INIT;
    int rc;

    launch->uid = is->c.uid;
    launch->gid = is->c.gid;
    if (geteuid() != 0 || !settings->backend_uid_base)
        return 0;
    rc = xlv_registry_uid(is->c.registry, slot->number, settings->backend_uid_base,
                          settings->backend_uid_count, &launch->uid, &why);
    if (!rc)
        launch->gid = launch->uid;
    else if (rc > 0)
        return xlv_fail(e, rc, "%s", why.text);
    else
        /* a full or read-only disk shall not keep a guest from its TPM */
        xlv_log_about(&slot->subject, XLV_LOG_WARNING,
                      "its backend runs as backend-user, because no uid of its own can be "
                      "recorded: %s", why.text);
    return 0;
}

/* slots: opened and locked, for that is when their key is certain (keys.h) */
static int fill_launch(struct xlv_instances *is, const struct xlv_slot *slot,
                       enum xlv_launch_mode mode, const int slots[2],
                       struct xlv_msg_launch *launch, struct xlv_error *e)
{
    int rc;

    memset(launch, 0, sizeof(*launch));
    launch->h.magic = XLV_LAUNCH_MAGIC;
    launch->h.version = XLV_LAUNCH_VERSION;
    launch->h.type = XLV_MSG_LAUNCH;
    launch->mode = mode;
    launch->tpm_version = slot->info.tpm_version;
    launch->uuid = slot->info.uuid;
    launch->instance = slot->number;
    launch->max_locality = is->c.settings->max_locality;
    launch->banks = is->c.settings->pcr_banks;
    rc = choose_user(is, slot, launch, e);
    if (rc)
        return rc;
    launch->log_level = xlv_log_level();
    rc = xlv_keys_of_store(is->c.keys, &slot->info.uuid, slots, launch->instance_key, NULL, e);
    if (!rc && mode != XLV_LAUNCH_MANUFACTURE)
        rc = xlv_keys_journal(is->c.keys, &slot->info.uuid, launch->journal_key, e);
    return rc;
}

/* --- event logs -------------------------------------------------------------- */

static void raw_name(char name[32], const struct xlv_slot *slot)
{
    snprintf(name, 32, "%" PRIu64 ".raw", slot->number);
}

/* -1 where nobody wants one, or (logged) it cannot be had: that keeps no guest from its TPM. */
static int open_log(struct xlv_instances *is, const struct xlv_slot *slot, bool measured)
{
    char name[32];
    int fd;

    raw_name(name, slot);
    /* a boot that is not measured ends the log of the one before, where there is one */
    fd = openat(is->c.log_dirfd, name, O_RDWR | O_CLOEXEC | (measured ? O_CREAT : 0), 0600);
    if (fd < 0 && (measured || errno != ENOENT))
        xlv_log_about(&slot->subject, XLV_LOG_ERROR, "no event log in %s/eventlog: %s",
                      is->c.settings->run_dir, strerror(errno));
    return fd;
}

void xlv_instances_event_log(struct xlv_instances *is, const struct xlv_slot *slot,
                             uint8_t bytes[XLV_EVENTLOG_MAX], size_t *length)
{
    uint8_t header[XLV_LOG_FILE_HEADER] = { 0 };
    struct xlv_bytes c = xlv_bytes_reader(header, sizeof(header));
    int raw XLV_CLOSE = -1, fd XLV_CLOSE = -1;
    char name[32], next[32];
    uint32_t magic, size;
    int rc;

    *length = 0;
    raw_name(name, slot);
    raw = openat(is->c.log_dirfd, name, O_RDONLY | O_CLOEXEC);
    if (raw < 0)
        return;
    if (xlv_pread_all(raw, header, sizeof(header), 0))
        return;
    magic = xlv_get_u32(&c);
    size = xlv_get_u32(&c);
    if (magic != XLV_LOG_FILE_MAGIC || size > XLV_EVENTLOG_MAX ||
        xlv_pread_all(raw, bytes, size, sizeof(header)))
        return;
    *length = size;
    snprintf(name, sizeof(name), "%" PRIu64, slot->number);
    if (!size) {
        (void)unlinkat(is->c.log_dirfd, name, 0);
        return;
    }
    snprintf(next, sizeof(next), "%" PRIu64 ".new", slot->number);
    fd = openat(is->c.log_dirfd, next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    rc = fd < 0 ? -errno : xlv_write_all(fd, bytes, size);
    if (!rc && renameat(is->c.log_dirfd, next, is->c.log_dirfd, name) < 0)
        rc = -errno;
    if (rc)
        xlv_log_about(&slot->subject, XLV_LOG_ERROR, "%s/eventlog/%s cannot be written: %s",
                      is->c.settings->run_dir, name, strerror(-rc));
}

/* Adds to launch and fds, of which there are *nfds. The log is closed by the caller. */
static void add_measurement(struct xlv_instances *is, const struct xlv_slot *slot,
                            const struct xlv_device_launch *device, struct xlv_msg_launch *launch,
                            int fds[XLV_LAUNCH_FDS_MAX], size_t *nfds, int *log_fd)
{
    const struct xlv_booted *booted = device->booted;

    launch->measure = device->measure;
    *log_fd = open_log(is, slot, device->measure != XLV_MEASURE_OFF);
    launch->has_log = *log_fd >= 0;
    if (launch->has_log)
        fds[(*nfds)++] = *log_fd;
    if (device->measure == XLV_MEASURE_ERROR)
        snprintf(launch->cmdline, sizeof(launch->cmdline), "%s", device->unmeasured);
    if (device->measure != XLV_MEASURE_FILES)
        return;
    memcpy(launch->kernel, booted->kernel, sizeof(launch->kernel));
    memcpy(launch->ramdisk, booted->ramdisk, sizeof(launch->ramdisk));
    memcpy(launch->cmdline, booted->cmdline, sizeof(launch->cmdline));
    fds[(*nfds)++] = booted->kernel_fd;
    launch->has_ramdisk = booted->ramdisk_fd >= 0;
    if (launch->has_ramdisk)
        fds[(*nfds)++] = booted->ramdisk_fd;
}

/* --- serving ----------------------------------------------------------------- */

int xlv_instances_launch(struct xlv_instances *is, struct xlv_slot *slot,
                         const struct xlv_device_launch *device, struct xlv_child **child,
                         struct xlv_error *e)
{
    int fds[XLV_LAUNCH_FDS_MAX] = { -1, -1, -1, -1 }, log_fd XLV_CLOSE = -1;
    struct xlv_msg_launch launch;
    size_t nfds = 4;
    int rc;

    *child = NULL;
    rc = open_instance(is, slot, false, fds, e);
    if (rc)
        return rc;
    rc = open_journal(is, slot, &fds[2], e);
    if (!rc)
        rc = xlv_listener_make(is->c.listener_dirfd, device->domid, device->devid, &fds[3], e);
    if (!rc)
        rc = fill_launch(is, slot, XLV_LAUNCH_SERVE, fds, &launch, e);
    if (!rc) {
        launch.boot = device->boot;
        launch.domid = device->domid;
        launch.devid = device->devid;
        launch.ring_ref = device->ring.ring_ref;
        launch.event_channel = device->ring.event_channel;
        add_measurement(is, slot, device, &launch, fds, &nfds, &log_fd);
        rc = xlv_child_spawn(child, is->c.supervisor, &launch, fds, nfds, device->subject,
                             device->ops, device->opaque, e);
    }
    explicit_bzero(&launch, sizeof(launch));
    for (size_t i = 0; i < 4; i++)
        xlv_close(&fds[i]);
    if (rc)
        xlv_listener_remove(is->c.listener_dirfd, device->domid, device->devid);
    return rc;
}

/* --- processes that serve nobody: manufacture and keep -------------------------- */

static void on_task_ready(struct xlv_child *child, void *opaque)
{
    /* the end of the process counts: until then it holds the lock */
    (void)child;
    (void)opaque;
}

static void on_task_status(struct xlv_child *child, const struct xlv_msg_status *status,
                           void *opaque)
{
    (void)child;
    (void)status;
    (void)opaque;
}

/* False: not started, *failure says why, as if it had ended. */
static bool start_task(struct xlv_instances *is, struct xlv_slot *slot, enum xlv_launch_mode mode,
                       struct xlv_child **child, const struct xlv_child_ops *ops,
                       struct xlv_child_end *failure)
{
    bool makes = mode == XLV_LAUNCH_MANUFACTURE;
    int fds[3] = { -1, -1, -1 }, rc;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_msg_launch launch;

    rc = open_instance(is, slot, makes, fds, &e);
    if (!rc && !makes)
        rc = open_journal(is, slot, &fds[2], &e);
    if (!rc)
        rc = fill_launch(is, slot, mode, fds, &launch, &e);
    if (!rc) {
        launch.domid = makes ? 0 : slot->info.suspended.domid;
        rc = xlv_child_spawn(child, is->c.supervisor, &launch, fds, makes ? 2 : 3, &slot->subject,
                             ops, slot, &e);
    }
    explicit_bzero(&launch, sizeof(launch));
    for (size_t i = 0; i < 3; i++)
        xlv_close(&fds[i]);
    if (!rc)
        return true;
    *failure = (struct xlv_child_end){ .how = XLV_CHILD_NOT_STARTED };
    if (rc > 0 && rc != XLV_E_IN_USE) {
        failure->how = XLV_CHILD_FAILED;
        failure->code = rc == XLV_E_NOT_FOUND ? XLV_E_CORRUPT : rc;
    }
    snprintf(failure->text, sizeof(failure->text), "%s", e.text[0] ? e.text : xlv_strerror(rc));
    return false;
}

/* --- claims ------------------------------------------------------------------ */

static void keep(struct xlv_instances *is, struct xlv_slot *slot);

/* Might the journal have to say something about a domain that was suspended? */
static bool to_be_kept(const struct xlv_slot *slot)
{
    return slot->info.suspended.at_s && slot->kept_s != slot->info.suspended.at_s;
}

static void grant(struct xlv_instances *is, struct xlv_slot *slot);

static int on_arrival(sd_event_source *source, uint64_t usec, void *opaque)
{
    struct xlv_slot *slot = opaque;

    (void)usec;
    sd_event_source_disable_unref(source);
    slot->arrival = NULL;
    grant(slot->owner, slot);
    return 0;
}

/* Whether the claim waits. What it waits for is a change of the registry by another process. */
static bool await_arrival(struct xlv_slot *slot)
{
    uint64_t now = 0;

    if (slot->arrival)
        return true;
    (void)sd_event_now(slot->owner->c.event, CLOCK_MONOTONIC, &now);
    return sd_event_add_time(slot->owner->c.event, &slot->arrival, CLOCK_MONOTONIC,
                             now + ARRIVAL_US, 1000, on_arrival, slot) >= 0;
}

static void grant(struct xlv_instances *is, struct xlv_slot *slot)
{
    struct xlv_claim *claim = slot->holder;
    struct xlv_instance now;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    if (!claim || claim->granted)
        return;
    /* an administrator may have changed it while this claim waited */
    rc = xlv_registry_get_number(is->c.registry, slot->number, &now, &e);
    if (rc) {
        claim->on_failed(claim, e.text[0] ? e.text : xlv_strerror(rc));
        return;
    }
    slot->info = now;
    if ((now.handover == XLV_HANDOVER_ARRIVING ||
         (now.handover == XLV_HANDOVER_DEPARTED && xlv_instances_on_its_way(is, &now))) &&
        await_arrival(slot))
        return;
    if (now.handover == XLV_HANDOVER_DEPARTED || now.handover == XLV_HANDOVER_ARRIVING) {
        claim->on_failed(claim, "its instance is on another host, or on its way");
        return;
    }
    switch (slot->info.life) {
    case XLV_LIFE_READY:
        if (to_be_kept(slot)) {
            keep(is, slot);
            break;
        }
        claim->granted = true;
        claim->on_granted(claim);
        break;
    case XLV_LIFE_NEW:
        xlv_instances_manufacture(is, slot);
        break;
    default:
        claim->on_failed(claim, "its instance is quarantined; see the log for the cause, mend it, "
                                "then let it out with `xl-vtpm release`");
        break;
    }
}

void xlv_claim_take(struct xlv_instances *is, struct xlv_slot *slot, struct xlv_claim *claim)
{
    if (claim->slot)
        return;
    claim->slot = slot;
    claim->held = claim->granted = false;
    claim->next = claim->previous = NULL;
    if (!slot->holder) {
        slot->holder = claim;
        claim->held = true;
        /* what went wrong with another guest's ring is not this one's */
        slot->backoff = (struct xlv_backoff){ .failures = 0 };
        grant(is, slot);
        return;
    }
    claim->previous = slot->last;
    if (slot->last)
        slot->last->next = claim;
    else
        slot->first = claim;
    slot->last = claim;
}

void xlv_claim_release(struct xlv_instances *is, struct xlv_claim *claim)
{
    struct xlv_slot *slot = claim->slot;
    struct xlv_claim *next;

    if (!slot)
        return;
    claim->slot = NULL;
    if (!claim->held) {
        if (claim->previous)
            claim->previous->next = claim->next;
        else
            slot->first = claim->next;
        if (claim->next)
            claim->next->previous = claim->previous;
        else
            slot->last = claim->previous;
        return;
    }
    claim->held = claim->granted = false;
    slot->holder = NULL;
    next = slot->first;
    if (next) {
        slot->first = next->next;
        if (slot->first)
            slot->first->previous = NULL;
        else
            slot->last = NULL;
        next->next = next->previous = NULL;
        slot->holder = next;
        next->held = true;
        slot->backoff = (struct xlv_backoff){ .failures = 0 };
        grant(is, slot);
    }
}

void xlv_instances_quarantine(struct xlv_instances *is, struct xlv_slot *slot, const char *reason)
{
    struct xlv_error e = XLV_ERROR_INIT;

    slot->info.life = XLV_LIFE_QUARANTINED;
    if (xlv_registry_set_life(is->c.registry, slot->number, XLV_LIFE_QUARANTINED, &e))
        xlv_log_about(&slot->subject, XLV_LOG_ERROR, "cannot note the quarantine: %s", e.text);
    xlv_log_about(&slot->subject, XLV_LOG_ERROR,
                  "quarantined, it is not served until `xl-vtpm release %" PRIu64 "`: %s",
                  slot->number, reason);
}

/* --- suspended domains ----------------------------------------------------------- */

int xlv_instances_suspended(struct xlv_instances *is, struct xlv_slot *slot,
                            const struct xlv_suspended *suspended, struct xlv_error *e)
{
    int rc = xlv_registry_suspended(is->c.registry, slot->number, suspended, e);

    return rc ? rc : xlv_registry_get_number(is->c.registry, slot->number, &slot->info, e);
}

void xlv_instances_kept(struct xlv_instances *is, struct xlv_slot *slot, bool done)
{
    if (done) {
        slot->kept_s = slot->info.suspended.at_s;
        xlv_instances_drop_journal(is, slot);
    } else if (to_be_kept(slot)) {
        keep(is, slot);
    }
}

static int on_keep_retry(sd_event_source *source, uint64_t usec, void *opaque)
{
    struct xlv_slot *slot = opaque;

    (void)usec;
    sd_event_source_disable_unref(source);
    slot->keep_retry = NULL;
    keep(slot->owner, slot);
    return 0;
}

/* Whatever comes of it, no claim waits any longer; a restored domain is refused by its own
 * process if the state is not there. */
static void keep_ended(struct xlv_slot *slot)
{
    slot->kept_s = slot->info.suspended.at_s;
    slot->backoff = (struct xlv_backoff){ .failures = 0 };
    grant(slot->owner, slot);
}

static void keep_failed(struct xlv_slot *slot, const struct xlv_child_end *end)
{
    struct xlv_instances *is = slot->owner;
    uint64_t delay, now = 0;

    if (xlv_backoff_judge(&slot->backoff, end, &delay) == XLV_VERDICT_RETRY) {
        xlv_log_about(&slot->subject, XLV_LOG_WARNING,
                      "the state of the suspended domain %u is not kept yet: %s; another try "
                      "follows",
                      slot->info.suspended.domid, end->text);
        if (delay < XLV_RETRY_FIRST_US)
            delay = XLV_RETRY_FIRST_US;
        (void)sd_event_now(is->c.event, CLOCK_MONOTONIC, &now);
        if (sd_event_add_time(is->c.event, &slot->keep_retry, CLOCK_MONOTONIC, now + delay, 1000,
                              on_keep_retry, slot) >= 0)
            return;
    }
    xlv_log_about(&slot->subject, XLV_LOG_ERROR,
                  "the state of the suspended domain %u cannot be kept: %s; restored, that domain "
                  "gets no TPM until `xl-vtpm accept` says which",
                  slot->info.suspended.domid, end->text);
    keep_ended(slot);
}

static void on_keeper_gone(struct xlv_child *child, const struct xlv_child_end *end, void *opaque)
{
    struct xlv_slot *slot = opaque;

    (void)child;
    slot->keeper = NULL;
    if (end->how == XLV_CHILD_CLEAN) {
        char path[PATH_MAX];

        /* while nobody else can have it; what it did not clear is of another boot */
        xlv_settings_journal(slot->owner->c.settings, slot->number, path);
        if (!xlv_journal_has_record(path))
            xlv_instances_drop_journal(slot->owner, slot);
        keep_ended(slot);
    } else {
        keep_failed(slot, end);
    }
}

static const struct xlv_child_ops keeper_ops = {
    .ready = on_task_ready,
    .status = on_task_status,
    .gone = on_keeper_gone,
};

/* It finds out itself whether there is anything to do; without a journal, as after a boot of the
 * host, there is nothing. */
static void keep(struct xlv_instances *is, struct xlv_slot *slot)
{
    struct xlv_child_end failure;
    char name[32];

    journal_name(slot, name);
    if (!slot->keeper && !slot->keep_retry && faccessat(is->c.journal_dirfd, name, F_OK, 0) &&
        errno == ENOENT) {
        keep_ended(slot);
        return;
    }
    if (!slot->keeper && !slot->keep_retry &&
        !start_task(is, slot, XLV_LAUNCH_KEEP, &slot->keeper, &keeper_ops, &failure))
        keep_failed(slot, &failure);
}

/* --- manufacture --------------------------------------------------------------- */

static void make_more(struct xlv_instances *is);

static void fail_claims(struct xlv_slot *slot, const char *text)
{
    if (slot->holder)
        slot->holder->on_failed(slot->holder, text);
    for (struct xlv_claim *c = slot->first; c; c = c->next)
        c->on_failed(c, text);
}

static int on_make_retry(sd_event_source *source, uint64_t usec, void *opaque)
{
    struct xlv_slot *slot = opaque;

    (void)usec;
    sd_event_source_disable_unref(source);
    slot->make_retry = NULL;
    xlv_instances_manufacture(slot->owner, slot);
    return 0;
}

static void make_failed(struct xlv_slot *slot, const struct xlv_child_end *end)
{
    struct xlv_instances *is = slot->owner;
    char text[XLV_TEXT_MAX + 64];
    uint64_t delay, now = 0;

    snprintf(text, sizeof(text), "its TPM could not be manufactured: %s", end->text);
    switch (xlv_backoff_judge(&slot->backoff, end, &delay)) {
    case XLV_VERDICT_RETRY:
        xlv_log_about(&slot->subject, XLV_LOG_WARNING, "%s; another try follows", text);
        /* also where the first retry of a serving process would come at once */
        if (delay < XLV_RETRY_FIRST_US)
            delay = XLV_RETRY_FIRST_US;
        (void)sd_event_now(is->c.event, CLOCK_MONOTONIC, &now);
        if (sd_event_add_time(is->c.event, &slot->make_retry, CLOCK_MONOTONIC, now + delay, 1000,
                              on_make_retry, slot) < 0)
            fail_claims(slot, text);
        return;
    case XLV_VERDICT_QUARANTINE:
        xlv_instances_quarantine(is, slot, text);
        fail_claims(slot, text);
        return;
    case XLV_VERDICT_FATAL:
        xlv_log_about(&slot->subject, XLV_LOG_ERROR, "%s", text);
        fail_claims(slot, text);
        return;
    }
}

static void on_maker_gone(struct xlv_child *child, const struct xlv_child_end *end, void *opaque)
{
    struct xlv_slot *slot = opaque;
    struct xlv_instances *is = slot->owner;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    (void)child;
    slot->maker = NULL;
    is->makers--;
    if (end->how == XLV_CHILD_CLEAN) {
        rc = xlv_registry_set_life(is->c.registry, slot->number, XLV_LIFE_READY, &e);
        if (rc) {
            struct xlv_child_end failure = { .how = XLV_CHILD_NOT_STARTED, .code = rc };

            snprintf(failure.text, sizeof(failure.text), "%s",
                     e.text[0] ? e.text : xlv_strerror(rc));
            make_failed(slot, &failure);
        } else {
            slot->info.life = XLV_LIFE_READY;
            slot->backoff = (struct xlv_backoff){ .failures = 0 };
            xlv_log_about(&slot->subject, XLV_LOG_NOTICE, "its TPM %s is manufactured (%.1f s)",
                          xlv_tpm_version_name(slot->info.tpm_version),
                          (double)end->uptime_us / 1e6);
            grant(is, slot);
        }
    } else {
        make_failed(slot, end);
    }
    make_more(is);
}

/* The CA, opened when it is first needed: so a mistake with it can be mended while we run. */
static int open_ca(struct xlv_instances *is, struct xlv_error *e)
{
    struct xlv_error why = XLV_ERROR_INIT;
    bool any;
    int rc;

    if (is->ca)
        return 0;
    rc = xlv_ca_open(&is->ca, is->c.settings, &why);
    if (rc != XLV_E_NOT_FOUND)
        return rc ? xlv_fail(e, rc, "%s", why.text) : 0;
    /* one that is gone is not replaced in silence: others trust it */
    rc = xlv_registry_signed(is->c.registry, &any, e);
    if (!rc && any)
        rc = xlv_fail(e, XLV_E_NOT_FOUND, "the CA that signed for the TPMs of this host is gone: "
                      "put %s and %s back, or make a new one with `xl-vtpm ca init`",
                      is->c.settings->ca_key, is->c.settings->ca_certificate);
    if (!rc)
        rc = xlv_ca_make(is->c.settings, e);
    if (!rc)
        rc = xlv_ca_open(&is->ca, is->c.settings, e);
    if (!rc)
        xlv_log(XLV_LOG_NOTICE, "made a CA for the TPMs of this host: %s, SHA-256 %s",
                xlv_ca_subject(is->ca), xlv_ca_fingerprint(is->ca));
    return rc;
}

/* Nothing of it leaves this process before the registry has it, durably. */
static int endorse(struct xlv_slot *slot, const struct xlv_msg_endorsement *keys,
                   struct xlv_msg_certificates *m, struct xlv_error *e)
{
    static struct xlv_endorsement endorsement; /* large for a stack */
    struct xlv_instances *is = slot->owner;
    int rc;

    if (!is->c.settings->ca_key[0]) {
        rc = xlv_ca_keys(keys, &endorsement, e);
    } else {
        rc = open_ca(is, e);
        if (!rc)
            rc = xlv_ca_endorse(is->ca, slot->info.tpm_version, keys, &endorsement, e);
    }
    if (!rc)
        rc = xlv_registry_endorse(is->c.registry, slot->number, &endorsement, e);
    for (unsigned i = 0; !rc && i < XLV_CERTIFICATES; i++) {
        m->certificate[i].length = (uint32_t)endorsement.certificate[i].length;
        memcpy(m->certificate[i].der, endorsement.certificate[i].der,
               endorsement.certificate[i].length);
    }
    return rc;
}

static void on_endorsement(struct xlv_child *child, const struct xlv_msg_endorsement *keys,
                           void *opaque)
{
    static struct xlv_msg_certificates m; /* large for a stack */
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    memset(&m, 0, sizeof(m));
    rc = endorse(opaque, keys, &m, &e);
    if (rc) {
        /* whatever it is, it is no fault of the instance's and may be mended while we run */
        m.code = -EAGAIN;
        snprintf(m.text, sizeof(m.text), "no certificates for it: %s",
                 e.text[0] ? e.text : xlv_strerror(rc));
    }
    xlv_child_certify(child, &m);
}

static const struct xlv_child_ops maker_ops = {
    .ready = on_task_ready,
    .status = on_task_status,
    .endorsement = on_endorsement,
    .gone = on_maker_gone,
};

static void make(struct xlv_instances *is, struct xlv_slot *slot)
{
    struct xlv_child_end failure;

    if (start_task(is, slot, XLV_LAUNCH_MANUFACTURE, &slot->maker, &maker_ops, &failure))
        is->makers++;
    else
        make_failed(slot, &failure);
}

static void make_more(struct xlv_instances *is)
{
    while (is->makers < MAKERS_MAX && is->make_first) {
        struct xlv_slot *slot = is->make_first;

        is->make_first = slot->make_next;
        if (!is->make_first)
            is->make_last = NULL;
        slot->make_next = NULL;
        slot->make_wanted = false;
        make(is, slot);
    }
}

void xlv_instances_manufacture(struct xlv_instances *is, struct xlv_slot *slot)
{
    if (slot->maker || slot->make_wanted || slot->make_retry || slot->info.life != XLV_LIFE_NEW)
        return;
    slot->make_wanted = true;
    slot->make_next = NULL;
    if (is->make_last)
        is->make_last->make_next = slot;
    else
        is->make_first = slot;
    is->make_last = slot;
    make_more(is);
}
