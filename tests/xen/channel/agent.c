/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agent.c - in the guest: runs what dom0 asks for and answers, see channel.h.
 * Its standard input is the console; one command at a time, to its end.
 */

#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* Files, not pipes: what a command leaves in the background must not hold up
 * the answer. */
#define OUT_FILE "/run/agent.out"
#define ERR_FILE "/run/agent.err"

static struct {
    char id[CHANNEL_ID_MAX];
    struct bytes out, err;
    int status;
} record = { .id = "none" };

static void slurp(struct bytes *b, const char *path)
{
    unsigned char chunk[4096];
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    b->size = 0;
    while (fd >= 0 && (got = read(fd, chunk, sizeof(chunk))) > 0)
        bytes_add(b, chunk, (size_t)got);
    if (fd >= 0)
        close(fd);
}

static int spawn(const char *command, const char *out, const char *err)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        int fds[3] = {
            open("/dev/null", O_RDONLY),
            open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600),
            open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600),
        };

        setsid();
        for (int i = 0; i < 3; i++)
            if (dup2(fds[i], i) < 0)
                _exit(126);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(126);
    }
    if (pid < 0)
        return 126;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void answer(struct channel *c)
{
    const struct {
        char kind;
        const struct bytes *bytes;
    } parts[] = { { 'o', &record.out }, { 'e', &record.err } };
    unsigned seq = 0;
    char status[16];

    for (size_t i = 0; i < 2; i++) {
        size_t at = 0, size = parts[i].bytes->size;

        while (at < size) {
            size_t piece = size - at < CHANNEL_PIECE ? size - at : CHANNEL_PIECE;

            channel_write(c, parts[i].kind, record.id, seq++, parts[i].bytes->data + at, piece);
            at += piece;
        }
    }
    int n = snprintf(status, sizeof(status), "%d", record.status);
    channel_write(c, 'E', record.id, seq, status, (size_t)n);
}

int main(void)
{
    struct channel_line line;
    struct channel channel;
    struct termios raw;
    struct bytes boot = { 0 };

    if (tcgetattr(0, &raw) == 0) {
        cfmakeraw(&raw);
        tcsetattr(0, TCSANOW, &raw);
    }
    /* Standard input is the console, opened for both ways by init. */
    channel_init(&channel, 0);
    slurp(&boot, "/proc/sys/kernel/random/boot_id");
    while (boot.size > 0 && boot.data[boot.size - 1] == '\n')
        boot.data[--boot.size] = 0;
    channel_write(&channel, 'P', "start", 0, boot.data, boot.size);

    while (channel_read(&channel, &line, -1) > 0) {
        switch (line.kind) {
        case 'p':
            channel_write(&channel, 'P', line.id, 0, boot.data, boot.size);
            break;
        case 'r':
        case 'l':
            if (strcmp(line.id, record.id) != 0) {
                memcpy(record.id, line.id, sizeof(record.id));
                record.out.size = record.err.size = 0;
                record.status = 0;
                if (line.kind == 'l') {
                    answer(&channel);
                    tcdrain(0);
                    spawn((char *)line.data, "/dev/null", "/dev/null");
                    break;
                }
                record.status = spawn((char *)line.data, OUT_FILE, ERR_FILE);
                slurp(&record.out, OUT_FILE);
                slurp(&record.err, ERR_FILE);
            }
            answer(&channel);
            break;
        }
    }
    return 1;
}
