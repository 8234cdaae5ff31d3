//! NBD servers that others wrote, as disks of the C interface.

#![allow(unsafe_code)] // asynchronous requests keep buffers beyond the call

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::export::SECTORS;
use common::export::configured;
use common::export::use_as_disk;
use common::model::Rng;
use common::model::is_zero;
use common::model::stamps;
use common::pki::Pki;
use common::proxy::Fate;
use common::proxy::Lane;
use common::proxy::Proxy;
use common::scratch;
use common::servers;
use common::servers::Door;
use common::tools;
use common::vix;
use common::vix::Completions;
use common::vix::Connection;
use common::vix::Disk;
use common::vix::Kind;
use common::vix::Server;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

#[track_caller]
fn connect(server: &Server) -> Connection<'static> {
    Vix::started().connect_to(server).unwrap_or_else(|e| panic!("ConnectEx = {e}\n{}", vix::log_text()))
}

#[track_caller]
fn open(server: &Server, path: &str, how: u32) -> Disk<'static> {
    connect(server).leaked().must_open(Path::new(path), how)
}

fn logged(part: &str) -> bool {
    vix::log_lines().iter().any(|(_, line)| line.contains(part))
}

/// The part of a URI before the export.
fn base(uri: &str) -> String {
    uri.strip_suffix('/').unwrap_or(uri).to_owned()
}

/// A raw file of that many bytes for qemu-nbd.
fn raw_file(folder: &Path, len: u64) -> std::path::PathBuf {
    let path = folder.join("raw");
    std::fs::File::create(&path).and_then(|file| file.set_len(len)).expect("a raw file");
    path
}

#[test]
fn an_export_of_nbdkit_is_a_disk() {
    requires!("nbdkit");
    in_child(|| {
        for door in [Door::TCP, Door::UNIX] {
            let server = servers::nbdkit(door, &[], &["memory", "32M"]);
            vix::forget_log();
            use_as_disk(open(&Server::named(server.uri("")), "", flags::READ_WRITE), "nbd");
            assert!(logged(&format!(
                "DISKLIB-LINK  : Opened '{}' (0x0): raw, {SECTORS} sectors",
                server.uri("")
            )));
            let again = open(&Server::named(server.uri("")), "", flags::READ_ONLY);
            assert_eq!(again.must_read(7, 1), stamps(7, 1, 1));
            assert_eq!(again.close(), code::OK);
        }
    });
}

#[test]
fn an_export_of_qemu_is_a_disk() {
    requires!("qemu-nbd");
    in_child(|| {
        let folder = scratch::folder();
        let image = raw_file(folder.path(), SECTORS * 512);
        let server = servers::qemu_nbd(Door::TCP, "my disk", &["-f", "raw"], &image);
        let name = Server { port: 0, ..Server::named(base(&server.uri(""))) };
        use_as_disk(open(&name, "my disk", flags::READ_WRITE), "nbd");
        let written = std::fs::read(&image).expect("the image");
        assert!(written[20_000 * 512..25_000 * 512] == stamps(20_000, 5000, 3));
    });
}

#[test]
fn a_local_connection_opens_a_uri() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::UNIX, &[], &["pattern", "1M"]);
        let vix = Vix::started();
        for connection in [vix.connect(false).expect("a connection"), vix.connect_null().expect("another")] {
            let disk = connection.must_open(Path::new(&server.uri("")), flags::READ_ONLY);
            assert_eq!((disk.transport().as_str(), disk.info().capacity), ("nbd", 2048));
            assert_eq!(&disk.must_read(1, 1)[..16], b"\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x02\x08");
            assert_eq!(disk.close(), code::OK);
        }
    });
}

#[test]
fn login_machine_and_snapshot_may_say_anything() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
        let asked = Server {
            machine: Some("moref=vm-12".to_owned()),
            login: Some(("root".to_owned(), "secret".to_owned())),
            snapshot: Some("snapshot-3".to_owned()),
            thumbprint: Some("AA:BB:CC".to_owned()),
            port: 443,
            ..Server::named(server.uri(""))
        };
        let disk = open(&asked, "", flags::READ_WRITE | flags::UNBUFFERED | flags::SINGLE_LINK);
        disk.must_write(0, &stamps(0, 8, 1));
        assert_eq!(disk.close(), code::OK);
        assert!(!logged("secret"));
        assert_eq!(Vix::started().access(&asked), (code::OK, code::OK, code::OK, [0, 0]));
    });
}

