/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is forbidden, tried for real from inside the sandbox: each of its two
 * walls alone (the filter of system calls; the host that was left), then both.
 * Every attempt is a process of its own that has entered the sandbox as
 * vtpm-backend does, with the Xen devices of a pretended machine open.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>
#include <xen/sys/evtchn.h>

#include "backend/port.h"
#include "backend/sandbox.h"
#include "common/fd.h"
#include "common/log.h"
#include "include/limits.h"
#include "tests/fake/frontend.h"
#include "tests/fake/machine.h"

#define DOMID 5u
#define SOMEBODY 2013265921u /* nobody's uid */
#define SUCCEEDED 77         /* exit status: what must fail did not */

static struct {
    struct fx_machine *m;
    struct fx_vtpm device;
    struct fx_guest *guest;
    struct fx_frontend *frontend, *siblings;
    int abstract, inet; /* listening sockets of the host */
} host;

/* What an attempt has and goes for; given to it as text. */
static struct {
    uint32_t ring_ref, event_channel;
    int file;       /* open for reading and writing, as a slot is */
    int told;       /* where its report goes */
    pid_t sibling;  /* another backend in its sandbox, with the same uid */
    unsigned inet_port;
    char abstract_name[64], machine[96];
} w;

enum walls { HOST = 1, FILTER = 2, BOTH = 3, UNIT = 4 };

static struct xlv_port *port;

static void on_forbidden(const char *text)
{
    (void)xlv_write_all(w.told, text, strlen(text));
}

/* In a child: as vtpm-backend enters. */
/* The filter that systemd sets up for LockPersonality= and MemoryDenyWriteExecute= of our unit (its
 * seccomp-util.c, version 252): the daemon has it, and so all that it starts. */
static void be_a_unit(void)
{
    const uint32_t refuse = SCMP_ACT_ERRNO(EPERM);
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);

    if (seccomp_rule_add(f, refuse, SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_NE, 0)) ||
        seccomp_rule_add(f, refuse, SCMP_SYS(mmap), 1,
                         SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE,
                                 PROT_EXEC | PROT_WRITE)) ||
        seccomp_rule_add(f, refuse, SCMP_SYS(mprotect), 1,
                         SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC)) ||
        seccomp_load(f))
        _exit(94);
    seccomp_release(f);
}

static void enter(enum walls walls)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_sandbox_left left;
    struct xlv_sandbox sandbox = { .on_forbidden = on_forbidden };
    int r = xlv_sandbox_prepare(&e);

    if (geteuid() == 0)
        sandbox.uid = sandbox.gid = SOMEBODY;
    if (!r)
        r = xlv_port_open(&port, DOMID, w.ring_ref, w.event_channel, &e);
    sandbox.port = port;
    if (walls == UNIT)
        be_a_unit();
    if (!r && (walls == BOTH || walls == UNIT))
        r = xlv_sandbox_enter(&sandbox, &e);
    else if (!r && walls == HOST) {
        r = xlv_sandbox_leave_host(&sandbox, &left, &e);
        if (!r)
            r = xlv_sandbox_prove_left(&sandbox, &left, &e);
    } else if (!r) {
        r = xlv_sandbox_filter(xlv_port_fd(port), on_forbidden, &e);
    }
    if (r) {
        fprintf(stderr, "# %s\n", e.text);
        _exit(99);
    }
}

struct end {
    int status;     /* as of waitpid */
    char text[512]; /* what on_forbidden was told, or the attempt wrote */
};

/*
 * Runs this program again for one attempt: fresh, since everything of Xen that
 * is open in a process is given up with the sandbox, and here that is a guest's.
 */
static pid_t start(const char *walls, const char *what, int report)
{
    char text[512];
    pid_t pid;

    snprintf(text, sizeof(text), "%u %u %d %d %d %u %s %s", w.ring_ref, w.event_channel, w.file,
             report, (int)w.sibling, w.inet_port, w.abstract_name, w.machine);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    /* the texts of an abort() */
    if (dup2(report, STDERR_FILENO) < 0 || fcntl(report, F_SETFD, 0) < 0 ||
        fcntl(w.file, F_SETFD, 0) < 0)
        _exit(98);
    execl("/proc/self/exe", "test-sandbox", walls, what, text, (char *)NULL);
    _exit(97);
}

