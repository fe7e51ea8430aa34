/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The session: see session.h, which also holds the reasoning about kills. */
#include "config.h"

#include "backend/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cancel.h"
#include "backend/command.h"
#include "backend/engine.h"
#include "backend/kept.h"
#include "backend/ring.h"
#include "common/bytes.h"
#include "common/fd.h"
#include "common/log.h"

struct state {
    uint8_t *data;
    size_t length;
};

/* What the journal says about the last command of our own ring, until the
 * page has been looked at for the first time. */
struct leftover {
    bool there, marked;
    enum xlv_journal_outcome outcome;
    uint8_t request[XLV_TPM_BUFFER_MAX], response[XLV_TPM_BUFFER_MAX];
    size_t request_length, response_length;
};

struct xlv_session {
    struct xlv_session_config c;
    void *page;
    enum xlv_session_step step;
    bool first_look; /* nobody has looked at the page yet */
    bool resumed, quarantine;
    bool amid; /* the TPM begins again in the middle of the domain's boot */

    uint64_t generation; /* of the store, by the last commit or load that worked */
    unsigned failed;     /* commits that failed since; see commit() */
    bool owed;           /* the store holds more than the last durable pair: a kept state */
    uint64_t sequence;   /* of the last command recorded */
    uint64_t commits;

    /* The last pair that was recorded whole; what was done to it since, to be done again
     * wherever it is restored: u32 locality, u32 length, the request, u64 what it was answered
     * (in_short()), and so on. */
    struct state base, volatile_state; /* base: empty where it is `permanent` still */
    uint8_t again[XLV_JOURNAL_REPEAT_MAX];
    size_t again_length, next_again_length; /* next: with the command at hand */
    bool complete; /* the journal has base as well: what changes it can be done again, too */
    struct state permanent; /* the last that is durable */
    bool drawn; /* and the generator was turned by what will not be done again */
    bool audits; /* TPM 2.0: reading changes the state, see xlv_engine_audits() */
    struct state next_permanent, next_volatile_state; /* of the command at hand; permanent
                                                         NULL: unchanged */
    /* the command at hand */
    struct xlv_ring_snapshot snapshot;
    struct xlv_ring_view view;
    bool refused; /* not for the TPM: answered with fault */
    bool nonsense; /* and no driver sends such a thing */
    enum xlv_command_fault fault;
    enum xlv_journal_outcome outcome;
    uint8_t request[XLV_TPM_BUFFER_MAX], response[XLV_TPM_BUFFER_MAX];
    size_t request_length, response_length;

    struct leftover leftover;

    struct xlv_statistics *statistics;
    uint64_t found_ns, found_commits; /* when the command at hand was found; commits by then */

    struct state kept; /* the volatile state that was kept with the permanent one */
    uint32_t kept_domid;
};

static void state_clear(struct state *state)
{
    xlv_engine_wipe(state->data, state->length);
    *state = (struct state){ 0 };
}

static void state_move(struct state *to, struct state *from)
{
    state_clear(to);
    *to = *from;
    *from = (struct state){ 0 };
}

static int state_copy(struct state *to, const uint8_t *data, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, length);
    state_clear(to);
    *to = (struct state){ .data = copy, .length = length };
    return 0;
}

/* --- states and records -------------------------------------------------- */

static int take_again(struct xlv_session *s, const struct xlv_journal_record *record,
                      struct xlv_error *e)
{
    if (record->repeat_length > sizeof(s->again))
        return xlv_fail(e, XLV_E_CORRUPT, "the journal has %u bytes of commands to be repeated",
                        record->repeat_length);
    s->again_length = record->repeat_length;
    s->next_again_length = s->again_length;
    if (s->again_length)
        memcpy(s->again, record->repeat, s->again_length);
    s->complete = record->permanent_length > 0;
    return record->repeat_changes
               ? state_copy(&s->base, record->permanent, record->permanent_length) : 0;
}

/* Tells whether two responses are the same: FNV-1a, 64 bits. */
static uint64_t in_short(const uint8_t *response, size_t length)
{
    uint64_t v = 0xcbf29ce484222325u;

    for (size_t i = 0; i < length; i++)
        v = (v ^ response[i]) * 0x100000001b3u;
    return v;
}

/* The engine's state, exactly: the pair, and what was done to it since. To be stirred. */
static int restore(struct xlv_session *s, struct xlv_error *e)
{
    struct xlv_bytes c = xlv_bytes_reader(s->again, s->again_length);
    const struct state *base = s->base.data ? &s->base : &s->permanent;
    int r = xlv_engine_load(s->c.version, base->data, base->length, s->volatile_state.data,
                            s->volatile_state.length, e);

    while (!r && xlv_bytes_left(&c)) {
        uint32_t locality = xlv_get_u32(&c), length = xlv_get_u32(&c);
        const uint8_t *request = xlv_get_view(&c, length), *response = NULL;
        uint64_t answered = xlv_get_u64(&c);
        size_t response_length = 0;

        if (!request || !xlv_bytes_ok(&c) || locality > XLV_LOCALITY_MAX)
            r = xlv_fail(e, XLV_E_CORRUPT, "the journal's commands to be repeated are damaged");
        else
            r = xlv_engine_execute((uint8_t)locality, request, length, &response,
                                   &response_length, e);
        if (!r && in_short(response, response_length) != answered)
            r = xlv_fail(e, XLV_E_CORRUPT, "command 0x%x, which had succeeded, cannot be repeated: "
                         "it is answered otherwise now (0x%x)", xlv_command_code(request, length),
                         xlv_response_code(response, response_length));
    }
    return r;
}

