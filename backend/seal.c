/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES-256-GCM with record keys from HKDF-SHA256, on OpenSSL 3: see seal.h.
 *
 * Invariant: encrypt_ctx holds the key of `salt`, and `counter` is the next
 * nonce under it; the salt is only ever set from getrandom().
 */
#include "config.h"

#include "backend/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "common/bytes.h"

#define CHECK_SIZE 32u
#define CHECKED (XLV_SEAL_HEADER - CHECK_SIZE)
#define NONCE_SIZE 12u

/* The SUB stops an accidental `cat`, the LF betrays a text-mode transfer. */
static const uint8_t magic[8] = { 'X', 'L', 'V', 'T', 'P', 'M', 0x1a, 0x0a };

static const char *const purpose_words[] = {
    [XLV_SEAL_STORE] = "libxl-vtpm 1 store",
    [XLV_SEAL_JOURNAL] = "libxl-vtpm 1 journal",
};
static const char key_id_word[] = "libxl-vtpm 1 key id";

struct xlv_seal {
    enum xlv_seal_purpose purpose;
    struct xlv_uuid uuid;
    uint8_t key[XLV_KEY_SIZE];
    uint8_t key_id[XLV_SEAL_KEY_ID];
    uint8_t salt[XLV_SEAL_SALT];
    uint64_t counter;
    EVP_CIPHER *cipher;
    EVP_MD *digest;
    EVP_KDF *kdf;
    EVP_CIPHER_CTX *encrypt_ctx, *decrypt_ctx;
    EVP_MD_CTX *digest_ctx;
    /* the key of decrypt_ctx is that of this salt */
    uint8_t decrypt_salt[XLV_SEAL_SALT];
    int decrypt_ready;
};

static int random_bytes(uint8_t *out, size_t length)
{
    while (length) {
        ssize_t n = getrandom(out, length, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        out += n;
        length -= (size_t)n;
    }
    return 0;
}

static int derive(struct xlv_seal *seal, const uint8_t *salt, size_t salt_length, const char *word,
                  uint8_t *out, size_t length)
{
    OSSL_PARAM params[5], *p = params;
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(seal->kdf);
    int ok;

    if (!ctx)
        return -ENOMEM;
    *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, seal->key, sizeof(seal->key));
    if (salt_length)
        *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_length);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)word, strlen(word));
    *p = OSSL_PARAM_construct_end();
    ok = EVP_KDF_derive(ctx, out, length, params);
    EVP_KDF_CTX_free(ctx);
    return ok == 1 ? 0 : -EIO;
}

static int take_salt(struct xlv_seal *seal)
{
    uint8_t record_key[XLV_KEY_SIZE];
    int rc = random_bytes(seal->salt, sizeof(seal->salt));

    if (rc)
        return rc;
    rc = derive(seal, seal->salt, sizeof(seal->salt), purpose_words[seal->purpose], record_key,
                sizeof(record_key));
    if (!rc && EVP_EncryptInit_ex2(seal->encrypt_ctx, seal->cipher, record_key, NULL, NULL) != 1)
        rc = -EIO;
    OPENSSL_cleanse(record_key, sizeof(record_key));
    seal->counter = 0;
    return rc;
}

int xlv_seal_new(struct xlv_seal **out, enum xlv_seal_purpose purpose,
                 const struct xlv_uuid *uuid, const uint8_t key[XLV_KEY_SIZE],
                 struct xlv_error *e)
{
    struct xlv_seal *seal = calloc(1, sizeof(*seal));
    int rc = -ENOMEM;

    *out = NULL;
    if (!seal)
        return xlv_fail(e, rc, "no memory for the seal");
    seal->purpose = purpose;
    seal->uuid = *uuid;
    memcpy(seal->key, key, sizeof(seal->key));
    seal->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    seal->digest = EVP_MD_fetch(NULL, "SHA256", NULL);
    seal->kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    if (!seal->cipher || !seal->digest || !seal->kdf) {
        rc = xlv_fail(e, -EIO, "OpenSSL offers no AES-256-GCM, SHA-256 or HKDF; check its "
                      "configuration (openssl.cnf)");
        goto fail;
    }
    seal->encrypt_ctx = EVP_CIPHER_CTX_new();
    seal->decrypt_ctx = EVP_CIPHER_CTX_new();
    seal->digest_ctx = EVP_MD_CTX_new();
    if (!seal->encrypt_ctx || !seal->decrypt_ctx || !seal->digest_ctx) {
        xlv_fail(e, rc, "no memory for the seal");
        goto fail;
    }
    rc = EVP_DigestInit_ex2(seal->digest_ctx, seal->digest, NULL) == 1 ? 0 : -EIO;
    if (!rc)
        rc = derive(seal, NULL, 0, key_id_word, seal->key_id, sizeof(seal->key_id));
    if (!rc)
        rc = take_salt(seal);
    if (rc) {
        xlv_fail(e, rc, "cannot make a key for the seal: %s", xlv_strerror(rc));
        goto fail;
    }
    *out = seal;
    return 0;

fail:
    xlv_seal_free(seal);
    return rc;
}

