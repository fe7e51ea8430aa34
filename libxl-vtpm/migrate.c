/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The TPMs of a domain that migrates: see migrate.h. */
#include "config.h"

#include "libxl-vtpm/migrate.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "common/bytes.h"
#include "common/fd.h"
#include "common/log.h"
#include "libxl-vtpm/client.h"
#include "libxl-vtpm/move-steps.h"

/* tools/xl/xl.h. The messages but the banner are sent with their NUL. */
static const char file_magic[32] = "Xen saved domain, xl format\n \0 \r";
static const char go[] = "domain is yours, you are cleared to unpause";
#define BANNER "xl migration receiver ready, send binary domain data.\n"
#define READY "domain received, ready to unpause"
#define REPORT "my copy unpause results are as follows"
#define BYTE_ORDER_VALUE 0x01020304u
#define FLAG_JSON 1u
#define FILE_HEADER 48u  /* magic, byte order, mandatory and optional flags, length of what follows */
#define CONFIG_MAX (4u * 1024u * 1024u)

/* How long, at most, the target's daemon has for letting go of what is given back. */
#define LET_GO_MS 10000u
#define LET_GO_STEP_MS 20u

/* Where the target's xl stands, by the number of bytes that it has said. */
#define SAID_READY (sizeof(BANNER) - 1 + sizeof(READY))
#define SAID_REPORT (SAID_READY + sizeof(REPORT) + 1) /* the last byte: 0 is success */

#define CHUNK (64u * 1024u)
/* Of the stream, until the state is stored: the record that ends it has 8 bytes. */
#define HELD_BACK 8u

#define DEVICES_MAX (XLV_DEVID_MAX + 1u)

/* --- what both sides have --- */

struct side {
    const struct xlv_settings *settings;
    struct xlv_move_peer peer;
    int from_xl, to_xl;
    struct xlv_move *moves; /* one for each TPM */
    size_t count;
    size_t said; /* by the target's xl */
    bool failed; /* and it reported a failure */
};

static void side_deinit(struct side *s)
{
    for (size_t i = 0; i < s->count; i++)
        xlv_move_deinit(&s->moves[i]);
    free(s->moves);
    s->moves = NULL;
    s->count = 0;
}

static int add_move(struct side *s, struct xlv_move **move, struct xlv_error *e)
{
    struct xlv_move *all;
    int rc;

    if (s->count >= DEVICES_MAX)
        return xlv_fail(e, XLV_E_INVALID, "more TPMs than a domain can have");
    all = realloc(s->moves, (s->count + 1) * sizeof(*all));
    if (!all)
        return xlv_fail(e, -ENOMEM, "no memory for a TPM");
    s->moves = all;
    *move = &all[s->count];
    rc = xlv_move_init(*move, s->settings, e);
    s->count++;
    return rc;
}

/* Counts what the target's xl says; false: past its report of a failure. */
static void follow(struct side *s, const uint8_t *data, size_t length)
{
    if (s->said < SAID_REPORT && s->said + length >= SAID_REPORT)
        s->failed = data[SAID_REPORT - 1 - s->said] != 0;
    s->said += length;
}

/* A read that is 0 at the end. */
static ssize_t read_some(int fd, uint8_t *data, size_t size)
{
    ssize_t n;

    do
        n = read(fd, data, size);
    while (n < 0 && errno == EINTR);
    return n;
}

/* --- the source --- */

struct source {
    struct side s;
    const char *host;
    uint8_t *head; /* of the stream, until its configuration is whole */
    size_t head_length, head_room;
    bool configured;
    char domain[XLV_DOMAIN_NAME_MAX + 1], domain_uuid[XLV_UUID_TEXT];
    size_t vtpms;              /* that its configuration has */
    struct xlv_client *daemon; /* holds them frozen */
    bool frozen, stored;
    uint8_t tail[HELD_BACK];
    size_t tail_length;
    uint8_t permission[sizeof(go)];
    size_t permission_length;
    bool committed;
};

static int to_target(struct source *src, const uint8_t *data, size_t length, struct xlv_error *e)
{
    return length ? xlv_move_say(&src->s.peer, XLV_MOVE_DATA, data, length, e) : 0;
}

