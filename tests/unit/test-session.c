/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session: backend/session.h. The page is memory of this test, slots and
 * journal are temporary files, the port is the one below. A kill is: take k
 * steps, then forget the session; what lives on is the page, the files, and
 * nothing else.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/cancel.h"
#include "backend/command.h"
#include "backend/engine.h"
#include "backend/journal.h"
#include "backend/manufacture.h"
#include "backend/ring.h"
#include "backend/session.h"
#include "backend/store.h"
#include "common/log.h"
#include "tests/unit/tpm.h"

static const struct xlv_manufacture how_2_0 = { .version = XLV_TPM_2_0, .banks = XLV_BANK_SHA256 };
static const struct xlv_manufacture how_1_2 = { .version = XLV_TPM_1_2 };

/* --- the port: a frontend that is a piece of memory ----------------------- */

struct xlv_port {
    uint8_t page[XLV_PAGE_SIZE];
    unsigned notified;
};

void *xlv_port_page(struct xlv_port *port)
{
    return port->page;
}

void xlv_port_notify(struct xlv_port *port)
{
    port->notified++;
}

/* --- the disk -------------------------------------------------------------- */

/* Syncs that still work before the failing ones, where there are failing ones. */
static unsigned good_syncs, failing_syncs;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int __wrap_fdatasync(int fd)
{
    if (failing_syncs && good_syncs) {
        good_syncs--;
    } else if (failing_syncs) {
        failing_syncs--;
        errno = EIO;
        return -1;
    }
    return __real_fdatasync(fd);
}

static void sync_failures(unsigned after, unsigned count)
{
    good_syncs = after;
    failing_syncs = count;
}

/* --- the machine ---------------------------------------------------------- */

static const struct xlv_uuid uuid = { .b = { 1, 2, 3 } };
static const uint8_t store_key[XLV_KEY_SIZE] = { 's' }, journal_key[XLV_KEY_SIZE] = { 'j' };

struct machine {
    enum xlv_tpm_version version;
    enum xlv_boot boot;
    int slots[2], journal_fd;
    struct xlv_port port;
    struct xlv_ring_id ring;
    uint32_t max_locality;
    bool measured; /* its boots are, as measure says */
    struct xlv_measure_boot measure;
    int log_fd;
    /* of the process */
    struct xlv_store *store;
    struct xlv_journal *journal;
    struct xlv_session *session;
};

static struct {
    uint8_t *data;
    size_t length;
} factory[2];

static int temporary(void)
{
    char name[] = "/tmp/xlv-session-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC);

    assert_true(fd >= 0);
    unlink(name);
    return fd;
}

#define OK(call) \
    do { \
        struct xlv_error e = XLV_ERROR_INIT; \
        int r_ = (call); \
        if (r_) \
            fail_msg("%s: %d %s", #call, r_, e.text); \
    } while (0)

static void new_machine_with_empty_store(struct machine *m, enum xlv_tpm_version version)
{
    memset(m, 0, sizeof(*m));
    m->version = version;
    m->boot = XLV_BOOT_FRESH;
    m->ring = (struct xlv_ring_id){ .domid = 5, .ring_ref = 17, .event_channel = 23 };
    m->journal_fd = temporary();
    m->log_fd = -1;
    for (unsigned i = 0; i < 2; i++) {
        m->slots[i] = temporary();
        OK(xlv_store_prepare(m->slots[i], &e));
    }
}

static void new_machine(struct machine *m, enum xlv_tpm_version version)
{
    const unsigned i = version == XLV_TPM_2_0;
    struct xlv_store *store;
    uint64_t generation;
    uint8_t *data;
    size_t length;

    new_machine_with_empty_store(m, version);
    OK(xlv_store_new(&store, m->slots, &uuid, store_key, &e));
    assert_int_equal(xlv_store_load(store, &data, &length, &generation, NULL), XLV_E_EMPTY);
    OK(xlv_store_commit(store, factory[i].data, factory[i].length, &generation, &e));
    xlv_store_free(store);
}

static int try_start(struct machine *m, struct xlv_error *e)
{
    struct xlv_session_config config = {
        .version = m->version,
        .boot = m->boot,
        .ring = m->ring,
        .max_locality = m->max_locality,
        .measure = m->measured ? &m->measure : NULL,
        .log_fd = m->log_fd < 0 ? NULL : &m->log_fd,
        .port = &m->port,
    };
    int r = xlv_store_new(&m->store, m->slots, &uuid, store_key, e);

    if (!r)
        r = xlv_journal_new(&m->journal, m->journal_fd, &uuid, journal_key, e);
    config.store = m->store;
    config.journal = m->journal;
    return r ? r : xlv_session_new(&m->session, &config, e);
}

static void start(struct machine *m)
{
    OK(try_start(m, &e));
}

static void kill_it(struct machine *m)
{
    xlv_session_free(m->session);
    xlv_journal_free(m->journal);
    xlv_store_free(m->store);
    m->session = NULL;
    m->journal = NULL;
    m->store = NULL;
}

/* Another process keeps the state, in the place of one that was killed before it did. */
static void keep_it(struct machine *m)
{
    struct xlv_session_config config = { .version = m->version, .ring = m->ring };

    OK(xlv_store_new(&m->store, m->slots, &uuid, store_key, &e));
    OK(xlv_journal_new(&m->journal, m->journal_fd, &uuid, journal_key, &e));
    config.store = m->store;
    config.journal = m->journal;
    OK(xlv_session_keep(&config, &e));
    kill_it(m);
}

static void end(struct machine *m)
{
    kill_it(m);
    close(m->slots[0]);
    close(m->slots[1]);
    close(m->journal_fd);
}

static struct xlv_session_status status(struct machine *m)
{
    struct xlv_session_status s;

    xlv_session_status(m->session, &s);
    return s;
}

/* --- the frontend --------------------------------------------------------- */

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint32_t length_field(const struct machine *m)
{
    uint32_t v;

    memcpy(&v, m->port.page, sizeof(v));
    return v;
}

static uint8_t page_state(const struct machine *m)
{
    return m->port.page[4];
}

static void submit(struct machine *m, struct cmd c)
{
    memcpy(m->port.page + 8, c.b, c.n);
    put32(m->port.page, (uint32_t)c.n);
    m->port.page[5] = m->port.page[6] = m->port.page[7] = 0;
    m->port.page[4] = XLV_RING_SUBMIT;
}

struct answer {
    uint8_t b[4096];
    size_t n;
    uint32_t code;
};

static void take_answer(struct machine *m, struct answer *a)
{
    assert_int_equal(page_state(m), XLV_RING_FINISH);
    a->n = length_field(m);
    assert_in_range(a->n, 10, 4088);
    memcpy(a->b, m->port.page + 8, a->n);
    assert_int_equal(get32(a->b + 2), a->n);
    a->code = xlv_response_code(a->b, a->n);
}

static int worked; /* what the last work() said */

static void work(struct machine *m)
{
    worked = xlv_session_work(m->session, NULL);
    assert_true(worked == 0 || worked == XLV_E_INVALID);
}

static void ask(struct machine *m, struct cmd c, struct answer *a)
{
    unsigned before = m->port.notified;

    submit(m, c);
    work(m);
    assert_int_equal(m->port.notified, before + 1);
    take_answer(m, a);
}

static void good(struct machine *m, struct cmd c, struct answer *a)
{
    ask(m, c, a);
    if (a->code)
        fail_msg("command 0x%x: error 0x%x", xlv_command_code(c.b, c.n), a->code);
}

static void nothing_to_do(struct machine *m)
{
    assert_int_equal(xlv_session_work(m->session, NULL), XLV_E_EMPTY);
}

static uint64_t counter_value(const struct answer *a)
{
    return (uint64_t)get32(a->b + 16) << 32 | get32(a->b + 20);
}

#define COUNTER 0x01500001u
#define ORDERLY 0x01500002u
#define PLAIN 0x01500003u

static void define_counters(struct machine *m)
{
    struct answer a;

    good(m, tpm2_nv_define(COUNTER, TPM2_NV_COUNTER, 8), &a);
    good(m, tpm2_nv_increment(COUNTER), &a);
    good(m, tpm2_nv_define(ORDERLY, TPM2_NV_COUNTER | TPM2_NV_ORDERLY, 8), &a);
    good(m, tpm2_nv_increment(ORDERLY), &a);
    good(m, tpm2_nv_define(PLAIN, 0, 16), &a);
    good(m, tpm2_nv_write(PLAIN, 0, 16), &a);
}

static uint64_t read_counter(struct machine *m, uint32_t index)
{
    struct answer a;

    good(m, tpm2_nv_read(index, 8), &a);
    return counter_value(&a);
}

/* --- serving --------------------------------------------------------------- */

static void commands_are_answered(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    assert_false(status(&m).resumed);
    nothing_to_do(&m);
    good(&m, tpm2_get_random(16), &a);
    assert_int_equal(a.n, 28);
    nothing_to_do(&m);
    assert_int_equal(status(&m).sequence, 1);
    end(&m);
    new_machine(&m, XLV_TPM_1_2);
    start(&m);
    good(&m, tpm12_pcr_read(0), &a);
    assert_int_equal(a.n, 30);
    end(&m);
}

static void a_command_that_waits_in_the_page_is_served_at_once(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    submit(&m, tpm2_get_random(16));
    start(&m);
    assert_int_equal(page_state(&m), XLV_RING_SUBMIT); /* not before READY */
    work(&m);
    take_answer(&m, &a);
    assert_int_equal(a.code, 0);
    end(&m);
}

static void a_cancel_left_over_becomes_idle(void **unused)
{
    struct machine m;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    submit(&m, tpm2_nv_increment(COUNTER));
    m.port.page[4] = XLV_RING_CANCEL;
    start(&m);
    nothing_to_do(&m);
    assert_int_equal(page_state(&m), XLV_RING_IDLE);
    assert_int_equal(m.port.notified, 1);
    assert_int_equal(status(&m).sequence, 0);
    end(&m);
}

static void a_cancel_with_nothing_running_becomes_idle(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_get_random(4), &a);
    m.port.page[4] = XLV_RING_CANCEL;
    nothing_to_do(&m);
    assert_int_equal(page_state(&m), XLV_RING_IDLE);
    end(&m);
}

static void states_that_tpmif_does_not_know_are_ignored(void **unused)
{
    struct machine m;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    for (unsigned state = 4; state < 256; state++) {
        m.port.page[4] = (uint8_t)state;
        nothing_to_do(&m);
        assert_int_equal(page_state(&m), state);
    }
    end(&m);
}

static void nonsense_gets_an_error_and_changes_nothing(void **unused)
{
    static const struct {
        uint32_t length;
        uint8_t locality, extra;
        uint32_t code;
    } cases[] = {
        { 0, 0, 0, 0x142 },       { 9, 0, 0, 0x142 },     { 4089, 0, 0, 0x142 },
        { 0xffffffff, 0, 0, 0x142 }, { 12, 1, 0, 0x907 }, { 12, 255, 0, 0x907 },
        { 12, 0, 3, 0x142 },      { 12, 0, 255, 0x142 },  { 4085, 0, 1, 0x904 },
        { 4096, 0, 2, 0x904 },
    };
    struct machine m;
    struct answer a;
    struct cmd c = tpm2_get_random(8);
    struct xlv_session_status before;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    before = status(&m);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t at = 8 + 4u * cases[i].extra;

        submit(&m, c);
        memcpy(m.port.page + at, c.b, c.n);
        put32(m.port.page, cases[i].length);
        m.port.page[5] = cases[i].locality;
        m.port.page[7] = cases[i].extra;
        work(&m);
        assert_int_equal(worked, XLV_E_INVALID);
        assert_int_equal(page_state(&m), XLV_RING_FINISH);
        assert_int_equal(length_field(&m), 10);
        assert_int_equal(get32(m.port.page + at + 6), cases[i].code);
    }
    assert_int_equal(status(&m).generation, before.generation);
    good(&m, tpm2_get_random(8), &a);
    assert_int_equal(worked, 0);
    end(&m);
}

