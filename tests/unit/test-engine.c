/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine and manufacture: backend/engine.h, backend/manufacture.h. */
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
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>

#include "backend/command.h"
#include "backend/engine.h"
#include "backend/manufacture.h"
#include "tests/unit/tpm.h"

static const struct xlv_manufacture how_2_0 = { .version = XLV_TPM_2_0, .banks = XLV_BANK_SHA256 };
static const struct xlv_manufacture how_1_2 = { .version = XLV_TPM_1_2 };

struct blob {
    uint8_t *data;
    size_t length;
};

/* One of each, made once: 1.2's keys take their time. */
static struct blob factory_2_0, factory_1_2;

static const struct blob *factory(enum xlv_tpm_version version)
{
    return version == XLV_TPM_2_0 ? &factory_2_0 : &factory_1_2;
}

static int make_factories(void **state)
{
    struct xlv_error e = XLV_ERROR_INIT;

    (void)state;
    if (xlv_manufacture(&how_2_0, &factory_2_0.data, &factory_2_0.length, &e) ||
        xlv_manufacture(&how_1_2, &factory_1_2.data, &factory_1_2.length, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    return 0;
}

static int drop_factories(void **state)
{
    (void)state;
    xlv_engine_off();
    xlv_engine_wipe(factory_2_0.data, factory_2_0.length);
    xlv_engine_wipe(factory_1_2.data, factory_1_2.length);
    return 0;
}

static int engine_off(void **state)
{
    (void)state;
    xlv_engine_off();
    return 0;
}

#define OK(call) \
    do { \
        struct xlv_error e = XLV_ERROR_INIT; \
        int r_ = (call); \
        if (r_) \
            fail_msg("%s: %d %s", #call, r_, e.text); \
    } while (0)

static void power_on(enum xlv_tpm_version version, const struct blob *permanent,
                     const struct blob *volatile_state)
{
    OK(xlv_engine_load(version, permanent->data, permanent->length,
                       volatile_state ? volatile_state->data : NULL,
                       volatile_state ? volatile_state->length : 0, &e));
}

static void boot(enum xlv_tpm_version version)
{
    power_on(version, factory(version), NULL);
    OK(xlv_engine_startup(&e));
}

struct answer {
    uint8_t b[4096];
    size_t n;
    uint32_t code;
};

static void run_at(struct answer *a, uint8_t locality, struct cmd c)
{
    const uint8_t *response;

    OK(xlv_engine_execute(locality, c.b, c.n, &response, &a->n, &e));
    memcpy(a->b, response, a->n);
    a->code = xlv_response_code(a->b, a->n);
}

static void run(struct answer *a, struct cmd c)
{
    run_at(a, 0, c);
}

static void good(struct answer *a, struct cmd c)
{
    run(a, c);
    if (a->code)
        fail_msg("command 0x%x: error 0x%x", xlv_command_code(c.b, c.n), a->code);
}

static struct blob take_permanent(void)
{
    struct blob b;

    OK(xlv_engine_permanent(&b.data, &b.length, &e));
    return b;
}

static struct blob take_volatile(void)
{
    struct blob b;

    OK(xlv_engine_volatile(&b.data, &b.length, &e));
    return b;
}

static void drop(struct blob *b)
{
    xlv_engine_wipe(b->data, b->length);
    *b = (struct blob){ 0 };
}

/* --- manufacture and startup --------------------------------------------- */

static void a_new_tpm_2_0_boots_and_remembers_nothing_of_pcrs(void **unused)
{
    struct answer a, zero;

    (void)unused;
    boot(XLV_TPM_2_0);
    good(&zero, tpm2_pcr_read(7));
    good(&a, tpm2_pcr_extend(7, 1));
    good(&a, tpm2_pcr_read(7));
    assert_memory_not_equal(a.b + a.n - 32, zero.b + zero.n - 32, 32);
    xlv_engine_off();
    boot(XLV_TPM_2_0);
    good(&a, tpm2_pcr_read(7));
    assert_memory_equal(a.b + a.n - 32, zero.b + zero.n - 32, 32);
}

static void a_new_tpm_1_2_is_enabled_active_and_has_an_ek(void **unused)
{
    struct answer a;
    struct cmd read_pubek = tpm12_simple(0x7c), flags;
    struct xlv_bytes w;

    (void)unused;
    boot(XLV_TPM_1_2);
    for (unsigned i = 0; i < 20; i++)
        read_pubek.b[read_pubek.n++] = (uint8_t)i;
    read_pubek.b[5] = (uint8_t)read_pubek.n;
    good(&a, read_pubek);
    assert_true(a.n > 256);
    w = cmd_begin(&flags, 0x00c1, 0x65); /* TPM_CAP_FLAG, TPM_CAP_FLAG_PERMANENT */
    xlv_put_u32_be(&w, 4);
    xlv_put_u32_be(&w, 4);
    xlv_put_u32_be(&w, 0x108);
    cmd_end(&flags, &w);
    good(&a, flags);
    assert_int_equal(a.b[14] << 8 | a.b[15], 0x001f); /* TPM_TAG_PERMANENT_FLAGS */
    assert_int_equal(a.b[16], 0);                     /* disable */
    assert_int_equal(a.b[17], 1);                     /* ownership: may be taken */
    assert_int_equal(a.b[18], 0);                     /* deactivated */
    assert_int_equal(a.b[31], 1);                     /* nvLocked */
}

static void physical_presence_is_locked_for_the_guest(void **unused)
{
    struct answer a;
    struct cmd c = { .n = 0 };

    (void)unused;
    boot(XLV_TPM_1_2);
    c.n = xlv_command_presence(XLV_PRESENCE_PRESENT, c.b);
    run(&a, c);
    assert_int_not_equal(a.code, 0);
    run(&a, tpm12_simple(0x5d)); /* TPM_ForceClear */
    assert_int_not_equal(a.code, 0);
}

static void startup_happens_once(void **unused)
{
    struct answer a;
    struct cmd c = { .n = 0 };

    (void)unused;
    boot(XLV_TPM_2_0);
    c.n = xlv_command_startup(XLV_TPM_2_0, c.b);
    run(&a, c);
    assert_int_equal(a.code, 0x100); /* TPM_RC_INITIALIZE: it was started already */
    xlv_engine_off();
    boot(XLV_TPM_1_2);
    run(&a, tpm12_startup(1));
    assert_int_equal(a.code, 0x26); /* TPM_INVALID_POSTINIT */
}

static void two_new_tpms_are_two(void **unused)
{
    struct blob other;
    struct answer a, b;

    (void)unused;
    OK(xlv_manufacture(&how_2_0, &other.data, &other.length, &e));
    boot(XLV_TPM_2_0);
    good(&a, tpm2_create_primary_ecc());
    xlv_engine_off();
    power_on(XLV_TPM_2_0, &other, NULL);
    OK(xlv_engine_startup(&e));
    good(&b, tpm2_create_primary_ecc());
    assert_int_equal(a.n, b.n);
    assert_memory_not_equal(a.b, b.b, a.n);
    drop(&other);
}

static void same_state_gives_the_same_primary_key(void **unused)
{
    struct answer a, b;

    (void)unused;
    boot(XLV_TPM_2_0);
    good(&a, tpm2_create_primary_ecc());
    xlv_engine_off();
    boot(XLV_TPM_2_0);
    good(&b, tpm2_create_primary_ecc());
    /* the public area: what follows (creation data, ticket) is of this boot */
    assert_memory_equal(a.b + 18, b.b + 18, 26 + 64);
}

static void the_first_boot_is_silent(void **unused)
{
    static const enum xlv_tpm_version versions[] = { XLV_TPM_2_0, XLV_TPM_1_2 };
    int sink = memfd_create("stderr", MFD_CLOEXEC), saved[2] = { dup(1), dup(2) };
    off_t said;

    (void)unused;
    assert_true(sink >= 0 && saved[0] >= 0 && saved[1] >= 0);
    fflush(stdout);
    dup2(sink, 1);
    dup2(sink, 2);
    for (size_t i = 0; i < 2; i++) {
        struct blob b;
        struct xlv_error e;
        int r = xlv_manufacture(i ? &how_1_2 : &how_2_0, &b.data, &b.length, &e);

        if (!r)
            r = xlv_engine_load(versions[i], b.data, b.length, NULL, 0, &e);
        if (!r)
            r = xlv_engine_startup(&e);
        xlv_engine_off();
        drop(&b);
    }
    fflush(stdout);
    said = lseek(sink, 0, SEEK_END);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    close(saved[0]);
    close(saved[1]);
    close(sink);
    assert_int_equal(said, 0);
}

/* --- permanent state ----------------------------------------------------- */

static void nv_survives_power_off_once_it_was_taken(void **unused)
{
    struct answer a;
    struct blob p;

    (void)unused;
    boot(XLV_TPM_2_0);
    good(&a, tpm2_nv_define(0x01500000, 0, 16));
    good(&a, tpm2_nv_write(0x01500000, 0x42, 16));
    assert_true(xlv_engine_changed());
    p = take_permanent();
    assert_false(xlv_engine_changed());
    xlv_engine_off();
    power_on(XLV_TPM_2_0, &p, NULL);
    OK(xlv_engine_startup(&e));
    good(&a, tpm2_nv_read(0x01500000, 16));
    assert_int_equal(a.b[16], 0x42);
    drop(&p);
}

static void reading_changes_nothing_permanent(void **unused)
{
    struct answer a;
    struct blob p;

    (void)unused;
    boot(XLV_TPM_2_0);
    p = take_permanent();
    drop(&p);
    good(&a, tpm2_get_random(8));
    good(&a, tpm2_pcr_read(0));
    good(&a, tpm2_pcr_extend(0, 1));
    good(&a, tpm2_start_session());
    OK(xlv_engine_stir(&e));
    assert_false(xlv_engine_changed());
}

/* What libtpms handed to its store callback is its permanent state, at the end
 * of every command: else the session would commit something stale. */
static void what_was_stored_is_what_is(void **unused)
{
    struct answer a;
    struct blob was = { 0 };

    (void)unused;
    boot(XLV_TPM_2_0);
    srandom(7);
    good(&a, tpm2_nv_define(0x01500001, TPM2_NV_COUNTER, 8));
    good(&a, tpm2_nv_define(0x01500002, TPM2_NV_COUNTER | TPM2_NV_ORDERLY, 8));
    good(&a, tpm2_nv_define(0x01500003, 0, 32));
    for (unsigned i = 0; i < 400; i++) {
        unsigned char *now;
        uint32_t length;
        struct blob p;

        switch (random() % 8) {
        case 0: good(&a, tpm2_nv_increment(0x01500001)); break;
        case 1: good(&a, tpm2_nv_increment(0x01500002)); break;
        case 2: good(&a, tpm2_nv_write(0x01500003, (uint8_t)random(), 32)); break;
        case 3: good(&a, tpm2_pcr_extend((uint32_t)random() % 16, 1)); break;
        case 4: good(&a, tpm2_get_random(16)); break;
        case 5: good(&a, tpm2_pcr_read(3)); break;
        case 6:
            good(&a, tpm2_start_session());
            good(&a, tpm2_flush(get32(a.b + 10)));
            break;
        case 7:
            good(&a, tpm2_create_primary_ecc());
            good(&a, tpm2_flush(get32(a.b + 10)));
            break;
        }
        if (!xlv_engine_changed() && was.data) {
            p = take_permanent();
            assert_int_equal(p.length, was.length);
            assert_memory_equal(p.data, was.data, p.length);
        } else {
            p = take_permanent();
        }
        assert_int_equal(TPMLIB_GetState(TPMLIB_STATE_PERMANENT, &now, &length), TPM_SUCCESS);
        /* header of the container and of its one entry, then libtpms's blob */
        assert_int_equal(p.length, length + 16);
        assert_memory_equal(p.data + 16, now, length);
        free(now);
        drop(&was);
        was = p;
    }
    drop(&was);
}

static void orderly_end_is_permanent(void **unused)
{
    struct answer a;
    struct blob p;
    uint8_t request[XLV_COMMAND_MAX];
    const uint8_t *response;
    size_t n, m;

    (void)unused;
    boot(XLV_TPM_2_0);
    good(&a, tpm2_pcr_extend(1, 1));
    p = take_permanent();
    drop(&p);
    OK(xlv_engine_shutdown(request, &n, &response, &m, &e));
    assert_true(xlv_engine_changed());
    assert_true(xlv_command_was_shutdown(request, n, response, m));
    xlv_engine_off();
    boot(XLV_TPM_1_2);
    OK(xlv_engine_shutdown(request, &n, &response, &m, &e));
    assert_int_equal(n, 0);
    assert_false(xlv_engine_changed());
}

static void saved_state_of_tpm_1_2_travels_with_the_permanent_one(void **unused)
{
    struct answer a, before;
    struct blob p;

    (void)unused;
    boot(XLV_TPM_1_2);
    good(&a, tpm12_extend(5, 9));
    good(&before, tpm12_pcr_read(5));
    good(&a, tpm12_simple(0x98)); /* TPM_SaveState */
    assert_true(xlv_engine_changed());
    p = take_permanent();
    xlv_engine_off();
    power_on(XLV_TPM_1_2, &p, NULL);
    good(&a, tpm12_startup(2)); /* TPM_ST_STATE */
    good(&a, tpm12_pcr_read(5));
    assert_memory_equal(a.b, before.b, before.n);
    drop(&p);
}

/* --- restore ------------------------------------------------------------- */

/* A stream with everything in it that a snapshot has to hold. */
static struct cmd stream_2_0(unsigned i, struct answer last[])
{
    static const uint32_t counter = 0x01500001, orderly = 0x01500002;

    switch (i) {
    case 0: return tpm2_nv_define(counter, TPM2_NV_COUNTER, 8);
    case 1: return tpm2_nv_define(orderly, TPM2_NV_COUNTER | TPM2_NV_ORDERLY, 8);
    case 2: return tpm2_start_session();
    case 3: return tpm2_hash_start();
    case 4: return tpm2_create_primary_ecc();
    case 40: return tpm2_hash_complete(get32(last[3].b + 10));
    case 41: return tpm2_evict_control(get32(last[4].b + 10), 0x81000002);
    case 42: return tpm2_flush(get32(last[4].b + 10));
    default: break;
    }
    if (i < 9) /* a counter has no value before its first increment */
        return tpm2_nv_increment(i % 2 ? counter : orderly);
    switch (i % 7) {
    case 0: return tpm2_nv_increment(counter);
    case 1: return tpm2_nv_increment(orderly);
    case 2: return tpm2_pcr_extend_in_session(i % 16, (uint8_t)i, get32(last[2].b + 10));
    case 3: return i < 40 ? tpm2_hash_update(get32(last[3].b + 10), (uint8_t)i)
                          : tpm2_pcr_extend(3, (uint8_t)i);
    case 4: return tpm2_get_random(24);
    case 5: return tpm2_nv_read(i % 2 ? counter : orderly, 8);
    default: return tpm2_pcr_read(i % 16);
    }
}

static struct cmd stream_1_2(unsigned i, struct answer last[])
{
    (void)last;
    switch (i % 4) {
    case 0: return tpm12_extend(i % 16, (uint8_t)i);
    case 1: return tpm12_pcr_read((i - 1) % 16);
    case 2: return tpm12_has_owner();
    default: return tpm12_pcr_read(i % 16);
    }
}

#define STREAM 60

static void off_and_on(enum xlv_tpm_version version, struct blob *p)
{
    struct blob v = take_volatile();

    if (xlv_engine_changed()) {
        drop(p);
        *p = take_permanent();
    }
    xlv_engine_off();
    power_on(version, p, &v);
    drop(&v);
}

static void restored_tpm_answers_like_one_never_switched_off(enum xlv_tpm_version version)
{
    struct answer *straight = calloc(STREAM, sizeof(*straight));
    struct answer *restored = calloc(STREAM, sizeof(*restored));
    struct blob p, v;

    assert_non_null(straight);
    assert_non_null(restored);
    boot(version);
    p = take_permanent();
    v = take_volatile();
    xlv_engine_off();
    power_on(version, &p, &v);
    for (unsigned i = 0; i < STREAM; i++)
        good(&straight[i], version == XLV_TPM_2_0 ? stream_2_0(i, straight)
                                                   : stream_1_2(i, straight));
    xlv_engine_off();

    power_on(version, &p, &v);
    for (unsigned i = 0; i < STREAM; i++) {
        good(&restored[i], version == XLV_TPM_2_0 ? stream_2_0(i, restored)
                                                   : stream_1_2(i, restored));
        off_and_on(version, &p);
    }
    for (unsigned i = 0; i < STREAM; i++) {
        assert_int_equal(restored[i].n, straight[i].n);
        assert_memory_equal(restored[i].b, straight[i].b, straight[i].n);
    }
    drop(&p);
    drop(&v);
    free(straight);
    free(restored);
}

static void restore_of_2_0_is_exact(void **unused)
{
    (void)unused;
    restored_tpm_answers_like_one_never_switched_off(XLV_TPM_2_0);
}

static void restore_of_1_2_is_exact(void **unused)
{
    (void)unused;
    restored_tpm_answers_like_one_never_switched_off(XLV_TPM_1_2);
}

/* Not every restore in one process: libtpms's globals might help. */
static void stir_parts_two_heirs_of_one_state(void **unused)
{
    struct answer a, b, c;
    struct blob p, v;

    (void)unused;
    boot(XLV_TPM_2_0);
    p = take_permanent();
    v = take_volatile();
    xlv_engine_off();
    power_on(XLV_TPM_2_0, &p, &v);
    good(&a, tpm2_get_random(32));
    xlv_engine_off();
    power_on(XLV_TPM_2_0, &p, &v);
    good(&b, tpm2_get_random(32));
    xlv_engine_off();
    /* the danger is real: without this the test below would prove nothing */
    assert_memory_equal(a.b, b.b, a.n);
    power_on(XLV_TPM_2_0, &p, &v);
    OK(xlv_engine_stir(&e));
    good(&b, tpm2_get_random(32));
    xlv_engine_off();
    power_on(XLV_TPM_2_0, &p, &v);
    OK(xlv_engine_stir(&e));
    good(&c, tpm2_get_random(32));
    assert_memory_not_equal(a.b, b.b, a.n);
    assert_memory_not_equal(a.b, c.b, a.n);
    assert_memory_not_equal(b.b, c.b, a.n);
    drop(&p);
    drop(&v);
}

static void heirs_of_one_1_2_state_draw_different_randoms(void **unused)
{
    struct answer a, b;
    struct blob p, v;

    (void)unused;
    boot(XLV_TPM_1_2);
    p = take_permanent();
    v = take_volatile();
    for (unsigned i = 0; i < 2; i++) {
        xlv_engine_off();
        power_on(XLV_TPM_1_2, &p, &v);
        OK(xlv_engine_stir(&e));
        good(i ? &b : &a, tpm12_get_random(32));
    }
    assert_memory_not_equal(a.b, b.b, a.n);
    drop(&p);
    drop(&v);
}

/* --- what must be refused ------------------------------------------------ */

static int try_load(enum xlv_tpm_version version, const uint8_t *p, size_t n, const uint8_t *v,
                    size_t m)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int r = xlv_engine_load(version, p, n, v, m, &e);

    if (r)
        assert_string_not_equal(e.text, "");
    return r;
}

/* libtpms says to stderr what it dislikes; the tests need not. */
static int hush(void)
{
    int saved = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    fflush(stderr);
    dup2(null, 2);
    close(null);
    return saved;
}

static void unhush(int saved)
{
    dup2(saved, 2);
    close(saved);
}

static void cut_states_are_refused_and_never_made_anew(void **unused)
{
    static const enum xlv_tpm_version versions[] = { XLV_TPM_2_0, XLV_TPM_1_2 };

    (void)unused;
    for (size_t i = 0; i < 2; i++) {
        const struct blob *f = factory(versions[i]);
        int saved = hush();

        for (size_t n = 0; n < f->length; n += n < 40 || n + 40 > f->length ? 1 : 37) {
            int r = try_load(versions[i], f->data, n, NULL, 0);

            if (r <= 0)
                unhush(saved);
            assert_true(r > 0);
            /* and it is off */
            assert_int_equal(xlv_engine_stir(NULL), versions[i] == XLV_TPM_2_0 ? -ENODEV : 0);
        }
        unhush(saved);
        /* the good one still loads in the same process */
        boot(versions[i]);
        xlv_engine_off();
    }
}

static void damaged_volatile_states_are_refused(void **unused)
{
    static const enum xlv_tpm_version versions[] = { XLV_TPM_2_0, XLV_TPM_1_2 };

    (void)unused;
    for (size_t i = 0; i < 2; i++) {
        struct blob p, v;
        int saved;

        boot(versions[i]);
        p = take_permanent();
        v = take_volatile();
        xlv_engine_off();
        saved = hush();
        for (size_t at = 0; at < v.length; at += versions[i] == XLV_TPM_2_0 ? 61 : 97) {
            int r;

            v.data[at] ^= 0x10;
            r = try_load(versions[i], p.data, p.length, v.data, v.length);
            v.data[at] ^= 0x10;
            if (r <= 0)
                unhush(saved);
            assert_true(r > 0);
        }
        unhush(saved);
        power_on(versions[i], &p, &v);
        xlv_engine_off();
        drop(&p);
        drop(&v);
    }
}

static void a_state_of_the_other_version_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(try_load(XLV_TPM_1_2, factory_2_0.data, factory_2_0.length, NULL, 0),
                     XLV_E_WRONG_OWNER);
    assert_int_equal(try_load(XLV_TPM_2_0, factory_1_2.data, factory_1_2.length, NULL, 0),
                     XLV_E_WRONG_OWNER);
}

static void containers_are_checked(void **unused)
{
    size_t n = factory_2_0.length;
    uint8_t *copy = malloc(n + 16);

    (void)unused;
    assert_non_null(copy);
    memcpy(copy, factory_2_0.data, n);
    copy[0] ^= 1;
    assert_int_equal(try_load(XLV_TPM_2_0, copy, n, NULL, 0), XLV_E_CORRUPT);
    copy[0] ^= 1;
    copy[4] = XLV_PERMANENT_FORMAT + 1;
    assert_int_equal(try_load(XLV_TPM_2_0, copy, n, NULL, 0), XLV_E_VERSION);
    copy[4] = XLV_PERMANENT_FORMAT;
    copy[8] = 99; /* an entry of a type not known */
    assert_int_equal(try_load(XLV_TPM_2_0, copy, n, NULL, 0), XLV_E_VERSION);
    copy[8] = 1;
    copy[15] = 0xff; /* a length beyond everything */
    assert_int_equal(try_load(XLV_TPM_2_0, copy, n, NULL, 0), XLV_E_CORRUPT);
    copy[15] = 0;
    memset(copy + n, 0, 16); /* bytes behind the end */
    assert_int_not_equal(try_load(XLV_TPM_2_0, copy, n + 5, NULL, 0), 0);
    assert_int_equal(try_load(XLV_TPM_2_0, copy, 8, NULL, 0), XLV_E_CORRUPT); /* no entries */
    assert_int_equal(try_load(XLV_TPM_2_0, copy, n, NULL, 0), 0);
    free(copy);
}

static void malformed_commands_get_the_tpms_own_error(void **unused)
{
    static const uint8_t *const raw[] = {
        (const uint8_t *)"\0\0\0\0\0\0\0\0\0\0",
        (const uint8_t *)"\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff",
        (const uint8_t *)"\x80\x02\0\0\0\x0a\0\0\x01\x44",
        (const uint8_t *)"\x00\xc1\0\0\0\x0b\0\0\0\x14",
        (const uint8_t *)"\x00\xc3\0\0\0\x0a\0\0\0\x14",
    };
    static const enum xlv_tpm_version versions[] = { XLV_TPM_2_0, XLV_TPM_1_2 };

    (void)unused;
    for (size_t v = 0; v < 2; v++) {
        boot(versions[v]);
        for (size_t i = 0; i < sizeof(raw) / sizeof(raw[0]); i++) {
            const uint8_t *response;
            size_t n;

            OK(xlv_engine_execute(0, raw[i], 10, &response, &n, &e));
            assert_int_equal(n, 10);
            assert_int_not_equal(xlv_response_code(response, n), 0);
        }
        xlv_engine_off();
    }
}

/* --- ownership of TPM 1.2: the use that a guest's system makes of it ------- */

static void sha1_hmac(const uint8_t key[20], const uint8_t *data, size_t n, uint8_t out[20])
{
    unsigned length = 20;

    assert_non_null(HMAC(EVP_sha1(), key, 20, data, n, out, &length));
}

static void oaep(const uint8_t *modulus, const uint8_t secret[20], uint8_t out[256])
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *n = BN_bin2bn(modulus, 256, NULL), *exponent = BN_new();
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params;
    size_t length = 256;

    assert_true(BN_set_word(exponent, 65537));
    assert_true(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n));
    assert_true(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent));
    params = OSSL_PARAM_BLD_to_param(build);
    assert_true(EVP_PKEY_fromdata_init(ctx) > 0);
    assert_true(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) > 0);
    EVP_PKEY_CTX_free(ctx);
    ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    assert_true(EVP_PKEY_encrypt_init(ctx) > 0);
    assert_true(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0);
    assert_true(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha1()) > 0);
    assert_true(EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha1()) > 0);
    assert_true(EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, OPENSSL_memdup("TCPA", 4), 4) > 0);
    assert_true(EVP_PKEY_encrypt(ctx, out, &length, secret, 20) > 0);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(exponent);
}

