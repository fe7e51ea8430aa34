/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting a vtpm-backend process, for the daemon and for the command. */
#ifndef XLV_SPAWN_H
#define XLV_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Starts program with this end of a socket pair as XLV_LAUNCH_FD, /dev/null as
 * standard input, standard error twice, and no other descriptor; in a session of
 * its own, without what systemd tells its starter in the environment. quiet: what it
 * logs goes nowhere, its messages say it all. 0 or -errno.
 */
int xlv_spawn_backend(const char *program, int socket, bool quiet, pid_t *pid);

#endif
