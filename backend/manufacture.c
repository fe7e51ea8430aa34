/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Manufacture: see manufacture.h. */
#include "config.h"

#include "backend/manufacture.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "backend/command.h"
#include "backend/engine.h"

static int send(const char *name, const uint8_t *request, size_t length, struct xlv_error *e)
{
    const uint8_t *response;
    size_t response_length;
    int r = xlv_engine_execute(0, request, length, &response, &response_length, e);
    uint32_t code;

    if (r)
        return r;
    code = xlv_response_code(response, response_length);
    return code ? xlv_fail(e, XLV_E_TPM, "the new TPM answers %s with error 0x%x", name, code) : 0;
}

/*
 * TPM Main Part 3: a TPM comes disabled and deactivated (5.2 and 5.3 of it are
 * for firmware with physical presence), and PhysicalSetDeactivated takes
 * effect at the next startup. Physical presence by command is switched on,
 * used, and locked again at every startup of the guest (engine.h).
 */
static int equip_1_2(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX], nonce[20];
    int r;

    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        return xlv_fail(e, -EIO, "the host gives no random bytes");
    r = send("TPM_Startup", out, xlv_command_startup(XLV_TPM_1_2, out), e);
    if (!r)
        r = send("TSC_PhysicalPresence(enable)", out,
                 xlv_command_presence(XLV_PRESENCE_CMD_ENABLE, out), e);
    if (!r)
        r = send("TSC_PhysicalPresence(present)", out,
                 xlv_command_presence(XLV_PRESENCE_PRESENT, out), e);
    if (!r)
        r = send("TPM_PhysicalEnable", out, xlv_command_physical_enable(out), e);
    if (!r)
        r = send("TPM_PhysicalSetDeactivated", out, xlv_command_physical_activate(out), e);
    if (!r)
        r = send("TPM_CreateEndorsementKeyPair", out, xlv_command_create_ek(nonce, out), e);
    /* the last step: until it NV ignores authorizations, which is how a maker
     * stores certificates and how no guest should ever find it */
    if (!r)
        r = send("TPM_NV_DefineSpace(lock)", out, xlv_command_nv_lock(out), e);
    return r;
}

int xlv_manufacture(enum xlv_tpm_version version, uint8_t **permanent, size_t *length,
                    struct xlv_error *e)
{
    int r;

    *permanent = NULL;
    *length = 0;
    r = xlv_engine_create(version, e);
    if (r)
        return r;
    if (version == XLV_TPM_1_2)
        r = equip_1_2(e);
    if (!r)
        r = xlv_engine_permanent(permanent, length, e);
    xlv_engine_off();
    return r;
}
