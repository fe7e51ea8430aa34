#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What identifies a new TPM, seen by those who have to believe it: openssl verify,
# tpm2-tools that make the endorsement keys again from the profile's templates, and
# the round of make-credential and activate-credential, which proves that the key of
# the certificate is in this TPM. TAP.
# shellcheck disable=SC2154 # out, err and code are set by run
set -u

build=${top_builddir:-.}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

factory=$(cd "$build" && pwd)/tests/unit/factory
export TPM2TOOLS_TCTI="cmd:$factory run $dir"
out='' err='' code=''
: | tee "$dir/out" >"$dir/err"
key_of() { openssl x509 -inform der -in "$1" -noout -pubkey; }
text_of() { openssl x509 -inform der -in "$1" -noout -text; }
# what openssl says of one extension, on one line
extension() { openssl x509 -inform der -in "$1" -noout -ext "$2" | tr -s ' \n' ' '; }
in_certificate() { text_of "$1" | grep -qF -- "$2" || { text_of "$1"; false; }; }

cat >"$dir/conf" <<END
state-dir = $dir
run-dir = $dir/run
ca-issuer-url = http://ca.example/ca.der
ca-crl-url = http://ca.example/crl
END
tools() { ! command -v tpm2_createek tpm2_activatecredential openssl | grep -qv /; }
ok "tpm2-tools and openssl are here" tools

# --- the CA ---
run ca show
ok "no CA: show says how to make one" is "$code $(has "$err" 'ca init' && echo yes)" "3 yes"
run ca init
ok "ca init makes one" code 0
ok "its key is for its owner alone" is "$(stat -c %a "$dir/ca.key")" 600
run ca init
ok "a second one is refused" code 4
run ca show --json
ok "show tells its fingerprint" is "$(field .fingerprint)" \
    "$(openssl x509 -in "$dir/ca.pem" -outform der | sha256sum | cut -d' ' -f1)"
run ca export
ok "export prints the certificate" is "$out" "$(cat "$dir/ca.pem")"
ok "it is a CA's" openssl verify -x509_strict -CAfile "$dir/ca.pem" "$dir/ca.pem"
run ca frob
ok "another word is refused" code 5

# --- TPM 2.0 ---
ok "a TPM 2.0 is made" "$factory" make "$dir" 2.0
sed 's/^/# /' "$dir/why"
while read -r name index handle algorithm usage; do
    crt=$dir/$name.der
    tpm2_nvread "$index" -o "$crt" 2>/dev/null
    openssl x509 -inform der -in "$crt" -out "$dir/$name.pem"
    ok "$name: openssl verifies the certificate" \
        openssl verify -x509_strict -CAfile "$dir/ca.pem" "$dir/$name.pem"
    ok "$name: it names the TPM, and the subject is empty" in_certificate "$crt" \
        "DirName:/2.23.133.2.1=id:49424D00/2.23.133.2.2=libxl-vtpm/2.23.133.2.3=id:"
    ok "$name: extensions" is "$(extension "$crt" keyUsage,basicConstraints,extendedKeyUsage)" \
        "X509v3 Basic Constraints: critical CA:FALSE X509v3 Key Usage: critical $usage X509v3 Extended Key Usage: 2.23.133.8.1 "
    ok "$name: the issuer's and the CRL's address" is \
        "$(text_of "$crt" | grep -c 'URI:http://ca.example/')" 2
    ok "$name: it does not expire" is "$(openssl x509 -inform der -in "$crt" -noout -enddate)" \
        "notAfter=Dec 31 23:59:59 9999 GMT"
    tpm2_readpublic -Q -c "$handle" -f pem -o "$dir/$name.persistent"
    ok "$name: its key is the one at $handle" is "$(cat "$dir/$name.persistent")" "$(key_of "$crt")"
    tpm2_createek -Q -G "$algorithm" -c "$dir/$name.ctx" -f pem -u "$dir/$name.made"
    ok "$name: tpm2_createek makes that key again" is "$(cat "$dir/$name.made")" "$(key_of "$crt")"
    tpm2_flushcontext -Q -t
done <<END
rsa2048 0x01c00002 0x81010001 rsa Key Encipherment
p256 0x01c0000a 0x8101000a ecc Key Agreement
p384 0x01c00016 0x81010016 ecc384 Key Agreement
END
tpm2_getekcertificate -Q -o "$dir/get.rsa" -o "$dir/get.ecc" 2>/dev/null
ok "tpm2_getekcertificate finds the RSA one" cmp "$dir/get.rsa" "$dir/rsa2048.der"
ok "and the P-256 one" cmp "$dir/get.ecc" "$dir/p256.der"

tpm2_nvread 0x01c08000 -o "$dir/platform.der" 2>/dev/null
openssl x509 -inform der -in "$dir/platform.der" -out "$dir/platform.pem"
ok "platform: openssl verifies the certificate" \
    openssl verify -x509_strict -CAfile "$dir/ca.pem" "$dir/platform.pem"
