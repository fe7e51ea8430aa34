/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xl-vtpm: whole states of TPMs: export, import, clear. */
#include "config.h"

#include "libxl-vtpm/xl-vtpm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "backend/container.h"
#include "common/bytes.h"
#include "common/fd.h"
#include "libxl-vtpm/archive.h"
#include "libxl-vtpm/states.h"
#include "libxl-vtpm/swtpm.h"
#include "libxl-vtpm/task.h"

#define PASSPHRASE_MAX 1024
#define FILE_MAX (XLV_PERMANENT_MAX + (XLV_ARCHIVE_EXTRA > XLV_SWTPM_EXTRA ? XLV_ARCHIVE_EXTRA \
                                                                          : XLV_SWTPM_EXTRA))

/*
 * Passphrases
 */

/* A line without its end. */
static int read_line(FILE *stream, char line[PASSPHRASE_MAX])
{
    size_t length;

    if (!fgets(line, PASSPHRASE_MAX, stream))
        return XLV_E_EMPTY;
    length = strlen(line);
    if (length && line[length - 1] == '\n')
        line[--length] = '\0';
    else if (!feof(stream))
        return XLV_E_INVALID;
    return length ? 0 : XLV_E_EMPTY;
}

/* At the terminal, unseen. */
static int ask_passphrase(const char *question, char line[PASSPHRASE_MAX])
{
    struct termios seen, unseen;
    bool hidden = tcgetattr(STDIN_FILENO, &seen) == 0;
    int rc;

    progress_stop();
    fprintf(stderr, "%s: ", question);
    if (hidden) {
        unseen = seen;
        unseen.c_lflag &= ~(tcflag_t)ECHO;
        hidden = tcsetattr(STDIN_FILENO, TCSAFLUSH, &unseen) == 0;
    }
    rc = read_line(stdin, line);
    if (hidden) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &seen);
        fputc('\n', stderr);
    }
    progress_start(NULL);
    return rc;
}

/* twice: it is a new one, a mistake in which would be found too late. The caller wipes it. */
static int get_passphrase(struct run *run, bool twice, char passphrase[PASSPHRASE_MAX])
{
    char again[PASSPHRASE_MAX];
    int rc;

    if (run->passphrase_file) {
        FILE *file = fopen(run->passphrase_file, "re");

        if (!file)
            return xlv_fail(&run->e, -errno, "cannot read %s: %s", run->passphrase_file,
                            strerror(errno));
        rc = read_line(file, passphrase);
        fclose(file);
        return rc ? xlv_fail(&run->e, XLV_E_INVALID, "the first line of %s is no passphrase of 1 "
                             "to %d bytes", run->passphrase_file, PASSPHRASE_MAX - 2) : 0;
    }
    if (!isatty(STDIN_FILENO))
        return xlv_fail(&run->e, XLV_E_INVALID, "there is no terminal to ask for the passphrase "
                        "at: give --passphrase-file");
    rc = ask_passphrase("Passphrase of the archive", passphrase);
    if (!rc && twice) {
        rc = ask_passphrase("The same again", again);
        if (!rc && strcmp(passphrase, again))
            rc = XLV_E_INVALID;
        explicit_bzero(again, sizeof(again));
    }
    return rc ? xlv_fail(&run->e, XLV_E_INVALID, "no passphrase, or not the same twice: nothing "
                         "was done") : 0;
}

/*
 * Files
 */

static int read_file(struct run *run, const char *path, uint8_t **data, size_t *length)
{
    int fd XLV_CLOSE = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    int rc;

    if (fd < 0 || fstat(fd, &st))
        return xlv_fail(&run->e, errno == ENOENT ? XLV_E_NOT_FOUND : -errno, "cannot read %s: %s",
                        path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_MAX)
        return xlv_fail(&run->e, XLV_E_INVALID, "%s is %s", path,
                        S_ISREG(st.st_mode) ? "larger than any TPM's state" : "no regular file");
    *length = (size_t)st.st_size;
    *data = malloc(*length + 1);
    if (!*data)
        return xlv_fail(&run->e, -ENOMEM, "no memory for %s", path);
    rc = xlv_read_all(fd, *data, *length);
    return rc ? xlv_fail(&run->e, rc, "cannot read %s: %s", path, xlv_strerror(rc)) : 0;
}

