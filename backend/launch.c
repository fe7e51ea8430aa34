/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Judging a LAUNCH: see launch.h. */
#include "backend/launch.h"

#include <stdbool.h>
#include <string.h>

#include "common/log.h"

int xlv_launch_check(const struct xlv_msg_launch *m, size_t length, size_t nfds,
                     struct xlv_error *e)
{
    bool serve, keep, make, try, pcrs;
    size_t wanted;

    if (length < sizeof(m->h) || m->h.magic != XLV_LAUNCH_MAGIC || m->h.type != XLV_MSG_LAUNCH)
        return xlv_fail(e, XLV_E_INVALID, "the first message is not a LAUNCH; this program is "
                        "started by xl-vtpmd");
    if (m->h.version != XLV_LAUNCH_VERSION || length != sizeof(*m))
        return xlv_fail(e, XLV_E_VERSION, "the LAUNCH has version %u and %zu bytes, this "
                        "vtpm-backend expects version %u and %zu: it is of another build than "
                        "xl-vtpmd", m->h.version, length, XLV_LAUNCH_VERSION, sizeof(*m));
    serve = m->mode == XLV_LAUNCH_SERVE;
    keep = m->mode == XLV_LAUNCH_KEEP;
    make = m->mode == XLV_LAUNCH_MANUFACTURE;
    try = m->mode == XLV_LAUNCH_TRY || m->mode == XLV_LAUNCH_CLEAR ||
          m->mode == XLV_LAUNCH_IDENTIFY;
    pcrs = m->mode == XLV_LAUNCH_PCRS;
    if ((!serve && !keep && !make && !try && !pcrs) ||
        (make && (!m->banks || (m->banks & ~XLV_BANKS_ALL))) ||
        (m->tpm_version != XLV_TPM_1_2 && m->tpm_version != XLV_TPM_2_0) ||
        xlv_uuid_is_nil(&m->uuid) || m->log_level > XLV_LOG_DEBUG || (m->uid && !m->gid) ||
        ((keep || pcrs) && m->domid > XLV_DOMID_MAX) ||
        (serve && (m->domid > XLV_DOMID_MAX || m->devid > XLV_DEVID_MAX ||
                   m->boot < XLV_BOOT_FRESH || m->boot > XLV_BOOT_KEPT ||
                   m->event_channel > XLV_EVTCHN_PORT_MAX ||
                   m->max_locality > XLV_LOCALITY_MAX || m->measure > XLV_MEASURE_ERROR ||
                   !memchr(m->kernel, '\0', sizeof(m->kernel)) ||
                   !memchr(m->ramdisk, '\0', sizeof(m->ramdisk)) ||
                   !memchr(m->cmdline, '\0', sizeof(m->cmdline)))))
        return xlv_fail(e, XLV_E_INVALID, "the LAUNCH has a value out of range (mode %u, TPM "
                        "version %u, domain %u/%u, event-channel %u, locality %u)", m->mode,
                        m->tpm_version, m->domid, m->devid, m->event_channel, m->max_locality);
    wanted = serve ? 4u : keep ? 3u : 2u;
    if (serve)
        wanted += !!m->has_log + (m->measure == XLV_MEASURE_FILES ? 1u + !!m->has_ramdisk : 0u);
    if (nfds != wanted && (!pcrs || nfds != 3))
        return xlv_fail(e, XLV_E_INVALID, "the LAUNCH carries %zu descriptors", nfds);
    return 0;
}