/* Sends all but the last bytes that there are so far, in order. */
static int hold_back(struct source *src, const uint8_t *data, size_t length, struct xlv_error *e)
{
    size_t all = src->tail_length + length, send = all > HELD_BACK ? all - HELD_BACK : 0, first;
    int rc;

    first = send < src->tail_length ? send : src->tail_length;
    rc = to_target(src, src->tail, first, e);
    if (!rc)
        rc = to_target(src, data, send - first, e);
    memmove(src->tail, src->tail + first, src->tail_length - first);
    src->tail_length -= first;
    if (length > send - first)
        memcpy(src->tail + src->tail_length, data + (send - first), length - (send - first));
    src->tail_length = all - send;
    return rc;
}

static int ask_to_freeze(struct source *src, struct xlv_error *e)
{
    struct json_object *request = json_object_new_object();
    int rc;

    if (!request)
        return xlv_fail(e, -ENOMEM, "no memory for a call");
    json_object_object_add(request, "call", json_object_new_string("freeze"));
    json_object_object_add(request, "domain", json_object_new_string(src->domain));
    json_object_object_add(request, "domain_uuid", json_object_new_string(src->domain_uuid));
    rc = xlv_client_new(&src->daemon, src->s.settings, XLV_CLIENT_DAEMON, e);
    if (!rc)
        rc = xlv_client_ask(src->daemon, request, e);
    json_object_put(request);
    return rc;
}

/* Which domain it is, and how many TPMs it has. */
static int read_config(struct source *src, const char *json, size_t length, struct xlv_error *e)
{
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *config = NULL, *info = NULL, *name = NULL, *uuid = NULL, *vtpms;
    struct xlv_uuid parsed;
    int rc = 0;

    if (!tokener)
        return xlv_fail(e, -ENOMEM, "no memory for the domain's configuration");
    /* xl writes its NUL, too */
    length = strnlen(json, length);
    config = json_tokener_parse_ex(tokener, json, (int)length);
    if (!config && json_tokener_get_error(tokener) == json_tokener_continue)
        config = json_tokener_parse_ex(tokener, "", 1);
    json_tokener_free(tokener);
    if (!config || !json_object_object_get_ex(config, "c_info", &info) ||
        !json_object_object_get_ex(info, "name", &name) ||
        !json_object_object_get_ex(info, "uuid", &uuid) ||
        !json_object_is_type(name, json_type_string) ||
        !json_object_is_type(uuid, json_type_string) ||
        json_object_get_string_len(name) > (int)XLV_DOMAIN_NAME_MAX ||
        xlv_uuid_parse(&parsed, json_object_get_string(uuid))) {
        rc = xlv_fail(e, XLV_E_INVALID, "the domain's configuration in xl's stream is not "
                      "understood");
    } else {
        strcpy(src->domain, json_object_get_string(name));
        xlv_uuid_format(&parsed, src->domain_uuid);
        if (json_object_object_get_ex(config, "vtpms", &vtpms) &&
            json_object_is_type(vtpms, json_type_array))
            src->vtpms = json_object_array_length(vtpms);
    }
    json_object_put(config);
    return rc;
}

/* Collects the head of the stream; when it is whole the domain is known. */
static int take_head(struct source *src, const uint8_t *data, size_t length, struct xlv_error *e)
{
    uint32_t order, flags, size, config;
    int rc;

    if (!src->head || src->head_length + length > src->head_room) {
        size_t room = src->head_length + length + CHUNK;
        uint8_t *more = realloc(src->head, room);

        if (!more)
            return xlv_fail(e, -ENOMEM, "no memory for the domain's configuration");
        src->head = more;
        src->head_room = room;
    }
    memcpy(src->head + src->head_length, data, length);
    src->head_length += length;
    if (src->head_length < FILE_HEADER)
        return 0;
    memcpy(&order, src->head + 32, 4); /* of this host, as xl writes them */
    memcpy(&flags, src->head + 36, 4);
    memcpy(&size, src->head + 44, 4);
    if (memcmp(src->head, file_magic, sizeof(file_magic)) || order != BYTE_ORDER_VALUE ||
        !(flags & FLAG_JSON) || size < 4 || size > CONFIG_MAX)
        return xlv_fail(e, XLV_E_INVALID, "what comes is not the stream of an xl that we know");
    if (src->head_length < FILE_HEADER + size)
        return 0;
    memcpy(&config, src->head + FILE_HEADER, 4);
    if (config > size - 4)
        return xlv_fail(e, XLV_E_INVALID, "the domain's configuration in xl's stream is cut short");
    rc = read_config(src, (char *)src->head + FILE_HEADER + 4, config, e);
    if (!rc && src->vtpms)
        rc = ask_to_freeze(src, e);
    if (rc)
        return rc;
    src->configured = true;
    src->stored = !src->vtpms; /* nothing is to be waited for */
    rc = src->stored ? to_target(src, src->head, src->head_length, e)
                     : hold_back(src, src->head, src->head_length, e);
    free(src->head);
    src->head = NULL;
    return rc;
}

