# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Runs test steps and counts. A step that is no test (a build) counts as one
# test, so that a broken build can never look like "0 failed".
#
#   step NAME COMMAND...        one test: passes when COMMAND exits 0
#   automake_tests DIR [-jN]    `make check` in DIR; counts every TAP line of it
#   tap_tests NAME COMMAND...   counts the TAP lines that COMMAND prints; fails too
#                               when it exits non-zero or runs not what it planned
#   finish                      prints what failed, with what the test said of it, and
#                               "N passed, N failed"; exits accordingly
what_failed=
passed=0
failed=0
skipped=0

say() { printf '\n== %s (after %u s)\n' "$*" "$SECONDS"; }

# failure TEXT: said now, and by finish again; each of its lines starts with "FAILED: ".
failure() {
    sed 's/^/FAILED: /' <<<"$1"
    what_failed+=$1$'\n'
}

# Of a file in TAP: what is not ok, the lines of diagnosis after it, and before it what cmocka's
# fail_msg() said, which is not in TAP.
not_ok() {
    awk '/^ERROR: / { said = said $0 "\n" }
         /^not ok/ { n = 12; printf "%s", said }
         /^(not )?ok/ { said = "" }
         /^(ok|PASS)/ { n = 0 }
         n-- > 0' "$@" | cut -c 1-300
}

in_dir() { (cd "$1" && shift && "$@"); }

step() {
    local name=$1
    shift
    say "$name"
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failure "$name: $*"
        return 1
    fi
}

automake_tests() {
    local dir=$1 out
    shift
    out=$(mktemp)
    # Without -j automake builds the test programs one by one; one that does not build fails below.
    say "build the tests in $dir"
    make -C "$dir" -k -j"$(nproc)" check TESTS= >/dev/null 2>&1
    say "make check in $dir"
    make -C "$dir" -k check "$@" 2>&1 | tee "$out"
    local status=${PIPESTATUS[0]} p f s name log last=
    # the summary that automake's test harness prints, summed over its runs
    p=$(awk '/^# (PASS|XFAIL):/ { n += $3 } END { print n + 0 }' "$out")
    f=$(awk '/^# (FAIL|XPASS|ERROR):/ { n += $3 } END { print n + 0 }' "$out")
    s=$(awk '/^# SKIP:/ { n += $3 } END { print n + 0 }' "$out")
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        failed=$((failed + 1))
        failure "make check in $dir exited $status"
    fi
    if [ "$p" = 0 ]; then
        failed=$((failed + 1))
        failure "make check in $dir ran no test"
    fi
    if [ "$f" != 0 ] && [ -f "$dir/test-suite.log" ]; then
        tail -n 400 "$dir/test-suite.log"
    fi
    while read -r name; do
        failure "$dir: $name"
        log=$dir/${name#*: }
        log=${log%% *}
        log=${log%.sh}.log
        [ ! -f "$log" ] || [ "$log" = "$last" ] || failure "$(not_ok "$log")"
        last=$log
    done < <(sed -nE '/^(FAIL|XPASS|ERROR): /p' "$out" | awk '!seen[$0]++')
    rm -f "$out"
}

tap_tests() {
    local name=$1 out
    shift
    out=$(mktemp)
    say "$name"
    "$@" | tee "$out"
    local status=${PIPESTATUS[0]} p f plan
    p=$(grep -c '^ok ' "$out")
    f=$(grep -c '^not ok ' "$out")
    plan=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$out" | awk '{ n += $1 } END { print n + 0 }')
    passed=$((passed + p))
    failed=$((failed + f))
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        failed=$((failed + 1))
        failure "$name exited $status"
    fi
    [ "$f" = 0 ] || failure "$name"$'\n'"$(not_ok "$out")"
    if [ "$plan" = 0 ] || [ "$plan" != $((p + f)) ]; then
        failed=$((failed + 1))
        failure "$name planned $plan tests and ran $((p + f))"
    fi
    rm -f "$out"
}

finish() {
    echo
    printf %s "$what_failed" | sed 's/^/FAILED: /'
    [ "$skipped" = 0 ] || echo "$skipped skipped (reasons above)"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
    exit
}
