/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whole states of instances, for the command: read while their guests run, made
 * instances of, put in the place of others. On the files and the registry, which
 * a daemon may use at the same time.
 */
#ifndef XLV_STATES_H
#define XLV_STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "libxl-vtpm/certificate.h"
#include "libxl-vtpm/keys.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/settings.h"

struct xlv_states {
    const struct xlv_settings *settings; /* borrowed */
    struct xlv_registry *registry;
    struct xlv_keys *keys;
    bool have_journal_key;
};

/* create: where there is no registry yet it is made, and with no state of any instance the
 * master key. deinit is safe after a failed init. */
int xlv_states_init(struct xlv_states *states, const struct xlv_settings *settings, bool create,
                    struct xlv_error *e);
void xlv_states_deinit(struct xlv_states *states);

/*
 * The newest durable container of an instance, without a kept state; *data is the caller's
 * (xlv_wipe()). Takes no lock: a guest may be served and change it meanwhile. XLV_E_REFUSED:
 * another host has it; XLV_E_EMPTY: no TPM was made yet; else as xlv_store_load().
 */
int xlv_states_read(struct xlv_states *states, const struct xlv_instance *instance,
                    uint8_t **data, size_t *length, struct xlv_error *e);

/*
 * Copies in memory of the two slots, of between two commits, as a load of them has shown: what it
 * gave is returned. Where the store is not whole or its directory cannot be opened, that is
 * returned, with copies of what there is. slots are the caller's, also on error; -1 where there is
 * none (XLV_E_EMPTY, if no TPM was made yet). Takes no lock.
 */
int xlv_states_copy(struct xlv_states *states, const struct xlv_instance *instance, int slots[2],
                    struct xlv_error *e);

/*
 * The PCRs of the instance's TPM at some instant (backend/pcrs.h), found out by a copy of it; the
 * guest's own notices nothing. Of the boot that the journal tells of, which is that of a domain
 * that runs, unless nobody saw its end; else those that a suspended domain comes back to, and
 * *suspended says so.
 * XLV_E_EMPTY: the TPM is off, or was never made; else as xlv_states_read(), or xlv_task_pcrs().
 */
int xlv_states_pcrs(struct xlv_states *states, const struct xlv_instance *instance,
                    uint8_t **data, size_t *length, bool *suspended, struct xlv_error *e);

/* A new instance with this container, READY; all of it or nothing, see xlv_registry_adopt(). */
int xlv_states_adopt(struct xlv_states *states, const struct xlv_uuid *uuid,
                     enum xlv_tpm_version version, const char *label, const uint8_t *data,
                     size_t length, struct xlv_instance *instance, struct xlv_error *e);

/*
 * The container becomes the next generation of the instance's store, in one commit: before it
 * the old TPM is whole, after it the new one. What a journal has of the old one is gone.
 * XLV_E_IN_USE; XLV_E_REFUSED: another host has it, or it is of the other TPM version.
 */
int xlv_states_replace(struct xlv_states *states, const struct xlv_uuid *uuid,
                       enum xlv_tpm_version version, const uint8_t *data, size_t length,
                       struct xlv_instance *instance, struct xlv_error *e);

/*
 * Clears the instance's TPM of its owner (backend/clear.h), in one commit. XLV_E_IN_USE;
 * XLV_E_REFUSED: another host has it, it is deleted, or a suspended domain goes on with it.
 */
int xlv_states_clear(struct xlv_states *states, const struct xlv_uuid *uuid,
                     struct xlv_instance *instance, struct xlv_error *e);

/*
 * Another instance with the same permanent state. renew: it gets an identity of its own when its
 * TPM is made, which is not yet (xlv_renew() in backend/manufacture.h). XLV_E_EXISTS; XLV_E_IN_USE:
 * the source is; XLV_E_REFUSED: another host has that, it is deleted, or a TPM 1.2 cannot.
 */
int xlv_states_clone(struct xlv_states *states, const struct xlv_uuid *source,
                     const struct xlv_uuid *uuid, const char *label, bool renew,
                     struct xlv_instance *instance, struct xlv_error *e);

/*
 * Another TPM under the same uuid: *instance, which is new and whose TPM is made at its first use.
 * What it was is *earlier, a tombstone with a uuid of its own, as after a delete. In one step.
 * XLV_E_EMPTY: there is no TPM yet; else as xlv_states_clear(). A state that cannot be read
 * cannot be kept either: then nothing is done.
 */
int xlv_states_reset(struct xlv_states *states, const struct xlv_uuid *uuid,
                     struct xlv_instance *instance, struct xlv_instance *earlier,
                     struct xlv_error *e);

/*
 * Notes in the registry which TPM it is: endorsement keys and certificates, as a copy of its state
 * tells. For those that were not made here. Else as xlv_states_read().
 */
int xlv_states_identify(struct xlv_states *states, const struct xlv_instance *instance,
                        struct xlv_error *e);

/*
 * The TPM gets a certificate that another CA signed for one of its keys, in one commit, in the
 * place of one that it has. place: enum xlv_ek, of this key; XLV_CERTIFICATE_PLATFORM, it is the
 * platform's; XLV_CERTIFICATES, of whichever key it is. TPM 1.2 takes none once it is made: there,
 * and then *noted is true, it is noted in the registry alone. XLV_E_REFUSED: it is for no key of
 * this TPM, or for another one; else as xlv_states_clear().
 */
int xlv_states_certify(struct xlv_states *states, const struct xlv_uuid *uuid,
                       const struct xlv_certificate *certificate, unsigned place, bool *noted,
                       struct xlv_instance *instance, struct xlv_error *e);

#endif
