//! From an offset to a grain: a directory of tables, read on demand.
//!
//! ```text
//!   offset ─▶ directory page ─▶ table, decoded into runs ─▶ place of the grain
//!              bounded cache      bounded cache
//! ```
//!
//! COWD, SESparse and streamOptimized files differ in the size and meaning of their entries ([`Entries`]) and agree in
//! everything else, which lives here. Nothing is read before it is asked for, nothing in memory grows with the capacity, and
//! no lock is held while the file is read. The files are read-only, so what was decoded stays true.

mod audit;
mod cache;
mod runs;
mod scan;

use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

pub(super) use audit::Grains;
pub(super) use audit::Named;
use cache::Cache;
pub(super) use runs::Place;
use runs::Runs;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::storage::Storage;

/// What the entries of one format mean.
pub(super) trait Entries: Debug + Send + Sync {
    /// Bytes of an entry of the directory and of the tables: 4 or 8, little-endian.
    const BYTES: usize;

    /// Where the table of a directory entry starts; whether it lies in the file is checked by the caller.
    fn table(&self, entry: u64) -> TablePlace;

    /// What a table entry says about a grain of which the first `needed` bytes belong to the disk.
    fn grain(&self, entry: u64, needed: u64) -> Place;

    /// Says what is wrong with a table entry that is [`Place::Bad`].
    fn fault(&self, entry: u64) -> String;
}

/// What a directory entry says about its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TablePlace {
    /// No table: nothing is allocated there.
    Absent,
    /// The table starts at this byte of the file, not 0.
    At(u64),
    /// The entry cannot be believed.
    Bad,
}

/// The measures of a directory, all checked by the header's reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of the disk.
    pub(super) capacity: u64,
    /// Bytes of a grain.
    pub(super) grain: u64,
    /// Entries of a table.
    pub(super) entries: u16,
    /// Where the directory starts in the file.
    pub(super) directory: u64,
    /// Where a second directory starts, to be used where the first is damaged.
    pub(super) spare: Option<u64>,
    /// Length of the file.
    pub(super) file: u64,
}

/// The tables of one file.
pub(super) struct Lookup<E> {
    storage: Arc<dyn Storage>,
    name: String,
    log: Log,
    entries: E,
    shape: Shape,
    tables: u64,
    pages: Cache<Page>,
    decoded: Cache<Runs>,
    /// The log knows that the spare directory is in use.
    told: AtomicBool,
}

/// A piece of the directory: where tables start. [`ABSENT`] and [`BAD`] stand where no table can.
type Page = Box<[u64]>;

/// There is no table.
const ABSENT: u64 = 0;
/// The directory entry cannot be believed.
const BAD: u64 = 1;

/// Entries of a directory page.
const PAGE: u64 = 512;
/// Memory for directory pages and decoded tables of one file, if nobody says otherwise.
const BUDGET: usize = 2560 * 1024;

/// Runs merged into one answer at most.
const MERGED: usize = 512;

/// A table, or that there is none.
enum Found {
    Table(Arc<Runs>),
    /// This and the following tables are absent: how many, at least 1.
    Absent(u64),
}

