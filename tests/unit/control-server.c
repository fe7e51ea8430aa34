/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A daemon's control socket with nothing behind it but a registry, for tests of
 * clients: control-server CONFIG [hang-up|garbage|foreign]
 *
 * Prints "ready" when it listens and ends when its standard input does, so it
 * never outlives the test that started it. Instance 1 appears to serve domain 5.
 * hang-up: closes each connection when a request has come. garbage: answers
 * with something that is no piece. foreign: answers with JSON that is no reply.
 */
#include "config.h"

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

#include "common/fd.h"
#include "include/control.h"
#include "libxl-vtpm/calls.h"
#include "libxl-vtpm/control.h"

static int decorate(const struct xlv_instance *instance, struct json_object *json, void *opaque,
                    struct xlv_error *e)
{
    (void)opaque;
    (void)e;
    if (instance->number == 1) {
        json_object_object_add(json, "device",
                               json_tokener_parse("{\"domid\": 5, \"devid\": 0, \"state\": "
                                                  "\"connected\", \"pid\": 77, \"commands\": 12}"));
        json_object_object_add(json, "last_refusal",
                               json_tokener_parse("{\"time\": \"2026-01-02T03:04:05Z\", \"domid\": "
                                                  "6, \"devid\": 0, \"reason\": \"in use\"}"));
    }
    return 0;
}

static int status(struct json_object **result, void *opaque, struct xlv_error *e)
{
    (void)opaque;
    (void)e;
    *result = json_tokener_parse("{\"version\": \"0\", \"pid\": 77, \"devices\": 1, \"instances\": "
                                 "1, \"refusals\": [{\"time\": \"2026-01-02T03:04:05Z\", "
                                 "\"domid\": 6, \"devid\": 0, \"reason\": \"in use\"}]}");
    return 0;
}

static int serve(int fd, const struct xlv_calls *calls, const char *mode)
{
    struct xlv_control_out out = XLV_CONTROL_OUT_INIT;
    struct json_object *request, *reply;
    struct xlv_control_in in;
    int rc;

    xlv_control_in_init(&in, XLV_CONTROL_REQUEST_MAX);
    while ((rc = xlv_control_receive(fd, &in, &request, NULL)) == 0) {
        if (!strcmp(mode, "hang-up")) {
            json_object_put(request);
            break;
        }
        if (!strcmp(mode, "garbage")) {
            json_object_put(request);
            xlv_send_message(fd, "?{}", 3, NULL, 0);
            continue;
        }
        reply = strcmp(mode, "foreign") ? xlv_calls_answer(calls, request)
                                        : json_tokener_parse("{\"answer\": 42}");
        json_object_put(request);
        rc = xlv_control_out_put(&out, reply, NULL);
        json_object_put(reply);
        if (rc || xlv_control_send(fd, &out))
            break;
    }
    xlv_control_in_deinit(&in);
    xlv_control_out_deinit(&out);
    return rc;
}

int main(int argc, char **argv)
{
    struct xlv_calls calls = { .decorate = decorate, .status = status };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct xlv_settings settings;
    struct xlv_error e = XLV_ERROR_INIT;
    int listener XLV_CLOSE = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (argc < 2 || xlv_settings_load(&settings, argv[1], &e) ||
        xlv_registry_open(&calls.registry, settings.state_dir, true, &e)) {
        fprintf(stderr, "control-server: %s\n", e.text);
        return 1;
    }
    calls.settings = &settings;
    mkdir(settings.run_dir, 0700);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/" XLV_CONTROL_SOCKET,
             settings.run_dir);
    unlink(address.sun_path);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 8) < 0) {
        perror("control-server");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
                               { .fd = listener, .events = POLLIN } };

        if (poll(p, 2, -1) < 0 || p[0].revents)
            break;
        if (p[1].revents) {
            int fd XLV_CLOSE = accept(listener, NULL, NULL);

            serve(fd, &calls, argc > 2 ? argv[2] : "");
        }
    }
    unlink(address.sun_path);
    xlv_registry_close(calls.registry);
    xlv_settings_deinit(&settings);
    return 0;
}
