/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Migration with the real xl-vtpm-move between two hosts: the source is this process's machine, the
 * target that of a second process, each with a daemon, state and xenstore of its own. At both ends
 * the test plays xl, with the bytes that xl sends and in its order (tools/xl/xl_migrate.c). "ssh" is
 * this program as well; told to, it cuts the connection or kills somebody at a given message.
 *
 * At no time may both hosts have the TPM; whoever has it has it as the guest left it.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "common/error.h"
#include "common/fd.h"
#include "common/uuid.h"
#include "libxl-vtpm/registry.h"
#include "tests/integration/scene.h"

#define DOMAIN_UUID "00000000-0000-4000-8000-000000000005"
#define STREAM 300000 /* bytes of a domain */
#define PCR 10

static const char magic[32] = "Xen saved domain, xl format\n \0 \r";
static const char banner[] = "xl migration receiver ready, send binary domain data.\n";
static const char ready[] = "domain received, ready to unpause";
static const char go[] = "domain is yours, you are cleared to unpause";
static const char report[] = "my copy unpause results are as follows";
static const char end[] = "THE-END!"; /* the record that ends a stream has 8 bytes, too */

static char self[512];

static bool write_all(int fd, const void *data, size_t length)
{
    return !xlv_write_all(fd, data, length);
}

static bool read_all(int fd, void *data, size_t length)
{
    return !xlv_read_all(fd, data, length);
}

static bool read_word(int fd, const char *word, size_t length)
{
    char said[128];

    return read_all(fd, said, length) && !memcmp(said, word, length);
}

/* --- other programs that this one is ------------------------------------------------- */

/* xl migrate-receive: its standard input and output go to the target's process. */
static int bridge(void)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool in = true;

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", getenv("XLV_BRIDGE"));
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
        return 1;
    for (;;) {
        struct pollfd p[2] = { { fd, POLLIN, 0 }, { in ? 0 : -1, POLLIN, 0 } };
        char chunk[65536];
        ssize_t n;

        if (poll(p, 2, -1) < 0)
            return 1;
        if (p[1].revents) {
            n = read(0, chunk, sizeof(chunk));
            if (n <= 0) {
                in = false;
                shutdown(fd, SHUT_WR);
            } else if (!write_all(fd, chunk, (size_t)n)) {
                return 1;
            }
        }
        if (p[0].revents) {
            n = read(fd, chunk, sizeof(chunk));
            if (n <= 0)
                return 0;
            if (!write_all(1, chunk, (size_t)n))
                return 1;
        }
    }
}

/* XLV_CUT: whom (c connection, s source, t target), where (f forth, b back), when (b before the
 * message, a after it), type of the message, which of that type from 1. */
static struct cut {
    char whom, where, when;
    unsigned type, nth;
} cut;

/* Passes on one message; false: that was the end. */
static bool pass(int from, int to, char where, pid_t there)
{
    static uint8_t body[2u << 20];
    uint8_t header[12];
    uint32_t length;
    unsigned type;
    bool hit;

    if (!read_all(from, header, sizeof(header)))
        return false;
    type = header[6] | (unsigned)header[7] << 8;
    memcpy(&length, header + 8, 4);
    if (length > sizeof(body) || !read_all(from, body, length))
        return false;
    hit = cut.where == where && cut.type == type && --cut.nth == 0;
    for (int after = 0; after < 2; after++) {
        if (after && (!write_all(to, header, sizeof(header)) || !write_all(to, body, length)))
            return false;
        if (!hit || (cut.when == 'a') != after)
            continue;
        if (cut.whom == 's')
            kill(getppid(), SIGKILL);
        else if (cut.whom == 't')
            kill(there, SIGKILL);
        return false;
    }
    return true;
}

/* rsh HOST xl-vtpm-move ARGUMENT...: the other host is $XLV_CONF_THERE. */
static int rsh(char **argv)
{
    const char *conf = getenv("XLV_CONF_THERE"), *what = getenv("XLV_CUT");
    char *args[40] = { argv[3], (char *)(uintptr_t)"-c", (char *)(uintptr_t)conf };
    int to[2], from[2], n = 3;
    bool in = true;
    pid_t pid;

    if (what && what[0])
        sscanf(what, "%c%c%c%u.%u", &cut.whom, &cut.where, &cut.when, &cut.type, &cut.nth);
    for (int i = 4; argv[i] && n < 38; i++)
        args[n++] = argv[i];
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
        return 1;
    pid = fork();
    if (!pid) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        execv(getenv("XLV_MOVE"), args);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        struct pollfd p[2] = { { from[0], POLLIN, 0 }, { in ? 0 : -1, POLLIN, 0 } };

        if (poll(p, 2, -1) < 0)
            return 1;
        if (p[1].revents && !pass(0, to[1], 'f', pid)) {
            if (cut.where && !cut.nth)
                return 1;
            in = false;
            close(to[1]);
        }
        if (p[0].revents && !pass(from[0], 1, 'b', pid)) {
            if (!cut.where || cut.nth)
                waitpid(pid, NULL, 0);
            return 0;
        }
    }
}

