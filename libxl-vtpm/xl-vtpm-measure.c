/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xl-vtpm: measured boots. Which are (measure), and what the PCRs of one mean
 * (measured): the event log is computed again from the files as they are now,
 * and compared with the one of the boot, event by event.
 */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/measure.h"
#include "common/fd.h"
#include "libxl-vtpm/control.h"

int run_measure(struct run *run, struct json_object **result)
{
    struct json_object *request = request_of("measure");
    const char *word = run->on ? "on" : run->off ? "off" : "default";
    int rc;

    put_instance(request, run->args[0]);
    put(request, "measure", json_object_new_string(word));
    rc = ask(run, request, result);
    if (!rc && !run->json)
        printf("instance %s, uuid %s: from the next boot on, %s\n",
               text_of(*result, "number", "?"), text_of(*result, "uuid", "?"),
               run->on    ? "it is measured"
               : run->off ? "it is not measured"
                          : "measure-boot of xl-vtpm.conf says whether it is measured");
    return rc;
}

/* --- the log of a boot ---------------------------------------------------------- */

struct log {
    uint8_t bytes[XLV_EVENTLOG_MAX];
    size_t length;
    enum xlv_tpm_version version;
};

#define EVENTS_MAX 16

struct events {
    struct xlv_event at[EVENTS_MAX];
    unsigned count;
};

static int take_event(const struct xlv_event *event, void *opaque)
{
    struct events *events = opaque;

    if (events->count == EVENTS_MAX)
        return XLV_E_CORRUPT;
    events->at[events->count++] = *event;
    return 0;
}

static int read_log(const char *path, struct log *log, struct events *events, struct xlv_error *e)
{
    int fd XLV_CLOSE = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    int rc;

    if (fd < 0 && errno == ENOENT)
        return xlv_fail(e, XLV_E_NOT_FOUND, "there is no event log (%s): the last boot was not "
                        "measured; `xl-vtpm measure --on` has the next one measured", path);
    if (fd < 0 || fstat(fd, &st) < 0)
        return xlv_fail(e, -errno, "%s cannot be read: %s", path, strerror(errno));
    if (st.st_size > (off_t)sizeof(log->bytes))
        return xlv_fail(e, XLV_E_CORRUPT, "%s is no event log of xl-vtpmd", path);
    log->length = (size_t)st.st_size;
    rc = xlv_read_all(fd, log->bytes, log->length);
    if (rc)
        return xlv_fail(e, rc, "%s cannot be read: %s", path, xlv_strerror(rc));
    rc = xlv_eventlog_each(log->bytes, log->length, &log->version, take_event, events);
    return rc ? xlv_fail(e, rc, "%s is no event log, or is damaged", path) : 0;
}

/* The text of an EV_IPL event or an error, without its NUL; "" for anything else. */
static const char *text_of_event(const struct xlv_event *event)
{
    return event->length > 4 && !event->data[event->length - 1] ? (const char *)event->data : "";
}

static bool is_error(const struct xlv_event *event)
{
    return event->type == XLV_EV_SEPARATOR && text_of_event(event)[0];
}

/* The n-th EV_IPL of a PCR, or NULL. */
static const char *ipl(const struct events *events, uint32_t pcr, unsigned n)
{
    for (unsigned i = 0; i < events->count; i++)
        if (events->at[i].pcr == pcr && events->at[i].type == XLV_EV_IPL && !n--)
            return text_of_event(&events->at[i]);
    return NULL;
}

/* --- the same again -------------------------------------------------------------- */

