/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work on a TPM that nobody is served with, for the command: a vtpm-backend
 * process is started on a store in memory, does it in its sandbox, and ends.
 * So no byte of a state from elsewhere reaches libtpms in a process that holds
 * more than that state.
 */
#ifndef XLV_TASK_H
#define XLV_TASK_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "include/launch.h"
#include "libxl-vtpm/settings.h"

/*
 * mode: TRY or CLEAR. in: a container, at most XLV_PERMANENT_MAX. *out is the caller's
 * (xlv_wipe()). What the backend says of the state is returned as it is, with its sentence;
 * -ETIMEDOUT: it was ended after a minute; -EIO: it died.
 */
int xlv_task(const struct xlv_settings *settings, enum xlv_launch_mode mode,
             enum xlv_tpm_version version, const uint8_t *in, size_t in_length, uint8_t **out,
             size_t *out_length, struct xlv_error *e);

/* Copies of what an instance has, in memory; borrowed. */
struct xlv_copies {
    struct xlv_uuid uuid;
    int slots[2], journal; /* journal -1: there is none */
    uint8_t instance_key[XLV_KEY_SIZE], journal_key[XLV_KEY_SIZE];
    uint32_t domid; /* that the journal is of */
};

/* mode PCRS: *out is what backend/pcrs.h says. The copies are written to. Else as xlv_task(). */
int xlv_task_pcrs(const struct xlv_settings *settings, enum xlv_tpm_version version,
                  const struct xlv_copies *copies, uint8_t **out, size_t *out_length,
                  struct xlv_error *e);

/*
 * mode IDENTIFY: what the state's TPM tells of itself, as that process says it: to be judged. With
 * certificates (length 0: leave what there is) *out is the state that has them; NULL: only look,
 * and *out is NULL. held may be NULL. Else as xlv_task().
 */
int xlv_task_identify(const struct xlv_settings *settings, enum xlv_tpm_version version,
                      const uint8_t *in, size_t in_length, struct xlv_msg_endorsement *keys,
                      struct xlv_msg_certificates *held,
                      const struct xlv_msg_certificates *certificates, uint8_t **out,
                      size_t *out_length, struct xlv_error *e);

#endif
