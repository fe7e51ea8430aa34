/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load-state.c - in dom0, for the power cuts: is the state in this directory a
 * TPM, and how far did it get? Loads it by the product's own code (store,
 * seal, keys, engine), as a backend would at the next boot of its guest, and
 * asks that TPM. Nothing is written.
 *
 *     load-state MASTER-KEY INSTANCE-DIRECTORY UUID COUNTER KEY
 *
 * Prints "<generation> <counter> <name>": the store's generation, the value of
 * the NV counter at index COUNTER and the name of the persistent key at handle
 * KEY (both hex, without 0x). Ends with 1 and a sentence if that does not work.
 */

#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/engine.h"
#include "backend/store.h"
#include "libxl-vtpm/keys.h"

static uint32_t handle_of(const char *hex)
{
    return (uint32_t)strtoul(hex, NULL, 16);
}

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t value = 0;

    while (n-- > 0)
        value = value << 8 | *p++;
    return value;
}

/* TPM2_NV_Read (part 3, 31.13) by the owner, whose authorization is empty. */
static bool read_counter(uint32_t index, uint64_t *value)
{
    uint8_t command[35] = { 0x80, 0x02, 0, 0, 0, 35, 0, 0, 0x01, 0x4e, 0x40, 0, 0, 0x01,
                            0, 0, 0, 0, 0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0,
                            0, 8, 0, 0 };
    const uint8_t *response;
    size_t length;

    for (int i = 0; i < 4; i++)
        command[14 + i] = (uint8_t)(index >> (24 - 8 * i));
    if (xlv_engine_execute(0, command, sizeof(command), &response, &length, NULL) ||
        length < 24 || big_endian(response + 6, 4) != 0 || big_endian(response + 14, 2) != 8)
        return false;
    *value = big_endian(response + 16, 8);
    return true;
}

/* TPM2_ReadPublic (part 3, 12.4): the public area, then the name. */
static bool print_name(uint32_t handle)
{
    uint8_t command[14] = { 0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x73 };
    const uint8_t *response;
    size_t length, public, name;

    for (int i = 0; i < 4; i++)
        command[10 + i] = (uint8_t)(handle >> (24 - 8 * i));
    if (xlv_engine_execute(0, command, sizeof(command), &response, &length, NULL) ||
        length < 12 || big_endian(response + 6, 4) != 0)
        return false;
    public = big_endian(response + 10, 2);
    if (length < 14 + public)
        return false;
    name = big_endian(response + 12 + public, 2);
    if (length < 14 + public + name)
        return false;
    for (size_t i = 0; i < name; i++)
        printf("%02x", response[14 + public + i]);
    return true;
}

int main(int argc, char **argv)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_keys *keys = NULL;
    struct xlv_store *store = NULL;
    struct xlv_uuid uuid;
    uint8_t key[XLV_KEY_SIZE], *state = NULL;
    uint64_t generation, counter;
    size_t length;
    int slots[2] = { -1, -1 }, dir;

    if (argc != 6 || xlv_uuid_parse(&uuid, argv[3])) {
        fprintf(stderr, "usage: load-state MASTER-KEY DIRECTORY UUID COUNTER KEY\n");
        return 2;
    }
    dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        perror(argv[2]);
        return 1;
    }
    if (xlv_keys_new(&keys, XLV_KEY_FILE, argv[1], false, &e) ||
        xlv_keys_instance(keys, &uuid, key, &e) || xlv_store_open(dir, slots, &e) ||
        xlv_store_new(&store, slots, &uuid, key, &e) ||
        xlv_store_load(store, &state, &length, &generation, &e) ||
        xlv_engine_load(XLV_TPM_2_0, state, length, NULL, 0, &e) || xlv_engine_startup(&e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    if (!read_counter(handle_of(argv[4]), &counter)) {
        fprintf(stderr, "the TPM has no counter %s\n", argv[4]);
        return 1;
    }
    printf("%" PRIu64 " %" PRIu64 " ", generation, counter);
    if (!print_name(handle_of(argv[5]))) {
        fprintf(stderr, "the TPM has no key %s\n", argv[5]);
        return 1;
    }
    printf("\n");
    return 0;
}
