/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Manufacture of a TPM 2.0: see manufacture.h.
 *
 * Sources: TCG EK Credential Profile for TPM Family 2.0 (templates L-1, L-2, H-3 in annex B,
 * NV indices in 2.2.1.4), TCG TPM v2.0 Provisioning Guidance 1.0 (SRK, 7.5.1; NV attributes,
 * 5), TPM 2.0 Library Part 2 (structures) and 3 (commands).
 *
 * A primary key is derived from its seed and its template, byte by byte, so
 * whoever repeats one of these templates gets the same key, and a certificate
 * for a key of another template is for a key that no tool ever finds.
 */
#include "config.h"

#include "backend/manufacture-internal.h"

#include <stdbool.h>
#include <string.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "common/bytes.h"

#define TPM_ST_NO_SESSIONS 0x8001u
#define TPM_ST_SESSIONS 0x8002u
#define TPM_RS_PW 0x40000009u
#define TPM_RH_OWNER 0x40000001u
#define TPM_RH_ENDORSEMENT 0x4000000bu
#define TPM_RH_PLATFORM 0x4000000cu

#define TPM_CC_EVICT_CONTROL 0x120u
#define TPM_CC_NV_UNDEFINE_SPACE 0x122u
#define TPM_CC_CHANGE_EPS 0x124u
#define TPM_CC_NV_DEFINE_SPACE 0x12au
#define TPM_CC_PCR_ALLOCATE 0x12bu
#define TPM_CC_CREATE_PRIMARY 0x131u
#define TPM_CC_NV_WRITE 0x137u
#define TPM_CC_NV_WRITE_LOCK 0x138u
#define TPM_CC_NV_READ 0x14eu
#define TPM_CC_FLUSH_CONTEXT 0x165u
#define TPM_CC_NV_READ_PUBLIC 0x169u
#define TPM_CC_READ_PUBLIC 0x173u
#define TPM_CC_GET_CAPABILITY 0x17au
#define TPM_CAP_PCRS 5u
#define TPM_CAP_TPM_PROPERTIES 6u
#define TPM_RC_HANDLE_2 0x28bu   /* TPM_RC_HANDLE, of the second handle */
#define TPM_RC_BAD_AUTH_1 0x9a2u /* TPM_RC_BAD_AUTH, of the first session */
#define TPM_RC_NV_DEFINED 0x14cu
#define TPM_PT_REVISION 0x102u
#define TPM_PT_MANUFACTURER 0x105u
#define TPM_PT_FIRMWARE_VERSION_1 0x10bu

#define TPM_ALG_RSA 0x0001u
#define TPM_ALG_SHA1 0x0004u
#define TPM_ALG_AES 0x0006u
#define TPM_ALG_SHA256 0x000bu
#define TPM_ALG_SHA384 0x000cu
#define TPM_ALG_SHA512 0x000du
#define TPM_ALG_NULL 0x0010u
#define TPM_ALG_ECC 0x0023u
#define TPM_ALG_CFB 0x0043u
#define TPM_ECC_NIST_P256 0x0003u
#define TPM_ECC_NIST_P384 0x0004u

/* TPMA_OBJECT */
#define FIXED_TPM 0x00000002u
#define FIXED_PARENT 0x00000010u
#define SENSITIVE_DATA_ORIGIN 0x00000020u
#define USER_WITH_AUTH 0x00000040u
#define ADMIN_WITH_POLICY 0x00000080u
#define NO_DA 0x00000400u
#define RESTRICTED 0x00010000u
#define DECRYPT 0x00020000u
#define STORAGE (FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | DECRYPT)

/* TPMA_NV: written by the platform once, then locked; read by everybody */
#define NV_PPWRITE 0x00000001u
#define NV_WRITEDEFINE 0x00002000u
#define NV_PPREAD 0x00010000u
#define NV_OWNERREAD 0x00020000u
#define NV_AUTHREAD 0x00040000u
#define NV_NO_DA 0x02000000u
#define NV_PLATFORMCREATE 0x40000000u
#define NV_CERTIFICATE (NV_PPWRITE | NV_WRITEDEFINE | NV_PPREAD | NV_OWNERREAD | NV_AUTHREAD | \
                        NV_NO_DA | NV_PLATFORMCREATE)

