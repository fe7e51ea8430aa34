/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The store: see store.h for the promise, docs/formats.md for the format.
 *
 * Commit order:  data of generation N+1 into the slot that holds N-1
 *                -> fdatasync -> only now N+1 is acknowledged.
 * Growth order:  blank stamped sectors behind the slot -> fdatasync -> commit.
 *
 * From that follows the one rule by which xlv_store_load() judges a slot that
 * does not verify, beside a good one of generation N: if N+1 had ever been
 * acknowledged, each of its sectors would carry its stamp. One sector with a
 * valid stamp of an earlier write, in a place that N+1 must have covered,
 * proves that it was not, and N is the newest. Without such proof the slot may
 * be an acknowledged N+1 that rotted, and the load is refused.
 *
 * Every commit covers at least MIN_SECTORS, so that some of these places are
 * known even where no header can be read. Writes of one generation (a commit
 * tried again) differ by a random `attempt`.
 */
#include "config.h"

#include "backend/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend/seal.h"
#include "backend/store-sector.h"
#include "common/fd.h"
#include "common/log.h"

#define MIN_SECTORS 8u
#define GROWTH (64u * 1024u) /* a slot grows in steps of this */
#define SECTORS_OF(length) \
    ((XLV_SEAL_HEAD + (size_t)(length) + XLV_SECTOR_DATA - 1) / XLV_SECTOR_DATA)
#define SECTORS_MAX SECTORS_OF(XLV_PERMANENT_MAX)

enum slot_state {
    SLOT_GOOD,
    SLOT_BLANK,     /* prepared, never written */
    SLOT_ZERO,      /* nothing but zeros */
    SLOT_TRUNCATED, /* shorter than a slot, or than its header says */
    SLOT_HEADER,    /* no intact header */
    SLOT_FOREIGN,   /* of the journal */
    SLOT_EXCHANGED, /* the contents of the other slot */
    SLOT_OWNER, SLOT_KEY, SLOT_VERSION,
    SLOT_STAMPS,    /* sectors of several writes, or stamps that are none */
    SLOT_SEAL,      /* whole, but does not verify */
};

struct slot {
    enum slot_state state;
    struct xlv_seal_info info; /* valid: header_ok */
    bool header_ok;
    uint8_t *sectors; /* the file as read, whole sectors */
    size_t count;     /* of sectors */
    off_t size;       /* of the file */
    uint8_t *data;    /* SLOT_GOOD: the plaintext */
};

struct xlv_store {
    int fds[2];
    struct xlv_uuid uuid;
    char name[XLV_UUID_TEXT];
    struct xlv_seal *seal;
    bool loaded;
    uint64_t generation; /* the newest acknowledged; 0: none */
    size_t prepared[2];  /* leading sectors with valid stamps on the medium */
    uint32_t attempt;
    uint8_t *sectors, *cipher; /* scratch, reused from commit to commit */
    size_t room;               /* of sectors, in sectors */
};

static unsigned slot_of(uint64_t generation)
{
    return (unsigned)((generation + 1) & 1);
}

/* Sectors that a commit of this length covers. */
static size_t extent_of(size_t length)
{
    size_t extent = SECTORS_OF(length);

    return extent < MIN_SECTORS ? MIN_SECTORS : extent;
}

int xlv_store_new(struct xlv_store **out, const int slots[2], const struct xlv_uuid *uuid,
                  const uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    struct xlv_store *store = calloc(1, sizeof(*store));
    int rc;

    *out = NULL;
    if (!store)
        return xlv_fail(e, -ENOMEM, "no memory for the store");
    store->fds[0] = slots[0];
    store->fds[1] = slots[1];
    store->uuid = *uuid;
    xlv_uuid_format(uuid, store->name);
    rc = xlv_seal_new(&store->seal, XLV_SEAL_STORE, uuid, key, e);
    if (rc) {
        xlv_store_free(store);
        return rc;
    }
    *out = store;
    return 0;
}

void xlv_store_free(struct xlv_store *store)
{
    if (!store)
        return;
    xlv_seal_free(store->seal);
    free(store->sectors); /* ciphertext only */
    free(store->cipher);
    free(store);
}

static void slot_deinit(struct slot *slot)
{
    if (slot->data)
        OPENSSL_clear_free(slot->data, slot->info.length);
    slot->data = NULL;
    free(slot->sectors);
    slot->sectors = NULL;
}

