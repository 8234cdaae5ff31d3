//! What the grain tables say, in a file that may be damaged: every entry in its two copies.

use std::ops::Range;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::check::Report;
use crate::format::sparse::Header;
use crate::format::sparse::body::Body;
use crate::format::sparse::body::same_grain;
use crate::format::sparse::check_tables::Copies;
use crate::format::sparse::claims::Claims;
use crate::format::sparse::header::ENTRIES;
use crate::units::SECTOR;

/// What all entries came to.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub fixes: Vec<Fix>,
    /// End in bytes of the last grain.
    pub end: u64,
    /// Grains that have a place of their own.
    pub grains: u64,
}

/// What an entry shall be, in both tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fix {
    pub grain: u64,
    pub value: Value,
}

/// A new value of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Entry(u32),
    /// A new place with the content of this sector's grain.
    CopyOf(u32),
    /// As it is; the file must be made long enough for it.
    Lengthen(u32),
}

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No data.
    Hollow,
    /// A whole grain inside the file.
    Good,
    /// A grain of which the end is missing.
    Cut,
    /// A grain past the end of the file.
    Past,
    /// The header or the tables, before the place where grains begin.
    Wrong,
    /// A place that grains and tables both lay claim to.
    Doubtful,
}

struct Pass<'a, 'b> {
    header: &'a Header,
    body: &'a Body,
    has_parent: bool,
    claims: &'a mut Claims,
    report: &'a mut Report<'b>,
    found: Entries,
    /// Grains with a good place whose turn comes when all undisputed ones are known: readers' entry, other entry.
    disputed: Vec<(u64, u32, u32)>,
    /// Bytes of grains with two places compared so far.
    compared: u64,
}

/// Entries to mend in one go.
const FIXES: usize = 1 << 20;
/// Bytes of grains with two places that are compared at most.
const COMPARED: u64 = 1 << 32;

/// Looks at every entry of `tables`.
pub(super) fn look(
    header: &Header,
    body: &Body,
    has_parent: bool,
    tables: &[Copies],
    claims: &mut Claims,
    report: &mut Report<'_>,
) -> Result<Entries> {
    let found = Entries::default();
    let mut pass =
        Pass { header, body, has_parent, claims, report, found, disputed: Vec::new(), compared: 0 };
    for copies in tables {
        pass.table(copies)?;
    }
    pass.settle()?;
    if let Some(sector) = pass.claims.conflict() {
        pass.report.fault(false, format!("sector {sector} belongs to two grains that overlap by a part"));
    }
    Ok(pass.found)
}

