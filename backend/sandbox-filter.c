/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The filter of system calls: what is left to a backend in its sandbox, as a
 * list for libseccomp, which knows the numbers of each architecture. It is the
 * same on all of them: a call that one does not have is left out there.
 *
 * Whatever is not on the list raises SIGSYS. Its handler tells what it was and
 * ends the process; blocked or ignored, the kernel ends it. The handler cannot
 * be replaced. Calls of a foreign architecture (32 bit, x32) end it at once.
 *
 * A call comes onto the list with who needs it, and with the narrowest
 * arguments that do. Descriptors are not compared: all that are open belong to
 * this one TPM.
 */
#include "config.h"

#include "backend/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* the first has the types of the second */
#include <xenevtchn.h>
#include <xen/sys/evtchn.h>

#include "common/log.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ADDRESS_SANITIZER
#endif

struct rule {
    int call;
    unsigned conditions;
    struct scmp_arg_cmp condition[3];
};

#define CALL(name) { SCMP_SYS(name), 0, { { 0 } } }
/* the argument is this; all 64 bits are compared, so that nothing hides in the upper ones */
#define IS(argument, value) SCMP_CMP64(argument, SCMP_CMP_EQ, (uint64_t)(value))
/* of these bits, exactly those are set */
#define BITS(argument, these, those) \
    SCMP_CMP64(argument, SCMP_CMP_MASKED_EQ, (uint64_t)(these), (uint64_t)(those))
#define CALL1(name, a) { SCMP_SYS(name), 1, { a } }
#define CALL2(name, a, b) { SCMP_SYS(name), 2, { a, b } }

static const struct rule list[] = {
    /* the loop: the guest's events, SIGTERM, the daemon and its successor */
    CALL(poll),
    CALL(ppoll), /* where there is no poll (arm64) */
    CALL(read),
    CALL(write),
    CALL(close),
    CALL(recvmsg),
    CALL(sendmsg),
    CALL(accept4),
    CALL2(getsockopt, IS(1, SOL_SOCKET), IS(2, SO_PEERCRED)),
    CALL(restart_syscall),
    /* store and journal, which are open */
    CALL(pread64),
    CALL(pwrite64),
    CALL(fdatasync),
    CALL(fadvise64),
    CALL1(fallocate, IS(1, 0)),
    CALL(fstat),
    CALL1(newfstatat, IS(3, AT_EMPTY_PATH)), /* fstat() of glibc */
    /* memory; never executable, never a file's, never shared */
    CALL(brk),
    CALL(munmap),
    CALL(mremap),
    CALL2(mmap, BITS(2, PROT_EXEC, 0),
          BITS(3, MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS, MAP_PRIVATE | MAP_ANONYMOUS)),
    CALL1(mprotect, BITS(2, PROT_EXEC, 0)),
    CALL1(madvise, IS(2, MADV_DONTNEED)), /* free() */
    CALL1(madvise, IS(2, MADV_FREE)),
    /* time and chance; by the vDSO where there is one, which a PV dom0 may not have */
    CALL(getrandom),
    CALL(clock_gettime),
    CALL(gettimeofday),
    CALL(time),
    /* a long command that is cancelled (cancel.h) */
    CALL(timer_settime),
    CALL(timer_delete),
    /* and steps back (cancel.h); itself alone, and limits keep it from more than it had */
    CALL2(sched_setattr, IS(0, 0), IS(2, 0)),
    CALL(rt_sigreturn),
    CALL(rt_sigprocmask),
    CALL1(rt_sigaction, IS(0, SIGALRM)),
    /* libcrypto's locks, of which nobody else has an end */
    CALL1(futex, IS(1, FUTEX_WAKE_PRIVATE)),
    CALL1(futex, IS(1, FUTEX_WAIT_PRIVATE)),
    CALL(getpid), /* libcrypto wants to notice a fork() */
    CALL(gettid),
    /* an end: exit(), and abort() with its text; signals to this process: see load() */
    CALL(exit),
    CALL(exit_group),
    CALL1(rt_sigaction, IS(0, SIGABRT)),
    CALL1(writev, IS(0, STDERR_FILENO)),
    /* libtpms says by dprintf() what it does not like of a state; where is that? */
    CALL2(lseek, IS(1, 0), IS(2, SEEK_CUR)),
};

#ifdef WITH_ADDRESS_SANITIZER
/*
 * Builds under test only: what the sanitizers' runtime does while the program
 * runs, and what it tries for a report; the latter fails softly, or the report
 * would be lost.
 */
static const struct rule sanitizer_may[] = {
    CALL(sigaltstack),
    CALL(sched_yield),
    CALL(madvise),
    CALL(futex),
    CALL(prctl), /* naming of mappings */
    CALL(rt_sigaction),
    CALL(sched_getaffinity),
    CALL(getuid),
    CALL(geteuid),
    CALL(lseek),
    CALL(writev),
};
static const int sanitizer_fails[] = {
    SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(access),
    SCMP_SYS(stat), SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(fork), SCMP_SYS(vfork),
    SCMP_SYS(pipe), SCMP_SYS(pipe2), SCMP_SYS(prlimit64), SCMP_SYS(getrlimit), SCMP_SYS(uname),
    SCMP_SYS(fcntl), SCMP_SYS(getcwd), SCMP_SYS(wait4), SCMP_SYS(unlink),
    SCMP_SYS(dup2), SCMP_SYS(execve), SCMP_SYS(socket), SCMP_SYS(sysinfo),
};

