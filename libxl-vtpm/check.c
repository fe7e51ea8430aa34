/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checking a domain's configuration: see check.h. What xl does with the file
 * is that of tools/xl/xl_parse.c of Xen 4.17: `name` is needed; a `vtpm` that is
 * no list is warned about and then ignored; the list is read up to its first
 * entry that is no string; devices are numbered in order from 0.
 */
#include "config.h"

#include "libxl-vtpm/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>
#include <libxlutil.h>

#include "common/fd.h"
#include "libxl-vtpm/control.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/spec.h"

struct check {
    struct xlv_client *client;
    const char *path;
    const char *domain; /* NULL: none */
    struct json_object *messages, *vtpms;
    enum xlv_check_result worst;
    struct xlv_error *e;
};

static bool add(struct json_object *object, const char *key, struct json_object *value)
{
    if (value && json_object_object_add(object, key, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

static bool append(struct json_object *array, struct json_object *value)
{
    if (value && json_object_array_add(array, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

static int no_memory(struct check *c)
{
    return xlv_fail(c->e, -ENOMEM, "no memory to check %s", c->path);
}

static void worse(struct check *c, enum xlv_check_result result)
{
    if (c->worst < result)
        c->worst = result;
}

static const char *word(enum xlv_check_result result)
{
    static const char *const words[] = { "fine", "refused", "wrong" };

    return words[result];
}

static int message(struct check *c, const char *text)
{
    return append(c->messages, xlv_json_text(text)) ? 0 : no_memory(c);
}

static const char *member(struct json_object *json, const char *key)
{
    struct json_object *value;

    return json_object_object_get_ex(json, key, &value) &&
                   json_object_is_type(value, json_type_string)
               ? json_object_get_string(value)
               : NULL;
}

/* Sets the verdict about one entry. */
static int conclude(struct check *c, struct json_object *vtpm, enum xlv_check_result result,
                    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static int conclude(struct check *c, struct json_object *vtpm, enum xlv_check_result result,
                    const char *fmt, ...)
{
    char text[2 * XLV_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    worse(c, result);
    return add(vtpm, "result", json_object_new_string(word(result))) &&
                   add(vtpm, "text", xlv_json_text(text))
               ? 0
               : no_memory(c);
}

/* An earlier entry that gets the same instance (by number, or a new one by uuid): its devid. */
static int earlier(struct check *c, int64_t number, const char *uuid)
{
    for (size_t i = 0; i < json_object_array_length(c->vtpms); i++) {
        struct json_object *vtpm = json_object_array_get_idx(c->vtpms, i), *instance, *n;
        const char *other = member(vtpm, "uuid");

        if (number && json_object_object_get_ex(vtpm, "instance", &instance) &&
            json_object_object_get_ex(instance, "number", &n) && json_object_get_int64(n) == number)
            return (int)i;
        if (!number && uuid && other && !strcmp(uuid, other))
            return (int)i;
    }
    return -1;
}

/* Says in words what the answer to a check call means for this entry. */
static int explain(struct check *c, struct json_object *vtpm, struct json_object *answer,
                   unsigned devid, const char *uuid)
{
    const char *rule = member(answer, "rule"), *reason = member(answer, "reason");
    struct json_object *instance = NULL, *value;
    const char *version, *life, *other, *handover;
    int64_t number = 0;
    int same;

    json_object_object_get_ex(answer, "instance", &instance);
    if (instance && !add(vtpm, "instance", json_object_get(instance)))
        return no_memory(c);
    if (!rule || !add(vtpm, "rule", json_object_new_string(rule)))
        return rule ? no_memory(c)
                    : xlv_fail(c->e, XLV_E_INVALID, "the daemon's answer names no rule");
    if (!strcmp(rule, "refused"))
        return conclude(c, vtpm, XLV_CHECK_REFUSED, "refused: %s",
                        reason ? reason : "by the configured policy");
    if (json_object_object_get_ex(instance, "number", &value))
        number = json_object_get_int64(value);
    version = member(instance, "tpm_version");
    life = member(instance, "life");
    other = member(instance, "uuid");
    same = earlier(c, number, uuid);
    if (same >= 0)
        return conclude(c, vtpm, XLV_CHECK_REFUSED,
                        "refused: device %d of this domain has the same TPM, and a TPM serves one "
                        "device at a time",
                        same);
    /* one that is departing may come back at once, see admission.c */
    handover = json_object_object_get_ex(instance, "handover", &value) ? member(value, "state")
                                                                       : NULL;
    if (handover && (!strcmp(handover, xlv_handover_name(XLV_HANDOVER_DEPARTED)) ||
                     !strcmp(handover, xlv_handover_name(XLV_HANDOVER_ARRIVING)))) {
        other = member(value, "other_host");
        return conclude(c, vtpm, XLV_CHECK_REFUSED,
                        "refused: instance %" PRId64 " is %s (other host: %s); see HANDOVER in "
                        "xl-vtpm-move(8)",
                        number, handover, other ? other : "?");
    }
    if (life && !strcmp(life, "quarantined"))
        return conclude(c, vtpm, XLV_CHECK_REFUSED,
                        "refused: instance %" PRId64 " is quarantined; xl-vtpm show %" PRId64
                        " says more",
                        number, number);
    if (!strcmp(rule, "uuid"))
        return conclude(c, vtpm, XLV_CHECK_FINE,
                        "instance %" PRId64 " (TPM %s, %s), whose uuid this is", number, version,
                        life);
    if (!strcmp(rule, "binding") && uuid)
        return conclude(c, vtpm, XLV_CHECK_FINE,
                        "instance %" PRId64 " (TPM %s, %s, uuid %s): no instance has the uuid of "
                        "the line, and domain %s, device %u is bound to this one; for a new TPM "
                        "run xl-vtpm create %s first",
                        number, version, life, other ? other : "?", c->domain, devid, uuid);
    if (!strcmp(rule, "binding"))
        return conclude(c, vtpm, XLV_CHECK_FINE,
                        "instance %" PRId64 " (TPM %s, %s, uuid %s): no uuid given, so xl makes "
                        "up a random one at each create, and the TPM is kept by the binding of "
                        "domain %s, device %u",
                        number, version, life, other ? other : "?", c->domain, devid);
    if (uuid)
        return conclude(c, vtpm, XLV_CHECK_FINE,
                        "a new instance (TPM %s) with this uuid, made at the first create",
                        version);
    return conclude(c, vtpm, XLV_CHECK_FINE,
                    "a new instance (TPM %s), made at the first create: no uuid given, so xl makes "
                    "up a random one at each create, and the TPM is kept by binding it to domain "
                    "%s, device %u",
                    version, c->domain ? c->domain : "(no name)", devid);
}

static int ask(struct check *c, const char *uuid, unsigned devid, struct json_object **answer)
{
    struct json_object *request = json_object_new_object();
    int rc;

    if (!request || !add(request, "call", json_object_new_string("check")) ||
        (uuid && !add(request, "uuid", json_object_new_string(uuid))) ||
        (c->domain && !add(request, "domain", json_object_new_string(c->domain))) ||
        !add(request, "devid", json_object_new_int((int)devid)))
        rc = no_memory(c);
    else
        rc = xlv_client_call(c->client, request, answer, c->e);
    json_object_put(request);
    return rc;
}

/* Domain 0 is where we are; what another domain serves, its own daemon knows. */
static bool served_elsewhere(const struct xlv_spec *spec)
{
    return spec->backend_is_domid ? spec->backend_domid != 0 : strcmp(spec->backend, "Domain-0");
}

static int check_good(struct check *c, struct json_object *vtpm, const struct xlv_spec *spec,
                      unsigned devid)
{
    struct json_object *warnings = json_object_new_array(), *answer = NULL;
    char uuid[XLV_UUID_TEXT] = "";
    bool ok = warnings;
    int rc;

    for (unsigned i = 0; ok && i < spec->warning_count; i++)
        ok = append(warnings, xlv_json_text(spec->warnings[i]));
    ok = ok && add(vtpm, "warnings", json_object_get(warnings));
    json_object_put(warnings);
    if (spec->has_uuid)
        ok = ok && add(vtpm, "uuid", json_object_new_string(xlv_uuid_format(&spec->uuid, uuid)));
    else
        ok = ok && json_object_object_add(vtpm, "uuid", NULL) == 0;
    if (!ok)
        return no_memory(c);
    if (served_elsewhere(spec)) {
        rc = conclude(c, vtpm, XLV_CHECK_FINE,
                      "served by the xl-vtpmd of domain %s, which alone knows what this will get",
                      spec->backend);
        return rc || add(vtpm, "result", json_object_new_string("elsewhere")) ? rc : no_memory(c);
    }
    if (devid > XLV_DEVID_MAX)
        return conclude(c, vtpm, XLV_CHECK_REFUSED, "refused: devices are served up to number %u",
                        XLV_DEVID_MAX);
    rc = ask(c, spec->has_uuid ? uuid : NULL, devid, &answer);
    if (!rc)
        rc = explain(c, vtpm, answer, devid, spec->has_uuid ? uuid : NULL);
    json_object_put(answer);
    return rc;
}

static int check_entry(struct check *c, const char *text, unsigned devid)
{
    struct json_object *vtpm = json_object_new_object();
    struct xlv_error why = XLV_ERROR_INIT;
    struct xlv_spec spec;
    int rc;

    if (!vtpm || !add(vtpm, "devid", json_object_new_int64(devid)) ||
        !add(vtpm, "spec", xlv_json_text(text))) {
        json_object_put(vtpm);
        return no_memory(c);
    }
    rc = xlv_spec_parse(&spec, text, &why);
    if (rc == XLV_E_INVALID) {
        rc = conclude(c, vtpm, XLV_CHECK_WRONG, "xl refuses this: %s", why.text);
        if (!rc && (json_object_object_add(vtpm, "uuid", NULL) != 0 ||
                    !add(vtpm, "warnings", json_object_new_array())))
            rc = no_memory(c);
    } else if (rc) {
        xlv_fail(c->e, rc, "%s", why.text);
    } else {
        rc = check_good(c, vtpm, &spec, devid);
        xlv_spec_deinit(&spec);
    }
    if (rc) {
        json_object_put(vtpm);
        return rc;
    }
    return append(c->vtpms, vtpm) ? 0 : no_memory(c);
}

static int check_list(struct check *c, XLU_Config *config)
{
    XLU_ConfigList *list;
    const char *text;
    int entries = 0, i, rc = 0;

    switch (xlu_cfg_get_list(config, "vtpm", &list, &entries, 0)) {
    case 0:
        break;
    case ESRCH:
        return message(c, "there is no vtpm line: the domain gets no TPM");
    default:
        worse(c, XLV_CHECK_WRONG);
        return message(c, "vtpm is no list: xl ignores it and the domain gets no TPM; write "
                          "vtpm = [ 'backend=0,uuid=...' ]");
    }
    for (i = 0; !rc && (text = xlu_cfg_get_listitem(list, i)); i++)
        rc = check_entry(c, text, (unsigned)i);
    if (!rc && i < entries) {
        char sentence[160];

        snprintf(sentence, sizeof(sentence),
                 "entry %d of the vtpm list is itself a list: xl ignores it and all that follow",
                 i);
        worse(c, XLV_CHECK_WRONG);
        rc = message(c, sentence);
    }
    if (!rc && entries == 0)
        rc = message(c, "the vtpm list is empty: the domain gets no TPM");
    return rc;
}

static int read_file(const char *path, char **data, size_t *length, struct xlv_error *e)
{
    char *text XLV_FREE = NULL;
    int fd XLV_CLOSE = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    int rc;

    if (fd < 0 || fstat(fd, &st) < 0)
        return xlv_fail(e, errno == ENOENT ? XLV_E_NOT_FOUND : -errno, "%s cannot be opened: %s",
                        path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)XLV_CONFIG_FILE_MAX)
        return xlv_fail(e, XLV_E_INVALID, "%s is no file of at most %u bytes", path,
                        XLV_CONFIG_FILE_MAX);
    text = malloc((size_t)st.st_size + 1);
    if (!text)
        return xlv_fail(e, -ENOMEM, "no memory to read %s", path);
    rc = xlv_read_all(fd, text, (size_t)st.st_size);
    if (rc)
        return xlv_fail(e, rc, "%s cannot be read: %s", path, strerror(-rc));
    *length = (size_t)st.st_size;
    *data = text;
    text = NULL;
    return 0;
}

/* What libxlutil wrote, line by line, in front of our own messages. */
static int merge_messages(struct check *c, char *xl_said)
{
    struct json_object *all = json_object_new_array();
    char *next = NULL;
    bool ok = all;

    for (char *line = strtok_r(xl_said, "\n", &next); ok && line;
         line = strtok_r(NULL, "\n", &next))
        ok = append(all, xlv_json_text(line));
    for (size_t i = 0; ok && i < json_object_array_length(c->messages); i++)
        ok = append(all, json_object_get(json_object_array_get_idx(c->messages, i)));
    json_object_put(c->messages);
    c->messages = all;
    return ok ? 0 : no_memory(c);
}

static int check_config(struct check *c, XLU_Config *config, const char *data, size_t length)
{
    const char *name = NULL;
    int rc = 0;

    if (xlu_cfg_readdata(config, data, (int)length)) {
        worse(c, XLV_CHECK_WRONG);
        return message(c, "xl cannot read this file");
    }
    if (xlu_cfg_get_string(config, "name", &name, 0)) {
        worse(c, XLV_CHECK_WRONG);
        rc = message(c, "there is no name: xl refuses this (Domain name must be specified.)");
    }
    c->domain = name && name[0] ? name : NULL;
    return rc ? rc : check_list(c, config);
}

static int make_report(struct check *c, struct json_object **out)
{
    struct json_object *report = json_object_new_object();
    struct json_object *domain = c->domain ? xlv_json_text(c->domain) : NULL;

    if (report && add(report, "file", xlv_json_text(c->path)) && (domain || !c->domain) &&
        json_object_object_add(report, "domain", domain) == 0 &&
        add(report, "result", json_object_new_string(word(c->worst))) &&
        add(report, "messages", json_object_get(c->messages)) &&
        add(report, "vtpms", json_object_get(c->vtpms))) {
        *out = report;
        return 0;
    }
    json_object_put(report);
    return no_memory(c);
}

int xlv_check_file(struct xlv_client *client, const char *path, enum xlv_check_result *result,
                   struct json_object **report, struct xlv_error *e)
{
    struct check c = {
        .client = client,
        .path = path,
        .messages = json_object_new_array(),
        .vtpms = json_object_new_array(),
        .worst = XLV_CHECK_FINE,
        .e = e,
    };
    char *data XLV_FREE = NULL;
    char *said XLV_FREE = NULL;
    XLU_Config *config = NULL;
    FILE *listen = NULL;
    size_t length = 0, size;
    int rc;

    *report = NULL;
    rc = c.messages && c.vtpms ? read_file(path, &data, &length, e) : no_memory(&c);
    if (!rc) {
        listen = open_memstream(&said, &size);
        config = listen ? xlu_cfg_init(listen, path) : NULL;
        rc = config ? check_config(&c, config, data, length) : no_memory(&c);
    }
    if (listen && fflush(listen) != 0 && !rc)
        rc = no_memory(&c);
    if (!rc)
        rc = merge_messages(&c, said);
    if (!rc)
        rc = make_report(&c, report);
    if (!rc)
        *result = c.worst;
    if (config)
        xlu_cfg_destroy(config);
    if (listen)
        fclose(listen);
    json_object_put(c.messages);
    json_object_put(c.vtpms);
    return rc;
}