static int sync_data(int fd)
{
    int rc;

    do
        rc = fdatasync(fd);
    while (rc && errno == EINTR);
    return rc ? -errno : 0;
}

/*
 * What is on the medium, not what is in the page cache: a predecessor may have
 * been killed between pwrite and fdatasync, or its fdatasync may have failed,
 * which leaves pages that look clean and were never written.
 */
static int slot_read(struct xlv_store *store, unsigned which, struct slot *slot,
                     struct xlv_error *e)
{
    int fd = store->fds[which], rc = sync_data(fd);
    struct stat st;
    size_t length;

    if (rc)
        return xlv_fail(e, rc, "instance %s: slot %u cannot be synced: %s; check the disk, then "
                        "try again", store->name, which, xlv_strerror(rc));
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* where there is a medium */
    if (fstat(fd, &st)) {
        rc = -errno;
        return xlv_fail(e, rc, "instance %s: slot %u cannot be examined: %s", store->name, which,
                        xlv_strerror(rc));
    }
    slot->size = st.st_size;
    length = (uint64_t)st.st_size / XLV_SECTOR > SECTORS_MAX ? SECTORS_MAX * XLV_SECTOR
                                                             : (size_t)st.st_size;
    slot->count = length / XLV_SECTOR;
    if (!slot->count)
        return 0;
    slot->sectors = malloc(slot->count * XLV_SECTOR);
    if (!slot->sectors)
        return xlv_fail(e, -ENOMEM, "no memory to read slot %u", which);
    rc = xlv_pread_all(fd, slot->sectors, slot->count * XLV_SECTOR, 0);
    if (rc)
        return xlv_fail(e, rc, "instance %s: slot %u cannot be read: %s; check the disk, then try "
                        "again or use xl-vtpm recover", store->name, which, xlv_strerror(rc));
    return 0;
}

static bool all_sectors(const struct slot *slot, bool (*is)(const uint8_t *sector))
{
    for (size_t i = 0; i < slot->count; i++)
        if (!is(slot->sectors + i * XLV_SECTOR))
            return false;
    return true;
}

static bool is_zero(const uint8_t *sector)
{
    return !sector[0] && !memcmp(sector, sector + 1, XLV_SECTOR - 1);
}

/* Gathers the contents of n sectors; out has n * XLV_SECTOR_DATA bytes. */
static void gather(uint8_t *out, const uint8_t *sectors, size_t n)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * XLV_SECTOR_DATA, sectors + i * XLV_SECTOR, XLV_SECTOR_DATA);
}

/* Sets state to what is found; 0, or -errno that is no fault of the slot. */
static int slot_classify(struct xlv_store *store, unsigned which, struct slot *slot)
{
    size_t extent;
    uint8_t *body XLV_FREE = NULL;
    int rc;

    slot->state = SLOT_TRUNCATED;
    if (slot->size < XLV_STORE_SLOT_SIZE)
        return 0;
    slot->state = SLOT_BLANK;
    if (all_sectors(slot, xlv_sector_is_blank))
        return 0;
    slot->state = SLOT_ZERO;
    if (all_sectors(slot, is_zero))
        return 0;

    rc = xlv_seal_parse(store->seal, slot->sectors, &slot->info);
    if (rc < 0)
        return rc;
    slot->state = rc == XLV_E_VERSION ? SLOT_VERSION : SLOT_HEADER;
    if (rc)
        return 0;
    slot->state = SLOT_FOREIGN;
    rc = xlv_seal_check(store->seal, &slot->info);
    if (rc == XLV_E_CORRUPT)
        return 0;
    slot->state = SLOT_OWNER;
    if (rc == XLV_E_WRONG_OWNER)
        return 0;
    slot->state = SLOT_EXCHANGED;
    if (slot->info.slot != which || slot_of(slot->info.number) != which || !slot->info.number ||
        slot->info.length > XLV_PERMANENT_MAX)
        return 0;
    slot->header_ok = true;
    slot->state = SLOT_KEY;
    if (rc == XLV_E_WRONG_KEY)
        return 0;

    extent = extent_of(slot->info.length);
    slot->state = SLOT_TRUNCATED;
    if (extent > slot->count)
        return 0;
    slot->state = SLOT_STAMPS;
    for (size_t i = 0; i < extent; i++) {
        struct xlv_stamp stamp;

        if (!xlv_stamp_get(slot->sectors + i * XLV_SECTOR, &stamp) ||
            stamp.generation != slot->info.number || stamp.attempt != slot->info.attempt)
            return 0;
    }
    body = malloc(extent * XLV_SECTOR_DATA);
    slot->data = OPENSSL_malloc(slot->info.length + 1);
    if (!body || !slot->data)
        return -ENOMEM;
    gather(body, slot->sectors, extent);
    slot->state = SLOT_SEAL;
    for (size_t i = XLV_SEAL_HEAD + slot->info.length; i < extent * XLV_SECTOR_DATA; i++)
        if (body[i])
            return 0;
    rc = xlv_seal_open(store->seal, body, &slot->info, body + XLV_SEAL_HEAD, slot->data);
    if (rc < 0)
        return rc;
    if (!rc)
        slot->state = SLOT_GOOD;
    return 0;
}

