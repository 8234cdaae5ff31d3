//! Creating disks, and what they are afterwards.

#[macro_use]
mod common;

use std::path::Path;

use common::child::in_child;
use common::model::is_zero;
use common::model::stamps;
use common::scratch;
use common::tools;
use common::vix;
use common::vix::Geometry;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::adapter;
use common::vix::code;
use common::vix::flags;

fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

#[test]
fn a_new_disk_reads_as_zeros_and_has_the_files_of_its_kind() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for (kind, files) in [(Kind::Sparse, vec!["d.vmdk"]), (Kind::Flat, vec!["d-flat.vmdk", "d.vmdk"])] {
            for capacity in [1, 127, 128, 2048, 70_001] {
                let folder = scratch::folder();
                let path = folder.path().join("d.vmdk");
                let (result, seen) = connection.create_watched(&path, Spec::new(kind, capacity));
                assert_eq!(result, code::OK, "{}", vix::log_text());
                assert_eq!(seen.last(), Some(&100), "progress ends with 100: {seen:?}");
                assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "progress rises: {seen:?}");
                assert!(seen.iter().all(|percent| (0..=100).contains(percent)), "{seen:?}");
                assert_eq!(names(folder.path()), files, "{kind:?}");
                let disk = connection.must_open(&path, flags::READ_ONLY);
                let info = disk.info();
                assert_eq!((info.capacity, info.links, info.parent), (capacity, 1, None));
                assert!(is_zero(&disk.must_read(0, capacity)), "{kind:?} of {capacity}");
                if kind == Kind::Sparse {
                    assert_eq!(disk.allocated_all(128), [], "nothing is allocated");
                } else {
                    let flat = std::fs::metadata(folder.path().join("d-flat.vmdk")).expect("the flat file");
                    assert_eq!(flat.len(), capacity * 512);
                }
                assert_eq!(disk.transport(), "file");
                assert_eq!(disk.close(), code::OK);
            }
        }
    });
}

#[test]
fn an_existing_file_is_not_overwritten() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat] {
            for existing in ["d.vmdk", "d-flat.vmdk"] {
                if kind == Kind::Sparse && existing != "d.vmdk" {
                    continue;
                }
                let folder = scratch::folder();
                std::fs::write(folder.path().join(existing), b"precious").expect("a file");
                let result = connection.create(&folder.path().join("d.vmdk"), Spec::new(kind, 4096));
                assert_eq!(result, code::ALREADY_EXISTS, "{kind:?}, {existing}");
                assert_eq!(std::fs::read(folder.path().join(existing)).expect("the file"), b"precious");
                assert_eq!(names(folder.path()), [existing], "{kind:?}: nothing else is left");
            }
        }
    });
}

#[test]
fn impossible_disks_are_refused_and_leave_nothing() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        for capacity in [0, u64::MAX, 1 << 55] {
            for kind in [Kind::Sparse, Kind::Flat] {
                let result = connection.create(&path, Spec::new(kind, capacity));
                assert_ne!(result, code::OK, "{kind:?} of {capacity} sectors");
                assert_eq!(names(folder.path()), [] as [&str; 0], "{kind:?} of {capacity} sectors");
            }
        }
        let result = connection.create(&folder.path().join("none/d.vmdk"), Spec::new(Kind::Sparse, 100));
        assert_eq!(result, code::FILE_NOT_FOUND, "a folder that does not exist");
        assert!(connection.create(Path::new(""), Spec::new(Kind::Sparse, 100)) != code::OK, "an empty path");
    });
}

/// Programs compare the geometry of a restored disk with that of its source, whatever adapter each was made with.
#[test]
fn the_geometry_is_a_stable_function_of_the_capacity() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let mib = 2048;
        for (capacity, cylinders, heads, sectors) in [
            (2 * mib, 2, 64, 32),
            (30 * mib, 30, 64, 32),
            (1024 * mib, 1024, 64, 32),
            (69 * 1024 * mib, 9007, 255, 63),
            (1, 1, 64, 32),
        ] {
            for adapter in [adapter::BUSLOGIC, adapter::LSILOGIC] {
                let folder = scratch::folder();
                let path = folder.path().join("d.vmdk");
                let spec = Spec { adapter, hw_version: 7, ..Spec::new(Kind::Sparse, capacity) };
                connection.must_create(&path, spec);
                let info = connection.must_open(&path, flags::READ_ONLY).info();
                assert_eq!(info.physical, Geometry { cylinders, heads, sectors }, "{capacity} sectors");
                assert_eq!(info.adapter, adapter);
            }
            // IDE has its own rule.
            let folder = scratch::folder();
            let path = folder.path().join("ide.vmdk");
            connection
                .must_create(&path, Spec { adapter: adapter::IDE, ..Spec::new(Kind::Sparse, capacity) });
            let info = connection.must_open(&path, flags::READ_ONLY).info();
            let expected = (capacity / 1008).clamp(1, 16_383) as u32;
            assert_eq!(info.physical, Geometry { cylinders: expected, heads: 16, sectors: 63 });
            assert_eq!(info.adapter, adapter::IDE);
        }
    });
}

