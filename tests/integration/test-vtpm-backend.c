/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmodified vtpm-backend as its daemon sees it: include/launch.h, spoken
 * by this test over a pretended Xen machine. What needs the real daemon too is
 * tested elsewhere.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/session.h"
#include "backend/store.h"
#include "common/fd.h"
#include "include/launch.h"
#include "tests/fake/frontend.h"
#include "tests/fake/machine.h"
#include "tests/unit/tpm.h"

#define DOMID 5u
#define PATIENCE 20000 /* ms; only a broken program takes that long */
#define NOBODY 65534u

static char program[PATH_MAX], fakes[PATH_MAX];

struct world {
    struct fx_machine *m;
    struct fx_vtpm device;
    struct fx_guest *guest;
    struct fx_frontend *frontend;
    int slots[2], journal;
    char directory[64], listener_path[96];
    int listener;
    /* the process */
    pid_t pid;
    int socket; /* -1: our end is closed */
    bool traced; /* the next one is born stopped, its tracer is this test */
    FILE *log;
};

static int temporary(const char *directory, const char *name)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void new_listener(struct world *w)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    if (w->listener >= 0)
        close(w->listener);
    unlink(w->listener_path);
    w->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(w->listener >= 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", w->listener_path);
    assert_int_equal(bind(w->listener, (struct sockaddr *)&a, sizeof(a)), 0);
}

static int world_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    w->listener = w->socket = -1;
    assert_int_equal(fx_start(&w->m, NULL), 0);
    strcpy(w->directory, "/tmp/xlv-backend-XXXXXX");
    assert_non_null(mkdtemp(w->directory));
    snprintf(w->listener_path, sizeof(w->listener_path), "%s/listener", w->directory);
    for (unsigned i = 0; i < 2; i++) {
        w->slots[i] = temporary(w->directory, i ? "1" : "0");
        assert_int_equal(xlv_store_prepare(w->slots[i], NULL), 0);
    }
    w->journal = temporary(w->directory, "journal");
    w->log = tmpfile();
    assert_non_null(w->log);
    assert_int_equal(fx_domain_create(w->m, DOMID, "guest"), 0);
    fx_vtpm_init(&w->device, 0, DOMID, 0, "dcdb124b-9fed-4040-b149-dd2dfd8d094c");
    assert_int_equal(fx_vtpm_add(w->m, &w->device), 0);
    assert_int_equal(fx_guest_open(&w->guest, w->m, DOMID), 0);
    assert_int_equal(fx_frontend_open(&w->frontend, w->guest, &w->device, 0), 0);
    *state = w;
    return 0;
}

static void gone(struct world *w)
{
    if (w->pid) {
        kill(w->pid, SIGKILL);
        waitpid(w->pid, NULL, 0);
    }
    w->pid = 0;
    xlv_close(&w->socket);
}

static int world_down(void **state)
{
    struct world *w = *state;
    static const char *const names[] = { "0", "1", "journal", "listener" };

    gone(w);
    assert_true(fx_balanced(w->m, 0));
    fx_frontend_free(w->frontend);
    fx_guest_close(w->guest);
    fx_stop(w->m);
    for (unsigned i = 0; i < 4; i++) {
        char path[128];

        snprintf(path, sizeof(path), "%s/%s", w->directory, names[i]);
        unlink(path);
    }
    rmdir(w->directory);
    close(w->slots[0]);
    close(w->slots[1]);
    close(w->journal);
    xlv_close(&w->listener);
    fclose(w->log);
    free(w);
    return 0;
}

static void show_log(struct world *w)
{
    char line[1024];

    rewind(w->log);
    while (fgets(line, sizeof(line), w->log))
        fprintf(stderr, "    %s", line);
}

