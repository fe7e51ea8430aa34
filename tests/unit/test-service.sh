#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The service file: what xl-vtpmd keeps by itself is what the unit lets it keep.
set -u
top=${top_srcdir:-.}
unit=$top/systemd/xl-vtpmd.service.in
code=$top/libxl-vtpm/privileges.c
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

in_unit() { sed -n 's/^CapabilityBoundingSet=//p' "$unit" | tr ' ' '\n' | sort; }
in_code() { sed -n '/kept\[\] = {/,/};/s/^ *\(CAP_[A-Z_]*\),.*/\1/p' "$code" | sort; }
same_capabilities() {
    [ -n "$(in_code)" ] || return 1
    diff <(in_unit) <(in_code) | sed 's/^/# /'
    [ "$(in_unit)" = "$(in_code)" ]
}
no_call_is_missing() {
    local call
    # of the sandbox's own set-up, what @system-service and @mount have not
    for call in unshare seccomp; do
        grep -q "^SystemCallFilter=.*\b$call\b" "$unit" || return 1
    done
}
backends_outlive_it() { grep -qx 'KillMode=process' "$unit"; }
namespaces_of_backends() { grep -qx 'RestrictNamespaces=mnt net ipc uts' "$unit"; }

echo 1..4
ok "capabilities: those of privileges.c" same_capabilities
ok "the system calls of a sandbox are let through" no_call_is_missing
ok "and its namespaces" namespaces_of_backends
ok "backends outlive the daemon" backends_outlive_it
