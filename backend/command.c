/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TPM commands and error responses as bytes: see command.h. */
#include "backend/command.h"

#include <string.h>

#include "common/bytes.h"
#include "common/error.h"

/* tags */
#define TPM_TAG_RQU_COMMAND 0x00c1u /* 1.2 */
#define TPM_TAG_RSP_COMMAND 0x00c4u /* 1.2, and 2.0's TPM_ST_RSP_COMMAND */
#define TPM_ST_NO_SESSIONS 0x8001u
#define TPM_ST_SESSIONS 0x8002u
#define TPM_TAG_NV_ATTRIBUTES 0x0017u
#define TPM_TAG_NV_DATA_PUBLIC 0x0018u

/* 1.2 ordinals */
#define TPM_ORD_EXTEND 0x14u
#define TPM_ORD_PCR_READ 0x15u
#define TPM_ORD_FORCE_CLEAR 0x5du
#define TPM_ORD_PHYSICAL_ENABLE 0x6fu
#define TPM_ORD_PHYSICAL_SET_DEACTIVATED 0x72u
#define TPM_ORD_CREATE_EK 0x78u
#define TPM_ORD_READ_PUBEK 0x7cu
#define TPM_ORD_STARTUP 0x99u
#define TPM_ORD_NV_DEFINE_SPACE 0xccu
#define TPM_ORD_NV_WRITE_VALUE 0xcdu
#define TPM_ORD_NV_READ_VALUE 0xcfu
#define TSC_ORD_PHYSICAL_PRESENCE 0x4000000au

/* 2.0 command codes */
#define TPM_CC_CLEAR 0x126u
#define TPM_CC_CLEAR_CONTROL 0x127u
#define TPM_CC_STARTUP 0x144u
#define TPM_CC_SHUTDOWN 0x145u
#define TPM_CC_STIR_RANDOM 0x146u
#define TPM_CC_NV_READ 0x14eu
#define TPM_CC_SIGN 0x15du
#define TPM_CC_START_AUTH_SESSION 0x176u
#define TPM_CC_GET_CAPABILITY 0x17au
#define TPM_CC_PCR_READ 0x17eu
#define TPM_CC_PCR_EXTEND 0x182u

#define TPM_CAP_PCRS 5u

#define TPM_RS_PW 0x40000009u
#define TPM_HT_NV_INDEX 0x01u
#define TPM_HT_HMAC_SESSION 0x02u
#define TPMA_SESSION_AUDIT 0x80u
#define PIN_SIZE 8u /* of an index with a PIN: its count and its limit */
#define TPM_SE_HMAC 0x00u
#define TPM_ALG_RSASSA 0x0014u
#define TPM_ALG_RSAPSS 0x0016u
#define TPM_ALG_ECDSA 0x0018u
#define TPM_RH_PLATFORM 0x4000000cu

#define TPM_FAIL 9u
#define TPM_RC_BAD_TAG 0x01eu

size_t xlv_command_error(enum xlv_tpm_version version, const uint8_t *request, size_t length,
                         enum xlv_command_fault fault, uint8_t response[XLV_TPM_HEADER_SIZE])
{
    /* the last one: the TPM's error for what cannot happen */
    static const uint32_t codes[XLV_FAULTS][2] = {
        [XLV_FAULT_SIZE] = { 0x19 /* TPM_BAD_PARAM_SIZE */, 0x142 /* TPM_RC_COMMAND_SIZE */ },
        [XLV_FAULT_LOCALITY] = { 0x3d /* TPM_BAD_LOCALITY */, 0x907 /* TPM_RC_LOCALITY */ },
        [XLV_FAULT_PAGES] = { 0x1f /* TPM_IOERROR */, 0x904 /* TPM_RC_MEMORY */ },
        /* "may require writing of NV and NV is not currently accessible": a
         * warning, i.e. nothing was done and it may be tried again */
        [XLV_FAULT_STORAGE] = { TPM_FAIL, 0x923 /* TPM_RC_NV_UNAVAILABLE */ },
        [XLV_FAULT_FAILURE] = { TPM_FAIL, XLV_TPM2_RC_FAILURE },
        [XLV_FAULT_RESPONSE_SIZE] = { 0x17 /* TPM_SIZE */, 0x154 /* TPM_RC_NO_RESULT */ },
    };
    struct xlv_bytes in = xlv_bytes_reader(request, length);
    struct xlv_bytes out = xlv_bytes_writer(response, XLV_TPM_HEADER_SIZE);
    uint16_t tag = xlv_get_u16_be(&in);
    uint32_t code = codes[fault][version == XLV_TPM_2_0];

