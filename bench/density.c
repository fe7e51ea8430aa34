/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * density - many TPMs at once on one machine, ours and swtpm's: how long each takes to start, what
 * each keeps of memory when idle, and how long commands take when all of them have some.
 *
 *     density [-n COUNT] [-r ROUNDS] [-w] [-o] [-1] DIRECTORY
 *
 * TPM 2.0; with -1 TPM 1.2, only started. Starting is measured one by one: ours from the nodes in
 * xenstore to InitWait, and from the frontend's nodes to the answer of the first command; swtpm from
 * fork() to the answer of TPM2_Startup, without the setup tool that would make keys and
 * certificates. Ours is measured twice: with a TPM that has to be made first, and on the next boot
 * (-o: only the former, which is for large numbers). The load goes round all TPMs, each time one
 * command in 16 that has to be durable, the others reading and extending. -w: no swtpm beside it. At
 * the end some of our processes are killed, and a command is sent to each: how long until it is
 * answered.
 *
 * Prints one JSON object: times in milliseconds (starts) and microseconds (commands), memory in KiB.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "bench/commands.h"
#include "bench/samples.h"

struct memory {
    double pss, uss;
};

static struct memory memory_of(pid_t pid)
{
    char path[64], line[256];
    struct memory m = { 0, 0 };
    long kib;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Pss: %ld kB", &kib) == 1)
            m.pss = (double)kib;
        if (sscanf(line, "Private_Clean: %ld kB", &kib) == 1 ||
            sscanf(line, "Private_Dirty: %ld kB", &kib) == 1)
            m.uss += (double)kib;
    }
    if (f)
        fclose(f);
    return m;
}

static struct json_object *memory_json(const pid_t *pids, unsigned n)
{
    struct json_object *o = json_object_new_object();
    struct memory sum = { 0, 0 };

    for (unsigned i = 0; i < n; i++) {
        struct memory m = memory_of(pids[i]);

        sum.pss += m.pss;
        sum.uss += m.uss;
    }
    json_object_object_add(o, "pss", json_object_new_double(n ? sum.pss / n : 0));
    json_object_object_add(o, "uss", json_object_new_double(n ? sum.uss / n : 0));
    return o;
}

static int fail(const char *what, unsigned i, int64_t r)
{
    fprintf(stderr, "density: %s %u: %s (%lld)\n", what, i, r < 0 ? strerror((int)-r) : "TPM error",
            (long long)r);
    return 1;
}

/*
 * Starts all of ours: first every domain is created, then every driver connects, as a guest that
 * has booted so far does. (InitWait is kept for a second, so that libxl cannot miss it; no guest
 * boots in less, and that second is nobody's waiting.)
 */
static int start_ours(struct harness *h, struct bench_peer *peers, unsigned n, bool tpm12,
                      struct json_object *out, const char *to_init_wait, const char *to_answer)
{
    struct bench_samples wait = { 0 }, answer = { 0 };

    for (unsigned i = 0; i < n; i++) {
        int64_t start = bench_ns();
        int r = bench_ours_create(&peers[i], h, i, tpm12);

        if (r)
            return fail("creating our TPM", i, r);
        bench_add(&wait, bench_ns() - start);
    }
    usleep(1500 * 1000);
    for (unsigned i = 0; i < n; i++) {
        int64_t start = bench_ns(), r = bench_ours_connect(&peers[i]);

        if (!r)
            r = bench_command(tpm12 ? "1.2 PcrRead" : "GetRandom")->run(&peers[i], NULL, 0);
        if (r)
            return fail("connecting to our TPM", i, r);
        bench_add(&answer, bench_ns() - start);
    }
    json_object_object_add(out, to_init_wait, bench_figures(&wait, 1e6));
    json_object_object_add(out, to_answer, bench_figures(&answer, 1e6));
    bench_free(&wait);
    bench_free(&answer);
    return 0;
}

static int start_swtpms(struct bench_peer *peers, const char *directory, unsigned n, bool tpm12,
                        struct json_object *out)
{
    struct bench_samples answer = { 0 };

    for (unsigned i = 0; i < n; i++) {
        int64_t start = bench_ns();
        int r = bench_swtpm(&peers[i], directory, i, tpm12);

        if (r)
            return fail("swtpm", i, r);
        bench_add(&answer, bench_ns() - start);
    }
    json_object_object_add(out, "swtpm: to the first answer", bench_figures(&answer, 1e6));
    bench_free(&answer);
    return 0;
}

#define KILLS 20u

/* From the death of a TPM's process to the answer of a command that was sent right after it. */
static int kill_some(struct bench_peer *peers, unsigned n, const pid_t *pids, bool tpm12,
                     struct json_object *out)
{
    struct bench_samples answer = { 0 };

    /* the oldest process is the one of the first that connected */
    for (unsigned i = 0; i < n && i < KILLS; i++) {
        int64_t start = bench_ns(), r;

        if (kill(pids[i], SIGKILL))
            return fail("killing the process of", i, -errno);
        r = bench_command(tpm12 ? "1.2 PcrRead" : "PCR_Read")->run(&peers[i], NULL, 0);
        if (r)
            return fail("after its death: our TPM", i, r);
        bench_add(&answer, bench_ns() - start);
    }
    json_object_object_add(out, "killed: to the answer", bench_figures(&answer, 1e6));
    bench_free(&answer);
    return 0;
}