static void a_locality_up_to_the_maximum_is_served(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    m.max_locality = 2;
    start(&m);
    submit(&m, tpm2_get_random(8));
    m.port.page[5] = 2;
    work(&m);
    take_answer(&m, &a);
    assert_int_equal(a.code, 0);
    submit(&m, tpm2_get_random(8));
    m.port.page[5] = 3;
    work(&m);
    take_answer(&m, &a);
    assert_int_equal(a.code, 0x907);
    end(&m);
}

/* Extra pages are not mapped: what fits the first page is served, whatever they are. */
static void what_fits_the_first_page_is_served(void **unused)
{
    struct machine m;
    struct cmd c = tpm2_get_random(8);
    uint8_t big[4084] = "\x80\x01\x00\x00\x0f\xf4\x00\x00\x01\x46\x0f\xe8";

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    /* a small command behind one reference to nothing */
    put32(m.port.page, (uint32_t)c.n);
    m.port.page[7] = 1;
    put32(m.port.page + 8, 0xdeadbeef);
    memcpy(m.port.page + 12, c.b, c.n);
    m.port.page[4] = XLV_RING_SUBMIT;
    work(&m);
    assert_int_equal(page_state(&m), XLV_RING_FINISH);
    assert_int_equal(get32(m.port.page + 12 + 6), 0);
    /* one that fills the page up to its last byte; the TPM reads all of it, as
     * the size it complains about (StirRandom, too much) is inside */
    memcpy(m.port.page + 12, big, sizeof(big));
    put32(m.port.page, sizeof(big));
    m.port.page[4] = XLV_RING_SUBMIT;
    work(&m);
    assert_int_equal(page_state(&m), XLV_RING_FINISH);
    assert_int_equal(get32(m.port.page + 12 + 6), 0x1d5); /* TPM_RC_SIZE, parameter 1 */
    end(&m);
}

static void a_page_that_changes_under_execution_changes_nothing(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    submit(&m, tpm2_get_random(8));
    OK(xlv_session_step(m.session, &e)); /* INSPECT */
    memset(m.port.page, 0xff, sizeof(m.port.page)); /* the guest runs wild */
    while (xlv_session_at(m.session) != XLV_STEP_INSPECT)
        OK(xlv_session_step(m.session, &e));
    take_answer(&m, &a);
    assert_int_equal(a.code, 0);
    assert_int_equal(a.n, 20);
    end(&m);
}

static void random_bytes(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)random();
}

/* Good commands with a few bytes changed, and plain garbage: always an answer,
 * and the TPM is there afterwards. */
static void whatever_is_in_the_page_gets_an_answer(void **unused)
{
    (void)unused;
    for (unsigned v = 0; v < 2; v++) {
        struct machine m;
        struct answer a;

        new_machine(&m, v ? XLV_TPM_2_0 : XLV_TPM_1_2);
        start(&m);
        srandom(42);
        for (unsigned i = 0; i < 3000; i++) {
            struct cmd c;
            unsigned flips = (unsigned)random() % 4;

            if (i % 3 == 0) {
                c.n = 10 + (size_t)random() % 200;
                random_bytes(c.b, c.n);
                memcpy(c.b, v ? "\x80\x01\0\0\0" : "\0\xc1\0\0\0", 5);
                c.b[5] = (uint8_t)c.n;
                memcpy(c.b + 6, "\0\0\x01", v ? 3 : 2);
            } else if (v) {
                c = i % 4 == 0 ? tpm2_get_property((uint32_t)random())
                  : i % 4 == 1 ? tpm2_create_primary_ecc()
                  : i % 4 == 2 ? tpm2_nv_define(COUNTER, TPM2_NV_COUNTER, 8)
                               : tpm2_start_session();
            } else {
                c = i % 2 ? tpm12_get_random((uint32_t)random() % 6000) : tpm12_simple(0x0a);
            }
            while (flips--)
                c.b[(size_t)random() % c.n] = (uint8_t)random();
            submit(&m, c);
            if (i % 7 == 0)
                random_bytes(m.port.page, 8);
            m.port.page[4] = XLV_RING_SUBMIT;
            work(&m);
            assert_int_equal(page_state(&m), XLV_RING_FINISH);
            assert_in_range(length_field(&m), 10, 4096);
        }
        ask(&m, v ? tpm2_pcr_read(0) : tpm12_pcr_read(0), &a);
        assert_int_equal(a.code, 0);
        kill_it(&m);
        start(&m);
        assert_true(status(&m).resumed);
        end(&m);
    }
}

static volatile bool scribbling;

static void *scribble(void *arg)
{
    struct xlv_port *port = arg;
    unsigned seed = 99;

    while (scribbling) {
        volatile uint8_t *p = port->page;
        unsigned at = (unsigned)rand_r(&seed) % 24;

        /* header and references most of the time, the state byte too */
        p[at] = (uint8_t)rand_r(&seed);
        p[7] = (uint8_t)((unsigned)rand_r(&seed) % 4);
        p[8] = 900 & 0xff;
        p[9] = 900 >> 8;
    }
    return NULL;
}

/* A guest with a second CPU that writes to the page all the time. */
static void a_page_that_never_holds_still_breaks_nothing(void **unused)
{
    struct machine m;
    struct answer a;
    pthread_t thread;
    unsigned served = 0;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    scribbling = true;
    assert_int_equal(pthread_create(&thread, NULL, scribble, &m.port), 0);
    for (unsigned i = 0; i < 20000; i++) {
        int r;

        submit(&m, tpm2_get_random(8));
        r = xlv_session_work(m.session, NULL);
        assert_true(r == 0 || r == XLV_E_EMPTY || r == XLV_E_INVALID);
        served += r != XLV_E_EMPTY;
    }
    scribbling = false;
    pthread_join(thread, NULL);
    assert_true(served > 100);
    good(&m, tpm2_get_random(8), &a);
    end(&m);
}

/* --- boots and rings -------------------------------------------------------- */

static void pcrs_follow_the_boot_not_the_ring(void **unused)
{
    struct machine m;
    struct answer a, extended, fresh;
    struct cmd startup = { .n = 0 };

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_read(4), &fresh);
    good(&m, tpm2_pcr_extend(4, 1), &a);
    good(&m, tpm2_pcr_read(4), &extended);
    OK(xlv_session_stop(m.session, XLV_STOP_FRONTEND_CLOSED, &e));
    kill_it(&m);

    memset(&m.port.page, 0, sizeof(m.port.page));
    m.ring.ring_ref = 99;
    m.ring.event_channel = 31;
    start(&m);
    assert_true(status(&m).resumed);
    nothing_to_do(&m);
    good(&m, tpm2_pcr_read(4), &a);
    assert_memory_equal(a.b + a.n - 32, extended.b + extended.n - 32, 32);
    startup.n = xlv_command_startup(XLV_TPM_2_0, startup.b);
    ask(&m, startup, &a);
    assert_int_equal(a.code, 0x100); /* no second Startup */
    kill_it(&m);

    /* another devid of the same boot is no new boot either */
    m.ring.devid = 1;
    start(&m);
    good(&m, tpm2_pcr_read(4), &a);
    assert_memory_equal(a.b + a.n - 32, extended.b + extended.n - 32, 32);
    kill_it(&m);

    memset(&m.port.page, 0, sizeof(m.port.page));
    m.ring.domid = 6;
    start(&m);
    assert_false(status(&m).resumed);
    good(&m, tpm2_pcr_read(4), &a);
    assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
    end(&m);
}

static void tpm_1_2_resumes_and_reboots_too(void **unused)
{
    struct machine m;
    struct answer a, extended, fresh;

    (void)unused;
    new_machine(&m, XLV_TPM_1_2);
    start(&m);
    good(&m, tpm12_pcr_read(4), &fresh);
    good(&m, tpm12_extend(4, 1), &a);
    good(&m, tpm12_pcr_read(4), &extended);
    kill_it(&m);
    start(&m);
    good(&m, tpm12_pcr_read(4), &a);
    assert_memory_equal(a.b, extended.b, a.n);
    OK(xlv_session_stop(m.session, XLV_STOP_DOMAIN_END, &e));
    kill_it(&m);
    m.ring.domid = 6;
    start(&m);
    good(&m, tpm12_pcr_read(4), &a);
    assert_memory_equal(a.b, fresh.b, a.n);
    end(&m);
}

static void what_was_written_is_there_after_reboots(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_nv_write(PLAIN, 0x77, 16), &a);
    for (unsigned boot = 0; boot < 4; boot++) {
        if (boot % 2)
            OK(xlv_session_stop(m.session, XLV_STOP_DOMAIN_END, &e));
        kill_it(&m);
        m.ring.domid++;
        start(&m);
        good(&m, tpm2_nv_read(PLAIN, 16), &a);
        assert_int_equal(a.b[16], 0x77);
        good(&m, tpm2_nv_increment(COUNTER), &a);
        assert_int_equal(read_counter(&m, COUNTER), boot + 2);
    }
    end(&m);
}

/* TPM_PT_STARTUP_CLEAR's neighbour: orderly tells whether the last boot was
 * ended by TPM2_Shutdown. */
static bool was_orderly(struct machine *m)
{
    struct answer a;

    good(m, tpm2_get_property(0x201), &a); /* TPM_PT_STARTUP_CLEAR */
    return get32(a.b + 23) >> 31;
}

static void every_boot_is_ended_in_order(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_get_random(4), &a);
    OK(xlv_session_stop(m.session, XLV_STOP_DOMAIN_END, &e));
    kill_it(&m);
    m.ring.domid++;
    start(&m);
    assert_true(was_orderly(&m));
    /* the daemon was away when the domain ended: the next boot makes up for it */
    kill_it(&m);
    m.ring.domid++;
    start(&m);
    assert_true(was_orderly(&m));
    /* the frontend closed, then host and journal went: nobody heard of the end */
    good(&m, tpm2_pcr_extend(3, 3), &a);
    OK(xlv_session_stop(m.session, XLV_STOP_FRONTEND_CLOSED, &e));
    kill_it(&m);
    assert_int_equal(ftruncate(m.journal_fd, 0), 0);
    m.ring.domid++;
    start(&m);
    assert_true(was_orderly(&m));
    /* the host lost power: nobody can */
    kill_it(&m);
    assert_int_equal(ftruncate(m.journal_fd, 0), 0);
    m.ring.domid++;
    start(&m);
    assert_false(was_orderly(&m));
    end(&m);
}

static void an_ended_boot_is_not_ended_twice(void **unused)
{
    struct machine m;
    struct answer a;
    uint64_t generation;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_get_random(4), &a);
    OK(xlv_session_stop(m.session, XLV_STOP_DOMAIN_END, &e));
    generation = status(&m).generation;
    kill_it(&m);
    m.ring.domid++;
    start(&m);
    /* the commit of its own Startup, and no other */
    assert_int_equal(status(&m).generation, generation + 1);
    end(&m);
}

static void a_closed_frontend_keeps_the_volatile_state(void **unused)
{
    struct machine m;
    struct answer a, b;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_extend(4, 1), &a);
    good(&m, tpm2_pcr_read(4), &b);
    /* a command that came with the end is still answered */
    submit(&m, tpm2_get_random(8));
    OK(xlv_session_stop(m.session, XLV_STOP_FRONTEND_CLOSED, &e));
    take_answer(&m, &a);
    assert_int_equal(a.code, 0);
    kill_it(&m);
    start(&m);
    good(&m, tpm2_pcr_read(4), &a);
    assert_memory_equal(a.b + a.n - 32, b.b + b.n - 32, 32);
    end(&m);
}

/* --- suspended domains ------------------------------------------------------ */

/* The domain is saved; with it gone, the host is switched off and on. */
static void suspend(struct machine *m)
{
    OK(xlv_session_stop(m->session, XLV_STOP_SUSPEND, &e));
    kill_it(m);
    assert_int_equal(ftruncate(m->journal_fd, 0), 0);
    memset(&m->port.page, 0, sizeof(m->port.page));
    m->ring.domid++;
    m->ring.ring_ref++;
}