    if (version != XLV_TPM_2_0) {
        /* a response without authorization, whatever the request was: Part 3, "an
         * error returns TPM_TAG_RSP_COMMAND" */
        tag = TPM_TAG_RSP_COMMAND;
    } else if (tag == TPM_ST_NO_SESSIONS || tag == TPM_ST_SESSIONS || fault != XLV_FAULT_SIZE) {
        tag = TPM_ST_NO_SESSIONS;
    } else if (length >= 2) {
        /* Part 3, 5.2: a bad tag is found before a bad size, and answered the 1.2 way */
        tag = TPM_TAG_RSP_COMMAND;
        code = TPM_RC_BAD_TAG;
    } else {
        tag = TPM_ST_NO_SESSIONS;
    }
    xlv_put_u16_be(&out, tag);
    xlv_put_u32_be(&out, XLV_TPM_HEADER_SIZE);
    xlv_put_u32_be(&out, code);
    return XLV_TPM_HEADER_SIZE;
}

static uint32_t code_at_6(const uint8_t *data, size_t length)
{
    struct xlv_bytes c = xlv_bytes_reader(data, length);

    (void)xlv_get_view(&c, 6);
    return xlv_get_u32_be(&c);
}

uint32_t xlv_command_code(const uint8_t *request, size_t length)
{
    return code_at_6(request, length);
}

uint32_t xlv_response_code(const uint8_t *response, size_t length)
{
    return length < XLV_TPM_HEADER_SIZE ? TPM_FAIL : code_at_6(response, length);
}

static struct xlv_bytes begin_long(uint8_t *out, size_t room, uint16_t tag, uint32_t code)
{
    struct xlv_bytes c = xlv_bytes_writer(out, room);

    xlv_put_u16_be(&c, tag);
    xlv_put_u32_be(&c, 0);
    xlv_put_u32_be(&c, code);
    return c;
}

static struct xlv_bytes begin(uint8_t *out, uint16_t tag, uint32_t code)
{
    return begin_long(out, XLV_COMMAND_MAX, tag, code);
}

static size_t end(struct xlv_bytes *c)
{
    struct xlv_bytes size = xlv_bytes_writer(c->data + 2, 4);

    xlv_put_u32_be(&size, (uint32_t)c->at);
    return c->at;
}

size_t xlv_command_startup(enum xlv_tpm_version version, uint8_t *out)
{
    struct xlv_bytes c;

    if (version == XLV_TPM_2_0) {
        c = begin(out, TPM_ST_NO_SESSIONS, TPM_CC_STARTUP);
        xlv_put_u16_be(&c, 0); /* TPM_SU_CLEAR */
    } else {
        c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_STARTUP);
        xlv_put_u16_be(&c, 1); /* TPM_ST_CLEAR */
    }
    return end(&c);
}

size_t xlv_command_shutdown(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_ST_NO_SESSIONS, TPM_CC_SHUTDOWN);

    xlv_put_u16_be(&c, 0); /* TPM_SU_CLEAR */
    return end(&c);
}

size_t xlv_command_stir(const uint8_t *entropy, size_t length, uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_ST_NO_SESSIONS, TPM_CC_STIR_RANDOM);

    xlv_put_u16_be(&c, (uint16_t)length);
    xlv_put_data(&c, entropy, length);
    return end(&c);
}

size_t xlv_command_get_banks(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_ST_NO_SESSIONS, TPM_CC_GET_CAPABILITY);

    xlv_put_u32_be(&c, TPM_CAP_PCRS);
    xlv_put_u32_be(&c, 0); /* property */
    xlv_put_u32_be(&c, 1); /* propertyCount */
    return end(&c);
}

