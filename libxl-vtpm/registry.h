/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The registry: which uuid is which instance. SQLite (vtpm.db in the state
 * directory), WAL, synchronous=FULL, foreign keys on, schema version in
 * PRAGMA user_version. The daemon, the command and libxlvtpm may use it at the
 * same time, from any number of processes; each call is one transaction, and a
 * call waits up to 10 s for another one's. A handle belongs to one thread.
 *
 * Lookup order for a device (uuid, domain name, devid), as the hotplug scripts
 * of Xen up to 4.1 had it, made safe:
 *   1. the uuid is an instance's                -> that instance
 *   2. (domain name, devid) is bound            -> the bound instance
 *   3. policy `unknown-uuid`: assign            -> a new instance with this
 *      uuid, bound to (domain name, devid); or refuse -> XLV_E_REFUSED
 * libxl writes a random uuid where the administrator gave none, so rule 2 is
 * what keeps such a guest's TPM.
 *
 * Bindings are made by `xl-vtpm bind` (origin administrator) and by use
 * (automatic): a device served by rule 1 or 3 is remembered under its domain's
 * name, so that the TPM stays when the uuid line is dropped or changed to an
 * unknown one. An automatic binding follows the last use; an administrator's
 * is changed by the administrator only. xl receives a domain as
 * "NAME--incoming": looked up and bound without that suffix.
 *
 * Numbers are never used again: the next one is above every number that the
 * database ever gave and above every directory in instances/, so that even an
 * old copy of the database, put back, gives nobody another one's state. The
 * directory of an instance is made, durably, inside the transaction that makes
 * the instance. A database that is missing or empty while instances/ holds
 * state is refused, not started afresh.
 */
#ifndef XLV_REGISTRY_H
#define XLV_REGISTRY_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "include/launch.h"
#include "include/limits.h"

enum xlv_life {
    XLV_LIFE_NEW,         /* assigned; its TPM is not manufactured yet */
    XLV_LIFE_READY,       /* has a TPM */
    XLV_LIFE_QUARANTINED, /* kept, not served, until an administrator decides */
};

/* What an administrator decided for the next restored domain (xl-vtpm accept). */
enum xlv_accept {
    XLV_ACCEPT_NONE,
    XLV_ACCEPT_RESET, /* its TPM is reset, though the guest does not expect that */
    XLV_ACCEPT_KEPT,  /* it goes on from the kept state, though that may be of another save */
};

/* The state that the store keeps since its domain was suspended (backend/kept.h). */
struct xlv_suspended {
    int64_t at_s; /* 0: none */
    uint32_t domid;
    char domain_uuid[XLV_UUID_TEXT]; /* "" unknown */
    int64_t mark; /* tells one save from another (domain.h); -1 unknown */
};

/*
 * Handing an instance over to another host (docs/migration.md). At every moment at most one
 * registry has it as HELD; the others refuse to serve it.
 */
enum xlv_handover {
    XLV_HANDOVER_HELD,      /* this host has it */
    XLV_HANDOVER_DEPARTING, /* offered to another host, which may not serve it yet */
    XLV_HANDOVER_DEPARTED,  /* given away: another host has it, or may take it */
    XLV_HANDOVER_ARRIVING,  /* announced or copied here, the giver may still keep it */
};

/* Are the boots of its domains measured (xl-vtpm measure)? */
enum xlv_measuring {
    XLV_MEASURING_DEFAULT, /* as the settings say */
    XLV_MEASURING_ON,
    XLV_MEASURING_OFF,
};

#define XLV_DIRECTORY_MAX 511u

struct xlv_instance {
    uint64_t number; /* from 1 */
    struct xlv_uuid uuid;
    enum xlv_tpm_version tpm_version;
    enum xlv_life life;
    int64_t created_s, last_used_s; /* Unix time; last_used_s 0: never */
    char last_domain_name[XLV_DOMAIN_NAME_MAX + 1];
    char last_domain_uuid[XLV_UUID_TEXT]; /* "" unknown */
    char label[XLV_LABEL_MAX + 1];
    struct xlv_suspended suspended;
    enum xlv_accept accept;
    enum xlv_handover handover;
    char handover_token[XLV_UUID_TEXT]; /* of this handover, the same on both hosts; "" none yet */
    char handover_peer[XLV_HANDOVER_PEER_MAX + 1];
    int64_t deleted_s; /* a tombstone since then: served to nobody, can be had back; 0: not so */
    enum xlv_measuring measure_boot;
    int64_t late_attach_s; /* attached when its domain's boot was over already; 0: not so */
    /* Relative to the state directory: "instances/<number>"; or absolute, on storage that other
     * hosts have, too (share.h). */
    char directory[XLV_DIRECTORY_MAX + 1];
};

