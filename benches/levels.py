#!/usr/bin/env python3
"""What each compression level of new streamOptimized disks costs and saves: processor time of all threads, time, file size.

    benches/levels.py --libdir dist/vmware-vix-disklib-distrib [--mib 256] [--text FOLDER]

The disk is 45 % zeros, 25 % incompressible and 30 % text (Python's own library, or the files below FOLDER), in runs of 1 MiB,
written in order by pieces of 1 MiB. Each level runs in a process of its own.
"""
import argparse
import glob
import os
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time

MIB = 1 << 20
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples"))


def content(mib, folder):
    """The pieces of the disk; the same for every run."""
    dice = random.Random(1)
    text = bytearray()
    for name in sorted(glob.glob(os.path.join(folder, "**", "*.*"), recursive=True)):
        if name.endswith((".py", ".rs", ".txt", ".c", ".h")) and len(text) < mib * MIB // 3:
            with open(name, "rb") as file:
                text += file.read()
    at = 0
    for n in range(mib):
        kind = n * 7 % 20
        if kind < 9:
            yield bytes(MIB)
        elif kind < 14:
            yield dice.randbytes(MIB)
        else:
            yield bytes(text[at : at + MIB]).ljust(MIB, b" ")
            at = (at + MIB) % max(len(text) - MIB, 1)


def one(a):
    import vixdisklib

    pieces = list(content(a.mib, a.text))
    with tempfile.TemporaryDirectory(dir=a.dir) as folder:
        config = os.path.join(folder, "config")
        with open(config, "w") as file:
            file.write(f"vixDiskLib.stream.compressionLevel={a.level}\n")
        path = os.path.join(folder, "d.vmdk")
        with vixdisklib.Library(a.libdir, config=config) as library, library.connect() as connection:
            connection.create(path, a.mib * 2048, 6)
            before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            with connection.open(path, 0) as disk:
                for n, piece in enumerate(pieces):
                    disk.write(n * 2048, piece)
            after, took = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            size = os.path.getsize(path)
    gib = a.mib / 1024
    print(f"| {a.level} | {used / gib:.1f} s | {took / gib:.1f} s | {size / gib / 1e6:.1f} MB |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--libdir", required=True)
    p.add_argument("--mib", type=int, default=256)
    p.add_argument("--text", default=sysconfig.get_path("stdlib"))
    p.add_argument("--dir", default="/dev/shm")
    p.add_argument("--levels", type=int, nargs="*", default=[0, 1, 2, 3, 4, 6, 9, 12])
    p.add_argument("--level", type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.level is not None:
        return one(a)
    print("| level | processor time per GiB | time per GiB | file per GiB |\n|---|---|---|---|", flush=True)
    for level in a.levels:
        subprocess.run([sys.executable, *sys.argv, "--level", str(level)], check=True)


if __name__ == "__main__":
    main()
