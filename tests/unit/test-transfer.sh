#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm export and import: TPMs between us and the real swtpm, both ways, plain
# and encrypted; our own archive; files that lie, and kills in the middle; clear and
# clone. TAP.
# shellcheck disable=SC2034 # out and err are shown by ok
set -u

build=$(cd "${top_builddir:-.}" && pwd)
dir=$(mktemp -d)
swtpm=
trap '[ -z "$swtpm" ] || kill "$swtpm" 2>/dev/null; rm -rf "$dir"' EXIT

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

host_conf
printf 'a secret\nnot of it\n' >"$dir/pass"
printf 'another\n' >"$dir/other-pass"

sql() { sqlite3 "$dir/state/vtpm.db" "$1"; }
# swtpm VERSION DIRECTORY make|tell [SWTPM'S OPTION...]: one life of the real one, asked
swtpm_life() {
    local version=$1 state=$2 what=$3 two
    shift 3
    [ "$version" = 1.2 ] && two= || two=--tpm2
    mkdir -p "$state"
    rm -f "$dir/sock"
    # shellcheck disable=SC2086
    swtpm socket $two --tpmstate "dir=$state" --server "type=unixio,path=$dir/sock" \
        --flags not-need-init --daemon --pid "file=$dir/pid" "$@" >&2 || return
    swtpm=$(cat "$dir/pid")
    "$build/tests/unit/tpm-ask" "$what" "$version" "$dir/sock"
    local code=$?
    kill "$swtpm" 2>/dev/null
    # it has the lock of its state until it is gone
    tail --pid="$swtpm" -s 0.02 -f /dev/null
    swtpm=
    return $code
}
number() { sql "SELECT number FROM instance WHERE uuid='$1'"; }
# instance VERSION UUID make|tell
instance() {
    "$build/tests/unit/tpm-ask" "$3" "$1" "$dir/state/instances/$(number "$2")" "$2" \
        "$dir/state/master.key"
}
same() {
    if [ -z "$1" ] || [ "$1" != "$2" ]; then
        diff <(echo "$1") <(echo "$2")
        false
    fi
}
instances() { sql "SELECT count(*) FROM instance" 2>/dev/null || echo 0; }
directories() { find "$dir/state/instances" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l; }

