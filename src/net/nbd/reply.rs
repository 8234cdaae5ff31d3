//! Replies of the transmission phase as bytes: heads in three shapes, and the small payloads behind them.
//!
//! Nothing here waits or allocates by what a peer claims: a parser looks at bytes that are there, and says how many it
//! needs to go on.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::Replies;
use crate::net::pipe::protocol;

/// Longest head: an extended one.
pub const MOST_HEAD: usize = 32;
/// The payload of an error chunk: code, length, 4096 bytes of text, an offset.
pub const MOST_ERROR: u64 = 4 + 2 + 4096 + 8;
/// What stands before the data of a data chunk: its offset.
pub const DATA_OFFSET: u64 = 8;
/// The payload of a hole: offset and length.
pub const HOLE: u64 = 12;

const MAGIC_SIMPLE: u32 = 0x6744_6698;
const MAGIC_CHUNK: u32 = 0x668e_33ef;
const MAGIC_EXTENDED: u32 = 0x6e8a_278c;
const FLAG_DONE: u16 = 1;
const KIND_ERROR_BIT: u16 = 1 << 15;

/// What a chunk brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// Nothing: the end of a reply.
    None,
    /// Data and where it belongs.
    Data,
    /// A range that reads as zeros.
    Hole,
    /// Extents with 32 bit lengths.
    Status,
    /// Extents with 64 bit lengths.
    StatusExtended,
    /// Why the request failed.
    Error,
    /// The same and where.
    ErrorAt,
    /// A failure in words that this client does not know.
    ErrorOther,
}

/// The head of a reply or of a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A whole reply; the data of a successful read follows.
    Simple {
        /// Of the request.
        cookie: u64,
        /// 0, or why the request failed.
        errno: u32,
    },
    /// A part of a reply.
    Chunk {
        /// Of the request.
        cookie: u64,
        /// It is the last one.
        done: bool,
        /// What follows.
        kind: ChunkKind,
        /// Bytes that follow.
        length: u64,
    },
}

/// What the bytes at hand amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// At least so many bytes are needed, counted from the start.
    Need(usize),
    /// A head of so many bytes.
    Head(Head, usize),
}

/// Bytes of the head that a successful read is expected to start with, and before its data.
pub fn head_of_read(replies: Replies) -> usize {
    match replies {
        Replies::Simple => 16,
        Replies::Structured => 20 + 8,
        Replies::Extended => 32 + 8,
    }
}

/// Reads a head from the bytes at hand.
pub fn parse(replies: Replies, bytes: &[u8]) -> Result<Parsed> {
    let Some(magic) = u32_at(bytes, 0) else { return Ok(Parsed::Need(shortest(replies))) };
    let (length, simple) = match (magic, replies) {
        (MAGIC_SIMPLE, Replies::Simple | Replies::Structured) => (16, true),
        (MAGIC_CHUNK, Replies::Structured) => (20, false),
        (MAGIC_EXTENDED, Replies::Extended) => (32, false),
        _ => {
            return Err(protocol(format!(
                "a reply begins with {magic:#010x}, which is no reply here ({replies:?})"
            )));
        }
    };
    match bytes.get(..length) {
        Some(head) => {
            let head = if simple { simple_head(head) } else { chunk_head(head) };
            head.map(|head| Parsed::Head(head, length))
        }
        None => Ok(Parsed::Need(length)),
    }
}

fn shortest(replies: Replies) -> usize {
    match replies {
        Replies::Simple | Replies::Structured => 16,
        Replies::Extended => 32,
    }
}

fn simple_head(head: &[u8]) -> Result<Head> {
    let errno = u32_at(head, 4).ok_or_else(cut)?;
    let cookie = u64_at(head, 8).ok_or_else(cut)?;
    Ok(Head::Simple { cookie, errno })
}

/// A structured or an extended one, by its length.
fn chunk_head(head: &[u8]) -> Result<Head> {
    let flags = u16_at(head, 4).ok_or_else(cut)?;
    let kind = u16_at(head, 6).ok_or_else(cut)?;
    let cookie = u64_at(head, 8).ok_or_else(cut)?;
    let length = match head.len() {
        20 => u32_at(head, 16).map(u64::from),
        _ => u64_at(head, 24), // after the offset of the request
    };
    let length = length.ok_or_else(cut)?;
    let done = flags & FLAG_DONE != 0;
    Ok(Head::Chunk { cookie, done, kind: chunk_kind(kind, done, length)?, length })
}

/// The kind, with the lengths that it can have.
fn chunk_kind(kind: u16, done: bool, length: u64) -> Result<ChunkKind> {
    let (kind, fits) = match kind {
        0 => (ChunkKind::None, length == 0 && done),
        1 => (ChunkKind::Data, length > DATA_OFFSET),
        2 => (ChunkKind::Hole, length == HOLE),
        5 => (ChunkKind::Status, length >= 12 && length % 8 == 4),
        6 => (ChunkKind::StatusExtended, length >= 24 && length % 16 == 8),
        0x8001 => (ChunkKind::Error, (6..=MOST_ERROR).contains(&length)),
        0x8002 => (ChunkKind::ErrorAt, (14..=MOST_ERROR).contains(&length)),
        other if other & KIND_ERROR_BIT != 0 => (ChunkKind::ErrorOther, length <= MOST_ERROR),
        other => return Err(protocol(format!("a reply chunk of kind {other}, which was not asked for"))),
    };
    if fits { Ok(kind) } else { Err(protocol(format!("a {kind:?} chunk of {length} bytes (last: {done})"))) }
}

