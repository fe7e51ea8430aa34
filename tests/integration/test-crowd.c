/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A crowd: hundreds of devices that come and go at once, and what a xenstore in a bad mood does to
 * them. What the daemon does for one device must not depend on how many others there are: that is
 * counted, in requests at the (mock) xenstore, for time says little on a machine that others use
 * too. docs/scale.md has the figures.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/integration/scene.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

/* A sanitized backend takes tens of megabytes where a real one takes one. */
#ifdef SANITIZED
enum { FEW = 10, SOME = 30, MANY = 60, MOODY = 20 };
#else
enum { FEW = 10, SOME = 100, MANY = 500, MOODY = 60 };
#endif

#define PATIENCE 120000          /* ends what hangs; no figure depends on it */

static struct vm crowd[MANY];
#define LATE (MANY + 1u)         /* a domain that comes after all of them */

/* ------------------------------------------------------------------ what the daemon spends */

static uint32_t requests(void)
{
    uint32_t n = 0;

    assert_int_equal(fx_store_requests(H.m, H.daemon, &n), 0);
    return n;
}

static double cpu_seconds(void)
{
    unsigned long user = 0, system = 0;
    char path[64], text[1024], *p;
    size_t n;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)H.daemon);
    f = fopen(path, "re");
    assert_non_null(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    p = strrchr(text, ')');
    assert_non_null(p);
    assert_int_equal(
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static int entries(const char *path)
{
    struct dirent *e;
    DIR *d = opendir(path);
    int n = 0;

    assert_non_null(d);
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static int descriptors(void)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)H.daemon);
    return entries(path);
}

static bool has_no_entry(void *arg)
{
    return entries(arg) == 0;
}

/* The daemon learns of a process's end a little later than we do. */
static void assert_nothing_left(const char *folder)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/run/%s", H.dir, folder);
    fx_wait(has_no_entry, path, SOON);
    assert_int_equal(entries(path), 0);
}

static bool has_so_many(void *arg)
{
    return descriptors() == *(int *)arg;
}

/* ------------------------------------------------------------------ a crowd's life */

/* The toolstack is done with the first half of xl create for each of them. */
static void crowd_adds(int n)
{
    char uuid[40], name[16];

    for (int i = 0; i < n; i++) {
        struct vm *v = &crowd[i];

        memset(v, 0, sizeof(*v));
        v->domid = (uint32_t)i + 1;
        snprintf(uuid, sizeof(uuid), "00000000-1111-4222-8333-%012d", i);
        snprintf(name, sizeof(name), "crowd%d", i);
        assert_int_equal(fx_domain_create(H.m, v->domid, name), 0);
        assert_int_equal(fx_guest_open(&v->g, H.m, v->domid), 0);
        fx_vtpm_init(&v->dev, H.be_domid, v->domid, 0, uuid);
    }
    for (int i = 0; i < n; i++)
        assert_int_equal(fx_vtpm_add(H.m, &crowd[i].dev), 0);
}

static void crowd_waits(int n, enum xenbus_state state)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(fx_vtpm_wait(H.m, &crowd[i].dev, state, PATIENCE), 0);
}

static void crowd_publishes(int n)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(fx_frontend_open(&crowd[i].f, crowd[i].g, &crowd[i].dev, 0), 0);
        assert_int_equal(fx_frontend_publish(crowd[i].f), 0);
    }
}

static void crowd_connects(int n)
{
    crowd_publishes(n);
    crowd_waits(n, XenbusStateConnected);
    for (int i = 0; i < n; i++)
        assert_int_equal(fx_frontend_set_state(crowd[i].f, XenbusStateConnected), 0);
}

static void crowd_asks(int n)
{
    for (int i = 0; i < n; i++)
        vm_random(&crowd[i]);
}

static void crowd_comes(int n)
{
    crowd_adds(n);
    crowd_waits(n, XenbusStateInitWait);
    crowd_connects(n);
    crowd_asks(n);
}

