/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server half of the control socket: see control-server.h. */
#include "config.h"

#include "libxl-vtpm/control-server.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "include/control.h"
#include "libxl-vtpm/calls.h"
#include "libxl-vtpm/control.h"

#define TEMPORARY ".control.sock.new"

/* Lines that wait for a client of monitor; above that they are lost to it. */
#define LINES_MAX 256u

struct monitor {
    struct json_object *lines[LINES_MAX]; /* a ring: count of them, from first on */
    unsigned first, count;
    uint64_t lost; /* since the last that waits */
};

struct client {
    struct client *next, *previous;
    struct xlv_control_server *server;
    int fd;
    sd_event_source *source;
    struct xlv_control_in in;
    struct xlv_control_out out;
    struct json_object *waiting; /* its answer needs figures that are being collected */
    bool refreshing, freezing;
    bool looks_only; /* a member of control-group */
    struct monitor *monitor; /* of a client that only listens */
};

struct xlv_control_server {
    struct xlv_daemon *daemon;
    sd_event *event;
    int fd, dirfd;
    sd_event_source *source;
    const char *group; /* "": none; borrowed */
    gid_t gid;
    struct client *clients;
    unsigned count;
};

static void monitor_free(struct monitor *m)
{
    for (unsigned i = 0; m && i < m->count; i++)
        json_object_put(m->lines[(m->first + i) % LINES_MAX]);
    free(m);
}

static void client_free(struct client *c)
{
    struct xlv_control_server *s = c->server;

    if (c->refreshing)
        xlv_daemon_refresh_cancel(s->daemon, c);
    if (c->freezing)
        xlv_daemon_thaw(s->daemon, c);
    sd_event_source_disable_unref(c->source);
    xlv_close(&c->fd);
    xlv_control_in_deinit(&c->in);
    xlv_control_out_deinit(&c->out);
    json_object_put(c->waiting);
    monitor_free(c->monitor);
    if (c->next)
        c->next->previous = c->previous;
    if (c->previous)
        c->previous->next = c->next;
    else
        s->clients = c->next;
    s->count--;
    free(c);
}

static int want(struct client *c)
{
    uint32_t events = 0;

    /* one request at a time: what comes meanwhile waits in the socket */
    if (xlv_control_out_pending(&c->out))
        events = EPOLLOUT;
    else if (c->monitor && (c->monitor->count || c->monitor->lost))
        events = EPOLLOUT | EPOLLIN;
    else if (!c->waiting)
        events = EPOLLIN;
    return sd_event_source_set_io_events(c->source, events);
}

/* 0, or the client has to go. Takes over answer, which may be NULL. */
static int send_answer(struct client *c, struct json_object *answer)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    if (!answer)
        return -ENOMEM;
    rc = xlv_control_out_put(&c->out, answer, &e);
    json_object_put(answer);
    if (rc == XLV_E_INVALID) {
        answer = xlv_control_error(rc, &e);
        rc = answer ? xlv_control_out_put(&c->out, answer, NULL) : -ENOMEM;
        json_object_put(answer);
    }
    if (rc)
        return rc;
    rc = xlv_control_send(c->fd, &c->out);
    return rc == -EAGAIN ? 0 : rc;
}

static int reply(struct client *c, struct json_object *request)
{
    return send_answer(c, xlv_calls_answer(xlv_daemon_calls(c->server->daemon), request));
}

static void on_frozen(void *opaque, struct json_object *answer)
{
    struct client *c = opaque;
    int rc;

    json_object_put(c->waiting);
    c->waiting = NULL;
    rc = send_answer(c, answer);
    if (rc || want(c) < 0)
        client_free(c);
}

static void on_refreshed(void *opaque)
{
    struct client *c = opaque;
    struct json_object *request = c->waiting;
    int rc;

    c->refreshing = false;
    c->waiting = NULL;
    rc = reply(c, request);
    json_object_put(request);
    if (rc || want(c) < 0)
        client_free(c);
}

