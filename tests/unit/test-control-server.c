/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server half of the control socket, with no daemon behind it: clients of monitor. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>
#include <systemd/sd-event.h>

#include "common/log.h"
#include "include/control.h"
#include "libxl-vtpm/control-server.h"
#include "libxl-vtpm/control.h"

/* --- the daemon ----------------------------------------------------------- */

static const struct xlv_calls no_calls;

const struct xlv_calls *xlv_daemon_calls(struct xlv_daemon *daemon)
{
    (void)daemon;
    return &no_calls;
}

int xlv_daemon_refresh(struct xlv_daemon *daemon, void (*done)(void *opaque), void *opaque)
{
    (void)daemon, (void)done, (void)opaque;
    return -1;
}

void xlv_daemon_refresh_cancel(struct xlv_daemon *daemon, void *opaque)
{
    (void)daemon, (void)opaque;
}

struct json_object *xlv_daemon_freeze(struct xlv_daemon *daemon, struct json_object *request,
                                      void (*done)(void *opaque, struct json_object *answer),
                                      void *opaque)
{
    (void)daemon, (void)request, (void)done, (void)opaque;
    return xlv_control_ok(NULL);
}

void xlv_daemon_thaw(struct xlv_daemon *daemon, void *opaque)
{
    (void)daemon, (void)opaque;
}

/* --- the server, and a client ---------------------------------------------- */

static char run_dir[] = "/tmp/xl-vtpm-test-XXXXXX";
static struct xlv_settings settings = { .control_group = "", .run_dir = run_dir };
static struct xlv_control_server *server;
static sd_event *loop;
static struct xlv_control_in in;

static void quiet(enum xlv_log_level level, const struct xlv_log_subject *subject, const char *text)
{
    (void)level, (void)subject, (void)text;
}

static int up(void **state)
{
    (void)state;
    memset(run_dir + strlen(run_dir) - 6, 'X', 6);
    assert_non_null(mkdtemp(run_dir));
    assert_true(sd_event_new(&loop) >= 0);
    assert_int_equal(xlv_control_server_new(&server, loop, NULL, &settings, NULL), 0);
    xlv_log_set_sink(quiet);
    xlv_control_in_init(&in, XLV_CONTROL_MESSAGE_MAX);
    return 0;
}

static int down(void **state)
{
    (void)state;
    xlv_log_set_sink(NULL);
    xlv_control_server_free(server);
    sd_event_unref(loop);
    xlv_control_in_deinit(&in);
    rmdir(run_dir);
    return 0;
}

/* Everything that there is to do now. */
static void turn(void)
{
    while (sd_event_run(loop, 0) > 0)
        ;
}

static int client(const char *request)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct xlv_control_out out = XLV_CONTROL_OUT_INIT;
    struct json_object *message = json_tokener_parse(request);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%s", run_dir,
             XLV_CONTROL_SOCKET);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(xlv_control_out_put(&out, message, NULL), 0);
    assert_int_equal(xlv_control_send(fd, &out), 0);
    json_object_put(message);
    turn();
    return fd;
}

/* The result of the next reply, which is the caller's; false: there is none now. */
static bool next(int fd, struct json_object **result)
{
    struct json_object *reply;
    int rc = xlv_control_receive(fd, &in, &reply, NULL);

    *result = NULL;
    if (rc == -EAGAIN)
        return false;
    assert_int_equal(rc, 0);
    assert_int_equal(xlv_control_result(reply, result, NULL), 0);
    json_object_get(*result);
    json_object_put(reply);
    return true;
}

static const char *text(struct json_object *line, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(line, key, &value);
    return value ? json_object_get_string(value) : NULL;
}

