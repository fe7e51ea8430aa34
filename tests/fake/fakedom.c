/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fakedom - the xenbus driver in a domain's kernel, for a machine with a real xenstored.
 *
 *     fakedom DOMID SOCKET
 *
 * Grants domain DOMID's ring page, introduces the domain to xenstored as its builder does, and
 * serves SOCKET: what connects there with an unmodified libxenstore speaks, over the real 1 KiB
 * shared ring, as domain DOMID, with all that xenstored allows and forbids it. Writes one line to
 * stdout when it serves. Ends when its stdin does; creating and destroying the domain is not its
 * business.
 *
 * One client at a time: the ring is one connection. When a client goes, its half-sent
 * request is completed with zeros if it had begun, and XS_RESET_WATCHES clears what it left, so
 * that the next one finds a fresh connection; a second client waits until then.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <xen/io/xs_wire.h>
#include <xenevtchn.h>
#include <xenstore.h>

#include "client.h"

static struct xenstore_domain_interface *ring;
static xenevtchn_handle *ev;
static int port;

static void die(const char *what)
{
    fprintf(stderr, "fakedom: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* As much of n bytes as fits. */
static size_t ring_put(const char *p, size_t n)
{
    XENSTORE_RING_IDX prod = ring->req_prod;
    size_t k = 0;

    while (k < n &&
           prod - __atomic_load_n(&ring->req_cons, __ATOMIC_ACQUIRE) < XENSTORE_RING_SIZE)
        ring->req[MASK_XENSTORE_IDX(prod++)] = p[k++];
    __atomic_store_n(&ring->req_prod, prod, __ATOMIC_SEQ_CST);
    if (k)
        xenevtchn_notify(ev, (evtchn_port_t)port);
    return k;
}

static size_t ring_get(char *p, size_t n)
{
    XENSTORE_RING_IDX cons = ring->rsp_cons;
    size_t k = 0;

    while (k < n && cons != __atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE))
        p[k++] = ring->rsp[MASK_XENSTORE_IDX(cons++)];
    __atomic_store_n(&ring->rsp_cons, cons, __ATOMIC_SEQ_CST);
    if (k)
        xenevtchn_notify(ev, (evtchn_port_t)port);
    return k;
}

static void take_event(void)
{
    int p = xenevtchn_pending(ev);

    if (p > 0)
        xenevtchn_unmask(ev, (evtchn_port_t)p);
}

/* In the middle of a message. A domain that was destroyed gets no answer any more, and then
 * stdin ends. */
static void wait_event(void)
{
    struct pollfd p[2] = { { xenevtchn_fd(ev), POLLIN, 0 }, { STDIN_FILENO, POLLIN, 0 } };

    if (poll(p, 2, 5000) < 1) {
        errno = ETIMEDOUT;
        die("xenstored does not answer");
    }
    if (p[1].revents)
        exit(0);
    take_event();
}

static void put_all(const char *p, size_t n)
{
    while (n) {
        size_t k = ring_put(p, n);

        p += k;
        n -= k;
        if (!k)
            wait_event();
    }
}

static void get_all(char *p, size_t n)
{
    while (n) {
        size_t k = ring_get(p, n);

        p += k;
        n -= k;
        if (!k)
            wait_event();
    }
}

/* Follows message boundaries in a stream of bytes. */
struct tracker {
    struct xsd_sockmsg hdr;
    size_t have;                     /* of the header */
    size_t left;                     /* of the body */
};

static bool mid_message(const struct tracker *t)
{
    return t->have || t->left;
}

static void track(struct tracker *t, const char *p, size_t n)
{
    while (n) {
        size_t k;

        if (t->left) {
            k = t->left < n ? t->left : n;
            t->left -= k;
        } else {
            k = sizeof(t->hdr) - t->have < n ? sizeof(t->hdr) - t->have : n;
            memcpy((char *)&t->hdr + t->have, p, k);
            t->have += k;
            if (t->have == sizeof(t->hdr)) {
                t->left = t->hdr.len;
                t->have = 0;
            }
        }
        p += k;
        n -= k;
    }
}

/* What the kernel does for a closed /dev/xen/xenbus. */
static void reset(struct tracker *out, struct tracker *in)
{
    static const char zeros[XENSTORE_PAYLOAD_MAX];
    struct {
        struct xsd_sockmsg h;
        char nul;
    } __attribute__((packed)) req = { { XS_RESET_WATCHES, 0xfeed, 0, 1 }, 0 };
    struct xsd_sockmsg h;
    char body[XENSTORE_PAYLOAD_MAX], drop[1];

    if (out->have) {                 /* a header that is no request: complete it as one */
        put_all(zeros, sizeof(out->hdr) - out->have);
        out->have = 0;
        out->left = 0;
    }
    if (out->left)
        put_all(zeros, out->left);
    out->left = 0;
    put_all((const char *)&req, sizeof(req));
    while (mid_message(in)) {
        get_all(drop, 1);
        track(in, drop, 1);
    }
    do {
        get_all((char *)&h, sizeof(h));
        get_all(body, h.len);
    } while (h.req_id != 0xfeed);
}

static int listen_at(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(sa.sun_path)) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(sa.sun_path, path);
    unlink(path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 8) < 0)
        die(path);
    return fd;
}

