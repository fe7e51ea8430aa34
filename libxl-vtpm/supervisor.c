/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting and watching backends: see supervisor.h. */
#include "config.h"

#include "libxl-vtpm/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/process.h"
#include "libxl-vtpm/spawn.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* Messages of one child per turn of the loop: more is a flood, the others go first. */
#define MESSAGES_PER_TURN 16

union message {
    struct xlv_msg_header h;
    struct xlv_msg_simple simple;
    struct xlv_msg_failed failed;
    struct xlv_msg_status status;
    struct xlv_msg_endorsement endorsement;
};

struct xlv_child {
    const struct xlv_child_ops *ops;
    void *opaque;
    const struct xlv_log_subject *subject;
    char *program;
    sd_event *event;
    sd_event_source *socket_source, *pid_source, *timer;
    uint64_t exit_us;
    int socket, pidfd;
    pid_t pid;
    bool ours;           /* our own child: it has to be reaped */
    bool confirmed;      /* the kernel said that a message came from pid */
    enum xlv_launch_mode mode;
    bool stopping;
    enum xlv_stop_reason told; /* 0: nothing yet */
    bool killed;
    unsigned asked; /* QUERY that are not answered yet */
    enum xlv_child_phase phase;
    uint64_t started_us;
    struct xlv_child_end end; /* filled as things become known */
};


static const struct {
    bool legal;
    enum xlv_child_phase next;
} may_say[XLV_PHASES][XLV_MSG_ENDORSEMENT + 1] = {
#define SAY(type, next_) [XLV_MSG_##type] = { true, XLV_PHASE_##next_ }
    [XLV_PHASE_STARTING] = { SAY(READY, READY), SAY(FAILED, DONE),
                             SAY(ENDORSEMENT, CERTIFYING) },
    [XLV_PHASE_CERTIFYING] = { SAY(READY, READY), SAY(FAILED, DONE) },
    [XLV_PHASE_ADOPTING] = { SAY(READY, ADOPTING), SAY(STATUS, READY), SAY(FAILED, DONE) },
    [XLV_PHASE_READY] = { SAY(STATUS, READY), SAY(FAILED, DONE) },
    [XLV_PHASE_STOPPING] = { SAY(READY, STOPPING), SAY(STATUS, STOPPING), SAY(FAILED, DONE),
                             SAY(BYE, DONE) },
#undef SAY
};

/* Serves nobody: READY means done. */
static bool is_task(enum xlv_launch_mode mode)
{
    return mode != XLV_LAUNCH_SERVE;
}

int xlv_child_may_say(enum xlv_child_phase phase, enum xlv_launch_mode mode, const void *message,
                      size_t length, enum xlv_child_phase *next)
{
    struct xlv_msg_header h;
    size_t wanted;
    bool any_version = false;

    if (length < sizeof(h))
        return XLV_E_INVALID;
    memcpy(&h, message, sizeof(h));
    if (h.magic != XLV_LAUNCH_MAGIC || h.type > XLV_MSG_ENDORSEMENT ||
        !may_say[phase][h.type].legal)
        return XLV_E_INVALID;
    switch (h.type) {
    case XLV_MSG_FAILED:
        wanted = sizeof(struct xlv_msg_failed);
        break;
    case XLV_MSG_ENDORSEMENT:
        wanted = sizeof(struct xlv_msg_endorsement);
        break;
    case XLV_MSG_STATUS:
        wanted = sizeof(struct xlv_msg_status);
        any_version = true;
        break;
    case XLV_MSG_BYE:
        wanted = sizeof(struct xlv_msg_simple);
        any_version = true;
        break;
    default:
        wanted = sizeof(struct xlv_msg_simple);
        break;
    }
    if (length != wanted || (!any_version && h.version != XLV_LAUNCH_VERSION))
        return XLV_E_INVALID;
    if ((is_task(mode) && h.type == XLV_MSG_STATUS) ||
        (mode != XLV_LAUNCH_MANUFACTURE && h.type == XLV_MSG_ENDORSEMENT))
        return XLV_E_INVALID;
    *next = may_say[phase][h.type].next;
    return 0;
}

