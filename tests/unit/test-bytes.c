/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bounded cursor: bytes as written, and nothing beyond the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"

static void values_read_back_as_written(void **state)
{
    uint8_t buffer[64];
    struct xlv_bytes w = xlv_bytes_writer(buffer, sizeof(buffer)), r;

    (void)state;
    xlv_put_u8(&w, 0x12);
    xlv_put_u16(&w, 0x1234);
    xlv_put_u32(&w, 0x12345678);
    xlv_put_u64(&w, 0x123456789abcdef0);
    xlv_put_u16_be(&w, 0x8001);
    xlv_put_u32_be(&w, 0x0000017b);
    xlv_put_data(&w, "abc", 3);
    assert_true(xlv_bytes_ok(&w));
    assert_int_equal(w.at, 24);

    r = xlv_bytes_reader(buffer, w.at);
    assert_int_equal(xlv_get_u8(&r), 0x12);
    assert_int_equal(xlv_get_u16(&r), 0x1234);
    assert_int_equal(xlv_get_u32(&r), 0x12345678);
    assert_int_equal(xlv_get_u64(&r), 0x123456789abcdef0);
    assert_int_equal(xlv_get_u16_be(&r), 0x8001);
    assert_int_equal(xlv_get_u32_be(&r), 0x0000017b);
    assert_memory_equal(xlv_get_view(&r, 3), "abc", 3);
    assert_true(xlv_bytes_ok(&r));
    assert_int_equal(xlv_bytes_left(&r), 0);
}

static void byte_order_on_the_wire_is_fixed(void **state)
{
    uint8_t buffer[6];
    struct xlv_bytes w = xlv_bytes_writer(buffer, sizeof(buffer));

    (void)state;
    xlv_put_u16(&w, 0x0102);
    xlv_put_u32_be(&w, 0x03040506);
    assert_memory_equal(buffer, "\x02\x01\x03\x04\x05\x06", 6);
}

static void write_beyond_the_end_is_dropped_and_remembered(void **state)
{
    uint8_t buffer[8];
    struct xlv_bytes w = xlv_bytes_writer(buffer, 4);

    (void)state;
    memset(buffer, 0xee, sizeof(buffer));
    xlv_put_u16(&w, 1);
    xlv_put_u32(&w, 2);
    assert_false(xlv_bytes_ok(&w));
    xlv_put_u8(&w, 3); /* would fit: must stay dropped */
    assert_int_equal(w.at, 2);
    assert_int_equal(buffer[2], 0xee);
    assert_int_equal(buffer[4], 0xee);
}

static void read_beyond_the_end_gives_zero_and_sticks(void **state)
{
    const uint8_t buffer[4] = { 1, 2, 3, 4 };
    uint8_t out[8];
    struct xlv_bytes r = xlv_bytes_reader(buffer, sizeof(buffer));

    (void)state;
    assert_int_equal(xlv_get_u64(&r), 0);
    assert_false(xlv_bytes_ok(&r));
    assert_int_equal(xlv_get_u8(&r), 0);
    memset(out, 0xee, sizeof(out));
    xlv_get_data(&r, out, sizeof(out));
    assert_int_equal(out[0], 0);
    assert_int_equal(out[7], 0);
    assert_null(xlv_get_view(&r, 1));
    assert_int_equal(xlv_bytes_left(&r), 0);
}

static void huge_length_does_not_wrap(void **state)
{
    const uint8_t buffer[4] = { 0 };
    struct xlv_bytes r = xlv_bytes_reader(buffer, sizeof(buffer));

    (void)state;
    xlv_get_u16(&r);
    assert_null(xlv_get_view(&r, SIZE_MAX - 1));
    assert_false(xlv_bytes_ok(&r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_read_back_as_written),
        cmocka_unit_test(byte_order_on_the_wire_is_fixed),
        cmocka_unit_test(write_beyond_the_end_is_dropped_and_remembered),
        cmocka_unit_test(read_beyond_the_end_gives_zero_and_sticks),
        cmocka_unit_test(huge_length_does_not_wrap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
