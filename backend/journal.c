/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal: see journal.h for what it is for, docs/formats.md for the format.
 *
 * One control page, then two places of a fixed size for whole records, then two
 * small ones for exchanges. The file has its full
 * size from the start, so that addresses never change; it is sparse, and the
 * pages of a place are allocated (fallocate) before they are touched, since a
 * full tmpfs answers a touched hole with SIGBUS.
 *
 * Order of an append: seal into the place that `current` does not name ->
 * store `current` (release). A kill before leaves the previous record named,
 * untouched and whole; a kill after leaves the new one. The place that is
 * named was therefore complete: if it does not verify, that is damage and
 * never an append cut short, and the older record is not taken in its stead
 * (its command would be executed a second time).
 *
 * An exchange is the same with `exchange` and its own two places. All appends are
 * numbered in one row: an exchange counts where its number is above that of the
 * newest whole record, on whose states it then rests.
 *
 * The control words are single 64-bit stores. They are not sealed: whoever can
 * write to the journal can put an old one back as well.
 */
#include "config.h"

#include "backend/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend/seal.h"
#include "common/bytes.h"
#include "common/fd.h"

#define CONTROL_SIZE XLV_PAGE_SIZE
#define META_SIZE 64u
#define BODY_MAX \
    (META_SIZE + 2 * XLV_TPM_BUFFER_MAX + XLV_PERMANENT_MAX + XLV_VOLATILE_MAX)
#define PLACE_SIZE \
    ((XLV_SEAL_HEAD + BODY_MAX + XLV_PAGE_SIZE - 1) / XLV_PAGE_SIZE * XLV_PAGE_SIZE)
#define EXCHANGE_MAX (META_SIZE + 2 * XLV_TPM_BUFFER_MAX + XLV_JOURNAL_REPEAT_MAX)
#define EXCHANGE_SIZE \
    ((XLV_SEAL_HEAD + EXCHANGE_MAX + XLV_PAGE_SIZE - 1) / XLV_PAGE_SIZE * XLV_PAGE_SIZE)
#define FILE_SIZE (CONTROL_SIZE + 2 * (size_t)PLACE_SIZE + 2 * (size_t)EXCHANGE_SIZE)
#define GROWTH (32u * 1024u) /* an ordinary record fits the first one */

/* "XLVTPMJ" and the layout's version, 3. In version 2 nothing that is to be repeated changes the
 * permanent state, version 1 had no exchanges. Both are read still; the next append makes it 3. */
#define MAGIC 0x034a4d5054564c58u
#define MAGIC_WORD 0x004a4d5054564c58u
#define MAGIC_VERSION(word) ((unsigned)((word) >> 56))
#define MAGIC_MASK 0x00ffffffffffffffu

/* `current` and `attempts` are several values that must change together. */
#define CURRENT_BITS 48 /* number << 1 | place; above them 16 bits of check */
#define CURRENT_MASK ((UINT64_C(1) << CURRENT_BITS) - 1)
#define ATTEMPT_BITS 16
#define ATTEMPT_MASK ((UINT64_C(1) << ATTEMPT_BITS) - 1)

/* Whole records go to 0 and 1, exchanges to 2 and 3. */
#define EXCHANGES 2u
#define PLACES 4u

struct control {
    _Atomic uint64_t magic; /* 0: new file; written last when it is set up */
    uint64_t pad0[7];
    _Atomic uint64_t current; /* see current_of(); 0: no record */
    uint64_t pad1[7];
    _Atomic uint64_t attempts; /* sequence << 16 | count */
    uint64_t pad2[7];
    _Atomic uint64_t marked; /* sequence */
    uint64_t pad3[7];
    _Atomic uint64_t exchange; /* as `current` */
};
_Static_assert(sizeof(struct control) <= CONTROL_SIZE, "one page");
_Static_assert(sizeof(struct control) <= XLV_STATISTICS_OFFSET, "in front of what is counted");
_Static_assert(XLV_STATISTICS_OFFSET + sizeof(struct xlv_statistics) <= CONTROL_SIZE, "one page");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "the control words must be single stores");

