/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Handing an instance over: see move.h. */
#include "config.h"

#include "libxl-vtpm/move.h"

#include <inttypes.h>
#include <string.h>

#include "backend/container.h"
#include "libxl-vtpm/move-steps.h"

static int give(struct xlv_move *m, struct xlv_move_peer *peer, const struct xlv_uuid *uuid,
                const char *name, struct xlv_error *e)
{
    bool held = false;
    int rc = xlv_move_take_up(m, uuid, false, e);

    if (rc)
        return rc;
    rc = xlv_move_offer(m, peer, name, &held, e);
    if (!rc && held)
        return 0;
    if (rc == XLV_E_REFUSED && m->departed)
        return rc; /* it is where it was, which is not here */
    if (!rc && m->same)
        rc = xlv_fail(e, XLV_E_REFUSED, "%s has the same state directory as this host", name);
    if (!rc)
        rc = xlv_move_depart(m, e);
    if (rc && !m->departed) {
        xlv_move_call_off(m);
        return rc;
    }
    if (!rc)
        rc = xlv_move_say(peer, XLV_MOVE_COMMIT, NULL, 0, e);
    if (!rc)
        rc = xlv_move_expect(peer, XLV_MOVE_HELD, e);
    return rc ? XLV_E_GONE : 0;
}

static int take(struct xlv_move *m, struct xlv_move_peer *peer, struct xlv_error *e)
{
    enum xlv_move_type type;
    uint8_t *offer;
    size_t length;
    bool held = false;
    int rc = xlv_move_hear(peer, &type, &offer, &length, e);

    if (!rc && type != XLV_MOVE_OFFER)
        rc = xlv_fail(e, XLV_E_INVALID, "the other host makes no offer");
    if (!rc)
        rc = xlv_move_accept(m, peer, offer, length, &held, e);
    xlv_move_wipe(offer, length);
    if (rc || held || m->same)
        return rc;
    rc = xlv_move_expect(peer, XLV_MOVE_COMMIT, e);
    if (!rc)
        rc = xlv_move_hold(m, e);
    return rc ? rc : xlv_move_say(peer, XLV_MOVE_HELD, NULL, 0, e);
}

int xlv_move_give(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                  const char *name, int in, int out, struct xlv_error *e)
{
    struct xlv_move_peer peer = { .in = in, .out = out };
    struct xlv_move m;
    int rc = xlv_move_init(&m, settings, e);

    if (!rc)
        rc = give(&m, &peer, uuid, name, e);
    xlv_move_deinit(&m);
    return rc;
}

int xlv_move_take(const struct xlv_settings *settings, int in, int out, struct xlv_error *e)
{
    struct xlv_move_peer peer = { .in = in, .out = out };
    struct xlv_move m;
    int rc = xlv_move_init(&m, settings, e);

    if (!rc)
        rc = take(&m, &peer, e);
    /* before HELD was said, the giver can still be told why */
    if (rc) {
        const char *why = e->text[0] ? e->text : xlv_strerror(rc);
        struct xlv_error ignored = XLV_ERROR_INIT;

        (void)xlv_move_say(&peer, XLV_MOVE_REFUSED, (const uint8_t *)why, strlen(why), &ignored);
    }
    xlv_move_deinit(&m);
    return rc;
}

/* An instance on shared storage that this host knows nothing of: the one that has it is gone. The
 * lock says that no host serves it. */
static int take_over(struct xlv_move *m, const struct xlv_uuid *uuid, struct xlv_error *e)
{
    struct xlv_container container;
    char place[XLV_DIRECTORY_MAX + 1] = "", token[XLV_UUID_TEXT];
    struct xlv_uuid fresh;
    int rc = xlv_settings_shared(m->settings, uuid, place, e);

    m->instance = (struct xlv_instance){ .uuid = *uuid };
    strcpy(m->instance.directory, place);
    if (!rc)
        rc = xlv_move_open_store(m, false, e);
    if (rc == XLV_E_IN_USE) {
        xlv_error_clear(e);
        rc = xlv_fail(e, rc, "another host serves the TPM in %s just now", place);
    }
    if (!rc)
        rc = xlv_container_read(m->data, m->length, &container, e);
    if (rc)
        return rc;
    xlv_uuid_generate(&fresh);
    xlv_uuid_format(&fresh, token);
    rc = xlv_registry_expect(m->registry, uuid, container.version, false, token, "shared storage",
                             &m->instance, e);
    if (!rc)
        rc = xlv_registry_place(m->registry, m->instance.number, place, e);
    if (!rc)
        rc = xlv_registry_set_life(m->registry, m->instance.number, XLV_LIFE_READY, e);
    return rc ? rc : xlv_registry_move(m->registry, m->instance.number, token,
                                       XLV_HANDOVER_ARRIVING, XLV_HANDOVER_HELD, e);
}

static int take_back(struct xlv_move *m, const struct xlv_uuid *uuid, struct xlv_error *e)
{
    int rc = 0;

    if (m->instance.handover == XLV_HANDOVER_HELD)
        rc = xlv_fail(e, XLV_E_INVALID, "this host has instance %" PRIu64 " already",
                      m->instance.number);
    if (!rc)
        rc = xlv_move_open_store(m, false, e);
    if (!rc)
        rc = xlv_registry_get(m->registry, uuid, &m->instance, e);
    /* an arrival's older state of an earlier stay here is not what was offered */
    if (!rc && m->instance.handover == XLV_HANDOVER_ARRIVING && m->instance.life != XLV_LIFE_READY)
        rc = xlv_fail(e, XLV_E_REFUSED, "its state has not arrived");
    return rc ? rc : xlv_registry_move(m->registry, m->instance.number, m->instance.handover_token,
                                       m->instance.handover, XLV_HANDOVER_HELD, e);
}

int xlv_move_resume_here(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                         struct xlv_error *e)
{
    struct xlv_move m;
    int rc = xlv_move_init(&m, settings, e);

    if (!rc)
        rc = xlv_registry_get(m.registry, uuid, &m.instance, e);
    if (!rc) {
        rc = take_back(&m, uuid, e);
    } else if (rc == XLV_E_NOT_FOUND && m.registry && settings->shared_dir[0]) {
        xlv_error_clear(e);
        rc = take_over(&m, uuid, e);
    }
    xlv_move_deinit(&m);
    return rc;
}
