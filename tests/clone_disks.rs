//! Copies of disks: every source that can be read to every kind that can be made, and what happens when it goes wrong.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

#[macro_use]
mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use common::child::in_child;
use common::images::Images;
use common::process;
use common::readers::readers_agree;
use common::scratch;
use common::tools;
use sha2::Digest;
use sha2::Sha256;
use vixDiskLib::config::Config;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::logging::Log;
use vixDiskLib::session::Adapter;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Connection;
use vixDiskLib::session::CopySpec;
use vixDiskLib::session::CreateSpec;
use vixDiskLib::session::DiskType;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::units::Sectors;

const KINDS: [DiskType; 8] = [
    DiskType::MonolithicSparse,
    DiskType::MonolithicFlat,
    DiskType::SplitSparse,
    DiskType::SplitFlat,
    DiskType::VmfsFlat,
    DiskType::StreamOptimized,
    DiskType::VmfsThin,
    DiskType::VmfsSparse,
];

fn connect() -> (Arc<Library>, Arc<Connection>) {
    let library = Library::new(Log::none(), Config::default());
    let connection = library.connect(ConnectParams::default(), false, None, None).unwrap();
    (library, connection)
}

fn copy_spec(disk_type: DiskType) -> CopySpec {
    CopySpec { disk_type, adapter: Adapter::LsiLogic, hardware_version: 14 }
}

fn create(connection: &Connection, path: &Path, disk_type: DiskType, sectors: u64) -> Result<(), ErrorKind> {
    let spec = CreateSpec {
        disk_type,
        adapter: Adapter::LsiLogic,
        hardware_version: 11,
        capacity: Sectors(sectors),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    connection.create(path, &spec, &mut |_| ()).map_err(|e| e.kind())
}

/// The kinds that this build makes.
fn creatable(connection: &Connection) -> Vec<DiskType> {
    let folder = scratch::folder();
    let made = |kind: &DiskType| {
        let result = create(connection, &folder.path().join(format!("{kind:?}.vmdk")), *kind, 2048);
        assert!(matches!(result, Ok(()) | Err(ErrorKind::NotSupported)), "{kind:?}: {result:?}");
        result.is_ok()
    };
    let kinds: Vec<DiskType> = KINDS.into_iter().filter(made).collect();
    assert!(kinds.len() >= 3, "{kinds:?}");
    kinds
}

/// Half noise, half blanks; never a sector of zeros.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut all = Vec::with_capacity(len + 8);
    while all.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        all.extend_from_slice(&(x as u32 | 1).to_le_bytes());
        all.extend_from_slice(&0x2020_2020u32.to_le_bytes());
    }
    all.truncate(len);
    all
}

fn content(connection: &Arc<Connection>, path: &Path) -> Vec<u8> {
    let disk = connection.open(path, OpenFlags::READ_ONLY).unwrap();
    let mut all = vec![0xa5; disk.info().unwrap().capacity.0 as usize * 512];
    disk.read(Sectors(0), &mut all).unwrap();
    disk.close().unwrap();
    all
}

fn copy(
    connection: &Arc<Connection>,
    to: &Path,
    from: &Path,
    spec: Option<CopySpec>,
    overwrite: bool,
) -> Result<(), ErrorKind> {
    let mut seen = Vec::new();
    let result = connection
        .copy_disk(to, connection, from, spec.as_ref(), overwrite, &mut |percent| seen.push(percent));
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "progress ascends: {seen:?}");
    assert_eq!(seen.last() == Some(&100), result.is_ok(), "100 means success: {seen:?}");
    result.map_err(|e| e.kind())
}

fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

/// Bytes that the files of a disk take: their lengths in whole blocks, of thin ones what is not a hole.
fn used(folder: &Path, kind: DiskType) -> u64 {
    let size = |meta: fs::Metadata| match kind {
        DiskType::VmfsThin => meta.blocks() * 512,
        _ => meta.len().next_multiple_of(4096),
    };
    fs::read_dir(folder).unwrap().map(|entry| size(entry.unwrap().metadata().unwrap())).sum()
}

