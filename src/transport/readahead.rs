//! Reading ahead of one who reads pieces in a row, each after the other: a storage with latency would make him wait for
//! every piece.
//!
//! From the third piece in a row on, chunks that follow are read before they are asked for, as many as the latency needs:
//! twice as much whenever the reader had to wait. Long pieces are read straight into the reader's buffer instead, which
//! saves a copy, as long as they do not take long. What was read ahead is gone when anything is written to them or the storage is
//! flushed, and no chunk is read while a write is under way: what is served is never older than the last write or flush
//! through this storage.
//!
//! Readers that read at the same time keep a storage busy by themselves: what takes long then does not count, and whoever
//! reads elsewhere does not end the row of the others.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::error::Result;
use crate::storage::ReadOp;
use crate::storage::Storage;
use crate::threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::units::align_down;

/// Longer reads are pipelined by the storage itself.
const SMALL: usize = 256 << 10;
/// Longer reads than small ones, up to this, are read ahead of where they take long.
const LONG: usize = 4 << 20;
/// What is read ahead at once, of small reads and of long ones.
const CHUNK: u64 = 256 << 10;
const LONG_CHUNK: u64 = 1 << 20;
/// A long read takes long from so much on, and so much more for each KiB: a slower storage leaves time for a copy.
const LATE: Duration = Duration::from_micros(300);
const LATE_PER_KIB: Duration = Duration::from_nanos(300);
/// Chunks begin at multiples of this, so that no storage finds their edges inconvenient.
const ALIGNED: u64 = 64 << 10;
/// How far ahead, at first and at most.
const LEAST: u64 = 2 * CHUNK;
const MOST: u64 = 32 * CHUNK;
/// Reads in a row after which it begins.
const ENOUGH: u32 = 2;

/// A storage that reads ahead.
#[derive(Debug)]
pub struct ReadAhead {
    inner: Arc<dyn Storage>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Never held while anything is read or written.
    state: Mutex<State>,
    loaded: Condvar,
    /// Reads under way.
    readers: AtomicU32,
    /// Reads that began.
    begun: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Where the next read begins if it is in a row, and how many have been.
    next: u64,
    row: u32,
    /// How far ahead.
    reach: u64,
    /// The last long read that was not read ahead of took long.
    late: bool,
    /// In ascending order, each where the one before ends.
    chunks: VecDeque<Chunk>,
    /// Numbers chunks.
    serial: u64,
    /// Writes under way.
    writes: u32,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// The storage does not transfer by itself.
    useless: bool,
}

#[derive(Debug)]
struct Chunk {
    serial: u64,
    range: Range<u64>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Coming,
    Here(Vec<u8>),
    Failed,
}

/// A read under way.
struct Reading<'a> {
    shared: &'a Shared,
    /// How many reads had begun with it.
    number: u64,
    /// Nobody read when it began.
    first: bool,
}

