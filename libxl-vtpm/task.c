/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Work on a TPM in a process of its own: see task.h. */
#include "config.h"

#include "libxl-vtpm/task.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "backend/store.h"
#include "common/fd.h"
#include "libxl-vtpm/spawn.h"

/* TPM 1.2 makes RSA keys: seconds on a slow machine. */
#define PATIENCE_MS (60 * 1000)

struct task {
    const struct xlv_settings *settings;
    struct xlv_msg_launch launch;
    int fds[3], nfds, socket; /* the first two: the slots; the third may be the journal */
    pid_t pid;   /* 0: there is none */
    int64_t end; /* of patience */
};

/* A store that is in memory only, under a key that nobody else has. */
static int make_store(struct task *t, const uint8_t *in, size_t length, struct xlv_error *e)
{
    struct xlv_store *store = NULL;
    uint8_t *nothing = NULL;
    uint64_t generation;
    size_t none;
    int rc = 0;

    xlv_uuid_generate(&t->launch.uuid);
    if (RAND_priv_bytes(t->launch.instance_key, XLV_KEY_SIZE) != 1)
        return xlv_fail(e, -EIO, "no random bytes for a key");
    for (int i = 0; i < 2 && !rc; i++) {
        t->fds[i] = memfd_create("slot", MFD_CLOEXEC);
        rc = t->fds[i] < 0 ? xlv_fail(e, -errno, "no memory for a slot: %s", strerror(errno))
                             : xlv_store_prepare(t->fds[i], e);
    }
    if (rc)
        return rc;
    rc = xlv_store_new(&store, t->fds, &t->launch.uuid, t->launch.instance_key, e);
    if (!rc) {
        rc = xlv_store_load(store, &nothing, &none, &generation, NULL);
        rc = rc == XLV_E_EMPTY ? xlv_store_commit(store, in, length, &generation, e)
                               : xlv_fail(e, -EIO, "a new store in memory is not empty");
    }
    xlv_store_free(store);
    return rc;
}

