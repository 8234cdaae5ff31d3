//! Replacing the descriptor inside a hosted sparse file so that at every instant the old or the new one is found.
//!
//! ```text
//!   header ──▶│ old text …  │             │      1  the new text goes into the second half of the area
//!   header ─┐ │ old text …  │ new text …  │      2  one sector, the header, switches over
//!           └───────────────▶
//!   header ──▶│ new text …  │ new text …  │      3  the first half follows, and the header switches back
//! ```

use std::ops::Range;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::units::SECTOR;

/// Where the header says at which sector the descriptor stands, followed by how many sectors it has.
pub(super) const PLACE_AT: u64 = 28;

/// Puts `text` into `area`, where the header has the descriptor, durably. A text that does not fit is `DiskFull`. An area
/// without room for both texts side by side is overwritten in one call: a process that dies leaves one of the two, a power
/// cut may leave a mixture.
pub fn replace_descriptor(storage: &dyn Storage, area: &Range<u64>, text: &[u8]) -> Result<()> {
    let len = usize::try_from(area.end.saturating_sub(area.start)).unwrap_or(usize::MAX);
    if text.len() > len {
        let message = format!("{} bytes do not fit the embedded area of {len} bytes", text.len());
        return Err(Error::new(ErrorKind::DiskFull, message));
    }
    let mut before = vec![0; len];
    storage.read_at(&mut before, area.start).context(|| "embedded descriptor")?;
    let after = padded(text, len);
    let sector = SECTOR as usize;
    let differs: Vec<usize> = before
        .chunks(sector)
        .zip(after.chunks(sector))
        .enumerate()
        .filter_map(|(i, (old, new))| (old != new).then_some(i))
        .collect();
    let (Some(&first), Some(&last)) = (differs.first(), differs.last()) else { return Ok(()) };
    let old_len = before.iter().position(|&b| b == 0).unwrap_or(len);
    let half = len / sector / 2 * sector;
    if first != last && old_len <= half && text.len() <= half {
        return switch_over(storage, area, half, text);
    }
    let end = ((last + 1) * sector).min(len);
    let part = after.get(first * sector..end).unwrap_or_default();
    storage.write_at(part, area.start + (first * sector) as u64)?;
    storage.flush()
}

fn switch_over(storage: &dyn Storage, area: &Range<u64>, half: usize, text: &[u8]) -> Result<()> {
    let second = area.start + half as u64..area.end;
    let room = usize::try_from(second.end - second.start).unwrap_or(half);
    storage.write_at(&padded(text, room), second.start)?;
    storage.flush()?;
    point_to(storage, &second)?;
    storage.write_at(&padded(text, half), area.start)?;
    storage.flush()?;
    point_to(storage, area)?;
    storage.write_at(&vec![0; room], second.start)?;
    storage.flush()
}

/// Tells the header where the descriptor stands, durably. All of it lies in one sector.
fn point_to(storage: &dyn Storage, area: &Range<u64>) -> Result<()> {
    storage.write_at(&place(area), PLACE_AT)?;
    storage.flush()
}

/// The two fields of the header that name the area.
pub(super) fn place(area: &Range<u64>) -> [u8; 16] {
    let (start, sectors) = (area.start / SECTOR, (area.end - area.start) / SECTOR);
    let mut fields = [0; 16];
    let (first, second) = fields.split_at_mut(8);
    first.copy_from_slice(&start.to_le_bytes());
    second.copy_from_slice(&sectors.to_le_bytes());
    fields
}

/// `text` followed by zeros up to `len` bytes, which are enough for it.
fn padded(text: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = text.to_vec();
    bytes.resize(len, 0);
    bytes
}
