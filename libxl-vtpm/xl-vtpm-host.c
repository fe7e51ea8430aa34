/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: files and the host as a whole: check, status, doctor. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <stdio.h>
#include <string.h>

#include "libxl-vtpm/check.h"
#include "libxl-vtpm/doctor.h"

static void print_check(struct json_object *report)
{
    struct json_object *messages = member(report, "messages"), *vtpms = member(report, "vtpms");

    print_text(text_of(report, "file", "?"));
    fputs(": domain ", stdout);
    print_text(text_of(report, "domain", "(no name)"));
    putchar('\n');
    for (size_t i = 0; i < xlv_json_count(messages); i++) {
        fputs("  ", stdout);
        print_text(json_object_get_string(json_object_array_get_idx(messages, i)));
        putchar('\n');
    }
    for (size_t i = 0; i < xlv_json_count(vtpms); i++) {
        struct json_object *vtpm = json_object_array_get_idx(vtpms, i);
        struct json_object *warnings = member(vtpm, "warnings");

        printf("  device %s: '", text_of(vtpm, "devid", "?"));
        print_text(text_of(vtpm, "spec", ""));
        fputs("'\n    ", stdout);
        print_text(text_of(vtpm, "text", "?"));
        putchar('\n');
        for (size_t k = 0; k < xlv_json_count(warnings); k++) {
            fputs("    warning: ", stdout);
            print_text(json_object_get_string(json_object_array_get_idx(warnings, k)));
            putchar('\n');
        }
    }
}

/* The verdict is the exit code; the report is printed whatever it is. */
int run_check(struct run *run, struct json_object **result)
{
    enum xlv_check_result verdict;
    int rc = xlv_check_file(run->client, run->args[0], &verdict, result, &run->e);

    if (rc)
        return rc;
    if (run->json)
        print_json(*result);
    else
        print_check(*result);
    json_object_put(*result);
    *result = NULL;
    return verdict == XLV_CHECK_FINE ? 0 : verdict == XLV_CHECK_REFUSED ? XLV_E_REFUSED
                                                                        : XLV_E_INVALID;
}

int run_status(struct run *run, struct json_object **result)
{
    int rc = ask(run, request_of("status"), result);
    struct json_object *refusals;

    if (rc || run->json)
        return rc;
    json_object_object_foreach(*result, key, value)
        if (!json_object_is_type(value, json_type_array) &&
            !json_object_is_type(value, json_type_object))
            print_field(key, value ? json_object_get_string(value) : "-");
    refusals = member(*result, "refusals");
    for (size_t i = 0; i < xlv_json_count(refusals); i++) {
        struct json_object *refusal = json_object_array_get_idx(refusals, i);
        char text[2 * XLV_TEXT_MAX];

        snprintf(text, sizeof(text), "%s: domain %s, device %s: %s", text_of(refusal, "time", "?"),
                 text_of(refusal, "domid", "?"), text_of(refusal, "devid", "?"),
                 text_of(refusal, "reason", "?"));
        print_field("refused", text);
    }
    return 0;
}

static void print_doctor(struct json_object *report)
{
    struct json_object *checks = member(report, "checks");
    unsigned warnings = 0, problems = 0;

    for (size_t i = 0; i < xlv_json_count(checks); i++) {
        struct json_object *check = json_object_array_get_idx(checks, i);
        const char *result = text_of(check, "result", "?"), *advice = text_of(check, "advice", "");

        warnings += !strcmp(result, "warning");
        problems += !strcmp(result, "problem");
        printf("%-8s ", result);
        print_text(text_of(check, "check", "?"));
        fputs(": ", stdout);
        print_text(text_of(check, "text", "?"));
        putchar('\n');
        if (advice[0]) {
            fputs("         ", stdout);
            print_text(advice);
            putchar('\n');
        }
    }
    if (warnings || problems)
        printf("problems: %u, warnings: %u\n", problems, warnings);
    else
        puts("nothing is wrong");
}

/* The verdict is the exit code; the report is printed whatever it is. */
int run_doctor(struct run *run, struct json_object **result)
{
    struct xlv_doctor what = { .config = run->config, .root = "" };
    enum xlv_doctor_result worst;
    int rc = xlv_doctor(&what, &worst, result, &run->e);

    if (rc)
        return rc;
    if (run->json)
        print_json(*result);
    else
        print_doctor(*result);
    json_object_put(*result);
    *result = NULL;
    return worst == XLV_DOCTOR_PROBLEM ? XLV_E_CORRUPT : 0;
}
