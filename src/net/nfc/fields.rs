//! Little-endian fields of messages; what is cut short is named.

use crate::error::Result;
use crate::net::nfc::broken;

/// The fields of one message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// What the message is called in errors.
    name: &'static str,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Fields of a message of exactly this length.
    pub fn exactly(name: &'static str, bytes: &'a [u8], length: usize) -> Result<Self> {
        if bytes.len() == length {
            return Ok(Self { name, bytes });
        }
        Err(broken(format!("{name} has {} bytes, expected {length}", bytes.len())))
    }

    /// The 32-bit number at this byte.
    pub fn u32(&self, at: usize) -> Result<u32> {
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(field) => Ok(u32::from_le_bytes(*field)),
            None => Err(self.cut(at)),
        }
    }

    /// The 64-bit number at this byte.
    pub fn u64(&self, at: usize) -> Result<u64> {
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(field) => Ok(u64::from_le_bytes(*field)),
            None => Err(self.cut(at)),
        }
    }

    fn cut(&self, at: usize) -> crate::error::Error {
        broken(format!("{} ends before its field at byte {at}", self.name))
    }
}

/// Puts a number into a message that is being made; a place outside of it is a mistake of this room.
pub fn put32(message: &mut [u8], at: usize, value: u32) {
    let field = message.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
    *field.expect("a field lies inside of its message") = value.to_le_bytes();
}

/// Puts a number into a message that is being made; a place outside of it is a mistake of this room.
pub fn put64(message: &mut [u8], at: usize, value: u64) {
    let field = message.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
    *field.expect("a field lies inside of its message") = value.to_le_bytes();
}

/// Text of a peer, fit for a log: no control characters, not too long.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(MOST_PRINTED).collect()
}

const MOST_PRINTED: usize = 500;
