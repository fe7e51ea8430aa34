/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The supervisor against fake-backend: every way a process can fail, each with
 * its own end; adoption; and the back-off, which is pure.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "libxl-vtpm/supervisor.h"

static sd_event *event;
static struct xlv_supervisor supervisor;
static char work[64], program[512];
static int work_fd = -1;
static const struct xlv_log_subject subject = XLV_LOG_SUBJECT_NONE;

/* What the callbacks saw. */
static struct seen {
    int ready, status, gone;
    pid_t pid;
    struct xlv_child_end end;
    struct xlv_msg_status last;
    struct xlv_child *child;
    bool stop_when_ready;
} seen;

static void on_ready(struct xlv_child *child, void *opaque)
{
    struct seen *s = opaque;

    s->ready++;
    if (s->stop_when_ready)
        xlv_child_stop(child, XLV_STOP_FRONTEND_CLOSED, 10 * 1000000);
}

static void on_status(struct xlv_child *child, const struct xlv_msg_status *status, void *opaque)
{
    struct seen *s = opaque;

    s->pid = xlv_child_pid(child);
    s->status++;
    s->last = *status;
}

static void on_gone(struct xlv_child *child, const struct xlv_child_end *end, void *opaque)
{
    struct seen *s = opaque;

    s->pid = xlv_child_pid(child);
    s->gone++;
    s->end = *end;
    s->child = NULL;
}

static const struct xlv_child_ops ops = { .ready = on_ready, .status = on_status, .gone = on_gone };

