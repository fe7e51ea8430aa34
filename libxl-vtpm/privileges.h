/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What xl-vtpmd keeps of root: the capabilities that it, and the backends that it
 * starts and that then give up all, cannot do without; and no network.
 *
 * The list is the one in systemd/xl-vtpmd.service.in; this one holds under any
 * init.
 */
#ifndef XLV_PRIVILEGES_H
#define XLV_PRIVILEGES_H

#include "common/error.h"

/*
 * Drops all other capabilities, for ever, and moves to an empty network
 * namespace, which the backends share. Not root: nothing is done. What a
 * container refuses is logged and done without. -errno where something went wrong.
 */
int xlv_privileges_limit(struct xlv_error *e);

#endif