/* A migration that fails: the same ring again. One that succeeds: the store, and nothing else. */
static void a_frozen_domain_goes_on_here_or_elsewhere(void **unused)
{
    struct machine m;
    struct answer a, b;
    uint64_t orderly;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_pcr_extend(4, 1), &a);
    good(&m, tpm2_pcr_read(4), &b);
    orderly = read_counter(&m, ORDERLY);
    for (int i = 0; i < 4; i++) {
        /* the last command of the guest is one that must not be done twice */
        submit(&m, tpm2_nv_increment(ORDERLY));
        OK(xlv_session_stop(m.session, XLV_STOP_FREEZE, &e));
        kill_it(&m);
        if (i % 2) {
            /* frozen a second time before the guest had come to do anything */
            start(&m);
            OK(xlv_session_stop(m.session, XLV_STOP_FREEZE, &e));
            kill_it(&m);
        }
        m.boot = XLV_BOOT_FRESH; /* nobody tells it otherwise */
        start(&m);
        assert_true(status(&m).resumed);
        take_answer(&m, &a); /* which was there all the time */
        assert_int_equal(a.code, 0);
        assert_int_equal(read_counter(&m, ORDERLY), ++orderly);
        good(&m, tpm2_pcr_read(4), &a);
        assert_memory_equal(a.b + a.n - 32, b.b + b.n - 32, 32);
    }
    OK(xlv_session_stop(m.session, XLV_STOP_FREEZE, &e));
    kill_it(&m);
    assert_int_equal(ftruncate(m.journal_fd, 0), 0);
    memset(&m.port.page, 0, sizeof(m.port.page));
    m.ring.domid++;
    m.boot = XLV_BOOT_KEPT;
    start(&m);
    assert_int_equal(read_counter(&m, ORDERLY), orderly);
    good(&m, tpm2_pcr_read(4), &a);
    assert_memory_equal(a.b + a.n - 32, b.b + b.n - 32, 32);
    end(&m);
}

static void a_restored_domain_goes_on_where_it_was_suspended(void **unused)
{
    struct machine m;
    struct answer a, b;
    uint64_t orderly;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_pcr_extend(4, 1), &a);
    good(&m, tpm2_pcr_read(4), &b);
    good(&m, tpm2_nv_increment(ORDERLY), &a);
    orderly = read_counter(&m, ORDERLY);
    submit(&m, tpm2_get_random(8));
    OK(xlv_session_stop(m.session, XLV_STOP_SUSPEND, &e));
    take_answer(&m, &a); /* a command that came with the end is still answered */
    kill_it(&m);
    assert_int_equal(ftruncate(m.journal_fd, 0), 0);
    for (int i = 0; i < 3; i++) {
        m.ring.domid++;
        m.boot = XLV_BOOT_KEPT;
        start(&m);
        assert_true(status(&m).resumed);
        good(&m, tpm2_pcr_read(4), &a);
        assert_memory_equal(a.b + a.n - 32, b.b + b.n - 32, 32);
        assert_int_equal(read_counter(&m, ORDERLY), orderly);
        good(&m, tpm2_nv_increment(ORDERLY), &a);
        orderly++;
        /* a kill changes nothing about that */
        kill_it(&m);
        start(&m);
        assert_int_equal(read_counter(&m, ORDERLY), orderly);
        suspend(&m);
    }
    end(&m);
    new_machine(&m, XLV_TPM_1_2);
    start(&m);
    good(&m, tpm12_extend(4, 1), &b);
    suspend(&m);
    m.boot = XLV_BOOT_KEPT;
    start(&m);
    good(&m, tpm12_pcr_read(4), &a);
    assert_memory_equal(a.b + a.n - 20, b.b + b.n - 20, 20);
    end(&m);
}

static void a_kept_state_is_gone_on_from_once(void **unused)
{
    struct xlv_error e = XLV_ERROR_INIT;
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_extend(4, 1), &a);
    suspend(&m);
    m.boot = XLV_BOOT_KEPT;
    start(&m); /* and not one command yet */
    kill_it(&m);
    m.ring.domid++;
    assert_int_equal(try_start(&m, &e), XLV_E_REFUSED);
    assert_non_null(strstr(e.text, "xl-vtpm accept"));
    kill_it(&m);
    /* what an administrator may decide for it */
    m.boot = XLV_BOOT_FRESH;
    start(&m);
    assert_false(status(&m).resumed);
    end(&m);
}

static void a_created_domain_does_not_get_the_kept_state(void **unused)
{
    struct machine m;
    struct answer a, fresh;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_read(4), &fresh);
    good(&m, tpm2_pcr_extend(4, 1), &a);
    suspend(&m);
    start(&m);
    assert_false(status(&m).resumed);
    assert_true(was_orderly(&m)); /* the boot that was suspended was ended for it */
    good(&m, tpm2_pcr_read(4), &a);
    assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
    kill_it(&m);
    m.ring.domid++;
    m.boot = XLV_BOOT_KEPT;
    assert_int_equal(try_start(&m, NULL), XLV_E_REFUSED);
    end(&m);
}

/* Killed at each write to the disk that a suspend and a restore make, and after it. */
static void killed_around_a_suspend(void **unused)
{
    (void)unused;
    for (int syncs = 0; syncs < 8; syncs++)
        for (int boot = XLV_BOOT_FRESH; boot <= XLV_BOOT_KEPT; boot++) {
            struct machine m;
            struct answer a, b, fresh;
            bool died = false;

            new_machine(&m, XLV_TPM_2_0);
            start(&m);
            define_counters(&m);
            good(&m, tpm2_pcr_read(4), &fresh);
            good(&m, tpm2_pcr_extend(4, 1), &a);
            good(&m, tpm2_pcr_read(4), &b);
            good(&m, tpm2_nv_increment(ORDERLY), &a);
            /* the disk fails from that sync on: what was written before is all there is */
            sync_failures(syncs, 1000);
            if (xlv_session_stop(m.session, XLV_STOP_SUSPEND, NULL))
                died = true;
            kill_it(&m);
            if (died) {
                /* another process does it, from the journal */
                sync_failures(0, 0);
                for (int twice = 0; twice < 2; twice++)
                    keep_it(&m);
            }
            m.ring.domid++;
            m.boot = (enum xlv_boot)boot;
            if (try_start(&m, NULL)) {
                kill_it(&m);
                sync_failures(0, 0);
                start(&m);
            }
            sync_failures(0, 0);
            good(&m, tpm2_pcr_read(4), &a);
            if (boot == XLV_BOOT_KEPT)
                assert_memory_equal(a.b + a.n - 32, b.b + b.n - 32, 32);
            else
                assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
            assert_int_equal(read_counter(&m, COUNTER), 1);
            good(&m, tpm2_nv_increment(COUNTER), &a);
            assert_int_equal(read_counter(&m, COUNTER), 2);
            /* a boot that could not be ended in order makes it jump ahead, as the spec has it */
            if (boot == XLV_BOOT_KEPT)
                assert_int_equal(read_counter(&m, ORDERLY), 2);
            else
                assert_true(read_counter(&m, ORDERLY) >= 2);
            end(&m);
        }
}

static void copy_file(int from, int to);

static void two_restores_of_one_state_give_different_randoms(void **unused)
{
    int slots[2] = { temporary(), temporary() };
    struct machine m;
    struct answer a, b;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_extend(1, 1), &a);
    suspend(&m);
    copy_file(m.slots[0], slots[0]);
    copy_file(m.slots[1], slots[1]);
    m.boot = XLV_BOOT_KEPT;
    start(&m);
    good(&m, tpm2_get_random(32), &a);
    kill_it(&m);
    copy_file(slots[0], m.slots[0]);
    copy_file(slots[1], m.slots[1]);
    assert_int_equal(ftruncate(m.journal_fd, 0), 0);
    start(&m);
    assert_true(status(&m).resumed);
    good(&m, tpm2_get_random(32), &b);
    assert_memory_not_equal(a.b + 12, b.b + 12, 32);
    close(slots[0]);
    close(slots[1]);
    end(&m);
}

/* --- kills ------------------------------------------------------------------ */

/*
 * One command, killed at one point, served by a successor: the answer has to
 * come, the effect has to be there once. A second kill may hit the successor at
 * any point of its own.
 */
static void killed_after(struct machine *m, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        OK(xlv_session_step(m->session, &e));
        if (xlv_session_at(m->session) == XLV_STEP_INSPECT)
            break;
    }
    kill_it(m);
    start(m);
}

static void finish(struct machine *m, struct answer *a)
{
    int r = xlv_session_work(m->session, NULL);

    assert_true(r == 0 || r == XLV_E_EMPTY || r == XLV_E_INVALID);
    take_answer(m, a);
}

#define STEPS 9 /* INSPECT to NOTIFY */

static void a_counter_counts_once_whenever_we_are_killed(void **unused)
{
    struct machine m;
    struct answer a;
    uint64_t want = 1;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    for (unsigned first = 0; first <= STEPS; first++)
        for (unsigned second = 0; second <= STEPS; second++) {
            submit(&m, tpm2_nv_increment(COUNTER));
            killed_after(&m, first);
            if (page_state(&m) == XLV_RING_SUBMIT)
                killed_after(&m, second);
            finish(&m, &a);
            assert_int_equal(a.code, 0);
            want++;
            assert_int_equal(read_counter(&m, COUNTER), want);
        }
    end(&m);
}

static void an_orderly_counter_and_a_pcr_too(void **unused)
{
    struct machine m, reference;
    struct answer a, b;
    uint64_t want = 1;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    for (unsigned first = 0; first <= STEPS; first++)
        for (unsigned second = 0; second <= STEPS; second++) {
            submit(&m, tpm2_nv_increment(ORDERLY));
            killed_after(&m, first);
            finish(&m, &a);
            assert_int_equal(a.code, 0);
            want++;
            submit(&m, tpm2_pcr_extend(2, (uint8_t)(first * 16 + second)));
            killed_after(&m, second);
            finish(&m, &a);
            assert_int_equal(a.code, 0);
        }
    assert_int_equal(read_counter(&m, ORDERLY), want);
    good(&m, tpm2_pcr_read(2), &a);
    end(&m);
    /* the same extends, nobody killed */
    new_machine(&reference, XLV_TPM_2_0);
    start(&reference);
    for (unsigned first = 0; first <= STEPS; first++)
        for (unsigned second = 0; second <= STEPS; second++)
            good(&reference, tpm2_pcr_extend(2, (uint8_t)(first * 16 + second)), &b);
    good(&reference, tpm2_pcr_read(2), &b);
    assert_memory_equal(a.b + a.n - 32, b.b + b.n - 32, 32);
    end(&reference);
}

static void tpm_1_2_extends_once_whenever_we_are_killed(void **unused)
{
    struct machine m, reference;
    struct answer a, b;

    (void)unused;
    new_machine(&m, XLV_TPM_1_2);
    new_machine(&reference, XLV_TPM_1_2);
    start(&reference);
    for (unsigned steps = 0; steps <= STEPS; steps++)
        good(&reference, tpm12_extend(4, (uint8_t)steps), &b);
    good(&reference, tpm12_pcr_read(4), &b);
    end(&reference);
    start(&m);
    for (unsigned steps = 0; steps <= STEPS; steps++) {
        submit(&m, tpm12_extend(4, (uint8_t)steps));
        killed_after(&m, steps);
        finish(&m, &a);
        assert_int_equal(a.code, 0);
    }
    good(&m, tpm12_pcr_read(4), &a);
    assert_memory_equal(a.b, b.b, b.n);
    end(&m);
}

/* From RECORD on the answer is fixed: whoever gives it gives the same. */
static void a_recorded_answer_is_given_never_made_again(void **unused)
{
    struct machine m;
    struct answer a;
    const uint8_t *recorded;
    uint8_t want[64];
    struct xlv_journal_record record;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    for (unsigned steps = 4; steps <= STEPS; steps++) {
        submit(&m, tpm2_get_random(32));
        for (unsigned i = 0; i < steps; i++)
            OK(xlv_session_step(m.session, &e));
        OK(xlv_journal_load(m.journal, &record, &e));
        recorded = record.response;
        assert_int_equal(record.response_length, 44);
        memcpy(want, recorded, 44);
        kill_it(&m);
        start(&m);
        finish(&m, &a);
        assert_int_equal(a.n, 44);
        assert_memory_equal(a.b, want, 44);
        assert_int_equal(status(&m).sequence, steps - 3);
    }
    end(&m);
}

