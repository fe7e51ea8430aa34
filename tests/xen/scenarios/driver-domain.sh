# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# A driver domain, a guest with no privileges, runs xl-vtpmd for another guest: the TPM survives reboots and kills there, and xl destroy does not wait.
# limit: 900 s

uuid=d41e3a70-52c9-4b8e-9f0b-6a1c7d2e8f04
programs=(
    /usr/sbin/xl-vtpmd /usr/sbin/xl-vtpm /usr/libexec/xl-vtpm/vtpm-backend
    /usr/lib/xen-4.17/bin/xl # for "xl devd"
)

# What the driver domain's xl-vtpm.conf says beyond the installed one.
driver_settings=(
    # A driver domain may not ask Xen whether a domain was created or restored.
    'untold-boot = created'
)

# driver_files DIR - what a driver domain has beyond any guest: our programs with their
# libraries, the user of the backends, and the modules that serve instead of use.
driver_files() {
    local dir=$1 file
    mkdir -p "$dir"/{etc/xen,var/lib,"lib/modules/$(uname -r)"}
    for file in "${programs[@]}"; do
        install -D "$file" "$dir$file"
        ldd "$file"
    done | sed -n 's|.* => \(/[^ ]*\) .*|\1|p' | sort -u >"$logs/libraries"
    while read -r file; do
        # One folder, whatever the loader here found it in; our own programs have no other.
        install -D "$file" "$dir/lib/x86_64-linux-gnu/$(basename "$file")"
    done <"$logs/libraries"
    modprobe --show-depends -a xen-evtchn xen-gntdev xen-gntalloc xen-privcmd |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' >"$dir/lib/modules/$(uname -r)/modules.load"
    while read -r file; do
        install -D "$file" "$dir$file"
    done <"$dir/lib/modules/$(uname -r)/modules.load"
    grep -E '^(root|xl-vtpm):' /etc/passwd >"$dir/etc/passwd"
    grep -E '^(root|xl-vtpm):' /etc/group >"$dir/etc/group"
    cp "$state/pristine/conf" "$dir/etc/xen/xl-vtpm.conf"
}

in_driver() { guest_run driver "$@"; }
driver_serves() { in_driver 'grep -q "is ready" /run/xl-vtpmd.log'; }
driver_start() {
    in_driver 'while pidof xl-vtpmd >/dev/null; do usleep 100000; done
        setsid xl-vtpmd --foreground >/run/xl-vtpmd.log 2>&1 </dev/null &'
    wait_for 60 driver_serves
}
devd_knows() { in_driver "grep -q 'Added device $1' /run/devd.log"; }
driver_log() { in_driver 'cat /run/xl-vtpmd.log'; }
backend_in_driver() { in_driver 'pidof vtpm-backend'; }
another_backend() { # than PID
    local pid
    pid=$(backend_in_driver) && [[ $pid != "$1" ]]
}
# backend_of NAME - the guest's device in the driver domain's directory
backend_of() { printf '/local/domain/%s/backend/vtpm/%s/0' "$driver_domid" "$(guest_domid "$1")"; }

step "a guest with driver_domain=1 that runs xl-vtpmd; none runs in dom0"
driver_files "$state/driver-domain"
(cd "$state/driver-domain" && find . -mindepth 1 | cpio --create --quiet --format=newc) \
    >"$state/driver.cpio"
cat "$state/guest.cpio" "$state/driver.cpio" >"$state/driver-guest.cpio"
guest_up driver '' 'driver_domain = 1' "ramdisk = \"$state/driver-guest.cpio\""
driver_domid=$(guest_domid driver)
in_driver 'for device in xenbus evtchn gntdev privcmd; do
        until [ -c /dev/xen/$device ]; do usleep 100000; done
    done'
driver_start
like "xl-vtpmd serves the directory of its own domain" "$(driver_log)" \
    "serving /local/domain/$driver_domid/backend/vtpm"

step "a guest with backend=driver, as the settings are when installed"
guest_config client "backend=driver,uuid=$uuid"
status=0
guest_create client || status=$?
isnt "a domain that might be a restored one is refused" "$status" 0
unlike "and xl waits for nothing that does not come" "$xl_output" 'timed out'
like "the log says why, and what to do" "$(driver_log)" \
    'cannot be told whether it was created or restored.* untold-boot = created'
succeeds "no half-made guest is left" guest_gone client

step "and with ${driver_settings[*]}"
in_driver "kill $(in_driver 'pidof xl-vtpmd')"
in_driver "echo '$(printf '%s\n' "${driver_settings[@]}")' >>/etc/xen/xl-vtpm.conf"
driver_start
guest_create client
guest_wait client
guest_tpm client
like "the guest has a TPM" "$(guest_run -t 60 client 'tpm2_getrandom --hex 8')" '^[0-9a-f]{16}$'
is "from the driver domain" "$(xs "$(backend_of client)/uuid")" "$uuid"
isnt "its backend runs under another user" \
    "$(in_driver 'stat -c %u /proc/$(pidof vtpm-backend)')" 0
guest_run -t 120 client "set -e
    printf kept >/tmp/text
    tpm2_nvdefine 0x1500030 -Q -C o -s 4 -a 'ownerread|ownerwrite'
    tpm2_nvwrite 0x1500030 -C o -i /tmp/text"
pcr_extend client 10
pcr_before=$(pcr client 10)
isnt "PCR 10 can be extended" "$pcr_before" "$pcr_zero"

step "kill -9 of vtpm-backend in the driver domain"
counting_start client
old=$(backend_in_driver)
in_driver "kill -KILL $old"
wait_for 30 another_backend "$old"
counting_goes_on
counting_ends
is "PCR 10 is as it was" "$(pcr client 10)" "$pcr_before"

step "xl reboot of the guest"
old=$(backend_of client)
guest_reboot_by_xl client
guest_tpm client
is "after the reboot: the NV index reads as written" "$(tpm2_nv client 0x1500030)" kept
is "after the reboot: PCR 10 is zero again" "$(pcr client 10)" "$pcr_zero"
succeeds "after the reboot: the old device's nodes are gone" xs_gone "$old"

step "xl destroy"
old=$(backend_of client)
guest_destroy client
is "xl destroy complains of nothing" "$xl_output" ""
at_most "and waits for nothing that does not come" "$xl_seconds" 30
succeeds "and leaves no backend node" wait_for 5 xs_gone "$old"

step "the same with xl devd in the driver domain, which removes what xl-vtpmd would"
in_driver 'mkdir -p /run/xen /var/lib/xen
    setsid /usr/lib/xen-4.17/bin/xl -vvv devd -F >/run/devd.log 2>&1 </dev/null &'
guest_create client
old=$(backend_of client)
succeeds "xl devd takes note of the device" wait_for 30 devd_knows "$old"
guest_wait client
guest_tpm client
is "the NV index reads as written" "$(tpm2_nv client 0x1500030)" kept
guest_destroy client
is "xl destroy complains of nothing with xl devd either" "$xl_output" ""
at_most "and does not wait then either" "$xl_seconds" 30
succeeds "and leaves no backend node then" wait_for 5 xs_gone "$old"
unlike "nothing but the kill was alarming in the driver domain" \
    "$(driver_log | grep -vi 'died of signal 9' || true)" "$alarming"
driver_log >"$logs/driver-xl-vtpmd.log"
in_driver 'cat /run/devd.log' >"$logs/driver-devd.log"
guest_destroy driver
