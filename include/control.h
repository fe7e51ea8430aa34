/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket of xl-vtpmd: <run-dir>/control.sock, SOCK_SEQPACKET,
 * mode 0600, peers checked by SO_PEERCRED; with control-group mode 0660, and its
 * members (SO_PEERGROUPS) get "refused" for what is not list, show, stats, ek-cert,
 * check, status or monitor.
 *
 * A message is one JSON object in UTF-8, at most XLV_CONTROL_REQUEST_MAX bytes
 * towards the daemon and XLV_CONTROL_MESSAGE_MAX from it. The kernel bounds a
 * packet by the sender's buffer (some 200 KB unless privileged), so a message
 * travels in pieces: each packet is one byte, '+' (more of this message
 * follows) or '.' (this is its last), and then 1 to XLV_CONTROL_PACKET_MAX - 1
 * bytes of the JSON text. A peer that sends anything else is disconnected.
 * libxl-vtpm/control.h has the code for both sides.
 *
 * One request, one reply, in turn, any number of times per connection:
 *
 *     -> {"call": "list"}
 *     <- {"ok": true, "result": [...]}
 *     <- {"ok": false, "code": "in use", "error": "sentence for people"}
 *
 * "code" is one of: not found, exists, invalid, in use, refused, damaged,
 * wrong key, wrong owner, too new, failed. With "failed" a member "errno" holds
 * the number where there is one.
 *
 * Calls and results (unknown members are ignored by both sides, unknown calls
 * are an error "invalid"):
 *     list   {deleted?}       array of instances, see "instance"; deleted true: of those that are
 *                             deleted, else of the others
 *     show   {uuid|number}    instance
 *     stats  {uuid|number?}   array of statistics, of one instance or of those not deleted
 *     ek-cert {uuid|number}   instance, with keys and certificates (PEM) in "endorsement"
 *     create {uuid?, tpm_version?, label?}         instance
 *     bind   {domain, devid?, uuid|number}         instance
 *     unbind {domain, devid?}                      null
 *     make   {uuid|number}    instance; its TPM, if it is new, is made now and not at its first use
 *     release {uuid|number}   instance; out of quarantine ("invalid" where it is not in)
 *     label  {uuid|number, label}                  instance; "" takes the label away
 *     delete {uuid|number}    instance, which is a tombstone now ("in use", "refused")
 *     undelete {uuid|number}  instance ("invalid" where it is not deleted)
 *     purge  {uuid|number} or {expired: true}      {purged: count}
 *     check  {uuid?, domain?, devid?}              {rule, instance?, reason?}
 *     freeze {domain, domain_uuid}  {domid, mark, vtpms: [{devid, uuid}]}; see below
 *     monitor                 null, and from then on the connection only tells: see below
 *     status                  {version, pid, devices, instances, refusals: [...]}
 *
 * uuid, domain, label: strings; number, devid (0 where missing): integers;
 * tpm_version: "1.2" or "2.0".
 *
 * check changes nothing. rule: "uuid", "binding", "assigned" (would become a
 * new instance; "instance" then has tpm_version only) or "refused" ("reason"
 * is a sentence). Without uuid: for a line that gives none, where libxl makes
 * up one that nobody knows.
 *
 * freeze answers when the domain is suspended and the state of its TPMs is in their stores; mark
 * is that of domain.h, -1 unknown, uuid the instance's. They are not served until the client closes
 * the connection. For xl-vtpm-move, which hands them over (docs/migration.md).
 *
 * monitor: each line that the daemon logs is a reply of its own, with the result
 * {time, level, domid, devid, uuid, instance, text}; domid to instance are null where the line is
 * not about one; level: "error", "warning", "notice", "info", "debug". A client that does not keep
 * up loses lines, and gets {lost: count} in their place.
 *
 * instance: {number, uuid, tpm_version, life, created, last_used,
 *            last_domain, last_domain_uuid, label, directory, deleted,
 *            bindings: [{domain, devid, origin}],
 *            device: null | {domid, devid, state, pid, generation, commands,
 *                            commits, recovered, attached},
 *            last_refusal: null | {time, domid, devid, reason}}
 * device: whose instance it is, also while the driver of its guest is unloaded and the boot goes on
 * (state "holding", "closed" or "undecided").
 * statistics: {number, uuid, domain: last_domain, tpm_version, processes, commands, failed, cancelled,
 *              commits, failed_commits, latency, durable_latency} (statistics.h; all 0 where nothing
 *              was counted); latency: {sum_seconds, buckets: [{le: seconds | null, count}]}, count
 *              with those below, le null in the last, which so has all
 * show has also endorsement: [{kind, key_fingerprint?, serial?, certificate_fingerprint?}], what
 * was noted when its TPM was made; ek-cert there public_key? and certificate?. kind: "rsa2048",
 * "p384", "p256" or "platform"; fingerprints are SHA-256 of the DER in hex.
 * life: "new", "ready", "quarantined". origin: "automatic" (made at the use of
 * the instance) or "administrator" (by bind). Times are RFC 3339 in UTC or null.
 *
 * Where no daemon runs the command answers all but status and monitor from the files itself,
 * with "device" null.
 */
#ifndef XLV_CONTROL_H
#define XLV_CONTROL_H

#define XLV_CONTROL_SOCKET "control.sock"

#endif