/* Of one NV_Write: libtpms's MAX_NV_BUFFER_SIZE is 1024, the least that a TPM may have 512. */
#define NV_PIECE 512u

/* PolicyA of the profile: PolicySecret(TPM_RH_ENDORSEMENT). */
static const uint8_t policy_a_sha256[] = {
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
};

/* PolicyB: PolicyOR(PolicyA, PolicyC: PolicyAuthorizeNV(0x01c07f02)). */
static const uint8_t policy_b_sha384[] = {
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
};

struct template {
    const char *name;
    uint32_t hierarchy, handle;
    uint32_t attributes;
    uint16_t hash;
    const uint8_t *policy;
    uint16_t policy_length;
    uint16_t aes_bits;
    uint16_t curve;  /* 0: RSA 2048 */
    uint16_t unique; /* zeros in each field of unique */
    uint16_t field;  /* bytes of a field of the key itself */
    int ek;          /* enum xlv_ek, or -1 */
};

static const struct template templates[] = {
    { /* L-1 */
        .name = "TPM2_CreatePrimary(EK RSA 2048)",
        .hierarchy = TPM_RH_ENDORSEMENT,
        .handle = XLV_HANDLE_EK_RSA_2048,
        .attributes = STORAGE | ADMIN_WITH_POLICY,
        .hash = TPM_ALG_SHA256,
        .policy = policy_a_sha256,
        .policy_length = sizeof(policy_a_sha256),
        .aes_bits = 128,
        .unique = 256,
        .field = 256,
        .ek = XLV_EK_RSA_2048,
    },
    { /* H-3 */
        .name = "TPM2_CreatePrimary(EK P-384)",
        .hierarchy = TPM_RH_ENDORSEMENT,
        .handle = XLV_HANDLE_EK_P384,
        .attributes = STORAGE | ADMIN_WITH_POLICY | USER_WITH_AUTH,
        .hash = TPM_ALG_SHA384,
        .policy = policy_b_sha384,
        .policy_length = sizeof(policy_b_sha384),
        .aes_bits = 256,
        .curve = TPM_ECC_NIST_P384,
        .unique = 0,
        .field = 48,
        .ek = XLV_EK_P384,
    },
    { /* L-2 */
        .name = "TPM2_CreatePrimary(EK P-256)",
        .hierarchy = TPM_RH_ENDORSEMENT,
        .handle = XLV_HANDLE_EK_P256,
        .attributes = STORAGE | ADMIN_WITH_POLICY,
        .hash = TPM_ALG_SHA256,
        .policy = policy_a_sha256,
        .policy_length = sizeof(policy_a_sha256),
        .aes_bits = 128,
        .curve = TPM_ECC_NIST_P256,
        .unique = 32,
        .field = 32,
        .ek = XLV_EK_P256,
    },
    { /* RSA, as swtpm's, and as those expect who do not read what it is (go-tpm-tools) */
        .name = "TPM2_CreatePrimary(SRK)",
        .hierarchy = TPM_RH_OWNER,
        .handle = XLV_HANDLE_SRK,
        .attributes = STORAGE | USER_WITH_AUTH | NO_DA,
        .hash = TPM_ALG_SHA256,
        .aes_bits = 128,
        .unique = 256,
        .field = 256,
        .ek = -1,
    },
};

/* --- commands ----------------------------------------------------------------- */

struct request {
    uint8_t bytes[1024];
    struct xlv_bytes c;
};

static void begin_tagged(struct request *q, uint16_t tag, uint32_t code, const uint32_t *handles,
                         size_t count)
{
    q->c = xlv_bytes_writer(q->bytes, sizeof(q->bytes));
    xlv_put_u16_be(&q->c, tag);
    xlv_put_u32_be(&q->c, 0);
    xlv_put_u32_be(&q->c, code);
    for (size_t i = 0; i < count; i++)
        xlv_put_u32_be(&q->c, handles[i]);
}

/* A command that needs no authorization. */
static void begin_plain(struct request *q, uint32_t code, const uint32_t *handles, size_t count)
{
    begin_tagged(q, TPM_ST_NO_SESSIONS, code, handles, count);
}