static void ownership_survives_without_a_saved_state(void **unused)
{
    struct answer a;
    struct cmd read_pubek = tpm12_simple(0x7c), take;
    struct xlv_bytes w;
    uint8_t owner[20], srk[20], sealed[256], even[20], odd[20], in[65], digest[20], auth[20];
    struct blob p;
    uint32_t handle;

    (void)unused;
    memset(owner, 'o', sizeof(owner));
    memset(srk, 0, sizeof(srk));
    memset(odd, 7, sizeof(odd));
    boot(XLV_TPM_1_2);
    read_pubek.n += 20;
    memset(read_pubek.b + 10, 1, 20);
    read_pubek.b[5] = 30;
    good(&a, read_pubek);
    /* TPM_PUBKEY: parms (4 + 2 + 2 + 4 + 12), keyLength, key */
    uint8_t modulus[256];
    memcpy(modulus, a.b + 10 + 24 + 4, sizeof(modulus));

    good(&a, tpm12_simple(0x0a)); /* TPM_OIAP */
    handle = get32(a.b + 10);
    memcpy(even, a.b + 14, 20);
    w = cmd_begin(&take, 0x00c2, 0x0d);
    xlv_put_u16_be(&w, 5); /* TPM_PID_OWNER */
    oaep(modulus, owner, sealed);
    xlv_put_u32_be(&w, 256);
    xlv_put_data(&w, sealed, 256);
    oaep(modulus, srk, sealed);
    xlv_put_u32_be(&w, 256);
    xlv_put_data(&w, sealed, 256);
    xlv_put_u16_be(&w, 0x28); /* TPM_TAG_KEY12 */
    xlv_put_u16_be(&w, 0);
    xlv_put_u16_be(&w, 0x11); /* TPM_KEY_STORAGE */
    xlv_put_u32_be(&w, 0);
    xlv_put_u8(&w, 1); /* TPM_AUTH_ALWAYS */
    xlv_put_u32_be(&w, 1);
    xlv_put_u16_be(&w, 3);
    xlv_put_u16_be(&w, 1);
    xlv_put_u32_be(&w, 12);
    xlv_put_u32_be(&w, 2048);
    xlv_put_u32_be(&w, 2);
    xlv_put_u32_be(&w, 0);
    xlv_put_u32_be(&w, 0);
    xlv_put_u32_be(&w, 0);
    xlv_put_u32_be(&w, 0);
    SHA1(take.b + 6, w.at - 6, digest);
    memcpy(in, digest, 20);
    memcpy(in + 20, even, 20);
    memcpy(in + 40, odd, 20);
    in[60] = 0;
    sha1_hmac(owner, in, 61, auth);
    xlv_put_u32_be(&w, handle);
    xlv_put_data(&w, odd, 20);
    xlv_put_u8(&w, 0);
    xlv_put_data(&w, auth, 20);
    cmd_end(&take, &w);
    good(&a, tpm12_has_owner());
    assert_int_equal(a.b[14], 0);
    good(&a, take);
    assert_true(xlv_engine_changed());
    p = take_permanent();
    xlv_engine_off();

    power_on(XLV_TPM_1_2, &p, NULL);
    OK(xlv_engine_startup(&e));
    good(&a, tpm12_has_owner());
    assert_int_equal(a.b[14], 1);
    drop(&p);
}

