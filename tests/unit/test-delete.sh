#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm label, delete, undelete, purge, reset: what is deleted is served to nobody
# and can be had back; what is purged is gone, whole, whenever it is killed. TAP.
# shellcheck disable=SC2034 # out and err are shown by ok
set -u

build=$(cd "${top_builddir:-.}" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

cat >"$dir/conf" <<END
state-dir = $dir/state
run-dir = $dir/run
deleted-kept = 10
END
U=dcdb124b-9fed-4040-b149-dd2dfd8d094c
printf 'name = "web"\nmemory = 64\nvtpm = [ "backend=0,uuid=%s" ]\n' $U >"$dir/web.cfg"
sql() { sqlite3 "$dir/state/vtpm.db" "$1"; }
state() { # state commit|read|hold [TEXT...], of instance 1
    "$build/tests/unit/state" "$1" "$dir/state/instances/1" $U "$dir/state/master.key" "${@:2}" 2>&1
}
make_one() {
    rm -rf "$dir/state"
    run create $U
    state commit "a state" >/dev/null
    sql "UPDATE instance SET life='ready'"
    run bind web $U
}

make_one
run label $U 'the web server'
ok "a label is given" is "$code$(sql 'SELECT label FROM instance')" "0the web server"
run label 1 $'two\nlines'
ok "a label is a line" code 5
run label 1 ''
ok "and taken away" is "$code$(sql 'SELECT label FROM instance')" 0
run delete 1
ok "without a terminal nothing is deleted" is "$code$(sql 'SELECT deleted FROM instance')" 40
ok "and it is said how" has "$err" "--yes"
# a terminal, at which somebody types
type_at() { script -qec "$build/libxl-vtpm/xl-vtpm -c $dir/conf $2" /dev/null <<<"$1" >"$dir/out"; code=$?; out=$(cat "$dir/out") err=; }
type_at no "delete 1"
ok "a no is a no" is "$code$(sql 'SELECT deleted FROM instance')" 40
ok "the question says what it is about" has "$out" "last domain web"
type_at yes "delete 1"
ok "a yes is a yes" is "$code" 0
run list
ok "it is not in the list any more" is "$(wc -l <"$dir/out")" 1
run list --deleted
ok "but in that of the deleted" has "$out" $U
run show $U
ok "show tells" has "$out" "xl-vtpm undelete"
run check "$dir/web.cfg"
ok "its domain is refused, not given another" code 4
ok "and told what can be done" has "$out" "undelete 1"
sed -i 's/,uuid=[^"]*//' "$dir/web.cfg"
run check "$dir/web.cfg"
ok "so it is by the domain's name" code 4
run bind db $U
ok "nothing is bound to it" code 4
run create $U
ok "nor made again" code 4
run delete --yes 1
ok "once is enough" code 4
run undelete $U
ok "it comes back" code 0
ok "with its state" is "$(state read)" "1 a state"
run check "$dir/web.cfg"
ok "and its binding" code 0
run undelete $U
ok "what is there cannot be brought back" code 5
run purge --yes 1
ok "what is there is not purged" code 5
ok "and still there" is "$(state read)" "1 a state"

hold "$dir/state/instances/1" $U "$dir/state/master.key"
run delete --yes 1
ok "what is in use is not deleted" code 4
ok "and it is said" has "$err" "in use"
let_go
sql "UPDATE instance SET handover='departed'"
run delete --yes 1
ok "what another host has stays known here" code 4
sql "UPDATE instance SET handover=''"

run delete --yes --json 1
ok "in JSON it says since when" has "$(field .deleted)" "T"
run purge --expired --yes
ok "before its time it stays" is "$out $(sql 'SELECT count(*) FROM instance')" "purged: 0 1"
sql "UPDATE instance SET deleted = deleted - 10 * 86400"
run purge --expired
ok "a purge is asked for, too" code 4
run purge --expired --yes
ok "after it it goes" is "$out $(sql 'SELECT count(*) FROM instance')" "purged: 1 0"
ok "with its state" test ! -e "$dir/state/instances/1"
run create $U
ok "the uuid is free then, the number is not" is "$code$(sql 'SELECT number FROM instance')" 02
# deleted COUNT: so many more that were deleted long ago; their first number in $first
deleted() {
    first=$(($(sql "SELECT seq FROM sqlite_sequence WHERE name = 'instance'") + 1))
    sql "WITH RECURSIVE n (i) AS (SELECT $first UNION ALL
            SELECT i + 1 FROM n WHERE i < $first + $1 - 1)
        INSERT INTO instance (number, uuid, tpm_version, life, created, deleted)
            SELECT i, printf('00000000-2222-4333-8444-%012d', i), 20, 'ready', 1, 1 FROM n"
    for ((i = first; i < first + $1; i++)); do mkdir "$dir/state/instances/$i"; done
}
numbers() { sql "SELECT count(*) || ' ' || min(number) FROM instance"; }
deleted 150
run purge --expired --yes
ok "all of them go, however many there are" is "$out $(numbers)" "purged: 150 1 2"
ok "with their states" is "$(ls "$dir/state/instances")" 2
deleted 80
for ((i = first; i < first + 70; i++)); do ln -s nowhere "$dir/state/instances/$i/slot-0"; done
run purge --expired --yes
ok "those that cannot go are in nobody's way" is "$code $(numbers)" "1 71 2"
ok "the first is named, and how many went" has "$err" \
    "instance $first cannot be locked; 10 others were purged"
