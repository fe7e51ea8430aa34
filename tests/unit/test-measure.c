/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Boot measurement: backend/eventlog.h and backend/measure.h. Another parser,
 * tpm2_eventlog of tpm2-tools, is asked what it reads in the logs, and to which
 * PCRs it comes; digests are compared with those that sha1sum and sha256sum give.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/measure.h"
#include "common/error.h"

#define ALL XLV_BANKS_ALL
#define LINE "root=/dev/xvda1 ro"

static struct xlv_eventlog event_log; /* large */

static int file_of(const char *text)
{
    int fd = memfd_create("file", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void measure(const char *ramdisk, enum xlv_tpm_version version, unsigned banks)
{
    struct xlv_measure_boot boot = {
        .kernel = "/boot/vmlinuz",
        .ramdisk = ramdisk ? "/boot/initrd.img" : NULL,
        .cmdline = LINE,
        .kernel_fd = file_of("kernel"),
        .ramdisk_fd = ramdisk ? file_of(ramdisk) : -1,
    };
    struct xlv_error e = XLV_ERROR_INIT;

    assert_int_equal(xlv_measure(&boot, version, banks, &event_log, &e), 0);
    assert_string_equal(e.text, "");
    close(boot.kernel_fd);
    if (ramdisk)
        close(boot.ramdisk_fd);
}

/* What tpm2_eventlog says of the log, whole. */
static const char *parsed_by_others(void)
{
    static char text[64 * 1024];
    char name[] = "/tmp/xlv-eventlog-XXXXXX", command[96];
    int fd = mkostemp(name, O_CLOEXEC);
    size_t length;
    FILE *pipe;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, event_log.bytes, event_log.length), event_log.length);
    close(fd);
    snprintf(command, sizeof(command), "tpm2_eventlog %s 2>&1", name);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    length = fread(text, 1, sizeof(text) - 1, pipe);
    text[length] = '\0';
    assert_int_equal(pclose(pipe), 0);
    unlink(name);
    return text;
}

static void has(const char *text, const char *wanted)
{
    if (!strstr(text, wanted))
        fail_msg("no \"%s\" in:\n%s", wanted, text);
}

/* The PCR that tpm2_eventlog computed, as a line of its own format. */
static void has_pcr(const char *text, unsigned bank, unsigned pcr, const struct xlv_digests *digest)
{
    char line[160], *at = line;
    const char *pcrs = strstr(text, "\npcrs:"), *section;

    assert_non_null(pcrs);
    snprintf(line, sizeof(line), "  %s:\n", xlv_hashes[bank].name);
    section = strstr(pcrs, line);
    assert_non_null(section);
    at += sprintf(at, "    %-3u: 0x", pcr);
    for (unsigned i = 0; i < xlv_hashes[bank].size; i++)
        at += sprintf(at, "%02x", digest->of[bank][i]);
    has(section, line);
}

static void a_log_of_tpm_2_0_is_read_by_tpm2_tools(void **unused)
{
    enum xlv_tpm_version version;
    struct xlv_digests pcrs[XLV_PCRS];
    const char *text;

    (void)unused;
    measure("ramdisk", XLV_TPM_2_0, ALL);
    text = parsed_by_others();
    has(text, "Spec ID Event03");
    has(text, "/boot/vmlinuz");
    has(text, "/boot/initrd.img");
    has(text, "kernel_cmdline: " LINE);
    has(text, "EV_SEPARATOR");
    /* sha256sum of what is in the files, and of the line */
    has(text, "6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c");
    has(text, "b522bcfff2ba6df0999d4772142b22165fff473d596d40915275f324f5c2322b");
    has(text, "8329f4965551016b773caccdb4cb5ea849d247d7b11dcfc31b03c67c6109537f");
    assert_int_equal(xlv_measure_replay(event_log.bytes, event_log.length, &version, pcrs), 0);
    assert_int_equal(version, XLV_TPM_2_0);
    for (unsigned bank = 0; bank < XLV_HASHES; bank++) {
        has_pcr(text, bank, 8, &pcrs[8]);
        has_pcr(text, bank, 9, &pcrs[9]);
    }
    for (unsigned i = 0; i < XLV_PCRS; i++)
        assert_int_equal(pcrs[i].banks, i == 8 || i == 9 ? ALL : 0);
}

