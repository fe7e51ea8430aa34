/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The backend's judgement of the one message that it takes on trust: include/launch.h. */
#ifndef XLV_BACKEND_LAUNCH_H
#define XLV_BACKEND_LAUNCH_H

#include <stddef.h>

#include "common/error.h"
#include "include/launch.h"

/*
 * Is this first message, of length bytes and with nfds descriptors, a LAUNCH whose
 * every value is in range? XLV_E_VERSION: of another build; XLV_E_INVALID.
 */
int xlv_launch_check(const struct xlv_msg_launch *m, size_t length, size_t nfds,
                     struct xlv_error *e);

#endif
