//! Which disks a connection is for, as the C structure says it: those of a machine in every form of its name, those of a
//! folder of a datastore, first class disks. On the simulator.

mod common;

use std::path::Path;
use std::path::PathBuf;

use common::child::in_child;
use common::model::stamps;
use common::stage::Stage;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::stage::refused;
use common::vix;
use common::vix::Disks;
use common::vix::Server;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;
use vixDiskLib::sim::options::FirstClassOptions;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;

/// The reference of the datastore.
const STORE: &str = "datastore-12";

/// Directory and name of a disk in its datastore.
fn parted(disk: &Path) -> (String, String) {
    let path = disk.to_str().expect("a path in UTF-8");
    let (_, path) = path.split_once("] ").expect("a path of a datastore");
    let (folder, name) = path.rsplit_once('/').expect("a directory");
    (folder.to_owned(), name.to_owned())
}

/// The disks of the folder that the machine's disks are in.
fn of_folder(stage: &Stage) -> Server {
    let (folder, _) = parted(&stage.disk(0));
    Server { disks: Disks::OfFolder { datastore: STORE.to_owned(), folder }, ..stage.server() }
}

#[test]
fn a_disk_of_a_datastore_is_read_by_its_path_in_a_folder() {
    in_child(|| {
        let stage = Stage::vcenter();
        let (_, name) = parted(&stage.disk(0));
        for (mode, machine) in [("nbdssl", true), ("nbd", true), ("https", true), ("https", false)] {
            let server = of_folder(&stage).over(mode);
            let server = Server { machine: server.machine.filter(|_| machine), ..server };
            let connection = connect(&server);
            let disk = connection.must_open(Path::new(&name), flags::READ_ONLY);
            assert_eq!(disk.transport(), mode);
            assert!(content(&disk) == expected(true), "{mode}");
            assert_eq!(disk.close(), code::OK);
            let missing = connection.open(Path::new("none.vmdk"), flags::READ_ONLY).map(|_| ());
            assert_eq!(missing, Err(code::FILE_NOT_FOUND), "{mode}: {}", vix::log_text());
        }
        // To write takes the machine whose disk it is.
        let (_, other) = parted(&stage.disk(1));
        let connection = connect(&of_folder(&stage));
        let disk = connection.must_open(Path::new(&other), flags::READ_WRITE);
        disk.must_write(77, &stamps(77, 10, 6));
        assert!(disk.must_read(77, 10) == stamps(77, 10, 6));
    });
}

#[test]
fn a_disk_of_a_datastore_without_its_machine_is_not_asked_for_over_nfc() {
    in_child(|| {
        let stage = Stage::vcenter();
        let (_, name) = parted(&stage.disk(0));
        let server = Server { machine: None, ..of_folder(&stage) };
        for modes in ["nbdssl", "nbd", "nbdssl:nbd"] {
            vix::forget_log();
            let code = refused(&server.clone().over(modes), Path::new(&name), flags::READ_ONLY);
            assert_eq!(code, code::NOT_SUPPORTED, "{}", vix::log_text());
            assert!(logged("is named without a machine") >= 1, "{}", vix::log_text());
        }
        let connection = connect(&server.over("nbdssl:https"));
        assert_eq!(connection.must_open(Path::new(&name), flags::READ_ONLY).transport(), "https");
    });
}

