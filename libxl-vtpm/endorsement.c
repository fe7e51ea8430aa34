/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Endorsement keys and certificates as JSON: see endorsement.h. Knows no cryptography: what
 * is printed was worked out when it was made. */
#include "config.h"

#include "libxl-vtpm/endorsement.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEM_LINE 64u

static bool add(struct json_object *object, const char *key, struct json_object *value)
{
    if (value && json_object_object_add(object, key, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

/* RFC 7468; NULL: no memory. */
static struct json_object *to_pem(const char *label, const struct xlv_document *d)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[2 * XLV_CERTIFICATE_MAX], *p = text;
    size_t column = 0;

    p += sprintf(p, "-----BEGIN %s-----\n", label);
    for (size_t i = 0; i < d->length; i += 3) {
        size_t left = d->length - i;
        uint32_t three = (uint32_t)d->der[i] << 16 | (left > 1 ? (uint32_t)d->der[i + 1] << 8 : 0) |
                         (left > 2 ? d->der[i + 2] : 0);

        *p++ = digits[three >> 18];
        *p++ = digits[three >> 12 & 63];
        *p++ = left > 1 ? digits[three >> 6 & 63] : '=';
        *p++ = left > 2 ? digits[three & 63] : '=';
        column += 4;
        if (column == PEM_LINE || left <= 3) {
            *p++ = '\n';
            column = 0;
        }
    }
    sprintf(p, "-----END %s-----\n", label);
    return json_object_new_string(text);
}

static struct json_object *one(const struct xlv_endorsement *all, unsigned kind, bool pem)
{
    const struct xlv_document *key = kind < XLV_EKS ? &all->key[kind] : NULL;
    const struct xlv_document *certificate = &all->certificate[kind];
    struct json_object *json = json_object_new_object();
    bool good = json && add(json, "kind", json_object_new_string(xlv_certificate_name(kind)));

    if (good && key && key->length)
        good = add(json, "key_fingerprint", json_object_new_string(key->fingerprint)) &&
               (!pem || add(json, "public_key", to_pem("PUBLIC KEY", key)));
    if (good && certificate->serial[0])
        good = add(json, "serial", json_object_new_string(certificate->serial));
    if (good && certificate->length)
        good = add(json, "certificate_fingerprint",
                   json_object_new_string(certificate->fingerprint)) &&
               (!pem || add(json, "certificate", to_pem("CERTIFICATE", certificate)));
    if (good)
        return json;
    json_object_put(json);
    return NULL;
}

int xlv_endorsement_to_json(struct xlv_registry *registry, uint64_t number, bool pem,
                            struct json_object **array, struct xlv_error *e)
{
    struct xlv_endorsement *all = malloc(sizeof(*all));
    struct json_object *list = json_object_new_array();
    int rc = all && list ? xlv_registry_endorsement(registry, number, all, e) : -ENOMEM;

    for (unsigned i = 0; !rc && i < XLV_CERTIFICATES; i++) {
        struct json_object *json;

        if (!(i < XLV_EKS && all->key[i].length) && !all->certificate[i].length)
            continue;
        json = one(all, i, pem);
        if (!json || json_object_array_add(list, json) != 0) {
            json_object_put(json);
            rc = -ENOMEM;
        }
    }
    free(all);
    if (rc) {
        json_object_put(list);
        list = NULL;
    }
    *array = list;
    return rc == -ENOMEM ? xlv_fail(e, rc, "no memory for an answer") : rc;
}
