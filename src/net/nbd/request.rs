//! Requests of the transmission phase as bytes: compact headers, and extended ones with 64 bit lengths.

/// What a request asks for, with its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Data of a range.
    Read = 0,
    /// New data for a range; the data follows the header.
    Write = 1,
    /// The client leaves; there is no reply.
    Leave = 2,
    /// Completed writes are to be made stable.
    Flush = 3,
    /// The content of a range is not needed any more.
    Trim = 4,
    /// A range is to read as zeros.
    Zero = 6,
    /// What a range holds.
    Status = 7,
}

/// Command flag: the reply says that the data is stable.
pub const FLAG_FUA: u16 = 1 << 0;
/// Command flag: the data of a read comes in one piece, holes included.
pub const FLAG_DF: u16 = 1 << 2;
/// Command flag: zeroing must fail at once rather than be as slow as writing zeros.
pub const FLAG_FAST_ZERO: u16 = 1 << 4;
/// Command flag of extended headers: the length is that of the payload that follows.
const FLAG_PAYLOAD: u16 = 1 << 5;

const MAGIC_COMPACT: u32 = 0x2560_9513;
const MAGIC_EXTENDED: u32 = 0x21e4_1c71;

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub verb: Verb,
    /// Command flags; the one that announces a payload is added here.
    pub flags: u16,
    /// Comes back in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes; with compact headers at most 2^32 - 1, which the planning of pieces guarantees.
    pub length: u64,
}

impl Request {
    /// Appends the header to `into`.
    pub fn encode(&self, extended: bool, into: &mut Vec<u8>) {
        let payload = if extended && self.verb == Verb::Write { FLAG_PAYLOAD } else { 0 };
        let magic = if extended { MAGIC_EXTENDED } else { MAGIC_COMPACT };
        into.extend_from_slice(&magic.to_be_bytes());
        into.extend_from_slice(&(self.flags | payload).to_be_bytes());
        into.extend_from_slice(&(self.verb as u16).to_be_bytes());
        into.extend_from_slice(&self.cookie.to_be_bytes());
        into.extend_from_slice(&self.offset.to_be_bytes());
        match u32::try_from(self.length) {
            Ok(length) if !extended => into.extend_from_slice(&length.to_be_bytes()),
            _ => into.extend_from_slice(&self.length.to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(extended: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        Request { verb: Verb::Write, flags: FLAG_FUA, cookie: 0x0102, offset: 0x1_0000_0000, length: 4096 }
            .encode(extended, &mut bytes);
        bytes
    }

    #[test]
    fn a_compact_header_has_28_bytes() {
        let bytes = encoded(false);
        assert_eq!(bytes[..8], [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1]);
        assert_eq!(bytes[8..16], 0x0102_u64.to_be_bytes());
        assert_eq!(bytes[16..24], 0x1_0000_0000_u64.to_be_bytes());
        assert_eq!(bytes[24..], 4096_u32.to_be_bytes());
    }

    #[test]
    fn an_extended_write_announces_its_payload_in_32_bytes() {
        let bytes = encoded(true);
        assert_eq!(bytes[..8], [0x21, 0xe4, 0x1c, 0x71, 0, 0x21, 0, 1]);
        assert_eq!(bytes[24..], 4096_u64.to_be_bytes());
    }
}
