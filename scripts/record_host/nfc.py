"""NFC, client side and reading only, written from the description of what others observed; for one disk on one connection."""

import struct
import zlib

from .record import STOPS, Closed, Disorder, Refused, Silence

CLASSIC = {4: "SESSION_COMPLETE", 33: "SESSION_PARAMS", 36: "SESSION_PARAMS_REPLY", 43: "HANDSHAKE", 51: "VERSION",
           52: "AIO_OPEN", 54: "CONNECTION_DATA", 55: "FEATURES"}
ERROR, OPEN_SESSION, CLOSE_SESSION, OPEN_FILE, CLOSE_FILE, IO, SOCK_OPTS, DDB_GET, QUERY, RES_POOL = 1, 2, 3, 4, 5, 7, 9, 11, 13, 22
AIO = {ERROR: "ERROR", OPEN_SESSION: "OPEN_SESSION", CLOSE_SESSION: "CLOSE_SESSION", OPEN_FILE: "OPEN_FILE",
       CLOSE_FILE: "CLOSE_FILE", IO: "IO", SOCK_OPTS: "SET_SOCK_OPTS", DDB_GET: "DDB_GET", QUERY: "QUERY_ALLOCATED_BLOCKS",
       RES_POOL: "SET_RES_POOL"}
MAGIC = 0xA100DA7A
CLASSIC_SIZE = 264
LARGEST_PAYLOAD = 65536
LARGEST_EXTRA = 32 << 20
SETTLE = 2                      # seconds in which what follows an ERROR has to come
READ_ONLY = 0x1E                # the flags of an opening for reading that was seen to work
# Values that say something about the host and nothing about its owner; of others only the length is noted.
OPEN_KEYS = ("adapterType", "geometry.cylinders", "geometry.heads", "geometry.sectors", "geometry.biosCylinders",
             "geometry.biosHeads", "geometry.biosSectors", "virtualHWVersion", "thinProvisioned", "logicalSectorSize",
             "physicalSectorSize", "isDigest", "encoding")


