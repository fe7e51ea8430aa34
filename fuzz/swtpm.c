/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State files of swtpm (libxl-vtpm/swtpm.h), which xl-vtpm import takes from anybody. Input: u8
 *     bits 0 and 1   the reader's key: none, 128 bits, 256 bits, 256 bits
 *     bit 2          the rest is a file; else it is what somebody with the key encrypts, as it is, by
 *                    hand: a file that is authentic and means nonsense
 *     bit 3          of version 1 rather than 2; bit 4: without the IV (2)
 * What is read is a part of the file, or of what was encrypted up to a padding that is one; a refusal
 * gives nothing and says why; and what was read can be written and read again.
 */
#include "config.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "fuzz/fuzz.h"
#include "libxl-vtpm/swtpm.h"

#define BLOCK 16u

/* length is of whole blocks; out has as much room. */
static void encrypt(const struct xlv_swtpm_key *key, const uint8_t *iv, const uint8_t *in,
                    size_t length, uint8_t *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;

    MUST(ctx && EVP_EncryptInit_ex(ctx, key->length == 32 ? EVP_aes_256_cbc() : EVP_aes_128_cbc(),
                                   NULL, key->bytes, iv) == 1 &&
         EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
         EVP_EncryptUpdate(ctx, out, &n, in, (int)length) == 1 && (size_t)n == length);
    EVP_CIPHER_CTX_free(ctx);
}

static void put_entry(struct xlv_bytes *w, unsigned tag, const uint8_t *data, size_t length)
{
    xlv_put_u16_be(w, (uint16_t)tag);
    xlv_put_u32_be(w, (uint32_t)length);
    xlv_put_data(w, data, length);
}

/* An authentic file of what is encrypted as it is; its length. */
static size_t authentic(uint8_t how, const struct xlv_swtpm_key *key, const uint8_t *plain,
                        size_t length, uint8_t *file, size_t room)
{
    static const uint8_t zeros[32];
    struct xlv_bytes w = xlv_bytes_writer(file, room), size = xlv_bytes_writer(file + 6, 4);
    uint8_t *ciphertext = malloc(length + sizeof(zeros)), tag[SHA256_DIGEST_LENGTH], iv[32];
    size_t iv_length = how & 0x10 ? 0 : key->length;
    unsigned n;

    MUST(ciphertext);
    memset(iv, 'i', sizeof(iv));
    xlv_put_u8(&w, how & 8 ? 1 : 2);
    xlv_put_u8(&w, 1);
    xlv_put_u16_be(&w, 10);
    xlv_put_u16_be(&w, key->length == 32 ? 9 : 1);
    xlv_put_u32_be(&w, 0);
    encrypt(key, how & 8 || !iv_length ? zeros : iv, plain, length, ciphertext);
    if (how & 8) {
        xlv_put_data(&w, ciphertext, length);
    } else {
        memcpy(ciphertext + length, iv, iv_length);
        MUST(HMAC(EVP_sha256(), key->bytes, (int)key->length, ciphertext, length + iv_length, tag,
                  &n));
        put_entry(&w, 2, ciphertext, length);
        put_entry(&w, 3, tag, sizeof(tag));
        if (iv_length)
            put_entry(&w, 6, iv, iv_length);
    }
    MUST(xlv_bytes_ok(&w));
    xlv_put_u32_be(&size, (uint32_t)w.at);
    free(ciphertext);
    return w.at;
}

/* What the file says of the padding, told independently: what is before it, or 0. */
static size_t before_padding(const uint8_t *plain, size_t length, size_t most)
{
    size_t padding = length ? plain[length - 1] : 0;

    if (!padding || padding > most || padding >= length)
        return 0;
    for (size_t i = length - padding; i < length; i++)
        if (plain[i] != padding)
            return 0;
    return length - padding;
}

static void judge_authentic(uint8_t how, const struct xlv_swtpm_key *key, const uint8_t *plain,
                            size_t length, int rc, const uint8_t *out, size_t out_length)
{
    size_t n = before_padding(plain, length, key->length), hash = how & 8 ? SHA256_DIGEST_LENGTH : 0;
    uint8_t sum[SHA256_DIGEST_LENGTH];
    bool good = n > hash;

    if (good && hash)
        good = SHA256(plain + hash, n - hash, sum) && !memcmp(sum, plain, hash);
    MUST(good == !rc);
    MUST(rc || (out_length == n - hash && !memcmp(out, plain + hash, out_length)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    uint8_t how = xlv_get_u8(&in), *file, *out, *again;
    struct xlv_swtpm_key key = { .length = how & 2 ? 32 : how & 1 ? 16 : 0 };
    size_t length, plain_length, out_length, again_length;
    const uint8_t *plain = rest(&in, &plain_length);
    bool made = !(how & 4) && key.length;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    if (!plain)
        return 0;
    memset(key.bytes, 'k', key.length);
    if (made)
        plain_length -= plain_length % BLOCK;
    length = plain_length + XLV_SWTPM_EXTRA;
    file = malloc(length);
    MUST(file);
    if (made)
        length = authentic(how, &key, plain, plain_length, file, length);
    else
        memcpy(file, plain, length = plain_length);

    rc = xlv_swtpm_read(file, length, &key, &out, &out_length, &e);
    MUST(rc >= 0);
    MUST(!rc == !!out && !rc == !e.text[0]);
    MUST(rc || (out_length && out_length < length));
    if (made)
        judge_authentic(how, &key, plain, plain_length, rc, out, out_length);
    else if (!rc && !key.length)
        MUST(memmem(file, length, out, out_length) && !(file[5] & 1));
    if (!rc) {
        free(file);
        MUST(xlv_swtpm_write(out, out_length, &key, &file, &length, &e) == 0);
        MUST(length <= out_length + XLV_SWTPM_EXTRA);
        MUST(xlv_swtpm_read(file, length, &key, &again, &again_length, &e) == 0);
        MUST(again_length == out_length && !memcmp(again, out, out_length));
        free(again);
    }
    free(out);
    free(file);
    return 0;
}