static struct end attempt_at(enum walls walls, const char *what)
{
    static const char *const names[] = { [HOST] = "host", [FILTER] = "filter", [BOTH] = "both",
                                        [UNIT] = "unit" };
    struct end end = { .status = -1 };
    size_t n = 0;
    ssize_t got;
    int pair[2];
    pid_t pid;

    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    pid = start(names[walls], what, pair[1]);
    close(pair[1]);
    while ((got = read(pair[0], end.text + n, sizeof(end.text) - 1 - n)) > 0)
        n += (size_t)got;
    close(pair[0]);
    assert_int_equal(waitpid(pid, &end.status, 0), pid);
    return end;
}

/* --- the filter ------------------------------------------------------------ */

/*
 * All that is left, a second time: who adds a system call to the filter adds it
 * here, too, and says why there. '*' only with some arguments.
 */
static const char *const left_over[] = {
    "poll", "ppoll", "read", "write", "close", "recvmsg", "sendmsg", "accept4", "*getsockopt",
    "restart_syscall", "pread64", "pwrite64", "fdatasync", "fadvise64", "*fallocate", "fstat",
    "*newfstatat", "brk", "munmap", "mremap", "*mmap", "*mprotect", "*madvise", "getrandom",
    "clock_gettime", "gettimeofday", "time", "timer_settime", "timer_delete", "rt_sigreturn",
    "rt_sigprocmask", "*rt_sigaction", "*futex", "getpid", "gettid", "exit", "exit_group",
    "*writev", "*tgkill", "*ioctl", "*lseek", "*sched_setattr",
};

static void every_call_there_is(void)
{
    xlv_sandbox_only_note(true);
    for (int call = 0; call < 1024; call++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);
        bool allowed = false;
        char line[128];
        int noted;

        for (size_t i = 0; name && i < sizeof(left_over) / sizeof(left_over[0]); i++)
            if (!strcmp(name, left_over[i] + (left_over[i][0] == '*'))) {
                /* with arguments that nobody needs, those are stopped as well */
                allowed = left_over[i][0] != '*';
                break;
            }
#ifdef __x86_64__
        /* uretprobe and uprobe: the kernel's own trampolines, which no filter sees; who calls
         * them from elsewhere gets a SIGILL */
        allowed = allowed || call == 335 || call == 336;
#endif
        if (allowed)
            continue;
        (void)xlv_sandbox_noted();
        (void)syscall(call, -1L, -1L, -1L, -1L, -1L, -1L);
        noted = xlv_sandbox_noted();
        if (noted != call) {
            snprintf(line, sizeof(line), "%d (%s) was not stopped; ", call, name ? name : "?");
            (void)xlv_write_all(w.told, line, strlen(line));
        }
    }
    _exit(0);
}

static void the_filter_stops_all_that_is_not_on_its_list(void **state)
{
    struct end end;

    (void)state;
    if (xlv_sandbox_is_sanitized()) {
        print_message("# not in this build, which has the filter of tests\n");
        return;
    }
    end = attempt_at(FILTER, "every call there is");
    assert_string_equal(end.text, "");
    assert_int_equal(end.status, 0);
}

static void *thread(void *p)
{
    return p;
}

#define ATTEMPT(name, ...)              \
    static void name(void)              \
    {                                   \
        __VA_ARGS__                     \
        _exit(SUCCEEDED);               \
    }

