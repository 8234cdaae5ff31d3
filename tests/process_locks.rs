//! Who may open a disk while somebody else has it open, and what a folder without write permission allows.

#[macro_use]
mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use common::child;
use common::child::in_child;
use common::model::stamps;
use common::process;
use common::scratch;
use common::vix;
use common::vix::Connection;
use common::vix::Kind;
use common::vix::Level;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

fn sample(connection: &Connection<'_>, folder: &Path, kind: Kind) -> PathBuf {
    let path = folder.join(format!("{kind:?}.vmdk"));
    connection.must_create(&path, Spec::new(kind, 4096));
    let disk = connection.must_open(&path, flags::READ_WRITE);
    disk.must_write(0, &stamps(0, 300, 1));
    assert_eq!(disk.close(), code::OK);
    path
}

#[test]
fn a_second_writer_of_this_process_is_refused() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::started();
        let connection = vix.connect(false).expect("a connection");
        let other = vix.connect(false).expect("another connection");
        // Side by side, for a lock is waited for.
        let refused = |kind: Kind| {
            let path = sample(&connection, folder.path(), kind);
            let first = connection.must_open(&path, flags::READ_WRITE);
            let started = Instant::now();
            assert_eq!(other.open(&path, flags::READ_WRITE).err(), Some(code::ALREADY_LOCKED), "{kind:?}");
            assert!(started.elapsed() < Duration::from_secs(10), "{kind:?}: the refusal comes in time");
            // The same disk by another name.
            let link = folder.path().join(format!("{kind:?}-link.vmdk"));
            std::os::unix::fs::symlink(&path, &link).expect("a link");
            assert_eq!(
                other.open(&link, flags::READ_WRITE).err(),
                Some(code::ALREADY_LOCKED),
                "{kind:?} by a link"
            );
            first.must_write(1, &stamps(1, 1, 2));
            assert_eq!(first.close(), code::OK);
            let second = other.must_open(&path, flags::READ_WRITE);
            assert_eq!(second.must_read(1, 1), stamps(1, 1, 2));
            assert_eq!(second.close(), code::OK);
            assert!(!path.with_extension("vmdk.lck").exists(), "{kind:?}: no lock is left");
        };
        std::thread::scope(|scope| {
            for kind in [Kind::Sparse, Kind::Flat] {
                scope.spawn(move || refused(kind));
            }
        });
    });
}

/// The same disk by another name, which has another lock folder.
#[test]
fn a_second_writer_through_a_link_is_refused() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = sample(&connection, folder.path(), Kind::Sparse);
        let first = connection.must_open(&path, flags::READ_WRITE);
        let other = folder.path().join("other");
        std::fs::create_dir(&other).expect("a folder");
        let links = [other.join("soft.vmdk"), other.join("hard.vmdk")];
        std::os::unix::fs::symlink(&path, &links[0]).expect("a symbolic link");
        std::fs::hard_link(&path, &links[1]).expect("a hard link");
        for link in &links {
            assert_eq!(
                connection.open(link, flags::READ_WRITE).err(),
                Some(code::ALREADY_LOCKED),
                "{link:?}"
            );
        }
        first.must_write(0, &stamps(0, 1, 2));
        assert_eq!(first.close(), code::OK);
    });
}

const DISK: &str = "VIX_LOCK_DISK";

#[test]
fn a_second_writer_of_another_process_is_refused() {
    in_child(|| {
        if let Ok(disk) = std::env::var(DISK) {
            let connection = Vix::started().connect(false).expect("a connection");
            let result = connection.open(Path::new(&disk), flags::READ_WRITE).err().unwrap_or(code::OK);
            let read_only = connection.open(Path::new(&disk), flags::READ_ONLY).err().unwrap_or(code::OK);
            use std::io::Write;
            child::report().write_all(format!("{result} {read_only}").as_bytes()).expect("the report");
            return;
        }
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat] {
            let path = sample(&connection, folder.path(), kind);
            let ask = || {
                use std::io::Read;
                let test = "a_second_writer_of_another_process_is_refused";
                let mut other = child::start_reporting(test, &[(DISK, path.to_str().expect("text"))]);
                let mut said = String::new();
                other.report.read_to_string(&mut said).expect("the report");
                assert!(other.child.wait().expect("the other process").success());
                said
            };
            let disk = connection.must_open(&path, flags::READ_WRITE);
            assert_eq!(ask(), "15 0", "{kind:?}: writing is refused, reading is not");
            assert_eq!(disk.close(), code::OK);
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert_eq!(ask(), "0 0", "{kind:?}: a reader is in nobody's way");
            assert_eq!(disk.close(), code::OK);
        }
    });
}

