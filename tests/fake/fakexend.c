/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fakexend - the machine under a test: hypervisor and, unless --no-store, xenstore.
 *
 *     FAKEXEN_DIR=DIR fakexend [--no-store]
 *
 * Makes in DIR: hv.sock (wire.h), faults (fault.h), dom<N>.sock for each introduced domain N
 * (xenstore wire protocol; whoever connects there is domain N), and for a real xenstored
 * xsd_port and xsd_kva. Writes one line to stdout when it serves. Ends when its stdin does: a test
 * that died takes its machine along.
 *
 * One thread, one epoll loop, whose cost does not depend on how many are connected. A request is
 * only looked at after all hang-ups known at that time: a process that was waited for has released
 * what it held, as with a kernel.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <xen/xen.h>

#include "fault.h"
#include "hypervisor.h"
#include "store.h"
#include "wire.h"

#define MAX_CONNS 32768 /* some four of each guest */
#define EVENTS    64

enum kind { NONE, HV_LISTEN, HV, STORE_LISTEN, STORE };

static struct conn {
    enum kind kind;
    int fd;
    struct hv_handle *own;           /* HV: the handle this connection is */
    uint64_t attached;               /* HV: or the one its calls are for */
    struct store_conn *store;
    uint32_t domid;
    bool blocked;                    /* STORE: more to send than the socket takes */
} conns[MAX_CONNS];
static int nconns;                   /* none at or above this one */
static int input, hangups;           /* epoll: what to do, and only who went away */
static const char *dir;
static struct store *store;
static bool refuse[FX_NDOM];         /* STORE_DROP: connections are cut at once */

static void die(const char *what)
{
    fprintf(stderr, "fakexend: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Says whose event it is, also when the place was taken by another since. */
static uint64_t tag(const struct conn *c)
{
    return (uint64_t)(c - conns) << 32 | (uint32_t)c->fd;
}

static struct conn *tagged(uint64_t t)
{
    struct conn *c = &conns[t >> 32];

    return c->kind != NONE && c->fd == (int)(uint32_t)t ? c : NULL;
}

static void want(struct conn *c, int op)
{
    struct epoll_event e = { .events = EPOLLIN | (c->blocked ? EPOLLOUT : 0u),
                             .data.u64 = tag(c) };

    if (epoll_ctl(input, op, c->fd, &e) < 0)
        die("epoll");
    e.events = 0;
    if (op == EPOLL_CTL_ADD && epoll_ctl(hangups, op, c->fd, &e) < 0)
        die("epoll");
}

static struct conn *add(enum kind kind, int fd, uint32_t domid)
{
    for (int i = 0; i < MAX_CONNS; i++)
        if (conns[i].kind == NONE) {
            conns[i] = (struct conn){ .kind = kind, .fd = fd, .domid = domid };
            if (i >= nconns)
                nconns = i + 1;
            want(&conns[i], EPOLL_CTL_ADD);
            return &conns[i];
        }
    errno = EMFILE;
    die("connections");
    return NULL;
}

static void drop(struct conn *c)
{
    if (c->own)
        hv_close(c->own);
    if (c->store)
        store_disconnect(c->store);
    close(c->fd);
    memset(c, 0, sizeof(*c));
}

static int listen_on(const char *name, int type)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd, n;

    n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof(sa.sun_path)) {
        errno = ENAMETOOLONG;
        die(name);
    }
    unlink(sa.sun_path);
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 64) < 0)
        die(sa.sun_path);
    return fd;
}

/* ------------------------------------------------------------------ the store's side */

static void store_path(char *out, size_t len, uint32_t domid)
{
    snprintf(out, len, "dom%u.sock", domid);
}

static bool domain_exists(void *arg, uint32_t domid)
{
    uint32_t reason;
    enum fx_dom_state s = hv_domain_state(domid, &reason);

    (void)arg;
    return s == FX_DOM_RUNNING || s == FX_DOM_SHUTDOWN;
}

static void introduced(void *arg, uint32_t domid)
{
    char name[32];

    (void)arg;
    store_path(name, sizeof(name), domid);
    add(STORE_LISTEN, listen_on(name, SOCK_STREAM), domid);
}

