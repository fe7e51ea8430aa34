/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The seal: what opens, what does not and why, and that the format is as documented. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "backend/seal.h"

static const struct xlv_uuid uuid_a = { { 0xaa, 1 } }, uuid_b = { { 0xbb, 2 } };
static const uint8_t key_a[XLV_KEY_SIZE] = { 1 }, key_b[XLV_KEY_SIZE] = { 2 };

#define LENGTH 1000u

static uint8_t plain[LENGTH], head[XLV_SEAL_HEAD], cipher[LENGTH];

static struct xlv_seal *seal_of(enum xlv_seal_purpose purpose, const struct xlv_uuid *uuid,
                                const uint8_t *key)
{
    struct xlv_seal *seal;

    assert_int_equal(xlv_seal_new(&seal, purpose, uuid, key, NULL), 0);
    return seal;
}

static void seal_record(struct xlv_seal *seal, uint64_t number)
{
    for (size_t i = 0; i < LENGTH; i++)
        plain[i] = (uint8_t)(i * 7 + number);
    assert_int_equal(xlv_seal_begin(seal, head, 1, number, 77, LENGTH), 0);
    assert_int_equal(xlv_seal_update(seal, cipher, plain, 100), 0);
    assert_int_equal(xlv_seal_update(seal, cipher + 100, plain + 100, 1), 0);
    assert_int_equal(xlv_seal_update(seal, cipher + 101, plain, 0), 0);
    assert_int_equal(xlv_seal_update(seal, cipher + 101, plain + 101, LENGTH - 101), 0);
    assert_int_equal(xlv_seal_finish(seal, head), 0);
}

static int open_record(struct xlv_seal *seal, uint8_t out[LENGTH])
{
    struct xlv_seal_info info;
    int rc = xlv_seal_parse(seal, head, &info);

    if (!rc)
        rc = xlv_seal_check(seal, &info);
    if (!rc)
        rc = xlv_seal_open(seal, head, &info, cipher, out);
    return rc;
}

static void what_was_sealed_in_pieces_opens(void **state)
{
    struct xlv_seal *writer = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal *reader = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal_info info;
    uint8_t out[LENGTH];

    (void)state;
    for (uint64_t n = 1; n < 5; n++) {
        seal_record(writer, n);
        assert_int_equal(open_record(reader, out), 0);
        assert_memory_equal(out, plain, LENGTH);
        assert_int_equal(xlv_seal_parse(reader, head, &info), 0);
        assert_int_equal(info.number, n);
        assert_int_equal(info.slot, 1);
        assert_int_equal(info.attempt, 77);
        assert_int_equal(info.length, LENGTH);
        assert_int_equal(info.counter, n - 1);
        assert_true(xlv_uuid_equal(&info.uuid, &uuid_a));
    }
    xlv_seal_free(writer);
    xlv_seal_free(reader);
}

static void records_of_several_writers_open_in_any_order(void **state)
{
    struct xlv_seal *writers[2] = { seal_of(XLV_SEAL_STORE, &uuid_a, key_a),
                                    seal_of(XLV_SEAL_STORE, &uuid_a, key_a) };
    struct xlv_seal *reader = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    uint8_t out[LENGTH];

    (void)state;
    for (uint64_t n = 1; n < 6; n++) {
        seal_record(writers[n & 1], n);
        assert_int_equal(open_record(reader, out), 0);
        assert_memory_equal(out, plain, LENGTH);
    }
    xlv_seal_free(writers[0]);
    xlv_seal_free(writers[1]);
    xlv_seal_free(reader);
}

static void ciphertext_is_not_plaintext(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);

    (void)state;
    seal_record(seal, 1);
    for (size_t i = 0; i + 8 < LENGTH; i++)
        assert_memory_not_equal(cipher + i, plain + i, 8);
    xlv_seal_free(seal);
}

