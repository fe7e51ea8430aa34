/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The proof that the sandbox holds: at each start, what must fail is tried.
 * Everything tried here is harmless, should it succeed. See sandbox.h.
 */
#include "config.h"

#include "backend/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* the first has the types of the second */
#include <xenevtchn.h>
#include <xen/sys/evtchn.h>

#include "common/fd.h"

static int holds_not(struct xlv_error *e, const char *what)
{
    return xlv_fail(e, -EPERM, "the sandbox does not hold: %s", what);
}

static int capabilities(const struct xlv_sandbox_left *left, struct xlv_error *e)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct has[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, has) < 0)
        return xlv_fail(e, -errno, "capabilities cannot be read (%s)", strerror(errno));
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        if (has[i].effective || has[i].permitted || has[i].inheritable)
            return holds_not(e, "there are capabilities left");
    if (left->bounding)
        for (unsigned long i = 0;; i++) {
            int r = prctl(PR_CAPBSET_READ, i, 0, 0, 0);

            if (r < 0)
                break;
            if (r)
                return holds_not(e, "there are capabilities left in the bounding set");
        }
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return holds_not(e, "new privileges can be had");
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        return holds_not(e, "others can look into this process");
    return 0;
}

static int files(struct xlv_error *e)
{
    static const char *const paths[] = { "/proc/self/status", "/dev/null", "/etc/passwd", "/tmp" };

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        int fd = open(paths[i], O_RDONLY | O_CLOEXEC);

        if (fd >= 0) {
            xlv_close(&fd);
            return xlv_fail(e, -EPERM, "the sandbox does not hold: %s can be opened",
                            paths[i]);
        }
    }
    if (mkdirat(AT_FDCWD, "/x", 0700) == 0 || errno == EEXIST)
        return holds_not(e, "directories can be made");
    return 0;
}

static int network(struct xlv_error *e)
{
    struct sockaddr_in self = { .sin_family = AF_INET, .sin_port = htons(9),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

    if (fd < 0)
        return 0;
    /* a datagram's connect() only asks for a way there */
    r = connect(fd, (struct sockaddr *)&self, sizeof(self));
    xlv_close(&fd);
    return r == 0 ? holds_not(e, "there is a network") : 0;
}

int xlv_sandbox_prove_left(const struct xlv_sandbox *sandbox, const struct xlv_sandbox_left *left,
                           struct xlv_error *e)
{
    int r = capabilities(left, e), persona;

    if (!r && sandbox->uid &&
        (getuid() != sandbox->uid || setresuid(-1, 0, -1) == 0 || setresgid(-1, 0, -1) == 0))
        r = holds_not(e, "it can be root again");
    if (!r && left->namespaces)
        r = files(e);
    if (!r && left->network)
        r = network(e);
    /* Under systemd's LockPersonality= the question is refused, and the personality is Linux's own,
     * which systemd has looked at. */
    persona = r ? -1 : personality(0xffffffff);
    if (persona >= 0 && persona & READ_IMPLIES_EXEC)
        r = holds_not(e, "memory that can be read can be executed");
    return r;
}

/* What the filter must stop, with arguments that would do no harm. */
struct attempt {
    long call, argument[6];
    const char *what;
};

#define TRY(name, ...) { SYS_##name, { __VA_ARGS__ }, #name }
#define BAD_CLONE CLONE_SIGHAND /* without CLONE_VM: EINVAL */

static const struct attempt attempts[] = {
    TRY(openat, AT_FDCWD, (long)"/", O_RDONLY, 0),
#ifdef SYS_open
    TRY(open, (long)"/", O_RDONLY, 0),
#endif
    TRY(openat2, -1, 0, 0, 0),
    TRY(socket, AF_UNIX, SOCK_STREAM, 0),
    TRY(socketpair, AF_UNIX, SOCK_STREAM, 0, 0),
    TRY(connect, -1, 0, 0),
    TRY(bind, -1, 0, 0),
    TRY(execve, 0, 0, 0),
    TRY(execveat, -1, 0, 0, 0, 0),
    TRY(clone, BAD_CLONE, 0, 0, 0, 0),
    TRY(clone3, 0, 0),
    TRY(unshare, 0),
    TRY(setns, -1, 0),
    TRY(mount, 0, 0, 0, 0, 0),
    TRY(pivot_root, 0, 0),
    TRY(chroot, 0),
    TRY(ptrace, PTRACE_PEEKDATA, 0, 0, 0),
    TRY(process_vm_readv, 0, 0, 0, 0, 0, 0),
    TRY(process_vm_writev, 0, 0, 0, 0, 0, 0),
    TRY(pidfd_open, 0, 0),
    TRY(pidfd_getfd, -1, 0, 0),
    TRY(kill, 1, 0),
    TRY(tgkill, 1, 1, 0),
    TRY(setuid, -1),
    TRY(setresuid, -1, -1, -1),
    TRY(capset, 0, 0),
    TRY(prctl, PR_GET_DUMPABLE, 0, 0, 0, 0),
    TRY(seccomp, -1, 0, 0),
    TRY(setpriority, PRIO_PROCESS, 0, 0),
    TRY(sched_setattr, 1, 0, 0),
    TRY(prlimit64, 0, RLIMIT_NOFILE, 0, 0),
    TRY(keyctl, -1, 0, 0, 0, 0),
    TRY(bpf, -1, 0, 0),
    TRY(perf_event_open, 0, 0, 0, -1, -1),
    TRY(io_uring_setup, 0, 0),
    TRY(userfaultfd, -1),
    TRY(memfd_create, 0, -1),
    TRY(shmget, 0, 0, 0),
    TRY(dup, -1),
    TRY(ftruncate, -1, 0),
    TRY(mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
    TRY(mmap, 0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
    TRY(mmap, 0, 4096, PROT_READ, MAP_PRIVATE, -1, 0),
    TRY(mprotect, 0, 0, PROT_EXEC),
    TRY(newfstatat, AT_FDCWD, (long)"/", 0, 0),
    TRY(getsockopt, -1, SOL_SOCKET, SO_TYPE, 0, 0),
    TRY(ioctl, -1, IOCTL_EVTCHN_NOTIFY, 0),
};

static bool is_stopped(const struct attempt *a, const long argument[6])
{
    long r;

    (void)xlv_sandbox_noted();
    errno = 0;
    r = syscall(a->call, argument[0], argument[1], argument[2], argument[3], argument[4],
                argument[5]);
    if (r == 0 && (a->call == SYS_clone || a->call == SYS_clone3))
        _exit(1);
    return xlv_sandbox_noted() == a->call ||
           /* see sanitizer_may and sanitizer_fails there */
           (xlv_sandbox_is_sanitized() && (a->call == SYS_prctl || (r == -1 && errno == EPERM)));
}

int xlv_sandbox_prove_filter(int event_channel, struct xlv_error *e)
{
    const struct attempt binding = {
        SYS_ioctl, { event_channel, IOCTL_EVTCHN_BIND_INTERDOMAIN, 0 }, "ioctl",
    };
    const char *failed = NULL;

    xlv_sandbox_only_note(true);
    for (size_t i = 0; !failed && i < sizeof(attempts) / sizeof(attempts[0]); i++)
        if (!is_stopped(&attempts[i], attempts[i].argument))
            failed = attempts[i].what;
    if (!failed && event_channel >= 0 && !is_stopped(&binding, binding.argument))
        failed = "binding another event channel";
    xlv_sandbox_only_note(false);
    return failed ? xlv_fail(e, -EPERM, "the sandbox does not hold: %s is not stopped",
                             failed) : 0;
}
