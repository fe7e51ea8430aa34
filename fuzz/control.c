/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket (libxl-vtpm/control.h, calls.h), both sides of it. Input: packets, u16 length
 * and bytes each. Every message in them is answered from a registry, and read as a reply, too.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "fuzz/fuzz.h"
#include "libxl-vtpm/calls.h"
#include "libxl-vtpm/control.h"

/* A registry that grew is begun anew. */
#define CALLS_MAX 4000

static char directory[128];
static struct xlv_registry *registry;
static unsigned calls;

static void remove_in(int dirfd)
{
    DIR *dir = fdopendir(dirfd);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
            unlinkat(dirfd, entry->d_name, 0)) {
            int inner = openat(dirfd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

            if (inner >= 0)
                remove_in(inner);
            (void)unlinkat(dirfd, entry->d_name, AT_REMOVEDIR);
        }
    if (dir)
        closedir(dir);
}

static void tear_down(void)
{
    xlv_registry_close(registry);
    registry = NULL;
    if (directory[0]) {
        remove_in(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        (void)rmdir(directory);
    }
    directory[0] = '\0';
}

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    struct xlv_uuid uuid = { .b = { 1 } };
    struct xlv_instance instance;
    static int once;

    if (!once++)
        atexit(tear_down);
    tear_down();
    calls = 0;
    snprintf(directory, sizeof(directory), "%s/xlv-fuzz-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
    MUST(mkdtemp(directory));
    MUST(xlv_registry_open(&registry, directory, true, NULL) == 0);
    MUST(xlv_registry_create(registry, &uuid, XLV_TPM_2_0, "label", &instance, NULL) == 0);
    MUST(xlv_registry_bind(registry, instance.number, "domain", 0, NULL) == 0);
}

static void answer(struct json_object *message)
{
    struct xlv_settings settings = { .default_tpm_version = XLV_TPM_2_0,
                                     .unknown_uuid = XLV_UNKNOWN_UUID_ASSIGN };
    struct xlv_calls how = { .registry = registry, .settings = &settings };
    struct xlv_control_out out = XLV_CONTROL_OUT_INIT;
    struct json_object *reply, *result;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    rc = xlv_control_result(message, &result, &e);
    MUST(!rc || e.text[0]);
    reply = xlv_calls_answer(&how, message);
    MUST(reply && json_object_is_type(reply, json_type_object));
    xlv_error_clear(&e);
    rc = xlv_control_result(reply, &result, &e);
    MUST(rc != XLV_E_INVALID || e.text[0]);
    MUST(xlv_control_out_put(&out, reply, NULL) == 0);
    xlv_control_out_deinit(&out);
    json_object_put(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes packets = xlv_bytes_reader(data, size);
    struct xlv_control_in in;
    struct json_object *message;
    struct xlv_error e = XLV_ERROR_INIT;
    int pair[2], rc;

    if (!registry || ++calls > CALLS_MAX)
        set_up();
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    while (xlv_bytes_left(&packets)) {
        size_t length;
        const uint8_t *bytes = piece(&packets, &length);

        if (!bytes || !length || send(pair[0], bytes, length, MSG_NOSIGNAL) < 0)
            break;
    }
    close(pair[0]);
    xlv_control_in_init(&in, XLV_CONTROL_REQUEST_MAX);
    while ((rc = xlv_control_receive(pair[1], &in, &message, &e)) == 0) {
        answer(message);
        json_object_put(message);
    }
    MUST(!message && (rc == XLV_E_GONE || (rc == XLV_E_INVALID && e.text[0])));
    xlv_control_in_deinit(&in);
    close(pair[1]);
    return 0;
}
