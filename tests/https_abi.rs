//! Disks whose files are read over HTTPS from a datastore, through the C interface: on the simulator of this project and on
//! govmomi's.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::images::Golden;
use common::images::Images;
use common::model;
use common::scratch;
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::configured;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::stage::refused;
use common::vcsim;
use common::vcsim::Vcsim;
use common::vcsim::between;
use common::vix;
use common::vix::Disk;
use common::vix::Server;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;
use ring::digest;
use vixDiskLib::config::Config;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::logging::Log;
use vixDiskLib::net::vim::MachineSpec;
use vixDiskLib::net::vim::Moref;
use vixDiskLib::net::vim::Session;
use vixDiskLib::secret::Secret;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Credentials;
use vixDiskLib::session::DiskSpec;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::fault::Rule;
use vixDiskLib::sim::options::DatastoreOptions;
use vixDiskLib::sim::options::FolderEncoding;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::units::Sectors;

/// A name that has to be encoded.
const STORE: &str = "my store 1";
/// Larger images would only take longer.
const LARGEST: u64 = 64 << 20;

fn over_https(stage: &Stage) -> Server {
    stage.server().over("https")
}

fn fault(stage: &Stage, rule: &str) {
    stage.sim.faults().add(Rule::parse(rule).expect("a rule"));
}

/// The golden images in folders of a datastore, with the path of each in it.
fn golden_in(store: &Path) -> Vec<(Golden, String)> {
    let images = Images::find();
    let small = images.golden().into_iter().filter(|golden| golden.size <= LARGEST);
    small
        .enumerate()
        .map(|(n, golden)| {
            let unpacked = images.unpack(&golden.path);
            let folder = store.join(format!("vm {n}"));
            std::fs::create_dir(&folder).expect("a folder");
            for name in scratch::names(unpacked.folder()) {
                std::fs::copy(unpacked.sibling(&name), folder.join(&name)).expect("copying an image");
            }
            let name = unpacked.path().file_name().expect("a name").to_string_lossy().into_owned();
            (golden, format!("vm {n}/{name}"))
        })
        .collect()
}

fn keys(disk: &Disk<'_>) -> Vec<(String, String)> {
    let all = disk.metadata_keys().into_iter();
    let mut all: Vec<_> = all.map(|key| (key.clone(), disk.metadata(&key).expect("a value"))).collect();
    all.sort();
    all
}

/// Reads every image with a few sizes of requests, and compares what is said of it with what is said of its file.
fn read_all(server: &Server, store: &Path, images: &[(Golden, String)]) {
    let (here, connection) = (Vix::started().connect(false).expect("a connection"), connect(server));
    for (golden, path) in images {
        let disk = connection.must_open(Path::new(&format!("[{STORE}] {path}")), flags::READ_ONLY);
        assert_eq!((disk.transport().as_str(), disk.info().capacity * 512), ("https", golden.size));
        for step in [8192, 100] {
            let mut hash = model::Hasher::default();
            for start in (0..golden.size / 512).step_by(step) {
                hash.add(&disk.must_read(start, (golden.size / 512 - start).min(step as u64)));
            }
            assert_eq!(hash.hex(), golden.sha256, "{} in steps of {step}", golden.path);
        }
        let capacity = golden.size / 512;
        let pieces: Vec<(u64, u64)> =
            (0..capacity.div_ceil(777)).map(|n| (n * 777, 777.min(capacity - n * 777))).collect();
        let got = disk.read_many(&pieces, 8, 3).unwrap_or_else(|e| panic!("{}: {e}", golden.path));
        assert_eq!(model::sha256(&got), golden.sha256, "{} asynchronously", golden.path);
        let near = here.must_open(&store.join(path), flags::READ_ONLY);
        assert_eq!(disk.allocated_all(128), near.allocated_all(128), "{}: what is allocated", golden.path);
        assert_eq!(keys(&disk), keys(&near), "{}: the database", golden.path);
        assert_eq!(disk.close(), code::OK);
    }
}

#[test]
fn every_image_reads_the_same_from_a_datastore_of_the_simulator() {
    in_child(|| {
        let store = scratch::folder();
        let images = golden_in(store.path());
        for (esxi, folder_encoding) in
            [(false, FolderEncoding::AsReal), (false, FolderEncoding::Once), (true, FolderEncoding::AsReal)]
        {
            let datastores =
                vec![DatastoreOptions { name: STORE.to_owned(), folder: store.path().to_owned() }];
            let machines =
                vec![MachineOptions { name: "vm".to_owned(), disks: Vec::new(), powered_on: false }];
            let options = Options { esxi, folder_encoding, datastores, machines, ..Options::default() };
            let sim = Sim::start(options).unwrap_or_else(|e| panic!("the simulator: {e}"));
            let server = Server {
                name: sim.address().to_string(),
                thumbprint: Some(sim.ready().thumbprint_sha256),
                machine: Some(format!("moref={}", sim.ready().vms[0].moref)),
                login: Some(("administrator@vsphere.local".to_owned(), "vixsim".to_owned())),
                ..Server::default()
            };
            read_all(&server.over("https"), store.path(), &images);
        }
    });
}

