/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In the place of the kernel's pidfds, for an xl-vtpmd that runs in valgrind, which knows none of
 * them in Debian 12: a pipe that a thread writes to when the process has ended. The process is found
 * by its pid, which a test's few processes do not use twice. A test program: never installed.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 1024

struct watch {
    pid_t pid;
    int fd;
};

static _Atomic pid_t pid_of[DESCRIPTORS];

static int wait_for(idtype_t type, id_t id, siginfo_t *info, int options)
{
    return (int)syscall(SYS_waitid, type, id, info, options, NULL);
}

/* A zombie of another parent's is one that this parent reaps soon. */
static void *watch_process(void *opaque)
{
    struct watch *w = opaque;
    siginfo_t info;
    int rc;

    do
        rc = wait_for(P_PID, (id_t)w->pid, &info, WEXITED | WNOWAIT);
    while (rc && errno == EINTR);
    while (rc && kill(w->pid, 0) == 0) {
        const struct timespec step = { .tv_nsec = 2000000 };

        (void)nanosleep(&step, NULL);
    }
    /* EPIPE: nobody watches it any more */
    (void)!write(w->fd, "", 1);
    close(w->fd);
    free(w);
    return NULL;
}

int pidfd_open(pid_t pid, unsigned int flags)
{
    struct watch *w;
    pthread_t thread;
    sigset_t all, old;
    int ends[2], rc;

    (void)flags;
    if (kill(pid, 0) < 0)
        return -1;
    w = malloc(sizeof(*w));
    if (!w || pipe2(ends, O_CLOEXEC) < 0) {
        free(w);
        return -1;
    }
    if (ends[0] >= DESCRIPTORS)
        abort();
    *w = (struct watch){ .pid = pid, .fd = ends[1] };
    atomic_store(&pid_of[ends[0]], pid);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&thread, NULL, watch_process, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        abort();
    pthread_detach(thread);
    return ends[0];
}

int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned int flags)
{
    (void)info;
    (void)flags;
    return kill(atomic_load(&pid_of[pidfd]), sig);
}

int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    if (type != P_PIDFD)
        return wait_for(type, id, info, options);
    return wait_for(P_PID, (id_t)atomic_load(&pid_of[id]), info, options);
}
