//! Disks of vCenter and ESXi through the C interface, on the simulator.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::model::is_zero;
use common::model::stamps;
use common::scratch;
use common::stage::PASSWORD;
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::assert_no_secret;
use common::stage::configured;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::stage::refused;
use common::vix;
use common::vix::Kind;
use common::vix::Server;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;

#[test]
fn a_disk_is_read_over_every_transport_that_a_list_may_name() {
    in_child(|| {
        for stage in [Stage::vcenter(), Stage::host()] {
            let lists = [
                (None, "nbdssl"),
                (Some("nbdssl"), "nbdssl"),
                (Some("nbd"), "nbd"),
                (Some("file:san:hotadd:nbdssl:nbd"), "nbdssl"),
                (Some("nbd:nbdssl"), "nbd"),
                (Some("san"), "nbdssl"),
                (Some("hotadd"), "nbdssl"),
            ];
            for (list, mode) in lists {
                let server = Server { modes: list.map(str::to_owned), ..stage.server() };
                vix::forget_log();
                let connection = connect(&server);
                let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
                assert_eq!(disk.transport(), mode, "{list:?}");
                assert!(content(&disk) == expected(true), "{list:?}");
                let path = stage.disk(0).display().to_string();
                assert_eq!(logged("DISKLIB-LINK  : Opened '"), 1, "{}", vix::log_text());
                assert_eq!(
                    logged(&format!("://{path}@127.0.0.1:{}' (0x4): custom", stage.sim.ready().nfc_port)),
                    1,
                    "{}",
                    vix::log_text()
                );
                assert_eq!(logged("NBD_ClientOpen: attempting to create connection to "), 1);
                assert_eq!(disk.close(), code::OK);
            }
            assert_eq!(
                refused(&stage.server().over("file"), &stage.disk(0), flags::READ_ONLY),
                code::NOT_SUPPORTED
            );
        }
    });
}

#[test]
fn what_is_written_is_in_the_disk() {
    in_child(|| {
        for stage in [Stage::vcenter(), Stage::host()] {
            written(stage);
        }
    });
}

/// Writes over every transport with every packing, and looks at the file.
fn written(stage: Stage) {
    for (mode, version) in [("nbdssl", 3), ("nbd", 4)] {
        for (packing, at) in [(0, 0), (flags::ZLIB, 2000), (flags::FASTLZ, 4000), (flags::SKIPZ, 6000)] {
            let connection = connect(&stage.server().over(mode));
            let disk = connection.must_open(&stage.disk(1), flags::READ_WRITE | packing);
            disk.must_write(at, &stamps(at, 1500, version));
            assert_eq!(disk.flush(), code::OK);
            assert!(disk.must_read(at, 1500) == stamps(at, 1500, version), "{mode} {packing}");
            let pieces: Vec<(u64, u64)> = (0..50).map(|n| (at + n * 30, 30)).collect();
            let read = disk.read_many(&pieces, 16, 1).expect("asynchronous reads");
            assert!(read == stamps(at, 1500, version));
            assert!(is_zero(&disk.must_read(at + 1500, 500)));
            assert_eq!(disk.close(), code::OK);
        }
    }
    let file = stage.file("b.vmdk");
    let Stage { sim, folder } = stage;
    drop(sim);
    let here = Vix::started().connect(true).expect("a local connection");
    let disk = here.must_open(&file, flags::READ_ONLY);
    assert!(disk.must_read(4000, 1500) == stamps(4000, 1500, 4));
    drop((disk, folder));
}

