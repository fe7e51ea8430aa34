/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The calls of the control socket: see calls.h. */
#include "config.h"

#include "libxl-vtpm/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "common/fd.h"
#include "include/statistics.h"
#include "libxl-vtpm/control.h"
#include "libxl-vtpm/endorsement.h"

static int no_memory(struct xlv_error *e)
{
    return xlv_fail(e, -ENOMEM, "no memory for an answer");
}

struct json_object *xlv_json_time(int64_t seconds)
{
    time_t t = (time_t)seconds;
    char text[40];
    struct tm tm;

    if (!seconds || !gmtime_r(&t, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
        return NULL;
    return json_object_new_string(text);
}

/* NULL where nothing is suspended. */
static struct json_object *suspended_json(const struct xlv_suspended *s)
{
    struct json_object *json = s->at_s ? json_object_new_object() : NULL;

    if (json && xlv_json_add(json, "time", xlv_json_time(s->at_s)) &&
        xlv_json_add(json, "domid", json_object_new_int64(s->domid)) &&
        xlv_json_add(json, "domain_uuid", xlv_json_text(s->domain_uuid)) &&
        xlv_json_add(json, "certain", json_object_new_boolean(s->mark >= 0)))
        return json;
    json_object_put(json);
    return NULL;
}

static int add_binding(const struct xlv_binding *binding, void *opaque)
{
    struct json_object *array = opaque, *json = json_object_new_object();

    if (json && xlv_json_add(json, "domain", xlv_json_text(binding->domain_name)) &&
        xlv_json_add(json, "devid", json_object_new_int((int)binding->devid)) &&
        xlv_json_add(json, "origin",
                     json_object_new_string(xlv_binding_origin_name(binding->origin))) &&
        json_object_array_add(array, json) == 0)
        return 0;
    json_object_put(json);
    return -ENOMEM;
}

/* NULL: this host has it. */
static struct json_object *handover_json(const struct xlv_instance *i)
{
    struct json_object *json;

    if (i->handover == XLV_HANDOVER_HELD || !(json = json_object_new_object()))
        return NULL;
    if (xlv_json_add(json, "state", json_object_new_string(xlv_handover_name(i->handover))) &&
        xlv_json_add(json, "other_host", xlv_json_text(i->handover_peer)) &&
        xlv_json_add(json, "token", xlv_json_text(i->handover_token)))
        return json;
    json_object_put(json);
    return NULL;
}

int xlv_instance_to_json(struct xlv_registry *registry, const struct xlv_instance *i,
                         struct json_object **out, struct xlv_error *e)
{
    struct json_object *json = json_object_new_object(), *bindings = json_object_new_array();
    char uuid[XLV_UUID_TEXT];
    int rc = 0;

    *out = NULL;
    if (registry && bindings)
        rc = xlv_registry_each_binding(registry, i->number, add_binding, bindings, e);
    if (!rc && json &&
        xlv_json_add(json, "number", json_object_new_int64((int64_t)i->number)) &&
        xlv_json_add(json, "uuid", json_object_new_string(xlv_uuid_format(&i->uuid, uuid))) &&
        xlv_json_add(json, "tpm_version",
                     json_object_new_string(xlv_tpm_version_name(i->tpm_version))) &&
        xlv_json_add(json, "life", json_object_new_string(xlv_life_name(i->life))) &&
        xlv_json_set(json, "created", xlv_json_time(i->created_s)) &&
        xlv_json_set(json, "last_used", xlv_json_time(i->last_used_s)) &&
        xlv_json_add(json, "last_domain", xlv_json_text(i->last_domain_name)) &&
        xlv_json_add(json, "last_domain_uuid", xlv_json_text(i->last_domain_uuid)) &&
        xlv_json_add(json, "label", xlv_json_text(i->label)) &&
        xlv_json_add(json, "directory", json_object_new_string(i->directory)) &&
        xlv_json_set(json, "suspended", suspended_json(&i->suspended)) &&
        xlv_json_set(json, "accept", i->accept ? json_object_new_string(xlv_accept_name(i->accept))
                                              : NULL) &&
        xlv_json_set(json, "handover", handover_json(i)) &&
        xlv_json_set(json, "measure_boot",
                    i->measure_boot ? json_object_new_string(xlv_measuring_name(i->measure_boot))
                                    : NULL) &&
        xlv_json_set(json, "late_attach", xlv_json_time(i->late_attach_s)) &&
        xlv_json_set(json, "deleted", xlv_json_time(i->deleted_s)) &&
        xlv_json_set(json, "device", NULL) && xlv_json_set(json, "last_refusal", NULL)) {
        if (xlv_json_add(json, "bindings", bindings)) {
            *out = json;
            return 0;
        }
        bindings = NULL;
    }
    json_object_put(bindings);
    json_object_put(json);
    return rc && rc != -ENOMEM ? rc : no_memory(e);
}

/*
 * Arguments. A member that is null counts as missing.
 */

static int get(struct json_object *request, const char *key, enum json_type type, bool needed,
               struct json_object **value, struct xlv_error *e)
{
    *value = NULL;
    json_object_object_get_ex(request, key, value);
    if (!*value)
        return needed ? xlv_fail(e, XLV_E_INVALID, "the call lacks its \"%s\"", key) : 0;
    if (!json_object_is_type(*value, type))
        return xlv_fail(e, XLV_E_INVALID, "\"%s\" of the call is no %s", key,
                        json_type_to_name(type));
    return 0;
}

/* *text is borrowed from request; NULL where missing. */
static int get_text(struct json_object *request, const char *key, bool needed, const char **text,
                    struct xlv_error *e)
{
    struct json_object *value;
    int rc = get(request, key, json_type_string, needed, &value, e);

    *text = NULL;
    if (rc || !value)
        return rc;
    *text = json_object_get_string(value);
    if (strlen(*text) != (size_t)json_object_get_string_len(value))
        return xlv_fail(e, XLV_E_INVALID, "\"%s\" of the call has a NUL in it", key);
    return 0;
}

static int get_uuid(struct json_object *request, bool needed, struct xlv_uuid *uuid, bool *given,
                    struct xlv_error *e)
{
    const char *text;
    int rc = get_text(request, "uuid", needed, &text, e);

    *given = text != NULL;
    if (rc || !text)
        return rc;
    if (xlv_uuid_parse(uuid, text))
        return xlv_fail(e, XLV_E_INVALID, "\"%.80s\" is no uuid", text);
    return 0;
}

static int get_devid(struct json_object *request, unsigned *devid, struct xlv_error *e)
{
    struct json_object *value;
    int rc = get(request, "devid", json_type_int, false, &value, e);

    *devid = 0;
    if (rc || !value)
        return rc;
    if (json_object_get_int64(value) < 0 || json_object_get_int64(value) > (int64_t)XLV_DEVID_MAX)
        return xlv_fail(e, XLV_E_INVALID, "a device number is from 0 to %u", XLV_DEVID_MAX);
    *devid = (unsigned)json_object_get_int64(value);
    return 0;
}

static int get_instance(const struct xlv_calls *c, struct json_object *request,
                        struct xlv_instance *instance, struct xlv_error *e)
{
    struct json_object *number;
    struct xlv_uuid uuid;
    bool given;
    int rc = get_uuid(request, false, &uuid, &given, e);

    if (!rc && !given)
        rc = get(request, "number", json_type_int, true, &number, e);
    if (rc)
        return rc;
    if (!c->registry)
        return xlv_fail(e, XLV_E_NOT_FOUND, "there is no instance yet");
    if (given)
        return xlv_registry_get(c->registry, &uuid, instance, e);
    if (json_object_get_int64(number) < 1)
        return xlv_fail(e, XLV_E_NOT_FOUND, "instances are numbered from 1");
    return xlv_registry_get_number(c->registry, (uint64_t)json_object_get_int64(number), instance,
                                   e);
}

static int full_json(const struct xlv_calls *c, const struct xlv_instance *instance,
                     struct json_object **json, struct xlv_error *e)
{
    int rc = xlv_instance_to_json(c->registry, instance, json, e);

    if (!rc && c->decorate)
        rc = c->decorate(instance, *json, c->opaque, e);
    if (rc) {
        json_object_put(*json);
        *json = NULL;
    }
    return rc;
}

/*
 * The calls: result to *result, which may stay NULL (null).
 */

struct list {
    const struct xlv_calls *calls;
    struct json_object *array;
    bool deleted; /* those and no others */
    struct xlv_error *e;
};

static int list_one(const struct xlv_instance *instance, void *opaque)
{
    struct list *list = opaque;
    struct json_object *json;
    int rc;

    if (list->deleted != (instance->deleted_s != 0))
        return 0;
    rc = full_json(list->calls, instance, &json, list->e);

    if (!rc && json_object_array_add(list->array, json) != 0) {
        json_object_put(json);
        rc = no_memory(list->e);
    }
    return rc;
}

static int call_list(const struct xlv_calls *c, struct json_object *request,
                     struct json_object **result, struct xlv_error *e)
{
    struct list list = { .calls = c, .e = e };
    struct json_object *deleted;
    int rc = get(request, "deleted", json_type_boolean, false, &deleted, e);

    if (rc)
        return rc;
    list.deleted = json_object_get_boolean(deleted);
    list.array = json_object_new_array();
    if (!list.array)
        return no_memory(e);
    if (c->registry)
        rc = xlv_registry_each(c->registry, list_one, &list, e);
    if (rc)
        json_object_put(list.array);
    else
        *result = list.array;
    return rc;
}

/*
 * What backends count. Of a file that a backend writes to only numbers are taken.
 */

static struct json_object *latency_json(const struct xlv_latency *l)
{
    static const uint32_t bounds_us[XLV_LATENCY_BUCKETS - 1] = XLV_LATENCY_BOUNDS_US;
    struct json_object *json = json_object_new_object(), *buckets = json_object_new_array();
    bool good = json && buckets &&
                xlv_json_add(json, "sum_seconds", json_object_new_double((double)l->sum_ns / 1e9));
    uint64_t count = 0;

    for (unsigned i = 0; good && i < XLV_LATENCY_BUCKETS; i++) {
        struct json_object *bucket = json_object_new_object();

        count += l->buckets[i];
        good = bucket &&
               xlv_json_set(bucket, "le", i < XLV_LATENCY_BUCKETS - 1
                                             ? json_object_new_double(bounds_us[i] / 1e6) : NULL) &&
               xlv_json_add(bucket, "count", json_object_new_uint64(count));
        if (!good || json_object_array_add(buckets, bucket)) {
            json_object_put(bucket);
            good = false;
        }
    }
    if (good && xlv_json_add(json, "buckets", buckets))
        return json;
    if (!good)
        json_object_put(buckets);
    json_object_put(json);
    return NULL;
}

/* Zeros where there is no journal, or none that counts. */
static int read_statistics(const struct xlv_calls *c, const struct xlv_instance *i,
                           struct xlv_statistics *s, struct xlv_error *e)
{
    char path[PATH_MAX];
    int fd XLV_CLOSE = -1;
    ssize_t n;

    xlv_settings_journal(c->settings, i->number, path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno != ENOENT)
        return xlv_fail(e, -errno, "cannot read what was counted of instance %" PRIu64 ", in %s: "
                        "%s", i->number, path, strerror(errno));
    n = fd < 0 ? 0 : pread(fd, s, sizeof(*s), XLV_STATISTICS_OFFSET);
    if (n != (ssize_t)sizeof(*s) || s->magic != XLV_STATISTICS_MAGIC)
        memset(s, 0, sizeof(*s));
    return 0;
}

static int stats_one(const struct xlv_instance *i, void *opaque)
{
    struct list *list = opaque;
    struct json_object *json;
    struct xlv_statistics s;
    char uuid[XLV_UUID_TEXT];
    int rc;

    if (i->deleted_s && !list->deleted)
        return 0;
    rc = read_statistics(list->calls, i, &s, list->e);
    if (rc)
        return rc;
    json = json_object_new_object();
    if (json && xlv_json_add(json, "number", json_object_new_int64((int64_t)i->number)) &&
        xlv_json_add(json, "uuid", json_object_new_string(xlv_uuid_format(&i->uuid, uuid))) &&
        xlv_json_add(json, "domain", xlv_json_text(i->last_domain_name)) &&
        xlv_json_add(json, "tpm_version",
                     json_object_new_string(xlv_tpm_version_name(i->tpm_version))) &&
        xlv_json_add(json, "processes", json_object_new_uint64(s.processes)) &&
        xlv_json_add(json, "commands", json_object_new_uint64(s.commands)) &&
        xlv_json_add(json, "failed", json_object_new_uint64(s.failed)) &&
        xlv_json_add(json, "cancelled", json_object_new_uint64(s.cancelled)) &&
        xlv_json_add(json, "commits", json_object_new_uint64(s.commits)) &&
        xlv_json_add(json, "failed_commits", json_object_new_uint64(s.failed_commits)) &&
        xlv_json_add(json, "latency", latency_json(&s.all)) &&
        xlv_json_add(json, "durable_latency", latency_json(&s.durable)) &&
        json_object_array_add(list->array, json) == 0)
        return 0;
    json_object_put(json);
    return no_memory(list->e);
}

static int call_stats(const struct xlv_calls *c, struct json_object *request,
                      struct json_object **result, struct xlv_error *e)
{
    struct list list = { .calls = c, .e = e, .array = json_object_new_array() };
    struct xlv_instance instance;
    int rc = 0;

    if (!list.array)
        return no_memory(e);
    if (json_object_object_get_ex(request, "uuid", NULL) ||
        json_object_object_get_ex(request, "number", NULL)) {
        list.deleted = true;
        rc = get_instance(c, request, &instance, e);
        if (!rc)
            rc = stats_one(&instance, &list);
    } else if (c->registry) {
        rc = xlv_registry_each(c->registry, stats_one, &list, e);
    }
    if (rc)
        json_object_put(list.array);
    else
        *result = list.array;
    return rc;
}

/* All there is about one instance; pem: its keys and certificates, too. */
static int show(const struct xlv_calls *c, const struct xlv_instance *instance, bool pem,
                struct json_object **result, struct xlv_error *e)
{
    struct json_object *endorsement;
    int rc = full_json(c, instance, result, e);

    if (rc)
        return rc;
    rc = xlv_endorsement_to_json(c->registry, instance->number, pem, &endorsement, e);
    if (!rc && !xlv_json_add(*result, "endorsement", endorsement))
        rc = no_memory(e);
    if (rc) {
        json_object_put(*result);
        *result = NULL;
    }
    return rc;
}

static int call_show(const struct xlv_calls *c, struct json_object *request,
                     struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    int rc = get_instance(c, request, &instance, e);

    return rc ? rc : show(c, &instance, false, result, e);
}

static int call_ek_cert(const struct xlv_calls *c, struct json_object *request,
                        struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    int rc = get_instance(c, request, &instance, e);

    return rc ? rc : show(c, &instance, true, result, e);
}

static int need_registry(const struct xlv_calls *c, struct xlv_error *e)
{
    return c->registry ? 0 : xlv_fail(e, XLV_E_NOT_FOUND, "there is no registry yet");
}

static int call_create(const struct xlv_calls *c, struct json_object *request,
                       struct json_object **result, struct xlv_error *e)
{
    enum xlv_tpm_version version = c->settings->default_tpm_version;
    struct xlv_instance instance;
    const char *word = NULL, *label = NULL;
    struct xlv_uuid uuid;
    bool given;
    int rc = get_uuid(request, false, &uuid, &given, e);

    if (!rc)
        rc = get_text(request, "tpm_version", false, &word, e);
    if (!rc)
        rc = get_text(request, "label", false, &label, e);
    if (!rc && word) {
        if (!strcmp(word, "1.2"))
            version = XLV_TPM_1_2;
        else if (!strcmp(word, "2.0"))
            version = XLV_TPM_2_0;
        else
            rc = xlv_fail(e, XLV_E_INVALID, "\"%.80s\" is no TPM version; there are 1.2 and 2.0",
                          word);
    }
    if (!rc)
        rc = need_registry(c, e);
    if (rc)
        return rc;
    if (!given)
        xlv_uuid_generate(&uuid);
    rc = xlv_registry_create(c->registry, &uuid, version, label, &instance, e);
    if (!rc && c->created)
        rc = c->created(&instance, c->opaque, e);
    /* what created() did may show */
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

static int call_bind(const struct xlv_calls *c, struct json_object *request,
                     struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance = { .number = 0 };
    const char *domain = NULL;
    unsigned devid = 0;
    int rc = get_text(request, "domain", true, &domain, e);

    if (!rc)
        rc = get_devid(request, &devid, e);
    if (!rc)
        rc = get_instance(c, request, &instance, e);
    if (!rc)
        rc = xlv_registry_bind(c->registry, instance.number, domain, devid, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

static int call_unbind(const struct xlv_calls *c, struct json_object *request,
                       struct json_object **result, struct xlv_error *e)
{
    const char *domain = NULL;
    unsigned devid = 0;
    int rc = get_text(request, "domain", true, &domain, e);

    (void)result;
    if (!rc)
        rc = get_devid(request, &devid, e);
    if (!rc)
        rc = need_registry(c, e);
    return rc ? rc : xlv_registry_unbind(c->registry, domain, devid, e);
}

/*
 * Out of quarantine, as NEW and not as READY: it may have been put there before
 * its TPM was made, and manufacture leaves a store that holds a state as it is.
 */
static int call_release(const struct xlv_calls *c, struct json_object *request,
                        struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    int rc = get_instance(c, request, &instance, e);

    if (!rc && instance.life != XLV_LIFE_QUARANTINED)
        rc = xlv_fail(e, XLV_E_INVALID, "instance %llu is not quarantined but %s",
                      (unsigned long long)instance.number, xlv_life_name(instance.life));
    if (!rc)
        rc = xlv_registry_set_life(c->registry, instance.number, XLV_LIFE_NEW, e);
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    if (!rc && c->created)
        rc = c->created(&instance, c->opaque, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

/* The TPM of a new instance, which another process made, is made now and not at its first use. */
static int call_make(const struct xlv_calls *c, struct json_object *request,
                     struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    int rc = get_instance(c, request, &instance, e);

    if (!rc && instance.life == XLV_LIFE_NEW && c->created)
        rc = c->created(&instance, c->opaque, e);
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

/* What the next restored domain of an instance gets, though its save is not the one that is kept. */
static int call_accept(const struct xlv_calls *c, struct json_object *request,
                       struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    enum xlv_accept accept = XLV_ACCEPT_NONE;
    const char *word;
    int rc = get_text(request, "accept", true, &word, e);

    if (!rc)
        rc = get_instance(c, request, &instance, e);
    if (rc)
        return rc;
    if (!strcmp(word, "reset"))
        accept = XLV_ACCEPT_RESET;
    else if (!strcmp(word, "kept"))
        accept = XLV_ACCEPT_KEPT;
    else if (strcmp(word, "none"))
        return xlv_fail(e, XLV_E_INVALID, "\"%.80s\" cannot be accepted; there are reset, kept and "
                                          "none", word);
    if (accept == XLV_ACCEPT_KEPT && !instance.suspended.at_s)
        return xlv_fail(e, XLV_E_INVALID, "no state of a suspended domain is kept for instance "
                                          "%llu", (unsigned long long)instance.number);
    rc = xlv_registry_accept(c->registry, instance.number, accept, e);
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

/* Whether the boots of an instance's domains are measured, from the next one on. */
static int call_measure(const struct xlv_calls *c, struct json_object *request,
                        struct json_object **result, struct xlv_error *e)
{
    enum xlv_measuring measure = XLV_MEASURING_DEFAULT;
    struct xlv_instance instance;
    const char *word;
    int rc = get_text(request, "measure", true, &word, e);

    if (!rc)
        rc = get_instance(c, request, &instance, e);
    if (rc)
        return rc;
    if (!strcmp(word, "on"))
        measure = XLV_MEASURING_ON;
    else if (!strcmp(word, "off"))
        measure = XLV_MEASURING_OFF;
    else if (strcmp(word, "default"))
        return xlv_fail(e, XLV_E_INVALID, "\"%.80s\" says nothing of measuring; there are on, off "
                                          "and default", word);
    rc = xlv_registry_measure_boot(c->registry, instance.number, measure, e);
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

static int call_label(const struct xlv_calls *c, struct json_object *request,
                      struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance = { .number = 0 };
    const char *label;
    int rc = get_text(request, "label", true, &label, e);

    if (!rc)
        rc = get_instance(c, request, &instance, e);
    if (!rc)
        rc = xlv_registry_set_label(c->registry, instance.number, label, e);
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

/* Its backend may be dead for a moment, but the boot of the domain is not over. */
static int refuse_if_served(const struct xlv_calls *c, const struct xlv_instance *instance,
                            struct xlv_error *e)
{
    struct json_object *json, *device = NULL, *domid = NULL;
    int rc = full_json(c, instance, &json, e);

    if (rc)
        return rc;
    json_object_object_get_ex(json, "device", &device);
    if (device) {
        json_object_object_get_ex(device, "domid", &domid);
        rc = xlv_fail(e, XLV_E_IN_USE, "instance %llu is in use by domain %s: shut it down first",
                      (unsigned long long)instance->number, json_object_get_string(domid));
    }
    json_object_put(json);
    return rc;
}

static int call_delete(const struct xlv_calls *c, struct json_object *request,
                       struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    int rc = get_instance(c, request, &instance, e);

    if (!rc)
        rc = refuse_if_served(c, &instance, e);
    if (!rc)
        rc = xlv_registry_delete(c->registry, instance.number, e);
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

static int call_undelete(const struct xlv_calls *c, struct json_object *request,
                         struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    int rc = get_instance(c, request, &instance, e);

    if (!rc)
        rc = xlv_registry_undelete(c->registry, instance.number, e);
    if (!rc)
        rc = xlv_registry_get_number(c->registry, instance.number, &instance, e);
    return rc ? rc : full_json(c, &instance, result, e);
}

/* One, or some of all that were deleted long enough ago: the caller asks for more, so that nobody
 * waits for us meanwhile. */
static int call_purge(const struct xlv_calls *c, struct json_object *request,
                      struct json_object **result, struct xlv_error *e)
{
    struct xlv_instance instance;
    struct json_object *expired, *before = NULL, *json;
    unsigned count = 1;
    bool more = false;
    int rc = get(request, "expired", json_type_boolean, false, &expired, e);

    if (!rc)
        rc = get(request, "before", json_type_int, false, &before, e);
    if (!rc && json_object_get_boolean(expired)) {
        rc = need_registry(c, e);
        if (!rc)
            rc = xlv_registry_purge_older(c->registry, c->settings->deleted_kept_days * 86400ll,
                                          (unsigned)json_object_get_int(before), &count, &more, e);
    } else if (!rc) {
        rc = get_instance(c, request, &instance, e);
        if (!rc)
            rc = xlv_registry_purge(c->registry, instance.number, e);
    }
    if (rc)
        return rc;
    json = json_object_new_object();
    if (!json || !xlv_json_add(json, "purged", json_object_new_int64(count)) ||
        !xlv_json_add(json, "more", json_object_new_boolean(more))) {
        json_object_put(json);
        return no_memory(e);
    }
    *result = json;
    return 0;
}

/* What becomes of a device that nothing is known about. */
static int preview(const struct xlv_calls *c, const struct xlv_lookup *lookup,
                   struct xlv_instance *instance, enum xlv_rule *rule, struct xlv_error *e)
{
    if (c->registry)
        return xlv_registry_preview(c->registry, lookup, instance, rule, e);
    if (lookup->unknown_uuid == XLV_UNKNOWN_UUID_REFUSE)
        return xlv_fail(e, XLV_E_REFUSED,
                        "there is no instance yet, and unknown-uuid = refuse; make one with "
                        "xl-vtpm create");
    *rule = XLV_RULE_ASSIGNED;
    *instance = (struct xlv_instance){ .tpm_version = lookup->default_version };
    return 0;
}

static int call_check(const struct xlv_calls *c, struct json_object *request,
                      struct json_object **result, struct xlv_error *e)
{
    struct xlv_lookup lookup = {
        .unknown_uuid = c->settings->unknown_uuid,
        .default_version = c->settings->default_tpm_version,
    };
    struct json_object *json, *shown = NULL;
    struct xlv_error why = XLV_ERROR_INIT;
    struct xlv_instance instance;
    enum xlv_rule rule;
    bool given, ok;
    int rc = get_uuid(request, false, &lookup.uuid, &given, e);

    if (!rc)
        rc = get_text(request, "domain", false, &lookup.domain_name, e);
    if (!rc)
        rc = get_devid(request, &lookup.devid, e);
    if (rc)
        return rc;
    json = json_object_new_object();
    if (!json)
        return no_memory(e);
    rc = preview(c, &lookup, &instance, &rule, &why);
    if (rc == XLV_E_REFUSED) {
        rc = 0;
        ok = xlv_json_add(json, "rule", json_object_new_string("refused")) &&
             xlv_json_add(json, "reason", xlv_json_text(why.text));
    } else if (rc) {
        xlv_fail(e, rc, "%s", why.text);
        ok = true;
    } else {
        if (rule == XLV_RULE_ASSIGNED) {
            shown = json_object_new_object();
            ok = shown && xlv_json_add(shown, "tpm_version",
                                       json_object_new_string(
                                           xlv_tpm_version_name(instance.tpm_version)));
        } else {
            rc = full_json(c, &instance, &shown, e);
            ok = true;
        }
        ok = ok && (rc || (xlv_json_add(json, "rule",
                                        json_object_new_string(xlv_rule_name(rule))) &&
                           xlv_json_add(json, "instance", json_object_get(shown))));
        json_object_put(shown);
    }
    if (!ok)
        rc = no_memory(e);
    if (rc)
        json_object_put(json);
    else
        *result = json;
    return rc;
}

static int call_status(const struct xlv_calls *c, struct json_object *request,
                       struct json_object **result, struct xlv_error *e)
{
    (void)request;
    if (!c->status)
        return xlv_fail(e, XLV_E_NOT_FOUND, "xl-vtpmd does not run; start it with systemctl start "
                                            "xl-vtpmd");
    return c->status(result, c->opaque, e);
}

static const struct {
    const char *name;
    int (*answer)(const struct xlv_calls *c, struct json_object *request,
                  struct json_object **result, struct xlv_error *e);
} table[] = {
    { "list", call_list },     { "show", call_show },   { "create", call_create },
    { "bind", call_bind },     { "unbind", call_unbind }, { "check", call_check },
    { "status", call_status }, { "release", call_release }, { "accept", call_accept },
    { "ek-cert", call_ek_cert },
    { "label", call_label },   { "delete", call_delete }, { "undelete", call_undelete },
    { "purge", call_purge },   { "stats", call_stats },
    { "measure", call_measure }, { "make", call_make },
};

struct json_object *xlv_calls_answer(const struct xlv_calls *calls, struct json_object *request)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct json_object *result = NULL;
    const char *name;
    int rc = get_text(request, "call", true, &name, &e);

    if (!rc) {
        size_t i = 0;

        while (i < sizeof(table) / sizeof(table[0]) && strcmp(name, table[i].name))
            i++;
        rc = i < sizeof(table) / sizeof(table[0])
                 ? table[i].answer(calls, request, &result, &e)
                 : xlv_fail(&e, XLV_E_INVALID, "there is no call \"%.80s\"", name);
    }
    return rc ? xlv_control_error(rc, &e) : xlv_control_ok(result);
}