struct xlv_journal {
    int fd;
    char name[XLV_UUID_TEXT];
    struct xlv_seal *seal;
    uint8_t *map;
    struct control *control;
    size_t allocated[PLACES]; /* bytes of each place */
    bool ready;               /* loaded or cleared: appends know where to go */
    bool complete;            /* the last whole record has both states */
    uint8_t *body[2];         /* plaintexts of what was loaded: whole record, exchange */
    size_t body_length[2];
    uint8_t front[META_SIZE + 2 * XLV_TPM_BUFFER_MAX]; /* of the plaintext at hand */
};

/*
 * Which append is the newest and where it is. The check keeps a flipped bit
 * from making it "no record".
 */
static uint64_t current_of(uint64_t number, unsigned place)
{
    uint64_t word = (number << 1 | place) & CURRENT_MASK;

    return word | (~(word ^ word >> 16 ^ word >> 32) & 0xffff) << CURRENT_BITS;
}

static uint64_t number_of(uint64_t current)
{
    return (current & CURRENT_MASK) >> 1;
}

static size_t offset_of(unsigned place)
{
    return place < EXCHANGES ? CONTROL_SIZE + place * (size_t)PLACE_SIZE
                             : CONTROL_SIZE + 2 * (size_t)PLACE_SIZE +
                                   (place - EXCHANGES) * (size_t)EXCHANGE_SIZE;
}

static uint8_t *place_of(struct xlv_journal *journal, unsigned place)
{
    return journal->map + offset_of(place);
}

static int allocate(struct xlv_journal *journal, unsigned place, size_t length)
{
    size_t from = journal->allocated[place];
    size_t growth = place < EXCHANGES ? GROWTH : XLV_PAGE_SIZE;
    size_t size = place < EXCHANGES ? PLACE_SIZE : EXCHANGE_SIZE;
    int rc;

    if (length <= from)
        return 0;
    length = (length + growth - 1) / growth * growth;
    if (length > size)
        length = size;
    do
        rc = posix_fallocate(journal->fd, (off_t)(offset_of(place) + from),
                             (off_t)(length - from));
    while (rc == EINTR);
    if (!rc)
        journal->allocated[place] = length;
    return -rc;
}

/* Makes the file as large as the layout, with the control page allocated. */
static int set_size(int fd)
{
    struct stat st;
    int rc;

    if (fstat(fd, &st))
        return -errno;
    if (st.st_size < (off_t)FILE_SIZE) {
        do
            rc = ftruncate(fd, (off_t)FILE_SIZE);
        while (rc && errno == EINTR);
        if (rc)
            return -errno;
    }
    do
        rc = posix_fallocate(fd, 0, CONTROL_SIZE);
    while (rc == EINTR);
    return -rc;
}

int xlv_journal_new(struct xlv_journal **out, int fd, const struct xlv_uuid *uuid,
                    const uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    struct xlv_journal *journal = calloc(1, sizeof(*journal));
    void *map;
    int rc;

    *out = NULL;
    if (!journal)
        return xlv_fail(e, -ENOMEM, "no memory for the journal");
    journal->fd = fd;
    xlv_uuid_format(uuid, journal->name);
    rc = xlv_seal_new(&journal->seal, XLV_SEAL_JOURNAL, uuid, key, e);
    if (rc)
        goto fail;
    rc = set_size(fd);
    if (rc) {
        xlv_fail(e, rc, "instance %s: cannot size the journal: %s; is the file system of the run "
                 "directory full?", journal->name, xlv_strerror(rc));
        goto fail;
    }
    map = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        rc = -errno;
        xlv_fail(e, rc, "instance %s: cannot map the journal: %s", journal->name,
                 xlv_strerror(rc));
        goto fail;
    }
    journal->map = map;
    journal->control = map;
    *out = journal;
    return 0;

fail:
    xlv_journal_free(journal);
    return rc;
}

static void forget_bodies(struct xlv_journal *journal)
{
    for (unsigned i = 0; i < 2; i++) {
        if (journal->body[i])
            OPENSSL_clear_free(journal->body[i], journal->body_length[i]);
        journal->body[i] = NULL;
        journal->body_length[i] = 0;
    }
}

void xlv_journal_free(struct xlv_journal *journal)
{
    if (!journal)
        return;
    forget_bodies(journal);
    if (journal->map)
        munmap(journal->map, FILE_SIZE);
    xlv_seal_free(journal->seal);
    OPENSSL_cleanse(journal->front, sizeof(journal->front));
    free(journal);
}