/* One command of each, round after round; of TPM 1.2 none is durable. */
static int load(struct bench_peer *peers, unsigned n, unsigned rounds, bool tpm12,
                struct bench_samples *durable, struct bench_samples *other)
{
    static unsigned number;

    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < n; i++) {
            unsigned kind = (i + round) % 16;
            const char *name = tpm12 && kind < 6 ? "1.2 Extend"
                               : tpm12           ? "1.2 PcrRead"
                               : kind == 0       ? "NV_Write"
                               : kind < 6        ? "PCR_Extend"
                               : kind % 2        ? "PCR_Read"
                                                 : "GetRandom";
            const struct bench_command *c = bench_command(name);
            struct bench_objects none = { 0, 0 };
            int64_t start = bench_ns(), r = c->run(&peers[i], &none, ++number);

            if (r)
                return fail(c->name, i, r);
            bench_add(kind || tpm12 ? other : durable, bench_ns() - start);
        }
    return 0;
}

static int prepare_all(struct bench_peer *peers, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        int64_t r = bench_prepare_nv(&peers[i]);

        if (r)
            return fail("preparing", i, r);
    }
    return 0;
}

static int run(const char *directory, unsigned n, unsigned rounds, bool alone, bool once,
               bool tpm12, struct json_object *out)
{
    struct bench_peer *ours = calloc(n, sizeof(*ours)), *swtpms = calloc(n, sizeof(*swtpms));
    struct bench_samples durable[2] = { 0 }, other[2] = { 0 };
    pid_t *pids = calloc(MAX_BACKENDS, sizeof(*pids));
    unsigned theirs = 0;
    struct harness h;
    char state[160];
    int rc;

    snprintf(state, sizeof(state), "%s/ours", directory);
    mkdir(state, 0700);
    rc = bench_machine_up(&h, state, tpm12 ? "default-tpm-version = 1.2\n" : NULL);
    if (rc)
        return fail("the daemon", 0, rc);
    rc = start_ours(&h, ours, n, tpm12, out, "new: to InitWait", "new: connect to first answer");
    for (unsigned i = 0; !rc && !once && i < n; i++)
        ours[i].close(&ours[i]);
    if (!rc && !once)
        rc = start_ours(&h, ours, n, tpm12, out, "to InitWait", "connect to first answer");
    if (!rc && !alone) {
        rc = start_swtpms(swtpms, directory, n, tpm12, out);
        theirs = n;
    }
    if (!rc && !tpm12)
        rc = prepare_all(ours, n);
    if (!rc && !tpm12)
        rc = prepare_all(swtpms, theirs);
    /* In turns, so that what else the machine does falls on both. */
    for (unsigned turn = 0; !rc && turn < 4; turn++) {
        rc = load(ours, n, rounds, tpm12, &durable[0], &other[0]);
        if (!rc)
            rc = load(swtpms, theirs, rounds, tpm12, &durable[1], &other[1]);
    }
    if (!rc) {
        int count = backends(&h, pids);

        usleep(3000 * 1000); /* idle, which is what most TPMs are most of the time */

        json_object_object_add(out, "instances", json_object_new_int64((int64_t)n));
        json_object_object_add(out, "memory of one of ours",
                               memory_json(pids, count < 0 ? 0 : (unsigned)count));
        json_object_object_add(out, "memory of the daemon", memory_json(&h.daemon, 1));
        if (count == (int)n)
            rc = kill_some(ours, n, pids, tpm12, out);
        if (!tpm12)
            json_object_object_add(out, "durable command", bench_figures(&durable[0], 1e3));
        json_object_object_add(out, "other command", bench_figures(&other[0], 1e3));
        if (theirs) {
            for (unsigned i = 0; i < theirs; i++)
                pids[i] = swtpms[i].pid;
            json_object_object_add(out, "memory of one swtpm", memory_json(pids, theirs));
            if (!tpm12)
                json_object_object_add(out, "swtpm: durable command (not synced)",
                                       bench_figures(&durable[1], 1e3));
            json_object_object_add(out, "swtpm: other command", bench_figures(&other[1], 1e3));
        }
        for (unsigned i = 0; i < n; i++)
            ours[i].close(&ours[i]);
    }
    for (unsigned i = 0; i < theirs; i++)
        if (swtpms[i].close)
            swtpms[i].close(&swtpms[i]);
    bench_machine_down(&h);
    for (unsigned i = 0; i < 2; i++) {
        bench_free(&durable[i]);
        bench_free(&other[i]);
    }
    free(ours);
    free(swtpms);
    free(pids);
    return rc;
}

int main(int argc, char **argv)
{
    struct json_object *out = json_object_new_object();
    struct rlimit files = { 65536, 65536 };
    unsigned n = 100, rounds = 16;
    bool alone = false, once = false, tpm12 = false;
    char directory[100];
    int opt, rc;

    while ((opt = getopt(argc, argv, "n:r:wo1")) != -1)
        switch (opt) {
        case 'n':
            n = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            rounds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'w':
            alone = true;
            break;
        case 'o':
            once = true;
            break;
        case '1':
            tpm12 = true;
            break;
        default:
            return 2;
        }
    if (optind + 1 != argc || !n || n > MAX_BACKENDS) {
        fprintf(stderr, "usage: density [-n COUNT] [-r ROUNDS] [-w] [-o] [-1] DIRECTORY\n");
        return 2;
    }
    /* each guest that is played here takes 8 */
    if (setrlimit(RLIMIT_NOFILE, &files) && !getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
        if (files.rlim_max / 8 < n)
            fprintf(stderr, "density: %ju descriptors may not do for %u guests\n",
                    (uintmax_t)files.rlim_max, n);
    }
    snprintf(directory, sizeof(directory), "%.80s/bench.XXXXXX", argv[optind]);
    if (!mkdtemp(directory)) {
        perror(directory);
        return 1;
    }
    rc = run(directory, n, rounds, alone, once, tpm12, out);
    if (!rc)
        printf("%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY));
    json_object_put(out);
    bench_remove(directory);
    return rc;
}
