#!/usr/bin/env python3
"""VixDiskLib for Python, with nothing but ctypes.

As a module:

    import vixdisklib

    with vixdisklib.Library("/opt/vmware-vix-disklib-distrib") as library:
        with library.connect() as connection, connection.open("/vm/disk.vmdk") as disk:
            print(disk.info().capacity, disk.metadata())
            first = disk.read(0, 8)                     # sectors in, bytes out
            for start, count in disk.allocated():       # everything else is zeros
                ...
        server = vixdisklib.Server("vcenter.example", user="backup", password=word, thumbprint="AA:BB:...", vm="moref=vm-12")
        with library.connect(server) as connection, connection.open("[ds] vm/vm.vmdk") as disk:
            ...

As a program:

    vixdisklib.py info DISK         what kind of disk it is
    vixdisklib.py map DISK          the allocated ranges: first sector, number of sectors
    vixdisklib.py metadata DISK     its metadata as key = value
    vixdisklib.py cat DISK          its content, raw, to the standard output (--start, --count in sectors)
    vixdisklib.py put DISK          the standard input, raw and of whole sectors, into it from --start on

With --server the disk is one of a virtual machine of vCenter or ESXi, named as vSphere does: "[datastore] folder/disk.vmdk". The
password is the first line of --password-file or the variable VIX_PASSWORD.

The library is the one named by --libdir or VIXDISKLIB_LIBDIR (the folder that has lib64), else the one next to this file,
else whatever the loader finds. Licence: Apache-2.0 OR MIT, like the library.
"""

import argparse
import ctypes
import os
import sys
from ctypes import (CFUNCTYPE, POINTER, Structure, Union, byref, c_char, c_char_p, c_int, c_long, c_size_t, c_uint8,
                    c_uint16, c_uint32, c_uint64, c_void_p, create_string_buffer)

SECTOR_SIZE = 512
MIN_CHUNK_SIZE = 128        # sectors
MAX_CHUNK_NUMBER = 524288   # chunks in one query

OPEN_UNBUFFERED = 1
OPEN_SINGLE_LINK = 2
OPEN_READ_ONLY = 4

OPEN_COMPRESSION = {"none": 0, "zlib": 16, "fastlz": 32, "skipz": 64}

CRED_UID = 1
CRED_SESSIONID = 2

DISK_MONOLITHIC_SPARSE = 1
DISK_MONOLITHIC_FLAT = 2
ADAPTER_SCSI_LSILOGIC = 3
HWVERSION_CURRENT = 13

VIX_OK = 0
VIX_E_BUFFER_TOOSMALL = 24

VixError = c_uint64
Handle = c_void_p

# A log function gets a format and a va_list. On the machines this runs on a va_list argument arrives as a pointer, which
# is handed on to vsnprintf untouched.
LogFn = CFUNCTYPE(None, c_char_p, c_void_p)
ProgressFn = CFUNCTYPE(c_char, c_void_p, c_int)
CompletionFn = CFUNCTYPE(None, c_void_p, VixError)


class Geometry(Structure):
    _fields_ = [("cylinders", c_uint32), ("heads", c_uint32), ("sectors", c_uint32)]


class Info(Structure):
    _fields_ = [("biosGeo", Geometry), ("physGeo", Geometry), ("capacity", c_uint64), ("adapterType", c_int),
                ("numLinks", c_int), ("parentFileNameHint", c_char_p), ("uuid", c_char_p),
                ("logicalSectorSize", c_uint32), ("physicalSectorSize", c_uint32)]


class CreateParams(Structure):
    _fields_ = [("diskType", c_int), ("adapterType", c_int), ("hwVersion", c_uint16), ("capacity", c_uint64),
                ("logicalSectorSize", c_uint32), ("physicalSectorSize", c_uint32)]


class UidCreds(Structure):
    _fields_ = [("userName", c_char_p), ("password", c_char_p)]


class SessionCreds(Structure):
    _fields_ = [("cookie", c_char_p), ("userName", c_char_p), ("key", c_char_p)]


class Creds(Union):
    _fields_ = [("uid", UidCreds), ("sessionId", SessionCreds), ("ticketId", c_void_p)]


class StorageObjectSpec(Structure):
    _fields_ = [("id", c_char_p), ("datastoreMoRef", c_char_p), ("ssId", c_char_p)]


class Spec(Union):
    _fields_ = [("vStorageObjSpec", StorageObjectSpec)]