impl Pass<'_, '_> {
    fn table(&mut self, copies: &Copies) -> Result<()> {
        let (Some(readable), other) = (copies.readable(), copies.redundant) else { return Ok(()) };
        let primary = self.body.read_table(readable)?;
        let redundant = match other.filter(|&place| place != readable) {
            Some(place) => self.body.read_table(place)?,
            None => primary.clone(),
        };
        let first = u64::from(copies.table) * ENTRIES as u64;
        let known = usize::try_from(self.header.grains().saturating_sub(first)).unwrap_or(ENTRIES);
        if primary.iter().skip(known).any(|&entry| entry != 0) {
            let text = format!("grain table {} has entries behind the end of the disk", copies.table);
            self.report.fault(false, format!("{text}; the header may be wrong about its size"));
        }
        for ((&p, &r), grain) in primary.iter().zip(redundant.iter()).zip(first..self.header.grains()) {
            if p | r != 0 {
                self.entry(grain, p, r)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, grain: u64, primary: u32, redundant: u32) -> Result<()> {
        let (p, r) = (self.place(grain, primary)?, self.place(grain, redundant)?);
        if primary == redundant {
            return match p {
                Place::Hollow => Ok(()),
                Place::Good => self.claim(grain, primary),
                bad => self.bad(grain, primary, bad),
            };
        }
        match (p, r) {
            (Place::Good, Place::Good) => self.dispute(grain, primary, redundant),
            (Place::Hollow, Place::Good) => self.dispute(grain, redundant, redundant),
            (Place::Good, _) => self.dispute(grain, primary, primary),
            (_, Place::Good) => self.dispute(grain, redundant, redundant),
            (Place::Hollow, Place::Hollow) => self.differ(grain, primary.max(redundant)),
            (Place::Hollow, _) => self.differ(grain, primary),
            (_, Place::Hollow) => self.differ(grain, redundant),
            _ => {
                let text =
                    format!("the tables disagree about grain {grain}, and both name places without data");
                self.report.fault(false, format!("{text}: {primary} and {redundant}"));
                Ok(())
            }
        }
    }

    fn place(&self, grain: u64, entry: u32) -> Result<Place> {
        if entry == 0 || (entry == 1 && self.header.has_zero_grains()) {
            return Ok(Place::Hollow);
        }
        let sectors = self.sectors(grain, entry);
        let early = sectors.start < self.header.overhead.0;
        match (early, entry == 1 || self.claims.is_metadata(&sectors)) {
            (true, true) => return Ok(Place::Wrong),
            (false, false) => {}
            // Either the entry is wrong or what the header says of the tables.
            _ => return Ok(Place::Doubtful),
        }
        Ok(match self.body.reaches(sectors.end * SECTOR)? {
            true => Place::Good,
            false if sectors.start * SECTOR < self.body.size() => Place::Cut,
            false => Place::Past,
        })
    }

    /// The sectors of a grain that lie inside the disk.
    fn sectors(&self, grain: u64, entry: u32) -> Range<u64> {
        let start = u64::from(entry);
        let rest = self.header.capacity.0 - grain * self.header.grain.0;
        start..start + rest.min(self.header.grain.0)
    }

    fn claim(&mut self, grain: u64, entry: u32) -> Result<()> {
        if !self.claims.grain(entry)? {
            let text = format!("grain {grain} shares sector {entry} with another grain; it gets a copy");
            self.report.fault(true, text);
            return self.fix(grain, Value::CopyOf(entry));
        }
        self.count(entry);
        Ok(())
    }

    fn count(&mut self, entry: u32) {
        self.found.grains += 1;
        self.found.end = self.found.end.max(u64::from(entry) * SECTOR + self.header.grain_bytes());
    }

    /// A grain that both tables place where there is no data.
    fn bad(&mut self, grain: u64, entry: u32, place: Place) -> Result<()> {
        let what = match place {
            Place::Cut => "at the end of the file, which cuts it short",
            Place::Past => "past the end of the file",
            Place::Doubtful => "where grains do not begin or tables are, but not both",
            _ => "among the tables",
        };
        // Data that a crash kept from arriving was never promised to anybody.
        let crash = self.header.unclean && matches!(place, Place::Cut | Place::Past);
        let curable = place != Place::Doubtful && (crash || !self.has_parent);
        let fate = match (curable, crash, place) {
            (false, _, Place::Doubtful) => "it is left",
            (false, ..) => "it is left, since without it the parent's content would show",
            (true, false, Place::Cut) => "its missing end becomes zeros",
            _ => "its data is not there, it becomes zeros or the parent's content",
        };
        self.report.fault(curable, format!("grain {grain} is said to be at sector {entry}, {what}; {fate}"));
        match (curable, crash, place) {
            (false, ..) => Ok(()),
            (true, false, Place::Cut) => {
                self.claims.grain(entry)?;
                self.count(entry);
                self.fix(grain, Value::Lengthen(entry))
            }
            _ => self.fix(grain, Value::Entry(0)),
        }
    }

    fn differ(&mut self, grain: u64, value: u32) -> Result<()> {
        self.report.fault(true, format!("the tables disagree about grain {grain}, which has no data"));
        self.fix(grain, Value::Entry(value))
    }

    fn dispute(&mut self, grain: u64, first: u32, second: u32) -> Result<()> {
        if self.disputed.len() >= FIXES {
            return Err(self.too_many());
        }
        self.disputed.push((grain, first, second));
        Ok(())
    }

    /// Decides where grains are that the tables place differently, with all others known.
    fn settle(&mut self) -> Result<()> {
        for (grain, first, second) in std::mem::take(&mut self.disputed) {
            let free = |pass: &Self, entry: u32| !pass.claims.has_grain(entry);
            let same = first == second || self.is_same(grain, first, second)?;
            let chosen = match (free(self, first), free(self, second)) {
                (true, true) | (true, false) if same => Some(first),
                (true, false) => Some(first),
                (false, true) => Some(second),
                (false, false) if same => {
                    let text =
                        format!("the tables disagree about grain {grain}, and its place is another's too");
                    self.report.fault(true, format!("{text}; it gets a copy of sector {first}"));
                    self.fix(grain, Value::CopyOf(first))?;
                    continue;
                }
                _ => None,
            };
            let Some(entry) = chosen else {
                let text = format!("the tables place grain {grain} at sectors {first} and {second}");
                self.report.fault(false, format!("{text}, which hold different data; it is left"));
                // Neither place may be given to anybody else.
                for entry in [first, second] {
                    self.claims.grain(entry)?;
                    self.count(entry);
                }
                continue;
            };
            self.report
                .fault(true, format!("the tables disagree about grain {grain}; it is at sector {entry}"));
            self.claims.grain(entry)?;
            self.count(entry);
            self.fix(grain, Value::Entry(entry))?;
        }
        Ok(())
    }

    /// True for two places that hold the same. Beyond a limit nothing is compared: no crash leaves that many.
    fn is_same(&mut self, grain: u64, first: u32, second: u32) -> Result<bool> {
        self.compared += self.header.grain_bytes();
        Ok(self.compared <= COMPARED && same_grain(self.header, self.body, grain, first, second)?)
    }

    fn fix(&mut self, grain: u64, value: Value) -> Result<()> {
        if self.found.fixes.len() >= FIXES {
            return Err(self.too_many());
        }
        self.found.fixes.push(Fix { grain, value });
        Ok(())
    }

    fn too_many(&self) -> Error {
        let text =
            format!("{}: more than {FIXES} entries are wrong; this is no disk any more", self.body.name);
        Error::new(ErrorKind::CantRepair, text)
    }
}
