/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `xl-vtpm recover`: what the two slots of an instance hold, what the loader
 * would make of it, and the administrator's choice where the loader refuses.
 *
 * Works on the files, beside a daemon or without one: the lock of the instance
 * (flock on slot 0, as the daemon takes it) is held from the first look to the
 * last write. Nothing is changed before the administrator agreed, and what a
 * choice overwrites is set aside first, durably.
 */
#ifndef XLV_RECOVER_H
#define XLV_RECOVER_H

#include <stdbool.h>

#include "common/error.h"
#include "libxl-vtpm/settings.h"

struct json_object;

struct xlv_recover {
    const struct xlv_settings *settings;
    struct json_object *instance; /* borrowed: as include/control.h has it */
    int use_slot;                 /* -1: only look */
    /* Asked, with the report as it is so far, before anything is changed. */
    bool (*agree)(struct json_object *report, const char *question, void *opaque);
    void *opaque;
};

/*
 * *report is the caller's, and may be there beside an error:
 *   { "number", "uuid", "life", "directory",
 *     "slots": [ { "slot", "file", "size": n | null, "state", "generation": n | null,
 *                  "length": n | null, "key": "old" (only while the master key changes),
 *                  "text" } ],
 *     "loads": bool, "empty": bool, "slot": 0 | 1 | null, "verdict": sentence,
 *     "usable": [ slots that --use-slot takes ],
 *     "chosen": null | { "slot", "generation", "kept": path | null } }
 * state: good, blank, missing, "cut short", damaged, "wrong key", "wrong owner",
 * "too new".
 *
 *   XLV_E_IN_USE     e names the domain where that is known
 *   XLV_E_REFUSED    this slot cannot be chosen; or not agreed (e empty then)
 *   XLV_E_NOT_FOUND  there are no files
 */
int xlv_recover(const struct xlv_recover *recover, struct json_object **report,
                struct xlv_error *e);

#endif