/* A command with handles, of which the first is authorized by an empty password. */
static void begin(struct request *q, uint32_t code, const uint32_t *handles, size_t count)
{
    begin_tagged(q, TPM_ST_SESSIONS, code, handles, count);
    xlv_put_u32_be(&q->c, 4 + 2 + 1 + 2);
    xlv_put_u32_be(&q->c, TPM_RS_PW);
    xlv_put_u16_be(&q->c, 0);
    xlv_put_u8(&q->c, 0);
    xlv_put_u16_be(&q->c, 0);
}

static int send(struct request *q, const char *name, const uint8_t **response, size_t *length,
                struct xlv_error *e)
{
    struct xlv_bytes size = xlv_bytes_writer(q->bytes + 2, 4);

    xlv_put_u32_be(&size, (uint32_t)q->c.at);
    if (!xlv_bytes_ok(&q->c))
        return xlv_fail(e, XLV_E_INVALID, "%s is too long", name);
    return xlv_manufacture_send(name, q->bytes, q->c.at, response, length, e);
}

static void put_zeros(struct xlv_bytes *c, uint16_t count)
{
    xlv_put_u16_be(c, count);
    for (uint16_t i = 0; i < count; i++)
        xlv_put_u8(c, 0);
}

/* TPMT_PUBLIC */
static void put_public(struct xlv_bytes *c, const struct template *t)
{
    xlv_put_u16_be(c, t->curve ? TPM_ALG_ECC : TPM_ALG_RSA);
    xlv_put_u16_be(c, t->hash);
    xlv_put_u32_be(c, t->attributes);
    xlv_put_u16_be(c, t->policy_length);
    xlv_put_data(c, t->policy, t->policy_length);
    xlv_put_u16_be(c, TPM_ALG_AES);
    xlv_put_u16_be(c, t->aes_bits);
    xlv_put_u16_be(c, TPM_ALG_CFB);
    xlv_put_u16_be(c, TPM_ALG_NULL); /* scheme */
    if (t->curve) {
        xlv_put_u16_be(c, t->curve);
        xlv_put_u16_be(c, TPM_ALG_NULL); /* kdf */
        put_zeros(c, t->unique);
    } else {
        xlv_put_u16_be(c, 2048);
        xlv_put_u32_be(c, 0); /* exponent: the default, 65537 */
    }
    put_zeros(c, t->unique);
}

/* What comes before unique, as put_public() has it: sizes, type to policy, symmetric, scheme, then
 * curve and kdf, or bits and exponent. */
static size_t fixed_part(const struct template *t)
{
    return 2 + 2 + 4 + 2 + (size_t)t->policy_length + 6 + 2 + (t->curve ? 4 : 6);
}

/* A field of unique, of at most `room` bytes, with its leading zeros. */
static bool get_field(struct xlv_bytes *c, uint8_t *out, size_t room)
{
    size_t length = xlv_get_u16_be(c);
    const uint8_t *bytes = xlv_get_view(c, length);

    if (!bytes || length > room)
        return false;
    memset(out, 0, room - length);
    memcpy(out + room - length, bytes, length);
    return true;
}

/* The key in a TPM2B_PUBLIC, if it is one of this template. */
static bool get_key(struct xlv_bytes *c, const struct template *t, struct xlv_msg_endorsement *keys)
{
    uint8_t wanted[512], *key = keys->key[t->ek].bytes;
    struct xlv_bytes w = xlv_bytes_writer(wanted, sizeof(wanted));
    const uint8_t *fixed;

    put_public(&w, t);
    (void)xlv_get_u16_be(c);
    fixed = xlv_get_view(c, fixed_part(t));
    if (!fixed || !xlv_bytes_ok(&w) || memcmp(fixed, wanted, fixed_part(t)) ||
        !get_field(c, key, t->field) || (t->curve && !get_field(c, key + t->field, t->field)))
        return false;
    keys->key[t->ek].length = t->curve ? 2u * t->field : t->field;
    return true;
}

static int create(const struct template *t, uint32_t *handle, struct xlv_msg_endorsement *keys,
                  struct xlv_error *e)
{
    struct request q;
    struct xlv_bytes c, size;
    const uint8_t *response;
    size_t length, at;
    int r;

