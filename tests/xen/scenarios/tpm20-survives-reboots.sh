# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# TPM 2.0: NV data, a persistent key and what is sealed to it survive xl reboot, a reboot from inside, destroy and create; PCRs do not.
# limit: 600 s

uuid=dcdb124b-9fed-4040-b149-dd2dfd8d094c
text="written before any reboot"

step "a freshly installed host: start xl-vtpmd, create a guest with uuid=$uuid"
daemon_reset
daemon_start
guest_up tpm20 "backend=0,uuid=$uuid"
guest_tpm tpm20
unlike "the first boot logs nothing alarming" "$(daemon_log_since 0)" "$alarming"
instance=$(xs "$(vtpm_backend "$(guest_domid tpm20)")/instance" || true)
like "the instance is written back to the backend directory" "$instance" '^[0-9]+$'
is "a new TPM's PCR 10 is zero" "$(pcr tpm20 10)" "$pcr_zero"

step "define and write an NV index, make a persistent key, seal something to it"
guest_run -t 120 tpm20 "set -e
    printf '%s' '$text' >/tmp/text
    tpm2_nvdefine 0x1500010 -Q -C o -s ${#text} -a 'ownerread|ownerwrite'
    tpm2_nvwrite 0x1500010 -C o -i /tmp/text
    tpm2_createprimary -Q -C o -G ecc -c /tmp/primary
    tpm2_evictcontrol -Q -C o -c /tmp/primary 0x81000010
    tpm2_flushcontext -t
    printf sealed | tpm2_create -Q -C 0x81000010 -i - -u /tmp/seal.pub -r /tmp/seal.priv"
guest_get tpm20 /tmp/seal.pub "$logs/seal.pub"
guest_get tpm20 /tmp/seal.priv "$logs/seal.priv"
name=$(tpm2_key_name tpm20 0x81000010)
like "the key has a name" "$name" '^000b[0-9a-f]{64}$'

# still_there HOW - after it came back; leaves PCR 10 extended, for the next.
still_there() {
    guest_tpm tpm20
    is "$1: the NV index reads as written" "$(tpm2_nv tpm20 0x1500010)" "$text"
    is "$1: the persistent key is the same" "$(tpm2_key_name tpm20 0x81000010)" "$name"
    is "$1: PCR 10 is zero again" "$(pcr tpm20 10)" "$pcr_zero"
    is "$1: it is the same instance" \
        "$(xs "$(vtpm_backend "$(guest_domid tpm20)")/instance" || true)" "$instance"
    pcr_extend tpm20 10
    isnt "$1: PCR 10 can be extended" "$(pcr tpm20 10)" "$pcr_zero"
}

pcr_extend tpm20 10
isnt "PCR 10 can be extended" "$(pcr tpm20 10)" "$pcr_zero"

step "xl reboot"
guest_reboot_by_xl tpm20
still_there "after xl reboot"

step "reboot from inside the guest"
guest_reboot_inside tpm20
still_there "after a reboot from inside"

step "xl destroy, xl create"
guest_destroy tpm20
at_most "xl destroy runs into none of libxl's 10 s waits" "$xl_seconds" 9.9
succeeds "xl destroy leaves no backend node" wait_for 5 xs_gone /local/domain/0/backend/vtpm
guest_create tpm20
guest_wait tpm20
still_there "after xl destroy and xl create"
guest_put tpm20 "$logs/seal.pub" /tmp/seal.pub
guest_put tpm20 "$logs/seal.priv" /tmp/seal.priv
is "what was sealed before all that unseals" "$(guest_run -t 90 tpm20 '
    tpm2_load -Q -C 0x81000010 -u /tmp/seal.pub -r /tmp/seal.priv -c /tmp/seal &&
        tpm2_unseal -c /tmp/seal')" sealed

succeeds "xl-vtpm list knows the instance" grep -q "$uuid" <(xl-vtpm list)
succeeds "xl-vtpm show shows it" grep -q "$uuid" <(xl-vtpm show "$uuid")
is "xl-vtpm list --json is JSON, and names it once" \
    "$(xl-vtpm list --json | jq -r '[.. | .uuid? // empty] | unique | join(",")')" "$uuid"
unlike "nothing alarming was logged in all of this" "$(daemon_log_since 0)" "$alarming"
