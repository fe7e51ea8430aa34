/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The other host of a handover (libxl-vtpm/move.h). Input: u8 (bit 0: we give, else we take; bit 1:
 * it was given away before; bit 2: storage is shared), u8 that the registry below answers with, then
 * the bytes that the other side sends. Registry, keys and store are what is below: the protocol is
 * what is tried, and that an instance is never held by both sides.
 */
#include "config.h"

#include <sys/mman.h>

#include "libxl-vtpm/move-steps.c"
#include "libxl-vtpm/move.c"

#include "fuzz/fuzz.h"

static uint8_t outcomes; /* bit n: the n-th of the calls below fails */
static unsigned calls;
static struct xlv_instance instance;
static size_t committed;
static int null_fd = -1;

static int outcome(void)
{
    return outcomes >> (calls++ % 8) & 1 ? XLV_E_CONFLICT : 0;
}

int xlv_registry_open(struct xlv_registry **out, const char *state_dir, bool create,
                      struct xlv_error *e)
{
    (void)state_dir;
    (void)create;
    (void)e;
    *out = NULL;
    return 0;
}

void xlv_registry_close(struct xlv_registry *registry)
{
    (void)registry;
}

int xlv_registry_get(struct xlv_registry *registry, const struct xlv_uuid *uuid,
                     struct xlv_instance *out, struct xlv_error *e)
{
    (void)registry;
    if (memcmp(uuid, &instance.uuid, sizeof(*uuid)))
        return xlv_fail(e, XLV_E_NOT_FOUND, "no such instance");
    *out = instance;
    return 0;
}

int xlv_registry_get_number(struct xlv_registry *registry, uint64_t number,
                            struct xlv_instance *out, struct xlv_error *e)
{
    (void)number;
    return xlv_registry_get(registry, &instance.uuid, out, e);
}

int xlv_registry_place(struct xlv_registry *registry, uint64_t number, const char *directory,
                       struct xlv_error *e)
{
    (void)registry;
    (void)number;
    (void)e;
    MUST(!directory[0] || (directory[0] == '/' && strlen(directory) <= XLV_DIRECTORY_MAX));
    snprintf(instance.directory, sizeof(instance.directory), "%s",
             directory[0] ? directory : "instances/1");
    return outcome();
}

int xlv_registry_directory(struct xlv_registry *registry, const struct xlv_instance *i, int *fd,
                           struct xlv_error *e)
{
    (void)registry;
    (void)i;
    (void)e;
    *fd = -1;
    return outcome();
}

int xlv_registry_own_directory(struct xlv_registry *registry, const struct xlv_instance *i, int *fd,
                               struct xlv_error *e)
{
    (void)registry;
    (void)i;
    (void)e;
    *fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *fd < 0 ? -errno : 0;
}

int xlv_registry_offer(struct xlv_registry *registry, uint64_t number, const char *token,
                       const char *peer, struct xlv_error *e)
{
    int rc = outcome();

    (void)registry;
    (void)number;
    (void)peer;
    (void)e;
    if (!rc) {
        MUST(instance.handover == XLV_HANDOVER_HELD);
        instance.handover = XLV_HANDOVER_DEPARTING;
        snprintf(instance.handover_token, sizeof(instance.handover_token), "%s", token);
    }
    return rc;
}

int xlv_registry_expect(struct xlv_registry *registry, const struct xlv_uuid *uuid,
                        enum xlv_tpm_version version, bool again, const char *token,
                        const char *peer, struct xlv_instance *out, struct xlv_error *e)
{
    int rc = outcome();

    (void)registry;
    (void)e;
    MUST(strlen(token) < XLV_UUID_TEXT && strlen(peer) <= XLV_HANDOVER_PEER_MAX);
    MUST(version == XLV_TPM_1_2 || version == XLV_TPM_2_0);
    if (rc)
        return rc;
    if (!memcmp(uuid, &instance.uuid, sizeof(*uuid)) && instance.handover == XLV_HANDOVER_HELD)
        return xlv_fail(e, XLV_E_REFUSED, "it is here");
    if (again && strcmp(token, instance.handover_token))
        return xlv_fail(e, XLV_E_REFUSED, "not with this token");
    instance.uuid = *uuid;
    instance.handover = XLV_HANDOVER_ARRIVING;
    snprintf(instance.handover_token, sizeof(instance.handover_token), "%s", token);
    *out = instance;
    return 0;
}

int xlv_registry_move(struct xlv_registry *registry, uint64_t number, const char *token,
                      enum xlv_handover from, enum xlv_handover to, struct xlv_error *e)
{
    int rc = outcome();

    (void)registry;
    (void)number;
    if (rc)
        return rc;
    if (instance.handover != from || strcmp(token, instance.handover_token))
        return xlv_fail(e, XLV_E_CONFLICT, "not from there");
    instance.handover = to;
    return 0;
}

int xlv_registry_any_state(struct xlv_registry *registry, bool *any, struct xlv_error *e)
{
    (void)registry;
    (void)e;
    *any = false;
    return outcome();
}

int xlv_registry_resolve(struct xlv_registry *registry, const struct xlv_lookup *lookup,
                         struct xlv_instance *out, enum xlv_rule *rule, struct xlv_error *e)
{
    (void)registry;
    (void)e;
    MUST(strlen(lookup->domain_name) <= XLV_DOMAIN_NAME_MAX && lookup->devid <= XLV_DEVID_MAX);
    *out = instance;
    *rule = XLV_RULE_UUID;
    return outcome();
}

