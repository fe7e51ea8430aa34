# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
#
# devices.sh - the life of vTPM devices, for the scenarios that go through it with
# one type of guest or another: a guest with two, every way in which they go, and
# after each that nothing remains of them, and that their PCRs went with the
# domain's boot and with nothing else.

uuid_a=3c1f6f0a-94f1-4b0f-8f0f-0f6d1c9ab00a
uuid_b=3c1f6f0a-94f1-4b0f-8f0f-0f6d1c9ab00b
# What a removal may take. It is less than a second on a machine with nothing else to
# do; from libxl's ten seconds on it fails.
prompt=8.0

# pcrs - PCR 10 of both TPMs
pcrs() {
    guest_run -t 90 devices "
        with-tpm $dev_a tpm2_pcrread sha256:10
        with-tpm $dev_b tpm2_pcrread sha256:10" | sed -n 's/^ *10 *: *0x//p' | paste -sd' '
}

# new_boot WHEN - the guest runs as another domain
new_boot() {
    domid=$(<"$guests/devices/domid") dev_a=0 dev_b=1
    is "$1: the PCRs of both TPMs are zero" "$(pcrs)" "$pcr_zero $pcr_zero"
    guest_run -t 90 devices "
        with-tpm 0 tpm2_pcrextend 10:sha256=$(printf 'aa%.0s' {1..32})
        with-tpm 1 tpm2_pcrextend 10:sha256=$(printf 'bb%.0s' {1..32})"
}

# same_boot WHEN - both TPMs are there, and are where they were
same_boot() {
    is "$1: both TPMs have their PCRs still" "$(pcrs)" "$extended"
    wait_for 10 vtpm_states_are "$domid" "$dev_a" 4/4 || true
    is "$1: they are connected on both sides" \
        "$(vtpm_states "$domid" "$dev_a") $(vtpm_states "$domid" "$dev_b")" "4/4 4/4"
}

# devid_of UUID - as xl vtpm-list has it
devid_of() { xl vtpm-list devices | awk -v uuid="$1" '$3 == uuid { print $1 }'; }

devices_begin() { # TYPE
    guest_type=$1
    step "a $1 guest with two vTPMs"
    daemon_reset
    daemon_start
    guest_config devices "backend=0,uuid=$uuid_a backend=0,uuid=$uuid_b"
    # With the daemon's files as they are after a first device.
    guest_create devices
    guest_destroy devices
    wait_for 60 manufactured
    leaves_nothing "destroyed before its driver was there"
    guest_create devices
    booted devices guest_wait
    new_boot "the first boot"
    extended=$(pcrs)
    like "two TPMs, two PCRs" "$extended" '^[0-9A-F]{64} [0-9A-F]{64}$'
    isnt "which differ" "${extended% *}" "${extended#* }"
    same_boot "the first boot"
    leaves_nothing "two devices" 2
}

devices_driver() {
    step "the guest unbinds its driver from one device, and binds it again"
    guest_run devices 'echo vtpm-0 >/sys/bus/xen/drivers/vtpm/unbind'
    wait_for 20 vtpm_states_are "$domid" 0 6/6 || true
    is "unbound: the device is closed on both sides" "$(vtpm_states "$domid" 0)" 6/6
    is "unbound: the other one is not" "$(vtpm_states "$domid" 1)" 4/4
    leaves_nothing "unbound" 1
    guest_run devices 'echo vtpm-0 >/sys/bus/xen/drivers/vtpm/bind'
    same_boot "bound again"

    step "as quickly as it can, five times"
    guest_run -t 120 devices 'cd /sys/bus/xen/drivers/vtpm
        for i in 1 2 3 4 5; do
            echo vtpm-0 >unbind
            echo vtpm-0 >bind
        done'
    same_boot "bound again and again"

    step "rmmod and modprobe of xen-tpmfront"
    # Linux lets a xenbus driver go only when no device is bound to it.
    guest_run devices 'set -e
        for i in 0 1; do echo vtpm-$i >/sys/bus/xen/drivers/vtpm/unbind; done
        rmmod xen-tpmfront'
    leaves_nothing "rmmod" 0
    is "rmmod: both devices are closed on both sides" \
        "$(vtpm_states "$domid" 0) $(vtpm_states "$domid" 1)" "6/6 6/6"
    guest_run -t 120 devices 'modprobe xen-tpmfront'
    same_boot "modprobe"

    step "kill -9 of a backend"
    old=$(backend_pid "$uuid_a")
    kill -KILL "$old"
    wait_for 30 backend_is_not "$uuid_a" "$old"
    same_boot "after kill -9"
}

