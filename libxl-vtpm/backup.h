/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Backups of a host (xl-vtpm backup), and their way back onto a fresh one (restore).
 *
 * A backup is a directory that is made as a state directory is (docs/formats.md): vtpm.db and
 * instances/, and with the keys master.key, ca.key and ca.pem; beside them xl-vtpm.conf, for
 * people, and left.json where states were left: of these alone something may be missing. What is
 * in it: the registry at one instant, then of each of its instances the slots at some later
 * instant between two commits, so that what was copied is verified before it counts. States are
 * copied as they are sealed, and no change of the master key runs meanwhile, so that the keys that
 * are copied open them. It has its name when all of it is durable.
 *
 * A restore puts all of it beside the state directory's own files, verifies each state with the
 * keys that it will have, and then lets it take its place: keys, instances, and vtpm.db last.
 * Killed at any moment there is the empty host, or one whose registry is refused as lost until the
 * restore is repeated, or all of it.
 */
#ifndef XLV_BACKUP_H
#define XLV_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "libxl-vtpm/settings.h"

struct json_object;

struct xlv_backup {
    const struct xlv_settings *settings;
    const char *config; /* the file that they are from */
    const char *directory;
    bool with_keys; /* backup */
    /* may be NULL */
    void (*progress)(unsigned done, unsigned of, void *opaque);
    void *opaque;
};

/*
 * *report: {directory, instances, keys, left: [{number, uuid, reason}]}, the caller's. left: states
 * that do not verify or are not whole, which are there as they are; XLV_E_CONFLICT then. What was
 * given away to another host is not looked at. XLV_E_EXISTS: the directory
 * is there; XLV_E_REFUSED: the keys cannot be had; -errno.
 */
int xlv_backup(const struct xlv_backup *backup, struct json_object **report, struct xlv_error *e);

/*
 * The same report. XLV_E_REFUSED: this host has instances, or a daemon runs; XLV_E_WRONG_KEY: the
 * backup is without keys, and this host's master key is another one; XLV_E_INVALID: no backup.
 */
int xlv_restore(const struct xlv_backup *backup, struct json_object **report,
                struct xlv_error *e);

#endif
