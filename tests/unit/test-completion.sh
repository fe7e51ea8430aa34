#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# completions/xl-vtpm: what bash offers at a point of a command line. TAP.
set -u

build=$(cd "${top_builddir:-.}" && pwd)
src=$(cd "${top_srcdir:-.}" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

. "$src/tests/lib/xl-vtpm.sh"
. "$src/completions/xl-vtpm"

cat >"$dir/conf" <<END
state-dir = $dir/state
run-dir = $dir/run
END
mkdir -p "$dir/run" "$dir/bin"
U=dcdb124b-9fed-4040-b149-dd2dfd8d094c
run create "$U"
ok "there is an instance" code 0
# as it is called at a prompt: by its name, with the configuration where it is looked for
printf '#!/bin/sh\nexec %s -c %s "$@"\n' "$build/libxl-vtpm/xl-vtpm" "$dir/conf" >"$dir/bin/xl-vtpm"
printf '#!/bin/sh\nprintf "Name ID\\nDomain-0 0\\nweb 1\\n"\n' >"$dir/bin/xl"
chmod +x "$dir/bin/xl-vtpm" "$dir/bin/xl"
PATH=$dir/bin:$PATH

offers() { # WORDS… - the last is the one that is being written
    COMP_WORDS=(xl-vtpm "$@")
    COMP_CWORD=$#
    COMPREPLY=()
    _xl_vtpm
    printf '%s\n' "${COMPREPLY[@]}" | sort
}
line() { grep -qx -- "$2" <<<"$1" || { echo "'$2' is not in: $1"; false; }; }
no_line() { ! line "$@"; }

all=$(offers '')
for command in $("$build/libxl-vtpm/xl-vtpm" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'); do
    ok "command $command is offered" line "$all" "$command"
done
ok "and no option with them" no_line "$all" --json
ok "commands by their beginning" is "$(offers meas | xargs)" "measure measured"
ok "a command's options" line "$(offers measure --)" --default
ok "and those of all" line "$(offers measure --)" --json
ok "not another's" no_line "$(offers measure --)" --reset
ok "the words of a command" is "$(offers ca '' | xargs)" "export init show"
ok "an option's values" is "$(offers create --tpm-version '' | xargs)" "1.2 2.0"
ok "the uuids of instances" is "$(offers show '')" "$U"
ok "also after options" is "$(offers --json show dcdb)" "$U"
ok "uuids and domains" is "$(offers bind '' | xargs)" "Domain-0 $U web"
ok "files" line "$(cd "$dir" && offers check '')" conf
ok "an option is no word, also where it has to be given" is "$(offers measure '')" "$U"
V=0b54a1d9-8e54-4c3e-a0a2-6c6c77b2ea6e
run create "$V"
run delete --yes "$V"
ok "not of deleted ones" is "$(offers delete '')" "$U"
ok "but where these are meant" is "$(offers undelete '')" "$V"
ok "of them alone" is "$(offers purge --yes '')" "$V"
ok "an unknown command has nothing" is "$(offers dance '')" ""
echo "1..$n"
