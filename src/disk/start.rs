//! Transfers that the storage below does by itself: no thread of ours waits for them.

use crate::disk::Disk;
use crate::disk::read::Source;
use crate::error::Result;
use crate::format::Mapping;
use crate::storage::Storage;
use crate::transfer::Finish;
use crate::transfer::Transfer;

impl Disk {
    /// True when it may pay to call [`Disk::start`].
    pub fn starts_transfers(&self) -> bool {
        self.starts
    }

    /// Starts a transfer of a range that passed [`Disk::check_range`]; see [`Storage::start`]. `Some`: more than one storage
    /// is concerned, or this one does not work that way. A write has begun then at most in the sense of
    /// [`crate::format::Image::begin_writing`].
    pub fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        if transfer.is_empty() {
            finish(transfer, Ok(()));
            return None;
        }
        let place = match transfer {
            Transfer::Write(_) => self.place_to_write(offset, transfer.len() as u64),
            _ => self.place_to_read(offset, transfer.len() as u64),
        };
        match place {
            Ok(Some((storage, at))) => storage.start(transfer, at, finish),
            Ok(None) => Some((transfer, finish)),
            Err(e) => {
                finish(transfer, Err(e));
                None
            }
        }
    }

    /// The one storage that holds all of a range, and where.
    fn place_to_read(&self, offset: u64, len: u64) -> Result<Option<(&dyn Storage, u64)>> {
        match self.resolve(offset, len, 0)? {
            (Source::Data { storage, offset, .. }, run) if run >= len => Ok(Some((storage, offset))),
            _ => Ok(None),
        }
    }

    /// The one storage that takes all of a range in place, ready to be changed.
    fn place_to_write(&self, offset: u64, len: u64) -> Result<Option<(&dyn Storage, u64)>> {
        self.check_writable()?;
        let piece = self.leaf().piece(offset);
        match piece.image().map(offset - piece.start(), len)? {
            (Mapping::Data { storage, offset }, run) if run >= len => {
                self.mark_changed()?;
                piece.begin()?;
                Ok(Some((storage, offset)))
            }
            _ => Ok(None),
        }
    }
}
