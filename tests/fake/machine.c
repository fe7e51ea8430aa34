/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * machine.c - see machine.h.
 */
#include "config.h"

#include "machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xen/io/xs_wire.h>
#include <xenstore.h>

#include "client.h"

#define START_TIMEOUT 10000

struct domain {
    pid_t fakedom;               /* with a real xenstored: who plays its kernel, else 0 */
    int fakedom_in;
    int ring_fd; /* of its xenstore ring, where a test has marked it; 0: none */
};

struct fx_machine {
    char dir[128], bin[512], preload[640];
    bool mock;
    pid_t hv, xenstored;
    int hv_in, ctl;
    struct fx_fault_table *faults;
    struct domain dom[FX_NDOM];
};

int64_t fx_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool fx_wait(bool (*holds)(void *arg), void *arg, int timeout)
{
    int64_t end = fx_now() + timeout;

    while (!holds(arg)) {
        struct timespec step = { 0, 2000000 };

        if (fx_now() >= end)
            return holds(arg);
        nanosleep(&step, NULL);
    }
    return true;
}

int fx_spawn(const char *const *argv, const char *const *env, int *in, int *out, pid_t *pid)
{
    int pin[2] = { -1, -1 }, pout[2] = { -1, -1 };
    pid_t parent = getpid(), child;

    if (pipe2(pin, O_CLOEXEC) < 0 || (out && pipe2(pout, O_CLOEXEC) < 0)) {
        int e = errno;

        if (pin[0] >= 0) {
            close(pin[0]);
            close(pin[1]);
        }
        return -e;
    }
    child = fork();
    if (child == 0) {
        sigset_t none;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(127);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        dup2(pin[0], STDIN_FILENO);
        if (out)
            dup2(pout[1], STDOUT_FILENO);
        else
            dup2(STDERR_FILENO, STDOUT_FILENO);  /* the test's stdout is its report */
        for (; env && *env; env++)
            putenv((char *)(uintptr_t)*env);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(pin[0]);
    if (out)
        close(pout[1]);
    if (child < 0) {
        int e = errno;

        close(pin[1]);
        if (out)
            close(pout[0]);
        return -e;
    }
    if (in)
        *in = pin[1];
    else
        close(pin[1]);
    if (out)
        *out = pout[0];
    *pid = child;
    return 0;
}

/* Waits for the first line of a program that says it is ready. */
static int wait_line(int fd, int timeout)
{
    struct pollfd p = { fd, POLLIN, 0 };
    char buf[64];
    int r = poll(&p, 1, timeout);

    if (r == 0)
        return -ETIMEDOUT;
    return read(fd, buf, sizeof(buf)) > 0 ? 0 : -EIO;
}

static void end_process(pid_t *pid, int *in)
{
    int64_t end = fx_now() + 5000;

    if (*pid <= 0)
        return;
    if (*in >= 0)
        close(*in);
    *in = -1;
    while (waitpid(*pid, NULL, WNOHANG) == 0) {
        struct timespec step = { 0, 1000000 };

        if (fx_now() >= end)
            kill(*pid, SIGKILL);
        nanosleep(&step, NULL);
    }
    *pid = 0;
}

static int call(struct fx_machine *m, struct fx_msg *q)
{
    return fxc_call(m->ctl, q, NULL, 0) ? -errno : 0;
}

static bool socket_serves(void *arg)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok;

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", (const char *)arg);
    ok = fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static int start_xenstored(struct fx_machine *m, const char *program)
{
    const char *argv[] = { program, "-N", "-I", NULL };
    char preload[700], sock[160];
    /* The fakes on LD_LIBRARY_PATH may want a sanitizer's runtime, which it has not. */
    const char *env[] = { preload, "LD_LIBRARY_PATH", FX_DOMID_ENV "=0", FX_QUIET_ENV "=1",
                          NULL };
    int r;

    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", m->preload);
    setenv("XENSTORED_RUNDIR", m->dir, 1);
    r = fx_spawn(argv, env, NULL, NULL, &m->xenstored);
    if (r)
        return r;
    snprintf(sock, sizeof(sock), "%s/socket", m->dir);
    return fx_wait(socket_serves, sock, START_TIMEOUT) ? 0 : -ETIMEDOUT;
}

int fx_start(struct fx_machine **out, const struct fx_options *options)
{
    static const struct fx_options none;
    const struct fx_options *o = options ? options : &none;
    struct fx_machine *m = calloc(1, sizeof(*m));
    char program[600], path[160];
    const char *argv[] = { program, NULL, NULL };
    int ready = -1, fd, r;

    if (!m)
        return -ENOMEM;
    m->hv_in = m->ctl = -1;
    for (int i = 0; i < (int)FX_NDOM; i++)
        m->dom[i].fakedom_in = -1;
    if (o->bin)
        snprintf(m->bin, sizeof(m->bin), "%s", o->bin);
    else if (getenv("FAKEXEN_BIN"))
        snprintf(m->bin, sizeof(m->bin), "%s", getenv("FAKEXEN_BIN"));
    else
        snprintf(m->bin, sizeof(m->bin), "%s/tests/fake",
                 getenv("top_builddir") ? getenv("top_builddir") : ".");
    snprintf(m->preload, sizeof(m->preload), "%s/.libs/libfakexen.so", m->bin);
    if (access(m->preload, R_OK))
        snprintf(m->preload, sizeof(m->preload), "%s/libfakexen.so", m->bin);
    m->mock = !o->xenstored;
    snprintf(m->dir, sizeof(m->dir), "/dev/shm/fakexen.XXXXXX");
    if (!mkdtemp(m->dir)) {
        r = -errno;
        free(m);
        return r;
    }
    setenv(FX_DIR_ENV, m->dir, 1);
    unsetenv("XENSTORED_RUNDIR");
    fx_become(m, 0);
    snprintf(program, sizeof(program), "%s/fakexend", m->bin);
    if (!m->mock)
        argv[1] = "--no-store";
    r = fx_spawn(argv, NULL, &m->hv_in, &ready, &m->hv);
    if (r)
        goto fail;
    r = wait_line(ready, START_TIMEOUT);
    close(ready);
    if (r)
        goto fail;
    m->ctl = fxc_connect();
    if (m->ctl < 0) {
        r = -errno;
        goto fail;
    }
    snprintf(path, sizeof(path), "%s/faults", m->dir);
    fd = open(path, O_RDWR | O_CLOEXEC);
    m->faults = mmap(NULL, sizeof(*m->faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (m->faults == MAP_FAILED) {
        m->faults = NULL;
        r = -errno;
        goto fail;
    }
    if (!m->mock) {
        r = start_xenstored(m, o->xenstored);
        if (r)
            goto fail;
    }
    {
        /* xencommons and libxl's initialisation of domain 0. */
        struct xs_handle *xs = fx_xs_open(m, 0);

        if (!xs || !xs_write(xs, XBT_NULL, "/local/domain/0/domid", "0", 1) ||
            !xs_write(xs, XBT_NULL, "/local/domain/0/name", "Domain-0", 8) ||
            !xs_write(xs, XBT_NULL, "/libxl/0/type", "pv", 2)) {
            r = -errno;
            xs_close(xs);
            goto fail;
        }
        xs_close(xs);
    }
    *out = m;
    return 0;
fail:
    fx_stop(m);
    return r;
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    remove(path);
    return 0;
}

void fx_stop(struct fx_machine *m)
{
    int none = -1;

    if (!m)
        return;
    for (int i = 0; i < (int)FX_NDOM; i++) {
        end_process(&m->dom[i].fakedom, &m->dom[i].fakedom_in);
        if (m->dom[i].ring_fd)
            close(m->dom[i].ring_fd);
    }
    if (m->xenstored > 0) {
        kill(m->xenstored, SIGKILL);
        end_process(&m->xenstored, &none);
    }
    if (m->ctl >= 0)
        close(m->ctl);
    end_process(&m->hv, &m->hv_in);
    if (m->faults)
        munmap(m->faults, sizeof(*m->faults));
    nftw(m->dir, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    unsetenv(FX_DIR_ENV);
    unsetenv(FX_DOMID_ENV);
    unsetenv("XENSTORED_RUNDIR");
    unsetenv("XENSTORED_PATH");
    free(m);
}

const char *fx_dir(const struct fx_machine *m)
{
    return m->dir;
}

const char *fx_bin(const struct fx_machine *m)
{
    return m->bin;
}

const char *fx_preload(const struct fx_machine *m)
{
    return m->preload;
}

bool fx_is_mock(const struct fx_machine *m)
{
    return m->mock;
}

void fx_become(struct fx_machine *m, uint32_t domid)
{
    char s[160];

    snprintf(s, sizeof(s), "%u", domid);
    setenv(FX_DOMID_ENV, s, 1);
    if (domid || m->mock) {
        snprintf(s, sizeof(s), "%s/dom%u.sock", m->dir, domid);
        setenv("XENSTORED_PATH", s, 1);
    } else {
        unsetenv("XENSTORED_PATH");
    }
}

struct xs_handle *fx_xs_open(struct fx_machine *m, uint32_t domid)
{
    const char *s = getenv(FX_DOMID_ENV);
    uint32_t was = s ? (uint32_t)strtoul(s, NULL, 10) : 0;
    struct xs_handle *xs;
    int e;

    fx_become(m, domid);
    xs = xs_open(0);
    e = errno;
    fx_become(m, was);
    errno = e;
    return xs;
}

/* ------------------------------------------------------------------ domains */

static bool make_dir(struct xs_handle *xs, xs_transaction_t t, const char *path, uint32_t owner,
                     uint32_t reader)
{
    struct xs_permissions p[2] = { { owner, XS_PERM_NONE }, { reader, XS_PERM_READ } };

    return xs_mkdir(xs, t, path) && xs_set_permissions(xs, t, path, p, owner == reader ? 1 : 2);
}

static bool put(struct xs_handle *xs, xs_transaction_t t, const char *dir, const char *key,
                const char *value)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, key);
    return xs_write(xs, t, path, value, (unsigned int)strlen(value));
}

static bool domain_nodes(struct xs_handle *xs, xs_transaction_t t, uint32_t domid,
                         const char *name)
{
    static const char *const ro[] = { "cpu", "memory", "device", "control", "backend" };
    static const char *const rw[] = { "data", "drivers", "feature", "attr", "error" };
    char dom[64], path[128], uuid[64], id[16];

    snprintf(dom, sizeof(dom), "/local/domain/%u", domid);
    snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012u", domid);
    snprintf(id, sizeof(id), "%u", domid);
    if (!make_dir(xs, t, dom, 0, domid))
        return false;
    for (size_t i = 0; i < sizeof(ro) / sizeof(ro[0]); i++) {
        /* backend belongs to the domain in case it is a driver domain */
        bool back = !strcmp(ro[i], "backend");

        snprintf(path, sizeof(path), "%s/%s", dom, ro[i]);
        if (!make_dir(xs, t, path, back ? domid : 0, domid))
            return false;
    }
    for (size_t i = 0; i < sizeof(rw) / sizeof(rw[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dom, rw[i]);
        if (!make_dir(xs, t, path, domid, domid))
            return false;
    }
    snprintf(path, sizeof(path), "/vm/%s", uuid);
    if (!make_dir(xs, t, path, 0, domid) || !put(xs, t, path, "uuid", uuid) ||
        !put(xs, t, dom, "vm", path))
        return false;
    snprintf(path, sizeof(path), "/libxl/%u", domid);
    if (!make_dir(xs, t, path, 0, 0) || !put(xs, t, path, "type", "pv"))
        return false;
    if (name && !put(xs, t, dom, "name", name))
        return false;
    return put(xs, t, dom, "domid", id);
}

static int introduce(struct fx_machine *m, struct xs_handle *xs, uint32_t domid)
{
    char program[600], id[16], sock[160];
    const char *argv[] = { program, id, sock, NULL };
    static const char *const env[] = { FX_QUIET_ENV "=1", NULL };
    int ready, r;

    if (m->mock)
        return xs_introduce_domain(xs, domid, 1, 1) ? 0 : -errno;
    snprintf(program, sizeof(program), "%s/fakedom", m->bin);
    snprintf(id, sizeof(id), "%u", domid);
    snprintf(sock, sizeof(sock), "%s/dom%u.sock", m->dir, domid);
    r = fx_spawn(argv, env, &m->dom[domid].fakedom_in, &ready, &m->dom[domid].fakedom);
    if (r)
        return r;
    r = wait_line(ready, START_TIMEOUT);
    close(ready);
    return r;
}

static int settle_in(struct fx_machine *m, uint32_t domid, const char *name)
{
    struct xs_handle *xs = fx_xs_open(m, 0);
    int r;

    if (!xs)
        return -errno;
    for (;;) {
        xs_transaction_t t = xs_transaction_start(xs);

        if (!t || !domain_nodes(xs, t, domid, name)) {
            r = -errno;
            if (t)
                xs_transaction_end(xs, t, true);
            break;
        }
        if (xs_transaction_end(xs, t, false)) {
            r = introduce(m, xs, domid);
            break;
        }
        if (errno != EAGAIN) {
            r = -errno;
            break;
        }
    }
    xs_close(xs);
    return r;
}

int fx_domain_create(struct fx_machine *m, uint32_t domid, const char *name)
{
    struct fx_msg q = { .op = FX_OP_DOM_CREATE, .a = domid };
    int r;

    if (!domid || domid >= FX_NDOM)
        return -EINVAL;
    r = call(m, &q);
    return r ? r : settle_in(m, domid, name);
}

static int pause_domain(struct fx_machine *m, uint32_t domid, bool paused)
{
    struct fx_msg q = { .op = FX_OP_DOM_PAUSE, .a = domid, .b = paused };

    return call(m, &q);
}

int fx_domain_soft_reset_begin(struct fx_machine *m, uint32_t domid)
{
    struct xs_handle *xs;
    int r = fx_domain_shutdown(m, domid, 5); /* SHUTDOWN_soft_reset of xen/sched.h */

    if (r)
        return r;
    xs = fx_xs_open(m, 0);
    if (!xs || !xs_release_domain(xs, domid))
        r = -errno;
    xs_close(xs);
    return r ? r : pause_domain(m, domid, true);
}

int fx_domain_soft_reset_end(struct fx_machine *m, uint32_t domid, const char *name)
{
    int r = fx_domain_ran(m, domid);

    return r ? r : settle_in(m, domid, name);
}

int fx_domain_soft_reset_over(struct fx_machine *m, uint32_t domid)
{
    return pause_domain(m, domid, false);
}

int fx_domain_ran(struct fx_machine *m, uint32_t domid)
{
    struct fx_msg q = { .op = FX_OP_DOM_RAN, .a = domid };

    return call(m, &q);
}

int fx_domain_incarnation(struct fx_machine *m, uint32_t domid, uint32_t incarnation)
{
    struct fx_msg q = { .op = FX_OP_DOM_INCARNATION, .a = domid, .b = incarnation };

    return call(m, &q);
}

int fx_domain_mark(struct fx_machine *m, uint32_t domid, uint32_t mark)
{
    struct fx_msg q = { .op = FX_OP_GRANT_AT, .domid = domid, .a = 0, .b = FX_REF_XENSTORE };
    const off_t at = offsetof(struct xenstore_domain_interface, req_prod);
    int *fd = &m->dom[domid].ring_fd; /* 0: none yet */

    if (!*fd && fxc_call(m->ctl, &q, fd, 1)) {
        *fd = 0;
        return -errno;
    }
    return pwrite(*fd, &mark, sizeof(mark), at) == sizeof(mark) ? 0 : -EIO;
}

int fx_domain_shutdown(struct fx_machine *m, uint32_t domid, uint32_t reason)
{
    struct fx_msg q = { .op = FX_OP_DOM_SHUTDOWN, .a = domid, .b = reason };

    return call(m, &q);
}

int fx_domain_destroy(struct fx_machine *m, uint32_t domid)
{
    struct fx_msg q = { .op = FX_OP_DOM_DESTROY, .a = domid };
    int r = call(m, &q);

    if (m->dom[domid].ring_fd) {
        close(m->dom[domid].ring_fd);
        m->dom[domid].ring_fd = 0;
    }
    if (!r)
        end_process(&m->dom[domid].fakedom, &m->dom[domid].fakedom_in);
    return r;
}

int fx_domain_erase(struct fx_machine *m, uint32_t domid)
{
    struct xs_handle *xs = fx_xs_open(m, 0);
    char path[3][96];
    int r = 0;

    if (!xs)
        return -errno;
    snprintf(path[0], sizeof(path[0]), "/local/domain/%u", domid);
    snprintf(path[1], sizeof(path[1]), "/libxl/%u", domid);
    snprintf(path[2], sizeof(path[2]), "/vm/00000000-0000-4000-8000-%012u", domid);
    for (int i = 0; i < 3; i++)
        if (!xs_rm(xs, XBT_NULL, path[i]) && errno != ENOENT)
            r = -errno;
    xs_close(xs);
    return r;
}

enum fx_dom_state fx_domain_state(struct fx_machine *m, uint32_t domid)
{
    struct fx_msg q = { .op = FX_OP_DOM_INFO, .a = domid };

    return call(m, &q) == 0 && q.a == domid ? (enum fx_dom_state)q.b : FX_DOM_NONE;
}

/* ------------------------------------------------------------------ books and faults */

void fx_stats(struct fx_machine *m, uint32_t domid, struct fx_stats *out)
{
    struct fx_msg q = { .op = FX_OP_STATS, .a = domid };

    memset(out, 0, sizeof(*out));
    if (!call(m, &q))
        *out = q.stats;
}

bool fx_balanced(struct fx_machine *m, uint32_t domid)
{
    struct fx_stats s;
    bool ok;

    fx_stats(m, domid, &s);
    ok = !s.live && !s.ports && !s.handles && s.mapped == s.unmapped + s.reclaimed;
    if (!ok)
        fprintf(stderr,
                "domain %u: %u pages mapped, %u unmapped, %u reclaimed, %u live; %u ports and "
                "%u handles held\n",
                domid, s.mapped, s.unmapped, s.reclaimed, s.live, s.ports, s.handles);
    return ok;
}

int fx_fault(struct fx_machine *m, const char *function, uint32_t domid, int err, int skip,
             int count)
{
    for (int i = 0; i < FX_FAULT_SLOTS; i++) {
        struct fx_fault_slot *s = &m->faults->slot[i];

        if (s->name[0])
            continue;
        s->domid = domid;
        s->err = err;
        s->hits = 0;
        s->skip = skip;
        s->count = count;
        /* The name last: it is what makes the entry seen. */
        snprintf(s->name, sizeof(s->name), "%s", function);
        atomic_fetch_add(&m->faults->armed, 1);
        return i;
    }
    return -ENOSPC;
}

uint32_t fx_fault_hits(struct fx_machine *m, int slot)
{
    return m->faults->slot[slot].hits;
}

void fx_fault_clear(struct fx_machine *m)
{
    atomic_store(&m->faults->armed, 0);
    for (int i = 0; i < FX_FAULT_SLOTS; i++) {
        m->faults->slot[i].count = 0;
        m->faults->slot[i].name[0] = 0;
    }
}

static int store_call(struct fx_machine *m, enum fx_op op, uint32_t a, uint32_t b)
{
    struct fx_msg q = { .op = op, .a = a, .b = b };

    return call(m, &q);
}

int fx_store_conflict(struct fx_machine *m, uint32_t domid, uint32_t count)
{
    return store_call(m, FX_OP_STORE_CONFLICT, count, domid);
}

int fx_store_hold(struct fx_machine *m, uint32_t domid, bool hold)
{
    return store_call(m, FX_OP_STORE_HOLD, domid, hold);
}

int fx_store_spurious(struct fx_machine *m, uint32_t domid)
{
    return store_call(m, FX_OP_STORE_SPURIOUS, domid, 0);
}

int fx_store_drop(struct fx_machine *m, uint32_t domid, bool refuse_new)
{
    if (!m->mock) {
        int none = -1;

        kill(m->xenstored, SIGKILL);
        end_process(&m->xenstored, &none);
        return 0;
    }
    return store_call(m, FX_OP_STORE_DROP, domid, refuse_new);
}

int fx_store_quota(struct fx_machine *m, enum fx_quota quota, uint32_t limit)
{
    return store_call(m, FX_OP_STORE_QUOTA, quota, limit);
}

int fx_store_requests(struct fx_machine *m, pid_t pid, uint32_t *out)
{
    struct fx_msg q = { .op = FX_OP_STORE_REQUESTS, .a = (uint32_t)pid };
    int r = call(m, &q);

    if (!r)
        *out = q.a;
    return r;
}

int fx_store_stats(struct fx_machine *m, uint32_t domid, struct fx_store_stats *out)
{
    struct fx_msg q = { .op = FX_OP_STORE_STATS, .a = domid };
    int r = call(m, &q);

    if (!r)
        *out = q.store;
    return r;
}
