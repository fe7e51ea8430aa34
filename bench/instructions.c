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

#include "bench/commands.h"
#include "bench/inside.h"

#define WARM_UP 16
#define ROUNDS 64 /* bench/instructions.sh divides by it */

static uint8_t page[XLV_PAGE_SIZE];
static struct bench_inside inside;

static void notify(void)
{
}

static int transact(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                    size_t *rsp_length)
{
    int r;

    (void)p;
    bench_inside_submit(page, cmd, length);
    CALLGRIND_TOGGLE_COLLECT;
    r = xlv_session_work(inside.session, NULL);
    CALLGRIND_TOGGLE_COLLECT;
    return r ? r : bench_inside_response(page, rsp, BENCH_BUFFER, rsp_length);
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
    struct bench_peer p = { .name = "session", .tpm12 = version == XLV_TPM_1_2,
                            .transact = transact };
    struct bench_objects objects = { 0, 0 };
    int r = bench_inside_open(&inside, version, "/tmp", "/tmp", page, notify);

    if (r)
        return 1;
    if (bench_prepare(&p, &objects)) {
        fprintf(stderr, "instructions: the TPM cannot be made ready\n");
        return 1;
    }
    CALLGRIND_START_INSTRUMENTATION;
    for (size_t i = 0; !r && i < bench_command_count; i++)
        if (bench_commands[i].tpm12 == p.tpm12 && bench_commands[i].kind != BENCH_COMPUTES)
            r = measure(&bench_commands[i], &p, &objects);
    CALLGRIND_STOP_INSTRUMENTATION;
    bench_inside_close(&inside);
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