/* --- cancel -------------------------------------------------------------- */

static void on_alarm(int n)
{
    (void)n;
    xlv_engine_cancel();
}

static void a_long_command_can_be_cancelled(void **unused)
{
    struct itimerval often = { .it_interval = { .tv_usec = 500 }, .it_value = { .tv_usec = 500 } };
    struct itimerval never = { .it_value = { 0 } };
    struct answer a;
    unsigned cancelled = 0;

    (void)unused;
    boot(XLV_TPM_2_0);
    good(&a, tpm2_create_primary_rsa(2048, 0)); /* self tests are done now */
    good(&a, tpm2_flush(get32(a.b + 10)));
    signal(SIGALRM, on_alarm);
    for (unsigned i = 1; i < 40 && !cancelled; i++) {
        setitimer(ITIMER_REAL, &often, NULL);
        run(&a, tpm2_create_primary_rsa(2048, (uint8_t)i));
        setitimer(ITIMER_REAL, &never, NULL);
        if (a.code == XLV_TPM2_RC_CANCELED) {
            cancelled++;
        } else {
            assert_int_equal(a.code, 0);
            good(&a, tpm2_flush(get32(a.b + 10)));
        }
    }
    signal(SIGALRM, SIG_DFL);
    assert_int_equal(cancelled, 1);
    /* the flag does not outlive the command */
    xlv_engine_cancel();
    good(&a, tpm2_create_primary_rsa(2048, 77));
}