ATTEMPT(opens, if (open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0) _exit(1);)
ATTEMPT(makes_a_file, if (creat("/tmp/x", 0600) < 0) _exit(1);)
ATTEMPT(unlinks, if (unlink("/tmp/x") < 0) _exit(1);)
ATTEMPT(reads_proc, if (open("/proc/self/maps", O_RDONLY | O_CLOEXEC) < 0) _exit(1);)
ATTEMPT(makes_a_socket, if (socket(AF_UNIX, SOCK_STREAM, 0) < 0) _exit(1);)
ATTEMPT(executes, execl("/bin/true", "true", (char *)NULL);)
ATTEMPT(forks, if (fork() < 0) _exit(1);)
ATTEMPT(makes_a_thread, pthread_t t; if (pthread_create(&t, NULL, thread, NULL)) _exit(1);)
ATTEMPT(kills_a_sibling, if (kill(w.sibling, SIGKILL) < 0) _exit(1);)
ATTEMPT(kills_all, if (kill(-1, SIGTERM) < 0) _exit(1);)
ATTEMPT(signals_a_sibling, if (syscall(SYS_tgkill, w.sibling, w.sibling, SIGTERM) < 0) _exit(1);)
ATTEMPT(traces_a_sibling, if (ptrace(PTRACE_ATTACH, w.sibling, NULL, NULL) < 0) _exit(1);)
ATTEMPT(limits_a_sibling, struct rlimit r = { 0 };
        if (prlimit(w.sibling, RLIMIT_CPU, &r, NULL) < 0) _exit(1);)
ATTEMPT(holds_a_sibling_back, char idle[48] = { 48, 0, 0, 0, 5 };
        if (syscall(SYS_sched_setattr, w.sibling, idle, 0) < 0) _exit(1);)
ATTEMPT(holds_its_user_back, if (setpriority(PRIO_USER, 0, 19) < 0) _exit(1);)
ATTEMPT(lifts_its_limits, struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };
        if (setrlimit(RLIMIT_NOFILE, &r) < 0) _exit(1);)
ATTEMPT(becomes_root, if (setresuid(0, 0, 0) < 0) _exit(1);)
ATTEMPT(mounts, if (mount("none", "/", "tmpfs", 0, NULL) < 0) _exit(1);)
ATTEMPT(has_a_namespace, if (unshare(CLONE_NEWUSER) < 0) _exit(1);)
ATTEMPT(makes_code, if (mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) _exit(1);)
ATTEMPT(turns_data_into_code, void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0) _exit(1);)
ATTEMPT(maps_a_file, if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, w.file, 0) == MAP_FAILED)
        _exit(1);)
ATTEMPT(shares_memory, if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                                -1, 0) == MAP_FAILED) _exit(1);)
ATTEMPT(binds_another_channel,
        struct ioctl_evtchn_bind_interdomain b = { .remote_domain = 1, .remote_port = 1 };
        if (ioctl(xlv_port_fd(port), IOCTL_EVTCHN_BIND_INTERDOMAIN, &b) < 0) _exit(1);)
ATTEMPT(pushes_into_a_terminal, if (ioctl(STDERR_FILENO, TIOCSTI, "x") < 0) _exit(1);)
ATTEMPT(truncates_its_store, if (ftruncate(w.file, 0) < 0) _exit(1);)
ATTEMPT(replaces_the_alarm_bell, struct sigaction a = { .sa_handler = SIG_IGN };
        if (sigaction(SIGSYS, &a, NULL) < 0) _exit(1);)
ATTEMPT(hides_its_number_in_upper_bits,
        struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; }
            a = { (void *)1, 0, NULL, 0 };
        if (syscall(SYS_rt_sigaction, (1L << 32) | SIGSYS, &a, NULL, 8) < 0) _exit(1);)
ATTEMPT(turns_a_deaf_ear, sigset_t s; sigfillset(&s); sigprocmask(SIG_BLOCK, &s, NULL);
        if (open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0) _exit(1);)
#ifdef __x86_64__
ATTEMPT(speaks_x32, if (syscall(0x40000000L | SYS_getpid) < 0) _exit(1);)
static void speaks_32_bit(void)
{
    long r = 20; /* getpid of i386 */

    __asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
    _exit(r < 0 ? 1 : SUCCEEDED);
}
#endif

