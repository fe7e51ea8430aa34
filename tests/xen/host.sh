# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# host.sh - what run, demo, shell and images.sh share on the host: messages,
# checks of the tools, the tree to test, and starting QEMU with Xen in it.
#
# A run owns one directory:
#
#   share/            9p share, /share in dom0: the only way in and out
#     harness/        a copy of tests/xen, so that editing it does not disturb
#                     a run that is under way
#     config          shell variables for dom0/init: MODE, XENSTORED, SCENARIOS …
#     tree.tar        the installed tree to test
#     debs/           Debian packages (make deb); next/: the same in a higher version
#     guest.cpio      our guest/ files, appended to the cached initramfs
#     ask-guest       dom0's end of the channel to the guests' agent
#     jail            tries in a backend's place what is forbidden there
#     results/        what comes back
#   disk.qcow2        this run's overlay on dom0's disk
#   serial.log        Xen's and dom0's console
#   peer/             the same again, for the other host of "# needs: peer"

xen_tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s\n' "$*" >&2; }
die() {
    say "tests/xen: $*"
    exit 2
}

# need COMMAND:PACKAGE... - all missing ones are named in one go.
need() {
    local entry missing=()
    for entry in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
    done
    [[ ${#missing[@]} -eq 0 ]] ||
        die "missing here; on Debian: apt-get install $(printf '%s\n' "${missing[@]}" | sort -u | paste -sd' ')"
}

need_for_runs() {
    need qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils cpio:cpio \
        gcc:gcc openssl:openssl tar:tar
}

# parse_tree_options ARGS… - what demo and shell take: sets tree, bare, xenstored.
parse_tree_options() {
    tree='' bare='' xenstored=oxenstored
    while [[ $# -gt 0 ]]; do
        case $1 in
        --tree | --xenstored)
            [[ $# -ge 2 ]] || die "$1 wants a value"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --tree=*) tree=${1#*=} ;;
        --xenstored=*) xenstored=${1#*=} ;;
        --bare)
            # Whoever sources this uses it.
            # shellcheck disable=SC2034
            bare=1
            ;;
        *)
            sed -n '3,/^$/s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
        esac
        shift
    done
    [[ $xenstored == oxenstored || $xenstored == xenstored ]] ||
        die "--xenstored is oxenstored or xenstored"
}

# build_guest_side DIR SHARE - into SHARE: guest.cpio (guest/files, the agent and
# the program of ours that drives the TPM 1.2 through the TSS) and ask-guest.
# What speaks the channel is static: it serves whatever libc the images have.
build_guest_side() {
    local dir=$1 share=$2 channel=$xen_tests/channel
    local cc=(gcc -O1 -g -Wall -Wextra -Werror)
    mkdir -p "$dir"/usr/bin "$dir"/sbin
    cp -R "$xen_tests/guest/files/." "$dir/"
    {
        "${cc[@]}" -static -o "$dir/sbin/agent" "$channel"/{agent,channel}.c &&
            "${cc[@]}" -static -o "$share/ask-guest" "$channel"/{ask-guest,channel}.c &&
            "${cc[@]}" -o "$dir/usr/bin/tpm12-cert" "$xen_tests/guest/tpm12-cert.c" \
                -ltspi -lcrypto
    } || die "cannot compile the guests' programs (Debian: libtspi-dev, libssl-dev, libc6-dev)"
    (cd "$dir" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
        cpio --null --create --quiet --format=newc --owner=0:0) >"$share/guest.cpio"
}

# build_jail OUT WORK - who tries in a backend's place what is forbidden there: the product's own
# sandbox, with the real libraries of Xen.
build_jail() {
    local top=$xen_tests/../..
    mkdir -p "$2"
    printf '#define _GNU_SOURCE 1\n' >"$2/config.h"
    gcc -std=gnu11 -O1 -g -Wall -Wextra -Werror -I"$2" -I"$top" -o "$1" "$xen_tests/jail/jail.c" \
        "$top"/backend/{port,sandbox,sandbox-filter,sandbox-proof}.c "$top"/common/*.c \
        -lxenevtchn -lxengnttab -lxenstore -lxentoolcore -lxentoollog -lseccomp -luuid ||
        die "cannot compile jail.c (./bootstrap installs what it needs)"
}

# prepare_tree TREE OUT.tar - an installed tree (make install DESTDIR=…).
prepare_tree() {
    [[ -d $1/usr ]] || die "$1 is no installed tree: it has no usr/ (make install DESTDIR=$1)"
    tar --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .
}

# prepare_debs DEBS SHARE - the packages, and beside them the same as a higher version
# whose programs are other files: what stands behind the end of an ELF changes nothing.
prepare_debs() {
    local deb dir=$2/debs work=$2/debs/work program
    mkdir -p "$dir/next"
    for deb in "$1"/{xl-vtpm,libxlvtpm1}_*.deb; do
        [[ -e $deb ]] || die "no packages in $1 (make deb)"
        cp "$deb" "$dir/"
        rm -rf "$work"
        dpkg-deb -R "$deb" "$work"
        for program in "$work"/usr/sbin/* "$work"/usr/libexec/*/*; do
            [[ ! -e $program ]] || printf 'another build' >>"$program"
        done
        sed -i 's/^Version: .*/&+next/' "$work/DEBIAN/control"
        dpkg-deb --root-owner-group -Znone -b "$work" "$dir/next" >/dev/null
    done
    rm -rf "$work"
}

# install_tree DIR - where no tree is given: install the build's own.
install_tree() {
    local build=${XL_VTPM_BUILD:-$xen_tests/../..}
    [[ -e $build/Makefile ]] ||
        die "no tree given (--tree DIR) and nothing configured in $build (./bootstrap; or XL_VTPM_BUILD=DIR)"
    say "installing the build in $(cd "$build" && pwd) into a tree to test"
    make -C "$build" --no-print-directory -j"$(nproc)" install DESTDIR="$1" >"$1.log" 2>&1 || {
        tail -n 30 "$1.log" >&2
        die "make install failed"
    }
}

# prepare_run RUNDIR TREE [PACKAGE…] - all that dom0 will find on its share but config.
# An empty TREE boots bare Xen; PACKAGEs are what its disk has beyond the usual.
prepare_run() {
    local run=$1 tree=$2
    images=$("$xen_tests/images.sh" "${@:3}") || exit 2
    mkdir -p "$run/share/results" "$run/share/harness"
    cp -R "$xen_tests"/{dom0,scenarios,tap.sh} "$run/share/harness/"
    build_guest_side "$run/guest-files" "$run/share"
    build_jail "$run/share/jail" "$run/jail-config"
    if [[ -n $tree ]]; then
        prepare_tree "$tree" "$run/share/tree.tar"
    fi
    qemu-img create -q -f qcow2 -F raw -b "$images/dom0.img" "$run/disk.qcow2"
}

# qemu_command RUNDIR SERIAL - in the array qemu: Xen and dom0 under TCG.
#
# What is masked from the CPU is what TCG gets wrong for Xen: with SMAP dom0
# dies at once, with RDTSCP PVH guests die, with XSAVE/AVX registers leak
# between busy domains. Runs check that last one all along (dom0/checksums).
qemu_command() {
    local run=$1 serial=$2
    # Used by whoever sources this; the commas are QEMU's.
    # shellcheck disable=SC2034,SC2054
    qemu=(
        qemu-system-x86_64 -nodefaults -no-user-config
        -machine pc,accel=tcg -smp 2 -m "${XL_VTPM_XEN_MEMORY:-3072}"
        -cpu "max,-smap,-smep,-rdtscp,-xsave,-avx,-avx2,-f16c,-fma"
        -display none -no-reboot
        -kernel "$images/xen"
        -append "console=com1 com1=115200,8n1 dom0_mem=1024M,max:1024M"
        -initrd "$images/vmlinux console=hvc0 root=/dev/vda rw loglevel=5 panic=5,$images/dom0.cpio"
        # Nothing here outlives the run but the results: no flush needs waiting for.
        -drive "if=virtio,format=qcow2,file=$run/disk.qcow2,cache=unsafe"
        -virtfs "local,path=$run/share,mount_tag=share,security_model=none,multidevs=remap"
        -device virtio-rng-pci
        -serial "$serial"
    )
}

# link_qemu SOCKET server|client - adds to the array qemu a network of two hosts. The server's
# socket must be there before the client starts.
link_qemu() {
    local server=off mac=52:54:00:00:00:02
    [[ $2 == client ]] || server=on mac=52:54:00:00:00:01
    # Behind dom0's own disk, which must be the first.
    # shellcheck disable=SC2054
    qemu+=(
        -netdev "stream,id=link,server=$server,addr.type=unix,addr.path=$1"
        -device "virtio-net-pci,netdev=link,mac=$mac,romfile=,addr=0x1b"
    )
}