static void any_flipped_bit_is_damage_and_nothing_else(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal *stranger = seal_of(XLV_SEAL_STORE, &uuid_a, key_b);
    uint8_t out[LENGTH], none[LENGTH] = { 0 };

    (void)state;
    seal_record(seal, 9);
    for (size_t bit = 0; bit < (XLV_SEAL_HEAD + LENGTH) * 8; bit++) {
        uint8_t *at = bit / 8 < XLV_SEAL_HEAD ? &head[bit / 8] : &cipher[bit / 8 - XLV_SEAL_HEAD];

        *at ^= (uint8_t)(1u << bit % 8);
        memset(out, 0x55, sizeof(out));
        assert_int_equal(open_record(seal, out), XLV_E_CORRUPT);
        /* no unverified plaintext is left behind */
        if (bit / 8 >= XLV_SEAL_HEADER)
            assert_memory_equal(out, none, LENGTH);
        if (bit / 8 < XLV_SEAL_HEADER)
            assert_int_equal(open_record(stranger, out), XLV_E_CORRUPT);
        *at ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(open_record(seal, out), 0);
    xlv_seal_free(seal);
    xlv_seal_free(stranger);
}

static void wrong_key_owner_and_purpose_are_told_apart(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a), *other;
    uint8_t out[LENGTH];

    (void)state;
    seal_record(seal, 1);
    other = seal_of(XLV_SEAL_STORE, &uuid_a, key_b);
    assert_int_equal(open_record(other, out), XLV_E_WRONG_KEY);
    xlv_seal_free(other);
    other = seal_of(XLV_SEAL_STORE, &uuid_b, key_a);
    assert_int_equal(open_record(other, out), XLV_E_WRONG_OWNER);
    xlv_seal_free(other);
    other = seal_of(XLV_SEAL_STORE, &uuid_b, key_b);
    assert_int_equal(open_record(other, out), XLV_E_WRONG_OWNER);
    xlv_seal_free(other);
    other = seal_of(XLV_SEAL_JOURNAL, &uuid_a, key_a);
    assert_int_equal(open_record(other, out), XLV_E_CORRUPT);
    xlv_seal_free(other);
    xlv_seal_free(seal);
}

/* Sets a header field and makes the checksum right again: a forger has no key. */
static void forge(size_t at, uint8_t value)
{
    head[at] = value;
    SHA256(head, XLV_SEAL_HEADER - 32, head + XLV_SEAL_HEADER - 32);
}

static void a_header_is_bound_to_its_ciphertext(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    uint8_t out[LENGTH], saved[XLV_SEAL_HEAD];

    (void)state;
    seal_record(seal, 9);
    memcpy(saved, head, sizeof(head));
    /* all but magic, version, lengths, uuid and key id, which are checked before */
    for (size_t at = 20; at < XLV_SEAL_HEADER - 32; at++) {
        if ((at >= 24 && at < 40) || (at >= 48 && at < 52) || (at >= 96 && at < 112))
            continue;
        forge(at, head[at] ^ 1);
        assert_int_equal(open_record(seal, out), XLV_E_CORRUPT);
        memcpy(head, saved, sizeof(head));
    }
    xlv_seal_free(seal);
}

static void a_newer_version_is_told_even_if_its_header_is_another(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal_info info;

    (void)state;
    seal_record(seal, 9);
    forge(8, 2);
    assert_int_equal(xlv_seal_parse(seal, head, &info), XLV_E_VERSION);
    assert_int_equal(info.version, 2);
    memset(head + 16, 0xee, sizeof(head) - 16);
    head[12] = 100; /* a shorter header */
    SHA256(head, 100 - 32, head + 100 - 32);
    assert_int_equal(xlv_seal_parse(seal, head, &info), XLV_E_VERSION);
    for (unsigned length = 0; length < 256; length++) {
        head[12] = (uint8_t)length;
        if (length != 100)
            assert_int_equal(xlv_seal_parse(seal, head, &info), XLV_E_CORRUPT);
    }
    xlv_seal_free(seal);
}

static void a_nonce_is_a_counter_under_a_salt_of_each_opening(void **state)
{
    struct xlv_seal *a = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal *b = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal_info one, two, three;

    (void)state;
    seal_record(a, 1);
    assert_int_equal(xlv_seal_parse(a, head, &one), 0);
    seal_record(a, 1);
    assert_int_equal(xlv_seal_parse(a, head, &two), 0);
    seal_record(b, 1);
    assert_int_equal(xlv_seal_parse(a, head, &three), 0);
    assert_memory_equal(one.salt, two.salt, sizeof(one.salt));
    assert_int_equal(one.counter + 1, two.counter);
    assert_memory_not_equal(one.salt, three.salt, sizeof(one.salt));
    xlv_seal_free(a);
    xlv_seal_free(b);
}

/* A record that was begun and dropped has used its nonce up. */
static void an_abandoned_record_uses_up_its_nonce(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal_info info;
    uint8_t out[LENGTH];

    (void)state;
    assert_int_equal(xlv_seal_begin(seal, head, 0, 1, 0, LENGTH), 0);
    assert_int_equal(xlv_seal_update(seal, cipher, plain, 10), 0);
    seal_record(seal, 2);
    assert_int_equal(xlv_seal_parse(seal, head, &info), 0);
    assert_int_equal(info.counter, 1);
    assert_int_equal(open_record(seal, out), 0);
    xlv_seal_free(seal);
}

