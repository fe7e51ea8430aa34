/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Samples: see samples.h. */
#include "config.h"

#include "bench/samples.h"

#include <stdlib.h>

void bench_add(struct bench_samples *s, int64_t ns)
{
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 1024;
        s->ns = realloc(s->ns, s->room * sizeof(*s->ns));
        if (!s->ns)
            exit(1);
    }
    s->ns[s->n++] = ns;
}

void bench_free(struct bench_samples *s)
{
    free(s->ns);
    *s = (struct bench_samples){ 0 };
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

double bench_at(struct bench_samples *s, double fraction)
{
    if (!s->n)
        return 0;
    qsort(s->ns, s->n, sizeof(*s->ns), ascending);
    return (double)s->ns[(size_t)(fraction * (double)(s->n - 1))];
}

struct json_object *bench_figures(struct bench_samples *s, double unit)
{
    struct json_object *o = json_object_new_object();

    json_object_object_add(o, "p50", json_object_new_double(bench_at(s, 0.5) / unit));
    json_object_object_add(o, "p99", json_object_new_double(bench_at(s, 0.99) / unit));
    json_object_object_add(o, "samples", json_object_new_int64((int64_t)s->n));
    return o;
}
