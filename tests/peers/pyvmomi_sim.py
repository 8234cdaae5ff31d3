"""pyVmomi as a client of the simulator: one behaviour for each name on the command line.

Usage: pyvmomi_sim.py READY_FILE USER PASSWORD CERTIFICATE BEHAVIOUR [ARGUMENT...]

Ends with an exception, and so with a status, when something is not as it should be. CERTIFICATE may be empty where the
behaviour does not check it.
"""

import base64
import http.client
import json
import ssl
import sys
import urllib.parse

from pyVim import connect
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

UNIT = 64 * 1024


class Peer:
    """What the command line says."""

    def __init__(self, ready, user, password, certificate):
        with open(ready, encoding="utf-8") as file:
            self.ready = json.load(file)
        self.user, self.password, self.certificate = user, password, certificate
        self.host = "localhost" if certificate else "127.0.0.1"

    def connect(self, password=None, context=None):
        """A session; the certificate is checked when there is one to check with."""
        if context is None:
            context = ssl.create_default_context()
            if self.certificate:
                context.load_verify_locations(self.certificate)
            else:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return connect.SmartConnect(
            host=self.host,
            port=self.ready["sdk_port"],
            user=self.user,
            pwd=self.password if password is None else password,
            sslContext=context,
        )

    def machine(self, si, name):
        """The machine of this name, found as its ready file says."""
        [moref] = [vm["moref"] for vm in self.ready["vms"] if vm["name"] == name]
        return vim.VirtualMachine(moref, si._stub)


