//! The check of a hosted sparse file that may be damaged in any way, and what can be mended without guessing.
//!
//! ```text
//!   header      a descriptor size that does not fit the file around it; a directory that lies outside
//!   tables      a table that one of the two directories names wrongly          check_tables
//!   entries     tables that differ, grains used twice, places outside the file  check_entries
//!   mend        new copies first, then the switches, then the unused end        check_repair
//! ```
//!
//! Every finding is a line in the log. Where one thing is found that cannot be known, nothing is changed. A place that two grains claim is
//! copied, so that each keeps what it reads as; a grain whose data is not in the file is given up only on a disk without a
//! parent, since on a child the parent's old content would come forth instead.

use std::sync::Arc;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::u64_at;
use crate::format::check::CheckOptions;
use crate::format::check::Report;
use crate::format::check::Verdict;
use crate::format::sparse::Header;
use crate::format::sparse::body::Body;
use crate::format::sparse::check_repair;
use crate::format::sparse::check_tables;
use crate::format::sparse::check_tables::Found;
use crate::format::sparse::embedded;
use crate::format::sparse::header::HEADER_BYTES;
use crate::format::sparse::header::UNCLEAN_AT;
use crate::storage::Storage;
use crate::units::SECTOR;

/// Bytes in which a descriptor is looked for.
const TEXT: u64 = 16 << 20;

/// Checks a file and, when asked, mends it. `Err`: the check could not be made, or the repair was interrupted; the file can
/// be checked again then.
pub fn check(storage: &Arc<dyn Storage>, options: &CheckOptions) -> Result<Verdict> {
    let CheckOptions { repair, has_parent, sectors, log, name } = options;
    let body = Body::new(storage.clone(), name.clone(), log.clone())?;
    let mut report = Report::new(log, name);
    let mut sector = [0; HEADER_BYTES];
    body.storage.read_at(&mut sector, 0).context(|| format!("header of {name}"))?;
    let resized = descriptor_size(&body, &mut sector, &mut report)?;
    let header = Header::parse(&sector, body.size()).context(|| name.clone())?;
    if header.is_compressed() || header.has_markers() || header.version > 2 {
        let text = format!("{name}: only sparse extents that can be written to are checked");
        return Err(Error::new(ErrorKind::NotSupported, text));
    }
    if header.unclean {
        report.fault(true, "the last writer did not close the file");
    }
    if let Some(sectors) = sectors
        && header.capacity.0.checked_sub(*sectors).is_none_or(|more| more >= 128)
    {
        let has = header.capacity.0;
        report.fault(false, format!("the descriptor says {sectors} sectors, the header {has}"));
    }
    let found = check_tables::look(&header, &body, *has_parent, &mut report)?;
    // With something in the file that is not understood, every change may hit just that.
    let mends = *repair && report.curable > 0 && report.incurable == 0;
    if mends {
        mend(&header, &body, &found, resized)?;
    }
    Ok(report.verdict(mends))
}

/// Compares the header's idea of the descriptor with the file; corrects the copy in `sector` and gives the right place.
fn descriptor_size(body: &Body, sector: &mut [u8], report: &mut Report<'_>) -> Result<Option<(u64, u64)>> {
    let offset = u64_at(sector, 28, "descriptorOffset")?;
    let size = u64_at(sector, 36, "descriptorSize")?;
    let directories = [u64_at(sector, 48, "rgdOffset")?, u64_at(sector, 56, "gdOffset")?];
    let file = body.size() / SECTOR;
    let behind = directories.into_iter().filter(|&gd| gd > offset && gd < file).min();
    let Some(room) = behind.and_then(|end| end.checked_sub(offset)) else { return Ok(None) };
    if offset == 0 || room == 0 || room * SECTOR > TEXT {
        return Ok(None);
    }
    let mut text = vec![0; (room * SECTOR) as usize];
    body.storage.read_at(&mut text, offset * SECTOR)?;
    if !text.starts_with(b"# Disk DescriptorFile") {
        return Ok(None);
    }
    let used = text.iter().position(|&b| b == 0).unwrap_or(text.len()) as u64;
    if used <= size.saturating_mul(SECTOR) && size <= room {
        return Ok(None);
    }
    report.fault(
        true,
        format!(
            "the header gives the descriptor {size} sectors; its text has {used} bytes, and there is room for {room} sectors"
        ),
    );
    if let Some(field) = sector.get_mut(36..44) {
        field.copy_from_slice(&room.to_le_bytes());
    }
    Ok(Some((offset, room)))
}

/// Mends everything, all of which was found curable. A cut at any moment leaves a file that can be mended again.
fn mend(header: &Header, body: &Body, found: &Found, resized: Option<(u64, u64)>) -> Result<()> {
    let mark = |unclean: bool| {
        body.storage
            .write_at(&[u8::from(unclean)], UNCLEAN_AT)
            .and_then(|()| body.storage.flush())
            .context(|| format!("header of {}", body.name))
    };
    mark(true)?;
    if let Some((sector, count)) = resized {
        embedded::lead_to(&*body.storage, sector, count).context(|| format!("header of {}", body.name))?;
    }
    check_repair::apply(header, body, found, header.unclean)
        .context(|| format!("repair of {}", body.name))?;
    mark(false)
}
