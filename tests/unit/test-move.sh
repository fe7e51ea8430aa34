#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm-move between two hosts, which are two state directories with a key each: the real
# program and protocol, a pipe instead of ssh. The connection is cut at each message, and the
# giver killed: at no time may both registries say that they have the instance. TAP.
# shellcheck disable=SC2034 # out and err are shown by ok
set -u

build=$(cd "${top_builddir:-.}" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

U=dcdb124b-9fed-4040-b149-dd2dfd8d094c
for h in a b c e f; do
    mkdir -p "$dir/$h/run/journal"
    printf 'state-dir = %s\nrun-dir = %s\n' "$dir/$h/state" "$dir/$h/run" >"$dir/$h/conf"
done
# these two have storage in common, and what opens it
mkdir "$dir/shared"
for h in e f; do
    printf 'shared-dir = %s\nmaster-key = file:%s\n' "$dir/shared" "$dir/master.key" >>"$dir/$h/conf"
done
cat >"$dir/rsh" <<END
#!/bin/bash
# rsh HOST ...: as ssh, with FORWARD and BACK bytes at most; KILL: the giver dies then
f() { if [ -n "\${FORWARD-}" ]; then dd bs=1 count="\$FORWARD" status=none; [ -z "\${KILL-}" ] || kill -9 \$PPID; else cat; fi; }
g() { if [ -n "\${BACK-}" ]; then dd bs=1 count="\$BACK" status=none; [ -z "\${KILL-}" ] || kill -9 \$PPID; kill -9 \$\$; else cat; fi; }
f | flock "$dir/receiving" "$build/libxl-vtpm/xl-vtpm-move" -c "$dir/\$1/conf" receive 2>>"$dir/receiver" | g
END
chmod +x "$dir/rsh"

move() { # move HOST ARGUMENT...
    local host=$1
    shift
    "$build/libxl-vtpm/xl-vtpm-move" -c "$dir/$host/conf" -e "$dir/rsh" "$@" \
        >"$dir/out" 2>"$dir/err" </dev/null
    code=$?
    flock "$dir/receiving" true # the other end is done, too
    out=$(cat "$dir/out")
    err=$(cat "$dir/err")
}
sql() { sqlite3 "$dir/$1/state/vtpm.db" "$2"; }
# held, departing, departed, arriving, or nothing
life() { sql "$1" "SELECT CASE handover WHEN '' THEN 'held' ELSE handover END FROM instance WHERE uuid='$U'"; }
number() { sql "$1" "SELECT number FROM instance WHERE uuid='$U'"; }
state() { # state HOST commit|read [TEXT...]
    local host=$1 what=$2 place key=$dir/$1/state/master.key
    shift 2
    place=$(sql "$host" "SELECT place FROM instance WHERE uuid='$U'")
    [[ $host != [efgh] ]] || key=$dir/master.key
    "$build/tests/unit/state" "$what" "${place:-$dir/$host/state/instances/$(number "$host")}" $U \
        "$key" "$@" 2>&1
}
text() { local t; t=$(state "$1" read); echo "${t#* }"; }
create() { # create HOST UUID
    "$build/libxl-vtpm/xl-vtpm" -c "$dir/$1/conf" create "$2" >/dev/null 2>&1
}
one_holder() { # GIVER TAKER
    local a b
    a=$(life "$1")
    b=$(life "$2")
    ! { [ "$a" = held ] || [ "$a" = departing ]; } || [ "$b" != held ] || { echo "$1 $a, $2 $b"; false; }
}
lacks_handover() { ! has "$out" handover; }
# An offer that nobody makes any more counts as held, as the daemon and the next send take it.
lives() { is "$(life a)/$(life b)" "$1"; }

create a $U
create b 11111111-2222-4333-8444-555555555555 # another number there
state a commit hello
state_b_key() { "$build/tests/unit/state" commit "$dir/b/state/instances/1" \
    11111111-2222-4333-8444-555555555555 "$dir/b/state/master.key" other; }
state_b_key >/dev/null 2>&1
create c 22222222-2222-4333-8444-555555555555
"$build/tests/unit/state" commit "$dir/c/state/instances/1" 22222222-2222-4333-8444-555555555555 \
    "$dir/c/state/master.key" other >/dev/null 2>&1

move a send $U b
ok 'an instance without a TPM is not handed over' code 4
ok 'and stays' lives held/
sql a "UPDATE instance SET life='ready'"

echo x >"$dir/a/run/journal/1"
move a send $U b
ok 'nor one whose last boot did not end in order' code 4
ok 'which is told' has "$err" 'start the domain once and shut it down'
rm "$dir/a/run/journal/1"

mkdir "$dir/b/run/eventlog"
touch "$dir/b/run/eventlog/2" "$dir/b/run/eventlog/2.raw"
move a send $U b
ok 'it goes to another host' code 0
ok 'where no event log is left of a boot before' is "$(ls "$dir/b/run/eventlog")" ""
ok 'which has it now, and nobody else' lives departed/held
ok 'with its state, under the key of that host' is "$(text b)" hello
ok 'the token is the same in both registries' is "$(sql a "SELECT handover_token FROM instance WHERE uuid='$U'")" \
    "$(sql b "SELECT handover_token FROM instance WHERE uuid='$U'")"
move a send $U b
ok 'sent again, it is confirmed again' code 0
state b commit later
move a send $U b
ok 'and the newer state there stays' is "$(text b)" later

out=$("$build/libxl-vtpm/xl-vtpm" -c "$dir/a/conf" show $U 2>&1)
ok 'where it went is shown' has "$out" 'departed, other host b, token '
out=$("$build/libxl-vtpm/xl-vtpm" -c "$dir/b/conf" show $U 2>&1)
ok 'and not where it is' lacks_handover
move a send $U c
ok 'who gave it away does not give it to a third' code 4
ok 'which gets nothing' is "$(life c)" ''
ok 'and learns why' has "$err" 'knows nothing of'
move b send $U c
ok 'who has it does' is "$(life b)/$(life c)" departed/held
move a send $U b
ok 'what was passed on does not arrive a second time' code 4
ok 'and stays where it is' is "$(life a)/$(life b)/$(life c)" departed/departed/held
move c send $U b
ok 'it comes back from there' is "$(life b)/$(life c)" held/departed

move b send $U a
ok 'it comes back' lives held/departed
ok 'with what it became there' is "$(text a)" later

move a resume-here $U
ok 'an administrator is warned before deciding' has "$err" 'there are two of it'
move a --yes resume-here $U
ok 'and cannot decide where it is here' code 1
move a send $U ''
ok 'a host without a name is none' code 2

cp -a "$dir/b/state/instances/$(number b)" "$dir/copy"
create b $U
ok 'an old copy is not served by making the instance anew' lives held/departed

# a host on which no daemon ever ran
mkdir -p "$dir/d"
printf 'state-dir = %s\nrun-dir = %s\n' "$dir/d/state" "$dir/d/run" >"$dir/d/conf"
move a send $U d
ok 'a host without a registry refuses' code 4
ok 'and says what to do' has "$err" 'start xl-vtpmd there once'
create d 33333333-2222-4333-8444-555555555555
move a send $U d
ok 'one without a master key does, too' has "$err" 'start xl-vtpmd there once'
ok 'and nothing changed' lives held/departed

# the connection is cut at each byte that matters, in each direction
size=$((12 + 16 + 4 + 4 + 37 + 4 + 4 + 8 + 37 + 256 + 256 + 4 + 4))
i=0
cut_everywhere() { # GIVER TAKER [WHERE]
    local cut kill label
    for cut in "FORWARD=0" "FORWARD=5" "FORWARD=$((size - 1))" "FORWARD=$size" "FORWARD=$((size + 5))" \
        "FORWARD=$((size + 15))" "BACK=0" "BACK=11" "BACK=12" "BACK=18" "BACK=23" \
        "BACK=24" "BACK=30" "BACK=35"; do
        for kill in '' 1; do
            i=$((i + 1))
            label="${3-}cut at $cut${kill:+, killed}:"
            state "$1" commit "round$i" >/dev/null
            export "${cut?}" KILL=$kill
            move "$1" send $U "$2"
            unset FORWARD BACK KILL
            ok "$label not two have it" one_holder "$1" "$2"
            if [ "$(life "$1")" = departed ]; then
                ok "$label it is said that nobody may have it" [ $code -ne 0 ]
            fi
            move "$1" send $U "$2"
            ok "$label sent again it arrives ($code)" is "$(life "$1")/$(life "$2")" departed/held
            ok "$label with its state" is "$(text "$2")" "round$i"
            move "$2" send $U "$1"
            [ "$(life "$1")/$(life "$2")" = held/departed ] || echo "# not back: $err"
        done
    done
}
cut_everywhere a b

# cut in doubt, and decided by the administrator
export BACK=24
move a send $U b
unset BACK
ok 'what the other host may have is not called off' code 6
sql b "UPDATE instance SET handover='arriving' WHERE uuid='$U'"
move a --yes resume-here $U
ok 'an administrator takes it back' lives held/arriving
move b --yes resume-here $U
ok 'or lets it stay where it arrived' lives held/held # what the warning is about

# storage that two hosts have
xl_vtpm() { # HOST ARGUMENT...
    local host=$1
    shift
    out=$("$build/libxl-vtpm/xl-vtpm" -c "$dir/$host/conf" "$@" 2>"$dir/err")
    code=$?
    err=$(cat "$dir/err")
}
lacks_mount() { ! has "$out" 'mount the storage'; }
in_shared() { find "$dir/shared" -name 'slot-*' | wc -l; }
create e $U
create f 44444444-2222-4333-8444-555555555555
xl_vtpm e share $U
ok 'an instance without a TPM is not shared' code 3
ok 'and nothing is there' is "$(in_shared)" 0
state e commit hello >/dev/null
sql e "UPDATE instance SET life='ready'"
"$build/tests/unit/state" commit "$dir/f/state/instances/1" 44444444-2222-4333-8444-555555555555 \
    "$dir/master.key" other >/dev/null 2>&1
xl_vtpm a share $U
ok 'nor on a host that has no such storage' code 5
ok 'which says what to set' has "$err" shared-dir
echo x >"$dir/e/run/journal/1"
xl_vtpm e share $U
ok 'nor one whose last boot did not end in order' code 4
rm "$dir/e/run/journal/1"
xl_vtpm e share $U
ok 'xl-vtpm share puts it there' code 0
ok 'and says where' has "$out" "$dir/shared/$U"
ok 'with its state' is "$(text e)" hello
ok 'of which nothing stays behind' is "$(find "$dir/e/state/instances/1" -type f)" ''
xl_vtpm e share $U
ok 'once' code 4
xl_vtpm e unshare $U
ok 'xl-vtpm unshare puts it back' is "$(text e)/$(in_shared)" hello/0
in_own() { find "$dir/e/state/instances/$(number e)" -name 'slot-*' | wc -l; }
{ ASAN_OPTIONS=detect_leaks=0 strace -f -o /dev/null -e trace=unlinkat \
    -e inject=unlinkat:signal=KILL:when=1 "$build/libxl-vtpm/xl-vtpm" -c "$dir/e/conf" share $U; } \
    >"$dir/out" 2>"$dir/err"
ok 'killed when it is there, but not only there' is "$(text e)/$(in_shared)/$(in_own)" hello/2/2
state e commit 'written since' >/dev/null
xl_vtpm e unshare $U
ok 'it comes back as it is there' is "$code/$(text e)/$(in_shared)" '0/written since/0'
xl_vtpm e share $U
ok 'and goes again' is "$code/$(text e)/$(in_shared)/$(in_own)" '0/written since/2/0'
printf x >"$dir/e/state/instances/$(number e)/slot-1"
xl_vtpm e unshare $U
ok 'whatever is in its place' is "$code/$(text e)/$(in_shared)/$(in_own)" '0/written since/0/2'
state e commit hello >/dev/null
ok 'where it was' [ -s "$dir/e/state/instances/1/slot-0" ]
state e commit world >/dev/null
xl_vtpm e share $U
mkdir -p "$dir/kept" && cp -a "$dir/shared/$U" "$dir/kept"
xl_vtpm e show $U
ok 'xl-vtpm show tells where it is' has "$out" "$dir/shared/$U"
xl_vtpm e rekey
ok 'the master key, which two hosts have, is not changed under it' code 4
ok 'and what to do is said' has "$err" 'xl-vtpm unshare'

move e send $U a
ok 'a host without that storage does not get it' code 4
ok 'and says why' has "$err" 'no shared-dir'
ok 'nor does it change hands' is "$(life e)/$(life a)" held/held
printf 'shared-dir = %s\n' "$dir/elsewhere" >>"$dir/c/conf"
mkdir -p "$dir/elsewhere/$U"
move e send $U c
ok 'nor one that has something else there' code 4
cp -a "$dir/shared/$U" "$dir/elsewhere/"
move e send $U c
ok 'nor one with another master key' code 4
ok 'which it says' has "$err" 'the same storage and the same master key'
cp "$dir/master.key" "$dir/c/state/master.key.new"
state e commit newer >/dev/null
printf 'master-key = file:%s\n' "$dir/master.key" >>"$dir/c/conf"
move e send $U c
ok 'nor one with a copy of before' code 4
ok 'it is held still' is "$(life e)/$(life c)" held/arriving

move e send $U f
ok 'it goes to a host that has both' code 0
ok 'which holds it' is "$(life e)/$(life f)" departed/held
ok 'and nothing was copied' is "$(find "$dir/f/state/instances/$(number f)" -type f)/$(in_shared)" /2
ok 'but is there' is "$(text f)" newer
state f commit later >/dev/null
move e send $U f
ok 'sent again, it is confirmed again' code 0
xl_vtpm e unshare $U
ok 'who gave it away does not take it off the shared storage' code 4
xl_vtpm e delete --yes $U
ok 'nor deletes it' is "$code/$(text f)" 4/later
xl_vtpm f rekey
ok 'who has it cannot change the master key' is "$code/$(text f)" 4/later
xl_vtpm f reset --yes $U
ok 'nor is it reset there' is "$code/$(text f)" 4/later
ok 'but where it is no more shared' has "$err" 'xl-vtpm unshare it first'
xl_vtpm f backup "$dir/backup"
ok 'a backup has its state, too' is "$code/$("$build/tests/unit/state" read \
    "$dir/backup/instances/$(number f)" $U "$dir/master.key")" "0/$(state f read)"
xl_vtpm e backup "$dir/backup-e"
ok 'and one is made where it was' code 0
mkdir -p "$dir/h/run/journal"
sed "s|$dir/f/|$dir/h/|" "$dir/f/conf" >"$dir/h/conf"
xl_vtpm h restore "$dir/backup"
ok 'restored, a host has it where it is' is "$code/$(text h)" 0/later
mv "$dir/shared" "$dir/unmounted"
xl_vtpm f doctor
ok 'storage that is not mounted is noticed' has "$out" 'mount the storage that is shared-dir'
xl_vtpm e doctor
ok 'where it matters' lacks_mount
mv "$dir/unmounted" "$dir/shared"
move f send $U e
ok 'it comes back' is "$(life e)/$(life f)" held/departed
ok 'with what it became' is "$(text e)" later
cut_everywhere e f 'shared, '
xl_vtpm e unshare $U
move e send $U f
ok 'taken off again it is copied as ever' is "$code/$(text f)/$(in_shared)" "0/round$i/0"
xl_vtpm f share $U
move f send $U e
ok 'and may go back by the shared storage' is "$code/$(text e)/$(in_shared)" "0/round$i/2"
# a host is lost, and another one that never had its TPM goes on
mkdir -p "$dir/g/run/journal"
sed "s|$dir/f/|$dir/g/|" "$dir/f/conf" >"$dir/g/conf"
create g 55555555-2222-4333-8444-555555555555
move g resume-here $U
ok 'what is on shared storage is not taken without a warning' is "$code/$(life g)" 4/
exec 8<"$dir/shared/$U/slot-0"
flock 8
move g --yes resume-here $U
ok 'nor while a host serves it' is "$code/$(life g)" 4/
ok 'which it says' has "$err" 'another host serves'
exec 8<&-
move g --yes resume-here $U
ok 'what is no TPM there (a text, here) is not taken over' is "$code/$(life g)" 1/
move g --yes resume-here 66666666-2222-4333-8444-555555555555
ok 'of one that is nowhere there is nothing' is "$code" 3
xl_vtpm e delete --yes $U
xl_vtpm e purge --yes $U
ok 'purged, it is gone from there' is "$code/$(ls "$dir/shared")" 0/

# garbage
printf 'Welcome to host b!\n' >"$dir/motd"
printf '#!/bin/sh\ncat %s; cat >/dev/null\n' "$dir/motd" >"$dir/rsh"
sql b "UPDATE instance SET handover='departed' WHERE uuid='$U'"
move a send $U b
ok 'a login that prints something is recognised' has "$err" 'does its login print something'
ok 'and changes nothing' lives held/departed
before=$(sql b .dump | cksum)
printf 'garbage that is no offer, long enough for a header' |
    "$build/libxl-vtpm/xl-vtpm-move" -c "$dir/b/conf" receive >"$dir/out" 2>"$dir/err"
code=$?
err=$(cat "$dir/err")
ok 'who receives garbage refuses it' has "$code $err" \
    '1 xl-vtpm-move: the other side does not speak our protocol'
ok 'and changes nothing there' is "$(sql b .dump | cksum)" "$before"
echo "1..$n"
