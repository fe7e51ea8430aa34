/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Master key providers, derivation, and the journal's root key: see keys.h.
 *
 * A key file appears under its name only when it is whole and synced: written
 * under a temporary name, fsync, link (which, unlike rename, never replaces a
 * key that somebody else made meanwhile), fsync of the directory.
 *
 * A change of key (N: the new one, at PATH.new):
 *     begin    temporary file, fsync, rename to PATH.new, fsync of the directory
 *     ...      stores are sealed under N; any number of runs
 *     finish   link PATH to PATH.to-be-wiped, rename PATH.new to PATH, fsync of the
 *              directory, overwrite the link, fsync, unlink it, fsync
 * That link is there only so that an interrupted finish can still be made good:
 * it is never read, and never overwritten while it is the same file as PATH.
 */
#include "config.h"

#include "libxl-vtpm/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <keyutils.h>
#include <linux/magic.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "backend/store.h"
#include "common/fd.h"
#include "common/log.h"

#define NEW_SUFFIX ".new"
/* nobody's backup has such a name */
#define OLD_SUFFIX ".to-be-wiped"
#define JOURNAL_KEY_FILE "journal.key"
#define INSTANCE_WORD "libxl-vtpm 1 instance"
#define JOURNAL_WORD "libxl-vtpm 1 journal"

/*
 * The well-known key of the provider "none". It protects nothing; it keeps one
 * format and its checks. Never change it: states are sealed with it.
 */
static const uint8_t well_known[XLV_KEY_SIZE] = {
    'l', 'i', 'b', 'x', 'l', '-', 'v', 't', 'p', 'm', ':', ' ', 'n', 'o', ' ', 's',
    'e', 'c', 'r', 'e', 't', ' ', 'a', 't', ' ', 'a', 'l', 'l', ' ', 'v', '1', '\n',
};

struct xlv_keys {
    uint8_t master[2][XLV_KEY_SIZE]; /* the newest first */
    unsigned count;
    char *path; /* of the provider file, else NULL */
    uint8_t journal[XLV_KEY_SIZE];
    bool have_journal;
};

static int random_key(uint8_t key[XLV_KEY_SIZE])
{
    ssize_t n;

    /* up to 256 bytes come whole or not at all */
    do
        n = getrandom(key, XLV_KEY_SIZE, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return n == XLV_KEY_SIZE ? 0 : -EIO;
}

/* Reads a key from an open file: 0, -errno, or XLV_E_CORRUPT by its size. */
static int read_key(int fd, const struct stat *st, uint8_t key[XLV_KEY_SIZE])
{
    if (!S_ISREG(st->st_mode) || st->st_size != XLV_KEY_SIZE)
        return XLV_E_CORRUPT;
    return xlv_read_all(fd, key, XLV_KEY_SIZE);
}

/* A file that must be ours alone. XLV_E_NOT_FOUND leaves e alone. */
static int read_private_key(int dirfd, const char *path, uint8_t key[XLV_KEY_SIZE],
                            struct xlv_error *e)
{
    int fd XLV_CLOSE = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;
    int rc;

    if (fd < 0 && errno == ENOENT)
        return XLV_E_NOT_FOUND;
    if (fd < 0 || fstat(fd, &st)) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot open the key file %s: %s", path, xlv_strerror(rc));
    }
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return xlv_fail(e, XLV_E_REFUSED, "the key file %s belongs to user %u; it must belong to "
                        "the user that runs xl-vtpmd", path, (unsigned)st.st_uid);
    if (st.st_mode & 077)
        return xlv_fail(e, XLV_E_REFUSED, "the key file %s has mode %04o, others can read it: "
                        "chmod 600 it, and consider xl-vtpm rekey", path,
                        (unsigned)st.st_mode & 07777);
    rc = read_key(fd, &st, key);
    if (rc == XLV_E_CORRUPT)
        return xlv_fail(e, rc, "the key file %s is %jd bytes long instead of %u; put the right "
                        "one back from a backup", path, (intmax_t)st.st_size, XLV_KEY_SIZE);
    if (rc)
        return xlv_fail(e, rc, "cannot read the key file %s: %s", path, xlv_strerror(rc));
    return 0;
}