#[test]
fn the_port_may_stand_in_the_parameters() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
        let uri = base(&server.uri(""));
        let (name, port) = uri.rsplit_once(':').expect("a port");
        let asked = Server { port: port.parse().expect("a number"), ..Server::named(name) };
        assert_eq!(open(&asked, "", flags::READ_ONLY).close(), code::OK);
    });
}

#[test]
fn the_list_of_transports_decides() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
        let plain = Server::named(server.uri(""));
        for list in ["nbd", "file:san:hotadd:nbd", "nbdssl:nbd", "vvol:NBD", ""] {
            let disk = open(&plain.clone().over(list), "", flags::READ_ONLY);
            assert_eq!(disk.transport(), "nbd", "{list:?}");
            assert_eq!(disk.close(), code::OK);
        }
        assert!(logged("transport \"san\" is passed over") && logged("transport \"vvol\" is passed over"));
        for list in ["file:hotadd", "san:hotadd"] {
            let connection = connect(&plain.clone().over(list));
            assert_eq!(connection.open(Path::new(""), flags::READ_ONLY).err(), Some(code::NOT_SUPPORTED));
        }
        // TLS or nothing: this server has none. A single advanced mode stands for it.
        for list in ["nbdssl", "san"] {
            let connection = connect(&plain.clone().over(list));
            assert_eq!(
                connection.open(Path::new(""), flags::READ_ONLY).err(),
                Some(code::ACCESS_ERROR),
                "{list}"
            );
        }
        assert!(logged("is reached by nbdssl instead of san"), "{}", vix::log_text());
        let demanded = Server::named(plain.name.replacen("nbd:", "nbds:", 1));
        for list in [None, Some("nbd"), Some("nbdssl:nbd"), Some("nbd:nbdssl")] {
            let asked = Server { modes: list.map(str::to_owned), ..demanded.clone() };
            assert!(connect(&asked).open(Path::new(""), flags::READ_ONLY).is_err(), "{list:?} spoke plain");
        }
    });
}

#[test]
fn faults_have_their_codes() {
    requires!("nbdkit", "qemu-nbd");
    in_child(|| {
        let refused = |name: &str, path: &str, how| {
            vix::forget_log();
            let result = connect(&Server::named(name)).open(Path::new(path), how).err();
            assert!(
                logged(&format!("VixDiskLib_OpenEx: Cannot open disk {path}. Error ")),
                "{}",
                vix::log_text()
            );
            result
        };
        let gone =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number");
        assert_eq!(refused(&format!("nbd://{gone}"), "", flags::READ_ONLY), Some(code::CONN_REFUSED));
        assert_eq!(refused("nbd://no-such-host.invalid", "", flags::READ_ONLY), Some(code::SERVER_NOT_FOUND));
        let folder = scratch::folder();
        let image = raw_file(folder.path(), 1 << 20);
        let server = servers::qemu_nbd(Door::UNIX, "e", &["-f", "raw"], &image);
        assert_eq!(refused(&server.uri(""), "other", flags::READ_ONLY), Some(code::FILE_NOT_FOUND));
        let server = servers::nbdkit(Door::UNIX, &["-r"], &["memory", "1M"]);
        assert_eq!(refused(&server.uri(""), "", flags::READ_WRITE), Some(code::FILE_READ_ONLY));
        let vix = Vix::started();
        for wrong in ["nbd+unix:///", "nbd://[::1", "nbd://h:0"] {
            assert_eq!(vix.connect_to(&Server::named(wrong)).err(), Some(code::INVALID_ARG), "{wrong}");
        }
    });
}

#[test]
fn what_is_open_for_reading_is_not_written_to() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::UNIX, &[], &["memory", "1M"]);
        let by_flag = open(&Server::named(server.uri("")), "", flags::READ_ONLY);
        let read_only = Server { read_only: true, ..Server::named(server.uri("")) };
        let by_connection = open(&read_only, "", flags::READ_WRITE);
        for disk in [by_flag, by_connection] {
            assert_eq!(disk.write(0, &[1; 512]), code::FILE_READ_ONLY);
            let completions = Completions::default();
            // SAFETY: refused, so nothing is kept.
            let refused = unsafe { disk.write_async(0, [1u8; 512].as_ptr(), 1, 0, &completions) };
            assert_eq!(refused, code::FILE_READ_ONLY);
            assert_eq!(disk.flush(), code::OK);
            assert_eq!(disk.set_metadata("comment", "x"), code::FILE_READ_ONLY);
            assert_eq!(disk.close(), code::OK);
        }
    });
}

