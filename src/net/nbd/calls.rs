//! The books of a connection: which calls there are, what of them has to be sent, and which requests are in flight.
//!
//! A *call* is what the layers above ask for; it is sent as *pieces*, each a request of its own. A piece in flight
//! occupies a *slot*, found by the cookie of its reply. No input or output happens here.

use std::collections::VecDeque;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::coverage::Coverage;
use crate::net::nbd::reply::Refusal;
use crate::net::nbd::request::FLAG_FUA;
use crate::net::nbd::request::Verb;
use crate::net::nbd::window;
use crate::net::nbd::window::Window;
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
    queued: bool,
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
    fn is_lent_write(&self) -> bool {
        self.plan.verb == Verb::Write && matches!(self.buffer, Buffer::Lent)
    }

    fn peek(&self) -> Option<Piece> {
        if let Some(piece) = self.again.last() {
            return Some(*piece);
        }
        let Plan { verb, flags, next, end, step, .. } = self.plan;
        let stop = end.min(next.saturating_add(step));
        (next < stop).then(|| Piece { verb, flags, offset: next, len: stop - next })
    }

    fn pop(&mut self, piece: &Piece) {
        if self.again.pop().is_none() {
            self.plan.next = piece.offset + piece.len;
        }
    }

    /// It failed: what was not sent stays so.
    pub fn fail(&mut self, error: Error) {
        self.fault.get_or_insert(error);
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
    /// Tells the one who started it. Must be called with no lock held.
    pub fn tell(self) {
        (self.finish)(self.transfer, self.result);
    }
}

/// The books.
#[derive(Default)]
pub struct Books {
    calls: Vec<Option<Call>>,
    free_calls: Vec<usize>,
    slots: Vec<Option<Slot>>,
    free_slots: Vec<usize>,
    serial: u32,
    queue: VecDeque<usize>,
    /// Started calls that are not over.
    pub started: usize,
    /// Pieces in flight.
    pub flying: usize,
    /// Of them, those whose reply overtook the end of their sending: the peer owes nothing for them.
    overtaken: usize,
    /// Started calls that are over and whose starters do not know yet.
    pub finished: VecDeque<Finished>,
    /// Bytes of started calls that are not over.
    pub load: u64,
    /// The connection is to be made even if there is no call.
    pub warm_up: bool,
}

impl Books {
    /// Enters a call and queues it, unless only its owner can send it.
    pub fn enter(&mut self, call: Call) -> usize {
        if call.finish.is_some() {
            self.started += 1;
            self.load += call.plan.end - call.plan.start;
        }
        let id = match self.free_calls.pop() {
            Some(id) => id,
            None => {
                self.calls.push(None);
                self.calls.len() - 1
            }
        };
        if let Some(place) = self.calls.get_mut(id) {
            *place = Some(call);
        }
        self.enqueue(id);
        id
    }

    /// A call that is there.
    pub fn call(&mut self, id: usize) -> Option<&mut Call> {
        self.calls.get_mut(id)?.as_mut()
    }

    /// Removes a call.
    pub fn remove(&mut self, id: usize) -> Option<Call> {
        let call = self.calls.get_mut(id)?.take()?;
        self.free_calls.push(id);
        if call.finish.is_some() {
            self.started -= 1;
            self.load -= call.plan.end - call.plan.start;
        }
        Some(call)
    }