    begin(&q, TPM_CC_CREATE_PRIMARY, &t->hierarchy, 1);
    xlv_put_u16_be(&q.c, 4); /* inSensitive: no authorization, no data */
    xlv_put_u32_be(&q.c, 0);
    at = q.c.at;
    xlv_put_u16_be(&q.c, 0);
    put_public(&q.c, t);
    size = xlv_bytes_writer(q.bytes + at, 2);
    xlv_put_u16_be(&size, (uint16_t)(q.c.at - at - 2));
    xlv_put_u16_be(&q.c, 0); /* outsideInfo */
    xlv_put_u32_be(&q.c, 0); /* creationPCR */
    r = send(&q, t->name, &response, &length, e);
    if (r)
        return r;
    c = xlv_bytes_reader(response, length);
    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE);
    *handle = xlv_get_u32_be(&c);
    if (t->ek < 0)
        return xlv_bytes_ok(&c) ? 0 : xlv_fail(e, XLV_E_TPM, "%s answers too little", t->name);
    (void)xlv_get_u32_be(&c); /* parameterSize */
    return get_key(&c, t, keys)
               ? 0 : xlv_fail(e, XLV_E_TPM, "%s gives another kind of key", t->name);
}

static int flush(uint32_t handle, struct xlv_error *e)
{
    struct request q;

    begin_plain(&q, TPM_CC_FLUSH_CONTEXT, &handle, 1);
    return send(&q, "TPM2_FlushContext", NULL, NULL, e);
}

/* owned: the TPM may have an owner with a password, or with another key in that place; then it
 * stays without the key, which whoever needs it makes from its template. */
static int persist(const struct template *t, uint32_t handle, bool owned, struct xlv_error *e)
{
    const uint32_t handles[] = { TPM_RH_OWNER, handle };
    struct request q;
    const uint8_t *response = NULL;
    size_t length = 0;
    uint32_t code;
    int r;

    begin(&q, TPM_CC_EVICT_CONTROL, handles, 2);
    xlv_put_u32_be(&q.c, t->handle);
    r = send(&q, "TPM2_EvictControl", &response, &length, e);
    code = r == XLV_E_TPM && response ? xlv_response_code(response, length) : 0;
    if (owned && (code == TPM_RC_BAD_AUTH_1 || code == TPM_RC_NV_DEFINED)) {
        xlv_error_clear(e);
        r = 0;
    }
    return r ? r : flush(handle, e);
}

/* owned: what is the owner's is left alone. */
static int make_keys(struct xlv_msg_endorsement *keys, bool owned, struct xlv_error *e)
{
    uint32_t handle;
    int r = 0;

    for (size_t i = 0; !r && i < sizeof(templates) / sizeof(templates[0]); i++) {
        if (owned && templates[i].ek < 0)
            continue;
        r = create(&templates[i], &handle, keys, e);
        if (!r)
            r = persist(&templates[i], handle, owned, e);
    }
    return r;
}

/* TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES) of one property. */
static int get_property(uint32_t property, uint32_t *value, struct xlv_error *e)
{
    struct request q;
    struct xlv_bytes c;
    const uint8_t *response;
    size_t length;
    int r;

    begin_plain(&q, TPM_CC_GET_CAPABILITY, NULL, 0);
    xlv_put_u32_be(&q.c, TPM_CAP_TPM_PROPERTIES);
    xlv_put_u32_be(&q.c, property);
    xlv_put_u32_be(&q.c, 1);
    r = send(&q, "TPM2_GetCapability", &response, &length, e);
    if (r)
        return r;
    c = xlv_bytes_reader(response, length);
    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 1 + 4 + 4);
    if (xlv_get_u32_be(&c) != property)
        return xlv_fail(e, XLV_E_TPM, "the new TPM does not tell its property 0x%x", property);
    *value = xlv_get_u32_be(&c);
    return 0;
}

static int describe(struct xlv_msg_endorsement *keys, struct xlv_error *e)
{
    int r = get_property(TPM_PT_MANUFACTURER, &keys->manufacturer, e);

    if (!r)
        r = get_property(TPM_PT_FIRMWARE_VERSION_1, &keys->firmware, e);
    if (!r)
        r = get_property(TPM_PT_REVISION, &keys->revision, e);
    return r;
}