static int up(void **state)
{
    const char *top = getenv("top_builddir");

    (void)state;
    memset(&seen, 0, sizeof(seen));
    snprintf(work, sizeof(work), "/tmp/xlv-supervisor-XXXXXX");
    if (!mkdtemp(work))
        return -1;
    work_fd = open(work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    setenv("FAKE_BACKEND_DIR", work, 1);
    snprintf(program, sizeof(program), "%s/tests/unit/fake-backend", top ? top : ".");
    if (sd_event_new(&event) < 0)
        return -1;
    supervisor = (struct xlv_supervisor){
        .event = event,
        .program = program,
        .ready_us = 10 * 1000 * 1000,
        .manufacture_us = 10 * 1000 * 1000,
        .adopt_us = 10 * 1000 * 1000,
        .exit_us = 10 * 1000 * 1000,
    };
    return 0;
}

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int down(void **state)
{
    char command[128];

    (void)state;
    if (seen.child)
        xlv_child_abandon(seen.child);
    event = sd_event_unref(event);
    xlv_close(&work_fd);
    snprintf(command, sizeof(command), "rm -rf %s", work);
    return system(command);
}

static void mode(const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/mode", work);
    f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static bool noted(const char *text)
{
    char path[128], log[4096];
    size_t n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "%s/log", work);
    f = fopen(path, "re");
    if (f) {
        n = fread(log, 1, sizeof(log) - 1, f);
        fclose(f);
    }
    log[n] = '\0';
    return strstr(log, text) != NULL;
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Runs the loop until *counter is at least n. */
static void turn_until(const int *counter, int n)
{
    uint64_t end = now() + 15 * 1000000ull;

    while (*counter < n) {
        if (now() > end)
            fail_msg("waited too long");
        assert_true(sd_event_run(event, 100000) >= 0);
    }
}

/* Runs the loop until the process has noted this. */
static void turn_until_noted(const char *text)
{
    uint64_t end = now() + 15 * 1000000ull;

    while (!noted(text)) {
        if (now() > end)
            fail_msg("'%s' was never noted", text);
        assert_true(sd_event_run(event, 10000) >= 0);
    }
}

static void start_mode(enum xlv_launch_mode how)
{
    struct xlv_msg_launch launch = {
        .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_LAUNCH },
        .mode = how, .instance = 9, .domid = 5, .ring_ref = 8, .event_channel = 3,
    };
    struct xlv_error e = XLV_ERROR_INIT;
    int fds[4] = { -1, -1, -1, -1 };
    int rc;

    for (int i = 0; i < 3; i++)
        fds[i] = memfd_create("slot", MFD_CLOEXEC);
    assert_int_equal(xlv_listener_make(work_fd, 5, 0, &fds[3], &e), 0);
    rc = xlv_child_spawn(&seen.child, &supervisor, &launch, fds,
                         how == XLV_LAUNCH_SERVE ? 4 : 2, &subject, &ops, &seen, &e);
    for (int i = 0; i < 4; i++)
        xlv_close(&fds[i]);
    if (rc)
        fail_msg("%s", e.text);
}

static void start(void)
{
    start_mode(XLV_LAUNCH_SERVE);
}

static void ends_as(enum xlv_child_how how)
{
    turn_until(&seen.gone, 1);
    if (seen.end.how != how)
        fail_msg("ended as %d, not %d: %s", seen.end.how, how, seen.end.text);
    assert_int_equal(seen.gone, 1);
    assert_true(seen.end.text[0]);
    /* gone, and reaped */
    assert_int_equal(kill(seen.pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void a_backend_serves_answers_and_stops(void **state)
{
    int fds = 0;

    (void)state;
    mode("serve\n");
    for (int i = 0; i < 3; i++) {
        memset(&seen, 0, sizeof(seen));
        start();
        turn_until(&seen.ready, 1);
        assert_int_equal(xlv_child_query(seen.child), 0);
        turn_until(&seen.status, 1);
        assert_int_equal(seen.last.instance, 9);
        assert_int_equal(seen.last.ring_ref, 8);
        xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 10 * 1000000);
        xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 10 * 1000000); /* said once */
        ends_as(XLV_CHILD_CLEAN);
        assert_true(seen.end.bye);
        assert_true(seen.end.was_ready);
        /* the first round also opens what the loop keeps */
        if (i)
            assert_int_equal(open_fds(), fds);
        fds = open_fds();
    }
}

static void a_child_inherits_nothing_but_its_socket_and_stderr(void **state)
{
    char path[64], link[256];
    struct dirent *entry;
    int fd = open("/dev/null", O_RDONLY); /* not close-on-exec, as a careless library's */
    int n = 0;
    DIR *d;

    (void)state;
    mode("hang\n");
    start();
    turn_until_noted("launch");
    snprintf(path, sizeof(path), "/proc/%d/fd", xlv_child_pid(seen.child));
    d = opendir(path);
    assert_non_null(d);
    while ((entry = readdir(d))) {
        ssize_t length;

        if (entry->d_name[0] == '.')
            continue;
        n++;
        length = readlinkat(dirfd(d), entry->d_name, link, sizeof(link) - 1);
        assert_true(length > 0);
        link[length] = '\0';
        if (!strcmp(entry->d_name, "0"))
            assert_string_equal(link, "/dev/null");
        else if (atoi(entry->d_name) >= XLV_LAUNCH_FD)
            assert_true(!strncmp(link, "socket:", 7) || strstr(link, "memfd:"));
    }
    closedir(d);
    /* 0, 1, 2, the socket, three files and the listener */
    assert_int_equal(n, 8);
    assert_int_equal(getpgid(xlv_child_pid(seen.child)), xlv_child_pid(seen.child));
    close(fd);
    kill(xlv_child_pid(seen.child), SIGKILL);
    ends_as(XLV_CHILD_KILLED);
}

static void one_that_is_never_ready_is_killed(void **state)
{
    uint64_t begin = now();

    (void)state;
    supervisor.ready_us = 200 * 1000;
    mode("hang\n");
    start();
    ends_as(XLV_CHILD_TIMEOUT);
    assert_true(now() - begin >= 200 * 1000);
    assert_int_equal(seen.ready, 0);
}

static void one_that_exits_without_a_word_crashed(void **state)
{
    (void)state;
    mode("exit\n");
    start();
    ends_as(XLV_CHILD_CRASHED);
    assert_int_equal(seen.end.code, 256 + 3);
    assert_false(seen.end.was_ready);
}

static void one_that_dies_of_a_signal_crashed(void **state)
{
    (void)state;
    mode("segv\n");
    start();
    ends_as(XLV_CHILD_CRASHED);
    assert_int_equal(seen.end.code, SIGSEGV);
    assert_true(seen.end.was_ready);
}

static void one_that_somebody_kills_was_killed(void **state)
{
    (void)state;
    mode("serve\n");
    start();
    turn_until(&seen.ready, 1);
    kill(xlv_child_pid(seen.child), SIGKILL);
    ends_as(XLV_CHILD_KILLED);
}

static void one_that_says_why_it_failed_is_believed(void **state)
{
    (void)state;
    mode("fail 9 slot 1 is of\ta newer format\n");
    start();
    ends_as(XLV_CHILD_FAILED);
    assert_int_equal(seen.end.code, 9);
    assert_string_equal(seen.end.text, "slot 1 is of?a newer format");
}

static void garbage_is_answered_with_a_kill(void **state)
{
    static const char *const modes[] = { "garbage\n", "huge\n", "status\n" };

    (void)state;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        memset(&seen, 0, sizeof(seen));
        mode(modes[i]);
        start();
        ends_as(XLV_CHILD_GARBAGE);
        assert_int_equal(seen.ready, 0);
        assert_int_equal(seen.status, 0);
    }
}

static void one_of_another_build_is_no_fault_of_the_instance(void **state)
{
    struct xlv_backoff b = { .failures = 0 };
    uint64_t delay;

    (void)state;
    mode("foreign\n");
    start();
    ends_as(XLV_CHILD_NOT_STARTED);
    assert_int_equal(seen.ready, 0);
    assert_non_null(strstr(seen.end.text, "another build"));
    for (int i = 0; i < 20; i++)
        assert_int_equal(xlv_backoff_judge(&b, &seen.end, &delay), XLV_VERDICT_RETRY);
}

static void one_that_does_not_stop_is_killed(void **state)
{
    (void)state;
    mode("deaf\n");
    start();
    turn_until(&seen.ready, 1);
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 10 * 1000000);
    turn_until_noted("stop");
    /* it was told; the rest of its time need not be waited for */
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 1);
    ends_as(XLV_CHILD_STOPPED);
}