/* What the log names, where the options name nothing. */
static int measure_again(struct run *run, const struct events *events, const struct log *was,
                         unsigned banks, struct xlv_eventlog *now)
{
    const char *line = ipl(events, XLV_PCR_COMMAND_LINE, 0), *colon = line ? strchr(line, ':') : NULL;
    struct xlv_measure_boot boot = {
        .kernel = run->kernel ? run->kernel : ipl(events, XLV_PCR_FILES, 0),
        .ramdisk = run->ramdisk || run->kernel ? run->ramdisk : ipl(events, XLV_PCR_FILES, 1),
        .cmdline = run->cmdline ? run->cmdline : !run->kernel && colon ? colon + 2 : "",
        .kernel_fd = -1,
        .ramdisk_fd = -1,
    };
    int rc;

    if (!boot.kernel)
        return xlv_fail(&run->e, XLV_E_INVALID, "the log names no kernel; --kernel FILE does");
    if (boot.ramdisk && !boot.ramdisk[0])
        boot.ramdisk = NULL;
    if (strlen(boot.cmdline) > XLV_COMMAND_LINE_MAX || strlen(boot.kernel) > XLV_FILE_NAME_MAX ||
        (boot.ramdisk && strlen(boot.ramdisk) > XLV_FILE_NAME_MAX))
        return xlv_fail(&run->e, XLV_E_INVALID, "a name or the command line is too long");
    boot.kernel_fd = open(boot.kernel, O_RDONLY | O_CLOEXEC);
    if (boot.kernel_fd < 0)
        rc = xlv_fail(&run->e, -errno, "the kernel %s cannot be read: %s", boot.kernel,
                      strerror(errno));
    else
        rc = 0;
    if (!rc && boot.ramdisk) {
        boot.ramdisk_fd = open(boot.ramdisk, O_RDONLY | O_CLOEXEC);
        if (boot.ramdisk_fd < 0)
            rc = xlv_fail(&run->e, -errno, "the ramdisk %s cannot be read: %s", boot.ramdisk,
                          strerror(errno));
    }
    if (!rc)
        rc = xlv_measure(&boot, was->version, banks, now, &run->e);
    if (!rc && run->e.text[0])
        rc = XLV_E_INVALID;
    xlv_close(&boot.kernel_fd);
    xlv_close(&boot.ramdisk_fd);
    return rc;
}

static bool same_digests(const struct xlv_digests *a, const struct xlv_digests *b)
{
    if (a->banks != b->banks)
        return false;
    for (unsigned i = 0; i < XLV_HASHES; i++)
        if ((a->banks & XLV_BANK_OF(i)) && memcmp(a->of[i], b->of[i], xlv_hashes[i].size))
            return false;
    return true;
}

/* --- telling -------------------------------------------------------------------- */

static struct json_object *hex(const uint8_t *bytes, size_t length)
{
    char text[2 * XLV_DIGEST_MAX + 1] = "";

