# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# lib.sh - what scenarios, the demo and the interactive shell share in dom0:
# guests and how to talk to them, the daemon, waiting with a deadline.
#
# A step that the scenario depends on and that fails ends the scenario (set -e
# with a trap that says where); a check (tap.sh) is recorded and it goes on.

# What is set here is for the scenarios, and scenario is for us to be told.
# shellcheck disable=SC2034,SC2154

set -Eeuo pipefail

tap_file=${tap_file:-/share/results/tap}
logs=/share/results/$scenario
state=/run/xen-tests
guests=$state/guests
mkdir -p "$logs" "$guests"
# shellcheck source=tests/xen/tap.sh
. /share/harness/tap.sh

# Processes are dear on an emulated Xen (tens of ms each): the shell does it.
now() { printf '%s' "${EPOCHREALTIME//[.,]/}"; }
# since NOW - seconds since then, with one decimal
since() {
    local tenths=$(((${EPOCHREALTIME//[.,]/} - $1) / 100000))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}
uptime() {
    local up rest
    read -r up rest </proc/uptime
    printf '%s' "$up"
}
log() { printf '[%s] %s\n' "$(uptime)" "$*" >>"$logs/log"; }

# step TEXT… - what the scenario is about to do; goes to the log and the user.
step() {
    log "== $*"
    note "$scenario: $*"
}

# wait_for SECONDS COMMAND… - poll until it succeeds; non-zero at the deadline
wait_for() {
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@" >/dev/null 2>&1; do
        [[ $SECONDS -lt $end ]] || return 1
        sleep 0.1
    done
}

# ---- guests -----------------------------------------------------------------

# guest_config NAME VTPM [LINE…] - VTPM: the entries of its vtpm line, with blanks
# between them; none: a guest with no such line. $guest_type: pv or pvh.
guest_type=pv
guest_config() {
    local name=$1 vtpm=$2
    shift 2
    mkdir -p "$guests/$name"
    {
        printf 'name = "%s"\ntype = "%s"\nmemory = 256\nvcpus = 1\n' "$name" "$guest_type"
        printf 'kernel = "/srv/guest/vmlinux"\nramdisk = "%s/guest.cpio"\n' "$state"
        printf 'extra = "console=hvc0 loglevel=5 panic=2"\n'
        printf 'on_reboot = "restart"\non_crash = "destroy"\n'
        [[ -z $vtpm ]] || printf "vtpm = [ '%s' ]\n" "${vtpm// /"', '"}"
        [[ $# -eq 0 ]] || printf '%s\n' "$@"
    } >"$guests/$name/cfg"
    cp "$guests/$name/cfg" "$logs/$name.cfg"
}

# xl_timed NAME ARGS… - xl with its output in the log and in $xl_output, its
# duration in $xl_seconds, its status as the result. NAME is for the log.
xl_timed() {
    local what=$1 start status=0
    shift
    start=$(now)
    xl_output=$(timeout -k 5 90 xl "$@" 2>&1) || status=$?
    xl_seconds=$(since "$start")
    log "$what: xl $*: status $status after $xl_seconds s"
    [[ -z $xl_output ]] || printf '    %s\n' "${xl_output//$'\n'/$'\n'    }" >>"$logs/log"
    return $status
}

guest_create() { xl_timed "$1" create "$guests/$1/cfg"; }
guest_destroy() { xl_timed "$1" destroy "$1"; }

# guest_domid NAME - from xenstore: quicker than xl, and the same truth
guest_domid() {
    local id
    for id in $(xenstore-list /local/domain); do
        if [[ $id != 0 && $(xenstore-read "/local/domain/$id/name" 2>/dev/null) == "$1" ]]; then
            printf '%s\n' "$id"
            return 0
        fi
    done
    return 1
}

guest_gone() { ! guest_domid "$1" >/dev/null; }

# guest_tty NAME - the console's pty; also notes the domid it belongs to
guest_tty() {
    local id tty
    id=$(guest_domid "$1") || return 1
    tty=$(xenstore-read "/local/domain/$id/console/tty" 2>/dev/null) || return 1
    [[ -c $tty ]] || return 1
    printf '%s\n' "$id" >"$guests/$1/domid"
    printf '%s\n' "$tty" >"$guests/$1/tty"
}

# guest_wait NAME [SECONDS] - until the agent in it answers. After a reboot call
# guest_wait_reboot, or this may still reach the old domain.
guest_wait() {
    local name=$1 limit=${2:-120} start
    start=$(now)
    if wait_for "$limit" guest_tty "$name" &&
        "$state/ask-guest" "$(<"$guests/$name/tty")" "$limit" "$logs/log" ping >"$guests/$name/boot"; then
        log "$name: up as domain $(<"$guests/$name/domid") after $(since "$start") s, boot $(<"$guests/$name/boot")"
        return 0
    fi
    log "$name: no answer on its console in $limit s"
    return 1
}

# guest_wait_reboot NAME [SECONDS] - until it runs as another domain than the
# one last seen, and answers.
guest_wait_reboot() {
    local name=$1 old end=$((SECONDS + ${2:-180})) id
    old=$(<"$guests/$name/domid")
    while [[ $SECONDS -lt $end ]]; do
        if id=$(guest_domid "$name") && [[ $id != "$old" ]]; then
            guest_wait "$name" $((end - SECONDS))
            return
        fi
        sleep 0.1
    done
    log "$name: did not come back as a new domain in ${2:-180} s"
    return 1
}

# lost_domains - the domains that the emulated machine lost. QEMU's emulation of nested
# paging now and then lets a PVH guest run in Xen's own text, where no guest can be, or
# breaks it as it is entered again: a triple fault, which libxl answers with a restart.
lost_domains() { xl dmesg | sed -n 's/.* d\([0-9]*\)v[0-9]* Triple fault - .*/\1/p'; }
lost() { lost_domains | grep -qx "$1"; }

# booted NAME WAITING-COMMAND - guest_wait or guest_wait_reboot, of a PVH guest. One that
# the emulated machine lost is waited for once more. (One that it loses later makes
# run-scenarios run the scenario again.)
booted() {
    local domid
    if ! "$2" "$1"; then
        domid=$(<"$guests/$1/domid")
        lost "$domid"
        note "$scenario: the emulated machine lost domain $domid before it ran"
        guest_wait "$1"
    fi
}

# guest_run [-t SECONDS] [-l] NAME COMMAND - run it in the guest: its output,
# its errors, its status (125: the guest did not answer). -l: the command takes
# the guest down, so it is acknowledged before it runs.
guest_run() {
    local limit=60 kind=run
    while [[ $1 == -* ]]; do
        case $1 in
        -t)
            limit=$2
            shift
            ;;
        -l) kind=last ;;
        esac
        shift
    done
    log "$1:"
    "$state/ask-guest" "$(<"$guests/$1/tty")" "$limit" "$logs/log" "$kind" "$2"
}

# guest_put NAME FILE GUEST-FILE / guest_get NAME GUEST-FILE FILE - small files
guest_put() {
    guest_run "$1" "mkdir -p '$(dirname "$3")' && base64 -d >'$3' <<'END'
$(base64 "$2")
END"
}
guest_get() { guest_run "$1" "cat '$2'" >"$3"; }

# guest_reboot_by_xl NAME / guest_reboot_inside NAME - and wait until it is back
guest_reboot_by_xl() {
    xl_timed "$1" reboot "$1"
    guest_wait_reboot "$1"
}
guest_reboot_inside() {
    guest_run -l "$1" /sbin/reboot
    guest_wait_reboot "$1"
}

# guest_up NAME VTPM [LINE…] - configure, create, wait for its agent
guest_up() {
    guest_config "$@"
    guest_create "$1"
    guest_wait "$1"
}

# ---- xenstore ---------------------------------------------------------------

vtpm_backend() { printf '/local/domain/0/backend/vtpm/%s/%s' "$1" "${2:-0}"; }
xs() { xenstore-read "$1" 2>/dev/null; }
# libxl leaves empty directories of its own above a device's.
xs_gone() { ! xenstore-ls "$1" 2>/dev/null | grep -q state; }

# vtpm_states DOMID DEVID - of frontend and backend, as in 4/4
vtpm_states() {
    printf '%s/%s' "$(xs "/local/domain/$1/device/vtpm/$2/state")" "$(xs "$(vtpm_backend "$1" "$2")/state")"
}
vtpm_states_are() { [[ $(vtpm_states "$1" "$2") == "$3" ]]; }

# vtpm_removal DOMID DEVID - until libxl begins to remove that device, then until
# it is gone; how long that took is in $removal_seconds.
vtpm_removal() {
    local start backend
    backend=$(vtpm_backend "$1" "$2")
    wait_for 90 vtpm_offline "$backend"
    start=$(now)
    wait_for 30 vtpm_removed "$backend"
    removal_seconds=$(since "$start")
    log "device $2 of domain $1 was removed in $removal_seconds s"
}
vtpm_offline() { [[ $(xs "$1/online") != 1 ]]; }
vtpm_removed() { ! xenstore-read "$1/state"; }

# ---- the daemon -------------------------------------------------------------

daemon_log=$logs/xl-vtpmd.log

# daemon_reset [CONF-LINE…] - a machine on which it was just installed, plus
# these settings. Only with no daemon and no guest of ours running.
daemon_reset() {
    local pristine=$state/pristine
    rm -rf /var/lib/xl-vtpm /run/xl-vtpm /etc/xl-vtpm
    [[ ! -e $pristine/lib ]] || cp -a "$pristine/lib" /var/lib/xl-vtpm
    [[ ! -e $pristine/etc ]] || cp -a "$pristine/etc" /etc/xl-vtpm
    rm -f /etc/xen/xl-vtpm.conf
    [[ ! -e $pristine/conf ]] || cp -a "$pristine/conf" /etc/xen/xl-vtpm.conf
    [[ $# -eq 0 ]] || printf '%s\n' "$@" >>/etc/xen/xl-vtpm.conf
}

daemon_pid() { cat "$state/daemon.pid" 2>/dev/null; }
daemon_alive() { [[ -n $(daemon_pid) ]] && kill -0 "$(daemon_pid)" 2>/dev/null; }
daemon_ready() { ! daemon_alive || timeout 5 xl-vtpm list; }

# daemon_spawn - start it and return at once
daemon_spawn() {
    setsid xl-vtpmd --foreground >>"$daemon_log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$state/daemon.pid"
    log "xl-vtpmd started as process $!"
}

# daemon_start - start it and wait until it serves
daemon_start() {
    daemon_spawn
    wait_for 20 daemon_ready || {
        log "xl-vtpmd is not ready in 20 s: $(xl-vtpm list 2>&1)"
        return 1
    }
    if ! daemon_alive; then
        log "xl-vtpmd ended at its start: $(tail -n 5 "$daemon_log")"
        printf 'xl-vtpmd ended at its start: %s\n' "$(tail -n 5 "$daemon_log")" >&2
        return 1
    fi
}

# daemon_stop - politely, as systemd would; kill it after 20 s
daemon_stop() {
    local pid
    pid=$(daemon_pid) || return 0
    kill -TERM "$pid" 2>/dev/null || true
    if ! wait_for 20 daemon_ended; then
        log "xl-vtpmd ignores SIGTERM"
        kill -KILL "$pid" || true
    fi
    rm -f "$state/daemon.pid"
}
daemon_ended() { ! daemon_alive; }

# daemon_log_since MARK / daemon_log_mark - only what came since then
daemon_log_mark() { stat -c %s "$daemon_log" 2>/dev/null || echo 0; }
daemon_log_since() { tail -c "+$(($1 + 1))" "$daemon_log"; }

# vtpm_remains [N] - what there is, a word each, beside N served devices; with no N,
# beside no guest at all. How many files the daemon has open with nothing to serve,
# the first calls find out.
vtpm_remains() {
    local n=${1:-0} count processes fds listeners seen=$logs/daemon-fds.seen
    mapfile -t listeners < <(compgen -G '/run/xl-vtpm/backend/*')
    count=$(find /proc -mindepth 2 -maxdepth 2 -name exe -lname '*/vtpm-backend*' 2>/dev/null | wc -l)
    processes=$count
    [[ $count -eq $n ]] || printf 'processes:%s ' "$count"
    [[ ${#listeners[@]} -eq $n ]] || printf 'listeners:%s ' "${listeners[*]}"
    # A device that is served has its socket and its process.
    fds=(/proc/"$(daemon_pid)"/fd/*)
    count=$((${#fds[@]} - 2 * n))
    # Not as long as a process more, that makes a TPM, has files of its own; and two looks in a
    # row agree: the connection of a command that has just ended may still be among them.
    if [[ ! -e $logs/daemon-fds && $processes -eq $n ]]; then
        if [[ -e $seen && $count -eq $(<"$seen") ]]; then
            mv "$seen" "$logs/daemon-fds"
        else
            printf '%s\n' "$count" >"$seen"
            printf 'files:%s-at-first ' "$count"
        fi
    fi
    [[ ! -e $logs/daemon-fds || $count -eq $(<"$logs/daemon-fds") ]] || printf 'files:%s ' "$count"
    if [[ $# -eq 0 ]]; then
        xs_gone /local/domain/0/backend/vtpm || printf 'nodes '
        # From the hypervisor: a page of it still mapped keeps a dead domain there.
        [[ $(xl list | wc -l) -eq 2 ]] || printf 'domains '
    fi
}

# leaves_nothing WHEN [N] - the check of that; what needs longer than 9 s is late
leaves_nothing() {
    local end=$((SECONDS + 10)) remains
    while remains=$(vtpm_remains "${@:2}"); do
        [[ -n $remains && $SECONDS -lt $end ]] || break
    done
    is "$1: no more processes, listeners, files, nodes, domains than ${2:-no} devices need" \
        "$remains" ""
}

# manufactured - no TPM is being made; that goes on when the guest it is for is destroyed
manufactured() { ! xl-vtpm list --json | grep -q '"life": *"new"'; }

# What must not be in its log when nothing is wrong. The system of 2009 greeted
# every new TPM with "Failed to load NVM", and taught people not to read logs.
alarming='fail|error|corrupt|damage|cannot|can.t|unable|warn|invalid|missing|no such|refus|abort|unexpected'

# ---- the TPM in the guest ---------------------------------------------------

# guest_tpm NAME - until its device is there
guest_tpm() { guest_run -t 70 "$1" 'wait-tpm 60'; }

# After a restore the guest's device has another number (after a checkpoint it has not). Its
# tools take the first.
reconnect() { # NAME
    wait_for 180 guest_tty "$1"
    guest_run -t 180 "$1" 'with-tpm 0 true
        tpm=$(ls /sys/bus/xen/devices/vtpm-0/tpm)
        [ "$tpm" = tpm0 ] || ln -sf "$tpm" /dev/tpm0'
}

# pcr NAME N - the SHA-256 value, hex
pcr() {
    guest_run -t 60 "$1" "tpm2_pcrread sha256:$2" | sed -n 's/^ *[0-9]* *: *0x\([0-9A-F]*\)$/\1/p'
}
pcr_extend() {
    guest_run -t 60 "$1" "tpm2_pcrextend $2:sha256=$(printf 'ab%.0s' {1..32})"
}
pcr_zero=$(printf '00%.0s' {1..32})

# tpm2_key_name NAME HANDLE - hex
tpm2_key_name() {
    guest_run -t 60 "$1" "tpm2_readpublic -Q -c $2 -n /tmp/name && xxd -p -c 100 /tmp/name"
}
tpm2_nv() { guest_run -t 60 "$1" "tpm2_nvread $2 -C o"; }

# tpm_begins NAME - what lasts as long as the boot: a session, a transient key, PCR 10 extended; and
# an NV index to use the session with. tpm_goes_on [-w WHEN] COMMAND... - the checks that session
# and key are good still; COMMAND, with a command as its last argument, runs that in the guest.
tpm_begins() {
    guest_run -t 120 "$1" 'set -e
        printf before >/tmp/text
        tpm2_nvdefine 0x1500021 -Q -C o -s 6 -a "ownerread|ownerwrite"
        tpm2_nvwrite 0x1500021 -C o -i /tmp/text
        tpm2_createprimary -Q -C o -G ecc -c /tmp/primary
        tpm2_flushcontext -t
        tpm2_startauthsession -S /tmp/session --hmac-session'
    pcr_extend "$1" 10
}
tpm_goes_on() {
    local when=''
    if [[ $1 == -w ]]; then
        when="$2: "
        shift 2
    fi
    is "${when}the guest's session is still good" \
        "$("$@" 'tpm2_nvread 0x1500021 -C o -P session:/tmp/session')" before
    succeeds "${when}its transient key is still good" \
        "$@" 'tpm2_readpublic -Q -c /tmp/primary && tpm2_flushcontext -t'
}

# ---- a guest that uses its TPM all along --------------------------------------

# It increments an NV counter without a pause, counts what succeeded, and keeps
# the errors of what did not. One guest at a time. /dev/tpm0 has one user at a
# time: other commands are run by beside_counting.

counting_start() { # NAME
    counting=$1
    guest_run -t 120 "$counting" 'set -e
        tpm2_nvdefine 0x1500020 -Q -C o -a "nt=counter|ownerread|ownerwrite"
        tpm2_nvincrement 0x1500020 -C o'
    counting_from=$(counting_tpm)
    # shellcheck disable=SC2016 # that is for the guest's shell
    guest_run "$counting" 'echo 0 >/tmp/count
        cat >/tmp/stream <<"END"
n=0
while [ ! -e /tmp/stop ]; do
    while [ -e /tmp/pause ]; do
        : >/tmp/paused
        usleep 20000
    done
    rm -f /tmp/paused
    if tpm2_nvincrement 0x1500020 -C o 2>/tmp/error; then
        n=$((n + 1))
        echo $n >/tmp/count.new
        mv /tmp/count.new /tmp/count
    else
        { date; cat /tmp/error; } >>/tmp/failures
    fi
done
: >/tmp/stopped
END
        sh /tmp/stream >/dev/null 2>&1 &'
    counting_goes_on
}
beside_counting() { # COMMAND
    # shellcheck disable=SC2016 # as above
    guest_run -t 90 "$counting" ': >/tmp/pause
        until [ -e /tmp/paused ]; do usleep 20000; done
        ( '"$1"' )
        status=$?
        rm -f /tmp/pause
        while [ -e /tmp/paused ]; do usleep 20000; done
        exit $status'
}
counting_tpm() { printf '%d\n' $((16#$(guest_run "$counting" 'tpm2_nvread 0x1500020 -C o | xxd -p'))); }
counting_guest() { guest_run "$counting" 'cat /tmp/count'; }
counting_reached() { [[ $(counting_guest) -ge $1 ]]; }
# Until it has done a few commands more: the first may have begun before.
counting_goes_on() { wait_for 60 counting_reached $(($(counting_guest) + 2)); }
# all_goes_on WHEN - it, its session and key, and PCR 10, which read $pcr_before (beside_counting)
all_goes_on() {
    counting_goes_on
    tpm_goes_on -w "$1" beside_counting
    # shellcheck disable=SC2154 # the scenario's
    is "$1: PCR 10 is as it was" "$(beside_counting 'tpm2_pcrread sha256:10')" "$pcr_before"
}

# The checks: none failed, and the TPM did each exactly once. In $counted how many.
counting_ends() {
    guest_run "$counting" ': >/tmp/stop; until [ -e /tmp/stopped ]; do usleep 100000; done'
    counted=$(counting_guest)
    is "no command of the guest failed" \
        "$(guest_run "$counting" 'cat /tmp/failures 2>/dev/null' || true)" ""
    is "each ran exactly once: the counter in the TPM agrees with the guest's" \
        "$(counting_tpm)" "$((counting_from + counted))"
}

# backend_pid UUID - of the process that serves that instance now
backend_pid() {
    xl-vtpm list --json |
        jq -r --arg u "$1" '[.. | objects | select(.uuid? == $u) | .device.pid? // empty] | first // empty'
}
# backend_is_not UUID PID - another one serves
backend_is_not() {
    local pid
    pid=$(backend_pid "$1") && [[ -n $pid && $pid != "$2" ]]
}
