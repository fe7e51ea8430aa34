/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store.c - see store.h.
 *
 * Invariants: every node has at least one permission entry, the first names its owner; a
 * node's generation changes whenever its data, permissions or list of children do; the copy
 * of the tree in a transaction differs from the main one only by what the transaction's log
 * says, and committing is replaying that log on the main tree, which can only follow a check
 * that no node it touched has another generation there.
 *
 * Trees share what is equal: a node is counted by those that point to it, and who changes one
 * that somebody else points to changes a copy (own()). So the snapshot of a transaction costs
 * nothing, however many domains there are.
 */
#include "config.h"

#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenstore_lib.h>

#define NO_GEN   0u
#define NOBODY   UINT32_MAX

struct perms {
    uint32_t n;
    struct xs_permissions *p;
};

struct node {
    uint32_t refs;                   /* parents and roots that point here */
    char *name;                      /* last part of the path */
    struct node **child;
    uint32_t nchild;
    char *data;
    uint32_t len;
    struct perms perms;
    uint64_t gen;
};

struct message {
    struct message *next;
    bool event;
    size_t len, sent;
    char bytes[];                    /* header and payload */
};

struct watch {
    struct watch *next;
    char *node, *token;
    size_t skip;                     /* what a relative watch does not see of the path */
};

struct touched {
    struct touched *next;
    char *path;
    uint64_t gen;
};

enum log_type { LOG_WRITE, LOG_MKDIR, LOG_RM, LOG_PERMS };

struct log {
    struct log *next;
    enum log_type type;
    char *path, *data;
    uint32_t len;
    struct perms perms;
};

struct tx {
    struct tx *next;
    uint32_t id;
    struct node *root;
    struct touched *touched;
    struct log *log, **log_end;
    bool failed;
};

struct store_conn {
    struct store_conn *next;
    struct store *store;
    uint32_t domid;
    struct asker *asker;
    struct tx *txs;
    uint32_t next_tx;
    struct watch *watches;
    struct message *out, **out_end;
    char *in;
    size_t in_len;
    bool hold;
    struct xsd_sockmsg hdr;          /* of the request in progress */
};

/* One process: its requests, over all its connections, are counted. */
struct asker {
    struct asker *next;
    uint32_t pid, requests;
};

struct domain {
    bool introduced, shutdown, hold;
    uint32_t target;
};

struct store {
    const struct store_ops *ops;
    void *arg;
    struct node *root;
    uint64_t gen;
    struct store_conn *conns;
    struct asker *askers;
    struct domain dom[FX_NDOM];
    struct perms release_perms, introduce_perms;
    uint32_t quota[FX_QUOTA_COUNT];
    uint32_t conflict_domid, conflict_count;
    struct { uint32_t queued, merged, conflicts; } count[FX_NDOM];
};

/* ------------------------------------------------------------------ memory and strings */

static void *xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);

    if (!p) {
        fprintf(stderr, "fakexend: out of memory\n");
        abort();
    }
    return p;
}

static void *xzalloc(size_t n)
{
    return memset(xmalloc(n), 0, n);
}

static void *xmemdup(const void *p, size_t n)
{
    return n ? memcpy(xmalloc(n), p, n) : xmalloc(1);
}

static char *xstrdup(const char *s)
{
    return xmemdup(s, strlen(s) + 1);
}

static struct perms perms_copy(const struct perms *p)
{
    return (struct perms){ p->n, xmemdup(p->p, p->n * sizeof(*p->p)) };
}

static struct perms perms_owner(uint32_t id)
{
    struct xs_permissions p = { id, XS_PERM_NONE };

    return (struct perms){ 1, xmemdup(&p, sizeof(p)) };
}

/* ------------------------------------------------------------------ the tree */

static struct node *node_new(const char *name, size_t name_len)
{
    struct node *n = xzalloc(sizeof(*n));

    n->refs = 1;
    n->name = xmalloc(name_len + 1);
    memcpy(n->name, name, name_len);
    n->name[name_len] = 0;
    n->data = xmalloc(1);
    return n;
}

static void node_put(struct node *n)
{
    if (--n->refs)
        return;
    for (uint32_t i = 0; i < n->nchild; i++)
        node_put(n->child[i]);
    free(n->child);
    free(n->name);
    free(n->data);
    free(n->perms.p);
    free(n);
}

static struct node *node_get(struct node *n)
{
    n->refs++;
    return n;
}

/* The node a pointer of ours leads to, ours alone, so that it can be changed. */
static struct node *own(struct node **at)
{
    struct node *n = *at, *c;

    if (n->refs == 1)
        return n;
    c = node_new(n->name, strlen(n->name));
    free(c->data);
    c->data = xmemdup(n->data, n->len);
    c->len = n->len;
    c->perms = perms_copy(&n->perms);
    c->gen = n->gen;
    c->child = xmemdup(n->child, n->nchild * sizeof(*n->child));
    c->nchild = n->nchild;
    for (uint32_t i = 0; i < n->nchild; i++)
        node_get(n->child[i]);
    node_put(n);
    *at = c;
    return c;
}

/* parent is ours. */
static struct node *node_add(struct node *parent, const char *name, size_t name_len)
{
    parent->child = realloc(parent->child, (parent->nchild + 1) * sizeof(*parent->child));
    if (!parent->child)
        abort();
    return parent->child[parent->nchild++] = node_new(name, name_len);
}

static struct node **child_at(const struct node *n, const char *name, size_t len)
{
    for (uint32_t i = 0; i < n->nchild; i++)
        if (!strncmp(n->child[i]->name, name, len) && !n->child[i]->name[len])
            return &n->child[i];
    return NULL;
}

static struct node *node_child(const struct node *n, const char *name, size_t len)
{
    struct node **at = child_at(n, name, len);

    return at ? *at : NULL;
}

