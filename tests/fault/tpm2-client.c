/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A small TPM 2.0 client: see tpm2-client.h. */
#include "config.h"

#include "tests/fault/tpm2-client.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "common/bytes.h"

#define ST_NO_SESSIONS 0x8001u
#define ST_SESSIONS 0x8002u
#define CC_STARTUP 0x144u
#define CC_NV_DEFINE_SPACE 0x12au
#define CC_NV_INCREMENT 0x134u
#define CC_NV_READ 0x14eu
#define CC_NV_READ_PUBLIC 0x169u
#define CC_START_AUTH_SESSION 0x176u
#define CC_PCR_EXTEND 0x182u
#define CC_PCR_READ 0x17eu
#define CC_GET_RANDOM 0x17bu
#define RH_OWNER 0x40000001u
#define RH_NULL 0x40000007u
#define RS_PW 0x40000009u
#define ALG_SHA256 0x000bu
#define ALG_NULL 0x0010u
/* TPMA_NV: AUTHWRITE | counter | AUTHREAD | NO_DA */
#define NV_COUNTER 0x02040014u
#define CONTINUE_SESSION 0x01u

static struct xlv_bytes begin(struct t2_command *c, uint16_t tag, uint32_t code)
{
    struct xlv_bytes w = xlv_bytes_writer(c->data, sizeof(c->data));

    xlv_put_u16_be(&w, tag);
    xlv_put_u32_be(&w, 0);
    xlv_put_u32_be(&w, code);
    return w;
}

static void end(struct t2_command *c, struct xlv_bytes *w)
{
    struct xlv_bytes size = xlv_bytes_writer(c->data + 2, 4);

    if (!xlv_bytes_ok(w))
        abort();
    c->length = w->at;
    xlv_put_u32_be(&size, (uint32_t)w->at);
}

static void put_2b(struct xlv_bytes *w, const void *data, size_t length)
{
    xlv_put_u16_be(w, (uint16_t)length);
    xlv_put_data(w, data, length);
}

static void put_password(struct xlv_bytes *w, const char *auth)
{
    size_t n = strlen(auth);

    xlv_put_u32_be(w, (uint32_t)(4 + 2 + 1 + 2 + n));
    xlv_put_u32_be(w, RS_PW);
    xlv_put_u16_be(w, 0);
    xlv_put_u8(w, 0);
    put_2b(w, auth, n);
}

void t2_startup_clear(struct t2_command *c)
{
    struct xlv_bytes w = begin(c, ST_NO_SESSIONS, CC_STARTUP);

    xlv_put_u16_be(&w, 0);
    end(c, &w);
}

void t2_nv_define_counter(struct t2_command *c, uint32_t index, const char *auth)
{
    struct xlv_bytes w = begin(c, ST_SESSIONS, CC_NV_DEFINE_SPACE);

    xlv_put_u32_be(&w, RH_OWNER);
    put_password(&w, "");
    put_2b(&w, auth, strlen(auth));
    xlv_put_u16_be(&w, 4 + 2 + 4 + 2 + 2); /* TPM2B_NV_PUBLIC */
    xlv_put_u32_be(&w, index);
    xlv_put_u16_be(&w, ALG_SHA256);
    xlv_put_u32_be(&w, NV_COUNTER);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 8);
    end(c, &w);
}

void t2_nv_increment_password(struct t2_command *c, uint32_t index, const char *auth)
{
    struct xlv_bytes w = begin(c, ST_SESSIONS, CC_NV_INCREMENT);

    xlv_put_u32_be(&w, index);
    xlv_put_u32_be(&w, index);
    put_password(&w, auth);
    end(c, &w);
}

void t2_nv_read_public(struct t2_command *c, uint32_t index)
{
    struct xlv_bytes w = begin(c, ST_NO_SESSIONS, CC_NV_READ_PUBLIC);

    xlv_put_u32_be(&w, index);
    end(c, &w);
}

static void fresh_nonce(uint8_t nonce[T2_HASH])
{
    if (getrandom(nonce, T2_HASH, 0) != (ssize_t)T2_HASH)
        abort();
}

void t2_start_hmac_session(struct t2_command *c, struct t2_session *s)
{
    struct xlv_bytes w = begin(c, ST_NO_SESSIONS, CC_START_AUTH_SESSION);

    memset(s, 0, sizeof(*s));
    fresh_nonce(s->nonce_caller);
    xlv_put_u32_be(&w, RH_NULL); /* no salt */
    xlv_put_u32_be(&w, RH_NULL); /* not bound: the session key is empty */
    put_2b(&w, s->nonce_caller, T2_HASH);
    xlv_put_u16_be(&w, 0);
    xlv_put_u8(&w, 0); /* TPM_SE_HMAC */
    xlv_put_u16_be(&w, ALG_NULL);
    xlv_put_u16_be(&w, ALG_SHA256);
    end(c, &w);
}

