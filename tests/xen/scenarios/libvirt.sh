# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# libvirt's own driver for Xen, with our hook: virsh start, reboot, destroy, save; the TPM is there before the guest's first instruction, or the guest does not start.
# slow: it needs libvirt in dom0, so images of its own
# packages: libvirt-daemon libvirt-daemon-driver-xen libvirt-clients
# limit: 900 s

uuid=6b1d0f3e-93c4-4a0d-8d1e-2a5b7c9e0f01
hook=/etc/libvirt/hooks/libxl.d/xl-vtpm

# virsh_does ARGS… - output in the log and as $virsh_said, duration as $virsh_seconds
virsh_does() {
    local start status=0
    start=$(now)
    virsh_said=$(timeout -k 5 120 virsh -q -c xen:///system "$@" 2>&1) || status=$?
    virsh_seconds=$(since "$start")
    log "virsh $*: status $status after $virsh_seconds s
$virsh_said"
    return $status
}
# domain_xml NAME UUID VTPMS
domain_xml() {
    mkdir -p "$guests/$1"
    cat >"$guests/$1/xml" <<END
<domain type='xen'>
  <name>$1</name>
  <uuid>$2</uuid>
  <metadata>$3</metadata>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='xenpv'>linux</type>
    <kernel>/srv/guest/vmlinux</kernel>
    <initrd>$state/guest.cpio</initrd>
    <cmdline>console=hvc0 loglevel=5 panic=2</cmdline>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <console type='pty'><target type='xen' port='0'/></console>
  </devices>
</domain>
END
    virsh_does define "$guests/$1/xml"
}
vtpms() { printf "<vtpms xmlns='urn:libxl-vtpm:domain:1'>%s</vtpms>" "$1"; }
late() { xl-vtpm show --json "$uuid" | jq -r '.. | .late_attach? // empty'; }

step "libvirtd, with our hook"
daemon_reset 'late-attach = refuse'
daemon_start
mkdir -p /etc/libvirt
printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n' >/etc/libvirt/libvirtd.conf
printf 'autoballoon = 0\n' >/etc/libvirt/libxl.conf
# Emulated, the processor lacks VME and more of what every model that libvirt knows has, and libvirt
# does not start its driver on a processor without a model: here is one.
cat >/usr/share/libvirt/cpu_map/x86_emulated.xml <<'END'
<cpus>
  <model name='emulated'>
    <decode host='on' guest='off'/>
    <feature name='fpu'/>
  </model>
</cpus>
END
sed -i "0,/<include filename=.x86_486.xml./s//<include filename='x86_emulated.xml'\/>\n    &/" \
    /usr/share/libvirt/cpu_map/index.xml
# Nor does it start with a driver that has no user, which its package makes where it is installed.
rm -f /usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so
succeeds "the hook is where libvirtd looks" test -x "$hook"
LIBVIRT_LOG_OUTPUTS="2:file:$logs/libvirtd.log" setsid libvirtd >"$logs/libvirtd.out" 2>&1 </dev/null &
libvirtd=$!
wait_for 60 virsh -c xen:///system list

step "virsh start of a domain with our element in its metadata"
domain_xml virt 6b1d0f3e-93c4-4a0d-8d1e-2a5b7c9e0f00 "$(vtpms "<vtpm uuid='$uuid'/>")"
virsh_does dumpxml virt
defined=$virsh_said
like "dumpxml has the element" "$defined" "urn:libxl-vtpm:domain:1"
succeeds "virsh start" virsh_does start virt
guest_wait virt
guest_tpm virt
is "the domain has that TPM" "$(xs "$(vtpm_backend "$(guest_domid virt)")/uuid")" "$uuid"
succeeds "it works" guest_run -t 60 virt 'tpm2_getrandom --hex 8'
# With late-attach = refuse it would not be served had the guest run before.
is "and the guest had not run before it was there" "$(late)" ""
guest_run -t 120 virt 'set -e
    printf kept >/tmp/text
    tpm2_nvdefine 0x1500030 -Q -C o -s 4 -a "ownerread|ownerwrite"
    tpm2_nvwrite 0x1500030 -C o -i /tmp/text'
pcr_extend virt 10

step "reboots"
virsh_does reboot virt
guest_wait_reboot virt
guest_tpm virt
is "virsh reboot: the NV index reads as written" "$(tpm2_nv virt 0x1500030)" kept
is "virsh reboot: PCR 10 is zero again" "$(pcr virt 10)" "$pcr_zero"
guest_run -l virt /sbin/reboot
guest_wait_reboot virt
guest_tpm virt
is "reboot inside: the NV index reads as written" "$(tpm2_nv virt 0x1500030)" kept
virsh_does dumpxml --inactive virt
is "dumpxml is what it was" "$virsh_said" "$defined"

step "a second domain with the same TPM"
domain_xml second 6b1d0f3e-93c4-4a0d-8d1e-2a5b7c9e0f02 "$(vtpms "<vtpm uuid='$uuid'/>")"
fails "it does not start" virsh_does start second
like "virsh says whose TPM it is" "$virsh_said" "in use|cannot attach its TPM '.*$uuid"
is "and it is off" "$(virsh -q -c xen:///system domstate second)" "shut off"

step "virsh destroy, virsh start --paused, virsh resume"
succeeds "virsh destroy" virsh_does destroy virt
at_most "which waits for nothing" "$virsh_seconds" 30
leaves_nothing "after virsh destroy" 
succeeds "virsh start --paused" virsh_does start --paused virt
is "it is paused" "$(virsh -q -c xen:///system domstate virt)" paused
succeeds "virsh resume" virsh_does resume virt
guest_wait virt
guest_tpm virt
is "the NV index reads as written" "$(tpm2_nv virt 0x1500030)" kept

step "virsh save and restore"
pcr_extend virt 10
pcr_before=$(pcr virt 10)
succeeds "virsh save" virsh_does save virt /var/tmp/virt.save
succeeds "virsh restore" virsh_does restore /var/tmp/virt.save
reconnect virt
is "PCR 10 is as it was" "$(pcr virt 10)" "$pcr_before"
virsh_does destroy virt

step "what goes wrong, virsh says"
daemon_stop
fails "no xl-vtpmd: virsh start fails" virsh_does start virt
like "and says so" "$virsh_said" 'xl-vtpm: domain virt: .*xl-vtpmd'
succeeds "and leaves no domain" guest_gone virt
daemon_start
domain_xml typo 6b1d0f3e-93c4-4a0d-8d1e-2a5b7c9e0f03 "$(vtpms "<vtpm uid='$uuid'/>")"
fails "an attribute that is none" virsh_does start typo
like "is named" "$virsh_said" 'an attribute other than uuid and backend'
guest_up late ''
sed "s|<name>virt|<name>late|; s|<uuid>.*</uuid>|<uuid>$(xl domid late | xargs xl list -v | awk 'NR == 2 { print $7 }')</uuid>|" \
    "$guests/virt/xml" >"$guests/late/xml"
status=0
output=$("$hook" late started begin - <"$guests/late/xml" 2>&1) || status=$?
is "a domain that no guard has paused is refused" "$status" 1
like "with the reason" "$output" 'may have run before its TPM was there'
guest_destroy late
domain_xml without 6b1d0f3e-93c4-4a0d-8d1e-2a5b7c9e0f04 ''
succeeds "a domain without our element starts as ever" virsh_does start without
guest_wait without
virsh_does destroy without
fails "no guard is left behind" pgrep -x xl-vtpm-libvirt
kill "$libvirtd"
