# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# TPM 1.2: sysfs is right, ownership taken with no TPM_SaveState after it survives a reboot, a key in it signs certificates before and after.
# limit: 600 s

uuid=0e8c3f2a-6f1d-4c55-9a53-12b7c1a5e012

# As it stands in dmesg, and as the kernel's files show it.
sysfs() { guest_run tpm12 "cat /sys/class/tpm/tpm0/$1"; }
sysfs_pcr() { sysfs pcrs | sed -n "s/^PCR-$1: *//p" | tr -d ' \n\r'; }

# What a guest's disk would keep; these guests have none.
save_disk() {
    guest_get tpm12 /var/lib/tpm/system.data "$logs/system.data"
    guest_get tpm12 /root/key "$logs/key"
}
restore_disk() {
    guest_put tpm12 "$logs/system.data" /var/lib/tpm/system.data
    guest_put tpm12 "$logs/key" /root/key
}

step "a freshly installed host: make an instance of version 1.2, create a guest with it"
daemon_reset
daemon_start
succeeds "xl-vtpm create --tpm-version 1.2 makes an instance" \
    xl-vtpm create --tpm-version 1.2 "$uuid"
guest_up tpm12 "backend=0,uuid=$uuid"
guest_tpm tpm12
unlike "the first boot logs nothing alarming" "$(daemon_log_since 0)" "$alarming"
unlike "the guest's kernel does not complain about the TPM" \
    "$(guest_run tpm12 'dmesg | grep -i tpm')" 'error|fail|timeout'

like "sysfs: caps tell TCG version 1.2" "$(sysfs caps)" '^TCG version: 1\.2'
like "sysfs: caps tell a manufacturer" "$(sysfs caps)" '^Manufacturer: 0x[0-9a-f]*[1-9a-f]'
is "sysfs: there are 24 PCRs" "$(sysfs pcrs | grep -c '^PCR-')" 24
is "sysfs: PCR 10 is zero" "$(sysfs_pcr 10)" 0000000000000000000000000000000000000000
is "sysfs: PCR 17 is all ones, as after a start" "$(sysfs_pcr 17)" FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF
is "sysfs: enabled" "$(sysfs enabled)" 1
is "sysfs: active" "$(sysfs active)" 1
is "sysfs: not deactivated for this boot" "$(sysfs temp_deactivated)" 0
is "sysfs: not owned" "$(sysfs owned)" 0

step "extend PCR 10, take ownership, make a key, sign a certificate"
# Raw, as no tool of the TSS extends PCRs: TPM_Extend, PCR 10, twenty times 'a'. Not while
# tcsd has the device.
extend() {
    guest_run tpm12 '
        printf "\000\301\000\000\000\042\000\000\000\024\000\000\000\012aaaaaaaaaaaaaaaaaaaa" >/tmp/extend
        exec 3<>/dev/tpm0
        cat /tmp/extend >&3
        head -c 30 <&3 | xxd -p | cut -c1-20'
}
is "PCR 10 can be extended" "$(extend)" 00c40000001e00000000
isnt "and then is not zero" "$(sysfs_pcr 10)" 0000000000000000000000000000000000000000
guest_run -t 120 tpm12 start-tcsd
guest_run -t 120 tpm12 'tpm_getpubek >/dev/null 2>&1 || tpm_createek'
guest_run -t 120 tpm12 'tpm_takeownership -y -z'
is "ownership is taken" "$(sysfs owned)" 1
like "tpm_version: it is a TPM 1.2" "$(guest_run -t 60 tpm12 tpm_version)" 'Version: +1\.2'
# behind the header that the PC Client specification puts before it
is "the EK's certificate is in NV, for everybody, and is the one that the host knows" \
    "$(guest_run -t 60 tpm12 'tpm_nvread -i 0x1000f000 -f /root/ek >/dev/null
        tail -c +8 /root/ek | sha256sum | cut -c1-64')" \
    "$(xl-vtpm show --json "$uuid" | jq -r '.endorsement[0].certificate_fingerprint')"
guest_run -t 120 tpm12 'tpm12-cert make-key /root/key'
guest_run -t 60 tpm12 'tpm12-cert sign /root/key "before the reboot" /root/before.pem'
guest_get tpm12 /root/before.pem "$logs/before.pem"
save_disk

step "define and write an NV index of the owner's, seal something to PCR 10 as it is"
guest_run -t 120 tpm12 'set -e
    tpm_nvdefine -i 0x1011 -s 4 -p "OWNERREAD|OWNERWRITE" -y
    tpm_nvwrite -i 0x1011 -d nvwr -z
    printf measured >/root/plain
    tpm_sealdata -z -p 10 -i /root/plain -o /root/sealed'
guest_get tpm12 /root/sealed "$logs/sealed"
unsealed() { guest_run -t 60 tpm12 'tpm_unsealdata -z -i /root/sealed -o /root/opened && cat /root/opened'; }
nv_read() { guest_run -t 60 tpm12 'tpm_nvread -i 0x1011 -z' | grep -c nvwr; }
is "the NV index reads as written" "$(nv_read)" 1
is "what was sealed unseals" "$(unsealed)" measured

step "xl reboot, with no TPM_SaveState by anybody"
guest_reboot_by_xl tpm12
guest_tpm tpm12
is "after the reboot: owned" "$(sysfs owned)" 1
is "after the reboot: enabled" "$(sysfs enabled)" 1
is "after the reboot: active" "$(sysfs active)" 1
is "after the reboot: PCR 10 is zero again" "$(sysfs_pcr 10)" 0000000000000000000000000000000000000000
restore_disk
guest_run -t 120 tpm12 start-tcsd
succeeds "after the reboot: the owner's secret still opens it" \
    guest_run -t 60 tpm12 'tpm_getpubek -z'
succeeds "after the reboot: the key still signs" \
    guest_run -t 60 tpm12 'tpm12-cert sign /root/key "after the reboot" /root/after.pem'
guest_get tpm12 /root/after.pem "$logs/after.pem"
is "after the reboot: the NV index reads as written" "$(nv_read)" 1
guest_put tpm12 "$logs/sealed" /root/sealed
fails "after the reboot: with PCR 10 zero it does not unseal" unsealed

step "xl destroy, xl create"
guest_destroy tpm12
guest_create tpm12
guest_wait tpm12
guest_tpm tpm12
is "after destroy and create: owned" "$(sysfs owned)" 1
is "after destroy and create: PCR 10 can be extended as before" "$(extend)" 00c40000001e00000000
restore_disk
guest_run -t 120 tpm12 start-tcsd
guest_put tpm12 "$logs/sealed" /root/sealed
is "after destroy and create: what was sealed to that PCR 10 unseals" "$(unsealed)" measured
succeeds "after destroy and create: the key still signs" \
    guest_run -t 60 tpm12 'tpm12-cert sign /root/key "after destroy and create" /root/later.pem'
guest_get tpm12 /root/later.pem "$logs/later.pem"
unlike "nothing alarming was logged in all of this" "$(daemon_log_since 0)" "$alarming"
