/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A cgroup for each backend, asked of a systemd that is the other end of a socket pair. What the
 * real one does with it is tests/xen/scenarios/systemd.sh.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#include "common/log.h"
#include "libxl-vtpm/scopes.h"

#define SOON 10000000ull /* microseconds; hit only by a failure */

static struct {
    sd_event *event;
    sd_bus *systemd;
    bool refuse, none;
    unsigned connections, asked, lines;
    char name[128], mode[16], seen[512], said[1024];
} T;

static int on_request(sd_bus_message *m, void *opaque, sd_bus_error *error)
{
    const char *name, *mode, *key;
    size_t n = 0;

    (void)opaque;
    (void)error;
    if (!sd_bus_message_is_method_call(m, "org.freedesktop.systemd1.Manager",
                                       "StartTransientUnit"))
        return 0;
    assert_string_equal(sd_bus_message_get_path(m), "/org/freedesktop/systemd1");
    assert_true(sd_bus_message_read(m, "ss", &name, &mode) > 0);
    snprintf(T.name, sizeof(T.name), "%s", name);
    snprintf(T.mode, sizeof(T.mode), "%s", mode);
    T.seen[0] = '\0';
    assert_true(sd_bus_message_enter_container(m, 'a', "(sv)") > 0);
    while (sd_bus_message_enter_container(m, 'r', "sv") > 0) {
        const char *type, *text;
        uint64_t number;
        uint32_t pid;
        int flag;

        assert_true(sd_bus_message_read(m, "s", &key) > 0);
        assert_true(sd_bus_message_peek_type(m, NULL, &type) > 0);
        n = strlen(T.seen);
        if (!strcmp(type, "s")) {
            assert_true(sd_bus_message_read(m, "v", "s", &text) > 0);
            snprintf(T.seen + n, sizeof(T.seen) - n, "%s=%s;", key, text);
        } else if (!strcmp(type, "t")) {
            assert_true(sd_bus_message_read(m, "v", "t", &number) > 0);
            snprintf(T.seen + n, sizeof(T.seen) - n, "%s=%llu;", key, (unsigned long long)number);
        } else if (!strcmp(type, "b")) {
            assert_true(sd_bus_message_read(m, "v", "b", &flag) > 0);
            snprintf(T.seen + n, sizeof(T.seen) - n, "%s=%s;", key, flag ? "yes" : "no");
        } else {
            assert_string_equal(type, "au");
            assert_true(sd_bus_message_read(m, "v", "au", 1, &pid) > 0);
            snprintf(T.seen + n, sizeof(T.seen) - n, "%s=%u;", key, pid);
        }
        assert_true(sd_bus_message_exit_container(m) >= 0);
    }
    assert_true(sd_bus_message_exit_container(m) >= 0);
    assert_true(sd_bus_message_skip(m, "a(sa(sv))") >= 0);
    assert_true(sd_bus_message_at_end(m, true) > 0);
    T.asked++;
    if (T.refuse)
        return sd_bus_reply_method_errorf(m, SD_BUS_ERROR_ACCESS_DENIED, "not for you");
    return sd_bus_reply_method_return(m, "o", "/org/freedesktop/systemd1/job/1");
}

static void hang_up(void)
{
    T.systemd = sd_bus_close_unref(T.systemd);
}

static int open_pair(sd_bus **bus)
{
    sd_id128_t id = SD_ID128_MAKE(01, 02, 03, 04, 05, 06, 07, 08, 09, 0a, 0b, 0c, 0d, 0e, 0f, 10);
    int pair[2];

    if (T.none)
        return -ENOENT;
    hang_up();
    T.connections++;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_true(sd_bus_new(&T.systemd) >= 0);
    assert_true(sd_bus_set_fd(T.systemd, pair[0], pair[0]) >= 0);
    assert_true(sd_bus_set_server(T.systemd, 1, id) >= 0);
    assert_true(sd_bus_start(T.systemd) >= 0);
    assert_true(sd_bus_add_filter(T.systemd, NULL, on_request, NULL) >= 0);
    assert_true(sd_bus_attach_event(T.systemd, T.event, 0) >= 0);
    assert_true(sd_bus_new(bus) >= 0);
    assert_true(sd_bus_set_fd(*bus, pair[1], pair[1]) >= 0);
    return sd_bus_start(*bus);
}

static void on_line(enum xlv_log_level level, const struct xlv_log_subject *subject,
                    const char *text)
{
    (void)subject;
    if (level > XLV_LOG_NOTICE)
        return;
    T.lines++;
    snprintf(T.said, sizeof(T.said), "%s", text);
}

static int set_up(void **state)
{
    memset(&T, 0, sizeof(T));
    assert_true(sd_event_new(&T.event) >= 0);
    xlv_log_set_sink(on_line);
    *state = xlv_scopes_new(T.event, open_pair);
    assert_non_null(*state);
    return 0;
}

