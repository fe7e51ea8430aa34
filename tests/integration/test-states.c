/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The administrator's work on states beside the real daemon and real backends: a change of the
 * master key under running guests, killed and gone on with; a damaged state and the choice of the
 * other slot; quarantine; what PCRs a guest has. What a guest wrote is there again afterwards. And
 * what the doctor says of all that runs.
 */
#include "config.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "tests/integration/scene.h"

#define UUID_C "6a1c7c0e-2f8b-4d0a-9b38-3e5f0a7d9c11"
#define KILLS 24

static char said[32768]; /* what the last command wrote, both streams */

static void out_path(char path[160])
{
    snprintf(path, 160, "%s/out", H.dir);
}

/* Starts `xl-vtpm ARGUMENT...`. */
static pid_t command_start(const char *const *arguments)
{
    char conf[160], out[160];
    const char *argv[12] = { "xl-vtpm", "-c", conf };
    pid_t pid;
    int fd;

    snprintf(conf, sizeof(conf), "%s/xl-vtpm.conf", H.dir);
    out_path(out);
    for (int i = 0; arguments[i]; i++)
        argv[3 + i] = arguments[i];
    pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    /* what runs in the background of a shell ignores it */
    signal(SIGINT, SIG_DFL);
    close(STDIN_FILENO);
    open("/dev/null", O_RDONLY);
    /* the command has the host's own libraries, which do not go with the fakes' libxenctrl */
    unsetenv("LD_LIBRARY_PATH");
    execv(H.command_program, (char *const *)argv);
    _exit(127);
}

static int command_end(pid_t pid)
{
    char out[160];
    ssize_t n;
    int status, fd;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    out_path(out);
    fd = open(out, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? 0 : read(fd, said, sizeof(said) - 1);
    said[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define COMMAND(...) command_end(command_start((const char *const[]){ __VA_ARGS__, NULL }))

static void expect_code(int code, int want)
{
    if (code != want)
        fail_msg("exit code %d instead of %d; it said: %s", code, want, said);
}

static void expect_said(const char *text)
{
    if (!strstr(said, text))
        fail_msg("'%s' is not in: %s", text, said);
}

static bool exists(const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/state/%s", H.dir, name);
    return access(path, F_OK) == 0;
}

static void flip(unsigned number, unsigned slot)
{
    char path[256], byte;
    int fd;

    snprintf(path, sizeof(path), "%s/state/instances/%u/slot-%u", H.dir, number, slot);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, 700), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 700), 1);
    close(fd);
}

static void quarantine(unsigned number)
{
    char line[400];

    snprintf(line, sizeof(line), "sqlite3 %s/state/vtpm.db \"PRAGMA busy_timeout = 10000; UPDATE "
             "instance SET life = 'quarantined' WHERE number = %u\" >/dev/null", H.dir, number);
    assert_int_equal(system(line), 0);
}

static void write_nv(struct vm *v, const char *text)
{
    uint8_t data[TPM2_NV_SIZE] = { 0 };

    memcpy(data, text, strlen(text));
    assert_int_equal(tpm2_nv_write(v->f, data), 0);
}

static void assert_nv(struct vm *v, const char *text)
{
    uint8_t data[TPM2_NV_SIZE] = { 0 }, back[TPM2_NV_SIZE];

    memcpy(data, text, strlen(text));
    assert_int_equal(tpm2_nv_read(v->f, back), 0);
    assert_memory_equal(back, data, sizeof(data));
}

static void boot_and_define(struct vm *v, uint32_t domid, const char *uuid, const char *text)
{
    vm_boot(v, domid, uuid);
    assert_int_equal(tpm2_nv_define(v->f), 0);
    write_nv(v, text);
}

static void close_driver(struct vm *v)
{
    assert_int_equal(fx_frontend_close(v->f, SOON), 0);
    fx_frontend_free(v->f);
    v->f = NULL;
}

static void open_driver(struct vm *v)
{
    assert_int_equal(fx_frontend_open(&v->f, v->g, &v->dev, 0), 0);
    assert_int_equal(fx_frontend_set_state(v->f, XenbusStateInitialising), 0);
    assert_int_equal(fx_frontend_wait_backend(v->f, XenbusStateInitWait, SOON), 0);
    assert_int_equal(fx_frontend_connect(v->f, SOON), 0);
}

/* Until the daemon has forgotten it. Before that its instance is in use; and where the domain is
 * gone before that looks, it may have been saved, and a process more sees to its state. */
static void until_forgotten(struct vm *v, void (*how)(struct vm *v))
{
    int number = fx_read_int(H.m, v->dev.backend, "instance");
    char forgotten[100];
    unsigned before;

    assert_true(number > 0);
    snprintf(forgotten, sizeof(forgotten), "dom %u/0 %s #%d: forgotten", v->domid, v->dev.uuid,
             number);
    before = log_count(&H, forgotten);
    how(v);
    if (!log_wait_for(&H, forgotten, before + 1, SOON))
        fail_msg("'%s' did not come", forgotten);
}

static void shut_down(struct vm *v)
{
    until_forgotten(v, vm_shutdown);
}

