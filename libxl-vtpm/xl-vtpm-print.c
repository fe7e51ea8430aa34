/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the commands share: JSON, the client, and printing for people; see xl-vtpm.h. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libxl-vtpm/utf8.h"

struct json_object *member(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(json, key, &value);
    return value;
}

/* Text or number as text; fallback for null, missing and "". Borrowed. */
const char *text_of(struct json_object *json, const char *key, const char *fallback)
{
    struct json_object *value = member(json, key);
    const char *text = value ? json_object_get_string(value) : NULL;

    return text && text[0] ? text : fallback;
}

void print_json(struct json_object *json)
{
    puts(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY |
                                                  JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* Takes over value; NULL is left out. Without memory there is nothing left to do. */
void put(struct json_object *request, const char *key, struct json_object *value)
{
    if (value && json_object_object_add(request, key, value) == 0)
        return;
    fputs("xl-vtpm: no memory\n", stderr);
    exit(EXIT_FAILED);
}

struct json_object *request_of(const char *call)
{
    struct json_object *request = json_object_new_object();

    put(request, "call", json_object_new_string(call));
    return request;
}

/* What the call's result is; a daemon of another version may see it otherwise. */
static bool fits(struct json_object *request, struct json_object *result)
{
    const char *call = text_of(request, "call", "");

    if (!strcmp(call, "unbind"))
        return true;
    return json_object_is_type(result, !strcmp(call, "list") || !strcmp(call, "stats")
                                           ? json_type_array : json_type_object);
}

/* Frees request. */
int ask(struct run *run, struct json_object *request, struct json_object **result)
{
    int rc = xlv_client_call(run->client, request, result, &run->e);

    if (!rc && !fits(request, *result)) {
        json_object_put(*result);
        *result = NULL;
        rc = xlv_fail(&run->e, -EPROTO, "the daemon's answer is not one we understand; where it is "
                      "of another version, restart it: systemctl restart xl-vtpmd");
    }
    json_object_put(request);
    return rc;
}

int confirm(struct run *run, const char *question)
{
    char answer[8];
    bool yes;

    if (run->yes)
        return 0;
    if (!isatty(STDIN_FILENO))
        return xlv_fail(&run->e, XLV_E_REFUSED, "nothing was changed: there is no terminal to ask "
                        "at; --yes goes ahead without");
    progress_stop();
    fflush(stdout);
    fprintf(stderr, "%s\nType yes to go on: ", question);
    yes = fgets(answer, sizeof(answer), stdin) && !strcmp(answer, "yes\n");
    progress_start(NULL);
    return yes ? 0 : xlv_fail(&run->e, XLV_E_REFUSED, "nothing was changed");
}

/* Terminal columns: characters of UTF-8; good enough for names and labels. */
static size_t width_of(const char *text)
{
    size_t width = 0;

    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

/* A domain chooses its own name: nothing in it may reach the terminal as a control. */
void print_text(const char *text)
{
    const char *end = text + strlen(text);

    while (text < end) {
        size_t n = xlv_utf8_character(text, end);
        bool control = n == 1 ? (unsigned char)*text < ' ' || *text == 0x7f
                              : n == 2 && (unsigned char)text[0] == 0xc2 &&
                                    (unsigned char)text[1] < 0xa0;

        if (!n || control)
            putchar('?');
        else
            fwrite(text, 1, n, stdout);
        text += n ? n : 1;
    }
}

/* The cells are borrowed; the last column is not padded. */
static void print_row(const char *const *cells, const size_t *widths, size_t columns)
{
    for (size_t i = 0; i < columns; i++) {
        print_text(cells[i]);
        if (i + 1 < columns)
            printf("%*s", (int)(widths[i] - width_of(cells[i]) + 2), "");
    }
    putchar('\n');
}

void print_table(const char *const *rows, size_t row_count, size_t columns)
{
    size_t widths[16] = { 0 };

    for (size_t i = 0; i < row_count * columns; i++)
        if (widths[i % columns] < width_of(rows[i]))
            widths[i % columns] = width_of(rows[i]);
    for (size_t i = 0; i < row_count; i++)
        print_row(rows + i * columns, widths, columns);
}

void print_field(const char *name, const char *text)
{
    printf("%-14s ", name);
    print_text(text);
    putchar('\n');
}

void print_reasons(struct json_object *instances, const char *verdict)
{
    for (size_t i = 0; i < xlv_json_count(instances); i++) {
        struct json_object *one = json_object_array_get_idx(instances, i);

        printf("instance %s (%s) %s: ", text_of(one, "number", "?"),
               text_of(one, "uuid", "uuid not known"), verdict);
        print_text(text_of(one, "reason", "?"));
        putchar('\n');
    }
}

/* UUID or NUMBER of an instance, into a request. */
void put_instance(struct json_object *request, const char *arg)
{
    /* longer numbers are nobody's; as a uuid they are refused with that sentence */
    if (arg[0] && strlen(arg) < 18 && !arg[strspn(arg, "0123456789")])
        put(request, "number", json_object_new_int64(strtoll(arg, NULL, 10)));
    else
        put(request, "uuid", json_object_new_string(arg));
}

int look_up(struct run *run, const char *name, struct json_object **shown, struct xlv_uuid *uuid)
{
    struct json_object *request = request_of("show");
    int rc;

    put_instance(request, name);
    rc = ask(run, request, shown);
    if (!rc && xlv_uuid_parse(uuid, text_of(*shown, "uuid", "")))
        rc = xlv_fail(&run->e, -EPROTO, "the answer is no instance");
    return rc;
}

int refuse_if_served(struct run *run, const struct xlv_uuid *uuid)
{
    struct json_object *request = request_of("show"), *shown = NULL;
    char text[XLV_UUID_TEXT];
    int rc;

    put(request, "uuid", json_object_new_string(xlv_uuid_format(uuid, text)));
    rc = ask(run, request, &shown);
    if (!rc && member(shown, "device"))
        rc = xlv_fail(&run->e, XLV_E_IN_USE, "instance %s is in use by domain %s: shut it down "
                      "first", text_of(shown, "number", "?"),
                      text_of(member(shown, "device"), "domid", "?"));
    json_object_put(shown);
    return rc;
}
