/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vtpm-backend that only speaks include/launch.h and does as a test says.
 *
 * $FAKE_BACKEND_DIR/log gets a line per happening (appended, one write each):
 *     launch PID serve|manufacture|keep INSTANCE DOMID/DEVID RING/PORT BOOT
 *     ready PID / stop PID REASON / bye PID / orphan PID / connected PID
 * $FAKE_BACKEND_DIR/mode, or INSTANCE.mode before it, or manufacture.mode for
 * that mode (keep.mode likewise), has words; none: serve as one should.
 *     exit            exit 3 at once, without a word
 *     hang            never READY
 *     garbage         a message nobody knows instead of READY
 *     huge            a message longer than any
 *     status          STATUS before READY
 *     segv            READY, then SIGSEGV
 *     fail CODE TEXT  FAILED with that
 *     deaf            READY, but no answer to STOP
 *     mute            READY, exit 0 at STOP without BYE
 *     linger          READY, BYE at STOP, but no exit
 *     hangup          READY, then closes its socket and stays
 *     endorse         has a key certified before READY (manufacture); endorse-bad: one that is none
 *     slow MS         READY after that time
 *     flood           READY, then STATUS all the time
 *     foreign         READY of another launch version
 *     nolisten        as should be, but never calls listen() itself
 * and one that its guest has taken over:
 *     say TYPE LENGTH READY, then a message of that type and length
 *     fds             READY, then descriptors with all that it sends, many of them
 *     inject          FAILED with lines, colours and no end in its text
 *     thief           READY, and answers to QUERY as if it served instance 1, with its uuid
 *     liar            READY, and answers to QUERY in the name of instance 1 and domain 5
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "include/launch.h"

static struct xlv_msg_launch launch;
static const char *dir;

static void __attribute__((format(printf, 1, 2))) note(const char *fmt, ...)
{
    char line[256], path[512];
    va_list ap;
    int fd, n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    snprintf(path, sizeof(path), "%s/log", dir);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || xlv_write_all(fd, line, (size_t)n))
        _exit(99);
    close(fd);
}

static bool read_mode(const char *name, char *mode, size_t size)
{
    char path[512];
    FILE *f;
    bool ok;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "re");
    if (!f)
        return false;
    ok = fgets(mode, (int)size, f) != NULL;
    fclose(f);
    if (ok)
        mode[strcspn(mode, "\n")] = '\0';
    return ok;
}

static int say(int fd, enum xlv_msg_type type)
{
    struct xlv_msg_simple m = {
        .h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION, .type = type },
    };

    return xlv_send_message(fd, &m, sizeof(m), NULL, 0);
}

static int tell(int fd)
{
    struct xlv_msg_status m = {
        .h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION, .type = XLV_MSG_STATUS },
        .tpm_version = launch.tpm_version,
        .uuid = launch.uuid,
        .instance = launch.instance,
        .domid = launch.domid,
        .devid = launch.devid,
        .ring_ref = launch.ring_ref,
        .event_channel = launch.event_channel,
        .generation = 7,
        .sequence = 42,
        .commits = 3,
        .recovered = 1,
    };

    return xlv_send_message(fd, &m, sizeof(m), NULL, 0);
}

static void sleep_forever(void)
{
    for (;;)
        pause();
}

static void send_descriptors(int socket)
{
    struct xlv_msg_status m = {
        .h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION, .type = XLV_MSG_STATUS },
    };
    int fds[16];

    for (size_t i = 0; i < 16; i++)
        fds[i] = socket;
    while (xlv_send_message(socket, &m, sizeof(m), fds, 16) == 0)
        ;
    sleep_forever();
}

