//! Shrinking and putting in order: the content stays, the file is as short as it can be, and a power cut, a kill or a
//! failing call at any moment leaves a disk that opens with every sector as it was.
#![allow(clippy::unwrap_used)]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::collections::BTreeSet;

use vixDiskLib::disk::Disk;
use vixDiskLib::disk::check::check_link;
use vixDiskLib::disk::open::OpenOptions;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::format::Arrange;
use vixDiskLib::logging::Log;

use crash_storage::Files;
use crash_storage::Random;
use crash_storage::Recorder;
use crash_storage::after_kill;
use crash_storage::after_power_cut;
use crash_storage::telling_positions;
use fuzz_bodies::images;
use fuzz_bodies::images::SparseSpec;

const GRAIN: u64 = 8;
const GRAINS: u64 = 540;
const CAPACITY: u64 = GRAINS * GRAIN - 3;
const HOW: [Arrange; 2] = [Arrange::Close, Arrange::Order];

#[derive(Clone)]
struct Subject {
    name: &'static str,
    names: Vec<String>,
    files: Files,
    content: Vec<u8>,
}

impl Subject {
    fn open(&self, recorder: &Recorder, write: bool) -> Disk {
        Disk::open(recorder.place(&self.names[0]).unwrap(), &options(write))
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn recorder(&self) -> Recorder {
        Recorder::new(&self.names, self.files.clone())
    }
}

/// Little memory, so that few grains are moved at a time and freed places are used again.
fn options(write: bool) -> OpenOptions {
    OpenOptions { table_cache: 4096, ..fuzz_bodies::chain::options(write) }
}

fn spec(descriptor: String, data: Vec<u64>) -> SparseSpec {
    SparseSpec { version: 1, flags: 3, capacity: CAPACITY, grain: GRAIN, data, zero: vec![], descriptor }
}

fn read_all(disk: &Disk) -> Vec<u8> {
    let mut content = vec![0; disk.capacity() as usize];
    disk.read(&mut content, 0).unwrap();
    content
}

/// A disk with grains out of order, some of zeros among them.
fn used(name: &'static str, names: &[&str], files: Files, seed: u64) -> Subject {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let recorder = Recorder::new(&names, files);
    let disk = Disk::open(recorder.place(&names[0]).unwrap(), &options(true)).unwrap();
    let mut random = Random(seed);
    for mark in 1..=26u8 {
        // Both tables, and the last grain, which is cut short by the capacity.
        let grain = match random.below(4) {
            0 => GRAINS - 1 - random.below(12),
            _ => random.below(24),
        };
        let len = GRAIN.min(CAPACITY - grain * GRAIN) as usize * 512;
        let data = vec![mark; len];
        disk.write(&data, grain * GRAIN * 512).unwrap();
        if random.below(3) == 0 {
            disk.write(&vec![0; len], grain * GRAIN * 512).unwrap();
        }
    }
    let content = read_all(&disk);
    disk.finish().unwrap();
    Subject { name, names, files: recorder.files(), content }
}

fn base() -> Subject {
    let text = images::descriptor(CAPACITY, "monolithicSparse", &format!("RW {CAPACITY} SPARSE \"d.vmdk\""));
    used("base", &["d.vmdk"], vec![images::sparse(&spec(text, vec![9, 3, 0])).file], 3)
}

fn child() -> Subject {
    let parent = base().files.remove(0);
    let text =
        images::child_descriptor("monolithicSparse", &format!("RW {CAPACITY} SPARSE \"c.vmdk\""), "d.vmdk");
    // The parent has got a content id of its own by being written to.
    let at = parent.windows(4).position(|w| w == b"CID=").unwrap() + 4;
    let id = String::from_utf8(parent[at..at + 8].to_vec()).unwrap();
    let text = text.replace("parentCID=12345678", &format!("parentCID={id}"));
    let file = images::sparse(&spec(text, vec![])).file;
    used("child", &["c.vmdk", "d.vmdk"], vec![file, parent], 8)
}

fn split() -> Subject {
    let half = 520 * GRAIN;
    let rest = CAPACITY - half;
    let lines = format!("RW {half} SPARSE \"s1.vmdk\"\nRW {rest} SPARSE \"s2.vmdk\"");
    let text = images::descriptor(CAPACITY, "twoGbMaxExtentSparse", &lines);
    let extent = |capacity| images::sparse(&SparseSpec { capacity, ..spec(String::new(), vec![]) }).file;
    let files = vec![text.into_bytes(), extent(half), extent(rest)];
    used("split", &["d.vmdk", "s1.vmdk", "s2.vmdk"], files, 5)
}

/// A file without tables: they are made among the grains, where they stay.
fn without_tables() -> Subject {
    let mut subject = base();
    let text = images::descriptor(CAPACITY, "monolithicSparse", &format!("RW {CAPACITY} SPARSE \"d.vmdk\""));
    let built = images::sparse(&spec(text, vec![]));
    let mut file = built.file.clone();
    for field in built.fields.iter().filter(|f| f.name.contains("gd[")) {
        file[field.at..field.at + 4].fill(0);
    }
    subject = used("without tables", &["d.vmdk"], vec![file], subject.files.len() as u64 + 20);
    subject
}

fn subjects() -> [Subject; 4] {
    [base(), child(), split(), without_tables()]
}

/// Entries of a sparse file in the order of its grains, both tables alike.
fn entries(file: &[u8]) -> Vec<u32> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(file[72], 0, "not closed");
    let capacity = word(12);
    (0..capacity.div_ceil(GRAIN as usize))
        .map(|grain| {
            let of = |field: usize| match word(word(field) * 512 + grain / 512 * 4) {
                0 => 0,
                table => word(table * 512 + grain % 512 * 4) as u32,
            };
            assert_eq!(of(48), of(56), "grain {grain}");
            of(56)
        })
        .collect()
}

