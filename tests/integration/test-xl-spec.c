/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The spec parser against Debian's real xl: `xl -N create` (dry run) reads a
 * configuration, prints what it made of it, and creates nothing. The table of
 * the unit test, and entries put together at random from the pieces that matter,
 * must be taken by both, with the same result, or refused by both, with the same
 * words. xl needs a hypervisor and a xenstore even for this: pretended ones.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "libxl-vtpm/spec.h"
#include "tests/fake/machine.h"
#include "tests/fake/selftest/debian.h"
#include "tests/unit/spec-cases.h"

#define RANDOM_ENTRIES 400

static struct fx_machine *machine;
static char config[256];

static int setup(void **state)
{
    struct fx_options options = { .xenstored = debian_program("xenstored") };

    (void)state;
    if (!options.xenstored || !debian_program("xl"))
        return -1;
    if (fx_start(&machine, &options))
        return -1;
    snprintf(config, sizeof(config), "%s/spec.cfg", fx_dir(machine));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(config);
    fx_stop(machine);
    return 0;
}

/* Runs xl -N create on a configuration; its exit status, and what it printed (static). */
static int dry_run(const char *contents, const char **out, const char **err)
{
    static char text[2][65536];
    FILE *f = fopen(config, "we"), *files[2];
    int status;
    pid_t pid;

    assert_non_null(f);
    fputs(contents, f);
    assert_int_equal(fclose(f), 0);
    files[0] = tmpfile();
    files[1] = tmpfile();
    assert_true(files[0] && files[1]);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const char *xl = debian_program("xl"), *build = getenv("top_builddir");
        char preload[1024];

        snprintf(preload, sizeof(preload), "%s/tests/integration/.libs/xl-dry-run.so:%s",
                 build ? build : ".", fx_preload(machine));
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fx_become(machine, 0);
        dup2(fileno(files[0]), STDOUT_FILENO);
        dup2(fileno(files[1]), STDERR_FILENO);
        unsetenv("LD_LIBRARY_PATH");
        setenv("LD_PRELOAD", preload, 1);
        setenv(FX_QUIET_ENV, "1", 1);
        execl(xl, "xl", "-N", "create", config, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    for (int i = 0; i < 2; i++) {
        size_t n;

        rewind(files[i]);
        n = fread(text[i], 1, sizeof(text[i]) - 1, files[i]);
        text[i][n] = '\0';
        fclose(files[i]);
    }
    *out = text[0];
    *err = text[1];
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const char *text_of(struct json_object *json, const char *key)
{
    struct json_object *value;

    return json_object_object_get_ex(json, key, &value) ? json_object_get_string(value) : NULL;
}

/* The vtpm of xl's JSON, which is all it prints on standard output but one line. */
static struct json_object *vtpm_of(const char *out, struct json_object **whole)
{
    const char *start = strchr(out, '{');
    struct json_object *vtpms;

    *whole = start ? json_tokener_parse(start) : NULL;
    if (!*whole || !json_object_object_get_ex(*whole, "vtpms", &vtpms) ||
        json_object_array_length(vtpms) != 1)
        return NULL;
    return json_object_array_get_idx(vtpms, 0);
}

/* xl's line in our sentence, where ours may have '?' for a control character. */
static bool begins_as(const char *ours, const char *xls)
{
    for (; *xls && *xls != '\n'; xls++, ours++)
        if (*ours != *xls && !(*ours == '?' && (unsigned char)*xls < ' '))
            return false;
    return true;
}

static void compare(const char *entry)
{
    char contents[2048];
    struct json_object *whole, *vtpm;
    struct xlv_error e = XLV_ERROR_INIT;
    const char *out, *err, *uuid, *line;
    struct xlv_spec spec;
    char text[XLV_UUID_TEXT] = "";
    int ours = xlv_spec_parse(&spec, entry, &e), xls;

    snprintf(contents, sizeof(contents), "name = 'guest'\nkernel = '/none'\nvtpm = [ '%s' ]\n",
             entry);
    xls = dry_run(contents, &out, &err);
    if (xls != 0 && xls != 1)
        fail_msg("xl ended with %d: %s", xls, err);
    if ((ours != 0) != (xls != 0))
        fail_msg("'%s': ours %d \"%s\", xl's %d \"%s\"", entry, ours, e.text, xls, err);
    if (ours) {
        /* other lines of xl's may come first */
        for (line = err; line; line = strchr(line, '\n')) {
            line += *line == '\n';
            if (*line && begins_as(e.text, line))
                return;
        }
        fail_msg("'%s': ours \"%s\", xl's \"%s\"", entry, e.text, err);
    }
    vtpm = vtpm_of(out, &whole);
    if (!vtpm)
        fail_msg("'%s': xl printed no vtpm:\n%s", entry, out);
    assert_string_equal(text_of(vtpm, "backend_domname"), spec.backend);
    uuid = text_of(vtpm, "uuid");
    if (spec.has_uuid)
        xlv_uuid_format(&spec.uuid, text);
    /* the nil uuid is libxl's default, which is not printed */
    if (strcmp(uuid ? uuid : "", text))
        fail_msg("'%s': ours '%s', xl's '%s'", entry, text, uuid ? uuid : "");
    json_object_put(whole);
    xlv_spec_deinit(&spec);
}

static void the_table_is_what_xl_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(spec_cases) / sizeof(spec_cases[0]); i++)
        compare(spec_cases[i].text);
}

