/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Manufacture: backend/manufacture.h. What TPM tools make of it: tests/unit/test-identity.sh. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/evp.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "backend/manufacture.h"
#include "tests/unit/tpm.h"

/* what certify() was told, and what it tells */
static struct xlv_msg_endorsement told;
static struct xlv_msg_certificates given;
static int refuse;

static int certify(const struct xlv_msg_endorsement *keys,
                   struct xlv_msg_certificates *certificates, void *opaque, struct xlv_error *e)
{
    assert_ptr_equal(opaque, &told);
    told = *keys;
    *certificates = given;
    return refuse ? xlv_fail(e, refuse, "not today") : 0;
}

static const struct xlv_manufacture how_2_0 = {
    .version = XLV_TPM_2_0, .banks = XLV_BANK_SHA256, .certify = certify, .opaque = &told,
};
static const struct xlv_manufacture how_1_2 = {
    .version = XLV_TPM_1_2, .certify = certify, .opaque = &told,
};

static uint8_t *permanent;
static size_t permanent_length;

static int down(void **state)
{
    (void)state;
    xlv_engine_off();
    xlv_engine_wipe(permanent, permanent_length);
    permanent = NULL;
    memset(&given, 0, sizeof(given));
    memset(&told, 0, sizeof(told));
    refuse = 0;
    return 0;
}

static void boot(enum xlv_tpm_version version)
{
    struct xlv_error e = XLV_ERROR_INIT;

    xlv_engine_off();
    if (xlv_engine_load(version, permanent, permanent_length, NULL, 0, &e) ||
        xlv_engine_startup(&e))
        fail_msg("%s", e.text);
}

static void make(const struct xlv_manufacture *how)
{
    struct xlv_error e = XLV_ERROR_INIT;

    if (xlv_manufacture(how, &permanent, &permanent_length, &e))
        fail_msg("%s", e.text);
    boot(how->version);
}

struct answer {
    uint8_t b[4096];
    size_t n;
    uint32_t code;
};

static void run(struct answer *a, struct cmd c)
{
    const uint8_t *response;
    struct xlv_error e = XLV_ERROR_INIT;

    assert_int_equal(xlv_engine_execute(0, c.b, c.n, &response, &a->n, &e), 0);
    memcpy(a->b, response, a->n);
    a->code = xlv_response_code(a->b, a->n);
}

static struct cmd with_handle(uint16_t tag, uint32_t code, uint32_t handle)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, tag, code);

    xlv_put_u32_be(&w, handle);
    cmd_end(&c, &w);
    return c;
}

static struct cmd read_public(uint32_t handle)
{
    return with_handle(0x8001, 0x173, handle);
}

static struct cmd get_capability(uint32_t capability, uint32_t property, uint32_t count)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x17a);

    xlv_put_u32_be(&w, capability);
    xlv_put_u32_be(&w, property);
    xlv_put_u32_be(&w, count);
    cmd_end(&c, &w);
    return c;
}

/* Certificates as long as a TPM takes them, one of each length modulo the pieces. */
static void give_certificates(unsigned count)
{
    static const uint32_t lengths[XLV_CERTIFICATES] = { XLV_CERTIFICATE_MAX, 511, 513, 1024 };

    for (unsigned i = 0; i < count; i++) {
        given.certificate[i].length = lengths[i];
        for (uint32_t k = 0; k < lengths[i]; k++)
            given.certificate[i].der[k] = (uint8_t)(k * 7 + k / 256 + i);
    }
}

/* --- keys -------------------------------------------------------------------- */

static const struct {
    uint32_t handle;
    int ek;
    size_t fixed; /* bytes of TPMT_PUBLIC before unique */
    const char *start;
} keys[] = {
    /* type, nameAlg, attributes, policy size */
    { XLV_HANDLE_EK_RSA_2048, XLV_EK_RSA_2048, 10 + 32 + 14, "\x00\x01\x00\x0b\x00\x03\x00\xb2\x00\x20" },
    { XLV_HANDLE_EK_P384, XLV_EK_P384, 10 + 48 + 12, "\x00\x23\x00\x0c\x00\x03\x00\xf2\x00\x30" },
    { XLV_HANDLE_EK_P256, XLV_EK_P256, 10 + 32 + 12, "\x00\x23\x00\x0b\x00\x03\x00\xb2\x00\x20" },
    { XLV_HANDLE_SRK, -1, 10 + 0 + 14, "\x00\x01\x00\x0b\x00\x03\x04\x72\x00\x00" },
};

