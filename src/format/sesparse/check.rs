//! The check of a SESparse file. It is never mended: how its journal is sealed is not known, and the delta is its host's.

use std::sync::Arc;

use super::AREAS;
use super::GRAIN_SECTORS;
use super::Header;
use super::SeEntries;
use super::SeSparse;
use super::TABLE_SECTORS;
use super::grain_index;

use crate::error::Context;
use crate::error::Result;
use crate::format::bytes::u64_at;
use crate::format::check::CheckOptions;
use crate::format::check::Report;
use crate::format::check::Verdict;
use crate::format::lookup::Grains;
use crate::format::lookup::Lookup;
use crate::format::lookup::Named;
use crate::storage::Storage;
use crate::units::SECTOR;

const GRAIN_BYTES: u64 = GRAIN_SECTORS * SECTOR;
const JOURNAL_MAGIC: u64 = 0xdeaf_c0de;
/// All areas but the three headers are whole multiples of this, in every file that is known.
const AREA_SECTORS: u64 = 2048;
/// The first of the areas behind the headers.
const BODY_AREAS: usize = 2;
/// The kind of an entry whose grain was unmapped.
const UNMAPPED: u64 = 1;
/// Grains whose bits or reverse entries are read together.
const BATCH: u64 = 4096;
/// Bytes of the free bitmap read together.
const PIECE: u64 = 64 * 1024;

impl SeSparse {
    /// Checks a file. Each fault is a line in the log. `Err`: the check could not be made, or the header is no such header.
    pub fn check(storage: &Arc<dyn Storage>, options: &CheckOptions) -> Result<Verdict> {
        let (log, name) = (&options.log, &options.name);
        let mut report = Report::new(log, name);
        let opened = Self::prepare(storage.clone(), log.clone(), name.clone()).context(|| name.clone())?;
        let (delta, header, volatile) = opened;
        check_areas(&header, &mut report);
        report.size(options.sectors, header.capacity, GRAIN_SECTORS);
        check_headers(&**storage, &header, &volatile, &mut report).context(|| name.clone())?;
        check_directory(&delta.lookup, &header, &volatile, &mut report)?;
        let mut owners = Owners {
            storage: &**storage,
            header: &header,
            marked: Tally::default(),
            owned: Tally::default(),
        };
        delta.lookup.audit(GRAIN_BYTES, &mut report, &mut |grains| owners.table(grains))?;
        let unmapped = owners.unmapped(&delta.lookup)?;
        let (places, right) = (owners.places()?, owners.marked.right);
        let lost = places.saturating_sub(right.saturating_add(unmapped));
        if right > 0 && lost > 0 {
            report.fault(
                false,
                format!("{lost} places are in use, says the free bitmap, and no entry names them"),
            );
        }
        owners.marked.conclude("free bitmap", &mut report);
        owners.owned.conclude("backmap", &mut report);
        Ok(report.leave(options.repair, "a seSparse delta belongs to its host and is only read"))
    }
}

fn check_areas(header: &Header, report: &mut Report<'_>) {
    for ((name, _), area) in AREAS.iter().zip(&header.areas).skip(BODY_AREAS) {
        let sectors = area.end - area.start;
        if area.start % AREA_SECTORS != 0 || sectors % AREA_SECTORS != 0 || sectors == 0 {
            report.fault(
                false,
                format!("the {name} takes {area:?} (sectors), not whole MiB as in every known file"),
            );
        }
    }
    let grains = (header.grains.end - header.grains.start) / GRAIN_SECTORS;
    let [.., bitmap, backmap, _] = &header.areas;
    for (name, area, bytes) in
        [("free bitmap", bitmap, grains.div_ceil(8)), ("backmap", backmap, grains.saturating_mul(8))]
    {
        if area.end - area.start < bytes.div_ceil(SECTOR) {
            report.fault(
                false,
                format!("the {name} has {area:?} (sectors), {grains} grains need {bytes} bytes"),
            );
        }
    }
}

