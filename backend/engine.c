/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine: see engine.h.
 *
 * How libtpms is kept from ever making a TPM of its own accord: it does so
 * when its load callback says that there is no state (TPM_RETRY). The callback
 * says so only within xlv_engine_create(); at all other times a state that is
 * not there is an error. (TPM 1.2's "savestate" and the volatile state may be
 * missing at any time; no TPM is made because of them.)
 */
#include "config.h"

#include "backend/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <libtpms/tpm_nvfilename.h>

#include "backend/command.h"

#define STIR_BYTES 32u

struct blob {
    uint8_t *data;
    size_t length;
};

static struct {
    bool on, creating, changed;
    enum xlv_tpm_version version;
    uint8_t locality;
    struct blob permall, savestate;
    uint8_t request[XLV_TPM_BUFFER_MAX]; /* libtpms wants a writable one */
    unsigned char *response;
    uint32_t response_size;
} engine;

void xlv_engine_wipe(uint8_t *data, size_t length)
{
    if (data)
        explicit_bzero(data, length);
    free(data);
}

static void blob_clear(struct blob *blob)
{
    xlv_engine_wipe(blob->data, blob->length);
    *blob = (struct blob){ 0 };
}

static int blob_set(struct blob *blob, const uint8_t *data, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, length);
    blob_clear(blob);
    *blob = (struct blob){ .data = copy, .length = length };
    return 0;
}

static const char *version_name(enum xlv_tpm_version version)
{
    return version == XLV_TPM_2_0 ? "2.0" : "1.2";
}

/* --- callbacks of libtpms ------------------------------------------------ */

static TPM_RESULT on_nvram_init(void)
{
    return TPM_SUCCESS;
}

static TPM_RESULT on_load(unsigned char **data, uint32_t *length, uint32_t tpm_number,
                          const char *name)
{
    const struct blob *blob = NULL;
    bool optional = true;

    (void)tpm_number;
    *data = NULL;
    *length = 0;
    if (!strcmp(name, TPM_PERMANENT_ALL_NAME)) {
        blob = &engine.permall;
        optional = engine.creating;
    } else if (!strcmp(name, TPM_SAVESTATE_NAME)) {
        blob = &engine.savestate;
    }
    if (!blob || !blob->data)
        return optional ? TPM_RETRY : TPM_FAIL;
    *data = malloc(blob->length);
    if (!*data)
        return TPM_FAIL;
    memcpy(*data, blob->data, blob->length);
    *length = (uint32_t)blob->length;
    return TPM_SUCCESS;
}

static TPM_RESULT on_store(const unsigned char *data, uint32_t length, uint32_t tpm_number,
                           const char *name)
{
    struct blob *blob;

    (void)tpm_number;
    if (!strcmp(name, TPM_PERMANENT_ALL_NAME))
        blob = &engine.permall;
    else if (!strcmp(name, TPM_SAVESTATE_NAME))
        blob = &engine.savestate;
    else
        return TPM_SUCCESS; /* the volatile state is taken after each command anyway */
    if (blob_set(blob, data, length))
        return TPM_FAIL;
    engine.changed = true;
    return TPM_SUCCESS;
}

static TPM_RESULT on_delete(uint32_t tpm_number, const char *name, TPM_BOOL must_exist)
{
    (void)tpm_number;
    if (!strcmp(name, TPM_SAVESTATE_NAME) && engine.savestate.data) {
        blob_clear(&engine.savestate);
        engine.changed = true;
        return TPM_SUCCESS;
    }
    /* permanent state is not libtpms's to delete */
    return must_exist || !strcmp(name, TPM_PERMANENT_ALL_NAME) ? TPM_FAIL : TPM_SUCCESS;
}

static TPM_RESULT on_io_init(void)
{
    return TPM_SUCCESS;
}

static TPM_RESULT on_locality(TPM_MODIFIER_INDICATOR *locality, uint32_t tpm_number)
{
    (void)tpm_number;
    *locality = engine.locality;
    return TPM_SUCCESS;
}

/* No guest has a hand at the machine; TPM 1.2's presence by command is used
 * before the guest runs, and locked. */
static TPM_RESULT on_presence(TPM_BOOL *present, uint32_t tpm_number)
{
    (void)tpm_number;
    *present = FALSE;
    return TPM_SUCCESS;
}

