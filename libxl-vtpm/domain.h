/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the hypervisor knows of a domain, and xenstore does not: has it ever
 * run, was it created or restored, is it suspended (being saved or migrated)?
 * And its mark: a number that tells one save of a domain from another.
 *
 * Measured with Xen 4.17, PV and PVH guests (tests/xen/scenarios/save-restore.sh
 * holds it still):
 *   - While libxl attaches the devices of a new domain, the domain is paused
 *     and has used no time of any processor.
 *   - The incarnation of the domain's TSC info (XEN_DOMCTL_gettscinfo) is 1
 *     for a created domain, and one more at each restore or migration; the
 *     toolstack sets it, no guest can.
 *   - A domain that is saved is shut down with the reason `suspend` until
 *     libxl destroys it, after its devices are gone.
 *   - The mark of a PV guest: its own producer index in its xenstore ring
 *     (grant 1, xs_wire.h req_prod) stands still from the suspend to the first
 *     instruction after the restore, and moves on by dozens of requests whenever
 *     the guest runs on. It is the guest's to write: it keeps an administrator
 *     from a mix-up, it stops no attacker (who would have to be the administrator,
 *     too).
 *   - The mark of an HVM or PVH guest, whose ring is cleared at a restore: a
 *     digest of its first processor's registers, the FPU's included (HVM save
 *     record CPU), which are saved and restored as they are. The instruction
 *     pointer is the same at every suspend; what the guest did before is left in
 *     scratch and FPU registers, which differed at each suspend that was looked
 *     at, also at two in a row. (The TSC would be better, but does not come back
 *     exactly where Xen emulates or scales it.)
 *
 * libxenctrl is the one unstable interface that is used here; all of it stays
 * in domain.c. In a domain without privilege nothing is told.
 */
#ifndef XLV_DOMAIN_H
#define XLV_DOMAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct xlv_domains;

struct xlv_domain_facts {
    bool told;      /* false: nothing below is known (no privilege) */
    bool exists;
    bool has_run;   /* it is not paused, or has used a processor already */
    bool restored;  /* or migrated, at least once in its life */
    bool suspended; /* shut down in order to be saved or migrated */
    bool soft_reset; /* shut down to be reset, for a kexec of its guest: it goes on */
    bool shut_down; /* for any other reason: it never runs again, nor is it saved */
    bool over;      /* shut_down, paused (as libxl does first where it destroys) or dying, and not
                       soft_reset: where its devices go now, it will not run again */
};

/* *out is NULL where the hypervisor tells us nothing: a valid argument below. */
int xlv_domains_open(struct xlv_domains **out, struct xlv_error *e);
void xlv_domains_close(struct xlv_domains *domains);

void xlv_domains_ask(struct xlv_domains *domains, uint32_t domid, struct xlv_domain_facts *facts);

/* From 0; equal if, and only if, the one is the restore of the other. False: it has none. */
bool xlv_domains_mark(struct xlv_domains *domains, uint32_t domid, int64_t *mark);

#endif
