/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xenstore.c - fake libxenstore.so.4: every function of the real one, over the real wire
 * protocol, with faults at will (fault.h).
 *
 * Which socket is who speaks: $XENSTORED_PATH, else $XENSTORED_RUNDIR/socket, as the real library
 * (a real xenstored is a fine peer), else $FAKEXEN_DIR/dom$FAKEXEN_DOMID.sock.
 *
 * What is easily got wrong and is the same here as in Xen 4.17's library: one request at a time;
 * a reader thread from the first xs_watch() on and none before; xs_fileno() is a pipe
 * that is readable while events wait, and *stays silent when the connection dies*; a dead
 * connection fails every later call with EBADF, the one under way with EINVAL, and ends
 * xs_read_watch() with EINVAL; after xs_unwatch() without XS_UNWATCH_FILTER stale events may still
 * come; an error the protocol has no name for arrives as EINVAL.
 */
#include "config.h"

#include <xenstore.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"
#include "toolcore.h"

#define MAX_PERMS 64                 /* entries of one call; quotas allow 5 */

struct msg {
    struct msg *next;
    struct xsd_sockmsg hdr;
    char body[];                     /* hdr.len bytes and a nul */
};

struct xs_handle {
    struct fx_active_handle ah;      /* must be first: restrict_cb() casts */
    int fd;                          /* -1 once the connection is lost */
    int reader_fd;                   /* the same, the reader thread's to close */
    uint32_t domid;
    bool filter;                     /* XS_UNWATCH_FILTER */
    bool reader;                     /* there is a reader thread */
    pthread_t thread;
    pthread_mutex_t request;         /* one at a time; taken before state */
    pthread_mutex_t state;           /* all that follows, and fd */
    pthread_cond_t changed;
    struct msg *reply;
    struct msg *events, **events_end;
    int pipe[2];                     /* xs_fileno(); -1 until asked for */
};

static int restrict_cb(struct fx_active_handle *ah, domid_t domid)
{
    struct xs_handle *h = (struct xs_handle *)ah;

    (void)domid;
    return xentoolcore__restrict_by_dup2_null(h->fd);
}

/* ------------------------------------------------------------------ xenstore_lib.h */

const char *xs_daemon_rundir(void)
{
    const char *s = getenv("XENSTORED_RUNDIR");

    return s ? s : "/run/xenstored";
}

const char *xs_daemon_socket(void)
{
    static __thread char buf[sizeof(((struct sockaddr_un *)0)->sun_path) + 16];
    const char *s = getenv("XENSTORED_PATH");

    if (s)
        return s;
    if (getenv("XENSTORED_RUNDIR"))
        snprintf(buf, sizeof(buf), "%s/socket", xs_daemon_rundir());
    else
        snprintf(buf, sizeof(buf), "%s/dom%u.sock", fxc_dir(), fxc_domid());
    return buf;
}

const char *xs_daemon_socket_ro(void)
{
    return xs_daemon_socket();
}

bool xs_write_all(int fd, const void *data, unsigned int len)
{
    const char *p = data;

    while (len) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (unsigned int)n;
    }
    return true;
}

static bool string_to_perm(const char *s, struct xs_permissions *p)
{
    static const char letters[] = "nrwb";
    const char *l = *s ? strchr(letters, *s) : NULL;
    char *end;

    if (!l) {
        errno = EINVAL;
        return false;
    }
    p->perms = (unsigned int)(l - letters);
    p->id = (unsigned int)strtoul(s + 1, &end, 0);
    if (*end || !s[1]) {
        errno = EINVAL;
        return false;
    }
    return true;
}

bool xs_strings_to_perms(struct xs_permissions *perms, unsigned int num, const char *strings)
{
    for (unsigned int i = 0; i < num; i++, strings += strlen(strings) + 1)
        if (!string_to_perm(strings, &perms[i]))
            return false;
    return true;
}

/* ------------------------------------------------------------------ messages */

