/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Manufacture: see manufacture.h. TPM 1.2, and what both versions have in common. */
#include "config.h"

#include "backend/manufacture-internal.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "common/bytes.h"

/*
 * A certificate in a TPM 1.2's NV, by the TCG PC Client Implementation
 * Specification for Conventional BIOS 1.21, 7.4.5: TCG_TAG_PCCLIENT_STORED_CERT, type full,
 * size; TCG_TAG_PCCLIENT_FULL_CERT; DER.
 */
#define STORED_CERTIFICATE_HEADER 7u
#define TAG_STORED_CERTIFICATE 0x1001u
#define TAG_FULL_CERTIFICATE 0x1002u

/* Of one NV_WriteValue; command and response buffers are larger by far. */
#define NV_PIECE 512u

int xlv_manufacture_send(const char *name, const uint8_t *request, size_t length,
                         const uint8_t **response, size_t *response_length, struct xlv_error *e)
{
    const uint8_t *mine;
    size_t mine_length;
    uint32_t code;
    int r;

    if (!response) {
        response = &mine;
        response_length = &mine_length;
    }
    r = xlv_engine_execute(0, request, length, response, response_length, e);
    if (r)
        return r;
    code = xlv_response_code(*response, *response_length);
    return code ? xlv_fail(e, XLV_E_TPM, "the TPM answers %s with error 0x%x", name, code) : 0;
}

int xlv_manufacture_lacks(int r, struct xlv_error *e)
{
    if (r != XLV_E_TPM)
        return r;
    xlv_error_clear(e);
    return 0;
}

static int check_sizes(const struct xlv_msg_certificates *certificates, struct xlv_error *e)
{
    for (size_t i = 0; i < XLV_CERTIFICATES; i++)
        if (certificates->certificate[i].length > XLV_CERTIFICATE_MAX)
            return xlv_fail(e, XLV_E_INVALID, "a certificate of %u bytes, a TPM takes %u",
                            certificates->certificate[i].length, XLV_CERTIFICATE_MAX);
    return 0;
}

int xlv_manufacture_certify(const struct xlv_manufacture *how,
                            const struct xlv_msg_endorsement *keys,
                            struct xlv_msg_certificates *certificates, struct xlv_error *e)
{
    int r;

    memset(certificates, 0, sizeof(*certificates));
    if (!how->certify)
        return 0;
    r = how->certify(keys, certificates, how->opaque, e);
    return r ? r : check_sizes(certificates, e);
}

/* --- TPM 1.2 ------------------------------------------------------------------ */

static int send(const char *name, const uint8_t *request, size_t length, struct xlv_error *e)
{
    return xlv_manufacture_send(name, request, length, NULL, NULL, e);
}

/* The response to what gives an EK: TPM_PUBKEY (Part 2, 10.4): TPM_KEY_PARMS, TPM_STORE_PUBKEY */
static bool get_ek(const uint8_t *response, size_t length, struct xlv_msg_endorsement *keys)
{
    struct xlv_bytes c = xlv_bytes_reader(response, length);
    const uint8_t *modulus;
    uint32_t parameters, size;

    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 4 + 2 + 2);
    parameters = xlv_get_u32_be(&c);
    (void)xlv_get_view(&c, parameters);
    size = xlv_get_u32_be(&c);
    modulus = xlv_get_view(&c, 256);
    if (!modulus || size != 256)
        return false;
    keys->key[XLV_EK_RSA_2048].length = size;
    memcpy(keys->key[XLV_EK_RSA_2048].bytes, modulus, 256);
    return true;
}

static int create_ek(struct xlv_msg_endorsement *keys, struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX], nonce[20];
    const uint8_t *response;
    size_t length;
    int r;

    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        return xlv_fail(e, -EIO, "the host gives no random bytes");
    r = xlv_manufacture_send("TPM_CreateEndorsementKeyPair", out,
                             xlv_command_create_ek(nonce, out), &response, &length, e);
    if (r)
        return r;
    return get_ek(response, length, keys)
               ? 0 : xlv_fail(e, XLV_E_TPM, "the new TPM's endorsement key is not one of RSA 2048");
}

/* TPM_GetCapability(TPM_CAP_VERSION_VAL): TPM_CAP_VERSION_INFO, Part 2, 21.6 */
static int describe(struct xlv_msg_endorsement *keys, struct xlv_error *e)
{
    static const uint8_t get_version[] = { 0, 0xc1, 0, 0, 0, 18, 0, 0, 0, 0x65, 0, 0, 0, 0x1a,
                                           0, 0, 0, 0 };
    const uint8_t *response;
    struct xlv_bytes c;
    size_t length;
    int r = xlv_manufacture_send("TPM_GetCapability", get_version, sizeof(get_version), &response,
                                 &length, e);

    if (r)
        return r;
    c = xlv_bytes_reader(response, length);
    (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 4 + 2); /* size, tag */
    keys->firmware = xlv_get_u32_be(&c);                 /* major, minor, revision of both */
    (void)xlv_get_view(&c, 2 + 1);                       /* specLevel, errataRev */
    keys->manufacturer = xlv_get_u32_be(&c);
    keys->revision = 116; /* of the specification, which a TPM 1.2 does not tell */
    return xlv_bytes_ok(&c) ? 0 : xlv_fail(e, XLV_E_TPM, "the new TPM does not tell its version");
}

