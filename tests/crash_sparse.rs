//! A sparse extent whose writer is killed, or whose host loses power, after any of its changes: each sector then has its
//! old or its new content, and what was acknowledged is there.
#![allow(clippy::unwrap_used)]

mod sparse_images;

use std::collections::HashSet;
use std::sync::Arc;

use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::sparse::Sparse;

use crate::sparse_images::Layout;
use crate::sparse_images::options;
use crate::sparse_images::read_all;
use crate::sparse_images::scan_agrees_with_map;
use crate::sparse_images::trace::Op;
use crate::sparse_images::trace::Trace;
use crate::sparse_images::trace::apply;
use crate::sparse_images::write;

/// A sector's content in these tests: one byte, repeated.
type Mark = u8;

/// What happened to the disk, seen from its user.
struct Story {
    initial: Vec<u8>,
    ops: Vec<Op>,
    parent: Option<Vec<u8>>,
    layout: Layout,
    writes: Vec<Write>,
    /// Number of changes of the file when a flush of the disk returned.
    flushes: Vec<usize>,
}

struct Write {
    sector: u64,
    count: u64,
    mark: Mark,
    /// Number of changes of the file when the write began and when it was acknowledged.
    begun: usize,
    done: usize,
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// Writes at random, with flushes between, abandoned grains, and grains of zeros.
fn tell(seed: u64, parent: bool, layout: Layout) -> Story {
    let mut random = Random(seed);
    let initial = layout.blank();
    let bytes = (layout.capacity * 512) as usize;
    let parent = parent.then(|| vec![0xee; bytes]);
    let deferred = parent.is_some();
    let storage = Arc::new(Trace::new(initial.clone()));
    let image = Sparse::open(storage.clone(), &options(true)).unwrap();
    image.begin_writing().unwrap();
    let (mut writes, mut flushes) = (Vec::new(), vec![]);
    for mark in 1..24u8 {
        let sector = random.below(layout.capacity);
        let count = (1 + random.below(40)).min(layout.capacity - sector);
        let begun = storage.op_count();
        let data = vec![mark; (count * 512) as usize];
        write(&image, parent.as_deref(), sector * 512, &data, deferred).unwrap();
        writes.push(Write { sector, count, mark, begun, done: storage.op_count() });
        match random.below(8) {
            0 => {
                image.flush().unwrap();
                flushes.push(storage.op_count());
            }
            1 => image.publish().unwrap(),
            2 => {
                // A write that fails leaves its space behind with something in it.
                let sector = random.below(layout.capacity);
                if let Ok(Some(pending)) = image.prepare(sector * 512, 512) {
                    pending
                        .storage
                        .write_at(&vec![0xdd; layout.grain as usize * 512], pending.offset)
                        .unwrap();
                    image.abandon(pending);
                }
            }
            _ => {}
        }
    }
    image.finish().unwrap();
    flushes.push(storage.op_count());
    Story { initial, ops: storage.ops(), parent, layout, writes, flushes }
}

impl Story {
    /// What each sector may hold when changes up to `now` were made and all up to `sure` are known to be there.
    fn allowed(&self, sure: usize, now: usize) -> Vec<HashSet<Mark>> {
        let base = if self.parent.is_some() { 0xee } else { 0 };
        let mut allowed = vec![HashSet::from([base]); self.layout.capacity as usize];
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

    fn check(&self, bytes: Vec<u8>, sure: usize, now: usize, what: &str) -> Result<()> {
        let storage = Arc::new(Trace::new(bytes));
        for round in 0..2 {
            let image = Sparse::open(storage.clone(), &options(true))?;
            let content = read_all(&image, self.parent.as_deref())?;
            let allowed = self.allowed(sure, now);
            for (sector, bytes) in content.chunks(512).enumerate() {
                let mark = bytes[0];
                assert!(bytes.iter().all(|&b| b == mark), "{what}: sector {sector} is torn");
                assert!(
                    allowed[sector].contains(&mark),
                    "{what}, open {round}: sector {sector} holds {mark:#x}, not one of {:x?}",
                    allowed[sector]
                );
            }
            scan_agrees_with_map(&image);
            if round == 0 {
                // Writing goes on after the repair, here with what is there already, next to and into everything else.
                for at in [0, content.len() / 2 / 512 * 512, content.len() - 512] {
                    write(&image, self.parent.as_deref(), at as u64, &content[at..at + 512], false)?;
                }
                image.finish()?;
            }
        }
        Ok(())
    }
}

fn layouts() -> [Layout; 3] {
    let small = Layout::new(16 * 60 + 5, 16);
    [small, Layout { tables: false, ..Layout::new(8 * 512 + 9, 8) }, Layout { redundant: false, ..small }]
}

#[test]
fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    for (i, layout) in layouts().into_iter().enumerate() {
        let story = tell(11 + i as u64, false, layout);
        let mut bytes = story.initial.clone();
        for now in 0..=story.ops.len() {
            if let Some(op) = now.checked_sub(1).map(|i| &story.ops[i]) {
                apply(&mut bytes, op);
            }
            story.check(bytes.clone(), now, now, &format!("layout {i}, killed after {now}")).unwrap();
        }
    }
}

#[test]
fn a_killed_writer_of_a_child_leaves_no_third_content() {
    for (i, layout) in layouts().into_iter().enumerate() {
        let story = tell(23 + i as u64, true, layout);
        let mut bytes = story.initial.clone();
        for now in 0..=story.ops.len() {
            if let Some(op) = now.checked_sub(1).map(|i| &story.ops[i]) {
                apply(&mut bytes, op);
            }
            let sure = story.flushes.iter().copied().filter(|&f| f <= now).max().unwrap_or(0);
            story.check(bytes.clone(), sure, now, &format!("layout {i}, killed after {now}")).unwrap();
        }
    }
}

/// After a power loss, any part of what was done since the last flush of the file may be missing, sector by sector.
fn lose_power(story: &Story, now: usize, random: &mut Random) -> Vec<u8> {
    let flushed = (0..now).rev().find(|&i| matches!(story.ops[i], Op::Flush)).map_or(0, |i| i + 1);
    let mut bytes = story.initial.clone();
    story.ops[..flushed].iter().for_each(|op| apply(&mut bytes, op));
    let chance = 1 + random.below(4);
    for op in &story.ops[flushed..now] {
        match op {
            Op::Write { at, bytes: new } => {
                for (i, part) in new.chunks(512).enumerate() {
                    let at = at + i as u64 * 512;
                    // A write does not make the file longer than the last length that arrived.
                    if random.below(4) < chance && at as usize + part.len() <= bytes.len() {
                        apply(&mut bytes, &Op::Write { at, bytes: part.to_vec() });
                    }
                }
            }
            Op::Length(_) if random.below(4) < chance => apply(&mut bytes, op),
            _ => {}
        }
    }
    bytes
}

#[test]
fn a_power_loss_leaves_old_or_new_content_and_all_that_was_flushed() {
    for (i, layout) in layouts().into_iter().enumerate() {
        for parent in [false, true] {
            let story = tell(31 + i as u64, parent, layout);
            let mut random = Random(5 + i as u64);
            for now in 0..=story.ops.len() {
                let sure = story.flushes.iter().copied().filter(|&f| f <= now).max().unwrap_or(0);
                for _ in 0..3 {
                    let bytes = lose_power(&story, now, &mut random);
                    let what = format!("layout {i}, parent {parent}, power lost after {now}");
                    story.check(bytes, sure, now, &what).unwrap();
                }
            }
        }
    }
}