class ConnectParams(Structure):
    _fields_ = [("vmxSpec", c_char_p), ("serverName", c_char_p), ("thumbPrint", c_char_p), ("privateUse", c_long),
                ("credType", c_int), ("creds", Creds), ("port", c_uint32), ("nfcHostPort", c_uint32),
                ("vimApiVer", c_char_p), ("reserved", c_char * 8), ("state", c_void_p), ("spec", Spec),
                ("specType", c_int)]


class Block(Structure):
    _fields_ = [("offset", c_uint64), ("length", c_uint64)]


class BlockList(Structure):
    _fields_ = [("numBlocks", c_uint32), ("blocks", Block * 1)]


# name: (result, arguments). A text that the library owns is declared as a pointer, so that it can be given back.
PROTOTYPES = {
    "InitEx": (VixError, [c_uint32, c_uint32, LogFn, LogFn, LogFn, c_char_p, c_char_p]),
    "Exit": (None, []),
    "ListTransportModes": (c_char_p, []),
    "GetErrorText": (c_void_p, [VixError, c_char_p]),
    "FreeErrorText": (None, [c_void_p]),
    "AllocateConnectParams": (POINTER(ConnectParams), []),
    "FreeConnectParams": (None, [POINTER(ConnectParams)]),
    "ConnectEx": (VixError, [POINTER(ConnectParams), c_char, c_char_p, c_char_p, POINTER(Handle)]),
    "Disconnect": (VixError, [Handle]),
    "Create": (VixError, [Handle, c_char_p, POINTER(CreateParams), ProgressFn, c_void_p]),
    "Open": (VixError, [Handle, c_char_p, c_uint32, POINTER(Handle)]),
    "Close": (VixError, [Handle]),
    "GetInfo": (VixError, [Handle, POINTER(POINTER(Info))]),
    "FreeInfo": (None, [POINTER(Info)]),
    "GetTransportMode": (c_char_p, [Handle]),
    "Read": (VixError, [Handle, c_uint64, c_uint64, c_void_p]),
    "ReadAsync": (VixError, [Handle, c_uint64, c_uint64, c_void_p, CompletionFn, c_void_p]),
    "Write": (VixError, [Handle, c_uint64, c_uint64, c_void_p]),
    "WriteAsync": (VixError, [Handle, c_uint64, c_uint64, c_void_p, CompletionFn, c_void_p]),
    "Flush": (VixError, [Handle]),
    "Wait": (VixError, [Handle]),
    "QueryAllocatedBlocks": (VixError, [Handle, c_uint64, c_uint64, c_uint64, POINTER(POINTER(BlockList))]),
    "FreeBlockList": (VixError, [POINTER(BlockList)]),
    "ReadMetadata": (VixError, [Handle, c_char_p, c_char_p, c_size_t, POINTER(c_size_t)]),
    "WriteMetadata": (VixError, [Handle, c_char_p, c_char_p]),
    "GetMetadataKeys": (VixError, [Handle, c_char_p, c_size_t, POINTER(c_size_t)]),
}


class VixDiskLibError(Exception):
    """A call failed; `code` is the library's error code."""

    def __init__(self, what, code, text):
        super().__init__(f"{what}: error {code} ({text})")
        self.code = code


class DiskInfo:
    """What a disk says about itself, copied out of the library's memory."""

    def __init__(self, raw):
        def geometry(g):
            return g.cylinders, g.heads, g.sectors

        def text(value):
            return None if value is None else value.decode("utf-8", "replace")

        self.capacity = raw.capacity
        self.links = raw.numLinks
        self.adapter_type = raw.adapterType
        self.geometry = geometry(raw.physGeo)
        self.bios_geometry = geometry(raw.biosGeo)
        self.parent_hint = text(raw.parentFileNameHint)
        self.uuid = text(raw.uuid)
        self.logical_sector_size = raw.logicalSectorSize
        self.physical_sector_size = raw.physicalSectorSize


