//! The n-th call on a storage fails, for every n and every way to fail, while a disk is opened, written and closed.
//!
//! Nothing panics; the call at hand says so; what reads afterwards is right; after the disk is opened again on a sound
//! storage, everything that was promised is there, and every sector holds its old content or a new one, never a third.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

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

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// An I/O error; nothing was transferred.
    Eio,
    /// No space, for calls that write; an I/O error for others.
    Enospc,
    /// Half is transferred, then an I/O error.
    Short,
}

/// Which call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failed {
    Read,
    /// The file, and the bytes.
    Write(String, Range<u64>),
    Flush,
    SetLen,
    Replace,
}

/// What fails when; shared by all storages of a folder.
#[derive(Debug)]
struct Plan {
    calls: AtomicUsize,
    /// The number of the call that fails.
    at: usize,
    /// So do all after it.
    forever: bool,
    fault: Fault,
    failed: Mutex<Vec<Failed>>,
}

impl Plan {
    fn new(at: usize, fault: Fault, forever: bool) -> Arc<Self> {
        let (calls, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        Arc::new(Self { calls, at, forever, fault, failed })
    }

    fn strikes(&self, what: impl FnOnce() -> Failed) -> Option<Error> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        if number != self.at && !(self.forever && number > self.at) {
            return None;
        }
        let what = what();
        let errno = match (self.fault, &what) {
            (Fault::Enospc, Failed::Write(..) | Failed::SetLen | Failed::Replace) => 28,
            _ => 5,
        };
        self.failed.lock().unwrap().push(what);
        Some(Error::from_io(std::io::Error::from_raw_os_error(errno), "the planned fault"))
    }

    fn failures(&self) -> Vec<Failed> {
        self.failed.lock().unwrap().clone()
    }
}

#[derive(Debug)]
struct Faulty {
    name: String,
    inner: Arc<dyn Storage>,
    plan: Arc<Plan>,
}

impl Storage for Faulty {
    fn size(&self) -> Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.plan.strikes(|| Failed::Read) {
            None => self.inner.read_at(buf, offset),
            Some(error) => {
                let half = buf.len() / 2;
                if self.plan.fault == Fault::Short {
                    self.inner.read_at(&mut buf[..half], offset)?;
                }
                buf[half..].fill(0xdd);
                Err(error)
            }
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let what = || Failed::Write(self.name.clone(), offset..offset + buf.len() as u64);
        match self.plan.strikes(what) {
            None => self.inner.write_at(buf, offset),
            Some(error) => {
                // Disks write whole sectors or none; entries of four bytes are written or not.
                let half = (buf.len() / 2).next_multiple_of(if buf.len() > 512 { 512 } else { 4 });
                if self.plan.fault == Fault::Short && half < buf.len() {
                    self.inner.write_at(&buf[..half], offset)?;
                }
                Err(error)
            }
        }
    }

    fn flush(&self) -> Result<()> {
        self.plan.strikes(|| Failed::Flush).map_or_else(|| self.inner.flush(), Err)
    }

    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        self.plan.strikes(|| Failed::Read).map_or_else(|| self.inner.allocated(range, sink), Err)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.plan.strikes(|| Failed::SetLen).map_or_else(|| self.inner.set_len(len), Err)
    }

    fn label(&self) -> String {
        self.name.clone()
    }
}

#[derive(Debug)]
struct FaultyFolder {
    inner: MemFolder,
    plan: Arc<Plan>,
}

impl FaultyFolder {
    fn wrap(&self, name: &str, inner: Arc<dyn Storage>) -> Arc<dyn Storage> {
        Arc::new(Faulty { name: name.to_owned(), inner, plan: self.plan.clone() })
    }

    fn place(&self, place: Place) -> Place {
        let folder = Self { inner: self.inner.clone(), plan: self.plan.clone() };
        let storage = self.wrap(&place.label, place.storage);
        Place { storage, folder: Arc::new(folder), ..place }
    }
}

impl Folder for FaultyFolder {
    fn extent(&self, name: &str, access: Access) -> Result<Arc<dyn Storage>> {
        Ok(self.wrap(name, self.inner.extent(name, access)?))
    }

    fn parent(&self, hint: &str, nth: usize) -> Result<Option<Place>> {
        Ok(self.inner.parent(hint, nth)?.map(|place| self.place(place)))
    }

    fn replace(&self, name: &OsStr, bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        match self.plan.strikes(|| Failed::Replace) {
            None => Ok(self.wrap(&name.to_string_lossy(), self.inner.replace(name, bytes)?)),
            Some(error) => Err(error),
        }
    }
}

