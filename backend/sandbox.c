/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sandbox: see sandbox.h. The order of the steps matters and is explained at each. */
#include "config.h"

#include "backend/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "include/limits.h"

static int not_locked; /* errno: why memory may be swapped */

static int limit(int resource, const char *name, rlim_t value, struct xlv_error *e)
{
    struct rlimit r = { .rlim_cur = value, .rlim_max = value };

    if (setrlimit(resource, &r) < 0)
        return xlv_fail(e, -errno, "the limit %s cannot be set to %llu (%s)", name,
                        (unsigned long long)value, strerror(errno));
    return 0;
}

int xlv_sandbox_prepare(struct xlv_error *e)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    struct rlimit all = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
    int r = limit(RLIMIT_CORE, "RLIMIT_CORE", 0, e);

    if (r)
        return r;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return xlv_fail(e, -errno, "PR_SET_DUMPABLE failed (%s)", strerror(errno));
    if (sigaction(SIGPIPE, &ignore, NULL) < 0 || sigaction(SIGXFSZ, &ignore, NULL) < 0 ||
        sigaction(SIGHUP, &ignore, NULL) < 0)
        return xlv_fail(e, -errno, "signals cannot be ignored (%s)", strerror(errno));
    /* Keys, seeds and every secret of the guest's TPM are anywhere in memory.
     * On fault: only what is used is kept, nothing is read in for it. Not under
     * a limit: what is mapped later counts as well, and malloc() would fail in
     * the middle of a command. */
    if (setrlimit(RLIMIT_MEMLOCK, &all) < 0 ||
        mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
        not_locked = errno;
    /* a library that asks for the time of day shall not look for a time zone's file */
    if (setenv("TZ", "UTC0", 1) < 0)
        return xlv_fail(e, -errno, "no memory");
    tzset();
    return 0;
}

/* --- namespaces ------------------------------------------------------------ */

/* Is there no network address here? xl-vtpmd lives in an empty network namespace that all its
 * backends share: one of their own would cost each 0.2 MiB of the kernel's memory. */
static bool network_is_empty(void)
{
    struct ifreq one[2];
    struct ifconf all = { .ifc_len = sizeof(one), .ifc_req = one };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool empty = fd < 0 ? errno == EAFNOSUPPORT : ioctl(fd, SIOCGIFCONF, &all) == 0 && !all.ifc_len;

    xlv_close(&fd);
    return empty;
}

/* The kernel says no, or knows no such thing: not the same as a failure of ours. */
static bool is_refusal(int number)
{
    return number == EPERM || number == EACCES || number == EINVAL || number == ENOSYS;
}

/* Makes the directory that we are in, which is a mount, the root. */
static int change_root(const char **step)
{
    *step = "pivot_root";
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        *step = "umount of the old root";
        return umount2(".", MNT_DETACH);
    }
    /* A system that runs from its initramfs, as a driver domain may: that root cannot be taken
     * away, so the new one is laid over it, and the old one has no name any more. */
    if (errno != EINVAL)
        return -1;
    *step = "moving the new root over the old one";
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0)
        return -1;
    *step = "chroot";
    return chroot(".");
}

/* A root that is empty and stays so. /proc is where the new one is mounted, because it is a
 * directory that every host has; it shall not be seen there any more anyway. */
static int enter_empty_root(struct xlv_error *e)
{
    const char *step = "MS_PRIVATE of /";

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && (step = "a tmpfs") &&
        mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY,
              "size=4k,nr_inodes=1,mode=0555") == 0 &&
        (step = "chdir") && chdir("/proc") == 0 && change_root(&step) == 0 && (step = "chdir") &&
        chdir("/") == 0)
        return 0;
    return xlv_fail(e, -errno, "an empty root directory cannot be had: %s failed (%s)", step,
                    strerror(errno));
}

static int leave_namespaces(struct xlv_sandbox_left *left, struct xlv_error *e)
{
    int r;

    left->network = network_is_empty();
    if (!left->network) {
        if (unshare(CLONE_NEWNET) == 0)
            left->network = true;
        else if (!is_refusal(errno))
            return xlv_fail(e, -errno, "no network namespace (%s)", strerror(errno));
    }
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0) {
        if (!is_refusal(errno))
            return xlv_fail(e, -errno, "no namespaces (%s)", strerror(errno));
    } else {
        r = enter_empty_root(e);
        if (r)
            return r;
        left->namespaces = true;
    }
    if (!left->network || !left->namespaces)
        xlv_log(XLV_LOG_INFO, "the kernel gives no namespaces here (no root, or a container): "
                "the user and the filter of system calls have to do");
    return 0;
}

