//! The check of a COWD file. It is never mended: the delta belongs to its host, which knows whether a machine runs on it.

use std::sync::Arc;

use super::Cowd;
use super::Header;
use super::TABLE_ENTRIES;

use crate::error::Context;
use crate::error::Result;
use crate::format::check::CheckOptions;
use crate::format::check::Report;
use crate::format::check::Verdict;
use crate::storage::Storage;
use crate::units::SECTOR;

/// What writers put into fields that readers take as they are.
const FLAGS: u32 = 3;
const DIRECTORY: u32 = 4;

impl Cowd {
    /// Checks a file. Each fault is a line in the log. `Err`: the check could not be made, or the header is no such header.
    pub fn check(storage: &Arc<dyn Storage>, options: &CheckOptions) -> Result<Verdict> {
        let (log, name) = (&options.log, &options.name);
        let mut report = Report::new(log, name);
        let (delta, header) =
            Self::prepare(storage.clone(), log.clone(), name.clone()).context(|| name.clone())?;
        check_header(&header, options.sectors, &mut report);
        let audit = delta.lookup.audit(SECTOR, &mut report, &mut |_| Ok(()))?;
        let (free, file) = (u64::from(header.free), delta.lookup.shape().file);
        if free < audit.end.max(header.first_free).div_ceil(SECTOR) {
            let text = format!(
                "the header calls sector {free} free, the last table or grain ends at sector {}: the next writer would \
                 write over it",
                audit.end.div_ceil(SECTOR)
            );
            report.fault(false, text);
        } else if free > file.div_ceil(SECTOR) {
            let text = format!(
                "the header says that {free} sectors are used, the file has {file} bytes: it is cut short"
            );
            report.fault(false, text);
        }
        // Nothing is ever given back, so an entry that got lost leaves its sectors behind.
        let lost = free.saturating_sub((header.first_free.saturating_add(audit.used)) / SECTOR);
        if lost > 0 {
            report.fault(
                false,
                format!("{lost} sectors before the first free one belong to no table and no grain"),
            );
        }
        Ok(report.leave(options.repair, "a vmfsSparse delta belongs to its host and is only read"))
    }
}

fn check_header(header: &Header, sectors: Option<u64>, report: &mut Report<'_>) {
    if header.unclean {
        report.fault(false, "the last writer did not close the file");
    }
    for (name, value, known) in
        [("flags are", header.flags, FLAGS), ("directory is at sector", header.directory, DIRECTORY)]
    {
        if value != known {
            report.fault(false, format!("the {name} {value:#x}, all writers make it {known:#x}"));
        }
    }
    let covered = u64::from(header.grain_sectors) * u64::from(TABLE_ENTRIES);
    let needed = u64::from(header.sectors).div_ceil(covered);
    if u64::from(header.entries) != needed {
        let (has, sectors) = (header.entries, header.sectors);
        report.fault(false, format!("the directory has {has} entries, {sectors} sectors need {needed}"));
    }
    report.size(sectors, u64::from(header.sectors), u64::from(header.grain_sectors));
}