#[test]
fn a_snapshot_shows_its_own_content_and_a_running_machine_only_that() {
    in_child(|| {
        let stage = Stage::vcenter();
        let (snapshot, path) = stage.snapshot();
        stage.sim.power("vm", true).expect("power");
        for reference in [snapshot.clone(), format!("moref={snapshot}")] {
            let server = Server { snapshot: Some(reference), read_only: true, ..stage.server() };
            let connection = connect(&server);
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert!(content(&disk) == expected(false));
            assert_eq!((disk.info().links, disk.info().parent), (1, None));
        }
        vix::forget_log();
        let leaf = refused(&stage.server(), &stage.disk(0), flags::READ_ONLY);
        assert_eq!(leaf, code::FAIL, "{}", vix::log_text());
        assert!(logged("cannot be opened in multiwriter mode") >= 1, "{}", vix::log_text());
        for line in [
            "VixDiskLib: VixDiskLib_OpenEx: Cannot open disk",
            "VixDiskLib: VixDiskLib_Open: Cannot open disk",
        ] {
            assert_eq!(logged(line), 1, "{}", vix::log_text());
        }
        let missing = Server { snapshot: Some("snapshot-4711".to_owned()), ..stage.server() };
        assert_eq!(refused(&missing, &path, flags::READ_ONLY), code::OBJECT_NOT_FOUND);
    });
}

#[test]
fn a_wrong_thumbprint_is_refused_with_the_line_that_users_look_for() {
    in_child(|| {
        let stage = Stage::vcenter();
        let ready = stage.sim.ready();
        let wrong = "AA".repeat(20);
        let server = Server { thumbprint: Some(wrong.clone()), ..stage.server() };
        vix::forget_log();
        assert_eq!(refused(&server, &stage.disk(0), flags::READ_ONLY), code::FAIL);
        let line = format!(
            "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={} expected={wrong}",
            ready.thumbprint_sha1
        );
        assert_eq!(logged(&line), 1, "{}", vix::log_text());
        let long = Server { thumbprint: Some(ready.thumbprint_sha256.to_lowercase()), ..stage.server() };
        drop(connect(&long).must_open(&stage.disk(0), flags::READ_ONLY));
        let nobody = Server { thumbprint: None, ..stage.server() };
        assert_eq!(refused(&nobody, &stage.disk(0), flags::READ_ONLY), code::FAIL, "nobody vouches for it");
    });
}

#[test]
fn every_mistake_has_its_code() {
    in_child(|| {
        let stage = Stage::vcenter();
        let (disk, read) = (stage.disk(0), flags::READ_ONLY);
        let good = stage.server();
        let with = |change: &dyn Fn(&mut Server)| {
            let mut server = good.clone();
            change(&mut server);
            server
        };
        let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        let wrong = with(&|server| server.login = login("root", "wrong"));
        assert_eq!(refused(&wrong, &disk, read), code::PERMISSIONS);
        let stranger = with(&|server| server.login = login("", ""));
        assert_eq!(refused(&stranger, &disk, read), code::PERMISSIONS);
        let expired = with(&|server| server.cookie = Some("52-not-a-session".to_owned()));
        assert_eq!(refused(&expired, &disk, read), code::SESSION);
        let machine = |spec: Option<&str>| with(&|server| server.machine = spec.map(str::to_owned));
        assert_eq!(refused(&machine(Some("moref=vm-4711")), &disk, read), code::MACHINE_NOT_FOUND);
        assert_eq!(refused(&machine(None), &disk, read), code::INVALID_ARG);
        assert_eq!(refused(&machine(Some("vc.example.org")), &disk, read), code::INVALID_ARG);
        for how in [read, flags::READ_WRITE] {
            let missing = Path::new("[datastore1] none/none.vmdk");
            assert_eq!(refused(&good, missing, how), code::FILE_NOT_FOUND, "{how} {}", vix::log_text());
        }
        assert_eq!(refused(&good, Path::new("no/path.vmdk"), read), code::NAME_INVALID);
        assert_eq!(refused(&good, &disk, read | flags::SINGLE_LINK), code::NOT_SUPPORTED);
        assert_eq!(refused(&good, &disk, read | flags::ZLIB | flags::SKIPZ), code::INVALID_ARG);
        let elsewhere = with(&|server| server.nfc_port = 1); // where nobody listens
        assert_eq!(refused(&elsewhere, &disk, read), code::CONN_REFUSED);
        let port = stage.sim.address().port();
        drop(stage);
        let gone = with(&|server| server.name = format!("https://127.0.0.1:{port}/sdk"));
        assert_eq!(refused(&gone, &disk, read), code::CONN_REFUSED);
        assert!(!vix::log_text().contains(PASSWORD));
    });
}

