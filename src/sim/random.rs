//! Names that nobody can guess: cookies, tickets, identifiers of disks and machines.

use crate::error::Context;
use crate::error::Result;
use crate::storage::os;

/// Random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    os::random_bytes(&mut bytes).context(|| "random bytes")?;
    Ok(bytes)
}

/// 40 hexadecimal digits, as the session cookies of real servers have.
pub fn cookie() -> Result<String> {
    Ok(hex(&bytes::<20>()?))
}

/// A random UUID in its text form.
pub fn uuid() -> Result<String> {
    Ok(uuid_of(bytes()?))
}

/// The UUID of 16 bytes, marked as a random one.
pub fn uuid_of(mut bytes: [u8; 16]) -> String {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let digits = hex(&bytes);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// Bytes as pairs of digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
