//! New streamOptimized disks: what they look like, who can read them, and what happens to writes that go back.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use common::child::in_child;
use common::process;
use common::readers::readers_agree;
use common::scratch;
use vixDiskLib::config::Config;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::logging::Log;
use vixDiskLib::session::Adapter;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Connection;
use vixDiskLib::session::CreateSpec;
use vixDiskLib::session::DiskType;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenDisk;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::units::Sectors;

const GRAIN: usize = 65536;

fn library(config: &str) -> (Arc<Library>, Arc<Connection>) {
    let (config, complaints) = Config::parse(config);
    assert_eq!(complaints, Vec::<String>::new());
    let library = Library::new(Log::none(), config);
    let connection = library.connect(ConnectParams::default(), false, None, None).unwrap();
    (library, connection)
}

fn spec(sectors: u64) -> CreateSpec {
    CreateSpec {
        disk_type: DiskType::StreamOptimized,
        adapter: Adapter::LsiLogic,
        hardware_version: 13,
        capacity: Sectors(sectors),
        logical_sector_size: 512,
        physical_sector_size: 512,
    }
}

fn create(connection: &Arc<Connection>, path: &Path, sectors: u64) -> Arc<OpenDisk> {
    connection.create(path, &spec(sectors), &mut |_| ()).unwrap();
    connection.open(path, OpenFlags::empty()).unwrap()
}

/// A stream of bytes that deflate makes about half as long, never a whole grain of zeros.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut all = Vec::with_capacity(len + 8);
    while all.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        all.extend_from_slice(&(x as u32).to_le_bytes());
        all.extend_from_slice(&0x2020_2020u32.to_le_bytes());
    }
    all.truncate(len);
    all
}

fn whole(connection: &Arc<Connection>, path: &Path) -> Vec<u8> {
    let disk = connection.open(path, OpenFlags::READ_ONLY).unwrap();
    let mut all = vec![0xa5; disk.info().unwrap().capacity.0 as usize * 512];
    disk.read(Sectors(0), &mut all).unwrap();
    disk.close().unwrap();
    all
}

fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = scratch::folder();
    let path = folder.path().join(name);
    (folder, path)
}

#[test]
fn a_new_disk_is_complete_before_anything_is_written() {
    requires!("qemu-img");
    let (_library, connection) = library("");
    for sectors in [1, 127, 128, 129, 65536, 65537, 200_001] {
        let (folder, path) = place("new.vmdk");
        create(&connection, &path, sectors).close().unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..4], *b"KDMV");
        let zeros = vec![0; sectors as usize * 512];
        assert!(whole(&connection, &path) == zeros);
        readers_agree(&path, folder.path(), &zeros);
    }
}

#[test]
fn what_is_written_in_order_is_read_back_by_everybody() {
    requires!("qemu-img");
    for config in ["", "vixDiskLib.stream.compressionLevel=9", "vixDiskLib.stream.compressionLevel=0"] {
        let (_library, connection) = library(config);
        // Several tables, a short last grain, grains left out, grains of zeros, parts of grains.
        let sectors = 3 * 65536 + 77;
        let (folder, path) = place("a b%.vmdk");
        let disk = create(&connection, &path, sectors);
        let mut expected = vec![0; sectors as usize * 512];
        let mut at = 0;
        for (i, step) in
            (0..).zip([GRAIN, 512, 1536, 3 * GRAIN, 5 * GRAIN + 512, 1 << 20, 100 * 512].iter().cycle())
        {
            let len = (*step).min(expected.len() - at);
            if len == 0 {
                break;
            }
            match i % 5 {
                3 => {} // left out
                4 => disk.write(Sectors(at as u64 / 512), &vec![0; len]).unwrap(),
                _ => {
                    expected[at..at + len].copy_from_slice(&bytes(i, len));
                    disk.write(Sectors(at as u64 / 512), &expected[at..at + len]).unwrap();
                }
            }
            at += len;
        }
        assert_eq!(std::fs::read(&path).unwrap()[..4], *b"kdmv", "not complete while it is written");
        let refused = connection.open(&path, OpenFlags::READ_ONLY).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotADisk);
        disk.close().unwrap();
        assert!(whole(&connection, &path) == expected, "{config}");
        readers_agree(&path, folder.path(), &expected);
    }
}