/*
 * The rule at the top of this file: whether the slot shows that no generation
 * newer + 1 was ever acknowledged in it, newest being the other slot's (0: the
 * other one is blank).
 */
static bool proves_older(const struct slot *slot, uint64_t newest)
{
    uint64_t candidate = newest + 1, before = newest ? newest - 1 : 0;
    size_t extent = MIN_SECTORS;
    bool attempt_known = false;
    uint32_t attempt = 0;

    if (slot->header_ok && slot->info.number == candidate) {
        extent = extent_of(slot->info.length);
        attempt = slot->info.attempt;
        attempt_known = true;
    }
    for (size_t i = 0; i < extent && i < slot->count; i++) {
        struct xlv_stamp stamp;

        if (!xlv_stamp_get(slot->sectors + i * XLV_SECTOR, &stamp))
            continue;
        if (stamp.generation == candidate) {
            if (attempt_known && stamp.attempt != attempt)
                return true;
            attempt = stamp.attempt;
            attempt_known = true;
        } else if (i < MIN_SECTORS ? stamp.generation == before : stamp.generation < candidate) {
            /* every commit covers the first ones, so what was there before
             * can only be the generation before; further back lies the past */
            return true;
        }
    }
    return false;
}

static bool has_sectors_of(const struct slot *slot, uint64_t generation)
{
    struct xlv_stamp stamp;

    for (size_t i = 0; i < slot->count; i++)
        if (xlv_stamp_get(slot->sectors + i * XLV_SECTOR, &stamp) &&
            stamp.generation == generation)
            return true;
    return false;
}

/* Leading sectors that later commits may rely on. */
static size_t count_prepared(const struct slot *slot)
{
    struct xlv_stamp stamp;
    size_t i = 0;

    while (i < slot->count && xlv_stamp_get(slot->sectors + i * XLV_SECTOR, &stamp))
        i++;
    return i;
}

/* The code and the half-sentence for a slot that is not good. */
static int describe(const struct slot *slot, char *text, size_t room)
{
    char owner[XLV_UUID_TEXT];

    switch (slot->state) {
    case SLOT_GOOD:
        snprintf(text, room, "is good (generation %" PRIu64 ")", slot->info.number);
        return 0;
    case SLOT_BLANK:
        snprintf(text, room, "was never written");
        return XLV_E_CORRUPT;
    case SLOT_ZERO:
        snprintf(text, room, "has been overwritten with zeros");
        return XLV_E_CORRUPT;
    case SLOT_TRUNCATED:
        if (slot->header_ok)
            snprintf(text, room, "is truncated: %jd bytes do not hold its state of %" PRIu32,
                     (intmax_t)slot->size, slot->info.length);
        else
            snprintf(text, room, "is truncated: %jd bytes instead of at least %u",
                     (intmax_t)slot->size, XLV_STORE_SLOT_SIZE);
        return XLV_E_CORRUPT;
    case SLOT_HEADER:
        snprintf(text, room, "is damaged: its header does not verify");
        return XLV_E_CORRUPT;
    case SLOT_FOREIGN:
        snprintf(text, room, "holds a record of a journal");
        return XLV_E_CORRUPT;
    case SLOT_EXCHANGED:
        snprintf(text, room, "holds the contents of the other slot file; were they exchanged?");
        return XLV_E_CORRUPT;
    case SLOT_OWNER:
        snprintf(text, room, "belongs to another instance, %s; were files swapped?",
                 xlv_uuid_format(&slot->info.uuid, owner));
        return XLV_E_WRONG_OWNER;
    case SLOT_KEY:
        snprintf(text, room, "is sealed with another key; is it the right master key?");
        return XLV_E_WRONG_KEY;
    case SLOT_VERSION:
        snprintf(text, room, "has format version %" PRIu32 ", this program knows up to %u; use a "
                 "newer one", slot->info.version, XLV_SEAL_VERSION);
        return XLV_E_VERSION;
    case SLOT_STAMPS:
        snprintf(text, room, "is damaged: sectors of generation %" PRIu64 " are not its own",
                 slot->info.number);
        return XLV_E_CORRUPT;
    case SLOT_SEAL:
        snprintf(text, room, "is damaged: generation %" PRIu64 " does not verify",
                 slot->info.number);
        return XLV_E_CORRUPT;
    }
    return -EINVAL;
}