def equal(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


def raises(fault, call):
    try:
        call()
    except fault as caught:
        return caught
    raise AssertionError(f"no {fault.__name__}")


def in_view(si, kind, container=None, recursive=True):
    content = si.RetrieveContent()
    view = content.viewManager.CreateContainerView(container or content.rootFolder, [kind], recursive)
    found = list(view.view)
    view.DestroyView()
    return found


def disks(thing):
    return [device for device in thing.config.hardware.device if isinstance(device, vim.vm.device.VirtualDisk)]


def collect(si, kind, paths, most=None):
    """Properties of all objects of a type, by a view and a traversal, in pages."""
    content = si.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    pc = vmodl.query.PropertyCollector
    spec = pc.FilterSpec(
        propSet=[pc.PropertySpec(type=kind, all=not paths, pathSet=paths)],
        objectSet=[
            pc.ObjectSpec(
                obj=view,
                skip=True,
                selectSet=[pc.TraversalSpec(name="t", type=vim.view.ContainerView, path="view", skip=False)],
            )
        ],
    )
    result = content.propertyCollector.RetrievePropertiesEx([spec], pc.RetrieveOptions(maxObjects=most))
    objects, pages = [], 0
    while result:
        pages += 1
        objects += result.objects
        result = content.propertyCollector.ContinueRetrievePropertiesEx(result.token) if result.token else None
    view.DestroyView()
    return objects, pages


def login(peer, kind):
    """A session comes, knows who it is, and ends."""
    si = peer.connect()
    content = si.RetrieveContent()
    equal(content.about.apiType, kind)
    session = content.sessionManager.currentSession
    equal(session.userName, peer.user)
    assert abs((si.CurrentTime() - session.loginTime).total_seconds()) < 600
    raises(vim.fault.InvalidLogin, lambda: content.sessionManager.Login(peer.user, peer.password, None))
    connect.Disconnect(si)
    raises(vim.fault.NotAuthenticated, lambda: content.rootFolder.name)


def refusals(peer):
    """A wrong password, a certificate that nobody vouches for, objects and methods that are not there."""
    raises(vim.fault.InvalidLogin, lambda: peer.connect(password="wrong"))
    raises(ssl.SSLCertVerificationError, lambda: peer.connect(context=ssl.create_default_context()))
    si = peer.connect()
    gone = vim.VirtualMachine("vm-none", si._stub)
    equal(raises(vmodl.fault.ManagedObjectNotFound, lambda: gone.name).obj, gone)
    content = si.RetrieveContent()
    raises(vmodl.query.InvalidProperty, lambda: collect(si, vim.VirtualMachine, ["nonsense"]))
    raises(vmodl.fault.NotSupported, lambda: content.virtualDiskManager.DeleteVirtualDisk_Task("[d] x.vmdk", None))
    connect.Disconnect(si)


def clone(peer):
    """A clone of a session is a session of its own."""
    si = peer.connect()
    ticket = si.RetrieveContent().sessionManager.AcquireCloneTicket()
    other = vim.ServiceInstance("ServiceInstance", connect.SoapStubAdapter(
        peer.host, peer.ready["sdk_port"], version=si._stub.version, sslContext=si._stub.schemeArgs["context"]))
    manager = other.RetrieveContent().sessionManager
    equal(manager.CloneSession(ticket).userName, peer.user)
    raises(vim.fault.InvalidLogin, lambda: other.RetrieveContent().sessionManager.CloneSession(ticket))
    connect.Disconnect(si)
    assert manager.currentSession is not None


def walk(peer, *names):
    """The inventory in every way that clients go through it."""
    si = peer.connect()
    content = si.RetrieveContent()
    machines = in_view(si, vim.VirtualMachine)
    equal(sorted(vm.name for vm in machines), sorted(names))
    equal(len(in_view(si, vim.HostSystem)), 1)
    equal(len(in_view(si, vim.ManagedEntity)), 10 - 1 + len(names) + len(in_view(si, vim.Datastore)))
    [datacenter] = [child for child in content.rootFolder.childEntity if isinstance(child, vim.Datacenter)]
    equal(sorted(vm.name for vm in datacenter.vmFolder.childEntity), sorted(names))
    [compute] = datacenter.hostFolder.childEntity
    equal(len(compute.host), 1)
    for vm in machines:
        equal(vm.runtime.host, compute.host[0])
        path = f"{datacenter.name}/vm/{vm.name}"
        equal(content.searchIndex.FindByInventoryPath(path), vm)
        equal(content.searchIndex.FindByUuid(datacenter, vm.config.uuid, True, False), vm)
        equal(content.searchIndex.FindByUuid(None, vm.config.instanceUuid, True, True), vm)
        equal(content.searchIndex.FindByDatastorePath(datacenter, vm.config.files.vmPathName), vm)
        assert vm.layoutEx.file and vm.datastore and vm.resourcePool
    equal(content.searchIndex.FindByInventoryPath("no/thing"), None)
    connect.Disconnect(si)


def properties(peer, *names):
    """Pages of properties are the same as all at once, and all properties of every type can be read."""
    si = peer.connect()
    whole, pages = collect(si, vim.VirtualMachine, ["name", "config.hardware.device", "runtime.powerState"])
    equal(pages, 1)
    paged, pages = collect(si, vim.VirtualMachine, ["name", "config.hardware.device", "runtime.powerState"], 1)
    equal(pages, len(names))
    as_pairs = lambda objects: [(o.obj, [(p.name, str(p.val)) for p in o.propSet]) for o in objects]
    equal(as_pairs(whole), as_pairs(paged))
    for kind in [vim.Folder, vim.Datacenter, vim.ComputeResource, vim.HostSystem, vim.ResourcePool, vim.Datastore,
                 vim.Network, vim.VirtualMachine]:
        objects, _ = collect(si, kind, [])
        assert objects and all(o.propSet for o in objects), kind
    connect.Disconnect(si)


def compare(peer, name):
    """The devices of a machine and of its snapshots are those of the ready file."""
    si = peer.connect()
    vm = peer.machine(si, name)
    [wanted] = [vm for vm in peer.ready["vms"] if vm["name"] == name]
    as_said = lambda thing: [(d.backing.fileName, d.key) for d in disks(thing)]
    equal(as_said(vm), [(d["path"], d["key"]) for d in wanted["disks"]])
    found, trees = [], list(vm.snapshot.rootSnapshotList) if vm.snapshot else []
    while trees:
        tree = trees.pop(0)
        found.append((tree.name, tree.snapshot._moId, as_said(tree.snapshot)))
        trees += tree.childSnapshotList
    equal(found, [(s["name"], s["moref"], [(d["path"], d["key"]) for d in s["disks"]]) for s in wanted["snapshots"]])
    for device in disks(vm):
        depth, backing = 0, device.backing
        while backing.parent:
            depth, backing = depth + 1, backing.parent
        equal(depth, len(wanted["snapshots"]))
    connect.Disconnect(si)


def snapshots(peer, name):
    """A snapshot makes a child, the machine stands on it, and goes back when it is removed."""
    si = peer.connect()
    vm = peer.machine(si, name)
    before = [d.backing.fileName for d in disks(vm)]
    task = vm.CreateSnapshot_Task("one", "the first", False, False)
    equal(WaitForTask(task), "success")
    one = task.info.result
    equal([d.backing.fileName for d in disks(one)], before)
    equal([d.backing.parent.fileName for d in disks(vm)], before)
    equal(vm.snapshot.currentSnapshot, one)
    equal(WaitForTask(vm.CreateSnapshot_Task("two", "", False, True)), "success")
    two = vm.snapshot.currentSnapshot
    [tree] = vm.snapshot.rootSnapshotList
    equal((tree.name, tree.description, tree.childSnapshotList[0].snapshot), ("one", "the first", two))
    equal(WaitForTask(one.RemoveSnapshot_Task(False)), "success")
    raises(vmodl.fault.ManagedObjectNotFound, lambda: one.config)
    equal([d.backing.fileName for d in disks(two)], before)
    equal(WaitForTask(vm.RemoveAllSnapshots_Task()), "success")
    equal([d.backing.fileName for d in disks(vm)], before)
    equal((vm.snapshot, vm.rootSnapshot), (None, []))
    equal(vm.runtime.consolidationNeeded, False)
    connect.Disconnect(si)


def reconfigure(peer, name, path):
    """Settings change; a disk that exists comes and goes."""
    si = peer.connect()
    vm = peer.machine(si, name)
    spec = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key="disk.enableUUID", value="TRUE")])
    equal(WaitForTask(vm.ReconfigVM_Task(spec)), "success")
    equal(({o.key: o.value for o in vm.config.extraConfig}, vm.config.flags.diskUuidEnabled),
          ({"disk.enableUUID": "TRUE"}, True))
    count = len(disks(vm))
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=path, diskMode="independent_nonpersistent")
    [controller] = [d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualController)]
    disk = vim.vm.device.VirtualDisk(key=-201, backing=backing, controllerKey=controller.key, unitNumber=9,
                                     capacityInKB=1)
    change = vim.vm.device.VirtualDeviceSpec(operation="add", device=disk)
    equal(WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))), "success")
    [added] = [d for d in disks(vm) if d.backing.fileName == path and d.unitNumber == 9]
    assert added.key > 0 and added.backing.diskMode == "independent_nonpersistent" and added.capacityInKB > 1
    change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=added)
    equal(WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))), "success")
    equal(len(disks(vm)), count)
    missing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName="[none] x.vmdk", diskMode="persistent")
    disk = vim.vm.device.VirtualDisk(key=-1, backing=missing, controllerKey=controller.key, unitNumber=9, capacityInKB=1)
    change = vim.vm.device.VirtualDeviceSpec(operation="add", device=disk)
    raises(vim.fault.FileNotFound, lambda: WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))))
    connect.Disconnect(si)


