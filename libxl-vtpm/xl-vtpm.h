/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xl-vtpm, the administrator's command, from the inside. A command is
 *
 *     one function run_NAME(), in the file of its topic (xl-vtpm-<topic>.c),
 *     its declaration here, and one line of the table in xl-vtpm.c.
 *
 * An option that only some commands take is a member of struct run, one line of
 * the option table, and its name in the lines of those commands.
 *
 * A command prints for people where run->json is not set. It hands its result
 * out, and the caller prints that where run->json is set; a command whose
 * report is to be seen even if it fails prints both itself. Errors go to
 * run->e, their code is returned and becomes the exit code, xl-vtpm(8).
 */
#ifndef XLV_XL_VTPM_H
#define XLV_XL_VTPM_H

#include <stdbool.h>
#include <stddef.h>

#include <json-c/json.h>

#include "common/error.h"
#include "common/uuid.h"
#include "libxl-vtpm/client.h"
#include "libxl-vtpm/control.h"
#include "libxl-vtpm/settings.h"

enum exit_code {
    EXIT_FINE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_FOUND = 3,
    EXIT_REFUSED = 4,
    EXIT_INVALID = 5,
    EXIT_UNFINISHED = 6,
};

/* What one run was asked for, and what it works with. */
struct run {
    bool json, verbose, offline, help, version;
    bool yes, release, shown, reset, kept, csr, swtpm, replace, deleted, expired, on, off, as_set;
    bool prometheus, with_keys, new_identity, keep_identity;
    const char *config, *tpm_version, *label, *uuid, *devid, *use_slot, *key, *swtpm_key;
    const char *install;
    const char *passphrase_file, *kernel, *ramdisk, *cmdline;
    char **args; /* behind the command's name */
    int count;
    const struct xlv_settings *settings;
    struct xlv_client *client;
    struct xlv_error e;
};

/* --- xl-vtpm-print.c: what the commands share --- */

struct json_object *member(struct json_object *json, const char *key); /* borrowed, or NULL */

/* Text or number as text; fallback for null, missing and "". Borrowed. */
const char *text_of(struct json_object *json, const char *key, const char *fallback);

void print_json(struct json_object *json);

/* Takes over value; NULL is left out. Without memory there is nothing left to do: exits. */
void put(struct json_object *request, const char *key, struct json_object *value);

struct json_object *request_of(const char *call); /* a call of include/control.h, owned */

/* UUID or NUMBER of an instance, into a request. */
void put_instance(struct json_object *request, const char *arg);

/* Asks the daemon or the files; frees request. *result is the caller's, and of the call's type. */
int ask(struct run *run, struct json_object *request, struct json_object **result);

/* What the registry says of UUID|NUMBER, as the daemon sees it; *shown is the caller's. */
int look_up(struct run *run, const char *name, struct json_object **shown, struct xlv_uuid *uuid);

/* XLV_E_IN_USE where a domain has it, though its backend may be dead for a moment. */
int refuse_if_served(struct run *run, const struct xlv_uuid *uuid);

/* Asks at the terminal; with --yes there is no question. Nobody there to ask is a no. 0, or
 * XLV_E_REFUSED with its sentence. */
int confirm(struct run *run, const char *question);

/*
 * --- xl-vtpm-progress.c ---
 * On a terminal, a command that takes longer than a second shows on standard error that it goes
 * on; standard output is buffered until it has ended. Who prints on standard error or asks stops it
 * before; confirm() does. count: how far it is, for backup.h and rekey.h.
 */
void progress_start(const char *command); /* NULL: the one that was stopped */
void progress_count(unsigned done, unsigned of, void *opaque);
void progress_stop(void);

/* Nothing that these print reaches the terminal as a control. */
void print_text(const char *text);
void print_field(const char *name, const char *text);
/* Of [{number, uuid, reason}]: "instance 3 (uuid) <verdict>: reason", a line each. */
void print_reasons(struct json_object *instances, const char *verdict);
void print_table(const char *const *rows, size_t row_count, size_t columns);

/* --- the commands --- */

/* xl-vtpm-instances.c */
int run_list(struct run *run, struct json_object **result);
int run_show(struct run *run, struct json_object **result);
int run_create(struct run *run, struct json_object **result);
int run_bind(struct run *run, struct json_object **result);
int run_unbind(struct run *run, struct json_object **result);
int run_release(struct run *run, struct json_object **result);
int run_accept(struct run *run, struct json_object **result);
int run_label(struct run *run, struct json_object **result);
int run_delete(struct run *run, struct json_object **result);
int run_undelete(struct run *run, struct json_object **result);
int run_purge(struct run *run, struct json_object **result);

/* xl-vtpm-measure.c */
int run_measure(struct run *run, struct json_object **result);
int run_measured(struct run *run, struct json_object **result);

/* xl-vtpm-pcrs.c */
int run_pcrs(struct run *run, struct json_object **result);

/* xl-vtpm-states.c */
int run_recover(struct run *run, struct json_object **result);
int run_rekey(struct run *run, struct json_object **result);
int run_share(struct run *run, struct json_object **result);
int run_unshare(struct run *run, struct json_object **result);

/* xl-vtpm-ca.c */
int run_ca(struct run *run, struct json_object **result);
int run_ek_cert(struct run *run, struct json_object **result);
void note_identity_or_warn(struct run *run, const char *uuid); /* of a TPM not made here */

/* xl-vtpm-transfer.c */
int run_export(struct run *run, struct json_object **result);
int run_import(struct run *run, struct json_object **result);
int run_clear(struct run *run, struct json_object **result);

/* xl-vtpm-backup.c */
int run_backup(struct run *run, struct json_object **result);
int run_restore(struct run *run, struct json_object **result);

/* xl-vtpm-clone.c */
int run_clone(struct run *run, struct json_object **result);
int run_reset(struct run *run, struct json_object **result);

/* xl-vtpm-stats.c */
int run_stats(struct run *run, struct json_object **result);
int run_monitor(struct run *run, struct json_object **result);

/* xl-vtpm-host.c */
int run_check(struct run *run, struct json_object **result);
int run_status(struct run *run, struct json_object **result);
int run_doctor(struct run *run, struct json_object **result);

#endif