static int refuse_slot(struct xlv_store *store, const struct slot slots[2], unsigned which,
                       struct xlv_error *e)
{
    char text[160], other[160];
    int rc = describe(&slots[which], text, sizeof(text));

    if (slots[1 - which].state == SLOT_GOOD)
        return xlv_fail(e, rc, "instance %s: slot %u %s; slot %u has generation %" PRIu64
                        " but may not be the newest: nothing was changed, use xl-vtpm recover",
                        store->name, which, text, 1 - which, slots[1 - which].info.number);
    (void)describe(&slots[1 - which], other, sizeof(other));
    return xlv_fail(e, rc, "instance %s: slot %u %s; slot %u %s: nothing was changed, restore a "
                    "backup or use xl-vtpm recover", store->name, which, text, 1 - which, other);
}

/* One good slot, one not: 0 where the good one is certainly the newest. */
static int judge_pair(struct xlv_store *store, const struct slot slots[2], unsigned good,
                      struct xlv_error *e)
{
    const struct slot *bad = &slots[1 - good];
    uint64_t newest = slots[good].info.number;

    switch (bad->state) {
    case SLOT_BLANK:
        if (newest == 1)
            return 0;
        return xlv_fail(e, XLV_E_CORRUPT, "instance %s: slot %u was emptied: only generation %"
                        PRIu64 " in slot %u is left and may not be the newest; nothing was "
                        "changed, use xl-vtpm recover", store->name, 1 - good, newest, good);
    case SLOT_KEY:
        /* a rekey that was interrupted: seen with the new key, or, where its
         * first commit was cut short, with the old one */
        if (bad->info.number + 1 == newest || proves_older(bad, newest))
            return 0;
        break;
    case SLOT_HEADER:
    case SLOT_STAMPS:
    case SLOT_SEAL:
        if (!proves_older(bad, newest))
            break;
        if (has_sectors_of(bad, newest + 1))
            xlv_log(XLV_LOG_NOTICE, "instance %s: slot %u holds a commit that was cut short; "
                    "generation %" PRIu64 " in slot %u is the newest", store->name, 1 - good,
                    newest, good);
        else
            xlv_log(XLV_LOG_WARNING, "instance %s: slot %u is damaged, but holds an older "
                    "generation than %" PRIu64 " in slot %u; the next commit renews it",
                    store->name, 1 - good, newest, good);
        return 0;
    default:
        break;
    }
    return refuse_slot(store, slots, 1 - good, e);
}

/* No good slot: XLV_E_EMPTY where no generation was ever acknowledged. */
static int judge_none(struct xlv_store *store, const struct slot slots[2], struct xlv_error *e)
{
    static const enum slot_state order[] = { SLOT_VERSION, SLOT_OWNER, SLOT_KEY, SLOT_EXCHANGED };

    if (slots[1].state == SLOT_BLANK) {
        if (slots[0].state == SLOT_BLANK)
            return XLV_E_EMPTY;
        if ((slots[0].state == SLOT_HEADER || slots[0].state == SLOT_STAMPS) &&
            proves_older(&slots[0], 0)) {
            xlv_log(XLV_LOG_NOTICE, "instance %s: the first commit was cut short", store->name);
            return XLV_E_EMPTY;
        }
        return refuse_slot(store, slots, 0, e);
    }
    /* what explains most comes first */
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        for (unsigned s = 0; s < 2; s++)
            if (slots[s].state == order[i])
                return refuse_slot(store, slots, s, e);
    return refuse_slot(store, slots, slots[0].state == SLOT_BLANK ? 1 : 0, e);
}

