/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmodified xl-vtpmd on a pretended Xen machine, with a scripted toolstack
 * and guest in front of it and fake-backend behind it: what it writes into
 * xenstore, what it starts and stops, in any order of events.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libxl-vtpm/client.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/settings.h"
#include "tests/fake/frontend.h"
#include "tests/fake/machine.h"

#define UUID_A "dcdb124b-9fed-4040-b149-dd2dfd8d094c"
#define UUID_B "0e0f6b04-7a92-43d5-9c6b-2c1f5ab35d5e"
#define LONG 10000

static struct fx_machine *machine;
static struct fx_guest *guest;
static char work[64], config_path[128];
static pid_t daemon_pid;
static int daemon_in = -1, notify_fd = -1;
static uint32_t own; /* domid of the daemon */

/* --- the daemon --- */

static const char *build_dir(void)
{
    const char *top = getenv("top_builddir");

    return top ? top : ".";
}

static char *path_in(const char *name)
{
    static char paths[4][256];
    static int next;
    char *p = paths[next++ % 4];

    snprintf(p, 256, "%s/%s", work, name);
    return p;
}

static void put_file(const char *name, const char *text)
{
    FILE *f = fopen(path_in(name), "we");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* What a file says now; static, cut at 64 KiB. */
static const char *get_file(const char *name)
{
    static char text[65536];
    FILE *f = fopen(path_in(name), "re");
    size_t n = 0;

    if (f) {
        n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
    }
    text[n] = '\0';
    return text;
}

static bool daemon_said(const char *text)
{
    return strstr(get_file("stderr"), text) != NULL;
}

static void write_config(const char *more)
{
    char text[1024];

    snprintf(text, sizeof(text),
             "state-dir = %s/state\nrun-dir = %s/run\n"
             "backend-program = %s/tests/unit/fake-backend\nbackend-user =\n"
             "log-level = debug\n%s",
             work, work, build_dir(), more);
    put_file("conf", text);
}

static pid_t daemon_launch(void)
{
    char program[512], shell[1024], notify[128], fake[128];
    const char *argv[] = { "/bin/sh", "-c", shell, NULL };
    const char *env[] = { notify, fake, NULL };
    pid_t pid;

    snprintf(program, sizeof(program), "%s/libxl-vtpm/xl-vtpmd", build_dir());
    snprintf(shell, sizeof(shell), "exec %s --foreground --config %s 2>>%s/stderr", program,
             config_path, work);
    snprintf(notify, sizeof(notify), "NOTIFY_SOCKET=%s/notify", work);
    snprintf(fake, sizeof(fake), "FAKE_BACKEND_DIR=%s", work);
    fx_become(machine, own);
    assert_int_equal(fx_spawn(argv, env, &daemon_in, NULL, &pid), 0);
    fx_become(machine, 0);
    return pid;
}

/* Until it says READY=1. */
static void daemon_start(void)
{
    char text[256];
    int64_t end = fx_now() + LONG;

    daemon_pid = daemon_launch();
    for (;;) {
        struct pollfd p = { notify_fd, POLLIN, 0 };
        ssize_t n;

        if (fx_now() > end || poll(&p, 1, 1000) < 0)
            fail_msg("the daemon is not ready: %s", get_file("stderr"));
        if (!(p.revents & POLLIN))
            continue;
        n = recv(notify_fd, text, sizeof(text) - 1, 0);
        if (n > 0) {
            text[n] = '\0';
            if (strstr(text, "READY=1"))
                return;
        }
    }
}

static int daemon_end(int signal)
{
    int status;

    kill(daemon_pid, signal);
    assert_int_equal(waitpid(daemon_pid, &status, 0), daemon_pid);
    daemon_pid = 0;
    close(daemon_in);
    daemon_in = -1;
    return status;
}

/* --- what backends did --- */

struct launched {
    int pid;
    bool serve;
    unsigned long long instance;
    unsigned domid, devid, ring, port, boot;
};

/* The n-th launch of that mode (from 0); false: there is none. */
static bool launched(bool serve, int n, struct launched *out)
{
    char copy[65536], *save, *line;

    snprintf(copy, sizeof(copy), "%s", get_file("log"));
    for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct launched l;
        char mode[16];

        if (sscanf(line, "launch %d %15s %llu %u/%u %u/%u %u", &l.pid, mode, &l.instance, &l.domid,
                   &l.devid, &l.ring, &l.port, &l.boot) != 8)
            continue;
        l.serve = !strcmp(mode, "serve");
        if (l.serve == serve && n-- == 0) {
            *out = l;
            return true;
        }
    }
    return false;
}

static int count_launches(bool serve)
{
    struct launched l;
    int n = 0;

    while (launched(serve, n, &l))
        n++;
    return n;
}

static bool log_has(void *text)
{
    return strstr(get_file("log"), text) != NULL;
}

static void wait_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void wait_log(const char *fmt, ...)
{
    char text[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (!fx_wait(log_has, text, LONG))
        fail_msg("no \"%s\" in the backends' log: %s", text, get_file("log"));
}

static bool has_said(void *text)
{
    return daemon_said(text);
}

static void wait_said(const char *text)
{
    if (!fx_wait(has_said, (void *)(uintptr_t)text, LONG))
        fail_msg("the daemon did not say \"%s\": %s", text, get_file("stderr"));
}

static bool serves_launched(void *n)
{
    return count_launches(true) >= *(int *)n;
}

static struct launched wait_serve(int n)
{
    struct launched l;
    int wanted = n + 1;

    if (!fx_wait(serves_launched, &wanted, LONG))
        fail_msg("backend %d was not started: %s", n, get_file("stderr"));
    assert_true(launched(true, n, &l));
    return l;
}

/* An orphan that ended is a zombie until init has a moment. */
static bool alive(int pid)
{
    char path[64], text[256];
    const char *end;
    size_t n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (f) {
        n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
    }
    text[n] = '\0';
    end = strrchr(text, ')');
    return end && end[1] && end[2] != 'Z' && end[2] != 'X';
}

static bool is_gone(void *pid)
{
    return !alive(*(int *)pid);
}

static void wait_gone(int pid)
{
    if (!fx_wait(is_gone, &pid, LONG))
        fail_msg("process %d is still there", pid);
}

static int entries(const char *name)
{
    DIR *d = opendir(path_in(name));
    struct dirent *e;
    int n = 0;

    if (!d)
        return -1;
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* --- up and down --- */

static bool rmdir_all(const char *path)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", path);
    return system(command) == 0;
}

static int up(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    (void)state;
    own = 0;
    if (fx_start(&machine, NULL) || fx_domain_create(machine, 5, "guest5") ||
        fx_domain_create(machine, 6, "guest6") || fx_guest_open(&guest, machine, 5))
        return -1;
    snprintf(work, sizeof(work), "/tmp/xlv-reconcile-XXXXXX");
    if (!mkdtemp(work))
        return -1;
    snprintf(config_path, sizeof(config_path), "%s/conf", work);
    write_config("");
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", work);
    return bind(notify_fd, (struct sockaddr *)&address, sizeof(address));
}

/* Kills what was ever started; one may have been started, and not noted yet, a moment ago. */
static bool nobody_left(void *unused)
{
    char copy[65536], *save, *line;
    bool left = false;

    (void)unused;
    snprintf(copy, sizeof(copy), "%s", get_file("log"));
    for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int pid;

        if (sscanf(line, "launch %d", &pid) == 1 && pid > 1 && alive(pid)) {
            kill(pid, SIGKILL);
            left = true;
        }
    }
    return !left && rmdir_all(work);
}

static int down(void **state)
{
    int status = 0;

    (void)state;
    if (daemon_pid)
        status = daemon_end(SIGTERM);
    fx_guest_close(guest);
    guest = NULL;
    fx_stop(machine);
    machine = NULL;
    close(notify_fd);
    if (status || daemon_said("a mistake in the program") || daemon_said("Sanitizer")) {
        fprintf(stderr, "# status %d: %s\n", status, get_file("stderr"));
        return -1;
    }
    return fx_wait(nobody_left, NULL, LONG) ? 0 : -1;
}

#define on_daemon(test) cmocka_unit_test_setup_teardown(test, up, down)

static struct fx_vtpm device(uint32_t domid, const char *uuid)
{
    struct fx_vtpm d;

    fx_vtpm_init(&d, own, domid, 0, uuid);
    return d;
}

static int backend_state(const struct fx_vtpm *d)
{
    return fx_read_int(machine, d->backend, "state");
}

static bool has_node(const struct fx_vtpm *d, const char *name)
{
    char *value = fx_read(machine, d->backend, name);

    free(value);
    return value != NULL;
}

struct wanted {
    const struct fx_vtpm *d;
    int state;
};

static bool state_is(void *arg)
{
    struct wanted *w = arg;

    return backend_state(w->d) == w->state;
}

static void wait_state(const struct fx_vtpm *d, int state)
{
    struct wanted w = { d, state };

    if (!fx_wait(state_is, &w, LONG))
        fail_msg("backend state is %d, not %d: %s", backend_state(d), state, get_file("stderr"));
}

/* A created device whose frontend is connected. */
static struct fx_frontend *connected(struct fx_vtpm *d)
{
    struct fx_frontend *f = NULL;
    int rc = fx_vtpm_create(machine, d);