#[test]
fn a_cookie_of_another_session_lets_in_and_stays_good() {
    use vixDiskLib::logging::Log;
    use vixDiskLib::net::tls::TlsSettings;
    use vixDiskLib::net::vim::Login;
    use vixDiskLib::net::vim::Server as Where;
    use vixDiskLib::net::vim::Session;
    use vixDiskLib::net::vim::Times;
    in_child(|| {
        let stage = Stage::vcenter();
        let place = Where {
            host: "127.0.0.1".to_owned(),
            port: stage.sim.address().port(),
            tls: TlsSettings {
                thumbprint: Some(stage.sim.ready().thumbprint_sha1),
                ..TlsSettings::default()
            },
        };
        let login = Login::User { name: "root".to_owned(), password: PASSWORD.to_owned().into() };
        let session = Session::open(place, login, Times::default(), Log::none()).expect("a session");
        let cookie = session.cookie().expose_text().expect("text").trim_matches('"').to_owned();
        for text in
            [format!("vmware_soap_session=\"{cookie}\"; Path=/"), format!("\"{cookie}\""), cookie.clone()]
        {
            let server = Server { login: None, cookie: Some(text), ..stage.server() };
            let connection = connect(&server);
            let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
            assert!(content(&disk) == expected(true));
            drop(disk);
            assert_eq!(connection.disconnect(), code::OK);
        }
        session.keep_alive().expect("the session is its owner's");
        assert!(!vix::log_text().contains(&cookie));
    });
}

