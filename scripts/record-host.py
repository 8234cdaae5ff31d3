#!/usr/bin/env python3
"""Records what a real vCenter or ESXi server answers on the way to a virtual disk, for people who have one and want to help.

The protocol behind the transports nbd and nbdssl has no public description. This library rests on what others observed on a few
hosts; docs/vsphere.md says what. This script asks a host the open questions one by one, each an experiment with a name, and writes
the answers to a JSON file that can be read before it is sent to anybody:

    scripts/record-host.py --list                                                      what it would ask
    scripts/record-host.py --server HOST --user NAME --thumbprint AA:BB:...            the virtual machines there
    scripts/record-host.py --server HOST --user NAME --thumbprint AA:BB:... --vm moref=vm-12 --output answers.json

It only reads: no snapshot is made, nothing is written, every disk is opened for reading and closed again, one connection at a time.
A running machine needs a snapshot; its disks are read as of then. What the file does not contain: the password, cookies, tickets,
the content of the disk (only sizes, and whether it was zero), names of machines, datastores, files, users and hosts, addresses,
thumbprints, identifiers. Python's standard library is all it needs; it uses nothing of this library, and so checks it as well.

The password is the first line of --password-file or the variable VIX_PASSWORD, or is asked for. Exit status: 0 the file is
complete, 1 it could not begin, 2 wrong usage, 3 it was interrupted and the file has what there was. Licence: Apache-2.0 OR MIT.
"""

import argparse
import contextlib
import getpass
import os
import sys

from record_host.api import Api, find, kind_of, value
from record_host.experiments import EXPERIMENTS, UNASKED
from record_host.nfc import Session
from record_host.record import STOPS, Disorder, Record, Redactor
from record_host.wire import Door, tls_context


class Lab:
    """The bench: the server, the machine and disk that are asked about, and where it is written down."""

    def __init__(self, args):
        self.args, self.redactor = args, Redactor()
        self.record = Record(args.output, self.redactor)
        self.context = tls_context(args.old_tls)
        self.api_leaf = self.api_tls = self.vm = self.host = self.path = self.leaf = self.key = None
        self.running, self.first = False, True
        self.api = Api(self)

    def choose(self, wanted):
        """Finds the machine by moref or name, its disk, and the snapshot through which a running one is read."""
        moref = wanted.removeprefix("moref=")
        if moref == wanted:
            found = [vm for vm, name, _ in self.api.machines() if name == wanted]
            if len(found) != 1:
                raise Disorder(f"{len(found)} machines have that name; moref=... names one by its id")
            moref = found[0]
        self.vm = ("VirtualMachine", moref)
        known = self.api.properties(self.vm, "name", "runtime.host", "runtime.powerState", "config.hardware.device", "snapshot")
        self.host, self.running = known["runtime.host"].text, known["runtime.powerState"].text == "poweredOn"
        snapshot = self.args.snapshot or (value(known.get("snapshot"), "currentSnapshot") if self.running else None)
        if self.running and not snapshot:
            raise Disorder("the machine is running and has no snapshot: its disks cannot be read. This script makes none")
        self.key, self.leaf = self._disk(known["config.hardware.device"])
        self.path = self.leaf
        if snapshot:
            target = ("VirtualMachineSnapshot", snapshot.removeprefix("moref="))
            self.key, self.path = self._disk(self.api.properties(target, "config.hardware.device")["config.hardware.device"])
        self._hide(known["name"].text)
        library = self.library_version(quiet=True)
        self.first = library is None or library >= 7    # older ones were seen to end the session at the first message

    def _disk(self, devices):
        disks = [(int(value(kid, "key")), value(kid, "backing", "fileName")) for kid in devices
                 if kind_of(kid) == "VirtualDisk" and value(kid, "backing", "fileName")]
        disks = [disk for disk in disks if self.args.key in (None, disk[0])]
        if not disks:
            raise Disorder("the machine has no such disk")
        return disks[0]

    def _hide(self, name):
        self.redactor.hide("machine", name)
        for path in (self.path, self.leaf):
            datastore, _, rest = path.partition("] ")
            self.redactor.hide("file", path)
            self.redactor.hide("file", rest)
            self.redactor.hide("datastore", datastore.lstrip("["))
            self.redactor.hide("folder", os.path.dirname(rest))
            self.redactor.hide("name", os.path.basename(rest).removesuffix(".vmdk"))

    def library_version(self, quiet=False):
        """The number that the server gives its NFC library."""
        try:
            answer = self.api.call("NfcGetServerNfcLibVersion", self.api.nfc,
                                   f'<hostForAccess type="HostSystem">{self.host}</hostForAccess>')
            return int(find(answer, "returnval").text)
        except (*STOPS, AttributeError, TypeError, ValueError):
            if quiet:
                return None
            raise

    @contextlib.contextmanager
    def connected(self):
        """A connection with a fresh ticket, where NFC begins."""
        session = Session(self, Door(self, self.api.ticket()))
        try:
            yield session
        finally:
            session.close()

    @contextlib.contextmanager
    def shaken(self):
        """The same after the handshake."""
        with self.connected() as session:
            session.handshake(first=self.first)
            yield session

    @contextlib.contextmanager
    def opened(self):
        """The same with the disk open, in the way that was seen to work."""
        with self.shaken() as session:
            session.start()
            session.must_open(self.path)
            yield session

    def run(self, names):
        """All experiments, the file written after each."""
        for name in names:
            question, function = EXPERIMENTS[name]
            print(f"{name}: {question}", file=sys.stderr, flush=True)
            entry = self.record.begin(name, question)
            try:
                entry["result"] = self.record.clean(function(self))
            except STOPS as error:
                entry["stopped"] = self.record.clean(f"{type(error).__name__}: {error}")
            finally:
                self.record.save()
            said = entry["stopped"] or str(entry["result"])
            print(f"    {said[:180]}{'...' if len(said) > 180 else ''}", file=sys.stderr, flush=True)