static void told_to_stop_again_it_may_have_less_time_but_never_more(void **state)
{
    (void)state;
    mode("deaf\n");
    start();
    turn_until(&seen.ready, 1);
    xlv_child_stop(seen.child, XLV_STOP_FRONTEND_CLOSED, 3600 * 1000000ull);
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 200 * 1000);
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 3600 * 1000000ull);
    ends_as(XLV_CHILD_STOPPED);
}

static void one_that_says_goodbye_and_stays_is_killed(void **state)
{
    (void)state;
    mode("linger\n");
    start();
    turn_until(&seen.ready, 1);
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 10 * 1000000);
    turn_until_noted("bye");
    /* which is not only said but heard */
    while (sd_event_run(event, 0) > 0)
        ;
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 1);
    ends_as(XLV_CHILD_STOPPED);
    assert_true(seen.end.bye);
}

static void one_that_stops_without_goodbye_is_not_clean(void **state)
{
    (void)state;
    mode("mute\n");
    start();
    turn_until(&seen.ready, 1);
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 10 * 1000000);
    ends_as(XLV_CHILD_CRASHED);
    assert_false(seen.end.bye);
}

static void one_that_hangs_up_and_stays_is_killed(void **state)
{
    (void)state;
    supervisor.exit_us = 200 * 1000;
    mode("hangup\n");
    start();
    ends_as(XLV_CHILD_TIMEOUT);
}

static void who_answers_what_nobody_asked_is_killed(void **state)
{
    (void)state;
    mode("flood\n");
    start();
    ends_as(XLV_CHILD_GARBAGE);
    assert_int_equal(seen.status, 0);
}

static void a_stop_during_the_start_is_heard_after_it(void **state)
{
    (void)state;
    mode("slow 200\n");
    start();
    xlv_child_stop(seen.child, XLV_STOP_FRONTEND_CLOSED, 10 * 1000000);
    ends_as(XLV_CHILD_CLEAN);
    assert_int_equal(seen.ready, 0); /* too late to matter */
}