#[test]
fn metadata_is_what_follows_from_the_size() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::UNIX, &[], &["memory", "69G"]);
        let disk = open(&Server::named(server.uri("")), "", flags::READ_WRITE);
        let keys = disk.metadata_keys();
        assert_eq!(keys, ["adapterType", "geometry.cylinders", "geometry.heads", "geometry.sectors"]);
        let values: Vec<_> = keys.iter().map(|key| disk.metadata(key).expect("a value")).collect();
        assert_eq!(values, ["lsilogic", "9007", "255", "63"]);
        assert_eq!(disk.metadata("uuid"), Err(code::KEY_NOT_FOUND));
        assert_eq!(disk.set_metadata("comment", "x"), code::REMOTE_OBJECT);
        assert!(logged("has no descriptor"));
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn work_on_files_is_refused_for_exports() {
    requires!("nbdkit");
    in_child(|| {
        let vix = Vix::started();
        let folder = scratch::folder();
        let server = servers::nbdkit(Door::UNIX, &[], &["memory", "32M"]);
        let uri = server.uri("");
        let remote = connect(&Server::named(&uri)).leaked();
        let local = vix.connect(false).expect("a local connection");
        for (connection, path) in [(remote, Path::new("x")), (&local, Path::new(&uri))] {
            let spec = Spec::new(Kind::Sparse, 2048);
            assert_eq!(connection.create(path, spec), code::REMOTE_OBJECT);
            assert_eq!(connection.unlink(path), code::REMOTE_OBJECT);
            assert_eq!(connection.grow(path, 1 << 20, true).0, code::REMOTE_OBJECT);
            assert_eq!(connection.check_repair(path, false), code::REMOTE_OBJECT);
        }
        assert_eq!(vix.rename(Path::new(&uri), &folder.path().join("x")), code::REMOTE_OBJECT);
        assert_eq!(vix.rename(&folder.path().join("x"), Path::new(&uri)), code::REMOTE_OBJECT);
        let disk = remote.must_open(Path::new(""), flags::READ_WRITE);
        assert_eq!(disk.create_child(&folder.path().join("c.vmdk"), Kind::Sparse).0, code::REMOTE_OBJECT);
        assert_eq!(disk.shrink().0, code::REMOTE_OBJECT);
        assert_eq!(disk.defragment().0, code::REMOTE_OBJECT);
        let path = folder.path().join("d.vmdk");
        local.must_create(&path, Spec::new(Kind::Sparse, SECTORS));
        let other = local.must_open(&path, flags::READ_WRITE);
        assert_eq!(other.is_attach_possible(&disk), code::REMOTE_OBJECT);
        assert_eq!(disk.is_attach_possible(&other), code::REMOTE_OBJECT);
        assert_eq!(disk.attach(&other), code::REMOTE_OBJECT);
        assert_eq!(disk.close(), code::OK, "the parent of a failed Attach may be closed");
        assert_eq!(other.close(), code::OK);
        assert_eq!(scratch::names(folder.path()), ["d.vmdk"]);
    });
}

/// Writes something with holes in between and says what the whole is.
fn scatter(disk: &Disk<'_>) -> Vec<u8> {
    let mut all = vec![0; (SECTORS * 512) as usize];
    for (start, count) in [(0, 3), (1000, 500), (9000, 4000), (SECTORS - 130, 130)] {
        let data = stamps(start, count, 5);
        disk.must_write(start, &data);
        all[start as usize * 512..][..data.len()].copy_from_slice(&data);
    }
    all
}