/*
 * monitor
 */

static void push(struct monitor *m, struct json_object *line)
{
    m->lines[(m->first + m->count++) % LINES_MAX] = line;
}

static bool tell_lost(struct monitor *m)
{
    struct json_object *lost = json_object_new_object();

    if (!lost)
        return false;
    (void)xlv_json_set(lost, "lost", json_object_new_uint64(m->lost));
    push(m, lost);
    m->lost = 0;
    return true;
}

/* What was lost is told in its place, as soon as there is room for that and one line more. */
static void remember(struct monitor *m, struct json_object *line)
{
    if (m->count + (m->lost ? 2 : 1) > LINES_MAX || (m->lost && !tell_lost(m)))
        m->lost++;
    else
        push(m, json_object_get(line));
}

/* Any code of the daemon may be amid anything here: the line is noted, no more. */
static void on_line(enum xlv_log_level level, const struct xlv_log_subject *subject,
                    const char *text, void *opaque)
{
    struct xlv_control_server *s = opaque;
    struct json_object *line = NULL;
    char uuid[XLV_UUID_TEXT];

    for (struct client *c = s->clients; c; c = c->next) {
        if (!c->monitor)
            continue;
        if (!line) {
            line = json_object_new_object();
            if (!line)
                return;
            (void)xlv_json_set(line, "time", xlv_json_time(time(NULL)));
            (void)xlv_json_set(line, "level", json_object_new_string(xlv_log_level_name(level)));
            (void)xlv_json_set(line, "domid", subject && subject->domid >= 0
                                   ? json_object_new_int(subject->domid) : NULL);
            (void)xlv_json_set(line, "devid", subject && subject->domid >= 0
                                   ? json_object_new_int(subject->devid) : NULL);
            (void)xlv_json_set(line, "uuid", subject && subject->uuid
                                  ? json_object_new_string(xlv_uuid_format(subject->uuid, uuid))
                                  : NULL);
            (void)xlv_json_set(line, "instance", subject && subject->instance
                                      ? json_object_new_uint64(subject->instance) : NULL);
            (void)xlv_json_set(line, "text", xlv_json_text(text));
        }
        remember(c->monitor, line);
        (void)want(c);
    }
    json_object_put(line);
}

/* Sends what waits, as far as the client takes it. */
static int tell(struct client *c)
{
    struct monitor *m = c->monitor;
    int rc = xlv_control_out_pending(&c->out) ? xlv_control_send(c->fd, &c->out) : 0;

    while (!rc && (m->count || m->lost)) {
        struct json_object *line;

        if (!m->count && !tell_lost(m))
            return -ENOMEM;
        line = m->lines[m->first];
        m->first = (m->first + 1) % LINES_MAX;
        m->count--;
        rc = send_answer(c, xlv_control_ok(line));
        if (!rc && xlv_control_out_pending(&c->out))
            break;
    }
    return rc;
}

static int begin_monitor(struct client *c)
{
    c->monitor = calloc(1, sizeof(*c->monitor));
    return c->monitor ? send_answer(c, xlv_control_ok(NULL)) : -ENOMEM;
}

static bool is_call(struct json_object *request, const char *name)
{
    struct json_object *call;

    return json_object_object_get_ex(request, "call", &call) &&
           json_object_is_type(call, json_type_string) &&
           !strcmp(json_object_get_string(call), name);
}

/* Do the figures of running backends belong into the answer? */
static bool shows_figures(struct json_object *request)
{
    return is_call(request, "list") || is_call(request, "show");
}

static bool changes_nothing(struct json_object *request)
{
    static const char *const looking[] = { "list",   "show",    "stats",  "check",
                                           "status", "ek-cert", "monitor" };

    for (size_t i = 0; i < sizeof(looking) / sizeof(looking[0]); i++)
        if (is_call(request, looking[i]))
            return true;
    return false;
}

