//! The check of a stream file that may be damaged in any way, and what can be mended without guessing.
//!
//! ```text
//!   header, footer    the footer is a copy of the header that knows where the directory is
//!   walk              from marker to marker: every record, every grain inflated           check_walk
//!   tables            each entry against the records: both say which grain it is
//!   mend              tables, directory and footer anew, behind the last record           check_mend
//! ```
//!
//! A grain's marker says which grain it is, so the tables can be made again from the records alone. That is done when the
//! walk meets every record without a doubt: then a grain without a record is not in the file. Where a record and the
//! tables contradict each other and nothing decides between them, nothing is changed.

use std::sync::Arc;

use super::Stream;
use super::StreamEntries;
use super::TABLE_ENTRIES;
use super::check_mend;
use super::check_walk;
use super::check_walk::Ending;
use super::check_walk::Records;
use super::footer_sector;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::check::CheckOptions;
use crate::format::check::Report;
use crate::format::check::Verdict;
use crate::format::descriptor::Descriptor;
use crate::format::lookup::Lookup;
use crate::format::lookup::Named;
use crate::format::lookup::Place;
use crate::format::lookup::Shape;
use crate::format::sparse::Header;
use crate::format::sparse::header::HEADER_BYTES;
use crate::storage::Storage;

/// The first sector of a file.
pub(super) type RawHeader = [u8; HEADER_BYTES];

/// Where the header names the directory.
pub(super) const DIRECTORY_AT: usize = 56;

/// Fields that header and footer share: name, bytes, and whether header and records together say which one is right.
const SHARED: [(&str, usize, usize, Witness); 11] = [
    ("version", 4, 8, Witness::None),
    ("flags", 8, 12, Witness::None),
    ("capacity", 12, 20, Witness::Descriptor),
    ("grain size", 20, 28, Witness::Records),
    ("descriptor offset", 28, 36, Witness::Text),
    ("descriptor size", 36, 44, Witness::Text),
    ("redundant directory", 48, 56, Witness::Records),
    ("overhead", 64, 72, Witness::Records),
    ("note that it is being written", 72, 73, Witness::Records),
    ("line ends", 73, 77, Witness::Records),
    ("padding", 79, 512, Witness::None),
];

/// What speaks for the header where the footer says something else.
#[derive(Clone, Copy)]
enum Witness {
    None,
    /// The descriptor, which was found by the header and says the same.
    Descriptor,
    /// The descriptor's text, which lies whole in the place that the header gives it.
    Text,
    /// The records, or nothing depends on it.
    Records,
}

/// The header that counts and the directories that can be looked at.
struct Opened {
    raw: RawHeader,
    header: Header,
    directory: Option<u64>,
    redundant: Option<u64>,
    /// The file ends as it should.
    ended: bool,
}

/// What the tables of a directory say.
#[derive(Default, PartialEq, Eq)]
struct Entries {
    /// Sector and grain, in the order of the sectors.
    data: Vec<(u32, u64)>,
    /// There are grains of zeros, which have no record.
    zeros: bool,
}

/// Records and entries that are kept in memory.
pub(super) const MOST: usize = 1 << 26;

impl Stream {
    /// Checks a file and, when asked, mends it. Each fault is a line in the log. `Err`: the check could not be made, or the
    /// repair was interrupted; the file can be checked again then.
    pub fn check(storage: &Arc<dyn Storage>, options: &CheckOptions) -> Result<Verdict> {
        check(storage, options).context(|| options.name.clone())
    }
}

