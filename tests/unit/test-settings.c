/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration file: what it takes, and the sentence for what it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "include/limits.h"
#include "libxl-vtpm/settings.h"

static char path[] = "/tmp/xlv-settings-XXXXXX";

static void write_file(const void *text, size_t length)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

static int load(struct xlv_settings *s, const char *text, struct xlv_error *e)
{
    write_file(text, strlen(text));
    xlv_error_clear(e);
    return xlv_settings_load(s, path, e);
}

static void nothing_set_gives_the_defaults(void **state)
{
    struct xlv_settings s, built_in;
    struct xlv_error e;

    (void)state;
    assert_int_equal(xlv_settings_init(&built_in), 0);
    assert_int_equal(load(&s, "# nothing\n\n   \t\n", &e), 0);
    assert_string_equal(s.state_dir, XLV_LOCALSTATEDIR "/lib/xl-vtpm");
    assert_string_equal(s.run_dir, XLV_RUNSTATEDIR "/xl-vtpm");
    assert_string_equal(s.backend_program, XLV_LIBEXECDIR "/xl-vtpm/vtpm-backend");
    assert_int_equal(s.default_tpm_version, XLV_TPM_2_0);
    assert_int_equal(s.unknown_uuid, XLV_UNKNOWN_UUID_ASSIGN);
    assert_false(s.measure_boot);
    assert_string_equal(s.domain_config_dir, "/var/lib/xen");
    assert_int_equal(s.max_locality, 0);
    assert_int_equal(s.pcr_banks, XLV_BANK_SHA256);
    assert_int_equal(s.key_provider, XLV_KEY_FILE);
    assert_string_equal(s.key_source, XLV_LOCALSTATEDIR "/lib/xl-vtpm/master.key");
    assert_int_equal(s.log_level, XLV_LOG_INFO);
    assert_string_equal(s.state_dir, built_in.state_dir);
    assert_string_equal(s.backend_user, built_in.backend_user);
    assert_string_equal(s.key_source, built_in.key_source);
    xlv_settings_deinit(&s);
    xlv_settings_deinit(&s); /* harmless */
    xlv_settings_deinit(&built_in);
}

static void every_key_is_taken(void **state)
{
    struct xlv_settings s;
    struct xlv_error e;

    (void)state;
    assert_int_equal(load(&s,
                          "state-dir = /srv/tpm\n"
                          "\trun-dir=/run/a b\r\n"
                          "backend-program = /opt/backend\n"
                          "backend-user = root\n"
                          "backend-uid-base = 100000\n"
                          "backend-uid-count = 10\n"
                          "default-tpm-version = 1.2\n"
                          "unknown-uuid = refuse\n"
                          "measure-boot = on\n"
                          "domain-config-dir = /var/lib/xen-test\n"
                          "max-locality = 4\n"
                          "pcr-banks = sha512,sha1 , sha384\n"
                          "master-key = credential:xl-vtpm.key\n"
                          "log-level = debug",
                          &e),
                     0);
    assert_string_equal(s.state_dir, "/srv/tpm");
    assert_string_equal(s.run_dir, "/run/a b");
    assert_string_equal(s.backend_program, "/opt/backend");
    assert_string_equal(s.backend_user, "root");
    assert_int_equal(s.backend_uid_base, 100000);
    assert_int_equal(s.backend_uid_count, 10);
    assert_int_equal(s.default_tpm_version, XLV_TPM_1_2);
    assert_int_equal(s.unknown_uuid, XLV_UNKNOWN_UUID_REFUSE);
    assert_true(s.measure_boot);
    assert_string_equal(s.domain_config_dir, "/var/lib/xen-test");
    assert_int_equal(s.max_locality, 4);
    assert_int_equal(s.pcr_banks, XLV_BANK_SHA1 | XLV_BANK_SHA384 | XLV_BANK_SHA512);
    assert_int_equal(s.key_provider, XLV_KEY_CREDENTIAL);
    assert_string_equal(s.key_source, "xl-vtpm.key");
    assert_int_equal(s.log_level, XLV_LOG_DEBUG);
    xlv_settings_deinit(&s);
}

