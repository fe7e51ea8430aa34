/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Everything that can be wrong on a host: see doctor.h. */
#include "config.h"

#include "libxl-vtpm/doctor.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>
#include <linux/magic.h>

#include "backend/store.h"
#include "common/fd.h"
#include "common/process.h"
#include "libxl-vtpm/ca.h"
#include "libxl-vtpm/client.h"
#include "libxl-vtpm/control.h"
#include "libxl-vtpm/device.h"
#include "libxl-vtpm/keys.h"
#include "libxl-vtpm/registry.h"
#include "libxl-vtpm/settings.h"
#include "libxl-vtpm/xenstore.h"

/* A new instance takes 64 KiB of the state directory, its journal some 50 KiB of the run
 * directory; below the first the next guest gets none, below the second soon. */
#define SPACE_LOW (1024 * 1024ull)
#define SPACE_SOON (32 * 1024 * 1024ull)
#define FILES_LOW 16u

/* What of the toolstack's and the daemon's view may differ for a moment. */
#define SETTLE_NS (700 * 1000 * 1000)

/* The first libtpms without the flaws that only its version tells of (backend/probe.c), as the
 * library counts. */
#define LIBTPMS_LEAST 0x000900u

/* Numbers named in one sentence. */
#define NAMED_MAX 8

struct doctor {
    const char *root;
    struct xlv_settings settings;
    bool have_settings, is_xen, have_instances;
    struct xlv_registry *registry;
    struct xlv_client *client;
    bool online;
    struct json_object *checks;
    enum xlv_doctor_result worst;
    bool no_memory;
};

/* --- findings --- */

static bool put(struct doctor *d, struct json_object *object, const char *key,
                struct json_object *value)
{
    if (value && json_object_object_add(object, key, value) == 0)
        return true;
    json_object_put(value);
    d->no_memory = true;
    return false;
}

static const char *word(enum xlv_doctor_result result)
{
    static const char *const words[] = { "ok", "warning", "problem" };

    return words[result];
}

