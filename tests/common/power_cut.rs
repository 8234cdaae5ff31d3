//! What a power cut may leave of recorded files and folders.
//!
//! Of a file, each sector holds one of the states it went through since the file was last flushed; a length arrives only
//! after the lengths before it, and what lies past the length that arrived is gone. Of a folder, changes of names arrive in
//! their order, any number of those since the folder was last flushed, whatever arrived of other folders and of the files:
//! a name may be there before its file's content. A renaming between two folders is a change of each. There are two other
//! kinds of cuts: that of a journal, where the names of all folders arrive in one order, and any flush takes all before it
//! along; and that of a file system without one, where of the changes since the last flush any may arrive without the others.
#![allow(dead_code)] // each test program uses its part

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use vixDiskLib::storage::Access;
use vixDiskLib::storage::file_system::FileSystem;
use vixDiskLib::storage::file_system::Host;

use super::crash_storage::Choice;
use super::crash_storage::Random;
use super::crash_storage::picks;
use super::recorder::Node;
use super::recorder::Op;

const SECTOR: u64 = 512;

/// The content of a file; sectors that are not listed are zeros.
#[derive(Clone, Debug, Default)]
pub struct Content {
    len: u64,
    sectors: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.len = self.len.max(at + bytes.len() as u64);
        }
        let mut done = 0;
        while done < bytes.len() {
            let now = at + done as u64;
            let skip = (now % SECTOR) as usize;
            let part = (bytes.len() - done).min(SECTOR as usize - skip);
            let sector = self.sectors.entry(now / SECTOR).or_insert_with(|| vec![0; SECTOR as usize]);
            sector[skip..skip + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.sectors.retain(|sector, _| sector * SECTOR < len);
            if let Some(last) = self.sectors.get_mut(&(len / SECTOR)) {
                last[(len % SECTOR) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { at, bytes, .. } => self.write(*at, bytes),
            Op::Length { len, .. } => self.set_len(*len),
            _ => {}
        }
    }

    fn hash(&self, hasher: &mut DefaultHasher) {
        self.len.hash(hasher);
        let data = self.sectors.iter().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0));
        data.for_each(|sector| sector.hash(hasher));
    }

    fn store(&self, path: &Path) {
        let file = std::fs::File::create_new(path).unwrap();
        file.set_len(self.len).unwrap();
        for (sector, bytes) in &self.sectors {
            let at = sector * SECTOR;
            let end = (self.len.saturating_sub(at)).min(SECTOR) as usize;
            if bytes.iter().any(|byte| *byte != 0) {
                file.write_all_at(&bytes[..end], at).unwrap();
            }
        }
    }
}

/// Folders with their names, and files.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    folders: BTreeMap<PathBuf, BTreeMap<OsString, Node>>,
    files: Vec<Arc<Content>>,
}

impl Tree {
    /// What is in a real folder, and which inode is which file.
    pub fn read(root: &Path) -> (Tree, HashMap<u64, usize>) {
        let (mut tree, mut ids) = (Tree::default(), HashMap::new());
        tree.read_folder(root, Path::new(""), &mut ids);
        (tree, ids)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path, ids: &mut HashMap<u64, usize>) {
        let mut names = BTreeMap::new();
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let node = if meta.is_dir() {
                self.read_folder(root, &folder.join(entry.file_name()), ids);
                Node::Folder
            } else {
                Node::File(*ids.entry(meta.ino()).or_insert_with(|| {
                    self.files.push(Arc::new(read_file(&entry.path())));
                    self.files.len() - 1
                }))
            };
            names.insert(entry.file_name(), node);
        }
        self.folders.insert(folder.to_owned(), names);
    }

    fn file(&mut self, file: usize) -> &mut Content {
        if self.files.len() <= file {
            self.files.resize_with(file + 1, Arc::default);
        }
        Arc::make_mut(&mut self.files[file])
    }

    /// Makes a change.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { file, .. } | Op::Length { file, .. } | Op::Flush { file } => {
                self.file(*file).apply(op);
            }
            Op::Names { folder, changes } => {
                let names = self.folders.entry(folder.clone()).or_default();
                for (name, node) in changes {
                    match node {
                        Some(node) => drop(names.insert(name.clone(), *node)),
                        None => drop(names.remove(name)),
                    }
                }
            }
            Op::FlushNames { .. } => {}
        }
    }

    /// Makes the files in an empty folder.
    pub fn store(&self, root: &Path) {
        let mut first: HashMap<usize, PathBuf> = HashMap::new();
        self.store_folder(root, Path::new(""), &mut first);
    }

    fn store_folder(&self, root: &Path, folder: &Path, first: &mut HashMap<usize, PathBuf>) {
        for (name, node) in self.folders.get(folder).into_iter().flatten() {
            let (path, inner) = (root.join(folder).join(name), folder.join(name));
            match node {
                Node::Folder => {
                    std::fs::create_dir(&path).unwrap();
                    self.store_folder(root, &inner, first);
                }
                Node::File(file) => match first.get(file) {
                    Some(known) => std::fs::hard_link(known, &path).unwrap(),
                    None => {
                        self.files.get(*file).cloned().unwrap_or_default().store(&path);
                        first.insert(*file, path);
                    }
                },
            }
        }
    }

    /// The same for trees that look the same.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut numbers = HashMap::new();
        self.hash_folder(Path::new(""), &mut numbers, &mut hasher);
        hasher.finish()
    }

    fn hash_folder(&self, folder: &Path, numbers: &mut HashMap<usize, usize>, hasher: &mut DefaultHasher) {
        for (name, node) in self.folders.get(folder).into_iter().flatten() {
            name.hash(hasher);
            match node {
                Node::Folder => self.hash_folder(&folder.join(name), numbers, hasher),
                Node::File(file) => {
                    let next = numbers.len();
                    numbers.entry(*file).or_insert(next).hash(hasher);
                    self.files.get(*file).cloned().unwrap_or_default().hash(hasher);
                }
            }
        }
        "end".hash(hasher);
    }
}

