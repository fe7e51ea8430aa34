/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tpm.c - see tpm.h. Layouts from the TPM 2.0 Library Part 3 and the TPM 1.2 Commands.
 */
#include "config.h"

#include "tests/integration/tpm.h"

#include <errno.h>
#include <openssl/sha.h>
#include <string.h>

struct cmd {
    uint8_t *p;
    size_t n;
};

static void u8(struct cmd *c, uint8_t v)
{
    c->p[c->n++] = v;
}

static void u16(struct cmd *c, uint16_t v)
{
    u8(c, (uint8_t)(v >> 8));
    u8(c, (uint8_t)v);
}

static void u32(struct cmd *c, uint32_t v)
{
    u16(c, (uint16_t)(v >> 16));
    u16(c, (uint16_t)v);
}

static void bytes(struct cmd *c, const void *p, size_t n)
{
    memcpy(c->p + c->n, p, n);
    c->n += n;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static struct cmd begin(uint8_t *buf, uint16_t tag, uint32_t code)
{
    struct cmd c = { buf, 0 };

    u16(&c, tag);
    u32(&c, 0);
    u32(&c, code);
    return c;
}

static size_t end(struct cmd *c)
{
    struct cmd size = { c->p + 2, 0 };

    u32(&size, (uint32_t)c->n);
    return c->n;
}

/* An authorisation area with one empty password. */
static void password(struct cmd *c)
{
    u32(c, 9);
    u32(c, 0x40000009);
    u16(c, 0);
    u8(c, 0);
    u16(c, 0);
}

int64_t tpm_response(const uint8_t *rsp, size_t len)
{
    if (len < 10 || get32(rsp + 2) != len)
        return TPM_BAD_ANSWER;
    return get32(rsp + 6);
}

int64_t tpm_send(struct fx_frontend *f, const uint8_t *cmd, size_t n, uint8_t *rsp, size_t *len)
{
    size_t got;
    int r = fx_frontend_transact(f, 0, cmd, n, rsp, 4096, &got, TPM_TIMEOUT);

    if (r)
        return r;
    if (len)
        *len = got;
    return tpm_response(rsp, got);
}

size_t tpm2_get_random(uint8_t *cmd, uint16_t n)
{
    struct cmd c = begin(cmd, 0x8001, 0x17b);

    u16(&c, n);
    return end(&c);
}

size_t tpm2_pcr_extend(uint8_t *cmd, uint32_t pcr, const uint8_t digest[32])
{
    struct cmd c = begin(cmd, 0x8002, 0x182);

    u32(&c, pcr);
    password(&c);
    u32(&c, 1);
    u16(&c, 0x000b);
    bytes(&c, digest, 32);
    return end(&c);
}

size_t tpm2_create_primary_rsa(uint8_t *cmd)
{
    struct cmd c = begin(cmd, 0x8002, 0x131);

    u32(&c, 0x40000001);
    password(&c);
    u16(&c, 4);                          /* sensitive: no auth, no data */
    u16(&c, 0);
    u16(&c, 0);
    u16(&c, 26);                         /* public: RSA-2048 storage key */
    u16(&c, 0x0001);
    u16(&c, 0x000b);
    u32(&c, 0x00030072);
    u16(&c, 0);
    u16(&c, 0x0006);
    u16(&c, 128);
    u16(&c, 0x0043);
    u16(&c, 0x0010);
    u16(&c, 2048);
    u32(&c, 0);
    u16(&c, 0);
    u16(&c, 0);                          /* outside info */
    u32(&c, 0);                          /* creation PCRs */
    return end(&c);
}

int64_t tpm2_random(struct fx_frontend *f, uint8_t *out, uint16_t n)
{
    uint8_t cmd[64], rsp[4096];
    size_t len;
    int64_t r = tpm_send(f, cmd, tpm2_get_random(cmd, n), rsp, &len);

    if (r)
        return r;
    if (len != 12u + n)
        return TPM_BAD_ANSWER;
    memcpy(out, rsp + 12, n);
    return 0;
}

int64_t tpm2_extend(struct fx_frontend *f, uint32_t pcr, const uint8_t digest[32])
{
    uint8_t cmd[128], rsp[4096];

    return tpm_send(f, cmd, tpm2_pcr_extend(cmd, pcr, digest), rsp, NULL);
}

int64_t tpm2_read_pcr(struct fx_frontend *f, uint32_t pcr, uint8_t digest[32])
{
    uint8_t buf[64], rsp[4096], select[3] = { 0 };
    struct cmd c = begin(buf, 0x8001, 0x17e);
    size_t len;
    int64_t r;

    select[pcr / 8] = (uint8_t)(1u << pcr % 8);
    u32(&c, 1);
    u16(&c, 0x000b);
    u8(&c, 3);
    bytes(&c, select, 3);
    r = tpm_send(f, buf, end(&c), rsp, &len);
    if (r)
        return r;
    /* update counter, selection as asked for, one digest of 32 bytes */
    if (len != 10 + 4 + 10 + 4 + 2 + 32)
        return TPM_BAD_ANSWER;
    memcpy(digest, rsp + len - 32, 32);
    return 0;
}

int64_t tpm2_nv_define(struct fx_frontend *f)
{
    uint8_t buf[128], rsp[4096];
    struct cmd c = begin(buf, 0x8002, 0x12a);

    u32(&c, 0x40000001);
    password(&c);
    u16(&c, 0);                          /* auth of the index */
    u16(&c, 14);
    u32(&c, TPM2_NV_INDEX);
    u16(&c, 0x000b);
    u32(&c, 0x02060006);                 /* OWNER and AUTH, READ and WRITE, NO_DA */
    u16(&c, 0);
    u16(&c, TPM2_NV_SIZE);
    return tpm_send(f, buf, end(&c), rsp, NULL);
}

int64_t tpm2_nv_write(struct fx_frontend *f, const uint8_t data[TPM2_NV_SIZE])
{
    uint8_t buf[128], rsp[4096];
    struct cmd c = begin(buf, 0x8002, 0x137);

    u32(&c, 0x40000001);
    u32(&c, TPM2_NV_INDEX);
    password(&c);
    u16(&c, TPM2_NV_SIZE);
    bytes(&c, data, TPM2_NV_SIZE);
    u16(&c, 0);
    return tpm_send(f, buf, end(&c), rsp, NULL);
}

int64_t tpm2_nv_read(struct fx_frontend *f, uint8_t data[TPM2_NV_SIZE])
{
    uint8_t buf[128], rsp[4096];
    struct cmd c = begin(buf, 0x8002, 0x14e);
    size_t len;
    int64_t r;

    u32(&c, 0x40000001);
    u32(&c, TPM2_NV_INDEX);
    password(&c);
    u16(&c, TPM2_NV_SIZE);
    u16(&c, 0);
    r = tpm_send(f, buf, end(&c), rsp, &len);
    if (r)
        return r;
    if (len < 16 + TPM2_NV_SIZE)
        return TPM_BAD_ANSWER;
    memcpy(data, rsp + 16, TPM2_NV_SIZE);
    return 0;
}

void tpm2_expected_pcr(uint8_t pcr[32], const uint8_t digest[32], unsigned int n)
{
    uint8_t both[64];

    memset(pcr, 0, 32);
    while (n--) {
        memcpy(both, pcr, 32);
        memcpy(both + 32, digest, 32);
        SHA256(both, sizeof(both), pcr);
    }
}

int64_t tpm12_startup(struct fx_frontend *f)
{
    uint8_t buf[32], rsp[4096];
    struct cmd c = begin(buf, 0x00c1, 0x99);

    u16(&c, 1);
    return tpm_send(f, buf, end(&c), rsp, NULL);
}

size_t tpm12_pcr_read(uint8_t *cmd, uint32_t pcr)
{
    struct cmd c = begin(cmd, 0x00c1, 0x15);

    u32(&c, pcr);
    return end(&c);
}

int64_t tpm12_read_pcr(struct fx_frontend *f, uint32_t pcr, uint8_t digest[20])
{
    uint8_t cmd[32], rsp[4096];
    size_t len;
    int64_t r = tpm_send(f, cmd, tpm12_pcr_read(cmd, pcr), rsp, &len);

    if (r)
        return r;
    if (len != 30)
        return TPM_BAD_ANSWER;
    memcpy(digest, rsp + 10, 20);
    return 0;
}

int64_t tpm12_extend(struct fx_frontend *f, uint32_t pcr, const uint8_t digest[20])
{
    uint8_t buf[64], rsp[4096];
    struct cmd c = begin(buf, 0x00c1, 0x14);

    u32(&c, pcr);
    bytes(&c, digest, 20);
    return tpm_send(f, buf, end(&c), rsp, NULL);
}

int64_t tpm12_random(struct fx_frontend *f, uint8_t *out, uint32_t n)
{
    uint8_t buf[64], rsp[4096];
    struct cmd c = begin(buf, 0x00c1, 0x46);
    size_t len;
    int64_t r;

    u32(&c, n);
    r = tpm_send(f, buf, end(&c), rsp, &len);
    if (r)
        return r;
    if (len != 14 + n)
        return TPM_BAD_ANSWER;
    memcpy(out, rsp + 14, n);
    return 0;
}
