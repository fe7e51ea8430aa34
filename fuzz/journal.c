/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A journal (backend/journal.h), by the first byte of the input:
 *   even  it holds a record and is then damaged: patches of u32 offset, u16 length, bytes. A load
 *         gives that record or none
 *   odd   the rest of the input is the plaintext of a record that was properly sealed: what a
 *         journal key in wrong hands, or a bug of ours, could put there
 * Either way a journal that loads can be appended to and loads again.
 */
#include "config.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/journal.h"
#include "common/fd.h"
#include "fuzz/fuzz.h"

#define PLAINTEXT_MAX (64u + 2 * XLV_TPM_BUFFER_MAX + 4096)

static const uint8_t bytes_of[64] = "a request, a response, a volatile and a permanent state";

/* the seal, with the hand of a fuzzer inside: the plaintext of the next record */
static const uint8_t *plaintext;
static size_t plaintext_at;

#define xlv_seal_update sealed_as_told
#include "backend/journal.c"
#undef xlv_seal_update
int xlv_seal_update(struct xlv_seal *seal, uint8_t *out, const uint8_t *in, size_t length);

int sealed_as_told(struct xlv_seal *seal, uint8_t *out, const uint8_t *in, size_t length)
{
    if (plaintext) {
        in = plaintext + plaintext_at;
        plaintext_at += length;
    }
    return xlv_seal_update(seal, out, in, length);
}

static const struct xlv_uuid uuid = { .b = { 1, 2, 3 } };
static const uint8_t key[XLV_KEY_SIZE] = { 'j' };

/* A record whose parts are long enough for the plaintext to go in their place. */
static struct xlv_journal_record record_of(size_t length)
{
    static uint8_t room[PLAINTEXT_MAX];

    return (struct xlv_journal_record){
        .sequence = 41, .generation = 8,
        .ring = { .domid = 5, .ring_ref = 17, .event_channel = 23 },
        .outcome = XLV_JOURNAL_FINISH,
        .volatile_state = room, .volatile_length = (uint32_t)(length - META_SIZE),
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    struct xlv_journal_record wrote = {
        .sequence = 41, .generation = 8,
        .ring = { .domid = 5, .ring_ref = 17, .event_channel = 23 },
        .outcome = XLV_JOURNAL_FINISH,
        .request = bytes_of, .request_length = 9,
        .response = bytes_of + 9, .response_length = 11,
        .volatile_state = bytes_of + 20, .volatile_length = 40,
    }, record;
    struct xlv_journal *journal;
    struct xlv_error e = XLV_ERROR_INIT;
    bool sealed = xlv_get_u8(&in) & 1;
    static int fd = -1;
    int rc;

    if (fd < 0)
        fd = memfd_create("journal", MFD_CLOEXEC);
    MUST(fd >= 0 && ftruncate(fd, 0) == 0);
    MUST(xlv_journal_new(&journal, fd, &uuid, key, NULL) == 0);
    MUST(xlv_journal_load(journal, &record, NULL) == XLV_E_EMPTY);
    if (sealed) {
        size_t length;
        const uint8_t *bytes = rest(&in, &length);

        if (length < META_SIZE || length > PLAINTEXT_MAX)
            goto out;
        wrote = record_of(length);
        plaintext = bytes;
        plaintext_at = 0;
    }
    MUST(xlv_journal_append(journal, &wrote, NULL) == 0);
    plaintext = NULL;
    while (!sealed && xlv_bytes_left(&in)) {
        size_t at = xlv_get_u32(&in) % (CONTROL_SIZE + XLV_PAGE_SIZE), length;
        const uint8_t *bytes;

        if (at >= CONTROL_SIZE) /* within the record that was written, in place 1 */
            at += PLACE_SIZE;
        bytes = piece(&in, &length);
        MUST(!bytes || xlv_pwrite_all(fd, bytes, length, (off_t)at) == 0);
    }
    xlv_journal_free(journal);
    MUST(xlv_journal_new(&journal, fd, &uuid, key, NULL) == 0);
    rc = xlv_journal_load(journal, &record, &e);
    MUST(rc >= 0);
    if (!rc && !sealed) {
        MUST(record.sequence == wrote.sequence && record.generation == wrote.generation);
        MUST(record.request_length == 9 && !memcmp(record.request, bytes_of, 9));
        MUST(record.response_length == 11 && !memcmp(record.response, bytes_of + 9, 11));
        MUST(record.volatile_length == 40 && !record.permanent_length);
    } else if (!rc) {
        const uint8_t *parts[] = { record.request, record.response, record.volatile_state,
                                   record.permanent };
        const uint32_t lengths[] = { record.request_length, record.response_length,
                                     record.volatile_length, record.permanent_length };
        volatile uint8_t sum = 0;

        for (unsigned i = 0; i < 4; i++)
            for (uint32_t k = 0; k < lengths[i]; k++)
                sum = (uint8_t)(sum + parts[i][k]);
    } else {
        MUST(rc == XLV_E_EMPTY || e.text[0]);
    }
    if (!rc) {
        (void)xlv_journal_begin(journal, record.sequence + 1);
        xlv_journal_mark(journal, record.sequence);
        MUST(xlv_journal_marked(journal) == record.sequence);
        wrote = record_of(META_SIZE + 1);
        MUST(xlv_journal_append(journal, &wrote, NULL) == 0);
        MUST(xlv_journal_load(journal, &record, NULL) == 0 && record.volatile_length == 1);
    }
out:
    xlv_journal_free(journal);
    return 0;
}