#[test]
fn written_data_can_be_read_before_the_disk_is_closed() {
    let (_library, connection) = library("");
    let (_folder, path) = place("d.vmdk");
    let disk = create(&connection, &path, 128 * 1200);
    let mut expected = vec![0; 128 * 1200 * 512];
    for grain in (0..1100).filter(|grain| grain % 7 != 3) {
        let at = grain * GRAIN + 1024;
        expected[at..at + 60_928].copy_from_slice(&bytes(grain as u64, 60_928));
        disk.write(Sectors(at as u64 / 512), &expected[at..at + 60_928]).unwrap();
        if grain % 97 == 0 {
            let mut seen = vec![0xa5; expected.len()];
            disk.read(Sectors(0), &mut seen).unwrap();
            assert!(seen == expected, "after grain {grain}");
        }
    }
    disk.flush().unwrap();
    let blocks = disk.allocated_blocks(Sectors(0), Sectors(128 * 1200), Sectors(128)).unwrap();
    assert_eq!(
        blocks.iter().map(|block| block.1 / 128).sum::<u64>(),
        (0..1100).filter(|g| g % 7 != 3).count() as u64
    );
    disk.close().unwrap();
    assert!(whole(&connection, &path) == expected);
}

#[test]
fn writes_that_go_back_are_refused_and_harm_nothing() {
    let (_library, connection) = library("");
    let (_folder, path) = place("d.vmdk");
    let disk = create(&connection, &path, 128 * 100);
    let data = bytes(1, GRAIN);
    disk.write(Sectors(128 * 10), &data).unwrap();
    disk.write(Sectors(128 * 10 + 5), &data[..512]).unwrap(); // the grain written last may change
    disk.write(Sectors(128 * 20), &data).unwrap();
    for (sector, what) in [(128 * 10, "written"), (128 * 15, "left out"), (0, "before everything")] {
        let refused = disk.write(Sectors(sector), &data).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotSupported, "{what}: {refused}");
    }
    disk.write(Sectors(128 * 15), &vec![0; GRAIN]).unwrap(); // it holds zeros already
    assert_eq!(disk.write(Sectors(128 * 10), &vec![0; GRAIN]).unwrap_err().kind(), ErrorKind::NotSupported);
    disk.write(Sectors(128 * 99), &data).unwrap();
    disk.close().unwrap();
    let mut expected = vec![0; 100 * GRAIN];
    for grain in [10, 20, 99] {
        expected[grain * GRAIN..(grain + 1) * GRAIN].copy_from_slice(&data);
    }
    expected[10 * GRAIN + 5 * 512..10 * GRAIN + 6 * 512].copy_from_slice(&data[..512]);
    assert!(whole(&connection, &path) == expected);
}

