//! From one disk to another: only what holds data, and of that only what is not zeros.
//!
//! ```text
//!   allocated parts of the source ─▶ read whole units ─▶ leave units of zeros out ─▶ write to the target
//! ```
//!
//! The same walk tells what a copy would take. A source may be a chain: the copy holds what its readers see.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::disk::Disk;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::Image;
use crate::format::bytes::is_zero;
use crate::format::stream::PackOptions;
use crate::format::stream::StreamSink;
use crate::storage::Storage;
use crate::threads::SignalShield;
use crate::threads::Threads;
use crate::units::SECTOR;
use crate::units::Sectors;
use crate::units::align_down;

/// What is looked at at once for zeros: a grain of everything that is created here.
pub const UNIT: u64 = 64 * 1024;
/// Read and written in one piece.
const CHUNK: usize = 1 << 20;
/// Chunks between the reading and the writing thread.
const CHUNKS: usize = 4;
/// Allocated parts are listed window by window, so that memory stays bounded.
const WINDOW: u64 = 256 << 20;

/// Takes bytes and where on the disk they stand.
type Sink<'a> = dyn FnMut(&[u8], u64) -> Result<()> + 'a;

/// Copies everything `source` shows to `target`, which was just made, is as large and reads as zeros. With `ahead` another
/// thread, shielded from signals by it, reads while this one writes. `progress` is called with ascending numbers below 100
/// on this thread.
pub fn copy(
    source: &Arc<Disk>,
    target: &Disk,
    ahead: Option<SignalShield>,
    progress: &mut dyn FnMut(u8),
) -> Result<()> {
    if source.capacity() != target.capacity() {
        return Err(Error::new(
            ErrorKind::CapacityMismatch,
            format!("a copy of {} bytes for a disk of {}", target.capacity(), source.capacity()),
        ));
    }
    let mut write = |bytes: &[u8], offset| target.write(bytes, offset);
    match ahead {
        None => for_each_run(source, &mut write, progress),
        Some(shield) => {
            let threads = Threads::new(shield);
            let result = for_each_run_ahead(source, &threads, &mut write, progress);
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
    for_each_run(source, &mut count, &mut |_| ())?;
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
        &mut |bytes, offset| match sink.prepare(offset, bytes.len() as u64)? {
            Some(pending) => pending.storage.write_at(bytes, offset),
            None => Err(Error::new(ErrorKind::Internal, format!("no room at {offset:#x}"))),
        },
        &mut |_| (),
    )?;
    sink.finish()?;
    file.size()
}

/// Hands the data of a disk to the sink, in order.
fn for_each_run(source: &Disk, sink: &mut Sink<'_>, progress: &mut dyn FnMut(u8)) -> Result<()> {
    let mut walk = Walk::new(source);
    let mut steps = Steps { capacity: source.capacity(), last: 0, progress };
    let mut chunk = Vec::new();
    while let Some(part) = walk.next(source)? {
        read_part(source, &part, &mut chunk)?;
        runs(&chunk, part.start, sink)?;
        steps.reach(part.end);
    }
    Ok(())
}

/// The same with a thread of its own for reading.
fn for_each_run_ahead(
    source: &Arc<Disk>,
    threads: &Threads,
    sink: &mut Sink<'_>,
    progress: &mut dyn FnMut(u8),
) -> Result<()> {
    let (filled, chunks) = mpsc::sync_channel(CHUNKS);
    let (give_back, empty) = mpsc::channel();
    let disk = source.clone();
    threads.spawn("vix-copy", move || read_all(&disk, &filled, &empty))?;
    (0..CHUNKS).for_each(|_| drop(give_back.send(Vec::with_capacity(CHUNK))));
    let mut steps = Steps { capacity: source.capacity(), last: 0, progress };
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
fn read_all(source: &Disk, filled: &mpsc::SyncSender<Said>, empty: &mpsc::Receiver<Vec<u8>>) {
    let mut walk = Walk::new(source);
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

/// A walk over the data of a disk.
struct Walk {
    capacity: u64,
    /// Where the window ends whose parts are known.
    window: u64,
    parts: VecDeque<Range<u64>>,
    /// Everything before this was handed out.
    done: u64,
}

impl Walk {
    fn new(source: &Disk) -> Walk {
        Walk { capacity: source.capacity(), window: 0, parts: VecDeque::new(), done: 0 }
    }

    /// The next part of at most a chunk, which begins and, but for the end of the disk, ends with a unit. An empty part
    /// says that there was nothing up to there. `None`: there is no more.
    fn next(&mut self, source: &Disk) -> Result<Option<Range<u64>>> {
        loop {
            if let Some(part) = self.parts.front() {
                // The end of one part and the start of the next may lie in one unit.
                let at = align_down(part.start, UNIT).max(self.done);
                let end = part.end.next_multiple_of(UNIT).min(self.window).min(at + CHUNK as u64);
                if at < end {
                    self.done = end;
                    return Ok(Some(at..end));
                }
                self.parts.pop_front();
                continue;
            }
            if self.window == self.capacity {
                return Ok(None);
            }
            let start = self.window;
            self.window = self.capacity.min(start + WINDOW);
            self.parts = data_of(source, start..self.window)?.into();
            if self.parts.is_empty() {
                return Ok(Some(self.window..self.window));
            }
        }
    }
}

/// The parts of a window that hold data, those in neighbouring units merged.
fn data_of(source: &Disk, window: Range<u64>) -> Result<Vec<Range<u64>>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    source
        .allocated(window, &mut |part| match parts.last_mut() {
            Some(last) if align_down(part.start, UNIT) <= last.end => last.end = last.end.max(part.end),
            _ => parts.push(part),
        })
        .context(|| "looking for data")?;
    Ok(parts)
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

/// Turns places on the disk into ascending percents.
struct Steps<'a> {
    capacity: u64,
    last: u8,
    progress: &'a mut dyn FnMut(u8),
}

impl Steps<'_> {
    fn reach(&mut self, at: u64) {
        let percent = u128::from(at) * 99 / u128::from(self.capacity.max(1));
        let percent = u8::try_from(percent).unwrap_or(99);
        if percent > self.last {
            self.last = percent;
            (self.progress)(percent);
        }
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

    #[test]
    fn percents_ascend_and_stay_below_100() {
        let mut seen = Vec::new();
        let mut progress = |percent| seen.push(percent);
        let mut steps = Steps { capacity: 1000, last: 0, progress: &mut progress };
        [0, 5, 11, 11, 500, 400, 1000].into_iter().for_each(|at| steps.reach(at));
        assert_eq!(seen, [1, 49, 99]);
    }
}
