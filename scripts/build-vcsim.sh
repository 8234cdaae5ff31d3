#!/bin/bash
# Builds the independent server and client of the tests out of the library of govmomi that Debian packages (golang-go and
# golang-github-vmware-govmomi-dev): target/peers/vcsim, a vCenter and ESXi, and target/peers/govmomi-sim, a client. Needs no
# network. Does nothing for what is there and newer than its source; --force builds both anyway.
#
# Exit status: 0 both are there, 1 one is not (the reason is printed).
set -euo pipefail
cd "$(dirname "$0")/.."
peers="${VIX_PEERS:-${CARGO_TARGET_DIR:-target}/peers}"
mkdir -p "$peers"
peers="$(cd "$peers" && pwd)"
library=/usr/share/gocode
force="${1:-}"

say() { printf 'vcsim: %s\n' "$*"; }

# build FOLDER PROGRAM
build() {
    if [ "$force" != --force ] && [ -x "$peers/$2" ] \
        && [ -z "$(find "tests/peers/$1" -name '*.go' -newer "$peers/$2")" ]; then
        say "$2 in $peers"
        return
    fi
    if ! command -v go >/dev/null || [ ! -d "$library/src/github.com/vmware/govmomi/simulator" ]; then
        say 'Go or its govmomi library is missing' >&2
        exit 1
    fi
    if ! (cd "tests/peers/$1" && GO111MODULE=off GOPATH="$library" GOFLAGS= GOCACHE="$peers/go-cache" \
        go build -o "$peers/$2.new" .) >"$peers/$2.log" 2>&1; then
        say "$2 could not be built; the last words were:" >&2
        tail -n 5 "$peers/$2.log" >&2
        exit 1
    fi
    mv "$peers/$2.new" "$peers/$2"
    say "$2 built in $peers"
}

build vcsim vcsim
build govmomi_sim govmomi-sim
