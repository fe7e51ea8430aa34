/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk that can fail, for tests of the store.
 *
 * Two descriptors, DISK_FD(0) and DISK_FD(1), stand for the two slots. The
 * system calls that the store makes on them (linked with --wrap) work on a
 * model of page cache and medium:
 *   pwrite           changes the cache and makes sectors dirty
 *   fdatasync        writes dirty sectors and the size to the medium
 *   posix_fadvise    DONTNEED: clean sectors are read from the medium again
 *   power cut        any subset of the dirty sectors reached the medium
 *   failed fdatasync any subset reached the medium, and none is dirty any more:
 *                    what Linux does, and why a second fdatasync proves nothing
 *   failed pwrite    a part, whole sectors, is in the cache
 * A file whose size grew without its data reads zeros there.
 */
#ifndef XLV_TEST_DISK_H
#define XLV_TEST_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_SECTOR 512u
#define DISK_SECTORS_MAX 2304u
#define DISK_FD(i) (10000 + (i))

struct disk_file {
    uint8_t cache[DISK_SECTORS_MAX * DISK_SECTOR], medium[DISK_SECTORS_MAX * DISK_SECTOR];
    bool dirty[DISK_SECTORS_MAX];
    size_t size, medium_size; /* bytes */
};

struct disk {
    struct disk_file file[2];
};

/* The disk that the wrapped calls work on. */
extern struct disk *disk;

/* A small generator; the same seed gives the same run. XLV_SEED overrides. */
uint64_t disk_seed(uint64_t fallback);
uint64_t disk_random(uint64_t *state);

void disk_reset(struct disk *d);
void disk_copy(struct disk *to, const struct disk *from);

/* dirty sectors of both files, in order; returns how many (at most room) */
struct disk_sector { unsigned file, sector; };
size_t disk_dirty(const struct disk *d, struct disk_sector *list, size_t room);

/*
 * Cuts the power: of the dirty sectors those for which keep() says so are on
 * the medium; sizes that grew are there with grown. Afterwards cache = medium.
 */
void disk_cut(struct disk *d, bool (*keep)(size_t index, void *opaque), void *opaque, bool grown);
/* Each with even chance. */
void disk_cut_randomly(struct disk *d, uint64_t *random);

/*
 * The next calls on the disk are counted; call number `at` (from 1; 0: none)
 * fails so. DISK_SHORT: pwrite and pread transfer only a part; other calls go
 * through. With forever all later calls of the same name fail as well.
 * DISK_KILL: the process dies in this call: a pwrite is cut off between sectors, and
 * nothing that comes later has an effect (every call returns EIO).
 */
enum disk_fault { DISK_EIO, DISK_ENOSPC, DISK_EINTR, DISK_SHORT, DISK_KILL };
void disk_fail(unsigned long at, enum disk_fault fault, bool forever, uint64_t seed);
unsigned long disk_calls(void);    /* since disk_fail() */
unsigned long disk_injected(void); /* faults, ever */

/* Called before each fdatasync takes effect, for probes; may be NULL. */
extern void (*disk_before_sync)(void);

#endif
