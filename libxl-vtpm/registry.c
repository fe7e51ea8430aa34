/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The registry on SQLite: see registry.h for the rules.
 *
 * Invariants
 * - What is read from the database is checked like any input: a row that does
 *   not hold what the schema promises is XLV_E_CORRUPT, never a guess.
 * - Writers take the write lock first (BEGIN IMMEDIATE) and decide inside, so
 *   two processes that meet the same unknown uuid get the same instance.
 * - Order at an assignment: directory made and synced, then COMMIT (which
 *   syncs the log). A crash between leaves an empty directory and a number
 *   that is skipped, never a row without its directory.
 */
#include "config.h"

#include "libxl-vtpm/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "common/fd.h"
#include "libxl-vtpm/utf8.h"

#define DATABASE "vtpm.db"
#define INSTANCES "instances"
#define BUSY_TIMEOUT_MS 10000
/* "XVTM", so that another program's database is not taken for ours */
#define APPLICATION_ID 0x5856544d
/* JSON readers keep integers to 2^53 exactly */
#define NUMBER_MAX (INT64_C(1) << 53)

struct xlv_registry {
    sqlite3 *db;
    char *path; /* of the database, for messages */
    int dir;    /* the state directory */
};

static const char *const migrations[] = {
    /* 1 */
    "CREATE TABLE instance ("
    "  number INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  uuid TEXT NOT NULL UNIQUE CHECK (length(uuid) = 36),"
    "  tpm_version INTEGER NOT NULL CHECK (tpm_version IN (12, 20)),"
    "  life TEXT NOT NULL CHECK (life IN ('new', 'ready', 'quarantined')),"
    "  created INTEGER NOT NULL,"
    "  last_used INTEGER NOT NULL DEFAULT 0,"
    "  last_domain_name TEXT NOT NULL DEFAULT '',"
    "  last_domain_uuid TEXT NOT NULL DEFAULT '',"
    "  label TEXT NOT NULL DEFAULT '');"
    "CREATE TABLE binding ("
    "  domain TEXT NOT NULL,"
    "  devid INTEGER NOT NULL,"
    "  instance INTEGER NOT NULL REFERENCES instance (number) ON DELETE RESTRICT,"
    "  origin TEXT NOT NULL CHECK (origin IN ('automatic', 'administrator')),"
    "  created INTEGER NOT NULL,"
    "  PRIMARY KEY (domain, devid)) WITHOUT ROWID;"
    "CREATE INDEX binding_instance ON binding (instance);",
    /* 2: suspended domains, late attach */
    "ALTER TABLE instance ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE instance ADD COLUMN suspended_domid INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE instance ADD COLUMN suspended_domain_uuid TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE instance ADD COLUMN suspended_mark INTEGER NOT NULL DEFAULT -1;"
    "ALTER TABLE instance ADD COLUMN accept TEXT NOT NULL DEFAULT ''"
    "  CHECK (accept IN ('', 'reset', 'kept'));"
    "ALTER TABLE instance ADD COLUMN late_attach INTEGER NOT NULL DEFAULT 0;",
    /* 3: a uid of its own for each instance's backends */
    "CREATE TABLE backend_uid ("
    "  uid INTEGER PRIMARY KEY CHECK (uid BETWEEN 1 AND 4294967294),"
    "  instance INTEGER NOT NULL UNIQUE REFERENCES instance (number) ON DELETE CASCADE);"
    /* handing over to another host */
    "ALTER TABLE instance ADD COLUMN handover TEXT NOT NULL DEFAULT ''"
    "  CHECK (handover IN ('', 'departing', 'departed', 'arriving'));"
    "ALTER TABLE instance ADD COLUMN handover_token TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE instance ADD COLUMN handover_peer TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE instance ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;"
    /* boot measurement */
    "ALTER TABLE instance ADD COLUMN measure_boot TEXT NOT NULL DEFAULT ''"
    "  CHECK (measure_boot IN ('', 'on', 'off'));"
    /* on storage that other hosts have, too; "": in instances/ */
    "ALTER TABLE instance ADD COLUMN place TEXT NOT NULL DEFAULT '';"
    /* endorsement keys, and every certificate that was ever signed: so no foreign key there */
    "CREATE TABLE ek ("
    "  instance INTEGER NOT NULL REFERENCES instance (number) ON DELETE CASCADE,"
    "  kind TEXT NOT NULL CHECK (kind IN ('rsa2048', 'p384', 'p256')),"
    "  public BLOB NOT NULL,"
    "  fingerprint TEXT NOT NULL,"
    "  PRIMARY KEY (instance, kind)) WITHOUT ROWID;"
    "CREATE TABLE certificate ("
    "  serial TEXT PRIMARY KEY CHECK (length(serial) = 32),"
    "  instance INTEGER NOT NULL,"
    "  kind TEXT NOT NULL CHECK (kind IN ('rsa2048', 'p384', 'p256', 'platform')),"
    "  signed INTEGER NOT NULL,"
    "  in_use INTEGER NOT NULL,"
    "  der BLOB NOT NULL,"
    "  fingerprint TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX certificate_instance ON certificate (instance);",
};
#define SCHEMA ((int)(sizeof(migrations) / sizeof(migrations[0])))

#define COLUMNS \
    "number, uuid, tpm_version, life, created, last_used, last_domain_name, last_domain_uuid, " \
    "label, suspended, suspended_domid, suspended_domain_uuid, suspended_mark, accept, late_attach, " \
    "handover, handover_token, handover_peer, deleted, measure_boot, place"

static const char *const life_names[] = {
    [XLV_LIFE_NEW] = "new",
    [XLV_LIFE_READY] = "ready",
    [XLV_LIFE_QUARANTINED] = "quarantined",
};
static const char *const accept_names[] = {
    [XLV_ACCEPT_NONE] = "",
    [XLV_ACCEPT_RESET] = "reset",
    [XLV_ACCEPT_KEPT] = "kept",
};
static const char *const handover_names[] = {
    [XLV_HANDOVER_HELD] = "",
    [XLV_HANDOVER_DEPARTING] = "departing",
    [XLV_HANDOVER_DEPARTED] = "departed",
    [XLV_HANDOVER_ARRIVING] = "arriving",
};
static const char *const measure_names[] = {
    [XLV_MEASURING_DEFAULT] = "",
    [XLV_MEASURING_ON] = "on",
    [XLV_MEASURING_OFF] = "off",
};
static const char *const origin_names[] = {
    [XLV_BINDING_AUTOMATIC] = "automatic",
    [XLV_BINDING_ADMINISTRATOR] = "administrator",
};

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
    return life_names[life];
}

const char *xlv_measuring_name(enum xlv_measuring measure)
{
    return measure_names[measure];
}

const char *xlv_accept_name(enum xlv_accept accept)
{
    return accept_names[accept];
}

const char *xlv_handover_name(enum xlv_handover handover)
{
    return handover_names[handover];
}

const char *xlv_binding_origin_name(enum xlv_binding_origin origin)
{
    return origin_names[origin];
}

const char *xlv_tpm_version_name(enum xlv_tpm_version version)
{
    return version == XLV_TPM_1_2 ? "1.2" : "2.0";
}

/*
 * SQLite's last error in our contract, and the sentence for it. doing: what was
 * being done, as in "cannot <doing>".
 */
static int sql_fail(struct xlv_registry *r, struct xlv_error *e, const char *doing)
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

