/* SPDX-License-Identifier: GPL-2.0-or-later */
/* samples.h - times that were measured, in nanoseconds, and what is said of them. */
#ifndef BENCH_SAMPLES_H
#define BENCH_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

struct bench_samples {
    int64_t *ns;
    size_t n, room;
};

/* Ends the program where there is no memory for one more. */
void bench_add(struct bench_samples *s, int64_t ns);
void bench_free(struct bench_samples *s);

/* The value below which this fraction of them lies; sorts them. 0 where there are none. */
double bench_at(struct bench_samples *s, double fraction);

/* {"p50", "p99", "samples"}, in units of that many nanoseconds. */
struct json_object *bench_figures(struct bench_samples *s, double unit);

#endif