#[test]
fn the_lock_has_the_form_that_vmware_programs_know() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = sample(&connection, folder.path(), Kind::Sparse);
        let disk = connection.must_open(&path, flags::READ_WRITE);
        let lock = path.with_extension("vmdk.lck");
        let members: Vec<PathBuf> = std::fs::read_dir(&lock)
            .expect("the lock folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(members.len(), 1, "{members:?}");
        let name = members[0].file_name().expect("a name").to_string_lossy().into_owned();
        let digits = name.strip_prefix('M').and_then(|rest| rest.strip_suffix(".lck")).expect("Mnnnnn.lck");
        assert!(digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()), "{name}");
        let bytes = std::fs::read(&members[0]).expect("the member");
        assert_eq!(bytes.len(), 512, "a member is exactly 512 bytes");
        let text = String::from_utf8(bytes).expect("text");
        let fields: Vec<&str> = text.trim_end_matches('\0').split_whitespace().collect();
        assert!(fields.len() >= 5, "{fields:?}");
        assert!(fields[1].starts_with(&format!("{}-", std::process::id())), "the process: {fields:?}");
        assert!(fields[2].parse::<u64>().is_ok(), "the ticket: {fields:?}");
        assert_eq!(fields[3], "X", "exclusive: {fields:?}");
        assert_eq!(disk.close(), code::OK);
        assert!(!lock.exists());
    });
}

/// A member of a process that is gone, as it stays after a crash of this machine's program.
#[test]
fn a_lock_of_another_machine_is_respected_and_a_reader_needs_none() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = sample(&connection, folder.path(), Kind::Sparse);
        let lock = path.with_extension("vmdk.lck");
        std::fs::create_dir(&lock).expect("the lock folder");
        let mut member =
            b"uuid=11111111-2222-3333-4444-555555555555 4242-17(vmware-vmx) 1 X 1700000000 lc=1".to_vec();
        member.resize(512, 0);
        let file = lock.join("M12345.lck");
        std::fs::write(&file, &member).expect("the member");
        let started = Instant::now();
        assert_eq!(connection.open(&path, flags::READ_WRITE).err(), Some(code::ALREADY_LOCKED));
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(std::fs::read(&file).expect("the member"), member, "it is not touched");
        let reader = connection.must_open(&path, flags::READ_ONLY);
        assert_eq!(reader.must_read(0, 300), stamps(0, 300, 1));
        assert_eq!(reader.close(), code::OK);
        std::fs::remove_dir_all(&lock).expect("an administrator removes it");
        assert_eq!(connection.must_open(&path, flags::READ_WRITE).close(), code::OK);
    });
}

/// Makes a folder nobody may write to, with a disk in it.
fn read_only_folder(folder: &Path, kind: Kind) -> PathBuf {
    let inner = folder.join(format!("ro-{kind:?}"));
    std::fs::create_dir(&inner).expect("a folder");
    let connection = Vix::started().connect(false).expect("a connection");
    let path = sample(&connection, &inner, kind);
    for entry in std::fs::read_dir(&inner).expect("the folder") {
        let file = entry.expect("an entry").path();
        // The files themselves may be written: only the folder forbids the lock.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("chmod");
        process::give_away(&file);
    }
    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o555)).expect("chmod");
    path
}

#[test]
fn a_folder_without_write_permission_allows_reading_and_explains_why_not_writing() {
    in_child(|| {
        let folder = scratch::folder();
        let paths = [Kind::Sparse, Kind::Flat].map(|kind| read_only_folder(folder.path(), kind));
        process::drop_privileges();
        let vix = Vix::started();
        for path in &paths {
            vix::forget_log();
            let connection = vix.connect(true).expect("a connection");
            let disk = connection.must_open(path, flags::READ_ONLY);
            assert_eq!(disk.must_read(0, 300), stamps(0, 300, 1));
            assert_eq!(disk.close(), code::OK);
            let warned: Vec<_> = vix::log_lines().into_iter().filter(|(l, _)| *l == Level::Warn).collect();
            assert!(warned.is_empty(), "reading needs no lock: {warned:?}");
            let connection = vix.connect(false).expect("a connection");
            assert_eq!(connection.open(path, flags::READ_WRITE).err(), Some(code::ACCESS_ERROR));
            let log = vix::log_text();
            let line = log
                .lines()
                .find(|line| line.contains("FileLockCreateEntryDirectory creation failure on"))
                .unwrap_or_else(|| panic!("the line that programs look for is missing:\n{log}"));
            assert!(line.contains("Permission denied"), "{line}");
        }
        // So that the scratch folder can go.
        for path in &paths {
            let _ = std::fs::set_permissions(
                path.parent().expect("a folder"),
                std::fs::Permissions::from_mode(0o755),
            );
        }
    });
}

