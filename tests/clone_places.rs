//! Copies on file systems of other kinds: some let files share their blocks, on some a file has one name, or a name has
//! many spellings.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::child::in_child;
use common::process;
use common::scratch;
use common::scratch::names;
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

/// Ends inside a grain and inside a block.
const SECTORS: u64 = 70_001;
const KINDS: [DiskType; 7] = [
    DiskType::MonolithicSparse,
    DiskType::MonolithicFlat,
    DiskType::SplitSparse,
    DiskType::SplitFlat,
    DiskType::VmfsFlat,
    DiskType::VmfsThin,
    DiskType::StreamOptimized,
];

fn connect() -> (Arc<Library>, Arc<Connection>) {
    let library = Library::new(Log::none(), Config::default());
    let connection = library.connect(ConnectParams::default(), false, None, None).unwrap();
    (library, connection)
}

/// Data in most places: half a grain, stored zeros, grains that only their last sector makes data, and the last sector.
fn content() -> Vec<u8> {
    let mut all: Vec<u8> = (0..SECTORS * 512).map(|i| ((i / 512 * 7 + i * 13) % 255) as u8 + 1).collect();
    for (start, end) in [(0, 5), (64, 128), (1024, 9000), (20_000, 20_127), (40_001, 50_000)] {
        all[start * 512..end * 512].fill(0);
    }
    all
}