/* advice may be NULL: nothing needs to be done. */
static void __attribute__((format(printf, 5, 6)))
find(struct doctor *d, const char *check, enum xlv_doctor_result result, const char *advice,
     const char *fmt, ...)
{
    struct json_object *one = json_object_new_object();
    char text[2 * XLV_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (d->worst < result)
        d->worst = result;
    if (one && put(d, one, "check", json_object_new_string(check)) &&
        put(d, one, "result", json_object_new_string(word(result))) &&
        put(d, one, "text", xlv_json_text(text)) &&
        (advice ? put(d, one, "advice", xlv_json_text(advice))
                : json_object_object_add(one, "advice", NULL) == 0) &&
        json_object_array_add(d->checks, one) == 0)
        return;
    json_object_put(one);
    d->no_memory = true;
}

#define OK(check, ...) find(d, check, XLV_DOCTOR_OK, NULL, __VA_ARGS__)
#define WARNING(check, advice, ...) find(d, check, XLV_DOCTOR_WARNING, advice, __VA_ARGS__)
#define PROBLEM(check, advice, ...) find(d, check, XLV_DOCTOR_PROBLEM, advice, __VA_ARGS__)

/* "3, 5, 8 and 2 more": of many things with numbers. */
struct numbers {
    char text[NAMED_MAX * 22 + 32];
    unsigned count;
};

static void add_number(struct numbers *n, uint64_t number)
{
    size_t used = strlen(n->text);

    if (n->count++ < NAMED_MAX)
        snprintf(n->text + used, sizeof(n->text) - used, "%s%" PRIu64, used ? ", " : "", number);
}

static const char *numbers_text(struct numbers *n)
{
    size_t used = strlen(n->text);

    if (n->count > NAMED_MAX)
        snprintf(n->text + used, sizeof(n->text) - used, " and %u more", n->count - NAMED_MAX);
    n->count = n->count > NAMED_MAX ? NAMED_MAX : n->count;
    return n->text;
}

/* --- the host --- */

static void rooted(const struct doctor *d, char *path, size_t room, const char *name)
{
    snprintf(path, room, "%s%s", d->root, name);
}

/* The first word of a small file, "" where it cannot be read. */
static void first_word(const struct doctor *d, const char *name, char word_[64])
{
    int fd XLV_CLOSE = -1;
    char path[256];
    ssize_t n;

    rooted(d, path, sizeof(path), name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? 0 : read(fd, word_, 63);
    word_[n > 0 ? n : 0] = '\0';
    word_[strcspn(word_, " \n")] = '\0';
}

static void check_xen(struct doctor *d)
{
    char type[64], capabilities[64];

    first_word(d, "/sys/hypervisor/type", type);
    first_word(d, "/proc/xen/capabilities", capabilities);
    d->is_xen = !strcmp(type, "xen") || capabilities[0];
    if (!strcmp(capabilities, "control_d"))
        OK("xen", "this is domain 0 of a Xen host");
    else if (d->is_xen)
        find(d, "xen", XLV_DOCTOR_OK,
             "in domain 0, and only there, mount xenfs: mount -t xenfs xenfs /proc/xen",
             "this is a Xen domain, but not seen as domain 0: a driver domain serves others' "
             "guests");
    else
        PROBLEM("xen", "boot Xen, or look on the host itself: no guest runs here",
                "this is no Xen host (neither /sys/hypervisor/type nor /proc/xen say so)");
}

static void check_devices(struct doctor *d)
{
    static const struct {
        const char *name, *needed, *advice;
    } devices[] = {
        { "/dev/xen/evtchn", "a backend hears its guest through it",
          "modprobe xen-evtchn, and name it in /etc/modules-load.d" },
        { "/dev/xen/gntdev", "a backend maps its guest's page through it",
          "modprobe xen-gntdev, and name it in /etc/modules-load.d" },
        { "/dev/xen/xenbus", "it leads to xenstore",
          "modprobe xenfs and xen-privcmd, and see that devtmpfs is mounted on /dev" },
    };
    char path[256];

    for (size_t i = 0; d->is_xen && i < sizeof(devices) / sizeof(devices[0]); i++) {
        rooted(d, path, sizeof(path), devices[i].name);
        if (access(path, R_OK | W_OK) == 0)
            OK("devices", "%s is there", devices[i].name);
        else if (errno == ENOENT)
            PROBLEM("devices", devices[i].advice, "there is no %s; %s", devices[i].name,
                    devices[i].needed);
        else
            WARNING("devices", "run this as root", "%s cannot be used: %s", devices[i].name,
                    strerror(errno));
    }
}

/* Not linked: the backend alone uses it, and this is where it may be missing. */
static void check_libtpms(struct doctor *d)
{
    void *library = dlopen("libtpms.so.0", RTLD_NOW | RTLD_LOCAL);
    uint32_t (*get_version)(void) = NULL;
    uint32_t v;

    if (library)
        *(void **)&get_version = dlsym(library, "TPMLIB_GetVersion");
    if (!get_version) {
        PROBLEM("libtpms", "install libtpms (Debian: libtpms0)", "libtpms cannot be loaded: %s",
                library ? "it says no version" : dlerror());
    } else {
        v = get_version();
        if (v < LIBTPMS_LEAST)
            WARNING("libtpms", "install a newer one", "libtpms %u.%u.%u has published flaws",
                    v >> 16, v >> 8 & 0xff, v & 0xff);
        else
            OK("libtpms", "libtpms %u.%u.%u", v >> 16, v >> 8 & 0xff, v & 0xff);
    }
    if (library)
        dlclose(library);
}

/* --- configuration and what it names --- */

static void check_config(struct doctor *d, const char *path)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_settings_load(&d->settings, path, &e);

    d->have_settings = rc == 0;
    if (!rc)
        OK("configuration", "the configuration is valid");
    else
        PROBLEM("configuration", "correct it, see xl-vtpm.conf(5); what it names was not looked at",
                "%s", e.text[0] ? e.text : xlv_strerror(rc));
}

static bool is_tmpfs(const char *path)
{
    struct statfs st;

    return statfs(path, &st) == 0 &&
           (st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC);
}

/* Ours and for nobody else? False: a finding says why not. */
static bool check_private(struct doctor *d, const char *check, const char *path,
                          const struct stat *st)
{
    char advice[XLV_TEXT_MAX];

    if (st->st_uid != 0 && st->st_uid != geteuid()) {
        snprintf(advice, sizeof(advice), "find out why, then chown root %s", path);
        PROBLEM(check, advice, "%s belongs to user %u, who can change what is in it", path,
                (unsigned)st->st_uid);
        return false;
    }
    if (st->st_mode & 022) {
        snprintf(advice, sizeof(advice), "chmod go-rwx %s", path);
        PROBLEM(check, advice, "%s has mode %04o, others can write to it", path,
                (unsigned)st->st_mode & 07777);
        return false;
    }
    if (st->st_mode & 044) {
        snprintf(advice, sizeof(advice), "chmod go-rwx %s", path);
        WARNING(check, advice, "%s has mode %04o, others can read it", path,
                (unsigned)st->st_mode & 07777);
        return false;
    }
    return true;
}

/* A directory of the daemon's, which makes it where it is missing. */
static bool check_directory(struct doctor *d, const char *check, const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        if (errno == ENOENT && !d->online)
            OK(check, "%s is not there yet; the daemon makes it", path);
        else
            PROBLEM(check, errno == EACCES ? "run this as root" : "restart xl-vtpmd",
                    "%s cannot be looked at: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        PROBLEM(check, "move it away, or name another one in the configuration",
                "%s is no directory", path);
        return false;
    }
    if (check_private(d, check, path, &st))
        OK(check, "%s is private", path);
    return true;
}

