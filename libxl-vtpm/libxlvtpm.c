/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libxlvtpm: the public face of spec, client and calls. Nothing of ours but
 * include/libxl-vtpm.h reaches a caller: codes and errors have the same values
 * and layout inside (asserted here), objects are opaque.
 */
#include "config.h"

#include "include/libxl-vtpm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "common/error.h"
#include "common/fd.h"
#include "libxl-vtpm/client.h"
#include "libxl-vtpm/settings.h"
#include "libxl-vtpm/spec.h"

_Static_assert(XLVTPM_NOT_FOUND == (int)XLV_E_NOT_FOUND, "public and inner codes");
_Static_assert(XLVTPM_EXISTS == (int)XLV_E_EXISTS, "public and inner codes");
_Static_assert(XLVTPM_INVALID == (int)XLV_E_INVALID, "public and inner codes");
_Static_assert(XLVTPM_IN_USE == (int)XLV_E_IN_USE, "public and inner codes");
_Static_assert(XLVTPM_REFUSED == (int)XLV_E_REFUSED, "public and inner codes");
_Static_assert(XLVTPM_CORRUPT == (int)XLV_E_CORRUPT, "public and inner codes");
_Static_assert(XLVTPM_WRONG_KEY == (int)XLV_E_WRONG_KEY, "public and inner codes");
_Static_assert(XLVTPM_WRONG_OWNER == (int)XLV_E_WRONG_OWNER, "public and inner codes");
_Static_assert(XLVTPM_VERSION == (int)XLV_E_VERSION, "public and inner codes");
_Static_assert(XLVTPM_GONE == (int)XLV_E_GONE, "public and inner codes");
_Static_assert(sizeof(struct xlvtpm_error) == sizeof(struct xlv_error), "one layout");

#define AS_TEXT (JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)

struct xlvtpm_spec {
    struct xlv_spec spec;
    char uuid[XLV_UUID_TEXT]; /* "" none */
    char *text;
};

struct xlvtpm_client {
    struct xlv_settings settings;
    struct xlv_client *client;
};

struct xlvtpm_instance {
    struct json_object *json;
    uint64_t number;
    const char *uuid, *tpm_version, *life, *label; /* of json */
};

/* Inner functions add to a sentence never, so each of ours starts with an empty one. */
static struct xlv_error *inner(struct xlvtpm_error *error)
{
    struct xlv_error *e = (struct xlv_error *)error;

    xlv_error_clear(e);
    return e;
}

const char *xlvtpm_strerror(int code)
{
    return xlv_strerror(code);
}

const char *xlvtpm_version(void)
{
    return PACKAGE_VERSION;
}

/*
 * Spec
 */

int xlvtpm_spec_parse(struct xlvtpm_spec **out, const char *text, struct xlvtpm_error *error)
{
    struct xlvtpm_spec *s = calloc(1, sizeof(*s));
    struct xlv_error *e = inner(error);
    int rc;

    *out = NULL;
    if (!s)
        return xlv_fail(e, -ENOMEM, "no memory for a vtpm spec");
    rc = xlv_spec_parse(&s->spec, text, e);
    if (!rc)
        rc = xlv_spec_format(&s->spec, &s->text, e);
    if (rc) {
        xlvtpm_spec_free(s);
        return rc;
    }
    if (s->spec.has_uuid)
        xlv_uuid_format(&s->spec.uuid, s->uuid);
    *out = s;
    return 0;
}

int xlvtpm_spec_make(struct xlvtpm_spec **out, const char *backend, const char *uuid,
                     struct xlvtpm_error *error)
{
    struct xlv_spec parts = { .backend = (char *)backend };
    struct xlv_error *e = inner(error);
    char *text XLV_FREE = NULL;
    int rc;

    *out = NULL;
    if (uuid && xlv_uuid_parse(&parts.uuid, uuid))
        return xlv_fail(e, XLV_E_INVALID, "\"%.80s\" is no uuid", uuid);
    parts.has_uuid = uuid != NULL;
    rc = xlv_spec_format(&parts, &text, e);
    return rc ? rc : xlvtpm_spec_parse(out, text, error);
}

