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

/// True when all bytes are zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        None => true,
        // Each byte equals the one before it: compared by the system's memcmp, which is as fast as memory.
        Some((first, rest)) => *first == 0 && bytes.get(..rest.len()) == Some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::is_zero;

    #[test]
    fn one_byte_anywhere_is_seen() {
        assert!(is_zero(&[]) && is_zero(&[0]) && is_zero(&[0; 4096]));
        for at in [0, 1, 7, 511, 4094, 4095] {
            let mut bytes = [0; 4096];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
        assert!(!is_zero(&[7; 100]));
    }
}
