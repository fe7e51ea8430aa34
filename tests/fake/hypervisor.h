/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hypervisor.h - fakexend's domains, event channels and grants.
 *
 * Does no I/O of its own but one thing: it writes events to the descriptor of a handle. Calls
 * return 0 or an errno, the one Linux' evtchn and gntdev drivers or Xen would return.
 * "Handle" is one open /dev/xen/evtchn or /dev/xen/gntdev.
 */
#ifndef FAKE_HYPERVISOR_H
#define FAKE_HYPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

struct hv_handle;

void hv_init(void);
void hv_fini(void);

/* quiet: not in the books. NULL if there is no such domain. */
struct hv_handle *hv_evtchn_open(uint32_t domid, bool quiet, uint64_t cookie, int fd);
struct hv_handle *hv_gnttab_open(uint32_t domid, bool quiet);
/* Releases the ports, mappings and grants of the handle. */
void hv_close(struct hv_handle *h);
struct hv_handle *hv_find(uint64_t cookie);
uint32_t hv_domid(const struct hv_handle *h);

int hv_bind_unbound(struct hv_handle *h, uint32_t remote, uint32_t *port);
int hv_bind_interdomain(struct hv_handle *h, uint32_t remote, uint32_t rport, uint32_t *port);
int hv_bind_virq(struct hv_handle *h, uint32_t virq, uint32_t *port);
int hv_unbind(struct hv_handle *h, uint32_t port);
int hv_notify(struct hv_handle *h, uint32_t port);
int hv_unmask(struct hv_handle *h, uint32_t port);
int hv_restrict(struct hv_handle *h, uint32_t domid);
void hv_virq(uint32_t domid, uint32_t virq);

/* fds are fakexend's own: not to be closed by the caller. */
int hv_map(struct hv_handle *h, uint32_t n, const uint32_t *dom, const uint32_t *ref,
           bool writable, uint64_t *id, int *fds);
int hv_set_notify(struct hv_handle *h, uint64_t id, uint32_t offset, uint32_t port);
int hv_unmap(struct hv_handle *h, uint64_t id);
int hv_share(struct hv_handle *h, uint32_t to, bool writable, uint32_t n, uint32_t *refs,
             int *fds);
int hv_unshare(struct hv_handle *h, uint32_t n, const uint32_t *refs);
int hv_peek(struct hv_handle *h, uint32_t dom, uint32_t ref, bool write, int *fd);
int hv_grant_at(uint32_t from, uint32_t to, uint32_t ref, bool writable, int *fd);
int hv_ungrant(uint32_t from, uint32_t ref);

int hv_domain_create(uint32_t domid);
int hv_domain_shutdown(uint32_t domid, uint32_t reason);
/* The domain goes; while others map its pages it lingers as FX_DOM_DYING. */
int hv_domain_destroy(uint32_t domid);
int hv_domain_ran(uint32_t domid);
int hv_domain_pause(uint32_t domid, bool paused);
int hv_domain_incarnation(uint32_t domid, uint32_t incarnation);
void hv_domain_facts(uint32_t domid, bool *ran, bool *paused, uint32_t *incarnation);
enum fx_dom_state hv_domain_state(uint32_t domid, uint32_t *reason);
uint32_t hv_dom0_port(void);
void hv_stats(uint32_t domid, struct fx_stats *out);

#endif
