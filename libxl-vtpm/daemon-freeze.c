/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Freezing: the vTPMs of a domain that migrates stand still from its suspend until it is known
 * where it goes on. xl-vtpm-move asks for it over the control socket and holds it for as long as
 * its connection lasts; so whatever becomes of it, the domain does not wait for ever.
 *
 * A frozen device is one in the state RESTARTING whose process ended with XLV_STOP_FREEZE: store
 * and journal both have its state, nobody has its lock. Thawed, it gets a process as after any
 * end of one, and the guest, which did not run, sees nothing. Nothing of this is written down:
 * a daemon that starts anew knows of no freeze, and is kept from the instance by the lock that
 * xl-vtpm-move holds, or by the registry once it is departed.
 *
 * Level-triggered like all of the daemon: whatever happens, freeze_look() sees what is still to
 * be done. It is called at each death or suspend that xenstore tells of, when a process ends, and
 * by the clock, because a guest that has an event channel for its suspend makes xenstore tell none.
 */
#include "config.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libxl-vtpm/control.h"
#include "libxl-vtpm/daemon-internal.h"

#define LOOK_US (50 * 1000ull)

/* For the command that runs: an RSA key on a slow host. The domain stands still meanwhile. */
#define STOP_FREEZE_US (30 * 1000 * 1000ull)

/* Processes that may end in another way than by being frozen. */
#define FAILURES_MAX 5u

struct freeze {
    struct freeze *next;
    struct xlv_daemon *daemon;
    uint32_t domid;
    char domain_name[XLV_DOMAIN_NAME_MAX + 1];
    void (*done)(void *opaque, struct json_object *reply);
    void *opaque;
    bool told;
    unsigned failures;
    sd_event_source *timer;
};

static void freeze_look(struct freeze *f);

static int on_look(sd_event_source *source, uint64_t usec, void *opaque)
{
    (void)source;
    (void)usec;
    freeze_look(opaque);
    return 0;
}

static struct freeze *freeze_of(struct xlv_daemon *m, uint32_t domid)
{
    struct freeze *f = m->freezes;

    while (f && f->domid != domid)
        f = f->next;
    return f;
}

static void thaw(struct freeze *f)
{
    for (struct device *d = f->daemon->devices; d; d = d->next) {
        if (d->domid != f->domid || !d->frozen)
            continue;
        d->frozen = false;
        if (d->state == XLV_DEVICE_RESTARTING)
            xlv_dev_push(d, XLV_EVENT_RETRY);
    }
}

/* done may free its client, and with it the freeze. */
static void tell(struct freeze *f, struct json_object *reply)
{
    f->told = true;
    xlv_daemon_disarm(f->timer);
    f->done(f->opaque, reply);
}

static void __attribute__((format(printf, 3, 4))) give_up(struct freeze *f, int code,
                                                           const char *fmt, ...)
{
    struct xlv_error e = XLV_ERROR_INIT;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(e.text, sizeof(e.text), fmt, ap);
    va_end(ap);
    thaw(f);
    tell(f, xlv_control_error(code, &e));
}

/* Does the device have a TPM that is to go with its domain? */
static bool takes_part(const struct device *d)
{
    switch (d->state) {
    case XLV_DEVICE_REFUSED:
    case XLV_DEVICE_FAILED:
    case XLV_DEVICE_ENDED:
    case XLV_DEVICE_GONE:
        return false;
    default:
        return d->slot != NULL;
    }
}

