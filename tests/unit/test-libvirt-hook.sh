#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# libvirt's hook, as far as it goes without Xen: what it reads in a domain's metadata, and what it
# says. (With libvirt and Xen: the scenario libvirt.)
set -u
build=$(cd "${top_builddir:-.}" && pwd)
top=$(cd "${top_srcdir:-.}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0
printf 'state-dir = %s/state\nrun-dir = %s/run\n' "$work" "$work" >"$work/conf"

# hook OPERATION METADATA - its errors in $said, its status in $status
hook() {
    status=0
    said=$(printf "<domain type='xen'><name>mine</name><uuid>%s</uuid><metadata>%s</metadata></domain>" \
        6b1d0f3e-93c4-4a0d-8d1e-2a5b7c9e0f00 "$2" |
        "$build/libxl-vtpm/xl-vtpm-libvirt" --config "$work/conf" mine "$1" begin - 2>&1) || status=$?
}
# ok NAME STATUS PATTERN - of the last hook
ok() {
    number=$((number + 1))
    if [[ $status == "$2" && $said =~ $3 ]]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        printf '# status %s, said: %s\n' "$status" "$said"
    fi
}
vtpms() { printf "<vtpms xmlns='urn:libxl-vtpm:domain:1'>%s</vtpms>" "$1"; }
nothing='^$'
uuid=dcdb124b-9fed-4040-b149-dd2dfd8d094c

echo 1..14
for operation in prepare start started; do
    hook $operation "<other xmlns='urn:other'><vtpm uuid='no'/></other>"
    ok "$operation of a domain without our element: nothing is done or needed" 0 "$nothing"
done
hook stopped "$(vtpms "<vtpm wrong=''/>")"
ok "other operations are none of its business" 0 "$nothing"
hook prepare "$(vtpms "<vtpm uuid='$uuid'/>")"
ok "no daemon: told before there is a domain" 1 "^xl-vtpm: domain mine: .*xl-vtpmd"
hook prepare "$(vtpms "<vtpm uuid='$uuid' backend='vtpms'/>")"
ok "a driver domain's daemon is not asked" 0 "$nothing"
hook prepare "$(vtpms "<vtpm uuid='dcdb124b'/>")"
ok "a uuid that is none" 1 "^xl-vtpm: domain mine: .*dcdb124b"
hook prepare "$(vtpms "<vtpm uid='$uuid'/>")"
ok "an attribute that is none" 1 "an attribute other than uuid and backend"
hook prepare "$(vtpms "<tpm uuid='$uuid'/>")"
ok "an element that is none" 1 "something else than <vtpm>"
hook prepare "$(vtpms "$(printf '<vtpm/>%.0s' {1..17})")"
ok "too many" 1 "more than 16"
status=0
said=$("$build/libxl-vtpm/xl-vtpm-libvirt" mine prepare begin - 2>&1 <<<"<html/>") || status=$?
ok "no domain's XML" 1 "not the XML of a domain"
sed "s|@sbindir@|$work/none|" "$top/libxl-vtpm/libvirt-hook.sh.in" >"$work/script"
status=0
said=$(vtpms "<vtpm/>" | sh "$work/script" mine prepare begin - 2>&1) || status=$?
ok "removed, but not purged: no start without the TPM" 1 "xl-vtpm is not installed"
mkdir "$work/broken"
printf '#!/bin/sh\nexit 126\n' >"$work/broken/xl-vtpm-libvirt"
chmod +x "$work/broken/xl-vtpm-libvirt"
sed "s|@sbindir@|$work/broken|" "$top/libxl-vtpm/libvirt-hook.sh.in" >"$work/script"
status=0
said=$(vtpms "<vtpm/>" | sh "$work/script" mine reconnect begin - 2>&1) || status=$?
ok "whatever is wrong with it, no domain that runs is ended for it" 0 "$nothing"
status=0
said=$(vtpms "<vtpm/>" | sh "$work/script" mine prepare begin - 2>&1) || status=$?
ok "but none starts" 126 "$nothing"