fn source(connection: &Arc<Connection>, path: &Path, kind: DiskType, all: &[u8]) {
    let spec = CreateSpec {
        disk_type: kind,
        adapter: Adapter::LsiLogic,
        hardware_version: 10,
        capacity: Sectors(SECTORS),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    connection.create(path, &spec, &mut |_| ()).unwrap();
    let disk = connection.open(path, OpenFlags::empty()).unwrap();
    if kind != DiskType::StreamOptimized {
        disk.write(Sectors(0), &vec![9; all.len()]).unwrap(); // so that zeros are stored
    }
    disk.write(Sectors(0), all).unwrap();
    disk.close().unwrap();
}

fn look(connection: &Arc<Connection>, path: &Path) -> Vec<u8> {
    let disk = connection.open(path, OpenFlags::READ_ONLY).unwrap();
    let mut all = vec![0xa5; SECTORS as usize * 512];
    disk.read(Sectors(0), &mut all).unwrap();
    disk.close().unwrap();
    all
}

fn copy(
    connection: &Arc<Connection>,
    to: &Path,
    from: &Path,
    kind: DiskType,
    overwrite: bool,
) -> Result<(), ErrorKind> {
    let spec = CopySpec { disk_type: kind, adapter: Adapter::LsiLogic, hardware_version: 10 };
    let mut seen = Vec::new();
    let result =
        connection.copy_disk(to, connection, from, Some(&spec), overwrite, &mut |percent| seen.push(percent));
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    result.map_err(|e| e.kind())
}

/// Copies everything to everything in a file system of this kind, if the machine can make one; what else is to be seen
/// there is up to `further`.
fn on(make: &[&str], further: impl FnOnce(&Arc<Connection>, &Path)) {
    let (folder, outside) = (scratch::folder(), scratch::folder());
    let image = outside.path().join("image");
    if let Err(reason) = process::mount_made(folder.path(), &image, 1 << 30, make) {
        return scratch::note(&format!("{}: {reason}", make[0]));
    }
    let (_library, connection) = connect();
    let all = content();
    for from in [KINDS[0], KINDS[1], KINDS[6]] {
        let path = folder.path().join("s.vmdk");
        source(&connection, &path, from, &all);
        for to in KINDS {
            let target = folder.path().join("t.vmdk");
            copy(&connection, &target, &path, to, false).unwrap();
            assert!(look(&connection, &target) == all, "{from:?} to {to:?}");
            // What is shared is shared for reading only.
            if to != DiskType::StreamOptimized {
                let disk = connection.open(&target, OpenFlags::empty()).unwrap();
                disk.write(Sectors(0), &vec![0x77; all.len()]).unwrap();
                disk.close().unwrap();
                assert!(look(&connection, &path) == all, "{from:?} to {to:?}: the source");
            }
            copy(&connection, &target, &path, to, true).unwrap();
            assert!(look(&connection, &target) == all, "{from:?} over {to:?}");
            connection.unlink(&target).unwrap();
            assert!(
                names(folder.path()).iter().all(|name| name.starts_with("s")),
                "{:?}",
                names(folder.path())
            );
        }
        connection.unlink(&path).unwrap();
    }
    further(&connection, folder.path());
}

/// Copies that take no space, but where zeros shall take none they do not.
fn shares(connection: &Arc<Connection>, folder: &Path) {
    let all = content();
    for (from, to, spare) in [
        (DiskType::MonolithicFlat, DiskType::MonolithicFlat, true),
        (DiskType::MonolithicSparse, DiskType::MonolithicSparse, true),
        (DiskType::MonolithicFlat, DiskType::MonolithicSparse, true),
        (DiskType::SplitSparse, DiskType::VmfsThin, true),
        (DiskType::VmfsFlat, DiskType::SplitFlat, true),
        (DiskType::StreamOptimized, DiskType::MonolithicSparse, false),
    ] {
        let [path, target] = ["s.vmdk", "t.vmdk"].map(|name| folder.join(name));
        source(connection, &path, from, &all);
        settle(folder);
        let before = process::free_space(folder);
        copy(connection, &target, &path, to, false).unwrap();
        settle(folder);
        let taken = before.saturating_sub(process::free_space(folder));
        // Tables and what the file system notes about its files; the data has 27 MB.
        assert_eq!(taken < 6 << 20, spare, "{from:?} to {to:?} takes {taken} bytes");
        assert!(look(connection, &target) == all, "{from:?} to {to:?}");
        if to == DiskType::MonolithicSparse {
            let disk = connection.open(&target, OpenFlags::READ_ONLY).unwrap();
            let found = disk.allocated_blocks(Sectors(0), Sectors(SECTORS), Sectors(128)).unwrap();
            let hollow =
                |sector: u64| !found.iter().any(|(start, len)| (*start..start + len).contains(&sector));
            assert!([1024, 5000, 8959, 40_064, 49_919].into_iter().all(hollow), "{found:?}");
            assert!(
                [0, 127, 8960, 20_000, 20_127, SECTORS - 1].into_iter().all(|at| !hollow(at)),
                "{found:?}"
            );
            disk.close().unwrap();
        }
        connection.unlink(&target).unwrap();
        connection.unlink(&path).unwrap();
    }
}

/// File systems count their space late.
fn settle(folder: &Path) {
    let done = common::tools::run(std::process::Command::new("sync").arg("-f").arg(folder));
    assert!(done.status.success(), "{}", done.text());
}

#[test]
fn files_on_xfs_share_their_blocks() {
    in_child(|| on(&["mkfs.xfs", "-q", "-m", "reflink=1"], shares));
}

#[test]
fn files_on_btrfs_share_their_blocks() {
    in_child(|| on(&["mkfs.btrfs", "-q"], shares));
}

#[test]
fn copies_work_where_files_have_one_name_in_many_spellings() {
    in_child(|| {
        on(&["mkfs.vfat"], |connection, folder| {
            let all = content();
            for kind in [DiskType::MonolithicSparse, DiskType::MonolithicFlat] {
                let path = folder.join("source.vmdk");
                source(connection, &path, kind, &all);
                let before = names(folder);
                for other in ["SOURCE.VMDK", "Source.vmdk"] {
                    let other = folder.join(other);
                    let spec = DiskType::MonolithicFlat;
                    assert_eq!(copy(connection, &other, &path, spec, true), Err(ErrorKind::InvalidArgument));
                    assert_eq!(copy(connection, &other, &path, spec, false), Err(ErrorKind::AlreadyExists));
                    assert!(connect().0.rename(&path, &other).is_err());
                }
                assert_eq!(names(folder), before);
                assert!(look(connection, &path) == all, "{kind:?}");
                connection.unlink(&path).unwrap();
            }
        });
    });
}
