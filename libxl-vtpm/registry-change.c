/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry: what changes in an instance; see registry.h. */
#include "config.h"

#include "libxl-vtpm/registry-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/fd.h"

/*
 * Changing
 */

static int set_text(struct xlv_registry *r, const char *sql, uint64_t number, const char *value,
                    const char *doing, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 2, value, doing, e);
    return rc ? rc : xlv_sql_update(r, stmt, number, doing, e);
}

static int copy_database(struct xlv_registry *r, const char *path, struct xlv_error *e)
{
    int fd XLV_CLOSE = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    sqlite3 *to = NULL;
    sqlite3_backup *backup = NULL;
    int code;

    if (fd < 0)
        return xlv_fail(e, -errno, "%s cannot be made: %s", path, strerror(errno));
    code = sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK) {
        backup = sqlite3_backup_init(to, "main", r->db, "main");
        code = backup ? sqlite3_backup_step(backup, -1) : sqlite3_errcode(to);
        sqlite3_backup_finish(backup);
    }
    sqlite3_close(to);
    return code == SQLITE_DONE ? 0 : xlv_fail(e, -EIO, "%s cannot be copied to %s: %s", r->path,
                                              path, sqlite3_errstr(code));
}

int xlv_registry_snapshot(struct xlv_registry *r, const char *path,
                          int (*visit)(const struct xlv_instance *instance, void *opaque),
                          void *opaque, struct xlv_error *e)
{
    static const char doing[] = "copy it";
    int rc = xlv_sql_exec(r, "BEGIN", doing, e);

    if (rc)
        return rc;
    rc = xlv_registry_each(r, visit, opaque, e);
    if (!rc)
        rc = copy_database(r, path, e);
    return xlv_sql_end(r, rc, doing, e);
}

int xlv_registry_set_life(struct xlv_registry *r, uint64_t number, enum xlv_life life,
                          struct xlv_error *e)
{
    return set_text(r, "UPDATE instance SET life = ?2 WHERE number = ?1", number,
                    xlv_reg_life_names[life],
                    "change an instance's state of life", e);
}

int xlv_registry_place(struct xlv_registry *r, uint64_t number, const char *directory,
                       struct xlv_error *e)
{
    if (directory[0] && (directory[0] != '/' || strlen(directory) > XLV_DIRECTORY_MAX))
        return xlv_fail(e, XLV_E_INVALID, "%.80s is no usable directory for an instance: an "
                        "absolute path of at most %u bytes is needed", directory,
                        XLV_DIRECTORY_MAX);
    return set_text(r, "UPDATE instance SET place = ?2 WHERE number = ?1", number, directory,
                    "note where an instance is", e);
}

int xlv_registry_replaced(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    static const char doing[] = "note another state of an instance";
    int rc = xlv_sql_begin(r, doing, e);

    if (rc)
        return rc;
    rc = set_text(r,
                  "UPDATE instance SET life = ?2, suspended = 0, suspended_domid = 0,"
                  " suspended_domain_uuid = '', suspended_mark = -1, accept = '',"
                  " late_attach = 0 WHERE number = ?1",
                  number, xlv_reg_life_names[XLV_LIFE_READY], doing, e);
    if (!rc)
        rc = xlv_reg_forget_endorsement(r, number, doing, e);
    return xlv_sql_end(r, rc, doing, e);
}

int xlv_registry_set_label(struct xlv_registry *r, uint64_t number, const char *label,
                           struct xlv_error *e)
{
    int rc = xlv_reg_check_label(label, e);

    return rc ? rc : set_text(r, "UPDATE instance SET label = ?2 WHERE number = ?1", number,
                              label ? label : "", "label an instance", e);
}

