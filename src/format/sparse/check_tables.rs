//! Where the grain tables are, in a file that may be damaged: each table in its two copies, and which copies can be used.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Header;
use crate::format::sparse::body::Body;
use crate::format::sparse::check::Report;
use crate::format::sparse::check_entries;
use crate::format::sparse::check_entries::Fix;
use crate::format::sparse::claims::Claims;
use crate::format::sparse::directory::Directory;
use crate::format::sparse::directory::Found as Place;
use crate::format::sparse::directory::Side;
use crate::format::sparse::directory::check;
use crate::format::sparse::header::TABLE_BYTES;
use crate::units::SECTOR;

/// What was found, as far as repair has to know it.
#[derive(Debug)]
pub(super) struct Found {
    /// The places of both copies of each table that has a usable one, in bytes.
    pub tables: Vec<Copies>,
    /// Entries that shall be different.
    pub fixes: Vec<Fix>,
    /// A directory of which nothing is left.
    pub lost_side: Option<Side>,
    /// End in bytes of everything that is used.
    pub end: u64,
}

/// One table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies {
    pub table: u32,
    pub primary: Option<u64>,
    pub redundant: Option<u64>,
}

impl Copies {
    /// The copy that readers use.
    pub fn readable(&self) -> Option<u64> {
        self.primary.or(self.redundant)
    }
}

/// Tables in one file at most: a full file of the smallest grains has a quarter of that.
const TABLES: usize = 1 << 22;
const BATCH: u32 = 64 * 1024;
const TABLE_SECTORS: u64 = TABLE_BYTES / SECTOR;

/// Looks at everything behind the header.
pub(super) fn look(header: &Header, body: &Body, has_parent: bool, report: &mut Report<'_>) -> Result<Found> {
    let directory = Directory::new(header);
    let mut claims = Claims::new(header.grain.0);
    let mut used = fixed_places(header);
    let lost_side = lost_side(header, report);
    let mut named = named_tables(header, body, &directory)?;
    used.extend(named.iter().flat_map(|n| n.places()));
    let doubled = overlapping(&mut used);
    named.iter_mut().for_each(|n| n.refuse(&doubled));
    let mut tables = Vec::new();
    for name in &named {
        tables.extend(name.judge(header, lost_side, report));
    }
    for range in fixed_places(header).into_iter().chain(tables.iter().flat_map(Copies::sectors)) {
        claims.metadata(range)?;
    }
    let metadata = claims.sort_metadata();
    let entries = check_entries::look(header, body, has_parent, &tables, &mut claims, report)?;
    let first = claims.metadata_end().max(header.overhead.0).saturating_mul(SECTOR);
    let end = entries.end.max(first);
    tell_unused(header, body, report, metadata, entries.grains, end);
    Ok(Found { tables, fixes: entries.fixes, lost_side, end })
}

impl Copies {
    fn sectors(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let range = |place: u64| place / SECTOR..place / SECTOR + TABLE_SECTORS;
        self.redundant.into_iter().chain(self.primary).map(range)
    }
}

/// A table as the directories name it.
struct Named {
    table: u32,
    primary: Place,
    redundant: Place,
}

impl Named {
    fn places(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        [self.redundant, self.primary].into_iter().filter_map(|place| match place {
            Place::At(sector) => Some(u64::from(sector)..u64::from(sector) + TABLE_SECTORS),
            _ => None,
        })
    }

    /// Does without places that something else claims too.
    fn refuse(&mut self, doubled: &BTreeSet<u64>) {
        for place in [&mut self.primary, &mut self.redundant] {
            if let Place::At(sector) = *place
                && (sector <= 1 || doubled.contains(&u64::from(sector)))
            {
                *place = Place::Damaged(sector);
            }
        }
    }

