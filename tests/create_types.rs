//! Every kind of disk that can be made, and what this library, QEMU and nbdkit make of it.

#[macro_use]
mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::child;
use common::child::in_child;
use common::model::Rng;
use common::model::is_zero;
use common::model::stamps;
use common::process;
use common::readers::READERS;
use common::readers::readers_agree;
use common::scratch;
use common::scratch::names;
use common::tools;
use common::vix;
use common::vix::Connection;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::adapter;
use common::vix::code;
use common::vix::flags;

const KINDS: [Kind; 6] =
    [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::SplitFlat, Kind::VmfsFlat, Kind::VmfsThin];
/// Sectors of a full piece of a split disk.
const PIECE: u64 = 4_192_256;

fn text_of(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("the descriptor");
    String::from_utf8_lossy(&bytes[..bytes.len().min(20_000)]).into_owned()
}

/// Bytes that a file takes on the file system.
fn taken(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("a file").blocks() * 512
}

/// Writes at both ends, over every border of pieces and somewhere between; gives what was written.
fn write_samples(connection: &Connection<'_>, path: &Path, capacity: u64) -> Vec<(u64, Vec<u8>)> {
    let disk = connection.must_open(path, flags::READ_WRITE);
    let mut starts = vec![0, capacity / 2, capacity - 1];
    starts.extend((1..=capacity / PIECE).map(|n| n * PIECE - 1).filter(|start| start + 2 <= capacity));
    starts.sort_unstable();
    let samples: Vec<(u64, Vec<u8>)> =
        starts.into_iter().map(|start| (start, stamps(start, 2.min(capacity - start), 3))).collect();
    for (start, data) in &samples {
        disk.must_write(*start, data);
    }
    assert_eq!(disk.close(), code::OK);
    samples
}

/// The content of a disk of zeros after these writes.
fn model_of(capacity: u64, samples: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut model = vec![0; (capacity * 512) as usize];
    for (start, data) in samples {
        let at = (start * 512) as usize;
        model[at..at + data.len()].copy_from_slice(data);
    }
    model
}

#[test]
fn every_kind_is_written_reopened_and_read_by_other_programs() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in KINDS.into_iter().chain([Kind::Stream]) {
            for capacity in [1, 7, 127, 128, 129, 2048, 65_536, 65_537, 70_001] {
                let folder = scratch::folder();
                let path = folder.path().join("my d.vmdk");
                let (result, seen) = connection.create_watched(&path, Spec::new(kind, capacity));
                assert_eq!(result, code::OK, "{kind:?} of {capacity}: {}", vix::log_text());
                assert_eq!(seen.last(), Some(&100), "{seen:?}");
                let samples = write_samples(&connection, &path, capacity);
                let disk = connection.must_open(&path, flags::READ_ONLY);
                assert_eq!(disk.info().capacity, capacity, "{kind:?}");
                let model = model_of(capacity, &samples);
                assert!(disk.must_read(0, capacity) == model, "{kind:?} of {capacity}");
                readers_agree(&path, folder.path(), &model);
            }
        }
    });
}

#[test]
fn children_of_every_kind_are_read_by_other_programs() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for parent_kind in KINDS {
            for (child_kind, capacity) in [(Kind::Sparse, 129), (Kind::SplitSparse, 70_001)] {
                let folder = scratch::folder();
                let (parent, child) = (folder.path().join("d.vmdk"), folder.path().join("c.vmdk"));
                connection.must_create(&parent, Spec::new(parent_kind, capacity));
                let mut samples = write_samples(&connection, &parent, capacity);
                let disk = connection.must_open(&parent, flags::READ_ONLY);
                assert_eq!(disk.create_child(&child, child_kind).0, code::OK, "{}", vix::log_text());
                assert_eq!(disk.close(), code::OK);
                let disk = connection.must_open(&child, flags::READ_WRITE);
                samples.push((1, stamps(1, 3, 4)));
                samples.push((capacity / 3, stamps(capacity / 3, 1, 5)));
                for (start, data) in &samples[samples.len() - 2..] {
                    disk.must_write(*start, data);
                }
                assert_eq!(disk.close(), code::OK);
                readers_agree(&child, folder.path(), &model_of(capacity, &samples));
            }
        }
    });
}

