/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TPM commands and error responses: backend/command.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backend/command.h"
#include "tests/unit/tpm.h"

static const uint8_t v12[] = "\x00\xc1\x00\x00\x00\x0a\x00\x00\x00\x50";
static const uint8_t v20[] = "\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x7b";
static const uint8_t v20_sessions[] = "\x80\x02\x00\x00\x00\x0a\x00\x00\x01\x7b";

static void expect(enum xlv_tpm_version version, const uint8_t *request, size_t length,
                   enum xlv_command_fault fault, const char *want)
{
    uint8_t response[XLV_TPM_HEADER_SIZE];

    memset(response, 0xee, sizeof(response));
    assert_int_equal(xlv_command_error(version, request, length, fault, response), 10);
    assert_memory_equal(response, want, 10);
}

static void errors_of_tpm_1_2(void **unused)
{
    (void)unused;
    expect(XLV_TPM_1_2, v12, 10, XLV_FAULT_SIZE, "\x00\xc4\0\0\0\x0a\0\0\0\x19");
    expect(XLV_TPM_1_2, v12, 10, XLV_FAULT_LOCALITY, "\x00\xc4\0\0\0\x0a\0\0\0\x3d");
    expect(XLV_TPM_1_2, v12, 10, XLV_FAULT_PAGES, "\x00\xc4\0\0\0\x0a\0\0\0\x1f");
    expect(XLV_TPM_1_2, v12, 10, XLV_FAULT_STORAGE, "\x00\xc4\0\0\0\x0a\0\0\0\x09");
    expect(XLV_TPM_1_2, v12, 10, XLV_FAULT_FAILURE, "\x00\xc4\0\0\0\x0a\0\0\0\x09");
    expect(XLV_TPM_1_2, v12, 10, XLV_FAULT_RESPONSE_SIZE, "\x00\xc4\0\0\0\x0a\0\0\0\x17");
    /* an error response never carries authorization */
    expect(XLV_TPM_1_2, (const uint8_t *)"\x00\xc2", 2, XLV_FAULT_SIZE,
           "\x00\xc4\0\0\0\x0a\0\0\0\x19");
    expect(XLV_TPM_1_2, v20, 10, XLV_FAULT_SIZE, "\x00\xc4\0\0\0\x0a\0\0\0\x19");
    expect(XLV_TPM_1_2, NULL, 0, XLV_FAULT_SIZE, "\x00\xc4\0\0\0\x0a\0\0\0\x19");
}

static void errors_of_tpm_2_0(void **unused)
{
    (void)unused;
    expect(XLV_TPM_2_0, v20, 10, XLV_FAULT_SIZE, "\x80\x01\0\0\0\x0a\0\0\x01\x42");
    expect(XLV_TPM_2_0, v20, 10, XLV_FAULT_LOCALITY, "\x80\x01\0\0\0\x0a\0\0\x09\x07");
    expect(XLV_TPM_2_0, v20, 10, XLV_FAULT_PAGES, "\x80\x01\0\0\0\x0a\0\0\x09\x04");
    expect(XLV_TPM_2_0, v20, 10, XLV_FAULT_STORAGE, "\x80\x01\0\0\0\x0a\0\0\x09\x23");
    expect(XLV_TPM_2_0, v20, 10, XLV_FAULT_FAILURE, "\x80\x01\0\0\0\x0a\0\0\x01\x01");
    expect(XLV_TPM_2_0, v20, 10, XLV_FAULT_RESPONSE_SIZE, "\x80\x01\0\0\0\x0a\0\0\x01\x54");
    /* Part 1: an error response has no sessions, whatever the command had */
    expect(XLV_TPM_2_0, v20_sessions, 10, XLV_FAULT_SIZE, "\x80\x01\0\0\0\x0a\0\0\x01\x42");
    /* a 1.2 command at a 2.0 TPM: TPM_RC_BAD_TAG in a 1.2 response */
    expect(XLV_TPM_2_0, v12, 10, XLV_FAULT_SIZE, "\x00\xc4\0\0\0\x0a\0\0\0\x1e");
    /* too short even for a tag */
    expect(XLV_TPM_2_0, v20, 1, XLV_FAULT_SIZE, "\x80\x01\0\0\0\x0a\0\0\x01\x42");
    expect(XLV_TPM_2_0, NULL, 0, XLV_FAULT_SIZE, "\x80\x01\0\0\0\x0a\0\0\x01\x42");
}

