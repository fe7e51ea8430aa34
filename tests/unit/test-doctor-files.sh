#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm doctor from the outside: each thing that it looks at, as it should be
# and as it should not. The host itself is in test-doctor.c. TAP.
set -u

build=${top_builddir:-.}
src=${top_srcdir:-.}
# On a disk, for a state directory in memory is a finding; the run directory the other way round.
dir=$(mktemp -d -p /var/tmp)
mem=$(mktemp -d -p /dev/shm)
trap 'let_go; rm -rf "$dir" "$mem"' EXIT

. "$src/tests/lib/xl-vtpm.sh"

# serve [MODE] - see control-server.c
serve() { stays "$build/tests/unit/control-server" "$dir/conf" "$@"; }

# config [LINE...] - the healthy one, with lines that come before
config() {
    printf '%s\n' "$@" >"$dir/conf"
    local line
    while read -r line; do
        grep -q "^${line%% =*} =" "$dir/conf" || echo "$line" >>"$dir/conf"
    done <<END
state-dir = $dir/state
run-dir = $mem/run
backend-program = $dir/backend
backend-user = nobody
backend-uid-base = 0
END
}

# says CHECK RESULT WORDS - the doctor, now, has this finding
says() {
    run --json doctor
    jq -r --arg check "$1" '.checks[] | select(.check == $check) | .result + ": " + .text' \
        "$dir/out" >"$dir/found"
    grep "^$2: " "$dir/found" | grep -qF -- "$3" || { cat "$dir/found"; return 1; }
    # what is not well comes with what to do
    [ "$2" = ok ] || [ "$(jq --arg check "$1" --arg result "$2" '[.checks[] |
        select(.check == $check and .result == $result) | select((.advice // "") == "")] | length' \
        "$dir/out")" = 0 ]
}

# silent CHECK - nothing but ok, or nothing at all
silent() {
    run --json doctor
    is "$(jq -c --arg check "$1" '[.checks[] | select(.check == $check and .result != "ok")]' \
        "$dir/out")" "[]"
}

both() { # both NAME CHECK RESULT WORDS UNDO... - a finding, and none after UNDO
    ok "$1" says "$2" "$3" "$4"
    local name=$1 check=$2
    shift 4
    "$@"
    ok "$name: no more" silent "$check"
}

U=dcdb124b-9fed-4040-b149-dd2dfd8d094c
printf '#!/bin/sh\n' >"$dir/backend"
chmod 755 "$dir/backend"
probe() { # probe LINE... - what vtpm-probe says
    {
        printf '#!/bin/sh\ncat <<END\n'
        printf '%b\n' "$@"
        echo END
    } >"$dir/vtpm-probe"
    chmod 755 "$dir/vtpm-probe"
}
probe "CVE-1\tmended\tgood" "CVE-2\tmended\tas well"

# --- before anything is there ---
config
run doctor
before=$(find "$dir/state" "$mem/run" 2>&1)
ok "without a daemon there is a problem" code 1
ok "which is said" has "$out" "problem  daemon: no xl-vtpmd runs"
ok "with what to do" has "$out" "systemctl start xl-vtpmd"
ok "what the daemon will make is not missed" says state-dir ok "the daemon makes it"
ok "nor is the registry" says registry ok "there is no registry yet"
ok "nor the key" says "master key" ok "the daemon makes it"
ok "nothing was made" is "$(find "$dir/state" "$mem/run" 2>&1)" "$before"
run doctor extra
ok "it takes no arguments" code 2
run doctor --offline
ok "it looks at the daemon, so it is never --offline" code 2

# --- configuration ---
config "colour = red"
both "a configuration that is not valid" configuration problem "conf:1: unknown key" config
run doctor -c "$dir/none"
ok "one that is not there" has "$out" "$dir/none cannot be opened"
ok "is a problem" code 1

# --- daemon ---
mkdir -m 700 "$dir/state" "$mem/run"
(umask 077; head -c 32 /dev/urandom >"$dir/state/master.key")
run create $U
run create --label second
serve
ok "a daemon that runs is found" says daemon ok "xl-vtpmd runs (process 77, 1 devices)"
ok "one of another version is told" says "daemon version" warning "is of version 0"
let_go
serve garbage
ok "one that does not answer is told" says daemon problem "does not answer"
let_go

# --- directories ---
chmod 770 "$dir/state"
both "a state directory that others can write to" state-dir problem "others can write to it" \
    chmod 700 "$dir/state"
chmod 750 "$dir/state"
both "one that others can read" state-dir warning "others can read it" chmod 700 "$dir/state"
chmod 644 "$dir/state/vtpm.db"
both "a registry that others can read" state-dir warning "vtpm.db has mode 0644" \
    chmod 600 "$dir/state/vtpm.db"
mv "$dir/state" "$dir/kept"
touch "$dir/state"
both "a file in the place of a directory" state-dir problem "is no directory" rm "$dir/state"
mv "$dir/kept" "$dir/state"
if [ "$(id -u)" = 0 ]; then
    chown nobody "$dir/state"
    both "another's directory" state-dir problem "belongs to user" chown root "$dir/state"
fi
config "state-dir = $mem/state"
mkdir -m 700 "$mem/state"
both "states in memory" state-dir warning "all TPMs are lost" config
config "run-dir = $dir/run"
mkdir -m 700 "$dir/run"
if [ "$(stat -f -c %T "$dir")" != tmpfs ]; then
    both "journals on a disk" run-dir warning "is on a disk" config
fi
config
chmod 755 "$mem/run"
both "a run directory for all to read" run-dir warning "others can read it" chmod 700 "$mem/run"

# small - with a file system of that size for run-dir, what the doctor says of it
small() {
    config "run-dir = $dir/run"
    # shellcheck disable=SC2016
    unshare -m sh -c 'mount -t tmpfs -o mode=700,"$1" none "$2" && shift 2 && exec "$@"' - \
        "$1" "$dir/run" "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" doctor \
        >"$dir/out" 2>"$dir/err"
    out=$(cat "$dir/out")
    config
}
if unshare -m true 2>/dev/null; then
    small size=512k
    ok "no room left" has "$out" "problem  run-dir space: the file system of $dir/run has 512 KiB left"
    small size=8m
    ok "little room left" has "$out" "warning  run-dir space: the file system of $dir/run has 8 MiB left"
    small size=64m,nr_inodes=10
    ok "no room for files" has "$out" "problem  run-dir space: the file system of $dir/run has room for"
    small size=64m
    ok "room enough" has "$out" "ok       run-dir space"
else
    ok "room: needs root # SKIP" true
fi
ok "room for states is looked at" says "state-dir space" ok "MiB left"

# --- the backend ---
mv "$dir/backend" "$dir/away"
both "no backend program" backend-program problem "cannot be run" mv "$dir/away" "$dir/backend"
chmod 644 "$dir/backend"
both "one that cannot be run" backend-program problem "is not executable" chmod 755 "$dir/backend"
chmod 777 "$dir/backend"
both "one that others can change" backend-program warning "can be changed by others" \
    chmod 755 "$dir/backend"

# --- published flaws of libtpms ---
ok "no flaws" says libtpms ok "none of 2 published flaws that can be tried is in it"
probe "CVE-1\tmended\tgood" "CVE-2\topen\tit writes behind the command"
both "a flaw" libtpms warning "libtpms has the flaw CVE-2, which is a guest's to use: it writes behind" \
    probe "CVE-1\tmended\tgood"
probe "CVE-1\tunknown\tno such command"
both "what cannot be told" libtpms warning "has the flaw CVE-1 cannot be told: no such command" \
    probe "CVE-1\tmended\tgood"
mv "$dir/vtpm-probe" "$dir/away"
both "nothing to try with" libtpms warning "vtpm-probe is not there" mv "$dir/away" "$dir/vtpm-probe"
printf 'no program' >"$dir/vtpm-probe"
both "a probe that does not run" libtpms warning "does not run" probe "CVE-1\tmended\tgood"
chmod 777 "$dir/vtpm-probe"
both "one that others can change is not run" libtpms warning "can be changed by others" \
    chmod 755 "$dir/vtpm-probe"

config "backend-user = nobody-of-that-name"
both "no backend user" configuration problem "there is no such user" config
ok "a backend user" says backend-user ok "backends become user nobody"
config "backend-user ="
ok "no user asked for" says backend-user warning "there is no backend-user"
config

# --- the key ---
ok "no CA yet is well" says CA ok "the daemon makes it"
run ca init
ok "one that is there, too" says CA ok "xl-vtpm CA"
chmod 644 "$dir/state/ca.key"
both "a CA's key that others can read" CA problem "ca.key" chmod 600 "$dir/state/ca.key"
rm "$dir/state/ca.pem"
ok "half of a CA" says CA problem "ca.pem"
rm "$dir/state/ca.key"
ok "none again" says CA ok "the daemon makes it"
sqlite3 "$dir/state/vtpm.db" \
    "INSERT INTO certificate VALUES ('$(printf %032d 1)', 1, 'rsa2048', 1, 1, x'30', 'x')"
both "a CA that is gone, and had signed" CA problem "is gone" \
    sqlite3 "$dir/state/vtpm.db" "DELETE FROM certificate"
config "ca-key = none"
ok "no CA by configuration" says CA ok "as configured"
config
ok "a good key" says "master key" ok "can be read, by nobody else"
chmod 640 "$dir/state/master.key"
both "a key that others can read" "master key" problem "others can read it" \
    chmod 600 "$dir/state/master.key"
mv "$dir/state/master.key" "$dir/key"
both "a key that is lost" "master key" problem "master.key" mv "$dir/key" "$dir/state/master.key"
head -c 31 "$dir/state/master.key" >"$dir/state/short"
chmod 600 "$dir/state/short"
config "master-key = file:$dir/state/short"
both "a key that is too short" "master key" problem "31 bytes long" config
cp -p "$dir/state/master.key" "$dir/state/master.key.new"
both "a change of key" "master key" warning "is being changed" rm "$dir/state/master.key.new"
config "master-key = none"
both "no key" "master key" warning "there is no master key" config
config "master-key = credential:vtpm"
ok "a credential cannot be looked at from here" says "master key" warning "only the service gets"
serve
ok "a daemon that runs has it" says "master key" ok "the daemon has its credential vtpm"
let_go
config

# --- registry and instances ---
sql() { sqlite3 "$dir/state/vtpm.db" "$1" >/dev/null; }
ok "the registry is looked at" says registry ok "is sound"
mv "$dir/state/vtpm.db" "$dir/state/away"
touch "$dir/state/instances/1/slot-0"
both "a registry that is lost" registry problem "put back a backup" \
    mv "$dir/state/away" "$dir/state/vtpm.db"
rm "$dir/state/instances/1/slot-0"
sql "PRAGMA wal_checkpoint(TRUNCATE)"
cp "$dir/state/vtpm.db" "$dir/good.db"
dd if=/dev/zero of="$dir/state/vtpm.db" bs=1 seek=4096 count=2000 conv=notrunc status=none
back() { rm -f "$dir/state/vtpm.db"*; (umask 077; cp "$dir/good.db" "$dir/state/vtpm.db"); }
both "a registry that is damaged" registry problem "vtpm.db" back
ok "new instances need no slots yet" says instances ok "2 instances, each with"
ok "those never used are named" says unused ok "instance 1, 2"
sql "UPDATE instance SET life = 'ready' WHERE number = 1"
slots() {
    for i in 0 1; do
        head -c 32768 /dev/zero >"$dir/state/instances/1/slot-$i"
        chmod 600 "$dir/state/instances/1/slot-$i"
    done
}
both "slots that are missing" instances problem "instance 1: $dir/state/instances/1/slot-0" slots
truncate -s 100 "$dir/state/instances/1/slot-1"
both "a slot that is cut off" instances problem "no slot of a sane size (100 bytes)" slots
truncate -s 10G "$dir/state/instances/1/slot-1"
both "one that is far too long" instances problem "no slot of a sane size" slots
ln -sf /dev/zero "$dir/state/instances/1/slot-1"
both "a link in its place" instances problem "no slot" sh -c "rm '$dir/state/instances/1/slot-1'
    cp -p '$dir/state/instances/1/slot-0' '$dir/state/instances/1/slot-1'"
chmod 666 "$dir/state/instances/1/slot-0"
both "a slot that others can write to" instances problem "others can write to it" slots
mv "$dir/state/instances/2" "$dir/state/instances/away"
both "a directory that is missing" instances problem "instances/2" \
    mv "$dir/state/instances/away" "$dir/state/instances/2"
mkdir -m 700 "$dir/state/instances/7"
both "a state that the registry does not know" registry warning "does not know: 7" \
    rmdir "$dir/state/instances/7"
sql "UPDATE instance SET life = 'quarantined' WHERE number = 1"
both "quarantine" quarantine warning "instance 1" \
    sql "UPDATE instance SET life = 'ready' WHERE number = 1"
sql "UPDATE instance SET last_used = 1700000000"
ok "all are used" is "$(run --json doctor; field '[.checks[] | select(.check == "unused")] | length')" 0

# --- all in all ---
find "$dir/state" "$mem/run" -printf '%p %m %u %s %T@\n' | grep -v -e '-shm ' -e '-wal ' \
    -e "$dir/state [0-9]" | sort >"$dir/before"
run doctor
find "$dir/state" "$mem/run" -printf '%p %m %u %s %T@\n' | grep -v -e '-shm ' -e '-wal ' \
    -e "$dir/state [0-9]" | sort >"$dir/after"
ok "nothing was changed" cmp "$dir/before" "$dir/after"
ok "problems are counted" has "$out" "problems: "
run --json doctor
ok "the worst is the result" is "$(field .result)" problem
ok "nothing is said on stderr" is "$err" ""
mandoc -T lint -W warning "$src/man/xl-vtpm.8" >"$dir/out" 2>&1
ok "xl-vtpm(8) is clean" is "$(cat "$dir/out")" ""
ok "xl-vtpm(8) has the command" grep -q '^\.It Cm doctor' "$src/man/xl-vtpm.8"

echo "1..$n"
