/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Handing an instance over: see move.h. */
#include "config.h"

#include "libxl-vtpm/move.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend/store.h"
#include "common/bytes.h"
#include "common/fd.h"
#include "libxl-vtpm/keys.h"
#include "libxl-vtpm/registry.h"

#define PROTOCOL 1u
#define HEADER 12u
#define WAIT_MS (60 * 1000)
/* uuid, version, again, token, suspended: flag, domid, mark, domain uuid, name of the giver */
#define OFFER_SIZE (16u + 4 + 4 + XLV_UUID_TEXT + 4 + 4 + 8 + XLV_UUID_TEXT + XLV_HANDOVER_PEER_MAX + 1)

enum type { OFFER = 1, ACCEPT, STATE, STORED, COMMIT, HELD, REFUSED };

static const uint8_t magic[4] = { 'X', 'V', 'M', 'V' };

struct offer {
    struct xlv_uuid uuid;
    enum xlv_tpm_version version;
    bool again; /* it is given away already: only to finish what was begun with this token */
    char token[XLV_UUID_TEXT], giver[XLV_HANDOVER_PEER_MAX + 1];
    struct xlv_suspended suspended;
};

/* What both sides work with. */
struct move {
    const struct xlv_settings *settings;
    struct xlv_registry *registry;
    struct xlv_keys *keys;
    struct xlv_instance instance;
    struct xlv_store *store;
    int slots[2], in, out;
    uint8_t *data;
    size_t length;
};

static int say(struct move *m, enum type type, const uint8_t *data, size_t length,
               struct xlv_error *e)
{
    uint8_t header[HEADER];
    struct xlv_bytes w = xlv_bytes_writer(header, sizeof(header));
    int rc;

    xlv_put_data(&w, magic, sizeof(magic));
    xlv_put_u16(&w, PROTOCOL);
    xlv_put_u16(&w, (uint16_t)type);
    xlv_put_u32(&w, (uint32_t)length);
    for (int part = 0; part < 2; part++) {
        const uint8_t *p = part ? data : header;
        size_t left = part ? length : sizeof(header);

        while (left) {
            ssize_t n = write(m->out, p, left);

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0) {
                rc = n ? -errno : -EIO;
                return xlv_fail(e, rc, "cannot write to the other host: %s", xlv_strerror(rc));
            }
            p += n;
            left -= (size_t)n;
        }
    }
    return 0;
}