static int prepare(enum xlv_tpm_version version, struct xlv_error *e)
{
    static struct libtpms_callbacks callbacks = {
        .sizeOfStruct = sizeof(callbacks),
        .tpm_nvram_init = on_nvram_init,
        .tpm_nvram_loaddata = on_load,
        .tpm_nvram_storedata = on_store,
        .tpm_nvram_deletename = on_delete,
        .tpm_io_init = on_io_init,
        .tpm_io_getlocality = on_locality,
        .tpm_io_getphysicalpresence = on_presence,
    };

    if (engine.on)
        return xlv_fail(e, -EBUSY, "the TPM is switched on already");
    if (version != XLV_TPM_1_2 && version != XLV_TPM_2_0)
        return xlv_fail(e, XLV_E_INVALID, "there is no TPM version %d", (int)version);
    TPMLIB_SetDebugLevel(0);
    /* Choosing another version is what makes libtpms forget a state that was
     * set and not used. (Setting NULL does not: that means "there is none",
     * which is how MainInit comes to make a new TPM.) */
    (void)TPMLIB_ChooseTPMVersion(version == XLV_TPM_2_0 ? TPMLIB_TPM_VERSION_1_2
                                                         : TPMLIB_TPM_VERSION_2);
    if (TPMLIB_RegisterCallbacks(&callbacks) != TPM_SUCCESS ||
        TPMLIB_ChooseTPMVersion(version == XLV_TPM_2_0 ? TPMLIB_TPM_VERSION_2
                                                       : TPMLIB_TPM_VERSION_1_2) != TPM_SUCCESS)
        return xlv_fail(e, XLV_E_TPM, "this libtpms cannot emulate a TPM %s",
                        version_name(version));
    (void)TPMLIB_SetBufferSize(XLV_TPM_BUFFER_MAX, NULL, NULL);
    if (!engine.response) {
        engine.response = malloc(XLV_TPM_BUFFER_MAX);
        if (!engine.response)
            return -ENOMEM;
        engine.response_size = XLV_TPM_BUFFER_MAX;
    }
    engine.version = version;
    engine.locality = 0;
    engine.changed = false;
    return 0;
}

static int power_on(struct xlv_error *e)
{
    TPM_RESULT result = TPMLIB_MainInit();

    if (result != TPM_SUCCESS) {
        TPMLIB_Terminate();
        return xlv_fail(e, XLV_E_TPM, "the TPM %s does not start (libtpms error 0x%x)",
                        version_name(engine.version), (unsigned)result);
    }
    engine.on = true;
    return 0;
}

int xlv_engine_create(enum xlv_tpm_version version, struct xlv_error *e)
{
    int r = prepare(version, e);

    if (r)
        return r;
    blob_clear(&engine.permall);
    blob_clear(&engine.savestate);
    engine.creating = true;
    r = power_on(e);
    engine.creating = false;
    if (!r && !engine.permall.data) {
        xlv_engine_off();
        r = xlv_fail(e, XLV_E_TPM, "libtpms made a TPM %s but stored nothing",
                     version_name(version));
    }
    return r;
}

static int unpack(enum xlv_tpm_version version, const uint8_t *data, size_t length,
                  struct xlv_error *e)
{
    struct xlv_container c;
    int r = xlv_container_read(data, length, &c, e);

    if (r)
        return r;
    if (c.version != version)
        return xlv_fail(e, XLV_E_WRONG_OWNER, "the permanent state is of a TPM %s, but a TPM %s "
                        "was asked for", version_name(c.version), version_name(version));
    r = blob_set(&engine.permall, c.permall, c.permall_length);
    return r || !c.savestate ? r : blob_set(&engine.savestate, c.savestate, c.savestate_length);
}