def find_library(libdir=None):
    """The name to load: below `libdir`, next to this file, or left to the loader."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for top in (libdir, os.environ.get("VIXDISKLIB_LIBDIR"), here):
        for folder in ("lib64", "") if top else ():
            path = os.path.join(top, folder, "libvixDiskLib.so")
            if os.path.exists(path):
                return path
        if top and top is libdir:
            raise FileNotFoundError(f"no libvixDiskLib.so in {libdir}/lib64 or {libdir}")
    return "libvixDiskLib.so"


class Library:
    """The loaded and initialised library. `log` takes each line of its log as a string."""

    def __init__(self, libdir=None, config=None, log=None):
        self._c = ctypes.CDLL(find_library(libdir))
        for name, (restype, argtypes) in PROTOTYPES.items():
            function = getattr(self._c, "VixDiskLib_" + name)
            function.restype = restype
            function.argtypes = argtypes
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._vsnprintf.restype = c_int
        self._vsnprintf.argtypes = [c_void_p, c_size_t, c_char_p, c_void_p]
        # The library keeps these pointers: they have to live as long as it does.
        self._callbacks = [self._log_function(log or (lambda line: None)),
                           self._log_function(log or (lambda line: print(line, file=sys.stderr)))]
        quiet, loud = self._callbacks
        self.check("InitEx", self._c.VixDiskLib_InitEx(7, 0, quiet, loud, loud, _path(libdir), _path(config)))
        self._open = True

    def _log_function(self, take):
        def on_line(fmt, args):
            buf = create_string_buffer(4096)
            if self._vsnprintf(buf, len(buf), fmt, args) >= 0:
                take(buf.value.decode("utf-8", "replace").rstrip("\n"))
        return LogFn(on_line)

    def check(self, what, err):
        """Raises VixDiskLibError unless `err` is VIX_OK."""
        if err == VIX_OK:
            return
        text = self._c.VixDiskLib_GetErrorText(err, None)
        words = ctypes.string_at(text).decode("utf-8", "replace") if text else "unknown"
        self._c.VixDiskLib_FreeErrorText(text)
        raise VixDiskLibError(what, err & 0xffff, words)

    def transport_modes(self):
        """The transports of this build."""
        return self._c.VixDiskLib_ListTransportModes().decode().split(":")

    def connect(self, server=None, read_only=False):
        """A connection for local disks, or for those of a `Server`. With `read_only` nothing can be written to a server."""
        return Connection(self, server, read_only)

    def close(self):
        """Closes everything and ends the library's threads."""
        if self._open:
            self._open = False
            self._c.VixDiskLib_Exit()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Server:
    """Where disks that are no local files are, and who asks for them."""

    def __init__(self, host, user=None, password=None, cookie=None, thumbprint=None, vm=None, snapshot=None, transports=None,
                 port=0, nfc_port=0):
        self.host, self.user, self._password, self._cookie = host, user, password, cookie
        self.thumbprint, self.vm, self.snapshot, self.transports = thumbprint, vm, snapshot, transports
        self.port, self.nfc_port = port, nfc_port

    def fill(self, params):
        """Puts all this into the library's structure, which keeps the bytes alive."""
        params.serverName, params.vmxSpec, params.thumbPrint = map(_bytes, (self.host, self.vm, self.thumbprint))
        params.port, params.nfcHostPort = self.port, self.nfc_port
        if self._cookie:
            params.credType = CRED_SESSIONID
            params.creds.sessionId.cookie, params.creds.sessionId.userName = _bytes(self._cookie), _bytes(self.user)
        elif self.user:
            params.credType = CRED_UID
            params.creds.uid.userName, params.creds.uid.password = _bytes(self.user), _bytes(self._password)