/// A disk with data, grains of zeros that are stored, holes, and a short end.
fn sample(connection: &Arc<Connection>, path: &Path, kind: DiskType, sectors: u64) -> Vec<u8> {
    create(connection, path, kind, sectors).unwrap();
    let disk = connection.open(path, OpenFlags::empty()).unwrap();
    let mut all = vec![0; sectors as usize * 512];
    let mut at = 0;
    for (i, step) in (0u64..).zip([128u64, 3, 300, 2048, 77, 1000].iter().cycle()) {
        let len = (*step).min(sectors - at);
        if len == 0 {
            break;
        }
        let range = at as usize * 512..(at + len) as usize * 512;
        if i % 3 == 0 {
            all[range.clone()].copy_from_slice(&noise(i + 1, len as usize * 512));
        }
        if i % 3 == 0 || i % 4 != 1 {
            disk.write(Sectors(at), &all[range]).unwrap();
        }
        at += len;
    }
    if kind != DiskType::StreamOptimized {
        // Data that turns into stored zeros.
        let zeros = 512..sectors.min(512 + 256);
        if zeros.start < zeros.end {
            let range = zeros.start as usize * 512..zeros.end as usize * 512;
            disk.write(Sectors(zeros.start), &noise(9, range.len())).unwrap();
            disk.write(Sectors(zeros.start), &vec![0; range.len()]).unwrap();
            all[range].fill(0);
        }
    }
    disk.close().unwrap();
    all
}

#[test]
fn every_golden_image_can_be_copied_to_every_kind() {
    requires!("qemu-img", "zstd");
    let (_library, connection) = connect();
    let kinds = creatable(&connection);
    let images = Images::find();
    let mut copied = 0;
    for golden in images.golden().into_iter().filter(|golden| golden.size <= 64 << 20) {
        let source = images.unpack(&golden.path);
        for kind in &kinds {
            let folder = scratch::folder();
            let target = folder.path().join("copy of.vmdk");
            let needed = {
                let disk = connection.open(&source.path(), OpenFlags::READ_ONLY).unwrap();
                disk.space_for_copy(Some(*kind)).unwrap()
            };
            copy(&connection, &target, &source.path(), Some(copy_spec(*kind)), false)
                .unwrap_or_else(|e| panic!("{} to {kind:?}: {e:?}", golden.path));
            let takes = used(folder.path(), *kind);
            assert!(takes <= needed, "{} to {kind:?}: {takes} bytes, promised {needed}", golden.path);
            let all = content(&connection, &target);
            assert_eq!(format!("{:x}", Sha256::digest(&all)), golden.sha256, "{} to {kind:?}", golden.path);
            if golden.size <= 6 << 20 {
                readers_agree(&target, folder.path(), &all);
            }
            copied += 1;
        }
    }
    assert!(copied >= 15 * kinds.len(), "{copied}");
}

#[test]
fn every_kind_can_be_copied_to_every_kind() {
    requires!("qemu-img");
    let (_library, connection) = connect();
    let kinds = creatable(&connection);
    for sectors in [1, 129, 8191, 70_001] {
        for from in &kinds {
            let folder = scratch::folder();
            let source = folder.path().join("source.vmdk");
            let expected = sample(&connection, &source, *from, sectors);
            for to in &kinds {
                let place = scratch::folder();
                let target = place.path().join("t.vmdk");
                let story = format!("{sectors} sectors, {from:?} to {to:?}");
                let disk = connection.open(&source, OpenFlags::READ_ONLY).unwrap();
                let needed = disk.space_for_copy(Some(*to)).unwrap();
                disk.close().unwrap();
                copy(&connection, &target, &source, Some(copy_spec(*to)), false).unwrap();
                let takes = used(place.path(), *to);
                assert!(takes <= needed, "{story}: takes {takes}, promised {needed}");
                let slack = needed / 50 + if *to == DiskType::VmfsThin { 5 * 4096 } else { 2 * 4096 };
                // Blocks that are shared with the source have the holes that it has inside its grains.
                let may_share = *to == DiskType::VmfsThin && process::can_share_blocks(place.path());
                assert!(needed <= takes + slack || may_share, "{story}: takes {takes}, promised {needed}");
                assert!(content(&connection, &target) == expected, "{story}");
                if sectors > 128 && sectors != 8191 {
                    readers_agree(&target, place.path(), &expected);
                }
                assert_eq!(
                    fs::read_dir(place.path())
                        .unwrap()
                        .filter(|e| e.as_ref().unwrap().path().is_dir())
                        .count(),
                    0
                );
            }
        }
    }
}

