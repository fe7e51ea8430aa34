/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into Debian's xl for a dry run, over the object of tests/fake: xl asks for the
 * host's physical information before it looks at a configuration, which the pretended
 * hypervisor does not have. Any will do: a host that can run every type of domain.
 */
#include <libxl.h>

int libxl_get_physinfo(libxl_ctx *ctx, libxl_physinfo *physinfo);

int libxl_get_physinfo(libxl_ctx *ctx, libxl_physinfo *physinfo)
{
    (void)ctx;
    libxl_physinfo_init(physinfo);
    physinfo->nr_cpus = 2;
    physinfo->cap_pv = physinfo->cap_hvm = physinfo->cap_hap = true;
    return 0;
}
