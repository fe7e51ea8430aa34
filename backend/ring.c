/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ring: see ring.h. */
#include "backend/ring.h"

#include <string.h>
#include <xen/io/tpmif.h>

#define TPM_HEADER_SIZE 10u /* tag, size, code: both TPM versions */

_Static_assert(sizeof(struct tpmif_shared_page) == XLV_RING_HEADER_SIZE, "tpmif.h changed");
_Static_assert((int)XLV_RING_IDLE == TPMIF_STATE_IDLE &&
               (int)XLV_RING_SUBMIT == TPMIF_STATE_SUBMIT &&
               (int)XLV_RING_FINISH == TPMIF_STATE_FINISH &&
               (int)XLV_RING_CANCEL == TPMIF_STATE_CANCEL, "tpmif.h changed");
/* even 255 extra pages leave room for an error response in the first page */
_Static_assert(XLV_RING_HEADER_SIZE + 4 * 255 + TPM_HEADER_SIZE <= XLV_PAGE_SIZE, "page too small");

/* The compiler may neither repeat nor delay an access to shared memory. */
#define BARRIER() __asm__ __volatile__("" ::: "memory")

uint8_t xlv_ring_state(const void *page)
{
    const struct tpmif_shared_page *shared = page;

    return __atomic_load_n(&shared->state, __ATOMIC_ACQUIRE);
}

void xlv_ring_set_state(void *page, enum xlv_ring_state state)
{
    struct tpmif_shared_page *shared = page;

    __atomic_store_n(&shared->state, (uint8_t)state, __ATOMIC_RELEASE);
}

bool xlv_ring_cancelled(void *page)
{
    struct tpmif_shared_page *shared = page;
    uint8_t expected = XLV_RING_CANCEL;

    return __atomic_compare_exchange_n(&shared->state, &expected, (uint8_t)XLV_RING_IDLE, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void xlv_ring_fetch(const void *page, struct xlv_ring_snapshot *snapshot)
{
    const struct tpmif_shared_page *shared = page;

    snapshot->state = xlv_ring_state(page);
    snapshot->length = __atomic_load_n(&shared->length, __ATOMIC_RELAXED);
    snapshot->locality = __atomic_load_n(&shared->locality, __ATOMIC_RELAXED);
    snapshot->nr_extra_pages = __atomic_load_n(&shared->nr_extra_pages, __ATOMIC_RELAXED);
}

static size_t offset_of(const struct xlv_ring_snapshot *snapshot)
{
    return XLV_RING_HEADER_SIZE + sizeof(uint32_t) * snapshot->nr_extra_pages;
}

enum xlv_ring_fault xlv_ring_check(const struct xlv_ring_snapshot *snapshot)
{
    size_t room;

    if (snapshot->nr_extra_pages > XLV_EXTRA_PAGES_MAX)
        return XLV_RING_MANY_PAGES;
    room = XLV_PAGE_SIZE - offset_of(snapshot);
    if (snapshot->length > XLV_TPM_BUFFER_MAX ||
        (snapshot->length > room && !snapshot->nr_extra_pages))
        return XLV_RING_TOO_LONG;
    if (snapshot->length < TPM_HEADER_SIZE)
        return XLV_RING_TOO_SHORT;
    return snapshot->length > room ? XLV_RING_GOES_ON : XLV_RING_OK;
}

struct xlv_ring_view xlv_ring_view(void *page, const struct xlv_ring_snapshot *snapshot)
{
    return (struct xlv_ring_view){ .page = page, .offset = offset_of(snapshot) };
}

size_t xlv_ring_room(const struct xlv_ring_view *view)
{
    return XLV_PAGE_SIZE - view->offset;
}

size_t xlv_ring_captured(const struct xlv_ring_snapshot *snapshot, const struct xlv_ring_view *view)
{
    size_t room = xlv_ring_room(view);

    return snapshot->length < room ? snapshot->length : room;
}

void xlv_ring_read(const struct xlv_ring_view *view, void *to, size_t length)
{
    BARRIER();
    memcpy(to, view->page + view->offset, length);
    BARRIER();
}

void xlv_ring_write(const struct xlv_ring_view *view, const void *from, size_t length)
{
    memcpy(view->page + view->offset, from, length);
    BARRIER();
}

void xlv_ring_set_length(void *page, uint32_t length)
{
    struct tpmif_shared_page *shared = page;

    __atomic_store_n(&shared->length, length, __ATOMIC_RELAXED);
}

bool xlv_ring_fits(const uint8_t *data, size_t data_length, uint32_t length, size_t captured,
                   const uint8_t *request, size_t request_length,
                   const uint8_t *response, size_t response_length)
{
    if (captured != request_length && length != response_length)
        return false;
    if (data_length < request_length)
        return false;
    /* bytes behind the request may hold anything until the response is there */
    for (size_t i = 0; i < request_length; i++)
        if (data[i] != request[i] && (i >= response_length || data[i] != response[i]))
            return false;
    return true;
}