#[test]
fn an_export_is_cloned_to_a_local_disk_of_any_kind() {
    requires!("nbdkit");
    in_child(|| {
        let vix = Vix::started();
        let local = vix.connect(false).expect("a local connection");
        let server = servers::nbdkit(Door::UNIX, &[], &["memory", "32M"]);
        let remote = connect(&Server::named(server.uri(""))).leaked();
        let disk = remote.must_open(Path::new(""), flags::READ_WRITE);
        let all = scatter(&disk);
        let space = disk.space_for_clone(Kind::Sparse as u32).expect("the space");
        assert_eq!(disk.space_for_clone(Kind::Flat as u32).map(|flat| flat >= SECTORS * 512), Ok(true));
        assert_eq!(disk.close(), code::OK);
        let folder = scratch::folder();
        for kind in [Kind::Sparse, Kind::Flat, Kind::Stream, Kind::SplitSparse, Kind::VmfsThin] {
            let to = folder.path().join(format!("{kind:?}.vmdk"));
            let spec = Some(Spec::new(kind, 0));
            let (result, seen) = local.clone_disk(&to, remote, Path::new(""), spec, false);
            assert_eq!((result, seen.last()), (code::OK, Some(&100)), "{kind:?}\n{}", vix::log_text());
            let copy = local.must_open(&to, flags::READ_ONLY);
            assert!(copy.must_read(0, SECTORS) == all, "{kind:?}");
            assert_eq!(copy.close(), code::OK);
        }
        let sparse = std::fs::metadata(folder.path().join("Sparse.vmdk")).expect("the copy").len();
        assert!(sparse <= space && space < 4 << 20, "holes stay holes: {sparse} of {space}");
    });
}

#[test]
fn a_local_disk_is_cloned_onto_an_export() {
    requires!("qemu-nbd", "nbdkit");
    in_child(|| {
        let vix = Vix::started();
        let local = vix.connect(false).expect("a local connection");
        let folder = scratch::folder();
        let from = folder.path().join("from.vmdk");
        local.must_create(&from, Spec::new(Kind::Sparse, SECTORS));
        let disk = local.must_open(&from, flags::READ_WRITE);
        let all = scatter(&disk);
        assert_eq!(disk.close(), code::OK);
        let image = folder.path().join("raw");
        std::fs::write(&image, Rng::new(1).bytes(33 << 20)).expect("an image that is not empty");
        let qemu = servers::qemu_nbd(Door::UNIX, "e", &["-f", "raw", "--discard=unmap"], &image);
        let remote = connect(&Server::named(qemu.uri(""))).leaked();
        let to = Path::new("e");
        assert_eq!(remote.clone_disk(to, &local, &from, None, false).0, code::ALREADY_EXISTS);
        let (result, seen) = remote.clone_disk(to, &local, &from, None, true);
        assert_eq!((result, seen.last()), (code::OK, Some(&100)), "{}", vix::log_text());
        let written = std::fs::read(&image).expect("the image");
        assert!(written[..all.len()] == all && is_zero(&written[all.len()..]), "nothing old stays");
        let small = servers::nbdkit(Door::UNIX, &[], &["memory", "31M"]);
        let result = local.clone_disk(Path::new(&small.uri("")), &local, &from, None, true).0;
        assert_eq!(result, code::CAPACITY_MISMATCH);
        // A server that cannot zero, but trims and tells what is left: nothing but data is sent.
        let log = folder.path().join("log");
        let filters = ["--filter=nozero", "--filter=log"];
        let logfile = format!("logfile={}", log.display());
        let trims = servers::nbdkit(Door::TCP, &filters, &["memory", "33M", &logfile]);
        let onto = open(&Server::named(trims.uri("")), "", flags::READ_WRITE);
        onto.must_write(0, &vec![0xee; 33 << 20]);
        assert_eq!(onto.close(), code::OK);
        let before = std::fs::read_to_string(&log).expect("the server's log").len();
        let result = local.clone_disk(Path::new(&trims.uri("")), &local, &from, None, true).0;
        assert_eq!(result, code::OK, "{}", vix::log_text());
        let said = std::fs::read_to_string(&log).expect("the server's log").split_off(before);
        assert!(said.contains(" Trim "), "{said}");
        let sent: u64 = said.lines().filter(|line| line.contains(" Write ")).map(counted).sum();
        let held = all.chunks(65_536).filter(|unit| !is_zero(unit)).count() as u64 * 65_536;
        assert!(sent <= held, "{sent} bytes sent of a disk that has {held}");
        let copy = open(&Server::named(trims.uri("")), "", flags::READ_ONLY);
        let bytes = copy.must_read(0, 33 << 11);
        assert!(bytes[..all.len()] == all && is_zero(&bytes[all.len()..]), "nothing old stays");
        assert_eq!(copy.close(), code::OK);
        // From one server to another, without zeroes, trim and block status.
        let poor = servers::nbdkit(Door::TCP, &["--filter=nozero", "--filter=noextents"], &["memory", "32M"]);
        let onto = open(&Server::named(poor.uri("")), "", flags::READ_WRITE);
        onto.must_write(5000, &stamps(5000, 1000, 9));
        assert_eq!(onto.allocated_all(128), [(0, SECTORS)], "what a server does not tell is allocated");
        assert_eq!(onto.close(), code::OK);
        let poor = connect(&Server::named(poor.uri(""))).leaked();
        let cropped =
            servers::qemu_nbd(Door::UNIX, "e", &["-f", "raw", "-r"], &from_raw(folder.path(), &all));
        let source = connect(&Server::named(cropped.uri(""))).leaked();
        assert_eq!(poor.clone_disk(Path::new(""), source, to, None, true).0, code::OK, "{}", vix::log_text());
        let copy = poor.must_open(Path::new(""), flags::READ_ONLY);
        assert!(copy.must_read(0, SECTORS) == all);
        assert_eq!(copy.close(), code::OK);
    });
}

