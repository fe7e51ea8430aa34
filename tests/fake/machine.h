/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * machine.h - a test's handle on its pretended Xen machine.
 *
 * A machine is a directory on tmpfs ($FAKEXEN_DIR), a running fakexend (hypervisor), and one of
 * two xenstores: fakexend's own strict mock, or Debian's real xenstored over it. Starting one sets
 * FAKEXEN_DIR, FAKEXEN_DOMID and the XENSTORED_* variables of this process, so that everything
 * opened or started afterwards, by whatever program, is in this machine. One at a time per
 * process. Stopping one ends what it started and removes the directory.
 *
 * Functions return 0 or -errno unless said otherwise. Times are milliseconds.
 */
#ifndef FAKE_MACHINE_H
#define FAKE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fault.h"
#include "wire.h"

struct fx_machine;
struct xs_handle;

struct fx_options {
    const char *bin;             /* folder of fakexend, fakedom and the preload object; NULL:
                                    $FAKEXEN_BIN, else $top_builddir/tests/fake */
    const char *xenstored;       /* NULL: the mock; else the program to run over the machine */
};

int fx_start(struct fx_machine **out, const struct fx_options *options);
void fx_stop(struct fx_machine *m);                      /* NULL ok */
const char *fx_dir(const struct fx_machine *m);
const char *fx_bin(const struct fx_machine *m);
bool fx_is_mock(const struct fx_machine *m);
/* File name of the LD_PRELOAD object for Debian's xenstored and xl. */
const char *fx_preload(const struct fx_machine *m);

/* From here on this process opens grants, event channels and xenstore connections as that domain.
 * What is open stays what it was. Children inherit it. */
void fx_become(struct fx_machine *m, uint32_t domid);

/* A xenstore connection of a domain (0: the toolstack); leaves fx_become() as it was. NULL with
 * errno on failure. The caller closes it. */
struct xs_handle *fx_xs_open(struct fx_machine *m, uint32_t domid);

/*
 * Domains. Creating one does what libxl does before the first device: /local/domain/<domid> with
 * its directories and permissions, name, /libxl/<domid>, /vm; introduces it to xenstore. name may
 * be NULL. Shutdown: @releaseDomain fires, nodes and grants stay. Destroy: the domain and all
 * it had open or granted is gone; fx_domain_erase() then deletes its nodes as libxl does last.
 */
int fx_domain_create(struct fx_machine *m, uint32_t domid, const char *name);
/* What the hypervisor tells of it (domain 0 only): it runs (a domain is made paused; and again, if
 * it was suspended, as libxl_domain_resume() with suspend_cancel has it), how often it
 * was restored or migrated (1: never), and, with the mock only, the guest's index in its ring of
 * xenstore. */
int fx_domain_ran(struct fx_machine *m, uint32_t domid);
int fx_domain_incarnation(struct fx_machine *m, uint32_t domid, uint32_t incarnation);
int fx_domain_mark(struct fx_machine *m, uint32_t domid, uint32_t mark);
int fx_domain_shutdown(struct fx_machine *m, uint32_t domid, uint32_t reason);
/* What libxl_domain_soft_reset() does before it destroys the devices: the domain, which has shut
 * down for that, is released in xenstore and paused. Then, before it makes them again: it is reset,
 * has its nodes and is introduced once more. And at last: it runs. With the mock only. */
int fx_domain_soft_reset_begin(struct fx_machine *m, uint32_t domid);
int fx_domain_soft_reset_end(struct fx_machine *m, uint32_t domid, const char *name);
int fx_domain_soft_reset_over(struct fx_machine *m, uint32_t domid);
int fx_domain_destroy(struct fx_machine *m, uint32_t domid);
int fx_domain_erase(struct fx_machine *m, uint32_t domid);
enum fx_dom_state fx_domain_state(struct fx_machine *m, uint32_t domid);

/* Counters of what that domain did, kept by fakexend. */
void fx_stats(struct fx_machine *m, uint32_t domid, struct fx_stats *out);
/* True if the domain holds no page, no port and no handle any more, and for each page it mapped
 * there was one unmap or one release at the end of the process. Else says on stderr what. */
bool fx_balanced(struct fx_machine *m, uint32_t domid);

/*
 * Faults in the fake libraries (fault.h): the calls of `function` by `domid` (or FX_FAULT_ANY)
 * that follow the next `skip` ones, `count` of them, fail with err, or with FX_FAULT_KILL end
 * their process. Not for programs that use the real libxenstore. Returns the slot for
 * fx_fault_hits().
 */
int fx_fault(struct fx_machine *m, const char *function, uint32_t domid, int err, int skip,
             int count);
uint32_t fx_fault_hits(struct fx_machine *m, int slot);
void fx_fault_clear(struct fx_machine *m);

/* Faults in the mock xenstore; -ENOSYS with the real one, except that dropping connections kills
 * it, for all domains. domid FX_FAULT_ANY: all. */
int fx_store_conflict(struct fx_machine *m, uint32_t domid, uint32_t count);
int fx_store_hold(struct fx_machine *m, uint32_t domid, bool hold);
int fx_store_spurious(struct fx_machine *m, uint32_t domid);
int fx_store_drop(struct fx_machine *m, uint32_t domid, bool refuse_new);
int fx_store_quota(struct fx_machine *m, enum fx_quota quota, uint32_t limit);
/* Requests that a process has made at the mock xenstore so far, over all its connections. */
int fx_store_requests(struct fx_machine *m, pid_t pid, uint32_t *out);
int fx_store_stats(struct fx_machine *m, uint32_t domid, struct fx_store_stats *out);

/* Milliseconds of the monotonic clock. */
int64_t fx_now(void);
/* Polls a condition until it holds or time is up; for conditions nothing can be waited on. */
bool fx_wait(bool (*holds)(void *arg), void *arg, int timeout);

/* Starts a program of the harness with a pipe on stdin (its end tells it to stop) and its stdout
 * readable in *out if out is not NULL; stdin's other end in *in. env: "NAME=value" strings put
 * into the environment and "NAME" strings taken out of it, NULL-terminated, or NULL. The child
 * dies with this process. */
int fx_spawn(const char *const *argv, const char *const *env, int *in, int *out, pid_t *pid);

#endif
