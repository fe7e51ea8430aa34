/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages of the control socket, for both sides: the pieces on the wire and
 * the shape of replies. What may be said is in include/control.h.
 *
 * Works on blocking and non-blocking sockets alike; the non-blocking user
 * comes again when the socket is ready.
 */
#ifndef XLV_CONTROL_WIRE_H
#define XLV_CONTROL_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

struct json_object;

/* Collects the pieces of one incoming message. */
struct xlv_control_in {
    size_t max; /* largest message accepted */
    char *text;
    size_t length, room;
};

void xlv_control_in_init(struct xlv_control_in *in, size_t max);
void xlv_control_in_deinit(struct xlv_control_in *in);

/*
 * Receives until a message is whole. 0: *message is the caller's
 * (json_object_put). -EAGAIN: non-blocking, and more is to come. XLV_E_GONE:
 * the peer closed. XLV_E_INVALID: not the protocol, or no JSON object; close
 * the connection. *message is NULL unless 0.
 */
int xlv_control_receive(int socket, struct xlv_control_in *in, struct json_object **message,
                        struct xlv_error *e);

/* One outgoing message on its way. */
struct xlv_control_out {
    char *text;
    size_t length, sent;
};

#define XLV_CONTROL_OUT_INIT { .text = NULL }
void xlv_control_out_deinit(struct xlv_control_out *out);

/*
 * Takes over what is to be sent (message stays the caller's); the previous
 * message must be sent whole. XLV_E_INVALID: longer than a message may be.
 */
int xlv_control_out_put(struct xlv_control_out *out, struct json_object *message,
                        struct xlv_error *e);

/* Sends on. 0: all is sent. -EAGAIN: come again when writable. -EPIPE: gone. */
int xlv_control_send(int socket, struct xlv_control_out *out);

/* Whether something waits to be sent. */
static inline int xlv_control_out_pending(const struct xlv_control_out *out)
{
    return out->sent < out->length;
}

/*
 * Replies. Both return a new object (NULL: no memory). ok takes over result,
 * which may be NULL (JSON null). error: code as in common/error.h.
 */
struct json_object *xlv_control_ok(struct json_object *result);
struct json_object *xlv_control_error(int code, const struct xlv_error *e);

/* Text from outside as a JSON string: bytes that are no UTF-8 become '?'. */
struct json_object *xlv_json_text(const char *text);

/* Sets a member; NULL is JSON null. Takes over value in any case: json-c does on success alone. */
bool xlv_json_set(struct json_object *object, const char *key, struct json_object *value);
/* The same for a value that is NULL only without memory; false then, too. */
bool xlv_json_add(struct json_object *object, const char *key, struct json_object *value);

/* The elements of an array; 0 of anything else, NULL as well, where json-c would abort. */
size_t xlv_json_count(struct json_object *array);

/*
 * Takes a reply apart: 0 and *result (borrowed from reply, NULL for null), or
 * the code and sentence that the other side gave; XLV_E_INVALID where it is no
 * reply at all.
 */
int xlv_control_result(struct json_object *reply, struct json_object **result,
                       struct xlv_error *e);

#endif
