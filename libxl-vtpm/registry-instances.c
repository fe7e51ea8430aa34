/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry: finding, making, adopting and resolving instances; see registry.h. */
#include "config.h"

#include "libxl-vtpm/registry-internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "libxl-vtpm/utf8.h"

/*
 * Finding
 */

int xlv_reg_find_uuid(struct xlv_registry *r, const struct xlv_uuid *uuid,
                      struct xlv_instance *instance, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    char text[XLV_UUID_TEXT];
    int rc = xlv_sql_prepare(r, &stmt, "SELECT " COLUMNS " FROM instance WHERE uuid = ?1",
                             "look an instance up", e);

    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 1, xlv_uuid_format(uuid, text), "look an instance up", e);
    if (!rc)
        rc = xlv_sql_step(r, stmt, "look an instance up", e);
    return rc ? rc : xlv_sql_instance(r, stmt, instance, e);
}

int xlv_reg_find_number(struct xlv_registry *r, uint64_t number, struct xlv_instance *instance,
                        struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc;

    if (number < 1 || number > (uint64_t)NUMBER_MAX)
        return XLV_E_NOT_FOUND;
    rc = xlv_sql_prepare(r, &stmt, "SELECT " COLUMNS " FROM instance WHERE number = ?1",
                         "look an instance up", e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, (int64_t)number, "look an instance up", e);
    if (!rc)
        rc = xlv_sql_step(r, stmt, "look an instance up", e);
    return rc ? rc : xlv_sql_instance(r, stmt, instance, e);
}

/* number and origin of a binding; XLV_E_NOT_FOUND without a sentence. */
static int find_binding(struct xlv_registry *r, const char *domain, unsigned devid,
                        uint64_t *number, enum xlv_binding_origin *origin, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int which, rc;

    rc = xlv_sql_prepare(r, &stmt,
                         "SELECT instance, origin FROM binding WHERE domain = ?1 AND devid = ?2",
                         "look a binding up", e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 1, domain, "look a binding up", e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, devid, "look a binding up", e);
    if (!rc)
        rc = xlv_sql_step(r, stmt, "look a binding up", e);
    if (rc)
        return rc;
    if (sqlite3_column_int64(stmt, 0) < 1 ||
        !xlv_sql_column_name(stmt, 1, xlv_reg_origin_names, COUNT(xlv_reg_origin_names), &which))
        return xlv_fail(e, XLV_E_CORRUPT,
                        "%s: the binding of domain %s, device %u is damaged; nothing was changed",
                        r->path, domain, devid);
    *number = (uint64_t)sqlite3_column_int64(stmt, 0);
    *origin = (enum xlv_binding_origin)which;
    return 0;
}

int xlv_registry_get(struct xlv_registry *r, const struct xlv_uuid *uuid,
                     struct xlv_instance *instance, struct xlv_error *e)
{
    char text[XLV_UUID_TEXT];
    int rc = xlv_reg_find_uuid(r, uuid, instance, e);

    if (rc == XLV_E_NOT_FOUND)
        xlv_fail(e, rc, "no instance has the uuid %s", xlv_uuid_format(uuid, text));
    return rc;
}

int xlv_registry_get_number(struct xlv_registry *r, uint64_t number, struct xlv_instance *instance,
                            struct xlv_error *e)
{
    int rc = xlv_reg_find_number(r, number, instance, e);

    if (rc == XLV_E_NOT_FOUND)
        xlv_fail(e, rc, "there is no instance %" PRIu64, number);
    return rc;
}

int xlv_registry_each(struct xlv_registry *r,
                      int (*visit)(const struct xlv_instance *instance, void *opaque),
                      void *opaque, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt, "SELECT " COLUMNS " FROM instance ORDER BY number",
                             "list the instances", e);

    while (!rc) {
        struct xlv_instance instance;

        rc = xlv_sql_step(r, stmt, "list the instances", e);
        if (rc == XLV_E_NOT_FOUND)
            return 0;
        if (!rc)
            rc = xlv_sql_instance(r, stmt, &instance, e);
        if (!rc)
            rc = visit(&instance, opaque);
    }
    return rc;
}

/*
 * Domain names
 */

/* Copies the name that counts: without xl's suffix for a domain being received. */
int xlv_reg_domain_key(const char *name, unsigned devid, char key[XLV_DOMAIN_NAME_MAX + 1],
                       struct xlv_error *e)
{
    static const char incoming[] = "--incoming";
    size_t length = strlen(name);