fn check(storage: &Arc<dyn Storage>, options: &CheckOptions) -> Result<Verdict> {
    let mut report = Report::new(&options.log, &options.name);
    let file = storage.size()?;
    let opened = open(&**storage, file, options, &mut report)?;
    let mut entries = Entries::default();
    if let Some(directory) = opened.directory.or(opened.redundant) {
        entries = named(storage, &opened.header, directory, options, &mut report)?;
    }
    if let (Some(_), Some(redundant)) = (opened.directory, opened.redundant)
        && named(storage, &opened.header, redundant, options, &mut report)? != entries
    {
        report.fault(true, "the redundant grain tables are not like the primary ones");
    }
    let (records, ending) =
        check_walk::walk(&**storage, &opened.header, opened.ended, &entries.data, &mut report)?;
    if !opened.ended {
        report.note(match ending {
            Ending::Complete => "every grain that was written is there, only the end is missing".to_owned(),
            Ending::Open => format!("what the file held behind byte {:#x} is lost", records.end),
        });
    }
    if opened.directory.or(opened.redundant).is_some() {
        compare(&entries.data, &records, options.has_parent, &mut report);
    }
    if entries.zeros && options.has_parent && report.curable > 0 {
        report.fault(false, "there are grains of zeros that hide a parent's content and have no record");
    }
    let mends = options.repair && report.curable > 0 && report.incurable == 0;
    if mends {
        check_mend::mend(&**storage, &opened.raw, &opened.header, &records).context(|| "repair")?;
    }
    Ok(report.verdict(mends))
}

/// Reads header and footer, and says what is wrong with them.
fn open(storage: &dyn Storage, file: u64, options: &CheckOptions, report: &mut Report<'_>) -> Result<Opened> {
    let mut raw = [0; HEADER_BYTES];
    storage.read_at(&mut raw, 0).context(|| "stream header")?;
    let header = parse(&raw, file, report)?;
    if !header.has_markers() {
        let text = "compressed grains without markers are not known";
        return Err(Error::new(ErrorKind::UnsupportedFeature, text));
    }
    if header.unclean {
        report.fault(true, "the last writer did not close the file");
    }
    report.size(options.sectors, header.capacity.0, header.grain.0);
    let (directory, redundant) = (header.directory, header.redundant);
    let mut opened = Opened { raw, header, directory, redundant, ended: true };
    if opened.header.gd_at_end() {
        opened.redundant = None;
        opened.directory = match footer(storage, file, &opened, options, report) {
            Err(e) if e.kind() == ErrorKind::NotADisk => {
                report.fault(true, format!("{e}"));
                opened.ended = false;
                None
            }
            directory => directory?,
        };
        return Ok(opened);
    }
    if directory.is_none() {
        report.fault(true, "the grain directory is not where the header says");
    }
    if opened.header.has_redundant_tables() && redundant.is_none() {
        report.fault(true, "the redundant grain directory is not where the header says");
    }
    Ok(opened)
}

/// The header; one whose directories lie outside the file is taken without them.
fn parse(raw: &RawHeader, file: u64, report: &mut Report<'_>) -> Result<Header> {
    let refused = match Header::parse(raw, file) {
        Ok(header) => return Ok(header),
        Err(e) => e,
    };
    let mut without = *raw;
    if let Some(field) = without.get_mut(DIRECTORY_AT..DIRECTORY_AT + 8) {
        field.fill(0xff);
    }
    match Header::parse(&without, file) {
        Ok(header) => {
            report.fault(true, format!("{refused}"));
            Ok(header)
        }
        Err(_) => Err(refused),
    }
}

/// The directory that the footer names. A footer that cannot be used is `NotADisk`.
fn footer(
    storage: &dyn Storage,
    file: u64,
    opened: &Opened,
    options: &CheckOptions,
    report: &mut Report<'_>,
) -> Result<Option<u64>> {
    let raw = footer_sector(storage, file)?;
    let unusable = |e: Error| e.with_kind(ErrorKind::NotADisk).context("the footer");
    let footer = Header::parse(&raw, file).map_err(unusable)?;
    for (name, from, to, witness) in SHARED {
        if opened.raw.get(from..to) != raw.get(from..to) {
            let curable = match witness {
                Witness::None => false,
                Witness::Descriptor => options.sectors == Some(opened.header.capacity.0),
                Witness::Text => options.sectors.is_some() && has_whole_text(storage, &opened.header)?,
                Witness::Records => true,
            };
            report.fault(curable, format!("header and footer disagree about the {name}"));
        }
    }
    let like = |f: fn(&Header) -> u64| f(&footer) == f(&opened.header);
    let alike = like(|h| h.capacity.0) && like(|h| h.grain.0);
    if footer.gd_at_end() || alike && footer.directory.is_none() {
        report.fault(true, "the footer names no grain directory inside the file");
    }
    Ok(footer.directory.filter(|_| alike))
}

