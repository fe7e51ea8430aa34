/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vtpm-backend: serves one TPM to one guest, makes a new TPM, or works on a state that serves
 * nobody; started by xl-vtpmd, or for the last by xl-vtpm, as include/launch.h says. Takes no
 * arguments, opens no file of ours by path.
 *
 * Order of a life, and it matters: take the LAUNCH and check all of it, give
 * the keys to store and journal and wipe them here, open the Xen devices, map
 * and bind, enter the sandbox, restore the TPM, say READY, and only then look
 * at the shared page. Afterwards one loop: events of the guest, messages of the
 * daemon, a new daemon at the listener, SIGTERM.
 *
 * The daemon may go away at any time; the guest is served on.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend/cancel.h"
#include "backend/clear.h"
#include "backend/engine.h"
#include "backend/journal.h"
#include "backend/launch.h"
#include "backend/manufacture.h"
#include "backend/pcrs.h"
#include "backend/port.h"
#include "backend/sandbox.h"
#include "backend/session.h"
#include "backend/store.h"
#include "backend/try.h"
#include "common/fd.h"
#include "common/log.h"
#include "include/launch.h"

/*
 * Events with nothing in the page, or nonsense: a frontend causes a few (one for its
 * FINISH-to-SUBMIT races, one for each cancel), a hostile one as many as its
 * CPU gives. After that many in a row the channel stays masked for a while.
 */
#define STORM_EVENTS 64u
#define STORM_PAUSE_MS 10
/* and after a pause, until there is a command again */
#define STORM_EVENTS_AGAIN 4u

/* With nothing to do for that long, the heap's free pages are given back. */
#define IDLE_MS 2000

struct backend {
    struct xlv_msg_launch launch; /* without the keys, these are wiped */
    uid_t daemon_uid;
    int daemon, listener, signals; /* -1: none */
    int slots[2], journal_fd;
    int log_fd, kernel_fd, ramdisk_fd; /* -1: none; closed before the guest is looked at */
    struct xlv_port *port;
    struct xlv_store *store;
    struct xlv_journal *journal;
    struct xlv_session *session;
    unsigned idle_events;
    bool paused; /* the channel is masked because of a storm */
};

/* --- messages ------------------------------------------------------------ */

static struct xlv_msg_header header(enum xlv_msg_type type)
{
    return (struct xlv_msg_header){
        .magic = XLV_LAUNCH_MAGIC,
        .version = XLV_LAUNCH_VERSION,
        .type = (uint16_t)type,
    };
}

static void drop_daemon(struct backend *b, const char *why)
{
    if (b->daemon < 0)
        return;
    xlv_log(XLV_LOG_NOTICE, "the connection to xl-vtpmd is closed (%s); the guest is served on",
            why);
    xlv_close(&b->daemon);
}

static void tell(struct backend *b, const void *message, size_t length)
{
    int r;

    if (b->daemon < 0)
        return;
    /* never waits: a daemon that does not read must not stop the guest */
    r = xlv_send_message(b->daemon, message, length, NULL, 0);
    if (r)
        drop_daemon(b, xlv_strerror(r));
}

static void tell_simple(struct backend *b, enum xlv_msg_type type)
{
    struct xlv_msg_simple m = { .h = header(type) };

    tell(b, &m, sizeof(m));
}

static void tell_failed(struct backend *b, int code, const struct xlv_error *e)
{
    struct xlv_msg_failed m = { .h = header(XLV_MSG_FAILED), .code = code };

    snprintf(m.text, sizeof(m.text), "%s", e->text[0] ? e->text : xlv_strerror(code));
    xlv_log(XLV_LOG_ERROR, "%s", m.text);
    tell(b, &m, sizeof(m));
}

static void tell_status(struct backend *b)
{
    struct xlv_session_status now;
    struct xlv_msg_status m = {
        .h = header(XLV_MSG_STATUS),
        .tpm_version = b->launch.tpm_version,
        .uuid = b->launch.uuid,
        .instance = b->launch.instance,
        .domid = b->launch.domid,
        .devid = b->launch.devid,
        .ring_ref = b->launch.ring_ref,
        .event_channel = b->launch.event_channel,
    };

    xlv_session_status(b->session, &now);
    m.generation = now.generation;
    m.sequence = now.sequence;
    m.commits = now.commits;
    m.recovered = now.resumed;
    tell(b, &m, sizeof(m));
}