def power(peer, name):
    """Power goes on and off, once."""
    si = peer.connect()
    vm = peer.machine(si, name)
    equal(WaitForTask(vm.PowerOnVM_Task()), "success")
    equal(vm.runtime.powerState, "poweredOn")
    raises(vim.fault.InvalidPowerState, lambda: WaitForTask(vm.PowerOnVM_Task()))
    equal(WaitForTask(vm.PowerOffVM_Task()), "success")
    equal(vm.runtime.powerState, "poweredOff")
    connect.Disconnect(si)


def updates(peer, name):
    """A filter tells what is there, then what changes, and nothing when nothing does."""
    si = peer.connect()
    vm = peer.machine(si, name)
    collector = si.RetrieveContent().propertyCollector.CreatePropertyCollector()
    pc = vmodl.query.PropertyCollector
    spec = pc.FilterSpec(propSet=[pc.PropertySpec(type=vim.VirtualMachine, pathSet=["name", "runtime.powerState"])],
                         objectSet=[pc.ObjectSpec(obj=vm)])
    collector.CreateFilter(spec, False)
    first = collector.WaitForUpdatesEx(None, pc.WaitOptions(maxWaitSeconds=5))
    [update] = first.filterSet[0].objectSet
    equal((update.kind, {c.name: c.val for c in update.changeSet}),
          ("enter", {"name": name, "runtime.powerState": "poweredOff"}))
    equal(collector.WaitForUpdatesEx(first.version, pc.WaitOptions(maxWaitSeconds=0)), None)
    vm.PowerOnVM_Task()
    second = collector.WaitForUpdatesEx(first.version, pc.WaitOptions(maxWaitSeconds=60))
    [update] = second.filterSet[0].objectSet
    equal((update.kind, [(c.name, c.val) for c in update.changeSet]), ("modify", [("runtime.powerState", "poweredOn")]))
    raises(vmodl.query.InvalidCollectorVersion, lambda: collector.WaitForUpdatesEx("nonsense", None))
    collector.Destroy()
    equal(WaitForTask(vm.PowerOffVM_Task()), "success")
    connect.Disconnect(si)


