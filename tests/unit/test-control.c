/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control messages: pieces on the wire, replies, and the calls on a registry. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "common/fd.h"
#include "libxl-vtpm/calls.h"
#include "libxl-vtpm/control.h"

static int pair[2];

static int setup(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
}

static int teardown(void **state)
{
    (void)state;
    xlv_close(&pair[0]);
    xlv_close(&pair[1]);
    return 0;
}

static void a_message_of_megabytes_goes_through_a_full_socket(void **state)
{
    enum { ENTRIES = 60000 };
    struct json_object *message = json_object_new_object(), *array = json_object_new_array(), *got;
    struct xlv_control_out out = XLV_CONTROL_OUT_INIT;
    struct xlv_control_in in;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc, waits = 0;

    (void)state;
    for (int i = 0; i < ENTRIES; i++)
        json_object_array_add(array, json_object_new_string("an entry of some length, to fill it "
                                                            "up, and a bit more of the same"));
    json_object_object_add(message, "all", array);
    xlv_control_in_init(&in, XLV_CONTROL_MESSAGE_MAX);
    assert_int_equal(xlv_control_out_put(&out, message, &e), 0);
    assert_true(out.length > 4000000);
    assert_int_equal(xlv_control_out_put(&out, message, &e), -EBUSY);
    /* neither side ever waits: each comes again when the other has made room */
    do {
        rc = xlv_control_send(pair[0], &out);
        assert_true(rc == 0 || rc == -EAGAIN);
        waits += rc == -EAGAIN;
        rc = xlv_control_receive(pair[1], &in, &got, &e);
        assert_true(rc == 0 || rc == -EAGAIN);
    } while (rc);
    assert_true(waits > 3);
    assert_false(xlv_control_out_pending(&out));
    assert_string_equal(json_object_to_json_string(got), json_object_to_json_string(message));
    json_object_put(got);
    json_object_put(message);

    /* the next message starts clean */
    message = xlv_control_ok(NULL);
    assert_int_equal(xlv_control_out_put(&out, message, NULL), 0);
    assert_int_equal(xlv_control_send(pair[0], &out), 0);
    assert_int_equal(xlv_control_receive(pair[1], &in, &got, &e), 0);
    json_object_put(got);
    json_object_put(message);
    xlv_control_in_deinit(&in);
    xlv_control_out_deinit(&out);
}

