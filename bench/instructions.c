/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * instructions - TPM commands through one session in this process, for callgrind to count what
 * the backend's own code executes for them. bench/instructions.sh runs it and reads the counts.
 *
 *     instructions             dumps the profile of ROUNDS rounds of each command, under its name
 *     instructions --compiler  names the compiler, for the counts are only comparable within one
 *
 * The page, the slots and the journal are memory and temporary files; session, engine, journal,
 * store and seal are what vtpm-backend is made of. Only xlv_session_work() is counted.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <valgrind/callgrind.h>

#include "backend/manufacture.h"
#include "backend/ring.h"
#include "backend/session.h"
#include "bench/commands.h"

#define WARM_UP 16
#define ROUNDS 64 /* bench/instructions.sh divides by it */

struct xlv_port {
    uint8_t page[XLV_PAGE_SIZE];
};

static struct xlv_port port;
static struct xlv_session *session;

void *xlv_port_page(struct xlv_port *p)
{
    return p->page;
}

void xlv_port_notify(struct xlv_port *p)
{
    (void)p;
}

static int transact(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                    size_t *rsp_length)
{
    uint32_t n = (uint32_t)length;
    int r;

    (void)p;
    memcpy(port.page + 8, cmd, length);
    memcpy(port.page, &n, sizeof(n));
    memset(port.page + 5, 0, 3);
    port.page[4] = XLV_RING_SUBMIT;
    CALLGRIND_TOGGLE_COLLECT;
    r = xlv_session_work(session, NULL);
    CALLGRIND_TOGGLE_COLLECT;
    if (r || port.page[4] != XLV_RING_FINISH)
        return r < 0 ? r : -EPROTO;
    memcpy(&n, port.page, sizeof(n));
    if (n > XLV_PAGE_SIZE - 8)
        return -EPROTO;
    memcpy(rsp, port.page + 8, n);
    *rsp_length = n;
    return 0;
}

static int temporary(void)
{
    char name[] = "/tmp/xl-vtpm-instructions-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC);

    if (fd < 0) {
        perror(name);
        exit(1);
    }
    unlink(name);
    return fd;
}

static int measure(const struct bench_command *c, struct bench_peer *p,
                   const struct bench_objects *objects)
{
    static unsigned number;

    for (unsigned i = 0; i < WARM_UP + ROUNDS; i++) {
        int64_t r;

        if (i == WARM_UP)
            CALLGRIND_ZERO_STATS;
        r = c->run(p, objects, ++number);
        if (r) {
            fprintf(stderr, "instructions: %s: error 0x%llx\n", c->name, (long long)r);
            return 1;
        }
    }
    CALLGRIND_DUMP_STATS_AT(c->name);
    return 0;
}

static int all_of(enum xlv_tpm_version version)
{
    static const struct xlv_uuid uuid = { .b = { 1 } };
    static const uint8_t key[XLV_KEY_SIZE] = { 1 };
    const struct xlv_manufacture how = { .version = version, .banks = XLV_BANK_SHA256 };
    struct xlv_session_config config = {
        .version = version,
        .boot = XLV_BOOT_FRESH,
        .ring = { .domid = 1, .ring_ref = 2, .event_channel = 3 },
        .port = &port,
    };
    struct bench_peer p = { .name = "session", .tpm12 = version == XLV_TPM_1_2,
                            .transact = transact };
    struct bench_objects objects = { 0, 0 };
    int slots[2] = { temporary(), temporary() }, journal = temporary(), r;
    struct xlv_error e = XLV_ERROR_INIT;
    uint64_t generation;
    uint8_t *state;
    size_t length;

    memset(&port, 0, sizeof(port));
    r = xlv_store_prepare(slots[0], &e);
    if (!r)
        r = xlv_store_prepare(slots[1], &e);
    if (!r)
        r = xlv_manufacture(&how, &state, &length, &e);
    if (!r)
        r = xlv_store_new(&config.store, slots, &uuid, key, &e);
    if (!r) { /* which has to be asked before it is committed to, and is empty */
        uint8_t *none;
        size_t none_length;

        r = xlv_store_load(config.store, &none, &none_length, &generation, &e);
        r = r == XLV_E_EMPTY ? 0 : r ? r : -EEXIST;
    }
    if (!r)
        r = xlv_store_commit(config.store, state, length, &generation, &e);
    if (!r)
        r = xlv_journal_new(&config.journal, journal, &uuid, key, &e);
    if (!r)
        r = xlv_session_new(&session, &config, &e);
    if (r) {
        fprintf(stderr, "instructions: the session cannot be begun: %s (%d)\n", e.text, r);
        return 1;
    }
    free(state);
    if (bench_prepare(&p, &objects)) {
        fprintf(stderr, "instructions: the TPM cannot be made ready\n");
        return 1;
    }
    CALLGRIND_START_INSTRUMENTATION;
    for (size_t i = 0; !r && i < bench_command_count; i++)
        if (bench_commands[i].tpm12 == p.tpm12 && bench_commands[i].kind != BENCH_COMPUTES)
            r = measure(&bench_commands[i], &p, &objects);
    CALLGRIND_STOP_INSTRUMENTATION;
    xlv_session_free(session);
    xlv_journal_free(config.journal);
    xlv_store_free(config.store);
    close(slots[0]);
    close(slots[1]);
    close(journal);
    return r;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--compiler")) {
#if defined(__clang__)
        printf("clang %d", __clang_major__);
#else
        printf("gcc %d", __GNUC__);
#endif
#ifdef __SANITIZE_ADDRESS__
        printf(", sanitizers");
#endif
#ifndef __OPTIMIZE__
        printf(", not optimized");
#endif
        printf("\n");
        return 0;
    }
    return all_of(XLV_TPM_2_0) || all_of(XLV_TPM_1_2);
}