static int judge(struct xlv_store *store, struct slot slots[2], struct slot **newest,
                 struct xlv_error *e)
{
    bool good0 = slots[0].state == SLOT_GOOD, good1 = slots[1].state == SLOT_GOOD;
    int rc;

    *newest = NULL;
    if (good0 && good1) {
        uint64_t a = slots[0].info.number, b = slots[1].info.number;

        if (a != b + 1 && b != a + 1)
            return xlv_fail(e, XLV_E_CORRUPT, "instance %s: slot 0 has generation %" PRIu64
                            ", slot 1 has %" PRIu64 ": one of them is an old copy; nothing was "
                            "changed, use xl-vtpm recover", store->name, a, b);
        *newest = a > b ? &slots[0] : &slots[1];
        return 0;
    }
    if (!good0 && !good1)
        return judge_none(store, slots, e);
    rc = judge_pair(store, slots, good0 ? 0 : 1, e);
    if (!rc)
        *newest = good0 ? &slots[0] : &slots[1];
    return rc;
}

/* Reads and classifies both; slots need slot_deinit() whatever is returned. */
static int read_slots(struct xlv_store *store, struct slot slots[2], struct xlv_error *e)
{
    int rc = 0;

    for (unsigned i = 0; i < 2 && !rc; i++)
        rc = slot_read(store, i, &slots[i], e);
    for (unsigned i = 0; i < 2 && !rc; i++) {
        rc = slot_classify(store, i, &slots[i]);
        if (rc)
            xlv_fail(e, rc, "instance %s: slot %u cannot be verified: %s", store->name, i,
                     xlv_strerror(rc));
    }
    return rc;
}

/* Commits may follow; newest may be NULL. */
static void accept_slots(struct xlv_store *store, const struct slot slots[2],
                         const struct slot *newest)
{
    store->generation = newest ? newest->info.number : 0;
    for (unsigned i = 0; i < 2; i++)
        store->prepared[i] = count_prepared(&slots[i]);
    store->loaded = true;
}

int xlv_store_load(struct xlv_store *store, uint8_t **data, size_t *length, uint64_t *generation,
                   struct xlv_error *e)
{
    struct slot slots[2] = { 0 }, *newest = NULL;
    uint8_t *copy = NULL;
    int rc;

    *data = NULL;
    *length = 0;
    *generation = 0;
    store->loaded = false;
    rc = read_slots(store, slots, e);
    if (!rc)
        rc = judge(store, slots, &newest, e);
    if (rc && rc != XLV_E_EMPTY)
        goto out;
    if (newest) {
        /* a copy of its own, so that free() is all the caller needs */
        copy = malloc(newest->info.length + 1);
        if (!copy) {
            rc = xlv_fail(e, -ENOMEM, "no memory for the state of instance %s", store->name);
            goto out;
        }
        memcpy(copy, newest->data, newest->info.length);
        *data = copy;
        *length = newest->info.length;
        *generation = newest->info.number;
    }
    accept_slots(store, slots, newest);

out:
    slot_deinit(&slots[0]);
    slot_deinit(&slots[1]);
    return rc;
}

static int make_room(struct xlv_store *store, size_t sectors)
{
    uint8_t *s, *c;

    if (sectors <= store->room)
        return 0;
    /* with reserve: the state of a TPM grows by small steps */
    sectors += sectors / 4;
    s = malloc(sectors * XLV_SECTOR);
    c = malloc(sectors * XLV_SECTOR_DATA);
    if (!s || !c) {
        free(s);
        free(c);
        return -ENOMEM;
    }
    free(store->sectors);
    free(store->cipher);
    store->sectors = s;
    store->cipher = c;
    store->room = sectors;
    return 0;
}

/*
 * Filler up to what is needed, durable (with the file's new size). It is
 * stamped as the generation that the slot is about to lose: so it proves, as
 * any other sector there does, that a commit over it was not complete. Blank
 * where there is none. Where a rotten sector ends the prepared part early the
 * filler replaces what lies behind; nothing of that is needed any more.
 */
