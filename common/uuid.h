/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The uuid of an instance, in network byte order as RFC 4122 writes it.
 * Parsing is libuuid's uuid_parse, which is what libxl_uuid_from_string uses,
 * so that we accept exactly what xl accepts.
 */
#ifndef XLV_UUID_H
#define XLV_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define XLV_UUID_TEXT 37 /* 36 characters and a NUL */

struct xlv_uuid {
    uint8_t b[16];
};

/* Returns 0 or XLV_E_INVALID (no dashes, braces, text behind it, ...). */
int xlv_uuid_parse(struct xlv_uuid *uuid, const char *text);

/* Lower case, as libxl writes it. Returns text. */
const char *xlv_uuid_format(const struct xlv_uuid *uuid, char text[XLV_UUID_TEXT]);

/* A fresh random (version 4) uuid. */
void xlv_uuid_generate(struct xlv_uuid *uuid);

bool xlv_uuid_is_nil(const struct xlv_uuid *uuid);
bool xlv_uuid_equal(const struct xlv_uuid *a, const struct xlv_uuid *b);

#endif
