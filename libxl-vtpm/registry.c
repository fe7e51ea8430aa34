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

#include "libxl-vtpm/registry-internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"

#define DATABASE "vtpm.db"
/* "XVTM", so that another program's database is not taken for ours */
#define APPLICATION_ID 0x5856544d

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
    "CREATE INDEX certificate_instance ON certificate (instance);"
    /* certificates that this host did not sign */
    "CREATE TABLE other_certificate ("
    "  instance INTEGER NOT NULL REFERENCES instance (number) ON DELETE CASCADE,"
    "  kind TEXT NOT NULL CHECK (kind IN ('rsa2048', 'p384', 'p256', 'platform')),"
    "  der BLOB NOT NULL,"
    "  fingerprint TEXT NOT NULL,"
    "  PRIMARY KEY (instance, kind)) WITHOUT ROWID;",
};
#define SCHEMA ((int)(sizeof(migrations) / sizeof(migrations[0])))

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
int xlv_reg_scan(struct xlv_registry *r, int64_t *highest, bool *filled,
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

int xlv_registry_any_state(struct xlv_registry *r, bool *any, struct xlv_error *e)
{
    int64_t highest, elsewhere = 0;
    int rc = xlv_reg_scan(r, &highest, any, e);

    if (!rc && !*any) {
        rc = xlv_sql_get_int(r, "SELECT EXISTS (SELECT 1 FROM instance WHERE life != 'new' OR"
                             " place != '')", &elsewhere, e);
        *any = elsewhere != 0;
    }
    return rc;
}

/* No database, or an empty one: fine unless there are instances that it should know. */
static int refuse_if_lost(struct xlv_registry *r, struct xlv_error *e)
{
    int64_t highest;
    bool filled;
    int rc = xlv_reg_scan(r, &highest, &filled, e);

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

int xlv_reg_make_directory(struct xlv_registry *r, uint64_t number, struct xlv_error *e)
{
    char name[24];
    int fd XLV_CLOSE = openat(r->dir, INSTANCES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return xlv_fail(e, -errno, "%s: the directory %s beside it cannot be opened: %s", r->path,
                        INSTANCES, strerror(errno));
    snprintf(name, sizeof(name), "%" PRIu64, number);
    return make_directory(r, fd, name, false, e);
}

void xlv_reg_remove_directory(struct xlv_registry *r, const struct xlv_instance *instance)
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
        return xlv_sql_fail(r, e, "open it");
    sqlite3_extended_result_codes(r->db, 1);
    sqlite3_busy_timeout(r->db, BUSY_TIMEOUT_MS);
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    return xlv_sql_exec(r, pragmas, "open it", e);
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
    int rc = alone ? xlv_sql_exec(r, "BEGIN", "read", e) : 0;

    if (!rc)
        rc = xlv_sql_get_int(r, "SELECT count(*) FROM sqlite_master", &objects, e);
    if (!rc)
        rc = xlv_sql_get_int(r, "PRAGMA application_id", &application, e);
    if (!rc)
        rc = xlv_sql_get_int(r, "PRAGMA user_version", &user_version, e);
    if (alone)
        rc = xlv_sql_end(r, rc, "read", e);
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

    rc = xlv_sql_begin(r, doing, e);
    if (rc)
        return rc;
    rc = look(r, &content, &version, e);
    if (!rc && content == CONTENT_FRESH)
        rc = refuse_if_lost(r, e);
    for (; !rc && version < SCHEMA; version++)
        rc = xlv_sql_exec(r, migrations[version], doing, e);
    if (!rc) {
        char sql[96];

        snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d",
                 APPLICATION_ID, SCHEMA);
        rc = xlv_sql_exec(r, sql, doing, e);
    }
    return xlv_sql_end(r, rc, doing, e);
}

/* Damage is better found here than in the middle of something. */
static int verify(struct xlv_registry *r, struct xlv_error *e)
{
    sqlite3_stmt *stmt FINALIZE = NULL;
    sqlite3_stmt *columns FINALIZE = NULL;
    sqlite3_stmt *bindings FINALIZE = NULL;
    const char *answer;
    int rc = xlv_sql_prepare(r, &stmt, "PRAGMA quick_check(1)", "check it", e);

    if (!rc)
        rc = xlv_sql_step(r, stmt, "check it", e);
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
        rc = xlv_sql_exec(r, "PRAGMA journal_mode = WAL", "set it up", e);
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