/// A disk with a border between two pieces: 2 GiB, so the content to compare with is a file with holes.
#[test]
fn disks_of_several_pieces_are_read_by_other_programs() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::SplitSparse, Kind::SplitFlat] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            let capacity = PIECE + 77;
            if kind == Kind::SplitFlat && process::free_space(folder.path()) < 4 << 30 {
                scratch::note("a split flat disk of 2 GiB: not enough space");
                continue;
            }
            connection.must_create(&path, Spec::new(kind, capacity));
            let raw = std::fs::File::create(folder.path().join("model.raw")).expect("a file");
            raw.set_len(capacity * 512).expect("its length");
            for (start, data) in write_samples(&connection, &path, capacity) {
                raw.write_all_at(&data, start * 512).expect("a sample");
            }
            for reader in READERS {
                let opinion = reader.compare(&path, &folder.path().join("model.raw"));
                assert_eq!(opinion, Ok(()), "{kind:?}, {reader:?}");
            }
        }
    });
}

#[test]
fn a_reader_that_finds_something_else_says_so() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let (path, raw) = (folder.path().join("d.vmdk"), folder.path().join("model.raw"));
        connection.must_create(&path, Spec::new(Kind::Sparse, 300));
        let model = model_of(300, &write_samples(&connection, &path, 300));
        for reader in READERS {
            std::fs::write(&raw, &model).expect("the content");
            assert_eq!(reader.compare(&path, &raw), Ok(()), "{reader:?}");
            if reader.is_here() {
                for (what, changed) in [
                    (
                        "another byte",
                        model.iter().enumerate().map(|(i, b)| b ^ u8::from(i == 200 * 512)).collect(),
                    ),
                    ("more", [&model[..], &[1; 512]].concat()),
                    ("less", model[..299 * 512].to_vec()),
                ] {
                    let changed: Vec<u8> = changed;
                    std::fs::write(&raw, changed).expect("other content");
                    assert!(reader.compare(&path, &raw).is_err(), "{reader:?}, {what}");
                }
            }
        }
    });
}

#[test]
fn each_kind_has_its_files_and_its_words() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let flat = &["my d-flat.vmdk", "my d.vmdk"][..];
        for (kind, files, words, line) in [
            (Kind::Sparse, &["my d.vmdk"][..], "monolithicSparse", r#"RW 9000 SPARSE "my d.vmdk""#),
            (Kind::Flat, flat, "monolithicFlat", r#"RW 9000 FLAT "my d-flat.vmdk" 0"#),
            (
                Kind::SplitSparse,
                &["my d-s001.vmdk", "my d.vmdk"],
                "twoGbMaxExtentSparse",
                r#"RW 9000 SPARSE "my d-s001.vmdk""#,
            ),
            (
                Kind::SplitFlat,
                &["my d-f001.vmdk", "my d.vmdk"],
                "twoGbMaxExtentFlat",
                r#"RW 9000 FLAT "my d-f001.vmdk" 0"#,
            ),
            (Kind::VmfsFlat, flat, "vmfs", r#"RW 9000 VMFS "my d-flat.vmdk""#),
            (Kind::VmfsThin, flat, "vmfs", r#"RW 9000 VMFS "my d-flat.vmdk""#),
        ] {
            let folder = scratch::folder();
            let path = folder.path().join("my d.vmdk");
            connection.must_create(&path, Spec { hw_version: 13, ..Spec::new(kind, 9000) });
            assert_eq!(names(folder.path()), files, "{kind:?}");
            let text = text_of(&path);
            assert!(text.contains(&format!("createType=\"{words}\"\n")), "{kind:?}: {text}");
            assert!(text.contains(&format!("\n{line}\n")), "{kind:?}: {text}");
            let thin = text.contains("ddb.thinProvisioned = \"1\"");
            assert_eq!(thin, kind == Kind::VmfsThin, "{kind:?}: {text}");
            for key in
                ["adapterType", "encoding", "geometry.cylinders", "longContentID", "uuid", "toolsVersion"]
            {
                assert!(text.contains(&format!("ddb.{key} = ")), "{kind:?} lacks {key}: {text}");
            }
            assert!(text.contains("ddb.virtualHWVersion = \"13\""), "{kind:?}: {text}");
            assert!(text.contains("CID=fffffffe\nparentCID=ffffffff\n"), "{kind:?}: {text}");
            let data = folder.path().join(files[0]);
            let preallocated = matches!(kind, Kind::Flat | Kind::SplitFlat | Kind::VmfsFlat);
            assert_eq!(taken(&data) >= 9000 * 512, preallocated, "{kind:?}: {} bytes", taken(&data));
        }
    });
}

#[test]
fn disks_larger_than_a_piece_are_split_at_2047_mib() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for (kind, letter) in [(Kind::SplitSparse, 's'), (Kind::SplitFlat, 'f')] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            let capacity = 2 * PIECE + 5;
            if kind == Kind::SplitFlat && process::free_space(folder.path()) < 8 << 30 {
                scratch::note("a split flat disk of 4 GiB: not enough space");
                continue;
            }
            connection.must_create(&path, Spec::new(kind, capacity));
            let files: Vec<String> = (1..=3).map(|n| format!("d-{letter}00{n}.vmdk")).collect();
            assert_eq!(names(folder.path())[..3], files[..], "{kind:?}");
            let samples = write_samples(&connection, &path, capacity);
            let disk = connection.must_open(&path, flags::READ_ONLY);
            for (start, data) in samples {
                let count = (data.len() / 512) as u64;
                assert_eq!(disk.must_read(start, count), data, "{kind:?} at {start}");
            }
            assert!(is_zero(&disk.must_read(PIECE + 10, 100)));
            let mut info = Command::new("qemu-img");
            let told = tools::check(info.args(["info", "--output=json"]).arg(&path)).out();
            assert!(told.contains(&format!("\"virtual-size\": {}", capacity * 512)), "{told}");
        }
    });
}

