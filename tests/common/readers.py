"""Reads VMDK disks with libvmdk and dissect.hypervisor on behalf of the tests.

Each line of standard input asks for one comparison: the reader's name, the disk's path and the path of the raw content it has
to have, the paths as hex digits. Each gets one line back: "same", or what is different or went wrong. One process answers
all of a test's questions, because starting Python takes longer than most of them.
"""

import importlib
import sys
from pathlib import Path

PIECE = 1 << 20


def open_libvmdk(path):
    import pyvmdk

    handle = pyvmdk.handle()
    handle.open(path)
    handle.open_extent_data_files()
    parent = handle.get_parent_filename()
    if parent:
        handle.set_parent(open_libvmdk(str(Path(path).parent / parent)))
    return handle


def libvmdk(path):
    handle = open_libvmdk(path)
    left = handle.get_media_size()
    while left:
        piece = handle.read_buffer(min(left, PIECE))
        if not piece:
            raise EOFError(f"{left} bytes before the end")
        left -= len(piece)
        yield piece


def dissect(path):
    from dissect.hypervisor.disk.vmdk import VMDK

    # Sector by sector count: the stream over it reads in units of 8 KiB and runs past the end of other disks.
    disk = VMDK(Path(path))
    step = PIECE // 512
    for sector in range(0, disk.sector_count, step):
        yield disk.read_sectors(sector, min(step, disk.sector_count - sector))


def compare(read, path, raw):
    at = 0
    with open(raw, "rb") as expected:
        for piece in read(path):
            if piece != expected.read(len(piece)):
                return f"other bytes in the {len(piece)} from {at} on"
            at += len(piece)
        return f"ends after {at} bytes" if expected.read(1) else "same"


READERS = {"libvmdk": ("pyvmdk", libvmdk), "dissect.hypervisor": ("dissect.hypervisor.disk.vmdk", dissect)}


def answer(name, path, raw):
    module, read = READERS[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"missing: {error}"
    try:
        return compare(read, path, raw)
    except Exception as error:  # a reader may raise anything over a file that it does not understand
        return f"{type(error).__name__}: {error}".replace("\n", " ")


for line in sys.stdin:
    name, path, raw = line.split()
    print(answer(name, *(bytes.fromhex(text).decode() for text in (path, raw))), flush=True)
