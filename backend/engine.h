/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine: the one TPM of this process, and the only user of libtpms.
 *
 * libtpms keeps its TPM in global variables, so there is one engine per
 * process and these functions take no handle. It is on between
 * xlv_engine_load() or xlv_engine_create() and xlv_engine_off().
 *
 * State comes and goes as two opaque byte strings:
 *   permanent   a versioned container of ours (container.h): libtpms's
 *               "permall" and, for TPM 1.2, "savestate"
 *   volatile    libtpms's volatile state as it is
 * A permanent and a volatile state restore the TPM exactly if, and only if,
 * they are of the same instant; keeping such pairs together is the session's
 * and the journal's business.
 *
 * libtpms hands over permanent state in the middle of a command. The engine
 * only buffers it: it becomes durable when the session has committed what
 * xlv_engine_permanent() returns.
 */
#ifndef XLV_ENGINE_H
#define XLV_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/container.h"
#include "backend/eventlog.h"
#include "common/error.h"
#include "include/launch.h"

/*
 * Powers on a new TPM that has never existed before (endorsement seed or keys
 * and all). Only for manufacture.h: everything else loads. -errno, XLV_E_TPM.
 */
int xlv_engine_create(enum xlv_tpm_version version, struct xlv_error *e);

/*
 * Powers on the TPM of a permanent state; with a volatile state (NULL: none)
 * it goes on exactly where that one was taken, without, it needs
 * xlv_engine_startup(). Never makes a new TPM: XLV_E_CORRUPT for a container
 * or a state that does not verify, XLV_E_VERSION for a newer container,
 * XLV_E_WRONG_OWNER for the other TPM version. The engine is off then.
 */
int xlv_engine_load(enum xlv_tpm_version version, const uint8_t *permanent,
                    size_t permanent_length, const uint8_t *volatile_state,
                    size_t volatile_length, struct xlv_error *e);

/* Power off, without any ceremony; what was not taken out is gone. */
void xlv_engine_off(void);

/*
 * Executes one command of the guest; request_length at most XLV_TPM_BUFFER_MAX.
 * *response is valid until the next call and *response_length at least 10.
 * XLV_E_TPM: libtpms gave no response at all; the TPM's state is unknown then.
 */
int xlv_engine_execute(uint8_t locality, const uint8_t *request, size_t request_length,
                       const uint8_t **response, size_t *response_length, struct xlv_error *e);

/* One of our own commands, of that name, which has to succeed, or may be answered with the code
 * `may` (0: with none). XLV_E_TPM, with a sentence that names both; else as xlv_engine_execute(). */
int xlv_engine_command(const char *name, const uint8_t *request, size_t length, uint32_t may,
                       struct xlv_error *e);

/* Asks the running command to end early (TPM 2.0 only). Nothing but a flag in
 * libtpms is set, so a signal handler may call it. */
void xlv_engine_cancel(void);

/* Whether permanent state was stored since the last xlv_engine_permanent(). */
bool xlv_engine_changed(void);

/*
 * The permanent state as of now, owned by the caller (xlv_engine_wipe()).
 * The change counts as taken: xlv_engine_changed() is false afterwards.
 */
int xlv_engine_permanent(uint8_t **data, size_t *length, struct xlv_error *e);

/* The volatile state as of now, owned by the caller (xlv_engine_wipe()). */
int xlv_engine_volatile(uint8_t **data, size_t *length, struct xlv_error *e);

/* Erases and frees a state; NULL is fine. */
void xlv_engine_wipe(uint8_t *data, size_t length);

/*
 * What firmware does when a machine is switched on: TPM2_Startup(CLEAR), or
 * TPM_Startup(ST_CLEAR) and the lock of physical presence. Once per boot of
 * the domain, never at a reconnect.
 */
int xlv_engine_startup(struct xlv_error *e);

/* The banks that are active (TPM 1.2: SHA-1), and one extend of all of them. */
int xlv_engine_banks(unsigned *banks, struct xlv_error *e);
int xlv_engine_extend(uint32_t pcr, const struct xlv_digests *digests, struct xlv_error *e);

/*
 * The orderly end of a boot: TPM2_Shutdown(CLEAR), without which TPM 2.0
 * counts the next start as a possible attack on its dictionary-attack logic.
 * TPM 1.2 has nothing of the kind. Fills in the exchange for the journal
 * (lengths 0 for TPM 1.2); request has room for XLV_COMMAND_MAX bytes and
 * *response is valid until the next call.
 */
int xlv_engine_shutdown(uint8_t *request, size_t *request_length, const uint8_t **response,
                        size_t *response_length, struct xlv_error *e);

/*
 * Stirs fresh entropy of the host into the TPM's random generator. Needed
 * after every load with a volatile state: the state of TPM 2.0's generator is
 * part of it, so that two heirs of one state would give the same "random"
 * bytes. TPM 1.2 draws from the host each time and is left alone.
 *
 * For TPM 2.0 this is TPM2_StirRandom, a command that changes neither
 * permanent state nor sessions and objects. Its one trace: an exclusive audit
 * session is not exclusive any more, as after any command outside of it.
 */
int xlv_engine_stir(struct xlv_error *e);

/*
 * Whether TPM 2.0 audits more commands than the one that is always audited: then a digest over
 * all of those is part of the volatile state, and a command that else would only read changes it.
 * Asks the TPM; XLV_E_TPM.
 */
int xlv_engine_audits(bool *audits, struct xlv_error *e);

#endif