static void a_half_written_answer_is_completed(void **unused)
{
    struct machine m;
    struct answer a;
    struct xlv_journal_record record;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    srandom(3);
    for (unsigned round = 0; round < 60; round++) {
        struct cmd c = tpm2_get_random(32);
        uint8_t want[44];

        submit(&m, c);
        for (unsigned i = 0; i < 5; i++) /* up to PLACE, not including it */
            OK(xlv_session_step(m.session, &e));
        assert_int_equal(xlv_session_at(m.session), XLV_STEP_PLACE);
        OK(xlv_journal_load(m.journal, &record, &e));
        memcpy(want, record.response, 44);
        /* any bytes of it, and the length field or not */
        for (unsigned i = 0; i < 44; i++)
            if (random() % 2)
                m.port.page[8 + i] = want[i];
        if (round % 2)
            put32(m.port.page, 44);
        kill_it(&m);
        start(&m);
        finish(&m, &a);
        assert_int_equal(a.n, 44);
        assert_memory_equal(a.b, want, 44);
    }
    end(&m);
}

static void a_commit_that_was_cut_off_is_made_up_for(void **unused)
{
    struct machine m;
    struct answer a;
    uint64_t generation;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    generation = status(&m).generation;
    submit(&m, tpm2_nv_increment(COUNTER));
    for (unsigned i = 0; i < 4; i++) /* INSPECT to RECORD */
        OK(xlv_session_step(m.session, &e));
    assert_int_equal(xlv_session_at(m.session), XLV_STEP_COMMIT);
    kill_it(&m);
    start(&m);
    assert_int_equal(status(&m).generation, generation + 1);
    finish(&m, &a);
    assert_int_equal(read_counter(&m, COUNTER), 2);
    /* and it is on disk: a power cut now */
    kill_it(&m);
    assert_int_equal(ftruncate(m.journal_fd, 0), 0);
    m.ring.domid++;
    start(&m);
    assert_int_equal(read_counter(&m, COUNTER), 2);
    end(&m);
}

static void a_stream_with_kills_equals_one_without(void **unused)
{
    enum { N = 300 };
    struct machine m, reference;
    struct answer a, b;
    uint32_t session[2] = { 0 }, hash[2] = { 0 };
    uint8_t final[2][40];

    (void)unused;
    for (unsigned run = 0; run < 2; run++) {
        struct machine *x = run ? &m : &reference;

        srandom(11);
        new_machine(x, XLV_TPM_2_0);
        start(x);
        define_counters(x);
        good(x, tpm2_start_session(), &a);
        session[run] = get32(a.b + 10);
        good(x, tpm2_hash_start(), &a);
        hash[run] = get32(a.b + 10);
        for (unsigned i = 0; i < N; i++) {
            struct cmd c;

            switch (i % 5) {
            case 0: c = tpm2_nv_increment(COUNTER); break;
            case 1: c = tpm2_nv_increment(ORDERLY); break;
            case 2: c = tpm2_pcr_extend_in_session(5, (uint8_t)i, session[run]); break;
            case 3: c = tpm2_hash_update(hash[run], (uint8_t)i); break;
            default: c = tpm2_nv_write(PLAIN, (uint8_t)i, 16); break;
            }
            submit(x, c);
            for (unsigned kills = 0; run && kills < XLV_ATTEMPTS_MAX - 1 &&
                                     page_state(x) == XLV_RING_SUBMIT; kills++)
                killed_after(x, (unsigned)random() % (STEPS + 1));
            if (page_state(x) == XLV_RING_SUBMIT)
                work(x);
            take_answer(x, &a);
            assert_int_equal(a.code, 0);
            assert_int_equal(status(x).sequence, i + 9);
        }
        good(x, tpm2_hash_complete(hash[run]), &b);
        memcpy(final[run], b.b + 16, 32);
        good(x, tpm2_pcr_read(5), &b);
        memcpy(a.b, b.b + b.n - 32, 32);
        for (unsigned k = 0; k < 32; k++)
            final[run][k] ^= a.b[k]; /* both in one */
        assert_int_equal(read_counter(x, COUNTER), 1 + N / 5);
        assert_int_equal(read_counter(x, ORDERLY), 1 + N / 5);
        end(x);
    }
    assert_memory_equal(final[0], final[1], 32);
}

static void another_request_in_the_page_is_a_new_command(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    /* after every point from MARK on the frontend may have gone on */
    for (unsigned steps = 4; steps <= STEPS; steps++) {
        uint64_t before = read_counter(&m, COUNTER);

        submit(&m, tpm2_nv_increment(COUNTER));
        for (unsigned i = 0; i < steps; i++)
            OK(xlv_session_step(m.session, &e));
        kill_it(&m);
        submit(&m, tpm2_nv_read(COUNTER, 8)); /* against the rules before FINISH */
        start(&m);
        finish(&m, &a);
        assert_int_equal(a.code, 0);
        assert_int_equal(counter_value(&a), before + 1);
    }
    end(&m);
}

/* Two equal requests are two commands: what tells them apart is the mark. */
static void the_same_request_again_is_a_new_command(void **unused)
{
    struct machine m;
    struct answer a;
    uint64_t want = 1;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    for (unsigned steps = 0; steps <= STEPS; steps++) {
        good(&m, tpm2_nv_increment(COUNTER), &a);
        want++;
        submit(&m, tpm2_nv_increment(COUNTER));
        killed_after(&m, steps);
        finish(&m, &a);
        assert_int_equal(a.code, 0);
        want++;
    }
    assert_int_equal(read_counter(&m, COUNTER), want);
    end(&m);
}

static void a_cancel_after_the_execution_still_gets_the_answer(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    for (unsigned steps = 4; steps < STEPS - 1; steps++) {
        uint64_t before = read_counter(&m, COUNTER);

        submit(&m, tpm2_nv_increment(COUNTER));
        for (unsigned i = 0; i < steps; i++)
            OK(xlv_session_step(m.session, &e));
        m.port.page[4] = XLV_RING_CANCEL;
        kill_it(&m);
        start(&m);
        finish(&m, &a);
        assert_int_equal(a.code, 0);
        assert_int_equal(read_counter(&m, COUNTER), before + 1);
    }
    /* and one that was not executed is not */
    submit(&m, tpm2_nv_increment(COUNTER));
    OK(xlv_session_step(m.session, &e));
    OK(xlv_session_step(m.session, &e));
    m.port.page[4] = XLV_RING_CANCEL;
    kill_it(&m);
    start(&m);
    nothing_to_do(&m);
    assert_int_equal(page_state(&m), XLV_RING_IDLE);
    end(&m);
}

static void a_killed_start_starts_again(void **unused)
{
    struct machine m;
    struct answer a, fresh;

    (void)unused;
    /* the journal is written by the end of a cold start; before that a kill
     * leaves it as it was, which here means: of another boot, or empty */
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_read(1), &fresh);
    good(&m, tpm2_pcr_extend(1, 1), &a);
    kill_it(&m);
    for (unsigned i = 0; i < 5; i++) {
        m.ring.domid++;
        start(&m);
        kill_it(&m);
        start(&m);
        assert_true(status(&m).resumed);
        good(&m, tpm2_pcr_read(1), &a);
        assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
        good(&m, tpm2_pcr_extend(1, 1), &a);
        kill_it(&m);
    }
    end(&m);
}

/* --- a command that kills ---------------------------------------------------- */

static void a_command_that_kills_is_given_up(void **unused)
{
    struct machine m;
    struct answer a;
    struct xlv_error why = XLV_ERROR_INIT;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    submit(&m, tpm2_nv_increment(COUNTER));
    for (unsigned i = 0; i < XLV_ATTEMPTS_MAX; i++)
        killed_after(&m, 2); /* INSPECT, BEGIN, and it dies in EXECUTE */
    assert_int_equal(xlv_session_work(m.session, &why), XLV_E_TPM);
    assert_string_not_equal(why.text, "");
    take_answer(&m, &a);
    assert_int_equal(a.code, XLV_TPM2_RC_FAILURE);
    /* the next process serves the next command, from the state before */
    kill_it(&m);
    start(&m);
    assert_int_equal(read_counter(&m, COUNTER), 1);
    good(&m, tpm2_nv_increment(COUNTER), &a);
    end(&m);
}

static void attempts_that_end_are_not_counted_together(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    for (unsigned i = 0; i < 3 * XLV_ATTEMPTS_MAX; i++) {
        submit(&m, tpm2_nv_increment(COUNTER));
        killed_after(&m, 2);
        work(&m);
        take_answer(&m, &a);
        assert_int_equal(a.code, 0);
    }
    end(&m);
}

/* --- a TPM that fails ---------------------------------------------------------- */

/* What libtpms would have to be broken for, done here, once: the command is executed,
 * and what comes back is something else. */
static enum ending { FINE, NO_RESPONSE, FAILURE_MODE, TOO_MUCH, NO_MEMORY } engine_does;
static uint8_t executed[64]; /* what the TPM really answered */

int __real_xlv_engine_execute(uint8_t locality, const uint8_t *request, size_t request_length,
                              const uint8_t **response, size_t *response_length,
                              struct xlv_error *e);
int __wrap_xlv_engine_execute(uint8_t locality, const uint8_t *request, size_t request_length,
                              const uint8_t **response, size_t *response_length,
                              struct xlv_error *e);

int __wrap_xlv_engine_execute(uint8_t locality, const uint8_t *request, size_t request_length,
                              const uint8_t **response, size_t *response_length,
                              struct xlv_error *e)
{
    static uint8_t big[4096] = "\x80\x01\x00\x00\x10\x00\x00\x00\x00\x00";
    int r = __real_xlv_engine_execute(locality, request, request_length, response,
                                      response_length, e);
    enum ending now = engine_does;

    if (now == FINE)
        return r;
    engine_does = FINE;
    memcpy(executed, *response, *response_length < 64 ? *response_length : 64);
    switch (now) {
    case NO_RESPONSE:
        *response = NULL;
        *response_length = 0;
        return xlv_fail(e, XLV_E_TPM, "no response");
    case FAILURE_MODE:
        *response = (const uint8_t *)"\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x01";
        *response_length = 10;
        return 0;
    case TOO_MUCH:
        *response = big;
        *response_length = sizeof(big);
        return 0;
    default:
        return -ENOMEM;
    }
}

static void a_tpm_that_fails_is_put_back(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    for (unsigned i = 0; i < 2; i++) {
        engine_does = i ? FAILURE_MODE : NO_RESPONSE;
        ask(&m, tpm2_nv_increment(COUNTER), &a);
        assert_int_equal(a.code, XLV_TPM2_RC_FAILURE);
        engine_does = i ? FAILURE_MODE : NO_RESPONSE;
        ask(&m, tpm2_get_random(32), &a);
        assert_int_equal(a.code, XLV_TPM2_RC_FAILURE);
        /* bytes that were drawn and undone do not come again */
        good(&m, tpm2_get_random(32), &a);
        assert_memory_not_equal(a.b + 12, executed + 12, 32);
        assert_int_equal(read_counter(&m, COUNTER), 1);
    }
    kill_it(&m);
    start(&m);
    assert_true(status(&m).resumed);
    assert_int_equal(read_counter(&m, COUNTER), 1);
    end(&m);
}

static void a_response_that_does_not_fit_becomes_an_error(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    engine_does = TOO_MUCH;
    ask(&m, tpm2_get_random(32), &a);
    assert_int_equal(a.code, 0x154); /* TPM_RC_NO_RESULT */
    good(&m, tpm2_get_random(32), &a);
    end(&m);
}

