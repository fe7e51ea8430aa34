/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Certificates of others: see certificate.h. */
#include "config.h"

#include "libxl-vtpm/certificate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "libxl-vtpm/ca.h"

bool xlv_fingerprint(const uint8_t *der, size_t length, char text[XLV_FINGERPRINT_TEXT])
{
    uint8_t digest[32];
    unsigned size = sizeof(digest);

    if (!EVP_Digest(der, length, digest, &size, EVP_sha256(), NULL))
        return false;
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return true;
}

int xlv_document_put(struct xlv_document *d, const uint8_t *der, size_t length,
                     struct xlv_error *e)
{
    if (length > sizeof(d->der))
        return xlv_fail(e, XLV_E_INVALID, "the certificate has %zu bytes, a TPM takes %u", length,
                        XLV_CERTIFICATE_MAX);
    if (!xlv_fingerprint(der, length, d->fingerprint))
        return xlv_fail(e, -EIO, "no digest of a certificate");
    memcpy(d->der, der, length);
    d->length = length;
    return 0;
}

int xlv_certificates_found(const struct xlv_msg_endorsement *keys,
                           const struct xlv_msg_certificates *held,
                           struct xlv_endorsement *endorsement, struct xlv_error *e)
{
    int rc = xlv_ca_keys(keys, endorsement, e);

    for (unsigned i = 0; !rc && i < XLV_CERTIFICATES; i++)
        if (held->certificate[i].length)
            rc = xlv_document_put(&endorsement->certificate[i], held->certificate[i].der,
                                  held->certificate[i].length, e);
    return rc;
}

/* PEM, or else DER. */
static X509 *parse(FILE *file)
{
    X509 *x = PEM_read_X509(file, NULL, NULL, NULL);

    if (!x) {
        rewind(file);
        x = d2i_X509_fp(file, NULL);
    }
    ERR_clear_error();
    return x;
}

static bool is_for_ek(X509 *x)
{
    EXTENDED_KEY_USAGE *usage = X509_get_ext_d2i(x, NID_ext_key_usage, NULL, NULL);
    bool found = false;
    char oid[64];

    for (int i = 0; usage && i < sk_ASN1_OBJECT_num(usage); i++) {
        OBJ_obj2txt(oid, sizeof(oid), sk_ASN1_OBJECT_value(usage, i), 1);
        found = found || !strcmp(oid, XLV_OID_EK_CERTIFICATE);
    }
    EXTENDED_KEY_USAGE_free(usage);
    return found;
}

int xlv_certificate_read(const char *path, struct xlv_certificate *c, struct xlv_error *e)
{
    FILE *file = fopen(path, "re");
    unsigned char *der = NULL, *key = NULL;
    int der_length, key_length, rc;
    X509 *x;

    memset(c, 0, sizeof(*c));
    if (!file)
        return xlv_fail(e, errno == ENOENT ? XLV_E_NOT_FOUND : -errno, "cannot read %s: %s", path,
                        strerror(errno));
    x = parse(file);
    fclose(file);
    if (!x)
        return xlv_fail(e, XLV_E_INVALID, "%s holds no certificate (PEM or DER)", path);
    c->for_ek = is_for_ek(x);
    der_length = i2d_X509(x, &der);
    key_length = i2d_PUBKEY(X509_get0_pubkey(x), &key);
    if (X509_check_ca(x))
        rc = xlv_fail(e, XLV_E_INVALID, "%s holds the certificate of a CA, not of a TPM", path);
    else if (der_length <= 0 || key_length <= 0 ||
             !xlv_fingerprint(key, (size_t)key_length, c->key_fingerprint))
        rc = xlv_fail(e, XLV_E_INVALID, "the certificate in %s has no key that is known here",
                      path);
    else
        rc = xlv_document_put(&c->document, der, (size_t)der_length, e);
    OPENSSL_free(der);
    OPENSSL_free(key);
    X509_free(x);
    ERR_clear_error();
    return rc;
}