def password(args):
    """Never an argument: those can be seen by every user of the machine."""
    if args.password_file:
        with open(args.password_file, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    return os.environ["VIX_PASSWORD"] if "VIX_PASSWORD" in os.environ else getpass.getpass(f"Password of {args.user}: ")


def agreed(args, names):
    """Says what is about to happen, and asks."""
    print(f"""This is going to ask {args.server} {len(names)} questions about {args.vm}: {', '.join(names)}.

It logs in, reads properties of the machine, gets tickets for its files, and for most questions makes one or a few connections to
the disks' port, one after the other, each with one disk open for reading and at most some MiB read. Nothing is written to the
server and nothing is changed, but the server logs the logins and connections; one question shows it an unknown ticket, some are
about errors and get refused. A disk cannot be deleted or moved while it is open, a few seconds each time.
The answers go to {args.output}, without names, secrets and content.
""", file=sys.stderr)
    return args.yes or input("Go on? Type yes: ").strip() == "yes"


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="Records what a vCenter or ESXi server answers, only reading.")
    parser.add_argument("--server", metavar="HOST")
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--nfc-port", type=int, help="of the disks, instead of the one that tickets name")
    parser.add_argument("--user")
    parser.add_argument("--password-file", metavar="FILE",
                        help="its first line; else the variable VIX_PASSWORD, else it is asked for")
    parser.add_argument("--thumbprint", metavar="HEX", help="of the server's certificate; without it the script shows it and ends")
    parser.add_argument("--vm", help="a name, or moref=vm-12; without it the machines are listed")
    parser.add_argument("--snapshot", help="read the disk as of this snapshot; a running machine's current one otherwise")
    parser.add_argument("--key", type=int, help="the device key of the disk; the first one otherwise")
    parser.add_argument("--output", default="host-answers.json", metavar="FILE")
    parser.add_argument("--only", action="append", choices=list(EXPERIMENTS), metavar="NAME", help="this experiment; repeatable")
    parser.add_argument("--skip", action="append", default=[], choices=list(EXPERIMENTS), metavar="NAME", help="not this one")
    parser.add_argument("--ticket-ages", type=lambda text: sorted(int(age) for age in text.split(",")), default=[5, 30, 120],
                        metavar="SECONDS", help="for ticket-age, comma separated (5,30,120)")
    parser.add_argument("--idle", type=float, default=0, metavar="MINUTES", help="for idle, which is left out otherwise")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="for one answer (60)")
    parser.add_argument("--old-tls", action="store_true", help="also TLS 1.0 and SHA-1, for hosts before 6.7")
    parser.add_argument("--yes", action="store_true", help="do not ask before beginning")
    parser.add_argument("--list", action="store_true", help="say what would be asked, and end")
    args = parser.parse_args()
    if not args.list and not (args.server and args.user):
        parser.error("--server and --user are needed")
    return args


def ask(lab, names):
    """Everything in one session of the API."""
    lab.redactor.hide("server", lab.args.server)
    lab.redactor.hide("user", lab.args.user)
    lab.api.versions("vimServiceVersions.xml")      # the certificate is compared before the password is even asked for
    word = password(lab.args)
    lab.redactor.secret("password", word)
    lab.api.login(lab.args.user, word)
    try:
        if not lab.args.vm:
            for moref, name, power in lab.api.machines():
                print(f"moref={moref}\t{power}\t{name}")
            return 0
        lab.choose(lab.args.vm)
        if not agreed(lab.args, names):
            return 1
        lab.record.content["server"] = lab.record.clean(dict(lab.api.about, api_version_used=lab.api.version, tls=lab.api_tls,
                                                             running=lab.running, through_snapshot=lab.path != lab.leaf))
        lab.run(names)
        print(f"written to {lab.args.output}: please read it before you send it to anybody", file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        return 3
    finally:
        lab.api.logout()


def main():
    """The exit status."""
    args = arguments()
    names = [name for name in args.only or EXPERIMENTS if name not in args.skip]
    if args.list:
        for name, (question, _) in EXPERIMENTS.items():
            print(f"{name:<20}{question}" + (f" Not asked: {UNASKED[name]}." if name in UNASKED else ""))
        return 0
    try:
        return ask(Lab(args), names)
    except STOPS as error:
        print(f"record-host.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
