/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xl-vtpm: the administrator's command. A table of commands, one place that
 * parses options, and a printer for people beside --json, which prints what
 * the control protocol gave. All knowledge is the daemon's or the registry's;
 * recover and rekey work on the states themselves, doctor looks at the host, each
 * in a room of its own.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "common/error.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/uuid.h"
#include "libxl-vtpm/check.h"
#include "libxl-vtpm/client.h"
#include "libxl-vtpm/doctor.h"
#include "libxl-vtpm/recover.h"
#include "libxl-vtpm/rekey.h"
#include "libxl-vtpm/settings.h"
#include "libxl-vtpm/utf8.h"

/* Documented in xl-vtpm(8). */
enum exit_code {
    EXIT_FINE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_FOUND = 3,
    EXIT_REFUSED = 4,
    EXIT_INVALID = 5,
    EXIT_UNFINISHED = 6,
};

static int exit_code_of(int rc)
{
    switch (rc) {
    case 0:
        return EXIT_FINE;
    case XLV_E_NOT_FOUND:
        return EXIT_NOT_FOUND;
    case XLV_E_EXISTS:
    case XLV_E_IN_USE:
    case XLV_E_REFUSED:
        return EXIT_REFUSED;
    case XLV_E_INVALID:
        return EXIT_INVALID;
    case XLV_E_CONFLICT:
        return EXIT_UNFINISHED;
    default:
        return EXIT_FAILED;
    }
}

/* What one run was asked for, and what it works with. */
struct run {
    bool json, verbose, offline, yes, release, shown, reset, kept;
    const char *config, *tpm_version, *label, *devid, *use_slot;
    char **args; /* behind the command's name */
    int count;
    const struct xlv_settings *settings;
    struct xlv_client *client;
    struct xlv_error e;
};

/*
 * JSON
 */

static struct json_object *member(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(json, key, &value);
    return value;
}

/* Text or number as text; fallback for null, missing and "". Borrowed. */
static const char *text_of(struct json_object *json, const char *key, const char *fallback)
{
    struct json_object *value = member(json, key);
    const char *text = value ? json_object_get_string(value) : NULL;

    return text && text[0] ? text : fallback;
}

