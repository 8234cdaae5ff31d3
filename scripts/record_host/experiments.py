"""The questions. Each function asks one, with connections of its own, and returns what came out; `lab` is the bench it works at."""

import os
import time
import uuid

from .nfc import OPEN_KEYS, READ_ONLY, Transfer
from .record import STOPS
from .wire import Door, thumbprint

KIB = 1024
MIB = 1 << 20
EXPERIMENTS = {}
UNASKED = {}    # questions that stay open, with the reason


def experiment(name, question):
    """Enters a function under its name."""
    def enter(function):
        EXPERIMENTS[name] = (question, function)
        return function
    return enter


def unasked(name, question, because):
    """Enters a question that this script does not ask, so that the file says that it is open."""
    UNASKED[name] = because
    experiment(name, question)(lambda _lab: {"asked": False, "because": because})


def attempt(action, *arguments, **named):
    """What the action returns, or why it stopped."""
    try:
        return action(*arguments, **named)
    except STOPS as error:
        return {"stopped": f"{type(error).__name__}: {error}"}


def read_facts(transfer):
    """A read without its data."""
    facts = transfer.answer.facts()
    return dict(facts, fragments=transfer.fragments, in_order=[f["at"] for f in transfer.fragments]
                == sorted(f["at"] for f in transfer.fragments))


# ---- Without a disk ----------------------------------------------------------------------------------------------------

@experiment("versions", "which versions of the API and of the NFC library are there?")
def versions(lab):
    """No connection to the disks' port."""
    return {"api": [entry["version"] for entry in lab.api.versions("vimServiceVersions.xml")][:20],
            "nfc_namespace": lab.api.versions("nfcServiceVersions.xml")[:20],
            "nfc_library": attempt(lab.library_version)}


@experiment("tickets", "which fields has a ticket, and which calls give one?")
def tickets(lab):
    """The tickets are not used; what is in them is not recorded."""
    more = f'<diskDeviceKey>{lab.key}</diskDeviceKey><hostForAccess type="HostSystem">{lab.host}</hostForAccess>'
    return {"NfcGetVmFiles": attempt(lambda: sorted(lab.api.ticket())),
            "NfcRandomAccessOpenReadonly": attempt(lambda: sorted(lab.api.ticket("NfcRandomAccessOpenReadonly", more)))}


@experiment("authd", "what do the banner and the replies before NFC say, with and without a second TLS?")
def authd(lab):
    """The connection is closed where NFC would begin."""
    def enter(secure):
        door = Door(lab, lab.api.ticket(), secure)
        door.wire.close()
        return {step: text for step, text in door.said.items() if step != "thumbprint"}
    return {"nbd": attempt(enter, False), "nbdssl": attempt(enter, True)}


@experiment("tls2-leaf", "whose certificate does the second TLS show?")
def tls2_leaf(lab):
    """Compared with all the others; none is recorded."""
    door = Door(lab, lab.api.ticket())
    door.wire.close()
    said = door.said.get("thumbprint", "")
    return {"same_as_first_tls": door.inner == door.leaf, "same_as_api": door.inner == lab.api_leaf,
            "thumbprint_line_is_that_of": {"first_tls": thumbprint(door.leaf, "sha256") in said.upper(),
                                           "second_tls": thumbprint(door.inner, "sha256") in said.upper()} if said else None}


@experiment("ticket-second-use", "what does the host say to a ticket that was used?")
def ticket_second_use(lab):
    """The first connection is closed before the second one comes."""
    ticket = lab.api.ticket()

    def enter():
        door = Door(lab, ticket)
        door.wire.close()
        return {"proxy": door.said["proxy"]}
    return {"first": attempt(enter), "second": attempt(enter)}


@experiment("ticket-unknown", "what does the host say to a ticket that nobody gave out?")
def ticket_unknown(lab):
    """The host may count this as one failed login."""
    ticket = dict(lab.api.ticket(), sessionId=str(uuid.uuid4()))
    lab.redactor.secret("ticket", ticket["sessionId"])

    def enter():
        door = Door(lab, ticket)
        door.wire.close()
        return {"proxy": door.said["proxy"]}
    return attempt(enter)


@experiment("ticket-age", "how old may a ticket be? (--ticket-ages)")
def ticket_age(lab):
    """All tickets are got at the beginning and each is used once, at its age in seconds."""
    held, began, results = [(age, lab.api.ticket()) for age in lab.args.ticket_ages], time.monotonic(), {}
    for age, ticket in held:
        time.sleep(max(0, began + age - time.monotonic()))
        door = attempt(Door, lab, ticket)
        if isinstance(door, Door):
            door.wire.close()
        results[str(age)] = door if isinstance(door, dict) else {"proxy": door.said["proxy"]}
    return results


