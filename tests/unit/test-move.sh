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
for h in a b c; do
    mkdir -p "$dir/$h/run/journal"
    printf 'state-dir = %s\nrun-dir = %s\n' "$dir/$h/state" "$dir/$h/run" >"$dir/$h/conf"
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
    local host=$1 what=$2
    shift 2
    "$build/tests/unit/state" "$what" "$dir/$host/state/instances/$(number "$host")" $U \
        "$dir/$host/state/master.key" "$@" 2>&1
}
text() { local t; t=$(state "$1" read); echo "${t#* }"; }
create() { # create HOST UUID
    "$build/libxl-vtpm/xl-vtpm" -c "$dir/$1/conf" create "$2" >/dev/null 2>&1
}
one_holder() {
    local a b
    a=$(life a)
    b=$(life b)
    ! { [ "$a" = held ] || [ "$a" = departing ]; } || [ "$b" != held ] || { echo "a $a, b $b"; false; }
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
size=$((12 + 16 + 4 + 4 + 37 + 4 + 4 + 8 + 37 + 256 + 256 + 4))
i=0
for cut in "FORWARD=0" "FORWARD=5" "FORWARD=$((size - 1))" "FORWARD=$size" "FORWARD=$((size + 5))" \
    "FORWARD=$((size + 15))" "BACK=0" "BACK=11" "BACK=12" "BACK=18" "BACK=23" \
    "BACK=24" "BACK=30" "BACK=35"; do
    for kill in '' 1; do
        i=$((i + 1))
        state a commit "round$i" >/dev/null
        export "${cut?}" KILL=$kill
        move a send $U b
        unset FORWARD BACK KILL
        ok "cut at $cut${kill:+, killed}: not two have it" one_holder
        if [ "$(life a)" = departed ]; then
            ok "cut at $cut${kill:+, killed}: it is said that nobody may have it" [ $code -ne 0 ]
        fi
        move a send $U b
        ok "cut at $cut${kill:+, killed}: sent again it arrives ($code)" lives departed/held
        ok "cut at $cut${kill:+, killed}: with its state" is "$(text b)" "round$i"
        move b send $U a
        lives held/departed >/dev/null || echo "# not back: $err"
    done
done

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

# garbage
printf 'Welcome to host b!\n' >"$dir/motd"
printf '#!/bin/sh\ncat %s; cat >/dev/null\n' "$dir/motd" >"$dir/rsh"
sql b "UPDATE instance SET handover='departed' WHERE uuid='$U'"
move a send $U b
ok 'a login that prints something is recognised' has "$err" 'does its login print something'
ok 'and changes nothing' lives held/departed
printf 'garbage that is no offer, long enough for a header' | move b receive
echo "1..$n"
