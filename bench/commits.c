/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * commits - many guests that change their TPM's permanent state at once, on one disk: ours, swtpm,
 * and as many writers of as many bytes with pwrite and fdatasync, each to a file of its own.
 *
 *     commits [-s SECONDS] [-n MOST] DIRECTORY     (on the disk that is to be measured)
 *
 * Each guest sends one NV_Write after another. At 1, 2, 8, 32, ... guests up to MOST the three
 * take turns; a turn is SECONDS long. Prints a JSON array: at each number, for each of the three,
 * commands a second of all guests together and the p50 and p99 of one, in microseconds.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "bench/commands.h"
#include "bench/samples.h"

#define MOST 512u
#define TURNS 3u
enum { OURS, SWTPM, DISK, COMPETITORS };

static const char *const names[] = { "ours", "swtpm (not synced)", "disk" };

struct crowd {
    struct bench_peer *ours, *swtpms;
    int *files;
    size_t bytes;
};

/* A guest in one turn: a thread, as the page of a ring does not outlive a fork. */
struct guest {
    struct crowd *crowd;
    int who;
    unsigned i;
    int64_t start, end, failed;
    struct bench_samples samples;
    pthread_t thread;
};

static int64_t once(struct crowd *c, int who, unsigned i, unsigned number)
{
    struct bench_objects none = { 0, 0 };

    if (who == DISK)
        return bench_bare_write(c->files[i], c->bytes, number);
    return bench_command("NV_Write")->run(who == OURS ? &c->ours[i] : &c->swtpms[i], &none,
                                          number);
}

static void *guest(void *opaque)
{
    struct guest *g = opaque;
    unsigned number = (unsigned)g->start;
    int64_t before;

    while (bench_ns() < g->start)
        usleep(200);
    while (!g->failed && (before = bench_ns()) < g->end) {
        g->failed = once(g->crowd, g->who, g->i, ++number);
        bench_add(&g->samples, bench_ns() - before);
    }
    return NULL;
}

/* One turn of n guests; adds to what was measured in others. */
static int turn(struct crowd *c, int who, unsigned n, int64_t duration,
                struct bench_samples *samples)
{
    struct guest *guests = calloc(n, sizeof(*guests));
    int64_t start = bench_ns() + 20 * 1000000;
    int rc = 0;

    for (unsigned i = 0; guests && i < n; i++) {
        guests[i] = (struct guest){ .crowd = c, .who = who, .i = i, .start = start,
                                    .end = start + duration };
        if (pthread_create(&guests[i].thread, NULL, guest, &guests[i]))
            exit(1);
    }
    for (unsigned i = 0; guests && i < n; i++) {
        pthread_join(guests[i].thread, NULL);
        if (guests[i].failed) {
            fprintf(stderr, "commits: guest %u, %s: error 0x%llx\n", i, names[who],
                    (long long)guests[i].failed);
            rc = -EIO;
        }
        for (size_t k = 0; k < guests[i].samples.n; k++)
            bench_add(samples, guests[i].samples.ns[k]);
        bench_free(&guests[i].samples);
    }
    free(guests);
    return guests ? rc : -ENOMEM;
}

static int measure(struct crowd *c, unsigned n, int64_t duration, struct json_object *out)
{
    struct json_object *o = json_object_new_object();
    struct bench_samples samples[COMPETITORS] = { 0 };
    int rc = 0;

    json_object_object_add(o, "guests", json_object_new_int((int)n));
    for (unsigned t = 0; !rc && t < TURNS * COMPETITORS; t++)
        rc = turn(c, (int)(t % COMPETITORS), n, duration, &samples[t % COMPETITORS]);
    for (int who = 0; !rc && who < COMPETITORS; who++) {
        struct json_object *figures = bench_figures(&samples[who], 1e3);
        double rate = (double)samples[who].n * 1e9 / (double)(TURNS * duration);

        json_object_object_add(figures, "each second", json_object_new_double(rate));
        json_object_object_add(o, names[who], figures);
        fprintf(stderr, "%4u guests, %-18s %8.0f/s  p50 %8.1f  p99 %8.1f us\n", n, names[who],
                rate, bench_at(&samples[who], 0.5) / 1000, bench_at(&samples[who], 0.99) / 1000);
    }
    for (int who = 0; who < COMPETITORS; who++)
        bench_free(&samples[who]);
    json_object_array_add(out, o);
    return rc;
}

static int prepare(struct crowd *c, struct harness *h, unsigned most, const char *directory)
{
    char path[200];
    int64_t r = 0;

    for (unsigned i = 0; !r && i < most; i++)
        r = bench_ours_create(&c->ours[i], h, i, false);
    for (unsigned i = 0; !r && i < most; i++) {
        r = bench_ours_connect(&c->ours[i]);
        if (!r)
            r = bench_swtpm(&c->swtpms[i], directory, i, false);
        if (!r)
            r = bench_prepare_nv(&c->ours[i]);
        if (!r)
            r = bench_prepare_nv(&c->swtpms[i]);
        snprintf(path, sizeof(path), "%s/bare.%u", directory, i);
        c->files[i] = r ? -1 : bench_bare_file(path);
        if (!r && c->files[i] < 0)
            r = c->files[i];
        if (r)
            fprintf(stderr, "commits: guest %u cannot be made ready (%lld)\n", i, (long long)r);
    }
    return r ? 1 : 0;
}

static int run(const char *directory, unsigned most, int64_t duration, struct json_object *out)
{
    struct crowd c = {
        .ours = calloc(most, sizeof(*c.ours)),
        .swtpms = calloc(most, sizeof(*c.swtpms)),
        .files = calloc(most, sizeof(*c.files)),
    };
    struct harness h;
    char state[160];
    int rc;

    snprintf(state, sizeof(state), "%s/ours", directory);
    if (!c.ours || !c.swtpms || !c.files || mkdir(state, 0700)) {
        perror(state);
        return 1;
    }
    rc = bench_machine_up(&h, state, NULL);
    if (!rc)
        rc = prepare(&c, &h, most, directory);
    c.bytes = bench_commit_bytes(state);
    for (unsigned n = 1; !rc && n <= most; n *= n == 1 ? 2 : 4)
        rc = measure(&c, n, duration, out);
    for (unsigned i = 0; i < most; i++) {
        if (c.ours[i].close)
            c.ours[i].close(&c.ours[i]);
        if (c.swtpms[i].close)
            c.swtpms[i].close(&c.swtpms[i]);
    }
    bench_machine_down(&h);
    return rc;
}

int main(int argc, char **argv)
{
    struct json_object *out = json_object_new_array();
    struct rlimit files = { 65536, 65536 };
    unsigned most = 128;
    double seconds = 2;
    char directory[100];
    int opt, rc;

    while ((opt = getopt(argc, argv, "s:n:")) != -1)
        switch (opt) {
        case 's':
            seconds = strtod(optarg, NULL);
            break;
        case 'n':
            most = (unsigned)strtoul(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    if (optind + 1 != argc || !most || most > MOST || !(seconds > 0 && seconds < 60)) {
        fprintf(stderr, "usage: commits [-s SECONDS] [-n MOST] DIRECTORY\n");
        return 2;
    }
    (void)setrlimit(RLIMIT_NOFILE, &files);
    snprintf(directory, sizeof(directory), "%.80s/bench.XXXXXX", argv[optind]);
    if (!mkdtemp(directory)) {
        perror(directory);
        return 1;
    }
    rc = run(directory, most, (int64_t)(seconds * 1e9), out);
    if (!rc)
        printf("%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY));
    json_object_put(out);
    bench_remove(directory);
    return rc;
}
