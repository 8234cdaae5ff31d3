use super::*;

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::net::nfc::Compression;
use crate::net::nfc::client::Buffers;
use crate::net::nfc::client::Options;
use crate::net::tls::TlsSettings;
use crate::transport::vsphere::fakes::CHAIN;
use crate::transport::vsphere::fakes::FakeHosts;
use crate::transport::vsphere::fakes::FakeServer;
use crate::transport::vsphere::fakes::Lines;
use crate::transport::vsphere::fakes::entrance;
use crate::transport::vsphere::sessions::Lease;
use crate::transport::vsphere::target::Disks;

struct Scene {
    server: Arc<FakeServer>,
    hosts: Arc<FakeHosts>,
    lines: Arc<Lines>,
    vsphere: Vsphere,
    lease: Lease,
}

fn scene() -> Scene {
    let (server, hosts) = (FakeServer::new(), Arc::new(FakeHosts::default()));
    let (lines, log) = Lines::log();
    let vsphere = Vsphere::new(Arc::new(server.clone()), hosts.clone(), log);
    let lease = vsphere.sessions().lease(entrance("vc", "password-canary"));
    Scene { server, hosts, lines, vsphere, lease }
}

fn how(modes: Option<&str>, write: bool) -> How {
    let settings = NfcSettings {
        compression: Compression::None,
        buffers: Buffers::default(),
        options: Options { connect: Duration::from_secs(60), ..Options::default() },
        client_name: "vddk".to_owned(),
        any_second_certificate: false,
        tls: TlsSettings::default(),
    };
    let caches = Caches { tables: 1 << 20, grains: 1 << 20 };
    How { modes: modes.map(str::to_owned), write, nfc_port: None, settings, caches }
}

impl Scene {
    fn open(&self, path: &str, how: &How) -> Result<Remote> {
        let subject =
            Subject { machine: Some("moref=vm-1".to_owned()), snapshot: None, disks: Disks::OfMachine };
        self.vsphere.open(self.lease.session(), &subject, Path::new(path), how)
    }

    fn tried(&self) -> Vec<&'static str> {
        self.hosts.made.lock().iter().map(|(mode, ..)| mode.name()).collect()
    }
}

fn first_byte(disk: &Disk) -> Result<u8> {
    let mut sector = [0; 512];
    disk.read(&mut sector, 0).map(|()| sector[0])
}

#[test]
fn a_disk_of_a_machine_is_read_over_its_host() {
    let scene = scene();
    let remote = scene.open("[ds]vm/a-000001.vmdk", &how(None, false)).unwrap();
    assert_eq!(remote.label, "vpxa-nfcssl://[ds] vm/a-000001.vmdk@esx1:902");
    assert_eq!((remote.line.mode(), remote.kind, remote.disk.capacity()), (Mode::NbdSsl, "custom", 4096));
    assert_eq!(first_byte(&remote.disk).unwrap(), 7);
    assert_eq!((scene.server.count("files"), scene.server.count("hardware")), (1, 0));
    let facts = remote.facts.unwrap();
    assert_eq!(facts.chain(), Chain { links: 2, parent: Some(CHAIN[2].to_owned()) });
    assert_eq!((facts.chain().links, scene.server.count("hardware")), (2, 1), "it is asked for once");
    assert_eq!(facts.geometry(), Some(Geometry { cylinders: 1, heads: 2, sectors: 3 }));
    assert_eq!((facts.key("live").unwrap().as_deref(), facts.key("none").unwrap()), (Some("asked"), None));
    assert_eq!(
        remote.disk.leaf().with_descriptor(|d| d.ddb("adapterType").map(str::to_owned)),
        Some("ide".into())
    );
}

#[test]
fn a_disk_is_written_with_a_ticket_for_its_device() {
    let scene = scene();
    let remote = scene.open(CHAIN[0], &how(None, true)).unwrap();
    assert_eq!(scene.server.count("disk VirtualMachine vm-1 2000 esx1 true"), 1);
    remote.disk.write(&[1; 512], 0).unwrap();
    assert_eq!(remote.facts.unwrap().chain().links, 3);
    assert_eq!(scene.server.count("hardware"), 1);
}

#[test]
fn the_callers_list_decides_and_a_single_advanced_mode_has_a_stand_in() {
    for (list, tried) in [
        (None, "nbdssl"),
        (Some("file:san:hotadd:nbdssl:nbd"), "nbdssl"),
        (Some("nbd:nbdssl"), "nbd"),
        (Some("san"), "nbdssl"),
        (Some("hotadd"), "nbdssl"),
    ] {
        let scene = scene();
        let remote = scene.open(CHAIN[1], &how(list, false)).unwrap();
        assert_eq!((scene.tried(), remote.line.mode().name()), (vec![tried], tried), "{list:?}");
    }
    let nowhere = scene().open(CHAIN[1], &how(Some("file"), false)).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::NotSupported);
}