static void boot_and_find(uint32_t domid, const char *uuid, const char *text)
{
    struct vm v;

    vm_boot(&v, domid, uuid);
    assert_nv(&v, text);
    shut_down(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
}

static void the_master_key_changes_under_running_guests(void)
{
    pid_t pids[MAX_BACKENDS];
    struct vm a, b, c;

    boot_and_define(&b, 6, UUID_B, "b");
    shut_down(&b);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    boot_and_define(&a, 5, UUID_A, "a");
    extend(&a, 7, "boot");

    expect_code(COMMAND("rekey"), 6);
    expect_said("is left: in use by domain 5 (device 0)");
    expect_said("sealed under the new key: 1,");
    assert_true(exists("master.key") && exists("master.key.new"));

    /* the one that runs is still under the old key, whoever serves it */
    write_nv(&a, "a, again");
    assert_true(backends_wait(&H, 1, pids, SOON));
    process_kill(pids[0]);
    assert_nv(&a, "a, again");
    assert_pcr(&a, 7, "boot", 1);
    /* the others under the new one */
    vm_boot(&b, 16, UUID_B);
    assert_nv(&b, "b");
    boot_and_define(&c, 7, UUID_C, "c");
    /* also for a daemon that starts in between */
    daemon_kill(&H);
    assert_int_equal(daemon_start(&H), 0);
    vm_random(&a);
    assert_true(backends_wait(&H, 3, pids, SOON));
    for (int i = 0; i < 3; i++)
        process_kill(pids[i]);
    assert_nv(&a, "a, again");
    assert_pcr(&a, 7, "boot", 1);
    assert_nv(&b, "b");
    assert_nv(&c, "c");

    shut_down(&b);
    shut_down(&c);
    assert_true(backends_wait(&H, 1, NULL, SOON));
    expect_code(COMMAND("rekey"), 6);
    expect_said("since an earlier run: 2");
    shut_down(&a);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("rekey"), 0);
    assert_false(exists("master.key.new"));

    boot_and_find(8, UUID_A, "a, again");
    boot_and_find(9, UUID_B, "b");
    assert_int_equal(daemon_stop(&H), 0);
    assert_int_equal(daemon_start(&H), 0);
    boot_and_find(10, UUID_C, "c");
}

/* The record of it has the volatile state alone. */
static void start_a_hash(struct vm *v)
{
    static const uint8_t start[] = { 0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x86, 0, 0, 0, 0x0b };
    uint8_t response[4096];
    size_t n;

    assert_int_equal(tpm_send(v->f, start, sizeof(start), response, &n), 0);
}

/* Daemon and backend die together, and the master key is changed. */
static void both_die_and_rekey(void)
{
    pid_t pids[MAX_BACKENDS];

    assert_true(backends_wait(&H, 1, pids, SOON));
    daemon_kill(&H);
    process_kill(pids[0]);
    expect_code(COMMAND("rekey"), 0);
    expect_said("sealed under the new key: 1,");
}

static void a_boot_goes_on_where_the_key_changed_without_its_backend(void)
{
    struct vm v;

    /* the driver is unloaded: no backend, and the boot is not over */
    boot_and_define(&v, 5, UUID_A, "a");
    extend(&v, 7, "boot");
    vm_random(&v); /* the last record is one without the permanent state */
    close_driver(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("rekey"), 0);
    expect_said("sealed under the new key: 1,");
    open_driver(&v);
    assert_pcr(&v, 7, "boot", 1);
    assert_nv(&v, "a");

    /* daemon and backend die together */
    extend(&v, 7, "boot");
    vm_random(&v);
    both_die_and_rekey();
    expect_code(COMMAND("rekey"), 0);
    assert_int_equal(daemon_start(&H), 0);
    assert_pcr(&v, 7, "boot", 2);

    /* a record without the permanent state, then one that is to be repeated on it */
    start_a_hash(&v);
    extend(&v, 7, "boot");
    both_die_and_rekey();
    assert_int_equal(daemon_start(&H), 0);
    assert_pcr(&v, 7, "boot", 3);

    /* what is to be repeated has changed the permanent state */
    write_nv(&v, "c"); /* recorded whole, as the hash is */
    write_nv(&v, "d");
    extend(&v, 7, "boot");
    write_nv(&v, "e");
    both_die_and_rekey();
    assert_int_equal(daemon_start(&H), 0);
    assert_pcr(&v, 7, "boot", 4);
    assert_nv(&v, "e");
    write_nv(&v, "b");
    shut_down(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    boot_and_find(6, UUID_A, "b");
    assert_false(log_has(&H, "power cut"));
}

/* The bytes of a PEM text; their number, 0: it is none. */
static size_t of_pem(const char *pem, uint8_t *out, size_t room)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = strstr(pem, "-----\n"), *digit;
    unsigned value = 0, bits = 0;
    size_t n = 0;

    for (p = p ? p + 6 : ""; *p && *p != '-' && *p != '=' && n < room; p++) {
        digit = *p == '\n' ? NULL : strchr(digits, *p);
        if (!digit)
            continue;
        value = value << 6 | (unsigned)(digit - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (uint8_t)(value >> bits);
        }
    }
    return n;
}