static void what_is_not_the_protocol_is_refused(void **state)
{
    static const struct {
        const char *packets[3];
        const char *words;
    } bad[] = {
        { { "{}" }, "no known start" },
        { { "." }, "no known start" },
        { { "+{", "?}" }, "no known start" },
        { { ".{" }, "ended in the middle" },
        { { "+{\"a\"", ".:" }, "ended in the middle" },
        { { ".{} x" }, "" },
        { { ".{}{}" }, "" },
        { { ".[]" }, "no JSON object" },
        { { ".7 " }, "" },
        { { ".null" }, "" },
        { { ".{a: 1}" }, "not JSON" },
        { { ".{\"a\": 1,}" }, "not JSON" },
        { { ".[[[[[[[[[[1]]]]]]]]]]" }, "not JSON" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct xlv_error e = XLV_ERROR_INIT;
        struct json_object *got;
        struct xlv_control_in in;
        int rc;

        xlv_control_in_init(&in, XLV_CONTROL_REQUEST_MAX);
        for (int k = 0; k < 3 && bad[i].packets[k]; k++)
            assert_int_equal(xlv_send_message(pair[0], bad[i].packets[k],
                                              strlen(bad[i].packets[k]), NULL, 0),
                             0);
        rc = xlv_control_receive(pair[1], &in, &got, &e);
        if (rc != XLV_E_INVALID || !strstr(e.text, bad[i].words))
            fail_msg("%s: %d, \"%s\"", bad[i].packets[0], rc, e.text);
        assert_null(got);
        xlv_control_in_deinit(&in);
        /* the rest of the bad peer's packets */
        for (char rest[16]; recv(pair[1], rest, sizeof(rest), 0) > 0;)
            ;
    }
}

static void a_request_has_a_maximum(void **state)
{
    char packet[XLV_CONTROL_PACKET_MAX + 1];
    struct xlv_error e = XLV_ERROR_INIT;
    struct json_object *got;
    struct xlv_control_in in;

    (void)state;
    memset(packet, ' ', sizeof(packet));
    packet[0] = '+';
    xlv_control_in_init(&in, XLV_CONTROL_REQUEST_MAX);
    for (int i = 0; i < 3; i++)
        assert_int_equal(xlv_send_message(pair[0], packet, XLV_CONTROL_PACKET_MAX, NULL, 0), 0);
    assert_int_equal(xlv_control_receive(pair[1], &in, &got, &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, "more than"));
    assert_true(in.room <= XLV_CONTROL_REQUEST_MAX);
    xlv_control_in_deinit(&in);

    xlv_error_clear(&e);
    assert_int_equal(xlv_send_message(pair[0], packet, sizeof(packet), NULL, 0), 0);
    assert_int_equal(xlv_control_receive(pair[1], &in, &got, &e), XLV_E_INVALID);
    assert_non_null(strstr(e.text, "too long"));
}

static void a_peer_that_goes_is_noticed(void **state)
{
    struct xlv_control_out out = XLV_CONTROL_OUT_INIT;
    struct json_object *got, *message = xlv_control_ok(NULL);
    struct xlv_control_in in;

    (void)state;
    xlv_control_in_init(&in, XLV_CONTROL_REQUEST_MAX);
    assert_int_equal(xlv_control_receive(pair[1], &in, &got, NULL), -EAGAIN);
    assert_int_equal(xlv_send_message(pair[0], "+{", 2, NULL, 0), 0);
    xlv_close(&pair[0]);
    assert_int_equal(xlv_control_receive(pair[1], &in, &got, NULL), XLV_E_GONE);
    assert_int_equal(xlv_control_out_put(&out, message, NULL), 0);
    assert_int_equal(xlv_control_send(pair[1], &out), -EPIPE);
    json_object_put(message);
    xlv_control_out_deinit(&out);
    xlv_control_in_deinit(&in);
}

static void an_error_keeps_its_code_and_sentence(void **state)
{
    static const int codes[] = {
        XLV_E_NOT_FOUND, XLV_E_EXISTS,    XLV_E_INVALID,     XLV_E_IN_USE,  XLV_E_REFUSED,
        XLV_E_CORRUPT,   XLV_E_WRONG_KEY, XLV_E_WRONG_OWNER, XLV_E_VERSION, -ENOSPC, -EIO,
    };
    static const char *const odd[] = {
        "{\"ok\": false, \"code\": \"odd\", \"error\": 7}", "{\"ok\": false, \"code\": null}",
        "{\"ok\": false, \"code\": {}}", "{\"ok\": false, \"error\": \"\"}",
        "{\"ok\": false, \"error\": null, \"errno\": null}",
    };
    struct json_object *reply, *result;
    struct xlv_error e;

    (void)state;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        struct xlv_error why = { .text = "why it is so" };

        reply = xlv_control_error(codes[i], &why);
        xlv_error_clear(&e);
        assert_int_equal(xlv_control_result(reply, &result, &e), codes[i]);
        assert_string_equal(e.text, "why it is so");
        json_object_put(reply);
    }
    /* without a sentence, and one that is no UTF-8 */
    reply = xlv_control_error(XLV_E_IN_USE, NULL);
    xlv_error_clear(&e);
    assert_int_equal(xlv_control_result(reply, &result, &e), XLV_E_IN_USE);
    assert_string_equal(e.text, "in use");
    json_object_put(reply);
    reply = xlv_control_error(-EIO, &(struct xlv_error){ .text = "domain b\xfcro" });
    xlv_error_clear(&e);
    assert_int_equal(xlv_control_result(reply, &result, &e), -EIO);
    assert_string_equal(e.text, "domain b?ro");
    json_object_put(reply);
    /* codes of a later version, ones that are no words, no sentence, and no reply at all */
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        reply = json_tokener_parse(odd[i]);
        xlv_error_clear(&e);
        assert_int_equal(xlv_control_result(reply, &result, &e), -EPROTO);
        assert_string_equal(e.text, strerror(EPROTO));
        json_object_put(reply);
    }
    reply = json_tokener_parse("{\"code\": \"odd\"}");
    assert_int_equal(xlv_control_result(reply, &result, NULL), XLV_E_INVALID);
    json_object_put(reply);
}

static void text_that_is_no_utf8_is_made_readable(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "plain", "plain" },
        { "\xc3\xbc \xe2\x82\xac \xf0\x9f\x94\x91", "\xc3\xbc \xe2\x82\xac \xf0\x9f\x94\x91" },
        { "\xff", "?" },
        { "a\xc3", "a?" },
        { "\xc0\x80", "??" },
        { "\xed\xa0\x80", "???" },
        { "\xf4\x90\x80\x80", "????" },
        { "\xe0\x80\x80x", "???x" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json_object *json = xlv_json_text(cases[i].in);

        assert_string_equal(json_object_get_string(json), cases[i].out);
        json_object_put(json);
    }
}