static void check_space(struct doctor *d, const char *check, const char *path)
{
    struct statvfs st;
    uint64_t room;

    if (statvfs(path, &st) < 0)
        return;
    room = (uint64_t)st.f_bavail * st.f_frsize;
    if (st.f_files && st.f_favail < FILES_LOW)
        PROBLEM(check, "remove files there", "the file system of %s has room for %" PRIu64
                " more files", path, (uint64_t)st.f_favail);
    else if (room < SPACE_LOW)
        PROBLEM(check, "make room there: the next guest may get no TPM",
                "the file system of %s has %" PRIu64 " KiB left", path, room / 1024);
    else if (room < SPACE_SOON)
        WARNING(check, "make room there", "the file system of %s has %" PRIu64 " MiB left", path,
                room >> 20);
    else
        OK(check, "the file system of %s has %" PRIu64 " MiB left", path, room >> 20);
}

static void check_directories(struct doctor *d)
{
    const char *state = d->settings.state_dir, *run = d->settings.run_dir;
    struct stat st;
    char path[512];

    if (check_directory(d, "state-dir", state)) {
        check_space(d, "state-dir space", state);
        if (is_tmpfs(state))
            WARNING("state-dir", "name a directory on a disk as state-dir",
                    "%s is in memory (tmpfs): all TPMs are lost when the host goes down", state);
        snprintf(path, sizeof(path), "%s/vtpm.db", state);
        if (stat(path, &st) == 0)
            (void)check_private(d, "state-dir", path, &st);
    }
    if (check_directory(d, "run-dir", run)) {
        check_space(d, "run-dir space", run);
        if (!is_tmpfs(run))
            WARNING("run-dir", "name a directory on a tmpfs as run-dir, such as /run/xl-vtpm",
                    "%s is on a disk: each command of a guest is written to it, and what is "
                    "there after a power cut is of no use", run);
    }
}

/* A line of vtpm-probe: what it is about, the verdict, what was seen. True: mended. */
static bool take_probe(struct doctor *d, char *line)
{
    char *next = NULL, *name = strtok_r(line, "\t", &next);
    char *verdict = strtok_r(NULL, "\t", &next), *seen = strtok_r(NULL, "\n", &next);

    if (!seen)
        return false;
    if (!strcmp(verdict, "open"))
        WARNING("libtpms", "install a libtpms without it; a guest has it from its next boot on",
                "libtpms has the flaw %s, which is a guest's to use: %s", name, seen);
    else if (strcmp(verdict, "mended"))
        WARNING("libtpms", "find out by its version whether it is mended",
                "whether libtpms has the flaw %s cannot be told: %s", name, seen);
    return !strcmp(verdict, "mended");
}

/*
 * Published flaws are tried by vtpm-probe, which is installed beside the backend program: who
 * mends a libtpms for a distribution leaves its version as it is.
 */
