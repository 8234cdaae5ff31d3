//! Making disks larger.

#[macro_use]
mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::child;
use common::child::in_child;
use common::images::Images;
use common::model::Hasher;
use common::model::Rng;
use common::model::is_zero;
use common::model::stamps;
use common::process;
use common::readers::readers_agree;
use common::scratch;
use common::tools;
use common::vix;
use common::vix::Connection;
use common::vix::Geometry;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

const KINDS: [Kind; 6] =
    [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::SplitFlat, Kind::VmfsFlat, Kind::VmfsThin];

fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

fn cid(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("the descriptor");
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(11_000)]).into_owned();
    text.lines().find_map(|line| line.strip_prefix("CID=")).expect("a CID").to_owned()
}

/// A disk whose last sectors are written to.
fn make(connection: &Connection<'_>, path: &Path, kind: Kind, capacity: u64) {
    connection.must_create(path, Spec::new(kind, capacity));
    let disk = connection.must_open(path, flags::READ_WRITE);
    disk.must_write(capacity - 1, &stamps(capacity - 1, 1, 1));
    assert_eq!(disk.close(), code::OK);
}

/// Everything that was there is there, the rest is zeros and can be written to.
fn check_grown(connection: &Connection<'_>, path: &Path, before: u64, after: u64) {
    let disk = connection.must_open(path, flags::READ_WRITE);
    assert_eq!(disk.info().capacity, after);
    assert_eq!(disk.must_read(before - 1, 1), stamps(before - 1, 1, 1));
    let mut at = before;
    while at < after {
        let count = (after - at).min(100_000);
        assert!(is_zero(&disk.must_read(at, count)), "from {at} of {after}");
        at += if at - before < 400_000 { count } else { 7 * count };
    }
    disk.must_write(after - 1, &stamps(after - 1, 1, 2));
    disk.must_write(before - 1, &stamps(before - 1, 1, 1));
    assert_eq!(disk.must_read(after - 1, 1), stamps(after - 1, 1, 2));
    assert_eq!(disk.close(), code::OK);
}

#[test]
fn a_grown_disk_keeps_its_data_and_reads_zeros_behind_it() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in KINDS {
            for (before, after) in
                [(1, 2), (100, 3000), (128, 129), (65_536, 65_537), (70_001, 400_000), (100, 65_536 * 130)]
            {
                if after > 1_000_000 && !matches!(kind, Kind::Sparse | Kind::SplitSparse | Kind::VmfsThin) {
                    continue;
                }
                let folder = scratch::folder();
                let path = folder.path().join("d.vmdk");
                make(&connection, &path, kind, before);
                let id = cid(&path);
                let (result, seen) = connection.grow(&path, after, false);
                assert_eq!(result, code::OK, "{kind:?} {before} to {after}: {}", vix::log_text());
                assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&100)), "{seen:?}");
                assert_ne!(cid(&path), id, "another size is another content");
                check_grown(&connection, &path, before, after);
                tools::qemu_check(&path);
                let mut info = Command::new("qemu-img");
                let told = tools::check(info.args(["info", "--output=json"]).arg(&path)).out();
                assert!(told.contains(&format!("\"virtual-size\": {}", after * 512)), "{kind:?}: {told}");
            }
        }
    });
}

#[test]
fn a_disk_grows_again_and_again() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in KINDS {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            let mut capacity = 50;
            make(&connection, &path, kind, capacity);
            for step in [1, 77, 128, 65_536, 100_001] {
                let (result, _) = connection.grow(&path, capacity + step, true);
                assert_eq!(result, code::OK, "{kind:?} to {}: {}", capacity + step, vix::log_text());
                capacity += step;
                let disk = connection.must_open(&path, flags::READ_WRITE);
                disk.must_write(capacity - 1, &stamps(capacity - 1, 1, 1));
                assert_eq!(disk.close(), code::OK);
            }
            let disk = connection.must_open(&path, flags::READ_ONLY);
            for end in [50, 51, 128, 256, 65_792, 165_793] {
                assert_eq!(disk.must_read(end - 1, 1), stamps(end - 1, 1, 1), "{kind:?}");
            }
            readers_agree(&path, folder.path(), &disk.must_read(0, capacity));
        }
    });
}

