/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fault.h - the table of faults in $FAKEXEN_DIR/faults.
 *
 * Every process of a test maps the table: the test writes entries, the fake libraries look
 * their own name up at the start of each call. An entry lets `skip` calls pass, then hits
 * `count` calls, then is spent. A hit either fails the call with `err` or kills the process
 * with SIGKILL before the call did anything (FX_FAULT_KILL). No system call is made when no
 * entry is armed, so the look-up works in a sandbox.
 */
#ifndef FAKE_FAULT_H
#define FAKE_FAULT_H

#include <stdatomic.h>
#include <stdint.h>

#define FX_FAULT_SLOTS  64
#define FX_FAULT_KILL   (-1)
#define FX_FAULT_ANY    UINT32_MAX

struct fx_fault_slot {
    char name[48];               /* function, as in the header; "" = free */
    uint32_t domid;              /* hits callers of this domain only, or FX_FAULT_ANY */
    int32_t err;                 /* errno, or FX_FAULT_KILL */
    _Atomic int32_t skip;        /* calls still to be let through */
    _Atomic int32_t count;       /* calls still to be hit; 0 = spent */
    _Atomic uint32_t hits;
};

struct fx_fault_table {
    _Atomic uint32_t armed;      /* 0: nobody looks any further */
    struct fx_fault_slot slot[FX_FAULT_SLOTS];
};

#endif