static const struct {
    const char *name;
    void (*what)(void);
    const char *call; /* that the report names; NULL: no report, the kernel ends it */
} attempts[] = {
    { "open a file", opens, "openat" },
    { "make a file", makes_a_file, "creat openat" },
    { "unlink a file", unlinks, "unlink unlinkat" },
    { "read /proc", reads_proc, "openat" },
    { "make a socket", makes_a_socket, "socket" },
    { "execute a program", executes, "execve" },
    { "fork", forks, "clone" },
    { "make a thread", makes_a_thread, "rt_sigaction clone3 clone" },
    { "kill a sibling", kills_a_sibling, "kill" },
    { "kill all", kills_all, "kill" },
    { "signal a sibling", signals_a_sibling, "tgkill" },
    { "trace a sibling", traces_a_sibling, "ptrace" },
    { "limit a sibling", limits_a_sibling, "prlimit64" },
    { "hold a sibling back", holds_a_sibling_back, "sched_setattr" },
    { "hold its user back", holds_its_user_back, "setpriority" },
    { "lift its limits", lifts_its_limits, "prlimit64 setrlimit" },
    { "become root", becomes_root, "setresuid" },
    { "mount", mounts, "mount" },
    { "have a namespace", has_a_namespace, "unshare" },
    { "make code", makes_code, "mmap" },
    { "turn data into code", turns_data_into_code, "mprotect" },
    { "map a file", maps_a_file, "mmap" },
    { "share memory", shares_memory, "mmap" },
    { "bind another event channel", binds_another_channel, "ioctl" },
    { "push into a terminal", pushes_into_a_terminal, "ioctl" },
    { "truncate its store", truncates_its_store, "ftruncate" },
    { "replace the handler of SIGSYS", replaces_the_alarm_bell, NULL },
    { "the same with upper bits", hides_its_number_in_upper_bits, "rt_sigaction" },
    { "open a file with SIGSYS blocked", turns_a_deaf_ear, NULL },
#ifdef __x86_64__
    { "speak x32", speaks_x32, NULL },
    { "speak 32 bit", speaks_32_bit, NULL },
#endif
};

/* "it made system call 57 (fork), ...": one of the names, as libcs differ. */
static bool names(const char *text, const char *calls)
{
    char word[64], copy[64], *at, *next;

    snprintf(copy, sizeof(copy), "%s", calls);
    for (at = strtok_r(copy, " ", &next); at; at = strtok_r(NULL, " ", &next)) {
        snprintf(word, sizeof(word), "(%s), which its sandbox forbids", at);
        if (strstr(text, word))
            return true;
    }
    return false;
}

static void what_is_forbidden_ends_the_process_and_is_named(void **state)
{
    static const enum walls both[] = { FILTER, BOTH };

    (void)state;
    if (xlv_sandbox_is_sanitized()) {
        print_message("# not in this build, which has the filter of tests\n");
        return;
    }
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
        for (size_t k = 0; k < 2; k++) {
            struct end end = attempt_at(both[k], attempts[i].name);

            if (!WIFSIGNALED(end.status) || WTERMSIG(end.status) != SIGSYS)
                fail_msg("%s: status 0x%x, not SIGSYS: %s", attempts[i].name, end.status, end.text);
            assert_false(WCOREDUMP(end.status) && both[k] == BOTH);
            if (attempts[i].call ? !names(end.text, attempts[i].call) : end.text[0] != '\0')
                fail_msg("%s: told \"%s\"", attempts[i].name, end.text);
        }
    assert_int_equal(kill(w.sibling, 0), 0);
}

/* --- the host that was left --------------------------------------------------- */

/* In a child: prints what succeeded though it must not. */
#define MUST_FAIL(...)                                                        \
    do {                                                                      \
        if (!(__VA_ARGS__))                                                   \
            break;                                                            \
        dprintf(w.told, "succeeded: %s\n", #__VA_ARGS__);                       \
    } while (0)

static bool connects(int family, const void *address, socklen_t size)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, address, size) == 0;

    xlv_close(&fd);
    return yes;
}

