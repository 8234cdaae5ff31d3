//! Little-endian fields out of a byte slice; what is cut short is named, nothing panics.

use crate::error::{Error, ErrorKind, Result};

/// The `N` bytes at `at`, or an error that names the field.
fn array<const N: usize>(bytes: &[u8], at: usize, name: &str) -> Result<[u8; N]> {
    at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|field| field.try_into().ok()).ok_or_else(
        || Error::new(ErrorKind::Corrupt, format!("{name} at byte {at} needs {N} bytes of {}", bytes.len())),
    )
}

/// The byte at `at`.
pub fn u8_at(bytes: &[u8], at: usize, name: &str) -> Result<u8> {
    array::<1>(bytes, at, name).map(|[b]| b)
}

/// The 16-bit little-endian number at byte `at`.
pub fn u16_at(bytes: &[u8], at: usize, name: &str) -> Result<u16> {
    array(bytes, at, name).map(u16::from_le_bytes)
}

/// The 32-bit little-endian number at byte `at`.
pub fn u32_at(bytes: &[u8], at: usize, name: &str) -> Result<u32> {
    array(bytes, at, name).map(u32::from_le_bytes)
}

/// The 64-bit little-endian number at byte `at`.
pub fn u64_at(bytes: &[u8], at: usize, name: &str) -> Result<u64> {
    array(bytes, at, name).map(u64::from_le_bytes)
}