static void no_memory_is_for_the_successor_to_solve(void **unused)
{
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    submit(&m, tpm2_nv_increment(COUNTER));
    engine_does = NO_MEMORY;
    assert_int_equal(xlv_session_work(m.session, NULL), -ENOMEM);
    assert_int_equal(page_state(&m), XLV_RING_SUBMIT);
    kill_it(&m);
    start(&m);
    finish(&m, &a);
    assert_int_equal(a.code, 0);
    assert_int_equal(read_counter(&m, COUNTER), 2);
    end(&m);
}

/* --- journal and store ------------------------------------------------------- */

static void flip(int fd, off_t at)
{
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void a_lost_journal_is_a_power_cut_of_the_tpm(void **unused)
{
    struct machine m;
    struct answer a, fresh;
    off_t size;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_pcr_read(1), &fresh);
    good(&m, tpm2_pcr_extend(1, 1), &a);
    kill_it(&m);
    assert_int_equal(ftruncate(m.journal_fd, 0), 0);
    start(&m);
    assert_false(status(&m).resumed);
    good(&m, tpm2_pcr_read(1), &a);
    assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
    assert_int_equal(read_counter(&m, COUNTER), 1);
    good(&m, tpm2_pcr_extend(1, 1), &a);
    kill_it(&m);
    /* damaged all over */
    size = lseek(m.journal_fd, 0, SEEK_END);
    assert_true(size > 0);
    for (off_t at = 0; at < size; at += 16)
        flip(m.journal_fd, at);
    start(&m);
    assert_false(status(&m).resumed);
    good(&m, tpm2_pcr_read(1), &a);
    assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
    assert_int_equal(read_counter(&m, COUNTER), 1);
    end(&m);
}

static void copy_file(int from, int to)
{
    uint8_t *bytes;
    off_t size = lseek(from, 0, SEEK_END);

    bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    assert_int_equal(pread(from, bytes, (size_t)size, 0), size);
    assert_int_equal(ftruncate(to, 0), 0);
    assert_int_equal(pwrite(to, bytes, (size_t)size, 0), size);
    free(bytes);
}

/* A store of three increments ago under the journal of now. */
static void put_back_an_older_store(struct machine *m, struct answer *fresh, struct cmd last)
{
    int old[2] = { temporary(), temporary() };
    struct answer a;

    new_machine(m, XLV_TPM_2_0);
    start(m);
    define_counters(m);
    good(m, tpm2_pcr_read(1), fresh);
    kill_it(m);
    copy_file(m->slots[0], old[0]);
    copy_file(m->slots[1], old[1]);
    start(m);
    good(m, tpm2_nv_increment(COUNTER), &a);
    good(m, tpm2_nv_increment(COUNTER), &a);
    good(m, tpm2_nv_increment(COUNTER), &a);
    good(m, last, &a);
    kill_it(m);
    copy_file(old[0], m->slots[0]);
    copy_file(old[1], m->slots[1]);
    close(old[0]);
    close(old[1]);
    start(m);
}

/* The journal's last states are those of the hash sequence: it cannot tell what the store lacks. */
static void a_journal_of_another_generation_is_not_used(void **unused)
{
    struct machine m;
    struct answer a, fresh;

    (void)unused;
    put_back_an_older_store(&m, &fresh, tpm2_hash_start());
    assert_false(status(&m).resumed);
    assert_int_equal(read_counter(&m, COUNTER), 1);
    good(&m, tpm2_pcr_read(1), &a);
    assert_memory_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
    end(&m);
}

/* The journal's last states are those of the third increment, the permanent one among them. */
static void an_older_store_is_brought_up_by_a_journal_that_has_it_all(void **unused)
{
    struct machine m;
    struct answer a, fresh;

    (void)unused;
    put_back_an_older_store(&m, &fresh, tpm2_pcr_extend(1, 1));
    assert_true(status(&m).resumed);
    assert_int_equal(read_counter(&m, COUNTER), 4);
    good(&m, tpm2_pcr_read(1), &a);
    assert_memory_not_equal(a.b + a.n - 32, fresh.b + fresh.n - 32, 32);
    end(&m);
}

static void read_pcr(struct machine *m, uint32_t pcr, uint8_t value[32])
{
    struct answer a;

    good(m, tpm2_pcr_read(pcr), &a);
    memcpy(value, a.b + a.n - 32, 32);
}

/* Extends are recorded as such: after a kill they are done again, each once, in order, beside
 * what was recorded with all states in between. */
static void extends_are_done_again(void **unused)
{
    uint8_t straight[32], killed[32];
    uint64_t generation = 0;

    (void)unused;
    for (unsigned kills = 0; kills < 2; kills++) {
        struct machine m;
        struct answer a;

        new_machine(&m, XLV_TPM_2_0);
        start(&m);
        /* more than fit one record, and whole records in between */
        for (unsigned i = 0; i < 150; i++) {
            good(&m, tpm2_pcr_extend(10, (uint8_t)i), &a);
            good(&m, i % 2 ? tpm2_get_random(8) : tpm2_pcr_read(3), &a);
            if (i % 47 == 46) {
                good(&m, tpm2_start_session(), &a);
                good(&m, tpm2_flush(get32(a.b + 10)), &a);
            }
            if (kills && i % 7 == 6) {
                kill_it(&m);
                start(&m);
                assert_true(status(&m).resumed);
            }
        }
        read_pcr(&m, 10, kills ? killed : straight);
        /* twice in a row: nothing is recorded of a start */
        kill_it(&m);
        start(&m);
        kill_it(&m);
        start(&m);
        read_pcr(&m, 10, killed);
        assert_memory_equal(killed, straight, 32);
        generation = status(&m).generation;
        end(&m);
    }
    assert_true(generation < 20); /* none of it was for the disk */
}

static bool recorded_as_repeated(struct machine *m)
{
    struct xlv_journal_record record;

    OK(xlv_journal_load(m->journal, &record, &e));
    return record.repeat_changes;
}

#define EXTENDED 0x01500004u
#define BITS 0x01500005u

/*
 * So is what writes to an NV index, though it is committed each time: what the guest reads is as if
 * nobody had been killed, and the store alone has it as well, after a power cut.
 */
static void writes_are_done_again(void **unused)
{
    static const struct { uint32_t index; uint16_t size; } read[] = {
        { COUNTER, 8 }, { ORDERLY, 8 }, { PLAIN, 16 }, { EXTENDED, 32 }, { BITS, 8 },
    };
    uint8_t straight[5][32], pcr[2][32];
    struct answer a;

    (void)unused;
    for (unsigned kills = 0; kills < 2; kills++) {
        struct machine m;
        unsigned again = 0;

        srandom(17);
        new_machine(&m, XLV_TPM_2_0);
        start(&m);
        define_counters(&m);
        good(&m, tpm2_nv_define(EXTENDED, TPM2_NV_EXTEND, 32), &a);
        good(&m, tpm2_nv_define(BITS, TPM2_NV_BITS, 8), &a);
        for (unsigned i = 0; i < 200; i++) {
            /* beside them what is recorded whole, and what turns the generator */
            switch (i % 11) {
            case 0: submit(&m, tpm2_nv_extend(EXTENDED, (uint8_t)i)); break;
            case 1: submit(&m, tpm2_nv_set_bits(BITS, UINT64_C(1) << i % 64)); break;
            case 2: submit(&m, tpm2_nv_increment(ORDERLY)); break;
            case 3: submit(&m, tpm2_pcr_extend(10, (uint8_t)i)); break;
            case 4: submit(&m, i % 2 ? tpm2_hash_start() : tpm2_get_random(8)); break;
            case 5: case 6: submit(&m, tpm2_nv_increment(COUNTER)); break;
            default: submit(&m, tpm2_nv_write(PLAIN, (uint8_t)i, 16)); break;
            }
            for (unsigned n = 0; kills && random() % 2 && n < XLV_ATTEMPTS_MAX - 1 &&
                                 page_state(&m) == XLV_RING_SUBMIT; n++)
                killed_after(&m, (unsigned)random() % (STEPS + 1));
            if (page_state(&m) == XLV_RING_SUBMIT)
                work(&m);
            take_answer(&m, &a);
            assert_int_equal(a.code, 0);
            again += recorded_as_repeated(&m);
            if (i % 11 == 4 && i % 2)
                good(&m, tpm2_flush(get32(a.b + 10)), &a);
            if (kills && i % 5 == 4) {
                kill_it(&m);
                start(&m);
                assert_true(status(&m).resumed);
            }
        }
        assert_true(again > (kills ? 20 : 100));
        read_pcr(&m, 10, pcr[kills]);
        for (unsigned cut = 0; cut < 2; cut++) {
            for (unsigned i = 0; i < 5; i++) {
                good(&m, tpm2_nv_read(read[i].index, read[i].size), &a);
                if (!kills && !cut)
                    memcpy(straight[i], a.b + 16, read[i].size);
                else if (!cut || read[i].index != ORDERLY) /* which may be ahead then */
                    assert_memory_equal(straight[i], a.b + 16, read[i].size);
            }
            kill_it(&m);
            assert_int_equal(ftruncate(m.journal_fd, 0), 0);
            start(&m);
            assert_false(status(&m).resumed);
        }
        end(&m);
    }
    assert_memory_equal(pcr[0], pcr[1], 32);
}

/* The domain goes, and its process dies amid a write of a row of them: the next boot finds it
 * written or not at all, and every one before it. */
static void a_new_boot_has_what_was_written_last(void **unused)
{
    struct machine m;
    struct answer a;
    uint64_t want = 1;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    for (unsigned steps = 0; steps <= STEPS; steps++) {
        uint64_t found;

        good(&m, tpm2_nv_define(BITS, TPM2_NV_BITS, 8), &a); /* recorded whole */
        good(&m, tpm2_nv_increment(COUNTER), &a);
        assert_true(recorded_as_repeated(&m));
        want++;
        submit(&m, tpm2_nv_increment(COUNTER));
        for (unsigned i = 0; i < steps; i++)
            OK(xlv_session_step(m.session, &e));
        kill_it(&m);
        memset(&m.port.page, 0, sizeof(m.port.page));
        m.ring.domid++;
        start(&m);
        found = read_counter(&m, COUNTER);
        /* recorded: made up for */
        assert_int_equal(found, want + (steps >= 4));
        want = found;
        good(&m, tpm2_nv_undefine(BITS), &a);
    }
    end(&m);
}

/* What the disk refuses is not done again, by this process or the next. */
static void a_write_that_was_undone_is_not_done_again(void **unused)
{
    (void)unused;
    for (unsigned killed = 0; killed < 2; killed++) {
        struct machine m;
        struct answer a;

        new_machine(&m, XLV_TPM_2_0);
        start(&m);
        define_counters(&m);
        for (unsigned i = 0; i < 3; i++)
            good(&m, tpm2_nv_increment(COUNTER), &a);
        assert_true(recorded_as_repeated(&m));
        sync_failures(0, XLV_COMMIT_TRIES);
        ask(&m, tpm2_nv_increment(COUNTER), &a);
        sync_failures(0, 0);
        assert_int_equal(a.code, 0x923);
        if (killed) {
            kill_it(&m);
            start(&m);
            assert_true(status(&m).resumed);
        }
        assert_int_equal(read_counter(&m, COUNTER), 4);
        good(&m, tpm2_nv_increment(COUNTER), &a);
        kill_it(&m);
        start(&m);
        assert_int_equal(read_counter(&m, COUNTER), 5);
        end(&m);
    }
}

/* So are those of TPM 1.2. */
static void extends_of_tpm_1_2_are_done_again(void **unused)
{
    struct answer straight, killed;

    (void)unused;
    for (unsigned kills = 0; kills < 2; kills++) {
        struct machine m;
        struct answer a;

        new_machine(&m, XLV_TPM_1_2);
        start(&m);
        for (unsigned i = 0; i < 100; i++) {
            submit(&m, tpm12_extend(10, (uint8_t)i));
            if (kills && i % 17 == 16)
                killed_after(&m, i % (STEPS + 1));
            if (page_state(&m) == XLV_RING_SUBMIT)
                work(&m);
            take_answer(&m, &a);
            assert_int_equal(a.code, 0);
            good(&m, tpm12_pcr_read(3), &a);
            if (i % 29 == 28)
                good(&m, tpm12_get_random(8), &a);
        }
        good(&m, tpm12_pcr_read(10), kills ? &killed : &straight);
        end(&m);
    }
    assert_int_equal(killed.n, straight.n);
    assert_memory_equal(killed.b, straight.b, straight.n);
}