/// The volatile header and the journal's, which go together.
fn check_headers(
    storage: &dyn Storage,
    header: &Header,
    volatile: &[u8],
    report: &mut Report<'_>,
) -> Result<()> {
    if u64_at(volatile, 24, "replay journal")? != 0 {
        report.fault(false, "the journal waits to be replayed; only its host can do that");
    }
    let [_, journal, ..] = &header.areas;
    let mut raw = [0; SECTOR as usize];
    storage.read_at(&mut raw, journal.start.saturating_mul(SECTOR)).context(|| "journal header")?;
    let magic = u64_at(&raw, 0, "journal magic")?;
    if magic != JOURNAL_MAGIC {
        report
            .fault(false, format!("the journal header begins with {magic:#x}, {JOURNAL_MAGIC:#x} expected"));
    }
    let (here, there) = (u64_at(volatile, 16, "sequence")?, u64_at(&raw, 8, "journal sequence")?);
    if here != there {
        report.fault(false, format!("the volatile header is at transaction {here}, the journal at {there}"));
    }
    Ok(())
}

/// Tables behind the disk, and tables that the host would hand out again.
fn check_directory(
    lookup: &Lookup<SeEntries>,
    header: &Header,
    volatile: &[u8],
    report: &mut Report<'_>,
) -> Result<()> {
    let mut last = None;
    lookup.each_table(&mut |named| {
        if let Named::Table(_, at, _) = named {
            let index = (at / SECTOR).saturating_sub(header.tables.start) / TABLE_SECTORS;
            last = last.max(Some(index));
        }
        Ok(())
    })?;
    let free = u64_at(volatile, 8, "free table number")?;
    let room = (header.tables.end - header.tables.start) / TABLE_SECTORS;
    let used = last.map_or(0, |last| last + 1);
    if free < used || free > room {
        let text = format!(
            "the next free grain table is said to be {free}; {used} are used, there is room for {room}"
        );
        report.fault(false, text);
    }
    let known = lookup.tables().saturating_mul(8);
    let end = (header.directory.end - header.directory.start).saturating_mul(SECTOR);
    if lookup.has_data(header.directory.start.saturating_mul(SECTOR), known..end)? {
        report.fault(false, "the grain directory names tables behind the end of the disk");
    }
    Ok(())
}

/// What a host keeps about its grains, against what the tables say.
struct Owners<'a> {
    storage: &'a dyn Storage,
    header: &'a Header,
    marked: Tally,
    owned: Tally,
}

/// Grains for which it is right and wrong.
#[derive(Default)]
struct Tally {
    right: u64,
    wrong: Vec<String>,
    more: u64,
}

/// Lines of a tally.
const WRONG: usize = 100;

impl Tally {
    fn count(&mut self, right: bool, text: impl FnOnce() -> String) {
        match right {
            true => self.right += 1,
            false if self.wrong.len() < WRONG => self.wrong.push(text()),
            false => self.more += 1,
        }
    }

    /// Tells what is wrong. Where nothing at all is right, the writer did not keep the area.
    fn conclude(self, area: &str, report: &mut Report<'_>) {
        if self.right == 0 && !self.wrong.is_empty() {
            return report
                .note(format!("the {area} says nothing about the grains; their writer did not keep it"));
        }
        self.wrong.into_iter().for_each(|text| report.fault(false, text));
        if self.more > 0 {
            report.fault(false, format!("{} more grains are not as the {area} says", self.more));
        }
    }
}

