//! A *call* is what the layers above ask for; it is sent as *pieces*, each a request of its own. A piece in flight
//! occupies a *slot*, found by the cookie of its reply.

use std::fmt;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::pipe::Ask;
use crate::net::pipe::Kind;
use crate::net::pipe::Protocol;
use crate::net::pipe::coverage::Coverage;
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// A range to be worked on piece by piece.
#[derive(Clone, Debug)]
pub struct Plan<A> {
    /// What is asked for.
    pub ask: A,
    /// First byte of the whole.
    pub start: u64,
    /// First byte that no piece was made of yet.
    pub next: u64,
    /// The end of the whole.
    pub end: u64,
    /// Longest piece.
    pub step: u64,
    /// Most pieces in flight.
    pub most: u32,
}

impl<A: Ask> Plan<A> {
    /// For a whole range.
    pub fn new(ask: A, start: u64, end: u64, step: u64) -> Plan<A> {
        Plan { ask, start, next: start, end, step: step.max(1), most: u32::MAX }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<A> {
    /// What is asked for.
    pub ask: A,
    /// First byte.
    pub offset: u64,
    /// Bytes; only a flush has none.
    pub len: u64,
}

impl<A: Ask> Piece<A> {
    /// What it counts for in the window.
    pub fn weight(&self) -> u64 {
        self.ask.weight(self.len)
    }
}

/// `read of 512 bytes at 0x1000`
impl<A: Ask> fmt::Display for Piece<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.ask.word();
        match self.ask.kind() {
            Kind::Flush => f.write_str(word),
            _ => write!(f, "{word} of {} bytes at {:#x}", self.len, self.offset),
        }
    }
}

/// Where the bytes of a call are.
#[derive(Debug)]
pub enum Buffer {
    /// There are none.
    None,
    /// With the thread that drives the call.
    Lent,
    /// Here.
    Own(Transfer),
    /// With the thread that receives, for a moment.
    Away,
}

/// One call.
pub struct Call<P: Protocol> {
    /// What is left to be made into pieces.
    pub plan: Plan<P::Ask>,
    /// Pieces that have to be sent once more, or for the rest of an answer.
    pub again: Vec<Piece<P::Ask>>,
    /// Pieces in flight.
    pub flying: u32,
    /// The bytes.
    pub buffer: Buffer,
    /// Of a started call.
    pub finish: Option<Finish>,
    /// It stands in the queue of those that anybody may send.
    pub queued: bool,
    /// What went wrong first.
    pub fault: Option<Error>,
    /// When the server first asked for patience.
    pub put_off: Option<Instant>,
    /// Calls are counted: those that were entered earlier have smaller numbers.
    pub number: u64,
    /// What the protocol has beside the bytes.
    pub extra: P::Extra,
}

impl<P: Protocol> fmt::Debug for Call<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("plan", &self.plan).field("flying", &self.flying).finish_non_exhaustive()
    }
}

impl<P: Protocol> Call<P> {
    /// A call of which nothing was sent.
    pub fn new(plan: Plan<P::Ask>, buffer: Buffer, finish: Option<Finish>, extra: P::Extra) -> Call<P> {
        let mut again = Vec::new();
        if plan.ask.kind() == Kind::Flush {
            again.push(Piece { ask: plan.ask, offset: 0, len: 0 });
        }
        let (queued, fault, put_off) = (false, None, None);
        Call { plan, again, flying: 0, buffer, finish, queued, fault, put_off, number: 0, extra }
    }

    /// Something has to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.again.is_empty() || self.plan.next < self.plan.end
    }

    /// Nothing has to be sent and no reply is due.
    pub fn is_over(&self) -> bool {
        self.flying == 0 && !self.has_unsent()
    }

    /// Only the thread that drives it can send it.
    pub fn is_lent_write(&self) -> bool {
        self.plan.ask.kind() == Kind::Write && matches!(self.buffer, Buffer::Lent)
    }

    /// As much of it is in flight as may be.
    pub fn is_full(&self) -> bool {
        self.flying >= self.plan.most
    }

    /// The next piece to be sent; if it moves data, not longer than `longest`.
    pub fn peek(&self, longest: u64) -> Option<Piece<P::Ask>> {
        if let Some(piece) = self.again.last() {
            return Some(*piece);
        }
        let Plan { ask, next, end, step, .. } = self.plan;
        let step = if ask.kind().moves_data() { step.min(longest) } else { step };
        let stop = end.min(next.saturating_add(step));
        (next < stop).then(|| Piece { ask, offset: next, len: stop - next })
    }

    /// It goes out.
    pub fn pop(&mut self, piece: &Piece<P::Ask>) {
        if self.again.pop().is_none() {
            self.plan.next = piece.offset + piece.len;
        }
    }

    /// It failed: what was not sent stays so.
    pub fn fail(&mut self, error: Error) {
        self.fault.get_or_insert(error);
        self.stop();
    }

    /// What was not sent stays so.
    pub fn stop(&mut self) {
        self.again.clear();
        self.plan.next = self.plan.end;
    }
}

/// A piece in flight.
#[derive(Debug)]
pub struct Slot<P: Protocol> {
    /// Comes back in the reply.
    pub cookie: u64,
    /// Its call.
    pub call: usize,
    /// What was asked.
    pub piece: Piece<P::Ask>,
    /// What arrived of a read.
    pub covered: Coverage,
    /// What else arrived.
    pub note: P::Note,
    /// Nothing of its reply came.
    pub fresh: bool,
    /// When its sending began.
    pub out: Instant,
    /// All of it was handed to the stream.
    pub sent: bool,
    /// The outcome, of a write whose reply overtook the end of its sending.
    pub early: Option<Outcome>,
}

/// How a piece ended.
#[derive(Debug)]
pub enum Outcome {
    /// As it should.
    Done,
    /// The server refused it.
    Refused(Error),
    /// The server is short of something: the piece goes out again, later and shorter. The error is for the case that it
    /// stays so for too long.
    PutOff(Error),
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Outcome {
        result.map_or_else(Outcome::Refused, |()| Outcome::Done)
    }
}

/// A started call that is over.
pub struct Finished {
    finish: Finish,
    transfer: Transfer,
    result: Result<()>,
}

impl Finished {
    /// A call that ended this way.
    pub fn new(finish: Finish, transfer: Transfer, result: Result<()>) -> Finished {
        Finished { finish, transfer, result }
    }

    /// Tells the one who started it. Must be called with no lock held.
    pub fn tell(self) {
        (self.finish)(self.transfer, self.result);
    }
}

/// A fault that hits many calls: errors cannot be copied, their kind and story can.
#[derive(Clone, Debug)]
pub struct Cause {
    /// What kind of fault.
    pub kind: ErrorKind,
    /// The whole story.
    pub story: String,
}

impl Cause {
    /// From an error.
    pub fn of(error: &Error) -> Cause {
        Cause { kind: error.kind(), story: error.to_string() }
    }

    /// One error of this cause.
    pub fn error(&self) -> Error {
        Error::new(self.kind, self.story.clone())
    }
}