# --- from swtpm, plain and with each kind of key, and back ---
printf '%s\n' 00112233445566778899aabbccddeeff >"$dir/key128"
printf '0x%s' 00112233445566778899aabbccddeeff00112233445566778899aabbccddee00 >"$dir/key256"
head -c 16 /dev/urandom >"$dir/binary128"
head -c 32 /dev/urandom >"$dir/binary256"
# longer than the buffer of an older swtpm, with an end of line, which counts
printf 'a password that is longer than 32 bytes of it, for sure\n' >"$dir/password"
i=0
while read -r name version key; do
    i=$((i + 1))
    file=$dir/a$i/tpm2-00.permall
    [ "$version" = 2.0 ] || file=$dir/a$i/tpm-00.permall
    option=() ours=()
    [ -z "$key" ] || { option=(--key "$key"); ours=(--swtpm-key "$key"); }
    swtpm_life "$version" "$dir/a$i" make "${option[@]}" >/dev/null
    before=$(swtpm_life "$version" "$dir/a$i" tell "${option[@]}")
    ok "$name: swtpm made a TPM" test -s "$file"
    run import "${ours[@]}" "$file"
    uuid=$out
    ok "$name: it is imported" code 0
    ok "$name: it is the same TPM here" same "$(instance "$version" "$uuid" tell)" "$before"
    mkdir "$dir/b$i"
    run export --swtpm "${ours[@]}" "$uuid" "$dir/b$i/${file##*/}"
    ok "$name: it is exported" code 0
    ok "$name: for its owner alone" is "$(stat -c %a "$dir/b$i/${file##*/}")" 600
    ok "$name: swtpm has the same TPM again" same \
        "$(swtpm_life "$version" "$dir/b$i" tell "${option[@]}")" "$before"
done <<END
2.0-plain 2.0
2.0-hex-128 2.0 file=$dir/key128,mode=aes-cbc
2.0-hex-256 2.0 file=$dir/key256,format=hex,mode=aes-256-cbc
2.0-binary-128 2.0 file=$dir/binary128,format=binary
2.0-binary-256 2.0 file=$dir/binary256,format=binary,mode=aes-256-cbc
2.0-pbkdf2 2.0 pwdfile=$dir/password,mode=aes-256-cbc
2.0-sha512 2.0 pwdfile=$dir/password,kdf=sha512
1.2-plain 1.2
1.2-hex-256 1.2 file=$dir/key256,mode=aes-256-cbc
END
ok "an imported instance is ready, and nothing marks it" is \
    "$(sql 'SELECT DISTINCT life FROM instance')$(find "$dir/state" -name incomplete)" ready

# --- what is changed here goes along ---
run import "$dir/a1/tpm2-00.permall"
uuid=$out
ok "a file may be imported twice, as two instances" code 0
run export --swtpm "$uuid" "$dir/a1/tpm2-00.permall"
ok "an existing file is not written over" code 4
ok "and is as it was" has "$err" "exists"
run import --tpm-version 2.0 --label 'from KVM' --json "$dir/a1/tpm2-00.permall" \
    11111111-2222-3333-4444-555555555555
ok "uuid, version and label can be said" is "$(field '.uuid + .tpm_version + .label + .life')" \
    "11111111-2222-3333-4444-5555555555552.0from KVMready"

# --- keys that do not fit ---
before=$(instances)
run import "$dir/a3/tpm2-00.permall"
ok "an encrypted file asks for its key" has "$err" "--swtpm-key"
run import --swtpm-key "file=$dir/key128" "$dir/a2/tpm-00.permall"
ok "no file, no instance" code 3
run import --swtpm-key "file=$dir/binary128,format=binary" "$dir/a2/tpm2-00.permall"
ok "another key is refused" has "$err" "does not open with this key"
run import --swtpm-key "file=$dir/key128" "$dir/a3/tpm2-00.permall"
ok "a key of another size is told" has "$err" "add mode=aes-256-cbc"
run import --swtpm-key "file=$dir/key128" "$dir/a1/tpm2-00.permall"
ok "a key for a plain file is refused" has "$err" "not encrypted"
for bad in "" file= "file=$dir/key128,pwdfile=$dir/password" mode=aes-cbc "file=$dir/key128,mode=rot13" \
    "file=$dir/key256" "file=$dir/binary256,format=binary" "file=$dir/key128,kdf=sha512" \
    "file=$dir/none" "pwdfile=/dev/null"; do
    run import --swtpm-key "$bad" "$dir/a2/tpm2-00.permall"
    ok "no key: '$bad'" test "$code" != 0 -a -n "$err"
done
run import --tpm-version 1.2 "$dir/a1/tpm2-00.permall"
ok "a 2.0 state is no 1.2 one" has "$err" "nothing was imported"
cp "$dir/a1/tpm2-00.permall" "$dir/state-file"
run import "$dir/state-file"
ok "a name that does not tell the version is asked about" has "$err" "--tpm-version"
ok "none of these left an instance" is "$(instances)" "$before"

# --- files that lie ---
flip() { # flip FILE BYTE: into $dir/lie
    python3 - "$1" "$dir/lie" "$2" <<'END'
import sys
b = bytearray(open(sys.argv[1], 'rb').read())
b[int(sys.argv[3])] ^= 0xff
open(sys.argv[2], 'wb').write(b)
END
}
lies() { # lies FILE BYTE...: how many of them are found, by whom it should be
    local file=$1 found=0 at
    shift
    for at; do
        flip "$file" "$at"
        run import --tpm-version 2.0 "${key[@]}" "$dir/lie"
        case $code/$err in
        0/*) echo "# byte $at is not found" ;;
        *forbids* | *died*) echo "# byte $at: $err" ;;
        *"nothing was imported"*) found=$((found + 1)) ;;
        *) echo "# byte $at: $err" ;;
        esac
    done
    is "$found" $#
}
size=$(stat -c %s "$dir/state-file")
key=()
ok "a wrong byte of swtpm's format is found" lies "$dir/state-file" 0 1 2 3 4 5 6 9 10 11 12 15
# what is libtpms's own has no checksum, but much that it does not believe
ok "a state that libtpms refuses is told, and costs nothing" lies "$dir/state-file" 20 40 100
key=(--swtpm-key "file=$dir/key128")
ok "any wrong byte of an encrypted file is found" lies "$dir/a2/tpm2-00.permall" 5 16 17 200 \
    $((size / 2)) $(($(stat -c %s "$dir/a2/tpm2-00.permall") - 1))
passed=0
for length in 0 1 9 10 15 16 17 100 $((size - 1)); do
    head -c "$length" "$dir/state-file" >"$dir/lie"
    run import --tpm-version 2.0 "$dir/lie"
    [ "$code" != 0 ] || passed=$((passed + 1))
done
ok "a file that is cut short is found" is "$passed" 0
truncate -s 3M "$dir/lie"
run import --tpm-version 2.0 "$dir/lie"
ok "a file that is too large is not read" has "$err" "larger than any"
echo 'of another file' >"$dir/pass"
before=$(sql 'SELECT count(*) FROM instance')
run import --passphrase-file "$dir/pass" "$dir/a1/tpm2-00.permall"
ok "a state file of swtpm has no passphrase" code 5
ok "which is said" has "$err" "--swtpm-key, or none, but no passphrase; nothing was imported"
ok "and so it is" is "$(sql 'SELECT count(*) FROM instance')" "$before"
run import "$dir"
ok "a directory is no file" has "$err" "no regular file"
ok "none of these left an instance or a directory" is "$(instances) $(directories)" \
    "$before $before"

# --- our archive ---
run create
new=$out
run export --passphrase-file "$dir/pass" "$new" "$dir/archive"
ok "a TPM that was not made yet cannot be exported" has "$err" "not made yet"
before=$(instance 2.0 "$uuid" tell)
run export --passphrase-file "$dir/pass" --json "$uuid" "$dir/archive"
ok "an archive is made" code 0
ok "and described" is "$(field '.format + " " + (.encrypted|tostring) + " " + .instance.uuid')" \
    "archive true $uuid"
ok "the state is not in it in the clear" bash -c "! grep -qc XVPS '$dir/archive'"
run export "$uuid" "$dir/archive-2"
ok "without a terminal the passphrase comes from a file" has "$err" "--passphrase-file"
run import --passphrase-file "$dir/pass" "$dir/archive"
ok "what is there is not replaced" code 4
ok "and both ways on are named" has "$err" "--replace"
run import --passphrase-file "$dir/other-pass" "$dir/archive"
ok "another passphrase opens nothing" has "$err" "not its passphrase"
run import --passphrase-file "$dir/pass" "$dir/archive" 99999999-2222-3333-4444-555555555555
ok "under another uuid it is another instance" code 0
ok "with the same TPM" same "$(instance 2.0 99999999-2222-3333-4444-555555555555 tell)" "$before"
for at in 8 12 20 60 200; do
    flip "$dir/archive" "$at"
    run import --passphrase-file "$dir/pass" "$dir/lie" 99999999-2222-3333-4444-555555555556
    ok "an archive with byte $at changed is refused" test "$code" != 0
done

# --- replacing ---
sql "UPDATE instance SET suspended=5, suspended_domid=7, accept='reset' WHERE uuid='$uuid'"
touch "$dir/run/journal/$(number "$uuid")"
other=$(instance 2.0 "$(sql "SELECT uuid FROM instance WHERE number=2")" tell)
run import --replace --swtpm-key "file=$dir/key128" "$dir/a2/tpm2-00.permall" "$uuid"
ok "with --replace it is replaced" code 0
ok "by that TPM" same "$(instance 2.0 "$uuid" tell)" "$other"
ok "and nothing of the old one counts" is \
    "$(sql "SELECT suspended, suspended_domid, accept FROM instance WHERE uuid='$uuid'")" "0|0|"
ok "nor does its journal" test ! -e "$dir/run/journal/$(number "$uuid")"
run import --replace --passphrase-file "$dir/pass" "$dir/archive"
ok "an archive brings the old one back" same "$(instance 2.0 "$uuid" tell)" "$before"
run import --replace "$dir/a8/tpm-00.permall" "$uuid"
ok "a TPM 1.2 does not replace a 2.0" code 4
hold "$dir/state/instances/$(number "$uuid")" "$uuid" "$dir/state/master.key"
run import --replace --passphrase-file "$dir/pass" "$dir/archive"
ok "one that is in use is not replaced" has "$err" "in use"
run export --swtpm "$uuid" "$dir/while-in-use"
ok "but it can be exported" test "$code" = 0 -a -s "$dir/while-in-use"
let_go
sql "UPDATE instance SET handover='departed' WHERE uuid='$uuid'"
run export --swtpm "$uuid" "$dir/elsewhere"
ok "what another host has is not exported" code 4
run import --replace --passphrase-file "$dir/pass" "$dir/archive"
ok "nor replaced" code 4
sql "UPDATE instance SET handover='' WHERE uuid='$uuid'"

run delete --yes "$uuid"
run import --replace --passphrase-file "$dir/pass" "$dir/archive"
ok "nor is one that is deleted" code 4
ok "which stays so until it is undeleted" has "$err" "xl-vtpm undelete"
run undelete "$uuid"

# --- cleared ---
before=$(instance 2.0 "$uuid" tell)
run clear "$uuid"
ok "a clear is asked for" is "$code" 4
sql "UPDATE instance SET suspended=5 WHERE uuid='$uuid'"
run clear --yes "$uuid"
ok "not under a domain that was saved" has "$err" "restore it first"
sql "UPDATE instance SET suspended=0 WHERE uuid='$uuid'"
hold "$dir/state/instances/$(number "$uuid")" "$uuid" "$dir/state/master.key"
run clear --yes "$uuid"
ok "not while it is in use" has "$err" "in use"
let_go
ok "so far it is as it was" same "$(instance 2.0 "$uuid" tell)" "$before"
run clear --yes "$uuid"
ok "a TPM 2.0 is cleared" code 0
instance 2.0 "$uuid" tell >"$dir/out" 2>"$dir/err"
ok "what its owner defined is gone" has "$(cat "$dir/err")" "0x18b" # TPM_RC_HANDLE
instance 2.0 "$uuid" make >"$dir/out" 2>"$dir/err"
after=$(instance 2.0 "$uuid" tell)
ok "its endorsement hierarchy is the same" same "$(grep endorsement <<<"$after")" \
    "$(grep endorsement <<<"$before")"
ok "that of its owner another" test "$(grep owner <<<"$after")" != "$(grep owner <<<"$before")"
run import "$dir/a8/tpm-00.permall"
old=$out
before=$(instance 1.2 "$old" tell)
run clear --yes "$old"
ok "a TPM 1.2 is cleared" code 0
# TPM_ForceClear ends allowMaintenance, the sixth flag; the first five are what counts
ok "it has its EK, and is enabled and active" same "$(instance 1.2 "$old" tell | sed '/^flags/s/....$//')" \
    "$(sed '/^flags/s/....$//' <<<"$before")"

# --- cloned ---
run import "$dir/a1/tpm2-00.permall"
source=$out
before=$(instance 2.0 "$source" tell)
all=$(instances)
for flags in "" "--new-identity --keep-identity"; do
    # shellcheck disable=SC2086
    run clone $flags "$source"
    ok "a clone needs one of two: '$flags'" is "$code $(instances)" "2 $all"
done
run clone --keep-identity --uuid nonsense "$source"
ok "a clone's uuid is one" is "$code" 5
run clone --keep-identity --uuid "$uuid" "$source"
ok "and nobody's yet" code 4
hold "$dir/state/instances/$(number "$source")" "$source" "$dir/state/master.key"
run clone --new-identity "$source"
ok "what is in use is not cloned" has "$err" "in use"
let_go
ok "so far there is none" is "$(instances)" "$all"
touch "$dir/run/journal/$(number "$source")"
run clone --keep-identity --label twice "$source"
twin=$out
ok "an exact clone is made" code 0
ok "with a warning that is heard" has "$err" "WARNING: instances"
ok "it is the same TPM" same "$(instance 2.0 "$twin" tell)" "$before"
run --json show "$twin"
ok "with the label, ready" is "$(field '.label + " " + .life')" "twice ready"
run clone --new-identity --uuid 77777777-2222-3333-4444-555555555555 "$source"
ok "a clone with another identity is made, under that uuid" is "$code $out" \
    "0 77777777-2222-3333-4444-555555555555"
run --json show "$out"
ok "its TPM is made with its first use" is "$(field .life)" new
twin=$(field .uuid)
run export --swtpm "$twin" "$dir/unfinished"
ok "and is not there before" has "$err" "not made yet"
run clone --keep-identity "$twin"
ok "nor for another clone" has "$err" "not made yet"
ok "nothing of the source has changed" is \
    "$(instance 2.0 "$source" tell)/$(cd "$dir/run" && ls "journal/$(number "$source")")" \
    "$before/journal/$(number "$source")"
run delete --yes "$source"
run clone --new-identity "$source"
ok "what is deleted is not cloned" code 4
run clone --new-identity "$old"
ok "a TPM 1.2 has no other identity" has "$err" "keeps its endorsement key for life"
run clone --keep-identity "$old"
ok "but an exact clone" same "$(instance 1.2 "$out" tell)" "$(instance 1.2 "$old" tell)"
run clone --new-identity "$new"
ok "what was never made cannot be cloned" has "$err" "not made yet"

# --- killed at each system call that changes something ---
fresh() { rm -rf "$dir/state"; mkdir -p "$dir/run/journal"; }
fresh
run import "$dir/a1/tpm2-00.permall" "$uuid"
good=$(instance 2.0 "$uuid" tell)
wrong=0 killed=0 whole=0
for call in fsync fdatasync mkdirat,mkdir linkat,link renameat,rename,renameat2 unlinkat,unlink pwrite64; do
    for count in 1 2 4 9; do
        fresh
        # a leak check cannot be had in a traced process
        { ASAN_OPTIONS=detect_leaks=0 strace -o /dev/null -e trace="$call" \
            -e inject="$call:signal=KILL:when=$count" \
            "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" import "$dir/a1/tpm2-00.permall" "$uuid" \
            >"$dir/out"; } 2>"$dir/err"
        [ $? = 137 ] && killed=$((killed + 1))
        run list --json
        case $(field 'map(.life) | join(" ")') in
        "") ;;
        ready) whole=$((whole + 1)); same "$(instance 2.0 "$uuid" tell)" "$good" || wrong=$((wrong + 1)) ;;
        *) wrong=$((wrong + 1)) ;;
        esac
        # whatever was left, the next try is not disturbed, and cleans up
        run import --replace "$dir/a1/tpm2-00.permall" "$uuid"
        if [ "$code $(directories)" != "0 1" ] || ! same "$(instance 2.0 "$uuid" tell)" "$good"; then
            wrong=$((wrong + 1))
            echo "# $call $count: $code $err $(directories)"
        fi
    done
done
echo "# killed $killed times, the instance was whole then $whole times"
ok "killed anywhere there is the whole TPM or none, and then one" is "$wrong" 0
ok "it was killed, and not always too late" test "$killed" -gt 8 -a "$whole" -lt "$killed"
# --- the first import of a host, where an instance has only a name yet ---
sed "s|^state-dir.*|state-dir = $dir/fresh|" "$dir/conf" >"$dir/fresh.conf"
mv "$dir/conf" "$dir/kept.conf"
mv "$dir/fresh.conf" "$dir/conf"
run create
run import "$dir/a1/tpm2-00.permall"
ok "an instance without a TPM does not need a master key that is not there" code 0
rm "$dir/fresh/master.key"
run import "$dir/a1/tpm2-00.permall"
ok "one that has a TPM does" is "$code $(has "$err" "put it back" && echo yes)" "3 yes"
mv "$dir/kept.conf" "$dir/conf"

# --- what takes long says so, at a terminal ---
mkfifo "$dir/gate"
cat >"$dir/slow-backend" <<END
#!/bin/sh
[ -e "$dir/go" ] || read -r _ <"$dir/gate"
exec "$build/vtpm-backend"
END
chmod +x "$dir/slow-backend"
sed "s|^backend-program.*|backend-program = $dir/slow-backend|" "$dir/conf" >"$dir/slow"
script -qec "$build/libxl-vtpm/xl-vtpm -c $dir/slow import $dir/a1/tpm2-00.permall" /dev/null \
    >"$dir/seen" </dev/null &
script=$!
until grep -q "xl-vtpm import: 2 s" "$dir/seen"; do
    kill -0 $script 2>/dev/null || break
    sleep 0.05
done
touch "$dir/go"
echo >"$dir/gate"
wait $script
ok "a command that takes seconds counts them" grep -q "xl-vtpm import: 2 s" "$dir/seen"
ok "and ends with its result on a line of its own" grep -qP '\r[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\r$' "$dir/seen"
run import "$dir/a1/tpm2-00.permall"
ok "what is no terminal is told nothing" is "$code$err" 0

echo "1..$n"