/* Two heirs of one state must not draw the same. */
static int stir(struct xlv_session *s, struct xlv_error *e)
{
    s->drawn = true;
    return xlv_engine_stir(e);
}

/* What the engine holds now becomes the next permanent state, if that is another. */
static int take_permanent(struct xlv_session *s, struct xlv_error *e)
{
    int r;

    state_clear(&s->next_permanent);
    state_clear(&s->next_volatile_state);
    if (xlv_engine_changed()) {
        r = xlv_engine_permanent(&s->next_permanent.data, &s->next_permanent.length, e);
        if (r)
            return r;
        /* libtpms stores more often than something changes */
        if (!s->failed && !s->owed && s->next_permanent.length == s->permanent.length &&
            !memcmp(s->next_permanent.data, s->permanent.data, s->permanent.length))
            state_clear(&s->next_permanent);
    } else if (s->failed || s->owed) {
        /* the store may hold what we have disowned: see commit(); or a kept state, which
         * is over */
        return state_copy(&s->next_permanent, s->permanent.data, s->permanent.length);
    }
    return 0;
}

/* What the engine holds now becomes the next pair. */
static int take_states(struct xlv_session *s, struct xlv_error *e)
{
    int r = take_permanent(s, e);

    s->next_again_length = 0;
    return r ? r : xlv_engine_volatile(&s->next_volatile_state.data,
                                       &s->next_volatile_state.length, e);
}

/* Appends the next pair and the exchange to the journal. */
static int append(struct xlv_session *s, const struct xlv_ring_id *ring,
                  enum xlv_journal_outcome outcome, uint64_t sequence, const uint8_t *request,
                  size_t request_length, const uint8_t *response, size_t response_length,
                  struct xlv_error *e)
{
    struct xlv_journal_record record = {
        .sequence = sequence,
        .generation = s->generation + (s->next_permanent.data ? 1 + s->failed : 0),
        .ring = *ring,
        .outcome = outcome,
        .request = request,
        .request_length = (uint32_t)request_length,
        .response = response,
        .response_length = (uint32_t)response_length,
        .volatile_state = s->next_volatile_state.data,
        .volatile_length = (uint32_t)s->next_volatile_state.length,
        .permanent = s->next_permanent.data,
        .permanent_length = (uint32_t)s->next_permanent.length,
    };
    int r = xlv_journal_append(s->c.journal, &record, e);

    if (!r)
        s->complete = record.permanent_length > 0;
    return r;
}

/* The next pair, or what is to be done again to come to it, is durable now. */
static void adopt(struct xlv_session *s)
{
    if (s->next_volatile_state.data) {
        state_move(&s->volatile_state, &s->next_volatile_state);
        state_clear(&s->base);
        s->drawn = false;
    } else if (s->next_permanent.data && !s->base.data) {
        state_move(&s->base, &s->permanent);
    }
    if (s->next_permanent.data)
        state_move(&s->permanent, &s->next_permanent);
    s->again_length = s->next_again_length;
}

/*
 * Commits a permanent state, with a few tries.
 *
 * A commit that fails may still have reached the disk, at once or later, so
 * after it the store may hold any of the states it was tried with, under any
 * of the generations tried. That is harmless for as long as the journal's last
 * record carries the permanent state that is right, with a generation above
 * all of these: a successor then makes the commit up (see judge()). So while
 * failed is not 0, every record carries the permanent state and the generation
 * s->generation + 1 + s->failed; and no command is executed before a commit of
 * the right state has worked (BEGIN).
 *
 * If the host itself loses power meanwhile, the store alone decides, and may
 * come up with the state that was disowned: a command boundary still, of a
 * command whose answer was "not now" rather than "done".
 */
static int commit(struct xlv_session *s, const struct state *permanent, struct xlv_error *e)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(10, 60);
    struct xlv_error why = XLV_ERROR_INIT;
    uint64_t generation = 0;
    int r = 0;

    for (unsigned i = 0; i < XLV_COMMIT_TRIES; i++) {
        xlv_error_clear(&why);
        r = xlv_store_commit(s->c.store, permanent->data, permanent->length, &generation, &why);
        if (!r) {
            s->generation = generation;
            s->failed = 0;
            s->owed = false;
            s->commits++;
            s->statistics->commits++;
            return 0;
        }
        s->failed++;
        s->statistics->failed_commits++;
        if (xlv_ratelimit_pass(&limit))
            xlv_log(XLV_LOG_ERROR, "a commit of the permanent state failed (try %u of %u): %s",
                    i + 1, XLV_COMMIT_TRIES, why.text[0] ? why.text : xlv_strerror(r));
    }
    return xlv_fail(e, r, "%s", why.text[0] ? why.text : xlv_strerror(r));
}

/* Records and commits a state that belongs to no command of the guest. */
static int settle(struct xlv_session *s, const struct xlv_ring_id *ring, const uint8_t *request,
                  size_t request_length, const uint8_t *response, size_t response_length,
                  struct xlv_error *e)
{
    int r = take_states(s, e);

    if (!r)
        r = append(s, ring, XLV_JOURNAL_STATE_ONLY, s->sequence, request, request_length, response,
                   response_length, e);
    if (!r && s->next_permanent.data)
        r = commit(s, &s->next_permanent, e);
    if (!r)
        adopt(s);
    return r;
}

/* The engine forgets what it did since the last durable pair. */
static int go_back(struct xlv_session *s, struct xlv_error *e)
{
    int r;

    state_clear(&s->next_permanent);
    state_clear(&s->next_volatile_state);
    xlv_engine_off();
    r = restore(s, e);
    return r ? r : stir(s, e);
}

/* --- beginning ----------------------------------------------------------- */

/* --- measuring ----------------------------------------------------------- */