#[test]
fn a_new_disk_has_an_identity_of_its_own() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let uuids: Vec<String> = (0..2)
            .map(|n| {
                let path = folder.path().join(format!("d{n}.vmdk"));
                connection.must_create(&path, Spec { hw_version: 13, ..Spec::new(Kind::Sparse, 4096) });
                let disk = connection.must_open(&path, flags::READ_ONLY);
                assert_eq!(disk.metadata("virtualHWVersion").as_deref(), Ok("13"));
                assert_eq!(disk.metadata("adapterType").as_deref(), Ok("buslogic"));
                disk.info().uuid.expect("a uuid")
            })
            .collect();
        assert_ne!(uuids[0], uuids[1]);
        for uuid in &uuids {
            assert!(uuid.starts_with("60 00 C2 9"), "{uuid}");
            assert_eq!((uuid.len(), uuid.as_bytes()[23]), (47, b'-'), "{uuid}");
        }
    });
}

/// A program writes 250 MiB sector pair by sector pair and wants the file to be at most 0.1 % larger.
#[test]
fn the_overhead_of_a_full_sparse_disk_is_small() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        let capacity = 512_000;
        connection.must_create(&path, Spec::new(Kind::Sparse, capacity));
        let disk = connection.must_open(&path, flags::READ_WRITE);
        let mut pair = vec![0x77u8; 1024];
        for start in (0..capacity).step_by(2) {
            pair[..8].copy_from_slice(&start.to_le_bytes());
            assert_eq!(disk.write(start, &pair), code::OK);
        }
        assert_eq!(disk.close(), code::OK);
        let size = std::fs::metadata(&path).expect("the disk").len();
        assert!((262_144_000..=262_406_144).contains(&size), "{size} bytes");
        assert_eq!(names(folder.path()), ["d.vmdk"], "one single file");
        let disk = connection.must_open(&path, flags::READ_ONLY);
        for start in [0, 2, 100_000, 511_998] {
            assert_eq!(disk.must_read(start, 2)[..8], u64::to_le_bytes(start));
        }
        drop(disk);
        tools::qemu_check(&path);
    });
}

/// Names with blanks, per cent signs, letters of the world and bytes that are no text: they work, or are refused and leave
/// nothing. A quote cannot stand in a descriptor.
#[test]
fn odd_names_work_or_are_refused_cleanly() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let must: [&[u8]; 5] = [
            b"with blank.vmdk",
            b"100%s%n.vmdk",
            "gr\u{fc}n \u{6f22}.vmdk".as_bytes(),
            b"no-extension",
            b"-dash.vmdk",
        ];
        let may: [&[u8]; 4] = [b"quo\"te.vmdk", b"\xff\xfe.vmdk", b"new\nline.vmdk", b"tab\t.vmdk"];
        for (name, required) in must.map(|n| (n, true)).into_iter().chain(may.map(|n| (n, false))) {
            for kind in [Kind::Sparse, Kind::Flat] {
                let folder = scratch::folder();
                let path = folder.path().join(OsStr::from_bytes(name));
                vix::forget_log();
                let result = connection.create(&path, Spec::new(kind, 1000));
                if result != code::OK {
                    assert!(!required, "{kind:?} {path:?}: {result}\n{}", vix::log_text());
                    assert_eq!(names(folder.path()), [] as [&str; 0], "{path:?} leaves nothing");
                    continue;
                }
                let disk = connection.must_open(&path, flags::READ_WRITE);
                disk.must_write(3, &stamps(3, 200, 1));
                assert_eq!(disk.close(), code::OK);
                let disk = connection.must_open(&path, flags::READ_ONLY);
                assert_eq!(disk.must_read(3, 200), stamps(3, 200, 1), "{kind:?} {path:?}");
                assert_eq!(disk.close(), code::OK);
                if name.contains(&b'%') {
                    let log = vix::log_text();
                    assert!(log.contains("100%s%n.vmdk"), "the log shows the name as it is: {log}");
                }
            }
        }
        // A relative path, seen from the working directory of the process.
        let folder = scratch::folder();
        std::env::set_current_dir(folder.path()).expect("the folder");
        connection.must_create(Path::new("r.vmdk"), Spec::new(Kind::Flat, 100));
        let disk = connection.must_open(Path::new("./r.vmdk"), flags::READ_WRITE);
        disk.must_write(0, &stamps(0, 100, 1));
        assert_eq!(disk.close(), code::OK);
        let disk = connection.must_open(&folder.path().join("r.vmdk"), flags::READ_ONLY);
        assert_eq!(disk.must_read(0, 100), stamps(0, 100, 1));
    });
}
