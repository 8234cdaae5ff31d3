//! Where the grain tables are, in a file that may be damaged: each table in its two copies, and which copies can be used.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::check::Report;
use crate::format::sparse::Header;
use crate::format::sparse::body::Body;
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
    let (trusted, lost_side) = without_lost_side(header, body, report)?;
    let header = &trusted;
    let directory = Directory::new(header);
    let mut claims = Claims::new(header.grain.0);
    let mut used = fixed_places(header);
    let mut named = named_tables(header, body, &directory)?;
    named.iter_mut().for_each(Named::part);
    used.extend(named.iter().flat_map(|n| n.places()));
    let doubled = overlapping(&mut used);
    named.iter_mut().for_each(|n| n.refuse(&doubled));
    refuse_among_grains(header, body, &mut named)?;
    let mut tables = Vec::new();
    for name in &named {
        if name.is_in_doubt(header, body)? {
            let text = format!("grain table {} may be at two places, which say different things", name.table);
            report.fault(false, text);
        }
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

    /// Leaves a place that both directories name to the primary one.
    fn part(&mut self) {
        if let Place::At(sector) = self.redundant
            && self.primary == self.redundant
        {
            self.redundant = Place::Damaged(sector);
        }
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

    /// True when readers use a copy that was refused although it can be one, and the other copy says something else.
    fn is_in_doubt(&self, header: &Header, body: &Body) -> Result<bool> {
        let (Place::Damaged(refused), Place::At(other)) = (self.primary, self.redundant) else {
            return Ok(false);
        };
        let at = u64::from(refused);
        if !matches!(check(body, refused)?, Place::At(_)) || !is_table(header, body, at)? {
            return Ok(false);
        }
        Ok(body.read_table(at * SECTOR)? != body.read_table(u64::from(other) * SECTOR)?)
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

/// The header without a directory that cannot be where the header says, and which one that is. Taking a wrong place for
/// a directory would turn good grains into damaged ones, so a directory is given up when it stands where something else is.
fn without_lost_side(
    header: &Header,
    body: &Body,
    report: &mut Report<'_>,
) -> Result<(Header, Option<Side>)> {
    let sectors = |place: u64| place / SECTOR..(place + header.directory_bytes()).div_ceil(SECTOR);
    let text = header.descriptor.clone().map_or(0..0, |text| text.start / SECTOR..text.end / SECTOR);
    let misplaced = |place: u64| overlap(&sectors(place), &text);
    let mut trusted = header.clone();
    trusted.directory = header.directory.filter(|&place| !misplaced(place));
    trusted.redundant = header.redundant.filter(|&place| !misplaced(place));
    if let (Some(primary), Some(redundant)) = (trusted.directory, trusted.redundant) {
        let one = standing(header, body, Side::Primary, &sectors(redundant))?;
        let other = standing(header, body, Side::Redundant, &sectors(primary))?;
        let overlapping = overlap(&sectors(primary), &sectors(redundant));
        match (one.refutes(&other), other.refutes(&one)) {
            (true, false) => trusted.redundant = None,
            (false, true) => trusted.directory = None,
            _ if overlapping && primary == redundant => trusted.redundant = None,
            _ if overlapping => {
                let error = body.corrupt("the two grain directories stand in each other's way");
                return Err(error.with_kind(ErrorKind::CantRepair));
            }
            _ => {}
        }
    }
    let lost = match (trusted.directory, trusted.redundant) {
        (None, None) => {
            let text = "neither of the grain directories is where the header says";
            return Err(body.corrupt(text).with_kind(ErrorKind::CantRepair));
        }
        (None, Some(_)) => Side::Primary,
        (Some(_), None) if header.has_redundant_tables() => Side::Redundant,
        _ => return Ok((trusted, None)),
    };
    report.fault(
        true,
        format!("the {} grain directory lies where it cannot be; the other one is there", lost.name()),
    );
    Ok((trusted, Some(lost)))
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// How far a directory can be believed.
struct Standing {
    /// It names a table where the other directory stands.
    accuses: bool,
    /// Tables it names that can be such.
    good: u64,
    /// Places it names that cannot be tables.
    bad: u64,
}

impl Standing {
    /// True when the other directory cannot be where the header says.
    fn refutes(&self, other: &Standing) -> bool {
        self.accuses && self.bad == 0 && (other.bad > 0 || other.good < self.good)
    }
}

/// Judges the directory of `side` by the tables it names; the other directory stands in `sectors`.
fn standing(header: &Header, body: &Body, side: Side, sectors: &Range<u64>) -> Result<Standing> {
    let directory = Directory::new(header);
    let mut standing = Standing { accuses: false, good: 0, bad: 0 };
    let mut from = 0;
    while from < header.tables() {
        let to = header.tables().min(from.saturating_add(BATCH));
        for sector in directory.read(body, side, from..to)?.into_iter().filter(|&sector| sector > 0) {
            let start = u64::from(sector);
            standing.accuses |= overlap(&(start..start + TABLE_SECTORS), sectors);
            let good = matches!(check(body, sector)?, Place::At(_)) && is_table(header, body, start)?;
            standing.good += u64::from(good);
            standing.bad += u64::from(!good);
        }
        if standing.good + standing.bad > TABLES as u64 {
            return Err(too_many(body));
        }
        from = to;
    }
    Ok(standing)
}

/// True when every entry of the table at `sector` is empty or names a place where grains may be.
fn is_table(header: &Header, body: &Body, sector: u64) -> Result<bool> {
    let fits = |&entry: &u32| {
        let entry = u64::from(entry);
        let least = header.overhead.0;
        entry == 0 || entry == 1 && header.has_zero_grains() || entry >= least && entry * SECTOR < body.size()
    };
    Ok(body.read_table(sector * SECTOR)?.iter().all(fits))
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
                return Err(too_many(body));
            }
            named.push(found);
        }
        from = range.end;
    }
    Ok(named)
}

/// Does without tables that stand where any table, right or wrong, has grains: one of the two is misplaced, and writing
/// entries into a grain would destroy it.
fn refuse_among_grains(header: &Header, body: &Body, named: &mut [Named]) -> Result<()> {
    let first = header.overhead.0.max(2);
    let mut grains = Claims::new(header.grain.0);
    for sectors in named.iter().flat_map(Named::places) {
        let entries = body.read_table(sectors.start * SECTOR)?;
        let inside = |&&entry: &&u32| u64::from(entry) >= first && u64::from(entry) * SECTOR < body.size();
        for &entry in entries.iter().filter(inside) {
            grains.grain(entry)?;
        }
    }
    for table in named {
        for place in [&mut table.primary, &mut table.redundant] {
            if let Place::At(sector) = *place
                && u64::from(sector) + TABLE_SECTORS > first
                && grains.has_grain_in(&(u64::from(sector)..u64::from(sector) + TABLE_SECTORS))
            {
                *place = Place::Damaged(sector);
            }
        }
    }
    Ok(())
}

fn too_many(body: &Body) -> Error {
    Error::new(ErrorKind::CantRepair, format!("{}: more grain tables than any writer makes", body.name))
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
    if body.size() < end.saturating_add(bytes) {
        return;
    }
    let unused = body.size() - end;
    match header.unclean {
        true => report.fault(true, format!("{unused} unused bytes at the end of the file")),
        // They may belong to something that was not found, or to a header that is not as it was.
        false => {
            report.note(format!(
                "{unused} unused bytes at the end of the file; shrinking the disk gives them back"
            ));
        }
    }
}
