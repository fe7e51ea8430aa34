/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The running side of instances: who holds which, who waits for it, the making
 * of a new TPM, and everything a LAUNCH needs (files, lock, keys).
 *
 * An instance is held by one claim at a time; further claims queue in order.
 * A claim is granted when it holds the instance and the instance has a TPM: an
 * instance of life NEW is manufactured first, by a process of its own, started
 * as soon as the instance is known to be wanted. Manufacture is idempotent, so
 * a crash in between (of anybody) starts over or finds it complete.
 *
 * An instance whose domain was suspended keeps that domain's state in its
 * store. Usually the process that served it has done so before it ended; where
 * it was killed before, a process of the mode KEEP does it from the journal,
 * and claims wait for that as they wait for manufacture.
 *
 * The lock is flock(LOCK_EX) on slot 0, taken here and living in the process
 * that gets the descriptor; "held by another process" is an expected outcome
 * (an orphan that still ends, or an administrator's `xl-vtpm recover`).
 */
#ifndef XLV_INSTANCES_H
#define XLV_INSTANCES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "backend/eventlog.h"
#include "common/error.h"
#include "libxl-vtpm/booted.h"
#include "libxl-vtpm/device.h"
#include "libxl-vtpm/keys.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/settings.h"
#include "libxl-vtpm/supervisor.h"

struct xlv_instances;
struct xlv_claim;

/* A refusal that an administrator may want to know about. */
struct xlv_refusal {
    int64_t time_s; /* 0: never */
    uint32_t domid, devid;
    char reason[XLV_TEXT_MAX];
};

/* One instance that was wanted since the daemon started; lives as long as it. */
struct xlv_slot {
    uint64_t number; /* first: the key of the tree */
    struct xlv_instance info;
    struct xlv_log_subject subject;
    struct xlv_claim *holder;
    struct xlv_claim *first, *last; /* those who wait */
    struct xlv_backoff backoff;
    struct xlv_refusal refusal;
    /* manufacture */
    struct xlv_instances *owner;
    struct xlv_child *maker;
    bool make_wanted;
    struct xlv_slot *make_next;
    sd_event_source *make_retry;
    /* keeping: the process, and the suspend (its time) that needs none any more */
    struct xlv_child *keeper;
    sd_event_source *keep_retry;
    sd_event_source *arrival; /* the next look whether it is here */
    int64_t kept_s;
};

struct xlv_claim {
    struct xlv_slot *slot; /* NULL: no claim */
    bool held, granted;
    struct xlv_claim *next, *previous;
    /* Both may be called from within xlv_claim_take() and xlv_claim_release()
     * of any claim: note it, act later. */
    void (*on_granted)(struct xlv_claim *claim);
    void (*on_failed)(struct xlv_claim *claim, const char *text);
};

/* All borrowed; must outlive. uid, gid: of backends, 0: stay as we are. */
struct xlv_instances_config {
    sd_event *event;
    const struct xlv_supervisor *supervisor;
    const struct xlv_settings *settings;
    struct xlv_registry *registry;
    struct xlv_keys *keys;
    int state_dirfd, journal_dirfd, listener_dirfd, log_dirfd;
    uid_t uid;
    gid_t gid;
};

int xlv_instances_new(struct xlv_instances **out, const struct xlv_instances_config *config,
                      struct xlv_error *e);
void xlv_instances_free(struct xlv_instances *instances); /* processes run on */

/* The slot of an instance, made at its first use, its info set to this one. */
int xlv_instances_slot(struct xlv_instances *instances, const struct xlv_instance *info,
                       struct xlv_slot **slot, struct xlv_error *e);
struct xlv_slot *xlv_instances_find(struct xlv_instances *instances, uint64_t number);

/*
 * Its handover to another host is under way: whoever gives it away holds a lock on its directory
 * until the outcome is known, also when it has departed, as it may be returned (move-steps.h).
 */
bool xlv_instances_on_its_way(struct xlv_instances *instances,
                              const struct xlv_instance *instance);

void xlv_claim_take(struct xlv_instances *instances, struct xlv_slot *slot,
                    struct xlv_claim *claim);
void xlv_claim_release(struct xlv_instances *instances, struct xlv_claim *claim);

/* Makes the TPM of an instance of life NEW ahead of its first use. */
void xlv_instances_manufacture(struct xlv_instances *instances, struct xlv_slot *slot);

/*
 * Starts a process that serves a device. -errno and XLV_E_IN_USE: another try
 * may do better; other outcomes: no.
 */
struct xlv_device_launch {
    enum xlv_boot boot;
    uint32_t domid, devid;
    struct xlv_ring ring;
    enum xlv_measure_what measure;
    const struct xlv_booted *booted; /* FILES */
    const char *unmeasured;          /* ERROR: why */
    const struct xlv_log_subject *subject;
    const struct xlv_child_ops *ops;
    void *opaque;
};
int xlv_instances_launch(struct xlv_instances *instances, struct xlv_slot *slot,
                         const struct xlv_device_launch *device, struct xlv_child **child,
                         struct xlv_error *e);

/* The instance is served no more until an administrator decides. */
void xlv_instances_quarantine(struct xlv_instances *instances, struct xlv_slot *slot,
                              const char *reason);

/*
 * The instance's domain is suspended: noted durably, before its process is told
 * to keep the state. Then, when that process is gone, however it ended:
 * xlv_instances_kept(), with whether it said that it is done.
 */
int xlv_instances_suspended(struct xlv_instances *instances, struct xlv_slot *slot,
                            const struct xlv_suspended *suspended, struct xlv_error *e);
void xlv_instances_kept(struct xlv_instances *instances, struct xlv_slot *slot, bool done);

/*
 * What the process of a device wrote into its event log, from when it is ready: the
 * bytes of the log, and <run-dir>/eventlog/<number> for the administrator. *length
 * is 0 where the boot was not measured.
 */
void xlv_instances_event_log(struct xlv_instances *instances, const struct xlv_slot *slot,
                             uint8_t bytes[XLV_EVENTLOG_MAX], size_t *length);

/* The boot ended cleanly: nothing in its journal is needed any more. */
void xlv_instances_drop_journal(struct xlv_instances *instances, const struct xlv_slot *slot);

#endif
