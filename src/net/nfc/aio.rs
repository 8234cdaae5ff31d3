//! Frames: what follows the handshake, in both directions.
//!
//! ```text
//!   0   magic            4   kind          8   bytes of the payload    12   operation
//!   16  payload, of a fixed length for each kind
//!   ..  more, whose length is in the payload: a path, a key, a bitmap, data
//! ```
//!
//! The client numbers its operations; what answers one has its kind and number. A refusal is a frame of its own kind with
//! the number of what it refuses, and the answer to that follows it.

use crate::error::Result;
use crate::net::nfc::broken;
use crate::net::nfc::fields::Fields;
use crate::net::nfc::fields::put32;

/// What a frame begins with.
pub const MAGIC: u32 = 0xA100_DA7A;

/// Bytes before the payload.
pub const HEADER: usize = 16;

/// Longest payload that is taken: those of known kinds are shorter, and no honest one of an unknown kind needs this.
pub const MOST_PAYLOAD: u32 = 4096;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 1: a request is refused.
    Refusal,
    /// 2: the size and number of buffers.
    OpenSession,
    /// 3: the end of the frames.
    CloseSession,
    /// 4: a file by its path.
    OpenFile,
    /// 5: a file is done with.
    CloseFile,
    /// 7: a part of a read or write.
    Io,
    /// 9: the sizes of the server's socket buffers.
    SocketOptions,
    /// 11: a value of the disk's data base.
    DdbGet,
    /// 13: which chunks are allocated.
    Blocks,
    /// 22: the share of the host's resources.
    ResourcePool,
    /// Anything else.
    Other(u32),
}

const KINDS: &[(Kind, u32)] = &[
    (Kind::Refusal, 1),
    (Kind::OpenSession, 2),
    (Kind::CloseSession, 3),
    (Kind::OpenFile, 4),
    (Kind::CloseFile, 5),
    (Kind::Io, 7),
    (Kind::SocketOptions, 9),
    (Kind::DdbGet, 11),
    (Kind::Blocks, 13),
    (Kind::ResourcePool, 22),
];

impl Kind {
    /// What a number of the wire means.
    pub fn of(number: u32) -> Self {
        let known = KINDS.iter().find(|(_, known)| *known == number);
        known.map_or(Kind::Other(number), |(kind, _)| *kind)
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Kind::Refusal => 1,
            Kind::OpenSession => 2,
            Kind::CloseSession => 3,
            Kind::OpenFile => 4,
            Kind::CloseFile => 5,
            Kind::Io => 7,
            Kind::SocketOptions => 9,
            Kind::DdbGet => 11,
            Kind::Blocks => 13,
            Kind::ResourcePool => 22,
            Kind::Other(number) => number,
        }
    }

    /// The payload's length, and another one that peers are known to use.
    fn lengths(self) -> Option<(u32, u32)> {
        match self {
            Kind::Refusal | Kind::Other(_) => None,
            Kind::OpenSession => Some((16, 16)),
            Kind::CloseSession => Some((4, 16)),
            Kind::OpenFile => Some((60, 60)),
            Kind::CloseFile => Some((8, 16)),
            Kind::Io => Some((44, 44)),
            Kind::SocketOptions => Some((12, 12)),
            Kind::DdbGet => Some((16, 16)),
            Kind::Blocks => Some((48, 48)),
            Kind::ResourcePool => Some((4, 4)),
        }
    }
}

/// The first bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is about.
    pub kind: Kind,
    /// Bytes of the payload.
    pub size: u32,
    /// The operation it belongs to.
    pub op: u32,
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        self.put(&mut bytes);
        bytes
    }

    /// The same at the front of a longer message.
    pub fn put(&self, message: &mut [u8]) {
        put32(message, 0, MAGIC);
        put32(message, 4, self.kind.number());
        put32(message, 8, self.size);
        put32(message, 12, self.op);
    }

    /// Reads one. The payload's length is one that its kind can have.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("a frame's header", bytes, HEADER)?;
        let magic = fields.u32(0)?;
        if magic != MAGIC {
            return Err(broken(format!("a frame begins with {magic:#010x}, expected {MAGIC:#010x}")));
        }
        let header = Self { kind: Kind::of(fields.u32(4)?), size: fields.u32(8)?, op: fields.u32(12)? };
        let fits = match header.kind.lengths() {
            Some((usual, other)) => header.size == usual || header.size == other,
            None => header.size <= MOST_PAYLOAD,
        };
        if fits {
            return Ok(header);
        }
        Err(broken(format!("a frame of kind {:?} with a payload of {} bytes", header.kind, header.size)))
    }
}

/// Appends a frame: its header, its payload and what follows that.
pub fn frame(into: &mut Vec<u8>, kind: Kind, op: u32, payload: &[u8], more: &[u8]) {
    let size = u32::try_from(payload.len()).expect("payloads are made here and short");
    into.extend_from_slice(&Header { kind, size, op }.encode());
    into.extend_from_slice(payload);
    into.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_made() {
        for (kind, number) in KINDS {
            assert_eq!((Kind::of(*number), kind.number()), (*kind, *number));
            let size = kind.lengths().map_or(16, |(usual, _)| usual);
            let header = Header { kind: *kind, size, op: 0x0102_0304 };
            assert_eq!(Header::parse(&header.encode()).unwrap(), header);
        }
        let other = Header { kind: Kind::Other(99), size: MOST_PAYLOAD, op: 7 };
        assert_eq!(Header::parse(&other.encode()).unwrap(), other);
    }

    #[test]
    fn another_magic_or_length_breaks_the_protocol() {
        let mut bytes = Header { kind: Kind::Io, size: 44, op: 0 }.encode();
        bytes[3] ^= 1;
        assert!(Header::parse(&bytes).is_err());
        for (kind, size) in [
            (Kind::Io, 43),
            (Kind::Io, u32::MAX),
            (Kind::OpenFile, 0),
            (Kind::CloseFile, 4),
            (Kind::Refusal, MOST_PAYLOAD + 1),
            (Kind::Other(6), u32::MAX),
        ] {
            assert!(Header::parse(&Header { kind, size, op: 0 }.encode()).is_err(), "{kind:?} {size}");
        }
        assert!(Header::parse(&[]).is_err() && Header::parse(&[0; 17]).is_err());
    }
}
