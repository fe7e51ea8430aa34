/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local CA: see ca.h. */
#include "config.h"

#include "libxl-vtpm/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "common/fd.h"
#include "libxl-vtpm/certificate.h"
#include "libxl-vtpm/pkcs11.h"

#define SERIAL_BYTES 16
#define FILE_SCHEME "file:"

/* TCG's names (EK Credential Profile, annex A; Platform Certificate Profile 1.1) */
#define OID_TPM_MANUFACTURER "2.23.133.2.1"
#define OID_TPM_MODEL "2.23.133.2.2"
#define OID_TPM_VERSION "2.23.133.2.3"
#define OID_TPM_SPECIFICATION "2.23.133.2.16"
#define OID_PLATFORM_MANUFACTURER "2.23.133.5.1.1"
#define OID_PLATFORM_MODEL "2.23.133.5.1.4"
#define OID_PLATFORM_VERSION "2.23.133.5.1.5"
#define OID_PLATFORM_CERTIFICATE "2.23.133.8.2"

struct xlv_ca {
    EVP_PKEY *key;
    X509 *certificate;
    char *issuer_url, *crl_url; /* "" none */
    char *subject;
    char fingerprint[XLV_FINGERPRINT_TEXT];
    char algorithm[64];
};

/* What OpenSSL says last, for a sentence of ours; clears its queue. */
static int ssl_fail(struct xlv_error *e, const char *what)
{
    const char *data = NULL;
    int flags = 0;
    /* the first is the cause, those after it say who failed by that */
    unsigned long code = ERR_peek_error_all(NULL, NULL, NULL, &data, &flags);
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    bool more = (flags & ERR_TXT_STRING) && data && data[0];

    xlv_fail(e, -EIO, "%s: %s%s%s", what, reason ? reason : "OpenSSL does not say why",
             more ? ": " : "", more ? data : "");
    ERR_clear_error();
    return -EIO;
}