/* --- both hosts ---------------------------------------------------------------------- */

/* As in the registry; -1: not there. */
static int handover(void)
{
    struct xlv_registry *r;
    struct xlv_instance i;
    struct xlv_uuid uuid;
    char path[160];
    int rc;

    snprintf(path, sizeof(path), "%s/state", H.dir);
    assert_int_equal(xlv_uuid_parse(&uuid, UUID_A), 0);
    assert_int_equal(xlv_registry_open(&r, path, false, NULL), 0);
    rc = xlv_registry_get(r, &uuid, &i, NULL);
    xlv_registry_close(r);
    return rc ? -1 : (int)i.handover;
}

static void assert_nv(struct vm *v, unsigned value)
{
    uint8_t want[TPM2_NV_SIZE] = { 0 }, is[TPM2_NV_SIZE];

    memcpy(want, &value, sizeof(value));
    assert_int_equal(tpm2_nv_read(v->f, is), 0);
    assert_memory_equal(is, want, sizeof(is));
}

static void put_nv(struct vm *v, unsigned value)
{
    uint8_t data[TPM2_NV_SIZE] = { 0 };

    memcpy(data, &value, sizeof(value));
    assert_int_equal(tpm2_nv_write(v->f, data), 0);
}

/* --- the target's process ------------------------------------------------------------- */

enum order { RECEIVE, CHECK, DESTROY, HANDOVER, KILL_DAEMON, QUIT };
enum outcome { STARTED, NO_STREAM, NO_DEVICE, NO_GO, START_FAILED };

struct message {
    enum order order;
    uint32_t mark;
    unsigned extends, nv;
    bool fails; /* the domain does not start there */
    bool locks; /* and the daemon has let go of its instance only when asked for it again */
    bool waits; /* before it gives back, for the source to have looked */
    bool kills; /* its daemon is killed before the domain may go */
    bool bare;  /* the domain has no TPM */
    int result;
    uint32_t domid;
};

/* Storage that both have, with the key that opens it; "": none. */
static char storage[64];
static off_t log_mark;
static int to_there = -1; /* the source's end of the line to that process */
static char conf_there[160], conf_here[160], bridge_path[160];
static struct vm guest;
static uint32_t next_domid = 20;

static void forget_domain(uint32_t domid)
{
    assert_int_equal(fx_domain_destroy(H.m, domid), 0);
    assert_int_equal(fx_domain_erase(H.m, domid), 0);
}

static char *looked_path(void)
{
    static char path[sizeof(bridge_path) + 8];

    snprintf(path, sizeof(path), "%s.looked", bridge_path);
    return path;
}

static bool has_looked(void *arg)
{
    (void)arg;
    return access(looked_path(), F_OK) == 0;
}

/* As its backend does. */
static int lock_slot(void)
{
    char path[200];
    int fd;

    assert_true(backends_wait(&H, 0, NULL, SOON));
    if (storage[0])
        snprintf(path, sizeof(path), "%s/" UUID_A "/slot-0", storage);
    else
        snprintf(path, sizeof(path), "%s/state/instances/1/slot-0", H.dir);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    return fd;
}