/*
 * A new file, which is whole and durable when it has its name. Until then it has none, so that
 * nothing is left of a run that is killed; on a file system that cannot do that it has another.
 */
static int write_file(struct run *run, const char *path, const uint8_t *data, size_t length)
{
    char directory[PATH_MAX], other[PATH_MAX] = "", self[40];
    const char *slash = strrchr(path, '/');
    int dirfd XLV_CLOSE = -1, fd XLV_CLOSE = -1, rc = 0;

    if ((size_t)snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path + 1) : 1,
                         slash ? path : ".") >= sizeof(directory) ||
        (size_t)snprintf(other, sizeof(other), "%s.XXXXXX", path) >= sizeof(other))
        return xlv_fail(&run->e, -ENAMETOOLONG, "the name %.80s... is too long", path);
    dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fd = dirfd < 0 ? -1 : openat(dirfd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0)
        other[0] = '\0';
    else if (dirfd >= 0 && (errno == EOPNOTSUPP || errno == EISDIR))
        fd = mkostemp(other, O_CLOEXEC);
    if (fd < 0)
        return xlv_fail(&run->e, -errno, "cannot make %s: %s", path, strerror(errno));
    rc = xlv_write_all(fd, data, length);
    if (!rc && fsync(fd))
        rc = -errno;
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    if (!rc && linkat(AT_FDCWD, other[0] ? other : self, AT_FDCWD, path, AT_SYMLINK_FOLLOW))
        rc = errno == EEXIST ? XLV_E_EXISTS : -errno;
    if (!rc && fsync(dirfd))
        rc = -errno;
    if (other[0])
        (void)unlink(other);
    if (rc == XLV_E_EXISTS)
        return xlv_fail(&run->e, rc, "%s exists, and is not written over", path);
    return rc ? xlv_fail(&run->e, rc, "cannot write %s: %s", path, xlv_strerror(rc)) : 0;
}

/* "-" is standard output. */
static int put_file(struct run *run, const char *path, const uint8_t *data, size_t length)
{
    int rc;

    if (strcmp(path, "-"))
        return write_file(run, path, data, length);
    if (isatty(STDOUT_FILENO))
        return xlv_fail(&run->e, XLV_E_INVALID, "a TPM is not written to a terminal");
    rc = xlv_write_all(STDOUT_FILENO, data, length);
    return rc ? xlv_fail(&run->e, rc, "cannot write: %s", xlv_strerror(rc)) : 0;
}

static int no_passphrase(struct run *run)
{
    return run->passphrase_file
               ? xlv_fail(&run->e, XLV_E_INVALID, "a state file of swtpm has a --swtpm-key, or "
                          "none, but no passphrase") : 0;
}

/*
 * export
 */

static int to_swtpm(struct run *run, const struct xlv_archive *a, uint8_t **file, size_t *length)
{
    struct xlv_swtpm_key key = { .length = 0 };
    struct xlv_container c;
    int rc = run->swtpm_key ? xlv_swtpm_key(run->swtpm_key, &key, &run->e) : 0;

    if (!rc)
        rc = xlv_container_read(a->container, a->length, &c, &run->e);
    if (!rc)
        rc = xlv_swtpm_write(c.permall, c.permall_length, &key, file, length, &run->e);
    explicit_bzero(&key, sizeof(key));
    return rc;
}

static int to_archive(struct run *run, const struct xlv_archive *a, uint8_t **file, size_t *length)
{
    char passphrase[PASSPHRASE_MAX];
    int rc = get_passphrase(run, true, passphrase);

    if (!rc)
        rc = xlv_archive_seal(a, passphrase, file, length, &run->e);
    explicit_bzero(passphrase, sizeof(passphrase));
    return rc;
}

