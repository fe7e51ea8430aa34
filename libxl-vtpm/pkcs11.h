/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A private key in a PKCS #11 token (RFC 7512 says how it is named), where no OpenSSL provider
 * offers it: Debian 12 has none, but the engine of libp11 (libengine-pkcs11-openssl). Engines are
 * deprecated in OpenSSL 3, so what needs them is here alone.
 */
#ifndef XLV_PKCS11_H
#define XLV_PKCS11_H

#include <stdbool.h>

#include <openssl/evp.h>

bool xlv_pkcs11_is(const char *uri); /* pkcs11:... */

/* The caller's (EVP_PKEY_free()). NULL: why is in OpenSSL's queue of errors. */
EVP_PKEY *xlv_pkcs11_key(const char *uri);

#endif
