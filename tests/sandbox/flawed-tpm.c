/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The libtpms at hand with its published flaws put back, as far as they are seen from outside: put
 * before it with LD_PRELOAD, so that vtpm-probe has something to find. $FLAW: a command code, hex;
 * what is done to it: "abort", "loop", "write" behind the command, "size" as its answer, "iv" kept.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t TPMLIB_Process(unsigned char **response, uint32_t *length, uint32_t *room,
                        unsigned char *command, uint32_t size);

uint32_t TPMLIB_Process(unsigned char **response, uint32_t *length, uint32_t *room,
                        unsigned char *command, uint32_t size)
{
    static uint32_t (*real)(unsigned char **, uint32_t *, uint32_t *, unsigned char *, uint32_t);
    const char *flaw = getenv("FLAW");
    unsigned wanted = 0;
    char how[16] = "";
    uint32_t result;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "TPMLIB_Process");
    result = real(response, length, room, command, size);
    if (!flaw || sscanf(flaw, "%x %15s", &wanted, how) != 2 ||
        wanted != ((unsigned)command[8] << 8 | command[9]) || command[6] || command[7])
        return result;
    if (!strcmp(how, "abort"))
        abort();
    while (!strcmp(how, "loop"))
        ;
    if (!strcmp(how, "write"))
        command[size + 1] ^= 0x55;
    if (!strcmp(how, "size"))
        memcpy(*response + 6, "\0\0\x09\x95", 4);
    if (!strcmp(how, "iv") && *length > 66)
        memset(*response + *length - 21, 0x55, 16);
    return result;
}
