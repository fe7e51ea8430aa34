/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Event logs in the TCG's formats: see eventlog.h. */
#include "config.h"

#include "backend/eventlog.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/bytes.h"
#include "common/error.h"

/* PFP 10.4.5.1, TCG_EfiSpecIdEvent */
#define SPEC_ID "Spec ID Event03"
#define CLASS_CLIENT 0u
#define UINTN_64_BIT 2u

const struct xlv_hash_info xlv_hashes[XLV_HASHES] = {
    [XLV_HASH_SHA1] = { 0x0004, 20, "sha1" },
    [XLV_HASH_SHA256] = { 0x000b, 32, "sha256" },
    [XLV_HASH_SHA384] = { 0x000c, 48, "sha384" },
    [XLV_HASH_SHA512] = { 0x000d, 64, "sha512" },
};

static bool has(unsigned banks, unsigned bank)
{
    return banks & XLV_BANK_OF(bank);
}

/* --- digests -------------------------------------------------------------- */

static int digest_begin(unsigned banks, EVP_MD_CTX *contexts[XLV_HASHES])
{
    memset(contexts, 0, XLV_HASHES * sizeof(*contexts));
    for (unsigned i = 0; i < XLV_HASHES; i++) {
        const EVP_MD *md = EVP_get_digestbyname(xlv_hashes[i].name);

        if (!has(banks, i))
            continue;
        contexts[i] = EVP_MD_CTX_new();
        if (!md || !contexts[i] || !EVP_DigestInit_ex(contexts[i], md, NULL))
            return -EIO;
    }
    return 0;
}

static int digest_update(EVP_MD_CTX *contexts[XLV_HASHES], const void *data, size_t length)
{
    for (unsigned i = 0; i < XLV_HASHES; i++)
        if (contexts[i] && !EVP_DigestUpdate(contexts[i], data, length))
            return -EIO;
    return 0;
}

/* Ends them in any case; rc is what happened so far, and is returned. */
static int digest_end(EVP_MD_CTX *contexts[XLV_HASHES], struct xlv_digests *out, int rc)
{
    struct xlv_digests digests = { .banks = 0 };

    for (unsigned i = 0; i < XLV_HASHES; i++) {
        if (!rc && contexts[i] && !EVP_DigestFinal_ex(contexts[i], digests.of[i], NULL))
            rc = -EIO;
        if (contexts[i])
            digests.banks |= XLV_BANK_OF(i);
        EVP_MD_CTX_free(contexts[i]);
    }
    if (!rc)
        *out = digests;
    return rc;
}

int xlv_digest(unsigned banks, const void *data, size_t length, struct xlv_digests *out)
{
    EVP_MD_CTX *contexts[XLV_HASHES];
    int rc = digest_begin(banks, contexts);

    if (!rc)
        rc = digest_update(contexts, data, length);
    return digest_end(contexts, out, rc);
}

int xlv_digest_file(unsigned banks, int fd, struct xlv_digests *out, uint64_t *length)
{
    static uint8_t piece[64 * 1024];
    EVP_MD_CTX *contexts[XLV_HASHES];
    int rc = digest_begin(banks, contexts);

    *length = 0;
    while (!rc) {
        ssize_t n = read(fd, piece, sizeof(piece));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = -errno;
        if (n <= 0)
            break;
        *length += (uint64_t)n;
        rc = digest_update(contexts, piece, (size_t)n);
    }
    return digest_end(contexts, out, rc);
}

int xlv_digest_extend(struct xlv_digests *pcr, const struct xlv_digests *digest)
{
    for (unsigned i = 0; i < XLV_HASHES; i++) {
        size_t size = xlv_hashes[i].size;
        uint8_t both[2 * XLV_DIGEST_MAX];
        struct xlv_digests next;
        int rc;

        if (!has(pcr->banks & digest->banks, i))
            continue;
        memcpy(both, pcr->of[i], size);
        memcpy(both + size, digest->of[i], size);
        rc = xlv_digest(XLV_BANK_OF(i), both, 2 * size, &next);
        if (rc)
            return rc;
        memcpy(pcr->of[i], next.of[i], size);
    }
    return 0;
}

/* --- writing -------------------------------------------------------------- */

static unsigned count_of(unsigned banks)
{
    unsigned count = 0;

    for (unsigned i = 0; i < XLV_HASHES; i++)
        count += has(banks, i);
    return count;
}

/* TCG_PCR_EVENT, which the header is one of, too */
static void put_event_1(struct xlv_bytes *c, uint32_t pcr, uint32_t type, const uint8_t sha1[20],
                        const uint8_t *data, size_t length)
{
    xlv_put_u32(c, pcr);
    xlv_put_u32(c, type);
    xlv_put_data(c, sha1, 20);
    xlv_put_u32(c, (uint32_t)length);
    xlv_put_data(c, data, length);
}

