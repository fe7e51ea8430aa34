#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# xl-vtpm and a daemon whose answers are not what they should be, as one of another version's may
# be: each command ends with a sentence, none by a signal. TAP.
set -u

build=$(cd "${top_builddir:-.}" && pwd)
src=$(cd "${top_srcdir:-.}" && pwd)
dir=$(mktemp -d)
trap 'let_go 2>/dev/null; rm -rf "$dir"' EXIT

. "$src/tests/lib/xl-vtpm.sh"

host_conf
U=dcdb124b-9fed-4040-b149-dd2dfd8d094c
run --offline create "$U"
ok "there is an instance" code 0

# Answers each request with what $dir/answer has then.
cat >"$dir/daemon" <<'END'
import select, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1])
s.listen(8)
print("listening", flush=True)
while s in select.select([s, sys.stdin], [], [])[0]:
    c = s.accept()[0]
    try:
        while c.recv(1 << 16):
            with open(sys.argv[2], "rb") as f:
                c.send(b"." + f.read())
    except OSError:
        pass
    c.close()
END
touch "$dir/answer"
stays python3 "$dir/daemon" "$dir/run/control.sock" "$dir/answer"

crumbs="number:1,uuid:\"$U\",tpm_version:\"2.0\",life:\"ready\""
answers=(
    '[]' '7' '{}' '{"ok":1}' '{"ok":false}' '{"ok":false,"code":null}'
    '{"ok":false,"code":[],"error":""}' '{"ok":false,"code":"odd","errno":"x","error":7}'
)
for result in null '[]' '{}' '"x"' 7 '[null]' '[7]' '[[]]' \
    "$(jq -nc "{$crumbs,bindings:3,suspended:\"x\",device:7,endorsement:5,handover:[],latency:4}")" \
    "$(jq -nc "[{$crumbs,device:[],bindings:{},latency:{buckets:[7]},durable_latency:7}]")" \
    "$(jq -nc "{$crumbs,endorsement:[7,{}],bindings:[7,[]],device:{domid:{}}}")" \
    "$(jq -nc "{refusals:7,devices:null,rule:7,instance:7}")" \
    "$(jq -nc "{refusals:[7],rule:\"uuid\",instance:{number:[]}}")"; do
    answers+=('{"ok":true,"result":'"$result"'}')
done
cat >"$dir/web.cfg" <<END
name = "web"
vtpm = [ 'backend=0,uuid=$U' ]
END
commands=(
    list "list --deleted" "list --json" "show 1" "show --json $U" stats "stats --prometheus" "stats 1"
    create "bind web 1" "unbind web" "release 1" "accept --reset 1" "label 1 x" "delete --yes 1"
    "undelete 1" "purge --yes 1" "purge --expired" "measure --on 1" "measured 1" "pcrs 1"
    "recover 1" "recover --use-slot 0 --yes 1" "ek-cert 1" "ek-cert --csr 1" status doctor "check $dir/web.cfg"
    "export --swtpm 1 $dir/exported" "clear --yes 1" "reset --yes 1" "clone --keep-identity 1"
    "share 1" "unshare 1" rekey "backup $dir/backup"
)
ended=0 silent=0
for answer in "${answers[@]}"; do
    printf %s "$answer" >"$dir/answer"
    for command in "${commands[@]}"; do
        # shellcheck disable=SC2086
        timeout 20 "$build/libxl-vtpm/xl-vtpm" -c "$dir/conf" $command >"$dir/out" 2>"$dir/err" </dev/null
        heard $?
        rm -rf "$dir/backup" "$dir/exported"
        if [ "$code" -ge 124 ]; then
            ended=$((ended + 1))
            echo "# $command: status $code where the answer is $answer"
            sed 's/^/#     /' "$dir/err"
        elif [ "$code" != 0 ] && [ -z "$err$out" ]; then
            silent=$((silent + 1))
            echo "# $command: status $code and not a word where the answer is $answer"
        fi
    done
    # the library, in another program
    "$build/examples/vtpm-of" "backend=0,uuid=$U" web "$dir/conf" >"$dir/out" 2>&1
    heard $?
    [ "$code" -lt 124 ] || { ended=$((ended + 1)); echo "# vtpm-of: status $code where the answer is $answer"; }
done
ok "no command is ended by an answer" is "$ended" 0
ok "none fails without a sentence" is "$silent" 0
printf '{"ok":true,"result":7}' >"$dir/answer"
for command in "list" "show 1" "status" "stats"; do
    # shellcheck disable=SC2086
    run $command
    ok "$command says what is wrong" has "$code$err" "not one we understand; where it is of another version"
done
printf '{"ok":false,"code":"in use","error":""}' >"$dir/answer"
run show 1
ok "a refusal without a sentence has that of its code" has "$code$err" "4xl-vtpm: in use"
let_go
rm -f "$dir/run/control.sock"
run show 1
ok "nothing was changed" is "$code/$(field '' 2>/dev/null; grep -c ' new' "$dir/out")" 0/1

echo "1..$n"