int xlv_registry_used(struct xlv_registry *r, uint64_t number, const char *domain_name,
                      const char *domain_uuid, enum xlv_use use, struct xlv_error *e)
{
    static const char doing[] = "note the use of an instance";
    sqlite3_stmt *stmt FINALIZE = NULL;
    struct xlv_uuid uuid;
    int64_t now = time(NULL);
    int rc;

    if (domain_name && strlen(domain_name) > XLV_DOMAIN_NAME_MAX)
        return xlv_fail(e, XLV_E_INVALID, "a domain name of %zu bytes is not accepted",
                        strlen(domain_name));
    if (domain_uuid && xlv_uuid_parse(&uuid, domain_uuid))
        domain_uuid = NULL;
    rc = xlv_sql_prepare(r, &stmt,
                         use == XLV_USE_AGAIN
                     ? "UPDATE instance SET last_used = ?2, last_domain_name = ?3,"
                       " last_domain_uuid = ?4 WHERE number = ?1"
                     : "UPDATE instance SET last_used = ?2, last_domain_name = ?3,"
                       " last_domain_uuid = ?4, suspended = 0, suspended_domid = 0,"
                       " suspended_domain_uuid = '', suspended_mark = -1, accept = '',"
                       " late_attach = ?5 WHERE number = ?1",
                         doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, now, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 3, domain_name ? domain_name : "", doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 4, domain_uuid ? domain_uuid : "", doing, e);
    if (!rc && use != XLV_USE_AGAIN)
        rc = xlv_sql_bind_int(r, stmt, 5, use == XLV_USE_LATE ? now : 0, doing, e);
    return rc ? rc : xlv_sql_update(r, stmt, number, doing, e);
}

int xlv_registry_suspended(struct xlv_registry *r, uint64_t number,
                           const struct xlv_suspended *suspended, struct xlv_error *e)
{
    static const char doing[] = "note that a domain is suspended";
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt,
                             "UPDATE instance SET suspended = ?2, suspended_domid = ?3,"
                             " suspended_domain_uuid = ?4, suspended_mark = ?5, accept = ''"
                             " WHERE number = ?1",
                             doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, time(NULL), doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 3, suspended->domid, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 4, suspended->domain_uuid, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 5, suspended->mark, doing, e);
    return rc ? rc : xlv_sql_update(r, stmt, number, doing, e);
}

int xlv_registry_accept(struct xlv_registry *r, uint64_t number, enum xlv_accept accept,
                        struct xlv_error *e)
{
    return set_text(r, "UPDATE instance SET accept = ?2 WHERE number = ?1", number,
                    xlv_reg_accept_names[accept], "accept a restored domain", e);
}

int xlv_registry_measure_boot(struct xlv_registry *r, uint64_t number,
                              enum xlv_measuring measure, struct xlv_error *e)
{
    return set_text(r, "UPDATE instance SET measure_boot = ?2 WHERE number = ?1", number,
                    xlv_reg_measure_names[measure], "set whether boots are measured", e);
}

/* The first row for instance ?1 and the uids ?2 to ?3. */
static int step_in_range(struct xlv_registry *r, sqlite3_stmt *stmt, uint64_t number,
                         int64_t first, int64_t last, const char *doing, struct xlv_error *e)
{
    int rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, first, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 3, last, doing, e);
    return rc ? rc : xlv_sql_step(r, stmt, doing, e);
}

