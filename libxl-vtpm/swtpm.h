/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state files of swtpm 0.7 and its neighbours: tpm2-00.permall (TPM 2.0),
 * tpm-00.permall (1.2). Inside is what libtpms hands over, as in our container.
 * All numbers are big endian.
 *
 *   header   u8 version (1 or 2), u8 least version to read it with, u16 10, u16 flags,
 *            u32 length of the file
 *   flags    0x01 encrypted, 0x08 with a key of 256 bits, 0x02 0x04 0x10 a blob of
 *            swtpm_ioctl --save, not a state file
 *   body     2: entries of u16 tag, u32 length: 1 plain data; 2 ciphertext, 3 HMAC-SHA256 over
 *               ciphertext || IV, 6 the IV, as long as the key, of which AES takes the first 16
 *            1: the data, or the ciphertext of SHA-256(data) || data with an IV of zeros
 *   cipher   AES-CBC; padded to a multiple of the key's length, each byte the number of them
 *
 * Source: swtpm's src/swtpm/swtpm_nvstore.c, swtpm_aes.c, tlv.c, key.c; tests/unit/test-swtpm.sh
 * compares with the real one, both ways. Pure functions on bytes, but for the key's file.
 */
#ifndef XLV_SWTPM_H
#define XLV_SWTPM_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* A file that holds the largest state: header, entries, IV, HMAC and padding. */
#define XLV_SWTPM_EXTRA 256u

struct xlv_swtpm_key {
    uint8_t bytes[32];
    size_t length; /* 16 or 32; 0: none */
};

/*
 * swtpm's own --key: file=PATH[,format=hex|binary] or pwdfile=PATH[,kdf=pbkdf2|sha512], and
 * mode=aes-cbc (128 bits) or aes-256-cbc. The caller wipes *key. XLV_E_INVALID, -errno.
 */
int xlv_swtpm_key(const char *spec, struct xlv_swtpm_key *key, struct xlv_error *e);

/*
 * The data of a state file; *out is the caller's. XLV_E_INVALID: not such a file, or a key
 * where it has none; XLV_E_WRONG_KEY: it needs a key, or another one (or is damaged: an HMAC
 * does not tell); XLV_E_CORRUPT; XLV_E_VERSION.
 */
int xlv_swtpm_read(const uint8_t *file, size_t length, const struct xlv_swtpm_key *key,
                   uint8_t **out, size_t *out_length, struct xlv_error *e);

/* A state file of version 2; encrypted where key has a length. */
int xlv_swtpm_write(const uint8_t *data, size_t length, const struct xlv_swtpm_key *key,
                    uint8_t **out, size_t *out_length, struct xlv_error *e);

#endif