devices_xl() {
    step "xl vtpm-list, xl vtpm-detach, xl vtpm-attach"
    is "xl vtpm-list has both" "$(xl vtpm-list devices | awk 'NR > 1 { print $1, $2, $3, $5 }')" \
        "0 0 $uuid_a 4
1 0 $uuid_b 4"

    xl_timed devices vtpm-detach devices 0
    at_most "xl vtpm-detach by its number" "$xl_seconds" "$prompt"
    is "xl vtpm-list has the other one" "$(devid_of "$uuid_a"),$(devid_of "$uuid_b")" ",1"
    leaves_nothing "one detached" 1
    succeeds "the guest has lost its device" guest_run devices '! ls -d /sys/bus/xen/devices/vtpm-0'
    succeeds "and has the other one" guest_run -t 60 devices 'with-tpm 1 tpm2_getrandom --hex 8'

    xl_timed devices vtpm-attach devices backend=0 "uuid=$uuid_a"
    at_most "xl vtpm-attach" "$xl_seconds" 9.9
    dev_a=$(devid_of "$uuid_a")
    same_boot "attached again"
    like "xl-vtpm show tells of the late attach" "$(xl-vtpm show "$uuid_a")" '^late attach .*ran already'
    unlike "and not of the one that was there from the start" "$(xl-vtpm show "$uuid_b")" 'late attach'

    xl_timed devices vtpm-detach devices "$uuid_b"
    at_most "xl vtpm-detach by uuid" "$xl_seconds" "$prompt"
    xl_timed devices vtpm-detach devices "$uuid_a"
    leaves_nothing "both detached" 0
    xl_timed devices vtpm-attach devices backend=0 "uuid=$uuid_b"
    xl_timed devices vtpm-attach devices backend=0 "uuid=$uuid_a"
    dev_a=$(devid_of "$uuid_a") dev_b=$(devid_of "$uuid_b")
    same_boot "both detached and attached"
    leaves_nothing "two devices again" 2
}

# reboots HOW COMMAND… - a command that makes it reboot
reboots() {
    local how=$1 old=$domid
    shift
    step "$how"
    "$@"
    vtpm_removal "$old" "$dev_b"
    at_most "$how: the old domain's device goes promptly" "$removal_seconds" "$prompt"
    booted devices guest_wait_reboot
    new_boot "$how"
    leaves_nothing "$how" 2
}

# gone_for_good DOMID - until no such guest is left. Where QEMU's emulation ended domain
# DOMID in a triple fault on its way down, libxl was told of a reboot, and restarts it:
# that, and only that, is destroyed.
gone_for_good() {
    wait_for 30 guest_gone devices || lost "$1"
    if lost "$1"; then
        note "$scenario: the emulated machine lost domain $1 on its way down"
        wait_for 60 guest_is_not "$1"
        guest_destroy devices
    fi
}
guest_is_not() {
    local id
    id=$(guest_domid devices) && [[ $id != "$1" ]]
}

# ends HOW COMMAND… - a command that ends the domain
ends() {
    local how=$1 old=$domid
    shift
    step "$how"
    "$@"
    vtpm_removal "$old" "$dev_b"
    at_most "$how: the device goes promptly" "$removal_seconds" "$prompt"
    gone_for_good "$old"
    leaves_nothing "$how"
}

# again WHEN - create it once more, and boot
again() {
    guest_create devices
    booted devices guest_wait
    new_boot "$1"
}

reboots_by_xl() { reboots "xl reboot" xl_timed devices reboot devices; }
reboots_inside() { reboots "reboot -f in the guest" guest_run -l devices 'reboot -f'; }
# At once: two seconds of a delay with interrupts off are where the emulation fails.
crashes() {
    ends "a crash of the guest" guest_run -l devices \
        'echo -1 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger'
}
shuts_down() { ends "xl shutdown" xl_timed devices shutdown devices; }
is_destroyed() {
    step "xl destroy"
    guest_destroy devices
    at_most "xl destroy" "$xl_seconds" "$prompt"
    leaves_nothing "xl destroy"
}

devices_end() {
    # What was killed on purpose may be told of.
    unlike "nothing alarming was logged in all of this" \
        "$(daemon_log_since 0 | grep -v 'died of signal 9')" "$alarming"
    # Each reboot's overlap, too: one of libxl's waits that ran out is told of here.
    unlike "libxl had nothing to complain of" \
        "$(cat /var/log/xen/xl-devices.log*)" 'error|timed out|unable'
}
