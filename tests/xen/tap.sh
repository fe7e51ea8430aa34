# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tap.sh - test results, as scenarios in dom0 and their host halves say them.
# Lines go unnumbered to $tap_file; whoever streams them to the user numbers
# them, as several writers share one stream.

# shellcheck disable=SC2154 # tap_file, logs: set by whoever sources this

pass() { printf 'ok - %s\n' "$*" >>"$tap_file"; }

# fail TEST [REASON…] - reasons become comments, a line each.
fail() {
    local test=$1
    shift
    {
        printf 'not ok - %s\n' "$test"
        [[ $# -eq 0 ]] || printf '%s\n' "$@" | sed 's/^/#   /'
    } >>"$tap_file"
    # Marks the scenario, so that its logs are shown.
    [[ -z ${logs:-} ]] || : >"$logs/failed"
}

note() { printf '# %s\n' "$*" >>"$tap_file"; }

# is TEST GOT WANTED
is() {
    if [[ $2 == "$3" ]]; then
        pass "$1"
    else
        fail "$1" "got:    $2" "wanted: $3"
    fi
}

isnt() {
    if [[ $2 != "$3" ]]; then
        pass "$1"
    else
        fail "$1" "got, but must not be: $2"
    fi
}

# like TEST GOT REGEX - extended, case-insensitive
like() {
    if grep -qiE -- "$3" <<<"$2"; then
        pass "$1"
    else
        fail "$1" "got:" "$(tail -n 20 <<<"$2")" "wanted a match of: $3"
    fi
}

unlike() {
    local found
    if found=$(grep -iE -- "$3" <<<"$2"); then
        fail "$1" "must not be there:" "$(head -n 20 <<<"$found")"
    else
        pass "$1"
    fi
}

# at_most TEST SECONDS LIMIT - both may have decimals
at_most() {
    if awk -v a="$2" -v b="$3" 'BEGIN { exit !(a <= b) }'; then
        pass "$1 ($2 s, at most $3 s)"
    else
        fail "$1" "took $2 s, may take $3 s"
    fi
}

# succeeds TEST COMMAND… / fails TEST COMMAND… - in this shell: what COMMAND sets stays set
tap_said=''
succeeds() {
    local test=$1 status=0
    shift
    tap_said=${tap_said:-$(mktemp)}
    "$@" >"$tap_said" 2>&1 || status=$?
    if [[ $status -eq 0 ]]; then
        pass "$test"
    else
        fail "$test" "'$*' ended with status $status:" "$(tail -n 20 "$tap_said")"
    fi
}

fails() {
    local test=$1
    shift
    tap_said=${tap_said:-$(mktemp)}
    if "$@" >"$tap_said" 2>&1; then
        fail "$test" "'$*' succeeded:" "$(tail -n 20 "$tap_said")"
    else
        pass "$test"
    fi
}