/* xl gives way: from here on the target's host has the TPMs, and then the domain. */
static int commit(struct source *src, struct xlv_error *e)
{
    int rc = 0;

    for (size_t i = 0; i < src->s.count && !rc; i++)
        rc = xlv_move_depart(&src->s.moves[i], e);
    if (rc)
        return rc;
    src->committed = true;
    rc = xlv_move_say(&src->s.peer, XLV_MOVE_COMMIT, src->permission, src->permission_length, e);
    return rc ? rc : xlv_move_expect(&src->s.peer, XLV_MOVE_HELD, e);
}

static int take_permission(struct source *src, const uint8_t *data, size_t length,
                           struct xlv_error *e)
{
    if (src->committed || length > sizeof(go) - src->permission_length)
        return xlv_fail(e, XLV_E_INVALID, "xl says more than that the domain may go");
    memcpy(src->permission + src->permission_length, data, length);
    src->permission_length += length;
    if (src->permission_length < sizeof(go))
        return 0;
    if (memcmp(src->permission, go, sizeof(go)))
        return xlv_fail(e, XLV_E_INVALID, "xl says something else than that the domain may go");
    return commit(src, e);
}

static int from_xl(struct source *src, const uint8_t *data, size_t length, struct xlv_error *e)
{
    if (!src->configured)
        return take_head(src, data, length, e);
    if (!src->stored)
        return hold_back(src, data, length, e);
    if (src->s.count && src->s.said >= SAID_READY)
        return take_permission(src, data, length, e);
    return to_target(src, data, length, e);
}

/* The domain is suspended and its TPMs stand still: they are handed over up to the last step. */
static int hand_over(struct source *src, struct json_object *frozen, struct xlv_error *e)
{
    struct json_object *domid = NULL, *mark = NULL, *vtpms = NULL;
    size_t count;
    int rc = 0;

    if (!json_object_object_get_ex(frozen, "domid", &domid) ||
        !json_object_object_get_ex(frozen, "mark", &mark) ||
        !json_object_object_get_ex(frozen, "vtpms", &vtpms) ||
        !json_object_is_type(vtpms, json_type_array))
        return xlv_fail(e, XLV_E_INVALID, "the daemon's answer is not one we understand");
    count = json_object_array_length(vtpms);
    if (count != src->vtpms)
        return xlv_fail(e, XLV_E_REFUSED, "domain %s has %zu vTPMs, but %zu are served by this "
                        "host's xl-vtpmd; those of a driver domain, or without a TPM, cannot go "
                        "along", src->domain, src->vtpms, count);
    for (size_t i = 0; i < count && !rc; i++) {
        struct json_object *one = json_object_array_get_idx(vtpms, i), *uuid = NULL, *devid = NULL;
        struct xlv_uuid parsed;
        struct xlv_move *m;
        bool held;

        if (!json_object_object_get_ex(one, "uuid", &uuid) ||
            !json_object_object_get_ex(one, "devid", &devid) ||
            !json_object_is_type(uuid, json_type_string) ||
            xlv_uuid_parse(&parsed, json_object_get_string(uuid)))
            return xlv_fail(e, XLV_E_INVALID, "the daemon's answer is not one we understand");
        rc = add_move(&src->s, &m, e);
        if (!rc)
            rc = xlv_move_take_up(m, &parsed, true, e);
        if (rc)
            break;
        m->offer.suspended = (struct xlv_suspended){
            .at_s = 1,
            .domid = (uint32_t)json_object_get_int64(domid),
            .mark = json_object_get_int64(mark),
        };
        strcpy(m->offer.suspended.domain_uuid, src->domain_uuid);
        strcpy(m->offer.domain, src->domain);
        m->offer.devid = (uint32_t)json_object_get_int64(devid);
        rc = xlv_move_offer(m, &src->s.peer, src->host, &held, e);
        /* within one host the daemon hands over, from one domain to the other */
        if (!rc && m->same)
            xlv_move_close_store(m);
    }
    return rc;
}

