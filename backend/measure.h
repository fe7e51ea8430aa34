/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The measurement of a boot, in the place of a firmware that these guests have
 * not got: which events there are for a kernel, a ramdisk and a command line.
 * The log is the one source: what is extended is what it says.
 *
 *   PCR 9  EV_IPL        the kernel's file; data: its name
 *          EV_IPL        the ramdisk's, if there is one
 *          EV_SEPARATOR  00000000
 *   PCR 8  EV_IPL        the command line; data: "kernel_cmdline: " and it
 *          EV_SEPARATOR  00000000
 *
 * PCRs, types, texts and what the digests are of (the bytes of the file, the
 * command line without a NUL) are as GRUB 2 has them. The separators close both
 * PCRs: without them a guest that was booted with less (no ramdisk) could
 * extend the rest itself. Where it is not known what was booted, both PCRs get
 * the separator that says so, so that nothing which was sealed to a boot opens:
 *
 *   PCR 9  EV_SEPARATOR  01000000; data: why, for people
 *   PCR 8  EV_SEPARATOR  the same
 */
#ifndef XLV_MEASURE_H
#define XLV_MEASURE_H

#include "backend/eventlog.h"
#include "common/error.h"

#define XLV_PCR_COMMAND_LINE 8u
#define XLV_PCR_FILES 9u

/* All borrowed; the files are read to their end. */
struct xlv_measure_boot {
    const char *error;   /* why it cannot be measured; NULL: it can */
    const char *kernel, *ramdisk, *cmdline; /* names are for people; ramdisk NULL: none */
    int kernel_fd, ramdisk_fd;
};

/*
 * Writes the log of the boot. A file that cannot be read makes it one that
 * cannot be measured, which is success; *error tells. -EIO: libcrypto would not.
 */
int xlv_measure(const struct xlv_measure_boot *boot, enum xlv_tpm_version version, unsigned banks,
                struct xlv_eventlog *log, struct xlv_error *error);

/* The PCRs that a log leads to, from zeros; PCRs that are not in it have no banks. */
#define XLV_PCRS 24u
int xlv_measure_replay(const uint8_t *bytes, size_t length, enum xlv_tpm_version *version,
                       struct xlv_digests pcrs[XLV_PCRS]);

#endif
