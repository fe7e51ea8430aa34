/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The nodes of one device in xenstore: what they say, as a view (device.h), and
 * what we write there. Everything in the frontend directory is the guest's.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "libxl-vtpm/daemon-internal.h"

/*
 * libxl waits for state 2 exactly, and a hot-attached guest's frontend is at 3
 * at once. Nothing in xenstore tells that libxl has seen the 2, so we stay
 * there this long. It costs the guest nothing: the backend serves meanwhile
 * (xen-tpmfront sends its first command before it looks at our state), only
 * the 4 comes later.
 */
#define DWELL_US (1000 * 1000ull)

#define WRITE_RETRY_US (20 * 1000ull)
#define LOOK_RETRY_US (100 * 1000ull)

/* --- writing --- */

struct write_job {
    struct device *d;
    enum xlv_xenbus state;
    bool nodes; /* instance and features too */
    const char *error;
    bool refuse;
    const char *log; /* base64 */
};

/* xenstore takes 4096 bytes of path and value together. A multiple of 4: each piece can be
 * decoded alone. */
#define LOG_PIECE 3000

static int write_node(struct xlv_xenstore *xs, xlv_xs_transaction t, const struct device *d,
                      const char *name, const char *value)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/%s", d->backend, name);
    return xlv_xenstore_write(xs, t, path, value);
}

/*
 * Never without the state node being there in the same transaction: a write to
 * a directory that was just removed would bring half of it back, for ever. Nor
 * where it was made anew since we looked: that is another device's.
 */
static int write_body(struct xlv_xenstore *xs, xlv_xs_transaction t, void *opaque)
{
    struct write_job *job = opaque;
    struct device *d = job->d;
    struct xlv_xs_value value;
    char path[160], number[32];
    int rc;

    snprintf(path, sizeof(path), "%s/state", d->backend);
    rc = xlv_xenstore_read(xs, t, path, &value);
    if (!rc && d->written > XLV_XENBUS_INITIALISING &&
        xlv_parse_xenbus(value.text, value.length) == XLV_XENBUS_INITIALISING)
        rc = XLV_E_NOT_FOUND;
    if (!rc && job->error)
        rc = write_node(xs, t, d, "error", job->error);
    if (!rc && job->nodes) {
        snprintf(number, sizeof(number), "%" PRIu64, d->slot->number);
        rc = write_node(xs, t, d, "instance", number);
        if (!rc)
            rc = write_node(xs, t, d, "feature-protocol-v2", "1");
        if (!rc && d->boot_seen != BOOT_UNKNOWN)
            rc = write_node(xs, t, d, "boot-seen", d->boot_seen == BOOT_SEEN ? "1" : "0");
    }
    for (unsigned i = 0; !rc && job->log && strlen(job->log) > (size_t)i * LOG_PIECE; i++) {
        char name[32], piece[LOG_PIECE + 1];

        snprintf(name, sizeof(name), "event-log/%u", i);
        snprintf(piece, sizeof(piece), "%s", job->log + (size_t)i * LOG_PIECE);
        rc = write_node(xs, t, d, name, piece);
    }
    if (!rc && job->refuse)
        return xlv_xenstore_remove(xs, t, path);
    if (!rc && job->state) {
        snprintf(number, sizeof(number), "%d", (int)job->state);
        rc = write_node(xs, t, d, "state", number);
    }
    return rc;
}

static int write_out(struct write_job *job)
{
    struct device *d = job->d;
    struct xlv_daemon *m = d->daemon;
    int rc;

    if (!m->xs)
        return XLV_E_GONE;
    rc = xlv_xenstore_transact(m->xs, write_body, job);
    if (rc == XLV_E_GONE)
        xlv_daemon_lost(m);
    else if (rc == XLV_E_NOT_FOUND)
        xlv_dev_mark(d, true);
    else if (rc && rc != XLV_E_CONFLICT && xlv_ratelimit_pass(&d->limit))
        xlv_log_about(&d->subject, XLV_LOG_ERROR, "cannot write to %s: %s", d->backend,
                      xlv_strerror(rc));
    return rc;
}

static int on_write_timer(sd_event_source *source, uint64_t usec, void *opaque);