static void goes_for_files(void)
{
    struct stat st;

    MUST_FAIL(open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0);
    MUST_FAIL(open("/proc/self/maps", O_RDONLY | O_CLOEXEC) >= 0);
    MUST_FAIL(open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC) >= 0);
    MUST_FAIL(open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC) >= 0);
    MUST_FAIL(open("../../../../etc/passwd", O_RDONLY | O_CLOEXEC) >= 0);
    MUST_FAIL(creat("/x", 0600) >= 0);
    MUST_FAIL(mkdir("/x", 0700) == 0);
    MUST_FAIL(stat("/etc/passwd", &st) == 0);
    MUST_FAIL(chroot("/") == 0);
    MUST_FAIL(mount("none", "/", "proc", 0, NULL) == 0);
    MUST_FAIL(umount2("/", MNT_DETACH) == 0);
    MUST_FAIL(mknod("/null", S_IFCHR | 0600, 0x103) == 0);
    /* one of a handle that is open: the root of the old tree is not above any */
    MUST_FAIL(openat(w.file, "..", O_RDONLY | O_CLOEXEC) >= 0);
}

static void goes_for_the_network(void)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(w.inet_port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    size_t n = strlen(w.abstract_name);

    memcpy(un.sun_path + 1, w.abstract_name, n);
    MUST_FAIL(connects(AF_UNIX, &un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)));
    MUST_FAIL(connects(AF_INET, &in, sizeof(in)));
    memset(&un.sun_path, 0, sizeof(un.sun_path));
    snprintf(un.sun_path, sizeof(un.sun_path), "%.90s/hv.sock", w.machine);
    MUST_FAIL(connects(AF_UNIX, &un, sizeof(un)));
}

/* By the libraries' own doors: no grant is mapped, no node is written, no channel is bound. */
static void goes_for_xen(void)
{
    struct xs_handle *xs = xs_open(0);

    MUST_FAIL(xs != NULL);
    MUST_FAIL(xs && xs_write(xs, 0, "/local/domain/6/device/vtpm/0/state", "6", 1));
    MUST_FAIL(xengnttab_open(NULL, 0) != NULL);
    MUST_FAIL(xenevtchn_open(NULL, 0) != NULL);
}

static void goes_for_others(void)
{
    char byte;
    struct iovec mine = { &byte, 1 }, theirs = { &byte, 1 };
    struct rlimit r = { 0 };

    MUST_FAIL(kill(1, SIGTERM) == 0);
    MUST_FAIL(kill(getppid(), 0) == 0);
    MUST_FAIL(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0);
    /* even of the same uid, where a range is too small for one each */
    MUST_FAIL(ptrace(PTRACE_ATTACH, w.sibling, NULL, NULL) == 0);
    MUST_FAIL(process_vm_readv(w.sibling, &mine, 1, &theirs, 1, 0) == 1);
    MUST_FAIL(prlimit(getppid(), RLIMIT_CPU, &r, NULL) == 0);
    MUST_FAIL(setpriority(PRIO_PROCESS, (id_t)getppid(), 19) == 0);
    MUST_FAIL(fork() >= 0);
    MUST_FAIL(sethostname("x", 1) == 0);
}

static long schedules(uint32_t policy, int32_t niceness)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } wanted = { .size = sizeof(wanted), .policy = policy, .nice = niceness,
                 .priority = policy == SCHED_FIFO };

    return syscall(SYS_sched_setattr, 0, &wanted, 0);
}

static void goes_for_privileges(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct all[2] = { { 1, 1, 1 }, { 0 } };
    struct rlimit more = { RLIM_INFINITY, RLIM_INFINITY };

    MUST_FAIL(setuid(0) == 0);
    MUST_FAIL(setgid(0) == 0);
    MUST_FAIL(setresuid(-1, 0, -1) == 0);
    MUST_FAIL(syscall(SYS_capset, &header, all) == 0);
    MUST_FAIL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0) == 0);
    MUST_FAIL(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
    MUST_FAIL(setrlimit(RLIMIT_NOFILE, &more) == 0);
    MUST_FAIL(!xlv_sandbox_is_sanitized() && setrlimit(RLIMIT_DATA, &more) == 0);
    MUST_FAIL(setrlimit(RLIMIT_CORE, &more) == 0);
    MUST_FAIL(nice(-5) != -1);
    MUST_FAIL(schedules(SCHED_OTHER, getpriority(PRIO_PROCESS, 0) - 1) == 0);
    MUST_FAIL(schedules(SCHED_FIFO, 0) == 0);
    MUST_FAIL(schedules(SCHED_OTHER, getpriority(PRIO_PROCESS, 0)) != 0);
}