/* The certificate of its EK in the guest is the one that the host knows; it is in der. */
static size_t guests_certificate(struct vm *v, const char *uuid, uint8_t der[2048])
{
    /* NV_Read by the index's own authorization, which is empty; size and offset follow */
    uint8_t read[] = { 0x80, 2, 0, 0, 0, 35, 0, 0, 1, 0x4e, 1, 0xc0, 0, 2, 1, 0xc0, 0, 2, 0, 0, 0,
                       9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
    uint8_t response[4096];
    size_t length, n;

    expect_code(COMMAND("ek-cert", uuid), 0);
    length = of_pem(said, der, 2048);
    assert_true(length > 500 && length < 1024);
    read[31] = (uint8_t)(length >> 8);
    read[32] = (uint8_t)length;
    assert_int_equal(tpm_send(v->f, read, sizeof(read), response, &n), 0);
    assert_int_equal(n, 10 + 4 + 2 + length + 5);
    assert_memory_equal(response + 16, der, length);
    return length;
}

static void a_guest_finds_the_certificate_that_the_host_knows(void)
{
    uint8_t der[2048];
    struct vm a;

    vm_boot(&a, 5, UUID_A);
    (void)guests_certificate(&a, UUID_A, der);
    /* by which it is verified, and what it is shown by */
    expect_code(COMMAND("ca", "export"), 0);
    expect_said("-----BEGIN CERTIFICATE-----");
    expect_code(COMMAND("show", UUID_A), 0);
    expect_said("rsa2048, certificate SHA-256 ");
    expect_said("p384, certificate SHA-256 ");
    expect_code(COMMAND("ek-cert", UUID_A, "--csr", "--key", "p256"), 0);
    expect_said("-----BEGIN PUBLIC KEY-----");
    expect_code(COMMAND("ek-cert", UUID_A, "--key", "p521"), 2);
    expect_said("there are rsa2048, p384, p256 and platform");
    shut_down(&a);
}

static void a_change_of_key_that_is_killed_costs_no_guest_its_tpm(void)
{
    static const char *const rekey[] = { "rekey", NULL };
    int64_t took, killed = 0, finished = 0;
    struct vm a, b, c;

    boot_and_define(&a, 5, UUID_A, "a");
    shut_down(&a);
    boot_and_define(&b, 6, UUID_B, "b");
    shut_down(&b);
    /* a boot that is not over, without a backend */
    boot_and_define(&c, 7, UUID_C, "c");
    extend(&c, 7, "boot");
    vm_random(&c);
    close_driver(&c);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    took = fx_now();
    expect_code(COMMAND("rekey"), 0);
    took = (fx_now() - took) * 1000 + 1000; /* microseconds */
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = command_start(rekey);
        int code;

        /* spread over its life; the exact points are tests/fault/test-rekey's */
        usleep((useconds_t)(took * i / KILLS));
        kill(pid, SIGKILL);
        code = command_end(pid);
        if (code == 0) {
            finished++;
        } else {
            expect_code(code, 128 + SIGKILL);
            killed++;
        }
        if (i % 4 == 1) {
            daemon_kill(&H);
            assert_int_equal(daemon_start(&H), 0);
        }
        expect_code(COMMAND("recover", "1"), 0);
        expect_code(COMMAND("recover", "2"), 0);
        expect_code(COMMAND("recover", "3"), 0);
        if (i % 8 == 1)
            boot_and_find(10 + (uint32_t)i, UUID_A, "a");
        if (i % 8 == 5)
            boot_and_find(10 + (uint32_t)i, UUID_B, "b");
    }
    print_message("# %d runs killed, %d had finished before\n", (int)killed, (int)finished);
    assert_true(killed > 0); /* how many depends on the machine */
    expect_code(COMMAND("rekey"), 0);
    assert_false(exists("master.key.new"));
    open_driver(&c);
    assert_pcr(&c, 7, "boot", 1);
    assert_nv(&c, "c");
    shut_down(&c);
    boot_and_find(60, UUID_A, "a");
    boot_and_find(61, UUID_B, "b");
    boot_and_find(62, UUID_C, "c");
    assert_false(log_has(&H, "power cut"));
}

static void a_damaged_state_is_served_again_after_a_choice(void)
{
    char journal[256];
    struct vm v;

    boot_and_define(&v, 5, UUID_A, "here");
    expect_code(COMMAND("recover", "1"), 4);
    expect_said("instance 1 is in use by domain 5 (device 0)");
    shut_down(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("recover", "1"), 0);
    flip(1, strstr(said, "slot 0 is the newest") ? 0 : 1);
    expect_code(COMMAND("recover", "1"), 1);
    expect_said("is damaged");
    expect_said("to go on with slot");
    /* not served, not replaced */
    assert_int_equal(vm_create(&v, 6, UUID_A), 0);
    assert_int_equal(fx_frontend_open(&v.f, v.g, &v.dev, 0), 0);
    assert_int_equal(fx_frontend_publish(v.f), 0);
    assert_int_equal(fx_frontend_wait_backend(v.f, XenbusStateClosing, SOON), 0);
    until_forgotten(&v, vm_destroy);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    snprintf(journal, sizeof(journal), "%s/run/journal/1", H.dir);
    assert_int_equal(access(journal, F_OK), 0);
    expect_code(COMMAND("recover", "--yes", "--use-slot",
                        strstr(said, "--use-slot 0") ? "0" : "1", "1"), 0);
    expect_said("what was in the other slot is kept in");
    /* which is of the generation that the choice has got, and of another state */
    assert_int_not_equal(access(journal, F_OK), 0);
    boot_and_find(7, UUID_A, "here");
}