static void print_json(struct json_object *json)
{
    puts(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY |
                                                  JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* Takes over value; NULL is left out. Without memory there is nothing left to do. */
static void put(struct json_object *request, const char *key, struct json_object *value)
{
    if (value && json_object_object_add(request, key, value) == 0)
        return;
    fputs("xl-vtpm: no memory\n", stderr);
    exit(EXIT_FAILED);
}

static struct json_object *request_of(const char *call)
{
    struct json_object *request = json_object_new_object();

    put(request, "call", json_object_new_string(call));
    return request;
}

/* Frees request. */
static int ask(struct run *run, struct json_object *request, struct json_object **result)
{
    int rc = xlv_client_call(run->client, request, result, &run->e);

    json_object_put(request);
    return rc;
}

/*
 * Printing for people
 */

/* Terminal columns: characters of UTF-8; good enough for names and labels. */
static size_t width_of(const char *text)
{
    size_t width = 0;

    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

/* A domain chooses its own name: nothing in it may reach the terminal as a control. */
static void print_text(const char *text)
{
    const char *end = text + strlen(text);

    while (text < end) {
        size_t n = xlv_utf8_character(text, end);
        bool control = n == 1 ? (unsigned char)*text < ' ' || *text == 0x7f
                              : n == 2 && (unsigned char)text[0] == 0xc2 &&
                                    (unsigned char)text[1] < 0xa0;

        if (!n || control)
            putchar('?');
        else
            fwrite(text, 1, n, stdout);
        text += n ? n : 1;
    }
}

/* The cells are borrowed; the last column is not padded. */
static void print_row(const char *const *cells, const size_t *widths, size_t columns)
{
    for (size_t i = 0; i < columns; i++) {
        print_text(cells[i]);
        if (i + 1 < columns)
            printf("%*s", (int)(widths[i] - width_of(cells[i]) + 2), "");
    }
    putchar('\n');
}

static void print_table(const char *const *rows, size_t row_count, size_t columns)
{
    size_t widths[16] = { 0 };

    for (size_t i = 0; i < row_count * columns; i++)
        if (widths[i % columns] < width_of(rows[i]))
            widths[i % columns] = width_of(rows[i]);
    for (size_t i = 0; i < row_count; i++)
        print_row(rows + i * columns, widths, columns);
}

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

    if (json_object_is_type(bindings, json_type_array) && json_object_array_length(bindings))
        return text_of(instance, "last_domain",
                       text_of(json_object_array_get_idx(bindings, 0), "domain", "-"));
    return text_of(instance, "last_domain", "-");
}

static void print_field(const char *name, const char *text)
{
    printf("%-14s ", name);
    print_text(text);
    putchar('\n');
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
    char text[XLV_TEXT_MAX];

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        print_field(fields[i].name, text_of(instance, fields[i].key, fields[i].none));
    for (size_t i = 0; bindings && i < json_object_array_length(bindings); i++) {
        struct json_object *binding = json_object_array_get_idx(bindings, i);

        snprintf(text, sizeof(text), "%s, device %s (%s)", text_of(binding, "domain", "?"),
                 text_of(binding, "devid", "?"), text_of(binding, "origin", "?"));
        print_field("bound to", text);
    }
    if (device) {
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
    if (member(instance, "late_attach")) {
        snprintf(text, sizeof(text), "%s: its domain ran already, its PCRs tell nothing of the "
                 "boot before", text_of(instance, "late_attach", "?"));
        print_field("late attach", text);
    }
    if (refusal) {
        snprintf(text, sizeof(text), "%s: domain %s, device %s: %s", text_of(refusal, "time", "?"),
                 text_of(refusal, "domid", "?"), text_of(refusal, "devid", "?"),
                 text_of(refusal, "reason", "?"));
        print_field("last refusal", text);
    }
}

/*
 * The commands
 */

static int print_list(struct run *run, struct json_object *list)
{
    static const char *const head[] = { "Number", "UUID",   "TPM",       "Life",
                                        "Domain", "Device", "Last used", "Label" };
    enum { COLUMNS = sizeof(head) / sizeof(head[0]), DEVICE_MAX = 96 };
    size_t count = json_object_array_length(list);
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

static int run_list(struct run *run, struct json_object **result)
{
    int rc = ask(run, request_of("list"), result);

    if (!rc && !json_object_is_type(*result, json_type_array))
        rc = xlv_fail(&run->e, -EPROTO, "the daemon's answer is no list");
    return rc || run->json ? rc : print_list(run, *result);
}

/* UUID or NUMBER of an instance, into a request. */
static void put_instance(struct json_object *request, const char *arg)
{
    /* longer numbers are nobody's; as a uuid they are refused with that sentence */
    if (arg[0] && strlen(arg) < 18 && !arg[strspn(arg, "0123456789")])
        put(request, "number", json_object_new_int64(strtoll(arg, NULL, 10)));
    else
        put(request, "uuid", json_object_new_string(arg));
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

static int run_show(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("show");
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    if (!rc && !run->json)
        print_instance(*result);
    return rc;
}

static int run_create(struct run *run, struct json_object **result)
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

static int run_release(struct run *run, struct json_object **result)
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

static int run_accept(struct run *run, struct json_object **result)
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

static int run_bind(struct run *run, struct json_object **result)
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

static int run_unbind(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("unbind");
    int rc = put_device(run, request, run->args[0]);

    if (rc) {
        json_object_put(request);
        return rc;
    }
    return ask(run, request, result);
}

static void print_check(struct json_object *report)
{
    struct json_object *messages = member(report, "messages"), *vtpms = member(report, "vtpms");

    print_text(text_of(report, "file", "?"));
    fputs(": domain ", stdout);
    print_text(text_of(report, "domain", "(no name)"));
    putchar('\n');
    for (size_t i = 0; i < json_object_array_length(messages); i++) {
        fputs("  ", stdout);
        print_text(json_object_get_string(json_object_array_get_idx(messages, i)));
        putchar('\n');
    }
    for (size_t i = 0; i < json_object_array_length(vtpms); i++) {
        struct json_object *vtpm = json_object_array_get_idx(vtpms, i);
        struct json_object *warnings = member(vtpm, "warnings");

        printf("  device %s: '", text_of(vtpm, "devid", "?"));
        print_text(text_of(vtpm, "spec", ""));
        fputs("'\n    ", stdout);
        print_text(text_of(vtpm, "text", "?"));
        putchar('\n');
        for (size_t k = 0; k < json_object_array_length(warnings); k++) {
            fputs("    warning: ", stdout);
            print_text(json_object_get_string(json_object_array_get_idx(warnings, k)));
            putchar('\n');
        }
    }
}

/* The verdict is the exit code; the report is printed whatever it is. */
static int run_check(struct run *run, struct json_object **result)
{
    enum xlv_check_result verdict;
    int rc = xlv_check_file(run->client, run->args[0], &verdict, result, &run->e);

    if (rc)
        return rc;
    if (run->json)
        print_json(*result);
    else
        print_check(*result);
    json_object_put(*result);
    *result = NULL;
    return verdict == XLV_CHECK_FINE ? 0 : verdict == XLV_CHECK_REFUSED ? XLV_E_REFUSED
                                                                        : XLV_E_INVALID;
}

static int run_status(struct run *run, struct json_object **result)
{
    int rc = ask(run, request_of("status"), result);
    struct json_object *refusals;

    if (rc || run->json)
        return rc;
    json_object_object_foreach(*result, key, value)
        if (!json_object_is_type(value, json_type_array) &&
            !json_object_is_type(value, json_type_object))
            print_field(key, value ? json_object_get_string(value) : "-");
    refusals = member(*result, "refusals");
    for (size_t i = 0; refusals && i < json_object_array_length(refusals); i++) {
        struct json_object *refusal = json_object_array_get_idx(refusals, i);
        char text[2 * XLV_TEXT_MAX];

        snprintf(text, sizeof(text), "%s: domain %s, device %s: %s", text_of(refusal, "time", "?"),
                 text_of(refusal, "domid", "?"), text_of(refusal, "devid", "?"),
                 text_of(refusal, "reason", "?"));
        print_field("refused", text);
    }
    return 0;
}

static void print_doctor(struct json_object *report)
{
    struct json_object *checks = member(report, "checks");
    unsigned warnings = 0, problems = 0;

    for (size_t i = 0; i < json_object_array_length(checks); i++) {
        struct json_object *check = json_object_array_get_idx(checks, i);
        const char *result = text_of(check, "result", "?"), *advice = text_of(check, "advice", "");

        warnings += !strcmp(result, "warning");
        problems += !strcmp(result, "problem");
        printf("%-8s ", result);
        print_text(text_of(check, "check", "?"));
        fputs(": ", stdout);
        print_text(text_of(check, "text", "?"));
        putchar('\n');
        if (advice[0]) {
            fputs("         ", stdout);
            print_text(advice);
            putchar('\n');
        }
    }
    if (warnings || problems)
        printf("problems: %u, warnings: %u\n", problems, warnings);
    else
        puts("nothing is wrong");
}

/* The verdict is the exit code; the report is printed whatever it is. */
static int run_doctor(struct run *run, struct json_object **result)
{
    struct xlv_doctor what = { .config = run->config, .root = "" };
    enum xlv_doctor_result worst;
    int rc = xlv_doctor(&what, &worst, result, &run->e);

    if (rc)
        return rc;
    if (run->json)
        print_json(*result);
    else
        print_doctor(*result);
    json_object_put(*result);
    *result = NULL;
    return worst == XLV_DOCTOR_PROBLEM ? XLV_E_CORRUPT : 0;
}

static void print_slot(struct json_object *slot)
{
    char name[16], text[256];

    snprintf(name, sizeof(name), "slot %s", text_of(slot, "slot", "?"));
    snprintf(text, sizeof(text), "%s: %s; file of %s bytes, state of %s%s",
             text_of(slot, "state", "?"), text_of(slot, "text", "?"), text_of(slot, "size", "-"),
             text_of(slot, "length", "-"),
             member(slot, "key") ? "; under the old master key" : "");
    print_field(name, text);
}

static void print_recover(struct json_object *report)
{
    struct json_object *slots = member(report, "slots"), *usable = member(report, "usable");
    bool quarantined = !strcmp(text_of(report, "life", ""), "quarantined");
    bool loads = json_object_get_boolean(member(report, "loads"));
    const char *number = text_of(report, "number", "?");

    print_field("instance", number);
    print_field("uuid", text_of(report, "uuid", "?"));
    print_field("life", text_of(report, "life", "?"));
    print_field("directory", text_of(report, "directory", "?"));
    for (size_t i = 0; i < json_object_array_length(slots); i++)
        print_slot(json_object_array_get_idx(slots, i));
    print_field(loads ? "is served" : "is not served", text_of(report, "verdict", "?"));
    if (!loads && !json_object_get_boolean(member(report, "empty"))) {
        for (size_t i = 0; i < json_object_array_length(usable); i++)
            printf("to go on with slot %s: xl-vtpm recover --use-slot %s %s\n",
                   json_object_get_string(json_object_array_get_idx(usable, i)),
                   json_object_get_string(json_object_array_get_idx(usable, i)), number);
        if (!json_object_array_length(usable))
            puts("no slot can be used: put the files back from a backup");
    } else if (quarantined) {
        printf("to have it served again: xl-vtpm recover --release %s\n", number);
    }
}

/* Nobody there to ask is a no. */
static bool agree(struct json_object *report, const char *question, void *opaque)
{
    struct run *run = opaque;
    char answer[8];

    if (run->yes)
        return true;
    if (!isatty(STDIN_FILENO)) {
        xlv_fail(&run->e, XLV_E_REFUSED, "nothing was changed: there is no terminal to ask at; "
                 "--yes goes ahead without");
        return false;
    }
    if (!run->json)
        print_recover(report);
    run->shown = true;
    fflush(stdout);
    fprintf(stderr, "%s\nType yes to go on: ", question);
    if (fgets(answer, sizeof(answer), stdin) && !strcmp(answer, "yes\n"))
        return true;
    xlv_fail(&run->e, XLV_E_REFUSED, "nothing was changed");
    return false;
}

/* Out of quarantine, if what there is would be served. */
static int release_recovered(struct run *run, struct json_object *report)
{
    struct json_object *request, *result = NULL;
    int rc;

    if (!json_object_get_boolean(member(report, "loads")) &&
        !json_object_get_boolean(member(report, "empty")))
        return xlv_fail(&run->e, XLV_E_REFUSED, "it stays in quarantine, for its state would be "
                        "refused again: choose a slot with --use-slot first");
    request = request_of("release");
    put_instance(request, run->args[0]);
    rc = ask(run, request, &result);
    if (!rc) {
        put(report, "life", json_object_get(member(result, "life")));
        put(report, "released", json_object_new_boolean(true));
    }
    json_object_put(result);
    return rc;
}

static int run_recover(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("show"), *instance = NULL, *report = NULL, *chosen;
    struct xlv_recover recover = {
        .settings = run->settings, .use_slot = -1, .agree = agree, .opaque = run,
    };
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, &instance);
    recover.instance = instance;
    if (run->use_slot)
        recover.use_slot = run->use_slot[0] - '0';
    if (!rc)
        rc = xlv_recover(&recover, &report, &run->e);
    if (!rc && run->release)
        rc = release_recovered(run, report);
    /* the report helps to understand an error, too */
    if (report && run->json) {
        print_json(report);
    } else if (report) {
        chosen = member(report, "chosen");
        if (chosen || !run->shown)
            print_recover(report);
        if (chosen) {
            printf("slot %s was chosen, it is generation %s now\n", text_of(chosen, "slot", "?"),
                   text_of(chosen, "generation", "?"));
            if (member(chosen, "kept"))
                printf("what was in the other slot is kept in %s\n",
                       text_of(chosen, "kept", "?"));
        }
    }
    if (!rc && !run->release && !json_object_get_boolean(member(report, "loads")) &&
        !json_object_get_boolean(member(report, "empty")))
        rc = XLV_E_CORRUPT;
    json_object_put(report);
    json_object_put(instance);
    (void)result;
    return rc;
}

/* The verdict is the exit code; the report is printed whatever it is. */
static int run_rekey(struct run *run, struct json_object **result)
{
    struct json_object *report = NULL, *left;
    int rc = xlv_rekey(run->settings, run->client, &report, &run->e);

    (void)result;
    if (!report)
        return rc;
    left = member(report, "left");
    if (run->json) {
        print_json(report);
    } else {
        printf("sealed under the new key: %s, since an earlier run: %s, without a TPM yet: %s\n",
               text_of(report, "sealed", "?"), text_of(report, "already", "?"),
               text_of(report, "empty", "?"));
        for (size_t i = 0; i < json_object_array_length(left); i++) {
            struct json_object *one = json_object_array_get_idx(left, i);

            printf("instance %s (%s) is left: ", text_of(one, "number", "?"),
                   text_of(one, "uuid", "uuid not known"));
            print_text(text_of(one, "reason", "?"));
            putchar('\n');
        }
        if (rc)
            printf("unfinished: both keys are needed until `xl-vtpm rekey` has run again\n");
        else
            printf("complete: back up %s, it is a new key; backups of states made before need "
                   "the old one\n", text_of(report, "key", "?"));
    }
    json_object_put(report);
    return rc;
}

/*
 * The command line
 */

enum {
    OPTION_OFFLINE = 256,
    OPTION_TPM_VERSION,
    OPTION_LABEL,
    OPTION_DEVID,
    OPTION_USE_SLOT,
    OPTION_RELEASE,
    OPTION_YES,
    OPTION_RESET,
    OPTION_KEPT,
};

/* Which commands take an option, as bits; options not listed are for all. */
#define FOR_CREATE 1u
#define FOR_DEVICE 2u
#define FOR_RECOVER 4u
#define FOR_ACCEPT 8u

static const struct option options[] = {
    { "json", no_argument, NULL, 'j' },
    { "config", required_argument, NULL, 'c' },
    { "verbose", no_argument, NULL, 'v' },
    { "offline", no_argument, NULL, OPTION_OFFLINE },
    { "tpm-version", required_argument, NULL, OPTION_TPM_VERSION },
    { "label", required_argument, NULL, OPTION_LABEL },
    { "devid", required_argument, NULL, OPTION_DEVID },
    { "use-slot", required_argument, NULL, OPTION_USE_SLOT },
    { "release", no_argument, NULL, OPTION_RELEASE },
    { "yes", no_argument, NULL, OPTION_YES },
    { "reset", no_argument, NULL, OPTION_RESET },
    { "kept", no_argument, NULL, OPTION_KEPT },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

static const struct command {
    const char *name;
    int min, max; /* arguments */
    unsigned takes;
    enum { ANY, DAEMON, NEITHER } needs; /* NEITHER: settings and client are its own affair */
    int (*run)(struct run *run, struct json_object **result);
    const char *synopsis, *help;
} commands[] = {
    { "list", 0, 0, 0, ANY, run_list, "", "the instances of this host" },
    { "show", 1, 1, 0, ANY, run_show, "UUID|NUMBER", "one instance in full" },
    { "create", 0, 1, FOR_CREATE, ANY, run_create,
      "[--tpm-version 1.2|2.0] [--label TEXT] [UUID]",
      "an instance ahead of its first use; prints its uuid" },
    { "bind", 2, 2, FOR_DEVICE, ANY, run_bind, "[--devid N] DOMAIN UUID|NUMBER",
      "this domain's device gets that TPM where its line names none that is known" },
    { "unbind", 1, 1, FOR_DEVICE, ANY, run_unbind, "[--devid N] DOMAIN", "undo a binding" },
    { "release", 1, 1, 0, ANY, run_release, "UUID|NUMBER", "out of quarantine" },
    { "accept", 1, 1, FOR_ACCEPT, ANY, run_accept, "[--reset|--kept] UUID|NUMBER",
      "what the next restored domain gets, though its save is not the latest" },
    { "recover", 1, 1, FOR_RECOVER, ANY, run_recover,
      "[--use-slot 0|1] [--yes] [--release] UUID|NUMBER",
      "what can be read of a state; choose what to go on with" },
    { "rekey", 0, 0, 0, ANY, run_rekey, "", "change the master key" },
    { "check", 1, 1, 0, ANY, run_check, "FILE",
      "what each vtpm entry of a domain's configuration will get" },
    { "status", 0, 0, 0, DAEMON, run_status, "", "how the daemon is" },
    { "doctor", 0, 0, 0, NEITHER, run_doctor, "", "what is wrong on this host, and what to do" },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(const struct command *command)
{
    if (command) {
        printf("usage: xl-vtpm [OPTION...] %s %s\n%s\n", command->name, command->synopsis,
               command->help);
        return;
    }
    puts("usage: xl-vtpm [OPTION...] COMMAND [ARGUMENT...]\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %s %s\n      %s\n", commands[i].name, commands[i].synopsis, commands[i].help);
    puts("\n"
         "  -j, --json         print JSON\n"
         "  -c, --config FILE  instead of " XLV_SYSCONFDIR "/xen/xl-vtpm.conf\n"
         "      --offline      use the files, even where the daemon runs\n"
         "  -v, --verbose      say where an answer comes from\n"
         "  -h, --help\n"
         "  -V, --version\n\n"
         "xl-vtpm(8) has it all.");
}

static int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int usage(const char *fmt, ...)
{
    va_list ap;

    fputs("xl-vtpm: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputs("; xl-vtpm --help lists commands and options\n", stderr);
    return EXIT_USAGE;
}

/* Runs the command; the settings outlive the client. */
static int carry_out(const struct command *command, struct run *run)
{
    struct json_object *result = NULL;
    struct xlv_settings settings;
    int rc;

    /* what the rooms below log about a state is in the reports */
    xlv_log_set_level(run->verbose ? XLV_LOG_INFO : XLV_LOG_ERROR);
    if (command->needs == NEITHER)
        return command->run(run, &result);
    rc = xlv_settings_load(&settings, run->config, &run->e);
    if (rc)
        return rc;
    run->settings = &settings;
    rc = xlv_client_new(&run->client, &settings,
                        command->needs == DAEMON ? XLV_CLIENT_DAEMON
                        : run->offline           ? XLV_CLIENT_OFFLINE
                                                 : XLV_CLIENT_EITHER,
                        &run->e);
    if (!rc && run->verbose)
        fprintf(stderr, "xl-vtpm: %s %s\n",
                xlv_client_online(run->client) ? "asking xl-vtpmd in" : "using the files in",
                xlv_client_online(run->client) ? settings.run_dir : settings.state_dir);
    if (!rc)
        rc = command->run(run, &result);
    if (!rc && run->json && result)
        print_json(result);
    json_object_put(result);
    xlv_client_free(run->client);
    xlv_settings_deinit(&settings);
    return rc;
}

int main(int argc, char **argv)
{
    struct run run = { .e = XLV_ERROR_INIT };
    const struct command *command = NULL;
    bool help = false;
    int option, rc;

    opterr = 0;
    while ((option = getopt_long(argc, argv, ":jc:vhV", options, NULL)) != -1)
        switch (option) {
        case 'j':
            run.json = true;
            break;
        case 'c':
            run.config = optarg;
            break;
        case 'v':
            run.verbose = true;
            break;
        case OPTION_OFFLINE:
            run.offline = true;
            break;
        case OPTION_TPM_VERSION:
            run.tpm_version = optarg;
            break;
        case OPTION_LABEL:
            run.label = optarg;
            break;
        case OPTION_DEVID:
            run.devid = optarg;
            break;
        case OPTION_USE_SLOT:
            run.use_slot = optarg;
            break;
        case OPTION_RELEASE:
            run.release = true;
            break;
        case OPTION_YES:
            run.yes = true;
            break;
        case OPTION_RESET:
            run.reset = true;
            break;
        case OPTION_KEPT:
            run.kept = true;
            break;
        case 'h':
            help = true;
            break;
        case 'V':
            puts("xl-vtpm " PACKAGE_VERSION);
            return EXIT_FINE;
        case ':':
            return usage("%s needs a value", argv[optind - 1]);
        default:
            return usage("%s is not an option here", argv[optind - 1]);
        }
    if (optind < argc) {
        for (size_t i = 0; i < COMMANDS; i++)
            if (!strcmp(commands[i].name, argv[optind]))
                command = &commands[i];
        if (!command)
            return usage("there is no command %s", argv[optind]);
    }
    if (help) {
        print_help(command);
        return EXIT_FINE;
    }
    if (!command)
        return usage("a command is needed");
    run.args = argv + optind + 1;
    run.count = argc - optind - 1;
    if (run.count < command->min || run.count > command->max)
        return usage("%s %s arguments", command->name,
                     run.count < command->min ? "needs more" : "takes fewer");
    if ((run.tpm_version || run.label) && !(command->takes & FOR_CREATE))
        return usage("%s takes neither --tpm-version nor --label", command->name);
    if (run.devid && !(command->takes & FOR_DEVICE))
        return usage("%s takes no --devid", command->name);
    if ((run.use_slot || run.release || run.yes) && !(command->takes & FOR_RECOVER))
        return usage("%s takes neither --use-slot nor --release nor --yes", command->name);
    if ((run.reset || run.kept) && !(command->takes & FOR_ACCEPT))
        return usage("%s takes neither --reset nor --kept", command->name);
    if (run.reset && run.kept)
        return usage("--reset and --kept exclude each other");
    if (run.use_slot && strcmp(run.use_slot, "0") && strcmp(run.use_slot, "1"))
        return usage("--use-slot %s: there are slots 0 and 1", run.use_slot);
    if (run.offline && command->needs != ANY)
        return usage("%s cannot be answered --offline", command->name);

    rc = carry_out(command, &run);
    if (run.e.text[0])
        fprintf(stderr, "xl-vtpm: %s\n", run.e.text);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "xl-vtpm: the output cannot be written: %s\n", strerror(errno));
        return rc ? exit_code_of(rc) : EXIT_FAILED;
    }
    return exit_code_of(rc);
}
