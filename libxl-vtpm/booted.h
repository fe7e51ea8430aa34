/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a domain was booted with: as libxl notes it, in
 *
 *     /var/lib/xen/userdata-d.<domid>.<uuid>.libxl-json
 *
 * Seen in libxl of Xen 4.17.7 (libxl_create.c, domcreate_complete): it is written
 * after the last device was attached, so nothing is there yet when a device is
 * admitted; and before the toolstack is told that there is a domain, which it
 * unpauses only then. So it is there, for as long as the domain is, from before
 * the guest's first instruction: whoever hears of a guest's driver can read it.
 *
 * The files are opened by name when the guest's driver connects, not when libxl
 * loaded them. Who can exchange them in between is root in this domain, who could
 * as well load another kernel.
 */
#ifndef XLV_BOOTED_H
#define XLV_BOOTED_H

#include <stdint.h>

#include "common/error.h"
#include "include/limits.h"

struct xlv_booted {
    char kernel[XLV_FILE_NAME_MAX + 1], ramdisk[XLV_FILE_NAME_MAX + 1]; /* ramdisk "": none */
    char cmdline[XLV_COMMAND_LINE_MAX + 1];
    int kernel_fd, ramdisk_fd; /* read-only; -1: none */
};

#define XLV_BOOTED_INIT { .kernel_fd = -1, .ramdisk_fd = -1 }

/*
 * directory: where libxl keeps its notes; domain_uuid: with dashes, lower case.
 * Not 0: it is not known what the domain was booted with, and e says why: there
 * is no such note, a boot loader chose the kernel, it is HVM, a file is missing.
 * *booted is as after deinit then.
 */
int xlv_booted_find(struct xlv_booted *booted, const char *directory, uint32_t domid,
                    const char *domain_uuid, struct xlv_error *e);

void xlv_booted_deinit(struct xlv_booted *booted); /* closes the files */

#endif
