/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: the registry's side of instances. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "5/0 connected", or "-"; text is room for it. */
static const char *device_of(struct json_object *instance, char *text, size_t room)
{
    struct json_object *device = member(instance, "device");

    if (!device)
        return "-";
    snprintf(text, room, "%s/%s %s", text_of(device, "domid", "?"), text_of(device, "devid", "?"),
             text_of(device, "state", ""));
    return text;
}

/* The domain that used it last, else one that is bound to it. */
static const char *domain_of(struct json_object *instance)
{
    struct json_object *bindings = member(instance, "bindings");

    if (xlv_json_count(bindings))
        return text_of(instance, "last_domain",
                       text_of(json_object_array_get_idx(bindings, 0), "domain", "-"));
    return text_of(instance, "last_domain", "-");
}

static void print_instance(struct json_object *instance)
{
    static const struct {
        const char *name, *key, *none;
    } fields[] = {
        { "number", "number", "-" },       { "uuid", "uuid", "-" },
        { "label", "label", "-" },         { "TPM version", "tpm_version", "-" },
        { "life", "life", "-" },           { "created", "created", "-" },
        { "last used", "last_used", "never" }, { "last domain", "last_domain", "-" },
        { "its uuid", "last_domain_uuid", "-" }, { "directory", "directory", "-" },
    };
    struct json_object *bindings = member(instance, "bindings");
    struct json_object *device = member(instance, "device");
    struct json_object *refusal = member(instance, "last_refusal");
    struct json_object *suspended = member(instance, "suspended");
    struct json_object *handover = member(instance, "handover");
    struct json_object *endorsement = member(instance, "endorsement");
    char text[XLV_TEXT_MAX];

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        print_field(fields[i].name, text_of(instance, fields[i].key, fields[i].none));
    for (size_t i = 0; i < xlv_json_count(endorsement); i++) {
        struct json_object *ek = json_object_array_get_idx(endorsement, i);
        const char *certificate = text_of(ek, "certificate_fingerprint", NULL);

        snprintf(text, sizeof(text), "%s, %s SHA-256 %s", text_of(ek, "kind", "?"),
                 certificate ? "certificate" : "public key",
                 certificate ? certificate : text_of(ek, "key_fingerprint", "?"));
        print_field(strcmp(text_of(ek, "kind", ""), "platform") ? "EK" : "platform", text);
    }
    for (size_t i = 0; i < xlv_json_count(bindings); i++) {
        struct json_object *binding = json_object_array_get_idx(bindings, i);

        snprintf(text, sizeof(text), "%s, device %s (%s)", text_of(binding, "domain", "?"),
                 text_of(binding, "devid", "?"), text_of(binding, "origin", "?"));
        print_field("bound to", text);
    }
    if (json_object_is_type(device, json_type_object)) {
        snprintf(text, sizeof(text), "domain %s, device %s", text_of(device, "domid", "?"),
                 text_of(device, "devid", "?"));
        print_field("serves", text);
        json_object_object_foreach(device, key, value) {
            if (strcmp(key, "domid") && strcmp(key, "devid")) {
                snprintf(text, sizeof(text), "  %s", key);
                print_field(text, value ? json_object_get_string(value) : "-");
            }
        }
    }
    if (suspended) {
        snprintf(text, sizeof(text), "%s, domain %s: its state is kept for the restore%s",
                 text_of(suspended, "time", "?"), text_of(suspended, "domid", "?"),
                 json_object_get_boolean(member(suspended, "certain"))
                     ? "" : ", but it is not certain which save file it is of");
        print_field("suspended", text);
    }
    if (member(instance, "accept")) {
        snprintf(text, sizeof(text), "%s, at the next restore", text_of(instance, "accept", "?"));
        print_field("accept", text);
    }
    if (handover) {
        snprintf(text, sizeof(text), "%s, other host %s, token %s: see xl-vtpm-move(8)",
                 text_of(handover, "state", "?"), text_of(handover, "other_host", "?"),
                 text_of(handover, "token", "?"));
        print_field("handover", text);
    }
    if (member(instance, "measure_boot"))
        print_field("measure boot", text_of(instance, "measure_boot", "?"));
    if (member(instance, "late_attach")) {
        snprintf(text, sizeof(text), "%s: its domain ran already, its PCRs tell nothing of the "
                 "boot before", text_of(instance, "late_attach", "?"));
        print_field("late attach", text);
    }
    if (member(instance, "deleted")) {
        snprintf(text, sizeof(text), "%s: xl-vtpm undelete brings it back",
                 text_of(instance, "deleted", "?"));
        print_field("deleted", text);
    }
    if (refusal) {
        snprintf(text, sizeof(text), "%s: domain %s, device %s: %s", text_of(refusal, "time", "?"),
                 text_of(refusal, "domid", "?"), text_of(refusal, "devid", "?"),
                 text_of(refusal, "reason", "?"));
        print_field("last refusal", text);
    }
}

