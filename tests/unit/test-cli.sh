#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm from the outside: its output for people and for programs, its exit
# codes, with and without a daemon; and libxlvtpm's public face. TAP.
set -u

build=${top_builddir:-.}
src=${top_srcdir:-.}
dir=$(mktemp -d)
trap 'let_go; rm -rf "$dir"' EXIT

. "$src/tests/lib/xl-vtpm.sh"

cat >"$dir/conf" <<END
state-dir = $dir/state
run-dir = $dir/run
END
U=dcdb124b-9fed-4040-b149-dd2dfd8d094c

# --- usage ---
run --help
ok "--help lists the commands" has "$out" "bind [--devid N] DOMAIN UUID|NUMBER"
ok "--help is no failure" code 0
run --version
ok "--version names the program" has "$out" "xl-vtpm 0."
run check --help
ok "a command has help of its own" has "$out" "usage: xl-vtpm [OPTION...] check FILE"
for bad in "" "dance" "list extra" "show" "bind web" "list --devid 1" "show 1 --label x" \
    "list --colour" "list --config" "status --offline" "list --yes" "recover" "recover --use-slot 3 1" \
    "measure 1" "measure --on --off 1" "list --kernel x" "clone 1" "backup" "restore a b" \
    "clone --new-identity --keep-identity 1" "pcrs" "reset" "backup --yes x"; do
    # shellcheck disable=SC2086
    run $bad
    ok "usage error: '$bad'" code 2
    ok "usage error '$bad' is explained on stderr only" is "$out" ""
done

# --- on the files ---
run list
ok "an empty list has its heading only" is "$(wc -l <"$dir/out")" 1
ok "listing makes no files" test ! -e "$dir/state"
run list --json
ok "an empty list in JSON" is "$(field length)" 0
run create --tpm-version 1.2 --label "Büro 1" $U
ok "create prints the uuid and nothing else" is "$out$err" $U
run create $U
ok "a uuid is made once" code 4
ok "and that is said" has "$err" "instance 1 has the uuid $U already"
run create
other=$out
ok "create without a uuid makes one up" is "${#out}" 36
run create --tpm-version 3.0
ok "an unknown TPM version is refused" code 5
run create not-a-uuid
ok "a bad uuid is refused" code 5
run show 1 --json
ok "show in JSON" is "$(field '.uuid + " " + .tpm_version + " " + .life + " " + .label')" \
    "$U 1.2 new Büro 1"
ok "without a daemon there is no device" is "$(field .device)" null
run show $U
ok "show for people" has "$out" "TPM version    1.2"
run show 7
ok "an unknown instance is not found" code 3
ok "and named" has "$err" "there is no instance 7"
run show 99999999999999999999999
ok "a number that is none is refused" code 5
run bind --devid 2 web $U
ok "bind says what it did" is "$out" "web, device 2: instance 1, uuid $U"
run bind web 2
run list
ok "the list is aligned" is "$(awk '{print index($0, "  2.0  ") + index($0, "  1.2  ") \
    + index($0, "  TPM  ")}' "$dir/out" | sort -u | wc -l)" 1
ok "the list shows the domain" has "$out" "$other  2.0  new   web"
run bind --devid x web 1
ok "a device number must be one" code 5
run bind --devid 256 web 1
ok "a device number has a maximum" code 5
run bind web 9
ok "only an instance that is there can be bound" code 3
run unbind --devid 2 web
ok "unbind" code 0
run unbind --devid 2 web
ok "unbinding twice is noticed" code 3

# --- statistics: a journal's first page, as include/statistics.h has it ---
u64() { # NUMBER... - little endian
    local v
    for v; do
        for _ in 1 2 3 4 5 6 7 8; do
            printf %b "\\x$(printf %02x $((v & 255)))"
            v=$((v >> 8))
        done
    done
}
zeros() { head -c $(($1 * 8)) /dev/zero; }
run stats
ok "without a journal nothing was counted" is "$(awk '$1 == 1 { print $4, $5, $6 }' "$dir/out")" "0 0 0"
mkdir -p "$dir/run/journal"
{
    zeros 128
    printf 'XLVTPMS\1'
    u64 3 100 7 1 12 2 # processes, commands, failed, cancelled, commits, failed commits
    u64 2500000000 0 60 39 && zeros 16 && u64 1 # 60 up to 20 us, 39 up to 50, 1 above 10 s
    u64 1200000 && zeros 5 && u64 12 && zeros 14
} >"$dir/run/journal/1"
sql() { sqlite3 "$dir/state/vtpm.db" "$1"; }
sql "UPDATE instance SET last_domain_name='we\"b\\\\' WHERE number=1"
run stats 1
ok "what was counted, for people" has "$(tail -n 1 "$dir/out" | tr -s ' ')" \
    '100 7 12 20 us 50 us 500 us 3'
