#!/bin/bash
# Makes a machine ready for `make test`: what the tests use beside Rust and a C compiler.
#
# As root on a Debian or Ubuntu machine it installs what is missing with apt and says so; otherwise it prints what is
# missing and the command that would install it, and goes on: the tests that need it are skipped with a printed reason.
# Nothing is installed with NO_INSTALL=1. Fetches nbdkit's vddk plugins at the end (scripts/fetch-nbdkit-plugins.sh)
# and the independent readers of what is written (scripts/fetch-readers.sh), and builds the independent vCenter
# and its client (scripts/build-vcsim.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }

# What must be there, as "a command that prints something when it is|the Debian package that makes it so".
wanted=(
    'command -v gcc|gcc'
    'command -v g++|g++'
    'command -v make|make'
    'command -v file|file'
    'command -v readelf|binutils'
    'command -v pkg-config|pkg-config'
    'command -v python3|python3'
    'python3 -c "import ensurepip, venv; print(venv)"|python3-venv'
    'command -v zstd|zstd'
    'type -P kill|procps'
    'command -v strace|strace'
    'command -v valgrind|valgrind'
    'command -v nbdkit|nbdkit'
    'command -v nbd-server|nbd-server'
    'command -v certtool|gnutls-bin'
    'command -v nbdinfo|libnbd-bin'
    '/usr/bin/python3 -c "import nbd; print(nbd)"|python3-libnbd'
    'command -v qemu-img|qemu-utils'
    'command -v openssl|openssl'
    'command -v go|golang-go'
    'ls -d /usr/share/gocode/src/github.com/vmware/govmomi/simulator|golang-github-vmware-govmomi-dev'
    'PATH=$PATH:/sbin:/usr/sbin command -v mkfs.xfs|xfsprogs'
    'PATH=$PATH:/sbin:/usr/sbin command -v mkfs.btrfs|btrfs-progs'
    'PATH=$PATH:/sbin:/usr/sbin command -v mkfs.vfat|dosfstools'
    'ls /usr/lib/*/libclang-14.so.1 /usr/lib/llvm-*/lib/libclang.so*|libclang1-14'
    'ls /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib/clang/*/include/stddef.h|libclang-common-14-dev'
)

missing=()
for line in "${wanted[@]}"; do
    [ -n "$(eval "${line%%|*}" 2>/dev/null || true)" ] || missing+=("${line##*|}")
done

if [ "${#missing[@]}" -eq 0 ]; then
    say 'everything the tests use is installed'
elif [ "$(id -u)" -eq 0 ] && [ -z "${NO_INSTALL:-}" ] && command -v apt-get >/dev/null; then
    say "installing with apt: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || say 'apt-get update failed, trying with the lists that are there'
    if apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null; then
        say "installed: ${missing[*]}"
    else
        # One name that this release does not have must not keep the others away.
        for package in "${missing[@]}"; do
            apt-get -qq install -y --no-install-recommends "$package" >/dev/null 2>&1 \
                || say "could not install $package; the tests that need it are skipped"
        done
    fi
else
    say "missing: ${missing[*]}"
    say "the tests that need them are skipped; to have them all: apt-get install ${missing[*]}"
fi

status=0
scripts/fetch-nbdkit-plugins.sh || status=$?
if [ "$status" -ne 0 ]; then
    say "without one of nbdkit's vddk plugins, the tests that need it are skipped"
    [ "${CI:-}" != true ] || exit 1
fi

if ! scripts/fetch-readers.sh; then
    say 'what is written is compared with qemu-img only'
    [ "${CI:-}" != true ] || exit 1
fi

if ! scripts/build-vcsim.sh; then
    say 'the tests against a vCenter and a client that others wrote are skipped'
    [ "${CI:-}" != true ] || exit 1
fi