    for (size_t i = 0; i < length; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
    return json_object_new_string(text);
}

static void put_pcrs(struct json_object *json, const struct xlv_digests pcrs[XLV_PCRS])
{
    struct json_object *all = json_object_new_object();

    for (unsigned i = 0; i < XLV_HASHES; i++) {
        struct json_object *bank = json_object_new_object();
        char name[8];

        for (unsigned pcr = 0; pcr < XLV_PCRS; pcr++)
            if (pcrs[pcr].banks & XLV_BANK_OF(i)) {
                snprintf(name, sizeof(name), "%u", pcr);
                put(bank, name, hex(pcrs[pcr].of[i], xlv_hashes[i].size));
            }
        if (json_object_object_length(bank))
            put(all, xlv_hashes[i].name, bank);
        else
            json_object_put(bank);
    }
    put(json, "pcrs", all);
}

/* Events of the boot, and whether the one at the same place is so now, too. */
static bool put_events(struct json_object *json, const struct events *was,
                       const struct events *now)
{
    struct json_object *array = json_object_new_array();
    bool all = was->count == now->count;

    for (unsigned i = 0; i < was->count; i++) {
        const struct xlv_event *event = &was->at[i];
        bool same = i < now->count && now->at[i].pcr == event->pcr &&
                    same_digests(&event->digests, &now->at[i].digests);
        struct json_object *one = json_object_new_object();

        all = all && same;
        put(one, "pcr", json_object_new_int((int)event->pcr));
        put(one, "what", json_object_new_string(is_error(event)                   ? "error"
                                                : event->type == XLV_EV_SEPARATOR ? "end"
                                                : event->pcr == XLV_PCR_FILES     ? "file"
                                                                                  : "command line"));
        put(one, "text", xlv_json_text(text_of_event(event)));
        put(one, "same", json_object_new_boolean(same));
        json_object_array_add(array, one);
    }
    put(json, "events", array);
    return all;
}

static void print_measured(struct json_object *json)
{
    struct json_object *events = member(json, "events");

    if (member(json, "log"))
        print_field("event log", text_of(json, "log", "?"));
    for (size_t i = 0; i < xlv_json_count(events); i++) {
        struct json_object *event = json_object_array_get_idx(events, i);
        char name[32], text[XLV_COMMAND_LINE_MAX + 128];

        snprintf(name, sizeof(name), "PCR %s", text_of(event, "pcr", "?"));
        snprintf(text, sizeof(text), "%s%s%s: %s", text_of(event, "what", "?"),
                 text_of(event, "text", "")[0] ? " " : "", text_of(event, "text", ""),
                 json_object_get_boolean(member(event, "same")) ? "the same" : "DIFFERENT");
        print_field(name, text);
    }
    json_object_object_foreach(member(json, "pcrs"), bank, values) {
        json_object_object_foreach(values, pcr, value) {
            char name[32];

            snprintf(name, sizeof(name), "%s:%s", bank, pcr);
            print_field(name, json_object_get_string(value));
        }
    }
}

/* The instance's log, its place and its events. */
static int find_log(struct run *run, struct json_object *json, struct log *log,
                    struct events *events)
{
    struct json_object *request = request_of("show"), *instance = NULL;
    char path[512];
    int rc;

    put_instance(request, run->args[0]);
    rc = ask(run, request, &instance);
    if (!rc) {
        snprintf(path, sizeof(path), "%s/eventlog/%s", run->settings->run_dir,
                 text_of(instance, "number", "?"));
        put(json, "log", xlv_json_text(path));
        rc = read_log(path, log, events, &run->e);
    }
    json_object_put(instance);
    return rc;
}

int run_measured(struct run *run, struct json_object **result)
{
    static struct log was;
    static struct xlv_eventlog now;
    struct events events = { .count = 0 }, again = { .count = 0 };
    struct json_object *json = json_object_new_object();
    struct xlv_digests pcrs[XLV_PCRS];
    enum xlv_tpm_version version;
    bool same = true;
    int rc = 0;

    if (!json)
        return xlv_fail(&run->e, -ENOMEM, "no memory");
    was.version = XLV_TPM_2_0;
    if (run->count)
        rc = find_log(run, json, &was, &events);
    else if (!run->kernel)
        rc = xlv_fail(&run->e, XLV_E_INVALID, "either an instance is needed, or --kernel FILE");
    if (!rc && events.count && is_error(&events.at[0]))
        rc = xlv_fail(&run->e, XLV_E_CORRUPT, "the boot could not be measured: %s",
                      text_of_event(&events.at[0]));
    if (!rc)
        rc = measure_again(run, &events, &was,
                           events.count ? events.at[0].digests.banks : XLV_BANKS_ALL, &now);
    if (!rc)
        rc = xlv_eventlog_each(now.bytes, now.length, &version, take_event, &again);
    if (!rc && run->count) {
        same = put_events(json, &events, &again);
        rc = xlv_measure_replay(was.bytes, was.length, &version, pcrs);
    } else if (!rc) {
        rc = xlv_measure_replay(now.bytes, now.length, &version, pcrs);
    }
    if (!rc) {
        put_pcrs(json, pcrs);
        if (run->count)
            put(json, "same", json_object_new_boolean(same));
        /* to be seen in any case */
        if (run->json)
            print_json(json);
        else
            print_measured(json);
        if (!same)
            rc = xlv_fail(&run->e, XLV_E_CORRUPT, "a boot with these is not the boot that was "
                          "measured");
    }
    json_object_put(json);
    *result = NULL;
    return rc;
}