/* Makes a key file, durable. XLV_E_EXISTS: somebody was faster. */
static int create_private_key(int dirfd, const char *name, const char *shown,
                              const uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    char temporary[NAME_MAX + 1];
    int fd XLV_CLOSE = -1, rc = 0;

    if (snprintf(temporary, sizeof(temporary), ".%s.%ld", name, (long)getpid()) >=
        (int)sizeof(temporary))
        return xlv_fail(e, XLV_E_INVALID, "the name of the key file %s is too long", shown);
    /* left by a killed process that had our id */
    if (unlinkat(dirfd, temporary, 0) && errno != ENOENT)
        rc = -errno;
    if (!rc) {
        fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        rc = fd < 0 ? -errno : xlv_write_all(fd, key, XLV_KEY_SIZE);
    }
    if (!rc && fsync(fd))
        rc = -errno;
    if (!rc && linkat(dirfd, temporary, dirfd, name, 0))
        rc = errno == EEXIST ? XLV_E_EXISTS : -errno;
    if (fd >= 0)
        unlinkat(dirfd, temporary, 0);
    if (!rc && fsync(dirfd))
        rc = -errno;
    if (rc < 0)
        xlv_fail(e, rc, "cannot create the key file %s: %s", shown, xlv_strerror(rc));
    return rc;
}

/* path with a suffix; NULL: no memory. */
static char *beside(const char *path, const char *suffix)
{
    char *other = malloc(strlen(path) + strlen(suffix) + 1);

    if (other)
        strcpy(stpcpy(other, path), suffix);
    return other;
}

static int key_from_file(const char *path, bool create, uint8_t key[XLV_KEY_SIZE],
                         struct xlv_error *e)
{
    char *directory_copy XLV_FREE = NULL, *name_copy XLV_FREE = NULL;
    int dirfd XLV_CLOSE = -1, rc;
    const char *directory;

    if (!path || !*path)
        return xlv_fail(e, XLV_E_INVALID, "master-key = file: needs a path");
    rc = read_private_key(AT_FDCWD, path, key, e);
    if ((rc && rc != XLV_E_NOT_FOUND) || (!rc && !create))
        return rc;
    if (!create)
        return xlv_fail(e, rc, "the master key %s is missing; the TPMs that exist cannot be opened "
                        "without it: put it back from a backup", path);
    directory_copy = strdup(path);
    name_copy = strdup(path);
    if (!directory_copy || !name_copy)
        return xlv_fail(e, -ENOMEM, "no memory for the master key");
    directory = dirname(directory_copy);
    dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot open %s, the directory of the master key: %s", directory,
                        xlv_strerror(rc));
    }
    if (!rc) {
        /* whoever made it may have been killed before its name was durable */
        if (fsync(dirfd))
            rc = xlv_fail(e, -errno, "cannot sync %s, the directory of the master key: %s",
                          directory, strerror(errno));
        return rc;
    }
    rc = random_key(key);
    if (rc)
        return xlv_fail(e, rc, "no random numbers for a master key: %s", xlv_strerror(rc));
    rc = create_private_key(dirfd, basename(name_copy), path, key, e);
    if (rc == XLV_E_EXISTS)
        return read_private_key(AT_FDCWD, path, key, e);
    if (!rc)
        xlv_log(XLV_LOG_NOTICE, "made a new master key in %s; back it up: no TPM can be opened "
                "without it", path);
    return rc;
}