/* path is valid and absolute. NULL if there is no such node. */
static struct node *node_find(struct node *root, const char *path)
{
    struct node *n = root;

    for (const char *p = path + 1; *p && n;) {
        size_t len = strcspn(p, "/");

        n = node_child(n, p, len);
        p += len;
        if (*p == '/')
            p++;
    }
    return n;
}

/* The same, to be changed: ours with all above it. The node must be there. */
static struct node *node_own(struct node **root, const char *path)
{
    struct node *n = own(root);

    for (const char *p = path + 1; *p;) {
        size_t len = strcspn(p, "/");

        n = own(child_at(n, p, len));
        p += len;
        if (*p == '/')
            p++;
    }
    return n;
}

static void parent_path(char *out, const char *path)
{
    size_t len = (size_t)(strrchr(path, '/') - path);

    if (!len)
        len = 1;
    memmove(out, path, len);
    out[len] = 0;
}

static uint32_t node_count(const struct node *n, uint32_t owner)
{
    uint32_t c = n->perms.p[0].id == owner;

    for (uint32_t i = 0; i < n->nchild; i++)
        c += node_count(n->child[i], owner);
    return c;
}

static bool valid_path(const char *path)
{
    size_t len = strlen(path), local = 0;
    unsigned int domid;
    int off = 0;

    if (path[0] != '/' || (len > 1 && path[len - 1] == '/') || strstr(path, "//"))
        return false;
    if (sscanf(path, "/local/domain/%5u/%n", &domid, &off) == 1)
        local = (size_t)off;
    if (len > local + XENSTORE_REL_PATH_MAX)
        return false;
    return strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@") ==
           len;
}

/* ------------------------------------------------------------------ permissions */

static bool unprivileged(const struct store_conn *c)
{
    return c->domid != 0;
}

static unsigned int perm_for(const struct store_conn *c, const struct perms *p)
{
    uint32_t target = c->store->dom[c->domid].target;

    if (!unprivileged(c) || p->p[0].id == c->domid || (target && p->p[0].id == target))
        return XS_PERM_READ | XS_PERM_WRITE | XS_PERM_OWNER;
    for (uint32_t i = 1; i < p->n; i++)
        if (p->p[i].id == c->domid || (target && p->p[i].id == target))
            return p->p[i].perms;
    return p->p[0].perms;
}

/* ------------------------------------------------------------------ transactions' books */

static struct node **root_at(struct store_conn *c, struct tx *tx)
{
    return tx ? &tx->root : &c->store->root;
}

static struct node *root_of(struct store_conn *c, struct tx *tx)
{
    return *root_at(c, tx);
}

static void touch(struct tx *tx, const char *path)
{
    struct touched *t;
    struct node *n;

    if (!tx)
        return;
    for (t = tx->touched; t; t = t->next)
        if (!strcmp(t->path, path))
            return;
    n = node_find(tx->root, path);
    t = xmalloc(sizeof(*t));
    t->path = xstrdup(path);
    t->gen = n ? n->gen : NO_GEN;
    t->next = tx->touched;
    tx->touched = t;
}

static void tx_log(struct tx *tx, enum log_type type, const char *path, const void *data,
                   uint32_t len, const struct perms *perms)
{
    struct log *l;

    if (!tx)
        return;
    l = xzalloc(sizeof(*l));
    l->type = type;
    l->path = xstrdup(path);
    l->data = xmemdup(data, len);
    l->len = len;
    if (perms)
        l->perms = perms_copy(perms);
    *tx->log_end = l;
    tx->log_end = &l->next;
}

static struct tx *tx_find(struct store_conn *c, uint32_t id)
{
    for (struct tx *t = c->txs; t; t = t->next)
        if (t->id == id)
            return t;
    return NULL;
}

static void tx_free(struct store_conn *c, struct tx *tx)
{
    struct touched *t;
    struct log *l;

    for (struct tx **pp = &c->txs; *pp; pp = &(*pp)->next)
        if (*pp == tx) {
            *pp = tx->next;
            break;
        }
    while ((t = tx->touched)) {
        tx->touched = t->next;
        free(t->path);
        free(t);
    }
    while ((l = tx->log)) {
        tx->log = l->next;
        free(l->path);
        free(l->data);
        free(l->perms.p);
        free(l);
    }
    node_put(tx->root);
    free(tx);
}

/* ------------------------------------------------------------------ replies and events */

static void push(struct store_conn *c, bool event, uint32_t type, const void *data, size_t len)
{
    struct xsd_sockmsg h = { .type = type, .len = (uint32_t)len };
    struct message *m = xmalloc(sizeof(*m) + sizeof(h) + len);

    if (!event) {
        h.req_id = c->hdr.req_id;
        h.tx_id = c->hdr.tx_id;
    }
    memcpy(m->bytes, &h, sizeof(h));
    if (len)
        memcpy(m->bytes + sizeof(h), data, len);
    m->len = sizeof(h) + len;
    m->sent = 0;
    m->event = event;
    m->next = NULL;
    *c->out_end = m;
    c->out_end = &m->next;
}

static void reply(struct store_conn *c, const void *data, size_t len)
{
    if (len > XENSTORE_PAYLOAD_MAX)
        push(c, false, XS_ERROR, "E2BIG", sizeof("E2BIG"));
    else
        push(c, false, c->hdr.type, data, len);
}

static void reply_error(struct store_conn *c, int err)
{
    const char *s = "EINVAL";

    for (size_t i = 0; i < sizeof(xsd_errors) / sizeof(xsd_errors[0]); i++)
        if (xsd_errors[i].errnum == err)
            s = xsd_errors[i].errstring;
    push(c, false, XS_ERROR, s, strlen(s) + 1);
}

static void ack(struct store_conn *c)
{
    reply(c, "OK", sizeof("OK"));
}