    /// The next piece that anybody may send, if the window admits it.
    pub fn next_queued(&mut self, window: &mut Window, at: Instant) -> Option<&mut Slot> {
        loop {
            let id = *self.queue.front()?;
            let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut).filter(|call| call.queued)
            else {
                self.queue.pop_front();
                continue;
            };
            let Some(piece) = call.peek() else {
                call.queued = false;
                self.queue.pop_front();
                continue;
            };
            if !window.admits(piece.weight()) {
                return None;
            }
            call.pop(&piece);
            call.flying += 1;
            if !call.has_unsent() {
                call.queued = false;
                self.queue.pop_front();
            }
            return self.occupy(id, piece, window, at);
        }
    }

    /// The next piece of a call that only its owner can send, if the window admits it.
    pub fn next_of(&mut self, id: usize, window: &mut Window, at: Instant) -> Option<&mut Slot> {
        let call = self.calls.get_mut(id)?.as_mut()?;
        let piece = call.peek()?;
        if !window.admits(piece.weight()) {
            return None;
        }
        call.pop(&piece);
        call.flying += 1;
        self.occupy(id, piece, window, at)
    }

    /// Somebody needs the connection.
    pub fn is_wanted(&self) -> bool {
        self.warm_up || self.calls.iter().flatten().any(|call| !call.is_over())
    }

    /// The thread that leads started calls has something to wait for.
    pub fn is_awaited(&self) -> bool {
        self.warm_up || self.started > 0
    }

    /// Something waits for anybody to send it.
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The peer owes a reply. Whoever receives without that may wait for ever.
    pub fn is_due(&self) -> bool {
        self.flying > self.overtaken
    }

    /// The slot that a reply belongs to.
    pub fn slot(&mut self, cookie: u64) -> Option<&mut Slot> {
        let index = usize::try_from(cookie & u64::from(u32::MAX)).ok()?;
        self.slots.get_mut(index)?.as_mut().filter(|slot| slot.cookie == cookie)
    }

    /// The slot of a reply, and the call it is for.
    pub fn slot_and_call(&mut self, cookie: u64) -> Option<(&mut Slot, &mut Call)> {
        let index = usize::try_from(cookie & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get_mut(index)?.as_mut().filter(|slot| slot.cookie == cookie)?;
        let call = self.calls.get_mut(slot.call)?.as_mut()?;
        Some((slot, call))
    }

    /// All of this request was handed to the stream. True when its reply was there already, and is dealt with by this.
    pub fn was_sent(&mut self, cookie: u64, window: &mut Window, at: Instant) -> bool {
        let Some(slot) = self.slot(cookie) else { return false };
        slot.sent = true;
        match slot.early.take() {
            Some(result) => {
                self.overtaken -= 1;
                self.settle(cookie, result, window, at);
                true
            }
            None => false,
        }
    }

    /// The reply to this request is complete. A call that is over by this is moved to the finished ones, or left for the
    /// thread that drives it.
    pub fn settle(&mut self, cookie: u64, result: Result<()>, window: &mut Window, at: Instant) {
        let Some(index) = usize::try_from(cookie & u64::from(u32::MAX)).ok() else { return };
        let Some(place) = self.slots.get_mut(index) else { return };
        match place {
            Some(slot) if slot.cookie != cookie => return,
            Some(slot) if !slot.sent && slot.piece.verb == Verb::Write => {
                if slot.early.replace(result).is_none() {
                    self.overtaken += 1; // its payload is still being looked at
                }
                return;
            }
            _ => {}
        }
        let Some(slot) = place.take() else { return };
        self.free_slots.push(index);
        self.flying -= 1;
        window.back(slot.piece.weight(), at);
        let id = slot.call;
        let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut) else { return };
        call.flying -= 1;
        match result {
            Ok(()) => book_extents(call, slot),
            Err(error) => call.fail(error),
        }
        self.enqueue(id);
        self.hand_over(id);
    }

    /// The connection is gone: everything in flight has to be sent once more. Both directions must be at rest.
    pub fn send_again(&mut self) {
        for place in &mut self.slots {
            let Some(slot) = place.take() else { continue };
            if let Some(call) = self.calls.get_mut(slot.call).and_then(Option::as_mut) {
                call.flying -= 1;
                if call.fault.is_none() {
                    call.again.push(slot.piece);
                }
            }
        }
        self.forget_slots();
        for id in 0..self.calls.len() {
            self.enqueue(id);
            self.hand_over(id);
        }
    }

    /// Fails every call, or those that `which` picks. Both directions must be at rest.
    pub fn fail(&mut self, error: &dyn Fn() -> Error, which: &dyn Fn(&Call) -> bool) {
        for id in 0..self.calls.len() {
            let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut) else { continue };
            if which(call) {
                call.fail(error());
                self.hand_over(id);
            }
        }
    }

    /// True when it is exactly the pieces of one lent read that are in flight, and there is one; says which.
    pub fn only_piece_of(&self, id: usize) -> Option<(u64, Piece)> {
        if self.flying != 1 {
            return None;
        }
        let slot = self.slots.iter().flatten().next()?;
        (slot.call == id && slot.piece.verb == Verb::Read && slot.is_fresh())
            .then_some((slot.cookie, slot.piece))
    }

    fn enqueue(&mut self, id: usize) {
        if let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut)
            && !call.queued
            && call.has_unsent()
            && !call.is_lent_write()
        {
            call.queued = true;
            self.queue.push_back(id);
        }
    }

    fn occupy(&mut self, call: usize, piece: Piece, window: &mut Window, at: Instant) -> Option<&mut Slot> {
        window.out(piece.weight(), at);
        self.flying += 1;
        self.serial = self.serial.wrapping_add(1);
        let index = match self.free_slots.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        let cookie = u64::from(self.serial) << 32 | index as u64;
        let place = self.slots.get_mut(index)?;
        Some(place.insert(Slot {
            cookie,
            call,
            piece,
            covered: Coverage::default(),
            refusal: None,
            refusals: 0,
            extents: Vec::new(),
            sent: false,
            early: None,
        }))
    }

    fn forget_slots(&mut self) {
        (self.flying, self.overtaken) = (0, 0);
        self.slots.clear();
        self.free_slots.clear();
    }

    /// A started call that is over goes to the finished ones.
    fn hand_over(&mut self, id: usize) {
        let over = self.call(id).is_some_and(|call| call.is_over() && call.finish.is_some());
        let Some(mut call) = over.then(|| self.remove(id)).flatten() else { return };
        let Some(finish) = call.finish.take() else { return };
        let (transfer, result) = match call.buffer {
            Buffer::Own(transfer) => (transfer, call.fault.map_or(Ok(()), Err)),
            _ => (Transfer::ReadOwned(Vec::new()), Err(lost_buffer())),
        };
        self.finished.push_back(Finished { finish, transfer, result });
    }
}

/// The thread that was receiving into it panicked.
fn lost_buffer() -> Error {
    Error::new(ErrorKind::Internal, "the buffer of a transfer was lost")
}

/// Notes what a block status said, and asks on for what it did not reach.
fn book_extents(call: &mut Call, slot: Slot) {
    if slot.piece.verb != Verb::Status {
        return;
    }
    let end = slot.piece.offset + slot.piece.len;
    let mut at = slot.piece.offset;
    for (len, flags) in slot.extents {
        let stop = end.min(at.saturating_add(len));
        call.extents.push((at, stop - at, flags));
        at = stop;
    }
    if at < end {
        call.again.push(Piece { offset: at, len: end - at, ..slot.piece });
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
