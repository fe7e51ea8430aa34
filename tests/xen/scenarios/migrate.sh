# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# xl migrate -s to another Xen: the guest's TPM goes on there, PCRs, session, transient key and NV; it goes on here if that fails.
# limit: 1500 s
# needs: peer

uuid=7e1f0c52-3b64-4f0e-9d5c-5a0c8b1d2e3f
# Xen refuses to log the dirty pages of a PV guest on this machine (EINVAL): no live migration of one
guest_type=pvh

rsh="bash /share/harness/dom0/rsh"
# there COMMAND - in the other host, with the scenarios' helpers; its output and status
there() {
    local out status command
    log "there: $1"
    command=$(base64 -w 0 <<<"scenario=migrate
. /share/harness/dom0/lib.sh
set +e
trap - ERR
{ $1
} 2>&1 </dev/null
printf '\nstatus %s' \$?")
    exec 3<>"/dev/tcp/$PEER/7000" || return 255
    printf 'eval "$(base64 -d <<<%s)"\n' "$command" >&3
    out=$(cat <&3)
    exec 3>&-
    status=${out##*status }
    out=${out%$'\n'status *}
    printf '    %s\n' "${out//$'\n'/$'\n'    }" >>"$logs/log"
    printf '%s' "${out%$'\n'}"
    return "${status:-255}"
}
# migrate NAME HOST TRANSPORT
migrate() {
    local start status=0
    start=$(now)
    migrate_output=$(timeout -k 5 400 xl migrate -s "xl-vtpm-move -e '$3' migrate" "$1" "$2" 2>&1) ||
        status=$?
    log "$1: xl migrate: status $status after $(since "$start") s"
    printf '    %s\n' "${migrate_output//$'\n'/$'\n'    }" >>"$logs/log"
    return $status
}
# The guest's device has another number after it has migrated.
reconnect='wait_for 60 guest_tty moving
guest_run -t 60 moving "tpm=\$(ls /sys/bus/xen/devices/vtpm-0/tpm); [ \$tpm = tpm0 ] || ln -sf \$tpm /dev/tpm0"'
session='tpm2_nvread 0x1500021 -C o -P session:/tmp/session'
transient='tpm2_readpublic -Q -c /tmp/primary && tpm2_flushcontext -t'
handover() { xl-vtpm show --json "$uuid" | jq -r '.handover.state // "held"'; }

step "two Xens, and a guest with an extended PCR, a session and a transient key on the first"
wait_for 500 there true
daemon_reset
daemon_start
there 'daemon_reset; daemon_start'
guest_up moving "backend=0,uuid=$uuid"
guest_tpm moving
guest_run -t 120 moving 'set -e
    printf before >/tmp/text
    tpm2_nvdefine 0x1500021 -Q -C o -s 6 -a "ownerread|ownerwrite"
    tpm2_nvwrite 0x1500021 -C o -i /tmp/text
    tpm2_createprimary -Q -C o -G ecc -c /tmp/primary
    tpm2_flushcontext -t
    tpm2_startauthsession -S /tmp/session --hmac-session'
pcr_extend moving 10
pcr10=$(pcr moving 10)

step "a domain of that name is there already: the guest cannot start, and goes on here"
there 'guest_config moving ""; xl create -p "$guests/moving/cfg"'
if migrate moving "$PEER" "$rsh"; then
    fail "the migration fails" "$migrate_output"
else
    pass "the migration fails"
fi
like "at the last step of all" "$migrate_output" 'Target reports startup failure'
like "and xl resumes the guest" "$migrate_output" 'Resumed OK'
is "this host has the TPM" "$(handover)" held
is "the other one gave it back" "$(there "xl-vtpm show --json $uuid | jq -r .handover.state")" departed
wait_for 60 guest_tty moving
is "PCR 10 is as it was" "$(pcr moving 10)" "$pcr10"
is "the guest's session is still good" "$(guest_run -t 60 moving "$session")" before
succeeds "its transient key is still good" guest_run -t 60 moving "$transient"
pcr_extend moving 10
pcr10=$(pcr moving 10)
there 'xl destroy moving'

step "it migrates"
migrate moving "$PEER" "$rsh" || fail "the migration succeeds" "$migrate_output"
is "the other host has the TPM" "$(there "xl-vtpm show --json $uuid | jq -r '.handover.state // \"held\"'")" held
is "this one has not" "$(handover)" departed
succeeds "no backend is left here" wait_for 10 eval '! pgrep vtpm-backend'
is "the guest is gone from here" "$(guest_domid moving || echo gone)" gone
there "$reconnect"
is "PCR 10 is as it was" "$(there 'pcr moving 10')" "$pcr10"
is "its session is still good" "$(there "guest_run -t 60 moving '$session'")" before
succeeds "its transient key is still good" there "guest_run -t 60 moving '$transient'"
succeeds "it goes on there" there 'pcr_extend moving 10'
isnt "and its PCR with it" "$(there 'pcr moving 10')" "$pcr10"

step "a new guest with that TPM is refused here"
guest_config another "backend=0,uuid=$uuid"
if guest_create another; then
    fail "its creation fails" "it succeeded"
else
    pass "its creation fails"
fi
like "the log says where it is" "$(<"$daemon_log")" "departed .other host: $PEER"
there 'xl destroy moving'
