/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * profile - where the time of a guest's TPM command goes, stage by stage.
 *
 *     profile [-n ROUNDS] [-c COMMAND] DIRECTORY     (on the disk that is to be measured)
 *
 * Two processes, a guest and a backend, wake each other as over the ring (latency.c, "the wire").
 * The backend is its own session, engine, journal, store and seal, on a journal in memory and slots
 * on the disk, without daemon and jail. All is measured, in place: the linker puts the functions
 * below (-Wl,--wrap) in front of those that begin a stage, which read the clock, and nothing else
 * of the backend is another. Time of a stage is without that of the stages within it, so that
 * those of one command add up to what the guest waited.
 *
 * Beside that, in turns: the same two processes, which do nothing ("wire"), or only write as many
 * bytes as a commit and sync them ("wire and disk"): what nothing of this kind can be below.
 *
 * Prints a JSON array: for each command the p50 of each stage, in microseconds. (Those of the
 * stages do not quite add up to that of the whole, as medians do not.)
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>
#include <libtpms/tpm_library.h>

#include "backend/engine.h"
#include "backend/ring.h"
#include "backend/seal.h"
#include "bench/commands.h"
#include "bench/inside.h"
#include "bench/samples.h"
#include "common/fd.h"

#define TURN 8 /* commands before it is another's turn */

enum stage {
    WAKE,     /* from the guest's notification until the backend looks at the page */
    SESSION,  /* the request out of the page, the response into it, counting */
    EXECUTE,  /* libtpms, with its serialising of a permanent state that changed */
    VOLATILE, /* libtpms serialises the volatile state */
    COPIES,   /* both states taken, compared, wiped */
    JOURNAL, JOURNAL_SEAL,
    STORE, STORE_SEAL, WRITE, SYNC,
    NOTIFY, /* from before the notification until the guest has the response */
    STAGES
};
static const char *const stage_names[STAGES] = {
    [WAKE] = "wake", [SESSION] = "session", [EXECUTE] = "libtpms", [VOLATILE] = "state",
    [COPIES] = "copies", [JOURNAL] = "journal", [JOURNAL_SEAL] = "seal-j", [STORE] = "store",
    [STORE_SEAL] = "seal-s", [WRITE] = "pwrite", [SYNC] = "sync", [NOTIFY] = "notify",
};

/* What the guest may ask of the backend. */
enum errand { COMMAND = 'c', WIRE = 'w', DISK = 'd' };

static struct shared {
    uint8_t page[XLV_PAGE_SIZE];
    int64_t spent[STAGES]; /* of the command at hand */
    int64_t woken, notified;
    size_t bytes; /* of a commit; 0: not known yet */
} *shared;
static int to_backend[2], to_guest[2];

/* --- the backend's process ------------------------------------------------ */

static enum stage at;
static int64_t since;

static enum stage enter(enum stage stage)
{
    enum stage before = at;
    int64_t now = bench_ns();

    shared->spent[before] += now - since;
    since = now;
    at = stage;
    return before;
}

#define WRAP(into, type, function, parameters, arguments) \
    type __real_##function parameters;                     \
    type __wrap_##function parameters;                     \
    type __wrap_##function parameters                      \
    {                                                      \
        enum stage before = enter(into);                   \
        type r = __real_##function arguments;              \
                                                           \
        enter(before);                                     \
        return r;                                          \
    }

WRAP(EXECUTE, TPM_RESULT, TPMLIB_Process,
     (unsigned char **response, uint32_t *length, uint32_t *size, unsigned char *request,
      uint32_t request_length), (response, length, size, request, request_length))
WRAP(VOLATILE, TPM_RESULT, TPMLIB_GetState,
     (enum TPMLIB_StateType type, unsigned char **data, uint32_t *length), (type, data, length))
WRAP(COPIES, int, xlv_engine_volatile, (uint8_t **data, size_t *length, struct xlv_error *e),
     (data, length, e))
WRAP(COPIES, int, xlv_engine_permanent, (uint8_t **data, size_t *length, struct xlv_error *e),
     (data, length, e))
WRAP(JOURNAL, int, xlv_journal_append,
     (struct xlv_journal *journal, const struct xlv_journal_record *record, struct xlv_error *e),
     (journal, record, e))
WRAP(JOURNAL, int, xlv_journal_append_exchange,
     (struct xlv_journal *journal, const struct xlv_journal_record *record, struct xlv_error *e),
     (journal, record, e))