static void cancel_of_1_2_is_harmless(void **unused)
{
    struct answer a;

    (void)unused;
    boot(XLV_TPM_1_2);
    xlv_engine_cancel();
    good(&a, tpm12_pcr_read(0));
}

static void locality_reaches_the_tpm(void **unused)
{
    struct answer a;
    struct cmd reset;
    struct xlv_bytes w = cmd_begin(&reset, 0x8002, 0x13d); /* PCR_Reset of PCR 20 */

    (void)unused;
    xlv_put_u32_be(&w, 20);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    cmd_end(&reset, &w);
    boot(XLV_TPM_2_0);
    run_at(&a, 0, reset);
    assert_int_equal(a.code, 0x907); /* TPM_RC_LOCALITY */
    run_at(&a, 2, reset);
    assert_int_equal(a.code, 0);
    run_at(&a, 0, reset);
    assert_int_equal(a.code, 0x907);
}

#define T(f) cmocka_unit_test_teardown(f, engine_off)

/* Marks where two volatile states differ. */
static void mark_differences(const struct blob *a, const struct blob *b, uint8_t *marks)
{
    assert_int_equal(a->length, b->length);
    for (size_t i = 0; i < a->length; i++)
        marks[i] |= a->data[i] != b->data[i];
}

/*
 * What xlv_command_effect() says of reading commands, against libtpms itself: the state after each
 * differs from the one before in nothing but the clock, which GetTestResult moves as well as any
 * command, the checksum at the end, and for GetRandom the generator, which StirRandom shows the place of. And an extend
 * on the same state gives the same state again.
 */
