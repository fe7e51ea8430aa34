/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * frontend.c - see frontend.h.
 */
#include "config.h"

#include "frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

struct fx_guest {
    struct fx_machine *m;
    uint32_t domid;
    struct xs_handle *xs;
    xenevtchn_handle *ev;
    xengntshr_handle *gs;
};

struct fx_frontend {
    struct fx_guest *g;
    struct fx_vtpm d;
    unsigned int extra;
    volatile struct tpmif_shared_page *page;
    uint32_t refs[FX_MAX_GRANTS];
    int port;
    unsigned int events;
};

/* ------------------------------------------------------------------ toolstack */

void fx_vtpm_init(struct fx_vtpm *d, uint32_t be_domid, uint32_t domid, int devid,
                  const char *uuid)
{
    memset(d, 0, sizeof(*d));
    d->be_domid = be_domid;
    d->domid = domid;
    d->devid = devid;
    snprintf(d->uuid, sizeof(d->uuid), "%s", uuid ? uuid : "");
    snprintf(d->backend, sizeof(d->backend), "/local/domain/%u/backend/vtpm/%u/%d", be_domid,
             domid, devid);
    snprintf(d->frontend, sizeof(d->frontend), "/local/domain/%u/device/vtpm/%d", domid, devid);
    snprintf(d->libxl, sizeof(d->libxl), "/libxl/%u/device/vtpm/%d", domid, devid);
}

static bool put(struct xs_handle *xs, xs_transaction_t t, const char *dir, const char *key,
                const char *value)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/%s", dir, key);
    return xs_write(xs, t, path, value, (unsigned int)strlen(value));
}

static bool put_perms(struct xs_handle *xs, xs_transaction_t t, const char *dir, const char *key,
                      const char *value, struct xs_permissions *perms)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/%s", dir, key);
    return put(xs, t, dir, key, value) && xs_set_permissions(xs, t, path, perms, 2);
}

static bool fresh_dir(struct xs_handle *xs, xs_transaction_t t, const char *path,
                      struct xs_permissions *perms)
{
    return (xs_rm(xs, t, path) || errno == ENOENT) && xs_mkdir(xs, t, path) &&
           xs_set_permissions(xs, t, path, perms, 2);
}

static bool put_backend(struct xs_handle *xs, xs_transaction_t t, const char *dir,
                        const struct fx_vtpm *d)
{
    char domid[16], devid[16];

    snprintf(domid, sizeof(domid), "%u", d->domid);
    snprintf(devid, sizeof(devid), "%d", d->devid);
    return put(xs, t, dir, "frontend-id", domid) && put(xs, t, dir, "online", "1") &&
           put(xs, t, dir, "state", "1") && put(xs, t, dir, "handle", devid) &&
           (!d->uuid[0] || put(xs, t, dir, "uuid", d->uuid)) &&
           put(xs, t, dir, "resume", "False");
}

static bool write_device(struct xs_handle *xs, xs_transaction_t t, const struct fx_vtpm *d)
{
    struct xs_permissions front[2] = { { d->domid, XS_PERM_NONE }, { d->be_domid, XS_PERM_READ } };
    struct xs_permissions back[2] = { { d->be_domid, XS_PERM_NONE }, { d->domid, XS_PERM_READ } };
    char be[16], devid[16];

    snprintf(be, sizeof(be), "%u", d->be_domid);
    snprintf(devid, sizeof(devid), "%d", d->devid);
    return (xs_rm(xs, t, d->libxl) || errno == ENOENT) &&
           put(xs, t, d->libxl, "frontend", d->frontend) &&
           put(xs, t, d->libxl, "backend", d->backend) &&
           fresh_dir(xs, t, d->frontend, front) &&
           put(xs, t, d->frontend, "backend", d->backend) &&
           put_perms(xs, t, d->frontend, "backend-id", be, front) &&
           put_perms(xs, t, d->frontend, "state", "1", front) &&
           put_perms(xs, t, d->frontend, "handle", devid, front) &&
           fresh_dir(xs, t, d->backend, back) &&
           put(xs, t, d->backend, "frontend", d->frontend) &&
           put_backend(xs, t, d->backend, d) && put_backend(xs, t, d->libxl, d);
}

