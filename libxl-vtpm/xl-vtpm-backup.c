/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: all of a host: backup, restore. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <stdio.h>

#include "libxl-vtpm/backup.h"

static int run_either(struct run *run, bool back_up)
{
    const struct xlv_backup b = {
        .settings = run->settings,
        .config = run->config ? run->config : XLV_SYSCONFDIR "/xen/xl-vtpm.conf",
        .directory = run->args[0],
        .with_keys = run->with_keys,
        .progress = progress_count,
    };
    struct json_object *report = NULL, *left;
    int rc;

    rc = (back_up ? xlv_backup : xlv_restore)(&b, &report, &run->e);
    progress_stop();
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
        print_reasons(left, "does not verify");
        if (xlv_json_count(left))
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
