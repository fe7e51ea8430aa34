/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kept states: the TPM of a domain that was suspended, from then until the
 * domain is restored. The volatile state is put behind the permanent one of
 * the same instant, as the last entry of the same container (docs/formats.md),
 * and both are one commit of the store. So the pair can be neither torn nor
 * mixed up, it is sealed and durable like all of the store, goes where the
 * store goes (a backup, another host), and is over with the next commit.
 *
 * Pure functions on bytes.
 */
#ifndef XLV_KEPT_H
#define XLV_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A view into a container. */
struct xlv_kept {
    bool there;
    uint32_t domid; /* that was suspended */
    const uint8_t *volatile_state;
    size_t volatile_length;
};

/*
 * Looks for a kept state; *permanent_length is what comes before it (all of
 * the container where there is none). Contents are not judged but for the
 * entry's own shape: XLV_E_CORRUPT.
 */
int xlv_kept_split(const uint8_t *container, size_t length, struct xlv_kept *kept,
                   size_t *permanent_length);

/*
 * permanent with kept behind it; *out is the caller's (xlv_engine_wipe()).
 * -ENOMEM, XLV_E_INVALID: larger than the store takes.
 */
int xlv_kept_join(const uint8_t *permanent, size_t length, const struct xlv_kept *kept,
                  uint8_t **out, size_t *out_length);

#endif