/* The daemon's log shall say why, even if ours goes nowhere. */
static struct backend *in_sandbox;

static void on_forbidden(const char *text)
{
    struct xlv_error e = XLV_ERROR_INIT;

    xlv_fail(&e, XLV_E_FORBIDDEN, "%s", text);
    tell_failed(in_sandbox, XLV_E_FORBIDDEN, &e);
}

static int enter_sandbox(struct backend *b, struct xlv_error *e)
{
    const struct xlv_sandbox sandbox = {
        .port = b->port, .uid = b->launch.uid, .gid = b->launch.gid, .on_forbidden = on_forbidden,
    };

    in_sandbox = b;
    return xlv_sandbox_enter(&sandbox, e);
}

/* --- launch -------------------------------------------------------------- */

/* Receives the LAUNCH, opens store and journal with its keys, and wipes them. */
static int take_launch(struct backend *b, struct xlv_error *e)
{
    static struct xlv_msg_launch m; /* static: one place, wiped below */
    size_t length = sizeof(m), nfds = XLV_LAUNCH_FDS_MAX;
    int fds[XLV_LAUNCH_FDS_MAX] = { -1, -1, -1, -1, -1, -1, -1 }, *next = &fds[4];
    struct ucred peer;
    socklen_t peer_length = sizeof(peer);
    int r;

    if (getsockopt(XLV_LAUNCH_FD, SOL_SOCKET, SO_PEERCRED, &peer, &peer_length) < 0) {
        fprintf(stderr, "vtpm-backend is started by xl-vtpmd, not by hand\n");
        return -errno;
    }
    b->daemon = XLV_LAUNCH_FD;
    b->daemon_uid = peer.uid;
    (void)fcntl(b->daemon, F_SETFD, FD_CLOEXEC);

    r = xlv_receive_message(b->daemon, &m, &length, fds, &nfds);
    if (r)
        return xlv_fail(e, r, "no LAUNCH from xl-vtpmd (%s)", xlv_strerror(r));
    b->slots[0] = fds[0];
    b->slots[1] = fds[1];
    b->journal_fd = fds[2];
    b->listener = fds[3];
    r = xlv_launch_check(&m, length, nfds, e);
    if (!r && m.has_log)
        b->log_fd = *next++;
    if (!r && m.measure == XLV_MEASURE_FILES) {
        b->kernel_fd = *next++;
        b->ramdisk_fd = *next;
    }
    if (!r)
        r = xlv_store_new(&b->store, b->slots, &m.uuid, m.instance_key, e);
    if (!r && b->journal_fd >= 0)
        r = xlv_journal_new(&b->journal, b->journal_fd, &m.uuid, m.journal_key, e);
    explicit_bzero(m.instance_key, sizeof(m.instance_key));
    explicit_bzero(m.journal_key, sizeof(m.journal_key));
    b->launch = m;
    if (!r && fcntl(b->daemon, F_SETFL, fcntl(b->daemon, F_GETFL) | O_NONBLOCK) < 0)
        r = xlv_fail(e, -errno, "the daemon's socket cannot be made non-blocking");
    return r;
}

/* --- manufacture --------------------------------------------------------- */

/* Has the new keys certified by the daemon. No guest waits for this process, so it may
 * wait for the daemon; without one there is nothing to go on with. */
static int certify(const struct xlv_msg_endorsement *keys,
                   struct xlv_msg_certificates *certificates, void *opaque, struct xlv_error *e)
{
    struct backend *b = opaque;
    struct xlv_msg_endorsement m = *keys;
    struct pollfd daemon = { .fd = b->daemon, .events = POLLIN };
    size_t length = sizeof(*certificates), nfds = 0;
    int r;