static void check_flaws(struct doctor *d)
{
    const char *program = d->settings.backend_program;
    char path[PATH_MAX], line[512], *argv[] = { (char *)"vtpm-probe", NULL };
    posix_spawn_file_actions_t actions;
    int ends[2], r;
    unsigned lines = 0, mended = 0;
    struct stat st;
    FILE *f;
    pid_t pid;

    snprintf(path, sizeof(path), "%.*s/vtpm-probe", (int)(strrchr(program, '/') - program), program);
    if (stat(path, &st) < 0 || st.st_mode & 022 || (st.st_uid != 0 && st.st_uid != geteuid())) {
        WARNING("libtpms", "install it again", "%s is not there, or can be changed by others: "
                "whether libtpms has published flaws was not tried", path);
        return;
    }
    if (pipe2(ends, O_CLOEXEC) < 0 || posix_spawn_file_actions_init(&actions)) {
        d->no_memory = true;
        return;
    }
    r = posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    if (!r)
        r = posix_spawn(&pid, path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    xlv_close(&ends[1]);
    f = r ? NULL : fdopen(ends[0], "r");
    while (f && fgets(line, sizeof(line), f)) {
        mended += take_probe(d, line);
        lines++;
    }
    if (f)
        fclose(f);
    else
        xlv_close(&ends[0]);
    if (!r)
        (void)waitpid(pid, NULL, 0);
    if (!lines)
        WARNING("libtpms", "run it by hand to see why", "%s does not run: whether libtpms has "
                "published flaws was not tried", path);
    else if (mended == lines)
        OK("libtpms", "none of %u published flaws that can be tried is in it", lines);
}

static void check_backend(struct doctor *d)
{
    const char *program = d->settings.backend_program, *user = d->settings.backend_user;
    struct stat st;

    if (stat(program, &st) < 0)
        PROBLEM("backend-program", "install it, or name the right one as backend-program",
                "%s cannot be run: %s", program, strerror(errno));
    else if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
        PROBLEM("backend-program", "install it again, or name the right one as backend-program",
                "%s is not executable", program);
    else if (st.st_mode & 022 || (st.st_uid != 0 && st.st_uid != geteuid()))
        WARNING("backend-program", "chown root and chmod go-w it",
                "%s, which runs as root at first, can be changed by others", program);
    else
        OK("backend-program", "%s is executable", program);

    /* one that does not exist is refused with the configuration */
    if (d->settings.backend_uid_base)
        OK("backend-user", "each instance's backends become a user of their own, uid %u to %u",
           d->settings.backend_uid_base,
           d->settings.backend_uid_base + (d->settings.backend_uid_count - 1));
    else if (user[0])
        OK("backend-user", "backends become user %s", user);
    else
        WARNING("backend-user", "make a user xl-vtpm (systemd-sysusers does, or adduser --system) "
                "and restart xl-vtpmd",
                "there is no backend-user: what touches a guest's bytes runs as the daemon's own "
                "user");
}

/* --- daemon --- */

static int call(struct doctor *d, const char *name, struct json_object **result,
                struct xlv_error *e)
{
    struct json_object *request = json_object_new_object();
    int rc = -ENOMEM;

    *result = NULL;
    if (request && put(d, request, "call", json_object_new_string(name)))
        rc = xlv_client_call(d->client, request, result, e);
    json_object_put(request);
    return rc;
}

static const char *text_of(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(json, key, &value);
    return value ? json_object_get_string(value) : NULL;
}

static void check_daemon(struct doctor *d)
{
    struct json_object *status = NULL;
    struct xlv_error e = XLV_ERROR_INIT;
    const char *version, *xenstore;
    int rc = xlv_client_new(&d->client, &d->settings, XLV_CLIENT_DAEMON, &e);

    if (rc == XLV_E_NOT_FOUND) {
        PROBLEM("daemon", "systemctl start xl-vtpmd (xl-vtpmd(8) has it for other inits); guests "
                "that run keep their TPMs meanwhile",
                "no xl-vtpmd runs on %s: guests with a vTPM cannot be created",
                d->settings.run_dir);
        return;
    }
    if (!rc)
        rc = call(d, "status", &status, &e);
    if (rc) {
        PROBLEM("daemon", rc == -EACCES || rc == -EPERM || rc == XLV_E_REFUSED
                ? "run this as root"
                : "look into journalctl -u xl-vtpmd; restart it: running TPMs run on",
                "xl-vtpmd does not answer: %s", e.text[0] ? e.text : xlv_strerror(rc));
        return;
    }
    d->online = true;
    version = text_of(status, "version");
    xenstore = text_of(status, "xenstore");
    OK("daemon", "xl-vtpmd runs (process %s, %s devices)", text_of(status, "pid"),
       text_of(status, "devices"));
    if (!version || strcmp(version, PACKAGE_VERSION))
        WARNING("daemon version", "systemctl restart xl-vtpmd; running TPMs run on",
                "the daemon is of version %s and this command of " PACKAGE_VERSION,
                version ? version : "(unknown)");
    else
        OK("daemon version", "daemon and command are of version " PACKAGE_VERSION);
    if (xenstore && strcmp(xenstore, "connected"))
        PROBLEM("daemon", "look whether xenstored runs; the daemon connects by itself then",
                "the daemon has no connection to xenstore");
    json_object_put(status);
}

/* --- registry, key, instances --- */

static void check_registry(struct doctor *d)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc = xlv_registry_open(&d->registry, d->settings.state_dir, false, &e);

    /* opening it is a quick_check, too */
    if (!rc)
        OK("registry", "the registry is sound");
    else if (rc == XLV_E_NOT_FOUND)
        OK("registry", "there is no registry yet; the daemon makes it");
    else
        PROBLEM("registry", "see registry.md among the documents: nothing is lost that is in a "
                "backup, and nothing was replaced",
                "%s", e.text[0] ? e.text : xlv_strerror(rc));
}