static void codes_are_read_only_where_there_are_any(void **unused)
{
    (void)unused;
    assert_int_equal(xlv_command_code(v20, 10), 0x17b);
    for (size_t n = 0; n < 10; n++)
        assert_int_equal(xlv_command_code(v20, n), 0);
    assert_int_equal(xlv_response_code((const uint8_t *)"\x80\x01\0\0\0\x0a\0\0\x01\x42", 10),
                     0x142);
    for (size_t n = 0; n < 10; n++)
        assert_int_equal(xlv_response_code(v20, n), 9);
}

static void commands_say_their_own_length(void **unused)
{
    uint8_t out[10][XLV_COMMAND_MAX], entropy[32] = { 1 };
    size_t length[10];

    (void)unused;
    length[0] = xlv_command_startup(XLV_TPM_2_0, out[0]);
    length[1] = xlv_command_startup(XLV_TPM_1_2, out[1]);
    length[2] = xlv_command_shutdown(out[2]);
    length[3] = xlv_command_stir(entropy, sizeof(entropy), out[3]);
    length[4] = xlv_command_presence(XLV_PRESENCE_LOCK | XLV_PRESENCE_NOT_PRESENT, out[4]);
    length[5] = xlv_command_physical_activate(out[5]);
    length[6] = xlv_command_create_ek(entropy, out[6]);
    length[7] = xlv_command_nv_lock(out[7]);
    length[8] = xlv_command_nv_define(0x1000f000, 7, out[8]);
    length[9] = xlv_command_nv_write(0x1000f000, 0, entropy, 7, out[9]);
    for (size_t i = 0; i < 10; i++) {
        assert_in_range(length[i], 10, XLV_COMMAND_MAX);
        assert_int_equal((uint32_t)out[i][2] << 24 | out[i][3] << 16 | out[i][4] << 8 | out[i][5],
                         length[i]);
    }
    assert_memory_equal(out[0], "\x80\x01\0\0\0\x0c\0\0\x01\x44\0\0", 12);
    assert_memory_equal(out[1], "\x00\xc1\0\0\0\x0c\0\0\0\x99\0\x01", 12);
    assert_memory_equal(out[2], "\x80\x01\0\0\0\x0c\0\0\x01\x45\0\0", 12);
    assert_memory_equal(out[4], "\x00\xc1\0\0\0\x0c\x40\0\0\x0a\0\x14", 12);
}

static void a_shutdown_counts_only_when_it_succeeded(void **unused)
{
    static const uint8_t good[] = "\x80\x01\0\0\0\x0a\0\0\0\0";
    static const uint8_t bad[] = "\x80\x01\0\0\0\x0a\0\0\x01\x01";
    uint8_t out[XLV_COMMAND_MAX];
    size_t length = xlv_command_shutdown(out);

    (void)unused;
    assert_true(xlv_command_was_shutdown(out, length, good, 10));
    assert_false(xlv_command_was_shutdown(out, length, bad, 10));
    assert_false(xlv_command_was_shutdown(out, length, NULL, 0));
    assert_false(xlv_command_was_shutdown(NULL, 0, good, 10));
    out[11] = 1; /* TPM_SU_STATE is another promise */
    assert_false(xlv_command_was_shutdown(out, length, good, 10));
}

static enum xlv_command_effect effect(struct cmd c)
{
    return xlv_command_effect(XLV_TPM_2_0, c.b, c.n);
}