#[test]
fn the_kind_of_the_source_is_the_default_for_space_and_one_growing_file_for_copies() {
    let (_library, connection) = connect();
    for kind in creatable(&connection) {
        let folder = scratch::folder();
        let source = folder.path().join("s.vmdk");
        sample(&connection, &source, kind, 5000);
        let disk = connection.open(&source, OpenFlags::READ_ONLY).unwrap();
        assert_eq!(disk.space_for_copy(None).unwrap(), disk.space_for_copy(Some(kind)).unwrap(), "{kind:?}");
        disk.close().unwrap();
        copy(&connection, &folder.path().join("t.vmdk"), &source, None, false).unwrap();
        assert_eq!(fs::read(folder.path().join("t.vmdk")).unwrap()[..4], *b"KDMV");
        assert_eq!(names(folder.path()).iter().filter(|name| name.starts_with('t')).count(), 1);
    }
}

#[test]
fn zeros_take_no_space_in_a_copy() {
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let source = folder.path().join("s.vmdk");
    create(&connection, &source, DiskType::MonolithicFlat, 40_000).unwrap();
    let disk = connection.open(&source, OpenFlags::empty()).unwrap();
    disk.write(Sectors(0), &vec![0; 40_000 * 512]).unwrap();
    disk.write(Sectors(12_800), &noise(1, 512)).unwrap();
    disk.close().unwrap();
    let target = folder.path().join("t.vmdk");
    copy(&connection, &target, &source, None, false).unwrap();
    let copy = connection.open(&target, OpenFlags::READ_ONLY).unwrap();
    let blocks = copy.allocated_blocks(Sectors(0), Sectors(40_000), Sectors(128)).unwrap();
    assert_eq!(blocks, [(12_800, 128)]);
}

#[test]
fn a_copy_is_a_disk_of_its_own_that_keeps_what_belongs_to_the_content() {
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let source = folder.path().join("s.vmdk");
    sample(&connection, &source, DiskType::MonolithicSparse, 5000);
    let disk = connection.open(&source, OpenFlags::empty()).unwrap();
    for (key, value) in [
        ("geometry.cylinders", "17"),
        ("geometry.biosHeads", "3"),
        ("toolsVersion", "10272"),
        ("comment", "größe"),
        ("foreign", "x"),
    ] {
        disk.set_metadata(key, value).unwrap();
    }
    disk.close().unwrap();
    let target = folder.path().join("t.vmdk");
    copy(&connection, &target, &source, None, false).unwrap();
    let (old, new) =
        [&source, &target].map(|path| connection.open(path, OpenFlags::READ_ONLY).unwrap()).into();
    for key in [
        "geometry.cylinders",
        "geometry.biosHeads",
        "toolsVersion",
        "comment",
        "virtualHWVersion",
        "adapterType",
    ] {
        assert_eq!(new.metadata(key).unwrap(), old.metadata(key).unwrap(), "{key}");
    }
    for key in ["uuid", "longContentID"] {
        assert_ne!(new.metadata(key).unwrap(), old.metadata(key).unwrap(), "{key}");
    }
    assert_eq!(new.metadata("foreign").unwrap_err().kind(), ErrorKind::KeyNotFound);
    // Another adapter counts otherwise.
    let ide = folder.path().join("ide.vmdk");
    let spec = CopySpec { adapter: Adapter::Ide, ..copy_spec(DiskType::MonolithicFlat) };
    copy(&connection, &ide, &source, Some(spec), false).unwrap();
    let ide = connection.open(&ide, OpenFlags::READ_ONLY).unwrap();
    assert_eq!(
        (ide.metadata("geometry.cylinders").unwrap(), ide.metadata("geometry.heads").unwrap()),
        ("4".into(), "16".into())
    );
    assert_eq!(ide.metadata("virtualHWVersion").unwrap(), "14");
}

