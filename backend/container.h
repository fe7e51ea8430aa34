/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The container of a permanent state: what store and journal keep, as bytes
 * (docs/formats.md, "The permanent state"). Little endian:
 *     u32 magic "XVPS", u16 format (1), u16 TPM version (12 or 20), then
 *     entries of u16 type, u16 zero, u32 length, bytes; each type at most once:
 *     1  permall    always
 *     2  savestate  TPM 1.2, after TPM_SaveState
 *     3  a kept state, which kept.h puts behind it and takes off
 *     4  the mark of a TPM that has to get another identity before anybody is served with it:
 *        no bytes, and the last entry
 * It carries no checksum: the store and the journal seal what they keep, and
 * libtpms checks its own blobs.
 */
#ifndef XLV_CONTAINER_H
#define XLV_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"

/* Version of the container that this build writes and reads. */
#define XLV_PERMANENT_FORMAT 1u
#define XLV_CONTAINER_HEADER 8u
#define XLV_CONTAINER_ENTRY 8u /* what comes before the bytes of an entry */

struct xlv_container {
    enum xlv_tpm_version version;
    const uint8_t *permall; /* libtpms's own blobs, borrowed */
    size_t permall_length;
    const uint8_t *savestate; /* NULL: none */
    size_t savestate_length;
};

/* XLV_E_CORRUPT, XLV_E_VERSION (written by a newer version). The views are into data. */
int xlv_container_read(const uint8_t *data, size_t length, struct xlv_container *c,
                       struct xlv_error *e);

/* *out is the caller's. -ENOMEM; -EFBIG: larger than XLV_PERMANENT_MAX. */
int xlv_container_write(const struct xlv_container *c, uint8_t **out, size_t *length,
                        struct xlv_error *e);

/*
 * The mark, put behind a container that has none (*out is the caller's: -ENOMEM, -EFBIG), and
 * looked for: true, with the length of what comes before it. A marked container is none for
 * xlv_container_read().
 */
int xlv_container_mark(const uint8_t *data, size_t length, uint8_t **out, size_t *out_length,
                       struct xlv_error *e);
bool xlv_container_marked(const uint8_t *data, size_t length, size_t *unmarked);

#endif
