/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `xl-vtpm doctor`: looks at everything on a host that can keep guests from their
 * TPMs, and says for each thing what is wrong and what to do. Changes nothing,
 * takes no lock that others want, and goes on after what it cannot look at.
 */
#ifndef XLV_DOCTOR_H
#define XLV_DOCTOR_H

#include "common/error.h"

struct json_object;

enum xlv_doctor_result {
    XLV_DOCTOR_OK,
    XLV_DOCTOR_WARNING, /* works, and yet should not stay so */
    XLV_DOCTOR_PROBLEM, /* some guest gets no TPM, or will lose one */
};

struct xlv_doctor {
    const char *config; /* as xlv_settings_load() takes it */
    const char *root;   /* before /proc, /sys and /dev: "" but in tests */
};

/*
 * *report is the caller's:
 *   { "result": worst of all, "checks": [ { "check", "result", "text", "advice": text | null } ] }
 * result: ok, warning, problem. check: a word or two, the same for the same thing in
 * all versions; one that looks at many things may be there more than once.
 */
int xlv_doctor(const struct xlv_doctor *what, enum xlv_doctor_result *worst,
               struct json_object **report, struct xlv_error *e);

#endif