static int write_log(const struct xlv_session *s, const struct xlv_eventlog *log,
                     struct xlv_error *e)
{
    uint8_t bytes[XLV_LOG_FILE_HEADER + XLV_EVENTLOG_MAX];
    struct xlv_bytes c = xlv_bytes_writer(bytes, sizeof(bytes));
    int r;

    if (!s->c.log_fd)
        return 0;
    xlv_put_u32(&c, XLV_LOG_FILE_MAGIC);
    xlv_put_u32(&c, (uint32_t)log->length);
    xlv_put_data(&c, log->bytes, log->length);
    r = xlv_pwrite_all(*s->c.log_fd, bytes, c.at, 0);
    return r ? xlv_fail(e, r, "the event log cannot be written: %s", strerror(-r)) : 0;
}

static int extend(const struct xlv_event *event, void *opaque)
{
    return event->type == XLV_EV_NO_ACTION || !event->digests.banks
               ? 0 : xlv_engine_extend(event->pcr, &event->digests, opaque);
}

/* What was booted, before the guest can extend anything itself. */
static int measure(struct xlv_session *s, struct xlv_error *e)
{
    static struct xlv_eventlog log;
    const struct xlv_measure_boot *boot = s->c.measure;
    const struct xlv_measure_boot amid = {
        .error = "the TPM's state was lost in the middle of the domain's boot",
    };
    struct xlv_error why = XLV_ERROR_INIT;
    struct timespec from, to;
    enum xlv_tpm_version version;
    unsigned banks;
    int r;

    clock_gettime(CLOCK_MONOTONIC, &from);
    log.length = 0;
    if (!boot)
        return write_log(s, &log, e);
    if (s->amid)
        boot = &amid;
    r = xlv_engine_banks(&banks, e);
    if (!r)
        r = xlv_measure(boot, s->c.version, banks, &log, &why);
    if (!r)
        r = write_log(s, &log, e);
    if (!r)
        r = xlv_eventlog_each(log.bytes, log.length, &version, extend, e);
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (!r && why.text[0])
        xlv_log(XLV_LOG_ERROR, "the boot of the domain cannot be measured, so nothing that was "
                "sealed to it opens: %s", why.text);
    else if (!r)
        xlv_log(XLV_LOG_NOTICE, "the boot of the domain was measured in %.2f s: kernel %s, %s%s",
                (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9,
                boot->kernel, boot->ramdisk ? "ramdisk " : "no ramdisk",
                boot->ramdisk ? boot->ramdisk : "");
    return r;
}

/* The TPM of a machine that is being switched on. */
static int cold_start(struct xlv_session *s, struct xlv_error *e)
{
    int r = xlv_engine_load(s->c.version, s->permanent.data, s->permanent.length, NULL, 0, e);

    if (!r)
        r = xlv_engine_startup(e);
    if (!r)
        r = stir(s, e);
    if (!r)
        r = measure(s, e);
    /* not before the TPM is known to work: a state that does not load is left
     * as it is, with its journal */
    if (!r)
        r = xlv_journal_clear(s->c.journal, e);
    s->sequence = 0;
    /* Killed before this record: nothing of the boot has happened yet, the
     * successor begins it anew. A commit of the startup itself may be there
     * already; to the TPM that was one more start. */
    return r ? r : settle(s, &s->c.ring, NULL, 0, NULL, 0, e);
}

enum judgement { PAIR, REDO, BROKEN };

/*
 * Do the journal's last record and the store belong together?
 *   the record has the permanent state, and the store holds the same bytes:
 *       the commit was made (whatever its number: a number that was tried
 *       and failed may have been left out)
 *   the record has one and a later generation than the store: the commit was
 *       not made, or is not the one that counts; it is made up for
 *   the record has none, and the generations are equal: nothing to commit
 * Anything else means that one of the two was exchanged for an older or newer
 * copy; a volatile state must never meet a permanent one of another moment.
 *
 * A kept state in the store is a pair of its own: only a record that is later
 * (the boot that went on from it has begun) counts beside it.
 *
 * A record of what is to be done again and changes the permanent state has that of
 * before it, and its generation is the one after it. There is one number only that
 * its commit can have, as no such record is made while commits fail.
 */
static enum judgement judge(const struct xlv_session *s, const struct xlv_journal_record *record)
{
    if (record->permanent_length && !record->repeat_changes) {
        if (!s->owed && record->permanent_length == s->permanent.length &&
            !memcmp(record->permanent, s->permanent.data, s->permanent.length))
            return PAIR;
        return record->generation > s->generation ? REDO : BROKEN;
    }
    if (record->repeat_changes && record->generation > s->generation)
        return REDO;
    return !s->owed && record->generation == s->generation ? PAIR : BROKEN;
}

/* The boot that the record belongs to is over, and nobody said so in time: do
 * what would have been done then. Failures cost a tick of the dictionary-attack
 * counter, not the start. */
static void end_old_boot(struct xlv_session *s, const struct xlv_ring_id *ring)
{
    struct xlv_error why = XLV_ERROR_INIT;
    uint8_t request[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t request_length, response_length;
    int r;

    r = restore(s, &why);
    if (!r)
        r = xlv_engine_shutdown(request, &request_length, &response, &response_length, &why);
    if (!r && request_length)
        r = settle(s, ring, request, request_length, response, response_length, &why);
    xlv_engine_off();
    if (r)
        xlv_log(XLV_LOG_WARNING, "the TPM could not be shut down in order for the last boot "
                "(domain %u): %s", ring->domid, why.text[0] ? why.text : xlv_strerror(r));
    else
        xlv_log(XLV_LOG_INFO, "the last boot (domain %u) was ended in order", ring->domid);
}

static void power_cut(const char *why)
{
    xlv_log(XLV_LOG_ERROR, "the TPM goes on as after a power cut of the TPM, its PCRs are reset "
            "and its sessions gone: %s", why);
}

static void keep_leftover(struct xlv_session *s, const struct xlv_journal_record *record)
{
    struct leftover *l = &s->leftover;

    if (record->outcome == XLV_JOURNAL_STATE_ONLY ||
        memcmp(&record->ring, &s->c.ring, sizeof(record->ring)) ||
        record->request_length > sizeof(l->request) ||
        record->response_length > sizeof(l->response))
        return;
    l->there = true;
    l->marked = xlv_journal_marked(s->c.journal) == record->sequence;
    l->outcome = (enum xlv_journal_outcome)record->outcome;
    l->request_length = record->request_length;
    l->response_length = record->response_length;
    if (l->request_length)
        memcpy(l->request, record->request, l->request_length);
    if (l->response_length)
        memcpy(l->response, record->response, l->response_length);
}

/* Goes on from the kept state where that is wanted (0), else ends the boot that
 * it is of (XLV_E_EMPTY: a new one has to begin). */
static int take_kept(struct xlv_session *s, bool wanted, struct xlv_error *e)
{
    struct xlv_ring_id ring = { .domid = s->kept_domid };
    int r;

    state_move(&s->volatile_state, &s->kept);
    if (!wanted) {
        xlv_log(XLV_LOG_NOTICE, "a new boot begins; the state that was kept when domain %u was "
                "suspended is given up", s->kept_domid);
        end_old_boot(s, &ring);
        return XLV_E_EMPTY;
    }
    r = restore(s, e);
    if (!r)
        r = stir(s, e);
    if (!r)
        r = xlv_journal_clear(s->c.journal, e);
    if (!r)
        r = settle(s, &s->c.ring, NULL, 0, NULL, 0, e);
    if (r)
        return r;
    s->resumed = true;
    xlv_log(XLV_LOG_NOTICE, "goes on from the state that was kept when domain %u was suspended",
            s->kept_domid);
    return 0;
}

/*
 * The permanent state after what was done again is the store's but for the clock, or what the store
 * still lacks: recorded as a pair, with the record's exchange, which may not have been published,
 * and committed. Killed before the record: as before; after it, it is a record like any other.
 */
static int settle_repeated(struct xlv_session *s, const struct xlv_journal_record *record,
                           struct xlv_error *e)
{
    int r = take_states(s, e);

    if (!r)
        r = append(s, &record->ring, (enum xlv_journal_outcome)record->outcome, record->sequence,
                   record->request, record->request_length, record->response,
                   record->response_length, e);
    if (!r && s->next_permanent.data)
        r = commit(s, &s->next_permanent, e);
    if (!r)
        adopt(s);
    return r;
}

/* 0: the engine is on, and goes on where the record was taken.
 * XLV_E_EMPTY: a new boot has to begin, with s->permanent. */
static int resume(struct xlv_session *s, struct xlv_error *e)
{
    struct xlv_journal_record record;
    struct xlv_error why = XLV_ERROR_INIT;
    struct xlv_ring_id ring;
    bool same_boot, over;
    enum judgement judgement;
    int r = xlv_journal_load(s->c.journal, &record, &why);

    if (r < 0 || r == XLV_E_WRONG_OWNER)
        return xlv_fail(e, r, "%s", why.text[0] ? why.text : "the journal cannot be read");
    if (r && s->owed)
        return take_kept(s, s->c.boot == XLV_BOOT_KEPT, e);
    if (r == XLV_E_EMPTY) {
        xlv_log(XLV_LOG_INFO, "a boot of the domain begins: no journal yet");
        return XLV_E_EMPTY;
    }
    if (r) {
        /* of this boot, or of one before: that is not known any more */
        s->amid = true;
        power_cut(why.text[0] ? why.text : xlv_strerror(r));
        return XLV_E_EMPTY;
    }
    ring = record.ring;
    same_boot = ring.domid == s->c.ring.domid;
    judgement = judge(s, &record);
    if (judgement == BROKEN && s->owed)
        return take_kept(s, same_boot || s->c.boot == XLV_BOOT_KEPT, e);
    switch (judgement) {
    case BROKEN:
        snprintf(why.text, sizeof(why.text), "the journal belongs to generation %llu of the "
                 "store, but the store holds generation %llu; was an older copy put back?",
                 (unsigned long long)record.generation, (unsigned long long)s->generation);
        s->amid = same_boot;
        power_cut(why.text);
        return XLV_E_EMPTY;
    case REDO:
        if (record.repeat_changes)
            break; /* there is nothing to commit before it was done again */
        r = state_copy(&s->permanent, record.permanent, record.permanent_length);
        if (!r)
            r = commit(s, &s->permanent, e);
        if (r)
            return r;
        xlv_log(XLV_LOG_NOTICE, "made up for a commit that was cut short: generation %llu",
                (unsigned long long)s->generation);
        break;
    case PAIR:
        break;
    }
    r = state_copy(&s->volatile_state, record.volatile_state, record.volatile_length);
    if (r)
        return r;
    r = take_again(s, &record, e);
    if (r)
        return r;
    s->sequence = record.sequence;
    over = xlv_command_was_shutdown(record.request, record.request_length, record.response,
                                    record.response_length);
    if (same_boot)
        keep_leftover(s, &record);
    /* from here on the record's pointers are not used where settle() appends */

    if (!same_boot) {
        xlv_log(XLV_LOG_INFO, "a new boot begins: the journal is of domain %u", ring.domid);
        if (!over)
            end_old_boot(s, &ring);
        return XLV_E_EMPTY;
    }
    r = restore(s, &why);
    if (r > 0) {
        xlv_engine_off(); /* with what had been repeated */
        s->amid = true;
        power_cut(why.text);
        s->leftover.there = false;
        return XLV_E_EMPTY;
    }
    if (r < 0)
        return xlv_fail(e, r, "%s", why.text[0] ? why.text : "the TPM cannot be restored");
    r = stir(s, e);
    if (!r && record.repeat_changes)
        r = settle_repeated(s, &record, e);
    if (r)
        return r;
    /* Else no record of this: until the next one a successor restores the same pair
     * and stirs for itself, and nothing was drawn from the generator. */
    s->resumed = true;
    xlv_log(XLV_LOG_NOTICE, "resumed from the journal after command %llu%s",
            (unsigned long long)s->sequence,
            memcmp(&ring, &s->c.ring, sizeof(ring)) ? ", on a new ring" : "");
    return 0;
}

/* The store, with a kept state beside the permanent one where it holds one. */
static int load_store(struct xlv_session *s, struct xlv_error *e)
{
    struct xlv_kept kept;
    size_t length;
    int r = xlv_store_load(s->c.store, &s->permanent.data, &s->permanent.length, &s->generation,
                           e);

    if (r == XLV_E_EMPTY)
        return xlv_fail(e, r, "the instance has no TPM yet: its store was never written");
    if (r)
        return r;
    r = xlv_kept_split(s->permanent.data, s->permanent.length, &kept, &length);
    if (r)
        return xlv_fail(e, r, "the state in the store has a kept state that is none");
    if (!kept.there)
        return 0;
    s->owed = true;
    s->kept_domid = kept.domid;
    r = state_copy(&s->kept, kept.volatile_state, kept.volatile_length);
    explicit_bzero(s->permanent.data + length, s->permanent.length - length);
    s->permanent.length = length;
    return r;
}

/* Commits the last durable pair as one; then nobody needs the journal's word, unless the same
 * domain may go on: then it tells that this is so (resume()). The engine is on where something
 * was done to the pair since. */
static int keep(struct xlv_session *s, uint32_t domid, bool may_go_on, struct xlv_error *e)
{
    struct xlv_kept kept = { .domid = domid };
    struct state pair = { 0 };
    int r = s->again_length ? take_states(s, e) : 0;

    if (r)
        return r;
    adopt(s);
    kept.volatile_state = s->volatile_state.data;
    kept.volatile_length = s->volatile_state.length;
    r = xlv_kept_join(s->permanent.data, s->permanent.length, &kept, &pair.data, &pair.length);
    if (r)
        return xlv_fail(e, r, "the state of the suspended domain %u cannot be kept: %s", domid,
                        xlv_strerror(r));
    r = commit(s, &pair, e);
    state_clear(&pair);
    if (!r && !may_go_on)
        r = xlv_journal_clear(s->c.journal, e);
    if (!r)
        xlv_log(XLV_LOG_NOTICE, "domain %u is suspended: its state is kept (generation %llu)",
                domid, (unsigned long long)s->generation);
    return r;
}

int xlv_session_new(struct xlv_session **out, const struct xlv_session_config *config,
                    struct xlv_error *e)
{
    struct xlv_session *s = calloc(1, sizeof(*s));
    int r;

    *out = NULL;
    if (!s)
        return -ENOMEM;
    s->c = *config;
    s->statistics = xlv_journal_statistics(config->journal);
    s->page = xlv_port_page(config->port);
    s->first_look = true;
    r = load_store(s, e);
    if (r)
        goto out;
    r = resume(s, e);
    if (r == XLV_E_EMPTY && config->boot == XLV_BOOT_KEPT)
        r = xlv_fail(e, XLV_E_REFUSED, "the domain was restored, but the state that was kept when "
                     "it was suspended is not there any more; `xl-vtpm accept` lets it have a TPM "
                     "that was reset");
    if (r == XLV_E_EMPTY)
        r = cold_start(s, e);
    /* both are the caller's, for as long as this call */
    s->c.measure = NULL;
    s->c.log_fd = NULL;
    if (!r && s->c.version == XLV_TPM_2_0)
        r = xlv_engine_audits(&s->audits, e);
out:
    if (r) {
        xlv_session_free(s);
        return r;
    }
    s->statistics->processes++;
    *out = s;
    return 0;
}

void xlv_session_free(struct xlv_session *s)
{
    if (!s)
        return;
    xlv_engine_off();
    state_clear(&s->base);
    state_clear(&s->permanent);
    state_clear(&s->volatile_state);
    state_clear(&s->next_permanent);
    state_clear(&s->next_volatile_state);
    state_clear(&s->kept);
    explicit_bzero(s, sizeof(*s));
    free(s);
}

/* --- one command --------------------------------------------------------- */

static void refuse(struct xlv_session *s, enum xlv_command_fault fault)
{
    s->refused = true;
    s->fault = fault;
}

/* Puts the TPM's error response in the place of what there was. */
static void answer_fault(struct xlv_session *s, enum xlv_command_fault fault)
{
    s->outcome = XLV_JOURNAL_FINISH;
    s->response_length = xlv_command_error(s->c.version, s->request, s->request_length, fault,
                                           s->response);
}

/* Copies the request that the snapshot describes out of the page. */
static void fetch_request(struct xlv_session *s)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(5, 60);
    enum xlv_ring_fault bad = xlv_ring_check(&s->snapshot);

    s->refused = false;
    s->outcome = XLV_JOURNAL_FINISH;
    s->response_length = 0;
    s->view = xlv_ring_view(s->page, &s->snapshot);
    if (bad == XLV_RING_GOES_ON)
        refuse(s, XLV_FAULT_PAGES);
    else if (bad != XLV_RING_OK)
        refuse(s, XLV_FAULT_SIZE);
    else if (s->snapshot.locality > s->c.max_locality)
        refuse(s, XLV_FAULT_LOCALITY);
    s->nonsense = s->refused;
    s->request_length = xlv_ring_captured(&s->snapshot, &s->view);
    xlv_ring_read(&s->view, s->request, s->request_length);
    if (s->refused && xlv_ratelimit_pass(&limit))
        xlv_log(XLV_LOG_WARNING, "refused a request of %u bytes, locality %u, %u extra pages",
                s->snapshot.length, s->snapshot.locality, s->snapshot.nr_extra_pages);
}

/* The page as it was left by the process before us, SUBMIT or CANCEL: true
 * where the command in it is the recorded one, with s->step where to go on. */
static bool is_leftover(struct xlv_session *s)
{
    const struct leftover *l = &s->leftover;
    uint8_t data[XLV_TPM_BUFFER_MAX];
    size_t length = l->request_length > l->response_length ? l->request_length
                                                           : l->response_length;

    if (!l->there || length > xlv_ring_room(&s->view))
        return false;
    xlv_ring_read(&s->view, data, length);
    if (l->marked) {
        /* FINISH is missing, or was seen and there is something new */
        if (l->outcome != XLV_JOURNAL_FINISH || s->snapshot.length != l->response_length ||
            memcmp(data, l->response, l->response_length))
            return false;
        s->step = XLV_STEP_FINISH;
    } else {
        if (!xlv_ring_fits(data, length, s->snapshot.length, s->request_length, l->request,
                           l->request_length, l->response, l->response_length))
            return false;
        s->step = l->outcome == XLV_JOURNAL_FINISH ? XLV_STEP_PLACE : XLV_STEP_MARK;
    }
    s->outcome = l->outcome;
    s->response_length = l->response_length;
    memcpy(s->response, l->response, l->response_length);
    xlv_log(XLV_LOG_NOTICE, "command %llu was executed before the restart: its answer is given now",
            (unsigned long long)s->sequence);
    return true;
}

/* --- counting ------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void count_latency(struct xlv_latency *l, uint64_t ns)
{
    static const uint32_t bounds_us[XLV_LATENCY_BUCKETS - 1] = XLV_LATENCY_BOUNDS_US;
    unsigned i = 0;

    while (i < XLV_LATENCY_BUCKETS - 1 && ns > bounds_us[i] * UINT64_C(1000))
        i++;
    l->buckets[i]++;
    l->sum_ns += ns;
}

/* The command at hand is answered. */
static void count(struct xlv_session *s)
{
    struct xlv_statistics *n = s->statistics;
    uint64_t ns = now_ns() - s->found_ns;

    n->commands++;
    if (s->outcome == XLV_JOURNAL_IDLE)
        n->cancelled++;
    else if (xlv_response_code(s->response, s->response_length))
        n->failed++;
    count_latency(&n->all, ns);
    if (s->commits != s->found_commits)
        count_latency(&n->durable, ns);
}

static int inspect(struct xlv_session *s)
{
    bool first = s->first_look, ours = false;

    s->first_look = false;
    xlv_ring_fetch(s->page, &s->snapshot);
    if (s->snapshot.state == XLV_RING_SUBMIT || (first && s->snapshot.state == XLV_RING_CANCEL)) {
        fetch_request(s);
        if (first) {
            ours = is_leftover(s);
            explicit_bzero(&s->leftover, sizeof(s->leftover));
        }
    }
    if (ours) {
        s->nonsense = false;
        return 0;
    }
    if (s->snapshot.state == XLV_RING_SUBMIT) {
        s->found_ns = now_ns();
        s->found_commits = s->commits;
        s->step = XLV_STEP_BEGIN;
        return 0;
    }
    /* Nothing runs, so a cancel is complete at once. A frontend that gave up
     * while nobody served it waits for this. */
    if (s->snapshot.state == XLV_RING_CANCEL && xlv_ring_cancelled(s->page))
        xlv_port_notify(s->c.port);
    else if (first)
        /* the event of a FINISH may have died with the process before us */
        xlv_port_notify(s->c.port);
    return XLV_E_EMPTY;
}

static void begin(struct xlv_session *s)
{
    struct xlv_error why = XLV_ERROR_INIT;
    uint32_t attempts;

    s->step = XLV_STEP_EXECUTE;
    if (s->refused)
        return;
    if (s->failed && commit(s, &s->permanent, &why)) {
        refuse(s, XLV_FAULT_STORAGE);
        return;
    }
    attempts = xlv_journal_begin(s->c.journal, s->sequence + 1);
    if (attempts > XLV_ATTEMPTS_MAX) {
        xlv_log(XLV_LOG_ERROR, "command 0x%x was begun %u times and never ended: it is answered "
                "with a TPM failure", xlv_command_code(s->request, s->request_length),
                attempts - 1);
        s->quarantine = true;
        refuse(s, XLV_FAULT_FAILURE);
    }
}

static int execute(struct xlv_session *s, struct xlv_error *e)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(5, 60);
    struct xlv_error why = XLV_ERROR_INIT;
    const uint8_t *response;
    size_t length;
    uint32_t code;
    int r;

    s->step = XLV_STEP_RECORD;
    if (s->refused) {
        answer_fault(s, s->fault);
        return 0;
    }
    xlv_cancel_begin(s->page);
    r = xlv_engine_execute(s->snapshot.locality, s->request, s->request_length, &response, &length,
                           &why);
    xlv_cancel_end();
    if (r < 0)
        return xlv_fail(e, r, "%s", why.text);
    code = r ? 0 : xlv_response_code(response, length);
    if (r || (s->c.version == XLV_TPM_2_0 && code == XLV_TPM2_RC_FAILURE)) {
        /* The TPM is in failure mode, or worse. Its state cannot be trusted, so
         * none of this command stays: the guest has the TPM from before it. */
        if (xlv_ratelimit_pass(&limit))
            xlv_log(XLV_LOG_ERROR, "command 0x%x made the TPM fail (%s): it was undone",
                    xlv_command_code(s->request, s->request_length),
                    r ? why.text : "TPM_RC_FAILURE");
        answer_fault(s, XLV_FAULT_FAILURE);
        return go_back(s, e);
    }
    if (s->c.version == XLV_TPM_2_0 &&
        xlv_command_code(s->request, s->request_length) == XLV_TPM2_CC_SET_AUDIT) {
        /* the response is the engine's, and the next command overwrites it */
        memcpy(s->response, response, length);
        response = s->response;
        r = xlv_engine_audits(&s->audits, e);
        if (r)
            return r;
    }
    xlv_log(XLV_LOG_DEBUG, "command 0x%x: 0x%x, %zu bytes",
            xlv_command_code(s->request, s->request_length), code, length);
    if (length > xlv_ring_room(&s->view)) {
        answer_fault(s, XLV_FAULT_RESPONSE_SIZE);
        return 0;
    }
    memmove(s->response, response, length);
    s->response_length = length;
    if (s->c.version == XLV_TPM_2_0 && code == XLV_TPM2_RC_CANCELED &&
        xlv_ring_state(s->page) == XLV_RING_CANCEL) {
        s->outcome = XLV_JOURNAL_IDLE;
        s->response_length = 0;
    }
    return 0;
}