impl<E: Entries> Lookup<E> {
    /// A lookup through the directory of `storage`; reads nothing. Refuses a directory that is not wholly in the file.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        entries: E,
        shape: Shape,
        log: Log,
        name: String,
    ) -> Result<Self> {
        let coverage = shape.grain.checked_mul(u64::from(shape.entries)).filter(|&bytes| bytes > 0);
        let Some(coverage) = coverage else {
            return Err(Error::new(ErrorKind::NotADisk, format!("grains of {} bytes", shape.grain)));
        };
        let tables = shape.capacity.div_ceil(coverage);
        let bytes = tables.saturating_mul(E::BYTES as u64);
        if !within(shape.directory, bytes, shape.file) {
            let message = format!(
                "the grain directory of {tables} entries at byte {:#x} passes the end of the file ({} bytes)",
                shape.directory, shape.file
            );
            return Err(Error::new(ErrorKind::NotADisk, message));
        }
        let spare = shape.spare.filter(|&at| within(at, bytes, shape.file));
        let lookup = Self {
            storage,
            name,
            log,
            entries,
            shape: Shape { spare, ..shape },
            tables,
            pages: Cache::new(0),
            decoded: Cache::new(0),
            told: AtomicBool::new(false),
        };
        Ok(lookup.with_budget(BUDGET))
    }

    /// The same with room for about `bytes` of directory pages and decoded tables.
    pub(super) fn with_budget(mut self, bytes: usize) -> Self {
        self.pages = Cache::new(bytes / 5);
        self.decoded = Cache::new(bytes - bytes / 5);
        self
    }

    /// The file that the grains are in.
    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The file's name for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The measures.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Where the byte at `offset` of the disk lies, and for how many bytes (at most `max`, at least 1) the answer holds.
    /// Data is at its own byte, not at its grain's first. An entry that cannot be believed is an error.
    pub(super) fn map(&self, offset: u64, max: u64) -> Result<(Place, u64)> {
        self.check(offset)?;
        let grain = offset / self.shape.grain;
        let within = offset % self.shape.grain;
        let (place, grains) = self.place(grain, max.div_ceil(self.shape.grain).saturating_add(1))?;
        let run = grains.saturating_mul(self.shape.grain) - within;
        let run = run.min(self.shape.capacity - offset).min(max.max(1));
        let place = match place {
            Place::Data(at) => Place::Data(at + within),
            other => other,
        };
        Ok((place, run))
    }

    /// Like [`Lookup::map`] for formats whose grains do not stand bytewise in the file: what the place holds is merged
    /// over grains wherever they are, up to [`MERGED`] runs of them. Behind a fault it stops: whoever asks there gets it.
    pub(super) fn merged(&self, offset: u64, max: u64) -> Result<(Place, u64)> {
        let (place, mut run) = self.map(offset, max)?;
        for _ in 1..MERGED {
            if run >= max || offset + run >= self.shape.capacity {
                break;
            }
            let Ok((next, more)) = self.map(offset + run, max - run) else { break };
            if std::mem::discriminant(&next) != std::mem::discriminant(&place) {
                break;
            }
            run += more;
        }
        Ok((place, run))
    }

    /// The place of a grain of the disk, and for how many grains from it on the answer holds. An answer for `wanted` grains
    /// is enough.
    pub(super) fn place(&self, grain: u64, wanted: u64) -> Result<(Place, u64)> {
        let per_table = u64::from(self.shape.entries);
        let table = grain / per_table;
        let index = grain % per_table;
        match self.find(table, wanted.div_ceil(per_table).saturating_add(1))? {
            Found::Absent(tables) => {
                Ok((Place::Unallocated, tables.saturating_mul(per_table).saturating_sub(index)))
            }
            Found::Table(runs) => match runs.find(u16::try_from(index).unwrap_or(u16::MAX)) {
                (Place::Bad, _) => Err(self.grain_fault(grain)),
                (place, grains) => Ok((place, u64::from(grains))),
            },
        }
    }

    /// Bytes of grain `grain` that belong to the disk: fewer than a grain only for the last.
    pub(super) fn needed(&self, grain: u64) -> u64 {
        let start = grain.saturating_mul(self.shape.grain);
        self.shape.capacity.saturating_sub(start).min(self.shape.grain)
    }

    /// Refuses offsets past the disk.
    fn check(&self, offset: u64) -> Result<()> {
        if offset < self.shape.capacity {
            return Ok(());
        }
        let message = format!("{}: {offset:#x} is past the disk's {} bytes", self.name, self.shape.capacity);
        Err(Error::new(ErrorKind::OutOfRange, message))
    }

    fn find(&self, table: u64, wanted: u64) -> Result<Found> {
        if let Some(runs) = self.decoded.find(table) {
            return Ok(Found::Table(runs));
        }
        let page = self.page(table / PAGE)?;
        let first = usize::try_from(table % PAGE).unwrap_or(usize::MAX);
        let rest = page.get(first..).unwrap_or_default();
        match rest.first() {
            Some(&ABSENT) => {
                let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                let absent = rest.iter().take(wanted).take_while(|&&at| at == ABSENT).count();
                Ok(Found::Absent(absent as u64))
            }
            Some(&BAD) | None => Err(self.table_fault(table)),
            Some(&at) => self.load(table, at).map(Found::Table),
        }
    }

    /// Reads and decodes the table that starts at byte `at`.
    fn load(&self, table: u64, at: u64) -> Result<Arc<Runs>> {
        let mut raw = vec![0; self.table_bytes()];
        self.read(&mut raw, at).context(|| format!("grain table {table}"))?;
        let runs = Arc::new(Runs::collect(self.decode(table, &raw), self.shape.grain));
        self.decoded.keep(table, Arc::clone(&runs), runs.weight());
        Ok(runs)
    }

    /// What the entries of a table say, in order.
    fn decode<'a>(&'a self, table: u64, raw: &'a [u8]) -> impl Iterator<Item = Place> + 'a {
        let first = table.saturating_mul(u64::from(self.shape.entries));
        let last = self.shape.capacity.div_ceil(self.shape.grain).saturating_sub(1);
        let last_needed = self.needed(last);
        raw.chunks_exact(E::BYTES).enumerate().map(move |(index, entry)| {
            // Entries behind the disk's last grain are never asked for; whatever they hold, it does no harm.
            let whole = first.saturating_add(index as u64) != last;
            self.entries.grain(number(entry), if whole { self.shape.grain } else { last_needed })
        })
    }

    /// The directory page `number`.
    fn page(&self, number: u64) -> Result<Arc<Page>> {
        if let Some(page) = self.pages.find(number) {
            return Ok(page);
        }
        let first = number.saturating_mul(PAGE);
        let page = Arc::new(self.directory(first, PAGE.min(self.tables.saturating_sub(first)))?);
        self.pages.keep(number, Arc::clone(&page), size_of_val(&**page));
        Ok(page)
    }

    /// Where the tables `first..first + count` start, the spare directory consulted where the first one names none.
    fn directory(&self, first: u64, count: u64) -> Result<Page> {
        let mut page = self.raw_directory(self.shape.directory, first, count)?;
        let lacking = |at: &u64| *at == ABSENT || *at == BAD;
        if let Some(spare) = self.shape.spare
            && page.iter().any(lacking)
        {
            let spare = self.raw_directory(spare, first, count)?;
            for (at, other) in page.iter_mut().zip(spare).filter(|(at, other)| lacking(at) && !lacking(other))
            {
                *at = other;
                self.tell_spare();
            }
        }
        Ok(page)
    }

    fn raw_directory(&self, directory: u64, first: u64, count: u64) -> Result<Page> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut raw = vec![0; count.saturating_mul(E::BYTES)];
        let at = directory.saturating_add(first.saturating_mul(E::BYTES as u64));
        self.read(&mut raw, at).context(|| format!("grain directory from entry {first}"))?;
        Ok(raw.chunks_exact(E::BYTES).map(|entry| self.table_start(number(entry))).collect())
    }

    /// Where the table of a directory entry starts, [`ABSENT`] or [`BAD`].
    fn table_start(&self, entry: u64) -> u64 {
        match self.entries.table(entry) {
            TablePlace::Absent => ABSENT,
            TablePlace::At(at) if at > BAD && within(at, self.table_bytes() as u64, self.shape.file) => at,
            TablePlace::At(_) | TablePlace::Bad => BAD,
        }
    }

    fn tell_spare(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            self.log.warning(|| {
                format!("{}: the grain directory is damaged; the redundant one is read instead", self.name)
            });
        }
    }

    fn table_bytes(&self) -> usize {
        usize::from(self.shape.entries) * E::BYTES
    }

    fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.storage.read_at(buf, at).context(|| self.name.clone())
    }

    /// The error for a grain whose entry cannot be believed; reads the entry once more to quote it.
    fn grain_fault(&self, grain: u64) -> Error {
        let per_table = u64::from(self.shape.entries);
        let table = grain / per_table;
        let mut raw = [0; 8];
        let entry = self.page(table / PAGE).and_then(|page| {
            let start = usize::try_from(table % PAGE).ok().and_then(|index| page.get(index).copied());
            let at = start.unwrap_or(0).saturating_add((grain % per_table).saturating_mul(E::BYTES as u64));
            let slot = raw.get_mut(..E::BYTES).unwrap_or_default();
            self.read(slot, at)
        });
        match entry {
            Ok(()) => {
                let fault = self.entries.fault(u64::from_le_bytes(raw));
                let start = grain.saturating_mul(self.shape.grain);
                let message = format!("{}: grain {grain} (disk byte {start:#x}): {fault}", self.name);
                Error::new(ErrorKind::Corrupt, message)
            }
            Err(e) => e.context(format!("grain {grain}")),
        }
    }

    fn table_fault(&self, table: u64) -> Error {
        let message = format!(
            "{}: directory entry {table} of {} names no place of a grain table inside the file ({} bytes)",
            self.name, self.tables, self.shape.file
        );
        Error::new(ErrorKind::Corrupt, message)
    }
}

impl<E: Entries> Debug for Lookup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Lookup");
        fields.field("name", &self.name).field("entries", &self.entries).field("shape", &self.shape);
        fields.finish_non_exhaustive()
    }
}

/// The little-endian number in 4 or 8 bytes.
fn number(entry: &[u8]) -> u64 {
    match entry.first_chunk::<8>() {
        Some(&wide) => u64::from_le_bytes(wide),
        None => entry.first_chunk::<4>().map_or(0, |&narrow| u64::from(u32::from_le_bytes(narrow))),
    }
}

/// True when `len` bytes at `at` end inside `file` bytes.
pub(super) fn within(at: u64, len: u64, file: u64) -> bool {
    at.checked_add(len).is_some_and(|end| end <= file)
}