def areas(vm, snapshot, key, change, most):
    """All changed areas, and in how many answers they came."""
    [capacity] = [d.capacityInBytes for d in disks(vm) if d.key == key]
    start, found, answers = 0, [], 0
    while start < capacity:
        part = vm.QueryChangedDiskAreas(snapshot, key, start, change)
        equal(part.startOffset, start)
        assert part.length > 0 and len(part.changedArea) <= most
        found += [(a.start, a.length) for a in part.changedArea]
        assert all(start <= a.start and a.start + a.length <= start + part.length for a in part.changedArea)
        start, answers = start + part.length, answers + 1
    equal(start, capacity)
    return found, answers


def track(peer, name):
    """Change tracking begins with the next snapshot, whose change id is printed for the next behaviour."""
    si = peer.connect()
    vm = peer.machine(si, name)
    [key] = [d.key for d in disks(vm)]
    equal(WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True))), "success")
    equal((vm.config.changeTrackingEnabled, disks(vm)[0].backing.changeId), (True, None))
    equal(WaitForTask(vm.CreateSnapshot_Task("first", "", False, False)), "success")
    snapshot = vm.snapshot.currentSnapshot
    change = disks(snapshot)[0].backing.changeId
    found, _ = areas(vm, snapshot, key, "*", 2000)
    raises(vim.fault.FileFault, lambda: vm.QueryChangedDiskAreas(snapshot, key, 0, change.replace("/", "/9")))
    raises(vmodl.fault.InvalidArgument, lambda: vm.QueryChangedDiskAreas(snapshot, key, 1 << 60, "*"))
    raises(vmodl.fault.InvalidArgument, lambda: vm.QueryChangedDiskAreas(snapshot, 9999, 0, "*"))
    print(json.dumps({"change": change, "areas": found, "file": disks(vm)[0].backing.fileName}))
    connect.Disconnect(si)


def changed(peer, name, change, merge):
    """What changed since a change id, seen by a new snapshot; the older ones may be merged away before."""
    si = peer.connect()
    vm = peer.machine(si, name)
    [key] = [d.key for d in disks(vm)]
    equal(WaitForTask(vm.CreateSnapshot_Task("next", "", False, False)), "success")
    snapshot = vm.snapshot.currentSnapshot
    oldest = vm.snapshot.rootSnapshotList[0].snapshot
    if merge == "merge" and oldest != snapshot:
        equal(WaitForTask(oldest.RemoveSnapshot_Task(False)), "success")
    found, answers = areas(vm, snapshot, key, change, 2000)
    if merge == "merge":
        equal(WaitForTask(vm.RemoveAllSnapshots_Task()), "success")
    print(json.dumps({"areas": found, "answers": answers, "change": disks(snapshot)[0].backing.changeId
                      if merge != "merge" else None}))
    connect.Disconnect(si)


