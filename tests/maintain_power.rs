//! Growing a sparse disk while the power fails, or while a call on its file does: it has the old or the new size then, its
//! data, and zeros behind.
#![allow(clippy::unwrap_used)]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use vixDiskLib::disk::Disk;
use vixDiskLib::disk::anatomy::Anatomy;
use vixDiskLib::format::create;
use vixDiskLib::format::create::CreateSpec;
use vixDiskLib::format::create::DiskType;
use vixDiskLib::format::create::NewIdentity;
use vixDiskLib::format::geometry::Adapter;
use vixDiskLib::format::sparse;
use vixDiskLib::units::Sectors;

use crash_storage::Files;
use crash_storage::Random;
use crash_storage::Recorder;
use crash_storage::after_kill;
use crash_storage::after_power_cut;
use crash_storage::telling_positions;
use fuzz_bodies::chain::options;

const NAME: &str = "d.vmdk";
/// Ends inside a grain.
const BEFORE: u64 = 1000;

fn recorder(files: Files) -> Recorder {
    Recorder::new(&[NAME.to_owned()], files)
}

/// A disk with data in its first and its last sector, and with a foreign writer's bytes behind its end.
fn disk() -> Files {
    let spec = CreateSpec {
        disk_type: DiskType::MonolithicSparse,
        adapter: Adapter::LsiLogic,
        hardware_version: 13,
        capacity: Sectors(BEFORE),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    let identity = NewIdentity::from_random(&[5; 28]);
    let layout = create::layout(&spec, NAME, &identity).unwrap();
    let mut bytes = vec![0; layout.files[0].len as usize];
    for piece in &layout.files[0].pieces {
        bytes[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    let recorder = recorder(vec![bytes]);
    let disk = Disk::open(recorder.place(NAME).unwrap(), &options(true)).unwrap();
    disk.write(&[1; 512], 0).unwrap();
    disk.write(&[2; 512], (BEFORE - 1) * 512).unwrap();
    disk.finish().unwrap();
    let mut files = recorder.files();
    let end = files[0].len() - (1024 - BEFORE as usize) * 512;
    files[0][end..].fill(0xEE);
    files
}

fn grow(recorder: &Recorder, after: u64) -> vixDiskLib::error::Result<()> {
    let storage = recorder.storage(NAME);
    let anatomy = Anatomy::read(&*storage)?;
    let mut descriptor = anatomy.descriptor.clone();
    let mut extents = descriptor.extents().to_vec();
    extents[0].sectors = Sectors(after);
    descriptor.set_links(&extents, None)?;
    descriptor.set_cid(0x1234_5678)?;
    let text = descriptor.to_bytes()?;
    sparse::grow(&*storage, &anatomy.embedded.unwrap().header, Sectors(after), &text)
}

/// The size of the disk in `files`, once everything about it is right, also after it was opened for writing.
fn check(files: Files, after: u64, what: &str) -> u64 {
    let mut capacity = 0;
    let recorder = recorder(files);
    for write in [false, true, false] {
        let disk = Disk::open(recorder.place(NAME).unwrap(), &options(write));
        let disk = disk.unwrap_or_else(|e| panic!("{what}, write {write}: {e}"));
        let now = disk.capacity() / 512;
        assert!([BEFORE, after].contains(&now), "{what}: {now} sectors");
        assert!(capacity == 0 || capacity == now, "{what}: opening changed the size");
        capacity = now;
        let cid = disk.leaf().descriptor().cid().unwrap();
        assert_eq!(cid == 0x1234_5678, now == after, "{what}: text and tables belong together");
        let mut all = vec![0xAA; (now * 512) as usize];
        disk.read(&mut all, 0).unwrap();
        let mut model = vec![0; all.len()];
        model[..512].fill(1);
        model[(BEFORE as usize - 1) * 512..BEFORE as usize * 512].fill(2);
        assert!(all == model, "{what}: {now} sectors, write {write}");
        if write {
            disk.write(&[3; 512], (now - 1) * 512).unwrap();
            disk.write(&model[(now as usize - 1) * 512..], (now - 1) * 512).unwrap();
            disk.finish().unwrap();
            let changed = disk.leaf().descriptor().cid().unwrap();
            assert_ne!(changed, cid);
            disk.leaf().change_descriptor(|d| d.set_cid(cid)).unwrap();
        }
    }
    capacity
}

#[test]
fn a_power_cut_leaves_the_old_or_the_new_size() {
    for after in [1001, 5000, 65_537, 131_072 * 2] {
        let initial = disk();
        let recorder = recorder(initial.clone());
        grow(&recorder, after).unwrap();
        assert_eq!(check(recorder.files(), after, "nothing happened"), after);
        let (ops, mut random, mut seen) = (recorder.ops(), Random(after), Vec::new());
        for now in telling_positions(&ops) {
            let mut number = 0;
            after_power_cut(&initial, &ops, now, &mut random, 6, &mut |files| {
                number += 1;
                seen.push(check(
                    files,
                    after,
                    &format!("{after}, cut after {now} of {}, {number}", ops.len()),
                ));
            });
        }
        assert!(seen.contains(&BEFORE) && seen.contains(&after), "both sides of the switch were seen");
    }
}

#[test]
fn a_killed_process_leaves_the_old_or_the_new_size() {
    let (initial, after) = (disk(), 200_000);
    let recorder = recorder(initial.clone());
    grow(&recorder, after).unwrap();
    let ops = recorder.ops();
    for now in 0..=ops.len() {
        check(after_kill(&initial, &ops, now), after, &format!("killed after {now} of {}", ops.len()));
    }
}

#[test]
fn a_failing_call_leaves_the_old_or_the_new_size() {
    let after = 200_000;
    for forever in [false, true] {
        for nth in 0.. {
            let recorder = recorder(disk());
            recorder.fail(nth, forever);
            let result = grow(&recorder, after);
            let failed = recorder.heal();
            let found = check(recorder.files(), after, &format!("call {nth} failed, {forever}"));
            if result.is_ok() {
                assert_eq!(found, after);
            }
            if !failed {
                break;
            }
        }
    }
}
