/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bounded cursor over bytes, for reading and writing formats field by field.
 *
 * Errors stick: after the first access beyond the end every read gives zero
 * and every write is dropped; the caller checks xlv_bytes_ok() once, at the
 * end. The cursor never owns its memory.
 */
#ifndef XLV_BYTES_H
#define XLV_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xlv_bytes {
    uint8_t *data;
    size_t length; /* of data */
    size_t at;     /* bytes read or written so far */
    bool failed;
};

struct xlv_bytes xlv_bytes_writer(void *data, size_t length);
struct xlv_bytes xlv_bytes_reader(const void *data, size_t length);

static inline bool xlv_bytes_ok(const struct xlv_bytes *c)
{
    return !c->failed;
}

/* What is left to read, or the room left to write. */
static inline size_t xlv_bytes_left(const struct xlv_bytes *c)
{
    return c->failed ? 0 : c->length - c->at;
}

/* Our own formats are little endian; TPM commands are big endian (_be). */
void xlv_put_u8(struct xlv_bytes *c, uint8_t v);
void xlv_put_u16(struct xlv_bytes *c, uint16_t v);
void xlv_put_u32(struct xlv_bytes *c, uint32_t v);
void xlv_put_u64(struct xlv_bytes *c, uint64_t v);
void xlv_put_u16_be(struct xlv_bytes *c, uint16_t v);
void xlv_put_u32_be(struct xlv_bytes *c, uint32_t v);
void xlv_put_data(struct xlv_bytes *c, const void *data, size_t length);

uint8_t xlv_get_u8(struct xlv_bytes *c);
uint16_t xlv_get_u16(struct xlv_bytes *c);
uint32_t xlv_get_u32(struct xlv_bytes *c);
uint64_t xlv_get_u64(struct xlv_bytes *c);
uint16_t xlv_get_u16_be(struct xlv_bytes *c);
uint32_t xlv_get_u32_be(struct xlv_bytes *c);
void xlv_get_data(struct xlv_bytes *c, void *data, size_t length);

/* Steps over length bytes and returns where they are, or NULL beyond the end. */
const uint8_t *xlv_get_view(struct xlv_bytes *c, size_t length);

/* Erases and frees what malloc() gave and held a secret; NULL is fine. */
void xlv_wipe(void *data, size_t length);

#endif
