#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the backend's own code executes for one TPM command, in instructions, is what
# bench/instructions.expected says, within 10 %: a count, the same on any machine and under any
# load, that tells what a change costs. Code of libtpms, libcrypto and libc does not count.
#
#   bench/instructions.sh            TAP: a test for each command
#   bench/instructions.sh --record   writes what it counts into bench/instructions.expected
#
# Callgrind counts; the counts are those of one compiler, named in the second line.
set -u
source_dir=$(cd "${top_srcdir:-$(dirname "$0")/..}" && pwd)
build=$(cd "${top_builddir:-.}" && pwd)
expected=$source_dir/bench/instructions.expected
rounds=64    # as in instructions.c
tolerance=10 # per cent
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

of=$(sed -n 2p "$expected")
compiler=$("$build/bench/instructions" --compiler) || {
    echo "Bail out! no bench/instructions in $build: make check builds it"
    exit 1
}
if [ "${1-}" != --record ] && [ "$compiler" != "$of" ]; then
    echo "1..0 # SKIP the counts are those of $of, this build is $compiler's"
    exit 0
fi

cd "$work" || exit 1
# libtool's wrapper is a script; what is to be counted is the program.
"$build/libtool" --mode=execute valgrind --tool=callgrind --instr-atstart=no --collect-atstart=no \
    --dump-line=no --compress-strings=no --compress-pos=no --callgrind-out-file=out \
    "$build/bench/instructions" >log 2>&1 || {
    sed 's/^/# /' log
    echo "Bail out! bench/instructions failed under valgrind"
    exit 1
}

# Each dump: "desc: Trigger: Client Request: NAME", then for each function its file, and its
# costs, each after the file it was inlined from; the line after calls= is the callee's cost.
awk -v rounds=$rounds '
    FNR == 1 { name = "" }
    sub(/^desc: Trigger: Client Request: /, "") { name = $0; next }
    /^f[lie]=/ { ours = $0 ~ /(^f[lie]=|\/)(backend|common)\/[^\/]*\.[ch]$/; next }
    /^calls=/ { skip = 1; next }
    /^[0-9+*-]/ { if (!skip && ours) sum[name] += $2; skip = 0 }
    END { for (n in sum) if (n != "") printf "%s\t%d\n", n, sum[n] / rounds }
' out.* | LC_ALL=C sort >counts

if [ "${1-}" = --record ]; then
    { sed -n 2p "$source_dir/bench/instructions.sh" && echo "$compiler" && cat counts; } >"$expected"
    cat "$expected"
    exit 0
fi
number=0
while IFS=$'\t' read -r name count; do
    number=$((number + 1))
    found=$(awk -F'\t' -v name="$name" '$1 == name { print $2 }' counts)
    if [ -n "$found" ] && [ $((found * 100)) -le $((count * (100 + tolerance))) ] &&
        [ $((found * 100)) -ge $((count * (100 - tolerance))) ]; then
        echo "ok $number - $name: $found instructions of ours"
    else
        echo "not ok $number - $name: $found instructions of ours, expected $count"
        echo "# if that is as it should be: bench/instructions.sh --record, and say why in the commit"
    fi
done < <(tail -n +3 "$expected")
echo "1..$number"
