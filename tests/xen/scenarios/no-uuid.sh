# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# No uuid in the line: the guest gets a TPM, and the same one at its next create; the log says by which rule.
# limit: 480 s

step "create a guest with vtpm = [ 'backend=0' ]"
daemon_reset
daemon_start
guest_up nouuid 'backend=0'
guest_tpm nouuid
guest_run -t 120 nouuid "set -e
    printf 'mine' >/tmp/text
    tpm2_nvdefine 0x1500001 -Q -C o -s 4 -a 'ownerread|ownerwrite'
    tpm2_nvwrite 0x1500001 -C o -i /tmp/text"
is "a guest with no uuid in its line has a TPM" "$(tpm2_nv nouuid 0x1500001)" mine
uuid_at_first=$(xs "$(vtpm_backend "$(guest_domid nouuid)")/uuid")
instance=$(xs "$(vtpm_backend "$(guest_domid nouuid)")/instance" || true)

step "destroy it and create it again: libxl makes up another uuid"
guest_destroy nouuid
mark=$(daemon_log_mark)
guest_create nouuid
guest_wait nouuid
guest_tpm nouuid
isnt "libxl made up another uuid (else this shows nothing)" \
    "$(xs "$(vtpm_backend "$(guest_domid nouuid)")/uuid")" "$uuid_at_first"
is "it has the same TPM" "$(tpm2_nv nouuid 0x1500001)" mine
is "it has the same instance" \
    "$(xs "$(vtpm_backend "$(guest_domid nouuid)")/instance" || true)" "$instance"
like "the log says by which rule" "$(daemon_log_since "$mark" | grep -i nouuid || true)" \
    'bound|binding|by (its|the|domain) *name|domain name'

step "another guest with no uuid is another TPM"
guest_up nouuid2 'backend=0'
guest_tpm nouuid2
indices=$(guest_run -t 60 nouuid2 'tpm2_getcap handles-nv-index')
is "another domain's name, another TPM" "$(grep -ic 0x1500001 <<<"$indices" || true)" 0
isnt "and another instance" \
    "$(xs "$(vtpm_backend "$(guest_domid nouuid2)")/instance" || true)" "$instance"