static void out_of_quarantine(bool offline)
{
    struct vm v;

    boot_and_define(&v, 5, UUID_A, "kept");
    shut_down(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    quarantine(1);
    assert_int_equal(vm_create(&v, 6, UUID_A), -ENOENT);
    fx_guest_close(v.g);
    assert_int_equal(fx_vtpm_vanish(H.m, &v.dev), 0);
    expect_code(COMMAND("recover", "1"), 0);
    expect_said("to have it served again");
    /* offline: the daemon is not told */
    expect_code(offline ? COMMAND("--offline", "recover", "--release", "1")
                        : COMMAND("recover", "--release", "1"), 0);
    boot_and_find(7, UUID_A, "kept");
    expect_code(COMMAND("show", "1"), 0);
    expect_said("life           ready");
}

static void the_daemon_lets_an_instance_out_of_quarantine(void)
{
    out_of_quarantine(false);
}

static void the_daemon_notices_a_release_that_nobody_told_it(void)
{
    out_of_quarantine(true);
}

/* ------------------------------------------------------------------ clones */

static void a_clone_has_the_contents_and_an_identity_of_its_own(void)
{
    uint8_t der[2048], other[2048];
    size_t length;
    struct vm a, b;

    boot_and_define(&a, 5, UUID_A, "a");
    length = guests_certificate(&a, UUID_A, der);
    expect_code(COMMAND("clone", "--new-identity", "--uuid", UUID_B, UUID_A), 4);
    expect_said("in use by domain 5");
    shut_down(&a);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("clone", "--new-identity", "--uuid", UUID_B, UUID_A), 0);
    assert_true(log_wait(&H, "gave a cloned TPM an identity of its own", SOON));
    vm_boot(&b, 6, UUID_B);
    assert_nv(&b, "a");
    assert_true(guests_certificate(&b, UUID_B, other) != length || memcmp(der, other, length));
    /* two TPMs from now on */
    write_nv(&b, "b");
    vm_boot(&a, 7, UUID_A);
    assert_nv(&a, "a");
    shut_down(&a);
    shut_down(&b);
}

/* Whenever the making of its identity is killed, the clone gets one, and never serves without. */
static void a_clone_whose_making_is_killed_is_made_again(void)
{
    uint8_t der[2048], other[2048];
    size_t length;
    struct vm a, b;

    boot_and_define(&a, 5, UUID_A, "a");
    length = guests_certificate(&a, UUID_A, der);
    shut_down(&a);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    for (unsigned i = 0; i < 4; i++) {
        static const char *const uuids[] = { UUID_B, UUID_C,
                                             "6a1c7c0e-2f8b-4d0a-9b38-3e5f0a7d9c12",
                                             "6a1c7c0e-2f8b-4d0a-9b38-3e5f0a7d9c13" };
        pid_t pid;

        if (i % 2)
            daemon_kill(&H);
        expect_code(COMMAND("clone", "--new-identity", "--uuid", uuids[i], UUID_A), 0);
        if (i % 2) {
            assert_int_equal(daemon_start(&H), 0);
        } else if (backends(&H, &pid) == 1) {
            kill(pid, SIGKILL);
        }
        vm_boot(&b, 10 + i, uuids[i]);
        assert_nv(&b, "a");
        assert_true(guests_certificate(&b, uuids[i], other) != length ||
                    memcmp(der, other, length));
        shut_down(&b);
        assert_true(backends_wait(&H, 0, NULL, SOON));
    }
}

/* A new one under the same uuid and for the same domain; the old one is deleted, and can be had. */
static void a_reset_gives_a_guest_another_tpm(void)
{
    uint8_t der[2048], other[2048];
    char line[512], old[64] = "";
    size_t length;
    struct vm a;
    FILE *pipe;

    boot_and_define(&a, 5, UUID_A, "a");
    length = guests_certificate(&a, UUID_A, der);
    expect_code(COMMAND("reset", "--yes", UUID_A), 4);
    expect_said("in use by domain 5");
    shut_down(&a);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("reset", "--yes", UUID_A), 0);
    expect_said("uuid " UUID_A " is instance 3 now, with a new TPM");
    vm_boot(&a, 6, UUID_A);
    assert_int_equal(tpm2_nv_define(a.f), 0); /* nothing is there */
    write_nv(&a, "new");
    assert_true(guests_certificate(&a, UUID_A, other) != length || memcmp(der, other, length));
    shut_down(&a);
    snprintf(line, sizeof(line), "sqlite3 %s/state/vtpm.db 'SELECT uuid FROM instance WHERE "
             "deleted > 0'", H.dir);
    pipe = popen(line, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(old, sizeof(old), pipe));
    pclose(pipe);
    old[strcspn(old, "\n")] = '\0';
    expect_code(COMMAND("undelete", old), 0);
    vm_boot(&a, 7, old);
    assert_nv(&a, "a");
    assert_int_equal(guests_certificate(&a, old, other), length);
    assert_memory_equal(der, other, length);
    shut_down(&a);
}