#[test]
fn split_disks_get_further_pieces() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        const PIECE: u64 = 4_192_256;
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        make(&connection, &path, Kind::SplitSparse, 5000);
        let stray = folder.path().join("d-s002.vmdk");
        std::fs::write(&stray, b"somebody's").expect("a file");
        let after = 5120 + 2 * PIECE + 9;
        let (result, _) = connection.grow(&path, after, false);
        assert_eq!(result, code::OK, "{}", vix::log_text());
        assert_eq!(std::fs::read(&stray).expect("the file"), b"somebody's");
        let text = std::fs::read_to_string(&path).expect("the descriptor");
        for line in [
            // To the end of the grain.
            "RW 5120 SPARSE \"d-s001.vmdk\"\n".to_owned(),
            format!("RW {PIECE} SPARSE \"d-s003.vmdk\"\nRW {PIECE} SPARSE \"d-s004.vmdk\"\n"),
            "RW 9 SPARSE \"d-s005.vmdk\"\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{text}");
        }
        let disk = connection.must_open(&path, flags::READ_WRITE);
        disk.must_write(5120 + PIECE - 1, &stamps(5120 + PIECE - 1, 2, 4));
        assert_eq!(disk.must_read(5120 + PIECE - 1, 2), stamps(5120 + PIECE - 1, 2, 4));
        assert_eq!(disk.must_read(4999, 1), stamps(4999, 1, 1));
    });
}

#[test]
fn the_geometry_follows_when_asked() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::VmfsThin] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            make(&connection, &path, kind, 4096);
            let geometry = |cylinders| Geometry { cylinders, heads: 64, sectors: 32 };
            for (update, cylinders) in [(false, 2), (true, 20)] {
                let (result, _) = connection.grow(&path, 20 * 2048, update);
                assert_eq!(result, code::OK, "{kind:?}: {}", vix::log_text());
                let info = connection.must_open(&path, flags::READ_ONLY).info();
                assert_eq!((info.physical, info.capacity), (geometry(cylinders), 20 * 2048), "{kind:?}");
            }
        }
    });
}

#[test]
fn what_cannot_grow_is_refused_and_stays_as_it_is() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        // Side by side, for a lock is waited for.
        let refused = |kind: Kind| {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            make(&connection, &path, kind, 3000);
            let before = content(folder.path());
            for capacity in [0, 1, 2999, (62 << 31) + 1, u64::MAX] {
                assert_eq!(
                    connection.grow(&path, capacity, true).0,
                    code::INVALID_ARG,
                    "{kind:?} {capacity}"
                );
            }
            assert_eq!(connection.grow(&path, 3000, false).0, code::OK, "nothing to do");
            if kind == Kind::Sparse {
                assert_eq!(connection.grow(&path, 1 << 32, false).0, code::FILE_TOO_BIG);
            }
            let disk = connection.must_open(&path, flags::READ_WRITE);
            assert_eq!(connection.grow(&path, 4000, false).0, code::ALREADY_LOCKED, "{kind:?}");
            assert_eq!(disk.close(), code::OK);
            assert_eq!(connection.grow(&folder.path().join("none"), 4000, false).0, code::FILE_NOT_FOUND);
            assert!(content(folder.path()) == before, "{kind:?}");
            // A child shows why: it would be of another size than its parent.
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert_eq!(disk.create_child(&folder.path().join("c.vmdk"), Kind::Sparse).0, code::OK);
            assert_eq!(disk.close(), code::OK);
            let before = content(folder.path());
            for name in ["d.vmdk", "c.vmdk"] {
                let result = connection.grow(&folder.path().join(name), 4000, false).0;
                assert_eq!(result, code::NOT_SUPPORTED, "{kind:?} {name}");
            }
            let stream = folder.path().join("s.vmdk");
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", "vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized"]);
            tools::check(convert.arg(&path).arg(&stream));
            assert_eq!(connection.grow(&stream, 4000, false).0, code::NOT_SUPPORTED, "{kind:?}");
            std::fs::remove_file(&stream).expect("the stream");
            assert!(content(folder.path()) == before, "{kind:?}");
        };
        std::thread::scope(|scope| {
            for kind in KINDS {
                scope.spawn(move || refused(kind));
            }
        });
    });
}

