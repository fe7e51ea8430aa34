#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every target over its corpus: the seeds, and each input that found something once.
set -u
src=${top_srcdir:-.}/fuzz
build=${top_builddir:-.}/fuzz
n=0
echo "1..$(find "$src/corpus" -mindepth 1 -maxdepth 1 -type d | wc -l)"
for corpus in "$src"/corpus/*/; do
    target=$(basename "$corpus")
    n=$((n + 1))
    if out=$("$build/fuzz-$target" "$corpus" 2>&1); then
        echo "ok $n - $target: ${out##*$'\n'}"
    else
        echo "not ok $n - $target"
        printf '%s\n' "$out" | tail -n 40 | sed 's/^/# /'
    fi
done
