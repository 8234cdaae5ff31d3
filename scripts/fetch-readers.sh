#!/bin/bash
# Installs the independent readers and clients of the tests (scripts/readers.txt) into a Python environment of their own,
# target/peers/python, with this machine's pip and its settings. Nothing else on the machine changes; needs no root.
# Does nothing when they are there; --force makes the environment anew.
#
# Exit status: 0 they are there, 1 they are not (the reason is printed).
set -euo pipefail
cd "$(dirname "$0")/.."
peers="${VIX_PEERS:-${CARGO_TARGET_DIR:-target}/peers}"
place="$peers/python"
log="$peers/python.log"

say() { printf 'independent readers: %s\n' "$*"; }
there() { cmp -s scripts/readers.txt "$place/readers.txt" && "$place/bin/python" -c 'import pyvmdk, dissect.hypervisor, pyVmomi' 2>/dev/null; }

if [ "${1:-}" != --force ] && there; then
    say "in $place"
    exit 0
fi
mkdir -p "$peers"
rm -rf "$place"
# The first Python of the machine that can make environments and has these programs for its version.
for python in python3 /usr/bin/python3; do
    "$python" -m venv "$place" >"$log" 2>&1 \
        && "$place/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/readers.txt >>"$log" 2>&1 \
        || { rm -rf "$place"; continue; }
    cp scripts/readers.txt "$place/readers.txt" # last: it says that the environment is complete
    if there; then
        say "$(grep -c '==' scripts/readers.txt) packages installed into $place"
        exit 0
    fi
done
say "could not be installed; the last words were:" >&2
tail -n 5 "$log" >&2
exit 1
