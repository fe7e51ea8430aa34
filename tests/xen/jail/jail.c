/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * jail - a vtpm-backend's place on real Xen, and somebody in it who tries what is forbidden.
 *
 *     jail DOMID RING-REF PORT OTHER-DOMID OTHER-RING-REF OTHER-PORT SIBLING UID
 *
 * Runs in dom0 where the backend of DOMID has just died. Each attempt is a process of its own that
 * opens the same port by the same code (backend/port.c), enters the same sandbox
 * (backend/sandbox.c), and has besides what no backend has: the libraries' handles, opened before.
 * First it is shown that each attempt succeeds from outside, or it would prove nothing. Prints a
 * line for each:
 *
 *     works    NAME             from outside, or what a backend has to be able to do
 *     stopped  NAME: by what
 *     OPEN     NAME             succeeded, and must not have
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>
#include <xen/sys/evtchn.h>

#include "backend/port.h"
#include "backend/sandbox.h"
#include "common/log.h"

static uint32_t domid, ring_ref, event_channel, other, others_ref, others_port, uid;
static pid_t sibling;

/* What the attempts go by: opened before the sandbox is entered. */
static struct xlv_port *port;
static xengnttab_handle *grants;
static xenevtchn_handle *events;

/* --- the attempts: 0, or errno of what stopped it --- */

static int from(bool done)
{
    return done ? 0 : errno ? errno : EIO;
}

static int maps_anothers_grant(void)
{
    return from(xengnttab_map_grant_ref(grants, other, others_ref, PROT_READ | PROT_WRITE) != NULL);
}

/* Its own guest's page is mapped; whatever else that guest grants is not for this process. */
static int maps_its_guests_grant(void)
{
    return from(xengnttab_map_grant_ref(grants, domid, ring_ref, PROT_READ | PROT_WRITE) != NULL);
}

static int makes_a_channel_to_another(void)
{
    return from(xenevtchn_bind_unbound_port(events, other) >= 0);
}

static int makes_a_channel_by_its_ports_device(void)
{
    struct ioctl_evtchn_bind_unbound_port bind = { .remote_domain = other };

    return from(ioctl(xlv_port_fd(port), IOCTL_EVTCHN_BIND_UNBOUND_PORT, &bind) >= 0);
}

/* From outside Xen itself says EINVAL: it is bound, to its backend. */
static int binds_anothers_channel(void)
{
    return from(xenevtchn_bind_interdomain(events, other, others_port) >= 0);
}

static int opens(const char *path)
{
    return from(open(path, O_RDWR | O_CLOEXEC) >= 0);
}

static int opens_gntdev(void) { return opens("/dev/xen/gntdev"); }
static int opens_evtchn(void) { return opens("/dev/xen/evtchn"); }
static int opens_privcmd(void) { return opens("/dev/xen/privcmd"); }
static int opens_hypercall(void) { return opens("/dev/xen/hypercall"); }
static int opens_xenbus(void) { return opens("/dev/xen/xenbus"); }

static int writes_anothers_node(void)
{
    struct xs_handle *xs = xs_open(0);
    char path[64];
    bool done;

    if (!xs)
        return from(false);
    snprintf(path, sizeof(path), "/local/domain/%u/device/vtpm/0/jail", other);
    done = xs_write(xs, XBT_NULL, path, "x", 1) && xs_rm(xs, XBT_NULL, path);
    xs_close(xs);
    return from(done);
}

static int traces_a_sibling(void)
{
    int status;

    if (ptrace(PTRACE_SEIZE, sibling, NULL, NULL) < 0)
        return from(false);
    /* outside, it is let go again at once */
    (void)ptrace(PTRACE_INTERRUPT, sibling, NULL, NULL);
    (void)waitpid(sibling, &status, __WALL);
    return from(ptrace(PTRACE_DETACH, sibling, NULL, NULL) == 0);
}

static int signals_a_sibling(void)
{
    return from(kill(sibling, 0) == 0);
}

/* outside: what must be possible there, or the attempt would prove nothing; errno of what has to
 * stop it there otherwise. */
