//! Sectors, byte ranges and alignment, with checked arithmetic only.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// Bytes in a sector of every interface and format here, also on disks with 4096-byte sectors.
pub const SECTOR: u64 = 512;

/// A number of sectors, or a sector's position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sectors(pub u64);

impl Sectors {
    /// The same in bytes; more than 2^64 bytes is out of range.
    pub fn bytes(self) -> Result<u64> {
        self.0.checked_mul(SECTOR).ok_or_else(|| {
            Error::new(ErrorKind::OutOfRange, format!("{} sectors are more than 2^64 bytes", self.0))
        })
    }
}

/// The byte range `offset..offset + len`, refused when it overflows.
pub fn byte_range(offset: u64, len: u64) -> Result<Range<u64>> {
    match offset.checked_add(len) {
        Some(end) => Ok(offset..end),
        None => Err(Error::new(ErrorKind::OutOfRange, format!("{len} bytes at {offset:#x} pass 2^64"))),
    }
}

/// `value` rounded down to a multiple of `unit` (not zero).
pub fn align_down(value: u64, unit: u64) -> u64 {
    value - value % unit
}

/// `value` rounded up to a multiple of `unit` (not zero), `None` when that passes 2^64.
pub fn align_up(value: u64, unit: u64) -> Option<u64> {
    match value % unit {
        0 => Some(value),
        rest => value.checked_add(unit - rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_that_overflow_are_out_of_range() {
        assert_eq!(Sectors(3).bytes().unwrap(), 1536);
        assert_eq!(Sectors(u64::MAX).bytes().unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(byte_range(u64::MAX, 2).unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn alignment_goes_both_ways() {
        assert_eq!((align_down(1000, 512), align_up(1000, 512)), (512, Some(1024)));
        assert_eq!(align_up(u64::MAX, 512), None);
    }
}
