#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The libtpms that is linked has none of the flaws that were published for it, as far as commands
# can tell; and vtpm-probe sees each one where it is put back (flawed-tpm.c).
set -u
build=${top_builddir:-.}
probe=$build/vtpm-probe
flawed=$build/tests/sandbox/.libs/flawed-tpm.so
n=0
ok() { # ok NAME CONDITION...
    local name=$1
    shift
    n=$((n + 1))
    if "$@"; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        printf '%s\n' "$out" | sed 's/^/# /'
    fi
}
says() { # says NAME VERDICT
    printf '%s\n' "$out" | grep -q "^$1	$2	"
}

out=$("$probe" 2>&1)
code=$?
ok "nothing is open in this libtpms" [ $code = 0 ]
for name in CVE-2023-1017 CVE-2023-1018 CVE-2025-49133 CVE-2026-21444; do
    ok "$name is mended" says $name mended
done
# a sanitizer wants to be the first library there is
while IFS=: read -r name flaw; do
    out=$(FLAW=$flaw timeout 100 env LD_PRELOAD="$flawed" ASAN_OPTIONS=verify_asan_link_order=0 "$probe" 2>&1)
    code=$?
    ok "$name is found where it is put back ($flaw)" says "$name" open
    ok "and the probe says so ($flaw)" [ $code = 1 ]
done <<'END'
CVE-2023-1017:146 write
CVE-2023-1018:146 size
CVE-2025-49133:15d abort
CVE-2026-21444:193 iv
CVE-2026-21444:193 loop
END
echo "1..$n"