/* Not freed here: we may be inside one of its own requests. The loop sees the shutdown. */
static void cut(uint32_t domid)
{
    for (int i = 0; i < nconns; i++)
        if (conns[i].kind == STORE && (domid == FX_STORE_ANY || conns[i].domid == domid))
            shutdown(conns[i].fd, SHUT_RDWR);
}

static void released(void *arg, uint32_t domid)
{
    char path[512], name[32];

    (void)arg;
    cut(domid);
    for (int i = 0; i < nconns; i++)
        if (conns[i].kind == STORE_LISTEN && conns[i].domid == domid)
            drop(&conns[i]);
    store_path(name, sizeof(name), domid);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    unlink(path);
}

static void flush_store(struct conn *c)
{
    const void *p;
    size_t len;

    while ((p = store_output(c->store, &len))) {
        ssize_t n = send(c->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0)
            break;
        store_sent(c->store, (size_t)n);
    }
    if (!p == c->blocked) {
        c->blocked = p != NULL;
        want(c, EPOLL_CTL_MOD);
    }
}

static void flush_all(void)
{
    for (int i = 0; i < nconns; i++)
        if (conns[i].kind == STORE)
            flush_store(&conns[i]);
}

static void store_input(struct conn *c)
{
    char buf[8192];
    ssize_t n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !store_feed(c->store, buf, (size_t)n))
        drop(c);
    flush_all();
}

/* ------------------------------------------------------------------ the hypervisor's side */

