/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * channel.h - how a scenario in dom0 talks to the agent in a guest, over the
 * guest's PV console: lines of
 *
 *     @KIND ID SEQ HEX CRC
 *
 * where CRC covers what stands before it. The console is shared with the
 * guest's kernel, which may write anywhere, even into the middle of a line:
 * what is no whole, correct line is skipped.
 *
 *   dom0 -> guest   p  ping (HEX empty)
 *                   r  run HEX by the shell
 *                   l  the same, but answer before it runs (it takes the
 *                      guest down)
 *   guest -> dom0   P  pong, HEX: the guest's boot id
 *                   o  a piece of the command's standard output
 *                   e  a piece of its standard error
 *                   E  end, HEX: its exit status in decimal
 *
 * SEQ counts the lines of an answer from 0. If the end comes and a line is
 * missing, dom0 sends the request again: the agent answers an id that it has
 * already answered from its record, and never runs a command twice.
 */

#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Payload bytes in one line of an answer: small enough to lose little. */
#define CHANNEL_PIECE 512
/* Longest line: a request carries its command whole (small files too). */
#define CHANNEL_LINE_MAX (256 * 1024)
#define CHANNEL_ID_MAX 32

struct channel_line {
    char kind;
    char id[CHANNEL_ID_MAX];
    unsigned seq;
    unsigned char *data; /* NUL-terminated; the reader's, until its next line */
    size_t size;
};

/* Growing bytes. */
struct bytes {
    unsigned char *data;
    size_t size, room;
};

void bytes_add(struct bytes *b, const void *data, size_t size);

struct channel {
    int fd;
    unsigned char *line;    /* CHANNEL_LINE_MAX */
    size_t used;
    bool overlong;          /* skipping to the end of an absurd line */
    unsigned char in[4096];
    size_t in_at, in_size;
    struct bytes payload;
};

void channel_init(struct channel *c, int fd);

/* Next correct line. Returns 1, or 0 at the deadline (milliseconds of the
 * monotonic clock; -1: none), or -1 when the console is gone. */
int channel_read(struct channel *c, struct channel_line *out, int64_t deadline);

/* Returns 0, or -1 when the console is gone or takes nothing for 10 s. */
int channel_write(struct channel *c, char kind, const char *id, unsigned seq,
                  const void *data, size_t size);

int64_t channel_now(void);

#endif