static void check_key(struct doctor *d)
{
    const char *source = d->settings.key_source;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_keys *keys = NULL;
    int rc;

    switch (d->settings.key_provider) {
    case XLV_KEY_NONE:
        WARNING("master key", "name a key as master-key: see CHANGING THE MASTER KEY in xl-vtpm(8)",
                "there is no master key: whoever can read the files can read the TPMs' secrets");
        return;
    case XLV_KEY_CREDENTIAL:
        /* systemd gives it to the service only; a daemon that runs has it */
        if (d->online)
            OK("master key", "the daemon has its credential %s", source);
        else
            WARNING("master key", "start xl-vtpmd: it needs its credential, and says if it has none",
                    "the master key is the credential %s, which only the service gets", source);
        return;
    case XLV_KEY_FILE:
        break;
    }
    rc = xlv_keys_new(&keys, XLV_KEY_FILE, source, false, &e);
    if (rc == XLV_E_NOT_FOUND && !d->have_instances) {
        OK("master key", "%s is not there yet; the daemon makes it", source);
    } else if (rc) {
        PROBLEM("master key", "without its key no state can be opened: put it back, with mode 0600",
                "%s", e.text[0] ? e.text : xlv_strerror(rc));
    } else if (xlv_keys_count(keys) > 1) {
        WARNING("master key", "run xl-vtpm rekey until it says that it is complete",
                "the master key is being changed: both %s and %s.new are needed", source, source);
    } else {
        OK("master key", "%s can be read, by nobody else", source);
    }
    xlv_keys_free(keys);
}

/* Without it no TPM is made, where it has signed for one before. */
static void check_ca(struct doctor *d)
{
    const struct xlv_settings *s = &d->settings;
    struct xlv_error e = XLV_ERROR_INIT;
    struct xlv_ca *ca = NULL;
    bool signed_any = false;
    int rc;

    if (!s->ca_key[0]) {
        OK("CA", "there is none, as configured");
        return;
    }
    if (strncmp(s->ca_key, "file:", 5)) {
        OK("CA", "its key is %s, which only xl-vtpmd opens", s->ca_key);
        return;
    }
    rc = xlv_ca_open(&ca, s, &e);
    if (rc == XLV_E_NOT_FOUND) {
        xlv_error_clear(&e);
        rc = d->registry ? xlv_registry_signed(d->registry, &signed_any, &e) : 0;
        if (!rc && !signed_any)
            OK("CA", "there is none yet; the daemon makes it");
        else if (!rc)
            PROBLEM("CA", "put both back, or make a new one with xl-vtpm ca init",
                    "the CA that signed for the TPMs of this host is gone (%s, %s): no new TPM is "
                    "made", s->ca_key, s->ca_certificate);
    }
    if (rc)
        PROBLEM("CA", "mend that: until then no new TPM is made",
                "%s", e.text[0] ? e.text : xlv_strerror(rc));
    else if (ca)
        OK("CA", "%s", xlv_ca_subject(ca));
    xlv_ca_free(ca);
}

struct look {
    struct doctor *d;
    unsigned count, sound;
    struct numbers unused, quarantined;
};

