/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of one vTPM device as a table: (state, event) -> (actions, state).
 *
 * Pure: no I/O, no memory, no clock. The daemon (daemon.c) looks at xenstore,
 * has xlv_device_classify() name what it saw, steps the table, and performs the
 * actions. What is seen is a level, not an edge: after each step the daemon
 * classifies the same view again until nothing changes any more, so that a
 * missed, repeated or coalesced watch costs time and never correctness. A pair
 * that makes no sense is rejected, not ignored.
 *
 *     UNDECIDED --ADMIT--> WAITING --CLAIMED--> OPEN --ring--> STARTING --READY--> SERVING
 *         |                                       ^               |                  |
 *       REFUSE                                    +-- RESTARTING <+---- process died -+
 *         v                                                                          |
 *      REFUSED            CLOSED <-- frontend 6 -- HOLDING <-- process gone -- CLOSING
 *
 * and from everywhere ENDING -> ENDING_HOLD -> ENDED when the toolstack ends
 * the device, VANISHING -> GONE when its directory disappears, FAILED when it
 * cannot be served.
 *
 * Who may write what (measured with libxl 4.17 and Linux): `online` and the
 * backend directory are the toolstack's; everything in the frontend directory
 * is the guest's, hostile, and may be absent, garbage or of the wrong type.
 */
#ifndef XLV_DEVICE_H
#define XLV_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* xen/io/xenbus.h */
enum xlv_xenbus {
    XLV_XENBUS_UNKNOWN = 0,
    XLV_XENBUS_INITIALISING = 1,
    XLV_XENBUS_INIT_WAIT = 2,
    XLV_XENBUS_INITIALISED = 3,
    XLV_XENBUS_CONNECTED = 4,
    XLV_XENBUS_CLOSING = 5,
    XLV_XENBUS_CLOSED = 6,
};

enum xlv_device_state {
    XLV_DEVICE_UNDECIDED,   /* seen, or come back; not admitted yet */
    XLV_DEVICE_REFUSED,     /* error node written, state node deleted */
    XLV_DEVICE_WAITING,     /* admitted; waits for its instance */
    XLV_DEVICE_OPEN,        /* holds its instance; waits for the frontend's ring */
    XLV_DEVICE_STARTING,    /* a process starts */
    XLV_DEVICE_SERVING,     /* the process serves */
    XLV_DEVICE_RESTARTING,  /* the process is gone; the next one waits for its back-off */
    XLV_DEVICE_REPLACING,   /* the process was told to stop; a new ring waits */
    XLV_DEVICE_CLOSING,     /* frontend closes; the process was told to stop */
    XLV_DEVICE_HOLDING,     /* no process; backend stays at 5 until the frontend is at 6 */
    XLV_DEVICE_CLOSED,      /* backend at 6; the frontend may come back */
    XLV_DEVICE_ENDING,      /* toolstack ends the device; the process was told to stop */
    XLV_DEVICE_ENDING_HOLD, /* no process; waits a short time for the frontend's 6 */
    XLV_DEVICE_ENDED,       /* backend at 6 for ever */
    XLV_DEVICE_FAILED,      /* cannot be served, error node written; until the device ends */
    XLV_DEVICE_VANISHING,   /* directory gone; the process was told to stop */
    XLV_DEVICE_ADOPTING,    /* found with a process of an earlier daemon; asking it */
    XLV_DEVICE_GONE,        /* to be forgotten */
    XLV_DEVICE_STATES
};

enum xlv_device_event {
    /* what a look at xenstore says: exactly one at a time */
    XLV_SEE_NOTHING,    /* frontend says nothing usable (garbage, ring missing) */
    XLV_SEE_INIT,       /* frontend at 1 or 2 */
    XLV_SEE_RING,       /* frontend at 3 or 4 with a ring; the served one, if one is served */
    XLV_SEE_NEW_RING,   /* as RING, but not the one that is served */
    XLV_SEE_CLOSING,    /* frontend at 5 */
    XLV_SEE_CLOSED,     /* frontend at 6, or its directory is gone */
    XLV_SEE_END,        /* toolstack wants the end, frontend still there */
    XLV_SEE_END_CLOSED, /* toolstack wants the end, frontend at 6 or gone; or domain dead */
    XLV_SEE_GONE,       /* backend directory gone, or made anew */
    /* decisions */
    XLV_EVENT_ADMIT,       /* may be served; libxl still has to see InitWait */
    XLV_EVENT_ADMIT_FOUND, /* may be served; found past InitWait at start-up */
    XLV_EVENT_REFUSE,
    XLV_EVENT_CLAIMED, /* holds its instance, which has a TPM */
    /* the process */
    XLV_EVENT_READY,
    XLV_EVENT_EXIT,  /* gone; another one may do better */
    XLV_EVENT_FATAL, /* gone or never started, and another one would not do better */
    XLV_EVENT_ADOPTED,
    /* time */
    XLV_EVENT_RETRY,    /* back-off is over */
    XLV_EVENT_DEADLINE, /* waited long enough for the frontend */
    XLV_DEVICE_EVENTS
};