int xlv_response_banks(const uint8_t *response, size_t length, unsigned *banks)
{
    struct xlv_bytes c = xlv_bytes_reader(response, length);
    uint32_t capability, count;

    *banks = 0;
    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE);
    (void)xlv_get_u8(&c); /* moreData */
    capability = xlv_get_u32_be(&c);
    count = xlv_get_u32_be(&c);
    if (xlv_response_code(response, length) || capability != TPM_CAP_PCRS)
        return XLV_E_TPM;
    /* TPMS_PCR_SELECTION, Part 2, 10.6.2; a bank without a PCR is not active */
    while (count-- && xlv_bytes_ok(&c)) {
        uint16_t algorithm = xlv_get_u16_be(&c);
        uint8_t size = xlv_get_u8(&c), any = 0;
        const uint8_t *select = xlv_get_view(&c, size);
        unsigned bank = 0;

        for (unsigned i = 0; select && i < size; i++)
            any |= select[i];
        while (bank < XLV_HASHES && xlv_hashes[bank].algorithm != algorithm)
            bank++;
        if (any && bank == XLV_HASHES)
            return XLV_E_TPM;
        if (any)
            *banks |= XLV_BANK_OF(bank);
    }
    return xlv_bytes_ok(&c) ? 0 : XLV_E_TPM;
}

/* An authorization area with the empty password. */
static void put_no_password(struct xlv_bytes *c)
{
    xlv_put_u32_be(c, 9); /* authorizationSize */
    xlv_put_u32_be(c, TPM_RS_PW);
    xlv_put_u16_be(c, 0); /* nonce */
    xlv_put_u8(c, 0);     /* sessionAttributes */
    xlv_put_u16_be(c, 0); /* hmac */
}

size_t xlv_command_allow_clear(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_ST_SESSIONS, TPM_CC_CLEAR_CONTROL);

    xlv_put_u32_be(&c, TPM_RH_PLATFORM);
    put_no_password(&c);
    xlv_put_u8(&c, 0); /* disable: NO */
    return end(&c);
}

size_t xlv_command_clear(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_ST_SESSIONS, TPM_CC_CLEAR);

    xlv_put_u32_be(&c, TPM_RH_PLATFORM);
    put_no_password(&c);
    return end(&c);
}

size_t xlv_command_force_clear(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_FORCE_CLEAR);

    return end(&c);
}

size_t xlv_command_extend(enum xlv_tpm_version version, uint32_t pcr,
                          const struct xlv_digests *digests, uint8_t *out)
{
    struct xlv_bytes c;
    uint32_t count = 0;

    if (version != XLV_TPM_2_0) {
        c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_EXTEND);
        xlv_put_u32_be(&c, pcr);
        xlv_put_data(&c, digests->of[XLV_HASH_SHA1], xlv_hashes[XLV_HASH_SHA1].size);
        return end(&c);
    }
    c = begin(out, TPM_ST_SESSIONS, TPM_CC_PCR_EXTEND);
    xlv_put_u32_be(&c, pcr);
    put_no_password(&c);
    for (unsigned i = 0; i < XLV_HASHES; i++)
        count += !!(digests->banks & XLV_BANK_OF(i));
    xlv_put_u32_be(&c, count);
    for (unsigned i = 0; i < XLV_HASHES; i++)
        if (digests->banks & XLV_BANK_OF(i)) {
            xlv_put_u16_be(&c, xlv_hashes[i].algorithm);
            xlv_put_data(&c, digests->of[i], xlv_hashes[i].size);
        }
    return end(&c);
}

size_t xlv_command_read_pcr(enum xlv_tpm_version version, uint16_t algorithm, uint32_t pcr,
                            uint8_t *out)
{
    struct xlv_bytes c;

    if (version != XLV_TPM_2_0) {
        c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_PCR_READ);
        xlv_put_u32_be(&c, pcr);
        return end(&c);
    }
    c = begin(out, TPM_ST_NO_SESSIONS, TPM_CC_PCR_READ);
    xlv_put_u32_be(&c, 1); /* TPML_PCR_SELECTION */
    xlv_put_u16_be(&c, algorithm);
    xlv_put_u8(&c, 3);
    for (uint32_t i = 0; i < 3; i++)
        xlv_put_u8(&c, pcr / 8 == i ? (uint8_t)(1u << pcr % 8) : 0);
    return end(&c);
}