/* The state that is wanted; with InitWait all that a frontend looks for then. */
static void put_state(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    bool init_wait = d->wanted == XLV_XENBUS_INIT_WAIT;
    struct write_job job = { .d = d, .state = d->wanted, .nodes = init_wait && d->slot };
    int rc = write_out(&job);

    if (!rc) {
        d->written = d->wanted;
        if (init_wait && !d->found && !d->came_back)
            d->dwell_until_us = xlv_daemon_now(m) + DWELL_US;
        xlv_log_about(&d->subject, XLV_LOG_DEBUG, "backend state %d", (int)d->written);
    } else if (rc != XLV_E_GONE && rc != XLV_E_NOT_FOUND) {
        xlv_daemon_arm(m, &d->write_timer, WRITE_RETRY_US, on_write_timer, d);
    }
}

/* Brings our state node to where it is wanted, when libxl has had its time. */
void xlv_dev_flush_state(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    uint64_t now = xlv_daemon_now(m);

    if (!d->wanted || d->wanted == d->written || !m->xs)
        return;
    if (d->written == XLV_XENBUS_INIT_WAIT && now < d->dwell_until_us && d->view.online) {
        xlv_daemon_arm(m, &d->write_timer, d->dwell_until_us - now, on_write_timer, d);
        return;
    }
    put_state(d);
}

static int on_write_timer(sd_event_source *source, uint64_t usec, void *opaque)
{
    (void)source;
    (void)usec;
    xlv_dev_flush_state(opaque);
    return 0;
}

void xlv_dev_set_state(struct device *d, enum xlv_xenbus state)
{
    d->wanted = state;
    xlv_dev_flush_state(d);
}

void xlv_dev_init_wait(struct device *d)
{
    d->wanted = XLV_XENBUS_INIT_WAIT;
    put_state(d); /* also where it was that already: its nodes may be of another instance */
}

void xlv_dev_write_nodes(struct device *d)
{
    struct write_job job = { .d = d, .nodes = true };

    (void)write_out(&job);
}

void xlv_dev_write_event_log(struct device *d, const uint8_t *bytes, size_t length)
{
    char text[4 * ((XLV_EVENTLOG_MAX + 2) / 3) + 1];
    struct write_job job = { .d = d, .log = text };

    EVP_EncodeBlock((unsigned char *)text, bytes, (int)length);
    (void)write_out(&job);
}

void xlv_dev_write_error(struct device *d, const char *text, bool refuse)
{
    struct write_job job = { .d = d, .error = text, .refuse = refuse };

    (void)write_out(&job);
}

/* --- looking --- */

static int on_look_timer(sd_event_source *source, uint64_t usec, void *opaque)
{
    (void)source;
    (void)usec;
    xlv_dev_watch(opaque);
    xlv_dev_mark(opaque, true);
    return 0;
}

void xlv_dev_look_later(struct device *d)
{
    xlv_daemon_arm(d->daemon, &d->look_timer, LOOK_RETRY_US, on_look_timer, d);
}

static int read_node(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *directory,
                     const char *name, struct xlv_xs_value *value)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return xlv_xenstore_read(xs, t, path, value);
}

void xlv_dev_read_boot_seen(struct device *d)
{
    struct xlv_xs_value value;

    if (d->boot_seen != BOOT_UNKNOWN || !d->daemon->xs)
        return;
    d->boot_seen = BOOT_NOT_SEEN;
    if (!read_node(d->daemon->xs, XLV_XS_NONE, d->backend, "boot-seen", &value) &&
        !strcmp(value.text, "1"))
        d->boot_seen = BOOT_SEEN;
    else
        d->unseen = "xl-vtpmd did not see whether its TPM was there from the beginning";
}

struct ring_job {
    struct device *d;
    enum xlv_xenbus frontend;
    bool has_ring;
    struct xlv_ring ring;
};

/*
 * One consistent set: the frontend writes ring and port in one transaction, and
 * two halves of different rings would be a process for nothing. Whatever the
 * guest put there that does not parse is not there.
 */
