/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client half of the control socket: see client.h. */
#include "config.h"

#include "libxl-vtpm/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "common/fd.h"
#include "include/control.h"
#include "libxl-vtpm/calls.h"
#include "libxl-vtpm/control.h"

/* Making a TPM 1.2 with its keys takes seconds on a slow machine. */
#define TIMEOUT_S 60

struct xlv_client {
    const struct xlv_settings *settings;
    int socket;       /* does not block once it is connected; -1: offline */
    int64_t patience; /* milliseconds for one answer, or one request */
    struct xlv_control_in in;
    struct xlv_control_out out;
    struct xlv_registry *registry; /* offline; NULL until there is one */
};

/* 0 and a connected socket, XLV_E_NOT_FOUND: nobody listens. */
static int dial(const struct xlv_settings *settings, int *out, struct xlv_error *e)
{
    const struct timeval timeout = { .tv_sec = TIMEOUT_S };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd XLV_CLOSE = -1;

    if (strlen(settings->run_dir) + sizeof("/" XLV_CONTROL_SOCKET) > sizeof(address.sun_path))
        return xlv_fail(e, XLV_E_INVALID, "run-dir %s is too long for a socket", settings->run_dir);
    strcpy(stpcpy(address.sun_path, settings->run_dir), "/" XLV_CONTROL_SOCKET);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return xlv_fail(e, -errno, "no socket can be made: %s", strerror(errno));
    /* of connect() */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
        return xlv_fail(e, -errno, "no time limit can be set on a socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        /* ECONNREFUSED: the socket of a daemon that is gone */
        if (errno == ENOENT || errno == ECONNREFUSED)
            return xlv_fail(e, XLV_E_NOT_FOUND,
                            "xl-vtpmd does not run (nobody listens at %s); start it with "
                            "systemctl start xl-vtpmd",
                            address.sun_path);
        return xlv_fail(e, -errno, "xl-vtpmd cannot be reached at %s: %s%s", address.sun_path,
                        strerror(errno), errno == EACCES ? "; are you root?" : "");
    }
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return xlv_fail(e, -errno, "a socket cannot be set up: %s", strerror(errno));
    *out = fd;
    fd = -1;
    return 0;
}

int xlv_client_new(struct xlv_client **out, const struct xlv_settings *settings,
                   enum xlv_client_mode mode, struct xlv_error *e)
{
    struct xlv_client *client = calloc(1, sizeof(*client));
    int rc = 0;

    *out = NULL;
    if (!client)
        return xlv_fail(e, -ENOMEM, "no memory");
    client->settings = settings;
    client->socket = -1;
    client->patience = TIMEOUT_S * 1000;
    xlv_control_in_init(&client->in, XLV_CONTROL_MESSAGE_MAX);
    if (mode != XLV_CLIENT_OFFLINE) {
        struct xlv_error why = XLV_ERROR_INIT;

        rc = dial(settings, &client->socket, &why);
        if (rc == XLV_E_NOT_FOUND && mode == XLV_CLIENT_EITHER)
            rc = 0;
        if (rc)
            xlv_fail(e, rc, "%s", why.text);
    }
    if (rc)
        xlv_client_free(client);
    else
        *out = client;
    return rc;
}

void xlv_client_free(struct xlv_client *client)
{
    if (!client)
        return;
    xlv_close(&client->socket);
    xlv_control_in_deinit(&client->in);
    xlv_control_out_deinit(&client->out);
    xlv_registry_close(client->registry);
    free(client);
}

void xlv_client_patience(struct xlv_client *client, int64_t milliseconds)
{
    client->patience = milliseconds;
}

bool xlv_client_online(const struct xlv_client *client)
{
    return client->socket >= 0;
}