/* Another program of ours waits, as it does where it is to ask again. */
static bool one_sleeps(void *arg)
{
    struct dirent *e;
    DIR *d = opendir("/proc");
    bool any = false;

    (void)arg;
    while (d && !any && (e = readdir(d))) {
        char path[300], program[600], call[32] = "";
        ssize_t n;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%s/exe", e->d_name);
        n = readlink(path, program, sizeof(program) - 1);
        program[n > 0 ? n : 0] = '\0';
        snprintf(path, sizeof(path), "/proc/%s/syscall", e->d_name);
        f = fopen(path, "re");
        any = f && fgets(call, sizeof(call), f) && atoi(call) == SYS_clock_nanosleep &&
              strstr(program, "xl-vtpm-move");
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return any;
}

/* xl migrate-receive, from its banner to its report. */
static enum outcome receive(int fd, const struct message *m)
{
    static char stream[STREAM + 8];
    char head[48], json[4096], home[64], status = 0;
    uint32_t size, config;
    struct vm *v = &guest;
    int slot;

    if (!write_all(fd, banner, sizeof(banner) - 1) || !read_all(fd, head, sizeof(head)))
        return NO_STREAM;
    assert_memory_equal(head, magic, sizeof(magic));
    memcpy(&size, head + 44, 4);
    if (!read_all(fd, &config, 4))
        return NO_STREAM;
    assert_int_equal(size, config + 4);
    if (!read_all(fd, json, config) || !read_all(fd, stream, sizeof(stream)))
        return NO_STREAM;
    assert_memory_equal(stream + STREAM, end, 8);

    memset(v, 0, sizeof(*v));
    v->domid = next_domid++;
    snprintf(home, sizeof(home), "/local/domain/%u", v->domid);
    assert_int_equal(fx_domain_create(H.m, v->domid, "guest5--incoming"), 0);
    assert_int_equal(fx_domain_incarnation(H.m, v->domid, 2), 0);
    assert_int_equal(fx_domain_mark(H.m, v->domid, m->mark), 0);
    assert_int_equal(fx_write(H.m, home, "vm", "/vm/" DOMAIN_UUID), 0);
    fx_vtpm_init(&v->dev, 0, v->domid, 0, UUID_A);
    if (!m->bare && fx_vtpm_create(H.m, &v->dev)) {
        assert_int_equal(fx_vtpm_vanish(H.m, &v->dev), 0);
        forget_domain(v->domid);
        return NO_DEVICE;
    }
    assert_int_equal(fx_guest_open(&v->g, H.m, v->domid), 0);
    if (m->kills) {
        daemon_kill(&H);
        assert_int_equal(daemon_start(&H), 0);
    }
    if (!write_all(fd, ready, sizeof(ready)) || !read_word(fd, go, sizeof(go))) {
        vm_destroy(v);
        return NO_GO;
    }
    if (m->fails) {
        status = 3;
        (void)(write_all(fd, report, sizeof(report)) && write_all(fd, &status, 1));
        vm_destroy(v);
        slot = m->locks ? lock_slot() : -1;
        if (m->waits)
            assert_true(fx_wait(has_looked, NULL, SOON));
        (void)write_all(fd, go, sizeof(go));
        if (slot >= 0) {
            assert_true(fx_wait(one_sleeps, NULL, SOON));
            close(slot);
        }
        return START_FAILED;
    }
    assert_int_equal(fx_write(H.m, home, "name", "guest5"), 0);
    assert_int_equal(fx_domain_ran(H.m, v->domid), 0);
    (void)(write_all(fd, report, sizeof(report)) && write_all(fd, &status, 1));
    /* the guest's driver comes back with a ring of its own */
    if (!m->bare)
        vm_probe(v);
    return STARTED;
}

static void there(int line, const char *config)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct message m;
    int listener, fd;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    assert_int_equal(harness_up(&H, false, config), 0);
    assert_int_equal(daemon_start(&H), 0);
    snprintf(conf_there, sizeof(conf_there), "%s/xl-vtpm.conf", H.dir);
    snprintf(bridge_path, sizeof(bridge_path), "%s/bridge", H.dir);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", bridge_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_true(write_all(line, H.dir, sizeof(H.dir)));
    while (read_all(line, &m, sizeof(m)) && m.order != QUIT) {
        switch (m.order) {
        case RECEIVE:
            fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            m.result = receive(fd, &m);
            close(fd);
            break;
        case CHECK:
            assert_pcr(&guest, PCR, "again", m.extends);
            assert_nv(&guest, m.nv);
            break;
        case DESTROY:
            assert_int_equal(fx_domain_shutdown(H.m, guest.domid, 0), 0);
            vm_destroy(&guest);
            assert_true(backends_wait(&H, 0, NULL, SOON));
            break;
        case HANDOVER:
            m.result = handover();
            break;
        case KILL_DAEMON:
            daemon_kill(&H);
            assert_int_equal(daemon_start(&H), 0);
            break;
        case QUIT:
            break;
        }
        assert_true(write_all(line, &m, sizeof(m)));
    }
    assert_true(backends_wait(&H, 0, NULL, SOON));
    assert_int_equal(daemon_stop(&H), 0);
    assert_true(fx_balanced(H.m, 0));
    harness_down(&H);
    exit(0);
}

static pid_t pid_there;

static struct message say(struct message m)
{
    assert_true(write_all(to_there, &m, sizeof(m)));
    return m;
}

static struct message answer(void)
{
    struct message m;

    if (!read_all(to_there, &m, sizeof(m)))
        fail_msg("the target's process has failed, see above");
    return m;
}

static int order(struct message m)
{
    say(m);
    return answer().result;
}

