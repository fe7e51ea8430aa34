/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox: gives up, in two steps, all that serving one guest does not need.
 *
 *     xlv_sandbox_prepare   first thing in main(): what costs nothing and must
 *                           hold while keys are in memory
 *     xlv_sandbox_enter     when everything is open, before the first byte of a
 *                           guest is read: irrevocable
 *
 * What the process still does after enter, and so what a system call filter
 * has to allow there: read, write, poll, recvmsg, sendmsg, accept4, close on
 * what it has; pwrite64, pread64, fdatasync, ftruncate on the slots; memory;
 * getrandom, clock_gettime, timer_settime, timer_delete, rt_sigreturn,
 * clock_nanosleep (libxengnttab, where a page is paged out); ioctl on
 * the evtchn (notify, unbind) and gntdev (map, unmap, get-offset) descriptors
 * and mmap of the latter (port.h: requests of more than one page); exit.
 */
#ifndef XLV_SANDBOX_H
#define XLV_SANDBOX_H

#include <stdint.h>

#include "backend/port.h"
#include "common/error.h"

/* No core dumps, no ptrace by others of the same uid, no SIGPIPE; memory is
 * never swapped, where the limit RLIMIT_MEMLOCK can be lifted (else it says so). */
int xlv_sandbox_prepare(struct xlv_error *e);

/*
 * No new privileges ever; limits; the event channel device for domid only;
 * and, unless uid is 0, another user without groups and capabilities, which is
 * verified. port may be NULL (manufacture). Any step that fails is an error.
 */
int xlv_sandbox_enter(struct xlv_port *port, uint32_t uid, uint32_t gid, struct xlv_error *e);

#endif
