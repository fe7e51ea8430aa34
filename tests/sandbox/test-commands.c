/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All kinds of TPM commands inside the sandbox, so that a system call that a
 * library begins to make is found here and not by a user: the TPM, store and
 * journal of vtpm-backend, in a process that entered the sandbox before it made
 * the TPM. A forbidden call ends it and is named in the test's failure.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/cancel.h"
#include "backend/command.h"
#include "backend/engine.h"
#include "backend/journal.h"
#include "backend/manufacture.h"
#include "backend/ring.h"
#include "backend/sandbox.h"
#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"
#include "tests/unit/tpm.h"

static const struct xlv_manufacture how_2_0 = { .version = XLV_TPM_2_0, .banks = XLV_BANK_SHA256 };
static const struct xlv_manufacture how_1_2 = { .version = XLV_TPM_1_2 };

#define SOMEBODY 2013265921u

/* --- inside ------------------------------------------------------------------ */

static int told;
static struct xlv_store *store;
static struct xlv_journal *journal;
static uint64_t sequence;
static enum xlv_tpm_version version;

static void say(const char *text)
{
    (void)xlv_write_all(told, text, strlen(text));
}

#define INSIDE(condition)                                             \
    do {                                                              \
        if (!(condition)) {                                           \
            say(#condition " does not hold; ");                       \
            _exit(1);                                                 \
        }                                                             \
    } while (0)

struct answer {
    uint8_t b[4096];
    size_t n;
    uint32_t code;
};

/* A command as the session executes one: journal and store as well. */
static void run(struct answer *a, struct cmd c)
{
    struct xlv_journal_record record = {
        .sequence = ++sequence, .outcome = XLV_JOURNAL_FINISH,
        .ring = { .domid = 5, .ring_ref = 8, .event_channel = 9 },
        .request = c.b, .request_length = (uint32_t)c.n,
    };
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t *permanent = NULL, *volatile_state = NULL;
    const uint8_t *response;
    size_t permanent_length = 0, volatile_length = 0;
    uint64_t generation = 1;

    INSIDE(xlv_engine_execute(0, c.b, c.n, &response, &a->n, &e) == 0);
    memcpy(a->b, response, a->n);
    a->code = xlv_response_code(a->b, a->n);
    if (xlv_engine_changed())
        INSIDE(xlv_engine_permanent(&permanent, &permanent_length, &e) == 0);
    INSIDE(xlv_engine_volatile(&volatile_state, &volatile_length, &e) == 0);
    record.generation = generation;
    record.response = a->b;
    record.response_length = (uint32_t)a->n;
    record.volatile_state = volatile_state;
    record.volatile_length = (uint32_t)volatile_length;
    record.permanent = permanent;
    record.permanent_length = (uint32_t)permanent_length;
    INSIDE(xlv_journal_append(journal, &record, &e) == 0);
    if (permanent)
        INSIDE(xlv_store_commit(store, permanent, permanent_length, &generation, &e) == 0);
    xlv_journal_mark(journal, sequence);
    xlv_engine_wipe(permanent, permanent_length);
    xlv_engine_wipe(volatile_state, volatile_length);
}

static void good(struct answer *a, struct cmd c)
{
    run(a, c);
    if (a->code == 0x922) /* TPM_RC_RETRY */
        run(a, c);
    if (a->code) {
        char text[64];

        snprintf(text, sizeof(text), "command 0x%x answers 0x%x: ", get32(c.b + 6), a->code);
        say(text);
    }
    INSIDE(!a->code);
}

/* A new TPM, made, stored, given another identity, switched on, as manufacture and serve do. */
static void make(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_journal_record record;
    uint8_t *state = NULL;
    size_t length = 0;
    uint64_t generation;

    INSIDE(xlv_journal_load(journal, &record, &e) == XLV_E_EMPTY);
    INSIDE(xlv_store_load(store, &state, &length, &generation, &e) == XLV_E_EMPTY);
    INSIDE(xlv_manufacture(version == XLV_TPM_2_0 ? &how_2_0 : &how_1_2, &state, &length, &e) == 0);
    INSIDE(xlv_store_commit(store, state, length, &generation, &e) == 0);
    if (version == XLV_TPM_2_0) {
        uint8_t *renewed = NULL;
        size_t renewed_length = 0;

        INSIDE(xlv_renew(&how_2_0, state, length, &renewed, &renewed_length, &e) == 0);
        INSIDE(xlv_store_commit(store, renewed, renewed_length, &generation, &e) == 0);
        xlv_engine_wipe(renewed, renewed_length);
    }
    xlv_engine_wipe(state, length);
    INSIDE(xlv_store_load(store, &state, &length, &generation, &e) == 0);
    INSIDE(xlv_engine_load(version, state, length, NULL, 0, &e) == 0);
    INSIDE(xlv_engine_startup(&e) == 0);
    xlv_engine_wipe(state, length);
}

static struct cmd plain(uint32_t code, const void *parameters, size_t length)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8001, code);

    xlv_put_data(&w, parameters, length);
    cmd_end(&c, &w);
    return c;
}