fn qemu_opens(path: &Path) -> bool {
    tools::run(Command::new("qemu-img").args(["check", "-f", "vmdk"]).arg(path)).status.success()
}

/// What other programs made grows as well, or is refused and stays as it is.
#[test]
fn golden_images_grow_or_are_refused() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let images = Images::find();
        let mut grown = 0;
        for golden in images.golden() {
            let place = images.unpack(&golden.path);
            let (path, before) = (place.path(), golden.size / 512);
            let files = content(place.folder());
            let known_to_qemu = qemu_opens(&path);
            let (result, _) = connection.grow(&path, before + 70_000, true);
            if result == code::OK {
                grown += 1;
            } else {
                assert!(
                    [code::NOT_SUPPORTED, code::NEEDS_REPAIR].contains(&result),
                    "{} {result}",
                    golden.path
                );
                assert!(content(place.folder()) == files, "{} {result}", golden.path);
                continue;
            }
            let disk = connection.must_open(&path, flags::READ_WRITE);
            assert_eq!(disk.info().capacity, before + 70_000, "{}", golden.path);
            let mut hash = Hasher::default();
            for start in (0..before).step_by(8192) {
                hash.add(&disk.must_read(start, (before - start).min(8192)));
            }
            assert_eq!(hash.hex(), golden.sha256, "{}", golden.path);
            assert!(is_zero(&disk.must_read(before, 70_000)), "{}", golden.path);
            disk.must_write(before + 69_000, &stamps(before + 69_000, 9, 1));
            assert_eq!(disk.close(), code::OK);
            assert_eq!(qemu_opens(&path), known_to_qemu, "{}", golden.path);
        }
        assert!(grown > 3, "some of them can grow");
    });
}

/// What a foreign writer left behind the end must not appear as data.
#[test]
fn bytes_behind_the_old_end_do_not_come_to_light() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        // The last grain of a sparse disk: filled up with something.
        let path = folder.path().join("d.vmdk");
        make(&connection, &path, Kind::Sparse, 1000);
        let mut bytes = std::fs::read(&path).expect("the disk");
        let end = bytes.len() - (1024 - 1000) * 512;
        bytes[end..].fill(0xEE);
        // And an entry behind the last grain of the table.
        let table = u32::from_le_bytes(bytes[26 * 512..26 * 512 + 4].try_into().expect("an entry")) as usize;
        let redundant =
            u32::from_le_bytes(bytes[21 * 512..21 * 512 + 4].try_into().expect("an entry")) as usize;
        for at in [table, redundant] {
            bytes[at * 512 + 20 * 4..at * 512 + 21 * 4].copy_from_slice(&128u32.to_le_bytes());
        }
        std::fs::write(&path, &bytes).expect("the disk");
        assert_eq!(connection.grow(&path, 10_000, false).0, code::OK, "{}", vix::log_text());
        check_grown(&connection, &path, 1000, 10_000);
        // A flat file that is longer than its extent.
        let path = folder.path().join("f.vmdk");
        make(&connection, &path, Kind::Flat, 1000);
        let flat = folder.path().join("f-flat.vmdk");
        let mut bytes = std::fs::read(&flat).expect("the extent");
        bytes.extend(vec![0; 4096]);
        std::fs::write(&flat, &bytes).expect("the extent");
        assert_eq!(
            connection.grow(&path, 1004, false).0,
            code::OK,
            "zeros may be there: {}",
            vix::log_text()
        );
        check_grown(&connection, &path, 1000, 1004);
        let mut bytes = std::fs::read(&flat).expect("the extent");
        *bytes.last_mut().expect("a byte") = 1;
        std::fs::write(&flat, &bytes).expect("the extent");
        assert_eq!(connection.grow(&path, 1005, false).0, code::NOT_SUPPORTED);
        assert!(std::fs::read(&flat).expect("the extent") == bytes);
    });
}