static bool read_all(int fd, void *data, size_t len)
{
    char *p = data;

    while (len) {
        ssize_t n = read(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (!n)
                errno = EBADF;
            return false;
        }
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* Takes one message from the connection to where it belongs. False: the connection is useless. */
static bool receive(struct xs_handle *h, int fd)
{
    struct xsd_sockmsg hdr;
    struct msg *m;

    if (!read_all(fd, &hdr, sizeof(hdr)))
        return false;
    if (hdr.len > XENSTORE_PAYLOAD_MAX) {
        errno = E2BIG;
        return false;
    }
    m = malloc(sizeof(*m) + hdr.len + 1);
    if (!m)
        return false;
    m->next = NULL;
    m->hdr = hdr;
    if (!read_all(fd, m->body, hdr.len)) {
        free(m);
        return false;
    }
    m->body[hdr.len] = 0;
    pthread_mutex_lock(&h->state);
    if (hdr.type == XS_WATCH_EVENT) {
        if (!h->events && h->pipe[1] >= 0 && write(h->pipe[1], "", 1) != 1)
            abort();                 /* an empty pipe takes a byte */
        *h->events_end = m;
        h->events_end = &m->next;
    } else if (h->reply) {
        pthread_mutex_unlock(&h->state);
        free(m);
        errno = EEXIST;
        return false;
    } else {
        h->reply = m;
    }
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->state);
    return true;
}

static void *reader(void *arg)
{
    struct xs_handle *h = arg;

    while (receive(h, h->reader_fd))
        ;
    pthread_mutex_lock(&h->state);
    h->fd = -1;
    close(h->reader_fd);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->state);
    return NULL;
}

static void lose(struct xs_handle *h)
{
    pthread_mutex_lock(&h->state);
    if (h->fd >= 0) {
        if (h->reader)
            shutdown(h->fd, SHUT_RDWR);
        else
            close(h->fd);
        h->fd = -1;
    }
    pthread_mutex_unlock(&h->state);
}

static int error_number(const char *s)
{
    for (size_t i = 0; i < sizeof(xsd_errors) / sizeof(xsd_errors[0]); i++)
        if (!strcmp(s, xsd_errors[i].errstring))
            return xsd_errors[i].errnum;
    return EINVAL;
}

/* One request, its answer: a malloc'ed message, or NULL with errno. */
static struct msg *talk(struct xs_handle *h, xs_transaction_t t, uint32_t type,
                        const struct iovec *iov, unsigned int n)
{
    struct xsd_sockmsg hdr = { .type = type, .tx_id = t };
    struct sigaction ignore = { .sa_handler = SIG_IGN }, old;
    struct msg *m = NULL;
    bool sent;
    int e = 0;

    for (unsigned int i = 0; i < n; i++)
        hdr.len += (uint32_t)iov[i].iov_len;
    if (hdr.len > XENSTORE_PAYLOAD_MAX) {
        errno = E2BIG;
        return NULL;
    }
    sigaction(SIGPIPE, &ignore, &old);
    pthread_mutex_lock(&h->request);
    sent = xs_write_all(h->fd, &hdr, sizeof(hdr));
    for (unsigned int i = 0; sent && i < n; i++)
        sent = xs_write_all(h->fd, iov[i].iov_base, (unsigned int)iov[i].iov_len);
    if (!sent)
        e = errno;
    while (sent && !m && !e) {
        if (!h->reader && !receive(h, h->fd)) {
            e = errno;
            break;
        }
        pthread_mutex_lock(&h->state);
        while (h->reader && !h->reply && h->fd >= 0)
            pthread_cond_wait(&h->changed, &h->state);
        m = h->reply;
        h->reply = NULL;
        if (!m && h->reader)
            e = EINVAL;
        pthread_mutex_unlock(&h->state);
    }
    pthread_mutex_unlock(&h->request);
    sigaction(SIGPIPE, &old, NULL);
    if (m && m->hdr.type == XS_ERROR) {
        e = error_number(m->body);
        free(m);
        errno = e;
        return NULL;
    }
    if (m && m->hdr.type != type) {
        free(m);
        m = NULL;
        e = EBADF;
    }
    if (!m) {
        lose(h);
        errno = e;
    }
    return m;
}