    if (!rc)
        rc = fx_frontend_open(&f, guest, d, 0);
    if (!rc)
        rc = fx_frontend_connect(f, LONG);
    if (rc) {
        fprintf(stderr, "# the daemon said: %s\n", get_file("stderr"));
        fail_msg("not connected: %s", strerror(-rc));
    }
    return f;
}

static struct json_object *call(const char *request)
{
    struct json_object *o = json_tokener_parse(request), *result;
    struct xlv_settings settings;
    struct xlv_client *client;
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    assert_int_equal(xlv_settings_load(&settings, config_path, &e), 0);
    assert_int_equal(xlv_client_new(&client, &settings, XLV_CLIENT_DAEMON, &e), 0);
    assert_true(xlv_client_online(client));
    rc = xlv_client_call(client, o, &result, &e);
    if (rc)
        fail_msg("%s: %s", request, e.text);
    xlv_client_free(client);
    xlv_settings_deinit(&settings);
    json_object_put(o);
    return result;
}

/* --- the ordinary life --- */

static void a_new_device_is_at_initwait_within_a_second(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct launched l;
    int64_t before;
    char *v2;

    (void)state;
    daemon_start();
    before = fx_now();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    print_message("# InitWait after %lld ms\n", (long long)(fx_now() - before));
    assert_true(fx_now() - before < 1000);
    assert_int_equal(fx_read_int(machine, d.backend, "instance"), 1);
    v2 = fx_read(machine, d.backend, "feature-protocol-v2");
    assert_string_equal(v2, "1");
    free(v2);
    /* its TPM is made before the guest asks */
    wait_said("is manufactured");
    assert_true(launched(false, 0, &l));
    assert_int_equal(l.instance, 1);
    assert_int_equal(count_launches(true), 0);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
}

static void the_backend_gets_ring_and_port_of_the_frontend(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    struct launched l;

    (void)state;
    daemon_start();
    f = connected(&d);
    assert_int_equal(backend_state(&d), XenbusStateConnected);
    assert_true(launched(true, 0, &l));
    assert_int_equal(l.domid, 5);
    assert_int_equal(l.devid, 0);
    assert_int_equal(l.ring, fx_frontend_ref(f, 0));
    assert_int_equal(l.port, fx_frontend_port(f));
    fx_frontend_free(f);
}

static void initwait_is_held_for_libxl_while_the_guest_is_served_already(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int64_t start;

    (void)state;
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    start = fx_now();
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_publish(f), 0);
    wait_log("ready %d", wait_serve(0).pid);
    assert_int_equal(backend_state(&d), XenbusStateInitWait);
    assert_true(fx_now() - start < 800);
    wait_state(&d, XenbusStateConnected);
    assert_true(fx_now() - start >= 900);
    fx_frontend_free(f);
}

static void a_closing_frontend_sees_5_and_6_after_its_own(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int64_t start;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    start = fx_now();
    assert_int_equal(fx_frontend_set_state(f, XenbusStateClosing), 0);
    wait_state(&d, XenbusStateClosing);
    wait_log("stop %d %d", pid, XLV_STOP_FRONTEND_CLOSED);
    wait_gone(pid);
    /* held: a backend that jumps to 6 costs the guest's shutdown 5.5 s */
    assert_int_equal(backend_state(&d), XenbusStateClosing);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateClosed), 0);
    wait_state(&d, XenbusStateClosed);
    print_message("# closed after %lld ms\n", (long long)(fx_now() - start));
    fx_frontend_free(f);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
}

static void a_reloaded_driver_is_served_again(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    struct launched first, second;

    (void)state;
    daemon_start();
    f = connected(&d);
    first = wait_serve(0);
    assert_int_equal(fx_frontend_close(f, LONG), 0);
    fx_frontend_free(f);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_connect(f, LONG), 0);
    second = wait_serve(1);
    assert_int_not_equal(first.pid, second.pid);
    assert_int_equal(second.ring, fx_frontend_ref(f, 0));
    assert_int_equal(second.instance, first.instance);
    /* and by way of state 1, as a driver that is bound anew does */
    assert_int_equal(fx_frontend_close(f, LONG), 0);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateInitialising), 0);
    wait_state(&d, XenbusStateInitWait);
    fx_frontend_free(f);
}

static void a_driver_that_jumps_to_6_is_closed_and_comes_back(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    f = connected(&d);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateClosed), 0);
    wait_gone(wait_serve(0).pid);
    wait_state(&d, XenbusStateClosed);
    fx_frontend_free(f);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_connect(f, LONG), 0);
    wait_serve(1);
    fx_frontend_free(f);
}

static void a_destroyed_domain_ends_the_boot_and_leaves_nothing(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int64_t start;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    assert_int_equal(entries("run/journal"), 1);
    assert_int_equal(entries("run/backend"), 1);
    start = fx_now();
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    print_message("# removed after %lld ms\n", (long long)(fx_now() - start));
    assert_true(fx_now() - start < 2000);
    wait_log("stop %d %d", pid, XLV_STOP_DOMAIN_END);
    wait_gone(pid);
    wait_said("forgotten");
    assert_int_equal(entries("run/journal"), 0);
    assert_int_equal(entries("run/backend"), 0);
    assert_false(has_node(&d, "state"));
    fx_frontend_free(f);
}

static void a_detach_is_no_end_of_the_boot(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    assert_int_equal(fx_vtpm_remove_begin(machine, &d, FX_DETACH), 0);
    wait_log("stop %d %d", pid, XLV_STOP_FRONTEND_CLOSED);
    wait_gone(pid);
    assert_int_equal(backend_state(&d), XenbusStateClosing);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateClosed), 0);
    wait_state(&d, XenbusStateClosed);
    assert_int_equal(entries("run/journal"), 1);
    fx_frontend_free(f);
}

static void a_guest_that_does_not_let_go_does_not_hold_up_the_toolstack(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int64_t start;

    (void)state;
    daemon_start();
    f = connected(&d);
    start = fx_now();
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DETACH), 0);
    assert_true(fx_now() - start < 8000);
    fx_frontend_free(f);
}

static void a_vanished_directory_ends_the_process_and_stays_away(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    assert_int_equal(fx_vtpm_vanish(machine, &d), 0);
    wait_log("stop %d", pid);
    wait_gone(pid);
    wait_said("forgotten");
    assert_false(has_node(&d, "state"));
    fx_frontend_free(f);
    /* and the same device again */
    f = connected(&d);
    wait_serve(1);
    fx_frontend_free(f);
}

static void a_directory_made_anew_at_once_is_a_new_device(void **state)
{
    struct fx_vtpm a = device(5, UUID_A), b = device(5, UUID_B), other = device(6, UUID_B);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    /* known, or it would be the domain's own instance by its binding */
    assert_int_equal(fx_vtpm_create(machine, &other), 0);
    assert_int_equal(fx_vtpm_remove(machine, &other, FX_DESTROY), 0);
    f = connected(&a);
    assert_int_equal(wait_serve(0).instance, 2);
    pid = wait_serve(0).pid;
    fx_frontend_free(f);
    /* add() replaces what is there in one transaction: no watch shows the gap */
    assert_int_equal(fx_vtpm_create(machine, &b), 0);
    wait_gone(pid);
    assert_int_equal(fx_read_int(machine, b.backend, "instance"), 1);
    assert_int_equal(fx_frontend_open(&f, guest, &b, 0), 0);
    assert_int_equal(fx_frontend_connect(f, LONG), 0);
    assert_int_equal(wait_serve(1).instance, 1);
    fx_frontend_free(f);
}

static void a_new_ring_without_handshake_gets_a_fresh_process(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *old, *f;
    struct launched first, second;

    (void)state;
    daemon_start();
    old = connected(&d);
    first = wait_serve(0);
    /* Linux on resume: the old ring is gone, a new one is published, nothing else */
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    fx_frontend_free(old);
    assert_int_equal(fx_frontend_publish(f), 0);
    second = wait_serve(1);
    wait_log("stop %d %d", first.pid, XLV_STOP_FRONTEND_CLOSED);
    wait_gone(first.pid);
    assert_int_equal(second.ring, fx_frontend_ref(f, 0));
    assert_int_equal(second.port, fx_frontend_port(f));
    wait_log("ready %d", second.pid);
    assert_int_equal(backend_state(&d), XenbusStateConnected);
    fx_frontend_free(f);
}

/* --- processes that fail --- */

static void a_killed_backend_is_followed_by_another_on_the_same_ring(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int64_t slowest = 0;

    (void)state;
    daemon_start();
    f = connected(&d);
    for (int i = 0; i < 50; i++) {
        struct launched l = wait_serve(i), next;
        int64_t start;

        wait_log("ready %d", l.pid);
        start = fx_now();
        kill(l.pid, SIGKILL);
        next = wait_serve(i + 1);
        if (fx_now() - start > slowest)
            slowest = fx_now() - start;
        assert_int_equal(next.ring, l.ring);
        assert_int_equal(next.port, l.port);
        assert_int_equal(backend_state(&d), XenbusStateConnected);
    }
    print_message("# 50 kills, slowest restart %lld ms\n", (long long)slowest);
    fx_frontend_free(f);
}

