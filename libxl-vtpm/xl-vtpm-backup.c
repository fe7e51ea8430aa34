/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: all of a host: backup, restore. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "libxl-vtpm/backup.h"

/* On a terminal, and only of what takes longer than that. */
#define SHOWN_MS 1000

struct progress {
    struct timespec began;
    bool shown;
};

static void on_progress(unsigned done, unsigned of, void *opaque)
{
    struct progress *p = opaque;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!isatty(STDERR_FILENO) || (now.tv_sec - p->began.tv_sec) * 1000 +
                                          (now.tv_nsec - p->began.tv_nsec) / 1000000 < SHOWN_MS)
        return;
    fprintf(stderr, "\r%u of %u instances", done, of);
    p->shown = true;
}

static int run_either(struct run *run, bool back_up)
{
    struct progress progress = { .shown = false };
    const struct xlv_backup b = {
        .settings = run->settings,
        .config = run->config ? run->config : XLV_SYSCONFDIR "/xen/xl-vtpm.conf",
        .directory = run->args[0],
        .with_keys = run->with_keys,
        .progress = on_progress,
        .opaque = &progress,
    };
    struct json_object *report = NULL, *left;
    int rc;

    clock_gettime(CLOCK_MONOTONIC, &progress.began);
    rc = (back_up ? xlv_backup : xlv_restore)(&b, &report, &run->e);
    if (progress.shown)
        fputc('\n', stderr);
    if (!report)
        return rc;
    left = member(report, "left");
    /* whatever the verdict */
    if (run->json) {
        print_json(report);
    } else {
        printf("%s: %s instances, ", run->args[0], text_of(report, "instances", "?"));
        if (json_object_get_boolean(member(report, "keys")))
            puts(back_up ? "with the keys: who reads it has the TPMs" : "with their keys");
        else
            puts(back_up ? "without the keys: they are needed for a restore, keep them elsewhere"
                         : "under the key that is here");
        for (size_t i = 0; i < json_object_array_length(left); i++) {
            struct json_object *one = json_object_array_get_idx(left, i);

            printf("instance %s (%s) does not verify: ", text_of(one, "number", "?"),
                   text_of(one, "uuid", "?"));
            print_text(text_of(one, "reason", "?"));
            putchar('\n');
        }
        if (json_object_array_length(left))
            puts("these are as they were; xl-vtpm recover says what can be done");
    }
    json_object_put(report);
    return rc;
}

int run_backup(struct run *run, struct json_object **result)
{
    (void)result;
    return run_either(run, true);
}

int run_restore(struct run *run, struct json_object **result)
{
    (void)result;
    return run_either(run, false);
}
