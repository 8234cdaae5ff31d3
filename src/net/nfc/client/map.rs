//! Which parts of a disk are allocated, in few round trips and without standing in the way of reads.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::net::nfc::blocks::Query;
use crate::net::nfc::client::Client;
use crate::net::nfc::client::protocol::Agreed;
use crate::net::nfc::client::protocol::Extra;
use crate::net::nfc::client::protocol::Order;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::calls::Plan;
use crate::net::pipe::connection::Lent;
use crate::units::align_down;

/// Bytes of a chunk, unless told otherwise.
pub const CHUNK: u64 = 64 << 10;
/// Chunks of one question: what a host was seen to answer.
const CHUNKS: u64 = 16384;
/// Questions in flight: the host's time belongs to reads.
const QUESTIONS: u32 = 4;
/// Questions of a round, whose answers are held in memory.
const ROUND: u64 = 64;

/// The question that a piece asks.
pub fn query(agreed: &Agreed, piece: &Piece<Order>) -> Query {
    let (handle, chunk) = (agreed.session.handle, agreed.chunk.max(1));
    Query { handle, chunk, start: piece.offset, chunks: piece.len / chunk }
}

/// Joins neighbours on their way out.
struct Joining<'s> {
    last: Option<Range<u64>>,
    sink: &'s mut dyn FnMut(Range<u64>),
}

impl Joining<'_> {
    fn tell(&mut self, part: Range<u64>) {
        match &mut self.last {
            _ if part.is_empty() => {}
            Some(last) if last.end >= part.start => last.end = last.end.max(part.end),
            _ => {
                if let Some(done) = self.last.replace(part) {
                    (self.sink)(done);
                }
            }
        }
    }

    fn end(self) {
        if let Some(last) = self.last {
            (self.sink)(last);
        }
    }
}

impl Client {
    /// Tells which parts of a range are allocated, in order; neighbours are joined. What this client wrote is among them,
    /// and so is a tail of the disk that is shorter than a chunk. `Ok(false)`: the host does not tell, and nothing was told.
    pub fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<bool> {
        let range = self.inside_range(range)?;
        if !self.tells.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut out = Joining { last: None, sink };
        let start = align_down(range.start, self.chunk);
        let whole = align_down(self.opened.capacity, self.chunk); // a tail cannot be asked about
        let mut at = start;
        while at < range.end && at < whole {
            let end = at.saturating_add(ROUND * CHUNKS * self.chunk).min(whole);
            let end = end.min(range.end.next_multiple_of(self.chunk));
            match self.ask(at, end)? {
                Ok(runs) => self.tell(at..end, &runs, &range, &mut out),
                Err(refusal) if at == start => {
                    self.does_not_tell(&refusal);
                    return Ok(false);
                }
                Err(refusal) => {
                    self.does_not_tell(&refusal);
                    break;
                }
            }
            at = end;
        }
        out.tell(at.max(range.start)..range.end);
        out.end();
        Ok(true)
    }

    /// One round of questions. An inner error: the host refuses to tell.
    fn ask(&self, start: u64, end: u64) -> Result<Result<Vec<(u64, u64)>, Error>> {
        let plan = Plan { most: QUESTIONS, ..Plan::new(Order::Blocks, start, end, CHUNKS * self.chunk) };
        let call = self.connection.call(plan, Lent::Nothing).context(|| self.label())?;
        let Extra { mut runs, refusal, .. } = call.extra;
        if let Some(refusal) = refusal {
            return Ok(Err(refusal));
        }
        runs.sort_unstable();
        Ok(Ok(runs))
    }

    /// What the host says and what was written, as far as it was asked for.
    fn tell(&self, asked: Range<u64>, runs: &[(u64, u64)], range: &Range<u64>, out: &mut Joining<'_>) {
        let cut = |start: u64, end: u64| start.max(range.start)..end.min(range.end);
        let mut written = self.written.in_range(&cut(asked.start, asked.end)).into_iter().peekable();
        for (start, end) in runs {
            while let Some(part) = written.next_if(|part| part.start <= *start) {
                out.tell(part);
            }
            out.tell(cut(*start, *end));
        }
        written.for_each(|part| out.tell(part));
    }

    fn does_not_tell(&self, refusal: &Error) {
        if self.tells.swap(false, Ordering::Relaxed) {
            self.shared.log.warning(|| {
                format!(
                    "{}: the host does not tell what is allocated, so that everything counts as allocated: {refusal}",
                    self.label()
                )
            });
        }
    }
}
