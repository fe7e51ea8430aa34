/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands: see commands.h. */
#include "config.h"

#include "bench/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/bytes.h"

#define NO_SESSIONS 0x8001u
#define SESSIONS 0x8002u
#define ORDINARY 0x00c1u /* TPM 1.2 */
#define RH_OWNER 0x40000001u
#define RS_PW 0x40000009u
#define SHA256 0x000bu
#define AES 0x0006u
#define CFB 0x0043u
#define NV_PLAIN 0x01500001u
#define NV_COUNTER 0x01500002u
#define NV_SECRET 0x01500003u
#define NV_SIZE 64u

static const uint8_t secret[] = { 's', 'e', 's', 'a', 'm', 'e' };

static struct xlv_bytes begin(uint8_t *buffer, uint16_t tag, uint32_t code)
{
    struct xlv_bytes w = xlv_bytes_writer(buffer, BENCH_BUFFER);

    xlv_put_u16_be(&w, tag);
    xlv_put_u32_be(&w, 0);
    xlv_put_u32_be(&w, code);
    return w;
}

/* The authorisation area with one password. */
static void password(struct xlv_bytes *w, const uint8_t *auth, uint16_t length)
{
    xlv_put_u32_be(w, 9u + length);
    xlv_put_u32_be(w, RS_PW);
    xlv_put_u16_be(w, 0);
    xlv_put_u8(w, 0);
    xlv_put_u16_be(w, length);
    xlv_put_data(w, auth, length);
}

int64_t bench_send(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                   size_t *rsp_length)
{
    size_t got;
    int r = p->transact(p, cmd, length, rsp, &got);

    if (r)
        return r;
    if (got < 10)
        return -EPROTO;
    if (rsp_length)
        *rsp_length = got;
    return (int64_t)((uint32_t)rsp[6] << 24 | (uint32_t)rsp[7] << 16 | (uint32_t)rsp[8] << 8 |
                     rsp[9]);
}

static int64_t send(struct bench_peer *p, uint8_t *cmd, const struct xlv_bytes *w, uint8_t *rsp,
                    size_t *rsp_length)
{
    cmd[2] = (uint8_t)(w->at >> 24);
    cmd[3] = (uint8_t)(w->at >> 16);
    cmd[4] = (uint8_t)(w->at >> 8);
    cmd[5] = (uint8_t)w->at;
    return bench_send(p, cmd, w->at, rsp, rsp_length);
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A digest-sized value that differs from round to round. */
static void put_value(struct xlv_bytes *w, unsigned i, size_t length)
{
    uint8_t value[NV_SIZE] = { 0 };

    value[0] = (uint8_t)(i >> 24);
    value[1] = (uint8_t)(i >> 16);
    value[2] = (uint8_t)(i >> 8);
    value[3] = (uint8_t)i;
    xlv_put_data(w, value, length);
}

/* ------------------------------------------------------------------ preparation */

static int64_t define(struct bench_peer *p, uint32_t index, uint32_t attributes, uint16_t size,
                      const uint8_t *auth, uint16_t auth_length)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, SESSIONS, 0x12a);

    xlv_put_u32_be(&w, RH_OWNER);
    password(&w, NULL, 0);
    xlv_put_u16_be(&w, auth_length);
    xlv_put_data(&w, auth, auth_length);
    xlv_put_u16_be(&w, 14);
    xlv_put_u32_be(&w, index);
    xlv_put_u16_be(&w, SHA256);
    xlv_put_u32_be(&w, attributes);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, size);
    return send(p, cmd, &w, rsp, NULL);
}