static inline bool xlv_instance_shared(const struct xlv_instance *instance)
{
    return instance->directory[0] == '/';
}

/* Its directory as an absolute path, for people; returns path. */
const char *xlv_instance_path(const char *state_dir, const struct xlv_instance *instance,
                              char path[PATH_MAX]);

enum xlv_rule { XLV_RULE_UUID, XLV_RULE_BINDING, XLV_RULE_ASSIGNED };
const char *xlv_rule_name(enum xlv_rule rule);
const char *xlv_life_name(enum xlv_life life);
const char *xlv_tpm_version_name(enum xlv_tpm_version version); /* "1.2", "2.0" */

enum xlv_unknown_uuid { XLV_UNKNOWN_UUID_ASSIGN, XLV_UNKNOWN_UUID_REFUSE };

struct xlv_registry;

/*
 * Opens (and with create, makes or upgrades) <state_dir>/vtpm.db; with create
 * also makes state_dir, but not its parents. XLV_E_NOT_FOUND without create
 * where there is none; XLV_E_VERSION: written by a newer version, or, without
 * create, to be upgraded first; XLV_E_CORRUPT: not our database, damaged, or
 * lost while there are instances (nothing is changed). On a read-only disk
 * what only reads works and the rest fails with -EROFS.
 */
int xlv_registry_open(struct xlv_registry **out, const char *state_dir, bool create,
                      struct xlv_error *e);
void xlv_registry_close(struct xlv_registry *registry);

/*
 * Opens the directory of an instance: *fd is the caller's, -1 on error.
 * XLV_E_NOT_FOUND: it is missing, and with it the instance's state.
 */
int xlv_registry_directory(struct xlv_registry *registry, const struct xlv_instance *instance,
                           int *fd, struct xlv_error *e);

/* The one in the state directory, of an instance that may be elsewhere now: as its directory from
 * here on in this copy of its row; or opened. */
void xlv_instance_at_home(struct xlv_instance *instance);
int xlv_registry_own_directory(struct xlv_registry *registry, const struct xlv_instance *instance,
                               int *fd, struct xlv_error *e);

struct xlv_lookup {
    struct xlv_uuid uuid; /* nil: none given (preview only) */
    const char *domain_name; /* NULL or "": unknown, rule 2 does not apply */
    unsigned devid;
    enum xlv_unknown_uuid unknown_uuid;
    enum xlv_tpm_version default_version; /* for rule 3 */
};

/* Resolves by the rules above; may assign. One transaction. XLV_E_INVALID: a nil
 * uuid, a domain name or devid out of bounds. */
int xlv_registry_resolve(struct xlv_registry *registry, const struct xlv_lookup *lookup,
                         struct xlv_instance *instance, enum xlv_rule *rule, struct xlv_error *e);

/* As resolve, but changes nothing: rule 3 gives *rule ASSIGNED, number 0 and the
 * version that the new instance would get. */
int xlv_registry_preview(struct xlv_registry *registry, const struct xlv_lookup *lookup,
                         struct xlv_instance *instance, enum xlv_rule *rule, struct xlv_error *e);

/*
 * Makes an instance ahead of its first use. label may be NULL; at most
 * XLV_LABEL_MAX bytes of UTF-8 without control characters. XLV_E_EXISTS,
 * XLV_E_INVALID.
 */
int xlv_registry_create(struct xlv_registry *registry, const struct xlv_uuid *uuid,
                        enum xlv_tpm_version version, const char *label,
                        struct xlv_instance *instance, struct xlv_error *e);

typedef int xlv_fill(int dirfd, const struct xlv_instance *instance, void *opaque,
                     struct xlv_error *e);

/*
 * Makes an instance that has its TPM already (READY), or what its TPM is made from (NEW): fill()
 * writes the state into the open directory, durably, inside the transaction. Killed at any
 * moment there is the whole instance or none; a directory that was being filled then is marked,
 * serves nobody, and goes with the next sweep. fill() may not use the registry.
 * XLV_E_EXISTS, XLV_E_INVALID, or what fill() says.
 */
int xlv_registry_adopt(struct xlv_registry *registry, const struct xlv_uuid *uuid,
                       enum xlv_tpm_version version, const char *label, enum xlv_life life,
                       xlv_fill *fill, void *opaque, struct xlv_instance *instance,
                       struct xlv_error *e);

/* Removes what interrupted adoptions left, and returns when none is under way that began before. */
int xlv_registry_sweep(struct xlv_registry *registry, struct xlv_error *e);

/* Its state is in this directory from now on; absolute, or "": in its own again. */
int xlv_registry_place(struct xlv_registry *registry, uint64_t number, const char *directory,
                       struct xlv_error *e);

