/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What another process runs: see process.h. */
#include "config.h"

#include "common/process.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool ends_with(const char *path, const char *end)
{
    size_t length = strlen(path), n = strlen(end);

    return n <= length && !strcmp(path + length - n, end);
}

bool xlv_process_runs(pid_t pid, const char *program)
{
    static const char deleted[] = " (deleted)";
    char link[64], target[PATH_MAX], real[PATH_MAX];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/%ld/exe", (long)pid);
    n = readlink(link, target, sizeof(target) - 1);
    if (n <= 0 || target[0] != '/')
        return false;
    target[n] = '\0';
    if (ends_with(target, deleted))
        target[n - (ssize_t)strlen(deleted)] = '\0';
    if (ends_with(program, target))
        return true;
    return realpath(program, real) && ends_with(real, target);
}