static const struct {
    const char *name;
    int (*what)(void);
    int outside;
} attempts[] = {
    { "map another domain's grant", maps_anothers_grant, 0 },
    { "map its own domain's grant anew", maps_its_guests_grant, 0 },
    { "make an event channel to another domain", makes_a_channel_to_another, 0 },
    { "the same by its port's own device", makes_a_channel_by_its_ports_device, 0 },
    { "bind another domain's event channel", binds_anothers_channel, EINVAL },
    { "open /dev/xen/gntdev", opens_gntdev, 0 },
    { "open /dev/xen/evtchn", opens_evtchn, 0 },
    { "open /dev/xen/privcmd", opens_privcmd, 0 },
    { "open /dev/xen/hypercall", opens_hypercall, 0 },
    { "open /dev/xen/xenbus", opens_xenbus, 0 },
    { "write another domain's xenstore node", writes_anothers_node, 0 },
    { "trace another backend", traces_a_sibling, 0 },
    { "signal another backend", signals_a_sibling, 0 },
};
#define ATTEMPTS (sizeof(attempts) / sizeof(attempts[0]))

/* --- the places ---------------------------------------------------------- */

enum place { OUTSIDE, LEFT_HOST, JAIL, PLACES };
enum { IN_ITS_PLACE_AND_DONE = 0, NO_PLACE = 200 }; /* exit status; else an errno */

static void take(enum place place)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_sandbox sandbox = { .uid = uid, .gid = uid };
    struct xlv_sandbox_left left;
    int r = xlv_sandbox_prepare(&e);

    grants = xengnttab_open(NULL, 0);
    events = xenevtchn_open(NULL, 0);
    if (!r)
        r = xlv_port_open(&port, domid, ring_ref, event_channel, &e);
    sandbox.port = port;
    if (!r && place == LEFT_HOST)
        r = xlv_sandbox_leave_host(&sandbox, &left, &e);
    if (!r && place == LEFT_HOST)
        r = xlv_sandbox_prove_left(&sandbox, &left, &e);
    if (!r && place == JAIL)
        r = xlv_sandbox_enter(&sandbox, &e);
    if (!r && grants && events)
        return;
    fprintf(stderr, "jail: no place for this attempt: %s\n", r ? e.text : "no device");
    _exit(NO_PLACE);
}

/* How it ended, as waitpid() tells. */
static int attempt(enum place place, int (*what)(void))
{
    pid_t pid = fork();
    int status = -1;

    if (!pid) {
        take(place);
        errno = 0;
        _exit(what());
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static void tell(enum place place, size_t i, int status)
{
    static const char *const where[] = { "outside", "host left", "jail" };
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    char name[100];

    snprintf(name, sizeof(name), "%s, %s", where[place], attempts[i].name);
    if (place == OUTSIDE && code == attempts[i].outside)
        printf("works    %s%s\n", name, code ? " (as far as Xen lets anybody)" : "");
    else if (place != OUTSIDE && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        printf("stopped  %s: by the filter\n", name);
    else if (place == LEFT_HOST && code > 0 && code != NO_PLACE && code != attempts[i].outside)
        printf("stopped  %s: %s\n", name, strerror(code));
    else
        printf("OPEN     %s: status 0x%x\n", name, (unsigned)status);
    fflush(stdout);
}

/* What has to work, or all of the above would be stopped by a broken place. */
static int serves(void)
{
    volatile uint8_t *page = xlv_port_page(port);

    (void)page[0];
    xlv_port_notify(port);
    return 0;
}

int main(int argc, char **argv)
{
    uint32_t *const numbers[] = { &domid, &ring_ref, &event_channel, &other, &others_ref,
                                  &others_port, NULL, &uid };

    if (argc != 9) {
        fprintf(stderr, "usage: see jail.c\n");
        return 2;
    }
    for (int i = 0; i < 8; i++)
        if (numbers[i])
            *numbers[i] = (uint32_t)strtoul(argv[1 + i], NULL, 10);
    sibling = (pid_t)strtol(argv[7], NULL, 10);
    xlv_log_set_level(XLV_LOG_ERROR);
    for (int place = OUTSIDE; place < PLACES; place++)
        for (size_t i = 0; i < ATTEMPTS; i++)
            tell(place, i, attempt(place, attempts[i].what));
    if (attempt(JAIL, serves) == IN_ITS_PLACE_AND_DONE)
        puts("works    jail, read the page and notify the guest");
    return 0;
}