static int parse_body(const uint8_t *body, size_t length, struct xlv_journal_record *record)
{
    struct xlv_bytes r = xlv_bytes_reader(body, length);

    record->sequence = xlv_get_u64(&r);
    record->generation = xlv_get_u64(&r);
    record->ring.domid = xlv_get_u32(&r);
    record->ring.devid = xlv_get_u32(&r);
    record->ring.ring_ref = xlv_get_u32(&r);
    record->ring.event_channel = xlv_get_u32(&r);
    record->outcome = xlv_get_u32(&r);
    record->request_length = xlv_get_u32(&r);
    record->response_length = xlv_get_u32(&r);
    record->volatile_length = xlv_get_u32(&r);
    record->permanent_length = xlv_get_u32(&r);
    record->repeat_length = xlv_get_u32(&r);
    record->repeat_changes = xlv_get_u32(&r) != 0;
    xlv_get_view(&r, META_SIZE - r.at);
    record->request = xlv_get_view(&r, record->request_length);
    record->response = xlv_get_view(&r, record->response_length);
    record->volatile_state = xlv_get_view(&r, record->volatile_length);
    record->permanent = xlv_get_view(&r, record->permanent_length);
    record->repeat = xlv_get_view(&r, record->repeat_length);
    return xlv_bytes_ok(&r) && !xlv_bytes_left(&r) ? 0 : XLV_E_CORRUPT;
}

/* What `current` or `exchange` names; first is 0 or EXCHANGES. */
static int load_place(struct xlv_journal *journal, uint64_t current, unsigned first,
                      struct xlv_journal_record *record)
{
    unsigned place = first + (current & 1), which = first ? 1 : 0;
    size_t max = first ? EXCHANGE_MAX : BODY_MAX;
    uint8_t head[XLV_SEAL_HEAD], *body;
    struct xlv_seal_info info;
    int rc;

    if (current != current_of(number_of(current), current & 1))
        return XLV_E_CORRUPT;
    rc = allocate(journal, place, XLV_SEAL_HEAD);
    if (rc)
        return rc;
    /* one fetch: what was checked is what is used */
    memcpy(head, place_of(journal, place), sizeof(head));
    rc = xlv_seal_parse(journal->seal, head, &info);
    if (!rc)
        rc = xlv_seal_check(journal->seal, &info);
    if (rc)
        return rc;
    if (info.slot != place || info.number != number_of(current) || info.length > max)
        return XLV_E_CORRUPT;
    rc = allocate(journal, place, XLV_SEAL_HEAD + info.length);
    if (rc)
        return rc;
    body = OPENSSL_malloc(info.length + 1);
    if (!body)
        return -ENOMEM;
    journal->body[which] = body;
    journal->body_length[which] = info.length;
    rc = xlv_seal_open(journal->seal, head, &info, place_of(journal, place) + XLV_SEAL_HEAD, body);
    if (!rc)
        rc = parse_body(body, info.length, record);
    if (!rc && !first && record->repeat_changes)
        rc = XLV_E_CORRUPT;
    return rc;
}

/* The newest whole record, with the exchange on top of it where there is a newer one. */
static int load_newest(struct xlv_journal *journal, uint64_t current, uint64_t exchange,
                       struct xlv_journal_record *record)
{
    struct xlv_journal_record on_top;
    int rc = load_place(journal, current, 0, record);

    if (rc)
        return rc;
    journal->complete = record->permanent_length > 0;
    if (exchange && exchange != current_of(number_of(exchange), exchange & 1))
        return XLV_E_CORRUPT;
    if (number_of(exchange) <= number_of(current))
        return 0;
    rc = load_place(journal, exchange, EXCHANGES, &on_top);
    if (rc)
        return rc;
    if (on_top.volatile_length || on_top.permanent_length ||
        (on_top.repeat_changes && !journal->complete))
        return XLV_E_CORRUPT;
    if (!on_top.repeat_changes)
        on_top.generation = record->generation;
    on_top.volatile_state = record->volatile_state;
    on_top.volatile_length = record->volatile_length;
    on_top.permanent = record->permanent;
    on_top.permanent_length = record->permanent_length;
    *record = on_top;
    return 0;
}

