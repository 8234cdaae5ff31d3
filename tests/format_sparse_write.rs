//! Writing hosted sparse extents: grains, tables, both modes of commit, threads, and qemu-img as the judge.
#![allow(clippy::unwrap_used)]

mod sparse_images;

use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::sparse::Sparse;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::storage::Access;
use vixDiskLib::storage::Storage;
use vixDiskLib::storage::file::FileStorage;
use vixDiskLib::storage::memory::MemoryStorage;

use crate::sparse_images::Layout;
use crate::sparse_images::Lines;
use crate::sparse_images::options;
use crate::sparse_images::read_all;
use crate::sparse_images::scan_agrees_with_map;
use crate::sparse_images::seeded;
use crate::sparse_images::shared;
use crate::sparse_images::skip;
use crate::sparse_images::write;

fn memory(bytes: Vec<u8>) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new("test.vmdk", bytes))
}

fn open(storage: &Arc<MemoryStorage>, writable: bool) -> Result<Sparse> {
    Sparse::open(storage.clone(), &options(writable))
}

/// Bytes that tell where they belong and in which round they were written.
fn pattern(at: u64, len: usize, round: u8) -> Vec<u8> {
    (at..at + len as u64).map(|i| (i / 512) as u8 ^ (i as u8).rotate_left(3) ^ round).collect()
}

fn u32_at(bytes: &[u8], at: u64) -> u32 {
    u32::from_le_bytes(bytes[at as usize..at as usize + 4].try_into().unwrap())
}

