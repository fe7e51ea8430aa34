/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instances on storage that several hosts have (a cluster or network file system): each in
 * `shared-dir`/<uuid>, sealed under a master key that these hosts have in common. Handing one
 * over (move.h) copies no state then; which host has it is for the registries to say, as ever.
 *
 * The store is locked as it is elsewhere, by flock() on slot 0: where the file system carries
 * that from host to host, two of them can never serve it at once, whatever their registries say.
 */
#ifndef XLV_SHARE_H
#define XLV_SHARE_H

#include <stdbool.h>

#include "common/error.h"
#include "common/uuid.h"
#include "libxl-vtpm/states.h"

/*
 * Puts an instance there, or back (shared false). Whole at either place at any moment, and the
 * registry says at which. XLV_E_IN_USE; XLV_E_REFUSED: another host has it, or it is deleted, or
 * its last boot did not end in order; XLV_E_EXISTS: it is there already; XLV_E_CONFLICT: what
 * is there is something else.
 */
int xlv_share(struct xlv_states *states, const struct xlv_uuid *uuid, bool shared,
              struct xlv_instance *instance, struct xlv_error *e);

#endif