static int store_certificate(const uint8_t *der, size_t length, struct xlv_error *e)
{
    uint8_t stored[XLV_CERTIFICATE_MAX], out[XLV_COMMAND_MAX + NV_PIECE];
    struct xlv_bytes c = xlv_bytes_writer(stored, sizeof(stored));
    int r;

    xlv_put_u16_be(&c, TAG_STORED_CERTIFICATE);
    xlv_put_u8(&c, 0);
    xlv_put_u16_be(&c, (uint16_t)(length + 2));
    xlv_put_u16_be(&c, TAG_FULL_CERTIFICATE);
    xlv_put_data(&c, der, length);
    if (!xlv_bytes_ok(&c))
        return xlv_fail(e, XLV_E_INVALID, "a certificate of %zu bytes does not fit a TPM 1.2",
                        length);
    r = send("TPM_NV_DefineSpace", out, xlv_command_nv_define(XLV_NV_1_2_EK, (uint32_t)c.at, out),
             e);
    for (size_t at = 0; !r && at < c.at; at += NV_PIECE)
        r = send("TPM_NV_WriteValue", out,
                 xlv_command_nv_write(XLV_NV_1_2_EK, (uint32_t)at, stored + at,
                                      c.at - at < NV_PIECE ? c.at - at : NV_PIECE, out), e);
    /* and never again */
    return r ? r : send("TPM_NV_WriteValue(lock)", out,
                        xlv_command_nv_write(XLV_NV_1_2_EK, 0, NULL, 0, out), e);
}

/*
 * TPM Main Part 3: a TPM comes disabled and deactivated (5.2 and 5.3 of it are
 * for firmware with physical presence), and PhysicalSetDeactivated takes
 * effect at the next startup. Physical presence by command is switched on,
 * used, and locked again at every startup of the guest (engine.h).
 */
int xlv_manufacture_1_2(const struct xlv_manufacture *how, struct xlv_error *e)
{
    static struct xlv_msg_certificates certificates; /* large for a stack */
    struct xlv_msg_endorsement keys = { .h = { 0 } };
    uint8_t out[XLV_COMMAND_MAX];
    int r;

    r = send("TPM_Startup", out, xlv_command_startup(XLV_TPM_1_2, out), e);
    if (!r)
        r = send("TSC_PhysicalPresence(enable)", out,
                 xlv_command_presence(XLV_PRESENCE_CMD_ENABLE, out), e);
    if (!r)
        r = send("TSC_PhysicalPresence(present)", out,
                 xlv_command_presence(XLV_PRESENCE_PRESENT, out), e);
    if (!r)
        r = send("TPM_PhysicalEnable", out, xlv_command_physical_enable(out), e);
    if (!r)
        r = send("TPM_PhysicalSetDeactivated", out, xlv_command_physical_activate(out), e);
    if (!r)
        r = create_ek(&keys, e);
    if (!r)
        r = describe(&keys, e);
    if (!r)
        r = xlv_manufacture_certify(how, &keys, &certificates, e);
    if (!r && certificates.certificate[XLV_EK_RSA_2048].length)
        r = store_certificate(certificates.certificate[XLV_EK_RSA_2048].der,
                              certificates.certificate[XLV_EK_RSA_2048].length, e);
    /* the last step: until it NV ignores authorizations, which is how a maker
     * stores certificates and how no guest should ever find it */
    if (!r)
        r = send("TPM_NV_DefineSpace(lock)", out, xlv_command_nv_lock(out), e);
    return r;
}

/* In the form of store_certificate(). *found 0: there is none. */
static int find_certificate(uint8_t der[XLV_CERTIFICATE_MAX], uint32_t *found,
                            struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    const uint8_t *response, *piece;
    uint32_t size = 0, at = 0;
    struct xlv_bytes c;
    size_t length;
    int r;

    *found = 0;
    r = xlv_manufacture_send("TPM_NV_ReadValue", out,
                             xlv_command_nv_read(XLV_NV_1_2_EK, 0, STORED_CERTIFICATE_HEADER, out),
                             &response, &length, e);
    if (!r) {
        c = xlv_bytes_reader(response, length);
        (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE + 4);
        if (xlv_get_u16_be(&c) != TAG_STORED_CERTIFICATE || xlv_get_u8(&c))
            return 0;
        size = xlv_get_u16_be(&c);
        if (xlv_get_u16_be(&c) != TAG_FULL_CERTIFICATE || size < 2 ||
            size - 2 > XLV_CERTIFICATE_MAX)
            return 0;
        size -= 2;
    }
    while (!r && at < size) {
        uint32_t wanted = size - at < NV_PIECE ? size - at : NV_PIECE;

        r = xlv_manufacture_send("TPM_NV_ReadValue", out,
                                 xlv_command_nv_read(XLV_NV_1_2_EK, STORED_CERTIFICATE_HEADER + at,
                                                     wanted, out), &response, &length, e);
        if (r)
            break;
        c = xlv_bytes_reader(response, length);
        (void)xlv_get_view(&c, XLV_TPM_HEADER_SIZE);
        piece = xlv_get_u32_be(&c) == wanted ? xlv_get_view(&c, wanted) : NULL;
        if (!piece)
            return 0;
        memcpy(der + at, piece, wanted);
        at += wanted;
    }
    if (!r)
        *found = size;
    return xlv_manufacture_lacks(r, e);
}