int xlv_engine_load(enum xlv_tpm_version version, const uint8_t *permanent,
                    size_t permanent_length, const uint8_t *volatile_state,
                    size_t volatile_length, struct xlv_error *e)
{
    TPM_RESULT result;
    int r = prepare(version, e);

    if (r)
        return r;
    blob_clear(&engine.permall);
    blob_clear(&engine.savestate);
    r = unpack(version, permanent, permanent_length, e);
    if (r)
        goto out;
    /* SetState tries a blob before it takes it. The permanent one comes first:
     * the volatile one is tried on top of it. */
    result = TPMLIB_SetState(TPMLIB_STATE_PERMANENT, engine.permall.data,
                             (uint32_t)engine.permall.length);
    if (result != TPM_SUCCESS) {
        r = xlv_fail(e, XLV_E_CORRUPT, "the TPM %s refuses its permanent state (libtpms error "
                     "0x%x): it is damaged, or of a newer libtpms; nothing was changed",
                     version_name(version), (unsigned)result);
        goto out;
    }
    if (volatile_state) {
        result = TPMLIB_SetState(TPMLIB_STATE_VOLATILE, volatile_state, (uint32_t)volatile_length);
        if (result != TPM_SUCCESS) {
            r = xlv_fail(e, XLV_E_CORRUPT, "the TPM %s refuses its volatile state (libtpms error "
                         "0x%x)", version_name(version), (unsigned)result);
            goto out;
        }
    }
    r = power_on(e);
    /* MainInit stores what it was just given once more: no change */
    engine.changed = false;
    if (r == XLV_E_TPM)
        r = XLV_E_CORRUPT;
out:
    if (r) {
        blob_clear(&engine.permall);
        blob_clear(&engine.savestate);
    }
    return r;
}

void xlv_engine_off(void)
{
    if (engine.on)
        TPMLIB_Terminate();
    engine.on = false;
    engine.changed = false;
    blob_clear(&engine.permall);
    blob_clear(&engine.savestate);
    explicit_bzero(engine.request, sizeof(engine.request));
    if (engine.response)
        explicit_bzero(engine.response, engine.response_size);
    free(engine.response);
    engine.response = NULL;
    engine.response_size = 0;
}

int xlv_engine_execute(uint8_t locality, const uint8_t *request, size_t request_length,
                       const uint8_t **response, size_t *response_length, struct xlv_error *e)
{
    uint32_t length = 0;
    TPM_RESULT result;

    *response = NULL;
    *response_length = 0;
    if (!engine.on)
        return xlv_fail(e, -ENODEV, "the TPM is switched off");
    if (request_length > sizeof(engine.request))
        return xlv_fail(e, -EMSGSIZE, "a TPM command of %zu bytes", request_length);
    memcpy(engine.request, request, request_length);
    engine.locality = locality;
    result = TPMLIB_Process(&engine.response, &length, &engine.response_size, engine.request,
                            (uint32_t)request_length);
    engine.locality = 0;
    if (result != TPM_SUCCESS)
        return xlv_fail(e, XLV_E_TPM, "command 0x%x made libtpms fail (error 0x%x)",
                        xlv_command_code(request, request_length), (unsigned)result);
    if (length < XLV_TPM_HEADER_SIZE || length > XLV_TPM_BUFFER_MAX)
        return xlv_fail(e, XLV_E_TPM, "command 0x%x made libtpms answer with %u bytes",
                        xlv_command_code(request, request_length), (unsigned)length);
    *response = engine.response;
    *response_length = length;
    return 0;
}

void xlv_engine_cancel(void)
{
    /* libtpms 2.0: _plat__SetCancel(), an assignment. libtpms 1.2 has no
     * cancel: it answers TPM_FAIL and goes on. */
    (void)TPMLIB_CancelCommand();
}

bool xlv_engine_changed(void)
{
    return engine.changed;
}

int xlv_engine_permanent(uint8_t **data, size_t *length, struct xlv_error *e)
{
    const struct xlv_container c = {
        .version = engine.version,
        .permall = engine.permall.data, .permall_length = engine.permall.length,
        .savestate = engine.savestate.data, .savestate_length = engine.savestate.length,
    };
    int r;

    *data = NULL;
    *length = 0;
    if (!engine.on || !engine.permall.data)
        return xlv_fail(e, -ENODEV, "the TPM is switched off");
    r = xlv_container_write(&c, data, length, e);
    if (!r)
        engine.changed = false;
    return r;
}

