#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# images.sh - make what a run needs to boot: Xen, a dom0, and the guests' tools.
#
#   tests/xen/images.sh [PACKAGE…]   build if needed; print the directory on stdout.
#                                    PACKAGEs: installed in dom0 beside those listed here
#
# What lands in the directory:
#
#   xen            Xen's ELF, gunzipped (QEMU's multiboot loader wants that)
#   vmlinux        the kernel, uncompressed: serves dom0 and every PV guest, and
#                  saves a slow decompression under TCG at each boot
#   dom0.cpio      initramfs that finds the root disk and switches to it
#   dom0.img       dom0's root, ext4, raw; runs put a throw-away overlay on it
#   guest.cpio     busybox, xen-tpmfront, tpm2-tools, trousers, tpm-tools; a run
#                  appends our own small guest/ files to it, so that editing
#                  those needs no rebuild here
#   versions       the package versions all this came from
#
# Everything comes from Debian packages, by the apt sources of this machine.
# The directory's name is a hash of its inputs (this script, two inits and the package
# versions), it is built aside and renamed into place, and nothing is ever
# changed in a finished one: concurrent runs can share it, and a half-built
# one is never taken for whole.
#
# XL_VTPM_XEN_CACHE   where the directories live
#                     (default ${XDG_CACHE_HOME:-$HOME/.cache}/libxl-vtpm/xen)
# XL_VTPM_XEN_REBUILD=1   build anew even if it is there

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/xen/host.sh
. "$here/host.sh"

xen_version=4.17

# Installed into dom0's root, with their dependencies.
dom0_packages=(
    "xen-utils-$xen_version" xenstore-utils kmod udev procps mount
    # what our programs link with
    libtpms0 libssl3 libsqlite3-0 libjson-c5 libseccomp2 libsystemd0 libkeyutils1
    # what the scenarios use; sysusers because a tree may bring its own user, cpio packs
    # a driver domain's initramfs
    jq sqlite3 strace systemd-standalone-sysusers cpio
    # the device model of HVM guests
    qemu-system-xen
    # the way from one host to another
    iproute2 socat
)

# Only unpacked: their programs and libraries are copied into the initramfs.
guest_packages=(
    busybox-static tpm2-tools libtss2-tcti-device0 trousers tpm-tools libtspi1
    libssl3 openssl xenstore-utils
)

# The programs to copy (with the libraries they need), from those.
guest_programs=(
    usr/bin/tpm2 usr/sbin/tcsd usr/sbin/tpm_takeownership usr/sbin/tpm_createek
    usr/sbin/tpm_getpubek usr/sbin/tpm_clear usr/sbin/tpm_setenable
    usr/sbin/tpm_setactive usr/sbin/tpm_nvdefine usr/sbin/tpm_nvwrite
    usr/sbin/tpm_nvread usr/sbin/tpm_nvinfo usr/sbin/tpm_version
    usr/sbin/tpm_selftest usr/bin/tpm_sealdata usr/bin/tpm_unsealdata usr/bin/openssl
    usr/bin/xenstore-read
)

# Loaded by name at run time, so no program's dependencies show them.
guest_libraries=(
    usr/lib/x86_64-linux-gnu/libtss2-tcti-device.so.0
    usr/lib/x86_64-linux-gnu/libtspi.so.1
    usr/lib/x86_64-linux-gnu/libcrypto.so.3
    lib/x86_64-linux-gnu/libgcc_s.so.1 # tcsd's threads end with it
)

dom0_initramfs_modules=(virtio_pci virtio_blk ext4)
dom0_modules=(
    virtio_pci virtio_blk ext4 9pnet_virtio 9p
    xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs xen-blkback loop virtio_net
)
guest_modules=(xen-tpmfront xen-blkfront)

# candidate PACKAGE - the version apt would install, or fail with a reason.
candidate() {
    local version
    version=$(LC_ALL=C apt-cache policy "$1" | sed -n 's/^  Candidate: //p')
    [[ -n $version && $version != "(none)" ]] ||
        die "apt knows no package '$1': run 'apt-get update' (Debian 12, section main)"
    printf '%s\n' "$version"
}

kernel_package() {
    LC_ALL=C apt-cache depends linux-image-amd64 |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n 1
}

# The inputs whose change must lead to new images, as text.
inputs() {
    local package
    cat "$here"/images.sh "$here"/dom0/{initramfs,image}-init | sha256sum
    printf 'arch %s\n' "$(dpkg --print-architecture)"
    for package in xen-hypervisor-$xen_version-amd64 "$(kernel_package)" \
        libxenmisc$xen_version libc6 "${dom0_packages[@]}" "${guest_packages[@]}"; do
        printf '%s %s\n' "$package" "$(candidate "$package")"
    done | sort -u
}

