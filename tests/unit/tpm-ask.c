/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One TPM asked what makes it that TPM, over a unix socket (swtpm's) or out of an
 * instance's store, for tests that move TPMs between the two.
 *
 *   tpm-ask make 1.2|2.0 SOCKET                     gives it something to keep
 *   tpm-ask tell 1.2|2.0 SOCKET                     prints what it has, line by line
 *   tpm-ask make|tell 1.2|2.0 DIRECTORY UUID KEYFILE    the same of an instance
 *
 * 2.0: an NV index, a persistent key, keys from the seeds of endorsement and owner.
 * 1.2: EK and permanent flags.
 */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"
#include "libxl-vtpm/keys.h"
#include "tests/unit/tpm.h"

#define NV_INDEX 0x01500001u
#define PERSISTENT 0x81000042u

static enum xlv_tpm_version version;
static int connection = -1; /* -1: the engine */

static void die(const char *what, uint32_t code)
{
    fprintf(stderr, "tpm-ask: %s (0x%x)\n", what, code);
    exit(1);
}

/* The response; its length. Any code but those is an end. */
static size_t send_it(const void *request, size_t length, uint8_t response[XLV_TPM_BUFFER_MAX],
                      uint32_t may)
{
    const uint8_t *engines;
    size_t got = 0;
    uint32_t code;

    if (connection < 0) {
        if (xlv_engine_execute(0, request, length, &engines, &got, NULL))
            die("the engine fails", 0);
        memcpy(response, engines, got);
    } else {
        if (xlv_write_all(connection, request, length) ||
            xlv_read_all(connection, response, XLV_TPM_HEADER_SIZE))
            die("the connection ended", 0);
        got = get32(response + 2);
        if (got < XLV_TPM_HEADER_SIZE || got > XLV_TPM_BUFFER_MAX ||
            xlv_read_all(connection, response + XLV_TPM_HEADER_SIZE, got - XLV_TPM_HEADER_SIZE))
            die("no whole response", 0);
    }
    code = xlv_response_code(response, got);
    if (code && code != may)
        die("a command failed", code);
    return got;
}

static size_t send_cmd(struct cmd c, uint8_t response[XLV_TPM_BUFFER_MAX])
{
    return send_it(c.b, c.n, response, 0);
}

static void print(const char *name, const uint8_t *data, size_t length)
{
    printf("%s ", name);
    for (size_t i = 0; i < length; i++)
        printf("%02x", data[i]);
    putchar('\n');
}

static struct cmd in_hierarchy(uint32_t hierarchy)
{
    struct cmd c = tpm2_create_primary_ecc();
    struct xlv_bytes w = xlv_bytes_writer(c.b + 10, 4);

    xlv_put_u32_be(&w, hierarchy);
    return c;
}

static struct cmd read_public(uint32_t handle)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, 0x173);

    xlv_put_u32_be(&w, handle);
    cmd_end(&c, &w);
    return c;
}

/* outPublic stands behind handle and parameterSize; it has a length of two bytes. */
static void tell_primary(const char *name, uint32_t hierarchy)
{
    uint8_t response[XLV_TPM_BUFFER_MAX];

    send_cmd(in_hierarchy(hierarchy), response);
    print(name, response + 18, (size_t)response[18] * 256 + response[19] + 2u);
    send_cmd(tpm2_flush(get32(response + 10)), response);
}

static void tell_2_0(void)
{
    uint8_t response[XLV_TPM_BUFFER_MAX];
    size_t n;

    n = send_cmd(tpm2_nv_read(NV_INDEX, 32), response);
    print("nv", response + 14, n - 14 - 5);
    n = send_cmd(read_public(PERSISTENT), response);
    print("persistent", response + 10, n - 10);
    tell_primary("endorsement", 0x4000000bu);
    tell_primary("owner", TPM2_RH_OWNER);
}

static void make_2_0(void)
{
    uint8_t response[XLV_TPM_BUFFER_MAX];

    send_cmd(tpm2_nv_define(NV_INDEX, 0, 32), response);
    send_cmd(tpm2_nv_write(NV_INDEX, 0x5a, 32), response);
    send_cmd(tpm2_create_primary_ecc(), response);
    send_cmd(tpm2_evict_control(get32(response + 10), PERSISTENT), response);
}

