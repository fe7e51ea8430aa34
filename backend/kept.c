/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kept states: see kept.h. */
#include "config.h"

#include "backend/kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/container.h"
#include "common/bytes.h"
#include "common/error.h"
#include "include/limits.h"

#define ENTRY_KEPT 3u
#define KEPT_HEADER 8u /* domid, zero */

int xlv_kept_split(const uint8_t *container, size_t length, struct xlv_kept *kept,
                   size_t *permanent_length)
{
    struct xlv_bytes c = xlv_bytes_reader(container, length);

    *kept = (struct xlv_kept){ .there = false };
    *permanent_length = length;
    xlv_get_view(&c, XLV_CONTAINER_HEADER);
    while (xlv_bytes_left(&c)) {
        size_t at = c.at;
        unsigned type = xlv_get_u16(&c), zero = xlv_get_u16(&c);
        uint32_t size = xlv_get_u32(&c), reserved;

        if (type != ENTRY_KEPT || !xlv_bytes_ok(&c)) {
            /* whatever is wrong with it is the engine's to say */
            xlv_get_view(&c, size);
            continue;
        }
        kept->domid = xlv_get_u32(&c);
        reserved = xlv_get_u32(&c);
        if (zero || reserved || size <= KEPT_HEADER || size - KEPT_HEADER > XLV_VOLATILE_MAX)
            return XLV_E_CORRUPT;
        kept->volatile_length = size - KEPT_HEADER;
        kept->volatile_state = xlv_get_view(&c, kept->volatile_length);
        /* it is the last entry, and there is one */
        if (!kept->volatile_state || xlv_bytes_left(&c))
            return XLV_E_CORRUPT;
        kept->there = true;
        *permanent_length = at;
    }
    return 0;
}

int xlv_kept_join(const uint8_t *permanent, size_t length, const struct xlv_kept *kept,
                  uint8_t **out, size_t *out_length)
{
    size_t size = length + XLV_CONTAINER_ENTRY + KEPT_HEADER + kept->volatile_length;
    struct xlv_bytes c;
    uint8_t *bytes;

    *out = NULL;
    *out_length = 0;
    if (!kept->volatile_length || kept->volatile_length > XLV_VOLATILE_MAX ||
        size > XLV_PERMANENT_MAX)
        return XLV_E_INVALID;
    bytes = malloc(size);
    if (!bytes)
        return -ENOMEM;
    c = xlv_bytes_writer(bytes, size);
    xlv_put_data(&c, permanent, length);
    xlv_put_u16(&c, ENTRY_KEPT);
    xlv_put_u16(&c, 0);
    xlv_put_u32(&c, (uint32_t)(KEPT_HEADER + kept->volatile_length));
    xlv_put_u32(&c, kept->domid);
    xlv_put_u32(&c, 0);
    xlv_put_data(&c, kept->volatile_state, kept->volatile_length);
    *out = bytes;
    *out_length = size;
    return 0;
}
