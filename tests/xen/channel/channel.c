/* SPDX-License-Identifier: GPL-2.0-or-later */
/* channel.c - see channel.h; no state but the caller's. */

#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int64_t channel_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void bytes_add(struct bytes *b, const void *data, size_t size)
{
    if (b->size + size + 1 > b->room) {
        b->room = (b->size + size + 1) * 2;
        b->data = realloc(b->data, b->room);
        if (b->data == NULL) {
            perror("realloc");
            exit(125);
        }
    }
    if (size > 0)
        memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = 0;
}

static uint32_t crc32_of(const unsigned char *data, size_t size)
{
    uint32_t crc = ~0u;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static int nibble(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

void channel_init(struct channel *c, int fd)
{
    memset(c, 0, sizeof(*c));
    c->fd = fd;
    c->line = malloc(CHANNEL_LINE_MAX);
    if (c->line == NULL) {
        perror("malloc");
        exit(125);
    }
}

/* The line in c->line, NUL-terminated in place. */
static bool parse(struct channel *c, struct channel_line *out)
{
    char *start = (char *)c->line, *at, *hex, *end, *crc;
    unsigned long sum;

    c->line[c->used] = 0;
    /* The kernel may have begun the line; ours is then at its end. */
    at = strrchr(start, '@');
    crc = strrchr(start, ' ');
    if (at == NULL || crc == NULL || crc < at)
        return false;
    sum = strtoul(crc + 1, &end, 16);
    if (end == crc + 1 || *end != 0 || sum != crc32_of((unsigned char *)at, (size_t)(crc - at)))
        return false;

    /* From here on it is what a peer wrote, whole. */
    *crc = 0;
    int past = 0;
    if (sscanf(at, "@%c %31s %u %n", &out->kind, out->id, &out->seq, &past) != 3 || past == 0)
        return false;
    hex = at + past;
    c->payload.size = 0;
    bytes_add(&c->payload, "", 0);
    for (; hex[0] != 0 && hex[1] != 0; hex += 2) {
        unsigned char byte;
        int high = nibble(hex[0]), low = nibble(hex[1]);

        if (high < 0 || low < 0)
            return false;
        byte = (unsigned char)(high << 4 | low);
        bytes_add(&c->payload, &byte, 1);
    }
    out->data = c->payload.data;
    out->size = c->payload.size;
    return *hex == 0;
}

int channel_read(struct channel *c, struct channel_line *out, int64_t deadline)
{
    for (;;) {
        while (c->in_at < c->in_size) {
            unsigned char byte = c->in[c->in_at++];

            if (byte == '\n') {
                bool good = !c->overlong && parse(c, out);

                c->used = 0;
                c->overlong = false;
                if (good)
                    return 1;
            } else if (byte != '\r') {
                if (c->used + 1 < CHANNEL_LINE_MAX)
                    c->line[c->used++] = byte;
                else
                    c->overlong = true;
            }
        }

        struct pollfd p = { .fd = c->fd, .events = POLLIN };
        int64_t left = deadline < 0 ? -1 : deadline - channel_now();

        if (deadline >= 0 && left <= 0)
            return 0;
        int n = poll(&p, 1, (int)left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return 0;
        ssize_t got = n < 0 ? -1 : read(c->fd, c->in, sizeof(c->in));
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got <= 0)
            return -1;
        c->in_at = 0;
        c->in_size = (size_t)got;
    }
}

int channel_write(struct channel *c, char kind, const char *id, unsigned seq,
                  const void *data, size_t size)
{
    const unsigned char *payload = data;
    struct bytes line = { 0 };
    char text[64];
    int n = snprintf(text, sizeof(text), "@%c %s %u ", kind, id, seq);

    bytes_add(&line, text, (size_t)n);
    for (size_t i = 0; i < size; i++) {
        n = snprintf(text, sizeof(text), "%02x", payload[i]);
        bytes_add(&line, text, (size_t)n);
    }
    n = snprintf(text, sizeof(text), " %08x\n", (unsigned)crc32_of(line.data, line.size));
    bytes_add(&line, text, (size_t)n);

    size_t at = 0;
    while (at < line.size) {
        ssize_t put = write(c->fd, line.data + at, line.size - at);

        if (put > 0) {
            at += (size_t)put;
            continue;
        }
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EAGAIN) {
            struct pollfd p = { .fd = c->fd, .events = POLLOUT };

            if (poll(&p, 1, 10000) == 1)
                continue;
        }
        free(line.data);
        return -1;
    }
    free(line.data);
    return 0;
}
