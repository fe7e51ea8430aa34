/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm pcrs: what a guest's PCRs are now. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <stdio.h>

#include "backend/eventlog.h"
#include "backend/pcrs.h"
#include "common/bytes.h"
#include "libxl-vtpm/states.h"

static const struct xlv_hash_info *hash_of(uint16_t algorithm, size_t size)
{
    for (size_t i = 0; i < XLV_HASHES; i++)
        if (xlv_hashes[i].algorithm == algorithm && xlv_hashes[i].size == size)
            return &xlv_hashes[i];
    return NULL;
}

/* A process that had a guest's state inside wrote it: it is believed no more than that. */
static int to_json(struct run *run, const uint8_t *data, size_t length, struct json_object *json)
{
    struct xlv_bytes r = xlv_bytes_reader(data, length);
    struct json_object *banks = json_object_new_object();
    uint32_t magic = xlv_get_u32(&r), domid = xlv_get_u32(&r), count = xlv_get_u32(&r);
    bool good = magic == XLV_PCRS_MAGIC && count <= XLV_HASHES;

    put(json, "domid", json_object_new_int64(domid));
    put(json, "banks", banks);
    for (uint32_t i = 0; good && i < count; i++) {
        uint16_t algorithm = xlv_get_u16(&r);
        size_t size = xlv_get_u16(&r);
        const struct xlv_hash_info *hash = hash_of(algorithm, size);
        struct json_object *values = json_object_new_array();

        if (hash)
            put(banks, hash->name, values);
        else
            json_object_put(values);
        good = hash && xlv_bytes_left(&r) >= XLV_PCRS * size;
        for (uint32_t k = 0; good && k < XLV_PCRS; k++) {
            const uint8_t *digest = xlv_get_view(&r, size);
            char text[2 * XLV_DIGEST_MAX + 1];

            for (size_t at = 0; at < size; at++)
                snprintf(text + 2 * at, 3, "%02x", digest[at]);
            json_object_array_add(values, json_object_new_string(text));
        }
    }
    return good && xlv_bytes_ok(&r) && !xlv_bytes_left(&r)
               ? 0 : xlv_fail(&run->e, -EPROTO, "the process that looked at the PCRs says what it "
                              "should not");
}

/* As tpm2_pcrread does, so that the two can be compared. */
static void print_pcrs(struct json_object *json, bool suspended, bool served)
{
    printf("instance %s, uuid %s, TPM %s, domain %s%s\n", text_of(json, "number", "?"),
           text_of(json, "uuid", "?"), text_of(json, "tpm_version", "?"),
           text_of(json, "domid", "?"),
           suspended ? ", which is suspended: as they will be when it is restored"
           : served  ? "" : ", whose driver is not connected, or which is over: as it left them");
    json_object_object_foreach(member(json, "banks"), bank, values) {
        printf("%s:\n", bank);
        for (size_t i = 0; i < xlv_json_count(values); i++)
            printf("  %-2zu: 0x%s\n", i,
                   json_object_get_string(json_object_array_get_idx(values, i)));
    }
}

int run_pcrs(struct run *run, struct json_object **result)
{
    struct xlv_states states = { .registry = NULL };
    struct xlv_instance instance = { .number = 0 };
    struct json_object *shown = NULL;
    struct xlv_uuid uuid;
    bool served, suspended = false;
    uint8_t *data = NULL;
    size_t length = 0;
    int rc = look_up(run, run->args[0], &shown, &uuid);

    /* else its driver is unloaded */
    served = !rc && text_of(member(shown, "device"), "attached", NULL);
    if (!rc)
        rc = xlv_states_init(&states, run->settings, false, &run->e);
    if (!rc)
        rc = xlv_registry_get(states.registry, &uuid, &instance, &run->e);
    if (!rc)
        rc = xlv_states_pcrs(&states, &instance, &data, &length, &suspended, &run->e);
    if (rc == XLV_E_EMPTY) {
        if (instance.life != XLV_LIFE_NEW) {
            xlv_error_clear(&run->e);
            xlv_fail(&run->e, rc, served
                         ? "instance %s has no PCRs yet: its guest's driver has not connected"
                         : "instance %s is not in use, so its TPM is off: its PCRs begin with its "
                           "domain's next boot", text_of(shown, "number", "?"));
        }
        rc = XLV_E_NOT_FOUND;
    }
    if (!rc) {
        *result = json_object_new_object();
        put(*result, "number", json_object_get(member(shown, "number")));
        put(*result, "uuid", json_object_get(member(shown, "uuid")));
        put(*result, "tpm_version", json_object_get(member(shown, "tpm_version")));
        put(*result, "suspended", json_object_new_boolean(suspended));
        put(*result, "connected", json_object_new_boolean(served));
        rc = to_json(run, data, length, *result);
    }
    if (!rc && !run->json)
        print_pcrs(*result, suspended, served);
    xlv_wipe(data, length);
    xlv_states_deinit(&states);
    json_object_put(shown);
    return rc;
}
