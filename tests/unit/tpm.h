/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TPM commands for the tests of the backend, as bytes. Each builder returns a
 * struct cmd; be(...) is in the order of TPM 2.0 Library Part 3 and TPM Main
 * Part 3.
 */
#ifndef TESTS_UNIT_TPM_H
#define TESTS_UNIT_TPM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/bytes.h"

struct cmd {
    uint8_t b[1024];
    size_t n;
};

__attribute__((unused)) static struct xlv_bytes cmd_begin(struct cmd *c, uint16_t tag,
                                                          uint32_t code)
{
    struct xlv_bytes w = xlv_bytes_writer(c->b, sizeof(c->b));

    xlv_put_u16_be(&w, tag);
    xlv_put_u32_be(&w, 0);
    xlv_put_u32_be(&w, code);
    return w;
}

__attribute__((unused)) static void cmd_end(struct cmd *c, struct xlv_bytes *w)
{
    struct xlv_bytes size = xlv_bytes_writer(c->b + 2, 4);

    xlv_put_u32_be(&size, (uint32_t)w->at);
    c->n = w->at;
}

/* --- TPM 2.0 --- */

#define TPM2_RH_OWNER 0x40000001u
#define TPM2_RH_PLATFORM 0x4000000cu
#define TPM2_RH_NULL 0x40000007u
#define TPM2_RS_PW 0x40000009u
#define TPM2_ALG_SHA256 0x000bu
#define TPM2_ALG_NULL 0x0010u

/* An authorization area with one session: empty nonce and empty authorization. */
__attribute__((unused)) static void put_auth(struct xlv_bytes *w, uint32_t session, uint8_t flags,
                                             const uint8_t *nonce, size_t nonce_length)
{
    xlv_put_u32_be(w, (uint32_t)(4 + 2 + nonce_length + 1 + 2));
    xlv_put_u32_be(w, session);
    xlv_put_u16_be(w, (uint16_t)nonce_length);
    xlv_put_data(w, nonce, nonce_length);
    xlv_put_u8(w, flags);
    xlv_put_u16_be(w, 0);
}

__attribute__((unused)) static struct cmd tpm2_pcr_extend(uint32_t pcr, uint8_t byte)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x182);
    uint8_t digest[32];

    memset(digest, byte, sizeof(digest));
    xlv_put_u32_be(&w, pcr);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_data(&w, digest, sizeof(digest));
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_pcr_read(unsigned pcr)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x17e);

    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u8(&w, 3);
    for (unsigned i = 0; i < 3; i++)
        xlv_put_u8(&w, pcr / 8 == i ? (uint8_t)(1u << pcr % 8) : 0);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_get_random(uint16_t count)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x17b);

    xlv_put_u16_be(&w, count);
    cmd_end(&c, &w);
    return c;
}

#define TPM2_NV_COUNTER 0x10u
#define TPM2_NV_BITS 0x20u
#define TPM2_NV_EXTEND 0x40u
#define TPM2_NV_ORDERLY 0x04000000u

/* OWNERWRITE, AUTHWRITE, OWNERREAD, AUTHREAD, NO_DA and what kind says. */
__attribute__((unused)) static struct cmd tpm2_nv_define(uint32_t index, uint32_t kind,
                                                         uint16_t size)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x12a);

    xlv_put_u32_be(&w, TPM2_RH_OWNER);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 0); /* auth */
    xlv_put_u16_be(&w, 14);
    xlv_put_u32_be(&w, index);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u32_be(&w, 0x02060006u | kind);
    xlv_put_u16_be(&w, 0); /* policy */
    xlv_put_u16_be(&w, size);
    cmd_end(&c, &w);
    return c;
}

/* A command on an index, authorized by its own empty password. */
__attribute__((unused)) static struct xlv_bytes nv_begin(struct cmd *c, uint32_t code,
                                                         uint32_t index)
{
    struct xlv_bytes w = cmd_begin(c, 0x8002, code);

    xlv_put_u32_be(&w, index);
    xlv_put_u32_be(&w, index);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    return w;
}

