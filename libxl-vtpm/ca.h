/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local CA: certificates for the endorsement keys (EK) of new TPMs, so that
 * somebody far away can tell a TPM of this host from a program that says it is
 * one. Its private key stays in xl-vtpmd, or in a token; no process that a
 * guest can reach ever has it.
 *
 * The certificates follow the TCG EK Credential Profile for TPM Family 2.0
 * (2.5), section 3: X.509 version 3, an empty subject, subjectAltName with
 * manufacturer, model and version (critical), key usage for what an EK is for
 * (critical), extended key usage tcg-kp-EKCertificate, no CA (critical),
 * TPM specification in subjectDirectoryAttributes. TPM 1.2's follow the TCG
 * Credential Profiles 1.2, 3.2, which asks for the same.
 * The platform certificate is, as swtpm's, a public-key certificate for the RSA
 * EK with the attributes of a platform; the TCG's own, an attribute
 * certificate, is beyond OpenSSL 3.
 *
 * They do not expire (RFC 5280, 4.1.2.5: 99991231235959Z), as the keys do not.
 *
 * Key and certificate come from the settings. The key is what OSSL_STORE makes
 * of a URI: file:/PATH (PEM, without a passphrase), or with a provider that
 * openssl.cnf(5) loads, a token's (handle:0x81000020); or what pkcs11.h does.
 */
#ifndef XLV_CA_H
#define XLV_CA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/launch.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/settings.h"

struct xlv_ca;

/*
 * Opens the CA of the settings. XLV_E_NOT_FOUND: there is none yet, neither key
 * nor certificate; XLV_E_REFUSED: the settings say that there shall be none (an
 * external one), or the key may be read by others; XLV_E_INVALID: they do not
 * belong together, or are no CA's.
 */
int xlv_ca_open(struct xlv_ca **out, const struct xlv_settings *settings, struct xlv_error *e);
void xlv_ca_free(struct xlv_ca *ca);

/*
 * Makes what is missing of it, durably: a key (ECDSA P-384, mode 0600) where
 * neither is there, and its certificate, signed by itself. XLV_E_EXISTS: both
 * are there; XLV_E_REFUSED: a certificate without its key, a key that is not
 * a file's, or no local CA at all.
 */
int xlv_ca_make(const struct xlv_settings *settings, struct xlv_error *e);

/* Signs: fills in what keys there are. serials and all are new with every call. */
int xlv_ca_endorse(struct xlv_ca *ca, enum xlv_tpm_version version,
                   const struct xlv_msg_endorsement *keys, struct xlv_endorsement *endorsement,
                   struct xlv_error *e);

/* The keys alone, for a CA elsewhere. */
int xlv_ca_keys(const struct xlv_msg_endorsement *keys, struct xlv_endorsement *endorsement,
                struct xlv_error *e);

/* For people: "CN = ...", and the certificate's SHA-256. Borrowed from ca. */
const char *xlv_ca_subject(const struct xlv_ca *ca);
const char *xlv_ca_fingerprint(const struct xlv_ca *ca);
const char *xlv_ca_algorithm(const struct xlv_ca *ca);

/* The certificate as PEM, NUL-terminated, owned by the caller. */
int xlv_ca_pem(const struct xlv_ca *ca, char **pem, struct xlv_error *e);

#endif
