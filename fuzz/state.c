/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is inside the seal: the container of the permanent state and the kept state in it
 * (backend/kept.h, backend/engine.h). Input: u8 (bit 0: the TPM version), u16 length and that much
 * volatile state (0: none), the rest is the container. libtpms gets what passes.
 */
#include <string.h>

#include "backend/engine.h"
#include "backend/kept.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    enum xlv_tpm_version version = xlv_get_u8(&in) & 1 ? XLV_TPM_1_2 : XLV_TPM_2_0;
    size_t volatile_length, length, permanent_length, joined_length;
    const uint8_t *volatile_state = piece(&in, &volatile_length), *container = rest(&in, &length);
    struct xlv_kept kept, again;
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t *joined;
    int rc;

    if (!container)
        return 0;
    rc = xlv_kept_split(container, length, &kept, &permanent_length);
    MUST(rc == 0 || rc == XLV_E_CORRUPT);
    if (!rc) {
        MUST(permanent_length <= length && (kept.there || permanent_length == length));
        MUST(!kept.there || (kept.volatile_state >= container + permanent_length &&
                             kept.volatile_state + kept.volatile_length == container + length));
    }
    if (!rc && kept.there) {
        MUST(xlv_kept_join(container, permanent_length, &kept, &joined, &joined_length) == 0);
        MUST(joined_length == length && !memcmp(joined, container, length));
        MUST(xlv_kept_split(joined, joined_length, &again, &permanent_length) == 0 && again.there);
        xlv_engine_wipe(joined, joined_length);
    }
    rc = xlv_engine_load(version, container, length, volatile_length ? volatile_state : NULL,
                         volatile_length, &e);
    MUST(rc >= 0 && (!rc || e.text[0]));
    if (!rc)
        xlv_engine_off();
    return 0;
}
