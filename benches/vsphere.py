#!/usr/bin/env python3
"""How fast a disk of a vSphere host is read, with vixsim in a process of its own as the host.

    benches/vsphere.py --tools FOLDER --libdir dist/vmware-vix-disklib-distrib --vixsim target/release/vixsim

FOLDER has `vixbench` and `disk2048-flat.vmdk` of a benchmark run that kept them. Rows: one disk over a host whose storage takes
1 ms, asynchronous and synchronous, plain and with TLS (V1); reads while allocated blocks are asked for on the same handle
(V2); synchronous reads over a host that takes 2 ms for each answer, against one request at a time; 32 disks in parallel, and those on all processors against one.
All with the settings a program has that sets none.
"""
import argparse
import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
USER, PASSWORD = "bench", "bench"


class Sim:
    """A running vixsim with one powered-off machine."""

    def __init__(self, vixsim, disk, faults=(), more=()):
        self._folder = tempfile.TemporaryDirectory()
        ready = os.path.join(self._folder.name, "ready.json")
        word = os.path.join(self._folder.name, "password")
        with open(word, "w") as f:
            f.write(PASSWORD)
        command = [vixsim, "--listen", "127.0.0.1:0", "--nfc", "127.0.0.1:0", "--user", USER, "--password-file", word,
                   "--vm", f"bench={disk}", "--ready-file", ready, *more]
        for rule in faults:
            command += ["--fault", rule]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while not os.path.exists(ready):
            if self._process.poll() is not None:
                raise SystemExit(f"vixsim ended with {self._process.returncode}")
            time.sleep(0.01)
        with open(ready) as f:
            self.ready = json.load(f)
        machine = self.ready["vms"][0]
        self.machine, self.path = "moref=" + machine["moref"], machine["disks"][0]["path"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def bench(self, vixbench, lib, op, transport, *more):
        command = [vixbench, "--lib", lib, "--op", op, "--disk", self.path, "--server", "127.0.0.1", "--port", self.ready["sdk_port"],
                   "--nfcport", self.ready["nfc_port"], "--user", USER, "--password", PASSWORD, "--vmx", self.machine,
                   "--thumbprint", self.ready["thumbprint_sha1"], "--transports", transport, *more]
        done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


def row(name, values, unit="MB/s"):
    values = sorted(values)
    digits = 2 if unit == "x" else 0
    print(f"| {name} | {statistics.median(values):.{digits}f} {unit} | {values[0]:.{digits}f}..{values[-1]:.{digits}f} |", flush=True)


def v1(a, bench):
    with Sim(a.vixsim, a.disk, ["nfc.read=delay(1ms)"]) as sim:
        for transport in ("nbd", "nbdssl"):
            for what, op, more in (("16 x 256 KiB in flight", "aread", ["--bs", "256K", "--qd", 16]),
                                   ("one caller, 1 MiB", "read", ["--bs", "1M"]),
                                   ("one caller, 64 KiB", "read", ["--bs", "64K"])):
                results = [bench(sim, op, transport, *more) for _ in range(a.rounds)]
                row(f"V1 {transport}, storage of 1 ms, {what}", [r["mb_per_s"] for r in results])


def v2(a):
    sys.path.insert(0, os.path.join(a.libdir, "examples"))
    import vixdisklib

    with Sim(a.vixsim, a.disk, ["nfc.read=delay(1ms)"]) as sim, vixdisklib.Library(a.libdir) as library:
        server = vixdisklib.Server("127.0.0.1", user=USER, password=PASSWORD, thumbprint=sim.ready["thumbprint_sha1"], vm=sim.machine,
                                   transports="nbd", port=sim.ready["sdk_port"], nfc_port=sim.ready["nfc_port"])
        ratios = []
        with library.connect(server) as connection:
            for _ in range(a.rounds):
                with connection.open(sim.path) as disk:
                    alone = rate(disk)
                    stop, maps = threading.Event(), []
                    asking = threading.Thread(target=ask, args=(disk, stop, maps))
                    asking.start()
                    beside = rate(disk)
                    stop.set()
                    asking.join()
                    ratios.append(beside / alone)
        row("V2 reads beside questions for allocated blocks, over reads alone", ratios, "x")


def rate(disk, seconds=1.0):
    """Bytes per second of one caller that reads 1 MiB after the other."""
    buf = ctypes.create_string_buffer(MIB)
    sectors, capacity = MIB // 512, disk.info().capacity
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        disk.read_into(done * sectors % (capacity - sectors), buf)
        done += 1
    return done * MIB / elapsed


def ask(disk, stop, maps):
    """Asks for the blocks of the whole disk ten times a second, more often than any program does."""
    while not stop.wait(0.1):
        maps.append(sum(1 for _ in disk.allocated()))


def latency(a, bench):
    with Sim(a.vixsim, a.disk, ["nfc.read=delay(2ms)"]) as sim, contextlib.ExitStack() as stack:
        config = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".conf"))
        config.write("vixDiskLib.nfcAio.Session.BufSizeIn64KB=16\nvixDiskLib.nfcAio.Session.BufCount=1\n")
        config.flush()
        ratios = []
        for _ in range(a.rounds):
            many = bench(sim, "read", "nbd", "--bs", "1M", "--total", 512 * MIB)
            one = bench(sim, "read", "nbd", "--bs", "1M", "--total", 128 * MIB, "--config", config.name)
            ratios.append(many["mb_per_s"] / one["mb_per_s"])
        row("synchronous 1 MiB, 2 ms, over one request of 1 MiB at a time", ratios, "x")


