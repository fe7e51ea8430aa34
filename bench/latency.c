/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * latency - how long a guest's TPM command takes: ours, swtpm, libtpms alone, for what has to be
 * durable a bare pwrite and fdatasync of the same bytes to the same disk, and the wire: two
 * processes that wake each other with the same system calls as ours, and do nothing else.
 *
 *     latency [-n ROUNDS] [-c COMMAND] DIRECTORY     (on the disk that is to be measured)
 *
 * All peers run at the same time and take turns, a few commands each, so that whatever else the
 * machine does falls on all of them. Prints one JSON object: a command's medians, p99 and number
 * of samples, in microseconds, and their ratios.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "bench/commands.h"
#include "bench/samples.h"

#define TURN 8 /* commands that a peer does before it is another's turn */
#define PEERS 3

static const char *const names[] = { "ours", "swtpm", "libtpms" };

static double us(struct bench_samples *s, double fraction)
{
    return bench_at(s, fraction) / 1000;
}

static int fail(const char *what, const char *peer, int64_t r)
{
    fprintf(stderr, "latency: %s: %s: %s (%lld)\n", peer, what,
            r < 0 ? strerror((int)-r) : "TPM error", (long long)r);
    return 1;
}

/* The wire: a byte to a process that sends it back. */
static struct {
    int to, from;
    pid_t pid;
} wire;

static void wire_open(void)
{
    int a[2], b[2], null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (null < 0 || pipe2(a, O_CLOEXEC) || pipe2(b, O_CLOEXEC) || (wire.pid = fork()) < 0) {
        perror("latency: the wire");
        exit(1);
    }
    if (!wire.pid) {
        struct pollfd in = { .fd = a[0], .events = POLLIN };
        char events[64];

        close(a[1]);
        /* an event, the notification, and the unmasking of the channel */
        while (poll(&in, 1, -1) == 1 && read(a[0], events, sizeof(events)) > 0)
            if (write(b[1], "", 1) != 1 || write(null, "\0\0\0", 4) != 4)
                break;
        _exit(0);
    }
    close(a[0]);
    close(b[1]);
    close(null);
    wire.to = a[1];
    wire.from = b[0];
}

static void wire_close(void)
{
    close(wire.to);
    waitpid(wire.pid, NULL, 0);
    close(wire.from);
}

static int wire_trip(void)
{
    char events[64];

    return write(wire.to, "", 1) == 1 && read(wire.from, events, sizeof(events)) > 0 ? 0 : -EIO;
}

static int measure(const struct bench_command *c, struct bench_peer *peers,
                   const struct bench_objects *objects, unsigned rounds, int disk,
                   size_t disk_length, struct json_object *out)
{
    struct bench_samples samples[PEERS] = { 0 }, bare = { 0 }, trips = { 0 };
    struct json_object *o = json_object_new_object();
    static unsigned number;
    int rc = 0;

    for (unsigned round = 0; !rc && round < rounds + 4; round++)
        for (unsigned turn = 0; !rc && turn < PEERS + 2; turn++) {
            unsigned who = (round + turn) % (PEERS + 2);

            for (unsigned k = 0; !rc && k < TURN; k++) {
                int64_t start = bench_ns(), r;

                number++;
                if (who < PEERS)
                    r = c->run(&peers[who], &objects[who], number);
                else if (who > PEERS)
                    r = wire_trip();
                else if (c->kind != BENCH_DURABLE)
                    continue;
                else
                    r = bench_bare_write(disk, disk_length, number);
                /* The first rounds warm up. */
                if (r)
                    rc = fail(c->name, who < PEERS ? names[who] : who > PEERS ? "wire" : "disk", r);
                else if (round >= 4)
                    bench_add(who < PEERS ? &samples[who] : who > PEERS ? &trips : &bare,
                              bench_ns() - start);
            }
        }
    if (rc)
        return rc;
    json_object_object_add(o, "command", json_object_new_string(c->name));
    for (unsigned i = 0; i < PEERS; i++)
        json_object_object_add(o, names[i], bench_figures(&samples[i], 1e3));
    json_object_object_add(o, "ours/swtpm",
                           json_object_new_double(us(&samples[0], 0.5) / us(&samples[1], 0.5)));
    json_object_object_add(o, "ours/libtpms",
                           json_object_new_double(us(&samples[0], 0.5) / us(&samples[2], 0.5)));
    json_object_object_add(o, "wire", bench_figures(&trips, 1e3));
    if (bare.n) {
        json_object_object_add(o, "disk", bench_figures(&bare, 1e3));
        json_object_object_add(o, "disk bytes", json_object_new_int64((int64_t)disk_length));
        json_object_object_add(o, "ours/disk",
                               json_object_new_double(us(&samples[0], 0.5) / us(&bare, 0.5)));
    }
    fprintf(stderr, "%-26s ours %8.1f  swtpm %8.1f  libtpms %8.1f  disk %8.1f  "
            "wire %5.1f us   "
            "ours/swtpm %.2f  p99 %.1f %.1f\n", c->name, us(&samples[0], 0.5),
            us(&samples[1], 0.5), us(&samples[2], 0.5), us(&bare, 0.5),
            us(&trips, 0.5), us(&samples[0], 0.5) / us(&samples[1], 0.5), us(&samples[0], 0.99),
            us(&samples[1], 0.99));
    json_object_array_add(out, o);
    for (unsigned i = 0; i < PEERS; i++)
        bench_free(&samples[i]);
    bench_free(&bare);
    bench_free(&trips);
    return 0;
}

