# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# The administrator's commands on TPMs that guests use: pcrs and backup beside a running guest, clone, another CA's certificate, clear, reset, and a restore onto a host that lost all.
# limit: 600 s

uuid=6f1c7f0a-25d5-4c1e-9b0a-7d0f4f1a2b01
text="written before all that"

step "a guest that keeps something in its TPM"
daemon_reset
daemon_start
guest_up admin "backend=0,uuid=$uuid"
guest_tpm admin
guest_run -t 120 admin "set -e
    printf '%s' '$text' >/tmp/text
    tpm2_nvdefine 0x1500010 -Q -C o -s ${#text} -a 'ownerread|ownerwrite'
    tpm2_nvwrite 0x1500010 -C o -i /tmp/text
    tpm2_createprimary -Q -C o -G ecc -c /tmp/primary
    tpm2_evictcontrol -Q -C o -c /tmp/primary 0x81000010
    tpm2_flushcontext -t"
pcr_extend admin 10
ek=$(tpm2_key_name admin 0x81010001)
key=$(tpm2_key_name admin 0x81000010)

step "beside it: pcrs, backup, and what is refused of a TPM in use"
is "xl-vtpm pcrs tells PCR 10 as the guest has it" \
    "$(xl-vtpm pcrs --json "$uuid" | jq -r '.banks.sha256[10]' | tr a-f A-F)" "$(pcr admin 10)"
succeeds "a backup is made while the guest runs" xl-vtpm backup --with-keys /root/backup
for refused in "clone --new-identity" "clear --yes" "reset --yes"; do
    # shellcheck disable=SC2086 # words
    like "$refused is refused" "$(xl-vtpm $refused "$uuid" 2>&1)" "in use"
done
is "the guest notices nothing" "$(tpm2_nv admin 0x1500010)" "$text"

step "clone --new-identity: another guest has what that one had, and is another TPM"
guest_destroy admin
twin=$(xl-vtpm clone --new-identity "$uuid")
guest_up twin "backend=0,uuid=$twin"
guest_tpm twin
is "its NV index reads as the first one's" "$(tpm2_nv twin 0x1500010)" "$text"
is "its owner's key is the same" "$(tpm2_key_name twin 0x81000010)" "$key"
isnt "its endorsement key is another" "$(tpm2_key_name twin 0x81010001)" "$ek"
xl-vtpm ca export >"$logs/ca.pem"
guest_put twin "$logs/ca.pem" /tmp/ca.pem
succeeds "the host's CA has certified that" guest_run -t 60 twin '
    tpm2_nvread 0x1c00002 2>/dev/null | openssl x509 -inform der -out /tmp/ek.pem &&
        openssl verify -CAfile /tmp/ca.pem /tmp/ek.pem &&
        tpm2_readpublic -Q -c 0x81010001 -f pem -o /tmp/ek.pub &&
        openssl x509 -in /tmp/ek.pem -noout -pubkey | cmp - /tmp/ek.pub'

step "another CA certifies the first one's EK, then it is cleared"
xl-vtpm ek-cert --csr "$uuid" | sed -n '/^-----BEGIN/,$p' >"$logs/ek.pub"
guest_put twin "$logs/ek.pub" /tmp/other.pub
guest_run -t 60 twin '{
    printf "[req]\ndistinguished_name = dn\n[dn]\n[ca]\nbasicConstraints = critical,CA:TRUE\n" >/tmp/cnf
    printf "basicConstraints = critical,CA:FALSE\nextendedKeyUsage = 2.23.133.8.1\n" >/tmp/ext
    openssl req -config /tmp/cnf -x509 -extensions ca -newkey rsa:2048 -nodes -days 30 -subj /CN=corp \
        -keyout /tmp/corp.key -out /tmp/corp.pem &&
    openssl x509 -new -force_pubkey /tmp/other.pub -CA /tmp/corp.pem -CAkey /tmp/corp.key -subj / \
        -days 30 -extfile /tmp/ext -out /tmp/other.pem
    } >/tmp/openssl.log 2>&1 && cat /tmp/other.pem || cat /tmp/openssl.log' >"$logs/other.pem"
succeeds "its certificate is installed" xl-vtpm ek-cert --install "$logs/other.pem" "$uuid"
succeeds "and the owner cleared" xl-vtpm clear --yes "$uuid"
guest_destroy twin
guest_create admin
guest_wait admin
guest_tpm admin
is "the endorsement key stays: tpm2_createek makes it again" "$(guest_run -t 120 admin '
    tpm2_createek -Q -G rsa -c /tmp/ek -f pem -u /tmp/ek.pem
    tpm2_flushcontext -t
    cat /tmp/ek.pem')" "$(cat "$logs/ek.pub")"
guest_put admin "$logs/other.pem" /tmp/other.pem
succeeds "the guest has the other CA's certificate" guest_run -t 60 admin '
    tpm2_nvread 0x1c00002 2>/dev/null | openssl x509 -inform der | cmp - /tmp/other.pem'
fails "the owner's NV index is gone" tpm2_nv admin 0x1500010
fails "and the owner's key" tpm2_key_name admin 0x81000010

step "reset, right after xl shutdown, which is no xl save: a new TPM under the same uuid"
xl_timed admin shutdown -w admin
wait_for 30 guest_gone admin
# the daemon sees that a moment later
not_used() { xl-vtpm show --json "$1" | jq -e '.device == null'; }
wait_for 30 not_used "$uuid"
status=0
xl-vtpm pcrs "$uuid" >/dev/null 2>&1 || status=$?
is "its TPM is off" "$status" 3
succeeds "it is reset" xl-vtpm reset --yes "$uuid"
guest_create admin
guest_wait admin
guest_tpm admin
isnt "its endorsement key is another" "$(tpm2_key_name admin 0x81010001)" "$ek"
guest_destroy admin

step "the host is lost; the backup on a freshly installed one"
daemon_stop
daemon_reset
daemon_start
daemon_stop
succeeds "it is restored" xl-vtpm restore /root/backup
rm -rf /root/backup
daemon_start
guest_create admin
guest_wait admin
guest_tpm admin
is "the guest has its first TPM" "$(tpm2_key_name admin 0x81010001)" "$ek"
is "and what was in it" "$(tpm2_nv admin 0x1500010)" "$text"
is "and its owner's key" "$(tpm2_key_name admin 0x81000010)" "$key"
guest_destroy admin
leaves_nothing "at the end"