static void keys_are_at_their_handles_and_those_that_were_told_of(void **state)
{
    struct answer a;

    (void)state;
    make(&how_2_0);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const uint8_t *public = a.b + 12;
        size_t length;

        run(&a, read_public(keys[i].handle));
        assert_int_equal(a.code, 0);
        assert_memory_equal(public, keys[i].start, 10);
        if (keys[i].ek < 0)
            continue;
        /* AES in CFB mode for what is under it, no scheme */
        assert_memory_equal(public + keys[i].fixed - (public[1] == 1 ? 14 : 12), "\x00\x06", 2);
        length = told.key[keys[i].ek].length;
        if (public[1] == 1) {
            assert_int_equal(length, 256);
            assert_memory_equal(public + keys[i].fixed, "\x01\x00", 2);
            assert_memory_equal(public + keys[i].fixed + 2, told.key[keys[i].ek].bytes, 256);
        } else {
            size_t half = length / 2;

            assert_int_equal(half, keys[i].ek == XLV_EK_P384 ? 48 : 32);
            assert_int_equal(public[keys[i].fixed + 1], half);
            assert_memory_equal(public + keys[i].fixed + 2, told.key[keys[i].ek].bytes, half);
            assert_memory_equal(public + keys[i].fixed + 4 + half,
                                told.key[keys[i].ek].bytes + half, half);
        }
    }
    /* no key is left over in the TPM's memory, where guests have room for three */
    run(&a, get_capability(1, 0x80000000, 8));
    assert_int_equal(a.code, 0);
    assert_memory_equal(a.b + 15, "\0\0\0\0", 4);
}

static void hash(const EVP_MD *md, uint8_t *out, const void *a, size_t a_length, const void *b,
                 size_t b_length)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();

    assert_non_null(c);
    assert_true(EVP_DigestInit_ex(c, md, NULL) && EVP_DigestUpdate(c, a, a_length) &&
                EVP_DigestUpdate(c, b, b_length) && EVP_DigestFinal_ex(c, out, NULL));
    EVP_MD_CTX_free(c);
}

/* TPM 2.0 Part 3, 23.4: PolicySecret, with an empty policyRef; the name of the hierarchy is
 * its handle. */
static void policy_secret(const EVP_MD *md, size_t size, uint8_t *digest)
{
    uint8_t first[64] = { 0 };

    hash(md, first, first, size, "\x00\x00\x01\x51\x40\x00\x00\x0b", 8);
    hash(md, digest, first, size, NULL, 0);
}

static void policies_are_what_the_profile_says_in_words(void **state)
{
    uint8_t a256[32], a384[48], c384[48], b384[48], zeros[64] = { 0 };
    uint8_t area[64], text[256];
    struct xlv_bytes w = xlv_bytes_writer(area, sizeof(area));
    uint8_t public_digest[48];
    struct answer a;

    (void)state;
    make(&how_2_0);
    policy_secret(EVP_sha256(), 32, a256);
    run(&a, read_public(XLV_HANDLE_EK_RSA_2048));
    assert_memory_equal(a.b + 12 + 10, a256, 32);
    run(&a, read_public(XLV_HANDLE_EK_P256));
    assert_memory_equal(a.b + 12 + 10, a256, 32);

    /* PolicyC: PolicyAuthorizeNV (Part 3, 23.22) of the index 0x01c07f02, whose public area is
     * in the profile: NV_WRITTEN, PPWRITE by policy, ... , a digest of SHA-384 in it */
    policy_secret(EVP_sha384(), 48, a384);
    {
        uint8_t nv[14 + 48];

        w = xlv_bytes_writer(nv, sizeof(nv));
        xlv_put_u32_be(&w, 0x01c07f02);
        xlv_put_u16_be(&w, 0x000c);
        xlv_put_u32_be(&w, 0x220f1008);
        xlv_put_u16_be(&w, 48);
        xlv_put_data(&w, a384, 48); /* written by whom the endorsement hierarchy's secret knows */
        xlv_put_u16_be(&w, 2 + 48);
        assert_true(xlv_bytes_ok(&w));
        hash(EVP_sha384(), public_digest, nv, sizeof(nv), NULL, 0);
    }
    w = xlv_bytes_writer(area, sizeof(area));
    xlv_put_u32_be(&w, 0x192);
    xlv_put_u16_be(&w, 0x000c);
    xlv_put_data(&w, public_digest, 48);
    hash(EVP_sha384(), c384, zeros, 48, area, w.at);
    /* PolicyOR (Part 3, 23.6) */
    w = xlv_bytes_writer(text, sizeof(text));
    xlv_put_u32_be(&w, 0x171);
    xlv_put_data(&w, a384, 48);
    xlv_put_data(&w, c384, 48);
    hash(EVP_sha384(), b384, zeros, 48, text, w.at);
    run(&a, read_public(XLV_HANDLE_EK_P384));
    assert_memory_equal(a.b + 12 + 10, b384, 48);
}

