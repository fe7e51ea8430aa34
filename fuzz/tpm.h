/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whole commands through the engine into libtpms. Input: commands, u16 length, u8 locality, bytes.
 * The length field of a command is put right where the first byte of the locality says so (bit 7):
 * a fuzzer wastes its time on it otherwise.
 *
 * FUZZ_TPM 20: a TPM 2.0 that is the same at each input. 12: a TPM 1.2 takes too long to switch on,
 * so one lives through all inputs; a crash may need those before it.
 *
 * libtpms is not instrumented. What the fuzzer sees of it is which command gave which response code.
 */
#include <string.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "backend/manufacture.h"
#include "fuzz/fuzz.h"

#if FUZZ_TPM == 20
#define VERSION XLV_TPM_2_0
#else
#define VERSION XLV_TPM_1_2
#endif
#define COMMANDS_MAX 16

#ifdef FUZZING_ENGINE
/* libFuzzer counts these as coverage (its name of the section). */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[65536];
#else
static uint8_t counters[65536];
#endif

static uint8_t *permanent, *volatile_state;
static size_t permanent_length, volatile_length;

static void set_up(void)
{
    const struct xlv_manufacture how = { .version = VERSION, .banks = XLV_BANKS_ALL };
    struct xlv_error e = XLV_ERROR_INIT;

    MUST(xlv_manufacture(&how, &permanent, &permanent_length, &e) == 0);
    MUST(xlv_engine_load(VERSION, permanent, permanent_length, NULL, 0, &e) == 0);
    MUST(xlv_engine_startup(&e) == 0);
    xlv_engine_wipe(permanent, permanent_length);
    MUST(xlv_engine_permanent(&permanent, &permanent_length, &e) == 0);
    MUST(xlv_engine_volatile(&volatile_state, &volatile_length, &e) == 0);
    if (VERSION == XLV_TPM_2_0)
        xlv_engine_off();
}

static void execute(const uint8_t *bytes, size_t length, uint8_t how)
{
    uint8_t request[XLV_TPM_BUFFER_MAX];
    struct xlv_bytes size = xlv_bytes_writer(request + 2, 4);
    struct xlv_error e = XLV_ERROR_INIT;
    const uint8_t *response;
    size_t response_length;
    uint32_t code;

    if (length > sizeof(request))
        length = sizeof(request);
    if (length)
        memcpy(request, bytes, length);
    if (how & 0x80 && length >= 6)
        xlv_put_u32_be(&size, (uint32_t)length);
    if (xlv_engine_execute(how % (XLV_LOCALITY_MAX + 1), request, length, &response,
                           &response_length, &e))
        return;
    MUST(response_length >= XLV_TPM_HEADER_SIZE && response_length <= XLV_TPM_BUFFER_MAX);
    code = xlv_response_code(response, response_length);
    counters[(xlv_command_code(request, length) * 2654435761u ^ code * 40503u) >> 16] = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t *state;
    size_t length;

    if (!permanent)
        set_up();
    if (VERSION == XLV_TPM_2_0)
        MUST(xlv_engine_load(VERSION, permanent, permanent_length, volatile_state, volatile_length,
                             &e) == 0);
    for (unsigned i = 0; i < COMMANDS_MAX && xlv_bytes_left(&in); i++) {
        uint16_t wanted = xlv_get_u16(&in);
        uint8_t how = xlv_get_u8(&in);
        const uint8_t *bytes;

        length = wanted < xlv_bytes_left(&in) ? wanted : xlv_bytes_left(&in);
        bytes = xlv_get_view(&in, length);
        execute(bytes, length, how);
    }
    /* what a command did can always be taken, within the limits */
    if (!xlv_engine_volatile(&state, &length, &e)) {
        MUST(length <= XLV_VOLATILE_MAX);
        xlv_engine_wipe(state, length);
    }
    if (xlv_engine_changed() && !xlv_engine_permanent(&state, &length, &e)) {
        MUST(length <= XLV_PERMANENT_MAX);
        xlv_engine_wipe(state, length);
    }
    if (VERSION == XLV_TPM_2_0)
        xlv_engine_off();
    return 0;
}
