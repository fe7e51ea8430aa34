/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sandbox: see sandbox.h. */
#include "config.h"

#include "backend/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"

/* The descriptors of LAUNCH, three standard ones, evtchn, gntdev, signalfd, the
 * daemon and a daemon that takes its place, and a few for libraries. */
#define FILES_MAX 32
/* No file of ours comes near; a runaway write must not fill a disk. */
#define FILE_SIZE_MAX (64UL * 1024 * 1024)

static int not_locked; /* errno: why memory may be swapped */

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ADDRESS_SANITIZER
#endif

#ifdef WITH_ADDRESS_SANITIZER
/* The leak checker starts a process that attaches to this one, which is just
 * what is impossible once the user was changed: only for builds under test. */
int __lsan_is_turned_off(void);

int __lsan_is_turned_off(void)
{
    return geteuid() != 0;
}
#endif

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

int xlv_sandbox_enter(struct xlv_port *port, uint32_t uid, uint32_t gid, struct xlv_error *e)
{
    int r = 0;

    if (not_locked)
        xlv_log(XLV_LOG_INFO, "memory is not locked (%s; LimitMEMLOCK=infinity allows it): "
                "secrets may reach the swap space", strerror(not_locked));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return xlv_fail(e, -errno, "PR_SET_NO_NEW_PRIVS failed (%s)", strerror(errno));
    if (port)
        r = xlv_port_restrict(port, e);
    if (!r)
        r = limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", FILES_MAX, e);
    if (!r)
        r = limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", FILE_SIZE_MAX, e);
    if (!r && uid)
        r = become(uid, gid, e);
    /* last: with it set, becoming another user may fail */
    if (!r)
        r = limit(RLIMIT_NPROC, "RLIMIT_NPROC", 0, e);
    /* changing the user sets it back to the system's default */
    if (!r && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        r = xlv_fail(e, -errno, "PR_SET_DUMPABLE failed (%s)", strerror(errno));
    return r;
}