static void takes_too_much(void)
{
    unsigned fds = 0;
    char *big;

    while (dup(0) >= 0)
        fds++;
    MUST_FAIL(fds > XLV_BACKEND_FILES_MAX);
    MUST_FAIL(pwrite(w.file, "x", 1, XLV_BACKEND_FILE_SIZE_MAX) == 1);
    MUST_FAIL(errno != EFBIG);
    if (!xlv_sandbox_is_sanitized()) {
        big = malloc(XLV_BACKEND_MEMORY_MAX + 1);
        MUST_FAIL(big != NULL);
        free(big);
    }
    /* what is needed is there */
    big = malloc(XLV_BACKEND_MEMORY_MAX / 2);
    MUST_FAIL(big == NULL);
    free(big);
}

static void the_host_is_out_of_reach_without_the_filter(void **state)
{
    static const char *const goes[] = { "files", "network", "xen", "others", "privileges",
                                        "too much" };

    (void)state;
    if (geteuid() != 0) {
        print_message("# only root can leave the host\n");
        return;
    }
    for (size_t i = 0; i < sizeof(goes) / sizeof(goes[0]); i++) {
        struct end end = attempt_at(HOST, goes[i]);

        assert_string_equal(end.text, "");
        assert_int_equal(end.status, 0);
    }
    assert_int_equal(kill(w.sibling, 0), 0);
}

static void dies(void)
{
    /* a shell's background job is told to ignore it */
    signal(SIGQUIT, SIG_DFL);
    raise(SIGQUIT);
}

static void nothing_of_its_memory_gets_onto_a_disk(void **state)
{
    struct rlimit was, all = { RLIM_INFINITY, RLIM_INFINITY };
    char path[64], text[8192], *at;
    struct end end;
    ssize_t n;
    int fd;

    (void)state;
    getrlimit(RLIMIT_CORE, &was);
    (void)setrlimit(RLIMIT_CORE, &all);
    end = attempt_at(HOST, "die");
    (void)setrlimit(RLIMIT_CORE, &was);
    assert_true(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGQUIT);
    assert_false(WCOREDUMP(end.status));
    snprintf(path, sizeof(path), "/proc/%d/status", (int)w.sibling);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    assert_true(n > 0);
    text[n] = '\0';
    at = strstr(text, "VmLck:");
    assert_non_null(at);
    /* not in a container that keeps CAP_SYS_RESOURCE from its root */
    if (geteuid() == 0 && setrlimit(RLIMIT_MEMLOCK, &all) == 0)
        assert_true(strtol(at + 6, NULL, 10) > 100);
    at = strstr(text, "Seccomp:");
    assert_non_null(at);
    assert_int_equal(strtol(at + 8, NULL, 10), 2);
}

/* --- what must work ------------------------------------------------------------ */

static void aborts(void)
{
    abort();
}

static void breaks_an_assertion(void)
{
    volatile bool a_thing_that_holds = false;

    assert(a_thing_that_holds);
    _exit(a_thing_that_holds);
}

static void frees_nonsense(void)
{
    static uint64_t nonsense[16] __attribute__((aligned(16)));
    void *volatile p = &nonsense[5]; /* which malloc() never gives */

    nonsense[4] = 0x40;
    free(p);
}

static void an_abort_is_an_abort_and_says_why(void **state)
{
    struct end end;

    (void)state;
    end = attempt_at(BOTH, "abort");
    assert_true(WIFSIGNALED(end.status));
    assert_int_equal(WTERMSIG(end.status), SIGABRT);
    end = attempt_at(BOTH, "assert");
    assert_true(WIFSIGNALED(end.status));
    assert_int_equal(WTERMSIG(end.status), SIGABRT);
    assert_non_null(strstr(end.text, "a_thing_that_holds"));
    if (xlv_sandbox_is_sanitized())
        return; /* which has its own words for it */
    end = attempt_at(BOTH, "free nonsense");
    assert_true(WIFSIGNALED(end.status));
    assert_int_equal(WTERMSIG(end.status), SIGABRT);
    if (!strstr(end.text, "free()"))
        fail_msg("%s", end.text);
}