fn sparse_files<'a>(subject: &Subject, files: &'a Files) -> Vec<&'a Vec<u8>> {
    let own = if subject.name == "child" { 1 } else { files.len() };
    files[..own].iter().filter(|file| file.starts_with(b"KDMV")).collect()
}

#[test]
fn the_content_stays_and_the_file_is_as_short_as_it_can_be() {
    for subject in subjects() {
        for how in HOW {
            let recorder = subject.recorder();
            let disk = subject.open(&recorder, true);
            let mut told = Vec::new();
            let freed = disk.rearrange(how, &mut |percent| told.push(percent)).unwrap();
            assert!(read_all(&disk) == subject.content, "{}, {how:?}: the content changed", subject.name);
            disk.write(&[0xab; 1024], 17 * 512).unwrap();
            let mut content = subject.content.clone();
            content[17 * 512..19 * 512].fill(0xab);
            assert!(read_all(&disk) == content);
            disk.finish().unwrap();
            assert!(read_all(&subject.open(&recorder, true)) == content, "{}, {how:?}", subject.name);
            assert_eq!((told.first(), told.last()), (Some(&0), Some(&100)), "{told:?}");
            assert!(told.is_sorted());
            let after = recorder.files();
            assert!(how == Arrange::Order || freed > 0, "{}: nothing was freed", subject.name);
            for file in sparse_files(&subject, &after) {
                let used: Vec<u32> = entries(file).into_iter().filter(|&e| e > 0).collect();
                let unique: BTreeSet<u32> = used.iter().copied().collect();
                assert_eq!(unique.len(), used.len());
                let (Some(first), Some(last)) = (unique.first(), unique.last()) else { continue };
                // The write at the end may have added a grain; tables may stand among the grains.
                let room = u64::from(last - first) / GRAIN + 1;
                assert!(room <= used.len() as u64 + 3, "{}: {unique:?}", subject.name);
            }
        }
    }
}

#[test]
fn putting_in_order_puts_in_order() {
    for subject in subjects() {
        let recorder = subject.recorder();
        let disk = subject.open(&recorder, true);
        disk.rearrange(Arrange::Order, &mut |_| ()).unwrap();
        disk.finish().unwrap();
        let files = recorder.files();
        for file in sparse_files(&subject, &files) {
            let used: Vec<u32> = entries(file).into_iter().filter(|&e| e > 0).collect();
            assert!(used.is_sorted(), "{}: {used:?}", subject.name);
        }
        let before = recorder.position();
        let disk = subject.open(&recorder, true);
        disk.rearrange(Arrange::Order, &mut |_| ()).unwrap();
        disk.finish().unwrap();
        let moved = recorder.ops()[before..].iter().filter(|op| big_write(op)).count();
        assert_eq!(moved, 0, "{}: grains in order were moved", subject.name);
    }
}

fn big_write(op: &crash_storage::Op) -> bool {
    matches!(op, crash_storage::Op::Write { bytes, .. } if bytes.len() as u64 >= GRAIN * 512)
}

#[test]
fn zeros_of_a_child_that_hide_its_parent_stay() {
    let subject = child();
    let recorder = subject.recorder();
    let disk = subject.open(&recorder, true);
    let before = entries(&subject.files[0]);
    disk.rearrange(Arrange::Close, &mut |_| ()).unwrap();
    disk.finish().unwrap();
    let after = entries(&recorder.files()[0]);
    let zero = |grain: usize| {
        let start = grain * GRAIN as usize * 512;
        subject.content[start..subject.content.len().min(start + GRAIN as usize * 512)]
            .iter()
            .all(|b| *b == 0)
    };
    let hiding = (0..GRAINS as usize).filter(|&g| zero(g) && before[g] > 0 && after[g] > 0).count();
    let freed = (0..GRAINS as usize).filter(|&g| before[g] > 0 && after[g] == 0).count();
    assert!(hiding > 0 && freed > 0, "{hiding} stay, {freed} go: the test needs both");

    // Without its parent nothing can be known, and nothing goes.
    let recorder = subject.recorder();
    let mut alone = options(true);
    alone.single_link = true;
    let disk = Disk::open(recorder.place(&subject.names[0]).unwrap(), &alone).unwrap();
    disk.rearrange(Arrange::Close, &mut |_| ()).unwrap();
    disk.finish().unwrap();
    let kept = entries(&recorder.files()[0]).iter().filter(|e| **e > 0).count();
    assert_eq!(kept, before.iter().filter(|e| **e > 0).count());
}

