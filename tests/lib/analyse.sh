#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# clang's static analyser and cppcheck over the programs and the fuzzing harnesses; any finding is a
# failure.
#
#   tests/lib/analyse.sh [BUILD]    a configured build directory, for its config.h; build
#
# Left out, with reasons:
#   leaks            neither knows __attribute__((cleanup)), which is what frees here; builds with
#                    sanitizers look for leaks in every test
#   dead stores      `fd = -1` tells that cleanup not to close: the same
#   autoVariables    xl-vtpm.c lends its settings to what it calls
set -u
cd "$(dirname "$0")/../.." || exit 2
build=${1-build}
[ -f "$build/config.h" ] || { echo "analyse.sh: $build is not a configured build" >&2; exit 2; }
out=$(mktemp)
trap 'rm -f "$out"' EXIT
mapfile -t files < <(git ls-files 'backend/*.c' 'common/*.c' 'libxl-vtpm/*.c' 'fuzz/*.c')
read -ra flags < <(pkg-config --cflags json-c sqlite3 libsystemd libtpms uuid libseccomp xenlight libxml-2.0 |
    tr '\n' ' ')
flags+=(-std=gnu11 -I. -I"$build" -DHAVE_CONFIG_H '-DXLV_SYSCONFDIR="/etc"'
    '-DXLV_LOCALSTATEDIR="/var"' '-DXLV_RUNSTATEDIR="/run"' '-DXLV_LIBEXECDIR="/usr/libexec"')

printf '%s\0' "${files[@]}" | xargs -0 -P"$(nproc)" -n1 clang --analyze --analyzer-output text \
    -Xclang -analyzer-disable-checker=deadcode.DeadStores \
    -Xclang -analyzer-disable-checker=security.insecureAPI.DeprecatedOrUnsafeBufferHandling \
    -Wno-unused-command-line-argument -o /dev/null "${flags[@]}" >"$out" 2>&1 || {
    cat "$out"
    exit 1
}
found=$(grep -E 'warning:|error:' "$out" | grep -vE 'Potential (leak of memory|memory leak)')
if [ -n "$found" ]; then
    cat "$out"
    printf '\n%s\n' "$found"
    exit 1
fi
# json-c's own is of GNU C; that it is a loop does not matter here
echo '#define json_object_object_foreach(o, k, v) char *k = 0; struct json_object *v = 0; if (k)' >"$out"
cppcheck -j"$(nproc)" --quiet --std=c11 --enable=warning,performance,portability \
    --error-exitcode=1 --suppress=missingIncludeSystem --suppress=memleak \
    --suppress=autoVariables:libxl-vtpm/xl-vtpm.c \
    --include="$out" \
    -I. -I"$build" -DHAVE_CONFIG_H "${files[@]}" || exit 1
echo "${#files[@]} files: clean"