#[test]
fn a_file_that_may_not_be_read_is_an_access_error() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::started();
        let connection = vix.connect(true).expect("a connection");
        let path = sample(&connection, folder.path(), Kind::Sparse);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("chmod");
        process::drop_privileges();
        assert_eq!(connection.open(&path, flags::READ_ONLY).err(), Some(code::ACCESS_ERROR));
        let text = vix.error_text(code::ACCESS_ERROR);
        assert!(text.contains("You do not have access rights to this file"), "{text}");
    });
}

/// A connection made read-only still allows local disks to be created and written.
#[test]
fn a_read_only_connection_still_creates_and_writes_local_disks() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(true).expect("a read-only connection");
        let path = sample(&connection, folder.path(), Kind::Sparse);
        let disk = connection.must_open(&path, flags::READ_WRITE);
        disk.must_write(9, &stamps(9, 1, 4));
        assert_eq!(disk.must_read(9, 1), stamps(9, 1, 4));
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn missing_files_and_things_that_are_no_disk_have_their_codes() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(true).expect("a connection");
        let open = |path: &Path| connection.open(path, flags::READ_ONLY).err();
        assert_eq!(open(&folder.path().join("none.vmdk")), Some(code::FILE_NOT_FOUND));
        assert_eq!(open(&folder.path().join("none/none.vmdk")), Some(code::FILE_NOT_FOUND));
        let empty = folder.path().join("empty.vmdk");
        std::fs::write(&empty, b"").expect("a file");
        assert_eq!(open(&empty), Some(code::INVALID_DISK), "an empty file");
        let text = folder.path().join("text.vmdk");
        std::fs::write(&text, b"hello\n").expect("a file");
        assert_eq!(open(&text), Some(code::INVALID_DISK), "a text");
        assert!(open(folder.path()).is_some(), "a folder");
        let log = vix::log_text();
        assert!(log.contains("VixDiskLib_OpenEx: Cannot open disk"), "{log}");
        assert!(log.contains("none.vmdk") && log.contains("empty.vmdk"), "the paths are named: {log}");
    });
}

/// Descriptors may not name things outside of their folder.
#[test]
fn a_descriptor_that_names_foreign_files_is_refused() {
    in_child(|| {
        let folder = scratch::folder();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, vec![b'S'; 4096]).expect("a file");
        std::os::unix::fs::symlink(&secret, inner.join("link")).expect("a link");
        let absolute = secret.to_str().expect("text").to_owned();
        let connection = Vix::started().connect(false).expect("a connection");
        for name in
            ["../secret", "sub/../../secret", &absolute, "/etc/passwd", "/dev/zero", "/dev/null", "link"]
        {
            for kind in ["FLAT", "VMFS", "SPARSE"] {
                let offset = if kind == "FLAT" { " 0" } else { "" };
                let descriptor = format!(
                    "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"custom\"\n\n\
                     # Extent description\nRW 8 {kind} \"{name}\"{offset}\n"
                );
                let path = inner.join("d.vmdk");
                std::fs::write(&path, descriptor).expect("a descriptor");
                for flag in [flags::READ_ONLY, flags::READ_WRITE] {
                    match connection.open(&path, flag) {
                        Err(e) => assert_ne!(e, code::OK),
                        Ok(disk) => {
                            let mut buf = [0u8; 4096];
                            let result = disk.read(0, &mut buf);
                            panic!("{kind} {name:?} opens, Read = {result}, {:?}", &buf[..8]);
                        }
                    }
                }
            }
        }
        assert_eq!(std::fs::read(&secret).expect("the file"), vec![b'S'; 4096]);
    });
}