static void spawn(struct world *w)
{
    int pair[2];

    assert_int_equal(w->pid, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    w->pid = fork();
    assert_true(w->pid >= 0);
    if (!w->pid) {
        if (dup2(fileno(w->log), 2) != 2 || dup2(pair[1], 10) != 10 ||
            dup2(10, XLV_LAUNCH_FD) != XLV_LAUNCH_FD)
            _exit(99);
        close(10);
        setenv("LD_LIBRARY_PATH", fakes, 1);
        if (w->traced && ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(97);
        execl(program, program, (char *)NULL);
        _exit(98);
    }
    close(pair[1]);
    w->socket = pair[0];
}

static struct xlv_msg_launch launch_message(struct world *w, enum xlv_launch_mode mode)
{
    struct xlv_msg_launch m = {
        .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_LAUNCH },
        .mode = mode,
        .tpm_version = XLV_TPM_2_0,
        .uuid = { .b = { 0xdc, 0xdb } },
        .instance = 7,
        .log_level = 4,
        .boot = XLV_BOOT_FRESH,
        .banks = XLV_BANK_SHA256,
    };

    if (mode == XLV_LAUNCH_SERVE) {
        m.domid = DOMID;
        m.ring_ref = fx_frontend_ref(w->frontend, 0);
        m.event_channel = fx_frontend_port(w->frontend);
    }
    memset(m.instance_key, 'i', sizeof(m.instance_key));
    memset(m.journal_key, 'j', sizeof(m.journal_key));
    return m;
}

static void send_launch(struct world *w, const struct xlv_msg_launch *m)
{
    int fds[4] = { w->slots[0], w->slots[1], w->journal, -1 };
    size_t nfds = 2;

    if (m->mode == XLV_LAUNCH_SERVE) {
        new_listener(w);
        fds[3] = w->listener;
        nfds = 4;
    }
    assert_int_equal(xlv_send_message(w->socket, m, sizeof(*m), fds, nfds), 0);
}

union message {
    struct xlv_msg_header h;
    struct xlv_msg_failed failed;
    struct xlv_msg_status status;
    struct xlv_msg_stop stop;
    struct xlv_msg_endorsement endorsement;
};

/* The next message on a socket; 0 where the peer closed. */
static uint16_t receive(struct world *w, int socket, union message *m)
{
    struct pollfd p = { .fd = socket, .events = POLLIN };
    size_t length = sizeof(*m);
    int r;

    if (poll(&p, 1, PATIENCE) != 1) {
        show_log(w);
        fail_msg("no message");
    }
    r = xlv_receive_message(socket, m, &length, NULL, NULL);
    if (r == XLV_E_GONE)
        return 0;
    assert_int_equal(r, 0);
    assert_true(length >= sizeof(m->h));
    assert_int_equal(m->h.magic, XLV_LAUNCH_MAGIC);
    assert_int_equal(m->h.version, XLV_LAUNCH_VERSION);
    return m->h.type;
}

static void expect(struct world *w, uint16_t type, union message *m)
{
    union message mine;
    uint16_t got;

    if (!m)
        m = &mine;
    got = receive(w, w->socket, m);
    if (got != type) {
        show_log(w);
        fail_msg("message %u where %u was expected: %s", got, type,
                 got == XLV_MSG_FAILED ? m->failed.text : "");
    }
}

static int exit_status(struct world *w)
{
    int status;

    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    w->pid = 0;
    xlv_close(&w->socket);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void manufacture(struct world *w, enum xlv_tpm_version version)
{
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_MANUFACTURE);

    static struct xlv_msg_certificates none = {
        .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_CERTIFICATES },
    };
    union message answer;

    m.tpm_version = version;
    spawn(w);
    send_launch(w, &m);
    if (receive(w, w->socket, &answer) == XLV_MSG_ENDORSEMENT) {
        assert_int_equal(answer.endorsement.key[XLV_EK_RSA_2048].length, 256);
        assert_int_equal(xlv_send_message(w->socket, &none, sizeof(none), NULL, 0), 0);
        (void)receive(w, w->socket, &answer);
    }
    if (answer.h.type != XLV_MSG_READY) {
        show_log(w);
        fail_msg("message %u: %s", answer.h.type,
                 answer.h.type == XLV_MSG_FAILED ? answer.failed.text : "");
    }
    assert_int_equal(exit_status(w), 0);
}

static void serve_as(struct world *w, struct xlv_msg_launch m)
{
    spawn(w);
    send_launch(w, &m);
    expect(w, XLV_MSG_READY, NULL);
}

static void serve(struct world *w)
{
    serve_as(w, launch_message(w, XLV_LAUNCH_SERVE));
}

static void tell_stop(struct world *w, int socket, enum xlv_stop_reason reason)
{
    struct xlv_msg_stop m = {
        .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_STOP }, .reason = reason,
    };

    (void)w;
    assert_int_equal(xlv_send_message(socket, &m, sizeof(m), NULL, 0), 0);
}

static void stop(struct world *w, enum xlv_stop_reason reason)
{
    tell_stop(w, w->socket, reason);
    expect(w, XLV_MSG_BYE, NULL);
    assert_int_equal(exit_status(w), 0);
}

static struct xlv_msg_status query(struct world *w, int socket, uint16_t version)
{
    struct xlv_msg_simple q = { .h = { XLV_LAUNCH_MAGIC, version, XLV_MSG_QUERY } };
    union message m;

    assert_int_equal(xlv_send_message(socket, &q, sizeof(q), NULL, 0), 0);
    assert_int_equal(receive(w, socket, &m), XLV_MSG_STATUS);
    return m.status;
}

struct answer {
    uint8_t b[4096];
    size_t n;
};

static uint32_t ask(struct world *w, struct cmd c, struct answer *a)
{
    int r = fx_frontend_transact(w->frontend, 0, c.b, c.n, a->b, sizeof(a->b), &a->n, PATIENCE);

    if (r) {
        show_log(w);
        fail_msg("the guest got no answer: %d", r);
    }
    assert_true(a->n >= 10);
    return get32(a->b + 6);
}

/* --- tests ------------------------------------------------------------------ */

static void a_tpm_is_made_once(void **state)
{
    struct world *w = *state;
    struct answer a, b;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    assert_int_equal(ask(w, tpm2_create_primary_ecc(), &a), 0);
    stop(w, XLV_STOP_DOMAIN_END);
    manufacture(w, XLV_TPM_2_0); /* a good state stays as it is */
    serve(w);
    assert_int_equal(ask(w, tpm2_create_primary_ecc(), &b), 0);
    assert_memory_equal(a.b + 18, b.b + 18, 26 + 64);
    stop(w, XLV_STOP_DOMAIN_END);
}

static void answer_with(struct world *w, const struct xlv_msg_certificates *m)
{
    struct xlv_msg_certificates with_header = *m;

    with_header.h = (struct xlv_msg_header){ XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION,
                                             XLV_MSG_CERTIFICATES };
    assert_int_equal(xlv_send_message(w->socket, &with_header, sizeof(with_header), NULL, 0), 0);
}

static void a_new_instance(struct world *w)
{
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ftruncate(w->slots[i], 0), 0);
        assert_int_equal(xlv_store_prepare(w->slots[i], NULL), 0);
    }
    assert_int_equal(ftruncate(w->journal, 0), 0); /* of another TPM now */
}

