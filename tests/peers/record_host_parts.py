"""Single parts of scripts/record-host.py. The argument names the function to run; an assertion that fails ends the program."""

import os
import random
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts"))

from record_host.nfc import unpack              # noqa: E402
from record_host.record import Disorder, Record, Redactor   # noqa: E402
from record_host.wire import matches, thumbprint            # noqa: E402

FASTLZ_A = bytes.fromhex("014141e0fd01e0ea01044141414141")
SKIPZ = bytes.fromhex("0002000000000000890000000300000078797afe0100000200000055aa")


def published_fragments():
    """The worked examples of FastLZ at both levels and of skipz."""
    assert unpack(2, FASTLZ_A, 512) == b"A" * 512
    first = bytes.fromhex("076162636465666768e00f07005ae01900045a5a5a5a5a")
    assert unpack(2, first, 72) == b"abcdefgh" * 4 + b"Z" * 40
    second = b"\x2f0123456789abcdef\xe0" + b"\xff" * 256 + bytes.fromhex("e20f046263646566")
    assert len(second) == 282 and unpack(2, second, 65536) == b"0123456789abcdef" * 4096
    expected = bytearray(512)
    expected[137:140], expected[510:] = b"xyz", b"\x55\xaa"
    assert unpack(3, SKIPZ, 512) == expected


def wrong_fragments():
    """Damage gives Disorder or other bytes of the right length, never anything else."""
    seeded = random.Random(7)
    for kind, good, length in ((2, FASTLZ_A, 512), (3, SKIPZ, 512)):
        for cut in range(len(good)):
            try:
                assert len(unpack(kind, good[:cut], length)) == length
            except Disorder:
                pass
        for _ in range(20000):
            data = bytearray(good)
            for _ in range(seeded.randint(1, 3)):
                data[seeded.randrange(len(data))] = seeded.randrange(256)
            try:
                assert len(unpack(kind, bytes(data), length)) == length
            except Disorder:
                pass


def names_are_taken_out():
    """Announced ones, and what looks like a file, an address or an identifier."""
    redactor = Redactor()
    redactor.hide("machine", "web")
    redactor.hide("host", "esx1.example.org")
    told = ("web [store 1] a b/c-000001.vmdk /vmfs/volumes/5f-1/a b/c.vmdk ESX1.example.org 10.1.2.3 fe80::1:2:3 "
            "60 00 C2 9c aa bb cc dd-00 11 22 33 44 55 66 77 AA:BB:CC:DD:EE:FF:00:11 52cdebc5-b7ee-359a-1dec-76f0bc105ac5")
    shown = redactor.text(told)
    for word in ("store", "c.vmdk", "5f-1", "example", "10.1", "fe80", "C2", "66 77", "AA:BB", "52cd"):
        assert word not in shown, shown
    assert shown.startswith("<machine> ") and "webmail 8.0.1.0 12:30:45" in redactor.text("webmail 8.0.1.0 12:30:45")
    message = redactor.binary(b"\1\0at esx1.example.org: /vmfs/volumes/1/x.vmdk\0")
    assert b"esx1" not in message and b"vmfs" not in message and len(message) == 46


def a_secret_is_never_written():
    """Not even when something puts it where nobody expected it."""
    for leak in ("hunter22", "hunter22".encode().hex()):
        with tempfile.TemporaryDirectory() as folder:
            redactor = Redactor()
            redactor.secret("password", "hunter22")
            record = Record(os.path.join(folder, "out.json"), redactor)
            record.begin("x", "y")["result"] = {"deep": [leak]}
            try:
                record.save()
            except RuntimeError:
                assert not os.listdir(folder)
                continue
            raise AssertionError("the secret was written")


def thumbprints():
    """Both lengths, in any spelling."""
    for kind in ("sha1", "sha256"):
        text = thumbprint(b"certificate", kind)
        assert matches(text, b"certificate") and matches(text.lower().replace(":", " "), b"certificate")
        assert not matches(text, b"another") and not matches(text[:-1], b"certificate")
    assert not matches("", b"certificate")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
