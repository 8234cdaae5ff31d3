//! Making a hosted sparse file with an embedded descriptor larger.
//!
//! ```text
//!   before   header │ text │ directories and tables │ grains …
//!   after    header │ text │ (old directories) tables │ grains … │ new directories, further tables │ grains to come
//! ```
//!
//! Tables stay where they are. The directories have no room to grow in, so longer ones are written behind the end of the
//! file, with the tables that they need in addition. The new text goes into the second half of its area. Then one sector,
//! the header, switches to all of it at once: before, nothing of the new is seen; after, everything.

use std::ops::Range;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::sparse::Header;
use crate::format::sparse::embedded;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::HEADER_BYTES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::storage::Storage;
use crate::units::SECTOR;
use crate::units::Sectors;
use crate::units::align_up;

/// Table entries are 32-bit sector numbers.
const ADDRESSABLE: u64 = 1 << 32;
const CAPACITY_AT: usize = 12;
const REDUNDANT_AT: usize = 48;
const PRIMARY_AT: usize = 56;

/// Makes the file that `header` was read from, which nobody uses and whose tables are in order, a disk of `capacity` sectors
/// with the descriptor `text`. On failure the disk is the old one, and as long as before.
pub fn grow(storage: &dyn Storage, header: &Header, capacity: Sectors, text: &[u8]) -> Result<()> {
    let file = File { storage, header };
    file.clear_beyond_the_end()?;
    let size = storage.size()?;
    let plan = file.plan(size, capacity, text)?;
    let prepared = file.prepare(&plan).and_then(|()| file.new_header(&plan, capacity));
    let sector = prepared.inspect_err(|_| {
        let _ = storage.set_len(size); // the fault at hand is the one to tell
    })?;
    storage.write_at(&sector, 0).context(|| "sparse header")?;
    storage.flush()?;
    plan.text.settle(storage)
}

/// Makes an extent larger within its last grain: nobody uses it, its tables are in order, and `capacity` is not past the
/// end of that grain. Whoever reads it through a description that says less sees no difference.
pub fn fill_last_grain(storage: &dyn Storage, header: &Header, capacity: Sectors) -> Result<()> {
    let file = File { storage, header };
    if file.grains(capacity.0) != header.grains() || capacity < header.capacity {
        let text = format!("{} sectors do not end in the last grain of {}", capacity.0, header.capacity.0);
        return Err(Error::new(ErrorKind::Internal, text));
    }
    file.clear_beyond_the_end()?;
    storage.write_at(&capacity.0.to_le_bytes(), CAPACITY_AT as u64).context(|| "sparse header")?;
    storage.flush()
}

struct File<'a> {
    storage: &'a dyn Storage,
    header: &'a Header,
}

/// A new text and where it stands when the header switches over, in sectors.
struct Waiting {
    padded: Vec<u8>,
    at: u64,
    /// The area in which it goes to the front afterwards: first sector and number of sectors.
    front: Option<(u64, u64)>,
}

impl Waiting {
    /// At the end of `area` if that has room for it besides the old one, else at sector `behind`, for good.
    fn new(storage: &dyn Storage, area: &Range<u64>, text: &[u8], behind: u64) -> Result<Waiting> {
        let len = area.end - area.start;
        let mut before = vec![0; usize::try_from(len).unwrap_or(0)];
        storage.read_at(&mut before, area.start).context(|| "embedded descriptor")?;
        let old = before.iter().position(|&b| b == 0).unwrap_or(before.len()) as u64;
        let (old, new) = (embedded::sectors(old, len), text.len() as u64 / SECTOR + 1);
        let (first, total) = (area.start / SECTOR, len / SECTOR);
        let padded = embedded::pad(text, new);
        Ok(match old.max(new) + new <= total {
            true => Waiting { padded, at: first + total - new, front: Some((first, total)) },
            false => Waiting { padded: embedded::pad(text, new.max(total)), at: behind, front: None },
        })
    }

    fn sectors(&self) -> u64 {
        self.padded.len() as u64 / SECTOR
    }

    fn settle(&self, storage: &dyn Storage) -> Result<()> {
        match self.front {
            Some((first, total)) => embedded::settle_text(storage, first, total, &self.padded, self.at),
            None => Ok(()),
        }
    }
}

/// Where everything new goes.
struct Plan {
    text: Waiting,
    /// For the redundant side, if there is one, and the primary one: old directory and new one, in bytes.
    sides: Vec<(u64, u64)>,
    tables: Range<u64>,
    directory_bytes: u64,
    end: u64,
}