#[test]
fn what_fails_for_one_mode_is_tried_with_the_next_and_the_last_fault_is_told() {
    let scene = scene();
    scene.hosts.faults.lock().extend([ErrorKind::NotSupported, ErrorKind::AccessDenied]);
    let e = scene.open(CHAIN[1], &how(Some("nbdssl:nbd"), false)).unwrap_err();
    assert_eq!((e.kind(), scene.tried()), (ErrorKind::AccessDenied, vec!["nbdssl", "nbd"]));
    assert!(scene.lines.has("is not reached by nbdssl"));
    scene.hosts.faults.lock().extend([ErrorKind::CertificateRefused]);
    let e = scene.open(CHAIN[1], &how(None, false)).unwrap_err();
    assert_eq!((e.kind(), scene.tried().len()), (ErrorKind::CertificateRefused, 3));
}

#[test]
fn every_connection_has_a_ticket_of_its_own_also_after_the_machine_moved() {
    let scene = scene();
    let remote = scene.open(CHAIN[0], &how(Some("nbdssl:nbd"), true)).unwrap();
    *scene.server.host.lock() = "esx2";
    *scene.hosts.lines.lock()[0].fault.lock() = Some(ErrorKind::ConnectionLost);
    assert_eq!(first_byte(&remote.disk).unwrap(), 7);
    assert_eq!(remote.line.mode(), Mode::Nbd);
    assert_eq!(scene.hosts.made.lock()[1], (Mode::Nbd, CHAIN[0].to_owned(), "esx2".to_owned()));
    assert_eq!((scene.vsphere.limits.on_host("esx1"), scene.vsphere.limits.on_host("esx2")), (0, 1));
    remote.line.cut();
    assert_eq!(scene.vsphere.limits.on_host("esx2"), 0);
}

#[test]
fn a_host_without_room_is_asked_again() {
    let scene = scene();
    let first = scene.open(CHAIN[1], &how(None, false)).unwrap();
    scene.hosts.faults.lock().extend([ErrorKind::OutOfMemory, ErrorKind::ConnectionRefused]);
    let second = scene.open(CHAIN[1], &how(None, false)).unwrap();
    assert_eq!((scene.tried().len(), scene.vsphere.limits.on_host("esx1")), (4, 2));
    assert!(scene.lines.has("waits for room on its host"));
    assert_eq!(scene.server.count("files"), 4, "a ticket is good once");
    first.line.cut();
    second.line.cut();
    scene.hosts.faults.lock().extend([ErrorKind::ConnectionRefused]);
    let alone = scene.open(CHAIN[1], &how(None, false)).unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(scene.vsphere.limits.on_host("esx1"), 0);
}

#[test]
fn a_refused_disk_that_the_machine_has_not_is_not_found() {
    let scene = scene();
    for (path, kind) in [("[ds] vm/none.vmdk", ErrorKind::NotFound), (CHAIN[1], ErrorKind::ReadOnly)] {
        scene.hosts.faults.lock().extend([ErrorKind::ReadOnly]);
        let e = scene.open(path, &how(Some("nbdssl"), false)).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains("esx1 refuses"), "{e}");
    }
}

#[test]
fn a_first_class_disk_without_a_machine_is_refused_in_so_many_words() {
    let scene = scene();
    let disks = Disks::FirstClass { id: "f".into(), datastore: "datastore-1".into(), snapshot: None };
    let subject = Subject { machine: None, snapshot: None, disks };
    let e =
        scene.vsphere.open(scene.lease.session(), &subject, Path::new(""), &how(None, false)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotSupported);
    assert!(e.to_string().contains("[ds] fcd/f.vmdk is named without a machine"), "{e}");
}

#[test]
fn refused_logins_are_told_and_no_secret_is() {
    let scene = scene();
    scene.server.refusals.lock().push_back(ErrorKind::Unauthorised);
    let e = scene.open(CHAIN[1], &how(None, false)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unauthorised);
    scene.open(CHAIN[1], &how(None, true)).unwrap();
    let said = format!("{e} {e:?} {:?} {:?} {:?}", scene.vsphere, scene.lease, scene.lines.0.lock());
    assert!(!said.contains("canary"), "{said}");
    assert_eq!(scene.server.count("login"), 2);
}

#[test]
fn a_disk_whose_connection_was_closed_finds_no_way_back() {
    let Scene { server, hosts, vsphere, lease, .. } = scene();
    let subject = Subject { machine: Some("vm-1".into()), snapshot: None, disks: Disks::OfMachine };
    let remote = vsphere.open(lease.session(), &subject, Path::new(CHAIN[0]), &how(None, false)).unwrap();
    drop(lease);
    *hosts.lines.lock()[0].fault.lock() = Some(ErrorKind::ConnectionLost);
    let e = first_byte(&remote.disk).unwrap_err();
    assert_eq!((e.kind(), server.count("login"), server.count("logout")), (ErrorKind::ConnectionLost, 1, 1));
    assert!(hosts.lines.lock()[0].cut.load(Ordering::SeqCst));
}
