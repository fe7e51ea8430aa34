/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structured logging. Every line about a device names its domain, device,
 * uuid and instance; whoever works for one device sets these once.
 *
 * The sink decides where lines go: by default standard error, one line each,
 * "level: dom 5/0 dcdb124b-... #3: text", with an sd-daemon priority prefix
 * "<6>" where standard error is the journal. The daemon can set a sink that
 * writes journal fields. Control characters in the text are made visible.
 */
#ifndef XLV_LOG_H
#define XLV_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/uuid.h"

enum xlv_log_level { XLV_LOG_ERROR, XLV_LOG_WARNING, XLV_LOG_NOTICE, XLV_LOG_INFO, XLV_LOG_DEBUG };

/* What a line is about; fields not known are -1, NULL or 0. */
struct xlv_log_subject {
    int domid;
    int devid;
    const struct xlv_uuid *uuid;
    uint64_t instance;
};

#define XLV_LOG_SUBJECT_NONE { .domid = -1, .devid = -1, .uuid = NULL, .instance = 0 }

typedef void xlv_log_sink(enum xlv_log_level level, const struct xlv_log_subject *subject,
                          const char *text);

/* Lines above this level are dropped. Default: XLV_LOG_INFO. */
void xlv_log_set_level(enum xlv_log_level level);
enum xlv_log_level xlv_log_level(void);

/* "error", "warning", "notice", "info", "debug"; 0 or XLV_E_INVALID. */
int xlv_log_level_parse(enum xlv_log_level *level, const char *word);
const char *xlv_log_level_name(enum xlv_log_level level);

/* NULL: back to standard error. */
void xlv_log_set_sink(xlv_log_sink *sink);

/* Gets every line, too, after the sink. What it logs itself does not come to it. NULL: nobody. */
typedef void xlv_log_watcher(enum xlv_log_level level, const struct xlv_log_subject *subject,
                             const char *text, void *opaque);
void xlv_log_set_watcher(xlv_log_watcher *watcher, void *opaque);

/* The subject of xlv_log() lines without one of their own; copied by
 * reference, must outlive its use. For a process that serves one device. */
void xlv_log_set_subject(const struct xlv_log_subject *subject);

void xlv_log(enum xlv_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void xlv_log_about(const struct xlv_log_subject *subject, enum xlv_log_level level,
                   const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * For lines that a guest can cause: at most burst lines per interval seconds;
 * the first line that passes again tells how many were dropped.
 *     static struct xlv_ratelimit limit = XLV_RATELIMIT(5, 10);
 *     if (xlv_ratelimit_pass(&limit)) xlv_log(...);
 */
struct xlv_ratelimit {
    unsigned burst, interval_s;
    unsigned used, dropped;
    uint64_t window_start_s;
};
#define XLV_RATELIMIT(burst_, interval_) { .burst = (burst_), .interval_s = (interval_) }
bool xlv_ratelimit_pass(struct xlv_ratelimit *limit);

#endif
