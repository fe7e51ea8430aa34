/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tpm12-cert.c - in a guest with a TPM 1.2: a key that lives in the TPM, and
 * X.509 certificates signed with it, through the TSS (tcsd must run, the TPM
 * must be owned, the SRK's secret must be the well-known one).
 *
 *     tpm12-cert make-key KEYFILE           an RSA-2048 signing key below the
 *                                           SRK; the file holds it wrapped, of
 *                                           no use to any other TPM
 *     tpm12-cert sign KEYFILE NAME OUT.pem  a self-signed certificate for NAME
 *
 * OpenSSL builds the certificate and asks an RSA method of ours for the one
 * thing it cannot do: the signature. With TSS_SS_RSASSAPKCS1V15_DER the TPM
 * signs any DigestInfo, so that a TPM 1.2, which knows SHA-1 only, signs a
 * SHA-256 certificate that today's verifiers take.
 */

/* The RSA_METHOD interface, deprecated in OpenSSL 3, is the short way to lend
 * OpenSSL a signature; a provider would be ten times this program. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tss/tspi.h>

#include <trousers/trousers.h>

static TSS_HCONTEXT context;
static TSS_HKEY srk, key;

static void die(const char *what)
{
    fprintf(stderr, "tpm12-cert: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void tss(const char *what, TSS_RESULT result)
{
    if (result == TSS_SUCCESS)
        return;
    fprintf(stderr, "tpm12-cert: %s: 0x%x: %s: %s\n", what, (unsigned)result,
            Trspi_Error_Layer(result), Trspi_Error_String(result));
    exit(1);
}

static void open_srk(void)
{
    TSS_UUID uuid = TSS_UUID_SRK;
    BYTE well_known[TPM_SHA1_160_HASH_LEN] = TSS_WELL_KNOWN_SECRET;
    TSS_HPOLICY policy;

    tss("context", Tspi_Context_Create(&context));
    tss("connect to tcsd", Tspi_Context_Connect(context, NULL));
    tss("load the SRK", Tspi_Context_LoadKeyByUUID(context, TSS_PS_TYPE_SYSTEM, uuid, &srk));
    tss("SRK policy", Tspi_GetPolicyObject(srk, TSS_POLICY_USAGE, &policy));
    tss("SRK secret", Tspi_Policy_SetSecret(policy, TSS_SECRET_MODE_SHA1,
                                            sizeof(well_known), well_known));
}

static void make_key(const char *path)
{
    BYTE *blob;
    UINT32 size;
    FILE *f;

    open_srk();
    tss("key object", Tspi_Context_CreateObject(context, TSS_OBJECT_TYPE_RSAKEY,
                                                TSS_KEY_TYPE_SIGNING | TSS_KEY_SIZE_2048 |
                                                TSS_KEY_NO_AUTHORIZATION | TSS_KEY_NOT_MIGRATABLE |
                                                TSS_KEY_VOLATILE, &key));
    tss("signature scheme", Tspi_SetAttribUint32(key, TSS_TSPATTRIB_KEY_INFO,
                                                 TSS_TSPATTRIB_KEYINFO_SIGSCHEME,
                                                 TSS_SS_RSASSAPKCS1V15_DER));
    tss("create the key", Tspi_Key_CreateKey(key, srk, 0));
    tss("wrapped key", Tspi_GetAttribData(key, TSS_TSPATTRIB_KEY_BLOB,
                                          TSS_TSPATTRIB_KEYBLOB_BLOB, &size, &blob));
    f = fopen(path, "wb");
    if (f == NULL || fwrite(blob, 1, size, f) != size || fclose(f) != 0)
        die("cannot write the key file");
}

static void load_key(const char *path)
{
    unsigned char blob[4096];
    FILE *f = fopen(path, "rb");
    size_t size = f != NULL ? fread(blob, 1, sizeof(blob), f) : 0;

    if (size == 0)
        die("cannot read the key file");
    fclose(f);
    open_srk();
    tss("load the key", Tspi_Context_LoadKeyByBlob(context, srk, (UINT32)size, blob, &key));
}

static EVP_PKEY *public_key(const RSA_METHOD *method)
{
    BYTE *n, *e;
    UINT32 n_size, e_size;
    RSA *rsa = RSA_new();
    EVP_PKEY *pkey = EVP_PKEY_new();

    tss("modulus", Tspi_GetAttribData(key, TSS_TSPATTRIB_RSAKEY_INFO,
                                      TSS_TSPATTRIB_KEYINFO_RSA_MODULUS, &n_size, &n));
    tss("exponent", Tspi_GetAttribData(key, TSS_TSPATTRIB_RSAKEY_INFO,
                                       TSS_TSPATTRIB_KEYINFO_RSA_EXPONENT, &e_size, &e));
    if (rsa == NULL || pkey == NULL ||
        RSA_set0_key(rsa, BN_bin2bn(n, (int)n_size, NULL), BN_bin2bn(e, (int)e_size, NULL),
                     NULL) != 1 ||
        RSA_set_method(rsa, method) != 1 || EVP_PKEY_assign_RSA(pkey, rsa) != 1)
        die("cannot make a public key of the TPM's");
    return pkey;
}

/* OpenSSL hands over the padded-to-be: here, the DigestInfo is what we make of
 * the digest, and the TPM pads and signs it. */
static int sign_by_tpm(int type, const unsigned char *digest, unsigned int size,
                       unsigned char *out, unsigned int *out_size, const RSA *rsa)
{
    X509_SIG *info = X509_SIG_new();
    X509_ALGOR *algorithm;
    ASN1_OCTET_STRING *octets;
    unsigned char *der = NULL;
    TSS_HHASH hash;
    BYTE *signature;
    UINT32 signature_size;
    int der_size;

    (void)rsa;
    if (info == NULL)
        return 0;
    X509_SIG_getm(info, &algorithm, &octets);
    if (X509_ALGOR_set0(algorithm, OBJ_nid2obj(type), V_ASN1_NULL, NULL) != 1 ||
        ASN1_OCTET_STRING_set(octets, digest, (int)size) != 1)
        return 0;
    der_size = i2d_X509_SIG(info, &der);
    if (der_size <= 0)
        return 0;
    tss("hash object", Tspi_Context_CreateObject(context, TSS_OBJECT_TYPE_HASH,
                                                 TSS_HASH_OTHER, &hash));
    tss("hash value", Tspi_Hash_SetHashValue(hash, (UINT32)der_size, der));
    tss("sign", Tspi_Hash_Sign(hash, key, &signature_size, &signature));
    memcpy(out, signature, signature_size);
    *out_size = signature_size;
    OPENSSL_free(der);
    X509_SIG_free(info);
    return 1;
}

static void sign(const char *name, const char *path)
{
    RSA_METHOD *method = RSA_meth_dup(RSA_PKCS1_OpenSSL());
    X509 *cert = X509_new();
    X509_NAME *subject;
    EVP_PKEY *pkey;
    FILE *f;

    if (method == NULL || cert == NULL || RSA_meth_set_sign(method, sign_by_tpm) != 1)
        die("out of memory");
    pkey = public_key(method);
    subject = X509_get_subject_name(cert);
    if (X509_set_version(cert, X509_VERSION_3) != 1 ||
        ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) != 1 ||
        /* A guest's clock may be anything; the verifier's must lie within. */
        ASN1_TIME_set_string_X509(X509_getm_notBefore(cert), "20000101000000Z") != 1 ||
        ASN1_TIME_set_string_X509(X509_getm_notAfter(cert), "20991231235959Z") != 1 ||
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                   (const unsigned char *)name, -1, -1, 0) != 1 ||
        X509_set_issuer_name(cert, subject) != 1 || X509_set_pubkey(cert, pkey) != 1 ||
        X509_sign(cert, pkey, EVP_sha256()) <= 0)
        die("cannot make the certificate");
    f = fopen(path, "w");
    if (f == NULL || PEM_write_X509(f, cert) != 1 || fclose(f) != 0)
        die("cannot write the certificate");
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "make-key") == 0) {
        make_key(argv[2]);
    } else if (argc == 5 && strcmp(argv[1], "sign") == 0) {
        load_key(argv[2]);
        sign(argv[3], argv[4]);
    } else {
        fprintf(stderr, "usage: tpm12-cert make-key KEYFILE | sign KEYFILE NAME OUT.pem\n");
        return 2;
    }
    Tspi_Context_FreeMemory(context, NULL);
    Tspi_Context_Close(context);
    return 0;
}