static int on_frozen(struct source *src, struct xlv_error *e)
{
    struct json_object *result;
    int rc = xlv_client_answer(src->daemon, &result, e);

    if (!rc)
        rc = hand_over(src, result, e);
    json_object_put(result);
    src->frozen = src->stored = !rc;
    if (rc)
        return rc;
    rc = to_target(src, src->tail, src->tail_length, e);
    src->tail_length = 0;
    return rc;
}

static int on_data(const uint8_t *data, size_t length, void *opaque, struct xlv_error *e)
{
    struct source *src = opaque;

    follow(&src->s, data, length);
    return xlv_move_write(src->s.to_xl, data, length, "xl", e);
}

/* The domain did not start there, and its TPMs are ours again, before xl hears of it. */
static int take_back(struct source *src, struct xlv_error *e)
{
    int rc = 0;

    if (!src->committed)
        return xlv_fail(e, XLV_E_INVALID, "the other host returns what it was not given");
    for (size_t i = 0; i < src->s.count && !rc; i++) {
        struct xlv_move *m = &src->s.moves[i];

        if (m->same)
            continue;
        rc = xlv_registry_move(m->registry, m->instance.number, m->offer.token,
                               XLV_HANDOVER_DEPARTED, XLV_HANDOVER_HELD, e);
        m->departed = rc != 0;
    }
    src->committed = rc != 0;
    return rc;
}

/* One message of the target. XLV_E_GONE: it has hung up. */
static int on_message(struct source *src, struct xlv_error *e)
{
    enum xlv_move_type type;
    uint8_t *data;
    size_t length;
    int rc = xlv_move_hear(&src->s.peer, &type, &data, &length, e);

    if (!rc && type == XLV_MOVE_DATA)
        rc = on_data(data, length, src, e);
    else if (!rc && type == XLV_MOVE_RETURN)
        rc = take_back(src, e);
    else if (!rc)
        rc = xlv_fail(e, XLV_E_INVALID, "the other host says message %d at the wrong time",
                      (int)type);
    xlv_move_wipe(data, length);
    return rc;
}

static int send_loop(struct source *src, struct xlv_error *e)
{
    static uint8_t chunk[CHUNK];
    bool xl_there = true, target_there = true;
    int rc = 0;

    /* until xl hangs up: it has then destroyed the domain, or is about to resume it */
    while (!rc && xl_there) {
        struct pollfd p[3] = {
            { .fd = src->s.from_xl, .events = POLLIN },
            { .fd = target_there ? src->s.peer.in : -1, .events = POLLIN },
            { .fd = src->daemon && !src->frozen ? xlv_client_fd(src->daemon) : -1,
              .events = POLLIN },
        };
        ssize_t n;

        if (poll(p, 3, -1) < 0) {
            if (errno == EINTR)
                continue;
            return xlv_fail(e, -errno, "poll failed: %s", strerror(errno));
        }
        if (p[2].revents)
            rc = on_frozen(src, e);
        if (!rc && p[1].revents) {
            rc = on_message(src, e);
            /* after its report that is how it ends */
            if (rc == XLV_E_GONE && src->s.said >= SAID_REPORT) {
                xlv_error_clear(e);
                target_there = false;
                /* where xl waits for a word more, as after a report of failure, it shall not
                 * wait for ever */
                xlv_close(&src->s.to_xl);
                rc = 0;
            }
        }
        if (!rc && p[0].revents) {
            n = read_some(src->s.from_xl, chunk, sizeof(chunk));
            xl_there = n > 0;
            if (n < 0)
                rc = xlv_fail(e, -errno, "cannot read from xl: %s", strerror(errno));
            else if (n)
                rc = from_xl(src, chunk, (size_t)n, e);
        }
    }
    if (!rc && src->s.said < SAID_REPORT)
        rc = xlv_fail(e, XLV_E_GONE, "xl ended before the migration was complete");
    return rc;
}