/* False: a finding says what is wrong with it. */
static bool check_slots(struct doctor *d, const struct xlv_instance *instance, int dirfd)
{
    static const char *const names[2] = { XLV_STORE_SLOT_0, XLV_STORE_SLOT_1 };
    char path[PATH_MAX + 16], directory[PATH_MAX], advice[XLV_TEXT_MAX];
    struct stat st;
    bool sound = true;

    snprintf(advice, sizeof(advice), "shut its guest down, then xl-vtpm recover %" PRIu64
             " says what can be done", instance->number);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s",
                 xlv_instance_path(d->settings.state_dir, instance, directory), names[i]);
        if (fstatat(dirfd, names[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
            /* not made yet, or made just now */
            if (errno == ENOENT && instance->life == XLV_LIFE_NEW)
                continue;
            PROBLEM("instances", advice, "instance %" PRIu64 ": %s cannot be looked at: %s",
                    instance->number, path, strerror(errno));
            sound = false;
        } else if (!S_ISREG(st.st_mode) || st.st_size < (off_t)XLV_STORE_SLOT_SIZE ||
                   st.st_size > 2 * (off_t)XLV_PERMANENT_MAX) {
            PROBLEM("instances", advice, "instance %" PRIu64 ": %s is no slot of a sane size "
                    "(%jd bytes)", instance->number, path, (intmax_t)st.st_size);
            sound = false;
        } else {
            sound = check_private(d, "instances", path, &st) && sound;
        }
    }
    return sound;
}

static int check_instance(const struct xlv_instance *instance, void *opaque)
{
    struct look *look = opaque;
    struct doctor *d = look->d;
    struct xlv_error e = XLV_ERROR_INIT;
    int fd XLV_CLOSE = -1, rc;
    char path[PATH_MAX];
    struct stat st;

    look->count++;
    if (!instance->last_used_s)
        add_number(&look->unused, instance->number);
    if (instance->life == XLV_LIFE_QUARANTINED)
        add_number(&look->quarantined, instance->number);
    if (xlv_instance_shared(instance) && instance->handover == XLV_HANDOVER_DEPARTED) {
        look->sound++; /* it is another host's */
        return 0;
    }
    rc = xlv_registry_directory(d->registry, instance, &fd, &e);
    if (rc) {
        PROBLEM("instances",
                xlv_instance_shared(instance)
                    ? "mount the storage that is shared-dir; until then it is not served"
                    : "put its directory back from a backup; until then it is not served",
                "%s", e.text[0] ? e.text : xlv_strerror(rc));
        return 0;
    }
    (void)xlv_instance_path(d->settings.state_dir, instance, path);
    if (check_slots(d, instance, fd) && fstat(fd, &st) == 0 &&
        check_private(d, "instances", path, &st))
        look->sound++;
    return 0;
}

/* Directories of states that the registry does not know: is it an old copy? */
static void check_strays(struct doctor *d)
{
    struct numbers strays = { .text = "" };
    struct dirent *entry;
    char path[512];
    DIR *dir;

    snprintf(path, sizeof(path), "%s/instances", d->settings.state_dir);
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        struct xlv_instance instance;
        uint32_t number;

        if (xlv_parse_number(entry->d_name, strlen(entry->d_name), UINT32_MAX, &number) == 0 &&
            xlv_registry_get_number(d->registry, number, &instance, NULL) == XLV_E_NOT_FOUND)
            add_number(&strays, number);
    }
    if (dir)
        closedir(dir);
    if (strays.count)
        WARNING("registry", "if the registry is an old copy put the newest back, see registry.md",
                "there are states in %s that the registry does not know: %s", path,
                numbers_text(&strays));
}

static void check_instances(struct doctor *d)
{
    struct look look = { .d = d };
    struct xlv_error e = XLV_ERROR_INIT;

    if (!d->registry)
        return;
    if (xlv_registry_each(d->registry, check_instance, &look, &e)) {
        PROBLEM("instances", "see registry.md among the documents", "%s", e.text);
        return;
    }
    d->have_instances = look.count > 0;
    if (look.sound == look.count)
        OK("instances", "%u instances, each with its directory and slots", look.count);
    check_strays(d);
    if (look.quarantined.count)
        WARNING("quarantine", "xl-vtpm show NUMBER and journalctl -u xl-vtpmd have the cause; mend "
                "it, then xl-vtpm release NUMBER",
                "quarantined, and served to nobody: instance %s", numbers_text(&look.quarantined));
    else
        OK("quarantine", "no instance is quarantined");
    if (look.unused.count)
        OK("unused", "never used so far: instance %s", numbers_text(&look.unused));
}

