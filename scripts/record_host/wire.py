"""A connection to the port of the disks: TLS that can be taken off and put on again, and the words before NFC begins."""

import hashlib
import ipaddress
import re
import socket
import ssl
import struct
import warnings

from .record import STOPS, Closed, Disorder, Refused, Silence

MIB = 1 << 20


def tls_context(old):
    """No authority is asked: every certificate is compared with a thumbprint that is known already."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if old:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def thumbprint(der, kind="sha1"):
    """As servers write it: AA:BB:..."""
    return ":".join(f"{byte:02X}" for byte in hashlib.new(kind, der).digest())


def matches(wanted, der):
    """Whether a thumbprint of 20 or 32 bytes is that of the certificate."""
    digits = re.sub(r"[^0-9a-f]", "", wanted.lower())
    kind = {40: "sha1", 64: "sha256"}.get(len(digits))
    return kind is not None and hashlib.new(kind, der).hexdigest() == digits


def server_name(host):
    """What goes into SNI: a name, never an address."""
    try:
        ipaddress.ip_address(host)
        return None
    except ValueError:
        return host


class Wire:
    """One TCP connection that can put TLS on, take it off without a word, and put it on again.

    TLS runs over memory buffers that get whole records, so that no byte of what follows is swallowed by the one before.
    """

    def __init__(self, lab, host, port):
        self.lab, self.host, self.tls = lab, host, None
        self.socket = socket.create_connection((host, port), lab.args.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        """Ends the connection."""
        self.socket.close()

    def patience(self, seconds):
        """How long a read may wait from here on."""
        self.socket.settimeout(seconds)

    def start_tls(self, stage):
        """A handshake; returns the server's certificate."""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.lab.context.wrap_bio(self._in, self._out, server_hostname=server_name(self.host))
        self._run(self.tls.do_handshake)
        der = self.tls.getpeercert(True)
        self.lab.record.message("server", stage, "TLS", version=self.tls.version(), cipher=self.tls.cipher()[0],
                                certificate_is_that_of_the_api=der == self.lab.api_leaf)
        return der

    def leave_tls(self):
        """Both sides forget it: no close_notify, which would land in what comes next."""
        left = self._in.pending
        self.tls = None
        return left

    def send(self, data):
        """All of it; with TLS in a record of its own where it fits into one."""
        if not self.tls:
            self.socket.sendall(data)
            return
        view = memoryview(data)
        while view:
            view = view[self._run(self.tls.write, view):]

    def read(self, count):
        """Exactly that many bytes."""
        data = bytearray()
        while len(data) < count:
            part = self._run(self.tls.read, count - len(data)) if self.tls else self._receive(count - len(data))
            if not part:
                raise Closed(f"after {len(data)} of {count} bytes")
            data += part
        return bytes(data)

    def line(self):
        """One line without its end."""
        data = b""
        while not data.endswith(b"\n"):
            if len(data) > 4096:
                raise Disorder("a line of more than 4096 bytes")
            data += self.read(1)
        return data.decode("utf-8", "replace").rstrip("\r\n")

    def rest(self, seconds, most=4096):
        """What still comes, until there is silence."""
        data = b""
        self.patience(seconds)
        try:
            while len(data) < most:
                data += self.read(1)
        except (*STOPS, ValueError):
            pass
        return data

    def _receive(self, most):
        try:
            return self.socket.recv(min(most, MIB))
        except socket.timeout:
            raise Silence("no answer") from None
        except ConnectionError as error:
            raise Closed(str(error)) from None

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            part = self._receive(count - len(data))
            if not part:
                raise Closed("inside a TLS record" if data else "the server closed it")
            data += part
        return data

    def _run(self, operation, *arguments):
        while True:
            try:
                result = operation(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                head = self._exactly(5)
                self._in.write(head + self._exactly(struct.unpack(">H", head[3:])[0]))
                continue
            except ssl.SSLZeroReturnError:
                raise Closed("the server ended TLS") from None
            except ssl.SSLError as error:
                self._flush()
                raise Disorder(f"TLS: {error.reason or error}") from None
            self._flush()
            return result

    def _flush(self):
        data = self._out.read()
        if data:
            self.socket.sendall(data)


class Door:
    """A connection to port 902 up to the point where NFC begins."""

    def __init__(self, lab, ticket, secure=True):
        self.lab, self.secure, self.said = lab, secure, {}
        self.wire = Wire(lab, ticket.get("host") or lab.args.server, lab.args.nfc_port or int(ticket.get("port") or 902))
        try:
            self._enter(ticket)
        except BaseException:
            self.wire.close()
            raise

    def _enter(self, ticket):
        self.said["banner"] = self._answer("banner", "in clear text")
        self.leaf = self.wire.start_tls("TLS #1")
        self._check(ticket)
        self._say(f"SESSION {ticket['sessionId']}", "SESSION <ticket>")
        self._say("BANNER ", "BANNER ")
        self.said["banner again"] = self._answer("BANNER")
        if "SHA256 supported" in self.said["banner"]:
            self._say("THUMBPRINT_SHA2 PlainText")
            self.said["thumbprint"] = self._answer("THUMBPRINT_SHA2", hidden=thumbprint(self.leaf, "sha256"))
        service = ticket.get("service") or "nfc"
        if self.secure and not service.endswith("ssl"):
            service += "ssl"
        self._say(f"PROXY {service}")
        self.said["proxy"] = self._answer("PROXY")
        if not self.said["proxy"].startswith("2"):
            raise Refused(self.said["proxy"])
        left = self.wire.leave_tls()
        if left:
            self.lab.record.message("server", "TLS #1", "bytes that nobody asked for", count=left)
        self.inner = self.wire.start_tls("TLS #2") if self.secure else None

    def _check(self, ticket):
        """The ticket came over a connection that was checked, so what it says about the host's certificate counts."""
        for kind in ("sha1", "sha256"):
            self.lab.redactor.hide("thumbprint", thumbprint(self.leaf, kind))
        if ticket.get("sslCertificate"):
            good = ssl.PEM_cert_to_DER_cert(ticket["sslCertificate"].strip()) == self.leaf
        elif ticket.get("sslThumbprint"):
            good = matches(ticket["sslThumbprint"], self.leaf)
        else:
            good = self.leaf == self.lab.api_leaf
        if not good:
            raise Disorder("the certificate on the disks' port is not the one that the ticket names")

    def _say(self, line, shown=None):
        self.lab.record.message("client", "authd", "line", text=shown or line)
        self.wire.send(line.encode() + b"\r\n")

    def _answer(self, to, where=None, hidden=None):
        text = self.wire.line()
        same = None if hidden is None else hidden.lower() in text.lower()
        self.lab.record.message("server", "authd", "line", text=text, to=to, where=where, is_the_certificate_of_tls_1=same)
        return text
