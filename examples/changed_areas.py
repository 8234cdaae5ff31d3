#!/usr/bin/env python3
"""The vSphere half of an incremental backup, with pyVmomi (`pip install pyvmomi`): snapshots and changed areas.

    changed_areas.py enable VM                      turn changed block tracking on, once for a machine
    changed_areas.py create VM                      make a snapshot; prints what `disks` prints
    changed_areas.py disks VM SNAPSHOT              the snapshot's disks: path, device key, capacity, change id, as JSON
    changed_areas.py areas VM SNAPSHOT KEY          the areas of a disk that are in use, or with --since CHANGE_ID those
                                                    that changed since then: lines of start and length, in bytes
    changed_areas.py remove VM SNAPSHOT             remove the snapshot again

VM is a name or `moref=vm-12`; SNAPSHOT an id such as `snapshot-34`, as `create` prints it. backup.c next to this file reads the
disks; a full backup and an incremental one a day later are

    changed_areas.py ... create VM > monday.json    note the change id of the disk, KEY stands next to it
    backup ... --snapshot snapshot-34 '[ds] vm/vm.vmdk' vm.raw
    changed_areas.py ... remove VM snapshot-34

    changed_areas.py ... create VM > tuesday.json
    changed_areas.py ... areas VM snapshot-56 KEY --since 'CHANGE ID OF MONDAY' > areas
    backup ... --snapshot snapshot-56 --areas areas '[ds] vm/vm.vmdk' vm.raw
    changed_areas.py ... remove VM snapshot-56

The password is the first line of --password-file or the variable VIX_PASSWORD. The exit status is 3 when the server cannot say
what changed since that change id; only a full backup helps then. Licence: Apache-2.0 OR MIT, like the library.
"""

import argparse
import hashlib
import json
import os
import ssl
import sys

from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

EXIT_FULL_BACKUP = 3
TIMEOUT = 300               # seconds, for one answer


class Failure(Exception):
    """What stops the program; its text is for the user."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


class Pinned(ssl.SSLContext):
    """Accepts one certificate, whoever signed it, and says nothing to a server that shows another one.

    pyVmomi's own `thumbprint` is not that: it is looked at only where the usual verification fails.
    """

    def pin(self, thumbprint):
        """Sets the thumbprint, SHA-1 or SHA-256."""
        self.check_hostname = False
        self.verify_mode = ssl.CERT_NONE
        self.wanted = thumbprint.lower().replace(":", "").replace(" ", "")
        self.kind = {40: hashlib.sha1, 64: hashlib.sha256}.get(len(self.wanted))
        if not self.kind:
            raise Failure("the thumbprint has neither 20 nor 32 bytes")

    def wrap_socket(self, sock, *args, **named):
        """Called for every connection; the handshake is over when it returns."""
        wrapped = super().wrap_socket(sock, *args, **named)
        found = self.kind(wrapped.getpeercert(True)).hexdigest()
        if found != self.wanted:
            wrapped.close()
            pairs = ":".join(found[at:at + 2] for at in range(0, len(found), 2)).upper()
            raise Failure(f"the server's certificate has the thumbprint {pairs}, not the expected one")
        return wrapped


def connect(args):
    """A session. With a thumbprint the server's certificate has to be that one; otherwise the usual authorities vouch for it."""
    if args.thumbprint:
        context = Pinned(ssl.PROTOCOL_TLS_CLIENT)
        context.pin(args.thumbprint)
    else:
        context = ssl.create_default_context(cafile=args.ca_file)
    try:
        return SmartConnect(host=args.server, port=args.port, user=args.user, pwd=password(args), sslContext=context,
                            httpConnectionTimeout=TIMEOUT)
    except (Failure, vmodl.MethodFault, OSError):
        raise
    except Exception as error:      # pyVmomi has no narrower class for a server of another kind
        raise Failure(f"connecting to {args.server}: {error}") from error


