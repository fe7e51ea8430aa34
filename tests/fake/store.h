/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store.h - the strict mock of xenstored: a tree, its permissions, transactions and watches,
 * speaking the real wire protocol (xen/io/xs_wire.h) to byte-stream connections.
 *
 * Modelled on C xenstored 4.17 as seen from outside, and compared with it by
 * selftest/test-xenstored.c. Stricter in one thing: a transaction works on a snapshot
 * taken at its start, so a change by somebody else since then to any node it touched makes
 * it end in EAGAIN, where xenstored looks from the first touch on.
 *
 * Does no I/O: bytes go in with store_feed(), come out with store_output(). Whoever drives it
 * is told of introduced domains by a callback. Out of memory ends the program: it is a test.
 */
#ifndef FAKE_STORE_H
#define FAKE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

struct store;
struct store_conn;

struct store_ops {
    bool (*domain_exists)(void *arg, uint32_t domid);
    void (*introduced)(void *arg, uint32_t domid);   /* its connections may come now */
    void (*released)(void *arg, uint32_t domid);     /* the toolstack took it away */
};

struct store *store_new(const struct store_ops *ops, void *arg);
void store_free(struct store *s);

/* A connection of a process in a domain; domain 0 is privileged, all others are not. */
struct store_conn *store_connect(struct store *s, uint32_t domid, uint32_t pid);
void store_disconnect(struct store_conn *c);     /* drops its watches and transactions */

/* Returns false if the peer broke the protocol and must be cut off. */
bool store_feed(struct store_conn *c, const void *data, size_t len);

/* Bytes that wait for the peer (none: NULL, *len 0); store_sent() takes n of them away. */
const void *store_output(struct store_conn *c, size_t *len);
void store_sent(struct store_conn *c, size_t n);

/* Hypervisor side: the domain shut down, or does not exist any more. */
void store_domain_shutdown(struct store *s, uint32_t domid);
void store_domain_gone(struct store *s, uint32_t domid);

/* Faults. Domains are FX_STORE_ANY or one. */
#define FX_STORE_ANY UINT32_MAX
void store_conflict(struct store *s, uint32_t domid, uint32_t count);
void store_hold(struct store *s, uint32_t domid, bool hold);
void store_spurious(struct store *s, uint32_t domid);
void store_quota(struct store *s, enum fx_quota quota, uint32_t limit);
/* How many requests a process has made, over all its connections. */
uint32_t store_requests(struct store *s, uint32_t pid);
void store_stats(struct store *s, uint32_t domid, struct fx_store_stats *out);

#endif
