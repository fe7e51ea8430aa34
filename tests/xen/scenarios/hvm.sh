# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# An HVM guest with PV drivers: its TPM answers, NV survives and PCRs start anew over xl reboot, a kill of its backend does not show, xl destroy does not wait.
# limit: 1200 s
# slow: 7 minutes, most of them an emulated BIOS's and a decompressing kernel's

uuid=3c5d1f70-90ab-4b6e-8d2f-0e7a4b9c6d05
# Firmware and the kernel's decompression are slow in an emulation within an emulation.
boot_limit=400

step "create an HVM guest"
daemon_reset
daemon_start
guest_config hvm "backend=0,uuid=$uuid" 'type = "hvm"' 'memory = 384' \
    'kernel = "/srv/guest/vmlinuz"' 'vga = "none"' 'vnc = 0' 'usb = 0' 'serial = "none"'
guest_create hvm
guest_wait hvm $boot_limit
is "it runs with PV drivers on full virtualisation" \
    "$(guest_run hvm 'cat /sys/hypervisor/guest_type')" HVM
guest_tpm hvm
like "its TPM answers" "$(guest_run -t 60 hvm 'tpm2_getrandom --hex 8')" '^[0-9a-f]{16}$'
guest_run -t 120 hvm "set -e
    printf kept >/tmp/text
    tpm2_nvdefine 0x1500040 -Q -C o -s 4 -a 'ownerread|ownerwrite'
    tpm2_nvwrite 0x1500040 -C o -i /tmp/text"
pcr_extend hvm 10
pcr_before=$(pcr hvm 10)
isnt "PCR 10 can be extended" "$pcr_before" "$pcr_zero"

step "kill -9 of its backend"
old=$(backend_pid "$uuid")
counting_start hvm
kill -KILL "$old"
wait_for 30 backend_is_not "$uuid" "$old"
counting_goes_on
counting_ends
is "PCR 10 is as it was" "$(pcr hvm 10)" "$pcr_before"

step "xl reboot"
xl_timed hvm reboot hvm
guest_wait_reboot hvm $boot_limit
guest_tpm hvm
is "after the reboot: the NV index reads as written" "$(tpm2_nv hvm 0x1500040)" kept
is "after the reboot: PCR 10 is zero again" "$(pcr hvm 10)" "$pcr_zero"

step "xl destroy"
guest_destroy hvm
is "xl destroy complains of nothing" "$xl_output" ""
succeeds "and leaves no backend node" wait_for 5 xs_gone /local/domain/0/backend/vtpm
unlike "nothing but the kill was alarming" \
    "$(daemon_log_since 0 | grep -vi 'died of signal 9' || true)" "$alarming"