/* An event that waits unsent is not queued again, except for the special ones. */
static void send_event(struct store_conn *c, const char *path, const char *token)
{
    char buf[XENSTORE_PAYLOAD_MAX];
    size_t lp = strlen(path) + 1, lt = strlen(token) + 1;

    if (lp + lt > sizeof(buf))
        return;
    memcpy(buf, path, lp);
    memcpy(buf + lp, token, lt);
    if (path[0] != '@')
        for (struct message *m = c->out; m; m = m->next)
            if (m->event && !m->sent && m->len == sizeof(struct xsd_sockmsg) + lp + lt &&
                !memcmp(m->bytes + sizeof(struct xsd_sockmsg), buf, lp + lt)) {
                c->store->count[c->domid].merged++;
                return;
            }
    c->store->count[c->domid].queued++;
    push(c, true, XS_WATCH_EVENT, buf, lp + lt);
}

static bool below(const char *path, const char *parent)
{
    size_t len = strlen(parent);

    if (!strcmp(parent, "/"))
        return true;
    return !strncmp(path, parent, len) && (path[len] == '/' || !path[len]);
}

static const char *seen_path(const struct watch *w, const char *path)
{
    path += w->skip;
    if (w->skip && *path == '/')
        path++;
    return path;
}

/* exact: only watches on this very node; else also those above it. node may be gone already, then
 * old are the permissions it had. */
static void fire(struct store *s, const char *path, const struct node *node, bool exact,
                 const struct perms *old)
{
    char up[XENSTORE_PAYLOAD_MAX];
    const struct node *parent = NULL;

    if (node && strcmp(path, "/")) {
        parent_path(up, path);
        parent = node_find(s->root, up);
    }
    for (struct store_conn *c = s->conns; c; c = c->next) {
        bool ok = (old && (perm_for(c, old) & XS_PERM_READ)) ||
                  (node && (perm_for(c, &node->perms) & XS_PERM_READ)) ||
                  (parent && (perm_for(c, &parent->perms) & XS_PERM_READ));

        if (!ok)
            continue;
        for (struct watch *w = c->watches; w; w = w->next)
            if (exact ? !strcmp(path, w->node) : below(path, w->node))
                send_event(c, seen_path(w, path), w->token);
    }
}

static void fire_special(struct store *s, const char *name)
{
    struct perms *p = !strcmp(name, "@releaseDomain") ? &s->release_perms : &s->introduce_perms;

    for (struct store_conn *c = s->conns; c; c = c->next) {
        if (!(perm_for(c, p) & XS_PERM_READ))
            continue;
        for (struct watch *w = c->watches; w; w = w->next)
            if (!strcmp(w->node, name))
                send_event(c, name, w->token);
    }
}

/* ------------------------------------------------------------------ operations on a tree */

/*
 * The node, if c may do `perm` with it. Else NULL and an errno that tells nothing about the node
 * to somebody who may not do the same with what is above it.
 */
static struct node *get_node(struct store_conn *c, struct tx *tx, const char *path,
                             unsigned int perm)
{
    char up[XENSTORE_PAYLOAD_MAX];
    struct node *n, *above;
    int err = ENOENT;

    if (!valid_path(path)) {
        /* The same courtesy as for any other error: ask the parents, here the root. */
        errno = EINVAL;
        return NULL;
    }
    touch(tx, path);
    n = node_find(root_of(c, tx), path);
    if (n) {
        if ((perm_for(c, &n->perms) & perm) == perm)
            return n;
        err = EACCES;
    }
    snprintf(up, sizeof(up), "%s", path);
    do {
        parent_path(up, up);
        touch(tx, up);
        above = node_find(root_of(c, tx), up);
    } while (!above);
    errno = (perm_for(c, &above->perms) & perm) ? err : EACCES;
    return NULL;
}

static bool entry_too_big(struct store_conn *c, const struct node *n, uint32_t len,
                          uint32_t nperms)
{
    size_t size = 24 + nperms * sizeof(struct xs_permissions) + len;

    for (uint32_t i = 0; i < n->nchild; i++)
        size += strlen(n->child[i]->name) + 1;
    return unprivileged(c) && size >= c->store->quota[FX_QUOTA_ENTRY_SIZE];
}

/* Makes the node and what is missing above it. Returns NULL with errno. */
static struct node *create(struct store_conn *c, struct tx *tx, const char *path,
                           const void *data, uint32_t len)
{
    struct store *s = c->store;
    struct node *n = root_of(c, tx), *top = NULL;
    uint32_t missing = 0, have;
    size_t first_len = 0;

    /* First look whether it fits, so that nothing has to be undone. */
    for (const char *p = path + 1; *p;) {
        size_t l = strcspn(p, "/");
        struct node *next = top ? NULL : node_child(n, p, l);

        if (next)
            n = next;
        else {
            if (!top)
                first_len = l;
            top = n;
            missing++;
        }
        p += l;
        if (*p == '/')
            p++;
    }
    have = unprivileged(c) ? node_count(root_of(c, tx), c->domid) : 0;
    /* The names of its children count for a node's size. */
    if (unprivileged(c) &&
        (have + missing > s->quota[FX_QUOTA_NODES] ||
         entry_too_big(c, top, top->len + (uint32_t)first_len + 1, top->perms.n) ||
         24 + top->perms.n * sizeof(struct xs_permissions) + len >=
             s->quota[FX_QUOTA_ENTRY_SIZE])) {
        if (tx)
            tx->failed = true;
        errno = ENOSPC;
        return NULL;
    }
    n = own(root_at(c, tx));
    for (const char *p = path + 1; *p;) {
        size_t l = strcspn(p, "/");
        struct node **at = child_at(n, p, l), *next;

        if (at) {
            next = own(at);
        } else {
            n->gen = ++s->gen;
            next = node_add(n, p, l);
            next->perms = perms_copy(&n->perms);
            if (unprivileged(c))
                next->perms.p[0].id = c->domid;
            next->gen = ++s->gen;
        }
        n = next;
        p += l;
        if (*p == '/')
            p++;
    }
    free(n->data);
    n->data = xmemdup(data, len);
    n->len = len;
    return n;
}