#[test]
fn a_disk_with_data_is_not_written_again() {
    let (_library, connection) = library("");
    let (_folder, path) = place("d.vmdk");
    let disk = create(&connection, &path, 4096);
    disk.write(Sectors(0), &bytes(1, 512)).unwrap();
    disk.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(connection.open(&path, OpenFlags::empty()).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert!(std::fs::read(&path).unwrap() == before);
    // Opened and closed without a write, an empty one stays as it is.
    let empty = path.with_file_name("e.vmdk");
    create(&connection, &empty, 4096).close().unwrap();
    connection.open(&empty, OpenFlags::empty()).unwrap().close().unwrap();
    assert!(whole(&connection, &empty) == vec![0; 4096 * 512]);
}

/// The layout that importers ask for: version, flags, ascending grains, each table behind its grains, footer, end.
#[test]
fn the_file_can_be_read_from_its_beginning_to_its_end() {
    let (_library, connection) = library("");
    let (_folder, path) = place("d.vmdk");
    let disk = create(&connection, &path, 65536 * 4 + 10);
    let grains = [0, 1, 511, 1024, 1030, 2048];
    grains.iter().for_each(|g| {
        disk.write(Sectors(g * 128), &bytes(*g, if *g == 2048 { 5120 } else { GRAIN })).unwrap();
    });
    disk.close().unwrap();
    let file = std::fs::read(&path).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    assert_eq!((u32_at(4), u32_at(8), u64_at(12), u64_at(56)), (3, 0x3_0001, 65536 * 4 + 10, u64::MAX));
    let (mut at, mut seen, mut entries, mut tables) = (65536, Vec::new(), Vec::new(), Vec::new());
    loop {
        let (value, size, kind) = (u64_at(at), u32_at(at + 8), u32_at(at + 12));
        if size > 0 {
            seen.push(value / 128);
            entries.push((value / 128, (at / 512) as u32));
            let plain = inflate(&file[at + 12..at + 12 + size as usize]);
            assert_eq!(plain.len(), GRAIN, "the last grain is padded");
            at = (at + 12 + size as usize).next_multiple_of(512);
            continue;
        }
        let body = at + 512;
        match kind {
            1 => {
                let first = entries[0].0 / 512 * 512;
                for (grain, entry) in entries.drain(..) {
                    assert_eq!(u32_at(body + (grain - first) as usize * 4), entry);
                }
                tables.push((first / 512, (body / 512) as u32));
            }
            2 => {
                let expected: Vec<u32> =
                    (0..5).map(|t| tables.iter().find(|x| x.0 == t).map_or(0, |x| x.1)).collect();
                assert_eq!((0..5).map(|t| u32_at(body + t * 4)).collect::<Vec<_>>(), expected);
                assert_eq!(u64_at(file.len() - 1024 + 56), body as u64 / 512);
            }
            3 => assert_eq!(body, file.len() - 1024),
            0 => {
                assert_eq!(body, file.len());
                break;
            }
            other => panic!("marker {other}"),
        }
        at = body + value as usize * 512;
    }
    assert_eq!(seen, grains);
}

fn inflate(packed: &[u8]) -> Vec<u8> {
    let mut plain = vec![0; 2 * GRAIN];
    let len = libdeflater::Decompressor::new().zlib_decompress(packed, &mut plain).unwrap();
    plain.truncate(len);
    plain
}

#[test]
fn a_full_file_system_leaves_a_file_that_nobody_takes_for_complete() {
    requires!("mount");
    in_child(full_file_system);
}

fn full_file_system() {
    let folder = scratch::folder();
    if let Err(reason) = process::mount_small(folder.path(), 4 << 20) {
        return scratch::note(&format!("a small file system cannot be mounted here: {reason}"));
    }
    let (_library, connection) = library("");
    let path = folder.path().join("d.vmdk");
    let disk = create(&connection, &path, 65536);
    let mut results = Vec::new();
    for grain in 0..200u64 {
        let noise: Vec<u8> =
            (0..GRAIN).map(|i| (i as u64).wrapping_mul(grain * 77 + 0x9e37_79b9).to_be_bytes()[4]).collect();
        results.push(disk.write(Sectors(grain * 128), &noise).map_err(|e| e.kind()));
    }
    let closed = disk.close().map_err(|e| e.kind());
    assert!(results.contains(&Err(ErrorKind::DiskFull)) || closed == Err(ErrorKind::DiskFull), "{results:?}");
    assert!(closed.is_err());
    assert_eq!(connection.open(&path, OpenFlags::READ_ONLY).unwrap_err().kind(), ErrorKind::NotADisk);
}
