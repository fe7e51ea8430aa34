/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * selftest.h - what the tests of the fakes share: cmocka, a machine per test, a child process that
 * can be killed.
 */
#ifndef FAKE_SELFTEST_H
#define FAKE_SELFTEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fake/machine.h"

static struct fx_machine *machine;

static inline int machine_up(void **state)
{
    int r = fx_start(&machine, NULL);

    (void)state;
    if (r)
        fprintf(stderr, "machine: %s\n", strerror(-r));
    else
        r = fx_domain_create(machine, 5, "guest");
    if (r) {
        fx_stop(machine);            /* no teardown follows a failed setup */
        machine = NULL;
    }
    return r;
}

static inline int machine_down(void **state)
{
    (void)state;
    fx_stop(machine);
    machine = NULL;
    return 0;
}

#define on_machine(test) cmocka_unit_test_setup_teardown(test, machine_up, machine_down)

#define assert_errno(call_is_failure, err) \
    do {                                   \
        errno = 0;                         \
        assert_true(call_is_failure);      \
        assert_int_equal(errno, err);      \
    } while (0)

/* Runs work() in a child that lives until it is killed; returns when work() is done. */
static inline pid_t child_start(void (*work)(void))
{
    int p[2];
    char c;
    pid_t pid;

    assert_int_equal(pipe(p), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(p[0]);
        work();
        if (write(p[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(p[1]);
    assert_int_equal(read(p[0], &c, 1), 1);
    close(p[0]);
    return pid;
}

static inline void child_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline bool readable(int fd)
{
    struct pollfd p = { fd, POLLIN, 0 };

    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

#endif