static struct iovec str(const char *s)
{
    return (struct iovec){ (void *)(uintptr_t)s, strlen(s) + 1 };
}

static struct msg *talk1(struct xs_handle *h, xs_transaction_t t, uint32_t type, const char *s)
{
    struct iovec iov = str(s);

    return talk(h, t, type, &iov, 1);
}

static bool done(struct msg *m)
{
    free(m);
    return m != NULL;
}

/* The body of a message as a block of its own. */
static void *take_body(struct msg *m, unsigned int *len)
{
    char *p;

    if (!m)
        return NULL;
    p = malloc(m->hdr.len + 1);
    if (p) {
        memcpy(p, m->body, m->hdr.len + 1);
        if (len)
            *len = m->hdr.len;
    }
    free(m);
    return p;
}

/* ------------------------------------------------------------------ connections */

static struct xs_handle *connect_to(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct xs_handle *h;
    struct stat st;
    int fd, e;

    if (stat(path, &st))
        return NULL;
    if (strlen(path) >= sizeof(sa.sun_path)) {
        errno = EINVAL;
        return NULL;
    }
    strcpy(sa.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    h = calloc(1, sizeof(*h));
    if (!h || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        e = errno;
        free(h);
        close(fd);
        errno = e;
        return NULL;
    }
    h->fd = fd;
    h->domid = fxc_domid();
    h->events_end = &h->events;
    h->pipe[0] = h->pipe[1] = -1;
    pthread_mutex_init(&h->request, NULL);
    pthread_mutex_init(&h->state, NULL);
    pthread_cond_init(&h->changed, NULL);
    h->ah.restrict_callback = restrict_cb;
    xentoolcore__register_active_handle(&h->ah);
    return h;
}

struct xs_handle *xs_open(unsigned long flags)
{
    struct xs_handle *h;

    if (fxc_fault("xs_open", fxc_domid()))
        return NULL;
    h = connect_to(xs_daemon_socket());
    if (h)
        h->filter = flags & XS_UNWATCH_FILTER;
    else
        errno = ENOENT;              /* the real one tries the device next, which is not there */
    return h;
}

struct xs_handle *xs_daemon_open(void)
{
    return xs_open(0);
}

struct xs_handle *xs_domain_open(void)
{
    return xs_open(0);
}

struct xs_handle *xs_daemon_open_readonly(void)
{
    return xs_open(0);
}

static void dispose(struct xs_handle *h)
{
    struct msg *m;

    xentoolcore__deregister_active_handle(&h->ah);
    while ((m = h->events)) {
        h->events = m->next;
        free(m);
    }
    free(h->reply);
    if (h->pipe[0] >= 0) {
        close(h->pipe[0]);
        close(h->pipe[1]);
    }
    if (h->fd >= 0)
        close(h->fd);
    free(h);
}

void xs_daemon_close(struct xs_handle *h)
{
    if (h->reader) {
        lose(h);
        pthread_join(h->thread, NULL);
    }
    dispose(h);
}

void xs_close(struct xs_handle *h)
{
    if (h)
        xs_daemon_close(h);
}

void xs_daemon_destroy_postfork(struct xs_handle *h)
{
    if (h->reader && h->fd >= 0)
        close(h->reader_fd);         /* the thread, who would, stayed with the parent */
    h->fd = -1;
    dispose(h);
}

/* ------------------------------------------------------------------ nodes */

static char **list(char *strings, size_t len, unsigned int *num)
{
    unsigned int n = 0, i = 0;
    char **r, *p;

    for (size_t k = 0; k < len; k++)
        n += !strings[k];
    r = malloc(n * sizeof(*r) + len + 1);
    if (!r)
        return NULL;
    p = (char *)&r[n];
    memcpy(p, strings, len);
    for (char *s = p; i < n; s += strlen(s) + 1)
        r[i++] = s;
    *num = n;
    return r;
}

/* A listing that does not fit one message comes in parts, begun anew if it changes meanwhile. */
static char **directory_parts(struct xs_handle *h, xs_transaction_t t, const char *path,
                              unsigned int *num)
{
    char gen[24] = "", off[16], *all = NULL, **r;
    size_t len = 0;

    for (;;) {
        struct iovec iov[2] = { str(path), { 0 } };
        struct msg *m;
        size_t head, part;
        char *bigger;

        snprintf(off, sizeof(off), "%zu", len);
        iov[1] = str(off);
        m = talk(h, t, XS_DIRECTORY_PART, iov, 2);
        if (!m) {
            if (errno == ENOSYS)
                errno = E2BIG;
            free(all);
            return NULL;
        }
        head = strlen(m->body) + 1;
        if (head > m->hdr.len)
            head = m->hdr.len;
        if (len && strcmp(gen, m->body)) {
            free(m);
            len = 0;
            continue;
        }
        snprintf(gen, sizeof(gen), "%s", m->body);
        part = m->hdr.len - head;
        bigger = realloc(all, len + part + 1);
        if (!bigger) {
            free(all);
            free(m);
            return NULL;
        }
        all = bigger;
        memcpy(all + len, m->body + head, part);
        len += part;
        free(m);
        if (len <= 1 || !all[len - 2])
            break;
    }
    if (len > 1)
        len--;
    r = list(all, len, num);
    free(all);
    return r;
}

char **xs_directory(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *num)
{
    struct msg *m;
    char **r;

    if (fxc_fault(__func__, h->domid))
        return NULL;
    m = talk1(h, t, XS_DIRECTORY, path);
    if (!m)
        return errno == E2BIG ? directory_parts(h, t, path, num) : NULL;
    r = list(m->body, m->hdr.len, num);
    free(m);
    return r;
}

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *len)
{
    if (fxc_fault(__func__, h->domid))
        return NULL;
    return take_body(talk1(h, t, XS_READ, path), len);
}

bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data,
              unsigned int len)
{
    struct iovec iov[2] = { str(path), { (void *)(uintptr_t)data, len } };

    if (fxc_fault(__func__, h->domid))
        return false;
    return done(talk(h, t, XS_WRITE, iov, 2));
}

bool xs_mkdir(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    if (fxc_fault(__func__, h->domid))
        return false;
    return done(talk1(h, t, XS_MKDIR, path));
}

bool xs_rm(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    if (fxc_fault(__func__, h->domid))
        return false;
    return done(talk1(h, t, XS_RM, path));
}

bool xs_restrict(struct xs_handle *h, unsigned int domid)
{
    (void)h;
    (void)domid;
    return false;
}

struct xs_permissions *xs_get_permissions(struct xs_handle *h, xs_transaction_t t,
                                          const char *path, unsigned int *num)
{
    struct xs_permissions *p;
    struct msg *m;
    unsigned int n = 0;

    if (fxc_fault(__func__, h->domid))
        return NULL;
    m = talk1(h, t, XS_GET_PERMS, path);
    if (!m)
        return NULL;
    for (uint32_t i = 0; i < m->hdr.len; i++)
        n += !m->body[i];
    p = malloc((n ? n : 1) * sizeof(*p));
    if (p && !xs_strings_to_perms(p, n, m->body)) {
        free(p);
        p = NULL;
    }
    free(m);
    if (p)
        *num = n;
    return p;
}

bool xs_set_permissions(struct xs_handle *h, xs_transaction_t t, const char *path,
                        struct xs_permissions *perms, unsigned int num)
{
    static const char letters[] = "nrwb";
    char buf[MAX_PERMS][16];
    struct iovec iov[MAX_PERMS + 1];

    if (fxc_fault(__func__, h->domid))
        return false;
    if (num > MAX_PERMS) {
        errno = E2BIG;
        return false;
    }
    iov[0] = str(path);
    for (unsigned int i = 0; i < num; i++) {
        snprintf(buf[i], sizeof(buf[i]), "%c%u",
                 letters[perms[i].perms & (XS_PERM_READ | XS_PERM_WRITE)], perms[i].id);
        iov[i + 1] = str(buf[i]);
    }
    return done(talk(h, t, XS_SET_PERMS, iov, num + 1));
}

