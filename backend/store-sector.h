/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sectors of a slot: what store.c and slots.c both know of the format.
 *
 * A slot is a row of 512-byte sectors, the unit that a disk writes whole or
 * not at all. 496 bytes are contents, the last 16 are a stamp:
 *     u64 generation (0: blank), u32 attempt, u32 check
 * The check tells a stamp of ours from rot; zeros and ones do not pass it.
 */
#ifndef XLV_STORE_SECTOR_H
#define XLV_STORE_SECTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/bytes.h"

#define XLV_SECTOR 512u
#define XLV_SECTOR_STAMP 16u
#define XLV_SECTOR_DATA (XLV_SECTOR - XLV_SECTOR_STAMP)

struct xlv_stamp {
    uint64_t generation;
    uint32_t attempt;
};

/* The rotations keep one error in the same bit of two words from cancelling. */
static inline uint32_t xlv_stamp_check(const struct xlv_stamp *s)
{
    uint32_t low = (uint32_t)s->generation, high = (uint32_t)(s->generation >> 32);

    return ~(low ^ (high << 11 | high >> 21) ^ (s->attempt << 22 | s->attempt >> 10));
}

static inline void xlv_stamp_put(uint8_t *sector, const struct xlv_stamp *s)
{
    struct xlv_bytes w = xlv_bytes_writer(sector + XLV_SECTOR_DATA, XLV_SECTOR_STAMP);

    xlv_put_u64(&w, s->generation);
    xlv_put_u32(&w, s->attempt);
    xlv_put_u32(&w, xlv_stamp_check(s));
}

/* False: not a stamp. */
static inline bool xlv_stamp_get(const uint8_t *sector, struct xlv_stamp *s)
{
    struct xlv_bytes r = xlv_bytes_reader(sector + XLV_SECTOR_DATA, XLV_SECTOR_STAMP);

    s->generation = xlv_get_u64(&r);
    s->attempt = xlv_get_u32(&r);
    return xlv_get_u32(&r) == xlv_stamp_check(s);
}

/* length must be whole sectors. */
static inline void xlv_sectors_blank(uint8_t *data, size_t length)
{
    static const struct xlv_stamp blank;

    if (length) /* data may be NULL then */
        memset(data, 0, length);
    for (size_t at = 0; at < length; at += XLV_SECTOR)
        xlv_stamp_put(data + at, &blank);
}

static inline bool xlv_sector_is_blank(const uint8_t *sector)
{
    uint8_t blank[XLV_SECTOR];

    xlv_sectors_blank(blank, sizeof(blank));
    return !memcmp(sector, blank, sizeof(blank));
}

#endif
