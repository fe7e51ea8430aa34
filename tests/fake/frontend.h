/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * frontend.h - the other side of a vTPM, scripted: the toolstack as libxl 4.17 does it, the guest
 * as Linux' xen-tpmfront does it or as a hostile guest may.
 *
 * Works in a machine (machine.h) with the mock as well as with a real xenstored. Nothing here
 * sleeps for luck: waiting is for a watch or an event, with a deadline. Times are milliseconds.
 * Functions return 0 or -errno unless said otherwise; -ETIMEDOUT is a deadline that passed.
 *
 *     struct fx_vtpm d;
 *     fx_vtpm_init(&d, 0, 5, 0, uuid);
 *     fx_vtpm_create(m, &d);                      nodes written, backend is at InitWait
 *     fx_guest_open(&g, m, 5);
 *     fx_frontend_open(&f, g, &d, 0);
 *     fx_frontend_connect(f, 5000);               both at Connected
 *     fx_frontend_transact(f, 0, cmd, len, rsp, sizeof(rsp), &rsp_len, 5000);
 *     fx_frontend_close(f, 5000);                 both at Closed
 *     fx_frontend_free(f);
 *     fx_vtpm_remove(m, &d, FX_DETACH);           no node left
 */
#ifndef FAKE_FRONTEND_H
#define FAKE_FRONTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What its users need anyway: enum xenbus_state, struct tpmif_shared_page. */
#include <xen/xen.h>
#include <xen/io/tpmif.h>
#include <xen/io/xenbus.h>

#include "machine.h"

/* ---------------------------------------------------------------- toolstack */

#define FX_LIBXL_TIMEOUT 10000   /* LIBXL_INIT_TIMEOUT, LIBXL_DESTROY_TIMEOUT */

struct fx_vtpm {
    uint32_t be_domid, domid;
    int devid;
    char uuid[64];               /* written as given, also if it is none; "": no such node */
    char backend[96], frontend[96], libxl[96];   /* the three directories */
};

/* Fills in a device description; uuid NULL is "". */
void fx_vtpm_init(struct fx_vtpm *d, uint32_t be_domid, uint32_t domid, int devid,
                  const char *uuid);

/* Writes what libxl__device_generic_add() does for a vtpm, in one transaction: nodes, values,
 * owners, permissions. Nodes of the same device that are there already are replaced. */
int fx_vtpm_add(struct fx_machine *m, const struct fx_vtpm *d);

/* libxl__ev_devstate_wait(): waits until the backend's state is exactly that one. -ENOENT as
 * soon as the node is seen missing. */
int fx_vtpm_wait(struct fx_machine *m, const struct fx_vtpm *d, enum xenbus_state state,
                 int timeout);

/* Add and wait for InitWait, as xl create and xl vtpm-attach. On failure the nodes stay. */
int fx_vtpm_create(struct fx_machine *m, const struct fx_vtpm *d);

enum fx_removal {
    FX_DETACH,                   /* xl vtpm-detach: the guest takes part */
    FX_DESTROY,                  /* domain destroyed, shut down or saved: frontend deleted first */
};

/* The first half of a removal: one transaction with online = 0, state = 5 and, for FX_DESTROY,
 * the frontend directory deleted. -ENOENT if the backend's state is not there. */
int fx_vtpm_remove_begin(struct fx_machine *m, const struct fx_vtpm *d, enum fx_removal how);

/*
 * A whole removal: begin, wait for backend state 6 (10 s), for a driver domain's backend wait for
 * its directory to go (10 s), then delete what is left, with directories that became empty.
 * A detach that timed out goes on as a destroy. As with libxl, the nodes of a destroy are deleted
 * whatever happened; a state node seen missing while waiting is -ENOENT, so a driver domain must
 * leave its 6 in place until that was seen; a backend that was not there to begin with is fine.
 */
int fx_vtpm_remove(struct fx_machine *m, const struct fx_vtpm *d, enum fx_removal how);

/* Deletes all nodes of the device without a word to anybody (xenstore-rm). */
int fx_vtpm_vanish(struct fx_machine *m, const struct fx_vtpm *d);