static void send_reply(struct conn *c, struct fx_msg *m, const int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int) * FX_MAX_GRANTS)];
    } u;
    struct iovec iov = { m, sizeof(*m) };
    struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (n && !m->err) {
        struct cmsghdr *cm;

        memset(&u, 0, sizeof(u));
        h.msg_control = u.buf;
        h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        cm = CMSG_FIRSTHDR(&h);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int) * n);
        memcpy(CMSG_DATA(cm), fds, sizeof(int) * n);
    }
    if (sendmsg(c->fd, &h, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
        perror("fakexend: reply");
}

static int need_store(void)
{
    return store ? 0 : ENOSYS;
}

static void control(struct fx_msg *m, int *fds, size_t *n)
{
    switch (m->op) {
    case FX_OP_DOM_CREATE:
        m->err = hv_domain_create(m->a);
        break;
    case FX_OP_DOM_SHUTDOWN:
        m->err = hv_domain_shutdown(m->a, m->b);
        if (m->err)
            break;
        hv_virq(0, VIRQ_DOM_EXC);
        if (store)
            store_domain_shutdown(store, m->a);
        break;
    case FX_OP_DOM_DESTROY:
        m->err = hv_domain_destroy(m->a);
        if (m->err)
            break;
        hv_virq(0, VIRQ_DOM_EXC);
        if (store)
            store_domain_gone(store, m->a);
        break;
    case FX_OP_DOM_INFO:
        while (m->a < FX_NDOM && (m->b = hv_domain_state(m->a, &m->c)) == FX_DOM_NONE)
            m->a++;
        m->err = m->a < FX_NDOM ? 0 : ESRCH;
        if (!m->err) {
            uint32_t incarnation;
            bool ran, paused;

            hv_domain_facts(m->a, &ran, &paused, &incarnation);
            m->n = ran;
            m->dom[0] = paused;
            m->cookie = incarnation;
        }
        break;
    case FX_OP_DOM_RAN:
        m->err = hv_domain_ran(m->a);
        break;
    case FX_OP_DOM_PAUSE:
        m->err = hv_domain_pause(m->a, m->b);
        break;
    case FX_OP_DOM_INCARNATION:
        m->err = hv_domain_incarnation(m->a, m->b);
        break;
    case FX_OP_DOM0_PORT:
        m->a = hv_dom0_port();
        break;
    case FX_OP_GRANT_AT:
        m->err = hv_grant_at(m->domid, m->a, m->b, m->c, fds);
        *n = 1;
        break;
    case FX_OP_UNGRANT:
        m->err = hv_ungrant(m->domid, m->a);
        break;
    case FX_OP_STATS:
        hv_stats(m->a, &m->stats);
        break;
    case FX_OP_STORE_CONFLICT:
        m->err = need_store();
        if (!m->err)
            store_conflict(store, m->b, m->a);
        break;
    case FX_OP_STORE_HOLD:
        m->err = need_store();
        if (!m->err)
            store_hold(store, m->a, m->b);
        break;
    case FX_OP_STORE_SPURIOUS:
        m->err = need_store();
        if (!m->err)
            store_spurious(store, m->a);
        break;
    case FX_OP_STORE_DROP:
        m->err = need_store();
        if (m->err)
            break;
        cut(m->a);
        for (uint32_t d = 0; d < FX_NDOM; d++)
            if (m->a == FX_STORE_ANY || m->a == d)
                refuse[d] = m->b;
        break;
    case FX_OP_STORE_QUOTA:
        m->err = need_store();
        if (!m->err)
            store_quota(store, m->a, m->b);
        break;
    case FX_OP_STORE_REQUESTS:
        m->err = need_store();
        if (!m->err)
            m->a = store_requests(store, m->a);
        break;
    case FX_OP_STORE_STATS:
        m->err = need_store();
        if (!m->err)
            store_stats(store, m->a, &m->store);
        break;
    default:
        m->err = ENOSYS;
    }
}

static void evtchn_call(struct conn *c, struct fx_msg *m)
{
    struct hv_handle *h = hv_find(c->attached);

    if (!h) {
        m->err = EBADF;
        return;
    }
    switch (m->op) {
    case FX_OP_BIND_UNBOUND: m->err = hv_bind_unbound(h, m->a, &m->a); break;
    case FX_OP_BIND_INTERDOMAIN: m->err = hv_bind_interdomain(h, m->a, m->b, &m->a); break;
    case FX_OP_BIND_VIRQ: m->err = hv_bind_virq(h, m->a, &m->a); break;
    case FX_OP_UNBIND: m->err = hv_unbind(h, m->a); break;
    case FX_OP_NOTIFY: m->err = hv_notify(h, m->a); break;
    case FX_OP_UNMASK: m->err = hv_unmask(h, m->a); break;
    case FX_OP_EVT_RESTRICT: m->err = hv_restrict(h, m->a); break;
    default: m->err = ENOSYS;
    }
}

static void gnttab_call(struct conn *c, struct fx_msg *m, int *fds, size_t *n)
{
    struct hv_handle *h = c->own;

    switch (m->op) {
    case FX_OP_MAP:
        m->err = hv_map(h, m->n, m->dom, m->ref, m->a, &m->cookie, fds);
        *n = m->n;
        break;
    case FX_OP_SET_NOTIFY: m->err = hv_set_notify(h, m->cookie, m->a, m->b); break;
    case FX_OP_UNMAP: m->err = hv_unmap(h, m->cookie); break;
    case FX_OP_SHARE:
        m->err = hv_share(h, m->a, m->b, m->n, m->ref, fds);
        *n = m->n;
        break;
    case FX_OP_UNSHARE: m->err = hv_unshare(h, m->n, m->ref); break;
    case FX_OP_PEEK:
        m->err = hv_peek(h, m->a, m->b, m->c, fds);
        *n = 1;
        break;
    default: m->err = ENOSYS;
    }
}

static void hv_request(struct conn *c, struct fx_msg *m)
{
    int fds[FX_MAX_GRANTS];
    size_t n = 0;

    m->err = 0;
    if (m->op == FX_OP_EVTCHN || m->op == FX_OP_GNTTAB) {
        if (c->own || c->attached)
            m->err = EINVAL;
        else if (!(c->own = m->op == FX_OP_EVTCHN
                                ? hv_evtchn_open(m->domid, m->a, m->cookie, c->fd)
                                : hv_gnttab_open(m->domid, m->a)))
            m->err = ENODEV;
    } else if (m->op == FX_OP_ATTACH) {
        struct hv_handle *h = hv_find(m->cookie);

        c->attached = h ? m->cookie : 0;
        m->err = h ? 0 : EINVAL;
        if (h)
            m->domid = hv_domid(h);
    } else if (c->attached) {
        evtchn_call(c, m);
    } else if (c->own) {
        gnttab_call(c, m, fds, &n);
    } else {
        control(m, fds, &n);
    }
    send_reply(c, m, fds, n);
    flush_all();
}

/* Returns false when there was nothing to read. */
static bool hv_input(struct conn *c)
{
    struct fx_msg m;
    ssize_t n = recv(c->fd, &m, sizeof(m), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n != sizeof(m))
        drop(c);
    else
        hv_request(c, &m);
    return true;
}

/* Looks at every connection whose other end is gone, first at what it still wanted. */
static void bury_the_dead(void)
{
    struct epoll_event e[EVENTS];
    int n;

    while ((n = epoll_wait(hangups, e, EVENTS, 0)) > 0)
        for (int i = 0; i < n; i++) {
            struct conn *c = tagged(e[i].data.u64);

            if (!c)
                continue;
            if (c->kind == STORE)
                while (tagged(e[i].data.u64) == c)
                    store_input(c);
            else
                while (tagged(e[i].data.u64) == c && hv_input(c))
                    ;
        }
}

static void accept_on(struct conn *l)
{
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    struct ucred who = { 0 };
    socklen_t len = sizeof(who);
    struct conn *c;

    if (fd < 0)
        return;
    if (l->kind == STORE_LISTEN && refuse[l->domid]) {
        close(fd);
        return;
    }
    c = add(l->kind == HV_LISTEN ? HV : STORE, fd, l->domid);
    if (c->kind == STORE) {
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
        c->store = store_connect(store, c->domid, (uint32_t)who.pid);
    }
}

static void make_file(const char *name, const void *data, size_t len, off_t size)
{
    char path[512];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || (len && write(fd, data, len) != (ssize_t)len) || ftruncate(fd, size) < 0)
        die(path);
    close(fd);
}