    /// Tells what is wrong with it; the copies that can be used.
    fn judge(&self, header: &Header, lost: Option<Side>, report: &mut Report<'_>) -> Option<Copies> {
        let at = |place: Place| match place {
            Place::At(sector) => Some(u64::from(sector) * SECTOR),
            _ => None,
        };
        let copies = Copies { table: self.table, primary: at(self.primary), redundant: at(self.redundant) };
        let sides = [(Side::Primary, self.primary), (Side::Redundant, self.redundant)];
        for (side, place) in sides {
            let exists = side == Side::Primary || header.has_redundant_tables();
            if !exists || lost == Some(side) || at(place).is_some() {
                continue;
            }
            let what = match place {
                Place::Damaged(sector) => format!("an impossible or doubled place, sector {sector}"),
                _ => "no place".to_owned(),
            };
            let curable = copies.readable().is_some();
            report.fault(
                curable,
                format!("the {} directory names {what} for grain table {}", side.name(), self.table),
            );
        }
        copies.readable().map(|_| copies)
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Primary => "primary",
            Side::Redundant => "redundant",
        }
    }
}

/// Sectors of the header, the descriptor and the directories.
fn fixed_places(header: &Header) -> Vec<Range<u64>> {
    let sectors = |bytes: Range<u64>| bytes.start / SECTOR..bytes.end.div_ceil(SECTOR);
    let directory = |place: u64| place..place + header.directory_bytes();
    let header_sector = 0..1;
    let mut places = Vec::from([header_sector]);
    places.extend(header.descriptor.clone().map(sectors));
    places.extend(header.redundant.into_iter().chain(header.directory).map(directory).map(sectors));
    places
}

fn lost_side(header: &Header, report: &mut Report<'_>) -> Option<Side> {
    if header.directory.is_none() {
        report.fault(true, "the primary grain directory lies outside the file; the redundant one is there");
        return Some(Side::Primary);
    }
    if header.has_redundant_tables() && header.redundant.is_none() {
        report.fault(true, "the redundant grain directory lies outside the file; the primary one is there");
        return Some(Side::Redundant);
    }
    None
}

/// Every table that one of the directories names.
fn named_tables(header: &Header, body: &Body, directory: &Directory) -> Result<Vec<Named>> {
    let mut named = Vec::new();
    let mut from = 0;
    while from < header.tables() {
        let range = from..header.tables().min(from.saturating_add(BATCH));
        let primary = directory.read(body, Side::Primary, range.clone())?;
        let redundant = directory.read(body, Side::Redundant, range.clone())?;
        for (i, table) in range.clone().enumerate() {
            let of = |side: &[u32]| check(body, side.get(i).copied().unwrap_or(0));
            let found = Named { table, primary: of(&primary)?, redundant: of(&redundant)? };
            if (found.primary, found.redundant) == (Place::Nowhere, Place::Nowhere) {
                continue;
            }
            if named.len() >= TABLES {
                let text = format!("{}: more grain tables than any writer makes", body.name);
                return Err(Error::new(ErrorKind::CantRepair, text));
            }
            named.push(found);
        }
        from = range.end;
    }
    Ok(named)
}

/// The starts of all ranges that overlap another one. Sorts `ranges`.
fn overlapping(ranges: &mut [Range<u64>]) -> BTreeSet<u64> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut doubled = BTreeSet::new();
    let mut reach: Option<Range<u64>> = None;
    for range in ranges.iter() {
        if let Some(before) = &reach
            && range.start < before.end
        {
            doubled.extend([before.start, range.start]);
        }
        if reach.as_ref().is_none_or(|before| before.end < range.end) {
            reach = Some(range.clone());
        }
    }
    doubled
}

/// Tells about space that nothing names. No fault: a killed writer leaves it behind, and it harms nobody.
fn tell_unused(header: &Header, body: &Body, report: &mut Report<'_>, metadata: u64, grains: u64, end: u64) {
    let bytes = header.grain_bytes();
    let used = metadata.saturating_mul(SECTOR).saturating_add(grains.saturating_mul(bytes));
    let inside = end.saturating_sub(used.max(header.overhead.0.saturating_mul(SECTOR))) / bytes;
    if inside > 0 {
        report
            .note(format!("up to {inside} unused grains between others; shrinking the disk gives them back"));
    }
    if body.size() >= end.saturating_add(bytes) {
        let unused = body.size() - end;
        // With other damage left they may belong to something that was not found.
        let curable = report.incurable == 0;
        report.fault(curable, format!("{unused} unused bytes at the end of the file"));
    }
}