static int print_list(struct run *run, struct json_object *list)
{
    static const char *const head[] = { "Number", "UUID",   "TPM",       "Life",
                                        "Domain", "Device", "Last used", "Label" };
    enum { COLUMNS = sizeof(head) / sizeof(head[0]), DEVICE_MAX = 96 };
    size_t count = xlv_json_count(list);
    const char **cells = calloc((count + 1) * COLUMNS, sizeof(*cells));
    char *devices = calloc(count + 1, DEVICE_MAX);

    if (!cells || !devices) {
        free(cells);
        free(devices);
        return xlv_fail(&run->e, -ENOMEM, "no memory for the list");
    }
    memcpy(cells, head, sizeof(head));
    for (size_t i = 0; i < count; i++) {
        struct json_object *instance = json_object_array_get_idx(list, i);
        const char **row = cells + (i + 1) * COLUMNS;

        row[0] = text_of(instance, "number", "?");
        row[1] = text_of(instance, "uuid", "?");
        row[2] = text_of(instance, "tpm_version", "?");
        row[3] = text_of(instance, "life", "?");
        row[4] = domain_of(instance);
        row[5] = device_of(instance, devices + i * DEVICE_MAX, DEVICE_MAX);
        row[6] = text_of(instance, "last_used", "never");
        row[7] = text_of(instance, "label", "-");
    }
    print_table(cells, count + 1, COLUMNS);
    free(cells);
    free(devices);
    return 0;
}

int run_list(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("list");
    int rc;

    if (run->deleted)
        put(request, "deleted", json_object_new_boolean(true));
    rc = ask(run, request, result);
    if (!rc && !json_object_is_type(*result, json_type_array))
        rc = xlv_fail(&run->e, -EPROTO, "the daemon's answer is no list");
    return rc || run->json ? rc : print_list(run, *result);
}

static int put_device(struct run *run, struct json_object *request, const char *domain)
{
    long devid = 0;

    if (run->devid) {
        char *rest;

        devid = strtol(run->devid, &rest, 10);
        if (run->devid[0] < '0' || run->devid[0] > '9' || *rest || devid > (long)XLV_DEVID_MAX)
            return xlv_fail(&run->e, XLV_E_INVALID, "--devid %s: a number from 0 to %u is needed",
                            run->devid, XLV_DEVID_MAX);
    }
    put(request, "domain", json_object_new_string(domain));
    put(request, "devid", json_object_new_int64(devid));
    return 0;
}

int run_show(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("show");
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    if (!rc && !run->json)
        print_instance(*result);
    return rc;
}

int run_create(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("create");
    int rc;

    if (run->count)
        put(request, "uuid", json_object_new_string(run->args[0]));
    if (run->tpm_version)
        put(request, "tpm_version", json_object_new_string(run->tpm_version));
    if (run->label)
        put(request, "label", json_object_new_string(run->label));
    rc = ask(run, request, result);
    /* for scripts: the uuid and nothing else */
    if (!rc && !run->json)
        puts(text_of(*result, "uuid", "?"));
    return rc;
}

int run_release(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("release");
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    if (!rc && !run->json)
        printf("instance %s, uuid %s, is served again\n", text_of(*result, "number", "?"),
               text_of(*result, "uuid", "?"));
    return rc;
}

int run_label(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("label");

    put_instance(request, run->args[0]);
    put(request, "label", json_object_new_string(run->args[1]));
    return ask(run, request, result);
}

