/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PCRs of a TPM: see pcrs.h. */
#include "config.h"

#include "backend/pcrs.h"

#include <errno.h>
#include <stdlib.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "backend/eventlog.h"
#include "backend/kept.h"
#include "common/bytes.h"

#define SIZE_MAX_OF_ALL (12u + XLV_HASHES * (4u + XLV_PCRS * XLV_DIGEST_MAX))

static int read_bank(enum xlv_tpm_version version, const struct xlv_hash_info *hash,
                     struct xlv_bytes *w, struct xlv_error *e)
{
    uint8_t request[XLV_COMMAND_MAX];
    const uint8_t *response, *digest;
    size_t length;
    int r = 0;

    xlv_put_u16(w, hash->algorithm);
    xlv_put_u16(w, hash->size);
    for (uint32_t i = 0; !r && i < XLV_PCRS; i++) {
        r = xlv_engine_execute(0, request,
                               xlv_command_read_pcr(version, hash->algorithm, i, request),
                               &response, &length, e);
        if (r)
            return r;
        r = xlv_response_pcr(version, response, length, hash->size, &digest);
        if (r)
            return xlv_fail(e, r, "the TPM does not tell PCR %u of bank %s (0x%x)", i, hash->name,
                            xlv_response_code(response, length));
        xlv_put_data(w, digest, hash->size);
    }
    return 0;
}

static int read_all(enum xlv_tpm_version version, uint32_t domid, struct xlv_bytes *w,
                    struct xlv_error *e)
{
    unsigned banks, count = 0;
    int r = xlv_engine_banks(&banks, e);

    for (unsigned i = 0; i < XLV_HASHES; i++)
        count += !!(banks & XLV_BANK_OF(i));
    xlv_put_u32(w, XLV_PCRS_MAGIC);
    xlv_put_u32(w, domid);
    xlv_put_u32(w, count);
    for (unsigned i = 0; !r && i < XLV_HASHES; i++)
        if (banks & XLV_BANK_OF(i))
            r = read_bank(version, &xlv_hashes[i], w, e);
    return r;
}

int xlv_pcrs(enum xlv_tpm_version version, const uint8_t *container, size_t length,
             uint8_t **out, size_t *out_length, struct xlv_error *e)
{
    struct xlv_bytes w;
    struct xlv_kept kept;
    size_t permanent;
    uint8_t *bytes;
    int r = xlv_kept_split(container, length, &kept, &permanent);

    *out = NULL;
    *out_length = 0;
    if (r)
        return xlv_fail(e, r, "the state has a kept state that is none");
    if (!kept.there)
        return xlv_fail(e, XLV_E_EMPTY, "the TPM is off, and has no PCRs");
    bytes = malloc(SIZE_MAX_OF_ALL);
    if (!bytes)
        return -ENOMEM;
    w = xlv_bytes_writer(bytes, SIZE_MAX_OF_ALL);
    r = xlv_engine_load(version, container, permanent, kept.volatile_state, kept.volatile_length,
                        e);
    if (!r)
        r = read_all(version, kept.domid, &w, e);
    xlv_engine_off();
    if (r) {
        free(bytes);
        return r;
    }
    *out = bytes;
    *out_length = w.at;
    return 0;
}