static void a_log_has_the_banks_that_are_active(void **unused)
{
    enum xlv_tpm_version version;
    struct xlv_digests pcrs[XLV_PCRS];
    const char *text;

    (void)unused;
    measure("ramdisk", XLV_TPM_2_0, XLV_BANK_SHA256);
    text = parsed_by_others();
    has(text, "AlgorithmId: sha256");
    assert_null(strstr(text, "sha1"));
    assert_null(strstr(text, "sha384"));
    assert_int_equal(xlv_measure_replay(event_log.bytes, event_log.length, &version, pcrs), 0);
    has_pcr(text, XLV_HASH_SHA256, 9, &pcrs[9]);
}

static void a_log_of_tpm_1_2_is_read_by_tpm2_tools(void **unused)
{
    enum xlv_tpm_version version;
    struct xlv_digests pcrs[XLV_PCRS];
    const char *text;

    (void)unused;
    measure("ramdisk", XLV_TPM_1_2, ALL);
    text = parsed_by_others();
    assert_null(strstr(text, "Spec ID"));
    has(text, "/boot/vmlinuz");
    has(text, "c65a0fb7e74ffd2c9fc3a0f9aacb0f6a24b0a68b");
    has(text, "eb9f788b191129b938c948e6f84c3882eb0abf89");
    assert_int_equal(xlv_measure_replay(event_log.bytes, event_log.length, &version, pcrs), 0);
    assert_int_equal(version, XLV_TPM_1_2);
    has_pcr(text, XLV_HASH_SHA1, 8, &pcrs[8]);
    has_pcr(text, XLV_HASH_SHA1, 9, &pcrs[9]);
}

/* PCR 9 of the SHA-256 bank */
static void pcr9(uint8_t out[32])
{
    enum xlv_tpm_version version;
    struct xlv_digests pcrs[XLV_PCRS];

    assert_int_equal(xlv_measure_replay(event_log.bytes, event_log.length, &version, pcrs), 0);
    memcpy(out, pcrs[9].of[XLV_HASH_SHA256], 32);
}

static void a_guest_cannot_extend_the_ramdisk_itself(void **unused)
{
    struct xlv_digests forged = { .banks = ALL }, ramdisk, separator, pcrs[XLV_PCRS];
    static const uint8_t zeros[4];
    enum xlv_tpm_version version;
    uint8_t with[32], without[32];

    (void)unused;
    measure("ramdisk", XLV_TPM_2_0, ALL);
    pcr9(with);
    measure(NULL, XLV_TPM_2_0, ALL);
    pcr9(without);
    assert_memory_not_equal(with, without, 32);
    assert_int_equal(xlv_measure_replay(event_log.bytes, event_log.length, &version, pcrs), 0);
    forged = pcrs[9];
    assert_int_equal(xlv_digest(ALL, "ramdisk", 7, &ramdisk), 0);
    assert_int_equal(xlv_digest(ALL, zeros, 4, &separator), 0);
    assert_int_equal(xlv_digest_extend(&forged, &ramdisk), 0);
    assert_memory_not_equal(with, forged.of[XLV_HASH_SHA256], 32);
    assert_int_equal(xlv_digest_extend(&forged, &separator), 0);
    assert_memory_not_equal(with, forged.of[XLV_HASH_SHA256], 32);
}

/* SHA-256 of 32 zeros and SHA-256(01000000): what a PCR is after the error separator alone. */
static void is_error(const char *why)
{
    static const uint8_t value[4] = { 1 };
    struct xlv_digests expected = { .banks = ALL }, separator, pcrs[XLV_PCRS];
    enum xlv_tpm_version version;
    const char *text = parsed_by_others();

    assert_int_equal(xlv_digest(ALL, value, 4, &separator), 0);
    assert_int_equal(xlv_digest_extend(&expected, &separator), 0);
    assert_int_equal(xlv_measure_replay(event_log.bytes, event_log.length, &version, pcrs), 0);
    for (unsigned bank = 0; bank < XLV_HASHES; bank++)
        for (unsigned pcr = 8; pcr <= 9; pcr++) {
            assert_memory_equal(pcrs[pcr].of[bank], expected.of[bank], xlv_hashes[bank].size);
            has_pcr(text, bank, pcr, &pcrs[pcr]);
        }
    assert_non_null(memmem(event_log.bytes, event_log.length, why, strlen(why)));
}

