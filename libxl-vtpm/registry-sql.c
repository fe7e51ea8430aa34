/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry: what its SQL has in common; see registry-internal.h. */
#include "config.h"

#include "libxl-vtpm/registry-internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *const xlv_reg_life_names[] = {
    [XLV_LIFE_NEW] = "new",
    [XLV_LIFE_READY] = "ready",
    [XLV_LIFE_QUARANTINED] = "quarantined",
};
const char *const xlv_reg_accept_names[] = {
    [XLV_ACCEPT_NONE] = "",
    [XLV_ACCEPT_RESET] = "reset",
    [XLV_ACCEPT_KEPT] = "kept",
};
const char *const xlv_reg_handover_names[] = {
    [XLV_HANDOVER_HELD] = "",
    [XLV_HANDOVER_DEPARTING] = "departing",
    [XLV_HANDOVER_DEPARTED] = "departed",
    [XLV_HANDOVER_ARRIVING] = "arriving",
};
const char *const xlv_reg_measure_names[] = {
    [XLV_MEASURING_DEFAULT] = "",
    [XLV_MEASURING_ON] = "on",
    [XLV_MEASURING_OFF] = "off",
};
const char *const xlv_reg_origin_names[] = {
    [XLV_BINDING_AUTOMATIC] = "automatic",
    [XLV_BINDING_ADMINISTRATOR] = "administrator",
};

const char *xlv_rule_name(enum xlv_rule rule)
{
    static const char *const names[] = {
        [XLV_RULE_UUID] = "uuid",
        [XLV_RULE_BINDING] = "binding",
        [XLV_RULE_ASSIGNED] = "assigned",
    };

    return names[rule];
}

const char *xlv_life_name(enum xlv_life life)
{
    return xlv_reg_life_names[life];
}

const char *xlv_measuring_name(enum xlv_measuring measure)
{
    return xlv_reg_measure_names[measure];
}

const char *xlv_accept_name(enum xlv_accept accept)
{
    return xlv_reg_accept_names[accept];
}

const char *xlv_handover_name(enum xlv_handover handover)
{
    return xlv_reg_handover_names[handover];
}

const char *xlv_binding_origin_name(enum xlv_binding_origin origin)
{
    return xlv_reg_origin_names[origin];
}

const char *xlv_tpm_version_name(enum xlv_tpm_version version)
{
    return version == XLV_TPM_1_2 ? "1.2" : "2.0";
}

/*
 * SQLite's last error in our contract, and the sentence for it. doing: what was
 * being done, as in "cannot <doing>".
 */
int xlv_sql_fail(struct xlv_registry *r, struct xlv_error *e, const char *doing)
{
    int code = r->db ? sqlite3_extended_errcode(r->db) : SQLITE_NOMEM;
    int number = r->db ? sqlite3_system_errno(r->db) : 0;
    const char *message = r->db ? sqlite3_errmsg(r->db) : "no memory";

    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return xlv_fail(e, -ENOMEM, "%s: cannot %s: no memory", r->path, doing);
    case SQLITE_FULL:
        return xlv_fail(e, -ENOSPC, "%s: cannot %s: the disk is full; nothing was changed",
                        r->path, doing);
    case SQLITE_READONLY:
        return xlv_fail(e, -EROFS,
                        "%s: cannot %s: the file, its directory or the disk is read-only for us",
                        r->path, doing);
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return xlv_fail(e, -EACCES, "%s: cannot %s: no permission; are you root?", r->path, doing);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return xlv_fail(e, -EBUSY, "%s: cannot %s: another process kept it locked for %d s",
                        r->path, doing, BUSY_TIMEOUT_MS / 1000);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return xlv_fail(e, XLV_E_CORRUPT,
                        "%s: cannot %s: the database is damaged (%s); nothing was changed; keep "
                        "a copy of the directory and put back a backup of the database",
                        r->path, doing, message);
    case SQLITE_CANTOPEN:
        number = number ? number : EACCES;
        break;
    case SQLITE_IOERR:
        number = number ? number : EIO;
        break;
    default:
        return xlv_fail(e, -EIO, "%s: cannot %s: %s", r->path, doing, message);
    }
    return xlv_fail(e, -number, "%s: cannot %s: %s (%s)", r->path, doing, message,
                    strerror(number));
}