/* What a node holds now, as the toolstack: a malloc'ed string, or NULL. */
char *fx_read(struct fx_machine *m, const char *dir, const char *key);
int fx_write(struct fx_machine *m, const char *dir, const char *key, const char *value);
/* The number in a node; -1 if there is none. */
int fx_read_int(struct fx_machine *m, const char *dir, const char *key);

/* ---------------------------------------------------------------- guest */

struct fx_guest;
struct fx_frontend;

/* A guest's kernel: its xenstore connection, event channels, grants. Belongs to the caller until
 * fx_guest_close(), which is the guest's sudden end as far as its pages and ports go. */
int fx_guest_open(struct fx_guest **out, struct fx_machine *m, uint32_t domid);
void fx_guest_close(struct fx_guest *g);         /* NULL ok; frontends must be freed before */

/* Write and read as the guest, relative to its home: "device/vtpm/0/state". */
int fx_guest_write(struct fx_guest *g, const char *path, const char *value);
char *fx_guest_read(struct fx_guest *g, const char *path);       /* malloc'ed, or NULL + errno */
int fx_guest_remove(struct fx_guest *g, const char *path);

/* A driver instance with a ring of 1 + extra_pages pages, granted to the device's backend, and an
 * event channel for it to bind. Nothing is written to xenstore yet. */
int fx_frontend_open(struct fx_frontend **out, struct fx_guest *g, const struct fx_vtpm *d,
                     unsigned int extra_pages);

/* Takes the ring back and closes the port, with no word to the backend: also the first half of
 * what Linux does on resume. NULL ok. */
void fx_frontend_free(struct fx_frontend *f);

/* ring-ref, event-channel, feature-protocol-v2 = 1 in one transaction, then state 3. */
int fx_frontend_publish(struct fx_frontend *f);

int fx_frontend_set_state(struct fx_frontend *f, enum xenbus_state state);

/* Waits, with the guest's eyes, for a state of the backend. */
int fx_frontend_wait_backend(struct fx_frontend *f, enum xenbus_state state, int timeout);

/* Publish, wait for the backend's 4, go to 4. */
int fx_frontend_connect(struct fx_frontend *f, int timeout);

/* 5, wait for the backend's 5, 6, wait for its 6: rmmod, or the guest's shutdown. */
int fx_frontend_close(struct fx_frontend *f, int timeout);

/* Puts a request into the ring and notifies. Does not look at any state first: may be called
 * right after publishing, as Linux does. -EMSGSIZE if it does not fit. */
int fx_frontend_submit(struct fx_frontend *f, uint8_t locality, const void *cmd, size_t len);

/*
 * Waits for the answer to what was submitted. *len gets its length, buf at most cap bytes of
 * it. -ECANCELED: the backend set IDLE. Waits for notifications, not for the page: an
 * answer that came without one is -ENOMSG after the deadline. -EPROTO: the page says
 * something no backend may (a length that does not fit, a request state).
 */
int fx_frontend_wait(struct fx_frontend *f, void *buf, size_t cap, size_t *len, int timeout);

/* Takes one notification, or waits for it; also one whose answer was seen in the page before. */
int fx_frontend_wait_event(struct fx_frontend *f, int timeout);

/* Asks to cancel what was submitted, as Linux on a time-out or a fatal signal. */
int fx_frontend_cancel(struct fx_frontend *f);

/* Submit and wait. */
int fx_frontend_transact(struct fx_frontend *f, uint8_t locality, const void *cmd, size_t len,
                         void *buf, size_t cap, size_t *rsp_len, int timeout);

/* For hostile guests: the first page itself, the rest of the ring behind it; and how it is
 * known to the backend. */
volatile struct tpmif_shared_page *fx_frontend_page(struct fx_frontend *f);
uint32_t fx_frontend_ref(const struct fx_frontend *f, unsigned int page);
uint32_t fx_frontend_port(const struct fx_frontend *f);
size_t fx_frontend_capacity(const struct fx_frontend *f);
int fx_frontend_notify(struct fx_frontend *f);
/* Notifications taken since the frontend was opened. */
unsigned int fx_frontend_events(const struct fx_frontend *f);

#endif