/*
 * Calls on a registry
 */

static char dir[64];
static struct xlv_settings settings;
static struct xlv_calls calls;

static int setup_calls(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/xlv-control-XXXXXX");
    if (!mkdtemp(dir) || xlv_settings_init(&settings))
        return -1;
    calls = (struct xlv_calls){ .settings = &settings };
    return xlv_registry_open(&calls.registry, dir, true, NULL);
}

static int teardown_calls(void **state)
{
    char command[128];

    (void)state;
    xlv_registry_close(calls.registry);
    xlv_settings_deinit(&settings);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

/* The answer to a request, in plain text; static. */
static const char *answer(const char *request)
{
    static char text[4096];
    struct json_object *json = json_tokener_parse(request), *reply;

    assert_non_null(json);
    reply = xlv_calls_answer(&calls, json);
    snprintf(text, sizeof(text), "%s",
             json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN));
    json_object_put(reply);
    json_object_put(json);
    return text;
}

#define EXPECT(request, words) \
    do { \
        const char *text_ = answer(request); \
        if (!strstr(text_, words)) \
            fail_msg("%s gave %s", request, text_); \
    } while (0)

#define U "dcdb124b-9fed-4040-b149-dd2dfd8d094c"

static void instances_are_made_shown_bound_and_listed(void **state)
{
    (void)state;
    EXPECT("{\"call\": \"list\"}", "{\"ok\":true,\"result\":[]}");
    EXPECT("{\"call\": \"create\", \"uuid\": \"" U "\", \"tpm_version\": \"1.2\","
           "\"label\": \"x\"}",
           "\"number\":1,\"uuid\":\"" U "\",\"tpm_version\":\"1.2\",\"life\":\"new\","
           "\"created\":\"20");
    EXPECT("{\"call\": \"create\", \"uuid\": \"" U "\"}", "\"code\":\"exists\"");
    EXPECT("{\"call\": \"create\", \"uuid\": null}", "\"number\":2");
    EXPECT("{\"call\": \"bind\", \"domain\": \"web\", \"devid\": 1, \"number\": 1}",
           "\"bindings\":[{\"domain\":\"web\",\"devid\":1,\"origin\":\"administrator\"}]");
    EXPECT("{\"call\": \"show\", \"number\": 1}", "\"domain\":\"web\"");
    EXPECT("{\"call\": \"show\", \"uuid\": \"" U "\", \"extra\": {}}", "\"label\":\"x\"");
    EXPECT("{\"call\": \"list\"}", "\"number\":2");
    EXPECT("{\"call\": \"unbind\", \"domain\": \"web\", \"devid\": 1}",
           "{\"ok\":true,\"result\":null}");
    EXPECT("{\"call\": \"unbind\", \"domain\": \"web\", \"devid\": 1}", "\"code\":\"not found\"");
    EXPECT("{\"call\": \"show\", \"number\": 3}", "there is no instance 3");
}

static void check_names_the_rule(void **state)
{
    (void)state;
    EXPECT("{\"call\": \"check\", \"uuid\": \"" U "\", \"domain\": \"web\"}",
           "{\"rule\":\"assigned\",\"instance\":{\"tpm_version\":\"2.0\"}}");
    EXPECT("{\"call\": \"create\", \"uuid\": \"" U "\"}", "\"number\":1");
    EXPECT("{\"call\": \"check\", \"uuid\": \"" U "\"}",
           "{\"rule\":\"uuid\",\"instance\":{\"number\":1");
    EXPECT("{\"call\": \"check\", \"domain\": \"web\"}", "\"assigned\"");
    EXPECT("{\"call\": \"bind\", \"domain\": \"web\", \"uuid\": \"" U "\"}", "true");
    EXPECT("{\"call\": \"check\", \"domain\": \"web\"}", "\"rule\":\"binding\"");
    settings.unknown_uuid = XLV_UNKNOWN_UUID_REFUSE;
    EXPECT("{\"call\": \"check\", \"domain\": \"db\"}",
           "{\"rule\":\"refused\",\"reason\":\"no ins");
    EXPECT("{\"call\": \"check\"}", "(none given)");
}

