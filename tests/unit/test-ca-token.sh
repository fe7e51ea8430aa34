#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A CA whose key is in a token, and never in a file: a PKCS #11 one (SoftHSM, by libp11's engine),
# and a TPM of the host's own (by the provider tpm2-openssl, behind a resource manager). TAP.
# shellcheck disable=SC2034 # out and err are shown by ok
set -u

build=$(cd "${top_builddir:-.}" && pwd)
dir=$(mktemp -d)
manager=
trap '[ -z "$manager" ] || kill "$manager" 2>/dev/null; rm -rf "$dir"' EXIT
# the host's TPM has to be reached by two connections at once, which takes a bus of our own
if [ -z "${DBUS_SESSION_BUS_ADDRESS:-}" ]; then
    trap - EXIT
    rm -rf "$dir"
    exec dbus-run-session -- "$0" "$@"
fi

. "${top_srcdir:-.}/tests/lib/xl-vtpm.sh"

factory=$build/tests/unit/factory
out='' err='' code=''
: | tee "$dir/out" >"$dir/err"
# what OpenSSL loads here it has itself, and what that leaks is not ours to tell
export ASAN_OPTIONS=detect_leaks=0
key_of() { openssl x509 -in "$1" -noout -pubkey; }
conf() { # conf KEY: that of the CA
    printf 'state-dir = %s\nrun-dir = %s/run\nca-key = %s\nca-certificate = %s\n' "$dir" "$dir" \
        "$1" "$dir/ca.pem" >"$dir/conf"
}
# a CA whose key is there, from the first look to a TPM that it certified
goes_through() { # goes_through NAME URI PUBLIC-KEY-FILE
    rm -f "$dir/ca.pem"
    conf "$2"
    run ca show
    ok "$1: a key without a certificate: show says how to make one" is \
        "$code $(has "$err" 'ca init' && echo yes)" "5 yes"
    run ca init
    ok "$1: ca init makes the certificate" code 0
    ok "$1: and no file with a key" is "$(find "$dir" -maxdepth 1 -name '*.key')" ''
    ok "$1: it is that key's" is "$(key_of "$dir/ca.pem")" "$(cat "$3")"
    ok "$1: and signed by it" openssl verify -x509_strict -CAfile "$dir/ca.pem" "$dir/ca.pem"
    ok "$1: it certifies a TPM" "$factory" make "$dir" 2.0
    rm -f "$dir/tpm.volatile"
    TPM2TOOLS_TCTI="cmd:$factory run $dir" tpm2_nvread 0x01c00002 2>/dev/null |
        openssl x509 -inform der -out "$dir/ek.pem"
    ok "$1: and openssl verifies that without the token" openssl verify -CAfile "$dir/ca.pem" \
        "$dir/ek.pem"
    ok "$1: by a digest as strong as the key" has \
        "$(openssl x509 -in "$dir/ek.pem" -noout -text)" ecdsa-with-SHA384
}

# --- PKCS #11 ---
export SOFTHSM2_CONF=$dir/softhsm.conf
mkdir "$dir/tokens"
echo "directories.tokendir = $dir/tokens" >"$SOFTHSM2_CONF"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$dir/once" 2>/dev/null
openssl pkey -in "$dir/once" -pubout -out "$dir/public.pem"
softhsm2-util --init-token --free --label vtpm --pin 1234 --so-pin 5678 >/dev/null
softhsm2-util --import "$dir/once" --token vtpm --label ca --id 01 --pin 1234 >/dev/null
rm "$dir/once"
printf 1234 >"$dir/pin"
goes_through "PKCS #11" "pkcs11:token=vtpm;object=ca?pin-source=file:$dir/pin" "$dir/public.pem"
printf 4321 >"$dir/pin"
run ca show
ok "a wrong PIN is said" is "$code $(has "$err" "PIN" && echo yes)" "1 yes"
printf 1234 >"$dir/pin"
conf "pkcs11:token=vtpm;object=another?pin-source=file:$dir/pin"
run ca show
ok "so is a key that is not there" is "$code $(has "$err" "not found" && echo yes)" "1 yes"
conf "pkcs11:token=vtpm;object=ca"
run ca show
ok "nobody is asked for a PIN" is "$code$out" 1
OPENSSL_ENGINES=$dir run ca show
ok "without the engine it is said what is missing" is \
    "$code $(has "$err" libengine-pkcs11-openssl && echo yes)" "1 yes"

# --- a TPM of the host's ---
host=$dir/host
mkdir "$host"
printf 'state-dir = %s\nrun-dir = %s/run\n' "$host" "$host" >"$host/conf"
"$factory" make "$host" 2.0 >/dev/null 2>&1
tpm2-abrmd --session --allow-root --tcti="cmd:$factory run $host" >"$dir/abrmd.log" 2>&1 &
manager=$!
names() {
    dbus-send --session --dest=org.freedesktop.DBus --type=method_call --print-reply / \
        org.freedesktop.DBus.ListNames
}
until names | grep -q com.intel.tss2.Tabrmd; do
    kill -0 "$manager" 2>/dev/null || { cat "$dir/abrmd.log"; break; }
    sleep 0.05
done
export TPM2OPENSSL_TCTI=tabrmd:bus_type=session
on_host() { TPM2TOOLS_TCTI=$TPM2OPENSSL_TCTI "$@"; }
on_host tpm2_createprimary -Q -C o -G ecc384:ecdsa-sha384 -c "$host/key" \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign'
on_host tpm2_evictcontrol -Q -C o -c "$host/key" 0x81000020
on_host tpm2_readpublic -Q -c 0x81000020 -f pem -o "$host/public.pem"
cat >"$host/openssl.cnf" <<END
openssl_conf = all
[all]
providers = providers
[providers]
tpm2 = on
default = on
[on]
activate = 1
END
export OPENSSL_CONF=$host/openssl.cnf
goes_through "a TPM" handle:0x81000020 "$host/public.pem"
unset OPENSSL_CONF
run ca show
ok "without its provider the key cannot be used, which is said" is \
    "$code $(has "$err" 'handle:0x81000020 cannot be used' && echo yes)" "1 yes"
kill "$manager"
wait "$manager"
manager=

echo "1..$n"
