#!/usr/bin/env python3
"""How fast an NBD client reads a disk through nbdkit's vddk plugin on this library, against qemu-nbd and nbdkit's file plugin.

    benches/nbdkit.py --libdir dist/vmware-vix-disklib-distrib --plugin PLUGIN.so --disk disk.vmdk --raw disk.raw

The contestants run in turn, round by round, and every ratio is taken inside a round. `--raw` is the same content as a plain
file. Needs nbdkit, qemu-nbd and nbdcopy.
"""
import argparse
import statistics
import subprocess
import time


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("libdir", "plugin", "disk", "raw"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--rounds", type=int, default=7)
    a = p.parse_args()
    to_null = 'nbdcopy "$uri" null:'
    contestants = {
        "vddk plugin": ["nbdkit", "-r", "-U", "-", a.plugin, "libdir=" + a.libdir, a.disk, "--run", to_null],
        "qemu-nbd": ["nbdcopy", "--", "[", "qemu-nbd", "-r", "-f", "vmdk", a.disk, "]", "null:"],
        "nbdkit file": ["nbdkit", "-r", "-U", "-", "file", a.raw, "--run", to_null],
    }
    times = {name: [] for name in contestants}
    for _ in range(a.rounds):
        for name, command in contestants.items():
            times[name].append(seconds(command))
    print("| contestant | seconds, median | x of qemu-nbd | x of nbdkit file |")
    print("|---|---|---|---|")
    for name, mine in times.items():
        ratios = [statistics.median(b / m for b, m in zip(times[base], mine)) for base in ("qemu-nbd", "nbdkit file")]
        print(f"| {name} | {statistics.median(mine):.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
