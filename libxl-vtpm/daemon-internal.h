/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon's files share with each other, and nobody else:
 *
 *     daemon.c         start and end, xenstore's connection, whose turn it is
 *     daemon-device.c  one device: admission, its process, its steps
 *     daemon-nodes.c   one device's nodes in xenstore: looking and writing
 *     daemon-calls.c   figures and the calls of the control socket
 *     daemon-freeze.c  devices that stand still while their domain migrates
 *
 * A struct device is freed only by xlv_dev_run() (state GONE) and at the end of
 * the daemon; who calls xlv_dev_run() does not touch the device afterwards
 * unless it has a process.
 */
#ifndef XLV_DAEMON_INTERNAL_H
#define XLV_DAEMON_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/log.h"
#include "libxl-vtpm/booted.h"
#include "libxl-vtpm/calls.h"
#include "libxl-vtpm/daemon.h"
#include "libxl-vtpm/device.h"
#include "libxl-vtpm/domain.h"
#include "libxl-vtpm/instances.h"
#include "libxl-vtpm/keys.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/scopes.h"
#include "libxl-vtpm/supervisor.h"
#include "libxl-vtpm/xenstore.h"

#define EVENTS_MAX 8
#define REFUSALS_KEPT 16

struct device {
    uint64_t key; /* first: domid << 8 | devid */
    struct xlv_daemon *daemon;
    uint32_t domid, devid;
    struct device *next, *previous;       /* all */
    struct device *dirty_next, *dirty_previous;
    bool dirty, look;
    bool seen; /* view is of some look */

    enum xlv_device_state state;
    enum xlv_device_event events[EVENTS_MAX];
    unsigned nevents;
    struct xlv_device_view view;
    bool found;      /* past InitWait when this daemon first saw it */
    bool came_back;  /* was admitted before */
    bool anew;       /* the directory was made again: forget, then look again */

    bool watched;
    char backend[96], frontend[96];

    enum xlv_xenbus written, wanted; /* our state node */
    uint64_t dwell_until_us;
    uint64_t end_by_us; /* of a device that ends: closed then, whatever its frontend does */
    sd_event_source *write_timer, *timer, *look_timer;
    enum xlv_device_event timer_event;
    bool leaf; /* the timer is for removing the directory */

    struct xlv_uuid uuid; /* as the toolstack gave it */
    char domain_name[XLV_DOMAIN_NAME_MAX + 1], domain_uuid[XLV_UUID_TEXT];
    bool incoming;
    enum xlv_boot boot; /* of the domain, as it was when the device was admitted */
    enum xlv_use use;
    /* Was the domain created just now when its device came, so that what it was booted with may
     * be measured? In xenstore too (boot-seen), for the daemons after this one. */
    enum { BOOT_UNKNOWN, BOOT_SEEN, BOOT_NOT_SEEN } boot_seen;
    const char *unseen; /* why not */
    struct xlv_slot *slot;
    struct xlv_claim claim;
    struct xlv_log_subject subject;

    struct xlv_child *child;
    struct xlv_served served;
    uint64_t retry_us;
    int64_t attached_s;
    bool has_status, status_asked;
    bool shut_down; /* the domain, and not in order to be saved: it was seen so */
    bool soft_reset; /* the same, in order to go on as it is: see xlv_dev_look_at_domain() */
    bool over; /* the domain will not run again */
    bool frozen; /* no process until it is thawed (daemon-freeze.c) */
    enum xlv_stop_reason ended; /* why its process was told to stop; 0: it was not */
    struct xlv_msg_status status;
    bool noted_use;
    unsigned connects; /* that the guest caused, in the window that began then */
    uint64_t connects_since_us, starts_paid_us, not_before_us;
    char reason[XLV_TEXT_MAX]; /* why refused or failed: for the administrator */
    const char *told;          /* and for the error node, which the guest can read */
    struct xlv_ratelimit limit;
};

struct refresh; /* daemon-calls.c */
struct freeze;  /* daemon-freeze.c */

struct xlv_daemon {
    struct xlv_daemon_config config;
    const struct xlv_settings *settings;
    sd_event *event;
    struct xlv_supervisor supervisor;
    struct xlv_registry *registry;
    struct xlv_keys *keys;
    struct xlv_instances *instances;
    struct xlv_domains *domains;
    int run_dirfd, state_dirfd, journal_dirfd, listener_dirfd, log_dirfd;

    struct xlv_xenstore *xs;
    sd_event_source *xs_source, *heartbeat, *reconnect;
    uint64_t reconnect_us;
    uint32_t own;
    char root[64];

    void *tree; /* of struct device, by key */
    struct device *devices;
    unsigned count;
    struct device *dirty_first, *dirty_last;
    uint32_t devid_most; /* ever seen: domains with more than one device are few */
    sd_event_source *work, *sweep;
    struct device *sweep_next; /* the next to be asked for; NULL: no round is under way */
    uint64_t sweep_at_us;      /* not before */
    bool sweep_again, rescan_wanted;
    bool adopted, connected_once, told_ready;

