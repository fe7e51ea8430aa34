/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the harnesses share. One file is one target: it has LLVMFuzzerTestOneInput() and is linked
 * with libFuzzer, with AFL++, or with replay.c, which runs files. A target that has something to
 * set up does it at its first input.
 */
#ifndef XLV_FUZZ_H
#define XLV_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/bytes.h"
#include "common/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must be so whatever the input is. Not assert(): never compiled out. */
#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* The rest of the input. */
static inline const uint8_t *rest(struct xlv_bytes *in, size_t *length)
{
    *length = xlv_bytes_left(in);
    return xlv_get_view(in, *length);
}

/* A piece with its length before it, u16, cut to what is there. */
static inline const uint8_t *piece(struct xlv_bytes *in, size_t *length)
{
    *length = xlv_get_u16(in);
    if (*length > xlv_bytes_left(in))
        *length = xlv_bytes_left(in);
    return xlv_get_view(in, *length);
}

/* The same as text, owned by the caller. */
static inline char *text_of(const uint8_t *data, size_t length)
{
    char *text = malloc(length + 1);

    MUST(text);
    for (size_t i = 0; i < length; i++)
        text[i] = (char)data[i];
    text[length] = '\0';
    return text;
}

#endif