static int take(struct client *c)
{
    struct json_object *request, *answer;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_control_receive(c->fd, &c->in, &request, &e);

    if (rc == XLV_E_INVALID) {
        answer = xlv_control_error(rc, &e);
        /* it gets told, and then is cut off */
        if (answer && xlv_control_out_put(&c->out, answer, NULL) == 0)
            (void)xlv_control_send(c->fd, &c->out);
        json_object_put(answer);
        return rc;
    }
    if (rc)
        return rc;
    if (c->looks_only && !changes_nothing(request)) {
        xlv_fail(&e, XLV_E_REFUSED, "members of group %s may look only; this call is for root",
                 c->server->group);
        answer = xlv_control_error(XLV_E_REFUSED, &e);
        rc = answer ? xlv_control_out_put(&c->out, answer, NULL) : -ENOMEM;
        json_object_put(answer);
        json_object_put(request);
        if (rc)
            return rc;
        rc = xlv_control_send(c->fd, &c->out);
        return rc == -EAGAIN ? 0 : rc;
    }
    if (shows_figures(request) && xlv_daemon_refresh(c->server->daemon, on_refreshed, c) == 0) {
        c->waiting = request;
        c->refreshing = true;
        return 0;
    }
    if (is_call(request, "freeze") && !c->freezing) {
        answer = xlv_daemon_freeze(c->server->daemon, request, on_frozen, c);
        if (!answer) {
            c->waiting = request;
            c->freezing = true;
            return 0;
        }
        rc = send_answer(c, answer);
    } else if (is_call(request, "monitor")) {
        rc = begin_monitor(c);
    } else {
        rc = reply(c, request);
    }
    json_object_put(request);
    return rc;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *opaque)
{
    struct client *c = opaque;
    int rc = 0;

    (void)source;
    (void)fd;
    if (c->monitor && revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
        rc = XLV_E_GONE; /* it has nothing more to say */
    else if (c->monitor)
        rc = tell(c);
    else if (xlv_control_out_pending(&c->out))
        rc = xlv_control_send(c->fd, &c->out);
    else if (revents & EPOLLIN && !c->waiting)
        rc = take(c);
    else if (revents & (EPOLLHUP | EPOLLERR))
        rc = XLV_E_GONE;
    if (rc == -EAGAIN)
        rc = 0;
    if (rc || want(c) < 0)
        client_free(c);
    return 0;
}

/* Does the client belong to the group, by the kernel's word? */
static bool is_member(const struct xlv_control_server *s, int fd, gid_t primary)
{
    gid_t groups[1024];
    socklen_t size = sizeof(groups);

    if (!s->group[0])
        return false;
    if (primary == s->gid)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
        return false;
    for (size_t i = 0; i < size / sizeof(groups[0]); i++)
        if (groups[i] == s->gid)
            return true;
    return false;
}

static int on_accept(sd_event_source *source, int listener, uint32_t revents, void *opaque)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(5, 60);
    struct xlv_control_server *s = opaque;
    struct ucred cred = { .uid = (uid_t)-1 };
    socklen_t size = sizeof(cred);
    unsigned most;
    struct client *c;
    int fd XLV_CLOSE = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)source;
    (void)revents;
    if (fd < 0)
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0 ||
        (cred.uid != 0 && cred.uid != geteuid() && !is_member(s, fd, cred.gid))) {
        if (xlv_ratelimit_pass(&limit))
            xlv_log(XLV_LOG_WARNING, "a client of uid %u was turned away from the control socket",
                    (unsigned)cred.uid);
        return 0;
    }
    /* those who may only look keep nobody else out */
    most = cred.uid == 0 || cred.uid == geteuid() ? XLV_CONTROL_CLIENTS_MAX
                                                  : XLV_CONTROL_MEMBERS_MAX;
    if (s->count >= most) {
        if (xlv_ratelimit_pass(&limit))
            xlv_log(XLV_LOG_WARNING, "a client was turned away: %u are connected", s->count);
        return 0;
    }
    c = calloc(1, sizeof(*c));
    if (!c)
        return 0;
    c->server = s;
    c->fd = fd;
    c->looks_only = cred.uid != 0 && cred.uid != geteuid();
    fd = -1;
    xlv_control_in_init(&c->in, XLV_CONTROL_REQUEST_MAX);
    c->next = s->clients;
    if (c->next)
        c->next->previous = c;
    s->clients = c;
    s->count++;
    if (sd_event_add_io(s->event, &c->source, c->fd, EPOLLIN, on_client, c) < 0)
        client_free(c);
    return 0;
}

