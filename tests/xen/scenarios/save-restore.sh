# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# xl save and restore, PV and PVH: the TPM goes on where it was, after a reboot of the host too; another save file is refused until somebody chooses.
# limit: 900 s

uuid=3c5e7a90-1b2d-4f6e-8a9c-0d1e2f3a4b5c
files=$state/saves
mkdir -p "$files"
# in memory, which is quick, and gone with this dom0
mount -t tmpfs -o size=600m tmpfs "$files"

save() { # NAME FILE [OPTION…]
    local name=$1 file=$2
    shift 2
    xl_timed "$name" save "$@" "$name" "$file"
}
restored() { # NAME FILE
    xl_timed "$1" restore "$2"
    reconnect "$1"
}
# refused NAME FILE WHY - the restore fails, soon, and the log says why
refused() {
    local mark
    mark=$(daemon_log_mark)
    if xl_timed "$1" restore "$files/$2"; then
        fail "a restore of $2 is refused" "it succeeded"
    else
        pass "a restore of $2 is refused"
    fi
    like "the log says why" "$(daemon_log_since "$mark")" "$3"
    wait_for 30 guest_gone "$1"
}
# What a reboot of the host leaves of us: the disk.
host_rebooted() {
    daemon_stop
    rm -rf /run/xl-vtpm
    daemon_start
}
tpm_as_before() {
    is "PCR 10 is as it was" "$(pcr "$1" 10)" "$pcr10"
    tpm_goes_on guest_run -t 60 "$1"
}

step "a PV guest with an extended PCR, a session and a transient key"
daemon_reset
daemon_start
guest_up saved "backend=0,uuid=$uuid"
guest_tpm saved
tpm_begins saved

step "xl pause and unpause"
xl pause saved
xl unpause saved
pcr10=$(pcr saved 10)
isnt "PCR 10 is not zero" "$pcr10" "$pcr_zero"

step "a checkpoint, after which the guest runs on"
save saved "$files/checkpoint" -c
reconnect saved
tpm_as_before saved
pcr_extend saved 10
pcr10=$(pcr saved 10)

step "xl save, then the host is rebooted as far as we can tell"
save saved "$files/save"
# one that does not stop in time is killed, and another one keeps the state
no_backend() { ! pgrep vtpm-backend; }
succeeds "no backend is left" wait_for 10 no_backend
like "xl-vtpm show tells that the state is kept" "$(xl-vtpm show "$uuid")" "its state is kept for the restore"
host_rebooted

step "the checkpoint is not what was saved last"
refused saved checkpoint 'not certainly of that save'

step "xl restore of the save"
restored saved "$files/save"
tpm_as_before saved
like "xl-vtpm show tells that nothing is kept any more" \
    "$(xl-vtpm show --json "$uuid" | jq -c .suspended)" '^null$'

step "the same file again, when its TPM has gone on"
xl_timed saved destroy saved
refused saved save 'has gone on since that save'
xl-vtpm accept --reset "$uuid"
restored saved "$files/save"
is "as the administrator chose: PCR 10 is reset" "$(pcr saved 10)" "$pcr_zero"
is "and the NV index is there" "$(tpm2_nv saved 0x1500021)" before
xl_timed saved destroy saved
rm -f "$files/checkpoint" "$files/save"

step "a PVH guest: xl save, xl create instead of a restore, and the restore after all"
guest_type=pvh
guest_config saved-pvh "backend=0,uuid=$uuid"
guest_create saved-pvh
booted saved-pvh guest_wait
guest_tpm saved-pvh
pcr_extend saved-pvh 10
pcr10=$(pcr saved-pvh 10)
save saved-pvh "$files/save"
restored saved-pvh "$files/save"
is "PVH: PCR 10 is as it was" "$(pcr saved-pvh 10)" "$pcr10"
rm -f "$files/save"
save saved-pvh "$files/save"
guest_create saved-pvh
booted saved-pvh guest_wait
guest_tpm saved-pvh
is "a domain that is created begins with PCR 10 zero" "$(pcr saved-pvh 10)" "$pcr_zero"
xl_timed saved-pvh destroy saved-pvh
refused saved-pvh save 'has gone on since that save'
umount "$files"