/* --- user and capabilities --------------------------------------------------- */

/* None can come back after this, by whatever program. */
static int empty_bounding_set(struct xlv_sandbox_left *left, struct xlv_error *e)
{
    for (unsigned long i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) {
            if (errno == EPERM && i == 0)
                return 0; /* not root: there are none, and no_new_privs keeps it so */
            return xlv_fail(e, -errno, "capability %lu cannot be dropped for ever (%s)", i,
                            strerror(errno));
        }
    left->bounding = true;
    return 0;
}

static int drop_capabilities(struct xlv_error *e)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];

    memset(none, 0, sizeof(none));
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return xlv_fail(e, -errno, "ambient capabilities cannot be cleared (%s)", strerror(errno));
    if (syscall(SYS_capset, &header, none) < 0)
        return xlv_fail(e, -errno, "capabilities cannot be dropped (%s)", strerror(errno));
    return 0;
}

static int become(uid_t uid, gid_t gid, struct xlv_error *e)
{
    uid_t ru, eu, su;
    gid_t rg, eg, sg;

    if (!gid)
        return xlv_fail(e, XLV_E_INVALID, "uid %u was given without a gid", (unsigned)uid);
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return xlv_fail(e, -errno, "cannot become uid %u, gid %u (%s)", (unsigned)uid,
                        (unsigned)gid, strerror(errno));
    if (getresuid(&ru, &eu, &su) < 0 || getresgid(&rg, &eg, &sg) < 0 || ru != uid || eu != uid ||
        su != uid || rg != gid || eg != gid || sg != gid || getgroups(0, NULL) != 0 ||
        setuid(0) == 0 || setgid(0) == 0)
        return xlv_fail(e, -EPERM, "privileges are still there after becoming uid %u, gid %u",
                        (unsigned)uid, (unsigned)gid);
    return 0;
}

/* --- all of it ------------------------------------------------------------- */

int xlv_sandbox_leave_host(const struct xlv_sandbox *sandbox, struct xlv_sandbox_left *left,
                           struct xlv_error *e)
{
    int r = 0;

    *left = (struct xlv_sandbox_left){ .namespaces = false };
    if (not_locked)
        xlv_log(XLV_LOG_INFO, "memory is not locked (%s; LimitMEMLOCK=infinity allows it): "
                "secrets may reach the swap space", strerror(not_locked));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return xlv_fail(e, -errno, "PR_SET_NO_NEW_PRIVS failed (%s)", strerror(errno));
    /* opens /dev/null, so while there is one */
    if (sandbox->port)
        r = xlv_port_restrict(sandbox->port, e);
    if (!r)
        r = limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", XLV_BACKEND_FILES_MAX, e);
    if (!r)
        r = limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", XLV_BACKEND_FILE_SIZE_MAX, e);
    /* what sched_setattr() of the filter's list may not ask for */
    if (!r)
        r = limit(RLIMIT_NICE, "RLIMIT_NICE", 0, e);
    if (!r)
        r = limit(RLIMIT_RTPRIO, "RLIMIT_RTPRIO", 0, e);
    if (!r && !xlv_sandbox_is_sanitized())
        r = limit(RLIMIT_DATA, "RLIMIT_DATA", XLV_BACKEND_MEMORY_MAX, e);
    /* these three need capabilities, and the last one takes them all */
    if (!r)
        r = leave_namespaces(left, e);
    if (!r)
        r = empty_bounding_set(left, e);
    if (!r && sandbox->uid)
        r = become(sandbox->uid, sandbox->gid, e);
    if (!r)
        r = drop_capabilities(e);
    /* with it set, becoming another user may fail */
    if (!r)
        r = limit(RLIMIT_NPROC, "RLIMIT_NPROC", 0, e);
    /* changing the user sets it back to the system's default */
    if (!r && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        r = xlv_fail(e, -errno, "PR_SET_DUMPABLE failed (%s)", strerror(errno));
    return r;
}

int xlv_sandbox_enter(const struct xlv_sandbox *sandbox, struct xlv_error *e)
{
    int event_channel = sandbox->port ? xlv_port_fd(sandbox->port) : -1;
    struct xlv_sandbox_left left;
    int r = xlv_sandbox_leave_host(sandbox, &left, e);

    if (!r)
        r = xlv_sandbox_prove_left(sandbox, &left, e);
    if (!r)
        r = xlv_sandbox_filter(event_channel, sandbox->on_forbidden, e);
    if (!r)
        r = xlv_sandbox_prove_filter(event_channel, e);
    return r;
}