/// A program that restores disks makes those above 2 TiB of pieces, and processes may have 1024 files open.
#[test]
fn the_largest_split_disk_can_be_opened() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        let most = 62 << 31;
        assert_eq!(connection.create(&path, Spec::new(Kind::SplitSparse, most + 1)), code::INVALID_ARG);
        connection.must_create(&path, Spec::new(Kind::SplitSparse, most));
        let disk = connection.must_open(&path, flags::READ_WRITE);
        disk.must_write(most - 1, &stamps(most - 1, 1, 1));
        disk.must_write(most / 2, &stamps(most / 2, 1, 1));
        assert_eq!(disk.close(), code::OK);
        let disk = connection.must_open(&path, flags::READ_ONLY);
        assert_eq!(disk.must_read(most - 1, 1), stamps(most - 1, 1, 1));
        let sparse = connection.create(&folder.path().join("m.vmdk"), Spec::new(Kind::Sparse, most));
        assert_eq!(sparse, code::FILE_TOO_BIG, "one sparse file addresses 2 TiB");
        assert!(!folder.path().join("m.vmdk").exists());
    });
}

#[test]
fn kinds_that_cannot_be_laid_out_are_refused_and_leave_nothing() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        assert_eq!(connection.create(&path, Spec::new(Kind::VmfsSparse, 4096)), code::NOT_SUPPORTED);
        assert_eq!(names(folder.path()), [] as [&str; 0]);
    });
}

#[test]
fn an_existing_extent_is_not_overwritten() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for (kind, existing) in [
            (Kind::SplitSparse, "d-s001.vmdk"),
            (Kind::SplitFlat, "d-f001.vmdk"),
            (Kind::VmfsThin, "d-flat.vmdk"),
            (Kind::VmfsFlat, "d.vmdk"),
        ] {
            let folder = scratch::folder();
            std::fs::write(folder.path().join(existing), b"precious").expect("a file");
            let result = connection.create(&folder.path().join("d.vmdk"), Spec::new(kind, 4096));
            assert_eq!(result, code::ALREADY_EXISTS, "{kind:?}, {existing}");
            assert_eq!(std::fs::read(folder.path().join(existing)).expect("the file"), b"precious");
            assert_eq!(names(folder.path()), [existing], "{kind:?}: nothing else is left");
        }
    });
}

#[test]
fn odd_names_work_and_impossible_ones_are_refused() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in KINDS {
            for name in ["a b.vmdk", "50%.vmdk", "é盘.vmdk", "no ending", "it's #1=x.vmdk", "D.VMDK"] {
                let folder = scratch::folder();
                let path = folder.path().join(name);
                connection.must_create(&path, Spec::new(kind, 300));
                write_samples(&connection, &path, 300);
                let disk = connection.must_open(&path, flags::READ_ONLY);
                assert_eq!(disk.must_read(0, 2), stamps(0, 2, 3), "{kind:?} {name}");
            }
            let longest = match kind {
                Kind::Sparse => 251,
                Kind::SplitSparse | Kind::SplitFlat => 250,
                _ => 250,
            };
            for (len, expected) in
                [(longest, code::OK), (longest + 1, code::NAME_TOO_LONG), (255, code::NAME_TOO_LONG)]
            {
                let folder = scratch::folder();
                let path = folder.path().join(format!("{}.vmdk", "n".repeat(len - 5)));
                let result = connection.create(&path, Spec::new(kind, 300));
                assert_eq!(result, expected, "{kind:?}, {len} bytes: {}", vix::log_text());
                if result == code::OK {
                    write_samples(&connection, &path, 300);
                } else {
                    assert_eq!(names(folder.path()), [] as [&str; 0]);
                }
            }
            let folder = scratch::folder();
            let quoted = folder.path().join("a\"b.vmdk");
            assert_eq!(connection.create(&quoted, Spec::new(kind, 300)), code::NAME_INVALID);
            assert_eq!(names(folder.path()), [] as [&str; 0]);
        }
    });
}