__attribute__((unused)) static struct cmd tpm2_nv_increment(uint32_t index)
{
    struct cmd c;
    struct xlv_bytes w = nv_begin(&c, 0x134, index);

    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_nv_write(uint32_t index, uint8_t byte, uint16_t size)
{
    struct cmd c;
    struct xlv_bytes w = nv_begin(&c, 0x137, index);

    xlv_put_u16_be(&w, size);
    for (unsigned i = 0; i < size; i++)
        xlv_put_u8(&w, byte);
    xlv_put_u16_be(&w, 0); /* offset */
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_nv_extend(uint32_t index, uint8_t byte)
{
    struct cmd c;
    struct xlv_bytes w = nv_begin(&c, 0x136, index);

    xlv_put_u16_be(&w, 1);
    xlv_put_u8(&w, byte);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_nv_set_bits(uint32_t index, uint64_t bits)
{
    struct cmd c;
    struct xlv_bytes w = nv_begin(&c, 0x135, index);

    xlv_put_u32_be(&w, (uint32_t)(bits >> 32));
    xlv_put_u32_be(&w, (uint32_t)bits);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_nv_undefine(uint32_t index)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x122);

    xlv_put_u32_be(&w, TPM2_RH_OWNER);
    xlv_put_u32_be(&w, index);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_nv_read(uint32_t index, uint16_t size)
{
    struct cmd c;
    struct xlv_bytes w = nv_begin(&c, 0x14e, index);

    xlv_put_u16_be(&w, size);
    xlv_put_u16_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

/* An unbound, unsalted HMAC session; its handle is at response + 10. */
__attribute__((unused)) static struct cmd tpm2_start_session(void)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x176);

    xlv_put_u32_be(&w, TPM2_RH_NULL);
    xlv_put_u32_be(&w, TPM2_RH_NULL);
    xlv_put_u16_be(&w, 16);
    for (unsigned i = 0; i < 16; i++)
        xlv_put_u8(&w, (uint8_t)i);
    xlv_put_u16_be(&w, 0);
    xlv_put_u8(&w, 0); /* TPM_SE_HMAC */
    xlv_put_u16_be(&w, TPM2_ALG_NULL);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    cmd_end(&c, &w);
    return c;
}

/* PCR_Extend authorized by a session, which goes on; with an empty key its
 * HMAC may stay empty (Part 1, 19.6). */
__attribute__((unused)) static struct cmd tpm2_pcr_extend_in_session(uint32_t pcr, uint8_t byte,
                                                                     uint32_t session)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x182);
    uint8_t digest[32], nonce[16];

    memset(digest, byte, sizeof(digest));
    memset(nonce, byte, sizeof(nonce));
    xlv_put_u32_be(&w, pcr);
    put_auth(&w, session, 1, nonce, sizeof(nonce));
    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_data(&w, digest, sizeof(digest));
    cmd_end(&c, &w);
    return c;
}

/* The same with its HMAC, which holds only for the nonce that the TPM gave last: at response + 16
 * of StartAuthSession and of this. The caller's nonce is `byte`, sixteen times. */
__attribute__((unused)) static struct cmd tpm2_pcr_extend_with_hmac(uint32_t pcr, uint8_t byte,
                                                                    uint32_t session,
                                                                    const uint8_t nonce_tpm[16])
{
    uint8_t parameters[38], nonce[16], over[32 + 16 + 16 + 1], hashed[8 + sizeof(parameters)],
            hmac[32];
    struct xlv_bytes p = xlv_bytes_writer(parameters, sizeof(parameters)),
                     h = xlv_bytes_writer(hashed, sizeof(hashed));
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x182);
    unsigned length = sizeof(hmac);

    memset(nonce, byte, sizeof(nonce));
    xlv_put_u32_be(&p, 1);
    xlv_put_u16_be(&p, TPM2_ALG_SHA256);
    for (unsigned i = 0; i < 32; i++)
        xlv_put_u8(&p, byte);
    /* Part 1, 18.7 cpHash, 19.6 authHMAC: a PCR's name is its handle; no key */
    xlv_put_u32_be(&h, 0x182);
    xlv_put_u32_be(&h, pcr);
    xlv_put_data(&h, parameters, sizeof(parameters));
    EVP_Digest(hashed, sizeof(hashed), over, NULL, EVP_sha256(), NULL);
    memcpy(over + 32, nonce, 16);
    memcpy(over + 48, nonce_tpm, 16);
    over[64] = 1; /* continueSession */
    HMAC(EVP_sha256(), "", 0, over, sizeof(over), hmac, &length);
    xlv_put_u32_be(&w, pcr);
    xlv_put_u32_be(&w, 4 + 2 + 16 + 1 + 2 + 32);
    xlv_put_u32_be(&w, session);
    xlv_put_u16_be(&w, 16);
    xlv_put_data(&w, nonce, 16);
    xlv_put_u8(&w, 1);
    xlv_put_u16_be(&w, 32);
    xlv_put_data(&w, hmac, 32);
    xlv_put_data(&w, parameters, sizeof(parameters));
    cmd_end(&c, &w);
    return c;
}

