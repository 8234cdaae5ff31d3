#!/bin/bash
# Shows the library at work, in a folder of its own that is removed afterwards. The argument is a tree as `make tree` leaves it;
# examples/backup.c is compiled against it.
#
#   1. a chain of two local disks out of tests/data, whose content is known (qemu-img and others agree)
#   2. a virtual machine of the simulated vCenter, read over nbdssl: a full backup of a snapshot, some changes, and an incremental
#      backup of the next snapshot from the list of changed areas; then the result is compared with what another reader says
#
# The second part needs the simulator (VIXSIM names it, target/release/vixsim otherwise). Snapshots and changed areas need pyVmomi,
# which is fetched into target/peers if this machine's Python has none; qemu-img is the other reader where it is installed. What is
# missing is said, and the rest is shown.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(realpath "$1")
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
vixsim=${VIXSIM:-$target/release/vixsim}
mkdir -p "$target"
work=$(mktemp -d "$target/demo.XXXXXX")
sim=
trap '[ -z "$sim" ] || kill "$sim" 2>/dev/null || true; rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }
# The command goes to the standard error, so that what the program prints can be kept.
show() { local line="${*//$work\//}"; printf '$ %s\n' "${line//$PWD\//}" >&2; "$@"; }

# json FILE KEY...: a value of a JSON file
json() {
    python3 -c 'import functools, json, sys
print(functools.reduce(lambda at, key: at[int(key) if key.isdigit() else key], sys.argv[2:], json.load(open(sys.argv[1]))))' "$@"
}

say "Building backup.c against $(basename "$tree")/include"
show make --no-print-directory -C examples VDDK="$tree" OUT="$work" CC="${CC:-cc}" "$work/backup"
backup=$work/backup

say 'A child disk on its parent: sparse, with grains that say "zero" over data of the parent'
data=tests/data/vmdk/synthetic/zerograin
expected=$(awk -F'\t' '$1 == "vmdk/synthetic/zerograin/zg-000001.vmdk" { print $3 }' tests/data/manifest.tsv)
show "$backup" --no-progress --verify "$expected" $data/zg-000001.vmdk "$work/small.raw"
printf '%s  %s\n' "$expected" "$work/small.raw" | sha256sum --check --quiet
echo "sha256sum says the same of the output file"

if ! [ -x "$vixsim" ] || ! command -v python3 >/dev/null; then
    say "No simulator at ${vixsim#"$PWD"/}, or no python3: nothing to show of vSphere"
    say 'Done'
    exit
fi

# The Python that has pyVmomi, or nothing.
find_pyvmomi() {
    local python
    for python in "${VIX_PYTHON:-python3}" "${VIX_PEERS:-$target/peers}/python/bin/python"; do
        "$python" -c 'import pyVmomi' 2>/dev/null && { echo "$python"; return; }
    done
    return 1
}
python=$(find_pyvmomi) || { scripts/fetch-readers.sh >&2 && python=$(find_pyvmomi); } || python=

say 'A virtual machine: a disk of 512 MiB, of which 192 MiB hold data, in a simulated vCenter that listens on this machine alone'
mkdir "$work/vm"
python3 - "$tree" "$work/vm/web.vmdk" <<'END'
import random
import sys

sys.path.insert(0, sys.argv[1] + "/examples")
import vixdisklib

with vixdisklib.Library(sys.argv[1]) as library, library.connect() as connection:
    connection.create(sys.argv[2], 512 * 2048)
    with connection.open(sys.argv[2], 0) as disk:
        for mib in (*range(0, 128), *range(256, 320)):
            disk.write(mib * 2048, random.Random(mib).randbytes(1 << 20))
END
(umask 077 && head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/password")
"$vixsim" --listen 127.0.0.1:0 --nfc 127.0.0.1:0 --user demo --password-file "$work/password" --vm "web=$work/vm/web.vmdk" \
    --ready-file "$work/ready.json" >"$work/vixsim.log" 2>&1 &
sim=$!
for _ in {1..300}; do
    [ ! -s "$work/ready.json" ] || break
    kill -0 "$sim" 2>/dev/null || { cat "$work/vixsim.log"; exit 1; }
    sleep 0.1
done

path=$(json "$work/ready.json" vms 0 disks 0 path)
file=$(json "$work/ready.json" vms 0 disks 0 file)
vm=moref=$(json "$work/ready.json" vms 0 moref)
login=(--server 127.0.0.1 --port "$(json "$work/ready.json" sdk_port)" --user demo --password-file "$work/password"
    --thumbprint "$(json "$work/ready.json" thumbprint_sha1)")
disks=("${login[@]}" --nfc-port "$(json "$work/ready.json" nfc_port)" --vm "$vm" --transports nbdssl)
echo "$(json "$work/ready.json" url) has $path"

# What a reader that knows nothing of the server says of the disk's file.
other_reader() {
    if command -v qemu-img >/dev/null; then
        qemu-img convert -U -f vmdk -O raw "$file" "$work/other.raw"
    else
        "$backup" --no-progress --all "$file" "$work/other.raw" >/dev/null
    fi
    sha256sum <"$work/other.raw" | cut -d' ' -f1
}

if [ -z "$python" ]; then
    say 'pyVmomi is not there and could not be fetched: a full backup of the machine as it is, without a snapshot'
    show "$backup" "${disks[@]}" --verify "$(other_reader)" "$path" "$work/web.raw"
    say 'Done'
    exit
fi
vsphere() { show "$python" examples/changed_areas.py "${login[@]}" "$@"; }

say 'A snapshot, and a full backup of it over nbdssl'
vsphere enable "$vm"
vsphere create "$vm" >"$work/monday.json"
snapshot=$(json "$work/monday.json" snapshot) change=$(json "$work/monday.json" disks 0 change_id)
show "$backup" "${disks[@]}" --snapshot "$snapshot" "$(json "$work/monday.json" disks 0 path)" "$work/web.raw"
vsphere remove "$vm" "$snapshot"

say 'The machine goes on: 3 MiB change in three places, written over nbdssl because it is switched off'
for mib in 5 200 300; do
    head -c 1048576 /dev/urandom >"$work/news"
    show python3 "$tree/examples/vixdisklib.py" put "${disks[@]}" --start $((mib * 2048)) "$path" <"$work/news"
done

say 'The next snapshot, what changed since the first, and an incremental backup of only that'
vsphere create "$vm" >"$work/tuesday.json"
snapshot=$(json "$work/tuesday.json" snapshot)
vsphere areas "$vm" "$snapshot" "$(json "$work/tuesday.json" disks 0 key)" --since "$change" >"$work/areas"
expected=$(other_reader)
show "$backup" "${disks[@]}" --snapshot "$snapshot" --areas "$work/areas" --verify "$expected" \
    "$(json "$work/tuesday.json" disks 0 path)" "$work/web.raw"
vsphere remove "$vm" "$snapshot"
echo "the backup is byte for byte what $(command -v qemu-img >/dev/null && echo qemu-img || echo 'the library itself') reads of the file"

say 'Done'
