/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The adaptor over libxenstore: the only place that calls it.
 *
 * Values are copied into bounded buffers; transactions are bodies that are run
 * again on a conflict, a bounded number of times. Any failure that says the
 * connection is gone comes back as XLV_E_GONE; the owner then closes and opens
 * again. libxenstore does not make its descriptor readable when its connection
 * is lost: call xlv_xenstore_next() now and then, which costs no system call.
 *
 * Requests block until xenstored answers. The first watch starts libxenstore's
 * reader thread, so children must be made with posix_spawn or vfork + exec.
 */
#ifndef XLV_XENSTORE_H
#define XLV_XENSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "include/limits.h"

struct xlv_xenstore;

/* A transaction, or XLV_XS_NONE. */
typedef uint32_t xlv_xs_transaction;
#define XLV_XS_NONE 0u

int xlv_xenstore_open(struct xlv_xenstore **out, struct xlv_error *e);
void xlv_xenstore_close(struct xlv_xenstore *xs); /* NULL is fine */

/* Readable when watch events wait. */
int xlv_xenstore_fd(struct xlv_xenstore *xs);

/* A value as it is: bytes, length, and a NUL behind them. */
struct xlv_xs_value {
    size_t length;
    char text[XLV_XENSTORE_VALUE_MAX + 1];
};

/*
 * 0; XLV_E_NOT_FOUND: no such node; XLV_E_REFUSED: we may not read it;
 * XLV_E_INVALID: longer than a value can be; XLV_E_GONE; -errno.
 */
int xlv_xenstore_read(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path,
                      struct xlv_xs_value *value);
int xlv_xenstore_write(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path,
                       const char *text);
/* Removing what is not there is success. */
int xlv_xenstore_remove(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path);
int xlv_xenstore_exists(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path);

/* The names in a directory; *names is one free()able block, *count of them.
 * XLV_E_NOT_FOUND as read. */
int xlv_xenstore_list(struct xlv_xenstore *xs, const char *path, char ***names, unsigned *count);

/*
 * Runs body in a transaction until it commits: body returns 0 to commit,
 * anything else to abandon, which is then the result. After too many
 * conflicts: XLV_E_CONFLICT. body must be fit to run more than once.
 */
int xlv_xenstore_transact(struct xlv_xenstore *xs,
                          int (*body)(struct xlv_xenstore *xs, xlv_xs_transaction t, void *opaque),
                          void *opaque);

int xlv_xenstore_watch(struct xlv_xenstore *xs, const char *path, const char *token);
int xlv_xenstore_unwatch(struct xlv_xenstore *xs, const char *path, const char *token);

/* The next watch event: 0, *event is one free()able block that path and token
 * point into; -EAGAIN: none waits; XLV_E_GONE. */
struct xlv_xs_event {
    char **block;
    const char *path, *token;
};
int xlv_xenstore_next(struct xlv_xenstore *xs, struct xlv_xs_event *event);

/* Does the domain still exist? Where we may not know (driver domain): true. */
bool xlv_xenstore_domain_exists(struct xlv_xenstore *xs, uint32_t domid);

#endif
