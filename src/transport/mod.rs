//! How the bytes of a disk are reached, and which way is taken when there are several.
//!
//! ```text
//!   local        files of this machine                          file
//!   nbd_export   an export of an NBD server ─▶ net::nbd         nbd, with TLS nbdssl
//!   readahead    before any of them that has latency
//!   choice       the caller's list, left to right ─▶ the first way that works
//! ```
//!
//! A way is a [`choice::Way`]. What it opens is a [`Remote`]: a disk, and a [`Line`] to the peer that holds it.
#![forbid(unsafe_code)]

mod allocation;
pub mod choice;
pub mod local;
mod nbd_dial;
pub mod nbd_export;
pub mod nbd_server;
mod readahead;

use std::fmt::Debug;
use std::sync::Arc;

use crate::disk::Disk;

/// The transports of this build in the order of preference, colon separated as the interface wants them.
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
}

impl Mode {
    /// Every mode of this build, in the order of preference.
    pub const ALL: [Mode; 3] = [Mode::File, Mode::NbdSsl, Mode::Nbd];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::File => "file",
            Mode::NbdSsl => "nbdssl",
            Mode::Nbd => "nbd",
        }
    }
}

/// A disk on another machine.
#[derive(Debug)]
pub struct Remote {
    /// The disk.
    pub disk: Disk,
    /// How it is reached.
    pub mode: Mode,
    /// Its name for messages: a URI.
    pub label: String,
    /// The connection to its peer.
    pub line: Arc<dyn Line>,
}

/// The connection to the peer that holds a disk.
pub trait Line: Debug + Send + Sync {
    /// Ends it, within a second or two whatever the peer does, with its threads. What still waits for the peer ends with an
    /// error. May be called by several threads and again.
    fn cut(&self);

    /// Asks the peer for a sign of life without waiting for it; `answered` runs when one comes, on any thread.
    fn probe(&self, answered: Box<dyn FnOnce() + Send>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_modes_is_that_of_their_names() {
        assert_eq!(Mode::ALL.map(Mode::name).join(":"), MODES);
    }
}