static int exec(struct xlv_registry *r, const char *sql, const char *doing, struct xlv_error *e)
{
    return sqlite3_exec(r->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_fail(r, e, doing);
}

/* A statement with its text arguments bound: %s in spirit, ?1 ... in SQL. */
static int prepare(struct xlv_registry *r, sqlite3_stmt **stmt, const char *sql, const char *doing,
                   struct xlv_error *e)
{
    if (sqlite3_prepare_v2(r->db, sql, -1, stmt, NULL) == SQLITE_OK)
        return 0;
    return sql_fail(r, e, doing);
}

static void finalize(sqlite3_stmt **stmt)
{
    sqlite3_finalize(*stmt);
    *stmt = NULL;
}
#define FINALIZE __attribute__((cleanup(finalize)))

static int bind_text(struct xlv_registry *r, sqlite3_stmt *stmt, int at, const char *text,
                     const char *doing, struct xlv_error *e)
{
    if (sqlite3_bind_text(stmt, at, text, -1, SQLITE_TRANSIENT) == SQLITE_OK)
        return 0;
    return sql_fail(r, e, doing);
}

static int bind_int(struct xlv_registry *r, sqlite3_stmt *stmt, int at, int64_t value,
                    const char *doing, struct xlv_error *e)
{
    if (sqlite3_bind_int64(stmt, at, value) == SQLITE_OK)
        return 0;
    return sql_fail(r, e, doing);
}

/* Steps a statement that gives no row. */
static int run(struct xlv_registry *r, sqlite3_stmt *stmt, const char *doing, struct xlv_error *e)
{
    return sqlite3_step(stmt) == SQLITE_DONE ? 0 : sql_fail(r, e, doing);
}

/* Steps a query: 0 a row, XLV_E_NOT_FOUND none (no sentence). */
static int step(struct xlv_registry *r, sqlite3_stmt *stmt, const char *doing, struct xlv_error *e)
{
    switch (sqlite3_step(stmt)) {
    case SQLITE_ROW:
        return 0;
    case SQLITE_DONE:
        return XLV_E_NOT_FOUND;
    default:
        return sql_fail(r, e, doing);
    }
}

/* A query that gives one integer. */
static int get_int(struct xlv_registry *r, const char *sql, int64_t *value, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt, sql, "read", e);

    if (!rc)
        rc = step(r, stmt, "read", e);
    if (!rc)
        *value = sqlite3_column_int64(stmt, 0);
    return rc;
}

static int begin(struct xlv_registry *r, const char *doing, struct xlv_error *e)
{
    return exec(r, "BEGIN IMMEDIATE", doing, e);
}

/* Ends a transaction: COMMIT where rc is 0, else back; gives the outcome of both. */
static int end(struct xlv_registry *r, int rc, const char *doing, struct xlv_error *e)
{
    if (!rc)
        rc = exec(r, "COMMIT", doing, e);
    if (!sqlite3_get_autocommit(r->db))
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* Row and column of ours that breaks the schema's promise. */
static int bad_row(struct xlv_registry *r, struct xlv_error *e, int64_t number, const char *what)
{
    return xlv_fail(e, XLV_E_CORRUPT,
                    "%s: the row of instance %" PRId64 " has no valid %s; nothing was changed; "
                    "put back a backup of the database",
                    r->path, number, what);
}

static bool column_text(sqlite3_stmt *stmt, int column, char *text, size_t room)
{
    const unsigned char *value = sqlite3_column_text(stmt, column);
    size_t length = (size_t)sqlite3_column_bytes(stmt, column);

    if (!value || length >= room || memchr(value, '\0', length))
        return false;
    memcpy(text, value, length);
    text[length] = '\0';
    return true;
}

static bool column_name(sqlite3_stmt *stmt, int column, const char *const *names, size_t count,
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

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

void xlv_instance_at_home(struct xlv_instance *i)
{
    snprintf(i->directory, sizeof(i->directory), INSTANCES "/%" PRIu64, i->number);
}

/* A row of COLUMNS. */
static int read_instance(struct xlv_registry *r, sqlite3_stmt *stmt, struct xlv_instance *instance,
                         struct xlv_error *e)
{
    struct xlv_instance i = { .number = 0 };
    int64_t number = sqlite3_column_int64(stmt, 0);
    char uuid[XLV_UUID_TEXT];
    int version = sqlite3_column_int(stmt, 2), life, accept, handover, measure;

    if (number < 1 || number > NUMBER_MAX)
        return bad_row(r, e, number, "number");
    i.number = (uint64_t)number;
    if (!column_text(stmt, 1, uuid, sizeof(uuid)) || xlv_uuid_parse(&i.uuid, uuid) ||
        xlv_uuid_is_nil(&i.uuid))
        return bad_row(r, e, number, "uuid");
    if (version != XLV_TPM_1_2 && version != XLV_TPM_2_0)
        return bad_row(r, e, number, "TPM version");
    i.tpm_version = (enum xlv_tpm_version)version;
    if (!column_name(stmt, 3, life_names, COUNT(life_names), &life))
        return bad_row(r, e, number, "state of life");
    i.life = (enum xlv_life)life;
    i.created_s = sqlite3_column_int64(stmt, 4);
    i.last_used_s = sqlite3_column_int64(stmt, 5);
    if (!column_text(stmt, 6, i.last_domain_name, sizeof(i.last_domain_name)))
        return bad_row(r, e, number, "domain name");
    if (!column_text(stmt, 7, i.last_domain_uuid, sizeof(i.last_domain_uuid)))
        return bad_row(r, e, number, "domain uuid");
    if (!column_text(stmt, 8, i.label, sizeof(i.label)))
        return bad_row(r, e, number, "label");
    i.suspended.at_s = sqlite3_column_int64(stmt, 9);
    i.suspended.domid = (uint32_t)sqlite3_column_int64(stmt, 10);
    if (sqlite3_column_int64(stmt, 10) != i.suspended.domid || i.suspended.domid > XLV_DOMID_MAX ||
        !column_text(stmt, 11, i.suspended.domain_uuid, sizeof(i.suspended.domain_uuid)))
        return bad_row(r, e, number, "suspended domain");
    i.suspended.mark = sqlite3_column_int64(stmt, 12);
    if (!column_name(stmt, 13, accept_names, COUNT(accept_names), &accept))
        return bad_row(r, e, number, "word in accept");
    i.accept = (enum xlv_accept)accept;
    i.late_attach_s = sqlite3_column_int64(stmt, 14);
    if (!column_name(stmt, 15, handover_names, COUNT(handover_names), &handover) ||
        !column_text(stmt, 16, i.handover_token, sizeof(i.handover_token)) ||
        !column_text(stmt, 17, i.handover_peer, sizeof(i.handover_peer)))
        return bad_row(r, e, number, "handover");
    i.handover = (enum xlv_handover)handover;
    i.deleted_s = sqlite3_column_int64(stmt, 18);
    if (!column_name(stmt, 19, measure_names, COUNT(measure_names), &measure))
        return bad_row(r, e, number, "word in measure_boot");
    i.measure_boot = (enum xlv_measuring)measure;
    if (!column_text(stmt, 20, i.directory, sizeof(i.directory)) ||
        (i.directory[0] && i.directory[0] != '/'))
        return bad_row(r, e, number, "directory on shared storage");
    if (!i.directory[0])
        xlv_instance_at_home(&i);
    *instance = i;
    return 0;
}

/*
 * Directories
 */

/* Whether the directory name in fd holds anything; an unreadable one counts as full. */
static bool holds_something(int fd, const char *name)
{
    int sub = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct dirent *entry;
    bool found = false;
    DIR *dir;

    if (sub < 0)
        return true;
    dir = fdopendir(sub);
    if (!dir) {
        xlv_close(&sub);
        return true;
    }
    while (!found && (entry = readdir(dir)))
        found = strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(dir);
    return found;
}

/*
 * The highest number that has a directory in instances/ (0: none), and whether
 * any of them holds something (filled may be NULL). Names that are no numbers
 * of ours do not count.
 */
static int scan_instances(struct xlv_registry *r, int64_t *highest, bool *filled,
                          struct xlv_error *e)
{
    int fd = openat(r->dir, INSTANCES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir;
    int rc = 0;

    *highest = 0;
    if (filled)
        *filled = false;
    if (fd < 0 && errno == ENOENT)
        return 0;
    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        rc = xlv_fail(e, -errno, "%s: the directory %s beside it cannot be read: %s", r->path,
                      INSTANCES, strerror(errno));
        xlv_close(&fd);
        return rc;
    }
    for (;;) {
        struct dirent *entry;
        intmax_t number;
        char *rest;

        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            if (errno)
                rc = xlv_fail(e, -errno, "%s: the directory %s beside it cannot be read: %s",
                              r->path, INSTANCES, strerror(errno));
            break;
        }
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        number = strtoimax(entry->d_name, &rest, 10);
        if (*rest || errno || number > NUMBER_MAX)
            continue;
        if (number > *highest)
            *highest = number;
        /* an empty directory is all that a crash in an assignment leaves */
        if (filled && !*filled)
            *filled = holds_something(fd, entry->d_name);
    }
    closedir(dir);
    return rc;
}

/* No database, or an empty one: fine unless there are instances that it should know. */
static int refuse_if_lost(struct xlv_registry *r, struct xlv_error *e)
{
    int64_t highest;
    bool filled;
    int rc = scan_instances(r, &highest, &filled, e);

    if (!rc && filled)
        return xlv_fail(e, XLV_E_CORRUPT,
                        "%s is missing or empty, but %s/ holds instances; a new registry would "
                        "give their guests other TPMs; put back a backup of the database",
                        r->path, INSTANCES);
    return rc;
}

/* A directory entry is durable when the directory that holds it is synced. */
static int make_directory(struct xlv_registry *r, int parent, const char *name, bool may_exist,
                          struct xlv_error *e)
{
    int fd XLV_CLOSE = -1;

    if (mkdirat(parent, name, 0700) < 0 && !(may_exist && errno == EEXIST))
        return xlv_fail(e, -errno, "%s: the directory %s beside it cannot be made: %s", r->path,
                        name, strerror(errno));
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0 || fsync(parent) < 0)
        return xlv_fail(e, -errno, "%s: the directory %s beside it cannot be synced: %s", r->path,
                        name, strerror(errno));
    return 0;
}