/* Takes over values, which may be NULL. */
static bool add(struct json_object *object, const char *key, struct json_object *value)
{
    if (value && json_object_object_add(object, key, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

static struct json_object *device_json(const struct device *d)
{
    struct json_object *json = json_object_new_object();
    char uuid[XLV_UUID_TEXT];

    if (json && add(json, "devid", json_object_new_int64(d->devid)) &&
        add(json, "uuid", json_object_new_string(xlv_uuid_format(&d->slot->info.uuid, uuid))))
        return json;
    json_object_put(json);
    return NULL;
}

static struct json_object *frozen_json(const struct freeze *f)
{
    struct json_object *json = json_object_new_object(), *list = json_object_new_array(), *one;
    int64_t mark;

    if (!xlv_domains_mark(f->daemon->domains, f->domid, &mark))
        mark = -1;
    if (!json || !list || !add(json, "domid", json_object_new_int64(f->domid)) ||
        !add(json, "mark", json_object_new_int64(mark)))
        goto fail;
    for (const struct device *d = f->daemon->devices; d; d = d->next)
        if (d->domid == f->domid && takes_part(d) &&
            (!(one = device_json(d)) || json_object_array_add(list, one))) {
            json_object_put(one);
            goto fail;
        }
    if (add(json, "vtpms", list))
        return json;
    list = NULL;
fail:
    json_object_put(list);
    json_object_put(json);
    return NULL;
}

static void freeze_look(struct freeze *f)
{
    struct xlv_daemon *m = f->daemon;
    struct xlv_domain_facts facts;
    struct json_object *result;
    bool all = true;

    if (f->told)
        return;
    xlv_domains_ask(m->domains, f->domid, &facts);
    if (facts.told && !facts.exists) {
        give_up(f, XLV_E_GONE, "domain %s is gone", f->domain_name);
        return;
    }
    for (struct device *d = m->devices; facts.suspended && d; d = d->next) {
        if (d->domid != f->domid || !takes_part(d) || d->frozen)
            continue;
        all = false;
        switch (d->state) {
        case XLV_DEVICE_SERVING:
            if (!d->ended) {
                d->ended = XLV_STOP_FREEZE;
                xlv_child_stop(d->child, XLV_STOP_FREEZE, STOP_FREEZE_US);
            }
            break;
        case XLV_DEVICE_STARTING:
        case XLV_DEVICE_RESTARTING:
        case XLV_DEVICE_REPLACING:
        case XLV_DEVICE_ADOPTING:
            break; /* it will serve soon */
        default:
            give_up(f, XLV_E_REFUSED, "device %u of domain %s is %s: its guest's driver was not "
                    "connected when the domain was suspended; load it, then migrate again",
                    d->devid, f->domain_name, xlv_device_state_name(d->state));
            return;
        }
    }
    if (!facts.suspended || !all) {
        xlv_daemon_arm(m, &f->timer, LOOK_US, on_look, f);
        return;
    }
    result = frozen_json(f);
    tell(f, result ? xlv_control_ok(result) : xlv_control_error(-ENOMEM, NULL));
}

void xlv_daemon_freezes_look(struct xlv_daemon *m)
{
    for (struct freeze *f = m->freezes, *next; f; f = next) {
        next = f->next;
        freeze_look(f);
    }
}

void xlv_dev_froze(struct device *d, bool clean)
{
    struct freeze *f = freeze_of(d->daemon, d->domid);

    if (!f)
        return;
    if (clean)
        d->frozen = true;
    else if (++f->failures == FAILURES_MAX)
        give_up(f, XLV_E_REFUSED, "the backend of domain %s cannot be frozen; the log says why",
                f->domain_name);
    /* the rest is seen by the clock: nothing is told amid the steps of a device */
}

/* The domain of that uuid and, as it is called now, that name. */
static struct device *find(struct xlv_daemon *m, const char *uuid, const char *name)
{
    struct xlv_xs_value value;
    char path[64];

    for (struct device *d = m->devices; d && m->xs; d = d->next) {
        if (!takes_part(d) || strcmp(d->domain_uuid, uuid))
            continue;
        snprintf(path, sizeof(path), "/local/domain/%u/name", d->domid);
        if (xlv_xenstore_read(m->xs, XLV_XS_NONE, path, &value) == 0 && !strcmp(value.text, name))
            return d;
    }
    return NULL;
}

static const char *text_of(struct json_object *request, const char *key)
{
    struct json_object *value;

    if (!json_object_object_get_ex(request, key, &value) ||
        !json_object_is_type(value, json_type_string))
        return NULL;
    return json_object_get_string(value);
}

struct json_object *xlv_daemon_freeze(struct xlv_daemon *m, struct json_object *request,
                                      void (*done)(void *opaque, struct json_object *reply),
                                      void *opaque)
{
    const char *text = text_of(request, "domain_uuid"), *name = text_of(request, "domain");
    char canonical[XLV_UUID_TEXT];
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_domain_facts facts;
    struct xlv_uuid uuid;
    struct device *d;
    struct freeze *f;

    if (!text || xlv_uuid_parse(&uuid, text) || !name) {
        xlv_fail(&e, XLV_E_INVALID, "the call lacks its \"domain_uuid\" or \"domain\"");
        return xlv_control_error(XLV_E_INVALID, &e);
    }
    d = find(m, xlv_uuid_format(&uuid, canonical), name);
    if (!d) {
        xlv_fail(&e, XLV_E_NOT_FOUND, "domain %.64s (%s) has no TPM that is served here", name,
                 canonical);
        return xlv_control_error(XLV_E_NOT_FOUND, &e);
    }
    xlv_domains_ask(m->domains, d->domid, &facts);
    if (!facts.told || freeze_of(m, d->domid)) {
        int rc = facts.told ? XLV_E_IN_USE : XLV_E_REFUSED;

        xlv_fail(&e, rc, facts.told ? "domain %.64s is being migrated already"
                                    : "the hypervisor does not tell here when domain %.64s is "
                                      "suspended", name);
        return xlv_control_error(rc, &e);
    }
    f = calloc(1, sizeof(*f));
    if (!f)
        return xlv_control_error(-ENOMEM, NULL);
    f->daemon = m;
    f->domid = d->domid;
    snprintf(f->domain_name, sizeof(f->domain_name), "%s", name);
    f->done = done;
    f->opaque = opaque;
    f->next = m->freezes;
    m->freezes = f;
    xlv_daemon_arm(m, &f->timer, 0, on_look, f);
    return NULL;
}

void xlv_daemon_thaw(struct xlv_daemon *m, void *opaque)
{
    for (struct freeze **p = &m->freezes; *p; p = &(*p)->next) {
        struct freeze *f = *p;

        if (f->opaque != opaque)
            continue;
        *p = f->next;
        thaw(f);
        sd_event_source_disable_unref(f->timer);
        free(f);
        return;
    }
}

void xlv_daemon_freezes_deinit(struct xlv_daemon *m)
{
    while (m->freezes)
        xlv_daemon_thaw(m, m->freezes->opaque);
}
