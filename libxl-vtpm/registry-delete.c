/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry: bindings undone, tombstones, reset and purge; see registry.h. */
#include "config.h"

#include "libxl-vtpm/registry-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"

/*
 * Deleting
 */

/* No backend has it. The lock is held until *fd is closed; -1 where there is no store. */
static int lock_store(struct xlv_registry *r, const struct xlv_instance *instance, int *fd,
                      struct xlv_error *e)
{
    char path[sizeof(instance->directory) + 16];

    snprintf(path, sizeof(path), "%s/slot-0", instance->directory);
    *fd = openat(r->dir, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0 && errno == ENOENT)
        return 0;
    if (*fd >= 0 && !flock(*fd, LOCK_EX | LOCK_NB))
        return 0;
    return xlv_fail(e, *fd >= 0 && errno == EWOULDBLOCK ? XLV_E_IN_USE : -errno,
                    "instance %" PRIu64 " %s", instance->number,
                    *fd >= 0 && errno == EWOULDBLOCK ? "is in use: shut its domain down first"
                                                     : "cannot be locked");
}

static int set_deleted(struct xlv_registry *r, uint64_t number, int64_t when, const char *doing,
                       struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, "UPDATE instance SET deleted = ?2 WHERE number = ?1",
                             doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, when, doing, e);
    return rc ? rc : xlv_sql_update(r, stmt, number, doing, e);
}

int xlv_registry_delete(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    static const char doing[] = "delete an instance";
    int lock XLV_CLOSE = -1, rc = xlv_sql_begin(r, doing, e);
    struct xlv_instance i;

    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &i, e);
    if (!rc && i.deleted_s)
        rc = xlv_fail(e, XLV_E_EXISTS, "instance %" PRIu64 " is deleted already", number);
    /* its row is what keeps a given-away TPM from arriving a second time */
    if (!rc && i.handover != XLV_HANDOVER_HELD)
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is %s (other host: %s)", number,
                      xlv_reg_handover_names[i.handover], i.handover_peer);
    if (!rc)
        rc = lock_store(r, &i, &lock, e);
    if (!rc)
        rc = set_deleted(r, number, time(NULL), doing, e);
    return xlv_sql_end(r, rc, doing, e);
}

static int expect_deleted(struct xlv_registry *r, uint64_t number, struct xlv_instance *i,
                          struct xlv_error *e)
{
    int rc = xlv_registry_get_number(r, number, i, e);

    return rc || i->deleted_s
               ? rc
               : xlv_fail(e, XLV_E_INVALID, "instance %" PRIu64 " is not deleted", number);
}

int xlv_registry_undelete(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    static const char doing[] = "bring an instance back";
    struct xlv_instance i;
    int rc = xlv_sql_begin(r, doing, e);

    if (rc)
        return rc;
    rc = expect_deleted(r, number, &i, e);
    if (!rc)
        rc = set_deleted(r, number, 0, doing, e);
    return xlv_sql_end(r, rc, doing, e);
}

int xlv_registry_purge(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    static const char doing[] = "purge an instance";
    int lock XLV_CLOSE = -1, dirfd XLV_CLOSE = -1, rc = xlv_sql_begin(r, doing, e);
    struct xlv_instance i;

    if (rc)
        return rc;
    rc = expect_deleted(r, number, &i, e);
    if (!rc)
        rc = lock_store(r, &i, &lock, e);
    if (!rc)
        rc = xlv_sql_about(r, "DELETE FROM binding WHERE instance = ?1", number, doing, e);
    if (!rc)
        rc = xlv_sql_about(r, "DELETE FROM instance WHERE number = ?1", number, doing, e);
    /* with the mark a kill behind the commit leaves what the next sweep takes away; before it,
     * what it finds to be an instance */
    if (!rc && !faccessat(r->dir, i.directory, F_OK, 0))
        rc = xlv_reg_open_marked(r, &i, 0, &dirfd, e);
    rc = xlv_sql_end(r, rc, doing, e);
    if (!rc)
        rc = xlv_reg_discard(r, i.directory, e);
    if (!rc && xlv_instance_shared(&i)) {
        xlv_instance_at_home(&i);
        rc = xlv_reg_discard(r, i.directory, e);
    }
    return rc;
}

