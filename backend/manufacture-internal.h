/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of manufacture share with each other, and nobody else. */
#ifndef XLV_MANUFACTURE_INTERNAL_H
#define XLV_MANUFACTURE_INTERNAL_H

#include "backend/manufacture.h"

/* Executes one command, which has to succeed; *response (may be NULL) is valid until the next. */
int xlv_manufacture_send(const char *name, const uint8_t *request, size_t length,
                         const uint8_t **response, size_t *response_length, struct xlv_error *e);

/* Equips the new TPM, which is on and not started yet. */
int xlv_manufacture_1_2(const struct xlv_manufacture *how, struct xlv_error *e);
int xlv_manufacture_2_0(const struct xlv_manufacture *how, struct xlv_error *e);

/* The same of what a TPM 2.0, which is on and not started yet, has of its old identity. */
int xlv_renew_2_0(const struct xlv_manufacture *how, struct xlv_error *e);

/* What identifies a TPM that is on and not started yet, and, after it, other certificates for a
 * TPM 2.0, with the orderly end. */
int xlv_identify_1_2(struct xlv_msg_endorsement *keys, struct xlv_msg_certificates *held,
                     struct xlv_error *e);
int xlv_identify_2_0(struct xlv_msg_endorsement *keys, struct xlv_msg_certificates *held,
                     struct xlv_error *e);
int xlv_certify_2_0(const struct xlv_msg_certificates *certificates, struct xlv_error *e);

/* Of a command that may be answered with an error, as the TPM does not have what it is about: 0
 * instead of XLV_E_TPM. */
int xlv_manufacture_lacks(int r, struct xlv_error *e);

/* keys to certificates, or none. */
int xlv_manufacture_certify(const struct xlv_manufacture *how,
                            const struct xlv_msg_endorsement *keys,
                            struct xlv_msg_certificates *certificates, struct xlv_error *e);

#endif