    struct xlv_calls calls;
    struct xlv_refusal refusals[REFUSALS_KEPT];
    unsigned next_refusal;
    struct refresh *refreshes;
    sd_event_source *refresh_timer;
    unsigned refresh_pending;
    struct freeze *freezes;
};

/* --- daemon.c --- */

uint64_t xlv_daemon_now(struct xlv_daemon *m); /* of the loop, CLOCK_MONOTONIC */

/* One-shot timers; armed again they move. */
void xlv_daemon_arm(struct xlv_daemon *m, sd_event_source **source, uint64_t after_us,
                    sd_event_time_handler_t handler, void *opaque);
void xlv_daemon_disarm(sd_event_source *source);

/* The connection is lost: closes it and connects again later. m->xs is NULL then. */
void xlv_daemon_lost(struct xlv_daemon *m);

/* Is there such a device, and do we know it? It is looked at when its turn comes. */
void xlv_daemon_touch(struct xlv_daemon *m, uint32_t domid, uint32_t devid);

/* Puts the device into the queue of those that are run, to be looked at or only run. */
void xlv_dev_mark(struct device *d, bool look);

/* NULL: no memory, or too many (logged). */
struct device *xlv_dev_new(struct xlv_daemon *m, uint32_t domid, uint32_t devid);
void xlv_dev_free(struct device *d);

void xlv_dev_watch(struct device *d);
void xlv_dev_unwatch(struct device *d);

/* --- daemon-device.c --- */

extern const struct xlv_child_ops xlv_dev_child_ops;

/* Performs what waits and what is seen until the device is at rest. May free it. */
void xlv_dev_run(struct device *d);
void xlv_dev_push(struct device *d, enum xlv_device_event event);

/* Finds the instance; *result is what admission is told. False: try again later. */
bool xlv_dev_resolve(struct device *d, int *result, struct xlv_error *e);

/* Its process runs already: whatever was suspended before it is over. */
void xlv_dev_took_up_boot(struct device *d);

/* Notes whether the domain has shut down, while that can be asked. */
void xlv_dev_look_at_domain(struct device *d);

/* For claims of new devices. */
void xlv_dev_granted(struct xlv_claim *claim);
void xlv_dev_denied(struct xlv_claim *claim, const char *text);
struct device *xlv_dev_of_claim(struct xlv_claim *claim); /* NULL for NULL */

/* --- daemon-nodes.c --- */

/* 0: d->view is new. Else the look failed; XLV_E_GONE: the connection is lost. */
int xlv_dev_look_at(struct device *d);

/* Looks, and takes care of failures. False: nothing is known of the device yet. */
bool xlv_dev_look(struct device *d);
void xlv_dev_look_later(struct device *d); /* a moment later, in its turn */

/*
 * Reads what the toolstack wrote once: uuid, whose frontend, the domain's name.
 * XLV_E_INVALID with a sentence: not as libxl writes it. Without a sentence:
 * the reading failed, as xlv_xenstore_read().
 */
int xlv_dev_identify(struct device *d, struct xlv_error *e);
/* Of that what the domain's own nodes tell: its name and uuid. */
int xlv_dev_identify_domain(struct device *d);
const char *xlv_dev_domain(const struct device *d); /* for people */

/* Our state node: is brought there now, or when libxl has had its time. */
void xlv_dev_set_state(struct device *d, enum xlv_xenbus state);
void xlv_dev_flush_state(struct device *d);
void xlv_dev_init_wait(struct device *d);

/* instance and features alone; the error node; the error node and no state any more. */
void xlv_dev_write_nodes(struct device *d);

/* event-log/0, /1 ...: pieces of the log in base64, which the guest can read. */
void xlv_dev_write_event_log(struct device *d, const uint8_t *bytes, size_t length);

/* What boot-seen says, where this daemon does not know. */
void xlv_dev_read_boot_seen(struct device *d);
void xlv_dev_write_error(struct device *d, const char *text, bool refuse);

/* --- daemon-calls.c --- */

void xlv_daemon_calls_init(struct xlv_daemon *m);
void xlv_daemon_calls_deinit(struct xlv_daemon *m);
/* A backend gave its figures, or went away. */
void xlv_daemon_refresh_answered(struct device *d);

/* --- daemon-freeze.c --- */

void xlv_daemon_freezes_look(struct xlv_daemon *m); /* some domain may have been suspended */
void xlv_daemon_freezes_deinit(struct xlv_daemon *m);
/* Its process, which was to be frozen, is gone; clean: as it should. */
void xlv_dev_froze(struct device *d, bool clean);

#endif
