/* SPDX-License-Identifier: GPL-2.0-or-later */
/* common/process.h, with real processes: a program that is there, that was replaced, and that of a
 * mount which was detached. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/process.h"

static char top[] = "/tmp/xl-vtpm-process-XXXXXX";
static char program[256], other[256];

static void copy(const char *from, const char *to)
{
    char line[600];

    snprintf(line, sizeof(line), "cp %s %s", from, to);
    assert_int_equal(system(line), 0);
}

static int up(void **state)
{
    char path[128];

    (void)state;
    if (!mkdtemp(top))
        return -1;
    snprintf(path, sizeof(path), "%s/usr", top);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/usr/libexec", top);
    mkdir(path, 0755);
    snprintf(program, sizeof(program), "%s/usr/libexec/sleep", top);
    snprintf(other, sizeof(other), "%s/usr/libexec/leep", top);
    copy("/bin/sleep", program);
    return 0;
}

static int down(void **state)
{
    char line[160];

    (void)state;
    snprintf(line, sizeof(line), "rm -r %s", top);
    return system(line);
}

/* Runs it; apart: on a mount of its own, which is detached before. */
static pid_t run(bool apart)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        char *const args[] = { "sleep", "1000", NULL };
        char usr[128];
        int fd;

        snprintf(usr, sizeof(usr), "%s/usr", top);
        if (apart && (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
                      mount(usr, usr, NULL, MS_BIND, NULL)))
            _exit(9);
        fd = open(program, O_RDONLY | O_CLOEXEC);
        if (apart && umount2(usr, MNT_DETACH))
            _exit(9);
        fexecve(fd, args, environ);
        _exit(9);
    }
    close(ready[1]);
    /* its end closes when it runs the program */
    assert_int_equal(read(ready[0], &byte, 1), 0);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); /* it ran until then */
}

static void a_program_is_known_by_its_path(void **unused)
{
    pid_t pid = run(false);

    (void)unused;
    assert_true(xlv_process_runs(pid, program));
    assert_false(xlv_process_runs(pid, other));
    assert_false(xlv_process_runs(pid, "/bin/sleep"));
    assert_false(xlv_process_runs(getpid(), program));
    end(pid);
    assert_false(xlv_process_runs(pid, program));
}

static void also_once_it_was_replaced(void **unused)
{
    pid_t pid = run(false);

    (void)unused;
    assert_int_equal(unlink(program), 0);
    assert_true(xlv_process_runs(pid, program));
    copy("/bin/sleep", program);
    assert_true(xlv_process_runs(pid, program));
    assert_false(xlv_process_runs(pid, other));
    end(pid);
}

static void also_on_a_mount_that_is_detached(void **unused)
{
    char link[64], target[256] = "";
    pid_t pid;

    (void)unused;
    if (geteuid()) {
        print_message("# only root can mount: not looked at\n");
        return;
    }
    pid = run(true);
    snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
    assert_true(readlink(link, target, sizeof(target) - 1) > 0);
    assert_string_equal(target, "/libexec/sleep"); /* what the kernel says then */
    assert_true(xlv_process_runs(pid, program));
    assert_false(xlv_process_runs(pid, other));
    end(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_is_known_by_its_path),
        cmocka_unit_test(also_once_it_was_replaced),
        cmocka_unit_test(also_on_a_mount_that_is_detached),
    };

    return cmocka_run_group_tests(tests, up, down);
}
