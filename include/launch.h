/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contract between xl-vtpmd and a vtpm-backend process.
 *
 * xl-vtpmd starts `vtpm-backend` with one end of a SOCK_SEQPACKET socket pair
 * as descriptor XLV_LAUNCH_FD and sends exactly one XLV_MSG_LAUNCH, which
 * carries everything the process will ever need: what to serve, the keys, and
 * the open files. The backend opens no file of ours by path, ever.
 *
 *   descriptors of a LAUNCH, in this order
 *     0, 1  the two slots of the store; the daemon took flock(LOCK_EX) on
 *           slot 0 before it sent it and then closes its own copy, so the lock
 *           lives exactly as long as the backend: no lock file, nothing stale
 *     2     the journal (serve, keep; pcrs, where there is one)
 *     3     the listener (serve only): a bound SOCK_SEQPACKET socket; a restarted
 *           daemon connects there and so finds which process serves the device
 *           (SCM_CREDENTIALS of its first message, SO_PEERCRED until then). The
 *           daemon listens on it before it sends it, so a refused connection
 *           always means that nobody has it any more; the backend calls listen()
 *           again, which makes SO_PEERCRED tell of it
 *     4     the event log (serve, where has_log says so): where the process that begins
 *           the boot writes what it measured, before it extends anything
 *     5, 6  the kernel and the ramdisk, read-only (where measure is FILES, the
 *           second where has_ramdisk says so)
 *   All of the last three are closed before the first byte of a guest is read.
 *
 *   backend                                    daemon
 *                            <- LAUNCH         once, first
 *     ENDORSEMENT ->                           manufacture only, once: the public halves of
 *                                              the new TPM's keys
 *                            <- CERTIFICATES   and their certificates; nothing is committed
 *                                              before they are in the TPM
 *     CERTIFICATES ->                          identify only, once: those that the TPM holds; then
 *     ENDORSEMENT ->                           its keys
 *                            <- CERTIFICATES   what it is to hold instead (0: what it has)
 *     READY  ->                                serving (manufacture: committed)
 *     FAILED ->                                why it cannot go on; it exits then
 *                            <- QUERY          any time after READY
 *     STATUS ->                                answer to QUERY
 *                            <- STOP           finish the running command, close, exit
 *     BYE    ->                                closed cleanly; it exits 0 then
 *
 * When the daemon goes away the backend serves on and waits at its listener;
 * a new connection replaces the old one and starts with QUERY.
 *
 * Every message begins with struct xlv_msg_header. Both sides refuse a message
 * of an unexpected type or of a wrong length: the daemon kills such a backend,
 * the backend drops such a connection. Daemon and backend may be of different
 * builds (upgrade under running guests), so a change of any layout here raises
 * XLV_LAUNCH_VERSION, and a LAUNCH of another version is refused; QUERY,
 * STATUS, STOP and BYE keep their layout for ever, and their receiver does not
 * compare the version.
 *
 * FAILED may come at any time, also after READY. Its code XLV_E_TPM then means:
 * one command of the guest ended this process again and again; it was answered
 * with a TPM failure, the state is that before it, and a new process will serve
 * on. How often that may happen before the instance is put in quarantine is the
 * daemon's policy.
 */
#ifndef XLV_LAUNCH_H
#define XLV_LAUNCH_H

#include <stdint.h>

#include "common/uuid.h"
#include "include/limits.h"

#define XLV_LAUNCH_FD 3
#define XLV_LAUNCH_MAGIC 0x4d545658u /* "XVTM" */
#define XLV_LAUNCH_VERSION 3u
#define XLV_LAUNCH_FDS_MAX 7u

#define XLV_KEY_SIZE 32u

enum xlv_msg_type {
    XLV_MSG_LAUNCH = 1,
    XLV_MSG_READY = 2,
    XLV_MSG_FAILED = 3,
    XLV_MSG_QUERY = 4,
    XLV_MSG_STATUS = 5,
    XLV_MSG_STOP = 6,
    XLV_MSG_BYE = 7,
    XLV_MSG_ENDORSEMENT = 8,
    XLV_MSG_CERTIFICATES = 9,
};

struct xlv_msg_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type; /* enum xlv_msg_type */
};

enum xlv_launch_mode {
    XLV_LAUNCH_SERVE = 1,       /* serve a device */
    XLV_LAUNCH_MANUFACTURE = 2, /* make a new TPM, commit it, exit; idempotent:
                                   a store that holds a good state stays as it is, but for a
                                   clone's that has to get an identity of its own: it gets it */
    XLV_LAUNCH_KEEP = 3,        /* keep the state of a suspended domain, of which the journal
                                   has the last word; idempotent */
    XLV_LAUNCH_TRY = 4,         /* does this state make a TPM that starts? The slots are in memory
                                   and nobody's; the state is committed again as libtpms of now
                                   writes it. From xl-vtpm, not from the daemon */
    XLV_LAUNCH_CLEAR = 5,       /* the same, with the state cleared of its owner (clear.h) */
    XLV_LAUNCH_PCRS = 6,        /* what are the PCRs (pcrs.h)? Slots and journal (which may be
                                   missing) are copies of an instance's in memory; what was found
                                   is committed in the place of the state. From xl-vtpm */
    XLV_LAUNCH_IDENTIFY = 7,    /* which TPM is this (manufacture.h)? Slots as with TRY; the state is
                                   committed again if it got certificates. From xl-vtpm */
};

