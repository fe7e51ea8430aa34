#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm recover and rekey from the outside, on stores that are sound, cut
# short, damaged, of other keys and owners, and in use. TAP.
# shellcheck disable=SC2154 # out, err and code are set by run
set -u

build=${top_builddir:-.}
dir=$(mktemp -d)
trap 'let_go; rm -rf "$dir"' EXIT

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

key=$dir/state/master.key
U=dcdb124b-9fed-4040-b149-dd2dfd8d094c
at() { echo "$dir/state/instances/$1"; }
uuid() { "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" show --json "$1" | jq -r .uuid; }
state() { # state commit|read NUMBER [TEXT...]
    local what=$1 number=$2
    shift 2
    "$build/tests/unit/state" "$what" "$(at "$number")" "$(uuid "$number")" "$key" "$@" 2>&1
}
instance() { # instance NUMBER TEXT...: made, and ready
    local number=$1
    shift
    state commit "$number" "$@"
    sqlite3 "$dir/state/vtpm.db" "UPDATE instance SET life = 'ready' WHERE number = $number"
}
flip() { # flip FILE OFFSET: one bit
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
sums() { find "$dir/state" -type f ! -name 'vtpm.db*' -exec sha256sum {} + | sort; }

cat >"$dir/conf" <<END
state-dir = $dir/state
run-dir = $dir/run
END

# --- recover ---
run create $U
instance 1 one two three
run recover 1
ok "a sound state is shown" code 0
ok "with its slots" has "$out" "slot 0         good: is good (generation 3)"
ok "and what is served" has "$out" "slot 0 is the newest, generation 3"
run recover --json $U
ok "in JSON" is "$(field '[.slots[] | .state, .generation, .length, .size] + [.loads, .slot, .life] | join(" ")')" \
    "good 3 5 32768 good 2 3 32768 true 0 ready"
sums >"$dir/before"
run recover --use-slot 0 1
ok "the newest slot needs no choice" code 0
ok "and nothing is changed" is "$(sums)" "$(cat "$dir/before")"
run recover --use-slot 2 1
ok "there is no slot 2" code 2
run recover 7
ok "an unknown instance is not found" code 3
run create
run recover 2
ok "an instance without a TPM has no files" code 3
ok "and that is said" has "$err" "holds no state"

flip "$(at 1)/slot-0" 700
sums >"$dir/before"
run recover 1
ok "a damaged newest slot is a failure" code 1
ok "it is named" has "$out" "slot 0         damaged: is damaged"
ok "it is told what can be done" has "$out" "to go on with slot 1: xl-vtpm recover --use-slot 1 1"
run recover --use-slot 0 --yes 1
ok "what does not verify cannot be chosen" code 4
ok "and why" has "$err" "slot 0 cannot be chosen: it is damaged"
run recover --use-slot 1 1
ok "a choice is asked for" code 4
ok "without a terminal that is a no" has "$err" "nothing was changed: there is no terminal"
ok "nothing was changed so far" is "$(sums)" "$(cat "$dir/before")"
hold "$(at 1)" "$(uuid 1)" "$key"
run recover 1
ok "an instance in use is refused" code 4
ok "in use, it says" has "$err" "instance 1 is in use by another process"
run_amid "$(at 1)/slot-0" recover 1
ok "one that is in use for a moment is waited for" is "$code, $err" "1, "
kept=$(sha256sum <"$(at 1)/slot-0")
run recover --use-slot 1 --yes --json 1
ok "a good slot can be chosen" is "$code $(field '.chosen.slot, .chosen.generation, .loads' | xargs)" "0 1 3 true"
ok "what the other slot held is kept" is "$(sha256sum <"$(field .chosen.kept)")" "$kept"
ok "only root reads it" is "$(stat -c %a "$(field .chosen.kept)")" 600
ok "the TPM goes on from there" is "$(state read 1)" "3 two"

rm "$(at 1)/slot-1"
run recover 1
ok "a missing slot is a failure" code 1
ok "it is said to be missing" has "$out" "slot 1         missing"
run recover --use-slot 0 --yes 1
ok "the other one can be chosen" code 0
ok "and the TPM goes on" is "$(state read 1)" "4 two"
rm "$(at 1)/slot-0"
run recover --use-slot 1 --yes 1
ok "slot 0 missing, too" is "$code $(state read 1)" "0 5 two"
cp "$(at 1)/slot-0" "$dir/kept-slot"
truncate -s 1000 "$(at 1)/slot-0"
run recover 1
ok "a short file is said to be one" has "$out" "is truncated: 1000 bytes"
cp "$dir/kept-slot" "$(at 1)/slot-0"

# a commit cut short: sectors of two generations
state commit 1 $'a state of more than a few sectors\n'"$(head -c 6000 /dev/zero | tr '\0' x)" >/dev/null
cp "$(at 1)/slot-1" "$dir/newer"
state commit 1 eins zwei drei >/dev/null
cp "$dir/newer" "$(at 1)/slot-1.old"
cp "$(at 1)/slot-1" "$dir/now"
state read 1 >"$dir/out"
generation=$(cut -d' ' -f1 "$dir/out")
state commit 1 vier >/dev/null
newest=$(at 1)/slot-$(((generation + 2) % 2))
dd if="$dir/now" of="$newest" bs=512 seek=4 skip=4 conv=notrunc status=none
rm "$(at 1)/slot-1.old"
run recover --json 1
ok "a commit cut short is told from damage" is \
    "$code $(field '[.slots[].state] | sort | join(",")')" "0 cut short,good"
ok "the state before it is served" is "$(state read 1)" "$generation drei"

# other owners, other keys
run create
instance 3 x y
cp -r "$(at 1)" "$dir/copy-1"
cp "$(at 3)"/slot-? "$(at 1)/"
run recover 1
ok "files of another instance are told" has "$out" "wrong owner: belongs to another instance, $(uuid 3)"
ok "nothing of them can be used" has "$out" "no slot can be used"
cp "$dir/copy-1"/slot-? "$(at 1)/"
mv "$key" "$dir/the-key"
head -c 32 /dev/urandom >"$key"
chmod 600 "$key"
run recover 1
ok "another master key is told" has "$out" "wrong key: is sealed with another key"
rm "$key"
run recover 1
ok "a missing master key is said" has "$err" "the master key $key is missing"
ok "with its code" code 3
mv "$dir/the-key" "$key"

# --- quarantine ---
sqlite3 "$dir/state/vtpm.db" "UPDATE instance SET life = 'quarantined' WHERE number = 3"
run recover 3
ok "quarantine is shown, with the way out" has "$out" "xl-vtpm recover --release 3"
flip "$(at 3)/slot-1" 30
run recover --release 3
ok "what would be refused again stays in quarantine" code 4
run recover --use-slot 0 --release --yes --json 3
ok "chosen and let out" is "$code $(field '.life + " " + (.released | tostring)')" "0 new true"
ok "its state is there" is "$(state read 3)" "2 x"
run recover --release 3
ok "what is not in quarantine cannot be let out" code 5
sqlite3 "$dir/state/vtpm.db" "UPDATE instance SET life = 'ready' WHERE number = 3"

# --- rekey ---
old=$(sha256sum <"$key")
cp "$key" "$dir/the-key"
hold "$(at 3)" "$(uuid 3)" "$key"
run rekey
ok "an instance in use is left" code 6
ok "it is named" has "$out" "instance 3 ($(uuid 3)) is left: in use"
ok "the others are done" has "$out" "sealed under the new key: 1,"
ok "both keys are there" is "$(stat -c '%s %a' "$key" "$key.new" | xargs)" "32 600 32 600"
let_go
ok "a state under the new key is found" is "$(state read 1)" "$((generation + 2)) drei"
ok "a state under the old key is found" is "$(state read 3)" "2 x"
run recover 3
ok "recover finds it, too" is "$code" 0
instance 2 fresh
hold "$(at 3)" "$(uuid 3)" "$key"
run_amid "$(at 3)/slot-0" rekey
ok "the second run finishes, as soon as the last one is free" code 0
ok "and says what to do" has "$out" "complete: back up $key"
ok "the new key has the name" test "$old" != "$(sha256sum <"$key")"
ok "nothing else is left beside it" is "$(cd "$dir/state" && echo master.key*)" master.key
ok "all states are there" is "$(state read 1), $(state read 2), $(state read 3)" \
    "$((generation + 2)) drei, 1 fresh, 4 x"
cp "$key" "$dir/second"
cp "$dir/the-key" "$key"
run recover 1
ok "nothing is left under the old key" is "$code $(grep -c 'wrong key' "$dir/out")" "1 2"
cp "$dir/second" "$key"

flip "$(at 2)/slot-0" 700
run rekey --json
ok "a state that does not verify is left, and the old key with it" is \
    "$code $(field '.result + " " + (.left[0].number | tostring)')" "6 unfinished 2"
ok "the old key is as it was" cmp "$key" "$dir/second"
flip "$(at 2)/slot-0" 700
cp -r "$(at 3)" "$(at 9)"
run rekey
ok "a state that the registry does not know is left" has "$out" "instance 9 (uuid not known) is left"
rm -r "$(at 9)"
run rekey
ok "then it is finished" code 0
ok "and the state is there" is "$(state read 2)" "3 fresh"

mv "$key" "$dir/elsewhere"
ln -s "$dir/elsewhere" "$key"
run rekey
ok "a key behind a symbolic link is refused" is "$code $(cd "$dir/state" && echo master.key*)" "4 master.key"
rm "$key"
mv "$dir/elsewhere" "$key"
echo "master-key = credential:vtpm" >>"$dir/conf"
mkdir "$dir/creds"
cp "$key" "$dir/creds/vtpm"
CREDENTIALS_DIRECTORY=$dir/creds run rekey
ok "a credential is not changed here" is "$code" 4
ok "and it is said where the way is described" has "$err" "CHANGING THE MASTER KEY"
CREDENTIALS_DIRECTORY=$dir/creds run recover 3
ok "recover works with a credential" code 0
run recover 3
ok "without the credential it says so" has "$err" "no systemd credentials here"

# from none to a file, as the manual has it
rm -r "$dir/state"
sed -i 's/^master-key.*/master-key = none/' "$dir/conf"
run create $U
key=none state commit 1 open >/dev/null
sed -i '/^master-key/d' "$dir/conf"
(umask 077 && printf 'libxl-vtpm: no secret at all v1\n' >"$key")
sqlite3 "$dir/state/vtpm.db" "UPDATE instance SET life = 'ready'"
run rekey
ok "from no key to a file" is "$code $(state read 1)" "0 3 open"

echo "1..$n"