static int grow(struct xlv_store *store, unsigned which, size_t sectors)
{
    struct xlv_stamp stamp = { .generation = store->generation ? store->generation - 1 : 0 };
    size_t from = store->prepared[which], bytes = sectors * XLV_SECTOR, to;
    uint8_t *filler XLV_FREE = NULL;
    int rc;

    to = (bytes + GROWTH - 1) / GROWTH * GROWTH / XLV_SECTOR;
    filler = calloc(to - from, XLV_SECTOR);
    if (!filler)
        return -ENOMEM;
    for (size_t i = 0; i < to - from; i++)
        xlv_stamp_put(filler + i * XLV_SECTOR, &stamp);
    rc = xlv_pwrite_all(store->fds[which], filler, (to - from) * XLV_SECTOR,
                        (off_t)(from * XLV_SECTOR));
    if (!rc)
        rc = sync_data(store->fds[which]);
    if (!rc)
        store->prepared[which] = to;
    return rc;
}

/* Seals data into store->sectors. */
static int build(struct xlv_store *store, unsigned which, const uint8_t *data, size_t length,
                 size_t extent)
{
    struct xlv_stamp stamp = { .generation = store->generation + 1 };
    size_t used = XLV_SEAL_HEAD + length;
    ssize_t n;
    int rc;

    do
        n = getrandom(&stamp.attempt, sizeof(stamp.attempt), 0);
    while (n < 0 && errno == EINTR);
    if (n != sizeof(stamp.attempt))
        return n < 0 ? -errno : -EIO;
    if (stamp.attempt == store->attempt)
        stamp.attempt++;
    store->attempt = stamp.attempt;

    rc = xlv_seal_begin(store->seal, store->cipher, which, stamp.generation, stamp.attempt,
                        (uint32_t)length);
    if (!rc)
        rc = xlv_seal_update(store->seal, store->cipher + XLV_SEAL_HEAD, data, length);
    if (!rc)
        rc = xlv_seal_finish(store->seal, store->cipher);
    if (rc)
        return rc;
    memset(store->cipher + used, 0, extent * XLV_SECTOR_DATA - used);
    for (size_t i = 0; i < extent; i++) {
        memcpy(store->sectors + i * XLV_SECTOR, store->cipher + i * XLV_SECTOR_DATA,
               XLV_SECTOR_DATA);
        xlv_stamp_put(store->sectors + i * XLV_SECTOR, &stamp);
    }
    return 0;
}

int xlv_store_commit(struct xlv_store *store, const uint8_t *data, size_t length,
                     uint64_t *generation, struct xlv_error *e)
{
    uint64_t next = store->generation + 1;
    unsigned which = slot_of(next);
    size_t extent;
    int rc;

    if (!store->loaded)
        return xlv_fail(e, -EINVAL, "instance %s: a commit before a load that succeeded",
                        store->name);
    if (length > XLV_PERMANENT_MAX)
        return xlv_fail(e, XLV_E_INVALID, "instance %s: a state of %zu bytes is above the limit of "
                        "%u", store->name, length, XLV_PERMANENT_MAX);
    extent = extent_of(length);
    rc = make_room(store, extent);
    if (!rc)
        rc = build(store, which, data, length, extent);
    if (rc)
        return xlv_fail(e, rc, "instance %s: cannot seal generation %" PRIu64 ": %s", store->name,
                        next, xlv_strerror(rc));
    if (extent > store->prepared[which]) {
        rc = grow(store, which, extent);
        if (rc)
            return xlv_fail(e, rc, "instance %s: slot %u cannot grow for %zu bytes of state: %s; "
                            "generation %" PRIu64 " is intact", store->name, which, length,
                            xlv_strerror(rc), store->generation);
    }
    rc = xlv_pwrite_all(store->fds[which], store->sectors, extent * XLV_SECTOR, 0);
    if (!rc)
        rc = sync_data(store->fds[which]);
    if (rc)
        return xlv_fail(e, rc, "instance %s: cannot write generation %" PRIu64 " to slot %u: %s; "
                        "generation %" PRIu64 " is intact", store->name, next, which,
                        xlv_strerror(rc), store->generation);
    store->generation = next;
    *generation = next;
    return 0;
}

/* The judgement of judge_pair() and judge_none(), for one slot beside the other. */
static void report_cut_short(const struct slot slots[2], unsigned which,
                             struct xlv_store_report *r)
{
    const struct slot *other = &slots[1 - which];
    uint64_t newest = other->state == SLOT_GOOD ? other->info.number : 0;

