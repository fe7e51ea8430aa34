/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * commands.h - the TPM commands that are measured. Each is a name, what has to be there before,
 * and how the command of round i reads; layouts from the TPM 2.0 Library, Part 3, and from the
 * TPM 1.2 Main Specification, Part 3.
 */
#ifndef BENCH_COMMANDS_H
#define BENCH_COMMANDS_H

#include "bench/peer.h"

/* What a command changes, and so what it costs whom. */
enum bench_kind {
    BENCH_READS,    /* nothing */
    BENCH_VOLATILE, /* PCRs, sessions: what lasts as long as the boot */
    BENCH_DURABLE,  /* what has to be on the disk before the answer */
    BENCH_COMPUTES, /* nothing, but it takes long */
};

/* Handles of what bench_prepare() made. */
struct bench_objects {
    uint32_t rsa, ecc;
};

struct bench_command {
    const char *name;
    enum bench_kind kind;
    bool tpm12;
    /* One round of it: one exchange or, for the session, two. A response code, 0 being success,
     * or -errno. */
    int64_t (*run)(struct bench_peer *p, const struct bench_objects *o, unsigned i);
};

extern const struct bench_command bench_commands[];
extern const size_t bench_command_count;

/* Of a program that measures them: [-n ROUNDS] [-c COMMAND] DIRECTORY, the last in argv[optind].
 * false, and the usage was said: something else. */
bool bench_arguments(int argc, char **argv, unsigned *rounds, const char **only);

/* The one of that name, which must be there. */
const struct bench_command *bench_command(const char *name);

/* Makes the NV indices that the commands use, and with prepare the keys as well. Response code or
 * -errno. */
int64_t bench_prepare_nv(struct bench_peer *p);
int64_t bench_prepare(struct bench_peer *p, struct bench_objects *o);

/* Makes an RSA-2048 key, which takes long, and forgets it. Response code or -errno. */
int64_t bench_make_rsa_key(struct bench_peer *p);

#endif