/// True when the text of a descriptor begins and ends in the place that the header gives it.
fn has_whole_text(storage: &dyn Storage, header: &Header) -> Result<bool> {
    let Some(area) = &header.descriptor else { return Ok(false) };
    let mut text = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)]; // at most 16 MiB
    storage.read_at(&mut text, area.start).context(|| "embedded descriptor")?;
    Ok(text.last() == Some(&0) && Descriptor::parse(&text).is_ok())
}

/// Every grain that the tables of a directory name; tells what cannot be.
fn named(
    storage: &Arc<dyn Storage>,
    header: &Header,
    directory: u64,
    options: &CheckOptions,
    report: &mut Report<'_>,
) -> Result<Entries> {
    let file = storage.size()?;
    let shape = Shape {
        capacity: header.capacity_bytes(),
        grain: header.grain_bytes(),
        entries: TABLE_ENTRIES,
        directory,
        spare: None,
        file,
    };
    let meaning = StreamEntries { zero_grains: header.has_zero_grains(), file };
    let lookup = Lookup::new(storage.clone(), meaning, shape, options.log.clone(), options.name.clone())?;
    let mut entries = Entries::default();
    lookup.each_table(&mut |table| {
        let (number, raw) = match table {
            Named::Bad(number) => {
                report.fault(
                    true,
                    format!("directory entry {number} names no possible place of a grain table"),
                );
                return Ok(());
            }
            Named::Table(number, _, raw) => (number, raw),
        };
        if lookup.reaches_past_the_end(number, raw) {
            report.fault(false, format!("grain table {number} has entries behind the end of the disk"));
        }
        for (grain, entry, place) in lookup.places(number, raw) {
            match place {
                // Whether it can be there is seen when it is compared with the records.
                Place::Data(_) | Place::Bad => {
                    entries.data.push((u32::try_from(entry).unwrap_or(u32::MAX), grain))
                }
                Place::Zero => entries.zeros = true,
                Place::Unallocated => {}
            }
        }
        if entries.data.len() > MOST {
            return Err(Error::new(ErrorKind::NotSupported, "more grains than a check keeps in memory"));
        }
        Ok(())
    })?;
    entries.data.sort_unstable();
    Ok(entries)
}

/// Holds the tables against the records.
fn compare(entries: &[(u32, u64)], records: &Records, has_parent: bool, report: &mut Report<'_>) {
    let mut vouched = vec![false; records.len()];
    let mut contradicting = Vec::new();
    for &(sector, grain) in entries {
        match records.at(sector) {
            Some((index, found)) if found == grain => {
                if let Some(vouched) = vouched.get_mut(index) {
                    *vouched = true;
                }
            }
            found => contradicting.push((sector, grain, found)),
        }
    }
    for (sector, grain, found) in contradicting {
        // Without its record a grain becomes the parent's content, which it never was.
        let replaceable = !has_parent || records.holds(grain);
        match found {
            None => {
                let text =
                    format!("the tables place grain {grain} at sector {sector}, where no grain begins");
                report.fault(replaceable, text);
            }
            Some((index, other)) => {
                let confirmed = vouched.get(index) == Some(&true);
                let text = format!(
                    "the tables place grain {grain} at sector {sector}, whose marker says grain {other}"
                );
                report.fault(confirmed && replaceable, text);
            }
        }
    }
    for (index, _) in vouched.iter().enumerate().filter(|(_, vouched)| !**vouched) {
        let (sector, grain) = records.get(index);
        report.fault(true, format!("grain {grain} at sector {sector} is not in the tables"));
    }
}
