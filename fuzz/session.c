/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A session (backend/session.h) on a page that a guest made: with a TPM 2.0, store and journal in
 * memory. Input: steps, u8 (bit 7: this session is killed, another one resumes; bit 6: the ring is
 * another one then), the 8 bytes of the header, u16 length, bytes of data. Before the first step
 * the TPM is new.
 */
#include "config.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "backend/journal.h"
#include "backend/manufacture.h"
#include "backend/port.h"
#include "backend/ring.h"
#include "backend/session.h"
#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"
#include "fuzz/fuzz.h"

#define STEPS_MAX 12

static const struct xlv_uuid uuid = { .b = { 1, 2, 3 } };
static const uint8_t key[XLV_KEY_SIZE] = { 'k' };

/* --- the port: the page, of its exact size --- */

struct xlv_port {
    uint8_t *page;
    unsigned notified;
};

static struct xlv_port port;

void *xlv_port_page(struct xlv_port *p)
{
    return p->page;
}

void xlv_port_notify(struct xlv_port *p)
{
    p->notified++;
}

/* --- the machine --- */

static int slots[2], journal_fd;
static uint8_t image[2][XLV_STORE_SLOT_SIZE];
static struct xlv_store *store;
static struct xlv_journal *journal;
static struct xlv_session *session;

static void set_up(void)
{
    const struct xlv_manufacture how = { .version = XLV_TPM_2_0, .banks = XLV_BANK_SHA256 };
    struct xlv_error e = XLV_ERROR_INIT;
    uint64_t generation;
    uint8_t *state, *none;
    size_t length;

    xlv_log_set_level(XLV_LOG_ERROR);
    port.page = malloc(XLV_PAGE_SIZE);
    journal_fd = memfd_create("journal", MFD_CLOEXEC);
    MUST(port.page && journal_fd >= 0);
    for (unsigned i = 0; i < 2; i++) {
        slots[i] = memfd_create("slot", MFD_CLOEXEC);
        MUST(slots[i] >= 0 && xlv_store_prepare(slots[i], NULL) == 0);
    }
    MUST(xlv_store_new(&store, slots, &uuid, key, NULL) == 0);
    MUST(xlv_store_load(store, &none, &length, &generation, NULL) == XLV_E_EMPTY);
    MUST(xlv_manufacture(&how, &state, &length, &e) == 0);
    MUST(xlv_store_commit(store, state, length, &generation, NULL) == 0);
    xlv_engine_wipe(state, length);
    xlv_store_free(store);
    for (unsigned i = 0; i < 2; i++)
        MUST(xlv_pread_all(slots[i], image[i], sizeof(image[i]), 0) == 0);
}

static void start(uint32_t ring_ref)
{
    struct xlv_session_config config = {
        .version = XLV_TPM_2_0, .boot = XLV_BOOT_FRESH,
        .ring = { .domid = 5, .ring_ref = ring_ref, .event_channel = 9 },
        .port = &port,
    };
    struct xlv_error e = XLV_ERROR_INIT;

    MUST(xlv_store_new(&store, slots, &uuid, key, &e) == 0);
    MUST(xlv_journal_new(&journal, journal_fd, &uuid, key, &e) == 0);
    config.store = store;
    config.journal = journal;
    if (xlv_session_new(&session, &config, &e))
        fprintf(stderr, "%s\n", e.text);
    MUST(session);
}

static void end(void)
{
    xlv_session_free(session);
    xlv_journal_free(journal);
    xlv_store_free(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    uint32_t ring_ref = 8;
    static int ready;

    if (!ready++)
        set_up();
    MUST(ftruncate(journal_fd, 0) == 0);
    for (unsigned i = 0; i < 2; i++)
        MUST(ftruncate(slots[i], XLV_STORE_SLOT_SIZE) == 0 &&
             xlv_pwrite_all(slots[i], image[i], sizeof(image[i]), 0) == 0);
    memset(port.page, 0, XLV_PAGE_SIZE);
    start(ring_ref);
    for (unsigned i = 0; i < STEPS_MAX && xlv_bytes_left(&in); i++) {
        uint8_t how = xlv_get_u8(&in);
        struct xlv_session_status before, after;
        struct xlv_error e = XLV_ERROR_INIT;
        const uint8_t *bytes;
        uint32_t answered;
        size_t length;
        int rc;

        if (how & 0x80) {
            ring_ref += how >> 6 & 1;
            /* from the middle of a command */
            for (unsigned k = how & 15; k; k--)
                if (xlv_session_step(session, &e))
                    break;
            end();
            start(ring_ref);
        }
        xlv_get_data(&in, port.page, XLV_RING_HEADER_SIZE);
        bytes = piece(&in, &length);
        if (bytes && length)
            memcpy(port.page + XLV_RING_HEADER_SIZE, bytes,
                   length < XLV_PAGE_SIZE - 8 ? length : XLV_PAGE_SIZE - 8);
        xlv_session_status(session, &before);
        rc = xlv_session_work(session, &e);
        MUST(rc == 0 || rc == XLV_E_EMPTY || rc == XLV_E_INVALID);
        xlv_session_status(session, &after);
        if (rc == XLV_E_EMPTY) {
            MUST(after.sequence == before.sequence && port.page[4] != XLV_RING_SUBMIT);
            continue;
        }
        memcpy(&answered, port.page, sizeof(answered));
        MUST(port.page[4] == XLV_RING_FINISH || port.page[4] == XLV_RING_IDLE);
        MUST(answered >= XLV_TPM_HEADER_SIZE && answered <= XLV_PAGE_SIZE - 8);
    }
    end();
    return 0;
}
