/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * peer.h - the TPMs that are measured side by side, each behind the same three functions.
 *
 *     ours      a scripted frontend, the fakes' ring and event channel, the unmodified xl-vtpmd
 *               and vtpm-backend: sandbox, journal and durable store on, as a guest has it
 *     swtpm     Debian's swtpm over its unix socket, its state on the same disk
 *     libtpms   the library in this process, no state written: the limit for computing
 *
 * Sizes are bytes, times milliseconds. Functions return 0 or -errno unless said otherwise.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/fake/frontend.h"
#include "tests/integration/harness.h"

#define BENCH_BUFFER 4096u
#define BENCH_PATIENCE 60000 /* TPM 1.2 makes keys when it is first switched on */

/* One TPM. Opened by one of the functions below, in memory of the caller's. */
struct bench_peer {
    const char *name;
    bool tpm12;
    int (*transact)(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                    size_t *rsp_length);
    void (*close)(struct bench_peer *p);
    pid_t pid; /* the process that holds the TPM; 0: this one */
    /* ours */
    struct harness *h;
    uint32_t domid;
    struct fx_vtpm device;
    struct fx_guest *guest;
    struct fx_frontend *frontend;
    int events;
    /* swtpm */
    int socket;
    char directory[160];
};

/* The machine that our TPMs are in: daemon started, state below `directory` (on the disk). */
int bench_machine_up(struct harness *h, const char *directory, const char *config);
void bench_machine_down(struct harness *h);

/* A guest's vTPM in it, at InitWait as after xl create; then its driver connects to it. number:
 * 0 ... ; names the domain and the uuid. */
int bench_ours_create(struct bench_peer *p, struct harness *h, unsigned number, bool tpm12);
int bench_ours_connect(struct bench_peer *p);

/* A swtpm with a new TPM in directory/NAME.<number>, switched on and started. */
int bench_swtpm(struct bench_peer *p, const char *directory, unsigned number, bool tpm12);

/* One a process. The TPM is new, switched on and started. */
int bench_libtpms(struct bench_peer *p, bool tpm12);

/* A whole exchange; the TPM's response code, or -errno. rsp has BENCH_BUFFER bytes. */
int64_t bench_send(struct bench_peer *p, const uint8_t *cmd, size_t length, uint8_t *rsp,
                   size_t *rsp_length);

/* What a commit costs on the disk itself: how many bytes our store wrote last (the longest of the
 * newest slots below the state directory, in whole sectors: docs/formats.md); a file with two
 * places of that size (a descriptor, or -errno); a write of as many bytes into one of them, in
 * turns, and fdatasync. */
#define BENCH_BARE_HALF (1u << 20)
size_t bench_slot_bytes(int fd); /* of one slot; 0: it cannot be read */
size_t bench_commit_bytes(const char *state);
int bench_bare_file(const char *path);
int bench_bare_write(int fd, size_t length, unsigned i);

/* Of bench/xenevtchn.c: what a port's events are read from, and a read that waits for one. */
int bench_port_fd(uint32_t port);
int bench_wait_event(int fd);

/* Removes a directory with what is in it. */
void bench_remove(const char *directory);

/* Monotonic time in nanoseconds. */
int64_t bench_ns(void);

#endif
