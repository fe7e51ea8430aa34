/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting vtpm-backend: see spawn.h. */
#include "config.h"

#include "libxl-vtpm/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/launch.h"

/* What a backend has no use for, and could only mistake for its own. */
static char **child_environment(void)
{
    static const char *const not_theirs[] = {
        "NOTIFY_SOCKET=", "WATCHDOG_PID=",  "WATCHDOG_USEC=",          "LISTEN_PID=",
        "LISTEN_FDS=",    "LISTEN_FDNAMES=", "CREDENTIALS_DIRECTORY=",
    };
    size_t n = 0, k = 0;
    char **list;

    while (environ[n])
        n++;
    list = calloc(n + 1, sizeof(*list));
    if (!list)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        bool keep = true;

        for (size_t j = 0; j < sizeof(not_theirs) / sizeof(not_theirs[0]); j++)
            if (!strncmp(environ[i], not_theirs[j], strlen(not_theirs[j])))
                keep = false;
        if (keep)
            list[k++] = environ[i];
    }
    return list;
}

int xlv_spawn_backend(const char *program, int socket, bool quiet, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char *argv[] = { (char *)"vtpm-backend", NULL };
    char **environment = child_environment();
    sigset_t none, all;
    int r;

    if (!environment)
        return -ENOMEM;
    r = posix_spawn_file_actions_init(&actions);
    if (r) {
        free(environment);
        return -r;
    }
    r = posix_spawnattr_init(&attributes);
    if (r) {
        posix_spawn_file_actions_destroy(&actions);
        free(environment);
        return -r;
    }
    sigemptyset(&none);
    sigfillset(&all);
    if ((r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)) == 0 &&
        (!quiet ||
         (r = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)) == 0) &&
        (r = posix_spawn_file_actions_adddup2(&actions, 2, 1)) == 0 &&
        (r = posix_spawn_file_actions_adddup2(&actions, socket, XLV_LAUNCH_FD)) == 0 &&
        (r = posix_spawn_file_actions_addclosefrom_np(&actions, XLV_LAUNCH_FD + 1)) == 0 &&
        (r = posix_spawnattr_setsigmask(&attributes, &none)) == 0 &&
        (r = posix_spawnattr_setsigdefault(&attributes, &all)) == 0 &&
        /* a session of its own: ^C at a daemon in the foreground is not for the backends */
        (r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK |
                                                       POSIX_SPAWN_SETSIGDEF |
                                                       POSIX_SPAWN_SETSID)) == 0)
        r = posix_spawn(pid, program, &actions, &attributes, argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(environment);
    return -r;
}
