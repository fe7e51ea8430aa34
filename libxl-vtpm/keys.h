/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys: where the master key comes from, and what is derived from it.
 *
 *   master key     32 bytes from a provider:
 *                    file:PATH        regular file, ours, mode 0600
 *                    credential:NAME  systemd credential (LoadCredentialEncrypted=;
 *                                     systemd-creds can bind it to the host's TPM)
 *                    none             a constant of this program: the same format,
 *                                     no secrecy; warned about at every start
 *   instance key   HKDF-SHA256(master key, "libxl-vtpm 1 instance" || uuid); seals the store
 *   journal root   32 random bytes of this boot of the host, never on a disk:
 *                  in the daemon's memory and in the kernel (user keyring), so that a
 *                  restarted daemon finds it again
 *   journal key    HKDF-SHA256(journal root, "libxl-vtpm 1 journal" || uuid)
 *
 * Where the kernel refuses keyrings (some containers) the journal root is kept
 * in <run-dir>/journal.key, 0600, provided that run-dir is a tmpfs; else in
 * memory only, and then a restart of the daemon leaves the journals of running
 * backends unreadable to their successors. Both are warned about.
 *
 * A change of the master key of a file (xl-vtpm rekey) takes as long as guests
 * run that hold their instances. While it lasts there are two keys:
 *
 *   PATH       the old one      PATH.new   the new one (durable before any use)
 *
 * and each store is sealed under one of them. When none is left under the old
 * one, PATH.new takes the name PATH. Who opens a store asks xlv_keys_of_store()
 * with the lock of the instance held; it reads the files again, PATH.new first:
 * a store that is locked does not change keys, its key stays in one of the two
 * names, and a key moves from PATH.new to PATH only. New stores get the new key.
 * That is why a daemon needs no word about a change of key.
 *
 * The daemon's side: a backend gets only the two keys of its own instance.
 */
#ifndef XLV_KEYS_H
#define XLV_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "include/launch.h"
#include "libxl-vtpm/settings.h"

struct xlv_store;

enum xlv_journal_key_home {
    XLV_JOURNAL_KEY_KEYRING,
    XLV_JOURNAL_KEY_FILE,   /* <run-dir>/journal.key on tmpfs */
    XLV_JOURNAL_KEY_MEMORY, /* lost with this process */
};

struct xlv_keys;

/*
 * Gets the master key. With create a missing file is made (random, durable:
 * file and directory synced); pass it only where no instance exists yet, for a
 * new key cannot open old states. source: path or credential name (NULL for none).
 *   XLV_E_NOT_FOUND  no such file or credential (e says where to look)
 *   XLV_E_REFUSED    others may read or write the file, or it is not ours
 *   XLV_E_CORRUPT    not exactly 32 bytes
 *   XLV_E_INVALID    a credential name with '/', or empty source
 */
int xlv_keys_new(struct xlv_keys **out, enum xlv_key_provider provider, const char *source,
                 bool create, struct xlv_error *e);
void xlv_keys_free(struct xlv_keys *keys); /* wipes; NULL is fine */

/*
 * Finds or makes the journal root of this boot. run_dir: an existing directory
 * of the daemon, also what tells two daemons on one host apart. Call once,
 * before xlv_keys_journal(); *home (may be NULL) tells where it is kept.
 */
int xlv_keys_open_journal(struct xlv_keys *keys, const char *run_dir,
                          enum xlv_journal_key_home *home, struct xlv_error *e);

/*
 * How many master keys there are: 2 while a change of key is under way, else 1.
 * The key of an instance under one of them, 0: the newest. Wiped by the caller.
 */
unsigned xlv_keys_count(const struct xlv_keys *keys);
int xlv_keys_candidate(const struct xlv_keys *keys, unsigned which, const struct xlv_uuid *uuid,
                       uint8_t key[XLV_KEY_SIZE], struct xlv_error *e);

/*
 * The key that opens this store, or, where the store is empty, that seals it.
 * slots: locked by the caller. Where no key opens it, the one whose refusal
 * says most; whoever loads the store gets that refusal. *which (may be NULL):
 * as for a candidate. An error: the key file cannot be read again, and what is
 * known from before does not open the store.
 */
int xlv_keys_of_store(struct xlv_keys *keys, const struct xlv_uuid *uuid, const int slots[2],
                      uint8_t key[XLV_KEY_SIZE], unsigned *which, struct xlv_error *e);

/*
 * How long, in milliseconds, a command waits for a store that no domain is known to use: the daemon
 * has it for a moment when it keeps the state of a domain that has gone.
 */
#define XLV_STORE_PATIENCE 3000

/*
 * Opening a store as all but the daemon do it. lock: slot 0's, until it is closed; XLV_E_IN_USE
 * after XLV_STORE_PATIENCE.
 * open: *store, under the key that it has; NULL on error.
 */
int xlv_keys_lock_store(uint64_t number, const int slots[2], struct xlv_error *e);
int xlv_keys_open_store(struct xlv_keys *keys, const struct xlv_uuid *uuid, const int slots[2],
                        struct xlv_store **store, struct xlv_error *e);

/*
 * The steps of a change of key; one caller at a time, who makes sure of that.
 * begin: from now on there are two keys, durably; goes on with what is there.
 * finish: no store is left under the old key; only the new one stays, under
 * PATH, and the old file is overwritten and removed. After a finish that was
 * interrupted: leftover (true in *cleaned where there was something to wipe).
 * XLV_E_REFUSED: the master key is of another provider, or PATH is a symbolic
 * link; e says what to do by hand.
 */
int xlv_keys_rotate_begin(struct xlv_keys *keys, struct xlv_error *e);
int xlv_keys_rotate_finish(struct xlv_keys *keys, struct xlv_error *e);
int xlv_keys_rotate_leftover(struct xlv_keys *keys, bool *cleaned, struct xlv_error *e);

/* The keys of one instance; the caller wipes them (OPENSSL_cleanse). The
 * instance key: under the newest master key, see xlv_keys_of_store(). */
int xlv_keys_instance(const struct xlv_keys *keys, const struct xlv_uuid *uuid,
                      uint8_t key[XLV_KEY_SIZE], struct xlv_error *e);
int xlv_keys_journal(const struct xlv_keys *keys, const struct xlv_uuid *uuid,
                     uint8_t key[XLV_KEY_SIZE], struct xlv_error *e);

#endif
