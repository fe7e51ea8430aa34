/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watching over a running command, without a second thread: it can be cancelled, and it steps back
 * where it takes long.
 *
 * libtpms executes a command in one blocking call, and only the state byte of
 * the shared page tells that the guest wants it to end (tpmif.h: "the frontend
 * can at any time change the state to CANCEL"). So while a command runs, a
 * timer signal looks at that byte every XLV_CANCEL_POLL_MS and, where it says
 * CANCEL, sets libtpms's cancel flag. The handler reads one byte, writes one
 * integer in libtpms, and sets a timer: all async-signal-safe.
 *
 * The timer is left to run out rather than stopped after each command, so a
 * stream of quick commands costs next to no system call for it. It counts this
 * thread's processor time: what can be cancelled computes, and a process that
 * waits for the next command must not be woken by it. Where others compute,
 * who is woken has to queue for a processor, and the command that comes in the
 * meantime has to wait for that: some milliseconds rather than some microseconds.
 *
 * A command that has computed for that long (RSA keys; nearly all others take microseconds) asks
 * the scheduler for XLV_LONG_SLICE_MS at a time until it is done. Its share of the processor stays
 * the same, but who is woken for a short command goes first instead of queueing behind it. Linux
 * knows that since 6.12, and before that (6.6: EEVDF) does not listen.
 */
#ifndef XLV_CANCEL_H
#define XLV_CANCEL_H

#include "common/error.h"

#define XLV_CANCEL_POLL_MS 10 /* and up to a tick of the kernel's more */

#define XLV_LONG_SLICE_MS 100 /* what the kernel gives at most */

/* Installs the SIGALRM handler (SA_RESTART) and makes the timer; once per
 * process. -errno. */
int xlv_cancel_init(struct xlv_error *e);

/* From now on watch the page's state byte; without init: does nothing. */
void xlv_cancel_begin(const void *page);

/* The command is done: no cancel reaches the next one. */
void xlv_cancel_end(void);

/* Removes the timer and the handler. */
void xlv_cancel_deinit(void);

#endif