    if (devid > XLV_DEVID_MAX)
        return xlv_fail(e, XLV_E_INVALID, "device %u of domain %s: only 0 to %u are accepted",
                        devid, name, XLV_DEVID_MAX);
    if (length > strlen(incoming) && !strcmp(name + length - strlen(incoming), incoming))
        length -= strlen(incoming);
    if (!length || length > XLV_DOMAIN_NAME_MAX)
        return xlv_fail(e, XLV_E_INVALID, "a domain name of %zu bytes is not accepted (1 to %u)",
                        length, XLV_DOMAIN_NAME_MAX);
    memcpy(key, name, length);
    key[length] = '\0';
    return 0;
}

int xlv_reg_store_binding(struct xlv_registry *r, const char *domain, unsigned devid,
                          uint64_t number, enum xlv_binding_origin origin, struct xlv_error *e)
{
    static const char doing[] = "bind a domain";
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = xlv_sql_prepare(r, &stmt,
                             "INSERT OR REPLACE INTO binding (domain, devid, instance, origin,"
                             " created) VALUES (?1, ?2, ?3, ?4, ?5)", doing, e);

    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 1, domain, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 2, devid, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 3, (int64_t)number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 4, xlv_reg_origin_names[origin], doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 5, time(NULL), doing, e);
    return rc ? rc : xlv_sql_run(r, stmt, doing, e);
}

/*
 * Making
 */

static int next_number(struct xlv_registry *r, int64_t *number, struct xlv_error *e)
{
    int64_t given = 0, highest = 0;
    int rc = xlv_sql_get_int(r,
                             "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = "
                             "'instance'), 0), coalesce((SELECT max(number) FROM instance), 0))",
                             &given, e);

    if (!rc)
        rc = xlv_reg_scan(r, &highest, NULL, e);
    if (rc)
        return rc;
    if (given < highest)
        given = highest;
    if (given < 0 || given >= NUMBER_MAX)
        return xlv_fail(e, XLV_E_CORRUPT, "%s: there is no number left after %" PRId64, r->path,
                        given);
    *number = given + 1;
    return 0;
}

/* Inside a transaction: row and directory of a new instance. */
int xlv_reg_insert(struct xlv_registry *r, const struct xlv_uuid *uuid,
                   enum xlv_tpm_version version, const char *label, struct xlv_instance *instance,
                   struct xlv_error *e)
{
    static const char doing[] = "make an instance";
    sqlite3_stmt *stmt FINALIZE = NULL;
    char text[XLV_UUID_TEXT];
    int64_t number = 0;
    int rc = next_number(r, &number, e);

    if (!rc)
        rc = xlv_sql_prepare(r, &stmt,
                             "INSERT INTO instance (number, uuid, tpm_version, life, created,"
                             " label) VALUES (?1, ?2, ?3, 'new', ?4, ?5)", doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 1, number, doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 2, xlv_uuid_format(uuid, text), doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 3, version, doing, e);
    if (!rc)
        rc = xlv_sql_bind_int(r, stmt, 4, time(NULL), doing, e);
    if (!rc)
        rc = xlv_sql_bind_text(r, stmt, 5, label ? label : "", doing, e);
    if (!rc)
        rc = xlv_sql_run(r, stmt, doing, e);
    if (!rc)
        rc = xlv_reg_find_number(r, (uint64_t)number, instance, e);
    return rc ? rc : xlv_reg_make_directory(r, (uint64_t)number, e);
}

/*
 * Ends a transaction that may have made *instance (number 0: none). Where the
 * commit certainly did not happen its directory goes again; after an I/O error
 * in the commit that cannot be known, and the empty directory stays.
 */
int xlv_reg_end_insert(struct xlv_registry *r, int rc, const struct xlv_instance *instance,
                       const char *doing, struct xlv_error *e)
{
    bool undone = rc != 0;

    rc = xlv_sql_end(r, rc, doing, e);
    if (instance->number && (undone || rc == -ENOSPC || rc == -EROFS))
        xlv_reg_remove_directory(r, instance);
    return rc;
}

static bool valid_label(const char *label)
{
    const char *end = label + strlen(label);

    if (end - label > (ptrdiff_t)XLV_LABEL_MAX)
        return false;
    for (const char *p = label; p < end;) {
        size_t n = xlv_utf8_character(p, end);

        if (!n || (unsigned char)*p < ' ' || *p == 0x7f)
            return false;
        p += n;
    }
    return true;
}