static void crowd_lets_go(int n)
{
    for (int i = 0; i < n; i++) {
        fx_frontend_free(crowd[i].f);
        fx_guest_close(crowd[i].g);
        crowd[i].f = NULL;
        crowd[i].g = NULL;
    }
}

/* All guests shut down, then the toolstack clears them away, devices first, as libxl does. */
static void crowd_goes(int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(fx_domain_shutdown(H.m, crowd[i].domid, 0), 0);
    for (int i = 0; i < n; i++)
        assert_int_equal(fx_vtpm_remove_begin(H.m, &crowd[i].dev, FX_DESTROY), 0);
    crowd_waits(n, XenbusStateClosed);
    for (int i = 0; i < n; i++)
        assert_int_equal(fx_vtpm_vanish(H.m, &crowd[i].dev), 0);
    crowd_lets_go(n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(fx_domain_destroy(H.m, crowd[i].domid), 0);
        assert_int_equal(fx_domain_erase(H.m, crowd[i].domid), 0);
    }
    assert_true(backends_wait(&H, 0, NULL, PATIENCE));
}

/* ------------------------------------------------------------------ tests */

/* Devices are looked at in turn: when a new one is at InitWait, so are all that happened before. */
static void daemon_catches_up(void)
{
    struct vm v;

    assert_int_equal(vm_create(&v, LATE, "99999999-1111-4222-8333-000000000000"), 0);
    vm_destroy(&v);
}

/* Devices that come and go one after another while n are there: what each costs, less what may
 * be asked by the clock. */
static double lives_beside(int n)
{
    enum { LIVES = 20 };
    uint32_t start;
    int64_t t, took;
    double each;

    daemon_catches_up();
    start = requests();
    t = fx_now();
    for (int i = 0; i < LIVES; i++)
        daemon_catches_up();
    took = fx_now() - t;
    each = ((double)(requests() - start) - (double)took * 8 / 10) / LIVES;
    printf("# %3d devices: one more that comes and goes: %.1f requests, at most %.1f of them by the "
           "clock\n", n, (double)(requests() - start) / LIVES, (double)took * 8 / 10 / LIVES);
    return each;
}

struct costs {
    double life, beside;
};

static struct costs a_whole_life(int n)
{
    struct costs costs;
    uint32_t start = requests(), come, live, gone_from;
    double cpu = cpu_seconds();
    int64_t t = fx_now(), wait, served, gone;

    crowd_adds(n);
    crowd_waits(n, XenbusStateInitWait);
    wait = fx_now() - t;
    come = requests();
    crowd_connects(n);
    crowd_asks(n);
    assert_true(backends_wait(&H, n, NULL, PATIENCE));
    served = fx_now() - t;
    live = requests();
    costs.beside = lives_beside(n);
    gone_from = requests();
    t = fx_now();
    crowd_goes(n);
    gone = fx_now() - t;
    costs.life = (double)(live - start + requests() - gone_from) / n;
    printf("# %3d devices: %.1f requests each (%.1f to InitWait, %.1f to serve, %.1f to go); "
           "%.1f ms CPU each; all at InitWait after %.1f s, served after %.1f s, gone in %.1f s\n",
           n, costs.life, (double)(come - start) / n, (double)(live - come) / n,
           (double)(requests() - gone_from) / n,
           1000 * (cpu_seconds() - cpu) / n, (double)wait / 1000, (double)served / 1000,
           (double)gone / 1000);
    return costs;
}

static void the_work_for_a_device_does_not_grow_with_the_crowd(void)
{
    struct costs few, some, many;
    int before;

    a_whole_life(1);                     /* what the daemon opens once is open */
    assert_nothing_left("backend");
    before = descriptors();
    few = a_whole_life(FEW);
    some = a_whole_life(SOME);
    many = a_whole_life(MANY);
    assert_true(some.life < 1.5 * few.life);
    assert_true(many.life < 1.5 * few.life);
    /* few take what they get by the clock at once, so nothing is taken off theirs */
    assert_true(some.beside < 1.5 * 60);
    assert_true(many.beside < 1.5 * 60);
    fx_wait(has_so_many, &before, SOON);
    assert_int_equal(descriptors(), before);
    assert_nothing_left("backend");
    assert_nothing_left("journal");
}

