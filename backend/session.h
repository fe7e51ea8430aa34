/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session: one TPM, one frontend, one boot of a domain. Wires the rooms:
 * port and ring (the guest), engine (the TPM), journal and store (what lasts).
 *
 * A command takes these steps, and at every point between two of them the
 * process may die (kill -9, crash, power) without the guest being able to tell,
 * other than by a slow answer:
 *
 *     INSPECT   fetch and validate the header, copy the request
 *     BEGIN     count the attempt in the journal
 *     EXECUTE   libtpms; only this process's memory changes
 *     RECORD    {request, response, both states} into the journal, atomically
 *     COMMIT    the permanent state into the store, if it changed
 *     PLACE     the response into the page
 *     MARK      "the response of this sequence is in place"
 *     FINISH    the state byte; from here on the page is the guest's
 *     NOTIFY    the event
 *
 * What a successor finds, by the point where its predecessor died:
 *     up to RECORD      journal: command N-1, marked; page: SUBMIT with request
 *                       N. Nothing of N has left the dead process: N is executed
 *                       for the first time that counts.
 *     RECORD, COMMIT    record N, not marked; page: request N. The commit is made
 *                       up for where the store is one generation behind; the
 *                       recorded response is placed. N is not executed again.
 *     within PLACE      the same, and the page holds a mixture of request and
 *                       response N (in any order of bytes), which only fits N.
 *     PLACE             the same, and the page holds response N.
 *     MARK              record N, marked; page: SUBMIT and response N: only the
 *                       state byte is missing.
 *     FINISH            record N, marked; page: FINISH (an event is sent, it may
 *                       be the second one), or SUBMIT with another request: that
 *                       is N+1. Request N+1 equal to response N, byte by byte, is
 *                       the one thing that cannot be told apart from MARK; no
 *                       sane frontend sends it, and it gets its bytes back.
 * Most commands leave the volatile state as it was, or extend a PCR, write to an NV index, or
 * use an HMAC session: their record is the exchange alone, and, for the latter three, the
 * requests since the last whole record, which are done again wherever that is restored
 * (command.h, xlv_command_effect()), before the generator is stirred. Only as long as the
 * generator is that of the whole record, or was turned by what is done again, can what draws
 * from it be done again. To the table above a record is a record.
 *
 * A write is committed like any other change, so the store holds it, or lacks the last one, where
 * the whole record has the permanent state of before them all: that pair is what they are done
 * again on, and the store's state is not looked at. What comes of it is the store's state but for
 * the clock. It is recorded whole and committed at once, with the exchange of the last record.
 *
 * An answer that only says "no" (bad length, locality, ...) is recorded as well:
 * else its half-written response would be taken for a request.
 *
 * Where the permanent state cannot be committed, the command has not happened:
 * the engine is put back to the last durable pair, that fact is recorded, and
 * the guest is told TPM_RC_NV_UNAVAILABLE or TPM_FAIL. See commit() for what
 * the store may hold then.
 *
 * The PCRs follow the boot of the domain: another ring of the same domid gets
 * the volatile state of the last one and no Startup; another domid is another
 * boot, before which the old one is ended in order.
 *
 * A suspended domain has no process, and comes back as another domid, perhaps
 * after the host was switched off: the pair of its last command is committed
 * to the store as one (kept.h). Whoever starts next either goes on from there
 * (XLV_BOOT_KEPT) or ends that boot in order and begins its own. Either way
 * the kept state is over with the first commit of the new boot, which is
 * recorded in the journal, and made durable, before any command is executed:
 *     up to the record       the store has the kept state: done again, from there
 *     record, no commit      the journal has this domid and the permanent state:
 *                            the commit is made up for, the boot goes on
 *     commit                 the kept state is gone
 * So it is gone on from at most once.
 *
 * A boot that is to be measured (measure.h) is, between the start of the TPM
 * and the first record, by the process that begins it and by no other: killed
 * before the record, nothing of the boot has happened; after it, all is there.
 * The event log is written first, and whoever begins the boot writes it anew.
 *
 * A domain that migrates is suspended like that, and resumed where it was if the migration fails,
 * with the same ring and nobody the wiser. Its session (XLV_STOP_FREEZE) has served what waited in
 * the page to its end before it keeps the pair, and leaves the journal: that is of the same domid,
 * so whoever serves this ring next goes on from the kept state, and finds nothing in the page that
 * was begun. Killed before the pair was committed, it is as killed at any other time.
 */