run stats 2
ok "of one instance" is "$(tail -n +2 "$dir/out" | awk '{ print $1, $3 }')" "2 -"
run --json stats 1
ok "as JSON" is "$(field '.[0] | "\(.commands) \(.failed) \(.cancelled) \(.commits) \(.failed_commits)"')" \
    "100 7 1 12 2"
ok "with latencies, each bucket with those below" is \
    "$(field '.[0].latency | "\(.sum_seconds) \([.buckets[].count] | unique) \(.buckets[-1])"')" \
    '2.5 [0,60,99,100] {"le":null,"count":100}'
run stats --prometheus
ok "for Prometheus: a counter, its label quoted" has "$out" \
    "xl_vtpm_commands_total{instance=\"1\",uuid=\"$U\",domain=\"we\\\"b\\\\\\\\\"} 100"
ok "a bucket" has "$out" ',le="2e-05"} 60'
ok "the last one" has "$out" ',le="+Inf"} 100'
ok "the sum" grep -qx 'xl_vtpm_durable_command_seconds_sum{instance="1".*} 0.0012' "$dir/out"
ok "each series has its type before it" is "$(grep -c '^# TYPE' "$dir/out")" 8
run stats --prometheus --json
ok "not both formats" code 5
truncate -s 1100 "$dir/run/journal/1"
run stats 1
ok "a journal that is cut short counts nothing" is "$(awk '$1 == 1 { print $4 }' "$dir/out")" 0
rm -r "$dir/run/journal"
sql "UPDATE instance SET last_domain_name='' WHERE number=1"

run status
ok "status needs the daemon" code 3
ok "and says how to start it" has "$err" "systemctl start xl-vtpmd"
run -v list
ok "-v says that the files were used" has "$err" "using the files in $dir/state"
run list
ok "without -v nothing is said" is "$err" ""
"$build/libxl-vtpm/xl-vtpm" -c "$dir/none" list >"$dir/out" 2>"$dir/err"
code=$?
ok "a missing configuration file is named" has "$(cat "$dir/err")" "$dir/none cannot be opened"
ok "with its code" code 3
echo "colour = red" >"$dir/bad"
"$build/libxl-vtpm/xl-vtpm" -c "$dir/bad" list >"$dir/out" 2>"$dir/err"
code=$?
ok "a bad configuration is named with its line" has "$(cat "$dir/err")" "bad:1: unknown key"
ok "a bad configuration is invalid" code 5
"$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" list >/dev/full 2>"$dir/err"
code=$?
ok "output that cannot be written is a failure" code 1
mv "$dir/state/vtpm.db" "$dir/state/kept"
touch "$dir/state/instances/1/state-0"
run list
ok "a lost registry is a failure" code 1
ok "a lost registry is explained" has "$err" "put back a backup"
rm "$dir/state/instances/1/state-0"
mv "$dir/state/kept" "$dir/state/vtpm.db"

# --- measured boots: of files that are named, PCR 9 as sha256sum computes it ---
printf kernel >"$dir/vmlinuz"
zeros=$(printf '00%.0s' {1..32})
extend() { printf '%s' "$1$2" | xxd -r -p | sha256sum | cut -d' ' -f1; }
sum() { sha256sum | cut -d' ' -f1; }
pcr9=$(extend "$(extend "$zeros" "$(printf kernel | sum)")" "$(printf '\0\0\0\0' | sum)")
pcr8=$(extend "$(extend "$zeros" "$(printf quiet | sum)")" "$(printf '\0\0\0\0' | sum)")
run measured --kernel "$dir/vmlinuz" --cmdline quiet
ok "what a boot will be measured as" code 0
ok "its PCR 9" has "$out" "sha256:9       $pcr9"
ok "its PCR 8" has "$out" "sha256:8       $pcr8"
run measured --json --kernel "$dir/vmlinuz" --cmdline quiet
ok "the same in JSON" is "$(field '.pcrs.sha256["9"]')" "$pcr9"
run measured --kernel "$dir/gone"
ok "a kernel that is not there" code 1
run measured
ok "neither an instance nor a kernel" code 5
run measured 1
ok "an instance whose boot was not measured" code 3
run measure --on 1
ok "an instance may be measured" code 0
run show 1 --json
ok "show tells so" is "$(field .measure_boot)" on
run measure --default 1
run show 1 --json
ok "or be as the settings say" is "$(field .measure_boot)" null

# --- check ---
cat >"$dir/web.cfg" <<END
name = "web"
memory = 64
vtpm = [ 'backend=0', 'backend=0,uuid=$U', 'backend=0, uuid=11111111-2222-4333-8444-555555555555',
         'backend=0,ro,uuid=$U', 'backend=drv' ]