/// Everything in a folder, to see whether it changed.
fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    names(folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

#[test]
fn an_existing_target_is_replaced_only_when_that_was_asked_for() {
    let (_library, connection) = connect();
    for old in creatable(&connection) {
        for new in creatable(&connection) {
            let (from, to) = (scratch::folder(), scratch::folder());
            let (source, target) = (from.path().join("s.vmdk"), to.path().join("t.vmdk"));
            let expected = sample(&connection, &source, DiskType::MonolithicSparse, 3000);
            sample(&connection, &target, old, 70_000);
            fs::write(to.path().join("t-notes.txt"), b"not ours").unwrap();
            let before = snapshot(to.path());
            let spec = Some(copy_spec(new));
            assert_eq!(copy(&connection, &target, &source, spec, false), Err(ErrorKind::AlreadyExists));
            assert!(snapshot(to.path()) == before, "untouched");
            copy(&connection, &target, &source, spec, true).unwrap();
            assert!(content(&connection, &target) == expected, "{old:?} replaced by {new:?}");
            let files = names(to.path());
            let extents = match new {
                DiskType::MonolithicSparse | DiskType::StreamOptimized => 0,
                _ => 1,
            };
            assert_eq!(files.len(), 2 + extents, "{old:?} replaced by {new:?}: {files:?}");
            assert!(files.contains(&"t-notes.txt".to_owned()));
            let numbered = |name: &String| name.starts_with("t-1");
            assert!(!files.iter().any(numbered), "{old:?} replaced by {new:?}: {files:?}");
            // And again: the names of the extents of the one before are in use.
            copy(&connection, &target, &source, spec, true).unwrap();
            assert!(content(&connection, &target) == expected);
            assert_eq!(names(to.path()), files);
        }
    }
}

#[test]
fn a_file_that_is_no_disk_or_has_an_extents_name_is_handled_with_care() {
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let source = folder.path().join("s.vmdk");
    let expected = sample(&connection, &source, DiskType::MonolithicFlat, 3000);
    let flat = Some(copy_spec(DiskType::MonolithicFlat));
    fs::write(folder.path().join("t-flat.vmdk"), b"precious").unwrap();
    let before = snapshot(folder.path());
    let target = folder.path().join("t.vmdk");
    assert_eq!(copy(&connection, &target, &source, flat, false), Err(ErrorKind::AlreadyExists));
    assert_eq!(copy(&connection, &target, &source, flat, true), Err(ErrorKind::AlreadyExists));
    assert!(snapshot(folder.path()) == before);
    let text = folder.path().join("text.vmdk");
    fs::write(&text, b"some text").unwrap();
    copy(&connection, &text, &source, None, true).unwrap();
    assert!(content(&connection, &text) == expected);
    assert_eq!(copy(&connection, folder.path(), &source, None, true), Err(ErrorKind::NotAFile));
    assert_eq!(
        copy(&connection, &folder.path().join("no/t.vmdk"), &source, None, true),
        Err(ErrorKind::NotFound)
    );
    assert_eq!(
        copy(&connection, &target, &folder.path().join("none.vmdk"), None, true),
        Err(ErrorKind::NotFound)
    );
}

#[test]
fn the_source_cannot_be_its_own_target() {
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let source = folder.path().join("s.vmdk");
    sample(&connection, &source, DiskType::MonolithicFlat, 3000);
    std::os::unix::fs::symlink("s.vmdk", folder.path().join("link.vmdk")).unwrap();
    fs::hard_link(&source, folder.path().join("hard.vmdk")).unwrap();
    fs::hard_link(folder.path().join("s-flat.vmdk"), folder.path().join("hard-flat.vmdk")).unwrap();
    let elsewhere = scratch::folder();
    std::os::unix::fs::symlink(folder.path(), elsewhere.path().join("vm")).unwrap();
    fs::hard_link(&source, elsewhere.path().join("far.vmdk")).unwrap();
    let before = snapshot(folder.path());
    let here = |name: &str| folder.path().join(name);
    let up_and_down = here("..").join(folder.path().file_name().unwrap()).join("s.vmdk");
    let mut targets: Vec<PathBuf> =
        ["s.vmdk", "s-flat.vmdk", "link.vmdk", "hard.vmdk", "hard-flat.vmdk", "./s.vmdk", ".//./link.vmdk"]
            .map(here)
            .into();
    targets.extend([up_and_down, elsewhere.path().join("vm/s.vmdk"), elsewhere.path().join("far.vmdk")]);
    for target in targets {
        let result = copy(&connection, &target, &source, None, true);
        assert_eq!(result, Err(ErrorKind::InvalidArgument), "{}", target.display());
        assert_eq!(copy(&connection, &target, &source, None, false), Err(ErrorKind::AlreadyExists));
    }
    assert!(snapshot(folder.path()) == before);
}

/// What is made anew may stand in any relation to the source; the source stays what it is.
#[test]
fn relatives_of_the_source_can_be_replaced() {
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let [source, child, twin] = ["s.vmdk", "c.vmdk", "twin.vmdk"].map(|name| folder.path().join(name));
    let expected = sample(&connection, &source, DiskType::MonolithicFlat, 3000);
    let disk = connection.open(&source, OpenFlags::READ_ONLY).unwrap();
    disk.create_child(&child, DiskType::MonolithicSparse, &mut |_| ()).unwrap();
    disk.close().unwrap();
    let before = fs::read(folder.path().join("s-flat.vmdk")).unwrap();
    // Its child, and a disk that claims the source's own extent.
    copy(&connection, &child, &source, None, true).unwrap();
    fs::copy(&source, &twin).unwrap();
    copy(&connection, &twin, &source, Some(copy_spec(DiskType::MonolithicFlat)), true).unwrap();
    for path in [&source, &child, &twin] {
        assert!(content(&connection, path) == expected, "{}", path.display());
        let disk = connection.open(path, OpenFlags::READ_ONLY).unwrap();
        assert_eq!(disk.info().unwrap().links, 1);
    }
    assert!(fs::read(folder.path().join("s-flat.vmdk")).unwrap() == before);
    assert_eq!(names(folder.path()), ["c.vmdk", "s-flat.vmdk", "s.vmdk", "twin-flat.vmdk", "twin.vmdk"]);
}

#[test]
fn a_target_that_is_being_written_is_left_alone() {
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let (source, target) = (folder.path().join("s.vmdk"), folder.path().join("t.vmdk"));
    sample(&connection, &source, DiskType::MonolithicSparse, 3000);
    let expected = sample(&connection, &target, DiskType::MonolithicSparse, 1000);
    let open = connection.open(&target, OpenFlags::empty()).unwrap();
    assert_eq!(copy(&connection, &target, &source, None, true), Err(ErrorKind::Locked));
    open.close().unwrap();
    assert!(content(&connection, &target) == expected);
    assert_eq!(names(folder.path()), ["s.vmdk", "t.vmdk"]);
}

/// A chain becomes one link; the copy of a damaged chain does not appear.
#[test]
fn a_chain_is_copied_as_one_disk() {
    requires!("qemu-img");
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let base = folder.path().join("base.vmdk");
    let mut expected = sample(&connection, &base, DiskType::MonolithicSparse, 10_000);
    let mut parent = base.clone();
    for i in 0..3u64 {
        let child = folder.path().join(format!("child-{i}.vmdk"));
        tools::check(
            tools::qemu_img(["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b"]).arg(&parent).arg(&child),
        );
        let disk = connection.open(&child, OpenFlags::empty()).unwrap();
        for at in [i * 700, 5000 + i * 128] {
            let data = noise(100 + at, 300 * 512);
            disk.write(Sectors(at), &data).unwrap();
            expected[at as usize * 512..][..data.len()].copy_from_slice(&data);
        }
        let zeros = 8000 + i * 500;
        disk.write(Sectors(zeros), &vec![0; 400 * 512]).unwrap();
        expected[zeros as usize * 512..][..400 * 512].fill(0);
        disk.close().unwrap();
        parent = child;
    }
    let all = content(&connection, &parent);
    let differs = (0..10_000).find(|s| all[s * 512..][..512] != expected[s * 512..][..512]);
    assert_eq!(differs, None, "the chain itself");
    for kind in creatable(&connection) {
        let place = scratch::folder();
        let target = place.path().join("t.vmdk");
        copy(&connection, &target, &parent, Some(copy_spec(kind)), false).unwrap();
        let disk = connection.open(&target, OpenFlags::READ_ONLY).unwrap();
        assert_eq!((disk.info().unwrap().links, disk.info().unwrap().parent_hint), (1, None));
        disk.close().unwrap();
        assert!(content(&connection, &target) == expected, "{kind:?}");
        readers_agree(&target, place.path(), &expected);
    }
    // No link of the chain can be the target either.
    assert_eq!(copy(&connection, &base, &parent, None, true), Err(ErrorKind::InvalidArgument));
    // A source that cannot be read to its end leaves nothing behind.
    fs::write(&base, b"KDMV").unwrap();
    let place = scratch::folder();
    assert!(copy(&connection, &place.path().join("t.vmdk"), &parent, None, false).is_err());
    assert_eq!(names(place.path()), [] as [&str; 0]);
}

#[test]
fn a_source_that_ends_too_early_leaves_no_copy() {
    let (_library, connection) = connect();
    let folder = scratch::folder();
    let source = folder.path().join("s.vmdk");
    sample(&connection, &source, DiskType::MonolithicSparse, 70_000);
    let len = fs::metadata(&source).unwrap().len();
    fs::File::options().write(true).open(&source).unwrap().set_len(len - 200_000).unwrap();
    for kind in creatable(&connection) {
        let place = scratch::folder();
        let result = copy(&connection, &place.path().join("t.vmdk"), &source, Some(copy_spec(kind)), false);
        assert_eq!(result, Err(ErrorKind::Corrupt), "{kind:?}");
        assert_eq!(names(place.path()), [] as [&str; 0]);
    }
}

#[test]
fn a_full_file_system_leaves_the_folder_as_it_was() {
    requires!("mount");
    in_child(full_file_system);
}

fn full_file_system() {
    let folder = scratch::folder();
    if let Err(reason) = process::mount_small(folder.path(), 8 << 20) {
        return scratch::note(&format!("a small file system cannot be mounted here: {reason}"));
    }
    let elsewhere = scratch::folder();
    let (_library, connection) = connect();
    let source = elsewhere.path().join("s.vmdk");
    create(&connection, &source, DiskType::MonolithicSparse, 40_000).unwrap();
    let disk = connection.open(&source, OpenFlags::empty()).unwrap();
    let incompressible: Vec<u8> = (0..40_000 * 64)
        .flat_map(|i: u64| {
            (i + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                .to_le_bytes()
        })
        .collect();
    disk.write(Sectors(0), &incompressible).unwrap();
    disk.close().unwrap();
    let target = folder.path().join("t.vmdk");
    let old = sample(&connection, &target, DiskType::MonolithicSparse, 1000);
    let before = snapshot(folder.path());
    for kind in creatable(&connection) {
        for (target, overwrite) in [(folder.path().join("new.vmdk"), false), (target.clone(), true)] {
            let result = copy(&connection, &target, &source, Some(copy_spec(kind)), overwrite);
            assert_eq!(result, Err(ErrorKind::DiskFull), "{kind:?}");
            assert!(snapshot(folder.path()) == before, "{kind:?}: {:?}", names(folder.path()));
        }
    }
    assert!(content(&connection, &target) == old);
}

#[test]
fn a_folder_without_write_permission_is_an_error() {
    if !process::is_root() {
        return scratch::note("needs a change of user");
    }
    in_child(|| {
        let (from, to): (tempfile::TempDir, PathBuf) = (scratch::folder(), PathBuf::from("/vix-nowhere"));
        let source = from.path().join("s.vmdk");
        let (_library, connection) = connect();
        sample(&connection, &source, DiskType::MonolithicSparse, 1000);
        process::drop_privileges();
        assert_eq!(
            copy(&connection, &from.path().join("t.vmdk"), &source, None, false),
            Err(ErrorKind::AccessDenied)
        );
        assert_eq!(names(from.path()), ["s.vmdk"]);
        assert_eq!(copy(&connection, &to.join("t.vmdk"), &source, None, false), Err(ErrorKind::NotFound));
    });
}
