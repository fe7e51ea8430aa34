/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xenctrl.c - a fake of the little of libxenctrl.so.4.17 that xl-vtpmd calls, over fakexend. It is
 * part of libfakexen.so too (xenctrl-debian.c).
 *
 * As with Xen, only domain 0 gets an answer.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include <xenctrl.h>

#include "client.h"
#include "xenctrl.h"

static char handle;              /* all calls go to the one hypervisor there is */

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild,
                                unsigned int flags)
{
    (void)logger, (void)dombuild, (void)flags;
    fxc_dir();
    if (fxc_fault("xc_interface_open", fxc_domid()))
        return NULL;
    if (fxc_domid()) {
        errno = EPERM;
        return NULL;
    }
    return (xc_interface *)&handle;
}

int xc_interface_close(xc_interface *xch)
{
    (void)xch;
    return 0;
}

bool fxc_next_domain(uint32_t first, struct fx_msg *m)
{
    int fd = fxc_connect();
    bool ok;

    *m = (struct fx_msg){ .op = FX_OP_DOM_INFO, .a = first };
    ok = fd >= 0 && fxc_call(fd, m, NULL, 0) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
    struct fx_msg m;
    unsigned int n = 0;

    (void)xch;
    for (; n < max && fxc_next_domain(first, &m); n++, first = m.a + 1) {
        memset(&info[n], 0, sizeof(info[n]));
        info[n].domid = m.a;
        info[n].paused = !m.n || m.dom[0];
        info[n].running = !info[n].paused && m.b == FX_DOM_RUNNING;
        info[n].cpu_time = m.n ? 1000 : 0;
        info[n].shutdown = m.b == FX_DOM_SHUTDOWN;
        info[n].dying = m.b == FX_DOM_DYING;
        info[n].shutdown_reason = m.c;
        info[n].crashed = info[n].shutdown && m.c == SHUTDOWN_crash;
    }
    if (!n) {
        errno = ESRCH;
        return -1;
    }
    return (int)n;
}

int xc_domain_get_tsc_info(xc_interface *xch, uint32_t domid, uint32_t *tsc_mode,
                           uint64_t *elapsed_nsec, uint32_t *gtsc_khz, uint32_t *incarnation)
{
    struct fx_msg m;

    (void)xch;
    if (!fxc_next_domain(domid, &m) || m.a != domid) {
        errno = ESRCH;
        return -1;
    }
    *tsc_mode = 0;
    *elapsed_nsec = 0;
    *gtsc_khz = 1000000;
    *incarnation = (uint32_t)m.cookie;
    return 0;
}

/* All domains are PV here. */
int xc_domain_hvm_getcontext_partial(xc_interface *xch, uint32_t domid, uint16_t typecode,
                                     uint16_t instance, void *ctxt_buf, uint32_t size)
{
    (void)xch, (void)domid, (void)typecode, (void)instance, (void)ctxt_buf, (void)size;
    errno = EINVAL;
    return -1;
}
