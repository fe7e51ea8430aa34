/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clearing a TPM: see clear.h. */
#include "config.h"

#include "backend/clear.h"

#include "backend/command.h"
#include "backend/engine.h"

static int clear_2_0(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t length, response_length;
    int r = xlv_engine_command("TPM2_Startup", out, xlv_command_startup(XLV_TPM_2_0, out), 0, e);

    if (!r)
        r = xlv_engine_command("TPM2_ClearControl", out, xlv_command_allow_clear(out), 0, e);
    if (!r)
        r = xlv_engine_command("TPM2_Clear", out, xlv_command_clear(out), 0, e);
    /* else the next start counts as one after an attack, on a lockout that is just over */
    return r ? r : xlv_engine_shutdown(out, &length, &response, &response_length, e);
}

static int clear_1_2(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    int r = xlv_engine_command("TPM_Startup", out, xlv_command_startup(XLV_TPM_1_2, out), 0, e);

    if (!r)
        r = xlv_engine_command("TSC_PhysicalPresence", out,
                               xlv_command_presence(XLV_PRESENCE_PRESENT, out), 0, e);
    if (!r)
        r = xlv_engine_command("TPM_ForceClear", out, xlv_command_force_clear(out), 0, e);
    if (!r)
        r = xlv_engine_command("TPM_PhysicalEnable", out, xlv_command_physical_enable(out), 0, e);
    return r ? r : xlv_engine_command("TPM_PhysicalSetDeactivated", out,
                                      xlv_command_physical_activate(out), 0, e);
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
