//! Disks whose host loses power, or whose writer is killed, at any moment: each sector then has its old or its new
//! content, everything flushed is there, the tables agree, and the descriptor is the old or the new one.
//!
//! The repair that opening for writing does is cut short too.
#![allow(clippy::unwrap_used)]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::collections::BTreeSet;

use vixDiskLib::disk::Disk;

use crash_storage::Files;
use crash_storage::Op;
use crash_storage::Random;
use crash_storage::Recorder;
use crash_storage::after_kill;
use crash_storage::after_power_cut;
use crash_storage::telling_positions;
use fuzz_bodies::chain::options;
use fuzz_bodies::images;
use fuzz_bodies::images::SparseSpec;

const GRAINS: u64 = 30;
const GRAIN: u64 = 8;
const CAPACITY: u64 = GRAINS * GRAIN - 3;
/// The mark of sectors that the parent has data in.
const PARENT: u8 = 0xee;
const KEY: &str = "toolsVersion";

/// A disk before anything happened.
#[derive(Clone)]
struct Subject {
    name: &'static str,
    names: Vec<String>,
    files: Files,
    /// The mark of each sector.
    content: Vec<u8>,
    is_child: bool,
}

/// What happened to a disk, seen from its user.
struct Story {
    subject: Subject,
    ops: Vec<Op>,
    writes: Vec<Write>,
    /// Numbers of changes when a flush returned.
    flushes: Vec<usize>,
    /// Values of the key: number of changes when the call began and returned.
    values: Vec<(String, usize, usize)>,
}

struct Write {
    sector: u64,
    count: u64,
    mark: u8,
    begun: usize,
    done: usize,
}

fn marks(file: &[u8], content: &mut [u8]) -> Vec<u8> {
    // The builder stamps sectors; the tests tell them apart by one repeated byte.
    let mut file = file.to_vec();
    for sector in file.chunks_mut(512).filter(|s| s.len() == 512 && s[7] == 0x80 && s[15] == 0x80) {
        sector.fill(PARENT);
    }
    for (lba, mark) in content.iter_mut().enumerate() {
        *mark = if [0, 3, 7].contains(&(lba as u64 / GRAIN)) { PARENT } else { 0 };
    }
    file
}

fn spec(descriptor: String, data: Vec<u64>) -> SparseSpec {
    SparseSpec { version: 1, flags: 3, capacity: CAPACITY, grain: GRAIN, data, zero: vec![], descriptor }
}

fn base() -> Subject {
    let text = images::descriptor(CAPACITY, "monolithicSparse", &format!("RW {CAPACITY} SPARSE \"d.vmdk\""));
    let mut content = vec![0; CAPACITY as usize];
    let file = marks(&images::sparse(&spec(text, vec![3, 0, 7])).file, &mut content);
    Subject { name: "base", names: vec!["d.vmdk".into()], files: vec![file], content, is_child: false }
}

fn child() -> Subject {
    let parent = base();
    let line = format!("RW {CAPACITY} SPARSE \"c.vmdk\"");
    let text = images::child_descriptor("monolithicSparse", &line, "d.vmdk");
    let file = images::sparse(&spec(text, vec![])).file;
    let names = vec!["c.vmdk".into(), "d.vmdk".into()];
    let files = vec![file, parent.files[0].clone()];
    Subject { name: "child", names, files, content: parent.content, is_child: true }
}

/// A text descriptor with a sparse and a flat extent.
fn split() -> Subject {
    let half = CAPACITY / 2 / GRAIN * GRAIN;
    let rest = CAPACITY - half;
    let lines = format!("RW {half} SPARSE \"s1.vmdk\"\nRW {rest} FLAT \"f1.vmdk\" 0");
    let text = images::descriptor(CAPACITY, "twoGbMaxExtentSparse", &lines);
    let sparse = images::sparse(&SparseSpec { capacity: half, ..spec(String::new(), vec![]) }).file;
    let names = ["d.vmdk", "s1.vmdk", "f1.vmdk"].map(String::from).to_vec();
    let files = vec![text.into_bytes(), sparse, vec![0; rest as usize * 512]];
    Subject { name: "split", names, files, content: vec![0; CAPACITY as usize], is_child: false }
}

