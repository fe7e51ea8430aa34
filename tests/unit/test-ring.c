/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ring: backend/ring.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/ring.h"

/* A guest's view: the page, with a fence behind it. */
struct guest {
    uint8_t page[XLV_PAGE_SIZE], fence[64];
};

static struct guest *new_guest(void)
{
    struct guest *g = calloc(1, sizeof(*g));

    assert_non_null(g);
    memset(g->fence, 0xfe, sizeof(g->fence));
    return g;
}

static void free_guest(struct guest *g)
{
    for (size_t i = 0; i < sizeof(g->fence); i++)
        assert_int_equal(g->fence[i], 0xfe);
    free(g);
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static void header(struct guest *g, uint32_t length, uint8_t state, uint8_t locality, uint8_t extra)
{
    put32(g->page, length);
    g->page[4] = state;
    g->page[5] = locality;
    g->page[6] = 0xaa; /* pad: "should be zero", so it may be anything */
    g->page[7] = extra;
}

static void header_fields_are_where_tpmif_says(void **unused)
{
    struct guest *g = new_guest();
    struct xlv_ring_snapshot s;

    (void)unused;
    header(g, 0x01020304, XLV_RING_SUBMIT, 3, 2);
    xlv_ring_fetch(g->page, &s);
    assert_int_equal(s.length, 0x01020304);
    assert_int_equal(s.state, XLV_RING_SUBMIT);
    assert_int_equal(s.locality, 3);
    assert_int_equal(s.nr_extra_pages, 2);
    free_guest(g);
}

static void a_snapshot_does_not_change_with_the_page(void **unused)
{
    struct guest *g = new_guest();
    struct xlv_ring_snapshot s;
    struct xlv_ring_view v;

    (void)unused;
    header(g, 20, XLV_RING_SUBMIT, 0, 0);
    xlv_ring_fetch(g->page, &s);
    v = xlv_ring_view(g->page, &s);
    header(g, 0xffffffff, XLV_RING_CANCEL, 9, 255);
    assert_int_equal(xlv_ring_check(&s), XLV_RING_OK);
    assert_int_equal(xlv_ring_captured(&s, &v), 20);
    assert_int_equal(v.offset, 8);
    free_guest(g);
}

static void lengths_are_bounded(void **unused)
{
    static const struct {
        uint32_t length;
        uint8_t extra;
        enum xlv_ring_fault want;
    } cases[] = {
        { 0, 0, XLV_RING_TOO_SHORT },
        { 9, 0, XLV_RING_TOO_SHORT },
        { 10, 0, XLV_RING_OK },
        { 4088, 0, XLV_RING_OK },
        { 4089, 0, XLV_RING_TOO_LONG },
        { 4084, 1, XLV_RING_OK },
        { 4085, 1, XLV_RING_GOES_ON },
        { 4096, 1, XLV_RING_GOES_ON },
        { 4097, 1, XLV_RING_TOO_LONG },
        { 4097, 2, XLV_RING_TOO_LONG },
        { 0x80000000, 0, XLV_RING_TOO_LONG },
        { 0xffffffff, 2, XLV_RING_TOO_LONG },
        { 10, XLV_EXTRA_PAGES_MAX, XLV_RING_OK },
        { 10, XLV_EXTRA_PAGES_MAX + 1, XLV_RING_MANY_PAGES },
        { 10, 255, XLV_RING_MANY_PAGES },
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct xlv_ring_snapshot s = { .length = cases[i].length,
                                       .nr_extra_pages = cases[i].extra };

        assert_int_equal(xlv_ring_check(&s), cases[i].want);
    }
}

static void data_begins_behind_the_refs(void **unused)
{
    struct guest *g = new_guest();
    uint8_t got[16];

    (void)unused;
    for (unsigned extra = 0; extra <= 2; extra++) {
        struct xlv_ring_snapshot s = { .length = sizeof(got), .nr_extra_pages = (uint8_t)extra };
        struct xlv_ring_view v = xlv_ring_view(g->page, &s);

        memset(g->page, 0, sizeof(g->page));
        for (size_t i = 0; i < sizeof(got); i++)
            g->page[8 + 4 * extra + i] = (uint8_t)(i + 1);
        xlv_ring_read(&v, got, sizeof(got));
        for (size_t i = 0; i < sizeof(got); i++)
            assert_int_equal(got[i], i + 1);
        assert_int_equal(xlv_ring_room(&v), 4096 - 8 - 4 * extra);
    }
    free_guest(g);
}

static void a_full_page_is_read_and_written_to_its_last_byte_only(void **unused)
{
    struct guest *g = new_guest();
    struct xlv_ring_snapshot s = { .length = 4088 };
    struct xlv_ring_view v = xlv_ring_view(g->page, &s);
    uint8_t data[4088];

    (void)unused;
    memset(data, 0x5a, sizeof(data));
    assert_int_equal(xlv_ring_room(&v), 4088);
    xlv_ring_write(&v, data, xlv_ring_room(&v));
    assert_int_equal(g->page[4095], 0x5a);
    memset(data, 0, sizeof(data));
    xlv_ring_read(&v, data, xlv_ring_room(&v));
    assert_int_equal(data[4087], 0x5a);
    free_guest(g);
}

static void an_error_fits_even_behind_255_refs(void **unused)
{
    struct guest *g = new_guest();
    struct xlv_ring_snapshot s = { .length = 0xffffffff, .nr_extra_pages = 255 };
    struct xlv_ring_view v = xlv_ring_view(g->page, &s);
    uint8_t data[4096];

    (void)unused;
    assert_int_equal(v.offset, 8 + 4 * 255);
    assert_int_equal(xlv_ring_room(&v), 4096 - 8 - 4 * 255);
    assert_int_equal(xlv_ring_captured(&s, &v), xlv_ring_room(&v));
    xlv_ring_read(&v, data, xlv_ring_captured(&s, &v));
    xlv_ring_write(&v, data, 10);
    free_guest(g);
}

static void captured_never_leaves_the_page(void **unused)
{
    struct guest *g = new_guest();
    struct xlv_ring_snapshot s = { .length = 8000, .nr_extra_pages = 2 };
    struct xlv_ring_view v = xlv_ring_view(g->page, &s);

    (void)unused;
    assert_int_equal(xlv_ring_captured(&s, &v), 4096 - 16);
    free_guest(g);
}

static void states_change_as_tpmif_wants(void **unused)
{
    struct guest *g = new_guest();

    (void)unused;
    header(g, 10, XLV_RING_SUBMIT, 0, 0);
    assert_int_equal(xlv_ring_state(g->page), XLV_RING_SUBMIT);
    xlv_ring_set_state(g->page, XLV_RING_FINISH);
    assert_int_equal(g->page[4], XLV_RING_FINISH);
    assert_int_equal(g->page[6], 0xaa); /* and nothing beside it */
    /* cancel is complete only where it is still wanted */
    for (unsigned state = 0; state < 256; state++) {
        g->page[4] = (uint8_t)state;
        assert_int_equal(xlv_ring_cancelled(g->page), state == XLV_RING_CANCEL);
        assert_int_equal(g->page[4], state == XLV_RING_CANCEL ? XLV_RING_IDLE : state);
    }
    xlv_ring_set_length(g->page, 0x11223344);
    assert_memory_equal(g->page, "\x44\x33\x22\x11", 4);
    free_guest(g);
}

static bool fits(const char *page, uint32_t length, const char *request, const char *response)
{
    return xlv_ring_fits((const uint8_t *)page, strlen(page), length, length,
                         (const uint8_t *)request, strlen(request), (const uint8_t *)response,
                         strlen(response));
}

static void every_mixture_of_request_and_response_fits(void **unused)
{
    static const char request[] = "abcdefgh", response[] = "ABCDEFGH";

    (void)unused;
    for (unsigned mask = 0; mask < 256; mask++) {
        char page[9] = "";

        for (unsigned i = 0; i < 8; i++)
            page[i] = mask & (1u << i) ? response[i] : request[i];
        assert_true(fits(page, 8, request, response));
        page[mask % 8] = 'x';
        assert_false(fits(page, 8, request, response));
    }
}

static void mixtures_of_different_lengths_fit(void **unused)
{
    (void)unused;
    /* response longer: what is behind the request may be anything */
    assert_true(fits("abcd????", 4, "abcd", "ABCDEFGH"));
    assert_true(fits("ABcd??GH", 4, "abcd", "ABCDEFGH"));
    assert_true(fits("ABCDEFGH", 8, "abcd", "ABCDEFGH"));
    assert_false(fits("abxd????", 4, "abcd", "ABCDEFGH"));
    /* response shorter: the request's rest must still be there */
    assert_true(fits("ABcdefgh", 8, "abcdefgh", "ABC"));
    assert_true(fits("ABCdefgh", 3, "abcdefgh", "ABC"));
    assert_false(fits("ABCdefgX", 8, "abcdefgh", "ABC"));
    /* the length field is of one of the two */
    assert_false(fits("abcdefgh", 7, "abcdefgh", "ABC"));
    assert_false(fits("abcdefgh", 0, "abcdefgh", "ABC"));
    /* no response (a cancelled command) */
    assert_true(fits("abcd", 4, "abcd", ""));
    assert_false(fits("abce", 4, "abcd", ""));
}

/* A guest that rewrites its page all the time must not get us out of bounds:
 * every header there can be, against a view made of the snapshot. */
static void random_headers_never_leave_the_page(void **unused)
{
    struct guest *g = new_guest();
    uint8_t *data = malloc(XLV_TPM_BUFFER_MAX); /* exact, for the sanitizer */

    (void)unused;
    assert_non_null(data);
    srandom(20100429);
    for (unsigned round = 0; round < 20000; round++) {
        struct xlv_ring_snapshot s;
        struct xlv_ring_view v;
        size_t n;

        for (unsigned i = 0; i < 24; i++)
            g->page[i] = (uint8_t)random();
        if (round % 2)
            put32(g->page, (uint32_t)random() % 8300);
        if (round % 3)
            g->page[7] = (uint8_t)((unsigned)random() % 5);
        xlv_ring_fetch(g->page, &s);
        v = xlv_ring_view(g->page, &s);
        n = xlv_ring_captured(&s, &v);
        assert_true(n <= XLV_TPM_BUFFER_MAX && n <= xlv_ring_room(&v));
        assert_true(xlv_ring_room(&v) >= 3000);
        xlv_ring_read(&v, data, n);
        xlv_ring_write(&v, data, n);
        if (xlv_ring_check(&s) == XLV_RING_OK)
            assert_int_equal(n, s.length);
    }
    free(data);
    free_guest(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_fields_are_where_tpmif_says),
        cmocka_unit_test(a_snapshot_does_not_change_with_the_page),
        cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(data_begins_behind_the_refs),
        cmocka_unit_test(a_full_page_is_read_and_written_to_its_last_byte_only),
        cmocka_unit_test(an_error_fits_even_behind_255_refs),
        cmocka_unit_test(captured_never_leaves_the_page),
        cmocka_unit_test(states_change_as_tpmif_wants),
        cmocka_unit_test(every_mixture_of_request_and_response_fits),
        cmocka_unit_test(mixtures_of_different_lengths_fit),
        cmocka_unit_test(random_headers_never_leave_the_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