def password(args):
    """Never an argument: those can be seen by every user of the machine."""
    if args.password_file:
        with open(args.password_file, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    if "VIX_PASSWORD" not in os.environ:
        raise Failure("no password: neither --password-file nor VIX_PASSWORD is given")
    return os.environ["VIX_PASSWORD"]


def find_machine(si, name):
    """The virtual machine of that id or name."""
    if name.startswith("moref="):
        return vim.VirtualMachine(name[len("moref="):], si._stub)
    content = si.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    try:
        found = [machine for machine in view.view if machine.name == name]
    finally:
        view.DestroyView()
    if len(found) != 1:
        raise Failure(f"{len(found) or 'no'} virtual machines are called {name}; moref=... names one by its id")
    return found[0]


def find_snapshot(si, text):
    """The snapshot of that id."""
    return vim.vm.Snapshot(text.removeprefix("moref="), si._stub)


def disks(machine, snapshot):
    """What a backup has to know about the disks as they were at the snapshot."""
    found = []
    for device in snapshot.config.hardware.device:
        if isinstance(device, vim.vm.device.VirtualDisk):
            backing = device.backing
            found.append({
                "key": device.key,
                "path": backing.fileName,
                "capacity": device.capacityInBytes or device.capacityInKB * 1024,
                "mode": getattr(backing, "diskMode", None),
                "change_id": getattr(backing, "changeId", None),
            })
    return {"vm": machine._moId, "snapshot": snapshot._moId, "disks": found}


def changed_areas(machine, snapshot, key, since):
    """Yields (start, length) in bytes for a disk of the snapshot, asking slice by slice until its end."""
    described = [disk for disk in disks(machine, snapshot)["disks"] if disk["key"] == key]
    if not described:
        raise Failure(f"the snapshot has no disk with the key {key}")
    at, capacity = 0, described[0]["capacity"]
    while at < capacity:
        answer = machine.QueryChangedDiskAreas(snapshot=snapshot, deviceKey=key, startOffset=at, changeId=since)
        end = answer.startOffset + answer.length    # the answer covers this much, however many areas are in it
        if end <= at:
            raise Failure(f"the server's answer about offset {at} ends at {end}")
        for area in answer.changedArea or []:
            yield area.start, area.length
        at = end


def enable(si, machine, _args):
    """Tracking starts with the next snapshot or power-on; a change id exists from then on."""
    if machine.config.changeTrackingEnabled:
        print("changed block tracking is on already", file=sys.stderr)
        return
    WaitForTask(machine.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)), si=si)
    print("changed block tracking is on", file=sys.stderr)


def create(si, machine, args):
    """Makes the snapshot and describes it."""
    task = machine.CreateSnapshot_Task(name=args.name, description="for a backup", memory=False, quiesce=args.quiesce)
    WaitForTask(task, si=si)
    snapshot = task.info.result
    print(f"made {snapshot._moId}", file=sys.stderr)
    show(disks(machine, snapshot))


def show_disks(si, machine, args):
    """Describes a snapshot that is there."""
    show(disks(machine, find_snapshot(si, args.snapshot)))


def show(described):
    """JSON, and a word about disks that cannot be backed up incrementally."""
    for disk in described["disks"]:
        if not disk["change_id"]:
            print(f"{disk['path']} has no change id: tracking is off, or the disk is independent", file=sys.stderr)
    print(json.dumps(described, indent=2))


def areas(si, machine, args):
    """Prints nothing until everything is known: half a list would make a wrong backup."""
    try:
        found = list(changed_areas(machine, find_snapshot(si, args.snapshot), args.key, args.since))
    except (vim.fault.FileFault, vim.fault.NotFound, vmodl.fault.InvalidArgument) as fault:
        if args.since == "*":
            raise
        raise Failure(f"{fault.msg}\nThe server does not know what changed since {args.since}: make a full backup",
                      EXIT_FULL_BACKUP) from fault
    sys.stdout.writelines(f"{start} {length}\n" for start, length in found)
    print(f"{len(found)} areas, {sum(length for _, length in found) / 1048576:.1f} MiB", file=sys.stderr)


def remove(si, _machine, args):
    """Removes the snapshot alone and merges its disks; snapshots that were made after it stay."""
    WaitForTask(find_snapshot(si, args.snapshot).RemoveSnapshot_Task(removeChildren=False, consolidate=True), si=si)
    print(f"removed {args.snapshot}", file=sys.stderr)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="Snapshots and changed areas of a virtual machine of vCenter or ESXi.")
    parser.add_argument("--server", required=True, metavar="HOST")
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password-file", metavar="FILE", help="its first line; else the variable VIX_PASSWORD")
    parser.add_argument("--thumbprint", metavar="HEX", help="of the server's certificate, SHA-1 or SHA-256, AA:BB:...")
    parser.add_argument("--ca-file", metavar="FILE", help="authorities that vouch for the server, in PEM")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, run, about, *extra):
        sub = commands.add_parser(name, help=about)
        sub.set_defaults(run=run)
        sub.add_argument("vm", help="a name, or moref=vm-12")
        for word in extra:
            sub.add_argument(word)
        return sub

    command("enable", enable, "turn changed block tracking on")
    made = command("create", create, "make a snapshot and print its disks")
    made.add_argument("--name", default="backup")
    made.add_argument("--quiesce", action="store_true", help="have the guest's file systems at rest for it")
    command("disks", show_disks, "print the disks of a snapshot", "snapshot")
    listed = command("areas", areas, "print the areas of a disk that changed", "snapshot")
    listed.add_argument("key", type=int, help="the disk's device key")
    listed.add_argument("--since", default="*", metavar="CHANGE_ID", help="without it, all that is in use")
    command("remove", remove, "remove a snapshot", "snapshot")
    return parser.parse_args()


def main():
    """Runs one command in a session of its own."""
    args = arguments()
    try:
        si = connect(args)
        try:
            args.run(si, find_machine(si, args.vm), args)
        finally:
            Disconnect(si)
    except Failure as failure:
        print(f"changed_areas.py: {failure}", file=sys.stderr)
        sys.exit(failure.status)
    except vmodl.MethodFault as fault:
        sys.exit(f"changed_areas.py: {type(fault).__name__.rsplit('.', 1)[-1]}: {fault.msg}")
    except OSError as error:
        sys.exit(f"changed_areas.py: {error}")


if __name__ == "__main__":
    main()
