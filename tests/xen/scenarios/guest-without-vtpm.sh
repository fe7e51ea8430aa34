# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest with no vtpm line: the machine, xl and the guest channel work at all.
# needs: nothing
# limit: 240 s

step "create a guest with no vtpm line"
guest_config bare ''
guest_create bare
pass "xl creates a PV guest"
guest_wait bare
pass "the guest answers on its console"

is "a command's output comes back" "$(guest_run bare 'echo a; echo b >&2' 2>/dev/null)" "a"
is "its errors come apart" "$(guest_run bare 'echo a; echo b >&2' 2>&1 >/dev/null)" "b"
status=0
guest_run bare 'exit 7' || status=$?
is "its status comes back" "$status" 7
is "long output comes back whole" \
    "$(guest_run bare 'seq 1 5000' | md5sum)" "$(seq 1 5000 | md5sum)"
is "binary data comes back whole" \
    "$(guest_run bare 'cat /bin/wait-tpm; printf "\\000\\377\\n\\r\\000"' | md5sum)" \
    "$(guest_run bare '(cat /bin/wait-tpm; printf "\\000\\377\\n\\r\\000") | md5sum')"
head -c 3000 /dev/urandom >"$logs/blob"
guest_put bare "$logs/blob" /tmp/d/blob
guest_get bare /tmp/d/blob "$logs/blob.back"
succeeds "a file goes there and back" cmp "$logs/blob" "$logs/blob.back"
guest_run bare 'dmesg -n 8; (seq 1 3000 >/dev/kmsg) >/dev/null 2>&1 &'
is "kernel messages in the middle of answers do no harm" \
    "$(guest_run bare 'seq 1 5000' | md5sum)" "$(seq 1 5000 | md5sum)"
guest_run bare 'dmesg -n 1'
is "with no vtpm line there is no TPM" "$(guest_run bare 'ls /dev | grep -c tpm' || true)" 0

step "reboot it both ways"
guest_reboot_by_xl bare
pass "xl reboot works"
guest_reboot_inside bare
pass "a reboot from inside works"
guest_destroy bare
succeeds "xl destroy leaves no domain" guest_gone bare
