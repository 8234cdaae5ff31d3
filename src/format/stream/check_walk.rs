//! From marker to marker through a stream file that may be damaged: where its grains are, and whether they inflate.

use std::ops::Range;

use super::TABLE_ENTRIES;
use super::check::MOST;
use super::read::MARKER_BYTES;
use super::work::Inflater;
use super::work::Window;
use super::write::FOOTER;
use super::write::GRAIN_DIRECTORY;
use super::write::GRAIN_TABLE;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::is_zero;
use crate::format::bytes::u32_at;
use crate::format::bytes::u64_at;
use crate::format::check::Report;
use crate::format::sparse::Header;
use crate::storage::Storage;
use crate::units::SECTOR;

/// Every grain's record, in the order in which they stand in the file.
#[derive(Debug, Default)]
pub(super) struct Records {
    sectors: Vec<u32>,
    grains: Vec<u64>,
    /// Which records belong to the grains in ascending order.
    order: Vec<u32>,
    /// The byte behind the last of them, at a whole sector.
    pub(super) end: u64,
}

/// How the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With the directory, the footer or the end-of-stream marker: there are no more records.
    Complete,
    /// Somewhere else: the file may have had more.
    Open,
}

/// What stands at a place.
enum Step {
    /// Something whose end is here.
    To(u64),
    /// The footer's marker.
    Footer,
    /// A sector of zeros, or the end of the file.
    End,
    /// It passes the end of the file.
    Past,
    /// Nothing that is known.
    Odd(String),
}

struct Walk<'a, 'b> {
    storage: &'a dyn Storage,
    header: &'a Header,
    file: u64,
    window: Window,
    inflater: Inflater,
    grain: Vec<u8>,
    records: Records,
    has_directory: bool,
    report: &'a mut Report<'b>,
}

/// Bytes read together.
const PIECE: u64 = 1 << 20;
/// Type of a marker that only tells how far the writer is.
const PROGRESS: u32 = 4;
/// What tells markers apart.
const HEAD: usize = 16;

impl Records {
    pub(super) fn len(&self) -> usize {
        self.sectors.len()
    }

    /// Sector and grain of a record.
    pub(super) fn get(&self, index: usize) -> (u32, u64) {
        (self.sectors.get(index).copied().unwrap_or(0), self.grains.get(index).copied().unwrap_or(0))
    }

    /// The record at a sector, and its grain.
    pub(super) fn at(&self, sector: u32) -> Option<(usize, u64)> {
        let index = self.sectors.binary_search(&sector).ok()?;
        Some((index, *self.grains.get(index)?))
    }

    /// Sector and grain of all records, in the order of the grains.
    pub(super) fn ascending(&self) -> impl Iterator<Item = (u32, u64)> {
        self.order.iter().map(|&index| self.get(index as usize))
    }

    pub(super) fn holds(&self, grain: u64) -> bool {
        self.order.binary_search_by_key(&grain, |&index| self.get(index as usize).1).is_ok()
    }
}

/// Walks through the file. `ended`: it has a footer, or needs none. `entries`: the places that tables name, in order; where
/// the walk does not know how to go on, it goes on at the next of them.
pub(super) fn walk(
    storage: &dyn Storage,
    header: &Header,
    ended: bool,
    entries: &[(u32, u64)],
    report: &mut Report<'_>,
) -> Result<(Records, Ending)> {
    let start = header.overhead.0.max(1).saturating_mul(SECTOR);
    let (window, inflater, file) = (Window::default(), Inflater::new(), storage.size()?);
    let (grain, records) = (Vec::new(), Records { end: start, ..Records::default() });
    let mut walk =
        Walk { storage, header, file, window, inflater, grain, records, has_directory: false, report };
    if start > file {
        walk.report.fault(
            false,
            format!("the metadata takes {} sectors, the file has {file} bytes", header.overhead.0),
        );
        return Ok((walk.records, Ending::Open));
    }
    // Records that the walk does not come by would be lost with the old tables.
    let metadata = header.descriptor.as_ref().map_or(SECTOR, |text| text.end).min(start);
    walk.tell_stray(metadata..start)?;
    let footer_at = file.saturating_sub(super::TAIL_BYTES as u64);
    let (mut at, mut ending) = (start, Ending::Open);
    loop {
        let step = walk.step(at)?;
        if let Step::To(next) = step {
            if walk.has_directory && !ended {
                break; // no grains follow, and what does follow is damaged
            }
            at = next;
            continue;
        }
        let after = entries.partition_point(|&(sector, _)| u64::from(sector) <= at / SECTOR);
        let next =
            entries.get(after).map(|&(sector, _)| u64::from(sector) * SECTOR).filter(|&next| next < file);
        let known = matches!(step, Step::Footer | Step::End);
        match step {
            Step::Footer if at == footer_at => ending = Ending::Complete,
            Step::Footer | Step::End if next.is_none() => ending = Ending::Complete,
            // A file that was cut ends like that; where there is a footer, the marker is wrong.
            Step::Past if next.is_none() => {
                let cut = !(ended && header.gd_at_end());
                walk.report.fault(cut, format!("the file ends inside what stands at byte {at:#x}"));
            }
            Step::Odd(what) => walk.report.fault(false, format!("byte {at:#x}: {what}")),
            Step::Past => {
                walk.report.fault(false, format!("what stands at byte {at:#x} passes the end of the file"))
            }
            _ => {}
        }
        match next {
            Some(next) if !(known && at == footer_at) => at = next,
            _ => break,
        }
    }
    if at != footer_at {
        walk.tell_stray(at.saturating_add(SECTOR)..file)?;
    }
    walk.tell_missed(entries)?;
    if walk.has_directory {
        ending = Ending::Complete;
    }
    walk.sort();
    Ok((walk.records, ending))
}