impl<'a> Reading<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let first = shared.readers.fetch_add(1, Ordering::Relaxed) == 0;
        Self { shared, first, number: shared.begun.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Nobody else read since it began.
    fn is_alone(&self) -> bool {
        self.first && self.shared.begun.load(Ordering::Relaxed) == self.number
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.shared.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a chunk can do for a read.
enum Served {
    /// So many bytes were copied.
    Bytes(usize),
    /// Nothing is known.
    Nothing,
}

impl ReadAhead {
    /// Reads ahead of those who read `inner` through this.
    pub fn new(inner: Arc<dyn Storage>) -> ReadAhead {
        ReadAhead { inner, shared: Arc::default() }
    }

    /// Copies what was read ahead; starts to read what follows.
    fn serve(&self, reading: &Reading<'_>, buf: &mut [u8], offset: u64) -> Result<usize> {
        let (mut done, buf_len) = (0, buf.len());
        let mut state = self.shared.state.lock();
        if !reading.first && offset != state.next {
            return Ok(0);
        }
        state.note(offset, buf_len);
        if buf_len > SMALL && !state.late {
            return Ok(0);
        }
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            self.reach_out(&mut state, offset + done as u64, buf_len)?;
            match self.shared.copy(&mut state, rest, offset + done as u64) {
                Served::Bytes(count) => done += count,
                Served::Nothing => break,
            }
        }
        Ok(done)
    }

    /// Starts to read the chunks that are due for one who reads pieces of this length.
    fn reach_out(&self, state: &mut MutexGuard<'_, State>, at: u64, piece: usize) -> Result<()> {
        if state.row < ENOUGH || state.writes > 0 || state.useless {
            return Ok(());
        }
        let size = self.inner.size()?;
        let chunk = if piece > SMALL { LONG_CHUNK } else { CHUNK };
        let least = LEAST.max(2 * piece as u64);
        loop {
            let from = state.chunks.back().map_or(align_down(at, ALIGNED), |last| last.range.end);
            let range = from..size.min(from.saturating_add(chunk));
            if range.is_empty() || from >= at.saturating_add(state.reach.max(least)) {
                return Ok(());
            }
            let serial = state.serial;
            state.serial += 1;
            let len = usize::try_from(range.end - range.start).unwrap_or(0);
            let mut room = state.spare.pop().unwrap_or_default();
            room.resize(len, 0);
            state.chunks.push_back(Chunk { serial, range: range.clone(), content: Content::Coming });
            let shared = Arc::clone(&self.shared);
            let finish: Finish = Box::new(move |transfer, result| shared.came(serial, transfer, &result));
            let refused = MutexGuard::unlocked(state, || {
                self.inner.start(Transfer::ReadOwned(room), range.start, finish)
            });
            if refused.is_some() {
                state.useless = true;
                state.chunks.clear();
                return Ok(());
            }
        }
    }

    /// Reads what was not read ahead.
    fn direct(&self, reading: &Reading<'_>, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.len() <= SMALL || buf.len() > LONG {
            return self.inner.read_at(buf, offset);
        }
        let begin = Instant::now();
        self.inner.read_at(buf, offset)?;
        let kib = u32::try_from(buf.len() >> 10).unwrap_or(u32::MAX);
        let late = begin.elapsed() > LATE + LATE_PER_KIB.saturating_mul(kib);
        if reading.is_alone() {
            self.shared.state.lock().late = late;
        }
        Ok(())
    }

    /// Runs something that changes a range.
    fn changing<T>(&self, range: Range<u64>, change: impl FnOnce() -> T) -> T {
        self.shared.begin(&range);
        let changed = change();
        self.shared.end(&range);
        changed
    }
}

impl State {
    /// A read begins.
    fn note(&mut self, offset: u64, len: usize) {
        if offset == self.next {
            self.row = self.row.saturating_add(1);
        } else {
            self.row = 0;
            self.reach = LEAST;
            self.forget(&(0..u64::MAX));
        }
        self.next = offset.saturating_add(len as u64);
    }

    /// Forgets every chunk from the first one on that overlaps the range: they stay in a row that way.
    fn forget(&mut self, range: &Range<u64>) {
        let overlaps = |chunk: &Chunk| chunk.range.start < range.end && range.start < chunk.range.end;
        if let Some(first) = self.chunks.iter().position(overlaps) {
            self.chunks.truncate(first);
        }
    }
}

impl Shared {
    /// A chunk came, or did not.
    fn came(&self, serial: u64, transfer: Transfer, result: &Result<()>) {
        let Transfer::ReadOwned(data) = transfer else { return };
        let mut state = self.state.lock();
        match state.chunks.iter_mut().find(|chunk| chunk.serial == serial) {
            Some(chunk) if result.is_ok() => chunk.content = Content::Here(data),
            Some(chunk) => chunk.content = Content::Failed, // whoever asks reads it himself and gets the error
            None => state.keep(data),
        }
        drop(state);
        self.loaded.notify_all();
    }