def revert(peer, name):
    """Going back makes another child on the snapshot, and drops what came after."""
    si = peer.connect()
    vm = peer.machine(si, name)
    base = disks(vm)[0].backing.fileName
    equal(WaitForTask(vm.CreateSnapshot_Task("base", "", False, False)), "success")
    snapshot = vm.snapshot.currentSnapshot
    old = disks(vm)[0].backing.fileName
    equal(WaitForTask(snapshot.RevertToSnapshot_Task()), "success")
    equal(disks(vm)[0].backing.parent.fileName, base)
    assert disks(vm)[0].backing.fileName != old
    equal(WaitForTask(snapshot.RemoveSnapshot_Task(False)), "success")
    equal(disks(vm)[0].backing.fileName, base)
    connect.Disconnect(si)


def hosts(peer, *names):
    """Several hosts are a cluster, with every machine on the first of them."""
    si = peer.connect()
    content = si.RetrieveContent()
    found = in_view(si, vim.HostSystem)
    said = [(host["moref"], host["name"]) for host in peer.ready["hosts"]]
    equal([(host._moId, host.name) for host in found], said)
    equal(len({name for _, name in said}), len(found))
    [datacenter] = content.rootFolder.childEntity
    [cluster] = datacenter.hostFolder.childEntity
    equal((type(cluster), in_view(si, vim.ComputeResource)), (vim.ClusterComputeResource, [cluster]))
    equal((cluster.host, cluster.summary.numHosts, cluster.summary.numVmotions), (found, len(found), 0))
    equal(cluster.resourcePool.owner, cluster)
    objects, _ = collect(si, vim.ClusterComputeResource, [])
    equal([o.obj for o in objects], [cluster])
    for host in found:
        equal((host.parent, content.searchIndex.FindByInventoryPath(
            f"{datacenter.name}/host/{cluster.name}/{host.name}")), (cluster, host))
        equal(sorted(vm.name for vm in host.vm), sorted(names) if host == found[0] else [])
        equal(in_view(si, vim.VirtualMachine, host), host.vm)
    thumbprints = {host.summary.config.sslThumbprint for host in found}
    equal((len(thumbprints), len({host.summary.hardware.uuid for host in found})), (len(found), len(found)))
    [datastore] = datacenter.datastore
    equal([mount.key for mount in datastore.host], found)
    connect.Disconnect(si)


def relocate(peer, name):
    """A machine goes to the host that is named, with everything it has; what is no host is refused."""
    si = peer.connect()
    vm = peer.machine(si, name)
    first, second = in_view(si, vim.HostSystem)[:2]
    [cluster] = in_view(si, vim.ClusterComputeResource)
    spec = lambda **fields: vim.vm.RelocateSpec(**fields)
    before, [store] = cluster.summary.numVmotions, vm.datastore
    files = [d.backing.fileName for d in disks(vm)]
    equal(vm.runtime.host, first)
    task = vm.RelocateVM_Task(spec(host=second), "defaultPriority")
    equal((WaitForTask(task), task.info.entity), ("success", vm))
    equal((vm.runtime.host, vm.summary.runtime.host), (second, second))
    assert vm in second.vm and vm not in first.vm
    equal([d.backing.fileName for d in disks(vm)], files)
    equal(WaitForTask(vm.RelocateVM_Task(spec(datastore=store, pool=cluster.resourcePool))), "success")
    equal(vm.runtime.host, second)
    none = vim.HostSystem("host-none", si._stub)
    equal(raises(vmodl.fault.ManagedObjectNotFound, lambda: vm.RelocateVM_Task(spec(host=none))).obj, none)
    pool = vim.ResourcePool("resgroup-none", si._stub)
    raises(vmodl.fault.InvalidArgument, lambda: vm.RelocateVM_Task(spec(host=first, pool=pool)))
    locator = vim.vm.RelocateSpec.DiskLocator(diskId=2000, datastore=store)
    raises(vmodl.fault.NotSupported, lambda: vm.RelocateVM_Task(spec(host=first, disk=[locator])))
    raises(vmodl.fault.InvalidArgument, lambda: vm.MigrateVM_Task(priority="defaultPriority"))
    raises(vim.fault.InvalidPowerState,
           lambda: vm.MigrateVM_Task(host=first, priority="defaultPriority", state="poweredOn"))
    equal(vm.runtime.host, second)
    equal(WaitForTask(vm.MigrateVM_Task(host=first, priority="defaultPriority", state="poweredOff")), "success")
    equal((vm.runtime.host, cluster.summary.numVmotions), (first, before + 2))
    connect.Disconnect(si)