static void what_reads_and_what_can_be_repeated_is_known(void **unused)
{
    struct cmd c;

    (void)unused;
    assert_int_equal(effect(tpm2_get_random(8)), XLV_EFFECT_DRAWS);
    assert_int_equal(effect(tpm2_pcr_read(1)), XLV_EFFECT_NOTHING);
    assert_int_equal(effect(tpm2_get_property(0x100)), XLV_EFFECT_NOTHING);
    /* by the index itself, which may be one with a PIN; by the owner */
    assert_int_equal(effect(tpm2_nv_read(0x01500000, 8)), XLV_EFFECT_AGAIN);
    assert_int_equal(effect(tpm2_nv_read(0x01500000, 9)), XLV_EFFECT_READS);
    c = tpm2_nv_read(0x01500000, 8);
    c.b[10] = 0x40;
    assert_int_equal(effect(c), XLV_EFFECT_NOTHING);
    assert_int_equal(effect(tpm2_read_public(0x01500000)), XLV_EFFECT_NOTHING);
    assert_int_equal(effect(tpm2_read_public(0x81000001)), XLV_EFFECT_NOTHING);
    assert_int_equal(effect(tpm2_pcr_extend(1, 1)), XLV_EFFECT_AGAIN);
    assert_int_equal(effect(tpm2_flush(0x80000000)), XLV_EFFECT_AGAIN);
    assert_int_equal(effect(tpm2_sign(0x80000000, TPM2_RS_PW, 0x14, 1)), XLV_EFFECT_DRAWS);
    assert_int_equal(effect(tpm2_sign(0x80000000, TPM2_RS_PW, 0x18, 1)), XLV_EFFECT_DRAWS);
    /* ECDAA, whatever the key has, and a session whose use would have to be repeated */
    assert_int_equal(effect(tpm2_sign(0x80000000, TPM2_RS_PW, 0x1a, 1)), XLV_EFFECT_ANYTHING);
    assert_int_equal(effect(tpm2_sign(0x80000000, TPM2_RS_PW, 0x10, 1)), XLV_EFFECT_ANYTHING);
    assert_int_equal(effect(tpm2_sign(0x80000000, 0x02000000, 0x18, 1)), XLV_EFFECT_ANYTHING);
    /* HMAC sessions: their nonces are drawn */
    assert_int_equal(effect(tpm2_start_session()), XLV_EFFECT_AGAIN_DRAWS);
    assert_int_equal(effect(tpm2_pcr_extend_in_session(1, 1, 0x02000000)),
                     XLV_EFFECT_AGAIN_DRAWS);
    /* one that audits is exclusive until the next command */
    c = tpm2_pcr_extend_in_session(1, 1, 0x02000000);
    for (unsigned flags = 0; flags < 256; flags++) {
        size_t at = 10 + 4 + 4 + 4 + 2;

        at += (size_t)(c.b[at - 2] << 8 | c.b[at - 1]);
        c.b[at] = (uint8_t)flags;
        assert_int_equal(effect(c), flags & 0x80 ? XLV_EFFECT_ANYTHING : XLV_EFFECT_AGAIN_DRAWS);
    }
    /* a policy session's time counts */
    c = tpm2_start_session();
    for (unsigned type = 1; type < 256; type++) {
        c.b[10 + 8 + 2 + 16 + 2] = (uint8_t)type;
        assert_int_equal(effect(c), XLV_EFFECT_ANYTHING);
    }
    assert_int_equal(effect(tpm2_pcr_extend_in_session(1, 1, 0x03000000)), XLV_EFFECT_ANYTHING);
    /* what writes to an index that is there */
    assert_int_equal(effect(tpm2_nv_write(0x01500000, 1, 8)), XLV_EFFECT_AGAIN);
    assert_int_equal(effect(tpm2_nv_increment(0x01500000)), XLV_EFFECT_AGAIN);
    assert_int_equal(effect(tpm2_nv_extend(0x01500000, 1)), XLV_EFFECT_AGAIN);
    assert_int_equal(effect(tpm2_nv_set_bits(0x01500000, 1)), XLV_EFFECT_AGAIN);
    /* what changes more, or was not looked at */
    assert_int_equal(effect(tpm2_nv_define(0x01500000, 0, 8)), XLV_EFFECT_ANYTHING);
    assert_int_equal(effect(tpm2_nv_undefine(0x01500000)), XLV_EFFECT_ANYTHING);
    assert_int_equal(effect(tpm2_clear_control_free()), XLV_EFFECT_ANYTHING);
    assert_int_equal(xlv_command_effect(XLV_TPM_2_0, NULL, 0), XLV_EFFECT_ANYTHING);
    /* TPM 1.2, and what is not for the TPM at hand */
    c = tpm12_extend(1, 1);
    assert_int_equal(xlv_command_effect(XLV_TPM_1_2, c.b, c.n), XLV_EFFECT_AGAIN);
    assert_int_equal(effect(c), XLV_EFFECT_ANYTHING);
    c = tpm12_pcr_read(1);
    assert_int_equal(xlv_command_effect(XLV_TPM_1_2, c.b, c.n), XLV_EFFECT_AGAIN);
    c = tpm12_get_random(8);
    assert_int_equal(xlv_command_effect(XLV_TPM_1_2, c.b, c.n), XLV_EFFECT_ANYTHING);
    c = tpm2_pcr_read(1);
    assert_int_equal(xlv_command_effect(XLV_TPM_1_2, c.b, c.n), XLV_EFFECT_ANYTHING);
}