void xlvtpm_spec_free(struct xlvtpm_spec *spec)
{
    if (!spec)
        return;
    xlv_spec_deinit(&spec->spec);
    free(spec->text);
    free(spec);
}

const char *xlvtpm_spec_backend(const struct xlvtpm_spec *spec)
{
    return spec->spec.backend;
}

int64_t xlvtpm_spec_backend_domid(const struct xlvtpm_spec *spec)
{
    return spec->spec.backend_is_domid ? (int64_t)spec->spec.backend_domid : -1;
}

const char *xlvtpm_spec_uuid(const struct xlvtpm_spec *spec)
{
    return spec->uuid[0] ? spec->uuid : NULL;
}

const char *xlvtpm_spec_text(const struct xlvtpm_spec *spec)
{
    return spec->text;
}

const char *xlvtpm_spec_warning(const struct xlvtpm_spec *spec, unsigned index)
{
    return index < spec->spec.warning_count ? spec->spec.warnings[index] : NULL;
}

/*
 * Client
 */

int xlvtpm_open(struct xlvtpm_client **out, const char *config, unsigned flags,
                struct xlvtpm_error *error)
{
    struct xlvtpm_client *c = calloc(1, sizeof(*c));
    struct xlv_error *e = inner(error);
    enum xlv_client_mode mode = XLV_CLIENT_EITHER;
    int rc = 0;

    *out = NULL;
    if (!c)
        return xlv_fail(e, -ENOMEM, "no memory");
    if (flags == XLVTPM_DAEMON_ONLY)
        mode = XLV_CLIENT_DAEMON;
    else if (flags == XLVTPM_FILES_ONLY)
        mode = XLV_CLIENT_OFFLINE;
    else if (flags)
        rc = xlv_fail(e, XLV_E_INVALID, "flags %#x are not known to this version", flags);
    if (!rc)
        rc = xlv_settings_load(&c->settings, config, e);
    if (!rc)
        rc = xlv_client_new(&c->client, &c->settings, mode, e);
    if (rc)
        xlvtpm_close(c);
    else
        *out = c;
    return rc;
}

void xlvtpm_close(struct xlvtpm_client *client)
{
    if (!client)
        return;
    xlv_client_free(client->client);
    xlv_settings_deinit(&client->settings);
    free(client);
}

bool xlvtpm_online(const struct xlvtpm_client *client)
{
    return xlv_client_online(client->client);
}

/*
 * Requests are built from pairs of (key, value); NULL values are left out. The
 * value of "devid" and "number" is an integer.
 */

static struct json_object *text_or_null(const char *text)
{
    return text ? json_object_new_string(text) : NULL;
}

