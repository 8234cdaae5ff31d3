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
        let place = self.place_to_write(range.start, len)?;
        if let Some((storage, at)) = place
            && storage.zero(at..at + len)?
        {
            return Ok(());
        }
        let mut parts = self.not_zeros(range.clone())?;
        // What is given up may turn to zeros by itself; only what then says so is believed.
        if let Some((storage, at)) = place {
            let mut given_up = false;
            for part in &parts {
                let from = at + (part.start - range.start);
                given_up |= storage.discard(from..from + (part.end - part.start))?;
            }
            if given_up {
                parts = self.not_zeros(range)?;
            }
        }
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

    /// The parts of a range that may hold something other than zeros.
    fn not_zeros(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        let mut parts = Vec::new();
        self.allocated(range, &mut |part| parts.push(part))?;
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Identity;
    use crate::storage::Storage;
    use crate::storage::memory::MemoryStorage;
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

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

    /// Cannot make zeros by itself, but gives up what it is told to: that reads as zeros and says so in the first half, as
    /// anything else in the second.
    #[derive(Debug)]
    struct Forgetful {
        bytes: MemoryStorage,
        half: u64,
        gone: Mutex<Vec<Range<u64>>>,
        written: AtomicU64,
    }

    impl Storage for Forgetful {
        fn size(&self) -> Result<u64> {
            self.bytes.size()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.bytes.read_at(buf, offset)
        }

        fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
            self.written.fetch_add(buf.len() as u64, Ordering::Relaxed);
            self.bytes.write_at(buf, offset)
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }

        fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
            let gone = self.gone.lock();
            let mut at = range.start;
            for hole in gone.iter().filter(|hole| hole.start < range.end && range.start < hole.end) {
                if at < hole.start {
                    sink(at..hole.start);
                }
                at = hole.end.min(range.end);
            }
            if at < range.end {
                sink(at..range.end);
            }
            Ok(())
        }

        fn discard(&self, range: Range<u64>) -> Result<bool> {
            for at in range.clone() {
                self.bytes.write_at(&[if at < self.half { 0 } else { 0xee }], at)?;
            }
            if range.start < self.half {
                self.gone.lock().push(range.start..range.end.min(self.half));
            }
            Ok(true)
        }

        fn label(&self) -> String {
            String::from("forgetful")
        }
    }

    #[test]
    fn what_is_given_up_is_zeros_only_where_that_is_said() {
        const LEN: usize = 1 << 20;
        let mut content = vec![0; LEN];
        content[65_536..131_072].fill(3);
        content[786_432..851_968].fill(4);
        let (_, source) = raw(content.clone());
        let storage = Arc::new(Forgetful {
            bytes: MemoryStorage::new("m", vec![9; LEN]),
            half: LEN as u64 / 2,
            gone: Mutex::default(),
            written: AtomicU64::new(0),
        });
        let target = Disk::raw(storage.clone() as Arc<dyn Storage>, true, Identity(0, 0)).unwrap();
        overwrite(&source, &Arc::new(target), |body| body(), &mut |_| ()).unwrap();
        assert!(storage.bytes.snapshot() == content);
        let written = storage.written.load(Ordering::Relaxed);
        assert_eq!(written, (LEN / 2 + 65_536) as u64, "the data of one half, everything in the other");
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
