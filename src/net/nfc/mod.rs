//! NFC, the protocol in which ESXi hosts hand out the content of disks: bytes in, bytes out, no sockets.
//!
//! ```text
//!   ticket    what a vSphere server gives for one connection
//!   authd     the lines before and inside of the first TLS
//!   classic   messages of 264 bytes: the handshake and the farewell
//!   aio       frames: sessions, files and refusals
//!    ├─ ddb      one value of the disk's data base
//!    ├─ io       reads and writes in fragments
//!    └─ blocks   which parts of a disk are allocated
//!   pack      what a fragment looks like when it is compressed
//! ```
//!
//! There is no specification of this protocol by its vendor. What is here was observed by others on real hosts, and what
//! nobody has seen is refused instead of guessed. Both directions are here: a client needs one half of each message, a
//! server the other.
//!
//! Numbers are little-endian and unsigned. Every length is checked before anything is made of it.

pub mod aio;
pub mod authd;
pub mod blocks;
pub mod classic;
pub mod client;
pub mod ddb;
mod fields;
pub mod identity;
pub mod io;
pub mod open;
pub mod pack;
pub mod refusal;
pub mod ticket;

use crate::error::Error;
use crate::error::ErrorKind;

/// How the data of a fragment are packed, with the numbers of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As they are.
    #[default]
    None = 0,
    /// One zlib stream.
    Zlib = 1,
    /// One FastLZ block.
    Fastlz = 2,
    /// A list of what is not zero.
    Skipz = 3,
}

impl Compression {
    /// All of them.
    pub const ALL: [Compression; 4] =
        [Compression::None, Compression::Zlib, Compression::Fastlz, Compression::Skipz];

    /// What a number of the wire means, if anything.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// The peer broke the protocol.
pub(crate) fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, message)
}

#[cfg(test)]
mod golden;
