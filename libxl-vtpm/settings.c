/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Settings: see settings.h. A table of keys, each with a function that takes
 * the value; what is derived from other values (the default key file, the
 * user that may or may not exist) is filled in after the whole file is read.
 */
#include "config.h"

#include "libxl-vtpm/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

#define DEFAULT_PATH XLV_SYSCONFDIR "/xen/xl-vtpm.conf"
#define DEFAULT_USER "xl-vtpm"
/* A range that nobody else gives away: above what useradd takes for subordinate uids (up to
 * 600100000) and systemd for containers (up to 1879048191); -1 is no uid. */
#define UID_BASE 2013265920u
#define UID_COUNT 65536u
#define UID_LAST 4294967294u
#define DAYS_MAX 36500u /* a hundred years */

/* Where a value stands, for its error. */
struct place {
    const char *path;
    unsigned line;
    const char *key;
};

static int bad(const struct place *at, struct xlv_error *e, const char *value, const char *want)
{
    return xlv_fail(e, XLV_E_INVALID, "%s:%u: %s = %s: %s", at->path, at->line, at->key, value,
                    want);
}

static int replace(char **field, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

/* Absolute, and written as it is meant: quotes are the usual mistake. */
static int path_value(char **field, const char *value, const struct place *at, struct xlv_error *e)
{
    if (value[0] != '/')
        return bad(at, e, value, "an absolute path is needed, without quotes");
    return replace(field, value);
}

static int set_state_dir(struct xlv_settings *s, const char *value, const struct place *at,
                         struct xlv_error *e)
{
    return path_value(&s->state_dir, value, at, e);
}

static int set_shared_dir(struct xlv_settings *s, const char *value, const struct place *at,
                          struct xlv_error *e)
{
    return value[0] ? path_value(&s->shared_dir, value, at, e) : replace(&s->shared_dir, "");
}

static int set_run_dir(struct xlv_settings *s, const char *value, const struct place *at,
                       struct xlv_error *e)
{
    return path_value(&s->run_dir, value, at, e);
}

static int set_backend_program(struct xlv_settings *s, const char *value, const struct place *at,
                               struct xlv_error *e)
{
    return path_value(&s->backend_program, value, at, e);
}

/* Whether there is such a user: 0, XLV_E_NOT_FOUND or -errno. */
static int find_user(const char *name)
{
    char room[16384]; /* getpwnam() is not for a library that threads may use */
    struct passwd user, *found = NULL;
    int number = getpwnam_r(name, &user, room, sizeof(room), &found);

    if (found)
        return 0;
    /* getpwnam(3): several numbers mean that there is none */
    return number == 0 || number == ENOENT || number == ESRCH || number == EBADF ||
                   number == EPERM
               ? XLV_E_NOT_FOUND
               : -number;
}

static int set_backend_user(struct xlv_settings *s, const char *value, const struct place *at,
                            struct xlv_error *e)
{
    int rc = value[0] ? find_user(value) : 0;

    if (rc == XLV_E_NOT_FOUND)
        return bad(at, e, value, "there is no such user; make it, or leave the value empty to run "
                                 "backends as the daemon's own user");
    if (rc)
        return xlv_fail(e, rc, "%s:%u: the user database cannot be read: %s", at->path, at->line,
                        strerror(-rc));
    return replace(&s->backend_user, value);
}

static int set_control_group(struct xlv_settings *s, const char *value, const struct place *at,
                             struct xlv_error *e)
{
    char room[16384];
    struct group group, *found = NULL;

    if (value[0] && (getgrnam_r(value, &group, room, sizeof(room), &found) || !found))
        return bad(at, e, value, "there is no such group");
    return replace(&s->control_group, value);
}

/* Digits only, 0 to most. */
static int number_value(uint32_t *field, const char *value, uint32_t most, const char *want,
                        const struct place *at, struct xlv_error *e)
{
    uint64_t number = 0;
    const char *p = value;

    for (; *p >= '0' && *p <= '9' && number <= most; p++)
        number = 10 * number + (uint64_t)(*p - '0');
    if (p == value || *p || number > most)
        return bad(at, e, value, want);
    *field = (uint32_t)number;
    return 0;
}

static int set_backend_uid_base(struct xlv_settings *s, const char *value, const struct place *at,
                                struct xlv_error *e)
{
    return number_value(&s->backend_uid_base, value, UID_LAST, "a uid is needed, or 0 to run all "
                        "backends as backend-user", at, e);
}

static int set_backend_uid_count(struct xlv_settings *s, const char *value, const struct place *at,
                                 struct xlv_error *e)
{
    int rc = number_value(&s->backend_uid_count, value, UID_LAST, "a number of uids is needed", at,
                          e);

    return rc || s->backend_uid_count ? rc : bad(at, e, value, "a number of uids is needed");
}

static int set_deleted_kept(struct xlv_settings *s, const char *value, const struct place *at,
                            struct xlv_error *e)
{
    return number_value(&s->deleted_kept_days, value, DAYS_MAX, "a number of days is needed", at, e);
}

static int set_default_tpm_version(struct xlv_settings *s, const char *value,
                                   const struct place *at, struct xlv_error *e)
{
    if (!strcmp(value, "2.0"))
        s->default_tpm_version = XLV_TPM_2_0;
    else if (!strcmp(value, "1.2"))
        s->default_tpm_version = XLV_TPM_1_2;
    else
        return bad(at, e, value, "2.0 or 1.2 is needed");
    return 0;
}

static int set_unknown_uuid(struct xlv_settings *s, const char *value, const struct place *at,
                            struct xlv_error *e)
{
    if (!strcmp(value, "assign"))
        s->unknown_uuid = XLV_UNKNOWN_UUID_ASSIGN;
    else if (!strcmp(value, "refuse"))
        s->unknown_uuid = XLV_UNKNOWN_UUID_REFUSE;
    else
        return bad(at, e, value, "assign or refuse is needed");
    return 0;
}

static int set_late_attach(struct xlv_settings *s, const char *value, const struct place *at,
                           struct xlv_error *e)
{
    if (strcmp(value, "allow") && strcmp(value, "refuse"))
        return bad(at, e, value, "allow or refuse is needed");
    s->refuse_late_attach = !strcmp(value, "refuse");
    return 0;
}

static int set_untold_boot(struct xlv_settings *s, const char *value, const struct place *at,
                           struct xlv_error *e)
{
    if (strcmp(value, "refuse") && strcmp(value, "created"))
        return bad(at, e, value, "refuse or created is needed");
    s->untold_is_created = !strcmp(value, "created");
    return 0;
}

static int set_measure_boot(struct xlv_settings *s, const char *value, const struct place *at,
                            struct xlv_error *e)
{
    if (strcmp(value, "on") && strcmp(value, "off"))
        return bad(at, e, value, "on or off is needed");
    s->measure_boot = !strcmp(value, "on");
    return 0;
}

static int set_domain_config_dir(struct xlv_settings *s, const char *value,
                                 const struct place *at, struct xlv_error *e)
{
    return path_value(&s->domain_config_dir, value, at, e);
}

static int set_max_locality(struct xlv_settings *s, const char *value, const struct place *at,
                            struct xlv_error *e)
{
    if (strlen(value) != 1 || value[0] < '0' || value[0] > '0' + (int)XLV_LOCALITY_MAX)
        return bad(at, e, value, "a number from 0 to 4 is needed");
    s->max_locality = (unsigned)(value[0] - '0');
    return 0;
}

/* "sha256, sha384": at least one, none twice. */
static int set_pcr_banks(struct xlv_settings *s, const char *value, const struct place *at,
                         struct xlv_error *e)
{
    static const struct {
        const char *name;
        uint32_t bank;
    } names[] = {
        { "sha1", XLV_BANK_SHA1 },
        { "sha256", XLV_BANK_SHA256 },
        { "sha384", XLV_BANK_SHA384 },
        { "sha512", XLV_BANK_SHA512 },
    };
    uint32_t banks = 0;

    for (const char *p = value; *p;) {
        size_t length = strcspn(p, ", \t"), i;

        for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            if (strlen(names[i].name) == length && !strncmp(p, names[i].name, length))
                break;
        if (i == sizeof(names) / sizeof(names[0]) || (banks & names[i].bank))
            return bad(at, e, value, "one or more of sha1, sha256, sha384, sha512 are needed, with "
                                     "commas between them");
        banks |= names[i].bank;
        p += length;
        p += strspn(p, ", \t");
    }
    s->pcr_banks = banks;
    return 0;
}

static int set_master_key(struct xlv_settings *s, const char *value, const struct place *at,
                          struct xlv_error *e)
{
    static const char file[] = "file:", credential[] = "credential:";

    if (!strcmp(value, "none")) {
        s->key_provider = XLV_KEY_NONE;
        return replace(&s->key_source, "");
    }
    if (!strncmp(value, file, strlen(file)) && value[strlen(file)] == '/') {
        s->key_provider = XLV_KEY_FILE;
        return replace(&s->key_source, value + strlen(file));
    }
    if (!strncmp(value, credential, strlen(credential)) && value[strlen(credential)] &&
        !strchr(value, '/')) {
        s->key_provider = XLV_KEY_CREDENTIAL;
        return replace(&s->key_source, value + strlen(credential));
    }
    return bad(at, e, value, "file:/ABSOLUTE/PATH, credential:NAME or none is needed");
}

static int set_ca_key(struct xlv_settings *s, const char *value, const struct place *at,
                      struct xlv_error *e)
{
    size_t scheme = strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789+-.");

    if (!strcmp(value, "none"))
        return replace(&s->ca_key, "");
    if (!scheme || value[scheme] != ':' || !value[scheme + 1] ||
        (!strncmp(value, "file:", 5) && value[5] != '/'))
        return bad(at, e, value, "file:/ABSOLUTE/PATH, another URI (pkcs11:...) or none is needed");
    return replace(&s->ca_key, value);
}

static int set_ca_certificate(struct xlv_settings *s, const char *value, const struct place *at,
                              struct xlv_error *e)
{
    return path_value(&s->ca_certificate, value, at, e);
}

/* As they go into certificates, by way of OpenSSL's notation, which has commas and semicolons. */
static int url_value(char **field, const char *value, const struct place *at, struct xlv_error *e)
{
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                               "-._~:/?#[]@!$&'()*+=%";

    if (value[0] && ((strncmp(value, "http://", 7) && strncmp(value, "https://", 8) &&
                      strncmp(value, "ldap://", 7)) || value[strspn(value, good)]))
        return bad(at, e, value, "a URL (http, https or ldap) without commas and semicolons is "
                                 "needed");
    return replace(field, value);
}

static int set_ca_issuer_url(struct xlv_settings *s, const char *value, const struct place *at,
                             struct xlv_error *e)
{
    return url_value(&s->ca_issuer_url, value, at, e);
}

static int set_ca_crl_url(struct xlv_settings *s, const char *value, const struct place *at,
                          struct xlv_error *e)
{
    return url_value(&s->ca_crl_url, value, at, e);
}

static int set_log_level(struct xlv_settings *s, const char *value, const struct place *at,
                         struct xlv_error *e)
{
    if (xlv_log_level_parse(&s->log_level, value))
        return bad(at, e, value, "error, warning, notice, info or debug is needed");
    return 0;
}

static const struct {
    const char *name;
    bool may_be_empty;
    int (*set)(struct xlv_settings *s, const char *value, const struct place *at,
               struct xlv_error *e);
} keys[] = {
    { "state-dir", false, set_state_dir },
    { "shared-dir", true, set_shared_dir },
    { "run-dir", false, set_run_dir },
    { "backend-program", false, set_backend_program },
    { "backend-user", true, set_backend_user },
    { "control-group", true, set_control_group },
    { "backend-uid-base", false, set_backend_uid_base },
    { "backend-uid-count", false, set_backend_uid_count },
    { "default-tpm-version", false, set_default_tpm_version },
    { "unknown-uuid", false, set_unknown_uuid },
    { "late-attach", false, set_late_attach },
    { "deleted-kept", false, set_deleted_kept },
    { "untold-boot", false, set_untold_boot },
    { "measure-boot", false, set_measure_boot },
    { "domain-config-dir", false, set_domain_config_dir },
    { "max-locality", false, set_max_locality },
    { "pcr-banks", false, set_pcr_banks },
    { "master-key", false, set_master_key },
    { "ca-key", false, set_ca_key },
    { "ca-certificate", false, set_ca_certificate },
    { "ca-issuer-url", true, set_ca_issuer_url },
    { "ca-crl-url", true, set_ca_crl_url },
    { "log-level", false, set_log_level },
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

/* The built-in values that depend on nothing else. */
static int start(struct xlv_settings *s)
{
    *s = (struct xlv_settings){
        .shared_dir = strdup(""),
        .state_dir = strdup(XLV_LOCALSTATEDIR "/lib/xl-vtpm"),
        .run_dir = strdup(XLV_RUNSTATEDIR "/xl-vtpm"),
        .backend_program = strdup(XLV_LIBEXECDIR "/xl-vtpm/vtpm-backend"),
        .control_group = strdup(""),
        .ca_issuer_url = strdup(""),
        .ca_crl_url = strdup(""),
        .domain_config_dir = strdup("/var/lib/xen"),
        .backend_uid_base = UID_BASE,
        .backend_uid_count = UID_COUNT,
        .default_tpm_version = XLV_TPM_2_0,
        .unknown_uuid = XLV_UNKNOWN_UUID_ASSIGN,
        .max_locality = 0,
        .pcr_banks = XLV_BANK_SHA256,
        .deleted_kept_days = 30,
        .key_provider = XLV_KEY_FILE,
        .log_level = XLV_LOG_INFO,
    };
    if (s->shared_dir && s->state_dir && s->run_dir && s->backend_program && s->control_group &&
        s->ca_issuer_url && s->ca_crl_url && s->domain_config_dir)
        return 0;
    xlv_settings_deinit(s);
    return -ENOMEM;
}

/* The rest: what was not set and depends on what was, or on the machine. -ENOMEM. */
static int finish(struct xlv_settings *s)
{
    if (!s->backend_user)
        s->backend_user = strdup(find_user(DEFAULT_USER) == 0 ? DEFAULT_USER : "");
    if (!s->key_source && asprintf(&s->key_source, "%s/master.key", s->state_dir) < 0)
        s->key_source = NULL;
    if (!s->ca_key && asprintf(&s->ca_key, "file:%s/ca.key", s->state_dir) < 0)
        s->ca_key = NULL;
    if (!s->ca_certificate && asprintf(&s->ca_certificate, "%s/ca.pem", s->state_dir) < 0)
        s->ca_certificate = NULL;
    return s->backend_user && s->key_source && s->ca_key && s->ca_certificate ? 0 : -ENOMEM;
}

int xlv_settings_init(struct xlv_settings *settings)
{
    int rc = start(settings);

    if (rc)
        return rc;
    rc = finish(settings);
    if (rc)
        xlv_settings_deinit(settings);
    return rc;
}

void xlv_settings_deinit(struct xlv_settings *settings)
{
    free(settings->shared_dir);
    free(settings->state_dir);
    free(settings->run_dir);
    free(settings->backend_program);
    free(settings->backend_user);
    free(settings->control_group);
    free(settings->domain_config_dir);
    free(settings->key_source);
    free(settings->ca_key);
    free(settings->ca_certificate);
    free(settings->ca_issuer_url);
    free(settings->ca_crl_url);
    *settings = (struct xlv_settings){ .state_dir = NULL };
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts blanks at both ends, in place. */
static char *trim(char *text)
{
    char *end;

    while (blank(*text))
        text++;
    end = text + strlen(text);
    while (end > text && blank(end[-1]))
        end--;
    *end = '\0';
    return text;
}

/* One line, NUL-terminated, may be changed. seen: the line of each key so far. */
static int take_line(struct xlv_settings *s, char *line, struct place *at, unsigned seen[KEYS],
                     struct xlv_error *e)
{
    char *equals, *key, *value;
    size_t i;
    int rc;

    if (strlen(line) > XLV_CONFIG_LINE_MAX)
        return xlv_fail(e, XLV_E_INVALID, "%s:%u: the line is longer than %u bytes", at->path,
                        at->line, XLV_CONFIG_LINE_MAX);
    line = trim(line);
    if (!*line || *line == '#')
        return 0;
    for (const char *p = line; *p; p++)
        if ((unsigned char)*p < ' ' && *p != '\t')
            return xlv_fail(e, XLV_E_INVALID, "%s:%u: there is a control character in the line",
                            at->path, at->line);
    equals = strchr(line, '=');
    if (!equals)
        return xlv_fail(e, XLV_E_INVALID, "%s:%u: \"%.80s\" has no '='; lines are \"key = value\"",
                        at->path, at->line, line);
    *equals = '\0';
    key = trim(line);
    value = trim(equals + 1);
    for (i = 0; i < KEYS; i++)
        if (!strcmp(key, keys[i].name))
            break;
    if (i == KEYS)
        return xlv_fail(e, XLV_E_INVALID,
                        "%s:%u: unknown key \"%.80s\"; xl-vtpm.conf(5) lists those there are",
                        at->path, at->line, key);
    if (seen[i])
        return xlv_fail(e, XLV_E_INVALID, "%s:%u: %s is set already in line %u", at->path,
                        at->line, key, seen[i]);
    seen[i] = at->line;
    at->key = key;
    if (!*value && !keys[i].may_be_empty)
        return bad(at, e, "", "a value is needed");
    if (strstr(value, " #") || strstr(value, "\t#"))
        return bad(at, e, value, "a comment needs a line of its own");
    rc = keys[i].set(s, value, at, e);
    return rc == -ENOMEM ? xlv_fail(e, rc, "no memory to read %s", at->path) : rc;
}

static int read_file(int fd, const char *path, char **text, size_t *length, struct xlv_error *e)
{
    char *data XLV_FREE = NULL;
    struct stat st;
    int rc;

    if (fstat(fd, &st) < 0)
        return xlv_fail(e, -errno, "%s cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return xlv_fail(e, XLV_E_INVALID, "%s is not a file", path);
    if (st.st_size > (off_t)XLV_CONFIG_FILE_MAX)
        return xlv_fail(e, XLV_E_INVALID, "%s is larger than %u bytes; that is no configuration",
                        path, XLV_CONFIG_FILE_MAX);
    data = malloc((size_t)st.st_size + 1);
    if (!data)
        return xlv_fail(e, -ENOMEM, "no memory to read %s", path);
    rc = xlv_read_all(fd, data, (size_t)st.st_size);
    if (rc)
        return xlv_fail(e, rc, "%s cannot be read: %s", path, strerror(-rc));
    data[st.st_size] = '\0';
    if (strlen(data) != (size_t)st.st_size)
        return xlv_fail(e, XLV_E_INVALID, "%s has a NUL byte in it; that is no configuration",
                        path);
    *length = (size_t)st.st_size;
    *text = data;
    data = NULL;
    return 0;
}

int xlv_settings_load(struct xlv_settings *settings, const char *path, struct xlv_error *e)
{
    struct place at = { .path = path ? path : DEFAULT_PATH };
    unsigned seen[KEYS] = { 0 };
    char *text XLV_FREE = NULL;
    int fd XLV_CLOSE = -1;
    size_t length = 0;
    int rc;

    rc = start(settings);
    if (rc)
        return xlv_fail(e, rc, "no memory for the settings");
    fd = open(at.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && (path || errno != ENOENT)) {
        rc = xlv_fail(e, errno == ENOENT ? XLV_E_NOT_FOUND : -errno,
                      "the configuration file %s cannot be opened: %s", at.path, strerror(errno));
        goto out;
    }
    if (fd >= 0) {
        rc = read_file(fd, at.path, &text, &length, e);
        for (char *line = text, *next; !rc && line; line = next) {
            next = strchr(line, '\n');
            if (next)
                *next++ = '\0';
            at.line++;
            rc = take_line(settings, line, &at, seen, e);
        }
    }
    if (!rc && settings->backend_uid_base &&
        settings->backend_uid_count - 1 > UID_LAST - settings->backend_uid_base)
        rc = xlv_fail(e, XLV_E_INVALID, "%s: there are no %u uids from backend-uid-base = %u on",
                      at.path, settings->backend_uid_count, settings->backend_uid_base);
    if (!rc) {
        rc = finish(settings);
        if (rc)
            xlv_fail(e, rc, "no memory for the settings");
    }
out:
    if (rc)
        xlv_settings_deinit(settings);
    return rc;
}

void xlv_settings_journal(const struct xlv_settings *settings, uint64_t number,
                          char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/journal/%" PRIu64, settings->run_dir, number);
}

int xlv_settings_shared(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                    char path[XLV_DIRECTORY_MAX + 1], struct xlv_error *e)
{
    char text[XLV_UUID_TEXT];

    if (!settings->shared_dir[0])
        return xlv_fail(e, XLV_E_INVALID, "this host has no shared-dir in its configuration, see "
                        "xl-vtpm.conf(5)");
    if (snprintf(path, XLV_DIRECTORY_MAX + 1, "%s/%s", settings->shared_dir,
                 xlv_uuid_format(uuid, text)) > (int)XLV_DIRECTORY_MAX)
        return xlv_fail(e, XLV_E_INVALID, "shared-dir is too long a path");
    return 0;
}
