# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# An HVM guest boots another kernel by kexec: libxl resets the domain and keeps it, its device comes anew, and its TPM goes on with its PCRs, as no boot of the domain's began.
# limit: 1500 s
# slow: 8 minutes, most of them an emulated BIOS's and two decompressing kernels'

uuid=3c5d1f70-90ab-4b6e-8d2f-0e7a4b9c6d06
boot_limit=400

boot_id() { guest_run kexec 'cat /proc/sys/kernel/random/boot_id'; }
booted_anew() {
    guest_tty kexec && [[ $(boot_id) != "$before" ]]
}

step "create an HVM guest"
daemon_reset
daemon_start
# The guest's own root is what its second kernel boots with.
mkdir -p "$state/kexec/boot"
cp /srv/guest/vmlinuz "$state/kexec/boot/"
(cd "$state/kexec" && find . -mindepth 1 | cpio --create --quiet --format=newc) >"$state/extra.cpio"
cat "$state/guest.cpio" "$state/extra.cpio" >"$state/kexec.cpio"
guest_config kexec "backend=0,uuid=$uuid" 'type = "hvm"' 'memory = 768' \
    'kernel = "/srv/guest/vmlinuz"' 'vga = "none"' 'vnc = 0' 'usb = 0' 'serial = "none"' \
    "ramdisk = \"$state/kexec.cpio\""
guest_create kexec
guest_wait kexec $boot_limit
guest_tpm kexec
pcr_extend kexec 10
pcr_before=$(pcr kexec 10)
isnt "PCR 10 can be extended" "$pcr_before" "$pcr_zero"
guest_run -t 120 kexec "set -e
    printf kept >/tmp/text
    tpm2_nvdefine 0x1500040 -Q -C o -s 4 -a 'ownerread|ownerwrite'
    tpm2_nvwrite 0x1500040 -C o -i /tmp/text"
domid=$(guest_domid kexec)
before=$(boot_id)

step "kexec"
guest_run -t 400 kexec 'cd / && find . -xdev | cpio -o -H newc >/tmp/initrd &&
    kexec -l /boot/vmlinuz --initrd=/tmp/initrd --reuse-cmdline'
guest_run -l kexec 'kexec -e'
succeeds "another kernel runs" wait_for $boot_limit booted_anew
is "in the same domain" "$(guest_domid kexec)" "$domid"
guest_tpm kexec
is "its TPM has its PCRs still: the kernel that called kexec is measured, or nothing is" \
    "$(pcr kexec 10)" "$pcr_before"
is "and the NV index reads as written" "$(tpm2_nv kexec 0x1500040)" kept

step "xl reboot"
xl_timed kexec reboot kexec
guest_wait_reboot kexec $boot_limit
guest_tpm kexec
is "after a reboot, PCR 10 is zero again" "$(pcr kexec 10)" "$pcr_zero"

step "xl destroy"
guest_destroy kexec
is "xl destroy complains of nothing" "$xl_output" ""
leaves_nothing "destroyed after kexec"
unlike "nothing was alarming" "$(daemon_log_since 0)" "$alarming"