/// The content is what it was, the disk is clean after the repair of opening, and takes writes.
fn unharmed(subject: &Subject, files: Files, what: &str) {
    let recorder = Recorder::new(&subject.names, files);
    for round in 0..2 {
        let disk = Disk::open(recorder.place(&subject.names[0]).unwrap(), &options(true))
            .unwrap_or_else(|e| panic!("{what}, open {round}: {e}"));
        assert!(read_all(&disk) == subject.content, "{what}, open {round}: the content changed");
        disk.write(&subject.content[..512], 0).unwrap();
        disk.finish().unwrap();
    }
    let found = check_link(&recorder.place(&subject.names[0]).unwrap(), false, &Log::none()).unwrap();
    assert_eq!(found.found, 0, "{what}: faults are left");
}

#[test]
fn a_cut_at_any_moment_leaves_the_content_as_it_was() {
    for subject in subjects() {
        for how in HOW {
            let recorder = subject.recorder();
            let disk = subject.open(&recorder, true);
            disk.rearrange(how, &mut |_| ()).unwrap();
            disk.finish().unwrap();
            let ops = recorder.ops();
            let mut random = Random(9);
            for now in telling_positions(&ops) {
                let mut number = 0;
                after_power_cut(&subject.files, &ops, now, &mut random, 10, &mut |files| {
                    number += 1;
                    let what = format!("{}, {how:?}, cut after {now}, state {number}", subject.name);
                    unharmed(&subject, files, &what);
                });
            }
            for now in (0..=ops.len()).step_by(3) {
                let what = format!("{}, {how:?}, killed after {now}", subject.name);
                unharmed(&subject, after_kill(&subject.files, &ops, now), &what);
            }
        }
    }
}

#[test]
fn any_failing_call_is_told_and_does_no_harm() {
    for subject in subjects() {
        for how in HOW {
            for forever in [false, true] {
                for nth in (0..).step_by(if forever { 5 } else { 1 }) {
                    let recorder = subject.recorder();
                    let disk = subject.open(&recorder, true);
                    recorder.fail(nth, forever);
                    let outcome = disk.rearrange(how, &mut |_| ());
                    let failed = recorder.heal();
                    let what = format!("{}, {how:?}, call {nth}, forever {forever}", subject.name);
                    assert_eq!(outcome.is_err(), failed, "{what}: {outcome:?}");
                    assert!(read_all(&disk) == subject.content, "{what}: reads something else");
                    if failed {
                        let refused = disk.write(&[1; 512], 0);
                        assert!(refused.is_err(), "{what}: writes although the tables may differ");
                    }
                    let _ = disk.finish(); // what was refused may be refused again
                    drop(disk);
                    unharmed(&subject, recorder.files(), &what);
                    if !failed {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_disk_that_is_open_for_reading_is_left_alone() {
    let subject = base();
    let recorder = subject.recorder();
    let disk = subject.open(&recorder, false);
    let refused = disk.rearrange(Arrange::Close, &mut |_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    assert_eq!(recorder.position(), 0);
}

/// An independent reader finds the same content, and no fault.
#[test]
fn qemu_reads_what_was_rearranged() {
    let folder = tempfile::tempdir().unwrap();
    let qemu = |args: &[&std::ffi::OsStr]| std::process::Command::new("qemu-img").args(args).output();
    if let Err(e) = qemu(&["--version".as_ref()]) {
        assert!(std::env::var_os("CI").is_none(), "qemu-img: {e}");
        eprintln!("skipped: qemu-img: {e}");
        return;
    }
    let subject = base();
    for how in HOW {
        let recorder = subject.recorder();
        let disk = subject.open(&recorder, true);
        disk.rearrange(how, &mut |_| ()).unwrap();
        disk.finish().unwrap();
        let (file, raw) = (folder.path().join("after.vmdk"), folder.path().join("content.raw"));
        std::fs::write(&file, &recorder.files()[0]).unwrap();
        std::fs::write(&raw, &subject.content).unwrap();
        let (file, raw) = (file.as_os_str(), raw.as_os_str());
        let compared =
            ["compare", "-f", "vmdk", "-F", "raw"].map(std::ffi::OsStr::new).into_iter().chain([file, raw]);
        for args in [compared.collect(), vec!["check".as_ref(), file]] {
            let out = qemu(&args).unwrap();
            assert!(out.status.success(), "{how:?}, {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
}
