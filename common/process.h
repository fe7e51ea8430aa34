/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * process.h - what another process runs.
 */
#ifndef XLV_PROCESS_H
#define XLV_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Whether the process runs the program of that path, or one that has been removed or replaced since.
 * Where the program is on a mount of the process's own that is detached by now, as a service's /usr
 * is once the service has ended, the kernel tells its path from that mount's root on (proc(5)
 * /proc/pid/exe): then that has to be the end of the program's.
 */
bool xlv_process_runs(pid_t pid, const char *program);

#endif
