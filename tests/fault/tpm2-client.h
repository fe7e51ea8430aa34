/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small TPM 2.0 client for tests that must notice a command that was lost,
 * executed twice, or answered from another state: NV counters, PCRs, and HMAC
 * sessions whose nonces roll with every command and whose answers are verified
 * (TPM 2.0 Library, part 1, "Session-based authorizations").
 *
 * Commands are built and answers judged by pure functions; how they travel is
 * the caller's.
 */
#ifndef TPM2_CLIENT_H
#define TPM2_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define T2_MAX 4096u
#define T2_HASH 32u /* SHA-256 everywhere */

struct t2_command {
    uint8_t data[T2_MAX];
    size_t length;
};

struct t2_session {
    uint32_t handle;
    uint8_t nonce_tpm[T2_HASH], nonce_caller[T2_HASH];
    uint8_t cp_hash[T2_HASH];
    uint32_t code; /* of the command under way */
};

#define T2_COUNTER_INDEX 0x01500001u
#define T2_COUNTER_AUTH "secret"

/* Commands. The password of the owner is empty. */
void t2_startup_clear(struct t2_command *c);
void t2_nv_define_counter(struct t2_command *c, uint32_t index, const char *auth);
void t2_nv_increment_password(struct t2_command *c, uint32_t index, const char *auth);
void t2_nv_read_public(struct t2_command *c, uint32_t index);
void t2_start_hmac_session(struct t2_command *c, struct t2_session *s);
void t2_nv_increment(struct t2_command *c, struct t2_session *s, uint32_t index, const char *auth,
                     const uint8_t *name, size_t name_length);
void t2_nv_read_counter(struct t2_command *c, struct t2_session *s, uint32_t index,
                        const char *auth, const uint8_t *name, size_t name_length);
void t2_pcr_extend(struct t2_command *c, uint32_t pcr, const uint8_t digest[T2_HASH]);
void t2_pcr_read(struct t2_command *c, uint32_t pcr);
void t2_get_random(struct t2_command *c, uint16_t bytes);

/* Answers: all return true where the answer is a success of the right shape. */
bool t2_ok(const uint8_t *r, size_t length);
uint32_t t2_code(const uint8_t *r, size_t length);
bool t2_parse_name(const uint8_t *r, size_t length, uint8_t *name, size_t *name_length);
bool t2_parse_session(const uint8_t *r, size_t length, struct t2_session *s);
/* Verifies the answer's HMAC and rolls the nonce. */
bool t2_session_verify(const uint8_t *r, size_t length, struct t2_session *s, const char *auth);
bool t2_parse_counter(const uint8_t *r, size_t length, uint64_t *value);
bool t2_parse_pcr(const uint8_t *r, size_t length, uint8_t digest[T2_HASH]);
bool t2_parse_random(const uint8_t *r, size_t length, uint8_t *out, uint16_t bytes);

/* PCR = SHA-256(PCR || digest) */
void t2_extend_digest(uint8_t pcr[T2_HASH], const uint8_t digest[T2_HASH]);

#endif