/* Both files of a key that may be changing; in this order, see keys.h. */
static int keys_from_files(struct xlv_keys *keys, bool create, struct xlv_error *e)
{
    uint8_t found[2][XLV_KEY_SIZE];
    char *newer XLV_FREE = beside(keys->path, NEW_SUFFIX);
    unsigned count = 0;
    int rc = newer ? 0 : xlv_fail(e, -ENOMEM, "no memory for the keys");

    if (!rc) {
        rc = read_private_key(AT_FDCWD, newer, found[0], e);
        if (!rc)
            count = 1;
        if (rc == XLV_E_NOT_FOUND)
            rc = 0;
    }
    /* beside a new key an old one is missed, never made */
    if (!rc)
        rc = key_from_file(keys->path, create && !count, found[count], e);
    if (!rc) {
        memcpy(keys->master, found, sizeof(found));
        keys->count = count + 1;
    }
    OPENSSL_cleanse(found, sizeof(found));
    return rc;
}

static int key_from_credential(const char *name, uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    int dirfd XLV_CLOSE = -1, fd XLV_CLOSE = -1, rc;
    struct stat st;

    if (!name || !*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return xlv_fail(e, XLV_E_INVALID, "master-key = credential: needs the name of a systemd "
                        "credential");
    if (!directory)
        return xlv_fail(e, XLV_E_NOT_FOUND, "no systemd credentials here ($CREDENTIALS_DIRECTORY "
                        "is not set), but the master key is credential %s; is LoadCredential= or "
                        "LoadCredentialEncrypted= in the unit?", name);
    dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd >= 0)
        fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return xlv_fail(e, XLV_E_NOT_FOUND, "systemd passed no credential %s; name it in "
                        "LoadCredential= or LoadCredentialEncrypted= of the unit", name);
    if (fd < 0 || fstat(fd, &st)) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot open the credential %s: %s", name, xlv_strerror(rc));
    }
    rc = read_key(fd, &st, key);
    if (rc == XLV_E_CORRUPT)
        return xlv_fail(e, rc, "the credential %s is %jd bytes long instead of %u", name,
                        (intmax_t)st.st_size, XLV_KEY_SIZE);
    if (rc)
        return xlv_fail(e, rc, "cannot read the credential %s: %s", name, xlv_strerror(rc));
    return 0;
}

int xlv_keys_new(struct xlv_keys **out, enum xlv_key_provider provider, const char *source,
                 bool create, struct xlv_error *e)
{
    struct xlv_keys *keys = calloc(1, sizeof(*keys));
    int rc = -EINVAL;

    *out = NULL;
    if (!keys)
        return xlv_fail(e, -ENOMEM, "no memory for the keys");
    switch (provider) {
    case XLV_KEY_FILE:
        keys->path = strdup(source ? source : "");
        rc = keys->path ? keys_from_files(keys, create, e)
                        : xlv_fail(e, -ENOMEM, "no memory for the keys");
        break;
    case XLV_KEY_CREDENTIAL:
        rc = key_from_credential(source, keys->master[0], e);
        keys->count = 1;
        break;
    case XLV_KEY_NONE:
        memcpy(keys->master[0], well_known, sizeof(well_known));
        keys->count = 1;
        xlv_log(XLV_LOG_WARNING, "master-key = none: whoever reads the state directory reads all "
                "secrets of all TPMs");
        rc = 0;
        break;
    }
    if (rc) {
        xlv_keys_free(keys);
        return rc;
    }
    *out = keys;
    return 0;
}

void xlv_keys_free(struct xlv_keys *keys)
{
    if (!keys)
        return;
    free(keys->path);
    OPENSSL_cleanse(keys, sizeof(*keys));
    free(keys);
}

static int derive(const uint8_t root[XLV_KEY_SIZE], const char *word, const struct xlv_uuid *uuid,
                  uint8_t out[XLV_KEY_SIZE], struct xlv_error *e)
{
    uint8_t info[64];
    size_t length = strlen(word);
    OSSL_PARAM params[4], *p = params;
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    int ok;

    memcpy(info, word, length);
    memcpy(info + length, uuid->b, sizeof(uuid->b));
    *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)root, XLV_KEY_SIZE);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info,
                                             length + sizeof(uuid->b));
    *p = OSSL_PARAM_construct_end();
    ok = ctx && EVP_KDF_derive(ctx, out, XLV_KEY_SIZE, params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok ? 0 : xlv_fail(e, -EIO, "OpenSSL cannot derive a key (HKDF-SHA256)");
}

