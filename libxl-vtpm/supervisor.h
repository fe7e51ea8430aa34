/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The supervisor: starts vtpm-backend processes, listens to them, ends them,
 * and finds those that an earlier daemon started.
 *
 * A child is a pidfd and a socket (include/launch.h). What it may say is a
 * table of (phase, message); a child that says anything else, or says nothing
 * until its deadline, is killed. Every child ends with exactly one gone() that
 * tells how. Nobody is waited for: everything is a source of the event loop.
 *
 * Listeners: the daemon binds <run-dir>/backend/<domid>-<devid> and listens on
 * it before it passes it on, so that a connection refused always means that no
 * process has it any more: a stale name, which is removed. Which process is
 * behind a connection is told by the kernel (SCM_CREDENTIALS on its first
 * message; SO_PEERCRED until then), and a pidfd taken while the connection is
 * still up cannot be of another process.
 */
#ifndef XLV_SUPERVISOR_H
#define XLV_SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "common/log.h"
#include "include/launch.h"

/* Deadlines in microseconds. */
struct xlv_supervisor {
    sd_event *event;     /* borrowed */
    const char *program; /* borrowed */
    uint64_t ready_us, manufacture_us, adopt_us, exit_us;
};

/* Slow and busy hosts and TPM 1.2's key generation (seconds, once 30 of them) are inside these;
 * Linux gives up on a command after 120 s. */
#define XLV_READY_US (90 * 1000000ull)
#define XLV_MANUFACTURE_US (180 * 1000000ull)
#define XLV_ADOPT_US (30 * 1000000ull)
/* from the end of the connection, or BYE, to the end of the process */
#define XLV_EXIT_US (2 * 1000000ull)

enum xlv_child_how {
    XLV_CHILD_CLEAN,       /* said BYE (manufacture: READY) and exited 0 */
    XLV_CHILD_FAILED,      /* said why it cannot go on; code is its code */
    XLV_CHILD_CRASHED,     /* a signal or exit status of its own; code is that */
    XLV_CHILD_KILLED,      /* SIGKILL or SIGTERM from somebody else */
    XLV_CHILD_TIMEOUT,     /* no READY, no answer: we killed it */
    XLV_CHILD_STOPPED,     /* did not stop in time: we killed it */
    XLV_CHILD_GARBAGE,     /* said what it may not say: we killed it */
    XLV_CHILD_NOT_STARTED, /* of another build (an upgrade is half done): we killed it;
                              and for the owner's use: never ran */
};

struct xlv_child_end {
    enum xlv_child_how how;
    int code;
    bool was_ready;
    bool bye; /* it said BYE: everything is where it belongs */
    uint64_t uptime_us;
    uint64_t start_us; /* of it, until READY or until the end: what a start cost */
    char text[XLV_TEXT_MAX]; /* for people */
};

struct xlv_child;

struct xlv_child_ops {
    void (*ready)(struct xlv_child *child, void *opaque);
    void (*status)(struct xlv_child *child, const struct xlv_msg_status *status, void *opaque);
    /* Of a manufacture; xlv_child_certify() has to follow, at once or later. */
    void (*endorsement)(struct xlv_child *child, const struct xlv_msg_endorsement *keys,
                        void *opaque);
    /* The process is gone; the child is freed when this returns. */
    void (*gone)(struct xlv_child *child, const struct xlv_child_end *end, void *opaque);
};

/*
 * Starts a process and sends it launch with fds (which stay the caller's).
 * subject (borrowed, outlives the child) is what log lines are about.
 * -errno: not started, e says why.
 */
int xlv_child_spawn(struct xlv_child **out, const struct xlv_supervisor *supervisor,
                    const struct xlv_msg_launch *launch, const int *fds, size_t nfds,
                    const struct xlv_log_subject *subject, const struct xlv_child_ops *ops,
                    void *opaque, struct xlv_error *e);

/*
 * Connects to the listener `name` in the directory dirfd and asks; status()
 * follows, or gone(). XLV_E_GONE: nobody there, the name is removed.
 */
