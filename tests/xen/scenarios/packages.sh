# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# Debian packages under a guest that uses its TPM: installed, xl-vtpmd restarted, upgraded, removed, installed again: sessions, keys, PCRs and NV go on; a purge keeps the TPMs unless it is told not to.
# needs: packages
# limit: 600 s

uuid=9a0b7c1d-6e2f-4f0a-8b3c-7d5e9f1a2b03
uuid2=9a0b7c1d-6e2f-4f0a-8b3c-7d5e9f1a2b04
backend=/usr/libexec/xl-vtpm/vtpm-backend
states=/var/lib/xl-vtpm
# It is the init script's daemon here, with its own log and pid file.
daemon_log=/var/log/xl-vtpmd.log
ln -sfn /run/xl-vtpmd.pid "$state/daemon.pid"
export DEBIAN_FRONTEND=noninteractive
# Without an init, as here, invoke-rc.d does nothing unless it is told to.
printf '#!/bin/sh\nexit 0\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

# dpkg_does WHAT ARGS… - its output in the log, and as $dpkg_said
dpkg_does() {
    local start status=0
    start=$(now)
    # a file: what it starts may keep its output open
    dpkg "${@:2}" >"$state/dpkg-output" 2>&1 </dev/null || status=$?
    dpkg_said=$(<"$state/dpkg-output")
    log "$1 took $(since "$start") s: $dpkg_said"
    return $status
}
service() { /etc/init.d/xl-vtpmd "$1" >>"$logs/log" 2>&1 </dev/null; }
# purge_told true|false - what the administrator answers
purge_told() {
    printf 'xl-vtpm xl-vtpm/purge-states boolean %s\n' "$1" | debconf-set-selections
    dpkg_does purge -P xl-vtpm
}
inode() { stat -L -c %i "$1"; }
# inode_of PID - of the program that it runs, replaced or not
inode_of() { inode "/proc/$1/exe"; }

step "install the packages on a machine without us"
daemon_reset
tar -tf /share/tree.tar | grep -v '/$' | sed 's|^\./|/|' | xargs rm -f
succeeds "the packages install" dpkg_does install -i /share/debs/{xl-vtpm,libxlvtpm1}_*.deb
succeeds "the service runs then" service status
like "and is enabled at boot" "$(ls /etc/rc2.d)" 'S[0-9]+xl-vtpmd'
like "xl-vtpm is content" "$(xl-vtpm status)" 'ready|serv|devices'

step "a guest with a session, a transient key, an extended PCR, that counts all along"
guest_up upgrade "backend=0,uuid=$uuid"
guest_tpm upgrade
tpm_begins upgrade
pcr_before=$(guest_run upgrade 'tpm2_pcrread sha256:10')
counting_start upgrade
old=$(backend_pid "$uuid")

step "the init script stops and starts xl-vtpmd"
succeeds "stop" service stop
fails "status says that it does not run" service status
succeeds "the backend serves on without a daemon" counting_goes_on
succeeds "start" service start
succeeds "a second start is content, too" service start
is "a restarted daemon keeps the backend" "$(backend_pid "$uuid")" "$old"
all_goes_on "after the restart"

step "upgrade to the next version"
old_program=$(inode "$backend") old_daemon=$(daemon_pid)
succeeds "the upgrade succeeds" dpkg_does upgrade -i /share/debs/next/*.deb
like "the version is the next" "$(dpkg-query -W xl-vtpm)" '\+next$'
isnt "its program is another file (else this shows nothing)" "$(inode "$backend")" "$old_program"
isnt "the daemon was restarted" "$(daemon_pid)" "$old_daemon"
is "the new daemon runs" "$(inode_of "$(daemon_pid)")" "$(inode "$(command -v xl-vtpmd)")"
is "and keeps the backend" "$(backend_pid "$uuid")" "$old"
is "which runs the old program still" "$(inode_of "$old")" "$old_program"
all_goes_on "after the upgrade"

step "a new guest"
guest_up upgrade2 "backend=0,uuid=$uuid2"
guest_tpm upgrade2
is "a new guest has the new program" "$(inode_of "$(backend_pid "$uuid2")")" "$(inode "$backend")"
succeeds "and its TPM works" guest_run -t 60 upgrade2 'tpm2_getrandom --hex 8'
guest_destroy upgrade2

step "the old backend dies"
kill -KILL "$old"
wait_for 30 backend_is_not "$uuid" "$old"
is "the new program takes over" "$(inode_of "$(backend_pid "$uuid")")" "$(inode "$backend")"
all_goes_on "after the change of programs under it"

step "remove the package while the guest runs, and install it again"
old=$(backend_pid "$uuid")
succeeds "the removal succeeds" dpkg_does remove -r xl-vtpm
like "it tells whose TPM is served no more" "$dpkg_said" "have a TPM of this host now: $(guest_domid upgrade) "
fails "there is no daemon" pgrep -x xl-vtpmd
succeeds "the guest goes on all the same" counting_goes_on
succeeds "the states are kept" test -s "$states/vtpm.db"
succeeds "it installs again" dpkg_does reinstall -i /share/debs/next/xl-vtpm_*.deb
is "the daemon finds the backend again" "$(backend_pid "$uuid")" "$old"
all_goes_on "after the removal"
counting_ends
like "a reboot gives the guest the same TPM" \
    "$(guest_reboot_by_xl upgrade && guest_tpm upgrade && tpm2_nv upgrade 0x1500021)" '^before$'

step "purge"
dpkg_does remove -r xl-vtpm
cp "$daemon_log" "$logs/xl-vtpmd.log"
succeeds "told to delete, but a guest runs: the purge succeeds" purge_told true
like "and says why it keeps the TPMs" "$dpkg_said" 'kept, as running guests use'
succeeds "it does" test -s "$states/vtpm.db"
guest_destroy upgrade || true # nobody serves: libxl waits, and says so
dpkg_does install -i /share/debs/xl-vtpm_*.deb
guest_create upgrade
guest_wait upgrade
guest_tpm upgrade
is "installed again, older even: the same TPM" "$(tpm2_nv upgrade 0x1500021)" before
guest_destroy upgrade
succeeds "not asked, a purge succeeds" dpkg_does purge -P xl-vtpm
succeeds "and keeps the TPMs" test -s "$states/vtpm.db"
like "which it says" "$dpkg_said" "the TPMs are kept in $states"
fails "the configuration is gone" test -e /etc/xen/xl-vtpm.conf
dpkg_does install -i /share/debs/xl-vtpm_*.deb
succeeds "told to delete, it succeeds" purge_told true
fails "and they are gone" test -e "$states"
unlike "nothing but the kill was alarming" \
    "$(grep -viE 'ended without a word' "$logs/xl-vtpmd.log" || true)" "$alarming"
dpkg -P libxlvtpm1 >>"$logs/log" 2>&1
tar -C / --keep-directory-symlink --no-overwrite-dir -xf /share/tree.tar
