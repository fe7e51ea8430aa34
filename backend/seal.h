/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The seal: what store and journal put around a state before it leaves memory.
 *
 * AES-256-GCM under a record key. A record key belongs to one opened store or
 * journal: HKDF-SHA256 of the instance's key with a salt of 32 fresh random
 * bytes, taken at xlv_seal_new() and never read back for writing. Within it
 * the nonce is a counter. So a nonce cannot repeat under a key, not even when
 * an old copy of the files is put back: whoever writes next has a new salt.
 *
 * A sealed record is a head of XLV_SEAL_HEAD bytes (public header, its own
 * checksum, GCM tag) and as many bytes of ciphertext as there is plaintext.
 * The whole header is the associated data, so uuid, generation, format
 * version, purpose and slot cannot be exchanged. The checksum needs no key: a
 * flipped bit in the header is damage, and never looks like a wrong key,
 * another owner or a newer version. Format: docs/formats.md.
 */
#ifndef XLV_SEAL_H
#define XLV_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "include/launch.h"

#define XLV_SEAL_VERSION 1u
#define XLV_SEAL_HEADER 192u /* its last 32 bytes: SHA-256 of those before */
#define XLV_SEAL_TAG 16u
#define XLV_SEAL_HEAD (XLV_SEAL_HEADER + XLV_SEAL_TAG)
#define XLV_SEAL_SALT 32u
#define XLV_SEAL_KEY_ID 16u

/* Records under one salt; then a new salt is taken (GCM's bounds stay far). */
#define XLV_SEAL_RECORDS_PER_SALT (1u << 20)

enum xlv_seal_purpose { XLV_SEAL_STORE = 1, XLV_SEAL_JOURNAL = 2 };

/* The public header of one record. */
struct xlv_seal_info {
    uint32_t version, purpose;
    uint32_t slot; /* of the store, place of the journal: 0 or 1 */
    struct xlv_uuid uuid;
    uint64_t number;  /* store: generation; journal: number of the append */
    uint32_t length;  /* of plaintext and ciphertext */
    uint32_t attempt; /* store: tells two writes of one generation apart */
    uint64_t counter; /* nonce */
    uint8_t salt[XLV_SEAL_SALT];
    uint8_t key_id[XLV_SEAL_KEY_ID];
};

struct xlv_seal;

/* Everything OpenSSL has to look up is looked up here (it may read files). */
int xlv_seal_new(struct xlv_seal **out, enum xlv_seal_purpose purpose,
                 const struct xlv_uuid *uuid, const uint8_t key[XLV_KEY_SIZE],
                 struct xlv_error *e);
void xlv_seal_free(struct xlv_seal *seal); /* wipes the keys; NULL is fine */

/*
 * Sealing, in pieces: begin fills the header with a nonce never used before,
 * update encrypts (out may not overlap in unless equal), finish writes the tag
 * into head. length must be the sum of the pieces. 0 or -EIO (OpenSSL failed),
 * -errno (no random numbers).
 */
int xlv_seal_begin(struct xlv_seal *seal, uint8_t head[XLV_SEAL_HEAD], uint32_t slot,
                   uint64_t number, uint32_t attempt, uint32_t length);
int xlv_seal_update(struct xlv_seal *seal, uint8_t *out, const uint8_t *in, size_t length);
int xlv_seal_finish(struct xlv_seal *seal, uint8_t head[XLV_SEAL_HEAD]);

/*
 * Reads a header. XLV_E_CORRUPT: not a header or damaged; XLV_E_VERSION: intact,
 * of a newer format (only info->version is set then).
 */
int xlv_seal_parse(struct xlv_seal *seal, const uint8_t head[XLV_SEAL_HEAD],
                   struct xlv_seal_info *info);

/* XLV_E_CORRUPT: of another purpose; XLV_E_WRONG_OWNER; XLV_E_WRONG_KEY; else 0. */
int xlv_seal_check(struct xlv_seal *seal, const struct xlv_seal_info *info);

/*
 * Verifies and decrypts info->length bytes of a record whose header was parsed
 * and checked. XLV_E_CORRUPT: does not verify (plaintext is wiped then).
 */
int xlv_seal_open(struct xlv_seal *seal, const uint8_t head[XLV_SEAL_HEAD],
                  const struct xlv_seal_info *info, const uint8_t *ciphertext,
                  uint8_t *plaintext);

#endif
