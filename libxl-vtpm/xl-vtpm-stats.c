/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: what goes on: stats, monitor. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 24 };

/* The bound of the bucket in which that fraction of the commands is reached, for people. */
static const char *within(struct json_object *latency, double fraction, char text[NUMBER_MAX])
{
    struct json_object *buckets = member(latency, "buckets"), *le = NULL;
    size_t n = xlv_json_count(buckets), i = 0;
    double all = 0, us;

    if (n)
        all = (double)json_object_get_uint64(
            member(json_object_array_get_idx(buckets, n - 1), "count"));
    if (all == 0)
        return "-";
    while ((double)json_object_get_uint64(member(json_object_array_get_idx(buckets, i), "count")) <
           all * fraction)
        i++;
    le = member(json_object_array_get_idx(buckets, i), "le");
    if (!le)
        return "longer";
    us = json_object_get_double(le) * 1e6;
    snprintf(text, NUMBER_MAX, us < 1000 ? "%.0f us" : us < 1e6 ? "%.0f ms" : "%.0f s",
             us < 1000 ? us : us < 1e6 ? us / 1e3 : us / 1e6);
    return text;
}

static int print_stats(struct run *run, struct json_object *list)
{
    static const char *const head[] = { "Number",     "UUID",         "Domain",
                                        "Commands",   "Failed",       "Commits",
                                        "Half within", "99 % within", "Durable 99 %",
                                        "Processes" };
    enum { COLUMNS = sizeof(head) / sizeof(head[0]), TIMES = 3 };
    size_t count = xlv_json_count(list);
    const char **cells = calloc((count + 1) * COLUMNS, sizeof(*cells));
    char(*times)[NUMBER_MAX] = calloc((count + 1) * TIMES, sizeof(*times));

    if (!cells || !times) {
        free(cells);
        free(times);
        return xlv_fail(&run->e, -ENOMEM, "no memory for the list");
    }
    memcpy(cells, head, sizeof(head));
    for (size_t i = 0; i < count; i++) {
        struct json_object *one = json_object_array_get_idx(list, i);
        const char **row = cells + (i + 1) * COLUMNS;

        row[0] = text_of(one, "number", "?");
        row[1] = text_of(one, "uuid", "?");
        row[2] = text_of(one, "domain", "-");
        row[3] = text_of(one, "commands", "?");
        row[4] = text_of(one, "failed", "?");
        row[5] = text_of(one, "commits", "?");
        row[6] = within(member(one, "latency"), 0.5, times[i * TIMES]);
        row[7] = within(member(one, "latency"), 0.99, times[i * TIMES + 1]);
        row[8] = within(member(one, "durable_latency"), 0.99, times[i * TIMES + 2]);
        row[9] = text_of(one, "processes", "?");
    }
    print_table(cells, count + 1, COLUMNS);
    free(cells);
    free(times);
    return 0;
}

/*
 * The text format of Prometheus (exposition formats, 0.0.4).
 */

static void print_label(const char *value)
{
    for (; *value; value++)
        if (*value == '\n')
            fputs("\\n", stdout);
        else if (*value == '"' || *value == '\\')
            printf("\\%c", *value);
        else
            putchar(*value);
}

static void print_series(const char *name, const char *suffix, struct json_object *one)
{
    printf("%s%s{instance=\"%s\",uuid=\"%s\",domain=\"", name, suffix, text_of(one, "number", ""),
           text_of(one, "uuid", ""));
    print_label(text_of(one, "domain", ""));
    putchar('"');
}

static void print_histogram(const char *name, const char *key, const char *help,
                            struct json_object *list)
{
    printf("# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    for (size_t i = 0; i < xlv_json_count(list); i++) {
        struct json_object *one = json_object_array_get_idx(list, i), *latency = member(one, key),
                           *buckets = member(latency, "buckets");
        const char *count = "0";

        for (size_t k = 0; k < xlv_json_count(buckets); k++) {
            struct json_object *bucket = json_object_array_get_idx(buckets, k),
                               *le = member(bucket, "le");

            count = text_of(bucket, "count", "0");
            print_series(name, "_bucket", one);
            if (le)
                printf(",le=\"%g\"} %s\n", json_object_get_double(le), count);
            else
                printf(",le=\"+Inf\"} %s\n", count);
        }
        print_series(name, "_sum", one);
        printf("} %.9g\n", json_object_get_double(member(latency, "sum_seconds")));
        print_series(name, "_count", one);
        printf("} %s\n", count);
    }
}