/* Two numbers into a statement about instances. */
static int about_two(struct xlv_registry *r, const char *sql, uint64_t a, uint64_t b,
                     const char *doing, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)a, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, (int64_t)b, doing, e);
    return rc ? rc : xlv_sql_run(r, stmt, doing, e);
}

/* Inside the transaction: what is known of `from` is known of the tombstone, and its row makes
 * room for a new one with its uuid, to which the bindings go. */
static int exchange(struct xlv_registry *r, const struct xlv_instance *from,
                    const struct xlv_instance *earlier, struct xlv_instance *fresh,
                    const char *doing, struct xlv_error *e)
{
    static const char *const moves[] = {
        "UPDATE instance SET (life, created, last_used, last_domain_name, last_domain_uuid) ="
        " (SELECT life, created, last_used, last_domain_name, last_domain_uuid FROM instance"
        " WHERE number = ?1) WHERE number = ?2",
        "UPDATE ek SET instance = ?2 WHERE instance = ?1",
        "UPDATE certificate SET instance = ?2 WHERE instance = ?1",
        "UPDATE other_certificate SET instance = ?2 WHERE instance = ?1",
        "UPDATE binding SET instance = ?2 WHERE instance = ?1",
    };
    int rc = 0;

    for (size_t i = 0; !rc && i < COUNT(moves); i++)
        rc = about_two(r, moves[i], from->number, earlier->number, doing, e);
    if (!rc)
        rc = set_deleted(r, earlier->number, time(NULL), doing, e);
    if (!rc)
        rc = xlv_sql_about(r, "DELETE FROM instance WHERE number = ?1", from->number, doing, e);
    if (!rc)
        rc = xlv_reg_insert(r, &from->uuid, from->tpm_version, from->label, fresh, e);
    if (!rc)
        rc = about_two(r, moves[COUNT(moves) - 1], earlier->number, fresh->number, doing, e);
    if (!rc)
        rc = xlv_registry_measure_boot(r, fresh->number, from->measure_boot, e);
    return rc;
}

int xlv_registry_reset(struct xlv_registry *r, const struct xlv_uuid *uuid,
                       const struct xlv_uuid *tombstone, const char *label, xlv_fill *fill,
                       void *opaque, struct xlv_instance *instance, struct xlv_instance *earlier,
                       struct xlv_error *e)
{
    static const char doing[] = "reset an instance";
    struct xlv_instance from = { .number = 0 }, kept = from, fresh = from;
    int dirfd XLV_CLOSE = -1, old XLV_CLOSE = -1, rc;
    bool undone;

    rc = xlv_reg_begin_new(r, tombstone, label, doing, e);
    if (rc)
        return rc;
    rc = xlv_reg_sweep(r, e);
    if (!rc)
        rc = xlv_registry_get(r, uuid, &from, e);
    if (!rc && (from.deleted_s || from.handover != XLV_HANDOVER_HELD))
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is deleted, or not on this host",
                      from.number);
    if (!rc)
        rc = xlv_reg_insert_new(r, tombstone, from.tpm_version, label, &kept, e);
    if (!rc)
        rc = xlv_reg_open_marked(r, &kept, O_EXCL, &dirfd, e);
    if (!rc)
        rc = fill(dirfd, &kept, opaque, e);
    if (!rc)
        rc = xlv_reg_open_marked(r, &from, 0, &old, e);
    if (!rc)
        rc = exchange(r, &from, &kept, &fresh, doing, e);
    if (!rc)
        rc = xlv_reg_find_number(r, kept.number, &kept, e);
    if (!rc)
        rc = xlv_reg_find_number(r, fresh.number, &fresh, e);
    undone = rc != 0;
    rc = xlv_reg_end_insert(r, rc, &fresh, doing, e);
    if (!rc) {
        (void)unlinkat(dirfd, MARK, 0);
        *instance = fresh;
        *earlier = kept;
        /* what stays of it goes with the next sweep */
        (void)xlv_reg_discard(r, from.directory, NULL);
    } else if (kept.number && undone) {
        (void)xlv_reg_discard(r, kept.directory, NULL);
    }
    return rc;
}

/* So many of them at a time. */
struct older {
    int64_t before;
    uint64_t after; /* numbers up to this had their turn */
    uint64_t numbers[64];
    unsigned count;
};