bool xlv_child_is_foreign(const void *message, size_t length)
{
    struct xlv_msg_header h;

    if (length < sizeof(h))
        return false;
    memcpy(&h, message, sizeof(h));
    return h.magic == XLV_LAUNCH_MAGIC && h.version != XLV_LAUNCH_VERSION &&
           (h.type == XLV_MSG_READY || h.type == XLV_MSG_FAILED);
}

static uint64_t now_us(const struct xlv_child *c)
{
    uint64_t now = 0;

    (void)sd_event_now(c->event, CLOCK_MONOTONIC, &now);
    return now;
}

static void child_free(struct xlv_child *c)
{
    if (!c)
        return;
    sd_event_source_disable_unref(c->socket_source);
    sd_event_source_disable_unref(c->pid_source);
    sd_event_source_disable_unref(c->timer);
    xlv_close(&c->socket);
    xlv_close(&c->pidfd);
    free(c->program);
    free(c);
}

/* Is the process behind an unconfirmed pidfd one of our program? Only then may
 * it be killed: its pid is from SO_PEERCRED, which could be an earlier daemon's. */
static bool runs_our_program(const struct xlv_child *c)
{
    return xlv_process_runs(c->pid, c->program);
}

static void child_kill(struct xlv_child *c, enum xlv_child_how how, const char *text)
{
    if (c->killed)
        return;
    if (c->pidfd < 0 || (!c->ours && !c->confirmed && !runs_our_program(c))) {
        xlv_log_about(c->subject, XLV_LOG_ERROR,
                      "cannot end the process behind the listener of this device: it does not "
                      "answer and its pid is not known");
        return;
    }
    c->killed = true;
    c->phase = XLV_PHASE_DONE;
    c->end.how = how;
    snprintf(c->end.text, sizeof(c->end.text), "%s", text);
    if (pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        xlv_log_about(c->subject, XLV_LOG_ERROR, "cannot kill process %ld: %s", (long)c->pid,
                      strerror(errno));
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *opaque)
{
    struct xlv_child *c = opaque;

    (void)source;
    (void)usec;
    if (c->stopping)
        child_kill(c, XLV_CHILD_STOPPED, "it did not stop in time and was killed");
    else if (c->phase == XLV_PHASE_ADOPTING)
        child_kill(c, XLV_CHILD_TIMEOUT, "it did not answer the new daemon in time and was killed");
    else if (c->phase == XLV_PHASE_DONE || c->phase == XLV_PHASE_READY)
        child_kill(c, XLV_CHILD_TIMEOUT, "it hung up without exiting and was killed");
    else
        child_kill(c, XLV_CHILD_TIMEOUT, "it was not ready in time and was killed");
    return 0;
}

static void set_deadline(struct xlv_child *c, uint64_t us)
{
    uint64_t at = now_us(c) + us;

    if (c->timer) {
        (void)sd_event_source_set_time(c->timer, at);
        (void)sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
        return;
    }
    if (sd_event_add_time(c->event, &c->timer, CLOCK_MONOTONIC, at, 10000, on_deadline, c) < 0)
        xlv_log_about(c->subject, XLV_LOG_ERROR, "no timer for process %ld", (long)c->pid);
}

static uint64_t deadline_at(struct xlv_child *c)
{
    uint64_t at = 0;

    if (c->timer)
        (void)sd_event_source_get_time(c->timer, &at);
    return at;
}

static void no_deadline(struct xlv_child *c)
{
    if (c->timer)
        (void)sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
}

static int on_pid(sd_event_source *source, int fd, uint32_t revents, void *opaque);

/* The sender of an adopted child's first message is the process to watch. */
static int confirm(struct xlv_child *c, pid_t pid)
{
    struct pollfd p = { .fd = c->socket, .events = 0 };
    int fd, r;

    if (c->confirmed || pid <= 0)
        return 0;
    if (c->pidfd < 0 || pid != c->pid) {
        sd_event_source_disable_unref(c->pid_source);
        c->pid_source = NULL;
        xlv_close(&c->pidfd);
        fd = pidfd_open(pid, 0);
        if (fd < 0)
            return -errno;
        c->pidfd = fd;
        c->pid = pid;
        r = sd_event_add_io(c->event, &c->pid_source, c->pidfd, EPOLLIN, on_pid, c);
        if (r < 0)
            return r;
    }
    /* a process keeps its pid until after its sockets are closed */
    if (poll(&p, 1, 0) > 0 && (p.revents & POLLHUP))
        return -ESRCH;
    c->confirmed = true;
    return 0;
}

static void handle(struct xlv_child *c, const union message *m, size_t length, pid_t sender)
{
    enum xlv_child_phase next, before = c->phase;
    char text[160];

    if (c->killed)
        return;
    if (xlv_child_is_foreign(m, length)) {
        snprintf(
            text, sizeof(text),
            "it is of another build (launch version %u, this daemon's is %u); restart xl-vtpmd "
            "to go on with it",
            m->h.version, XLV_LAUNCH_VERSION);
        child_kill(c, XLV_CHILD_NOT_STARTED, text);
        return;
    }
    /* STATUS only where it was asked for: else it could keep us busy with nothing else */
    if (xlv_child_may_say(c->phase, c->mode, m, length, &next) ||
        (m->h.type == XLV_MSG_STATUS && !c->asked)) {
        snprintf(text, sizeof(text),
                 "it sent a message (%zu bytes, type %u) that it may not send and was killed",
                 length, length >= sizeof(m->h) ? m->h.type : 0u);
        child_kill(c, XLV_CHILD_GARBAGE, text);
        return;
    }
    if (!c->ours && confirm(c, sender)) {
        /* it ended right after its message; the hang-up comes next */
        return;
    }
    c->phase = next;
    switch (m->h.type) {
    case XLV_MSG_READY:
        if (before == XLV_PHASE_STARTING || before == XLV_PHASE_CERTIFYING) {
            c->end.was_ready = true;
            c->end.start_us = now_us(c) - c->started_us;
            if (is_task(c->mode))
                set_deadline(c, c->exit_us);
            else
                no_deadline(c);
            c->ops->ready(c, c->opaque);
        }
        break;
    case XLV_MSG_STATUS:
        c->asked--;
        if (before == XLV_PHASE_ADOPTING) {
            c->end.was_ready = true;
            no_deadline(c);
        }
        c->ops->status(c, &m->status, c->opaque);
        break;
    case XLV_MSG_FAILED: {
        size_t n = strnlen(m->failed.text, sizeof(m->failed.text));

        c->end.how = XLV_CHILD_FAILED;
        c->end.code = m->failed.code;
        snprintf(c->end.text, sizeof(c->end.text), "%.*s", (int)n, m->failed.text);
        for (char *p = c->end.text; *p; p++)
            if ((unsigned char)*p < ' ' || *p == 0x7f)
                *p = '?';
        if (!c->end.text[0])
            snprintf(c->end.text, sizeof(c->end.text), "%s", xlv_strerror(c->end.code));
        if (!c->stopping)
            set_deadline(c, c->exit_us);
        break;
    }
    case XLV_MSG_BYE:
        c->end.bye = true;
        break;
    case XLV_MSG_ENDORSEMENT:
        c->ops->endorsement(c, &m->endorsement, c->opaque);
        break;
    default:
        break;
    }
}

/* As xlv_receive_message without descriptors, and says who sent. A child may
 * send no descriptors: there is room for none, so the kernel drops them. */
static int receive(struct xlv_child *c, union message *m, size_t *length, pid_t *sender)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    ssize_t n;

    do
        n = recvmsg(c->socket, &msg, MSG_CMSG_CLOEXEC | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? XLV_E_GONE : -errno;
    *sender = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_CREDENTIALS) {
            struct ucred cred;

            memcpy(&cred, CMSG_DATA(h), sizeof(cred));
            *sender = cred.pid;
        } else if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
            size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

            for (size_t i = 0; i < count; i++) {
                int fd;

                memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
                close(fd);
            }
        }
    if (n == 0)
        return XLV_E_GONE;
    /* MSG_TRUNC: the real length, which no message of the table has */
    *length = (size_t)n;
    return 0;
}