static int ring_body(struct xlv_xenstore *xs, xlv_xs_transaction t, void *opaque)
{
    struct ring_job *job = opaque;
    const char *directory = job->d->frontend;
    struct xlv_xs_value value;
    uint32_t ring_ref, event_channel;
    bool v2 = false;
    int rc;

    job->has_ring = false;
    rc = read_node(xs, t, directory, "state", &value);
    if (rc)
        return rc;
    job->frontend = xlv_parse_xenbus(value.text, value.length);
    rc = read_node(xs, t, directory, "ring-ref", &value);
    if (rc)
        return rc;
    if (xlv_parse_number(value.text, value.length, UINT32_MAX, &ring_ref) || !ring_ref)
        return 0;
    rc = read_node(xs, t, directory, "event-channel", &value);
    if (rc)
        return rc;
    if (xlv_parse_number(value.text, value.length, XLV_EVTCHN_PORT_MAX, &event_channel) ||
        !event_channel)
        return 0;
    rc = read_node(xs, t, directory, "feature-protocol-v2", &value);
    if (rc)
        return rc;
    if (xlv_parse_bool(value.text, value.length, &v2) || !v2)
        return 0;
    job->ring = (struct xlv_ring){ .ring_ref = ring_ref, .event_channel = event_channel };
    job->has_ring = true;
    return 0;
}

/* Is it an answer about the node, or a failure of the look itself? */
static bool is_answer(int rc)
{
    return rc == 0 || rc == XLV_E_NOT_FOUND || rc == XLV_E_REFUSED || rc == XLV_E_INVALID;
}

/* 0: view is new. Else the look failed, XLV_E_GONE: the connection is lost. */
int xlv_dev_look_at(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_device_view v = { .online = true };
    struct xlv_xs_value value;
    int rc;

    if (!m->xs)
        return XLV_E_GONE;
    v.domain_dead = d->view.domain_dead;
    rc = read_node(m->xs, XLV_XS_NONE, d->backend, "state", &value);
    if (!is_answer(rc))
        return rc;
    v.exists = rc == 0;
    if (v.exists) {
        v.backend = xlv_parse_xenbus(value.text, value.length);
        if (v.backend == XLV_XENBUS_INITIALISING &&
            (d->written > XLV_XENBUS_INITIALISING || d->state == XLV_DEVICE_REFUSED)) {
            /* only libxl writes 1, and only into a directory that it has just made */
            d->anew = true;
            v.exists = false;
        }
    } else if (d->state == XLV_DEVICE_REFUSED) {
        rc = read_node(m->xs, XLV_XS_NONE, d->backend, "frontend", &value);
        if (!is_answer(rc))
            return rc;
        v.exists = rc == 0;
    }
    if (v.exists) {
        bool online;

        rc = read_node(m->xs, XLV_XS_NONE, d->backend, "online", &value);
        if (!is_answer(rc))
            return rc;
        if (rc == 0 && xlv_parse_bool(value.text, value.length, &online) == 0)
            v.online = online;
        rc = read_node(m->xs, XLV_XS_NONE, d->frontend, "state", &value);
        if (!is_answer(rc))
            return rc;
        v.frontend_exists = true;
        if (rc == 0) {
            v.frontend = xlv_parse_xenbus(value.text, value.length);
        } else if (rc != XLV_E_INVALID) {
            rc = xlv_xenstore_exists(m->xs, XLV_XS_NONE, d->frontend);
            if (!is_answer(rc))
                return rc;
            /* a driver domain that asks for a node that is gone is refused, for it may not
             * read the parents; while it is there it may read it */
            v.frontend_exists = rc == 0 || rc == XLV_E_INVALID;
        }
        if (!v.frontend_exists && v.online) {
            /* libxl ends a domain by deleting the frontend and setting online to 0 in one
             * transaction, which may have come between our two reads */
            rc = read_node(m->xs, XLV_XS_NONE, d->backend, "online", &value);
            if (!is_answer(rc))
                return rc;
            if (rc == 0 && xlv_parse_bool(value.text, value.length, &online) == 0)
                v.online = online;
        }
        if (v.frontend == XLV_XENBUS_INITIALISED || v.frontend == XLV_XENBUS_CONNECTED) {
            struct ring_job job = { .d = d };

            rc = xlv_xenstore_transact(m->xs, ring_body, &job);
            if (!is_answer(rc))
                return rc;
            if (rc == 0) {
                v.frontend = job.frontend;
                v.has_ring = job.has_ring;
                v.ring = job.ring;
            }
        }
        if (v.frontend == XLV_XENBUS_CONNECTED && d->served.any && v.has_ring &&
            v.ring.ring_ref == d->served.ring.ring_ref &&
            v.ring.event_channel == d->served.ring.event_channel)
            d->served.was_connected = true;
    }
    d->view = v;
    return 0;
}

