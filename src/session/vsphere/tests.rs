use super::*;

use std::sync::atomic::Ordering;

use crate::config::Config;
use crate::secret::Secret;
use crate::session::Connection;
use crate::session::DiskType;
use crate::session::OpenDisk;
use crate::storage::file_system::Host;
use crate::transport::vsphere::Vsphere;
use crate::transport::vsphere::fakes::CHAIN;
use crate::transport::vsphere::fakes::FakeHosts;
use crate::transport::vsphere::fakes::FakeServer;
use crate::transport::vsphere::fakes::Lines;
use crate::units::Sectors;

struct Scene {
    server: Arc<FakeServer>,
    hosts: Arc<FakeHosts>,
    lines: Arc<Lines>,
    library: Arc<Library>,
}

fn scene() -> Scene {
    let (server, hosts) = (FakeServer::new(), Arc::new(FakeHosts::default()));
    let (lines, log) = Lines::log();
    let vsphere = Vsphere::new(Arc::new(server.clone()), hosts.clone(), log.clone());
    let library = Library::with(log, Config::default(), Arc::new(Host), vsphere);
    Scene { server, hosts, lines, library }
}

fn params() -> ConnectParams {
    ConnectParams {
        vmx_spec: Some("moref=vm-1".to_owned()),
        server: Some("https://vc.example.org/sdk".to_owned()),
        credentials: Credentials::User {
            name: "root".to_owned(),
            password: Secret::from("password-canary".to_owned()),
        },
        ..ConnectParams::default()
    }
}

impl Scene {
    fn connect(&self) -> Arc<Connection> {
        self.library.connect(params(), false, None, None).unwrap()
    }
}

fn open(connection: &Arc<Connection>, flags: OpenFlags) -> Result<Arc<OpenDisk>> {
    connection.open(Path::new(CHAIN[0]), flags)
}

#[test]
fn a_disk_says_what_its_host_and_its_server_know() {
    let scene = scene();
    let connection = scene.connect();
    let disk = open(&connection, OpenFlags::READ_ONLY).unwrap();
    let info = disk.info().unwrap();
    assert_eq!((info.links, info.parent_hint.as_deref()), (3, Some(CHAIN[1])));
    assert_eq!((info.geometry.cylinders, info.geometry.heads, info.geometry.sectors), (1, 2, 3));
    assert_eq!(info.adapter, crate::session::Adapter::Ide);
    assert_eq!(disk.metadata_keys().unwrap(), ["adapterType", "longContentID"]);
    assert_eq!(disk.metadata("live").unwrap(), "asked", "a key that was not asked for at the start");
    assert_eq!(disk.metadata("none").unwrap_err().kind(), ErrorKind::KeyNotFound);
    assert_eq!(disk.set_metadata("a", "b").unwrap_err().kind(), ErrorKind::ReadOnly);
    let writable = open(&connection, OpenFlags::empty()).unwrap();
    assert_eq!(writable.set_metadata("a", "b").unwrap_err().kind(), ErrorKind::NotSupported);
    assert_eq!(disk.allocated_blocks(Sectors(0), Sectors(8), Sectors(128)).unwrap(), [(0, 8)]);
    assert!(scene.lines.has(&format!(
        "DISKLIB-LINK  : Opened 'vpxa-nfcssl://{}@esx1:902' (0x4): custom, 8 sectors",
        CHAIN[0]
    )));
    connection.close().unwrap();
    assert!(scene.hosts.lines.lock().iter().all(|line| line.cut.load(Ordering::SeqCst)));
    assert_eq!((scene.server.count("login"), scene.server.count("logout")), (1, 1));
}

#[test]
fn connecting_sends_nothing_and_a_wrong_login_shows_when_a_disk_is_opened() {
    let scene = scene();
    scene.server.refusals.lock().push_back(ErrorKind::Unauthorised);
    let connection = scene.connect();
    assert_eq!(scene.server.count(""), 0);
    assert_eq!(open(&connection, OpenFlags::empty()).unwrap_err().kind(), ErrorKind::Unauthorised);
    connection.close().unwrap();
    assert_eq!(open(&connection, OpenFlags::empty()).unwrap_err().kind(), ErrorKind::InvalidConnection);
    assert!(!scene.lines.has("canary"));
}

