/* SPDX-License-Identifier: GPL-2.0-or-later */
/* State files of swtpm: see swtpm.h. */
#include "config.h"

#include "libxl-vtpm/swtpm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include "common/bytes.h"
#include "common/fd.h"
#include "include/limits.h"

#define HEADER 10u
#define FLAG_ENCRYPTED 0x01u
#define FLAG_256 0x08u
#define FLAGS_BLOB 0x16u
#define FLAGS_KNOWN (FLAG_ENCRYPTED | FLAG_256 | FLAGS_BLOB)
#define TAG_DATA 1u
#define TAG_CIPHERTEXT 2u
#define TAG_HMAC 3u
#define TAG_IV 6u
#define BLOCK 16u
#define PBKDF2_ROUNDS 1000
#define PASSWORD_MAX 4096u

/*
 * The key
 */

static int hex_key(const char *text, size_t length, struct xlv_swtpm_key *key)
{
    if (length >= 2 && !strncmp(text, "0x", 2)) {
        text += 2;
        length -= 2;
    }
    if (length / 2 > sizeof(key->bytes) || length % 2)
        return XLV_E_INVALID;
    for (size_t i = 0; i < length / 2; i++) {
        int high = OPENSSL_hexchar2int((unsigned char)text[2 * i]);
        int low = OPENSSL_hexchar2int((unsigned char)text[2 * i + 1]);

        if (high < 0 || low < 0)
            return XLV_E_INVALID;
        key->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return length / 2 == key->length ? 0 : XLV_E_INVALID;
}

static int derive(const char *kdf, const uint8_t *password, size_t length,
                  struct xlv_swtpm_key *key)
{
    uint8_t hash[SHA512_DIGEST_LENGTH];

    if (strcmp(kdf, "sha512"))
        return PKCS5_PBKDF2_HMAC((const char *)password, (int)length, (const uint8_t *)"swtpm", 5,
                                 PBKDF2_ROUNDS, EVP_sha512(), (int)key->length, key->bytes) == 1
                   ? 0 : -EIO;
    if (!SHA512(password, length, hash))
        return -EIO;
    memcpy(key->bytes, hash, key->length);
    OPENSSL_cleanse(hash, sizeof(hash));
    return 0;
}

/* One more byte than there may be shows that there are too many. */
static int read_small(const char *path, uint8_t *data, size_t room, size_t *length,
                      struct xlv_error *e)
{
    int fd XLV_CLOSE = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;

    *length = 0;
    while (n > 0 && *length < room) {
        n = read(fd, data + *length, room - *length);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            *length += (size_t)n;
    }
    return n < 0 ? xlv_fail(e, -errno, "cannot read %s: %s", path, strerror(errno)) : 0;
}

int xlv_swtpm_key(const char *spec, struct xlv_swtpm_key *key, struct xlv_error *e)
{
    static const char *const names[] = { "file", "pwdfile", "format", "kdf", "mode" };
    enum { FILE_, PWDFILE, FORMAT, KDF, MODE, NAMES };
    const char *values[NAMES] = { NULL };
    uint8_t content[PASSWORD_MAX + 1];
    char *copy XLV_FREE = strdup(spec), *rest = copy, *word;
    size_t length;
    int rc;

    *key = (struct xlv_swtpm_key){ .length = 16 };
    if (!copy)
        return xlv_fail(e, -ENOMEM, "no memory for a key");
    while ((word = strsep(&rest, ","))) {
        char *value = strchr(word, '=');
        size_t i = 0;

        if (value)
            *value++ = '\0';
        while (i < NAMES && strcmp(word, names[i]))
            i++;
        if (i == NAMES || !value || !*value || values[i])
            return xlv_fail(e, XLV_E_INVALID, "swtpm's key: \"%s\" is not understood; there are "
                            "file=, pwdfile=, format=, kdf= and mode=, each once", word);
        values[i] = value;
    }
    if (values[MODE] && !strcmp(values[MODE], "aes-256-cbc"))
        key->length = 32;
    else if (values[MODE] && strcmp(values[MODE], "aes-cbc") && strcmp(values[MODE], "aes-128-cbc"))
        return xlv_fail(e, XLV_E_INVALID, "swtpm's key: mode %s is not known; there are aes-cbc "
                        "(128 bits) and aes-256-cbc", values[MODE]);
    if (!values[FILE_] == !values[PWDFILE])
        return xlv_fail(e, XLV_E_INVALID, "swtpm's key: file= or pwdfile= is needed");
    if ((values[FORMAT] && (values[PWDFILE] || (strcmp(values[FORMAT], "hex") &&
                                                strcmp(values[FORMAT], "binary")))) ||
        (values[KDF] && (values[FILE_] || (strcmp(values[KDF], "pbkdf2") &&
                                           strcmp(values[KDF], "sha512")))))
        return xlv_fail(e, XLV_E_INVALID, "swtpm's key: format=hex or binary goes with file=, "
                        "kdf=pbkdf2 or sha512 with pwdfile=");
    word = (char *)(values[FILE_] ? values[FILE_] : values[PWDFILE]);
    rc = read_small(word, content, sizeof(content), &length, e);
    if (!rc && values[PWDFILE] && (!length || length > PASSWORD_MAX)) {
        rc = xlv_fail(e, XLV_E_INVALID, "%s is no password of 1 to %u bytes", word, PASSWORD_MAX);
    } else if (!rc && values[PWDFILE]) {
        rc = derive(values[KDF] ? values[KDF] : "pbkdf2", content, length, key);
        if (rc)
            xlv_fail(e, rc, "no key can be derived from the password in %s", word);
    } else if (!rc && values[FORMAT] && !strcmp(values[FORMAT], "binary")) {
        if (length == key->length)
            memcpy(key->bytes, content, length);
        else
            rc = xlv_fail(e, XLV_E_INVALID, "%s is no binary key of %zu bytes%s", word, key->length,
                          length == 32 ? "; does it need mode=aes-256-cbc?" : "");
    } else if (!rc) {
        while (length && strchr(" \t\r\n", content[length - 1]) && content[length - 1])
            length--;
        rc = hex_key((const char *)content, length, key);
        if (rc)
            xlv_fail(e, rc, "%s is no key of %zu hex digits%s", word, 2 * key->length,
                     length >= 64 ? "; does it need mode=aes-256-cbc?" : "");
    }
    OPENSSL_cleanse(content, sizeof(content));
    return rc;
}

/*
 * Reading
 */

/* *out: length bytes, the caller's. Without padding of OpenSSL's: swtpm's is up to 32 bytes. */
static int run_cipher(const struct xlv_swtpm_key *key, const uint8_t *iv, bool encrypt,
                 const uint8_t *in, size_t length, uint8_t **out)
{
    const EVP_CIPHER *cipher = key->length == 32 ? EVP_aes_256_cbc() : EVP_aes_128_cbc();
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t *bytes = malloc(length ? length : 1);
    int n = 0, last = 0, rc = -EIO;

    if (ctx && bytes && EVP_CipherInit_ex(ctx, cipher, NULL, key->bytes, iv, encrypt) == 1 &&
        EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
        EVP_CipherUpdate(ctx, bytes, &n, in, (int)length) == 1 &&
        EVP_CipherFinal_ex(ctx, bytes + n, &last) == 1 && (size_t)(n + last) == length)
        rc = 0;
    EVP_CIPHER_CTX_free(ctx);
    if (rc)
        xlv_wipe(bytes, length);
    *out = rc ? NULL : bytes;
    return rc;
}

/* Decrypts and takes the padding off. */
static int decrypt_data(const struct xlv_swtpm_key *key, const uint8_t *iv, const uint8_t *in,
                   size_t length, uint8_t **out, size_t *out_length)
{
    uint8_t *bytes;
    size_t padding, i;
    int rc;

    if (!length || length % BLOCK)
        return XLV_E_CORRUPT;
    rc = run_cipher(key, iv, false, in, length, &bytes);
    if (rc)
        return rc;
    padding = bytes[length - 1];
    for (i = 0; i < padding && i < length && bytes[length - 1 - i] == padding; i++)
        ;
    if (!padding || padding > key->length || i != padding || length == padding) {
        xlv_wipe(bytes, length);
        return XLV_E_CORRUPT;
    }
    *out = bytes;
    *out_length = length - padding;
    return 0;
}

static int copy_out(const uint8_t *data, size_t length, uint8_t **out, size_t *out_length)
{
    *out = malloc(length ? length : 1);
    if (!*out)
        return -ENOMEM;
    memcpy(*out, data, length);
    *out_length = length;
    return 0;
}

/* The hash is of the plaintext: a wrong key shows in the padding or in it. */
static int read_1(const uint8_t *body, size_t length, const struct xlv_swtpm_key *key,
                  uint8_t **out, size_t *out_length)
{
    static const uint8_t iv[BLOCK];
    uint8_t hash[SHA256_DIGEST_LENGTH], *plain = NULL;
    size_t plain_length = 0;
    int rc;

    if (!key->length)
        return copy_out(body, length, out, out_length);
    rc = decrypt_data(key, iv, body, length, &plain, &plain_length);
    if (rc)
        return rc == XLV_E_CORRUPT ? XLV_E_WRONG_KEY : rc;
    if (plain_length <= sizeof(hash) ||
        !SHA256(plain + sizeof(hash), plain_length - sizeof(hash), hash) ||
        CRYPTO_memcmp(plain, hash, sizeof(hash)))
        rc = XLV_E_WRONG_KEY;
    else
        rc = copy_out(plain + sizeof(hash), plain_length - sizeof(hash), out, out_length);
    xlv_wipe(plain, plain_length);
    return rc;
}

struct view {
    const uint8_t *data; /* NULL: not there */
    size_t length;
};

static int hmac(const struct xlv_swtpm_key *key, struct view ciphertext, struct view iv,
                uint8_t out[SHA256_DIGEST_LENGTH])
{
    size_t size = ciphertext.length + iv.length;
    uint8_t *both = malloc(size ? size : 1);
    unsigned length = 0;
    bool ok;

    if (!both)
        return -ENOMEM;
    memcpy(both, ciphertext.data, ciphertext.length);
    if (iv.length)
        memcpy(both + ciphertext.length, iv.data, iv.length);
    ok = HMAC(EVP_sha256(), key->bytes, (int)key->length, both, size, out, &length);
    free(both);
    return ok && length == SHA256_DIGEST_LENGTH ? 0 : -EIO;
}

static int read_2(const uint8_t *body, size_t length, const struct xlv_swtpm_key *key,
                  uint8_t **out, size_t *out_length)
{
    struct xlv_bytes c = xlv_bytes_reader(body, length);
    struct view entries[TAG_IV + 1] = { { NULL, 0 } };
    struct view ciphertext, tag, iv;
    uint8_t expected[SHA256_DIGEST_LENGTH], zeros[BLOCK] = { 0 };
    int rc;

    while (xlv_bytes_left(&c)) {
        unsigned type = xlv_get_u16_be(&c);
        size_t size = xlv_get_u32_be(&c);
        struct view v = { .data = xlv_get_view(&c, size), .length = size };

        /* the first of a kind counts, and others are none of ours, as in swtpm */
        if (type <= TAG_IV && v.data && !entries[type].data)
            entries[type] = v;
    }
    if (!xlv_bytes_ok(&c))
        return XLV_E_CORRUPT;
    if (!key->length)
        return entries[TAG_DATA].data && entries[TAG_DATA].length
                   ? copy_out(entries[TAG_DATA].data, entries[TAG_DATA].length, out, out_length)
                   : XLV_E_CORRUPT;
    ciphertext = entries[TAG_CIPHERTEXT];
    tag = entries[TAG_HMAC];
    iv = entries[TAG_IV];
    if (!ciphertext.data || !tag.data || tag.length != sizeof(expected) ||
        (iv.data && iv.length != key->length))
        return XLV_E_CORRUPT;
    rc = hmac(key, ciphertext, iv, expected);
    if (!rc && CRYPTO_memcmp(expected, tag.data, sizeof(expected)))
        rc = XLV_E_WRONG_KEY;
    return rc ? rc
              : decrypt_data(key, iv.data ? iv.data : zeros, ciphertext.data, ciphertext.length, out,
                        out_length);
}

int xlv_swtpm_read(const uint8_t *file, size_t length, const struct xlv_swtpm_key *key,
                   uint8_t **out, size_t *out_length, struct xlv_error *e)
{
    struct xlv_bytes c = xlv_bytes_reader(file, length);
    unsigned version = xlv_get_u8(&c), least = xlv_get_u8(&c), header = xlv_get_u16_be(&c);
    unsigned flags = xlv_get_u16_be(&c);
    size_t total = xlv_get_u32_be(&c);
    int rc;

    *out = NULL;
    *out_length = 0;
    if (!xlv_bytes_ok(&c) || header != HEADER || total != length || length <= HEADER || !version)
        return xlv_fail(e, XLV_E_INVALID, "it is no whole state file of swtpm");
    if (least > 2 || version > 2 || (flags & ~FLAGS_KNOWN))
        return xlv_fail(e, XLV_E_VERSION, "it is a state file of a newer swtpm (version %u, flags "
                        "0x%x); this program knows 1 and 2", version, flags);
    if (flags & FLAGS_BLOB)
        return xlv_fail(e, XLV_E_INVALID, "it is a blob for swtpm's migration (swtpm_ioctl --save), "
                        "not the state file");
    if (length > XLV_PERMANENT_MAX + XLV_SWTPM_EXTRA)
        return xlv_fail(e, XLV_E_INVALID, "it is larger than any TPM's state");
    if (!(flags & FLAG_ENCRYPTED) && key->length)
        return xlv_fail(e, XLV_E_INVALID, "it is not encrypted: leave the key away");
    if ((flags & FLAG_ENCRYPTED) && !key->length)
        return xlv_fail(e, XLV_E_WRONG_KEY, "it is encrypted%s: give swtpm's key with --swtpm-key",
                        flags & FLAG_256 ? " with 256 bits" : "");
    if (version == 2 && key->length && key->length != (flags & FLAG_256 ? 32 : 16))
        return xlv_fail(e, XLV_E_WRONG_KEY, "it is encrypted with a key of %s, add mode=%s",
                        flags & FLAG_256 ? "256 bits" : "128 bits",
                        flags & FLAG_256 ? "aes-256-cbc" : "aes-cbc");
    rc = (version == 2 ? read_2 : read_1)(file + HEADER, length - HEADER, key, out, out_length);
    if (rc == XLV_E_WRONG_KEY)
        xlv_fail(e, rc, "it does not open with this key, or is damaged");
    else if (rc == XLV_E_CORRUPT)
        xlv_fail(e, rc, "it is damaged");
    else if (rc)
        xlv_fail(e, rc, "it cannot be read: %s", xlv_strerror(rc));
    return rc;
}

/*
 * Writing
 */

static void put_entry(struct xlv_bytes *w, unsigned tag, const uint8_t *data, size_t length)
{
    xlv_put_u16_be(w, (uint16_t)tag);
    xlv_put_u32_be(w, (uint32_t)length);
    xlv_put_data(w, data, length);
}

static int encrypt_data(const uint8_t *data, size_t length, const struct xlv_swtpm_key *key,
                   struct xlv_bytes *w)
{
    size_t padding = key->length - length % key->length, size = length + padding;
    uint8_t iv[32], tag[SHA256_DIGEST_LENGTH], *padded = malloc(size), *ciphertext = NULL;
    int rc = padded ? 0 : -ENOMEM;

    if (!rc && RAND_bytes(iv, (int)key->length) != 1)
        rc = -EIO;
    if (!rc) {
        memcpy(padded, data, length);
        memset(padded + length, (int)padding, padding);
        rc = run_cipher(key, iv, true, padded, size, &ciphertext);
    }
    if (!rc)
        rc = hmac(key, (struct view){ ciphertext, size }, (struct view){ iv, key->length }, tag);
    if (!rc) {
        put_entry(w, TAG_CIPHERTEXT, ciphertext, size);
        put_entry(w, TAG_HMAC, tag, sizeof(tag));
        put_entry(w, TAG_IV, iv, key->length);
    }
    xlv_wipe(padded, size);
    free(ciphertext);
    return rc;
}

int xlv_swtpm_write(const uint8_t *data, size_t length, const struct xlv_swtpm_key *key,
                    uint8_t **out, size_t *out_length, struct xlv_error *e)
{
    size_t room = length + XLV_SWTPM_EXTRA;
    uint8_t *file = malloc(room);
    unsigned flags = !key->length ? 0 : key->length == 32 ? FLAG_ENCRYPTED | FLAG_256
                                                           : FLAG_ENCRYPTED;
    struct xlv_bytes w, total;
    int rc = 0;

    *out = NULL;
    *out_length = 0;
    if (!file)
        return xlv_fail(e, -ENOMEM, "no memory for a state file");
    w = xlv_bytes_writer(file, room);
    xlv_put_u8(&w, 2);
    xlv_put_u8(&w, 1);
    xlv_put_u16_be(&w, HEADER);
    xlv_put_u16_be(&w, (uint16_t)flags);
    xlv_put_u32_be(&w, 0);
    if (key->length)
        rc = encrypt_data(data, length, key, &w);
    else
        put_entry(&w, TAG_DATA, data, length);
    if (rc || !xlv_bytes_ok(&w)) {
        xlv_wipe(file, room);
        return xlv_fail(e, rc ? rc : -EFBIG, "the state cannot be encrypted for swtpm");
    }
    total = xlv_bytes_writer(file + 6, 4);
    xlv_put_u32_be(&total, (uint32_t)w.at);
    *out = file;
    *out_length = w.at;
    return 0;
}