    m.h = header(XLV_MSG_ENDORSEMENT);
    r = xlv_send_message(b->daemon, &m, sizeof(m), NULL, 0);
    while (!r && poll(&daemon, 1, -1) < 0)
        if (errno != EINTR)
            r = -errno;
    if (!r)
        r = xlv_receive_message(b->daemon, certificates, &length, NULL, &nfds);
    if (r)
        return xlv_fail(e, r, "who started this went away before the TPM had its certificates (%s)",
                        xlv_strerror(r));
    if (length != sizeof(*certificates) || certificates->h.magic != XLV_LAUNCH_MAGIC ||
        certificates->h.version != XLV_LAUNCH_VERSION ||
        certificates->h.type != XLV_MSG_CERTIFICATES)
        return xlv_fail(e, XLV_E_INVALID, "something else than certificates was sent");
    if (certificates->code)
        return xlv_fail(e, certificates->code, "%.*s",
                        (int)strnlen(certificates->text, sizeof(certificates->text)),
                        certificates->text);
    return 0;
}

static int manufacture(struct backend *b, struct xlv_error *e)
{
    const struct xlv_manufacture how = {
        .version = (enum xlv_tpm_version)b->launch.tpm_version,
        .banks = b->launch.banks,
        .certify = certify,
        .opaque = b,
    };
    uint8_t *state = NULL, *renewed = NULL;
    size_t length = 0, renewed_length = 0, unmarked;
    uint64_t generation;
    int r;

    r = enter_sandbox(b, e);
    if (r)
        return r;
    r = xlv_store_load(b->store, &state, &length, &generation, e);
    if (r == XLV_E_EMPTY) {
        xlv_error_clear(e);
        r = xlv_manufacture(&how, &state, &length, e);
        if (!r)
            r = xlv_store_commit(b->store, state, length, &generation, e);
        if (!r)
            xlv_log(XLV_LOG_NOTICE, "made a TPM %s",
                    b->launch.tpm_version == XLV_TPM_2_0 ? "2.0" : "1.2");
    } else if (!r && xlv_container_marked(state, length, &unmarked)) {
        r = xlv_renew(&how, state, unmarked, &renewed, &renewed_length, e);
        if (!r)
            r = xlv_store_commit(b->store, renewed, renewed_length, &generation, e);
        if (!r)
            xlv_log(XLV_LOG_NOTICE, "gave a cloned TPM an identity of its own");
    }
    xlv_engine_wipe(state, length);
    xlv_engine_wipe(renewed, renewed_length);
    if (!r)
        tell_simple(b, XLV_MSG_READY);
    return r;
}

/* --- states of nobody -------------------------------------------------------------- */

typedef int state_work(enum xlv_tpm_version version, const uint8_t *state, size_t length,
                       uint8_t **out, size_t *out_length, struct xlv_error *e);

/* In the sandbox: what is in the store, worked on, is committed in its place. */
static int work_on_store(struct backend *b, state_work *how, struct xlv_error *e)
{
    enum xlv_tpm_version version = (enum xlv_tpm_version)b->launch.tpm_version;
    uint8_t *state = NULL, *after = NULL;
    size_t length = 0, after_length = 0;
    uint64_t generation;
    int r = xlv_store_load(b->store, &state, &length, &generation, e);

    if (!r)
        r = how(version, state, length, &after, &after_length, e);
    if (!r)
        r = xlv_store_commit(b->store, after, after_length, &generation, e);
    xlv_engine_wipe(state, length);
    xlv_engine_wipe(after, after_length);
    if (!r)
        tell_simple(b, XLV_MSG_READY);
    return r;
}

/* From here on the state may be anybody's: it is looked at in the sandbox only. */
static int work_on_state(struct backend *b, struct xlv_error *e)
{
    int r = enter_sandbox(b, e);

    return r ? r : work_on_store(b, b->launch.mode == XLV_LAUNCH_CLEAR ? xlv_clear : xlv_try, e);
}

/* What the TPM has goes first: who only looks need not answer. */
static int exchange(const struct xlv_msg_endorsement *keys,
                    struct xlv_msg_certificates *certificates, void *opaque, struct xlv_error *e)
{
    struct backend *b = opaque;
    int r;

