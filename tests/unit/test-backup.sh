#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm backup and restore: what is in a backup while states are committed, and that it comes back
# on a fresh host; keys that are not there; damage; kills in the middle of either. TAP.
# shellcheck disable=SC2034 # out and err are shown by ok
set -u

build=$(cd "${top_builddir:-.}" && pwd)
dir=$(mktemp -d)
writer=
trap '[ -z "$writer" ] || kill "$writer" 2>/dev/null; rm -rf "$dir"' EXIT

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

U=dcdb124b-9fed-4040-b149-dd2dfd8d094c
V=0b54a1d9-8e54-4c3e-a0a2-6c6c77b2ea6e
W=6a1c7c0e-2f8b-4d0a-9b38-3e5f0a7d9c11
for host in here there; do
    mkdir -p "$dir/$host/run/journal"
    printf 'state-dir = %s/state\nrun-dir = %s/run\n' "$dir/$host" "$dir/$host" >"$dir/$host/conf"
done
on() { cp "$dir/$1/conf" "$dir/conf"; }
sql() { sqlite3 "$dir/${2:-here}/state/vtpm.db" "$1"; }
# state commit|read|hold DIRECTORY NUMBER UUID KEY [TEXT...]
state() { "$build/tests/unit/state" "$1" "$dir/$2/instances/$3" "$4" "$dir/$5" "${@:6}" 2>&1; }
fresh() { rm -rf "$dir/there/state" "$dir"/there/*.key*; }
# as on a host whose daemon ran once
empty_registry() {
    mkdir -p "$dir/there/state/instances"
    sqlite3 "$dir/full/vtpm.db" .dump | grep -v 'INSERT INTO \(instance\|binding\)' |
        sqlite3 "$dir/there/state/vtpm.db"
    sql 'PRAGMA application_id = 1482052685; PRAGMA user_version = 3' there
}
tree() { (cd "$dir/$1" 2>/dev/null && find . -type f -printf '%P %m\n' | sort); }

on here
run backup "$dir/none"
ok "where nothing is there is nothing to back up" code 3
run create $U
run create $V
run create $W
state commit here/state 1 $U here/state/master.key one "a state" >/dev/null
state commit here/state 2 $V here/state/master.key "another" >/dev/null
sql "UPDATE instance SET life='ready' WHERE number < 3"
sql "UPDATE instance SET deleted=5 WHERE number=2"
run bind web $U
run backup "$dir/none/backup"
ok "a directory that cannot be made is told" has "$err" "none/backup"
run backup "$dir/plain"
ok "a backup is made" code 0
ok "without the keys, which is said" has "$out" "without the keys"
ok "with all that the instances have, and nobody else reads it" is "$(tree plain)" \
    "instances/1/slot-0 600
instances/1/slot-1 600
instances/2/slot-0 600
instances/2/slot-1 600
vtpm.db 600
xl-vtpm.conf 600"
ok "under its name alone" test ! -e "$dir/plain.unfinished"
cp "$dir/here/state/master.key" "$dir/full-key"
ok "the states are as they were" is \
    "$(state read plain 1 $U full-key) $(state read plain 2 $V full-key)" \
    "2 a state 1 another"
run backup "$dir/plain"
ok "what is there is not written over" has "$err" "exists"
run --json backup --with-keys "$dir/full"
ok "with the keys" is "$code $(field '.instances, .keys, (.left | length)' | xargs)" "0 3 true 0"
ok "they are those of the host" cmp "$dir/full/master.key" "$dir/here/state/master.key"

# --- on a slow disk ---
# until_or_late REASON CONDITION...: false, and tells, where that does not come
until_or_late() {
    local end=$((SECONDS + 120))
    until "${@:2}"; do
        [ $SECONDS -lt $end ] || { echo "# $1" >&2; return 1; }
    done
}
was_stopped() { grep -q 'stopped by SIGSTOP' "$dir/calls" 2>/dev/null; }
stopped_pid() { sed -n 's/ .*stopped by SIGSTOP.*//p' "$dir/calls" | head -1; }
# SIGALRM, as proc(5) tells it
second_is_over() {
    local pending
    pending=$(sed -n 's/^ShdPnd:[[:space:]]*//p' "/proc/$1/status")
    [ $((0x${pending:-0} & 1 << 13)) != 0 ]
}
# slow NAME: at a terminal, and at the third instance until a second is over; what that shows
slow() {
    script -qec "strace -f -o $dir/calls -e trace=mkdirat -e inject=mkdirat:signal=STOP:when=4 \
        $build/libxl-vtpm/xl-vtpm -c $dir/conf backup $dir/$1" /dev/null </dev/null &
    until_or_late "it does not come to the third instance" was_stopped &&
        until_or_late "its second is never over" second_is_over "$(stopped_pid)"
    kill -CONT "$(stopped_pid)"
    wait $!
    rm -f "$dir/calls"
}
ok "what takes longer than a second shows how far it is" \
    has "$(ASAN_OPTIONS=detect_leaks=0 slow slow)" "2 of 3 instances"
run backup "$dir/quick"
ok "where nobody looks it does not" is "$err" ""

# --- what an earlier run left ---
mkdir -p "$dir/again.unfinished/instances/7"
touch "$dir/again.unfinished/instances/7/slot-0"
run backup "$dir/again"
ok "what an interrupted run left is not in the way" is "$code $(tree again)" "0 $(tree plain)"
mkdir "$dir/busy.unfinished"
stays flock "$dir/busy.unfinished" sh -c 'echo locked; exec cat'
run backup "$dir/busy"
ok "what another run is at is" has "$err" "another run"
let_go

# --- while states are committed ---
slots() { cat "$dir"/here/state/instances/1/slot-? | cksum; }
another_commit() { [ "$(slots)" != "$before" ]; }
seen=0 wrong=0 last=0
touch "$dir/go"
while [ -e "$dir/go" ]; do
    state commit here/state 1 $U here/state/master.key a b c d e f g h i j k l m n o p >/dev/null
done &
writer=$!
for i in 1 2 3 4 5 6 7 8; do
    run backup "$dir/amid-$i"
    now=$(state read "amid-$i" 1 $U here/state/master.key)
    if [ "$code" != 0 ] || ! [ "${now%% *}" -ge "$last" ] 2>/dev/null; then
        wrong=$((wrong + 1))
        echo "# $code $now after $last: $err"
    fi
    [ "${now%% *}" = "$last" ] || seen=$((seen + 1))
    last=${now%% *}
    before=$(slots)
    until_or_late "no commit came after backup $i" another_commit || {
        wrong=$((wrong + 1))
        break
    }
done
rm "$dir/go"
wait "$writer"
writer=
ok "of a state that is written there is always one generation, whole" is "$wrong" 0
ok "and not always the same" test "$seen" -gt 2
state commit here/state 1 $U here/state/master.key "a state" >/dev/null

# --- damage ---
cp -r "$dir/here/state" "$dir/kept"
printf x | dd of="$dir/here/state/instances/2/slot-1" bs=1 seek=700 conv=notrunc 2>/dev/null
printf x | dd of="$dir/here/state/instances/2/slot-0" bs=1 seek=700 conv=notrunc 2>/dev/null
run backup --with-keys "$dir/damaged"
ok "a state that does not verify is told" is "$code" 6
ok "by its instance" has "$out" "instance 2 ($V) does not verify"
ok "and is there as it is" cmp "$dir/damaged/instances/2/slot-0" \
    "$dir/here/state/instances/2/slot-0"
on there
fresh
run restore "$dir/damaged"
ok "it comes back as that, with the others" is \
    "$code $(state read there/state 1 $U there/state/master.key | cut -d' ' -f2-)" "6 a state"
rm -rf "$dir/here/state"
mv "$dir/kept" "$dir/here/state"

# --- one of many that cannot be had ---
cp -r "$dir/here/state" "$dir/kept"
as_before() {
    on here
    rm -rf "$dir/here/state" "$dir/lacking"
    cp -r "$dir/kept" "$dir/here/state"
}
# both_ways LEFT...: these instances are named by backup and restore, and 1 comes back
both_ways() {
    local left
    left=$(printf '%s\n' "$@")
    run --json backup --with-keys "$dir/lacking"
    is "$code $(field '.left[].number')" "6 $left" || return
    is "$(jq -r '.[].number' "$dir/lacking/left.json")" "$left" || return
    on there
    fresh
    run --json restore "$dir/lacking"
    is "$code $(field '.left[].number')" "6 $left" || return
    is "$(state read there/state 1 $U there/state/master.key | cut -d' ' -f2-)" "a state"
}
as_before
rm "$dir/here/state/instances/2/slot-1"
ok "a TPM of which a file is missing keeps no other from its way back" both_ways 2
ok "what there is of it comes, too" cmp "$dir/there/state/instances/2/slot-0" \
    "$dir/kept/instances/2/slot-0"
ok "and the reason" has "$out" "slot-1 is missing"
fresh
rm "$dir/lacking/instances/1/slot-0"
run restore "$dir/lacking"
ok "another one that is not whole is none of these" has "$err" "not whole"
ok "and nothing is done" is "$(tree there/state)" ""
as_before
rm "$dir/here/state/instances/2/slot-0"
ok "nor where it is the other file" both_ways 2
as_before
mkdir "$dir/here/state/instances/2/other"
rm "$dir/here/state/instances/2/slot-0"
mkfifo "$dir/here/state/instances/2/slot-0"
ok "nor one that is no file" both_ways 2
as_before
sql "UPDATE instance SET place='$dir/not-mounted/$V' WHERE number=2"
ok "nor where its directory cannot be opened" both_ways 2
as_before
rm -r "$dir/here/state/instances/2"
ok "nor where its directory is gone" both_ways 2
as_before
rm "$dir"/here/state/instances/2/slot-?
(umask 077 && head -c 32 /dev/urandom >"$dir/other.key")
state commit here/state 2 $V other.key "of another key" >/dev/null
ok "nor one that the master key does not open" both_ways 2
as_before
rm -r "$dir/here/state/instances/1" "$dir/here/state/instances/2"
run --json backup "$dir/lacking"
ok "of several each is named" is "$code $(field '[.left[].number] | @csv')" "6 1,2"
refused_with() { code "$1" && has "$err" "$2"; }
for left in '[' '{}' '[ 2 ]' '[ { "number": "two" } ]' ''; do
    as_before
    rm "$dir/here/state/instances/2/slot-1"
    run backup --with-keys "$dir/lacking"
    printf '%s' "$left" >"$dir/lacking/left.json"
    on there
    fresh
    run restore "$dir/lacking"
    ok "a list of what was left that is none is refused: '$left'" \
        refused_with 5 lacking/left.json
    ok "and nothing is done: '$left'" is "$(tree there/state)" ""
done
as_before
sql "UPDATE instance SET place='$dir/not-mounted/$V', handover='departed' WHERE number=2"
run --json backup --with-keys "$dir/lacking"
ok "of what was given away nothing is missing" is "$code $(field '.left | length')" "0 0"
ok "and there is no list" test ! -e "$dir/lacking/left.json"
on there
fresh
run --json restore "$dir/lacking"
ok "nor when it comes back" is "$code $(field '.left | length')" "0 0"

# --- what changes behind the copy of the registry ---
# stopped CALLS COUNT COMMAND...: at that one of these calls, until go_on
stopped() {
    { ASAN_OPTIONS=detect_leaks=0 strace -f -o "$dir/calls" -e trace="$1" \
        -e inject="$1:signal=STOP:when=$2" "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" "${@:3}" \
        >"$dir/out.stopped" 2>"$dir/err.stopped" </dev/null & }
    tracer=$!
    until was_stopped || [ ! -e /proc/$tracer/exe ]; do :; done
}
go_on() {
    kill -CONT "$(stopped_pid)"
    wait "$tracer"
    code=$?
    mv "$dir/out.stopped" "$dir/out"
    mv "$dir/err.stopped" "$dir/err"
    heard $code
    rm -f "$dir/calls"
}
as_before
stopped mkdirat 1 backup --json "$dir/lacking"
run purge --yes $V
ok "one is purged meanwhile" code 0
go_on
ok "then all is copied anew, without it" is \
    "$code $(field '.instances, (.left | length)' | xargs)" "0 2 0"
as_before
mkdir -p "$dir/elsewhere"
stopped mkdirat 1 backup --json "$dir/lacking"
mv "$dir/here/state/instances/2" "$dir/elsewhere/$V"
mkdir "$dir/here/state/instances/2"
sql "UPDATE instance SET place='$dir/elsewhere/$V' WHERE number=2"
go_on
ok "nor is one left that went to another place" is "$code $(field '.left | length')" "0 0"
ok "it is there" test -s "$dir/lacking/instances/2/slot-1"

# --- and a change of the master key ---
as_before
stopped mkdirat 3 backup --with-keys --json "$dir/lacking"
ok "it is stopped between two states" is \
    "$(tree lacking.unfinished/instances)" $'1/slot-0 600\n1/slot-1 600'
run rekey
ok "while a backup runs the master key does not change" code 4
ok "which is told" has "$err" "another xl-vtpm rekey, or a backup, runs"
go_on
ok "the backup does not notice" is "$code $(field '.left | length')" "0 0"
on there
fresh
run restore "$dir/lacking"
ok "and its keys open all of its states" \
    is "$code $(state read there/state 1 $U there/state/master.key | cut -d' ' -f2-)" "0 a state"
as_before
stays flock "$dir/here/state/instances" sh -c 'echo locked; exec cat'
(
    ulimit -c hard
    exec "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" backup "$dir/lacking" >"$dir/out" 2>"$dir/err" \
        </dev/null 7>&-
) &
backup=$!
waiter="-> FLOCK .*:$(stat -c %i "$dir/here/state/instances") "
# until it waits or is over
until grep -qe "$waiter" /proc/locks || [ -z "$(readlink /proc/$backup/exe)" ]; do :; done
ok "while a rekey runs a backup waits" grep -e "$waiter" /proc/locks
ok "no core is dumped of a program with keys in it" is \
    "$(sed -n 's/^Max core file size *//p' /proc/$backup/limits | xargs)" "0 0 bytes"
ok "and has done nothing" test -z "$(find "$dir" -maxdepth 1 -name 'lacking*')"
let_go
wait $backup
heard $?
ok "then it goes on" is "$code $(tree lacking)" "0 $(tree plain)"
as_before
rm -rf "$dir/kept" "$dir/lacking"
on there

# --- restored ---
fresh
run restore "$dir/plain"
ok "without keys there is no restore" has "$err" "put it at $dir/there/state/master.key first"
ok "and nothing is done" is "$(tree there/state)" ""
head -c 32 /dev/urandom >"$dir/there/state/master.key"
chmod 600 "$dir/there/state/master.key"
run restore "$dir/plain"
ok "nor with another" has "$err" "another master key"
ok "nor is anything done then" is "$(tree there/state)" "master.key 600"
cp "$dir/here/state/master.key" "$dir/there/state/master.key"
run restore "$dir/plain"
ok "with the right one there is" code 0
ok "everything is there" is "$(tree there/state)" "$(tree full | grep -v conf)"
ok "as it was" is "$(state read there/state 1 $U there/state/master.key)" "2 a state"
run --json show $U
ok "with what the registry knew" is "$(field '.life + " " + .bindings[0].domain')" "ready web"
run restore "$dir/plain"
ok "a host with instances gets none" is "$code" 4
fresh
touch "$dir/there/run/journal/1"
mkdir -p "$dir/there/state/instances"
head -c 32 /dev/urandom >"$dir/there/state/master.key"
cp "$dir/there/state/master.key" "$dir/first.key"
chmod 600 "$dir/there/state/master.key"
empty_registry
run list
ok "a host whose daemon ran once" code 0
run restore "$dir/full"
ok "is fresh enough" code 0
ok "it has the keys of the backup" cmp "$dir/there/state/master.key" "$dir/full/master.key"
ok "and its own beside it" cmp "$dir/there/state/master.key.before-restore" "$dir/first.key"
rm -r "$dir/there/state/instances" "$dir"/there/state/vtpm.db*
head -c 32 /dev/urandom >"$dir/there/state/master.key"
run restore "$dir/full"
ok "a second one of its own is not lost either" has "$err" "cannot be kept as"
replaced() { cmp -s "$dir/there/state/master.key" "$dir/full/master.key"; }
ok "and so nothing was replaced" eval '! replaced'
mv "$dir/there/state/master.key.before-restore" "$dir/aside"
run restore "$dir/full"
ok "until the first is out of the way" code 0
ok "no journal of another life" test ! -e "$dir/there/run/journal/1"
run restore --json "$dir/here"
ok "what is no backup is told" test "$code" != 0
fresh
run restore "$dir/here"
ok "by what it lacks" has "$err" "is no backup: it has no vtpm.db"
cp -r "$dir/full" "$dir/part"
rm "$dir/part/instances/1/slot-1"
run restore "$dir/part"
ok "and a backup that is not whole" has "$err" "it has no $dir/part/instances/1/slot-1"
ok "nothing is left of these" is "$(tree there/state)" ""

# --- killed ---
# killed CALLS COUNT COMMAND...: at that one of these calls
killed() {
    { ASAN_OPTIONS=detect_leaks=0 strace -f -o /dev/null -e trace="$1" \
        -e inject="$1:signal=KILL:when=$2" "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" "${@:3}" \
        >"$dir/out"; } 2>"$dir/err"
    [ $? = 137 ]
}
kills=0 wrong=0 whole=0
for call in fsync syncfs renameat,rename,renameat2 unlinkat,unlink mkdirat,mkdir pwrite64 \
    linkat,link; do
    for count in 1 2 3 4 6 8; do
        on here
        rm -rf "$dir/k"
        killed "$call" $count backup --with-keys "$dir/k" && kills=$((kills + 1))
        [ ! -e "$dir/k" ] || is "$(tree k)" "$(tree full)" ||
            { wrong=$((wrong + 1)); echo "# backup, $call $count"; }
        [ -e "$dir/k" ] || run backup --with-keys "$dir/k"
        is "$(tree k)$(find "$dir" -name 'k.*')" "$(tree full)" ||
            { wrong=$((wrong + 1)); echo "# backup again, $call $count: $err"; }
        on there
        fresh
        if [ $((count % 2)) = 0 ]; then
            empty_registry
            (umask 077 && head -c 32 /dev/urandom >"$dir/there/state/master.key")
        fi
        killed "$call" $count restore "$dir/k" && kills=$((kills + 1))
        run list --json
        case $code$(field length 2>/dev/null) in
        00 | 1*) ;;
        02) whole=$((whole + 1)) ;;
        *) wrong=$((wrong + 1)); echo "# list, $call $count: $code $out $err" ;;
        esac
        # states that no registry knows: who starts would give their guests others
        [ "$code$(field length 2>/dev/null)" != 00 ] ||
            is "$(find "$dir/there/state/instances" -name 'slot-*' 2>/dev/null)" "" ||
            { wrong=$((wrong + 1)); echo "# unknown, $call $count"; }
        run restore "$dir/k"
        case $code in
        0 | 4) ;;
        *) wrong=$((wrong + 1)); echo "# restore again, $call $count: $err" ;;
        esac
        is "$(state read there/state 1 $U there/state/master.key | cut -d' ' -f2-)" "a state" ||
            { wrong=$((wrong + 1)); echo "# after $call $count: $(tree there/state)"; }
    done
done
echo "# killed $kills times, a restore was whole then $whole times"
ok "killed anywhere there is all or what a second run completes" is "$wrong" 0
ok "it was killed, and not always too late" test "$kills" -gt 15 -a "$whole" -lt 42
echo "1..$n"
