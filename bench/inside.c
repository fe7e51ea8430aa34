/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A session in this process: see inside.h. */
#include "config.h"

#include "bench/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/manufacture.h"
#include "backend/ring.h"

/* In the place of backend/port.c. */
struct xlv_port {
    void *page;
    void (*notify)(void);
};

static struct xlv_port port;

void *xlv_port_page(struct xlv_port *p)
{
    return p->page;
}

void xlv_port_notify(struct xlv_port *p)
{
    p->notify();
}

static int temporary(const char *directory)
{
    char name[200];
    int fd;

    snprintf(name, sizeof(name), "%.150s/xl-vtpm-bench-XXXXXX", directory);
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) {
        perror(name);
        exit(1);
    }
    unlink(name);
    return fd;
}

int bench_inside_open(struct bench_inside *b, enum xlv_tpm_version version, const char *slots,
                      const char *journal, void *page, void (*notify)(void))
{
    static const struct xlv_uuid uuid = { .b = { 1 } };
    static const uint8_t key[XLV_KEY_SIZE] = { 1 };
    const struct xlv_manufacture how = { .version = version, .banks = XLV_BANK_SHA256 };
    struct xlv_session_config config = {
        .version = version,
        .boot = XLV_BOOT_FRESH,
        .ring = { .domid = 1, .ring_ref = 2, .event_channel = 3 },
        .port = &port,
    };
    struct xlv_error e = XLV_ERROR_INIT;
    uint64_t generation;
    uint8_t *state = NULL;
    size_t length;
    int r;

    memset(page, 0, XLV_PAGE_SIZE);
    port = (struct xlv_port){ .page = page, .notify = notify };
    *b = (struct bench_inside){ .slots = { temporary(slots), temporary(slots) },
                                .journal_fd = temporary(journal) };
    r = xlv_store_prepare(b->slots[0], &e);
    if (!r)
        r = xlv_store_prepare(b->slots[1], &e);
    if (!r)
        r = xlv_manufacture(&how, &state, &length, &e);
    if (!r)
        r = xlv_store_new(&b->store, b->slots, &uuid, key, &e);
    if (!r) { /* which has to be asked before it is committed to, and is empty */
        uint8_t *none;
        size_t none_length;

        r = xlv_store_load(b->store, &none, &none_length, &generation, &e);
        r = r == XLV_E_EMPTY ? 0 : r ? r : -EEXIST;
    }
    if (!r)
        r = xlv_store_commit(b->store, state, length, &generation, &e);
    if (!r)
        r = xlv_journal_new(&b->journal, b->journal_fd, &uuid, key, &e);
    config.store = b->store;
    config.journal = b->journal;
    if (!r)
        r = xlv_session_new(&b->session, &config, &e);
    if (r)
        fprintf(stderr, "the session cannot be begun: %s (%d)\n", e.text, r);
    free(state);
    return r;
}

void bench_inside_close(struct bench_inside *b)
{
    xlv_session_free(b->session);
    xlv_journal_free(b->journal);
    xlv_store_free(b->store);
    close(b->slots[0]);
    close(b->slots[1]);
    close(b->journal_fd);
}

void bench_inside_submit(void *page, const uint8_t *cmd, size_t length)
{
    uint8_t *p = page;
    uint32_t n = (uint32_t)length;

    memcpy(p + 8, cmd, length);
    memcpy(p, &n, sizeof(n));
    memset(p + 5, 0, 3);
    __atomic_store_n(p + 4, XLV_RING_SUBMIT, __ATOMIC_RELEASE);
}

int bench_inside_response(const void *page, uint8_t *rsp, size_t room, size_t *length)
{
    const uint8_t *p = page;
    uint32_t n;

    if (__atomic_load_n(p + 4, __ATOMIC_ACQUIRE) != XLV_RING_FINISH)
        return -EPROTO;
    memcpy(&n, p, sizeof(n));
    if (n > room || n > XLV_PAGE_SIZE - 8)
        return -EPROTO;
    memcpy(rsp, p + 8, n);
    *length = n;
    return 0;
}
