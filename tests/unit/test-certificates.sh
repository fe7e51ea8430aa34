#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm ek-cert of TPMs that were made elsewhere, by the real swtpm_setup with its own CA, and
# with a certificate that another CA signs for what ek-cert --csr says: installed, it is what the
# real swtpm, which has the TPM then, gives to tpm2-tools. TAP.
# shellcheck disable=SC2034 # out and err are shown by ok
set -u

build=$(cd "${top_builddir:-.}" && pwd)
dir=$(mktemp -d)
swtpm=
trap '[ -z "$swtpm" ] || kill "$swtpm" 2>/dev/null; rm -rf "$dir"' EXIT

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

host_conf
sql() { sqlite3 "$dir/state/vtpm.db" "$1"; }
in_pem() { openssl x509 -in "$dir/out" -outform pem 2>/dev/null; }
issuer() { openssl x509 -in "$dir/out" -noout -issuer 2>/dev/null; }

# --- a guest of KVM moves here: swtpm_setup made its TPM, swtpm-localca its certificates ---
cat >"$dir/setup.conf" <<END
create_certs_tool = $(command -v swtpm_localca)
create_certs_tool_config = $dir/localca.conf
create_certs_tool_options = $dir/localca.options
active_pcr_banks = sha256
END
cat >"$dir/localca.conf" <<END
statedir = $dir/localca
signingkey = $dir/localca/signkey.pem
issuercert = $dir/localca/issuercert.pem
certserial = $dir/localca/certserial
END
printf -- '--platform-manufacturer QEMU\n--platform-version 1\n--platform-model vm\n' \
    >"$dir/localca.options"
setup() { # setup DIRECTORY OPTION...
    mkdir -p "$1"
    swtpm_setup --tpmstate "$1" --config "$dir/setup.conf" --create-ek-cert \
        --create-platform-cert --lock-nvram --overwrite "${@:2}" 2>&1
}
ok "swtpm_setup makes a TPM 2.0" setup "$dir/kvm" --tpm2
run import "$dir/kvm/tpm2-00.permall"
U=$out
ok "it is imported" code 0
run show --json "$U"
ok "show knows its keys and certificates at once" is \
    "$(field '[.endorsement[] | .kind] | sort | join(" ")')" "p256 p384 platform rsa2048"
ok "which this host gave no serial numbers" is "$(field '[.endorsement[].serial | values] | length')" 0
run ek-cert "$U"
ok "ek-cert has swtpm's certificate" has "$(issuer)" swtpm-localca
in_pem >"$dir/rsa.pem"
cat "$dir/localca/issuercert.pem" "$dir/localca/swtpm-localca-rootca-cert.pem" >"$dir/kvm-ca.pem"
ok "which its CA confirms" openssl verify -CAfile "$dir/kvm-ca.pem" "$dir/rsa.pem"
run ek-cert --json "$U"
ok "the key is that of the certificate" is \
    "$(field '.endorsement[] | select(.kind == "rsa2048").public_key')" \
    "$(openssl x509 -in "$dir/rsa.pem" -noout -pubkey)"
run ek-cert --key p384 "$U"
ok "its P-384 one too" has "$(issuer)" swtpm-localca
run ek-cert --key p256 "$U"
ok "for P-256 swtpm made none" code 3
run ek-cert --key p256 --csr "$U"
ok "but the key can be certified" has "$out" "BEGIN PUBLIC KEY"
run ek-cert --key platform "$U"
ok "the platform's is there" has "$(issuer)" swtpm-localca

run ek-cert --json --key p256 "$U"
ok "in JSON, too, what was asked for has to be there" is \
    "$code $(has "$err" "no p256 certificate" && echo yes)" "3 yes"
run ek-cert --json --key platform --csr "$U"
ok "also as a key" is "$code $(has "$err" "no platform key" && echo yes)" "3 yes"
run ek-cert --json --key p256 --csr "$U"
ok "which is there" is "$code$(field '.endorsement | length')" 04
run ek-cert --json --key p384 "$U"
ok "as is a certificate" is "$code$(field '.endorsement | length')" 04
for option in '' --json --csr "--install $dir/rsa.pem"; do
    # shellcheck disable=SC2086
    run ek-cert --key rsa4096 $option "$U"
    ok "a key that no TPM has is a mistake: $option" code 2
    ok "those that there are are told: $option" has "$err" "rsa2048, p384, p256 and platform"
done

# --- what an earlier version did not note, or another host had ---
sql "DELETE FROM ek; DELETE FROM other_certificate"
run ek-cert "$U"
ok "a TPM that nothing is noted of is asked" is "$(in_pem)" "$(cat "$dir/rsa.pem")"
ok "and it is noted" is "$(sql 'SELECT count(*) FROM ek')$(sql 'SELECT count(*) FROM other_certificate')" 33
run clone --keep-identity "$U"
C=$out
run ek-cert "$C"
ok "a clone that is the same TPM has the same certificate" is "$(in_pem)" "$(cat "$dir/rsa.pem")"

