/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trying a state: see try.h. */
#include "config.h"

#include "backend/try.h"

#include "backend/command.h"
#include "backend/engine.h"

/* Switched on for the command alone; where presence is settled for a lifetime, it is refused. */
static int enable_presence(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    int r = xlv_engine_command("TPM_Startup", out, xlv_command_startup(XLV_TPM_1_2, out), 0, e);

    return r ? r : xlv_engine_command("TSC_PhysicalPresence", out,
                                      xlv_command_presence(XLV_PRESENCE_CMD_ENABLE, out),
                                      XLV_TPM12_BAD_PARAMETER, e);
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
