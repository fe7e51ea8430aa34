/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vtpm-probe: has the libtpms that vtpm-backend uses the flaws that were published for it? Tried,
 * not looked up: distributions mend without changing the version that the library tells. Each
 * probe has a process of its own, as what a flaw does is often its end. For `xl-vtpm doctor`, and
 * for the tests.
 *
 * Prints a line for each flaw: its name, a tab, "mended", "open" or "unknown", a tab, what was seen.
 * Exits with 0 where all are mended, with 1 where one is open, with 2 where it cannot tell.
 *
 * What no command can tell apart is told by the version, which is before 0.9 for all of it
 * (CVE-2021-3446, -3505, -3623, -3746); libxl-vtpm needs 0.9 at least.
 */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libtpms/tpm_library.h>
#include <libtpms/tpm_error.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "backend/manufacture.h"
#include "common/bytes.h"
#include "common/log.h"

enum verdict { MENDED, OPEN, UNKNOWN };

#define ST_NO_SESSIONS 0x8001u
#define ST_SESSIONS 0x8002u
#define RS_PW 0x40000009u
#define RH_OWNER 0x40000001u
#define RH_NULL 0x40000007u
#define ALG_AES 0x0006u
#define ALG_KEYEDHASH 0x0008u
#define ALG_SHA256 0x000bu
#define ALG_NULL 0x0010u
#define ALG_RSASSA 0x0014u
#define ALG_ECDSA 0x0018u
#define ALG_SYMCIPHER 0x0025u
#define ALG_CBC 0x0042u
#define ALG_CFB 0x0043u

/* A command, and behind it bytes that are not the TPM's to read or to write. */
struct exchange {
    uint8_t request[512];
    size_t length;
    struct xlv_bytes w;
    uint8_t *response; /* libtpms's memory; these processes are short */
    uint32_t response_length, room;
    uint32_t code;
};

#define BEHIND 0xffu

static void begin(struct exchange *x, uint16_t tag, uint32_t code)
{
    memset(x->request, BEHIND, sizeof(x->request));
    x->w = xlv_bytes_writer(x->request, sizeof(x->request));
    xlv_put_u16_be(&x->w, tag);
    xlv_put_u32_be(&x->w, 0);
    xlv_put_u32_be(&x->w, code);
}

static void authorize(struct exchange *x, uint32_t session, uint8_t attributes)
{
    xlv_put_u32_be(&x->w, 9);
    xlv_put_u32_be(&x->w, session);
    xlv_put_u16_be(&x->w, 0);
    xlv_put_u8(&x->w, attributes);
    xlv_put_u16_be(&x->w, 0);
}

/* Not by the engine, which copies a command: it would not be seen what happens behind it. */
static bool execute(struct exchange *x)
{
    struct xlv_bytes size = xlv_bytes_writer(x->request + 2, 4);

    x->length = x->w.at;
    x->response = NULL;
    x->room = 0;
    xlv_put_u32_be(&size, (uint32_t)x->length);
    if (!xlv_bytes_ok(&x->w) ||
        TPMLIB_Process(&x->response, &x->response_length, &x->room, x->request,
                       (uint32_t)x->length) != TPM_SUCCESS ||
        x->response_length < XLV_TPM_HEADER_SIZE)
        return false;
    x->code = xlv_response_code(x->response, x->response_length);
    return true;
}

/* The bytes behind the command are as they were. */
static bool intact(const struct exchange *x)
{
    for (size_t i = x->length; i < sizeof(x->request); i++)
        if (x->request[i] != BEHIND)
            return false;
    return true;
}

static uint32_t handle_of(const struct exchange *x)
{
    struct xlv_bytes r = xlv_bytes_reader(x->response + 10, x->response_length - 10);

    return xlv_get_u32_be(&r);
}

/* A session that decrypts the first parameter; its keys are empty, and so is its HMAC then. */
static uint32_t decrypting_session(struct exchange *x)
{
    begin(x, ST_NO_SESSIONS, 0x176); /* TPM2_StartAuthSession */
    xlv_put_u32_be(&x->w, RH_NULL);
    xlv_put_u32_be(&x->w, RH_NULL);
    xlv_put_u16_be(&x->w, 16);
    xlv_put_data(&x->w, "nonce of a probe", 16);
    xlv_put_u16_be(&x->w, 0);
    xlv_put_u8(&x->w, 0); /* TPM_SE_HMAC */
    xlv_put_u16_be(&x->w, ALG_AES);
    xlv_put_u16_be(&x->w, 128);
    xlv_put_u16_be(&x->w, ALG_CFB);
    xlv_put_u16_be(&x->w, ALG_SHA256);
    return execute(x) && !x->code ? handle_of(x) : 0;
}