/// The `count=0x…` in a line of nbdkit's log.
fn counted(line: &str) -> u64 {
    let number = line.split_once("count=0x").expect("a count").1;
    let digits = number.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap_or_default();
    u64::from_str_radix(digits, 16).expect("a hexadecimal number")
}

fn from_raw(folder: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join("source");
    std::fs::write(&path, bytes).expect("an image");
    path
}

#[test]
fn an_export_need_not_end_with_a_sector() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::UNIX, &[], &["memory", "1000"]);
        let disk = open(&Server::named(server.uri("")), "", flags::READ_WRITE);
        assert_eq!(disk.info().capacity, 2);
        disk.must_write(0, &[7; 512]);
        assert_eq!(disk.write(1, &[7; 512]), code::NOT_SUPPORTED);
        assert_eq!(disk.write(0, &[8; 1024]), code::NOT_SUPPORTED);
        let mut expected = vec![7; 512];
        expected.resize(1024, 0);
        assert_eq!(disk.must_read(0, 2), expected);
        assert_eq!(disk.read_many(&[(0, 2), (1, 1)], 2, 0).map(|read| read[..1024] == expected), Ok(true));
        assert_eq!(disk.allocated(0, 128, 128), Ok(vec![(0, 2)]));
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn an_empty_export_is_an_empty_disk() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::UNIX, &[], &["memory", "0"]);
        let disk = open(&Server::named(server.uri("")), "", flags::READ_WRITE);
        assert_eq!(disk.info().capacity, 0);
        assert_eq!(disk.read_refused(0, 1), code::OUT_OF_RANGE);
        assert_eq!(disk.allocated(0, 128, 128), Err(code::OUT_OF_RANGE));
        assert_eq!(disk.flush(), code::OK);
        assert_eq!(disk.close(), code::OK);
    });
}

/// A peer that says nothing is given up after two seconds; the rest is what a loaded machine may add.
const BOUND: Duration = Duration::from_millis(3500);

#[test]
fn closing_does_not_wait_for_a_silent_server() {
    requires!("nbdkit");
    in_child(|| {
        let vix = Vix::started();
        let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
        let connection = connect(&Server::named(server.uri("")));
        let disks: Vec<_> = (0..3).map(|_| connection.must_open(Path::new(""), flags::READ_WRITE)).collect();
        let idle = connection.must_open(Path::new(""), flags::READ_ONLY);
        disks.iter().for_each(|disk| disk.must_write(0, &stamps(0, 8, 1)));
        let mut buf = vec![0; 512];
        let completions = Completions::default();
        server.silence();
        let start = Instant::now();
        assert_eq!(idle.close(), code::OK, "there is nothing to wait for");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        // SAFETY: the collector is asked before the buffer goes.
        let asked = unsafe { disks[0].read_async(0, buf.as_mut_ptr(), 1, 0, &completions) };
        assert_eq!(asked, code::ASYNC);
        let mut disks = disks.into_iter();
        let start = Instant::now();
        let closed = disks.next().expect("a disk").close();
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        assert_ne!(closed, code::OK, "what was written was not confirmed as stable");
        assert!(logged("the peer was silent"), "{}", vix::log_text());
        completions.wait_for(1);
        assert!(completions.take().iter().all(|(_, result)| *result != code::OK));
        // Two more that are left open: they are closed side by side.
        let start = Instant::now();
        assert_ne!(connection.disconnect(), code::OK);
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        disks.for_each(Disk::leak);
        vix.exit();
    });
}