static int make_instance_directory(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    char name[24];
    int fd XLV_CLOSE = openat(r->dir, INSTANCES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return xlv_fail(e, -errno, "%s: the directory %s beside it cannot be opened: %s", r->path,
                        INSTANCES, strerror(errno));
    snprintf(name, sizeof(name), "%" PRIu64, number);
    return make_directory(r, fd, name, false, e);
}

static void remove_instance_directory(struct xlv_registry *r, const struct xlv_instance *instance)
{
    (void)unlinkat(r->dir, instance->directory, AT_REMOVEDIR);
}

const char *xlv_instance_path(const char *state_dir, const struct xlv_instance *instance,
                              char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s%s%s", xlv_instance_shared(instance) ? "" : state_dir,
             xlv_instance_shared(instance) ? "" : "/", instance->directory);
    return path;
}

int xlv_registry_directory(struct xlv_registry *r, const struct xlv_instance *instance, int *fd,
                           struct xlv_error *e)
{
    *fd = openat(r->dir, instance->directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd >= 0)
        return 0;
    return xlv_fail(e, errno == ENOENT ? XLV_E_NOT_FOUND : -errno,
                    "%s: the directory %s of instance %" PRIu64 " cannot be opened: %s", r->path,
                    instance->directory, instance->number, strerror(errno));
}

int xlv_registry_own_directory(struct xlv_registry *r, const struct xlv_instance *instance,
                               int *fd, struct xlv_error *e)
{
    struct xlv_instance own = *instance;

    xlv_instance_at_home(&own);
    return xlv_registry_directory(r, &own, fd, e);
}

/*
 * Opening
 */

static int open_state_dir(struct xlv_registry *r, const char *state_dir, bool create,
                          struct xlv_error *e)
{
    bool made = create && mkdir(state_dir, 0700) == 0;

    r->dir = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir < 0 && errno == ENOENT && !create)
        return xlv_fail(e, XLV_E_NOT_FOUND, "there is no registry in %s yet", state_dir);
    if (r->dir < 0)
        return xlv_fail(e, -errno, "the state directory %s cannot be opened: %s", state_dir,
                        strerror(errno));
    if (made) {
        int parent XLV_CLOSE = openat(r->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (parent < 0 || fsync(parent) < 0)
            return xlv_fail(e, -errno, "the parent directory of %s cannot be synced: %s",
                            state_dir, strerror(errno));
    }
    return 0;
}

/* The file itself, so that it gets its mode from us; SQLite's own files follow it. */
static int make_file(struct xlv_registry *r, bool create, struct xlv_error *e)
{
    int fd XLV_CLOSE = -1;
    struct stat st;
    int rc;

    if (fstatat(r->dir, DATABASE, &st, 0) == 0) {
        if (S_ISREG(st.st_mode))
            return 0;
        return xlv_fail(e, XLV_E_CORRUPT, "%s is not a file", r->path);
    }
    if (errno != ENOENT)
        return xlv_fail(e, -errno, "%s cannot be examined: %s", r->path, strerror(errno));
    rc = refuse_if_lost(r, e);
    if (rc)
        return rc;
    if (!create)
        return xlv_fail(e, XLV_E_NOT_FOUND, "%s does not exist yet", r->path);
    /* O_EXCL: where a racing process made it, its file is not opened here and
     * closed again, which would drop the locks SQLite holds on it */
    fd = openat(r->dir, DATABASE, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && errno != EEXIST)
        return xlv_fail(e, -errno, "%s cannot be made: %s", r->path, strerror(errno));
    if (fsync(r->dir) < 0)
        return xlv_fail(e, -errno, "the directory of %s cannot be synced: %s", r->path,
                        strerror(errno));
    return 0;
}

static int open_database(struct xlv_registry *r, bool immutable, struct xlv_error *e)
{
    static const char pragmas[] =
        "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;"
        "PRAGMA cell_size_check = ON";
    char *uri XLV_FREE = malloc(strlen(r->path) * 3 + 32), *to;
    int flags = SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX;

    if (!uri)
        return xlv_fail(e, -ENOMEM, "%s cannot be opened: no memory", r->path);
    to = stpcpy(uri, "file:");
    for (const char *from = r->path; *from; from++)
        if (strchr("%?#", *from))
            to += sprintf(to, "%%%02x", (unsigned char)*from);
        else
            *to++ = *from;
    strcpy(to, immutable ? "?immutable=1" : "");
    flags |= immutable ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
    if (sqlite3_open_v2(uri, &r->db, flags, NULL) != SQLITE_OK)
        return sql_fail(r, e, "open it");
    sqlite3_extended_result_codes(r->db, 1);
    sqlite3_busy_timeout(r->db, BUSY_TIMEOUT_MS);
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    return exec(r, pragmas, "open it", e);
}

static void close_database(struct xlv_registry *r)
{
    sqlite3_close(r->db);
    r->db = NULL;
}

enum content { CONTENT_OURS, CONTENT_FRESH };

/*
 * What the file holds. The three answers come from one transaction: another
 * process may be setting the database up right now, and half of before with
 * half of after looks like a stranger's.
 */
