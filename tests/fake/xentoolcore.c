/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xentoolcore.c - fake libxentoolcore.so.1: the list of open handles and its restriction.
 *
 * xentoolcore_restrict_all() asks every registered handle to confine itself to one domain, and
 * stops at the first that cannot, as the real one. What that means for each handle is in
 * xenevtchn.c, xengnttab.c and xenstore.c.
 */
#include "config.h"

#include "toolcore.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "client.h"

static struct fx_active_handle *handles;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void xentoolcore__register_active_handle(struct fx_active_handle *ah)
{
    pthread_mutex_lock(&lock);
    ah->next = handles;
    ah->prev = &handles;
    if (handles)
        handles->prev = &ah->next;
    handles = ah;
    pthread_mutex_unlock(&lock);
}

void xentoolcore__deregister_active_handle(struct fx_active_handle *ah)
{
    pthread_mutex_lock(&lock);
    *ah->prev = ah->next;
    if (ah->next)
        ah->next->prev = ah->prev;
    pthread_mutex_unlock(&lock);
}

int xentoolcore_restrict_all(domid_t domid)
{
    int r = 0;

    if (fxc_fault("xentoolcore_restrict_all", fxc_domid()))
        return -1;
    pthread_mutex_lock(&lock);
    for (struct fx_active_handle *ah = handles; ah && !r; ah = ah->next)
        r = ah->restrict_callback(ah, domid);
    pthread_mutex_unlock(&lock);
    return r ? -1 : 0;
}

int xentoolcore__restrict_by_dup2_null(int fd)
{
    int null, r, e;

    if (fd < 0)
        return 0;
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0)
        return -1;
    r = dup2(null, fd);
    e = errno;
    close(null);
    errno = e;
    return r < 0 ? -1 : 0;
}
