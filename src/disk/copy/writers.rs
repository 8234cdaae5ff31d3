//! Writing to a distant disk: several threads, each waiting for its own write, keep the peer busy.

use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::threads::SignalShield;
use crate::threads::Threads;

/// Writes under way.
const DEPTH: usize = 8;

/// Data and its place.
type Piece = (Vec<u8>, u64);

/// The threads. Dropping them leaves writes undone that were not [finished](Writers::finish).
pub(super) struct Writers {
    threads: Threads,
    pieces: Option<mpsc::SyncSender<Piece>>,
    failed: Arc<Mutex<Option<Error>>>,
}

impl Writers {
    /// Starts them on `target`; ranges that are written must not overlap.
    pub fn new(target: &Arc<Disk>, shield: SignalShield) -> Result<Self> {
        let (pieces, queue) = mpsc::sync_channel::<Piece>(1);
        let queue = Arc::new(Mutex::new(queue));
        let writers = Self { threads: Threads::new(shield), pieces: Some(pieces), failed: Arc::default() };
        for number in 1..=DEPTH {
            let (target, queue, failed) = (target.clone(), queue.clone(), writers.failed.clone());
            writers.threads.spawn(&format!("vix-copy-{number}"), move || {
                write_all(&target, &queue, &failed);
            })?;
        }
        Ok(writers)
    }

    /// Has a piece written, now or soon. Fails when an earlier one failed.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let sent = self.pieces.as_ref().is_some_and(|pieces| pieces.send((bytes.to_vec(), offset)).is_ok());
        match (sent, self.failed.lock().take()) {
            (_, Some(e)) => Err(e),
            (true, None) => Ok(()),
            (false, None) => Err(Error::new(ErrorKind::Internal, "a defect: nobody writes any more")),
        }
    }

    /// Returns when everything is written.
    pub fn finish(mut self) -> Result<()> {
        self.end();
        self.failed.lock().take().map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        self.pieces = None; // the threads see the end of the queue
        self.threads.join_all();
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

/// A thread's life: ends with the queue, or after a fault.
fn write_all(target: &Disk, queue: &Mutex<mpsc::Receiver<Piece>>, failed: &Mutex<Option<Error>>) {
    loop {
        // The lock is held while waiting: whoever has it takes the next piece, the others wait their turn.
        let next = queue.lock().recv();
        let Ok((bytes, offset)) = next else { return };
        if failed.lock().is_some() {
            continue; // the rest is taken and dropped, so that whoever sends it is not held
        }
        if let Err(e) = target.write(&bytes, offset) {
            failed.lock().get_or_insert(e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Identity;
    use crate::storage::memory::MemoryStorage;

    fn unshielded(body: &mut dyn FnMut()) {
        body();
    }

    #[test]
    fn everything_is_written_once_it_is_finished() {
        let storage = Arc::new(MemoryStorage::new("m", vec![0; 512 * 200]));
        let disk = Arc::new(Disk::raw(storage.clone(), true, Identity(0, 0)).unwrap());
        let writers = Writers::new(&disk, unshielded).unwrap();
        (0..200u64).for_each(|n| writers.write(&[n as u8 + 1; 512], n * 512).unwrap());
        writers.finish().unwrap();
        let written = storage.snapshot();
        assert!((0..200).all(|n| written[n * 512..][..512] == [n as u8 + 1; 512]));
    }

    #[test]
    fn a_fault_is_told_and_nobody_waits_for_ever() {
        let storage = Arc::new(MemoryStorage::new("m", vec![0; 512]));
        let disk = Arc::new(Disk::raw(storage, false, Identity(0, 0)).unwrap());
        let writers = Writers::new(&disk, unshielded).unwrap();
        let mut told = (0..100).filter_map(|_| writers.write(&[1; 512], 0).err()).count();
        told += usize::from(writers.finish().is_err());
        assert!(told > 0);
    }
}