/* Runs a body in a transaction until it does not conflict. */
static int transact(struct fx_machine *m, const struct fx_vtpm *d,
                    int (*body)(struct xs_handle *xs, xs_transaction_t t,
                                const struct fx_vtpm *d, int arg),
                    int arg)
{
    struct xs_handle *xs = fx_xs_open(m, 0);
    int r;

    if (!xs)
        return -errno;
    for (;;) {
        xs_transaction_t t = xs_transaction_start(xs);

        r = t ? body(xs, t, d, arg) : -errno;
        if (r) {
            if (t)
                xs_transaction_end(xs, t, true);
            break;
        }
        if (xs_transaction_end(xs, t, false))
            break;
        if (errno != EAGAIN) {
            r = -errno;
            break;
        }
    }
    xs_close(xs);
    return r;
}

static int add_body(struct xs_handle *xs, xs_transaction_t t, const struct fx_vtpm *d, int arg)
{
    (void)arg;
    return write_device(xs, t, d) ? 0 : -errno;
}

int fx_vtpm_add(struct fx_machine *m, const struct fx_vtpm *d)
{
    return transact(m, d, add_body, 0);
}

/* Waits on a connection until the node holds that number; gone: whether no node is what counts. */
static int wait_node(struct xs_handle *xs, const char *path, int want, bool gone, int timeout)
{
    int64_t end = fx_now() + timeout;
    int r;

    if (!xs_watch(xs, path, "wait"))
        return -errno;
    for (;;) {
        struct pollfd p = { xs_fileno(xs), POLLIN, 0 };
        unsigned int len;
        int64_t left = end - fx_now();
        char **ev, *s;
        bool hit, missing;

        r = poll(&p, 1, left > 0 ? (int)left : 0);
        while ((ev = xs_check_watch(xs)))
            free(ev);
        s = xs_read(xs, XBT_NULL, path, &len);
        missing = !s && errno == ENOENT;
        hit = gone ? missing : s && atoi(s) == want;
        free(s);
        if (hit) {
            r = 0;
            break;
        }
        if (missing) {
            r = -ENOENT;
            break;
        }
        if (r == 0 && fx_now() >= end) {
            r = -ETIMEDOUT;
            break;
        }
    }
    xs_unwatch(xs, path, "wait");
    return r;
}

static int wait_as_toolstack(struct fx_machine *m, const char *path, int want, bool gone,
                             int timeout)
{
    struct xs_handle *xs = fx_xs_open(m, 0);
    int r;

    if (!xs)
        return -errno;
    r = wait_node(xs, path, want, gone, timeout);
    xs_close(xs);
    return r;
}

int fx_vtpm_wait(struct fx_machine *m, const struct fx_vtpm *d, enum xenbus_state state,
                 int timeout)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/state", d->backend);
    return wait_as_toolstack(m, path, (int)state, false, timeout);
}

int fx_vtpm_create(struct fx_machine *m, const struct fx_vtpm *d)
{
    int r = fx_vtpm_add(m, d);

    return r ? r : fx_vtpm_wait(m, d, XenbusStateInitWait, FX_LIBXL_TIMEOUT);
}

/* Deletes a node, and above it what became empty. */
static int clean_up(struct xs_handle *xs, xs_transaction_t t, const char *node)
{
    char path[160], **names;
    unsigned int n;

    snprintf(path, sizeof(path), "%s", node);
    if (!xs_rm(xs, t, path) && errno != ENOENT)
        return -errno;
    for (char *slash; (slash = strrchr(path, '/')) && slash != path;) {
        *slash = 0;
        names = xs_directory(xs, t, path, &n);
        if (!names) {
            if (errno == ENOENT)
                continue;
            return -errno;
        }
        free(names);
        if (n)
            break;
        if (!xs_rm(xs, t, path) && errno != ENOENT)
            return -errno;
    }
    return 0;
}