#[test]
fn sector_sizes_and_adapters_are_kept() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in KINDS {
            for (asked, told) in
                [((0, 0), (512, 512)), ((512, 4096), (512, 4096)), ((4096, 4096), (4096, 4096))]
            {
                for adapter in [adapter::IDE, adapter::LSILOGIC] {
                    let folder = scratch::folder();
                    let path = folder.path().join("d.vmdk");
                    let spec = Spec { sector_sizes: asked, adapter, ..Spec::new(kind, 4096) };
                    connection.must_create(&path, spec);
                    let info = connection.must_open(&path, flags::READ_ONLY).info();
                    assert_eq!((info.sector_sizes, info.adapter), (told, adapter), "{kind:?}");
                }
            }
        }
    });
}

#[test]
fn a_folder_that_cannot_be_written_to_gives_an_error_and_stays_empty() {
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let place: PathBuf = folder.path().join("sub");
        std::fs::create_dir(&place).expect("a folder");
        process::drop_privileges();
        for kind in KINDS {
            let result = connection.create(&place.join("d.vmdk"), Spec::new(kind, 300));
            assert_eq!(result, code::ACCESS_ERROR, "{kind:?}");
        }
        assert_eq!(names(&place), [] as [&str; 0]);
    });
}

#[test]
fn a_full_file_system_leaves_nothing() {
    in_child(|| {
        let folder = scratch::folder();
        let place = folder.path().join("small");
        std::fs::create_dir(&place).expect("a folder");
        if let Err(reason) = process::mount_small(&place, 1 << 20) {
            return scratch::note(&reason);
        }
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::Flat, Kind::SplitFlat, Kind::VmfsFlat] {
            let result = connection.create(&place.join("d.vmdk"), Spec::new(kind, 1 << 20));
            assert_eq!(result, code::DISK_FULL, "{kind:?}: {}", vix::log_text());
            assert_eq!(names(&place), [] as [&str; 0], "{kind:?}");
        }
        connection.must_create(&place.join("d.vmdk"), Spec::new(Kind::VmfsThin, 1 << 20));
    });
}

/// Killed at any moment while it makes and deletes a disk, a program leaves a whole disk or nothing that looks like one.
#[test]
fn a_killed_creation_or_deletion_leaves_no_half_disk() {
    const NAME: &str = "a_killed_creation_or_deletion_leaves_no_half_disk";
    if child::is_child(NAME) {
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = PathBuf::from(std::env::var_os("VIX_TEST_FOLDER").expect("the folder"));
        for n in 0.. {
            let kind = KINDS[n % KINDS.len()];
            let path = folder.join(format!("{n}.vmdk"));
            connection.must_create(&path, Spec::new(kind, 3000));
            assert_eq!(connection.unlink(&path), code::OK, "{}", vix::log_text());
        }
    }
    let mut rng = Rng::new(3);
    let connection = Vix::started().connect(false).expect("a connection");
    for round in 0..24 {
        let folder = scratch::folder();
        let mut process = child::command(NAME)
            .env("VIX_TEST_FOLDER", folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("a child");
        std::thread::sleep(Duration::from_millis(60) + Duration::from_micros(rng.below(60_000)));
        process.kill().expect("killing the child");
        process.wait().expect("the end of the child");
        let left = names(folder.path());
        assert!(left.len() <= 3, "round {round}: one disk at most: {left:?}");
        for name in left.iter().filter(|name| name.ends_with(".lck")) {
            let _ = std::fs::remove_dir_all(folder.path().join(name));
        }
        let disks = left.iter().filter(|name| name.ends_with(".vmdk") && !name.contains('-'));
        for name in disks {
            let disk = connection.must_open(&folder.path().join(name), flags::READ_WRITE);
            assert!(is_zero(&disk.must_read(0, 3000)), "round {round}: {name}");
        }
    }
}
