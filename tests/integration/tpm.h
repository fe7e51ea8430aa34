/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tpm.h - the handful of TPM commands the integration tests send, through a scripted frontend.
 *
 * Each function sends one command and returns the TPM's response code (0 is success), or a
 * negative -errno of the frontend: TPM_BAD_ANSWER where the answer is not even a TPM response.
 */
#ifndef INTEGRATION_TPM_H
#define INTEGRATION_TPM_H

#include <stddef.h>
#include <stdint.h>

#include "tests/fake/frontend.h"

#define TPM_TIMEOUT 15000
#define TPM_BAD_ANSWER (-1000)
#define TPM2_NV_INDEX 0x01500020u
#define TPM2_NV_SIZE 32u

/* A command as bytes. Returns its length. */
size_t tpm2_get_random(uint8_t *cmd, uint16_t n);
size_t tpm2_pcr_extend(uint8_t *cmd, uint32_t pcr, const uint8_t digest[32]);
size_t tpm2_create_primary_rsa(uint8_t *cmd);    /* takes tens of milliseconds */
size_t tpm12_pcr_read(uint8_t *cmd, uint32_t pcr);

/* Checks an answer and returns its response code. */
int64_t tpm_response(const uint8_t *rsp, size_t len);

/* Send and wait. rsp has room for 4096 bytes; *len may be NULL. */
int64_t tpm_send(struct fx_frontend *f, const uint8_t *cmd, size_t n, uint8_t *rsp, size_t *len);

int64_t tpm2_random(struct fx_frontend *f, uint8_t *out, uint16_t n);
int64_t tpm2_extend(struct fx_frontend *f, uint32_t pcr, const uint8_t digest[32]);
int64_t tpm2_read_pcr(struct fx_frontend *f, uint32_t pcr, uint8_t digest[32]);
int64_t tpm2_nv_define(struct fx_frontend *f);
int64_t tpm2_nv_write(struct fx_frontend *f, const uint8_t data[TPM2_NV_SIZE]);
int64_t tpm2_nv_read(struct fx_frontend *f, uint8_t data[TPM2_NV_SIZE]);

/* What a PCR holds after n extends of digest, from zero. */
void tpm2_expected_pcr(uint8_t pcr[32], const uint8_t digest[32], unsigned int n);

int64_t tpm12_startup(struct fx_frontend *f);
int64_t tpm12_read_pcr(struct fx_frontend *f, uint32_t pcr, uint8_t digest[20]);
int64_t tpm12_extend(struct fx_frontend *f, uint32_t pcr, const uint8_t digest[20]);
int64_t tpm12_random(struct fx_frontend *f, uint8_t *out, uint32_t n);

#endif
