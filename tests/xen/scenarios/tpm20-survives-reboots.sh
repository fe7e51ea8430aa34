# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# TPM 2.0: NV data, a persistent key and what is sealed to it, also to a PCR, the endorsement key and its certificate survive xl reboot, a reboot from inside, destroy and create; PCRs do not. Quotes verify.
# limit: 600 s

uuid=dcdb124b-9fed-4040-b149-dd2dfd8d094c
text="written before any reboot"

step "a freshly installed host: start xl-vtpmd, create a guest with uuid=$uuid"
daemon_reset
daemon_start
guest_up tpm20 "backend=0,uuid=$uuid"
guest_tpm tpm20
unlike "the first boot logs nothing alarming" "$(daemon_log_since 0)" "$alarming"
instance=$(xs "$(vtpm_backend "$(guest_domid tpm20)")/instance" || true)
like "the instance is written back to the backend directory" "$instance" '^[0-9]+$'
is "a new TPM's PCR 10 is zero" "$(pcr tpm20 10)" "$pcr_zero"

step "define and write an NV index, make a persistent key, seal something to it"
guest_run -t 120 tpm20 "set -e
    printf '%s' '$text' >/tmp/text
    tpm2_nvdefine 0x1500010 -Q -C o -s ${#text} -a 'ownerread|ownerwrite'
    tpm2_nvwrite 0x1500010 -C o -i /tmp/text
    tpm2_createprimary -Q -C o -G ecc -c /tmp/primary
    tpm2_evictcontrol -Q -C o -c /tmp/primary 0x81000010
    tpm2_flushcontext -t
    printf sealed | tpm2_create -Q -C 0x81000010 -i - -u /tmp/seal.pub -r /tmp/seal.priv"
guest_get tpm20 /tmp/seal.pub "$logs/seal.pub"
guest_get tpm20 /tmp/seal.priv "$logs/seal.priv"
name=$(tpm2_key_name tpm20 0x81000010)
like "the key has a name" "$name" '^000b[0-9a-f]{64}$'

step "seal something to PCR 10 as it is after a start"
guest_run -t 120 tpm20 "set -e
    tpm2_createpolicy -Q --policy-pcr -l sha256:10 -L /tmp/policy
    printf measured | tpm2_create -Q -C 0x81000010 -L /tmp/policy -i - -u /tmp/pcr.pub -r /tmp/pcr.priv
    tpm2_flushcontext -t"
guest_get tpm20 /tmp/pcr.pub "$logs/pcr.pub"
guest_get tpm20 /tmp/pcr.priv "$logs/pcr.priv"
# unseals - what it was sealed for; status 1 where the TPM refuses
unseals() {
    guest_run -t 120 tpm20 'tpm2_load -Q -C 0x81000010 -u /tmp/pcr.pub -r /tmp/pcr.priv -c /tmp/pcr
        tpm2_flushcontext -t
        tpm2_unseal -c /tmp/pcr -p pcr:sha256:10
        status=$?
        tpm2_flushcontext -t
        tpm2_flushcontext -l
        exit $status'
}
is "it unseals" "$(unseals)" measured

step "an attestation key, a quote of PCR 10, checked with the public key alone"
guest_run -t 120 tpm20 "set -e
    tpm2_create -Q -C 0x81000010 -G ecc256:ecdsa-sha256:null -u /tmp/ak.pub -r /tmp/ak.priv \
        -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign'
    tpm2_flushcontext -t
    tpm2_load -Q -C 0x81000010 -u /tmp/ak.pub -r /tmp/ak.priv -c /tmp/ak
    tpm2_flushcontext -t
    tpm2_readpublic -Q -c /tmp/ak -f pem -o /tmp/ak.pem
    tpm2_flushcontext -t
    tpm2_quote -Q -c /tmp/ak -l sha256:10 -q abcd1234 -g sha256 -m /tmp/q.msg -s /tmp/q.sig -o /tmp/q.pcrs
    tpm2_flushcontext -t"
# quote_holds NONCE
quote_holds() {
    guest_run -t 60 tpm20 "tpm2_checkquote -Q -u /tmp/ak.pem -m /tmp/q.msg -s /tmp/q.sig \
        -f /tmp/q.pcrs -g sha256 -q $1"
}
succeeds "the quote verifies" quote_holds abcd1234
fails "but not for another nonce" quote_holds abcd1235

step "its endorsement keys: certificates in NV of the host's CA, keys as the TCG's templates give them"
# certificate NV-INDEX - its SHA-256, as the guest finds it
certificate() { guest_run -t 60 tpm20 "tpm2_nvread $1 2>/dev/null | sha256sum | cut -c1-64"; }
# known KIND MEMBER - what the host noted when it made the TPM
known() { xl-vtpm ek-cert --json "$uuid" | jq -r ".endorsement[] | select(.kind == \"$1\") | .$2"; }
# made ALGORITHM - the public key that tpm2_createek makes
made() {
    guest_run -t 120 tpm20 "tpm2_createek -Q -G $1 -c /tmp/ek -f pem -u /tmp/ek.pem
        tpm2_flushcontext -t
        cat /tmp/ek.pem"
}
rsa_certificate=$(known rsa2048 certificate_fingerprint)
like "the host knows the RSA EK's certificate" "$rsa_certificate" '^[0-9a-f]{64}$'
is "RSA 2048: the guest has it in NV" "$(certificate 0x1c00002)" "$rsa_certificate"
is "P-256: the same" "$(certificate 0x1c0000a)" "$(known p256 certificate_fingerprint)"
is "P-384: the same" "$(certificate 0x1c00016)" "$(known p384 certificate_fingerprint)"
is "platform: the same" "$(certificate 0x1c08000)" "$(known platform certificate_fingerprint)"
is "RSA 2048: tpm2_createek makes the certificate's key" "$(made rsa)" "$(known rsa2048 public_key)"
is "P-384: tpm2_createek makes the certificate's key" "$(made ecc384)" "$(known p384 public_key)"
xl-vtpm ca export >"$logs/ca.pem"
xl-vtpm ek-cert "$uuid" >"$logs/ek.pem"
guest_put tpm20 "$logs/ca.pem" /tmp/ca.pem
guest_put tpm20 "$logs/ek.pem" /tmp/ek.pem
succeeds "openssl verifies the RSA EK's certificate" \
    guest_run -t 60 tpm20 'openssl verify -CAfile /tmp/ca.pem /tmp/ek.pem'
ek_name=$(tpm2_key_name tpm20 0x81010001)
like "the RSA EK is persistent" "$ek_name" '^000b[0-9a-f]{64}$'
note "manufacture: $(daemon_log_since 0 | grep -o 'is manufactured.*')"

# still_there HOW - after it came back; leaves PCR 10 extended, for the next.
still_there() {
    guest_tpm tpm20
    is "$1: the NV index reads as written" "$(tpm2_nv tpm20 0x1500010)" "$text"
    is "$1: the persistent key is the same" "$(tpm2_key_name tpm20 0x81000010)" "$name"
    is "$1: the EK and its certificate are the same" \
        "$(tpm2_key_name tpm20 0x81010001) $(certificate 0x1c00002)" "$ek_name $rsa_certificate"
    is "$1: PCR 10 is zero again" "$(pcr tpm20 10)" "$pcr_zero"
    guest_put tpm20 "$logs/pcr.pub" /tmp/pcr.pub
    guest_put tpm20 "$logs/pcr.priv" /tmp/pcr.priv
    is "$1: what was sealed to that unseals" "$(unseals)" measured
    is "$1: it is the same instance" \
        "$(xs "$(vtpm_backend "$(guest_domid tpm20)")/instance" || true)" "$instance"
    pcr_extend tpm20 10
    isnt "$1: PCR 10 can be extended" "$(pcr tpm20 10)" "$pcr_zero"
}

pcr_extend tpm20 10
isnt "PCR 10 can be extended" "$(pcr tpm20 10)" "$pcr_zero"
fails "with PCR 10 extended it does not unseal" unseals

step "xl reboot"
guest_reboot_by_xl tpm20
still_there "after xl reboot"

step "reboot from inside the guest"
guest_reboot_inside tpm20
still_there "after a reboot from inside"

step "xl destroy, xl create"
guest_destroy tpm20
at_most "xl destroy runs into none of libxl's 10 s waits" "$xl_seconds" 9.9
succeeds "xl destroy leaves no backend node" wait_for 5 xs_gone /local/domain/0/backend/vtpm
guest_create tpm20
guest_wait tpm20
still_there "after xl destroy and xl create"
guest_put tpm20 "$logs/seal.pub" /tmp/seal.pub
guest_put tpm20 "$logs/seal.priv" /tmp/seal.priv
is "what was sealed before all that unseals" "$(guest_run -t 90 tpm20 '
    tpm2_load -Q -C 0x81000010 -u /tmp/seal.pub -r /tmp/seal.priv -c /tmp/seal &&
        tpm2_unseal -c /tmp/seal')" sealed

succeeds "xl-vtpm list knows the instance" grep -q "$uuid" <(xl-vtpm list)
succeeds "xl-vtpm show shows it" grep -q "$uuid" <(xl-vtpm show "$uuid")
is "xl-vtpm list --json is JSON, and names it once" \
    "$(xl-vtpm list --json | jq -r '[.. | .uuid? // empty] | unique | join(",")')" "$uuid"
unlike "nothing alarming was logged in all of this" "$(daemon_log_since 0)" "$alarming"