/* Performed in this order. */
enum xlv_device_action {
    XLV_ACT_STOP = 1 << 0,           /* tell the process to stop */
    XLV_ACT_RELEASE = 1 << 1,        /* let go of the instance, or of the place in its queue */
    XLV_ACT_ERROR = 1 << 2,          /* write the error node */
    XLV_ACT_REFUSE = 1 << 3,         /* delete the state node, so that libxl fails at once */
    XLV_ACT_INIT_WAIT = 1 << 4,      /* write instance, features and state 2 */
    XLV_ACT_STATE_CONNECTED = 1 << 5,
    XLV_ACT_STATE_CLOSING = 1 << 6,
    XLV_ACT_STATE_CLOSED = 1 << 7,
    XLV_ACT_CLAIM = 1 << 8,          /* ask for the instance; answered by CLAIMED or FATAL */
    XLV_ACT_START = 1 << 9,          /* start a process for the ring that was seen */
    XLV_ACT_ARM_RETRY = 1 << 10,     /* answered by RETRY */
    XLV_ACT_ARM_DEADLINE = 1 << 11,  /* answered by DEADLINE */
    XLV_ACT_REMOVE_LEAF = 1 << 12,   /* in a driver domain: delete our directory */
    XLV_ACT_FORGET = 1 << 13,
};

struct xlv_device_step {
    unsigned actions; /* of enum xlv_device_action */
    enum xlv_device_state next;
};

/* 0, or XLV_E_INVALID and *step untouched where the pair is illegal. */
int xlv_device_next(enum xlv_device_state state, enum xlv_device_event event,
                    struct xlv_device_step *step);

const char *xlv_device_state_name(enum xlv_device_state state);
const char *xlv_device_event_name(enum xlv_device_event event);

/* A process serves the device in this state (or starts, or is about to end). */
bool xlv_device_has_process(enum xlv_device_state state);

/* The guest's part of the frontend directory. */
struct xlv_ring {
    uint32_t ring_ref, event_channel;
};

/* What one look at xenstore gave. */
struct xlv_device_view {
    bool exists;          /* the backend directory with its state node */
    bool online;          /* false only where `online` says 0 */
    bool domain_dead;     /* the domain itself is gone */
    bool frontend_exists; /* its directory */
    enum xlv_xenbus backend, frontend;
    bool has_ring;
    struct xlv_ring ring; /* where has_ring */
};

/* What the running process serves. */
struct xlv_served {
    bool any;
    bool stale;          /* serves something else than this device now says */
    bool was_connected;  /* the frontend was seen at 4 with this ring */
    struct xlv_ring ring;
};

enum xlv_device_event xlv_device_classify(const struct xlv_device_view *view,
                                          const struct xlv_served *served);

/*
 * Strict parsers for values from xenstore; text need not be NUL-terminated at
 * length. 0 or XLV_E_INVALID. Numbers are decimal digits only, no sign, no
 * space, no leading zero, at most max.
 */
int xlv_parse_number(const char *text, size_t length, uint32_t max, uint32_t *number);
enum xlv_xenbus xlv_parse_xenbus(const char *text, size_t length);
/* "1"/"0" and "True"/"False" as libxl writes them. */
int xlv_parse_bool(const char *text, size_t length, bool *value);
/* "<domid>/<devid>" or "<domid>/<devid>/anything", as after the watched root.
 * *devid is -1 where the path names a domain only. */
int xlv_parse_device_path(const char *relative, uint32_t *domid, int64_t *devid);
/* "<domid>-<devid>", the name of a listener. */
int xlv_parse_listener_name(const char *name, uint32_t *domid, uint32_t *devid);
/* The name without the "--incoming" that xl gives a domain that is being
 * received; true where it had one. */
bool xlv_strip_incoming(char *name);

#endif
