/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vtpm spec, against a table of what xl 4.17's parse_config_data() does
 * (spec-cases.h; tests/integration/test-xl-spec.c holds the same table against the real xl).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/limits.h"
#include "libxl-vtpm/spec.h"
#include "tests/unit/spec-cases.h"

/* Errors have no control characters: those of the quoted text are '?'. */
static bool begins_as(const char *text, const char *start)
{
    for (; *start; start++, text++)
        if (*text != *start && !(*text == '?' && (unsigned char)*start < ' '))
            return false;
    return true;
}

static void reads_what_xl_reads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(spec_cases) / sizeof(spec_cases[0]); i++) {
        struct xlv_error e = XLV_ERROR_INIT;
        struct xlv_spec spec;
        char uuid[XLV_UUID_TEXT];
        int rc = xlv_spec_parse(&spec, spec_cases[i].text, &e);

        if (!spec_cases[i].backend) {
            if (rc != XLV_E_INVALID || !begins_as(e.text, spec_cases[i].uuid))
                fail_msg("\"%s\" gave %d, \"%s\"", spec_cases[i].text, rc, e.text);
            assert_null(spec.backend);
            continue;
        }
        if (rc)
            fail_msg("\"%s\" was refused: %s", spec_cases[i].text, e.text);
        assert_string_equal(spec.backend, spec_cases[i].backend);
        assert_int_equal(spec.backend_is_domid, spec_cases[i].domid >= 0);
        if (spec_cases[i].domid >= 0)
            assert_int_equal(spec.backend_domid, spec_cases[i].domid);
        assert_int_equal(spec.has_uuid, spec_cases[i].uuid != NULL);
        if (spec_cases[i].uuid)
            assert_string_equal(xlv_uuid_format(&spec.uuid, uuid), spec_cases[i].uuid);
        if (spec.warning_count != spec_cases[i].warnings)
            fail_msg("\"%s\" has %u warnings, the first \"%s\"", spec_cases[i].text,
                     spec.warning_count, spec.warning_count ? spec.warnings[0] : "");
        xlv_spec_deinit(&spec);
    }
}

static void a_long_entry_is_read_with_a_warning(void **state)
{
    size_t room = 3 * XLV_SPEC_MAX;
    char *text = malloc(room);
    struct xlv_spec spec;

    (void)state;
    memset(text, ' ', room);
    strcpy(text + XLV_SPEC_MAX, "backend=0,uuid=" U);
    assert_int_equal(xlv_spec_parse(&spec, text, NULL), 0);
    assert_true(spec.has_uuid);
    assert_int_equal(spec.warning_count, 1);
    xlv_spec_deinit(&spec);

    strcpy(text, "backend=");
    memset(text + 8, 'x', XLV_DOMAIN_NAME_MAX + 1);
    text[8 + XLV_DOMAIN_NAME_MAX + 1] = '\0';
    assert_int_equal(xlv_spec_parse(&spec, text, NULL), 0);
    assert_int_equal(spec.warning_count, 1);
    xlv_spec_deinit(&spec);

    /* an unknown key of any length fits the error */
    memset(text, 'k', room - 1);
    text[room - 2] = '=';
    text[room - 1] = '\0';
    assert_int_equal(xlv_spec_parse(&spec, text, NULL), XLV_E_INVALID);
    free(text);
}

static void warnings_are_bounded(void **state)
{
    char text[XLV_SPEC_MAX] = "backend=0";
    struct xlv_spec spec;

    (void)state;
    for (int i = 0; i < 20; i++)
        strcat(text, ",backend=1");
    assert_int_equal(xlv_spec_parse(&spec, text, NULL), 0);
    assert_int_equal(spec.warning_count, XLV_SPEC_WARNINGS_MAX);
    xlv_spec_deinit(&spec);
}

static void formatted_and_read_again_it_is_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(spec_cases) / sizeof(spec_cases[0]); i++) {
        struct xlv_spec spec, again;
        char *text;

        if (!spec_cases[i].backend)
            continue;
        assert_int_equal(xlv_spec_parse(&spec, spec_cases[i].text, NULL), 0);
        assert_int_equal(xlv_spec_format(&spec, &text, NULL), 0);
        assert_int_equal(xlv_spec_parse(&again, text, NULL), 0);
        assert_string_equal(again.backend, spec.backend);
        assert_int_equal(again.has_uuid, spec.has_uuid);
        assert_true(!spec.has_uuid || xlv_uuid_equal(&again.uuid, &spec.uuid));
        free(text);
        xlv_spec_deinit(&spec);
        xlv_spec_deinit(&again);
    }
}

static void a_backend_with_a_comma_cannot_be_formatted(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_spec spec = { .backend = (char *)"a,b" };
    char *text;

    (void)state;
    assert_int_equal(xlv_spec_format(&spec, &text, &e), XLV_E_INVALID);
    assert_null(text);
    assert_non_null(strstr(e.text, "a,b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_xl_reads),
        cmocka_unit_test(a_long_entry_is_read_with_a_warning),
        cmocka_unit_test(warnings_are_bounded),
        cmocka_unit_test(formatted_and_read_again_it_is_the_same),
        cmocka_unit_test(a_backend_with_a_comma_cannot_be_formatted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
