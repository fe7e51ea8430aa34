/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring: the shared page of the tpmif protocol, version 2 (Xen's
 * public/io/tpmif.h), as pure functions over memory. No Xen call is made here,
 * so all of it is tested and fuzzed without one.
 *
 * The guest is hostile and can write every byte of the page at every moment.
 * So: each field is fetched exactly once, into a private snapshot; the
 * snapshot is validated, never the page; whatever is decided later (where the
 * data starts, how much room a response has) is derived from the snapshot.
 *
 * Layout of the page: 8 bytes of header, nr_extra_pages grant references of 4
 * bytes each, then the data. (A comment in tpmif.h says 16 where it is 8: Linux
 * and mini-os both begin at 8 + 4 * nr_extra_pages.)
 *
 * Extra pages, in which data could go on, are not mapped: no driver is known that
 * names any (Linux and mini-os never do, and mini-os's own backend looks at the
 * first page only), all commands of a TPM fit the first page but for its last
 * bytes, and the device that maps grants would let a guest that has taken over
 * the process map what other guests granted to the host.
 *
 * States: IDLE -> SUBMIT by the frontend, SUBMIT -> FINISH by the backend,
 * anything -> CANCEL by the frontend, CANCEL -> FINISH or IDLE by the backend.
 */
#ifndef XLV_RING_H
#define XLV_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/limits.h"

/* enum tpmif_state of tpmif.h */
enum xlv_ring_state {
    XLV_RING_IDLE = 0,
    XLV_RING_SUBMIT = 1,
    XLV_RING_FINISH = 2,
    XLV_RING_CANCEL = 3,
};

#define XLV_RING_HEADER_SIZE 8u

/* A private copy of the header; nothing in it changes behind our back. */
struct xlv_ring_snapshot {
    uint32_t length; /* as the frontend wrote it, unchecked */
    uint8_t state, locality;
    uint8_t nr_extra_pages; /* unchecked; up to 255 */
};

enum xlv_ring_fault {
    XLV_RING_OK = 0,
    XLV_RING_TOO_SHORT,  /* shorter than a TPM header */
    XLV_RING_TOO_LONG,   /* longer than the pages, or than any TPM command */
    XLV_RING_MANY_PAGES, /* more extra pages than XLV_EXTRA_PAGES_MAX */
    XLV_RING_GOES_ON,    /* good, but the end of it is in extra pages */
};

/* Where the data of a snapshot is in the page. */
struct xlv_ring_view {
    uint8_t *page;
    size_t offset;
};

/* The state byte, with acquire semantics: what the frontend wrote before it
 * changed the state is visible after this. */
uint8_t xlv_ring_state(const void *page);

/* Release semantics: all that was put into the page before is visible to a
 * frontend that sees this state. */
void xlv_ring_set_state(void *page, enum xlv_ring_state state);

/* CANCEL -> IDLE; false where the state is something else by now. */
bool xlv_ring_cancelled(void *page);

/* Fetches the header, each field once; the state first, with acquire. */
void xlv_ring_fetch(const void *page, struct xlv_ring_snapshot *snapshot);

/* Whether this can be a TPM command at all. */
enum xlv_ring_fault xlv_ring_check(const struct xlv_ring_snapshot *snapshot);

struct xlv_ring_view xlv_ring_view(void *page, const struct xlv_ring_snapshot *snapshot);

/* Bytes of data that fit into the view: at least 3,000. */
size_t xlv_ring_room(const struct xlv_ring_view *view);

/* How many bytes of a request are taken from the page: length where it is
 * good, else as much of it as exists. */
size_t xlv_ring_captured(const struct xlv_ring_snapshot *snapshot,
                         const struct xlv_ring_view *view);

/* Copies data; length at most xlv_ring_room(). Reading is a single fetch. */
void xlv_ring_read(const struct xlv_ring_view *view, void *to, size_t length);
void xlv_ring_write(const struct xlv_ring_view *view, const void *from, size_t length);

/* Sets the length field (of a response). */
void xlv_ring_set_length(void *page, uint32_t length);

/*
 * After a crash: does the page, of which data holds the first data_length
 * bytes and length the length field, hold the request, the response, or any
 * mixture that an interrupted copy of the response over the request can have
 * left? (A copy routine may write in any order, so every byte is judged alone.)
 * captured is xlv_ring_captured() of the page.
 */
bool xlv_ring_fits(const uint8_t *data, size_t data_length, uint32_t length, size_t captured,
                   const uint8_t *request, size_t request_length,
                   const uint8_t *response, size_t response_length);

#endif