static void stopping_from_within_ready_is_fine(void **state)
{
    (void)state;
    seen.stop_when_ready = true;
    mode("serve\n");
    start();
    ends_as(XLV_CHILD_CLEAN);
}

static void a_manufacture_is_clean_when_ready_and_gone(void **state)
{
    (void)state;
    start_mode(XLV_LAUNCH_MANUFACTURE);
    ends_as(XLV_CHILD_CLEAN);
    assert_true(seen.end.was_ready);
}

static void a_program_that_is_not_there_is_an_error_that_names_it(void **state)
{
    struct xlv_msg_launch launch = { .mode = XLV_LAUNCH_SERVE };
    struct xlv_error e = XLV_ERROR_INIT;
    int before = open_fds();

    (void)state;
    supervisor.program = "/nonexistent/vtpm-backend";
    assert_int_equal(xlv_child_spawn(&seen.child, &supervisor, &launch, NULL, 0, &subject, &ops,
                                     &seen, &e), -ENOENT);
    assert_null(seen.child);
    assert_non_null(strstr(e.text, "/nonexistent/vtpm-backend"));
    assert_int_equal(open_fds(), before);
}

/* --- adoption --------------------------------------------------------------------- */

/* Leaves a process behind as a daemon that dies does. */
static pid_t leave_behind(const char *how)
{
    pid_t pid;

    mode(how);
    start();
    turn_until(&seen.ready, 1);
    pid = xlv_child_pid(seen.child);
    xlv_child_abandon(seen.child);
    memset(&seen, 0, sizeof(seen));
    return pid;
}

static void adopt(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_child_adopt(&seen.child, &supervisor, work_fd, "5-0", &subject, &ops, &seen, &e);

    if (rc)
        fail_msg("%d: %s", rc, e.text);
}

static void reap(pid_t pid)
{
    /* in this test the adopted one is our child nevertheless */
    waitpid(pid, NULL, 0);
}

static void a_process_left_behind_is_found_and_stopped(void **state)
{
    pid_t pid = leave_behind("serve\n");

    (void)state;
    adopt();
    turn_until(&seen.status, 1);
    assert_int_equal(seen.pid, pid);
    assert_int_equal(xlv_child_pid(seen.child), pid);
    assert_int_equal(seen.last.instance, 9);
    assert_int_equal(xlv_child_query(seen.child), 0);
    turn_until(&seen.status, 2);
    xlv_child_stop(seen.child, XLV_STOP_DOMAIN_END, 10 * 1000000);
    turn_until(&seen.gone, 1);
    assert_int_equal(seen.end.how, XLV_CHILD_CLEAN);
    assert_true(seen.end.was_ready);
    reap(pid);
}

static void the_kernel_tells_whose_process_it_is_not_the_listener(void **state)
{
    /* it never listened itself, so SO_PEERCRED tells of us */
    pid_t pid = leave_behind("nolisten\n");

    (void)state;
    adopt();
    turn_until(&seen.status, 1);
    assert_int_equal(seen.pid, pid);
    kill(pid, SIGKILL);
    turn_until(&seen.gone, 1);
    assert_int_equal(seen.end.how, XLV_CHILD_KILLED);
    reap(pid);
}

static void an_adopted_process_that_does_not_answer_is_killed(void **state)
{
    pid_t pid = leave_behind("serve\n");

    (void)state;
    kill(pid, SIGSTOP);
    supervisor.adopt_us = 200 * 1000;
    adopt();
    turn_until(&seen.gone, 1);
    assert_int_equal(seen.end.how, XLV_CHILD_TIMEOUT);
    reap(pid);
}

