/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's core: reconciles what xenstore says with what runs.
 *
 * Every device of /local/domain/<own>/backend/vtpm has a state (device.h). A
 * watch event only marks its device; the device is looked at once, later, in
 * turn with the others, so the work of an event does not grow with the number
 * of devices and a guest that writes all the time delays itself. At start-up,
 * after a reconnect, and when the root itself fires, everything is looked at.
 *
 * Nothing here blocks but requests to xenstored and transactions of the
 * registry. Nothing needs cleaning up: the locks on run-dir and state-dir are
 * flocks on the directories, stale listeners are told by refused connections,
 * and a manufacture that was cut short starts over.
 */
#ifndef XLV_DAEMON_H
#define XLV_DAEMON_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "libxl-vtpm/calls.h"
#include "libxl-vtpm/settings.h"

struct xlv_daemon;
struct xlv_scopes;

struct xlv_daemon_config {
    sd_event *event;                     /* borrowed */
    const struct xlv_settings *settings; /* borrowed */
    struct xlv_scopes *scopes; /* borrowed; NULL: backends stay in our cgroup */
    /* Called once, when everything that was there at the start is served. */
    void (*ready)(void *opaque);
    void *opaque;
};

/*
 * Takes the locks, opens registry and keys, finds the processes of an earlier
 * daemon, and begins to serve; a xenstore that is not there yet is waited for.
 * XLV_E_IN_USE: another daemon runs on these directories.
 */
int xlv_daemon_new(struct xlv_daemon **out, const struct xlv_daemon_config *config,
                   struct xlv_error *e);

/* Ends serving; backends run on and are found again by the next daemon. */
void xlv_daemon_free(struct xlv_daemon *daemon);

/* For the control socket: how calls are answered with what only we know. */
const struct xlv_calls *xlv_daemon_calls(struct xlv_daemon *daemon);

/*
 * Asks all running backends for their figures; done is called when they have
 * answered or a moment has passed. One caller gets one call.
 */
int xlv_daemon_refresh(struct xlv_daemon *daemon, void (*done)(void *opaque), void *opaque);
/* The caller goes away: done will not be called. */
void xlv_daemon_refresh_cancel(struct xlv_daemon *daemon, void *opaque);

/*
 * The call "freeze" of the control socket: once the domain is suspended, its backends end with
 * its state in the store, and no others are started until xlv_daemon_thaw(), which the caller owes
 * in any case (also: it goes away). Returns a reply that refuses, or NULL: done is called with the
 * reply (which is done's) later, never from within.
 */
struct json_object *xlv_daemon_freeze(struct xlv_daemon *daemon, struct json_object *request,
                                      void (*done)(void *opaque, struct json_object *reply),
                                      void *opaque);
void xlv_daemon_thaw(struct xlv_daemon *daemon, void *opaque);

unsigned xlv_daemon_devices(const struct xlv_daemon *daemon);

#endif