static void print_prometheus(struct json_object *list)
{
    static const struct {
        const char *name, *key, *help;
    } counters[] = {
        { "xl_vtpm_commands_total", "commands", "TPM commands that were answered or cancelled." },
        { "xl_vtpm_commands_failed_total", "failed", "Commands that were answered with an error." },
        { "xl_vtpm_commands_cancelled_total", "cancelled", "Commands that the guest cancelled." },
        { "xl_vtpm_commits_total", "commits", "Commits of the permanent state to the disk." },
        { "xl_vtpm_commits_failed_total", "failed_commits", "Commits that the disk refused." },
        { "xl_vtpm_processes_total", "processes", "Processes that began to serve the TPM." },
    };

    for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++) {
        printf("# HELP %s %s\n# TYPE %s counter\n", counters[i].name, counters[i].help,
               counters[i].name);
        for (size_t k = 0; k < xlv_json_count(list); k++) {
            struct json_object *one = json_object_array_get_idx(list, k);

            print_series(counters[i].name, "", one);
            printf("} %s\n", text_of(one, counters[i].key, "0"));
        }
    }
    print_histogram("xl_vtpm_command_seconds", "latency",
                    "From the look at the page that found a command to its answer.", list);
    print_histogram("xl_vtpm_durable_command_seconds", "durable_latency",
                    "The same, of commands that changed the permanent state.", list);
}

int run_stats(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("stats");
    int rc;

    if (run->count)
        put_instance(request, run->args[0]);
    rc = ask(run, request, result);
    if (rc)
        return rc;
    if (!json_object_is_type(*result, json_type_array))
        return xlv_fail(&run->e, XLV_E_INVALID, "the daemon's answer is no list");
    if (run->prometheus && run->json)
        return xlv_fail(&run->e, XLV_E_INVALID, "--json or --prometheus, not both");
    if (run->prometheus)
        print_prometheus(*result);
    return run->json || run->prometheus ? 0 : print_stats(run, *result);
}

/*
 * monitor
 */

static void print_line(struct json_object *line)
{
    if (member(line, "lost")) {
        printf("(%s lines were lost: this was not read quickly enough)\n",
               text_of(line, "lost", "?"));
        return;
    }
    printf("%s %s", text_of(line, "time", "?"), text_of(line, "level", "?"));
    if (member(line, "domid"))
        printf(" dom %s/%s", text_of(line, "domid", "?"), text_of(line, "devid", "?"));
    if (member(line, "uuid"))
        printf(" %s", text_of(line, "uuid", "?"));
    if (member(line, "instance"))
        printf(" #%s", text_of(line, "instance", "?"));
    fputs(": ", stdout);
    print_text(text_of(line, "text", ""));
    putchar('\n');
}

/* The instance that was asked for, or any. */
static bool concerns(struct json_object *line, const char *uuid)
{
    return !uuid || member(line, "lost") || !strcmp(text_of(line, "uuid", ""), uuid);
}

/* Each line is out at once: it is read by people, or by a program that waits. */
static int follow(struct run *run, const char *uuid)
{
    struct pollfd in = { .fd = xlv_client_fd(run->client), .events = POLLIN };
    struct xlv_error why = XLV_ERROR_INIT;
    struct json_object *line;
    int rc;

    while (!ferror(stdout)) {
        if (poll(&in, 1, -1) < 0 && errno != EINTR)
            return xlv_fail(&run->e, -errno, "cannot wait for xl-vtpmd: %s", strerror(errno));
        if (!in.revents)
            continue;
        rc = xlv_client_answer(run->client, &line, &why);
        if (rc)
            return rc == XLV_E_GONE
                       ? xlv_fail(&run->e, rc, "xl-vtpmd has ended; start the monitor again when "
                                  "it is back")
                       : xlv_fail(&run->e, rc, "%s", why.text);
        if (line && concerns(line, uuid)) {
            if (run->json)
                printf("%s\n", json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN));
            else
                print_line(line);
            fflush(stdout);
        }
        json_object_put(line);
    }
    return 0;
}

int run_monitor(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("show"), *instance = NULL;
    char uuid[XLV_UUID_TEXT];
    int rc = 0;

    *result = NULL;
    /* an instance that is not there has nothing to tell */
    if (run->count) {
        put_instance(request, run->args[0]);
        rc = ask(run, request, &instance);
        if (!rc)
            snprintf(uuid, sizeof(uuid), "%s", text_of(instance, "uuid", "?"));
        json_object_put(instance);
    } else {
        json_object_put(request);
    }
    if (rc)
        return rc;
    request = request_of("monitor");
    rc = xlv_client_ask(run->client, request, &run->e);
    json_object_put(request);
    return rc ? rc : follow(run, run->count ? uuid : NULL);
}