fn put_u32(bytes: &mut [u8], at: u64, value: u32) {
    bytes[at as usize..at as usize + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn what_was_written_is_read_before_and_after_reopening() {
    for grain in [8, 16, 128, 256] {
        let layout = Layout::new(grain * 1200 + 3, grain);
        let storage = memory(layout.blank());
        let mut model = vec![0; (layout.capacity * 512) as usize];
        let image = open(&storage, true).unwrap();
        image.begin_writing().unwrap();
        let end = layout.capacity * 512;
        let grain_bytes = grain * 512;
        for (at, len) in [
            (grain_bytes * 3 + 512, 512),
            (grain_bytes * 510, grain_bytes * 5),
            (end - 512, 512),
            (0, grain_bytes + 1),
            (grain_bytes * 3, grain_bytes),
        ] {
            let data = pattern(at, len as usize, 7);
            write(&image, None, at, &data, false).unwrap();
            model[at as usize..(at + len) as usize].copy_from_slice(&data);
            assert!(read_all(&image, None).unwrap() == model, "grain {grain}, after {at}+{len}");
        }
        scan_agrees_with_map(&image);
        image.finish().unwrap();
        for writable in [false, true] {
            let again = open(&storage, writable).unwrap();
            assert!(!again.header().unclean);
            assert!(read_all(&again, None).unwrap() == model, "grain {grain}, reopened");
            scan_agrees_with_map(&again);
        }
        let size = storage.size().unwrap();
        assert_eq!(size, layout.data() + 9 * grain_bytes, "no excess is left at the end");
    }
}

#[test]
fn both_tables_hold_the_same_entries() {
    let layout = Layout::new(128 * 1500, 128);
    let storage = memory(layout.blank());
    let image = open(&storage, true).unwrap();
    for grain in [0, 1, 5, 511, 512, 1499] {
        write(&image, None, grain * 65536, &pattern(0, 65536, 1), grain % 2 == 1).unwrap();
    }
    image.finish().unwrap();
    let bytes = storage.snapshot();
    let tables = (layout.rgt() - layout.rgd()) as usize;
    assert!(tables > 0);
    let (gt, rgt) = (layout.gt() as usize, layout.rgt() as usize);
    assert_eq!(bytes[gt..gt + 3 * 2048], bytes[rgt..rgt + 3 * 2048]);
    assert_eq!(u32_at(&bytes, layout.gt()) as u64 * 512, layout.data());
    let used = (0..1500).filter(|i| u32_at(&bytes, layout.gt() + i * 4) != 0).count();
    assert_eq!(used, 6);
}

#[test]
fn the_header_tells_that_the_file_is_being_written() {
    let storage = memory(Layout::new(12800, 128).blank());
    let image = open(&storage, true).unwrap();
    assert_eq!(storage.snapshot()[72], 0, "opening alone changes nothing");
    image.begin_writing().unwrap();
    assert_eq!(storage.snapshot()[72], 1);
    image.finish().unwrap();
    assert_eq!(storage.snapshot()[72], 0);
}

#[test]
fn a_file_opened_for_reading_takes_nothing() {
    let image = open(&memory(Layout::new(12800, 128).blank()), false).unwrap();
    assert_eq!(image.prepare(0, 512).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(image.begin_writing().unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn offsets_past_the_capacity_are_out_of_range() {
    let image = open(&memory(Layout::new(200, 128).blank()), true).unwrap();
    for (at, len) in [(200 * 512, 1), (u64::MAX, 1), (0, 0)] {
        assert_eq!(image.map(at, len).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(image.prepare(at, len).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
    assert_eq!(image.map(512, u64::MAX).unwrap().1, 199 * 512);
    let pending = image.prepare(512, u64::MAX).unwrap().unwrap();
    assert_eq!(pending.grains, 0..256 * 512);
    image.abandon(pending);
}

#[test]
fn what_version_3_holds_is_not_written() {
    let mut bytes = Layout::new(12800, 128).blank();
    bytes[4] = 3;
    assert_eq!(open(&memory(bytes.clone()), true).unwrap_err().kind(), ErrorKind::NotSupported);
    assert!(open(&memory(bytes), false).is_ok());
}

#[test]
fn deferred_entries_serve_reads_and_reach_the_tables_when_published() {
    let layout = Layout::new(128 * 1500, 128);
    let storage = memory(layout.blank());
    let image = open(&storage, true).unwrap();
    let data = pattern(0, 65536 * 3, 9);
    write(&image, None, 65536 * 510, &data, true).unwrap();
    assert!(image.has_unpublished());
    let before = read_all(&image, None).unwrap();
    assert!(before[65536 * 510..65536 * 513] == data[..]);
    scan_agrees_with_map(&image);
    let entries = |storage: &MemoryStorage, at: u64| {
        let bytes = storage.snapshot();
        [510, 511, 512].map(|i| u32_at(&bytes, at + i * 4) != 0)
    };
    assert_eq!(entries(&storage, layout.gt()), [false; 3]);
    image.publish().unwrap();
    assert!(!image.has_unpublished());
    assert_eq!((entries(&storage, layout.gt()), entries(&storage, layout.rgt())), ([true; 3], [true; 3]));
    assert!(read_all(&image, None).unwrap() == before);
}

#[test]
fn an_abandoned_grain_can_be_prepared_again() {
    let storage = memory(Layout::new(12800, 128).blank());
    let image = open(&storage, true).unwrap();
    let first = image.prepare(0, 65536 * 2).unwrap().unwrap();
    let place = first.offset;
    assert!(first.zeroed);
    first.storage.write_at(&[0xff; 65536], place).unwrap();
    image.abandon(first);
    assert!(matches!(image.map(0, 1).unwrap().0, Mapping::Unallocated));
    let again = image.prepare(65536, 1).unwrap().unwrap();
    assert_eq!((again.offset, again.zeroed), (place, false), "the space holds what was written");
    image.abandon(again);
}

#[test]
fn grains_of_zeros_become_data_when_written() {
    let layout = Layout { zero_grains: true, ..Layout::new(12800, 128) };
    let mut bytes = layout.blank();
    put_u32(&mut bytes, layout.gt() + 4, 1);
    put_u32(&mut bytes, layout.rgt() + 4, 1);
    let storage = memory(bytes);
    let parent = vec![0x55; 12800 * 512];
    let image = open(&storage, true).unwrap();
    write(&image, Some(&parent), 65536 + 512, &[9; 512], true).unwrap();
    image.finish().unwrap();
    let all = read_all(&open(&storage, true).unwrap(), Some(&parent)).unwrap();
    let mut model = parent;
    model[65536..2 * 65536].fill(0);
    model[65536 + 512..65536 + 1024].fill(9);
    assert!(all == model);
}

#[test]
fn missing_tables_are_made() {
    for redundant in [true, false] {
        let layout = Layout { tables: false, redundant, ..Layout::new(8 * 512 * 40, 8) };
        let storage = memory(layout.blank());
        let image = open(&storage, true).unwrap();
        let mut model = vec![0; (layout.capacity * 512) as usize];
        for table in [3u64, 0, 39, 3] {
            let at = table * 512 * 4096 + 1000;
            let data = pattern(at, 9000, table as u8);
            write(&image, None, at, &data, table == 0).unwrap();
            model[at as usize..at as usize + 9000].copy_from_slice(&data);
        }
        assert!(read_all(&image, None).unwrap() == model);
        image.finish().unwrap();
        let again = open(&storage, true).unwrap();
        assert!(read_all(&again, None).unwrap() == model);
        scan_agrees_with_map(&again);
    }
}

/// Damage to an image with grains 0, 1 and 2 at the first three places, and what opening it for writing must say.
#[test]
fn damage_is_refused_unless_a_crash_explains_it() {
    let layout = Layout { zero_grains: true, ..Layout::new(128 * 1500, 128) };
    let storage = memory(layout.blank());
    let image = open(&storage, true).unwrap();
    write(&image, None, 0, &pattern(0, 65536 * 3, 1), false).unwrap();
    image.finish().unwrap();
    let good = storage.snapshot();
    let (gt, rgt, data) = (layout.gt(), layout.rgt(), (layout.data() / 512) as u32);
    let free = data + 3 * 128;
    // name, changes, may be mended in an unclean file, grains that have data then
    type Case = (&'static str, Vec<(u64, u32)>, Option<usize>);
    let cases: Vec<Case> = vec![
        ("nothing", vec![], Some(3)),
        ("missing in the redundant table", vec![(rgt + 4, 0)], Some(3)),
        ("missing in the primary table", vec![(gt + 4, 0)], Some(3)),
        ("a new grain in the redundant table only", vec![(rgt + 40, free)], Some(4)),
        ("a new grain in the primary table only", vec![(gt + 40, free)], Some(4)),
        ("zeros turned to data in one table", vec![(gt + 40, 1), (rgt + 40, free)], Some(4)),
        ("zeros in one table", vec![(gt + 40, 1)], Some(3)),
        ("past the end in both", vec![(gt + 40, free + 128), (rgt + 40, free + 128)], Some(3)),
        ("past the end in one", vec![(rgt + 40, free + 128)], Some(3)),
        ("different places", vec![(rgt + 4, free)], None),
        ("used by another", vec![(rgt + 40, data)], None),
        ("used twice in one table", vec![(rgt + 40, free), (rgt + 44, free)], None),
        ("the same twice", vec![(gt + 4, data), (rgt + 4, data)], None),
        ("overlapping", vec![(gt + 8, data + 130), (rgt + 8, data + 130)], None),
        ("among the tables", vec![(gt + 4, 30), (rgt + 4, 30)], None),
        ("directory past the end", vec![(layout.gd() + 4, 0x7fff_ffff)], None),
        ("redundant directory past the end", vec![(layout.rgd() + 4, 0x7fff_ffff)], None),
        ("one table for two ranges", vec![(layout.gd() + 4, (gt / 512) as u32)], None),
        ("directory without a table that has entries", vec![(layout.gd(), 0)], None),
        ("directory without an empty table", vec![(layout.gd() + 4, 0)], Some(3)),
        ("redundant directory without an empty table", vec![(layout.rgd() + 4, 0)], Some(3)),
    ];
    for (name, changes, mendable) in cases {
        let mut bytes = good.clone();
        bytes.extend([0xaa; 65536]); // a grain that nobody names
        changes.iter().for_each(|&(at, value)| put_u32(&mut bytes, at, value));
        if !changes.is_empty() {
            let refused = open(&memory(bytes.clone()), true).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NeedsRepair, "{name}, clean: {refused}");
        }
        bytes[72] = 1;
        let storage = memory(bytes.clone());
        match (mendable, open(&storage, true)) {
            (Some(grains), Ok(image)) => {
                let mut found = 0;
                for at in (0..image.capacity()).step_by(65536) {
                    let (mapping, _) = image.map(at, 65536).unwrap();
                    found += usize::from(matches!(mapping, Mapping::Data { .. }));
                }
                assert_eq!(found, grains, "{name}");
                drop(image);
                let mended = open(&storage, true).unwrap();
                assert!(!mended.header().unclean, "{name}");
                assert_eq!(
                    storage.size().unwrap(),
                    good.len() as u64 + if grains == 4 { 65536 } else { 0 },
                    "{name}"
                );
                scan_agrees_with_map(&mended);
            }
            (None, Err(e)) => {
                assert_eq!(e.kind(), ErrorKind::NeedsRepair, "{name}, unclean: {e}");
                assert!(storage.snapshot() == bytes, "{name}: a refused file is not changed");
            }
            (_, outcome) => panic!("{name}, unclean: {outcome:?}"),
        }
    }
}

#[test]
fn repair_is_told() {
    let layout = Layout::new(128 * 1500, 128);
    let mut bytes = layout.blank();
    bytes.resize(bytes.len() + 65536, 7);
    put_u32(&mut bytes, layout.rgt(), (layout.data() / 512) as u32);
    put_u32(&mut bytes, layout.gt() + 8, 0x00ff_0000);
    put_u32(&mut bytes, layout.rgt() + 8, 0x00ff_0000);
    bytes[72] = 1;
    let lines = Arc::new(Lines::default());
    let mut options = options(true);
    options.log = Log::new(lines.clone(), Level::Debug);
    Sparse::open(memory(bytes), &options).unwrap();
    let lines = lines.taken();
    assert!(lines.iter().any(|l| l.contains("1 grains that only one")), "{lines:?}");
    assert!(lines.iter().any(|l| l.contains("1 grains whose data never")), "{lines:?}");
}

#[test]
fn repair_mends_what_opening_for_writing_refuses() {
    let layout = Layout::new(128 * 1500, 128);
    let mut bytes = layout.blank();
    bytes.resize(bytes.len() + 65536, 7);
    put_u32(&mut bytes, layout.rgt(), (layout.data() / 512) as u32);
    let storage = memory(bytes.clone());
    assert_eq!(open(&storage, true).unwrap_err().kind(), ErrorKind::NeedsRepair);
    let found = open(&storage, false).unwrap().check().unwrap();
    assert_eq!((found.closed, found.kept, found.lost, found.changes), (true, 1, 0, 1));
    assert!(storage.snapshot() == bytes, "a check changes nothing");
    assert_eq!(Sparse::repair(storage.clone(), &options(true)).unwrap(), found);
    let image = open(&storage, true).unwrap();
    assert_eq!(image.check().unwrap().changes, 0);
    assert!(matches!(image.map(0, 512).unwrap().0, Mapping::Data { .. }));
    put_u32(&mut bytes, layout.gt(), (layout.data() / 512) as u32 + 1);
    let storage = memory(bytes.clone());
    assert_eq!(Sparse::repair(storage.clone(), &options(true)).unwrap_err().kind(), ErrorKind::NeedsRepair);
    assert!(storage.snapshot() == bytes, "what is beyond repair is left alone");
}

#[test]
fn a_damaged_directory_is_bypassed_for_reading_with_one_line() {
    let layout = Layout::new(128 * 1500, 128);
    let storage = memory(layout.blank());
    let image = open(&storage, true).unwrap();
    write(&image, None, 0, &pattern(0, 65536 * 700, 1), false).unwrap();
    image.finish().unwrap();
    let good = read_all(&image, None).unwrap();
    for value in [0, 0x7fff_ffff] {
        let mut bytes = storage.snapshot();
        put_u32(&mut bytes, layout.gd(), value);
        put_u32(&mut bytes, layout.gd() + 4, value);
        let lines = Arc::new(Lines::default());
        let mut options = options(false);
        options.log = Log::new(lines.clone(), Level::Debug);
        let image = Sparse::open(memory(bytes), &options).unwrap();
        assert!(read_all(&image, None).unwrap() == good);
        scan_agrees_with_map(&image);
        assert_eq!(lines.taken().len(), 1);
    }
    let mut bytes = storage.snapshot();
    bytes[56..64].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let image = open(&memory(bytes.clone()), false).unwrap();
    assert!(read_all(&image, None).unwrap() == good, "the whole primary directory is outside");
    assert_eq!(open(&memory(bytes), true).unwrap_err().kind(), ErrorKind::NeedsRepair);
}

#[test]
fn golden_images_can_be_written() {
    for name in
        ["ws-monolithicSparse/monolithicSparse", "synthetic/sparse/unclean", "synthetic/sparse/grain16"]
    {
        let Some(bytes) = shared(&format!("vmdk/{name}.vmdk")) else { continue };
        let storage = memory(bytes);
        let image = open(&storage, true).unwrap();
        let mut model = read_all(&image, None).unwrap();
        for (i, at) in (0..model.len() as u64 - 3000).step_by(30_000).enumerate() {
            let data = pattern(at, 3000, i as u8);
            write(&image, None, at, &data, false).unwrap();
            model[at as usize..at as usize + 3000].copy_from_slice(&data);
        }
        image.finish().unwrap();
        assert!(read_all(&open(&storage, true).unwrap(), None).unwrap() == model, "{name}");
    }
}

#[test]
fn a_mismatch_of_tables_forbids_writing() {
    for name in ["rgt-mismatch", "gte-past-eof", "gte-into-metadata", "gd-past-eof", "truncated"] {
        let Some(bytes) = shared(&format!("vmdk/hostile/{name}.vmdk")) else { continue };
        let refused = open(&memory(bytes), true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NeedsRepair, "{name}: {refused}");
    }
}

#[test]
fn a_small_cache_changes_nothing() {
    // 1000 tables of 512 grains of 4 KiB, four times as many as fit.
    let layout = Layout::new(8 * 512 * 1000, 8);
    let storage = memory(layout.blank());
    let mut options = options(true);
    options.cache_bytes = 0;
    let image = Sparse::open(storage.clone(), &options).unwrap();
    let mut seed = 1u64;
    let mut written = std::collections::BTreeMap::new();
    for round in 0..6000u64 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let grain = (seed >> 33) % (512 * 1000);
        let mark = (round as u32).to_le_bytes();
        write(&image, None, grain * 4096 + 100, &mark, round % 3 == 0).unwrap();
        written.insert(grain, mark);
    }
    let check = |image: &Sparse| {
        for (grain, mark) in &written {
            let bytes = sparse_images::read(image, None, grain * 4096 + 100, 4, 4).unwrap();
            assert_eq!(bytes, mark, "grain {grain}");
        }
    };
    check(&image);
    scan_agrees_with_map(&image);
    image.finish().unwrap();
    check(&open(&storage, true).unwrap());
}

#[test]
fn a_grain_that_is_being_made_makes_others_wait() {
    for deferred in [false, true] {
        let storage = memory(Layout::new(128 * 100, 128).blank());
        let image = open(&storage, true).unwrap();
        let first = image.prepare(65536 * 3, 65536 * 2).unwrap().unwrap();
        let before = image.prepare(65536, 65536 * 10).unwrap().unwrap();
        assert_eq!(before.grains, 65536..65536 * 3, "it ends where the other begins");
        let (told, tell) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (image, sender) = (&image, told);
            scope.spawn(move || sender.send(image.prepare(65536 * 4, 512).unwrap().is_none()));
            assert!(tell.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "it must wait");
            image.commit(first, deferred).unwrap();
            assert!(tell.recv().unwrap(), "it is told to look again");
            image.abandon(before);
        });
        assert!(matches!(image.map(65536 * 4, 512).unwrap().0, Mapping::Data { .. }));
    }
}

#[test]
fn threads_that_want_the_same_grains_get_them_one_at_a_time() {
    let layout = Layout::new(8 * 2000, 8);
    for deferred in [false, true] {
        let storage = memory(layout.blank());
        let image = open(&storage, true).unwrap();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (image, start) = (&image, &start);
                scope.spawn(move || {
                    // Each thread owns every eighth sector, so all of them meet in every grain.
                    for i in 0..2000u64 {
                        if i % 4 == 0 {
                            start.wait();
                        }
                        let sector = (i * 8) + thread;
                        write(image, None, sector * 512, &[thread as u8 + 1; 512], deferred).unwrap();
                        if i % 97 == thread {
                            image.publish().unwrap();
                        }
                    }
                });
            }
            let image = &image;
            scope.spawn(move || {
                for _ in 0..50 {
                    let mut end = 0;
                    image.scan(0..image.capacity(), &mut |range, _| end = range.end).unwrap();
                    assert_eq!(end, image.capacity());
                }
            });
        });
        image.finish().unwrap();
        let again = open(&storage, true).unwrap();
        let all = read_all(&again, None).unwrap();
        for (sector, bytes) in all.chunks(512).enumerate() {
            assert!(
                bytes.iter().all(|&b| b == (sector % 8) as u8 + 1),
                "sector {sector}, deferred {deferred}"
            );
        }
        assert_eq!(storage.size().unwrap(), layout.data() + 2000 * 4096, "no grain was allocated twice");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, len: usize, deferred: bool },
    Publish,
    Flush,
    Kill,
    Reopen,
}

fn steps(capacity: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..capacity, 1..200_000usize, any::<bool>()).prop_map(move |(at, len, deferred)| {
            Step::Write { at, len: len.min((capacity - at) as usize), deferred }
        }),
        1 => Just(Step::Publish),
        1 => Just(Step::Flush),
        1 => Just(Step::Kill),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

const MODEL_CAPACITY: u64 = 128 * 600 - 77;

proptest! {
    #![proptest_config(seeded(24))]

    #[test]
    fn a_disk_behaves_like_an_array(steps in steps(MODEL_CAPACITY * 512), grain in prop_oneof![Just(16u64), Just(128)]) {
        let storage = memory(Layout::new(MODEL_CAPACITY, grain).blank());
        let parent = pattern(0, (MODEL_CAPACITY * 512) as usize, 0x5a);
        let mut image = open(&storage, true).unwrap();
        let mut model = parent.clone();
        for (round, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { at, len, deferred } => {
                    let data = pattern(at, len, round as u8);
                    write(&image, Some(&parent), at, &data, deferred).unwrap();
                    model[at as usize..at as usize + len].copy_from_slice(&data);
                }
                Step::Publish => image.publish().unwrap(),
                Step::Flush => image.flush().unwrap(),
                Step::Kill => {
                    image.publish().unwrap(); // what is deferred may be lost; here it must not be
                    image = open(&storage, true).unwrap();
                }
                Step::Reopen => {
                    image.finish().unwrap();
                    image = open(&storage, true).unwrap();
                    prop_assert!(!image.header().unclean);
                }
            }
        }
        prop_assert!(read_all(&image, Some(&parent)).unwrap() == model);
        scan_agrees_with_map(&image);
        image.finish().unwrap();
        let again = open(&storage, true).unwrap();
        prop_assert!(read_all(&again, Some(&parent)).unwrap() == model);
    }
}

#[test]
fn qemu_reads_what_was_written_into_its_images() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        skip::<()>("no qemu-img");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, raw) = (dir.path().join("d.vmdk"), dir.path().join("d.raw"));
    let run = |args: &[&std::ffi::OsStr]| {
        let out = Command::new("qemu-img").args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    for size in ["102400", "100M", "5000M"] {
        run(&[
            "create".as_ref(),
            "-q".as_ref(),
            "-f".as_ref(),
            "vmdk".as_ref(),
            path.as_ref(),
            size.as_ref(),
        ]);
        let access = Access { write: true, direct: false, device: false };
        let storage = Arc::new(FileStorage::open(&path, access).unwrap());
        let image = Sparse::open(storage, &options(true)).unwrap();
        let reference = std::fs::File::create(&raw).unwrap();
        reference.set_len(image.capacity()).unwrap();
        image.begin_writing().unwrap();
        let mut at = 0;
        let mut step = 1;
        while at < image.capacity() {
            let len = (step * 4096).min(image.capacity() - at).min(300_000) as usize;
            let data = pattern(at, len, step as u8);
            write(&image, None, at, &data, false).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&reference, &data, at).unwrap();
            at += step * step * 9 * 512 + len as u64;
            step += 1;
        }
        scan_agrees_with_map(&image);
        image.finish().unwrap();
        run(&["check".as_ref(), "-q".as_ref(), "-f".as_ref(), "vmdk".as_ref(), path.as_ref()]);
        let compare = ["compare", "-q", "-f", "vmdk", "-F", "raw"].map(std::ffi::OsStr::new);
        run(&[&compare[..], &[path.as_ref(), raw.as_ref()]].concat());
        std::fs::remove_file(&path).unwrap();
    }
}