END
run check "$dir/web.cfg"
ok "all entries get a TPM" code 0
ok "no uuid: kept by the name" has "$out" "instance 2 (TPM 2.0, new, uuid $other): no uuid given, so xl"
ok "the uuid of an instance" has "$out" "instance 1 (TPM 1.2, new), whose uuid this is"
ok "an unknown uuid" has "$out" "a new instance (TPM 2.0) with this uuid"
ok "what xl accepts and cannot be meant" has "$out" "warning: \"ro\" has no '='"
ok "another backend domain" has "$out" "served by the xl-vtpmd of domain drv"
run check --json "$dir/web.cfg"
ok "check in JSON" is "$(field '[.result] + [.vtpms[] | .result + ":" + (.rule // "-")] | join(" ")')" \
    "fine fine:binding fine:uuid fine:assigned fine:assigned elsewhere:-"
run list --json
ok "checking makes no instance" is "$(field length)" 2

cat >"$dir/two.cfg" <<END
name = "two"
vtpm = [ 'backend=0,uuid=$U', 'backend=0,uuid=${U^^}' ]
END
run check "$dir/two.cfg"
ok "one TPM for two devices is refused" code 4
ok "and explained" has "$out" "refused: device 0 of this domain has the same TPM"
printf 'name="x"\nvtpm=["backend=0,uuid=%s","backend=0,uuid=%s"]\n' \
    11111111-2222-4333-8444-555555555555 11111111-2222-4333-8444-555555555555 >"$dir/new.cfg"
run check "$dir/new.cfg"
ok "a new TPM for two devices is refused, too" code 4
sqlite3 "$dir/state/vtpm.db" "UPDATE instance SET life = 'quarantined' WHERE number = 1"
printf 'name="x"\nvtpm=["backend=0,uuid=%s"]\n' $U >"$dir/x.cfg"
run check "$dir/x.cfg"
ok "a quarantined instance is refused" code 4
sqlite3 "$dir/state/vtpm.db" "UPDATE instance SET life = 'ready' WHERE number = 1"
handover() {
    sqlite3 "$dir/state/vtpm.db" "UPDATE instance SET handover = '$1', handover_peer = '$2',
        handover_token = '$3' WHERE number = 1"
}
for handover in departed arriving; do
    handover $handover 'the other' 0a0b0c0d-2222-4333-8444-555555555555
    run check "$dir/x.cfg"
    ok "one that another host has, or may have, is refused: $handover" code 4
    ok "which is named: $handover" has "$out" \
        "refused: instance 1 is $handover (other host: the other); see HANDOVER in xl-vtpm-move(8)"
done
handover departing 'the other' 0a0b0c0d-2222-4333-8444-555555555555
run check "$dir/x.cfg"
ok "one that may come back at once is not" code 0
handover '' '' ''

wrong() { # wrong NAME TEXT WORDS
    printf '%b' "$2" >"$dir/wrong.cfg"
    run check "$dir/wrong.cfg"
    ok "$1" code 5
    ok "$1: said" has "$out" "$3"
}
wrong "an entry that xl refuses" 'name="x"\nvtpm=["uuid='$U'"]\n' \
    "xl refuses this: vtpm spec missing required backend field!"
wrong "a domain without a name" 'vtpm=["backend=0"]\n' "there is no name"
wrong "a file that xl cannot read" 'name = = \n' "wrong.cfg:1: config parsing error"
wrong "vtpm as a string" 'name="x"\nvtpm="backend=0"\n' "vtpm is no list"
wrong "a list in the list" 'name="x"\nvtpm=["backend=0",["backend=0"],"backend=0"]\n' \
    "entry 1 of the vtpm list is itself a list"
printf 'name="x"\n' >"$dir/none.cfg"
run check "$dir/none.cfg"
ok "a domain without a vTPM is fine" code 0
ok "and told so" has "$out" "no vtpm line: the domain gets no TPM"
run check "$dir/none"
ok "a missing file is not found" code 3
run check "$dir"
ok "a directory is refused" code 5
printf 'name="x\033[2J"\nvtpm=["backend=0,uuid=%s"]\n' $U >"$dir/esc.cfg"
run check "$dir/esc.cfg"
ok "control characters do not reach the terminal" is "$(tr -d '\n' <"$dir/out" | LC_ALL=C tr -dc '\000-\037')" ""
cp "$dir/conf" "$dir/conf.kept"
echo "unknown-uuid = refuse" >>"$dir/conf"
run check "$dir/new.cfg"
ok "the policy to refuse is told" has "$out" "unknown-uuid = refuse"
ok "the policy to refuse has a code" code 4
mv "$dir/conf.kept" "$dir/conf"