def kept(peer, name, other):
    """A machine that somebody keeps where it is does not move; others do."""
    si = peer.connect()
    vm, free = peer.machine(si, name), peer.machine(si, other)
    first, second = in_view(si, vim.HostSystem)[:2]
    equal(vm.disabledMethod, ["RelocateVM_Task"])
    raises(vim.fault.MethodDisabled, lambda: vm.RelocateVM_Task(vim.vm.RelocateSpec(host=second)))
    equal(vm.runtime.host, first)
    equal(WaitForTask(free.RelocateVM_Task(vim.vm.RelocateSpec(host=second))), "success")
    equal(free.runtime.host, second)
    connect.Disconnect(si)


def relocate_on_host(peer, name):
    """A bare host has nowhere to move a machine to."""
    si = peer.connect()
    vm = peer.machine(si, name)
    [host] = in_view(si, vim.HostSystem)
    raises(vmodl.fault.NotSupported, lambda: vm.RelocateVM_Task(vim.vm.RelocateSpec(host=host)))
    connect.Disconnect(si)


ENVELOPE = ('<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>{}</e:Body>'
            '</e:Envelope>')


def request(peer, path, headers=None, method="GET", body=None):
    """One request on a connection of its own: status, headers, body."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(peer.host, peer.ready["sdk_port"], timeout=30, context=context)
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.headers, body


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def folder(peer, path, file, datacenter, encodings):
    """Files of a datastore: who may read them, whole, in parts, by which names."""
    with open(file, "rb") as opened:
        content = opened.read()
    store, _, name = path[1:].partition("] ")
    once = lambda text: urllib.parse.quote(text, safe="")
    encode = once if encodings == "once" else lambda text: once(once(text))
    query = f"?dcPath={encode(datacenter)}&dsName={encode(store)}"
    name = urllib.parse.quote(name)
    url = f"/folder/{name}{query}"
    status, headers, _ = request(peer, url)
    equal((status, headers["WWW-Authenticate"].split()[0]), (401, "Basic"))
    equal(request(peer, url, basic(peer.user, "wrong"))[0], 401)
    status, headers, body = request(peer, url, basic(peer.user, peer.password))
    equal((status, body == content), (200, True))
    cookie = headers["Set-Cookie"].split(";")[0]
    assert cookie.startswith('vmware_soap_session="') and cookie.endswith('"'), cookie
    cookie = {"Cookie": cookie}
    status, headers, body = request(peer, url, cookie, "HEAD")
    equal((status, int(headers["Content-Length"]), body), (200, len(content), b""))
    for text, part in [("0-511", content[:512]), ("512-1023", content[512:1024]), ("-7", content[-7:]),
                       (f"{len(content) - 3}-{len(content) + 100}", content[-3:])]:
        status, headers, body = request(peer, url, {"Range": f"bytes={text}", **cookie})
        equal((status, body), (206, part))
        start = len(content) - len(part) if part in (content[-7:], content[-3:]) else int(text.split("-")[0])
        equal(headers["Content-Range"], f"bytes {start}-{start + len(part) - 1}/{len(content)}")
    status, headers, _ = request(peer, url, {"Range": f"bytes={len(content)}-", **cookie})
    equal((status, headers["Content-Range"]), (416, f"bytes */{len(content)}"))
    equal(request(peer, url, cookie, "PUT")[0], 405)
    for other in [f"/folder/none{query}", f"/folder/../../etc/passwd{query}", f"/folder/%2e%2e/%2e%2e/etc/passwd{query}",
                  f"/folder//etc/passwd{query}", f"/folder/a%00{query}", "/folder", "/folder/",
                  f"/folder/{name}?dcPath=none&dsName={encode(store)}", f"/folder/{name}?dcPath={encode(datacenter)}"]:
        equal((other, request(peer, other, cookie)[0]), (other, 404))
    if "%" in encode(store):
        wrong = once(once(store)) if encodings == "once" else once(store)
        equal(request(peer, f"/folder/{name}?dcPath={encode(datacenter)}&dsName={wrong}", cookie)[0], 404)


def ticket(peer, path):
    """A ticket serves for one transfer of just the file it is for."""
    store, _, name = path[1:].partition("] ")
    target = f"/folder/{name}?dcPath=Datacenter&dsName={store}"
    si = peer.connect()
    manager = si.RetrieveContent().sessionManager
    spec = vim.SessionManager.HttpServiceRequestSpec(method="httpGet", url=f"https://127.0.0.1{target}")
    found = manager.AcquireGenericServiceTicket(spec)
    cookie = {"Cookie": f"vmware_cgi_ticket={found.id}"}
    equal(request(peer, target, cookie)[0], 200)
    equal(request(peer, target, cookie)[0], 401)
    found = manager.AcquireGenericServiceTicket(spec)
    equal(request(peer, f"/folder/{name}-other?dsName={store}", {"Cookie": f"vmware_cgi_ticket={found.id}"})[0], 401)
    connect.Disconnect(si)


def locked(peer, name, path):
    """The files of a running machine are locked."""
    store, _, file = path[1:].partition("] ")
    target = f"/folder/{file}?dcPath=Datacenter&dsName={store}"
    who = basic(peer.user, peer.password)
    si = peer.connect()
    vm = peer.machine(si, name)
    equal(request(peer, target, who)[0], 200)
    equal(WaitForTask(vm.PowerOnVM_Task()), "success")
    equal(request(peer, target, who)[0], 500)
    equal(WaitForTask(vm.PowerOffVM_Task()), "success")
    equal(request(peer, target, who)[0], 200)
    connect.Disconnect(si)


def secrets(peer, path):
    """Everything that a client learns and nobody else may: printed, for the test to look for it in the log."""
    si = peer.connect()
    manager = si.RetrieveContent().sessionManager
    found = [peer.password, si._stub.cookie.split('"')[1], manager.AcquireCloneTicket()]
    store, _, name = path[1:].partition("] ")
    target = f"/folder/{name}?dcPath=Datacenter&dsName={store}"
    spec = vim.SessionManager.HttpServiceRequestSpec(method="httpGet", url=f"https://127.0.0.1{target}")
    generic = manager.AcquireGenericServiceTicket(spec).id
    equal(request(peer, target, {"Cookie": f"vmware_cgi_ticket={generic}"})[0], 200)
    headers = {"Cookie": si._stub.cookie.split(";")[0], "Content-Type": "text/xml", "SOAPAction": "urn:vim25"}
    body = ENVELOPE.format('<NfcGetVmFiles xmlns="urn:vim25"><_this type="NfcService">nfcService</_this>'
                           f'<vm type="VirtualMachine">{peer.ready["vms"][0]["moref"]}</vm></NfcGetVmFiles>')
    status, _, answer = request(peer, "/sdk", headers, "POST", body)
    equal(status, 200)
    session = answer.decode().partition("<sessionId>")[2].partition("<")[0]
    equal(len(session), 36)
    raises(vim.fault.InvalidLogin, lambda: peer.connect(password="another secret"))
    print(json.dumps(found + [generic, session, "another secret", basic(peer.user, peer.password)["Authorization"][6:]]))
    connect.Disconnect(si)


def several(peer, *behaviours):
    """Several behaviours in one run of Python: `name argument argument`, or `name argument|argument with blanks`."""
    for behaviour in behaviours:
        name, _, rest = behaviour.partition(" ")
        globals()[name](peer, *[word for part in rest.split("|")[:1] for word in part.split()], *rest.split("|")[1:])


def main(ready, user, password, certificate, behaviour, *rest):
    globals()[behaviour](Peer(ready, user, password, certificate), *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
