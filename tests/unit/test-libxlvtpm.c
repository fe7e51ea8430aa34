/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libxlvtpm as its users see it: the installed header, the shared library,
 * nothing else of ours. libxl's own libxl_device_vtpm_add() is replaced here,
 * to see what would be attached.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>
#include <libxl_uuid.h>

#include <cmocka.h>

#include "include/libxl-vtpm.h"

#define U "dcdb124b-9fed-4040-b149-dd2dfd8d094c"

static char dir[64], config[96];

static int setup(void **state)
{
    FILE *f;

    (void)state;
    strcpy(dir, "/tmp/xlv-library-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(config, sizeof(config), "%s/conf", dir);
    f = fopen(config, "w");
    if (!f)
        return -1;
    fprintf(f, "state-dir = %s/state\nrun-dir = %s/run\n", dir, dir);
    return fclose(f);
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void a_spec_is_read_and_written(void **state)
{
    struct xlvtpm_error e;
    struct xlvtpm_spec *spec;

    (void)state;
    assert_int_equal(xlvtpm_spec_parse(&spec, " backend=0, uuid=DCDB124B-9FED-4040-B149-"
                                              "DD2DFD8D094C,ro",
                                       &e),
                     0);
    assert_string_equal(xlvtpm_spec_backend(spec), "0");
    assert_int_equal(xlvtpm_spec_backend_domid(spec), 0);
    assert_string_equal(xlvtpm_spec_uuid(spec), U);
    assert_string_equal(xlvtpm_spec_text(spec), "backend=0,uuid=" U);
    assert_non_null(strstr(xlvtpm_spec_warning(spec, 0), "\"ro\""));
    assert_null(xlvtpm_spec_warning(spec, 1));
    xlvtpm_spec_free(spec);

    assert_int_equal(xlvtpm_spec_make(&spec, "dd", NULL, &e), 0);
    assert_int_equal(xlvtpm_spec_backend_domid(spec), -1);
    assert_null(xlvtpm_spec_uuid(spec));
    assert_string_equal(xlvtpm_spec_text(spec), "backend=dd");
    xlvtpm_spec_free(spec);
    xlvtpm_spec_free(NULL);

    assert_int_equal(xlvtpm_spec_make(&spec, "d,d", NULL, &e), XLVTPM_INVALID);
    assert_null(spec);
    assert_int_equal(xlvtpm_spec_make(&spec, "0", "x", &e), XLVTPM_INVALID);
    assert_int_equal(xlvtpm_spec_parse(&spec, "uuid=" U, &e), XLVTPM_INVALID);
    assert_null(spec);
    assert_memory_equal(e.text, "vtpm spec missing required backend field!", 41);
    assert_int_equal(xlvtpm_spec_parse(&spec, "x=1", NULL), XLVTPM_INVALID);
}

static void codes_have_words(void **state)
{
    (void)state;
    assert_string_equal(xlvtpm_strerror(0), "success");
    assert_string_equal(xlvtpm_strerror(XLVTPM_IN_USE), "in use");
    assert_string_equal(xlvtpm_strerror(-ENOENT), strerror(ENOENT));
    assert_true(strlen(xlvtpm_version()) >= 5);
}

static void use(struct xlvtpm_client *client)
{
    struct xlvtpm_error e = { .text = "" };
    struct xlvtpm_instance *i, **list;
    enum xlvtpm_rule rule;
    size_t count;
    char *json;

    assert_int_equal(xlvtpm_list(client, &list, &count, &e), 0);
    assert_int_equal(count, 0);
    assert_null(list);
    assert_int_equal(xlvtpm_check(client, U, "web", 0, &rule, &i, &e), 0);
    assert_int_equal(rule, XLVTPM_RULE_ASSIGNED);
    assert_null(i);
    assert_int_equal(xlvtpm_create(client, U, "1.2", "mine", &i, &e), 0);
    assert_int_equal(xlvtpm_instance_number(i), 1);
    assert_string_equal(xlvtpm_instance_uuid(i), U);
    assert_string_equal(xlvtpm_instance_tpm_version(i), "1.2");
    assert_string_equal(xlvtpm_instance_life(i), "new");
    assert_string_equal(xlvtpm_instance_label(i), "mine");
    assert_non_null(strstr(xlvtpm_instance_json(i), "\"directory\":\"instances/1\""));
    xlvtpm_instance_free(i);
    assert_int_equal(xlvtpm_create(client, U, NULL, NULL, &i, &e), XLVTPM_EXISTS);
    assert_null(i);
    assert_non_null(strstr(e.text, U));
    assert_int_equal(xlvtpm_create(client, NULL, NULL, NULL, &i, NULL), 0);
    assert_string_equal(xlvtpm_instance_tpm_version(i), "2.0");
    xlvtpm_instance_free(i);
    assert_int_equal(xlvtpm_check(client, U, NULL, 0, &rule, &i, &e), 0);
    assert_int_equal(rule, XLVTPM_RULE_UUID);
    xlvtpm_instance_free(i);
    assert_int_equal(xlvtpm_bind(client, "web", 3, U, &e), 0);
    assert_int_equal(xlvtpm_check(client, NULL, "web", 3, &rule, &i, &e), 0);
    assert_int_equal(rule, XLVTPM_RULE_BINDING);
    assert_string_equal(xlvtpm_instance_uuid(i), U);
    xlvtpm_instance_free(i);
    assert_int_equal(xlvtpm_unbind(client, "web", 3, &e), 0);
    assert_int_equal(xlvtpm_unbind(client, "web", 3, &e), XLVTPM_NOT_FOUND);
    assert_int_equal(xlvtpm_bind(client, "web", 999, U, &e), XLVTPM_INVALID);
    assert_int_equal(xlvtpm_find_number(client, 2, &i, &e), 0);
    xlvtpm_instance_free(i);
    assert_int_equal(xlvtpm_find_number(client, 3, &i, &e), XLVTPM_NOT_FOUND);
    assert_string_equal(e.text, "there is no instance 3");
    assert_int_equal(xlvtpm_find_uuid(client, U, &i, &e), 0);
    xlvtpm_instance_free(i);
    assert_int_equal(xlvtpm_list(client, &list, &count, &e), 0);
    assert_int_equal(count, 2);
    assert_int_equal(xlvtpm_instance_number(list[1]), 2);
    xlvtpm_list_free(list, count);
    assert_int_equal(xlvtpm_call(client, "{\"call\": \"show\", \"number\": 1}", &json, &e), 0);
    assert_non_null(strstr(json, U));
    free(json);
    assert_int_equal(xlvtpm_call(client, "show", &json, &e), XLVTPM_INVALID);
    assert_int_equal(xlvtpm_call(client, "{\"call\": \"dance\"}", &json, &e), XLVTPM_INVALID);
    assert_null(json);
}

static void without_a_daemon_the_files_answer(void **state)
{
    struct xlvtpm_client *client;
    struct xlvtpm_error e = { .text = "" };
    char *json;

    (void)state;
    assert_int_equal(xlvtpm_open(&client, config, XLVTPM_DAEMON_ONLY, &e), XLVTPM_NOT_FOUND);
    assert_null(client);
    assert_non_null(strstr(e.text, "systemctl start"));
    assert_int_equal(xlvtpm_open(&client, config, 0, &e), 0);
    assert_false(xlvtpm_online(client));
    use(client);
    assert_int_equal(xlvtpm_call(client, "{\"call\": \"status\"}", &json, &e), XLVTPM_NOT_FOUND);
    xlvtpm_close(client);
    xlvtpm_close(NULL);
}

/* Starts tests/unit/control-server; it ends when *hold is closed. */
static pid_t start_server(const char *mode, int *hold)
{
    const char *build = getenv("top_builddir");
    char program[4096], line[16] = "";
    int in[2], out[2];
    pid_t pid;

    snprintf(program, sizeof(program), "%s/tests/unit/control-server", build ? build : ".");
    assert_int_equal(pipe(in) | pipe(out), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close(in[0]);
        close(in[1]);
        close(out[0]);
        close(out[1]);
        execl(program, program, config, mode, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    assert_int_equal(read(out[0], line, sizeof(line) - 1), 6);
    assert_string_equal(line, "ready\n");
    close(out[0]);
    *hold = in[1];
    return pid;
}

static void stop_server(pid_t pid, int hold)
{
    int status;

    close(hold);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void with_a_daemon_it_answers_and_both_see_the_same(void **state)
{
    struct xlvtpm_client *client, *beside;
    struct xlvtpm_instance *i;
    struct xlvtpm_error e = { .text = "" };
    char *json;
    int hold;
    pid_t pid = start_server("", &hold);

    (void)state;
    assert_int_equal(xlvtpm_open(&client, config, 0, &e), 0);
    assert_true(xlvtpm_online(client));
    use(client);
    assert_int_equal(xlvtpm_find_number(client, 1, &i, &e), 0);
    assert_non_null(strstr(xlvtpm_instance_json(i), "\"state\":\"connected\""));
    xlvtpm_instance_free(i);
    assert_int_equal(xlvtpm_call(client, "{\"call\": \"status\"}", &json, &e), 0);
    assert_non_null(strstr(json, "\"devices\":1"));
    free(json);
    /* the files beside the daemon: the same instance, without its device */
    assert_int_equal(xlvtpm_open(&beside, config, XLVTPM_FILES_ONLY, &e), 0);
    assert_false(xlvtpm_online(beside));
    assert_int_equal(xlvtpm_find_uuid(beside, U, &i, &e), 0);
    assert_non_null(strstr(xlvtpm_instance_json(i), "\"device\":null"));
    xlvtpm_instance_free(i);
    xlvtpm_close(beside);
    xlvtpm_close(client);
    stop_server(pid, hold);
}

static void a_daemon_that_misbehaves_is_reported(void **state)
{
    static const struct {
        const char *mode;
        int code;
        const char *words;
    } modes[] = {
        { "hang-up", XLVTPM_GONE, "closed the connection" },
        { "garbage", XLVTPM_INVALID, "no known start" },
        { "foreign", XLVTPM_INVALID, "not one we understand" },
    };

    (void)state;
    for (size_t n = 0; n < sizeof(modes) / sizeof(modes[0]); n++) {
        struct xlvtpm_client *client;
        struct xlvtpm_instance *i;
        struct xlvtpm_error e = { .text = "" };
        int hold, rc;
        pid_t pid = start_server(modes[n].mode, &hold);

        assert_int_equal(xlvtpm_open(&client, config, 0, &e), 0);
        rc = xlvtpm_find_number(client, 1, &i, &e);
        if (rc != modes[n].code || !strstr(e.text, modes[n].words))
            fail_msg("%s: %d, \"%s\"", modes[n].mode, rc, e.text);
        /* such a connection is not used again */
        if (strcmp(modes[n].mode, "foreign"))
            assert_int_equal(xlvtpm_find_number(client, 1, &i, &e), XLVTPM_GONE);
        xlvtpm_close(client);
        stop_server(pid, hold);
    }
}

static void a_bad_configuration_is_named(void **state)
{
    struct xlvtpm_client *client;
    struct xlvtpm_error e;
    FILE *f = fopen(config, "a");

    (void)state;
    fputs("colour = red\n", f);
    fclose(f);
    assert_int_equal(xlvtpm_open(&client, config, 0, &e), XLVTPM_INVALID);
    assert_null(client);
    assert_non_null(strstr(e.text, "conf:3: unknown key"));
    assert_int_equal(xlvtpm_open(&client, "/nowhere/conf", 0, &e), XLVTPM_NOT_FOUND);
    assert_int_equal(xlvtpm_open(&client, config, 4, &e), XLVTPM_INVALID);
}

/*
 * In place of libxl's.
 */

static struct {
    uint32_t domid;
    char backend[64], uuid[40];
    int devid, calls;
} added;

int libxl_device_vtpm_add(libxl_ctx *ctx, uint32_t domid, libxl_device_vtpm *vtpm,
                          const libxl_asyncop_how *how)
{
    assert_null(ctx);
    assert_null(how);
    added.domid = domid;
    added.devid = vtpm->devid;
    added.calls++;
    snprintf(added.backend, sizeof(added.backend), "%s", vtpm->backend_domname);
    snprintf(added.uuid, sizeof(added.uuid), LIBXL_UUID_FMT, LIBXL_UUID_BYTES(vtpm->uuid));
    return domid == 99 ? ERROR_FAIL : 0;
}

static void libxl_is_given_what_the_spec_says(void **state)
{
    struct xlvtpm_spec *spec;

    (void)state;
    assert_int_equal(xlvtpm_spec_make(&spec, "Domain-0", U, NULL), 0);
    assert_int_equal(xlvtpm_attach(NULL, 5, spec, NULL), 0);
    assert_int_equal(added.calls, 1);
    assert_int_equal(added.domid, 5);
    assert_int_equal(added.devid, -1); /* libxl takes the next free one */
    assert_string_equal(added.backend, "Domain-0");
    assert_string_equal(added.uuid, U);
    assert_int_equal(xlvtpm_attach(NULL, 99, spec, NULL), ERROR_FAIL);
    xlvtpm_spec_free(spec);
    assert_int_equal(xlvtpm_spec_make(&spec, "0", NULL, NULL), 0);
    assert_int_equal(xlvtpm_attach(NULL, 5, spec, NULL), 0);
    assert_string_equal(added.uuid, "00000000-0000-0000-0000-000000000000");
    xlvtpm_spec_free(spec);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spec_is_read_and_written),
        cmocka_unit_test(codes_have_words),
        TEST(without_a_daemon_the_files_answer),
        TEST(with_a_daemon_it_answers_and_both_see_the_same),
        TEST(a_daemon_that_misbehaves_is_reported),
        TEST(a_bad_configuration_is_named),
        cmocka_unit_test(libxl_is_given_what_the_spec_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