void xlv_eventlog_begin(struct xlv_eventlog *log, enum xlv_tpm_version version, unsigned banks)
{
    static const uint8_t no_digest[20];
    uint8_t id[64];
    struct xlv_bytes c = xlv_bytes_writer(id, sizeof(id));

    log->version = version;
    log->banks = version == XLV_TPM_2_0 ? banks : XLV_BANK_SHA1;
    log->length = 0;
    if (version != XLV_TPM_2_0)
        return;
    xlv_put_data(&c, SPEC_ID, sizeof(SPEC_ID));
    xlv_put_u32(&c, CLASS_CLIENT);
    xlv_put_u8(&c, 0); /* specVersionMinor */
    xlv_put_u8(&c, 2); /* specVersionMajor */
    xlv_put_u8(&c, 0); /* specErrata */
    xlv_put_u8(&c, UINTN_64_BIT);
    xlv_put_u32(&c, count_of(banks));
    for (unsigned i = 0; i < XLV_HASHES; i++)
        if (has(banks, i)) {
            xlv_put_u16(&c, xlv_hashes[i].algorithm);
            xlv_put_u16(&c, xlv_hashes[i].size);
        }
    xlv_put_u8(&c, 0); /* vendorInfoSize */
    {
        struct xlv_bytes out = xlv_bytes_writer(log->bytes, sizeof(log->bytes));

        put_event_1(&out, 0, XLV_EV_NO_ACTION, no_digest, id, c.at);
        log->length = out.at;
    }
}

int xlv_eventlog_add(struct xlv_eventlog *log, const struct xlv_event *event)
{
    struct xlv_bytes c = xlv_bytes_writer(log->bytes + log->length,
                                          sizeof(log->bytes) - log->length);

    if (log->version != XLV_TPM_2_0) {
        put_event_1(&c, event->pcr, event->type, event->digests.of[XLV_HASH_SHA1], event->data,
                    event->length);
    } else {
        /* TCG_PCR_EVENT2 */
        xlv_put_u32(&c, event->pcr);
        xlv_put_u32(&c, event->type);
        xlv_put_u32(&c, count_of(log->banks));
        for (unsigned i = 0; i < XLV_HASHES; i++)
            if (has(log->banks, i)) {
                xlv_put_u16(&c, xlv_hashes[i].algorithm);
                xlv_put_data(&c, event->digests.of[i], xlv_hashes[i].size);
            }
        xlv_put_u32(&c, (uint32_t)event->length);
        xlv_put_data(&c, event->data, event->length);
    }
    if (!xlv_bytes_ok(&c))
        return -EMSGSIZE;
    log->length += c.at;
    return 0;
}

/* --- reading -------------------------------------------------------------- */

/* XLV_HASHES: none of ours */
static unsigned bank_of(uint16_t algorithm)
{
    unsigned i = 0;

    while (i < XLV_HASHES && xlv_hashes[i].algorithm != algorithm)
        i++;
    return i;
}

static int get_digests(struct xlv_bytes *c, struct xlv_digests *digests)
{
    uint32_t count = xlv_get_u32(c);

    if (count > XLV_HASHES)
        return XLV_E_CORRUPT;
    while (count--) {
        unsigned bank = bank_of(xlv_get_u16(c));

        /* the size of what is unknown is unknown */
        if (bank == XLV_HASHES)
            return XLV_E_CORRUPT;
        xlv_get_data(c, digests->of[bank], xlv_hashes[bank].size);
        digests->banks |= XLV_BANK_OF(bank);
    }
    return 0;
}

int xlv_eventlog_each(const uint8_t *bytes, size_t length, enum xlv_tpm_version *version,
                      int (*visit)(const struct xlv_event *event, void *opaque), void *opaque)
{
    struct xlv_bytes c = xlv_bytes_reader(bytes, length);
    bool first = true;

    *version = XLV_TPM_1_2;
    for (; xlv_bytes_left(&c); first = false) {
        struct xlv_event event = { .pcr = xlv_get_u32(&c) };
        int rc;

        event.type = xlv_get_u32(&c);
        if (*version == XLV_TPM_2_0) {
            rc = get_digests(&c, &event.digests);
            if (rc)
                return rc;
        } else {
            xlv_get_data(&c, event.digests.of[XLV_HASH_SHA1], 20);
            event.digests.banks = XLV_BANK_SHA1;
        }
        event.length = xlv_get_u32(&c);
        event.data = xlv_get_view(&c, event.length);
        if (!event.data)
            return XLV_E_CORRUPT;
        if (first && event.type == XLV_EV_NO_ACTION && event.length > sizeof(SPEC_ID) &&
            !memcmp(event.data, SPEC_ID, sizeof(SPEC_ID))) {
            *version = XLV_TPM_2_0;
            continue;
        }
        rc = visit(&event, opaque);
        if (rc)
            return rc;
    }
    return 0;
}
