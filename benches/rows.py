#!/usr/bin/env python3
"""Rows that compare the library with itself: asynchronous against synchronous reads, two handles on two threads, a long
chain against its base, maps of tables that are not cached, and peak memory.

    benches/rows.py --tools FOLDER --lib target/release/libvixDiskLib.so

FOLDER holds `vixbench`, `btool` and the disks of a benchmark run that kept them (`disk2048.raw`, `disk2048-sparse.vmdk`, ...).
Contestants run in turn, every ratio is taken inside a round, medians are printed.
"""
import argparse
import json
import os
import statistics
import subprocess

MIB = 1 << 20


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tools", required=True)
    p.add_argument("--lib", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--mib", type=int, default=2048)
    a = p.parse_args()
    at = lambda name: os.path.join(a.tools, name)
    size = a.mib * MIB

    def tool(*command):
        done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def bench(disk, op, *more, lib=a.lib):
        return tool(at("vixbench"), "--lib", lib, "--disk", at(disk), "--op", op, *more)

    def ratio(name, mine, base):
        mine(), base()  # brings the files into the page cache
        pairs = [(mine(), base()) for _ in range(a.rounds)]
        ratios = sorted(m / b for m, b in pairs)
        print(f"| {name} | {statistics.median(ratios):.2f} | {ratios[0]:.2f}..{ratios[-1]:.2f} |", flush=True)

    speed = lambda result: result["mb_per_s"]
    print("| row | median | min..max |\n|---|---|---|")
    for form in ("flat", "sparse", "chain3", "stream"):
        disk = f"disk{a.mib}-{form}.vmdk"
        few = 4000 if form == "stream" else 40000
        for bs, how in (("1M", ["--total", size]), ("64K", ["--total", size // 2]), ("4K", ["--total", few * 4096])):
            op = "randread" if bs == "4K" else "read"
            ratio(f"{form} {bs}: asynchronous at depth 8 over synchronous",
                  lambda: speed(bench(disk, "a" + op, "--bs", bs, "--qd", 8, *how)),
                  lambda: speed(bench(disk, op, "--bs", bs, *how)))
    sparse = f"disk{a.mib}-sparse.vmdk"
    ratio("sparse 1M: two handles on two threads over one",
          lambda: speed(bench(sparse, "read", "--bs", "1M", "--threads", 2)),
          lambda: speed(bench(sparse, "read", "--bs", "1M")))
    raw = f"disk{a.mib}.raw"
    ratio("raw file 1M: two threads over one (the machine's share)",
          lambda: speed(bench(raw, "read", "--bs", "1M", "--threads", 2, lib="@raw")),
          lambda: speed(bench(raw, "read", "--bs", "1M", lib="@raw")))

    links = [sparse]
    for n in range(1, 30):
        link = f"rows-chain-{n}.vmdk"
        if not os.path.exists(at(link)):
            subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", "-b", at(links[-1]), "-F", "vmdk", at(link)], check=True)
            bench(link, "randwrite", "--bs", "64K", "--total", 64 * 65536, "--seed", n, "--rw")
        links.append(link)
    total = ["--total", 40000 * 4096]
    ratio("random 4K: a chain of 30 links over its base alone",
          lambda: speed(bench(links[-1], "randread", "--bs", "4K", *total)),
          lambda: speed(bench(sparse, "randread", "--bs", "4K", *total)))

    table = at("rows-map.vmdk")
    if not os.path.exists(table):
        subprocess.run([at("btool"), "mkvmdk", table, "2048", "128", "scattered", str(1 << 20)], check=True, capture_output=True)

    def cold():
        fd = os.open(table, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def cold_map():
        cold()
        return bench("rows-map.vmdk", "map")["seconds_per_map"]

    def cold_scan():
        cold()
        return tool(at("btool"), "mapscan", table, "1")["seconds"]

    ratio("map of 2 TiB, tables not cached: time over reading them once", cold_map, cold_scan)
    print()
    for name, result in (("map of 2 TiB with 1 Mi extents", bench("rows-map.vmdk", "map")),
                         ("random 4K over 1 TiB of it", bench("rows-map.vmdk", "randread", "--bs", "4K", "--total", 100000 * 4096)),
                         ("random 4K over the sparse disk", bench(sparse, "randread", "--bs", "4K", "--total", 100000 * 4096)),
                         ("sequential 1M over the stream", bench(f"disk{a.mib}-stream.vmdk", "read", "--bs", "1M"))):
        print(f"peak memory, {name}: {result['maxrss_kib'] / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
