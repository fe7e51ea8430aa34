/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A store made and read as the daemon and its backend do it, for tests of the
 * command: the key is chosen with the lock held, the state is text.
 *
 *   state commit DIRECTORY UUID KEYFILE TEXT...   one commit for each TEXT
 *   state put    DIRECTORY UUID KEYFILE           one commit of what standard input has
 *   state read   DIRECTORY UUID KEYFILE           prints "<generation> <text>"
 *   state hold   DIRECTORY UUID KEYFILE           locks it, prints "held", until stdin ends
 *
 * KEYFILE "none" is the provider of that name. Exit code 0, or 1 with the
 * sentence on stderr.
 */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"
#include "libxl-vtpm/keys.h"

static int work(char **argv, int count, struct xlv_error *e)
{
    static uint8_t input[XLV_PERMANENT_MAX];
    bool none = !strcmp(argv[3], "none"), puts_it = !strcmp(argv[0], "put");
    bool commits = puts_it || !strcmp(argv[0], "commit");
    int dirfd XLV_CLOSE = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int slots[2] = { -1, -1 };
    struct xlv_keys *keys = NULL;
    struct xlv_store *store = NULL;
    struct xlv_uuid uuid;
    uint8_t key[XLV_KEY_SIZE], *data = NULL;
    uint64_t generation = 0;
    size_t length = 0;
    int rc;

    if (dirfd < 0 || xlv_uuid_parse(&uuid, argv[2]))
        return xlv_fail(e, XLV_E_INVALID, "%s: no directory, or %s is no uuid", argv[1], argv[2]);
    rc = commits ? xlv_store_create(dirfd, e) : 0;
    if (!rc)
        rc = xlv_store_open(dirfd, slots, e);
    if (!rc && flock(slots[0], LOCK_EX | LOCK_NB))
        rc = xlv_fail(e, XLV_E_IN_USE, "in use");
    if (!rc && !strcmp(argv[0], "hold")) {
        puts("held");
        fflush(stdout);
        while (getchar() != EOF)
            ;
        return 0;
    }
    if (!rc)
        rc = xlv_keys_new(&keys, none ? XLV_KEY_NONE : XLV_KEY_FILE, argv[3], commits, e);
    if (!rc)
        rc = xlv_keys_of_store(keys, &uuid, slots, key, NULL, e);
    if (!rc)
        rc = xlv_store_new(&store, slots, &uuid, key, e);
    if (!rc)
        rc = xlv_store_load(store, &data, &length, &generation, e);
    if (commits && rc == XLV_E_EMPTY)
        rc = 0;
    for (int i = 4; commits && i < count && !rc; i++)
        rc = xlv_store_commit(store, (uint8_t *)argv[i], strlen(argv[i]), &generation, e);
    if (!rc && puts_it)
        rc = xlv_store_commit(store, input, fread(input, 1, sizeof(input), stdin), &generation, e);
    if (!rc && !commits)
        printf("%llu %.*s\n", (unsigned long long)generation, (int)length, (char *)data);
    free(data);
    xlv_store_free(store);
    xlv_keys_free(keys);
    xlv_close(&slots[0]);
    xlv_close(&slots[1]);
    return rc;
}

int main(int argc, char **argv)
{
    struct xlv_error e = XLV_ERROR_INIT;
    int rc;

    if (argc < 5)
        return 2;
    xlv_log_set_level(XLV_LOG_ERROR);
    rc = work(argv + 1, argc - 1, &e);
    if (rc)
        fprintf(stderr, "%s\n", e.text[0] ? e.text : xlv_strerror(rc));
    return rc != 0;
}
