//! How the bytes of a disk are reached, and which way is taken when there are several.
//!
//! ```text
//!   local        files of this machine                          file
//!   nbd_server   an export of an NBD server ─▶ net::nbd         nbd, with TLS nbdssl
//!   vsphere      a disk of a machine ─▶ net::nfc                nbdssl, nbd
//!   https        its files on a datastore ─▶ net::http          https, for those who ask for it
//!   blocks       what a server holds, as a storage
//!   readahead    before any of them that has latency
//!   choice       the caller's list, left to right ─▶ the first way that works
//! ```
//!
//! A way is a [`choice::Way`]. What it opens is a [`Remote`]: a disk, and a [`Line`] to the peer that holds it.
#![forbid(unsafe_code)]

mod allocation;
pub mod blocks;
pub mod choice;
pub mod homes;
pub mod https;
pub mod limits;
pub mod local;
mod nbd_dial;
pub mod nbd_server;
mod readahead;
pub mod vsphere;

use std::fmt::Debug;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::format::geometry::Geometry;
use crate::storage::Identity;

/// The transports of this build in the order of preference, colon separated as the interface wants them, but for those that
/// have to be asked for.
pub const MODES: &str = "file:nbdssl:nbd";

/// A way to reach a disk, as callers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Files of this machine.
    File,
    /// Network block device over TLS.
    NbdSsl,
    /// Network block device in plain text.
    Nbd,
    /// Files of a datastore over HTTPS. Used where a caller asks for it by name, and named nowhere else.
    Https,
}

impl Mode {
    /// Every mode of this build, in the order of preference.
    pub const ALL: [Mode; 4] = [Mode::File, Mode::NbdSsl, Mode::Nbd, Mode::Https];

    /// True for a mode that is only used by those who name it.
    pub fn must_be_named(self) -> bool {
        self == Mode::Https
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::File => "file",
            Mode::NbdSsl => "nbdssl",
            Mode::Nbd => "nbd",
            Mode::Https => "https",
        }
    }
}

/// A disk on another machine.
#[derive(Debug)]
pub struct Remote {
    /// The disk.
    pub disk: Disk,
    /// What kind of disk it is, in a word for the log.
    pub kind: &'static str,
    /// Its name for messages: a URI.
    pub label: String,
    /// The connection to its peer.
    pub line: Arc<dyn Line>,
    /// What the peer knows of it besides its bytes; `None`: nothing.
    pub facts: Option<Arc<dyn Facts>>,
}

/// The connection to the peer that holds a disk.
pub trait Line: Debug + Send + Sync {
    /// How the peer is reached at the moment.
    fn mode(&self) -> Mode;

    /// Ends it, within a second or two whatever the peer does, with its threads. What still waits for the peer ends with an
    /// error. May be called by several threads and again.
    fn cut(&self);

    /// Asks the peer for a sign of life without waiting for it; `answered` runs when one comes, on any thread.
    fn probe(&self, answered: Box<dyn FnOnce() + Send>);
}

/// What a peer knows of a disk besides its bytes.
pub trait Facts: Debug + Send + Sync {
    /// The value of a key of the disk's database, `None` when it has none.
    fn key(&self, key: &str) -> Result<Option<String>>;

    /// The chain that the disk is the end of.
    fn chain(&self) -> Chain;

    /// Its geometry, if the peer said something about that.
    fn geometry(&self) -> Option<Geometry>;
}

/// A chain of links that only the peer sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// How many links it has, 1 for a base disk.
    pub links: u32,
    /// The name of the parent of the opened link.
    pub parent: Option<String>,
}

/// A disk that a server holds is told apart by its path: no two links of a chain have the same.
fn identity_of(path: &str) -> Identity {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    Identity(u64::MAX - 1, hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_modes_is_that_of_their_names() {
        let listed: Vec<_> =
            Mode::ALL.into_iter().filter(|mode| !mode.must_be_named()).map(Mode::name).collect();
        assert_eq!(listed.join(":"), MODES);
    }
}
