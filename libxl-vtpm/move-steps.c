/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages and steps of a handover: see move-steps.h. */
#include "config.h"

#include "libxl-vtpm/move-steps.h"

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
#include <openssl/evp.h>

#include "backend/journal.h"
#include "backend/store.h"
#include "common/bytes.h"
#include "common/fd.h"
#include "libxl-vtpm/keys.h"

#define PROTOCOL 1u
#define HEADER 12u
#define WAIT_MS (60 * 1000)
/* uuid, version, again, token, suspended: flag, domid, mark, domain uuid; name of the giver; domain,
 * devid; shared */
#define OFFER_SIZE (16u + 4 + 4 + XLV_UUID_TEXT + 4 + 4 + 8 + XLV_UUID_TEXT + \
                    XLV_HANDOVER_PEER_MAX + 1 + XLV_DOMAIN_NAME_MAX + 1 + 4 + 4)
#define DIGEST 32u /* SHA-256, in the place of a state on shared storage */

static const uint8_t magic[4] = { 'X', 'V', 'M', 'V' };

/* --- messages --- */

int xlv_move_write(int fd, const uint8_t *data, size_t length, const char *whom,
                   struct xlv_error *e)
{
    while (length) {
        ssize_t n = write(fd, data, length);
        int rc;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = n ? -errno : -EIO;
            return xlv_fail(e, rc, "cannot write to %s: %s", whom, xlv_strerror(rc));
        }
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

/* A host that refuses may have hung up before it is spoken to: its reason is what failed then, not
 * the write. */
static int heard_of_it(struct xlv_move_peer *peer, int rc, struct xlv_error *e)
{
    struct xlv_error why = XLV_ERROR_INIT;
    enum xlv_move_type type;
    uint8_t *data;
    size_t length;
    int said;

    do {
        said = xlv_move_hear(peer, &type, &data, &length, &why);
        xlv_move_wipe(data, length);
    } while (!said);
    if (said != XLV_E_REFUSED)
        return rc;
    if (e)
        *e = why;
    return said;
}

int xlv_move_say(struct xlv_move_peer *peer, enum xlv_move_type type, const uint8_t *data,
                 size_t length, struct xlv_error *e)
{
    uint8_t header[HEADER];
    struct xlv_bytes w = xlv_bytes_writer(header, sizeof(header));
    int rc;

    xlv_put_data(&w, magic, sizeof(magic));
    xlv_put_u16(&w, PROTOCOL);
    xlv_put_u16(&w, (uint16_t)type);
    xlv_put_u32(&w, (uint32_t)length);
    rc = xlv_move_write(peer->out, header, sizeof(header), "the other host", e);
    if (!rc)
        rc = xlv_move_write(peer->out, data, length, "the other host", e);
    return rc == -EPIPE && type != XLV_MOVE_REFUSED ? heard_of_it(peer, rc, e) : rc;
}

static int read_exactly(struct xlv_move_peer *peer, uint8_t *data, size_t length,
                        struct xlv_error *e)
{
    while (length) {
        struct pollfd p = { .fd = peer->in, .events = POLLIN };
        int ready = poll(&p, 1, WAIT_MS);
        ssize_t n;

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return xlv_fail(e, -ETIMEDOUT, "the other host does not answer");
        n = read(peer->in, data, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return xlv_fail(e, n ? -errno : XLV_E_GONE, "the connection to the other host ended");
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

void xlv_move_wipe(uint8_t *data, size_t length)
{
    if (data)
        OPENSSL_cleanse(data, length);
    free(data);
}

int xlv_move_hear(struct xlv_move_peer *peer, enum xlv_move_type *type, uint8_t **data,
                  size_t *length, struct xlv_error *e)
{
    uint8_t header[HEADER] = { 0 }, *body = NULL;
    struct xlv_bytes r = xlv_bytes_reader(header, sizeof(header));
    unsigned version;
    uint32_t size;
    int rc = read_exactly(peer, header, sizeof(header), e);

    *data = NULL;
    *length = 0;
    if (rc)
        return rc;
    if (memcmp(xlv_get_view(&r, sizeof(magic)), magic, sizeof(magic)))
        return xlv_fail(e, XLV_E_INVALID, "the other side does not speak our protocol; does its "
                        "login print something?");
    version = xlv_get_u16(&r);
    *type = (enum xlv_move_type)xlv_get_u16(&r);
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
        rc = read_exactly(peer, body, size, e);
        body[size] = '\0';
    }
    if (!rc && *type == XLV_MOVE_REFUSED)
        rc = xlv_fail(e, XLV_E_REFUSED, "the other host refuses: %.400s",
                      body ? (char *)body : "no reason given");
    if (rc) {
        xlv_move_wipe(body, size);
        return rc;
    }
    *data = body;
    *length = size;
    return 0;
}

/* As hear; DATA that comes before it is passed on. */
static int hear_step(struct xlv_move_peer *peer, enum xlv_move_type *type, uint8_t **data,
                     size_t *length, struct xlv_error *e)
{
    int rc;

    for (;;) {
        rc = xlv_move_hear(peer, type, data, length, e);
        if (rc || *type != XLV_MOVE_DATA || !peer->data)
            return rc;
        rc = peer->data(*data, *length, peer->opaque, e);
        xlv_move_wipe(*data, *length);
        *data = NULL;
        if (rc)
            return rc;
    }
}

int xlv_move_expect(struct xlv_move_peer *peer, enum xlv_move_type wanted, struct xlv_error *e)
{
    enum xlv_move_type type;
    uint8_t *data;
    size_t length;
    int rc = hear_step(peer, &type, &data, &length, e);

    xlv_move_wipe(data, length);
    if (!rc && (type != wanted || length))
        rc = xlv_fail(e, XLV_E_INVALID, "the other host said message %d instead of %d", (int)type,
                      (int)wanted);
    return rc;
}

static int put_offer(struct xlv_move_peer *peer, const struct xlv_offer *o, struct xlv_error *e)
{
    uint8_t bytes[OFFER_SIZE];
    struct xlv_bytes w = xlv_bytes_writer(bytes, sizeof(bytes));

    xlv_put_data(&w, o->uuid.b, sizeof(o->uuid.b));
    xlv_put_u32(&w, o->version);
    xlv_put_u32(&w, o->again);
    xlv_put_data(&w, o->token, sizeof(o->token));
    xlv_put_u32(&w, o->suspended.at_s != 0);
    xlv_put_u32(&w, o->suspended.domid);
    xlv_put_u64(&w, (uint64_t)o->suspended.mark);
    xlv_put_data(&w, o->suspended.domain_uuid, sizeof(o->suspended.domain_uuid));
    xlv_put_data(&w, o->giver, sizeof(o->giver));
    xlv_put_data(&w, o->domain, sizeof(o->domain));
    xlv_put_u32(&w, o->devid);
    xlv_put_u32(&w, o->shared);
    return xlv_move_say(peer, XLV_MOVE_OFFER, bytes, sizeof(bytes), e);
}

static int get_offer(struct xlv_offer *o, const uint8_t *data, size_t length, struct xlv_error *e)
{
    struct xlv_bytes r = xlv_bytes_reader(data, length);
    uint32_t again, suspended, shared;
    struct xlv_uuid uuid;

    *o = (struct xlv_offer){ .version = XLV_TPM_2_0 };
    xlv_get_data(&r, o->uuid.b, sizeof(o->uuid.b));
    o->version = (enum xlv_tpm_version)xlv_get_u32(&r);
    again = xlv_get_u32(&r);
    o->again = again;
    xlv_get_data(&r, o->token, sizeof(o->token));
    suspended = xlv_get_u32(&r);
    o->suspended.at_s = suspended;
    o->suspended.domid = xlv_get_u32(&r);
    o->suspended.mark = (int64_t)xlv_get_u64(&r);
    xlv_get_data(&r, o->suspended.domain_uuid, sizeof(o->suspended.domain_uuid));
    xlv_get_data(&r, o->giver, sizeof(o->giver));
    xlv_get_data(&r, o->domain, sizeof(o->domain));
    o->devid = xlv_get_u32(&r);
    shared = xlv_get_u32(&r);
    o->shared = shared;
    if (length != OFFER_SIZE || !xlv_bytes_ok(&r) ||
        (o->version != XLV_TPM_1_2 && o->version != XLV_TPM_2_0) ||
        o->token[sizeof(o->token) - 1] || o->giver[sizeof(o->giver) - 1] ||
        o->domain[sizeof(o->domain) - 1] || o->devid > XLV_DEVID_MAX || suspended > 1 ||
        again > 1 || shared > 1 || o->suspended.domain_uuid[sizeof(o->suspended.domain_uuid) - 1] ||
        o->suspended.domid > XLV_DOMID_MAX || o->suspended.mark < -1 ||
        (o->suspended.domain_uuid[0] && xlv_uuid_parse(&uuid, o->suspended.domain_uuid)))
        return xlv_fail(e, XLV_E_INVALID, "the offer of the other host is none");
    return 0;
}

/* --- an instance --- */

void xlv_move_close_store(struct xlv_move *m)
{
    xlv_move_wipe(m->data, m->length);
    m->data = NULL;
    m->length = 0;
    xlv_store_free(m->store);
    m->store = NULL;
    xlv_close(&m->slots[0]);
    xlv_close(&m->slots[1]);
}

void xlv_move_deinit(struct xlv_move *m)
{
    /* the lock goes last, with everything written down */
    xlv_keys_free(m->keys);
    xlv_registry_close(m->registry);
    m->keys = NULL;
    m->registry = NULL;
    xlv_move_close_store(m);
    xlv_close(&m->own);
}

int xlv_move_init(struct xlv_move *m, const struct xlv_settings *settings, struct xlv_error *e)
{
    bool any;
    int rc;

    *m = (struct xlv_move){ .settings = settings, .slots = { -1, -1 }, .own = -1 };
    rc = xlv_registry_open(&m->registry, settings->state_dir, false, e);
    if (rc == XLV_E_NOT_FOUND) {
        xlv_error_clear(e);
        return xlv_fail(e, rc, "there is no registry in %s: start xl-vtpmd there once",
                        settings->state_dir);
    }
    if (!rc)
        rc = xlv_keys_new(&m->keys, settings->key_provider, settings->key_source, false, e);
    if (rc == XLV_E_NOT_FOUND && !xlv_registry_any_state(m->registry, &any, NULL) && !any) {
        xlv_error_clear(e);
        xlv_fail(e, rc, "this host has no master key yet: start xl-vtpmd there once, which makes "
                 "one");
    }
    return rc;
}

static int open_store(struct xlv_move *m, bool create, bool lock, struct xlv_error *e)
{
    int dirfd XLV_CLOSE = -1, rc;
    uint64_t generation;

    rc = xlv_registry_directory(m->registry, &m->instance, &dirfd, e);
    if (!rc && create)
        rc = xlv_store_create(dirfd, e);
    if (!rc)
        rc = xlv_store_open(dirfd, m->slots, e);
    if (!rc && lock)
        rc = xlv_keys_lock_store(m->instance.number, m->slots, e);
    if (!rc)
        rc = xlv_keys_open_store(m->keys, &m->instance.uuid, m->slots, &m->store, e);
    return rc ? rc : xlv_store_load(m->store, &m->data, &m->length, &generation, e);
}

int xlv_move_open_store(struct xlv_move *m, bool create, struct xlv_error *e)
{
    return open_store(m, create, true, e);
}

/* What is in a store on shared storage while nobody changes it. */
static int digest_of_shared(struct xlv_move *m, uint8_t digest[DIGEST], struct xlv_error *e)
{
    int rc = m->data ? 0 : open_store(m, false, false, e);

    if (!rc && !EVP_Digest(m->data, m->length, digest, NULL, EVP_sha256(), NULL))
        rc = xlv_fail(e, -ENOMEM, "no digest of a state");
    return rc;
}

/* --- the giver --- */

int xlv_move_take_up(struct xlv_move *m, const struct xlv_uuid *uuid, bool migrates,
                     struct xlv_error *e)
{
    char path[PATH_MAX];
    bool shared;
    int rc = xlv_registry_get(m->registry, uuid, &m->instance, e);

    if (rc)
        return rc;
    if (m->instance.handover == XLV_HANDOVER_ARRIVING)
        return xlv_fail(e, XLV_E_REFUSED, "this host does not have the instance: it is arriving "
                        "from %s", m->instance.handover_peer);
    if (m->instance.life != XLV_LIFE_READY)
        return xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " is %s: only one that is ready can "
                        "be handed over", m->instance.number, xlv_life_name(m->instance.life));
    shared = xlv_instance_shared(&m->instance);
    /* what is on shared storage and given away already is the other host's to lock */
    if (!shared || m->instance.handover != XLV_HANDOVER_DEPARTED)
        rc = xlv_move_open_store(m, false, e);
    if (!rc)
        rc = xlv_registry_own_directory(m->registry, &m->instance, &m->own, e);
    /* the daemon has it for as long as it takes to ask */
    while (!rc && flock(m->own, LOCK_EX))
        if (errno != EINTR)
            rc = xlv_fail(e, -errno, "cannot lock the directory of instance %" PRIu64 ": %s",
                          m->instance.number, strerror(errno));
    if (rc)
        return rc;
    /* with the lock held: what is read now stands still */
    rc = xlv_registry_get(m->registry, uuid, &m->instance, e);
    m->departed = m->instance.handover == XLV_HANDOVER_DEPARTED;
    if (!rc && xlv_instance_shared(&m->instance) != shared)
        rc = xlv_fail(e, XLV_E_IN_USE, "instance %" PRIu64 " is put elsewhere just now",
                      m->instance.number);
    xlv_settings_journal(m->settings, m->instance.number, path);
    if (!rc && !migrates && !m->departed && xlv_journal_has_record(path))
        rc = xlv_fail(e, XLV_E_IN_USE, "the last boot of its domain did not end in order: start "
                      "the domain once and shut it down");
    if (!rc && migrates && m->departed)
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %" PRIu64 " was given to %s already",
                      m->instance.number, m->instance.handover_peer);
    /* an offer that nobody makes any more */
    if (!rc && m->instance.handover == XLV_HANDOVER_DEPARTING)
        rc = xlv_registry_move(m->registry, m->instance.number, m->instance.handover_token,
                               XLV_HANDOVER_DEPARTING, XLV_HANDOVER_HELD, e);
    m->offer = (struct xlv_offer){
        .uuid = *uuid,
        .version = m->instance.tpm_version,
        .again = m->departed,
        .suspended = m->instance.suspended,
        .shared = xlv_instance_shared(&m->instance),
    };
    if (gethostname(m->offer.giver, sizeof(m->offer.giver) - 1))
        snprintf(m->offer.giver, sizeof(m->offer.giver), "?");
    return rc;
}

int xlv_move_offer(struct xlv_move *m, struct xlv_move_peer *peer, const char *name, bool *held,
                   struct xlv_error *e)
{
    uint8_t *data = NULL, digest[DIGEST];
    enum xlv_move_type type;
    struct xlv_uuid token;
    size_t length = 0;
    int rc = 0;

