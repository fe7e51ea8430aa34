# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# The unit under a systemd of its own: hardened as it is, it serves; stop, restart, a hang that the watchdog ends: sessions, keys, PCRs and NV of a guest go on.
# slow: it needs systemd in dom0, so images of its own
# packages: systemd dbus
# limit: 600 s

uuid=4d2f6a18-7c3b-4e59-9a60-1b8e5f7c2d31

# systemd is process 1 of a process namespace here, as dom0's own process 1 is the harness; the rest
# is dom0's: its files, its /dev/xen, its /run.
step "a systemd"
daemon_reset
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/lock /run/systemd/journal
# tmpfiles would empty /tmp under the harness
for unit in systemd-udevd systemd-udev-trigger systemd-tmpfiles-setup-dev systemd-tmpfiles-setup \
    systemd-tmpfiles-clean systemd-remount-fs \
    systemd-logind systemd-networkd systemd-resolved systemd-timesyncd getty@tty1 console-getty; do
    ln -sfn /dev/null "/etc/systemd/system/$unit.service"
done
mkdir -p /etc/systemd/system/xl-vtpmd.service.d
printf '[Service]\nWatchdogSec=4\nTimeoutAbortSec=4\n' \
    >/etc/systemd/system/xl-vtpmd.service.d/quick.conf
env -i "PATH=$PATH" LC_ALL=C.UTF-8 container=xen-tests setsid unshare --pid --mount --mount-proc --fork \
    /lib/systemd/systemd --system --unit=basic.target --show-status=no \
    >"$logs/systemd.log" 2>&1 </dev/null &
systemd=$!
# It talks to nobody whose process number it cannot see.
within() { nsenter --target "$(pgrep -P "$systemd")" --pid --mount "$@"; }
systemctl() { within /usr/bin/systemctl "$@"; }
wait_for 90 systemctl is-active basic.target
log "$(systemctl --no-pager list-units --state=failed 2>&1)"
main_pid() { systemctl show -p MainPID --value xl-vtpmd; }
restarts() { systemctl show -p NRestarts --value xl-vtpmd; }

step "systemctl start xl-vtpmd"
succeeds "it starts, and says that it is ready" systemctl start xl-vtpmd
is "it is active" "$(systemctl is-active xl-vtpmd)" active
like "and tells what it does" "$(systemctl show -p StatusText --value xl-vtpmd)" 'Serving'
succeeds "the unit has nothing that systemd does not know" within systemd-analyze verify --man=no xl-vtpmd.service
security=$(within systemd-analyze --no-pager security xl-vtpmd.service 2>&1 | tail -n 1)
log "$security"
like "systemd-analyze security has an opinion: $security" "$security" 'exposure level'

step "a guest with a session, a transient key, an extended PCR, that counts all along"
guest_up unit "backend=0,uuid=$uuid"
keep_journal() { within journalctl --no-pager -o short-monotonic >"$logs/journal" 2>&1 || true; }
guest_tpm unit || { keep_journal && false; }
tpm_begins unit
pcr_before=$(guest_run unit 'tpm2_pcrread sha256:10')
counting_start unit
like "its lines have the domain's number as a field" \
    "$(within journalctl --no-pager -u xl-vtpmd -o cat "XLV_DOMID=$(guest_domid unit)")" 'is served by'
old=$(xl-vtpm --json show "$uuid" | jq .device.pid)

step "a cgroup for each backend"
scope=vtpm-$(xl-vtpm --json show "$uuid" | jq .number)-$old.scope
cgroup() { within cat "/proc/$old/cgroup"; }
in_scope() { [[ $(cgroup) == *"/system-vtpm.slice/$scope" ]]; }
succeeds "it comes into a scope of the TPMs' slice" wait_for 30 in_scope
group=/sys/fs/cgroup$(cgroup | sed -n 's/^0:://p')
is "with the processor's share of any service" "$(within cat "$group/cpu.weight")" 100
is "and one process at most" "$(within cat "$group/pids.max")" 1
succeeds "an administrator bounds it" systemctl set-property --runtime "$scope" CPUQuota=50%
is "as the kernel sees it" "$(within cat "$group/cpu.max")" "50000 100000"
unlike "no shutdown of the host ends it before its guest" "$(systemctl show -p Conflicts "$scope")" shutdown
all_goes_on "in its scope"

step "restart, stop, start"
daemon=$(main_pid)
succeeds "restart" systemctl restart xl-vtpmd
isnt "it is another process" "$(main_pid)" "$daemon"
all_goes_on "after the restart"
succeeds "stop" systemctl stop xl-vtpmd
succeeds "the backend serves on without a daemon" counting_goes_on
succeeds "start" systemctl start xl-vtpmd
is "the backend is the same" "$(xl-vtpm --json show "$uuid" | jq .device.pid)" "$old"
all_goes_on "after the stop"

succeeds "and in the same cgroup" in_scope
is "which is the only one" \
    "$(systemctl --plain --no-legend list-units 'vtpm-*.scope' | awk '{ print $1 }')" "$scope"

step "a daemon that hangs, and one that dies"
daemon=$(main_pid) before=$(restarts)
within kill -STOP "$daemon"
replaced() { [[ $(restarts) -gt $before && $(systemctl is-active xl-vtpmd) == active ]]; }
wait_for 60 replaced
isnt "the watchdog replaces one that hangs" "$(main_pid)" "$daemon"
all_goes_on "after the hang"
daemon=$(main_pid) before=$(restarts)
within kill -KILL "$daemon"
wait_for 60 replaced
isnt "one that dies is started again" "$(main_pid)" "$daemon"
is "the backend is the same still" "$(xl-vtpm --json show "$uuid" | jq .device.pid)" "$old"
all_goes_on "after its death"
counting_ends
guest_destroy unit
no_scope() { [[ -z $(systemctl --plain --no-legend list-units 'vtpm-*.scope') ]]; }
succeeds "no scope is left of a guest that has gone" wait_for 30 no_scope

step "the end"
succeeds "stop" systemctl stop xl-vtpmd
keep_journal
systemctl --force --force poweroff >>"$logs/systemd.log" 2>&1 || true
systemd_ended() { ! kill -0 "$systemd" 2>/dev/null; }
wait_for 30 systemd_ended || kill -KILL "$systemd"