/* Takes what waits; false when the other end is closed. */
static bool drain(struct xlv_child *c, int most)
{
    for (int i = 0; i < most; i++) {
        union message m;
        size_t length = 0;
        pid_t sender = 0;
        int rc = receive(c, &m, &length, &sender);

        if (rc == -EAGAIN)
            return true;
        if (rc)
            return false;
        handle(c, &m, length, sender);
    }
    return true;
}

static void finish(struct xlv_child *c)
{
    siginfo_t info = { 0 };
    bool known = false;

    if (c->socket >= 0 && !c->killed)
        (void)drain(c, INT_MAX);
    if (c->ours && waitid((idtype_t)P_PIDFD, (id_t)c->pidfd, &info, WEXITED) == 0 && info.si_pid)
        known = true;
    c->end.uptime_us = now_us(c) - c->started_us;
    if (!c->end.was_ready)
        c->end.start_us = c->end.uptime_us;
    if (c->killed || c->end.how == XLV_CHILD_FAILED) {
        /* already told */
    } else if (known && info.si_code != CLD_EXITED) {
        bool from_outside = info.si_status == SIGKILL || info.si_status == SIGTERM;

        c->end.how = from_outside ? XLV_CHILD_KILLED : XLV_CHILD_CRASHED;
        c->end.code = info.si_status;
        snprintf(c->end.text, sizeof(c->end.text), "it died of signal %d (%s)", info.si_status,
                 strsignal(info.si_status));
    } else if (c->end.bye || (is_task(c->mode) && c->end.was_ready)) {
        c->end.how = XLV_CHILD_CLEAN;
        snprintf(c->end.text, sizeof(c->end.text), "it ended as it should");
    } else if (known) {
        c->end.how = XLV_CHILD_CRASHED;
        c->end.code = 256 + info.si_status;
        snprintf(c->end.text, sizeof(c->end.text),
                 "it exited with status %d without saying why", info.si_status);
    } else {
        c->end.how = XLV_CHILD_KILLED;
        snprintf(c->end.text, sizeof(c->end.text), "it ended without a word");
    }
    sd_event_source_disable_unref(c->pid_source);
    sd_event_source_disable_unref(c->socket_source);
    c->pid_source = c->socket_source = NULL;
    c->ops->gone(c, &c->end, c->opaque);
    child_free(c);
}