/// A kind of disk to try.
struct Subject {
    name: &'static str,
    /// The first one is opened.
    files: Vec<(&'static str, Vec<u8>)>,
    content: Vec<u8>,
    /// New data is promised at the next flush, not at once.
    is_child: bool,
    /// The bytes of files that hold tables.
    tables: Vec<(&'static str, Range<u64>)>,
}

fn tables_of(spec: &SparseSpec) -> Range<u64> {
    let built = images::sparse(spec);
    let tables = built.fields.iter().filter(|f| f.name.contains("gd[") || f.name.contains("gt["));
    let first = tables.map(|f| f.at).min().unwrap() as u64;
    let overhead = built.fields.iter().find(|f| f.name == "overHead").unwrap();
    first..built.value(overhead) * 512
}

fn sparse() -> Subject {
    let spec = SparseSpec { version: 1, flags: 3, zero: Vec::new(), ..SparseSpec::two_tables() };
    let built = images::sparse(&spec);
    let tables = vec![("d.vmdk", tables_of(&spec))];
    Subject {
        name: "sparse",
        files: vec![("d.vmdk", built.file)],
        content: built.content,
        is_child: false,
        tables,
    }
}

fn flat() -> Subject {
    let content = images::sparse(&SparseSpec::two_tables()).content;
    let sectors = content.len() / 512;
    let text =
        images::descriptor(sectors as u64, "monolithicFlat", &format!("RW {sectors} FLAT \"d-flat.vmdk\" 0"));
    let files = vec![("d.vmdk", text.into_bytes()), ("d-flat.vmdk", content.clone())];
    Subject { name: "flat", files, content, is_child: false, tables: Vec::new() }
}

fn child() -> Subject {
    let base = sparse();
    let capacity = base.content.len() / 512;
    let extent = format!("RW {capacity} SPARSE \"c.vmdk\"");
    let spec = SparseSpec {
        version: 1,
        flags: 3,
        data: vec![2, 511],
        zero: Vec::new(),
        descriptor: images::child_descriptor("monolithicSparse", &extent, "d.vmdk"),
        ..SparseSpec::two_tables()
    };
    let built = images::sparse(&spec);
    let mut content = base.content;
    for grain in [2, 511] {
        let bytes = grain * 4096..(grain + 1) * 4096;
        content[bytes.clone()].copy_from_slice(&built.content[bytes]);
    }
    let mut files = vec![("c.vmdk", built.file)];
    files.extend(base.files);
    Subject { name: "child", files, content, is_child: true, tables: vec![("c.vmdk", tables_of(&spec))] }
}

fn split() -> Subject {
    let spec = SparseSpec { descriptor: String::new(), ..SparseSpec::tiny() };
    let (part, capacity) = (images::sparse(&spec), spec.capacity);
    let lines = format!("RW {capacity} SPARSE \"s1\"\nRW {capacity} SPARSE \"s2\"\nRW 4096 FLAT \"f\" 3");
    let text = images::descriptor(2 * capacity + 4096, "custom", &lines);
    let flat = vec![0x33; (4096 + 3) * 512];
    let content = [&part.content[..], &part.content[..], &flat[..4096 * 512]].concat();
    let files =
        vec![("d.vmdk", text.into_bytes()), ("s1", part.file.clone()), ("s2", part.file), ("f", flat)];
    let tables = vec![("s1", tables_of(&spec)), ("s2", tables_of(&spec))];
    Subject { name: "split", files, content, is_child: false, tables }
}

/// What a sector may hold.
#[derive(Clone, Debug)]
struct Allowed(Vec<[u8; 512]>);

/// What every sector may hold, before and after the disk is opened again.
struct Model {
    sectors: Vec<Allowed>,
}

impl Model {
    fn new(content: &[u8]) -> Self {
        Self { sectors: content.chunks(512).map(|s| Allowed(vec![s.try_into().unwrap()])).collect() }
    }

    /// A write was acknowledged. `promised`: it survives whatever comes.
    fn wrote(&mut self, first: usize, data: &[u8], promised: bool) {
        for (allowed, new) in self.sectors[first..].iter_mut().zip(data.chunks(512)) {
            if promised {
                allowed.0.clear();
            }
            allowed.0.push(new.try_into().unwrap());
        }
    }

    /// A flush was acknowledged: of each sector the last content counts, unless a write of it failed.
    fn flushed(&mut self, unsure: &[Range<usize>]) {
        for (lba, allowed) in self.sectors.iter_mut().enumerate() {
            if !unsure.iter().any(|r| r.contains(&lba)) {
                allowed.0.drain(..allowed.0.len() - 1);
            }
        }
    }

    fn check(&self, disk: &Disk, when: &str) {
        for (lba, allowed) in self.sectors.iter().enumerate() {
            let mut sector = [0x77; 512];
            if let Err(e) = disk.read(&mut sector, lba as u64 * 512) {
                panic!("{when}: sector {lba} cannot be read: {e}");
            }
            assert!(
                allowed.0.contains(&sector),
                "{when}: sector {lba} holds {:02x?}.., allowed: {:02x?}",
                &sector[..16],
                allowed.0.iter().map(|a| a[..16].to_vec()).collect::<Vec<_>>()
            );
        }
    }
}

fn stamp(seed: u8, first: usize, sectors: usize) -> Vec<u8> {
    (first..first + sectors).flat_map(|lba| images::pattern(u64::from(seed) + 20, lba as u64)).collect()
}

/// First sector and length of the writes, a flush after each `None`. Each sector is written once, so that "the last
/// content" is one.
const STEPS: &[Option<(usize, usize)>] = &[
    Some((8, 3)),
    Some((0, 4)),
    Some((24, 8)),
    None,
    Some((4, 4)),
    Some((12, 2)),
    Some((34, 9)),
    Some((60, 30)),
    None,
    Some((4088, 16)),
    Some((43, 5)),
];

/// Runs the steps on a disk that is opened through the plan. What is still known goes to `model`; errors to the caller.
fn run(subject: &Subject, folder: &MemFolder, plan: &Arc<Plan>, model: &mut Model) {
    let faulty = FaultyFolder { inner: folder.clone(), plan: plan.clone() };
    let place = faulty.place(folder.place(subject.files[0].0).unwrap());
    let disk = match Disk::open(place, &options(true)) {
        Ok(disk) => disk,
        Err(e) => {
            assert!(!plan.failures().is_empty(), "does not open for no reason: {e}");
            return;
        }
    };
    let mut unsure: Vec<Range<usize>> = Vec::new();
    let mut broken = false;
    for (seed, step) in STEPS.iter().enumerate() {
        let before = plan.failures().len();
        let result = match step {
            Some((first, sectors)) => {
                let data = stamp(seed as u8, *first, *sectors);
                let result = disk.write(&data, *first as u64 * 512);
                let promised = result.is_ok() && !subject.is_child;
                model.wrote(*first, &data, promised);
                if result.is_err() {
                    unsure.push(*first..first + sectors);
                } else {
                    assert!(!broken || !allocates(subject, *first), "writes after a failed table update");
                }
                result
            }
            None => {
                let result = disk.flush();
                if result.is_ok() {
                    model.flushed(&unsure);
                }
                result
            }
        };
        let failures = plan.failures().split_off(before);
        told(&failures, &result, plan.fault);
        broken |= failures.iter().any(|f| hits_tables(subject, f));
        reads_right(&disk, model, &unsure);
    }
    let before = plan.failures().len();
    let result = disk.finish();
    told(&plan.failures().split_off(before), &result, plan.fault);
    if result.is_ok() && !broken {
        model.flushed(&unsure);
    }
}

/// True for the steps that need new grains whatever happened before.
fn allocates(subject: &Subject, first: usize) -> bool {
    match subject.name {
        "sparse" => first == 60,
        "child" => first == 60 || first == 4088,
        _ => false,
    }
}

fn hits_tables(subject: &Subject, failed: &Failed) -> bool {
    let Failed::Write(file, bytes) = failed else { return false };
    subject.tables.iter().any(|(name, tables)| name == file && tables.contains(&bytes.start))
}

/// A failed write or flush is told by the call that made it, as what it was.
fn told(failures: &[Failed], result: &Result<()>, fault: Fault) {
    let Some(first) = failures.iter().find(|f| **f != Failed::Read) else { return };
    if result.is_ok() && failures == [Failed::SetLen] {
        return; // a smaller step was possible
    }
    let Err(error) = result else { panic!("{first:?} failed and nobody was told") };
    let kinds = match fault {
        Fault::Enospc => &[ErrorKind::DiskFull, ErrorKind::Io][..],
        _ => &[ErrorKind::Io],
    };
    assert!(kinds.contains(&error.kind()), "{first:?} failed, told as {error:?}");
}

/// What can be read is the last acknowledged content, or where a write failed, old or new.
fn reads_right(disk: &Disk, model: &Model, unsure: &[Range<usize>]) {
    for lba in [0, 5, 9, 13, 27, 36, 44, 61, 89, 4090, 4103] {
        let mut sector = [0x77; 512];
        if disk.read(&mut sector, lba as u64 * 512).is_err() {
            continue; // the storage may be failing
        }
        let allowed = &model.sectors[lba].0;
        let fits = match unsure.iter().any(|r| r.contains(&lba)) {
            true => allowed.contains(&sector),
            false => allowed.last() == Some(&sector),
        };
        assert!(fits, "sector {lba} reads as {:02x?}..", &sector[..16]);
    }
}

/// The files a run left behind, opened on a sound storage.
fn reopen(subject: &Subject, folder: &MemFolder, model: &Model) {
    let open = |write| Disk::open(folder.place(subject.files[0].0).unwrap(), &options(write));
    model.check(&open(false).unwrap_or_else(|e| panic!("does not open for reading: {e}")), "read-only");
    let disk = open(true).unwrap_or_else(|e| panic!("does not open for writing: {e}"));
    model.check(&disk, "after repair");
    let last = stamp(99, 100, 6);
    disk.write(&last, 100 * 512).unwrap_or_else(|e| panic!("takes no writes after opening again: {e}"));
    disk.finish().unwrap_or_else(|e| panic!("does not close after opening again: {e}"));
    drop(disk);
    let disk = open(false).unwrap();
    let mut got = vec![0; last.len()];
    disk.read(&mut got, 100 * 512).unwrap();
    assert!(got == last, "the write after opening again is lost");
    for (name, _) in &subject.tables {
        copies_agree(&folder.file(name).unwrap());
    }
}

/// Both copies of the tables of a closed extent are the same, and no grain is used twice.
fn copies_agree(file: &Holey) {
    let word = |at: u64| u64::from(u32::from_le_bytes(file.peek(at, 4).unwrap().try_into().unwrap()));
    let long = |at: u64| word(at) | word(at + 4) << 32;
    assert_eq!(file.peek(72, 1), Some(vec![0]), "closed, but not marked as clean");
    let (capacity, grain) = (long(12), long(20));
    let mut used = std::collections::BTreeSet::new();
    for number in 0..capacity.div_ceil(grain) {
        let entry = |directory: u64| word(word(directory * 512 + number / 512 * 4) * 512 + number % 512 * 4);
        let (redundant, primary) = (entry(long(48)), entry(long(56)));
        assert_eq!(redundant, primary, "the copies of the entry of grain {number} differ");
        assert!(primary < 2 || used.insert(primary), "grain {number} shares its place with another");
    }
}

/// Every call of the whole run fails in turn.
fn every_call_fails_in_turn(subject: &Subject) {
    let folder =
        || MemFolder::new(subject.files.iter().map(|(n, bytes)| ((*n).to_owned(), Holey::new(bytes))));
    let sound = Plan::new(usize::MAX, Fault::Eio, false);
    let (calm, mut model) = (folder(), Model::new(&subject.content));
    run(subject, &calm, &sound, &mut model);
    assert!(model.sectors.iter().all(|s| s.0.len() == 1), "a sound run ends with one content");
    assert!(model.sectors[4100].0[0] == stamp(9, 4100, 1)[..], "the steps were run");
    reopen(subject, &calm, &model);
    let calls = sound.calls.load(Ordering::SeqCst);
    assert!(calls > 20, "only {calls} calls on the storage");
    let mut complaints = Vec::new();
    for at in 0..calls {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Short] {
            for forever in [false, true] {
                let plan = Plan::new(at, fault, forever);
                let result = std::panic::catch_unwind(|| {
                    let (folder, mut model) = (folder(), Model::new(&subject.content));
                    run(subject, &folder, &plan, &mut model);
                    reopen(subject, &folder, &model);
                });
                if let Err(cause) = result {
                    let text = said(&*cause);
                    let failed = plan.failures();
                    complaints.push(format!(
                        "call {at} of {calls}, {fault:?}, forever {forever}, {:?}: {text}",
                        failed.first()
                    ));
                }
            }
        }
    }
    assert!(
        complaints.is_empty(),
        "{}: {} complaints:\n{}",
        subject.name,
        complaints.len(),
        complaints.join("\n")
    );
}

#[test]
fn a_sparse_disk_survives_every_fault() {
    every_call_fails_in_turn(&sparse());
}

#[test]
fn a_flat_disk_survives_every_fault() {
    every_call_fails_in_turn(&flat());
}

#[test]
fn a_child_survives_every_fault() {
    every_call_fails_in_turn(&child());
}

#[test]
fn a_disk_of_many_extents_survives_every_fault() {
    every_call_fails_in_turn(&split());
}
