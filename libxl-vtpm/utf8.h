/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UTF-8, for text that goes into JSON or onto a terminal. */
#ifndef XLV_UTF8_H
#define XLV_UTF8_H

#include <stddef.h>

/*
 * Bytes of the character at p, which ends before end: 1 to 4, or 0 where there
 * is none (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
 */
static inline size_t xlv_utf8_character(const char *text, const char *end)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = *p < 0x80                  ? 1
               : *p >= 0xc2 && *p <= 0xdf ? 2
               : *p >= 0xe0 && *p <= 0xef ? 3
               : *p >= 0xf0 && *p <= 0xf4 ? 4
                                          : 0;

    if (!n || (size_t)(end - text) < n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

#endif