int xlv_sql_exec(struct xlv_registry *r, const char *sql, const char *doing, struct xlv_error *e)
{
    return sqlite3_exec(r->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : xlv_sql_fail(r, e, doing);
}

/* A statement with its text arguments bound: %s in spirit, ?1 ... in SQL. */
int xlv_sql_prepare(struct xlv_registry *r, sqlite3_stmt **stmt, const char *sql, const char *doing,
                    struct xlv_error *e)
{
    if (sqlite3_prepare_v2(r->db, sql, -1, stmt, NULL) == SQLITE_OK)
        return 0;
    return xlv_sql_fail(r, e, doing);
}

void xlv_sql_finalize(sqlite3_stmt **stmt)
{
    sqlite3_finalize(*stmt);
    *stmt = NULL;
}

int xlv_sql_bind_text(struct xlv_registry *r, sqlite3_stmt *stmt, int at, const char *text,
                      const char *doing, struct xlv_error *e)
{
    if (sqlite3_bind_text(stmt, at, text, -1, SQLITE_TRANSIENT) == SQLITE_OK)
        return 0;
    return xlv_sql_fail(r, e, doing);
}

int xlv_sql_bind_int(struct xlv_registry *r, sqlite3_stmt *stmt, int at, int64_t value,
                     const char *doing, struct xlv_error *e)
{
    if (sqlite3_bind_int64(stmt, at, value) == SQLITE_OK)
        return 0;
    return xlv_sql_fail(r, e, doing);
}

/* Steps a statement that gives no row. */
int xlv_sql_run(struct xlv_registry *r, sqlite3_stmt *stmt, const char *doing, struct xlv_error *e)
{
    return sqlite3_step(stmt) == SQLITE_DONE ? 0 : xlv_sql_fail(r, e, doing);
}

/* Steps a query: 0 a row, XLV_E_NOT_FOUND none (no sentence). */
int xlv_sql_step(struct xlv_registry *r, sqlite3_stmt *stmt, const char *doing, struct xlv_error *e)
{
    switch (sqlite3_step(stmt)) {
    case SQLITE_ROW:
        return 0;
    case SQLITE_DONE:
        return XLV_E_NOT_FOUND;
    default:
        return xlv_sql_fail(r, e, doing);
    }
}

/* A query that gives one integer. */
int xlv_sql_get_int(struct xlv_registry *r, const char *sql, int64_t *value, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, sql, "read", e);

    if (!rc)
        rc = xlv_sql_step(r, stmt, "read", e);
    if (!rc)
        *value = sqlite3_column_int64(stmt, 0);
    return rc;
}

int xlv_sql_begin(struct xlv_registry *r, const char *doing, struct xlv_error *e)
{
    return xlv_sql_exec(r, "BEGIN IMMEDIATE", doing, e);
}

/* Ends a transaction: COMMIT where rc is 0, else back; gives the outcome of both. */
int xlv_sql_end(struct xlv_registry *r, int rc, const char *doing, struct xlv_error *e)
{
    if (!rc)
        rc = xlv_sql_exec(r, "COMMIT", doing, e);
    if (!sqlite3_get_autocommit(r->db))
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* Row and column of ours that breaks the schema's promise. */
int xlv_sql_bad_row(struct xlv_registry *r, struct xlv_error *e, int64_t number, const char *what)
{
    return xlv_fail(e, XLV_E_CORRUPT,
                    "%s: the row of instance %" PRId64 " has no valid %s; nothing was changed; "
                    "put back a backup of the database",
                    r->path, number, what);
}

bool xlv_sql_column_text(sqlite3_stmt *stmt, int column, char *text, size_t room)
{
    const unsigned char *value = sqlite3_column_text(stmt, column);
    size_t length = (size_t)sqlite3_column_bytes(stmt, column);

    if (!value || length >= room || memchr(value, '\0', length))
        return false;
    memcpy(text, value, length);
    text[length] = '\0';
    return true;
}

bool xlv_sql_column_name(sqlite3_stmt *stmt, int column, const char *const *names, size_t count,
                         int *value)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);

    for (size_t i = 0; text && i < count; i++)
        if (!strcmp(text, names[i])) {
            *value = (int)i;
            return true;
        }
    return false;
}

void xlv_instance_at_home(struct xlv_instance *i)
{
    snprintf(i->directory, sizeof(i->directory), INSTANCES "/%" PRIu64, i->number);
}

/* A row of COLUMNS. */
int xlv_sql_instance(struct xlv_registry *r, sqlite3_stmt *stmt, struct xlv_instance *instance,
                     struct xlv_error *e)
{
    struct xlv_instance i = { .number = 0 };
    int64_t number = sqlite3_column_int64(stmt, 0);
    char uuid[XLV_UUID_TEXT];
    int version = sqlite3_column_int(stmt, 2), life, accept, handover, measure;