static int tear_down(void **state)
{
    xlv_scopes_free(*state);
    hang_up();
    T.event = sd_event_unref(T.event);
    xlv_log_set_sink(NULL);
    return 0;
}

/* Until *count is no less than this, and the answer to it has been read. */
static void run_until(const unsigned *count, unsigned least)
{
    while (*count < least)
        assert_true(sd_event_run(T.event, SOON) > 0);
    while (sd_event_run(T.event, 0) > 0)
        ;
}

static void each_backend_gets_a_scope(void **state)
{
    char expected[512];
    long pid = (long)getpid();

    xlv_scopes_put(*state, getpid(), 7, 12, 1);
    run_until(&T.asked, 1);
    snprintf(expected, sizeof(expected), "vtpm-7-%ld.scope", pid);
    assert_string_equal(T.name, expected);
    assert_string_equal(T.mode, "fail");
    snprintf(expected, sizeof(expected),
             "Description=vTPM 7 of domain 12 (device 1);Slice=system-vtpm.slice;PIDs=%ld;"
             "DefaultDependencies=no;CPUWeight=100;TasksMax=1;DevicePolicy=strict;", pid);
    assert_string_equal(T.seen, expected);
    xlv_scopes_put(*state, getpid(), 8, 13, 0);
    run_until(&T.asked, 2);
    assert_int_equal(T.connections, 1);
    assert_int_equal(T.lines, 0);
}

static void a_refusal_is_told_once(void **state)
{
    T.refuse = true;
    xlv_scopes_put(*state, getpid(), 7, 12, 0);
    run_until(&T.lines, 1);
    assert_non_null(strstr(T.said, "not for you"));
    xlv_scopes_put(*state, getpid(), 7, 12, 0);
    run_until(&T.asked, 2);
    assert_int_equal(T.lines, 1);
}

static void a_lost_connection_is_made_again(void **state)
{
    xlv_scopes_put(*state, getpid(), 7, 12, 0);
    run_until(&T.asked, 1);
    hang_up();
    while (sd_event_run(T.event, 0) > 0)
        ;
    xlv_scopes_put(*state, getpid(), 8, 12, 0);
    run_until(&T.asked, 2);
    assert_int_equal(T.connections, 2);
}

static void without_a_bus_all_goes_on(void **state)
{
    T.none = true;
    xlv_scopes_put(*state, getpid(), 7, 12, 0);
    xlv_scopes_put(*state, getpid(), 7, 12, 0);
    assert_int_equal(T.lines, 1);
    assert_non_null(strstr(T.said, "No such file"));
    T.none = false;
    xlv_scopes_put(*state, getpid(), 7, 12, 0);
    run_until(&T.asked, 1);
    xlv_scopes_put(NULL, getpid(), 7, 12, 0);
}

/* A process that has ended is in no cgroup that could be compared; systemd will say so. */
static void one_that_has_ended_is_no_trouble(void **state)
{
    pid_t pid = fork();

    if (!pid)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    T.refuse = true;
    xlv_scopes_put(*state, pid, 7, 12, 0);
    run_until(&T.lines, 1);
}

static void one_that_has_a_cgroup_keeps_it(void **state)
{
    static const char *const hierarchies[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/pids" };
    char group[100] = "", procs[128], byte;
    pid_t pid;
    int hold[2];
    FILE *f;

    for (size_t i = 0; i < 2 && !group[0]; i++) {
        snprintf(procs, sizeof(procs), "%s/cgroup.procs", hierarchies[i]);
        snprintf(group, sizeof(group), "%s/xl-vtpm-test-%ld", hierarchies[i], (long)getpid());
        if (access(procs, W_OK) || mkdir(group, 0700))
            group[0] = '\0';
    }
    if (!group[0]) {
        print_message("# skipped: no cgroup can be made here\n");
        skip();
    }
    assert_int_equal(pipe(hold), 0);
    pid = fork();
    if (!pid) {
        close(hold[1]);
        _exit(read(hold[0], &byte, 1) < 0);
    }
    snprintf(procs, sizeof(procs), "%s/cgroup.procs", group);
    f = fopen(procs, "we");
    assert_non_null(f);
    assert_true(fprintf(f, "%ld\n", (long)pid) > 0);
    assert_int_equal(fclose(f), 0);
    xlv_scopes_put(*state, pid, 7, 12, 0);
    assert_int_equal(T.connections, 0);
    close(hold[1]);
    close(hold[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(rmdir(group), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SCOPES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
        SCOPES(each_backend_gets_a_scope),
        SCOPES(a_refusal_is_told_once),
        SCOPES(a_lost_connection_is_made_again),
        SCOPES(without_a_bus_all_goes_on),
        SCOPES(one_that_has_ended_is_no_trouble),
        SCOPES(one_that_has_a_cgroup_keeps_it),
    };

    return cmocka_run_group_tests_name("scopes", tests, NULL, NULL);
}
