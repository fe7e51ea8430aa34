/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TPM commands and responses as bytes: the few commands that the backend sends
 * itself, in the place of a machine's firmware, and the error responses it
 * gives where a request never reaches the TPM. Knows both TPM versions; does no
 * I/O and keeps no state.
 *
 * Sources: TPM Main Part 3 (1.2, revision 116), TPM 2.0 Library Part 2 and 3.
 * All fields are big endian.
 */
#ifndef XLV_COMMAND_H
#define XLV_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/eventlog.h"
#include "include/launch.h"

#define XLV_TPM_HEADER_SIZE 10u

/* Why a request is answered without the TPM. */
enum xlv_command_fault {
    XLV_FAULT_SIZE,          /* the length cannot be that of a command */
    XLV_FAULT_LOCALITY,      /* a locality that this guest has not got */
    XLV_FAULT_PAGES,         /* it goes on in extra pages, which are not mapped */
    XLV_FAULT_STORAGE,       /* the change could not be made durable, so it was not made */
    XLV_FAULT_FAILURE,       /* the command kills the TPM, or the TPM has failed */
    XLV_FAULT_RESPONSE_SIZE, /* the response does not fit where the frontend wants it */
    XLV_FAULTS
};

/*
 * Builds the TPM's own error response into response (10 bytes, always).
 * request may be as short as 0 bytes; its tag decides the tag of the response.
 */
size_t xlv_command_error(enum xlv_tpm_version version, const uint8_t *request, size_t length,
                         enum xlv_command_fault fault, uint8_t response[XLV_TPM_HEADER_SIZE]);

/* Ordinal (1.2) or command code (2.0); 0 where there is none. */
uint32_t xlv_command_code(const uint8_t *request, size_t length);

/* responseCode; TPM_FAIL (9) for what is too short to be a response. */
uint32_t xlv_response_code(const uint8_t *response, size_t length);

/* TPM 2.0 response codes that the session reacts to. */
#define XLV_TPM2_RC_FAILURE 0x101u
#define XLV_TPM2_RC_CANCELED 0x909u

/* TPM 1.2 */
#define XLV_TPM12_BAD_PARAMETER 3u

/* Commands: each fills a buffer of XLV_COMMAND_MAX and returns its length. */
#define XLV_COMMAND_MAX 256u

size_t xlv_command_startup(enum xlv_tpm_version version, uint8_t *out); /* CLEAR, ST_CLEAR */
size_t xlv_command_shutdown(uint8_t *out);                              /* 2.0: CLEAR */
size_t xlv_command_stir(const uint8_t *entropy, size_t length, uint8_t *out); /* 2.0 */

/* 2.0: which banks are active? The response: 0 and a set of enum xlv_bank; XLV_E_TPM:
 * it is none, or there is a bank that xlv_hashes does not have. */
size_t xlv_command_get_banks(uint8_t *out);
int xlv_response_banks(const uint8_t *response, size_t length, unsigned *banks);

/* TPM_Extend, or TPM2_PCR_Extend with an empty password, of all banks in digests. */
size_t xlv_command_extend(enum xlv_tpm_version version, uint32_t pcr,
                          const struct xlv_digests *digests, uint8_t *out);

/* TPM_PcrRead, or TPM2_PCR_Read, of one PCR of one bank. The response: XLV_E_TPM where it is not
 * that of a PCR of `size` bytes, else *digest points into it. */
size_t xlv_command_read_pcr(enum xlv_tpm_version version, uint16_t algorithm, uint32_t pcr,
                            uint8_t *out);
int xlv_response_pcr(enum xlv_tpm_version version, const uint8_t *response, size_t length,
                     size_t size, const uint8_t **digest);

/* What the platform does with its empty password: TPM2_ClearControl(NO), TPM2_Clear. */
size_t xlv_command_allow_clear(uint8_t *out);
size_t xlv_command_clear(uint8_t *out);
size_t xlv_command_force_clear(uint8_t *out); /* 1.2 */

