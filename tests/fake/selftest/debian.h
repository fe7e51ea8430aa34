/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * debian.h - where Debian's own xenstored and xl are: tests/integration/debian-program knows.
 */
#ifndef FAKE_SELFTEST_DEBIAN_H
#define FAKE_SELFTEST_DEBIAN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The path of a program; NULL, with the reason on stderr, if it cannot be had: not a reason to
 * skip. Asked for once. */
static inline const char *debian_program(const char *name)
{
    static char known[4][2][512];
    char command[700];
    FILE *f;

    for (int i = 0; i < 4; i++) {
        if (!strcmp(known[i][0], name))
            return known[i][1];
        if (known[i][0][0])
            continue;
        snprintf(command, sizeof(command), "%s/tests/integration/debian-program '%s'",
                 getenv("top_srcdir") ? getenv("top_srcdir") : ".", name);
        f = popen(command, "r");
        if (!f)
            return NULL;
        if (!fgets(known[i][1], sizeof(known[i][1]), f))
            known[i][1][0] = 0;
        if (pclose(f) || !known[i][1][0])
            return NULL;
        known[i][1][strcspn(known[i][1], "\n")] = 0;
        snprintf(known[i][0], sizeof(known[i][0]), "%s", name);
        return known[i][1];
    }
    return NULL;
}

#endif