static void uses_a_library(void)
{
    time_t now = time(NULL);
    struct timespec t;
    struct tm tm;
    char text[64];
    void *blocks[64];
    struct pollfd event = { .fd = xlv_port_fd(port), .events = POLLIN };
    struct xlv_error e = XLV_ERROR_INIT;

    if (!localtime_r(&now, &tm) || !gmtime_r(&now, &tm) || !strftime(text, 64, "%F %T", &tm) ||
        mktime(&tm) < 0 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) < 0 || clock() < 0)
        _exit(1);
    xlv_log(XLV_LOG_ERROR, "a line, %.2f, %s", 1.5, strerror(EIO));
    /* libtpms, of a state that it does not like; to a terminal this would ask what it is */
    if (dprintf(STDERR_FILENO, "no state: %d\n", 5) < 0 || isatty(STDERR_FILENO) ||
        errno != ENOTTY)
        _exit(5);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < 64; i++)
            if (!(blocks[i] = malloc((size_t)1 << (i % 20))))
                _exit(2);
        for (size_t i = 0; i < 64; i += 2)
            if (!(blocks[i] = realloc(blocks[i], (size_t)3 << (i % 20))))
                _exit(3);
        for (size_t i = 0; i < 64; i++)
            free(blocks[i]);
    }
    /* the channel, which is what all of it is for */
    xlv_port_notify(port);
    if (poll(&event, 1, 0) == 1 && xlv_port_take(port, event.revents, &e) == 0 &&
        xlv_port_unmask(port, &e))
        _exit(4);
    xlv_port_close(port);
    _exit(0);
}

static void what_a_library_needs_is_there(void **state)
{
    struct end end;

    (void)state;
    end = attempt_at(BOTH, "use a library");
    assert_int_equal(end.status, 0);
    assert_non_null(strstr(end.text, "a line, 1.50, Input/output error"));
}

static void what_the_unit_takes_away_is_not_needed(void **state)
{
    struct end end;

    (void)state;
    end = attempt_at(UNIT, "use a library");
    if (end.status)
        fail_msg("%s", end.text);
}

/* --- a proof that can fail ------------------------------------------------------ */