static void an_instance_whose_backend_always_crashes_is_quarantined(void **state)
{
    struct fx_vtpm d = device(5, UUID_A), again = device(6, UUID_A);
    struct fx_frontend *f;

    (void)state;
    put_file("mode", "segv\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_publish(f), 0);
    wait_said("quarantined");
    assert_int_equal(count_launches(true), 5);
    wait_state(&d, XenbusStateClosing);
    assert_true(has_node(&d, "error"));
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    fx_frontend_free(f);
    /* from now on libxl is told at once */
    assert_int_equal(fx_vtpm_create(machine, &again), -ENOENT);
    assert_int_equal(count_launches(true), 5);
    assert_int_equal(fx_vtpm_remove(machine, &again, FX_DESTROY), 0);
    /* until an administrator lets it out */
    put_file("mode", "serve\n");
    json_object_put(call("{\"call\": \"release\", \"number\": 1}"));
    f = connected(&d);
    fx_frontend_free(f);
}

static long long number(struct json_object *o, const char *outer, const char *inner);

static int open_files(pid_t pid)
{
    char path[64];
    struct dirent *e;
    int n = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    assert_non_null(dir);
    while ((e = readdir(dir)))
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* A backend that its guest has taken over can say what it likes: its own instance is lost for it,
 * nothing is for anybody else. The real one is in a sandbox besides. */
static void a_malicious_backend_harms_its_own_guest_only(void **state)
{
    static const struct {
        const char *mode, *said; /* said: by the daemon; NULL: it is borne */
    } evils[] = {
        { "garbage\n", "may not send" },
        { "huge\n", "may not send" },
        { "status\n", "may not send" },
        { "say 1 140\n", "may not send" },  /* LAUNCH */
        { "say 2 8\n", "may not send" },    /* READY again */
        { "say 4 8\n", "may not send" },    /* QUERY */
        { "say 5 8\n", "may not send" },    /* STATUS, too short */
        { "say 5 2048\n", "may not send" }, /* too long */
        { "say 6 12\n", "may not send" },   /* STOP */
        { "say 7 8\n", "may not send" },    /* BYE without STOP */
        { "say 8 800\n", "may not send" },  /* ENDORSEMENT, of one that serves */
        { "say 65535 8\n", "may not send" },
        { "hangup\n", "hung up without exiting" },
        { "inject\n", "FORGED" },
        { "flood\n", "may not send" },     /* STATUS that nobody asked for, without end */
        { "fds\n", "may not send" },       /* the same with descriptors */
        { "liar\n", NULL },
    };
    struct fx_vtpm good = device(5, UUID_A);
    struct fx_frontend *f;
    struct fx_guest *other;
    struct json_object *o;
    int before, pid, launches = 1;

    (void)state;
    daemon_start();
    f = connected(&good);
    pid = wait_serve(0).pid;
    before = open_files(daemon_pid);
    assert_int_equal(fx_guest_open(&other, machine, 6), 0);
    for (size_t i = 0; i < sizeof(evils) / sizeof(evils[0]); i++) {
        struct fx_vtpm bad;
        struct fx_frontend *g;
        char uuid[40], name[32], request[128];

        /* a new instance each time, as quarantines come */
        snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012zu", i + 1);
        snprintf(name, sizeof(name), "%zu.mode", i + 2);
        put_file(name, evils[i].mode);
        snprintf(request, sizeof(request), "{\"call\": \"create\", \"uuid\": \"%s\"}", uuid);
        o = call(request);
        assert_int_equal(number(o, "number", NULL), i + 2);
        json_object_put(o);
        put_file("stderr", "");
        bad = device(6, uuid);
        assert_int_equal(fx_vtpm_create(machine, &bad), 0);
        assert_int_equal(fx_frontend_open(&g, other, &bad, 0), 0);
        assert_int_equal(fx_frontend_publish(g), 0);
        wait_serve(launches);
        if (evils[i].said)
            wait_said(evils[i].said);
        else
            wait_state(&bad, XenbusStateConnected);
        /* the figures are those of the good one's own process, whatever others claim */
        o = call("{\"call\": \"show\", \"number\": 1}");
        assert_int_equal(number(o, "device", "domid"), 5);
        assert_int_equal(number(o, "device", "pid"), pid);
        assert_int_equal(number(o, "device", "commands"), 42);
        json_object_put(o);
        assert_int_equal(fx_vtpm_remove(machine, &bad, FX_DESTROY), 0);
        fx_frontend_free(g);
        launches = count_launches(true);
    }
    assert_true(alive(pid));
    assert_int_equal(backend_state(&good), XenbusStateConnected);
    /* nothing that was sent stayed with the daemon */
    assert_in_range(open_files(daemon_pid), 1, before + 2);
    /* a line in the log is one of ours */
    assert_null(strstr(get_file("stderr"), "\n<0>"));
    assert_null(strchr(get_file("stderr"), '\033'));
    fx_guest_close(other);
    fx_frontend_free(f);
}

/* Found again by a new daemon, one claims to be another's: it is not believed. */
static void a_process_that_claims_to_be_anothers_is_ended(void **state)
{
    struct fx_vtpm good = device(5, UUID_A), bad = device(6, UUID_B);
    struct fx_frontend *f, *g;
    struct fx_guest *other;
    struct json_object *o;
    int pid, liar;

    (void)state;
    put_file("2.mode", "liar\n");
    daemon_start();
    f = connected(&good);
    pid = wait_serve(0).pid;
    assert_int_equal(fx_guest_open(&other, machine, 6), 0);
    assert_int_equal(fx_vtpm_create(machine, &bad), 0);
    assert_int_equal(fx_frontend_open(&g, other, &bad, 0), 0);
    assert_int_equal(fx_frontend_connect(g, LONG), 0);
    liar = wait_serve(1).pid;
    daemon_end(SIGKILL);
    put_file("2.mode", "serve\n");
    daemon_start();
    wait_said("serves another instance, so it has to end");
    wait_gone(liar);
    assert_int_equal(wait_serve(2).instance, 2);
    assert_true(alive(pid));
    o = call("{\"call\": \"show\", \"number\": 1}");
    assert_int_equal(number(o, "device", "pid"), pid);
    json_object_put(o);
    fx_frontend_free(g);
    fx_guest_close(other);
    fx_frontend_free(f);
}

/* Also where its guest kept the new daemon from looking at the device (its ring is read in a
 * transaction), and what it claims is nobody's. */
static void a_process_that_claims_what_nobody_uses_is_ended(void **state)
{
    struct fx_vtpm good = device(5, UUID_A), bad = device(6, UUID_B);
    struct fx_frontend *f, *g;
    struct fx_guest *other;
    int thief;

    (void)state;
    put_file("2.mode", "thief\n");
    daemon_start();
    f = connected(&good);
    (void)wait_serve(0);
    assert_int_equal(fx_vtpm_remove(machine, &good, FX_DESTROY), 0);
    fx_frontend_free(f);
    assert_int_equal(fx_guest_open(&other, machine, 6), 0);
    assert_int_equal(fx_vtpm_create(machine, &bad), 0);
    assert_int_equal(fx_frontend_open(&g, other, &bad, 0), 0);
    assert_int_equal(fx_frontend_connect(g, LONG), 0);
    thief = wait_serve(1).pid;
    daemon_end(SIGKILL);
    put_file("2.mode", "serve\n");
    assert_int_equal(fx_store_conflict(machine, 0, 1000000), 0);
    daemon_start();
    wait_said("found process");
    assert_int_equal(fx_store_conflict(machine, 0, 0), 0);
    wait_said("serves another instance, so it has to end");
    wait_gone(thief);
    assert_int_equal(wait_serve(2).instance, 2);
    fx_frontend_free(g);
    fx_guest_close(other);
}

static void a_damaged_store_closes_the_device_and_is_not_tried_again(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    char text[64];

    (void)state;
    snprintf(text, sizeof(text), "fail %d slot 0 does not verify\n", XLV_E_CORRUPT);
    put_file("mode", text);
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_publish(f), 0);
    wait_state(&d, XenbusStateClosing);
    assert_true(daemon_said("slot 0 does not verify"));
    assert_true(has_node(&d, "error"));
    assert_int_equal(fx_frontend_set_state(f, XenbusStateClosed), 0);
    wait_state(&d, XenbusStateClosed);
    assert_int_equal(count_launches(true), 1);
    fx_frontend_free(f);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
}

static void a_failure_that_may_pass_is_tried_again(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    char text[64];

    (void)state;
    snprintf(text, sizeof(text), "fail %d no memory\n", -ENOMEM);
    put_file("mode", text);
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_publish(f), 0);
    wait_serve(6); /* more than a quarantine takes */
    put_file("mode", "serve\n");
    wait_state(&d, XenbusStateConnected);
    fx_frontend_free(f);
}

static void a_manufacture_that_fails_is_done_again(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;

    (void)state;
    put_file("manufacture.mode", "exit\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_publish(f), 0);
    wait_said("could not be manufactured");
    assert_int_equal(count_launches(true), 0);
    put_file("manufacture.mode", "make\n");
    wait_state(&d, XenbusStateConnected);
    assert_int_equal(count_launches(true), 1);
    fx_frontend_free(f);
}

static void a_manufacture_cut_short_is_completed_by_the_next_daemon(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);

    (void)state;
    put_file("manufacture.mode", "hang\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    wait_log("launch");
    daemon_end(SIGKILL);
    put_file("manufacture.mode", "make\n");
    daemon_start();
    /* the one that hangs still has the lock, so the new one waits */
    wait_said("in use by another process");
    {
        struct launched l;

        assert_true(launched(false, 0, &l));
        kill(l.pid, SIGKILL);
    }
    wait_said("is manufactured");
}

/* --- certificates --- */

static char *path_of_state(const char *name)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/state/%s", work, name);
    return path;
}