#[test]
fn what_works_on_files_only_says_so() {
    let scene = scene();
    let connection = scene.connect();
    let path = Path::new(CHAIN[0]);
    let remote = ErrorKind::NotSupportedRemote;
    assert_eq!(connection.unlink(path).unwrap_err().kind(), remote);
    assert_eq!(connection.check_repair(path, false).unwrap_err().kind(), remote);
    assert_eq!(connection.grow(path, Sectors(16), false, &mut |_| ()).unwrap_err().kind(), remote);
    assert_eq!(open(&connection, OpenFlags::SINGLE_LINK).unwrap_err().kind(), ErrorKind::NotSupported);
    let disk = open(&connection, OpenFlags::READ_ONLY).unwrap();
    assert_eq!(disk.shrink(&mut |_| ()).unwrap_err().kind(), remote);
}

#[test]
fn a_connection_that_is_read_only_opens_for_reading() {
    let scene = scene();
    let connection = scene.library.connect(params(), true, None, None).unwrap();
    let disk = open(&connection, OpenFlags::empty()).unwrap();
    assert_eq!(disk.write(Sectors(0), &[0; 512]).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!((scene.server.count("files"), scene.server.count("disk")), (1, 0));
}

#[test]
fn servers_that_make_no_sense_are_refused_at_once_and_missing_ones_when_needed() {
    let scene = scene();
    let connect = |params| scene.library.connect(params, false, None, None);
    let odd = ConnectParams { server: Some("http://vc".to_owned()), ..params() };
    assert_eq!(connect(odd).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let nameless = connect(ConnectParams { server: None, ..params() }).unwrap();
    assert_eq!(open(&nameless, OpenFlags::empty()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let no_machine = connect(ConnectParams { vmx_spec: None, ..params() }).unwrap();
    assert_eq!(open(&no_machine, OpenFlags::empty()).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_machine_is_held_and_released_with_and_without_a_connection() {
    let scene = scene();
    scene.library.hold_machine(&params(), "me").unwrap();
    assert_eq!((scene.server.count("login"), scene.server.count("logout")), (1, 1));
    let connection = scene.connect();
    open(&connection, OpenFlags::READ_ONLY).unwrap();
    scene.library.release_machine(&params(), "me").unwrap();
    assert_eq!(scene.server.count("login"), 2, "the connection's session is used");
    assert_eq!(scene.server.count("disable VirtualMachine vm-1 me"), 1);
    assert_eq!(scene.server.count("enable VirtualMachine vm-1 me"), 1);
    scene.server.faults.lock().push(("disable", ErrorKind::OperationDisabled));
    let held = scene.library.hold_machine(&params(), "me").unwrap_err();
    assert_eq!(held.kind(), ErrorKind::OperationDisabled);
    connection.close().unwrap();
    assert_eq!(scene.server.count("logout"), 2);
}

#[test]
fn a_host_without_a_vcenter_holds_no_machine() {
    let scene = scene();
    scene.server.vcenter.store(false, Ordering::SeqCst);
    let e = scene.library.hold_machine(&params(), "me").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotSupported);
    assert!(scene.lines.has("HostAgent is not a vCenter, cannot disable svmotion."));
}

#[test]
fn holding_needs_a_machine_and_a_short_identity() {
    let scene = scene();
    let refused = |params: ConnectParams, identity: &str| {
        scene.library.hold_machine(&params, identity).map_err(|e| e.kind())
    };
    let invalid = Err(ErrorKind::InvalidArgument);
    assert_eq!(refused(ConnectParams { vmx_spec: None, ..params() }, "me"), invalid);
    assert_eq!(refused(ConnectParams { server: None, ..params() }, "me"), invalid);
    assert_eq!(refused(params(), &"x".repeat(51)), invalid);
    assert_eq!(refused(params(), ""), invalid);
    assert_eq!(scene.server.count(""), 0);
    assert_eq!(refused(params(), &"ü".repeat(50)), Ok(()));
    assert_eq!(refused(ConnectParams::default(), ""), Ok(()), "local disks are held by nobody");
    let export = ConnectParams { server: Some("nbd://h".to_owned()), ..params() };
    assert_eq!(refused(export, "me"), Ok(()));
}

#[test]
fn a_local_child_of_a_remote_disk_is_made_and_put_on_top_of_it() {
    let scene = scene();
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child.vmdk");
    let connection = scene.connect();
    let here = scene.library.connect(ConnectParams::default(), false, None, None).unwrap();
    let parent = open(&connection, OpenFlags::READ_ONLY).unwrap();
    parent.create_child(&child, DiskType::MonolithicSparse, &mut |_| ()).unwrap();
    let whole = here.open(&child, OpenFlags::empty()).unwrap_err();
    assert_eq!(whole.kind(), ErrorKind::ParentMissing, "its parent is not a file: {whole}");
    let upper = here.open(&child, OpenFlags::SINGLE_LINK).unwrap();
    OpenDisk::check_attach(&parent, &upper).unwrap();
    let joined = OpenDisk::attach(&parent, &upper).unwrap();
    assert_eq!(parent.read(Sectors(0), &mut [0; 512]).unwrap_err().kind(), ErrorKind::InvalidHandle);
    joined.write(Sectors(1), &[1; 512]).unwrap();
    let mut sectors = [0; 1536];
    joined.read(Sectors(0), &mut sectors).unwrap();
    assert!(sectors[..512] == [7; 512] && sectors[512..1024] == [1; 512] && sectors[1024..] == [7; 512]);
    assert_eq!(joined.info().unwrap().links, 2);
    let line = scene.hosts.lines.lock()[0].clone();
    assert!(!line.cut.load(Ordering::SeqCst));
    joined.close().unwrap();
    assert!(line.cut.load(Ordering::SeqCst), "the host's connection ends with the chain");
    here.unlink(&child).unwrap();
}

#[test]
fn a_remote_disk_that_was_written_to_is_no_parent() {
    let scene = scene();
    let folder = tempfile::tempdir().unwrap();
    let connection = scene.connect();
    let parent = open(&connection, OpenFlags::empty()).unwrap();
    parent.write(Sectors(0), &[1; 512]).unwrap();
    let child = folder.path().join("child.vmdk");
    let e = parent.create_child(&child, DiskType::MonolithicSparse, &mut |_| ()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ParentNotAllowed);
}

#[test]
fn the_end_of_the_library_logs_out_everywhere() {
    let scene = scene();
    let others: Vec<_> = (0..4)
        .map(|n| {
            let server = Some(format!("vc{n}"));
            let connection =
                scene.library.connect(ConnectParams { server, ..params() }, false, None, None).unwrap();
            open(&connection, OpenFlags::READ_ONLY).unwrap();
            connection
        })
        .collect();
    scene.library.shut_down();
    assert_eq!((scene.server.count("login"), scene.server.count("logout")), (4, 4));
    assert_eq!(open(&others[0], OpenFlags::empty()).unwrap_err().kind(), ErrorKind::InvalidConnection);
}

#[test]
fn a_copy_of_a_remote_disk_keeps_what_is_known_of_it() {
    let scene = scene();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.vmdk");
    let connection = scene.connect();
    let here = scene.library.connect(ConnectParams::default(), false, None, None).unwrap();
    here.copy_disk(&path, &connection, Path::new(CHAIN[1]), None, false, &mut |_| ()).unwrap();
    let copy = here.open(&path, OpenFlags::READ_ONLY).unwrap();
    let mut all = [0; 4096];
    copy.read(Sectors(0), &mut all).unwrap();
    assert_eq!(all, [7; 4096]);
    assert_eq!(copy.info().unwrap().adapter, crate::session::Adapter::Ide);
    connection.copy_disk(Path::new(CHAIN[0]), &here, &path, None, true, &mut |_| ()).unwrap();
    let exists = connection.copy_disk(Path::new(CHAIN[0]), &here, &path, None, false, &mut |_| ());
    assert_eq!(exists.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(scene.server.count("disk VirtualMachine vm-1 2000"), 1);
}