static int look(struct xlv_registry *r, enum content *content, int *version, struct xlv_error *e)
{
    int64_t application = 0, user_version = 0, objects = 0;
    bool alone = sqlite3_get_autocommit(r->db);
    int rc = alone ? exec(r, "BEGIN", "read", e) : 0;

    if (!rc)
        rc = get_int(r, "SELECT count(*) FROM sqlite_master", &objects, e);
    if (!rc)
        rc = get_int(r, "PRAGMA application_id", &application, e);
    if (!rc)
        rc = get_int(r, "PRAGMA user_version", &user_version, e);
    if (alone)
        rc = end(r, rc, "read", e);
    if (rc)
        return rc;
    if (application == 0 && user_version == 0 && objects == 0) {
        *content = CONTENT_FRESH;
        *version = 0;
        return 0;
    }
    if (application != APPLICATION_ID || user_version < 1)
        return xlv_fail(e, XLV_E_CORRUPT,
                        "%s is a database of another program; it was left as it is", r->path);
    if (user_version > SCHEMA)
        return xlv_fail(e, XLV_E_VERSION,
                        "%s was written by a newer version (schema %" PRId64
                        ", this one knows %d); install that version",
                        r->path, user_version, SCHEMA);
    *content = CONTENT_OURS;
    *version = (int)user_version;
    return 0;
}

/* Brings the schema up to date; the version is looked at again under the lock. */
static int migrate(struct xlv_registry *r, struct xlv_error *e)
{
    static const char doing[] = "set it up";
    enum content content;
    int version, rc;

    rc = begin(r, doing, e);
    if (rc)
        return rc;
    rc = look(r, &content, &version, e);
    if (!rc && content == CONTENT_FRESH)
        rc = refuse_if_lost(r, e);
    for (; !rc && version < SCHEMA; version++)
        rc = exec(r, migrations[version], doing, e);
    if (!rc) {
        char sql[96];

        snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d",
                 APPLICATION_ID, SCHEMA);
        rc = exec(r, sql, doing, e);
    }
    return end(r, rc, doing, e);
}

/* Damage is better found here than in the middle of something. */
static int verify(struct xlv_registry *r, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    sqlite3_stmt *columns FINALIZE = NULL;
    sqlite3_stmt *bindings FINALIZE = NULL;
    const char *answer;
    int rc = prepare(r, &stmt, "PRAGMA quick_check(1)", "check it", e);

    if (!rc)
        rc = step(r, stmt, "check it", e);
    if (rc)
        return rc;
    answer = (const char *)sqlite3_column_text(stmt, 0);
    if (!answer || strcmp(answer, "ok"))
        return xlv_fail(e, XLV_E_CORRUPT,
                        "%s is damaged (%s); nothing was changed; keep a copy of the directory "
                        "and put back a backup of the database",
                        r->path, answer ? answer : "no answer");
    if (sqlite3_prepare_v2(r->db, "SELECT " COLUMNS " FROM instance", -1, &columns, NULL) ||
        sqlite3_prepare_v2(r->db, "SELECT domain, devid, instance, origin, created FROM binding",
                           -1, &bindings, NULL))
        return xlv_fail(e, XLV_E_CORRUPT,
                        "%s has not the tables of its schema version (%s); nothing was changed",
                        r->path, sqlite3_errmsg(r->db));
    return 0;
}

static int settle(struct xlv_registry *r, bool create, struct xlv_error *e)
{
    enum content content;
    int version, rc = look(r, &content, &version, e);

    if (rc)
        return rc;
    if (content == CONTENT_FRESH && !create) {
        rc = refuse_if_lost(r, e);
        return rc ? rc : xlv_fail(e, XLV_E_NOT_FOUND, "%s holds no registry yet", r->path);
    }
    if (version < SCHEMA && !create)
        return xlv_fail(e, XLV_E_VERSION,
                        "%s was written by an older version (schema %d, this one knows %d); "
                        "start xl-vtpmd, which brings it up to date",
                        r->path, version, SCHEMA);
    /* stays with the file, but not through a dump and restore */
    if (create)
        rc = exec(r, "PRAGMA journal_mode = WAL", "set it up", e);
    if (!rc && version < SCHEMA)
        rc = migrate(r, e);
    if (!rc)
        rc = verify(r, e);
    if (!rc && create && faccessat(r->dir, INSTANCES, F_OK, 0) < 0)
        rc = make_directory(r, r->dir, INSTANCES, true, e);
    return rc;
}

/*
 * A database on a read-only disk: the log's index cannot be made, but where no
 * log is left (the last user closed it) the file alone is the truth.
 */
static bool readable_as_it_is(struct xlv_registry *r)
{
    struct stat st;

    if (fstatat(r->dir, DATABASE "-wal", &st, 0) == 0)
        return st.st_size == 0;
    return errno == ENOENT;
}

static int open_settled(struct xlv_registry *r, bool create, struct xlv_error *e)
{
    struct xlv_error why = XLV_ERROR_INIT;
    int rc = open_database(r, false, &why);

    if (!rc)
        rc = settle(r, create, &why);
    if ((rc == -EROFS || rc == -EACCES || rc == -ENOENT) && !create && readable_as_it_is(r)) {
        close_database(r);
        xlv_error_clear(&why);
        rc = open_database(r, true, &why);
        if (!rc)
            rc = settle(r, create, &why);
    }
    return rc ? xlv_fail(e, rc, "%s", why.text) : 0;
}

int xlv_registry_open(struct xlv_registry **out, const char *state_dir, bool create,
                      struct xlv_error *e)
{
    struct xlv_registry *r = calloc(1, sizeof(*r));
    int rc;

    *out = NULL;
    if (!r || asprintf(&r->path, "%s/" DATABASE, state_dir) < 0) {
        free(r);
        return xlv_fail(e, -ENOMEM, "no memory to open the registry in %s", state_dir);
    }
    r->dir = -1;
    rc = open_state_dir(r, state_dir, create, e);
    if (!rc)
        rc = make_file(r, create, e);
    if (!rc) {
        struct timespec start, now;
        struct xlv_error why;

        /* Two that make the database at once: the change to WAL gives up at
         * once, without the busy timeout, where waiting could be a deadlock. */
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (;;) {
            xlv_error_clear(&why);
            rc = open_settled(r, create, &why);
            clock_gettime(CLOCK_MONOTONIC, &now);
            if (rc != -EBUSY || now.tv_sec - start.tv_sec >= BUSY_TIMEOUT_MS / 1000)
                break;
            close_database(r);
            nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        }
        if (rc)
            xlv_fail(e, rc, "%s", why.text);
    }
    if (rc) {
        xlv_registry_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

void xlv_registry_close(struct xlv_registry *r)
{
    if (!r)
        return;
    close_database(r);
    xlv_close(&r->dir);
    free(r->path);
    free(r);
}

/*
 * Finding
 */

static int find_uuid(struct xlv_registry *r, const struct xlv_uuid *uuid,
                     struct xlv_instance *instance, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    char text[XLV_UUID_TEXT];
    int rc = prepare(r, &stmt, "SELECT " COLUMNS " FROM instance WHERE uuid = ?1",
                     "look an instance up", e);

    if (!rc)
        rc = bind_text(r, stmt, 1, xlv_uuid_format(uuid, text), "look an instance up", e);
    if (!rc)
        rc = step(r, stmt, "look an instance up", e);
    return rc ? rc : read_instance(r, stmt, instance, e);
}

static int find_number(struct xlv_registry *r, uint64_t number, struct xlv_instance *instance,
                       struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc;

    if (number < 1 || number > (uint64_t)NUMBER_MAX)
        return XLV_E_NOT_FOUND;
    rc = prepare(r, &stmt, "SELECT " COLUMNS " FROM instance WHERE number = ?1",
                 "look an instance up", e);
    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, "look an instance up", e);
    if (!rc)
        rc = step(r, stmt, "look an instance up", e);
    return rc ? rc : read_instance(r, stmt, instance, e);
}

/* number and origin of a binding; XLV_E_NOT_FOUND without a sentence. */
static int find_binding(struct xlv_registry *r, const char *domain, unsigned devid,
                        uint64_t *number, enum xlv_binding_origin *origin, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int which, rc;

    rc = prepare(r, &stmt, "SELECT instance, origin FROM binding WHERE domain = ?1 AND devid = ?2",
                 "look a binding up", e);
    if (!rc)
        rc = bind_text(r, stmt, 1, domain, "look a binding up", e);
    if (!rc)
        rc = bind_int(r, stmt, 2, devid, "look a binding up", e);
    if (!rc)
        rc = step(r, stmt, "look a binding up", e);
    if (rc)
        return rc;
    if (sqlite3_column_int64(stmt, 0) < 1 ||
        !column_name(stmt, 1, origin_names, COUNT(origin_names), &which))
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
    int rc = find_uuid(r, uuid, instance, e);

    if (rc == XLV_E_NOT_FOUND)
        xlv_fail(e, rc, "no instance has the uuid %s", xlv_uuid_format(uuid, text));
    return rc;
}

int xlv_registry_get_number(struct xlv_registry *r, uint64_t number, struct xlv_instance *instance,
                            struct xlv_error *e)
{
    int rc = find_number(r, number, instance, e);