int xlv_identify_1_2(struct xlv_msg_endorsement *keys, struct xlv_msg_certificates *held,
                     struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX], nonce[20];
    const uint8_t *response;
    size_t length;
    int r = xlv_engine_startup(e);

    if (r)
        return r;
    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        return xlv_fail(e, -EIO, "the host gives no random bytes");
    /* whoever owns a TPM 1.2 is the only one who is told its EK */
    r = xlv_manufacture_send("TPM_ReadPubek", out, xlv_command_read_ek(nonce, out), &response,
                             &length, e);
    if (!r)
        (void)get_ek(response, length, keys);
    r = xlv_manufacture_lacks(r, e);
    return r ? r : find_certificate(held->certificate[XLV_EK_RSA_2048].der,
                                    &held->certificate[XLV_EK_RSA_2048].length, e);
}

/* ------------------------------------------------------------------------------ */

int xlv_manufacture(const struct xlv_manufacture *how, uint8_t **permanent, size_t *length,
                    struct xlv_error *e)
{
    int r;

    *permanent = NULL;
    *length = 0;
    r = xlv_engine_create(how->version, e);
    if (r)
        return r;
    r = how->version == XLV_TPM_1_2 ? xlv_manufacture_1_2(how, e) : xlv_manufacture_2_0(how, e);
    if (!r)
        r = xlv_engine_permanent(permanent, length, e);
    xlv_engine_off();
    return r;
}

int xlv_renew(const struct xlv_manufacture *how, const uint8_t *old, size_t old_length,
              uint8_t **permanent, size_t *length, struct xlv_error *e)
{
    int r;

    *permanent = NULL;
    *length = 0;
    if (how->version != XLV_TPM_2_0)
        return xlv_fail(e, XLV_E_REFUSED, "a TPM 1.2 keeps its endorsement key for life");
    r = xlv_engine_load(how->version, old, old_length, NULL, 0, e);
    if (!r)
        r = xlv_renew_2_0(how, e);
    if (!r)
        r = xlv_engine_permanent(permanent, length, e);
    xlv_engine_off();
    return r;
}

/* A certificate ends where DER says, an index may be longer; what is not DER is no certificate. */
static void cut(struct xlv_msg_certificates *held)
{
    for (size_t i = 0; i < XLV_CERTIFICATES; i++) {
        const uint8_t *der = held->certificate[i].der;
        uint32_t length = held->certificate[i].length, told;

        told = length > 4 && der[0] == 0x30 && der[1] == 0x82 ? 4u + (der[2] << 8 | der[3]) : 0;
        held->certificate[i].length = told <= length ? told : 0;
    }
}

int xlv_identify(enum xlv_tpm_version version, xlv_exchange *exchange, void *opaque,
                 const uint8_t *permanent, size_t length, uint8_t **out, size_t *out_length,
                 struct xlv_error *e)
{
    static struct xlv_msg_certificates certificates; /* large for a stack */
    struct xlv_msg_endorsement keys = { .h = { 0 } };
    bool any = false;
    int r;

    *out = NULL;
    *out_length = 0;
    memset(&certificates, 0, sizeof(certificates));
    r = xlv_engine_load(version, permanent, length, NULL, 0, e);
    if (!r)
        r = version == XLV_TPM_2_0 ? xlv_identify_2_0(&keys, &certificates, e)
                                   : xlv_identify_1_2(&keys, &certificates, e);
    cut(&certificates);
    if (!r)
        r = exchange(&keys, &certificates, opaque, e);
    if (!r)
        r = check_sizes(&certificates, e);
    for (size_t i = 0; i < XLV_CERTIFICATES; i++)
        any = any || certificates.certificate[i].length;
    if (!r && any && version == XLV_TPM_1_2)
        r = xlv_fail(e, XLV_E_REFUSED, "a TPM 1.2 takes a certificate while it is made, and none "
                     "after that");
    if (!r && any)
        r = xlv_certify_2_0(&certificates, e);
    if (!r && any)
        r = xlv_engine_permanent(out, out_length, e);
    xlv_engine_off();
    return r;
}
