/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shared page as pure functions (backend/ring.h). Input: 8 bytes that the page becomes after
 * the snapshot was taken, then the page, then a request and a response that a journal would hold.
 */
#include <string.h>

#include "backend/ring.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    uint8_t later[XLV_RING_HEADER_SIZE], *page = calloc(1, XLV_PAGE_SIZE), *out;
    const uint8_t *bytes, *request, *response;
    size_t length, request_length, response_length, n;
    struct xlv_ring_snapshot s;
    struct xlv_ring_view v;
    enum xlv_ring_fault fault;

    MUST(page);
    xlv_get_data(&in, later, sizeof(later));
    request = piece(&in, &request_length);
    response = piece(&in, &response_length);
    bytes = rest(&in, &length);
    if (bytes && length)
        memcpy(page, bytes, length < XLV_PAGE_SIZE ? length : XLV_PAGE_SIZE);
    xlv_ring_fetch(page, &s);
    memcpy(page, later, sizeof(later));
    fault = xlv_ring_check(&s);
    v = xlv_ring_view(page, &s);
    n = xlv_ring_captured(&s, &v);
    MUST(n <= xlv_ring_room(&v) && n <= XLV_TPM_BUFFER_MAX && xlv_ring_room(&v) >= 3000);
    MUST(fault != XLV_RING_OK || (n == s.length && n >= 10));
    out = malloc(n ? n : 1);
    MUST(out);
    xlv_ring_read(&v, out, n);
    if (request && response && request_length <= XLV_TPM_BUFFER_MAX &&
        response_length <= XLV_TPM_BUFFER_MAX &&
        xlv_ring_fits(out, n, s.length, n, request, request_length, response, response_length))
        MUST(n >= request_length);
    memset(out, 0x55, n);
    xlv_ring_write(&v, out, n);
    xlv_ring_set_length(page, (uint32_t)n);
    if (!xlv_ring_cancelled(page))
        xlv_ring_set_state(page, XLV_RING_FINISH);
    free(out);
    free(page);
    return 0;
}