static void hmac(const char *key, const uint8_t *data, size_t length, uint8_t out[T2_HASH])
{
    unsigned n = T2_HASH;

    if (!HMAC(EVP_sha256(), key, (int)strlen(key), data, length, out, &n))
        abort();
}

/* The authorisation area for a command with two handles of the same NV index. */
static void put_hmac_session(struct xlv_bytes *w, struct t2_session *s, uint32_t code,
                             const char *auth, const uint8_t *name, size_t name_length,
                             const uint8_t *parameters, size_t parameters_length)
{
    uint8_t buffer[512], mac[T2_HASH];
    struct xlv_bytes h = xlv_bytes_writer(buffer, sizeof(buffer));

    s->code = code;
    fresh_nonce(s->nonce_caller);
    xlv_put_u32_be(&h, code);
    xlv_put_data(&h, name, name_length);
    xlv_put_data(&h, name, name_length);
    xlv_put_data(&h, parameters, parameters_length);
    SHA256(buffer, h.at, s->cp_hash);

    h = xlv_bytes_writer(buffer, sizeof(buffer));
    xlv_put_data(&h, s->cp_hash, T2_HASH);
    xlv_put_data(&h, s->nonce_caller, T2_HASH);
    xlv_put_data(&h, s->nonce_tpm, T2_HASH);
    xlv_put_u8(&h, CONTINUE_SESSION);
    hmac(auth, buffer, h.at, mac);

    xlv_put_u32_be(w, 4 + 2 + T2_HASH + 1 + 2 + T2_HASH);
    xlv_put_u32_be(w, s->handle);
    put_2b(w, s->nonce_caller, T2_HASH);
    xlv_put_u8(w, CONTINUE_SESSION);
    put_2b(w, mac, T2_HASH);
}

void t2_nv_increment(struct t2_command *c, struct t2_session *s, uint32_t index, const char *auth,
                     const uint8_t *name, size_t name_length)
{
    struct xlv_bytes w = begin(c, ST_SESSIONS, CC_NV_INCREMENT);

    xlv_put_u32_be(&w, index);
    xlv_put_u32_be(&w, index);
    put_hmac_session(&w, s, CC_NV_INCREMENT, auth, name, name_length, NULL, 0);
    end(c, &w);
}

void t2_nv_read_counter(struct t2_command *c, struct t2_session *s, uint32_t index,
                        const char *auth, const uint8_t *name, size_t name_length)
{
    static const uint8_t parameters[] = { 0, 8, 0, 0 }; /* size, offset */
    struct xlv_bytes w = begin(c, ST_SESSIONS, CC_NV_READ);

    xlv_put_u32_be(&w, index);
    xlv_put_u32_be(&w, index);
    put_hmac_session(&w, s, CC_NV_READ, auth, name, name_length, parameters, sizeof(parameters));
    xlv_put_data(&w, parameters, sizeof(parameters));
    end(c, &w);
}

void t2_pcr_extend(struct t2_command *c, uint32_t pcr, const uint8_t digest[T2_HASH])
{
    struct xlv_bytes w = begin(c, ST_SESSIONS, CC_PCR_EXTEND);

    xlv_put_u32_be(&w, pcr);
    put_password(&w, "");
    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, ALG_SHA256);
    xlv_put_data(&w, digest, T2_HASH);
    end(c, &w);
}

void t2_pcr_read(struct t2_command *c, uint32_t pcr)
{
    struct xlv_bytes w = begin(c, ST_NO_SESSIONS, CC_PCR_READ);
    uint8_t select[3] = { 0 };

    select[pcr / 8] = (uint8_t)(1u << (pcr % 8));
    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, ALG_SHA256);
    xlv_put_u8(&w, sizeof(select));
    xlv_put_data(&w, select, sizeof(select));
    end(c, &w);
}

void t2_get_random(struct t2_command *c, uint16_t bytes)
{
    struct xlv_bytes w = begin(c, ST_NO_SESSIONS, CC_GET_RANDOM);

    xlv_put_u16_be(&w, bytes);
    end(c, &w);
}

uint32_t t2_code(const uint8_t *r, size_t length)
{
    struct xlv_bytes c = xlv_bytes_reader(r, length);
    uint32_t code;

    xlv_get_u16_be(&c);
    if (xlv_get_u32_be(&c) != length)
        return UINT32_MAX;
    code = xlv_get_u32_be(&c);
    return xlv_bytes_ok(&c) ? code : UINT32_MAX;
}