static void what_cannot_be_measured_closes_the_pcrs(void **unused)
{
    struct xlv_measure_boot boot = { .error = "a boot loader chose the kernel" };
    struct xlv_error e = XLV_ERROR_INIT;
    int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)unused;
    assert_true(directory >= 0);
    assert_int_equal(xlv_measure(&boot, XLV_TPM_2_0, ALL, &event_log, &e), 0);
    assert_string_equal(e.text, boot.error);
    is_error(boot.error);
    /* a file that cannot be read, after one that can: nothing of the first is left */
    boot = (struct xlv_measure_boot){
        .kernel = "/boot/vmlinuz", .ramdisk = "/boot/broken", .cmdline = "",
        .kernel_fd = file_of("kernel"), .ramdisk_fd = directory,
    };
    xlv_error_clear(&e);
    assert_int_equal(xlv_measure(&boot, XLV_TPM_2_0, ALL, &event_log, &e), 0);
    assert_non_null(strstr(e.text, "/boot/broken"));
    is_error(e.text);
    close(boot.kernel_fd);
    /* an empty kernel is none */
    boot.ramdisk = NULL;
    boot.kernel_fd = file_of("");
    xlv_error_clear(&e);
    assert_int_equal(xlv_measure(&boot, XLV_TPM_2_0, ALL, &event_log, &e), 0);
    assert_non_null(strstr(e.text, "/boot/vmlinuz"));
    is_error(e.text);
    close(boot.kernel_fd);
    close(directory);
}

static void the_longest_texts_fit(void **unused)
{
    static char line[XLV_COMMAND_LINE_MAX + 1], name[XLV_FILE_NAME_MAX + 1];
    struct xlv_measure_boot boot = { .kernel = name, .ramdisk = name, .cmdline = line };
    struct xlv_error e = XLV_ERROR_INIT;
    const char *text;

    (void)unused;
    memset(line, 'l', sizeof(line) - 1);
    memset(name, 'n', sizeof(name) - 1);
    boot.kernel_fd = file_of("kernel");
    boot.ramdisk_fd = file_of("ramdisk");
    assert_int_equal(xlv_measure(&boot, XLV_TPM_2_0, ALL, &event_log, &e), 0);
    assert_string_equal(e.text, "");
    text = parsed_by_others();
    has(text, line);
    close(boot.kernel_fd);
    close(boot.ramdisk_fd);
}

static int count(const struct xlv_event *event, void *opaque)
{
    assert_true(event->digests.banks);
    ++*(unsigned *)opaque;
    return 0;
}

static void a_log_that_is_cut_short_is_found_out(void **unused)
{
    unsigned whole = 0;

    (void)unused;
    measure("ramdisk", XLV_TPM_2_0, ALL);
    for (size_t length = 0; length <= event_log.length; length++) {
        /* a copy of its own, so that a byte too far is a byte outside */
        uint8_t *copy = malloc(length ? length : 1);
        enum xlv_tpm_version version;
        unsigned events = 0;
        int rc;

        assert_non_null(copy);
        memcpy(copy, event_log.bytes, length);
        rc = xlv_eventlog_each(copy, length, &version, count, &events);
        free(copy);
        if (rc)
            assert_int_equal(rc, XLV_E_CORRUPT);
        else
            whole++;
    }
    assert_int_equal(whole, 7); /* nothing, the header, and after each of five events */
}

static void a_full_log_takes_no_more(void **unused)
{
    struct xlv_event event = { .pcr = 8, .type = XLV_EV_IPL };
    static const uint8_t data[1000];
    size_t before;
    int rc;

    (void)unused;
    assert_int_equal(xlv_digest(ALL, "", 0, &event.digests), 0);
    event.data = data;
    event.length = sizeof(data);
    xlv_eventlog_begin(&event_log, XLV_TPM_2_0, ALL);
    do {
        before = event_log.length;
        rc = xlv_eventlog_add(&event_log, &event);
    } while (!rc);
    assert_int_equal(rc, -EMSGSIZE);
    assert_int_equal(event_log.length, before);
    (void)parsed_by_others();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_of_tpm_2_0_is_read_by_tpm2_tools),
        cmocka_unit_test(a_log_has_the_banks_that_are_active),
        cmocka_unit_test(a_log_of_tpm_1_2_is_read_by_tpm2_tools),
        cmocka_unit_test(a_guest_cannot_extend_the_ramdisk_itself),
        cmocka_unit_test(what_cannot_be_measured_closes_the_pcrs),
        cmocka_unit_test(the_longest_texts_fit),
        cmocka_unit_test(a_log_that_is_cut_short_is_found_out),
        cmocka_unit_test(a_full_log_takes_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
