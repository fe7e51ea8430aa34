/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trying a state that comes from elsewhere (xl-vtpm import), before it is
 * anybody's. Leaves the engine off.
 */
#ifndef XLV_TRY_H
#define XLV_TRY_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"

/*
 * Loads the permanent state (a container) and switches the TPM on as at a boot.
 * *out (owned by the caller, xlv_engine_wipe()) is the same state as the libtpms
 * of now writes it, from before that boot. A TPM 1.2 is made one whose presence can be locked
 * (engine.h, startup): others' firmware leaves the command for it disabled. XLV_E_CORRUPT, XLV_E_VERSION,
 * XLV_E_WRONG_OWNER as xlv_engine_load(); XLV_E_TPM: it loads but does not start.
 */
int xlv_try(enum xlv_tpm_version version, const uint8_t *permanent, size_t length, uint8_t **out,
            size_t *out_length, struct xlv_error *e);

#endif