void xlv_seal_free(struct xlv_seal *seal)
{
    if (!seal)
        return;
    /* OpenSSL wipes the key schedules inside the contexts */
    EVP_CIPHER_CTX_free(seal->encrypt_ctx);
    EVP_CIPHER_CTX_free(seal->decrypt_ctx);
    EVP_MD_CTX_free(seal->digest_ctx);
    EVP_CIPHER_free(seal->cipher);
    EVP_MD_free(seal->digest);
    EVP_KDF_free(seal->kdf);
    OPENSSL_cleanse(seal, sizeof(*seal));
    free(seal);
}

static int checksum(struct xlv_seal *seal, const uint8_t *head, size_t length,
                    uint8_t out[CHECK_SIZE])
{
    /* a NULL digest keeps the one of xlv_seal_new() and skips a look-up */
    if (EVP_DigestInit_ex2(seal->digest_ctx, NULL, NULL) != 1 ||
        EVP_DigestUpdate(seal->digest_ctx, head, length) != 1 ||
        EVP_DigestFinal_ex(seal->digest_ctx, out, NULL) != 1)
        return -EIO;
    return 0;
}

static void nonce_of(uint64_t counter, uint8_t nonce[NONCE_SIZE])
{
    struct xlv_bytes w = xlv_bytes_writer(nonce, NONCE_SIZE);

    xlv_put_u32(&w, 0);
    xlv_put_u64(&w, counter);
}