/* --- xenstore and processes --- */

struct devices {
    struct {
        uint32_t domid, devid;
        bool connected, served;
    } *list;
    unsigned count;
};

/* All devices of our directory with a state node. */
static int list_devices(struct xlv_xenstore *xs, struct devices *all)
{
    char root[64], path[128], **domains = NULL, **names;
    struct xlv_xs_value value;
    unsigned domain_count = 0, count;
    uint32_t own = 0, domid, devid;
    int rc = xlv_xenstore_read(xs, XLV_XS_NONE, "domid", &value);

    all->list = NULL;
    all->count = 0;
    if (!rc)
        (void)xlv_parse_number(value.text, value.length, XLV_DOMID_MAX, &own);
    else if (rc != XLV_E_NOT_FOUND)
        return rc;
    snprintf(root, sizeof(root), "/local/domain/%u/backend/vtpm", own);
    rc = xlv_xenstore_list(xs, root, &domains, &domain_count);
    if (rc)
        return rc == XLV_E_NOT_FOUND ? 0 : rc;
    for (unsigned i = 0; i < domain_count; i++) {
        if (xlv_parse_number(domains[i], strlen(domains[i]), XLV_DOMID_MAX, &domid))
            continue;
        snprintf(path, sizeof(path), "%s/%u", root, domid);
        if (xlv_xenstore_list(xs, path, &names, &count))
            continue;
        for (unsigned k = 0; k < count; k++) {
            void *more;

            if (xlv_parse_number(names[k], strlen(names[k]), XLV_DEVID_MAX, &devid))
                continue;
            snprintf(path, sizeof(path), "%s/%u/%u/state", root, domid, devid);
            if (xlv_xenstore_read(xs, XLV_XS_NONE, path, &value))
                continue;
            more = realloc(all->list, (all->count + 1) * sizeof(*all->list));
            if (!more) {
                rc = -ENOMEM;
                break;
            }
            all->list = more;
            all->list[all->count].domid = domid;
            all->list[all->count].devid = devid;
            all->list[all->count].served = false;
            all->list[all->count++].connected =
                xlv_parse_xenbus(value.text, value.length) == XLV_XENBUS_CONNECTED;
        }
        free(names);
    }
    free(domains);
    return rc;
}

/* What the daemon says that its instances serve: marks the devices, gives the processes. */
static int64_t *served(struct devices *all, struct json_object *instances, size_t *count,
                       size_t *makers)
{
    size_t n = xlv_json_count(instances);
    int64_t *pids = calloc(n + 1, sizeof(*pids));

    *count = *makers = 0;
    for (size_t i = 0; pids && i < n; i++) {
        struct json_object *instance = json_object_array_get_idx(instances, i), *device = NULL;
        const char *life = text_of(instance, "life"), *domid, *devid, *pid;
        uint32_t dom, dev;

        /* what makes a TPM serves no device */
        *makers += life && !strcmp(life, "new");
        json_object_object_get_ex(instance, "device", &device);
        domid = device ? text_of(device, "domid") : NULL;
        devid = device ? text_of(device, "devid") : NULL;
        pid = device ? text_of(device, "pid") : NULL;
        if (!pid || !domid || !devid ||
            xlv_parse_number(domid, strlen(domid), XLV_DOMID_MAX, &dom) ||
            xlv_parse_number(devid, strlen(devid), XLV_DEVID_MAX, &dev))
            continue;
        pids[(*count)++] = strtoll(pid, NULL, 10);
        for (unsigned k = 0; k < all->count; k++)
            if (all->list[k].domid == dom && all->list[k].devid == dev)
                all->list[k].served = true;
    }
    return pids;
}

struct crossing {
    unsigned devices, unserved, processes;
    char first[32];           /* of those unserved */
    struct numbers strangers; /* processes that serve nothing that is known */
};

