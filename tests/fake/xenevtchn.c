/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xenevtchn.c - fake libxenevtchn.so.1 over fakexend (wire.h).
 *
 * A handle's descriptor is a connection on which fakexend writes 4 bytes per event, so it polls,
 * blocks, is inherited and is released like /dev/xen/evtchn. The calls go over a second
 * descriptor and are synchronous: when xenevtchn_notify() returns, the peer's event is queued.
 * After open everything is done with read() and write().
 *
 * What Linux and Xen do, and this with them: a port is bound unmasked and gets one event at an
 * interdomain bind; it is masked when its event is queued, and events until the unmask become
 * one; a port that is not the handle's own is ENOTCONN to notify and unbind, and ignored by
 * unmask; a restricted handle may bind to its one domain only, and no virq.
 */
#include "config.h"

#include <xenevtchn.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "client.h"
#include "toolcore.h"

struct xenevtchn_handle {
    struct fx_active_handle ah;      /* must be first: restrict_cb() casts */
    int fd;                          /* events; the "open file" fakexend knows */
    int ctl;                         /* calls */
    uint32_t domid;
};

static int restrict_cb(struct fx_active_handle *ah, domid_t domid)
{
    return xenevtchn_restrict((xenevtchn_handle *)ah, domid);
}

static int call(xenevtchn_handle *h, const char *name, struct fx_msg *m)
{
    if (fxc_fault(name, h->domid))
        return -1;
    m->domid = h->domid;
    return fxc_call(h->ctl, m, NULL, 0);
}

/* A handle around an existing descriptor; takes it over only on success. */
static xenevtchn_handle *attach(int fd)
{
    struct fx_msg m = { .op = FX_OP_ATTACH, .cookie = fxc_cookie(fd) };
    xenevtchn_handle *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->ctl = fxc_connect();
    if (h->ctl < 0 || fxc_call(h->ctl, &m, NULL, 0)) {
        int e = errno;

        if (h->ctl >= 0)
            close(h->ctl);
        free(h);
        errno = e;
        return NULL;
    }
    h->fd = fd;
    h->domid = m.domid;
    h->ah.restrict_callback = restrict_cb;
    xentoolcore__register_active_handle(&h->ah);
    return h;
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    struct fx_msg m = { .op = FX_OP_EVTCHN, .domid = fxc_domid(), .a = fxc_quiet() };
    xenevtchn_handle *h;
    int fd;

    (void)logger;
    if (fxc_fault("xenevtchn_open", m.domid))
        return NULL;
    if (flags & ~(unsigned int)XENEVTCHN_NO_CLOEXEC) {
        errno = EINVAL;
        return NULL;
    }
    fd = fxc_connect();
    if (fd < 0)
        return NULL;
    m.cookie = fxc_cookie(fd);
    h = fxc_call(fd, &m, NULL, 0) ? NULL : attach(fd);
    if (!h) {
        int e = errno;

        close(fd);
        errno = e;
        return NULL;
    }
    if (flags & XENEVTCHN_NO_CLOEXEC)
        fcntl(fd, F_SETFD, 0);
    return h;
}

xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int fd, unsigned int flags)
{
    (void)logger;
    if (fxc_fault("xenevtchn_fdopen", fxc_domid()))
        return NULL;
    if (flags) {
        errno = EINVAL;
        return NULL;
    }
    return attach(fd);
}

int xenevtchn_close(xenevtchn_handle *h)
{
    int r;

    if (!h)
        return 0;
    xentoolcore__deregister_active_handle(&h->ah);
    close(h->ctl);
    r = close(h->fd);
    free(h);
    return r;
}

int xenevtchn_fd(xenevtchn_handle *h)
{
    return h->fd;
}

int xenevtchn_notify(xenevtchn_handle *h, evtchn_port_t port)
{
    struct fx_msg m = { .op = FX_OP_NOTIFY, .a = port };

    return call(h, __func__, &m);
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *h, uint32_t domid)
{
    struct fx_msg m = { .op = FX_OP_BIND_UNBOUND, .a = domid };

    return call(h, __func__, &m) ? -1 : (int)m.a;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *h, uint32_t domid,
                                                     evtchn_port_t remote_port)
{
    struct fx_msg m = { .op = FX_OP_BIND_INTERDOMAIN, .a = domid, .b = remote_port };

    return call(h, __func__, &m) ? -1 : (int)m.a;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *h, unsigned int virq)
{
    struct fx_msg m = { .op = FX_OP_BIND_VIRQ, .a = virq };

    return call(h, __func__, &m) ? -1 : (int)m.a;
}

int xenevtchn_unbind(xenevtchn_handle *h, evtchn_port_t port)
{
    struct fx_msg m = { .op = FX_OP_UNBIND, .a = port };

    return call(h, __func__, &m);
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *h)
{
    evtchn_port_t port;
    ssize_t r;

    if (fxc_fault(__func__, h->domid))
        return -1;
    r = read(h->fd, &port, sizeof(port));
    if (r == 0)                      /* fakexend is gone, which no kernel ever is */
        errno = EIO;
    return r == sizeof(port) ? (int)port : -1;
}

int xenevtchn_unmask(xenevtchn_handle *h, evtchn_port_t port)
{
    struct fx_msg m = { .op = FX_OP_UNMASK, .a = port };

    return call(h, __func__, &m);
}

int xenevtchn_restrict(xenevtchn_handle *h, domid_t domid)
{
    struct fx_msg m = { .op = FX_OP_EVT_RESTRICT, .a = domid };

    return call(h, __func__, &m);
}
