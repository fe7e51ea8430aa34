/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fair - what a guest that keeps its TPM busy costs its neighbours: one guest extends a PCR now and
 * then, and 0, 1, 2 or 8 others make RSA keys without a pause, on the same processors.
 *
 *     fair [-s SECONDS] [-b BUSY] DIRECTORY
 *
 * Ours and swtpm take turns, each with neighbours of its own kind; a turn is SECONDS long; -b: that
 * many busy neighbours alone. Prints a
 * JSON array: for each number of busy neighbours, for each of the two, p50, p99 and the longest of
 * the PCR_Extend in microseconds, and how many keys the neighbours made in a second.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "bench/commands.h"
#include "bench/samples.h"

#define BUSY 8u
#define TURNS 3u
#define PAUSE_US 2000 /* between two commands of the one that is measured */
enum { OURS, SWTPM, COMPETITORS };

static const char *const names[] = { "ours", "swtpm" };
static const unsigned crowds[] = { 0, 1, 2, BUSY };

struct neighbour {
    struct bench_peer *peer;
    atomic_bool *over;
    int64_t failed;
    unsigned keys;
    pthread_t thread;
};

static void *keep_busy(void *opaque)
{
    struct neighbour *n = opaque;

    while (!n->failed && !atomic_load(n->over)) {
        n->failed = bench_make_rsa_key(n->peer);
        n->keys++;
    }
    return NULL;
}

/* peers: the one that is measured, then its neighbours. */
static int turn(struct bench_peer *peers, unsigned busy, int64_t duration,
                struct bench_samples *samples, unsigned *keys)
{
    const struct bench_command *extend = bench_command("PCR_Extend");
    struct neighbour neighbours[BUSY];
    atomic_bool over = false;
    int64_t start, before, failed = 0;
    unsigned number = 0;

    for (unsigned i = 0; i < busy; i++) {
        neighbours[i] = (struct neighbour){ .peer = &peers[1 + i], .over = &over };
        if (pthread_create(&neighbours[i].thread, NULL, keep_busy, &neighbours[i]))
            exit(1);
    }
    start = bench_ns();
    while (!failed && (before = bench_ns()) < start + duration) {
        failed = extend->run(&peers[0], NULL, ++number);
        bench_add(samples, bench_ns() - before);
        usleep(PAUSE_US);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < busy; i++) {
        pthread_join(neighbours[i].thread, NULL);
        *keys += neighbours[i].keys;
        if (!failed)
            failed = neighbours[i].failed;
    }
    if (failed)
        fprintf(stderr, "fair: %s: error 0x%llx\n", peers[0].name, (long long)failed);
    return failed ? -EIO : 0;
}

static int measure(struct bench_peer peers[COMPETITORS][BUSY + 1], unsigned busy, int64_t duration,
                   struct json_object *out)
{
    struct json_object *o = json_object_new_object();
    struct bench_samples samples[COMPETITORS] = { 0 };
    unsigned keys[COMPETITORS] = { 0 };
    int rc = 0;

    json_object_object_add(o, "busy", json_object_new_int((int)busy));
    for (unsigned t = 0; !rc && t < TURNS * COMPETITORS; t++)
        rc = turn(peers[t % COMPETITORS], busy, duration, &samples[t % COMPETITORS],
                  &keys[t % COMPETITORS]);
    for (int who = 0; !rc && who < COMPETITORS; who++) {
        struct json_object *figures = bench_figures(&samples[who], 1e3);
        double longest = bench_at(&samples[who], 1) / 1000;
        double rate = (double)keys[who] * 1e9 / (double)(TURNS * duration);

        json_object_object_add(figures, "longest", json_object_new_double(longest));
        json_object_object_add(figures, "keys a second", json_object_new_double(rate));
        json_object_object_add(o, names[who], figures);
        fprintf(stderr, "%u busy, %-6s PCR_Extend p50 %8.1f  p99 %8.1f  longest %8.1f us; "
                "%.1f keys/s\n",
                busy, names[who], bench_at(&samples[who], 0.5) / 1000,
                bench_at(&samples[who], 0.99) / 1000, longest, rate);
    }
    for (int who = 0; who < COMPETITORS; who++)
        bench_free(&samples[who]);
    json_object_array_add(out, o);
    return rc;
}

static int prepare(struct bench_peer peers[COMPETITORS][BUSY + 1], struct harness *h,
                   const char *directory)
{
    int r = 0;

    for (unsigned i = 0; !r && i <= BUSY; i++)
        r = bench_ours_create(&peers[OURS][i], h, i, false);
    for (unsigned i = 0; !r && i <= BUSY; i++) {
        r = bench_ours_connect(&peers[OURS][i]);
        if (!r)
            r = bench_swtpm(&peers[SWTPM][i], directory, i, false);
    }
    if (r)
        fprintf(stderr, "fair: the TPMs cannot be made ready: %s\n", strerror(-r));
    return r;
}

static int run(const char *directory, int64_t duration, int only, struct json_object *out)
{
    static struct bench_peer peers[COMPETITORS][BUSY + 1];
    struct harness h;
    char state[160];
    int rc;

    snprintf(state, sizeof(state), "%s/ours", directory);
    if (mkdir(state, 0700)) {
        perror(state);
        return 1;
    }
    rc = bench_machine_up(&h, state, NULL);
    if (!rc)
        rc = prepare(peers, &h, directory);
    for (size_t i = 0; !rc && i < sizeof(crowds) / sizeof(crowds[0]); i++)
        if (only < 0 || crowds[i] == (unsigned)only)
            rc = measure(peers, crowds[i], duration, out);
    for (unsigned i = 0; i < COMPETITORS * (BUSY + 1); i++) {
        struct bench_peer *p = &peers[i / (BUSY + 1)][i % (BUSY + 1)];

        if (p->close)
            p->close(p);
    }
    bench_machine_down(&h);
    return rc ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct json_object *out = json_object_new_array();
    double seconds = 4;
    char directory[100];
    int opt, rc, only = -1;

    while ((opt = getopt(argc, argv, "s:b:")) != -1) {
        if (opt == 's')
            seconds = strtod(optarg, NULL);
        else if (opt == 'b')
            only = atoi(optarg);
        else
            return 2;
    }
    if (optind + 1 != argc || !(seconds > 0 && seconds < 60)) {
        fprintf(stderr, "usage: fair [-s SECONDS] [-b BUSY] DIRECTORY\n");
        return 2;
    }
    snprintf(directory, sizeof(directory), "%.80s/bench.XXXXXX", argv[optind]);
    if (!mkdtemp(directory)) {
        perror(directory);
        return 1;
    }
    rc = run(directory, (int64_t)(seconds * 1e9), only, out);
    if (!rc)
        printf("%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY));
    json_object_put(out);
    bench_remove(directory);
    return rc;
}