static void start_manufacture(struct world *w)
{
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_MANUFACTURE);

    spawn(w);
    send_launch(w, &m);
}

/* Nothing of a TPM may be there: the next manufacture asks for certificates. */
static void nothing_was_made(struct world *w)
{
    start_manufacture(w);
    expect(w, XLV_MSG_ENDORSEMENT, NULL);
    gone(w);
}

static void a_manufacture_without_its_daemon_leaves_nothing(void **state)
{
    struct world *w = *state;

    start_manufacture(w);
    expect(w, XLV_MSG_ENDORSEMENT, NULL);
    xlv_close(&w->socket);
    assert_int_equal(exit_status(w), 1);
    nothing_was_made(w);
}

static void a_manufacture_without_certificates_says_what_the_daemon_said(void **state)
{
    static const struct xlv_msg_certificates no = { .code = -EAGAIN, .text = "the CA is at lunch" };
    struct world *w = *state;
    union message got;

    start_manufacture(w);
    expect(w, XLV_MSG_ENDORSEMENT, NULL);
    answer_with(w, &no);
    expect(w, XLV_MSG_FAILED, &got);
    assert_int_equal(got.failed.code, -EAGAIN);
    assert_string_equal(got.failed.text, "the CA is at lunch");
    assert_int_equal(exit_status(w), 1);
    nothing_was_made(w);
}

static void garbage_for_certificates_makes_nothing(void **state)
{
    static struct xlv_msg_certificates too_long;
    struct world *w = *state;
    union message got;

    for (int i = 0; i < 2; i++) {
        start_manufacture(w);
        expect(w, XLV_MSG_ENDORSEMENT, NULL);
        too_long.certificate[0].length = XLV_CERTIFICATE_MAX + 1;
        if (i)
            answer_with(w, &too_long);
        else
            tell_stop(w, w->socket, XLV_STOP_DOMAIN_END);
        expect(w, XLV_MSG_FAILED, &got);
        assert_int_equal(got.failed.code, XLV_E_INVALID);
        assert_int_equal(exit_status(w), 1);
    }
    nothing_was_made(w);
}

/* Lets the process run to the stop before or after its nth call that others can see, and kills
 * it there. False: it ended before. */
static bool kill_at(struct world *w, unsigned n)
{
    unsigned seen = 0;
    int status;

    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    assert_true(WIFSTOPPED(status)); /* its execve */
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, w->pid, NULL,
                            PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
    for (int signal = 0;;) {
        struct __ptrace_syscall_info info; /* glibc's name for it */
        static uint64_t nr;

        assert_int_equal(ptrace(PTRACE_SYSCALL, w->pid, NULL, signal), 0);
        assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
        if (!WIFSTOPPED(status)) {
            w->pid = 0;
            xlv_close(&w->socket);
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            return false;
        }
        signal = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
        if (signal)
            continue;
        assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, w->pid, sizeof(info), &info) > 0);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
            nr = info.entry.nr;
        if ((nr == SYS_pwrite64 || nr == SYS_fdatasync || nr == SYS_fallocate || nr == SYS_sendmsg ||
             nr == SYS_exit_group) && seen++ == n) {
            kill(w->pid, SIGKILL);
            waitpid(w->pid, &status, 0);
            w->pid = 0;
            xlv_close(&w->socket);
            return true;
        }
    }
}

/* The certificate that the guest finds is the one of the manufacture that is told of last. */
static void the_tpm_is_whole(struct world *w, uint8_t byte)
{
    struct answer a;
    struct cmd c;
    struct xlv_bytes out;

    serve(w);
    for (uint16_t at = 0; at < XLV_CERTIFICATE_MAX; at += 1024) {
        out = cmd_begin(&c, 0x8002, 0x14e); /* NV_Read */
        xlv_put_u32_be(&out, 0x01c08000);
        xlv_put_u32_be(&out, 0x01c08000);
        put_auth(&out, TPM2_RS_PW, 0, NULL, 0);
        xlv_put_u16_be(&out, 1024);
        xlv_put_u16_be(&out, at);
        cmd_end(&c, &out);
        assert_int_equal(ask(w, c, &a), 0);
        for (unsigned i = 0; i < 1024; i++)
            assert_int_equal(a.b[16 + i], byte);
    }
    stop(w, XLV_STOP_DOMAIN_END);
}

static void a_manufacture_killed_at_any_step_starts_over_or_is_complete(void **state)
{
    static struct xlv_msg_certificates certificates;
    struct world *w = *state;
    unsigned over = 0, complete = 0;
    bool killed;

    certificates.certificate[XLV_CERTIFICATE_PLATFORM].length = XLV_CERTIFICATE_MAX;
    for (unsigned n = 0;; n++) {
        uint8_t *der = certificates.certificate[XLV_CERTIFICATE_PLATFORM].der;
        union message got;

        a_new_instance(w);
        w->traced = true;
        start_manufacture(w);
        w->traced = false;
        /* they wait for it, as it has nobody else to wait for */
        memset(der, 1, XLV_CERTIFICATE_MAX);
        answer_with(w, &certificates);
        killed = kill_at(w, n);

        start_manufacture(w);
        if (receive(w, w->socket, &got) == XLV_MSG_ENDORSEMENT) {
            over++;
            assert_true(killed);
            memset(der, 2, XLV_CERTIFICATE_MAX);
            answer_with(w, &certificates);
            (void)receive(w, w->socket, &got);
        } else {
            complete++;
        }
        assert_int_equal(got.h.type, XLV_MSG_READY);
        assert_int_equal(exit_status(w), 0);
        the_tpm_is_whole(w, der[0]);
        if (!killed)
            break;
    }
    print_message("killed at %u steps: %u started over, %u were complete\n", over + complete - 1,
                  over, complete - 1);
    assert_true(over >= 3 && complete >= 3);
}