class Connection:
    """A place where disks are opened: this machine, or a server."""

    def __init__(self, library, server=None, read_only=False):
        self.library, self._c = library, library._c
        self._handle = Handle()
        params = self._c.VixDiskLib_AllocateConnectParams()
        snapshot = transports = None
        if server:
            server.fill(params.contents)
            snapshot, transports = _bytes(server.snapshot), _bytes(server.transports)
        try:
            library.check("ConnectEx", self._c.VixDiskLib_ConnectEx(params, b"\1" if read_only else b"\0", snapshot, transports,
                                                                    byref(self._handle)))
        finally:
            self._c.VixDiskLib_FreeConnectParams(params)

    def open(self, path, flags=OPEN_READ_ONLY):
        """Opens a disk with its parents."""
        return Disk(self, path, flags)

    def create(self, path, capacity, disk_type=DISK_MONOLITHIC_SPARSE, adapter_type=ADAPTER_SCSI_LSILOGIC):
        """Makes a disk of `capacity` sectors that reads as zeros."""
        params = CreateParams(disk_type, adapter_type, HWVERSION_CURRENT, capacity, SECTOR_SIZE, SECTOR_SIZE)
        err = self._c.VixDiskLib_Create(self._handle, _path(path), byref(params), ProgressFn(), None)
        self.library.check(f"creating {path}", err)

    def close(self):
        """Disconnects; disks that are open on it are closed."""
        if self._handle:
            handle, self._handle = self._handle, None
            self.library.check("Disconnect", self._c.VixDiskLib_Disconnect(handle))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Disk:
    """An open disk. Positions and lengths are in sectors of 512 bytes."""

    def __init__(self, connection, path, flags):
        self.library, self._c = connection.library, connection._c
        self._handle = Handle()
        err = self._c.VixDiskLib_Open(connection._handle, _path(path), flags, byref(self._handle))
        self.library.check(f"opening {path}", err)

    def info(self):
        """What the disk says about itself."""
        raw = POINTER(Info)()
        self.library.check("GetInfo", self._c.VixDiskLib_GetInfo(self._handle, byref(raw)))
        try:
            return DiskInfo(raw.contents)
        finally:
            self._c.VixDiskLib_FreeInfo(raw)

    def transport_mode(self):
        """The transport it was opened with."""
        return self._c.VixDiskLib_GetTransportMode(self._handle).decode()

    def read(self, start, count):
        """`count` sectors from `start`, as bytes."""
        buf = bytearray(count * SECTOR_SIZE)
        self.read_into(start, buf)
        return bytes(buf)

    def read_into(self, start, buf):
        """Fills a writable buffer of whole sectors from `start`."""
        count, rest = divmod(len(buf), SECTOR_SIZE)
        if rest:
            raise ValueError("the buffer is not a whole number of sectors")
        if count:
            view = (c_uint8 * len(buf)).from_buffer(buf)
            self.library.check(f"reading {count} sectors at {start}",
                               self._c.VixDiskLib_Read(self._handle, start, count, view))

    def write(self, start, data):
        """Writes whole sectors at `start`."""
        count, rest = divmod(len(data), SECTOR_SIZE)
        if rest:
            raise ValueError("the data are not a whole number of sectors")
        self.library.check(f"writing {count} sectors at {start}",
                           self._c.VixDiskLib_Write(self._handle, start, count, bytes(data)))

    def flush(self):
        """Returns when everything written is stable."""
        self.library.check("Wait", self._c.VixDiskLib_Wait(self._handle))
        self.library.check("Flush", self._c.VixDiskLib_Flush(self._handle))

    def allocated(self, chunk=MIN_CHUNK_SIZE):
        """Ranges (start, count) that may hold data, ascending; everything else is zeros."""
        capacity = self.info().capacity
        whole = capacity // chunk * chunk
        step = chunk * MAX_CHUNK_NUMBER
        for at in range(0, whole, step):
            raw = POINTER(BlockList)()
            self.library.check("QueryAllocatedBlocks", self._c.VixDiskLib_QueryAllocatedBlocks(
                self._handle, at, min(step, whole - at), chunk, byref(raw)))
            try:
                count = raw.contents.numBlocks
                blocks = ctypes.cast(raw.contents.blocks, POINTER(Block))
                found = [(blocks[i].offset, blocks[i].length) for i in range(count)]
            finally:
                self._c.VixDiskLib_FreeBlockList(raw)
            yield from found
        if whole < capacity:    # less than a chunk: not asked for, so taken as data
            yield whole, capacity - whole

    def _text(self, what, call):
        size = c_size_t()
        err = call(None, 0, byref(size))
        if err != VIX_E_BUFFER_TOOSMALL:
            self.library.check(what, err)
        buf = create_string_buffer(max(size.value, 1))
        self.library.check(what, call(buf, len(buf), None))
        return buf.raw

    def metadata_keys(self):
        """The names in the disk's data base."""
        raw = self._text("GetMetadataKeys",
                         lambda buf, size, need: self._c.VixDiskLib_GetMetadataKeys(self._handle, buf, size, need))
        return [name.decode("utf-8", "replace") for name in raw.split(b"\0") if name]

    def read_metadata(self, key):
        """One value of the disk's data base."""
        raw = self._text(f"metadata {key}", lambda buf, size, need: self._c.VixDiskLib_ReadMetadata(
            self._handle, key.encode(), buf, size, need))
        return raw.split(b"\0", 1)[0].decode("utf-8", "replace")

    def write_metadata(self, key, value):
        """Adds or replaces one value."""
        self.library.check(f"metadata {key}",
                           self._c.VixDiskLib_WriteMetadata(self._handle, key.encode(), value.encode()))

    def metadata(self):
        """The whole data base."""
        return {key: self.read_metadata(key) for key in self.metadata_keys()}

    def close(self):
        """Closes the disk; what was written is durable afterwards."""
        if self._handle:
            handle, self._handle = self._handle, None
            self.library.check("Close", self._c.VixDiskLib_Close(handle))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _path(path):
    return None if path is None else os.fsencode(path)