/* 1.2: TSC_PhysicalPresence with the given bits (TPM_PHYSICAL_PRESENCE). */
#define XLV_PRESENCE_LOCK 0x0004u
#define XLV_PRESENCE_PRESENT 0x0008u
#define XLV_PRESENCE_NOT_PRESENT 0x0010u
#define XLV_PRESENCE_CMD_ENABLE 0x0020u
size_t xlv_command_presence(uint16_t bits, uint8_t *out);
size_t xlv_command_physical_enable(uint8_t *out);
size_t xlv_command_physical_activate(uint8_t *out); /* PhysicalSetDeactivated(FALSE) */
size_t xlv_command_create_ek(const uint8_t nonce[20], uint8_t *out); /* RSA 2048 */
size_t xlv_command_read_ek(const uint8_t nonce[20], uint8_t *out);   /* ReadPubek */
size_t xlv_command_nv_lock(uint8_t *out); /* NV_DefineSpace(TPM_NV_INDEX_LOCK) */
/* An index that anybody may read, and none may write once a write of no bytes has locked it. */
size_t xlv_command_nv_define(uint32_t index, uint32_t size, uint8_t *out);
/* out has room for XLV_COMMAND_MAX and length bytes more */
size_t xlv_command_nv_write(uint32_t index, uint32_t offset, const uint8_t *data, size_t length,
                            uint8_t *out);
size_t xlv_command_nv_read(uint32_t index, uint32_t offset, uint32_t length, uint8_t *out);

/*
 * What a command may have done to the TPM's state, provided that, with TPM 2.0, commands like it
 * are not audited (xlv_engine_audits()).
 *
 *     NOTHING     it read, provided that it stored nothing permanent. (Every command moves the
 *                 clock; those that tell it are not here.)
 *     READS       the same where it succeeded; else it may have counted the failure: NV_Read by the
 *                 index's own authorisation of more than a PIN index has
 *     DRAWS       it read, with the same proviso, and turned the generator: GetRandom; Sign with
 *                 RSASSA, RSAPSS or ECDSA, with a password (ECDAA ends a commitment; nor is a
 *                 signature the same again)
 *     AGAIN       where it succeeded, the same command on the same pair of states does the same
 *                 again, but for the clock: PCR_Extend, FlushContext, what writes into an NV index,
 *                 and NV_Read by the index's own authorisation of no more than a PIN index has,
 *                 which counts such uses, in memory where it is an orderly one; TPM 1.2: Extend,
 *                 PcrRead (which may be audited, and ends an exclusive transport session), without
 *                 authorisation
 *     AGAIN_DRAWS the same, provided that the generator is as it was: the nonces of sessions are
 *                 drawn from it. StartAuthSession of an HMAC session, and those above authorised
 *                 by one. Not of a policy session, in which time counts.
 *     ANYTHING    every other command, and all in a session that audits
 * TPM 2.0 Part 3: 11.1 StartAuthSession, 12.4 ReadPublic, 16.1 GetRandom, 20.2 Sign, 22.2
 * PCR_Extend, 22.4 PCR_Read, 28.4 FlushContext, 30.2 GetCapability, 31.6 NV_ReadPublic, 31.7 to
 * 31.10 NV_Write, NV_Increment, NV_Extend and NV_SetBits, 31.13 NV_Read; Part 1, 19.6 (what a
 * session's nonces are made from). TPM 1.2 Part 3: 16.1 Extend, 16.2 PCRRead.
 */
enum xlv_command_effect {
    XLV_EFFECT_ANYTHING,
    XLV_EFFECT_AGAIN_DRAWS,
    XLV_EFFECT_AGAIN,
    XLV_EFFECT_DRAWS,
    XLV_EFFECT_READS,
    XLV_EFFECT_NOTHING,
};
enum xlv_command_effect xlv_command_effect(enum xlv_tpm_version version, const uint8_t *request,
                                           size_t length);

/* TPM2_SetCommandCodeAuditStatus: decides what is audited. */
#define XLV_TPM2_CC_SET_AUDIT 0x140u

/* 2.0: GetCapability(TPM_CAP_AUDIT_COMMANDS), and whether its response names another command than
 * SetCommandCodeAuditStatus, which is always audited; true for what is no such response. */
size_t xlv_command_get_audited(uint8_t *out);
bool xlv_response_audits(const uint8_t *response, size_t length);

/* Is this a successful TPM2_Shutdown(CLEAR), sent without sessions? */
bool xlv_command_was_shutdown(const uint8_t *request, size_t request_length,
                              const uint8_t *response, size_t response_length);

#endif
