/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The container of a permanent state: see container.h. */
#include "config.h"

#include "backend/container.h"

#include <errno.h>
#include <stdlib.h>

#include "common/bytes.h"
#include "include/limits.h"

#define MAGIC 0x53505658u /* "XVPS" */
#define ENTRY_PERMALL 1u
#define ENTRY_SAVESTATE 2u
#define ENTRY_MARK 4u

int xlv_container_read(const uint8_t *data, size_t length, struct xlv_container *out,
                       struct xlv_error *e)
{
    struct xlv_bytes c = xlv_bytes_reader(data, length);
    uint32_t magic = xlv_get_u32(&c);
    unsigned format = xlv_get_u16(&c), tpm = xlv_get_u16(&c);

    *out = (struct xlv_container){ .version = (enum xlv_tpm_version)tpm };
    if (!xlv_bytes_ok(&c) || magic != MAGIC)
        return xlv_fail(e, XLV_E_CORRUPT, "the permanent state is not one of ours "
                        "(%zu bytes, wrong beginning)", length);
    if (format != XLV_PERMANENT_FORMAT)
        return xlv_fail(e, XLV_E_VERSION, "the permanent state has format %u, this program "
                        "knows %u: it was written by a newer libxl-vtpm, install that one",
                        format, XLV_PERMANENT_FORMAT);
    while (xlv_bytes_left(&c)) {
        unsigned type = xlv_get_u16(&c), zero = xlv_get_u16(&c);
        uint32_t size = xlv_get_u32(&c);
        const uint8_t *bytes = xlv_get_view(&c, size), **view;
        size_t *view_length;

        if (!bytes || zero)
            return xlv_fail(e, XLV_E_CORRUPT, "the permanent state is cut short or damaged");
        if (type == ENTRY_MARK)
            return xlv_fail(e, XLV_E_REFUSED, "the TPM is a clone that has not got an identity of "
                            "its own yet");
        if (type == ENTRY_PERMALL) {
            view = &out->permall;
            view_length = &out->permall_length;
        } else if (type == ENTRY_SAVESTATE && tpm == XLV_TPM_1_2) {
            view = &out->savestate;
            view_length = &out->savestate_length;
        } else {
            return xlv_fail(e, XLV_E_VERSION, "the permanent state has an entry of type %u that "
                            "this program does not know: it was written by a newer libxl-vtpm",
                            type);
        }
        if (*view || !size)
            return xlv_fail(e, XLV_E_CORRUPT, "the permanent state has a bad entry of type %u",
                            type);
        *view = bytes;
        *view_length = size;
    }
    if (!xlv_bytes_ok(&c) || !out->permall)
        return xlv_fail(e, XLV_E_CORRUPT, "the permanent state is cut short or damaged");
    return 0;
}

static void put_entry(struct xlv_bytes *w, unsigned type, const uint8_t *data, size_t length)
{
    xlv_put_u16(w, (uint16_t)type);
    xlv_put_u16(w, 0);
    xlv_put_u32(w, (uint32_t)length);
    xlv_put_data(w, data, length);
}

int xlv_container_write(const struct xlv_container *c, uint8_t **out, size_t *length,
                        struct xlv_error *e)
{
    size_t size = XLV_CONTAINER_HEADER + XLV_CONTAINER_ENTRY + c->permall_length +
                  (c->savestate ? XLV_CONTAINER_ENTRY + c->savestate_length : 0);
    struct xlv_bytes w;
    uint8_t *bytes;

    *out = NULL;
    *length = 0;
    if (size > XLV_PERMANENT_MAX)
        return xlv_fail(e, -EFBIG, "the TPM's permanent state has grown to %zu bytes, the limit "
                        "is %u", size, XLV_PERMANENT_MAX);
    bytes = malloc(size);
    if (!bytes)
        return -ENOMEM;
    w = xlv_bytes_writer(bytes, size);
    xlv_put_u32(&w, MAGIC);
    xlv_put_u16(&w, XLV_PERMANENT_FORMAT);
    xlv_put_u16(&w, (uint16_t)c->version);
    put_entry(&w, ENTRY_PERMALL, c->permall, c->permall_length);
    if (c->savestate)
        put_entry(&w, ENTRY_SAVESTATE, c->savestate, c->savestate_length);
    *out = bytes;
    *length = size;
    return 0;
}

int xlv_container_mark(const uint8_t *data, size_t length, uint8_t **out, size_t *out_length,
                       struct xlv_error *e)
{
    size_t size = length + XLV_CONTAINER_ENTRY;
    struct xlv_bytes w;
    uint8_t *bytes;

    *out = NULL;
    *out_length = 0;
    if (size > XLV_PERMANENT_MAX)
        return xlv_fail(e, -EFBIG, "the TPM's permanent state has %zu bytes, the limit is %u",
                        size, XLV_PERMANENT_MAX);
    bytes = malloc(size);
    if (!bytes)
        return -ENOMEM;
    w = xlv_bytes_writer(bytes, size);
    xlv_put_data(&w, data, length);
    put_entry(&w, ENTRY_MARK, NULL, 0);
    *out = bytes;
    *out_length = size;
    return 0;
}

bool xlv_container_marked(const uint8_t *data, size_t length, size_t *unmarked)
{
    struct xlv_bytes c = xlv_bytes_reader(data, length);
    unsigned type = 0;
    size_t at = 0;

    xlv_get_view(&c, XLV_CONTAINER_HEADER);
    while (xlv_bytes_left(&c)) {
        at = c.at;
        type = xlv_get_u16(&c);
        (void)xlv_get_u16(&c);
        (void)xlv_get_view(&c, xlv_get_u32(&c));
    }
    *unmarked = at;
    return xlv_bytes_ok(&c) && type == ENTRY_MARK && length - at == XLV_CONTAINER_ENTRY;
}