impl File<'_> {
    fn grains(&self, capacity: u64) -> u64 {
        capacity.div_ceil(self.header.grain.0)
    }

    /// What lies behind the old end but inside the last grain and the last table becomes visible: it must be zeros.
    fn clear_beyond_the_end(&self) -> Result<()> {
        let grains = self.header.grains();
        let used = grains % ENTRIES as u64;
        let last = u64::from(self.header.tables()) - 1; // a disk has a sector at least
        let inside = self.header.capacity.0 % self.header.grain.0;
        for directory in self.directories()? {
            let mut entry = [0; 4];
            self.storage.read_at(&mut entry, directory + last * 4)?;
            let table = u64::from(u32::from_le_bytes(entry)) * SECTOR;
            if table == 0 {
                continue;
            }
            if used > 0 {
                self.zero(table + used * 4..table + TABLE_BYTES)?;
            }
            let mut grain = [0; 4];
            self.storage.read_at(&mut grain, table + (grains - 1) % ENTRIES as u64 * 4)?;
            let grain = u64::from(u32::from_le_bytes(grain)) * SECTOR;
            if inside > 0 && grain > SECTOR {
                self.zero(grain + inside * SECTOR..grain + self.header.grain_bytes())?;
            }
        }
        self.storage.flush()
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let len = usize::try_from(range.end - range.start).unwrap_or(0); // at most a grain
        self.storage.write_at(&vec![0; len], range.start)
    }

    /// The redundant directory, if there is one, and the primary one.
    fn directories(&self) -> Result<Vec<u64>> {
        let missing = || Error::new(ErrorKind::NeedsRepair, "a grain directory lies outside the file");
        let mut all = Vec::new();
        if self.header.has_redundant_tables() {
            all.push(self.header.redundant.ok_or_else(missing)?);
        }
        all.push(self.header.directory.ok_or_else(missing)?);
        Ok(all)
    }

    fn plan(&self, size: u64, capacity: Sectors, text: &[u8]) -> Result<Plan> {
        let too_big = || {
            let text = format!("one sparse file cannot hold a disk of {} sectors", capacity.0);
            Error::new(ErrorKind::FileTooBig, text)
        };
        let tables = self.grains(capacity.0).div_ceil(ENTRIES as u64);
        let directory_bytes = align_up(tables * 4, SECTOR).ok_or_else(too_big)?;
        let further = u64::from(self.header.tables())..tables;
        let per_side = directory_bytes + (further.end - further.start) * TABLE_BYTES;
        let grain = self.header.grain_bytes();
        let start = align_up(size, grain).ok_or_else(too_big)?;
        let mut at = start;
        let mut sides = Vec::new();
        for old in self.directories()? {
            sides.push((old, at));
            at += per_side;
        }
        let area = self.header.descriptor.clone();
        let area = area.ok_or_else(|| Error::new(ErrorKind::NotADisk, "no embedded descriptor"))?;
        let waiting = Waiting::new(self.storage, &area, text, at / SECTOR)?;
        let last = at.max((waiting.at + waiting.sectors()) * SECTOR);
        let end = align_up(last, grain).ok_or_else(too_big)?;
        let all = self.grains(capacity.0).checked_mul(self.header.grain.0);
        let all = all.and_then(|data| data.checked_add(self.header.overhead.0 + (end - start) / SECTOR));
        if all.is_none_or(|all| all.max(end / SECTOR) > ADDRESSABLE) {
            return Err(too_big());
        }
        Ok(Plan { text: waiting, sides, tables: further, directory_bytes, end })
    }

    /// Writes everything that the new header will name.
    fn prepare(&self, plan: &Plan) -> Result<()> {
        self.storage.set_len(plan.end).context(|| "making the file longer")?;
        for (old, new) in &plan.sides {
            let len = usize::try_from(plan.directory_bytes).unwrap_or(usize::MAX); // at most 2^25
            let mut directory = vec![0; len];
            let known = usize::try_from(self.header.directory_bytes()).unwrap_or(usize::MAX);
            let window = directory.get_mut(..known.min(len)).unwrap_or_default();
            self.storage.read_at(window, *old).context(|| "grain directory")?;
            let places = (new + plan.directory_bytes..).step_by(TABLE_BYTES as usize);
            let further = directory.get_mut(known..).unwrap_or_default().as_chunks_mut::<4>().0;
            for (entry, place) in
                further.iter_mut().zip(places).take((plan.tables.end - plan.tables.start) as usize)
            {
                let sector = u32::try_from(place / SECTOR)
                    .map_err(|_| Error::new(ErrorKind::FileTooBig, "a grain table past 2 TiB"))?;
                *entry = sector.to_le_bytes();
            }
            self.storage.write_at(&directory, *new).context(|| "new grain directory")?;
        }
        self.storage.write_at(&plan.text.padded, plan.text.at * SECTOR).context(|| "new descriptor")?;
        self.storage.flush()
    }

    fn new_header(&self, plan: &Plan, capacity: Sectors) -> Result<[u8; HEADER_BYTES]> {
        let mut sector = [0; HEADER_BYTES];
        self.storage.read_at(&mut sector, 0).context(|| "sparse header")?;
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = sector.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(CAPACITY_AT, &capacity.0.to_le_bytes());
        put(embedded::PLACE_AT as usize, &plan.text.at.to_le_bytes());
        put(embedded::PLACE_AT as usize + 8, &plan.text.sectors().to_le_bytes());
        let mut places = plan.sides.iter().rev().map(|(_, new)| new / SECTOR);
        put(PRIMARY_AT, &places.next().unwrap_or_default().to_le_bytes());
        if let Some(redundant) = places.next() {
            put(REDUNDANT_AT, &redundant.to_le_bytes());
        }
        Ok(sector)
    }
}
