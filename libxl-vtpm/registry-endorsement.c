/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry: endorsement keys and certificates; see registry.h. */
#include "config.h"

#include "libxl-vtpm/registry-internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static const char *const certificate_names[] = {
    [XLV_EK_RSA_2048] = "rsa2048",
    [XLV_EK_P384] = "p384",
    [XLV_EK_P256] = "p256",
    [XLV_CERTIFICATE_PLATFORM] = "platform",
};

const char *xlv_certificate_name(unsigned kind)
{
    return certificate_names[kind];
}

/* That there was a certificate stays. */
int xlv_reg_forget_endorsement(struct xlv_registry *r, uint64_t number, const char *doing,
                               struct xlv_error *e)
{
    static const char *const sql[] = {
        "DELETE FROM ek WHERE instance = ?1",
        "UPDATE certificate SET in_use = 0 WHERE instance = ?1",
        "DELETE FROM other_certificate WHERE instance = ?1",
    };
    int rc = 0;

    for (size_t i = 0; !rc && i < COUNT(sql); i++)
        rc = xlv_sql_about(r, sql[i], number, doing, e);
    return rc;
}

/*
 * Endorsement
 */

static int bind_blob(struct xlv_registry *r, sqlite3_stmt *stmt, int at,
                     const struct xlv_document *document, const char *doing, struct xlv_error *e)
{
    if (sqlite3_bind_blob(stmt, at, document->der, (int)document->length, SQLITE_TRANSIENT) ==
        SQLITE_OK)
        return 0;
    return xlv_sql_fail(r, e, doing);
}

/* One statement about an instance and a document of its; serial NULL: none. */
static int put_document(struct xlv_registry *r, const char *sql, uint64_t number, unsigned kind,
                        const struct xlv_document *document, const char *doing,
                        struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 2, certificate_names[kind], doing, e);
    if (!rc)
        rc = bind_blob(r, stmt, 3, document, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 4, document->fingerprint, doing, e);
    if (!rc && sqlite3_bind_parameter_count(stmt) > 4) {
        rc = xlv_sql_bind_text(r, stmt, 5, document->serial, doing, e);
        if (!rc)
            rc = xlv_sql_bind_int(r, stmt, 6, time(NULL), doing, e);
    }
    return rc ? rc : xlv_sql_run(r, stmt, doing, e);
}

typedef int put_certificate(struct xlv_registry *r, uint64_t number, unsigned kind,
                            const struct xlv_document *document, const char *doing,
                            struct xlv_error *e);

static int put_signed(struct xlv_registry *r, uint64_t number, unsigned kind,
                      const struct xlv_document *document, const char *doing, struct xlv_error *e)
{
    return put_document(r, "INSERT INTO certificate (instance, kind, der, fingerprint, serial,"
                        " signed, in_use) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)", number, kind,
                        document, doing, e);
}

/* One that was signed here for this instance is known by its serial number, and stays so. */
static int put_found(struct xlv_registry *r, uint64_t number, unsigned kind,
                     const struct xlv_document *document, const char *doing, struct xlv_error *e)
{
    int rc = put_document(r, "UPDATE certificate SET in_use = 1 WHERE instance = ?1 AND kind = ?2"
                          " AND der = ?3 AND fingerprint = ?4", number, kind, document, doing, e);

    if (rc || sqlite3_changes(r->db))
        return rc;
    return put_document(r, "INSERT INTO other_certificate (instance, kind, der, fingerprint)"
                        " VALUES (?1, ?2, ?3, ?4)", number, kind, document, doing, e);
}

/* In the place of all that was noted. */
static int note(struct xlv_registry *r, uint64_t number,
                const struct xlv_endorsement *endorsement, put_certificate *put, const char *doing,
                struct xlv_error *e)
{
    int rc = xlv_sql_begin(r, doing, e);

    if (rc)
        return rc;
    rc = xlv_reg_forget_endorsement(r, number, doing, e);
    for (unsigned i = 0; !rc && i < XLV_EKS; i++)
        if (endorsement->key[i].length)
            rc = put_document(r, "INSERT INTO ek (instance, kind, public, fingerprint)"
                              " VALUES (?1, ?2, ?3, ?4)", number, i, &endorsement->key[i], doing,
                              e);
    for (unsigned i = 0; !rc && i < XLV_CERTIFICATES; i++)
        if (endorsement->certificate[i].length)
            rc = put(r, number, i, &endorsement->certificate[i], doing, e);
    return xlv_sql_end(r, rc, doing, e);
}

int xlv_registry_endorse(struct xlv_registry *r, uint64_t number,
                         const struct xlv_endorsement *endorsement, struct xlv_error *e)
{
    return note(r, number, endorsement, put_signed,
                "note the endorsement keys and certificates of an instance", e);
}

int xlv_registry_identified(struct xlv_registry *r, uint64_t number,
                            const struct xlv_endorsement *endorsement, struct xlv_error *e)
{
    return note(r, number, endorsement, put_found, "note what identifies an instance", e);
}

/* Rows of kind, DER, fingerprint, serial. */
static int get_documents(struct xlv_registry *r, const char *sql, uint64_t number,
                         struct xlv_document *documents, unsigned count, const char *doing,
                         struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    while (!rc && (rc = xlv_sql_step(r, stmt, doing, e)) == 0) {
        struct xlv_document *d;
        int kind, length = sqlite3_column_bytes(stmt, 1);

        if (!xlv_sql_column_name(stmt, 0, certificate_names, count, &kind))
            return xlv_sql_bad_row(r, e, (int64_t)number, "kind of endorsement");
        d = &documents[kind];
        if (length < 1 || length > (int)sizeof(d->der) ||
            !xlv_sql_column_text(stmt, 2, d->fingerprint, sizeof(d->fingerprint)) ||
            !xlv_sql_column_text(stmt, 3, d->serial, sizeof(d->serial)))
            return xlv_sql_bad_row(r, e, (int64_t)number, "endorsement");
        memcpy(d->der, sqlite3_column_blob(stmt, 1), (size_t)length);
        d->length = (size_t)length;
    }
    return rc == XLV_E_NOT_FOUND ? 0 : rc;
}

int xlv_registry_endorsement(struct xlv_registry *r, uint64_t number,
                             struct xlv_endorsement *endorsement, struct xlv_error *e)
{
    static const char doing[] = "read the endorsement keys and certificates of an instance";
    int rc;

    memset(endorsement, 0, sizeof(*endorsement));
    rc = get_documents(r, "SELECT kind, public, fingerprint, '' FROM ek WHERE instance = ?1",
                       number, endorsement->key, XLV_EKS, doing, e);
    if (!rc)
        rc = get_documents(r, "SELECT kind, der, fingerprint, serial FROM certificate"
                           " WHERE instance = ?1 AND in_use = 1 UNION ALL"
                           " SELECT kind, der, fingerprint, '' FROM other_certificate"
                           " WHERE instance = ?1", number, endorsement->certificate,
                           XLV_CERTIFICATES, doing, e);
    return rc;
}

int xlv_registry_signed(struct xlv_registry *r, bool *any, struct xlv_error *e)
{
    int64_t found = 0;
    int rc = xlv_sql_get_int(r, "SELECT EXISTS (SELECT 1 FROM certificate)", &found, e);

    *any = found != 0;
    return rc;
}