/* An HMAC session is recorded by what it was used for, and its nonces are those that the guest has
 * whenever we are killed: between commands, amid one, twice in a row, after GetRandom or a whole
 * record. */
static void hmac_sessions_are_used_again(void **unused)
{
    uint8_t pcr[2][32], nonce[16];
    uint32_t session = 0;

    (void)unused;
    for (unsigned run = 0; run < 2; run++) {
        struct machine m;
        struct answer a;

        srandom(5);
        new_machine(&m, XLV_TPM_2_0);
        start(&m);
        define_counters(&m);
        for (unsigned i = 0; i < 400; i++) {
            if (i % 23 == 0) {
                if (i)
                    good(&m, tpm2_flush(session), &a);
                good(&m, tpm2_start_session(), &a);
                session = get32(a.b + 10);
                memcpy(nonce, a.b + 16, 16);
            }
            if (i % 31 == 30)
                good(&m, tpm2_get_random(8), &a);
            if (i % 53 == 52)
                good(&m, tpm2_nv_increment(i % 2 ? COUNTER : ORDERLY), &a);
            submit(&m, tpm2_pcr_extend_with_hmac(9, (uint8_t)i, session, nonce));
            for (unsigned kills = 0; run && random() % 3 && kills < XLV_ATTEMPTS_MAX - 1 &&
                                     page_state(&m) == XLV_RING_SUBMIT; kills++)
                killed_after(&m, (unsigned)random() % (STEPS + 1));
            if (page_state(&m) == XLV_RING_SUBMIT)
                work(&m);
            take_answer(&m, &a);
            assert_int_equal(a.code, 0);
            memcpy(nonce, a.b + 16, 16);
            if (run && i % 5 == 4) {
                kill_it(&m);
                start(&m);
                assert_true(status(&m).resumed);
            }
        }
        read_pcr(&m, 9, pcr[run]);
        end(&m);
    }
    assert_memory_equal(pcr[0], pcr[1], 32);
}

static uint64_t sum(const struct xlv_latency *l)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < XLV_LATENCY_BUCKETS; i++)
        n += l->buckets[i];
    return n;
}

/* In the journal's file, where others read it, over kills and new boots. */
static void what_is_done_is_counted(void **unused)
{
    struct xlv_statistics n;
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_read(1), &a);
    good(&m, tpm2_nv_define(PLAIN, 0, 16), &a);
    good(&m, tpm2_nv_write(PLAIN, 1, 16), &a);
    ask(&m, tpm2_read_public(COUNTER), &a);
    assert_int_not_equal(a.code, 0);
    kill_it(&m);
    start(&m);
    good(&m, tpm2_pcr_extend(1, 1), &a);
    nothing_to_do(&m);
    kill_it(&m);
    m.ring.domid++;
    start(&m);
    good(&m, tpm2_nv_write(PLAIN, 2, 16), &a);
    assert_int_equal(pread(m.journal_fd, &n, sizeof(n), XLV_STATISTICS_OFFSET), sizeof(n));
    assert_true(n.magic == XLV_STATISTICS_MAGIC);
    assert_int_equal(n.processes, 3);
    assert_int_equal(n.commands, 6);
    assert_int_equal(n.failed, 1);
    assert_int_equal(n.cancelled, 0);
    assert_in_range(n.commits, 3, 3 + 4); /* and those of two starts and an end */
    assert_int_equal(n.failed_commits, 0);
    assert_int_equal(sum(&n.all), 6);
    assert_int_equal(sum(&n.durable), 3);
    assert_true(n.all.sum_ns > n.durable.sum_ns && n.durable.sum_ns);
    /* a commit that the disk refuses */
    sync_failures(0, XLV_COMMIT_TRIES);
    ask(&m, tpm2_nv_write(PLAIN, 3, 16), &a);
    sync_failures(0, 0);
    assert_int_equal(pread(m.journal_fd, &n, sizeof(n), XLV_STATISTICS_OFFSET), sizeof(n));
    assert_int_equal(n.failed_commits, XLV_COMMIT_TRIES);
    assert_int_equal(n.failed, 2);
    end(&m);
}

/* What was extended and written since the last whole record is part of what is kept, by the process
 * itself and by one that does it in its place; and of what an orderly end ends. */
static void what_is_done_again_is_kept_with_a_suspended_domain(void **unused)
{
    (void)unused;
    for (unsigned killed = 0; killed < 3; killed++) {
        struct machine m;
        struct answer a;
        uint8_t before[32], after[32];

        new_machine(&m, XLV_TPM_2_0);
        start(&m);
        define_counters(&m);
        for (uint8_t i = 0; i < 5; i++) {
            good(&m, tpm2_pcr_extend(10, i), &a);
            good(&m, tpm2_nv_increment(COUNTER), &a);
            good(&m, tpm2_nv_increment(ORDERLY), &a);
        }
        read_pcr(&m, 10, before);
        assert_true(recorded_as_repeated(&m));
        if (killed == 2) { /* in its last commit */
            submit(&m, tpm2_nv_increment(COUNTER));
            for (unsigned i = 0; i < 4; i++)
                OK(xlv_session_step(m.session, &e));
        }
        if (killed) {
            kill_it(&m);
            keep_it(&m);
        } else {
            OK(xlv_session_stop(m.session, XLV_STOP_SUSPEND, &e));
            kill_it(&m);
        }
        memset(&m.port.page, 0, sizeof(m.port.page));
        m.ring.domid = 9;
        m.boot = XLV_BOOT_KEPT;
        start(&m);
        read_pcr(&m, 10, after);
        assert_memory_equal(after, before, 32);
        assert_int_equal(read_counter(&m, COUNTER), killed == 2 ? 7 : 6);
        assert_int_equal(read_counter(&m, ORDERLY), 6);
        end(&m);
    }
}

/* Where a command is audited, reading changes the TPM: the digest over what was read is not
 * lost with the process. */
static void what_is_audited_is_recorded(void **unused)
{
    struct answer digest[2];

    (void)unused;
    for (unsigned kills = 0; kills < 2; kills++) {
        struct machine m;
        struct answer a;

        new_machine(&m, XLV_TPM_2_0);
        start(&m);
        good(&m, tpm2_audit(0x17e), &a); /* PCR_Read */
        for (uint32_t i = 0; i < 3; i++) {
            good(&m, tpm2_pcr_read(i), &a);
            if (kills) {
                kill_it(&m);
                start(&m);
            }
        }
        good(&m, tpm2_audit_digest(), &digest[kills]);
        end(&m);
    }
    assert_int_equal(digest[0].n, digest[1].n);
    assert_memory_equal(digest[0].b + digest[0].n - 44, digest[1].b + digest[1].n - 44, 32);
}

#define PIN 0x01500006u

/* NV_DefineSpace of a PIN index that the TPM counts in memory: of wrong uses (8, PIN_FAIL) or of
 * right ones (9, PIN_PASS). The platform reads and writes it, and whoever knows its PIN, which is
 * empty. */
static struct cmd define_pin(uint32_t kind)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x12a);

    xlv_put_u32_be(&w, TPM2_RH_PLATFORM);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 0); /* auth */
    xlv_put_u16_be(&w, 14);
    xlv_put_u32_be(&w, PIN);
    xlv_put_u16_be(&w, TPM2_ALG_SHA256);
    /* PLATFORMCREATE, NO_DA, ORDERLY; AUTHREAD, PPREAD; PPWRITE */
    xlv_put_u32_be(&w, 0x40000000u | 0x02000000u | 0x04000000u | 0x00050000u | 1 | kind << 4);
    xlv_put_u16_be(&w, 0); /* policy */
    xlv_put_u16_be(&w, 8);
    cmd_end(&c, &w);
    return c;
}

static struct cmd limit_pin(uint32_t limit)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x137);

    xlv_put_u32_be(&w, TPM2_RH_PLATFORM);
    xlv_put_u32_be(&w, PIN);
    put_auth(&w, TPM2_RS_PW, 0, NULL, 0);
    xlv_put_u16_be(&w, 8);
    xlv_put_u32_be(&w, 0);
    xlv_put_u32_be(&w, limit);
    xlv_put_u16_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

/* NV_Read, authorised by the platform or by the index itself, with its PIN or another. */
static struct cmd read_pin(uint32_t by, bool right)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x14e);

    xlv_put_u32_be(&w, by);
    xlv_put_u32_be(&w, PIN);
    xlv_put_u32_be(&w, right ? 9 : 10);
    xlv_put_u32_be(&w, TPM2_RS_PW);
    xlv_put_u16_be(&w, 0);
    xlv_put_u8(&w, 0);
    xlv_put_u16_be(&w, right ? 0 : 1);
    if (!right)
        xlv_put_u8(&w, 'x');
    xlv_put_u16_be(&w, 8);
    xlv_put_u16_be(&w, 0);
    cmd_end(&c, &w);
    return c;
}

/* Reading with a PIN counts, and of an orderly index in memory alone: neither a killed process nor
 * a save and restore gives the guest its tries back. */
static void uses_of_a_pin_stay_counted(void **unused)
{
    static const uint32_t kinds[] = { 8, 9 };

    (void)unused;
    for (unsigned i = 0; i < 4; i++) {
        bool fails = kinds[i % 2] == 8, saved = i >= 2;
        struct machine m;
        struct answer a;

        new_machine(&m, XLV_TPM_2_0);
        start(&m);
        good(&m, define_pin(kinds[i % 2]), &a);
        good(&m, limit_pin(3), &a);
        good(&m, tpm2_hash_start(), &a); /* a whole record */
        for (unsigned use = 0; use < 3; use++) {
            ask(&m, read_pin(PIN, !fails), &a);
            assert_int_equal(a.code, fails ? 0x9a2 : 0);
        }
        if (saved) {
            suspend(&m);
            m.boot = XLV_BOOT_KEPT;
        } else {
            kill_it(&m);
        }
        start(&m);
        good(&m, read_pin(TPM2_RH_PLATFORM, true), &a);
        assert_int_equal(get32(a.b + 16), 3);
        ask(&m, read_pin(PIN, true), &a);
        assert_int_not_equal(a.code, 0);
        end(&m);
    }
}

/* GetCapability of one property with a session that audits it. */
static struct cmd audited(uint32_t session, uint8_t byte)
{
    struct cmd c;
    struct xlv_bytes w = cmd_begin(&c, 0x8002, 0x17a);
    uint8_t nonce[16];

    memset(nonce, byte, sizeof(nonce));
    put_auth(&w, session, 0x81, nonce, sizeof(nonce)); /* audit, continueSession */
    xlv_put_u32_be(&w, 6);
    xlv_put_u32_be(&w, 0x105);
    xlv_put_u32_be(&w, 1);
    cmd_end(&c, &w);
    return c;
}

/* A session that audits is exclusive until any other command comes, and tells that in its answers:
 * also one that changes nothing is between two of them then. */
static void an_audit_session_is_used_again(void **unused)
{
    struct machine m;
    struct answer a;
    uint32_t session;
    uint8_t before[32], after[32];

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_extend(10, 7), &a);
    good(&m, tpm2_start_session(), &a);
    session = get32(a.b + 10);
    good(&m, audited(session, 1), &a);
    good(&m, tpm2_pcr_read(1), &a);
    good(&m, audited(session, 2), &a);
    read_pcr(&m, 10, before);
    kill_it(&m);
    start(&m);
    assert_true(status(&m).resumed);
    read_pcr(&m, 10, after);
    assert_memory_equal(after, before, 32);
    good(&m, audited(session, 3), &a);
    end(&m);
}

/* Of a boot that cannot be repeated, as with another libtpms, the guest has at least its next
 * command answered, by a TPM that had a power cut. */