impl Walk<'_, '_> {
    /// Looks at what stands at byte `at`, which is a whole sector.
    fn step(&mut self, at: u64) -> Result<Step> {
        let rest = self.file.saturating_sub(at);
        if rest == 0 {
            return Ok(Step::End);
        }
        if rest < HEAD as u64 {
            return Ok(Step::Past);
        }
        let head = self.bytes(at, HEAD)?;
        let (value, size, kind) =
            (u64_at(head, 0, "marker")?, u32_at(head, 8, "size")?, u32_at(head, 12, "type")?);
        if size > 0 {
            return self.grain(at, value, size);
        }
        if rest < SECTOR {
            return Ok(Step::Past);
        }
        let tables = u64::from(TABLE_ENTRIES) * 4 / SECTOR;
        let expected = match kind {
            0 if value == 0 => {
                let zeros = is_zero(self.bytes(at, SECTOR as usize)?);
                return Ok(if zeros { Step::End } else { Step::Odd("a marker of no kind".to_owned()) });
            }
            FOOTER => {
                if value != 1 {
                    let text =
                        format!("the footer's marker at byte {at:#x} speaks of {value} sectors, 1 expected");
                    self.report.fault(true, text);
                }
                return Ok(Step::Footer);
            }
            GRAIN_TABLE => tables,
            GRAIN_DIRECTORY => self.header.directory_bytes().div_ceil(SECTOR),
            // Seen in the wild, of one sector.
            PROGRESS => return Ok(Step::To(at + SECTOR)),
            _ => return Ok(Step::Odd(format!("a marker of type {kind}, which is not known"))),
        };
        if expected != value {
            let text = format!("a marker of type {kind} in front of {value} sectors, {expected} expected");
            return Ok(Step::Odd(text));
        }
        let end = value
            .checked_add(1)
            .and_then(|sectors| sectors.checked_mul(SECTOR))
            .and_then(|len| at.checked_add(len));
        let Some(end) = end.filter(|&end| end <= self.file) else { return Ok(Step::Past) };
        self.has_directory |= kind == GRAIN_DIRECTORY;
        Ok(Step::To(end))
    }

    /// A record whose marker names the sector `lba` of the disk and `size` compressed bytes.
    fn grain(&mut self, at: u64, lba: u64, size: u32) -> Result<Step> {
        let grain = lba / self.header.grain.0;
        if lba % self.header.grain.0 != 0 || lba >= self.header.capacity.0 {
            return Ok(Step::Odd(format!("a marker of sector {lba}, where no grain of the disk begins")));
        }
        let bytes = self.header.grain_bytes();
        if u64::from(size) > 2 * bytes {
            return Ok(Step::Odd(format!("a marker of {size} compressed bytes, for a grain of {bytes}")));
        }
        let len = MARKER_BYTES as u64 + u64::from(size);
        let Some(end) = at.checked_add(len).filter(|&end| end <= self.file) else {
            // All of it is there, so it is not the file that ends too early.
            let rest = usize::try_from(self.file - at).unwrap_or(0);
            return Ok(match self.inflate(at, rest, grain)? {
                None => {
                    Step::Odd(format!("a marker of {size} compressed bytes, which are more than there are"))
                }
                Some(_) => Step::Past,
            });
        };
        if self.records.len() >= MOST {
            return Err(Error::new(ErrorKind::NotSupported, "more grains than a check keeps in memory"));
        }
        let Ok(sector) = u32::try_from(at / SECTOR) else {
            return Ok(Step::Odd("a grain behind what tables can name".to_owned()));
        };
        if let Some(fault) = self.inflate(at, len as usize, grain)? {
            self.report.fault(false, format!("grain {grain} at byte {at:#x}: {fault}"));
        }
        self.records.sectors.push(sector);
        self.records.grains.push(grain);
        self.records.end = end.next_multiple_of(SECTOR);
        Ok(Step::To(self.records.end))
    }