WRAP(STORE, int, xlv_store_commit,
     (struct xlv_store *store, const uint8_t *data, size_t length, uint64_t *generation,
      struct xlv_error *e), (store, data, length, generation, e))
WRAP(WRITE, int, xlv_pwrite_all, (int fd, const void *data, size_t length, off_t offset),
     (fd, data, length, offset))
WRAP(SYNC, int, fdatasync, (int fd), (fd))

#define SEALING (at == STORE ? STORE_SEAL : JOURNAL_SEAL)
WRAP(SEALING, int, xlv_seal_begin,
     (struct xlv_seal *seal, uint8_t head[XLV_SEAL_HEAD], uint32_t slot, uint64_t number,
      uint32_t attempt, uint32_t length), (seal, head, slot, number, attempt, length))
WRAP(SEALING, int, xlv_seal_update,
     (struct xlv_seal *seal, uint8_t *out, const uint8_t *in, size_t length),
     (seal, out, in, length))
WRAP(SEALING, int, xlv_seal_finish, (struct xlv_seal *seal, uint8_t head[XLV_SEAL_HEAD]),
     (seal, head))

void __real_xlv_engine_wipe(uint8_t *data, size_t length);
void __wrap_xlv_engine_wipe(uint8_t *data, size_t length);
void __wrap_xlv_engine_wipe(uint8_t *data, size_t length)
{
    enum stage before = enter(COPIES);

    __real_xlv_engine_wipe(data, length);
    enter(before);
}

static void notify(void)
{
    enter(NOTIFY);
    shared->notified = since;
    if (write(to_guest[1], "", 1) != 1)
        _exit(1);
}

static size_t longer(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* As backend/main.c: a poll and a read for an event, a write to unmask. */
static int serve(enum xlv_tpm_version version, const char *directory, const char *journal)
{
    struct pollfd in = { .fd = to_backend[0], .events = POLLIN };
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC), bare;
    struct bench_inside inside;
    unsigned number = 0;
    char path[200], errand;

    (void)mallopt(M_TRIM_THRESHOLD, 1 << 20);
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
    snprintf(path, sizeof(path), "%.180s/bare-%d", directory, (int)version);
    bare = bench_bare_file(path);
    if (null < 0 || bare < 0 ||
        bench_inside_open(&inside, version, directory, journal, shared->page, notify))
        return 1;
    notify();
    while (poll(&in, 1, -1) == 1 && read(to_backend[0], &errand, 1) == 1) {
        memset(shared->spent, 0, sizeof(shared->spent));
        shared->woken = since = bench_ns();
        at = SESSION;
        if (errand == COMMAND) {
            if (xlv_session_work(inside.session, NULL))
                return 1;
        } else {
            if (errand == DISK && !shared->bytes)
                shared->bytes = longer(bench_slot_bytes(inside.slots[0]),
                                       bench_slot_bytes(inside.slots[1]));
            if (errand == DISK && bench_bare_write(bare, shared->bytes, ++number))
                return 1;
            notify();
        }
        if (write(null, "\0\0\0", 4) != 4)
            return 1;
    }
    bench_inside_close(&inside);
    close(bare);
    close(null);
    unlink(path);
    return 0;
}

/* --- the guest's process -------------------------------------------------- */

static int64_t spent[STAGES], waited; /* of all exchanges of the command at hand */

static int ask(enum errand errand)
{
    char what = (char)errand;
    int64_t start = bench_ns(), end;

    if (write(to_backend[1], &what, 1) != 1 || read(to_guest[0], &what, 1) != 1)
        return errno ? -errno : -EPIPE;
    end = bench_ns();
    for (unsigned i = 0; i < STAGES; i++)
        spent[i] += shared->spent[i];
    spent[WAKE] += shared->woken - start;
    spent[NOTIFY] += end - shared->notified;
    waited += end - start;
    return 0;
}

static int transact(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                    size_t *rsp_length)
{
    int r;

    (void)p;
    bench_inside_submit(shared->page, cmd, length);
    r = ask(COMMAND);
    return r ? r : bench_inside_response(shared->page, rsp, BENCH_BUFFER, rsp_length);
}