static void a_tpm_1_2_serves(void **state)
{
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    struct answer a;

    manufacture(w, XLV_TPM_1_2);
    m.tpm_version = XLV_TPM_1_2;
    serve_as(w, m);
    assert_int_equal(ask(w, tpm12_extend(3, 1), &a), 0);
    assert_int_equal(ask(w, tpm12_pcr_read(3), &a), 0);
    stop(w, XLV_STOP_DOMAIN_END);
}

static void a_store_without_a_tpm_is_refused(void **state)
{
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    union message got;

    spawn(w);
    send_launch(w, &m);
    expect(w, XLV_MSG_FAILED, &got);
    assert_int_equal(got.failed.code, XLV_E_EMPTY);
    assert_string_not_equal(got.failed.text, "");
    assert_int_equal(exit_status(w), 1);
}

static void wrong_keys_are_refused(void **state)
{
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    union message got;

    manufacture(w, XLV_TPM_2_0);
    m.instance_key[0] ^= 1;
    spawn(w);
    send_launch(w, &m);
    expect(w, XLV_MSG_FAILED, &got);
    assert_int_equal(got.failed.code, XLV_E_WRONG_KEY);
    assert_int_equal(exit_status(w), 1);
}

static void a_launch_out_of_bounds_is_refused(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < 18; i++) {
        struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
        union message got;

        switch (i) {
        case 0: m.h.magic++; break;
        case 1: m.h.version++; break;
        case 2: m.h.type = XLV_MSG_READY; break;
        case 3: m.mode = 3; break;
        case 4: m.tpm_version = 13; break;
        case 5: memset(&m.uuid, 0, sizeof(m.uuid)); break;
        case 6: m.domid = XLV_DOMID_MAX + 1; break;
        case 7: m.devid = XLV_DEVID_MAX + 1; break;
        case 8: m.event_channel = XLV_EVTCHN_PORT_MAX + 1; break;
        case 9: m.max_locality = XLV_LOCALITY_MAX + 1; break;
        case 10: m.log_level = 5; break;
        case 11: m.uid = NOBODY; break; /* without a gid */
        case 12: m.mode = XLV_LAUNCH_MANUFACTURE; break; /* with four descriptors */
        case 13: m.measure = XLV_MEASURE_FILES; break;   /* without the file */
        case 14: m.has_log = 1; break;                   /* without the log */
        case 15: m.measure = XLV_MEASURE_ERROR + 1; break;
        case 16: memset(m.cmdline, 'c', sizeof(m.cmdline)); break;
        default: memset(m.kernel, 'k', sizeof(m.kernel)); break;
        }
        spawn(w);
        if (i == 12) {
            int fds[4] = { w->slots[0], w->slots[1], w->journal, w->journal };

            assert_int_equal(xlv_send_message(w->socket, &m, sizeof(m), fds, 4), 0);
        } else {
            send_launch(w, &m);
        }
        expect(w, XLV_MSG_FAILED, &got);
        assert_true(got.failed.code == XLV_E_INVALID || got.failed.code == XLV_E_VERSION);
        assert_int_equal(exit_status(w), 1);
    }
    /* nothing at all */
    spawn(w);
    xlv_close(&w->socket);
    assert_int_equal(exit_status(w), 1);
}

static void a_ring_that_is_none_is_refused(void **state)
{
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    union message got;

    manufacture(w, XLV_TPM_2_0);
    m.ring_ref += 1000;
    spawn(w);
    send_launch(w, &m);
    expect(w, XLV_MSG_FAILED, &got);
    assert_non_null(strstr(got.failed.text, "ring-ref"));
    assert_int_equal(exit_status(w), 1);
    m.ring_ref -= 1000;
    m.event_channel += 1000;
    spawn(w);
    send_launch(w, &m);
    expect(w, XLV_MSG_FAILED, &got);
    assert_non_null(strstr(got.failed.text, "event-channel"));
    assert_int_equal(exit_status(w), 1);
}

static void a_command_sent_before_we_came_is_answered(void **state)
{
    struct world *w = *state;
    struct cmd c = tpm2_get_random(16);
    struct answer a;

    manufacture(w, XLV_TPM_2_0);
    assert_int_equal(fx_frontend_submit(w->frontend, 0, c.b, c.n), 0);
    serve(w);
    assert_int_equal(fx_frontend_wait(w->frontend, a.b, sizeof(a.b), &a.n, PATIENCE), 0);
    assert_int_equal(get32(a.b + 6), 0);
    stop(w, XLV_STOP_FRONTEND_CLOSED);
}

