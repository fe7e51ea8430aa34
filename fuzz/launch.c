/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The messages between daemon and backend, each as either side judges it (include/launch.h):
 * a LAUNCH, and what a backend may say in each phase. Input: u8 number of descriptors, then the
 * message.
 */
#include <string.h>

#include "backend/launch.h"
#include "fuzz/fuzz.h"
#include "libxl-vtpm/supervisor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    size_t nfds = xlv_get_u8(&in) & 7, length;
    const uint8_t *bytes = rest(&in, &length);
    struct xlv_msg_launch launch = { .mode = 0 };
    struct xlv_msg_header h;
    enum xlv_child_phase next;

    if (!bytes)
        return 0;
    memcpy(&launch, bytes, length < sizeof(launch) ? length : sizeof(launch));
    if (!xlv_launch_check(&launch, length, nfds, NULL)) {
        MUST(length == sizeof(launch) && (nfds >= 2 && nfds <= XLV_LAUNCH_FDS_MAX));
        MUST(launch.mode != XLV_LAUNCH_SERVE ||
             (launch.domid <= XLV_DOMID_MAX && launch.devid <= XLV_DEVID_MAX &&
              launch.max_locality <= XLV_LOCALITY_MAX));
    }
    for (unsigned phase = 0; phase < XLV_PHASES; phase++)
        for (unsigned mode = XLV_LAUNCH_SERVE; mode <= XLV_LAUNCH_KEEP; mode++) {
            next = XLV_PHASES;
            if (xlv_child_may_say((enum xlv_child_phase)phase, (enum xlv_launch_mode)mode, bytes,
                                  length, &next))
                continue;
            memcpy(&h, bytes, sizeof(h));
            MUST(next < XLV_PHASES && phase != XLV_PHASE_DONE);
            MUST(h.type != XLV_MSG_LAUNCH && h.type != XLV_MSG_QUERY && h.type != XLV_MSG_STOP &&
                 h.type != XLV_MSG_CERTIFICATES);
        }
    (void)xlv_child_is_foreign(bytes, length);
    return 0;
}