static void hex(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

/* --- parts of a certificate -------------------------------------------------------- */

static bool add_extension(X509 *x, int nid, void *value, bool critical)
{
    return value && X509_add1_ext_i2d(x, nid, value, critical, X509V3_ADD_DEFAULT) == 1;
}

static bool add_text_extension(X509 *x, X509 *issuer, int nid, const char *text)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;
    bool good;

    X509V3_set_ctx(&context, issuer ? issuer : x, x, NULL, NULL, 0);
    extension = X509V3_EXT_nconf_nid(NULL, &context, nid, text);
    good = extension && X509_add_ext(x, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return good;
}

/* subjectAltName: a directoryName of one attribute per RDN; oids and values end with NULL */
static bool add_names(X509 *x, const char *const oids[], const char *const values[])
{
    X509_NAME *name = X509_NAME_new();
    GENERAL_NAME *general = GENERAL_NAME_new();
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    bool good = name && general && names;

    for (size_t i = 0; good && oids[i]; i++) {
        ASN1_OBJECT *oid = OBJ_txt2obj(oids[i], 1);

        good = oid && X509_NAME_add_entry_by_OBJ(name, oid, V_ASN1_UTF8STRING,
                                                 (const unsigned char *)values[i], -1, -1, 0) == 1;
        ASN1_OBJECT_free(oid);
    }
    if (good) {
        GENERAL_NAME_set0_value(general, GEN_DIRNAME, name);
        name = NULL;
        good = sk_GENERAL_NAME_push(names, general) > 0;
        if (good)
            general = NULL;
    }
    /* critical: it is in the place of the subject, which is empty (RFC 5280, 4.2.1.6) */
    good = good && add_extension(x, NID_subject_alt_name, names, true);
    X509_NAME_free(name);
    GENERAL_NAME_free(general);
    GENERAL_NAMES_free(names);
    return good;
}

static bool add_purpose(X509 *x, const char *oid)
{
    EXTENDED_KEY_USAGE *usage = EXTENDED_KEY_USAGE_new();
    ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
    bool good = usage && object && sk_ASN1_OBJECT_push(usage, object) > 0;

    if (good)
        object = NULL;
    good = good && add_extension(x, NID_ext_key_usage, usage, false);
    ASN1_OBJECT_free(object);
    EXTENDED_KEY_USAGE_free(usage);
    return good;
}

static bool add_usage(X509 *x, int bit)
{
    ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();
    bool good = usage && ASN1_BIT_STRING_set_bit(usage, bit, 1) == 1 &&
                add_extension(x, NID_key_usage, usage, true);

    ASN1_BIT_STRING_free(usage);
    return good;
}

/*
 * subjectDirectoryAttributes with one attribute, tPMSpecification:
 *     TPMSpecification ::= SEQUENCE { family UTF8String, level INTEGER, revision INTEGER }
 */
static bool add_specification(X509 *x, enum xlv_tpm_version version, uint32_t revision)
{
    char text[320];
    CONF *conf = NCONF_new(NULL);
    BIO *bio;
    ASN1_TYPE *type = NULL;
    ASN1_OCTET_STRING *value = NULL;
    ASN1_OBJECT *oid = NULL;
    X509_EXTENSION *extension = NULL;
    unsigned char *der = NULL;
    int length = -1;
    bool good;

    snprintf(text, sizeof(text),
             "attributes=SEQUENCE:attribute\n"
             "[attribute]\na=SEQUENCE:of\n"
             "[of]\noid=OID:" OID_TPM_SPECIFICATION "\nvalues=SET:values\n"
             "[values]\nv=SEQUENCE:specification\n"
             "[specification]\nfamily=UTF8String:%s\nlevel=INTEGER:%u\nrevision=INTEGER:%u\n",
             version == XLV_TPM_2_0 ? "2.0" : "1.2", version == XLV_TPM_2_0 ? 0u : 2u, revision);
    bio = BIO_new_mem_buf(text, -1);
    good = conf && bio && NCONF_load_bio(conf, bio, NULL) == 1;
    type = good ? ASN1_generate_nconf("SEQUENCE:attribute", conf) : NULL;
    if (type)
        length = i2d_ASN1_TYPE(type, &der);
    value = length > 0 ? ASN1_OCTET_STRING_new() : NULL;
    good = value && ASN1_OCTET_STRING_set(value, der, length) == 1;
    oid = good ? OBJ_nid2obj(NID_subject_directory_attributes) : NULL;
    extension = oid ? X509_EXTENSION_create_by_OBJ(NULL, oid, 0, value) : NULL;
    good = extension && X509_add_ext(x, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    ASN1_OCTET_STRING_free(value);
    OPENSSL_free(der);
    ASN1_TYPE_free(type);
    BIO_free(bio);
    NCONF_free(conf);
    return good;
}

/* A new serial number: positive, 16 bytes, never 0 in front, so its text is as long. */
static bool set_serial(X509 *x, char text[XLV_SERIAL_TEXT])
{
    uint8_t bytes[SERIAL_BYTES];
    BIGNUM *number;
    bool good;

    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40);
    number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    good = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x));
    BN_free(number);
    hex(bytes, sizeof(bytes), text);
    return good;
}

static bool set_times(X509 *x)
{
    return X509_set_version(x, X509_VERSION_3) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(x), 0) &&
           ASN1_TIME_set_string_X509(X509_getm_notAfter(x), "99991231235959Z") == 1;
}

/* NULL for algorithms that have no choice (Ed25519). */
static const EVP_MD *digest_for(EVP_PKEY *key)
{
    if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"))
        return NULL;
    /* a token's provider may not tell how strong a key is, and its key may take no other digest */
    return EVP_PKEY_get_security_bits(key) >= 192 ||
                   (EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) >= 384)
               ? EVP_sha384() : EVP_sha256();
}

/* --- its key and certificate ---------------------------------------------------------- */

/* The path of a file: URI, or NULL. */
static const char *path_of(const char *uri)
{
    return strncmp(uri, FILE_SCHEME, strlen(FILE_SCHEME)) ? NULL : uri + strlen(FILE_SCHEME);
}

