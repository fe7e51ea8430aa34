/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making and opening the slots of an instance: the daemon's side of store.h.
 *
 * Order of a creation, each step on stable storage before the next counts:
 * write a temporary file, fsync it, rename it to its name, then fsync the
 * directory. Under its own name a slot is therefore always whole, and a file
 * that has its name is never opened for writing here.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/store-sector.h"
#include "backend/store.h"
#include "common/fd.h"

static const char *const names[2] = { XLV_STORE_SLOT_0, XLV_STORE_SLOT_1 };
static const char *const temporaries[2] = { XLV_STORE_SLOT_0 ".new", XLV_STORE_SLOT_1 ".new" };

int xlv_store_prepare(int fd, struct xlv_error *e)
{
    uint8_t *blank XLV_FREE = malloc(XLV_STORE_SLOT_SIZE);
    int rc;

    if (!blank)
        return xlv_fail(e, -ENOMEM, "no memory for a new slot");
    xlv_sectors_blank(blank, XLV_STORE_SLOT_SIZE);
    rc = xlv_pwrite_all(fd, blank, XLV_STORE_SLOT_SIZE, 0);
    if (rc)
        return xlv_fail(e, rc, "cannot write a new slot: %s", xlv_strerror(rc));
    if (fsync(fd)) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot sync a new slot: %s", xlv_strerror(rc));
    }
    return 0;
}

/* 1: there, 0: not there, else -errno */
static int exists(int dirfd, const char *name, struct xlv_error *e)
{
    struct stat st;
    int rc;

    if (!fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
        return 1;
    if (errno == ENOENT)
        return 0;
    rc = -errno;
    return xlv_fail(e, rc, "cannot look for %s: %s", name, xlv_strerror(rc));
}

/* Whether the slot was never written to; errors count as written. */
static bool is_blank(int dirfd, const char *name)
{
    int fd XLV_CLOSE = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    uint8_t *data XLV_FREE = malloc(XLV_STORE_SLOT_SIZE);

    if (fd < 0 || !data || xlv_pread_all(fd, data, XLV_STORE_SLOT_SIZE, 0))
        return false;
    for (size_t at = 0; at < XLV_STORE_SLOT_SIZE; at += XLV_SECTOR)
        if (!xlv_sector_is_blank(data + at))
            return false;
    return true;
}

static int create_one(int dirfd, int which, struct xlv_error *e)
{
    int fd XLV_CLOSE = -1, rc;

    /* a half-made one of a killed predecessor is written anew */
    fd = openat(dirfd, temporaries[which], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                0600);
    if (fd < 0) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot create %s: %s", temporaries[which], xlv_strerror(rc));
    }
    rc = xlv_store_prepare(fd, e);
    if (rc)
        return rc;
    if (renameat(dirfd, temporaries[which], dirfd, names[which])) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot rename %s to %s: %s", temporaries[which], names[which],
                        xlv_strerror(rc));
    }
    return 0;
}

int xlv_store_create(int dirfd, struct xlv_error *e)
{
    int there[2], rc;

    for (int i = 0; i < 2; i++) {
        there[i] = exists(dirfd, names[i], e);
        if (there[i] < 0)
            return there[i];
    }
    /* one alone is a creation cut short, unless it has contents: a blank
     * neighbour would then make an older generation look like the newest */
    for (int i = 0; i < 2; i++)
        if (there[i] && !there[1 - i] && !is_blank(dirfd, names[i]))
            return xlv_fail(e, XLV_E_CORRUPT,
                            "%s is missing beside %s, which holds a TPM's state; put it back from "
                            "a backup or use xl-vtpm recover", names[1 - i], names[i]);
    for (int i = 0; i < 2; i++) {
        if (there[i])
            continue;
        rc = create_one(dirfd, i, e);
        if (rc)
            return rc;
    }
    /* also where both were there: the creator may have been killed before */
    if (fsync(dirfd)) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot sync the directory of the slots: %s", xlv_strerror(rc));
    }
    return 0;
}

int xlv_store_open(int dirfd, int slots[2], struct xlv_error *e)
{
    slots[0] = slots[1] = -1;
    for (int i = 0; i < 2; i++) {
        struct stat st = { .st_mode = 0 };
        int rc = 0;

        slots[i] = openat(dirfd, names[i], O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (slots[i] < 0 || fstat(slots[i], &st))
            rc = -errno;
        if (rc == -ENOENT)
            rc = xlv_fail(e, XLV_E_NOT_FOUND,
                          "%s is missing; put it back from a backup, a TPM is never made anew in "
                          "its place", names[i]);
        else if (rc)
            xlv_fail(e, rc, "cannot open %s: %s", names[i], xlv_strerror(rc));
        else if (!S_ISREG(st.st_mode))
            rc = xlv_fail(e, XLV_E_CORRUPT, "%s is not a regular file", names[i]);
        if (rc) {
            xlv_close(&slots[0]);
            xlv_close(&slots[1]);
            return rc;
        }
    }
    return 0;
}
