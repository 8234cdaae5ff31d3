//! The part of a host that hands out the content of disks: authd and the NFC server behind it.
//!
//! ```text
//!   server     takes connections, counts them, ends them
//!     │ line      a connection whose bytes are counted, and cut where that is wanted
//!     │ door      authd: the banner, TLS, the ticket
//!     │ gate      one TLS record at a time, so that nothing of the next stage is swallowed
//!     │ greeting  the handshake in messages of 264 bytes
//!     ▼
//!   session    reads frames: opens, writes, asks the volume, hands the rest on
//!     │ queue     what is to be answered, by the time it is due
//!     ▼
//!   sender     a second thread: reads the volume into what is sent
//!   knobs      how all of this behaves, changeable while it runs;  dialect: what releases are known to do
//! ```
//!
//! The rest of the simulator is a [`House`] to it: that knows tickets, and opens files.
//!
//! What is not known of real hosts is refused with a text that begins with `vixsim:`.

pub mod dialect;
mod door;
mod gate;
mod greeting;
mod intake;
pub mod knobs;
mod line;
mod order;
mod queue;
mod sender;
mod server;
mod session;
mod writing;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
pub use crate::net::nfc::refusal::Refusal;
use crate::sim::fault::Target;
pub use crate::sim::nfc::knobs::Knobs;
pub use crate::sim::nfc::server::Cutter;
pub use crate::sim::nfc::server::NfcServer;

/// What the NFC server asks the rest of the simulator.
pub trait House: Debug + Send + Sync {
    /// What a ticket permits. Each is good once: the second time there is none.
    fn redeem(&self, ticket: &str) -> Option<Grant>;

    /// The machine of a grant moves to another host: its connections to this one end. False: there is no other, and all is as it
    /// was.
    fn relocate(&self, _grant: &Grant, _to: Target) -> bool {
        false
    }

    /// Opens a file by its path `[datastore] folder/name.vmdk`. A file that the grant is not for is refused with code 11.
    fn open(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn Volume>, Refusal>;
}

/// What a ticket permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The machine, by its managed object reference.
    pub machine: String,
    /// Which of its files, and how.
    pub right: Right,
}

/// Which files of a machine, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Any of them, to read.
    Files,
    /// One disk.
    Disk {
        /// The key of its device.
        key: i32,
        /// To write as well.
        write: bool,
    },
}

impl Right {
    /// Files may be written.
    pub fn writes(self) -> bool {
        matches!(self, Right::Disk { write: true, .. })
    }
}

/// An open disk. Many threads read, one writes, at the same time.
pub trait Volume: Debug + Send + Sync {
    /// Bytes of it, a multiple of 512.
    fn capacity(&self) -> u64;

    /// Cylinders, heads and sectors.
    fn geometry(&self) -> (u32, u32, u32);

    /// Bytes of a sector as programs see it.
    fn sector_size(&self) -> u32;

    /// Fills the whole buffer from this byte on.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes the whole buffer from this byte on.
    fn write(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Tells the parts of a range that are allocated, in order.
    fn allocated(&self, range: Range<u64>, tell: &mut dyn FnMut(Range<u64>)) -> Result<()>;

    /// A value of the disk's data base by its key without the prefix `ddb.`.
    fn key(&self, key: &str) -> Option<String>;

    /// Makes everything written stable.
    fn flush(&self) -> Result<()>;
}