static bool loaded;

/* The leak checker starts a process that attaches to this one, which is just
 * what is impossible here. */
int __lsan_is_turned_off(void);

int __lsan_is_turned_off(void)
{
    return loaded;
}
#endif

bool xlv_sandbox_is_sanitized(void)
{
#ifdef WITH_ADDRESS_SANITIZER
    return true;
#else
    return false;
#endif
}

/* --- what happens to the rest ------------------------------------------------- */

static void (*report)(const char *text);
static volatile sig_atomic_t only_note, noted = -1;

void xlv_sandbox_only_note(bool on)
{
    only_note = on;
}

int xlv_sandbox_noted(void)
{
    int was = noted;

    noted = -1;
    return was;
}

static void on_sigsys(int signal_number, siginfo_t *info, void *context)
{
    char text[160];
    char *name;

    (void)signal_number;
    (void)context;
    if (only_note) {
        noted = info->si_syscall;
        return;
    }
    /* The process is lost, so functions may be called that a handler must not: the worst that
     * comes of it is a death without a name. */
    snprintf(text, sizeof(text), "system call %d was made, which the sandbox forbids",
             info->si_syscall);
    xlv_log(XLV_LOG_ERROR, "%s: this process ends", text);
    name = seccomp_syscall_resolve_num_arch(info->si_arch, info->si_syscall);
    snprintf(text, sizeof(text), "it made system call %d (%s), which its sandbox forbids",
             info->si_syscall, name ? name : "unknown");
    if (report)
        report(text);
    /* the one call that is deadly, so that whoever waits sees a SIGSYS */
    (void)syscall(SYS_rt_sigaction, SIGSYS, NULL, NULL, 8);
    _exit(EXIT_FAILURE);
}

static int add(scmp_filter_ctx filter, uint32_t action, const struct rule *rules, size_t count)
{
    int r = 0;

    for (size_t i = 0; !r && i < count; i++)
        r = seccomp_rule_add_array(filter, action, rules[i].call, rules[i].conditions,
                                   rules[i].condition);
    return r;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int fill(scmp_filter_ctx filter, int event_channel)
{
    const struct rule notify = {
        SCMP_SYS(ioctl), 2, { IS(0, event_channel), IS(1, IOCTL_EVTCHN_NOTIFY) },
    };
    /* raise() and abort() */
    const struct rule to_itself = {
        SCMP_SYS(tgkill), 2, { IS(0, getpid()), IS(1, gettid()) },
    };
    /* the other question of dprintf(): is it a terminal? No, says the filter, without the kernel */
    const struct rule terminal = CALL1(ioctl, IS(1, TCGETS));
    const struct rule deadly = CALL1(rt_sigaction, IS(0, SIGSYS));
    int r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

    if (!r)
        r = add(filter, SCMP_ACT_ALLOW, list, COUNT(list));
    if (!r)
        r = add(filter, SCMP_ACT_ALLOW, &to_itself, 1);
    if (!r && event_channel >= 0)
        r = add(filter, SCMP_ACT_ALLOW, &notify, 1);
    if (!r)
        r = add(filter, SCMP_ACT_ERRNO(ENOTTY), &terminal, 1);
#ifdef WITH_ADDRESS_SANITIZER
    for (size_t i = 0; !r && i < COUNT(sanitizer_fails); i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), sanitizer_fails[i], 0);
    /* without the condition it would take the answer above with it */
    if (!r)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_NE, TCGETS));
    if (!r)
        r = add(filter, SCMP_ACT_ALLOW, sanitizer_may, COUNT(sanitizer_may));
#endif
    if (!r)
        r = add(filter, SCMP_ACT_KILL_PROCESS, &deadly, 1);
    return r;
}

int xlv_sandbox_filter(int event_channel, void (*on_forbidden)(const char *text),
                       struct xlv_error *e)
{
    struct sigaction action = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };
    scmp_filter_ctx filter;
    int r;

    report = on_forbidden;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGSYS, &action, NULL) < 0)
        return xlv_fail(e, -errno, "no handler for SIGSYS (%s)", strerror(errno));
    filter = seccomp_init(SCMP_ACT_TRAP);
    if (!filter)
        return xlv_fail(e, -ENOMEM, "no memory for the filter of system calls");
    r = fill(filter, event_channel);
    if (!r)
        r = seccomp_load(filter);
    seccomp_release(filter);
    if (r)
        return xlv_fail(e, r, "the filter of system calls cannot be set up (%s): the kernel needs "
                        "CONFIG_SECCOMP_FILTER", strerror(-r));
#ifdef WITH_ADDRESS_SANITIZER
    loaded = true;
    xlv_log(XLV_LOG_NOTICE, "this is a build for tests: its filter lets the sanitizers through");
#endif
    return 0;
}