static int op_write(struct store_conn *c, struct tx *tx, const char *path, const void *data,
                    uint32_t len, bool only_create)
{
    struct node *n = get_node(c, tx, path, XS_PERM_WRITE);

    if (n && only_create)
        return 0;
    if (!n) {
        if (errno != ENOENT)
            return errno;
        n = create(c, tx, path, data, len);
        if (!n)
            return errno;
    } else {
        if (entry_too_big(c, n, len, n->perms.n)) {
            if (tx)
                tx->failed = true;
            return ENOSPC;
        }
        n = node_own(root_at(c, tx), path);
        free(n->data);
        n->data = xmemdup(data, len);
        n->len = len;
        n->gen = ++c->store->gen;
    }
    if (tx)
        tx_log(tx, only_create ? LOG_MKDIR : LOG_WRITE, path, data, len, NULL);
    else
        fire(c->store, path, n, false, NULL);
    return 0;
}

static void fire_removed(struct store *s, const char *path, struct node *n, bool top)
{
    char sub[XENSTORE_PAYLOAD_MAX];

    for (uint32_t i = 0; i < n->nchild; i++) {
        snprintf(sub, sizeof(sub), "%s/%s", path, n->child[i]->name);
        fire_removed(s, sub, n->child[i], false);
    }
    fire(s, path, n, !top, NULL);
}

static void touch_below(struct tx *tx, const char *path, const struct node *n)
{
    char sub[XENSTORE_PAYLOAD_MAX];

    touch(tx, path);
    for (uint32_t i = 0; i < n->nchild; i++) {
        snprintf(sub, sizeof(sub), "%s/%s", path, n->child[i]->name);
        touch_below(tx, sub, n->child[i]);
    }
}

/* parent is ours. */
static void remove_child(struct store *s, struct node *parent, struct node *n)
{
    for (uint32_t i = 0; i < parent->nchild; i++)
        if (parent->child[i] == n) {
            memmove(&parent->child[i], &parent->child[i + 1],
                    (parent->nchild - i - 1) * sizeof(*parent->child));
            parent->nchild--;
            break;
        }
    parent->gen = ++s->gen;
    node_put(n);
}

static int op_rm(struct store_conn *c, struct tx *tx, const char *path)
{
    struct node *n = get_node(c, tx, path, XS_PERM_WRITE);
    char up[XENSTORE_PAYLOAD_MAX];

    if (!n) {
        int err = errno;

        /* Not there is as good as removed, if what should hold it is there. */
        if (err != ENOENT)
            return err;
        parent_path(up, path);
        touch(tx, up);
        return node_find(root_of(c, tx), up) ? 0 : ENOENT;
    }
    if (!strcmp(path, "/"))
        return EINVAL;
    parent_path(up, path);
    touch(tx, up);
    if (tx) {
        touch_below(tx, path, n);
        tx_log(tx, LOG_RM, path, NULL, 0, NULL);
    } else {
        fire_removed(c->store, path, n, true);
    }
    remove_child(c->store, node_own(root_at(c, tx), up), n);
    return 0;
}

/* A dead domain's nodes go, with all below them, and what else it was allowed must not be its
 * successor's. n is ours. */
static void bury(struct store *s, const char *path, struct node *n, uint32_t domid)
{
    char sub[XENSTORE_PAYLOAD_MAX];
    struct perms *p = &n->perms;

    for (uint32_t i = 1; i < p->n; i++)
        if (p->p[i].id == domid) {
            memmove(&p->p[i], &p->p[i + 1], (p->n - i - 1) * sizeof(*p->p));
            p->n--;
            i--;
        }
    for (uint32_t i = 0; i < n->nchild; i++) {
        struct node *c = own(&n->child[i]);

        snprintf(sub, sizeof(sub), "%s/%s", path, c->name);
        if (c->perms.p[0].id == domid) {
            fire_removed(s, sub, c, true);
            remove_child(s, n, c);
            i--;
        } else {
            bury(s, sub, c, domid);
        }
    }
}

static int op_perms(struct store_conn *c, struct tx *tx, const char *path, const struct perms *p)
{
    struct node *n;
    struct perms old;

    n = get_node(c, tx, path, XS_PERM_WRITE | XS_PERM_OWNER);
    if (!n)
        return errno;
    if (unprivileged(c) && p->p[0].id != n->perms.p[0].id)
        return EPERM;
    if (entry_too_big(c, n, n->len, p->n))
        return ENOSPC;
    n = node_own(root_at(c, tx), path);
    old = n->perms;
    n->perms = perms_copy(p);
    n->gen = ++c->store->gen;
    if (tx)
        tx_log(tx, LOG_PERMS, path, NULL, 0, p);
    else
        fire(c->store, path, n, false, &old);
    free(old.p);
    return 0;
}