static int take_result(struct task *t, uint8_t **out, size_t *length, struct xlv_error *e)
{
    struct xlv_store *store = NULL;
    uint64_t generation;
    int rc = xlv_store_new(&store, t->fds, &t->launch.uuid, t->launch.instance_key, e);

    if (!rc)
        rc = xlv_store_load(store, out, length, &generation, e);
    xlv_store_free(store);
    return rc;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int start(struct task *t, struct xlv_error *e)
{
    const char *program = t->settings->backend_program;
    int pair[2], rc;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return xlv_fail(e, -errno, "no socket pair for %s: %s", program, strerror(errno));
    t->socket = pair[0];
    t->end = now_ms() + PATIENCE_MS;
    rc = xlv_spawn_backend(program, pair[1], xlv_log_level() < XLV_LOG_INFO, &t->pid);
    xlv_close(&pair[1]);
    if (rc)
        return xlv_fail(e, rc, "cannot start %s: %s", program, strerror(-rc));
    /* an error here is the process having died: its end tells why */
    (void)xlv_send_message(t->socket, &t->launch, sizeof(t->launch), t->fds, (size_t)t->nfds);
    return 0;
}

/* Whoever has had a state's bytes inside may be anybody: what it says is only a line of text. */
static int told(const struct xlv_msg_failed *failed, struct xlv_error *e)
{
    char text[XLV_TEXT_MAX];
    size_t i = 0;

    for (; i < sizeof(text) - 1 && failed->text[i]; i++)
        text[i] = failed->text[i];
    text[i] = '\0';
    for (i = 0; text[i]; i++)
        if (text[i] < ' ' || text[i] > '~')
            text[i] = '?';
    return xlv_fail(e, failed->code ? failed->code : -EIO, "%s", text);
}

/* What it says next has to be of this type and size; FAILED is its error. */
static int expect(struct task *t, enum xlv_msg_type type, void *message, size_t size,
                  struct xlv_error *e)
{
    union {
        struct xlv_msg_header h;
        struct xlv_msg_failed failed;
        struct xlv_msg_endorsement endorsement;
        struct xlv_msg_certificates certificates;
    } *m = malloc(sizeof(*m));
    size_t length = sizeof(*m), nfds = 0;
    struct pollfd p = { .fd = t->socket, .events = POLLIN };
    int64_t left;
    int r, rc = 0;

    if (!m)
        return -ENOMEM;
    do {
        left = t->end - now_ms();
        r = poll(&p, 1, left > 0 ? (int)left : 0);
    } while (r < 0 && errno == EINTR);
    if (r <= 0)
        rc = xlv_fail(e, -ETIMEDOUT, "the TPM did not come up within %d s", PATIENCE_MS / 1000);
    else if (xlv_receive_message(t->socket, m, &length, NULL, &nfds))
        rc = xlv_fail(e, -EIO, "the process that looks at the state died of it");
    else if (length == sizeof(m->failed) && m->h.type == XLV_MSG_FAILED)
        rc = told(&m->failed, e);
    else if (length != size || m->h.type != type)
        rc = xlv_fail(e, -EPROTO, "the process that looks at the state says what it should not");
    else
        memcpy(message, m, size);
    free(m);
    return rc;
}

static int expect_ready(struct task *t, struct xlv_error *e)
{
    struct xlv_msg_simple ready;

    return expect(t, XLV_MSG_READY, &ready, sizeof(ready), e);
}

/* Done or not; what is borrowed stays open. */
static void stop(struct task *t)
{
    if (t->pid > 0) {
        kill(t->pid, SIGKILL);
        while (waitpid(t->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    OPENSSL_cleanse(&t->launch, sizeof(t->launch));
    xlv_close(&t->socket);
}

static struct task task_of(const struct xlv_settings *settings, enum xlv_launch_mode mode,
                           enum xlv_tpm_version version)
{
    struct task t = {
        .settings = settings, .fds = { -1, -1, -1 }, .nfds = 2, .socket = -1,
        .launch = {
            .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_LAUNCH },
            .mode = mode, .tpm_version = version, .log_level = XLV_LOG_ERROR,
        },
    };

    /* the last one of the range, which an instance gets when all others are taken */
    if (!geteuid() && settings->backend_uid_base)
        t.launch.uid = t.launch.gid =
            settings->backend_uid_base + settings->backend_uid_count - 1;
    return t;
}

static int run(struct task *t, uint8_t **out, size_t *length, struct xlv_error *e)
{
    int rc = start(t, e);

    if (!rc)
        rc = expect_ready(t, e);
    return rc ? rc : take_result(t, out, length, e);
}

int xlv_task(const struct xlv_settings *settings, enum xlv_launch_mode mode,
             enum xlv_tpm_version version, const uint8_t *in, size_t in_length, uint8_t **out,
             size_t *out_length, struct xlv_error *e)
{
    struct task t = task_of(settings, mode, version);
    int rc;

    *out = NULL;
    *out_length = 0;
    rc = make_store(&t, in, in_length, e);
    if (!rc)
        rc = run(&t, out, out_length, e);
    stop(&t);
    xlv_close(&t.fds[0]);
    xlv_close(&t.fds[1]);
    return rc;
}

static bool lengths_are_good(const struct xlv_msg_endorsement *keys,
                             const struct xlv_msg_certificates *held)
{
    for (size_t i = 0; i < XLV_EKS; i++)
        if (keys->key[i].length > XLV_EK_PUBLIC_MAX)
            return false;
    for (size_t i = 0; i < XLV_CERTIFICATES; i++)
        if (held->certificate[i].length > XLV_CERTIFICATE_MAX)
            return false;
    return true;
}

/* *certificates NULL: what is told is enough. */
static int identify(struct task *t, struct xlv_msg_endorsement *keys,
                    struct xlv_msg_certificates *held,
                    const struct xlv_msg_certificates *certificates, uint8_t **out,
                    size_t *length, struct xlv_error *e)
{
    int rc = start(t, e);

    if (!rc)
        rc = expect(t, XLV_MSG_CERTIFICATES, held, sizeof(*held), e);
    if (!rc)
        rc = expect(t, XLV_MSG_ENDORSEMENT, keys, sizeof(*keys), e);
    if (!rc && !lengths_are_good(keys, held))
        rc = xlv_fail(e, -EPROTO, "the process that looks at the state says what it should not");
    if (rc || !certificates)
        return rc;
    rc = xlv_send_message(t->socket, certificates, sizeof(*certificates), NULL, 0);
    if (rc)
        return xlv_fail(e, rc, "the process that looks at the state died of it");
    rc = expect_ready(t, e);
    return rc ? rc : take_result(t, out, length, e);
}

int xlv_task_identify(const struct xlv_settings *settings, enum xlv_tpm_version version,
                      const uint8_t *in, size_t in_length, struct xlv_msg_endorsement *keys,
                      struct xlv_msg_certificates *held,
                      const struct xlv_msg_certificates *certificates, uint8_t **out,
                      size_t *out_length, struct xlv_error *e)
{
    struct task t = task_of(settings, XLV_LAUNCH_IDENTIFY, version);
    struct xlv_msg_certificates *told = malloc(sizeof(*told));
    int rc = told ? make_store(&t, in, in_length, e) : -ENOMEM;

    *out = NULL;
    *out_length = 0;
    if (!rc)
        rc = identify(&t, keys, told, certificates, out, out_length, e);
    if (!rc && held)
        *held = *told;
    stop(&t);
    free(told);
    xlv_close(&t.fds[0]);
    xlv_close(&t.fds[1]);
    return rc;
}

int xlv_task_pcrs(const struct xlv_settings *settings, enum xlv_tpm_version version,
                  const struct xlv_copies *copies, uint8_t **out, size_t *out_length,
                  struct xlv_error *e)
{
    struct task t = task_of(settings, XLV_LAUNCH_PCRS, version);
    int rc;

    *out = NULL;
    *out_length = 0;
    t.launch.uuid = copies->uuid;
    t.launch.domid = copies->domid;
    memcpy(t.launch.instance_key, copies->instance_key, XLV_KEY_SIZE);
    memcpy(t.launch.journal_key, copies->journal_key, XLV_KEY_SIZE);
    t.fds[0] = copies->slots[0];
    t.fds[1] = copies->slots[1];
    t.fds[2] = copies->journal;
    t.nfds = copies->journal >= 0 ? 3 : 2;
    rc = run(&t, out, out_length, e);
    stop(&t);
    return rc;
}
