/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Debian's real xl over Debian's real xenstored drives the real daemon; only the hypervisor and
 * the guest are pretended. Needs root, for a mount namespace: libxl keeps its records of domains
 * in /var/lib/xen, which xl gets a private one of.
 */
#include "config.h"

#include "tests/integration/scene.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "tests/fake/selftest/debian.h"

#define XL_TIMEOUT 40000

struct xl {
    pid_t pid;
    int64_t started;
    char output[160];            /* file name */
    char *text;                  /* its contents, after xl_wait() */
    int status, took;
};

static void in_private_places(void)
{
    char records[160];

    snprintf(records, sizeof(records), "%s/xen", H.dir);
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", "/var/lib", "tmpfs", 0, "mode=755") || mkdir("/var/lib/xen", 0700) ||
        mount(records, "/var/lib/xen", NULL, MS_BIND, NULL) ||
        mount("none", "/run", "tmpfs", 0, "mode=755") || mkdir("/run/xen", 0755) ||
        mkdir("/run/lock", 0755)) {
        perror("a private /var/lib/xen (this test needs root)");
        _exit(126);
    }
}

/* What xl create leaves in libxl's records of a domain. */
static void record_domain(uint32_t domid)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/xen", H.dir);
    mkdir(path, 0700);
    snprintf(path, sizeof(path),
             "%s/xen/userdata-d.%u.00000000-0000-0000-0000-000000000000.libxl-json", H.dir, domid);
    f = fopen(path, "we");
    assert_non_null(f);
    fputs("{}", f);
    fclose(f);
}

static void xl_start(struct xl *x, const char *a, const char *b, const char *c, const char *d)
{
    static unsigned int n;
    const char *program = debian_program("xl");
    int fd;

    assert_non_null(program);
    memset(x, 0, sizeof(*x));
    snprintf(x->output, sizeof(x->output), "%s/xl.%u", H.dir, n++);
    x->started = fx_now();
    x->pid = fork();
    assert_true(x->pid >= 0);
    if (x->pid)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fx_become(H.m, 0);
    fd = open(x->output, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    in_private_places();
    unsetenv("LD_LIBRARY_PATH");
    setenv("LD_PRELOAD", fx_preload(H.m), 1);
    setenv(FX_QUIET_ENV, "1", 1);
    execl(program, "xl", a, b, c, d, (char *)NULL);
    perror(program);
    _exit(127);
}

/* Waits for the end; the exit status, or -1 if it had to be killed. */
static int xl_wait(struct xl *x)
{
    int64_t end = fx_now() + XL_TIMEOUT;
    struct stat st;
    int fd;

    while (waitpid(x->pid, &x->status, WNOHANG) == 0) {
        struct timespec step = { 0, 2000000 };

        if (fx_now() >= end) {
            kill(x->pid, SIGKILL);
            waitpid(x->pid, &x->status, 0);
            break;
        }
        nanosleep(&step, NULL);
    }
    x->took = (int)(fx_now() - x->started);
    fd = open(x->output, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && !fstat(fd, &st)) {
        ssize_t n;

        x->text = calloc(1, (size_t)st.st_size + 1);
        n = read(fd, x->text, (size_t)st.st_size);
        if (n < 0)
            x->text[0] = 0;
    }
    if (fd >= 0)
        close(fd);
    return WIFEXITED(x->status) ? WEXITSTATUS(x->status) : -1;
}

static void xl_free(struct xl *x)
{
    free(x->text);
    x->text = NULL;
}

/* Runs xl, which must end with this status within this time. Its output in x->text. */
static void xl_run(struct xl *x, int status, int limit, const char *a, const char *b,
                   const char *c, const char *d)
{
    int r;

    xl_start(x, a, b, c, d);
    r = xl_wait(x);
    if (r != status || x->took > limit)
        fprintf(stderr, "# xl %s %s: status %d after %d ms\n# %s\n", a, b, r, x->took,
                x->text ? x->text : "");
    assert_int_equal(r, status);
    assert_true(x->took <= limit);
}

static void domain_up(struct vm *v, uint32_t domid)
{
    memset(v, 0, sizeof(*v));
    v->domid = domid;
    assert_int_equal(fx_domain_create(H.m, domid, "guest"), 0);
    assert_int_equal(fx_guest_open(&v->g, H.m, domid), 0);
    record_domain(domid);
    fx_vtpm_init(&v->dev, H.be_domid, domid, 0, UUID_A);
}

static void domain_down(struct vm *v)
{
    fx_frontend_free(v->f);
    fx_guest_close(v->g);
    assert_int_equal(fx_domain_destroy(H.m, v->domid), 0);
    assert_int_equal(fx_domain_erase(H.m, v->domid), 0);
}

/* The guest's driver sees the backend's 5 and goes along. */
static void guest_lets_go(struct vm *v)
{
    assert_int_equal(fx_frontend_wait_backend(v->f, XenbusStateClosing, SOON), 0);
    assert_int_equal(fx_frontend_set_state(v->f, XenbusStateClosing), 0);
    assert_int_equal(fx_frontend_set_state(v->f, XenbusStateClosed), 0);
}

static void attach_use_list_detach(void)
{
    uint8_t data[TPM2_NV_SIZE] = "over xl", back[TPM2_NV_SIZE];
    char backend[16];
    struct vm v;
    struct xl x;

    snprintf(backend, sizeof(backend), "backend=%u", H.be_domid);
    domain_up(&v, 5);
    for (int i = 0; i < 2; i++) {
        fx_vtpm_init(&v.dev, H.be_domid, 5, 0, UUID_A);
        xl_run(&x, 0, AT_ONCE, "vtpm-attach", "5", backend, "uuid=" UUID_A);
        xl_free(&x);
        vm_probe(&v);
        vm_random(&v);
        if (!i) {
            assert_int_equal(tpm2_nv_define(v.f), 0);
            assert_int_equal(tpm2_nv_write(v.f, data), 0);
        }
        assert_int_equal(tpm2_nv_read(v.f, back), 0);
        assert_memory_equal(back, data, sizeof(data));
        xl_run(&x, 0, AT_ONCE, "vtpm-list", "5", NULL, NULL);
        assert_non_null(strstr(x.text, UUID_A));
        xl_free(&x);
        xl_start(&x, "vtpm-detach", "5", "0", NULL);
        guest_lets_go(&v);
        assert_int_equal(xl_wait(&x), 0);
        assert_true(x.took < AT_ONCE);
        xl_free(&x);
        assert_null(fx_read(H.m, v.dev.backend, "state"));
        assert_null(fx_read(H.m, v.dev.frontend, "state"));
        assert_true(backends_wait(&H, 0, NULL, SOON));
        fx_frontend_free(v.f);
        v.f = NULL;
    }
    domain_down(&v);
}

static void the_same_uuid_twice_fails_fast(void)
{
    struct vm v, w;
    struct xl x;

    domain_up(&v, 5);
    domain_up(&w, 6);
    xl_run(&x, 0, AT_ONCE, "vtpm-attach", "5", "backend=0", "uuid=" UUID_A);
    xl_free(&x);
    vm_probe(&v);
    extend(&v, 1, "first guest");
    /* xl's own message; the reason is in the backend's error node and in our log */
    xl_start(&x, "vtpm-attach", "6", "backend=0", "uuid=" UUID_A);
    assert_int_not_equal(xl_wait(&x), 0);
    assert_true(x.took < AT_ONCE);
    assert_non_null(strstr(x.text, "unable to add device"));
    xl_free(&x);
    vm_random(&v);
    assert_pcr(&v, 1, "first guest", 1);
    assert_int_equal(fx_vtpm_vanish(H.m, &w.dev), 0);
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);
    domain_down(&v);
    domain_down(&w);
}