/* --- NV ------------------------------------------------------------------------ */

static int store_certificate(uint32_t index, const uint8_t *der, uint32_t length,
                             struct xlv_error *e)
{
    static const uint32_t platform = TPM_RH_PLATFORM;
    const uint32_t handles[] = { TPM_RH_PLATFORM, index };
    struct request q;
    int r;

    begin(&q, TPM_CC_NV_DEFINE_SPACE, &platform, 1);
    xlv_put_u16_be(&q.c, 0); /* authorization: empty */
    xlv_put_u16_be(&q.c, 14);
    xlv_put_u32_be(&q.c, index);
    xlv_put_u16_be(&q.c, TPM_ALG_SHA256);
    xlv_put_u32_be(&q.c, NV_CERTIFICATE);
    xlv_put_u16_be(&q.c, 0); /* policy */
    xlv_put_u16_be(&q.c, (uint16_t)length);
    r = send(&q, "TPM2_NV_DefineSpace", NULL, NULL, e);
    for (uint32_t at = 0; !r && at < length; at += NV_PIECE) {
        uint32_t piece = length - at < NV_PIECE ? length - at : NV_PIECE;

        begin(&q, TPM_CC_NV_WRITE, handles, 2);
        xlv_put_u16_be(&q.c, (uint16_t)piece);
        xlv_put_data(&q.c, der + at, piece);
        xlv_put_u16_be(&q.c, (uint16_t)at);
        r = send(&q, "TPM2_NV_Write", NULL, NULL, e);
    }
    if (r)
        return r;
    begin(&q, TPM_CC_NV_WRITE_LOCK, handles, 2);
    return send(&q, "TPM2_NV_WriteLock", NULL, NULL, e);
}

static const uint32_t indices[XLV_CERTIFICATES] = {
    [XLV_EK_RSA_2048] = XLV_NV_EK_RSA_2048,
    [XLV_EK_P384] = XLV_NV_EK_P384,
    [XLV_EK_P256] = XLV_NV_EK_P256,
    [XLV_CERTIFICATE_PLATFORM] = XLV_NV_PLATFORM,
};

static int store_certificates(const struct xlv_msg_certificates *m, struct xlv_error *e)
{
    int r = 0;

    for (size_t i = 0; !r && i < XLV_CERTIFICATES; i++)
        if (m->certificate[i].length)
            r = store_certificate(indices[i], m->certificate[i].der, m->certificate[i].length, e);
    return r;
}

/* What is there has gone, or there was nothing. */
static int remove_certificate(uint32_t index, struct xlv_error *e)
{
    const uint32_t handles[] = { TPM_RH_PLATFORM, index };
    const uint8_t *response = NULL;
    struct request q;
    size_t length = 0;
    int r;

    begin(&q, TPM_CC_NV_UNDEFINE_SPACE, handles, 2);
    r = send(&q, "TPM2_NV_UndefineSpace", &response, &length, e);
    if (r != XLV_E_TPM || !response || xlv_response_code(response, length) != TPM_RC_HANDLE_2)
        return r;
    xlv_error_clear(e);
    return 0;
}

/* --- PCR banks ------------------------------------------------------------------ */

static uint32_t bank_of(uint16_t hash)
{
    switch (hash) {
    case TPM_ALG_SHA1:
        return XLV_BANK_SHA1;
    case TPM_ALG_SHA256:
        return XLV_BANK_SHA256;
    case TPM_ALG_SHA384:
        return XLV_BANK_SHA384;
    case TPM_ALG_SHA512:
        return XLV_BANK_SHA512;
    default:
        return 0;
    }
}

