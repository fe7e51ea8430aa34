/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Figures of running backends, and what only the daemon knows for the calls of the control
 * socket (calls.h). */
#include "config.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <unistd.h>

#include "libxl-vtpm/control.h"
#include "libxl-vtpm/daemon-internal.h"

/* Backends that are busy longer are shown with the figures they gave before. */
#define REFRESH_US (500 * 1000ull)

struct refresh {
    struct refresh *next;
    void (*done)(void *opaque);
    void *opaque;
};

static void refresh_done(struct xlv_daemon *m)
{
    struct refresh *r = m->refreshes;

    m->refreshes = NULL;
    m->refresh_pending = 0;
    xlv_daemon_disarm(m->refresh_timer);
    for (struct device *d = m->devices; d; d = d->next)
        d->status_asked = false;
    while (r) {
        struct refresh *next = r->next;

        r->done(r->opaque);
        free(r);
        r = next;
    }
}

void xlv_daemon_refresh_answered(struct device *d)
{
    if (!d->status_asked)
        return;
    d->status_asked = false;
    if (--d->daemon->refresh_pending == 0)
        refresh_done(d->daemon);
}

static int on_refresh_timer(sd_event_source *source, uint64_t usec, void *opaque)
{
    (void)source;
    (void)usec;
    refresh_done(opaque);
    return 0;
}

int xlv_daemon_refresh(struct xlv_daemon *m, void (*done)(void *opaque), void *opaque)
{
    struct refresh *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->done = done;
    r->opaque = opaque;
    r->next = m->refreshes;
    m->refreshes = r;
    for (struct device *d = m->devices; d; d = d->next)
        if (d->child && !d->status_asked && xlv_child_query(d->child) == 0) {
            d->status_asked = true;
            m->refresh_pending++;
        }
    /* also where there is nobody to ask: done is never called from within this call */
    xlv_daemon_arm(m, &m->refresh_timer, m->refresh_pending ? REFRESH_US : 0, on_refresh_timer, m);
    return 0;
}

void xlv_daemon_refresh_cancel(struct xlv_daemon *m, void *opaque)
{
    for (struct refresh **p = &m->refreshes; *p;) {
        struct refresh *r = *p;

        if (r->opaque == opaque) {
            *p = r->next;
            free(r);
        } else {
            p = &r->next;
        }
    }
}

unsigned xlv_daemon_devices(const struct xlv_daemon *m)
{
    return m->count;
}

static bool put(struct json_object *o, const char *name, struct json_object *value)
{
    return json_object_object_add(o, name, value) == 0;
}

static struct json_object *refusal_json(const struct xlv_refusal *r)
{
    struct json_object *o = json_object_new_object();

    if (!o)
        return NULL;
    put(o, "time", xlv_json_time(r->time_s));
    put(o, "domid", json_object_new_int64(r->domid));
    put(o, "devid", json_object_new_int64(r->devid));
    put(o, "reason", xlv_json_text(r->reason));
    return o;
}

/* Nobody holds the instance, but it is in use: the guest's driver is unloaded, and may come back
 * in the middle of the boot. */
static struct device *without_driver(struct xlv_daemon *m, const struct xlv_slot *slot)
{
    for (struct device *d = m->devices; d; d = d->next)
        if (d->slot == slot && (d->state == XLV_DEVICE_CLOSED || d->state == XLV_DEVICE_HOLDING ||
                                (d->state == XLV_DEVICE_UNDECIDED && d->came_back)))
            return d;
    return NULL;
}

static int decorate(const struct xlv_instance *instance, struct json_object *json, void *opaque,
                    struct xlv_error *e)
{
    struct xlv_daemon *m = opaque;
    struct xlv_slot *slot = xlv_instances_find(m->instances, instance->number);
    struct device *d;

    if (!slot)
        return 0;
    if (slot->refusal.time_s)
        put(json, "last_refusal", refusal_json(&slot->refusal));
    d = slot->holder ? xlv_dev_of_claim(slot->holder) : without_driver(m, slot);
    if (d) {
        struct json_object *o = json_object_new_object();

        if (!o)
            return xlv_fail(e, -ENOMEM, "no memory for the answer");
        put(o, "domid", json_object_new_int64(d->domid));
        put(o, "devid", json_object_new_int64(d->devid));
        put(o, "state", json_object_new_string(xlv_device_state_name(d->state)));
        put(o, "pid", d->child ? json_object_new_int64(xlv_child_pid(d->child)) : NULL);
        put(o, "generation",
            d->has_status ? json_object_new_int64((int64_t)d->status.generation) : NULL);
        put(o, "commands",
            d->has_status ? json_object_new_int64((int64_t)d->status.sequence) : NULL);
        put(o, "commits", d->has_status ? json_object_new_int64((int64_t)d->status.commits) : NULL);
        put(o, "recovered",
            d->has_status ? json_object_new_int64((int64_t)d->status.recovered) : NULL);
        put(o, "attached", d->child ? xlv_json_time(d->attached_s) : NULL);
        put(json, "device", o);
    }
    return 0;
}

static int created(const struct xlv_instance *instance, void *opaque, struct xlv_error *e)
{
    struct xlv_daemon *m = opaque;
    struct xlv_slot *slot;
    int rc = xlv_instances_slot(m->instances, instance, &slot, e);

    if (!rc) {
        slot->backoff = (struct xlv_backoff){ .failures = 0 };
        xlv_instances_manufacture(m->instances, slot);
    }
    return rc;
}

static int count_instance(const struct xlv_instance *instance, void *opaque)
{
    int64_t *n = opaque;

    (void)instance;
    ++*n;
    return 0;
}

static int status(struct json_object **result, void *opaque, struct xlv_error *e)
{
    struct xlv_daemon *m = opaque;
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    int64_t instances = 0;
    int rc;

    if (!o || !list) {
        json_object_put(o);
        json_object_put(list);
        return xlv_fail(e, -ENOMEM, "no memory for the answer");
    }
    rc = xlv_registry_each(m->registry, count_instance, &instances, e);
    if (rc) {
        json_object_put(o);
        json_object_put(list);
        return rc;
    }
    put(o, "version", json_object_new_string(PACKAGE_VERSION));
    put(o, "pid", json_object_new_int64(getpid()));
    put(o, "devices", json_object_new_int64(m->count));
    put(o, "instances", json_object_new_int64(instances));
    put(o, "xenstore", json_object_new_string(m->xs ? "connected" : "lost"));
    for (unsigned i = 0; i < REFUSALS_KEPT; i++) {
        const struct xlv_refusal *r = &m->refusals[(m->next_refusal + i) % REFUSALS_KEPT];

        if (r->time_s)
            json_object_array_add(list, refusal_json(r));
    }
    put(o, "refusals", list);
    *result = o;
    return 0;
}

const struct xlv_calls *xlv_daemon_calls(struct xlv_daemon *m)
{
    return &m->calls;
}

void xlv_daemon_calls_init(struct xlv_daemon *m)
{
    m->calls = (struct xlv_calls){
        .registry = m->registry,
        .settings = m->settings,
        .decorate = decorate,
        .created = created,
        .status = status,
        .opaque = m,
    };
}

void xlv_daemon_calls_deinit(struct xlv_daemon *m)
{
    while (m->refreshes) {
        struct refresh *r = m->refreshes;

        m->refreshes = r->next;
        free(r);
    }
    m->refresh_timer = sd_event_source_disable_unref(m->refresh_timer);
}
