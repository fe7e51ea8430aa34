/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: another TPM with the same contents (clone), or with the same uuid (reset). */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <stdio.h>

#include "libxl-vtpm/states.h"

/* Another process than the daemon made the instance; without one, or with an older one, its TPM
 * is made at its first use. */
static int make_tpm(struct run *run, const struct xlv_uuid *uuid, struct json_object **result)
{
    struct json_object *request = request_of("make");
    char text[XLV_UUID_TEXT];
    int rc;

    put(request, "uuid", json_object_new_string(xlv_uuid_format(uuid, text)));
    rc = ask(run, request, result);
    if (rc != XLV_E_INVALID)
        return rc;
    xlv_error_clear(&run->e);
    return look_up(run, text, result, &(struct xlv_uuid){ 0 });
}

int run_clone(struct run *run, struct json_object **result)
{
    struct xlv_states states = { .registry = NULL };
    struct json_object *shown = NULL;
    struct xlv_instance instance;
    struct xlv_uuid source, uuid;
    char text[XLV_UUID_TEXT];
    int rc;

    xlv_uuid_generate(&uuid);
    if (run->uuid && xlv_uuid_parse(&uuid, run->uuid))
        return xlv_fail(&run->e, XLV_E_INVALID, "\"%.80s\" is no uuid", run->uuid);
    rc = look_up(run, run->args[0], &shown, &source);
    if (!rc)
        rc = refuse_if_served(run, &source);
    if (!rc)
        rc = xlv_states_init(&states, run->settings, false, &run->e);
    if (!rc)
        rc = xlv_states_clone(&states, &source, &uuid, run->label, run->new_identity, &instance,
                              &run->e);
    xlv_states_deinit(&states);
    if (!rc && run->keep_identity)
        note_identity_or_warn(run, xlv_uuid_format(&uuid, text));
    if (!rc)
        rc = make_tpm(run, &uuid, result);
    if (!rc && !run->json)
        puts(text_of(*result, "uuid", "?"));
    progress_stop();
    if (!rc && run->keep_identity)
        fprintf(stderr, "xl-vtpm: WARNING: instances %s and %s are the same TPM twice now: the "
                "same endorsement key,\nxl-vtpm: certificates and keys. Whoever trusts or attests one "
                "takes the other for it. Let no\nxl-vtpm: two guests use them; for a second guest "
                "clone with --new-identity.\n", text_of(shown, "number", "?"),
                text_of(*result, "number", "?"));
    json_object_put(shown);
    return rc;
}

int run_reset(struct run *run, struct json_object **result)
{
    struct xlv_states states = { .registry = NULL };
    struct json_object *shown = NULL, *old;
    struct xlv_instance instance, earlier;
    char question[XLV_TEXT_MAX], text[XLV_UUID_TEXT];
    struct xlv_uuid uuid;
    int rc = look_up(run, run->args[0], &shown, &uuid);

    if (!rc)
        rc = refuse_if_served(run, &uuid);
    if (!rc) {
        snprintf(question, sizeof(question), "Instance %s (%s) gets a new TPM, as from the factory"
                 ": its guest finds nothing that it kept in the old one, and nothing opens that is "
                 "sealed to it. The old one is deleted; xl-vtpm undelete brings it back until it "
                 "is purged.", text_of(shown, "number", "?"), text_of(shown, "uuid", "?"));
        rc = confirm(run, question);
    }
    json_object_put(shown);
    if (!rc)
        rc = xlv_states_init(&states, run->settings, false, &run->e);
    if (!rc)
        rc = xlv_states_reset(&states, &uuid, &instance, &earlier, &run->e);
    xlv_states_deinit(&states);
    if (!rc)
        rc = make_tpm(run, &uuid, result);
    if (rc)
        return rc;
    old = json_object_new_object();
    put(old, "number", json_object_new_int64((int64_t)earlier.number));
    put(old, "uuid", json_object_new_string(xlv_uuid_format(&earlier.uuid, text)));
    put(*result, "earlier", old);
    if (!run->json)
        printf("uuid %s is instance %s now, with a new TPM\nthe earlier one is deleted instance %s"
               ", uuid %s; xl-vtpm undelete %s brings it back, as that\n",
               text_of(*result, "uuid", "?"), text_of(*result, "number", "?"),
               text_of(old, "number", "?"), text, text_of(old, "number", "?"));
    return 0;
}