    if (rc == XLV_E_NOT_FOUND)
        xlv_fail(e, rc, "there is no instance %" PRIu64, number);
    return rc;
}

int xlv_registry_each(struct xlv_registry *r,
                      int (*visit)(const struct xlv_instance *instance, void *opaque),
                      void *opaque, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt, "SELECT " COLUMNS " FROM instance ORDER BY number",
                     "list the instances", e);

    while (!rc) {
        struct xlv_instance instance;

        rc = step(r, stmt, "list the instances", e);
        if (rc == XLV_E_NOT_FOUND)
            return 0;
        if (!rc)
            rc = read_instance(r, stmt, &instance, e);
        if (!rc)
            rc = visit(&instance, opaque);
    }
    return rc;
}

/*
 * Domain names
 */

/* Copies the name that counts: without xl's suffix for a domain being received. */
static int domain_key(const char *name, unsigned devid, char key[XLV_DOMAIN_NAME_MAX + 1],
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

static int store_binding(struct xlv_registry *r, const char *domain, unsigned devid,
                         uint64_t number, enum xlv_binding_origin origin, struct xlv_error *e)
{
    static const char doing[] = "bind a domain";
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt,
                     "INSERT OR REPLACE INTO binding (domain, devid, instance, origin, created)"
                     " VALUES (?1, ?2, ?3, ?4, ?5)",
                     doing, e);

    if (!rc)
        rc = bind_text(r, stmt, 1, domain, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 2, devid, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 3, (int64_t)number, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 4, origin_names[origin], doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 5, time(NULL), doing, e);
    return rc ? rc : run(r, stmt, doing, e);
}

/*
 * Making
 */

static int next_number(struct xlv_registry *r, int64_t *number, struct xlv_error *e)
{
    int64_t given = 0, highest = 0;
    int rc = get_int(r,
                     "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = "
                     "'instance'), 0), coalesce((SELECT max(number) FROM instance), 0))",
                     &given, e);

    if (!rc)
        rc = scan_instances(r, &highest, NULL, e);
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
static int insert(struct xlv_registry *r, const struct xlv_uuid *uuid,
                  enum xlv_tpm_version version, const char *label, struct xlv_instance *instance,
                  struct xlv_error *e)
{
    static const char doing[] = "make an instance";
    sqlite3_stmt *stmt FINALIZE = NULL;
    char text[XLV_UUID_TEXT];
    int64_t number = 0;
    int rc = next_number(r, &number, e);

    if (!rc)
        rc = prepare(r, &stmt,
                     "INSERT INTO instance (number, uuid, tpm_version, life, created, label)"
                     " VALUES (?1, ?2, ?3, 'new', ?4, ?5)",
                     doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 1, number, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 2, xlv_uuid_format(uuid, text), doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 3, version, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 4, time(NULL), doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 5, label ? label : "", doing, e);
    if (!rc)
        rc = run(r, stmt, doing, e);
    if (!rc)
        rc = find_number(r, (uint64_t)number, instance, e);
    return rc ? rc : make_instance_directory(r, (uint64_t)number, e);
}

/*
 * Ends a transaction that may have made *instance (number 0: none). Where the
 * commit certainly did not happen its directory goes again; after an I/O error
 * in the commit that cannot be known, and the empty directory stays.
 */
static int end_insert(struct xlv_registry *r, int rc, const struct xlv_instance *instance,
                      const char *doing, struct xlv_error *e)
{
    bool undone = rc != 0;

    rc = end(r, rc, doing, e);
    if (instance->number && (undone || rc == -ENOSPC || rc == -EROFS))
        remove_instance_directory(r, instance);
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

static int check_label(const char *label, struct xlv_error *e)
{
    if (!label || valid_label(label))
        return 0;
    return xlv_fail(e, XLV_E_INVALID,
                    "the label is no UTF-8 text without control characters of at most %u bytes",
                    XLV_LABEL_MAX);
}

/* The transaction of a new instance, if it may have this uuid and label at all. */
static int begin_new(struct xlv_registry *r, const struct xlv_uuid *uuid, const char *label,
                     const char *doing, struct xlv_error *e)
{
    int rc;

    if (xlv_uuid_is_nil(uuid))
        return xlv_fail(e, XLV_E_INVALID, "an instance cannot have the nil uuid");
    rc = check_label(label, e);
    return rc ? rc : begin(r, doing, e);
}

/* Its row, where no other instance has that uuid. */
static int insert_new(struct xlv_registry *r, const struct xlv_uuid *uuid,
                      enum xlv_tpm_version version, const char *label, struct xlv_instance *made,
                      struct xlv_error *e)
{
    struct xlv_instance old;
    char text[XLV_UUID_TEXT];
    int rc = find_uuid(r, uuid, &old, e);

    if (!rc)
        return xlv_fail(e, XLV_E_EXISTS, "instance %" PRIu64 " has the uuid %s already",
                        old.number, xlv_uuid_format(uuid, text));
    return rc == XLV_E_NOT_FOUND ? insert(r, uuid, version, label, made, e) : rc;
}

int xlv_registry_create(struct xlv_registry *r, const struct xlv_uuid *uuid,
                        enum xlv_tpm_version version, const char *label,
                        struct xlv_instance *instance, struct xlv_error *e)
{
    static const char doing[] = "make an instance";
    struct xlv_instance made = { .number = 0 };
    int rc;

    rc = begin_new(r, uuid, label, doing, e);
    if (rc)
        return rc;
    rc = insert_new(r, uuid, version, label, &made, e);
    rc = end_insert(r, rc, &made, doing, e);
    if (!rc)
        *instance = made;
    return rc;
}

/*
 * Adopting: the directory is filled inside the transaction, and marked until after it.
 */

#define MARK "incomplete"

/* All that is in a directory of instances/, and itself. */
static int discard(struct xlv_registry *r, const char *name, struct xlv_error *e)
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
static int sweep(struct xlv_registry *r, struct xlv_error *e)
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
        rc = find_number(r, number, &instance, e);
        snprintf(path, sizeof(path), "%s/" MARK, entry->d_name);
        if (!rc) {
            (void)unlinkat(fd, path, 0);
        } else if (rc == XLV_E_NOT_FOUND && !faccessat(fd, path, F_OK, AT_SYMLINK_NOFOLLOW)) {
            snprintf(path, sizeof(path), INSTANCES "/%s", entry->d_name);
            rc = discard(r, path, e);
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
    int rc = begin(r, doing, e);

    return rc ? rc : end(r, sweep(r, e), doing, e);
}

/* The directory of an instance, open and marked: while it is, it goes if the instance does. */
static int open_marked(struct xlv_registry *r, const struct xlv_instance *i, int flags, int *dirfd,
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

    rc = begin_new(r, uuid, label, doing, e);
    if (rc)
        return rc;
    rc = sweep(r, e);
    if (!rc)
        rc = insert_new(r, uuid, version, label, &made, e);
    if (!rc)
        rc = open_marked(r, &made, O_EXCL, &dirfd, e);
    if (!rc)
        rc = fill(dirfd, &made, opaque, e);
    if (!rc)
        rc = xlv_registry_set_life(r, made.number, life, e);
    undone = rc != 0;
    rc = end(r, rc, doing, e);
    /* after an error in the commit nobody knows: then the mark stays, and the next sweep does */
    if (!rc)
        (void)unlinkat(dirfd, MARK, 0);
    else if (made.number && undone)
        (void)discard(r, made.directory, NULL);
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
static int refuse_deleted(const struct xlv_instance *i, struct xlv_error *e)
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
        rc = find_uuid(r, &lookup->uuid, &v->instance, e);
        if (!rc) {
            v->rule = XLV_RULE_UUID;
            v->remember = domain && bound != v->instance.number &&
                          origin == XLV_BINDING_AUTOMATIC;
            return refuse_deleted(&v->instance, e);
        }
        if (rc != XLV_E_NOT_FOUND)
            return rc;
    }
    if (bound) {
        v->rule = XLV_RULE_BINDING;
        rc = find_number(r, bound, &v->instance, e);
        if (!rc)
            rc = refuse_deleted(&v->instance, e);
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
    return domain_key(lookup->domain_name, lookup->devid, key, e);
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
        rc = begin(r, doing, e);
        if (rc)
            return rc;
        /* somebody may have been quicker */
        rc = judge(r, lookup, domain, &v, e);
        if (!rc && v.rule == XLV_RULE_ASSIGNED) {
            rc = insert(r, &lookup->uuid, lookup->default_version, NULL, &made, e);
            v.instance = made;
        }
        if (!rc && v.remember)
            rc = store_binding(r, domain, lookup->devid, v.instance.number, XLV_BINDING_AUTOMATIC,
                               e);
        rc = end_insert(r, rc, &made, doing, e);
        if (rc)
            return rc;
    }
    *instance = v.instance;
    *rule = v.rule;
    return 0;
}

/*
 * Changing
 */

/* Runs an UPDATE of one instance; XLV_E_NOT_FOUND where it hit none. */
static int update(struct xlv_registry *r, sqlite3_stmt *stmt, uint64_t number, const char *doing,
                  struct xlv_error *e)
{
    int rc = run(r, stmt, doing, e);

    if (!rc && sqlite3_changes(r->db) == 0)
        rc = xlv_fail(e, XLV_E_NOT_FOUND, "there is no instance %" PRIu64, number);
    return rc;
}

static int set_text(struct xlv_registry *r, const char *sql, uint64_t number, const char *value,
                    const char *doing, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 2, value, doing, e);
    return rc ? rc : update(r, stmt, number, doing, e);
}

