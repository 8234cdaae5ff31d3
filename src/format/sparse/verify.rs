//! The check of all tables when a file is opened for writing. What it finds is mended by `verify_mend`.
//!
//! Writing into a file whose tables contradict each other would spread the damage, so anything that a crash of an orderly
//! writer cannot explain is refused. A crash explains, in a file marked as being written:
//!
//! * an entry in one table only: the writer died between the two tables; the entry is kept, in both;
//! * two places with the same bytes in them: a grain was being moved; the place that readers see is kept;
//! * an entry that names space past the end of the file: the data never arrived; the entry is removed from both;
//! * space that no entry names: it is cut off the end, or stays unused;
//! * an empty table in one directory only: it is forgotten.

use std::ops::Range;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Header;
use crate::format::sparse::body::Body;
use crate::format::sparse::body::same_grain;
use crate::format::sparse::claims::Claims;
use crate::format::sparse::directory::Directory;
use crate::format::sparse::directory::Found;
use crate::format::sparse::directory::Side;
use crate::format::sparse::directory::check;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::units::SECTOR;

/// What the check found out.
#[derive(Debug)]
pub(super) struct Survey {
    /// End in bytes of everything that is used.
    pub end: u64,
    /// Entries to be written, to both tables.
    pub fixes: Vec<Fix>,
    /// Entries kept that stood in one table only.
    pub kept: u64,
    /// Entries kept of grains that were being moved.
    pub moving: u64,
    /// Entries removed because their data never arrived.
    pub lost: u64,
    /// Directory entries to be emptied.
    pub orphans: Vec<(Side, u32)>,
}

/// An entry that both tables shall have.
#[derive(Debug)]
pub(super) struct Fix {
    /// Byte offsets of the entry.
    pub places: [Option<u64>; 2],
    pub value: u32,
}

/// One pass over all tables.
struct Pass<'a> {
    header: &'a Header,
    body: &'a Body,
    directory: &'a Directory,
    claims: Claims,
    survey: Survey,
    /// Entries that stand in one table only; whether their space is free is known at the end.
    halves: Vec<Fix>,
    /// Bytes of grains with two places compared so far.
    compared: u64,
}

/// Tables that lie one behind the other, in both copies.
#[derive(Clone, Copy)]
struct Stretch {
    first: u32,
    count: u64,
    primary: u64,
    redundant: Option<u64>,
}

const BATCH: u32 = 64 * 1024;
const PIECE: u64 = 256 * 1024;
/// Entries to mend at most.
const FIXES: usize = 1 << 20;
/// Bytes of grains with two places that are compared at most: a writer moves far fewer before it makes sure of them.
const COMPARED: u64 = 1 << 30;

/// Checks all tables. Nothing is written. Damage that a crash does not explain is [`ErrorKind::NeedsRepair`].
pub(super) fn survey(header: &Header, body: &Body, directory: &Directory) -> Result<Survey> {
    let survey = Survey { end: 0, fixes: Vec::new(), kept: 0, moving: 0, lost: 0, orphans: Vec::new() };
    let claims = Claims::new(header.grain.0);
    let mut pass = Pass { header, body, directory, claims, survey, halves: Vec::new(), compared: 0 };
    pass.claim_metadata()?;
    let mut table = 0;
    while table < header.tables() {
        let end = header.tables().min(table.saturating_add(BATCH));
        pass.batch(table..end)?;
        table = end;
    }
    pass.conclude()
}

