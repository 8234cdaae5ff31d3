//! Transfers that own their buffer, so that whoever works on them needs to borrow from nobody.
#![forbid(unsafe_code)]

use crate::error::Result;

/// What is to be transferred. The buffer comes back to [`Finish`].
#[derive(Debug)]
pub enum Transfer {
    /// Fill a buffer that was lent until the end of the transfer.
    Read(&'static mut [u8]),
    /// Fill a buffer of our own.
    ReadOwned(Vec<u8>),
    /// Write a buffer that was lent until the end of the transfer.
    Write(&'static [u8]),
}

impl Transfer {
    /// Bytes to transfer.
    pub fn len(&self) -> usize {
        match self {
            Transfer::Read(buf) => buf.len(),
            Transfer::ReadOwned(buf) => buf.len(),
            Transfer::Write(buf) => buf.len(),
        }
    }

    /// True when there is nothing to transfer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to be filled, if this is a read.
    pub fn to_fill(&mut self) -> Option<&mut [u8]> {
        match self {
            Transfer::Read(buf) => Some(buf),
            Transfer::ReadOwned(buf) => Some(buf),
            Transfer::Write(_) => None,
        }
    }
}

/// What runs exactly once when a transfer is over, with its buffer. Called with no lock held; must not block for long.
pub type Finish = Box<dyn FnOnce(Transfer, Result<()>) + Send>;
