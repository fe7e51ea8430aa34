#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The fakes stand in for the real libraries: same soname, same symbols with the same versions; and
# nothing our programs call in a Xen library is missing from them.
set -uo pipefail
builddir=${top_builddir:-.}
fakes=$builddir/tests/fake/.libs
n=0

check() {
    local what=$1 wrong=$2
    n=$((n + 1))
    if [ -z "$wrong" ]; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what"
        echo "# ${wrong//$'\n'/$'\n'# }"
    fi
}

# name@@VERSION of all functions a shared object defines; -u: name@VERSION it wants
defined() { nm -D --defined-only "$1" | awk '$2 == "T" { print $3 }' | sort; }
wanted() { nm -D --undefined-only "$1" | awk '{ print $2 }' | sort; }

libraries="libxentoolcore.so.1 libxenevtchn.so.1 libxengnttab.so.1 libxenstore.so.4"
for lib in $libraries; do
    real=$(ldconfig -p | awk -v l="$lib" '$1 == l { print $NF; exit }')
    check "$lib has its soname" \
        "$(readelf -d "$fakes/$lib" | grep -q "soname: \[$lib\]" || echo "another soname")"
    check "$lib offers what the real one does" \
        "$(diff <(defined "$real") <(defined "$fakes/$lib") | grep '^[<>]')"
    check "$lib has no text relocation on a real Xen library" \
        "$(readelf -d "$fakes/$lib" | grep NEEDED | grep -o '\[libxen[^]]*' |
            grep -vE 'libxen(toolcore|evtchn|gnttab|store)' || true)"
done

# of libxenctrl, whose interface is no stable one, the fake has what is called and no more
real=$(ldconfig -p | awk '$1 == "libxenctrl.so.4.17" { print $NF; exit }')
check "the fake libxenctrl has its soname" \
    "$(readelf -d "$fakes/libxenctrl.so.4.17" | grep -q "soname: \[libxenctrl.so.4.17\]" ||
        echo "another soname")"
check "the fake libxenctrl offers nothing that the real one does not" \
    "$(comm -13 <(defined "$real") <(defined "$fakes/libxenctrl.so.4.17"))"
libraries="$libraries libxenctrl.so.4.17"

offered=$(for lib in $libraries; do defined "$fakes/$lib"; done)
programs=
for name in xl-vtpmd vtpm-backend xl-vtpm; do
    for dir in "$builddir" "$builddir/libxl-vtpm" "$builddir/backend"; do
        for file in "$dir/.libs/$name" "$dir/$name"; do
            if [ -f "$file" ] && file -bL "$file" | grep -q ELF; then
                programs="$programs $file"
                continue 3
            fi
        done
    done
done
for program in $programs; do
    missing=$(comm -23 <(wanted "$program" | grep -E '^(xs_|xenevtchn_|xengn|xentoolcore|xc_)' |
        sed 's/@/@@/' | sort -u) <(sort -u <<< "$offered"))
    check "${program##*/} finds all it calls" "$missing"
done
check "xl-vtpmd and vtpm-backend were looked at" \
    "$(case $programs in *vtpmd*vtpm-backend*) ;; *) echo "found only:$programs" ;; esac)"
echo "1..$n"
