#!/usr/bin/env python3
"""Prints the notices of everything that is linked into the library, for the binary distribution.

Asks cargo, offline, for the crates of the normal dependency graph and copies the licence files out of their sources. A
crate without one stops the build: a notice that is missing must not go unseen.
"""

import json
import os
import re
import subprocess
import sys

LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def cargo_metadata():
    """cargo's view of the package, from what has been downloaded for the build."""
    cargo = os.environ.get("CARGO", "cargo")
    host = next(line.split(": ")[1] for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines()
                if line.startswith("host: "))
    return json.loads(subprocess.check_output(
        [cargo, "metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host]))


def linked_crates(metadata):
    """The packages reached from ours by normal dependencies: not those of the build script or of the tests."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    found, todo = set(), [root]
    while todo:
        for dependency in nodes[todo.pop()]["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            macro = any("proc-macro" in target["kind"] for target in packages[dependency["pkg"]]["targets"])
            if normal and not macro and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                todo.append(dependency["pkg"])
    return sorted((packages[package] for package in found), key=lambda package: package["name"])


def licence_files(folder):
    """Licence files at the top of the crate and one folder below: sources of C libraries bring their own."""
    found = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            found += [os.path.join(path, inner) for inner in sorted(os.listdir(path))
                      if LICENCE_FILE.match(inner) and os.path.isfile(os.path.join(path, inner))]
        elif LICENCE_FILE.match(name):
            found.append(path)
    return found


def standard_library():
    """The notice of Rust's standard library, which every Rust library carries."""
    version = subprocess.check_output(["rustc", "--version"], text=True).strip()
    print(f"{'=' * 100}\nRust standard library ({version})\nMIT OR Apache-2.0\nhttps://github.com/rust-lang/rust\n")
    print("Copyright (c) The Rust Project Developers. Both licences are those in LICENSE-MIT and LICENSE-APACHE.\n")


def main():
    """Prints all notices, or says what lacks one."""
    print("Third-party software in libvixDiskLib\n")
    missing = []
    for package in linked_crates(cargo_metadata()):
        folder = os.path.dirname(package["manifest_path"])
        files = licence_files(folder)
        if not files:
            missing.append(package["name"])
        print("=" * 100)
        print(f"{package['name']} {package['version']}\n{package['license']}\n{package['repository'] or ''}")
        for path in files:
            print(f"\n--- {os.path.relpath(path, folder)} ---\n")
            with open(path, encoding="utf-8", errors="replace") as file:
                print(file.read().strip())
        print()
    standard_library()
    if missing:
        sys.exit(f"no licence file in the sources of: {', '.join(missing)}")


if __name__ == "__main__":
    main()