/* As a manufacture does; its one key is the generator of P-256, or beside the curve. */
static void endorse(int socket, bool good)
{
    static const uint8_t generator[] = {
        0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40,
        0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98,
        0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c,
        0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68,
        0x37, 0xbf, 0x51, 0xf5,
    };
    struct xlv_msg_endorsement m = {
        .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_ENDORSEMENT },
    };
    static struct xlv_msg_certificates answer;
    size_t length = sizeof(answer);

    m.key[XLV_EK_P256].length = sizeof(generator);
    memcpy(m.key[XLV_EK_P256].bytes, generator, sizeof(generator));
    m.key[XLV_EK_P256].bytes[40] ^= !good;
    if (xlv_send_message(socket, &m, sizeof(m), NULL, 0) ||
        xlv_receive_message(socket, &answer, &length, NULL, NULL) || length != sizeof(answer))
        _exit(95);
    note("certificates %d: %u %u %u %u\n", answer.code, answer.certificate[0].length,
         answer.certificate[1].length, answer.certificate[2].length, answer.certificate[3].length);
    if (answer.code) {
        struct xlv_msg_failed failed = {
            .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_FAILED }, .code = answer.code,
        };

        memcpy(failed.text, answer.text, sizeof(failed.text));
        (void)xlv_send_message(socket, &failed, sizeof(failed), NULL, 0);
        _exit(1);
    }
}

static void inject(int socket)
{
    static const char evil[] = "\n<0>error: dom 5/0: FORGED\r\033[2J\x9b";
    struct xlv_msg_failed m = {
        .h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION, .type = XLV_MSG_FAILED },
        .code = -5,
    };

    for (size_t i = 0; i < sizeof(m.text); i++)
        m.text[i] = evil[i % (sizeof(evil) - 1)];
    (void)xlv_send_message(socket, &m, sizeof(m), NULL, 0);
    _exit(1);
}