int run_export(struct run *run, struct json_object **result)
{
    const char *path = run->args[1];
    struct xlv_archive a = { .time_s = (uint64_t)time(NULL) };
    struct xlv_instance instance = { .number = 0 };
    struct xlv_states states = { .registry = NULL };
    struct json_object *shown = NULL;
    uint8_t *file = NULL;
    size_t length = 0;
    int rc;

    if (run->swtpm_key && !run->swtpm)
        return xlv_fail(&run->e, XLV_E_INVALID, "--swtpm-key goes with --swtpm");
    rc = run->swtpm ? no_passphrase(run) : 0;
    if (rc)
        return rc;
    rc = look_up(run, run->args[0], &shown, &a.uuid);
    if (!rc)
        rc = xlv_states_init(&states, run->settings, false, &run->e);
    if (!rc)
        rc = xlv_registry_get(states.registry, &a.uuid, &instance, &run->e);
    if (!rc)
        rc = xlv_states_read(&states, &instance, &a.container, &a.length, &run->e);
    if (!rc) {
        a.version = instance.tpm_version;
        memcpy(a.label, instance.label, sizeof(a.label));
        rc = run->swtpm ? to_swtpm(run, &a, &file, &length) : to_archive(run, &a, &file, &length);
    }
    if (!rc)
        rc = put_file(run, path, file, length);
    if (!rc && strcmp(path, "-")) {
        *result = json_object_new_object();
        put(*result, "file", json_object_new_string(path));
        put(*result, "format", json_object_new_string(run->swtpm ? "swtpm" : "archive"));
        put(*result, "encrypted", json_object_new_boolean(!run->swtpm || run->swtpm_key));
        put(*result, "bytes", json_object_new_int64((int64_t)length));
        put(*result, "instance", json_object_get(shown));
        if (!run->json)
            printf("instance %s, uuid %s: %s%s\n", text_of(shown, "number", "?"),
                   text_of(shown, "uuid", "?"), path,
                   run->swtpm && !run->swtpm_key
                       ? ", not encrypted: whoever reads it has the TPM's keys" : "");
    }
    progress_stop();
    if (!rc && member(shown, "device"))
        fputs("xl-vtpm: the TPM is in use: what its guest changes from now on is not in the file\n",
              stderr);
    xlv_wipe(file, length);
    xlv_archive_deinit(&a);
    xlv_states_deinit(&states);
    json_object_put(shown);
    return rc;
}

/*
 * import
 */

/* The version is in no byte of the file, but swtpm's name for it tells. */
static int version_of(struct run *run, enum xlv_tpm_version *version)
{
    const char *slash = strrchr(run->args[0], '/'), *name = slash ? slash + 1 : run->args[0];
    const char *word = run->tpm_version;

    if (!word)
        word = !strncmp(name, "tpm2-", 5) ? "2.0" : !strncmp(name, "tpm-", 4) ? "1.2" : "";
    if (!strcmp(word, "2.0"))
        *version = XLV_TPM_2_0;
    else if (!strcmp(word, "1.2"))
        *version = XLV_TPM_1_2;
    else
        return xlv_fail(&run->e, XLV_E_INVALID, "which TPM version is it? swtpm calls its files "
                        "tpm2-00.permall (2.0) and tpm-00.permall (1.2); give --tpm-version 1.2 "
                        "or 2.0");
    return 0;
}

static int from_swtpm(struct run *run, const uint8_t *file, size_t length, struct xlv_archive *a)
{
    struct xlv_swtpm_key key = { .length = 0 };
    struct xlv_container c = { .permall = NULL };
    uint8_t *permall = NULL;
    int rc = no_passphrase(run);

    if (!rc)
        rc = version_of(run, &a->version);
    if (!rc && run->swtpm_key)
        rc = xlv_swtpm_key(run->swtpm_key, &key, &run->e);
    if (!rc)
        rc = xlv_swtpm_read(file, length, &key, &permall, &c.permall_length, &run->e);
    if (!rc) {
        c.version = a->version;
        c.permall = permall;
        rc = xlv_container_write(&c, &a->container, &a->length, &run->e);
    }
    explicit_bzero(&key, sizeof(key));
    xlv_wipe(permall, c.permall_length);
    if (!rc)
        xlv_uuid_generate(&a->uuid);
    return rc;
}

static int from_archive(struct run *run, const uint8_t *file, size_t length,
                        struct xlv_archive *a)
{
    char passphrase[PASSPHRASE_MAX];
    int rc;

    if (run->swtpm_key || run->tpm_version)
        return xlv_fail(&run->e, XLV_E_INVALID, "it is an archive of xl-vtpm: it has a passphrase, "
                        "and says itself which TPM is in it");
    rc = get_passphrase(run, false, passphrase);
    if (!rc)
        rc = xlv_archive_open(file, length, passphrase, a, &run->e);
    explicit_bzero(passphrase, sizeof(passphrase));
    return rc;
}

