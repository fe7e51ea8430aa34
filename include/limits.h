/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every hard maximum of libxl-vtpm, with its reason.
 *
 * A value from outside (the guest, xenstore, a file, another process) is
 * compared with its limit before anything is allocated or copied.
 */
#ifndef XLV_LIMITS_H
#define XLV_LIMITS_H

/* Xen grants and maps memory in 4 KiB pages on every architecture it has. */
#define XLV_PAGE_SIZE 4096u

/*
 * Largest TPM command and response. libtpms is built with MAX_COMMAND_SIZE and
 * MAX_RESPONSE_SIZE 4096 for TPM 2.0 and TPM_BUFFER_MAX 4096 for TPM 1.2.
 */
#define XLV_TPM_BUFFER_MAX 4096u

/*
 * Pages after the shared one that a request may name (tpmif.h,
 * nr_extra_pages). They are not mapped (ring.h), so this only tells a frontend
 * that rounds up, or has them in reserve, from one that makes no sense.
 */
#define XLV_EXTRA_PAGES_MAX 2u

/* TPM localities are 0 to 4 (TCG PC Client PTP); only 0 is a guest's by default. */
#define XLV_LOCALITY_MAX 4u

/*
 * Largest permanent and volatile state. A TPM 2.0 with its NV full takes
 * 147 KB of permanent state; volatile state was never above 13 KB. The limit
 * leaves room for later libtpms and stops a wrong length from allocating much.
 */
#define XLV_PERMANENT_MAX (1024u * 1024u)
#define XLV_VOLATILE_MAX (256u * 1024u)

/* An X.509 certificate in a TPM: libtpms's MAX_NV_INDEX_SIZE, and all that TPM 1.2 has of NV. */
#define XLV_CERTIFICATE_MAX 2048u

/* xenstore's own maximum of a payload (XENSTORE_PAYLOAD_MAX) and of a path. */
#define XLV_XENSTORE_VALUE_MAX 4096u
#define XLV_XENSTORE_PATH_MAX 3072u

/* Domain ids are below DOMID_FIRST_RESERVED (xen.h). */
#define XLV_DOMID_MAX 0x7fefu

/* libxl numbers a domain's vtpm devices from 0; nobody has more than a few. */
#define XLV_DEVID_MAX 255u

/* Grant references are 32 bit, event channel ports below 2^17 (FIFO ABI). */
#define XLV_EVTCHN_PORT_MAX 131071u

/* A domain name: xl takes anything; xenstore's value is the only bound. */
#define XLV_DOMAIN_NAME_MAX 255u

/* A label that an administrator gives an instance. */
#define XLV_LABEL_MAX 255u

/* The other host of a handover, for people: a host name (RFC 1035) with a user. */
#define XLV_HANDOVER_PEER_MAX 255u

/*
 * Boot measurement. A command line: Linux takes 2048 bytes on x86, 4096 at most
 * elsewhere. A file's name in the log is for people: what is longer is cut. The
 * toolstack's configuration of a domain: a few KB, more with hundreds of disks.
 */
#define XLV_COMMAND_LINE_MAX 4096u
#define XLV_FILE_NAME_MAX 511u
#define XLV_DOMAIN_CONFIG_MAX (1024u * 1024u)

/*
 * One entry of `vtpm = [ ... ]`: two keys, a uuid and a domain name. xl has no
 * limit, so a longer one is parsed as xl does, with a warning.
 */
#define XLV_SPEC_MAX 512u

/* The configuration file: a few dozen lines with comments. */
#define XLV_CONFIG_FILE_MAX (256u * 1024u)
#define XLV_CONFIG_LINE_MAX 1024u

/* One message on the control socket: the list of 10,000 instances fits. */
#define XLV_CONTROL_MESSAGE_MAX (8u * 1024u * 1024u)
#define XLV_CONTROL_CLIENTS_MAX 64u
#define XLV_CONTROL_MEMBERS_MAX 48u /* of them of control-group, which may only look */

/* A request names one instance; a reply of 8 MiB cannot be one packet, see control.h. */
#define XLV_CONTROL_REQUEST_MAX (64u * 1024u)
#define XLV_CONTROL_PACKET_MAX (32u * 1024u)

/* Devices one daemon serves: processes, and xenstore watches of one connection. */
#define XLV_DEVICES_MAX 4096u

/*
 * What a backend may have in its sandbox. Files: those of its LAUNCH, three
 * standard ones, two Xen devices, a signalfd, the daemon and a daemon that
 * takes its place, and a few for libraries. File size: no file of ours comes
 * near; a runaway write must not fill a disk. Memory, data of its own
 * (RLIMIT_DATA): a TPM with its NV full that makes RSA keys is content with
 * 2 MiB (tests/sandbox/test-commands); the largest states that a store takes
 * are some 6 MiB in all the copies there are of them at a time.
 */
#define XLV_BACKEND_FILES_MAX 32u
#define XLV_BACKEND_FILE_SIZE_MAX (64u * 1024u * 1024u)
#define XLV_BACKEND_MEMORY_MAX (32u * 1024u * 1024u)

/* Text for people that a process passes to another, terminating NUL included. */
#define XLV_TEXT_MAX 512u

#endif
