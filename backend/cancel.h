/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cancelling a running command, without a second thread.
 *
 * libtpms executes a command in one blocking call, and only the state byte of
 * the shared page tells that the guest wants it to end (tpmif.h: "the frontend
 * can at any time change the state to CANCEL"). So while a command runs, a
 * timer signal looks at that byte every XLV_CANCEL_POLL_MS and, where it says
 * CANCEL, sets libtpms's cancel flag. The handler reads one byte, writes one
 * integer in libtpms, and sets a timer: all async-signal-safe.
 *
 * The timer is left to run out rather than stopped after each command, so a
 * stream of quick commands costs no system call for it at all.
 */
#ifndef XLV_CANCEL_H
#define XLV_CANCEL_H

#include "common/error.h"

#define XLV_CANCEL_POLL_MS 10

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
