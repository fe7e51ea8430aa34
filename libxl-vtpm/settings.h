/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Settings: /etc/xen/xl-vtpm.conf, "key = value" lines, '#' comments; the man
 * page xl-vtpm.conf(5) documents every key. Unknown keys, double keys and
 * values that do not parse are refused with file and line.
 *
 *   key                    default                                    meaning
 *   state-dir              /var/lib/xl-vtpm                           registry, instances
 *   shared-dir             ""                                         instances, see share.h
 *   run-dir                /run/xl-vtpm                               sockets, journals
 *   backend-program        <libexecdir>/xl-vtpm/vtpm-backend
 *   backend-user           xl-vtpm, where it exists                   user of backends ("" = ours)
 *   backend-uid-base       2013265920                                 first uid of instances (0: none)
 *   backend-uid-count      65536                                      how many there are
 *   control-group          "" (root only)                             group that may look
 *   default-tpm-version    2.0                                        2.0 or 1.2
 *   unknown-uuid           assign                                     assign or refuse
 *   late-attach            allow                                      allow or refuse
 *   untold-boot            refuse                                     refuse or created
 *   deleted-kept           30                                         days
 *   measure-boot           off                                        on or off
 *   domain-config-dir      /var/lib/xen                               where libxl notes domains
 *   max-locality           0                                          0 to 4
 *   pcr-banks              sha256                                     of new TPMs 2.0: sha1, sha256,
 *                                                                     sha384, sha512
 *   master-key             file:<state-dir>/master.key                file:PATH,
 *                                                                     credential:NAME, none
 *   ca-key                 file:<state-dir>/ca.key                    file:PATH, a URI of
 *                                                                     OSSL_STORE, none
 *   ca-certificate         <state-dir>/ca.pem                         PATH
 *   ca-issuer-url          ""                                         for its certificates
 *   ca-crl-url             ""                                         the same
 *   log-level              info
 */
#ifndef XLV_SETTINGS_H
#define XLV_SETTINGS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/log.h"
#include "include/launch.h"
#include "libxl-vtpm/registry.h"

enum xlv_key_provider { XLV_KEY_FILE, XLV_KEY_CREDENTIAL, XLV_KEY_NONE };

struct xlv_settings {
    char *shared_dir; /* "": none; owned */
    char *state_dir, *run_dir, *backend_program, *backend_user; /* owned */
    char *control_group; /* "": none; owned */
    uint32_t backend_uid_base, backend_uid_count; /* base 0: backend_user for all */
    enum xlv_tpm_version default_tpm_version;
    enum xlv_unknown_uuid unknown_uuid;
    bool refuse_late_attach;  /* of a device to a domain that runs already */
    bool untold_is_created;   /* domains of which it cannot be told: else refused */
    bool measure_boot; /* of domains whose instance does not say */
    char *domain_config_dir; /* owned */
    unsigned max_locality;
    uint32_t deleted_kept_days; /* until xl-vtpm purge --expired ends it */
    uint32_t pcr_banks; /* of enum xlv_bank, at least one */
    enum xlv_key_provider key_provider;
    char *key_source; /* path or credential name; owned */
    char *ca_key;     /* a URI; "": no local CA; owned */
    char *ca_certificate, *ca_issuer_url, *ca_crl_url; /* owned */
    enum xlv_log_level log_level;
};

/* The built-in defaults. */
int xlv_settings_init(struct xlv_settings *settings);
void xlv_settings_deinit(struct xlv_settings *settings);

/*
 * Reads path over the defaults. path NULL: the default path, which may be
 * missing; a path that was given must exist. On error settings is as after
 * deinit and e names file, line and reason.
 */
int xlv_settings_load(struct xlv_settings *settings, const char *path, struct xlv_error *e);

/* Where the journal of the instance of that number is, or would be. */
void xlv_settings_journal(const struct xlv_settings *settings, uint64_t number,
                          char path[PATH_MAX]);

/* Where in shared-dir the instance of that uuid is, or would be (share.h). XLV_E_INVALID: there
 * is no shared-dir. */
int xlv_settings_shared(const struct xlv_settings *settings, const struct xlv_uuid *uuid,
                        char path[XLV_DIRECTORY_MAX + 1], struct xlv_error *e);

#endif
