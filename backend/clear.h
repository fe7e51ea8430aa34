/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clearing a TPM that nobody is served with: what its owner's passwords would be
 * needed for, done by the platform, as the firmware's setup of a real machine
 * does it (xl-vtpm clear). Leaves the engine off.
 */
#ifndef XLV_CLEAR_H
#define XLV_CLEAR_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"

/*
 *   2.0  TPM2_Clear by the platform, also where the owner had disabled it: new storage seed,
 *        no authorizations, no objects and indices of the owner, lockout over (Part 3, 24.6)
 *   1.2  TPM_ForceClear with presence; enabled and activated again (Part 3, 6.2)
 * Endorsement seed or key, certificates, and what the platform defined stay. *out is the state
 * afterwards (xlv_engine_wipe()). XLV_E_TPM: the TPM refuses; else as xlv_engine_load().
 */
int xlv_clear(enum xlv_tpm_version version, const uint8_t *permanent, size_t length,
              uint8_t **out, size_t *out_length, struct xlv_error *e);

#endif
