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
} 2>>\"\$logs/errors\" </dev/null
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
there_guest_run() { there "guest_run -t 60 moving '$1'"; }
handover() { xl-vtpm show --json "$uuid" | jq -r '.handover.state // "held"'; }
# migrate NAME HOST TRANSPORT - A guest on a busy emulated machine may not suspend in the minute that
# libxl has for it; if its TPM is where it was, that is counted and tried again.
unsuspended=0
migrate() {
    local start status
    for _ in 1 2 3; do
        start=$(now)
        status=0
        migrate_output=$(timeout -k 5 400 xl migrate -s "xl-vtpm-move -e '$3' migrate" "$1" "$2" 2>&1) ||
            status=$?
        log "$1: xl migrate: status $status after $(since "$start") s"
        printf '    %s\n' "${migrate_output//$'\n'/$'\n'    }" >>"$logs/log"
        [[ $migrate_output == *'did not respond to suspend request'* && $(handover) == held ]] || break
        unsuspended=$((unsuspended + 1))
    done
    return $status
}

step "two Xens, and a guest with an extended PCR, a session and a transient key on the first"
wait_for 500 there true
daemon_reset
daemon_start
there 'daemon_reset; daemon_start'
guest_up moving "backend=0,uuid=$uuid"
guest_tpm moving
tpm_begins moving
pcr10=$(pcr moving 10)

step "a domain of that name is there already: the guest cannot start, and goes on here"
there 'guest_config moving ""; xl create -p "$guests/moving/cfg"'
fails "the migration fails" migrate moving "$PEER" "$rsh"
like "at the last step of all" "$migrate_output" 'Target reports startup failure'
like "and xl resumes the guest" "$migrate_output" 'Resumed OK'
is "this host has the TPM" "$(handover)" held
is "the other one gave it back" "$(there "xl-vtpm show --json $uuid | jq -r .handover.state")" departed
wait_for 60 guest_tty moving
is "PCR 10 is as it was" "$(pcr moving 10)" "$pcr10"
tpm_goes_on guest_run -t 60 moving
pcr_extend moving 10
pcr10=$(pcr moving 10)
there 'xl destroy moving'

step "it migrates"
succeeds "the migration succeeds" migrate moving "$PEER" "$rsh"
is "the other host has the TPM" "$(there "xl-vtpm show --json $uuid | jq -r '.handover.state // \"held\"'")" held
is "this one has not" "$(handover)" departed
succeeds "no backend is left here" wait_for 10 eval '! pgrep vtpm-backend'
is "the guest is gone from here" "$(guest_domid moving || echo gone)" gone
there 'reconnect moving'
is "PCR 10 is as it was" "$(there 'pcr moving 10')" "$pcr10"
tpm_goes_on there_guest_run
succeeds "it goes on there" there 'pcr_extend moving 10'
isnt "and its PCR with it" "$(there 'pcr moving 10')" "$pcr10"

step "a new guest with that TPM is refused here"
guest_config another "backend=0,uuid=$uuid"
fails "its creation fails" guest_create another
like "the log says where it is" "$(<"$daemon_log")" "departed .other host: $PEER"
there 'xl destroy moving'
[[ $unsuspended -eq 0 ]] ||
    step "(tries at which the guest's kernel did not suspend in libxl's minute, nothing handed over: $unsuspended)"
