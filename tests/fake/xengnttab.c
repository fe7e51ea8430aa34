/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xengnttab.c - fake libxengnttab.so.1 over fakexend (wire.h): gnttab (maps others' pages) and
 * gntshr (grants own pages).
 *
 * A granted page is one page of a memfd; a mapping is that page, shared. As with gntdev: a bad,
 * foreign or revoked grant is EINVAL, and then nothing of the call is mapped; unmapping takes the
 * address and the count of one map call; a mapping does not survive into a forked child; it
 * outlives xengnttab_close() and even restriction, until it is unmapped or its process ends, and
 * so long the granter's page is in use. After xentoolcore_restrict_all() the handle is dead: no
 * map, and no orderly unmap either.
 */
#include "config.h"

#include <xengnttab.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client.h"
#include "toolcore.h"

struct mapping {
    void *addr;
    uint32_t count;
    uint64_t id;                     /* fakexend's, for maps */
    uint32_t refs[FX_MAX_GRANTS];    /* for shares */
    struct mapping *next;
};

/* One struct for both roles, as in the headers. */
struct xengntdev_handle {
    struct fx_active_handle ah;      /* must be first: restrict_cb() casts */
    int fd;                          /* the handle's connection */
    int keep;                        /* a copy, as a mapping holds the open file; or -1 */
    uint32_t domid;
    bool restricted;
    struct mapping *mappings;
};

static int restrict_cb(struct fx_active_handle *ah, domid_t domid)
{
    xengnttab_handle *h = (xengnttab_handle *)ah;

    (void)domid;
    h->restricted = true;
    return xentoolcore__restrict_by_dup2_null(h->fd);
}

static xengnttab_handle *handle_open(const char *name)
{
    struct fx_msg m = { .op = FX_OP_GNTTAB, .domid = fxc_domid(), .a = fxc_quiet() };
    xengnttab_handle *h;

    if (fxc_fault(name, m.domid))
        return NULL;
    h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->keep = -1;
    h->domid = m.domid;
    h->fd = fxc_connect();
    if (h->fd < 0 || fxc_call(h->fd, &m, NULL, 0)) {
        int e = errno;

        if (h->fd >= 0)
            close(h->fd);
        free(h);
        errno = e;
        return NULL;
    }
    h->ah.restrict_callback = restrict_cb;
    xentoolcore__register_active_handle(&h->ah);
    return h;
}

static int handle_close(xengnttab_handle *h)
{
    struct mapping *m;
    int r;

    if (!h)
        return 0;
    xentoolcore__deregister_active_handle(&h->ah);
    r = close(h->fd);
    /* Pages still mapped stay mapped; the copy stays open for them on purpose. */
    if (!h->mappings && h->keep >= 0)
        close(h->keep);
    while ((m = h->mappings)) {
        h->mappings = m->next;
        free(m);
    }
    free(h);
    return r;
}

/* Puts the pages behind fds next to each other. Closes the fds in any case. */
static void *place(int *fds, uint32_t n, int prot)
{
    char *base = mmap(NULL, (size_t)n * FX_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int e = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (base != MAP_FAILED && !e &&
            mmap(base + (size_t)i * FX_PAGE, FX_PAGE, prot, MAP_SHARED | MAP_FIXED, fds[i], 0) ==
                MAP_FAILED)
            e = errno;
        close(fds[i]);
    }
    if (base == MAP_FAILED)
        return NULL;
    if (!e && madvise(base, (size_t)n * FX_PAGE, MADV_DONTFORK))
        e = errno;
    if (e) {
        munmap(base, (size_t)n * FX_PAGE);
        errno = e;
        return NULL;
    }
    return base;
}

static int remember(xengnttab_handle *h, void *addr, const struct fx_msg *m)
{
    struct mapping *mp = calloc(1, sizeof(*mp));

    if (!mp)
        return -1;
    if (h->keep < 0) {
        h->keep = fcntl(h->fd, F_DUPFD_CLOEXEC, 64);
        if (h->keep < 0) {
            free(mp);
            return -1;
        }
    }
    mp->addr = addr;
    mp->count = m->n;
    mp->id = m->cookie;
    memcpy(mp->refs, m->ref, sizeof(mp->refs));
    mp->next = h->mappings;
    h->mappings = mp;
    return 0;
}

/* Removes the record of a mapping that starts at addr. NULL with EINVAL if that is not one. */
static struct mapping *forget(xengnttab_handle *h, void *addr, uint32_t count)
{
    for (struct mapping **pp = &h->mappings; *pp; pp = &(*pp)->next) {
        struct mapping *m = *pp;

        if (m->addr == addr && m->count == count) {
            *pp = m->next;
            return m;
        }
    }
    errno = EINVAL;
    return NULL;
}

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned int flags)
{
    (void)logger;
    (void)flags;
    return handle_open(__func__);
}

