# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# xl destroy, detach and shutdown while a TPM makes a key, while its backend hangs, and of a guest that answers nothing: never as long as libxl would wait.
# limit: 900 s

uuid=7e3a1d5c-0b7f-4f55-9a55-2f6e1a7c0020
uuid12=7e3a1d5c-0b7f-4f55-9a55-2f6e1a7c0012

# took WHAT - of the xl just run: libxl's waits are ten seconds, and it says so
took() {
    at_most "$1" "$xl_seconds" 9.5
    unlike "$1: libxl has nothing to complain of" "$xl_output" 'error|timed out|unable'
    leaves_nothing "$1" "${@:2}"
}

# until_busy PID - until it has used a quarter of a second of processor more
ticks() {
    local stat
    read -r -a stat <"/proc/$1/stat"
    printf '%s' $((stat[13] + stat[14]))
}
busy() { [[ $(ticks "$1") -ge $2 ]]; }
until_busy() { wait_for 60 busy "$1" $(($(ticks "$1") + 25)); }

# served - until its driver is connected; served_again - create it once more
served() {
    wait_for 90 vtpm_states_are "$(guest_domid hung)" 0 4/4
    backend=$(backend_pid "$uuid")
}
served_again() {
    guest_create hung
    served
}

step "a guest that makes RSA keys without a pause"
daemon_reset
daemon_start
leaves_nothing "before all that"
guest_up hung "backend=0,uuid=$uuid"
guest_tpm hung
guest_run hung 'while :; do tpm2_createprimary -Q -C o -G rsa -c /tmp/key; tpm2_flushcontext -t; done >/dev/null 2>&1 &'
until_busy "$(backend_pid "$uuid")"
guest_destroy hung
took "xl destroy while a TPM 2.0 makes keys"

step "a backend that hangs"
served_again
kill -STOP "$backend"
guest_destroy hung
took "xl destroy with a backend that hangs"

served_again
kill -STOP "$backend"
xl_timed hung vtpm-detach hung 0
took "xl vtpm-detach with a backend that hangs" 0
xl_timed hung vtpm-attach hung backend=0 "uuid=$uuid"
served
kill -STOP "$backend"
xl_timed hung shutdown -w hung
wait_for 30 guest_gone hung
leaves_nothing "xl shutdown with a backend that hangs"

step "a guest that does not answer, and its backend hangs too"
served_again
kill -STOP "$backend"
xl_timed hung pause hung
xl_timed hung vtpm-detach hung 0
took "xl vtpm-detach where neither answers" 0
guest_destroy hung

step "a TPM 1.2 that makes a key"
xl-vtpm create --tpm-version 1.2 "$uuid12"
guest_up hung12 "backend=0,uuid=$uuid12"
guest_tpm hung12
guest_run -t 120 hung12 start-tcsd
guest_run hung12 'tpm_takeownership -y -z >/dev/null 2>&1 &'
until_busy "$(backend_pid "$uuid12")"
guest_destroy hung12
took "xl destroy while a TPM 1.2 makes a key"