static void a_guest_whose_driver_is_unloaded_keeps_its_tpm(void)
{
    struct vm a;

    boot_and_define(&a, 5, UUID_A, "a");
    extend(&a, 7, "boot");
    close_driver(&a);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("show", UUID_A), 0);
    expect_said("serves         domain 5, device 0");
    expect_code(COMMAND("pcrs", UUID_A), 0);
    expect_said("whose driver is not connected");
    expect_code(COMMAND("reset", "--yes", UUID_A), 4);
    expect_said("in use by domain 5");
    expect_code(COMMAND("clone", "--new-identity", UUID_A), 4);
    expect_code(COMMAND("clear", "--yes", UUID_A), 4);
    expect_code(COMMAND("delete", "--yes", UUID_A), 4);
    expect_said("in use by domain 5");
    open_driver(&a);
    assert_pcr(&a, 7, "boot", 1);
    shut_down(&a);
    expect_code(COMMAND("clear", "--yes", UUID_A), 0);
}

/* xl shutdown of a guest whose driver has closed waits for nobody: the domain is gone before the
 * daemon, on a busy host, comes to look. It was seen to shut down, so it was not saved. */
static void a_domain_that_shut_down_was_not_saved(void)
{
    struct vm a;

    boot_and_define(&a, 5, UUID_A, "a");
    vm_power_off(&a);
    process_freeze(H.daemon);
    vm_destroy(&a);
    assert_int_equal(kill(H.daemon, SIGCONT), 0);
    assert_true(log_wait(&H, "dom 5/0 " UUID_A " #1: forgotten", SOON));
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("show", UUID_A), 0);
    assert_null(strstr(said, "saved"));
    expect_code(COMMAND("clear", "--yes", UUID_A), 0);
}

/* ------------------------------------------------------------------ backups */