int xengnttab_close(xengnttab_handle *h)
{
    return handle_close(h);
}

int xengnttab_fd(xengnttab_handle *h)
{
    return h->fd;
}

int xengnttab_set_max_grants(xengnttab_handle *h, uint32_t n)
{
    (void)n;
    return fxc_fault(__func__, h->domid) ? -1 : 0;
}

static void *map(xengnttab_handle *h, const char *name, uint32_t n, const uint32_t *dom,
                 bool one_domain, const uint32_t *ref, int prot, uint32_t offset, uint32_t port)
{
    struct fx_msg m = { .op = FX_OP_MAP, .domid = h->domid, .n = n,
                        .a = !!(prot & PROT_WRITE) };
    int fds[FX_MAX_GRANTS];
    void *addr;

    if (fxc_fault(name, h->domid) || fxc_fault("xengnttab_map", h->domid))
        return NULL;
    if (h->restricted) {
        errno = ENOTTY;              /* the ioctl, on what is /dev/null now */
        return NULL;
    }
    if (!n || n > FX_MAX_GRANTS) {
        errno = EINVAL;
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        m.dom[i] = dom[one_domain ? 0 : i];
        m.ref[i] = ref[i];
    }
    if (fxc_call(h->fd, &m, fds, n))
        return NULL;
    m.n = n;
    addr = place(fds, n, prot);
    if (!addr || remember(h, addr, &m)) {
        struct fx_msg u = { .op = FX_OP_UNMAP, .cookie = m.cookie };
        int e = errno;

        if (addr)
            munmap(addr, (size_t)n * FX_PAGE);
        fxc_call(h->fd, &u, NULL, 0);
        errno = e;
        return NULL;
    }
    if (offset < n * FX_PAGE || port != UINT32_MAX) {
        struct fx_msg s = { .op = FX_OP_SET_NOTIFY, .cookie = m.cookie, .b = port,
                            .a = offset < n * FX_PAGE ? offset : UINT32_MAX };

        if (fxc_call(h->fd, &s, NULL, 0)) {
            int e = errno;

            xengnttab_unmap(h, addr, n);
            errno = e;
            return NULL;
        }
    }
    return addr;
}

void *xengnttab_map_grant_ref(xengnttab_handle *h, uint32_t domid, uint32_t ref, int prot)
{
    return map(h, __func__, 1, &domid, true, &ref, prot, UINT32_MAX, UINT32_MAX);
}

void *xengnttab_map_grant_refs(xengnttab_handle *h, uint32_t count, uint32_t *domids,
                               uint32_t *refs, int prot)
{
    return map(h, __func__, count, domids, false, refs, prot, UINT32_MAX, UINT32_MAX);
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *h, uint32_t count, uint32_t domid,
                                      uint32_t *refs, int prot)
{
    return map(h, __func__, count, &domid, true, refs, prot, UINT32_MAX, UINT32_MAX);
}

void *xengnttab_map_grant_ref_notify(xengnttab_handle *h, uint32_t domid, uint32_t ref, int prot,
                                     uint32_t notify_offset, evtchn_port_t notify_port)
{
    return map(h, __func__, 1, &domid, true, &ref, prot, notify_offset, notify_port);
}

int xengnttab_unmap(xengnttab_handle *h, void *addr, uint32_t count)
{
    struct fx_msg u = { .op = FX_OP_UNMAP, .domid = h->domid };
    struct mapping *m;
    int r, e;

    if (fxc_fault(__func__, h->domid))
        return -1;
    if (h->restricted) {
        errno = ENOTTY;
        return -1;
    }
    m = forget(h, addr, count);
    if (!m)
        return -1;
    u.cookie = m->id;
    munmap(addr, (size_t)count * FX_PAGE);
    r = fxc_call(h->fd, &u, NULL, 0);
    e = errno;
    free(m);
    if (!h->mappings && h->keep >= 0) {
        close(h->keep);
        h->keep = -1;
    }
    errno = e;
    return r;
}