static int measure(const struct bench_command *c, struct bench_peer *p,
                   const struct bench_objects *objects, unsigned rounds, struct json_object *out)
{
    struct bench_samples stages[STAGES] = { 0 }, all = { 0 }, wire = { 0 }, disk = { 0 };
    struct json_object *o = json_object_new_object(), *parts = json_object_new_object();
    static unsigned number;
    double sum = 0;

    for (unsigned i = 0; i < (rounds + 4) * TURN * 3; i++) {
        unsigned who = i / TURN % 3;
        int64_t r;

        memset(spent, 0, sizeof(spent));
        waited = 0;
        if (who == 2 && c->kind != BENCH_DURABLE)
            continue;
        r = who == 0 ? c->run(p, objects, ++number) : ask(who == 1 ? WIRE : DISK);
        if (r) {
            fprintf(stderr, "profile: %s: %s (%lld)\n", c->name,
                    r < 0 ? strerror((int)-r) : "TPM error", (long long)r);
            return 1;
        }
        if (i < 4 * TURN * 3) /* the first rounds warm up */
            continue;
        bench_add(who == 0 ? &all : who == 1 ? &wire : &disk, waited);
        for (unsigned s = 0; who == 0 && s < STAGES; s++)
            bench_add(&stages[s], spent[s]);
    }
    json_object_object_add(o, "command", json_object_new_string(c->name));
    json_object_object_add(o, "all", bench_figures(&all, 1e3));
    json_object_object_add(o, "wire", bench_figures(&wire, 1e3));
    if (disk.n) {
        json_object_object_add(o, "wire and disk", bench_figures(&disk, 1e3));
        json_object_object_add(o, "disk bytes", json_object_new_int64((int64_t)shared->bytes));
    }
    fprintf(stderr, "%-24s %7.1f wire %5.1f disk %6.1f:", c->name, bench_at(&all, 0.5) / 1e3,
            bench_at(&wire, 0.5) / 1e3, bench_at(&disk, 0.5) / 1e3);
    for (unsigned s = 0; s < STAGES; s++) {
        double us = bench_at(&stages[s], 0.5) / 1e3;

        json_object_object_add(parts, stage_names[s], json_object_new_double(us));
        fprintf(stderr, " %s %.1f", stage_names[s], us);
        sum += us;
        bench_free(&stages[s]);
    }
    fprintf(stderr, "; sum %.1f\n", sum);
    json_object_object_add(o, "stages", parts);
    json_object_array_add(out, o);
    bench_free(&all);
    bench_free(&wire);
    bench_free(&disk);
    return 0;
}

static int all_of(bool tpm12, const char *directory, const char *only, unsigned rounds,
                  struct json_object *out)
{
    struct bench_peer p = { .name = "profile", .tpm12 = tpm12, .transact = transact };
    struct bench_objects objects = { 0, 0 };
    char ready;
    int rc = 1, status;
    pid_t pid;

    if (pipe2(to_backend, O_CLOEXEC) || pipe2(to_guest, O_CLOEXEC) || (pid = fork()) < 0) {
        perror("profile: a process for the backend");
        return 1;
    }
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(to_backend[1]);
        close(to_guest[0]);
        _exit(serve(tpm12 ? XLV_TPM_1_2 : XLV_TPM_2_0, directory, "/dev/shm"));
    }
    close(to_backend[0]);
    close(to_guest[1]);
    if (read(to_guest[0], &ready, 1) == 1 && !bench_prepare(&p, &objects))
        rc = 0;
    else
        fprintf(stderr, "profile: the TPM cannot be made ready\n");
    for (size_t i = 0; !rc && i < bench_command_count; i++) {
        const struct bench_command *c = &bench_commands[i];

        if (c->tpm12 != tpm12 || (only && strcmp(only, c->name)))
            continue;
        rc = measure(c, &p, &objects,
                     c->kind == BENCH_COMPUTES || c->kind == BENCH_DURABLE ? rounds / 8 + 1
                                                                           : rounds, out);
    }
    close(to_backend[1]);
    if (waitpid(pid, &status, 0) == pid && status)
        rc = 1;
    close(to_guest[0]);
    return rc;
}

int main(int argc, char **argv)
{
    struct json_object *out = json_object_new_array();
    const char *only = NULL;
    unsigned rounds = 400;
    int rc;

    if (!bench_arguments(argc, argv, &rounds, &only))
        return 2;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("profile: memory");
        return 1;
    }
    rc = all_of(false, argv[optind], only, rounds, out);
    if (!rc)
        rc = all_of(true, argv[optind], only, rounds, out);
    if (!rc)
        printf("%s\n", json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY));
    json_object_put(out);
    return rc;
}