static void a_new_tpm_is_certified_and_that_is_known(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct json_object *show, *list, *ek, *value;
    struct stat st;

    (void)state;
    put_file("manufacture.mode", "endorse\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    wait_said("is manufactured");
    assert_true(daemon_said("made a CA for the TPMs of this host"));
    assert_null(strstr(get_file("log"), "certificates 0: 0 0 0 0"));
    assert_non_null(strstr(get_file("log"), "certificates 0: 0 0 "));
    assert_int_equal(stat(path_of_state("ca.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    show = call("{\"call\": \"ek-cert\", \"number\": 1}");
    assert_true(json_object_object_get_ex(show, "endorsement", &list));
    assert_int_equal(json_object_array_length(list), 1);
    ek = json_object_array_get_idx(list, 0);
    assert_true(json_object_object_get_ex(ek, "kind", &value));
    assert_string_equal(json_object_get_string(value), "p256");
    assert_true(json_object_object_get_ex(ek, "serial", &value));
    assert_int_equal(json_object_get_string_len(value), 32);
    assert_true(json_object_object_get_ex(ek, "certificate_fingerprint", &value));
    assert_int_equal(json_object_get_string_len(value), 64);
    assert_true(json_object_object_get_ex(ek, "certificate", &value));
    assert_int_equal(strncmp(json_object_get_string(value), "-----BEGIN CERTIFICATE-----\n", 28),
                     0);
    json_object_put(show);
}

static void a_ca_that_is_gone_is_missed_and_not_replaced(void **state)
{
    struct fx_vtpm d = device(5, UUID_A), second = device(6, UUID_B);
    char kept[2][512];

    (void)state;
    put_file("manufacture.mode", "endorse\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    wait_said("is manufactured");
    daemon_end(SIGTERM);
    for (int i = 0; i < 2; i++) {
        snprintf(kept[i], sizeof(kept[i]), "%s/kept%d", work, i);
        assert_int_equal(rename(path_of_state(i ? "ca.pem" : "ca.key"), kept[i]), 0);
    }
    put_file("stderr", "");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &second), 0);
    wait_said("is gone: put");
    assert_false(daemon_said("is manufactured"));
    assert_int_equal(access(path_of_state("ca.key"), F_OK), -1);
    /* put back, it goes on by itself */
    for (int i = 0; i < 2; i++)
        assert_int_equal(rename(kept[i], path_of_state(i ? "ca.pem" : "ca.key")), 0);
    wait_said("is manufactured");
}

static void a_key_that_is_none_gets_no_certificate(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);

    (void)state;
    put_file("manufacture.mode", "endorse-bad\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    wait_said("endorsement key p256 is none");
    assert_null(strstr(get_file("log"), "certificates 0:"));
    put_file("manufacture.mode", "endorse\n");
    wait_said("is manufactured");
}

static void without_a_ca_the_keys_are_known_all_the_same(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct json_object *show, *list, *value;

    (void)state;
    write_config("ca-key = none\n");
    put_file("manufacture.mode", "endorse\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    wait_said("is manufactured");
    assert_non_null(strstr(get_file("log"), "certificates 0: 0 0 0 0"));
    assert_int_equal(access(path_of_state("ca.key"), F_OK), -1);
    show = call("{\"call\": \"show\", \"number\": 1}");
    assert_true(json_object_object_get_ex(show, "endorsement", &list));
    assert_int_equal(json_object_array_length(list), 1);
    list = json_object_array_get_idx(list, 0);
    assert_true(json_object_object_get_ex(list, "key_fingerprint", &value));
    assert_false(json_object_object_get_ex(list, "serial", &value));
    assert_false(json_object_object_get_ex(list, "public_key", &value)); /* that is ek-cert's */
    json_object_put(show);
}

/* --- who may have it --- */

static void the_second_domain_with_a_uuid_is_refused_at_once(void **state)
{
    struct fx_vtpm d = device(5, UUID_A), second = device(6, UUID_A);
    struct fx_frontend *f;
    int64_t start;
    char *error;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    start = fx_now();
    assert_int_equal(fx_vtpm_create(machine, &second), -ENOENT);
    print_message("# refused after %lld ms\n", (long long)(fx_now() - start));
    assert_true(fx_now() - start < 1000);
    assert_true(
        daemon_said("domain guest6 gets no TPM: instance 1 is in use by domain guest5 (5)"));
    error = fx_read(machine, second.backend, "error");
    assert_non_null(error);
    /* the guest can read that node: no word of the other domain */
    assert_null(strstr(error, "guest5"));
    free(error);
    assert_true(alive(pid));
    assert_int_equal(backend_state(&d), XenbusStateConnected);
    /* libxl cleans up without waiting; then a third try with the first gone works */
    assert_int_equal(fx_vtpm_remove(machine, &second, FX_DESTROY), 0);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    assert_int_equal(fx_vtpm_create(machine, &second), 0);
    fx_frontend_free(f);
}

static void a_rebooting_domain_waits_for_its_former_self(void **state)
{
    struct fx_vtpm old = device(5, UUID_A), new = device(6, UUID_A);
    struct fx_frontend *f, *g;
    struct fx_guest *guest6;
    int64_t start;
    int pid;

    (void)state;
    put_file("mode", "deaf\n");
    daemon_start();
    f = connected(&old);
    pid = wait_serve(0).pid;
    assert_int_equal(fx_vtpm_remove_begin(machine, &old, FX_DESTROY), 0);
    wait_log("stop %d", pid);
    /* the old one does not let go yet: InitWait must not wait for that */
    start = fx_now();
    assert_int_equal(fx_vtpm_create(machine, &new), 0);
    assert_true(fx_now() - start < 1000);
    assert_true(alive(pid));
    assert_int_equal(fx_guest_open(&guest6, machine, 6), 0);
    assert_int_equal(fx_frontend_open(&g, guest6, &new, 0), 0);
    assert_int_equal(fx_frontend_publish(g), 0);
    assert_int_equal(count_launches(true), 1);
    /* told to stop and deaf, it is killed; then the new one has it */
    wait_gone(pid);
    assert_int_equal(wait_serve(1).domid, 6);
    wait_state(&new, XenbusStateConnected);
    fx_frontend_free(g);
    fx_guest_close(guest6);
    fx_frontend_free(f);
}

static void a_received_domain_waits_for_its_source(void **state)
{
    struct fx_vtpm source = device(5, UUID_A), target = device(7, UUID_A);
    struct fx_frontend *f;

    (void)state;
    assert_int_equal(fx_domain_create(machine, 7, "guest5--incoming"), 0);
    daemon_start();
    f = connected(&source);
    assert_int_equal(fx_vtpm_create(machine, &target), 0);
    assert_int_equal(fx_vtpm_remove(machine, &source, FX_DESTROY), 0);
    assert_int_equal(fx_read_int(machine, target.backend, "instance"), 1);
    fx_frontend_free(f);
}

static void an_unknown_uuid_is_refused_where_policy_says_so(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);

    (void)state;
    write_config("unknown-uuid = refuse\n");
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    assert_true(daemon_said("guest5 gets no TPM"));
}

static void a_uuid_that_does_not_parse_is_refused(void **state)
{
    struct fx_vtpm d = device(5, "{dcdb124b-9fed-4040-b149-dd2dfd8d094c}");
    struct fx_vtpm none = device(6, "");

    (void)state;
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    assert_true(daemon_said("does not parse"));
    assert_int_equal(fx_vtpm_create(machine, &none), -ENOENT);
    assert_true(daemon_said("uuid is missing"));
}

/* --- the daemon comes and goes --- */

static void a_daemon_that_starts_late_serves_what_waits(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);

    (void)state;
    assert_int_equal(fx_vtpm_add(machine, &d), 0);
    daemon_start();
    assert_int_equal(fx_vtpm_wait(machine, &d, XenbusStateInitWait, LONG), 0);
}

static void restarted(int how)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int pid, status;

    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    status = daemon_end(how);
    if (how == SIGTERM)
        assert_int_equal(status, 0);
    assert_true(alive(pid));
    daemon_start();
    wait_log("connected %d", pid);
    wait_said("it serves on");
    assert_int_equal(count_launches(true), 1);
    assert_int_equal(backend_state(&d), XenbusStateConnected);
    /* it watches it as its own: a kill is followed by a start, a removal by a stop */
    kill(pid, SIGKILL);
    pid = wait_serve(1).pid;
    wait_log("ready %d", pid);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    wait_log("stop %d %d", pid, XLV_STOP_DOMAIN_END);
    fx_frontend_free(f);
}

static void a_stopped_daemon_leaves_tpms_running_and_finds_them_again(void **state)
{
    (void)state;
    restarted(SIGTERM);
}

static void a_killed_daemon_leaves_tpms_running_and_finds_them_again(void **state)
{
    (void)state;
    restarted(SIGKILL);
}

static void a_backend_that_never_listened_itself_is_found_as_well(void **state)
{
    (void)state;
    put_file("mode", "nolisten\n");
    restarted(SIGKILL);
}

static void a_device_gone_while_no_daemon_ran_is_stopped(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    daemon_end(SIGKILL);
    fx_frontend_free(f);
    assert_int_equal(fx_vtpm_vanish(machine, &d), 0);
    daemon_start();
    wait_log("stop %d", pid);
    wait_gone(pid);
    wait_said("forgotten");
    assert_false(has_node(&d, "state"));
    assert_int_equal(entries("run/backend"), 0);
}

static void a_ring_changed_while_no_daemon_ran_is_served_anew(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *old, *f;
    int pid;

    (void)state;
    daemon_start();
    old = connected(&d);
    pid = wait_serve(0).pid;
    daemon_end(SIGKILL);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    fx_frontend_free(old);
    assert_int_equal(fx_frontend_publish(f), 0);
    daemon_start();
    assert_int_equal(wait_serve(1).ring, fx_frontend_ref(f, 0));
    wait_gone(pid);
    fx_frontend_free(f);
}

static void daemon_and_backend_killed_together_come_back(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    struct launched l;

    (void)state;
    daemon_start();
    f = connected(&d);
    l = wait_serve(0);
    daemon_end(SIGKILL);
    kill(l.pid, SIGKILL);
    wait_gone(l.pid);
    assert_int_equal(backend_state(&d), XenbusStateConnected);
    assert_int_equal(entries("run/backend"), 1); /* stale now */
    daemon_start();
    assert_int_equal(wait_serve(1).ring, l.ring);
    wait_log("ready %d", wait_serve(1).pid);
    assert_int_equal(backend_state(&d), XenbusStateConnected);
    fx_frontend_free(f);
}

static void every_state_that_a_dead_daemon_left_is_gone_on_with(void **state)
{
    struct fx_vtpm d = device(5, UUID_A), e = device(6, UUID_B);

    (void)state;
    /* closing, the frontend closed meanwhile */
    assert_int_equal(fx_vtpm_add(machine, &d), 0);
    assert_int_equal(fx_write(machine, d.backend, "state", "5"), 0);
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", "6"), 0);
    /* the toolstack wants the end, nobody served it */
    assert_int_equal(fx_vtpm_add(machine, &e), 0);
    assert_int_equal(fx_vtpm_remove_begin(machine, &e, FX_DESTROY), 0);
    daemon_start();
    wait_state(&d, XenbusStateClosed);
    wait_state(&e, XenbusStateClosed);
    assert_int_equal(count_launches(true), 0);
}

static void a_second_daemon_gives_up_and_harms_nothing(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int status, in = -1;
    pid_t second;

    (void)state;
    daemon_start();
    f = connected(&d);
    in = daemon_in;
    second = daemon_launch();
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    close(daemon_in);
    daemon_in = in;
    assert_true(daemon_said("another xl-vtpmd runs already"));
    assert_int_equal(access(path_in("run/control.sock"), F_OK), 0);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    fx_frontend_free(f);
}

/* Serving processes that are alive. */
static int serving(void)
{
    struct launched l;
    int n = 0;

    for (int i = 0; launched(true, i, &l); i++)
        n += alive(l.pid);
    return n;
}

/* Does it answer? Then it is past everything that was armed against it before. */
static bool daemon_answers(void)
{
    struct json_object *request = json_tokener_parse("{\"call\": \"status\"}"), *result = NULL;
    struct xlv_client *client = NULL;
    struct xlv_settings settings;
    int rc;

    assert_int_equal(xlv_settings_load(&settings, config_path, NULL), 0);
    rc = xlv_client_new(&client, &settings, XLV_CLIENT_DAEMON, NULL);
    if (!rc)
        rc = xlv_client_call(client, request, &result, NULL);
    xlv_client_free(client);
    xlv_settings_deinit(&settings);
    json_object_put(request);
    json_object_put(result);
    return rc == 0;
}

struct race {
    const struct fx_vtpm *d;
    bool died;
};

static bool connected_or_dead(void *arg)
{
    struct race *r = arg;
    int status;

    if (waitpid(daemon_pid, &status, WNOHANG) == daemon_pid) {
        r->died = true;
        daemon_pid = 0;
        close(daemon_in);
        daemon_in = -1;
        return true;
    }
    return backend_state(r->d) == XenbusStateConnected;
}

/* The daemon dies at each of its calls in turn, and the next one brings it to its end. */
static void a_daemon_that_dies_at_any_call_is_gone_on_with(void **state)
{
    static const struct {
        const char *function;
        int stride;
    } calls[] = {
        { "xs_write", 1 }, { "xs_transaction_end", 1 }, { "xs_watch", 1 }, { "xs_read", 6 },
    };
    int deaths[4] = { 0 };

    (void)state;
    /* a domain of its own, for this test calls libxenstore too */
    own = 3;
    write_config("untold-boot = created\n");
    assert_int_equal(fx_domain_create(machine, own, "driverdomain"), 0);
    for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++)
        for (int skip = 0;; skip += calls[c].stride) {
            struct fx_vtpm d = device(5, UUID_A);
            struct fx_frontend *f;
            struct race race = { .d = &d };

            assert_int_equal(fx_vtpm_add(machine, &d), 0);
            assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
            assert_int_equal(fx_frontend_publish(f), 0);
            assert_true(fx_fault(machine, calls[c].function, own, FX_FAULT_KILL, skip, 1) >= 0);
            daemon_pid = daemon_launch();
            assert_true(fx_wait(connected_or_dead, &race, LONG));
            fx_fault_clear(machine);
            /* it may have connected the device and died right after */
            if (!race.died && !daemon_answers()) {
                daemon_end(SIGKILL);
                race.died = true;
            }
            if (race.died) {
                deaths[c]++;
                daemon_start();
                wait_state(&d, XenbusStateConnected);
            }
            /* one process, and it has the ring */
            assert_int_equal(serving(), 1);
            assert_int_equal(fx_read_int(machine, d.backend, "instance"), 1);
            assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
            fx_frontend_free(f);
            daemon_end(SIGKILL);
            assert_int_equal(serving(), 0);
            if (!race.died)
                break;
        }
    /* How many calls there are depends on what the daemon sees at once. A device takes no
     * less than four writes in two transactions, three watches and a dozen reads. */
    print_message("# died at %d writes, %d commits, %d watches, %d reads\n", deaths[0], deaths[1],
                  deaths[2], deaths[3]);
    assert_true(deaths[0] >= 4 && deaths[1] >= 2 && deaths[2] >= 3 && deaths[3] >= 2);
}