int xlv_keys_instance(const struct xlv_keys *keys, const struct xlv_uuid *uuid,
                      uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    return xlv_keys_candidate(keys, 0, uuid, key, e);
}

unsigned xlv_keys_count(const struct xlv_keys *keys)
{
    return keys->count;
}

int xlv_keys_candidate(const struct xlv_keys *keys, unsigned which, const struct xlv_uuid *uuid,
                       uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    if (which >= keys->count)
        return xlv_fail(e, -EINVAL, "there is no master key number %u", which);
    return derive(keys->master[which], INSTANCE_WORD, uuid, key, e);
}

/* Does the store load with this candidate? Its key is left in key. */
static int try_candidate(const struct xlv_keys *keys, unsigned which, const struct xlv_uuid *uuid,
                         const int slots[2], uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    struct xlv_store *store = NULL;
    uint8_t *data = NULL;
    uint64_t generation;
    size_t length = 0;
    int rc = xlv_keys_candidate(keys, which, uuid, key, e);

    if (!rc)
        rc = xlv_store_new(&store, slots, uuid, key, e);
    if (!rc)
        rc = xlv_store_load(store, &data, &length, &generation, e);
    if (data) {
        OPENSSL_cleanse(data, length);
        free(data);
    }
    xlv_store_free(store);
    return rc;
}

int xlv_keys_of_store(struct xlv_keys *keys, const struct xlv_uuid *uuid, const int slots[2],
                      uint8_t key[XLV_KEY_SIZE], unsigned *which, struct xlv_error *e)
{
    struct xlv_error why = XLV_ERROR_INIT;
    int reread = keys->path ? keys_from_files(keys, false, &why) : 0, rc = 0;
    unsigned chosen = 0;

    if (!reread && keys->count == 1) {
        rc = xlv_keys_candidate(keys, 0, uuid, key, e);
    } else {
        int outcome[2] = { 0, 0 };
        unsigned i = 0;

        for (; i < keys->count; i++) {
            outcome[i] = try_candidate(keys, i, uuid, slots, key, NULL);
            if (!outcome[i] || (outcome[i] == XLV_E_EMPTY && !reread))
                break;
            /* no memory, no disk: says nothing about the key */
            if (outcome[i] < 0)
                return xlv_fail(e, outcome[i], "the state cannot be read: %s",
                                xlv_strerror(outcome[i]));
        }
        if (i < keys->count) {
            chosen = i;
        } else if (reread) {
            /* what is known may be long out of use: nothing new under it */
            OPENSSL_cleanse(key, XLV_KEY_SIZE);
            return xlv_fail(e, reread, "%s", why.text);
        } else {
            chosen = outcome[0] == XLV_E_WRONG_KEY ? 1 : 0;
            rc = xlv_keys_candidate(keys, chosen, uuid, key, e);
        }
    }
    if (which)
        *which = chosen;
    return rc;
}

int xlv_keys_lock_store(uint64_t number, const int slots[2], struct xlv_error *e)
{
    int64_t patience = XLV_STORE_PATIENCE;
    int rc = xlv_lock_within(slots[0], &patience);

    if (!rc)
        return 0;
    return xlv_fail(e, rc == -EWOULDBLOCK ? XLV_E_IN_USE : rc,
                    "instance %" PRIu64 " is in use: shut its domain down first", number);
}

int xlv_keys_open_store(struct xlv_keys *keys, const struct xlv_uuid *uuid, const int slots[2],
                        struct xlv_store **store, struct xlv_error *e)
{
    uint8_t key[XLV_KEY_SIZE];
    int rc = xlv_keys_of_store(keys, uuid, slots, key, NULL, e);

