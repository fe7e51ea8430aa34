/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A cgroup for each backend, where systemd is the init: the daemon asks it, on the system bus, for
 * a transient scope vtpm-<instance>-<pid>.scope in system-vtpm.slice (org.freedesktop.systemd1(5),
 * StartTransientUnit). All TPMs together then weigh as much as one other service, and each of them
 * as much as any other; systemd-cgtop(1) shows what each takes, systemctl(1) set-property bounds it.
 *
 * Nothing waits for it and nothing depends on it: without systemd, its bus or its consent a backend
 * stays in the cgroup of the daemon, which is said once.
 */
#ifndef XLV_SCOPES_H
#define XLV_SCOPES_H

#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#define XLV_SCOPES_SLICE "system-vtpm.slice"
/* What systemd itself gives a unit. */
#define XLV_SCOPES_CPU_WEIGHT 100u

struct xlv_scopes;

/*
 * open: connects to the bus, as sd_bus_open_system(3), which it is for all but tests; called when
 * the first scope is asked for, and when the connection was lost. event: borrowed. NULL where there
 * is no memory.
 */
struct xlv_scopes *xlv_scopes_new(sd_event *event, int (*open)(sd_bus **bus));
void xlv_scopes_free(struct xlv_scopes *scopes);

/*
 * Asks for a scope for this process, unless it is in another cgroup than we are already. scopes:
 * may be NULL, nothing is asked then. domid, devid: for the description.
 */
void xlv_scopes_put(struct xlv_scopes *scopes, pid_t pid, uint64_t instance, uint32_t domid,
                    uint32_t devid);

#endif
