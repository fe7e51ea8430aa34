/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inside.h - a session of the backend in this process: its own session, engine, journal, store and
 * seal, with a new TPM, and memory in the place of the guest's page. One at a time.
 */
#ifndef BENCH_INSIDE_H
#define BENCH_INSIDE_H

#include <stddef.h>
#include <stdint.h>

#include "backend/session.h"

struct bench_inside {
    struct xlv_session *session;
    struct xlv_store *store;
    struct xlv_journal *journal;
    int slots[2], journal_fd;
};

/*
 * Makes the TPM, its slots in a directory (removed from there at once) and its journal in another,
 * and begins the session. page has XLV_PAGE_SIZE bytes and must outlive it; notify is called where
 * the guest would be notified. 0, or it has said why not.
 */
int bench_inside_open(struct bench_inside *b, enum xlv_tpm_version version, const char *slots,
                      const char *journal, void *page, void (*notify)(void));
void bench_inside_close(struct bench_inside *b);

/* The guest's side of the page: a request goes in, and the response is looked at; the latter
 * -EPROTO where there is none, or one above room. */
void bench_inside_submit(void *page, const uint8_t *cmd, size_t length);
int bench_inside_response(const void *page, uint8_t *rsp, size_t room, size_t *length);

#endif