static int read_exactly(struct move *m, uint8_t *data, size_t length, struct xlv_error *e)
{
    while (length) {
        struct pollfd p = { .fd = m->in, .events = POLLIN };
        int ready = poll(&p, 1, WAIT_MS);
        ssize_t n;

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return xlv_fail(e, -ETIMEDOUT, "the other host does not answer");
        n = read(m->in, data, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return xlv_fail(e, n ? -errno : XLV_E_GONE, "the connection to the other host ended");
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

/* The next message; *data is the caller's, NULL where it is empty. REFUSED is XLV_E_REFUSED with
 * the other side's sentence. */
static int hear(struct move *m, enum type *type, uint8_t **data, size_t *length,
                struct xlv_error *e)
{
    uint8_t header[HEADER] = { 0 }, *body = NULL;
    struct xlv_bytes r = xlv_bytes_reader(header, sizeof(header));
    unsigned version;
    uint32_t size;
    int rc = read_exactly(m, header, sizeof(header), e);

    *data = NULL;
    *length = 0;
    if (rc)
        return rc;
    if (memcmp(xlv_get_view(&r, sizeof(magic)), magic, sizeof(magic)))
        return xlv_fail(e, XLV_E_INVALID, "the other side does not speak our protocol; does its "
                        "login print something?");
    version = xlv_get_u16(&r);
    *type = (enum type)xlv_get_u16(&r);
    size = xlv_get_u32(&r);
    if (version != PROTOCOL)
        return xlv_fail(e, XLV_E_VERSION, "the other host speaks version %u of the protocol, this "
                        "one version %u", version, PROTOCOL);
    if (size > XLV_PERMANENT_MAX)
        return xlv_fail(e, XLV_E_INVALID, "a message of %" PRIu32 " bytes is too long", size);
    if (size) {
        body = malloc(size + 1u);
        if (!body)
            return xlv_fail(e, -ENOMEM, "no memory for a message");
        rc = read_exactly(m, body, size, e);
        body[size] = '\0';
    }
    if (!rc && *type == REFUSED)
        rc = xlv_fail(e, XLV_E_REFUSED, "the other host refuses: %.400s",
                      body ? (char *)body : "no reason given");
    if (rc) {
        if (body)
            OPENSSL_cleanse(body, size);
        free(body);
        return rc;
    }
    *data = body;
    *length = size;
    return 0;
}

/* The next message, which is this one and empty. */
static int expect(struct move *m, enum type wanted, struct xlv_error *e)
{
    enum type type;
    uint8_t *data;
    size_t length;
    int rc = hear(m, &type, &data, &length, e);

    free(data);
    if (!rc && (type != wanted || length))
        rc = xlv_fail(e, XLV_E_INVALID, "the other host said message %d instead of %d", (int)type,
                      (int)wanted);
    return rc;
}

static int put_offer(struct move *m, const struct offer *o, struct xlv_error *e)
{
    uint8_t bytes[OFFER_SIZE];
    struct xlv_bytes w = xlv_bytes_writer(bytes, sizeof(bytes));

    xlv_put_data(&w, o->uuid.b, sizeof(o->uuid.b));
    xlv_put_u32(&w, o->version);
    xlv_put_u32(&w, o->again);
    xlv_put_data(&w, (const uint8_t *)o->token, sizeof(o->token));
    xlv_put_u32(&w, o->suspended.at_s != 0);
    xlv_put_u32(&w, o->suspended.domid);
    xlv_put_u64(&w, (uint64_t)o->suspended.mark);
    xlv_put_data(&w, (const uint8_t *)o->suspended.domain_uuid, sizeof(o->suspended.domain_uuid));
    xlv_put_data(&w, (const uint8_t *)o->giver, sizeof(o->giver));
    return say(m, OFFER, bytes, sizeof(bytes), e);
}

static int get_offer(struct move *m, struct offer *o, struct xlv_error *e)
{
    struct xlv_uuid uuid;
    struct xlv_bytes r;
    enum type type;
    uint8_t *data;
    size_t length;
    uint32_t again, suspended;
    int rc = hear(m, &type, &data, &length, e);

    if (rc)
        return rc;
    *o = (struct offer){ .version = XLV_TPM_2_0 };
    r = xlv_bytes_reader(data, length);
    xlv_get_data(&r, o->uuid.b, sizeof(o->uuid.b));
    o->version = (enum xlv_tpm_version)xlv_get_u32(&r);
    again = xlv_get_u32(&r);
    o->again = again;
    xlv_get_data(&r, (uint8_t *)o->token, sizeof(o->token));
    suspended = xlv_get_u32(&r);
    o->suspended.at_s = suspended;
    o->suspended.domid = xlv_get_u32(&r);
    o->suspended.mark = (int64_t)xlv_get_u64(&r);
    xlv_get_data(&r, (uint8_t *)o->suspended.domain_uuid, sizeof(o->suspended.domain_uuid));
    xlv_get_data(&r, (uint8_t *)o->giver, sizeof(o->giver));
    if (type != OFFER || length != OFFER_SIZE || !xlv_bytes_ok(&r) ||
        (o->version != XLV_TPM_1_2 && o->version != XLV_TPM_2_0) ||
        o->token[sizeof(o->token) - 1] || o->giver[sizeof(o->giver) - 1] || suspended > 1 || again > 1 ||
        o->suspended.domain_uuid[sizeof(o->suspended.domain_uuid) - 1] ||
        o->suspended.domid > XLV_DOMID_MAX || o->suspended.mark < -1 ||
        (o->suspended.domain_uuid[0] && xlv_uuid_parse(&uuid, o->suspended.domain_uuid)))
        rc = xlv_fail(e, XLV_E_INVALID, "the offer of the other host is none");
    free(data);
    return rc;
}

static void deinit(struct move *m)
{
    if (m->data)
        OPENSSL_cleanse(m->data, m->length);
    free(m->data);
    xlv_store_free(m->store);
    /* the lock goes last, with everything written down */
    xlv_keys_free(m->keys);
    xlv_registry_close(m->registry);
    xlv_close(&m->slots[0]);
    xlv_close(&m->slots[1]);
}

static int has_tpm(const struct xlv_instance *instance, void *opaque)
{
    (void)opaque;
    return instance->life != XLV_LIFE_NEW;
}

static int init(struct move *m, const struct xlv_settings *settings, int in, int out,
                struct xlv_error *e)
{
    int rc;

    *m = (struct move){ .settings = settings, .slots = { -1, -1 }, .in = in, .out = out };
    rc = xlv_registry_open(&m->registry, settings->state_dir, false, e);
    if (rc == XLV_E_NOT_FOUND) {
        xlv_error_clear(e);
        return xlv_fail(e, rc, "there is no registry in %s: start xl-vtpmd there once",
                        settings->state_dir);
    }
    if (!rc)
        rc = xlv_keys_new(&m->keys, settings->key_provider, settings->key_source, false, e);
    if (rc == XLV_E_NOT_FOUND && !xlv_registry_each(m->registry, has_tpm, NULL, NULL)) {
        xlv_error_clear(e);
        xlv_fail(e, rc, "this host has no master key yet: start xl-vtpmd there once, which makes "
                 "one");
    }
    return rc;
}

/* Locks the store of m->instance and loads it: m->data, or XLV_E_EMPTY. */
static int open_store(struct move *m, bool create, struct xlv_error *e)
{
    int dirfd XLV_CLOSE = -1, rc;
    uint8_t key[XLV_KEY_SIZE];
    uint64_t generation;

    rc = xlv_registry_directory(m->registry, &m->instance, &dirfd, e);
    if (!rc && create)
        rc = xlv_store_create(dirfd, e);
    if (!rc)
        rc = xlv_store_open(dirfd, m->slots, e);
    if (rc)
        return rc;
    if (flock(m->slots[0], LOCK_EX | LOCK_NB))
        return xlv_fail(e, errno == EWOULDBLOCK ? XLV_E_IN_USE : -errno,
                        "instance %" PRIu64 " is in use: shut its domain down first",
                        m->instance.number);
    rc = xlv_keys_of_store(m->keys, &m->instance.uuid, m->slots, key, NULL, e);
    if (!rc)
        rc = xlv_store_new(&m->store, m->slots, &m->instance.uuid, key, e);
    OPENSSL_cleanse(key, sizeof(key));
    return rc ? rc : xlv_store_load(m->store, &m->data, &m->length, &generation, e);
}

static void journal_path(const struct move *m, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/journal/%" PRIu64, m->settings->run_dir, m->instance.number);
}

static int give(struct move *m, const struct xlv_uuid *uuid, const char *peer,
                struct xlv_error *e)
{
    struct offer offer = { .uuid = *uuid };
    char path[PATH_MAX];
    struct stat st;
    struct xlv_uuid token;
    struct xlv_error ignored = XLV_ERROR_INIT;
    enum type type;
    uint8_t *data = NULL;
    size_t length;
    bool departed;
    int rc = xlv_registry_get(m->registry, uuid, &m->instance, e);

    if (rc)
        return rc;
    if (m->instance.handover == XLV_HANDOVER_ARRIVING)
        return xlv_fail(e, XLV_E_REFUSED, "this host does not have the instance: it is arriving "
                        "from %s", m->instance.handover_peer);
    if (m->instance.life != XLV_LIFE_READY)
        return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is %s: only one that is ready can "
                        "be handed over", m->instance.number, xlv_life_name(m->instance.life));
    rc = open_store(m, false, e);
    if (rc)
        return rc;
    /* with the lock held: what is read now stands still */
    rc = xlv_registry_get(m->registry, uuid, &m->instance, e);
    journal_path(m, path);
    if (!rc && !stat(path, &st) && st.st_size && m->instance.handover != XLV_HANDOVER_DEPARTED)
        rc = xlv_fail(e, XLV_E_IN_USE, "the last boot of its domain did not end in order: start "
                      "the domain once and shut it down");
    if (rc)
        return rc;
    /* an offer that nobody makes any more */
    if (m->instance.handover == XLV_HANDOVER_DEPARTING)
        rc = xlv_registry_move(m->registry, m->instance.number, m->instance.handover_token,
                               XLV_HANDOVER_DEPARTING, XLV_HANDOVER_HELD, e);
    departed = offer.again = m->instance.handover == XLV_HANDOVER_DEPARTED;
    if (departed) {
        snprintf(offer.token, sizeof(offer.token), "%s", m->instance.handover_token);
    } else if (!rc) {
        xlv_uuid_generate(&token);
        xlv_uuid_format(&token, offer.token);
        rc = xlv_registry_offer(m->registry, m->instance.number, offer.token, peer, e);
    }
    if (rc)
        return rc;
    offer.version = m->instance.tpm_version;
    offer.suspended = m->instance.suspended;
    if (gethostname(offer.giver, sizeof(offer.giver) - 1))
        snprintf(offer.giver, sizeof(offer.giver), "?");

    rc = put_offer(m, &offer, e);
    if (!rc)
        rc = hear(m, &type, &data, &length, e);
    free(data);
    if (!rc && type == HELD && departed)
        return 0; /* it had come through */
    if (rc == XLV_E_REFUSED && departed)
        return rc; /* it is where it was, which is not here */
    if (!rc && (type != ACCEPT || length))
        rc = xlv_fail(e, XLV_E_INVALID, "the other host answers the offer with message %d",
                      (int)type);
    if (!rc)
        rc = say(m, STATE, m->data, m->length, e);
    if (!rc)
        rc = expect(m, STORED, e);
    if (!rc && !departed) {
        rc = xlv_registry_move(m->registry, m->instance.number, offer.token,
                               XLV_HANDOVER_DEPARTING, XLV_HANDOVER_DEPARTED, e);
        /* whether a commit that failed is durable cannot be known: what the file says counts */
        if (!rc || (!xlv_registry_get(m->registry, uuid, &m->instance, &ignored) &&
                    m->instance.handover == XLV_HANDOVER_DEPARTED)) {
            departed = true;
        }
    }
    if (rc && !departed) {
        /* called off; should this fail, the next who wants the instance does it */
        (void)xlv_registry_move(m->registry, m->instance.number, offer.token,
                                XLV_HANDOVER_DEPARTING, XLV_HANDOVER_HELD, &ignored);
        return rc;
    }
    if (!rc)
        rc = say(m, COMMIT, NULL, 0, e);
    if (!rc)
        rc = expect(m, HELD, e);
    return rc ? XLV_E_GONE : 0;
}

static int take(struct move *m, struct xlv_error *e)
{
    struct offer offer;
    char path[PATH_MAX];
    enum type type;
    uint8_t *state = NULL;
    size_t length = 0;
    uint64_t generation, number;
    int rc = get_offer(m, &offer, e);

    if (rc)
        return rc;
    rc = xlv_registry_get(m->registry, &offer.uuid, &m->instance, e);
    if (!rc && m->instance.handover == XLV_HANDOVER_HELD &&
        !strcmp(m->instance.handover_token, offer.token))
        return say(m, HELD, NULL, 0, e);
    if (rc && rc != XLV_E_NOT_FOUND)
        return rc;
    xlv_error_clear(e);
    rc = xlv_registry_expect(m->registry, &offer.uuid, offer.version, offer.again, offer.token,
                             offer.giver, &m->instance, e);
    number = m->instance.number;
    if (!rc) {
        rc = open_store(m, true, e);
        if (rc == XLV_E_EMPTY) {
            xlv_error_clear(e);
            rc = 0;
        }
    }
    if (!rc)
        rc = say(m, ACCEPT, NULL, 0, e);
    if (!rc)
        rc = hear(m, &type, &state, &length, e);
    if (!rc && (type != STATE || !length))
        rc = xlv_fail(e, XLV_E_INVALID, "the other host said message %d instead of the state",
                      (int)type);
    if (!rc)
        rc = xlv_store_commit(m->store, state, length, &generation, e);
    if (state)
        OPENSSL_cleanse(state, length);
    free(state);
    if (rc)
        return rc;
    /* of a boot here, before it left */
    journal_path(m, path);
    if (unlink(path) && errno != ENOENT)
        return xlv_fail(e, -errno, "cannot remove the old journal %s: %s", path, strerror(errno));
    rc = xlv_registry_set_life(m->registry, number, XLV_LIFE_READY, e);
    if (!rc && offer.suspended.at_s)
        rc = xlv_registry_suspended(m->registry, number, &offer.suspended, e);
    if (!rc)
        rc = say(m, STORED, NULL, 0, e);
    if (!rc)
        rc = expect(m, COMMIT, e);
    if (!rc)
        rc = xlv_registry_move(m->registry, number, offer.token, XLV_HANDOVER_ARRIVING,
                               XLV_HANDOVER_HELD, e);
    return rc ? rc : say(m, HELD, NULL, 0, e);
}

int xlv_move_give(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                  const char *peer, int in, int out, struct xlv_error *e)
{
    struct move m;
    int rc = init(&m, settings, in, out, e);

    if (!rc)
        rc = give(&m, uuid, peer, e);
    deinit(&m);
    return rc;
}

int xlv_move_take(const struct xlv_settings *settings, int in, int out, struct xlv_error *e)
{
    struct move m;
    int rc = init(&m, settings, in, out, e);

    if (!rc)
        rc = take(&m, e);
    /* before HELD was said, the giver can still be told why */
    if (rc) {
        const char *why = e->text[0] ? e->text : xlv_strerror(rc);
        struct xlv_error ignored = XLV_ERROR_INIT;

        (void)say(&m, REFUSED, (const uint8_t *)why, strlen(why), &ignored);
    }
    deinit(&m);
    return rc;
}

int xlv_move_resume_here(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                         struct xlv_error *e)
{
    struct move m;
    int rc = init(&m, settings, -1, -1, e);

    if (!rc)
        rc = xlv_registry_get(m.registry, uuid, &m.instance, e);
    if (!rc && m.instance.handover == XLV_HANDOVER_HELD)
        rc = xlv_fail(e, XLV_E_INVALID, "this host has instance %" PRIu64 " already",
                      m.instance.number);
    if (!rc)
        rc = open_store(&m, false, e);
    if (!rc)
        rc = xlv_registry_get(m.registry, uuid, &m.instance, e);
    /* an arrival's older state of an earlier stay here is not what was offered */
    if (!rc && m.instance.handover == XLV_HANDOVER_ARRIVING && m.instance.life != XLV_LIFE_READY)
        rc = xlv_fail(e, XLV_E_REFUSED, "its state has not arrived");
    if (!rc)
        rc = xlv_registry_move(m.registry, m.instance.number, m.instance.handover_token,
                               m.instance.handover, XLV_HANDOVER_HELD, e);
    deinit(&m);
    return rc;
}