#[test]
fn a_datastore_that_is_not_there_or_a_path_that_leads_out_is_refused() {
    in_child(|| {
        let stage = Stage::vcenter();
        let (folder, name) = parted(&stage.disk(0));
        let server = |datastore: &str, folder: &str| {
            let disks = Disks::OfFolder { datastore: datastore.to_owned(), folder: folder.to_owned() };
            Server { disks, machine: None, ..stage.server() }.over("https")
        };
        let code = refused(&server("datastore-4711", &folder), Path::new(&name), flags::READ_ONLY);
        assert_eq!(code, code::OBJECT_NOT_FOUND, "{}", vix::log_text());
        for path in ["../a.vmdk", "x/../../a.vmdk"] {
            let code = refused(&server(STORE, &folder), Path::new(path), flags::READ_ONLY);
            assert_eq!(code, code::NAME_INVALID, "{path:?}: {}", vix::log_text());
        }
        let halves = [("", "folder"), (STORE, "")].map(|(store, folder)| server(store, folder));
        for server in &halves {
            let connected = vix::Vix::started().connect_to(server).map(|_| ());
            assert_eq!(connected, Err(code::INVALID_ARG), "2 was 'unknown' once: {}", vix::log_text());
        }
    });
}

/// A vCenter whose first class disk is the first disk of its machine, or a copy of it that no machine has.
fn with_first_class() -> (tempfile::TempDir, Stage) {
    let made = Stage::vcenter();
    let folder = common::scratch::folder();
    for name in ["a.vmdk", "a-1.vmdk"] {
        std::fs::copy(made.file(name), folder.path().join(name)).expect("a copy");
    }
    let disk = folder.path().join("a-1.vmdk");
    let first_class = vec![FirstClassOptions { name: "fcd".to_owned(), disk }];
    (folder, Stage::start(Options { first_class, ..Options::default() }))
}

/// The parameters that lead to the first class disk, without any machine.
fn to_first_class(stage: &Stage, snapshot: bool) -> (Server, PathBuf) {
    let disk = stage.sim.ready().first_class.remove(0);
    let snapshot = snapshot.then(|| disk.snapshots[0].clone());
    let disks = Disks::FirstClass { id: disk.id, datastore: disk.datastore, snapshot };
    (Server { disks, machine: None, ..stage.server() }, PathBuf::from(disk.path))
}

#[test]
fn a_first_class_disk_and_its_snapshot_are_read_over_https() {
    in_child(|| {
        let (_folder, stage) = with_first_class();
        for (snapshot, child) in [(false, true), (true, false)] {
            let (server, path) = to_first_class(&stage, snapshot);
            let Disks::FirstClass { id, .. } = &server.disks else { unreachable!("it is one") };
            let mut names = vec![PathBuf::new(), PathBuf::from(id), PathBuf::from(id.to_uppercase())];
            names.extend((!snapshot).then_some(path));
            let connection = connect(&server.clone().over("nbdssl:https"));
            for name in names {
                let disk = connection.must_open(&name, flags::READ_ONLY);
                assert_eq!(disk.transport(), "https");
                assert!(content(&disk) == expected(child), "{name:?}, {snapshot}");
                assert_eq!(disk.info().links, if child { 2 } else { 1 });
            }
        }
    });
}

#[test]
fn a_first_class_disk_over_nfc_is_refused_in_so_many_words() {
    in_child(|| {
        let (_folder, stage) = with_first_class();
        let (server, _) = to_first_class(&stage, false);
        for modes in [None, Some("nbdssl"), Some("nbd")] {
            let server = Server { modes: modes.map(str::to_owned), ..server.clone() };
            vix::forget_log();
            let code = refused(&server, Path::new(""), flags::READ_ONLY);
            assert_eq!(code, code::NOT_SUPPORTED, "{modes:?}: {}", vix::log_text());
            let words = "is named without a machine, and how a host is asked for a disk of no machine is not known publicly";
            assert!(logged(words) >= 1, "{modes:?}: {}", vix::log_text());
        }
    });
}