static void a_stale_listener_is_removed(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct stat st;
    pid_t pid = leave_behind("serve\n");

    (void)state;
    kill(pid, SIGKILL);
    reap(pid);
    assert_int_equal(fstatat(work_fd, "5-0", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(xlv_child_adopt(&seen.child, &supervisor, work_fd, "5-0", &subject, &ops,
                                     &seen, &e), XLV_E_GONE);
    assert_null(seen.child);
    assert_int_equal(fstatat(work_fd, "5-0", &st, 0), -1);
}

static void a_process_that_dies_while_it_is_adopted_is_gone(void **state)
{
    pid_t pid = leave_behind("serve\n");

    (void)state;
    kill(pid, SIGSTOP);
    adopt();
    kill(pid, SIGKILL);
    turn_until(&seen.gone, 1);
    assert_int_equal(seen.status, 0);
    reap(pid);
}

/* --- pure parts ------------------------------------------------------------------------ */

static void each_phase_permits_its_messages_and_no_other(void **state)
{
    /* rows: phases; columns: LAUNCH READY FAILED QUERY STATUS STOP BYE ENDORSEMENT CERTIFICATES */
    static const char *const table[XLV_PHASES] = {
        [XLV_PHASE_STARTING] = "-yy----y-",
        [XLV_PHASE_CERTIFYING] = "-yy------",
        [XLV_PHASE_ADOPTING] = "-yy-y----",
        [XLV_PHASE_READY] = "--y-y----",
        [XLV_PHASE_STOPPING] = "-yy-y-y--",
        [XLV_PHASE_DONE] = "---------",
    };
    static const size_t sizes[] = {
        [XLV_MSG_LAUNCH] = sizeof(struct xlv_msg_launch),
        [XLV_MSG_READY] = sizeof(struct xlv_msg_simple),
        [XLV_MSG_FAILED] = sizeof(struct xlv_msg_failed),
        [XLV_MSG_QUERY] = sizeof(struct xlv_msg_simple),
        [XLV_MSG_STATUS] = sizeof(struct xlv_msg_status),
        [XLV_MSG_STOP] = sizeof(struct xlv_msg_stop),
        [XLV_MSG_BYE] = sizeof(struct xlv_msg_simple),
        [XLV_MSG_ENDORSEMENT] = sizeof(struct xlv_msg_endorsement),
        [XLV_MSG_CERTIFICATES] = sizeof(struct xlv_msg_certificates),
    };
    enum xlv_child_phase next;
    static char buffer[sizeof(struct xlv_msg_certificates) + 1];

    (void)state;
    for (unsigned i = 0; i < 2 * XLV_PHASES; i++)
        for (unsigned type = XLV_MSG_LAUNCH; type <= XLV_MSG_CERTIFICATES; type++) {
            struct xlv_msg_header h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, (uint16_t)type };
            unsigned phase = i / 2;
            /* who serves has figures, who makes has new keys */
            enum xlv_launch_mode mode = i % 2 ? XLV_LAUNCH_MANUFACTURE : XLV_LAUNCH_SERVE;
            bool legal = table[phase][type - 1] == 'y' &&
                         type != (i % 2 ? XLV_MSG_STATUS : XLV_MSG_ENDORSEMENT);

            memset(buffer, 0, sizeof(buffer));
            memcpy(buffer, &h, sizeof(h));
            assert_int_equal(xlv_child_may_say(phase, mode, buffer, sizes[type], &next),
                             legal ? 0 : XLV_E_INVALID);
            /* one byte more or less, another magic */
            assert_int_equal(xlv_child_may_say(phase, mode, buffer, sizes[type] + 1, &next),
                             XLV_E_INVALID);
            assert_int_equal(xlv_child_may_say(phase, mode, buffer, sizes[type] - 1, &next),
                             XLV_E_INVALID);
            buffer[0] ^= 1;
            assert_int_equal(xlv_child_may_say(phase, mode, buffer, sizes[type], &next),
                             XLV_E_INVALID);
            buffer[0] ^= 1;
            /* another version: only what keeps its layout for ever */
            h.version++;
            memcpy(buffer, &h, sizeof(h));
            legal = legal && (type == XLV_MSG_STATUS || type == XLV_MSG_BYE);
            assert_int_equal(xlv_child_may_say(phase, mode, buffer, sizes[type], &next),
                             legal ? 0 : XLV_E_INVALID);
        }
    for (size_t n = 0; n < sizeof(struct xlv_msg_header); n++)
        assert_int_equal(xlv_child_may_say(XLV_PHASE_STARTING, XLV_LAUNCH_SERVE, buffer, n, &next),
                         XLV_E_INVALID);
    {
        struct xlv_msg_header h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, 65535 };

        memcpy(buffer, &h, sizeof(h));
        assert_int_equal(xlv_child_may_say(XLV_PHASE_READY, XLV_LAUNCH_SERVE, buffer, 8, &next),
                         XLV_E_INVALID);
    }
}