/* Whose boot is it, where the journal does not know the domain yet? */
enum xlv_boot {
    XLV_BOOT_FRESH = 1, /* the domain was created: a TPM that is switched on */
    XLV_BOOT_KEPT = 2,  /* it was restored: goes on from the kept state, or not at all */
};

/*
 * What the process that begins a boot extends before it (backend/measure.h). One
 * that goes on with a boot extends nothing, whatever is said here; one that has to
 * begin again in the middle of a boot, as its state is lost, measures an error.
 */
enum xlv_measure_what {
    XLV_MEASURE_OFF = 0,
    XLV_MEASURE_FILES = 1,
    XLV_MEASURE_ERROR = 2, /* it is not known what was booted; cmdline says why */
};

/* values of the registry and of this message alike */
enum xlv_tpm_version { XLV_TPM_1_2 = 12, XLV_TPM_2_0 = 20 };

/* PCR banks of a TPM 2.0, as bits */
enum xlv_bank {
    XLV_BANK_SHA1 = 1,
    XLV_BANK_SHA256 = 2,
    XLV_BANK_SHA384 = 4,
    XLV_BANK_SHA512 = 8,
};
#define XLV_BANKS_ALL 15u

struct xlv_msg_launch {
    struct xlv_msg_header h;
    uint32_t mode;        /* enum xlv_launch_mode */
    uint32_t tpm_version; /* enum xlv_tpm_version */
    struct xlv_uuid uuid;
    uint64_t instance;
    uint32_t boot; /* enum xlv_boot (serve only) */
    /* the device (serve; keep, pcrs: the domain that the journal is of) */
    uint32_t domid, devid;
    uint32_t ring_ref, event_channel; /* as the frontend wrote them; checked by the daemon
                                         for range only: hostile otherwise */
    uint32_t max_locality;            /* 0 to XLV_LOCALITY_MAX */
    uint32_t banks;                   /* of enum xlv_bank (manufacture only); TPM 1.2 has no choice */
    /* who to become after everything is open; 0: stay (not started as root) */
    uint32_t uid, gid;
    uint32_t log_level; /* enum xlv_log_level */
    /* boot measurement (serve); texts are NUL-terminated, names are for the log */
    uint32_t measure; /* enum xlv_measure_what */
    uint32_t has_log, has_ramdisk;
    char kernel[XLV_FILE_NAME_MAX + 1], ramdisk[XLV_FILE_NAME_MAX + 1];
    char cmdline[XLV_COMMAND_LINE_MAX + 1];
    uint8_t instance_key[XLV_KEY_SIZE]; /* of the store, see docs/formats.md */
    uint8_t journal_key[XLV_KEY_SIZE];
};

struct xlv_msg_simple { /* READY, QUERY, BYE */
    struct xlv_msg_header h;
};

struct xlv_msg_failed {
    struct xlv_msg_header h;
    int32_t code;            /* error contract of common/error.h */
    char text[XLV_TEXT_MAX]; /* for people, NUL-terminated; the daemon checks that */
};

/* The endorsement keys (EK) of a TPM; 1.2 has the first only. */
enum xlv_ek { XLV_EK_RSA_2048, XLV_EK_P384, XLV_EK_P256, XLV_EKS };

/* What of each is sent: the modulus (the exponent is 65537), or x and y, big endian. */
#define XLV_EK_PUBLIC_MAX 256u

struct xlv_msg_endorsement {
    struct xlv_msg_header h;
    /* what the TPM says of itself: TPM_PT_MANUFACTURER, TPM_PT_FIRMWARE_VERSION_1 and
     * TPM_PT_REVISION of 2.0, or what 1.2 has of it */
    uint32_t manufacturer, firmware, revision;
    struct {
        uint32_t length; /* 256, 96, 64; 0: there is no such key */
        uint8_t bytes[XLV_EK_PUBLIC_MAX];
    } key[XLV_EKS];
};

/* A certificate for each EK, and one for the platform. */
#define XLV_CERTIFICATE_PLATFORM XLV_EKS
#define XLV_CERTIFICATES (XLV_EKS + 1)

struct xlv_msg_certificates {
    struct xlv_msg_header h;
    int32_t code;            /* 0, or why there are none: the manufacture ends with it */
    char text[XLV_TEXT_MAX]; /* for people, NUL-terminated */
    struct {
        uint32_t length; /* at most XLV_CERTIFICATE_MAX; 0: none */
        uint8_t der[XLV_CERTIFICATE_MAX];
    } certificate[XLV_CERTIFICATES];
};

enum xlv_stop_reason {
    XLV_STOP_FRONTEND_CLOSED = 1, /* driver unloaded or reconnecting; the boot goes on */
    XLV_STOP_DOMAIN_END = 2,      /* this boot of the domain is over: TPM2_Shutdown */
    XLV_STOP_SUSPEND = 3,         /* the domain is suspended, to be saved or migrated: keep the
                                     volatile state with the permanent one */
    XLV_STOP_FREEZE = 4,          /* the same, but the domain may still be resumed where it is, on
                                     this ring: the journal stays, too */
};

struct xlv_msg_stop {
    struct xlv_msg_header h;
    uint32_t reason; /* enum xlv_stop_reason */
};

struct xlv_msg_status {
    struct xlv_msg_header h;
    uint32_t tpm_version;
    struct xlv_uuid uuid;
    uint64_t instance;
    uint32_t domid, devid, ring_ref, event_channel;
    uint64_t generation; /* of the store */
    uint64_t sequence;   /* commands executed in this boot of the domain */
    uint64_t commits;    /* durable commits by this process */
    uint64_t recovered;  /* 1: this process resumed the boot from the journal */
};

#endif