int xlv_registry_uid(struct xlv_registry *r, uint64_t number, uint32_t first, uint32_t count,
                     uint32_t *uid, struct xlv_error *e)
{
    static const char doing[] = "find a uid for an instance";
    static const char mine[] =
        "SELECT uid FROM backend_uid WHERE instance = ?1 AND uid BETWEEN ?2 AND ?3";
    sqlite3_stmt *stmt FINALIZE = NULL;
    int64_t last = (int64_t)first + count - 1;
    int rc;

    if (!first || !count || last >= UINT32_MAX)
        return xlv_fail(e, XLV_E_INVALID, "%" PRIu32 " uids from %" PRIu32 " on are no range",
                        count, first);
    rc = xlv_sql_prepare(r, &stmt, mine, doing, e);
    if (!rc)
        rc = step_in_range(r, stmt, number, first, last, doing, e);
    if (!rc)
        *uid = (uint32_t)sqlite3_column_int64(stmt, 0);
    if (rc != XLV_E_NOT_FOUND)
        return rc;
    xlv_sql_finalize(&stmt);

    rc = xlv_sql_begin(r, doing, e);
    if (rc)
        return rc;
    /* one of another range is given back */
    rc = xlv_sql_prepare(r, &stmt, "DELETE FROM backend_uid WHERE instance = ?1", doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_run(r, stmt, doing, e);
    xlv_sql_finalize(&stmt);
    /* the lowest that is free: the first one, or one behind one that is taken */
    if (!rc)
        rc = xlv_sql_prepare(r, &stmt,
                             "INSERT INTO backend_uid SELECT min(uid), ?1 FROM"
                             " (SELECT ?2 AS uid UNION ALL SELECT uid + 1 FROM backend_uid)"
                             " WHERE uid BETWEEN ?2 AND ?3"
                             " AND uid NOT IN (SELECT uid FROM backend_uid)"
                             " HAVING min(uid) IS NOT NULL RETURNING uid", doing, e);
    if (!rc)
        rc = step_in_range(r, stmt, number, first, last, doing, e);
    if (rc == XLV_E_NOT_FOUND)
        rc = xlv_fail(e, XLV_E_REFUSED, "all %" PRIu32 " uids from %" PRIu32 " on are taken by "
                      "other instances: raise backend-uid-count", count, first);
    if (!rc) {
        *uid = (uint32_t)sqlite3_column_int64(stmt, 0);
        rc = xlv_sql_run(r, stmt, doing, e);
    }
    xlv_sql_finalize(&stmt);
    return xlv_sql_end(r, rc, doing, e);
}

/* The row itself; inside a transaction. */
static int set_handover(struct xlv_registry *r, uint64_t number, enum xlv_handover to,
                        const char *token, const char *peer, const char *doing,
                        struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt,
                             "UPDATE instance SET handover = ?2, handover_token = ?3,"
                             " handover_peer = ?4 WHERE number = ?1", doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 2, xlv_reg_handover_names[to], doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 3, token, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 4, peer, doing, e);
    return rc ? rc : xlv_sql_update(r, stmt, number, doing, e);
}

static int check_handover(const char *token, const char *peer, struct xlv_error *e)
{
    struct xlv_uuid uuid;

    if (xlv_uuid_parse(&uuid, token) || xlv_uuid_is_nil(&uuid))
        return xlv_fail(e, XLV_E_INVALID, "\"%.80s\" is no token of a handover", token);
    if (!peer[0] || strlen(peer) > XLV_HANDOVER_PEER_MAX)
        return xlv_fail(e, XLV_E_INVALID, "the other host of a handover has no usable name");
    return 0;
}

int xlv_registry_offer(struct xlv_registry *r, uint64_t number, const char *token,
                       const char *peer, struct xlv_error *e)
{
    static const char doing[] = "offer an instance to another host";
    struct xlv_instance i;
    int rc = check_handover(token, peer, e);

    if (!rc)
        rc = xlv_sql_begin(r, doing, e);
    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &i, e);
    if (!rc)
        rc = xlv_reg_refuse_deleted(&i, e);
    if (!rc && i.handover != XLV_HANDOVER_HELD)
        rc = xlv_fail(e, XLV_E_CONFLICT, "instance %" PRIu64 " is %s already (%s, token %s)",
                      number, xlv_handover_name(i.handover), i.handover_peer, i.handover_token);
    if (!rc)
        rc = set_handover(r, number, XLV_HANDOVER_DEPARTING, token, peer, doing, e);
    return xlv_sql_end(r, rc, doing, e);
}