static int begin_body(struct xs_handle *xs, xs_transaction_t t, const struct fx_vtpm *d, int how)
{
    char path[160], *s;
    unsigned int len;
    int state;

    if (how == FX_DESTROY) {
        int r = clean_up(xs, t, d->frontend);

        if (r)
            return r;
    }
    snprintf(path, sizeof(path), "%s/state", d->backend);
    s = xs_read(xs, t, path, &len);
    if (!s)
        return -errno;
    state = atoi(s);
    free(s);
    if (!put(xs, t, d->backend, "online", "0") ||
        (state != XenbusStateClosed && !put(xs, t, d->backend, "state", "5")))
        return -errno;
    return 0;
}

int fx_vtpm_remove_begin(struct fx_machine *m, const struct fx_vtpm *d, enum fx_removal how)
{
    return transact(m, d, begin_body, how);
}

static int end_body(struct xs_handle *xs, xs_transaction_t t, const struct fx_vtpm *d, int backend)
{
    int r = clean_up(xs, t, d->frontend);

    if (!r)
        r = clean_up(xs, t, d->libxl);
    if (!r && backend)
        r = clean_up(xs, t, d->backend);
    return r;
}

/* libxl__device_destroy(): a backend's directory is for its own domain to remove. */
static int clean_up_as_libxl(struct fx_machine *m, const struct fx_vtpm *d)
{
    return transact(m, d, end_body, d->be_domid == 0);
}

int fx_vtpm_vanish(struct fx_machine *m, const struct fx_vtpm *d)
{
    return transact(m, d, end_body, true);
}

int fx_vtpm_remove(struct fx_machine *m, const struct fx_vtpm *d, enum fx_removal how)
{
    int r = fx_vtpm_remove_begin(m, d, how), r2;

    if (r == -ENOENT)
        return clean_up_as_libxl(m, d);          /* nobody to ask any more */
    if (r)
        return r;
    r = fx_vtpm_wait(m, d, XenbusStateClosed, FX_LIBXL_TIMEOUT);
    if (r == -ETIMEDOUT && how == FX_DETACH) {
        r2 = fx_vtpm_remove(m, d, FX_DESTROY);
        return r2 ? r2 : r;
    }
    if (r && how == FX_DETACH)
        return r;
    if (!r && d->be_domid)
        r = wait_as_toolstack(m, d->backend, 0, true, FX_LIBXL_TIMEOUT);
    r2 = clean_up_as_libxl(m, d);
    return r ? r : r2;
}

char *fx_read(struct fx_machine *m, const char *dir, const char *key)
{
    struct xs_handle *xs = fx_xs_open(m, 0);
    char path[256], *s;
    unsigned int len;

    if (!xs)
        return NULL;
    snprintf(path, sizeof(path), "%s%s%s", dir, *key ? "/" : "", key);
    s = xs_read(xs, XBT_NULL, path, &len);
    xs_close(xs);
    return s;
}

int fx_read_int(struct fx_machine *m, const char *dir, const char *key)
{
    char *s = fx_read(m, dir, key);
    int v = s ? atoi(s) : -1;

    free(s);
    return v;
}

int fx_write(struct fx_machine *m, const char *dir, const char *key, const char *value)
{
    struct xs_handle *xs = fx_xs_open(m, 0);
    int r = 0;

    if (!xs)
        return -errno;
    if (!put(xs, XBT_NULL, dir, key, value))
        r = -errno;
    xs_close(xs);
    return r;
}

/* ------------------------------------------------------------------ guest */

int fx_guest_open(struct fx_guest **out, struct fx_machine *m, uint32_t domid)
{
    struct fx_guest *g = calloc(1, sizeof(*g));
    int r = 0;

    if (!g)
        return -ENOMEM;
    g->m = m;
    g->domid = domid;
    fx_become(m, domid);
    g->xs = xs_open(0);
    g->ev = g->xs ? xenevtchn_open(NULL, 0) : NULL;
    g->gs = g->ev ? xengntshr_open(NULL, 0) : NULL;
    if (!g->gs)
        r = -errno;
    fx_become(m, 0);
    if (r) {
        fx_guest_close(g);
        return r;
    }
    *out = g;
    return 0;
}

void fx_guest_close(struct fx_guest *g)
{
    if (!g)
        return;
    if (g->gs)
        xengntshr_close(g->gs);
    xenevtchn_close(g->ev);
    xs_close(g->xs);
    free(g);
}

