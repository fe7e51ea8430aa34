/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asks xl-vtpmd over its control socket; where no daemon runs, answers from
 * the registry's files itself. The caller need not know which.
 */
#ifndef XLV_CLIENT_H
#define XLV_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "libxl-vtpm/settings.h"

struct json_object;
struct xlv_client;

enum xlv_client_mode {
    XLV_CLIENT_EITHER,  /* the daemon if it runs, else the files */
    XLV_CLIENT_DAEMON,  /* the daemon only: XLV_E_NOT_FOUND where none runs */
    XLV_CLIENT_OFFLINE, /* the files only; safe beside a daemon too */
};

/* settings are borrowed and must outlive the client. Connects. */
int xlv_client_new(struct xlv_client **out, const struct xlv_settings *settings,
                   enum xlv_client_mode mode, struct xlv_error *e);
void xlv_client_free(struct xlv_client *client);

/* How long an answer may take, all of it, whatever interrupts the wait: a minute; here another
 * time, for tests. */
void xlv_client_patience(struct xlv_client *client, int64_t milliseconds);

/* Whether a daemon answers. */
bool xlv_client_online(const struct xlv_client *client);

/*
 * One call: request (include/control.h) stays the caller's; *result is the
 * caller's, NULL for null. An error is what the other side gave, or:
 * XLV_E_GONE: the daemon went away in the middle, -ETIMEDOUT: no answer within
 * a minute; in both cases the call may have been carried out.
 */
int xlv_client_call(struct xlv_client *client, struct json_object *request,
                    struct json_object **result, struct xlv_error *e);

/*
 * The same in two halves, for a call whose answer may take long: ask, wait until the descriptor
 * can be read, answer. With a daemon only.
 */
int xlv_client_ask(struct xlv_client *client, struct json_object *request, struct xlv_error *e);
int xlv_client_fd(const struct xlv_client *client);
int xlv_client_answer(struct xlv_client *client, struct json_object **result,
                      struct xlv_error *e);

/*
 * Of an instance as "show" tells it (include/control.h): "domain 5 (device 0)", for people. False,
 * and an empty text: no domain is known to have it. instance: may be NULL.
 */
bool xlv_client_user(struct json_object *instance, char *text, size_t room);

#endif