/* Takes effect with the next startup, which is the guest's first. */
static int allocate_pcrs(uint32_t banks, struct xlv_error *e)
{
    static const uint8_t get_pcrs[] = { 0x80, 0x01, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0,
                                        TPM_CAP_PCRS, 0, 0, 0, 0, 0, 0, 0, 1 };
    static const uint32_t platform = TPM_RH_PLATFORM;
    struct request q;
    struct xlv_bytes c;
    const uint8_t *response;
    size_t length;
    uint32_t count, found = 0;
    int r = xlv_manufacture_send("TPM2_GetCapability(TPM_CAP_PCRS)", get_pcrs, sizeof(get_pcrs),
                                 &response, &length, e);

    if (r)
        return r;
    /* the answer's TPML_PCR_SELECTION names every bank that this TPM has */
    c = xlv_bytes_reader(response, length);
    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 1 + 4);
    count = xlv_get_u32_be(&c);
    begin(&q, TPM_CC_PCR_ALLOCATE, &platform, 1);
    xlv_put_u32_be(&q.c, count);
    for (uint32_t i = 0; i < count && xlv_bytes_ok(&c); i++) {
        uint16_t hash = xlv_get_u16_be(&c);
        uint8_t size = xlv_get_u8(&c);
        bool on = (bank_of(hash) & banks) != 0;

        (void)xlv_get_view(&c, size);
        found |= bank_of(hash);
        xlv_put_u16_be(&q.c, hash);
        xlv_put_u8(&q.c, size);
        for (uint8_t k = 0; k < size; k++)
            xlv_put_u8(&q.c, on ? 0xff : 0);
    }
    if (!xlv_bytes_ok(&c) || (banks & ~found))
        return xlv_fail(e, XLV_E_INVALID, "this libtpms does not have all the PCR banks that are "
                        "wanted (pcr-banks; bits %#x of %#x)", banks, found);
    r = send(&q, "TPM2_PCR_Allocate", &response, &length, e);
    if (r)
        return r;
    c = xlv_bytes_reader(response, length);
    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 4);
    return xlv_get_u8(&c) == 1 ? 0 : xlv_fail(e, XLV_E_TPM, "the new TPM has no room for the PCR "
                                              "banks that are wanted (bits %#x)", banks);
}

/* --- another identity ------------------------------------------------------------- */

/* New seed and proof: the keys of the endorsement hierarchy are gone, the persistent ones too, and
 * its authorization and policy are empty (Part 3, 24.5). */
static int change_seed(struct xlv_error *e)
{
    static const uint32_t platform = TPM_RH_PLATFORM;
    struct request q;

    begin(&q, TPM_CC_CHANGE_EPS, &platform, 1);
    return send(&q, "TPM2_ChangeEPS", NULL, NULL, e);
}

/* Those for the keys that are gone, whoever made them: of the low and the high range. */
static int remove_certificates(struct xlv_error *e)
{
    static const uint32_t others[] = { 0x01c0001c /* RSA 3072 */, 0x01c0001e /* RSA 4096 */ };
    int r = 0;

    for (size_t i = 0; !r && i < XLV_CERTIFICATES; i++)
        r = remove_certificate(indices[i], e);
    for (size_t i = 0; !r && i < sizeof(others) / sizeof(others[0]); i++)
        r = remove_certificate(others[i], e);
    return r;
}

/* Endorsement and storage root keys at their handles, and the certificates for them. renew: of a
 * TPM that had others. */
static int make_identity(const struct xlv_manufacture *how, bool renew, struct xlv_error *e)
{
    static struct xlv_msg_certificates certificates; /* large for a stack */
    struct xlv_msg_endorsement keys = { .h = { 0 } };
    int r = make_keys(&keys, renew, e);

    if (!r)
        r = describe(&keys, e);
    if (!r)
        r = xlv_manufacture_certify(how, &keys, &certificates, e);
    return r ? r : store_certificates(&certificates, e);
}

