//! From one disk to another: only what holds data, and of that only what is not zeros.
//!
//! ```text
//!   allocated parts of the source ─▶ read whole units ─▶ leave units of zeros out ─▶ write to the target
//!        │
//!        └─▶ between two files that can share it, or into space that is there anyway: the system copies (`direct`)
//! ```
//!
//! The same walk tells what a copy would take. A source may be a chain: the copy holds what its readers see.

mod direct;
mod flight;
mod over;
mod walk;
mod writers;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::disk::Disk;
use crate::disk::copy::flight::Flight;
use crate::disk::copy::walk::Steps;
use crate::disk::copy::walk::Walk;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Image;
use crate::format::bytes::is_zero;
use crate::format::stream::PackOptions;
use crate::format::stream::StreamSink;
use crate::storage::Storage;
use crate::threads::SignalShield;
use crate::threads::Threads;
use crate::units::SECTOR;
use crate::units::Sectors;

pub use crate::disk::copy::over::overwrite;
pub use crate::disk::copy::walk::UNIT;

/// Read and written in one piece.
const CHUNK: usize = 1 << 20;
/// Chunks between the reading and the writing thread.
const CHUNKS: usize = 4;

/// Takes bytes and where on the disk they stand.
type Sink<'a> = dyn FnMut(&[u8], u64) -> Result<()> + 'a;

/// What becomes of zeros that the source stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// They take no space in the copy: whole units of them are left out.
    LeaveOut,
    /// The copy has space for them anyway: nobody has to look for them.
    MayStay,
}

/// Copies everything `source` shows to `target`, which was just made, is as large and reads as zeros. With `ahead` another
/// thread, shielded from signals by it, reads while this one writes. `progress` is called with ascending numbers below 100
/// on this thread.
pub fn copy(
    source: &Arc<Disk>,
    target: &Disk,
    zeros: Zeros,
    ahead: Option<SignalShield>,
    progress: &mut dyn FnMut(u8),
) -> Result<()> {
    if source.capacity() != target.capacity() {
        return Err(Error::new(
            ErrorKind::CapacityMismatch,
            format!("a copy of {} bytes for a disk of {}", target.capacity(), source.capacity()),
        ));
    }
    let mut steps = Steps::new(source.capacity(), progress);
    let start = direct::copy(source, target, zeros, &mut steps)?;
    let mut write = |bytes: &[u8], offset| target.write(bytes, offset);
    match ahead {
        // A storage that transfers by itself needs no thread that waits for it.
        Some(_) if source.starts_transfers() => for_each_run(source, start, &mut write, &mut steps),
        None => for_each_run(source, start, &mut write, &mut steps),
        Some(_) if start == source.capacity() => Ok(()),
        Some(shield) => {
            let threads = Threads::new(shield);
            let result = for_each_run_ahead(source, start, &threads, &mut write, &mut steps);
            threads.join_all(); // nobody listens any more: the reader ends
            result
        }
    }
}

/// Bytes of the units that hold something other than zeros: what a copy that leaves zeros out writes. Only the last unit of
/// the disk may count with less than its whole length.
pub fn used_bytes(source: &Disk) -> Result<u64> {
    let mut used = 0;
    let mut count = |bytes: &[u8], _| {
        used += bytes.len() as u64;
        Ok(())
    };
    for_each_run(source, 0, &mut count, &mut Steps::new(source.capacity(), &mut |_| ()))?;
    Ok(used)
}

/// Bytes of a stream-optimised copy: its data is packed as it would be, and thrown away.
pub fn packed_size(source: &Disk, options: PackOptions) -> Result<u64> {
    let file: Arc<Measured> = Arc::default();
    let capacity = Sectors(source.capacity() / SECTOR);
    let sink = StreamSink::new(file.clone(), capacity, options, "a copy")?;
    sink.begin_writing()?;
    for_each_run(
        source,
        0,
        &mut |bytes, offset| match sink.prepare(offset, bytes.len() as u64)? {
            Some(pending) => pending.storage.write_at(bytes, offset),
            None => Err(Error::new(ErrorKind::Internal, format!("no room at {offset:#x}"))),
        },
        &mut Steps::new(source.capacity(), &mut |_| ()),
    )?;
    sink.finish()?;
    file.size()
}

/// Hands the data of a disk from `start` on to the sink, in order.
fn for_each_run(source: &Disk, start: u64, sink: &mut Sink<'_>, steps: &mut Steps<'_>) -> Result<()> {
    if source.starts_transfers() {
        return for_each_run_in_flight(source, start, sink, steps);
    }
    let mut walk = Walk::new(source, start, CHUNK as u64);
    let mut chunk = Vec::new();
    while let Some(part) = walk.next(source)? {
        read_part(source, &part, &mut chunk)?;
        runs(&chunk, part.start, sink)?;
        steps.reach(part.end);
    }
    Ok(())
}

