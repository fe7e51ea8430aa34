#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# valgrind's memcheck, which sees what the sanitizers of clang's build do not: memory that was never
# written, and all of that inside libtpms and libcrypto, which are Debian's own.
#
#   tests/lib/memcheck.sh BUILD     a build without sanitizers, after `make check TESTS=`
#
# It runs every fuzz target over its corpus (a whole session with libtpms, journal and store among
# them), the unit tests of what handles bytes, and those integration tests in which a guest does its
# worst, or a process or the daemon dies, with the daemon and all backends in valgrind: about five
# minutes.
#
# Those backends have no sandbox, whose filter of system calls has no room for valgrind, and that
# daemon has pipes in the place of pidfds, of which Debian's valgrind knows nothing; they are
# otherwise the same (tests/integration/no-sandbox.c, no-pidfd.c). With the sanitizers all
# integration tests run.
set -u
top=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
build=$(cd "$1" && pwd) || exit 2
export top_builddir=$build top_srcdir=$top
tests=(journal ring command measure control)
integration=(
    'hostile a_page_that_never_stands_still'
    'hostile requests_that_are_none'
    'hostile submit_and_cancel_for_ever'
    'hostile rings_that_move_while_a_command_runs'
    'hostile nodes_that_change_all_the_time'
    'hostile nodes_of_a_megabyte'
    'states a_boot_goes_on_where_the_key_changed_without_its_backend'
    'states pcrs_are_told_amid_commands_and_commits'
)

n=0
failed=0
echo "1..$((${#tests[@]} + ${#integration[@]} + $(find "$top/fuzz/corpus" -mindepth 1 -maxdepth 1 -type d | wc -l)))"
check() { # NAME COMMAND...
    local out
    n=$((n + 1))
    if out=$("$build/libtool" --mode=execute valgrind -q --error-exitcode=99 --leak-check=full \
        --errors-for-leak-kinds=definite "${@:2}" 2>&1); then
        echo "ok $n - memcheck: $1"
    else
        echo "not ok $n - memcheck: $1"
        printf '%s\n' "$out" | tail -n 60 | sed 's/^/# /'
        failed=1
    fi
}
for test in "${tests[@]}"; do check "test-$test" "$build/tests/unit/test-$test"; done
for corpus in "$top"/fuzz/corpus/*/; do
    target=$(basename "$corpus")
    check "fuzz/$target" "$build/fuzz/fuzz-$target" "$corpus"
done

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for program in daemon backend; do
    # any other kind of leak is one of no-pidfd.c's threads, at the daemon's end
    printf '#!/bin/sh\nexec valgrind -q --log-file="%s/%s-%%p" --leak-check=full %s "%s" "$@"\n' \
        "$dir" $program --show-leak-kinds=definite \
        "$build/tests/integration/$program-for-valgrind" >"$dir/$program"
    chmod +x "$dir/$program"
done
export XL_VTPMD=$dir/daemon VTPM_BACKEND=$dir/backend CMOCKA_MESSAGE_OUTPUT=TAP
# what /proc calls it
VTPM_BACKEND_EXE=$(find /usr/libexec/valgrind -name "memcheck-$(dpkg --print-architecture)-linux")
export VTPM_BACKEND_EXE
logs() { # daemon|backend|* [TEST...]
    find "$dir" -name "$1-[0-9]*" "${@:2}"
}
scene_check() { # TEST SCENE
    local out
    n=$((n + 1))
    logs '*' -delete
    if out=$("$build/tests/integration/test-$1" "$2" 2>&1) && grep -q '^ok 1 - ' <<<"$out" &&
        [ -n "$(logs daemon)" ] && [ -n "$(logs backend)" ] && [ -z "$(logs '*' -size +0)" ]; then
        echo "ok $n - memcheck of daemon and backends: test-$1 $2"
    else
        echo "not ok $n - memcheck of daemon and backends: test-$1 $2"
        { logs '*' -exec cat {} +; tail -n 40 <<<"$out"; } | head -n 100 | sed 's/^/# /'
        failed=1
    fi
}
for scene in "${integration[@]}"; do
    read -r test name <<<"$scene"
    scene_check "$test" "$name"
done
exit $failed