static void reading_changes_nothing_but_the_clock(void **unused)
{
    static uint8_t clock[65536], generator[65536], changed[65536],
                   scratch[65536];
    const struct {
        const char *name;
        struct cmd c;
        enum xlv_command_effect effect;
    } reading[] = {
        { "PCR_Read", tpm2_pcr_read(7), XLV_EFFECT_NOTHING },
        { "GetCapability", tpm2_get_property(0x100), XLV_EFFECT_NOTHING },
        { "NV_Read", tpm2_nv_read(0x01500000, 16), XLV_EFFECT_READS },
        { "NV_ReadPublic", tpm2_read_public(0x01500000), XLV_EFFECT_NOTHING },
        { "ReadPublic", tpm2_read_public(0x80000000), XLV_EFFECT_NOTHING },
        { "GetRandom", tpm2_get_random(16), XLV_EFFECT_DRAWS },
        { "Sign", tpm2_sign(0x80000000, TPM2_RS_PW, 0x18, 3), XLV_EFFECT_DRAWS },
    };
    struct blob before = { 0 }, after = { 0 };
    struct answer a;
    size_t moved = 0, drawn = 0, length = 0, first, last;

    (void)unused;
    boot(XLV_TPM_2_0);
    good(&a, tpm2_nv_define(0x01500000, 0, 16));
    good(&a, tpm2_nv_write(0x01500000, 1, 16));
    good(&a, tpm2_create_primary_ecc());
    good(&a, tpm2_start_session());
    good(&a, tpm2_pcr_extend(7, 7));
    for (unsigned i = 0; i < 500; i++) {
        before = take_volatile();
        usleep(i % 10 ? 10 : 2000);
        good(&a, tpm2_get_test_result());
        after = take_volatile();
        mark_differences(&before, &after, clock);
        drop(&before);
        drop(&after);
    }
    for (unsigned i = 0; i < 8; i++) {
        /* one alone leaves a byte as it was, now and then */
        drop(&before);
        drop(&after);
        before = take_volatile();
        OK(xlv_engine_stir(&e));
        after = take_volatile();
        mark_differences(&before, &after, generator);
    }
    memset(clock + before.length - 20, 1, 20);
    /* big endian: the bytes before a moving one move less often */
    for (size_t i = 3; i < before.length - 20; i++)
        if (clock[i])
            memset(clock + i - 3, 1, 3);
    for (size_t i = 0; i < before.length; i++) {
        moved += clock[i];
        drawn += generator[i] && !clock[i];
    }
    drop(&before);
    drop(&after);
    /* a handful of numbers, and a seed with its counter: no place to hide anything in */
    printf("# the clock: %zu bytes with the checksum, the generator: %zu\n", moved, drawn);
    assert_in_range(moved, 21, 20 + 8 * 8);
    assert_in_range(drawn, 16, 64);
    for (size_t i = 0; i < sizeof(reading) / sizeof(*reading); i++) {
        bool draws = reading[i].effect == XLV_EFFECT_DRAWS;

        assert_int_equal(xlv_command_effect(XLV_TPM_2_0, reading[i].c.b, reading[i].c.n),
                         reading[i].effect);
        /* What libtpms notes of a command's authorisations while it runs is in there as well, in
         * one place; the same command leaves the same there. */
        memset(scratch, 0, sizeof(scratch));
        before = take_volatile();
        good(&a, reading[i].c);
        after = take_volatile();
        mark_differences(&before, &after, scratch);
        first = last = 0;
        for (size_t at = 0; at < before.length; at++)
            if (scratch[at] && !clock[at] && !(draws && generator[at])) {
                first = first ? first : at;
                last = at;
            }
        drop(&before);
        drop(&after);
        if (last - first > 200)
            fail_msg("%s changes bytes %zu to %zu", reading[i].name, first, last);
        memset(changed, 0, sizeof(changed));
        for (unsigned k = 0; k < 20; k++) {
            before = take_volatile();
            length = before.length;
            good(&a, reading[i].c);
            after = take_volatile();
            mark_differences(&before, &after, changed);
            drop(&before);
            drop(&after);
        }
        for (size_t at = 0; at < sizeof(changed); at++)
            if (changed[at] && !clock[at] && !(draws && generator[at]))
                fail_msg("%s changes byte %zu of %zu", reading[i].name, at, length);
    }
}