/* Is the state after this command the last pair that was recorded whole, and what is to be done
 * again? Then that is all that has to be recorded. Adds the command to what is to be done again
 * where it must. */
static bool known_already(struct xlv_session *s)
{
    enum xlv_command_effect effect;
    struct xlv_bytes w;

    s->next_again_length = s->again_length;
    if (s->failed || s->owed)
        return false;
    if (s->refused)
        return true;
    if ((xlv_engine_changed() && !s->complete) || s->audits)
        return false;
    effect = xlv_command_effect(s->c.version, s->request, s->request_length);
    s->drawn |= effect == XLV_EFFECT_DRAWS;
    if (effect == XLV_EFFECT_NOTHING || effect == XLV_EFFECT_DRAWS)
        return !xlv_engine_changed();
    if (effect == XLV_EFFECT_READS && !xlv_response_code(s->response, s->response_length))
        return !xlv_engine_changed();
    if (effect == XLV_EFFECT_READS || effect == XLV_EFFECT_ANYTHING ||
        (effect == XLV_EFFECT_AGAIN_DRAWS && s->drawn) ||
        xlv_response_code(s->response, s->response_length))
        return false;
    w = xlv_bytes_writer(s->again + s->again_length, sizeof(s->again) - s->again_length);
    xlv_put_u32(&w, s->snapshot.locality);
    xlv_put_u32(&w, (uint32_t)s->request_length);
    xlv_put_data(&w, s->request, s->request_length);
    xlv_put_u64(&w, in_short(s->response, s->response_length));
    if (!xlv_bytes_ok(&w))
        return false; /* enough to be done again: a whole record */
    s->next_again_length += w.at;
    return true;
}