bool t2_ok(const uint8_t *r, size_t length)
{
    return t2_code(r, length) == 0;
}

static struct xlv_bytes body(const uint8_t *r, size_t length)
{
    struct xlv_bytes c = xlv_bytes_reader(r, length);

    xlv_get_view(&c, 10);
    return c;
}

bool t2_parse_name(const uint8_t *r, size_t length, uint8_t *name, size_t *name_length)
{
    struct xlv_bytes c = body(r, length);

    if (!t2_ok(r, length))
        return false;
    xlv_get_view(&c, xlv_get_u16_be(&c));
    *name_length = xlv_get_u16_be(&c);
    if (*name_length != 2 + T2_HASH)
        return false;
    xlv_get_data(&c, name, *name_length);
    return xlv_bytes_ok(&c);
}

bool t2_parse_session(const uint8_t *r, size_t length, struct t2_session *s)
{
    struct xlv_bytes c = body(r, length);

    if (!t2_ok(r, length))
        return false;
    s->handle = xlv_get_u32_be(&c);
    if (xlv_get_u16_be(&c) != T2_HASH)
        return false;
    xlv_get_data(&c, s->nonce_tpm, T2_HASH);
    return xlv_bytes_ok(&c);
}

bool t2_session_verify(const uint8_t *r, size_t length, struct t2_session *s, const char *auth)
{
    uint8_t buffer[512], rp_hash[T2_HASH], expected[T2_HASH];
    struct xlv_bytes c = body(r, length), h = xlv_bytes_writer(buffer, sizeof(buffer));
    const uint8_t *parameters, *nonce, *mac;
    uint32_t size;
    uint8_t attributes;

    if (!t2_ok(r, length))
        return false;
    size = xlv_get_u32_be(&c);
    parameters = xlv_get_view(&c, size);
    if (xlv_get_u16_be(&c) != T2_HASH)
        return false;
    nonce = xlv_get_view(&c, T2_HASH);
    attributes = xlv_get_u8(&c);
    if (xlv_get_u16_be(&c) != T2_HASH)
        return false;
    mac = xlv_get_view(&c, T2_HASH);
    if (!xlv_bytes_ok(&c) || xlv_bytes_left(&c))
        return false;

    xlv_put_u32_be(&h, 0); /* response code */
    xlv_put_u32_be(&h, s->code);
    xlv_put_data(&h, parameters, size);
    SHA256(buffer, h.at, rp_hash);
    h = xlv_bytes_writer(buffer, sizeof(buffer));
    xlv_put_data(&h, rp_hash, T2_HASH);
    xlv_put_data(&h, nonce, T2_HASH);
    xlv_put_data(&h, s->nonce_caller, T2_HASH);
    xlv_put_u8(&h, attributes);
    hmac(auth, buffer, h.at, expected);
    memcpy(s->nonce_tpm, nonce, T2_HASH);
    return memcmp(expected, mac, T2_HASH) == 0;
}

bool t2_parse_counter(const uint8_t *r, size_t length, uint64_t *value)
{
    struct xlv_bytes c = body(r, length);

    if (!t2_ok(r, length))
        return false;
    xlv_get_u32_be(&c); /* parameter size */
    if (xlv_get_u16_be(&c) != 8)
        return false;
    *value = (uint64_t)xlv_get_u32_be(&c) << 32;
    *value |= xlv_get_u32_be(&c);
    return xlv_bytes_ok(&c);
}

bool t2_parse_pcr(const uint8_t *r, size_t length, uint8_t digest[T2_HASH])
{
    struct xlv_bytes c = body(r, length);

    if (!t2_ok(r, length))
        return false;
    xlv_get_u32_be(&c); /* update counter */
    xlv_get_view(&c, 4 + 2 + 1 + 3);
    if (xlv_get_u32_be(&c) != 1 || xlv_get_u16_be(&c) != T2_HASH)
        return false;
    xlv_get_data(&c, digest, T2_HASH);
    return xlv_bytes_ok(&c);
}

bool t2_parse_random(const uint8_t *r, size_t length, uint8_t *out, uint16_t bytes)
{
    struct xlv_bytes c = body(r, length);

    if (!t2_ok(r, length) || xlv_get_u16_be(&c) != bytes)
        return false;
    xlv_get_data(&c, out, bytes);
    return xlv_bytes_ok(&c);
}

void t2_extend_digest(uint8_t pcr[T2_HASH], const uint8_t digest[T2_HASH])
{
    uint8_t both[2 * T2_HASH];

    memcpy(both, pcr, T2_HASH);
    memcpy(both + T2_HASH, digest, T2_HASH);
    SHA256(both, sizeof(both), pcr);
}