int xlv_registry_expect(struct xlv_registry *r, const struct xlv_uuid *uuid,
                        enum xlv_tpm_version version, bool again, const char *token,
                        const char *peer, struct xlv_instance *instance, struct xlv_error *e)
{
    static const char doing[] = "expect an instance of another host";
    struct xlv_instance made = { .number = 0 }, i;
    char text[XLV_UUID_TEXT];
    int rc = check_handover(token, peer, e);

    if (!rc && xlv_uuid_is_nil(uuid))
        rc = xlv_fail(e, XLV_E_INVALID, "an instance cannot have the nil uuid");
    if (!rc)
        rc = xlv_sql_begin(r, doing, e);
    if (rc)
        return rc;
    rc = xlv_reg_find_uuid(r, uuid, &i, e);
    /* Given away already, it is somewhere: here, if this is that handover, or on from here.
     * Anything else would make a second one of it. */
    if (again && (rc == XLV_E_NOT_FOUND ||
                  (!rc && (i.handover != XLV_HANDOVER_ARRIVING ||
                           strcmp(i.handover_token, token))))) {
        xlv_error_clear(e);
        rc = xlv_fail(e, XLV_E_CONFLICT, "this host knows nothing of the handover %s by which %s "
                      "gave %s away; send it from the host that has it", token, peer,
                      xlv_uuid_format(uuid, text));
    } else if (rc == XLV_E_NOT_FOUND) {
        rc = xlv_reg_insert(r, uuid, version, NULL, &made, e);
        i = made;
    } else if (!rc && i.handover == XLV_HANDOVER_HELD) {
        rc = xlv_fail(e, XLV_E_CONFLICT, "this host has %s already (instance %" PRIu64 ")",
                      xlv_uuid_format(uuid, text), i.number);
    } else if (!rc && i.handover == XLV_HANDOVER_DEPARTING) {
        rc = xlv_fail(e, XLV_E_CONFLICT, "this host is giving %s to %s just now",
                      xlv_uuid_format(uuid, text), i.handover_peer);
    } else if (!rc && i.tpm_version != version) {
        rc = xlv_fail(e, XLV_E_CONFLICT, "%s is a TPM of another version here",
                      xlv_uuid_format(uuid, text));
    }
    if (!rc)
        rc = set_handover(r, i.number, XLV_HANDOVER_ARRIVING, token, peer, doing, e);
    /* a state of an earlier stay here is not what arrives, nor what was suspended with it */
    if (!rc)
        rc = set_text(r, "UPDATE instance SET life = ?2, suspended = 0, suspended_domid = 0,"
                      " suspended_domain_uuid = '', suspended_mark = -1, accept = ''"
                      " WHERE number = ?1", i.number, xlv_reg_life_names[XLV_LIFE_NEW], doing, e);
    if (!rc)
        rc = xlv_registry_get_number(r, i.number, &i, e);
    rc = xlv_reg_end_insert(r, rc, &made, doing, e);
    if (!rc)
        *instance = i;
    return rc;
}

int xlv_registry_move(struct xlv_registry *r, uint64_t number, const char *token,
                      enum xlv_handover from, enum xlv_handover to, struct xlv_error *e)
{
    static const char doing[] = "hand an instance over";
    struct xlv_instance i;
    int rc = xlv_sql_begin(r, doing, e);

    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &i, e);
    if (!rc && (i.handover != from || !token[0] || strcmp(i.handover_token, token)))
        rc = xlv_fail(e, XLV_E_CONFLICT,
                      "instance %" PRIu64 " is not %s with the token %s: it is %s, token %s",
                      number, from ? xlv_reg_handover_names[from] : "held", token,
                      i.handover ? xlv_reg_handover_names[i.handover] : "held",
                      i.handover_token[0] ? i.handover_token : "none");
    if (!rc)
        rc = set_handover(r, number, to, token, i.handover_peer, doing, e);
    return xlv_sql_end(r, rc, doing, e);
}