int xlv_registry_set_life(struct xlv_registry *registry, uint64_t number, enum xlv_life life,
                          struct xlv_error *e)
{
    (void)registry;
    (void)number;
    (void)e;
    instance.life = life;
    return 0;
}

int xlv_registry_suspended(struct xlv_registry *registry, uint64_t number,
                           const struct xlv_suspended *suspended, struct xlv_error *e)
{
    (void)registry;
    (void)number;
    (void)e;
    MUST(suspended->domid <= XLV_DOMID_MAX &&
         strlen(suspended->domain_uuid) < sizeof(suspended->domain_uuid));
    return 0;
}

const char *xlv_life_name(enum xlv_life life)
{
    return life == XLV_LIFE_READY ? "ready" : "new";
}

int xlv_keys_new(struct xlv_keys **out, enum xlv_key_provider provider, const char *source,
                 bool create, struct xlv_error *e)
{
    (void)provider;
    (void)source;
    (void)create;
    (void)e;
    *out = NULL;
    return 0;
}

void xlv_keys_free(struct xlv_keys *keys)
{
    (void)keys;
}

int xlv_keys_lock_store(uint64_t number, const int slots[2], struct xlv_error *e)
{
    (void)number;
    (void)slots;
    (void)e;
    return 0;
}

int xlv_keys_open_store(struct xlv_keys *keys, const struct xlv_uuid *uuid, const int slots[2],
                        struct xlv_store **store, struct xlv_error *e)
{
    (void)keys;
    (void)uuid;
    (void)slots;
    (void)e;
    *store = NULL;
    return outcome();
}

bool xlv_journal_has_record(const char *path)
{
    (void)path;
    return outcome();
}

int xlv_store_create(int dirfd, struct xlv_error *e)
{
    (void)dirfd;
    (void)e;
    return 0;
}

int xlv_store_open(int dirfd, int slots[2], struct xlv_error *e)
{
    (void)dirfd;
    (void)e;
    slots[0] = memfd_create("slot", MFD_CLOEXEC);
    slots[1] = -1;
    return slots[0] < 0 ? -errno : 0;
}

void xlv_store_free(struct xlv_store *store)
{
    (void)store;
}

int xlv_store_load(struct xlv_store *store, uint8_t **data, size_t *length, uint64_t *generation,
                   struct xlv_error *e)
{
    (void)store;
    (void)e;
    *data = calloc(1, 1300);
    *length = 1300;
    *generation = 1;
    return *data ? outcome() : -ENOMEM;
}

int xlv_store_commit(struct xlv_store *store, const uint8_t *data, size_t length,
                     uint64_t *generation, struct xlv_error *e)
{
    volatile uint8_t sum = 0;

    (void)store;
    (void)e;
    MUST(length && length <= XLV_PERMANENT_MAX);
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + data[i]);
    committed++;
    *generation = 1;
    return outcome();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct xlv_uuid ours = { .b = { 1, 2, 3 } };
    static int in_fd = -1;
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    uint8_t how = xlv_get_u8(&in);
    struct xlv_settings settings = {
        .state_dir = (char *)"/nowhere", .run_dir = (char *)"/nowhere",
        .shared_dir = (char *)(how & 4 ? "/shared" : ""),
    };
    struct xlv_error e = XLV_ERROR_INIT;
    const uint8_t *bytes;
    size_t length;
    int rc;

    outcomes = xlv_get_u8(&in);
    calls = 0;
    committed = 0;
    bytes = rest(&in, &length);
    if (in_fd < 0) {
        in_fd = memfd_create("peer", MFD_CLOEXEC);
        null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    }
    MUST(in_fd >= 0 && null_fd >= 0 && ftruncate(in_fd, 0) == 0);
    MUST(!bytes || xlv_pwrite_all(in_fd, bytes, length, 0) == 0);
    MUST(lseek(in_fd, 0, SEEK_SET) == 0);
    instance = (struct xlv_instance){
        .number = 1, .uuid = ours, .tpm_version = XLV_TPM_2_0, .life = XLV_LIFE_READY,
        .handover = how & 2 ? XLV_HANDOVER_DEPARTED : XLV_HANDOVER_HELD,
        .handover_token = "dcdb124b-9fed-4040-b149-dd2dfd8d094c",
    };
    snprintf(instance.directory, sizeof(instance.directory), "%s",
             how & 4 ? "/shared/x" : "instances/1");
    if (how & 1) {
        rc = xlv_move_give(&settings, &ours, "peer", in_fd, null_fd, &e);
        /* ours only where the other side never got COMMIT, given where it confirmed */
        MUST(rc != 0 || instance.handover == XLV_HANDOVER_DEPARTED);
        MUST(rc != XLV_E_GONE || instance.handover != XLV_HANDOVER_HELD || !e.text[0] ||
             !(how & 2));
        if (how & 2)
            MUST(instance.handover == XLV_HANDOVER_DEPARTED);
    } else {
        rc = xlv_move_take(&settings, in_fd, null_fd, &e);
        if (how & 2 && instance.handover == XLV_HANDOVER_HELD)
            MUST((committed || xlv_instance_shared(&instance)) && rc >= 0);
        /* what is on shared storage is the giver's to write */
        MUST(!committed || !xlv_instance_shared(&instance));
    }
    return 0;
}