static void what_cannot_be_repeated_is_a_power_cut(void **unused)
{
    static const uint8_t zero[32];
    struct xlv_journal_record record;
    uint8_t *repeat, pcr[32];
    struct machine m;
    struct answer a;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_hash_start(), &a); /* a whole record */
    good(&m, tpm2_pcr_extend(10, 7), &a);
    kill_it(&m);
    OK(xlv_journal_new(&m.journal, m.journal_fd, &uuid, journal_key, &e));
    OK(xlv_journal_load(m.journal, &record, &e));
    assert_true(record.repeat_length > 8);
    repeat = malloc(record.repeat_length);
    memcpy(repeat, record.repeat, record.repeat_length);
    repeat[record.repeat_length - 1] ^= 1; /* of what the TPM had answered */
    record.repeat = repeat;
    record.sequence++;
    OK(xlv_journal_append_exchange(m.journal, &record, &e));
    free(repeat);
    xlv_journal_free(m.journal);
    m.journal = NULL;
    start(&m);
    assert_false(status(&m).resumed);
    read_pcr(&m, 10, pcr);
    assert_memory_equal(pcr, zero, 32);
    end(&m);
}

/* The kept state is in the store, though its process was told of an error, or was killed; the
 * journal counts on more generations, for a commit was undone. */
static void a_kept_state_is_not_undone_by_its_journal(void **unused)
{
    struct machine m;
    struct answer a;
    uint8_t before[32], after[32];

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_pcr_extend(10, 7), &a);
    read_pcr(&m, 10, before);
    sync_failures(0, 3);
    ask(&m, tpm2_nv_increment(COUNTER), &a);
    assert_int_equal(a.code, 0x923); /* TPM_RC_NV_UNAVAILABLE */
    sync_failures(0, 3);
    assert_int_not_equal(xlv_session_stop(m.session, XLV_STOP_SUSPEND, NULL), 0);
    sync_failures(0, 0);
    kill_it(&m);
    keep_it(&m);
    memset(&m.port.page, 0, sizeof(m.port.page));
    m.ring.domid = 9;
    m.boot = XLV_BOOT_KEPT;
    start(&m);
    read_pcr(&m, 10, after);
    assert_memory_equal(after, before, 32);
    end(&m);
}

static void an_empty_store_is_not_filled_by_itself(void **unused)
{
    struct machine m;
    struct xlv_error why = XLV_ERROR_INIT;

    (void)unused;
    new_machine_with_empty_store(&m, XLV_TPM_2_0);
    assert_int_equal(try_start(&m, &why), XLV_E_EMPTY);
    assert_string_not_equal(why.text, "");
    end(&m);
}

static void a_damaged_store_is_refused_and_kept(void **unused)
{
    struct machine m;
    struct answer a;
    struct xlv_error why = XLV_ERROR_INIT;
    uint8_t before[2][32768], after[2][32768];

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_get_random(4), &a);
    kill_it(&m);
    for (unsigned i = 0; i < 2; i++)
        for (off_t at = 20; at < 4096; at += 64)
            flip(m.slots[i], at);
    for (unsigned i = 0; i < 2; i++)
        assert_true(pread(m.slots[i], before[i], sizeof(before[i]), 0) > 4096);
    assert_true(try_start(&m, &why) > 0);
    assert_string_not_equal(why.text, "");
    for (unsigned i = 0; i < 2; i++) {
        assert_true(pread(m.slots[i], after[i], sizeof(after[i]), 0) > 4096);
        assert_memory_equal(before[i], after[i], sizeof(before[i]));
    }
    end(&m);
}

/* From now on commits fail: the store's descriptors become read-only ones. */
static void break_store_now(struct machine *m, int keep[2])
{
    for (unsigned i = 0; i < 2; i++) {
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", m->slots[i]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        keep[i] = dup(m->slots[i]);
        assert_true(fd >= 0 && keep[i] >= 0);
        assert_int_equal(dup2(fd, m->slots[i]), m->slots[i]);
        close(fd);
    }
}

static void mend_store_now(struct machine *m, int keep[2])
{
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(dup2(keep[i], m->slots[i]), m->slots[i]);
        close(keep[i]);
    }
}

static void a_change_that_cannot_be_made_durable_did_not_happen(void **unused)
{
    struct machine m;
    struct answer a, pcr;
    uint64_t generation;
    int keep[2];

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_pcr_extend(9, 9), &a);
    good(&m, tpm2_pcr_read(9), &pcr);
    generation = status(&m).generation;
    break_store_now(&m, keep);
    ask(&m, tpm2_nv_increment(COUNTER), &a);
    assert_int_equal(a.code, 0x923); /* TPM_RC_NV_UNAVAILABLE */
    ask(&m, tpm2_nv_increment(COUNTER), &a);
    assert_int_equal(a.code, 0x923);
    ask(&m, tpm2_pcr_read(9), &a);
    assert_int_equal(a.code, 0x923);
    assert_int_equal(status(&m).generation, generation);
    mend_store_now(&m, keep);
    /* the disk is back, and so is the TPM, as it was */
    assert_int_equal(read_counter(&m, COUNTER), 1);
    good(&m, tpm2_pcr_read(9), &a);
    assert_memory_equal(a.b + a.n - 32, pcr.b + pcr.n - 32, 32);
    good(&m, tpm2_nv_increment(COUNTER), &a);
    assert_int_equal(read_counter(&m, COUNTER), 2);
    kill_it(&m);
    start(&m);
    assert_true(status(&m).resumed);
    assert_int_equal(read_counter(&m, COUNTER), 2);
    end(&m);
}

static void tpm_1_2_says_fail_where_storage_fails(void **unused)
{
    struct machine m;
    struct answer a;
    int keep[2];

    (void)unused;
    new_machine(&m, XLV_TPM_1_2);
    start(&m);
    good(&m, tpm12_extend(3, 3), &a);
    break_store_now(&m, keep);
    ask(&m, tpm12_simple(0x98), &a); /* TPM_SaveState */
    assert_int_equal(a.code, 9);
    mend_store_now(&m, keep);
    good(&m, tpm12_simple(0x98), &a);
    end(&m);
}

static void killed_while_storage_fails(void **unused)
{
    struct machine m;
    struct answer a, pcr;
    uint64_t want = 1;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_pcr_extend(9, 9), &a);
    good(&m, tpm2_pcr_read(9), &pcr);
    for (unsigned steps = 0; steps <= STEPS + 3; steps++) {
        int keep[2];

        break_store_now(&m, keep);
        submit(&m, tpm2_nv_increment(COUNTER));
        for (unsigned i = 0; i < steps; i++) {
            OK(xlv_session_step(m.session, &e));
            if (xlv_session_at(m.session) == XLV_STEP_INSPECT)
                break;
        }
        kill_it(&m);
        mend_store_now(&m, keep);
        start(&m);
        assert_true(status(&m).resumed);
        finish(&m, &a);
        /* done, or not done: what was said is what is */
        if (a.code == 0)
            want++;
        else
            assert_int_equal(a.code, 0x923);
        assert_int_equal(read_counter(&m, COUNTER), want);
        good(&m, tpm2_pcr_read(9), &a);
        assert_memory_equal(a.b + a.n - 32, pcr.b + pcr.n - 32, 32);
    }
    end(&m);
}

/*
 * The worst kind of failure: the write is on disk, and only the sync says no.
 * What the store then holds is a state that the guest was told does not exist.
 */
static void a_disowned_state_on_disk_does_not_come_back(void **unused)
{
    struct machine m;
    struct answer a, pcr;
    uint64_t want = 1;
    unsigned undone = 0;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    define_counters(&m);
    good(&m, tpm2_pcr_extend(9, 9), &a);
    good(&m, tpm2_pcr_read(9), &pcr);
    for (unsigned syncs = 1; syncs <= 9; syncs++)
        for (unsigned steps = 0; steps <= STEPS + 2; steps++) {
            failing_syncs = syncs;
            submit(&m, tpm2_nv_increment(COUNTER));
            for (unsigned i = 0; i < steps; i++) {
                OK(xlv_session_step(m.session, &e));
                if (xlv_session_at(m.session) == XLV_STEP_INSPECT)
                    break;
            }
            failing_syncs = 0;
            kill_it(&m);
            start(&m);
            assert_true(status(&m).resumed);
            finish(&m, &a);
            if (a.code == 0)
                want++;
            else
                assert_int_equal(a.code, 0x923);
            undone += a.code != 0;
            assert_int_equal(read_counter(&m, COUNTER), want);
            good(&m, tpm2_pcr_read(9), &a);
            assert_memory_equal(a.b + a.n - 32, pcr.b + pcr.n - 32, 32);
        }
    assert_true(undone > 10);
    end(&m);
}

/* --- cancel ------------------------------------------------------------------- */

static void *volatile cancel_page;

static void on_signal(int n)
{
    (void)n;
    xlv_ring_set_state(cancel_page, XLV_RING_CANCEL);
}

static void a_running_command_is_cancelled_from_the_page(void **unused)
{
    struct machine m;
    struct answer a;
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
    struct itimerspec soon = { .it_value = { .tv_nsec = 1000000 } };
    unsigned idle = 0, finished = 0;
    timer_t timer;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    OK(xlv_cancel_init(&e));
    start(&m);
    cancel_page = m.port.page;
    sigemptyset(&action.sa_mask);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    good(&m, tpm2_create_primary_rsa(2048, 0), &a);
    good(&m, tpm2_flush(get32(a.b + 10)), &a);
    for (unsigned i = 1; i < 200 && !idle; i++) {
        submit(&m, tpm2_create_primary_rsa(2048, (uint8_t)i));
        timer_settime(timer, 0, &soon, NULL); /* the guest changes its mind */
        work(&m);
        if (page_state(&m) == XLV_RING_IDLE) {
            idle++;
        } else {
            finished++;
            /* it was too fast, or at the last prime: FINISH */
            take_answer(&m, &a);
            assert_int_equal(a.code, 0);
            good(&m, tpm2_flush(get32(a.b + 10)), &a);
        }
    }
    assert_int_equal(idle, 1);
    timer_delete(timer);
    /* the next command is not cancelled */
    good(&m, tpm2_create_primary_rsa(2048, 250), &a);
    kill_it(&m);
    start(&m);
    nothing_to_do(&m);
    good(&m, tpm2_get_random(8), &a);
    xlv_cancel_deinit();
    end(&m);
}

/* --- randomness ----------------------------------------------------------------- */

static void one_state_resumed_twice_gives_different_randoms(void **unused)
{
    struct machine m;
    struct answer a, b;
    int journal = temporary(), slots[2] = { temporary(), temporary() };

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    start(&m);
    good(&m, tpm2_pcr_extend(1, 1), &a);
    kill_it(&m);
    copy_file(m.journal_fd, journal);
    copy_file(m.slots[0], slots[0]);
    copy_file(m.slots[1], slots[1]);
    start(&m);
    assert_true(status(&m).resumed);
    good(&m, tpm2_get_random(32), &a);
    kill_it(&m);
    copy_file(journal, m.journal_fd);
    copy_file(slots[0], m.slots[0]);
    copy_file(slots[1], m.slots[1]);
    start(&m);
    assert_true(status(&m).resumed);
    good(&m, tpm2_get_random(32), &b);
    assert_memory_not_equal(a.b + 12, b.b + 12, 32);
    close(journal);
    close(slots[0]);
    close(slots[1]);
    end(&m);
}

static void no_log(enum xlv_log_level level, const struct xlv_log_subject *subject,
                   const char *text)
{
    (void)level;
    (void)subject;
    (void)text;
}

static int make_factories(void **state)
{
    (void)state;
    /* every kill and every failed commit says so */
    xlv_log_set_sink(no_log);
    for (unsigned i = 0; i < 2; i++)
        if (xlv_manufacture(i ? &how_2_0 : &how_1_2, &factory[i].data, &factory[i].length,
                            NULL))
            return -1;
    return 0;
}

static int drop_factories(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++)
        xlv_engine_wipe(factory[i].data, factory[i].length);
    return 0;
}

/* --- measured boots ---------------------------------------------------------- */