    certificates->h = header(XLV_MSG_CERTIFICATES);
    r = xlv_send_message(b->daemon, certificates, sizeof(*certificates), NULL, 0);
    if (r)
        return xlv_fail(e, r, "xl-vtpm went away (%s)", xlv_strerror(r));
    return certify(keys, certificates, opaque, e);
}

static int identify(struct backend *b, struct xlv_error *e)
{
    uint8_t *state = NULL, *certified = NULL;
    size_t length = 0, certified_length = 0;
    uint64_t generation;
    int r = enter_sandbox(b, e);

    if (!r)
        r = xlv_store_load(b->store, &state, &length, &generation, e);
    if (!r)
        r = xlv_identify((enum xlv_tpm_version)b->launch.tpm_version, exchange, b, state, length,
                         &certified, &certified_length, e);
    if (!r && certified)
        r = xlv_store_commit(b->store, certified, certified_length, &generation, e);
    xlv_engine_wipe(state, length);
    xlv_engine_wipe(certified, certified_length);
    if (!r)
        tell_simple(b, XLV_MSG_READY);
    return r;
}

/* --- keeping ------------------------------------------------------------- */

static int keep_state(struct backend *b, struct xlv_error *e)
{
    struct xlv_session_config config = {
        .version = (enum xlv_tpm_version)b->launch.tpm_version,
        .ring = { .domid = b->launch.domid },
        .store = b->store,
        .journal = b->journal,
    };

    return xlv_session_keep(&config, e);
}

static int keep(struct backend *b, struct xlv_error *e)
{
    int r = enter_sandbox(b, e);

    if (!r)
        r = keep_state(b, e);
    if (!r)
        tell_simple(b, XLV_MSG_READY);
    return r;
}

/* On copies: as if the domain were suspended now. */
static int look_at_pcrs(struct backend *b, struct xlv_error *e)
{
    int r = enter_sandbox(b, e);

    if (!r && b->journal)
        r = keep_state(b, e);
    return r ? r : work_on_store(b, xlv_pcrs, e);
}

/* --- serving ------------------------------------------------------------- */

static int begin_session(struct backend *b, struct xlv_error *e)
{
    const struct xlv_msg_launch *m = &b->launch;
    const struct xlv_measure_boot measure = {
        .error = m->measure == XLV_MEASURE_ERROR ? m->cmdline : NULL,
        .kernel = m->kernel,
        .ramdisk = m->has_ramdisk ? m->ramdisk : NULL,
        .cmdline = m->cmdline,
        .kernel_fd = b->kernel_fd,
        .ramdisk_fd = b->ramdisk_fd,
    };
    const struct xlv_session_config config = {
        .version = (enum xlv_tpm_version)m->tpm_version,
        .boot = (enum xlv_boot)m->boot,
        .ring = { .domid = m->domid, .devid = m->devid, .ring_ref = m->ring_ref,
                  .event_channel = m->event_channel },
        .max_locality = m->max_locality,
        .measure = m->measure ? &measure : NULL,
        .log_fd = m->has_log ? &b->log_fd : NULL,
        .port = b->port,
        .store = b->store,
        .journal = b->journal,
    };
    int r = xlv_session_new(&b->session, &config, e);

    /* whoever takes this process over shall not write another log */
    xlv_close(&b->log_fd);
    xlv_close(&b->kernel_fd);
    xlv_close(&b->ramdisk_fd);
    return r;
}

static int start_serving(struct backend *b, struct xlv_error *e)
{
    sigset_t signals;
    int r;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return xlv_fail(e, -errno, "signals cannot be blocked (%s)", strerror(errno));
    b->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (b->signals < 0)
        return xlv_fail(e, -errno, "no signalfd (%s)", strerror(errno));
    if (listen(b->listener, 4) < 0 ||
        fcntl(b->listener, F_SETFL, fcntl(b->listener, F_GETFL) | O_NONBLOCK) < 0)
        return xlv_fail(e, -errno, "cannot listen for a restarted xl-vtpmd (%s)", strerror(errno));
    r = xlv_cancel_init(e);
    if (!r)
        r = xlv_port_open(&b->port, b->launch.domid, b->launch.ring_ref, b->launch.event_channel,
                          e);
    if (!r)
        r = enter_sandbox(b, e);
    if (!r)
        r = begin_session(b, e);
    if (!r)
        tell_simple(b, XLV_MSG_READY);
    return r;
}

