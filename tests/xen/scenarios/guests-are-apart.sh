# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# Two uuids are two TPMs; a uuid in use is refused to a second guest, fast and with a reason, and the first guest does not notice.
# limit: 600 s

uuid1=11111111-5e5f-4c1c-8a55-3d0c5a3b0001
uuid2=22222222-5e5f-4c1c-8a55-3d0c5a3b0002

seed() {
    guest_run -t 120 "$1" "set -e
        printf '%s' '$2' >/tmp/text
        tpm2_nvdefine $3 -Q -C o -s ${#2} -a 'ownerread|ownerwrite'
        tpm2_nvwrite $3 -C o -i /tmp/text
        tpm2_createprimary -Q -C o -G ecc -c /tmp/primary
        tpm2_evictcontrol -Q -C o -c /tmp/primary 0x81000010
        tpm2_flushcontext -t"
}

step "two guests with different uuids at the same time"
daemon_reset
daemon_start
guest_up apart1 "backend=0,uuid=$uuid1"
guest_up apart2 "backend=0,uuid=$uuid2"
guest_tpm apart1
guest_tpm apart2
# The same index in both, with different contents, and one in the first only.
seed apart1 "belongs to one" 0x1500001
seed apart2 "belongs to two" 0x1500001
guest_run -t 60 apart1 'tpm2_nvdefine 0x1500002 -Q -C o -s 8 -a "ownerread|ownerwrite"'
is "the first guest reads its own data" "$(tpm2_nv apart1 0x1500001)" "belongs to one"
is "the second guest reads its own data" "$(tpm2_nv apart2 0x1500001)" "belongs to two"
indices=$(guest_run -t 60 apart2 'tpm2_getcap handles-nv-index')
like "the second guest tells what indices it has" "$indices" 0x1500001
is "an index of the first guest is not there for the second" \
    "$(grep -ic 0x1500002 <<<"$indices" || true)" 0
isnt "their keys differ" "$(tpm2_key_name apart1 0x81000010)" "$(tpm2_key_name apart2 0x81000010)"
isnt "they are two instances" \
    "$(xs "$(vtpm_backend "$(guest_domid apart1)")/instance" || true)" \
    "$(xs "$(vtpm_backend "$(guest_domid apart2)")/instance" || true)"
pcr_extend apart1 10
is "a PCR extended in one is untouched in the other" "$(pcr apart2 10)" "$pcr_zero"

step "each of their processes is in a sandbox of its own"
pid1=$(backend_pid "$uuid1")
pid2=$(backend_pid "$uuid2")
status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
like "a user that nobody else is" "$(status_of "$pid1" Uid)" '^20132[0-9]{5}([[:space:]]20132[0-9]{5}){3}$'
isnt "and another one for the other" "$(status_of "$pid1" Uid)" "$(status_of "$pid2" Uid)"
for word in CapPrm CapEff CapBnd CapAmb; do
    is "no capabilities: $word" "$(status_of "$pid1" $word)" 0000000000000000
done
is "system calls are filtered" "$(status_of "$pid1" Seccomp)" 2
is "no new privileges" "$(status_of "$pid1" NoNewPrivs)" 1
like "its memory is locked" "$(status_of "$pid1" VmLck)" '^[1-9][0-9]+ kB'
for space in mnt net ipc uts; do
    isnt "not in dom0's namespace: $space" "$(readlink "/proc/$pid1/ns/$space")" \
        "$(readlink /proc/self/ns/$space)"
done
is "its root is empty" "$(find "/proc/$pid1/root/" -mindepth 1 | wc -l)" 0
is "of Xen it has one event channel device, none that maps grants" \
    "$(find "/proc/$pid1/fd/" -lname '/dev/xen/*' -printf '%l\n')" /dev/xen/evtchn

step "in a backend's place, what is forbidden is tried for real"
# Killed with nobody to start it again, it leaves its ring and port to whoever comes next.
frontend1=$(xs "$(vtpm_backend "$(guest_domid apart1)")/frontend")
frontend2=$(xs "$(vtpm_backend "$(guest_domid apart2)")/frontend")
pcr_before=$(pcr apart1 10)
daemon_stop
kill -9 "$pid1"
wait_for 10 test ! -e "/proc/$pid1/fd/0"
log "$(/share/jail "$(guest_domid apart1)" "$(xs "$frontend1/ring-ref")" \
    "$(xs "$frontend1/event-channel")" "$(guest_domid apart2)" "$(xs "$frontend2/ring-ref")" \
    "$(xs "$frontend2/event-channel")" "$pid2" 2013333333 2>"$logs/jail.err" | tee "$logs/jail")"
is "each attempt succeeds from outside" "$(grep -c '^works    outside' "$logs/jail")" 13
is "each is stopped where the host was left, without the filter" \
    "$(grep -c '^stopped  host left' "$logs/jail")" 13
is "each is stopped by the filter in the whole sandbox" \
    "$(grep -c '^stopped  jail, .*: by the filter' "$logs/jail")" 13
is "nothing was open" "$(grep -v '^works\|^stopped' "$logs/jail" || true)" ""
is "and the page and its channel are there" "$(grep -c '^works    jail' "$logs/jail")" 1
daemon_start
is "the guest goes on, with its PCRs" "$(pcr apart1 10)" "$pcr_before"
is "and the other's process did not notice" "$(backend_pid "$uuid2")" "$pid2"

step "a third guest with the first one's uuid"
pcr_before=$(pcr apart1 10)
domid_before=$(guest_domid apart1)
backend_before=$(xenstore-ls "$(vtpm_backend "$domid_before")")
mark=$(daemon_log_mark)
guest_config intruder "backend=0,uuid=$uuid1"
status=0
guest_create intruder || status=$?
isnt "the second use of a uuid at once: xl create fails" "$status" 0
at_most "and fails fast" "$xl_seconds" 9.9
like "xl says which device it was" "$xl_output" \
    'unable to add device with path /local/domain/0/backend/vtpm/[0-9]+/0'
like "the daemon's log says why, with the uuid" \
    "$(daemon_log_since "$mark" | grep "$uuid1" || true)" 'in use|already|busy'
like "xl-vtpm show says who has it" "$(xl-vtpm show "$uuid1" 2>&1)" 'apart1'
succeeds "no half-made guest is left" guest_gone intruder

is "the first guest is still the same domain" "$(guest_domid apart1)" "$domid_before"
is "its backend directory is as before" "$(xenstore-ls "$(vtpm_backend "$domid_before")")" "$backend_before"
is "its data is untouched" "$(tpm2_nv apart1 0x1500001)" "belongs to one"
is "its PCRs are untouched" "$(pcr apart1 10)" "$pcr_before"

step "once the first guest is gone, the other may have that TPM"
guest_destroy apart1
guest_create intruder
guest_wait intruder
guest_tpm intruder
is "a uuid given up serves its next guest" "$(tpm2_nv intruder 0x1500001)" "belongs to one"
