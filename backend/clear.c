/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clearing a TPM: see clear.h. */
#include "config.h"

#include "backend/clear.h"

#include "backend/command.h"
#include "backend/engine.h"

static int send(const char *name, const uint8_t *request, size_t length, struct xlv_error *e)
{
    const uint8_t *response;
    size_t response_length;
    uint32_t code;
    int r = xlv_engine_execute(0, request, length, &response, &response_length, e);

    if (r)
        return r;
    code = xlv_response_code(response, response_length);
    return code ? xlv_fail(e, XLV_E_TPM, "the TPM answers %s with error 0x%x", name, code) : 0;
}

static int clear_2_0(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t length, response_length;
    int r = send("TPM2_Startup", out, xlv_command_startup(XLV_TPM_2_0, out), e);

    if (!r)
        r = send("TPM2_ClearControl", out, xlv_command_allow_clear(out), e);
    if (!r)
        r = send("TPM2_Clear", out, xlv_command_clear(out), e);
    /* else the next start counts as one after an attack, on a lockout that is just over */
    return r ? r : xlv_engine_shutdown(out, &length, &response, &response_length, e);
}

static int clear_1_2(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    int r = send("TPM_Startup", out, xlv_command_startup(XLV_TPM_1_2, out), e);

    if (!r)
        r = send("TSC_PhysicalPresence", out, xlv_command_presence(XLV_PRESENCE_PRESENT, out), e);
    if (!r)
        r = send("TPM_ForceClear", out, xlv_command_force_clear(out), e);
    if (!r)
        r = send("TPM_PhysicalEnable", out, xlv_command_physical_enable(out), e);
    return r ? r
             : send("TPM_PhysicalSetDeactivated", out, xlv_command_physical_activate(out), e);
}

int xlv_clear(enum xlv_tpm_version version, const uint8_t *permanent, size_t length,
              uint8_t **out, size_t *out_length, struct xlv_error *e)
{
    int r;

    *out = NULL;
    *out_length = 0;
    r = xlv_engine_load(version, permanent, length, NULL, 0, e);
    if (!r)
        r = version == XLV_TPM_2_0 ? clear_2_0(e) : clear_1_2(e);
    if (!r)
        r = xlv_engine_permanent(out, out_length, e);
    xlv_engine_off();
    return r;
}
