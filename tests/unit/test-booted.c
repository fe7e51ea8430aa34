/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a domain was booted with, out of libxl's note of it: libxl-vtpm/booted.h. */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "libxl-vtpm/booted.h"

#define DOMID 7u
#define UUID "2c8a7fc0-51f3-4f0e-9f0c-6b8f5b6a7d10"

static char directory[] = "/tmp/xlv-booted-XXXXXX";

static void write_file(const char *name, const char *text, size_t length)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

static void note(const char *text)
{
    write_file("userdata-d.7." UUID ".libxl-json", text, strlen(text));
}

/* A note as libxl writes it, with a type and what else there is in b_info. */
static void note_of(const char *type, const char *build)
{
    char text[16384];

    snprintf(text, sizeof(text),
             "{\n    \"c_info\": {\n        \"type\": \"%s\",\n        \"name\": \"web\",\n"
             "        \"uuid\": \"" UUID "\"\n    },\n    \"b_info\": {\n"
             "        \"max_vcpus\": 1,\n%s\n    }\n}\n", type, build);
    note(text);
}

static void build_of(char text[8192], const char *kernel, const char *ramdisk, const char *more)
{
    snprintf(text, 8192, "\"kernel\": \"%s/%s\", \"ramdisk\": \"%s%s\"%s", directory, kernel,
             ramdisk[0] ? directory : "", ramdisk, more);
}

static void refused(const char *why)
{
    struct xlv_booted booted;
    struct xlv_error e = XLV_ERROR_INIT;

    assert_int_not_equal(xlv_booted_find(&booted, directory, DOMID, UUID, &e), 0);
    if (!strstr(e.text, why))
        fail_msg("no \"%s\" in: %s", why, e.text);
    assert_int_equal(booted.kernel_fd, -1);
    assert_int_equal(booted.ramdisk_fd, -1);
}

static void kernel_ramdisk_and_command_line_are_found(void **unused)
{
    static const char *const types[] = { "pv", "pvh" };
    struct xlv_booted booted;
    struct xlv_error e = XLV_ERROR_INIT;
    char build[8192], bytes[16];

    (void)unused;
    for (unsigned i = 0; i < 2; i++) {
        build_of(build, "vmlinuz", "/initrd.img", ", \"cmdline\": \"root=\\/dev\\/xvda1 \\\"a b\\\"\"");
        note_of(types[i], build);
        assert_int_equal(xlv_booted_find(&booted, directory, DOMID, UUID, &e), 0);
        assert_string_equal(booted.cmdline, "root=/dev/xvda1 \"a b\"");
        assert_non_null(strstr(booted.kernel, "/vmlinuz"));
        assert_non_null(strstr(booted.ramdisk, "/initrd.img"));
        assert_int_equal(read(booted.kernel_fd, bytes, sizeof(bytes)), 6);
        assert_memory_equal(bytes, "kernel", 6);
        assert_int_equal(read(booted.ramdisk_fd, bytes, sizeof(bytes)), 7);
        assert_int_equal(fcntl(booted.kernel_fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(booted.kernel_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        xlv_booted_deinit(&booted);
        assert_int_equal(booted.kernel_fd, -1);
    }
    /* neither ramdisk nor command line: missing, null, or empty as xl has it */
    build_of(build, "vmlinuz", "", ", \"cmdline\": null");
    note_of("pv", build);
    assert_int_equal(xlv_booted_find(&booted, directory, DOMID, UUID, &e), 0);
    assert_string_equal(booted.cmdline, "");
    assert_string_equal(booted.ramdisk, "");
    assert_int_equal(booted.ramdisk_fd, -1);
    xlv_booted_deinit(&booted);
}

static void what_is_not_booted_by_name_is_not_known(void **unused)
{
    char build[8192];

    (void)unused;
    build_of(build, "vmlinuz", "", ", \"bootloader\": \"pygrub\"");
    note_of("pv", build);
    refused("pygrub");
    build_of(build, "vmlinuz", "", ", \"type.pvh\": { \"pvshim\": \"True\" }");
    note_of("pvh", build);
    refused("shim");
    build_of(build, "vmlinuz", "", ", \"type.pvh\": { \"pvshim\": true }");
    note_of("pvh", build);
    refused("shim");
    build_of(build, "vmlinuz", "", "");
    note_of("hvm", build);
    refused("hvm");
    note_of("pv", "\"bootloader\": null");
    refused("names no kernel");
    note_of("pv", "\"kernel\": \"boot/vmlinuz\"");
    refused("no absolute path");
}

static void files_that_are_none_are_refused(void **unused)
{
    char build[8192], path[128];

    (void)unused;
    build_of(build, "gone", "", "");
    note_of("pv", build);
    refused("gone cannot be opened");
    build_of(build, "vmlinuz", "/gone", "");
    note_of("pv", build);
    refused("the ramdisk");
    note_of("pv", "\"kernel\": \"/tmp\"");
    refused("is not a file");
    /* nobody writes into it: it must not be waited for */
    snprintf(path, sizeof(path), "%s/pipe", directory);
    assert_int_equal(mkfifo(path, 0600), 0);
    build_of(build, "pipe", "", "");
    note_of("pv", build);
    refused("is not a file");
    unlink(path);
}

static void notes_that_are_none_are_refused(void **unused)
{
    static char large[XLV_DOMAIN_CONFIG_MAX + 2];
    static const char *const texts[] = { "", "{", "[]", "null", "{}", "{\"c_info\": 3}",
                                         "{\"c_info\": {\"type\": 7}, \"b_info\": []}" };
    struct xlv_booted booted;
    struct xlv_error e = XLV_ERROR_INIT;
    char build[8192];

    (void)unused;
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        note(texts[i]);
        refused("");
    }
    memset(large, ' ', sizeof(large) - 1);
    note(large);
    refused("larger");
    snprintf(build, sizeof(build), "\"kernel\": \"%s/vmlinuz\", \"cmdline\": \"%4097s\"", directory,
             "x");
    note_of("pv", build);
    refused("command line is longer");
    assert_int_not_equal(xlv_booted_find(&booted, directory, DOMID + 1, UUID, &e), 0);
    assert_non_null(strstr(e.text, "userdata-d.8." UUID));
    xlv_error_clear(&e);
    assert_int_not_equal(xlv_booted_find(&booted, directory, DOMID, "", &e), 0);
    assert_non_null(strstr(e.text, "uuid"));
}

static int make_files(void **unused)
{
    (void)unused;
    if (!mkdtemp(directory))
        return -1;
    write_file("vmlinuz", "kernel", 6);
    write_file("initrd.img", "ramdisk", 7);
    return 0;
}

static int remove_files(void **unused)
{
    static const char *const names[] = { "vmlinuz", "initrd.img",
                                         "userdata-d.7." UUID ".libxl-json" };
    char path[256];

    (void)unused;
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        unlink(path);
    }
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernel_ramdisk_and_command_line_are_found),
        cmocka_unit_test(what_is_not_booted_by_name_is_not_known),
        cmocka_unit_test(files_that_are_none_are_refused),
        cmocka_unit_test(notes_that_are_none_are_refused),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
