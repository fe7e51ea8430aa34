/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ask-guest.c - in dom0: the other end of agent.c, see channel.h.
 *
 *     ask-guest TTY SECONDS LOG ping
 *     ask-guest TTY SECONDS LOG run|last COMMAND
 *
 * ping prints the guest's boot id once it answers. run and last print what the
 * command printed, and end as it ended; 125: no answer in SECONDS, or no
 * console. What was said goes into LOG too.
 */

#include "channel.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <termios.h>
#include <unistd.h>

#define NO_ANSWER 125
/* How often a damaged answer is asked for again. */
#define TRIES 8

static void log_bytes(FILE *log, const char *prefix, const struct bytes *b)
{
    bool fresh = true;

    /* The log is for reading: long or binary output is cut and masked. */
    for (size_t i = 0; i < b->size && i < 3000; i++) {
        int c = b->data[i];

        if (fresh)
            fputs(prefix, log);
        fputc(c == '\n' || c == '\t' || (c >= ' ' && c < 127) ? c : '.', log);
        fresh = c == '\n';
    }
    if (!fresh)
        fputc('\n', log);
}

static int ping(struct channel *c, const char *id, int64_t deadline)
{
    struct channel_line line;

    for (;;) {
        int64_t next = channel_now() + 500;
        int got;

        if (channel_now() >= deadline || channel_write(c, 'p', id, 0, NULL, 0) < 0)
            return NO_ANSWER;
        while ((got = channel_read(c, &line, next)) > 0) {
            if (line.kind == 'P' && strcmp(line.id, id) == 0) {
                printf("%s\n", (char *)line.data);
                return 0;
            }
        }
        if (got < 0)
            return NO_ANSWER;
    }
}

static int run(struct channel *c, char kind, const char *id, const char *command,
               int64_t deadline, FILE *log)
{
    struct bytes out = { 0 }, err = { 0 };
    struct channel_line line;
    int64_t start = channel_now();
    int64_t patience = 5000, again = start + patience;
    int status = NO_ANSWER, tries = TRIES;
    unsigned seq = 0;
    bool whole = true;

    if (channel_write(c, kind, id, 0, command, strlen(command)) < 0)
        return NO_ANSWER;
    for (;;) {
        /* The request itself may have been damaged on its way; asking again
         * is always safe, a command under way answers the first. */
        int got = channel_read(c, &line, again < deadline ? again : deadline);

        if (got < 0 || (got == 0 && channel_now() >= deadline))
            break;
        if (got == 0) {
            patience *= 2;
            again = channel_now() + patience;
            if (channel_write(c, kind, id, 0, command, strlen(command)) < 0)
                break;
            continue;
        }
        if (strcmp(line.id, id) != 0 || line.kind == 'P')
            continue;
        if (line.seq == 0) {
            seq = 0;
            out.size = err.size = 0;
            whole = true;
        }
        if (line.seq != seq++)
            whole = false;
        if (line.kind == 'o')
            bytes_add(&out, line.data, line.size);
        else if (line.kind == 'e')
            bytes_add(&err, line.data, line.size);
        else if (line.kind == 'E') {
            if (whole) {
                status = atoi((char *)line.data);
                break;
            }
            if (--tries == 0 || channel_write(c, kind, id, 0, command, strlen(command)) < 0)
                break;
        }
    }

    if (log != NULL) {
        log_bytes(log, "    ", &out);
        log_bytes(log, "    ! ", &err);
        fprintf(log, "    -> %d after %.1f s\n", status, (double)(channel_now() - start) / 1000);
        fclose(log);
    }
    fwrite(out.data, 1, out.size, stdout);
    fwrite(err.data, 1, err.size, stderr);
    if (status == NO_ANSWER)
        fprintf(stderr, "ask-guest: no answer to: %s\n", command);
    return fflush(stdout) == 0 ? status : NO_ANSWER;
}

int main(int argc, char **argv)
{
    struct channel channel;
    struct termios raw;
    char id[CHANNEL_ID_MAX];
    int64_t deadline;
    int fd;

    if (argc < 5 || (argc < 6 && strcmp(argv[4], "ping") != 0)) {
        fprintf(stderr, "usage: ask-guest TTY SECONDS LOG ping|run|last [COMMAND]\n");
        return NO_ANSWER;
    }
    deadline = channel_now() + atol(argv[2]) * 1000;
    fd = open(argv[1], O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        perror(argv[1]);
        return NO_ANSWER;
    }
    /* One asker at a time, or they would take each other's answers. */
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (channel_now() >= deadline) {
            fprintf(stderr, "ask-guest: %s is in use\n", argv[1]);
            return NO_ANSWER;
        }
        usleep(20000);
    }
    if (tcgetattr(fd, &raw) == 0) {
        cfmakeraw(&raw);
        tcsetattr(fd, TCSANOW, &raw);
    }
    channel_init(&channel, fd);
    snprintf(id, sizeof(id), "%d.%lld", (int)getpid(), (long long)channel_now());
    if (strcmp(argv[4], "ping") == 0)
        return ping(&channel, id, deadline);

    FILE *log = fopen(argv[3], "a");

    if (log != NULL)
        fprintf(log, "%s$ %s\n", argv[1], argv[5]);
    return run(&channel, strcmp(argv[4], "last") == 0 ? 'l' : 'r', id, argv[5], deadline, log);
}
