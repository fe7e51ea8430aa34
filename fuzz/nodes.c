/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon reads in xenstore (libxl-vtpm/daemon-nodes.c) and makes of it (device.h). The
 * xenstore below answers each read with the next piece of the input: u8 outcome, and for a value
 * u16 length and its bytes. So the same node may say something else at each read. Before these:
 * u8 state of the device and u8 what is known of it; behind them nothing is there any more.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "libxl-vtpm/daemon-internal.h"

static struct xlv_bytes in;

static int answer(struct xlv_xs_value *value)
{
    static const int codes[] = { 0, 0, XLV_E_NOT_FOUND, XLV_E_REFUSED, XLV_E_INVALID,
                                 XLV_E_CONFLICT, XLV_E_GONE, -EIO };
    int rc = xlv_bytes_left(&in) ? codes[xlv_get_u8(&in) & 7] : XLV_E_NOT_FOUND;
    const uint8_t *bytes;

    if (rc)
        return rc;
    bytes = piece(&in, &value->length);
    if (!bytes || value->length > XLV_XENSTORE_VALUE_MAX)
        value->length = 0;
    if (value->length)
        memcpy(value->text, bytes, value->length);
    value->text[value->length] = '\0';
    return 0;
}

/* --- the adaptor, and what daemon-nodes.c calls of its neighbours --- */

int xlv_xenstore_read(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path,
                      struct xlv_xs_value *value)
{
    (void)xs;
    (void)t;
    MUST(path[0] == '/' && strlen(path) < XLV_XENSTORE_PATH_MAX);
    return answer(value);
}

int xlv_xenstore_exists(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path)
{
    static struct xlv_xs_value value;

    return xlv_xenstore_read(xs, t, path, &value);
}

int xlv_xenstore_write(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path,
                       const char *text)
{
    (void)xs;
    (void)t;
    MUST(path[0] == '/' && strlen(text) <= XLV_XENSTORE_VALUE_MAX);
    return 0;
}

int xlv_xenstore_remove(struct xlv_xenstore *xs, xlv_xs_transaction t, const char *path)
{
    (void)xs;
    (void)t;
    (void)path;
    return 0;
}

int xlv_xenstore_transact(struct xlv_xenstore *xs,
                          int (*body)(struct xlv_xenstore *xs, xlv_xs_transaction t, void *opaque),
                          void *opaque)
{
    int rc = XLV_E_CONFLICT;

    for (int i = 0; i < 4 && rc == XLV_E_CONFLICT; i++)
        rc = body(xs, 1, opaque);
    return rc;
}

uint64_t xlv_daemon_now(struct xlv_daemon *m)
{
    (void)m;
    return 0;
}

void xlv_daemon_arm(struct xlv_daemon *m, sd_event_source **source, uint64_t after_us,
                    sd_event_time_handler_t handler, void *opaque)
{
    (void)m;
    (void)source;
    (void)after_us;
    (void)handler;
    (void)opaque;
}

void xlv_daemon_lost(struct xlv_daemon *m)
{
    (void)m;
}

void xlv_dev_watch(struct device *d)
{
    (void)d;
}

void xlv_dev_mark(struct device *d, bool look)
{
    (void)d;
    (void)look;
}

/* --- */

static void read_paths(const uint8_t *bytes, size_t length)
{
    char *text = text_of(bytes, length), name[XLV_DOMAIN_NAME_MAX + 1];
    uint32_t domid, devid;
    int64_t number;

    if (!xlv_parse_device_path(text, &domid, &number))
        MUST(domid <= XLV_DOMID_MAX && number >= -1 && number <= (int64_t)XLV_DEVID_MAX);
    if (!xlv_parse_listener_name(text, &domid, &devid))
        MUST(domid <= XLV_DOMID_MAX && devid <= XLV_DEVID_MAX);
    snprintf(name, sizeof(name), "%s", text);
    (void)xlv_strip_incoming(name);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct device d;
    struct xlv_daemon daemon = { .xs = (struct xlv_xenstore *)&daemon };
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_device_step step;
    enum xlv_device_event event;
    uint8_t known;

    in = xlv_bytes_reader(data, size);
    read_paths(data, size < 64 ? size : 64);
    d = (struct device){
        .daemon = &daemon, .domid = 5, .subject = XLV_LOG_SUBJECT_NONE,
        .limit = XLV_RATELIMIT(0, 3600),
        .backend = "/local/domain/0/backend/vtpm/5/0",
        .frontend = "/local/domain/5/device/vtpm/0",
        .state = (enum xlv_device_state)(xlv_get_u8(&in) % XLV_DEVICE_STATES),
    };
    known = xlv_get_u8(&in);
    d.served = (struct xlv_served){ .any = known & 1, .stale = known & 2,
                                    .was_connected = known & 4,
                                    .ring = { .ring_ref = 8, .event_channel = 9 } };
    d.written = (enum xlv_xenbus)(known >> 4 & 7);
    if (!xlv_dev_identify(&d, &e)) {
        MUST(strlen(d.domain_name) <= XLV_DOMAIN_NAME_MAX);
        MUST(strlen(d.domain_uuid) == 0 || strlen(d.domain_uuid) == XLV_UUID_TEXT - 1);
    }
    for (int i = 0; i < 8 && xlv_bytes_left(&in); i++) {
        if (!xlv_dev_look(&d))
            continue;
        MUST(!d.view.has_ring || (d.view.ring.ring_ref && d.view.ring.event_channel &&
                                  d.view.ring.event_channel <= XLV_EVTCHN_PORT_MAX));
        event = xlv_device_classify(&d.view, &d.served);
        MUST(event <= XLV_SEE_GONE);
        /* what is seen is never an illegal event: the guest could bring it about */
        if (d.state != XLV_DEVICE_GONE) {
            MUST(xlv_device_next(d.state, event, &step) == 0);
            MUST(step.next < XLV_DEVICE_STATES);
            d.state = step.next;
        }
        xlv_dev_set_state(&d, (enum xlv_xenbus)(1 + known % 6));
        xlv_dev_write_error(&d, "no", known & 8);
    }
    return 0;
}