int xlv_reg_check_label(const char *label, struct xlv_error *e)
{
    if (!label || valid_label(label))
        return 0;
    return xlv_fail(e, XLV_E_INVALID,
                    "the label is no UTF-8 text without control characters of at most %u bytes",
                    XLV_LABEL_MAX);
}

/* The transaction of a new instance, if it may have this uuid and label at all. */
int xlv_reg_begin_new(struct xlv_registry *r, const struct xlv_uuid *uuid, const char *label,
                      const char *doing, struct xlv_error *e)
{
    int rc;

    if (xlv_uuid_is_nil(uuid))
        return xlv_fail(e, XLV_E_INVALID, "an instance cannot have the nil uuid");
    rc = xlv_reg_check_label(label, e);
    return rc ? rc : xlv_sql_begin(r, doing, e);
}

/* Its row, where no other instance has that uuid. */
int xlv_reg_insert_new(struct xlv_registry *r, const struct xlv_uuid *uuid,
                       enum xlv_tpm_version version, const char *label, struct xlv_instance *made,
                       struct xlv_error *e)
{
    struct xlv_instance old;
    char text[XLV_UUID_TEXT];
    int rc = xlv_reg_find_uuid(r, uuid, &old, e);

    if (!rc)
        return xlv_fail(e, XLV_E_EXISTS, "instance %" PRIu64 " has the uuid %s already",
                        old.number, xlv_uuid_format(uuid, text));
    return rc == XLV_E_NOT_FOUND ? xlv_reg_insert(r, uuid, version, label, made, e) : rc;
}

int xlv_registry_create(struct xlv_registry *r, const struct xlv_uuid *uuid,
                        enum xlv_tpm_version version, const char *label,
                        struct xlv_instance *instance, struct xlv_error *e)
{
    static const char doing[] = "make an instance";
    struct xlv_instance made = { .number = 0 };
    int rc;

    rc = xlv_reg_begin_new(r, uuid, label, doing, e);
    if (rc)
        return rc;
    rc = xlv_reg_insert_new(r, uuid, version, label, &made, e);
    rc = xlv_reg_end_insert(r, rc, &made, doing, e);
    if (!rc)
        *instance = made;
    return rc;
}

/*
 * Adopting: the directory is filled inside the transaction, and marked until after it.
 */

/* All that is in a directory of instances/, and itself. */
int xlv_reg_discard(struct xlv_registry *r, const char *name, struct xlv_error *e)
{
    int fd = openat(r->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int rc = 0;

    if (!dir) {
        rc = errno == ENOENT ? 0 : -errno;
        xlv_close(&fd);
        return rc ? xlv_fail(e, rc, "%s: %s beside it cannot be removed: %s", r->path, name,
                             xlv_strerror(rc)) : 0;
    }
    /* the mark goes last, for it is what says that the rest may go */
    for (int last = 0; last < 2 && !rc; last++, rewinddir(dir))
        while (!rc && (entry = readdir(dir)))
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
                (last || strcmp(entry->d_name, MARK)) && unlinkat(fd, entry->d_name, 0))
                rc = -errno;
    closedir(dir);
    if (!rc && unlinkat(r->dir, name, AT_REMOVEDIR))
        rc = -errno;
    return rc ? xlv_fail(e, rc, "%s: %s beside it cannot be removed: %s", r->path, name,
                         xlv_strerror(rc)) : 0;
}

/* Inside a transaction, so that nobody is at it: what is no instance goes, if it bears a mark or
 * is empty. */