/* --- xenstore's ways --- */

static void a_lost_connection_is_made_again_while_tpms_run_on(void **state)
{
    struct fx_vtpm d = device(5, UUID_A), e = device(6, UUID_B);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    assert_int_equal(fx_store_drop(machine, 0, true), 0);
    wait_said("connection to xenstore is lost");
    assert_true(alive(pid));
    kill(pid, SIGKILL); /* processes are looked after meanwhile */
    pid = wait_serve(1).pid;
    assert_int_equal(fx_store_drop(machine, 0, false), 0);
    assert_int_equal(fx_vtpm_create(machine, &e), 0);
    assert_true(alive(pid));
    assert_int_equal(backend_state(&d), XenbusStateConnected);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    fx_frontend_free(f);
}

static void spurious_watches_and_conflicts_change_nothing(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    assert_int_equal(fx_store_conflict(machine, 0, 5), 0);
    f = connected(&d);
    pid = wait_serve(0).pid;
    for (int i = 0; i < 20; i++)
        assert_int_equal(fx_store_spurious(machine, 0), 0);
    assert_int_equal(fx_store_conflict(machine, 0, 3), 0);
    assert_int_equal(fx_frontend_close(f, LONG), 0);
    wait_gone(pid);
    assert_int_equal(count_launches(true), 1);
    fx_frontend_free(f);
}

static void coalesced_watches_still_lead_to_the_last_state(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *old, *f;
    struct launched l;

    (void)state;
    daemon_start();
    old = connected(&d);
    l = wait_serve(0);
    assert_int_equal(fx_store_hold(machine, 0, true), 0);
    /* closed, reloaded and connected again, and the daemon sees only the end of it */
    assert_int_equal(fx_frontend_set_state(old, XenbusStateClosing), 0);
    assert_int_equal(fx_frontend_set_state(old, XenbusStateClosed), 0);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    fx_frontend_free(old);
    assert_int_equal(fx_frontend_publish(f), 0);
    assert_int_equal(fx_store_hold(machine, 0, false), 0);
    assert_int_equal(wait_serve(1).ring, fx_frontend_ref(f, 0));
    wait_gone(l.pid);
    wait_state(&d, XenbusStateConnected);
    fx_frontend_free(f);
}

static void what_a_hostile_frontend_writes_is_not_believed(void **state)
{
    static const char *const bad[] = {
        "", "-1", "3 ", "0x3", "99", "4294967299", "three", "33333333333333333333333333333333",
    };
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    char *huge = malloc(2000);
    int pid;

    (void)state;
    memset(huge, '3', 1999);
    huge[1999] = '\0';
    daemon_start();
    assert_int_equal(fx_vtpm_create(machine, &d), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", bad[i]), 0);
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", huge), 0);
    /* a ring that is none */
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(fx_guest_write(guest, "device/vtpm/0/ring-ref", bad[i]), 0);
        assert_int_equal(fx_guest_write(guest, "device/vtpm/0/event-channel", bad[i]), 0);
        assert_int_equal(fx_guest_write(guest, "device/vtpm/0/feature-protocol-v2", bad[i]), 0);
        assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", "3"), 0);
    }
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/event-channel", "131072"), 0);
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/ring-ref", "8"), 0);
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/feature-protocol-v2", "1"), 0);
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", "3"), 0);
    /* its link to the backend is nobody's business */
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/backend", "/local/domain/0/backend"), 0);
    assert_int_equal(backend_state(&d), XenbusStateInitWait);
    assert_int_equal(count_launches(true), 0);
    /* it comes to its senses */
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_connect(f, LONG), 0);
    pid = wait_serve(0).pid;
    /* nonsense while it is served changes nothing */
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", "nonsense"), 0);
    assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", huge), 0);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateConnected), 0);
    assert_true(alive(pid));
    assert_int_equal(count_launches(true), 1);
    fx_frontend_free(f);
    free(huge);
}