static void introduce(uint32_t domid)
{
    struct fx_msg m = { .op = FX_OP_GRANT_AT, .domid = domid, .a = 0, .b = FX_REF_XENSTORE,
                        .c = 1 };
    struct xs_handle *xs;
    int ctl = fxc_connect(), fd = -1;

    if (ctl < 0 || fxc_call(ctl, &m, &fd, 1))
        die("ring page");
    close(ctl);
    ring = mmap(NULL, FX_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (ring == MAP_FAILED)
        die("ring page");
    ev = xenevtchn_open(NULL, 0);
    port = ev ? xenevtchn_bind_unbound_port(ev, 0) : -1;
    if (port < 0)
        die("event channel");
    /* As the toolstack, over xenstored's own socket. */
    unsetenv("XENSTORED_PATH");
    xs = xs_open(0);
    if (!xs || !xs_introduce_domain(xs, domid, 0, (unsigned int)port))
        die("introducing the domain");
    xs_close(xs);
}

int main(int argc, char **argv)
{
    struct tracker to_store = { 0 }, from_store = { 0 };
    static char in[8192], out[8192];
    size_t in_len = 0, out_len = 0;
    int listener, client = -1;

    if (argc != 3) {
        fprintf(stderr, "usage: fakedom DOMID SOCKET\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    setenv(FX_DOMID_ENV, argv[1], 1);
    introduce((uint32_t)strtoul(argv[1], NULL, 10));
    listener = listen_at(argv[2]);
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        die("stdout");
    for (;;) {
        struct pollfd p[4] = {
            { STDIN_FILENO, POLLIN, 0 },
            { xenevtchn_fd(ev), POLLIN, 0 },
            { client < 0 ? listener : -1, POLLIN, 0 },
            { client, (short)((in_len < sizeof(in) ? POLLIN : 0) | (out_len ? POLLOUT : 0)), 0 },
        };
        bool gone = false;
        ssize_t n;

        if (poll(p, 4, -1) < 0)
            continue;
        if (p[0].revents)
            break;
        if (p[1].revents)
            take_event();
        if (p[2].revents)
            client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client >= 0 && p[3].revents & (POLLIN | POLLHUP | POLLERR)) {
            n = read(client, in + in_len, sizeof(in) - in_len);
            if (n > 0)
                in_len += (size_t)n;
            else if (n == 0 || (errno != EAGAIN && errno != EINTR))
                gone = true;
        }
        if (in_len) {
            size_t k = ring_put(in, in_len);

            track(&to_store, in, k);
            memmove(in, in + k, in_len - k);
            in_len -= k;
        }
        if (gone && !in_len) {
            close(client);
            client = -1;
            out_len = 0;
            reset(&to_store, &from_store);
            continue;
        }
        if (client >= 0) {
            size_t k = ring_get(out + out_len, sizeof(out) - out_len);

            track(&from_store, out + out_len, k);
            out_len += k;
            if (out_len) {
                n = write(client, out, out_len);
                if (n > 0) {
                    memmove(out, out + n, out_len - (size_t)n);
                    out_len -= (size_t)n;
                }
            }
        }
    }
    unlink(argv[2]);
    xenevtchn_close(ev);
    return 0;
}
