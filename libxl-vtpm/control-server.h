/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server half of the control socket (include/control.h): accepts clients
 * of root or of our own uid (SO_PEERCRED), and of control-group (SO_PEERGROUPS),
 * which may make the calls that change nothing, at most XLV_CONTROL_CLIENTS_MAX at a
 * time, reads requests without ever waiting, and answers them one by one.
 *
 * The name is bound under a temporary one and renamed, and the daemon holds the
 * lock of run-dir, so an old socket left there is simply replaced.
 */
#ifndef XLV_CONTROL_SERVER_H
#define XLV_CONTROL_SERVER_H

#include <systemd/sd-event.h>

#include "common/error.h"
#include "libxl-vtpm/daemon.h"

struct xlv_control_server;

int xlv_control_server_new(struct xlv_control_server **out, sd_event *event,
                           struct xlv_daemon *daemon, const struct xlv_settings *settings,
                           struct xlv_error *e);
void xlv_control_server_free(struct xlv_control_server *server); /* removes the name */

#endif