/* rc of sending or receiving, in words. */
static int failed(struct xlv_client *client, int rc, struct xlv_error *e)
{
    if (rc == -EAGAIN)
        rc = xlv_fail(e, -ETIMEDOUT,
                      "xl-vtpmd gave no answer within %" PRId64 " s; it may still carry this out",
                      client->patience / 1000);
    else if (rc == XLV_E_GONE || rc == -EPIPE || rc == -ECONNRESET)
        rc = xlv_fail(e, XLV_E_GONE,
                      "xl-vtpmd closed the connection without an answer; its log says why "
                      "(journalctl -u xl-vtpmd)");
    else
        xlv_fail(e, rc, "talking to xl-vtpmd failed: %s", xlv_strerror(rc));
    /* an answer that comes later would be taken for that of the next call */
    shutdown(client->socket, SHUT_RDWR);
    return rc;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until the socket is ready for this; false: not before `end`, however often a signal came. */
static bool wait_for(const struct xlv_client *client, short events, int64_t end)
{
    struct pollfd p = { .fd = client->socket, .events = events };
    int64_t left;

    do {
        left = end - now_ms();
        if (left <= 0)
            return false;
    } while (poll(&p, 1, left < INT_MAX ? (int)left : INT_MAX) < 0 && errno == EINTR);
    return true;
}

int xlv_client_ask(struct xlv_client *client, struct json_object *request, struct xlv_error *e)
{
    int64_t end = now_ms() + client->patience;
    int rc = xlv_control_out_put(&client->out, request, e);

    if (rc)
        return rc;
    do
        rc = xlv_control_send(client->socket, &client->out);
    while (rc == -EAGAIN && wait_for(client, POLLOUT, end));
    return rc ? failed(client, rc, e) : 0;
}

static int hear(struct xlv_client *client, struct json_object **reply, struct xlv_error *e)
{
    int64_t end = now_ms() + client->patience;
    int rc;

    do
        rc = xlv_control_receive(client->socket, &client->in, reply, e);
    while (rc == -EAGAIN && wait_for(client, POLLIN, end));
    return rc ? failed(client, rc, e) : 0;
}

/* Takes over reply. */
static int take_result(struct json_object *reply, struct json_object **result, struct xlv_error *e)
{
    struct json_object *borrowed;
    int rc = xlv_control_result(reply, &borrowed, e);

    *result = rc ? NULL : json_object_get(borrowed);
    json_object_put(reply);
    return rc;
}

int xlv_client_answer(struct xlv_client *client, struct json_object **result, struct xlv_error *e)
{
    struct json_object *reply = NULL;
    int rc = hear(client, &reply, e);

    *result = NULL;
    return rc ? rc : take_result(reply, result, e);
}

int xlv_client_fd(const struct xlv_client *client)
{
    return client->socket;
}

static int answer_here(struct xlv_client *client, struct json_object *request,
                       struct json_object **reply, struct xlv_error *e)
{
    struct xlv_calls calls = { .settings = client->settings };
    struct json_object *call;
    int rc;

    if (!client->registry) {
        bool create = json_object_object_get_ex(request, "call", &call) &&
                      json_object_is_type(call, json_type_string) &&
                      !strcmp(json_object_get_string(call), "create");
        struct xlv_error why = XLV_ERROR_INIT;

        rc = xlv_registry_open(&client->registry, client->settings->state_dir, create, &why);
        if (rc && (create || rc != XLV_E_NOT_FOUND))
            return xlv_fail(e, rc, "%s", why.text);
    }
    calls.registry = client->registry;
    *reply = xlv_calls_answer(&calls, request);
    return *reply ? 0 : xlv_fail(e, -ENOMEM, "no memory for an answer");
}

int xlv_client_call(struct xlv_client *client, struct json_object *request,
                    struct json_object **result, struct xlv_error *e)
{
    struct json_object *reply = NULL;
    int rc;

    *result = NULL;
    if (xlv_client_online(client)) {
        rc = xlv_client_ask(client, request, e);
        if (!rc)
            rc = hear(client, &reply, e);
    } else {
        rc = answer_here(client, request, &reply, e);
    }
    return rc ? rc : take_result(reply, result, e);
}

bool xlv_client_user(struct json_object *instance, char *text, size_t room)
{
    struct json_object *device = NULL, *domid = NULL, *devid = NULL;

    text[0] = '\0';
    if (!instance || !json_object_object_get_ex(instance, "device", &device) || !device)
        return false;
    json_object_object_get_ex(device, "domid", &domid);
    json_object_object_get_ex(device, "devid", &devid);
    snprintf(text, room, "domain %s (device %s)", json_object_get_string(domid),
             json_object_get_string(devid));
    return true;
}
