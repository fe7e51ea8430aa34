/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Start and end of the daemon, its connection to xenstore, and whose turn it is:
 * see daemon.h; daemon-internal.h says what the other files hold.
 */
#include "config.h"

#include "libxl-vtpm/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "libxl-vtpm/daemon-internal.h"

#define HEARTBEAT_US (1000 * 1000ull)
#define RECONNECT_FIRST_US (100 * 1000ull)
#define RECONNECT_MAX_US (5 * 1000 * 1000ull)

#define WATCHES_PER_TURN 256
#define DEVICES_PER_TURN 32

/* After a domain's death its device is searched for: so many questions to xenstore, this often. */
#define SWEEP_PER_TURN 8
#define SWEEP_TURN_US (10 * 1000ull)

#define TOKEN_ROOT "root"
#define TOKEN_RELEASE "release"

uint64_t xlv_daemon_now(struct xlv_daemon *m)
{
    uint64_t now = 0;

    (void)sd_event_now(m->event, CLOCK_MONOTONIC, &now);
    return now;
}

void xlv_daemon_arm(struct xlv_daemon *m, sd_event_source **source, uint64_t after_us,
                    sd_event_time_handler_t handler, void *opaque)
{
    uint64_t at = xlv_daemon_now(m) + after_us;
    int r;

    if (*source) {
        (void)sd_event_source_set_time(*source, at);
        r = sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
    } else {
        r = sd_event_add_time(m->event, source, CLOCK_MONOTONIC, at, 1000, handler, opaque);
    }
    if (r < 0)
        xlv_log(XLV_LOG_ERROR, "cannot arm a timer: %s", strerror(-r));
}