int main(int argc, char **argv)
{
    struct epoll_event e[EVENTS], end = { .events = EPOLLIN, .data.u64 = UINT64_MAX };
    struct rlimit files;
    bool serving = true;

    dir = getenv(FX_DIR_ENV);
    if (!dir || argc > 2 || (argc == 2 && strcmp(argv[1], "--no-store"))) {
        fprintf(stderr, "usage: " FX_DIR_ENV "=DIR fakexend [--no-store]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    input = epoll_create1(EPOLL_CLOEXEC);
    hangups = epoll_create1(EPOLL_CLOEXEC);
    if (input < 0 || hangups < 0 || epoll_ctl(input, EPOLL_CTL_ADD, STDIN_FILENO, &end) < 0)
        die("epoll");
    hv_init();
    make_file("faults", NULL, 0, sizeof(struct fx_fault_table));
    make_file("xsd_port", "1", 1, 1);
    make_file("xsd_kva", NULL, 0, FX_PAGE);
    add(HV_LISTEN, listen_on("hv.sock", SOCK_SEQPACKET), 0);
    if (argc == 1) {
        static const struct store_ops ops = { domain_exists, introduced, released };

        store = store_new(&ops, NULL);
        introduced(NULL, 0);
    }
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        die("stdout");
    while (serving) {
        int n = epoll_wait(input, e, EVENTS, -1);

        for (int i = 0; i < n && serving; i++) {
            uint64_t t = e[i].data.u64;
            struct conn *c = t == UINT64_MAX ? NULL : tagged(t);

            serving = t != UINT64_MAX;
            if (!c)
                continue;
            switch (c->kind) {
            case HV_LISTEN:
            case STORE_LISTEN:
                accept_on(c);
                break;
            case HV:
                bury_the_dead();
                if (tagged(t) == c)
                    hv_input(c);
                break;
            case STORE:
                if (e[i].events & EPOLLOUT)
                    flush_store(c);
                if (e[i].events & ~(uint32_t)EPOLLOUT)
                    store_input(c);
                break;
            case NONE:
                break;
            }
        }
    }
    for (int i = 0; i < MAX_CONNS; i++)
        if (conns[i].kind != NONE)
            drop(&conns[i]);
    hv_fini();
    store_free(store);
    return 0;
}