int xlv_reg_sweep(struct xlv_registry *r, struct xlv_error *e)
{
    int fd = openat(r->dir, INSTANCES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int rc = 0;

    if (!dir) {
        rc = errno == ENOENT ? 0 : -errno;
        xlv_close(&fd);
        return rc ? xlv_fail(e, rc, "%s: the directory %s beside it cannot be read: %s", r->path,
                             INSTANCES, xlv_strerror(rc)) : 0;
    }
    while (!rc && (entry = readdir(dir))) {
        char path[NAME_MAX + sizeof(INSTANCES "/" MARK) + 1];
        struct xlv_instance instance;
        char *rest;
        uint64_t number = strtoull(entry->d_name, &rest, 10);

        if (*rest || rest == entry->d_name)
            continue;
        rc = xlv_reg_find_number(r, number, &instance, e);
        snprintf(path, sizeof(path), "%s/" MARK, entry->d_name);
        if (!rc) {
            (void)unlinkat(fd, path, 0);
        } else if (rc == XLV_E_NOT_FOUND && !faccessat(fd, path, F_OK, AT_SYMLINK_NOFOLLOW)) {
            snprintf(path, sizeof(path), INSTANCES "/%s", entry->d_name);
            rc = xlv_reg_discard(r, path, e);
        } else if (rc == XLV_E_NOT_FOUND) {
            /* from before there was a mark it is empty; one that holds something stays */
            (void)unlinkat(fd, entry->d_name, AT_REMOVEDIR);
            rc = 0;
        }
    }
    closedir(dir);
    return rc;
}

int xlv_registry_sweep(struct xlv_registry *r, struct xlv_error *e)
{
    static const char doing[] = "remove what was interrupted";
    int rc = xlv_sql_begin(r, doing, e);

    return rc ? rc : xlv_sql_end(r, xlv_reg_sweep(r, e), doing, e);
}

/* The directory of an instance, open and marked: while it is, it goes if the instance does. */
int xlv_reg_open_marked(struct xlv_registry *r, const struct xlv_instance *i, int flags, int *dirfd,
                        struct xlv_error *e)
{
    int fd XLV_CLOSE = -1, rc = xlv_registry_directory(r, i, dirfd, e);

    if (rc)
        return rc;
    fd = openat(*dirfd, MARK, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0 || fsync(*dirfd))
        return xlv_fail(e, -errno, "%s: %s beside it cannot be marked: %s", r->path, i->directory,
                        strerror(errno));
    return 0;
}

int xlv_registry_adopt(struct xlv_registry *r, const struct xlv_uuid *uuid,
                       enum xlv_tpm_version version, const char *label, enum xlv_life life,
                       xlv_fill *fill, void *opaque, struct xlv_instance *instance,
                       struct xlv_error *e)
{
    static const char doing[] = "adopt an instance";
    struct xlv_instance made = { .number = 0 };
    int dirfd XLV_CLOSE = -1, rc;
    bool undone;

    rc = xlv_reg_begin_new(r, uuid, label, doing, e);
    if (rc)
        return rc;
    rc = xlv_reg_sweep(r, e);
    if (!rc)
        rc = xlv_reg_insert_new(r, uuid, version, label, &made, e);
    if (!rc)
        rc = xlv_reg_open_marked(r, &made, O_EXCL, &dirfd, e);
    if (!rc)
        rc = fill(dirfd, &made, opaque, e);
    if (!rc)
        rc = xlv_registry_set_life(r, made.number, life, e);
    undone = rc != 0;
    rc = xlv_sql_end(r, rc, doing, e);
    /* after an error in the commit nobody knows: then the mark stays, and the next sweep does */
    if (!rc)
        (void)unlinkat(dirfd, MARK, 0);
    else if (made.number && undone)
        (void)xlv_reg_discard(r, made.directory, NULL);
    made.life = life;
    if (!rc)
        *instance = made;
    return rc;
}

/*
 * Resolving
 */

/* What the rules say now, and whether serving it has to be written down. */
struct verdict {
    enum xlv_rule rule;
    struct xlv_instance instance; /* not with ASSIGNED */
    bool remember;                /* bind the domain automatically */
};

/* What was deleted is served to nobody, and nobody gets another TPM in its place. */
int xlv_reg_refuse_deleted(const struct xlv_instance *i, struct xlv_error *e)
{
    char text[XLV_UUID_TEXT];

    if (!i->deleted_s)
        return 0;
    return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " (%s) was deleted: xl-vtpm undelete %"
                    PRIu64 " brings it back, xl-vtpm purge %" PRIu64 " ends it for ever, and its "
                    "uuid and bindings are free then", i->number, xlv_uuid_format(&i->uuid, text),
                    i->number, i->number);
}

/* domain NULL: unknown. Reads only. */
static int judge(struct xlv_registry *r, const struct xlv_lookup *lookup, const char *domain,
                 struct verdict *v, struct xlv_error *e)
{
    enum xlv_binding_origin origin = XLV_BINDING_AUTOMATIC;
    char text[XLV_UUID_TEXT];
    uint64_t bound = 0;
    int rc;