/* The socket and the way to it, and nothing else in run-dir. -1: errno tells. */
static int open_to_group(struct xlv_control_server *s)
{
    struct group *group = s->group[0] ? getgrnam(s->group) : NULL;

    if (!s->group[0])
        return fchmod(s->dirfd, 0700);
    if (!group) {
        errno = ENOENT;
        return -1;
    }
    s->gid = group->gr_gid;
    if (fchownat(s->dirfd, TEMPORARY, (uid_t)-1, s->gid, 0) < 0 ||
        fchmodat(s->dirfd, TEMPORARY, 0660, 0) < 0 || fchown(s->dirfd, (uid_t)-1, s->gid) < 0)
        return -1;
    return fchmod(s->dirfd, 0710);
}

int xlv_control_server_new(struct xlv_control_server **out, sd_event *event,
                           struct xlv_daemon *daemon, const struct xlv_settings *settings,
                           struct xlv_error *e)
{
    const char *run_dir = settings->run_dir;
    struct xlv_control_server *s = calloc(1, sizeof(*s));
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int rc;

    *out = NULL;
    if (!s)
        return xlv_fail(e, -ENOMEM, "no memory for the control socket");
    s->event = event;
    s->daemon = daemon;
    s->fd = -1;
    s->group = settings->control_group;
    s->dirfd = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dirfd < 0) {
        rc = xlv_fail(e, -errno, "cannot open the directory %s: %s", run_dir, strerror(errno));
        goto fail;
    }
    /* by the descriptor: a long run-dir would not fit an address */
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", s->dirfd,
             TEMPORARY);
    (void)unlinkat(s->dirfd, TEMPORARY, 0);
    s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0 || fchmod(s->fd, 0600) < 0 ||
        bind(s->fd, (struct sockaddr *)&address, sizeof(address)) < 0 || open_to_group(s) < 0 ||
        listen(s->fd, 16) < 0 ||
        renameat(s->dirfd, TEMPORARY, s->dirfd, XLV_CONTROL_SOCKET) < 0) {
        rc = xlv_fail(e, -errno, "cannot make the control socket %s/%s: %s", run_dir,
                      XLV_CONTROL_SOCKET, strerror(errno));
        goto fail;
    }
    rc = sd_event_add_io(event, &s->source, s->fd, EPOLLIN, on_accept, s);
    if (rc < 0) {
        xlv_fail(e, rc, "cannot watch the control socket: %s", strerror(-rc));
        goto fail;
    }
    xlv_log_set_watcher(on_line, s);
    *out = s;
    return 0;
fail:
    xlv_close(&s->fd);
    xlv_close(&s->dirfd);
    free(s);
    return rc;
}

void xlv_control_server_free(struct xlv_control_server *s)
{
    if (!s)
        return;
    xlv_log_set_watcher(NULL, NULL);
    for (struct client *c = s->clients, *next; c; c = next) {
        next = c->next;
        client_free(c);
    }
    (void)unlinkat(s->dirfd, XLV_CONTROL_SOCKET, 0);
    sd_event_source_disable_unref(s->source);
    xlv_close(&s->fd);
    xlv_close(&s->dirfd);
    free(s);
}