    /// Copies from the first chunk, waiting for it if it is on its way.
    fn copy(&self, state: &mut MutexGuard<'_, State>, into: &mut [u8], at: u64) -> Served {
        loop {
            while state.chunks.front().is_some_and(|chunk| chunk.range.end <= at) {
                if let Some(Chunk { content: Content::Here(data), .. }) = state.chunks.pop_front() {
                    state.keep(data);
                }
            }
            let Some(chunk) = state.chunks.front().filter(|chunk| chunk.range.contains(&at)) else {
                return Served::Nothing;
            };
            match &chunk.content {
                // A thread of ours may be the one that has to receive the chunk: it is inside a completion that reads.
                Content::Coming if threads::here_is_ours() => return Served::Nothing,
                Content::Coming => {
                    state.reach = (state.reach.max(LEAST) * 2).min(MOST);
                    self.loaded.wait(state);
                }
                Content::Failed => {
                    state.chunks.clear();
                    return Served::Nothing;
                }
                Content::Here(data) => {
                    let from = usize::try_from(at - chunk.range.start).unwrap_or(usize::MAX);
                    let Some(data) = data.get(from..).filter(|data| !data.is_empty()) else {
                        return Served::Nothing;
                    };
                    let count = data.len().min(into.len());
                    let (head, _) = into.split_at_mut(count);
                    head.copy_from_slice(data.get(..count).unwrap_or_default());
                    return Served::Bytes(count);
                }
            }
        }
    }

    fn begin(&self, range: &Range<u64>) {
        let mut state = self.state.lock();
        state.writes += 1;
        state.forget(range);
        drop(state);
        self.loaded.notify_all();
    }

    fn end(&self, range: &Range<u64>) {
        let mut state = self.state.lock();
        state.writes -= 1;
        state.forget(range);
        drop(state);
        self.loaded.notify_all();
    }
}

impl State {
    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < 2 {
            self.spare.push(buffer);
        }
    }
}

impl Storage for ReadAhead {
    fn size(&self) -> Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let reading = Reading::begin(&self.shared);
        let done = if buf.len() <= LONG { self.serve(&reading, buf, offset)? } else { 0 };
        match buf.get_mut(done..) {
            Some([]) if done > 0 => Ok(()),
            Some(rest) => self.direct(&reading, rest, offset + done as u64),
            None => Ok(()),
        }
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        self.inner.try_read_at(buf, offset)
    }

    fn read_batch(&self, reads: &mut [ReadOp<'_>]) -> Result<()> {
        match reads {
            [one] => self.read_at(one.buf, one.offset),
            many => self.inner.read_batch(many),
        }
    }

    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        if !matches!(transfer, Transfer::Write(_)) {
            return self.inner.start(transfer, offset, finish);
        }
        let range = offset..offset.saturating_add(transfer.len() as u64);
        self.shared.begin(&range);
        let (shared, written) = (Arc::clone(&self.shared), range.clone());
        let slot = Arc::new(Mutex::new(Some(finish)));
        let theirs = Arc::clone(&slot);
        let wrapped: Finish = Box::new(move |transfer, result| {
            shared.end(&written);
            let finish = theirs.lock().take();
            if let Some(finish) = finish {
                finish(transfer, result);
            }
        });
        let (transfer, wrapped) = self.inner.start(transfer, offset, wrapped)?;
        self.shared.end(&range);
        drop(wrapped);
        let finish = slot.lock().take();
        finish.map(|finish| (transfer, finish))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        self.changing(range, || self.inner.write_at(buf, offset))
    }

    fn flush(&self) -> Result<()> {
        self.changing(0..u64::MAX, || self.inner.flush())
    }

    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        self.inner.allocated(range, sink)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.changing(0..u64::MAX, || self.inner.set_len(len))
    }

    fn zero(&self, range: Range<u64>) -> Result<bool> {
        self.changing(range.clone(), || self.inner.zero(range))
    }

    fn discard(&self, range: Range<u64>) -> Result<bool> {
        self.changing(range.clone(), || self.inner.discard(range))
    }

    fn label(&self) -> String {
        self.inner.label()
    }
}

#[cfg(test)]
mod tests;
