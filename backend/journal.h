/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal: what a command did, kept in memory that outlives the process
 * (tmpfs), so that a killed backend resumes exactly (promise 3).
 *
 * Per command, in this order:
 *     xlv_journal_begin     counts the attempt (a command that kills us again
 *                           and again is found out)
 *     execute
 *     xlv_journal_append    one sealed record, two alternating places, so the
 *                           previous record is whole until this one is
 *     store commit          if the permanent state changed
 *     response into the shared page, state still SUBMIT
 *     xlv_journal_mark      "the response of this sequence is in place"
 *     FINISH, notify
 *
 * Recovery with the page in SUBMIT then is certain:
 *     record N, no mark     FINISH of N was never set: redo the store commit if
 *                           it is missing, put the recorded response in place
 *     record N, mark N      the page either still holds response N (set FINISH)
 *                           or a newer request (execute it)
 * Most commands change no state, or one that is quickly changed again in the same
 * way. Their record is an exchange alone, a few hundred bytes that refer to the
 * last whole record; it has two places of its own, and the same order holds.
 *
 * A record belongs to one boot of one domain and one ring; of another ring only
 * its state counts, of another boot nothing does.
 *
 * Needs no sync: it must survive a process, not the host. The file is mapped
 * shared; it stays the caller's descriptor. Not thread-safe.
 */
#ifndef XLV_JOURNAL_H
#define XLV_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/uuid.h"
#include "include/launch.h"
#include "include/statistics.h"

struct xlv_ring_id {
    uint32_t domid, devid, ring_ref, event_channel;
};

enum xlv_journal_outcome {
    XLV_JOURNAL_STATE_ONLY = 0, /* no command: state after startup or restore */
    XLV_JOURNAL_FINISH = 1,     /* response to be published with FINISH */
    XLV_JOURNAL_IDLE = 2,       /* cancelled: to be published as IDLE */
};

struct xlv_journal_record {
    uint64_t sequence;   /* of the command in this boot, from 1; 0: state only */
    uint64_t generation; /* of the store that goes with this volatile state,
                            i.e. after this command's commit, if it has one */
    struct xlv_ring_id ring;
    uint32_t outcome; /* enum xlv_journal_outcome */
    uint32_t request_length, response_length;
    uint32_t volatile_length, permanent_length; /* permanent 0: unchanged */
    const uint8_t *request, *response, *volatile_state, *permanent;
    /* What was done to these states since, to be done again: a text of the session's. */
    const uint8_t *repeat;
    uint32_t repeat_length;
    /* That changes the permanent state: the generation is of after it, the states of before it.
     * Only of xlv_journal_append_exchange(). */
    bool repeat_changes;
};

/* At most so many bytes are to be done again: it is sealed with each command. */
#define XLV_JOURNAL_REPEAT_MAX 3072u

struct xlv_journal;

/* Maps the file, makes it as large as needed. *out NULL or valid. */
int xlv_journal_new(struct xlv_journal **out, int fd, const struct xlv_uuid *uuid,
                    const uint8_t key[XLV_KEY_SIZE], struct xlv_error *e);
void xlv_journal_free(struct xlv_journal *journal); /* unmaps, wipes keys */

/*
 * The newest good record; its pointers stay valid until the next append, which may be of them.
 * XLV_E_EMPTY: no record. XLV_E_CORRUPT, XLV_E_WRONG_KEY, XLV_E_WRONG_OWNER,
 * XLV_E_VERSION: none usable, e says why.
 */
int xlv_journal_load(struct xlv_journal *journal, struct xlv_journal_record *record,
                     struct xlv_error *e);

/*
 * A journal that another process may append to meanwhile, into an empty file: as it was at one
 * instant. XLV_E_CONFLICT: it was appended to, try again; -errno.
 */
int xlv_journal_copy(int from, int to);

/* Whether the journal of that name, if there is one, has any record: so a boot of a domain goes on
 * or did not end in order. Needs no key; what cannot be read has one. */
bool xlv_journal_has_record(const char *path);

/* Sealed append; the previous record stays readable until this one is whole. */
int xlv_journal_append(struct xlv_journal *journal, const struct xlv_journal_record *record,
                       struct xlv_error *e);

/*
 * Appends the exchange of a command that left both states as they are, but for
 * what record->repeat says; a load then gives the states of the last whole record
 * with this sequence, exchange and text, and, without repeat_changes, that record's
 * generation. The record's own states are not looked at. -EINVAL where there is no
 * whole record yet or, with repeat_changes, none that has the permanent state;
 * XLV_E_INVALID above the limits.
 */
int xlv_journal_append_exchange(struct xlv_journal *journal,
                                const struct xlv_journal_record *record, struct xlv_error *e);

/* Notes one more attempt to execute sequence; returns how many that makes. */
uint32_t xlv_journal_begin(struct xlv_journal *journal, uint64_t sequence);

void xlv_journal_mark(struct xlv_journal *journal, uint64_t sequence);
uint64_t xlv_journal_marked(const struct xlv_journal *journal);

/* What was counted, in the file; forgotten by nobody but whoever removes that. */
struct xlv_statistics *xlv_journal_statistics(struct xlv_journal *journal);

/* Forgets everything else (a new boot of the domain begins). */
int xlv_journal_clear(struct xlv_journal *journal, struct xlv_error *e);

#endif
