/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk that can fail: see disk.h. */
#include "config.h"

#include "tests/fault/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct disk *disk;
void (*disk_before_sync)(void);

enum call { CALL_PWRITE, CALL_PREAD, CALL_SYNC, CALL_STAT, CALL_ADVISE };

static struct {
    unsigned long at, calls, injected;
    enum disk_fault fault;
    bool forever, struck;
    enum call struck_call;
    uint64_t random;
} fail;

uint64_t disk_seed(uint64_t fallback)
{
    const char *text = getenv("XLV_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : fallback;

    printf("# seed %#llx (XLV_SEED)\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

/* splitmix64 */
uint64_t disk_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void disk_reset(struct disk *d)
{
    memset(d, 0, sizeof(*d));
}

void disk_copy(struct disk *to, const struct disk *from)
{
    for (int i = 0; i < 2; i++) {
        const struct disk_file *f = &from->file[i];
        struct disk_file *t = &to->file[i];
        size_t used = f->size > f->medium_size ? f->size : f->medium_size;
        size_t old = t->size > t->medium_size ? t->size : t->medium_size;

        if (old > used) {
            memset(t->cache + used, 0, old - used);
            memset(t->medium + used, 0, old - used);
        }
        memcpy(t->cache, f->cache, used);
        memcpy(t->medium, f->medium, used);
        memcpy(t->dirty, f->dirty, sizeof(t->dirty));
        t->size = f->size;
        t->medium_size = f->medium_size;
    }
}

size_t disk_dirty(const struct disk *d, struct disk_sector *list, size_t room)
{
    size_t n = 0;

    for (unsigned i = 0; i < 2; i++)
        for (unsigned s = 0; s < DISK_SECTORS_MAX && n < room; s++)
            if (d->file[i].dirty[s])
                list[n++] = (struct disk_sector){ i, s };
    return n;
}

static void write_back(struct disk_file *f, unsigned sector)
{
    memcpy(f->medium + sector * DISK_SECTOR, f->cache + sector * DISK_SECTOR, DISK_SECTOR);
}

void disk_cut(struct disk *d, bool (*keep)(size_t index, void *opaque), void *opaque, bool grown)
{
    size_t index = 0;

    for (unsigned i = 0; i < 2; i++) {
        struct disk_file *f = &d->file[i];
        size_t most = f->size > f->medium_size ? f->size : f->medium_size;

        for (unsigned s = 0; s < DISK_SECTORS_MAX; s++) {
            if (!f->dirty[s])
                continue;
            if (keep(index++, opaque))
                write_back(f, s);
            f->dirty[s] = false;
        }
        if (grown && f->size > f->medium_size)
            f->medium_size = f->size;
        /* what lies behind the end is not there */
        memset(f->medium + f->medium_size, 0, most - f->medium_size);
        memcpy(f->cache, f->medium, most);
        f->size = f->medium_size;
    }
}

static bool keep_randomly(size_t index, void *opaque)
{
    (void)index;
    return disk_random(opaque) & 1;
}

static bool keep_one_way(size_t index, void *opaque)
{
    (void)index;
    return *(bool *)opaque;
}

void disk_cut_randomly(struct disk *d, uint64_t *random)
{
    bool way = disk_random(random) & 1;

    /* one cut in four between two states, the others anywhere in a write */
    if (disk_random(random) % 4)
        disk_cut(d, keep_randomly, random, disk_random(random) & 1);
    else
        disk_cut(d, keep_one_way, &way, way);
}

void disk_fail(unsigned long at, enum disk_fault fault, bool forever, uint64_t seed)
{
    fail.at = at;
    fail.calls = 0;
    fail.fault = fault;
    fail.forever = forever;
    fail.struck = false;
    fail.random = seed;
}

unsigned long disk_calls(void)
{
    return fail.calls;
}

unsigned long disk_injected(void)
{
    return fail.injected;
}

/* Whether this call is to fail; sets errno. */
static bool strikes(enum call call)
{
    static const int numbers[] = { [DISK_EIO] = EIO, [DISK_ENOSPC] = ENOSPC, [DISK_EINTR] = EINTR,
                                   [DISK_KILL] = EIO };

    fail.calls++;
    if (fail.struck && fail.fault == DISK_KILL) {
        errno = EIO;
        return true;
    }
    if (fail.calls == fail.at) {
        fail.struck = true;
        fail.struck_call = call;
    } else if (!fail.struck || !fail.forever || call != fail.struck_call) {
        return false;
    }
    if (fail.fault != DISK_SHORT)
        errno = numbers[fail.fault];
    else if (call != CALL_PWRITE && call != CALL_PREAD)
        return false;
    fail.injected++;
    return true;
}

static struct disk_file *file_of(int fd)
{
    return fd >= DISK_FD(0) && fd <= DISK_FD(1) ? &disk->file[fd - DISK_FD(0)] : NULL;
}

static void cache_write(struct disk_file *f, const uint8_t *data, size_t length, size_t offset)
{
    if (offset + length > sizeof(f->cache))
        abort();
    memcpy(f->cache + offset, data, length);
    for (size_t s = offset / DISK_SECTOR; length && s <= (offset + length - 1) / DISK_SECTOR; s++)
        f->dirty[s] = true;
    if (offset + length > f->size)
        f->size = offset + length;
}

ssize_t __real_pwrite(int fd, const void *data, size_t length, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t offset)
{
    struct disk_file *f = file_of(fd);
    bool dead = fail.struck && fail.fault == DISK_KILL;

    if (!f)
        return __real_pwrite(fd, data, length, offset);
    if (strikes(CALL_PWRITE)) {
        size_t part = length > 1 ? disk_random(&fail.random) % (length - 1) + 1 : length;

        if (fail.fault == DISK_EINTR || dead)
            return -1;
        /* an error or a kill cuts between sectors: Linux copies whole pages */
        if (fail.fault != DISK_SHORT)
            part = part / DISK_SECTOR * DISK_SECTOR;
        cache_write(f, data, part, (size_t)offset);
        return fail.fault == DISK_SHORT ? (ssize_t)part : -1;
    }
    cache_write(f, data, length, (size_t)offset);
    return (ssize_t)length;
}

ssize_t __real_pread(int fd, void *data, size_t length, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t length, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t length, off_t offset)
{
    struct disk_file *f = file_of(fd);
    bool struck;

    if (!f)
        return __real_pread(fd, data, length, offset);
    struck = strikes(CALL_PREAD);
    if (struck && fail.fault != DISK_SHORT)
        return -1;
    if ((size_t)offset >= f->size)
        return 0;
    if (length > f->size - (size_t)offset)
        length = f->size - (size_t)offset;
    if (struck && length > 1)
        length = disk_random(&fail.random) % (length - 1) + 1;
    memcpy(data, f->cache + offset, length);
    return (ssize_t)length;
}

static int sync_file(struct disk_file *f)
{
    bool struck = strikes(CALL_SYNC);

    if (struck && (fail.fault == DISK_EINTR || fail.fault == DISK_KILL))
        return -1;
    if (disk_before_sync)
        disk_before_sync();
    for (unsigned s = 0; s < DISK_SECTORS_MAX; s++) {
        if (f->dirty[s] && (!struck || (disk_random(&fail.random) & 1)))
            write_back(f, s);
        f->dirty[s] = false;
    }
    if (struck && (disk_random(&fail.random) & 1))
        return -1;
    f->medium_size = f->size;
    return struck ? -1 : 0;
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    struct disk_file *f = file_of(fd);

    return f ? sync_file(f) : __real_fdatasync(fd);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct disk_file *f = file_of(fd);

    return f ? sync_file(f) : __real_fsync(fd);
}

int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st)
{
    struct disk_file *f = file_of(fd);

    if (!f)
        return __real_fstat(fd, st);
    if (strikes(CALL_STAT))
        return -1;
    memset(st, 0, sizeof(*st));
    st->st_mode = S_IFREG | 0600;
    st->st_size = (off_t)f->size;
    return 0;
}

int __real_posix_fadvise(int fd, off_t offset, off_t length, int advice);
int __wrap_posix_fadvise(int fd, off_t offset, off_t length, int advice);
int __wrap_posix_fadvise(int fd, off_t offset, off_t length, int advice)
{
    struct disk_file *f = file_of(fd);

    if (!f)
        return __real_posix_fadvise(fd, offset, length, advice);
    if (strikes(CALL_ADVISE))
        return errno;
    if (advice == POSIX_FADV_DONTNEED)
        for (unsigned s = 0; s < DISK_SECTORS_MAX; s++)
            if (!f->dirty[s])
                memcpy(f->cache + s * DISK_SECTOR, f->medium + s * DISK_SECTOR, DISK_SECTOR);
    return 0;
}