int main(void)
{
    int fds[XLV_LAUNCH_FDS_MAX], socket = XLV_LAUNCH_FD, listener = -1;
    size_t nfds = XLV_LAUNCH_FDS_MAX, length = sizeof(launch);
    char mode[256] = "", name[64];
    const char *task;
    bool serve;

    /* nobody may be left over, whatever becomes of the test */
    alarm(120);
    dir = getenv("FAKE_BACKEND_DIR");
    if (!dir || xlv_receive_message(socket, &launch, &length, fds, &nfds))
        return 98;
    serve = launch.mode == XLV_LAUNCH_SERVE;
    task = launch.mode == XLV_LAUNCH_KEEP ? "keep" : "manufacture";
    if (length != sizeof(launch) ||
        nfds != (serve ? 4u : launch.mode == XLV_LAUNCH_KEEP ? 3u : 2u))
        return 97;
    snprintf(name, sizeof(name), "%llu.mode", (unsigned long long)launch.instance);
    if (!serve || !read_mode(name, mode, sizeof(mode))) {
        snprintf(name, sizeof(name), "%s%smode", serve ? "" : task, serve ? "" : ".");
        (void)read_mode(name, mode, sizeof(mode));
    }
    /* not before the mode is read: tests change it then */
    note("launch %d %s %llu %u/%u %u/%u %u\n", getpid(), serve ? "serve" : task,
         (unsigned long long)launch.instance, launch.domid, launch.devid, launch.ring_ref,
         launch.event_channel, launch.boot);

    if (serve) {
        listener = fds[3];
        if (strcmp(mode, "nolisten") && listen(listener, 4) < 0)
            return 96;
    }
    if (!strcmp(mode, "exit"))
        return 3;
    if (!strcmp(mode, "hang"))
        sleep_forever();
    if (!strcmp(mode, "garbage")) {
        (void)xlv_send_message(socket, "what?!", 6, NULL, 0);
        sleep_forever();
    }
    if (!strcmp(mode, "huge")) {
        char big[8192] = "";

        (void)xlv_send_message(socket, big, sizeof(big), NULL, 0);
        sleep_forever();
    }
    if (!strcmp(mode, "foreign")) {
        struct xlv_msg_simple m = {
            .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION + 1, XLV_MSG_READY },
        };

        (void)xlv_send_message(socket, &m, sizeof(m), NULL, 0);
        sleep_forever();
    }
    if (!strcmp(mode, "status")) {
        (void)tell(socket);
        sleep_forever();
    }
    if (!strncmp(mode, "fail ", 5)) {
        struct xlv_msg_failed m = {
            .h = { XLV_LAUNCH_MAGIC, XLV_LAUNCH_VERSION, XLV_MSG_FAILED },
        };
        char *text;

        m.code = (int32_t)strtol(mode + 5, &text, 10);
        snprintf(m.text, sizeof(m.text), "%.500s", *text ? text + 1 : "");
        (void)xlv_send_message(socket, &m, sizeof(m), NULL, 0);
        return 1;
    }
    if (!strcmp(mode, "inject"))
        inject(socket);
    if (!strncmp(mode, "endorse", 7))
        endorse(socket, !strcmp(mode, "endorse"));
    if (!strncmp(mode, "slow ", 5))
        (void)poll(NULL, 0, atoi(mode + 5));
    if (say(socket, XLV_MSG_READY))
        xlv_close(&socket);
    note("ready %d\n", getpid());
    if (!serve)
        return 0;
    if (!strcmp(mode, "segv")) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (!strcmp(mode, "hangup")) {
        xlv_close(&socket);
        sleep_forever();
    }
    if (!strncmp(mode, "say ", 4)) {
        static char bytes[2048];
        struct xlv_msg_header h = { .magic = XLV_LAUNCH_MAGIC, .version = XLV_LAUNCH_VERSION };
        char *rest;

        h.type = (uint16_t)strtoul(mode + 4, &rest, 10);
        memcpy(bytes, &h, sizeof(h));
        (void)xlv_send_message(socket, bytes, strtoul(rest, NULL, 10), NULL, 0);
        sleep_forever();
    }
    if (!strcmp(mode, "fds"))
        send_descriptors(socket);
    if (!strcmp(mode, "thief")) {
        launch.instance = 1;
        if (xlv_uuid_parse(&launch.uuid, "dcdb124b-9fed-4040-b149-dd2dfd8d094c"))
            return 1;
    }
    if (!strcmp(mode, "liar")) {
        static const struct xlv_uuid uuid_of_1 = { .b = { 0xdc, 0xdb, 0x12, 0x4b } };

        launch.instance = 1;
        launch.uuid = uuid_of_1;
        launch.domid = 5;
        launch.ring_ref = launch.event_channel = UINT32_MAX;
    }
    if (!strcmp(mode, "flood"))
        while (tell(socket) == 0)
            ;

    for (;;) {
        struct pollfd p[2] = {
            { .fd = listener, .events = POLLIN },
            { .fd = socket, .events = POLLIN },
        };
        union {
            struct xlv_msg_header h;
            struct xlv_msg_stop stop;
            char room[64];
        } m;
        int rc;

        if (poll(p, 2, -1) < 0)
            continue;
        if (p[0].revents & POLLIN) {
            int fresh = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

            if (fresh >= 0) {
                xlv_close(&socket);
                socket = fresh;
                note("connected %d\n", getpid());
            }
            continue;
        }
        if (!p[1].revents)
            continue;
        length = sizeof(m);
        rc = xlv_receive_message(socket, &m, &length, NULL, NULL);
        if (rc) {
            xlv_close(&socket);
            note("orphan %d\n", getpid());
            continue;
        }
        if (m.h.type == XLV_MSG_QUERY) {
            (void)tell(socket);
        } else if (m.h.type == XLV_MSG_STOP) {
            note("stop %d %u\n", getpid(), m.stop.reason);
            if (!strcmp(mode, "deaf"))
                sleep_forever();
            if (!strcmp(mode, "mute"))
                return 0;
            (void)say(socket, XLV_MSG_BYE);
            if (!strcmp(mode, "linger")) {
                note("bye %d\n", getpid());
                sleep_forever();
            }
            return 0;
        }
    }
}
