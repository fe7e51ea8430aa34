/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The archive of one instance (libxl-vtpm/archive.h), which comes on a medium that is not to be
 * trusted, and may come with its passphrase. Input: u8
 *     bit 0   the rest is a file; else it is the payload of one that is sealed well
 *     bit 1   and is changed afterwards: the next two bytes say where, the third how
 * What opens is what was sealed; a refusal gives nothing and says why; what was opened can be sealed
 * and opened again.
 */
#include "config.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "fuzz/fuzz.h"
#include "libxl-vtpm/archive.h"

#define HEADER 48u
#define TAG 16u
#define FIXED 32u /* of the payload, before the label */
#define PASSPHRASE "passphrase"

/* In the place of libcrypto's, half a second of which would be all that is fuzzed. */
int EVP_PBE_scrypt(const char *pass, size_t passlen, const unsigned char *salt, size_t saltlen,
                   uint64_t N, uint64_t r, uint64_t p, uint64_t maxmem, unsigned char *key,
                   size_t keylen)
{
    uint8_t both[256], sum[SHA256_DIGEST_LENGTH];

    MUST(N == 1u << 17 && r == 8 && p == 1 && maxmem && keylen == sizeof(sum));
    MUST(passlen + saltlen <= sizeof(both));
    memcpy(both, pass, passlen);
    memcpy(both + passlen, salt, saltlen);
    MUST(SHA256(both, passlen + saltlen, sum));
    memcpy(key, sum, keylen);
    return 1;
}

static void seal(const uint8_t *payload, size_t length, uint8_t *file)
{
    static const uint8_t nonce[12];
    struct xlv_bytes w = xlv_bytes_writer(file, HEADER);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t key[XLV_KEY_SIZE];
    int n;

    memset(file, 's', HEADER);
    xlv_put_data(&w, (const uint8_t *)"XLVTPMA\n", 8);
    xlv_put_u32(&w, 1);
    xlv_put_u32(&w, (uint32_t)length);
    (void)EVP_PBE_scrypt(PASSPHRASE, strlen(PASSPHRASE), file + 16, 32, 1u << 17, 8, 1, 1, key,
                         sizeof(key));
    MUST(ctx && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
         EVP_EncryptUpdate(ctx, NULL, &n, file, HEADER) == 1 &&
         EVP_EncryptUpdate(ctx, file + HEADER, &n, payload, (int)length) == 1 &&
         EVP_EncryptFinal_ex(ctx, file + HEADER + length, &n) == 1 &&
         EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, file + HEADER + length) == 1);
    EVP_CIPHER_CTX_free(ctx);
}

/* Is it the payload of an archive? Told independently. */
static bool is_one(const uint8_t *payload, size_t length, size_t *label)
{
    static const uint8_t nil[16];
    struct xlv_bytes r = xlv_bytes_reader(payload, length);
    unsigned version;

    if (length < FIXED || !memcmp(payload, nil, sizeof(nil)))
        return false;
    (void)xlv_get_view(&r, sizeof(nil));
    version = xlv_get_u32(&r);
    (void)xlv_get_u64(&r);
    *label = xlv_get_u32(&r);
    return (version == 12 || version == 20) && *label <= XLV_LABEL_MAX && length - FIXED > *label;
}

static void again(const struct xlv_archive *a)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_archive b;
    uint8_t *file;
    size_t length;

    MUST(xlv_archive_seal(a, PASSPHRASE, &file, &length, &e) == 0);
    MUST(xlv_archive_is(file, length) && length <= a->length + XLV_ARCHIVE_EXTRA);
    MUST(xlv_archive_open(file, length, "another", &b, &e) == XLV_E_WRONG_KEY && !b.container);
    MUST(xlv_archive_open(file, length, PASSPHRASE, &b, &e) == 0);
    MUST(b.version == a->version && b.time_s == a->time_s && b.length == a->length &&
         !memcmp(&b.uuid, &a->uuid, sizeof(b.uuid)) && !strcmp(b.label, a->label) &&
         !memcmp(b.container, a->container, b.length));
    xlv_archive_deinit(&b);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    uint8_t how = xlv_get_u8(&in), change = 0, *file;
    size_t length, label = 0, at = how & 2 ? xlv_get_u16(&in) : 0, payload_length;
    const uint8_t *payload;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_archive a;
    int rc;

    if (how & 2)
        change = xlv_get_u8(&in);
    payload = rest(&in, &payload_length);
    if (!payload)
        return 0;
    length = how & 1 ? payload_length : HEADER + payload_length + TAG;
    file = malloc(length ? length : 1);
    MUST(file);
    if (how & 1)
        memcpy(file, payload, length);
    else
        seal(payload, payload_length, file);
    if (length)
        file[at % length] ^= change;

    rc = xlv_archive_open(file, length, PASSPHRASE, &a, &e);
    MUST(rc >= 0);
    MUST(!rc == !!a.container && !rc == !e.text[0]);
    if (how & 1) /* nobody guesses a tag */
        MUST(rc);
    else if (change)
        MUST(rc && rc != XLV_E_EMPTY);
    else
        MUST(!rc == is_one(payload, payload_length, &label));
    if (!rc) {
        MUST(a.length == payload_length - FIXED - label &&
             !memcmp(a.container, payload + FIXED + label, a.length) &&
             strlen(a.label) <= label && !memcmp(a.label, payload + FIXED, strlen(a.label)));
        again(&a);
    }
    xlv_archive_deinit(&a);
    free(file);
    return 0;
}
