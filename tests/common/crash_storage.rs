//! A folder of files in memory that records every change and flush, and makes what a power cut may leave behind.
//!
//! What is lost in a cut is decided sector by sector. A sector of a file holds, after the cut, one of the states it went
//! through since the file was last flushed; a length of the file arrives only after the lengths before it; what lies past
//! the length that arrived is gone. Replacing a file is one step and durable, as with a rename of a synced file.
#![allow(dead_code)] // each test program uses its part

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::storage::Access;
use vixDiskLib::storage::Folder;
use vixDiskLib::storage::Identity;
use vixDiskLib::storage::Place;
use vixDiskLib::storage::Storage;

const SECTOR: usize = 512;

/// One change of a file.
#[derive(Clone, Debug)]
pub enum Op {
    Write { file: usize, at: usize, bytes: Vec<u8> },
    Length { file: usize, len: usize },
    Flush { file: usize },
    Replace { file: usize, bytes: Vec<u8> },
}

/// The content of all files.
pub type Files = Vec<Vec<u8>>;

/// Files that are recorded.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    names: Vec<String>,
    files: Files,
    ops: Vec<Op>,
    calls: usize,
    /// The number of the call that fails, and all after it if the flag is set.
    fails: Option<(usize, bool)>,
    failed: bool,
}

#[derive(Debug)]
struct File {
    recorder: Recorder,
    index: usize,
}

impl Recorder {
    pub fn new(names: &[String], files: Files) -> Self {
        let state =
            State { names: names.to_vec(), files, ops: Vec::new(), calls: 0, fails: None, failed: false };
        Self(Arc::new(Mutex::new(state)))
    }

    /// From now on the `nth` call on any file fails; with `forever` so do all that follow.
    pub fn fail(&self, nth: usize, forever: bool) {
        let mut state = self.0.lock().unwrap();
        state.calls = 0;
        state.fails = Some((nth, forever));
        state.failed = false;
    }

    /// No call fails from now on; says whether one did.
    pub fn heal(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        state.fails = None;
        state.failed
    }

    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    pub fn files(&self) -> Files {
        self.0.lock().unwrap().files.clone()
    }

    pub fn ops(&self) -> Vec<Op> {
        self.0.lock().unwrap().ops.clone()
    }

    /// How many changes there were.
    pub fn position(&self) -> usize {
        self.0.lock().unwrap().ops.len()
    }

    pub fn place(&self, name: &str) -> Result<Place> {
        let index = self.index(name)?;
        let storage = Arc::new(File { recorder: self.clone(), index });
        let identity = Identity(7, index as u64);
        let folder = Arc::new(self.clone());
        Ok(Place { storage, folder, name: name.into(), label: name.to_owned(), identity })
    }

    /// The storage of a file.
    pub fn storage(&self, name: &str) -> Arc<dyn Storage> {
        self.place(name).unwrap().storage
    }

    fn index(&self, name: &str) -> Result<usize> {
        let state = self.0.lock().unwrap();
        let found = state.names.iter().position(|known| known == name);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no file {name:?}")))
    }

    fn call<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let state = &mut *self.0.lock().unwrap();
        let number = state.calls;
        state.calls += 1;
        if let Some((nth, forever)) = state.fails
            && (number == nth || forever && number > nth)
        {
            state.failed = true;
            return Err(Error::from_io(std::io::Error::from_raw_os_error(28), "the planned fault"));
        }
        work(state)
    }

    fn change(&self, op: Op) -> Result<()> {
        self.call(|state| {
            apply(&mut state.files, &op);
            state.ops.push(op);
            Ok(())
        })
    }
}