/* Takes over value; false without memory. NULL is fine and adds nothing. */
static bool put(struct json_object *request, const char *key, struct json_object *value)
{
    if (!value || json_object_object_add(request, key, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

static struct json_object *request_of(const char *call)
{
    struct json_object *request = json_object_new_object();

    if (request && put(request, "call", json_object_new_string(call)))
        return request;
    json_object_put(request);
    return NULL;
}

/* Sends and frees request (NULL: no memory). result may be NULL: not wanted. */
static int ask(struct xlvtpm_client *client, struct json_object *request, bool built,
               struct json_object **result, struct xlv_error *e)
{
    struct json_object *ignored = NULL;
    int rc = built ? xlv_client_call(client->client, request, result ? result : &ignored, e)
                   : xlv_fail(e, -ENOMEM, "no memory for a request");

    json_object_put(ignored);
    json_object_put(request);
    return rc;
}

static const char *member(struct json_object *json, const char *key)
{
    struct json_object *value;

    if (!json_object_object_get_ex(json, key, &value) ||
        !json_object_is_type(value, json_type_string))
        return NULL;
    return json_object_get_string(value);
}

/* Takes over json. */
static int make_instance(struct json_object *json, struct xlvtpm_instance **out,
                         struct xlv_error *e)
{
    struct xlvtpm_instance *i = calloc(1, sizeof(*i));
    struct json_object *number;

    if (!i) {
        json_object_put(json);
        return xlv_fail(e, -ENOMEM, "no memory for an instance");
    }
    i->json = json;
    i->uuid = member(json, "uuid");
    i->tpm_version = member(json, "tpm_version");
    i->life = member(json, "life");
    i->label = member(json, "label");
    if (json_object_object_get_ex(json, "number", &number))
        i->number = (uint64_t)json_object_get_int64(number);
    if (!i->number || !i->uuid || !i->tpm_version || !i->life || !i->label) {
        xlvtpm_instance_free(i);
        return xlv_fail(e, XLV_E_INVALID, "the answer is no instance that we understand");
    }
    *out = i;
    return 0;
}

static int ask_instance(struct xlvtpm_client *client, struct json_object *request, bool built,
                        struct xlvtpm_instance **instance, struct xlv_error *e)
{
    struct json_object *json = NULL;
    int rc = ask(client, request, built, &json, e);

    *instance = NULL;
    return rc ? rc : make_instance(json, instance, e);
}

uint64_t xlvtpm_instance_number(const struct xlvtpm_instance *instance)
{
    return instance->number;
}

const char *xlvtpm_instance_uuid(const struct xlvtpm_instance *instance)
{
    return instance->uuid;
}

const char *xlvtpm_instance_tpm_version(const struct xlvtpm_instance *instance)
{
    return instance->tpm_version;
}

const char *xlvtpm_instance_life(const struct xlvtpm_instance *instance)
{
    return instance->life;
}

const char *xlvtpm_instance_label(const struct xlvtpm_instance *instance)
{
    return instance->label;
}

const char *xlvtpm_instance_json(const struct xlvtpm_instance *instance)
{
    return json_object_to_json_string_ext(instance->json, AS_TEXT);
}

void xlvtpm_instance_free(struct xlvtpm_instance *instance)
{
    if (!instance)
        return;
    json_object_put(instance->json);
    free(instance);
}

int xlvtpm_find_uuid(struct xlvtpm_client *client, const char *uuid,
                     struct xlvtpm_instance **instance, struct xlvtpm_error *error)
{
    struct json_object *request = request_of("show");
    bool built = request && put(request, "uuid", text_or_null(uuid));

    return ask_instance(client, request, built, instance, inner(error));
}

int xlvtpm_find_number(struct xlvtpm_client *client, uint64_t number,
                       struct xlvtpm_instance **instance, struct xlvtpm_error *error)
{
    struct json_object *request = request_of("show");
    bool built = request && put(request, "number", json_object_new_int64((int64_t)number));

    return ask_instance(client, request, built, instance, inner(error));
}

int xlvtpm_list(struct xlvtpm_client *client, struct xlvtpm_instance ***out, size_t *out_count,
                struct xlvtpm_error *error)
{
    struct json_object *request = request_of("list"), *array = NULL;
    struct xlvtpm_instance **list = NULL;
    struct xlv_error *e = inner(error);
    size_t count = 0, length = 0;
    int rc = ask(client, request, request != NULL, &array, e);

    *out = NULL;
    *out_count = 0;
    if (!rc && !json_object_is_type(array, json_type_array))
        rc = xlv_fail(e, XLV_E_INVALID, "the answer is no list of instances");
    if (!rc)
        length = json_object_array_length(array);
    if (length) {
        list = calloc(length, sizeof(*list));
        if (!list)
            rc = xlv_fail(e, -ENOMEM, "no memory for %zu instances", length);
    }
    for (; !rc && count < length; count += !rc)
        rc = make_instance(json_object_get(json_object_array_get_idx(array, count)), &list[count],
                           e);
    json_object_put(array);
    if (rc) {
        xlvtpm_list_free(list, count);
        return rc;
    }
    *out = list;
    *out_count = count;
    return 0;
}

void xlvtpm_list_free(struct xlvtpm_instance **list, size_t count)
{
    for (size_t i = 0; list && i < count; i++)
        xlvtpm_instance_free(list[i]);
    free(list);
}

int xlvtpm_create(struct xlvtpm_client *client, const char *uuid, const char *tpm_version,
                  const char *label, struct xlvtpm_instance **instance,
                  struct xlvtpm_error *error)
{
    struct json_object *request = request_of("create");
    bool built = request && put(request, "uuid", text_or_null(uuid)) &&
                 put(request, "tpm_version", text_or_null(tpm_version)) &&
                 put(request, "label", text_or_null(label));

    return ask_instance(client, request, built, instance, inner(error));
}

static struct json_object *device_request(const char *call, const char *domain, unsigned devid,
                                          const char *uuid, bool *built)
{
    struct json_object *request = request_of(call);

    *built = request && put(request, "domain", text_or_null(domain)) &&
             put(request, "devid", json_object_new_int64(devid)) &&
             put(request, "uuid", text_or_null(uuid));
    return request;
}

int xlvtpm_bind(struct xlvtpm_client *client, const char *domain, unsigned devid,
                const char *uuid, struct xlvtpm_error *error)
{
    bool built;
    struct json_object *request = device_request("bind", domain, devid, uuid, &built);

    return ask(client, request, built, NULL, inner(error));
}

int xlvtpm_unbind(struct xlvtpm_client *client, const char *domain, unsigned devid,
                  struct xlvtpm_error *error)
{
    bool built;
    struct json_object *request = device_request("unbind", domain, devid, NULL, &built);

    return ask(client, request, built, NULL, inner(error));
}

int xlvtpm_check(struct xlvtpm_client *client, const char *uuid, const char *domain,
                 unsigned devid, enum xlvtpm_rule *rule, struct xlvtpm_instance **instance,
                 struct xlvtpm_error *error)
{
    bool built;
    struct json_object *request = device_request("check", domain, devid, uuid, &built);
    struct json_object *answer = NULL, *json;
    struct xlv_error *e = inner(error);
    const char *word, *reason;
    int rc = ask(client, request, built, &answer, e);

    *instance = NULL;
    if (rc)
        return rc;
    word = member(answer, "rule");
    if (!word) {
        rc = xlv_fail(e, XLV_E_INVALID, "the answer names no rule");
    } else if (!strcmp(word, "refused")) {
        reason = member(answer, "reason");
        rc = xlv_fail(e, XLV_E_REFUSED, "%s", reason ? reason : "refused");
    } else if (!strcmp(word, "assigned")) {
        *rule = XLVTPM_RULE_ASSIGNED;
    } else if (!strcmp(word, "uuid") || !strcmp(word, "binding")) {
        if (json_object_object_get_ex(answer, "instance", &json))
            rc = make_instance(json_object_get(json), instance, e);
        else
            rc = xlv_fail(e, XLV_E_INVALID, "the answer names no instance");
        if (!rc)
            *rule = word[0] == 'u' ? XLVTPM_RULE_UUID : XLVTPM_RULE_BINDING;
    } else {
        rc = xlv_fail(e, XLV_E_INVALID, "the rule \"%.40s\" is not known to this version", word);
    }
    json_object_put(answer);
    return rc;
}

int xlvtpm_call(struct xlvtpm_client *client, const char *request, char **result,
                struct xlvtpm_error *error)
{
    struct json_object *json = json_tokener_parse(request), *answer = NULL;
    struct xlv_error *e = inner(error);
    int rc;

    *result = NULL;
    if (!json_object_is_type(json, json_type_object)) {
        json_object_put(json);
        return xlv_fail(e, XLV_E_INVALID, "the request is no JSON object");
    }
    rc = ask(client, json, true, &answer, e);
    if (rc)
        return rc;
    *result = strdup(json_object_to_json_string_ext(answer, AS_TEXT));
    json_object_put(answer);
    return *result ? 0 : xlv_fail(e, -ENOMEM, "no memory for the answer");
}