/* What a provider offers under the URI; NULL: the error is in OpenSSL's queue. */
static EVP_PKEY *load_from_store(const char *uri)
{
    /* nobody is there to be asked for a passphrase */
    OSSL_STORE_CTX *store = OSSL_STORE_open(uri, UI_null(), NULL, NULL, NULL);
    EVP_PKEY *key = NULL;

    if (store && OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY) == 1)
        while (!key && !OSSL_STORE_eof(store)) {
            OSSL_STORE_INFO *info = OSSL_STORE_load(store);

            if (info)
                key = OSSL_STORE_INFO_get1_PKEY(info);
            else if (OSSL_STORE_error(store))
                break;
            OSSL_STORE_INFO_free(info);
        }
    OSSL_STORE_close(store);
    return key;
}

static int load_key(const char *uri, EVP_PKEY **key, struct xlv_error *e)
{
    const char *path = path_of(uri);
    char what[XLV_TEXT_MAX];
    struct stat st;

    *key = NULL;
    if (path) {
        if (stat(path, &st) < 0)
            return errno == ENOENT ? XLV_E_NOT_FOUND
                                   : xlv_fail(e, -errno, "the CA's key %s cannot be read: %s", path,
                                              strerror(errno));
        if (st.st_mode & 077)
            return xlv_fail(e, XLV_E_REFUSED, "the CA's key %s may be read by others; "
                            "chmod 0600 %s, and think about whether it was read", path, path);
    }
    snprintf(what, sizeof(what), "the CA's key %.200s cannot be used", uri);
    *key = load_from_store(uri);
    if (!*key && xlv_pkcs11_is(uri))
        *key = xlv_pkcs11_key(uri);
    if (!*key && xlv_pkcs11_is(uri) && ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_DSO)
        snprintf(what, sizeof(what), "the CA's key %.200s needs a PKCS #11 provider, or engine "
                 "(Debian: libengine-pkcs11-openssl), for OpenSSL", uri);
    if (!*key)
        return ssl_fail(e, what);
    ERR_clear_error();
    return 0;
}

static int load_certificate(const char *path, X509 **certificate, struct xlv_error *e)
{
    FILE *file = fopen(path, "re");

    *certificate = NULL;
    if (!file)
        return errno == ENOENT ? XLV_E_NOT_FOUND
                               : xlv_fail(e, -errno, "the CA's certificate %s cannot be read: %s",
                                          path, strerror(errno));
    *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    ERR_clear_error();
    return *certificate ? 0 : xlv_fail(e, XLV_E_INVALID, "%s holds no certificate (PEM)", path);
}

static int wanted(const struct xlv_settings *s, struct xlv_error *e)
{
    return s->ca_key[0] ? 0 : xlv_fail(e, XLV_E_REFUSED, "there is no CA on this host: ca-key = "
                                       "none in xl-vtpm.conf");
}

/* What there is; XLV_E_NOT_FOUND (no sentence) and NULL for what is not. */
static int load(const struct xlv_settings *s, EVP_PKEY **key, X509 **certificate,
                struct xlv_error *e)
{
    int rc = load_key(s->ca_key, key, e), rc2;

    *certificate = NULL;
    if (rc && rc != XLV_E_NOT_FOUND)
        return rc;
    rc2 = load_certificate(s->ca_certificate, certificate, e);
    return rc2 ? rc2 : rc;
}

static bool describe(struct xlv_ca *ca)
{
    unsigned char *der = NULL;
    int length = i2d_X509(ca->certificate, &der);
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long size;
    bool good = length > 0 && bio && xlv_fingerprint(der, (size_t)length, ca->fingerprint) &&
                X509_NAME_print_ex(bio, X509_get_subject_name(ca->certificate), 0,
                                   XN_FLAG_ONELINE & ~ASN1_STRFLGS_ESC_MSB) >= 0;

    if (good) {
        size = BIO_get_mem_data(bio, &text);
        ca->subject = strndup(text, (size_t)size);
        snprintf(ca->algorithm, sizeof(ca->algorithm), "%s, %d bits",
                 EVP_PKEY_get0_type_name(ca->key) ? EVP_PKEY_get0_type_name(ca->key) : "?",
                 EVP_PKEY_get_bits(ca->key));
    }
    OPENSSL_free(der);
    BIO_free(bio);
    return good && ca->subject;
}

