/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * harness.h - runs the real xl-vtpmd, and the vtpm-backend processes it starts, in a machine.
 *
 * The programs are $XL_VTPMD, $XL_VTPM and $VTPM_BACKEND, else those of the build tree. They are
 * found by what they are, not by what they say: backends are the processes whose executable that
 * file is and whose environment names this machine. Their stderr goes to a file that is shown when
 * a test fails. Functions that wait have deadlines; times are milliseconds.
 */
#ifndef INTEGRATION_HARNESS_H
#define INTEGRATION_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/fake/machine.h"

#define MAX_BACKENDS 4096

struct harness {
    struct fx_machine *m;
    char dir[128];               /* config, state, run directory, log */
    char daemon_program[512], command_program[512]; /* xl-vtpm */
    char backend_program[512], backend_exe[512], fakes[512];
    pid_t daemon;                /* 0: not running */
    uint32_t be_domid;           /* the domain it runs in */
    bool real;                   /* over a real xenstored */
};

/* The state directory is in memory, or $XL_VTPM_TEST_STATE. */
/* A machine (over Debian's xenstored if `real`) and an empty installation with these additional
 * configuration lines (may be NULL); the daemon is not started. 0 or -errno. */
int harness_up(struct harness *h, bool real, const char *config);

/* Ends everything. Returns how many processes had to be killed that should have been gone. */
int harness_down(struct harness *h);

/* Starts the daemon and waits until it said READY=1. 0, -ETIMEDOUT, or -ECHILD if it ended. */
int daemon_start(struct harness *h);
/* SIGTERM and wait; the exit status as of waitpid, or -ETIMEDOUT after 10 s. */
int daemon_stop(struct harness *h);
void daemon_kill(struct harness *h);             /* SIGKILL, and waited for */
/* Whether the daemon runs (was not found dead). */
bool daemon_alive(struct harness *h);

/* What a reboot of the host does to the run directory. With nothing running. */
void harness_clear_run(struct harness *h);

/* The backends that run now: their number, at most MAX_BACKENDS pids (order: oldest first). */
int backends(struct harness *h, pid_t *pids);
/* Waits until exactly n run. False after timeout, and says which do; *pids as above, NULL ok. */
bool backends_wait(struct harness *h, int n, pid_t *pids, int timeout);
/* SIGKILL and wait until the process does not exist any more. */
void process_kill(pid_t pid);
/* Stops a process (SIGSTOP) and waits until it is stopped. */
void process_freeze(pid_t pid);

/* True if the log so far has this text. */
bool log_has(struct harness *h, const char *text);
/* How often it has. */
unsigned log_count(struct harness *h, const char *text);
bool log_wait(struct harness *h, const char *text, int timeout);
/* Until it has it n times at least. */
bool log_wait_for(struct harness *h, const char *text, unsigned n, int timeout);
/* Shows the log on stderr; its end again as what tests/lib/count.sh repeats of a failed test. */
void log_show(struct harness *h);

#endif