int xlv_seal_begin(struct xlv_seal *seal, uint8_t head[XLV_SEAL_HEAD], uint32_t slot,
                   uint64_t number, uint32_t attempt, uint32_t length)
{
    uint8_t nonce[NONCE_SIZE];
    struct xlv_bytes w;
    int ignored, rc;

    if (seal->counter >= XLV_SEAL_RECORDS_PER_SALT) {
        rc = take_salt(seal);
        if (rc) {
            /* the old salt's key may be half replaced: let nothing use it */
            seal->counter = XLV_SEAL_RECORDS_PER_SALT;
            return rc;
        }
    }
    memset(head, 0, XLV_SEAL_HEAD);
    w = xlv_bytes_writer(head, CHECKED);
    xlv_put_data(&w, magic, sizeof(magic));
    xlv_put_u32(&w, XLV_SEAL_VERSION);
    xlv_put_u32(&w, XLV_SEAL_HEADER);
    xlv_put_u32(&w, seal->purpose);
    xlv_put_u32(&w, slot);
    xlv_put_data(&w, seal->uuid.b, sizeof(seal->uuid.b));
    xlv_put_u64(&w, number);
    xlv_put_u32(&w, length);
    xlv_put_u32(&w, attempt);
    xlv_put_u64(&w, seal->counter);
    xlv_put_data(&w, seal->salt, sizeof(seal->salt));
    xlv_put_data(&w, seal->key_id, sizeof(seal->key_id));
    rc = checksum(seal, head, CHECKED, head + CHECKED);
    if (rc)
        return rc;
    nonce_of(seal->counter, nonce);
    /* counted before its first use: a failure below must not give it again */
    seal->counter++;
    if (EVP_EncryptInit_ex2(seal->encrypt_ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_EncryptUpdate(seal->encrypt_ctx, NULL, &ignored, head, XLV_SEAL_HEADER) != 1)
        return -EIO;
    return 0;
}

int xlv_seal_update(struct xlv_seal *seal, uint8_t *out, const uint8_t *in, size_t length)
{
    int done = 0;

    if (!length)
        return 0;
    if (length > XLV_PERMANENT_MAX + XLV_VOLATILE_MAX)
        return -EINVAL;
    if (EVP_EncryptUpdate(seal->encrypt_ctx, out, &done, in, (int)length) != 1 ||
        (size_t)done != length)
        return -EIO;
    return 0;
}

int xlv_seal_finish(struct xlv_seal *seal, uint8_t head[XLV_SEAL_HEAD])
{
    uint8_t none[16];
    int done = 0;

    if (EVP_EncryptFinal_ex(seal->encrypt_ctx, none, &done) != 1 || done != 0 ||
        EVP_CIPHER_CTX_ctrl(seal->encrypt_ctx, EVP_CTRL_AEAD_GET_TAG, XLV_SEAL_TAG,
                            head + XLV_SEAL_HEADER) != 1)
        return -EIO;
    return 0;
}

int xlv_seal_parse(struct xlv_seal *seal, const uint8_t head[XLV_SEAL_HEAD],
                   struct xlv_seal_info *info)
{
    struct xlv_bytes r = xlv_bytes_reader(head, XLV_SEAL_HEADER);
    uint8_t check[CHECK_SIZE];
    uint32_t header_length;
    int rc;

    memset(info, 0, sizeof(*info));
    if (memcmp(xlv_get_view(&r, sizeof(magic)), magic, sizeof(magic)))
        return XLV_E_CORRUPT;
    info->version = xlv_get_u32(&r);
    header_length = xlv_get_u32(&r);
    /* magic, version, length and the place of the checksum are for ever */
    if (header_length < 16 + CHECK_SIZE || header_length > XLV_SEAL_HEADER)
        return XLV_E_CORRUPT;
    rc = checksum(seal, head, header_length - CHECK_SIZE, check);
    if (rc)
        return rc;
    if (memcmp(check, head + header_length - CHECK_SIZE, CHECK_SIZE))
        return XLV_E_CORRUPT;
    if (info->version > XLV_SEAL_VERSION)
        return XLV_E_VERSION;
    if (info->version != XLV_SEAL_VERSION || header_length != XLV_SEAL_HEADER)
        return XLV_E_CORRUPT;
    info->purpose = xlv_get_u32(&r);
    info->slot = xlv_get_u32(&r);
    xlv_get_data(&r, info->uuid.b, sizeof(info->uuid.b));
    info->number = xlv_get_u64(&r);
    info->length = xlv_get_u32(&r);
    info->attempt = xlv_get_u32(&r);
    info->counter = xlv_get_u64(&r);
    xlv_get_data(&r, info->salt, sizeof(info->salt));
    xlv_get_data(&r, info->key_id, sizeof(info->key_id));
    return xlv_bytes_ok(&r) ? 0 : XLV_E_CORRUPT;
}

int xlv_seal_check(struct xlv_seal *seal, const struct xlv_seal_info *info)
{
    if (info->purpose != seal->purpose)
        return XLV_E_CORRUPT;
    if (!xlv_uuid_equal(&info->uuid, &seal->uuid))
        return XLV_E_WRONG_OWNER;
    if (CRYPTO_memcmp(info->key_id, seal->key_id, sizeof(seal->key_id)))
        return XLV_E_WRONG_KEY;
    return 0;
}

/* The key to read with: of the record's salt, never of ours for writing. */
static int prepare_decrypt(struct xlv_seal *seal, const uint8_t salt[XLV_SEAL_SALT])
{
    uint8_t record_key[XLV_KEY_SIZE];
    int rc;

    if (seal->decrypt_ready && !memcmp(seal->decrypt_salt, salt, XLV_SEAL_SALT))
        return 0;
    seal->decrypt_ready = 0;
    rc = derive(seal, salt, XLV_SEAL_SALT, purpose_words[seal->purpose], record_key,
                sizeof(record_key));
    if (!rc && EVP_DecryptInit_ex2(seal->decrypt_ctx, seal->cipher, record_key, NULL, NULL) != 1)
        rc = -EIO;
    OPENSSL_cleanse(record_key, sizeof(record_key));
    if (rc)
        return rc;
    memcpy(seal->decrypt_salt, salt, XLV_SEAL_SALT);
    seal->decrypt_ready = 1;
    return 0;
}

int xlv_seal_open(struct xlv_seal *seal, const uint8_t head[XLV_SEAL_HEAD],
                  const struct xlv_seal_info *info, const uint8_t *ciphertext,
                  uint8_t *plaintext)
{
    uint8_t nonce[NONCE_SIZE], none[16], tag[XLV_SEAL_TAG];
    int done = 0, rc;

    if (info->length > XLV_PERMANENT_MAX + 2 * XLV_VOLATILE_MAX)
        return XLV_E_CORRUPT;
    rc = prepare_decrypt(seal, info->salt);
    if (rc)
        return rc;
    nonce_of(info->counter, nonce);
    memcpy(tag, head + XLV_SEAL_HEADER, sizeof(tag));
    if (EVP_DecryptInit_ex2(seal->decrypt_ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_DecryptUpdate(seal->decrypt_ctx, NULL, &done, head, XLV_SEAL_HEADER) != 1)
        return -EIO;
    if (info->length && (EVP_DecryptUpdate(seal->decrypt_ctx, plaintext, &done, ciphertext,
                                           (int)info->length) != 1 ||
                         (size_t)done != info->length))
        goto bad;
    if (EVP_CIPHER_CTX_ctrl(seal->decrypt_ctx, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag) == 1 &&
        EVP_DecryptFinal_ex(seal->decrypt_ctx, none, &done) == 1)
        return 0;

bad:
    OPENSSL_cleanse(plaintext, info->length);
    return XLV_E_CORRUPT;
}