static void status_tells_what_is_served(void **state)
{
    struct world *w = *state;
    struct xlv_msg_status s;
    struct answer a;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    s = query(w, w->socket, XLV_LAUNCH_VERSION);
    assert_int_equal(s.instance, 7);
    assert_int_equal(s.domid, DOMID);
    assert_int_equal(s.ring_ref, fx_frontend_ref(w->frontend, 0));
    assert_int_equal(s.event_channel, fx_frontend_port(w->frontend));
    assert_int_equal(s.tpm_version, XLV_TPM_2_0);
    assert_int_equal(s.sequence, 0);
    assert_int_equal(s.recovered, 0);
    assert_int_equal(ask(w, tpm2_nv_define(0x01500001, TPM2_NV_COUNTER, 8), &a), 0);
    assert_int_equal(ask(w, tpm2_nv_increment(0x01500001), &a), 0);
    assert_int_equal(query(w, w->socket, XLV_LAUNCH_VERSION).generation, s.generation + 2);
    assert_int_equal(query(w, w->socket, XLV_LAUNCH_VERSION).sequence, 2);
    gone(w);
    serve(w);
    s = query(w, w->socket, XLV_LAUNCH_VERSION);
    assert_int_equal(s.recovered, 1);
    assert_int_equal(s.sequence, 2);
    stop(w, XLV_STOP_FRONTEND_CLOSED);
}

static int connect_listener(struct world *w)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", w->listener_path);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void the_guest_is_served_on_without_a_daemon(void **state)
{
    struct world *w = *state;
    struct answer a;
    struct ucred peer;
    socklen_t length = sizeof(peer);
    union message m;
    int fd;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    xlv_close(&w->socket); /* the daemon dies */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(ask(w, tpm2_get_random(8), &a), 0);
    fd = connect_listener(w); /* and comes back, of a later build perhaps */
    assert_int_equal(query(w, fd, XLV_LAUNCH_VERSION + 1).sequence, 10);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length), 0);
    tell_stop(w, fd, XLV_STOP_FRONTEND_CLOSED);
    assert_int_equal(receive(w, fd, &m), XLV_MSG_BYE);
    close(fd);
    assert_int_equal(exit_status(w), 0);
}

static void a_new_daemon_takes_the_place_of_the_old(void **state)
{
    struct world *w = *state;
    union message m;
    int fd;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    fd = connect_listener(w);
    (void)query(w, fd, XLV_LAUNCH_VERSION);
    assert_int_equal(receive(w, w->socket, &m), 0); /* the old one is closed */
    tell_stop(w, fd, XLV_STOP_FRONTEND_CLOSED);
    assert_int_equal(receive(w, fd, &m), XLV_MSG_BYE);
    close(fd);
    assert_int_equal(exit_status(w), 0);
}

static void nonsense_from_a_daemon_costs_its_connection_only(void **state)
{
    struct world *w = *state;
    struct answer a;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    for (unsigned i = 0; i < 6; i++) {
        int fd = connect_listener(w), extra = dup(0);
        struct xlv_msg_stop bad = {
            .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_STOP }, .reason = 1,
        };
        char big[1024] = "";
        union message m;

        (void)query(w, fd, XLV_LAUNCH_VERSION); /* it is the daemon now */
        switch (i) {
        case 0: assert_int_equal(xlv_send_message(fd, "x", 1, NULL, 0), 0); break;
        case 1: assert_int_equal(xlv_send_message(fd, big, sizeof(big), NULL, 0), 0); break;
        case 2: bad.h.magic = 0; break;
        case 3: bad.reason = XLV_STOP_FREEZE + 1; break;
        case 4: bad.h.type = XLV_MSG_LAUNCH; break;
        default: break;
        }
        if (i == 5)
            assert_int_equal(xlv_send_message(fd, &bad, sizeof(bad), &extra, 1), 0);
        else if (i >= 2)
            assert_int_equal(xlv_send_message(fd, &bad, sizeof(bad), NULL, 0), 0);
        assert_int_equal(receive(w, fd, &m), 0);
        close(fd);
        close(extra);
        assert_int_equal(ask(w, tpm2_get_random(8), &a), 0);
    }
    gone(w);
}

static void sigterm_is_an_orderly_stop(void **state)
{
    struct world *w = *state;
    struct answer a;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    assert_int_equal(ask(w, tpm2_get_random(8), &a), 0);
    kill(w->pid, SIGTERM);
    expect(w, XLV_MSG_BYE, NULL);
    assert_int_equal(exit_status(w), 0);
}

static void pcrs_survive_a_kill_and_not_a_reboot(void **state)
{
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    struct answer fresh, extended, a;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    assert_int_equal(ask(w, tpm2_pcr_read(7), &fresh), 0);
    assert_int_equal(ask(w, tpm2_pcr_extend(7, 1), &a), 0);
    assert_int_equal(ask(w, tpm2_pcr_read(7), &extended), 0);
    gone(w);
    serve(w);
    assert_int_equal(ask(w, tpm2_pcr_read(7), &a), 0);
    assert_memory_equal(a.b + a.n - 32, extended.b + extended.n - 32, 32);
    stop(w, XLV_STOP_DOMAIN_END);

    /* the domain's next life */
    fx_frontend_free(w->frontend);
    fx_guest_close(w->guest);
    w->frontend = NULL;
    w->guest = NULL;
    assert_int_equal(fx_domain_destroy(w->m, DOMID), 0);
    assert_int_equal(fx_domain_create(w->m, DOMID + 1, "guest"), 0);
    fx_vtpm_init(&w->device, 0, DOMID + 1, 0, "dcdb124b-9fed-4040-b149-dd2dfd8d094c");
    assert_int_equal(fx_vtpm_add(w->m, &w->device), 0);
    assert_int_equal(fx_guest_open(&w->guest, w->m, DOMID + 1), 0);
    assert_int_equal(fx_frontend_open(&w->frontend, w->guest, &w->device, 0), 0);
    m = launch_message(w, XLV_LAUNCH_SERVE);
    m.domid = DOMID + 1;
    serve_as(w, m);
    assert_int_equal(ask(w, tpm2_pcr_read(7), &a), 0);
    assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
    stop(w, XLV_STOP_DOMAIN_END);
}

