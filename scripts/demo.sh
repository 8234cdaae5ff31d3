#!/bin/bash
# Shows the library at work: compiles examples/backup.c against the tree given as first argument and backs up two disks
# through libvixDiskLib.so, each a child on a parent, checking what comes out against what other readers say.
#
#   1. a chain of two sparse disks out of tests/data, whose content is known (qemu-img and others agree)
#   2. where qemu-img is installed: a disk of some hundred MiB with a child on a parent, so that there is a bar to see
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(realpath "$1")
work=$(mktemp -d "$(realpath "${CARGO_TARGET_DIR:-target}")/demo.XXXXXX")
trap 'rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "${*//$work\//}"; "$@"; }

say "Building backup.c against $(basename "$tree")/include"
show make --no-print-directory -C examples VDDK="$tree" OUT="$work" CC="${CC:-cc}" "$work/backup"
backup=$work/backup

say 'A child disk on its parent: sparse, with grains that say "zero" over data of the parent'
data=tests/data/vmdk/synthetic/zerograin
expected=$(awk -F'\t' '$1 == "vmdk/synthetic/zerograin/zg-000001.vmdk" { print $3 }' tests/data/manifest.tsv)
show "$backup" --verify "$expected" $data/zg-000001.vmdk "$work/small.raw"
printf '%s  %s\n' "$expected" "$work/small.raw" | sha256sum --check --quiet
echo "sha256sum says the same of the output file"

if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null; then
    say 'A larger chain, made by qemu-img: 1 GiB, of which 384 MiB hold data'
    parent=$work/parent.vmdk child=$work/child.vmdk
    qemu-img create -q -f vmdk -o subformat=monolithicSparse "$parent" 1G
    qemu-io -f vmdk "$parent" -c 'write -q -P 0x5a 0 128M' -c 'write -q -P 0xc3 512M 128M' >/dev/null
    qemu-img create -q -f vmdk -F vmdk -b parent.vmdk "$child"
    qemu-io -f vmdk "$child" -c 'write -q -P 0x11 64M 64M' -c 'write -q -P 0x77 768M 128M' >/dev/null
    expected=$(qemu-img convert -f vmdk -O raw "$child" "$work/qemu.raw" && sha256sum <"$work/qemu.raw" | cut -d' ' -f1)
    show "$backup" --depth 16 --verify "$expected" "$child" "$work/large.raw"
    cmp "$work/qemu.raw" "$work/large.raw"
    echo "byte for byte what qemu-img reads; $(du -m "$work/large.raw" | cut -f1) MiB on disk"
else
    say 'qemu-img is not installed: no larger disk to show'
fi

say 'Done'