void xlv_daemon_disarm(sd_event_source *source)
{
    if (source)
        (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

/* --- devices: table, queue --- */

static int by_key(const void *a, const void *b)
{
    const struct device *x = a, *y = b;

    return x->key < y->key ? -1 : x->key > y->key;
}

static uint64_t key_of(uint32_t domid, uint32_t devid)
{
    return (uint64_t)domid << 8 | devid;
}

static struct device *xlv_daemon_find(struct xlv_daemon *m, uint32_t domid, uint32_t devid)
{
    struct device key = { .key = key_of(domid, devid) };
    struct device **found = tfind(&key, &m->tree, by_key);

    return found ? *found : NULL;
}

void xlv_dev_mark(struct device *d, bool look)
{
    struct xlv_daemon *m = d->daemon;

    d->look = d->look || look;
    if (d->dirty)
        return;
    d->dirty = true;
    d->dirty_next = NULL;
    d->dirty_previous = m->dirty_last;
    if (m->dirty_last)
        m->dirty_last->dirty_next = d;
    else
        m->dirty_first = d;
    m->dirty_last = d;
    (void)sd_event_source_set_enabled(m->work, SD_EVENT_ON);
}

static void unmark(struct device *d)
{
    struct xlv_daemon *m = d->daemon;

    if (!d->dirty)
        return;
    d->dirty = false;
    if (d->dirty_next)
        d->dirty_next->dirty_previous = d->dirty_previous;
    else
        m->dirty_last = d->dirty_previous;
    if (d->dirty_previous)
        d->dirty_previous->dirty_next = d->dirty_next;
    else
        m->dirty_first = d->dirty_next;
}

static int on_work(sd_event_source *source, void *opaque)
{
    struct xlv_daemon *m = opaque;

    for (int i = 0; i < DEVICES_PER_TURN && m->dirty_first; i++) {
        struct device *d = m->dirty_first;

        unmark(d);
        xlv_dev_run(d);
    }
    if (!m->dirty_first) {
        (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
        if (m->connected_once && !m->told_ready) {
            m->told_ready = true;
            if (m->config.ready)
                m->config.ready(m->config.opaque);
        }
    }
    return 0;
}

/* --- coming and going --- */

void xlv_dev_watch(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    char path[128], token[32];
    int rc;

    if (d->watched || !m->xs)
        return;
    snprintf(path, sizeof(path), "%s/state", d->frontend);
    snprintf(token, sizeof(token), "%u/%u", d->domid, d->devid);
    rc = xlv_xenstore_watch(m->xs, path, token);
    if (rc == XLV_E_GONE) {
        xlv_daemon_lost(m);
    } else if (rc) {
        /* xenstored limits the watches of a driver domain: look by the clock until one is
         * to be had */
        if (xlv_ratelimit_pass(&d->limit))
            xlv_log_about(&d->subject, XLV_LOG_WARNING,
                          "cannot watch %s: %s; it is looked at by the clock. If xenstored's quota "
                          "of watches is used up, raise it (xenstored --quota)", path,
                          rc == -E2BIG ? "no more watches" : xlv_strerror(rc));
        xlv_dev_look_later(d);
    } else {
        d->watched = true;
    }
}

void xlv_dev_unwatch(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    char path[128], token[32];

    if (!d->watched || !m->xs)
        return;
    snprintf(path, sizeof(path), "%s/state", d->frontend);
    snprintf(token, sizeof(token), "%u/%u", d->domid, d->devid);
    if (xlv_xenstore_unwatch(m->xs, path, token) == XLV_E_GONE)
        xlv_daemon_lost(m);
    d->watched = false;
}

struct device *xlv_dev_new(struct xlv_daemon *m, uint32_t domid, uint32_t devid)
{
    struct device *d = calloc(1, sizeof(*d));

    if (!d || m->count >= XLV_DEVICES_MAX) {
        xlv_log(XLV_LOG_ERROR, "device %u/%u is not served: %s", domid, devid,
                d ? "too many devices" : "no memory");
        free(d);
        return NULL;
    }
    d->key = key_of(domid, devid);
    d->daemon = m;
    d->domid = domid;
    d->devid = devid;
    d->state = XLV_DEVICE_UNDECIDED;
    d->boot = XLV_BOOT_FRESH;
    d->claim.on_granted = xlv_dev_granted;
    d->claim.on_failed = xlv_dev_denied;
    d->limit = (struct xlv_ratelimit)XLV_RATELIMIT(5, 10);
    d->subject = (struct xlv_log_subject){ .domid = (int)domid, .devid = (int)devid };
    snprintf(d->backend, sizeof(d->backend), "%s/%u/%u", m->root, domid, devid);
    snprintf(d->frontend, sizeof(d->frontend), "/local/domain/%u/device/vtpm/%u", domid, devid);
    if (!tsearch(d, &m->tree, by_key)) {
        xlv_log(XLV_LOG_ERROR, "device %u/%u is not served: no memory", domid, devid);
        free(d);
        return NULL;
    }
    d->next = m->devices;
    if (d->next)
        d->next->previous = d;
    m->devices = d;
    m->count++;
    if (devid > m->devid_most)
        m->devid_most = devid;
    return d;
}

void xlv_dev_free(struct device *d)
{
    struct xlv_daemon *m = d->daemon;

    xlv_claim_release(m->instances, &d->claim);
    if (d->child)
        xlv_child_abandon(d->child);
    sd_event_source_disable_unref(d->write_timer);
    sd_event_source_disable_unref(d->timer);
    sd_event_source_disable_unref(d->look_timer);
    unmark(d);
    if (m->sweep_next == d)
        m->sweep_next = d->next;
    if (d->next)
        d->next->previous = d->previous;
    if (d->previous)
        d->previous->next = d->next;
    else
        m->devices = d->next;
    tdelete(d, &m->tree, by_key);
    m->count--;
    free(d);
}

/* Is there such a device, and do we know it? */
void xlv_daemon_touch(struct xlv_daemon *m, uint32_t domid, uint32_t devid)
{
    struct device *d = xlv_daemon_find(m, domid, devid);
    struct xlv_xs_value value;
    char path[128];
    int rc;

    if (d) {
        xlv_dev_watch(d);
        xlv_dev_mark(d, true);
        return;
    }
    if (!m->xs)
        return;
    snprintf(path, sizeof(path), "%s/%u/%u/state", m->root, domid, devid);
    rc = xlv_xenstore_read(m->xs, XLV_XS_NONE, path, &value);
    if (rc == XLV_E_GONE) {
        xlv_daemon_lost(m);
        return;
    }
    /* no state node: one that was refused, or a directory that goes */
    if (rc)
        return;
    d = xlv_dev_new(m, domid, devid);
    if (!d)
        return;
    d->written = d->wanted = xlv_parse_xenbus(value.text, value.length);
    d->found = d->written >= XLV_XENBUS_INIT_WAIT;
    if (d->found)
        d->came_back = true;
    if (d->written == XLV_XENBUS_CLOSING)
        d->state = XLV_DEVICE_HOLDING;
    else if (d->written == XLV_XENBUS_CLOSED)
        d->state = XLV_DEVICE_CLOSED;
    xlv_dev_watch(d);
    xlv_dev_mark(d, true);
}

/* The devices that a domain's directory lists, and those we know of. */
static void rescan_domain(struct xlv_daemon *m, uint32_t domid)
{
    char path[96], **names;
    unsigned count;
    int rc;

    for (uint32_t devid = 0; devid <= m->devid_most; devid++) {
        struct device *d = xlv_daemon_find(m, domid, devid);

        if (d)
            xlv_dev_mark(d, true);
    }
    if (!m->xs)
        return;
    snprintf(path, sizeof(path), "%s/%u", m->root, domid);
    rc = xlv_xenstore_list(m->xs, path, &names, &count);
    if (rc == XLV_E_GONE)
        xlv_daemon_lost(m);
    if (rc)
        return;
    for (unsigned i = 0; i < count; i++) {
        uint32_t devid;

        if (xlv_parse_number(names[i], strlen(names[i]), XLV_DEVID_MAX, &devid) == 0)
            xlv_daemon_touch(m, domid, devid);
    }
    free(names);
}

static void rescan(struct xlv_daemon *m)
{
    char **names;
    unsigned count;
    int rc;

    m->rescan_wanted = false;
    for (struct device *d = m->devices; d; d = d->next) {
        xlv_dev_watch(d);
        xlv_dev_mark(d, true);
        xlv_dev_flush_state(d);
    }
    if (!m->xs)
        return;
    rc = xlv_xenstore_list(m->xs, m->root, &names, &count);
    if (rc == XLV_E_GONE)
        xlv_daemon_lost(m);
    else if (rc && rc != XLV_E_NOT_FOUND)
        xlv_log(XLV_LOG_ERROR, "cannot list %s: %s", m->root, xlv_strerror(rc));
    if (rc)
        return;
    for (unsigned i = 0; i < count; i++) {
        uint32_t domid;

        if (xlv_parse_number(names[i], strlen(names[i]), XLV_DOMID_MAX, &domid) == 0)
            rescan_domain(m, domid);
    }
    free(names);
}

/*
 * Domains die without their nodes going (a toolstack that was killed half way): their
 * pages must be let go. @releaseDomain does not say which domain it was, so all are
 * asked for, a few at a time; deaths that come meanwhile share one more round. So a host
 * on which everything shuts down costs questions by the clock, not by the square.
 */
static int on_sweep(sd_event_source *source, uint64_t usec, void *opaque)
{
    struct xlv_daemon *m = opaque;

    (void)source;
    (void)usec;
    for (int i = 0; i < SWEEP_PER_TURN && m->sweep_next && m->xs; i++) {
        struct device *d = m->sweep_next;

        m->sweep_next = d->next;
        xlv_dev_look_at_domain(d);
        if (!d->view.domain_dead && !xlv_xenstore_domain_exists(m->xs, d->domid)) {
            d->view.domain_dead = true;
            xlv_log_about(&d->subject, XLV_LOG_NOTICE, "domain %s is dead", xlv_dev_domain(d));
            xlv_dev_mark(d, true);
        }
    }
    m->sweep_at_us = xlv_daemon_now(m) + SWEEP_TURN_US;
    if (!m->sweep_next && m->sweep_again) {
        m->sweep_again = false;
        m->sweep_next = m->devices;
    }
    if (m->sweep_next && m->xs)
        xlv_daemon_arm(m, &m->sweep, SWEEP_TURN_US, on_sweep, m);
    return 0;
}

static void sweep(struct xlv_daemon *m)
{
    uint64_t now = xlv_daemon_now(m);

    if (m->sweep_next) {
        m->sweep_again = true;
        return;
    }
    m->sweep_next = m->devices;
    xlv_daemon_arm(m, &m->sweep, m->sweep_at_us > now ? m->sweep_at_us - now : 0, on_sweep, m);
}

/* --- xenstore's connection --- */

static void on_watch(struct xlv_daemon *m, const struct xlv_xs_event *event)
{
    uint32_t domid;
    int64_t devid;
    size_t n = strlen(m->root);

    if (!strcmp(event->token, TOKEN_RELEASE)) {
        xlv_daemon_freezes_look(m);
        sweep(m);
        return;
    }
    if (!strcmp(event->token, TOKEN_ROOT)) {
        if (strncmp(event->path, m->root, n) || event->path[n] != '/') {
            m->rescan_wanted = true;
            return;
        }
        if (xlv_parse_device_path(event->path + n + 1, &domid, &devid))
            return;
        if (devid < 0)
            rescan_domain(m, domid);
        else
            xlv_daemon_touch(m, domid, (uint32_t)devid);
        return;
    }
    if (xlv_parse_device_path(event->token, &domid, &devid) == 0 && devid >= 0) {
        struct device *d = xlv_daemon_find(m, domid, (uint32_t)devid);

        if (d)
            xlv_dev_mark(d, true);
    }
}

static int on_heartbeat(sd_event_source *source, uint64_t usec, void *opaque);

static void take_watches(struct xlv_daemon *m)
{
    struct xlv_xs_event event;
    int rc = 0;

    for (int i = 0; i < WATCHES_PER_TURN && m->xs; i++) {
        rc = xlv_xenstore_next(m->xs, &event);
        if (rc)
            break;
        on_watch(m, &event);
        free(event.block);
    }
    /* once, however often it was asked for */
    if (m->rescan_wanted)
        rescan(m);
    if (!m->xs)
        return;
    if (rc == XLV_E_GONE)
        xlv_daemon_lost(m);
    else if (rc != -EAGAIN)
        /* libxenstore may have made its descriptor unreadable although more waits */
        xlv_daemon_arm(m, &m->heartbeat, 0, on_heartbeat, m);
}

static int on_xenstore(sd_event_source *source, int fd, uint32_t revents, void *opaque)
{
    (void)source;
    (void)fd;
    (void)revents;
    take_watches(opaque);
    return 0;
}

static int on_heartbeat(sd_event_source *source, uint64_t usec, void *opaque)
{
    struct xlv_daemon *m = opaque;

    (void)source;
    (void)usec;
    if (!m->xs)
        return 0;
    xlv_daemon_arm(m, &m->heartbeat, HEARTBEAT_US, on_heartbeat, m);
    take_watches(m);
    return 0;
}

static int on_reconnect(sd_event_source *source, uint64_t usec, void *opaque);

static void reconnect_later(struct xlv_daemon *m)
{
    xlv_daemon_arm(m, &m->reconnect, m->reconnect_us, on_reconnect, m);
    m->reconnect_us *= 2;
    if (m->reconnect_us > RECONNECT_MAX_US)
        m->reconnect_us = RECONNECT_MAX_US;
}

void xlv_daemon_lost(struct xlv_daemon *m)
{
    if (!m->xs)
        return;
    xlv_log(XLV_LOG_WARNING,
            "the connection to xenstore is lost; running TPMs run on, connecting again");
    m->xs_source = sd_event_source_disable_unref(m->xs_source);
    xlv_daemon_disarm(m->heartbeat);
    xlv_xenstore_close(m->xs);
    m->xs = NULL;
    /* the new connection's watches fire at once, and everything is looked at again */
    m->sweep_next = NULL;
    m->sweep_again = false;
    for (struct device *d = m->devices; d; d = d->next)
        d->watched = false;
    reconnect_later(m);
}

static void adopt_all(struct xlv_daemon *m);

static int connect_xenstore(struct xlv_daemon *m, struct xlv_error *e)
{
    struct xlv_xs_value value;
    uint32_t own = 0;
    int rc;

    rc = xlv_xenstore_open(&m->xs, e);
    if (rc)
        return rc;
    rc = xlv_xenstore_read(m->xs, XLV_XS_NONE, "domid", &value);
    if (rc == 0 && xlv_parse_number(value.text, value.length, XLV_DOMID_MAX, &own))
        rc = xlv_fail(e, XLV_E_INVALID, "xenstore says that our domid is %.16s", value.text);
    else if (rc == XLV_E_NOT_FOUND)
        rc = 0;
    if (rc) {
        xlv_fail(e, rc, "cannot read our domid from xenstore: %s", xlv_strerror(rc));
        goto fail;
    }
    if (m->connected_once && own != m->own) {
        rc = xlv_fail(e, XLV_E_INVALID, "our domid was %u and is now %u", m->own, own);
        goto fail;
    }
    m->own = own;
    snprintf(m->root, sizeof(m->root), "/local/domain/%u/backend/vtpm", own);
    rc = sd_event_add_io(m->event, &m->xs_source, xlv_xenstore_fd(m->xs), EPOLLIN, on_xenstore, m);
    if (rc < 0) {
        xlv_fail(e, rc, "cannot watch the connection to xenstore: %s", strerror(-rc));
        goto fail;
    }
    rc = xlv_xenstore_watch(m->xs, m->root, TOKEN_ROOT);
    if (!rc) {
        rc = xlv_xenstore_watch(m->xs, "@releaseDomain", TOKEN_RELEASE);
        /* a driver domain may not be allowed to */
        if (rc == XLV_E_REFUSED)
            rc = 0;
    }
    if (rc) {
        xlv_fail(e, rc, "cannot watch %s: %s", m->root, xlv_strerror(rc));
        goto fail;
    }
    xlv_daemon_arm(m, &m->heartbeat, HEARTBEAT_US, on_heartbeat, m);
    m->reconnect_us = RECONNECT_FIRST_US;
    xlv_log(XLV_LOG_INFO, "connected to xenstore; serving %s", m->root);
    if (!m->adopted)
        adopt_all(m);
    m->adopted = true;
    m->connected_once = true;
    rescan(m);
    (void)sd_event_source_set_enabled(m->work, SD_EVENT_ON);
    return 0;
fail:
    m->xs_source = sd_event_source_disable_unref(m->xs_source);
    xlv_xenstore_close(m->xs);
    m->xs = NULL;
    return rc;
}

static int on_reconnect(sd_event_source *source, uint64_t usec, void *opaque)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(1, 60);
    struct xlv_daemon *m = opaque;
    struct xlv_error e = XLV_ERROR_INIT;

    (void)source;
    (void)usec;
    if (m->xs)
        return 0;
    if (connect_xenstore(m, &e)) {
        if (xlv_ratelimit_pass(&limit))
            xlv_log(XLV_LOG_WARNING, "%s", e.text);
        reconnect_later(m);
    }
    return 0;
}

/* --- processes of an earlier daemon --- */

static void adopt(struct xlv_daemon *m, const char *name)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct device *d;
    uint32_t domid, devid;
    int rc, resolved = 0;

    if (xlv_parse_listener_name(name, &domid, &devid)) {
        xlv_log(XLV_LOG_WARNING, "%s/backend/%s is not ours; left alone", m->settings->run_dir,
                name);
        return;
    }
    d = xlv_dev_new(m, domid, devid);
    if (!d)
        return;
    rc = xlv_child_adopt(&d->child, &m->supervisor, m->listener_dirfd, name, &d->subject,
                         &xlv_dev_child_ops, d, &e);
    if (rc) {
        if (rc != XLV_E_GONE)
            xlv_log_about(&d->subject, XLV_LOG_ERROR, "%s", e.text);
        xlv_dev_free(d);
        return;
    }
    d->state = XLV_DEVICE_ADOPTING;
    d->found = d->came_back = true;
    d->served.any = true;
    /* its instance is spoken for before any other device is decided upon */
    if (xlv_dev_look(d) && d->view.exists) {
        d->written = d->wanted = d->view.backend;
        if (xlv_dev_resolve(d, &resolved, &e) && !resolved) {
            xlv_dev_took_up_boot(d);
            xlv_claim_take(m->instances, d->slot, &d->claim);
        } else if (e.text[0])
            xlv_log_about(&d->subject, XLV_LOG_ERROR, "%s", e.text);
    }
    xlv_dev_watch(d);
}

static void adopt_all(struct xlv_daemon *m)
{
    struct dirent *entry;
    DIR *dir;
    int fd = openat(m->listener_dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        xlv_log(XLV_LOG_ERROR, "cannot read %s/backend: %s", m->settings->run_dir, strerror(errno));
        xlv_close(&fd);
        return;
    }
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            adopt(m, entry->d_name);
    closedir(dir);
}

/* --- start and end --- */

/* What a crash left half done is finished ahead of its next use. */
static int finish_one(const struct xlv_instance *instance, void *opaque)
{
    struct xlv_daemon *m = opaque;
    struct xlv_slot *slot;

    if ((instance->life != XLV_LIFE_NEW && !instance->suspended.at_s) ||
        instance->handover == XLV_HANDOVER_DEPARTED ||
        instance->handover == XLV_HANDOVER_ARRIVING ||
        xlv_instances_slot(m->instances, instance, &slot, NULL))
        return 0;
    if (instance->life == XLV_LIFE_NEW)
        xlv_instances_manufacture(m->instances, slot);
    else if (!slot->holder)
        xlv_instances_kept(m->instances, slot, false);
    return 0;
}

/* A directory of ours, locked or not; made where it is missing. */
static int open_directory(int at, const char *path, const char *people, bool lock, int *fd,
                          struct xlv_error *e)
{
    if (mkdirat(at, path, 0700) < 0 && errno != EEXIST)
        return xlv_fail(e, -errno, "cannot make the directory %s: %s", people, strerror(errno));
    *fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return xlv_fail(e, -errno, "cannot open the directory %s: %s", people, strerror(errno));
    if (lock && flock(*fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return xlv_fail(e, XLV_E_IN_USE,
                            "another xl-vtpmd runs already on %s; stop it first, or give this one "
                            "other directories",
                            people);
        return xlv_fail(e, -errno, "cannot lock the directory %s: %s", people, strerror(errno));
    }
    return 0;
}

static int find_user(struct xlv_instances_config *config, const char *name, struct xlv_error *e)
{
    struct passwd *user;

    if (geteuid() != 0 || !name[0])
        return 0;
    errno = 0;
    user = getpwnam(name);
    if (!user)
        return xlv_fail(e, errno ? -errno : XLV_E_NOT_FOUND,
                        "backend-user %s does not exist; make it (systemd-sysusers does, or "
                        "adduser --system), or set another one",
                        name);
    config->uid = user->pw_uid;
    config->gid = user->pw_gid;
    return 0;
}

int xlv_daemon_new(struct xlv_daemon **out, const struct xlv_daemon_config *config,
                   struct xlv_error *e)
{
    const struct xlv_settings *settings = config->settings;
    struct xlv_daemon *m = calloc(1, sizeof(*m));
    struct xlv_instances_config ic;
    struct xlv_error xe = XLV_ERROR_INIT;
    bool any = false;
    int rc;

    *out = NULL;
    if (!m)
        return xlv_fail(e, -ENOMEM, "no memory for the daemon");
    m->config = *config;
    m->settings = settings;
    m->event = config->event;
    m->run_dirfd = m->state_dirfd = m->journal_dirfd = m->listener_dirfd = m->log_dirfd = -1;
    m->reconnect_us = RECONNECT_FIRST_US;
    m->supervisor = (struct xlv_supervisor){
        .event = m->event,
        .program = settings->backend_program,
        .ready_us = XLV_READY_US,
        .manufacture_us = XLV_MANUFACTURE_US,
        .adopt_us = XLV_ADOPT_US,
        .exit_us = XLV_EXIT_US,
    };

    rc = open_directory(AT_FDCWD, settings->run_dir, settings->run_dir, true, &m->run_dirfd, e);
    if (!rc)
        rc = open_directory(AT_FDCWD, settings->state_dir, settings->state_dir, true,
                            &m->state_dirfd, e);
    if (!rc)
        rc =
            open_directory(m->run_dirfd, "journal", "run-dir/journal", false, &m->journal_dirfd, e);
    if (!rc)
        rc = open_directory(m->run_dirfd, "backend", "run-dir/backend", false, &m->listener_dirfd,
                            e);
    if (!rc)
        rc = open_directory(m->run_dirfd, "eventlog", "run-dir/eventlog", false, &m->log_dirfd, e);
    if (!rc)
        rc = xlv_registry_open(&m->registry, settings->state_dir, true, e);
    if (!rc)
        rc = xlv_registry_any_state(m->registry, &any, e);
    if (!rc)
        rc = xlv_keys_new(&m->keys, settings->key_provider, settings->key_source, !any, e);
    if (!rc)
        rc = xlv_keys_open_journal(m->keys, settings->run_dir, NULL, e);
    if (rc)
        goto fail;

    ic = (struct xlv_instances_config){
        .event = m->event,
        .supervisor = &m->supervisor,
        .settings = settings,
        .registry = m->registry,
        .keys = m->keys,
        .state_dirfd = m->state_dirfd,
        .journal_dirfd = m->journal_dirfd,
        .listener_dirfd = m->listener_dirfd,
        .log_dirfd = m->log_dirfd,
    };
    rc = find_user(&ic, settings->backend_user, e);
    if (!rc)
        rc = xlv_instances_new(&m->instances, &ic, e);
    if (rc)
        goto fail;
    rc = xlv_domains_open(&m->domains, e);
    if (rc)
        goto fail;
    xlv_daemon_calls_init(m);

    rc = sd_event_add_defer(m->event, &m->work, on_work, m);
    if (rc >= 0)
        rc = sd_event_source_set_enabled(m->work, SD_EVENT_OFF);
    if (rc < 0) {
        xlv_fail(e, rc, "cannot set up the event loop: %s", strerror(-rc));
        goto fail;
    }

    rc = connect_xenstore(m, &xe);
    if (rc) {
        xlv_log(XLV_LOG_WARNING, "%s; trying again until it is there", xe.text);
        reconnect_later(m);
    }
    (void)xlv_registry_each(m->registry, finish_one, m, NULL);
    *out = m;
    return 0;
fail:
    xlv_daemon_free(m);
    return rc;
}

void xlv_daemon_free(struct xlv_daemon *m)
{
    if (!m)
        return;
    /* those who wait first: an instance that is let go shall not be granted any more */
    for (struct device *d = m->devices; d; d = d->next)
        if (!d->claim.held)
            xlv_claim_release(m->instances, &d->claim);
    xlv_daemon_freezes_deinit(m);
    for (struct device *d = m->devices, *next; d; d = next) {
        next = d->next;
        xlv_dev_free(d);
    }
    xlv_daemon_calls_deinit(m);
    xlv_instances_free(m->instances);
    sd_event_source_disable_unref(m->xs_source);
    sd_event_source_disable_unref(m->heartbeat);
    sd_event_source_disable_unref(m->reconnect);
    sd_event_source_disable_unref(m->work);
    sd_event_source_disable_unref(m->sweep);
    xlv_xenstore_close(m->xs);
    xlv_domains_close(m->domains);
    xlv_keys_free(m->keys);
    xlv_registry_close(m->registry);
    xlv_close(&m->log_dirfd);
    xlv_close(&m->listener_dirfd);
    xlv_close(&m->journal_dirfd);
    xlv_close(&m->state_dirfd);
    xlv_close(&m->run_dirfd);
    free(m);
}