#[test]
fn a_first_class_disk_of_a_machine_is_opened_over_nfc_when_the_machine_is_named() {
    in_child(|| {
        let made = Stage::vcenter();
        let disk = made.file("a-1.vmdk");
        let first_class = vec![FirstClassOptions { name: "fcd".to_owned(), disk: disk.clone() }];
        let machines =
            vec![MachineOptions { name: "attached".to_owned(), disks: vec![disk], powered_on: false }];
        let stage = Stage::start(Options { first_class, machines, ..Options::default() });
        let (server, _) = to_first_class(&stage, false);
        let with = |at: usize| {
            let machine = Some(format!("moref={}", stage.sim.ready().vms[at].moref));
            Server { machine, ..server.clone() }.over("nbdssl")
        };
        for how in [flags::READ_ONLY, flags::READ_WRITE] {
            let connection = connect(&with(0));
            let disk = connection.must_open(Path::new(""), how);
            assert!(content(&disk) == expected(true), "{how}");
        }
        // The other machine does not have it.
        vix::forget_log();
        assert_eq!(refused(&with(1), Path::new(""), flags::READ_ONLY), code::NOT_SUPPORTED);
        let words = "is not attached to the machine that vmxSpec names";
        assert!(logged(words) >= 1, "{}", vix::log_text());
    });
}

#[test]
fn a_first_class_disk_that_is_not_there_is_not_found() {
    in_child(|| {
        let (_folder, stage) = with_first_class();
        let (server, _) = to_first_class(&stage, true);
        let Disks::FirstClass { id, datastore, snapshot } = server.disks.clone() else {
            unreachable!("it is one")
        };
        let nobody = "6f3e1d52-0000-4000-8000-000000000000".to_owned();
        let wrong = [
            (nobody.clone(), datastore.clone(), None),
            (id.clone(), "datastore-4711".to_owned(), None),
            (id, datastore, Some(nobody)),
        ];
        assert!(snapshot.is_some());
        for (id, datastore, snapshot) in wrong {
            let disks = Disks::FirstClass { id, datastore, snapshot };
            let what = format!("{disks:?}");
            let server = Server { disks, ..server.clone() }.over("https");
            let code = refused(&server, Path::new(""), flags::READ_ONLY);
            assert_eq!(code, code::OBJECT_NOT_FOUND, "{what}: {}", vix::log_text());
        }
    });
}

/// The simulator makes the UUID of a machine out of its name, so that it is the same each time.
fn uuid_of_the_machine() -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, b"machine\0vm");
    let mut bytes: [u8; 16] = digest.as_ref()[..16].try_into().expect("16 bytes");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[test]
fn every_form_of_a_machines_name_leads_to_it() {
    in_child(|| {
        let uuid = uuid_of_the_machine();
        for (stage, center) in [(Stage::vcenter(), "Datacenter"), (Stage::host(), "ha-datacenter")] {
            let server = stage.server();
            let moref = server.machine.clone().expect("a machine");
            let bare = moref.strip_prefix("moref=").expect("its reference").to_owned();
            let (folder, _) = parted(&stage.disk(0));
            let names = vec![
                moref,
                format!("{folder}/vm.vmx?dcPath={center}&dsName=datastore1"),
                format!("[datastore1] {folder}/vm.vmx?dcPath={center}&dsName=datastore1"),
                format!("{folder}/vm.vmx?dsName=datastore%31&dcPath={center}"),
                format!("{folder}/vm.vmx?dcPath={center}&dsName=datastore%2531"),
                format!("{folder}/vm.vmx?{center}?datastore1"),
                format!("{center}/vm/vm"),
                bare,
                uuid.clone(),
                uuid.to_uppercase(),
            ];
            for name in names {
                let connection = connect(&Server { machine: Some(name.clone()), ..server.clone() });
                let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
                assert!(content(&disk) == expected(true), "{name}");
            }
            for name in [
                format!("{folder}/none.vmx?dcPath={center}&dsName=datastore1"),
                format!("{center}/vm/none"),
                "moref=none".to_owned(),
            ] {
                let wrong = Server { machine: Some(name.clone()), ..server.clone() };
                let code = refused(&wrong, &stage.disk(0), flags::READ_ONLY);
                assert_eq!(code, code::MACHINE_NOT_FOUND, "{name}: {}", vix::log_text());
            }
        }
    });
}