/* Cut short anywhere, longer than it says, and with other numbers in it: never taken for more
 * than it is. */
static void nothing_is_known_of_what_is_malformed(void **unused)
{
    struct cmd commands[] = { tpm2_get_random(8), tpm2_nv_read(0x01500000, 8),
                              tpm2_pcr_extend(1, 1), tpm2_start_session(),
                              tpm2_sign(0x80000000, TPM2_RS_PW, 0x18, 1),
                              tpm2_nv_write(0x01500000, 1, 8), tpm2_nv_increment(0x01500000) };

    (void)unused;
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        struct cmd c = commands[i];

        for (size_t n = 0; n < c.n; n++)
            assert_int_equal(xlv_command_effect(XLV_TPM_2_0, c.b, n), XLV_EFFECT_ANYTHING);
        assert_int_equal(xlv_command_effect(XLV_TPM_2_0, c.b, c.n + 1), XLV_EFFECT_ANYTHING);
        c.b[1] ^= 4; /* another tag */
        assert_int_equal(effect(c), XLV_EFFECT_ANYTHING);
    }
    /* the authorisation area: its size, the session, the lengths of nonce and password */
    for (size_t at = 18; at < 31; at++) {
        struct cmd c = commands[1];

        if (at == 28) /* the session's attributes: the TPM's to judge */
            continue;
        c.b[at] ^= 1;
        assert_int_equal(effect(c), XLV_EFFECT_ANYTHING);
    }
}

static void an_audit_is_told_from_none(void **unused)
{
    static const uint8_t only[] = "\x80\x01\0\0\0\x17\0\0\0\0\0\0\0\0\x04\0\0\0\x01\0\0\x01\x40";
    uint8_t response[sizeof(only)], out[XLV_COMMAND_MAX];

    (void)unused;
    assert_int_equal(xlv_command_get_audited(out), 22);
    assert_memory_equal(out, "\x80\x01\0\0\0\x16\0\0\x01\x7a\0\0\0\x04\0\0\0\0\0\0\0\x02", 22);
    assert_false(xlv_response_audits(only, sizeof(only) - 1));
    for (size_t n = 0; n < sizeof(only) - 1; n++)
        assert_true(xlv_response_audits(only, n));
    for (size_t i = 6; i < sizeof(only) - 1; i++) {
        memcpy(response, only, sizeof(only));
        response[i] ^= 1;
        assert_true(xlv_response_audits(response, sizeof(only) - 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_of_tpm_1_2),
        cmocka_unit_test(errors_of_tpm_2_0),
        cmocka_unit_test(codes_are_read_only_where_there_are_any),
        cmocka_unit_test(commands_say_their_own_length),
        cmocka_unit_test(a_shutdown_counts_only_when_it_succeeded),
        cmocka_unit_test(what_reads_and_what_can_be_repeated_is_known),
        cmocka_unit_test(nothing_is_known_of_what_is_malformed),
        cmocka_unit_test(an_audit_is_told_from_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