int xlv_response_pcr(enum xlv_tpm_version version, const uint8_t *response, size_t length,
                     size_t size, const uint8_t **digest)
{
    struct xlv_bytes c = xlv_bytes_reader(response, length);
    uint32_t selections;

    *digest = NULL;
    if (xlv_response_code(response, length))
        return XLV_E_TPM;
    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE);
    if (version == XLV_TPM_2_0) {
        (void)xlv_get_u32_be(&c); /* pcrUpdateCounter */
        selections = xlv_get_u32_be(&c);
        (void)xlv_get_u16_be(&c);
        (void)xlv_get_view(&c, xlv_get_u8(&c));
        /* none: the bank has no such PCR */
        if (selections != 1 || xlv_get_u32_be(&c) != 1 || xlv_get_u16_be(&c) != size)
            return XLV_E_TPM;
    }
    *digest = xlv_get_view(&c, size);
    return *digest && !xlv_bytes_left(&c) ? 0 : XLV_E_TPM;
}

size_t xlv_command_presence(uint16_t bits, uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TSC_ORD_PHYSICAL_PRESENCE);

    xlv_put_u16_be(&c, bits);
    return end(&c);
}

size_t xlv_command_physical_enable(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_PHYSICAL_ENABLE);

    return end(&c);
}

size_t xlv_command_physical_activate(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_PHYSICAL_SET_DEACTIVATED);

    xlv_put_u8(&c, 0);
    return end(&c);
}

size_t xlv_command_create_ek(const uint8_t nonce[20], uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_CREATE_EK);

    xlv_put_data(&c, nonce, 20); /* antiReplay */
    /* TPM_KEY_PARMS, Part 2, 10.1 */
    xlv_put_u32_be(&c, 1);    /* TPM_ALG_RSA */
    xlv_put_u16_be(&c, 3);    /* TPM_ES_RSAESOAEP_SHA1_MGF1 */
    xlv_put_u16_be(&c, 1);    /* TPM_SS_NONE */
    xlv_put_u32_be(&c, 12);   /* parmSize */
    xlv_put_u32_be(&c, 2048); /* keyLength */
    xlv_put_u32_be(&c, 2);    /* numPrimes */
    xlv_put_u32_be(&c, 0);    /* exponentSize: the default, 65537 */
    return end(&c);
}

size_t xlv_command_read_ek(const uint8_t nonce[20], uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_READ_PUBEK);

    xlv_put_data(&c, nonce, 20); /* antiReplay */
    return end(&c);
}

/* TPM_PCR_INFO_SHORT that selects no PCR: every state of the machine will do. */
static void put_no_pcrs(struct xlv_bytes *c)
{
    static const uint8_t digest[20];

    xlv_put_u16_be(c, 3); /* sizeOfSelect */
    xlv_put_data(c, digest, 3);
    xlv_put_u8(c, 0x1f); /* every locality */
    xlv_put_data(c, digest, sizeof(digest));
}

static size_t nv_define(uint32_t index, uint32_t attributes, uint32_t size, uint8_t *out)
{
    static const uint8_t no_auth[20];
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_NV_DEFINE_SPACE);

    /* TPM_NV_DATA_PUBLIC, Part 2, 19.3 */
    xlv_put_u16_be(&c, TPM_TAG_NV_DATA_PUBLIC);
    xlv_put_u32_be(&c, index);
    put_no_pcrs(&c);
    put_no_pcrs(&c);
    xlv_put_u16_be(&c, TPM_TAG_NV_ATTRIBUTES);
    xlv_put_u32_be(&c, attributes);
    xlv_put_u8(&c, 0); /* bReadSTClear */
    xlv_put_u8(&c, 0); /* bWriteSTClear */
    xlv_put_u8(&c, 0); /* bWriteDefine */
    xlv_put_u32_be(&c, size);
    xlv_put_data(&c, no_auth, sizeof(no_auth));
    return end(&c);
}

size_t xlv_command_nv_lock(uint8_t *out)
{
    return nv_define(0xffffffff /* TPM_NV_INDEX_LOCK */, 0, 0, out);
}

