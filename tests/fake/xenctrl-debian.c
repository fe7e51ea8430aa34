/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xenctrl-debian.c - the rest of libxenctrl that Debian's xenstored and xl use, over fakexend.
 *
 * Together with xenctrl.c, xenevtchn.c, xengnttab.c and xentoolcore.c this makes libfakexen.so, an
 * LD_PRELOAD object for these two programs only; our own run on the libraries with the real
 * sonames. Its symbols carry no version and so satisfy references to any.
 *
 * xenstored finds domain 0's own ring through /proc/xen, hence the replaced open(): it answers
 * /proc/xen/xsd_kva and xsd_port with files of the machine and leaves all other paths alone.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xenctrl.h>

#include "client.h"
#include "xenctrl.h"

#define XSD_PREFIX "/proc/xen/xsd_"

int xc_domain_getinfolist(xc_interface *xch, uint32_t first, unsigned int max,
                          xc_domaininfo_t *info)
{
    struct fx_msg m;
    unsigned int n = 0;

    (void)xch;
    for (; n < max && fxc_next_domain(first, &m); n++, first = m.a + 1) {
        memset(&info[n], 0, sizeof(info[n]));
        info[n].domain = (domid_t)m.a;
        if (m.b == FX_DOM_RUNNING)
            info[n].flags |= XEN_DOMINF_running;
        if (m.b == FX_DOM_SHUTDOWN)
            info[n].flags |= XEN_DOMINF_shutdown | m.c << XEN_DOMINF_shutdownshift;
        if (m.b == FX_DOM_DYING)
            info[n].flags |= XEN_DOMINF_dying;
    }
    return (int)n;
}

int xc_version(xc_interface *xch, int cmd, void *arg)
{
    static const struct { int cmd; size_t size; } blank[] = {
        { XENVER_extraversion, sizeof(xen_extraversion_t) },
        { XENVER_compile_info, sizeof(xen_compile_info_t) },
        { XENVER_capabilities, sizeof(xen_capabilities_info_t) },
        { XENVER_changeset, sizeof(xen_changeset_info_t) },
        { XENVER_platform_parameters, sizeof(xen_platform_parameters_t) },
        { XENVER_commandline, sizeof(xen_commandline_t) },
    };

    (void)xch;
    for (size_t i = 0; i < sizeof(blank) / sizeof(blank[0]); i++)
        if (blank[i].cmd == cmd)
            memset(arg, 0, blank[i].size);
    if (cmd == XENVER_pagesize)
        return (int)FX_PAGE;
    return cmd == XENVER_version ? 4 << 16 | 17 : 0;
}

int xc_physinfo(xc_interface *xch, xc_physinfo_t *info)
{
    (void)xch;
    memset(info, 0, sizeof(*info));
    info->nr_cpus = 1;
    return 0;
}

int xc_get_max_cpus(xc_interface *xch)
{
    (void)xch;
    return 1;
}

int xc_get_max_nodes(xc_interface *xch)
{
    (void)xch;
    return 1;
}

int xc_sched_id(xc_interface *xch, int *id)
{
    (void)xch;
    *id = 0;
    return 0;
}

int xc_flask_sid_to_context(xc_interface *xch, int sid, char *buf, uint32_t size)
{
    (void)xch, (void)sid, (void)buf, (void)size;
    errno = ENOSYS;
    return -1;
}

/* ------------------------------------------------------------------ /proc/xen */

static int open_path(const char *path, int flags, mode_t mode)
{
    char file[PATH_MAX];

    if (path && !strncmp(path, XSD_PREFIX, sizeof(XSD_PREFIX) - 1)) {
        snprintf(file, sizeof(file), "%s/xsd_%s", fxc_dir(), path + sizeof(XSD_PREFIX) - 1);
        path = file;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

#define OPEN_FUNCTION(name)                                                  \
    int name(const char *path, int flags, ...);                              \
    int name(const char *path, int flags, ...)                               \
    {                                                                        \
        mode_t mode = 0;                                                     \
        va_list ap;                                                          \
                                                                             \
        va_start(ap, flags);                                                 \
        if (flags & (O_CREAT | __O_TMPFILE))                                 \
            mode = va_arg(ap, mode_t);                                       \
        va_end(ap);                                                          \
        return open_path(path, flags, mode);                                 \
    }

OPEN_FUNCTION(open)
OPEN_FUNCTION(open64)

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

int __open_2(const char *path, int flags)
{
    return open_path(path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
    return open_path(path, flags, 0);
}