static int on_pid(sd_event_source *source, int fd, uint32_t revents, void *opaque)
{
    (void)source;
    (void)fd;
    (void)revents;
    finish(opaque);
    return 0;
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *opaque)
{
    struct xlv_child *c = opaque;

    (void)source;
    (void)fd;
    (void)revents;
    if (drain(c, MESSAGES_PER_TURN))
        return 0;
    /* hung up: the process ends, or has to */
    sd_event_source_disable_unref(c->socket_source);
    c->socket_source = NULL;
    xlv_close(&c->socket);
    if (c->pidfd < 0) {
        /* adopted, and it ended before it said who it is */
        finish(c);
        return 0;
    }
    if (!c->stopping)
        set_deadline(c, c->exit_us);
    return 0;
}

static int child_new(struct xlv_child **out, const struct xlv_supervisor *s,
                     const struct xlv_log_subject *subject, const struct xlv_child_ops *ops,
                     void *opaque)
{
    struct xlv_child *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->socket = c->pidfd = -1;
    c->program = strdup(s->program);
    if (!c->program) {
        free(c);
        return -ENOMEM;
    }
    c->event = s->event;
    c->exit_us = s->exit_us;
    c->subject = subject;
    c->ops = ops;
    c->opaque = opaque;
    c->started_us = now_us(c);
    *out = c;
    return 0;
}