/* Looks at the page; 0 or what ends this process. */
static int work(struct backend *b, struct xlv_error *e)
{
    int r = xlv_session_work(b->session, e);

    if (r == XLV_E_EMPTY || r == XLV_E_INVALID) {
        b->idle_events++;
        return 0;
    }
    b->idle_events = 0;
    return r;
}

static int on_event(struct backend *b, short revents, struct xlv_error *e)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(1, 60);
    int r = xlv_port_take(b->port, revents, e);

    if (r)
        return r == XLV_E_EMPTY ? 0 : r;
    /* Masked from here to unmask: an event that comes while we look or execute
     * is kept, so nothing is missed, and a thousand of them count as one. */
    r = work(b, e);
    if (r)
        return r;
    if (b->idle_events >= STORM_EVENTS) {
        b->paused = true;
        if (xlv_ratelimit_pass(&limit))
            xlv_log(XLV_LOG_WARNING, "the guest sends events without commands: slowed down");
        return 0;
    }
    return xlv_port_unmask(b->port, e);
}

static int after_pause(struct backend *b, struct xlv_error *e)
{
    int r = work(b, e);

    b->paused = false;
    if (b->idle_events)
        b->idle_events = STORM_EVENTS - STORM_EVENTS_AGAIN;
    return r ? r : xlv_port_unmask(b->port, e);
}

/* 0, or 1 with *reason set: the daemon wants an end. */
static int on_message(struct backend *b, enum xlv_stop_reason *reason)
{
    union {
        struct xlv_msg_header h;
        struct xlv_msg_stop stop;
    } m;
    size_t length = sizeof(m), nfds = 0;
    int r = xlv_receive_message(b->daemon, &m, &length, NULL, &nfds);

    if (r == -EAGAIN)
        return 0;
    if (r) {
        drop_daemon(b, xlv_strerror(r));
        return 0;
    }
    /* QUERY and STOP keep their layout in all versions (launch.h), so that a
     * daemon of a later build can still ask and stop us */
    if (length >= sizeof(m.h) && m.h.magic == XLV_LAUNCH_MAGIC) {
        if (m.h.type == XLV_MSG_QUERY && length == sizeof(struct xlv_msg_simple)) {
            tell_status(b);
            return 0;
        }
        if (m.h.type == XLV_MSG_STOP && length == sizeof(m.stop) &&
            m.stop.reason >= XLV_STOP_FRONTEND_CLOSED && m.stop.reason <= XLV_STOP_FREEZE) {
            *reason = (enum xlv_stop_reason)m.stop.reason;
            return 1;
        }
    }
    drop_daemon(b, "it sent a message that is none");
    return 0;
}

static void on_connect(struct backend *b)
{
    static struct xlv_ratelimit limit = XLV_RATELIMIT(5, 60);
    struct ucred peer;
    socklen_t length = sizeof(peer);
    int fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
        peer.uid != b->daemon_uid) {
        if (xlv_ratelimit_pass(&limit))
            xlv_log(XLV_LOG_WARNING, "a process that is not xl-vtpmd connected; refused");
        xlv_close(&fd);
        return;
    }
    xlv_close(&b->daemon);
    b->daemon = fd;
    xlv_log(XLV_LOG_INFO, "xl-vtpmd (pid %d) has taken over", (int)peer.pid);
}

