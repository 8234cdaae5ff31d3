"""The few calls of the vSphere API that lead to a virtual machine, its disks and a ticket."""

import http.client
import re
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

from .record import STOPS, Disorder, Refused
from .wire import matches, server_name, thumbprint

LARGEST_ANSWER = 32 << 20

ENVELOPE = ('<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{}</soapenv:Body></soapenv:Envelope>')
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"


def local(element):
    """The name without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


def kids(element, name):
    """The children of that name."""
    return [child for child in element if local(child) == name]


def find(element, *path):
    """The first element on the path, or None."""
    for name in path:
        found = kids(element, name) if element is not None else []
        element = found[0] if found else None
    return element


def value(element, *path):
    """The text there, or None."""
    found = find(element, *path)
    return None if found is None else (found.text or "")


def kind_of(element):
    """The xsi:type without a prefix."""
    return element.get(XSI_TYPE, "").rsplit(":", 1)[-1]


class Pinned(http.client.HTTPConnection):
    """HTTPS to a server whose certificate is known by its thumbprint; nothing is said before it was compared."""

    default_port = 443

    def __init__(self, lab):
        super().__init__(lab.args.server, lab.args.port, timeout=lab.args.timeout)
        self.lab = lab

    def connect(self):
        """Called for every new connection."""
        super().connect()
        self.sock = self.lab.context.wrap_socket(self.sock, server_hostname=server_name(self.host))
        der = self.sock.getpeercert(True)
        if not self.lab.args.thumbprint or not matches(self.lab.args.thumbprint, der):
            raise Disorder("the server's certificate is not the expected one. Compare this with what the server's console or its "
                           f"administrator says, then give it with --thumbprint: {thumbprint(der, 'sha256')}")
        self.lab.api_leaf = der
        self.lab.api_tls = {"version": self.sock.version(), "cipher": self.sock.cipher()[0]}
        for kind in ("sha1", "sha256"):
            self.lab.redactor.hide("thumbprint", thumbprint(der, kind))


class Api:
    """The few SOAP calls that lead to a ticket. Bodies are never recorded, only what a call was and what came of it."""

    def __init__(self, lab):
        self.lab, self.http, self.cookie, self.version = lab, Pinned(lab), None, None

    def fetch(self, method, path, body=None, headers=None):
        """Status and body."""
        headers = dict(headers or {}, **({"Cookie": self.cookie} if self.cookie else {}))
        try:
            answer = self._request(method, path, body, headers)
            data = answer.read(LARGEST_ANSWER + 1)
        except http.client.HTTPException as error:
            raise Disorder(f"{path}: {type(error).__name__}: {error}") from None
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            pair = cookie.split(";")[0].strip()
            if pair.startswith("vmware_soap_session="):
                self.cookie = pair
                self.lab.redactor.secret("cookie", pair.partition("=")[2].strip('"'))
        if len(data) > LARGEST_ANSWER or b"<!DOCTYPE" in data[:1024]:
            raise Disorder(f"{path}: an answer that is too large or declares a document type")
        return answer.status, data

    def _request(self, method, path, body, headers):
        """Once more where the server had closed the idle connection meanwhile."""
        try:
            self.http.request(method, path, body, headers)
            return self.http.getresponse()
        except ConnectionError:
            self.http.close()
            self.http.request(method, path, body, headers)
            return self.http.getresponse()

    def versions(self, name):
        """The versions of the namespace, newest first."""
        status, data = self.fetch("GET", f"/sdk/{name}")
        if status != 200:
            return []
        found = []
        try:
            spaces = ElementTree.fromstring(data)
        except ElementTree.ParseError:
            raise Disorder(f"{name} is no XML") from None
        for space in spaces:
            for version in [kid for kid in space.iter() if local(kid) == "version"]:
                found.append({"namespace": value(space, "name"), "version": version.text})
        return found

    def call(self, method, this, body=""):
        """The response's element. A fault is Refused, with its type and text."""
        kind, name = this
        inner = f'<{method} xmlns="urn:vim25"><_this type="{kind}">{escape(name)}</_this>{body}</{method}>'
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"urn:vim25/{self.version}"'}
        status, data = self.fetch("POST", "/sdk", ENVELOPE.format(inner).encode(), headers)
        try:
            answer = find(ElementTree.fromstring(data), "Body")[0]
        except (ElementTree.ParseError, TypeError, IndexError):
            raise Disorder(f"{method}: status {status} and no SOAP") from None
        fault = None
        if local(answer) == "Fault":
            detail = find(answer, "detail")
            fault = kind_of(detail[0]) or local(detail[0]) if detail is not None and len(detail) else "Fault"
        self.lab.record.message("server", "soap", method, status=status, fault=fault,
                                text=value(answer, "faultstring") if fault else None)
        if fault:
            raise Refused(f"{method}: {fault}: {value(answer, 'faultstring')}")
        return answer

    def properties(self, target, *paths):
        """The values of an object's properties, as elements."""
        kind, name = target
        spec = (f"<specSet><propSet><type>{kind}</type><all>false</all>" + "".join(f"<pathSet>{p}</pathSet>" for p in paths)
                + f'</propSet><objectSet><obj type="{kind}">{escape(name)}</obj><skip>false</skip></objectSet></specSet>')
        answer = self.call("RetrieveProperties", self.collector, spec)
        return {value(entry, "name"): find(entry, "val") for entry in find(answer, "returnval") or [] if local(entry) == "propSet"}

    def login(self, user, password):
        """Learns about the server and logs in."""
        listed = [entry["version"] for entry in self.versions("vimServiceVersions.xml") if entry["namespace"] == "urn:vim25"]
        plain = [text for text in listed if text and re.fullmatch(r"\d+(\.\d+)*", text)]
        self.version = max(plain, key=lambda text: [int(part) for part in text.split(".")], default="6.5")
        content = find(self.call("RetrieveServiceContent", ("ServiceInstance", "ServiceInstance")), "returnval")
        self.objects = {local(kid): (kid.get("type"), kid.text) for kid in content if kid.get("type")}
        self.collector, self.sessions = self.objects["propertyCollector"], self.objects["sessionManager"]
        self.about = {key: value(content, "about", key) for key in ("name", "version", "build", "apiType", "apiVersion", "osType")}
        self.call("Login", self.sessions, f"<userName>{escape(user)}</userName><password>{escape(password)}</password>")
        literal = "nfcService" if self.about["apiType"] == "VirtualCenter" else "ha-nfc-service"
        self.nfc = ("NfcService", literal)
        try:
            inner = find(self.call("RetrieveInternalContent", ("ServiceInstance", "ServiceInstance")), "returnval", "nfcService")
            self.nfc = (inner.get("type"), inner.text) if inner is not None else self.nfc
        except Refused:
            pass        # recorded; the usual name is tried

    def logout(self):
        """Ends the session."""
        try:
            self.call("Logout", self.sessions)
        except (*STOPS, http.client.HTTPException):
            pass

    def machines(self):
        """Moref, name and power state of all virtual machines."""
        view = find(self.call("CreateContainerView", self.objects["viewManager"],
                              '<container type="{}">{}</container><type>VirtualMachine</type><recursive>true</recursive>'
                              .format(*self.objects["rootFolder"])), "returnval")
        target = (view.get("type") or "ContainerView", view.text)
        found = [kid.text for kid in self.properties(target, "view").get("view", [])]
        self.call("DestroyView", target)
        for moref in found:
            known = self.properties(("VirtualMachine", moref), "name", "runtime.powerState")
            yield moref, *((known[key].text or "") if key in known else "?" for key in ("name", "runtime.powerState"))

    def ticket(self, method="NfcGetVmFiles", body=""):
        """A ticket for the machine's files; `body` is what other methods want to know beyond the machine."""
        vm = f'<vm type="VirtualMachine">{escape(self.lab.vm[1])}</vm>'
        got = find(self.call(method, self.nfc, vm + body), "returnval")
        fields = {local(kid): kid.text or "" for kid in got}
        self.lab.redactor.secret("ticket", fields.get("sessionId", ""))
        for hidden in ("host", "sslThumbprint"):
            self.lab.redactor.hide(hidden, fields.get(hidden))
        shown = {key: text for key, text in fields.items() if key in ("port", "service", "serviceVersion")}
        shown.update(fields=sorted(fields), id_is_a_uuid=bool(re.fullmatch(r"[0-9a-f-]{36}", fields.get("sessionId", ""))),
                     thumbprint_bytes=len(fields.get("sslThumbprint", "").replace(":", "")) // 2)
        self.lab.record.message("server", "soap", "ticket", fields=shown)
        return fields
