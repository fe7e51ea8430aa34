/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `xl-vtpm rekey`: changes the master key of provider file.
 *
 *   1. the new key is written beside the old one, durably (keys.h)
 *   2. each instance that nobody uses is locked and its store is sealed under
 *      the new key; those in use are left for a later run
 *   3. when none is left under the old key, the new one takes its name and the
 *      old one is wiped
 *
 * Every step may be the last one of a process or of the host: a later run goes
 * on where this one ended, and daemon and command find each store's key all
 * the time. One run at a time: flock on <state-dir>/instances.
 *
 * What keeps 3 from coming too early: the registry is listed after 1, and each
 * instance is judged with its lock held. A TPM made after that gets the new
 * key, for its maker reads the key files with the lock held, too.
 *
 * An instance that is left behind is one that is in use; or whose state cannot
 * be loaded, for that may only be recovered with the old key; or whose journal
 * cannot be read, or holds a change that the store lacks. Where a domain's boot
 * goes on without a backend its journal goes on with the store.
 */
#ifndef XLV_REKEY_H
#define XLV_REKEY_H

#include "common/error.h"
#include "libxl-vtpm/settings.h"

struct json_object;
struct xlv_client;

/*
 * client: asked which domain uses an instance; progress: told of each that was judged; both may be
 * NULL. *report is the
 * caller's where 0 or XLV_E_CONFLICT is returned:
 *   { "result": "complete" | "unfinished", "key": path,
 *     "sealed": n (now under the new key), "already": n (since an earlier run),
 *     "empty": n (no TPM was made yet),
 *     "left": [ { "number", "uuid": text | null, "reason" } ] }
 *
 *   XLV_E_CONFLICT  unfinished: some are left, run it again; e empty
 *   XLV_E_IN_USE    another xl-vtpm rekey, or a backup, runs
 *   XLV_E_REFUSED   the master key is not of provider file
 */
int xlv_rekey(const struct xlv_settings *settings, struct xlv_client *client,
              void (*progress)(unsigned done, unsigned of, void *opaque), void *opaque,
              struct json_object **report, struct xlv_error *e);

#endif