    v->remember = false;
    if (domain) {
        rc = find_binding(r, domain, lookup->devid, &bound, &origin, e);
        if (rc && rc != XLV_E_NOT_FOUND)
            return rc;
    }
    if (!xlv_uuid_is_nil(&lookup->uuid)) {
        rc = xlv_reg_find_uuid(r, &lookup->uuid, &v->instance, e);
        if (!rc) {
            v->rule = XLV_RULE_UUID;
            v->remember = domain && bound != v->instance.number &&
                          origin == XLV_BINDING_AUTOMATIC;
            return xlv_reg_refuse_deleted(&v->instance, e);
        }
        if (rc != XLV_E_NOT_FOUND)
            return rc;
    }
    if (bound) {
        v->rule = XLV_RULE_BINDING;
        rc = xlv_reg_find_number(r, bound, &v->instance, e);
        if (!rc)
            rc = xlv_reg_refuse_deleted(&v->instance, e);
        return rc != XLV_E_NOT_FOUND
                   ? rc
                   : xlv_fail(e, XLV_E_CORRUPT,
                              "%s: domain %s, device %u is bound to instance %" PRIu64
                              ", which is not there; nothing was changed",
                              r->path, domain, lookup->devid, bound);
    }
    if (lookup->unknown_uuid == XLV_UNKNOWN_UUID_REFUSE)
        return xlv_fail(e, XLV_E_REFUSED,
                        "no instance has the uuid %s, domain %s, device %u is not bound, and "
                        "unknown-uuid = refuse; make one with xl-vtpm create, or bind one with "
                        "xl-vtpm bind",
                        xlv_uuid_is_nil(&lookup->uuid) ? "(none given)"
                                                       : xlv_uuid_format(&lookup->uuid, text),
                        domain ? domain : "(unknown)", lookup->devid);
    v->rule = XLV_RULE_ASSIGNED;
    v->remember = domain != NULL;
    v->instance = (struct xlv_instance){
        .uuid = lookup->uuid,
        .tpm_version = lookup->default_version,
    };
    return 0;
}

static int lookup_domain(const struct xlv_lookup *lookup, char key[XLV_DOMAIN_NAME_MAX + 1],
                         const char **domain, struct xlv_error *e)
{
    *domain = NULL;
    if (!lookup->domain_name || !lookup->domain_name[0])
        return 0;
    *domain = key;
    return xlv_reg_domain_key(lookup->domain_name, lookup->devid, key, e);
}

int xlv_registry_preview(struct xlv_registry *r, const struct xlv_lookup *lookup,
                         struct xlv_instance *instance, enum xlv_rule *rule, struct xlv_error *e)
{
    char key[XLV_DOMAIN_NAME_MAX + 1];
    const char *domain;
    struct verdict v;
    int rc = lookup_domain(lookup, key, &domain, e);

    if (!rc)
        rc = judge(r, lookup, domain, &v, e);
    if (rc)
        return rc;
    *instance = v.instance;
    *rule = v.rule;
    return 0;
}

int xlv_registry_resolve(struct xlv_registry *r, const struct xlv_lookup *lookup,
                         struct xlv_instance *instance, enum xlv_rule *rule, struct xlv_error *e)
{
    static const char doing[] = "resolve a device";
    struct xlv_instance made = { .number = 0 };
    char key[XLV_DOMAIN_NAME_MAX + 1];
    const char *domain;
    struct verdict v;
    int rc;

    if (xlv_uuid_is_nil(&lookup->uuid))
        return xlv_fail(e, XLV_E_INVALID, "a device with the nil uuid cannot be served");
    rc = lookup_domain(lookup, key, &domain, e);
    if (rc)
        return rc;
    /* the ordinary case writes nothing, so it works on a full disk too */
    rc = judge(r, lookup, domain, &v, e);
    if (rc)
        return rc;
    if (v.rule == XLV_RULE_ASSIGNED || v.remember) {
        rc = xlv_sql_begin(r, doing, e);
        if (rc)
            return rc;
        /* somebody may have been quicker */
        rc = judge(r, lookup, domain, &v, e);
        if (!rc && v.rule == XLV_RULE_ASSIGNED) {
            rc = xlv_reg_insert(r, &lookup->uuid, lookup->default_version, NULL, &made, e);
            v.instance = made;
        }
        if (!rc && v.remember)
            rc = xlv_reg_store_binding(r, domain, lookup->devid, v.instance.number,
                                       XLV_BINDING_AUTOMATIC, e);
        rc = xlv_reg_end_insert(r, rc, &made, doing, e);
        if (rc)
            return rc;
    }
    *instance = v.instance;
    *rule = v.rule;
    return 0;
}