static int note_older(const struct xlv_instance *instance, void *opaque)
{
    struct older *older = opaque;

    if (instance->deleted_s && instance->deleted_s <= older->before &&
        instance->number > older->after && older->count < COUNT(older->numbers))
        older->numbers[older->count++] = instance->number;
    return 0;
}

int xlv_registry_purge_older(struct xlv_registry *r, int64_t seconds, unsigned before,
                             unsigned *count, bool *more, struct xlv_error *e)
{
    struct older older = { .before = time(NULL) - seconds };
    struct xlv_error first = XLV_ERROR_INIT;
    int rc, failed = 0;

    *count = 0;
    do {
        older.count = 0;
        rc = xlv_registry_each(r, note_older, &older, failed ? NULL : &first);
        for (unsigned i = 0; !rc && i < older.count && *count < XLV_PURGE_AT_ONCE; i++) {
            int one = xlv_registry_purge(r, older.numbers[i], failed ? NULL : &first);

            *count += !one;
            older.after = older.numbers[i];
            if (!failed)
                failed = one;
        }
    } while (!rc && older.count && *count < XLV_PURGE_AT_ONCE);
    *more = !rc && *count == XLV_PURGE_AT_ONCE;
    if (*more)
        return 0;
    if (!failed)
        failed = rc;
    return failed ? xlv_fail(e, failed, "%.400s; %u others were purged",
                             first.text[0] ? first.text : xlv_strerror(failed), before + *count)
                  : 0;
}

int xlv_registry_bind(struct xlv_registry *r, uint64_t number, const char *domain_name,
                      unsigned devid, struct xlv_error *e)
{
    static const char doing[] = "bind a domain";
    char key[XLV_DOMAIN_NAME_MAX + 1];
    struct xlv_instance instance;
    int rc = xlv_reg_domain_key(domain_name, devid, key, e);

    if (!rc)
        rc = xlv_sql_begin(r, doing, e);
    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &instance, e);
    if (!rc)
        rc = xlv_reg_refuse_deleted(&instance, e);
    if (!rc)
        rc = xlv_reg_store_binding(r, key, devid, number, XLV_BINDING_ADMINISTRATOR, e);
    return xlv_sql_end(r, rc, doing, e);
}

int xlv_registry_unbind(struct xlv_registry *r, const char *domain_name, unsigned devid,
                        struct xlv_error *e)
{
    static const char doing[] = "unbind a domain";
    sqlite3_stmt *stmt FINALIZE = NULL;
    char key[XLV_DOMAIN_NAME_MAX + 1];
    int rc = xlv_reg_domain_key(domain_name, devid, key, e);

    if (!rc)
        rc = xlv_sql_prepare(r, &stmt, "DELETE FROM binding WHERE domain = ?1 AND devid = ?2",
                             doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 1, key, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, devid, doing, e);
    if (!rc)
        rc = xlv_sql_run(r, stmt, doing, e);
    if (!rc && sqlite3_changes(r->db) == 0)
        rc = xlv_fail(e, XLV_E_NOT_FOUND, "domain %s, device %u is not bound", key, devid);
    return rc;
}

int xlv_registry_each_binding(struct xlv_registry *r, uint64_t number,
                              int (*visit)(const struct xlv_binding *binding, void *opaque),
                              void *opaque, struct xlv_error *e)
{
    static const char doing[] = "list the bindings";
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt,
                             "SELECT domain, devid, origin FROM binding WHERE instance = ?1"
                             " ORDER BY domain, devid",
                             doing, e);

    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, doing, e);
    while (!rc) {
        struct xlv_binding binding = { .devid = 0 };
        int64_t devid;
        int origin;

        rc = xlv_sql_step(r, stmt, doing, e);
        if (rc == XLV_E_NOT_FOUND)
            return 0;
        if (rc)
            break;
        devid = sqlite3_column_int64(stmt, 1);
        if (!xlv_sql_column_text(stmt, 0, binding.domain_name, sizeof(binding.domain_name)) ||
            devid < 0 || devid > (int64_t)XLV_DEVID_MAX ||
            !xlv_sql_column_name(stmt, 2, xlv_reg_origin_names, COUNT(xlv_reg_origin_names),
                                 &origin))
            return xlv_sql_bad_row(r, e, (int64_t)number, "binding");
        binding.devid = (unsigned)devid;
        binding.origin = (enum xlv_binding_origin)origin;
        rc = visit(&binding, opaque);
    }
    return rc;
}
