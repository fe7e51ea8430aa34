#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# cuts.py - what a disk may hold after its power was cut, from the record of its
# writes and flushes that QEMU's blklogwrites made (the format of dm-log-writes,
# Documentation/admin-guide/device-mapper/log-writes.rst).
#
#   cuts.py LOG BASE NOW SECTORS CUTS SEED OUT
#
#   LOG      the record
#   BASE     the disk before it
#   NOW      the disk as QEMU left it, to check the reading of LOG against
#   SECTORS  size of the file system; behind it dom0 noted, past every cache,
#            what was acknowledged ("ack N"), so that acknowledgements stand in
#            LOG in their true order among the writes
#
# Makes in OUT, each a file system of SECTORS:
#
#   torn.img     to boot from: the last moment with something not flushed, of
#                which some sectors are lost and some are not
#   cuts.img     CUTS of them one after the other: the moment of the kill with all
#                that was not flushed lost, and with nothing lost; then LOG cut
#                short anywhere after the first acknowledgement, and of what was
#                not flushed at that point nothing, everything, or some sectors
#                of some writes
#   cuts         a line for each of cuts.img: what was acknowledged, whether a
#                write was pending, and in words what was cut
#   torn         what was acknowledged at the moment of torn.img
#
# and says in one line what LOG held. The model: a write counts when it was
# completed; a flush makes all writes completed before it durable; until then
# each 512-byte sector of each write may or may not be on the medium.

import random
import struct
import sys

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512


def fail(text):
    sys.exit("cuts.py: " + text)


def read_log(path):
    """A list of (flags, byte offset, data)."""
    entries = []
    with open(path, "rb") as log:
        magic, version, count, unit = struct.unpack("<QQQI", log.read(28))
        if magic != MAGIC or version != 1 or unit != SECTOR:
            fail("%s is no write log of version 1 with sectors of 512 bytes" % path)
        at = unit
        while True:
            log.seek(at)
            header = log.read(32)
            # The superblock lags behind; behind the last entry there are zeros.
            if len(header) < 32 or not any(header):
                break
            sector, sectors, flags, _ = struct.unpack("<QQQQ", header)
            at += unit
            data = b""
            if flags & DISCARD:
                data = bytes(sectors * SECTOR)
            elif sectors:
                log.seek(at)
                data = log.read(sectors * SECTOR)
                if len(data) != sectors * SECTOR:
                    break
                at += sectors * SECTOR
            entries.append((flags, sector * SECTOR, data))
    if len(entries) < count:
        fail("%s says it has %d entries, but %d can be read" % (path, count, len(entries)))
    return entries


def apply(image, offset, data):
    image[offset:offset + len(data)] = data


def some(random_, writes):
    """Of each write all, none, or some of its sectors, in their order."""
    for offset, data in writes:
        how = random_.randrange(3)
        if how == 0:
            continue
        for at in range(0, len(data), SECTOR):
            if how == 1 or random_.randrange(2):
                yield offset + at, data[at:at + SECTOR]


def tear(random_, writes):
    """Some sectors kept, some lost, where there are two or more."""
    sectors = [(offset + at, data[at:at + SECTOR]) for offset, data in writes
               for at in range(0, len(data), SECTOR)]
    lost = random_.sample(range(len(sectors)), (len(sectors) + 1) // 2)
    return [write for i, write in enumerate(sectors) if i not in lost]


def store(image, file, at):
    """Sparse; file has no data there yet."""
    zeros = bytes(4096)
    for offset in range(0, len(image), 4096):
        block = image[offset:offset + 4096]
        if block != zeros:
            file.seek(at + offset)
            file.write(block)


class Disk:
    """The medium as it is for certain, and what is on its way to it."""

    def __init__(self, base, limit):
        self.durable = bytearray(base)
        self.pending = []
        self.limit = limit
        self.acknowledged = None

    def feed(self, entry):
        flags, offset, data = entry
        if flags & FLUSH:
            for write in self.pending:
                apply(self.durable, *write)
            self.pending = []
        if not data or flags & MARK:
            return
        if offset >= self.limit:
            word = data.split(b"\0", 1)[0].split()
            if len(word) == 2 and word[0] == b"ack":
                self.acknowledged = int(word[1])
        elif flags & FUA:
            apply(self.durable, offset, data)
        else:
            self.pending.append((offset, data))

    def with_writes(self, writes):
        image = bytearray(self.durable)
        for write in writes:
            apply(image, *write)
        return image


def main():
    if len(sys.argv) != 8:
        fail("usage: cuts.py LOG BASE NOW SECTORS CUTS SEED OUT")
    log, base, now, sectors, cuts, seed, out = sys.argv[1:]
    limit, cuts = int(sectors) * SECTOR, max(int(cuts), 2)
    random_ = random.Random(seed)
    with open(base, "rb") as file:
        base = file.read(limit)
    with open(now, "rb") as file:
        now = file.read()
    entries = read_log(log)

    # Of the last one only the header may have made it into the log.
    while entries and entries[-1][2] and \
            now[entries[-1][1]:entries[-1][1] + len(entries[-1][2])] != entries[-1][2]:
        entries.pop()

    # First pass: where what is pending, and is this the disk that QEMU wrote?
    disk = Disk(base, limit)
    first, quiet, busy = None, [], []
    for i, entry in enumerate(entries):
        disk.feed(entry)
        if disk.acknowledged is not None:
            first = i if first is None else first
            (busy if disk.pending else quiet).append(i)
    if first is None:
        fail("nothing was acknowledged")
    kept = disk.with_writes(disk.pending)
    differ = sum(kept[at:at + SECTOR] != now[at:at + SECTOR] for at in range(0, limit, SECTOR))
    # Writes that were under way may be on the disk and not yet in the log.
    if differ > 256:
        fail("the log does not lead to the disk as it is: %d sectors differ" % differ)
    # Second pass. Moments with something pending are what this is about.
    if not busy:
        fail("nothing was ever pending: no write of the TPM's state was recorded")
    last = len(entries) - 1
    wanted = {last: [0, 1]}
    for n in range(2, cuts):
        where = busy if n % 3 or not quiet else quiet
        wanted.setdefault(random_.choice(where), []).append(n)
    lines = {}
    disk = Disk(base, limit)
    with open("%s/cuts.img" % out, "wb") as file:
        file.truncate(cuts * limit)
        for i, entry in enumerate(entries):
            disk.feed(entry)
            if i == busy[-1]:
                with open("%s/torn.img" % out, "wb") as torn:
                    torn.truncate(limit)
                    store(disk.with_writes(tear(random_, disk.pending)), torn, 0)
                with open("%s/torn" % out, "w") as torn:
                    torn.write("%d\n" % disk.acknowledged)
            for n in wanted.get(i, ()):
                how = ("nothing", "everything")[n] if n < 2 else \
                    random_.choice(("nothing", "everything", "some sectors", "some sectors"))
                writes = {"nothing": [], "everything": disk.pending,
                          "some sectors": list(some(random_, disk.pending))}[how]
                store(disk.with_writes(writes), file, n * limit)
                lines[n] = "%d %d after entry %d, %d writes pending, %s of them kept\n" % (
                    disk.acknowledged, bool(disk.pending), i, len(disk.pending), how)
    with open("%s/cuts" % out, "w") as file:
        file.writelines(lines[n] for n in sorted(lines))
    print("%d entries recorded, %d flushes; after the first acknowledgement %d of %d moments "
          "with writes pending" % (len(entries), sum(1 for e in entries if e[0] & FLUSH),
                                   len(busy), len(busy) + len(quiet)))


main()
