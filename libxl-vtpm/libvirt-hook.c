/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xl-vtpm-libvirt: TPMs for guests of libvirt, whose libxl driver knows no vtpm. libvirt runs it
 * as a hook of that driver (docs/libvirt.md) with the domain's XML on standard input:
 *
 *     xl-vtpm-libvirt [--config FILE] NAME OPERATION …
 *
 * The TPMs are in the domain's <metadata>:
 *
 *     <vtpms xmlns='urn:libxl-vtpm:domain:1'>
 *       <vtpm uuid='…'/>                 uuid and backend as in a vtpm line of xl.cfg(5)
 *     </vtpms>
 *
 * A TPM has to be there before the guest's first instruction, but libvirt has no hook between
 * making a domain and letting it run: "start" comes before there is a domain, "started" when
 * it runs already. So:
 *
 *     prepare   reads the metadata and asks xl-vtpmd whether it will serve; what is wrong is
 *               told before there is anything to clean up
 *     start     leaves a guard behind, which waits in xenstore for the domain, and pauses it.
 *               Xen counts pauses, and a new domain has one that libvirt takes away: with the
 *               guard's it does not run then. Making a domain takes far longer than pausing it,
 *               but if the guard is late, the domain's processor time says so, and it is refused
 *     started   attaches the TPMs, then takes the guard's pause away. (Of `virsh start --paused`
 *               libvirt's own remains.)
 *
 * What guard and "started" know of each other is the node /libxl/DOMID/xl-vtpm, which no guest
 * can read and which goes with the domain: "claimed", then "held".
 *
 * A failure of any of them makes libvirt destroy the domain and report our standard error.
 * This is a user of the public library, as other toolstacks are.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>
#include <libxl_utils.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <xenstore.h>
#include <xentoollog.h>

#include "include/libxl-vtpm.h"

#define NAMESPACE "urn:libxl-vtpm:domain:1"
#define XML_MAX (16u << 20) /* a domain's XML has some KB */
#define VTPMS_MAX 16u       /* devices of one domain, as many as are sensible */
#define GUARD_SECONDS 60    /* from "start" until there is a domain: libvirt does nothing between */

struct domain {
    const char *name;
    char uuid[40];
    struct xlvtpm_spec *specs[VTPMS_MAX];
    unsigned count;
    int ready; /* the guard's: where it says that it watches */
};

static int complain(const char *name, const char *what)
{
    fprintf(stderr, "xl-vtpm: domain %s: %s\n", name, what);
    return -1;
}

/* ---- the domain's XML ---------------------------------------------------------- */

static char *read_all(int fd, size_t *length)
{
    char *text = NULL, *grown;
    size_t n = 0, size = 0;
    ssize_t r;

    do {
        if (n == size) {
            size = size ? 2 * size : 65536;
            grown = size <= XML_MAX ? realloc(text, size) : NULL;
            if (!grown) {
                free(text);
                return NULL;
            }
            text = grown;
        }
        r = read(fd, text + n, size - n);
        if (r > 0)
            n += (size_t)r;
    } while (r > 0 || (r < 0 && errno == EINTR));
    *length = n;
    return text;
}

static bool is_named(const xmlNode *node, const char *name, const char *space)
{
    return node->type == XML_ELEMENT_NODE && xmlStrcmp(node->name, BAD_CAST name) == 0 &&
           (!space || (node->ns && xmlStrcmp(node->ns->href, BAD_CAST space) == 0));
}

static xmlNode *child_named(const xmlNode *node, const char *name, const char *space)
{
    for (xmlNode *child = node->children; child; child = child->next) {
        if (is_named(child, name, space))
            return child;
    }
    return NULL;
}

/* <vtpm uuid='…' backend='…'/>. What is not known is a mistake, and might mean another TPM. */
static int read_vtpm(struct domain *d, const xmlNode *node)
{
    struct xlvtpm_error error;
    char *uuid, *backend;
    int rc = 0;

    for (const xmlAttr *a = node->properties; a; a = a->next) {
        if (xmlStrcmp(a->name, BAD_CAST "uuid") && xmlStrcmp(a->name, BAD_CAST "backend"))
            return complain(d->name, "a <vtpm> of its metadata has an attribute other than uuid "
                                     "and backend");
    }
    if (d->count == VTPMS_MAX)
        return complain(d->name, "more than 16 <vtpm> in its metadata");
    uuid = (char *)xmlGetNoNsProp(node, BAD_CAST "uuid");
    backend = (char *)xmlGetNoNsProp(node, BAD_CAST "backend");
    if (xlvtpm_spec_make(&d->specs[d->count], backend ? backend : "0", uuid, &error))
        rc = complain(d->name, error.text);
    else
        d->count++;
    xmlFree(uuid);
    xmlFree(backend);
    return rc;
}