def _bytes(text):
    return None if text is None else text.encode()


def _print_info(disk):
    info = disk.info()
    rows = [("capacity", f"{info.capacity} sectors, {info.capacity / 2048:.1f} MiB"),
            ("geometry", "/".join(map(str, info.geometry))), ("links", info.links),
            ("parent", info.parent_hint or "none"), ("uuid", info.uuid or "none"),
            ("sector sizes", f"{info.logical_sector_size} logical, {info.physical_sector_size} physical"),
            ("transport", disk.transport_mode())]
    for name, value in rows:
        print(f"{name:<16}{value}")


def _cat(disk, start, count, out):
    end = disk.info().capacity if count is None else start + count
    buf = bytearray(min(2048, max(end - start, 0)) * SECTOR_SIZE)
    while start < end:
        part = memoryview(buf)[:(end - start) * SECTOR_SIZE]
        disk.read_into(start, part)
        out.write(part)
        start += len(part) // SECTOR_SIZE
    out.flush()


def _put(disk, start, source):
    while data := source.read(2048 * SECTOR_SIZE):
        disk.write(start, data)
        start += len(data) // SECTOR_SIZE
    disk.flush()


def _arguments():
    parser = argparse.ArgumentParser(description="Looks into virtual disks with VixDiskLib.")
    parser.add_argument("command", choices=["info", "map", "metadata", "cat", "put"])
    parser.add_argument("disk")
    parser.add_argument("--libdir", help="the folder that has lib64/libvixDiskLib.so")
    parser.add_argument("--config", help="the library's configuration file")
    parser.add_argument("--start", type=int, default=0, help="first sector for cat and put")
    parser.add_argument("--count", type=int, help="number of sectors for cat")
    parser.add_argument("--verbose", action="store_true", help="show the library's log")
    remote = parser.add_argument_group("a disk of a server")
    remote.add_argument("--server", help="vCenter or ESXi")
    remote.add_argument("--port", type=int, default=0, help="of its API (443)")
    remote.add_argument("--nfc-port", type=int, default=0, help="of its disks (902)")
    remote.add_argument("--user")
    remote.add_argument("--password-file", help="its first line; else the variable VIX_PASSWORD")
    remote.add_argument("--cookie-file", help="its first line, the cookie of a session that is logged in")
    remote.add_argument("--thumbprint", help="of the server's certificate, AA:BB:...")
    remote.add_argument("--vm", help="moref=vm-12")
    remote.add_argument("--snapshot", help="the snapshot to read")
    remote.add_argument("--transports", help="in the order to try, such as nbdssl:nbd")
    remote.add_argument("--compression", choices=sorted(OPEN_COMPRESSION), default="none", help="of the transfer")
    return parser.parse_args()


def _first_line(path):
    with open(path, encoding="utf-8") as file:
        return file.readline().rstrip("\r\n")


def _server(args):
    if not args.server:
        return None
    password = _first_line(args.password_file) if args.password_file else os.environ.get("VIX_PASSWORD")
    return Server(args.server, args.user, password, args.cookie_file and _first_line(args.cookie_file), args.thumbprint, args.vm,
                  args.snapshot, args.transports, args.port, args.nfc_port)


def main():
    """The command line."""
    args = _arguments()
    log = (lambda line: print(line, file=sys.stderr)) if args.verbose else None
    flags = OPEN_COMPRESSION[args.compression] | (0 if args.command == "put" else OPEN_READ_ONLY)
    try:
        with Library(args.libdir, args.config, log) as library, \
                library.connect(_server(args), args.command != "put") as connection, \
                connection.open(args.disk, flags) as disk:
            if args.command == "info":
                _print_info(disk)
            elif args.command == "map":
                for start, count in disk.allocated():
                    print(start, count)
            elif args.command == "metadata":
                for key, value in disk.metadata().items():
                    print(f"{key} = {value}")
            elif args.command == "put":
                _put(disk, args.start, sys.stdin.buffer)
            else:
                _cat(disk, args.start, args.count, sys.stdout.buffer)
    except (VixDiskLibError, OSError, ValueError) as error:
        sys.exit(f"vixdisklib.py: {error}")


if __name__ == "__main__":
    main()
