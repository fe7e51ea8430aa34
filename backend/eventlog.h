/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event logs: what was extended into which PCR, in the format that the tools of
 * the trade read (TCG PC Client Platform Firmware Profile, "Event Logging").
 * For a TPM 2.0 the crypto agile one: a header (Spec ID Event03), then
 * TCG_PCR_EVENT2 with a digest for each bank. For a TPM 1.2 rows of the SHA-1
 * TCG_PCR_EVENT, without a header. All numbers are little endian.
 *
 * Digests of everything that is measured, too: for all banks in one pass over
 * the bytes. Pure functions, but for the reading of a file that is open.
 */
#ifndef XLV_EVENTLOG_H
#define XLV_EVENTLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/launch.h"

/* In the order of the bits of enum xlv_bank, which is that of the digests in a log. */
enum xlv_hash { XLV_HASH_SHA1, XLV_HASH_SHA256, XLV_HASH_SHA384, XLV_HASH_SHA512, XLV_HASHES };
#define XLV_BANK_OF(hash) (1u << (hash))
_Static_assert(XLV_BANK_OF(XLV_HASH_SHA1) == XLV_BANK_SHA1 &&
               XLV_BANK_OF(XLV_HASH_SHA512) == XLV_BANK_SHA512, "the order of enum xlv_bank");
#define XLV_DIGEST_MAX 64u

struct xlv_hash_info {
    uint16_t algorithm; /* TPM_ALG_ID */
    uint16_t size;      /* of a digest and a PCR */
    const char *name;   /* as tpm2-tools and OpenSSL have it */
};
extern const struct xlv_hash_info xlv_hashes[XLV_HASHES];

struct xlv_digests {
    unsigned banks; /* those that are there */
    uint8_t of[XLV_HASHES][XLV_DIGEST_MAX];
};

/* -EIO: libcrypto would not. */
int xlv_digest(unsigned banks, const void *data, size_t length, struct xlv_digests *out);

/* Of what is left to read of a file; *length is how much it was. -errno of read(). */
int xlv_digest_file(unsigned banks, int fd, struct xlv_digests *out, uint64_t *length);

/* pcr = H(pcr || digest), for each bank of both. */
int xlv_digest_extend(struct xlv_digests *pcr, const struct xlv_digests *digest);

/* Event types (PFP, "Event Types"). */
#define XLV_EV_NO_ACTION 3u
#define XLV_EV_SEPARATOR 4u
#define XLV_EV_IPL 13u

struct xlv_event {
    uint32_t pcr, type;
    struct xlv_digests digests;
    const uint8_t *data; /* borrowed */
    size_t length;
};

/* Largest log: a command line, two names, five events with all banks. */
#define XLV_EVENTLOG_MAX 16384u

/*
 * What a backend writes into the descriptor of a LAUNCH, in one piece: magic, u32 length, the
 * log. It may not truncate, so what lies behind is left from longer ones. Length 0: nothing
 * was measured.
 */
#define XLV_LOG_FILE_MAGIC 0x474f4c58u /* "XLOG" */
#define XLV_LOG_FILE_HEADER 8u

/* A log that is being written into a buffer. */
struct xlv_eventlog {
    enum xlv_tpm_version version;
    unsigned banks; /* TPM 1.2: SHA-1 alone */
    uint8_t bytes[XLV_EVENTLOG_MAX];
    size_t length;
};

/* The header, where there is one. */
void xlv_eventlog_begin(struct xlv_eventlog *log, enum xlv_tpm_version version, unsigned banks);

/* event->digests has every bank of the log. -EMSGSIZE: it is full. */
int xlv_eventlog_add(struct xlv_eventlog *log, const struct xlv_event *event);

/*
 * Calls visit for each event but the header; a return != 0 ends it and is
 * returned. *version tells which of the two formats it is; an empty log is a
 * TPM 1.2's. XLV_E_CORRUPT: it is no such log, or is cut short.
 */
int xlv_eventlog_each(const uint8_t *bytes, size_t length, enum xlv_tpm_version *version,
                      int (*visit)(const struct xlv_event *event, void *opaque), void *opaque);

#endif
