/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * statistics.h - what a vtpm-backend counts, in the first page of its journal's file
 * (docs/formats.md), where xl-vtpmd and xl-vtpm read it. So counting costs no message, and goes on
 * where a process is killed and another follows. One writer; plain 64-bit stores. Counters only
 * grow; they begin at 0 with the file, at the latest when the host boots. Nothing rests on them: a
 * backend in the hands of its guest writes what it likes there.
 */
#ifndef XLV_STATISTICS_H
#define XLV_STATISTICS_H

#include <stdint.h>

#define XLV_STATISTICS_OFFSET 1024u                   /* in the file, bytes */
#define XLV_STATISTICS_MAGIC UINT64_C(0x01534d5054564c58) /* "XLVTPMS", layout 1 */

/* Upper bounds of the buckets in microseconds; the last bucket is for all above. */
#define XLV_LATENCY_BUCKETS 20u
#define XLV_LATENCY_BOUNDS_US \
    { \
        10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, \
            1000000, 2000000, 5000000, 10000000 \
    }

/* From the look at the page that found a command to FINISH. */
struct xlv_latency {
    uint64_t sum_ns;
    uint64_t buckets[XLV_LATENCY_BUCKETS]; /* each counts its own, not those below */
};

struct xlv_statistics {
    uint64_t magic;     /* else nothing was counted */
    uint64_t processes; /* that began to serve it */
    uint64_t commands;  /* answered, or cancelled */
    uint64_t failed;    /* of them, answered with an error of the TPM's or of ours */
    uint64_t cancelled; /* of them */
    uint64_t commits;   /* of the permanent state, durable */
    uint64_t failed_commits;
    struct xlv_latency all, durable; /* durable: of the commands that made a commit */
};

#endif