#[test]
fn exit_does_not_wait_for_a_silent_server() {
    requires!("nbdkit");
    in_child(|| {
        let vix = Vix::started();
        let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
        for _ in 0..3 {
            let connection = connect(&Server::named(server.uri(""))).leaked();
            let disk = connection.must_open(Path::new(""), flags::READ_WRITE);
            disk.must_write(0, &stamps(0, 8, 1));
            disk.leak();
        }
        server.silence();
        let start = Instant::now();
        vix.exit();
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    });
}

/// The connection is lost under a synchronous read, and what takes the next ones says nothing. `end` is given the disk.
fn ended_while_connecting(end: fn(&'static Vix, &'static Connection<'static>, &'static Disk<'static>)) {
    let vix = Vix::started();
    let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
    let proxy = Proxy::new(server.address(), |n| match n {
        0 => Fate::default(),
        _ => Fate { up: Lane::stall_after(0), down: Lane::stall_after(0), ..Fate::default() },
    });
    let connection = connect(&Server::named(proxy.uri(false, ""))).leaked();
    let disk: &'static Disk<'static> =
        Box::leak(Box::new(connection.must_open(Path::new(""), flags::READ_ONLY)));
    assert_eq!(disk.must_read(0, 1), [0; 512]);
    let reads = std::thread::spawn(|| {
        let mut code = code::OK;
        while code == code::OK {
            code = disk.read(3, &mut [0; 512]);
        }
        code
    });
    proxy.cut_all();
    let began = Instant::now();
    while proxy.seen() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing connects again");
        std::thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    end(vix, connection, disk);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert_ne!(reads.join().expect("the reading thread"), code::OK);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
}

#[test]
fn closing_does_not_wait_for_a_connection_that_is_being_made() {
    requires!("nbdkit");
    in_child(|| ended_while_connecting(|_, _, disk| _ = disk.close_again()));
}

#[test]
fn disconnecting_does_not_wait_for_a_connection_that_is_being_made() {
    requires!("nbdkit");
    in_child(|| ended_while_connecting(|_, connection, _| _ = connection.disconnect_again()));
}

#[test]
fn exit_does_not_wait_for_a_connection_that_is_being_made() {
    requires!("nbdkit");
    in_child(|| ended_while_connecting(|vix, _, _| vix.exit()));
}

#[test]
fn closing_waits_for_a_server_that_is_only_slow() {
    requires!("nbdkit");
    in_child(|| {
        // Flushes take longer than silence is borne, other requests do not.
        let script = "case \"$1\" in get_size) echo 1M;; pread) dd if=/dev/zero count=$3 iflag=count_bytes status=none;; \
                      pwrite) cat >/dev/null;; can_write|can_flush) exit 0;; flush) sleep 3;; \
                      thread_model) echo parallel;; *) exit 2;; esac";
        let folder = scratch::folder();
        let path = folder.path().join("slow.sh");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        tools::check(Command::new("chmod").arg("+x").arg(&path));
        let server = servers::nbdkit(Door::UNIX, &[], &["sh", &path.display().to_string()]);
        let disk = open(&Server::named(server.uri("")), "", flags::READ_WRITE);
        disk.must_write(0, &[1; 512]);
        let start = Instant::now();
        assert_eq!(disk.close(), code::OK, "{}", vix::log_text());
        assert!(start.elapsed() >= Duration::from_secs(3), "the flush was waited for");
    });
}

/// What a callback works with: the disk, and where it leaves what came of it.
struct Chain<'a> {
    disk: &'a Disk<'a>,
    left: std::sync::atomic::AtomicU64,
    seen: std::sync::Mutex<Vec<(u64, Vec<u8>)>>,
    done: std::sync::mpsc::SyncSender<()>,
}

/// Reads a few sectors in a row synchronously, then submits the next request, until none is left.
fn go_on(chain: &'static Chain<'static>, result: u64) {
    let n = chain.left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    let mut sector = vec![0; 512];
    let read = (0..=n).map(|n| chain.disk.read(n, &mut sector)).max().unwrap_or_default();
    chain.seen.lock().expect("the list").push((result.max(read), sector));
    if n == 0 {
        chain.done.send(()).expect("somebody waits");
        return;
    }
    let buf = Vec::leak(vec![0; 512]);
    assert_eq!(chain.disk.read_async_then(n, buf, Box::new(move |result| go_on(chain, result))), code::ASYNC);
}