/* Compares xenstore's devices, the daemon's, and the processes that run. */
static int cross(struct doctor *d, struct xlv_xenstore *xs, struct crossing *c)
{
    struct json_object *instances = NULL;
    struct devices all;
    struct dirent *entry;
    size_t known = 0, makers = 0;
    int64_t *pids = NULL;
    DIR *proc;
    int rc = list_devices(xs, &all);

    *c = (struct crossing){ .devices = all.count };
    if (!rc && d->online)
        rc = call(d, "list", &instances, NULL);
    if (!rc && !(pids = served(&all, instances, &known, &makers)))
        rc = -ENOMEM;
    if (rc)
        goto out;
    proc = opendir("/proc");
    while (proc && (entry = readdir(proc))) {
        bool stranger = d->online;

        if (!isdigit((unsigned char)entry->d_name[0]) ||
            !xlv_process_runs((pid_t)atol(entry->d_name), d->settings.backend_program))
            continue;
        c->processes++;
        for (size_t i = 0; stranger && i < known; i++)
            stranger = pids[i] != strtoll(entry->d_name, NULL, 10);
        if (stranger)
            add_number(&c->strangers, strtoull(entry->d_name, NULL, 10));
    }
    if (proc)
        closedir(proc);
    if (c->strangers.count <= makers)
        c->strangers = (struct numbers){ .text = "" };
    for (unsigned i = 0; i < all.count; i++) {
        if (!all.list[i].connected || (d->online && all.list[i].served))
            continue;
        if (!c->unserved++)
            snprintf(c->first, sizeof(c->first), "%u/%u", all.list[i].domid, all.list[i].devid);
    }
    if (!d->online)
        c->unserved = c->unserved > c->processes ? c->unserved - c->processes : 0;
out:
    json_object_put(instances);
    free(pids);
    free(all.list);
    return rc;
}

static void check_xenstore(struct doctor *d)
{
    struct xlv_xenstore *xs = NULL;
    struct xlv_error e = XLV_ERROR_INIT;
    struct crossing c;
    int rc = xlv_xenstore_open(&xs, &e);

    if (rc) {
        if (d->is_xen)
            PROBLEM("xenstore", "start xenstored (Debian: systemctl start xen)", "%s", e.text);
        return;
    }
    OK("xenstore", "xenstore answers");
    rc = cross(d, xs, &c);
    if (!rc && (c.unserved || c.strangers.count)) {
        nanosleep(&(struct timespec){ .tv_nsec = SETTLE_NS }, NULL);
        rc = cross(d, xs, &c);
    }
    if (rc) {
        WARNING("processes", "run this again", "devices and processes could not be compared: %s",
                xlv_strerror(rc));
    } else {
        if (c.unserved)
            PROBLEM("processes", d->online ? "journalctl -u xl-vtpmd says why; restart xl-vtpmd"
                                           : "start xl-vtpmd: it goes on where they stopped",
                    "%u of %u devices are connected but have no backend process (the first: %s): "
                    "their guests' commands wait", c.unserved, c.devices, c.first);
        if (c.strangers.count)
            WARNING("processes", "restart xl-vtpmd; a process that it does not find then is of no "
                    "use and can be killed",
                    "backend processes that serve no device the daemon knows: %s",
                    numbers_text(&c.strangers));
        if (!c.unserved && !c.strangers.count)
            OK("processes", "%u devices in xenstore, %u backend processes", c.devices,
               c.processes);
    }
    xlv_xenstore_close(xs);
}

int xlv_doctor(const struct xlv_doctor *what, enum xlv_doctor_result *worst,
               struct json_object **report, struct xlv_error *e)
{
    struct doctor doctor = { .root = what->root, .checks = json_object_new_array() };
    struct doctor *d = &doctor;
    struct json_object *all = json_object_new_object();

    *report = NULL;
    d->no_memory = !d->checks || !all;
    if (!d->no_memory) {
        check_xen(d);
        check_devices(d);
        check_libtpms(d);
        check_config(d, what->config);
    }
    if (!d->no_memory && d->have_settings) {
        check_daemon(d);
        check_directories(d);
        check_backend(d);
        check_flaws(d);
        check_registry(d);
        check_instances(d);
        check_key(d);
        check_ca(d);
        check_xenstore(d);
    }
    xlv_client_free(d->client);
    xlv_registry_close(d->registry);
    if (d->have_settings)
        xlv_settings_deinit(&d->settings);
    if (!d->no_memory && put(d, all, "result", json_object_new_string(word(d->worst))) &&
        put(d, all, "checks", d->checks)) {
        *worst = d->worst;
        *report = all;
        return 0;
    }
    json_object_put(d->checks);
    json_object_put(all);
    return xlv_fail(e, -ENOMEM, "no memory to look at this host");
}