int fx_guest_write(struct fx_guest *g, const char *path, const char *value)
{
    return xs_write(g->xs, XBT_NULL, path, value, (unsigned int)strlen(value)) ? 0 : -errno;
}

char *fx_guest_read(struct fx_guest *g, const char *path)
{
    unsigned int len;

    return xs_read(g->xs, XBT_NULL, path, &len);
}

int fx_guest_remove(struct fx_guest *g, const char *path)
{
    return xs_rm(g->xs, XBT_NULL, path) ? 0 : -errno;
}

int fx_frontend_open(struct fx_frontend **out, struct fx_guest *g, const struct fx_vtpm *d,
                     unsigned int extra_pages)
{
    struct fx_frontend *f;
    int r;

    if (extra_pages >= FX_MAX_GRANTS)
        return -EINVAL;
    f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->g = g;
    f->d = *d;
    f->extra = extra_pages;
    f->page = xengntshr_share_pages(g->gs, d->be_domid, (int)extra_pages + 1, f->refs, 1);
    if (!f->page) {
        r = -errno;
        free(f);
        return r;
    }
    f->port = xenevtchn_bind_unbound_port(g->ev, d->be_domid);
    if (f->port < 0) {
        r = -errno;
        xengntshr_unshare(g->gs, (void *)(uintptr_t)f->page, extra_pages + 1);
        free(f);
        return r;
    }
    *out = f;
    return 0;
}

void fx_frontend_free(struct fx_frontend *f)
{
    if (!f)
        return;
    xenevtchn_unbind(f->g->ev, (evtchn_port_t)f->port);
    xengntshr_unshare(f->g->gs, (void *)(uintptr_t)f->page, f->extra + 1);
    free(f);
}

int fx_frontend_publish(struct fx_frontend *f)
{
    struct xs_handle *xs = f->g->xs;
    char ref[16], port[16];

    snprintf(ref, sizeof(ref), "%u", f->refs[0]);
    snprintf(port, sizeof(port), "%d", f->port);
    for (;;) {
        xs_transaction_t t = xs_transaction_start(xs);

        if (!t)
            return -errno;
        if (!put(xs, t, f->d.frontend, "ring-ref", ref) ||
            !put(xs, t, f->d.frontend, "event-channel", port) ||
            !put(xs, t, f->d.frontend, "feature-protocol-v2", "1")) {
            int e = errno;

            xs_transaction_end(xs, t, true);
            return -e;
        }
        if (xs_transaction_end(xs, t, false))
            break;
        if (errno != EAGAIN)
            return -errno;
    }
    return fx_frontend_set_state(f, XenbusStateInitialised);
}

int fx_frontend_set_state(struct fx_frontend *f, enum xenbus_state state)
{
    char s[16];

    snprintf(s, sizeof(s), "%d", (int)state);
    return put(f->g->xs, XBT_NULL, f->d.frontend, "state", s) ? 0 : -errno;
}

int fx_frontend_wait_backend(struct fx_frontend *f, enum xenbus_state state, int timeout)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/state", f->d.backend);
    return wait_node(f->g->xs, path, (int)state, false, timeout);
}

int fx_frontend_connect(struct fx_frontend *f, int timeout)
{
    int r = fx_frontend_publish(f);

    if (!r)
        r = fx_frontend_wait_backend(f, XenbusStateConnected, timeout);
    return r ? r : fx_frontend_set_state(f, XenbusStateConnected);
}

int fx_frontend_close(struct fx_frontend *f, int timeout)
{
    int r = fx_frontend_set_state(f, XenbusStateClosing);

    if (!r)
        r = fx_frontend_wait_backend(f, XenbusStateClosing, timeout);
    if (!r)
        r = fx_frontend_set_state(f, XenbusStateClosed);
    return r ? r : fx_frontend_wait_backend(f, XenbusStateClosed, timeout);
}

static size_t data_offset(const struct fx_frontend *f)
{
    return sizeof(struct tpmif_shared_page) + 4 * (size_t)f->extra;
}

size_t fx_frontend_capacity(const struct fx_frontend *f)
{
    return (size_t)FX_PAGE * (f->extra + 1) - data_offset(f);
}