/* Another state was put into its store: READY; nothing suspended or accepted counts, and its
 * endorsement keys are not known. */
int xlv_registry_replaced(struct xlv_registry *registry, uint64_t number, struct xlv_error *e);

int xlv_registry_get(struct xlv_registry *registry, const struct xlv_uuid *uuid,
                     struct xlv_instance *instance, struct xlv_error *e);
int xlv_registry_get_number(struct xlv_registry *registry, uint64_t number,
                            struct xlv_instance *instance, struct xlv_error *e);

/*
 * Whether there is any instance with more than a row and an empty directory: then what its state
 * is sealed under was there, and is not to be made anew.
 */
int xlv_registry_any_state(struct xlv_registry *registry, bool *any, struct xlv_error *e);

/* Calls visit for each instance in order of number; a return != 0 ends it and is returned.
 * visit may use the registry. */
int xlv_registry_each(struct xlv_registry *registry,
                      int (*visit)(const struct xlv_instance *instance, void *opaque),
                      void *opaque, struct xlv_error *e);

/*
 * A copy of the registry in a new file, closed but not synced, and each instance that is in it, as
 * xlv_registry_each(): of one instant, whatever other processes do. visit may not use the registry.
 */
int xlv_registry_snapshot(struct xlv_registry *registry, const char *path,
                          int (*visit)(const struct xlv_instance *instance, void *opaque),
                          void *opaque, struct xlv_error *e);

int xlv_registry_set_life(struct xlv_registry *registry, uint64_t number, enum xlv_life life,
                          struct xlv_error *e);
int xlv_registry_set_label(struct xlv_registry *registry, uint64_t number, const char *label,
                           struct xlv_error *e);

/*
 * Notes a use: time is now. domain_uuid may be NULL. Where a boot begins with
 * it (or is gone on with after a restore), what was suspended and accepted is
 * over.
 */
enum xlv_use {
    XLV_USE_AGAIN, /* the same boot goes on: a driver that came back */
    XLV_USE_BOOT,
    XLV_USE_LATE, /* in the middle of a boot, which was not measured so far */
};
int xlv_registry_used(struct xlv_registry *registry, uint64_t number, const char *domain_name,
                      const char *domain_uuid, enum xlv_use use, struct xlv_error *e);

/* Its domain is suspended; durable before its state is kept. suspended->at_s is not used. */
int xlv_registry_suspended(struct xlv_registry *registry, uint64_t number,
                           const struct xlv_suspended *suspended, struct xlv_error *e);

int xlv_registry_accept(struct xlv_registry *registry, uint64_t number, enum xlv_accept accept,
                        struct xlv_error *e);
int xlv_registry_measure_boot(struct xlv_registry *registry, uint64_t number,
                              enum xlv_measuring measure, struct xlv_error *e);
const char *xlv_measuring_name(enum xlv_measuring measure); /* "", "on", "off" */
const char *xlv_accept_name(enum xlv_accept accept); /* "", "reset", "kept" */

/*
 * The uid that the backends of an instance run as: no other instance's, out of
 * first to first + count - 1. The one that it had is kept, else the lowest free one
 * is recorded. XLV_E_REFUSED: all are taken; XLV_E_INVALID: no such range.
 */
int xlv_registry_uid(struct xlv_registry *registry, uint64_t number, uint32_t first,
                     uint32_t count, uint32_t *uid, struct xlv_error *e);

/*
 * Deleting leaves a tombstone: row, bindings and state stay, and whatever asks for the instance
 * (its uuid, a domain bound to it) is refused rather than given another TPM. XLV_E_IN_USE: its
 * store is locked; XLV_E_REFUSED: another host has it, or it is about to; XLV_E_EXISTS: it is
 * deleted already (delete), XLV_E_INVALID: it is not deleted (undelete, purge).
 */
int xlv_registry_delete(struct xlv_registry *registry, uint64_t number, struct xlv_error *e);
int xlv_registry_undelete(struct xlv_registry *registry, uint64_t number, struct xlv_error *e);

/* Ends a tombstone: row, bindings, directory. Its uuid is unknown then, its number never used
 * again. Killed at any moment, all of it is there or the next sweep removes the rest. */
int xlv_registry_purge(struct xlv_registry *registry, uint64_t number, struct xlv_error *e);

/*
 * The uuid becomes a NEW instance's, with its label and bindings; what it was is a tombstone with
 * a uuid of its own, *earlier, whose state fill() writes, as in xlv_registry_adopt(). In one step.
 * The caller has the lock of its store. XLV_E_NOT_FOUND; XLV_E_REFUSED: deleted, or another host
 * has it.
 */