static void the_key_file_follows_the_state_directory(void **state)
{
    struct xlv_settings s;
    struct xlv_error e;

    (void)state;
    assert_int_equal(load(&s, "backend-user =\nstate-dir = /srv/tpm\n", &e), 0);
    assert_string_equal(s.key_source, "/srv/tpm/master.key");
    assert_string_equal(s.backend_user, "");
    xlv_settings_deinit(&s);
    assert_int_equal(load(&s, "master-key = file:/etc/k\nstate-dir = /srv/tpm\n", &e), 0);
    assert_int_equal(s.key_provider, XLV_KEY_FILE);
    assert_string_equal(s.key_source, "/etc/k");
    xlv_settings_deinit(&s);
    assert_int_equal(load(&s, "master-key = none\n", &e), 0);
    assert_int_equal(s.key_provider, XLV_KEY_NONE);
    xlv_settings_deinit(&s);
}

static void what_is_wrong_is_said_with_its_line(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
        const char *words;
    } bad[] = {
        { "# one\ncolour = red\n", 2, "unknown key \"colour\"" },
        { "State-Dir = /x\n", 1, "unknown key \"State-Dir\"" },
        { "state_dir = /x\n", 1, "unknown key \"state_dir\"" },
        { "\n\nlog-level info\n", 3, "no '='" },
        { "= x\n", 1, "unknown key \"\"" },
        { "log-level = info\nmax-locality = 0\nlog-level = info\n", 3, "already in line 1" },
        { "state-dir =\n", 1, "a value is needed" },
        { "state-dir = \"/x\"\n", 1, "without quotes" },
        { "state-dir = x/y\n", 1, "absolute" },
        { "run-dir = \n", 1, "a value is needed" },
        { "backend-user = nobody-has-this-name\n", 1, "no such user" },
        { "backend-uid-base = -1\n", 1, "a uid is needed" },
        { "backend-uid-base = 4294967295\n", 1, "a uid is needed" },
        { "backend-uid-base = 1000x\n", 1, "a uid is needed" },
        { "backend-uid-count = 0\n", 1, "a number of uids" },
        { "backend-uid-count = 99999999999999999999\n", 1, "a number of uids" },
        { "default-tpm-version = 2\n", 1, "2.0 or 1.2" },
        { "unknown-uuid = yes\n", 1, "assign or refuse" },
        { "max-locality = 5\n", 1, "0 to 4" },
        { "measure-boot = yes\n", 1, "on or off" },
        { "domain-config-dir = xen\n", 1, "absolute path" },
        { "pcr-banks = sha256,md5\n", 1, "sha384" },
        { "pcr-banks = sha\n", 1, "sha384" },
        { "pcr-banks = sha1,sha256,sha1\n", 1, "sha384" },
        { "ca-key = /a/path\n", 1, "pkcs11" },
        { "ca-key = file:relative\n", 1, "pkcs11" },
        { "ca-certificate = relative\n", 1, "absolute" },
        { "ca-crl-url = http://x/a,URI:y\n", 1, "commas" },
        { "ca-issuer-url = gopher://x\n", 1, "http" },
        { "pcr-banks = ,\n", 1, "sha384" },
        { "max-locality = -1\n", 1, "0 to 4" },
        { "max-locality = 00\n", 1, "0 to 4" },
        { "log-level = loud\n", 1, "error, warning" },
        { "log-level = info # more\n", 1, "a line of its own" },
        { "master-key = /etc/key\n", 1, "file:" },
        { "master-key = file:key\n", 1, "file:" },
        { "master-key = credential:\n", 1, "credential:NAME" },
        { "master-key = credential:a/b\n", 1, "credential:NAME" },
        { "log-level = in\001fo\n", 1, "control character" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct xlv_settings s;
        struct xlv_error e;
        char start[64];
        int rc = load(&s, bad[i].text, &e);

        snprintf(start, sizeof(start), "%s:%u: ", path, bad[i].line);
        if (rc != XLV_E_INVALID || strncmp(e.text, start, strlen(start)) ||
            !strstr(e.text, bad[i].words))
            fail_msg("\"%s\" gave %d, \"%s\"", bad[i].text, rc, e.text);
        assert_null(s.state_dir);
    }
}