/* ------------------------------------------------------------------ watches */

static bool start_reader(struct xs_handle *h)
{
    sigset_t all, old;
    int r = 0;

    pthread_mutex_lock(&h->request);
    if (!h->reader && h->fd >= 0) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        h->reader = true;
        h->reader_fd = h->fd;
        r = pthread_create(&h->thread, NULL, reader, h);
        if (r)
            h->reader = false;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    pthread_mutex_unlock(&h->request);
    return !r;
}

bool xs_watch(struct xs_handle *h, const char *path, const char *token)
{
    struct iovec iov[2] = { str(path), str(token) };

    if (fxc_fault(__func__, h->domid))
        return false;
    if (!start_reader(h))
        return false;
    return done(talk(h, XBT_NULL, XS_WATCH, iov, 2));
}

int xs_fileno(struct xs_handle *h)
{
    int fd;

    pthread_mutex_lock(&h->state);
    if (h->pipe[0] < 0 && !fxc_fault(__func__, h->domid) && !pipe2(h->pipe, O_CLOEXEC) &&
        h->events && write(h->pipe[1], "", 1) != 1)
        abort();
    fd = h->pipe[0];
    pthread_mutex_unlock(&h->state);
    return fd;
}

/* With state held, after events were taken away. */
static void quiet_pipe(struct xs_handle *h)
{
    char c;

    if (!h->events) {
        h->events_end = &h->events;
        if (h->pipe[0] >= 0 && read(h->pipe[0], &c, 1) != 1)
            abort();
    }
}

static char **next_event(struct xs_handle *h, unsigned int *num, bool block)
{
    struct msg *m;
    char **r;

    pthread_mutex_lock(&h->state);
    while (!h->events && h->fd >= 0) {
        if (!block) {
            pthread_mutex_unlock(&h->state);
            errno = EAGAIN;
            return NULL;
        }
        pthread_cond_wait(&h->changed, &h->state);
    }
    m = h->events;
    if (!m) {
        pthread_mutex_unlock(&h->state);
        errno = EINVAL;
        return NULL;
    }
    h->events = m->next;
    quiet_pipe(h);
    pthread_mutex_unlock(&h->state);
    r = list(m->body, m->hdr.len, num);
    free(m);
    return r;
}

char **xs_check_watch(struct xs_handle *h)
{
    unsigned int num;

    if (fxc_fault(__func__, h->domid))
        return NULL;
    return next_event(h, &num, false);
}

char **xs_read_watch(struct xs_handle *h, unsigned int *num)
{
    if (fxc_fault(__func__, h->domid))
        return NULL;
    return next_event(h, num, true);
}

bool xs_unwatch(struct xs_handle *h, const char *path, const char *token)
{
    struct iovec iov[2] = { str(path), str(token) };
    bool ok;

    if (fxc_fault(__func__, h->domid))
        return false;
    ok = done(talk(h, XBT_NULL, XS_UNWATCH, iov, 2));
    if (h->filter) {
        int e = errno;

        pthread_mutex_lock(&h->state);
        if (h->events) {
            struct msg **pp = &h->events, *m;

            while ((m = *pp)) {
                if (!strcmp(m->body + strlen(m->body) + 1, token) &&
                    xs_path_is_subpath(path, m->body)) {
                    *pp = m->next;
                    free(m);
                } else {
                    pp = &m->next;
                }
            }
            h->events_end = pp;
            quiet_pipe(h);
        }
        pthread_mutex_unlock(&h->state);
        errno = e;
    }
    return ok;
}

bool xs_path_is_subpath(const char *parent, const char *child)
{
    size_t len = strlen(parent);

    return !strncmp(child, parent, len) && (!child[len] || child[len] == '/');
}

/* ------------------------------------------------------------------ transactions */

xs_transaction_t xs_transaction_start(struct xs_handle *h)
{
    struct msg *m;
    xs_transaction_t t;

    if (fxc_fault(__func__, h->domid))
        return XBT_NULL;
    m = talk1(h, XBT_NULL, XS_TRANSACTION_START, "");
    if (!m)
        return XBT_NULL;
    t = (xs_transaction_t)strtoul(m->body, NULL, 0);
    free(m);
    return t;
}