/* The machine's next boots are with this kernel and command line. */
static void boot_with(struct machine *m, const char *kernel, const char *cmdline)
{
    if (m->measured)
        close(m->measure.kernel_fd);
    else
        m->log_fd = temporary();
    m->measured = true;
    m->measure = (struct xlv_measure_boot){ .kernel = "vmlinuz", .cmdline = cmdline,
                                            .kernel_fd = temporary() };
    assert_int_equal(write(m->measure.kernel_fd, kernel, strlen(kernel)), strlen(kernel));
}

/* Of the extends of a start, this one (from 1) fails, as if we were killed in it; 0: none. */
static unsigned fail_extend;

int __real_xlv_engine_extend(uint32_t pcr, const struct xlv_digests *digests, struct xlv_error *e);
int __wrap_xlv_engine_extend(uint32_t pcr, const struct xlv_digests *digests, struct xlv_error *e);

int __wrap_xlv_engine_extend(uint32_t pcr, const struct xlv_digests *digests, struct xlv_error *e)
{
    if (fail_extend && !--fail_extend)
        return xlv_fail(e, XLV_E_TPM, "killed here");
    return __real_xlv_engine_extend(pcr, digests, e);
}

/* A process gets the file anew each time. */
static void start_measured(struct machine *m)
{
    assert_int_equal(lseek(m->measure.kernel_fd, 0, SEEK_SET), 0);
    start(m);
}

static void end_measured(struct machine *m)
{
    close(m->measure.kernel_fd);
    close(m->log_fd);
    end(m);
}

/* The TPM's PCR, and the same as the log has it. */
static void same_in_the_log(struct machine *m, unsigned pcr, uint8_t value[32])
{
    uint8_t bytes[XLV_LOG_FILE_HEADER + XLV_EVENTLOG_MAX];
    enum xlv_tpm_version version;
    struct xlv_digests pcrs[XLV_PCRS];
    const bool v2 = m->version == XLV_TPM_2_0;
    struct answer a;
    uint32_t length;
    ssize_t n = pread(m->log_fd, bytes, sizeof(bytes), 0);

    assert_true(n >= (ssize_t)XLV_LOG_FILE_HEADER);
    memcpy(&length, bytes + 4, 4);
    assert_in_range(length, 1, (size_t)n - XLV_LOG_FILE_HEADER);
    assert_int_equal(xlv_measure_replay(bytes + XLV_LOG_FILE_HEADER, length, &version, pcrs), 0);
    assert_int_equal(version, m->version);
    good(m, v2 ? tpm2_pcr_read(pcr) : tpm12_pcr_read(pcr), &a);
    memset(value, 0, 32);
    memcpy(value, a.b + a.n - (v2 ? 32 : 20), v2 ? 32 : 20);
    assert_memory_equal(value, pcrs[pcr].of[v2 ? XLV_HASH_SHA256 : XLV_HASH_SHA1], v2 ? 32 : 20);
}

static void a_boot_is_measured_once(void **unused)
{
    static const enum xlv_tpm_version versions[] = { XLV_TPM_2_0, XLV_TPM_1_2 };

    (void)unused;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t files[32], line[32], again[32];
        struct machine m;

        new_machine(&m, versions[i]);
        boot_with(&m, "kernel", "quiet");
        start_measured(&m);
        same_in_the_log(&m, 9, files);
        same_in_the_log(&m, 8, line);
        assert_memory_not_equal(files, line, 20);
        /* a process that follows a killed one, on another ring, or with another file: not again */
        kill_it(&m);
        boot_with(&m, "another kernel", "loud");
        m.ring.ring_ref++;
        memset(m.port.page, 0, sizeof(m.port.page));
        start_measured(&m);
        assert_true(status(&m).resumed);
        same_in_the_log(&m, 9, again);
        assert_memory_equal(again, files, 32);
        kill_it(&m);
        /* the next boot is with that */
        m.ring.domid++;
        start_measured(&m);
        same_in_the_log(&m, 9, again);
        assert_memory_not_equal(again, files, 20);
        same_in_the_log(&m, 8, again);
        assert_memory_not_equal(again, line, 20);
        /* and one with the first leads to the first PCRs */
        kill_it(&m);
        boot_with(&m, "kernel", "quiet");
        m.ring.domid++;
        start_measured(&m);
        same_in_the_log(&m, 9, again);
        assert_memory_equal(again, files, 32);
        same_in_the_log(&m, 8, again);
        assert_memory_equal(again, line, 32);
        end_measured(&m);
    }
}

static void a_boot_that_is_not_measured_has_no_log(void **unused)
{
    uint8_t bytes[XLV_LOG_FILE_HEADER];
    struct answer a;
    struct machine m;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    boot_with(&m, "kernel", "quiet");
    start_measured(&m);
    kill_it(&m);
    m.measured = false;
    m.ring.domid++;
    start(&m);
    good(&m, tpm2_pcr_read(9), &a);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(a.b[a.n - 32 + i], 0);
    assert_int_equal(pread(m.log_fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_memory_equal(bytes, "XLOG\0\0\0\0", 8);
    end_measured(&m);
}

static void a_start_that_is_killed_amid_the_extends_starts_again(void **unused)
{
    uint8_t whole[32], files[32];
    struct machine m;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    boot_with(&m, "kernel", "quiet");
    start_measured(&m);
    same_in_the_log(&m, 9, whole);
    kill_it(&m);
    for (unsigned k = 1; k <= 5; k++) {
        struct xlv_error why = XLV_ERROR_INIT;

        m.ring.domid++;
        memset(m.port.page, 0, sizeof(m.port.page));
        assert_int_equal(lseek(m.measure.kernel_fd, 0, SEEK_SET), 0);
        fail_extend = k;
        /* kernel, separator, command line, separator; the fifth is none */
        assert_int_equal(try_start(&m, &why), k <= 4 ? XLV_E_TPM : 0);
        assert_int_equal(fail_extend, k <= 4 ? 0 : 1);
        fail_extend = 0;
        kill_it(&m);
        start_measured(&m);
        same_in_the_log(&m, 9, files);
        assert_memory_equal(files, whole, 32);
        kill_it(&m);
    }
    end_measured(&m);
}

static void a_state_that_is_lost_amid_the_boot_does_not_look_measured(void **unused)
{
    uint8_t files[32], after[32], untold[32];
    struct machine m;
    off_t size;

    (void)unused;
    new_machine(&m, XLV_TPM_2_0);
    boot_with(&m, "kernel", "quiet");
    start_measured(&m);
    same_in_the_log(&m, 9, files);
    kill_it(&m);
    size = lseek(m.journal_fd, 0, SEEK_END);
    for (off_t at = 4096; at < size; at += 4096)
        flip(m.journal_fd, at + 300);
    start_measured(&m);
    assert_false(status(&m).resumed);
    same_in_the_log(&m, 9, after);
    assert_memory_not_equal(after, files, 32);
    kill_it(&m);
    /* the same as a boot of which nothing is known */
    m.measure.error = "nobody knows";
    m.ring.domid++;
    start_measured(&m);
    same_in_the_log(&m, 9, untold);
    assert_memory_equal(untold, after, 32);
    end_measured(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_answered),
        cmocka_unit_test(a_command_that_waits_in_the_page_is_served_at_once),
        cmocka_unit_test(a_cancel_left_over_becomes_idle),
        cmocka_unit_test(a_cancel_with_nothing_running_becomes_idle),
        cmocka_unit_test(states_that_tpmif_does_not_know_are_ignored),
        cmocka_unit_test(nonsense_gets_an_error_and_changes_nothing),
        cmocka_unit_test(a_locality_up_to_the_maximum_is_served),
        cmocka_unit_test(what_fits_the_first_page_is_served),
        cmocka_unit_test(a_page_that_changes_under_execution_changes_nothing),
        cmocka_unit_test(whatever_is_in_the_page_gets_an_answer),
        cmocka_unit_test(a_page_that_never_holds_still_breaks_nothing),
        cmocka_unit_test(pcrs_follow_the_boot_not_the_ring),
        cmocka_unit_test(tpm_1_2_resumes_and_reboots_too),
        cmocka_unit_test(what_was_written_is_there_after_reboots),
        cmocka_unit_test(every_boot_is_ended_in_order),
        cmocka_unit_test(an_ended_boot_is_not_ended_twice),
        cmocka_unit_test(a_closed_frontend_keeps_the_volatile_state),
        cmocka_unit_test(a_frozen_domain_goes_on_here_or_elsewhere),
        cmocka_unit_test(a_restored_domain_goes_on_where_it_was_suspended),
        cmocka_unit_test(a_kept_state_is_gone_on_from_once),
        cmocka_unit_test(a_created_domain_does_not_get_the_kept_state),
        cmocka_unit_test(killed_around_a_suspend),
        cmocka_unit_test(two_restores_of_one_state_give_different_randoms),
        cmocka_unit_test(a_counter_counts_once_whenever_we_are_killed),
        cmocka_unit_test(an_orderly_counter_and_a_pcr_too),
        cmocka_unit_test(tpm_1_2_extends_once_whenever_we_are_killed),
        cmocka_unit_test(a_recorded_answer_is_given_never_made_again),
        cmocka_unit_test(a_half_written_answer_is_completed),
        cmocka_unit_test(a_commit_that_was_cut_off_is_made_up_for),
        cmocka_unit_test(a_stream_with_kills_equals_one_without),
        cmocka_unit_test(another_request_in_the_page_is_a_new_command),
        cmocka_unit_test(the_same_request_again_is_a_new_command),
        cmocka_unit_test(a_cancel_after_the_execution_still_gets_the_answer),
        cmocka_unit_test(a_killed_start_starts_again),
        cmocka_unit_test(a_boot_is_measured_once),
        cmocka_unit_test(a_boot_that_is_not_measured_has_no_log),
        cmocka_unit_test(a_start_that_is_killed_amid_the_extends_starts_again),
        cmocka_unit_test(a_state_that_is_lost_amid_the_boot_does_not_look_measured),
        cmocka_unit_test(a_command_that_kills_is_given_up),
        cmocka_unit_test(attempts_that_end_are_not_counted_together),
        cmocka_unit_test(a_tpm_that_fails_is_put_back),
        cmocka_unit_test(a_response_that_does_not_fit_becomes_an_error),
        cmocka_unit_test(no_memory_is_for_the_successor_to_solve),
        cmocka_unit_test(a_lost_journal_is_a_power_cut_of_the_tpm),
        cmocka_unit_test(a_journal_of_another_generation_is_not_used),
        cmocka_unit_test(an_older_store_is_brought_up_by_a_journal_that_has_it_all),
        cmocka_unit_test(extends_are_done_again),
        cmocka_unit_test(writes_are_done_again),
        cmocka_unit_test(a_new_boot_has_what_was_written_last),
        cmocka_unit_test(a_write_that_was_undone_is_not_done_again),
        cmocka_unit_test(extends_of_tpm_1_2_are_done_again),
        cmocka_unit_test(hmac_sessions_are_used_again),
        cmocka_unit_test(what_is_done_is_counted),
        cmocka_unit_test(what_is_done_again_is_kept_with_a_suspended_domain),
        cmocka_unit_test(what_is_audited_is_recorded),
        cmocka_unit_test(uses_of_a_pin_stay_counted),
        cmocka_unit_test(an_audit_session_is_used_again),
        cmocka_unit_test(what_cannot_be_repeated_is_a_power_cut),
        cmocka_unit_test(a_kept_state_is_not_undone_by_its_journal),
        cmocka_unit_test(an_empty_store_is_not_filled_by_itself),
        cmocka_unit_test(a_damaged_store_is_refused_and_kept),
        cmocka_unit_test(a_change_that_cannot_be_made_durable_did_not_happen),
        cmocka_unit_test(tpm_1_2_says_fail_where_storage_fails),
        cmocka_unit_test(killed_while_storage_fails),
        cmocka_unit_test(a_disowned_state_on_disk_does_not_come_back),
        cmocka_unit_test(a_running_command_is_cancelled_from_the_page),
        cmocka_unit_test(one_state_resumed_twice_gives_different_randoms),
    };

    return cmocka_run_group_tests(tests, make_factories, drop_factories);
}
