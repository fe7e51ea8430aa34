# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# vtpm-backend and xl-vtpmd killed under a guest that uses its TPM all along: no command fails, none runs twice, PCRs stay.
# limit: 1800 s

# How many of each: the host's XLV_PROCESS_KILLS.
uuid=6b1d5c0e-2f5a-4d0b-9c7e-51f2a8e7c003
kills=${PROCESS_KILLS:-8}

step "a guest that counts in its TPM, and again and again"
daemon_reset
daemon_start
guest_up kills "backend=0,uuid=$uuid"
guest_tpm kills
pcr_extend kills 10
pcr_before=$(pcr kills 10)
counting_start kills

step "kill -9 of vtpm-backend, $kills times"
for ((i = 1; i <= kills; i++)); do
    old=$(backend_pid "$uuid")
    kill -KILL "$old"
    wait_for 30 backend_is_not "$uuid" "$old"
    counting_goes_on
done
pass "the guest's commands go on after each of $kills kills of vtpm-backend"

step "kill -9 of xl-vtpmd, $kills times"
alone=0
for ((i = 1; i <= kills; i++)); do
    old=$(backend_pid "$uuid")
    kill -KILL "$(daemon_pid)"
    counting_goes_on
    daemon_start
    [[ $(backend_pid "$uuid") == "$old" ]] || alone=$((alone + 1))
    counting_goes_on
done
pass "and without xl-vtpmd and with a new one, $kills times"
is "no kill of xl-vtpmd changed the backend" "$alone of $kills did" "0 of $kills did"

counting_ends
is "PCR 10 is as it was" "$(pcr kills 10)" "$pcr_before"
note "$scenario: $counted commands in the guest, $((2 * kills)) kills"