/* What check.c says about files as a whole. */
static void files_are_treated_as_xl_vtpm_check_says(void **state)
{
    static const struct {
        const char *contents;
        int status;
        size_t vtpms;
    } files[] = {
        { "name='g'\nkernel='/x'\nvtpm=['backend=0','backend=0']\n", 0, 2 },
        { "name='g'\nkernel='/x'\nvtpm='backend=0'\n", 0, 0 },
        { "name='g'\nkernel='/x'\nvtpm=[]\n", 0, 0 },
        { "name='g'\nkernel='/x'\n", 0, 0 },
        { "name='g'\nkernel='/x'\nvtpm=['backend=0',['backend=0'],'backend=0']\n", 0, 1 },
        { "name='g'\nkernel='/x'\nvtpm=['backend=0',['x=y'],'x=y']\n", 0, 1 },
        { "kernel='/x'\nvtpm=['backend=0']\n", 1, 0 },
        { "name = =\n", 1, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct json_object *whole = NULL, *vtpms;
        const char *out, *err;
        size_t count = 0;
        int status = dry_run(files[i].contents, &out, &err);

        if (strchr(out, '{'))
            whole = json_tokener_parse(strchr(out, '{'));
        if (whole && json_object_object_get_ex(whole, "vtpms", &vtpms))
            count = json_object_array_length(vtpms);
        if (status != files[i].status || count != files[i].vtpms)
            fail_msg("%s: status %d, %zu vtpms, \"%s\"", files[i].contents, status, count, err);
        json_object_put(whole);
    }
}

static void random_entries_are_read_alike(void **state)
{
    static const char *const pieces[] = {
        "backend=", "uuid=", "backend", "uuid", "=", ",", ",", ", ", " ", "0", "Domain-0", "7",
        "dcdb124b-9fed-4040-b149-dd2dfd8d094c", "DCDB124B-9fed-4040-b149-dd2dfd8d094c",
        "dcdb124b-9fed-4040-b149-dd2dfd8d094", "backend=0,", ("uuid=" U ","), "x=y", "ro", "\t",
        "00000000-0000-0000-0000-000000000000", ("backend=0,uuid=" V),
    };
    unsigned short seed[3] = { 20, 26, 1 };
    int taken = 0;

    (void)state;
    for (int i = 0; i < RANDOM_ENTRIES; i++) {
        struct xlv_spec spec;
        char entry[1024] = "";

        if (nrand48(seed) % 2)
            strcat(entry, "backend=0,");
        for (long n = nrand48(seed) % 7; n >= 0; n--)
            strcat(entry, pieces[(size_t)nrand48(seed) % (sizeof(pieces) / sizeof(pieces[0]))]);
        compare(entry);
        if (!xlv_spec_parse(&spec, entry, NULL)) {
            taken++;
            xlv_spec_deinit(&spec);
        }
    }
    print_message("%d entries, %d of them taken\n", RANDOM_ENTRIES, taken);
    assert_true(taken > RANDOM_ENTRIES / 10 && taken < RANDOM_ENTRIES * 9 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_what_xl_does),
        cmocka_unit_test(files_are_treated_as_xl_vtpm_check_says),
        cmocka_unit_test(random_entries_are_read_alike),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