/* Runs a statement with an instance's number as ?1. */
static int about_instance(struct xlv_registry *r, const char *sql, uint64_t number,
                          const char *doing, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    return rc ? rc : run(r, stmt, doing, e);
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
    int rc = exec(r, "BEGIN", doing, e);

    if (rc)
        return rc;
    rc = xlv_registry_each(r, visit, opaque, e);
    if (!rc)
        rc = copy_database(r, path, e);
    return end(r, rc, doing, e);
}

int xlv_registry_set_life(struct xlv_registry *r, uint64_t number, enum xlv_life life,
                          struct xlv_error *e)
{
    return set_text(r, "UPDATE instance SET life = ?2 WHERE number = ?1", number, life_names[life],
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
    int rc = begin(r, doing, e);

    if (rc)
        return rc;
    rc = set_text(r,
                  "UPDATE instance SET life = ?2, suspended = 0, suspended_domid = 0,"
                  " suspended_domain_uuid = '', suspended_mark = -1, accept = '',"
                  " late_attach = 0 WHERE number = ?1",
                  number, life_names[XLV_LIFE_READY], doing, e);
    if (!rc)
        rc = about_instance(r, "DELETE FROM ek WHERE instance = ?1", number, doing, e);
    if (!rc)
        rc = about_instance(r, "UPDATE certificate SET in_use = 0 WHERE instance = ?1", number,
                            doing, e);
    return end(r, rc, doing, e);
}

int xlv_registry_set_label(struct xlv_registry *r, uint64_t number, const char *label,
                           struct xlv_error *e)
{
    int rc = check_label(label, e);

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
    rc = prepare(r, &stmt,
                 use == XLV_USE_AGAIN
                     ? "UPDATE instance SET last_used = ?2, last_domain_name = ?3,"
                       " last_domain_uuid = ?4 WHERE number = ?1"
                     : "UPDATE instance SET last_used = ?2, last_domain_name = ?3,"
                       " last_domain_uuid = ?4, suspended = 0, suspended_domid = 0,"
                       " suspended_domain_uuid = '', suspended_mark = -1, accept = '',"
                       " late_attach = ?5 WHERE number = ?1",
                 doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 2, now, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 3, domain_name ? domain_name : "", doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 4, domain_uuid ? domain_uuid : "", doing, e);
    if (!rc && use != XLV_USE_AGAIN)
        rc = bind_int(r, stmt, 5, use == XLV_USE_LATE ? now : 0, doing, e);
    return rc ? rc : update(r, stmt, number, doing, e);
}

int xlv_registry_suspended(struct xlv_registry *r, uint64_t number,
                           const struct xlv_suspended *suspended, struct xlv_error *e)
{
    static const char doing[] = "note that a domain is suspended";
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt,
                     "UPDATE instance SET suspended = ?2, suspended_domid = ?3,"
                     " suspended_domain_uuid = ?4, suspended_mark = ?5, accept = ''"
                     " WHERE number = ?1",
                     doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 2, time(NULL), doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 3, suspended->domid, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 4, suspended->domain_uuid, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 5, suspended->mark, doing, e);
    return rc ? rc : update(r, stmt, number, doing, e);
}

int xlv_registry_accept(struct xlv_registry *r, uint64_t number, enum xlv_accept accept,
                        struct xlv_error *e)
{
    return set_text(r, "UPDATE instance SET accept = ?2 WHERE number = ?1", number,
                    accept_names[accept], "accept a restored domain", e);
}

int xlv_registry_measure_boot(struct xlv_registry *r, uint64_t number,
                              enum xlv_measuring measure, struct xlv_error *e)
{
    return set_text(r, "UPDATE instance SET measure_boot = ?2 WHERE number = ?1", number,
                    measure_names[measure], "set whether boots are measured", e);
}

