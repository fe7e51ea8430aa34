/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The archive of one instance (xl-vtpm export, import): sealed with a passphrase, for a
 * medium that is not to be trusted. Little endian:
 *
 *     0   8   magic "XLVTPMA", 0x0a
 *     8   4   format version: 1
 *    12   4   length of the payload
 *    16  32   salt, random
 *    48   …   payload, AES-256-GCM, then 16 bytes of tag; the 48 bytes before are its
 *             associated data
 *
 *     payload: uuid 16, TPM version u32 (12 or 20), time of the export u64 (Unix), length of
 *     the label u32, label (UTF-8), container (container.h) up to the end
 *
 * The key is scrypt(passphrase, salt, N = 2^17, r = 8, p = 1), 32 bytes. It is of one archive,
 * for the salt is, so the nonce is always the same: 12 zeros. The costs are those of the format
 * and not a field, so that an archive cannot choose what opening it costs. Bytes only.
 */
#ifndef XLV_ARCHIVE_H
#define XLV_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "include/launch.h"
#include "include/limits.h"

/* What an archive is larger than the state in it, at most. */
#define XLV_ARCHIVE_EXTRA (48u + 16u + 32u + XLV_LABEL_MAX)

struct xlv_archive {
    struct xlv_uuid uuid;
    enum xlv_tpm_version version;
    uint64_t time_s;
    char label[XLV_LABEL_MAX + 1];
    uint8_t *container; /* owned; xlv_archive_deinit() */
    size_t length;
};

bool xlv_archive_is(const uint8_t *file, size_t length); /* by its magic */

/* *out is the caller's. -errno. */
int xlv_archive_seal(const struct xlv_archive *archive, const char *passphrase, uint8_t **out,
                     size_t *length, struct xlv_error *e);

/*
 * XLV_E_INVALID: no archive; XLV_E_VERSION; XLV_E_WRONG_KEY: another passphrase, or damaged,
 * which cannot be told apart. What is inside was sealed by us, the container is not judged.
 */
int xlv_archive_open(const uint8_t *file, size_t length, const char *passphrase,
                     struct xlv_archive *archive, struct xlv_error *e);
void xlv_archive_deinit(struct xlv_archive *archive); /* wipes */

#endif