static struct xlv_child_end end_of(enum xlv_child_how how, int code, bool ready, uint64_t uptime)
{
    return (struct xlv_child_end){ .how = how, .code = code, .was_ready = ready,
                                   .uptime_us = uptime };
}

static void pauses_grow_from_nothing_to_their_maximum(void **state)
{
    struct xlv_child_end end = end_of(XLV_CHILD_FAILED, -ENOMEM, false, 1000);
    struct xlv_backoff b = { .failures = 0 };
    uint64_t delay, last = 0;

    (void)state;
    assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_RETRY);
    assert_int_equal(delay, 0); /* the guest waits */
    for (int i = 0; i < 40; i++) {
        assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_RETRY);
        assert_true(delay >= last && delay <= XLV_RETRY_MAX_US);
        last = delay;
    }
    assert_int_equal(last, XLV_RETRY_MAX_US);
    /* a healthy life forgets it all */
    end = end_of(XLV_CHILD_CRASHED, SIGSEGV, true, XLV_HEALTHY_US);
    assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_RETRY);
    assert_int_equal(delay, 0);
}

static void the_same_failure_again_and_again_is_quarantined(void **state)
{
    static const struct {
        enum xlv_child_how how;
        int code;
        enum xlv_verdict verdict;
    } cases[] = {
        { XLV_CHILD_CRASHED, SIGSEGV, XLV_VERDICT_QUARANTINE },
        { XLV_CHILD_CRASHED, 256 + 3, XLV_VERDICT_QUARANTINE },
        { XLV_CHILD_TIMEOUT, 0, XLV_VERDICT_QUARANTINE },
        { XLV_CHILD_GARBAGE, 0, XLV_VERDICT_QUARANTINE },
        { XLV_CHILD_FAILED, XLV_E_TPM, XLV_VERDICT_QUARANTINE },
        { XLV_CHILD_FAILED, XLV_E_FORBIDDEN, XLV_VERDICT_QUARANTINE },
        { XLV_CHILD_FAILED, -ENOMEM, XLV_VERDICT_RETRY },
        { XLV_CHILD_FAILED, XLV_E_INVALID, XLV_VERDICT_RETRY },
        { XLV_CHILD_NOT_STARTED, -EAGAIN, XLV_VERDICT_RETRY },
        { XLV_CHILD_KILLED, SIGKILL, XLV_VERDICT_RETRY },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct xlv_child_end end = end_of(cases[i].how, cases[i].code, true, 1000);
        struct xlv_backoff b = { .failures = 0 };
        uint64_t delay;

        for (unsigned n = 1; n < XLV_QUARANTINE_AFTER; n++)
            assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_RETRY);
        if (xlv_backoff_judge(&b, &end, &delay) != cases[i].verdict)
            fail_msg("case %zu", i);
    }
}

static void different_failures_are_no_pattern(void **state)
{
    struct xlv_backoff b = { .failures = 0 };
    uint64_t delay;

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct xlv_child_end end = end_of(XLV_CHILD_CRASHED, i % 2 ? SIGSEGV : SIGBUS, true, 1000);

        assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_RETRY);
    }
}

static void damage_is_fatal_at_once(void **state)
{
    static const int codes[] = { XLV_E_CORRUPT, XLV_E_WRONG_KEY, XLV_E_WRONG_OWNER, XLV_E_VERSION,
                                 XLV_E_EMPTY, XLV_E_REFUSED };

    (void)state;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        struct xlv_child_end end = end_of(XLV_CHILD_FAILED, codes[i], false, 1000);
        struct xlv_backoff b = { .failures = 0 };
        uint64_t delay;

        assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_FATAL);
    }
}

