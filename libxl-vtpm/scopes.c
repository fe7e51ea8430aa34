/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A cgroup for each backend: see scopes.h. */
#include "libxl-vtpm/scopes.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define CGROUPS_MAX 4096

struct xlv_scopes {
    sd_event *event;
    int (*open)(sd_bus **bus);
    sd_bus *bus; /* NULL: not connected */
    bool told;   /* that it does not work; from then on only who debugs wants to know */
};

struct xlv_scopes *xlv_scopes_new(sd_event *event, int (*open)(sd_bus **bus))
{
    struct xlv_scopes *s = calloc(1, sizeof(*s));

    if (s) {
        s->event = event;
        s->open = open;
    }
    return s;
}

void xlv_scopes_free(struct xlv_scopes *s)
{
    if (!s)
        return;
    sd_bus_close_unref(s->bus);
    free(s);
}

static void tell(struct xlv_scopes *s, const char *why)
{
    xlv_log(s->told ? XLV_LOG_DEBUG : XLV_LOG_NOTICE, "systemd gives a backend no cgroup of its "
            "own (%s); those share the daemon's, and all they do works", why);
    s->told = true;
}

/* All its cgroups, a line for each hierarchy (cgroups(7)). */
static bool cgroups_of(const char *process, char text[CGROUPS_MAX])
{
    char path[64];
    size_t length;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%s/cgroup", process);
    f = fopen(path, "re");
    if (!f)
        return false;
    length = fread(text, 1, CGROUPS_MAX - 1, f);
    text[length] = '\0';
    fclose(f);
    return length;
}

/* A child begins where we are. */
static bool is_apart(pid_t pid)
{
    char process[32], its[CGROUPS_MAX], ours[CGROUPS_MAX];

    snprintf(process, sizeof(process), "%ld", (long)pid);
    return cgroups_of(process, its) && cgroups_of("self", ours) && strcmp(its, ours);
}

static bool connected(struct xlv_scopes *s)
{
    int r;

    if (s->bus && sd_bus_is_open(s->bus) > 0)
        return true;
    s->bus = sd_bus_close_unref(s->bus);
    r = s->open(&s->bus);
    if (r >= 0)
        r = sd_bus_attach_event(s->bus, s->event, SD_EVENT_PRIORITY_IDLE);
    if (r < 0) {
        s->bus = sd_bus_close_unref(s->bus);
        tell(s, strerror(-r));
    }
    return r >= 0;
}

static int on_answer(sd_bus_message *answer, void *opaque, sd_bus_error *error)
{
    const sd_bus_error *refusal = sd_bus_message_get_error(answer);

    (void)error;
    if (refusal)
        tell(opaque, refusal->message ? refusal->message : refusal->name);
    return 0;
}

void xlv_scopes_put(struct xlv_scopes *s, pid_t pid, uint64_t instance, uint32_t domid,
                    uint32_t devid)
{
    char name[64], description[96];
    sd_bus_message *m = NULL;
    int r;

    if (!s || is_apart(pid) || !connected(s))
        return;
    snprintf(name, sizeof(name), "vtpm-%" PRIu64 "-%ld.scope", instance, (long)pid);
    snprintf(description, sizeof(description), "vTPM %" PRIu64 " of domain %u (device %u)",
             instance, domid, devid);
    r = sd_bus_message_new_method_call(s->bus, &m, "org.freedesktop.systemd1",
                                       "/org/freedesktop/systemd1",
                                       "org.freedesktop.systemd1.Manager", "StartTransientUnit");
    if (r >= 0)
        r = sd_bus_message_append(m, "ss", name, "fail");
    /*
     * At a shutdown of the host its guests end with other units, and their TPMs are there as long:
     * no dependency ends a scope. One process without children, which has open what it needs.
     */
    if (r >= 0)
        r = sd_bus_message_append(m, "a(sv)", 7,
                                  "Description", "s", description,
                                  "Slice", "s", XLV_SCOPES_SLICE,
                                  "PIDs", "au", 1, (uint32_t)pid,
                                  "DefaultDependencies", "b", 0,
                                  "CPUWeight", "t", (uint64_t)XLV_SCOPES_CPU_WEIGHT,
                                  "TasksMax", "t", (uint64_t)1,
                                  "DevicePolicy", "s", "strict");
    if (r >= 0)
        r = sd_bus_message_append(m, "a(sa(sv))", 0);
    if (r >= 0)
        r = sd_bus_call_async(s->bus, NULL, m, on_answer, s, 0);
    sd_bus_message_unref(m);
    if (r < 0)
        tell(s, strerror(-r));
}
