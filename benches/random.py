#!/usr/bin/env python3
"""Random reads of 4 KiB from NBD servers, against fio's nbd engine on the same server.

    benches/random.py --tools FOLDER --lib target/release/libvixDiskLib.so

FOLDER holds `vixbench`; nbdkit and a fio with the nbd engine are needed. Depth 1 is one caller that reads synchronously, depth
16 one that keeps 16 asynchronous reads in flight. Contestants run in turn for a while, every ratio is taken inside a round.
`process` is the time of a whole process with 20000 reads instead, starting and connecting included.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

SECONDS = 1.5
READS = 20000


class Server:
    """A running nbdkit."""

    def __init__(self, unix, *plugin):
        self._folder = tempfile.TemporaryDirectory()
        at = lambda name: os.path.join(self._folder.name, name)
        door = ["-U", at("s")] if unix else ["-i", "127.0.0.1", "-p", "10999"]
        self.uri = f"nbd+unix:///?socket={at('s')}" if unix else "nbd://127.0.0.1:10999/"
        self._process = subprocess.Popen(["nbdkit", "-f", "-r", "--tls=off", "-P", at("pid"), *door, *plugin])
        while not os.path.exists(at("pid")):
            if self._process.poll() is not None:
                raise SystemExit(f"nbdkit ended with {self._process.returncode}")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


def run(command):
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    text = done.stdout
    return json.loads(text[text.index("{"):]), time.perf_counter() - start


def ours(a, uri, depth, how):
    op = "randread" if depth == 1 else "arandread"
    return run([os.path.join(a.tools, "vixbench"), "--lib", a.lib, "--disk", uri, "--transports", "nbd", "--op", op, "--bs", "4K",
                "--qd", depth, *how])


def fio(uri, depth, how):
    return run(["fio", "--name=x", "--ioengine=nbd", f"--uri={uri}", "--rw=randread", "--bs=4k", f"--iodepth={depth}", "--size=1g",
                "--output-format=json", *how])


def steady(a, uri, depth):
    mine, _ = ours(a, uri, depth, ["--duration", SECONDS])
    theirs, _ = fio(uri, depth, [f"--runtime={SECONDS}", "--time_based"])
    return mine["iops"], theirs["jobs"][0]["read"]["iops"]


def process(a, uri, depth):
    _, mine = ours(a, uri, depth, ["--total", READS * 4096])
    _, theirs = fio(uri, depth, [f"--number_ios={READS}", f"--io_size={READS * 4096}"])
    return READS / mine, READS / theirs


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tools", required=True)
    p.add_argument("--lib", required=True)
    p.add_argument("--rounds", type=int, default=7)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "image")
        with open(image, "wb") as f:
            for _ in range(64):
                f.write(os.urandom(1 << 20) * 16)
        print("| server | depth | how | ours, 1/s | fio, 1/s | ratio | min..max |\n|---|---|---|---|---|---|---|")
        for name, unix, plugin in (("nbdkit memory, TCP", False, ["memory", "1G"]),
                                   ("nbdkit memory, Unix socket", True, ["memory", "1G"]),
                                   ("nbdkit file, TCP", False, ["file", image])):
            with Server(unix, *plugin) as server:
                for how in (steady, process):
                    for depth in (1, 16):
                        pairs = [how(a, server.uri, depth) for _ in range(a.rounds)]
                        mine, theirs = (statistics.median(side) for side in zip(*pairs))
                        ratios = sorted(m / t for m, t in pairs)
                        print(f"| {name} | {depth} | {how.__name__} | {mine:.0f} | {theirs:.0f} | {statistics.median(ratios):.2f} | "
                              f"{ratios[0]:.2f}..{ratios[-1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