int xlv_ca_open(struct xlv_ca **out, const struct xlv_settings *s, struct xlv_error *e)
{
    struct xlv_ca *ca;
    int rc = wanted(s, e);

    *out = NULL;
    if (rc)
        return rc;
    ca = calloc(1, sizeof(*ca));
    if (!ca)
        return xlv_fail(e, -ENOMEM, "no memory for the CA");
    ca->issuer_url = strdup(s->ca_issuer_url);
    ca->crl_url = strdup(s->ca_crl_url);
    rc = load(s, &ca->key, &ca->certificate, e);
    if (rc == XLV_E_NOT_FOUND)
        rc = xlv_fail(e, ca->key || ca->certificate ? XLV_E_INVALID : XLV_E_NOT_FOUND,
                      ca->key           ? "the CA has a key (%s) but no certificate (%s); `xl-vtpm "
                                          "ca init` makes one"
                      : ca->certificate ? "the CA's key %s is gone, its certificate %s is there: "
                                          "put the key back, or move the certificate away and make "
                                          "a new CA with `xl-vtpm ca init`"
                                        : "there is no CA yet, neither %s nor %s; `xl-vtpm ca "
                                          "init` makes one",
                      s->ca_key, s->ca_certificate);
    if (!rc && (!ca->issuer_url || !ca->crl_url))
        rc = xlv_fail(e, -ENOMEM, "no memory for the CA");
    if (!rc && X509_check_private_key(ca->certificate, ca->key) != 1) {
        ERR_clear_error();
        rc = xlv_fail(e, XLV_E_INVALID, "the CA's certificate %s is not for its key %s",
                      s->ca_certificate, s->ca_key);
    }
    if (!rc && (X509_check_ca(ca->certificate) != 1 ||
                !(X509_get_key_usage(ca->certificate) & KU_KEY_CERT_SIGN)))
        rc = xlv_fail(e, XLV_E_INVALID, "the certificate %s is not of a CA (basicConstraints, "
                      "keyUsage): what it signs would not be accepted", s->ca_certificate);
    if (!rc && !describe(ca))
        rc = ssl_fail(e, "the CA's certificate cannot be read");
    if (rc)
        xlv_ca_free(ca);
    else
        *out = ca;
    return rc;
}

void xlv_ca_free(struct xlv_ca *ca)
{
    if (!ca)
        return;
    EVP_PKEY_free(ca->key);
    X509_free(ca->certificate);
    free(ca->issuer_url);
    free(ca->crl_url);
    free(ca->subject);
    free(ca);
}

/* A new file, whole and durable or not there. */
static int write_file(const char *path, mode_t mode, const char *data, size_t length,
                      struct xlv_error *e)
{
    char temporary[PATH_MAX], directory[PATH_MAX];
    int fd XLV_CLOSE = -1, dirfd XLV_CLOSE = -1;
    const char *slash = strrchr(path, '/');
    int rc = 0, n = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);

    if (!slash || n < 0 || (size_t)n >= sizeof(temporary))
        return xlv_fail(e, XLV_E_INVALID, "%s is no absolute path", path);
    snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path + 1), path);
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return xlv_fail(e, -errno, "%s cannot be made: %s", path, strerror(errno));
    dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0 || fchmod(fd, mode) < 0)
        rc = -errno;
    if (!rc)
        rc = xlv_write_all(fd, data, length);
    if (!rc && (fsync(fd) < 0 || link(temporary, path) < 0))
        rc = -errno;
    (void)unlink(temporary);
    if (!rc && fsync(dirfd) < 0)
        rc = -errno;
    if (rc == -EEXIST)
        return xlv_fail(e, XLV_E_EXISTS, "%s is there already", path);
    return rc ? xlv_fail(e, rc, "%s cannot be made: %s", path, strerror(-rc)) : 0;
}

