/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a target over files, and over the files of directories, each once: how any compiler, and
 * `make check`, repeat what a fuzzer found.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz/fuzz.h"

static unsigned count;

static uint8_t *resized(uint8_t *data, size_t size)
{
    uint8_t *more = realloc(data, size);

    MUST(more);
    return more;
}

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t size = 0, room = 0;

    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    do {
        if (size == room)
            data = resized(data, room = room ? 2 * room : 4096);
        size += fread(data + size, 1, room - size, f);
    } while (!feof(f) && !ferror(f));
    MUST(!ferror(f));
    fclose(f);
    /* of its exact size, so that one byte too far is seen */
    data = resized(data, size ? size : 1);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    count++;
}

static void run(const char *path)
{
    struct dirent **names;
    struct stat st;
    int n;

    if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char inner[4096];

        snprintf(inner, sizeof(inner), "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            run(inner);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run(argv[i]);
    printf("%u inputs\n", count);
    return count ? 0 : 2;
}