impl Storage for File {
    fn size(&self) -> Result<u64> {
        Ok(self.recorder.0.lock().unwrap().files[self.index].len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (index, start) = (self.index, usize::try_from(offset).unwrap_or(usize::MAX));
        self.recorder.call(|state| {
            let end = start.checked_add(buf.len());
            match end.and_then(|end| state.files[index].get(start..end)) {
                Some(bytes) => {
                    buf.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(Error::new(ErrorKind::EndOfFile, format!("{} bytes at {start:#x}", buf.len()))),
            }
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.recorder.change(Op::Write { file: self.index, at: offset as usize, bytes: buf.to_vec() })
    }

    fn flush(&self) -> Result<()> {
        self.recorder.change(Op::Flush { file: self.index })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.recorder.change(Op::Length { file: self.index, len: len as usize })
    }

    fn label(&self) -> String {
        self.recorder.0.lock().unwrap().names[self.index].clone()
    }
}

impl Folder for Recorder {
    fn extent(&self, name: &str, _access: Access) -> Result<Arc<dyn Storage>> {
        Ok(self.place(name)?.storage)
    }

    fn parent(&self, hint: &str, nth: usize) -> Result<Option<Place>> {
        if nth == 0 { self.place(hint).map(Some) } else { Ok(None) }
    }

    fn replace(&self, name: &OsStr, bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        let name = name.to_str().unwrap();
        let file = self.index(name)?;
        self.change(Op::Replace { file, bytes: bytes.to_vec() })?;
        Ok(self.storage(name))
    }
}

pub fn apply(files: &mut Files, op: &Op) {
    match op {
        Op::Write { file, at, bytes } => {
            let to = &mut files[*file];
            if to.len() < at + bytes.len() {
                to.resize(at + bytes.len(), 0);
            }
            to[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Op::Length { file, len } => files[*file].resize(*len, 0),
        Op::Flush { .. } => {}
        Op::Replace { file, bytes } => files[*file].clone_from(bytes),
    }
}

fn file_of(op: &Op) -> usize {
    match op {
        Op::Write { file, .. } | Op::Length { file, .. } | Op::Flush { file } | Op::Replace { file, .. } => {
            *file
        }
    }
}

/// Numbers that are the same on every run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end.max(1)
    }
}

/// The positions after which a cut shows most: before every flush, and the end. What may be lost at any other position
/// may be lost at the next of these too.
pub fn telling_positions(ops: &[Op]) -> Vec<usize> {
    let barrier = |op: &Op| matches!(op, Op::Flush { .. } | Op::Replace { .. });
    let mut positions: Vec<usize> = (0..ops.len()).filter(|&i| barrier(&ops[i])).collect();
    positions.push(ops.len());
    positions
}

/// What may or may not have arrived of one file.
struct Doubt {
    base: Vec<u8>,
    events: Vec<Event>,
    /// Which choice is that of the lengths.
    lengths: usize,
}

enum Event {
    /// The n-th of the lengths.
    Length(usize, usize),
    /// The n-th state of a sector.
    Sector { key: usize, nth: usize, at: usize, bytes: Vec<u8> },
}

/// One thing that can be in one of several states.
#[derive(Clone, Copy)]
pub struct Choice {
    pub states: usize,
}

impl Doubt {
    fn new(file: usize, files: &Files, ops: &[Op], choices: &mut Vec<Choice>) -> Self {
        let base = files[file].clone();
        let mut now = base.clone();
        let mut events = Vec::new();
        let lengths = choices.len();
        choices.push(Choice { states: 0 });
        let mut sectors: BTreeMap<usize, usize> = BTreeMap::new();
        for op in ops.iter().filter(|op| file_of(op) == file) {
            let (range, before) = match op {
                Op::Write { at, bytes, .. } => (*at..at + bytes.len(), now.len()),
                _ => (0..0, now.len()),
            };
            let mut whole = vec![Vec::new(); file + 1];
            whole[file] = now;
            apply(&mut whole, op);
            now = whole.swap_remove(file);
            if now.len() != before {
                choices[lengths].states += 1;
                events.push(Event::Length(choices[lengths].states, now.len()));
            }
            for sector in sectors_of(&range) {
                let at = sector * SECTOR;
                let key = *sectors.entry(sector).or_insert_with(|| {
                    choices.push(Choice { states: 0 });
                    choices.len() - 1
                });
                choices[key].states += 1;
                let bytes = now[at..now.len().min(at + SECTOR)].to_vec();
                events.push(Event::Sector { key, nth: choices[key].states, at, bytes });
            }
        }
        Self { base, events, lengths }
    }

    /// The file when `picked` states arrived.
    fn build(&self, picked: &[usize]) -> Vec<u8> {
        let mut bytes = self.base.clone();
        // What was written past a cut that did not arrive went to space that the file does not have.
        let mut lost_from = usize::MAX;
        let mut would_be = bytes.len();
        for event in &self.events {
            match event {
                Event::Length(nth, len) if *nth <= picked[self.lengths] => {
                    bytes.resize(*len, 0);
                    would_be = *len;
                }
                Event::Length(_, len) => {
                    if *len < would_be {
                        lost_from = lost_from.min(*len);
                    }
                    would_be = *len;
                }
                Event::Sector { key, nth, at, bytes: new } => {
                    if *nth <= picked[*key] && *at < lost_from && *at < bytes.len() {
                        let end = bytes.len().min(at + new.len());
                        bytes[*at..end].copy_from_slice(&new[..end - at]);
                    }
                }
            }
        }
        bytes
    }
}

fn sectors_of(range: &Range<usize>) -> Range<usize> {
    if range.is_empty() { 0..0 } else { range.start / SECTOR..range.end.div_ceil(SECTOR) }
}

/// Calls `sink` with what a power cut after `now` changes may leave: every combination when they are few, else the
/// extremes, each change alone missing and alone present, and `samples` at random.
pub fn after_power_cut(
    initial: &Files,
    ops: &[Op],
    now: usize,
    random: &mut Random,
    samples: usize,
    sink: &mut dyn FnMut(Files),
) {
    let mut files = initial.clone();
    let mut starts = vec![0; files.len()];
    for (i, op) in ops[..now].iter().enumerate() {
        if matches!(op, Op::Flush { .. } | Op::Replace { .. }) {
            starts[file_of(op)] = i + 1;
        }
    }
    for (i, op) in ops[..now].iter().enumerate() {
        if i < starts[file_of(op)] {
            apply(&mut files, op);
        }
    }
    let mut choices = Vec::new();
    let mut doubts = Vec::new();
    for file in 0..files.len() {
        doubts.push(Doubt::new(file, &files, &ops[starts[file]..now], &mut choices));
    }
    for picked in picks(&choices, random, samples) {
        sink(doubts.iter().map(|doubt| doubt.build(&picked)).collect());
    }
}

/// Which states to try.
pub fn picks(choices: &[Choice], random: &mut Random, samples: usize) -> Vec<Vec<usize>> {
    let open: Vec<usize> = (0..choices.len()).filter(|&i| choices[i].states > 0).collect();
    let all: Vec<usize> = choices.iter().map(|c| c.states).collect();
    let none = vec![0; choices.len()];
    let count =
        open.iter().try_fold(1usize, |n, &i| n.checked_mul(choices[i].states + 1).filter(|n| *n <= 96));
    if let Some(count) = count {
        return (0..count)
            .map(|mut number| {
                let mut picked = none.clone();
                for &i in &open {
                    picked[i] = number % (choices[i].states + 1);
                    number /= choices[i].states + 1;
                }
                picked
            })
            .collect();
    }
    let mut result = vec![none.clone(), all.clone()];
    let step = open.len().div_ceil(samples.max(1)).max(1);
    let skip = random.below(step as u64) as usize;
    for &i in open.iter().skip(skip).step_by(step) {
        let (mut alone, mut missing) = (none.clone(), all.clone());
        alone[i] = choices[i].states;
        missing[i] = random.below(choices[i].states as u64) as usize;
        result.extend([alone, missing]);
    }
    for _ in 0..samples {
        let chance = 1 + random.below(7);
        let pick = |i: usize, random: &mut Random| match random.below(8) < chance {
            true => choices[i].states - random.below(choices[i].states as u64) as usize,
            false => 0,
        };
        let mut picked = none.clone();
        for &i in &open {
            picked[i] = pick(i, random);
        }
        result.push(picked);
    }
    result
}

/// The files when the process was killed after `now` changes: everything done is there.
pub fn after_kill(initial: &Files, ops: &[Op], now: usize) -> Files {
    let mut files = initial.clone();
    ops[..now].iter().for_each(|op| apply(&mut files, op));
    files
}
