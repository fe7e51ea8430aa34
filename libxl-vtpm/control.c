/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of the control socket: see control.h. */
#include "libxl-vtpm/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "common/fd.h"
#include "include/control.h"
#include "include/limits.h"
#include "libxl-vtpm/utf8.h"

#define PIECE_MORE '+'
#define PIECE_LAST '.'
#define PIECE_MAX (XLV_CONTROL_PACKET_MAX - 1)
/* our objects are three levels deep */
#define DEPTH_MAX 8

static const struct {
    int code;
    const char *word;
} codes[] = {
    { XLV_E_NOT_FOUND, "not found" },     { XLV_E_EXISTS, "exists" },
    { XLV_E_INVALID, "invalid" },         { XLV_E_IN_USE, "in use" },
    { XLV_E_REFUSED, "refused" },         { XLV_E_CORRUPT, "damaged" },
    { XLV_E_WRONG_KEY, "wrong key" },     { XLV_E_WRONG_OWNER, "wrong owner" },
    { XLV_E_VERSION, "too new" },
};
static const char failed[] = "failed";

void xlv_control_in_init(struct xlv_control_in *in, size_t max)
{
    *in = (struct xlv_control_in){ .max = max };
}

void xlv_control_in_deinit(struct xlv_control_in *in)
{
    free(in->text);
    in->text = NULL;
    in->length = in->room = 0;
}

static int append(struct xlv_control_in *in, const char *data, size_t length, struct xlv_error *e)
{
    if (length > in->max - in->length)
        return xlv_fail(e, XLV_E_INVALID, "a message of more than %zu bytes came", in->max);
    if (in->room - in->length < length) {
        size_t room = in->room ? in->room : 4096;
        char *text;

        while (room - in->length < length)
            room *= 2;
        if (room > in->max)
            room = in->max;
        text = realloc(in->text, room);
        if (!text)
            return xlv_fail(e, -ENOMEM, "no memory for a message of %zu bytes", room);
        in->text = text;
        in->room = room;
    }
    memcpy(in->text + in->length, data, length);
    in->length += length;
    return 0;
}

static int parse(const char *text, size_t length, struct json_object **message,
                 struct xlv_error *e)
{
    struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
    struct json_object *object;
    int rc = 0;

    if (!tokener)
        return xlv_fail(e, -ENOMEM, "no memory to read a message");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    object = json_tokener_parse_ex(tokener, text, (int)length);
    if (!object && json_tokener_get_error(tokener) == json_tokener_continue)
        rc = xlv_fail(e, XLV_E_INVALID, "a message ended in the middle of its JSON text");
    else if (!object)
        rc = xlv_fail(e, XLV_E_INVALID, "a message is not JSON: %s",
                      json_tokener_error_desc(json_tokener_get_error(tokener)));
    else if (json_tokener_get_parse_end(tokener) != length)
        rc = xlv_fail(e, XLV_E_INVALID, "a message has text behind its JSON object");
    else if (!json_object_is_type(object, json_type_object))
        rc = xlv_fail(e, XLV_E_INVALID, "a message is no JSON object");
    json_tokener_free(tokener);
    if (rc) {
        json_object_put(object);
        return rc;
    }
    *message = object;
    return 0;
}

int xlv_control_receive(int socket, struct xlv_control_in *in, struct json_object **message,
                        struct xlv_error *e)
{
    char packet[XLV_CONTROL_PACKET_MAX];
    int rc;

    *message = NULL;
    for (;;) {
        size_t length = sizeof(packet);

        rc = xlv_receive_message(socket, packet, &length, NULL, NULL);
        if (rc == XLV_E_INVALID)
            return xlv_fail(e, rc, "a packet of the control socket is too long");
        if (rc)
            return rc;
        if (length < 2 || (packet[0] != PIECE_MORE && packet[0] != PIECE_LAST))
            return xlv_fail(e, XLV_E_INVALID, "a packet of the control socket has no known start");
        rc = append(in, packet + 1, length - 1, e);
        if (rc)
            return rc;
        if (packet[0] == PIECE_LAST)
            break;
    }
    rc = parse(in->text, in->length, message, e);
    /* large messages are rare: keep no memory for the next one */
    xlv_control_in_deinit(in);
    return rc;
}

void xlv_control_out_deinit(struct xlv_control_out *out)
{
    free(out->text);
    *out = (struct xlv_control_out)XLV_CONTROL_OUT_INIT;
}

int xlv_control_out_put(struct xlv_control_out *out, struct json_object *message,
                        struct xlv_error *e)
{
    const char *text;
    size_t length;