#[test]
fn a_callback_may_read_and_submit() {
    requires!("nbdkit");
    in_child(|| {
        let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
        let disk: &'static Disk<'static> =
            Box::leak(Box::new(open(&Server::named(server.uri("")), "", flags::READ_WRITE)));
        disk.must_write(0, &stamps(0, 64, 1));
        let (done, waiting) = std::sync::mpsc::sync_channel(1);
        let chain: &'static Chain<'static> =
            Box::leak(Box::new(Chain { disk, left: 50.into(), seen: std::sync::Mutex::default(), done }));
        let buf = Vec::leak(vec![0; 512]);
        let started = disk.read_async_then(0, buf, Box::new(move |result| go_on(chain, result)));
        assert_eq!(started, code::ASYNC);
        waiting.recv_timeout(Duration::from_secs(60)).expect("the chain ends");
        assert_eq!(disk.wait(), code::OK);
        let seen = chain.seen.lock().expect("the list");
        assert_eq!(seen.len(), 51);
        for (n, (result, sector)) in seen.iter().rev().enumerate() {
            assert_eq!(*result, code::OK);
            assert!(*sector == stamps(n as u64, 1, 1), "sector {n}");
        }
        assert_eq!(disk.close_again(), code::OK);
    });
}

#[test]
fn nbd_server_is_a_disk_too() {
    requires!("nbd-server");
    in_child(|| {
        let folder = scratch::folder();
        let image = raw_file(folder.path(), SECTORS * 512);
        let server = servers::nbd_server(Door::TCP, &[("e", &image)], "flush = true\ntrim = true");
        use_as_disk(open(&Server::named(server.uri("")), "e", flags::READ_WRITE), "nbd");
    });
}

#[test]
fn programs_on_nbdkits_plugin_reach_an_export() {
    requires!("nbdkit", "nbdcopy", "nbdinfo");
    let folder = scratch::folder();
    let raw = folder.path().join("source");
    let content = Rng::new(7).bytes(3 << 20);
    std::fs::write(&raw, &content).expect("an image");
    let below = servers::nbdkit(Door::UNIX, &[], &["file", &raw.display().to_string()]);
    for version in common::nbd::PLUGINS {
        let plugin = common::nbd::plugin(version);
        if !plugin.exists() {
            scratch::skip(&format!("{version}'s vddk plugin is not there"));
            continue;
        }
        let install = common::nbd::Installation::new();
        let copy = folder.path().join(version);
        let parameters = [
            format!("server={}", below.uri("")),
            "file=".to_owned(),
            "user=any".to_owned(),
            "password=any".to_owned(),
            "vm=moref=any".to_owned(),
        ];
        let above = common::nbd::Server::start(&install, &plugin, &["-v"], &parameters);
        tools::check(Command::new("nbdcopy").arg(above.uri()).arg(&copy));
        assert!(std::fs::read(&copy).expect("the copy") == content, "{version}");
        let map = tools::check(Command::new("nbdinfo").args(["--map", &above.uri()])).out();
        assert!(map.contains("data"), "{version}: {map}");
        above.finish();
    }
}

/// `AA:BB:…` as programs have it.
fn with_colons(digits: &str) -> String {
    let pairs: Vec<String> =
        digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into()).collect();
    pairs.join(":")
}

#[test]
fn an_export_over_tls_is_a_disk() {
    requires!("nbdkit", "qemu-nbd", "certtool");
    in_child(|| {
        let pki = Pki::new();
        configured(&format!("vixDiskLib.tls.caFile={}\n", pki.ca().display()));
        let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "32M"]);
        use_as_disk(open(&Server::named(server.uri("")), "", flags::READ_WRITE), "nbdssl");
        let folder = scratch::folder();
        let image = raw_file(folder.path(), SECTORS * 512);
        let server = servers::qemu_nbd(Door::tls(&pki), "e", &["-f", "raw"], &image);
        use_as_disk(open(&Server::named(server.uri("")), "e", flags::READ_WRITE), "nbdssl");
    });
}