static void a_guest_that_deletes_its_frontend_ends_no_boot(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    {
        /* as the guest may: its directory is its own */
        struct fx_vtpm only = d;

        snprintf(only.backend, sizeof(only.backend), "/local/domain/5/data/none");
        snprintf(only.libxl, sizeof(only.libxl), "/local/domain/5/data/none");
        assert_int_equal(fx_vtpm_vanish(machine, &only), 0);
    }
    wait_log("stop %d %d", pid, XLV_STOP_FRONTEND_CLOSED);
    wait_gone(pid);
    assert_int_equal(entries("run/journal"), 1);
    fx_frontend_free(f);
}

static void a_guest_that_changes_rings_all_the_time_waits(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int64_t start;

    (void)state;
    daemon_start();
    f = connected(&d);
    start = fx_now();
    for (int i = 0; i < 22; i++) {
        char port[16];

        wait_serve(i);
        snprintf(port, sizeof(port), "%d", 100 + i);
        assert_int_equal(fx_guest_write(guest, "device/vtpm/0/event-channel", port), 0);
        assert_int_equal(fx_guest_write(guest, "device/vtpm/0/state", "3"), 0);
    }
    wait_serve(22);
    assert_true(fx_now() - start >= 2000);
    fx_frontend_free(f);
}

static void a_guest_that_closes_and_comes_back_all_the_time_waits(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int64_t start;

    (void)state;
    daemon_start();
    f = connected(&d);
    start = fx_now();
    for (int i = 0; i < 22; i++) {
        wait_serve(i);
        assert_int_equal(fx_frontend_set_state(f, XenbusStateClosed), 0);
        wait_state(&d, XenbusStateClosed);
        assert_int_equal(fx_frontend_set_state(f, XenbusStateInitialised), 0);
    }
    wait_serve(22);
    assert_true(fx_now() - start >= 2000);
    wait_said("connects again and again");
    fx_frontend_free(f);
}

static void a_dead_domain_whose_nodes_were_left_is_let_go(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    fx_frontend_free(f);
    assert_int_equal(fx_domain_destroy(machine, 5), 0);
    /* it may have been saved before it went: nobody can tell any more */
    wait_log("stop %d %d", pid, XLV_STOP_SUSPEND);
    wait_gone(pid);
    wait_state(&d, XenbusStateClosed);
}

/* --- suspended and restored domains --- */

/* xl save: the domain is suspended, its devices go, then itself. */
static void save_begin(struct fx_vtpm *d, uint32_t mark)
{
    assert_int_equal(fx_domain_mark(machine, d->domid, mark), 0);
    assert_int_equal(fx_domain_shutdown(machine, d->domid, 2), 0);
    assert_int_equal(fx_vtpm_remove(machine, d, FX_DESTROY), 0);
}

static void save_end(struct fx_vtpm *d, struct fx_frontend *f)
{
    fx_frontend_free(f);
    assert_int_equal(fx_domain_destroy(machine, d->domid), 0);
    assert_int_equal(fx_domain_erase(machine, d->domid), 0);
}

static void save(struct fx_vtpm *d, struct fx_frontend *f, uint32_t mark)
{
    save_begin(d, mark);
    save_end(d, f);
}

/* xl restore, up to where the devices are attached: another domid, the uuid of domain 5. */
static struct fx_vtpm restored(uint32_t domid, uint32_t mark, const char *uuid)
{
    char home[64];

    assert_int_equal(fx_domain_create(machine, domid, "guest5"), 0);
    assert_int_equal(fx_domain_incarnation(machine, domid, 2), 0);
    assert_int_equal(fx_domain_mark(machine, domid, mark), 0);
    snprintf(home, sizeof(home), "/local/domain/%u", domid);
    assert_int_equal(
        fx_write(machine, home, "vm", "/vm/00000000-0000-4000-8000-000000000005"), 0);
    return device(domid, uuid);
}

/* The driver of another domain than 5 connects to its device, in libxl's order. */
static struct fx_frontend *connected_in(struct fx_vtpm *d, struct fx_guest **other)
{
    struct fx_frontend *f;

    assert_int_equal(fx_guest_open(other, machine, d->domid), 0);
    assert_int_equal(fx_vtpm_create(machine, d), 0);
    assert_int_equal(fx_frontend_open(&f, *other, d, 0), 0);
    assert_int_equal(fx_frontend_connect(f, LONG), 0);
    return f;
}

/* And is gone again. */
static void removed_in(struct fx_vtpm *d, struct fx_frontend *f, struct fx_guest *other)
{
    assert_int_equal(fx_vtpm_remove(machine, d, FX_DESTROY), 0);
    fx_frontend_free(f);
    fx_guest_close(other);
}

/* A member of what `show` says about instance 1, as text; static. */
static const char *shown(const char *member)
{
    static char text[1024];
    struct json_object *value = NULL, *answer = call("{\"call\":\"show\",\"number\":1}");

    json_object_object_get_ex(answer, member, &value);
    snprintf(text, sizeof(text), "%s", json_object_get_string(value));
    json_object_put(answer);
    return text;
}

static void accept_restore(const char *word)
{
    char request[96];

    snprintf(request, sizeof(request), "{\"call\":\"accept\",\"number\":1,\"accept\":\"%s\"}",
             word);
    json_object_put(call(request));
}

static void a_restored_domain_gets_the_state_of_its_save(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_guest *other;
    struct fx_frontend *f;
    struct launched l;

    (void)state;
    daemon_start();
    f = connected(&d);
    l = wait_serve(0);
    assert_int_equal(l.boot, XLV_BOOT_FRESH);
    save(&d, f, 1234);
    wait_log("stop %d %d", l.pid, XLV_STOP_SUSPEND);
    assert_non_null(strstr(shown("suspended"), "\"certain\": true"));
    /* a daemon of the next day */
    daemon_end(SIGTERM);
    daemon_start();
    d = restored(7, 1234, UUID_A);
    f = connected_in(&d, &other);
    assert_int_equal(wait_serve(1).boot, XLV_BOOT_KEPT);
    assert_string_equal(shown("suspended"), "(null)");
    /* its successor goes on from the journal */
    kill(wait_serve(1).pid, SIGKILL);
    assert_int_equal(wait_serve(2).boot, XLV_BOOT_FRESH);
    removed_in(&d, f, other);
}

static void another_save_is_refused_until_somebody_chooses(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_guest *other;
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    f = connected(&d);
    save(&d, f, 1234);
    /* of a checkpoint before that save */
    d = restored(7, 1000, UUID_A);
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    wait_said("restored from a save file, and the state that is kept of its TPM is not certainly "
              "of that save");
    assert_int_equal(fx_vtpm_vanish(machine, &d), 0);
    /* the administrator says that it may have what there is */
    accept_restore("kept");
    f = connected_in(&d, &other);
    assert_int_equal(wait_serve(1).boot, XLV_BOOT_KEPT);
    assert_string_equal(shown("accept"), "(null)");
    removed_in(&d, f, other);
    assert_int_equal(fx_domain_destroy(machine, 7), 0);

    /* the same file again, when its TPM has gone on */
    d = restored(8, 1000, UUID_A);
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    wait_said("its TPM has gone on since that save");
    assert_non_null(strstr(shown("last_refusal"), "xl-vtpm accept 1 --reset"));
    assert_int_equal(fx_vtpm_vanish(machine, &d), 0);
    accept_restore("reset");
    f = connected_in(&d, &other);
    assert_int_equal(wait_serve(2).boot, XLV_BOOT_FRESH);
    removed_in(&d, f, other);
}

static void a_created_domain_begins_anew_and_the_save_is_over(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_guest *other;
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    f = connected(&d);
    save(&d, f, 1234);
    d = device(6, UUID_A);
    f = connected_in(&d, &other);
    assert_int_equal(wait_serve(1).boot, XLV_BOOT_FRESH);
    removed_in(&d, f, other);
    d = restored(7, 1234, UUID_A);
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    wait_said("its TPM has gone on since that save");
}

static void what_a_killed_backend_could_not_keep_another_process_keeps(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;
    char line[64];

    (void)state;
    daemon_start();
    f = connected(&d);
    /* killed by its deadline instead of keeping anything */
    put_file("1.mode", "mute\n");
    kill(wait_serve(0).pid, SIGKILL);
    (void)wait_serve(1);
    save(&d, f, 1234);
    wait_log("stop %d %d", wait_serve(1).pid, XLV_STOP_SUSPEND);
    snprintf(line, sizeof(line), "keep 1 5/0");
    wait_log("%s", line);
    assert_non_null(strstr(shown("suspended"), "\"certain\": true"));
    /* a daemon that starts has no word about whether that was done, if there is a journal: it makes
     * sure */
    daemon_end(SIGKILL);
    put_file("run/journal/1", "");
    put_file("log", "");
    daemon_start();
    wait_log("%s", line);
}