/* what: a private key or a certificate, by its writer */
static int write_pem(const char *path, mode_t mode, EVP_PKEY *key, X509 *certificate,
                     struct xlv_error *e)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    char *text;
    long length;
    int rc;

    if (!bio || (key ? PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL)
                     : PEM_write_bio_X509(bio, certificate)) != 1) {
        BIO_free(bio);
        return ssl_fail(e, "PEM cannot be written");
    }
    length = BIO_get_mem_data(bio, &text);
    rc = write_file(path, mode, text, (size_t)length, e);
    OPENSSL_cleanse(text, (size_t)length);
    BIO_free(bio);
    return rc;
}

/* The name has a part that follows from the key: two CAs never have one name, and a
 * certificate that is made again has the one that is known. */
static X509 *sign_itself(EVP_PKEY *key, const char *host)
{
    X509 *x = X509_new();
    X509_NAME *name;
    unsigned char *public = NULL;
    char serial[XLV_SERIAL_TEXT], print[XLV_FINGERPRINT_TEXT], text[64];
    int length = i2d_PUBKEY(key, &public);
    bool good = x && length > 0 && xlv_fingerprint(public, (size_t)length, print);

    if (good) {
        snprintf(text, sizeof(text), "xl-vtpm CA %.12s", print);
        name = X509_get_subject_name(x);
        good = set_times(x) && set_serial(x, serial) &&
               (!host[0] || X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8,
                                                       (const unsigned char *)host, -1, -1, 0)) &&
               X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)text,
                                          -1, -1, 0) &&
               X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key) == 1 &&
               add_text_extension(x, NULL, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
               add_text_extension(x, NULL, NID_key_usage, "critical,keyCertSign,cRLSign") &&
               add_text_extension(x, NULL, NID_subject_key_identifier, "hash") &&
               X509_sign(x, key, digest_for(key)) > 0;
    }
    OPENSSL_free(public);
    if (good)
        return x;
    X509_free(x);
    return NULL;
}

int xlv_ca_make(const struct xlv_settings *s, struct xlv_error *e)
{
    EVP_PKEY *key = NULL;
    X509 *certificate = NULL;
    char host[65] = "";
    const char *path;
    int rc = wanted(s, e);

    if (rc)
        return rc;
    path = path_of(s->ca_key);
    rc = load(s, &key, &certificate, e);
    if (!rc)
        rc = xlv_fail(e, XLV_E_EXISTS, "there is a CA already: %s, %s", s->ca_key,
                      s->ca_certificate);
    else if (rc == XLV_E_NOT_FOUND && certificate)
        rc = xlv_fail(e, XLV_E_REFUSED, "the CA's key %s is gone, its certificate %s is there: put "
                      "the key back, or move the certificate away first", s->ca_key,
                      s->ca_certificate);
    else if (rc == XLV_E_NOT_FOUND && !key && !path)
        rc = xlv_fail(e, XLV_E_REFUSED, "the CA's key %s has to be there first", s->ca_key);
    else if (rc == XLV_E_NOT_FOUND)
        rc = 0;
    if (!rc && !key) {
        key = EVP_EC_gen("P-384");
        rc = key ? write_pem(path, 0600, key, NULL, e) : ssl_fail(e, "no key can be made");
    }
    if (!rc) {
        if (gethostname(host, sizeof(host) - 1) < 0)
            host[0] = '\0';
        certificate = sign_itself(key, host);
        rc = certificate ? write_pem(s->ca_certificate, 0644, NULL, certificate, e)
                         : ssl_fail(e, "the CA's certificate cannot be made");
    }
    EVP_PKEY_free(key);
    X509_free(certificate);
    return rc;
}

const char *xlv_ca_subject(const struct xlv_ca *ca)
{
    return ca->subject;
}

const char *xlv_ca_fingerprint(const struct xlv_ca *ca)
{
    return ca->fingerprint;
}

const char *xlv_ca_algorithm(const struct xlv_ca *ca)
{
    return ca->algorithm;
}