int xlv_child_adopt(struct xlv_child **out, const struct xlv_supervisor *supervisor, int dirfd,
                    const char *name, const struct xlv_log_subject *subject,
                    const struct xlv_child_ops *ops, void *opaque, struct xlv_error *e);

/* Asks for a STATUS, which a child may not send unasked; 0, or XLV_E_INVALID where the child is not
 * ready for it. */
int xlv_child_query(struct xlv_child *child);

/* The answer to an endorsement; sets the message's header. An error is the process having
 * died: its end tells why. */
void xlv_child_certify(struct xlv_child *child, struct xlv_msg_certificates *certificates);

/* Sends STOP once; killed when it is not gone after deadline_us. Called again, it only
 * brings the deadline forward. */
void xlv_child_stop(struct xlv_child *child, enum xlv_stop_reason reason, uint64_t deadline_us);

/* Frees the child and lets the process run on (the daemon ends). */
void xlv_child_abandon(struct xlv_child *child);

/* Why it was told to stop, which it is once; 0: it was not. */
enum xlv_stop_reason xlv_child_told(const struct xlv_child *child);

pid_t xlv_child_pid(const struct xlv_child *child);

/* The listener of a device: bound and listening, close-on-exec. */
int xlv_listener_make(int dirfd, uint32_t domid, uint32_t devid, int *fd, struct xlv_error *e);
void xlv_listener_remove(int dirfd, uint32_t domid, uint32_t devid);

/* The table of what a child may say; pure, for the tests. */
enum xlv_child_phase {
    XLV_PHASE_STARTING,
    XLV_PHASE_CERTIFYING, /* a manufacture that waits for its certificates, or has them */
    XLV_PHASE_ADOPTING,
    XLV_PHASE_READY,
    XLV_PHASE_STOPPING,
    XLV_PHASE_DONE, /* said FAILED or BYE, or was killed: nothing more to say */
    XLV_PHASES
};
/* 0 and the phase that follows, or XLV_E_INVALID. */
int xlv_child_may_say(enum xlv_child_phase phase, enum xlv_launch_mode mode, const void *message,
                      size_t length, enum xlv_child_phase *next);

/* A READY or FAILED of another XLV_LAUNCH_VERSION: the program was upgraded, the daemon not. */
bool xlv_child_is_foreign(const void *message, size_t length);

/*
 * What to do after an end: try again after a pause that grows, or give up.
 * Pure; now_us is CLOCK_MONOTONIC.
 */
enum xlv_verdict {
    XLV_VERDICT_RETRY,      /* after *delay_us */
    XLV_VERDICT_FATAL,      /* the store is damaged, the key is wrong: no retry mends it */
    XLV_VERDICT_QUARANTINE, /* fails again and again in the same way */
};

struct xlv_backoff {
    unsigned failures; /* in a row */
    unsigned same;     /* of them, the last ones of the same kind */
    int how, code;     /* that kind */
};

#define XLV_QUARANTINE_AFTER 5u
/*
 * A guest can have its process started anew, and with TPM 1.2 that takes RSA keys. So starts are
 * paid for: a start of cost_us takes XLV_START_SHARE times that of the device's time, of which
 * there is XLV_START_CREDIT_US to begin with: 30 s of starts, as the time of a start is the
 * clock's, and on a busy or emulated host an honest driver that is loaded a few times in a row
 * may take seconds for each. paid_us is until when all is paid (0 at first);
 * returned is the new one, before which no other start is to be. Pure.
 */
#define XLV_START_SHARE 4u
#define XLV_START_CREDIT_US (120 * 1000000ull)
uint64_t xlv_start_paid(uint64_t paid_us, uint64_t now_us, uint64_t cost_us);

/* A process that served this long was healthy. */
#define XLV_HEALTHY_US (10 * 1000000ull)
#define XLV_RETRY_FIRST_US (50 * 1000ull)
#define XLV_RETRY_MAX_US (10 * 1000000ull)

enum xlv_verdict xlv_backoff_judge(struct xlv_backoff *backoff, const struct xlv_child_end *end,
                                   uint64_t *delay_us);

#endif