for cfg in "$src"/examples/*.cfg; do
    run check --json "$cfg"
    ok "example $(basename "$cfg") is fine, without a warning" is \
        "$code $(field '[.messages[], .vtpms[].warnings[]] | length')" "0 0"
done

# --- with a daemon ---
stays "$build/tests/unit/control-server" "$dir/conf"
run -v list
ok "the daemon is asked where it runs" has "$err" "asking xl-vtpmd in $dir/run"
ok "the device is shown" has "$out" "5/0 connected"
run show 1
ok "show shows the device" has "$out" "serves         domain 5, device 0"
ok "show shows the last refusal" has "$out" "domain 6, device 0: in use"
run show 9
ok "the daemon's errors come through" code 3
run status
ok "status for people" has "$out" "devices        1"
ok "status shows refusals" has "$out" "refused        2026-01-02T03:04:05Z: domain 6"
run status --json
ok "status in JSON" is "$(field '.refusals[0].reason')" "in use"
run check "$dir/web.cfg"
ok "check asks the daemon" code 0
run --offline show 1 --json
ok "--offline goes past it" is "$(field .device)" null
let_go
run list
ok "a socket without a daemon is no obstacle" code 0

# --- the library ---
so=$build/.libs/libxlvtpm.so.1
declared=$(sed -n 's/^[a-z].*[ *]\(xlvtpm_[a-z_]*\)(.*/\1/p' "$src/include/libxl-vtpm.h" |
    grep -v -e '^xlvtpm_spec_to_libxl$' -e '^xlvtpm_attach$' | sort)
exported=$(nm -D --defined-only "$so" | sed -n 's/.* T \([^@]*\)@@.*/\1/p' | sort)
ok "libxlvtpm exports what its header declares, and nothing else" is "$exported" "$declared"
ok "libxlvtpm has its soname" has "$(objdump -p "$so")" "SONAME               libxlvtpm.so.1"
ok "libxlvtpm depends on no version of Xen" is "$(objdump -p "$so" | grep -c 'NEEDED.*libxen')" 0
for name in $declared xlvtpm_attach xlvtpm_spec_to_libxl; do
    grep -q "$name" "$src/man/libxlvtpm.3" || echo "$name"
done >"$dir/undocumented"
ok "libxlvtpm(3) has every function" is "$(cat "$dir/undocumented")" ""
echo '#include <libxl-vtpm.h>' >"$dir/only.c"
ok "the header stands alone in C99" \
    "${CC:-cc}" -std=c99 -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$src/include" "$dir/only.c"
ok "the header stands alone in C++" \
    "${CC:-cc}" -x c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -I"$src/include" "$dir/only.c"
printf '#include <libxl.h>\n#include <libxl-vtpm.h>\n' >"$dir/only.c"
ok "the header goes with libxl.h" \
    "${CC:-cc}" -std=gnu11 -Wall -Wextra -Werror -fsyntax-only -I"$src/include" "$dir/only.c"
"$build/examples/vtpm-of" "backend=0,uuid=$U" web "$dir/conf" >"$dir/out" 2>"$dir/err"
code=$?
ok "the example client finds an instance" is "$(cat "$dir/out")" "instance 1, TPM 1.2, by its uuid"
"$build/examples/vtpm-of" "backend=0" web "$dir/conf" >"$dir/out" 2>"$dir/err"
ok "the example client finds a binding" has "$(cat "$dir/out")" "by the domain's name"
"$build/examples/vtpm-of" "uuid=$U" >"$dir/out" 2>"$dir/err"
code=$?
ok "the example client explains a bad spec" has "$(cat "$dir/err")" "missing required backend field"

# --- the manual ---
for page in "$src"/man/*.[1-8]; do
    run --version
    mandoc -T lint -W warning "$page" >"$dir/out" 2>&1
    ok "${page##*/} is clean" is "$(cat "$dir/out")" ""
done
for program in xl-vtpm xl-vtpmd xl-vtpm-move vtpm-backend vtpm-probe xl-vtpm-libvirt; do
    grep -qE "^(\.Nm )?$program( |\$)" "$src"/man/*.8 || echo "$program"
done >"$dir/undocumented"
ok "every program has its page" is "$(cat "$dir/undocumented")" ""
for word in list show create bind unbind release recover rekey check status doctor use-slot yes json config offline verbose \
    tpm-version label devid; do
    grep -q -e "$word" -e "${word//-/\\\\-}" "$src/man/xl-vtpm.8" || echo "$word"
done >"$dir/undocumented"
ok "xl-vtpm(8) has every command and option" is "$(cat "$dir/undocumented")" ""
sed -n 's/^#\([a-z-]*\) = .*/\1/p' "$src/libxl-vtpm/xl-vtpm.conf.in" | while read -r key; do
    grep -q "^\.It Ic ${key} " "$src/man/xl-vtpm.conf.5" || echo "$key"
done >"$dir/undocumented"
ok "xl-vtpm.conf(5) has every key" is "$(cat "$dir/undocumented")" ""

echo "1..$n"