# The machine's own Debian sources, in the form mmdebstrap reads from stdin.
# Third-party sources are left out: nothing here may come from them.
apt_sources() {
    # apt, not the shell, fills these in.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | sed -n 's/^Debian|//p' | sort -u
}

mmdebstrap_quietly() {
    local log=$1
    shift
    apt_sources | mmdebstrap --quiet --mode=root --architectures=amd64 \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/i18n/*' \
        "$@" >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        die "mmdebstrap failed; its whole output: $log"
    }
}

# vmlinux_of VMLINUZ - the ELF inside Debian's bzImage: an xz stream. xz's magic
# may turn up by chance before it, so the first one that unpacks to an ELF wins.
vmlinux_of() {
    local at
    while read -r at; do
        # The kernel's own trailer follows the stream: xz complains, rightly.
        tail -c "+$((at + 1))" "$1" | xz -dc --single-stream 2>/dev/null >"$2" || true
        if [[ $(head -c 4 "$2" | od -An -tx1 | tr -d ' \n') == 7f454c46 ]]; then
            return 0
        fi
    done < <(LC_ALL=C grep -obaP '\xfd7zXZ\x00' "$1" | cut -d: -f1)
    die "no xz-compressed ELF in $1"
}

# modules_into ROOT TREE VERSION MODULE... - copy them and what they depend on,
# with an index for modprobe, and their load order in modules.load.
modules_into() {
    local root=$1 tree=$2 version=$3 module file
    shift 3
    mkdir -p "$root/lib/modules/$version"
    cp "$tree/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} \
        "$root/lib/modules/$version/"
    for module in "$@"; do
        modprobe -d "$tree" -S "$version" --show-depends "$module" ||
            die "the kernel package has no module '$module'"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' |
        while read -r file; do
            file=${file#"$tree"}
            mkdir -p "$root$(dirname "$file")"
            cp "$tree$file" "$root$file"
            printf '%s\n' "$file"
        done >"$root/lib/modules/$version/modules.load"
    depmod -b "$root" "$version"
}

# busybox_into ROOT BUSYBOX - and its usual names
busybox_into() {
    local applet
    mkdir -p "$1"/{bin,sbin,proc,sys,dev,run,tmp,root,etc,usr/bin,usr/sbin}
    cp "$2" "$1/bin/busybox"
    for applet in sh mount umount mkdir cat switch_root modprobe insmod sleep \
        echo ls dmesg poweroff printf; do
        ln -sf busybox "$1/bin/$applet"
    done
}

cpio_of() {
    (cd "$1" && find . -print0 | LC_ALL=C sort -z |
        cpio --null --create --quiet --format=newc --owner=0:0) >"$2"
}

build_kernel() { # in $work: xen, vmlinux, dom0.cpio, and tree/ with the modules
    local version deb
    mkdir -p debs tree
    (cd debs && apt-get download -qq -o APT::Sandbox::User=root \
        "$(kernel_package)=$(candidate "$(kernel_package)")" \
        "xen-hypervisor-$xen_version-amd64=$(candidate xen-hypervisor-$xen_version-amd64)") \
        >download.log 2>&1 || {
        cat download.log >&2
        die "apt-get download failed"
    }
    for deb in debs/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C tree --wildcards ./boot './lib/modules*' 2>/dev/null || true
    done
    version=$(basename "$(echo tree/lib/modules/*)")
    [[ -e tree/boot/vmlinuz-$version ]] || die "the kernel package holds no vmlinuz"
    gunzip <tree/boot/xen-$xen_version-amd64.gz >out/xen
    vmlinux_of "tree/boot/vmlinuz-$version" out/vmlinux
    depmod -b tree "$version"
    printf '%s\n' "$version" >kernel-version

    busybox_into dom0-initramfs "$(command -v busybox)"
    modules_into dom0-initramfs "$PWD/tree" "$version" "${dom0_initramfs_modules[@]}"
    install -D -m 755 "$here/dom0/initramfs-init" dom0-initramfs/init
    cpio_of dom0-initramfs out/dom0.cpio
}

build_dom0_root() {
    local IFS=,
    mmdebstrap_quietly "$PWD/dom0.log" --variant=essential \
        --include="${dom0_packages[*]}" '' "$PWD/dom0" -
}

build_guest_tree() {
    local IFS=,
    mmdebstrap_quietly "$PWD/guest.log" --variant=extract \
        --include="${guest_packages[*]}" '' "$PWD/guest-tree" -
}

finish_guest() {
    local tree=$PWD/guest-tree program library version
    version=$(<kernel-version)
    busybox_into guest "$tree/bin/busybox"
    modules_into guest "$PWD/tree" "$version" "${guest_modules[@]}"
    for program in "${guest_programs[@]}" "${guest_libraries[@]}"; do
        [[ -e $tree/$program ]] || die "guest tools: no $program in the packages"
        mkdir -p "guest/$(dirname "$program")"
        cp -L "$tree/$program" "guest/$program"
        # The packages' own loader says what they load from the packages.
        "$tree/lib64/ld-linux-x86-64.so.2" \
            --library-path "$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu" \
            --list "$tree/$program" | sed -n "s|^.* => \($tree/[^ ]*\) .*|\1|p"
    done | sort -u >guest-libraries
    mkdir -p guest/lib/x86_64-linux-gnu guest/lib64
    while read -r library; do
        cp -L "$library" guest/lib/x86_64-linux-gnu/
    done <guest-libraries
    cp -L "$tree/lib64/ld-linux-x86-64.so.2" guest/lib64/
    # tpm2 is one program under many names; scripts use those.
    find "$tree/usr/bin" -name 'tpm2_*' -type l -printf '%f\n' | while read -r program; do
        ln -sf tpm2 "guest/usr/bin/$program"
    done
    cp -L "$tree/etc/tcsd.conf" guest/etc/
    mkdir -p guest/etc/ssl
    cp -L "$tree/etc/ssl/openssl.cnf" guest/etc/ssl/
    cpio_of guest out/guest.cpio
}

finish_dom0() {
    local version
    version=$(<kernel-version)
    modules_into dom0 "$PWD/tree" "$version" "${dom0_modules[@]}"
    mkdir -p dom0/srv/guest dom0/share
    cp out/vmlinux out/guest.cpio dom0/srv/guest/
    # QEMU boots an HVM guest as a BIOS would: by the bzImage's own loader.
    cp "tree/boot/vmlinuz-$version" dom0/srv/guest/vmlinuz
    rm -rf dom0/var/cache/apt dom0/var/lib/apt/lists dom0/usr/share/doc
    printf 'xenfs /proc/xen xenfs defaults 0 0\n' >dom0/etc/fstab
    echo dom0 >dom0/etc/hostname
    install -D -m 755 "$here/dom0/image-init" dom0/sbin/xl-vtpm-test-init
    truncate -s 2G out/dom0.img
    mke2fs -q -F -t ext4 -L dom0 -E lazy_itable_init=1 -J size=32 -d dom0 out/dom0.img
}

main() {
    dom0_packages+=("$@")
    # it brings the same program, and does not go with that package
    if [[ " $* " == *" systemd "* ]]; then
        mapfile -t dom0_packages < <(printf '%s\n' "${dom0_packages[@]}" |
            grep -v '^systemd-standalone-sysusers$')
    fi
    local cache key dir work started=$SECONDS
    need apt-get:apt apt-cache:apt mmdebstrap:mmdebstrap mke2fs:e2fsprogs \
        cpio:cpio xz:xz-utils depmod:kmod modprobe:kmod busybox:busybox-static \
        flock:util-linux dpkg-deb:dpkg
    [[ $(dpkg --print-architecture) == amd64 ]] || die "amd64 only"

    cache=${XL_VTPM_XEN_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/libxl-vtpm/xen}
    key=$(inputs | sha256sum | cut -c1-16)
    dir=$cache/$key
    if [[ -e $dir/versions && -z ${XL_VTPM_XEN_REBUILD:-} ]]; then
        touch "$dir/versions"
        printf '%s\n' "$dir"
        return
    fi
    [[ $EUID -eq 0 ]] || die "building the images needs root (device nodes, file owners)"

    mkdir -p "$cache"
    # One builder at a time; the second finds the first one's work.
    exec 9>"$cache/lock"
    flock 9
    if [[ -e $dir/versions && -z ${XL_VTPM_XEN_REBUILD:-} ]]; then
        printf '%s\n' "$dir"
        return
    fi
    say "building the Xen images in $dir (once; about a minute)"
    work=$cache/.building
    rm -rf --one-file-system "$work"
    mkdir -p "$work/out"
    cd "$work"

    say "  unpacking Xen and the kernel, dom0's userland, the guests' tools"
    local pids=() pid
    build_dom0_root &
    pids+=($!)
    build_guest_tree &
    pids+=($!)
    build_kernel &
    pids+=($!)
    for pid in "${pids[@]}"; do
        wait "$pid" || {
            kill "${pids[@]}" 2>/dev/null || true
            die "building the images failed (what is left: $work)"
        }
    done
    say "  [$((SECONDS - started)) s] packing the guest's initramfs"
    finish_guest
    say "  [$((SECONDS - started)) s] packing dom0's disk"
    finish_dom0
    inputs >out/versions

    rm -rf "$dir"
    mv out "$dir"
    cd "$cache"
    # Those of older inputs, unless a run of the last days used them.
    find . -mindepth 2 -maxdepth 2 -name versions ! -path "./$key/*" -mtime +2 \
        -printf '%h\0' | xargs -0 -r rm -rf --one-file-system
    rm -rf --one-file-system "$work"
    say "  done in $((SECONDS - started)) s, $(du -sh "$dir" | cut -f1)"
    printf '%s\n' "$dir"
}

main "$@"