/* The first row for instance ?1 and the uids ?2 to ?3. */
static int step_in_range(struct xlv_registry *r, sqlite3_stmt *stmt, uint64_t number,
                         int64_t first, int64_t last, const char *doing, struct xlv_error *e)
{
    int rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 2, first, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 3, last, doing, e);
    return rc ? rc : step(r, stmt, doing, e);
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
    rc = prepare(r, &stmt, mine, doing, e);
    if (!rc)
        rc = step_in_range(r, stmt, number, first, last, doing, e);
    if (!rc)
        *uid = (uint32_t)sqlite3_column_int64(stmt, 0);
    if (rc != XLV_E_NOT_FOUND)
        return rc;
    finalize(&stmt);

    rc = begin(r, doing, e);
    if (rc)
        return rc;
    /* one of another range is given back */
    rc = prepare(r, &stmt, "DELETE FROM backend_uid WHERE instance = ?1", doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = run(r, stmt, doing, e);
    finalize(&stmt);
    /* the lowest that is free: the first one, or one behind one that is taken */
    if (!rc)
        rc = prepare(r, &stmt,
                     "INSERT INTO backend_uid SELECT min(uid), ?1 FROM"
                     " (SELECT ?2 AS uid UNION ALL SELECT uid + 1 FROM backend_uid)"
                     " WHERE uid BETWEEN ?2 AND ?3"
                     " AND uid NOT IN (SELECT uid FROM backend_uid) HAVING min(uid) IS NOT NULL"
                     " RETURNING uid", doing, e);
    if (!rc)
        rc = step_in_range(r, stmt, number, first, last, doing, e);
    if (rc == XLV_E_NOT_FOUND)
        rc = xlv_fail(e, XLV_E_REFUSED, "all %" PRIu32 " uids from %" PRIu32 " on are taken by "
                      "other instances: raise backend-uid-count", count, first);
    if (!rc) {
        *uid = (uint32_t)sqlite3_column_int64(stmt, 0);
        rc = run(r, stmt, doing, e);
    }
    finalize(&stmt);
    return end(r, rc, doing, e);
}

/* The row itself; inside a transaction. */
static int set_handover(struct xlv_registry *r, uint64_t number, enum xlv_handover to,
                        const char *token, const char *peer, const char *doing,
                        struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt,
                     "UPDATE instance SET handover = ?2, handover_token = ?3, handover_peer = ?4"
                     " WHERE number = ?1",
                     doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 2, handover_names[to], doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 3, token, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 4, peer, doing, e);
    return rc ? rc : update(r, stmt, number, doing, e);
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
        rc = begin(r, doing, e);
    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &i, e);
    if (!rc)
        rc = refuse_deleted(&i, e);
    if (!rc && i.handover != XLV_HANDOVER_HELD)
        rc = xlv_fail(e, XLV_E_CONFLICT, "instance %" PRIu64 " is %s already (%s, token %s)",
                      number, handover_names[i.handover], i.handover_peer, i.handover_token);
    if (!rc)
        rc = set_handover(r, number, XLV_HANDOVER_DEPARTING, token, peer, doing, e);
    return end(r, rc, doing, e);
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
        rc = begin(r, doing, e);
    if (rc)
        return rc;
    rc = find_uuid(r, uuid, &i, e);
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
        rc = insert(r, uuid, version, NULL, &made, e);
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
                      " WHERE number = ?1", i.number, life_names[XLV_LIFE_NEW], doing, e);
    if (!rc)
        rc = xlv_registry_get_number(r, i.number, &i, e);
    rc = end_insert(r, rc, &made, doing, e);
    if (!rc)
        *instance = i;
    return rc;
}

int xlv_registry_move(struct xlv_registry *r, uint64_t number, const char *token,
                      enum xlv_handover from, enum xlv_handover to, struct xlv_error *e)
{
    static const char doing[] = "hand an instance over";
    struct xlv_instance i;
    int rc = begin(r, doing, e);

    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &i, e);
    if (!rc && (i.handover != from || !token[0] || strcmp(i.handover_token, token)))
        rc = xlv_fail(e, XLV_E_CONFLICT,
                      "instance %" PRIu64 " is not %s with the token %s: it is %s, token %s",
                      number, from ? handover_names[from] : "held", token,
                      i.handover ? handover_names[i.handover] : "held",
                      i.handover_token[0] ? i.handover_token : "none");
    if (!rc)
        rc = set_handover(r, number, to, token, i.handover_peer, doing, e);
    return end(r, rc, doing, e);
}

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
    int rc = prepare(r, &stmt, "UPDATE instance SET deleted = ?2 WHERE number = ?1", doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 2, when, doing, e);
    return rc ? rc : update(r, stmt, number, doing, e);
}

int xlv_registry_delete(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    static const char doing[] = "delete an instance";
    int lock XLV_CLOSE = -1, rc = begin(r, doing, e);
    struct xlv_instance i;

    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &i, e);
    if (!rc && i.deleted_s)
        rc = xlv_fail(e, XLV_E_EXISTS, "instance %" PRIu64 " is deleted already", number);
    /* its row is what keeps a given-away TPM from arriving a second time */
    if (!rc && i.handover != XLV_HANDOVER_HELD)
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is %s (other host: %s)", number,
                      handover_names[i.handover], i.handover_peer);
    if (!rc)
        rc = lock_store(r, &i, &lock, e);
    if (!rc)
        rc = set_deleted(r, number, time(NULL), doing, e);
    return end(r, rc, doing, e);
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
    int rc = begin(r, doing, e);

    if (rc)
        return rc;
    rc = expect_deleted(r, number, &i, e);
    if (!rc)
        rc = set_deleted(r, number, 0, doing, e);
    return end(r, rc, doing, e);
}

int xlv_registry_purge(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    static const char doing[] = "purge an instance";
    int lock XLV_CLOSE = -1, dirfd XLV_CLOSE = -1, rc = begin(r, doing, e);
    struct xlv_instance i;

    if (rc)
        return rc;
    rc = expect_deleted(r, number, &i, e);
    if (!rc)
        rc = lock_store(r, &i, &lock, e);
    if (!rc)
        rc = about_instance(r, "DELETE FROM binding WHERE instance = ?1", number, doing, e);
    if (!rc)
        rc = about_instance(r, "DELETE FROM instance WHERE number = ?1", number, doing, e);
    /* with the mark a kill behind the commit leaves what the next sweep takes away; before it,
     * what it finds to be an instance */
    if (!rc && !faccessat(r->dir, i.directory, F_OK, 0))
        rc = open_marked(r, &i, 0, &dirfd, e);
    rc = end(r, rc, doing, e);
    if (!rc)
        rc = discard(r, i.directory, e);
    if (!rc && xlv_instance_shared(&i)) {
        xlv_instance_at_home(&i);
        rc = discard(r, i.directory, e);
    }
    return rc;
}

/* Two numbers into a statement about instances. */
static int about_two(struct xlv_registry *r, const char *sql, uint64_t a, uint64_t b,
                     const char *doing, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)a, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 2, (int64_t)b, doing, e);
    return rc ? rc : run(r, stmt, doing, e);
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
        "UPDATE binding SET instance = ?2 WHERE instance = ?1",
    };
    int rc = 0;

    for (size_t i = 0; !rc && i < COUNT(moves); i++)
        rc = about_two(r, moves[i], from->number, earlier->number, doing, e);
    if (!rc)
        rc = set_deleted(r, earlier->number, time(NULL), doing, e);
    if (!rc)
        rc = about_instance(r, "DELETE FROM instance WHERE number = ?1", from->number, doing, e);
    if (!rc)
        rc = insert(r, &from->uuid, from->tpm_version, from->label, fresh, e);
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

    rc = begin_new(r, tombstone, label, doing, e);
    if (rc)
        return rc;
    rc = sweep(r, e);
    if (!rc)
        rc = xlv_registry_get(r, uuid, &from, e);
    if (!rc && (from.deleted_s || from.handover != XLV_HANDOVER_HELD))
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is deleted, or not on this host",
                      from.number);
    if (!rc)
        rc = insert_new(r, tombstone, from.tpm_version, label, &kept, e);
    if (!rc)
        rc = open_marked(r, &kept, O_EXCL, &dirfd, e);
    if (!rc)
        rc = fill(dirfd, &kept, opaque, e);
    if (!rc)
        rc = open_marked(r, &from, 0, &old, e);
    if (!rc)
        rc = exchange(r, &from, &kept, &fresh, doing, e);
    if (!rc)
        rc = find_number(r, kept.number, &kept, e);
    if (!rc)
        rc = find_number(r, fresh.number, &fresh, e);
    undone = rc != 0;
    rc = end_insert(r, rc, &fresh, doing, e);
    if (!rc) {
        (void)unlinkat(dirfd, MARK, 0);
        *instance = fresh;
        *earlier = kept;
        /* what stays of it goes with the next sweep */
        (void)discard(r, from.directory, NULL);
    } else if (kept.number && undone) {
        (void)discard(r, kept.directory, NULL);
    }
    return rc;
}

