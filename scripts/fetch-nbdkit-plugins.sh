#!/bin/bash
# Fetches nbdkit's vddk plugin as Debian ships it and unpacks it below target/peers, without installing anything:
#
#   target/peers/nbdkit-1.42/   from Debian 13                 usr/lib/x86_64-linux-gnu/nbdkit/plugins/…
#   target/peers/nbdkit-1.48/   from Debian testing (newest)   the same
#
# The archive is the one that this machine's apt uses already; its configuration, lists and caches are only read. Each
# release gets its own apt state below target/peers/.apt, with that one source and a low pin. Signatures are checked by apt.
# Needs no root. Does nothing when both plugins are there; --force fetches again.
#
# Exit status: 0 both plugins are there, 1 something went wrong, 3 this machine cannot have them (the reason is printed).
set -euo pipefail

cd "$(dirname "$0")/.."
peers="${CARGO_TARGET_DIR:-target}/peers"
package=nbdkit-plugin-vddk
plugin=usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-vddk-plugin.so

say() { printf 'nbdkit plugins: %s\n' "$*"; }
cannot() { say "$*"; exit 3; }

# The addresses of Debian's main archive in apt's own configuration, whatever form its files have.
archives() {
    apt-get --print-uris update 2>/dev/null \
        | sed -n "s|^'\(.*\)/dists/\([^/']*\)/.*|\1 \2|p" \
        | awk '$2 !~ /security|backports|updates|debug/ && $1 !~ /security/ && !seen[$1]++ { print $1 }'
}

# Writes a private apt configuration for one release: only this source, only this keyring, nothing of it preferred.
private_apt() { # directory archive release
    local dir=$1 archive=$2 release=$3 options="arch=amd64"
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] && options="$options signed-by=$keyring"
    rm -rf "$dir"
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial" "$dir/download"
    : >"$dir/status"
    printf 'deb [%s] %s %s contrib\n' "$options" "$archive" "$release" >"$dir/sources.list"
    printf 'Package: *\nPin: release *\nPin-Priority: 1\n' >"$dir/preferences"
    cat >"$dir/apt.conf" <<CONF
Dir::State "$dir/state";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "$dir/preferences";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
CONF
}

# Downloads and unpacks the package of one release; prints nothing but its version.
fetch() { # release directory
    local release=$1 target=$2 dir archive
    dir=$(realpath -m "$peers/.apt/$release")
    for archive in "${found[@]}"; do
        private_apt "$dir" "$archive" "$release"
        APT_CONFIG="$dir/apt.conf" apt-get -qq update >"$dir/log" 2>&1 || continue
        (cd "$dir/download" && APT_CONFIG="$dir/apt.conf" apt-get -qq download "$package") >>"$dir/log" 2>&1 || continue
        rm -rf "$target"
        mkdir -p "$target"
        dpkg-deb -x "$dir"/download/"$package"_*.deb "$target"
        [ -f "$target/$plugin" ] || { say "the package of $release has no $plugin" >&2; return 1; }
        dpkg-deb -f "$dir"/download/"$package"_*.deb Version >"$target/VERSION"
        return 0
    done
    say "could not fetch $package of $release; the last words of apt:" >&2
    tail -n 5 "$dir/log" >&2
    return 1
}

have() { [ -f "$1/$plugin" ] && [ -s "$1/VERSION" ]; }

[ "$(uname -m)" = x86_64 ] || cannot "Debian builds the plugin for x86-64 only, this is $(uname -m)"
if [ "${1:-}" != --force ] && have "$peers/nbdkit-1.42" && have "$peers/nbdkit-1.48"; then
    say "$(cat "$peers/nbdkit-1.42/VERSION") and $(cat "$peers/nbdkit-1.48/VERSION") are in $peers"
    exit 0
fi
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || cannot "no $tool on this machine"
done
mapfile -t found < <(archives)
[ "${#found[@]}" -gt 0 ] || cannot "apt on this machine knows no Debian archive"

for pair in trixie:nbdkit-1.42 testing:nbdkit-1.48; do
    fetch "${pair%%:*}" "$peers/${pair##*:}"
    version=$(cat "$peers/${pair##*:}/VERSION")
    say "$version of Debian ${pair%%:*} unpacked into $peers/${pair##*:}"
    case "$version" in
        "${pair##*:nbdkit-}"*) ;;
        *) say "note: ${pair%%:*} has moved on from ${pair##*:nbdkit-}; the tests run with $version" ;;
    esac
done
rm -rf "$peers/.apt"