int xlv_migrate_send(const struct xlv_settings *settings, const char *host, int from, int to,
                     int in, int out, struct xlv_error *e)
{
    struct source src = {
        .s = {
            .settings = settings,
            .peer = { .in = in, .out = out, .data = on_data, .opaque = &src },
            .from_xl = from,
            .to_xl = to,
        },
        .host = host,
    };
    bool given = false;
    int rc = send_loop(&src, e);

    for (size_t i = 0; rc && i < src.s.count; i++) {
        xlv_move_call_off(&src.s.moves[i]);
        given = given || src.s.moves[i].departed;
    }
    if (rc && !given && rc == XLV_E_GONE)
        rc = XLV_E_REFUSED;
    /* the locks, then the freeze */
    side_deinit(&src.s);
    xlv_client_free(src.daemon);
    free(src.head);
    return given ? XLV_E_GONE : rc;
}

/* --- the target --- */

struct target {
    struct side s;
    int *to_xl;
    bool held;
};

static int to_target_xl(const uint8_t *data, size_t length, void *opaque, struct xlv_error *e)
{
    struct target *t = opaque;

    return *t->to_xl < 0 ? 0 : xlv_move_write(*t->to_xl, data, length, "xl migrate-receive", e);
}

static int on_offer(struct target *t, const uint8_t *data, size_t length, struct xlv_error *e)
{
    struct xlv_move *m;
    bool held;
    int rc = add_move(&t->s, &m, e);

    if (!rc)
        rc = xlv_move_accept(m, &t->s.peer, data, length, &held, e);
    return rc;
}

/* The daemon may serve them from here on, and xl start the domain. */
static int on_commit(struct target *t, const uint8_t *data, size_t length, struct xlv_error *e)
{
    int rc = 0;

    if (t->held)
        return xlv_fail(e, XLV_E_INVALID, "the other host commits twice");
    for (size_t i = 0; i < t->s.count && !rc; i++) {
        rc = xlv_move_hold(&t->s.moves[i], e);
        if (!rc)
            xlv_move_close_store(&t->s.moves[i]);
    }
    if (rc)
        return rc;
    t->held = true;
    rc = to_target_xl(data, length, t, e);
    return rc ? rc : xlv_move_say(&t->s.peer, XLV_MOVE_HELD, NULL, 0, e);
}

/* The store, once the daemon has let go of what it had begun for the domain that did not start:
 * its process ends when the device goes, which on a slow host takes a moment. */
static int open_when_let_go(struct xlv_move *m, struct xlv_error *e)
{
    int rc = xlv_move_open_store(m, false, e);

    for (unsigned i = 0; rc == XLV_E_IN_USE && i < LET_GO_MS / LET_GO_STEP_MS; i++) {
        const struct timespec step = { .tv_nsec = LET_GO_STEP_MS * 1000000l };

        (void)nanosleep(&step, NULL);
        xlv_error_clear(e);
        xlv_move_close_store(m);
        rc = xlv_move_open_store(m, false, e);
    }
    return rc;
}

/* The domain was destroyed before it ran: what was held is given back, if nobody has used it. */
static int give_back(struct target *t, struct xlv_error *e)
{
    int rc = 0;

    for (size_t i = 0; i < t->s.count && !rc; i++) {
        struct xlv_move *m = &t->s.moves[i];
        struct xlv_instance now;

        if (m->same)
            continue;
        rc = open_when_let_go(m, e);
        if (!rc)
            rc = xlv_registry_get_number(m->registry, m->instance.number, &now, e);
        if (!rc && !now.suspended.at_s)
            rc = xlv_fail(e, XLV_E_CONFLICT, "its TPM has been used here already");
        if (!rc)
            rc = xlv_registry_move(m->registry, m->instance.number, m->offer.token,
                                   XLV_HANDOVER_HELD, XLV_HANDOVER_DEPARTED, e);
        if (!rc && m->offer.shared)
            xlv_move_close_store(m); /* it is the other host's to lock again */
    }
    if (!rc)
        rc = xlv_move_say(&t->s.peer, XLV_MOVE_RETURN, NULL, 0, e);
    t->held = rc != 0;
    return rc;
}

