//! The descriptor inside a sparse file, replaced so that a cut at any moment leaves the old text or the new one.
//!
//! ```text
//!   header ─▶ │ old text ····························· │      one sector differs: it is written, nothing else
//!             │ old text ··················│ new text  │      else the new text goes to the end of the area,
//!   header ─────────────────────────────────▶          │      the header is led there,
//!             │ new text ··················│ new text  │      the text is written to its place,
//!   header ─▶ │ new text ····························· │      the header led back, and the end emptied
//! ```
//!
//! The header's two numbers lie in one sector, which a disk writes whole or not at all. Text ends at its first NUL, so that
//! what stands at the end of the area disturbs nobody meanwhile.

use std::ops::Range;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Header;
use crate::storage::Storage;
use crate::units::SECTOR;

/// Where the header keeps the descriptor's first sector, followed by its number of sectors.
pub(super) const PLACE_AT: u64 = 28;
const FIRST_LINE: &[u8] = b"# Disk DescriptorFile";

/// Replaces the text in `area` of a hosted sparse file, durably. Refuses text that cannot stand in the area twice, since it
/// could not be replaced in safety.
pub fn replace(storage: &dyn Storage, area: &Range<u64>, text: &[u8]) -> Result<()> {
    let len = area.end.saturating_sub(area.start);
    let mut before = vec![0; usize::try_from(len).unwrap_or(0)];
    storage.read_at(&mut before, area.start)?;
    let old = before.iter().position(|&b| b == 0).unwrap_or(before.len()) as u64;
    let (old, new) = (sectors(old, len), sectors(text.len() as u64, len));
    let total = len / SECTOR;
    if text.len() as u64 > len {
        return Err(too_long(text.len(), len));
    }
    let padded = pad(text, new);
    let differing: Vec<usize> = differing_sectors(&before, &padded, old.max(new));
    if let [] | [_] = differing[..] {
        for sector in differing {
            let (at, bytes) = (sector * SECTOR as usize, sector_of(&padded, sector));
            storage.write_at(&bytes, area.start + at as u64)?;
        }
        return storage.flush();
    }
    if old.max(new) + new > total {
        return Err(too_long(text.len(), len));
    }
    let first = area.start / SECTOR;
    let spare = first + total - new;
    storage.write_at(&padded, spare * SECTOR)?;
    storage.flush()?;
    lead_to(storage, spare, new)?;
    settle_text(storage, first, total, &padded, spare)
}

/// Ends a replacement that was cut short while the header led to the end of the area. True when there was one, and the
/// header has changed.
pub(super) fn settle(storage: &dyn Storage, header: &Header) -> Result<bool> {
    let Some(area) = header.descriptor.clone().filter(|area| area.start > SECTOR) else { return Ok(false) };
    let tables = header.directory.into_iter().chain(header.redundant).min().unwrap_or(0);
    if area.end > tables {
        return Ok(false); // somebody else's idea of where a descriptor stands
    }
    let mut front = [0; FIRST_LINE.len()];
    storage.read_at(&mut front, SECTOR)?;
    if front != FIRST_LINE {
        return Ok(false);
    }
    let mut text = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)];
    storage.read_at(&mut text, area.start)?;
    let spare = area.start / SECTOR;
    if spare <= text.len() as u64 / SECTOR {
        return Ok(false);
    }
    settle_text(storage, 1, area.end / SECTOR - 1, &text, spare).context(|| "moving the descriptor back")?;
    Ok(true)
}

/// The last steps: the text to its place, the header to the text, the end emptied.
pub(super) fn settle_text(
    storage: &dyn Storage,
    first: u64,
    total: u64,
    padded: &[u8],
    spare: u64,
) -> Result<()> {
    storage.write_at(padded, first * SECTOR)?;
    storage.flush()?;
    lead_to(storage, first, total)?;
    storage.write_at(&vec![0; padded.len()], spare * SECTOR)?;
    storage.flush()
}

/// Has the header name `count` sectors from `sector` on as the descriptor, durably.
pub(super) fn lead_to(storage: &dyn Storage, sector: u64, count: u64) -> Result<()> {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&sector.to_le_bytes());
    place[8..].copy_from_slice(&count.to_le_bytes());
    storage.write_at(&place, PLACE_AT)?;
    storage.flush()
}

/// Sectors of `bytes` of text with the NUL that ends it, unless it fills all of `len`.
pub(super) fn sectors(bytes: u64, len: u64) -> u64 {
    (bytes / SECTOR + 1).min(len / SECTOR)
}

pub(super) fn pad(text: &[u8], sectors: u64) -> Vec<u8> {
    let mut padded = text.to_vec();
    padded.resize(text.len().max((sectors * SECTOR) as usize), 0);
    padded
}

fn sector_of(bytes: &[u8], sector: usize) -> Vec<u8> {
    let start = sector * SECTOR as usize;
    let mut content = bytes.get(start..).unwrap_or_default().to_vec();
    content.resize(SECTOR as usize, 0);
    content
}

/// The sectors among the first `count` that are not as they shall be; behind the new text they shall be empty.
fn differing_sectors(before: &[u8], padded: &[u8], count: u64) -> Vec<usize> {
    (0..count as usize).filter(|&i| sector_of(before, i) != sector_of(padded, i)).collect()
}

fn too_long(text: usize, area: u64) -> Error {
    let message = format!(
        "a descriptor of {text} bytes cannot be put into the {area} bytes set aside for it so that a power cut leaves \
         the old or the new one"
    );
    Error::new(ErrorKind::DiskFull, message)
}