/* A backend that never gets anything done, and ends when the daemon does. */
static int no_tpm_is_ever_made(void **state)
{
    static const char script[] = "#!/bin/sh\nexec cat <&3 >/dev/null\n";
    char path[] = "/dev/shm/xl-vtpm-hangs.XXXXXX";
    const char *was = getenv("VTPM_BACKEND");
    int fd = mkostemp(path, O_CLOEXEC), r;

    if (fd < 0 || write(fd, script, sizeof(script) - 1) != (ssize_t)sizeof(script) - 1 ||
        fchmod(fd, 0700) < 0)
        return -1;
    close(fd);
    was = was ? strdup(was) : NULL;
    setenv("VTPM_BACKEND", path, 1);
    r = scene_up(state);
    if (was)
        setenv("VTPM_BACKEND", was, 1);
    else
        unsetenv("VTPM_BACKEND");
    free((char *)(uintptr_t)was);
    return r;
}

static int the_script_goes(void **state)
{
    unlink(H.backend_program);
    return scene_down(state);
}

static void init_wait_does_not_wait_for_a_tpm_to_be_made(void)
{
    crowd_adds(MOODY);
    crowd_waits(MOODY, XenbusStateInitWait);
    crowd_goes(MOODY);
}

/* Domains die, their toolstack does not clear away; each death is noticed before the next one. */
static void a_death_does_not_ask_for_everybody(void)
{
    enum { N = MANY * 2 / 5, DEATHS = 8 };
    uint32_t start, spent;
    int64_t t, took;

    crowd_comes(N);
    daemon_catches_up();
    t = fx_now();
    start = requests();
    for (int i = 0; i < DEATHS; i++) {
        fx_frontend_free(crowd[i].f);
        fx_guest_close(crowd[i].g);
        crowd[i].f = NULL;
        crowd[i].g = NULL;
        assert_int_equal(fx_domain_destroy(H.m, crowd[i].domid), 0);
        assert_true(backends_wait(&H, N - 1 - i, NULL, PATIENCE));
    }
    spent = requests() - start;
    took = fx_now() - t;
    printf("# %d deaths among %d: %.1f requests each, in %d ms\n", DEATHS, N,
           (double)spent / DEATHS, (int)took);
    /* what a device's own end takes, and what may be asked by the clock meanwhile */
    assert_true(spent < DEATHS * 60 + took * 8 / 10);
    for (int i = 0; i < DEATHS; i++)
        assert_int_equal(fx_vtpm_vanish(H.m, &crowd[i].dev), 0);
    memmove(crowd, crowd + DEATHS, (N - DEATHS) * sizeof(crowd[0]));
    crowd_goes(N - DEATHS);
}

static void everybody_may_die_at_once(void)
{
    crowd_comes(MOODY);
    crowd_lets_go(MOODY);
    for (int i = 0; i < MOODY; i++)
        assert_int_equal(fx_domain_destroy(H.m, crowd[i].domid), 0);
    assert_true(backends_wait(&H, 0, NULL, PATIENCE));
    for (int i = 0; i < MOODY; i++)
        assert_int_equal(fx_vtpm_vanish(H.m, &crowd[i].dev), 0);
    assert_nothing_left("backend");
    assert_nothing_left("journal");
}