/* One side of a copy: where its bytes are. The caller unmaps *page. */
static int side(xengnttab_handle *h, bool foreign, const union xengnttab_copy_ptr *p,
                uint16_t len, bool write, void **page, char **bytes)
{
    struct fx_msg m = { .op = FX_OP_PEEK, .domid = h->domid, .c = write };
    int fd;

    *page = MAP_FAILED;
    if (!foreign) {
        *bytes = p->virt;
        return GNTST_okay;
    }
    m.a = p->foreign.domid;
    m.b = p->foreign.ref;
    if ((uint32_t)p->foreign.offset + len > FX_PAGE)
        return GNTST_bad_copy_arg;
    if (fxc_call(h->fd, &m, &fd, 1))
        return GNTST_bad_gntref;
    *page = mmap(NULL, FX_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (*page == MAP_FAILED)
        return GNTST_general_error;
    *bytes = (char *)*page + p->foreign.offset;
    return GNTST_okay;
}

int xengnttab_grant_copy(xengnttab_handle *h, uint32_t count,
                         xengnttab_grant_copy_segment_t *segs)
{
    if (fxc_fault(__func__, h->domid))
        return -1;
    if (h->restricted) {
        errno = ENOTTY;
        return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        xengnttab_grant_copy_segment_t *s = &segs[i];
        void *from_page, *to_page = MAP_FAILED;
        char *from, *to;

        s->status = (int16_t)side(h, s->flags & GNTCOPY_source_gref, &s->source, s->len, false,
                                  &from_page, &from);
        if (s->status == GNTST_okay)
            s->status = (int16_t)side(h, s->flags & GNTCOPY_dest_gref, &s->dest, s->len, true,
                                      &to_page, &to);
        if (s->status == GNTST_okay)
            memmove(to, from, s->len);
        if (from_page != MAP_FAILED)
            munmap(from_page, FX_PAGE);
        if (to_page != MAP_FAILED)
            munmap(to_page, FX_PAGE);
    }
    return 0;
}

/* Nothing on this side of a TPM uses dma-bufs: present for the linker, absent as in a kernel
 * built without them. */
int xengnttab_dmabuf_exp_from_refs(xengnttab_handle *h, uint32_t domid, uint32_t flags,
                                   uint32_t count, const uint32_t *refs, uint32_t *fd)
{
    (void)h, (void)domid, (void)flags, (void)count, (void)refs, (void)fd;
    errno = ENOTTY;
    return -1;
}

int xengnttab_dmabuf_exp_wait_released(xengnttab_handle *h, uint32_t fd, uint32_t wait_to_ms)
{
    (void)h, (void)fd, (void)wait_to_ms;
    errno = ENOTTY;
    return -1;
}

int xengnttab_dmabuf_imp_to_refs(xengnttab_handle *h, uint32_t domid, uint32_t fd, uint32_t count,
                                 uint32_t *refs)
{
    (void)h, (void)domid, (void)fd, (void)count, (void)refs;
    errno = ENOTTY;
    return -1;
}

int xengnttab_dmabuf_imp_release(xengnttab_handle *h, uint32_t fd)
{
    (void)h, (void)fd;
    errno = ENOTTY;
    return -1;
}

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger, unsigned int flags)
{
    (void)logger;
    (void)flags;
    return handle_open(__func__);
}

int xengntshr_close(xengntshr_handle *h)
{
    return handle_close(h);
}

int xengntshr_fd(xengntshr_handle *h)
{
    return h->fd;
}

void *xengntshr_share_pages(xengntshr_handle *h, uint32_t domid, int count, uint32_t *refs,
                            int writable)
{
    struct fx_msg m = { .op = FX_OP_SHARE, .domid = h->domid, .a = domid, .b = !!writable,
                        .n = (uint32_t)count };
    int fds[FX_MAX_GRANTS];
    void *addr;

    if (fxc_fault(__func__, h->domid))
        return NULL;
    if (count <= 0 || count > (int)FX_MAX_GRANTS) {
        errno = EINVAL;
        return NULL;
    }
    if (fxc_call(h->fd, &m, fds, (size_t)count))
        return NULL;
    m.n = (uint32_t)count;
    addr = place(fds, m.n, PROT_READ | PROT_WRITE);
    if (!addr || remember(h, addr, &m)) {
        int e = errno;

        if (addr)
            munmap(addr, (size_t)count * FX_PAGE);
        m.op = FX_OP_UNSHARE;
        fxc_call(h->fd, &m, NULL, 0);
        errno = e;
        return NULL;
    }
    memcpy(refs, m.ref, (size_t)count * sizeof(*refs));
    return addr;
}

void *xengntshr_share_page_notify(xengntshr_handle *h, uint32_t domid, uint32_t *ref, int writable,
                                  uint32_t notify_offset, evtchn_port_t notify_port)
{
    /* The granter's half of the notification fires when the granter goes away; no test looks at
     * a guest's death from inside the guest. */
    (void)notify_offset, (void)notify_port;
    return xengntshr_share_pages(h, domid, 1, ref, writable);
}

int xengntshr_unshare(xengntshr_handle *h, void *addr, uint32_t count)
{
    struct fx_msg m = { .op = FX_OP_UNSHARE, .domid = h->domid, .n = count };
    struct mapping *mp;
    int r, e;

    if (fxc_fault(__func__, h->domid))
        return -1;
    mp = forget(h, addr, count);
    if (!mp)
        return -1;
    memcpy(m.ref, mp->refs, sizeof(m.ref));
    munmap(addr, (size_t)count * FX_PAGE);
    r = fxc_call(h->fd, &m, NULL, 0);
    e = errno;
    free(mp);
    if (!h->mappings && h->keep >= 0) {
        close(h->keep);
        h->keep = -1;
    }
    errno = e;
    return r;
}
