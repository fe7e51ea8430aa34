/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The error contract: see error.h. */
#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int (xlv_fail)(struct xlv_error *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (!e || e->text[0])
        return code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    /* one sentence on one line, whatever was quoted into it */
    for (char *p = e->text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return code;
}

void xlv_error_clear(struct xlv_error *e)
{
    if (e)
        e->text[0] = '\0';
}

const char *xlv_strerror(int code)
{
    static const char *const words[] = {
        [XLV_E_OK] = "success",
        [XLV_E_NOT_FOUND] = "not found",
        [XLV_E_EXISTS] = "exists already",
        [XLV_E_INVALID] = "invalid",
        [XLV_E_IN_USE] = "in use",
        [XLV_E_REFUSED] = "refused",
        [XLV_E_EMPTY] = "never written",
        [XLV_E_CORRUPT] = "damaged",
        [XLV_E_WRONG_KEY] = "sealed with another key",
        [XLV_E_WRONG_OWNER] = "belongs to another instance",
        [XLV_E_VERSION] = "format too new",
        [XLV_E_TPM] = "TPM error",
        [XLV_E_CONFLICT] = "conflict",
        [XLV_E_GONE] = "gone",
        [XLV_E_FORBIDDEN] = "forbidden",
    };

    if (code < 0)
        return strerror(-code);
    if ((size_t)code < sizeof(words) / sizeof(words[0]) && words[code])
        return words[code];
    return "unknown outcome";
}