int xlv_journal_load(struct xlv_journal *journal, struct xlv_journal_record *record,
                     struct xlv_error *e)
{
    uint64_t magic = atomic_load_explicit(&journal->control->magic, memory_order_acquire);
    uint64_t current = atomic_load_explicit(&journal->control->current, memory_order_acquire);
    uint64_t exchange = atomic_load_explicit(&journal->control->exchange, memory_order_acquire);
    int rc;

    memset(record, 0, sizeof(*record));
    forget_bodies(journal);
    journal->ready = false;
    if (!magic && !current) {
        journal->ready = true;
        return XLV_E_EMPTY;
    }
    if ((magic & MAGIC_MASK) != MAGIC_WORD || !MAGIC_VERSION(magic))
        return xlv_fail(e, XLV_E_CORRUPT, "instance %s: the journal is damaged: it does not begin "
                        "as one", journal->name);
    if (MAGIC_VERSION(magic) > MAGIC_VERSION(MAGIC))
        return xlv_fail(e, XLV_E_VERSION, "instance %s: the journal has layout %u, this program "
                        "knows 1 to %u; use the newer program that wrote it", journal->name,
                        MAGIC_VERSION(magic), MAGIC_VERSION(MAGIC));
    if (!current) {
        journal->ready = true;
        return XLV_E_EMPTY;
    }
    rc = load_newest(journal, current, exchange, record);
    if (!rc) {
        journal->ready = true;
        return 0;
    }
    memset(record, 0, sizeof(*record));
    forget_bodies(journal);
    switch (rc) {
    case XLV_E_VERSION:
        return xlv_fail(e, rc, "instance %s: the journal's record has a newer format than this "
                        "program knows", journal->name);
    case XLV_E_WRONG_OWNER:
        return xlv_fail(e, rc, "instance %s: the journal belongs to another instance",
                        journal->name);
    case XLV_E_WRONG_KEY:
        return xlv_fail(e, rc, "instance %s: the journal is sealed with another key; the daemon "
                        "that wrote it has lost its key", journal->name);
    case XLV_E_CORRUPT:
        return xlv_fail(e, rc, "instance %s: the journal is damaged: record %" PRIu64 " does not "
                        "verify", journal->name, number_of(current));
    default:
        return xlv_fail(e, rc, "instance %s: cannot read the journal: %s", journal->name,
                        xlv_strerror(rc));
    }
}

/* What is there of a sparse file. */
static int copy_data(int from, int to, off_t size)
{
    uint8_t block[16384];
    off_t at = 0;

    if (ftruncate(to, size))
        return -errno;
    while (at < size) {
        off_t data = lseek(from, at, SEEK_DATA), hole;

        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        for (at = data; at < hole && at < size; ) {
            size_t want = hole - at < (off_t)sizeof(block) ? (size_t)(hole - at) : sizeof(block);
            int rc = xlv_pread_all(from, block, want, at);

            if (!rc)
                rc = xlv_pwrite_all(to, block, want, at);
            if (rc)
                return rc;
            at += (off_t)want;
        }
    }
    return 0;
}

bool xlv_journal_has_record(const char *path)
{
    int fd XLV_CLOSE = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct control control;
    struct stat st;

    if (fd < 0)
        return errno != ENOENT;
    if (!fstat(fd, &st) && !st.st_size)
        return false;
    return xlv_pread_all(fd, &control, sizeof(control), 0) || control.current;
}

/*
 * What is named is not written to before another has been named: with the same names after the
 * copying as before it, what they name was still all the while.
 */
int xlv_journal_copy(int from, int to)
{
    struct control before, after;
    struct stat st;
    int rc;

    if (fstat(from, &st))
        return -errno;
    if (!st.st_size) /* none yet */
        return 0;
    rc = xlv_pread_all(from, &before, sizeof(before), 0);
    if (!rc)
        rc = copy_data(from, to, st.st_size);
    if (!rc)
        rc = xlv_pread_all(from, &after, sizeof(after), 0);
    /* and what names them is of then */
    if (!rc)
        rc = xlv_pwrite_all(to, &after, sizeof(after), 0);
    if (rc)
        return rc;
    return before.magic == after.magic && before.current == after.current &&
           before.exchange == after.exchange ? 0 : XLV_E_CONFLICT;
}

