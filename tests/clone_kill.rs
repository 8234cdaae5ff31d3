//! A process that clones is killed at random moments: the target is the old disk or the new one, whole, or not there.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

#[macro_use]
mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::child;
use common::model::Rng;
use common::readers::readers_agree;
use common::scratch;
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

const FOLDER: &str = "VIX_CLONE_FOLDER";
const KINDS: [DiskType; 4] =
    [DiskType::SplitSparse, DiskType::MonolithicFlat, DiskType::StreamOptimized, DiskType::SplitFlat];

fn connect() -> (std::sync::Arc<Library>, std::sync::Arc<Connection>) {
    let library = Library::new(Log::none(), Config::default());
    let connection = library.connect(ConnectParams::default(), false, None, None).unwrap();
    (library, connection)
}

/// Copies one source after the other over the same target until it is killed.
fn clone_for_ever(folder: &Path) {
    let (_library, connection) = connect();
    for i in 0.. {
        let source = folder.join(format!("source-{}.vmdk", i % 2));
        let kind = KINDS[(i / 2) % KINDS.len()];
        let spec = CopySpec { disk_type: kind, adapter: Adapter::LsiLogic, hardware_version: 10 };
        connection
            .copy_disk(&folder.join("to/t.vmdk"), &connection, &source, Some(&spec), true, &mut |_| ())
            .unwrap();
    }
}

fn content(connection: &std::sync::Arc<Connection>, path: &Path) -> Vec<u8> {
    let disk = connection.open(path, OpenFlags::READ_ONLY).unwrap();
    let mut all = vec![0xa5; disk.info().unwrap().capacity.0 as usize * 512];
    disk.read(Sectors(0), &mut all).unwrap();
    disk.close().unwrap();
    all
}

fn source(connection: &std::sync::Arc<Connection>, path: &Path, sectors: u64, seed: u8) -> Vec<u8> {
    let spec = CreateSpec {
        disk_type: DiskType::MonolithicSparse,
        adapter: Adapter::LsiLogic,
        hardware_version: 10,
        capacity: Sectors(sectors),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    connection.create(path, &spec, &mut |_| ()).unwrap();
    let all: Vec<u8> = (0..sectors * 512).map(|i| ((i / 3) as u8).wrapping_mul(seed) | 1).collect();
    let disk = connection.open(path, OpenFlags::empty()).unwrap();
    disk.write(Sectors(0), &all).unwrap();
    disk.close().unwrap();
    all
}

#[test]
fn a_killed_clone_leaves_the_old_disk_or_the_new_one() {
    requires!("qemu-img");
    let name = "a_killed_clone_leaves_the_old_disk_or_the_new_one";
    if child::is_child(name) {
        return clone_for_ever(Path::new(&std::env::var_os(FOLDER).unwrap()));
    }
    let folder = scratch::folder();
    let (_library, connection) = connect();
    let contents: Vec<Vec<u8>> = [(9_000, 3), (7_001, 5)]
        .iter()
        .enumerate()
        .map(|(i, (sectors, seed))| {
            source(&connection, &folder.path().join(format!("source-{i}.vmdk")), *sectors, *seed)
        })
        .collect();
    let to = folder.path().join("to");
    fs::create_dir(&to).unwrap();
    let target = to.join("t.vmdk");
    let mut rng = Rng::new(11);
    let mut seen = [0; 2];
    for cycle in 0..25 {
        let mut process = child::command(name);
        process.env(FOLDER, folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = process.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + rng.below(250)));
        assert!(process.try_wait().unwrap().is_none(), "the clones of cycle {cycle} failed");
        process.kill().unwrap();
        process.wait().unwrap();
        if !target.exists() {
            continue;
        }
        let found = content(&connection, &target);
        let which = contents.iter().position(|known| *known == found);
        seen[which.unwrap_or_else(|| panic!("cycle {cycle}: neither the old nor the new disk"))] += 1;
        if cycle % 8 == 0 {
            readers_agree(&target, folder.path(), &found);
        }
    }
    assert!(seen[0] + seen[1] > 10, "{seen:?}");
    for (i, expected) in contents.iter().enumerate() {
        assert!(
            content(&connection, &folder.path().join(format!("source-{i}.vmdk"))) == *expected,
            "the sources"
        );
    }
    // What is left of a killed process does not stand in the way.
    let last = connection.copy_disk(
        &target,
        &connection,
        &folder.path().join("source-0.vmdk"),
        None,
        true,
        &mut |_| (),
    );
    assert_eq!(last.map_err(|e| e.kind()), Ok::<(), ErrorKind>(()));
    assert!(content(&connection, &target) == contents[0]);
    assert_eq!(scratch::names(&to), ["t.vmdk"], "nothing is left of the killed ones");
}