int xlv_child_spawn(struct xlv_child **out, const struct xlv_supervisor *s,
                    const struct xlv_msg_launch *launch, const int *fds, size_t nfds,
                    const struct xlv_log_subject *subject, const struct xlv_child_ops *ops,
                    void *opaque, struct xlv_error *e)
{
    int pair[2] = { -1, -1 };
    struct xlv_child *c;
    int rc;

    *out = NULL;
    rc = child_new(&c, s, subject, ops, opaque);
    if (rc)
        return xlv_fail(e, rc, "no memory to start %s", s->program);
    c->ours = c->confirmed = true;
    c->mode = (enum xlv_launch_mode)launch->mode;
    c->phase = XLV_PHASE_STARTING;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        rc = xlv_fail(e, -errno, "no socket pair for %s: %s", s->program, strerror(errno));
        goto fail;
    }
    rc = xlv_spawn_backend(s->program, pair[1], false, &c->pid);
    if (rc) {
        xlv_fail(e, rc, "cannot start %s: %s", s->program, strerror(-rc));
        goto fail;
    }
    c->pidfd = pidfd_open(c->pid, 0);
    if (c->pidfd < 0) {
        rc = xlv_fail(e, -errno, "no descriptor for process %ld: %s", (long)c->pid,
                      strerror(errno));
        kill(c->pid, SIGKILL);
        (void)waitpid(c->pid, NULL, 0);
        goto fail;
    }
    c->socket = pair[0];
    pair[0] = -1;
    /* an error here is the process having died: its end tells why */
    (void)xlv_send_message(c->socket, launch, sizeof(*launch), fds, nfds);
    if (fcntl(c->socket, F_SETFL, O_NONBLOCK) < 0)
        rc = -errno;
    if (rc >= 0)
        rc = sd_event_add_io(s->event, &c->pid_source, c->pidfd, EPOLLIN, on_pid, c);
    if (rc >= 0)
        rc = sd_event_add_io(s->event, &c->socket_source, c->socket, EPOLLIN, on_socket, c);
    if (rc < 0) {
        xlv_fail(e, rc, "cannot watch process %ld: %s", (long)c->pid, strerror(-rc));
        (void)pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
        (void)waitid((idtype_t)P_PIDFD, (id_t)c->pidfd, NULL, WEXITED);
        goto fail;
    }
    set_deadline(c, is_task(c->mode) ? s->manufacture_us : s->ready_us);
    xlv_close(&pair[1]);
    *out = c;
    return 0;
fail:
    xlv_close(&pair[0]);
    xlv_close(&pair[1]);
    child_free(c);
    return rc;
}

/* A listener's address by its directory's descriptor: as short as any path. */
static int listener_address(struct sockaddr_un *address, int dirfd, const char *name)
{
    int n;

    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    n = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", dirfd, name);
    return n > 0 && (size_t)n < sizeof(address->sun_path) ? 0 : -ENAMETOOLONG;
}

static void listener_name(char name[32], uint32_t domid, uint32_t devid)
{
    snprintf(name, 32, "%u-%u", domid, devid);
}

int xlv_listener_make(int dirfd, uint32_t domid, uint32_t devid, int *out, struct xlv_error *e)
{
    int fd XLV_CLOSE = -1;
    struct sockaddr_un address;
    char name[32];
    int rc;

    *out = -1;
    listener_name(name, domid, devid);
    rc = listener_address(&address, dirfd, name);
    if (rc)
        return xlv_fail(e, rc, "the name of listener %s is too long", name);
    if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
        return xlv_fail(e, -errno, "cannot remove the old listener %s: %s", name, strerror(errno));
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0)
        return xlv_fail(e, -errno, "cannot make the listener %s: %s", name, strerror(errno));
    *out = fd;
    fd = -1;
    return 0;
}

