/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: what is done to sealed states: recover, rekey, share, unshare. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libxl-vtpm/recover.h"
#include "libxl-vtpm/rekey.h"
#include "libxl-vtpm/share.h"

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
    for (size_t i = 0; i < xlv_json_count(slots); i++)
        print_slot(json_object_array_get_idx(slots, i));
    print_field(loads ? "is served" : "is not served", text_of(report, "verdict", "?"));
    if (!loads && !json_object_get_boolean(member(report, "empty"))) {
        for (size_t i = 0; i < xlv_json_count(usable); i++)
            printf("to go on with slot %s: xl-vtpm recover --use-slot %s %s\n",
                   json_object_get_string(json_object_array_get_idx(usable, i)),
                   json_object_get_string(json_object_array_get_idx(usable, i)), number);
        if (!xlv_json_count(usable))
            puts("no slot can be used: put the files back from a backup");
    } else if (quarantined) {
        printf("to have it served again: xl-vtpm recover --release %s\n", number);
    }
}

static bool agree(struct json_object *report, const char *question, void *opaque)
{
    struct run *run = opaque;

    if (!run->yes && isatty(STDIN_FILENO) && !run->json) {
        print_recover(report);
        run->shown = true;
    }
    return !confirm(run, question);
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

int run_recover(struct run *run, struct json_object **result)
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
int run_rekey(struct run *run, struct json_object **result)
{
    struct json_object *report = NULL, *left;
    int rc = xlv_rekey(run->settings, run->client, progress_count, NULL, &report,
                       &run->e);

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
        print_reasons(left, "is left");
        if (rc)
            printf("unfinished: both keys are needed until `xl-vtpm rekey` has run again\n");
        else
            printf("complete: back up %s, it is a new key; backups of states made before need "
                   "the old one\n", text_of(report, "key", "?"));
    }
    json_object_put(report);
    return rc;
}

static int put_place(struct run *run, bool shared, struct json_object **result)
{
    struct xlv_states states = { .registry = NULL };
    struct json_object *request = request_of("show");
    struct xlv_instance instance;
    struct xlv_uuid uuid;
    char path[PATH_MAX];
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    if (!rc && xlv_uuid_parse(&uuid, text_of(*result, "uuid", "")))
        rc = xlv_fail(&run->e, XLV_E_INVALID, "the answer is no instance");
    if (!rc)
        rc = xlv_states_init(&states, run->settings, false, &run->e);
    if (!rc)
        rc = xlv_share(&states, &uuid, shared, &instance, &run->e);
    xlv_states_deinit(&states);
    if (rc)
        return rc;
    (void)xlv_instance_path(run->settings->state_dir, &instance, path);
    put(*result, "directory", json_object_new_string(path));
    if (!run->json)
        printf("instance %s is in %s now\n", text_of(*result, "number", "?"), path);
    return 0;
}

int run_share(struct run *run, struct json_object **result)
{
    return put_place(run, true, result);
}

int run_unshare(struct run *run, struct json_object **result)
{
    return put_place(run, false, result);
}
