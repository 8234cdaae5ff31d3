//! Rearranging the leaf's data inside its files: closing gaps, putting grains in order.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::disk::Disk;
use crate::disk::FAILED;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::Arrange;
use crate::storage::Storage;

/// Bytes of the parents looked at together.
const PIECE: u64 = 1 << 20;

/// A storage that nobody else reads.
struct Alone<'a>(&'a dyn Storage);

impl<'a> Alone<'a> {
    fn new(storage: &'a dyn Storage) -> Result<Self> {
        storage.exclude_readers()?;
        Ok(Self(storage))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.admit_readers();
    }
}

impl Disk {
    /// Rearranges every extent of the leaf that can be; says by how many bytes its files became shorter. Nobody else may use
    /// the disk meanwhile: `Locked` when somebody reads its files, and nothing has happened. Its content stays as it is, and so does its content id. `progress` is called with 0..=100, 100
    /// last. After a failure nothing can be written until the disk is opened again.
    pub fn rearrange(&self, how: Arrange, progress: &mut dyn FnMut(u8)) -> Result<u64> {
        if !self.writable {
            return Err(Error::new(ErrorKind::ReadOnly, "the disk is open read-only"));
        }
        let pieces = self.leaf().pieces();
        let images = pieces.iter().filter_map(|piece| piece.image().rearrangeable());
        let _alone = images.map(|image| Alone::new(image.storage())).collect::<Result<Vec<Alone<'_>>>>()?;
        progress(0);
        let mut freed = 0;
        let mut last = 0;
        for (number, piece) in pieces.iter().enumerate() {
            let Some(image) = piece.image().rearrangeable() else { continue };
            let start = piece.start();
            let size = piece.end() - start;
            let zero_below =
                |range: Range<u64>| self.is_zero_below(start + range.start..start + range.end.min(size));
            let mut share = |done: u64, all: u64| {
                let parts = u128::from(all.max(1)) * pieces.len() as u128;
                let percent = (number as u128 * u128::from(all.max(1)) + u128::from(done)) * 99 / parts;
                let percent = u8::try_from(percent).unwrap_or(99);
                if percent > last {
                    last = percent;
                    progress(percent);
                }
            };
            let outcome = piece.begin().and_then(|()| image.rearrange(how, &zero_below, &mut share));
            self.owners.forget(start..piece.end());
            if outcome.is_err() {
                self.changed.store(FAILED, Ordering::Release);
            }
            freed += outcome.context(|| format!("rearranging {}", self.leaf().label()))?;
        }
        progress(100);
        Ok(freed)
    }

    /// True when a range reads as zeros without the leaf.
    fn is_zero_below(&self, range: Range<u64>) -> Result<bool> {
        if !self.is_child {
            return Ok(true);
        }
        if self.links.len() == 1 {
            return Ok(false); // the parent is not open
        }
        let mut buffer = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(PIECE);
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            self.read_below_leaf(&mut buffer, at)?;
            if buffer.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }
}