static int read_domain(struct domain *d, const char *text, size_t length)
{
    xmlDoc *doc = xmlReadMemory(text, (int)length, "domain", NULL, XML_PARSE_NONET);
    const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL, *node;
    xmlChar *content;
    int rc = 0;

    if (!root || !is_named(root, "domain", NULL)) {
        xmlFreeDoc(doc);
        return complain(d->name, "what libvirt passes is not the XML of a domain");
    }
    node = child_named(root, "uuid", NULL);
    content = node ? xmlNodeGetContent(node) : NULL;
    if (content)
        snprintf(d->uuid, sizeof(d->uuid), "%s", (char *)content);
    xmlFree(content);

    node = child_named(root, "metadata", NULL);
    node = node ? child_named(node, "vtpms", NAMESPACE) : NULL;
    for (node = node ? node->children : NULL; node && rc == 0; node = node->next) {
        if (is_named(node, "vtpm", NAMESPACE))
            rc = read_vtpm(d, node);
        else if (node->type == XML_ELEMENT_NODE)
            rc = complain(d->name, "<vtpms> of its metadata holds something else than <vtpm>");
    }
    xmlFreeDoc(doc);
    return rc;
}

/* ---- prepare ------------------------------------------------------------------- */

/* Will xl-vtpmd serve? Of those in other domains this host's knows nothing. */
static int check(const struct domain *d, const char *config)
{
    struct xlvtpm_client *client = NULL;
    struct xlvtpm_instance *instance;
    struct xlvtpm_error error;
    enum xlvtpm_rule rule;
    int rc = 0;

    for (unsigned i = 0; i < d->count && rc == 0; i++) {
        if (xlvtpm_spec_backend_domid(d->specs[i]) != 0)
            continue;
        if (!client && xlvtpm_open(&client, config, XLVTPM_DAEMON_ONLY, &error))
            return complain(d->name, error.text);
        if (xlvtpm_check(client, xlvtpm_spec_uuid(d->specs[i]), d->name, i, &rule, &instance,
                         &error))
            rc = complain(d->name, error.text);
        else
            xlvtpm_instance_free(instance);
    }
    if (client)
        xlvtpm_close(client);
    return rc;
}

/* ---- xenstore ------------------------------------------------------------------- */

static void hold_path(char path[static 64], uint32_t domid)
{
    snprintf(path, 64, "/libxl/%u/xl-vtpm", domid);
}

/* The domain of that uuid, or -1. It is in xenstore once libxl has made it. */
static int64_t find_domain(struct xs_handle *xs, const char *uuid)
{
    unsigned count = 0;
    char **ids = xs_directory(xs, XBT_NULL, "/local/domain", &count), *vm, path[64];
    int64_t found = -1;

    for (unsigned i = 0; i < count && found < 0; i++) {
        snprintf(path, sizeof(path), "/local/domain/%.10s/vm", ids[i]);
        vm = xs_read(xs, XBT_NULL, path, NULL);
        if (vm && strncmp(vm, "/vm/", 4) == 0 && strcmp(vm + 4, uuid) == 0)
            found = strtol(ids[i], NULL, 10);
        free(vm);
    }
    free(ids);
    return found;
}

/* True for the one guard that is first: that of a start that failed may still be waiting. */
static bool claim(struct xs_handle *xs, uint32_t domid)
{
    char path[64], *old;
    xs_transaction_t t;

    hold_path(path, domid);
    for (;;) {
        t = xs_transaction_start(xs);
        if (t == XBT_NULL)
            return false;
        old = xs_read(xs, t, path, NULL);
        if (old || !xs_write(xs, t, path, "claimed", 7)) {
            free(old);
            (void)xs_transaction_end(xs, t, true);
            return false;
        }
        if (xs_transaction_end(xs, t, false))
            return true;
        if (errno != EAGAIN)
            return false;
    }
}

static bool is_held(struct xs_handle *xs, uint32_t domid)
{
    char path[64], *value;
    bool held;

    hold_path(path, domid);
    value = xs_read(xs, XBT_NULL, path, NULL);
    held = value && strcmp(value, "held") == 0;
    free(value);
    return held;
}

static int with_xen(const struct domain *d,
                    int (*what)(const struct domain *, libxl_ctx *, struct xs_handle *))
{
    xentoollog_logger *logger =
        (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_ERROR, 0);
    struct xs_handle *xs = xs_open(0);
    libxl_ctx *ctx = NULL;
    int rc = -1;

    if (!logger || libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger) || !xs)
        complain(d->name, "cannot talk with Xen");
    else
        rc = what(d, ctx, xs);
    if (xs)
        xs_close(xs);
    if (ctx)
        libxl_ctx_free(ctx);
    if (logger)
        xtl_logger_destroy(logger);
    return rc;
}

/* ---- start ---------------------------------------------------------------------- */

static bool never_ran(libxl_ctx *ctx, uint32_t domid)
{
    libxl_dominfo info;
    bool never;

    libxl_dominfo_init(&info);
    never = libxl_domain_info(ctx, &info, domid) == 0 && info.cpu_time == 0;
    libxl_dominfo_dispose(&info);
    return never;
}