impl Owners<'_> {
    fn table(&mut self, grains: Grains<'_>) -> Result<()> {
        let start = self.header.grains.start.saturating_mul(SECTOR);
        let mut indexes: Vec<(u64, u64)> =
            grains.iter().map(|&(grain, at)| (at.saturating_sub(start) / GRAIN_BYTES, grain)).collect();
        indexes.sort_unstable();
        let mut rest = &indexes[..];
        while let Some(&(first, _)) = rest.first() {
            let count = rest.iter().take_while(|(index, _)| index - first < BATCH).count();
            let (batch, after) = rest.split_at(count);
            self.batch(first, batch)?;
            rest = after;
        }
        Ok(())
    }

    /// Grains whose indexes are `first` and not far behind it.
    fn batch(&mut self, first: u64, batch: &[(u64, u64)]) -> Result<()> {
        let last = batch.last().map_or(first, |(index, _)| *index);
        let [.., bitmap, backmap, _] = &self.header.areas;
        let bits = self.piece(bitmap.start, first / 8..last / 8 + 1).context(|| "free bitmap")?;
        let owners = self.piece(backmap.start, first * 8..(last + 1) * 8).context(|| "backmap")?;
        for &(index, grain) in batch {
            let byte =
                usize::try_from(index / 8 - first / 8).ok().and_then(|at| bits.get(at)).copied().unwrap_or(0);
            self.marked.count(byte >> (index % 8) & 1 == 1, || {
                format!("the free bitmap says that place {index} is free, where grain {grain} is")
            });
            let at = usize::try_from((index - first) * 8).unwrap_or(usize::MAX);
            let owner = u64_at(&owners, at, "backmap entry").unwrap_or(0);
            self.owned.count(owner >> 60 == 1 && grain_index(owner) == grain, || {
                format!("the backmap says {owner:#x} of place {index}, where grain {grain} is")
            });
        }
        Ok(())
    }

    /// How many places are in use for grains that were unmapped.
    fn unmapped(&self, lookup: &Lookup<SeEntries>) -> Result<u64> {
        let [.., bitmap, _, grains] = &self.header.areas;
        let places = (grains.end - grains.start) / GRAIN_SECTORS;
        let mut count = 0u64;
        lookup.each_table(&mut |named| {
            let Named::Table(number, _, raw) = named else { return Ok(()) };
            let unmapped = lookup.places(number, raw).filter(|(_, entry, _)| entry >> 60 == UNMAPPED);
            for index in unmapped.map(|(_, entry, _)| grain_index(entry)).filter(|&index| index < places) {
                let byte = self.piece(bitmap.start, index / 8..index / 8 + 1)?;
                count += u64::from(byte.first().copied().unwrap_or(0) >> (index % 8) & 1);
            }
            Ok(())
        })?;
        Ok(count)
    }

    /// How many places are in use, as the free bitmap says.
    fn places(&self) -> Result<u64> {
        let [.., bitmap, _, grains] = &self.header.areas;
        let bytes = ((grains.end - grains.start) / GRAIN_SECTORS).div_ceil(8);
        let start = bitmap.start.saturating_mul(SECTOR);
        let end =
            start.saturating_add(bytes).min(bitmap.end.saturating_mul(SECTOR)).min(self.storage.size()?);
        let mut parts = Vec::new();
        self.storage.allocated(start.min(end)..end, &mut |part| parts.push(part))?;
        let mut places = 0u64;
        for part in parts {
            let mut at = part.start.max(start);
            while at < part.end.min(end) {
                let mut piece = vec![0; usize::try_from((part.end.min(end) - at).min(PIECE)).unwrap_or(0)];
                self.storage.read_at(&mut piece, at).context(|| "free bitmap")?;
                places += piece.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
                at += piece.len() as u64;
            }
        }
        Ok(places)
    }

    /// Bytes of an area that starts at a sector; what the file does not have is zeros.
    fn piece(&self, sector: u64, bytes: std::ops::Range<u64>) -> Result<Vec<u8>> {
        let start = sector.saturating_mul(SECTOR).saturating_add(bytes.start);
        let mut piece = vec![0; usize::try_from(bytes.end - bytes.start).unwrap_or(0)];
        let known = self.storage.size()?.saturating_sub(start).min(piece.len() as u64);
        if let Some(known) = usize::try_from(known).ok().and_then(|known| piece.get_mut(..known)) {
            self.storage.read_at(known, start)?;
        }
        Ok(piece)
    }
}
