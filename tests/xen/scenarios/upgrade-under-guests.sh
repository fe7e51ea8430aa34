# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# xl-vtpmd restarted, then all programs replaced, under a guest that uses its TPM: sessions, keys, PCRs and NV go on; a new guest has the new programs.
# limit: 600 s

uuid=9a0b7c1d-6e2f-4f0a-8b3c-7d5e9f1a2b03
backend=/usr/libexec/xl-vtpm/vtpm-backend

inode() { stat -L -c %i "$1"; }
# inode_of PID - of the program that it runs, replaced or not
inode_of() { inode "/proc/$1/exe"; }
# replace FILE - as a package manager does: a new file, renamed over the old. What
# stands behind the end of an ELF changes nothing but which file it is.
replace() {
    cp -p "$1" "$1.new"
    printf 'another build' >>"$1.new"
    mv "$1.new" "$1"
}
goes_on() { # WHEN
    counting_goes_on
    tpm_goes_on -w "$1" beside_counting
    is "$1: PCR 10 is as it was" \
        "$(beside_counting 'tpm2_pcrread sha256:10')" "$pcr_before"
}

step "a guest with a session, a transient key, an extended PCR, that counts all along"
daemon_reset
daemon_start
guest_up upgrade "backend=0,uuid=$uuid"
guest_tpm upgrade
tpm_begins upgrade
pcr_before=$(guest_run upgrade 'tpm2_pcrread sha256:10')
counting_start upgrade
goes_on "before all that"
old=$(backend_pid "$uuid")

step "stop and start xl-vtpmd, as systemctl restart would"
daemon_stop
succeeds "the backend serves on without a daemon" counting_goes_on
daemon_start
is "a restarted daemon keeps the backend" "$(backend_pid "$uuid")" "$old"
goes_on "after the restart"

step "replace xl-vtpmd and vtpm-backend, restart xl-vtpmd"
old_program=$(inode "$backend")
replace "$backend"
replace "$(command -v xl-vtpmd)"
isnt "the program on the disk is another one (else this shows nothing)" \
    "$(inode "$backend")" "$old_program"
daemon_stop
daemon_start
is "the new daemon runs" "$(inode_of "$(daemon_pid)")" "$(inode "$(command -v xl-vtpmd)")"
is "and keeps the backend" "$(backend_pid "$uuid")" "$old"
is "which runs the old program still" "$(inode_of "$old")" "$old_program"
goes_on "after the upgrade"

step "a new guest"
guest_up upgrade2 "backend=0,uuid=9a0b7c1d-6e2f-4f0a-8b3c-7d5e9f1a2b04"
guest_tpm upgrade2
is "a new guest has the new program" \
    "$(inode_of "$(backend_pid 9a0b7c1d-6e2f-4f0a-8b3c-7d5e9f1a2b04)")" "$(inode "$backend")"
succeeds "and its TPM works" guest_run -t 60 upgrade2 'tpm2_getrandom --hex 8'

step "the old backend dies"
kill -KILL "$old"
wait_for 30 backend_is_not "$uuid" "$old"
is "the new program takes over" "$(inode_of "$(backend_pid "$uuid")")" "$(inode "$backend")"
goes_on "after the change of programs under it"

counting_ends
unlike "nothing but the kill was alarming" \
    "$(daemon_log_since 0 | grep -viE 'ended without a word' || true)" "$alarming"