/* Serves until told to stop (0, with *reason) or until it cannot go on. */
static int serve(struct backend *b, enum xlv_stop_reason *reason, struct xlv_error *e)
{
    bool idle = false;
    int r = work(b, e); /* the frontend has sent its first command before we came */

    while (!r) {
        struct pollfd fds[4] = {
            { .fd = b->signals, .events = POLLIN },
            { .fd = b->paused ? -1 : xlv_port_fd(b->port), .events = POLLIN },
            { .fd = b->daemon, .events = POLLIN },
            { .fd = b->listener, .events = POLLIN },
        };
        int n = poll(fds, 4, b->paused ? STORM_PAUSE_MS : idle ? -1 : IDLE_MS);

        if (n < 0) {
            if (errno != EINTR)
                return xlv_fail(e, -errno, "poll failed (%s)", strerror(errno));
            if (!b->paused)
                continue;
        }
        idle = !n && !b->paused;
        if (idle) {
            (void)malloc_trim(0);
            continue;
        }
        if (n > 0 && fds[0].revents) {
            *reason = XLV_STOP_FRONTEND_CLOSED;
            return 0;
        }
        if (n > 0 && fds[2].revents && on_message(b, reason))
            return 0;
        if (n > 0 && fds[3].revents)
            on_connect(b);
        if (b->paused)
            r = after_pause(b, e);
        else if (n > 0 && fds[1].revents)
            r = on_event(b, fds[1].revents, e);
    }
    return r;
}

static int run(struct backend *b, struct xlv_error *e)
{
    enum xlv_stop_reason reason = XLV_STOP_FRONTEND_CLOSED;
    int r = start_serving(b, e);

    if (!r)
        r = serve(b, &reason, e);
    if (!r)
        r = xlv_session_stop(b->session, reason, e);
    xlv_session_free(b->session);
    xlv_port_close(b->port);
    xlv_cancel_deinit();
    if (!r) {
        xlv_log(XLV_LOG_INFO, "closed");
        tell_simple(b, XLV_MSG_BYE);
    }
    return r;
}

int main(void)
{
    static struct backend b = {
        .daemon = -1, .listener = -1, .signals = -1, .slots = { -1, -1 }, .journal_fd = -1,
        .log_fd = -1, .kernel_fd = -1, .ramdisk_fd = -1,
    };
    static struct xlv_log_subject subject = XLV_LOG_SUBJECT_NONE;
    struct xlv_error e = XLV_ERROR_INIT;
    int r = xlv_sandbox_prepare(&e);

    /* A command takes and frees some 200 KiB of states. Left at its default, the heap is given
     * back and fetched again with each: two system calls and dozens of page faults. A TPM that is
     * idle gives it back (serve()). */
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 20);
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20); /* which the line above has stopped from adapting */
    /* Nor the texts of OpenSSL's errors, 54 KiB in each process: nothing here prints them. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS, NULL);
    if (!r)
        r = take_launch(&b, &e);
    if (!r) {
        bool serving = b.launch.mode == XLV_LAUNCH_SERVE;

        xlv_log_set_level((enum xlv_log_level)b.launch.log_level);
        subject.uuid = &b.launch.uuid;
        subject.instance = b.launch.instance;
        if (serving) {
            subject.domid = (int)b.launch.domid;
            subject.devid = (int)b.launch.devid;
        }
        xlv_log_set_subject(&subject);
        r = serving                              ? run(&b, &e)
            : b.launch.mode == XLV_LAUNCH_KEEP ? keep(&b, &e)
            : b.launch.mode == XLV_LAUNCH_PCRS ? look_at_pcrs(&b, &e)
            : b.launch.mode == XLV_LAUNCH_IDENTIFY ? identify(&b, &e)
            : b.launch.mode == XLV_LAUNCH_TRY || b.launch.mode == XLV_LAUNCH_CLEAR
                ? work_on_state(&b, &e)
                : manufacture(&b, &e);
    }
    if (r)
        tell_failed(&b, r, &e);
    xlv_journal_free(b.journal);
    xlv_store_free(b.store);
    xlv_close(&b.slots[0]);
    xlv_close(&b.slots[1]);
    xlv_close(&b.journal_fd);
    xlv_close(&b.signals);
    xlv_close(&b.listener);
    xlv_close(&b.daemon);
    return r ? EXIT_FAILURE : EXIT_SUCCESS;
}