/* An unrestricted signing key, RSA-2048 with RSASSA or ECC P-256 with ECDSA, both of SHA-256. */
static int64_t create_key(struct bench_peer *p, bool rsa, uint32_t *handle)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, SESSIONS, 0x131);
    int64_t r;

    xlv_put_u32_be(&w, RH_OWNER);
    password(&w, NULL, 0);
    xlv_put_u16_be(&w, 4);
    xlv_put_u32_be(&w, 0);
    xlv_put_u16_be(&w, 24);
    xlv_put_u16_be(&w, rsa ? 0x0001 : 0x0023);
    xlv_put_u16_be(&w, SHA256);
    xlv_put_u32_be(&w, 0x00040472); /* sign, userWithAuth, noDA, sensitiveDataOrigin, fixed* */
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 0x0010); /* no symmetric algorithm */
    if (rsa) {
        xlv_put_u16_be(&w, 0x0014);
        xlv_put_u16_be(&w, SHA256);
        xlv_put_u16_be(&w, 2048);
        xlv_put_u32_be(&w, 0);
        xlv_put_u16_be(&w, 0);
    } else {
        xlv_put_u16_be(&w, 0x0018);
        xlv_put_u16_be(&w, SHA256);
        xlv_put_u16_be(&w, 0x0003); /* NIST P-256 */
        xlv_put_u16_be(&w, 0x0010); /* no KDF */
        xlv_put_u16_be(&w, 0);
        xlv_put_u16_be(&w, 0);
    }
    xlv_put_u16_be(&w, 0);
    xlv_put_u32_be(&w, 0);
    r = send(p, cmd, &w, rsp, NULL);
    if (!r)
        *handle = u32_at(rsp + 10);
    return r;
}

int64_t bench_make_rsa_key(struct bench_peer *p)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    uint32_t handle = 0;
    int64_t r = create_key(p, true, &handle);
    struct xlv_bytes w = begin(cmd, NO_SESSIONS, 0x165);

    xlv_put_u32_be(&w, handle);
    return r ? r : send(p, cmd, &w, rsp, NULL);
}

static int64_t write_nv(struct bench_peer *p, uint32_t index, unsigned i, const uint8_t *auth,
                        uint16_t auth_length)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, SESSIONS, 0x137);

    xlv_put_u32_be(&w, index);
    xlv_put_u32_be(&w, index);
    password(&w, auth, auth_length);
    xlv_put_u16_be(&w, NV_SIZE);
    put_value(&w, i, NV_SIZE);
    xlv_put_u16_be(&w, 0);
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t nv_increment(struct bench_peer *p, const struct bench_objects *o, unsigned i);

int64_t bench_prepare_nv(struct bench_peer *p)
{
    int64_t r;

    /* AUTHREAD, AUTHWRITE, NO_DA */
    r = define(p, NV_PLAIN, 0x02040004, NV_SIZE, NULL, 0);
    if (!r)
        r = define(p, NV_COUNTER, 0x02040014, 8, NULL, 0);
    if (!r)
        r = define(p, NV_SECRET, 0x02040004, NV_SIZE, secret, sizeof(secret));
    if (!r)
        r = write_nv(p, NV_PLAIN, UINT32_MAX, NULL, 0);
    if (!r)
        r = write_nv(p, NV_SECRET, 1, secret, sizeof(secret));
    if (!r)
        r = nv_increment(p, NULL, 0);
    return r;
}

int64_t bench_prepare(struct bench_peer *p, struct bench_objects *o)
{
    int64_t r = p->tpm12 ? 0 : bench_prepare_nv(p);

    if (!r && !p->tpm12)
        r = create_key(p, true, &o->rsa);
    if (!r && !p->tpm12)
        r = create_key(p, false, &o->ecc);
    return r;
}

/* ------------------------------------------------------------------ TPM 2.0 */