static void a_guest_saved_without_its_driver_is_kept_too(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    f = connected(&d);
    assert_int_equal(fx_frontend_close(f, LONG), 0);
    wait_log("stop %d %d", wait_serve(0).pid, XLV_STOP_FRONTEND_CLOSED);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateClosed), 0);
    /* Its backend is at Closed already, so libxl waits for nobody: the domain is there until the
     * daemon has looked only if something else takes the toolstack's time. */
    save_begin(&d, 1234);
    wait_log("keep 1 5/0");
    save_end(&d, f);
    assert_non_null(strstr(shown("suspended"), "\"certain\": true"));
}

static bool device_is(void *wanted)
{
    char text[64];

    snprintf(text, sizeof(text), "\"state\": \"%s\"", (const char *)wanted);
    return strstr(shown("device"), text) != NULL;
}

/* libxl has removed the nodes, too, before the daemon looks. */
static void a_save_that_is_over_when_the_daemon_looks_is_kept_too(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    f = connected(&d);
    assert_int_equal(fx_frontend_close(f, LONG), 0);
    assert_int_equal(fx_frontend_set_state(f, XenbusStateClosed), 0);
    assert_true(fx_wait(device_is, (void *)(uintptr_t)"closed", LONG));
    kill(daemon_pid, SIGSTOP);
    save_begin(&d, 1234);
    kill(daemon_pid, SIGCONT);
    wait_log("keep 1 5/0");
    save_end(&d, f);
    assert_non_null(strstr(shown("suspended"), "\"certain\": true"));
}

static void a_migration_within_the_host_waits_for_the_other_half(void **state)
{
    struct fx_vtpm d = device(5, UUID_A), target;
    struct fx_guest *other;
    struct fx_frontend *f, *g;

    (void)state;
    daemon_start();
    f = connected(&d);
    assert_int_equal(fx_domain_mark(machine, 5, 77), 0);
    assert_int_equal(fx_domain_shutdown(machine, 5, 2), 0);
    target = restored(7, 77, UUID_A);
    assert_int_equal(fx_write(machine, "/local/domain/7", "name", "guest5--incoming"), 0);
    assert_int_equal(fx_vtpm_create(machine, &target), 0);
    assert_int_equal(fx_guest_open(&other, machine, 7), 0);
    assert_int_equal(fx_frontend_open(&g, other, &target, 0), 0);
    assert_int_equal(fx_frontend_publish(g), 0);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    assert_int_equal(fx_frontend_wait_backend(g, XenbusStateConnected, LONG), 0);
    assert_int_equal(wait_serve(1).boot, XLV_BOOT_KEPT);
    fx_frontend_free(f);
    assert_int_equal(fx_vtpm_remove(machine, &target, FX_DESTROY), 0);
    fx_frontend_free(g);
    fx_guest_close(other);
}

static void a_late_attach_is_recorded(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    assert_int_equal(fx_domain_ran(machine, 5), 0);
    /* a domain that was restored once and has run since is no restore */
    assert_int_equal(fx_domain_incarnation(machine, 5, 2), 0);
    f = connected(&d);
    assert_int_equal(wait_serve(0).boot, XLV_BOOT_FRESH);
    assert_non_null(strstr(shown("late_attach"), "20"));
    /* a driver that comes back is no attach */
    assert_int_equal(fx_frontend_close(f, LONG), 0);
    fx_frontend_free(f);
    assert_int_equal(fx_frontend_open(&f, guest, &d, 0), 0);
    assert_int_equal(fx_frontend_connect(f, LONG), 0);
    (void)wait_serve(1);
    assert_non_null(strstr(shown("late_attach"), "20"));
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    fx_frontend_free(f);
}

static void a_late_attach_is_refused_where_it_shall_be(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);

    (void)state;
    write_config("late-attach = refuse\n");
    daemon_start();
    assert_int_equal(fx_domain_ran(machine, 5), 0);
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    wait_said("it runs already, so the TPM would not have seen its boot");
}

/* As xl-vtpm-move leaves it: offered to another host, and given to it. */
static void hand_over(bool departed)
{
    static const char token[] = "0d7c6a52-2f0a-4c3b-9a53-3c3a6c4a7f10";
    struct xlv_registry *registry;
    struct xlv_error e = XLV_ERROR_INIT;
    char path[512];

    snprintf(path, sizeof(path), "%s/state", work);
    assert_int_equal(xlv_registry_open(&registry, path, false, &e), 0);
    assert_int_equal(xlv_registry_offer(registry, 1, token, "elsewhere", &e), 0);
    if (departed)
        assert_int_equal(xlv_registry_move(registry, 1, token, XLV_HANDOVER_DEPARTING,
                                           XLV_HANDOVER_DEPARTED, &e), 0);
    xlv_registry_close(registry);
}

static void what_was_handed_to_another_host_is_not_served(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    f = connected(&d);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    fx_frontend_free(f);
    hand_over(true);
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    wait_said("departed (other host: elsewhere");
}

static void an_offer_that_nobody_makes_any_more_is_taken_back(void **state)
{
    struct fx_vtpm d = device(5, UUID_A);
    struct fx_frontend *f;

    (void)state;
    daemon_start();
    f = connected(&d);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    fx_frontend_free(f);
    hand_over(false);
    f = connected(&d);
    wait_said("its handover to elsewhere was broken off; it stays here");
    (void)wait_serve(1);
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    fx_frontend_free(f);
}

static void where_nothing_is_told_a_domain_is_refused(void **state)
{
    struct fx_vtpm d;

    (void)state;
    own = 3;
    assert_int_equal(fx_domain_create(machine, 3, "driverdomain"), 0);
    daemon_start();
    d = device(5, UUID_A);
    assert_int_equal(fx_vtpm_create(machine, &d), -ENOENT);
    wait_said("set untold-boot = created in xl-vtpm.conf");
}

static void a_driver_domain_serves_and_removes_its_own_leaf(void **state)
{
    struct fx_vtpm d;
    struct fx_frontend *f;
    int64_t start;

    (void)state;
    own = 3;
    write_config("untold-boot = created\n");
    assert_int_equal(fx_domain_create(machine, 3, "driverdomain"), 0);
    daemon_start();
    d = device(5, UUID_A);
    f = connected(&d);
    wait_serve(0);
    start = fx_now();
    assert_int_equal(fx_vtpm_remove(machine, &d, FX_DESTROY), 0);
    print_message("# removed after %lld ms\n", (long long)(fx_now() - start));
    /* one second of it for libxl to see the 6 */
    assert_true(fx_now() - start < 2500);
    assert_false(has_node(&d, "state"));
    wait_log("stop %d %d", wait_serve(0).pid, XLV_STOP_DOMAIN_END);
    fx_frontend_free(f);
}