#[test]
fn a_server_named_without_tls_may_be_reached_with_it() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        configured(&format!("vixDiskLib.tls.caFile={}\n", pki.ca().display()));
        let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "1M"]);
        let name = server.uri("").replacen("nbds:", "nbd:", 1);
        for list in
            [None, Some("nbdssl"), Some("nbdssl:nbd"), Some("file:san:hotadd:nbd:nbdssl"), Some("hotadd")]
        {
            let asked = Server { modes: list.map(str::to_owned), ..Server::named(&name) };
            let disk = open(&asked, "", flags::READ_ONLY);
            assert_eq!(disk.transport(), "nbdssl", "{list:?}");
            assert_eq!(disk.close(), code::OK);
        }
        let plain = connect(&Server::named(&name).over("nbd"));
        assert!(plain.open(Path::new(""), flags::READ_ONLY).is_err(), "the server demands TLS");
        // The scheme demands it, and the list has no transport for it.
        let none = connect(&Server::named(server.uri("")).over("nbd"));
        assert_eq!(none.open(Path::new(""), flags::READ_ONLY).err(), Some(code::NOT_SUPPORTED));
    });
}

#[test]
fn a_certificate_that_is_not_expected_is_refused() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "1M"]);
        // Nobody vouches for it: neither the system nor another authority does.
        for trust in
            [String::new(), format!("vixDiskLib.tls.caFile={}/ca-cert.pem\n", pki.stranger().display())]
        {
            configured(&trust);
            let open = connect(&Server::named(server.uri(""))).open(Path::new(""), flags::READ_ONLY);
            assert_eq!(open.err(), Some(code::FAIL), "{trust}\n{}", vix::log_text());
        }
        // Not even by a list that admits plain text.
        let either = Server::named(server.uri("").replacen("nbds:", "nbd:", 1)).over("nbdssl:nbd");
        assert_eq!(connect(&either).open(Path::new(""), flags::READ_ONLY).err(), Some(code::FAIL));
        configured("vixDiskLib.linuxSSL.verifyCertificates=0\n");
        assert_eq!(open(&Server::named(server.uri("")), "", flags::READ_ONLY).close(), code::OK);
        // Given in the URI itself, for a local connection.
        configured("");
        let uri = format!("{}?tls-certificates={}", server.uri(""), pki.client().display());
        let local = Vix::started().connect(false).expect("a local connection");
        assert_eq!(local.must_open(Path::new(&uri), flags::READ_ONLY).close(), code::OK);
    });
}

#[test]
fn a_thumbprint_pins_the_certificate() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        configured("");
        let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "1M"]);
        let actual = with_colons(&pki.thumbprint("sha1")).to_uppercase();
        for right in [actual.clone(), actual.to_lowercase(), with_colons(&pki.thumbprint("sha256"))] {
            let pinned = Server { thumbprint: Some(right), ..Server::named(server.uri("")) };
            assert_eq!(open(&pinned, "", flags::READ_ONLY).close(), code::OK);
        }
        let wrong = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33";
        let pinned = Server { thumbprint: Some(wrong.to_owned()), ..Server::named(server.uri("")) };
        configured("vixDiskLib.transport.LogLevel=6\n");
        vix::forget_log();
        assert_eq!(connect(&pinned).open(Path::new(""), flags::READ_ONLY).err(), Some(code::FAIL));
        let line = format!(
            "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={actual} expected={wrong}"
        );
        assert!(
            vix::log_lines().iter().any(|(_, said)| said.trim_end() == line),
            "{line}\n{}",
            vix::log_text()
        );
        // A thumbprint is checked even where nothing else is.
        configured("vixDiskLib.linuxSSL.verifyCertificates=0\n");
        assert_eq!(connect(&pinned).open(Path::new(""), flags::READ_ONLY).err(), Some(code::FAIL));
    });
}

#[test]
fn a_server_may_want_our_certificate() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        let server = servers::nbdkit(Door::mutual(&pki), &[], &["memory", "1M"]);
        let ca = format!("vixDiskLib.tls.caFile={}\n", pki.ca().display());
        configured(&ca);
        assert!(connect(&Server::named(server.uri(""))).open(Path::new(""), flags::READ_ONLY).is_err());
        let client = pki.client();
        configured(&format!(
            "{ca}vixDiskLib.tls.certificateFile={0}/client-cert.pem\nvixDiskLib.tls.keyFile={0}/client-key.pem\n",
            client.display()
        ));
        assert_eq!(open(&Server::named(server.uri("")), "", flags::READ_ONLY).close(), code::OK);
    });
}
