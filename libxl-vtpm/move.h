/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Handing an instance over to another host, over one pipe each way (ssh makes it confidential
 * and authentic). For guests that are shut down or saved. docs/migration.md has the reasoning.
 *
 *     giver                                    taker
 *     lock; registry: departing
 *     OFFER uuid, version, token, suspended ->
 *                                              lock; registry: arriving
 *                                           <- ACCEPT
 *     STATE                                 ->
 *                                              store: commit, under the taker's own key
 *                                           <- STORED
 *     registry: departed
 *     COMMIT                                ->
 *                                              registry: held
 *                                           <- HELD
 *
 * Until `departed` the giver alone may call it off, and the taker cannot serve; from then on the
 * giver cannot serve. Made again with the same token it goes on where it was.
 *
 * A message: "XVMV", u16 version 1, u16 type, u32 length, then that many bytes; little endian.
 */
#ifndef XLV_MOVE_H
#define XLV_MOVE_H

#include <stdbool.h>

#include "common/error.h"
#include "common/uuid.h"
#include "libxl-vtpm/settings.h"

/*
 * Both use in and out until the end, and return when the outcome is durable here. give: 0 the
 * other host has it. XLV_E_GONE: given away, but the other host did not confirm: make it again.
 * Any other code: it is still ours. peer: the other host, for people.
 */
int xlv_move_give(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                  const char *peer, int in, int out, struct xlv_error *e);
int xlv_move_take(const struct xlv_settings *settings, int in, int out, struct xlv_error *e);

/* The administrator knows that the other host does not have it, and will not. A state that
 * loads must be here; or on shared storage, also where this host knows nothing of it yet. */
int xlv_move_resume_here(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                         struct xlv_error *e);

#endif
