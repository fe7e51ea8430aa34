/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of a boot is measured: see measure.h. */
#include "config.h"

#include "backend/measure.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define COMMAND_LINE "kernel_cmdline: "

/* why NULL: all is well */
static int add_separator(struct xlv_eventlog *log, uint32_t pcr, const char *why)
{
    const uint8_t value[4] = { why ? 1 : 0 };
    struct xlv_event event = {
        .pcr = pcr,
        .type = XLV_EV_SEPARATOR,
        .data = why ? (const uint8_t *)why : value,
        .length = why ? strlen(why) + 1 : sizeof(value),
    };
    int rc = xlv_digest(log->banks, value, sizeof(value), &event.digests);

    return rc ? rc : xlv_eventlog_add(log, &event);
}

static int add_ipl(struct xlv_eventlog *log, uint32_t pcr, const struct xlv_digests *digests,
                   const char *text)
{
    struct xlv_event event = { .pcr = pcr, .type = XLV_EV_IPL, .digests = *digests,
                               .data = (const uint8_t *)text, .length = strlen(text) + 1 };

    return xlv_eventlog_add(log, &event);
}

static int add_file(struct xlv_eventlog *log, const char *name, int fd, struct xlv_error *error)
{
    struct xlv_digests digests;
    uint64_t length;
    int rc = xlv_digest_file(log->banks, fd, &digests, &length);

    if (!rc && !length)
        rc = -ENODATA;
    if (rc)
        return xlv_fail(error, rc, "%s cannot be read: %s", name, xlv_strerror(rc));
    return add_ipl(log, XLV_PCR_FILES, &digests, name);
}

static int add_command_line(struct xlv_eventlog *log, const char *line)
{
    char text[sizeof(COMMAND_LINE) + XLV_COMMAND_LINE_MAX];
    struct xlv_digests digests;
    int rc;

    if (snprintf(text, sizeof(text), COMMAND_LINE "%s", line) >= (int)sizeof(text))
        return -EMSGSIZE;
    rc = xlv_digest(log->banks, line, strlen(line), &digests);
    return rc ? rc : add_ipl(log, XLV_PCR_COMMAND_LINE, &digests, text);
}

static int measure_all(const struct xlv_measure_boot *boot, struct xlv_eventlog *log,
                       struct xlv_error *error)
{
    int rc = add_file(log, boot->kernel, boot->kernel_fd, error);

    if (!rc && boot->ramdisk)
        rc = add_file(log, boot->ramdisk, boot->ramdisk_fd, error);
    if (!rc)
        rc = add_separator(log, XLV_PCR_FILES, NULL);
    if (!rc)
        rc = add_command_line(log, boot->cmdline);
    return rc ? rc : add_separator(log, XLV_PCR_COMMAND_LINE, NULL);
}

static int measure_error(struct xlv_eventlog *log, const char *why)
{
    int rc = add_separator(log, XLV_PCR_FILES, why);

    return rc ? rc : add_separator(log, XLV_PCR_COMMAND_LINE, why);
}

int xlv_measure(const struct xlv_measure_boot *boot, enum xlv_tpm_version version, unsigned banks,
                struct xlv_eventlog *log, struct xlv_error *error)
{
    int rc;

    xlv_eventlog_begin(log, version, banks);
    if (boot->error) {
        xlv_fail(error, 0, "%s", boot->error);
        return measure_error(log, boot->error);
    }
    rc = measure_all(boot, log, error);
    if (!rc)
        return 0;
    xlv_fail(error, rc, "the measurement failed: %s", xlv_strerror(rc));
    xlv_eventlog_begin(log, version, banks);
    return measure_error(log, error->text);
}

static int replay_one(const struct xlv_event *event, void *opaque)
{
    struct xlv_digests *pcr = opaque;

    if (event->type == XLV_EV_NO_ACTION)
        return 0;
    if (event->pcr >= XLV_PCRS)
        return XLV_E_CORRUPT;
    pcr += event->pcr;
    if (!pcr->banks)
        pcr->banks = event->digests.banks;
    return pcr->banks == event->digests.banks ? xlv_digest_extend(pcr, &event->digests)
                                              : XLV_E_CORRUPT;
}

int xlv_measure_replay(const uint8_t *bytes, size_t length, enum xlv_tpm_version *version,
                       struct xlv_digests pcrs[XLV_PCRS])
{
    memset(pcrs, 0, XLV_PCRS * sizeof(*pcrs));
    return xlv_eventlog_each(bytes, length, version, replay_one, pcrs);
}
