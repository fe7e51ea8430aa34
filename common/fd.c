/* SPDX-License-Identifier: GPL-2.0-or-later */
/* File descriptors: see fd.h. */
#include "common/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/error.h"

#define MESSAGE_FDS_MAX 16
#define LOCK_POLL 20 /* ms between two looks at a lock that another has */

void xlv_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

void xlv_free(void *p)
{
    void **pp = p;

    free(*pp);
    *pp = NULL;
}

int xlv_lock_within(int fd, int64_t *patience)
{
    static const struct timespec poll = { .tv_nsec = LOCK_POLL * 1000000L };

    for (;;) {
        if (!flock(fd, LOCK_EX | LOCK_NB))
            return 0;
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK || *patience <= 0)
            return -errno;
        (void)nanosleep(&poll, NULL);
        *patience -= LOCK_POLL;
    }
}

int xlv_write_all(int fd, const void *data, size_t length)
{
    const char *p = data;

    while (length) {
        ssize_t n = write(fd, p, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

int xlv_read_all(int fd, void *data, size_t length)
{
    char *p = data;

    while (length) {
        ssize_t n = read(fd, p, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENODATA;
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

int xlv_pwrite_all(int fd, const void *data, size_t length, off_t offset)
{
    const char *p = data;

    while (length) {
        ssize_t n = pwrite(fd, p, length, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO; /* POSIX allows it; going on would never end */
        p += n;
        offset += n;
        length -= (size_t)n;
    }
    return 0;
}

int xlv_pread_all(int fd, void *data, size_t length, off_t offset)
{
    char *p = data;

    while (length) {
        ssize_t n = pread(fd, p, length, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENODATA;
        p += n;
        offset += n;
        length -= (size_t)n;
    }
    return 0;
}

int xlv_send_message(int socket, const void *data, size_t length, const int *fds, size_t nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
    } control;
    struct iovec iov = { .iov_base = (void *)data, .iov_len = length };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (nfds > MESSAGE_FDS_MAX)
        return -EINVAL;
    if (nfds) {
        struct cmsghdr *c;

        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    }
    do
        n = sendmsg(socket, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return (size_t)n == length ? 0 : -EMSGSIZE;
}

int xlv_receive_message(int socket, void *data, size_t *length, int *fds, size_t *nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
    } control;
    struct iovec iov = { .iov_base = data, .iov_len = *length };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    size_t room = nfds ? *nfds : 0, got = 0;
    int bad;
    ssize_t n;

    do
        n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? XLV_E_GONE : -errno;
    bad = msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        size_t count;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (got < room) {
                fds[got++] = fd;
            } else {
                close(fd);
                bad = 1;
            }
        }
    }
    if (bad || n == 0) {
        for (size_t i = 0; i < got; i++)
            xlv_close(&fds[i]);
        if (nfds)
            *nfds = 0;
        return bad ? XLV_E_INVALID : XLV_E_GONE;
    }
    *length = (size_t)n;
    if (nfds)
        *nfds = got;
    return 0;
}
