/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The spec of a vTPM in a domain's configuration: see spec.h. */
#include "config.h"

#include "libxl-vtpm/spec.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "include/limits.h"

static int warn(struct xlv_spec *spec, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int warn(struct xlv_spec *spec, const char *fmt, ...)
{
    struct xlv_error text = XLV_ERROR_INIT;
    char *copy, sentence[XLV_TEXT_MAX];
    va_list ap;

    /* duplicates may be many; the first ones are enough to look again */
    if (spec->warning_count == XLV_SPEC_WARNINGS_MAX)
        return 0;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, ap);
    va_end(ap);
    xlv_fail(&text, 0, "%s", sentence);
    copy = strdup(text.text);
    if (!copy)
        return -ENOMEM;
    spec->warnings[spec->warning_count++] = copy;
    return 0;
}

/* libxl_domain_qualifier_to_domid: a string without a non-digit is a number. */
static void classify_backend(struct xlv_spec *spec)
{
    spec->backend_is_domid = spec->backend[strspn(spec->backend, "0123456789")] == '\0';
    spec->backend_domid =
        spec->backend_is_domid ? (uint32_t)strtoul(spec->backend, NULL, 10) : 0;
}

static int take_backend(struct xlv_spec *spec, const char *value)
{
    int rc = 0;

    if (spec->backend)
        rc = warn(spec, "backend is given twice; xl takes the last one, \"%.80s\"", value);
    free(spec->backend);
    spec->backend = strdup(value);
    return rc || !spec->backend ? -ENOMEM : 0;
}

static int take_uuid(struct xlv_spec *spec, const char *value, bool *seen, struct xlv_error *e)
{
    int rc = 0;

    if (xlv_uuid_parse(&spec->uuid, value))
        return xlv_fail(e, XLV_E_INVALID,
                        "Failed to parse vtpm UUID: %.360s (36 characters are needed, as in "
                        "dcdb124b-9fed-4040-b149-dd2dfd8d094c, and no space behind them)",
                        value);
    if (*seen)
        rc = warn(spec, "uuid is given twice; xl takes the last one, %.80s", value);
    *seen = true;
    return rc;
}

/* What is wrong with the backend as it stands at the end. */
static int judge_backend(struct xlv_spec *spec)
{
    size_t length = strlen(spec->backend);
    unsigned long long number;

    if (!length)
        return warn(spec, "backend has no value; libxl takes that for domain 0");
    if (!spec->backend_is_domid) {
        if (spec->backend[0] == ' ' || spec->backend[length - 1] == ' ')
            return warn(spec, "the spaces belong to the backend's name, \"%.80s\"; libxl will "
                              "look for a domain that is called so",
                        spec->backend);
        if (length > XLV_DOMAIN_NAME_MAX)
            return warn(spec, "no domain has a name of %zu bytes", length);
        return 0;
    }
    errno = 0;
    number = strtoull(spec->backend, NULL, 10);
    if (errno || number > XLV_DOMID_MAX)
        return warn(spec, "there is no domain %.80s; domain numbers end at %u", spec->backend,
                    XLV_DOMID_MAX);
    return 0;
}

static int parse(struct xlv_spec *spec, char *text, struct xlv_error *e)
{
    char *next = NULL, *part;
    bool uuid_seen = false;
    int rc = 0;

    for (part = strtok_r(text, ",", &next); part && !rc; part = strtok_r(NULL, ",", &next)) {
        char *equals;

        part += strspn(part, " ");
        equals = strchr(part, '=');
        if (!equals) {
            char *rest = strtok_r(NULL, "", &next);
            /* what strtok() would still find: nothing where only commas follow */
            bool more = rest && rest[strspn(rest, ",")];

            if (*part)
                rc = warn(spec, "\"%.80s\" has no '='; xl ignores it and all that follows it",
                          part);
            else if (more)
                rc = warn(spec, "xl stops reading at the blank part and ignores \"%.80s\"",
                          rest + strspn(rest, ","));
            break;
        }
        *equals = '\0';
        if (!strcmp(part, "backend"))
            rc = take_backend(spec, equals + 1);
        else if (!strcmp(part, "uuid"))
            rc = take_uuid(spec, equals + 1, &uuid_seen, e);
        else
            rc = xlv_fail(e, XLV_E_INVALID,
                          "Unknown string `%.360s' in vtpm spec (xl knows backend= and uuid= only, "
                          "in lower case, with no space around the '=')",
                          part);
    }
    if (!rc && !spec->backend)
        rc = xlv_fail(e, XLV_E_INVALID,
                      "vtpm spec missing required backend field! (write backend=0 where xl-vtpmd "
                      "runs in domain 0)");
    if (rc)
        return rc;
    classify_backend(spec);
    spec->has_uuid = uuid_seen && !xlv_uuid_is_nil(&spec->uuid);
    if (uuid_seen && !spec->has_uuid)
        rc = warn(spec, "the nil uuid counts as none; libxl makes up a random one");
    return rc ? rc : judge_backend(spec);
}

int xlv_spec_parse(struct xlv_spec *spec, const char *text, struct xlv_error *e)
{
    char *copy XLV_FREE = strdup(text);
    int rc;

    *spec = (struct xlv_spec){ .backend = NULL };
    rc = copy ? parse(spec, copy, e) : -ENOMEM;
    if (!rc && strlen(text) > XLV_SPEC_MAX)
        rc = warn(spec, "the entry is %zu bytes long", strlen(text));
    if (rc == -ENOMEM)
        xlv_fail(e, rc, "no memory for a vtpm spec");
    if (rc)
        xlv_spec_deinit(spec);
    return rc;
}

void xlv_spec_deinit(struct xlv_spec *spec)
{
    free(spec->backend);
    for (unsigned i = 0; i < spec->warning_count; i++)
        free(spec->warnings[i]);
    *spec = (struct xlv_spec){ .backend = NULL };
}

int xlv_spec_format(const struct xlv_spec *spec, char **text, struct xlv_error *e)
{
    char uuid[XLV_UUID_TEXT];
    int n;

    *text = NULL;
    if (strchr(spec->backend, ','))
        return xlv_fail(e, XLV_E_INVALID,
                        "a backend with a comma in its name, \"%.80s\", cannot be written in a "
                        "vtpm spec",
                        spec->backend);
    if (spec->has_uuid)
        n = asprintf(text, "backend=%s,uuid=%s", spec->backend,
                     xlv_uuid_format(&spec->uuid, uuid));
    else
        n = asprintf(text, "backend=%s", spec->backend);
    if (n >= 0)
        return 0;
    *text = NULL;
    return xlv_fail(e, -ENOMEM, "no memory for a vtpm spec");
}
