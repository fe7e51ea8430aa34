/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a domain was booted with: see booted.h. */
#include "config.h"

#include "libxl-vtpm/booted.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "common/fd.h"

void xlv_booted_deinit(struct xlv_booted *booted)
{
    xlv_close(&booted->kernel_fd);
    xlv_close(&booted->ramdisk_fd);
    *booted = (struct xlv_booted)XLV_BOOTED_INIT;
}

static int open_file(const char *path, const char *what, int *fd, struct stat *st,
                     struct xlv_error *e)
{
    /* O_NONBLOCK: a name that leads to a pipe shall not stop the daemon */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0 || fstat(*fd, st) < 0)
        return xlv_fail(e, -errno, "%s %s cannot be opened: %s%s", what, path, strerror(errno),
                        errno == ENOENT && !strncmp(path, "/tmp/", 5)
                            ? " (a service of systemd has a /tmp of its own)" : "");
    if (!S_ISREG(st->st_mode))
        return xlv_fail(e, XLV_E_INVALID, "%s %s is not a file", what, path);
    return 0;
}

static int read_note(const char *directory, uint32_t domid, const char *domain_uuid,
                     struct json_object **json, struct xlv_error *e)
{
    char *text XLV_FREE = NULL;
    char path[PATH_MAX];
    int fd XLV_CLOSE = -1;
    struct stat st;
    int rc;

    if (!domain_uuid[0])
        return xlv_fail(e, XLV_E_NOT_FOUND, "the uuid of the domain is not known");
    if (snprintf(path, sizeof(path), "%s/userdata-d.%u.%s.libxl-json", directory, domid,
                 domain_uuid) >= (int)sizeof(path))
        return xlv_fail(e, -ENAMETOOLONG, "domain-config-dir is too long");
    rc = open_file(path, "libxl's note of the domain", &fd, &st, e);
    if (rc)
        return rc;
    if (st.st_size > (off_t)XLV_DOMAIN_CONFIG_MAX)
        return xlv_fail(e, XLV_E_INVALID, "%s is larger than %u bytes", path,
                        XLV_DOMAIN_CONFIG_MAX);
    text = malloc((size_t)st.st_size + 1);
    if (!text)
        return xlv_fail(e, -ENOMEM, "no memory to read %s", path);
    rc = xlv_read_all(fd, text, (size_t)st.st_size);
    if (rc)
        return xlv_fail(e, rc, "%s cannot be read: %s", path, xlv_strerror(rc));
    text[st.st_size] = '\0';
    *json = json_tokener_parse(text);
    return json_object_is_type(*json, json_type_object)
               ? 0 : xlv_fail(e, XLV_E_INVALID, "%s is not as libxl writes it", path);
}

static struct json_object *member(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(json, key, &value);
    return value;
}

/* "" where it is null or missing */
static const char *text_of(struct json_object *json, const char *key)
{
    struct json_object *value = member(json, key);

    return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

static int open_boot_file(const char *path, const char *what, char name[XLV_FILE_NAME_MAX + 1],
                          int *fd, struct xlv_error *e)
{
    struct stat st;

    if (path[0] != '/')
        return xlv_fail(e, XLV_E_INVALID, "%s %.200s is no absolute path", what, path);
    snprintf(name, XLV_FILE_NAME_MAX + 1, "%s", path);
    return open_file(path, what, fd, &st, e);
}

static int find(struct xlv_booted *booted, struct json_object *json, struct xlv_error *e)
{
    struct json_object *build = member(json, "b_info"), *shim;
    const char *type = text_of(member(json, "c_info"), "type");
    const char *kernel = text_of(build, "kernel"), *ramdisk = text_of(build, "ramdisk");
    const char *cmdline = text_of(build, "cmdline");
    int rc;

    if (strcmp(type, "pv") && strcmp(type, "pvh"))
        return xlv_fail(e, XLV_E_INVALID, "a guest of type \"%.16s\" is not measured, PV and PVH are",
                        type);
    if (text_of(build, "bootloader")[0])
        return xlv_fail(e, XLV_E_INVALID, "a boot loader (%.200s) chose what is booted",
                        text_of(build, "bootloader"));
    /* a defbool is a text in libxl's JSON: "True", "False" or "<default>" */
    shim = member(member(build, "type.pvh"), "pvshim");
    if (json_object_is_type(shim, json_type_string) ? !strcmp(json_object_get_string(shim), "True")
                                                    : json_object_get_boolean(shim))
        return xlv_fail(e, XLV_E_INVALID, "it is booted by the PV shim, which is not measured");
    if (!kernel[0])
        return xlv_fail(e, XLV_E_INVALID, "its configuration names no kernel");
    if (strlen(cmdline) > XLV_COMMAND_LINE_MAX)
        return xlv_fail(e, XLV_E_INVALID, "its command line is longer than %u bytes",
                        XLV_COMMAND_LINE_MAX);
    strcpy(booted->cmdline, cmdline);
    rc = open_boot_file(kernel, "the kernel", booted->kernel, &booted->kernel_fd, e);
    if (!rc && ramdisk[0])
        rc = open_boot_file(ramdisk, "the ramdisk", booted->ramdisk, &booted->ramdisk_fd, e);
    return rc;
}

int xlv_booted_find(struct xlv_booted *booted, const char *directory, uint32_t domid,
                    const char *domain_uuid, struct xlv_error *e)
{
    struct json_object *json = NULL;
    int rc;

    *booted = (struct xlv_booted)XLV_BOOTED_INIT;
    rc = read_note(directory, domid, domain_uuid, &json, e);
    if (!rc)
        rc = find(booted, json, e);
    json_object_put(json);
    if (rc)
        xlv_booted_deinit(booted);
    return rc;
}
