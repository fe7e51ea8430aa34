/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PCRs of a TPM, as bytes (xl-vtpm pcrs): read of a copy of it, so that the TPM that a guest
 * has knows nothing of it. A TPM audits reads, too, where its owner wants that, and an exclusive
 * session is not exclusive after one: both would show in the guest.
 *
 *     u32 magic "XPCR", u32 domid, u32 number of banks, and for each: u16 algorithm (TPM_ALG_ID),
 *     u16 size of a digest, XLV_PCRS digests. Little endian.
 */
#ifndef XLV_PCRS_H
#define XLV_PCRS_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"

#define XLV_PCRS 24u
#define XLV_PCRS_MAGIC 0x52435058u /* "XPCR" */

/*
 * container: a permanent state with a kept one behind it (kept.h). *out is owned by the caller
 * (xlv_engine_wipe()). XLV_E_EMPTY: there is no kept state, so the TPM is off and has no PCRs;
 * XLV_E_TPM: it does not tell them; else as xlv_engine_load(). Leaves the engine off.
 */
int xlv_pcrs(enum xlv_tpm_version version, const uint8_t *container, size_t length,
             uint8_t **out, size_t *out_length, struct xlv_error *e);

#endif