static int commit(struct store_conn *c, struct tx *tx)
{
    struct store *s = c->store;

    if (tx->failed)
        return ENOMEM;
    for (struct touched *t = tx->touched; t; t = t->next) {
        struct node *n = node_find(s->root, t->path);

        if ((n ? n->gen : NO_GEN) != t->gen) {
            s->count[c->domid].conflicts++;
            return EAGAIN;
        }
    }
    if (s->conflict_count && (s->conflict_domid == FX_STORE_ANY || s->conflict_domid == c->domid)) {
        s->conflict_count--;
        s->count[c->domid].conflicts++;
        return EAGAIN;
    }
    for (struct log *l = tx->log; l; l = l->next) {
        int r = 0;

        if (l->type == LOG_WRITE || l->type == LOG_MKDIR)
            r = op_write(c, NULL, l->path, l->data, l->len, l->type == LOG_MKDIR);
        else if (l->type == LOG_RM)
            r = op_rm(c, NULL, l->path);
        else
            r = op_perms(c, NULL, l->path, &l->perms);
        if (r) {
            /* Nothing it touched has changed, so what worked on the copy works here. */
            fprintf(stderr, "fakexend: replay of %s failed: %s\n", l->path, strerror(r));
            abort();
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ requests */

struct request {
    struct store_conn *c;
    struct tx *tx;
    char *body;
    uint32_t len;
    char path[XENSTORE_PAYLOAD_MAX + 32];
};

/* The strings of a request: their number; vec gets the first max. */
static uint32_t strings(const struct request *r, char **vec, uint32_t max)
{
    uint32_t n = 0;

    for (uint32_t off = 0; off < r->len;) {
        char *nul = memchr(r->body + off, 0, r->len - off);

        if (!nul)
            break;
        if (n < max)
            vec[n] = r->body + off;
        n++;
        off = (uint32_t)(nul - r->body) + 1;
    }
    return n;
}

/* Exactly one string with nothing behind it, else NULL. */
static char *one_arg(const struct request *r)
{
    return r->len && strnlen(r->body, r->len) + 1 == r->len ? r->body : NULL;
}

/* Absolute form in r->path. Returns false for no path at all. */
static bool absolute(struct request *r, const char *path)
{
    int n;

    if (!path)
        return false;
    if (path[0] == '/' || path[0] == '@')
        n = snprintf(r->path, sizeof(r->path), "%s", path);
    else
        n = snprintf(r->path, sizeof(r->path), "/local/domain/%u/%s", r->c->domid, path);
    return n >= 0 && (size_t)n < XENSTORE_PAYLOAD_MAX;
}

static int do_directory(struct request *r)
{
    char buf[65536];
    size_t len = 0;
    struct node *n;

    if (!absolute(r, one_arg(r)))
        return EINVAL;
    n = get_node(r->c, r->tx, r->path, XS_PERM_READ);
    if (!n)
        return errno;
    for (uint32_t i = 0; i < n->nchild; i++) {
        size_t l = strlen(n->child[i]->name) + 1;

        if (len + l > sizeof(buf))
            return E2BIG;
        memcpy(buf + len, n->child[i]->name, l);
        len += l;
    }
    reply(r->c, buf, len);
    return 0;
}

static int do_directory_part(struct request *r)
{
    char *vec[2], list[65536], buf[XENSTORE_PAYLOAD_MAX];
    size_t len = 0, off, part = 0, head;
    struct node *n;

    if (strings(r, vec, 2) != 2 || !absolute(r, vec[0]))
        return EINVAL;
    n = get_node(r->c, r->tx, r->path, XS_PERM_READ);
    if (!n)
        return errno;
    for (uint32_t i = 0; i < n->nchild; i++) {
        size_t l = strlen(n->child[i]->name) + 1;

        if (len + l > sizeof(list))
            return E2BIG;
        memcpy(list + len, n->child[i]->name, l);
        len += l;
    }
    off = strtoul(vec[1], NULL, 10);
    head = (size_t)snprintf(buf, sizeof(buf), "%llu", (unsigned long long)n->gen) + 1;
    while (off + part < len) {
        size_t l = strlen(list + off + part) + 1;

        if (head + part + l + 1 > sizeof(buf))
            break;
        part += l;
    }
    if (part)
        memcpy(buf + head, list + off, part);
    if (off + part >= len)               /* an empty string says: that was all */
        buf[head + part++] = 0;
    reply(r->c, buf, head + part);
    return 0;
}

static int do_read(struct request *r)
{
    struct node *n;

    if (!absolute(r, one_arg(r)))
        return EINVAL;
    n = get_node(r->c, r->tx, r->path, XS_PERM_READ);
    if (!n)
        return errno;
    reply(r->c, n->data, n->len);
    return 0;
}

static int do_write(struct request *r)
{
    char *vec[1];
    uint32_t off;
    int err;

    if (strings(r, vec, 1) < 1 || !absolute(r, vec[0]))
        return EINVAL;
    off = (uint32_t)strlen(vec[0]) + 1;
    err = op_write(r->c, r->tx, r->path, r->body + off, r->len - off, false);
    if (!err)
        ack(r->c);
    return err;
}

static int do_mkdir(struct request *r)
{
    int err;

    if (!absolute(r, one_arg(r)))
        return EINVAL;
    err = op_write(r->c, r->tx, r->path, "", 0, true);
    if (!err)
        ack(r->c);
    return err;
}

static int do_rm(struct request *r)
{
    int err;

    if (!absolute(r, one_arg(r)))
        return EINVAL;
    err = op_rm(r->c, r->tx, r->path);
    if (!err)
        ack(r->c);
    return err;
}

static char perm_letter(unsigned int p)
{
    switch (p & (XS_PERM_READ | XS_PERM_WRITE)) {
    case XS_PERM_READ: return 'r';
    case XS_PERM_WRITE: return 'w';
    case XS_PERM_READ | XS_PERM_WRITE: return 'b';
    default: return 'n';
    }
}

static int do_get_perms(struct request *r)
{
    char buf[XENSTORE_PAYLOAD_MAX];
    size_t len = 0;
    struct node *n;

    if (!absolute(r, one_arg(r)))
        return EINVAL;
    n = get_node(r->c, r->tx, r->path, XS_PERM_READ);
    if (!n)
        return errno;
    for (uint32_t i = 0; i < n->perms.n && len + 16 < sizeof(buf); i++)
        len += (size_t)snprintf(buf + len, sizeof(buf) - len, "%c%u",
                                perm_letter(n->perms.p[i].perms), n->perms.p[i].id) + 1;
    reply(r->c, buf, len);
    return 0;
}

static int parse_perm(const char *s, struct xs_permissions *p)
{
    static const char letters[] = "nrwb";
    const char *l = *s ? strchr(letters, *s) : NULL;
    char *end;

    if (!l || !s[1] || s[1] < '0' || s[1] > '9')
        return EINVAL;
    p->perms = (unsigned int)(l - letters);      /* n, r, w, b are 0, 1, 2, 3 */
    p->id = (unsigned int)strtoul(s + 1, &end, 0);
    return *end ? EINVAL : 0;
}

static int do_set_perms(struct request *r)
{
    struct store *s = r->c->store;
    struct xs_permissions list[64];
    struct perms p = { 0, list };
    char *vec[65];
    uint32_t n = strings(r, vec, 65);
    int err;

    if (n < 2 || n > 65 || !absolute(r, vec[0]))
        return EINVAL;
    p.n = n - 1;
    if (unprivileged(r->c) && p.n > s->quota[FX_QUOTA_PERMS])
        return ENOSPC;
    for (uint32_t i = 0; i < p.n; i++) {
        err = parse_perm(vec[i + 1], &list[i]);
        if (err)
            return err;
    }
    /* Only who exists can own; others who do not exist get nothing, now or later. */
    if (!s->ops->domain_exists(s->arg, list[0].id))
        return ENOENT;
    if (vec[0][0] == '@') {
        struct perms *sp = !strcmp(vec[0], "@releaseDomain") ? &s->release_perms :
                           !strcmp(vec[0], "@introduceDomain") ? &s->introduce_perms : NULL;

        if (!sp)
            return EINVAL;
        if (!(perm_for(r->c, sp) & XS_PERM_OWNER))
            return EACCES;
        free(sp->p);
        *sp = perms_copy(&p);
        ack(r->c);
        return 0;
    }
    err = op_perms(r->c, r->tx, r->path, &p);
    if (!err)
        ack(r->c);
    return err;
}

static uint32_t count_watches(const struct store *s, uint32_t domid)
{
    uint32_t n = 0;

    for (struct store_conn *c = s->conns; c; c = c->next)
        if (c->domid == domid)
            for (struct watch *w = c->watches; w; w = w->next)
                n++;
    return n;
}

static int do_watch(struct request *r)
{
    struct watch *w, **end;
    char *vec[2];
    bool relative;

    if (strings(r, vec, 2) != 2 || !absolute(r, vec[0]))
        return EINVAL;
    relative = vec[0][0] != '/' && vec[0][0] != '@';
    if (vec[0][0] != '@' && !valid_path(r->path))
        return EINVAL;
    for (end = &r->c->watches; *end; end = &(*end)->next)
        if (!strcmp((*end)->node, r->path) && !strcmp((*end)->token, vec[1]))
            return EEXIST;
    if (unprivileged(r->c) &&
        count_watches(r->c->store, r->c->domid) > r->c->store->quota[FX_QUOTA_WATCHES])
        return E2BIG;
    w = xzalloc(sizeof(*w));
    w->node = xstrdup(r->path);
    w->token = xstrdup(vec[1]);
    if (relative)
        w->skip = strlen(r->path) - strlen(vec[0]) - 1;
    *end = w;
    ack(r->c);
    send_event(r->c, seen_path(w, w->node), w->token);
    return 0;
}

static int do_unwatch(struct request *r)
{
    char *vec[2];

    if (strings(r, vec, 2) != 2 || !absolute(r, vec[0]))
        return EINVAL;
    for (struct watch **pp = &r->c->watches; *pp; pp = &(*pp)->next) {
        struct watch *w = *pp;

        if (strcmp(w->node, r->path) || strcmp(w->token, vec[1]))
            continue;
        *pp = w->next;
        free(w->node);
        free(w->token);
        free(w);
        ack(r->c);
        return 0;
    }
    return ENOENT;
}

static void forget_state(struct store_conn *c)
{
    struct watch *w;

    while ((w = c->watches)) {
        c->watches = w->next;
        free(w->node);
        free(w->token);
        free(w);
    }
    while (c->txs)
        tx_free(c, c->txs);
}

static int do_reset_watches(struct request *r)
{
    forget_state(r->c);
    ack(r->c);
    return 0;
}

static int do_transaction_start(struct request *r)
{
    struct store_conn *c = r->c;
    uint32_t n = 0;
    struct tx *tx;
    char id[16];

    if (r->tx)
        return EBUSY;
    for (tx = c->txs; tx; tx = tx->next)
        n++;
    if (unprivileged(c) && n > c->store->quota[FX_QUOTA_TRANSACTIONS])
        return ENOSPC;
    tx = xzalloc(sizeof(*tx));
    do
        tx->id = ++c->next_tx;
    while (!tx->id || tx_find(c, tx->id));
    tx->root = node_get(c->store->root);
    tx->log_end = &tx->log;
    tx->next = c->txs;
    c->txs = tx;
    snprintf(id, sizeof(id), "%u", tx->id);
    reply(c, id, strlen(id) + 1);
    return 0;
}

static int do_transaction_end(struct request *r)
{
    const char *arg = one_arg(r);
    int err = 0;

    if (!arg || (strcmp(arg, "T") && strcmp(arg, "F")))
        return EINVAL;
    if (!r->tx)
        return ENOENT;
    if (*arg == 'T')
        err = commit(r->c, r->tx);
    tx_free(r->c, r->tx);
    if (!err)
        ack(r->c);
    return err;
}

static int do_introduce(struct request *r)
{
    struct store *s = r->c->store;
    unsigned long domid, port;
    char *vec[3];

    if (strings(r, vec, 3) < 3)
        return EINVAL;
    domid = strtoul(vec[0], NULL, 10);
    port = strtoul(vec[2], NULL, 10);
    if (!port || domid >= FX_NDOM)
        return EINVAL;
    if (!s->ops->domain_exists(s->arg, (uint32_t)domid))
        return ENOENT;
    if (!s->dom[domid].introduced) {
        s->dom[domid].introduced = true;
        s->dom[domid].shutdown = false;
        s->ops->introduced(s->arg, (uint32_t)domid);
        fire_special(s, "@introduceDomain");
    }
    ack(r->c);
    return 0;
}

static uint32_t arg_domid(const struct request *r)
{
    const char *arg = one_arg(r);
    unsigned long d = arg ? strtoul(arg, NULL, 10) : 0;

    return d && d < FX_NDOM ? (uint32_t)d : NOBODY;
}

static int do_release(struct request *r)
{
    struct store *s = r->c->store;
    uint32_t d = arg_domid(r);

    if (d == NOBODY)
        return EINVAL;
    if (!s->dom[d].introduced)
        return ENOENT;
    ack(r->c);
    store_domain_gone(s, d);
    return 0;
}

static int do_resume(struct request *r)
{
    struct store *s = r->c->store;
    uint32_t d = arg_domid(r);

    if (d == NOBODY)
        return EINVAL;
    if (!s->dom[d].introduced)
        return ENOENT;
    s->dom[d].shutdown = false;
    ack(r->c);
    return 0;
}

static int do_set_target(struct request *r)
{
    struct store *s = r->c->store;
    unsigned long d, t;
    char *vec[2];

    if (strings(r, vec, 2) < 2)
        return EINVAL;
    d = strtoul(vec[0], NULL, 10);
    t = strtoul(vec[1], NULL, 10);
    if (d >= FX_NDOM || t >= FX_NDOM || !s->dom[d].introduced || !s->dom[t].introduced)
        return ENOENT;
    s->dom[d].target = (uint32_t)t;
    ack(r->c);
    return 0;
}

static int do_get_domain_path(struct request *r)
{
    const char *arg = one_arg(r);
    char path[48];

    if (!arg)
        return EINVAL;
    snprintf(path, sizeof(path), "/local/domain/%u", (unsigned int)strtoul(arg, NULL, 10));
    reply(r->c, path, strlen(path) + 1);
    return 0;
}

static int do_is_introduced(struct request *r)
{
    const char *arg = one_arg(r);
    unsigned long d;

    if (!arg)
        return EINVAL;
    d = strtoul(arg, NULL, 10);
    reply(r->c, d < FX_NDOM && r->c->store->dom[d].introduced ? "T" : "F", 2);
    return 0;
}

static int do_control(struct request *r)
{
    (void)r;
    return EINVAL;
}

static const struct {
    int (*func)(struct request *r);
    bool no_tx, privileged;
} requests[XS_TYPE_COUNT] = {
    [XS_CONTROL] = { do_control, false, true },
    [XS_DIRECTORY] = { do_directory, false, false },
    [XS_READ] = { do_read, false, false },
    [XS_GET_PERMS] = { do_get_perms, false, false },
    [XS_WATCH] = { do_watch, true, false },
    [XS_UNWATCH] = { do_unwatch, true, false },
    [XS_TRANSACTION_START] = { do_transaction_start, false, false },
    [XS_TRANSACTION_END] = { do_transaction_end, false, false },
    [XS_INTRODUCE] = { do_introduce, false, true },
    [XS_RELEASE] = { do_release, false, true },
    [XS_GET_DOMAIN_PATH] = { do_get_domain_path, false, false },
    [XS_WRITE] = { do_write, false, false },
    [XS_MKDIR] = { do_mkdir, false, false },
    [XS_RM] = { do_rm, false, false },
    [XS_SET_PERMS] = { do_set_perms, false, false },
    [XS_IS_DOMAIN_INTRODUCED] = { do_is_introduced, false, true },
    [XS_RESUME] = { do_resume, false, true },
    [XS_SET_TARGET] = { do_set_target, false, true },
    [XS_RESET_WATCHES] = { do_reset_watches, false, false },
    [XS_DIRECTORY_PART] = { do_directory_part, false, false },
};

static void handle(struct store_conn *c, char *body)
{
    struct request r = { .c = c, .body = body, .len = c->hdr.len };
    uint32_t type = c->hdr.type;
    int err;

    c->asker->requests++;
    if (type >= XS_TYPE_COUNT || !requests[type].func) {
        reply_error(c, ENOSYS);
        return;
    }
    if (requests[type].privileged && unprivileged(c)) {
        reply_error(c, EACCES);
        return;
    }
    if (!requests[type].no_tx && c->hdr.tx_id) {
        r.tx = tx_find(c, c->hdr.tx_id);
        if (!r.tx) {
            reply_error(c, ENOENT);
            return;
        }
    }
    err = requests[type].func(&r);
    if (err)
        reply_error(c, err);
}

/* ------------------------------------------------------------------ what others call */

struct store *store_new(const struct store_ops *ops, void *arg)
{
    static const char *const tree[] = { "/tool", "/tool/xenstored" };
    struct store *s = xzalloc(sizeof(*s));

    s->ops = ops;
    s->arg = arg;
    s->root = node_new("", 0);
    s->root->perms = perms_owner(0);
    s->root->gen = ++s->gen;
    s->release_perms = perms_owner(0);
    s->introduce_perms = perms_owner(0);
    s->dom[0].introduced = true;
    s->quota[FX_QUOTA_NODES] = 1000;
    s->quota[FX_QUOTA_WATCHES] = 128;
    s->quota[FX_QUOTA_TRANSACTIONS] = 10;
    s->quota[FX_QUOTA_ENTRY_SIZE] = 2048;
    s->quota[FX_QUOTA_PERMS] = 5;
    for (size_t i = 0; i < sizeof(tree) / sizeof(tree[0]); i++) {
        struct store_conn self = { .store = s };

        create(&self, NULL, tree[i], "", 0);
    }
    return s;
}

void store_free(struct store *s)
{
    if (!s)
        return;
    while (s->conns)
        store_disconnect(s->conns);
    while (s->askers) {
        struct asker *a = s->askers;

        s->askers = a->next;
        free(a);
    }
    node_put(s->root);
    free(s->release_perms.p);
    free(s->introduce_perms.p);
    free(s);
}

static struct asker *asker(struct store *s, uint32_t pid)
{
    struct asker *a;

    for (a = s->askers; a; a = a->next)
        if (a->pid == pid)
            return a;
    a = xzalloc(sizeof(*a));
    a->pid = pid;
    a->next = s->askers;
    return s->askers = a;
}

struct store_conn *store_connect(struct store *s, uint32_t domid, uint32_t pid)
{
    struct store_conn *c = xzalloc(sizeof(*c)), **end;

    c->store = s;
    c->domid = domid;
    c->asker = asker(s, pid);
    c->out_end = &c->out;
    c->in = xmalloc(sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX + 1);
    c->hold = s->dom[domid].hold;
    for (end = &s->conns; *end; end = &(*end)->next)
        ;
    *end = c;
    return c;
}

void store_disconnect(struct store_conn *c)
{
    struct message *m;

    for (struct store_conn **pp = &c->store->conns; *pp; pp = &(*pp)->next)
        if (*pp == c) {
            *pp = c->next;
            break;
        }
    forget_state(c);
    while ((m = c->out)) {
        c->out = m->next;
        free(m);
    }
    free(c->in);
    free(c);
}

bool store_feed(struct store_conn *c, const void *data, size_t len)
{
    const char *p = data;

    while (len) {
        size_t have = c->in_len, want = sizeof(c->hdr), n;

        if (have >= sizeof(c->hdr))
            want += c->hdr.len;
        n = want - have < len ? want - have : len;
        memcpy(c->in + have, p, n);
        c->in_len += n;
        p += n;
        len -= n;
        if (c->in_len == sizeof(c->hdr) && want == sizeof(c->hdr)) {
            memcpy(&c->hdr, c->in, sizeof(c->hdr));
            if (c->hdr.len > XENSTORE_PAYLOAD_MAX)
                return false;
            want += c->hdr.len;
        }
        if (c->in_len >= sizeof(c->hdr) && c->in_len == want) {
            c->in_len = 0;
            handle(c, c->in + sizeof(c->hdr));
        }
    }
    return true;
}

/* The message to send next: one already begun, else the first that is not held back. */
static struct message **next_out(struct store_conn *c)
{
    struct message **pp;

    for (pp = &c->out; *pp; pp = &(*pp)->next)
        if ((*pp)->sent)
            return pp;
    for (pp = &c->out; *pp; pp = &(*pp)->next)
        if (!c->hold || !(*pp)->event)
            break;
    return pp;
}

const void *store_output(struct store_conn *c, size_t *len)
{
    struct message *m = *next_out(c);

    *len = m ? m->len - m->sent : 0;
    return m ? m->bytes + m->sent : NULL;
}

void store_sent(struct store_conn *c, size_t n)
{
    struct message **pp = next_out(c), *m = *pp;

    m->sent += n;
    if (m->sent < m->len)
        return;
    *pp = m->next;
    if (c->out_end == &m->next)
        c->out_end = pp;
    free(m);
}

void store_domain_shutdown(struct store *s, uint32_t domid)
{
    if (domid >= FX_NDOM || !s->dom[domid].introduced || s->dom[domid].shutdown)
        return;
    s->dom[domid].shutdown = true;
    fire_special(s, "@releaseDomain");
}

void store_domain_gone(struct store *s, uint32_t domid)
{
    if (domid >= FX_NDOM || !s->dom[domid].introduced)
        return;
    memset(&s->dom[domid], 0, sizeof(s->dom[domid]));
    s->ops->released(s->arg, domid);
    bury(s, "", own(&s->root), domid);
    fire_special(s, "@releaseDomain");
}

void store_conflict(struct store *s, uint32_t domid, uint32_t count)
{
    s->conflict_domid = domid;
    s->conflict_count = count;
}

void store_hold(struct store *s, uint32_t domid, bool hold)
{
    for (uint32_t d = 0; d < FX_NDOM; d++)
        if (domid == FX_STORE_ANY || d == domid)
            s->dom[d].hold = hold;
    for (struct store_conn *c = s->conns; c; c = c->next)
        if (domid == FX_STORE_ANY || c->domid == domid)
            c->hold = hold;
}

void store_spurious(struct store *s, uint32_t domid)
{
    for (struct store_conn *c = s->conns; c; c = c->next)
        if (domid == FX_STORE_ANY || c->domid == domid)
            for (struct watch *w = c->watches; w; w = w->next)
                send_event(c, seen_path(w, w->node), w->token);
}

void store_quota(struct store *s, enum fx_quota quota, uint32_t limit)
{
    if (quota < FX_QUOTA_COUNT)
        s->quota[quota] = limit;
}

uint32_t store_requests(struct store *s, uint32_t pid)
{
    return asker(s, pid)->requests;
}

void store_stats(struct store *s, uint32_t domid, struct fx_store_stats *out)
{
    memset(out, 0, sizeof(*out));
    if (domid >= FX_NDOM)
        return;
    out->watches = count_watches(s, domid);
    out->nodes = node_count(s->root, domid);
    out->events_queued = s->count[domid].queued;
    out->events_merged = s->count[domid].merged;
    out->conflicts = s->count[domid].conflicts;
    for (struct store_conn *c = s->conns; c; c = c->next) {
        if (c->domid != domid)
            continue;
        out->connections++;
        for (struct tx *t = c->txs; t; t = t->next)
            out->transactions++;
        for (struct message *m = c->out; m; m = m->next)
            out->pending += m->event;
    }
}