def parallel(a, bench):
    with Sim(a.vixsim, a.disk, ["nfc.read=delay(1ms)"]) as sim:
        for transport in ("nbd", "nbdssl"):
            ratios, rates = [], []
            for _ in range(a.rounds):
                one = bench(sim, "read", transport, "--bs", "1M", "--total", 1024 * MIB)
                many = bench(sim, "read", transport, "--bs", "1M", "--threads", 32)
                ratios.append(many["mb_per_s"] / one["mb_per_s"])
                rates.append(many["mb_per_s"])
            row(f"32 handles {transport}", rates)
            row(f"32 handles over one, {transport}", ratios, "x")


@contextlib.contextmanager
def on(processors):
    """This process and those it starts meanwhile run on these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def scaling(a, bench):
    every = sorted(os.sched_getaffinity(0))
    for transport in ("nbd", "nbdssl"):
        ratios = []
        for _ in range(a.rounds):
            rates = []
            for processors in (every[:1], every):
                with on(processors), Sim(a.vixsim, a.disk, ["nfc.read=delay(1ms)"]) as sim:
                    rates.append(bench(sim, "read", transport, "--bs", "1M", "--threads", 32)["mb_per_s"])
            ratios.append(rates[1] / rates[0])
        row(f"32 handles {transport}, on {len(every)} processors over one, host included", ratios, "x")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("tools", "libdir", "vixsim"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--rows", default="v1,v2,latency,parallel,scaling")
    a = p.parse_args()
    a.disk = os.path.join(a.tools, "disk2048-flat.vmdk")
    lib = os.path.join(a.libdir, "lib64", "libvixDiskLib.so")

    def bench(sim, op, transport, *more):
        return sim.bench(os.path.join(a.tools, "vixbench"), lib, op, transport, *more)

    print("| row | median | min..max |\n|---|---|---|")
    for name, run in (("v1", lambda: v1(a, bench)), ("v2", lambda: v2(a)), ("latency", lambda: latency(a, bench)),
                      ("parallel", lambda: parallel(a, bench)), ("scaling", lambda: scaling(a, bench))):
        if name in a.rows.split(","):
            run()


if __name__ == "__main__":
    main()
