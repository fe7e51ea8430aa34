#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# make install, as `./run` repeats it on a Xen host: what the administrator changed stays.
set -u
build=$(cd "${top_builddir:-.}" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
number=0
# ok NAME COMMAND... - a test
ok() {
    local name=$1
    shift
    number=$((number + 1))
    if "$@"; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
    fi
}
there() { find "$root" -path '*/xen/xl-vtpm.conf'; }
make_here() { make -s -C "$build" "$@" DESTDIR="$root" >"$root/said" 2>&1 || sed 's/^/# /' "$root/said"; }

echo 1..4
make_here install-data
ok "a configuration is installed" cmp -s "$build/libxl-vtpm/xl-vtpm.conf" "$(there)"
echo "unknown-uuid = refuse" >>"$(there)"
cp "$(there)" "$root/edited"
make_here install-data
ok "not over the one that is there" cmp -s "$root/edited" "$(there)"
make_here uninstall-local
ok "nor is that removed" cmp -s "$root/edited" "$(there)"
cp "$build/libxl-vtpm/xl-vtpm.conf" "$(there)"
make_here uninstall-local
ok "as long as it differs" test -z "$(there)"