size_t xlv_command_nv_define(uint32_t index, uint32_t size, uint8_t *out)
{
    /* TPM_NV_PER_PPWRITE: without one of the write permissions it may not be written at all,
     * and nobody is present in a guest; TPM_NV_PER_WRITEDEFINE; none for reading: all may */
    return nv_define(index, 0x2001, size, out);
}

size_t xlv_command_nv_write(uint32_t index, uint32_t offset, const uint8_t *data, size_t length,
                            uint8_t *out)
{
    struct xlv_bytes c = begin_long(out, XLV_COMMAND_MAX + length, TPM_TAG_RQU_COMMAND,
                                    TPM_ORD_NV_WRITE_VALUE);

    xlv_put_u32_be(&c, index);
    xlv_put_u32_be(&c, offset);
    xlv_put_u32_be(&c, (uint32_t)length);
    xlv_put_data(&c, data, length);
    return end(&c);
}

size_t xlv_command_nv_read(uint32_t index, uint32_t offset, uint32_t length, uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_TAG_RQU_COMMAND, TPM_ORD_NV_READ_VALUE);

    xlv_put_u32_be(&c, index);
    xlv_put_u32_be(&c, offset);
    xlv_put_u32_be(&c, length);
    return end(&c);
}

/* The authorisation area holds passwords and HMAC sessions only (*hmac: any), and ends where it
 * says. None of them audits: one that does is exclusive until any other command comes, which its
 * next answer tells (Part 1, 21.2), and that command may be one that leaves no trace here. */
static bool no_policy(struct xlv_bytes *c, bool *hmac)
{
    uint32_t length = xlv_get_u32_be(c);
    size_t end = c->at + length;

    *hmac = false;
    if (!length || length > xlv_bytes_left(c))
        return false;
    while (xlv_bytes_ok(c) && c->at < end) {
        uint32_t handle = xlv_get_u32_be(c);

        if (handle >> 24 == TPM_HT_HMAC_SESSION)
            *hmac = true;
        else if (handle != TPM_RS_PW)
            return false;
        (void)xlv_get_view(c, xlv_get_u16_be(c)); /* nonce */
        if (xlv_get_u8(c) & TPMA_SESSION_AUDIT)
            return false;
        (void)xlv_get_view(c, xlv_get_u16_be(c)); /* password or HMAC */
    }
    return xlv_bytes_ok(c) && c->at == end;
}

/* After its header: of a StartAuthSession without sessions, is it an HMAC session that starts? */
static bool starts_hmac(struct xlv_bytes *c)
{
    (void)xlv_get_view(c, 8);                 /* tpmKey, bind */
    (void)xlv_get_view(c, xlv_get_u16_be(c)); /* nonceCaller */
    (void)xlv_get_view(c, xlv_get_u16_be(c)); /* encryptedSalt */
    return xlv_get_u8(c) == TPM_SE_HMAC && xlv_bytes_ok(c);
}

/* After its authorisation area: of a Sign, is the scheme named, and one that ends nothing? */
static bool signs_only(struct xlv_bytes *c)
{
    uint16_t scheme;

    (void)xlv_get_view(c, xlv_get_u16_be(c)); /* digest */
    scheme = xlv_get_u16_be(c);
    return xlv_bytes_ok(c) && (scheme == TPM_ALG_RSASSA || scheme == TPM_ALG_RSAPSS ||
                               scheme == TPM_ALG_ECDSA);
}

