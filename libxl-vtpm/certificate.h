/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Endorsement keys and certificates of TPMs that were made elsewhere, or certified by another CA.
 * No private key is here.
 */
#ifndef XLV_CERTIFICATE_H
#define XLV_CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"
#include "libxl-vtpm/registry.h"

/* SHA-256 of it, in hex; false: OpenSSL fails. */
bool xlv_fingerprint(const uint8_t *der, size_t length, char text[XLV_FINGERPRINT_TEXT]);

/* DER into a document, with its fingerprint. XLV_E_INVALID: longer than what a TPM takes. */
int xlv_document_put(struct xlv_document *document, const uint8_t *der, size_t length,
                     struct xlv_error *e);

#define XLV_OID_EK_CERTIFICATE "2.23.133.8.1" /* tcg-kp-EKCertificate */

/*
 * What a TPM told of itself (xlv_task_identify(), which has checked the lengths). Its guest may
 * have written what stands in the place of a certificate, so that is bytes to us: nothing reads
 * it, and its serial is "". XLV_E_INVALID: a key that is none.
 */
int xlv_certificates_found(const struct xlv_msg_endorsement *keys,
                           const struct xlv_msg_certificates *held,
                           struct xlv_endorsement *endorsement, struct xlv_error *e);

/* A certificate that an administrator has in a file. */
struct xlv_certificate {
    struct xlv_document document;            /* serial "" */
    char key_fingerprint[XLV_FINGERPRINT_TEXT]; /* of the public key, as an ek's */
    bool for_ek;                             /* its extendedKeyUsage says so */
};

/* PEM or DER. XLV_E_NOT_FOUND; XLV_E_INVALID: no certificate, a CA's, or too long for a TPM. */
int xlv_certificate_read(const char *path, struct xlv_certificate *certificate,
                         struct xlv_error *e);

#endif
