/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The peers: see peer.h. */
#include "config.h"

#include "bench/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <libtpms/tpm_nvfilename.h>

#include "backend/seal.h"
#include "backend/store-sector.h"

int64_t bench_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* TPM2_Startup(CLEAR), TPM_Startup(ST_CLEAR) */
static int startup(struct bench_peer *p)
{
    static const uint8_t start2[] = { 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0 };
    static const uint8_t start1[] = { 0, 0xc1, 0, 0, 0, 12, 0, 0, 0, 0x99, 0, 1 };
    uint8_t rsp[BENCH_BUFFER];

    return bench_send(p, p->tpm12 ? start1 : start2, 12, rsp, NULL) ? -EPROTO : 0;
}

/* ------------------------------------------------------------------ ours */

int bench_machine_up(struct harness *h, const char *directory, const char *config)
{
    const char *top = getenv("top_builddir");
    char fakes[sizeof(h->fakes)], lines[256];
    int r;

    setenv("XL_VTPM_TEST_STATE", directory, 1);
    snprintf(lines, sizeof(lines), "log-level = info\n%s", config ? config : "");
    r = harness_up(h, false, lines);
    if (r)
        return r;
    snprintf(fakes, sizeof(fakes), "%.200s/bench/.libs:%.250s", top ? top : ".", h->fakes);
    memcpy(h->fakes, fakes, sizeof(fakes));
    return daemon_start(h);
}

void bench_machine_down(struct harness *h)
{
    if (h->daemon)
        daemon_stop(h);
    harness_down(h);
}

/* As few system calls as swtpm's client needs: a notification, and a read that waits. */
static int ours_transact(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                         size_t *rsp_length)
{
    volatile struct tpmif_shared_page *page = fx_frontend_page(p->frontend);
    const uint8_t *data = (const uint8_t *)(uintptr_t)page + sizeof(*page);
    int r = fx_frontend_submit(p->frontend, 0, cmd, length);

    while (!r && __atomic_load_n(&page->state, __ATOMIC_ACQUIRE) != TPMIF_STATE_FINISH)
        r = bench_wait_event(p->events);
    if (r)
        return r;
    *rsp_length = page->length;
    if (*rsp_length > BENCH_BUFFER - sizeof(*page))
        return -EPROTO;
    memcpy(rsp, data, *rsp_length);
    return 0;
}

static void ours_close(struct bench_peer *p)
{
    fx_vtpm_remove(p->h->m, &p->device, FX_DESTROY);
    fx_frontend_free(p->frontend);
    fx_guest_close(p->guest);
    fx_domain_destroy(p->h->m, p->domid);
    fx_domain_erase(p->h->m, p->domid);
}

int bench_ours_create(struct bench_peer *p, struct harness *h, unsigned number, bool tpm12)
{
    char name[32], uuid[40];
    int r;

    *p = (struct bench_peer){ .name = "ours", .tpm12 = tpm12, .transact = ours_transact,
                              .close = ours_close, .h = h, .domid = number + 1, .socket = -1 };
    snprintf(name, sizeof(name), "guest%u", p->domid);
    snprintf(uuid, sizeof(uuid), "be9c4000-0000-4000-8000-%012x", number);
    r = fx_domain_create(h->m, p->domid, name);
    fx_vtpm_init(&p->device, 0, p->domid, 0, uuid);
    return r ? r : fx_vtpm_create(h->m, &p->device);
}

int bench_ours_connect(struct bench_peer *p)
{
    int r = fx_domain_ran(p->h->m, p->domid); /* xl unpauses it */

    if (!r)
        r = fx_guest_open(&p->guest, p->h->m, p->domid);
    if (!r)
        r = fx_frontend_open(&p->frontend, p->guest, &p->device, 0);
    if (!r)
        r = fx_frontend_connect(p->frontend, BENCH_PATIENCE);
    if (!r)
        p->events = bench_port_fd(fx_frontend_port(p->frontend));
    return r;
}

/* ------------------------------------------------------------------ swtpm */