static void kills_from_outside_never_slow_down_the_next_start(void **state)
{
    struct xlv_child_end end = end_of(XLV_CHILD_KILLED, SIGKILL, true, 1000);
    struct xlv_backoff b = { .failures = 0 };
    uint64_t delay;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_RETRY);
        assert_true(delay <= XLV_RETRY_FIRST_US);
    }
    end.uptime_us = XLV_RETRY_FIRST_US;
    assert_int_equal(xlv_backoff_judge(&b, &end, &delay), XLV_VERDICT_RETRY);
    assert_int_equal(delay, 0);
}

static void starts_that_a_guest_causes_take_a_quarter_of_the_time_at_most(void **unused)
{
    const uint64_t second = 1000000;
    uint64_t now = 1000 * second, paid = 0, spent = 0, begun = now;

    (void)unused;
    /* quick ones are never waited for, as far as their cost goes */
    for (int i = 0; i < 1000; i++) {
        paid = xlv_start_paid(paid, now, 4000);
        assert_true(paid <= now);
        now += 16000;
    }
    /* one that is dear: a few at once, then in their turn */
    paid = 0;
    for (unsigned i = 0; i < XLV_START_CREDIT_US / XLV_START_SHARE / 700000; i++)
        paid = xlv_start_paid(paid, now, 700000);
    assert_true(paid <= now);
    assert_true(xlv_start_paid(paid, now, 700000) > now);
    begun = now;
    for (int i = 0; i < 100; i++) {
        now += 700000;
        spent += 700000;
        paid = xlv_start_paid(paid, now, 700000);
        if (now < paid)
            now = paid;
    }
    assert_true(4 * spent <= now - begun + XLV_START_CREDIT_US);
    /* and not later than that, either */
    assert_true(now - begun <= 4 * spent + second);
    /* a machine that has just come up */
    assert_int_equal(xlv_start_paid(0, 3, 1), XLV_START_SHARE);
}

int main(void)
{
#define with_loop(test) cmocka_unit_test_setup_teardown(test, up, down)
    const struct CMUnitTest tests[] = {
        with_loop(a_backend_serves_answers_and_stops),
        with_loop(a_child_inherits_nothing_but_its_socket_and_stderr),
        with_loop(one_that_is_never_ready_is_killed),
        with_loop(one_that_exits_without_a_word_crashed),
        with_loop(one_that_dies_of_a_signal_crashed),
        with_loop(one_that_somebody_kills_was_killed),
        with_loop(one_that_says_why_it_failed_is_believed),
        with_loop(garbage_is_answered_with_a_kill),
        with_loop(one_of_another_build_is_no_fault_of_the_instance),
        with_loop(one_that_does_not_stop_is_killed),
        with_loop(told_to_stop_again_it_may_have_less_time_but_never_more),
        with_loop(one_that_says_goodbye_and_stays_is_killed),
        with_loop(one_that_stops_without_goodbye_is_not_clean),
        with_loop(one_that_hangs_up_and_stays_is_killed),
        with_loop(who_answers_what_nobody_asked_is_killed),
        with_loop(a_stop_during_the_start_is_heard_after_it),
        with_loop(stopping_from_within_ready_is_fine),
        with_loop(a_manufacture_is_clean_when_ready_and_gone),
        with_loop(a_program_that_is_not_there_is_an_error_that_names_it),
        with_loop(a_process_left_behind_is_found_and_stopped),
        with_loop(the_kernel_tells_whose_process_it_is_not_the_listener),
        with_loop(an_adopted_process_that_does_not_answer_is_killed),
        with_loop(a_stale_listener_is_removed),
        with_loop(a_process_that_dies_while_it_is_adopted_is_gone),
        cmocka_unit_test(each_phase_permits_its_messages_and_no_other),
        cmocka_unit_test(pauses_grow_from_nothing_to_their_maximum),
        cmocka_unit_test(the_same_failure_again_and_again_is_quarantined),
        cmocka_unit_test(different_failures_are_no_pattern),
        cmocka_unit_test(damage_is_fatal_at_once),
        cmocka_unit_test(kills_from_outside_never_slow_down_the_next_start),
        cmocka_unit_test(starts_that_a_guest_causes_take_a_quarter_of_the_time_at_most),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