/* Looks, and takes care of failures. False: nothing is known of the device yet. */
bool xlv_dev_look(struct device *d)
{
    int rc = xlv_dev_look_at(d);

    d->look = false;
    if (!rc) {
        d->seen = true;
        return true;
    }
    /* after a lost connection everything is looked at again; processes do not wait for that */
    if (rc == XLV_E_GONE) {
        xlv_daemon_lost(d->daemon);
        return d->seen;
    }
    /* a guest that writes all the time (conflicts), or xenstored short of something */
    if (rc != XLV_E_CONFLICT && xlv_ratelimit_pass(&d->limit))
        xlv_log_about(&d->subject, XLV_LOG_WARNING, "cannot read %s: %s", d->backend,
                      xlv_strerror(rc));
    xlv_dev_look_later(d);
    return d->seen;
}

const char *xlv_dev_domain(const struct device *d)
{
    return d->domain_name[0] ? d->domain_name : "(no name)";
}

/* Reads what the toolstack wrote once: uuid, whose frontend, the domain's name. */
int xlv_dev_identify_domain(struct device *d)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_xs_value value;
    char path[96];
    int rc;

    d->domain_name[0] = d->domain_uuid[0] = '\0';
    d->incoming = false;
    snprintf(path, sizeof(path), "/local/domain/%u", d->domid);
    rc = read_node(m->xs, XLV_XS_NONE, path, "name", &value);
    if (!is_answer(rc))
        return rc;
    if (rc == 0 && value.length <= XLV_DOMAIN_NAME_MAX && strlen(value.text) == value.length) {
        memcpy(d->domain_name, value.text, value.length + 1);
        d->incoming = xlv_strip_incoming(d->domain_name);
    }
    rc = read_node(m->xs, XLV_XS_NONE, path, "vm", &value);
    if (!is_answer(rc))
        return rc;
    if (rc == 0 && !strncmp(value.text, "/vm/", 4)) {
        struct xlv_uuid uuid;

        if (xlv_uuid_parse(&uuid, value.text + 4) == 0)
            xlv_uuid_format(&uuid, d->domain_uuid);
    }
    return 0;
}

int xlv_dev_identify(struct device *d, struct xlv_error *e)
{
    struct xlv_daemon *m = d->daemon;
    struct xlv_xs_value value;
    uint32_t id;
    int rc;

    rc = read_node(m->xs, XLV_XS_NONE, d->backend, "frontend", &value);
    if (rc)
        return rc;
    if (strcmp(value.text, d->frontend))
        return xlv_fail(e, XLV_E_INVALID, "its node frontend says %.80s, and not %s", value.text,
                        d->frontend);
    rc = read_node(m->xs, XLV_XS_NONE, d->backend, "frontend-id", &value);
    if (rc)
        return rc;
    if (xlv_parse_number(value.text, value.length, XLV_DOMID_MAX, &id) || id != d->domid)
        return xlv_fail(e, XLV_E_INVALID, "its node frontend-id says %.16s, and not %u", value.text,
                        d->domid);
    rc = read_node(m->xs, XLV_XS_NONE, d->backend, "uuid", &value);
    if (rc == XLV_E_NOT_FOUND)
        return xlv_fail(e, XLV_E_INVALID,
                        "its node uuid is missing; the toolstack has to write one");
    if (rc)
        return rc;
    if (strlen(value.text) != value.length || xlv_uuid_parse(&d->uuid, value.text))
        return xlv_fail(e, XLV_E_INVALID, "its uuid %.48s does not parse", value.text);
    return xlv_dev_identify_domain(d);
}
