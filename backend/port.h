/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The port: this process's hold on one frontend, i.e. the mapped shared page
 * and the bound event channel. The only user of libxengnttab and libxenevtchn.
 * A unit test of the session puts its own functions of these names in the
 * place of this file.
 */
#ifndef XLV_PORT_H
#define XLV_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct xlv_port;

/*
 * Opens both devices, maps the ring and binds the channel. -errno, with a
 * sentence: the guest may have named what does not exist, or another process
 * still holds the channel (EINVAL).
 */
int xlv_port_open(struct xlv_port **out, uint32_t domid, uint32_t ring_ref,
                  uint32_t event_channel, struct xlv_error *e);

/* Unmaps and unbinds; NULL is fine. */
void xlv_port_close(struct xlv_port *port);

/*
 * Gives up what the Xen devices would allow with other domains: the event
 * channel device is for this domain only, the grant device is closed for good.
 * Nothing can be mapped afterwards, whoever controls this process.
 */
int xlv_port_restrict(struct xlv_port *port, struct xlv_error *e);

void *xlv_port_page(struct xlv_port *port);

/* To poll for reading. */
int xlv_port_fd(const struct xlv_port *port);

/*
 * Takes an event, of which poll() told in revents: without it this would wait, whatever
 * O_NONBLOCK says (xenevtchn.h). 0, with the channel masked until xlv_port_unmask(); events
 * that come meanwhile are kept by Xen. XLV_E_EMPTY: there was none.
 */
int xlv_port_take(struct xlv_port *port, short revents, struct xlv_error *e);
int xlv_port_unmask(struct xlv_port *port, struct xlv_error *e);

/* Tells the frontend. A frontend that is gone is no error. */
void xlv_port_notify(struct xlv_port *port);

#endif