static void killed_at_random_times_it_counts_right(void **state)
{
    struct world *w = *state;
    struct answer a;
    const char *wanted = getenv("XLV_KILLS");
    unsigned kills = 0, n = wanted ? (unsigned)atoi(wanted) : 60, resumed = 0;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    assert_int_equal(ask(w, tpm2_nv_define(0x01500001, TPM2_NV_COUNTER, 8), &a), 0);
    assert_int_equal(ask(w, tpm2_nv_increment(0x01500001), &a), 0);
    srandom(5);
    for (unsigned i = 0; i < n; i++) {
        struct cmd c = tpm2_nv_increment(0x01500001);
        struct timespec t = { .tv_nsec = random() % 2500000 };

        assert_int_equal(fx_frontend_submit(w->frontend, 0, c.b, c.n), 0);
        nanosleep(&t, NULL); /* the kill's moment, not a wait for anything */
        gone(w);
        kills++;
        serve(w);
        assert_int_equal(fx_frontend_wait(w->frontend, a.b, sizeof(a.b), &a.n, PATIENCE), 0);
        assert_int_equal(get32(a.b + 6), 0);
        resumed += query(w, w->socket, XLV_LAUNCH_VERSION).recovered == 1;
    }
    assert_int_equal(ask(w, tpm2_nv_read(0x01500001, 8), &a), 0);
    assert_int_equal(get32(a.b + 20), 1 + kills);
    assert_int_equal(resumed, kills);
    stop(w, XLV_STOP_DOMAIN_END);
}