static struct cmd with_auth(uint32_t code, uint32_t handle, const void *parameters, size_t length)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, code);

    xlv_put_u32_be(&w, handle);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_data(&w, parameters, length);
    cmd_end(&c, &w);
    return c;
}

/* A digest of zeros, with the scheme, and no ticket. */
static struct cmd sign(uint32_t key, uint16_t scheme)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x15d);
    uint8_t digest[32] = { 0 };

    xlv_put_u32_be(&w, key);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, sizeof(digest));
    xlv_put_data(&w, digest, sizeof(digest));
    xlv_put_u16_be(&w, scheme);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u16_be(&w, 0x8024); /* TPM_ST_HASHCHECK */
    xlv_put_u32_be(&w, TPM2_RH_NULL);
    xlv_put_u16_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

/* A storage key, as SRKs are, or an HMAC key under it. */
static struct cmd create(uint32_t code, uint32_t parent, const uint8_t *public, uint16_t length)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, code);

    xlv_put_u32_be(&w, parent);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 4);
    xlv_put_u32_be(&w, 0);
    xlv_put_u16_be(&w, length);
    xlv_put_data(&w, public, length);
    xlv_put_u16_be(&w, 0);
    xlv_put_u32_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

/* RSA 2048, restricted, decrypt, AES 128 CFB */
static const uint8_t storage_key[] = "\x00\x01\x00\x0b\x00\x03\x04\x72\x00\x00\x00\x06\x00\x80\x00"
                                     "\x43\x00\x10\x08\x00\x00\x00\x00\x00\x00\x00";
/* KEYEDHASH, sign, HMAC SHA-256 */
static const uint8_t hmac_key[] = "\x00\x08\x00\x0b\x00\x04\x04\x72\x00\x00\x00\x05\x00\x0b\x00\x00";

static void keys_and_signatures(void)
{
    struct answer a;
    uint32_t ecc, rsa, storage;

    good(&a, plain(0x143, "\x01", 1)); /* SelfTest, full */
    good(&a, plain(0x17c, NULL, 0));   /* GetTestResult */
    good(&a, tpm2_get_random(48));
    good(&a, tpm2_create_primary_ecc());
    ecc = get32(a.b + 10);
    good(&a, sign(ecc, 0x18));
    good(&a, tpm2_evict_control(ecc, 0x81000100));
    good(&a, tpm2_create_primary_rsa(2048, 1));
    rsa = get32(a.b + 10);
    good(&a, sign(rsa, 0x14)); /* RSASSA */
    good(&a, sign(rsa, 0x16)); /* RSAPSS */
    good(&a, tpm2_flush(rsa));
    good(&a, tpm2_create_primary_rsa(1024, 2));
    good(&a, tpm2_flush(get32(a.b + 10)));
    good(&a, tpm2_flush(ecc));
    good(&a, create(0x131, TPM2_RH_OWNER, storage_key, sizeof(storage_key) - 1));
    storage = get32(a.b + 10);
    good(&a, create(0x153, storage, hmac_key, sizeof(hmac_key) - 1));
    good(&a, plain(0x173, "\x80\x00\x00\x00", 4)); /* ReadPublic */
    good(&a, plain(0x162, "\x80\x00\x00\x00", 4)); /* ContextSave */
    good(&a, tpm2_flush(storage));
}