#[test]
fn a_full_file_system_leaves_the_old_disk() {
    in_child(|| {
        let folder = scratch::folder();
        let place = folder.path().join("small");
        std::fs::create_dir(&place).expect("a folder");
        if let Err(reason) = process::mount_small(&place, 4 << 20) {
            return scratch::note(&reason);
        }
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in KINDS {
            let path = place.join("d.vmdk");
            make(&connection, &path, kind, 1000);
            let before = content(&place);
            // The rest of the space goes to somebody else.
            let filler = place.join("filler");
            let mut all = vec![0u8; 4 << 20];
            while std::fs::write(&filler, &all).is_err() {
                all.truncate(all.len() - 4096);
            }
            let (result, _) = connection.grow(&path, 1 << 20, false);
            if kind == Kind::VmfsThin && result == code::OK {
                std::fs::remove_file(&filler).expect("the filler");
                assert_eq!(connection.unlink(&path), code::OK);
                continue; // it takes no space until it is written to
            }
            assert_eq!(result, code::DISK_FULL, "{kind:?}: {}", vix::log_text());
            std::fs::remove_file(&filler).expect("the filler");
            assert!(content(&place) == before, "{kind:?}");
            assert_eq!(connection.grow(&path, 2000, false).0, code::OK, "{kind:?}: {}", vix::log_text());
            assert_eq!(connection.unlink(&path), code::OK);
        }
    });
}

#[test]
fn a_folder_that_cannot_be_written_to_stays_as_it_is() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        for (n, kind) in KINDS.into_iter().enumerate() {
            let place = folder.path().join(n.to_string());
            std::fs::create_dir(&place).expect("a folder");
            make(&connection, &place.join("d.vmdk"), kind, 1000);
        }
        process::drop_privileges();
        for n in 0..KINDS.len() {
            let place = folder.path().join(n.to_string());
            let before = content(&place);
            assert_eq!(connection.grow(&place.join("d.vmdk"), 2000, true).0, code::ACCESS_ERROR);
            assert!(content(&place) == before);
        }
    });
}

/// Killed at any moment, a growing leaves a disk of the old or the new size, with all its data.
#[test]
fn a_killed_growing_leaves_the_old_or_the_new_disk() {
    const NAME: &str = "a_killed_growing_leaves_the_old_or_the_new_disk";
    if child::is_child(NAME) {
        let connection = Vix::started().connect(false).expect("a connection");
        let path = PathBuf::from(std::env::var_os("VIX_TEST_DISK").expect("the disk"));
        for capacity in (1000..).step_by(3001) {
            let (result, _) = connection.grow(&path, capacity, true);
            assert!([code::OK, code::INVALID_ARG].contains(&result), "{result}");
        }
    }
    let mut rng = Rng::new(5);
    let connection = Vix::started().connect(false).expect("a connection");
    for kind in [Kind::Sparse, Kind::SplitFlat, Kind::VmfsThin] {
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        make(&connection, &path, kind, 1000);
        let mut sizes = Vec::new();
        for round in 0..8 {
            let mut process = child::command(NAME)
                .env("VIX_TEST_DISK", &path)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("a child");
            std::thread::sleep(Duration::from_millis(60) + Duration::from_micros(rng.below(150_000)));
            process.kill().expect("killing the child");
            process.wait().expect("the end of the child");
            // Whether somebody is about to take the lock is known after seconds only; nobody is.
            let _ = std::fs::remove_dir_all(path.with_extension("vmdk.lck"));
            let disk = connection.must_open(&path, flags::READ_WRITE);
            let capacity = disk.info().capacity;
            assert_eq!((capacity - 1000) % 3001, 0, "{kind:?}, round {round}");
            assert_eq!(disk.must_read(999, 1), stamps(999, 1, 1), "{kind:?}, round {round}");
            assert!(is_zero(&disk.must_read(1000, capacity - 1000)), "{kind:?}, round {round}");
            assert_eq!(disk.close(), code::OK);
            sizes.push(capacity);
            if capacity > 600_000 {
                break;
            }
        }
        assert!(sizes.last() > Some(&1000), "{kind:?}: the child got to work: {sizes:?}");
    }
}
