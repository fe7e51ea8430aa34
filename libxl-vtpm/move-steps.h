/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The messages and steps of a handover (move.h), shared by its two kinds: an instance whose
 * domain is shut down or saved (move.c), and those of a domain that migrates (migrate.c).
 *
 * A message: "XVMV", u16 version 1, u16 type, u32 length, then that many bytes; little endian.
 */
#ifndef XLV_MOVE_STEPS_H
#define XLV_MOVE_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/settings.h"

enum xlv_move_type {
    XLV_MOVE_OFFER = 1,
    XLV_MOVE_ACCEPT,
    XLV_MOVE_STATE,
    XLV_MOVE_STORED,
    XLV_MOVE_COMMIT,   /* migration: with what the source's toolstack says in order to give way */
    XLV_MOVE_HELD,
    XLV_MOVE_REFUSED,
    /* migration only */
    XLV_MOVE_DATA,     /* of the toolstacks' stream */
    XLV_MOVE_SAME,     /* the taker has the giver's registry: there is nothing to hand over */
    XLV_MOVE_RETURN,   /* the domain did not start: the taker gave up what it held */
};

/* A connection: descriptors, borrowed. data: where DATA goes that comes amid a step; NULL: there
 * shall be none. */
struct xlv_move_peer {
    int in, out;
    int (*data)(const uint8_t *data, size_t length, void *opaque, struct xlv_error *e);
    void *opaque;
};

int xlv_move_write(int fd, const uint8_t *data, size_t length, const char *whom,
                   struct xlv_error *e);
/* As hear where the other side has hung up and had refused; else -EPIPE then. */
int xlv_move_say(struct xlv_move_peer *peer, enum xlv_move_type type, const uint8_t *data,
                 size_t length, struct xlv_error *e);
/* The next message; *data is the caller's (xlv_move_wipe), NULL where it is empty. REFUSED is
 * XLV_E_REFUSED with the other side's sentence; XLV_E_GONE: the connection ended. */
int xlv_move_hear(struct xlv_move_peer *peer, enum xlv_move_type *type, uint8_t **data,
                  size_t *length, struct xlv_error *e);
/* The next message, which is this one and empty. */
int xlv_move_expect(struct xlv_move_peer *peer, enum xlv_move_type wanted, struct xlv_error *e);
void xlv_move_wipe(uint8_t *data, size_t length); /* and free */

struct xlv_offer {
    struct xlv_uuid uuid;
    enum xlv_tpm_version version;
    bool again; /* it is given away already: only to finish what was begun with this token */
    char token[XLV_UUID_TEXT], giver[XLV_HANDOVER_PEER_MAX + 1];
    struct xlv_suspended suspended;                     /* at_s: is there one? */
    char domain[XLV_DOMAIN_NAME_MAX + 1]; /* whose device it is; "": none */
    uint32_t devid;
    bool shared; /* the taker finds its state on storage that both have (share.h) */
};

/* One instance on its way, on either side. */
struct xlv_move {
    const struct xlv_settings *settings;
    struct xlv_registry *registry;
    struct xlv_keys *keys;
    struct xlv_instance instance;
    struct xlv_store *store;
    int slots[2]; /* while it is locked */
    int own;      /* giver: its own directory, locked until the outcome is known (instances.h) */
    uint8_t *data; /* what the store holds */
    size_t length;
    struct xlv_offer offer;
    bool departed; /* giver: durably */
    bool same;     /* taker and giver have one registry */
};

int xlv_move_init(struct xlv_move *m, const struct xlv_settings *settings, struct xlv_error *e);
void xlv_move_deinit(struct xlv_move *m); /* the lock goes last */

/* Locks the store of m->instance and loads it; XLV_E_EMPTY: there is nothing. On shared storage
 * it is the holder's to lock; the taker only looks at it. */
int xlv_move_open_store(struct xlv_move *m, bool create, struct xlv_error *e);
/* Closes it, and lets go of the lock. */
void xlv_move_close_store(struct xlv_move *m);

/*
 * The giver's steps. take: finds and locks the instance; migrates: its domain is frozen, so its
 * journal may be there. offer: until the other host has its state, or *held: it has all of it
 * already. depart: from here on this host does not have it. call_off: before that.
 */
int xlv_move_take_up(struct xlv_move *m, const struct xlv_uuid *uuid, bool migrates,
                     struct xlv_error *e);
int xlv_move_offer(struct xlv_move *m, struct xlv_move_peer *peer, const char *name, bool *held,
                   struct xlv_error *e);
int xlv_move_depart(struct xlv_move *m, struct xlv_error *e);
void xlv_move_call_off(struct xlv_move *m);

/* The taker's. accept: an offer (the body of its message) until STORED was said; *held as above.
 * hold: this host has it. */
int xlv_move_accept(struct xlv_move *m, struct xlv_move_peer *peer, const uint8_t *offer,
                    size_t length, bool *held, struct xlv_error *e);
int xlv_move_hold(struct xlv_move *m, struct xlv_error *e);

#endif