static int append_exchange(struct xlv_session *s, struct xlv_error *e)
{
    struct xlv_journal_record record = {
        .sequence = s->sequence + 1,
        .ring = s->c.ring,
        .outcome = s->outcome,
        .request = s->request,
        .request_length = (uint32_t)s->request_length,
        .response = s->response,
        .response_length = (uint32_t)s->response_length,
        .repeat = s->again,
        .repeat_length = (uint32_t)s->next_again_length,
    };
    int r = take_permanent(s, e);

    record.generation = s->generation + (s->next_permanent.data ? 1 : 0);
    record.repeat_changes = s->next_permanent.data || s->base.data;
    return r ? r : xlv_journal_append_exchange(s->c.journal, &record, e);
}

static int record(struct xlv_session *s, struct xlv_error *e)
{
    bool exchange = known_already(s);
    int r = exchange ? append_exchange(s, e) : take_states(s, e);

    if (!r && !exchange)
        r = append(s, &s->c.ring, s->outcome, s->sequence + 1, s->request, s->request_length,
                   s->response, s->response_length, e);
    if (!r)
        s->step = XLV_STEP_COMMIT;
    return r;
}

static int make_durable(struct xlv_session *s, struct xlv_error *e)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(5, 60);
    struct xlv_error why = XLV_ERROR_INIT;
    bool given_up = s->failed > 0;

    s->step = XLV_STEP_PLACE;
    if (s->next_permanent.data && commit(s, &s->next_permanent, &why)) {
        if (!given_up) {
            /* Not acknowledged, so it must not have happened. Killed before the
             * new record is written, a successor finds the old one, tries the
             * commit once more and may report success: just as good. */
            if (xlv_ratelimit_pass(&limit))
                xlv_log(XLV_LOG_ERROR, "command 0x%x was undone because its change cannot be made "
                        "durable", xlv_command_code(s->request, s->request_length));
            answer_fault(s, XLV_FAULT_STORAGE);
            s->step = XLV_STEP_RECORD;
            return go_back(s, e);
        }
        /* the last durable pair again, on a store that is still out of order:
         * the record carries it */
    }
    adopt(s);
    s->sequence++;
    return 0;
}