/* utime + stime of the process, in clock ticks. */
static unsigned long cpu_ticks(pid_t pid)
{
    char path[64], text[1024];
    unsigned long user, system;
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    f = fopen(path, "re");
    assert_non_null(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    assert_int_equal(sscanf(strrchr(text, ')') + 2,
                            "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system),
                     2);
    return user + system;
}

static void a_storm_of_events_does_not_eat_a_cpu(void **state)
{
    struct world *w = *state;
    struct answer a;
    unsigned long before;
    unsigned long long events = 0;
    int64_t start;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    assert_int_equal(ask(w, tpm2_get_random(8), &a), 0);
    before = cpu_ticks(w->pid);
    start = fx_now();
    while (fx_now() - start < 1500) {
        assert_int_equal(fx_frontend_notify(w->frontend), 0);
        events++;
    }
    /* 1.5 s of it cost less than a tenth of a second */
    assert_true(events > 1000);
    assert_in_range(cpu_ticks(w->pid) - before, 0, (unsigned long)sysconf(_SC_CLK_TCK) / 10 + 1);
    /* and the guest is still served */
    assert_int_equal(ask(w, tpm2_get_random(8), &a), 0);
    stop(w, XLV_STOP_FRONTEND_CLOSED);
}

static void a_long_command_is_cancelled(void **state)
{
    struct world *w = *state;
    struct answer a;
    unsigned cancelled = 0;

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    assert_int_equal(ask(w, tpm2_create_primary_rsa(2048, 0), &a), 0);
    assert_int_equal(ask(w, tpm2_flush(get32(a.b + 10)), &a), 0);
    for (unsigned i = 1; i < 100 && !cancelled; i++) {
        struct cmd c = tpm2_create_primary_rsa(2048, (uint8_t)i);
        int r;

        assert_int_equal(fx_frontend_submit(w->frontend, 0, c.b, c.n), 0);
        assert_int_equal(fx_frontend_cancel(w->frontend), 0);
        r = fx_frontend_wait(w->frontend, a.b, sizeof(a.b), &a.n, PATIENCE);
        if (r == -ECANCELED) {
            cancelled++;
        } else {
            assert_int_equal(r, 0);
            assert_int_equal(ask(w, tpm2_flush(get32(a.b + 10)), &a), 0);
        }
    }
    assert_int_equal(cancelled, 1);
    assert_int_equal(ask(w, tpm2_get_random(8), &a), 0);
    stop(w, XLV_STOP_FRONTEND_CLOSED);
}

/* A frontend may name extra pages, granted or not: a sandbox maps none. */
static void extra_pages_are_neither_needed_nor_mapped(void **state)
{
    struct world *w = *state;
    volatile struct tpmif_shared_page *page;
    struct cmd c = tpm2_get_random(8);
    struct answer a;
    uint8_t big[4096] = "\x80\x01\x00\x00\x10\x00\x00\x00\x01\x46\x0f\xf4";
    char line[1024];
    unsigned lines = 0;

    manufacture(w, XLV_TPM_2_0);
    fx_frontend_free(w->frontend);
    assert_int_equal(fx_frontend_open(&w->frontend, w->guest, &w->device, 1), 0);
    serve(w);
    assert_int_equal(ask(w, c, &a), 0);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(fx_frontend_transact(w->frontend, 0, big, sizeof(big), a.b, sizeof(a.b),
                                              &a.n, PATIENCE), 0);
        assert_int_equal(get32(a.b + 6), 0x904); /* TPM_RC_MEMORY */
    }
    page = fx_frontend_page(w->frontend);
    page->nr_extra_pages = 1;
    page->extra_pages[0] = 0x7fff0000;
    page->length = (uint32_t)c.n;
    memcpy((char *)(uintptr_t)page + 12, c.b, c.n);
    __atomic_store_n(&page->state, TPMIF_STATE_SUBMIT, __ATOMIC_SEQ_CST);
    assert_int_equal(fx_frontend_notify(w->frontend), 0);
    assert_int_equal(fx_frontend_wait(w->frontend, a.b, sizeof(a.b), &a.n, PATIENCE), 0);
    assert_int_equal(get32(a.b + 6), 0);
    stop(w, XLV_STOP_FRONTEND_CLOSED);
    /* and the guest does not fill the log with it */
    rewind(w->log);
    while (fgets(line, sizeof(line), w->log))
        lines += !strncmp(line, "debug:", 6) ? 0 : 1;
    assert_in_range(lines, 1, 20);
}

/* --- what it may do ------------------------------------------------------------ */

static void proc_line(pid_t pid, const char *file, const char *key, char *value, size_t size)
{
    char path[64], line[256];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    f = fopen(path, "re");
    assert_non_null(f);
    value[0] = '\0';
    while (fgets(line, sizeof(line), f))
        if (!strncmp(line, key, strlen(key))) {
            snprintf(value, size, "%s", line + strlen(key));
            break;
        }
    fclose(f);
    value[strcspn(value, "\n")] = '\0';
}

static void privileges_are_gone_before_the_guest_is_served(void **state)
{
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    struct answer a;
    char text[256];

    if (geteuid() != 0) {
        print_message("only root can give up root\n");
        skip();
    }
    manufacture(w, XLV_TPM_2_0);
    m.uid = m.gid = NOBODY;
    serve_as(w, m);
    proc_line(w->pid, "status", "Uid:", text, sizeof(text));
    assert_string_equal(text, "\t65534\t65534\t65534\t65534");
    proc_line(w->pid, "status", "Gid:", text, sizeof(text));
    assert_string_equal(text, "\t65534\t65534\t65534\t65534");
    proc_line(w->pid, "status", "Groups:", text, sizeof(text));
    assert_int_equal(strspn(text, "\t "), strlen(text));
    proc_line(w->pid, "status", "CapEff:", text, sizeof(text));
    assert_string_equal(text, "\t0000000000000000");
    proc_line(w->pid, "status", "CapPrm:", text, sizeof(text));
    assert_string_equal(text, "\t0000000000000000");
    proc_line(w->pid, "status", "NoNewPrivs:", text, sizeof(text));
    assert_string_equal(text, "\t1");
    proc_line(w->pid, "limits", "Max core file size", text, sizeof(text));
    assert_int_equal(strspn(text, " 0bytes"), strlen(text));
    proc_line(w->pid, "limits", "Max processes", text, sizeof(text));
    assert_int_equal(strspn(text, " 0proces"), strlen(text));
    /* everything it needs it has: NV, a kill, a successor */
    assert_int_equal(ask(w, tpm2_nv_define(0x01500001, TPM2_NV_COUNTER, 8), &a), 0);
    assert_int_equal(ask(w, tpm2_nv_increment(0x01500001), &a), 0);
    gone(w);
    serve_as(w, m);
    assert_int_equal(ask(w, tpm2_nv_increment(0x01500001), &a), 0);
    stop(w, XLV_STOP_DOMAIN_END);
}

static void no_key_stays_in_memory_as_it_came(void **state)
{
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    char path[64], line[512];
    FILE *maps;
    int memory;
    unsigned found = 0, regions = 0;

    manufacture(w, XLV_TPM_2_0);
    for (unsigned i = 0; i < XLV_KEY_SIZE; i++)
        m.journal_key[i] = (uint8_t)(0x91 + 7 * i);
    serve_as(w, m);
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)w->pid);
    maps = fopen(path, "re");
    assert_non_null(maps);
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)w->pid);
    memory = open(path, O_RDONLY | O_CLOEXEC);
    if (memory < 0) {
        fclose(maps);
        gone(w);
        print_message("%s cannot be opened here\n", path);
        skip();
    }
    while (fgets(line, sizeof(line), maps)) {
        unsigned long from, to;
        char flags[8];
        uint8_t *bytes;
        ssize_t n;

        /* the program's own writable data, where the message was received */
        if (sscanf(line, "%lx-%lx %7s", &from, &to, flags) != 3 || flags[1] != 'w' ||
            !strstr(line, "vtpm-backend") || to - from > 1UL << 24)
            continue;
        regions++;
        bytes = malloc(to - from);
        assert_non_null(bytes);
        n = pread(memory, bytes, to - from, (off_t)from);
        if (n > 0 && memmem(bytes, (size_t)n, m.journal_key, XLV_KEY_SIZE))
            found++;
        free(bytes);
    }
    fclose(maps);
    close(memory);
    assert_true(regions > 0);
    assert_int_equal(found, 0);
    stop(w, XLV_STOP_FRONTEND_CLOSED);
}

static void nothing_alarming_is_logged_at_a_first_boot(void **state)
{
    struct world *w = *state;
    struct answer a;
    char line[1024];

    manufacture(w, XLV_TPM_2_0);
    serve(w);
    assert_int_equal(ask(w, tpm2_get_random(8), &a), 0);
    stop(w, XLV_STOP_DOMAIN_END);
    rewind(w->log);
    while (fgets(line, sizeof(line), w->log)) {
        /* every line is ours, and none above notice */
        if (strncmp(line, "notice:", 7) && strncmp(line, "info:", 5) && strncmp(line, "debug:", 6))
            fail_msg("%s", line);
        assert_non_null(strstr(line, "dcdb0000-"));
    }
}

