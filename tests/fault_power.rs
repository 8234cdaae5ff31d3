//! Power fails after the n-th write, for every n: of what was not flushed, any part may be on the disk and any part not.
//!
//! After opening again, everything that was flushed is there, and every sector holds its old content or a new one, never a
//! third: not the bytes of another grain, and on a child not zeros where the parent has data.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;

use vixDiskLib::disk::Disk;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::storage::Access;
use vixDiskLib::storage::Folder;
use vixDiskLib::storage::Place;
use vixDiskLib::storage::Storage;

use fuzz_bodies::chain::options;
use fuzz_bodies::images;
use fuzz_bodies::images::SparseSpec;
use fuzz_bodies::limits::said;
use fuzz_bodies::store::Holey;
use fuzz_bodies::store::MemFolder;

/// What a storage was told to do to a file.
#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    SetLen(u64),
    Flush,
}

/// What happened to all files, in order, until the power failed.
#[derive(Debug)]
struct Record {
    changes: Mutex<Vec<(String, Change)>>,
    /// The number of the change at which the power fails.
    end: usize,
}

impl Record {
    fn add(&self, file: &str, change: Change) -> Result<()> {
        let mut changes = self.changes.lock().unwrap();
        if changes.len() >= self.end {
            return Err(Error::new(ErrorKind::Io, "the power is gone"));
        }
        changes.push((file.to_owned(), change));
        Ok(())
    }
}

#[derive(Debug)]
struct Recording {
    name: String,
    inner: Arc<dyn Storage>,
    record: Arc<Record>,
}

impl Storage for Recording {
    fn size(&self) -> Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.record.add(&self.name, Change::Write { at: offset, bytes: buf.to_vec() })?;
        self.inner.write_at(buf, offset)
    }

    fn flush(&self) -> Result<()> {
        self.record.add(&self.name, Change::Flush)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.record.add(&self.name, Change::SetLen(len))?;
        self.inner.set_len(len)
    }

    fn label(&self) -> String {
        self.name.clone()
    }
}

#[derive(Debug)]
struct RecordingFolder {
    inner: MemFolder,
    record: Arc<Record>,
}

impl RecordingFolder {
    fn wrap(&self, name: &str, inner: Arc<dyn Storage>) -> Arc<dyn Storage> {
        Arc::new(Recording { name: name.to_owned(), inner, record: self.record.clone() })
    }

    fn place(&self, place: Place) -> Place {
        let folder = Self { inner: self.inner.clone(), record: self.record.clone() };
        let storage = self.wrap(&place.label, place.storage);
        Place { storage, folder: Arc::new(folder), ..place }
    }
}

impl Folder for RecordingFolder {
    fn extent(&self, name: &str, access: Access) -> Result<Arc<dyn Storage>> {
        Ok(self.wrap(name, self.inner.extent(name, access)?))
    }

    fn parent(&self, hint: &str, nth: usize) -> Result<Option<Place>> {
        Ok(self.inner.parent(hint, nth)?.map(|place| self.place(place)))
    }

    fn replace(&self, _name: &OsStr, _bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        panic!("writing data does not replace descriptors");
    }
}