impl Pass<'_> {
    fn damaged(&self, text: impl AsRef<str>) -> Error {
        Error::new(ErrorKind::NeedsRepair, format!("{}: {}", self.body.name, text.as_ref()))
    }

    fn claim_metadata(&mut self) -> Result<()> {
        let bytes = self.header.directory_bytes();
        let Some(primary) = self.header.directory else {
            return Err(self.damaged("the primary grain directory lies outside the file"));
        };
        let redundant = self.header.redundant;
        if self.header.has_redundant_tables() && redundant.is_none() {
            return Err(self.damaged("the redundant grain directory lies outside the file"));
        }
        self.claims.metadata(0..1)?;
        if let Some(range) = &self.header.descriptor {
            self.claims.metadata(range.start / SECTOR..range.end / SECTOR)?;
        }
        for place in redundant.into_iter().chain([primary]) {
            self.claims.metadata(place / SECTOR..(place + bytes).div_ceil(SECTOR))?;
        }
        Ok(())
    }

    fn batch(&mut self, tables: Range<u32>) -> Result<()> {
        let primary = self.directory.read(self.body, Side::Primary, tables.clone())?;
        let redundant = self.directory.read(self.body, Side::Redundant, tables.clone())?;
        let pair = |i: usize| {
            (
                primary.get(i).copied().unwrap_or(0),
                self.header.redundant.and_then(|_| redundant.get(i).copied()),
            )
        };
        let step = (TABLE_BYTES / SECTOR) as u32;
        let mut i = 0;
        while i < primary.len() {
            let (p, r) = pair(i);
            let follows = |&k: &usize| {
                let ahead = |sector: u32| match sector {
                    0 => Some(0),
                    _ => sector.checked_add((k - i) as u32 * step),
                };
                let (next, other) = pair(k);
                ahead(p) == Some(next) && r.map(ahead) == other.map(Some)
            };
            let count = (i..primary.len()).take_while(follows).count().max(1);
            self.stretch(tables.start + i as u32, count as u64, p, r)?;
            i += count;
        }
        Ok(())
    }

    fn stretch(&mut self, first: u32, count: u64, primary: u32, redundant: Option<u32>) -> Result<()> {
        let place = |sector: u32| u64::from(sector) * SECTOR;
        match (primary, redundant) {
            (0, None | Some(0)) => return Ok(()),
            (sector, Some(0)) => return self.orphans(Side::Primary, first, count, place(sector)),
            (0, Some(sector)) => return self.orphans(Side::Redundant, first, count, place(sector)),
            _ => {}
        }
        for sector in redundant.into_iter().chain([primary]) {
            self.claim_tables(first, count, sector)?;
        }
        let stretch = Stretch { first, count, primary: place(primary), redundant: redundant.map(place) };
        for piece in self.inhabited(&stretch)? {
            self.compare(&stretch, piece)?;
        }
        Ok(())
    }

    fn claim_tables(&mut self, first: u32, count: u64, sector: u32) -> Result<()> {
        let sectors = TABLE_BYTES / SECTOR;
        let last = u32::try_from(u64::from(sector) + (count - 1) * sectors).unwrap_or(u32::MAX);
        if !matches!(check(self.body, last)?, Found::At(_)) {
            let text = format!(
                "grain tables {first} to {} lie past the end of the file",
                u64::from(first) + count - 1
            );
            return Err(self.damaged(text));
        }
        let start = u64::from(sector);
        self.claims.metadata(start..start + count * sectors)
    }

    /// Tables that one directory names and the other does not: forgotten if a crash explains it.
    fn orphans(&mut self, side: Side, first: u32, count: u64, place: u64) -> Result<()> {
        for i in 0..count {
            let table = first + i as u32;
            let at = place + i * TABLE_BYTES;
            let empty = self.header.unclean
                && self.body.reaches(at + TABLE_BYTES)?
                && self.body.read_table(at)?.iter().all(|&e| e == 0);
            if !empty || self.survey.orphans.len() >= FIXES {
                return Err(
                    self.damaged(format!("grain table {table} stands in one of the two directories only"))
                );
            }
            self.survey.orphans.push((side, table));
        }
        Ok(())
    }

    /// The parts of a stretch, in bytes from its start, where one of the copies may hold something: whole tables.
    fn inhabited(&self, stretch: &Stretch) -> Result<Vec<Range<u64>>> {
        let bytes = stretch.count * TABLE_BYTES;
        let mut parts: Vec<Range<u64>> = Vec::new();
        for place in stretch.redundant.into_iter().chain([stretch.primary]) {
            self.body.storage.allocated(place..place + bytes, &mut |part| {
                let start = part.start.saturating_sub(place) / TABLE_BYTES * TABLE_BYTES;
                let end = part.end.saturating_sub(place).min(bytes).next_multiple_of(TABLE_BYTES);
                parts.push(start..end);
            })?;
        }
        parts.sort_unstable_by_key(|part| part.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for part in parts {
            match joined.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => joined.push(part),
            }
        }
        Ok(joined)
    }

    fn compare(&mut self, stretch: &Stretch, part: Range<u64>) -> Result<()> {
        let story = || format!("grain tables of {}", self.body.name);
        let storage = &self.body.storage;
        let mut primary = vec![0; (part.end - part.start).min(PIECE) as usize];
        let mut redundant = stretch.redundant.map(|_| primary.clone());
        let mut at = part.start;
        while at < part.end {
            let len = (part.end - at).min(PIECE) as usize;
            primary.truncate(len);
            storage.read_at(&mut primary, stretch.primary + at).context(story)?;
            if let (Some(place), Some(bytes)) = (stretch.redundant, &mut redundant) {
                bytes.truncate(len);
                storage.read_at(bytes, place + at).context(story)?;
            }
            self.entries(stretch, at, &primary, redundant.as_ref().unwrap_or(&primary))?;
            at += len as u64;
        }
        Ok(())
    }

    /// Looks at the entries of both copies, which start `at` bytes into the stretch.
    fn entries(&mut self, stretch: &Stretch, at: u64, primary: &[u8], redundant: &[u8]) -> Result<()> {
        const BLOCK: usize = 64;
        let size = self.body.size();
        let overhead = self.header.overhead.0.max(2);
        let first = u64::from(stretch.first) * ENTRIES as u64 + at / 4;
        for (i, (a, b)) in primary.chunks(BLOCK).zip(redundant.chunks(BLOCK)).enumerate() {
            if a.iter().fold(0, |or, byte| or | byte) | b.iter().fold(0, |or, byte| or | byte) == 0 {
                continue;
            }
            for (k, (a, b)) in a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0).enumerate() {
                let offset = (i * BLOCK + k * 4) as u64;
                let (a, b) = (u32::from_le_bytes(*a), u32::from_le_bytes(*b));
                let grain = first + offset / 4;
                let end = u64::from(a) * SECTOR + self.header.grain_bytes();
                if a == b && u64::from(a) >= overhead && end <= size && grain < self.header.grains() {
                    self.claim(grain, a)?; // nearly all of them
                } else {
                    self.entry(stretch, at + offset, a, b)?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, stretch: &Stretch, offset: u64, primary: u32, redundant: u32) -> Result<()> {
        let grain = u64::from(stretch.first) * ENTRIES as u64 + offset / 4;
        if primary | redundant == 0 || grain >= self.header.grains() {
            return Ok(());
        }
        let places = [Some(stretch.primary + offset), stretch.redundant.map(|place| place + offset)];
        let (a, b) = (self.hollow(primary), self.hollow(redundant));
        let value = match (primary == redundant, a, b) {
            (true, true, _) => return Ok(()),
            (true, ..) => primary,
            (false, ..) if !self.header.unclean => {
                let text = format!(
                    "the tables disagree about grain {grain} (sector {primary}, redundant {redundant}) although the \
                     last writer ended in order"
                );
                return Err(self.damaged(text));
            }
            (false, false, false) if self.is_moving(grain, primary, redundant)? => {
                self.survey.moving += 1;
                return self.keep(Fix { places, value: primary });
            }
            (false, false, false) => {
                let text = format!(
                    "the tables disagree about grain {grain}: sector {primary}, redundant {redundant}"
                );
                return Err(self.damaged(text));
            }
            (false, true, true) => return self.mend(Fix { places, value: primary.max(redundant) }),
            (false, ..) => primary.max(redundant),
        };
        if !self.arrived(grain, value)? {
            self.survey.lost += 1;
            return self.mend(Fix { places, value: self.without(primary, redundant) });
        }
        if primary == redundant {
            return self.claim(grain, value);
        }
        self.survey.kept += 1;
        self.keep(Fix { places, value })
    }

    fn keep(&mut self, fix: Fix) -> Result<()> {
        if self.halves.len() >= FIXES {
            return Err(self.damaged("too many entries stand in one of the two tables only"));
        }
        self.halves.push(fix);
        Ok(())
    }

    /// True for a grain whose two places hold the same: it does not matter which one is kept.
    fn is_moving(&mut self, grain: u64, primary: u32, redundant: u32) -> Result<bool> {
        let bytes = self.header.grain_bytes();
        self.compared += bytes;
        if self.compared > COMPARED || !self.arrived(grain, primary)? || !self.arrived(grain, redundant)? {
            return Ok(false);
        }
        same_grain(self.header, self.body, grain, primary, redundant)
    }

    /// What an entry becomes when its data is lost: a grain of zeros if the other table still says so.
    fn without(&self, primary: u32, redundant: u32) -> u32 {
        u32::from(self.header.has_zero_grains() && (primary == 1 || redundant == 1))
    }

    fn hollow(&self, entry: u32) -> bool {
        entry == 0 || (entry == 1 && self.header.has_zero_grains())
    }

    /// False for data that never reached the file, which only a crash explains.
    fn arrived(&self, grain: u64, sector: u32) -> Result<bool> {
        if sector <= 1 || u64::from(sector) < self.header.overhead.0 {
            return Err(
                self.damaged(format!("grain {grain} is said to be at sector {sector}, among the tables"))
            );
        }
        let rest = self.header.capacity_bytes() - grain * self.header.grain_bytes();
        let end = u64::from(sector) * SECTOR + rest.min(self.header.grain_bytes());
        if self.body.reaches(end)? {
            return Ok(true);
        }
        if self.header.unclean {
            return Ok(false);
        }
        let text = format!("grain {grain} is said to be at sector {sector}, past the end of the file");
        Err(self.damaged(text))
    }

    fn claim(&mut self, grain: u64, sector: u32) -> Result<()> {
        if !self.claims.grain(sector)? {
            return Err(self.damaged(format!("grain {grain} shares sector {sector} with another grain")));
        }
        self.survey.end = self.survey.end.max(u64::from(sector) * SECTOR + self.header.grain_bytes());
        Ok(())
    }

    fn mend(&mut self, fix: Fix) -> Result<()> {
        if self.survey.fixes.len() >= FIXES {
            return Err(self.damaged("too many entries to mend"));
        }
        self.survey.fixes.push(fix);
        Ok(())
    }

    fn conclude(mut self) -> Result<Survey> {
        for fix in std::mem::take(&mut self.halves) {
            if !self.claims.grain(fix.value)? {
                let text = format!("an entry of one table names sector {}, which is used already", fix.value);
                return Err(self.damaged(text));
            }
            self.survey.end = self.survey.end.max(u64::from(fix.value) * SECTOR + self.header.grain_bytes());
            self.mend(fix)?;
        }
        if let Some(sector) = self.claims.conflict() {
            return Err(self.damaged(format!("sector {sector} is used twice")));
        }
        let metadata = self.claims.metadata_end().max(self.header.overhead.0).saturating_mul(SECTOR);
        self.survey.end = self.survey.end.max(metadata);
        Ok(self.survey)
    }
}