static void a_storm_of_watches_is_looked_at_once(void)
{
    enum { STORM = 100 };            /* what a socket takes while nobody reads */
    uint32_t start, spent;

    crowd_comes(MOODY);
    daemon_catches_up();
    start = requests();
    /* The daemon is kept from looking, so that the whole storm is there when it does. */
    process_freeze(H.daemon);
    for (int i = 0; i < STORM; i++) {
        assert_int_equal(fx_write(H.m, "/local/domain/0/backend", "vtpm", ""), 0);
        assert_int_equal(fx_frontend_set_state(crowd[i % MOODY].f, XenbusStateConnected), 0);
    }
    kill(H.daemon, SIGCONT);
    daemon_catches_up();
    spent = requests() - start;
    printf("# a storm over %d devices: %.1f requests for each\n", MOODY, (double)spent / MOODY);
    /* one look at each and one at the directories, where STORM times as many were asked for */
    assert_true(spent < (uint32_t)MOODY * 30 + 100);
    for (int i = 0; i < 5; i++)
        assert_int_equal(fx_store_spurious(H.m, FX_FAULT_ANY), 0);
    crowd_asks(MOODY);
    crowd_goes(MOODY);
}

static void transactions_that_conflict_again_and_again(void)
{
    crowd_adds(MOODY);
    crowd_waits(MOODY, XenbusStateInitWait);
    assert_int_equal(fx_store_conflict(H.m, 0, (uint32_t)MOODY * 40), 0);
    crowd_publishes(MOODY);
    crowd_waits(MOODY, XenbusStateConnected);
    for (int i = 0; i < MOODY; i++)
        assert_int_equal(fx_frontend_set_state(crowd[i].f, XenbusStateConnected), 0);
    crowd_asks(MOODY);
    assert_int_equal(fx_store_conflict(H.m, H.be_domid, 0), 0);
    crowd_goes(MOODY);
}

static void a_xenstore_that_is_restarted(void)
{
    uint32_t start;

    crowd_comes(MOODY);
    start = requests();
    for (int round = 0; round < 3; round++) {
        assert_int_equal(fx_store_drop(H.m, 0, true), 0);
        /* half of the guests go their ways while nobody listens; the others do not notice */
        for (int i = round; i < MOODY; i += 6)
            assert_int_equal(fx_frontend_set_state(crowd[i].f, XenbusStateClosing), 0);
        for (int i = 3; i < MOODY; i += 6)
            vm_random(&crowd[i]);
        assert_int_equal(fx_store_drop(H.m, 0, false), 0);
        for (int i = round; i < MOODY; i += 6) {
            assert_int_equal(fx_vtpm_wait(H.m, &crowd[i].dev, XenbusStateClosing, PATIENCE), 0);
            assert_int_equal(fx_frontend_set_state(crowd[i].f, XenbusStateClosed), 0);
            assert_int_equal(fx_vtpm_wait(H.m, &crowd[i].dev, XenbusStateClosed, PATIENCE), 0);
        }
    }
    printf("# xenstore restarted three times under %d devices: %.1f requests each\n", MOODY,
           (double)(requests() - start) / MOODY);
    for (int i = 3; i < MOODY; i += 6)
        vm_random(&crowd[i]);
    crowd_goes(MOODY);
    assert_nothing_left("backend");
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[] = {
        SCENE("", the_work_for_a_device_does_not_grow_with_the_crowd, NULL, false, 0),
        SCENE("", init_wait_does_not_wait_for_a_tpm_to_be_made, NULL, false, 0),
        SCENE("", a_death_does_not_ask_for_everybody, NULL, false, 0),
        SCENE("", everybody_may_die_at_once, NULL, false, 0),
        SCENE("", a_storm_of_watches_is_looked_at_once, NULL, false, 0),
        SCENE("", transactions_that_conflict_again_and_again, NULL, false, 0),
        SCENE("", a_xenstore_that_is_restarted, NULL, false, 0),
    };
    struct rlimit files;

    /* The guests are all in this process. The daemon gets the usual limit (harness.c). */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    tests[1].setup_func = no_tpm_is_ever_made;
    tests[1].teardown_func = the_script_goes;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("crowd", tests, NULL, NULL);
}