int xlv_engine_volatile(uint8_t **data, size_t *length, struct xlv_error *e)
{
    unsigned char *bytes = NULL;
    uint32_t size = 0;
    TPM_RESULT result;

    *data = NULL;
    *length = 0;
    if (!engine.on)
        return xlv_fail(e, -ENODEV, "the TPM is switched off");
    result = TPMLIB_GetState(TPMLIB_STATE_VOLATILE, &bytes, &size);
    if (result != TPM_SUCCESS || !bytes || size > XLV_VOLATILE_MAX) {
        free(bytes);
        return xlv_fail(e, XLV_E_TPM, "the TPM's volatile state cannot be taken (libtpms error "
                        "0x%x, %u bytes)", (unsigned)result, (unsigned)size);
    }
    /* A copy, as libtpms's buffer has room for the largest state there is: 170 KiB for 10. */
    *data = malloc(size ? size : 1);
    if (*data) {
        memcpy(*data, bytes, size);
        *length = size;
    }
    explicit_bzero(bytes, size);
    free(bytes);
    return *data ? 0 : xlv_fail(e, -ENOMEM, "no memory for the TPM's volatile state");
}

int xlv_engine_command(const char *name, const uint8_t *request, size_t length, uint32_t may,
                       struct xlv_error *e)
{
    const uint8_t *response;
    size_t response_length;
    uint32_t code;
    int r = xlv_engine_execute(0, request, length, &response, &response_length, e);

    if (r)
        return r;
    code = xlv_response_code(response, response_length);
    if (code && code != may)
        return xlv_fail(e, XLV_E_TPM, "the TPM %s answers %s with error 0x%x",
                        version_name(engine.version), name, code);
    return 0;
}

int xlv_engine_startup(struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    int r = xlv_engine_command("TPM_Startup", out, xlv_command_startup(engine.version, out), 0, e);

    if (r || engine.version == XLV_TPM_2_0)
        return r;
    /*
     * Until the next startup nobody in the guest can pretend to stand before the machine. A TPM
     * refuses that where presence by command is disabled for its lifetime, which is as good;
     * where it is disabled and no more, it was enabled when the TPM was made, or came (try.h).
     */
    return xlv_engine_command("TSC_PhysicalPresence", out,
                              xlv_command_presence(XLV_PRESENCE_LOCK | XLV_PRESENCE_NOT_PRESENT,
                                                   out), XLV_TPM12_BAD_PARAMETER, e);
}

int xlv_engine_banks(unsigned *banks, struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t length;
    int r;

    *banks = XLV_BANK_SHA1;
    if (engine.version != XLV_TPM_2_0)
        return 0;
    r = xlv_engine_execute(0, out, xlv_command_get_banks(out), &response, &length, e);
    if (!r)
        r = xlv_response_banks(response, length, banks);
    return r ? xlv_fail(e, r, "the TPM 2.0 does not tell its PCR banks, or has one that is not "
                        "known here") : 0;
}

int xlv_engine_extend(uint32_t pcr, const struct xlv_digests *digests, struct xlv_error *e)
{
    uint8_t out[XLV_COMMAND_MAX];

    return xlv_engine_command("an extend", out,
                              xlv_command_extend(engine.version, pcr, digests, out), 0, e);
}

int xlv_engine_shutdown(uint8_t *request, size_t *request_length, const uint8_t **response,
                        size_t *response_length, struct xlv_error *e)
{
    uint32_t code;
    int r;

    *request_length = *response_length = 0;
    *response = NULL;
    if (engine.version != XLV_TPM_2_0)
        return 0;
    *request_length = xlv_command_shutdown(request);
    r = xlv_engine_execute(0, request, *request_length, response, response_length, e);
    if (r)
        return r;
    code = xlv_response_code(*response, *response_length);
    return code ? xlv_fail(e, XLV_E_TPM, "the TPM 2.0 answers TPM2_Shutdown with error 0x%x", code)
                : 0;
}

int xlv_engine_stir(struct xlv_error *e)
{
    uint8_t entropy[STIR_BYTES], out[XLV_COMMAND_MAX];
    ssize_t n;
    int r;

    if (engine.version != XLV_TPM_2_0)
        return 0;
    do
        n = getrandom(entropy, sizeof(entropy), 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(entropy))
        return xlv_fail(e, n < 0 ? -errno : -EIO, "the host gives no random bytes");
    r = xlv_engine_command("TPM2_StirRandom", out,
                           xlv_command_stir(entropy, sizeof(entropy), out), 0, e);
    explicit_bzero(entropy, sizeof(entropy));
    explicit_bzero(out, sizeof(out));
    return r;
}

int xlv_engine_audits(bool *audits, struct xlv_error *e)
{
    uint8_t request[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t length;
    int r = xlv_engine_execute(0, request, xlv_command_get_audited(request), &response, &length,
                               e);

    *audits = r || xlv_response_audits(response, length);
    return r;
}