static void no_hierarchy_has_an_authorization(void **state)
{
    struct answer a;

    (void)state;
    make(&how_2_0);
    run(&a, get_capability(6, 0x200, 1)); /* TPM_PT_PERMANENT */
    assert_int_equal(a.code, 0);
    assert_int_equal(get32(a.b + 19), 0x200);
    assert_int_equal(get32(a.b + 23) & 7, 0); /* owner, endorsement, lockout */
    assert_int_equal(get32(a.b + 23) & 0x200, 0); /* inLockout */
}

/* --- PCR banks ----------------------------------------------------------------- */

static uint32_t banks_that_are_on(void)
{
    uint32_t on = 0, count;
    struct answer a;
    const uint8_t *p;

    run(&a, get_capability(5, 0, 1));
    assert_int_equal(a.code, 0);
    count = get32(a.b + 15);
    assert_true(count >= 1 && count <= 8);
    p = a.b + 19;
    for (uint32_t i = 0; i < count; i++, p += 6) {
        uint32_t bank = p[1] == 4 ? XLV_BANK_SHA1 : 1u << (p[1] - 10);

        assert_int_equal(p[2], 3);
        /* all 24 of a bank or none */
        assert_true((p[3] == 0xff && p[4] == 0xff && p[5] == 0xff) || !(p[3] | p[4] | p[5]));
        on |= p[3] ? bank : 0;
    }
    return on;
}

static void the_wanted_banks_are_on_and_no_others(void **state)
{
    static const uint32_t wanted[] = { XLV_BANK_SHA256, XLV_BANK_SHA1 | XLV_BANK_SHA384,
                                       XLV_BANKS_ALL };

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        struct xlv_manufacture how = how_2_0;

        how.banks = wanted[i];
        make(&how);
        assert_int_equal(banks_that_are_on(), wanted[i]);
        boot(XLV_TPM_2_0);
        assert_int_equal(banks_that_are_on(), wanted[i]);
        down(state);
    }
}

static void a_bank_that_this_tpm_has_not_is_refused(void **state)
{
    struct xlv_manufacture how = how_2_0;
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    how.banks = XLV_BANK_SHA256 | 64;
    assert_int_equal(xlv_manufacture(&how, &permanent, &permanent_length, &e), XLV_E_INVALID);
    assert_null(permanent);
    assert_non_null(strstr(e.text, "pcr-banks"));
}

/* --- certificates ---------------------------------------------------------------- */

