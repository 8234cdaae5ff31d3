//! A *call* is what the layers above ask for; it is sent as *pieces*, each a request of its own. A piece in flight
//! occupies a *slot*, found by the cookie of its reply.

use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::reply::Refusal;
use crate::net::nbd::request::FLAG_FUA;
use crate::net::nbd::request::Verb;
use crate::net::pipe::coverage::Coverage;
use crate::net::pipe::window;
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// A range to be worked on piece by piece.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is asked for.
    pub verb: Verb,
    /// Command flags.
    pub flags: u16,
    /// First byte of the whole.
    pub start: u64,
    /// First byte that no piece was made of yet.
    pub next: u64,
    /// The end of the whole.
    pub end: u64,
    /// Longest piece.
    pub step: u64,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What is asked for.
    pub verb: Verb,
    /// Command flags.
    pub flags: u16,
    /// First byte.
    pub offset: u64,
    /// Bytes; only a flush has none.
    pub len: u64,
}

impl Piece {
    /// What it counts for in the window.
    pub fn weight(&self) -> u64 {
        match self.verb {
            Verb::Read | Verb::Write => self.len.max(512),
            Verb::Status => window::ANSWER,
            _ => window::LIGHT,
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
pub struct Call {
    /// What is left to be made into pieces.
    pub plan: Plan,
    /// Pieces that have to be sent once more, or for the rest of an answer.
    pub again: Vec<Piece>,
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
    /// Answers to block status: offset, bytes, flags; in the order of arrival.
    pub extents: Vec<(u64, u64, u64)>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("plan", &self.plan).field("flying", &self.flying).finish_non_exhaustive()
    }
}

impl Call {
    /// A call of which nothing was sent.
    pub fn new(plan: Plan, buffer: Buffer, finish: Option<Finish>) -> Call {
        let (again, extents) = (Vec::new(), Vec::new());
        let mut call = Call { plan, again, flying: 0, buffer, finish, queued: false, fault: None, extents };
        if call.plan.verb == Verb::Flush {
            call.again.push(Piece { verb: Verb::Flush, flags: 0, offset: 0, len: 0 });
        }
        call
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
        self.plan.verb == Verb::Write && matches!(self.buffer, Buffer::Lent)
    }

    /// The next piece to be sent.
    pub fn peek(&self) -> Option<Piece> {
        if let Some(piece) = self.again.last() {
            return Some(*piece);
        }
        let Plan { verb, flags, next, end, step, .. } = self.plan;
        let stop = end.min(next.saturating_add(step));
        (next < stop).then(|| Piece { verb, flags, offset: next, len: stop - next })
    }

    /// It goes out.
    pub fn pop(&mut self, piece: &Piece) {
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
pub struct Slot {
    /// Comes back in the reply.
    pub cookie: u64,
    /// Its call.
    pub call: usize,
    /// What was asked.
    pub piece: Piece,
    /// What arrived of a read.
    pub covered: Coverage,
    /// What the server refused so far.
    pub refusal: Option<Refusal>,
    /// How often it refused.
    pub refusals: u32,
    /// The extents of a block status: bytes and flags.
    pub extents: Vec<(u64, u64)>,
    /// When its sending began.
    pub out: Instant,
    /// All of it was handed to the stream.
    pub sent: bool,
    /// The outcome, of a write whose reply overtook the end of its sending.
    pub early: Option<Result<()>>,
}

impl Slot {
    /// No chunk of its reply came.
    pub fn is_fresh(&self) -> bool {
        self.refusal.is_none() && self.extents.is_empty() && self.covered.is_empty()
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

/// The reply to this piece means that data was acknowledged which only a flush makes stable.
pub fn leaves_unstable(piece: &Piece) -> bool {
    matches!(piece.verb, Verb::Write | Verb::Zero | Verb::Trim) && piece.flags & FLAG_FUA == 0
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
