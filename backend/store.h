/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The store: the permanent state of one instance, on disk, durable.
 *
 * Two files ("slots") hold alternate generations: 1 in slot 0, 2 in slot 1, 3
 * in slot 0. A commit writes the slot that does not hold the newest good
 * generation: one pwrite, one fdatasync, and no metadata change because the
 * slots are preallocated and filled beforehand. So the last good generation
 * exists at every instant. Each generation is sealed (seal.h), and every
 * 512-byte sector carries a stamp that tells which write it is of: a commit
 * cut short (some sectors of an older write are left) is told from damage to
 * a commit that was complete. Format: docs/formats.md and xl-vtpm-state(5).
 *
 * A slot that was never written is not all zeros but full of blank stamped
 * sectors (xlv_store_prepare): zeros are damage, never a new instance.
 *
 * Works on descriptors only; nothing is opened by path. Not thread-safe.
 */
#ifndef XLV_STORE_H
#define XLV_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "include/launch.h"

/* Files of an instance's directory, and what they hold at first, in bytes. */
#define XLV_STORE_SLOT_0 "slot-0"
#define XLV_STORE_SLOT_1 "slot-1"
#define XLV_STORE_SLOT_SIZE 32768u

/*
 * For the daemon: makes both slots of a new instance in dirfd, mode 0600, and
 * returns when files and names are on stable storage. Idempotent and safe to
 * kill: slots appear under their names only when they are whole, existing ones
 * are never written to. XLV_E_CORRUPT: one slot exists with contents and the
 * other is missing.
 */
int xlv_store_create(int dirfd, struct xlv_error *e);

/*
 * Opens both for reading and writing, close-on-exec; the caller owns them.
 * XLV_E_NOT_FOUND: a slot is missing (e says which); slots are -1 on error.
 */
int xlv_store_open(int dirfd, int slots[2], struct xlv_error *e);

/* Fills one empty file with a blank slot and syncs it (create, and tests). */
int xlv_store_prepare(int fd, struct xlv_error *e);

struct xlv_store;

/*
 * Takes the two slots (descriptors stay the caller's, must outlive the store).
 * Reads nothing yet. Always leaves *out NULL or valid.
 */
int xlv_store_new(struct xlv_store **out, const int slots[2], const struct xlv_uuid *uuid,
                  const uint8_t key[XLV_KEY_SIZE], struct xlv_error *e);
void xlv_store_free(struct xlv_store *store); /* wipes the keys; NULL is fine */

/*
 * Reads both slots as they are on the medium (synced first, page cache
 * dropped: what is returned is durable), verifies, and gives the newest good
 * generation: *data (owned by the caller, free()), *length, *generation (1 for
 * the first). XLV_E_EMPTY: no generation was ever complete. XLV_E_CORRUPT,
 * XLV_E_WRONG_KEY, XLV_E_WRONG_OWNER, XLV_E_VERSION: refused, e says which
 * slot, why and what to do. A slot with a commit cut short beside a good one is
 * normal after a crash; where a bad slot may have been the newer, acknowledged
 * one the load is refused, see docs/formats.md. Writes nothing, ever.
 */
int xlv_store_load(struct xlv_store *store, uint8_t **data, size_t *length, uint64_t *generation,
                   struct xlv_error *e);

/*
 * Commits data (at most XLV_PERMANENT_MAX bytes) as the next generation and
 * returns when it is on stable storage; *generation is then its number. Only
 * after xlv_store_load() (0 or XLV_E_EMPTY). On failure the previous
 * generation is intact and the commit may be tried again; after a failed
 * fdatasync the slot counts as unknown and is rewritten whole.
 */
int xlv_store_commit(struct xlv_store *store, const uint8_t *data, size_t length,
                     uint64_t *generation, struct xlv_error *e);

/* --- for the administrator's command (recover, rekey) ----------------------- */

struct xlv_store_report {
    int outcome; /* 0: good; XLV_E_EMPTY: blank; else as xlv_store_load() */
    uint64_t generation; /* 0: not known */
    uint32_t length;     /* of the state; 0: not known */
    bool cut_short;      /* a commit that was never complete, beside a good slot or none */
    char text[160];      /* "is good (generation 7)", "is damaged: ..." */
};

/* What each slot holds, without a verdict. Writes nothing. */
int xlv_store_inspect(struct xlv_store *store, struct xlv_store_report report[2],
                      struct xlv_error *e);

/*
 * Takes the good generation of this slot for the newest, whatever the other
 * slot holds, and commits it as the next generation over that one (keep a copy
 * of the file first). Afterwards as after a load. XLV_E_REFUSED: not good.
 * After a crash the same load or the same choice is possible again.
 */
int xlv_store_choose(struct xlv_store *store, unsigned slot, uint64_t *generation,
                     struct xlv_error *e);

/*
 * Seals the state under another instance key, as so many commits, so that nothing
 * is left under the old one. After an interruption exactly one of the keys
 * loads the store: try the new one first. Only after a load that gave 0, or
 * XLV_E_EMPTY: what there may be of a first commit that was cut short is blank
 * again then, and *generation 0. On failure free the store and load anew, with
 * either key.
 */
#define XLV_STORE_REKEY_COMMITS 2u
int xlv_store_rekey(struct xlv_store *store, const uint8_t key[XLV_KEY_SIZE],
                    uint64_t *generation, struct xlv_error *e);

#endif