/* The state has shown that it is one: now it gets its place. */
static int adopt(struct run *run, const struct xlv_archive *a, const uint8_t *state, size_t length)
{
    struct xlv_states states = { .registry = NULL };
    struct xlv_instance instance;
    char text[XLV_UUID_TEXT];
    int rc = xlv_states_init(&states, run->settings, true, &run->e);

    if (!rc)
        rc = xlv_states_adopt(&states, &a->uuid, a->version, run->label ? run->label : a->label,
                              state, length, &instance, &run->e);
    if (rc == XLV_E_EXISTS && !run->replace) {
        xlv_error_clear(&run->e);
        xlv_fail(&run->e, rc, "there is an instance with the uuid %s: --replace puts this TPM in "
                 "the place of its, another UUID behind the file makes another instance",
                 xlv_uuid_format(&a->uuid, text));
    } else if (rc == XLV_E_EXISTS) {
        xlv_error_clear(&run->e);
        rc = refuse_if_served(run, &a->uuid);
        if (!rc)
            rc = xlv_states_replace(&states, &a->uuid, a->version, state, length, &instance,
                                    &run->e);
        if (!rc && run->label)
            rc = xlv_registry_set_label(states.registry, instance.number, run->label, &run->e);
    }
    xlv_states_deinit(&states);
    return rc;
}

int run_import(struct run *run, struct json_object **result)
{
    const char *path = run->args[0];
    struct xlv_archive a = { .length = 0 };
    uint8_t *file = NULL, *state = NULL;
    size_t length = 0, state_length = 0;
    char text[XLV_UUID_TEXT], why[XLV_TEXT_MAX];
    struct json_object *request;
    int rc = read_file(run, path, &file, &length);

    if (!rc) {
        rc = xlv_archive_is(file, length) ? from_archive(run, file, length, &a)
                                          : from_swtpm(run, file, length, &a);
        if (!rc && run->count > 1 && xlv_uuid_parse(&a.uuid, run->args[1]))
            rc = xlv_fail(&run->e, XLV_E_INVALID, "\"%.80s\" is no uuid", run->args[1]);
        if (!rc)
            rc = xlv_task(run->settings, XLV_LAUNCH_TRY, a.version, a.container, a.length, &state,
                          &state_length, &run->e);
        if (rc) {
            memcpy(why, run->e.text, sizeof(why));
            xlv_error_clear(&run->e);
            xlv_fail(&run->e, rc, "%.80s: %.420s; nothing was imported", path,
                     why[0] ? why : xlv_strerror(rc));
        }
    }
    if (!rc)
        rc = adopt(run, &a, state, state_length);
    xlv_wipe(file, length);
    xlv_wipe(state, state_length);
    if (!rc) {
        note_identity_or_warn(run, xlv_uuid_format(&a.uuid, text));
        request = request_of("show");
        put(request, "uuid", json_object_new_string(text));
        rc = ask(run, request, result);
    }
    if (!rc && !run->json)
        puts(text_of(*result, "uuid", "?"));
    xlv_archive_deinit(&a);
    return rc;
}

/*
 * clear
 */

int run_clear(struct run *run, struct json_object **result)
{
    struct xlv_states states = { .registry = NULL };
    struct xlv_instance instance;
    struct xlv_uuid uuid;
    char question[XLV_TEXT_MAX];
    int rc = look_up(run, run->args[0], result, &uuid);

    if (!rc)
        rc = refuse_if_served(run, &uuid);
    if (rc)
        return rc;
    snprintf(question, sizeof(question), "The TPM of instance %s (%s) is cleared: owner, passwords, "
             "keys and what is sealed to them are gone for ever. Its endorsement key stays.",
             text_of(*result, "number", "?"), text_of(*result, "uuid", "?"));
    rc = confirm(run, question);
    if (!rc)
        rc = xlv_states_init(&states, run->settings, false, &run->e);
    if (!rc)
        rc = xlv_states_clear(&states, &uuid, &instance, &run->e);
    xlv_states_deinit(&states);
    if (!rc && !run->json)
        printf("instance %s, uuid %s: its TPM has no owner now\n", text_of(*result, "number", "?"),
               text_of(*result, "uuid", "?"));
    return rc;
}