static int up(void **state)
{
    struct scene *s = *state;
    char config[256] = "";
    int line[2], r;

    storage[0] = '\0';
    if (s->config) {
        strcpy(storage, "/dev/shm/xl-vtpm-shared.XXXXXX");
        if (!mkdtemp(storage))
            return -1;
        snprintf(config, sizeof(config), "shared-dir = %s\nmaster-key = file:%s/key\n", storage,
                 storage);
        s->config = config;
    }

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line))
        return -1;
    pid_there = fork();
    if (pid_there == 0) {
        close(line[1]);
        there(line[0], s->config);
    }
    close(line[0]);
    to_there = line[1];
    r = scene_up(state);
    s->config = storage[0] ? storage : NULL;
    if (!read_all(to_there, conf_there, sizeof(H.dir)))
        return -1;
    snprintf(bridge_path, sizeof(bridge_path), "%.120s/bridge", conf_there);
    strcat(conf_there, "/xl-vtpm.conf");
    snprintf(conf_here, sizeof(conf_here), "%s/xl-vtpm.conf", H.dir);
    return r;
}

static bool mover_said(const char *text)
{
    static char said[1u << 20];
    char path[160];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/mover", H.dir);
    f = fopen(path, "re");
    n = f ? fread(said, 1, sizeof(said) - 1, f) : 0;
    said[n] = '\0';
    if (f)
        fclose(f);
    return strstr(said, text) != NULL;
}

static int down(void **state)
{
    struct message m = { .order = QUIT };
    char line[200];
    int status = 0, r;

    if (!scene_done) {
        snprintf(line, sizeof(line), "sed 's/^/# mover: /' %s/mover >&2", H.dir);
        (void)!system(line);
    }

    (void)write_all(to_there, &m, sizeof(m));
    r = waitpid(pid_there, &status, 0) == pid_there && !status ? 0 : -1;
    close(to_there);
    if (mover_said("Sanitizer") || mover_said("runtime error"))
        r = -1;
    if (r)
        fprintf(stderr, "the target's process ended with %x\n", status);
    if (storage[0]) {
        snprintf(line, sizeof(line), "rm -r %s", storage);
        (void)!system(line);
    }
    return scene_down(state) || r ? -1 : 0;
}

/* --- the source ------------------------------------------------------------------------ */

/* Starts xl-vtpm-move; its standard input and output are *in and *out where they are wanted. */
static pid_t mover(bool here, const char *what, const char *const *arguments, int *in, int *out)
{
    char program[520], rsh_command[600];
    const char *argv[16] = { "xl-vtpm-move", "-c", here ? conf_here : conf_there, "-e",
                             rsh_command };
    int to[2] = { -1, -1 }, from[2] = { -1, -1 };
    pid_t pid;

    snprintf(program, sizeof(program), "%s-move", H.command_program);
    snprintf(rsh_command, sizeof(rsh_command), "%s rsh", self);
    for (int i = 0; arguments[i]; i++)
        argv[5 + i] = arguments[i];
    if (in) {
        assert_int_equal(pipe2(to, O_CLOEXEC), 0);
        assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    }
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        char log[160];
        int fd;

        snprintf(log, sizeof(log), "%s/mover", H.dir);
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(fd, STDERR_FILENO);
        if (in) {
            dup2(to[0], STDIN_FILENO);
            dup2(from[1], STDOUT_FILENO);
        }
        setenv("XLV_CONF_THERE", here ? conf_there : conf_here, 1);
        setenv("XLV_BRIDGE", bridge_path, 1);
        setenv("XLV_MOVE", program, 1);
        setenv("XLV_CUT", what, 1);
        signal(SIGPIPE, SIG_DFL);
        execv(program, (char *const *)argv);
        _exit(127);
    }
    if (in) {
        close(to[0]);
        close(from[1]);
        *in = to[1];
        *out = from[0];
    }
    return pid;
}