static void certificates_are_in_their_indices_for_good(void **state)
{
    static const uint32_t index[XLV_CERTIFICATES] = { 0x01c00002, 0x01c00016, 0x01c0000a,
                                                      0x01c08000 };
    struct answer a;

    (void)state;
    give_certificates(XLV_CERTIFICATES);
    make(&how_2_0);
    for (unsigned i = 0; i < XLV_CERTIFICATES; i++) {
        uint32_t length = given.certificate[i].length;

        run(&a, with_handle(0x8001, 0x169, index[i])); /* NV_ReadPublic */
        assert_int_equal(a.code, 0);
        /* nvPublic: index, hash, attributes, policy, size; written and locked */
        assert_int_equal(get32(a.b + 12), index[i]);
        assert_int_equal(get32(a.b + 18), 0x62072801);
        assert_memory_equal(a.b + 22, "\0\0", 2);
        assert_int_equal(a.b[24] << 8 | a.b[25], length);
        for (uint32_t at = 0; at < length; at += 256) {
            uint16_t piece = (uint16_t)(length - at < 256 ? length - at : 256);
            struct cmd c;
            struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x14e); /* NV_Read by its own authorization */

            xlv_put_u32_be(&w, index[i]);
            xlv_put_u32_be(&w, index[i]);
            put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
            xlv_put_u16_be(&w, piece);
            xlv_put_u16_be(&w, (uint16_t)at);
            cmd_end(&c, &w);
            run(&a, c);
            assert_int_equal(a.code, 0);
            assert_memory_equal(a.b + 16, given.certificate[i].der + at, piece);
        }
        {
            struct cmd c;
            struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x137); /* NV_Write by the platform */

            xlv_put_u32_be(&w, TPM2_RH_PLATFORM);
            xlv_put_u32_be(&w, index[i]);
            put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
            xlv_put_u16_be(&w, 1);
            xlv_put_u8(&w, 0);
            xlv_put_u16_be(&w, 0);
            cmd_end(&c, &w);
            run(&a, c);
            assert_int_equal(a.code, 0x148); /* TPM_RC_NV_LOCKED */
        }
        {
            struct cmd c;
            struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x122); /* NV_UndefineSpace by the owner */

            xlv_put_u32_be(&w, TPM2_RH_OWNER);
            xlv_put_u32_be(&w, index[i]);
            put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
            cmd_end(&c, &w);
            run(&a, c);
            assert_int_not_equal(a.code, 0);
        }
    }
}

static void without_certificates_there_are_no_indices(void **state)
{
    struct answer a;

    (void)state;
    make(&how_2_0);
    run(&a, get_capability(1, 0x01000000, 8));
    assert_int_equal(a.code, 0);
    assert_memory_equal(a.b + 15, "\0\0\0\0", 4);
}

static void no_certificates_means_no_tpm_where_they_are_refused(void **state)
{
    static const struct xlv_manufacture *const hows[] = { &how_2_0, &how_1_2 };

    (void)state;
    refuse = XLV_E_REFUSED;
    for (size_t i = 0; i < 2; i++) {
        struct xlv_error e = XLV_ERROR_INIT;

        assert_int_equal(xlv_manufacture(hows[i], &permanent, &permanent_length, &e),
                         XLV_E_REFUSED);
        assert_null(permanent);
        assert_string_equal(e.text, "not today");
    }
}

static void a_certificate_that_is_too_long_is_refused(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    given.certificate[2].length = XLV_CERTIFICATE_MAX + 1;
    assert_int_equal(xlv_manufacture(&how_2_0, &permanent, &permanent_length, &e), XLV_E_INVALID);
    assert_null(permanent);
}

/* --- TPM 1.2 --------------------------------------------------------------------- */

static void the_ek_of_tpm_1_2_is_the_one_told_of(void **state)
{
    struct cmd c = { .n = 0 };
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, 0x7c); /* TPM_ReadPubek */
    uint8_t nonce[20] = { 1 };
    struct answer a;

    (void)state;
    make(&how_1_2);
    xlv_put_data(&w, nonce, sizeof(nonce));
    cmd_end(&c, &w);
    run(&a, c);
    assert_int_equal(a.code, 0);
    assert_int_equal(told.key[XLV_EK_RSA_2048].length, 256);
    assert_memory_equal(a.b + 38, told.key[XLV_EK_RSA_2048].bytes, 256);
    assert_int_equal(told.key[XLV_EK_P384].length, 0);
    assert_int_equal(told.key[XLV_EK_P256].length, 0);
}

static struct cmd nv_1_2(uint32_t code, uint32_t index, uint32_t offset, uint32_t length)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, code);

    xlv_put_u32_be(&w, index);
    xlv_put_u32_be(&w, offset);
    xlv_put_u32_be(&w, length);
    if (code == 0xcd)
        xlv_put_u8(&w, 0xee);
    cmd_end(&c, &w);
    return c;
}