/// Writes at random, with flushes, publishing and metadata between.
fn tell(subject: Subject, seed: u64) -> Story {
    let mut random = Random(seed);
    let recorder = Recorder::new(&subject.names, subject.files.clone());
    let disk = Disk::open(recorder.place(&subject.names[0]).unwrap(), &options(true)).unwrap();
    let (mut writes, mut flushes, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for mark in 1..16u8 {
        let sector = random.below(CAPACITY);
        let count = (1 + random.below(20)).min(CAPACITY - sector);
        // Some writes are zeros: they allocate nothing on a base, but must hide the parent of a child.
        let mark = if random.below(6) == 0 { 0 } else { mark };
        let begun = recorder.position();
        disk.write(&vec![mark; count as usize * 512], sector * 512).unwrap();
        writes.push(Write { sector, count, mark, begun, done: recorder.position() });
        match random.below(6) {
            0 => {
                disk.flush().unwrap();
                flushes.push(recorder.position());
            }
            1 => disk.publish().unwrap(),
            2 => {
                let value = "v".repeat(random.below(400) as usize);
                let begun = recorder.position();
                disk.leaf().change_descriptor(|d| d.set_ddb(KEY, &value)).unwrap();
                values.push((value, begun, recorder.position()));
            }
            _ => {}
        }
    }
    disk.finish().unwrap();
    flushes.push(recorder.position());
    Story { subject, ops: recorder.ops(), writes, flushes, values }
}

impl Story {
    /// What each sector may hold when changes up to `now` were begun and those up to `sure` must be there.
    fn allowed(&self, sure: usize, now: usize) -> Vec<BTreeSet<u8>> {
        let mut allowed: Vec<BTreeSet<u8>> =
            self.subject.content.iter().map(|mark| BTreeSet::from([*mark])).collect();
        for w in self.writes.iter().filter(|w| w.begun < now) {
            for sector in &mut allowed[w.sector as usize..(w.sector + w.count) as usize] {
                if w.done <= sure {
                    sector.clear();
                }
                sector.insert(w.mark);
            }
        }
        allowed
    }

    fn check_value(&self, disk: &Disk, sure: usize, now: usize, what: &str) {
        let found = disk.leaf().with_descriptor(|d| d.ddb(KEY).map(str::to_owned));
        let mut allowed = vec![None];
        for (value, begun, done) in self.values.iter().filter(|v| v.1 < now) {
            if *done <= sure {
                allowed.clear();
            }
            let _ = begun;
            allowed.push(Some(value.clone()));
        }
        assert!(allowed.contains(&found), "{what}: the key is {found:?}, not one of {allowed:?}");
    }

    /// Opens what a cut left behind, twice, and looks at everything. Says what the first opening did to the files.
    fn check(&self, files: Files, sure: usize, now: usize, what: &str) -> Vec<Op> {
        let allowed = self.allowed(sure, now);
        let recorder = Recorder::new(&self.subject.names, files);
        let mut repair = Vec::new();
        let mut before: Option<Vec<u8>> = None;
        for round in ["read-only", "repaired", "again"] {
            let place = recorder.place(&self.subject.names[0]).unwrap();
            let disk = Disk::open(place, &options(round != "read-only"))
                .unwrap_or_else(|e| panic!("{what}, {round}: does not open: {e}"));
            if round == "repaired" {
                repair = recorder.ops();
            }
            // Before the repair, grains whose data never arrived may lie past the end of the file.
            if round == "read-only" {
                continue;
            }
            let mut content = vec![0; CAPACITY as usize * 512];
            disk.read(&mut content, 0).unwrap_or_else(|e| panic!("{what}, {round}: {e}"));
            for (sector, bytes) in content.chunks(512).enumerate() {
                assert!(bytes.iter().all(|b| *b == bytes[0]), "{what}, {round}: sector {sector} is torn");
                assert!(
                    allowed[sector].contains(&bytes[0]),
                    "{what}, {round}: sector {sector} holds {:#x}, not one of {:x?}",
                    bytes[0],
                    allowed[sector]
                );
            }
            self.check_value(&disk, sure, now, what);
            // A child of the old content must never look valid on top of changed content.
            let old = disk.leaf().with_descriptor(|d| matches!(d.cid(), Some(0x1234_5678 | 0x0bad_cafe)));
            let changed = content.chunks(512).zip(&self.subject.content).any(|(s, mark)| s[0] != *mark);
            assert!(!(old && changed), "{what}, {round}: changed content under the old content id");
            assert!(before.as_ref().is_none_or(|b| *b == content), "{what}: differs when opened again");
            // Opening again must find a clean disk that takes writes.
            if round == "repaired" {
                let mark = content[0];
                disk.write(&[mark; 512], 0).unwrap();
            }
            before = Some(content);
            disk.finish().unwrap();
        }
        repair
    }

    /// Checks the files, and the files after a cut in the middle of their repair.
    fn check_with_repair(&self, files: &Files, sure: usize, now: usize, what: &str, random: &mut Random) {
        let repair = self.check(files.clone(), sure, now, what);
        if repair.is_empty() || random.below(6) > 0 {
            return;
        }
        let cut = random.below(repair.len() as u64 + 1) as usize;
        let what = format!("{what}, cut again after {cut} changes of the repair");
        let mut dice = Random(random.below(1 << 40));
        after_power_cut(files, &repair, cut, &mut dice, 3, &mut |files| {
            self.check(files, sure, now, &what);
        });
    }
}

fn subjects() -> [Subject; 3] {
    [base(), child(), split()]
}

#[test]
fn a_power_cut_leaves_old_or_new_content_and_all_that_was_flushed() {
    for (i, subject) in subjects().into_iter().enumerate() {
        for seed in 0..3 {
            let name = subject.name;
            let story = tell(subject.clone(), 100 * i as u64 + seed);
            let mut random = Random(seed);
            for now in telling_positions(&story.ops) {
                let sure = story.flushes.iter().copied().filter(|&f| f <= now).max().unwrap_or(0);
                let what = format!("{name}, seed {seed}, cut after {now} of {}", story.ops.len());
                let (mut number, mut dice) = (0, random.clone());
                after_power_cut(&story.subject.files, &story.ops, now, &mut random, 12, &mut |files| {
                    number += 1;
                    let what = format!("{what}, state {number}");
                    story.check_with_repair(&files, sure, now, &what, &mut dice);
                });
            }
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    for (i, subject) in subjects().into_iter().enumerate() {
        let story = tell(subject, 7 + i as u64);
        for now in 0..=story.ops.len() {
            // A child keeps its newest entries back until they are published.
            let published = story.flushes.iter().copied().filter(|&f| f <= now).max().unwrap_or(0);
            let sure = if story.subject.is_child { published } else { now };
            let files = after_kill(&story.subject.files, &story.ops, now);
            story.check(files, sure, now, &format!("{}, killed after {now}", story.subject.name));
        }
    }
}