static int64_t get_random(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, NO_SESSIONS, 0x17b);

    (void)o, (void)i;
    xlv_put_u16_be(&w, 32);
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t pcr_extend(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, SESSIONS, 0x182);

    (void)o;
    xlv_put_u32_be(&w, 10);
    password(&w, NULL, 0);
    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, SHA256);
    put_value(&w, i, 32);
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t pcr_read(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    static const uint8_t pcr_10[3] = { 0, 1u << 2, 0 };
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, NO_SESSIONS, 0x17e);

    (void)o, (void)i;
    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, SHA256);
    xlv_put_u8(&w, sizeof(pcr_10));
    xlv_put_data(&w, pcr_10, sizeof(pcr_10));
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t nv_read(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, SESSIONS, 0x14e);

    (void)o, (void)i;
    xlv_put_u32_be(&w, NV_PLAIN);
    xlv_put_u32_be(&w, NV_PLAIN);
    password(&w, NULL, 0);
    xlv_put_u16_be(&w, NV_SIZE);
    xlv_put_u16_be(&w, 0);
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t nv_write(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    (void)o;
    return write_nv(p, NV_PLAIN, i, NULL, 0);
}

static int64_t nv_increment(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, SESSIONS, 0x134);

    (void)o, (void)i;
    xlv_put_u32_be(&w, NV_COUNTER);
    xlv_put_u32_be(&w, NV_COUNTER);
    password(&w, NULL, 0);
    return send(p, cmd, &w, rsp, NULL);
}

/* Name of NV_SECRET, with the attribute WRITTEN that it has by now. */
static void name_of_secret(uint8_t name[34])
{
    uint8_t public[14];
    struct xlv_bytes w = xlv_bytes_writer(public, sizeof(public));

    xlv_put_u32_be(&w, NV_SECRET);
    xlv_put_u16_be(&w, SHA256);
    xlv_put_u32_be(&w, 0x22040004);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, NV_SIZE);
    name[0] = SHA256 >> 8;
    name[1] = SHA256 & 0xff;
    EVP_Digest(public, sizeof(public), name + 2, NULL, EVP_sha256(), NULL);
}

/* An unbound, unsalted HMAC session, and NV_Read authorised by it, which ends it. */
static int64_t session(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    static uint8_t name[34];
    static bool named;
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER], nonce[16] = { 1, 2, 3 }, cp[32], mac[32],
            text[4 + 68 + 4], over[32 + 16 + 16 + 1];
    struct xlv_bytes w = begin(cmd, NO_SESSIONS, 0x176);
    uint32_t handle = 0;
    int64_t r;

    (void)o, (void)i;
    if (!named)
        name_of_secret(name);
    named = true;
    xlv_put_u32_be(&w, 0x40000007); /* no key, no entity */
    xlv_put_u32_be(&w, 0x40000007);
    xlv_put_u16_be(&w, sizeof(nonce));
    xlv_put_data(&w, nonce, sizeof(nonce));
    xlv_put_u16_be(&w, 0);
    xlv_put_u8(&w, 0); /* HMAC */
    xlv_put_u16_be(&w, 0x0010);
    xlv_put_u16_be(&w, SHA256);
    r = send(p, cmd, &w, rsp, NULL);
    if (r)
        return r;
    handle = u32_at(rsp + 10);

    /* cpHash: code, names of both handles, parameters */
    w = xlv_bytes_writer(text, sizeof(text));
    xlv_put_u32_be(&w, 0x14e);
    xlv_put_data(&w, name, sizeof(name));
    xlv_put_data(&w, name, sizeof(name));
    xlv_put_u16_be(&w, NV_SIZE);
    xlv_put_u16_be(&w, 0);
    EVP_Digest(text, w.at, cp, NULL, EVP_sha256(), NULL);
    /* HMAC: cpHash, our nonce, the TPM's, attributes (none: the session ends) */
    w = xlv_bytes_writer(over, sizeof(over));
    xlv_put_data(&w, cp, sizeof(cp));
    xlv_put_data(&w, nonce, sizeof(nonce));
    xlv_put_data(&w, rsp + 16, 16);
    xlv_put_u8(&w, 0);
    HMAC(EVP_sha256(), secret, sizeof(secret), over, w.at, mac, NULL);

    w = begin(cmd, SESSIONS, 0x14e);
    xlv_put_u32_be(&w, NV_SECRET);
    xlv_put_u32_be(&w, NV_SECRET);
    xlv_put_u32_be(&w, 4 + 2 + 16 + 1 + 2 + 32);
    xlv_put_u32_be(&w, handle);
    xlv_put_u16_be(&w, sizeof(nonce));
    xlv_put_data(&w, nonce, sizeof(nonce));
    xlv_put_u8(&w, 0);
    xlv_put_u16_be(&w, sizeof(mac));
    xlv_put_data(&w, mac, sizeof(mac));
    xlv_put_u16_be(&w, NV_SIZE);
    xlv_put_u16_be(&w, 0);
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t sign(struct bench_peer *p, uint32_t key, uint16_t scheme, unsigned i)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, SESSIONS, 0x15d);

    xlv_put_u32_be(&w, key);
    password(&w, NULL, 0);
    xlv_put_u16_be(&w, 32);
    put_value(&w, i, 32);
    xlv_put_u16_be(&w, scheme);
    xlv_put_u16_be(&w, SHA256);
    xlv_put_u16_be(&w, 0x8024); /* no ticket */
    xlv_put_u32_be(&w, 0x40000007);
    xlv_put_u16_be(&w, 0);
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t sign_rsa(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    return sign(p, o->rsa, 0x0014, i);
}