fn read_file(path: &Path) -> Content {
    let file = Host.open(path, Access::READ).unwrap();
    let size = file.size().unwrap();
    let mut parts = Vec::new();
    file.allocated(0..size, &mut |part| parts.push(part)).unwrap();
    let mut content = Content::default();
    for part in parts {
        let mut bytes = vec![0; (part.end - part.start) as usize];
        file.read_at(&mut bytes, part.start).unwrap();
        content.write(part.start, &bytes);
    }
    content.len = size;
    content
}

/// The tree when the process was killed after `now` changes: everything done is there.
pub fn after_kill(initial: &Tree, ops: &[Op], now: usize) -> Tree {
    let mut tree = initial.clone();
    ops[..now].iter().for_each(|op| tree.apply(op));
    tree
}

/// The positions after which a cut shows most: before every flush, and the end. What may be lost at any other position
/// may be lost at the next of these too.
pub fn telling_positions(ops: &[Op]) -> Vec<usize> {
    let barrier = |op: &Op| matches!(op, Op::Flush { .. } | Op::FlushNames { .. });
    let mut positions: Vec<usize> = (0..ops.len()).filter(|&i| barrier(&ops[i])).collect();
    positions.push(ops.len());
    positions
}

/// Calls `sink` with what a cut after `now` changes may leave: of the names every combination when they are few, else those
/// of [`picks`], each with none, all, and mostly `samples` random parts of the data that was not flushed.
pub fn after_power_cut(
    initial: &Tree,
    ops: &[Op],
    now: usize,
    random: &mut Random,
    samples: usize,
    sink: &mut dyn FnMut(Tree),
) {
    let cut = Cut::new(initial, &ops[..now]);
    let choices: Vec<Choice> = cut.names.iter().map(|events| Choice { states: events.len() }).collect();
    for picked in picks(&choices, random, 12) {
        let names = cut.first_of_each_folder(&picked);
        arrivals(samples, random).into_iter().for_each(|data| sink(cut.build(&names, data)));
    }
    let loose: Vec<&Op> = cut.names.iter().flatten().copied().collect();
    for picked in picks(&vec![Choice { states: 1 }; loose.len()], random, 4) {
        let names = loose.iter().zip(&picked).filter(|(_, picked)| **picked > 0).map(|(op, _)| *op);
        let names: Vec<&Op> = names.collect();
        arrivals(0, random).into_iter().for_each(|data| sink(cut.build(&names, data)));
    }
    let flush = |op: &Op| matches!(op, Op::Flush { .. } | Op::FlushNames { .. });
    let since = ops[..now].iter().rposition(flush).map_or(0, |at| at + 1);
    for until in since..=now {
        if until == now || matches!(ops[until], Op::Names { .. }) {
            let journal = Cut::new(initial, &ops[..until]);
            let names: Vec<&Op> = journal.names.iter().flatten().copied().collect();
            arrivals(samples, random).into_iter().for_each(|data| sink(journal.build(&names, data)));
        }
    }
}

