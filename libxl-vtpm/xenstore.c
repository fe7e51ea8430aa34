/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The adaptor over libxenstore: see xenstore.h. */
#include "config.h"

#include "libxl-vtpm/xenstore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xenstore.h>

/* A guest that writes all the time can make our transactions conflict. */
#define CONFLICTS_MAX 16

struct xlv_xenstore {
    struct xs_handle *handle;
    bool lost;
};

int xlv_xenstore_open(struct xlv_xenstore **out, struct xlv_error *e)
{
    struct xlv_xenstore *xs = calloc(1, sizeof(*xs));

    *out = NULL;
    if (!xs)
        return xlv_fail(e, -ENOMEM, "no memory for the connection to xenstore");
    xs->handle = xs_open(0);
    if (!xs->handle) {
        int saved = errno ? errno : EIO;

        free(xs);
        return xlv_fail(e, -saved,
                        "cannot connect to xenstore: %s; is this a Xen host and xenstored running?",
                        strerror(saved));
    }
    *out = xs;
    return 0;
}

void xlv_xenstore_close(struct xlv_xenstore *xs)
{
    if (!xs)
        return;
    xs_close(xs->handle);
    free(xs);
}

int xlv_xenstore_fd(struct xlv_xenstore *xs)
{
    return xs_fileno(xs->handle);
}

/* The code for errno after a failed request. */
static int failed(struct xlv_xenstore *xs)
{
    char *path;

    switch (errno) {
    case ENOENT:
        return XLV_E_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS: /* oxenstored's word for a node that is another domain's */
        return XLV_E_REFUSED;
    case EAGAIN:
        return XLV_E_CONFLICT;
    case EINVAL:
        /* xenstored's word for a bad request, and libxenstore's for a connection that ended
         * while it waited for the answer: a request that is always good tells */
        path = xs_get_domain_path(xs->handle, 0);
        if (path) {
            free(path);
            return -EINVAL;
        }
        xs->lost = true;
        return XLV_E_GONE;
    case EEXIST:
    case EISDIR:
    case ENOSPC:
    case ENOTEMPTY:
    case EBUSY:
    case E2BIG:
    case ENOMEM:
    case EDQUOT:
    case ENOSYS:
        return -errno;
    case 0:
        return -EIO;
    default:
        /* everything else comes from the transport: EPIPE, EBADF, ECONNRESET ... */
        xs->lost = true;
        return XLV_E_GONE;
    }
}

int xlv_xenstore_read(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path,
                      struct xlv_xs_value *value)
{
    unsigned length = 0;
    char *text;

    errno = 0;
    text = xs_read(xs->handle, t, path, &length);
    if (!text)
        return failed(xs);
    if (length > XLV_XENSTORE_VALUE_MAX) {
        free(text);
        return XLV_E_INVALID;
    }
    memcpy(value->text, text, length);
    value->text[length] = '\0';
    value->length = length;
    free(text);
    return 0;
}

int xlv_xenstore_write(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path,
                       const char *text)
{
    errno = 0;
    return xs_write(xs->handle, t, path, text, (unsigned)strlen(text)) ? 0 : failed(xs);
}

int xlv_xenstore_remove(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path)
{
    int rc;

    errno = 0;
    if (xs_rm(xs->handle, t, path))
        return 0;
    rc = failed(xs);
    return rc == XLV_E_NOT_FOUND ? 0 : rc;
}

int xlv_xenstore_exists(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path)
{
    char *text;

    errno = 0;
    text = xs_read(xs->handle, t, path, NULL);
    if (!text)
        return failed(xs);
    free(text);
    return 0;
}

int xlv_xenstore_list(struct xlv_xenstore *xs, const char *path, char ***names, unsigned *count)
{
    errno = 0;
    *count = 0;
    *names = xs_directory(xs->handle, XBT_NULL, path, count);
    return *names ? 0 : failed(xs);
}

int xlv_xenstore_transact(struct xlv_xenstore *xs,
                          int (*body)(struct xlv_xenstore *xs, xlv_xs_transaction t, void *opaque),
                          void *opaque)
{
    for (int i = 0; i < CONFLICTS_MAX; i++) {
        xs_transaction_t t;
        int rc;

        errno = 0;
        t = xs_transaction_start(xs->handle);
        if (t == XBT_NULL)
            return failed(xs);
        rc = body(xs, t, opaque);
        if (rc) {
            if (!xs->lost)
                (void)xs_transaction_end(xs->handle, t, true);
            /* a request inside a transaction may be told of the conflict at once */
            if (rc == XLV_E_CONFLICT)
                continue;
            return rc;
        }
        errno = 0;
        if (xs_transaction_end(xs->handle, t, false))
            return 0;
        rc = failed(xs);
        if (rc != XLV_E_CONFLICT)
            return rc;
    }
    return XLV_E_CONFLICT;
}

int xlv_xenstore_watch(struct xlv_xenstore *xs, const char *path, const char *token)
{
    int rc;

    errno = 0;
    if (xs_watch(xs->handle, path, token))
        return 0;
    rc = failed(xs);
    return rc == -EEXIST ? 0 : rc;
}

int xlv_xenstore_unwatch(struct xlv_xenstore *xs, const char *path, const char *token)
{
    int rc;

    errno = 0;
    if (xs_unwatch(xs->handle, path, token))
        return 0;
    rc = failed(xs);
    return rc == XLV_E_NOT_FOUND ? 0 : rc;
}

int xlv_xenstore_next(struct xlv_xenstore *xs, struct xlv_xs_event *event)
{
    char **block;

    if (xs->lost)
        return XLV_E_GONE;
    errno = 0;
    block = xs_check_watch(xs->handle);
    if (!block) {
        if (errno == EAGAIN)
            return -EAGAIN;
        if (errno == ENOMEM)
            return -ENOMEM;
        /* EINVAL: the reader thread has ended and nothing is queued any more */
        xs->lost = true;
        return XLV_E_GONE;
    }
    event->block = block;
    event->path = block[XS_WATCH_PATH];
    event->token = block[XS_WATCH_TOKEN];
    return 0;
}

bool xlv_xenstore_domain_exists(struct xlv_xenstore *xs, uint32_t domid)
{
    errno = 0;
    if (xs_is_domain_introduced(xs->handle, domid))
        return true;
    /* an answer leaves errno alone; a refusal or a lost connection sets it */
    return errno != 0;
}
