/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration file (libxl-vtpm/settings.h): an error has file and line, else all is set. */
#include "config.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "fuzz/fuzz.h"
#include "libxl-vtpm/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct xlv_settings s;
    struct xlv_error e = XLV_ERROR_INIT;
    char path[32];
    int rc;

    if (fd < 0)
        fd = memfd_create("settings", MFD_CLOEXEC);
    MUST(fd >= 0 && ftruncate(fd, 0) == 0 && xlv_pwrite_all(fd, data, size, 0) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    rc = xlv_settings_load(&s, path, &e);
    MUST(rc >= 0);
    if (rc) {
        MUST(!strncmp(e.text, path, strlen(path)) && !s.state_dir && !s.key_source);
    } else {
        MUST(s.state_dir[0] == '/' && s.run_dir[0] == '/' && s.backend_program[0] == '/');
        MUST(s.backend_user && s.control_group && s.key_source);
        MUST(s.max_locality <= XLV_LOCALITY_MAX && s.log_level <= XLV_LOG_DEBUG);
        xlv_settings_deinit(&s);
    }
    return 0;
}
