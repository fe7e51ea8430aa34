/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * wire.h - what the fake libraries and fakexend say to each other.
 *
 * fakexend is the hypervisor of a test: it owns domains, event channels and grants. It listens
 * on $FAKEXEN_DIR/hv.sock, a SOCK_SEQPACKET socket. A request is one struct fx_msg, its answer
 * is another one on the same socket. What a kernel attaches to an open file description is here
 * attached to a connection, so it is released when the last copy of the descriptor is closed,
 * however its holder died, which is what /dev/xen/evtchn and /dev/xen/gntdev do.
 *
 *   event channel handle   a connection that sent FX_OP_EVTCHN. From then on it carries only
 *                          events to the client: 4 bytes each, a port. Calls on the handle go
 *                          over a second connection, tied to the first by its socket cookie
 *                          (FX_OP_ATTACH), since an answer could not be told from an event.
 *   grant handle           a connection that sent FX_OP_GNTTAB. Calls go over it as well;
 *                          pages travel as descriptors (SCM_RIGHTS), one memfd for each.
 *   test                   a connection that sends the control operations.
 *
 * Faults are not asked for over a socket, because a sandboxed process may not: they are a table
 * in $FAKEXEN_DIR/faults that every process maps (fault.h).
 */
#ifndef FAKE_WIRE_H
#define FAKE_WIRE_H

#include <stdint.h>

#define FX_PAGE         4096u
#define FX_NDOM         4608u    /* domains of one test: 0 .. FX_NDOM - 1 */
#define FX_NPORT        1024u    /* ports of one domain, port 0 is never valid */
#define FX_MAX_GRANTS   32u      /* pages of one call; tpmif needs far fewer */
#define FX_REF_RESERVED 8u       /* grants below are the domain builder's: 1 is xenstore's ring */
#define FX_REF_XENSTORE 1u

#define FX_DIR_ENV      "FAKEXEN_DIR"
#define FX_DOMID_ENV    "FAKEXEN_DOMID"
#define FX_QUIET_ENV    "FAKEXEN_QUIET"

enum fx_op {
    /* event channels */
    FX_OP_EVTCHN = 1,            /* domid, cookie, a = quiet: this connection is a handle */
    FX_OP_ATTACH,                /* cookie: the calls that follow are for that handle */
    FX_OP_BIND_UNBOUND,          /* a = remote domid            -> a = port */
    FX_OP_BIND_INTERDOMAIN,      /* a = remote domid, b = port  -> a = port */
    FX_OP_BIND_VIRQ,             /* a = virq                    -> a = port */
    FX_OP_UNBIND,                /* a = port */
    FX_OP_NOTIFY,                /* a = port */
    FX_OP_UNMASK,                /* a = port */
    FX_OP_EVT_RESTRICT,          /* a = domid */
    /* grants */
    FX_OP_GNTTAB,                /* domid, a = quiet: this connection is a handle */
    FX_OP_MAP,                   /* a = writable, n x {domid, ref} -> cookie = map id, n fds */
    FX_OP_SET_NOTIFY,            /* cookie = map id, a = offset or ~0, b = port or ~0 */
    FX_OP_UNMAP,                 /* cookie = map id */
    FX_OP_SHARE,                 /* a = domid, b = writable, n  -> n refs, n fds */
    FX_OP_UNSHARE,               /* n refs */
    FX_OP_PEEK,                  /* a = domid, b = ref, c = writable: 1 fd, not a mapping */
    /* tests */
    FX_OP_DOM_CREATE,            /* a = domid */
    FX_OP_DOM_SHUTDOWN,          /* a = domid, b = reason */
    FX_OP_DOM_DESTROY,           /* a = domid */
    FX_OP_DOM_INFO,              /* a = domid: the first one >= a -> a = domid, b = state, c =
                                    reason, n = has run, cookie = incarnation,
                                    dom[0] = is paused again */
    FX_OP_DOM_RAN,               /* a = domid: it is not paused or suspended any more */
    FX_OP_DOM_PAUSE,             /* a = domid, b = 1: it is, though it ran; 0: not any more */
    FX_OP_DOM_INCARNATION,       /* a = domid, b = incarnation of its TSC info */
    FX_OP_DOM0_PORT,             /* -> a = port of the store's own domain */
    FX_OP_GRANT_AT,              /* domid, a = to, b = ref, c = writable -> 1 fd */
    FX_OP_UNGRANT,               /* domid, a = ref */
    FX_OP_STATS,                 /* a = domid -> stats */
    FX_OP_STORE_CONFLICT,        /* a = transactions to end in EAGAIN, b = domid */
    FX_OP_STORE_HOLD,            /* a = domid, b = 1 hold events back, 0 let go */
    FX_OP_STORE_SPURIOUS,        /* a = domid: all its watches fire */
    FX_OP_STORE_DROP,            /* a = domid: connections lost; b = 1: new ones refused */
    FX_OP_STORE_QUOTA,           /* a = enum fx_quota, b = limit */
    FX_OP_STORE_STATS,           /* a = domid -> stats */
    FX_OP_STORE_REQUESTS,        /* a = pid -> a = requests it has made */
};

enum fx_dom_state { FX_DOM_NONE, FX_DOM_RUNNING, FX_DOM_SHUTDOWN, FX_DOM_DYING };

enum fx_quota { FX_QUOTA_NODES, FX_QUOTA_WATCHES, FX_QUOTA_TRANSACTIONS, FX_QUOTA_ENTRY_SIZE,
                FX_QUOTA_PERMS, FX_QUOTA_COUNT };

/* What one domain did to others' pages and ports, counted by fakexend: a process that was
 * killed cannot hide an imbalance. What runs with
 * FAKEXEN_QUIET in its environment (the harness itself, Debian's xenstored) is not in it. */
struct fx_stats {
    uint32_t mapped;             /* pages, ever */
    uint32_t unmapped;           /* pages given back by xengnttab_unmap */
    uint32_t reclaimed;          /* pages taken back when their holder died or closed */
    uint32_t live;               /* pages mapped now: mapped - unmapped - reclaimed */
    uint32_t map_refused;        /* calls answered EINVAL */
    uint32_t bound;              /* interdomain binds, ever */
    uint32_t ports;              /* ports held now, by handles */
    uint32_t handles;            /* event channel and grant handles open now */
    uint32_t granted;            /* pages it grants to others now */
    uint32_t notified;           /* xenevtchn_notify calls */
    uint32_t delivered;          /* events put into its handles' queues */
};

struct fx_store_stats {
    uint32_t connections, watches, transactions, nodes;
    uint32_t events_queued, events_merged, conflicts;
    uint32_t pending;            /* events held back now */
};

struct fx_msg {
    uint32_t op;
    int32_t err;                 /* answer: 0 or an errno */
    uint32_t domid;              /* who speaks */
    uint32_t a, b, c;
    uint64_t cookie;
    uint32_t n;
    uint32_t dom[FX_MAX_GRANTS];
    uint32_t ref[FX_MAX_GRANTS];
    union {
        struct fx_stats stats;
        struct fx_store_stats store;
    };
};

#endif