/// Makes the folder a datastore of govmomi's simulator; its reference, and that of a machine.
fn store_of(peer: &Vcsim, session: &Session, folder: &Path) -> (String, Moref) {
    let machine = session.machine(&MachineSpec::parse("DC0/vm/DC0_H0_VM0").expect("a path"));
    let machine = machine.expect("a machine");
    let host = session.hardware(&machine, None).expect("hardware").host.expect("a host");
    let cookie = session.cookie();
    let system = peer.property(&cookie, "HostSystem", &host.id, "configManager.datastoreSystem");
    let made = peer.soap(
        &cookie,
        &format!(
            "<CreateLocalDatastore xmlns=\"urn:vim25\"><_this type=\"HostDatastoreSystem\">{}</_this>\
             <name>{STORE}</name><path>{}</path></CreateLocalDatastore>",
            system.split('<').next().expect("a reference"),
            folder.display()
        ),
    );
    let store = between(&made, "<returnval", "</returnval>").split_once('>').expect("a reference").1;
    (store.to_owned(), machine)
}

#[test]
fn every_image_reads_the_same_from_a_datastore_of_govmomis_simulator() {
    requires!(&vcsim::program());
    in_child(|| {
        let store = scratch::folder();
        let images = golden_in(store.path());
        let peer = vcsim::vcenter();
        let session = peer.session();
        let (_, machine) = store_of(&peer, &session, store.path());
        let server = Server {
            name: format!("127.0.0.1:{}", peer.port),
            thumbprint: Some(peer.thumbprint(&digest::SHA256)),
            machine: Some(format!("moref={}", machine.id)),
            login: Some(("user".to_owned(), "pass".to_owned())),
            modes: Some("https".to_owned()),
            ..Server::default()
        };
        read_all(&server, store.path(), &images);
        let gone = PathBuf::from(format!("[{STORE}] vm 0/gone.vmdk"));
        assert_eq!(refused(&server, &gone, flags::READ_ONLY), code::FILE_NOT_FOUND);
        session.close().expect("a farewell");
    });
}

#[test]
fn a_first_class_disk_is_read_without_a_machine() {
    requires!(&vcsim::program());
    let (folder, images) = (scratch::folder(), Images::find());
    let golden = images.golden().into_iter().find(|golden| golden.path.ends_with("/monolithicSparse.vmdk"));
    let golden = golden.expect("an image of one file");
    let peer = vcsim::vcenter();
    let session = peer.session();
    let (store, _) = store_of(&peer, &session, folder.path());
    let task = peer.soap(
        &session.cookie(),
        &format!(
            "<CreateDisk_Task xmlns=\"urn:vim25\"><_this type=\"VcenterVStorageObjectManager\">VStorageObjectManager</_this>\
             <spec><name>fcd</name><backingSpec xsi:type=\"VslmCreateSpecDiskFileBackingSpec\">\
             <datastore type=\"Datastore\">{store}</datastore></backingSpec><capacityInMB>10</capacityInMB></spec></CreateDisk_Task>"
        ),
    );
    let made = peer.result(&session.cookie(), between(&task, "<returnval type=\"Task\">", "</returnval>"));
    let id = between(&made, "<id><id>", "</id>").to_owned();
    let path = session.first_class_disk(&id, &Moref::new("Datastore", &store), None).expect("its path");
    let file = folder.path().join(path.split_once("] ").expect("a path of a datastore").1);
    std::fs::copy(images.unpack(&golden.path).path(), file).expect("its content");

    let library = Library::new(Log::none(), Config::default());
    let connect = |modes: &str| {
        let params = ConnectParams {
            server: Some(format!("127.0.0.1:{}", peer.port)),
            thumbprint: Some(peer.thumbprint(&digest::SHA256)),
            credentials: Credentials::User {
                name: "user".to_owned(),
                password: Secret::from("pass".to_owned()),
            },
            disk: DiskSpec::FirstClassDisk { id: id.clone(), datastore: store.clone(), snapshot: None },
            ..ConnectParams::default()
        };
        library.connect(params, true, None, Some(modes.to_owned())).expect("a connection")
    };
    let refused = connect("nbdssl:nbd").open(Path::new(""), OpenFlags::READ_ONLY).expect_err("a refusal");
    assert_eq!(refused.kind(), ErrorKind::NotSupported);
    for path in ["", &path] {
        let connection = connect("nbdssl:https");
        let disk = connection.open(Path::new(path), OpenFlags::READ_ONLY).expect("the disk");
        let mut content = vec![0; golden.size as usize];
        disk.read(Sectors(0), &mut content).expect("its content");
        assert_eq!((model::sha256(&content), disk.transport_mode()), (golden.sha256.clone(), "https"));
        connection.close().expect("an end");
    }
    library.shut_down();
    session.close().expect("a farewell");
}

