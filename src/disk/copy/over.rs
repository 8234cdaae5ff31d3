//! Copies onto a disk that is there already and whose content is unknown: what the source does not hold is made zeros.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::copy::Steps;
use crate::disk::copy::for_each_run;
use crate::disk::copy::writers::Writers;
use crate::error::{Error, ErrorKind, Result};
use crate::threads::SignalShield;

/// Made zeros in one piece, so that no single request takes for ever.
const PIECE: u64 = 1 << 30;
/// Zeros written in one piece where they have to be written.
const CHUNK: usize = 1 << 20;

/// Makes `target` show what `source` does, and zeros behind its end if it is larger. Threads, shielded from signals, keep a
/// distant target busy. `progress` as for [`super::copy`].
pub fn overwrite(
    source: &Arc<Disk>,
    target: &Arc<Disk>,
    shield: SignalShield,
    progress: &mut dyn FnMut(u8),
) -> Result<()> {
    if source.capacity() > target.capacity() {
        let text = format!("{} bytes do not go onto a disk of {}", source.capacity(), target.capacity());
        return Err(Error::new(ErrorKind::CapacityMismatch, text));
    }
    let writers = Writers::new(target, shield)?;
    let mut done = 0;
    let mut write = |bytes: &[u8], offset: u64| {
        target.clear(done..offset)?;
        writers.write(bytes, offset)?;
        done = offset + bytes.len() as u64;
        Ok(())
    };
    for_each_run(source, 0, &mut write, &mut Steps::new(source.capacity(), progress))?;
    target.clear(done..target.capacity())?;
    writers.finish()
}

impl Disk {
    /// Makes a range of a disk of one link read as zeros, by the means of its storage where that has some.
    pub fn clear(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PIECE);
            self.clear_piece(at..end)?;
            at = end;
        }
        Ok(())
    }

    fn clear_piece(&self, range: Range<u64>) -> Result<()> {
        let len = range.end - range.start;
        if let Some((storage, at)) = self.place_to_write(range.start, len)?
            && storage.zero(at..at + len)?
        {
            return Ok(());
        }
        let mut parts = Vec::new();
        self.allocated(range, &mut |part| parts.push(part))?;
        let zeros = vec![0; CHUNK];
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                let len = zeros.len().min(usize::try_from(part.end - at).unwrap_or(usize::MAX));
                self.write(&zeros[..len], at)?;
                at += len as u64;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Identity;
    use crate::storage::Storage;
    use crate::storage::memory::MemoryStorage;

    fn raw(bytes: Vec<u8>) -> (Arc<MemoryStorage>, Arc<Disk>) {
        let storage = Arc::new(MemoryStorage::new("m", bytes));
        let disk = Disk::raw(storage.clone() as Arc<dyn Storage>, true, Identity(0, 0)).unwrap();
        (storage, Arc::new(disk))
    }

    #[test]
    fn nothing_of_the_old_content_stays() {
        let mut content = vec![0; 3 << 20];
        content[100_000] = 1;
        content[2_500_000..2_600_000].fill(2);
        let (_, source) = raw(content.clone());
        let (storage, target) = raw(vec![9; 4 << 20]);
        let mut seen = Vec::new();
        overwrite(&source, &target, |body| body(), &mut |percent| seen.push(percent)).unwrap();
        content.resize(4 << 20, 0);
        assert!(storage.snapshot() == content);
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    }

    #[test]
    fn a_disk_that_is_too_small_is_left_alone() {
        let (_, source) = raw(vec![1; 2048]);
        let (storage, target) = raw(vec![9; 1024]);
        let refused = overwrite(&source, &target, |body| body(), &mut |_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::CapacityMismatch);
        assert!(storage.snapshot() == vec![9; 1024]);
    }
}