# --- a certificate of another CA ---
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/corp.key" -out "$dir/corp.pem" -days 30 \
    -subj "/CN=A company's CA" 2>/dev/null
cat >"$dir/ext" <<END
basicConstraints = critical,CA:FALSE
keyUsage = critical,keyEncipherment
extendedKeyUsage = 2.23.133.8.1
END
certify() { # certify OUT [OPENSSL'S OPTION...]: for the key in the answer of --csr
    sed -n '/^-----BEGIN/,$p' "$dir/out" >"$dir/public.pem"
    openssl x509 -new -force_pubkey "$dir/public.pem" -CA "$dir/corp.pem" -CAkey "$dir/corp.key" \
        -subj / -days 30 -extfile "$dir/ext" -out "$@"
}
run ek-cert --csr "$U"
ok "another CA signs for what --csr prints" certify "$dir/new.pem"
run ek-cert --install "$dir/new.pem" "$U"
ok "its certificate is installed" code 0
run ek-cert "$U"
ok "and is that of the TPM" is "$(in_pem)" "$(cat "$dir/new.pem")"
run ek-cert --key p384 "$U"
ok "the others stay" has "$(issuer)" swtpm-localca
run ek-cert "$C"
ok "those of other TPMs too" is "$(in_pem)" "$(cat "$dir/rsa.pem")"
openssl x509 -in "$dir/new.pem" -outform der -out "$dir/new.der"
run ek-cert --json --install "$dir/new.der" "$U"
ok "again, and in DER" code 0
ok "and in JSON it is told as it is now" is \
    "$(field '.endorsement[] | select(.kind == "rsa2048").certificate_fingerprint')" \
    "$(sha256sum "$dir/new.der" | cut -d' ' -f1)"
mkdir "$dir/back"
run export --swtpm "$U" "$dir/back/tpm2-00.permall"
swtpm socket --tpm2 --tpmstate "dir=$dir/back" --server "type=unixio,path=$dir/sock" \
    --ctrl "type=unixio,path=$dir/sock.ctrl" --flags not-need-init,startup-clear --daemon \
    --pid "file=$dir/pid"
swtpm=$(cat "$dir/pid")
export TPM2TOOLS_TCTI="swtpm:path=$dir/sock"
nvread() { tpm2_nvread 0x01c00002 -o "$dir/nv.der" && cmp "$dir/nv.der" "$dir/new.der"; }
ok "swtpm and tpm2-tools read that very certificate out of the TPM" nvread
createek() {
    tpm2_createek -Q -G rsa -c "$dir/ek.ctx" -f pem -u "$dir/ek.pem" && cat "$dir/ek.pem"
}
ok "which is for the key that tpm2_createek makes" is "$(createek)" \
    "$(openssl x509 -in "$dir/new.pem" -noout -pubkey)"
locked() { tpm2_nvwrite 0x01c00002 -C p -i "$dir/ext" 2>&1 | grep "NV access locked"; }
ok "and nobody writes over it" locked
kill "$swtpm"
tail --pid="$swtpm" -s 0.02 -f /dev/null
swtpm=

