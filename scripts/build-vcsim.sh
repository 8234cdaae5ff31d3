#!/bin/bash
# Builds the independent vCenter and ESXi of the tests, target/peers/vcsim, out of the simulator library of govmomi that
# Debian packages (golang-go and golang-github-vmware-govmomi-dev). Needs no network. Does nothing when it is there and newer
# than its source; --force builds it anyway.
#
# Exit status: 0 it is there, 1 it is not (the reason is printed).
set -euo pipefail
cd "$(dirname "$0")/.."
peers="${VIX_PEERS:-${CARGO_TARGET_DIR:-target}/peers}"
mkdir -p "$peers"
peers="$(cd "$peers" && pwd)"
library=/usr/share/gocode

say() { printf 'vcsim: %s\n' "$*"; }

if [ "${1:-}" != --force ] && [ -x "$peers/vcsim" ] \
    && [ -z "$(find tests/peers/vcsim -name '*.go' -newer "$peers/vcsim")" ]; then
    say "in $peers"
    exit 0
fi
if ! command -v go >/dev/null || [ ! -d "$library/src/github.com/vmware/govmomi/simulator" ]; then
    say 'Go or its govmomi library is missing' >&2
    exit 1
fi
if ! (cd tests/peers/vcsim && GO111MODULE=off GOPATH="$library" GOFLAGS= GOCACHE="$peers/go-cache" \
    go build -o "$peers/vcsim.new" .) >"$peers/vcsim.log" 2>&1; then
    say 'could not be built; the last words were:' >&2
    tail -n 5 "$peers/vcsim.log" >&2
    exit 1
fi
mv "$peers/vcsim.new" "$peers/vcsim"
say "built in $peers"