class Frame:
    """One AIO message of the server."""

    def __init__(self, kind, op, payload):
        self.kind, self.op, self.payload, self.extra = kind, op, payload, b""

    def number(self, form, at):
        """A number of the payload."""
        try:
            return struct.unpack_from("<" + form, self.payload, at)[0]
        except struct.error:
            raise Disorder(f"{AIO.get(self.kind, self.kind)} with a payload of {len(self.payload)} bytes") from None

    def extra_size(self, refused):
        """How many bytes follow the payload; none for a request that was refused, by an ERROR before or by its status."""
        if self.kind == ERROR:
            return self.number("I", 12) if len(self.payload) == 16 else 0
        if refused or self.kind not in (IO, DDB_GET, QUERY):
            return 0
        if self.kind == IO:
            return self.number("I", 36) if self.number("I", 8) == 1 and not self.number("Q", 0) else 0
        if self.kind == DDB_GET:
            return self.number("I", 12)
        return ((self.number("Q", 32) + 7) // 8 + 3) // 4 * 4

    def error(self):
        """What an ERROR says; its payload is in the messages as it came."""
        facts = {"payload_bytes": len(self.payload)}
        if len(self.payload) == 16:
            facts.update(code=self.number("Q", 0), text=self.extra.decode("utf-8", "replace"))
        return facts


class Answer:
    """What came for a request: the reply, and what an ERROR said before it."""

    def __init__(self):
        self.reply, self.errors, self.ended = None, [], None

    def good(self):
        """True when the request was carried out."""
        status = self.reply and self.reply.kind in (OPEN_FILE, IO) and self.reply.number("Q", 0)
        return bool(self.reply) and not self.errors and not status

    def facts(self):
        """For the result of an experiment."""
        facts = {"good": self.good(), "errors": [frame.error() for frame in self.errors], "reply": self.reply is not None}
        if self.reply and len(self.reply.payload) >= 8:
            facts["reply_status"] = self.reply.number("Q", 0)
        return facts if self.ended is None else dict(facts, then=self.ended)


class Transfer:
    """A read under way: fragments may come in any order, each in a compression of its own."""

    def __init__(self, length):
        self.length, self.data, self.got, self.fragments = length, bytearray(length), 0, []
        self.answer, self.finished = Answer(), False

    def take(self, frame):
        """One fragment, or the end of a refused read."""
        if frame.number("Q", 0):
            self.answer.reply, self.finished = frame, True
            return
        kind, at, count = frame.number("I", 12), frame.number("I", 28), frame.number("I", 32)
        if not count or at + count > self.length:
            raise Disorder(f"a fragment of {count} bytes at {at} of a read of {self.length}")
        data = unpack(kind, frame.extra, count)
        self.data[at:at + count] = data
        self.got += count
        self.fragments.append({"at": at, "bytes": count, "on_the_wire": len(frame.extra), "compression": kind})
        if kind == 2:
            self.fragments[-1]["level"] = (frame.extra[0] >> 5) + 1
        self.finished = self.got >= self.length
        if self.finished:
            self.answer.reply = frame


def unpack(kind, data, length):
    """A fragment as it was before compression."""
    if kind == 0:
        plain = data
    elif kind == 1:
        plain = zlib.decompressobj().decompress(data, length + 1)
    elif kind == 2:
        plain = unpack_fastlz(data, length)
    elif kind == 3:
        plain = unpack_skipz(data, length)
    else:
        raise Disorder(f"a fragment of the unknown compression {kind}")
    if len(plain) != length:
        raise Disorder(f"a fragment of compression {kind} has {len(plain)} bytes instead of {length}")
    return bytes(plain)


def unpack_skipz(data, length):
    """Runs of offset, length and bytes; what lies between them is zero."""
    out, at = bytearray(length), 8
    if len(data) < 8 or struct.unpack_from("<I", data)[0] != length:
        raise Disorder("the header of a skipz fragment")
    while at + 8 <= len(data):
        place, count = struct.unpack_from("<II", data, at)
        if place + count > length or at + 8 + count > len(data):
            raise Disorder(f"a skipz run of {count} bytes at {place}")
        out[place:place + count] = data[at + 8:at + 8 + count]
        at += 8 + count
    return out


def unpack_fastlz(data, length):
    """Both levels; the first byte says which."""
    out, at = bytearray(), 0

    def byte():
        nonlocal at
        at += 1
        return data[at - 1]

    try:
        level = (data[0] >> 5) + 1
        code = byte() & 31
        while len(out) <= length:
            if code < 32:
                if at + code + 1 > len(data):
                    raise Disorder("a fastlz fragment is cut short")
                out += data[at:at + code + 1]
                at += code + 1
            else:
                count, back = (code >> 5) - 1, (code & 31) << 8
                if count == 6:
                    more = byte()
                    count += more
                    while level == 2 and more == 255:
                        more = byte()
                        count += more
                low = byte()
                if level == 2 and low == 255 and back == 31 << 8:
                    back = (byte() << 8) + byte() + 8191
                else:
                    back += low
                if back >= len(out) or len(out) + count + 3 > length:
                    raise Disorder("a fastlz match outside the fragment")
                for _ in range(count + 3):
                    out.append(out[-back - 1])
            if at == len(data):
                break
            code = byte()
    except IndexError:
        raise Disorder("a fastlz fragment is cut short") from None
    return out


class Session:
    """A connection that speaks NFC."""

    def __init__(self, lab, door):
        self.lab, self.wire, self.record = lab, door.wire, lab.record
        self.next, self.handles, self.keys, self.refused, self.aio = 0, [], {}, set(), False
        self.capacity = self.answered = None

    # -- classic messages

    def classic(self, kind, *fields, body=b""):
        """One message of 264 bytes; `fields` are (offset, number)."""
        message = bytearray(CLASSIC_SIZE)
        struct.pack_into("<I", message, 0, kind)
        message[4:4 + len(body)] = body
        for at, number in fields:
            struct.pack_into("<I", message, at, number)
        self.record.message("client", "classic", CLASSIC[kind], bytes(message))
        return bytes(message)

    def read_classic(self):
        """The server's next one: its type and the whole message."""
        message = self.wire.read(CLASSIC_SIZE)
        kind = struct.unpack_from("<I", message)[0]
        self.record.message("server", "classic", CLASSIC.get(kind, str(kind)), message)
        if kind == 4:
            raise Refused("SESSION_COMPLETE in the handshake")
        return kind, message

    def handshake(self, version=11, first=True, together=False):
        """From the first message to the point where AIO begins; returns what the server said of itself."""
        begin = [self.classic(43, body=b"PlainText")] if first else []
        begin += [self.classic(33), self.classic(51, (4, version))]
        for message in [b"".join(begin)] if together else begin:
            self.wire.send(message)
        said, order = {}, []
        while not {36, 51} <= said.keys() and len(order) < 8:
            kind, message = self.read_classic()
            said[kind] = message
            order.append(kind)
        self.answered = struct.unpack_from("<I", said.get(51, bytes(8)), 4)[0]
        name, operation = b"vddk", b"nbdmode"
        self.wire.send(self.classic(54, (4, len(name)), (8, len(operation))))
        self.wire.send(name)
        self.wire.send(operation)
        self.wire.send(self.classic(55, (4, 3)))
        self.wire.send(self.classic(52))
        kind, _ = self.read_classic()
        if kind != 52:
            raise Disorder(f"message {kind} instead of 52")
        self.aio = True
        return {"offered": version, "answered": self.answered, "order": order}

    # -- AIO

    def send(self, kind, payload, extra=b"", **facts):
        """One request; returns its number."""
        op, self.next = self.next, self.next + 1
        head = struct.pack("<IIII", MAGIC, kind, len(payload), op) + payload
        self.record.message("client", "aio", AIO[kind], head, extra_bytes=len(extra) or None, **facts)
        self.wire.send(head + extra)
        return op

    def frame(self, seconds):
        """The server's next message, waiting so long for its first byte."""
        self.wire.patience(seconds)
        head = self.wire.read(4)
        self.wire.patience(self.lab.args.timeout)
        if head != struct.pack("<I", MAGIC):
            self.record.message("server", "aio", "no AIO message", head + self.wire.rest(1))
            raise Disorder("bytes that are no AIO message")
        head += self.wire.read(12)
        _, kind, size, op = struct.unpack("<IIII", head)
        if size > LARGEST_PAYLOAD:
            raise Disorder(f"a payload of {size} bytes")
        frame = Frame(kind, op, self.wire.read(size))
        extra = frame.extra_size(op in self.refused)
        if extra > LARGEST_EXTRA:
            raise Disorder(f"{extra} bytes behind a message")
        frame.extra = self.wire.read(extra)
        if kind == ERROR:
            self.refused.add(op)
        self.record.message("server", "aio", AIO.get(kind, str(kind)), head + frame.payload, extra=self._shown(frame))
        return frame

    def _shown(self, frame):
        """What may be known about the bytes behind a message."""
        extra = frame.extra
        if not extra:
            return None
        facts = {"bytes": len(extra)}
        if frame.kind == ERROR:
            facts["text"] = extra.decode("utf-8", "replace")
        elif frame.kind == DDB_GET and self.keys.get(frame.op) in OPEN_KEYS:
            facts["text"] = extra.decode("utf-8", "replace")
        elif frame.kind == QUERY:
            facts["chunks_in_use"] = sum(bin(byte).count("1") for byte in extra)
        elif frame.kind == IO and frame.number("I", 12) == 0:
            facts["zero"] = not any(extra)
        elif frame.kind == IO and frame.number("I", 12) == 1:
            facts["first_two_bytes"] = extra[:2].hex()
        return facts

    def ask(self, kind, payload, extra=b"", **facts):
        """A request and all that comes for it. After an ERROR the reply to the request itself is waited for shortly."""
        op, answer, seconds = self.send(kind, payload, extra, **facts), Answer(), self.lab.args.timeout
        while answer.reply is None:
            try:
                frame = self.frame(seconds)
            except (Silence, Closed) as error:
                if not answer.errors:
                    raise
                answer.ended = f"{type(error).__name__}: {error}"
                break
            if frame.kind == ERROR:
                answer.errors.append(frame)
                seconds = SETTLE
            elif frame.op == op and frame.kind == kind:
                answer.reply = frame
        return answer

    def open_session(self, buffer=65536, count=4):
        """Announces the buffers."""
        return self.ask(OPEN_SESSION, struct.pack("<IIII", 0, buffer, count, 0), buffer=buffer, count=count)

    def start(self, buffer=65536, count=4, sock_opts=True, res_pool=True):
        """The steps between the handshake and the opening of a disk."""
        answer = self.open_session(buffer, count)
        if not answer.good():
            raise Refused(f"OPEN_SESSION: {answer.facts()}")
        if sock_opts:
            self.ask(SOCK_OPTS, bytes(12))
        if res_pool:
            self.ask(RES_POOL, struct.pack("<I", 1))

    def open_file(self, path, flags=READ_ONLY):
        """Opens a disk for reading. The path is not recorded, but for its length."""
        if not flags & 4:
            raise ValueError("only openings for reading are made here")
        name = path.encode()
        payload = struct.pack("<IIIIII", len(name), 0, 0, 0, 2, flags).ljust(60, b"\0")
        answer = self.ask(OPEN_FILE, payload, name, flags=flags)
        if answer.good():
            self.handles.append(answer.reply.number("Q", 8))
            self.capacity = answer.reply.number("Q", 28)
        return answer

    def must_open(self, path, flags=READ_ONLY):
        """The same where nothing goes on without it."""
        answer = self.open_file(path, flags)
        if not answer.good():
            raise Refused(f"OPEN_FILE: {answer.facts()}")

    def send_read(self, offset, length, compression=0, handle=None):
        """Asks for bytes of the disk."""
        payload = struct.pack("<QIIQIIIII", self.handles[-1] if handle is None else handle, 1, compression, offset, length, 0,
                              length, length, 0)
        return self.send(IO, payload, offset=offset, length=length)

    def collect(self, transfers):
        """Takes fragments until all reads are over; returns the order in which they came, as numbers of requests."""
        order, seconds = [], self.lab.args.timeout
        while not all(transfer.finished for transfer in transfers.values()):
            try:
                frame = self.frame(seconds)
            except (Silence, Closed) as error:
                refused = [transfer for transfer in transfers.values() if transfer.answer.errors and not transfer.finished]
                if not refused:
                    raise
                for transfer in refused:
                    transfer.answer.ended, transfer.finished = f"{type(error).__name__}: {error}", True
                break
            if frame.op not in transfers:
                continue
            if frame.kind == ERROR:
                transfers[frame.op].answer.errors.append(frame)
                seconds = SETTLE
            elif frame.kind == IO:
                transfers[frame.op].take(frame)
                order.append(frame.op)
        return order

    def read(self, offset, length, compression=0, handle=None):
        """One read to its end."""
        transfer = Transfer(length)
        self.collect({self.send_read(offset, length, compression, handle): transfer})
        return transfer

    def ddb(self, key):
        """A value of the disk's data base; recorded where it says nothing about the owner."""
        self.keys[self.next] = key
        return self.ask(DDB_GET, struct.pack("<QII", self.handles[-1], len(key), 0), key.encode(), key=key)

    def query(self, start, chunk, count):
        """Which chunks are in use, in bytes."""
        return self.ask(QUERY, struct.pack("<QQQQQQ", self.handles[-1], 0, chunk, start, count, 0), start=start, chunk=chunk,
                        chunks=count)

    def close(self):
        """In order as far as the server goes along, then for good."""
        try:
            if self.aio:
                for handle in self.handles:
                    self.ask(CLOSE_FILE, struct.pack("<Q", handle))
                self.ask(CLOSE_SESSION, bytes(4))
                self.wire.send(self.classic(4))
        except STOPS as error:
            self.record.message("server", "aio", "the end", text=f"{type(error).__name__}: {error}")
        finally:
            self.wire.close()