    if (other->state != SLOT_GOOD && (other->state != SLOT_BLANK || which == 1))
        return;
    if (!has_sectors_of(&slots[which], newest + 1) || !proves_older(&slots[which], newest))
        return;
    r->cut_short = true;
    snprintf(r->text, sizeof(r->text), "holds a commit of generation %" PRIu64 " that was cut "
             "short; it was never acknowledged", newest + 1);
}

int xlv_store_inspect(struct xlv_store *store, struct xlv_store_report report[2],
                      struct xlv_error *e)
{
    struct slot slots[2] = { 0 };
    int rc = read_slots(store, slots, e);

    memset(report, 0, 2 * sizeof(*report));
    for (unsigned i = 0; i < 2 && !rc; i++) {
        struct xlv_store_report *r = &report[i];

        r->outcome = describe(&slots[i], r->text, sizeof(r->text));
        if (slots[i].state == SLOT_BLANK)
            r->outcome = XLV_E_EMPTY;
        if (slots[i].header_ok) {
            r->generation = slots[i].info.number;
            r->length = slots[i].info.length;
        }
        if (r->outcome == XLV_E_CORRUPT || r->outcome == XLV_E_WRONG_KEY)
            report_cut_short(slots, i, r);
    }
    slot_deinit(&slots[0]);
    slot_deinit(&slots[1]);
    return rc;
}

int xlv_store_choose(struct xlv_store *store, unsigned slot, uint64_t *generation,
                     struct xlv_error *e)
{
    struct slot slots[2] = { 0 };
    char text[160];
    int rc;

    store->loaded = false;
    rc = slot > 1 ? -EINVAL : read_slots(store, slots, e);
    if (!rc && slots[slot].state != SLOT_GOOD) {
        (void)describe(&slots[slot], text, sizeof(text));
        rc = xlv_fail(e, XLV_E_REFUSED, "instance %s: slot %u cannot be chosen: it %s",
                      store->name, slot, text);
    }
    if (!rc) {
        accept_slots(store, slots, &slots[slot]);
        rc = xlv_store_commit(store, slots[slot].data, slots[slot].info.length, generation, e);
    }
    slot_deinit(&slots[0]);
    slot_deinit(&slots[1]);
    return rc;
}

/* Only where judge() found no generation that was ever acknowledged. Cut short
 * in turn, there are blank sectors, and it finds the same. */
static int blank_again(struct xlv_store *store, struct slot slots[2], struct xlv_error *e)
{
    for (unsigned i = 0; i < 2; i++) {
        int rc;

        if (slots[i].state == SLOT_BLANK)
            continue;
        xlv_sectors_blank(slots[i].sectors, slots[i].count * XLV_SECTOR);
        rc = xlv_pwrite_all(store->fds[i], slots[i].sectors, slots[i].count * XLV_SECTOR, 0);
        if (!rc)
            rc = sync_data(store->fds[i]);
        if (rc)
            return xlv_fail(e, rc, "instance %s: slot %u cannot be made blank again: %s",
                            store->name, i, xlv_strerror(rc));
        slots[i].state = SLOT_BLANK;
        store->prepared[i] = slots[i].count;
    }
    return 0;
}

int xlv_store_rekey(struct xlv_store *store, const uint8_t key[XLV_KEY_SIZE],
                    uint64_t *generation, struct xlv_error *e)
{
    struct slot slots[2] = { 0 }, *newest = NULL;
    struct xlv_seal *seal = NULL;
    int rc;

    if (!store->loaded)
        return xlv_fail(e, -EINVAL, "instance %s: a change of key before a load that succeeded",
                        store->name);
    rc = read_slots(store, slots, e);
    if (!rc)
        rc = judge(store, slots, &newest, e);
    if (rc == XLV_E_EMPTY)
        rc = blank_again(store, slots, e);
    if (!rc)
        rc = xlv_seal_new(&seal, XLV_SEAL_STORE, &store->uuid, key, e);
    if (!rc) {
        xlv_seal_free(store->seal);
        store->seal = seal;
    }
    if (!rc && !newest) {
        *generation = 0;
    } else if (!rc) {
        for (unsigned i = 0; i < XLV_STORE_REKEY_COMMITS && !rc; i++)
            rc = xlv_store_commit(store, newest->data, newest->info.length, generation, e);
    }
    slot_deinit(&slots[0]);
    slot_deinit(&slots[1]);
    return rc;
}