    *held = false;
    if (m->departed) {
        snprintf(m->offer.token, sizeof(m->offer.token), "%s", m->instance.handover_token);
    } else {
        xlv_uuid_generate(&token);
        xlv_uuid_format(&token, m->offer.token);
        rc = xlv_registry_offer(m->registry, m->instance.number, m->offer.token, name, e);
        if (rc)
            m->offer.token[0] = '\0'; /* nothing to call off */
    }
    if (!rc)
        rc = put_offer(peer, &m->offer, e);
    if (!rc)
        rc = hear_step(peer, &type, &data, &length, e);
    xlv_move_wipe(data, length);
    if (rc)
        return rc;
    if (type == XLV_MOVE_HELD && m->departed) {
        *held = true; /* it had come through */
        return 0;
    }
    if (type == XLV_MOVE_SAME) {
        m->same = true;
        return xlv_registry_move(m->registry, m->instance.number, m->offer.token,
                                 XLV_HANDOVER_DEPARTING, XLV_HANDOVER_HELD, e);
    }
    if (type != XLV_MOVE_ACCEPT || length)
        return xlv_fail(e, XLV_E_INVALID, "the other host answers the offer with message %d",
                        (int)type);
    if (m->offer.shared)
        rc = digest_of_shared(m, digest, e);
    if (!rc)
        rc = m->offer.shared
                 ? xlv_move_say(peer, XLV_MOVE_STATE, digest, sizeof(digest), e)
                 : xlv_move_say(peer, XLV_MOVE_STATE, m->data, m->length, e);
    return rc ? rc : xlv_move_expect(peer, XLV_MOVE_STORED, e);
}

int xlv_move_depart(struct xlv_move *m, struct xlv_error *e)
{
    struct xlv_error ignored = XLV_ERROR_INIT;
    int rc;

    if (m->departed || m->same)
        return 0;
    rc = xlv_registry_move(m->registry, m->instance.number, m->offer.token,
                           XLV_HANDOVER_DEPARTING, XLV_HANDOVER_DEPARTED, e);
    /* whether a commit that failed is durable cannot be known: what the file says counts */
    m->departed = !rc || (!xlv_registry_get(m->registry, &m->offer.uuid, &m->instance, &ignored) &&
                          m->instance.handover == XLV_HANDOVER_DEPARTED);
    if (m->departed && m->offer.shared)
        xlv_move_close_store(m); /* it is the other host's to lock */
    return rc;
}

void xlv_move_call_off(struct xlv_move *m)
{
    struct xlv_error ignored = XLV_ERROR_INIT;

    /* should this fail, the next who wants the instance does it */
    if (!m->departed && !m->same && m->offer.token[0])
        (void)xlv_registry_move(m->registry, m->instance.number, m->offer.token,
                                XLV_HANDOVER_DEPARTING, XLV_HANDOVER_HELD, &ignored);
}

/* --- the taker --- */

/* The domain finds it by its name, too, as it did where it comes from. */
static int bind_domain(struct xlv_move *m, struct xlv_error *e)
{
    struct xlv_lookup lookup = {
        .uuid = m->offer.uuid,
        .domain_name = m->offer.domain,
        .devid = m->offer.devid,
        .unknown_uuid = XLV_UNKNOWN_UUID_REFUSE,
    };
    struct xlv_instance instance;
    enum xlv_rule rule;

    return m->offer.domain[0] ? xlv_registry_resolve(m->registry, &lookup, &instance, &rule, e)
                              : 0;
}

/* ACCEPT; the state follows, or what tells that it is the one. The caller wipes *data. */
static int hear_state(struct xlv_move *m, struct xlv_move_peer *peer, uint8_t **data,
                      size_t *length, struct xlv_error *e)
{
    enum xlv_move_type type;
    int rc = xlv_move_say(peer, XLV_MOVE_ACCEPT, NULL, 0, e);

    if (!rc)
        rc = hear_step(peer, &type, data, length, e);
    if (!rc && (type != XLV_MOVE_STATE || !*length || (m->offer.shared && *length != DIGEST)))
        rc = xlv_fail(e, XLV_E_INVALID, "the other host said message %d of %zu bytes instead of "
                      "the state", (int)type, *length);
    return rc;
}

/* Into the store, under this host's key. */
static int take_state(struct xlv_move *m, struct xlv_move_peer *peer, struct xlv_error *e)
{
    uint8_t *state = NULL;
    size_t length = 0;
    uint64_t generation;
    int rc = xlv_move_open_store(m, true, e);

    if (rc == XLV_E_EMPTY) {
        xlv_error_clear(e);
        rc = 0;
    }
    if (!rc)
        rc = hear_state(m, peer, &state, &length, e);
    if (!rc)
        rc = xlv_store_commit(m->store, state, length, &generation, e);
    xlv_move_wipe(m->data, m->length);
    m->data = state;
    m->length = length;
    return rc;
}

/* On shared storage, where the other host holds it still: it is looked at, and not locked. */
static int find_state(struct xlv_move *m, struct xlv_move_peer *peer, struct xlv_error *e)
{
    uint8_t *wanted = NULL, digest[DIGEST];
    struct xlv_error why = XLV_ERROR_INIT;
    size_t length = 0;
    int rc = hear_state(m, peer, &wanted, &length, e);

    if (!rc) {
        rc = digest_of_shared(m, digest, &why);
        if (rc || CRYPTO_memcmp(wanted, digest, sizeof(digest)))
            rc = xlv_fail(e, rc < 0 ? rc : XLV_E_CONFLICT, "%s here does not hold the state that "
                          "the other host has there%s%s: both need the same storage and the same "
                          "master key", m->instance.directory, rc ? ": " : "", rc ? why.text : "");
    }
    xlv_move_close_store(m);
    xlv_move_wipe(wanted, length);
    return rc;
}

int xlv_move_accept(struct xlv_move *m, struct xlv_move_peer *peer, const uint8_t *offer,
                    size_t offer_length, bool *held, struct xlv_error *e)
{
    char path[PATH_MAX];
    char place[XLV_DIRECTORY_MAX + 1] = "";
    uint64_t number;
    int rc = get_offer(&m->offer, offer, offer_length, e);

    *held = false;
    if (rc)
        return rc;
    rc = xlv_registry_get(m->registry, &m->offer.uuid, &m->instance, e);
    if (!rc && m->instance.handover == XLV_HANDOVER_HELD &&
        !strcmp(m->instance.handover_token, m->offer.token)) {
        *held = true;
        return xlv_move_say(peer, XLV_MOVE_HELD, NULL, 0, e);
    }
    if (!rc && m->instance.handover == XLV_HANDOVER_DEPARTING &&
        !strcmp(m->instance.handover_token, m->offer.token)) {
        m->same = true;
        return xlv_move_say(peer, XLV_MOVE_SAME, NULL, 0, e);
    }
    if (rc && rc != XLV_E_NOT_FOUND)
        return rc;
    xlv_error_clear(e);
    if (m->offer.shared)
        rc = xlv_settings_shared(m->settings, &m->offer.uuid, place, e);
    else
        rc = 0;
    if (!rc)
        rc = xlv_registry_expect(m->registry, &m->offer.uuid, m->offer.version,
                                 m->offer.again, m->offer.token, m->offer.giver, &m->instance, e);
    number = m->instance.number;
    if (!rc)
        rc = xlv_registry_place(m->registry, number, place, e);
    if (!rc)
        rc = xlv_registry_get_number(m->registry, number, &m->instance, e);
    if (!rc)
        rc = m->offer.shared ? find_state(m, peer, e) : take_state(m, peer, e);
    if (rc)
        return rc;
    /* of a boot here, before it left */
    xlv_settings_journal(m->settings, m->instance.number, path);
    if (unlink(path) && errno != ENOENT)
        return xlv_fail(e, -errno, "cannot remove the old journal %s: %s", path, strerror(errno));
    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/eventlog/%" PRIu64 "%s", m->settings->run_dir,
                 m->instance.number, i ? ".raw" : "");
        if (unlink(path) && errno != ENOENT)
            return xlv_fail(e, -errno, "cannot remove the old event log %s: %s", path,
                            strerror(errno));
    }
    if (m->offer.suspended.at_s)
        rc = xlv_registry_suspended(m->registry, number, &m->offer.suspended, e);
    if (!rc)
        rc = bind_domain(m, e);
    if (!rc)
        rc = xlv_registry_set_life(m->registry, number, XLV_LIFE_READY, e);
    return rc ? rc : xlv_move_say(peer, XLV_MOVE_STORED, NULL, 0, e);
}

int xlv_move_hold(struct xlv_move *m, struct xlv_error *e)
{
    int rc;

    if (m->same)
        return 0;
    rc = xlv_registry_move(m->registry, m->instance.number, m->offer.token, XLV_HANDOVER_ARRIVING,
                           XLV_HANDOVER_HELD, e);
    return rc;
}