rm "$dir"/state/instances/*/slot-0
busy=("$dir/state/instances/$((first + 1))"
    "$(printf '00000000-2222-4333-8444-%012d' $((first + 1)))" "$dir/state/master.key")
"$build/tests/unit/state" commit "${busy[@]}" "a state" >/dev/null
hold "${busy[@]}"
run purge --json --expired --yes
ok "what is in use stays" is "$code $(numbers)" "4 2 2"
ok "and is told" has "$err" "instance $((first + 1)) is in use"
let_go
run purge --expired --yes
ok "until it is free" is "$out $(numbers)" "purged: 1 1 2"
run purge
ok "purge wants to know what" code 5
run purge --expired --yes 2
ok "one thing at a time" code 5

# --- reset: the uuid has another TPM, the old one is deleted ---
make_one
sql "UPDATE instance SET label='web server', measure_boot='on', last_domain_name='web'"
run reset 1
ok "a reset is asked for" is "$code$(sql 'SELECT number, life FROM instance')" "41|ready"
hold "$dir/state/instances/1" $U "$dir/state/master.key"
run reset --yes 1
ok "what is in use is not reset" has "$err" "in use"
let_go
sql "UPDATE instance SET suspended=5"
run reset --yes 1
ok "nor under a domain that was saved" has "$err" "restore it first"
sql "UPDATE instance SET suspended=0, handover='departed'"
run reset --yes 1
ok "nor what another host has" code 4
sql "UPDATE instance SET handover='', deleted=5"
run reset --yes 1
ok "nor what is deleted" code 4
sql "UPDATE instance SET deleted=0"
mkdir -p "$dir/run/journal"
touch "$dir/run/journal/1"
ok "so far all is as it was" is "$(state read)" "1 a state"
run reset --yes --json $U
ok "it is reset" code 0
old=$(field .earlier.uuid)
ok "under its uuid is a new one, with its label" is \
    "$(field '.uuid + " " + .life + " " + .label + " " + .measure_boot')" "$U new web server on"
ok "bound as it was" is "$(field '.bindings[0].domain + " " + .bindings[0].origin')" \
    "web administrator"
ok "of the old state there is one copy" is \
    "$("$build/tests/unit/state" read "$dir/state/instances/2" "$old" "$dir/state/master.key")" \
    "1 a state"
ok "and no journal" is "$(cd "$dir" && echo state/instances/* run/journal/*)" \
    "state/instances/2 state/instances/3 run/journal/*"
run show "$old"
ok "it is deleted" has "$out" "xl-vtpm undelete"
ok "and says what it was" has "$out" "before the reset of $U"
run check "$dir/web.cfg"
ok "the domain gets the new one" has "$out" "$U"
run reset --yes $U
ok "what was never made is not reset" has "$err" "not made yet"
run undelete "$old"
ok "the old one comes back, as its own" is \
    "$code$(sql 'SELECT count(*) FROM instance WHERE deleted=0')" 02
run reset --yes nonsense
ok "nobody is not reset" test "$code" != 0

killed=0 wrong=0 before=0
for call in fsync fdatasync openat unlinkat pwrite64 mkdirat; do
    for count in 1 2 3 5 9 14; do
        make_one
        { ASAN_OPTIONS=detect_leaks=0 strace -o /dev/null -P "$dir/state" -P "$dir/state/instances" \
            -P "$dir/state/instances/1" -P "$dir/state/instances/2" \
            -P "$dir/state/instances/2/slot-0" \
            -P "$dir/state/vtpm.db" -P "$dir/state/vtpm.db-wal" \
            -e trace="$call" -e inject="$call:signal=KILL:when=$count" \
            "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" reset --yes 1 >"$dir/out"; } 2>"$dir/err"
        [ $? = 137 ] && killed=$((killed + 1))
        if [ "$(sql "SELECT life FROM instance WHERE uuid='$U'")" = ready ]; then
            before=$((before + 1))
            is "$(state read)$(sql 'SELECT count(*) FROM instance')" "1 a state1" ||
                { wrong=$((wrong + 1)); echo "# $call $count"; }
            run reset --yes 1
            [ "$code" = 0 ] || { wrong=$((wrong + 1)); echo "# again: $call $count $err"; }
        fi
        # once more a new one, and the old one whole
        old=$(sql "SELECT number || ' ' || uuid FROM instance WHERE deleted > 0")
        is "$(sql "SELECT life FROM instance WHERE uuid='$U'")$("$build/tests/unit/state" read \
            "$dir/state/instances/${old% *}" "${old#* }" "$dir/state/master.key")" "new1 a state" ||
            { wrong=$((wrong + 1)); echo "# after: $call $count $old"; }
        "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" rekey >/dev/null 2>&1
        is "$(sql 'SELECT number FROM instance ORDER BY number' | paste -sd,)" \
            "$(cd "$dir/state/instances" && echo * | tr ' ' ,)" ||
            { wrong=$((wrong + 1)); echo "# left: $call $count"; }
    done
done
echo "# killed $killed times, before anything had happened $before times"
ok "killed at any call it is as before, or reset" is "$wrong" 0
ok "it was killed, sometimes too late" test "$killed" -gt 8 -a "$before" -lt 36

killed=0 wrong=0
for call in fsync fdatasync openat unlinkat pwrite64; do
    for count in 1 2 3 5 9 14; do
        make_one
        run delete --yes 1
        { ASAN_OPTIONS=detect_leaks=0 strace -o /dev/null -P "$dir/state" -P "$dir/state/instances" \
            -P "$dir/state/instances/1" -P "$dir/state/vtpm.db" -P "$dir/state/vtpm.db-wal" \
            -e trace="$call" -e inject="$call:signal=KILL:when=$count" \
            "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" purge --yes 1 >"$dir/out"; } 2>"$dir/err"
        [ $? = 137 ] && killed=$((killed + 1))
        if [ "$(sql 'SELECT count(*) FROM instance')" = 1 ]; then
            # still there, all of it
            run undelete 1
            is "$(state read)" "1 a state" || { wrong=$((wrong + 1)); echo "# $call $count"; }
            run delete --yes 1
            run purge --yes 1
        fi
        run create
        sql "DELETE FROM instance" # as nobody does; a sweep comes with the next import or rekey
        "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" rekey >/dev/null 2>&1
        [ ! -e "$dir/state/instances/1" ] || { wrong=$((wrong + 1)); echo "# left: $call $count"; }
    done
done
echo "# killed $killed times"
ok "killed at any call it is whole, or goes with the next sweep" is "$wrong" 0
ok "it was killed" test "$killed" -gt 8
echo "1..$n"