static void no_uuid_gets_one_from_libxl(void)
{
    struct vm v;
    struct xl x;
    char *uuid;

    domain_up(&v, 5);
    xl_run(&x, 0, AT_ONCE, "vtpm-attach", "5", "backend=0", NULL);
    xl_free(&x);
    uuid = fx_read(H.m, v.dev.backend, "uuid");
    assert_non_null(uuid);
    assert_int_equal(strlen(uuid), 36);
    vm_probe(&v);
    vm_random(&v);
    xl_run(&x, 0, AT_ONCE, "vtpm-list", "5", NULL, NULL);
    assert_non_null(strstr(x.text, uuid));
    xl_free(&x);
    free(uuid);
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);
    domain_down(&v);
}

static void a_guest_that_does_not_let_go_is_detached_in_time(void)
{
    struct vm v;
    struct xl x;

    domain_up(&v, 5);
    xl_run(&x, 0, AT_ONCE, "vtpm-attach", "5", "backend=0", "uuid=" UUID_A);
    xl_free(&x);
    vm_probe(&v);
    xl_run(&x, 0, AT_ONCE, "vtpm-detach", "5", "0", NULL);   /* libxl would force it after 10 s */
    xl_free(&x);
    domain_down(&v);
}

static void a_daemon_that_comes_late_is_in_time(void)
{
    struct vm v;
    struct xl x;

    assert_int_equal(daemon_stop(&H), 0);
    domain_up(&v, 5);
    xl_start(&x, "vtpm-attach", "5", "backend=0", "uuid=" UUID_A);
    /* xl has written the device and waits */
    for (int64_t end = fx_now() + 5000; fx_read_int(H.m, v.dev.backend, "state") != 1;)
        assert_true(fx_now() < end);
    assert_int_equal(daemon_start(&H), 0);
    assert_int_equal(xl_wait(&x), 0);
    xl_free(&x);
    vm_probe(&v);
    vm_random(&v);
    assert_int_equal(fx_vtpm_remove(H.m, &v.dev, FX_DESTROY), 0);
    domain_down(&v);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        SCENE("xl: ", attach_use_list_detach, NULL, true, 0),
        SCENE("xl, driver domain: ", attach_use_list_detach, NULL, true, DRIVER_DOMID),
        SCENE("xl: ", the_same_uuid_twice_fails_fast, NULL, true, 0),
        SCENE("xl: ", no_uuid_gets_one_from_libxl, NULL, true, 0),
        SCENE("xl: ", a_guest_that_does_not_let_go_is_detached_in_time, NULL, true, 0),
        SCENE("xl: ", a_daemon_that_comes_late_is_in_time, NULL, true, 0),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("xl", tests, NULL, NULL);
}