static void without_a_registry_nothing_is_known(void **state)
{
    struct xlv_registry *kept = calls.registry;

    (void)state;
    calls.registry = NULL;
    EXPECT("{\"call\": \"list\"}", "\"result\":[]");
    EXPECT("{\"call\": \"show\", \"number\": 1}", "\"code\":\"not found\"");
    EXPECT("{\"call\": \"bind\", \"domain\": \"web\", \"number\": 1}", "\"code\":\"not found\"");
    EXPECT("{\"call\": \"unbind\", \"domain\": \"web\"}", "\"code\":\"not found\"");
    EXPECT("{\"call\": \"create\"}", "\"code\":\"not found\"");
    EXPECT("{\"call\": \"check\", \"domain\": \"web\"}", "\"assigned\"");
    settings.unknown_uuid = XLV_UNKNOWN_UUID_REFUSE;
    EXPECT("{\"call\": \"check\", \"domain\": \"web\"}", "\"refused\"");
    EXPECT("{\"call\": \"status\"}", "does not run");
    calls.registry = kept;
}

static void a_bad_call_is_refused_with_a_reason(void **state)
{
    static const struct {
        const char *request, *words;
    } bad[] = {
        { "{}", "lacks its \\\"call\\\"" },
        { "{\"call\": 1}", "is no string" },
        { "{\"call\": \"reformat\"}", "no call \\\"reformat\\\"" },
        { "{\"call\": \"show\"}", "lacks its \\\"number\\\"" },
        { "{\"call\": \"show\", \"number\": \"1\"}", "is no int" },
        { "{\"call\": \"show\", \"number\": 0}", "not found" },
        { "{\"call\": \"show\", \"number\": -1}", "not found" },
        { "{\"call\": \"show\", \"number\": 9223372036854775807}", "not found" },
        { "{\"call\": \"show\", \"uuid\": \"x\"}", "\\\"x\\\" is no uuid" },
        { "{\"call\": \"show\", \"uuid\": \"" U "\\u0000\"}", "NUL" },
        { "{\"call\": \"create\", \"tpm_version\": \"3\"}", "no TPM version" },
        { "{\"call\": \"create\", \"label\": \"a\\nb\"}", "label" },
        { "{\"call\": \"create\", \"uuid\": \"00000000-0000-0000-0000-000000000000\"}", "nil" },
        { "{\"call\": \"bind\", \"number\": 1}", "lacks its \\\"domain\\\"" },
        { "{\"call\": \"bind\", \"domain\": \"x\", \"devid\": 256, \"number\": 1}", "0 to 255" },
        { "{\"call\": \"bind\", \"domain\": \"x\", \"devid\": -1, \"number\": 1}", "0 to 255" },
        { "{\"call\": \"unbind\", \"domain\": \"\"}", "0 bytes" },
        { "{\"call\": \"check\", \"devid\": true}", "is no int" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        EXPECT(bad[i].request, "\"ok\":false");
        EXPECT(bad[i].request, bad[i].words);
    }
    EXPECT("{\"call\": \"list\"}", "\"result\":[]");
}

static int fail_to_decorate(const struct xlv_instance *i, struct json_object *json, void *opaque,
                            struct xlv_error *e)
{
    (void)i;
    (void)json;
    ++*(int *)opaque;
    return xlv_fail(e, -EIO, "the daemon cannot tell");
}

static int count_created(const struct xlv_instance *i, void *opaque, struct xlv_error *e)
{
    (void)e;
    assert_int_equal(i->number, 1);
    ++*(int *)opaque;
    return 0;
}

static void the_daemons_part_is_asked_and_its_failure_is_told(void **state)
{
    int asked = 0;

    (void)state;
    calls.opaque = &asked;
    calls.created = count_created;
    EXPECT("{\"call\": \"create\"}", "\"ok\":true");
    assert_int_equal(asked, 1);
    calls.decorate = fail_to_decorate;
    EXPECT("{\"call\": \"list\"}",
           "\"code\":\"failed\",\"errno\":5,\"error\":\"the daemon cannot tell\"");
    EXPECT("{\"call\": \"show\", \"number\": 1}", "the daemon cannot tell");
    EXPECT("{\"call\": \"check\", \"domain\": \"x\"}", "assigned");
}

#define WIRE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define CALL(f) cmocka_unit_test_setup_teardown(f, setup_calls, teardown_calls)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE(a_message_of_megabytes_goes_through_a_full_socket),
        WIRE(what_is_not_the_protocol_is_refused),
        WIRE(a_request_has_a_maximum),
        WIRE(a_peer_that_goes_is_noticed),
        cmocka_unit_test(an_error_keeps_its_code_and_sentence),
        cmocka_unit_test(text_that_is_no_utf8_is_made_readable),
        CALL(instances_are_made_shown_bound_and_listed),
        CALL(check_names_the_rule),
        CALL(without_a_registry_nothing_is_known),
        CALL(a_bad_call_is_refused_with_a_reason),
        CALL(the_daemons_part_is_asked_and_its_failure_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
