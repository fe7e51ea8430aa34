/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Manufacture: what a maker does to a TPM before it is sold, and the firmware
 * of a new machine before the first system boots. Leaves the engine off.
 */
#ifndef XLV_MANUFACTURE_H
#define XLV_MANUFACTURE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"

/*
 * Makes a TPM: *permanent (owned by the caller, xlv_engine_wipe()) is its
 * first permanent state.
 *   2.0  with fresh seeds; keys are derived from these when they are asked for
 *   1.2  with an endorsement key (RSA 2048), enabled and activated as of its
 *        next startup, no owner, NV authorizations enforced (nvLocked)
 */
int xlv_manufacture(enum xlv_tpm_version version, uint8_t **permanent, size_t *length,
                    struct xlv_error *e);

#endif