static void the_certificate_of_tpm_1_2_is_read_by_all_and_written_by_nobody(void **state)
{
    struct answer a;
    uint8_t found[1031];

    (void)state;
    give_certificates(1);
    given.certificate[0].length = 1024;
    make(&how_1_2);
    for (uint32_t at = 0; at < sizeof(found); at += 512) {
        uint32_t piece = sizeof(found) - at < 512 ? (uint32_t)sizeof(found) - at : 512;

        run(&a, nv_1_2(0xcf, 0x1000f000, at, piece));
        assert_int_equal(a.code, 0);
        assert_int_equal(get32(a.b + 10), piece);
        memcpy(found + at, a.b + 14, piece);
    }
    assert_memory_equal(found, "\x10\x01\x00\x04\x02\x10\x02", 7);
    assert_memory_equal(found + 7, given.certificate[0].der, 1024);
    run(&a, nv_1_2(0xcd, 0x1000f000, 9, 1));
    assert_int_not_equal(a.code, 0);
    run(&a, nv_1_2(0xcf, 0x1000f000, 9, 1));
    assert_int_equal(a.b[14], found[9]);
}

static void a_certificate_that_tpm_1_2_has_no_room_for_is_refused(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    give_certificates(1);
    assert_int_equal(xlv_manufacture(&how_1_2, &permanent, &permanent_length, &e), XLV_E_INVALID);
    assert_null(permanent);
}

/* --- another identity ------------------------------------------------------------- */

#define OWNERS_INDEX 0x01500001u

static void read_all(uint32_t index, uint8_t *out, uint32_t length)
{
    struct answer a;

    for (uint32_t at = 0; at < length; at += 256) {
        uint16_t piece = (uint16_t)(length - at < 256 ? length - at : 256);
        struct cmd c;
        struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x14e); /* NV_Read by its own authorization */

        xlv_put_u32_be(&w, index);
        xlv_put_u32_be(&w, index);
        put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
        xlv_put_u16_be(&w, piece);
        xlv_put_u16_be(&w, (uint16_t)at);
        cmd_end(&c, &w);
        run(&a, c);
        assert_int_equal(a.code, 0);
        memcpy(out + at, a.b + 16, piece);
    }
}

/* TPM2_HierarchyChangeAuth of an empty one. */
static void give_password(uint32_t hierarchy)
{
    struct answer a;
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x129);

    xlv_put_u32_be(&w, hierarchy);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 4);
    xlv_put_data(&w, "word", 4);
    cmd_end(&c, &w);
    run(&a, c);
    assert_int_equal(a.code, 0);
}

/* The TPM that is on, with another identity. */
static void renew(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t *old, *renewed;
    size_t length, renewed_length;

    assert_int_equal(xlv_engine_permanent(&old, &length, &e), 0);
    xlv_engine_off();
    if (xlv_renew(&how_2_0, old, length, &renewed, &renewed_length, &e))
        fail_msg("%s", e.text);
    xlv_engine_wipe(old, length);
    xlv_engine_wipe(permanent, permanent_length);
    permanent = renewed;
    permanent_length = renewed_length;
    boot(XLV_TPM_2_0);
}