int xlv_registry_reset(struct xlv_registry *registry, const struct xlv_uuid *uuid,
                       const struct xlv_uuid *tombstone, const char *label, xlv_fill *fill,
                       void *opaque, struct xlv_instance *instance, struct xlv_instance *earlier,
                       struct xlv_error *e);

/*
 * Those that were deleted at least so many seconds ago, XLV_PURGE_AT_ONCE of them at most: *more then,
 * and 0. Else those that resist are left for another time, and the first error is returned, in whose
 * sentence is how many went: here and, before, in earlier calls. *count, also then: here.
 */
#define XLV_PURGE_AT_ONCE 64u
int xlv_registry_purge_older(struct xlv_registry *registry, int64_t seconds, unsigned before,
                             unsigned *count, bool *more, struct xlv_error *e);

/*
 * The steps of a handover; each is durable when it returns, and is made only from the states
 * and with the token that it names: else XLV_E_CONFLICT, and nothing was changed.
 *   offer    HELD -> DEPARTING, with a new token
 *   expect   not HELD -> ARRIVING, life NEW; an unknown uuid becomes an instance. again: the
 *            other host gave it away already; then only where it is ARRIVING with this token
 *   move     from -> to, where the token is this one
 */
int xlv_registry_offer(struct xlv_registry *registry, uint64_t number, const char *token,
                       const char *peer, struct xlv_error *e);
int xlv_registry_expect(struct xlv_registry *registry, const struct xlv_uuid *uuid,
                        enum xlv_tpm_version version, bool again, const char *token,
                        const char *peer, struct xlv_instance *instance, struct xlv_error *e);
int xlv_registry_move(struct xlv_registry *registry, uint64_t number, const char *token,
                      enum xlv_handover from, enum xlv_handover to, struct xlv_error *e);
const char *xlv_handover_name(enum xlv_handover handover); /* "" held, "departing", ... */

/*
 * The endorsement keys of an instance's TPM and the certificates for them, as they were made
 * with it. A serial number is here, durably, before a certificate with it leaves the process
 * that signed it, and stays for ever; a second certificate with it fails.
 *   endorse      in the place of what an earlier, interrupted manufacture noted
 *   identified   what was found in a TPM, wherever it was made, in the place of all that was noted
 *   endorsement  what there is; serial "" for a certificate that this host did not sign
 */
#define XLV_SERIAL_TEXT 33      /* 16 bytes in hex, NUL */
#define XLV_FINGERPRINT_TEXT 65 /* SHA-256 of der in hex, NUL */

struct xlv_document {
    size_t length; /* 0: there is none */
    uint8_t der[XLV_CERTIFICATE_MAX];
    char fingerprint[XLV_FINGERPRINT_TEXT];
    char serial[XLV_SERIAL_TEXT]; /* certificates only */
};

struct xlv_endorsement {
    struct xlv_document key[XLV_EKS]; /* SubjectPublicKeyInfo */
    struct xlv_document certificate[XLV_CERTIFICATES];
};

int xlv_registry_endorse(struct xlv_registry *registry, uint64_t number,
                         const struct xlv_endorsement *endorsement, struct xlv_error *e);
int xlv_registry_identified(struct xlv_registry *registry, uint64_t number,
                            const struct xlv_endorsement *endorsement, struct xlv_error *e);
int xlv_registry_endorsement(struct xlv_registry *registry, uint64_t number,
                             struct xlv_endorsement *endorsement, struct xlv_error *e);
/* Was any certificate ever signed here? */
int xlv_registry_signed(struct xlv_registry *registry, bool *any, struct xlv_error *e);
/* enum xlv_ek, or XLV_CERTIFICATE_PLATFORM: "rsa2048", "p384", "p256", "platform" */
const char *xlv_certificate_name(unsigned kind);

/* Bindings. bind replaces an older binding of the same (domain, devid). */
enum xlv_binding_origin { XLV_BINDING_AUTOMATIC, XLV_BINDING_ADMINISTRATOR };
const char *xlv_binding_origin_name(enum xlv_binding_origin origin);

struct xlv_binding {
    char domain_name[XLV_DOMAIN_NAME_MAX + 1];
    unsigned devid;
    enum xlv_binding_origin origin;
};

int xlv_registry_bind(struct xlv_registry *registry, uint64_t number, const char *domain_name,
                      unsigned devid, struct xlv_error *e);
int xlv_registry_unbind(struct xlv_registry *registry, const char *domain_name, unsigned devid,
                        struct xlv_error *e);
int xlv_registry_each_binding(struct xlv_registry *registry, uint64_t number,
                              int (*visit)(const struct xlv_binding *binding, void *opaque),
                              void *opaque, struct xlv_error *e);

#endif