/* A primary key of the given type, whose parameters the caller puts. */
static void begin_primary(struct exchange *x, uint16_t type, uint32_t attributes)
{
    begin(x, ST_SESSIONS, 0x131); /* TPM2_CreatePrimary */
    xlv_put_u32_be(&x->w, RH_OWNER);
    authorize(x, RS_PW, 0);
    xlv_put_u16_be(&x->w, 4);
    xlv_put_u32_be(&x->w, 0);
    xlv_put_u16_be(&x->w, type == ALG_SYMCIPHER ? 18 : 14); /* of the public area */
    xlv_put_u16_be(&x->w, type);
    xlv_put_u16_be(&x->w, ALG_SHA256);
    xlv_put_u32_be(&x->w, attributes);
    xlv_put_u16_be(&x->w, 0);
}

static uint32_t end_primary(struct exchange *x)
{
    xlv_put_u16_be(&x->w, 0); /* unique */
    xlv_put_u16_be(&x->w, 0); /* outsideInfo */
    xlv_put_u32_be(&x->w, 0); /* creationPCR */
    return execute(x) && !x->code ? handle_of(x) : 0;
}

/*
 * CryptParameterDecryption() read the size of a first parameter that is shorter than a size: a
 * command that ends before it. What it then reads are our 0xffff, and it finds them too large.
 */
static enum verdict parameter_read(char *seen, size_t room)
{
    struct exchange x;
    uint32_t session = decrypting_session(&x);

    if (!session)
        return UNKNOWN;
    begin(&x, ST_SESSIONS, 0x146); /* TPM2_StirRandom */
    authorize(&x, session, 0x21);  /* continueSession, decrypt */
    if (!execute(&x))
        return UNKNOWN;
    snprintf(seen, room, "a command without its encrypted parameter is answered with 0x%x", x.code);
    /* TPM_RC_INSUFFICIENT, of whichever parameter; TPM_RC_SIZE is that of what lies behind */
    return (x.code & 0xbf) == 0x9a ? MENDED : (x.code & 0xbf) == 0x95 ? OPEN : UNKNOWN;
}

/* The same function took the two bytes of the size for bytes of the parameter, and decrypted two
 * bytes behind the command. */
static enum verdict parameter_write(char *seen, size_t room)
{
    struct exchange x;
    uint32_t session = decrypting_session(&x);

    if (!session)
        return UNKNOWN;
    begin(&x, ST_SESSIONS, 0x146);
    authorize(&x, session, 0x21);
    xlv_put_u16_be(&x.w, 16);
    xlv_put_data(&x.w, "fourteen bytes", 14);
    if (!execute(&x))
        return UNKNOWN;
    snprintf(seen, room, "a parameter two bytes short is answered with 0x%x, and what lies behind "
             "it %s", x.code, intact(&x) ? "is as it was" : "was written to");
    return !intact(&x) ? OPEN : x.code ? MENDED : UNKNOWN;
}

/* A key that makes HMACs, told to sign with the scheme of an asymmetric one: the digest's length
 * was taken from where there is none, and libtpms stopped its process. */
static enum verdict scheme_of_another_key(char *seen, size_t room)
{
    static const uint16_t schemes[] = { ALG_RSASSA, ALG_ECDSA };
    struct exchange x;
    uint32_t key;

    begin_primary(&x, ALG_KEYEDHASH, 0x60472); /* fixed, its own, no DA, signs and decrypts */
    xlv_put_u16_be(&x.w, ALG_NULL);
    key = end_primary(&x);
    if (!key)
        return UNKNOWN;
    for (unsigned i = 0; i < 2; i++) {
        begin(&x, ST_SESSIONS, 0x15d); /* TPM2_Sign */
        xlv_put_u32_be(&x.w, key);
        authorize(&x, RS_PW, 0);
        xlv_put_u16_be(&x.w, 32);
        xlv_put_data(&x.w, "a digest, thirty-two bytes long.", 32);
        xlv_put_u16_be(&x.w, schemes[i]);
        xlv_put_u16_be(&x.w, ALG_SHA256);
        xlv_put_u16_be(&x.w, 0x8024); /* TPM_ST_HASHCHECK: an empty ticket */
        xlv_put_u32_be(&x.w, RH_NULL);
        xlv_put_u16_be(&x.w, 0);
        if (!execute(&x))
            return UNKNOWN;
        snprintf(seen, room, "an HMAC key that is to sign with RSASSA or ECDSA gives 0x%x", x.code);
        if (!x.code)
            return OPEN;
        if ((x.code & 0xbf) != 0x92) /* TPM_RC_SCHEME */
            return UNKNOWN;
    }
    return MENDED;
}