/* "instance 3 (uuid, label, last domain)" for a question about it. */
static int describe(struct run *run, char *text, size_t room)
{
    struct json_object *request = request_of("show"), *shown = NULL;
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, &shown);
    if (!rc)
        snprintf(text, room, "instance %s (%s, label %s, last domain %s)",
                 text_of(shown, "number", "?"), text_of(shown, "uuid", "?"),
                 text_of(shown, "label", "none"), domain_of(shown));
    json_object_put(shown);
    return rc;
}

int run_delete(struct run *run, struct json_object **result)
{
    char what[2 * XLV_LABEL_MAX + 128], question[2 * XLV_LABEL_MAX + 512];
    struct json_object *request;
    int rc = describe(run, what, sizeof(what));

    if (rc)
        return rc;
    snprintf(question, sizeof(question), "%s is deleted: its guest is refused its TPM, and xl-vtpm "
             "undelete brings it back until it is purged.", what);
    rc = confirm(run, question);
    if (rc)
        return rc;
    request = request_of("delete");
    put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    if (!rc && !run->json)
        printf("instance %s, uuid %s, is deleted; xl-vtpm undelete %s brings it back\n",
               text_of(*result, "number", "?"), text_of(*result, "uuid", "?"),
               text_of(*result, "number", "?"));
    return rc;
}

int run_undelete(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("undelete");
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    if (!rc && !run->json)
        printf("instance %s, uuid %s, is there again\n", text_of(*result, "number", "?"),
               text_of(*result, "uuid", "?"));
    return rc;
}

int run_purge(struct run *run, struct json_object **result)
{
    char what[2 * XLV_LABEL_MAX + 128], question[2 * XLV_LABEL_MAX + 512];
    struct json_object *request;
    int64_t purged = 0;
    int rc = 0;

    if (run->expired == (run->count == 1))
        return xlv_fail(&run->e, XLV_E_INVALID, "purge needs an instance, or --expired");
    if (!run->expired) {
        rc = describe(run, what, sizeof(what));
        if (rc)
            return rc;
    }
    snprintf(question, sizeof(question), "%s is removed for ever, with all that is sealed to it.",
             run->expired ? "What was deleted long enough ago" : what);
    rc = confirm(run, question);
    if (rc)
        return rc;
    do {
        json_object_put(*result);
        *result = NULL;
        request = request_of("purge");
        if (run->expired)
            put(request, "expired", json_object_new_boolean(true));
        else
            put_instance(request, run->args[0]);
        if (purged)
            put(request, "before", json_object_new_int64(purged));
        rc = ask(run, request, result);
        if (rc)
            return rc;
        purged += json_object_get_int64(member(*result, "purged"));
    } while (json_object_get_boolean(member(*result, "more")));
    json_object_put(*result);
    *result = json_object_new_object();
    put(*result, "purged", json_object_new_int64(purged));
    if (!run->json)
        printf("purged: %s\n", text_of(*result, "purged", "?"));
    return rc;
}

int run_accept(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("accept");
    const char *word = run->reset ? "reset" : run->kept ? "kept" : "none";
    int rc;

    put_instance(request, run->args[0]);
    put(request, "accept", json_object_new_string(word));
    rc = ask(run, request, result);
    if (!rc && !run->json)
        printf("instance %s, uuid %s: %s\n", text_of(*result, "number", "?"),
               text_of(*result, "uuid", "?"),
               run->reset  ? "the next restored domain gets its TPM as after a reset"
               : run->kept ? "the next restored domain goes on from the kept state"
                           : "nothing is accepted any more");
    return rc;
}

int run_bind(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("bind");
    int rc = put_device(run, request, run->args[0]);

    if (rc) {
        json_object_put(request);
        return rc;
    }
    put_instance(request, run->args[1]);
    rc = ask(run, request, result);
    if (!rc && !run->json) {
        print_text(run->args[0]);
        printf(", device %s: instance %s, uuid %s\n", run->devid ? run->devid : "0",
               text_of(*result, "number", "?"), text_of(*result, "uuid", "?"));
    }
    return rc;
}

int run_unbind(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("unbind");
    int rc = put_device(run, request, run->args[0]);

    if (rc) {
        json_object_put(request);
        return rc;
    }
    return ask(run, request, result);
}