/* Pauses the domain; "held" only if it had not run by then. */
static void hold(libxl_ctx *ctx, struct xs_handle *xs, uint32_t domid)
{
    char path[64];

    hold_path(path, domid);
    if (!claim(xs, domid))
        return;
    if (libxl_domain_pause(ctx, domid, NULL)) {
        syslog(LOG_ERR, "cannot pause domain %u", domid);
    } else if (never_ran(ctx, domid)) {
        (void)xs_write(xs, XBT_NULL, path, "held", 4);
    } else {
        syslog(LOG_ERR, "domain %u ran before it could be paused", domid);
        (void)libxl_domain_unpause(ctx, domid, NULL);
    }
}

static void wait_and_hold(const struct domain *d, libxl_ctx *ctx, struct xs_handle *xs,
                          int64_t former)
{
    struct pollfd poller = { .fd = xs_fileno(xs), .events = POLLIN };
    struct timespec now, end;
    int64_t domid;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += GUARD_SECONDS;
    do {
        while (xs_check_watch(xs) || errno == EINTR)
            ; /* which path it is does not matter: all are looked at */
        domid = find_domain(xs, d->uuid);
        if (domid >= 0 && domid != former) {
            hold(ctx, xs, (uint32_t)domid);
            return;
        }
        (void)poll(&poller, 1, 1000);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec);
}

/* What the guard does, from its first message on where nobody hears it any more. */
static int guard(const struct domain *d, libxl_ctx *ctx, struct xs_handle *xs)
{
    int64_t former = find_domain(xs, d->uuid); /* on its way out, in a reboot */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || !xs_watch(xs, "/local/domain", "guard"))
        return complain(d->name, "cannot watch xenstore for the domain");
    /* libvirt waits until nobody has the hook's standard files open. */
    for (int fd = 0; fd < 3; fd++)
        (void)dup2(null, fd);
    (void)setsid();
    openlog("xl-vtpm-libvirt", LOG_PID, LOG_DAEMON);
    (void)!write(d->ready, "", 1);
    wait_and_hold(d, ctx, xs, former);
    return 0;
}

static int leave_guard(struct domain *d)
{
    int ends[2];
    char byte;

    if (pipe2(ends, O_CLOEXEC))
        return complain(d->name, "cannot make a pipe");
    switch (fork()) {
    case -1:
        return complain(d->name, "cannot leave a process behind that pauses the domain");
    case 0:
        close(ends[0]);
        d->ready = ends[1];
        /* A connection of its own: those of libxenstore and libxl do not survive a fork. */
        _exit(with_xen(d, guard) ? 1 : 0);
    default:
        /* libvirt goes on when the domain cannot come unnoticed any more. */
        close(ends[1]);
        return read(ends[0], &byte, 1) == 1 ? 0 : -1;
    }
}

/* ---- started -------------------------------------------------------------------- */

static int attach(const struct domain *d, libxl_ctx *ctx, struct xs_handle *xs)
{
    int64_t domid = find_domain(xs, d->uuid);
    char path[64], text[200];

    if (domid < 0)
        return complain(d->name, "is not in xenstore");
    if (!is_held(xs, (uint32_t)domid))
        return complain(d->name, "may have run before its TPM was there, as this host was slow, "
                                 "so it is not started; start it again");
    for (unsigned i = 0; i < d->count; i++) {
        if (xlvtpm_attach(ctx, (uint32_t)domid, d->specs[i], NULL)) {
            snprintf(text, sizeof(text), "cannot attach its TPM '%.100s'; `xl-vtpm status` and "
                                         "the log of xl-vtpmd say why",
                     xlvtpm_spec_text(d->specs[i]));
            return complain(d->name, text);
        }
    }
    hold_path(path, (uint32_t)domid);
    (void)xs_rm(xs, XBT_NULL, path);
    if (libxl_domain_unpause(ctx, (uint32_t)domid, NULL))
        return complain(d->name, "has its TPM, but cannot be unpaused");
    return 0;
}

int main(int argc, char **argv)
{
    struct domain d = { 0 };
    const char *config = NULL, *operation;
    size_t length;
    char *text;
    int rc = 0;

    if (argc > 2 && strcmp(argv[1], "--config") == 0) {
        config = argv[2];
        argc -= 2;
        argv += 2;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: xl-vtpm-libvirt [--config FILE] DOMAIN OPERATION; run by libvirt\n");
        return 2;
    }
    d.name = argv[1];
    operation = argv[2];
    if (strcmp(operation, "prepare") && strcmp(operation, "start") && strcmp(operation, "started"))
        return 0;

    text = read_all(STDIN_FILENO, &length);
    if (!text) {
        complain(d.name, "its XML is too large");
        return 1;
    }
    rc = read_domain(&d, text, length);
    free(text);
    if (rc == 0 && d.count > 0) {
        if (strcmp(operation, "prepare") == 0)
            rc = check(&d, config);
        else
            rc = strcmp(operation, "start") == 0 ? leave_guard(&d) : with_xen(&d, attach);
    }
    for (unsigned i = 0; i < d.count; i++)
        xlvtpm_spec_free(d.specs[i]);
    xmlCleanupParser();
    return rc ? 1 : 0;
}