int xlv_ca_pem(const struct xlv_ca *ca, char **pem, struct xlv_error *e)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    long length;

    *pem = NULL;
    if (bio && PEM_write_bio_X509(bio, ca->certificate) == 1) {
        length = BIO_get_mem_data(bio, &text);
        *pem = strndup(text, (size_t)length);
    }
    BIO_free(bio);
    return *pem ? 0 : ssl_fail(e, "PEM cannot be written");
}

/* --- certificates of a TPM --------------------------------------------------------------- */

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *builder)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;

    if (!params || !context || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(params);
    return key;
}

/* An EK as the backend sent it; NULL: none that is one. EVP_PKEY_public_check() of RSA looks
 * for primes, which takes longer than all signatures together. */
static EVP_PKEY *public_key(enum xlv_ek ek, const uint8_t *bytes, uint32_t length)
{
    static const uint32_t lengths[XLV_EKS] = {
        [XLV_EK_RSA_2048] = 256, [XLV_EK_P384] = 96, [XLV_EK_P256] = 64,
    };
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    uint8_t point[1 + XLV_EK_PUBLIC_MAX] = { POINT_CONVERSION_UNCOMPRESSED };
    EVP_PKEY *key = NULL;
    BIGNUM *modulus = NULL;

    if (!builder || length != lengths[ek])
        goto out;
    if (ek == XLV_EK_RSA_2048) {
        modulus = BN_bin2bn(bytes, (int)length, NULL);
        if (modulus && BN_num_bits(modulus) == 2048 && BN_is_odd(modulus) &&
            OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, modulus) &&
            OSSL_PARAM_BLD_push_uint(builder, OSSL_PKEY_PARAM_RSA_E, 65537))
            key = from_params("RSA", builder);
    } else {
        /* a point that is not on its curve is refused; these curves have no other bad ones */
        memcpy(point + 1, bytes, length);
        if (OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME,
                                            ek == XLV_EK_P384 ? "P-384" : "P-256", 0) &&
            OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + length))
            key = from_params("EC", builder);
    }
out:
    BN_free(modulus);
    OSSL_PARAM_BLD_free(builder);
    return key;
}

static int note_key(enum xlv_ek ek, EVP_PKEY *key, struct xlv_document *d, struct xlv_error *e)
{
    unsigned char *der = NULL;
    int length = i2d_PUBKEY(key, &der);
    int rc = length > 0 ? xlv_document_put(d, der, (size_t)length, e)
                        : ssl_fail(e, ek == XLV_EK_RSA_2048 ? "the RSA endorsement key"
                                                            : "an ECC endorsement key");

    OPENSSL_free(der);
    return rc;
}

static int sign(struct xlv_ca *ca, X509 *x, struct xlv_document *d, struct xlv_error *e)
{
    unsigned char *der = NULL;
    int length, rc;

    if (X509_sign(x, ca->key, digest_for(ca->key)) <= 0)
        return ssl_fail(e, "the CA's key does not sign");
    length = i2d_X509(x, &der);
    if (length > (int)sizeof(d->der)) {
        OPENSSL_free(der);
        return xlv_fail(e, XLV_E_INVALID, "a certificate of %d bytes does not fit a TPM, which "
                        "takes %u: the CA's key or name is too long", length, XLV_CERTIFICATE_MAX);
    }
    rc = length > 0 ? xlv_document_put(d, der, (size_t)length, e)
                    : ssl_fail(e, "a certificate cannot be written");
    OPENSSL_free(der);
    return rc;
}

struct subject {
    const char *const *oids, *const *values; /* of subjectAltName */
    const char *purpose;
    int usage; /* bit of keyUsage */
    uint32_t revision; /* of the TPM's specification; 0: left out */
};