static void a_sandbox_that_does_not_hold_is_noticed(void **state)
{
    const struct xlv_sandbox root = { .uid = 0 };
    struct xlv_sandbox_left pretended = { .namespaces = true, .network = true, .bounding = true };
    struct xlv_error e = XLV_ERROR_INIT;
    pid_t pid;
    int status;

    (void)state;
    /* nothing was left, nothing is filtered: here, in this process */
    if (geteuid() == 0) {
        assert_int_equal(xlv_sandbox_prove_left(&root, &pretended, &e), -EPERM);
        assert_non_null(strstr(e.text, "does not hold"));
    }
    xlv_error_clear(&e);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) /* its attempts are harmless, but not for who goes on */
        _exit(xlv_sandbox_prove_filter(-1, &e) == -EPERM && strstr(e.text, "openat") ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* --- inside: what can be run there ------------------------------------------------- */

static void waits(void)
{
    (void)xlv_write_all(w.told, "x", 1);
    for (;;)
        (void)poll(NULL, 0, -1);
}

static int inside(char **argument)
{
    static const struct {
        const char *name;
        void (*what)(void);
    } more[] = {
        { "every call there is", every_call_there_is },
        { "files", goes_for_files },
        { "network", goes_for_the_network },
        { "xen", goes_for_xen },
        { "others", goes_for_others },
        { "privileges", goes_for_privileges },
        { "too much", takes_too_much },
        { "die", dies },
        { "abort", aborts },
        { "assert", breaks_an_assertion },
        { "free nonsense", frees_nonsense },
        { "use a library", uses_a_library },
        { "wait", waits },
    };
    void (*what)(void) = NULL;

    if (sscanf(argument[2], "%u %u %d %d %d %u %63s %95s", &w.ring_ref, &w.event_channel, &w.file,
               &w.told, &w.sibling, &w.inet_port, w.abstract_name, w.machine) != 8)
        return 96;
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
        if (!strcmp(attempts[i].name, argument[1]))
            what = attempts[i].what;
    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
        if (!strcmp(more[i].name, argument[1]))
            what = more[i].what;
    if (!what)
        return 95;
    xlv_log_set_level(XLV_LOG_ERROR);
    enter(!strcmp(argument[0], "host")     ? HOST
          : !strcmp(argument[0], "filter") ? FILTER
          : !strcmp(argument[0], "unit")   ? UNIT
                                           : BOTH);
    what();
    _exit(0);
}

/* --- outside ------------------------------------------------------------------------ */

static int up(void **state)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(in);
    struct fx_vtpm device;
    int pair[2];
    char x;

    (void)state;
    assert_int_equal(fx_start(&host.m, NULL), 0);
    snprintf(w.machine, sizeof(w.machine), "%.95s", fx_dir(host.m));
    assert_int_equal(fx_domain_create(host.m, DOMID, "guest"), 0);
    fx_vtpm_init(&host.device, 0, DOMID, 0, "dcdb124b-9fed-4040-b149-dd2dfd8d094c");
    assert_int_equal(fx_vtpm_add(host.m, &host.device), 0);
    fx_vtpm_init(&device, 0, DOMID, 1, "0b54a1d9-8e54-4c3e-a0a2-6c6c77b2ea6e");
    assert_int_equal(fx_vtpm_add(host.m, &device), 0);
    assert_int_equal(fx_guest_open(&host.guest, host.m, DOMID), 0);
    assert_int_equal(fx_frontend_open(&host.frontend, host.guest, &host.device, 0), 0);
    assert_int_equal(fx_frontend_open(&host.siblings, host.guest, &device, 0), 0);
    w.file = memfd_create("slot", MFD_CLOEXEC);
    assert_true(w.file >= 0);
    snprintf(w.abstract_name, sizeof(w.abstract_name), "xlv-sandbox-%d", (int)getpid());
    memcpy(un.sun_path + 1, w.abstract_name, strlen(w.abstract_name));
    host.abstract = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(host.abstract, (struct sockaddr *)&un,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                                      strlen(w.abstract_name))), 0);
    assert_int_equal(listen(host.abstract, 4), 0);
    host.inet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(host.inet, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(host.inet, 4), 0);
    assert_int_equal(getsockname(host.inet, (struct sockaddr *)&in, &size), 0);
    w.inet_port = ntohs(in.sin_port);

    w.ring_ref = fx_frontend_ref(host.siblings, 0);
    w.event_channel = fx_frontend_port(host.siblings);
    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    w.sibling = start("both", "wait", pair[1]);
    close(pair[1]);
    assert_int_equal(read(pair[0], &x, 1), 1);
    assert_int_equal(x, 'x');
    close(pair[0]);
    w.ring_ref = fx_frontend_ref(host.frontend, 0);
    w.event_channel = fx_frontend_port(host.frontend);
    return 0;
}

static int down(void **state)
{
    (void)state;
    kill(w.sibling, SIGKILL);
    waitpid(w.sibling, NULL, 0);
    assert_true(fx_balanced(host.m, 0));
    fx_frontend_free(host.siblings);
    fx_frontend_free(host.frontend);
    fx_guest_close(host.guest);
    fx_stop(host.m);
    close(w.file);
    close(host.abstract);
    close(host.inet);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sandbox_that_does_not_hold_is_noticed),
        cmocka_unit_test(the_filter_stops_all_that_is_not_on_its_list),
        cmocka_unit_test(what_is_forbidden_ends_the_process_and_is_named),
        cmocka_unit_test(the_host_is_out_of_reach_without_the_filter),
        cmocka_unit_test(nothing_of_its_memory_gets_onto_a_disk),
        cmocka_unit_test(an_abort_is_an_abort_and_says_why),
        cmocka_unit_test(what_a_library_needs_is_there),
        cmocka_unit_test(what_the_unit_takes_away_is_not_needed),
    };

    if (argc == 4)
        return inside(argv + 1);
    return cmocka_run_group_tests(tests, up, down);
}