static int exactly(int fd, uint8_t *data, size_t length)
{
    while (length) {
        ssize_t n = read(fd, data, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EPIPE;
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

static int swtpm_transact(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                          size_t *rsp_length)
{
    size_t total;
    ssize_t n = write(p->socket, cmd, length);
    int r;

    if (n != (ssize_t)length)
        return n < 0 ? -errno : -EIO;
    /* It answers with one write. */
    n = read(p->socket, rsp, BENCH_BUFFER);
    if (n < 6)
        return n < 0 ? -errno : -EPIPE;
    total = (size_t)rsp[4] << 8 | rsp[5];
    if (total > BENCH_BUFFER || total < (size_t)n)
        return -EPROTO;
    r = exactly(p->socket, rsp + n, total - (size_t)n);
    *rsp_length = total;
    return r;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    remove(path);
    return 0;
}

static void swtpm_close(struct bench_peer *p)
{
    if (p->socket >= 0)
        close(p->socket);
    if (p->pid > 0) {
        kill(p->pid, SIGTERM);
        waitpid(p->pid, NULL, 0);
    }
    bench_remove(p->directory);
}

void bench_remove(const char *directory)
{
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int bench_swtpm(struct bench_peer *p, const char *directory, unsigned number, bool tpm12)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char state[192], server[200], log[200];
    int64_t end = bench_ns() + INT64_C(1000000) * BENCH_PATIENCE;
    int r;

    *p = (struct bench_peer){ .name = "swtpm", .tpm12 = tpm12, .transact = swtpm_transact,
                              .close = swtpm_close, .socket = -1 };
    snprintf(p->directory, sizeof(p->directory), "%s/swtpm.%u", directory, number);
    if (mkdir(p->directory, 0700))
        return -errno;
    snprintf(state, sizeof(state), "dir=%s", p->directory);
    snprintf(a.sun_path, sizeof(a.sun_path), "%.90s/socket", p->directory);
    snprintf(server, sizeof(server), "type=unixio,path=%s", a.sun_path);
    snprintf(log, sizeof(log), "file=%s/log", p->directory);
    p->pid = fork();
    if (p->pid < 0)
        return -errno;
    if (!p->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* The last argument is dropped for TPM 1.2. */
        execlp("swtpm", "swtpm", "socket", "--tpmstate", state, "--server", server, "--log", log,
               "--flags", "not-need-init", tpm12 ? NULL : "--tpm2", (char *)NULL);
        _exit(127);
    }
    p->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(p->socket, (struct sockaddr *)&a, sizeof(a))) {
        struct timespec step = { 0, 500000 };

        if (bench_ns() > end || waitpid(p->pid, NULL, WNOHANG) == p->pid) {
            fprintf(stderr, "swtpm does not start: is it installed?\n");
            return -ETIMEDOUT;
        }
        nanosleep(&step, NULL);
    }
    r = startup(p);
    return r;
}

/* ------------------------------------------------------------------ libtpms */

static TPM_RESULT init_nothing(void)
{
    return TPM_SUCCESS;
}

static TPM_RESULT load_nothing(unsigned char **data, uint32_t *length, uint32_t tpm,
                               const char *name)
{
    (void)data, (void)length, (void)tpm, (void)name;
    return TPM_RETRY;
}

static TPM_RESULT store_nothing(const unsigned char *data, uint32_t length, uint32_t tpm,
                                const char *name)
{
    (void)data, (void)length, (void)tpm, (void)name;
    return TPM_SUCCESS;
}

static TPM_RESULT delete_nothing(uint32_t tpm, const char *name, TPM_BOOL must_exist)
{
    (void)tpm, (void)name, (void)must_exist;
    return TPM_SUCCESS;
}

static TPM_RESULT locality_zero(TPM_MODIFIER_INDICATOR *locality, uint32_t tpm)
{
    (void)tpm;
    *locality = 0;
    return TPM_SUCCESS;
}

static int libtpms_transact(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                            size_t *rsp_length)
{
    static unsigned char *buffer;
    static uint32_t size;
    uint32_t got = 0;

    (void)p;
    if (TPMLIB_Process(&buffer, &got, &size, (unsigned char *)(uintptr_t)cmd, (uint32_t)length) ||
        got > BENCH_BUFFER)
        return -EIO;
    memcpy(rsp, buffer, got);
    *rsp_length = got;
    return 0;
}

static void libtpms_close(struct bench_peer *p)
{
    (void)p;
    TPMLIB_Terminate();
}

int bench_libtpms(struct bench_peer *p, bool tpm12)
{
    struct libtpms_callbacks callbacks = {
        .sizeOfStruct = sizeof(callbacks),
        .tpm_nvram_init = init_nothing,
        .tpm_nvram_loaddata = load_nothing,
        .tpm_nvram_storedata = store_nothing,
        .tpm_nvram_deletename = delete_nothing,
        .tpm_io_init = init_nothing,
        .tpm_io_getlocality = locality_zero,
    };

    *p = (struct bench_peer){ .name = "libtpms", .tpm12 = tpm12, .transact = libtpms_transact,
                              .close = libtpms_close, .socket = -1 };
    if (TPMLIB_ChooseTPMVersion(tpm12 ? TPMLIB_TPM_VERSION_1_2 : TPMLIB_TPM_VERSION_2) ||
        TPMLIB_RegisterCallbacks(&callbacks) || TPMLIB_MainInit())
        return -EIO;
    return startup(p);
}

/* ------------------------------------------------------------------ the bare disk */

size_t bench_slot_bytes(int fd)
{
    uint8_t length[4];
    size_t sealed, sectors;

    if (fd < 0 || pread(fd, length, 4, 48) != 4)
        return 0;
    sealed = (size_t)length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16;
    sectors = (XLV_SEAL_HEAD + sealed + XLV_SECTOR_DATA - 1) / XLV_SECTOR_DATA;
    return sectors * XLV_SECTOR < 4096 ? 4096 : sectors * XLV_SECTOR;
}

size_t bench_commit_bytes(const char *state)
{
    char pattern[200];
    size_t longest = 0;
    glob_t found;

    snprintf(pattern, sizeof(pattern), "%s/instances/*/slot-?", state);
    if (glob(pattern, 0, NULL, &found))
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        int fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);
        size_t bytes = bench_slot_bytes(fd);

        if (bytes > longest)
            longest = bytes;
        if (fd >= 0)
            close(fd);
    }
    globfree(&found);
    return longest < 4096 ? 4096 : longest;
}

int bench_bare_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r;

    if (fd < 0)
        return -errno;
    r = posix_fallocate(fd, 0, 2 * BENCH_BARE_HALF);
    if (!r && fsync(fd))
        r = errno;
    if (r)
        close(fd);
    return r ? -r : fd;
}

int bench_bare_write(int fd, size_t length, unsigned i)
{
    static _Thread_local uint8_t data[BENCH_BARE_HALF];

    if (length > sizeof(data))
        return -EFBIG;
    memcpy(data, &i, sizeof(i));
    if (pwrite(fd, data, length, i % 2 ? 0 : BENCH_BARE_HALF) != (ssize_t)length || fdatasync(fd))
        return errno ? -errno : -EIO;
    return 0;
}
