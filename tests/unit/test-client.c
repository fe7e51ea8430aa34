/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client of the control socket beside a daemon that is slow or hangs, while a timer interrupts
 * it, as that of xl-vtpm's progress does on a terminal. The daemon is the handler of that timer:
 * what it does it does at a tick.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "common/fd.h"
#include "include/control.h"
#include "libxl-vtpm/client.h"

#define TICK_MS 50
#define PATIENCE_MS 200
#define TOO_LATE 40 /* ticks, when the daemon of a client that waits on is gone */
#define ANSWER ".{\"ok\": true, \"result\": {\"it\": \"came\"}}"

static char directory[] = "/tmp/test-client.XXXXXX";
static struct xlv_settings settings;
static struct xlv_client *client;
static int listener = -1, server = -1;
static volatile sig_atomic_t ticks, closed, answer_at, pieces;

static void on_tick(int signal)
{
    int saved = errno;

    (void)signal;
    ticks++;
    if (pieces)
        (void)!send(server, "+ ", 2, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (ticks == answer_at)
        (void)!send(server, ANSWER, sizeof(ANSWER) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (ticks == TOO_LATE) {
        closed = 1;
        close(server);
    }
    errno = saved;
}

static void set_timer(suseconds_t us)
{
    const struct itimerval timer = { { 0, us }, { 0, us } };

    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static int setup(void **state)
{
    const struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    ticks = closed = answer_at = pieces = 0;
    settings.run_dir = directory;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/" XLV_CONTROL_SOCKET, directory);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1) ||
        xlv_client_new(&client, &settings, XLV_CLIENT_DAEMON, &e)) {
        fprintf(stderr, "# %s: %s\n", address.sun_path, e.text);
        return -1;
    }
    server = accept(listener, NULL, NULL);
    return server < 0 || sigaction(SIGALRM, &action, NULL) ? -1 : 0;
}

static int teardown(void **state)
{
    char path[sizeof(directory) + 32];

    (void)state;
    set_timer(0);
    xlv_client_free(client);
    snprintf(path, sizeof(path), "%s/" XLV_CONTROL_SOCKET, directory);
    unlink(path);
    if (!closed)
        close(server);
    xlv_close(&listener);
    return 0;
}

static int call(struct json_object **result, struct xlv_error *e)
{
    struct json_object *request = json_tokener_parse("{\"call\": \"status\"}");
    int rc;

    set_timer(TICK_MS * 1000);
    rc = xlv_client_call(client, request, result, e);
    json_object_put(request);
    return rc;
}

static void expect_timeout(void)
{
    struct json_object *result;
    struct xlv_error e = XLV_ERROR_INIT;

    xlv_client_patience(client, PATIENCE_MS);
    assert_int_equal(call(&result, &e), -ETIMEDOUT);
    assert_null(result);
    assert_non_null(strstr(e.text, "no answer within"));
    assert_int_equal(closed, 0);
}

static void a_daemon_that_hangs_is_waited_for_no_longer_than_that(void **state)
{
    (void)state;
    expect_timeout();
    /* what comes later would be the answer to another call */
    answer_at = ticks + 1;
    assert_int_not_equal(call(&(struct json_object *){ NULL }, NULL), 0);
}

static void the_pieces_of_an_answer_get_no_more_time(void **state)
{
    (void)state;
    pieces = 1;
    expect_timeout();
}

static void an_answer_that_takes_its_time_is_heard(void **state)
{
    struct json_object *result = NULL;
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    answer_at = 5;
    assert_int_equal(call(&result, &e), 0);
    assert_string_equal(json_object_get_string(json_object_object_get(result, "it")), "came");
    json_object_put(result);
}

/* monitor, and a handover */
static void who_waits_for_the_descriptor_may_wait_as_long_as_it_likes(void **state)
{
    struct json_object *request = json_tokener_parse("{\"call\": \"monitor\"}"), *result = NULL;
    struct pollfd p = { .fd = xlv_client_fd(client), .events = POLLIN };
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    xlv_client_patience(client, PATIENCE_MS);
    answer_at = 3 * PATIENCE_MS / TICK_MS;
    set_timer(TICK_MS * 1000);
    assert_int_equal(xlv_client_ask(client, request, &e), 0);
    json_object_put(request);
    while (poll(&p, 1, -1) < 0)
        assert_int_equal(errno, EINTR);
    assert_true(ticks >= answer_at);
    assert_int_equal(xlv_client_answer(client, &result, &e), 0);
    json_object_put(result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_daemon_that_hangs_is_waited_for_no_longer_than_that),
        TEST(the_pieces_of_an_answer_get_no_more_time),
        TEST(an_answer_that_takes_its_time_is_heard),
        TEST(who_waits_for_the_descriptor_may_wait_as_long_as_it_likes),
    };
    int failed;

    if (!mkdtemp(directory))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return failed;
}
