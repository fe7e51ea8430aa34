/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * scene.h - how the integration tests are told: a harness per test, guests with a vTPM, and what
 * must hold at the end of each. A test that fails shows the daemon's log.
 */
#ifndef INTEGRATION_SCENE_H
#define INTEGRATION_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake/frontend.h"
#include "tests/integration/harness.h"
#include "tests/integration/tpm.h"

#define UUID_A "dcdb124b-9fed-4040-b149-dd2dfd8d094c"
#define UUID_B "0b54a1d9-8e54-4c3e-a0a2-6c6c77b2ea6e"
#define DOWN " has shut down"     /* the daemon, of a domain */
#define SOON soon()              /* a state that must come: libxl's own patience */
#define AT_ONCE 9000             /* what took less has not waited for that to end; milliseconds */

struct scene {
    void (*test)(void);
    const char *config;          /* additional lines */
    bool real;
    uint32_t be_domid;
};

static struct harness H;
static bool scene_done;

static inline int scene_up(void **state)
{
    struct scene *s = *state;
    char config[512];
    int r;

    /* no domain but 0 may ask the hypervisor about others */
    snprintf(config, sizeof(config), "%s%s", s->be_domid ? "untold-boot = created\n" : "",
             s->config ? s->config : "");
    r = harness_up(&H, s->real, config);

    scene_done = false;
    H.be_domid = s->be_domid;
    if (!r && s->be_domid)
        r = fx_domain_create(H.m, s->be_domid, "driver");
    if (r) {
        fprintf(stderr, "harness: %s\n", strerror(-r));
        harness_down(&H);            /* no teardown follows a failed setup */
    }
    return r;
}

static inline void scene_run(void **state)
{
    struct scene *s = *state;

    assert_int_equal(daemon_start(&H), 0);
    s->test();
    /* Whatever was told: the daemon is there and goes when told to, nobody else is, and every
     * page and port was given back. */
    assert_true(daemon_alive(&H));
    assert_true(backends_wait(&H, 0, NULL, 10000));
    assert_int_equal(daemon_stop(&H), 0);
    assert_true(fx_balanced(H.m, s->be_domid));
    scene_done = true;
}

static inline int scene_down(void **state)
{
    (void)state;
    if (!scene_done) {
        fprintf(stderr, "# the daemon's log:\n");
        log_show(&H);
    }
    harness_down(&H);
    return 0;
}

/* In a table of tests. where: "" or a word to tell apart a test that is there twice. */
#define SCENE(where, name, scene_config, over_real, domain)                           \
    { where #name, scene_run, scene_up, scene_down,                                   \
      &(struct scene){ .test = name, .config = scene_config, .real = over_real,       \
                       .be_domid = domain } }
#define DRIVER_DOMID 9

/* ------------------------------------------------------------------ guests */

/* Milliseconds; in valgrind (harness.h) everything takes long. */
static inline int soon(void)
{
    return getenv("VTPM_BACKEND_EXE") ? 100000 : 10000;
}

struct vm {
    uint32_t domid;
    struct fx_vtpm dev;
    struct fx_guest *g;
    struct fx_frontend *f;
};

/* Domain with one vTPM: xl create, up to the point where the guest runs. */
static inline int vm_create(struct vm *v, uint32_t domid, const char *uuid)
{
    char name[32];
    int r;

    memset(v, 0, sizeof(*v));
    v->domid = domid;
    snprintf(name, sizeof(name), "guest%u", domid);
    assert_int_equal(fx_domain_create(H.m, domid, name), 0);
    fx_vtpm_init(&v->dev, H.be_domid, domid, 0, uuid);
    r = fx_vtpm_create(H.m, &v->dev);
    if (!r)
        assert_int_equal(fx_guest_open(&v->g, H.m, domid), 0);
    return r;
}

/* The guest's driver is loaded and connects. */
static inline void vm_probe(struct vm *v)
{
    assert_int_equal(fx_frontend_open(&v->f, v->g, &v->dev, 0), 0);
    assert_int_equal(fx_frontend_connect(v->f, SOON), 0);
}

static inline void vm_boot(struct vm *v, uint32_t domid, const char *uuid)
{
    assert_int_equal(vm_create(v, domid, uuid), 0);
    vm_probe(v);
}

/* xl destroy: the guest is not asked. */
static inline void vm_destroy(struct vm *v)
{
    int r = fx_vtpm_remove(H.m, &v->dev, FX_DESTROY);

    fx_frontend_free(v->f);
    fx_guest_close(v->g);
    v->f = NULL;
    v->g = NULL;
    assert_int_equal(r, 0);
    assert_int_equal(fx_domain_destroy(H.m, v->domid), 0);
    assert_int_equal(fx_domain_erase(H.m, v->domid), 0);
}

/* The guest shuts down on its own, and the daemon has noticed: a libxl that clears the domain away
 * is slower than that, but on a busy host not always. */
static inline void vm_power_off(struct vm *v)
{
    unsigned before = log_count(&H, DOWN);

    assert_int_equal(fx_frontend_close(v->f, SOON), 0);
    assert_int_equal(fx_domain_shutdown(H.m, v->domid, 0), 0);
    /* no domain but 0 may ask the hypervisor about others */
    if (!H.be_domid)
        assert_true(log_wait_for(&H, DOWN, before + 1, SOON));
}

/* Then the toolstack clears it away: xl shutdown, reboot. */
static inline void vm_shutdown(struct vm *v)
{
    vm_power_off(v);
    vm_destroy(v);
}

static inline void vm_random(struct vm *v)
{
    static const uint8_t zero[16];
    uint8_t out[16] = { 0 };

    assert_int_equal(tpm2_random(v->f, out, sizeof(out)), 0);
    assert_memory_not_equal(out, zero, sizeof(out));
}

static inline void digest_of(uint8_t d[32], const char *text)
{
    memset(d, 0, 32);
    memcpy(d, text, strlen(text) < 32 ? strlen(text) : 32);
}

static inline void assert_pcr(struct vm *v, uint32_t pcr, const char *text, unsigned int times)
{
    uint8_t d[32], want[32], got[32];

    digest_of(d, text);
    tpm2_expected_pcr(want, d, times);
    assert_int_equal(tpm2_read_pcr(v->f, pcr, got), 0);
    assert_memory_equal(got, want, 32);
}

static inline void extend(struct vm *v, uint32_t pcr, const char *text)
{
    uint8_t d[32];

    digest_of(d, text);
    assert_int_equal(tpm2_extend(v->f, pcr, d), 0);
}

#endif