int xlv_session_step(struct xlv_session *s, struct xlv_error *e)
{
    switch (s->step) {
    case XLV_STEP_INSPECT:
        return inspect(s);
    case XLV_STEP_BEGIN:
        begin(s);
        return 0;
    case XLV_STEP_EXECUTE:
        return execute(s, e);
    case XLV_STEP_RECORD:
        return record(s, e);
    case XLV_STEP_COMMIT:
        return make_durable(s, e);
    case XLV_STEP_PLACE:
        if (s->outcome == XLV_JOURNAL_FINISH) {
            xlv_ring_write(&s->view, s->response, s->response_length);
            xlv_ring_set_length(s->page, (uint32_t)s->response_length);
        }
        s->step = XLV_STEP_MARK;
        return 0;
    case XLV_STEP_MARK:
        xlv_journal_mark(s->c.journal, s->sequence);
        s->step = XLV_STEP_FINISH;
        return 0;
    case XLV_STEP_FINISH:
        xlv_ring_set_state(s->page, s->outcome == XLV_JOURNAL_IDLE ? XLV_RING_IDLE
                                                                   : XLV_RING_FINISH);
        if (s->found_ns)
            count(s);
        s->found_ns = 0;
        s->step = XLV_STEP_NOTIFY;
        return 0;
    case XLV_STEP_NOTIFY:
        xlv_port_notify(s->c.port);
        s->step = XLV_STEP_INSPECT;
        if (s->quarantine)
            return xlv_fail(e, XLV_E_TPM, "a command of the guest (0x%x) ended this program %u "
                            "times; it was answered with a TPM failure",
                            xlv_command_code(s->request, s->request_length), XLV_ATTEMPTS_MAX);
        return s->nonsense ? XLV_E_INVALID : 0;
    }
    return -EINVAL;
}