static void make_1_2(void)
{
    uint8_t request[XLV_COMMAND_MAX], nonce[20] = { 0 }, response[XLV_TPM_BUFFER_MAX];

    send_it(request, xlv_command_create_ek(nonce, request), response, 0x08 /* it has one */);
}

static void tell_1_2(void)
{
    uint8_t response[XLV_TPM_BUFFER_MAX];
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x00c1, 0x7c); /* TPM_ReadPubek */
    size_t n;

    for (int i = 0; i < 20; i++)
        xlv_put_u8(&w, 0);
    cmd_end(&c, &w);
    n = send_cmd(c, response);
    print("ek", response + 10, n - 10);
    w = cmd_begin(&c, 0x00c1, 0x65); /* TPM_CAP_FLAG, TPM_CAP_FLAG_PERMANENT */
    xlv_put_u32_be(&w, 4);
    xlv_put_u32_be(&w, 4);
    xlv_put_u32_be(&w, 0x108);
    cmd_end(&c, &w);
    send_cmd(c, response);
    /* TPM_PERMANENT_FLAGS up to where presence by command begins, which an import settles */
    print("flags", response + 14, 2 + 7);
}

static void work(bool make)
{
    uint8_t request[XLV_COMMAND_MAX], response[XLV_TPM_BUFFER_MAX];

    /* swtpm may have been told to do it */
    send_it(request, xlv_command_startup(version, request), response,
            version == XLV_TPM_2_0 ? 0x100 : 0x26);
    if (version == XLV_TPM_2_0)
        (make ? make_2_0 : tell_2_0)();
    else
        (make ? make_1_2 : tell_1_2)();
}

static int open_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >=
        (int)sizeof(address.sun_path))
        return -1;
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(connection, (struct sockaddr *)&address, sizeof(address));
}

/* An instance, committed again where it was given something. */
static int use_store(char **argv, bool make, struct xlv_error *e)
{
    int dirfd XLV_CLOSE = open(argv[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int slots[2] = { -1, -1 };
    struct xlv_keys *keys = NULL;
    struct xlv_store *store = NULL;
    uint8_t key[XLV_KEY_SIZE], *data = NULL;
    struct xlv_uuid uuid;
    uint64_t generation;
    size_t length;
    int rc = xlv_uuid_parse(&uuid, argv[1]);

    if (!rc)
        rc = xlv_store_open(dirfd, slots, e);
    if (!rc)
        rc = xlv_keys_new(&keys, XLV_KEY_FILE, argv[2], false, e);
    if (!rc)
        rc = xlv_keys_of_store(keys, &uuid, slots, key, NULL, e);
    if (!rc)
        rc = xlv_store_new(&store, slots, &uuid, key, e);
    if (!rc)
        rc = xlv_store_load(store, &data, &length, &generation, e);
    if (!rc)
        rc = xlv_engine_load(version, data, length, NULL, 0, e);
    free(data);
    if (!rc) {
        work(make);
        rc = xlv_engine_permanent(&data, &length, e);
        if (!rc && make)
            rc = xlv_store_commit(store, data, length, &generation, e);
        free(data);
        xlv_engine_off();
    }
    xlv_store_free(store);
    xlv_keys_free(keys);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

int main(int argc, char **argv)
{
    struct xlv_error e = XLV_ERROR_INIT;
    bool make;
    int rc = 0;

    if (argc != 4 && argc != 6)
        return 2;
    make = !strcmp(argv[1], "make");
    version = strcmp(argv[2], "1.2") ? XLV_TPM_2_0 : XLV_TPM_1_2;
    xlv_log_set_level(XLV_LOG_ERROR);
    if (argc == 6) {
        rc = use_store(argv + 3, make, &e);
    } else if (open_socket(argv[3])) {
        die("no connection", 0);
    } else {
        work(make);
        xlv_close(&connection);
    }
    if (rc)
        fprintf(stderr, "%s\n", e.text[0] ? e.text : xlv_strerror(rc));
    return rc != 0;
}