static void a_salt_is_renewed_before_it_seals_too_much(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    struct xlv_seal_info first, info;
    uint8_t out[LENGTH];

    (void)state;
    seal_record(seal, 1);
    assert_int_equal(xlv_seal_parse(seal, head, &first), 0);
    for (uint32_t i = 1; i < XLV_SEAL_RECORDS_PER_SALT; i++)
        assert_int_equal(xlv_seal_begin(seal, head, 0, i, 0, 0), 0);
    assert_int_equal(xlv_seal_parse(seal, head, &info), 0);
    assert_int_equal(info.counter, XLV_SEAL_RECORDS_PER_SALT - 1);
    assert_memory_equal(info.salt, first.salt, sizeof(info.salt));
    seal_record(seal, 3);
    assert_int_equal(xlv_seal_parse(seal, head, &info), 0);
    assert_int_equal(info.counter, 0);
    assert_memory_not_equal(info.salt, first.salt, sizeof(info.salt));
    assert_int_equal(open_record(seal, out), 0);
    assert_memory_equal(out, plain, LENGTH);
    xlv_seal_free(seal);
}

/* HKDF-SHA256 (RFC 5869) for one block of output, by HMAC alone. */
static void hkdf(const uint8_t *salt, size_t salt_length, const uint8_t *ikm, const char *info,
                 uint8_t out[32])
{
    static const uint8_t zeros[32];
    uint8_t prk[32], block[64];
    unsigned n;

    HMAC(EVP_sha256(), salt_length ? salt : zeros, salt_length ? (int)salt_length : 32, ikm, 32,
         prk, &n);
    memcpy(block, info, strlen(info));
    block[strlen(info)] = 1;
    HMAC(EVP_sha256(), prk, 32, block, strlen(info) + 1, out, &n);
}

static void the_record_is_as_docs_formats_md_says(void **state)
{
    struct xlv_seal *seal = seal_of(XLV_SEAL_STORE, &uuid_a, key_a);
    uint8_t record_key[32], key_id[32], digest[32], nonce[12] = { 0 }, out[LENGTH], none[16];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;

    (void)state;
    seal_record(seal, 0x0102030405060708);
    seal_record(seal, 0x0102030405060708);
    assert_memory_equal(head, "XLVTPM\x1a\n" "\1\0\0\0" "\300\0\0\0" "\1\0\0\0" "\1\0\0\0", 24);
    assert_memory_equal(head + 24, uuid_a.b, 16);
    assert_memory_equal(head + 40, "\x08\7\6\5\4\3\2\1" "\xe8\3\0\0" "\x4d\0\0\0", 16);
    assert_memory_equal(head + 56, "\1\0\0\0\0\0\0\0", 8);
    hkdf(NULL, 0, key_a, "libxl-vtpm 1 key id", key_id);
    assert_memory_equal(head + 96, key_id, 16);
    SHA256(head, 160, digest);
    assert_memory_equal(head + 160, digest, 32);

    hkdf(head + 64, 32, key_a, "libxl-vtpm 1 store", record_key);
    memcpy(nonce + 4, head + 56, 8);
    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, record_key, nonce), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, NULL, &n, head, 192), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, out, &n, cipher, LENGTH), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, head + 192), 1);
    assert_int_equal(EVP_DecryptFinal_ex(ctx, none, &n), 1);
    assert_memory_equal(out, plain, LENGTH);
    EVP_CIPHER_CTX_free(ctx);
    xlv_seal_free(seal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_sealed_in_pieces_opens),
        cmocka_unit_test(records_of_several_writers_open_in_any_order),
        cmocka_unit_test(ciphertext_is_not_plaintext),
        cmocka_unit_test(any_flipped_bit_is_damage_and_nothing_else),
        cmocka_unit_test(wrong_key_owner_and_purpose_are_told_apart),
        cmocka_unit_test(a_header_is_bound_to_its_ciphertext),
        cmocka_unit_test(a_newer_version_is_told_even_if_its_header_is_another),
        cmocka_unit_test(a_nonce_is_a_counter_under_a_salt_of_each_opening),
        cmocka_unit_test(an_abandoned_record_uses_up_its_nonce),
        cmocka_unit_test(a_salt_is_renewed_before_it_seals_too_much),
        cmocka_unit_test(the_record_is_as_docs_formats_md_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