static int ended(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool has_departed(void *arg)
{
    (void)arg;
    return handover() == XLV_HANDOVER_DEPARTED;
}

/* What the log has since then. */
static bool log_since(const char *text)
{
    static char log[1u << 20];
    char path[160];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/log", H.dir);
    f = fopen(path, "re");
    n = f && !fseek(f, log_mark, SEEK_SET) ? fread(log, 1, sizeof(log) - 1, f) : 0;
    log[n] = '\0';
    if (f)
        fclose(f);
    return strstr(log, text) != NULL;
}

static bool daemon_looked(void *arg)
{
    (void)arg;
    return log_since("gets no TPM") || log_since("admit");
}

/* A daemon that starts when the target has the TPM wants to serve it. */
static bool look_again(void)
{
    char path[160];
    struct stat st;
    int fd;

    assert_true(fx_wait(has_departed, NULL, SOON));
    daemon_kill(&H);
    snprintf(path, sizeof(path), "%s/log", H.dir);
    assert_int_equal(stat(path, &st), 0);
    log_mark = st.st_size;
    assert_int_equal(daemon_start(&H), 0);
    assert_true(fx_wait(daemon_looked, NULL, SOON));
    fd = open(looked_path(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    return fd >= 0;
}

enum how { MIGRATED, RESUMED, BADLY };

struct plan {
    const char *cut;
    const char *vtpms; /* of the configuration; NULL: the one that it has */
    bool fails, locks, kills_there, bare;
    bool kills_late; /* when the target has it, where the domain did not start */
    bool kills_early, kills_here; /* before or after its TPM stands still */
    int exits; /* the mover's status */
    int there; /* the target's outcome */
};

/* xl migrate. */
static enum how migrate(struct vm *v, struct plan *p)
{
    static const char *const words[] = { "migrate", "there", self, "bridge", NULL };
    static char stream[STREAM];
    static uint32_t mark = 1000;
    const char *vtpms = p->vtpms ? p->vtpms : "\"vtpms\":[{\"devid\":0,\"uuid\":\"" UUID_A "\"}]";
    char json[1024], status = 1;
    uint32_t fields[5] = { 0x01020304, 3, 0 };
    bool banned;
    enum how how;
    int in, out;
    pid_t pid;

    assert_int_equal(fx_domain_mark(H.m, v->domid, ++mark), 0);
    say((struct message){ .order = RECEIVE, .mark = mark, .fails = p->fails,
                          .locks = p->locks, .waits = p->kills_late, .kills = p->kills_there,
                          .bare = p->bare });
    pid = mover(true, p->cut ? p->cut : "", words, &in, &out);
    snprintf(json, sizeof(json), "{\"c_info\":{\"type\":\"pv\",\"name\":\"guest5\",\"uuid\":\""
             DOMAIN_UUID "\"},\"b_info\":{\"max_memkb\":196608}%s%s}", vtpms[0] ? "," : "", vtpms);
    fields[4] = (uint32_t)strlen(json) + 1;
    fields[3] = fields[4] + 4;
    memset(stream, 'd', sizeof(stream));
    how = RESUMED;
    banned = !(read_word(out, banner, sizeof(banner) - 1) &&
               write_all(in, magic, sizeof(magic)) && write_all(in, fields, sizeof(fields)) &&
               write_all(in, json, fields[4]) && write_all(in, stream, STREAM / 2));
    /* the guest is asked to suspend itself, and does; the rest follows */
    if (!banned) {
        assert_int_equal(fx_domain_shutdown(H.m, v->domid, 2), 0);
        if (p->kills_early) {
            daemon_kill(&H);
            assert_int_equal(daemon_start(&H), 0);
        }
        if (write_all(in, stream + STREAM / 2, STREAM / 2) && write_all(in, end, 8) &&
            read_word(out, ready, sizeof(ready))) {
            how = BADLY;
            if (p->kills_here) {
                daemon_kill(&H);
                assert_int_equal(daemon_start(&H), 0);
            }
            if (write_all(in, go, sizeof(go)) && (!p->kills_late || look_again()) &&
                read_word(out, report, sizeof(report)) &&
                read_all(out, &status, 1)) {
                if (!status)
                    how = MIGRATED;
                else if (read_word(out, go, sizeof(go)))
                    how = RESUMED;
            }
        }
    }
    if (how == MIGRATED)
        vm_destroy(v);
    close(in);
    close(out);
    p->exits = ended(pid);
    p->there = answer().result;
    if (how == RESUMED)
        assert_int_equal(fx_domain_ran(H.m, v->domid), 0);
    return how;
}

/* Its instance is, from its first boot on, where both hosts can get at it. */
static void share(void)
{
    char line[900];

    snprintf(line, sizeof(line), "LD_LIBRARY_PATH= %s -c %s share " UUID_A " >/dev/null",
             H.command_program, conf_here);
    assert_int_equal(system(line), 0);
}

static void boot(struct vm *v)
{
    static uint32_t domid = 40;
    char home[64];

    memset(v, 0, sizeof(*v));
    v->domid = domid++;
    assert_int_equal(fx_domain_create(H.m, v->domid, "guest5"), 0);
    snprintf(home, sizeof(home), "/local/domain/%u", v->domid);
    assert_int_equal(fx_write(H.m, home, "vm", "/vm/" DOMAIN_UUID), 0);
    fx_vtpm_init(&v->dev, 0, v->domid, 0, UUID_A);
    assert_int_equal(fx_vtpm_create(H.m, &v->dev), 0);
    assert_int_equal(fx_domain_ran(H.m, v->domid), 0);
    assert_int_equal(fx_guest_open(&v->g, H.m, v->domid), 0);
    vm_probe(v);
}

static int handover_there(void)
{
    return order((struct message){ .order = HANDOVER });
}

static void check_there(unsigned extends, unsigned nv)
{
    order((struct message){ .order = CHECK, .extends = extends, .nv = nv });
}

/* The instance comes back while its domain, if there is one, is shut down. */
static void fetch_back_from(bool domain)
{
    static const char *const words[] = { "send", UUID_A, "here", NULL };

    if (domain)
        order((struct message){ .order = DESTROY });
    assert_int_equal(ended(mover(false, "", words, NULL, NULL)), 0);
    assert_int_equal(handover(), XLV_HANDOVER_HELD);
    assert_int_equal(handover_there(), XLV_HANDOVER_DEPARTED);
}

static void a_guest_that_migrates_takes_its_tpm_along(void)
{
    struct plan plan = { NULL };
    struct vm v;

    boot(&v);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    put_nv(&v, 7);
    for (int i = 0; i < 3; i++)
        extend(&v, PCR, "again");
    assert_int_equal(migrate(&v, &plan), MIGRATED);
    if (plan.exits || mover_said("xl-vtpm-move:"))
        fail_msg("the mover ended with %d", plan.exits);
    assert_int_equal(plan.there, STARTED);
    assert_int_equal(handover(), XLV_HANDOVER_DEPARTED);
    assert_int_equal(handover_there(), XLV_HANDOVER_HELD);
    check_there(3, 7);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    /* not served here any more */
    assert_int_equal(vm_create(&v, 6, UUID_A), -ENOENT);
    fx_guest_close(v.g);
    assert_int_equal(fx_vtpm_vanish(H.m, &v.dev), 0);
    fetch_back_from(true);
    boot(&v);
    assert_nv(&v, 7);
    assert_pcr(&v, PCR, "", 0);
    vm_destroy(&v);
}

static void a_failed_migration_leaves_the_guest_where_it_was(void)
{
    static const struct plan failures[] = {
        { .fails = true },                                       /* renaming or unpausing */
        { .fails = true, .locks = true },
        { .vtpms = "\"vtpms\":[{\"devid\":0},{\"devid\":1}]" },  /* one is somebody else's */
        { .cut = "cfb1.1" },
        { .kills_early = true, .cut = "cba4.1" },
        { .fails = true, .kills_here = true, .kills_there = true },
    };
    unsigned n = 0;
    struct plan plan;
    struct vm v;

    boot(&v);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        uint8_t cmd[256], rsp[4096], d[32];
        size_t length, all;

        put_nv(&v, ++n);
        /* one command is in the ring when the guest is suspended */
        digest_of(d, "again");
        length = tpm2_pcr_extend(cmd, PCR, d);
        assert_int_equal(fx_frontend_submit(v.f, 0, cmd, length), 0);
        plan = failures[i];
        if (migrate(&v, &plan) != RESUMED)
            fail_msg("failure %zu: the target's outcome is %d", i, plan.there);
        assert_int_not_equal(plan.there, STARTED);
        /* the same driver, the same ring */
        assert_int_equal(fx_frontend_wait(v.f, rsp, sizeof(rsp), &all, SOON), 0);
        assert_int_equal(tpm_response(rsp, all), 0);
        assert_pcr(&v, PCR, "again", n);
        assert_nv(&v, n);
        assert_int_equal(handover(), XLV_HANDOVER_HELD);
        assert_int_not_equal(handover_there(), XLV_HANDOVER_HELD);
    }
    assert_true(mover_said("has 2 vTPMs, but 1 are served"));
    plan = (struct plan){ .kills_here = true, .kills_there = true };
    assert_int_equal(migrate(&v, &plan), MIGRATED);
    check_there(n, n);
    order((struct message){ .order = DESTROY });
}

/* The start failed, and so did the return. As for xl: nobody knows, and it is told so at once. */
static void xl_does_not_wait_for_a_return_that_is_lost(void)
{
    static const char *const resume[] = { "--yes", "resume-here", UUID_A, NULL };
    struct plan plan = { .fails = true, .cut = "cbb10.1" };
    struct vm v;

    boot(&v);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    put_nv(&v, 7);
    assert_int_equal(migrate(&v, &plan), BADLY);
    assert_int_equal(plan.there, START_FAILED);
    assert_int_equal(handover(), XLV_HANDOVER_DEPARTED);
    assert_int_equal(handover_there(), XLV_HANDOVER_DEPARTED);
    vm_destroy(&v);
    assert_int_equal(ended(mover(true, "", resume, NULL, NULL)), 0);
    boot(&v);
    assert_nv(&v, 7);
    vm_destroy(&v);
}

static void a_guest_without_a_tpm_migrates_as_ever(void)
{
    struct plan plan = { .vtpms = "", .bare = true };
    struct vm v = { .domid = 5 };

    assert_int_equal(fx_domain_create(H.m, 5, "guest5"), 0);
    fx_vtpm_init(&v.dev, 0, 5, 0, UUID_A);
    assert_int_equal(migrate(&v, &plan), MIGRATED);
    assert_int_equal(plan.exits, 0);
    assert_int_equal(plan.there, STARTED);
    order((struct message){ .order = DESTROY });
}

static void no_tpm_is_made_up_for_a_guest_whose_own_did_not_come_along(void)
{
    struct plan plan = { .vtpms = "" }; /* so it is with a plain xl migrate */
    struct vm v;

    boot(&v);
    assert_int_equal(migrate(&v, &plan), RESUMED);
    assert_int_equal(plan.there, NO_DEVICE);
    assert_int_equal(handover_there(), -1);
    vm_random(&v);
    vm_destroy(&v);
}

/*
 * Each party at each message. What the guest did last is in its PCR and NV, so whoever has the TPM
 * afterwards has to have just that.
 */
static void cut_everywhere(void)
{
    static const char *const where[] = {
        "fb1.1", "fa1.1", "bb2.1", "ba2.1", "fb3.1", "fa3.1", "bb4.1", "ba4.1", /* OFFER to STORED */
        "fa8.2", "bb8.2",                             /* the stream's end, ready */
        "fb5.1", "fa5.1", "bb6.1", "ba6.1",           /* COMMIT, HELD */
    };
    static const char *const again[] = { "send", UUID_A, "there", NULL };
    unsigned extends = 0, nv = 0, counts[3] = { 0 }, nobody = 0;
    struct vm v;

    boot(&v);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    for (size_t i = 0; i < 3 * sizeof(where) / sizeof(where[0]); i++) {
        char what[16];
        struct plan plan = { .cut = what };
        int here, over_there;
        enum how how;

        snprintf(what, sizeof(what), "%c%s", "cst"[i % 3], where[i / 3]);
        put_nv(&v, ++nv);
        extend(&v, PCR, "again");
        extends++;
        how = migrate(&v, &plan);
        counts[how]++;
        here = handover();
        over_there = handover_there();
        if ((here != XLV_HANDOVER_DEPARTED) + (over_there == XLV_HANDOVER_HELD) > 1 ||
            (how == RESUMED) != (here != XLV_HANDOVER_DEPARTED) ||
            (plan.there == STARTED && over_there != XLV_HANDOVER_HELD))
            fail_msg("%s: how %d, there %d, registries %d and %d", what, how, plan.there, here,
                     over_there);
        if (how == RESUMED) {
            assert_pcr(&v, PCR, "again", extends);
            assert_nv(&v, nv);
            continue;
        }
        if (plan.there == STARTED)
            check_there(extends, nv);
        if (how == BADLY)
            vm_destroy(&v);
        if (over_there == XLV_HANDOVER_ARRIVING) {
            /* nobody has it: xl says that the domain's state is undefined, and it is sent again */
            nobody++;
            assert_int_equal(ended(mover(true, "", again, NULL, NULL)), 0);
            assert_int_equal(handover_there(), XLV_HANDOVER_HELD);
        }
        fetch_back_from(plan.there == STARTED);
        boot(&v);
        extends = 0;
        assert_nv(&v, nv);
    }
    print_message("# %u resumed, %u migrated, %u of neither (%u of them with nobody as holder)\n",
                  counts[RESUMED], counts[MIGRATED], counts[BADLY], nobody);
    assert_true(counts[RESUMED] >= 3 * 8 && counts[BADLY] >= 3);
    vm_destroy(&v);
}

static void whatever_is_cut_one_host_has_the_tpm(void)
{
    cut_everywhere();
}

static char *in_own_directory(void)
{
    static char path[200];

    snprintf(path, sizeof(path), "%s/state/instances/1/slot-0", H.dir);
    return path;
}

/* The same with nothing copied. */
static void so_it_is_on_shared_storage(void)
{
    char slot[200];
    struct vm v;

    boot(&v);
    vm_shutdown(&v);
    assert_true(log_wait(&H, "#1: forgotten", SOON));
    assert_int_equal(access(in_own_directory(), F_OK), 0);
    share();
    cut_everywhere();
    snprintf(slot, sizeof(slot), "%s/" UUID_A "/slot-0", storage);
    assert_int_equal(access(slot, F_OK), 0);
    assert_int_not_equal(access(in_own_directory(), F_OK), 0);
}

static void a_failed_migration_leaves_the_guest(void)
{
    struct vm v;

    boot(&v);
    assert_int_equal(fx_domain_shutdown(H.m, v.domid, 0), 0);
    vm_destroy(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    share();
    a_failed_migration_leaves_the_guest_where_it_was();
}

/* Nobody gave it away: the host that had it is gone. */
static void another_host_goes_on_with_what_a_lost_one_had(void)
{
    static const char *const resume[] = { "--yes", "resume-here", UUID_A, NULL };
    char line[300];
    struct vm v;

    boot(&v);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    put_nv(&v, 7);
    assert_int_equal(fx_domain_shutdown(H.m, v.domid, 0), 0);
    vm_destroy(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    share();
    boot(&v);
    assert_int_equal(handover_there(), -1);
    assert_int_equal(ended(mover(false, "", resume, NULL, NULL)), 4);
    assert_true(mover_said("another host serves the TPM"));
    assert_int_equal(handover_there(), -1);
    put_nv(&v, 8);
    assert_int_equal(fx_domain_shutdown(H.m, v.domid, 0), 0);
    vm_destroy(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    assert_int_equal(ended(mover(false, "", resume, NULL, NULL)), 0);
    assert_int_equal(handover_there(), XLV_HANDOVER_HELD);
    /* what the lost host would be told: then it comes back in order */
    snprintf(line, sizeof(line), "sqlite3 %s/state/vtpm.db \"UPDATE instance SET handover = "
             "'departed', handover_token = '" UUID_B "', handover_peer = 'there'\"", H.dir);
    assert_int_equal(system(line), 0);
    fetch_back_from(false);
    boot(&v);
    assert_nv(&v, 8);
    vm_destroy(&v);
}

static void a_daemon_that_looks_meanwhile_waits_for_the_return(void)
{
    struct plan plan = { .fails = true, .kills_late = true };
    struct vm v;

    boot(&v);
    assert_int_equal(tpm2_nv_define(v.f), 0);
    put_nv(&v, 7);
    if (storage[0]) {
        assert_int_equal(fx_domain_shutdown(H.m, v.domid, 0), 0);
        vm_destroy(&v);
        assert_true(backends_wait(&H, 0, NULL, SOON));
        share();
        boot(&v);
    }
    extend(&v, PCR, "again");
    assert_int_equal(migrate(&v, &plan), RESUMED);
    assert_nv(&v, 7);
    assert_pcr(&v, PCR, "again", 1);
    vm_destroy(&v);
}

/* What a domain that is gone leaves behind is no boot that goes on. */
static void a_tpm_is_sent_after_a_shutdown_and_after_a_save(void)
{
    static const char *const send[] = { "send", UUID_A, "there", NULL };
    struct vm v;

    boot(&v);
    vm_shutdown(&v);
    assert_true(log_wait(&H, "#1: forgotten", SOON));
    assert_int_equal(ended(mover(true, "", send, NULL, NULL)), 0);
    assert_int_equal(handover_there(), XLV_HANDOVER_HELD);
    fetch_back_from(false);
    boot(&v);
    assert_int_equal(fx_domain_shutdown(H.m, v.domid, 2), 0);
    vm_destroy(&v);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    daemon_kill(&H);
    assert_int_equal(daemon_start(&H), 0);
    assert_true(backends_wait(&H, 0, NULL, SOON));
    assert_int_equal(ended(mover(true, "", send, NULL, NULL)), 0);
    assert_int_equal(handover_there(), XLV_HANDOVER_HELD);
    fetch_back_from(false);
}

/* The driver came with another ring before: after a suspend to idle, or a kexec. */
static void a_guest_whose_driver_came_anew_migrates(void)
{
    struct plan plan = { .there = 0 };
    struct vm v;

    boot(&v);
    fx_frontend_free(v.f);
    vm_probe(&v);
    extend(&v, PCR, "again");
    assert_int_equal(tpm2_nv_define(v.f), 0);
    put_nv(&v, 7);
    assert_int_equal(migrate(&v, &plan), MIGRATED);
    check_there(1, 7);
    order((struct message){ .order = DESTROY });
}

#define TEST(name) { #name, scene_run, up, down, &(struct scene){ .test = name } }
#define SHARED(name) { "shared_" #name, scene_run, up, down, &(struct scene){ .test = name, .config = "" } }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_guest_that_migrates_takes_its_tpm_along),
        TEST(a_guest_whose_driver_came_anew_migrates),
        TEST(a_tpm_is_sent_after_a_shutdown_and_after_a_save),
        TEST(a_failed_migration_leaves_the_guest_where_it_was),
        TEST(xl_does_not_wait_for_a_return_that_is_lost),
        TEST(a_daemon_that_looks_meanwhile_waits_for_the_return),
        TEST(a_guest_without_a_tpm_migrates_as_ever),
        TEST(no_tpm_is_made_up_for_a_guest_whose_own_did_not_come_along),
        TEST(whatever_is_cut_one_host_has_the_tpm),
        SHARED(a_failed_migration_leaves_the_guest),
        SHARED(a_daemon_that_looks_meanwhile_waits_for_the_return),
        SHARED(another_host_goes_on_with_what_a_lost_one_had),
        SHARED(so_it_is_on_shared_storage),
    };

    if (argc > 1 && !strcmp(argv[1], "bridge"))
        return bridge();
    if (argc > 3 && !strcmp(argv[1], "rsh"))
        return rsh(argv);
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("migrate", tests, NULL, NULL);
}
