/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hypervisor.c - see hypervisor.h.
 *
 * Port states, as Xen's: FREE; UNBOUND, waiting for one remote domain; INTERDOMAIN, both ends
 * know each other; VIRQ. Closing one end of a pair makes the other UNBOUND again, so it can be
 * bound anew, which is what lets a new backend take over a dead one's event channel.
 *
 * An event sets PENDING. If the port is not MASKED it goes into its handle's queue, which clears
 * PENDING and sets MASKED (Linux disables the port's interrupt until the user writes it back).
 */
#include "config.h"

#include "hypervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANY UINT32_MAX
#define DOMID_FIRST_RESERVED 0x7ff0u

enum port_kind { FREE, UNBOUND, INTERDOMAIN, VIRQ };

struct port {
    enum port_kind kind;
    uint32_t rdom, rport;            /* rport is the virq for VIRQ */
    bool pending, masked;
    struct hv_handle *owner;         /* NULL: the domain's kernel, which nobody plays */
};

struct grant {
    struct grant *next;
    uint32_t from, to, ref;
    bool writable, ended;
    int fd;
    uint32_t maps;
    struct hv_handle *owner;         /* NULL: the domain builder's */
};

struct map {
    struct map *next;
    uint64_t id;
    uint32_t n;
    struct grant *grant[FX_MAX_GRANTS];
    bool writable;
    uint32_t notify_offset, notify_port;
};

struct hv_handle {
    struct hv_handle *next;
    bool evtchn, quiet;
    uint32_t domid, restricted;
    uint64_t cookie;
    int fd;
    struct map *maps;
};

static struct {
    enum fx_dom_state state;
    uint32_t reason, next_ref, incarnation;
    bool ran, paused;
    struct port port[FX_NPORT];
    struct fx_stats stats;
} dom[FX_NDOM];
static struct grant *grants;
static struct hv_handle *handles;
static uint64_t next_map;

static bool exists(uint32_t d)
{
    return d < FX_NDOM && (dom[d].state == FX_DOM_RUNNING || dom[d].state == FX_DOM_SHUTDOWN);
}

static struct fx_stats *books(const struct hv_handle *h)
{
    static struct fx_stats nobody;

    return h->quiet ? &nobody : &dom[h->domid].stats;
}

static void *xzalloc(size_t n)
{
    void *p = calloc(1, n);

    if (!p)
        abort();
    return p;
}

/* ------------------------------------------------------------------ event channels */

static void deliver(uint32_t d, uint32_t port)
{
    struct port *p = &dom[d].port[port];

    if (p->kind != INTERDOMAIN && p->kind != VIRQ)
        return;
    p->pending = true;
    if (p->masked || !p->owner)
        return;
    p->pending = false;
    p->masked = true;
    books(p->owner)->delivered++;
    if (send(p->owner->fd, &port, sizeof(port), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
        errno != EPIPE && errno != ECONNRESET) {
        perror("fakexend: event lost");
        abort();
    }
}

static void close_port(uint32_t d, uint32_t port)
{
    struct port *p = &dom[d].port[port];

    if (p->kind == INTERDOMAIN) {
        struct port *q = &dom[p->rdom].port[p->rport];

        q->kind = UNBOUND;
        q->rdom = d;
        q->rport = 0;
    }
    if (p->owner)
        books(p->owner)->ports--;
    memset(p, 0, sizeof(*p));
}

static int new_port(uint32_t d, struct hv_handle *owner, enum port_kind kind, uint32_t rdom,
                    uint32_t rport, uint32_t *out)
{
    for (uint32_t i = 1; i < FX_NPORT; i++) {
        struct port *p = &dom[d].port[i];

        if (p->kind != FREE)
            continue;
        *p = (struct port){ .kind = kind, .rdom = rdom, .rport = rport, .owner = owner };
        if (owner)
            books(owner)->ports++;
        *out = i;
        return 0;
    }
    return ENOSPC;
}

struct hv_handle *hv_evtchn_open(uint32_t domid, bool quiet, uint64_t cookie, int fd)
{
    struct hv_handle *h;

    if (!exists(domid) || !cookie)
        return NULL;
    h = xzalloc(sizeof(*h));
    h->evtchn = true;
    h->quiet = quiet;
    h->domid = domid;
    h->restricted = ANY;
    h->cookie = cookie;
    h->fd = fd;
    h->next = handles;
    handles = h;
    books(h)->handles++;
    return h;
}

struct hv_handle *hv_find(uint64_t cookie)
{
    for (struct hv_handle *h = handles; h; h = h->next)
        if (h->evtchn && h->cookie == cookie)
            return h;
    return NULL;
}

uint32_t hv_domid(const struct hv_handle *h)
{
    return h->domid;
}

int hv_bind_unbound(struct hv_handle *h, uint32_t remote, uint32_t *port)
{
    if (h->restricted != ANY && h->restricted != remote)
        return EACCES;
    if (!exists(remote))
        return ESRCH;
    return new_port(h->domid, h, UNBOUND, remote, 0, port);
}

int hv_bind_interdomain(struct hv_handle *h, uint32_t remote, uint32_t rport, uint32_t *port)
{
    struct port *q;
    int err;

    if (h->restricted != ANY && h->restricted != remote)
        return EACCES;
    if (!exists(remote))
        return ESRCH;
    q = rport && rport < FX_NPORT ? &dom[remote].port[rport] : NULL;
    if (!q || q->kind != UNBOUND || q->rdom != h->domid)
        return EINVAL;
    err = new_port(h->domid, h, INTERDOMAIN, remote, rport, port);
    if (err)
        return err;
    q->kind = INTERDOMAIN;
    q->rdom = h->domid;
    q->rport = *port;
    books(h)->bound++;
    /* What was sent before anybody listened is not known, so Xen raises one for good measure. */
    deliver(h->domid, *port);
    return 0;
}

int hv_bind_virq(struct hv_handle *h, uint32_t virq, uint32_t *port)
{
    if (h->restricted != ANY)
        return EACCES;
    return new_port(h->domid, h, VIRQ, 0, virq, port);
}

static struct port *own_port(struct hv_handle *h, uint32_t port)
{
    struct port *p = port && port < FX_NPORT ? &dom[h->domid].port[port] : NULL;

    return p && p->kind != FREE && p->owner == h ? p : NULL;
}

int hv_unbind(struct hv_handle *h, uint32_t port)
{
    if (!own_port(h, port))
        return port < FX_NPORT ? ENOTCONN : EINVAL;
    close_port(h->domid, port);
    return 0;
}

int hv_notify(struct hv_handle *h, uint32_t port)
{
    struct port *p = own_port(h, port);

    if (!p)
        return ENOTCONN;
    books(h)->notified++;
    if (p->kind == INTERDOMAIN)
        deliver(p->rdom, p->rport);
    return 0;
}

int hv_unmask(struct hv_handle *h, uint32_t port)
{
    struct port *p = own_port(h, port);

    if (!p)
        return 0;                    /* Linux ignores what is not the writer's */
    p->masked = false;
    if (p->pending)
        deliver(h->domid, port);
    return 0;
}

int hv_restrict(struct hv_handle *h, uint32_t domid)
{
    if (h->restricted != ANY)
        return EACCES;
    if (!domid || domid >= DOMID_FIRST_RESERVED)
        return EINVAL;
    h->restricted = domid;
    return 0;
}

void hv_virq(uint32_t d, uint32_t virq)
{
    for (uint32_t i = 1; i < FX_NPORT; i++)
        if (dom[d].port[i].kind == VIRQ && dom[d].port[i].rport == virq)
            deliver(d, i);
}

/* ------------------------------------------------------------------ grants */

static struct grant *find_grant(uint32_t from, uint32_t ref)
{
    for (struct grant *g = grants; g; g = g->next)
        if (g->from == from && g->ref == ref && !g->ended)
            return g;
    return NULL;
}

static void drop_if_dead(uint32_t d)
{
    if (dom[d].state != FX_DOM_DYING)
        return;
    for (struct grant *g = grants; g; g = g->next)
        if (g->from == d)
            return;
    dom[d].state = FX_DOM_NONE;
    dom[d].next_ref = FX_REF_RESERVED;
}

/* A grant that ended lives on while it is mapped: the page cannot be taken from under a map. */
static void put_grant(struct grant *g)
{
    uint32_t from = g->from;

    if (!g->ended || g->maps)
        return;
    for (struct grant **pp = &grants; *pp; pp = &(*pp)->next)
        if (*pp == g) {
            *pp = g->next;
            break;
        }
    close(g->fd);
    free(g);
    drop_if_dead(from);
}

static void end_grant(struct grant *g)
{
    if (g->owner)
        dom[g->from].stats.granted--;
    g->ended = true;
    put_grant(g);
}

static int new_grant(uint32_t from, uint32_t to, uint32_t ref, bool writable,
                     struct hv_handle *owner, struct grant **out)
{
    struct grant *g;
    int fd = memfd_create("grant", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, FX_PAGE) < 0) {
        int e = errno;

        if (fd >= 0)
            close(fd);
        return e;
    }
    g = xzalloc(sizeof(*g));
    *g = (struct grant){ .from = from, .to = to, .ref = ref, .writable = writable, .fd = fd,
                         .owner = owner, .next = grants };
    grants = g;
    if (owner)
        dom[from].stats.granted++;
    *out = g;
    return 0;
}

struct hv_handle *hv_gnttab_open(uint32_t domid, bool quiet)
{
    struct hv_handle *h;

    if (!exists(domid))
        return NULL;
    h = xzalloc(sizeof(*h));
    h->quiet = quiet;
    h->domid = domid;
    h->fd = -1;
    h->next = handles;
    handles = h;
    books(h)->handles++;
    return h;
}

int hv_map(struct hv_handle *h, uint32_t n, const uint32_t *domid, const uint32_t *ref,
           bool writable, uint64_t *id, int *fds)
{
    struct map *m;

    if (!n || n > FX_MAX_GRANTS)
        return EINVAL;
    m = xzalloc(sizeof(*m));
    for (uint32_t i = 0; i < n; i++) {
        struct grant *g = exists(domid[i]) ? find_grant(domid[i], ref[i]) : NULL;

        if (!g || g->to != h->domid || (writable && !g->writable)) {
            free(m);
            books(h)->map_refused++;
            return EINVAL;
        }
        m->grant[i] = g;
        fds[i] = g->fd;
    }
    m->n = n;
    m->id = ++next_map;
    m->writable = writable;
    m->notify_offset = m->notify_port = ANY;
    m->next = h->maps;
    h->maps = m;
    for (uint32_t i = 0; i < n; i++)
        m->grant[i]->maps++;
    books(h)->mapped += n;
    books(h)->live += n;
    *id = m->id;
    return 0;
}

static struct map *find_map(struct hv_handle *h, uint64_t id)
{
    for (struct map *m = h->maps; m; m = m->next)
        if (m->id == id)
            return m;
    return NULL;
}

int hv_set_notify(struct hv_handle *h, uint64_t id, uint32_t offset, uint32_t port)
{
    struct map *m = find_map(h, id);

    if (!m || (offset != ANY && (offset >= m->n * FX_PAGE || !m->writable)) ||
        (port != ANY && (port >= FX_NPORT || dom[h->domid].port[port].kind == FREE)))
        return EINVAL;
    m->notify_offset = offset;
    m->notify_port = port;
    return 0;
}

static void release_map(struct hv_handle *h, struct map *m, bool orderly)
{
    for (struct map **pp = &h->maps; *pp; pp = &(*pp)->next)
        if (*pp == m) {
            *pp = m->next;
            break;
        }
    if (m->notify_offset != ANY) {
        static const char zero;
        int fd = m->grant[m->notify_offset / FX_PAGE]->fd;

        if (pwrite(fd, &zero, 1, m->notify_offset % FX_PAGE) != 1)
            perror("fakexend: notify byte");
    }
    if (m->notify_port != ANY && dom[h->domid].port[m->notify_port].kind == INTERDOMAIN)
        deliver(dom[h->domid].port[m->notify_port].rdom,
                dom[h->domid].port[m->notify_port].rport);
    books(h)->live -= m->n;
    *(orderly ? &books(h)->unmapped : &books(h)->reclaimed) += m->n;
    for (uint32_t i = 0; i < m->n; i++) {
        m->grant[i]->maps--;
        put_grant(m->grant[i]);
    }
    free(m);
}

int hv_unmap(struct hv_handle *h, uint64_t id)
{
    struct map *m = find_map(h, id);

    if (!m)
        return EINVAL;
    release_map(h, m, true);
    return 0;
}

int hv_share(struct hv_handle *h, uint32_t to, bool writable, uint32_t n, uint32_t *refs,
             int *fds)
{
    if (!n || n > FX_MAX_GRANTS)
        return EINVAL;
    for (uint32_t i = 0; i < n; i++) {
        struct grant *g;
        int err = new_grant(h->domid, to, dom[h->domid].next_ref, writable, h, &g);

        if (err) {
            hv_unshare(h, i, refs);
            return err;
        }
        refs[i] = dom[h->domid].next_ref++;      /* never used twice: a stale one is refused */
        fds[i] = g->fd;
    }
    return 0;
}

int hv_unshare(struct hv_handle *h, uint32_t n, const uint32_t *refs)
{
    for (uint32_t i = 0; i < n && i < FX_MAX_GRANTS; i++) {
        struct grant *g = find_grant(h->domid, refs[i]);

        if (!g || g->owner != h)
            return EINVAL;
        end_grant(g);
    }
    return 0;
}

int hv_peek(struct hv_handle *h, uint32_t d, uint32_t ref, bool write, int *fd)
{
    struct grant *g = exists(d) ? find_grant(d, ref) : NULL;

    if (!g || g->to != h->domid || (write && !g->writable))
        return EINVAL;
    *fd = g->fd;
    return 0;
}

int hv_grant_at(uint32_t from, uint32_t to, uint32_t ref, bool writable, int *fd)
{
    struct grant *g;
    int err;

    if (!exists(from) || find_grant(from, ref))
        return EINVAL;
    err = new_grant(from, to, ref, writable, NULL, &g);
    if (!err)
        *fd = g->fd;
    return err;
}

int hv_ungrant(uint32_t from, uint32_t ref)
{
    struct grant *g = find_grant(from, ref);

    if (!g)
        return ENOENT;
    end_grant(g);
    return 0;
}

/* ------------------------------------------------------------------ handles and domains */

void hv_close(struct hv_handle *h)
{
    for (struct hv_handle **pp = &handles; *pp; pp = &(*pp)->next)
        if (*pp == h) {
            *pp = h->next;
            break;
        }
    /* Mappings first: their notification wants the port that goes with the process. */
    while (h->maps)
        release_map(h, h->maps, false);
    for (uint32_t i = 1; h->evtchn && i < FX_NPORT; i++)
        if (dom[h->domid].port[i].kind != FREE && dom[h->domid].port[i].owner == h)
            close_port(h->domid, i);
    for (struct grant *g = grants, *next; g; g = next) {
        next = g->next;
        if (g->owner == h && !g->ended)
            end_grant(g);
    }
    for (struct grant *g = grants; g; g = g->next)
        if (g->owner == h)
            g->owner = NULL;
    books(h)->handles--;
    free(h);
}

int hv_domain_create(uint32_t d)
{
    if (d >= FX_NDOM)
        return EINVAL;
    if (dom[d].state != FX_DOM_NONE)
        return EEXIST;
    memset(&dom[d], 0, sizeof(dom[d]));
    dom[d].state = FX_DOM_RUNNING;
    dom[d].next_ref = FX_REF_RESERVED;
    dom[d].incarnation = 1;
    return 0;
}

int hv_domain_ran(uint32_t d)
{
    if (!exists(d))
        return ESRCH;
    dom[d].ran = true;
    if (dom[d].state == FX_DOM_SHUTDOWN)
        dom[d].state = FX_DOM_RUNNING;
    return 0;
}

int hv_domain_incarnation(uint32_t d, uint32_t incarnation)
{
    if (!exists(d))
        return ESRCH;
    dom[d].incarnation = incarnation;
    return 0;
}

int hv_domain_pause(uint32_t d, bool paused)
{
    if (!exists(d))
        return ESRCH;
    dom[d].paused = paused;
    return 0;
}

void hv_domain_facts(uint32_t d, bool *ran, bool *paused, uint32_t *incarnation)
{
    *ran = d < FX_NDOM && dom[d].ran;
    *paused = d < FX_NDOM && dom[d].paused;
    *incarnation = d < FX_NDOM ? dom[d].incarnation : 0;
}

int hv_domain_shutdown(uint32_t d, uint32_t reason)
{
    if (!exists(d))
        return ESRCH;
    dom[d].state = FX_DOM_SHUTDOWN;
    dom[d].reason = reason;
    return 0;
}

int hv_domain_destroy(uint32_t d)
{
    if (!d || !exists(d))
        return ESRCH;
    for (uint32_t i = 1; i < FX_NPORT; i++)
        if (dom[d].port[i].kind != FREE)
            close_port(d, i);
    dom[d].state = FX_DOM_DYING;
    for (struct grant *g = grants, *next; g; g = next) {
        next = g->next;
        if (g->from == d && !g->ended)
            end_grant(g);
    }
    drop_if_dead(d);
    return 0;
}

enum fx_dom_state hv_domain_state(uint32_t d, uint32_t *reason)
{
    if (d >= FX_NDOM)
        return FX_DOM_NONE;
    *reason = dom[d].reason;
    return dom[d].state;
}

uint32_t hv_dom0_port(void)
{
    return 1;                        /* taken by hv_init() */
}

void hv_stats(uint32_t d, struct fx_stats *out)
{
    memset(out, 0, sizeof(*out));
    if (d < FX_NDOM)
        *out = dom[d].stats;
}

void hv_init(void)
{
    uint32_t port;

    for (uint32_t d = 0; d < FX_NDOM; d++)
        dom[d].next_ref = FX_REF_RESERVED;
    dom[0].state = FX_DOM_RUNNING;
    /* The kernel's end of domain 0's own xenbus, for a real xenstored to bind to. */
    new_port(0, NULL, UNBOUND, 0, 0, &port);
}

void hv_fini(void)
{
    while (handles)
        hv_close(handles);
    while (grants) {
        struct grant *g = grants;

        grants = g->next;
        close(g->fd);
        free(g);
    }
}