static int64_t sign_ecc(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    return sign(p, o->ecc, 0x0018, i);
}

/* ------------------------------------------------------------------ TPM 1.2 */

static int64_t extend12(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, ORDINARY, 0x14);

    (void)o;
    xlv_put_u32_be(&w, 10);
    put_value(&w, i, 20);
    return send(p, cmd, &w, rsp, NULL);
}

static int64_t pcr_read12(struct bench_peer *p, const struct bench_objects *o, unsigned i)
{
    uint8_t cmd[BENCH_BUFFER], rsp[BENCH_BUFFER];
    struct xlv_bytes w = begin(cmd, ORDINARY, 0x15);

    (void)o, (void)i;
    xlv_put_u32_be(&w, 10);
    return send(p, cmd, &w, rsp, NULL);
}

const struct bench_command bench_commands[] = {
    { "GetRandom", BENCH_READS, false, get_random },
    { "PCR_Read", BENCH_READS, false, pcr_read },
    { "NV_Read", BENCH_READS, false, nv_read },
    { "PCR_Extend", BENCH_VOLATILE, false, pcr_extend },
    { "HMAC session + NV_Read", BENCH_VOLATILE, false, session },
    { "NV_Write", BENCH_DURABLE, false, nv_write },
    { "NV_Increment", BENCH_DURABLE, false, nv_increment },
    { "Sign ECC P-256", BENCH_COMPUTES, false, sign_ecc },
    { "Sign RSA-2048", BENCH_COMPUTES, false, sign_rsa },
    { "1.2 PcrRead", BENCH_READS, true, pcr_read12 },
    { "1.2 Extend", BENCH_VOLATILE, true, extend12 },
};
const size_t bench_command_count = sizeof(bench_commands) / sizeof(*bench_commands);

const struct bench_command *bench_command(const char *name)
{
    const struct bench_command *c = bench_commands;

    while (strcmp(c->name, name))
        c++;
    return c;
}

bool bench_arguments(int argc, char **argv, unsigned *rounds, const char **only)
{
    bool good = true;
    int opt;

    while ((opt = getopt(argc, argv, "n:c:")) != -1)
        switch (opt) {
        case 'n':
            *rounds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'c':
            *only = optarg;
            break;
        default:
            good = false;
        }
    if (good && optind + 1 == argc && *rounds)
        return true;
    fprintf(stderr, "usage: %s [-n ROUNDS] [-c COMMAND] DIRECTORY\n", argv[0]);
    return false;
}
