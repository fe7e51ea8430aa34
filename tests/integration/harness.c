/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * harness.c - see harness.h.
 */
#include "config.h"

#include "tests/integration/harness.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake/selftest/debian.h"

#define READY_TIMEOUT 30000      /* sanitizers and a busy machine */
#define LAST_LINES 10

static void program_path(char *out, size_t len, const char *variable, const char *const *places)
{
    const char *top = getenv("top_builddir") ? getenv("top_builddir") : ".";
    char path[512];

    path[0] = 0;
    if (getenv(variable))
        snprintf(path, sizeof(path), "%s", getenv(variable));
    else
        for (int i = 0; places[i] && (!path[0] || access(path, X_OK)); i++)
            snprintf(path, sizeof(path), "%s/%s", top, places[i]);
    if (!realpath(path, out) || len < 1)
        snprintf(out, len, "%s", path);
}

int harness_up(struct harness *h, bool real, const char *config)
{
    static const char *const daemons[] = { "libxl-vtpm/xl-vtpmd", "xl-vtpmd", NULL };
    static const char *const commands[] = { "libxl-vtpm/xl-vtpm", "xl-vtpm", NULL };
    static const char *const servers[] = { "vtpm-backend", "backend/vtpm-backend", NULL };
    struct fx_options o = { 0 };
    char path[256], state[256];
    FILE *f;
    int r;

    memset(h, 0, sizeof(*h));
    h->real = real;
    /* Backends that outlive their daemon become ours to reap; not every container's init does. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (real) {
        o.xenstored = debian_program("xenstored");
        if (!o.xenstored)
            return -ENOENT;
    }
    r = fx_start(&h->m, &o);
    if (r)
        return r;
    program_path(h->daemon_program, sizeof(h->daemon_program), "XL_VTPMD", daemons);
    program_path(h->command_program, sizeof(h->command_program), "XL_VTPM", commands);
    program_path(h->backend_program, sizeof(h->backend_program), "VTPM_BACKEND", servers);
    if (getenv("VTPM_BACKEND_EXE"))
        program_path(h->backend_exe, sizeof(h->backend_exe), "VTPM_BACKEND_EXE", servers);
    else
        memcpy(h->backend_exe, h->backend_program, sizeof(h->backend_exe));
    snprintf(h->fakes, sizeof(h->fakes), "%s/.libs", fx_bin(h->m));
    if (access(h->fakes, X_OK))
        snprintf(h->fakes, sizeof(h->fakes), "%s", fx_bin(h->m));
    snprintf(h->dir, sizeof(h->dir), "/dev/shm/xl-vtpm-test.XXXXXX");
    if (!mkdtemp(h->dir))
        return -errno;
    snprintf(path, sizeof(path), "%s/xl-vtpm.conf", h->dir);
    snprintf(state, sizeof(state), "%s/state", h->dir);
    if (getenv("XL_VTPM_TEST_STATE"))
        snprintf(state, sizeof(state), "%s", getenv("XL_VTPM_TEST_STATE"));
    f = fopen(path, "we");
    if (!f)
        return -errno;
    fprintf(f,
            "# written by the integration tests\n"
            "state-dir = %s\n"
            "run-dir = %s/run\n"
            "backend-program = %s\n"
            "%s%s",
            state, h->dir, h->backend_program,
            config && strstr(config, "log-level") ? "" : "log-level = debug\n",
            config ? config : "");
    if (!config || !strstr(config, "master-key"))
        fprintf(f, "master-key = file:%s/master.key\n", state);
    if (fclose(f))
        return -errno;
    mkdir(state, 0700);
    snprintf(path, sizeof(path), "%s/run", h->dir);
    mkdir(path, 0700);
    return 0;
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    remove(path);
    return 0;
}

void harness_clear_run(struct harness *h)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/run", h->dir);
    nftw(path, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    mkdir(path, 0700);
}

int harness_down(struct harness *h)
{
    pid_t pids[MAX_BACKENDS];
    int n, left = 0;

    if (h->daemon)
        daemon_kill(h);
    while ((n = backends(h, pids)) > 0) {
        left += n;
        for (int i = 0; i < n; i++)
            process_kill(pids[i]);
    }
    fx_stop(h->m);
    h->m = NULL;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    if (h->dir[0])
        nftw(h->dir, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    return left;
}

/* ------------------------------------------------------------------ the daemon */

static int notify_socket(char *path, size_t len, const char *dir)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd;

    snprintf(path, len, "%s/notify", dir);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", path);
    unlink(path);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static void put(const char *name, const char *value)
{
    char *s = malloc(strlen(name) + strlen(value) + 2);

    sprintf(s, "%s=%s", name, value);
    putenv(s);
}

static void run_daemon(struct harness *h, const char *notify)
{
    char log[160], conf[160], number[16];
    struct rlimit files;
    int fd, null;

    snprintf(log, sizeof(log), "%s/log", h->dir);
    snprintf(conf, sizeof(conf), "%s/xl-vtpm.conf", h->dir);
    /* As an init or a login gives them, whatever this test took for itself. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > 1024) {
        files.rlim_cur = 1024;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    snprintf(number, sizeof(number), "%u", h->be_domid);
    fx_become(h->m, h->be_domid);
    put(FX_DOMID_ENV, number);
    put("NOTIFY_SOCKET", notify);
    put("LD_LIBRARY_PATH", h->fakes);
    unsetenv("WATCHDOG_USEC");
    execl(h->daemon_program, "xl-vtpmd", "--foreground", "--config", conf, (char *)NULL);
    fprintf(stderr, "%s: %s\n", h->daemon_program, strerror(errno));
    _exit(127);
}

int daemon_start(struct harness *h)
{
    int64_t end = fx_now() + READY_TIMEOUT;
    pid_t parent = getpid();
    char path[160];
    int fd = notify_socket(path, sizeof(path), h->dir), r = -ETIMEDOUT;

    if (fd < 0)
        return -errno;
    h->daemon = fork();
    if (h->daemon < 0) {
        r = -errno;
        close(fd);
        h->daemon = 0;
        return r;
    }
    if (!h->daemon) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(127);
        run_daemon(h, path);
    }
    while (r == -ETIMEDOUT && fx_now() < end) {
        struct pollfd p = { fd, POLLIN, 0 };
        char buf[512];
        ssize_t n;

        if (poll(&p, 1, 50) == 1) {
            n = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);
            if (n > 0) {
                buf[n] = 0;
                if (strstr(buf, "READY=1"))
                    r = 0;
            }
        } else if (!daemon_alive(h)) {
            r = -ECHILD;
        }
    }
    close(fd);
    if (r)
        log_show(h);
    return r;
}

bool daemon_alive(struct harness *h)
{
    if (h->daemon && waitpid(h->daemon, NULL, WNOHANG) != 0)
        h->daemon = 0;
    return h->daemon != 0;
}

int daemon_stop(struct harness *h)
{
    int64_t end = fx_now() + 10000;
    int status;

    if (!h->daemon)
        return -ECHILD;
    kill(h->daemon, SIGTERM);
    while (waitpid(h->daemon, &status, WNOHANG) == 0) {
        struct timespec step = { 0, 2000000 };

        if (fx_now() >= end)
            return -ETIMEDOUT;
        nanosleep(&step, NULL);
    }
    h->daemon = 0;
    return status;
}

void daemon_kill(struct harness *h)
{
    if (!h->daemon)
        return;
    kill(h->daemon, SIGKILL);
    waitpid(h->daemon, NULL, 0);
    h->daemon = 0;
}

/* ------------------------------------------------------------------ backends */

/* Reads /proc/<pid>/<name>. Returns the number of bytes, 0 on any error. */
static size_t proc_read(pid_t pid, const char *name, char *buf, size_t size)
{
    char path[64];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, buf, size - 1);
    close(fd);
    buf[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static char process_state(pid_t pid)
{
    char buf[512], *p;

    if (!proc_read(pid, "stat", buf, sizeof(buf)))
        return 0;
    p = strrchr(buf, ')');
    return p && p[1] ? p[2] : 0;
}

static bool is_ours(struct harness *h, pid_t pid)
{
    static char env[65536];
    char path[64], exe[600], want[200];
    ssize_t n;
    size_t len;

    snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    n = readlink(path, exe, sizeof(exe) - 1);
    if (n <= 0)
        return false;
    exe[n] = 0;
    if (strcmp(exe, h->backend_exe) || pid == h->daemon) /* which may be in valgrind, too */
        return false;
    snprintf(want, sizeof(want), FX_DIR_ENV "=%s", fx_dir(h->m));
    len = proc_read(pid, "environ", env, sizeof(env));
    for (size_t i = 0; i < len; i += strlen(env + i) + 1)
        if (!strcmp(env + i, want))
            return process_state(pid) != 'Z';
    return false;
}

struct process {
    unsigned long long start; /* clock ticks since the machine's boot */
    pid_t pid;
};

/* Not by number alone: where many processes come and go, numbers begin again. */
static int by_age(const void *a, const void *b)
{
    const struct process *x = a, *y = b;

    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static unsigned long long process_start(pid_t pid)
{
    char buf[512], *p;
    unsigned long long start = 0;

    if (!proc_read(pid, "stat", buf, sizeof(buf)))
        return 0;
    p = strrchr(buf, ')');
    /* proc(5): the name is field 2, the start field 22 */
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        sscanf(p, "%llu", &start);
    return start;
}

int backends(struct harness *h, pid_t *pids)
{
    static struct process all[MAX_BACKENDS];
    DIR *d = opendir("/proc");
    struct dirent *e;
    int n = 0;

    while (h->m && d && (e = readdir(d))) {
        pid_t pid = (pid_t)atoi(e->d_name);

        if (isdigit((unsigned char)e->d_name[0]) && n < MAX_BACKENDS && is_ours(h, pid))
            all[n++] = (struct process){ process_start(pid), pid };
    }
    if (d)
        closedir(d);
    qsort(all, (size_t)n, sizeof(*all), by_age);
    for (int i = 0; i < n; i++)
        pids[i] = all[i].pid;
    return n;
}

static pid_t process_parent(pid_t pid)
{
    char buf[512], *p;
    int parent = 0;

    p = proc_read(pid, "stat", buf, sizeof(buf)) ? strrchr(buf, ')') : NULL;
    return p && sscanf(p + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

/*
 * A process loses its memory, and with it what it was started as, before its files: there is still
 * its name, and its locks are held, until it is a zombie. And there is its parent: the daemon, or
 * this process where that is gone (harness_up()). Those of another test are not waited for.
 */
static bool ends(struct harness *h, pid_t pid)
{
    const char *name = strrchr(h->backend_exe, '/');
    char path[64], exe[8], comm[32];
    pid_t parent;

    snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    if (readlink(path, exe, sizeof(exe)) >= 0 || errno != ENOENT ||
        !proc_read(pid, "comm", comm, sizeof(comm)))
        return false;
    comm[strcspn(comm, "\n")] = 0;
    parent = process_parent(pid);
    return name && !strncmp(comm, name + 1, 15) && (parent == h->daemon || parent == getpid()) &&
           process_state(pid) != 'Z' && process_state(pid);
}

/* One that ends, 0: none. */
static pid_t one_ends(struct harness *h)
{
    DIR *d = opendir("/proc");
    struct dirent *e;
    pid_t one = 0;

    while (d && !one && (e = readdir(d)))
        if (isdigit((unsigned char)e->d_name[0]) && ends(h, (pid_t)atoi(e->d_name)))
            one = (pid_t)atoi(e->d_name);
    if (d)
        closedir(d);
    return one;
}

struct count {
    struct harness *h;
    pid_t *pids;
    int n;
};

static bool count_is(void *arg)
{
    struct count *c = arg;

    return !one_ends(c->h) && backends(c->h, c->pids) == c->n;
}

bool backends_wait(struct harness *h, int n, pid_t *pids, int timeout)
{
    pid_t mine[MAX_BACKENDS];
    struct count c = { h, pids ? pids : mine, n };
    pid_t ending;
    int found;

    if (fx_wait(count_is, &c, timeout))
        return true;
    found = backends(h, c.pids);
    ending = one_ends(h);
    fprintf(stderr, "ERROR: %d backends instead of %d after %d ms:", found, n, timeout);
    for (int i = 0; i < found; i++)
        fprintf(stderr, " %d", (int)c.pids[i]);
    if (ending)
        fprintf(stderr, "; %d is ending", (int)ending);
    fputc('\n', stderr);
    return false;
}

static bool gone(void *arg)
{
    char s = process_state(*(pid_t *)arg);

    return !s || s == 'Z';
}

static bool stopped(void *arg)
{
    return process_state(*(pid_t *)arg) == 'T';
}

void process_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, WNOHANG);
    fx_wait(gone, &pid, 5000);
}

void process_freeze(pid_t pid)
{
    kill(pid, SIGSTOP);
    fx_wait(stopped, &pid, 5000);
}

/* ------------------------------------------------------------------ the log */

static char *log_read(struct harness *h)
{
    char path[160], *buf;
    struct stat st;
    ssize_t n = 0;
    int fd;

    snprintf(path, sizeof(path), "%s/log", h->dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        st.st_size = 0;
    buf = malloc((size_t)st.st_size + 1);
    if (fd >= 0) {
        n = read(fd, buf, (size_t)st.st_size);
        close(fd);
    }
    buf[n > 0 ? n : 0] = 0;
    return buf;
}

unsigned log_count(struct harness *h, const char *text)
{
    char *log = log_read(h);
    unsigned n = 0;

    for (const char *at = log; (at = strstr(at, text)); at += strlen(text))
        n++;
    free(log);
    return n;
}

bool log_has(struct harness *h, const char *text)
{
    return log_count(h, text) > 0;
}

struct needle {
    struct harness *h;
    const char *text;
    unsigned n;
};

static bool found(void *arg)
{
    struct needle *n = arg;

    return log_count(n->h, n->text) >= n->n;
}

bool log_wait_for(struct harness *h, const char *text, unsigned n, int timeout)
{
    struct needle needle = { h, text, n };

    return fx_wait(found, &needle, timeout);
}

bool log_wait(struct harness *h, const char *text, int timeout)
{
    return log_wait_for(h, text, 1, timeout);
}

static void show_lines(const char *prefix, const char *line)
{
    for (const char *next; *line; line = next) {
        next = strchr(line, '\n');
        next = next ? next + 1 : line + strlen(line);
        fprintf(stderr, "%s%.*s%s", prefix, (int)(next - line), line,
                next[-1] == '\n' ? "" : "\n");
    }
}

void log_show(struct harness *h)
{
    char *log = log_read(h), *last = log + strlen(log);
    int lines = 0;

    show_lines("#   ", log);
    while (last > log && (last[-1] != '\n' || ++lines <= LAST_LINES))
        last--;
    show_lines("ERROR: log: ", last);
    free(log);
}
