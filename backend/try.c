/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trying a state: see try.h. */
#include "config.h"

#include "backend/try.h"

#include "backend/command.h"
#include "backend/engine.h"

static int send(const uint8_t *request, size_t length, uint32_t *code, struct xlv_error *e)
{
    const uint8_t *response;
    size_t response_length;
    int r = xlv_engine_execute(0, request, length, &response, &response_length, e);

    if (!r)
        *code = xlv_response_code(response, response_length);
    return r;
}

/* Switched on for the command alone; where presence is settled for a lifetime, it is refused. */
static int enable_presence(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    uint32_t code = 0;
    int r = send(out, xlv_command_startup(XLV_TPM_1_2, out), &code, e);

    if (!r && code)
        r = xlv_fail(e, XLV_E_TPM, "the TPM 1.2 answers TPM_Startup with error 0x%x", code);
    if (!r)
        r = send(out, xlv_command_presence(XLV_PRESENCE_CMD_ENABLE, out), &code, e);
    if (!r && code && code != XLV_TPM12_BAD_PARAMETER)
        r = xlv_fail(e, XLV_E_TPM, "the TPM 1.2 answers TSC_PhysicalPresence with error 0x%x",
                     code);
    return r;
}

static int take(uint8_t **out, size_t *length, struct xlv_error *e)
{
    xlv_engine_wipe(*out, *length);
    return xlv_engine_permanent(out, length, e);
}

int xlv_try(enum xlv_tpm_version version, const uint8_t *permanent, size_t length, uint8_t **out,
            size_t *out_length, struct xlv_error *e)
{
    int r;

    *out = NULL;
    *out_length = 0;
    r = xlv_engine_load(version, permanent, length, NULL, 0, e);
    if (!r && version == XLV_TPM_1_2) {
        r = enable_presence(e);
        if (!r)
            r = take(out, out_length, e);
        xlv_engine_off();
        if (!r)
            r = xlv_engine_load(version, *out, *out_length, NULL, 0, e);
    }
    if (!r)
        r = take(out, out_length, e);
    if (!r)
        r = xlv_engine_startup(e);
    xlv_engine_off();
    if (r) {
        xlv_engine_wipe(*out, *out_length);
        *out = NULL;
        *out_length = 0;
    }
    return r;
}