static int descriptors_of(pid_t pid)
{
    char path[64];
    struct dirent *entry;
    int count = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    assert_non_null(dir);
    while ((entry = readdir(dir)))
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* As the daemon does it: the files by descriptors, which are read in the sandbox. */
static void a_boot_is_measured_in_the_sandbox(void **state)
{
    static uint8_t kernel[3 * 1024 * 1024 + 1], bytes[XLV_LOG_FILE_HEADER + XLV_EVENTLOG_MAX];
    struct world *w = *state;
    struct xlv_msg_launch m = launch_message(w, XLV_LAUNCH_SERVE);
    struct xlv_digests digests, pcrs[XLV_PCRS];
    enum xlv_tpm_version version;
    int files[3], fds[7] = { w->slots[0], w->slots[1], w->journal }, plain;
    struct answer a;
    uint32_t length;

    for (unsigned i = 0; i < 3; i++) {
        files[i] = memfd_create("file", MFD_CLOEXEC);
        assert_true(files[i] >= 0);
        fds[4 + i] = files[i];
    }
    memset(kernel, 'k', sizeof(kernel));
    assert_int_equal(write(files[1], kernel, sizeof(kernel)), sizeof(kernel));
    assert_int_equal(write(files[2], "ramdisk", 7), 7);
    assert_int_equal(lseek(files[1], 0, SEEK_SET), 0);
    assert_int_equal(lseek(files[2], 0, SEEK_SET), 0);
    manufacture(w, XLV_TPM_2_0);
    m.measure = XLV_MEASURE_FILES;
    m.has_log = m.has_ramdisk = 1;
    strcpy(m.kernel, "/boot/vmlinuz");
    strcpy(m.ramdisk, "/boot/initrd.img");
    strcpy(m.cmdline, "quiet");
    spawn(w);
    new_listener(w);
    fds[3] = w->listener;
    assert_int_equal(xlv_send_message(w->socket, &m, sizeof(m), fds, 7), 0);
    expect(w, XLV_MSG_READY, NULL);

    assert_true(pread(files[0], bytes, sizeof(bytes), 0) > (ssize_t)XLV_LOG_FILE_HEADER);
    memcpy(&length, bytes + 4, 4);
    assert_int_equal(xlv_measure_replay(bytes + XLV_LOG_FILE_HEADER, length, &version, pcrs), 0);
    for (unsigned pcr = 8; pcr <= 9; pcr++) {
        assert_int_equal(ask(w, tpm2_pcr_read(pcr), &a), 0);
        assert_memory_equal(a.b + a.n - 32, pcrs[pcr].of[XLV_HASH_SHA256], 32);
    }
    /* the log has the digest of all of the kernel */
    assert_int_equal(xlv_digest(XLV_BANK_SHA256, kernel, sizeof(kernel), &digests),
                     0);
    assert_non_null(memmem(bytes, length, digests.of[XLV_HASH_SHA256], 32));

    /* the process that the guest may take over has none of the three any more */
    plain = descriptors_of(w->pid);
    kill(w->pid, SIGKILL);
    (void)exit_status(w);
    serve(w);
    assert_int_equal(descriptors_of(w->pid), plain);
    assert_int_equal(ask(w, tpm2_pcr_read(9), &a), 0);
    assert_memory_equal(a.b + a.n - 32, pcrs[9].of[XLV_HASH_SHA256], 32);
    stop(w, XLV_STOP_DOMAIN_END);
    for (unsigned i = 0; i < 3; i++)
        close(files[i]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_tpm_is_made_once),
        T(a_manufacture_without_its_daemon_leaves_nothing),
        T(a_manufacture_without_certificates_says_what_the_daemon_said),
        T(garbage_for_certificates_makes_nothing),
        T(a_manufacture_killed_at_any_step_starts_over_or_is_complete),
        T(a_tpm_1_2_serves),
        T(a_store_without_a_tpm_is_refused),
        T(wrong_keys_are_refused),
        T(a_launch_out_of_bounds_is_refused),
        T(a_ring_that_is_none_is_refused),
        T(a_command_sent_before_we_came_is_answered),
        T(status_tells_what_is_served),
        T(the_guest_is_served_on_without_a_daemon),
        T(a_new_daemon_takes_the_place_of_the_old),
        T(nonsense_from_a_daemon_costs_its_connection_only),
        T(sigterm_is_an_orderly_stop),
        T(pcrs_survive_a_kill_and_not_a_reboot),
        T(a_boot_is_measured_in_the_sandbox),
        T(killed_at_random_times_it_counts_right),
        T(a_storm_of_events_does_not_eat_a_cpu),
        T(a_long_command_is_cancelled),
        T(extra_pages_are_neither_needed_nor_mapped),
        T(privileges_are_gone_before_the_guest_is_served),
        T(no_key_stays_in_memory_as_it_came),
        T(nothing_alarming_is_logged_at_a_first_boot),
    };
    const char *build = getenv("top_builddir"), *given = getenv("VTPM_BACKEND");

    snprintf(program, sizeof(program), "%s", given ? given : "");
    if (!given)
        snprintf(program, sizeof(program), "%s/vtpm-backend", build ? build : ".");
    snprintf(fakes, sizeof(fakes), "%s/tests/fake/.libs", build ? build : ".");
    if (access(program, X_OK) < 0) {
        fprintf(stderr, "%s: %s\n", program, strerror(errno));
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