/* What the target's xl says; its word that the source may resume comes after the return. */
static int from_target_xl(struct target *t, const uint8_t *data, size_t length,
                          struct xlv_error *e)
{
    size_t now = length;
    int rc = 0;

    while (!rc && length) {
        if (t->s.said < SAID_REPORT && now > SAID_REPORT - t->s.said)
            now = SAID_REPORT - t->s.said;
        else if (t->s.said >= SAID_REPORT && t->s.failed && t->held)
            rc = give_back(t, e);
        if (rc)
            break;
        follow(&t->s, data, now);
        rc = xlv_move_say(&t->s.peer, XLV_MOVE_DATA, data, now, e);
        data += now;
        length -= now;
        now = length;
    }
    return rc;
}

static int on_source(struct target *t, struct xlv_error *e)
{
    enum xlv_move_type type;
    uint8_t *data;
    size_t length;
    int rc = xlv_move_hear(&t->s.peer, &type, &data, &length, e);

    if (!rc)
        switch (type) {
        case XLV_MOVE_DATA:
            rc = to_target_xl(data, length, t, e);
            break;
        case XLV_MOVE_OFFER:
            rc = on_offer(t, data, length, e);
            break;
        case XLV_MOVE_COMMIT:
            rc = on_commit(t, data, length, e);
            break;
        default:
            rc = xlv_fail(e, XLV_E_INVALID, "the other host says message %d at the wrong time",
                          (int)type);
        }
    xlv_move_wipe(data, length);
    return rc;
}

static int receive_loop(struct target *t, struct xlv_error *e)
{
    static uint8_t chunk[CHUNK];
    bool source_there = true;
    int rc = 0;

    /* until xl has said all it has to say */
    for (;;) {
        struct pollfd p[2] = {
            { .fd = t->s.from_xl, .events = POLLIN },
            { .fd = source_there ? t->s.peer.in : -1, .events = POLLIN },
        };
        ssize_t n;

        if (poll(p, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return xlv_fail(e, -errno, "poll failed: %s", strerror(errno));
        }
        if (p[1].revents) {
            rc = on_source(t, e);
            if (rc) {
                /* xl clears away what it has: it ends when it sees the end of its stream */
                if (rc != XLV_E_GONE) {
                    const char *why = e->text[0] ? e->text : xlv_strerror(rc);

                    (void)xlv_move_say(&t->s.peer, XLV_MOVE_REFUSED, (const uint8_t *)why,
                                       strlen(why), NULL);
                }
                source_there = false;
                xlv_close(t->to_xl);
                if (!t->held)
                    side_deinit(&t->s);
            }
        }
        if (p[0].revents) {
            int r = 0;

            n = read_some(t->s.from_xl, chunk, sizeof(chunk));
            if (n <= 0)
                return rc;
            r = source_there ? from_target_xl(t, chunk, (size_t)n, e) : 0;
            if (r) {
                rc = r;
                source_there = false;
                xlv_close(t->to_xl);
            }
        }
    }
}

int xlv_migrate_receive(const struct xlv_settings *settings, int from, int *to_xl, int in, int out,
                        struct xlv_error *e)
{
    struct target t = {
        .s = {
            .settings = settings,
            .peer = { .in = in, .out = out, .data = to_target_xl, .opaque = &t },
            .from_xl = from,
        },
        .to_xl = to_xl,
    };
    int rc = receive_loop(&t, e);

    if (rc == XLV_E_GONE && t.s.said >= SAID_REPORT) {
        xlv_error_clear(e);
        rc = 0;
    }
    side_deinit(&t.s);
    return rc;
}