/* With OpenSSL 3 the IV to go on with was the one to begin with. */
static enum verdict iv_to_go_on_with(char *seen, size_t room)
{
    struct exchange x;
    uint32_t key;
    struct xlv_bytes r;
    const uint8_t *out, *iv;

    begin_primary(&x, ALG_SYMCIPHER, 0x60472);
    xlv_put_u16_be(&x.w, ALG_AES);
    xlv_put_u16_be(&x.w, 128);
    xlv_put_u16_be(&x.w, ALG_CBC);
    key = end_primary(&x);
    if (!key)
        return UNKNOWN;
    begin(&x, ST_SESSIONS, 0x193); /* TPM2_EncryptDecrypt2 */
    xlv_put_u32_be(&x.w, key);
    authorize(&x, RS_PW, 0);
    xlv_put_u16_be(&x.w, 32);
    xlv_put_data(&x.w, "two blocks of 16 bytes, in clear", 32);
    xlv_put_u8(&x.w, 0); /* encrypt */
    xlv_put_u16_be(&x.w, ALG_CBC);
    xlv_put_u16_be(&x.w, 16);
    xlv_put_data(&x.w, "an IV to begin..", 16);
    if (!execute(&x) || x.code)
        return UNKNOWN;
    r = xlv_bytes_reader(x.response, x.response_length);
    (void)xlv_get_view(&r, 10 + 4 + 2);
    out = xlv_get_view(&r, 32);
    (void)xlv_get_view(&r, 2);
    iv = xlv_get_view(&r, 16);
    if (!out || !iv)
        return UNKNOWN;
    snprintf(seen, room, "after CBC the IV is %s", memcmp(iv, out + 16, 16)
             ? "not the last block" : "the last block");
    return memcmp(iv, out + 16, 16) ? OPEN : MENDED;
}

static const struct {
    const char *name;
    enum verdict (*probe)(char *seen, size_t room);
} probes[] = {
    { "CVE-2023-1017", parameter_write },
    { "CVE-2023-1018", parameter_read },
    { "CVE-2025-49133", scheme_of_another_key }, /* libtpms's part of CVE-2025-2884 */
    { "CVE-2026-21444", iv_to_go_on_with },      /* and CVE-2021-3446, the same before 0.8.2 */
};
static const char *const words[] = { "mended", "open", "unknown" };

#define PATIENCE_S 20

static enum verdict run(size_t i)
{
    char seen[160] = "the commands that it takes are not there";
    enum verdict verdict;
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        (void)alarm(PATIENCE_S); /* a flaw may be an endless loop as well */
        verdict = probes[i].probe(seen, sizeof(seen));
        printf("%s\t%s\t%s\n", probes[i].name, words[verdict], seen);
        fflush(stdout);
        _exit((int)verdict);
    }
    if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
        WEXITSTATUS(status) <= UNKNOWN)
        return (enum verdict)WEXITSTATUS(status);
    verdict = pid > 0 ? OPEN : UNKNOWN;
    if (pid > 0 && WIFSIGNALED(status))
        snprintf(seen, sizeof(seen), "it ends the process (%s)", strsignal(WTERMSIG(status)));
    printf("%s\t%s\t%s\n", probes[i].name, words[verdict], seen);
    return verdict;
}

int main(void)
{
    const struct xlv_manufacture how = { .version = XLV_TPM_2_0, .banks = XLV_BANK_SHA256 };
    const struct rlimit none = { 0, 0 };
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t *permanent = NULL;
    size_t length = 0;
    bool open = false, unknown = false;
    int r;

    (void)setrlimit(RLIMIT_CORE, &none);
    (void)alarm(PATIENCE_S);
    r = xlv_manufacture(&how, &permanent, &length, &e);
    if (!r)
        r = xlv_engine_load(XLV_TPM_2_0, permanent, length, NULL, 0, &e);
    if (!r)
        r = xlv_engine_startup(&e);
    (void)alarm(0); /* no child has it */
    if (r) {
        fprintf(stderr, "vtpm-probe: %s\n", e.text[0] ? e.text : xlv_strerror(r));
        return 2;
    }
    for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++) {
        enum verdict verdict = run(i);

        open |= verdict == OPEN;
        unknown |= verdict == UNKNOWN;
    }
    xlv_engine_off();
    xlv_engine_wipe(permanent, length);
    return open ? 1 : unknown ? 2 : 0;
}