/// The same for a storage that transfers by itself.
fn for_each_run_in_flight(
    source: &Disk,
    start: u64,
    sink: &mut Sink<'_>,
    steps: &mut Steps<'_>,
) -> Result<()> {
    let mut flight = Flight::new(source, start);
    while let Some((offset, chunk)) = flight.next()? {
        runs(&chunk, offset, sink)?;
        steps.reach(offset + chunk.len() as u64);
        flight.give_back(chunk);
    }
    Ok(())
}

/// The same with a thread of its own for reading.
fn for_each_run_ahead(
    source: &Arc<Disk>,
    start: u64,
    threads: &Threads,
    sink: &mut Sink<'_>,
    steps: &mut Steps<'_>,
) -> Result<()> {
    let (filled, chunks) = mpsc::sync_channel(CHUNKS);
    let (give_back, empty) = mpsc::channel();
    let disk = source.clone();
    threads.spawn("vix-copy", move || read_all(&disk, start, &filled, &empty))?;
    (0..CHUNKS).for_each(|_| drop(give_back.send(Vec::with_capacity(CHUNK))));
    loop {
        let said = chunks.recv();
        let Some((offset, chunk)) = said.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "a defect: reading ended before its end"))
        })?
        else {
            return Ok(());
        };
        runs(&chunk, offset, sink)?;
        steps.reach(offset + chunk.len() as u64);
        drop(give_back.send(chunk)); // the reader may be done already
    }
}

/// What the reading thread says: data and its place, nothing at the end, or why there is no more.
type Said = Result<Option<(u64, Vec<u8>)>>;

/// The reading thread's life: ends after the last part, after a fault, or when nobody listens any more.
fn read_all(source: &Disk, start: u64, filled: &mpsc::SyncSender<Said>, empty: &mpsc::Receiver<Vec<u8>>) {
    let mut walk = Walk::new(source, start, CHUNK as u64);
    let mut next = || -> Said {
        let Some(part) = walk.next(source)? else { return Ok(None) };
        let Ok(mut chunk) = empty.recv() else { return Ok(None) };
        read_part(source, &part, &mut chunk)?;
        Ok(Some((part.start, chunk)))
    };
    loop {
        let said = next();
        let is_last = !matches!(said, Ok(Some(_)));
        if filled.send(said).is_err() || is_last {
            return;
        }
    }
}

fn read_part(source: &Disk, part: &Range<u64>, chunk: &mut Vec<u8>) -> Result<()> {
    chunk.resize((part.end - part.start) as usize, 0); // at most a chunk
    source.read(chunk, part.start)
}

/// Hands the runs of units that are not zeros to the sink.
fn runs(chunk: &[u8], offset: u64, sink: &mut Sink<'_>) -> Result<()> {
    let mut run = 0..0;
    for unit in chunk.chunks(UNIT as usize) {
        let end = run.end + unit.len();
        if is_zero(unit) {
            hand_on(chunk, run.clone(), offset, sink)?;
            run.start = end;
        }
        run.end = end;
    }
    hand_on(chunk, run, offset, sink)
}

fn hand_on(chunk: &[u8], run: Range<usize>, offset: u64, sink: &mut Sink<'_>) -> Result<()> {
    match chunk.get(run.clone()) {
        Some(bytes) if !bytes.is_empty() => sink(bytes, offset + run.start as u64),
        _ => Ok(()),
    }
}

/// A file of which only the length is kept.
#[derive(Debug, Default)]
struct Measured {
    len: AtomicU64,
}

impl Storage for Measured {
    fn size(&self) -> Result<u64> {
        Ok(self.len.load(Ordering::Relaxed))
    }

    fn read_at(&self, _buf: &mut [u8], offset: u64) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, format!("what stood at {offset:#x} was only measured")))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.len.fetch_max(offset + buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn label(&self) -> String {
        "a measurement".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_zeros_are_left_out_and_neighbours_stay_together() {
        let unit = UNIT as usize;
        let mut chunk = vec![0; 5 * unit + 512];
        for at in [0, 2 * unit - 1, 3 * unit + 9, 5 * unit + 511] {
            chunk[at] = 1;
        }
        let mut seen = Vec::new();
        runs(&chunk, 1 << 30, &mut |bytes, offset| {
            seen.push((offset - (1 << 30), bytes.len()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(0, 2 * unit), (3 * UNIT, unit), (5 * UNIT, 512)]);
    }
}
