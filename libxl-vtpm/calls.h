/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The calls of the control socket, answered: shared by the daemon (which adds
 * what only it knows) and the command where no daemon runs. Also the one place
 * that knows the JSON shape of an instance. Shapes: include/control.h.
 */
#ifndef XLV_CALLS_H
#define XLV_CALLS_H

#include "common/error.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/settings.h"

struct json_object;

struct xlv_calls {
    struct xlv_registry *registry; /* NULL: there is none yet, nothing is known */
    const struct xlv_settings *settings;

    /* The daemon's part; each may be NULL. All return 0 or a code and fill e. */

    /* Sets "device" and "last_refusal" of json (both are null already). */
    int (*decorate)(const struct xlv_instance *instance, struct json_object *json, void *opaque,
                    struct xlv_error *e);
    /* An instance was made by "create", or let out of quarantine: manufacture its TPM. */
    int (*created)(const struct xlv_instance *instance, void *opaque, struct xlv_error *e);
    /* The result of "status"; *result goes to the caller. */
    int (*status)(struct json_object **result, void *opaque, struct xlv_error *e);
    void *opaque;
};

/* Answers one request; always a reply object, NULL only without memory. */
struct json_object *xlv_calls_answer(const struct xlv_calls *calls, struct json_object *request);

/* An instance as JSON with its bindings (registry may be NULL: none shown). */
int xlv_instance_to_json(struct xlv_registry *registry, const struct xlv_instance *instance,
                         struct json_object **json, struct xlv_error *e);

/* Unix time as RFC 3339 in UTC; 0 gives JSON null (NULL). */
struct json_object *xlv_json_time(int64_t seconds);

#endif
