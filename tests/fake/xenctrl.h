/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two parts of the fake libxenctrl share. */
#ifndef FAKE_XENCTRL_H
#define FAKE_XENCTRL_H

#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

/* The first domain with a number from first on, as FX_OP_DOM_INFO tells. False: there is none. */
bool fxc_next_domain(uint32_t first, struct fx_msg *m);

#endif