/// A disk to try.
struct Subject {
    /// The first one is opened.
    files: Vec<(&'static str, Vec<u8>)>,
    content: Vec<u8>,
}

impl Subject {
    fn folder(&self) -> MemFolder {
        MemFolder::new(self.files.iter().map(|(name, bytes)| ((*name).to_owned(), Holey::new(bytes))))
    }
}

fn spec(data: Vec<u64>, descriptor: String) -> SparseSpec {
    SparseSpec { version: 1, flags: 3, data, zero: Vec::new(), descriptor, ..SparseSpec::two_tables() }
}

fn base() -> Subject {
    let built = images::sparse(&spec(vec![0, 512, 511, 519], SparseSpec::two_tables().descriptor));
    Subject { files: vec![("d.vmdk", built.file)], content: built.content }
}

fn child() -> Subject {
    let below = base();
    let extent = format!("RW {} SPARSE \"c.vmdk\"", below.content.len() / 512);
    let built =
        images::sparse(&spec(vec![2, 511], images::child_descriptor("monolithicSparse", &extent, "d.vmdk")));
    let mut content = below.content;
    for bytes in [2, 511].map(|grain| grain * 4096..(grain + 1) * 4096) {
        content[bytes.clone()].copy_from_slice(&built.content[bytes]);
    }
    let mut files = vec![("c.vmdk", built.file)];
    files.extend(below.files);
    Subject { files, content }
}

/// First sector and length of the writes; a flush at each `None`. Whole grains and parts, in place and new, in both tables.
const STEPS: &[Option<(usize, usize)>] = &[
    Some((9, 2)),
    Some((0, 3)),
    Some((24, 8)),
    None,
    Some((4, 2)),
    Some((12, 2)),
    Some((4112, 8)),
    None,
    Some((4090, 14)),
    Some((60, 9)),
    Some((24, 4)),
];

fn stamp(step: usize, first: usize, sectors: usize) -> Vec<u8> {
    (first..first + sectors).flat_map(|lba| images::pattern(step as u64 + 30, lba as u64)).collect()
}

/// What each sector may hold after the power came back: everything written since the last flush, and the flushed content.
struct Model {
    allowed: Vec<Vec<[u8; 512]>>,
}

/// Runs the steps until the power fails.
fn run(subject: &Subject, record: &Arc<Record>) -> Model {
    let sectors = subject.content.chunks(512).map(|s| vec![s.try_into().unwrap()]);
    let mut model = Model { allowed: sectors.collect() };
    let folder = RecordingFolder { inner: subject.folder(), record: record.clone() };
    let place = folder.place(folder.inner.place(subject.files[0].0).unwrap());
    let Ok(disk) = Disk::open(place, &options(true)) else { return model };
    for (number, step) in STEPS.iter().enumerate() {
        let done = match step {
            Some((first, sectors)) => {
                let data = stamp(number, *first, *sectors);
                let allowed = model.allowed[*first..].iter_mut();
                allowed.zip(data.chunks(512)).for_each(|(a, new)| a.push(new.try_into().unwrap()));
                disk.write(&data, *first as u64 * 512)
            }
            None => {
                let done = disk.flush();
                if done.is_ok() {
                    model.allowed.iter_mut().for_each(|a| drop(a.drain(..a.len() - 1)));
                }
                done
            }
        };
        if done.is_err() {
            return model;
        }
    }
    if disk.finish().is_ok() {
        model.allowed.iter_mut().for_each(|a| drop(a.drain(..a.len() - 1)));
    }
    model
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}

/// Which of the changes that were not flushed are on the disk.
#[derive(Clone, Copy, Debug)]
enum Survives {
    All,
    None,
    /// Only changes of few bytes: entries and marks, whose data is still on its way.
    Small,
    /// Only changes of many bytes.
    Big,
    /// Some, by these dice; of big writes some sectors.
    Some(u64),
}

/// The files as they are on the disk after the power failed.
fn what_is_left(subject: &Subject, changes: &[(String, Change)], survives: Survives) -> MemFolder {
    let folder = subject.folder();
    let mut dice = Dice(match survives {
        Survives::Some(seed) => seed,
        _ => 1,
    });
    for (name, _) in &subject.files {
        let file = folder.file(name).unwrap();
        let own: Vec<&Change> = changes.iter().filter(|(n, _)| n == name).map(|(_, c)| c).collect();
        let stable = own.iter().rposition(|c| matches!(c, Change::Flush)).unwrap_or(0);
        for (number, change) in own.iter().enumerate() {
            apply(&file, change, if number < stable { Survives::All } else { survives }, &mut dice);
        }
    }
    folder
}

fn apply(file: &Holey, change: &Change, survives: Survives, dice: &mut Dice) {
    match change {
        Change::Flush => {}
        Change::SetLen(len) => match survives {
            Survives::All => file.set_len(*len).unwrap(),
            Survives::None | Survives::Small => {}
            Survives::Big => file.set_len(*len).unwrap(),
            Survives::Some(_) if !dice.roll().is_multiple_of(3) => file.set_len(*len).unwrap(),
            Survives::Some(_) => {}
        },
        Change::Write { at, bytes } => {
            for (number, piece) in sectors_of(*at, bytes.len()).into_iter().enumerate() {
                let keeps = match survives {
                    Survives::All => true,
                    Survives::None => false,
                    Survives::Small => bytes.len() < 512,
                    Survives::Big => bytes.len() >= 512,
                    Survives::Some(seed) => (dice.roll() ^ seed ^ number as u64).is_multiple_of(2),
                };
                if keeps {
                    file.write_at(&bytes[piece.clone()], at + piece.start as u64).unwrap();
                }
            }
        }
    }
}

/// The parts of a write that a disk keeps or loses as one.
fn sectors_of(at: u64, len: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < len {
        let end = (start + 512 - ((at as usize + start) % 512)).min(len);
        parts.push(start..end);
        start = end;
    }
    parts
}

fn holds(folder: &MemFolder, subject: &Subject, model: &Model) {
    let open = |write| Disk::open(folder.place(subject.files[0].0).unwrap(), &options(write));
    let disk = open(true).unwrap_or_else(|e| panic!("does not open for writing: {e}"));
    for (lba, allowed) in model.allowed.iter().enumerate() {
        let mut sector = [0x77; 512];
        disk.read(&mut sector, lba as u64 * 512)
            .unwrap_or_else(|e| panic!("sector {lba} cannot be read: {e}"));
        assert!(
            allowed.contains(&sector),
            "sector {lba} holds {:02x?}.., allowed: {:02x?}",
            &sector[..12],
            allowed.iter().map(|a| a[..12].to_vec()).collect::<Vec<_>>()
        );
    }
    let last = stamp(99, 200, 20);
    disk.write(&last, 200 * 512).unwrap_or_else(|e| panic!("takes no writes: {e}"));
    disk.finish().unwrap_or_else(|e| panic!("does not close: {e}"));
    let mut got = vec![0; last.len()];
    open(false).unwrap().read(&mut got, 200 * 512).unwrap();
    assert!(got == last, "a write after the repair is lost");
}

fn power_fails_everywhere(subject: &Subject) {
    let whole = Arc::new(Record { changes: Mutex::default(), end: usize::MAX });
    let model = run(subject, &whole);
    assert!(model.allowed.iter().all(|a| a.len() == 1), "closed, so everything is certain");
    let total = whole.changes.lock().unwrap().len();
    assert!(total > 30, "only {total} changes");
    let mut complaints = Vec::new();
    for end in 0..=total {
        let record = Arc::new(Record { changes: Mutex::default(), end });
        let model = run(subject, &record);
        let changes = record.changes.lock().unwrap().clone();
        let some = (1..=20).map(|seed| Survives::Some(seed * 0x9e37_79b9 + end as u64));
        for survives in
            [Survives::All, Survives::None, Survives::Small, Survives::Big].into_iter().chain(some)
        {
            let result = std::panic::catch_unwind(|| {
                holds(&what_is_left(subject, &changes, survives), subject, &model);
            });
            if let Err(cause) = result {
                complaints.push(format!("after {end} of {total} changes, {survives:?}: {}", said(&*cause)));
            }
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn a_base_disk_survives_power_failures() {
    power_fails_everywhere(&base());
}

#[test]
fn a_child_survives_power_failures() {
    power_fails_everywhere(&child());
}