static int issue(struct xlv_ca *ca, enum xlv_tpm_version version, EVP_PKEY *key,
                 const struct subject *subject, struct xlv_document *d, struct xlv_error *e)
{
    char url[XLV_CONFIG_LINE_MAX + 32];
    X509 *x = X509_new();
    int rc = -EIO;

    if (!x || !set_times(x) || !set_serial(x, d->serial) ||
        X509_set_issuer_name(x, X509_get_subject_name(ca->certificate)) != 1 ||
        X509_set_pubkey(x, key) != 1 || !add_names(x, subject->oids, subject->values) ||
        !add_text_extension(x, ca->certificate, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_usage(x, subject->usage) || !add_purpose(x, subject->purpose) ||
        !add_text_extension(x, ca->certificate, NID_subject_key_identifier, "hash") ||
        !add_text_extension(x, ca->certificate, NID_authority_key_identifier, "keyid:always") ||
        (subject->revision && !add_specification(x, version, subject->revision)))
        goto out;
    if (ca->issuer_url[0]) {
        snprintf(url, sizeof(url), "caIssuers;URI:%s", ca->issuer_url);
        if (!add_text_extension(x, ca->certificate, NID_info_access, url))
            goto out;
    }
    if (ca->crl_url[0]) {
        snprintf(url, sizeof(url), "URI:%s", ca->crl_url);
        if (!add_text_extension(x, ca->certificate, NID_crl_distribution_points, url))
            goto out;
    }
    rc = sign(ca, x, d, e);
out:
    X509_free(x);
    return rc == -EIO ? ssl_fail(e, "a certificate cannot be made") : rc;
}

static int endorse(struct xlv_ca *ca, enum xlv_tpm_version version,
                   const struct xlv_msg_endorsement *keys, struct xlv_endorsement *out,
                   struct xlv_error *e)
{
    static const char *const ek_oids[] = { OID_TPM_MANUFACTURER, OID_TPM_MODEL, OID_TPM_VERSION,
                                           NULL };
    static const char *const platform_oids[] = { OID_PLATFORM_MANUFACTURER, OID_PLATFORM_MODEL,
                                                 OID_PLATFORM_VERSION, NULL };
    static const char *const platform[] = { "Xen Project", "libxl-vtpm", PACKAGE_VERSION };
    char manufacturer[16], firmware[16];
    const char *const ek[] = { manufacturer, "libxl-vtpm", firmware };
    int rc = 0;

    snprintf(manufacturer, sizeof(manufacturer), "id:%08X", keys->manufacturer);
    snprintf(firmware, sizeof(firmware), "id:%08X", keys->firmware);
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; !rc && i < XLV_EKS; i++) {
        const struct subject subject = {
            .oids = ek_oids, .values = ek, .purpose = XLV_OID_EK_CERTIFICATE,
            .usage = i == XLV_EK_RSA_2048 ? 2 : 4, /* keyEncipherment, keyAgreement */
            .revision = keys->revision,
        };
        const struct subject of_platform = {
            .oids = platform_oids, .values = platform, .purpose = OID_PLATFORM_CERTIFICATE,
            .usage = 2,
        };
        EVP_PKEY *key;

        if (!keys->key[i].length)
            continue;
        key = public_key((enum xlv_ek)i, keys->key[i].bytes, keys->key[i].length);
        ERR_clear_error();
        rc = key ? note_key((enum xlv_ek)i, key, &out->key[i], e)
                 : xlv_fail(e, XLV_E_INVALID, "the TPM's endorsement key %s is none",
                            xlv_certificate_name(i));
        if (!rc && ca)
            rc = issue(ca, version, key, &subject, &out->certificate[i], e);
        /* TPM 1.2 has little NV, and it is the guest's */
        if (!rc && ca && i == XLV_EK_RSA_2048 && version == XLV_TPM_2_0)
            rc = issue(ca, version, key, &of_platform, &out->certificate[XLV_CERTIFICATE_PLATFORM],
                       e);
        EVP_PKEY_free(key);
    }
    return rc;
}

int xlv_ca_endorse(struct xlv_ca *ca, enum xlv_tpm_version version,
                   const struct xlv_msg_endorsement *keys, struct xlv_endorsement *endorsement,
                   struct xlv_error *e)
{
    return endorse(ca, version, keys, endorsement, e);
}

int xlv_ca_keys(const struct xlv_msg_endorsement *keys, struct xlv_endorsement *endorsement,
                struct xlv_error *e)
{
    return endorse(NULL, XLV_TPM_2_0, keys, endorsement, e);
}