/* Handle at response + 10. */
__attribute__((unused)) static struct cmd tpm2_hash_start(void)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x186);

    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_hash_update(uint32_t handle, uint8_t byte)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x15c);

    xlv_put_u32_be(&w, handle);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 3);
    for (unsigned i = 0; i < 3; i++)
        xlv_put_u8(&w, byte);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_hash_complete(uint32_t handle)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x13e);

    xlv_put_u32_be(&w, handle);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 0);
    xlv_put_u32_be(&w, TPM2_RH_NULL);
    cmd_end(&c, &w);
    return c;
}

/* A primary ECC P-256 signing key in the owner hierarchy; handle at 10. */
__attribute__((unused)) static struct cmd tpm2_create_primary_ecc(void)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x131);

    xlv_put_u32_be(&w, TPM2_RH_OWNER);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 4); /* sensitive: no auth, no data */
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 24); /* public */
    xlv_put_u16_be(&w, 0x23); /* TPM_ALG_ECC */
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u32_be(&w, 0x00040472); /* fixed, sensitiveDataOrigin, userWithAuth, noDA, sign */
    xlv_put_u16_be(&w, 0); /* policy */
    xlv_put_u16_be(&w, TPM2_ALG_NULL);
    xlv_put_u16_be(&w, 0x18); /* ECDSA */
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u16_be(&w, 3); /* P-256 */
    xlv_put_u16_be(&w, TPM2_ALG_NULL);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 0); /* outsideInfo */
    xlv_put_u32_be(&w, 0); /* creationPCR */
    cmd_end(&c, &w);
    return c;
}

/* A signature of a digest of 32 such bytes, with SHA-256 and this scheme. */
__attribute__((unused)) static struct cmd tpm2_sign(uint32_t key, uint32_t session,
                                                    uint16_t scheme, uint8_t byte)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x15d);

    xlv_put_u32_be(&w, key);
    put_auth(&w, session, 0, NULL, 0);
    xlv_put_u16_be(&w, 32);
    for (unsigned i = 0; i < 32; i++)
        xlv_put_u8(&w, byte);
    xlv_put_u16_be(&w, scheme);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u16_be(&w, 0x8024); /* no ticket: TPM_ST_HASHCHECK, TPM_RH_NULL */
    xlv_put_u32_be(&w, TPM2_RH_NULL);
    xlv_put_u16_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

/* An RSA key under the null hierarchy, unique each time: takes its time. */
__attribute__((unused)) static struct cmd tpm2_create_primary_rsa(uint16_t bits, uint8_t unique)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x131);

    xlv_put_u32_be(&w, TPM2_RH_NULL);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 4);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 23);
    xlv_put_u16_be(&w, 1); /* TPM_ALG_RSA */
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u32_be(&w, 0x00040472);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, TPM2_ALG_NULL);
    xlv_put_u16_be(&w, TPM2_ALG_NULL);
    xlv_put_u16_be(&w, bits);
    xlv_put_u32_be(&w, 0);
    xlv_put_u16_be(&w, 1); /* unique */
    xlv_put_u8(&w, unique);
    xlv_put_u16_be(&w, 0);
    xlv_put_u32_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_flush(uint32_t handle)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x165);

    xlv_put_u32_be(&w, handle);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_evict_control(uint32_t handle, uint32_t persistent)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x120);

    xlv_put_u32_be(&w, TPM2_RH_OWNER);
    xlv_put_u32_be(&w, handle);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u32_be(&w, persistent);
    cmd_end(&c, &w);
    return c;
}

