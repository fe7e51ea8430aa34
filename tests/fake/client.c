/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * client.c - see client.h. Linked into each fake library.
 */
#include "config.h"

#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "fault.h"

/* The preload object replaces open(); what is opened here must never come back to it. */
static int raw_open(const char *path, int flags)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
}

const char *fxc_dir(void)
{
    const char *dir = getenv(FX_DIR_ENV);

    if (!dir || !*dir) {
        fprintf(stderr, "fakexen: %s is not set\n", FX_DIR_ENV);
        abort();
    }
    return dir;
}

uint32_t fxc_domid(void)
{
    const char *s = getenv(FX_DOMID_ENV);

    return s ? (uint32_t)strtoul(s, NULL, 10) : 0;
}

bool fxc_quiet(void)
{
    return getenv(FX_QUIET_ENV) != NULL;
}

int fxc_connect(void)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int n, fd;

    n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/hv.sock", fxc_dir());
    if (n < 0 || (size_t)n >= sizeof(sa.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        int e = errno;

        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static int receive_fds(int fd, struct fx_msg *m, int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int) * FX_MAX_GRANTS)];
    } u;
    struct iovec iov = { m, sizeof(*m) };
    struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf,
                        .msg_controllen = sizeof(u.buf) };
    struct cmsghdr *c;
    size_t got = 0;
    ssize_t r;

    do
        r = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
    while (r < 0 && errno == EINTR);
    if (r != (ssize_t)sizeof(*m)) {
        if (r >= 0)
            errno = EIO;
        return -1;
    }
    c = CMSG_FIRSTHDR(&h);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        int tmp[FX_MAX_GRANTS];

        got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(tmp, CMSG_DATA(c), got * sizeof(int));
        for (size_t i = 0; i < got; i++) {
            if (i < n)
                fds[i] = tmp[i];
            else
                close(tmp[i]);
        }
    }
    if (!m->err && got != n) {
        for (size_t i = 0; i < got && i < n; i++)
            close(fds[i]);
        errno = EPROTO;
        return -1;
    }
    return 0;
}

int fxc_call(int fd, struct fx_msg *m, int *fds, size_t n)
{
    ssize_t r;

    /* send() for MSG_NOSIGNAL would do too, but write() is what a sandbox lets through; a
     * fakexend that went away ends the test anyway. */
    do
        r = write(fd, m, sizeof(*m));
    while (r < 0 && errno == EINTR);
    if (r != (ssize_t)sizeof(*m))
        return -1;
    if (n) {
        if (receive_fds(fd, m, fds, n))
            return -1;
    } else {
        do
            r = read(fd, m, sizeof(*m));
        while (r < 0 && errno == EINTR);
        if (r != (ssize_t)sizeof(*m)) {
            if (r >= 0)
                errno = EIO;
            return -1;
        }
    }
    if (m->err) {
        errno = m->err;
        return -1;
    }
    return 0;
}

uint64_t fxc_cookie(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);

    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0)
        return 0;
    return cookie;
}

static struct fx_fault_table *table;
static char table_dir[256];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

/* A test program starts one machine after the other, so the table goes with the directory. In a
 * process that emptied its environment the table stays what it was at the first open. */
static struct fx_fault_table *get_table(void)
{
    const char *dir = getenv(FX_DIR_ENV);

    pthread_mutex_lock(&table_lock);
    if (dir && strcmp(dir, table_dir)) {
        char path[sizeof(table_dir) + 16];
        void *p = MAP_FAILED;
        int fd;

        if (table)
            munmap(table, sizeof(*table));
        table = NULL;
        snprintf(table_dir, sizeof(table_dir), "%s", dir);
        snprintf(path, sizeof(path), "%s/faults", dir);
        fd = raw_open(path, O_RDWR);
        if (fd >= 0) {
            p = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            close(fd);
        }
        if (p != MAP_FAILED)
            table = p;
    }
    pthread_mutex_unlock(&table_lock);
    return table;
}

static bool take(_Atomic int32_t *n)
{
    int32_t v = atomic_load(n);

    while (v > 0)
        if (atomic_compare_exchange_weak(n, &v, v - 1))
            return true;
    return false;
}

bool fxc_fault(const char *function, uint32_t domid)
{
    struct fx_fault_table *t = get_table();

    if (!t || !atomic_load(&t->armed))
        return false;
    for (int i = 0; i < FX_FAULT_SLOTS; i++) {
        struct fx_fault_slot *s = &t->slot[i];

        if (strcmp(s->name, function) || (s->domid != FX_FAULT_ANY && s->domid != domid))
            continue;
        if (take(&s->skip) || !take(&s->count))
            continue;
        atomic_fetch_add(&s->hits, 1);
        if (s->err == FX_FAULT_KILL) {
            raise(SIGKILL); /* a sandbox lets a process signal itself only */
            abort();
        }
        errno = s->err;
        return true;
    }
    return false;
}
