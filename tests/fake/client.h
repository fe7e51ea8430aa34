/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * client.h - what the fake libraries share: who am I, calls to fakexend, faults.
 *
 * The environment is read at every open, not once: a test plays several domains in one process.
 */
#ifndef FAKE_CLIENT_H
#define FAKE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/* $FAKEXEN_DIR. A program that runs with the fakes and without it is a mistake of the harness,
 * so this says so on stderr and aborts: silently failing opens would look like a product bug. */
const char *fxc_dir(void);

/* $FAKEXEN_DOMID, else 0. */
uint32_t fxc_domid(void);

/* Whether handles opened now stay out of the books: $FAKEXEN_QUIET. */
bool fxc_quiet(void);

/* A connection to fakexend, close-on-exec. Returns an fd or -1 with errno. */
int fxc_connect(void);

/* Sends m, waits for the answer in m; up to n descriptors arrive in fds (close-on-exec), and the
 * answer must bring exactly n when it is no error. Returns 0, or -1 with errno as sent. */
int fxc_call(int fd, struct fx_msg *m, int *fds, size_t n);

/* The cookie of a socket: the same for every copy of the descriptor. 0 on error. */
uint64_t fxc_cookie(int fd);

/* True if this call shall fail, errno set. Does not return if it shall be the last one. */
bool fxc_fault(const char *function, uint32_t domid);

#endif