/* TPM_CAP_TPM_PROPERTIES: one property; its value is at response + 23. */
__attribute__((unused)) static struct cmd tpm2_get_property(uint32_t property)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x17a);

    xlv_put_u32_be(&w, 6);
    xlv_put_u32_be(&w, property);
    xlv_put_u32_be(&w, 1);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm2_clear_control_free(void)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x126); /* TPM2_Clear */

    xlv_put_u32_be(&w, 0x4000000a); /* lockout */
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    cmd_end(&c, &w);
    return c;
}

/* Objects and NV indices: TPM2_ReadPublic, TPM2_NV_ReadPublic. */
__attribute__((unused)) static struct cmd tpm2_read_public(uint32_t handle)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, handle >> 24 == 0x01 ? 0x169 : 0x173);

    xlv_put_u32_be(&w, handle);
    cmd_end(&c, &w);
    return c;
}

/* The command that does the least. */
__attribute__((unused)) static struct cmd tpm2_get_test_result(void)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x17c);

    cmd_end(&c, &w);
    return c;
}

/* TPM2_SetCommandCodeAuditStatus: one code more is audited. */
__attribute__((unused)) static struct cmd tpm2_audit(uint32_t code)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x140);

    xlv_put_u32_be(&w, TPM2_RH_OWNER);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, TPM2_ALG_NULL);
    xlv_put_u32_be(&w, 1);
    xlv_put_u32_be(&w, code);
    xlv_put_u32_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

/* TPM2_GetCommandAuditDigest, unsigned: the digest is the response's last 32 bytes but two
 * authorisations of 5 bytes and an empty signature of 2. */
__attribute__((unused)) static struct cmd tpm2_audit_digest(void)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x133);

    xlv_put_u32_be(&w, 0x4000000b); /* endorsement */
    xlv_put_u32_be(&w, TPM2_RH_NULL);
    xlv_put_u32_be(&w, 18);
    for (unsigned i = 0; i < 2; i++) {
        xlv_put_u32_be(&w, TPM2_RS_PW);
        xlv_put_u16_be(&w, 0);
        xlv_put_u8(&w, 0);
        xlv_put_u16_be(&w, 0);
    }
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, TPM2_ALG_NULL);
    cmd_end(&c, &w);
    return c;
}

/* --- TPM 1.2 --- */

__attribute__((unused)) static struct cmd tpm12_simple(uint32_t ordinal)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, ordinal);

    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm12_extend(uint32_t pcr, uint8_t byte)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, 0x14);

    xlv_put_u32_be(&w, pcr);
    for (unsigned i = 0; i < 20; i++)
        xlv_put_u8(&w, byte);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm12_pcr_read(uint32_t pcr)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, 0x15);

    xlv_put_u32_be(&w, pcr);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm12_get_random(uint32_t count)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, 0x46);

    xlv_put_u32_be(&w, count);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static struct cmd tpm12_startup(uint16_t type)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, 0x99);

    xlv_put_u16_be(&w, type);
    cmd_end(&c, &w);
    return c;
}

/* TPM_CAP_PROPERTY, TPM_CAP_PROP_OWNER: one byte at response + 14. */
__attribute__((unused)) static struct cmd tpm12_has_owner(void)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, 0x65);

    xlv_put_u32_be(&w, 5);
    xlv_put_u32_be(&w, 4);
    xlv_put_u32_be(&w, 0x111);
    cmd_end(&c, &w);
    return c;
}

__attribute__((unused)) static uint32_t get32(const uint8_t *p)
{
    struct xlv_bytes r = xlv_bytes_reader(p, 4);

    return xlv_get_u32_be(&r);
}

#endif
