/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xenevtchn.c - a libxenevtchn.so.1 for measurements, in the place of the fakes' own.
 *
 * There a notification is a message to a process that plays the hypervisor, 30 us and more, where
 * Xen has a hypercall of less than 1 us. Here it is one write() to a FIFO that the peer polls. The
 * system calls of our backend are as many as on Xen: a poll and a read for an event, one write to
 * unmask, one call to notify.
 *
 * Only for one frontend per handle and well-behaved programs: no masking, no permissions.
 */
#include "config.h"

#include <xenevtchn.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/peer.h"
#include "tests/fake/wire.h"

#define FDS 16384
static int fds[FDS]; /* of the ports of this process */

struct xenevtchn_handle {
    char base[160];
    uint32_t self;
    evtchn_port_t port;
    int in, out, null;
};

static void path_of(const struct xenevtchn_handle *h, uint32_t domid, evtchn_port_t port, char side,
                    char *path, size_t length)
{
    snprintf(path, length, "%s/fast.%u.%u.%c", h->base, domid, port, side);
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    xenevtchn_handle *h = calloc(1, sizeof(*h));

    (void)logger, (void)flags;
    if (!h)
        return NULL;
    snprintf(h->base, sizeof(h->base), "%s", getenv(FX_DIR_ENV) ? getenv(FX_DIR_ENV) : "/nowhere");
    h->self = (uint32_t)atoi(getenv(FX_DOMID_ENV) ? getenv(FX_DOMID_ENV) : "0");
    /* Something to poll until a port is bound. */
    h->in = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    h->null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    h->out = -1;
    if (h->in >= 0 && h->null >= 0)
        return h;
    free(h);
    return NULL;
}

int xenevtchn_close(xenevtchn_handle *h)
{
    if (!h)
        return 0;
    close(h->in);
    close(h->null);
    if (h->out >= 0)
        close(h->out);
    free(h);
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *h)
{
    return h->in;
}

static int join(xenevtchn_handle *h, uint32_t domid, evtchn_port_t port, char in, char out)
{
    char path[256];
    int a, b;

    path_of(h, domid, port, in, path, sizeof(path));
    a = open(path, O_RDWR | O_CLOEXEC);
    path_of(h, domid, port, out, path, sizeof(path));
    b = open(path, O_RDWR | O_CLOEXEC);
    if (a < 0 || b < 0)
        return -1;
    dup3(a, h->in, O_CLOEXEC);
    close(a);
    h->out = b;
    h->port = port;
    if (port < FDS)
        fds[port] = h->in;
    return 0;
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *h, uint32_t domid)
{
    static evtchn_port_t next;
    evtchn_port_t port = ++next;
    char path[256];

    (void)domid;
    for (const char *side = "gb"; *side; side++) {
        path_of(h, h->self, port, *side, path, sizeof(path));
        if (mkfifo(path, 0600))
            return -1;
    }
    return join(h, h->self, port, 'g', 'b') ? -1 : (xenevtchn_port_or_error_t)port;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *h, uint32_t domid,
                                                     evtchn_port_t port)
{
    if (join(h, domid, port, 'b', 'g'))
        return -1;
    return (xenevtchn_port_or_error_t)port;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *h, unsigned int virq)
{
    (void)h, (void)virq;
    errno = ENOSYS;
    return -1;
}

int xenevtchn_unbind(xenevtchn_handle *h, evtchn_port_t port)
{
    (void)h, (void)port;
    return 0;
}

int xenevtchn_notify(xenevtchn_handle *h, evtchn_port_t port)
{
    (void)port;
    return write(h->out, "", 1) == 1 ? 0 : -1;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *h)
{
    char events[64];

    return read(h->in, events, sizeof(events)) > 0 ? (xenevtchn_port_or_error_t)h->port : -1;
}

int xenevtchn_unmask(xenevtchn_handle *h, evtchn_port_t port)
{
    return write(h->null, &port, sizeof(port)) == sizeof(port) ? 0 : -1;
}

int bench_wait_event(int fd)
{
    char events[64];

    return read(fd, events, sizeof(events)) > 0 ? 0 : -errno;
}

int bench_port_fd(evtchn_port_t port)
{
    return port < FDS ? fds[port] : -1;
}

int xenevtchn_restrict(xenevtchn_handle *h, domid_t domid)
{
    (void)h, (void)domid;
    return 0;
}