int fx_frontend_submit(struct fx_frontend *f, uint8_t locality, const void *cmd, size_t len)
{
    volatile struct tpmif_shared_page *p = f->page;

    if (len > fx_frontend_capacity(f))
        return -EMSGSIZE;
    for (unsigned int i = 0; i < f->extra; i++)
        p->extra_pages[i] = f->refs[i + 1];
    p->nr_extra_pages = (uint8_t)f->extra;
    p->pad = 0;
    p->locality = locality;
    p->length = (uint32_t)len;
    memcpy((char *)(uintptr_t)p + data_offset(f), cmd, len);
    __atomic_store_n(&p->state, TPMIF_STATE_SUBMIT, __ATOMIC_SEQ_CST);
    return fx_frontend_notify(f);
}

int fx_frontend_cancel(struct fx_frontend *f)
{
    uint8_t submit = TPMIF_STATE_SUBMIT;

    /* Only a request still under way can be cancelled; an answer must not be painted over. */
    __atomic_compare_exchange_n(&f->page->state, &submit, TPMIF_STATE_CANCEL, false,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return fx_frontend_notify(f);
}

int fx_frontend_notify(struct fx_frontend *f)
{
    return xenevtchn_notify(f->g->ev, (evtchn_port_t)f->port) ? -errno : 0;
}

/* Takes one event. 0, or -ETIMEDOUT. Events of the guest's other frontends are not lost to them:
 * they look at their page before they wait. */
static int take_event(struct fx_frontend *f, int64_t end)
{
    struct pollfd p = { xenevtchn_fd(f->g->ev), POLLIN, 0 };
    int64_t left = end - fx_now();
    int port;

    if (poll(&p, 1, left > 0 ? (int)left : 0) <= 0)
        return -ETIMEDOUT;
    port = xenevtchn_pending(f->g->ev);
    if (port < 0)
        return -errno;
    if (port == f->port)
        f->events++;
    return xenevtchn_unmask(f->g->ev, (evtchn_port_t)port) ? -errno : 0;
}

static bool answered(struct fx_frontend *f)
{
    uint8_t s = __atomic_load_n(&f->page->state, __ATOMIC_ACQUIRE);

    return s == TPMIF_STATE_IDLE || s == TPMIF_STATE_FINISH;
}

int fx_frontend_wait(struct fx_frontend *f, void *buf, size_t cap, size_t *len, int timeout)
{
    int64_t end = fx_now() + timeout;
    uint8_t state;
    int r = 0;

    while (!answered(f)) {
        r = take_event(f, end);
        if (r == -ETIMEDOUT)
            return answered(f) ? -ENOMSG : r;
        if (r)
            return r;
    }
    state = __atomic_load_n(&f->page->state, __ATOMIC_ACQUIRE);
    if (state == TPMIF_STATE_IDLE)
        return -ECANCELED;
    *len = f->page->length;
    if (*len > fx_frontend_capacity(f) || f->page->nr_extra_pages != f->extra)
        return -EPROTO;
    memcpy(buf, (const char *)(uintptr_t)f->page + data_offset(f), *len < cap ? *len : cap);
    return 0;
}

int fx_frontend_wait_event(struct fx_frontend *f, int timeout)
{
    int64_t end = fx_now() + timeout;
    unsigned int before = f->events;
    int r = 0;

    while (!r && f->events == before)
        r = take_event(f, end);
    return r;
}

int fx_frontend_transact(struct fx_frontend *f, uint8_t locality, const void *cmd, size_t len,
                         void *buf, size_t cap, size_t *rsp_len, int timeout)
{
    int r = fx_frontend_submit(f, locality, cmd, len);

    return r ? r : fx_frontend_wait(f, buf, cap, rsp_len, timeout);
}

volatile struct tpmif_shared_page *fx_frontend_page(struct fx_frontend *f)
{
    return f->page;
}

uint32_t fx_frontend_ref(const struct fx_frontend *f, unsigned int page)
{
    return page <= f->extra ? f->refs[page] : 0;
}

uint32_t fx_frontend_port(const struct fx_frontend *f)
{
    return (uint32_t)f->port;
}

unsigned int fx_frontend_events(const struct fx_frontend *f)
{
    return f->events;
}