void xlv_listener_remove(int dirfd, uint32_t domid, uint32_t devid)
{
    char name[32];

    listener_name(name, domid, devid);
    (void)unlinkat(dirfd, name, 0);
}

int xlv_child_adopt(struct xlv_child **out, const struct xlv_supervisor *s, int dirfd,
                    const char *name, const struct xlv_log_subject *subject,
                    const struct xlv_child_ops *ops, void *opaque, struct xlv_error *e)
{
    struct xlv_msg_simple query = {
        .h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION, .type = XLV_MSG_QUERY },
    };
    struct sockaddr_un address;
    struct xlv_child *c;
    struct ucred cred;
    socklen_t size = sizeof(cred);
    int rc, one = 1;

    *out = NULL;
    rc = listener_address(&address, dirfd, name);
    if (rc)
        return xlv_fail(e, rc, "the name of listener %s is too long", name);
    rc = child_new(&c, s, subject, ops, opaque);
    if (rc)
        return xlv_fail(e, rc, "no memory to adopt the process of listener %s", name);
    c->mode = XLV_LAUNCH_SERVE;
    c->phase = XLV_PHASE_ADOPTING;
    c->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->socket < 0 ||
        setsockopt(c->socket, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0) {
        rc = xlv_fail(e, -errno, "no socket: %s", strerror(errno));
        goto fail;
    }
    if (connect(c->socket, (struct sockaddr *)&address, sizeof(address)) < 0) {
        if (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTSOCK) {
            (void)unlinkat(dirfd, name, 0);
            rc = XLV_E_GONE;
        } else {
            rc = xlv_fail(e, -errno, "cannot connect to the process of listener %s: %s", name,
                          strerror(errno));
        }
        goto fail;
    }
    if (getsockopt(c->socket, SOL_SOCKET, SO_PEERCRED, &cred, &size) == 0 && cred.pid > 0 &&
        cred.pid != getpid()) {
        c->pid = cred.pid;
        c->pidfd = pidfd_open(cred.pid, 0);
    }
    /* an error: it went away just now; the hang-up will tell */
    (void)xlv_send_message(c->socket, &query, sizeof(query), NULL, 0);
    c->asked = 1;
    rc = sd_event_add_io(s->event, &c->socket_source, c->socket, EPOLLIN, on_socket, c);
    if (rc < 0) {
        xlv_fail(e, rc, "cannot watch the process of listener %s: %s", name, strerror(-rc));
        goto fail;
    }
    if (c->pidfd >= 0) {
        rc = sd_event_add_io(s->event, &c->pid_source, c->pidfd, EPOLLIN, on_pid, c);
        if (rc < 0) {
            xlv_fail(e, rc, "cannot watch the process of listener %s: %s", name, strerror(-rc));
            goto fail;
        }
    }
    set_deadline(c, s->adopt_us);
    *out = c;
    return 0;
fail:
    child_free(c);
    return rc;
}

int xlv_child_query(struct xlv_child *c)
{
    struct xlv_msg_simple query = {
        .h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION, .type = XLV_MSG_QUERY },
    };
    int rc;

    if (c->phase != XLV_PHASE_READY || c->socket < 0 || is_task(c->mode))
        return XLV_E_INVALID;
    rc = xlv_send_message(c->socket, &query, sizeof(query), NULL, 0);
    if (!rc)
        c->asked++;
    return rc;
}

void xlv_child_certify(struct xlv_child *c, struct xlv_msg_certificates *m)
{
    m->h = (struct xlv_msg_header){ XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_CERTIFICATES };
    if (c->socket >= 0)
        (void)xlv_send_message(c->socket, m, sizeof(*m), NULL, 0);
}