struct older {
    int64_t before;
    uint64_t numbers[64]; /* the others have their turn with the next run */
    unsigned count;
};

static int note_older(const struct xlv_instance *instance, void *opaque)
{
    struct older *older = opaque;

    if (instance->deleted_s && instance->deleted_s <= older->before &&
        older->count < COUNT(older->numbers))
        older->numbers[older->count++] = instance->number;
    return 0;
}

int xlv_registry_purge_older(struct xlv_registry *r, int64_t seconds, unsigned *count,
                             struct xlv_error *e)
{
    struct older older = { .before = time(NULL) - seconds };
    int rc = xlv_registry_each(r, note_older, &older, e);
    unsigned purged = 0;

    for (unsigned i = 0; !rc && i < older.count; i++)
        purged += !xlv_registry_purge(r, older.numbers[i], NULL);
    if (count)
        *count = purged;
    return rc;
}

int xlv_registry_bind(struct xlv_registry *r, uint64_t number, const char *domain_name,
                      unsigned devid, struct xlv_error *e)
{
    static const char doing[] = "bind a domain";
    char key[XLV_DOMAIN_NAME_MAX + 1];
    struct xlv_instance instance;
    int rc = domain_key(domain_name, devid, key, e);

    if (!rc)
        rc = begin(r, doing, e);
    if (rc)
        return rc;
    rc = xlv_registry_get_number(r, number, &instance, e);
    if (!rc)
        rc = refuse_deleted(&instance, e);
    if (!rc)
        rc = store_binding(r, key, devid, number, XLV_BINDING_ADMINISTRATOR, e);
    return end(r, rc, doing, e);
}

int xlv_registry_unbind(struct xlv_registry *r, const char *domain_name, unsigned devid,
                        struct xlv_error *e)
{
    static const char doing[] = "unbind a domain";
    sqlite3_stmt *stmt FINALIZE = NULL;
    char key[XLV_DOMAIN_NAME_MAX + 1];
    int rc = domain_key(domain_name, devid, key, e);

    if (!rc)
        rc = prepare(r, &stmt, "DELETE FROM binding WHERE domain = ?1 AND devid = ?2", doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 1, key, doing, e);
    if (!rc)
        rc = bind_int(r, stmt, 2, devid, doing, e);
    if (!rc)
        rc = run(r, stmt, doing, e);
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
    int rc = prepare(r, &stmt,
                     "SELECT domain, devid, origin FROM binding WHERE instance = ?1"
                     " ORDER BY domain, devid",
                     doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    while (!rc) {
        struct xlv_binding binding = { .devid = 0 };
        int64_t devid;
        int origin;

        rc = step(r, stmt, doing, e);
        if (rc == XLV_E_NOT_FOUND)
            return 0;
        if (rc)
            break;
        devid = sqlite3_column_int64(stmt, 1);
        if (!column_text(stmt, 0, binding.domain_name, sizeof(binding.domain_name)) ||
            devid < 0 || devid > (int64_t)XLV_DEVID_MAX ||
            !column_name(stmt, 2, origin_names, COUNT(origin_names), &origin))
            return bad_row(r, e, (int64_t)number, "binding");
        binding.devid = (unsigned)devid;
        binding.origin = (enum xlv_binding_origin)origin;
        rc = visit(&binding, opaque);
    }
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
    return sql_fail(r, e, doing);
}

/* One statement about an instance and a document of its; serial NULL: none. */
static int put_document(struct xlv_registry *r, const char *sql, uint64_t number, unsigned kind,
                        const struct xlv_document *document, const char *doing,
                        struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 2, certificate_names[kind], doing, e);
    if (!rc)
        rc = bind_blob(r, stmt, 3, document, doing, e);
    if (!rc)
        rc = bind_text(r, stmt, 4, document->fingerprint, doing, e);
    if (!rc && sqlite3_bind_parameter_count(stmt) > 4) {
        rc = bind_text(r, stmt, 5, document->serial, doing, e);
        if (!rc)
            rc = bind_int(r, stmt, 6, time(NULL), doing, e);
    }
    return rc ? rc : run(r, stmt, doing, e);
}

int xlv_registry_endorse(struct xlv_registry *r, uint64_t number,
                         const struct xlv_endorsement *endorsement, struct xlv_error *e)
{
    static const char doing[] = "note the endorsement keys and certificates of an instance";
    int rc = begin(r, doing, e);

    if (rc)
        return rc;
    rc = about_instance(r, "DELETE FROM ek WHERE instance = ?1", number, doing, e);
    if (!rc)
        rc = about_instance(r, "UPDATE certificate SET in_use = 0 WHERE instance = ?1", number,
                            doing, e);
    for (unsigned i = 0; !rc && i < XLV_EKS; i++)
        if (endorsement->key[i].length)
            rc = put_document(r, "INSERT INTO ek (instance, kind, public, fingerprint)"
                              " VALUES (?1, ?2, ?3, ?4)", number, i, &endorsement->key[i], doing,
                              e);
    for (unsigned i = 0; !rc && i < XLV_CERTIFICATES; i++)
        if (endorsement->certificate[i].length)
            rc = put_document(r, "INSERT INTO certificate (instance, kind, der, fingerprint,"
                              " serial, signed, in_use) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)",
                              number, i, &endorsement->certificate[i], doing, e);
    return end(r, rc, doing, e);
}

/* Rows of kind, DER, fingerprint, serial. */
static int get_documents(struct xlv_registry *r, const char *sql, uint64_t number,
                         struct xlv_document *documents, unsigned count, const char *doing,
                         struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    int rc = prepare(r, &stmt, sql, doing, e);

    if (!rc)
        rc = bind_int(r, stmt, 1, (int64_t)number, doing, e);
    while (!rc && (rc = step(r, stmt, doing, e)) == 0) {
        struct xlv_document *d;
        int kind, length = sqlite3_column_bytes(stmt, 1);

        if (!column_name(stmt, 0, certificate_names, count, &kind))
            return bad_row(r, e, (int64_t)number, "kind of endorsement");
        d = &documents[kind];
        if (length < 1 || length > (int)sizeof(d->der) ||
            !column_text(stmt, 2, d->fingerprint, sizeof(d->fingerprint)) ||
            !column_text(stmt, 3, d->serial, sizeof(d->serial)))
            return bad_row(r, e, (int64_t)number, "endorsement");
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
                           " WHERE instance = ?1 AND in_use = 1", number,
                           endorsement->certificate, XLV_CERTIFICATES, doing, e);
    return rc;
}

int xlv_registry_signed(struct xlv_registry *r, bool *any, struct xlv_error *e)
{
    int64_t found = 0;
    int rc = get_int(r, "SELECT EXISTS (SELECT 1 FROM certificate)", &found, e);

    *any = found != 0;
    return rc;
}
