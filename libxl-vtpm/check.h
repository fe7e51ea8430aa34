/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each vtpm entry of a domain's configuration file will get. The file is
 * read by libxlutil, as xl does, the entries by spec.h, and the answers come
 * from the client; nothing is changed.
 */
#ifndef XLV_CHECK_H
#define XLV_CHECK_H

#include "common/error.h"
#include "libxl-vtpm/client.h"

struct json_object;

enum xlv_check_result {
    XLV_CHECK_FINE,    /* each entry gets a TPM (warnings there may be) */
    XLV_CHECK_REFUSED, /* xl would take it, but an entry gets no TPM */
    XLV_CHECK_WRONG,   /* xl would not create the domain, or drops entries */
};

/*
 * *report (the caller's):
 *   {file, domain | null, result: "fine"|"refused"|"wrong",
 *    messages: [sentence],     about the file as a whole, xl's own among them
 *    vtpms: [{devid, spec, result: "fine"|"refused"|"wrong"|"elsewhere",
 *             uuid | null, rule?, instance?, text, warnings: [sentence]}]}
 * An error is returned where there is no report: the file cannot be read, the
 * client fails.
 */
int xlv_check_file(struct xlv_client *client, const char *path, enum xlv_check_result *result,
                   struct json_object **report, struct xlv_error *e);

#endif