void xlv_child_stop(struct xlv_child *c, enum xlv_stop_reason reason, uint64_t deadline_us)
{
    struct xlv_msg_stop stop = {
        .h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION, .type = XLV_MSG_STOP },
        .reason = reason,
    };

    if (c->stopping) {
        if (deadline_at(c) > now_us(c) + deadline_us)
            set_deadline(c, deadline_us);
        return;
    }
    c->stopping = true;
    c->told = reason;
    if (c->phase != XLV_PHASE_DONE)
        c->phase = XLV_PHASE_STOPPING;
    /* an error: it is gone or its queue is full of unread messages; the deadline decides */
    if (c->socket >= 0)
        (void)xlv_send_message(c->socket, &stop, sizeof(stop), NULL, 0);
    set_deadline(c, deadline_us);
}

void xlv_child_abandon(struct xlv_child *c)
{
    child_free(c);
}

enum xlv_stop_reason xlv_child_told(const struct xlv_child *c)
{
    return c->told;
}

pid_t xlv_child_pid(const struct xlv_child *c)
{
    return c->pid;
}

uint64_t xlv_start_paid(uint64_t paid_us, uint64_t now_us, uint64_t cost_us)
{
    uint64_t credit = now_us > XLV_START_CREDIT_US ? now_us - XLV_START_CREDIT_US : 0;

    return (paid_us > credit ? paid_us : credit) + XLV_START_SHARE * cost_us;
}

enum xlv_verdict xlv_backoff_judge(struct xlv_backoff *b, const struct xlv_child_end *end,
                                   uint64_t *delay_us)
{
    bool healthy = end->was_ready && end->uptime_us >= XLV_HEALTHY_US;

    *delay_us = 0;
    if (end->how == XLV_CHILD_FAILED)
        switch (end->code) {
        case XLV_E_CORRUPT:
        case XLV_E_WRONG_KEY:
        case XLV_E_WRONG_OWNER:
        case XLV_E_VERSION:
        case XLV_E_EMPTY:
        case XLV_E_REFUSED:
            return XLV_VERDICT_FATAL;
        default:
            break;
        }
    if (healthy)
        *b = (struct xlv_backoff){ .failures = 0 };
    if (end->how == XLV_CHILD_CLEAN || end->how == XLV_CHILD_STOPPED)
        return XLV_VERDICT_RETRY;
    /* somebody's kill -9 of a process that served: no fault of the instance's; the pause
     * only keeps two starts apart */
    if (end->how == XLV_CHILD_KILLED && end->was_ready) {
        *delay_us = end->uptime_us < XLV_RETRY_FIRST_US ? XLV_RETRY_FIRST_US - end->uptime_us : 0;
        return XLV_VERDICT_RETRY;
    }
    if (b->failures && b->how == (int)end->how && b->code == end->code)
        b->same++;
    else
        b->same = 1;
    b->how = (int)end->how;
    b->code = end->code;
    b->failures++;
    if (b->failures > 1) {
        unsigned shift = b->failures - 2;

        *delay_us = shift < 8 ? XLV_RETRY_FIRST_US << shift : XLV_RETRY_MAX_US;
        if (*delay_us > XLV_RETRY_MAX_US)
            *delay_us = XLV_RETRY_MAX_US;
    }
    if (b->same < XLV_QUARANTINE_AFTER)
        return XLV_VERDICT_RETRY;
    switch (end->how) {
    case XLV_CHILD_CRASHED:
    case XLV_CHILD_TIMEOUT:
    case XLV_CHILD_GARBAGE:
        return XLV_VERDICT_QUARANTINE;
    case XLV_CHILD_FAILED:
        /* the rest may be the host's or the guest's doing (no memory, a bad ring) */
        return end->code == XLV_E_TPM || end->code == XLV_E_FORBIDDEN ? XLV_VERDICT_QUARANTINE
                                                                      : XLV_VERDICT_RETRY;
    default:
        return XLV_VERDICT_RETRY;
    }
}
