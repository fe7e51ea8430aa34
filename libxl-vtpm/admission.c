/* SPDX-License-Identifier: GPL-2.0-or-later */
/* May this device have this instance: see admission.h. */
#include "libxl-vtpm/admission.h"

enum xlv_admission_why xlv_admission_decide(const struct xlv_admission *facts)
{
    if (facts->resolved)
        return XLV_WHY_UNRESOLVED;
    /* one that is departing may come back at once: its files say (instances.c); and the same goes
     * for one of which it is not known yet whether its domain started at the other host */
    if (facts->handover == XLV_HANDOVER_DEPARTED && (!facts->past || !facts->on_its_way))
        return XLV_WHY_ELSEWHERE;
    /* The domain comes with it: libxl has to go on, so that the giver can make up its mind. Its
     * claim waits until this host has it. */
    if (facts->handover == XLV_HANDOVER_ARRIVING &&
        (!facts->incoming || facts->life != XLV_LIFE_READY))
        return XLV_WHY_ELSEWHERE;
    if (facts->life == XLV_LIFE_QUARANTINED)
        return XLV_WHY_QUARANTINED;
    if (!facts->past) {
        if (facts->untold && facts->refuse_untold)
            return XLV_WHY_UNTOLD;
        if (facts->restored && !facts->kept && facts->accept == XLV_ACCEPT_NONE)
            return XLV_WHY_OTHER_SAVE;
        if (facts->late && facts->refuse_late)
            return XLV_WHY_LATE;
    }
    switch (facts->holder) {
    case XLV_HOLDER_NONE:
        return XLV_WHY_ADMITTED;
    case XLV_HOLDER_CLOSING:
        return XLV_WHY_WAITS;
    case XLV_HOLDER_LIVE:
        break;
    }
    /* refusing where nobody waits for the answer would only take a TPM away */
    return facts->incoming || facts->past ? XLV_WHY_WAITS : XLV_WHY_IN_USE;
}

enum xlv_holder xlv_admission_holder(enum xlv_device_state state,
                                     const struct xlv_device_view *view)
{
    switch (state) {
    case XLV_DEVICE_CLOSING:
    case XLV_DEVICE_HOLDING:
    case XLV_DEVICE_CLOSED:
    case XLV_DEVICE_ENDING:
    case XLV_DEVICE_ENDING_HOLD:
    case XLV_DEVICE_ENDED:
    case XLV_DEVICE_FAILED:
    case XLV_DEVICE_VANISHING:
    case XLV_DEVICE_GONE:
        return XLV_HOLDER_CLOSING;
    default:
        break;
    }
    if (!view->exists || !view->online || view->domain_dead || !view->frontend_exists ||
        view->frontend == XLV_XENBUS_CLOSING || view->frontend == XLV_XENBUS_CLOSED)
        return XLV_HOLDER_CLOSING;
    return XLV_HOLDER_LIVE;
}
