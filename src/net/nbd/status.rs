//! What an export holds where, in as few round trips as the server allows: with 64 bit lengths one question for all of it,
//! else many at once.

use std::ops::Range;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::Allocation;
use crate::net::nbd::Replies;
use crate::net::nbd::client::Client;
use crate::net::nbd::client::plan;
use crate::net::nbd::request::Verb;
use crate::net::pipe::connection::Lent;

/// Bytes of the export that are asked about at once with 32 bit lengths.
const ROUND: u64 = 64 << 30;
/// Longest range of one such question.
const STEP: u64 = (1 << 32) - (64 << 10);
/// Flags of `base:allocation`.
const HOLE: u64 = 1;
const ZERO: u64 = 2;

impl Client {
    /// Tells what a range holds, in order. `Ok(false)`: the server does not tell.
    pub fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Allocation)) -> Result<bool> {
        let range = self.inside_range(range)?;
        if self.export().allocation.is_none() {
            return Ok(false);
        }
        let wide = self.widened(&range);
        let extended = self.export().replies == Replies::Extended;
        let mut at = wide.start;
        let mut last: Option<Allocation> = None;
        while at < wide.end {
            let end = if extended { wide.end } else { wide.end.min(at.saturating_add(ROUND)) };
            let plan = plan(Verb::Status, 0, at, end, if extended { u64::MAX } else { STEP });
            let mut call = self.idle().call(plan, Lent::Nothing).context(|| self.label())?;
            call.extra.sort_unstable();
            let before = at;
            for (offset, len, flags) in call.extra {
                if offset != at {
                    break; // what lies between was not answered: the next call asks from here on
                }
                at += len;
                let part = offset.max(range.start)..at.min(range.end);
                if !part.is_empty() {
                    join(
                        &mut last,
                        Allocation { range: part, hole: flags & HOLE != 0, zero: flags & ZERO != 0 },
                        sink,
                    );
                }
            }
            if at == before {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("nothing is known about the range from {at:#x} on"),
                ));
            }
        }
        last.into_iter().for_each(sink);
        Ok(true)
    }
}

/// Joins neighbours that are alike.
fn join(last: &mut Option<Allocation>, next: Allocation, sink: &mut dyn FnMut(Allocation)) {
    match last {
        Some(last)
            if last.range.end == next.range.start && (last.hole, last.zero) == (next.hole, next.zero) =>
        {
            last.range.end = next.range.end;
        }
        _ => {
            if let Some(done) = last.replace(next) {
                sink(done);
            }
        }
    }
}
