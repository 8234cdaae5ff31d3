//! A client of the NBD protocol (fixed newstyle), as its specification describes it
//! (`doc/proto.md` of the reference implementation).

pub mod client;
mod dial;
pub mod handshake;
mod options;
mod protocol;
mod receive;
mod reply;
mod request;
mod status;
mod talk;
pub mod uri;

use std::ops::Range;

/// What the server said about the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Bytes; need not be a multiple of anything.
    pub size: u64,
    /// Transmission flags as they came.
    pub flags: u16,
    /// Smallest and preferred request, largest payload, in bytes.
    pub blocks: BlockSizes,
    /// What replies look like.
    pub replies: Replies,
    /// The id of `base:allocation`, if the server has it.
    pub allocation: Option<u32>,
}

/// Constraints on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Requests must be multiples of this, 1 to 64 KiB, a power of two.
    pub minimum: u32,
    /// Requests should be multiples of this.
    pub preferred: u32,
    /// Longest payload of one request.
    pub maximum: u32,
}

/// What replies look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// One header, then the data.
    Simple,
    /// Chunks.
    Structured,
    /// Chunks with 64 bit lengths, and requests with them.
    Extended,
}

/// One part of an answer to block status: base:allocation's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Bytes of the export.
    pub range: Range<u64>,
    /// Nothing is allocated there.
    pub hole: bool,
    /// It reads as zeros.
    pub zero: bool,
}