enum xlv_command_effect xlv_command_effect(enum xlv_tpm_version version, const uint8_t *request,
                                           size_t length)
{
    static const struct {
        uint32_t code;
        unsigned handles;
        enum xlv_command_effect effect;
    } known[] = {
        { 0x134, 2, XLV_EFFECT_AGAIN },                      /* NV_Increment */
        { 0x135, 2, XLV_EFFECT_AGAIN },                      /* NV_SetBits */
        { 0x136, 2, XLV_EFFECT_AGAIN },                      /* NV_Extend */
        { 0x137, 2, XLV_EFFECT_AGAIN },                      /* NV_Write */
        { TPM_CC_NV_READ, 2, XLV_EFFECT_NOTHING },
        { TPM_CC_SIGN, 1, XLV_EFFECT_DRAWS },
        { 0x165, 0, XLV_EFFECT_AGAIN },                      /* FlushContext */
        { 0x169, 1, XLV_EFFECT_NOTHING },                    /* NV_ReadPublic */
        { 0x173, 1, XLV_EFFECT_NOTHING },                    /* ReadPublic */
        { TPM_CC_START_AUTH_SESSION, 2, XLV_EFFECT_AGAIN_DRAWS },
        { 0x17a, 0, XLV_EFFECT_NOTHING },                    /* GetCapability */
        { 0x17b, 0, XLV_EFFECT_DRAWS },                      /* GetRandom */
        { 0x17e, 0, XLV_EFFECT_NOTHING },                    /* PCR_Read */
        { 0x182, 1, XLV_EFFECT_AGAIN },                      /* PCR_Extend */
    };
    struct xlv_bytes c = xlv_bytes_reader(request, length);
    uint16_t tag = xlv_get_u16_be(&c);
    uint32_t size = xlv_get_u32_be(&c), code = xlv_get_u32_be(&c);
    uint8_t authorised_by;
    bool hmac;

    if (!xlv_bytes_ok(&c) || size != length)
        return XLV_EFFECT_ANYTHING;
    if (version == XLV_TPM_1_2)
        return tag == TPM_TAG_RQU_COMMAND && (code == TPM_ORD_EXTEND || code == TPM_ORD_PCR_READ)
                   ? XLV_EFFECT_AGAIN : XLV_EFFECT_ANYTHING;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (known[i].code != code)
            continue;
        if (tag == TPM_ST_NO_SESSIONS) /* where there has to be one, the TPM says so, no more */
            return code == TPM_CC_START_AUTH_SESSION && !starts_hmac(&c) ? XLV_EFFECT_ANYTHING
                                                                         : known[i].effect;
        if (tag != TPM_ST_SESSIONS || code == TPM_CC_START_AUTH_SESSION)
            break;
        authorised_by = length > c.at ? request[c.at] : 0;
        (void)xlv_get_view(&c, 4 * (size_t)known[i].handles);
        if (!no_policy(&c, &hmac) || (code == TPM_CC_SIGN && (hmac || !signs_only(&c))))
            break;
        if (hmac)
            return XLV_EFFECT_AGAIN_DRAWS;
        if (code == TPM_CC_NV_READ && authorised_by == TPM_HT_NV_INDEX)
            return xlv_get_u16_be(&c) <= PIN_SIZE ? XLV_EFFECT_AGAIN : XLV_EFFECT_READS;
        return known[i].effect;
    }
    return XLV_EFFECT_ANYTHING;
}

size_t xlv_command_get_audited(uint8_t *out)
{
    struct xlv_bytes c = begin(out, TPM_ST_NO_SESSIONS, TPM_CC_GET_CAPABILITY);

    xlv_put_u32_be(&c, 4); /* TPM_CAP_AUDIT_COMMANDS */
    xlv_put_u32_be(&c, 0);
    xlv_put_u32_be(&c, 2); /* one more than there always is */
    return end(&c);
}

bool xlv_response_audits(const uint8_t *response, size_t length)
{
    struct xlv_bytes c = xlv_bytes_reader(response, length);
    uint32_t capability, count, code;
    uint8_t more;

    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE);
    more = xlv_get_u8(&c);
    capability = xlv_get_u32_be(&c);
    count = xlv_get_u32_be(&c);
    code = xlv_get_u32_be(&c);
    return !xlv_bytes_ok(&c) || xlv_response_code(response, length) || more || capability != 4 ||
           count != 1 || code != XLV_TPM2_CC_SET_AUDIT;
}

bool xlv_command_was_shutdown(const uint8_t *request, size_t request_length,
                              const uint8_t *response, size_t response_length)
{
    uint8_t shutdown[XLV_COMMAND_MAX];
    size_t length = xlv_command_shutdown(shutdown);

    return request_length == length && !memcmp(request, shutdown, length) &&
           xlv_response_code(response, response_length) == 0;
}