static int put(struct xlv_seal *seal, uint8_t **to, const uint8_t *from, size_t length)
{
    int rc = xlv_seal_update(seal, *to, from, length);

    *to += length;
    return rc;
}

/* Seals the record into the place; the ciphertext goes straight to the file. */
static int write_place(struct xlv_journal *journal, unsigned place, uint64_t number,
                       const struct xlv_journal_record *record, uint32_t length)
{
    uint8_t *to = place_of(journal, place) + XLV_SEAL_HEAD, head[XLV_SEAL_HEAD];
    struct xlv_bytes w = xlv_bytes_writer(journal->front, sizeof(journal->front));
    struct xlv_seal *seal = journal->seal;
    int rc;

    xlv_put_u64(&w, record->sequence);
    xlv_put_u64(&w, record->generation);
    xlv_put_u32(&w, record->ring.domid);
    xlv_put_u32(&w, record->ring.devid);
    xlv_put_u32(&w, record->ring.ring_ref);
    xlv_put_u32(&w, record->ring.event_channel);
    xlv_put_u32(&w, record->outcome);
    xlv_put_u32(&w, record->request_length);
    xlv_put_u32(&w, record->response_length);
    xlv_put_u32(&w, record->volatile_length);
    xlv_put_u32(&w, record->permanent_length);
    xlv_put_u32(&w, record->repeat_length);
    xlv_put_u32(&w, record->repeat_changes);
    xlv_put_u32(&w, 0);
    /* in one piece: to encrypt them one by one takes longer than to copy them */
    xlv_put_data(&w, record->request, record->request_length);
    xlv_put_data(&w, record->response, record->response_length);

    rc = xlv_seal_begin(seal, head, place, number, 0, length);
    if (!rc)
        rc = put(seal, &to, journal->front, w.at);
    if (!rc)
        rc = put(seal, &to, record->volatile_state, record->volatile_length);
    if (!rc)
        rc = put(seal, &to, record->permanent, record->permanent_length);
    if (!rc)
        rc = put(seal, &to, record->repeat, record->repeat_length);
    if (!rc)
        rc = xlv_seal_finish(seal, head);
    if (!rc)
        memcpy(place_of(journal, place), head, sizeof(head));
    return rc;
}

/* Seals a record of this length into the next of the two places that begin with `first`, and
 * names it in `word`. */
static int append(struct xlv_journal *journal, _Atomic uint64_t *word, unsigned first,
                  const struct xlv_journal_record *record, uint32_t length, struct xlv_error *e)
{
    struct control *control = journal->control;
    uint64_t current = atomic_load_explicit(&control->current, memory_order_relaxed);
    uint64_t exchange = atomic_load_explicit(&control->exchange, memory_order_relaxed);
    uint64_t newest = number_of(current) > number_of(exchange) ? number_of(current)
                                                               : number_of(exchange);
    unsigned half = !(atomic_load_explicit(word, memory_order_relaxed) & 1);
    int rc = allocate(journal, first + half, XLV_SEAL_HEAD + length);

    if (rc)
        return xlv_fail(e, rc, "instance %s: the journal cannot grow to %" PRIu32 " bytes: %s; is "
                        "the file system of the run directory full?", journal->name, length,
                        xlv_strerror(rc));
    rc = write_place(journal, first + half, newest + 1, record, length);
    if (rc)
        return xlv_fail(e, rc, "instance %s: cannot seal a record: %s", journal->name,
                        xlv_strerror(rc));
    if (atomic_load_explicit(&control->magic, memory_order_relaxed) != MAGIC)
        atomic_store_explicit(&control->magic, MAGIC, memory_order_release);
    atomic_store_explicit(word, current_of(newest + 1, half), memory_order_release);
    return 0;
}

static int too_large(const struct xlv_journal *journal, const struct xlv_journal_record *record,
                     struct xlv_error *e)
{
    return xlv_fail(e, XLV_E_INVALID, "instance %s: a record above the limits: request %" PRIu32
                    ", response %" PRIu32 ", volatile %" PRIu32 ", permanent %" PRIu32 ", to be "
                    "repeated %" PRIu32, journal->name, record->request_length,
                    record->response_length, record->volatile_length, record->permanent_length,
                    record->repeat_length);
}

