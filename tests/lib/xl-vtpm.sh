# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# xl-vtpm from the outside, in TAP: runs the command on the configuration
# $dir/conf, keeps what it said, and judges it. $build and $dir are the test's.
#
#   ok NAME CONDITION...   one test
#   run ARGUMENT...        leaves $code, $out, $err and the files out and err in $dir
#   is, has, code, field   conditions and what they ask for
#   host_conf      $dir/conf of a host that is in $dir, with the backend of this build
#   stays, let_go          another program that is there for a while
#   hold                   a store that is in use, until let_go
#   run_amid FILE ARGUMENT...   runs, and lets go as soon as the command has FILE open
n=0
host_conf() {
    cat >"$dir/conf" <<END
state-dir = $dir/state
run-dir = $dir/run
backend-program = $build/vtpm-backend
backend-user =
END
    mkdir -p "$dir/run/journal"
}
ok() { # ok NAME CONDITION...
    local name=$1
    shift
    n=$((n + 1))
    if "$@" >"$dir/why" 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$dir/why"
        echo "#   failed: $*"
        echo "#   code $code, stdout:"
        sed 's/^/#     /' "$dir/out"
        echo "#   stderr:"
        sed 's/^/#     /' "$dir/err"
    fi
}

heard() { # CODE
    code=$1
    out=$(cat "$dir/out")
    err=$(cat "$dir/err")
}
run() {
    "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    heard $?
}
is() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; false; }; }
has() { case $1 in *"$2"*) ;; *) echo "'$2' is not in it"; false ;; esac; }
code() { is "$code" "$1"; }
field() { jq -r "$1" "$dir/out"; }
# stays PROGRAM ARGUMENT...: it is there, as its first line says, until let_go closes its stdin
stayer=
stays() {
    mkfifo "$dir/stay" "$dir/said"
    "$@" <"$dir/stay" >"$dir/said" &
    stayer=$!
    exec 7>"$dir/stay"
    read -r _ <"$dir/said"
    rm -f "$dir/stay" "$dir/said"
}
# shellcheck disable=SC2317 # also run by traps
let_go() {
    [ -n "$stayer" ] || return 0
    exec 7>&-
    wait "$stayer"
    stayer=
}
# hold DIRECTORY UUID KEYFILE: somebody has the store
hold() { stays "$build/tests/unit/state" hold "$@"; }
run_amid() {
    local file=$1
    shift
    "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" "$@" >"$dir/out" 2>"$dir/err" </dev/null 7>&- &
    # until it has it or is over
    while [ -n "$(readlink /proc/$!/exe)" ] &&
        [ -z "$(find /proc/$!/fd -lname "$file" -print -quit 2>/dev/null)" ]; do :; done
    let_go
    wait $!
    heard $?
}