static int all_of(bool tpm12, const char *directory, const char *only, unsigned rounds,
                  struct json_object *out)
{
    struct bench_objects objects[PEERS] = { 0 };
    struct bench_peer peers[PEERS];
    struct harness h;
    char state[160], path[200];
    size_t length;
    unsigned opened = 0;
    int rc = 1, disk;
    int64_t r;

    snprintf(state, sizeof(state), "%s/ours-%s", directory, tpm12 ? "1.2" : "2.0");
    snprintf(path, sizeof(path), "%s/bare", directory);
    disk = bench_bare_file(path);
    if (disk < 0 || mkdir(state, 0700)) {
        perror(path);
        return 1;
    }
    r = bench_machine_up(&h, state, tpm12 ? "default-tpm-version = 1.2\n" : NULL);
    if (r) {
        fail("cannot start the daemon", "ours", r);
        goto out;
    }
    r = bench_ours_create(&peers[opened++], &h, 0, tpm12);
    if (!r)
        r = bench_ours_connect(&peers[0]);
    if (!r)
        r = bench_swtpm(&peers[opened++], directory, 0, tpm12);
    if (!r)
        r = bench_libtpms(&peers[opened++], tpm12);
    for (unsigned i = 0; !r && i < PEERS; i++)
        r = bench_prepare(&peers[i], &objects[i]);
    if (r) {
        fail("cannot be made ready", names[opened - 1], r);
        goto out;
    }
    length = bench_commit_bytes(state);
    rc = 0;
    for (size_t i = 0; !rc && i < bench_command_count; i++) {
        const struct bench_command *c = &bench_commands[i];

        if (c->tpm12 != tpm12 || (only && strcmp(only, c->name)))
            continue;
        rc = measure(c, peers, objects,
                     c->kind == BENCH_COMPUTES || c->kind == BENCH_DURABLE ? rounds / 8 + 1
                                                                           : rounds,
                     disk, length, out);
    }
out:
    for (; opened; opened--)
        peers[opened - 1].close(&peers[opened - 1]);
    bench_machine_down(&h);
    close(disk);
    unlink(path);
    return rc;
}

int main(int argc, char **argv)
{
    struct json_object *out = json_object_new_array();
    char directory[100];
    const char *only = NULL;
    unsigned rounds = 400;
    int rc;

    if (!bench_arguments(argc, argv, &rounds, &only))
        return 2;
    snprintf(directory, sizeof(directory), "%.80s/bench.XXXXXX", argv[optind]);
    if (!mkdtemp(directory)) {
        perror(directory);
        return 1;
    }
    wire_open();
    rc = all_of(false, directory, only, rounds, out);
    if (!rc)
        rc = all_of(true, directory, only, rounds, out);
    if (!rc)
        printf("%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY));
    wire_close();
    json_object_put(out);
    bench_remove(directory);
    return rc;
}
