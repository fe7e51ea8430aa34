# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# measure-boot = on: a secret that was sealed to a PV guest's boot opens with its kernel, PVH too, and with no other; guest and administrator read the event log.
# limit: 600 s

uuid=7a1d2f43-5b0c-4d7e-8a52-0c6f3e9d4b71

step "make another kernel: the same, and a byte more"
cp /srv/guest/vmlinux "$state/vmlinux-other"
printf x >>"$state/vmlinux-other"

daemon_reset "measure-boot = on"
daemon_start

# boots KERNEL - the guest, as it is configured, with that one
boots() {
    guest_config measured "backend=0,uuid=$uuid"
    sed -i "s|^kernel = .*|kernel = \"$1\"|" "$guests/measured/cfg"
    guest_create measured
    booted measured guest_wait
    guest_tpm measured
}
pcrs() { guest_run -t 60 measured 'tpm2_pcrread sha256:8,9' | sed -n 's/^ *[89] *: *0x//p' | paste -sd' '; }
unseals() {
    guest_put measured "$logs/pub" /tmp/pub
    guest_put measured "$logs/priv" /tmp/priv
    guest_run -t 120 measured 'tpm2_load -Q -C 0x81000010 -u /tmp/pub -r /tmp/priv -c /tmp/sealed
        tpm2_flushcontext -t
        tpm2_unseal -c /tmp/sealed -p pcr:sha256:8,9'
}

step "a PV guest"
boots /srv/guest/vmlinux
first=$(pcrs)
like "PCRs 8 and 9 are there when the guest looks" "$first" '^[0-9A-F]{64} [0-9A-F]{64}$'
unlike "neither is zero" "$first" "$pcr_zero"
log "measured: $(grep 'was measured in' "$daemon_log")"

step "the event log, read in the guest by tpm2_eventlog"
guest_run -t 60 measured 'b=$(xenstore-read device/vtpm/0/backend)
    i=0
    while piece=$(xenstore-read $b/event-log/$i 2>/dev/null); do
        printf %s "$piece"
        i=$((i + 1))
    done | base64 -d >/tmp/log'
events=$(guest_run -t 60 measured 'tpm2_eventlog /tmp/log')
like "it names the kernel" "$events" /srv/guest/vmlinux
like "and the ramdisk" "$events" "$state/guest.cpio"
like "and the command line" "$events" 'kernel_cmdline: console=hvc0 loglevel=5 panic=2'
is "it leads to the PCRs that the TPM has" \
    "$(sed -n 's/^ *[89] *: *0x//p' <<<"${events##*pcrs:}" | tr a-f A-F | paste -sd' ')" "$first"

step "the administrator's side"
measured=$(xl-vtpm measured "$uuid")
log "$measured"
is "xl-vtpm measured computes the same PCRs" \
    "$(sed -n 's/^sha256:[89] *//p' <<<"$measured" | tr a-f A-F | paste -sd' ')" "$first"
is "the same, told without the guest" "$(xl-vtpm measured --kernel /srv/guest/vmlinux \
    --ramdisk "$state/guest.cpio" --cmdline 'console=hvc0 loglevel=5 panic=2' |
    sed -n 's/^sha256:[89] *//p' | tr a-f A-F | paste -sd' ')" "$first"
fails "it does not agree with another kernel" xl-vtpm measured \
    --kernel "$state/vmlinux-other" --ramdisk "$state/guest.cpio" \
    --cmdline 'console=hvc0 loglevel=5 panic=2' "$uuid"
guest_get measured /tmp/log "$logs/guest.log"
succeeds "the guest reads the same log as the administrator" \
    cmp "$logs/guest.log" "/run/xl-vtpm/eventlog/$(xs "$(vtpm_backend "$(guest_domid measured)")/instance")"

step "seal a secret to this boot"
guest_run -t 120 measured "set -e
    tpm2_createprimary -Q -C o -G ecc -c /tmp/primary
    tpm2_evictcontrol -Q -C o -c /tmp/primary 0x81000010
    tpm2_flushcontext -t
    tpm2_createpolicy -Q --policy-pcr -l sha256:8,9 -L /tmp/policy
    printf opened | tpm2_create -Q -C 0x81000010 -L /tmp/policy -i - -u /tmp/pub -r /tmp/priv
    tpm2_flushcontext -t"
guest_get measured /tmp/pub "$logs/pub"
guest_get measured /tmp/priv "$logs/priv"
is "it opens" "$(unseals)" opened

unlike "nothing alarming was logged so far" "$(daemon_log_since 0)" 'cannot be measured'
guest_destroy measured

step "with another kernel"
boots "$state/vmlinux-other"
second=$(pcrs)
isnt "PCR 9 is another" "${second#* }" "${first#* }"
is "PCR 8, the command line, is the same" "${second% *}" "${first% *}"
fails "the secret does not open" unseals
succeeds "the log agrees with that kernel" xl-vtpm measured "$uuid"
guest_destroy measured

step "PVH, with the first kernel again"
guest_type=pvh
boots /srv/guest/vmlinux
is "the PCRs are those of the first boot" "$(pcrs)" "$first"
is "the secret opens" "$(unseals)" opened
guest_destroy measured

step "PVH, with another kernel"
boots "$state/vmlinux-other"
is "the PCRs are those of the second boot" "$(pcrs)" "$second"
fails "the secret does not open" unseals
guest_destroy measured
