/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is kept of root: see privileges.h. */
#include "config.h"

#include "libxl-vtpm/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

/* Who needs it. What only the backends need, they need before they give it up. */
static const unsigned kept[] = {
    CAP_CHOWN,        /* the control socket's group */
    CAP_DAC_OVERRIDE, /* state and key files that an administrator gave to somebody */
    CAP_KILL,         /* backends are other users */
    CAP_SETGID,       /* backends become others */
    CAP_SETUID,
    CAP_SETPCAP,      /* and have no capability for ever */
    CAP_IPC_LOCK,     /* keys stay out of the swap space */
    CAP_SYS_ADMIN,    /* empty namespaces */
    CAP_SYS_CHROOT,   /* and an empty root, on a host that runs from its initramfs */
    CAP_SYS_PTRACE,   /* whose /proc/PID/exe is our program (adoption) */
    CAP_SYS_RESOURCE, /* limits that are lifted: locked memory, files */
};

static bool is_kept(unsigned long capability)
{
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        if (kept[i] == capability)
            return true;
    return false;
}

/* systemd's socket is a file; an abstract one would be out of reach in another namespace. */
static bool needs_this_network(void)
{
    const char *notify = getenv("NOTIFY_SOCKET");

    return notify && notify[0] != '/';
}

int xlv_privileges_limit(struct xlv_error *e)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3];

    if (geteuid() != 0)
        return 0;
    if (needs_this_network())
        xlv_log(XLV_LOG_INFO, "the network namespace is kept: NOTIFY_SOCKET is in it");
    else if (unshare(CLONE_NEWNET) < 0)
        xlv_log(XLV_LOG_INFO, "the network namespace is kept (%s)", strerror(errno));
    for (unsigned long i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
        if (!is_kept(i) && prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) {
            if (errno != EPERM)
                return xlv_fail(e, -errno, "capability %lu cannot be dropped (%s)", i,
                                strerror(errno));
            xlv_log(XLV_LOG_INFO, "capabilities cannot be dropped for ever here (no CAP_SETPCAP)");
            break;
        }
    if (syscall(SYS_capget, &header, now) < 0)
        return xlv_fail(e, -errno, "capabilities cannot be read (%s)", strerror(errno));
    for (unsigned i = 0; i < 32u * _LINUX_CAPABILITY_U32S_3; i++)
        if (!is_kept(i)) {
            now[i / 32].effective &= ~(UINT32_C(1) << i % 32);
            now[i / 32].permitted &= ~(UINT32_C(1) << i % 32);
            now[i / 32].inheritable &= ~(UINT32_C(1) << i % 32);
        }
    if (syscall(SYS_capset, &header, now) < 0)
        return xlv_fail(e, -errno, "capabilities cannot be dropped (%s)", strerror(errno));
    return 0;
}
