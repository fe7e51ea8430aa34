#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# examples/luks: what it enrols is what opens the disk, and nothing else does. The TPM is swtpm's,
# for that is one without Xen; the disk is a file, which cryptsetup opens no further than its key.
set -u
top=$(cd "${top_srcdir:-.}" && pwd)
work=$(mktemp -d)
number=0
ok() {
    local name=$1
    shift
    number=$((number + 1))
    if "$@" >"$work/output" 2>&1; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        sed 's/^/# /' "$work/output"
    fi
}
fails() { ! "$@"; }

for program in swtpm tpm2_unseal cryptsetup; do
    command -v $program >/dev/null || {
        echo "Bail out! no $program: tests/packages names its package"
        exit 1
    }
done
mkdir "$work/tpm"
swtpm socket --tpm2 --tpmstate "dir=$work/tpm" --flags not-need-init,startup-clear \
    --server "type=unixio,path=$work/tpm/sock" --ctrl "type=unixio,path=$work/tpm/sock.ctrl" \
    >"$work/swtpm.log" 2>&1 &
swtpm=$!
trap 'kill $swtpm; rm -rf "$work"' EXIT
for ((i = 0; i < 200; i++)); do
    [ ! -S "$work/tpm/sock.ctrl" ] || break
    sleep 0.05
done
# The tools close their connection; this keeps swtpm up for the next one.
export TPM2TOOLS_TCTI="swtpm:path=$work/tpm/sock"

luks() { "$top/examples/luks/vtpm-luks" "$@"; }
opens() { luks unlock 2>/dev/null | cryptsetup open --test-passphrase --key-file - "$work/disk"; }
enroll() { printf passphrase | luks enroll "$work/disk"; }
truncate -s 32M "$work/disk"
printf passphrase | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file - "$work/disk"

echo 1..9
ok "enroll" enroll
ok "the key that the TPM gives opens the disk" opens
ok "so does the passphrase" cryptsetup open --test-passphrase --key-file <(printf passphrase) "$work/disk"
ok "enrolled again, it opens it again" eval 'enroll && opens'
ok "remove" luks remove "$work/disk"
ok "then the TPM has no key" fails tpm2_unseal -Q -c 0x81010100
export PCRS=sha256:10
ok "enroll with a PCR" enroll
ok "while it is as it was, the TPM opens the disk" opens
tpm2_pcrextend "10:sha256=$(printf 'ab%.0s' {1..32})"
ok "and not when it has changed" fails opens