static void nv_until_it_is_full(void)
{
    struct answer a;
    uint32_t index = 0x01500100;

    good(&a, tpm2_nv_define(0x01500001, TPM2_NV_COUNTER, 8));
    good(&a, tpm2_nv_increment(0x01500001));
    good(&a, tpm2_nv_define(0x01500002, TPM2_NV_COUNTER | TPM2_NV_ORDERLY, 8));
    good(&a, tpm2_nv_increment(0x01500002));
    do {
        run(&a, tpm2_nv_define(index, 0, 900));
        if (!a.code) {
            good(&a, tpm2_nv_write(index, 7, 900));
            good(&a, tpm2_nv_read(index, 900));
            index++;
        }
    } while (!a.code);
    INSIDE(a.code == 0x14b); /* TPM_RC_NV_SPACE */
    INSIDE(index > 0x01500110);
    for (uint32_t i = 0x01500100; i < index; i++) {
        struct cmd c;
        struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x122); /* NV_UndefineSpace */

        xlv_put_u32_be(&w, TPM2_RH_OWNER);
        xlv_put_u32_be(&w, i);
        put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
        cmd_end(&c, &w);
        good(&a, c);
    }
}

/* A wrong password again and again, until the TPM locks itself. */
static void lockout(void)
{
    struct answer a;
    struct cmd c;
    struct xlv_bytes w;
    unsigned i;

    /* an index with a password, under the protection against guessing */
    w = cmd_begin(&c, 0x8002, 0x12a);
    xlv_put_u32_be(&w, TPM2_RH_OWNER);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 2);
    xlv_put_u16_be(&w, 0x7077);
    xlv_put_u16_be(&w, 14);
    xlv_put_u32_be(&w, 0x01500003);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    xlv_put_u32_be(&w, 0x00060006);
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 8);
    cmd_end(&c, &w);
    good(&a, c);
    good(&a, with_auth(0x13a, 0x4000000a, "\0\0\0\x03\0\0\0\x0a\0\0\0\x0a", 12));
    for (i = 0; i < 8; i++) {
        run(&a, tpm2_nv_write(0x01500003, 1, 8));
        if (a.code == 0x921)
            break;
    }
    INSIDE(a.code == 0x921); /* TPM_RC_LOCKOUT */
    good(&a, with_auth(0x139, 0x4000000a, NULL, 0)); /* DictionaryAttackLockReset */
}

static void clock_and_sessions(void)
{
    struct answer a;
    uint8_t later[8];
    uint32_t handle;

    good(&a, plain(0x181, NULL, 0)); /* ReadClock */
    memcpy(later, a.b + 18, 8);
    later[4]++;
    good(&a, with_auth(0x128, TPM2_RH_OWNER, later, 8)); /* ClockSet */
    good(&a, plain(0x181, NULL, 0));
    good(&a, tpm2_start_session());
    handle = get32(a.b + 10);
    good(&a, tpm2_flush(handle));
    good(&a, tpm2_hash_start());
    handle = get32(a.b + 10);
    good(&a, tpm2_hash_update(handle, 1));
    good(&a, tpm2_hash_complete(handle));
    good(&a, tpm2_pcr_extend(10, 1));
    good(&a, tpm2_pcr_read(10));
    good(&a, plain(0x17a, "\0\0\0\0\0\0\0\0\0\0\0\xff", 12)); /* GetCapability */
    good(&a, plain(0x146, "\x00\x08" "entropy!", 10));        /* StirRandom */
}

/* Whatever there is of commands, with what is not theirs. */
static void commands_that_make_no_sense(void)
{
    static const uint32_t handles[] = { TPM2_RH_OWNER, TPM2_RH_PLATFORM, 0x4000000a, 0x4000000b,
                                        TPM2_RH_NULL, 0x80000000, 0x81000100, 0x01500001 };
    uint8_t filler[400];
    struct answer a;

    for (uint32_t code = 0x11e; code <= 0x19c; code++)
        for (size_t h = 0; h < sizeof(handles) / sizeof(handles[0]); h++)
            for (unsigned fill = 0; fill < 3; fill++) {
                memset(filler, fill == 2 ? 0xff : 0, sizeof(filler));
                if (fill == 1)
                    filler[1] = filler[3] = 32;
                if (code == 0x145) /* Shutdown: once, at the end */
                    continue;
                run(&a, with_auth(code, handles[h], filler, fill ? 400 : 64));
                if (h < 2)
                    run(&a, plain(code, filler, fill * 20));
            }
}