# --- what is refused, and changes nothing ---
sums() { sha256sum "$dir"/state/instances/*/slot*; sql "SELECT * FROM ek; SELECT * FROM other_certificate"; }
before=$(sums)
run ek-cert --install "$dir/corp.pem" "$U"
ok "a CA's certificate is no TPM's" is "$code $(has "$err" "of a CA" && echo yes)" "5 yes"
run ek-cert --install "$dir/conf" "$U"
ok "nor is a file that holds none" code 5
run ek-cert --install "$dir/nothing" "$U"
ok "nor one that is not there" code 3
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 2>/dev/null |
    openssl pkey -pubout >"$dir/out"
certify "$dir/stranger.pem"
run ek-cert --install "$dir/stranger.pem" "$U"
ok "one for another key is refused" is "$code $(has "$err" "another key" && echo yes)" "4 yes"
run ek-cert --key platform --install "$dir/stranger.pem" "$U"
ok "also as the platform's" code 4
seq -f 'subjectAltName = DNS:%g.a.name.that.is.as.long.as.it.takes' 40 |
    sed '2,$s/subjectAltName = //' | paste -sd, >>"$dir/ext"
run ek-cert --csr "$U"
certify "$dir/long.pem"
run ek-cert --install "$dir/long.pem" "$U"
ok "one that is too long is refused" is "$code $(has "$err" "a TPM takes" && echo yes)" "5 yes"
for key in p256 p384; do
    run ek-cert --key $key --install "$dir/new.pem" "$U"
    ok "as is one for the RSA key that is said to be another's: $key" code 4
    ok "with both: $key" has "$err" "is for the rsa2048 key, not for $key"
done
hold "$dir/state/instances/1" "$U" "$dir/state/master.key"
run ek-cert --install "$dir/new.pem" "$U"
ok "a TPM in use gets none" is "$code $(has "$err" "in use" && echo yes)" "4 yes"
let_go
run ek-cert --csr --install "$dir/new.pem" "$U"
ok "--csr and --install exclude each other" code 2
ok "and nothing was changed by all that" is "$(sums)" "$before"
sed -i '/extendedKeyUsage/d; /subjectAltName/d' "$dir/ext"
run ek-cert --csr "$U"
certify "$dir/plain.pem"
run ek-cert --key platform --install "$dir/plain.pem" "$U"
ok "the platform's certificate can be another one" code 0
run ek-cert --key platform "$U"
ok "and is" is "$(in_pem)" "$(cat "$dir/plain.pem")"
run ek-cert --key rsa2048 --install "$dir/plain.pem" "$U"
ok "an EK's that does not say what it is for is taken, with a warning" is \
    "$code $(has "$err" 2.23.133.8.1 && echo yes)" "0 yes"

# --- killed anywhere, the TPM has the one or the other ---
kills=0 wrong=0 i=0
for call in fsync,fdatasync pwrite64 unlinkat,unlink; do
    for count in 1 2 3 4 6 8 12; do
        i=$((i + 1))
        [ $((i % 2)) = 0 ] && file=$dir/plain.pem || file=$dir/new.pem
        # a leak check cannot be had in a traced process
        { ASAN_OPTIONS=detect_leaks=0 strace -f -o /dev/null -e trace="$call" \
            -e inject="$call:signal=KILL:when=$count" "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" \
            ek-cert --install "$file" "$U" >"$dir/out"; } 2>"$dir/err"
        [ $? = 137 ] && kills=$((kills + 1))
        run export --swtpm "$U" "$dir/killed$i.permall"
        [ "$code" = 0 ] || {
            wrong=$((wrong + 1))
            echo "# after $call $count: $code $err"
        }
    done
done
echo "# killed $kills times"
ok "killed anywhere the state is whole" is "$wrong" 0
ok "it was killed, and not always too late" test "$kills" -ge 8
run ek-cert --install "$dir/new.pem" "$U"
ok "and the command can be repeated" code 0

# --- TPM 1.2 ---
ok "swtpm_setup makes a TPM 1.2" setup "$dir/old"
run import "$dir/old/tpm-00.permall"
V=$out
run ek-cert "$V"
ok "its certificate, which swtpm-localca lets its owner alone read, is not told" code 3
run ek-cert --json "$V"
ok "in JSON there is what there is" is "$code $(field '[.endorsement[].kind] | join(" ")')" \
    "0 rsa2048"
run ek-cert --csr "$V"
ok "its key is" has "$out" "BEGIN PUBLIC KEY"
certify "$dir/new12.pem"
run ek-cert --install "$dir/new12.pem" "$V"
ok "a certificate for it is noted" is "$code $(has "$out" "noted here" && echo yes)" "0 yes"
run ek-cert "$V"
ok "and told" is "$(in_pem)" "$(cat "$dir/new12.pem")"
run import --replace "$dir/old/tpm-00.permall" "$V"
run ek-cert "$V"
ok "it does not count for another TPM in its place" code 3
ok "swtpm_setup makes one that has an owner" setup "$dir/owned" --take-ownership
run import "$dir/owned/tpm-00.permall"
ok "it is imported as well" is "$code$err" 0
run ek-cert --csr "$out"
ok "its key is its owner's to tell" code 3

# one that was made here has its certificate for everybody
mkdir "$dir/made"
sed "s|^state-dir.*|state-dir = $dir/made|" "$dir/conf" >"$dir/made/conf"
ok "a TPM 1.2 is made here" "$build/tests/unit/factory" make "$dir/made" 1.2
run create --tpm-version 1.2
W=$out
"$build/tests/unit/state" put "$dir/state/instances/$(sql "SELECT max(number) FROM instance")" "$W" \
    "$dir/state/master.key" <"$dir/made/tpm.state"
sql "UPDATE instance SET life = 'ready' WHERE uuid = '$W'"
run ek-cert "$W"
ok "what is in its NV is found" has "$(issuer)" "xl-vtpm CA"
in_pem >"$dir/made.pem"
ok "and is good" openssl verify -CAfile "$dir/made/ca.pem" "$dir/made.pem"
run ek-cert --json "$W"
ok "and for its key" is "$(field '.endorsement[0].public_key')" \
    "$(openssl x509 -in "$dir/made.pem" -noout -pubkey)"

echo "1..$n"
