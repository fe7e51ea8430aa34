/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Manufacture: what a maker does to a TPM before it is sold, and the firmware
 * of a new machine before the first system boots. Leaves the engine off.
 *
 * The private halves of all keys are the TPM's and stay in it. Certificates
 * are somebody else's to sign: their key has no business in this process.
 */
#ifndef XLV_MANUFACTURE_H
#define XLV_MANUFACTURE_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"

typedef int xlv_exchange(const struct xlv_msg_endorsement *keys,
                         struct xlv_msg_certificates *certificates, void *opaque,
                         struct xlv_error *e);

struct xlv_manufacture {
    enum xlv_tpm_version version;
    uint32_t banks; /* of enum xlv_bank: those that are on; 2.0 only, at least one */
    /*
     * Gives certificates for keys (zeroed on entry; lengths are checked by the
     * caller), by whatever takes what time; an error ends the manufacture. NULL: none.
     */
    xlv_exchange *certify;
    void *opaque;
};

/*
 * Makes a TPM: *permanent (owned by the caller, xlv_engine_wipe()) is its
 * first permanent state, certificates in it.
 *   2.0  EKs and SRK at their handles, PCR banks as of the next startup,
 *        certificates at their NV indices, written once and for all; every
 *        hierarchy's authorization is empty
 *   1.2  an EK (RSA 2048) and its certificate, enabled and activated as of the
 *        next startup, no owner, NV authorizations enforced (nvLocked)
 * XLV_E_TPM, -errno, and what certify returns.
 */
int xlv_manufacture(const struct xlv_manufacture *how, uint8_t **permanent, size_t *length,
                    struct xlv_error *e);

/* Handles and indices (TCG EK Credential Profile 2.5, TPM v2.0 Provisioning Guidance 1.0). */
#define XLV_HANDLE_EK_RSA_2048 0x81010001u
#define XLV_HANDLE_EK_P256 0x8101000au
#define XLV_HANDLE_EK_P384 0x81010016u
#define XLV_HANDLE_SRK 0x81000001u
#define XLV_NV_EK_RSA_2048 0x01c00002u
#define XLV_NV_EK_P256 0x01c0000au
#define XLV_NV_EK_P384 0x01c00016u
#define XLV_NV_PLATFORM 0x01c08000u
#define XLV_NV_1_2_EK 0x1000f000u

/*
 * The same TPM 2.0 with another identity: endorsement seed, EKs and certificates are new, the keys
 * of its endorsement hierarchy gone. What its owner has stays: seed, keys, NV, passwords, lockout.
 * old: a container, unmarked. Else as xlv_manufacture(); XLV_E_REFUSED: TPM 1.2 cannot.
 */
int xlv_renew(const struct xlv_manufacture *how, const uint8_t *old, size_t old_length,
              uint8_t **permanent, size_t *length, struct xlv_error *e);

/*
 * What identifies a TPM that nobody is served with, wherever it was made: exchange() gets the
 * public halves of its EKs (length 0: it has none, or its owner lets nobody see it) and the
 * certificates that it holds, and puts in their place what it is to hold instead (length 0: what
 * it has). permanent is a container. *out: its state with these (xlv_engine_wipe()); NULL where
 * there are none. XLV_E_REFUSED: TPM 1.2 takes none; XLV_E_TPM: an index is taken by something of
 * the guest's; what exchange() returns; else as xlv_engine_load().
 */
int xlv_identify(enum xlv_tpm_version version, xlv_exchange *exchange, void *opaque,
                 const uint8_t *permanent, size_t length, uint8_t **out, size_t *out_length,
                 struct xlv_error *e);

#endif
