/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A new TPM and a CA, for test-identity.sh.
 *
 *     factory make DIRECTORY 1.2|2.0   a CA in it, and a TPM that it certifies: tpm.state;
 *                                      prints the milliseconds of processor time it took
 *     factory run DIRECTORY            commands from standard input, responses to standard
 *                                      output: what tpm2-tools' "cmd" TCTI talks to. The TPM goes
 *                                      on where the last run ended, and not before that did: the
 *                                      tool before may not have waited for its own.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "backend/engine.h"
#include "backend/manufacture.h"
#include "common/bytes.h"
#include "common/fd.h"
#include "libxl-vtpm/ca.h"

static const char *directory;

static void die(const char *what, const struct xlv_error *e)
{
    fprintf(stderr, "factory: %s: %s\n", what, e && e->text[0] ? e->text : strerror(errno));
    exit(1);
}

static double ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double ca_ms;

static int certify(const struct xlv_msg_endorsement *keys,
                   struct xlv_msg_certificates *certificates, void *opaque, struct xlv_error *e)
{
    static struct xlv_endorsement endorsement;
    const struct xlv_settings *settings = opaque;
    struct xlv_ca *ca;
    double start;
    int r = xlv_ca_open(&ca, settings, e);

    if (r)
        return r;
    start = ms();
    r = xlv_ca_endorse(ca, keys->key[XLV_EK_P384].length ? XLV_TPM_2_0 : XLV_TPM_1_2, keys,
                       &endorsement, e);
    ca_ms = ms() - start;
    xlv_ca_free(ca);
    for (unsigned i = 0; !r && i < XLV_CERTIFICATES; i++) {
        certificates->certificate[i].length = (uint32_t)endorsement.certificate[i].length;
        memcpy(certificates->certificate[i].der, endorsement.certificate[i].der,
               endorsement.certificate[i].length);
    }
    return r;
}

static void put_file(const char *name, const uint8_t *data, size_t length)
{
    char path[4096];
    int fd XLV_CLOSE = -1;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || xlv_write_all(fd, data, length))
        die(path, NULL);
}

/* NULL: there is none. */
static uint8_t *get_file(const char *name, size_t *length)
{
    static uint8_t room[2][XLV_PERMANENT_MAX];
    static unsigned next;
    uint8_t *data = room[next++ % 2];
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    f = fopen(path, "re");
    if (!f)
        return NULL;
    *length = fread(data, 1, XLV_PERMANENT_MAX, f);
    fclose(f);
    return data;
}

static int make(const char *version)
{
    struct xlv_settings settings;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_manufacture how = {
        .version = strcmp(version, "2.0") ? XLV_TPM_1_2 : XLV_TPM_2_0,
        .banks = XLV_BANK_SHA256, .certify = certify, .opaque = &settings,
    };
    char path[4096];
    uint8_t *state;
    size_t length;
    double start;
    int r;

    snprintf(path, sizeof(path), "%s/conf", directory);
    if (xlv_settings_load(&settings, path, &e))
        die("settings", &e);
    r = xlv_ca_make(&settings, &e);
    if (r && r != XLV_E_EXISTS)
        die("the CA", &e);
    xlv_error_clear(&e);
    start = ms();
    if (xlv_manufacture(&how, &state, &length, &e))
        die("manufacture", &e);
    printf("%s: %.1f ms, of them %.1f ms for the certificates\n", version, ms() - start, ca_ms);
    put_file("tpm.state", state, length);
    xlv_engine_wipe(state, length);
    xlv_settings_deinit(&settings);
    return 0;
}

static int run(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t request[XLV_TPM_BUFFER_MAX], *permanent, *volatile_state, *state;
    const uint8_t *response;
    size_t permanent_length = 0, volatile_length = 0, length;
    int lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (lock < 0 || flock(lock, LOCK_EX) < 0) /* until this process ends */
        die(directory, NULL);
    permanent = get_file("tpm.state", &permanent_length);
    volatile_state = get_file("tpm.volatile", &volatile_length);
    if (!permanent || xlv_engine_load(XLV_TPM_2_0, permanent, permanent_length, volatile_state,
                                      volatile_length, &e))
        die("tpm.state", &e);
    if (!volatile_state && xlv_engine_startup(&e))
        die("startup", &e);
    while (!xlv_read_all(STDIN_FILENO, request, 10)) {
        struct xlv_bytes c = xlv_bytes_reader(request + 2, 4);
        uint32_t size = xlv_get_u32_be(&c);

        if (size < 10 || size > sizeof(request) ||
            xlv_read_all(STDIN_FILENO, request + 10, size - 10))
            die("a command", NULL);
        if (xlv_engine_execute(0, request, size, &response, &length, &e))
            die("a command", &e);
        if (xlv_write_all(STDOUT_FILENO, response, length))
            break;
    }
    if (xlv_engine_permanent(&state, &length, &e))
        die("permanent state", &e);
    put_file("tpm.state", state, length);
    xlv_engine_wipe(state, length);
    if (xlv_engine_volatile(&state, &length, &e))
        die("volatile state", &e);
    put_file("tpm.volatile", state, length);
    xlv_engine_wipe(state, length);
    xlv_engine_off();
    return 0;
}

int main(int argc, char **argv)
{
    directory = argc > 2 ? argv[2] : "";
    if (argc == 4 && !strcmp(argv[1], "make"))
        return make(argv[3]);
    if (argc == 3 && !strcmp(argv[1], "run"))
        return run();
    fputs("usage: factory make DIRECTORY 1.2|2.0; factory run DIRECTORY\n", stderr);
    return 2;
}
