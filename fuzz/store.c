/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slots of a store (backend/store.h), damaged. They hold generations 7 and 8 of two states;
 * the input is a row of patches: u8 (bit 0: which slot; bits 1 to 3: what), u16 sector, u16 offset
 * in it, and for a patch of bytes u16 length and these. Whatever is done to the files, a load gives
 * a state that was committed under that generation, or none, and writes nothing; and what goes on
 * from there is a store again.
 */
#include "config.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/store.h"
#include "backend/store-sector.h"
#include "common/fd.h"
#include "fuzz/fuzz.h"

#define GENERATIONS 8u

static const struct xlv_uuid uuid = { .b = { 1, 2, 3 } };
static const uint8_t key[XLV_KEY_SIZE] = { 's' };

static int slots[2];
static uint8_t image[2][XLV_STORE_SLOT_SIZE]; /* as they were left */

static size_t state_of(uint64_t generation, uint8_t state[8192])
{
    size_t length = generation & 1 ? 1300 : 7400;

    memset(state, (int)generation, length);
    return length;
}

static void set_up(void)
{
    uint8_t state[8192], *data;
    struct xlv_store *store;
    uint64_t generation;
    size_t length;

    for (unsigned i = 0; i < 2; i++) {
        slots[i] = memfd_create("slot", MFD_CLOEXEC);
        MUST(slots[i] >= 0 && xlv_store_prepare(slots[i], NULL) == 0);
    }
    MUST(xlv_store_new(&store, slots, &uuid, key, NULL) == 0);
    MUST(xlv_store_load(store, &data, &length, &generation, NULL) == XLV_E_EMPTY);
    for (uint64_t i = 1; i <= GENERATIONS; i++)
        MUST(xlv_store_commit(store, state, state_of(i, state), &generation, NULL) == 0 &&
             generation == i);
    xlv_store_free(store);
    for (unsigned i = 0; i < 2; i++)
        MUST(xlv_pread_all(slots[i], image[i], sizeof(image[i]), 0) == 0);
}

static void patch(struct xlv_bytes *in, uint8_t now[2][XLV_STORE_SLOT_SIZE], size_t size[2])
{
    unsigned what = xlv_get_u8(in), slot = what & 1;
    size_t sector = xlv_get_u16(in) % (XLV_STORE_SLOT_SIZE / XLV_SECTOR);
    size_t at = sector * XLV_SECTOR + xlv_get_u16(in) % XLV_SECTOR, length;
    const uint8_t *bytes;
    struct xlv_stamp stamp;

    switch (what >> 1 & 7) {
    case 0: /* bytes */
    case 1:
        bytes = piece(in, &length);
        if (bytes && length > XLV_STORE_SLOT_SIZE - at)
            length = XLV_STORE_SLOT_SIZE - at;
        if (bytes && length)
            memcpy(now[slot] + at, bytes, length);
        break;
    case 2: /* one bit */
        now[slot][at] ^= (uint8_t)(1u << (what >> 4 & 7));
        break;
    case 3: /* a sector of the other slot */
        memcpy(now[slot] + sector * XLV_SECTOR, image[!slot] + sector * XLV_SECTOR, XLV_SECTOR);
        break;
    case 4: /* a stamp that passes its check */
        stamp.generation = xlv_get_u64(in);
        stamp.attempt = xlv_get_u32(in);
        xlv_stamp_put(now[slot] + sector * XLV_SECTOR, &stamp);
        break;
    case 5: /* blank */
        xlv_sectors_blank(now[slot] + sector * XLV_SECTOR, XLV_SECTOR);
        break;
    case 6: /* cut short */
        size[slot] = at;
        break;
    case 7: /* all of it from somewhere else */
        bytes = rest(in, &length);
        if (bytes && length > XLV_STORE_SLOT_SIZE)
            length = XLV_STORE_SLOT_SIZE;
        memset(now[slot], 0, XLV_STORE_SLOT_SIZE);
        if (bytes && length)
            memcpy(now[slot], bytes, length);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t now[2][XLV_STORE_SLOT_SIZE], then[XLV_STORE_SLOT_SIZE];
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    size_t sizes[2] = { XLV_STORE_SLOT_SIZE, XLV_STORE_SLOT_SIZE }, length;
    uint8_t expected[8192], *state;
    struct xlv_store_report report[2];
    struct xlv_store *store;
    struct xlv_error e = XLV_ERROR_INIT;
    uint64_t generation, next;
    static int ready;
    int rc;

    if (!ready++)
        set_up();
    memcpy(now, image, sizeof(now));
    while (xlv_bytes_left(&in))
        patch(&in, now, sizes);
    for (unsigned i = 0; i < 2; i++)
        MUST(ftruncate(slots[i], 0) == 0 && xlv_pwrite_all(slots[i], now[i], sizes[i], 0) == 0);

    MUST(xlv_store_new(&store, slots, &uuid, key, NULL) == 0);
    MUST(xlv_store_inspect(store, report, NULL) == 0);
    rc = xlv_store_load(store, &state, &length, &generation, &e);
    MUST(rc >= 0);
    for (unsigned i = 0; i < 2; i++) {
        MUST(lseek(slots[i], 0, SEEK_END) == (off_t)sizes[i]);
        MUST(xlv_pread_all(slots[i], then, sizes[i], 0) == 0 && !memcmp(then, now[i], sizes[i]));
    }
    if (rc) {
        MUST(!state && (rc == XLV_E_EMPTY || e.text[0]));
    } else {
        MUST(generation == GENERATIONS || generation == GENERATIONS - 1);
        MUST(length == state_of(generation, expected) && !memcmp(state, expected, length));
        free(state);
        /* and on from there */
        length = state_of(1, expected);
        MUST(xlv_store_commit(store, expected, length, &next, NULL) == 0 && next == generation + 1);
        xlv_store_free(store);
        MUST(xlv_store_new(&store, slots, &uuid, key, NULL) == 0);
        MUST(xlv_store_load(store, &state, &length, &generation, &e) == 0 && generation == next);
        free(state);
    }
    xlv_store_free(store);
    return 0;
}
