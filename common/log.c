/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Structured logging: see log.h. */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/error.h"
#include "common/fd.h"

#define LINE_MAX_BYTES 1024

static enum xlv_log_level threshold = XLV_LOG_INFO;
static xlv_log_sink *the_sink;
static xlv_log_watcher *the_watcher;
static void *watcher_opaque;
static const struct xlv_log_subject *the_subject;

static const char *const names[] = { "error", "warning", "notice", "info", "debug" };

void xlv_log_set_level(enum xlv_log_level level)
{
    threshold = level;
}

enum xlv_log_level xlv_log_level(void)
{
    return threshold;
}

const char *xlv_log_level_name(enum xlv_log_level level)
{
    return names[level];
}

int xlv_log_level_parse(enum xlv_log_level *level, const char *word)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(word, names[i])) {
            *level = (enum xlv_log_level)i;
            return 0;
        }
    return XLV_E_INVALID;
}

void xlv_log_set_sink(xlv_log_sink *sink)
{
    the_sink = sink;
}

void xlv_log_set_watcher(xlv_log_watcher *watcher, void *opaque)
{
    the_watcher = watcher;
    watcher_opaque = opaque;
}

void xlv_log_set_subject(const struct xlv_log_subject *subject)
{
    the_subject = subject;
}

static void stderr_sink(enum xlv_log_level level, const struct xlv_log_subject *subject,
                        const char *text)
{
    static const int priority[] = { 3, 4, 5, 6, 7 };
    char line[LINE_MAX_BYTES + 160], uuid[XLV_UUID_TEXT];
    size_t n = 0;

#define PUT(...) \
    do { \
        int k_ = snprintf(line + n, sizeof(line) - n, __VA_ARGS__); \
        if (k_ > 0) \
            n = n + (size_t)k_ < sizeof(line) ? n + (size_t)k_ : sizeof(line) - 1; \
    } while (0)

    /* systemd sets JOURNAL_STREAM where stderr is the journal */
    if (getenv("JOURNAL_STREAM"))
        PUT("<%d>", priority[level]);
    PUT("%s:", names[level]);
    if (subject && subject->domid >= 0)
        PUT(" dom %d/%d", subject->domid, subject->devid);
    if (subject && subject->uuid)
        PUT(" %s", xlv_uuid_format(subject->uuid, uuid));
    if (subject && subject->instance)
        PUT(" #%llu", (unsigned long long)subject->instance);
    PUT("%s %s\n", subject && (subject->domid >= 0 || subject->uuid || subject->instance) ? ":" : "",
        text);
#undef PUT
    line[n - 1] = '\n'; /* also where the text was cut */
    /* one write per line, so that lines of several processes never mix */
    (void)xlv_write_all(STDERR_FILENO, line, n);
}

static void emit(const struct xlv_log_subject *subject, enum xlv_log_level level, const char *fmt,
                 va_list ap) __attribute__((format(printf, 3, 0)));

static void emit(const struct xlv_log_subject *subject, enum xlv_log_level level, const char *fmt,
                 va_list ap)
{
    static bool watching;
    char text[LINE_MAX_BYTES];

    if (level > threshold)
        return;
    vsnprintf(text, sizeof(text), fmt, ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    (the_sink ? the_sink : stderr_sink)(level, subject, text);
    if (the_watcher && !watching) {
        watching = true;
        the_watcher(level, subject, text, watcher_opaque);
        watching = false;
    }
}

void xlv_log(enum xlv_log_level level, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    emit(the_subject, level, fmt, ap);
    va_end(ap);
}

void xlv_log_about(const struct xlv_log_subject *subject, enum xlv_log_level level,
                   const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    emit(subject, level, fmt, ap);
    va_end(ap);
}

bool xlv_ratelimit_pass(struct xlv_ratelimit *limit)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((uint64_t)now.tv_sec - limit->window_start_s >= limit->interval_s) {
        if (limit->dropped)
            xlv_log(XLV_LOG_WARNING, "%u similar messages were dropped", limit->dropped);
        limit->window_start_s = (uint64_t)now.tv_sec;
        limit->used = limit->dropped = 0;
    }
    if (limit->used < limit->burst) {
        limit->used++;
        return true;
    }
    limit->dropped++;
    return false;
}