static void audited_commands_are_known(void **unused)
{
    struct answer a;
    bool audits = true;

    (void)unused;
    boot(XLV_TPM_2_0);
    OK(xlv_engine_audits(&audits, &e));
    assert_false(audits);
    good(&a, tpm2_audit(0x17e));
    OK(xlv_engine_audits(&audits, &e));
    assert_true(audits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_new_tpm_2_0_boots_and_remembers_nothing_of_pcrs),
        T(a_new_tpm_1_2_is_enabled_active_and_has_an_ek),
        T(physical_presence_is_locked_for_the_guest),
        T(startup_happens_once),
        T(two_new_tpms_are_two),
        T(same_state_gives_the_same_primary_key),
        T(the_first_boot_is_silent),
        T(nv_survives_power_off_once_it_was_taken),
        T(reading_changes_nothing_permanent),
        T(what_was_stored_is_what_is),
        T(orderly_end_is_permanent),
        T(saved_state_of_tpm_1_2_travels_with_the_permanent_one),
        T(restore_of_2_0_is_exact),
        T(restore_of_1_2_is_exact),
        T(stir_parts_two_heirs_of_one_state),
        T(heirs_of_one_1_2_state_draw_different_randoms),
        T(cut_states_are_refused_and_never_made_anew),
        T(damaged_volatile_states_are_refused),
        T(a_state_of_the_other_version_is_refused),
        T(containers_are_checked),
        T(malformed_commands_get_the_tpms_own_error),
        T(ownership_survives_without_a_saved_state),
        T(a_long_command_can_be_cancelled),
        T(cancel_of_1_2_is_harmless),
        T(locality_reaches_the_tpm),
        T(reading_changes_nothing_but_the_clock),
        T(audited_commands_are_known),
    };

    return cmocka_run_group_tests(tests, make_factories, drop_factories);
}
