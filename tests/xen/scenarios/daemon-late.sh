# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# xl-vtpmd started while xl create already waits: within libxl's 10 seconds the guest comes up with its TPM.
# limit: 240 s

uuid=5d3f5bb8-35a7-4c3c-8f5b-6a0c8dcb5e02

# The frontend node, too, would do: libxl writes both in one transaction, then
# waits 10 s for the backend's state.
waiting() { [[ -n $(xenstore-list /local/domain/0/backend/vtpm 2>/dev/null) ]]; }

# late_start - into $late, by how much; sets $status of xl create
late_start() {
    local creator began
    (
        status=0
        guest_create late || status=$?
        printf '%s %s\n' "$status" "$xl_seconds" >"$logs/create"
    ) &
    creator=$!
    wait_for 30 waiting
    began=$(now)
    # Not a wait for something to happen: the delay is what is tested.
    sleep 4
    daemon_start
    late=$(since "$began")
    wait "$creator"
    read -r status seconds <"$logs/create"
    step "the daemon served $late s after libxl began to wait; xl create took $seconds s: status $status"
}

step "xl create with no daemon; it is started while libxl waits"
guest_config late "backend=0,uuid=$uuid"
for attempt in 1 2 3; do
    daemon_reset
    late_start
    # On a machine too busy to be late by less than 10 s this shows nothing.
    [[ ${late%.*} -ge 9 && $attempt -lt 3 ]] || break
    step "too late to be in time; once more"
    [[ $status -ne 0 ]] || guest_destroy late
    daemon_stop
done
is "xl create succeeds with a daemon $late s late" "$status" 0
[[ $status -eq 0 ]]
guest_wait late
guest_tpm late
like "the guest has its TPM" "$(guest_run -t 60 late 'tpm2_getrandom --hex 8')" '^[0-9a-f]{16}$'
is "and is bound to its uuid" "$(xs "$(vtpm_backend "$(guest_domid late)")/uuid")" "$uuid"

step "xl-vtpm doctor, with the daemon and without"
status=0
xl-vtpm doctor >"$logs/doctor" 2>&1 || status=$?
is "the doctor finds no problem on a healthy host" \
    "$status $(grep -A1 '^problem' "$logs/doctor")" "0 "
like "having compared xenstore with the processes" "$(<"$logs/doctor")" \
    '^ok +processes: 1 devices in xenstore, 1 backend processes'
daemon_stop
like "it names a daemon that is missing" "$(xl-vtpm doctor 2>&1)" \
    '^problem +daemon: no xl-vtpmd runs'
daemon_start
