/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the registry share with each other, and nobody else.
 *
 *     registry.c              the schema, opening, the directories of instances
 *     registry-sql.c          statements and transactions, a row as a struct
 *     registry-instances.c    finding, making, adopting, resolving
 *     registry-change.c       what changes in an instance
 *     registry-delete.c       bindings undone, tombstones, reset, purge
 *     registry-endorsement.c  keys and certificates
 *
 * doing: what is being done, as in "cannot <doing>". All return as registry.h says, with a
 * sentence.
 */
#ifndef XLV_REGISTRY_INTERNAL_H
#define XLV_REGISTRY_INTERNAL_H

#include <sqlite3.h>

#include "libxl-vtpm/registry.h"

#define INSTANCES "instances"
/* A file in the directory of an instance that is being made or purged. */
#define MARK "incomplete"
#define BUSY_TIMEOUT_MS 10000
/* JSON readers keep integers to 2^53 exactly */
#define NUMBER_MAX (INT64_C(1) << 53)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct xlv_registry {
    sqlite3 *db;
    char *path; /* of the database, for messages */
    int dir;    /* the state directory */
};

/* --- registry-sql.c --- */

/* Of an instance, in the order of xlv_sql_instance(). */
#define COLUMNS \
    "number, uuid, tpm_version, life, created, last_used, last_domain_name, last_domain_uuid, " \
    "label, suspended, suspended_domid, suspended_domain_uuid, suspended_mark, accept, " \
    "late_attach, handover, handover_token, handover_peer, deleted, measure_boot, place"

/* As they are in the database. */
extern const char *const xlv_reg_life_names[XLV_LIFE_QUARANTINED + 1];
extern const char *const xlv_reg_accept_names[XLV_ACCEPT_KEPT + 1];
extern const char *const xlv_reg_handover_names[XLV_HANDOVER_ARRIVING + 1];
extern const char *const xlv_reg_measure_names[XLV_MEASURING_OFF + 1];
extern const char *const xlv_reg_origin_names[XLV_BINDING_ADMINISTRATOR + 1];

/* SQLite's last error in our contract. */
int xlv_sql_fail(struct xlv_registry *r, struct xlv_error *e, const char *doing);

int xlv_sql_exec(struct xlv_registry *r, const char *sql, const char *doing, struct xlv_error *e);
int xlv_sql_prepare(struct xlv_registry *r, sqlite3_stmt **stmt, const char *sql, const char *doing,
                    struct xlv_error *e);
void xlv_sql_finalize(sqlite3_stmt **stmt);
#define FINALIZE __attribute__((cleanup(xlv_sql_finalize)))
int xlv_sql_bind_text(struct xlv_registry *r, sqlite3_stmt *stmt, int at, const char *text,
                      const char *doing, struct xlv_error *e);
int xlv_sql_bind_int(struct xlv_registry *r, sqlite3_stmt *stmt, int at, int64_t value,
                     const char *doing, struct xlv_error *e);

/* run: to the end, no rows; step: 0 a row, XLV_E_NOT_FOUND: there are no more; update: run, and it
 * has to meet that instance; about: run, with its number as ?1 */
int xlv_sql_run(struct xlv_registry *r, sqlite3_stmt *stmt, const char *doing, struct xlv_error *e);
int xlv_sql_step(struct xlv_registry *r, sqlite3_stmt *stmt, const char *doing,
                 struct xlv_error *e);
int xlv_sql_update(struct xlv_registry *r, sqlite3_stmt *stmt, uint64_t number, const char *doing,
                   struct xlv_error *e);
int xlv_sql_about(struct xlv_registry *r, const char *sql, uint64_t number,
                  const char *doing, struct xlv_error *e);
int xlv_sql_get_int(struct xlv_registry *r, const char *sql, int64_t *value, struct xlv_error *e);

/* BEGIN IMMEDIATE; end: COMMIT, or with rc ROLLBACK, and rc again */
int xlv_sql_begin(struct xlv_registry *r, const char *doing, struct xlv_error *e);
int xlv_sql_end(struct xlv_registry *r, int rc, const char *doing, struct xlv_error *e);

/* A row is input: XLV_E_CORRUPT, false for what the schema does not allow. */
int xlv_sql_bad_row(struct xlv_registry *r, struct xlv_error *e, int64_t number, const char *what);
bool xlv_sql_column_text(sqlite3_stmt *stmt, int column, char *text, size_t room);
bool xlv_sql_column_name(sqlite3_stmt *stmt, int column, const char *const *names, size_t count,
                         int *value);
int xlv_sql_instance(struct xlv_registry *r, sqlite3_stmt *stmt, struct xlv_instance *instance,
                     struct xlv_error *e);

/* --- registry.c --- */

/* The highest number that has a directory, and whether any holds something. */
int xlv_reg_scan(struct xlv_registry *r, int64_t *highest, bool *filled,
                 struct xlv_error *e);
int xlv_reg_make_directory(struct xlv_registry *r, uint64_t number, struct xlv_error *e);
void xlv_reg_remove_directory(struct xlv_registry *r, const struct xlv_instance *instance);

/* --- registry-instances.c --- */

int xlv_reg_find_uuid(struct xlv_registry *r, const struct xlv_uuid *uuid,
                      struct xlv_instance *instance, struct xlv_error *e);
int xlv_reg_find_number(struct xlv_registry *r, uint64_t number, struct xlv_instance *instance,
                        struct xlv_error *e);
int xlv_reg_refuse_deleted(const struct xlv_instance *i, struct xlv_error *e);

/* The name by which a domain is bound: without --incoming. */
int xlv_reg_domain_key(const char *name, unsigned devid, char key[XLV_DOMAIN_NAME_MAX + 1],
                       struct xlv_error *e);
int xlv_reg_store_binding(struct xlv_registry *r, const char *domain, unsigned devid,
                          uint64_t number, enum xlv_binding_origin origin, struct xlv_error *e);

/* In a transaction; end_insert ends it, and removes the directory of what did not come to be. */
int xlv_reg_check_label(const char *label, struct xlv_error *e);
int xlv_reg_begin_new(struct xlv_registry *r, const struct xlv_uuid *uuid, const char *label,
                      const char *doing, struct xlv_error *e);
int xlv_reg_insert(struct xlv_registry *r, const struct xlv_uuid *uuid,
                   enum xlv_tpm_version version, const char *label, struct xlv_instance *instance,
                   struct xlv_error *e);
int xlv_reg_insert_new(struct xlv_registry *r, const struct xlv_uuid *uuid,
                       enum xlv_tpm_version version, const char *label, struct xlv_instance *made,
                       struct xlv_error *e);
int xlv_reg_end_insert(struct xlv_registry *r, int rc, const struct xlv_instance *instance,
                       const char *doing, struct xlv_error *e);

/* Directories with a MARK: open_marked makes it, discard removes one with all that is in it, sweep
 * those that nobody is about to finish. */
int xlv_reg_open_marked(struct xlv_registry *r, const struct xlv_instance *i, int flags, int *dirfd,
                        struct xlv_error *e);
int xlv_reg_discard(struct xlv_registry *r, const char *name, struct xlv_error *e);
int xlv_reg_sweep(struct xlv_registry *r, struct xlv_error *e);

/* --- registry-endorsement.c --- */

int xlv_reg_forget_endorsement(struct xlv_registry *r, uint64_t number, const char *doing,
                               struct xlv_error *e);

#endif