    if (xlv_control_out_pending(out))
        return xlv_fail(e, -EBUSY, "the previous message is still being sent");
    text = json_object_to_json_string_length(message, JSON_C_TO_STRING_PLAIN, &length);
    if (!text)
        return xlv_fail(e, -ENOMEM, "no memory for a message");
    if (length > XLV_CONTROL_MESSAGE_MAX)
        return xlv_fail(e, XLV_E_INVALID, "the answer has %zu bytes, more than fits a message (%u)",
                        length, XLV_CONTROL_MESSAGE_MAX);
    xlv_control_out_deinit(out);
    out->text = malloc(length);
    if (!out->text)
        return xlv_fail(e, -ENOMEM, "no memory for a message of %zu bytes", length);
    memcpy(out->text, text, length);
    out->length = length;
    return 0;
}

int xlv_control_send(int socket, struct xlv_control_out *out)
{
    while (xlv_control_out_pending(out)) {
        char packet[XLV_CONTROL_PACKET_MAX];
        size_t left = out->length - out->sent, n = left < PIECE_MAX ? left : PIECE_MAX;
        int rc;

        packet[0] = n == left ? PIECE_LAST : PIECE_MORE;
        memcpy(packet + 1, out->text + out->sent, n);
        rc = xlv_send_message(socket, packet, n + 1, NULL, 0);
        if (rc)
            return rc;
        out->sent += n;
    }
    xlv_control_out_deinit(out);
    return 0;
}

bool xlv_json_set(struct json_object *object, const char *key, struct json_object *value)
{
    if (json_object_object_add(object, key, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

bool xlv_json_add(struct json_object *object, const char *key, struct json_object *value)
{
    return value && xlv_json_set(object, key, value);
}

size_t xlv_json_count(struct json_object *array)
{
    return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

struct json_object *xlv_json_text(const char *text)
{
    char *copy XLV_FREE = strdup(text), *end;

    if (!copy)
        return NULL;
    end = copy + strlen(copy);
    for (char *p = copy; p < end;) {
        size_t n = xlv_utf8_character(p, end);

        if (!n)
            *p = '?';
        p += n ? n : 1;
    }
    return json_object_new_string(copy);
}

struct json_object *xlv_control_ok(struct json_object *result)
{
    struct json_object *reply = json_object_new_object();

    if (!reply || !xlv_json_add(reply, "ok", json_object_new_boolean(1)) ||
        json_object_object_add(reply, "result", result) != 0) {
        json_object_put(result);
        json_object_put(reply);
        return NULL;
    }
    return reply;
}

struct json_object *xlv_control_error(int code, const struct xlv_error *e)
{
    struct json_object *reply = json_object_new_object();
    const char *word = failed;

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            word = codes[i].word;
    if (!reply || !xlv_json_add(reply, "ok", json_object_new_boolean(0)) ||
        !xlv_json_add(reply, "code", json_object_new_string(word)) ||
        (code < 0 && !xlv_json_add(reply, "errno", json_object_new_int(-code))) ||
        !xlv_json_add(reply, "error",
             xlv_json_text(e && e->text[0] ? e->text : xlv_strerror(code)))) {
        json_object_put(reply);
        return NULL;
    }
    return reply;
}

int xlv_control_result(struct json_object *reply, struct json_object **result, struct xlv_error *e)
{
    struct json_object *ok, *code, *text, *number;
    int outcome = -EPROTO;
    const char *said;

    *result = NULL;
    if (!json_object_object_get_ex(reply, "ok", &ok) || !json_object_is_type(ok, json_type_boolean))
        return xlv_fail(e, XLV_E_INVALID, "the daemon's answer is not one we understand");
    if (json_object_get_boolean(ok)) {
        json_object_object_get_ex(reply, "result", result);
        return 0;
    }
    if (json_object_object_get_ex(reply, "code", &code) &&
        json_object_is_type(code, json_type_string))
        for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
            if (!strcmp(codes[i].word, json_object_get_string(code)))
                outcome = codes[i].code;
    if (outcome < 0 && json_object_object_get_ex(reply, "errno", &number) &&
        json_object_get_int(number) > 0 && json_object_get_int(number) < 4096)
        outcome = -json_object_get_int(number);
    json_object_object_get_ex(reply, "error", &text);
    said = json_object_is_type(text, json_type_string) ? json_object_get_string(text) : "";
    return xlv_fail(e, outcome, "%s", said[0] ? said : xlv_strerror(outcome));
}