#[test]
fn a_disk_says_what_it_is() {
    in_child(|| {
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        let here = Vix::started().connect(true).expect("a local connection");
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        let (info, local) = (disk.info(), here.must_open(&stage.file("a-1.vmdk"), flags::READ_ONLY).info());
        assert_eq!((info.capacity, info.links, info.adapter), (SECTORS, 2, local.adapter));
        assert_eq!(info.parent.as_deref().map(Path::new), Some(&*stage.snapshot().1));
        assert_eq!(info.physical, local.physical);
        let keys = disk.metadata_keys();
        assert!(keys.iter().any(|key| key == "adapterType"), "{keys:?}");
        for key in &keys {
            disk.metadata(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
        assert_eq!(disk.metadata("no such key"), Err(code::KEY_NOT_FOUND));
        assert_eq!(disk.set_metadata("comment", "x"), code::FILE_READ_ONLY);
        drop(disk);
        let writable = connection.must_open(&stage.disk(1), flags::READ_WRITE);
        assert_eq!(writable.set_metadata("comment", "x"), code::NOT_SUPPORTED);
        assert_eq!(writable.read_refused(SECTORS - 1, 2), code::OUT_OF_RANGE);
        assert_eq!(writable.shrink().0, code::REMOTE_OBJECT);
    });
}

#[test]
fn blocks_without_data_are_told_and_a_host_that_does_not_tell_is_asked_once() {
    in_child(|| {
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        let blocks = disk.allocated_all(128);
        let told: u64 = blocks.iter().map(|(_, count)| count).sum();
        assert!(told < SECTORS / 2, "{blocks:?}");
        let all = expected(true);
        for sector in 0..SECTORS {
            let at = (sector * 512) as usize;
            let covered = blocks.iter().any(|(start, count)| (*start..start + count).contains(&sector));
            assert!(covered || is_zero(&all[at..at + 512]), "sector {sector} is missing in {blocks:?}");
        }
        drop(disk);
        stage.fault("nfc.query=error(6,\"not on this datastore\")");
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        vix::forget_log();
        assert_eq!(disk.allocated_all(128), [(0, SECTORS)]);
        assert_eq!(disk.allocated_all(1024), [(0, SECTORS)]);
        assert_eq!(logged("does not tell what is allocated"), 1, "{}", vix::log_text());
    });
}

#[test]
fn copies_are_made_from_and_to_hosts() {
    in_child(|| {
        for stage in [Stage::vcenter(), Stage::host()] {
            copied(&stage);
        }
    });
}

/// Copies from the machine, over its other disk, and from its snapshot over that.
fn copied(stage: &Stage) {
    let (vix, folder) = (Vix::started(), scratch::folder());
    let here = vix.connect(false).expect("a local connection");
    let there = connect(&stage.server());
    let copy = folder.path().join("copy.vmdk");
    let space = there.must_open(&stage.disk(0), flags::READ_ONLY).space_for_clone(Kind::Sparse as u32);
    assert!(space.expect("an answer") > 3432 * 512);
    let (code, seen) = here.clone_disk(&copy, &there, &stage.disk(0), None, false);
    assert_eq!((code, seen.last()), (code::OK, Some(&100)), "{}", vix::log_text());
    assert!(content(&here.must_open(&copy, flags::READ_ONLY)) == expected(true));
    // Back to the other disk, which is there; then from host to host.
    let (code, _) = there.clone_disk(&stage.disk(1), &here, &copy, None, false);
    assert_eq!(code, code::ALREADY_EXISTS);
    let (code, _) = there.clone_disk(&stage.disk(1), &here, &copy, None, true);
    assert_eq!(code, code::OK, "{}", vix::log_text());
    assert!(content(&there.must_open(&stage.disk(1), flags::READ_ONLY)) == expected(true));
    let (snapshot, old) = stage.snapshot();
    let source = connect(&Server { snapshot: Some(snapshot), ..stage.server() });
    let (code, _) = there.clone_disk(&stage.disk(1), &source, &old, None, true);
    assert_eq!(code, code::OK, "{}", vix::log_text());
    assert!(content(&there.must_open(&stage.disk(1), flags::READ_ONLY)) == expected(false));
    let none = Path::new("[datastore1] none/none.vmdk");
    assert_eq!(there.clone_disk(none, &here, &copy, None, true).0, code::FILE_NOT_FOUND);
}

#[test]
fn a_machine_is_held_for_a_backup_and_released_after_the_disconnection() {
    in_child(|| {
        let (stage, vix) = (Stage::vcenter(), Vix::started());
        let server = stage.server();
        assert_eq!(vix.prepare(&server, c"backup"), code::OK, "{}", vix::log_text());
        assert_eq!(vix.prepare(&server, c"backup"), code::OK, "our own hold is no obstacle");
        assert_eq!(vix.prepare(&server, c"another"), code::OPERATION_DISABLED);
        let connection = connect(&server);
        drop(connection.must_open(&stage.disk(0), flags::READ_ONLY));
        assert_eq!(connection.disconnect(), code::OK);
        assert_eq!(vix.end_access(&server, c"backup"), code::OK, "{}", vix::log_text());
        assert_eq!(vix.access(&server), (code::OK, code::OK, code::OK, [0, 0]));
        let nobody = Server { machine: None, ..server };
        assert_eq!(vix.prepare(&nobody, c"backup"), code::INVALID_ARG);
        let host = Stage::host();
        vix::forget_log();
        assert_eq!(vix.prepare(&host.server(), c"backup"), code::NOT_SUPPORTED);
        assert_eq!(logged("HostAgent is not a vCenter, cannot disable svmotion."), 1);
    });
}

#[test]
fn connections_share_one_session_which_ends_with_the_last_of_them() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        vix::forget_log();
        let (first, second) = (connect(&stage.server()), connect(&stage.server()));
        assert_eq!(logged("logged in to"), 0);
        drop(first.must_open(&stage.disk(0), flags::READ_ONLY));
        drop(second.must_open(&stage.disk(0), flags::READ_ONLY));
        assert_eq!(first.disconnect(), code::OK);
        assert_eq!((logged("logged in to"), logged("the session is over")), (1, 0), "{}", vix::log_text());
        drop(second.must_open(&stage.disk(0), flags::READ_ONLY));
        assert_eq!(second.disconnect(), code::OK);
        assert_eq!((logged("logged in to"), logged("the session is over")), (1, 1), "{}", vix::log_text());
    });
}

#[test]
fn a_session_that_is_over_is_made_again() {
    in_child(|| {
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        drop(connection.must_open(&stage.disk(0), flags::READ_ONLY));
        vix::forget_log();
        stage.sim.end_sessions();
        drop(connection.must_open(&stage.disk(0), flags::READ_ONLY));
        assert_eq!(logged("logged in to"), 1, "{}", vix::log_text());
    });
}