static int unknown_places(const struct xlv_journal *journal, struct xlv_error *e)
{
    return xlv_fail(e, -EINVAL, "instance %s: an append before the journal was loaded or cleared, "
                    "or an exchange without the record that it needs", journal->name);
}

int xlv_journal_append(struct xlv_journal *journal, const struct xlv_journal_record *record,
                       struct xlv_error *e)
{
    uint32_t length;
    int rc;

    if (!journal->ready)
        return unknown_places(journal, e);
    if (record->request_length > XLV_TPM_BUFFER_MAX ||
        record->response_length > XLV_TPM_BUFFER_MAX ||
        record->volatile_length > XLV_VOLATILE_MAX ||
        record->permanent_length > XLV_PERMANENT_MAX ||
        record->repeat_length > XLV_JOURNAL_REPEAT_MAX || record->repeat_changes)
        return too_large(journal, record, e);
    length = META_SIZE + record->request_length + record->response_length +
             record->volatile_length + record->permanent_length + record->repeat_length;
    if (length > BODY_MAX) /* all of these are never that long at once */
        return too_large(journal, record, e);
    rc = append(journal, &journal->control->current, 0, record, length, e);
    if (!rc)
        journal->complete = record->permanent_length > 0;
    return rc;
}

int xlv_journal_append_exchange(struct xlv_journal *journal,
                                const struct xlv_journal_record *record, struct xlv_error *e)
{
    struct xlv_journal_record exchange = *record;

    if (!journal->ready ||
        !atomic_load_explicit(&journal->control->current, memory_order_relaxed) ||
        (record->repeat_changes && !journal->complete))
        return unknown_places(journal, e);
    if (record->request_length > XLV_TPM_BUFFER_MAX ||
        record->response_length > XLV_TPM_BUFFER_MAX ||
        record->repeat_length > XLV_JOURNAL_REPEAT_MAX)
        return too_large(journal, record, e);
    exchange.volatile_length = exchange.permanent_length = 0;
    return append(journal, &journal->control->exchange, EXCHANGES, &exchange,
                  META_SIZE + record->request_length + record->response_length +
                      record->repeat_length, e);
}

uint32_t xlv_journal_begin(struct xlv_journal *journal, uint64_t sequence)
{
    struct control *control = journal->control;
    uint64_t word = atomic_load_explicit(&control->attempts, memory_order_relaxed);
    uint64_t count = word >> ATTEMPT_BITS == (sequence & (UINT64_MAX >> ATTEMPT_BITS))
                         ? word & ATTEMPT_MASK : 0;

    if (count < ATTEMPT_MASK)
        count++;
    atomic_store_explicit(&control->attempts, sequence << ATTEMPT_BITS | count,
                          memory_order_release);
    return (uint32_t)count;
}

void xlv_journal_mark(struct xlv_journal *journal, uint64_t sequence)
{
    atomic_store_explicit(&journal->control->marked, sequence, memory_order_release);
}

uint64_t xlv_journal_marked(const struct xlv_journal *journal)
{
    /* a clear cut short leaves the mark of a record that is gone */
    if (!atomic_load_explicit(&journal->control->current, memory_order_acquire))
        return 0;
    return atomic_load_explicit(&journal->control->marked, memory_order_acquire);
}

struct xlv_statistics *xlv_journal_statistics(struct xlv_journal *journal)
{
    struct xlv_statistics *s = (void *)(journal->map + XLV_STATISTICS_OFFSET);

    if (s->magic != XLV_STATISTICS_MAGIC)
        *s = (struct xlv_statistics){ .magic = XLV_STATISTICS_MAGIC };
    return s;
}

int xlv_journal_clear(struct xlv_journal *journal, struct xlv_error *e)
{
    struct control *control = journal->control;

    (void)e; /* nothing of this can fail; the contract leaves room for it */
    forget_bodies(journal);
    /* the record first: without it nothing else in here means anything */
    atomic_store_explicit(&control->current, 0, memory_order_release);
    atomic_store_explicit(&control->exchange, 0, memory_order_release);
    atomic_store_explicit(&control->marked, 0, memory_order_release);
    atomic_store_explicit(&control->attempts, 0, memory_order_release);
    atomic_store_explicit(&control->magic, MAGIC, memory_order_release);
    journal->ready = true;
    return 0;
}