/// How much of the data arrived that was not flushed.
#[derive(Clone, Copy, Debug)]
enum Arrived {
    Nothing,
    All,
    Some(u64),
}

fn arrivals(samples: usize, random: &mut Random) -> Vec<Arrived> {
    let some = (0..samples).map(|_| Arrived::Some(random.below(u64::MAX)));
    [Arrived::Nothing, Arrived::All].into_iter().chain(some).collect()
}

/// What is sure after a cut, and what may be there besides.
struct Cut<'a> {
    sure: Tree,
    /// For each folder the changes since its last flush.
    names: Vec<Vec<&'a Op>>,
    /// For each file that has some, what happened since its last flush.
    data: Vec<(usize, Vec<Event>)>,
}

enum Event {
    /// The file got this length.
    Length(u64),
    /// A sector got this content.
    Sector(u64, Vec<u8>),
}

impl<'a> Cut<'a> {
    fn new(initial: &Tree, ops: &'a [Op]) -> Self {
        let mut sure = initial.clone();
        let (mut names, mut data) = (BTreeMap::<&Path, Vec<&Op>>::new(), BTreeMap::<usize, Vec<&Op>>::new());
        for op in ops {
            match op {
                Op::Write { file, .. } | Op::Length { file, .. } => data.entry(*file).or_default().push(op),
                Op::Names { folder, .. } => names.entry(folder).or_default().push(op),
                Op::Flush { file } => {
                    data.remove(file).into_iter().flatten().for_each(|op| sure.apply(op));
                }
                Op::FlushNames { folder } => {
                    names.remove(&**folder).into_iter().flatten().for_each(|op| sure.apply(op));
                }
            }
        }
        let data = data.into_iter().map(|(file, ops)| {
            let base = sure.files.get(file).cloned().unwrap_or_default();
            (file, events(&base, &ops))
        });
        Cut { names: names.into_values().collect(), data: data.collect(), sure }
    }

    /// So many changes of each folder.
    fn first_of_each_folder(&self, counts: &[usize]) -> Vec<&'a Op> {
        self.names.iter().zip(counts).flat_map(|(ops, count)| ops[..*count].iter().copied()).collect()
    }

    /// The tree with these changes of names.
    fn build(&self, names: &[&Op], arrived: Arrived) -> Tree {
        let mut tree = self.sure.clone();
        names.iter().for_each(|op| tree.apply(op));
        for (file, events) in &self.data {
            arrive(tree.file(*file), events, arrived);
        }
        tree
    }
}

fn events(base: &Content, ops: &[&Op]) -> Vec<Event> {
    let (mut now, mut events) = (base.clone(), Vec::new());
    for op in ops {
        let before = now.len;
        now.apply(op);
        if now.len != before {
            events.push(Event::Length(now.len));
        }
        if let Op::Write { at, bytes, .. } = op
            && !bytes.is_empty()
        {
            for sector in at / SECTOR..(at + bytes.len() as u64).div_ceil(SECTOR) {
                events.push(Event::Sector(sector, now.sectors[&sector].clone()));
            }
        }
    }
    events
}

/// Some of the events happen to a file. Of each sector any number of its states, of the lengths any number.
fn arrive(content: &mut Content, events: &[Event], arrived: Arrived) {
    let count = events.iter().filter(|event| matches!(event, Event::Length(_))).count();
    let mut random = Random(0);
    let lengths = match arrived {
        Arrived::Nothing => return,
        Arrived::All => count,
        Arrived::Some(seed) => {
            random = Random(seed);
            random.below(count as u64 + 1) as usize
        }
    };
    let chance = random.below(8);
    let mut stopped: HashMap<u64, bool> = HashMap::new();
    // What was written past a cut that did not arrive went to space that the file does not have.
    let (mut nth, mut lost_from, mut would_be) = (0, u64::MAX, content.len);
    for event in events {
        match event {
            Event::Length(len) => {
                nth += 1;
                if nth <= lengths {
                    content.set_len(*len);
                } else if *len < would_be {
                    lost_from = lost_from.min(*len);
                }
                would_be = *len;
            }
            Event::Sector(sector, bytes) => {
                let stop = stopped.entry(*sector).or_default();
                *stop |= matches!(arrived, Arrived::Some(_)) && random.below(8) < chance;
                let at = sector * SECTOR;
                if !*stop && at < lost_from && at < content.len {
                    let end = (content.len - at).min(SECTOR) as usize;
                    content.write(at, &bytes[..end]);
                }
            }
        }
    }
}
