/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Admission: may this device have this instance? Pure, so that every case is a
 * line in a test.
 *
 * An instance serves one device at a time. The second one is refused at once,
 * where libxl still waits and its message reaches the administrator; it waits
 * instead where the first is about to let go (the reboot overlap: the new
 * domain appears while the old one closes) or is a migration's other half.
 *
 * A restored domain expects the TPM that it was saved with, PCRs and sessions
 * and all. It gets the state that was kept at that save, or none: one whose
 * PCRs were reset could claim a boot that it did not have.
 */
#ifndef XLV_ADMISSION_H
#define XLV_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "libxl-vtpm/device.h"
#include "libxl-vtpm/registry.h"

enum xlv_holder {
    XLV_HOLDER_NONE,
    XLV_HOLDER_CLOSING, /* on its way out */
    XLV_HOLDER_LIVE,
};

struct xlv_admission {
    int resolved; /* of the registry, or of reading the device's nodes */
    enum xlv_life life;
    enum xlv_holder holder;
    bool incoming;  /* the domain is being received */
    bool past;      /* libxl does not wait any more (found, or come back) */
    /* the domain, see domain.h */
    bool untold;       /* created or restored, that cannot be told */
    bool restored;     /* and has not run since */
    bool late;         /* it runs already, so its boot was not measured */
    bool kept;         /* the state of this very save is kept, or will be */
    enum xlv_accept accept;
    enum xlv_handover handover;
    bool on_its_way; /* and may come back: whoever gives it away is at it still */
    /* settings */
    bool refuse_untold, refuse_late;
};

enum xlv_admission_why {
    XLV_WHY_ADMITTED,
    XLV_WHY_WAITS,       /* admitted; the instance is not free yet */
    XLV_WHY_UNRESOLVED,
    XLV_WHY_ELSEWHERE, /* another host has it, or may have it */
    XLV_WHY_QUARANTINED,
    XLV_WHY_IN_USE,
    XLV_WHY_UNTOLD,
    XLV_WHY_OTHER_SAVE,
    XLV_WHY_LATE,
};

enum xlv_admission_why xlv_admission_decide(const struct xlv_admission *facts);

/* Is a holder in this state on its way out, as seen in its last view? */
enum xlv_holder xlv_admission_holder(enum xlv_device_state state,
                                     const struct xlv_device_view *view);

#endif