static void a_monitor_gets_each_line_once(void **unused)
{
    const struct xlv_uuid uuid = { .b = { 0xab } };
    const struct xlv_log_subject subject = { .domid = 7, .devid = 1, .uuid = &uuid,
                                             .instance = 3 };
    struct json_object *line;
    int fd;

    (void)unused;
    xlv_log(XLV_LOG_NOTICE, "before");
    fd = client("{\"call\": \"monitor\"}");
    assert_true(next(fd, &line));
    assert_null(line);
    assert_false(next(fd, &line));
    xlv_log_about(&subject, XLV_LOG_WARNING, "hot \"%d\"", 42);
    xlv_log(XLV_LOG_INFO, "nothing special \xff");
    xlv_log(XLV_LOG_DEBUG, "too little");
    turn();
    assert_true(next(fd, &line));
    assert_string_equal(text(line, "level"), "warning");
    assert_string_equal(text(line, "text"), "hot \"42\"");
    assert_string_equal(text(line, "domid"), "7");
    assert_string_equal(text(line, "devid"), "1");
    assert_string_equal(text(line, "uuid"), "ab000000-0000-0000-0000-000000000000");
    assert_string_equal(text(line, "instance"), "3");
    assert_non_null(text(line, "time"));
    json_object_put(line);
    assert_true(next(fd, &line));
    assert_string_equal(text(line, "text"), "nothing special ?");
    assert_null(text(line, "domid"));
    assert_null(text(line, "uuid"));
    json_object_put(line);
    assert_false(next(fd, &line));
    close(fd);
    turn();
    xlv_log(XLV_LOG_NOTICE, "nobody listens");
    turn();
}

/* It is told how many it lost, where they are missing; and others lose nothing by it. */
static void a_monitor_that_does_not_read_loses_lines(void **unused)
{
    enum { LINES = 5000 };
    int slow = client("{\"call\": \"monitor\"}"), quick = client("{\"call\": \"monitor\"}");
    unsigned expected = 0, heard = 0, losses = 0;
    struct json_object *line;

    (void)unused;
    assert_true(next(slow, &line) && next(quick, &line));
    for (unsigned i = 0; i < LINES; i++) {
        xlv_log(XLV_LOG_NOTICE, "%u", i);
        turn();
        assert_true(next(quick, &line));
        assert_int_equal(strtoul(text(line, "text"), NULL, 10), i);
        json_object_put(line);
    }
    for (;;) {
        if (!next(slow, &line)) {
            turn();
            if (!next(slow, &line))
                break;
        }
        if (text(line, "lost")) {
            expected += (unsigned)strtoul(text(line, "lost"), NULL, 10);
            losses++;
        } else {
            assert_int_equal(strtoul(text(line, "text"), NULL, 10), expected);
            expected++;
            heard++;
        }
        json_object_put(line);
    }
    assert_int_equal(expected, LINES);
    assert_in_range(losses, 1, LINES / 2);
    assert_true(heard > 256);
    close(slow);
    close(quick);
    turn();
}

/* More than it can say while it listens: it is let go, and nobody else. */
static void a_monitor_has_nothing_more_to_say(void **unused)
{
    int fd = client("{\"call\": \"monitor\"}"), other = client("{\"call\": \"monitor\"}");
    struct json_object *line, *reply;

    (void)unused;
    assert_true(next(fd, &line) && next(other, &line));
    assert_int_equal(send(fd, ".{}", 3, MSG_NOSIGNAL), 3);
    turn();
    assert_int_not_equal(xlv_control_receive(fd, &in, &reply, NULL), -EAGAIN);
    xlv_log(XLV_LOG_NOTICE, "still");
    turn();
    assert_true(next(other, &line));
    json_object_put(line);
    close(fd);
    close(other);
    turn();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_monitor_gets_each_line_once, up, down),
        cmocka_unit_test_setup_teardown(a_monitor_that_does_not_read_loses_lines, up, down),
        cmocka_unit_test_setup_teardown(a_monitor_has_nothing_more_to_say, up, down),
    };

    return cmocka_run_group_tests_name("control-server", tests, NULL, NULL);
}