#[test]
fn a_lost_connection_is_made_again_with_another_ticket() {
    in_child(|| {
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        stage.fault("nfc.read:/5=cut");
        stage.sim.end_sessions();
        for start in (0..SECTORS).step_by(512) {
            let at = (start * 512) as usize;
            assert!(disk.must_read(start, 512) == expected(true)[at..at + 512 * 512], "{start}");
        }
        assert_eq!(disk.transport(), "nbdssl");
    });
}

#[test]
fn a_silent_server_holds_nobody_longer_than_two_seconds() {
    in_child(|| {
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        let disk = connection.must_open(&stage.disk(1), flags::READ_WRITE);
        disk.must_write(0, &stamps(0, 8, 1));
        stage.fault("soap.Logout=silence");
        let begin = Instant::now();
        assert_eq!(disk.close(), code::OK);
        assert_eq!(connection.disconnect(), code::OK);
        assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
        let connection = connect(&stage.server());
        let disk = connection.must_open(&stage.disk(1), flags::READ_WRITE);
        stage.fault("nfc.*=silence");
        let reading = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                reading.store(true, Ordering::SeqCst);
                disk.read(0, &mut [0; 512])
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

#[test]
fn a_host_without_room_is_asked_again_and_in_the_end_the_advice_is_told() {
    in_child(|| {
        configured("vixDiskLib.nfc.AcceptTimeoutMs=3000\n");
        let stage = Stage::vcenter();
        stage.fault("nfc.session:1-2=error(5,\"Failed to allocate the requested 67108864 bytes\")");
        let connection = connect(&stage.server());
        drop(connection.must_open(&stage.disk(0), flags::READ_ONLY));
        assert!(logged("waits for room on its host") >= 1, "{}", vix::log_text());
        stage.fault("nfc.session=error(5,\"Failed to allocate the requested 67108864 bytes\")");
        vix::forget_log();
        assert_eq!(refused(&stage.server(), &stage.disk(0), flags::READ_ONLY), code::OUT_OF_MEMORY);
        assert!(logged("open fewer at a time") >= 1, "{}", vix::log_text());
    });
}

#[test]
fn a_local_child_over_a_disk_of_a_host_is_a_restore() {
    in_child(|| {
        let stage = Stage::vcenter();
        let (here, folder) = (Vix::started().connect(false).expect("a local connection"), scratch::folder());
        let child = folder.path().join("child.vmdk");
        let there = connect(&stage.server());
        let parent = there.must_open(&stage.disk(0), flags::READ_ONLY);
        assert!(parent.metadata("longContentID").is_ok(), "{:?}", parent.metadata_keys());
        assert_eq!(parent.create_child(&child, Kind::Sparse).0, code::OK, "{}", vix::log_text());
        let upper = here.must_open(&child, flags::READ_WRITE | flags::SINGLE_LINK);
        assert_eq!(parent.is_attach_possible(&upper), code::OK);
        assert_eq!(parent.attach(&upper), code::OK, "{}", vix::log_text());
        assert_eq!(parent.close(), code::OK);
        upper.must_write(100, &stamps(100, 10, 9));
        assert!(upper.must_read(100, 10) == stamps(100, 10, 9));
        assert!(upper.must_read(4096, 2048) == stamps(4096, 2048, 1));
        assert_eq!(upper.close(), code::OK);
        assert_eq!(here.unlink(&child), code::OK);
    });
}

#[test]
fn no_secret_is_in_any_line_of_the_log() {
    in_child(|| {
        configured("vixDiskLib.nfc.LogLevel=4\n");
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        for how in [flags::READ_ONLY, flags::READ_WRITE] {
            let disk = connection.must_open(&stage.disk(1), how);
            disk.must_read(0, 100);
        }
        for rule in [
            "soap.NfcGetVmFiles:1=fault(NoPermission,privilegeId=x)",
            "authd.proxy:1-2=refuse",
            "soap.Login:1=fault(InvalidLogin)",
            "nfc.open:1=error(11,\"no\")",
        ] {
            stage.sim.end_sessions();
            stage.fault(rule);
            let _ = connection.open(&stage.disk(0), flags::READ_ONLY);
        }
        assert_eq!(connection.disconnect(), code::OK);
        assert_no_secret(&vix::log_text());
    });
}