/// Why a request failed, in the server's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The protocol's error number, which is Linux' for the few that exist.
    pub errno: u32,
    /// What the server says about it.
    pub text: String,
}

impl Refusal {
    /// The payload of an error chunk of this kind.
    pub fn parse(kind: ChunkKind, payload: &[u8]) -> Result<Refusal> {
        if kind == ChunkKind::ErrorOther {
            return Ok(Refusal { errno: EIO, text: String::from("an error of an unknown kind") });
        }
        let errno = u32_at(payload, 0).ok_or_else(cut)?;
        let length = u16_at(payload, 4).ok_or_else(cut)?;
        let place = if kind == ChunkKind::ErrorAt { 8 } else { 0 };
        let text = payload.get(6..6 + usize::from(length));
        let Some(text) = text.filter(|text| 6 + text.len() + place == payload.len()) else {
            return Err(protocol(format!(
                "an error chunk of {} bytes says that its text has {length}",
                payload.len()
            )));
        };
        if errno == 0 {
            return Err(protocol("an error chunk without an error"));
        }
        let text = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(500).collect();
        Ok(Refusal { errno, text })
    }

    /// As an error of ours.
    pub fn error(&self) -> Error {
        let (kind, name) = match self.errno {
            1 => (ErrorKind::AccessDenied, "EPERM, not permitted"),
            EIO => (ErrorKind::Io, "EIO, input/output error"),
            12 => (ErrorKind::Io, "ENOMEM, the server is out of memory"),
            22 => (ErrorKind::Io, "EINVAL, invalid request"),
            28 => (ErrorKind::DiskFull, "ENOSPC, no space left"),
            75 => (ErrorKind::Io, "EOVERFLOW, request too long"),
            ENOTSUP => (ErrorKind::NotSupported, "ENOTSUP, not supported"),
            ESHUTDOWN => (ErrorKind::ConnectionLost, "ESHUTDOWN, the server shuts down"),
            _ => (ErrorKind::Io, "an error number the protocol does not have"),
        };
        let text = if self.text.is_empty() { "" } else { ": " };
        Error::new(kind, format!("the server answered {name} ({}){text}{}", self.errno, self.text))
    }
}

/// Input/output error.
const EIO: u32 = 5;
/// The server was told to end: it answers every request with this.
pub const ESHUTDOWN: u32 = 108;
/// Not supported: among others, zeroing that would not be fast.
pub const ENOTSUP: u32 = 95;

/// One extent of a block status payload: bytes and flags. `wide`: 64 bit fields.
pub fn extent(bytes: &[u8], wide: bool) -> Option<(u64, u64)> {
    match wide {
        true => Some((u64_at(bytes, 0)?, u64_at(bytes, 8)?)),
        false => Some((u64::from(u32_at(bytes, 0)?), u64::from(u32_at(bytes, 4)?))),
    }
}

/// A big-endian number at this place, if the bytes are there.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// A big-endian number at this place, if the bytes are there.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// A big-endian number at this place, if the bytes are there.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_be_bytes(*b))
}

fn cut() -> Error {
    protocol("a reply is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(flags: u16, kind: u16, length: u32) -> Vec<u8> {
        let mut bytes = MAGIC_CHUNK.to_be_bytes().to_vec();
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&7_u64.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    }

    #[test]
    fn a_head_asks_for_what_is_missing() {
        let bytes = chunk(1, 1, 4104);
        for cut in 0..20 {
            let Ok(Parsed::Need(need)) = parse(Replies::Structured, &bytes[..cut]) else { panic!("{cut}") };
            assert!(need > cut && need <= 20);
        }
        let head = Head::Chunk { cookie: 7, done: true, kind: ChunkKind::Data, length: 4104 };
        assert_eq!(parse(Replies::Structured, &bytes).unwrap(), Parsed::Head(head, 20));
    }

    #[test]
    fn impossible_heads_break_the_protocol() {
        for (flags, kind, length) in
            [(0, 0, 0), (1, 0, 1), (1, 1, 8), (1, 2, 13), (1, 3, 0), (1, 5, 4), (1, 5, 16), (1, 6, 20)]
        {
            let e = parse(Replies::Structured, &chunk(flags, kind, length)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Protocol, "{kind} {length}");
        }
        assert!(parse(Replies::Structured, &chunk(1, 0x8001, u32::MAX)).is_err());
        assert!(parse(Replies::Structured, &chunk(1, 0x80ff, 3)).is_ok());
        assert!(parse(Replies::Simple, &chunk(1, 1, 4104)).is_err());
        assert!(parse(Replies::Extended, &chunk(1, 1, 4104)).is_err());
    }

    #[test]
    fn the_text_of_an_error_must_fit_its_chunk() {
        let payload = |length: u16| {
            let mut bytes = 28_u32.to_be_bytes().to_vec();
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(b"fu\nll");
            bytes
        };
        let refusal = Refusal::parse(ChunkKind::Error, &payload(5)).unwrap();
        assert_eq!((refusal.errno, refusal.text.as_str()), (28, "full"));
        assert_eq!(refusal.error().kind(), ErrorKind::DiskFull);
        for length in [0, 4, 6, u16::MAX] {
            assert!(Refusal::parse(ChunkKind::Error, &payload(length)).is_err());
        }
        assert!(Refusal::parse(ChunkKind::ErrorAt, &payload(5)).is_err());
    }
}
