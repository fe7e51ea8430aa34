/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The archive of one instance: see archive.h. */
#include "config.h"

#include "libxl-vtpm/archive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "common/bytes.h"

#define FORMAT 1u
#define HEADER 48u
#define SALT 32u
#define TAG 16u
#define FIXED (16u + 4u + 8u + 4u) /* of the payload, before the label */

static const uint8_t magic[8] = { 'X', 'L', 'V', 'T', 'P', 'M', 'A', '\n' };

bool xlv_archive_is(const uint8_t *file, size_t length)
{
    return length >= sizeof(magic) && !memcmp(file, magic, sizeof(magic));
}

/* 128 * N * r bytes of memory, and a bit: about 130 MiB, half a second. */
static int derive(const char *passphrase, const uint8_t salt[SALT], uint8_t key[XLV_KEY_SIZE],
                  struct xlv_error *e)
{
    if (EVP_PBE_scrypt(passphrase, strlen(passphrase), salt, SALT, 1u << 17, 8, 1,
                       160u * 1024 * 1024, key, XLV_KEY_SIZE) == 1)
        return 0;
    return xlv_fail(e, -ENOMEM, "no key can be derived from the passphrase; that takes 130 MiB of "
                    "memory");
}

/* file: header, then length bytes in place, then the tag, which is written or verified. */
static int run_cipher(bool seal, uint8_t *file, size_t length, const uint8_t key[XLV_KEY_SIZE])
{
    static const uint8_t nonce[12];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t *payload = file + HEADER, *tag = payload + length;
    int n = 0, last = 0, rc = -EIO;

    if (ctx && EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce, seal) == 1 &&
        EVP_CipherUpdate(ctx, NULL, &n, file, HEADER) == 1 &&
        EVP_CipherUpdate(ctx, payload, &n, payload, (int)length) == 1 &&
        (seal || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, tag) == 1)) {
        if (EVP_CipherFinal_ex(ctx, payload + n, &last) != 1)
            rc = XLV_E_WRONG_KEY;
        else if (!seal || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, tag) == 1)
            rc = 0;
    }
    EVP_CIPHER_CTX_free(ctx);
    return rc;
}

int xlv_archive_seal(const struct xlv_archive *a, const char *passphrase, uint8_t **out,
                     size_t *length, struct xlv_error *e)
{
    size_t label = strlen(a->label), payload = FIXED + label + a->length;
    size_t size = HEADER + payload + TAG;
    uint8_t key[XLV_KEY_SIZE], salt[SALT], *file = malloc(size);
    struct xlv_bytes w;
    int rc = file ? 0 : xlv_fail(e, -ENOMEM, "no memory for an archive");

    *out = NULL;
    *length = 0;
    if (!rc && RAND_bytes(salt, sizeof(salt)) != 1)
        rc = xlv_fail(e, -EIO, "no random bytes for a salt");
    if (!rc)
        rc = derive(passphrase, salt, key, e);
    if (!rc) {
        w = xlv_bytes_writer(file, size);
        xlv_put_data(&w, magic, sizeof(magic));
        xlv_put_u32(&w, FORMAT);
        xlv_put_u32(&w, (uint32_t)payload);
        xlv_put_data(&w, salt, sizeof(salt));
        xlv_put_data(&w, a->uuid.b, sizeof(a->uuid.b));
        xlv_put_u32(&w, a->version);
        xlv_put_u64(&w, a->time_s);
        xlv_put_u32(&w, (uint32_t)label);
        xlv_put_data(&w, a->label, label);
        xlv_put_data(&w, a->container, a->length);
        rc = run_cipher(true, file, payload, key);
        if (rc)
            xlv_fail(e, rc, "the archive cannot be sealed");
    }
    OPENSSL_cleanse(key, sizeof(key));
    if (rc) {
        xlv_wipe(file, file ? size : 0);
        return rc;
    }
    *out = file;
    *length = size;
    return 0;
}

static int take_payload(const uint8_t *payload, size_t length, struct xlv_archive *a)
{
    struct xlv_bytes r = xlv_bytes_reader(payload, length);
    const uint8_t *view;
    size_t label;

    xlv_get_data(&r, a->uuid.b, sizeof(a->uuid.b));
    a->version = (enum xlv_tpm_version)xlv_get_u32(&r);
    a->time_s = xlv_get_u64(&r);
    label = xlv_get_u32(&r);
    if (!xlv_bytes_ok(&r) || label > XLV_LABEL_MAX || xlv_bytes_left(&r) <= label ||
        xlv_uuid_is_nil(&a->uuid) || (a->version != XLV_TPM_1_2 && a->version != XLV_TPM_2_0))
        return XLV_E_CORRUPT;
    xlv_get_data(&r, a->label, label);
    a->label[label] = '\0';
    a->length = xlv_bytes_left(&r);
    view = xlv_get_view(&r, a->length);
    a->container = malloc(a->length);
    if (!a->container)
        return -ENOMEM;
    memcpy(a->container, view, a->length);
    return 0;
}

int xlv_archive_open(const uint8_t *file, size_t length, const char *passphrase,
                     struct xlv_archive *archive, struct xlv_error *e)
{
    struct xlv_bytes r = xlv_bytes_reader(file, length);
    uint8_t key[XLV_KEY_SIZE], salt[SALT], *copy;
    unsigned format;
    size_t payload;
    int rc;

    *archive = (struct xlv_archive){ .length = 0 };
    xlv_get_view(&r, sizeof(magic));
    format = xlv_get_u32(&r);
    payload = xlv_get_u32(&r);
    xlv_get_data(&r, salt, sizeof(salt));
    if (!xlv_archive_is(file, length) || !xlv_bytes_ok(&r))
        return xlv_fail(e, XLV_E_INVALID, "it is no archive of xl-vtpm");
    if (format != FORMAT)
        return xlv_fail(e, XLV_E_VERSION, "it is an archive of format %u, which a newer xl-vtpm "
                        "wrote; this one knows %u", format, FORMAT);
    if (length > XLV_PERMANENT_MAX + XLV_ARCHIVE_EXTRA || xlv_bytes_left(&r) < TAG ||
        payload != xlv_bytes_left(&r) - TAG)
        return xlv_fail(e, XLV_E_CORRUPT, "the archive is cut short or damaged");
    copy = malloc(length);
    if (!copy)
        return xlv_fail(e, -ENOMEM, "no memory for an archive");
    memcpy(copy, file, length);
    rc = derive(passphrase, salt, key, e);
    if (!rc)
        rc = run_cipher(false, copy, payload, key);
    OPENSSL_cleanse(key, sizeof(key));
    if (!rc)
        rc = take_payload(copy + HEADER, payload, archive);
    xlv_wipe(copy, length);
    if (rc) {
        xlv_archive_deinit(archive);
        xlv_fail(e, rc, "%s", rc == XLV_E_WRONG_KEY
                                  ? "this is not its passphrase, or the archive is damaged"
                                  : xlv_strerror(rc));
    }
    return rc;
}

void xlv_archive_deinit(struct xlv_archive *archive)
{
    xlv_wipe(archive->container, archive->length);
    *archive = (struct xlv_archive){ .length = 0 };
}
