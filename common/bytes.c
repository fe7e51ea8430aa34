/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bounded cursor: see bytes.h. */
#include "common/bytes.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

struct xlv_bytes xlv_bytes_writer(void *data, size_t length)
{
    return (struct xlv_bytes){ .data = data, .length = length };
}

struct xlv_bytes xlv_bytes_reader(const void *data, size_t length)
{
    return (struct xlv_bytes){ .data = (uint8_t *)data, .length = length };
}

static uint8_t *step(struct xlv_bytes *c, size_t length)
{
    uint8_t *p;

    if (c->failed || length > c->length - c->at) {
        c->failed = true;
        return NULL;
    }
    p = c->data + c->at;
    c->at += length;
    return p;
}

/* n is 1 to 8, and known where these are inlined: a test, a swap at most, and a store. */
static inline void put_le(struct xlv_bytes *c, uint64_t v, size_t n)
{
    uint8_t *p = step(c, n);

    v = htole64(v);
    if (p)
        memcpy(p, &v, n);
}

static inline void put_be(struct xlv_bytes *c, uint64_t v, size_t n)
{
    uint8_t *p = step(c, n);

    v = htobe64(v << (64 - 8 * n));
    if (p)
        memcpy(p, &v, n);
}

static inline uint64_t get_le(struct xlv_bytes *c, size_t n)
{
    const uint8_t *p = step(c, n);
    uint64_t v = 0;

    if (p)
        memcpy(&v, p, n);
    return le64toh(v);
}

static inline uint64_t get_be(struct xlv_bytes *c, size_t n)
{
    const uint8_t *p = step(c, n);
    uint64_t v = 0;

    if (p)
        memcpy(&v, p, n);
    return be64toh(v) >> (64 - 8 * n);
}

void xlv_put_u8(struct xlv_bytes *c, uint8_t v) { put_le(c, v, 1); }
void xlv_put_u16(struct xlv_bytes *c, uint16_t v) { put_le(c, v, 2); }
void xlv_put_u32(struct xlv_bytes *c, uint32_t v) { put_le(c, v, 4); }
void xlv_put_u64(struct xlv_bytes *c, uint64_t v) { put_le(c, v, 8); }
void xlv_put_u16_be(struct xlv_bytes *c, uint16_t v) { put_be(c, v, 2); }
void xlv_put_u32_be(struct xlv_bytes *c, uint32_t v) { put_be(c, v, 4); }

void xlv_put_data(struct xlv_bytes *c, const void *data, size_t length)
{
    uint8_t *p = step(c, length);

    if (p && length)
        memcpy(p, data, length);
}

uint8_t xlv_get_u8(struct xlv_bytes *c) { return (uint8_t)get_le(c, 1); }
uint16_t xlv_get_u16(struct xlv_bytes *c) { return (uint16_t)get_le(c, 2); }
uint32_t xlv_get_u32(struct xlv_bytes *c) { return (uint32_t)get_le(c, 4); }
uint64_t xlv_get_u64(struct xlv_bytes *c) { return get_le(c, 8); }
uint16_t xlv_get_u16_be(struct xlv_bytes *c) { return (uint16_t)get_be(c, 2); }
uint32_t xlv_get_u32_be(struct xlv_bytes *c) { return (uint32_t)get_be(c, 4); }

void xlv_get_data(struct xlv_bytes *c, void *data, size_t length)
{
    const uint8_t *p = step(c, length);

    if (p)
        memcpy(data, p, length);
    else
        memset(data, 0, length);
}

const uint8_t *xlv_get_view(struct xlv_bytes *c, size_t length)
{
    return step(c, length);
}

void xlv_wipe(void *data, size_t length)
{
    if (data)
        explicit_bzero(data, length);
    free(data);
}