    /// Inflates the record of `len` bytes at `at`; what is wrong with it.
    fn inflate(&mut self, at: u64, len: usize, grain: u64) -> Result<Option<String>> {
        let bytes = self.header.grain_bytes();
        let mut room = std::mem::take(&mut self.grain);
        room.resize(usize::try_from(bytes).unwrap_or(0), 0);
        self.bytes(at, len)?;
        let packed = self.window.find(at, len).and_then(|all| all.get(MARKER_BYTES..)).unwrap_or_default();
        let needed = bytes.min(self.header.capacity_bytes().saturating_sub(grain.saturating_mul(bytes)));
        let fault = match self.inflater.inflate(packed, &mut room) {
            Ok(inflated) if (inflated as u64) < needed => {
                Some(format!("it inflates to {inflated} bytes, not {needed}"))
            }
            Ok(_) => None,
            Err(e) => Some(e.to_string()),
        };
        self.grain = room;
        Ok(fault)
    }

    /// The grain of the record at `at`, if one stands there whose data is good.
    fn record(&mut self, at: u64) -> Result<Option<u64>> {
        if self.file.saturating_sub(at) < HEAD as u64 {
            return Ok(None);
        }
        let head = self.bytes(at, HEAD)?;
        let (lba, size) = (u64_at(head, 0, "marker")?, u32_at(head, 8, "size")?);
        let len = MARKER_BYTES as u64 + u64::from(size);
        let fits = size > 0
            && u64::from(size) <= 2 * self.header.grain_bytes()
            && len <= self.file - at
            && lba < self.header.capacity.0
            && lba.is_multiple_of(self.header.grain.0);
        if !fits {
            return Ok(None);
        }
        let grain = lba / self.header.grain.0;
        Ok(self.inflate(at, len as usize, grain)?.is_none().then_some(grain))
    }

    /// Tells that there are records where the walk does not come by.
    fn tell_stray(&mut self, range: Range<u64>) -> Result<()> {
        for at in range.step_by(SECTOR as usize) {
            if let Some(grain) = self.record(at)? {
                let text = format!("byte {at:#x}: a record of grain {grain}, where no record belongs");
                self.report.fault(false, text);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells that tables name records that the walk did not come by.
    fn tell_missed(&mut self, entries: &[(u32, u64)]) -> Result<()> {
        for &(sector, grain) in entries {
            let at = u64::from(sector) * SECTOR;
            if self.records.at(sector).is_none() && self.record(at)? == Some(grain) {
                let text = format!("grain {grain} at byte {at:#x} does not stand in the row of records");
                self.report.fault(false, text);
            }
        }
        Ok(())
    }

    /// Bytes of the file, which has them.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        if !self.window.holds(at, len) {
            let piece = (self.file - at).min(PIECE.max(len as u64));
            self.window.fill(self.storage, at, usize::try_from(piece).unwrap_or(len))?;
        }
        Ok(self.window.find(at, len).unwrap_or_default())
    }

    /// Puts the records in order and tells grains that have more than one.
    fn sort(&mut self) {
        let records = &mut self.records;
        let grains = &records.grains;
        records.order = (0u32..).take(grains.len()).collect();
        records.order.sort_by_key(|&index| grains.get(index as usize).copied());
        for pair in self.records.order.windows(2) {
            if let [one, other] = pair
                && let (first, second) = (self.records.get(*one as usize), self.records.get(*other as usize))
                && first.1 == second.1
            {
                let text =
                    format!("grain {} has two records, at sectors {} and {}", first.1, first.0, second.0);
                self.report.fault(false, text);
            }
        }
    }
}