static void all_of_2_0(void)
{
    struct xlv_error e = XLV_ERROR_INIT;
    uint8_t request[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t n, m;
    struct answer a;

    make();
    keys_and_signatures();
    nv_until_it_is_full();
    lockout();
    clock_and_sessions();
    INSIDE(xlv_engine_stir(&e) == 0);
    commands_that_make_no_sense();
    good(&a, tpm2_get_random(8));
    INSIDE(xlv_engine_shutdown(request, &n, &response, &m, &e) == 0);
    xlv_engine_off();
}

/* Ownership and the like need sessions that the unit tests have; here it is about the ordinals. */
static void all_of_1_2(void)
{
    struct answer a;

    make();
    good(&a, tpm12_get_random(20));
    good(&a, tpm12_extend(3, 1));
    good(&a, tpm12_pcr_read(3));
    good(&a, tpm12_simple(0x50)); /* SelfTestFull */
    good(&a, tpm12_simple(0x54)); /* GetTestResult */
    for (uint32_t ordinal = 1; ordinal < 0x100; ordinal++) {
        uint8_t filler[400] = { 0 };

        for (unsigned tag = 0xc1; tag <= 0xc3; tag++)
            for (unsigned fill = 0; fill < 3; fill++) {
                struct cmd c;
                struct xlv_bytes w = cmd_begin(&c, (uint16_t)tag, ordinal);

                memset(filler, fill == 2 ? 0xff : (int)fill, sizeof(filler));
                xlv_put_data(&w, filler, fill * 150 + 20);
                cmd_end(&c, &w);
                run(&a, c);
            }
    }
    run(&a, tpm12_simple(0x98)); /* SaveState */
    xlv_engine_off();
}

/* Cancelled by the frontend: a timer's signals while a command runs. */
static void cancelled(void)
{
    static uint8_t page[XLV_PAGE_SIZE];
    struct answer a;

    make();
    page[4] = XLV_RING_CANCEL;
    for (uint8_t i = 0; i < 20; i++) {
        xlv_cancel_begin(page);
        run(&a, tpm2_create_primary_rsa(2048, i));
        xlv_cancel_end();
        if (!a.code)
            good(&a, tpm2_flush(get32(a.b + 10)));
    }
    xlv_cancel_deinit();
    good(&a, tpm2_get_random(8));
    xlv_engine_off();
}

/* --- outside ------------------------------------------------------------------ */

static void inside(enum xlv_tpm_version which, void (*what)(void))
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_sandbox sandbox = { .on_forbidden = say };
    const uint8_t key[XLV_KEY_SIZE] = "key";
    const struct xlv_uuid uuid = { .b = { 1 } };
    char text[1024];
    int slots[2], file, pair[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t pid;

    for (unsigned i = 0; i < 2; i++) {
        slots[i] = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
        assert_true(slots[i] >= 0);
        assert_int_equal(xlv_store_prepare(slots[i], NULL), 0);
    }
    file = open("/dev/shm", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        told = pair[1];
        version = which;
        close(pair[0]);
        if (dup2(pair[1], STDERR_FILENO) < 0)
            _exit(98);
        xlv_log_set_level(XLV_LOG_ERROR);
        if (geteuid() == 0)
            sandbox.uid = sandbox.gid = SOMEBODY;
        if (xlv_sandbox_prepare(&e) || xlv_cancel_init(&e) ||
            xlv_store_new(&store, slots, &uuid, key, &e) ||
            xlv_journal_new(&journal, file, &uuid, key, &e) || xlv_sandbox_enter(&sandbox, &e)) {
            say(e.text);
            _exit(99);
        }
        what();
        xlv_journal_free(journal);
        xlv_store_free(store);
        _exit(0);
    }
    close(pair[1]);
    while ((got = read(pair[0], text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(pair[0]);
    close(slots[0]);
    close(slots[1]);
    close(file);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_string_equal(text, "");
    assert_int_equal(status, 0);
}

static void tpm_2_0(void **state)
{
    (void)state;
    inside(XLV_TPM_2_0, all_of_2_0);
}

static void tpm_1_2(void **state)
{
    (void)state;
    inside(XLV_TPM_1_2, all_of_1_2);
}

static void commands_are_cancelled(void **state)
{
    (void)state;
    inside(XLV_TPM_2_0, cancelled);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tpm_2_0),
        cmocka_unit_test(tpm_1_2),
        cmocka_unit_test(commands_are_cancelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