static void many_devices_are_served_side_by_side(void **state)
{
    enum { N = 40 };
    struct fx_vtpm d[N];
    int64_t start;

    (void)state;
    daemon_start();
    start = fx_now();
    for (int i = 0; i < N; i++) {
        char uuid[64];

        snprintf(uuid, sizeof(uuid), "00000000-0000-4000-8000-%012d", i);
        assert_int_equal(fx_domain_create(machine, 10 + (uint32_t)i, NULL), 0);
        fx_vtpm_init(&d[i], 0, 10 + (uint32_t)i, 0, uuid);
        assert_int_equal(fx_vtpm_add(machine, &d[i]), 0);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(fx_vtpm_wait(machine, &d[i], XenbusStateInitWait, LONG), 0);
    print_message("# %d devices at InitWait after %lld ms\n", N, (long long)(fx_now() - start));
    for (int i = 0; i < N; i++)
        assert_int_equal(fx_vtpm_remove(machine, &d[i], FX_DESTROY), 0);
}

/* --- the control socket --- */

static long long number(struct json_object *o, const char *a, const char *b)
{
    struct json_object *x;

    if (!json_object_object_get_ex(o, a, &x) || (b && !json_object_object_get_ex(x, b, &x)))
        return -1;
    return json_object_get_int64(x);
}

static void the_control_socket_tells_about_running_devices(void **state)
{
    struct fx_vtpm d = device(5, UUID_A), second = device(6, UUID_A);
    struct json_object *o, *x;
    struct fx_frontend *f;
    struct stat st;
    int pid;

    (void)state;
    daemon_start();
    f = connected(&d);
    pid = wait_serve(0).pid;
    assert_int_equal(fx_vtpm_create(machine, &second), -ENOENT);
    assert_int_equal(stat(path_in("run/control.sock"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    o = call("{\"call\": \"show\", \"number\": 1}");
    assert_int_equal(number(o, "device", "domid"), 5);
    assert_int_equal(number(o, "device", "pid"), pid);
    assert_int_equal(number(o, "device", "generation"), 7);
    assert_int_equal(number(o, "device", "commands"), 42);
    assert_int_equal(number(o, "device", "commits"), 3);
    assert_int_equal(number(o, "device", "recovered"), 1);
    assert_int_equal(number(o, "last_refusal", "domid"), 6);
    assert_true(json_object_object_get_ex(o, "last_refusal", &x));
    assert_true(json_object_object_get_ex(x, "reason", &x));
    assert_non_null(strstr(json_object_get_string(x), "guest5"));
    json_object_put(o);

    o = call("{\"call\": \"list\"}");
    assert_int_equal(json_object_array_length(o), 1);
    json_object_put(o);

    o = call("{\"call\": \"status\"}");
    assert_int_equal(number(o, "pid", NULL), daemon_pid);
    assert_int_equal(number(o, "instances", NULL), 1);
    assert_true(json_object_object_get_ex(o, "refusals", &x));
    assert_int_equal(json_object_array_length(x), 1);
    json_object_put(o);

    o = call("{\"call\": \"create\", \"uuid\": \"" UUID_B "\"}");
    assert_int_equal(number(o, "number", NULL), 2);
    json_object_put(o);
    wait_said("its TPM 2.0 is manufactured");
    fx_frontend_free(f);
}

/* What a process of that group gets: 0 an answer, 1 refused, 2 no connection. */
static int asked_by(gid_t gid, gid_t supplementary, const char *request)
{
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        struct json_object *o = json_tokener_parse(request), *result;
        struct xlv_settings settings;
        struct xlv_client *client;
        int rc;

        if (setgroups(1, &supplementary) || setresgid(gid, gid, gid) ||
            setresuid(65534, 65534, 65534) || xlv_settings_load(&settings, config_path, NULL))
            _exit(9);
        if (xlv_client_new(&client, &settings, XLV_CLIENT_DAEMON, NULL))
            _exit(2);
        rc = xlv_client_call(client, o, &result, NULL);
        _exit(rc == 0 ? 0 : rc == XLV_E_REFUSED ? 1 : 3);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* As many connections as there are, of a member of that group, until the result is closed. */
static int all_connections_of(gid_t gid)
{
    int pair[2];
    char byte;
    pid_t pid;

    fflush(NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        struct xlv_settings settings;
        struct xlv_client *client;

        close(pair[0]);
        if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(65534, 65534, 65534) ||
            xlv_settings_load(&settings, config_path, NULL))
            _exit(9);
        for (unsigned i = 0; i < XLV_CONTROL_CLIENTS_MAX; i++)
            if (xlv_client_new(&client, &settings, XLV_CLIENT_DAEMON, NULL))
                _exit(2);
        (void)!write(pair[1], "", 1);
        (void)!read(pair[1], &byte, 1);
        _exit(0);
    }
    close(pair[1]);
    assert_int_equal(read(pair[0], &byte, 1), 1);
    return pair[0];
}

static void a_group_may_look_and_change_nothing(void **state)
{
    static const char *const looking[] = { "{\"call\": \"list\"}", "{\"call\": \"status\"}",
                                           "{\"call\": \"check\", \"domain\": \"x\"}" };
    static const char *const changing[] = { "{\"call\": \"create\"}", "{\"call\": 1}", "{}",
                                            "{\"call\": \"release\", \"number\": 1}" };
    const struct group *group = getgrnam("tty");
    int connections;
    struct stat st;
    gid_t gid;

    (void)state;
    if (geteuid() != 0 || !group)
        return;
    gid = group->gr_gid;
    assert_int_equal(chmod(work, 0711), 0);
    write_config("control-group = tty\n");
    assert_int_equal(chmod(config_path, 0644), 0);
    daemon_start();
    assert_int_equal(stat(path_in("run/control.sock"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_int_equal(st.st_gid, gid);
    assert_int_equal(stat(path_in("run"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0710);
    for (size_t i = 0; i < sizeof(looking) / sizeof(looking[0]); i++) {
        assert_int_equal(asked_by(gid, 65534, looking[i]), 0);
        assert_int_equal(asked_by(65534, gid, looking[i]), 0);
        assert_int_equal(asked_by(65534, 65534, looking[i]), 2);
    }
    for (size_t i = 0; i < sizeof(changing) / sizeof(changing[0]); i++)
        assert_int_equal(asked_by(65534, gid, changing[i]), 1);
    json_object_put(call("{\"call\": \"create\"}"));
    /* nor keep root out */
    connections = all_connections_of(gid);
    json_object_put(call("{\"call\": \"status\"}"));
    close(connections);
    assert_true(wait(NULL) > 0);
    /* and nobody once the setting is gone */
    daemon_end(SIGTERM);
    write_config("");
    daemon_start();
    assert_int_equal(stat(path_in("run/control.sock"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(path_in("run"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(asked_by(gid, gid, looking[0]), 2);
}

static void clients_that_talk_nonsense_or_not_at_all_are_borne(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct json_object *o;
    int fds[70];

    (void)state;
    daemon_start();
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/run/control.sock", work);
    for (int i = 0; i < 70; i++) {
        fds[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&address, sizeof(address)), 0);
        if (i % 2)
            (void)!send(fds[i], "nonsense", 8, MSG_NOSIGNAL);
    }
    for (int i = 0; i < 70; i++)
        close(fds[i]);
    o = call("{\"call\": \"status\"}");
    json_object_put(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_daemon(a_new_device_is_at_initwait_within_a_second),
        on_daemon(the_backend_gets_ring_and_port_of_the_frontend),
        on_daemon(initwait_is_held_for_libxl_while_the_guest_is_served_already),
        on_daemon(a_closing_frontend_sees_5_and_6_after_its_own),
        on_daemon(a_reloaded_driver_is_served_again),
        on_daemon(a_driver_that_jumps_to_6_is_closed_and_comes_back),
        on_daemon(a_destroyed_domain_ends_the_boot_and_leaves_nothing),
        on_daemon(a_detach_is_no_end_of_the_boot),
        on_daemon(a_guest_that_does_not_let_go_does_not_hold_up_the_toolstack),
        on_daemon(a_vanished_directory_ends_the_process_and_stays_away),
        on_daemon(a_directory_made_anew_at_once_is_a_new_device),
        on_daemon(a_new_ring_without_handshake_gets_a_fresh_process),
        on_daemon(a_killed_backend_is_followed_by_another_on_the_same_ring),
        on_daemon(an_instance_whose_backend_always_crashes_is_quarantined),
        on_daemon(a_malicious_backend_harms_its_own_guest_only),
        on_daemon(a_process_that_claims_to_be_anothers_is_ended),
        on_daemon(a_process_that_claims_what_nobody_uses_is_ended),
        on_daemon(a_damaged_store_closes_the_device_and_is_not_tried_again),
        on_daemon(a_failure_that_may_pass_is_tried_again),
        on_daemon(a_manufacture_that_fails_is_done_again),
        on_daemon(a_manufacture_cut_short_is_completed_by_the_next_daemon),
        on_daemon(a_new_tpm_is_certified_and_that_is_known),
        on_daemon(a_ca_that_is_gone_is_missed_and_not_replaced),
        on_daemon(a_key_that_is_none_gets_no_certificate),
        on_daemon(without_a_ca_the_keys_are_known_all_the_same),
        on_daemon(the_second_domain_with_a_uuid_is_refused_at_once),
        on_daemon(a_rebooting_domain_waits_for_its_former_self),
        on_daemon(a_received_domain_waits_for_its_source),
        on_daemon(an_unknown_uuid_is_refused_where_policy_says_so),
        on_daemon(a_uuid_that_does_not_parse_is_refused),
        on_daemon(a_daemon_that_starts_late_serves_what_waits),
        on_daemon(a_stopped_daemon_leaves_tpms_running_and_finds_them_again),
        on_daemon(a_killed_daemon_leaves_tpms_running_and_finds_them_again),
        on_daemon(a_backend_that_never_listened_itself_is_found_as_well),
        on_daemon(a_device_gone_while_no_daemon_ran_is_stopped),
        on_daemon(a_ring_changed_while_no_daemon_ran_is_served_anew),
        on_daemon(daemon_and_backend_killed_together_come_back),
        on_daemon(every_state_that_a_dead_daemon_left_is_gone_on_with),
        on_daemon(a_second_daemon_gives_up_and_harms_nothing),
        on_daemon(a_daemon_that_dies_at_any_call_is_gone_on_with),
        on_daemon(a_lost_connection_is_made_again_while_tpms_run_on),
        on_daemon(spurious_watches_and_conflicts_change_nothing),
        on_daemon(coalesced_watches_still_lead_to_the_last_state),
        on_daemon(what_a_hostile_frontend_writes_is_not_believed),
        on_daemon(a_guest_that_deletes_its_frontend_ends_no_boot),
        on_daemon(a_guest_that_changes_rings_all_the_time_waits),
        on_daemon(a_guest_that_closes_and_comes_back_all_the_time_waits),
        on_daemon(a_dead_domain_whose_nodes_were_left_is_let_go),
        on_daemon(a_restored_domain_gets_the_state_of_its_save),
        on_daemon(another_save_is_refused_until_somebody_chooses),
        on_daemon(a_created_domain_begins_anew_and_the_save_is_over),
        on_daemon(what_a_killed_backend_could_not_keep_another_process_keeps),
        on_daemon(a_guest_saved_without_its_driver_is_kept_too),
        on_daemon(a_save_that_is_over_when_the_daemon_looks_is_kept_too),
        on_daemon(a_migration_within_the_host_waits_for_the_other_half),
        on_daemon(a_late_attach_is_recorded),
        on_daemon(a_late_attach_is_refused_where_it_shall_be),
        on_daemon(what_was_handed_to_another_host_is_not_served),
        on_daemon(an_offer_that_nobody_makes_any_more_is_taken_back),
        on_daemon(where_nothing_is_told_a_domain_is_refused),
        on_daemon(a_driver_domain_serves_and_removes_its_own_leaf),
        on_daemon(many_devices_are_served_side_by_side),
        on_daemon(the_control_socket_tells_about_running_devices),
        on_daemon(a_group_may_look_and_change_nothing),
        on_daemon(clients_that_talk_nonsense_or_not_at_all_are_borne),
    };

    signal(SIGPIPE, SIG_IGN);
    if (getenv("TEST_FILTER"))
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    return cmocka_run_group_tests_name("reconcile", tests, NULL, NULL);
}