int xlv_renew_2_0(const struct xlv_manufacture *how, struct xlv_error *e)
{
    uint8_t shutdown[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t request_length, length;
    int r = xlv_engine_startup(e);

    if (!r)
        r = change_seed(e);
    if (!r)
        r = remove_certificates(e);
    if (!r)
        r = make_identity(how, true, e);
    if (!r)
        r = xlv_engine_shutdown(shutdown, &request_length, &response, &length, e);
    return r;
}

/* --- what identifies a TPM that is there ------------------------------------------------ */

/* The key of the template: the one at its handle, or made again from the seed. None, where its
 * owner lets nobody do that. */
static int find_key(const struct template *t, struct xlv_msg_endorsement *keys,
                    struct xlv_error *e)
{
    struct request q;
    struct xlv_bytes c;
    const uint8_t *response;
    size_t length;
    uint32_t handle;
    int r;

    begin_plain(&q, TPM_CC_READ_PUBLIC, &t->handle, 1);
    r = send(&q, "TPM2_ReadPublic", &response, &length, e);
    if (!r) {
        c = xlv_bytes_reader(response, length);
        (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE);
        if (get_key(&c, t, keys))
            return 0;
    } else if (r != XLV_E_TPM) {
        return r;
    }
    xlv_error_clear(e);
    r = create(t, &handle, keys, e);
    if (!r)
        return flush(handle, e);
    keys->key[t->ek].length = 0;
    return xlv_manufacture_lacks(r, e);
}

static int find_certificate(uint32_t index, uint8_t der[XLV_CERTIFICATE_MAX], uint32_t *found,
                            struct xlv_error *e)
{
    const uint32_t handles[] = { index, index };
    struct request q;
    struct xlv_bytes c;
    const uint8_t *response, *piece;
    size_t length;
    uint32_t size = 0, policy;
    int r;

    begin_plain(&q, TPM_CC_NV_READ_PUBLIC, &index, 1);
    r = send(&q, "TPM2_NV_ReadPublic", &response, &length, e);
    if (!r) { /* TPMS_NV_PUBLIC: index, nameAlg, attributes, policy, size */
        c = xlv_bytes_reader(response, length);
        (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 2 + 4 + 2 + 4);
        policy = xlv_get_u16_be(&c);
        (void)xlv_get_view(&c, policy);
        size = xlv_get_u16_be(&c);
        if (!xlv_bytes_ok(&c) || size > XLV_CERTIFICATE_MAX)
            size = 0;
    }
    for (uint32_t at = 0; !r && at < size; at += NV_PIECE) {
        uint32_t wanted = size - at < NV_PIECE ? size - at : NV_PIECE;

        begin(&q, TPM_CC_NV_READ, handles, 2);
        xlv_put_u16_be(&q.c, (uint16_t)wanted);
        xlv_put_u16_be(&q.c, (uint16_t)at);
        r = send(&q, "TPM2_NV_Read", &response, &length, e);
        if (r)
            break;
        c = xlv_bytes_reader(response, length);
        (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 4);
        piece = xlv_get_u16_be(&c) == wanted ? xlv_get_view(&c, wanted) : NULL;
        if (!piece)
            return xlv_fail(e, XLV_E_TPM, "TPM2_NV_Read answers too little");
        memcpy(der + at, piece, wanted);
    }
    *found = r ? 0 : size;
    return xlv_manufacture_lacks(r, e);
}

int xlv_identify_2_0(struct xlv_msg_endorsement *keys, struct xlv_msg_certificates *held,
                     struct xlv_error *e)
{
    int r = xlv_engine_startup(e);

    for (size_t i = 0; !r && i < sizeof(templates) / sizeof(templates[0]); i++)
        if (templates[i].ek >= 0)
            r = find_key(&templates[i], keys, e);
    for (size_t i = 0; !r && i < XLV_CERTIFICATES; i++)
        r = find_certificate(indices[i], held->certificate[i].der, &held->certificate[i].length,
                             e);
    return r;
}

int xlv_certify_2_0(const struct xlv_msg_certificates *certificates, struct xlv_error *e)
{
    uint8_t shutdown[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t request_length, length;
    int r = 0;

    for (size_t i = 0; !r && i < XLV_CERTIFICATES; i++)
        if (certificates->certificate[i].length)
            r = remove_certificate(indices[i], e);
    if (!r)
        r = store_certificates(certificates, e);
    return r ? r : xlv_engine_shutdown(shutdown, &request_length, &response, &length, e);
}

/* ------------------------------------------------------------------------------- */

int xlv_manufacture_2_0(const struct xlv_manufacture *how, struct xlv_error *e)
{
    uint8_t shutdown[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t request_length, length;
    int r = xlv_engine_startup(e);

    if (!r)
        r = make_identity(how, false, e);
    if (!r)
        r = allocate_pcrs(how->banks, e);
    if (!r)
        r = xlv_engine_shutdown(shutdown, &request_length, &response, &length, e);
    return r;
}
