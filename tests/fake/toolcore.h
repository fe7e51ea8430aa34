/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * toolcore.h - the part of libxentoolcore's ABI that handles use among themselves.
 *
 * Debian does not install the header of these three functions, but libxenctrl and its siblings
 * call them in libxentoolcore.so.1, so the fake of it must offer them with this layout: the
 * callback first, then the two pointers of a doubly linked list, which belong to the library.
 */
#ifndef FAKE_TOOLCORE_H
#define FAKE_TOOLCORE_H

#include <xentoolcore.h>

struct fx_active_handle {
    int (*restrict_callback)(struct fx_active_handle *ah, domid_t domid);
    struct fx_active_handle *next;
    struct fx_active_handle **prev;
};

void xentoolcore__register_active_handle(struct fx_active_handle *ah);
void xentoolcore__deregister_active_handle(struct fx_active_handle *ah);
int xentoolcore__restrict_by_dup2_null(int fd);

#endif