ok "platform: it says what it is for" has "$(extension "$dir/platform.der" extendedKeyUsage)" \
    2.23.133.8.2
ok "platform: it names the platform" in_certificate "$dir/platform.der" \
    "DirName:/2.23.133.5.1.1=Xen Project/2.23.133.5.1.4=libxl-vtpm"
serials=$(for f in rsa2048 p256 p384 platform; do
    openssl x509 -inform der -in "$dir/$f.der" -noout -serial
done | sort -u | wc -l)
ok "four certificates have four serial numbers" is "$serials" 4

# a verifier elsewhere: it has the certificate alone, and a name that it was told
credential() { # credential NAME POLICY...: does the TPM open what was made for its EK?
    local name=$1 s=$dir/session
    shift
    tpm2_createak -Q -C "$dir/$name.ek" -c "$dir/ak.ctx" -G ecc -g sha256 -s ecdsa \
        -n "$dir/ak.name" || return
    tpm2_flushcontext -Q -t
    echo "a secret for $name" >"$dir/secret"
    key_of "$dir/$name.der" >"$dir/verifier.pem"
    tpm2_makecredential -Q -T none -u "$dir/$name.public" -s "$dir/secret" \
        -n "$(od -An -v -tx1 "$dir/ak.name" | tr -d " \n")" -o "$dir/credential" || return
    tpm2_startauthsession -Q --policy-session -S "$s" || return
    tpm2_policysecret -Q -S "$s" -c e || return
    tpm2_activatecredential -Q -c "$dir/ak.ctx" -C "$dir/$name.ek" -P "session:$s" \
        -i "$dir/credential" -o "$dir/opened"
    local r=$?
    tpm2_flushcontext -Q "$s"
    tpm2_flushcontext -Q -t
    [ $r -eq 0 ] && cmp "$dir/secret" "$dir/opened"
}
for name in rsa2048:rsa p256:ecc; do
    tpm2_createek -Q -G "${name#*:}" -c "$dir/${name%:*}.ek" -u "$dir/${name%:*}.public"
    tpm2_flushcontext -Q -t
    ok "${name%:*}: make and activate a credential" credential "${name%:*}"
done
tpm2_create -Q -C 0x81000001 -i "$dir/secret" -u "$dir/sealed.pub" -r "$dir/sealed.priv"
tpm2_load -Q -C 0x81000001 -u "$dir/sealed.pub" -r "$dir/sealed.priv" -c "$dir/sealed"
ok "the SRK takes what is sealed to it" is "$(tpm2_unseal -c "$dir/sealed")" "$(cat "$dir/secret")"

# --- an existing key ---
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out "$dir/own.key" 2>/dev/null
chmod 600 "$dir/own.key"
openssl req -x509 -new -key "$dir/own.key" -subj "/CN=Our own CA" -out "$dir/own.pem" -days 30 \
    -addext keyUsage=critical,keyCertSign 2>/dev/null
cat >>"$dir/conf" <<END
ca-key = file:$dir/own.key
ca-certificate = $dir/own.pem
END
run ca show --json
ok "an existing CA is taken" is "$(field .subject)" "CN = Our own CA"
ok "it certifies" "$factory" make "$dir" 2.0
rm -f "$dir/tpm.volatile"
tpm2_nvread 0x01c00002 2>/dev/null | openssl x509 -inform der -out "$dir/other.pem"
ok "and openssl verifies that" openssl verify -CAfile "$dir/own.pem" "$dir/other.pem"
ok "not with the CA before" bash -c "! openssl verify -CAfile $dir/ca.pem $dir/other.pem"
chmod 644 "$dir/own.key"
run ca show
ok "a key that others may read is refused" is "$code $(has "$err" 'chmod 0600' && echo yes)" "4 yes"
chmod 600 "$dir/own.key"
sed -i '/^ca-certificate/d' "$dir/conf"
run ca show
ok "key and certificate that do not belong together are refused" is \
    "$code $(has "$err" 'not for its key' && echo yes)" "5 yes"
openssl req -x509 -new -key "$dir/own.key" -subj "/CN=No CA" -out "$dir/leaf.pem" -days 30 \
    -addext basicConstraints=critical,CA:FALSE 2>/dev/null
echo "ca-certificate = $dir/leaf.pem" >>"$dir/conf"
run ca show
ok "a certificate that is no CA's is refused" is \
    "$code $(has "$err" 'not of a CA' && echo yes)" "5 yes"
sed -i '/^ca-/d' "$dir/conf"
rm "$dir/ca.key"
run ca init
ok "a CA whose key is lost is not replaced" is "$code $(has "$err" 'is gone' && echo yes)" "4 yes"
echo "ca-key = none" >>"$dir/conf"
run ca show
ok "no CA at all is a choice" code 4

echo "1..$n"