enum xlv_session_step xlv_session_at(const struct xlv_session *s)
{
    return s->step;
}

int xlv_session_work(struct xlv_session *s, struct xlv_error *e)
{
    int r;

    do
        r = xlv_session_step(s, e);
    while (!r && s->step != XLV_STEP_INSPECT);
    return r;
}

int xlv_session_stop(struct xlv_session *s, enum xlv_stop_reason reason, struct xlv_error *e)
{
    struct xlv_error why = XLV_ERROR_INIT;
    uint8_t request[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t request_length, response_length;
    int r;

    if (reason != XLV_STOP_DOMAIN_END) {
        r = xlv_session_work(s, e);
        if (r && r != XLV_E_EMPTY && r != XLV_E_INVALID)
            return r;
    }
    if (reason == XLV_STOP_SUSPEND || reason == XLV_STOP_FREEZE)
        return keep(s, s->c.ring.domid, reason == XLV_STOP_FREEZE, e);
    /* A closed frontend may be the last that is heard of this boot: the host
     * may be switched off next, and with it the journal goes. If the boot goes
     * on after all, the record is where it does, and the first command that
     * matters takes the orderly mark away again (TPM 2.0 Part 1, 12.2.4). */
    r = xlv_engine_shutdown(request, &request_length, &response, &response_length, &why);
    if (!r && request_length)
        r = settle(s, &s->c.ring, request, request_length, response, response_length, &why);
    if (r)
        /* the next boot makes up for it, from the journal */
        xlv_log(XLV_LOG_WARNING, "the TPM was not shut down in order: %s",
                why.text[0] ? why.text : xlv_strerror(r));
    return 0;
}

int xlv_session_keep(const struct xlv_session_config *config, struct xlv_error *e)
{
    struct xlv_session *s = calloc(1, sizeof(*s));
    struct xlv_journal_record record;
    struct xlv_error why = XLV_ERROR_INIT;
    enum judgement judgement;
    int r;

    if (!s)
        return -ENOMEM;
    s->c = *config;
    s->statistics = xlv_journal_statistics(config->journal);
    r = load_store(s, e);
    if (r)
        goto out;
    r = xlv_journal_load(s->c.journal, &record, &why);
    if (s->owed) {
        /* kept already, in a commit that was told to have failed or before a kill. Where commits
         * were undone before, the journal counts further than the store, and would outdo it. */
        if (!r && record.ring.domid == s->c.ring.domid && s->kept_domid == s->c.ring.domid)
            r = xlv_journal_clear(s->c.journal, e);
        else
            r = 0;
        goto out;
    }
    if (r == XLV_E_EMPTY || (!r && record.ring.domid != s->c.ring.domid)) {
        r = 0;
        goto out;
    }
    if (r) {
        r = xlv_fail(e, r, "%s", why.text[0] ? why.text : "the journal cannot be read");
        goto out;
    }
    judgement = judge(s, &record);
    if (judgement == BROKEN)
        r = xlv_fail(e, XLV_E_CORRUPT, "the journal and the store do not belong together: the "
                     "state of the suspended domain %u is lost", s->c.ring.domid);
    else if (judgement == REDO)
        r = state_copy(&s->permanent, record.permanent, record.permanent_length);
    if (!r)
        r = state_copy(&s->volatile_state, record.volatile_state, record.volatile_length);
    if (!r)
        r = take_again(s, &record, e);
    if (!r && s->again_length)
        r = restore(s, e);
    if (!r)
        r = keep(s, s->c.ring.domid, false, e);
    /* the store has it now: nobody shall take this for a boot that goes on */
    if (!r)
        r = xlv_journal_clear(s->c.journal, e);
out:
    xlv_session_free(s);
    return r;
}

void xlv_session_status(const struct xlv_session *s, struct xlv_session_status *status)
{
    *status = (struct xlv_session_status){
        .generation = s->generation,
        .sequence = s->sequence,
        .commits = s->commits,
        .resumed = s->resumed,
    };
}