static void renewed(bool passwords)
{
    static const uint32_t index[XLV_CERTIFICATES] = { 0x01c00002, 0x01c00016, 0x01c0000a,
                                                      0x01c08000 };
    struct xlv_msg_endorsement was;
    uint8_t found[XLV_CERTIFICATE_MAX], owners[32];
    struct answer a, srk;

    give_certificates(XLV_CERTIFICATES);
    make(&how_2_0);
    was = told;
    run(&srk, read_public(XLV_HANDLE_SRK));
    run(&a, tpm2_nv_define(OWNERS_INDEX, 0, 32));
    assert_int_equal(a.code, 0);
    run(&a, tpm2_nv_write(OWNERS_INDEX, 0x5a, 32));
    assert_int_equal(a.code, 0);
    if (passwords) {
        give_password(TPM2_RH_OWNER);
        give_password(0x4000000b); /* the endorsement's goes */
    }
    for (unsigned i = 0; i < XLV_CERTIFICATES; i++)
        given.certificate[i].der[0] ^= 0xff;
    renew();
    for (int i = 0; i < XLV_EKS; i++) {
        assert_int_equal(told.key[i].length, was.key[i].length);
        assert_memory_not_equal(told.key[i].bytes, was.key[i].bytes, told.key[i].length);
    }
    for (unsigned i = 0; i < XLV_CERTIFICATES; i++) {
        read_all(index[i], found, given.certificate[i].length);
        assert_memory_equal(found, given.certificate[i].der, given.certificate[i].length);
    }
    /* only its owner can put it there, and has a password now */
    run(&a, read_public(XLV_HANDLE_EK_RSA_2048));
    assert_int_equal(a.code == 0, !passwords);
    if (!passwords)
        assert_memory_equal(a.b + 12 + keys[0].fixed + 2, told.key[XLV_EK_RSA_2048].bytes, 256);
    /* what is the owner's is as it was */
    run(&a, read_public(XLV_HANDLE_SRK));
    assert_int_equal(a.code, 0);
    assert_int_equal(a.n, srk.n);
    assert_memory_equal(a.b, srk.b, a.n);
    if (!passwords) {
        run(&a, tpm2_nv_read(OWNERS_INDEX, 32));
        assert_int_equal(a.code, 0);
        memset(owners, 0x5a, sizeof(owners));
        assert_memory_equal(a.b + 16, owners, sizeof(owners));
    }
    run(&a, get_capability(1, 0x80000000, 8));
    assert_memory_equal(a.b + 15, "\0\0\0\0", 4);
}

static void a_renewed_tpm_has_another_identity_and_the_same_owner(void **state)
{
    (void)state;
    renewed(false);
}

static void an_owners_password_stays_and_keeps_only_the_places_of_the_keys_empty(void **state)
{
    (void)state;
    renewed(true);
}

static void without_certificates_a_renewed_tpm_has_none_of_the_old_ones(void **state)
{
    struct answer a;

    (void)state;
    give_certificates(XLV_CERTIFICATES);
    make(&how_2_0);
    memset(&given, 0, sizeof(given));
    renew();
    run(&a, get_capability(1, 0x01000000, 8));
    assert_int_equal(a.code, 0);
    assert_memory_equal(a.b + 15, "\0\0\0\0", 4);
    /* nor is it renewed where they are refused */
    refuse = XLV_E_REFUSED;
    {
        uint8_t *out;
        size_t length;

        xlv_engine_off();
        assert_int_equal(xlv_renew(&how_2_0, permanent, permanent_length, &out, &length, NULL),
                         XLV_E_REFUSED);
        assert_null(out);
    }
}

static void tpm_1_2_cannot_be_renewed(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t *out;
    size_t length;

    (void)state;
    make(&how_1_2);
    assert_int_equal(xlv_renew(&how_1_2, permanent, permanent_length, &out, &length, &e),
                     XLV_E_REFUSED);
    assert_null(out);
}

int main(void)
{
#define test(name) cmocka_unit_test_teardown(name, down)
    const struct CMUnitTest tests[] = {
        test(keys_are_at_their_handles_and_those_that_were_told_of),
        test(policies_are_what_the_profile_says_in_words),
        test(no_hierarchy_has_an_authorization),
        test(the_wanted_banks_are_on_and_no_others),
        test(a_bank_that_this_tpm_has_not_is_refused),
        test(certificates_are_in_their_indices_for_good),
        test(without_certificates_there_are_no_indices),
        test(no_certificates_means_no_tpm_where_they_are_refused),
        test(a_certificate_that_is_too_long_is_refused),
        test(the_ek_of_tpm_1_2_is_the_one_told_of),
        test(the_certificate_of_tpm_1_2_is_read_by_all_and_written_by_nobody),
        test(a_certificate_that_tpm_1_2_has_no_room_for_is_refused),
        test(a_renewed_tpm_has_another_identity_and_the_same_owner),
        test(an_owners_password_stays_and_keeps_only_the_places_of_the_keys_empty),
        test(without_certificates_a_renewed_tpm_has_none_of_the_old_ones),
        test(tpm_1_2_cannot_be_renewed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