#[test]
fn https_is_used_by_those_who_name_it_and_shown_to_nobody() {
    in_child(|| {
        configured("vixDiskLib.nfc.AcceptTimeoutMs=2000\n"); // a host that closes its door is waited for so long
        let stage = Stage::vcenter();
        assert_eq!(Vix::started().transport_modes(), "file:nbdssl:nbd");
        for (list, mode) in [
            ("https", "https"),
            ("HTTPS:nbdssl", "https"),
            ("nbdssl:https", "nbdssl"),
            ("san:https", "https"),
        ] {
            let connection = connect(&stage.server().over(list));
            assert_eq!(connection.must_open(&stage.disk(0), flags::READ_ONLY).transport(), mode, "{list}");
        }
        fault(&stage, "authd.*=cut");
        let server = stage.server();
        assert_ne!(refused(&server, &stage.disk(0), flags::READ_ONLY), code::OK, "nobody named https");
        let connection = connect(&server.over("nbdssl:https"));
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        assert_eq!(disk.transport(), "https");
        assert!(content(&disk) == expected(true));
    });
}

#[test]
fn a_chain_is_read_and_described_as_it_is() {
    in_child(|| {
        for stage in [Stage::vcenter(), Stage::host()] {
            let connection = connect(&over_https(&stage));
            let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
            assert!(content(&disk) == expected(true));
            let nfc = connect(&stage.server());
            let (nfc, info) = (nfc.must_open(&stage.disk(0), flags::READ_ONLY).info(), disk.info());
            assert_eq!((info.capacity, info.links), (SECTORS, 2));
            assert_eq!((info.adapter, info.links, info.parent), (nfc.adapter, nfc.links, nfc.parent));
            let listed = disk.allocated_all(128);
            assert!(listed.iter().map(|(_, count)| count).sum::<u64>() < SECTORS, "tables tell: {listed:?}");
            assert!(disk.metadata_keys().iter().any(|key| key == "adapterType"));
            assert_eq!(disk.write(0, &[1; 512]), code::FILE_READ_ONLY);
            let line = "DISKLIB-LINK  : Opened 'https://[";
            assert!(vix::log_lines().iter().any(|(_, text)| text.contains(line)), "{}", vix::log_text());
            assert!(!vix::log_text().contains(common::stage::PASSWORD));
        }
    });
}

#[test]
fn it_reads_only() {
    in_child(|| {
        let stage = Stage::vcenter();
        let server = over_https(&stage);
        assert_eq!(refused(&server, &stage.disk(1), flags::READ_WRITE), code::NOT_SUPPORTED);
        let read_only = Server { read_only: true, ..server };
        let connection = connect(&read_only);
        assert_eq!(connection.must_open(&stage.disk(1), flags::READ_WRITE).transport(), "https");
    });
}

#[test]
fn files_of_a_running_machine_are_locked_and_those_of_its_snapshot_are_not() {
    in_child(|| {
        let stage = Stage::vcenter();
        stage.sim.power("vm", true).expect("power");
        let server = over_https(&stage);
        assert_eq!(refused(&server, &stage.disk(0), flags::READ_ONLY), code::ALREADY_LOCKED);
        assert!(vix::log_text().contains("The file is locked"), "{}", vix::log_text());
        let (snapshot, path) = stage.snapshot();
        let server = Server { snapshot: Some(snapshot), ..server };
        let connection = connect(&server);
        let disk = connection.must_open(&path, flags::READ_ONLY);
        assert!(content(&disk) == expected(false));
    });
}

#[test]
fn lost_connections_busy_servers_and_expired_sessions_are_got_over() {
    in_child(|| {
        let stage = Stage::vcenter();
        let connection = connect(&over_https(&stage));
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        fault(&stage, "folder:/5=cut");
        assert!(content(&disk) == expected(true));
        stage.sim.faults().clear();
        stage.sim.end_sessions();
        stage.sim.cut();
        assert!(content(&disk) == expected(true));
        assert!(vix::log_text().contains("logging in again"), "{}", vix::log_text());
        fault(&stage, "folder:/3=status(503)");
        assert!(content(&disk) == expected(true));
    });
}

#[test]
fn an_end_comes_soon_while_the_server_is_silent() {
    in_child(|| {
        let stage = Stage::vcenter();
        let connection = connect(&over_https(&stage));
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        fault(&stage, "folder=silence");
        let reading = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                reading.store(true, Ordering::SeqCst);
                disk.read(0, &mut vec![0; (SECTORS * 512) as usize])
            });
            while !reading.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let begin = Instant::now();
            connection.disconnect_again();
            assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
            assert_ne!(reader.join().expect("the reader"), code::OK);
        });
    });
}