#ifndef XLV_SESSION_H
#define XLV_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/journal.h"
#include "backend/measure.h"
#include "backend/port.h"
#include "backend/store.h"
#include "common/error.h"
#include "include/launch.h"

/* A command that took the process with it this often is not tried again. */
#define XLV_ATTEMPTS_MAX 3u

/* A failed commit is tried this often in all before the command is undone. */
#define XLV_COMMIT_TRIES 3u

struct xlv_session_config {
    enum xlv_tpm_version version;
    enum xlv_boot boot; /* what to do where the journal does not know the domain */
    struct xlv_ring_id ring;
    uint32_t max_locality;
    /* used by xlv_session_new() alone */
    const struct xlv_measure_boot *measure; /* NULL: nothing is measured */
    const int *log_fd;                      /* the file that takes the log; NULL: none does */
    /* borrowed, must outlive the session */
    struct xlv_port *port;
    struct xlv_store *store;
    struct xlv_journal *journal;
};

struct xlv_session_status {
    uint64_t generation, sequence, commits;
    bool resumed; /* this process went on from the journal or from a kept state */
};

enum xlv_session_step {
    XLV_STEP_INSPECT,
    XLV_STEP_BEGIN,
    XLV_STEP_EXECUTE,
    XLV_STEP_RECORD,
    XLV_STEP_COMMIT,
    XLV_STEP_PLACE,
    XLV_STEP_MARK,
    XLV_STEP_FINISH,
    XLV_STEP_NOTIFY,
};

struct xlv_session;

/*
 * Loads the state, resumes the boot or begins a new one; afterwards the engine
 * is on. Reads no byte of the guest. Whatever cannot be trusted is refused with
 * a sentence and left as it is: XLV_E_EMPTY (never manufactured), XLV_E_CORRUPT,
 * XLV_E_WRONG_KEY, XLV_E_WRONG_OWNER, XLV_E_VERSION, XLV_E_TPM, XLV_E_REFUSED (a
 * kept state is to be gone on from, and there is none), -errno.
 */
int xlv_session_new(struct xlv_session **out, const struct xlv_session_config *config,
                    struct xlv_error *e);

/*
 * Forgets everything that is not durable, and switches the engine off; as good
 * as a kill. NULL is fine.
 */
void xlv_session_free(struct xlv_session *session);

/*
 * Looks at the page and carries at most one command to its end; blocks as long
 * as the command takes. 0: there was one. XLV_E_EMPTY: there was none.
 * XLV_E_INVALID: there was one that no driver sends (its length, its locality), and it
 * was answered without the TPM. Else the
 * session cannot go on, and a successor takes over where it stands; XLV_E_TPM
 * among these: a command that killed XLV_ATTEMPTS_MAX processes was answered
 * with a TPM failure.
 */
int xlv_session_work(struct xlv_session *session, struct xlv_error *e);

/* One step of it, for tests that stop in between. Returns like work, 0 meaning
 * that the step was taken. */
int xlv_session_step(struct xlv_session *session, struct xlv_error *e);
enum xlv_session_step xlv_session_at(const struct xlv_session *session);

/*
 * Ends the session for a reason. A command that waits in the page is still
 * served, unless the domain is gone. Then the TPM is shut down in order,
 * durably (a failure of that is logged, the next boot makes up for it); or,
 * where the domain is only suspended, its state is kept (a failure of that is
 * an error). Other errors are those of xlv_session_work().
 */
int xlv_session_stop(struct xlv_session *session, enum xlv_stop_reason reason,
                     struct xlv_error *e);

/*
 * Does what a session that ended with XLV_STOP_SUSPEND would have done, in the
 * place of one that was killed before it could: keeps the state that the
 * journal has of this domid. Nothing to do, and 0, where that was done already
 * or where the journal is of another domid. Needs no engine and no port.
 */
int xlv_session_keep(const struct xlv_session_config *config, struct xlv_error *e);

void xlv_session_status(const struct xlv_session *session, struct xlv_session_status *status);

#endif