/* xl save, and xl restore up to where the driver has connected again. */
static void vm_save(struct vm *v)
{
    extend(v, 7, "boot");
    assert_int_equal(fx_domain_mark(H.m, v->domid, 4321), 0);
    assert_int_equal(fx_domain_shutdown(H.m, v->domid, 2), 0);
    vm_destroy(v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
}

static int vm_restore(struct vm *v, uint32_t domid)
{
    char home[64];
    int r;

    memset(v, 0, sizeof(*v));
    v->domid = domid;
    assert_int_equal(fx_domain_create(H.m, domid, "guest7"), 0);
    assert_int_equal(fx_domain_incarnation(H.m, domid, 2), 0);
    assert_int_equal(fx_domain_mark(H.m, domid, 4321), 0);
    snprintf(home, sizeof(home), "/local/domain/%u", domid);
    assert_int_equal(fx_write(H.m, home, "vm", "/vm/00000000-0000-4000-8000-000000000007"), 0);
    fx_vtpm_init(&v->dev, H.be_domid, domid, 0, UUID_C);
    r = fx_vtpm_create(H.m, &v->dev);
    if (r)
        return r;
    assert_int_equal(fx_guest_open(&v->g, H.m, domid), 0);
    vm_probe(v);
    return 0;
}

/* What the host has is gone, but for the configuration. */
static void lose_the_host(void)
{
    char from[256], to[256];
    static unsigned lost;

    assert_int_equal(daemon_stop(&H), 0);
    harness_clear_run(&H);
    snprintf(from, sizeof(from), "%s/state", H.dir);
    snprintf(to, sizeof(to), "%s/lost-%u", H.dir, lost++);
    assert_int_equal(rename(from, to), 0);
}

/* Of a guest that commits meanwhile it is of some instant within the backup, on a fresh host. */
static void a_backup_under_running_guests_comes_back(void)
{
    char to[160], text[80];
    unsigned written = 0, first, found = 0;
    siginfo_t info = { .si_pid = 0 };
    uint8_t data[TPM2_NV_SIZE];
    struct vm a, b, c;
    pid_t pid;

    boot_and_define(&c, 7, UUID_C, "c");
    vm_save(&c);
    boot_and_define(&a, 5, UUID_A, "a");
    boot_and_define(&b, 6, UUID_B, "b");
    snprintf(to, sizeof(to), "%s/backup", H.dir);
    for (unsigned round = 0; round < 6; round++) {
        char line[200];

        snprintf(line, sizeof(line), "rm -rf %s", to);
        assert_int_equal(system(line), 0);
        first = written;
        info.si_pid = 0;
        pid = command_start((const char *const[]){ "backup", "--with-keys", to, NULL });
        while (!info.si_pid) {
            snprintf(text, sizeof(text), "%u", ++written);
            write_nv(&a, text);
            assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
        }
        expect_code(command_end(pid), 0);
        expect_said("3 instances, with the keys");
    }
    expect_code(COMMAND("restore", to), 4);
    expect_said("xl-vtpmd runs: systemctl stop xl-vtpmd first");
    shut_down(&a);
    shut_down(&b);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    lose_the_host();
    expect_code(COMMAND("restore", to), 0);
    expect_said("3 instances, with their keys");
    assert_int_equal(daemon_start(&H), 0);
    vm_boot(&a, 8, UUID_A);
    assert_int_equal(tpm2_nv_read(a.f, data), 0);
    found = (unsigned)strtoul((char *)data, NULL, 10);
    assert_in_range(found, first, written);
    vm_boot(&b, 9, UUID_B);
    assert_nv(&b, "b");
    shut_down(&a);
    shut_down(&b);
    /* and what was suspended goes on */
    assert_int_equal(vm_restore(&c, 10), 0);
    assert_nv(&c, "c");
    assert_pcr(&c, 7, "boot", 1);
    shut_down(&c);
    expect_code(COMMAND("ek-cert", UUID_A), 0);
}

static void an_instance_made_before_the_first_start_is_served(void)
{
    struct vm a;

    lose_the_host();
    expect_code(COMMAND("create", UUID_A), 0);
    assert_false(exists("master.key"));
    assert_int_equal(daemon_start(&H), 0);
    boot_and_define(&a, 5, UUID_A, "a");
    shut_down(&a);
}

/* ------------------------------------------------------------------ its PCRs */

/* `pcrs` tells this PCR of this bank, as the guest has it. */
static void expect_pcr(const char *bank, uint32_t pcr, const uint8_t *value, size_t size)
{
    char head[16], line[160];
    const char *at;
    int n;

    snprintf(head, sizeof(head), "\n%s:\n", bank);
    at = strstr(said, head);
    n = snprintf(line, sizeof(line), "\n  %-2u: 0x", pcr);
    for (size_t i = 0; i < size; i++)
        n += snprintf(line + n, sizeof(line) - (size_t)n, "%02x", value[i]);
    at = at ? strstr(at, line) : NULL;
    if (!at)
        fail_msg("bank %s has not '%s' in: %s", bank, line, said);
}

static void expect_extended(uint32_t pcr, const char *text, unsigned times)
{
    uint8_t d[32], want[32];

    digest_of(d, text);
    tpm2_expected_pcr(want, d, times);
    expect_pcr("sha256", pcr, want, sizeof(want));
}

static void the_pcrs_of_a_guest_are_told(void)
{
    pid_t pids[MAX_BACKENDS];
    struct vm v;

    expect_code(COMMAND("create", UUID_A), 0);
    vm_boot(&v, 5, UUID_A);
    extend(&v, 7, "boot");
    extend(&v, 7, "boot");
    expect_code(COMMAND("pcrs", UUID_A), 0);
    expect_said("instance 1, uuid " UUID_A ", TPM 2.0, domain 5\n");
    expect_extended(7, "boot", 2);
    expect_extended(8, "", 0);
    /* in a whole record, and as what is done again on top of it */
    assert_int_equal(tpm2_nv_define(v.f), 0);
    expect_code(COMMAND("pcrs", "1"), 0);
    expect_extended(7, "boot", 2);
    extend(&v, 7, "boot");
    expect_code(COMMAND("pcrs", "1"), 0);
    expect_extended(7, "boot", 3);
    expect_code(COMMAND("--json", "pcrs", "1"), 0);
    expect_said("\"sha384\":[");
    expect_said("\"suspended\":false");
    /* the driver unloaded, the backend killed, the daemon away: the boot goes on */
    close_driver(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("pcrs", "1"), 0);
    expect_extended(7, "boot", 3);
    open_driver(&v);
    assert_true(backends_wait(&H, 1, pids, SOON));
    daemon_kill(&H);
    process_kill(pids[0]);
    expect_code(COMMAND("pcrs", "1"), 0);
    expect_extended(7, "boot", 3);
    assert_int_equal(daemon_start(&H), 0);
    assert_pcr(&v, 7, "boot", 3);
    /* and then it is over */
    shut_down(&v);
    expect_code(COMMAND("pcrs", "1"), 3);
    expect_said("instance 1 is not in use, so its TPM is off");
    expect_code(COMMAND("pcrs", "7"), 3);
    assert_false(log_has(&H, "power cut"));
}

static void the_pcrs_of_a_saved_guest_are_told(void)
{
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    extend(&v, 7, "boot");
    assert_int_equal(fx_domain_mark(H.m, 5, 4321), 0);
    assert_int_equal(fx_domain_shutdown(H.m, 5, 2), 0);
    vm_destroy(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    expect_code(COMMAND("pcrs", UUID_A), 0);
    expect_said("which is suspended");
    expect_extended(7, "boot", 1);
}

static void the_pcrs_of_a_tpm_1_2_are_told(void)
{
    uint8_t digest[20] = "some digest", pcr[20];
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    tpm12_startup(v.f); /* "already started" is fine */
    assert_int_equal(tpm12_extend(v.f, 10, digest), 0);
    assert_int_equal(tpm12_read_pcr(v.f, 10, pcr), 0);
    expect_code(COMMAND("pcrs", UUID_A), 0);
    expect_said("TPM 1.2");
    expect_pcr("sha1", 10, pcr, sizeof(pcr));
    shut_down(&v);
}

/* Whatever the guest does meanwhile, what is told is what it had at one instant. */
static void pcrs_are_told_amid_commands_and_commits(void)
{
    static const char *const pcrs[] = { "pcrs", UUID_A, NULL };
    uint8_t d[32], want[32];
    char text[80], line[80];
    unsigned extended = 0, seen, last = 0, moved = 0;
    struct vm v;

    boot_and_define(&v, 5, UUID_A, "a");
    digest_of(d, "step");
    for (int round = 0; round < 12; round++) {
        pid_t pid = command_start(pcrs);
        unsigned first = extended;
        siginfo_t info = { .si_pid = 0 };

        while (!info.si_pid) {
            extend(&v, 9, "step");
            extended++;
            snprintf(text, sizeof(text), "%u", extended);
            if (extended % 3)
                write_nv(&v, text);
            assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
        }
        expect_code(command_end(pid), 0);
        for (seen = first; seen <= extended; seen++) {
            tpm2_expected_pcr(want, d, seen);
            snprintf(line, sizeof(line), "9 : 0x%02x%02x%02x%02x%02x%02x%02x%02x", want[0], want[1],
                     want[2], want[3], want[4], want[5], want[6], want[7]);
            if (strstr(said, line))
                break;
        }
        assert_in_range(seen, first, extended);
        moved += seen > last;
        last = seen;
    }
    assert_true(moved > 6);
    assert_pcr(&v, 9, "step", extended);
    shut_down(&v);
}

/* ------------------------------------------------------------------ the doctor */

/* A backend program of our own: other tests' processes are not the doctor's business. */
static int own_backend(void **state)
{
    char path[] = "/var/tmp/vtpm-backend.XXXXXX", line[1200];
    const char *top = getenv("top_builddir") ? getenv("top_builddir") : ".";
    const char *was = getenv("VTPM_BACKEND");
    int fd = mkostemp(path, O_CLOEXEC), r;

    if (fd < 0)
        return -1;
    close(fd);
    was = was ? strdup(was) : NULL;
    if (was)
        snprintf(line, sizeof(line), "cp '%s' %s", was, path);
    else
        snprintf(line, sizeof(line), "cp '%s/vtpm-backend' %s", top, path);
    r = system(line) || chmod(path, 0755) ? -1 : 0;
    setenv("VTPM_BACKEND", path, 1);
    if (!r)
        r = scene_up(state);
    if (was)
        setenv("VTPM_BACKEND", was, 1);
    else
        unsetenv("VTPM_BACKEND");
    free((char *)(uintptr_t)was);
    return r;
}

static int own_backend_goes(void **state)
{
    unlink(H.backend_program);
    return scene_down(state);
}

static bool doctor_says(void *text)
{
    (void)COMMAND("doctor");
    return strstr(said, text) != NULL;
}

static bool said_so_far(void *text)
{
    char out[160];
    ssize_t n;
    int fd;

    out_path(out);
    fd = open(out, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? 0 : read(fd, said, sizeof(said) - 1);
    said[n > 0 ? n : 0] = '\0';
    close(fd);
    return strstr(said, text) != NULL;
}

/* From some moment on it listens: something happens again and again until it is heard. */
static pid_t monitor_start(const char *const *arguments)
{
    pid_t pid = command_start(arguments), backend;

    for (unsigned i = 0; i < 200 && !said_so_far((char *)"died of signal 9"); i++)
        if (backends_wait(&H, 1, &backend, 10000))
            process_kill(backend);
    expect_said("died of signal 9");
    return pid;
}

static void a_monitor_tells_what_the_daemon_does(void)
{
    struct vm a;
    pid_t pid;

    vm_boot(&a, 5, UUID_A);
    pid = monitor_start((const char *const[]){ "--json", "monitor", UUID_A, NULL });
    expect_said("\"domid\":5");
    expect_said("\"uuid\":\"" UUID_A "\"");
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(command_end(pid), 128 + SIGINT);
    expect_code(COMMAND("monitor", "99"), 3);
    pid = monitor_start((const char *const[]){ "monitor", NULL });
    expect_said(" dom 5/0 " UUID_A);
    assert_int_equal(daemon_stop(&H), 0);
    expect_code(command_end(pid), 1);
    expect_said("xl-vtpmd has ended");
    assert_int_equal(daemon_start(&H), 0);
    shut_down(&a);
}

static void expect_doctor(const char *text)
{
    if (!fx_wait(doctor_says, (void *)(uintptr_t)text, 20000))
        fail_msg("'%s' is not in: %s", text, said);
}

static void the_doctor_finds_a_healthy_host_healthy(void)
{
    struct vm v, w;

    vm_boot(&v, 5, UUID_A);
    vm_boot(&w, 6, UUID_B);
    expect_doctor("ok       processes: 2 devices in xenstore, 2 backend processes");
    expect_said("ok       daemon version: daemon and command are of version");
    expect_said("ok       daemon: xl-vtpmd runs");
    expect_said("ok       xenstore: xenstore answers");
    expect_said("ok       registry: ");
    expect_said("ok       instances: 2 instances");
    expect_said("ok       master key: ");
    expect_said("ok       run-dir: ");
    /* the one thing that is not there is Xen */
    expect_said("problem  xen: ");
    expect_said("problems: 1, ");
    vm_destroy(&v);
    vm_destroy(&w);
    expect_doctor("ok       processes: 0 devices in xenstore, 0 backend processes");
}

static void the_doctor_misses_a_process(void)
{
    pid_t pids[MAX_BACKENDS];
    struct vm v;

    vm_boot(&v, 5, UUID_A);
    assert_true(backends_wait(&H, 1, pids, SOON));
    /* its successors cannot start */
    fx_fault(H.m, "xengnttab_map", 0, ENOMEM, 0, 1000000);
    process_kill(pids[0]);
    expect_doctor("problem  processes: 1 of 1 devices are connected but have no backend process "
                  "(the first: 5/0)");
    fx_fault_clear(H.m);
    expect_doctor("ok       processes: ");
    /* and where there is no daemon either */
    daemon_kill(&H);
    assert_true(backends_wait(&H, 1, pids, SOON));
    expect_doctor("problem  daemon: no xl-vtpmd runs");
    expect_said("ok       processes: 1 devices in xenstore, 1 backend processes");
    process_kill(pids[0]);
    expect_doctor("problem  processes: 1 of 1 devices are connected but have no backend process");
    expect_said("start xl-vtpmd: it goes on where they stopped");
    assert_int_equal(daemon_start(&H), 0);
    expect_doctor("ok       processes: ");
    vm_destroy(&v);
}

static void the_doctor_finds_a_process_that_nobody_knows(void)
{
    char text[96];
    int pair[2];
    pid_t pid;

    expect_doctor("ok       processes: ");
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    pid = fork();
    if (pid == 0) {
        dup2(pair[1], 3);
        execl(H.backend_program, "vtpm-backend", (char *)NULL);
        _exit(127);
    }
    snprintf(text, sizeof(text), "warning  processes: backend processes that serve no device the "
             "daemon knows: %d", (int)pid);
    expect_doctor(text);
    process_kill(pid);
    close(pair[0]);
    close(pair[1]);
    expect_doctor("ok       processes: ");
}

static void the_doctor_notices_a_lost_xenstore(void)
{
    assert_int_equal(fx_store_drop(H.m, 0, true), 0);
    expect_doctor("problem  daemon: the daemon has no connection to xenstore");
    assert_int_equal(fx_store_drop(H.m, 0, false), 0);
    expect_doctor("ok       xenstore: ");
    for (int i = 0; i < 100 && strstr(said, "no connection"); i++)
        (void)COMMAND("doctor");
    assert_null(strstr(said, "no connection"));
}

#define WITH_OWN_BACKEND(name)                                                   \
    { #name, scene_run, own_backend, own_backend_goes, &(struct scene){ .test = name } }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        SCENE("", the_master_key_changes_under_running_guests, NULL, false, 0),
        SCENE("", a_boot_goes_on_where_the_key_changed_without_its_backend, NULL, false, 0),
        SCENE("", a_guest_finds_the_certificate_that_the_host_knows, NULL, false, 0),
        SCENE("", a_change_of_key_that_is_killed_costs_no_guest_its_tpm, NULL, false, 0),
        SCENE("", a_damaged_state_is_served_again_after_a_choice, NULL, false, 0),
        SCENE("", the_daemon_lets_an_instance_out_of_quarantine, NULL, false, 0),
        SCENE("", the_daemon_notices_a_release_that_nobody_told_it, NULL, false, 0),
        SCENE("", a_clone_has_the_contents_and_an_identity_of_its_own, NULL, false, 0),
        SCENE("", a_clone_whose_making_is_killed_is_made_again, NULL, false, 0),
        SCENE("", a_reset_gives_a_guest_another_tpm, NULL, false, 0),
        SCENE("", a_guest_whose_driver_is_unloaded_keeps_its_tpm, NULL, false, 0),
        SCENE("", a_domain_that_shut_down_was_not_saved, NULL, false, 0),
        SCENE("", a_backup_under_running_guests_comes_back, NULL, false, 0),
        SCENE("", an_instance_made_before_the_first_start_is_served, NULL, false, 0),
        SCENE("", the_pcrs_of_a_guest_are_told, "pcr-banks = sha256, sha384\n", false, 0),
        SCENE("", the_pcrs_of_a_saved_guest_are_told, NULL, false, 0),
        SCENE("", the_pcrs_of_a_tpm_1_2_are_told, "default-tpm-version = 1.2\n", false, 0),
        SCENE("", pcrs_are_told_amid_commands_and_commits, NULL, false, 0),
        SCENE("", a_monitor_tells_what_the_daemon_does, NULL, false, 0),
        WITH_OWN_BACKEND(the_doctor_finds_a_healthy_host_healthy),
        WITH_OWN_BACKEND(the_doctor_misses_a_process),
        WITH_OWN_BACKEND(the_doctor_finds_a_process_that_nobody_knows),
        WITH_OWN_BACKEND(the_doctor_notices_a_lost_xenstore),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("states", tests, NULL, NULL);
}