    *store = NULL;
    if (!rc)
        rc = xlv_store_new(store, slots, uuid, key, e);
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

/*
 * A change of key
 */

/* The directory and the name of the key file; by hand: see the texts. */
static int rotate_place(const struct xlv_keys *keys, int *dirfd, char **name, struct xlv_error *e)
{
    char *copy XLV_FREE = NULL;
    const char *slash;
    struct stat st;

    *dirfd = -1;
    *name = NULL;
    if (!keys->path)
        return xlv_fail(e, XLV_E_REFUSED, "xl-vtpm rekey changes a master key that is a file; how "
                        "to do it with a credential, or to get away from none, is in "
                        "xl-vtpm(8), CHANGING THE MASTER KEY");
    if (lstat(keys->path, &st))
        return xlv_fail(e, -errno, "cannot look at the key file %s: %s", keys->path,
                        strerror(errno));
    if (!S_ISREG(st.st_mode))
        return xlv_fail(e, XLV_E_REFUSED, "the key file %s is a symbolic link; a change of key "
                        "would replace it: name the file itself as master-key in xl-vtpm.conf",
                        keys->path);
    copy = strdup(keys->path);
    slash = strrchr(keys->path, '/');
    *name = strdup(slash ? slash + 1 : keys->path);
    if (!copy || !*name)
        return xlv_fail(e, -ENOMEM, "no memory for a change of key");
    *dirfd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *dirfd < 0 ? xlv_fail(e, -errno, "cannot open the directory of the key file %s: %s",
                                 keys->path, strerror(errno))
                      : 0;
}

static int rotate_failed(const struct xlv_keys *keys, struct xlv_error *e, const char *what)
{
    int saved = errno;

    return xlv_fail(e, -saved, "changing the master key %s: cannot %s: %s", keys->path, what,
                    strerror(saved));
}

int xlv_keys_rotate_begin(struct xlv_keys *keys, struct xlv_error *e)
{
    char *name XLV_FREE = NULL, *newer XLV_FREE = NULL, *temporary XLV_FREE = NULL;
    int dirfd XLV_CLOSE = -1, fd XLV_CLOSE = -1;
    uint8_t key[XLV_KEY_SIZE];
    int rc = rotate_place(keys, &dirfd, &name, e);

    if (!rc)
        rc = keys_from_files(keys, false, e);
    if (rc)
        return rc;
    /* whoever made it may have been killed before its name was durable */
    if (keys->count == 2)
        return fsync(dirfd) ? rotate_failed(keys, e, "sync its directory") : 0;
    newer = beside(name, NEW_SUFFIX);
    temporary = beside(name, NEW_SUFFIX ".tmp");
    if (!newer || !temporary)
        return xlv_fail(e, -ENOMEM, "no memory for a change of key");
    if (unlinkat(dirfd, temporary, 0) && errno != ENOENT)
        return rotate_failed(keys, e, "remove a temporary file");
    fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return rotate_failed(keys, e, "create a temporary file");
    rc = random_key(key);
    if (!rc)
        rc = xlv_write_all(fd, key, XLV_KEY_SIZE);
    OPENSSL_cleanse(key, sizeof(key));
    errno = -rc;
    if (rc || fsync(fd) || renameat(dirfd, temporary, dirfd, newer))
        rc = rotate_failed(keys, e, "write the new key");
    if (rc) {
        unlinkat(dirfd, temporary, 0);
        return rc;
    }
    /* without this a power cut could take the key of what is sealed under it */
    if (fsync(dirfd))
        return rotate_failed(keys, e, "sync its directory");
    return keys_from_files(keys, false, e);
}

/* Overwrites and removes what the old key was, unless it is PATH still. */
static int wipe_old(const struct xlv_keys *keys, int dirfd, const char *name, const char *old,
                    bool *cleaned, struct xlv_error *e)
{
    static const uint8_t zeros[XLV_KEY_SIZE];
    int fd XLV_CLOSE = openat(dirfd, old, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st, now;
    int rc;

    *cleaned = false;
    if (fd < 0)
        return errno == ENOENT ? 0 : rotate_failed(keys, e, "open the old key");
    if (fstat(fd, &st) || fstatat(dirfd, name, &now, AT_SYMLINK_NOFOLLOW))
        return rotate_failed(keys, e, "look at the old key");
    if (S_ISREG(st.st_mode) && st.st_size == XLV_KEY_SIZE &&
        (st.st_dev != now.st_dev || st.st_ino != now.st_ino)) {
        rc = xlv_pwrite_all(fd, zeros, sizeof(zeros), 0);
        errno = -rc;
        if (rc || fsync(fd))
            return rotate_failed(keys, e, "overwrite the old key");
    }
    if (unlinkat(dirfd, old, 0) || fsync(dirfd))
        return rotate_failed(keys, e, "remove the old key");
    *cleaned = true;
    return 0;
}

int xlv_keys_rotate_leftover(struct xlv_keys *keys, bool *cleaned, struct xlv_error *e)
{
    char *name XLV_FREE = NULL, *old XLV_FREE = NULL;
    int dirfd XLV_CLOSE = -1;
    int rc = rotate_place(keys, &dirfd, &name, e);

    *cleaned = false;
    if (rc)
        return rc;
    old = beside(name, OLD_SUFFIX);
    /* the name PATH may not be durable yet: the old key must not go before it is */
    if (old && fsync(dirfd))
        return rotate_failed(keys, e, "sync its directory");
    return old ? wipe_old(keys, dirfd, name, old, cleaned, e)
               : xlv_fail(e, -ENOMEM, "no memory for a change of key");
}

int xlv_keys_rotate_finish(struct xlv_keys *keys, struct xlv_error *e)
{
    char *name XLV_FREE = NULL, *newer XLV_FREE = NULL, *old XLV_FREE = NULL;
    int dirfd XLV_CLOSE = -1;
    int rc = rotate_place(keys, &dirfd, &name, e);
    bool cleaned;

    if (rc)
        return rc;
    newer = beside(name, NEW_SUFFIX);
    old = beside(name, OLD_SUFFIX);
    if (!newer || !old)
        return xlv_fail(e, -ENOMEM, "no memory for a change of key");
    rc = wipe_old(keys, dirfd, name, old, &cleaned, e);
    if (rc)
        return rc;
    if (linkat(dirfd, name, dirfd, old, 0))
        return rotate_failed(keys, e, "give the old key another name");
    if (renameat(dirfd, newer, dirfd, name) || fsync(dirfd))
        return rotate_failed(keys, e, "put the new key in its place");
    rc = wipe_old(keys, dirfd, name, old, &cleaned, e);
    return rc ? rc : keys_from_files(keys, false, e);
}

int xlv_keys_journal(const struct xlv_keys *keys, const struct xlv_uuid *uuid,
                     uint8_t key[XLV_KEY_SIZE], struct xlv_error *e)
{
    if (!keys->have_journal)
        return xlv_fail(e, -EINVAL, "the journal's key was not opened");
    return derive(keys->journal, JOURNAL_WORD, uuid, key, e);
}

/*
 * The user keyring: unlike a session keyring it outlives the service, and
 * unlike a file it is never swapped out. 0; XLV_E_REFUSED: no keyrings here.
 */
static int journal_from_keyring(struct xlv_keys *keys, const char *run_dir, int *error)
{
    char description[PATH_MAX + 32];
    uint8_t payload[XLV_KEY_SIZE + 1];
    long length;
    long id;

    snprintf(description, sizeof(description), "xl-vtpm:journal:%s", run_dir);
    id = keyctl_search(KEY_SPEC_USER_KEYRING, "user", description, 0);
    if (id >= 0) {
        length = keyctl_read((key_serial_t)id, (char *)payload, sizeof(payload));
        if (length == XLV_KEY_SIZE)
            memcpy(keys->journal, payload, XLV_KEY_SIZE);
        *error = length < 0 ? errno : EBADMSG;
        OPENSSL_cleanse(payload, sizeof(payload));
        if (length == XLV_KEY_SIZE)
            return 0;
        return XLV_E_REFUSED;
    }
    if (errno != ENOKEY && errno != EKEYEXPIRED && errno != EKEYREVOKED) {
        *error = errno;
        return XLV_E_REFUSED;
    }
    id = add_key("user", description, keys->journal, XLV_KEY_SIZE, KEY_SPEC_USER_KEYRING);
    if (id < 0) {
        *error = errno;
        return XLV_E_REFUSED;
    }
    /* a restarted daemon does not possess the key, it is only the same user */
    if (keyctl_setperm((key_serial_t)id, KEY_POS_ALL | KEY_USR_VIEW | KEY_USR_READ |
                                             KEY_USR_SEARCH | KEY_USR_WRITE | KEY_USR_SETATTR)) {
        *error = errno;
        keyctl_unlink((key_serial_t)id, KEY_SPEC_USER_KEYRING);
        return XLV_E_REFUSED;
    }
    return 0;
}

/* Where run_dir is on a disk *memory_only is set, and the key stays what it is. */
static int journal_from_file(struct xlv_keys *keys, const char *run_dir, bool *memory_only,
                             struct xlv_error *e)
{
    int dirfd XLV_CLOSE = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint8_t found[XLV_KEY_SIZE];
    struct statfs fs;
    int rc;

    if (dirfd < 0 || fstatfs(dirfd, &fs)) {
        rc = -errno;
        return xlv_fail(e, rc, "cannot open the run directory %s: %s", run_dir, xlv_strerror(rc));
    }
    *memory_only = fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC;
    if (*memory_only)
        return 0;
    rc = read_private_key(dirfd, JOURNAL_KEY_FILE, found, e);
    if (rc == XLV_E_NOT_FOUND) {
        rc = create_private_key(dirfd, JOURNAL_KEY_FILE, JOURNAL_KEY_FILE, keys->journal, e);
        if (rc != XLV_E_EXISTS)
            return rc;
        rc = read_private_key(dirfd, JOURNAL_KEY_FILE, found, e);
    }
    if (!rc)
        memcpy(keys->journal, found, sizeof(found));
    OPENSSL_cleanse(found, sizeof(found));
    return rc;
}

int xlv_keys_open_journal(struct xlv_keys *keys, const char *run_dir,
                          enum xlv_journal_key_home *home, struct xlv_error *e)
{
    enum xlv_journal_key_home where = XLV_JOURNAL_KEY_KEYRING;
    int rc, why = 0;

    rc = random_key(keys->journal);
    if (rc)
        return xlv_fail(e, rc, "no random numbers for the journal's key: %s", xlv_strerror(rc));
    if (journal_from_keyring(keys, run_dir, &why)) {
        bool memory_only = false;

        rc = journal_from_file(keys, run_dir, &memory_only, e);
        if (rc)
            return rc;
        where = memory_only ? XLV_JOURNAL_KEY_MEMORY : XLV_JOURNAL_KEY_FILE;
        if (where == XLV_JOURNAL_KEY_FILE)
            xlv_log(XLV_LOG_WARNING, "the kernel refuses keyrings (%s): the journal's key is kept "
                    "in %s/%s on tmpfs, which may be swapped out", strerror(why), run_dir,
                    JOURNAL_KEY_FILE);
        else
            xlv_log(XLV_LOG_WARNING, "the kernel refuses keyrings (%s) and %s is not a tmpfs: the "
                    "journal's key is kept in memory only; after a restart of this daemon a "
                    "crashed backend cannot resume, its TPM will be as after a power cut",
                    strerror(why), run_dir);
    }
    keys->have_journal = true;
    if (home)
        *home = where;
    return 0;
}