static void lines_and_files_have_a_maximum(void **state)
{
    static char big[XLV_CONFIG_FILE_MAX + 2];
    struct xlv_settings s;
    struct xlv_error e;

    (void)state;
    memset(big, '#', XLV_CONFIG_LINE_MAX);
    big[XLV_CONFIG_LINE_MAX] = '\n';
    assert_int_equal(load(&s, big, &e), 0);
    xlv_settings_deinit(&s);
    memset(big, '#', XLV_CONFIG_LINE_MAX + 1);
    assert_int_equal(load(&s, big, &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, ":1: the line is longer"));
    memset(big, '\n', XLV_CONFIG_FILE_MAX);
    assert_int_equal(load(&s, big, &e), 0);
    xlv_settings_deinit(&s);
    memset(big, '\n', XLV_CONFIG_FILE_MAX + 1);
    assert_int_equal(load(&s, big, &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, "larger"));
}

static void what_is_no_text_file_is_refused(void **state)
{
    struct xlv_settings s;
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    write_file("log-level = info\n\0hidden = 1\n", 29);
    assert_int_equal(xlv_settings_load(&s, path, &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, "NUL"));
    xlv_error_clear(&e);
    assert_int_equal(xlv_settings_load(&s, "/tmp", &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, "not a file"));
    xlv_error_clear(&e);
    assert_int_equal(xlv_settings_load(&s, "/nowhere/xl-vtpm.conf", &e), XLV_E_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nowhere/xl-vtpm.conf"));
}

/* The file that is installed: every key is in it, and its values are the defaults. */
static void the_installed_file_shows_every_default(void **state)
{
    static const char *const keys[] = {
        "state-dir", "run-dir", "backend-program", "backend-user", "default-tpm-version",
        "unknown-uuid", "max-locality", "master-key", "log-level", "backend-uid-base", "control-group",
        "backend-uid-count", "pcr-banks", "ca-key", "ca-certificate", "ca-issuer-url", "ca-crl-url",
    };
    const char *build = getenv("top_builddir");
    char name[4096], line[XLV_CONFIG_LINE_MAX], all[16384] = "";
    unsigned found = 0;
    struct xlv_settings s, built_in;
    struct xlv_error e = XLV_ERROR_INIT;
    FILE *f;

    (void)state;
    snprintf(name, sizeof(name), "%s/libxl-vtpm/xl-vtpm.conf", build ? build : ".");
    f = fopen(name, "r");
    if (!f)
        fail_msg("%s is not there: run this from the build directory", name);
    assert_int_equal(xlv_settings_load(&s, name, &e), 0);
    xlv_settings_deinit(&s);
    rewind(f);
    while (fgets(line, sizeof(line), f)) {
        assert_int_equal(line[0] == '#' || line[0] == '\n', 1);
        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
            if (line[0] == '#' && !strncmp(line + 1, keys[i], strlen(keys[i])) &&
                !strncmp(line + 1 + strlen(keys[i]), " =", 2)) {
                found++;
                /* the user need not exist on this machine */
                if (strcmp(keys[i], "backend-user"))
                    strcat(all, line + 1);
            }
    }
    fclose(f);
    assert_int_equal(found, sizeof(keys) / sizeof(keys[0]));
    if (load(&s, all, &e))
        fail_msg("%s", e.text);
    assert_int_equal(xlv_settings_init(&built_in), 0);
    assert_string_equal(s.state_dir, built_in.state_dir);
    assert_string_equal(s.run_dir, built_in.run_dir);
    assert_string_equal(s.backend_program, built_in.backend_program);
    assert_int_equal(s.default_tpm_version, built_in.default_tpm_version);
    assert_int_equal(s.backend_uid_base, built_in.backend_uid_base);
    assert_int_equal(s.backend_uid_count, built_in.backend_uid_count);
    assert_int_equal(s.unknown_uuid, built_in.unknown_uuid);
    assert_int_equal(s.max_locality, built_in.max_locality);
    assert_int_equal(s.pcr_banks, built_in.pcr_banks);
    assert_int_equal(s.key_provider, built_in.key_provider);
    assert_string_equal(s.key_source, built_in.key_source);
    assert_int_equal(s.log_level, built_in.log_level);
    xlv_settings_deinit(&s);
    xlv_settings_deinit(&built_in);
}

static int setup(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    if (fd >= 0)
        close(fd);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_set_gives_the_defaults),
        cmocka_unit_test(every_key_is_taken),
        cmocka_unit_test(the_key_file_follows_the_state_directory),
        cmocka_unit_test(what_is_wrong_is_said_with_its_line),
        cmocka_unit_test(lines_and_files_have_a_maximum),
        cmocka_unit_test(what_is_no_text_file_is_refused),
        cmocka_unit_test(the_installed_file_shows_every_default),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