    if (number < 1 || number > NUMBER_MAX)
        return xlv_sql_bad_row(r, e, number, "number");
    i.number = (uint64_t)number;
    if (!xlv_sql_column_text(stmt, 1, uuid, sizeof(uuid)) || xlv_uuid_parse(&i.uuid, uuid) ||
        xlv_uuid_is_nil(&i.uuid))
        return xlv_sql_bad_row(r, e, number, "uuid");
    if (version != XLV_TPM_1_2 && version != XLV_TPM_2_0)
        return xlv_sql_bad_row(r, e, number, "TPM version");
    i.tpm_version = (enum xlv_tpm_version)version;
    if (!xlv_sql_column_name(stmt, 3, xlv_reg_life_names, COUNT(xlv_reg_life_names), &life))
        return xlv_sql_bad_row(r, e, number, "state of life");
    i.life = (enum xlv_life)life;
    i.created_s = sqlite3_column_int64(stmt, 4);
    i.last_used_s = sqlite3_column_int64(stmt, 5);
    if (!xlv_sql_column_text(stmt, 6, i.last_domain_name, sizeof(i.last_domain_name)))
        return xlv_sql_bad_row(r, e, number, "domain name");
    if (!xlv_sql_column_text(stmt, 7, i.last_domain_uuid, sizeof(i.last_domain_uuid)))
        return xlv_sql_bad_row(r, e, number, "domain uuid");
    if (!xlv_sql_column_text(stmt, 8, i.label, sizeof(i.label)))
        return xlv_sql_bad_row(r, e, number, "label");
    i.suspended.at_s = sqlite3_column_int64(stmt, 9);
    i.suspended.domid = (uint32_t)sqlite3_column_int64(stmt, 10);
    if (sqlite3_column_int64(stmt, 10) != i.suspended.domid || i.suspended.domid > XLV_DOMID_MAX ||
        !xlv_sql_column_text(stmt, 11, i.suspended.domain_uuid, sizeof(i.suspended.domain_uuid)))
        return xlv_sql_bad_row(r, e, number, "suspended domain");
    i.suspended.mark = sqlite3_column_int64(stmt, 12);
    if (!xlv_sql_column_name(stmt, 13, xlv_reg_accept_names, COUNT(xlv_reg_accept_names), &accept))
        return xlv_sql_bad_row(r, e, number, "word in accept");
    i.accept = (enum xlv_accept)accept;
    i.late_attach_s = sqlite3_column_int64(stmt, 14);
    if (!xlv_sql_column_name(stmt, 15, xlv_reg_handover_names, COUNT(xlv_reg_handover_names),
                             &handover) ||
        !xlv_sql_column_text(stmt, 16, i.handover_token, sizeof(i.handover_token)) ||
        !xlv_sql_column_text(stmt, 17, i.handover_peer, sizeof(i.handover_peer)))
        return xlv_sql_bad_row(r, e, number, "handover");
    i.handover = (enum xlv_handover)handover;
    i.deleted_s = sqlite3_column_int64(stmt, 18);
    if (!xlv_sql_column_name(stmt, 19, xlv_reg_measure_names, COUNT(xlv_reg_measure_names),
                             &measure))
        return xlv_sql_bad_row(r, e, number, "word in measure_boot");
    i.measure_boot = (enum xlv_measuring)measure;
    if (!xlv_sql_column_text(stmt, 20, i.directory, sizeof(i.directory)) ||
        (i.directory[0] && i.directory[0] != '/'))
        return xlv_sql_bad_row(r, e, number, "directory on shared storage");
    if (!i.directory[0])
        xlv_instance_at_home(&i);
    *instance = i;
    return 0;
}

/* Runs an UPDATE of one instance; XLV_E_NOT_FOUND where it hit none. */
int xlv_sql_update(struct xlv_registry *r, sqlite3_stmt *stmt, uint64_t number, const char *doing,
                   struct xlv_error *e)
{
    int rc = xlv_sql_run(r, stmt, doing, e);

    if (!rc && sqlite3_changes(r->db) == 0)
        rc = xlv_fail(e, XLV_E_NOT_FOUND, "there is no instance %" PRIu64, number);
    return rc;
}

/* Runs a statement with an instance's number as ?1. */
int xlv_sql_about(struct xlv_registry *r, const char *sql, uint64_t number,
                  const char *doing, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    return rc ? rc : xlv_sql_run(r, stmt, doing, e);
}