bool xs_transaction_end(struct xs_handle *h, xs_transaction_t t, bool give_up)
{
    if (fxc_fault(__func__, h->domid)) {
        int e = errno;

        /* However it fails, the transaction is over. */
        done(talk1(h, t, XS_TRANSACTION_END, "F"));
        errno = e;
        return false;
    }
    return done(talk1(h, t, XS_TRANSACTION_END, give_up ? "F" : "T"));
}

/* ------------------------------------------------------------------ domains */

static struct msg *talk_domid(struct xs_handle *h, uint32_t type, unsigned int domid)
{
    char s[16];

    snprintf(s, sizeof(s), "%u", domid);
    return talk1(h, XBT_NULL, type, s);
}

bool xs_introduce_domain(struct xs_handle *h, unsigned int domid, unsigned long mfn,
                         unsigned int eventchn)
{
    char a[16], b[24], c[16];
    struct iovec iov[3];

    if (fxc_fault(__func__, h->domid))
        return false;
    snprintf(a, sizeof(a), "%u", domid);
    snprintf(b, sizeof(b), "%lu", mfn);
    snprintf(c, sizeof(c), "%u", eventchn);
    iov[0] = str(a);
    iov[1] = str(b);
    iov[2] = str(c);
    return done(talk(h, XBT_NULL, XS_INTRODUCE, iov, 3));
}

bool xs_set_target(struct xs_handle *h, unsigned int domid, unsigned int target)
{
    char a[16], b[16];
    struct iovec iov[2];

    if (fxc_fault(__func__, h->domid))
        return false;
    snprintf(a, sizeof(a), "%u", domid);
    snprintf(b, sizeof(b), "%u", target);
    iov[0] = str(a);
    iov[1] = str(b);
    return done(talk(h, XBT_NULL, XS_SET_TARGET, iov, 2));
}

bool xs_resume_domain(struct xs_handle *h, unsigned int domid)
{
    if (fxc_fault(__func__, h->domid))
        return false;
    return done(talk_domid(h, XS_RESUME, domid));
}

bool xs_release_domain(struct xs_handle *h, unsigned int domid)
{
    if (fxc_fault(__func__, h->domid))
        return false;
    return done(talk_domid(h, XS_RELEASE, domid));
}

char *xs_get_domain_path(struct xs_handle *h, unsigned int domid)
{
    if (fxc_fault(__func__, h->domid))
        return NULL;
    return take_body(talk_domid(h, XS_GET_DOMAIN_PATH, domid), NULL);
}

bool xs_is_domain_introduced(struct xs_handle *h, unsigned int domid)
{
    struct msg *m;
    bool yes;

    if (fxc_fault(__func__, h->domid))
        return false;
    m = talk_domid(h, XS_IS_DOMAIN_INTRODUCED, domid);
    yes = m && strcmp(m->body, "F");
    free(m);
    return yes;
}

char *xs_control_command(struct xs_handle *h, const char *cmd, void *data, unsigned int len)
{
    struct iovec iov[2] = { str(cmd), { data, len } };

    if (fxc_fault(__func__, h->domid))
        return NULL;
    return take_body(talk(h, XBT_NULL, XS_CONTROL, iov, 2), NULL);
}

char *xs_debug_command(struct xs_handle *h, const char *cmd, void *data, unsigned int len)
{
    return xs_control_command(h, cmd, data, len);
}

int xs_suspend_evtchn_port(int domid)
{
    struct xs_handle *h = xs_open(0);
    char path[96], *s;
    unsigned int len;
    int port = -1;

    if (!h)
        return -1;
    snprintf(path, sizeof(path), "/local/domain/%d/device/suspend/event-channel", domid);
    s = xs_read(h, XBT_NULL, path, &len);
    if (s && len)
        port = atoi(s);
    free(s);
    xs_close(h);
    return port;
}