# ---- The handshake -----------------------------------------------------------------------------------------------------

@experiment("handshake", "which version is answered to which, and is the first message wanted?")
def handshake(lab):
    """Ends before a disk is opened."""
    def shake(**how):
        with lab.connected() as session:
            return dict(attempt(session.handshake, **how), answered=session.answered)
    return {"offer 11": attempt(shake, version=11), "offer 12": attempt(shake, version=12), "offer 2": attempt(shake, version=2),
            "without message 43": attempt(shake, first=False)}


@experiment("records", "may several classic messages come in one TLS record?")
def records(lab):
    """The first three together."""
    with lab.connected() as session:
        return dict(attempt(session.handshake, first=lab.first, together=True), answered=session.answered)


# ---- With the disk -----------------------------------------------------------------------------------------------------

@experiment("open", "what does an ordinary opening, reading and closing look like?")
def open_ordinary(lab):
    """With the keys of the data base that say nothing about the owner, and one that does not exist."""
    with lab.opened() as session:
        keys = {key: len(session.ddb(key).reply.extra) for key in (*OPEN_KEYS, "uuid", "noSuchKey")}
        chunks = min(session.capacity // (64 * KIB), 16)
        return {"capacity": session.capacity, "length_of_values": keys,
                "query": attempt(lambda: session.query(0, 64 * KIB, chunks).facts()),
                "read": read_facts(session.read(0, min(64 * KIB, session.capacity)))}


@experiment("without-setup", "does a disk open without SET_SOCK_OPTS, without SET_RES_POOL, without both?")
def without_setup(lab):
    """With a read, to see that it is usable."""
    def run(**how):
        with lab.shaken() as session:
            session.start(**how)
            session.must_open(lab.path)
            return read_facts(session.read(0, 64 * KIB))
    return {"without SET_SOCK_OPTS": attempt(run, sock_opts=False), "without SET_RES_POOL": attempt(run, res_pool=False),
            "without both": attempt(run, sock_opts=False, res_pool=False)}


@experiment("open-flags", "which of the flags of OPEN_FILE does an opening for reading need?")
def open_flags(lab):
    """Only flags that are set in every opening that was seen, and always the one for reading: an unknown flag could write."""
    def run(flags):
        with lab.shaken() as session:
            session.start()
            answer = session.open_file(lab.path, flags)
            return dict(answer.facts(), read=read_facts(session.read(0, 64 * KIB)) if answer.good() else None)
    return {f"{flags:#x}": attempt(run, flags) for flags in (READ_ONLY, 0x1C, 0x16, 0x0E, 0x04)}


@experiment("buffers", "which buffers does OPEN_SESSION accept, and what size have the fragments then?")
def buffers(lab):
    """One read of 4 MiB, or of the disk, for each."""
    def run(buffer, count):
        with lab.shaken() as session:
            session.start(buffer, count)
            session.must_open(lab.path)
            began = time.monotonic()
            transfer = session.read(0, min(4 * MIB, session.capacity))
            facts = read_facts(transfer)
            return dict(facts, seconds=round(time.monotonic() - began, 4), fragments=len(transfer.fragments),
                        sizes=sorted({part["bytes"] for part in transfer.fragments}))
    tried = ((64 * KIB, 1), (64 * KIB, 4), (64 * KIB, 16), (MIB, 1), (MIB, 4), (2 * MIB, 1), (2 * MIB, 4), (4 * MIB, 1))
    return {f"{size // KIB} KiB x {count}": attempt(run, size, count) for size, count in tried}


@experiment("outstanding", "how many reads may be under way at once, and do their fragments mix?")
def outstanding(lab):
    """Reads of 128 KiB on one connection; the second half announces a single buffer."""
    def run(count, depth):
        with lab.shaken() as session:
            session.start(count=count)
            session.must_open(lab.path)
            size = min(128 * KIB, session.capacity)
            places = max(1, session.capacity // size)
            began = time.monotonic()
            waiting = {session.send_read(index % places * size, size): Transfer(size) for index in range(depth)}
            order = session.collect(waiting)
            lone = [op for at, op in enumerate(order) if not at or order[at - 1] != op]
            return {"seconds": round(time.monotonic() - began, 4), "good": all(t.answer.good() for t in waiting.values()),
                    "errors": [frame.error() for t in waiting.values() for frame in t.answer.errors][:4],
                    "first_fragments_in_order": sorted(waiting) == sorted(waiting, key=lambda op: order.index(op))
                    if len(set(order)) == depth else None, "fragments_of_reads_mix": len(lone) > len(set(order))}
    return {f"{count} buffers, {depth} reads": attempt(run, count, depth)
            for count, depth in ((4, 1), (4, 4), (4, 8), (4, 16), (4, 32), (1, 4), (1, 16), (1, 32))}


@experiment("compression", "what do compressed fragments look like: level of FastLZ, header of zlib, runs of skipz?")
def compression(lab):
    """Where the disk holds data, so that there is something to compress; decompressed here and compared with a plain read."""
    with lab.opened() as session:
        chunks = min(session.capacity // (64 * KIB), 4096)
        query = session.query(0, 64 * KIB, chunks) if chunks else None
        used = [chunk for chunk in range(chunks) if query.good() and query.reply.extra[chunk // 8] >> chunk % 8 & 1]
        at = used[0] * 64 * KIB if used else 0
        results = {"region_in_use": bool(used)}
        for length in (512, 8 * KIB, 64 * KIB, 192 * KIB + 512):
            length = min(length, session.capacity - at)
            plain = session.read(at, length)
            for kind, name in enumerate(("none", "zlib", "fastlz", "skipz")):
                def run():
                    transfer = session.read(at, length, kind)
                    return dict(read_facts(transfer), equal_to_plain=transfer.data == plain.data)
                results[f"{name}, {length} bytes"] = attempt(run)
        return results


@experiment("several-files", "may one session open several files?")
def several_files(lab):
    """The same disk twice, read through both handles."""
    with lab.opened() as session:
        second = session.open_file(lab.path)
        reads = [read_facts(session.read(0, 64 * KIB, handle=handle)) for handle in session.handles]
        return {"second": second.facts(), "handles_differ": len(set(session.handles)) == 2, "reads": reads}


unasked("file-info", "what is the layout of GET_FILE_INFO?",
        "no layout is known, and none is guessed on somebody's host")
unasked("open-unbuffered", "which flag of OPEN_FILE is that of an unbuffered opening, and which that of a single link?",
        "their numbers are not known, and an unknown flag could be one for writing; open-flags leaves flags out instead")
unasked("fastlz-level", "does a host take FastLZ of level 1 for 64 KiB?",
        "only who writes sends packed data; which level the host itself uses is in what compression shows")


# ---- Errors ------------------------------------------------------------------------------------------------------------

def usable(session):
    """Whether a plain read works after an error."""
    return attempt(lambda: read_facts(session.read(0, min(64 * KIB, session.capacity)))["good"])


@experiment("error-path", "what is the ERROR for a disk that does not exist, and is the connection usable afterwards?")
def error_path(lab):
    """A name beside the disk's that nobody has."""
    stem, end = os.path.splitext(lab.path)
    with lab.shaken() as session:
        session.start()
        missing = f"{stem}-no-such-disk{end}"
        lab.redactor.hide("file", missing)
        answer = session.open_file(missing).facts()
        return {"answer": answer, "then_the_right_one": attempt(lambda: session.open_file(lab.path).facts())}


@experiment("error-query", "what is the ERROR for a question about blocks that is not aligned?")
def error_query(lab):
    """Start and length have to be multiples of the chunk; this start is not."""
    with lab.opened() as session:
        return {"answer": attempt(lambda: session.query(512, 64 * KIB, 4).facts()), "usable": usable(session)}


@experiment("error-read", "what is the ERROR for a read past the end, and for one that is no whole sector?")
def error_read(lab):
    """Each on a connection of its own."""
    def run(place, length):
        with lab.opened() as session:
            answer = attempt(lambda: read_facts(session.read(session.capacity if place is None else place, length)))
            return {"answer": answer, "usable": usable(session)}
    return {"past the end": attempt(run, None, 512), "half a sector": attempt(run, 0, 256)}


@experiment("error-buffers", "what is the ERROR for buffers that are too large, and does the session open with smaller ones then?")
def error_buffers(lab):
    """16 MiB, which ESXi 8 refused."""
    with lab.shaken() as session:
        answer = session.open_session(16 * MIB, 1).facts()
        return {"answer": answer, "then_64_kib": attempt(lambda: session.open_session().facts())}


@experiment("error-leaf", "what is the ERROR for the disk that a running machine writes to?")
def error_leaf(lab):
    """Only for a running machine; the opening is one for reading."""
    if not lab.running:
        return {"asked": False, "because": "the machine is not running"}
    with lab.shaken() as session:
        session.start()
        return session.open_file(lab.leaf).facts()


@experiment("idle", "does a disk stay open that nobody reads? (--idle)")
def idle(lab):
    """Waits that many minutes, then reads; the last one, because the API's session may end meanwhile."""
    if not lab.args.idle:
        return {"asked": False, "because": "--idle was not given"}
    with lab.opened() as session:
        time.sleep(lab.args.idle * 60)
        return {"minutes": lab.args.idle, "read": attempt(lambda: read_facts(session.read(0, 64 * KIB)))}
