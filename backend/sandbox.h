/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox: gives up, step by step, all that serving one guest does not need.
 *
 *     xlv_sandbox_prepare   first thing in main(): what costs nothing and must
 *                           hold while keys are in memory
 *     xlv_sandbox_enter     when everything is open, before the first byte of a
 *                           guest is read: irrevocable
 *
 * enter is two walls, each of which has to hold where the other has a hole:
 *
 *     the host is left      the Xen devices but for one bound event channel, all
 *                           files (an empty, read-only root), the network, System V
 *                           IPC, user, groups, every capability for ever, more
 *                           files, processes and memory than a TPM needs
 *     the filter            a list of the system calls that are left, with their
 *                           arguments (sandbox-filter.c); whatever else is made ends
 *                           the process, which tells the daemon what it was
 *
 * Then it is tried whether that is so (sandbox-proof.c). A sandbox that does not
 * hold is an error, and nobody is served.
 *
 * What cannot be had without root (namespaces, another user, the end of a
 * bounding set) is left out where the process was not started as root; so are
 * namespaces where the kernel or a container refuses them. That is logged.
 */
#ifndef XLV_SANDBOX_H
#define XLV_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/port.h"
#include "common/error.h"

/* No core dumps, no ptrace by others of the same uid, no SIGPIPE; memory is
 * never swapped, where the limit RLIMIT_MEMLOCK can be lifted (else it says so). */
int xlv_sandbox_prepare(struct xlv_error *e);

struct xlv_sandbox {
    struct xlv_port *port; /* NULL: nobody is served (manufacture, keep) */
    uint32_t uid, gid;     /* who to become; uid 0: stay */
    /* Called with a sentence when a system call was made that is forbidden, as
     * the last thing of this process; in a signal handler. May be NULL. */
    void (*on_forbidden)(const char *text);
};

/* Both walls and the proof. Any step that fails is an error. */
int xlv_sandbox_enter(const struct xlv_sandbox *sandbox, struct xlv_error *e);

/*
 * The parts of enter, for tests of one wall without the other.
 */

/* What could not be had. */
struct xlv_sandbox_left {
    bool namespaces, network; /* empty ones of its own */
    bool bounding;            /* the bounding set is empty */
};

int xlv_sandbox_leave_host(const struct xlv_sandbox *sandbox, struct xlv_sandbox_left *left,
                           struct xlv_error *e);
/* event_channel: the descriptor of the event channel device, -1 none. */
int xlv_sandbox_filter(int event_channel, void (*on_forbidden)(const char *text),
                       struct xlv_error *e);

/* Tries what must fail, with the kernel's own answer: before the filter. */
int xlv_sandbox_prove_left(const struct xlv_sandbox *sandbox, const struct xlv_sandbox_left *left,
                           struct xlv_error *e);
/* Tries what the filter must stop. */
int xlv_sandbox_prove_filter(int event_channel, struct xlv_error *e);

/* While true, a forbidden system call is only noted (and not done); returns the
 * number of the last one, -1 none, and forgets it. For the proof. */
void xlv_sandbox_only_note(bool on);
int xlv_sandbox_noted(void);

/* Builds with sanitizers only: their runtime asks for more. Never true in production. */
bool xlv_sandbox_is_sanitized(void);

#endif
