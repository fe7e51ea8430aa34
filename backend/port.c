/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The port: see port.h. */
#include "config.h"

#include "backend/port.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xentoolcore.h>
#include <xentoollog.h>

#include "common/log.h"
#include "include/limits.h"

struct xlv_port {
    uint32_t domid;
    xengnttab_handle *grants;
    xenevtchn_handle *events;
    void *page;
    int local; /* our end of the channel, -1 unbound */
    bool restricted;
};

/* libxengnttab logs each grant that cannot be mapped, to stderr if it is let:
 * which is what a guest causes as often as it likes. */
static void on_library_message(struct xentoollog_logger *logger, xentoollog_level level,
                               int error, const char *context, const char *format, va_list ap)
    __attribute__((format(printf, 5, 0)));

static void on_library_message(struct xentoollog_logger *logger, xentoollog_level level,
                               int error, const char *context, const char *format, va_list ap)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(3, 60);
    char text[256];

    (void)logger;
    if (level < XTL_WARN || !xlv_ratelimit_pass(&limit))
        return;
    vsnprintf(text, sizeof(text), format, ap);
    xlv_log(XLV_LOG_WARNING, "%s: %s%s%s", context ? context : "xen", text, error > 0 ? ": " : "",
            error > 0 ? strerror(error) : "");
}

static void on_library_destroy(struct xentoollog_logger *logger)
{
    (void)logger;
}

static struct xentoollog_logger library_log = {
    .vmessage = on_library_message,
    .destroy = on_library_destroy,
};

int xlv_port_open(struct xlv_port **out, uint32_t domid, uint32_t ring_ref,
                  uint32_t event_channel, struct xlv_error *e)
{
    struct xlv_port *port = calloc(1, sizeof(*port));
    int r;

    *out = NULL;
    if (!port)
        return -ENOMEM;
    port->domid = domid;
    port->local = -1;

    port->grants = xengnttab_open(&library_log, 0);
    if (!port->grants) {
        r = xlv_fail(e, -errno, "/dev/xen/gntdev cannot be opened (%s): is the module xen-gntdev "
                     "loaded?", strerror(errno));
        goto out;
    }
    port->events = xenevtchn_open(&library_log, 0);
    if (!port->events) {
        r = xlv_fail(e, -errno, "/dev/xen/evtchn cannot be opened (%s): is the module xen-evtchn "
                     "loaded?", strerror(errno));
        goto out;
    }
    port->page = xengnttab_map_grant_ref(port->grants, domid, ring_ref, PROT_READ | PROT_WRITE);
    if (!port->page) {
        r = xlv_fail(e, -errno, "ring-ref %u of domain %u cannot be mapped (%s): its frontend "
                     "granted no such page, or took it back", ring_ref, domid, strerror(errno));
        goto out;
    }
    port->local = xenevtchn_bind_interdomain(port->events, domid, event_channel);
    if (port->local < 0) {
        r = xlv_fail(e, -errno, "event-channel %u of domain %u cannot be bound (%s): its frontend "
                     "made no such channel, or another process still serves it", event_channel,
                     domid, strerror(errno));
        goto out;
    }
    *out = port;
    port = NULL;
    r = 0;
out:
    xlv_port_close(port);
    return r;
}

void xlv_port_close(struct xlv_port *port)
{
    if (!port)
        return;
    if (port->restricted) {
        /* the libraries can give nothing back any more; the kernel does */
        (void)munmap(port->page, XLV_PAGE_SIZE);
    } else {
        if (port->local >= 0 && xenevtchn_unbind(port->events, (evtchn_port_t)port->local) < 0)
            xlv_log(XLV_LOG_WARNING, "the event channel could not be unbound (%s)",
                    strerror(errno));
        if (port->page && xengnttab_unmap(port->grants, port->page, 1) < 0)
            xlv_log(XLV_LOG_WARNING, "the shared page could not be unmapped (%s)",
                    strerror(errno));
    }
    if (port->events)
        (void)xenevtchn_close(port->events);
    if (port->grants)
        (void)xengnttab_close(port->grants);
    free(port);
}

int xlv_port_restrict(struct xlv_port *port, struct xlv_error *e)
{
    /* also where it fails half way */
    port->restricted = true;
    if (xentoolcore_restrict_all((domid_t)port->domid) < 0)
        return xlv_fail(e, -errno, "the Xen devices cannot be restricted to domain %u (%s)",
                        port->domid, strerror(errno));
    return 0;
}

void *xlv_port_page(struct xlv_port *port)
{
    return port->page;
}

int xlv_port_fd(const struct xlv_port *port)
{
    return xenevtchn_fd(port->events);
}

int xlv_port_take(struct xlv_port *port, short revents, struct xlv_error *e)
{
    int got;

    if (!(revents & POLLIN))
        return revents ? xlv_fail(e, -EIO, "the event channel device has failed") : XLV_E_EMPTY;
    got = xenevtchn_pending(port->events);
    if (got < 0)
        return errno == EINTR || errno == EAGAIN
                   ? XLV_E_EMPTY
                   : xlv_fail(e, -errno, "the event channel device has failed (%s)",
                              strerror(errno));
    return got == port->local ? 0 : XLV_E_EMPTY;
}

int xlv_port_unmask(struct xlv_port *port, struct xlv_error *e)
{
    if (xenevtchn_unmask(port->events, (evtchn_port_t)port->local) < 0)
        return xlv_fail(e, -errno, "the event channel cannot be unmasked (%s)", strerror(errno));
    return 0;
}

void xlv_port_notify(struct xlv_port *port)
{
    if (xenevtchn_notify(port->events, (evtchn_port_t)port->local) < 0)
        xlv_log(XLV_LOG_DEBUG, "the frontend could not be notified (%s)", strerror(errno));
}
