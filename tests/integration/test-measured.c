/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Measured boots, with the real daemon, backend and command: a domain's PCRs are those of what
 * libxl notes it was booted with, once in a boot, whatever is killed; the guest reads its log in
 * xenstore and the administrator by xl-vtpm; and what is not known is measured as an error.
 */
#include "config.h"

#include <openssl/evp.h>
#include <sys/stat.h>
#include <xenstore.h>

#include "backend/measure.h"
#include "tests/integration/scene.h"

/* Of libxl; removed at the end. The settings have to name it before there is a harness. */
static char notes[64], settings[160];

static void write_file(const char *name, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", notes, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* What libxl writes when the domain is complete, before it runs. */
static void note(uint32_t domid, const char *kernel, const char *more)
{
    char name[96], text[512];

    snprintf(name, sizeof(name), "userdata-d.%u.00000000-0000-4000-8000-%012u.libxl-json", domid,
             domid);
    snprintf(text, sizeof(text), "{ \"c_info\": { \"type\": \"pvh\" }, \"b_info\": { \"kernel\": "
             "\"%s/%s\", \"ramdisk\": \"%s/ramdisk\", \"cmdline\": \"quiet\"%s } }", notes, kernel,
             notes, more);
    write_file(name, text);
}

static void measured_create(struct vm *v, uint32_t domid, const char *kernel)
{
    assert_int_equal(vm_create(v, domid, UUID_A), 0);
    note(domid, kernel, "");
}

static void files_pcr(struct vm *v, uint8_t pcr[32])
{
    assert_int_equal(tpm2_read_pcr(v->f, 9, pcr), 0);
}

/* What an error leaves in PCR 9. */
static void error_pcr(uint8_t pcr[32])
{
    static const uint8_t value[4] = { 1 };
    struct xlv_digests separator;

    assert_int_equal(xlv_digest(XLV_BANK_SHA256, value, 4, &separator), 0);
    tpm2_expected_pcr(pcr, separator.of[XLV_HASH_SHA256], 1);
}

static void assert_error(struct vm *v)
{
    uint8_t want[32], got[32];

    error_pcr(want);
    files_pcr(v, got);
    assert_memory_equal(got, want, 32);
}

/* The log as the guest reads it, put together from its pieces; 0: there is none. */
static size_t guest_log(struct vm *v, uint8_t *bytes)
{
    struct xs_handle *xs = fx_xs_open(H.m, v->domid);
    static char text[32768];
    size_t n = 0;

    assert_non_null(xs);
    for (unsigned i = 0;; i++) {
        unsigned length;
        char path[160], *piece;

        snprintf(path, sizeof(path), "/local/domain/0/backend/vtpm/%u/0/event-log/%u", v->domid, i);
        piece = xs_read(xs, XBT_NULL, path, &length);
        if (!piece)
            break;
        assert_true(n + length < sizeof(text));
        memcpy(text + n, piece, length);
        n += length;
        free(piece);
    }
    xs_close(xs);
    text[n] = '\0';
    if (!n)
        return 0;
    n = (size_t)EVP_DecodeBlock(bytes, (unsigned char *)text, (int)n);
    /* EVP_DecodeBlock() counts the padding as zeros */
    return n - (strlen(text) > 1 && text[strlen(text) - 1] == '=') -
           (strlen(text) > 1 && text[strlen(text) - 2] == '=');
}

static int command(const char *arguments)
{
    char line[1024];
    int status;

    snprintf(line, sizeof(line), "env -u LD_LIBRARY_PATH %s -c %s/xl-vtpm.conf %s >%s/out 2>&1",
             H.command_program, H.dir, arguments, H.dir);
    status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool said(const char *text)
{
    char line[256];

    snprintf(line, sizeof(line), "grep -qF -- '%s' %s/out", text, H.dir);
    return system(line) == 0;
}

/* ---------------------------------------------------------------- the tests */

static void a_boot_is_measured_before_the_guest_sees_its_pcrs(void)
{
    uint8_t first[32], pcr[32], bytes[32768];
    struct xlv_digests pcrs[XLV_PCRS];
    enum xlv_tpm_version version;
    pid_t pid;
    struct vm v;
    size_t n;

    measured_create(&v, 5, "kernel");
    vm_probe(&v);
    files_pcr(&v, first);
    n = guest_log(&v, bytes);
    assert_true(n > 0);
    assert_int_equal(xlv_measure_replay(bytes, n, &version, pcrs), 0);
    assert_memory_equal(pcrs[9].of[XLV_HASH_SHA256], first, 32);
    assert_int_equal(command("measured 1"), 0);
    assert_true(said("the same"));
    assert_false(said("DIFFERENT"));

    /* once in a boot: another process, another ring, another daemon */
    assert_true(backends_wait(&H, 1, &pid, SOON));
    process_kill(pid);
    vm_random(&v);
    files_pcr(&v, pcr);
    assert_memory_equal(pcr, first, 32);
    daemon_kill(&H);
    assert_true(backends_wait(&H, 1, &pid, SOON));
    process_kill(pid);
    assert_int_equal(daemon_start(&H), 0);
    vm_random(&v);
    files_pcr(&v, pcr);
    assert_memory_equal(pcr, first, 32);
    assert_int_equal(guest_log(&v, bytes), n);
    vm_shutdown(&v);

    /* another kernel, another PCR; and the first again */
    measured_create(&v, 6, "another");
    vm_probe(&v);
    files_pcr(&v, pcr);
    assert_memory_not_equal(pcr, first, 32);
    vm_shutdown(&v);
    measured_create(&v, 7, "kernel");
    vm_probe(&v);
    files_pcr(&v, pcr);
    assert_memory_equal(pcr, first, 32);

    /* the command sees that a file is not what it was */
    write_file("ramdisk", "an upgrade");
    assert_int_equal(command("measured 1"), 1);
    assert_true(said("DIFFERENT"));
    write_file("ramdisk", "ramdisk");
    assert_int_equal(command("measured 1"), 0);
    vm_shutdown(&v);
}

static void a_daemon_that_comes_late_still_measures(void)
{
    uint8_t first[32], pcr[32];
    struct vm v;

    measured_create(&v, 5, "kernel");
    vm_probe(&v);
    files_pcr(&v, first);
    vm_shutdown(&v);
    /* the device is admitted by one daemon, the guest connects to the next */
    measured_create(&v, 6, "kernel");
    daemon_kill(&H);
    assert_int_equal(fx_domain_ran(H.m, 6), 0);
    assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
    assert_int_equal(daemon_start(&H), 0);
    assert_int_equal(fx_frontend_connect(v.f, SOON), 0);
    files_pcr(&v, pcr);
    assert_memory_equal(pcr, first, 32);
    vm_shutdown(&v);
}

static void what_is_not_known_is_measured_as_an_error(void)
{
    uint8_t bytes[32768];
    struct vm v;

    /* a boot loader */
    assert_int_equal(vm_create(&v, 5, UUID_A), 0);
    note(5, "kernel", ", \"bootloader\": \"pygrub\"");
    vm_probe(&v);
    assert_error(&v);
    assert_true(guest_log(&v, bytes) > 0);
    assert_int_equal(command("measured 1"), 1);
    assert_true(said("pygrub"));
    vm_shutdown(&v);
    /* nothing is noted */
    assert_int_equal(vm_create(&v, 8, UUID_A), 0);
    vm_probe(&v);
    assert_error(&v);
    vm_shutdown(&v);
    /* attached when it ran already, and a daemon later still */
    assert_int_equal(fx_domain_create(H.m, 7, "guest7"), 0);
    assert_int_equal(fx_domain_ran(H.m, 7), 0);
    note(7, "kernel", "");
    memset(&v, 0, sizeof(v));
    v.domid = 7;
    fx_vtpm_init(&v.dev, 0, 7, 0, UUID_A);
    assert_int_equal(fx_vtpm_create(H.m, &v.dev), 0);
    daemon_kill(&H);
    assert_int_equal(daemon_start(&H), 0);
    assert_int_equal(fx_guest_open(&v.g, H.m, 7), 0);
    vm_probe(&v);
    assert_error(&v);
    assert_int_equal(command("measured 1"), 1);
    assert_true(said("attached when it ran already") || said("did not see"));
    vm_shutdown(&v);
}

static void an_instance_may_differ_from_the_settings(void)
{
    static const uint8_t zeros[32];
    uint8_t first[32], pcr[32], bytes[32768];
    struct vm v;

    measured_create(&v, 5, "kernel");
    vm_probe(&v);
    files_pcr(&v, first);
    assert_int_equal(command("measure --off 1"), 0);
    assert_int_equal(command("show 1"), 0);
    assert_true(said("measure boot   off"));
    vm_shutdown(&v);
    measured_create(&v, 6, "kernel");
    vm_probe(&v);
    files_pcr(&v, pcr);
    assert_memory_equal(pcr, zeros, 32);
    assert_int_equal(guest_log(&v, bytes), 0);
    assert_int_equal(command("measured 1"), 3);
    assert_int_equal(command("measure --default 1"), 0);
    vm_shutdown(&v);
    measured_create(&v, 7, "kernel");
    vm_probe(&v);
    files_pcr(&v, pcr);
    assert_memory_equal(pcr, first, 32);
    vm_shutdown(&v);
}

static int make_notes(void **unused)
{
    (void)unused;
    write_file("kernel", "kernel");
    write_file("another", "another kernel");
    write_file("ramdisk", "ramdisk");
    return 0;
}

static int remove_notes(void **unused)
{
    char line[96];

    (void)unused;
    snprintf(line, sizeof(line), "rm -rf %s", notes);
    return system(line);
}

#define T(f) SCENE("", f, settings, false, 0)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_boot_is_measured_before_the_guest_sees_its_pcrs),
        T(a_daemon_that_comes_late_still_measures),
        T(what_is_not_known_is_measured_as_an_error),
        T(an_instance_may_differ_from_the_settings),
    };

    strcpy(notes, "/dev/shm/xl-vtpm-notes.XXXXXX");
    if (!mkdtemp(notes))
        return 1;
    snprintf(settings, sizeof(settings), "measure-boot = on\ndomain-config-dir = %s\n", notes);
    return cmocka_run_group_tests(tests, make_notes, remove_notes);
}
