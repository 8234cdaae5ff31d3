//! The books of a connection: which calls there are, what of them has to be sent, which pieces are in flight. No input or
//! output happens here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::net::pipe::Ask;
use crate::net::pipe::Kind;
use crate::net::pipe::Protocol;
use crate::net::pipe::calls::Buffer;
use crate::net::pipe::calls::Call;
use crate::net::pipe::calls::Finished;
use crate::net::pipe::calls::Outcome;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::calls::Slot;
use crate::net::pipe::coverage::Coverage;
use crate::net::pipe::progress::Progress;
use crate::net::pipe::window::Window;
use crate::transfer::Transfer;

/// A reply may take so many times as long as silence may last, while others come.
const OVERDUE: u32 = 3;

/// The books.
pub struct Books<P: Protocol> {
    progress: Arc<Progress>,
    calls: Vec<Option<Call<P>>>,
    free_calls: Vec<usize>,
    /// Calls that were entered.
    entered: u64,
    slots: Vec<Option<Slot<P>>>,
    free_slots: Vec<usize>,
    serial: u32,
    /// The cookie that was given out last.
    latest: u64,
    queue: VecDeque<usize>,
    /// Started calls that are not over.
    pub started: usize,
    /// Pieces in flight.
    pub flying: usize,
    /// Those whose reply came before they were known to be sent.
    early: usize,
    /// Started calls that are over and whose starters do not know yet.
    pub finished: VecDeque<Finished>,
    /// Bytes of started calls that are not over.
    pub load: u64,
    /// The connection is to be made even if there is no call.
    pub warm_up: bool,
}

impl<P: Protocol> Books<P> {
    /// Empty ones. What is in flight decides how much patience `progress` has.
    pub fn new(progress: Arc<Progress>) -> Books<P> {
        Books {
            progress,
            calls: Vec::new(),
            free_calls: Vec::new(),
            entered: 0,
            slots: Vec::new(),
            free_slots: Vec::new(),
            serial: 0,
            latest: 0,
            queue: VecDeque::new(),
            started: 0,
            flying: 0,
            early: 0,
            finished: VecDeque::new(),
            load: 0,
            warm_up: false,
        }
    }

    /// The next request gets this number.
    pub fn restart_serial(&mut self, first: u32) {
        self.serial = first.wrapping_sub(1);
    }

    /// What the number of the next request would be.
    pub fn next_serial(&self) -> u32 {
        self.serial.wrapping_add(1)
    }

    /// The number of calls that were entered: a mark for [`Books::has_writes_before`].
    pub fn entered(&self) -> u64 {
        self.entered
    }

    /// A write that was entered before the mark is not over.
    pub fn has_writes_before(&self, mark: u64) -> bool {
        let mut calls = self.calls.iter().flatten();
        calls.any(|call| call.number < mark && call.plan.ask.kind() == Kind::Write && !call.is_over())
    }

    /// Enters a call and queues it, unless only its owner can send it.
    pub fn enter(&mut self, mut call: Call<P>) -> usize {
        call.number = self.entered;
        self.entered += 1;
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
    pub fn call(&mut self, id: usize) -> Option<&mut Call<P>> {
        self.calls.get_mut(id)?.as_mut()
    }

    /// Removes a call.
    pub fn remove(&mut self, id: usize) -> Option<Call<P>> {
        let call = self.calls.get_mut(id)?.take()?;
        self.free_calls.push(id);
        if call.finish.is_some() {
            self.started -= 1;
            self.load -= call.plan.end - call.plan.start;
        }
        Some(call)
    }

    /// The next piece that anybody may send, if the window admits it.
    pub fn next_queued(&mut self, window: &mut Window, at: Instant) -> Option<&mut Slot<P>> {
        loop {
            let id = *self.queue.front()?;
            let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut).filter(|call| call.queued)
            else {
                self.queue.pop_front();
                continue;
            };
            let piece = if call.is_full() { None } else { call.peek(window.longest()) };
            let Some(piece) = piece else {
                call.queued = false;
                self.queue.pop_front();
                continue;
            };
            if !window.admits(piece.weight(), at) {
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
    pub fn next_of(&mut self, id: usize, window: &mut Window, at: Instant) -> Option<&mut Slot<P>> {
        let call = self.calls.get_mut(id)?.as_mut()?;
        let piece = call.peek(window.longest())?;
        if !window.admits(piece.weight(), at) {
            return None;
        }
        call.pop(&piece);
        call.flying += 1;
        self.occupy(id, piece, window, at)
    }

    /// A reply is due.
    pub fn is_due(&self) -> bool {
        self.flying > self.early
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

    /// The slot that a reply belongs to.
    pub fn slot(&mut self, cookie: u64) -> Option<&mut Slot<P>> {
        let index = usize::try_from(cookie & u64::from(u32::MAX)).ok()?;
        self.slots.get_mut(index)?.as_mut().filter(|slot| slot.cookie == cookie)
    }

    /// The slot of a reply, and the call it is for.
    pub fn slot_and_call(&mut self, cookie: u64) -> Option<(&mut Slot<P>, &mut Call<P>)> {
        let index = usize::try_from(cookie & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get_mut(index)?.as_mut().filter(|slot| slot.cookie == cookie)?;
        let call = self.calls.get_mut(slot.call)?.as_mut()?;
        Some((slot, call))
    }

    /// The cookie of the request in flight with this number.
    pub fn cookie_of(&self, serial: u32) -> Option<u64> {
        let mut slots = self.slots.iter().flatten();
        slots.find(|slot| slot.cookie >> 32 == u64::from(serial)).map(|slot| slot.cookie)
    }

    /// All of this request was handed to the stream. True when its reply was there already, and is dealt with by this.
    pub fn was_sent(&mut self, cookie: u64, window: &mut Window, at: Instant) -> bool {
        let Some(slot) = self.slot(cookie) else { return false };
        slot.sent = true;
        match slot.early.take() {
            Some(outcome) => {
                self.early -= 1;
                self.settle(cookie, outcome, window, at);
                true
            }
            None => false,
        }
    }

    /// The reply to this request is complete. A call that is over by this is moved to the finished ones, or left for the
    /// thread that drives it.
    pub fn settle(&mut self, cookie: u64, outcome: Outcome, window: &mut Window, at: Instant) {
        let Some(index) = usize::try_from(cookie & u64::from(u32::MAX)).ok() else { return };
        let Some(place) = self.slots.get_mut(index) else { return };
        match place {
            Some(slot) if slot.cookie != cookie => return,
            Some(slot) if !slot.sent && slot.piece.ask.kind() == Kind::Write => {
                if slot.early.replace(outcome).is_none() {
                    self.early += 1; // its payload is still being looked at
                }
                return;
            }
            _ => {}
        }
        let Some(slot) = place.take() else { return };
        self.free_slots.push(index);
        self.flying -= 1;
        self.progress.back(slot.piece.ask.kind());
        window.back(slot.piece.weight(), slot.out, at);
        let id = slot.call;
        let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut) else { return };
        call.flying -= 1;
        match outcome {
            Outcome::Done => {
                window.answered();
                P::book(call, &slot.piece, slot.note);
            }
            Outcome::Refused(error) => call.fail(error),
            Outcome::PutOff(error) => put_off(call, &slot.piece, error, window, at),
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
    pub fn fail(&mut self, error: &dyn Fn() -> Error, which: &dyn Fn(&Call<P>) -> bool) {
        for id in 0..self.calls.len() {
            let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut) else { continue };
            if which(call) {
                call.fail(error());
                self.hand_over(id);
            }
        }
    }

    /// Fails the calls whose replies have not come for far longer than silence may last, while others came; says of one what
    /// it asked. A reply that overtakes others is within the rules, one that never comes is not.
    pub fn fail_overdue(&mut self, at: Instant) -> Option<Error> {
        let mut first = None;
        for slot in self.slots.iter().flatten() {
            let limit = self.progress.limit_of(slot.piece.ask.kind()).saturating_mul(OVERDUE);
            if at.saturating_duration_since(slot.out) < limit {
                continue;
            }
            let story =
                format!("no answer to the {} has come within {:.1} s", slot.piece, limit.as_secs_f64());
            if let Some(call) = self.calls.get_mut(slot.call).and_then(Option::as_mut) {
                call.fail(Error::new(ErrorKind::TimedOut, story.clone()));
            }
            first.get_or_insert(story);
        }
        first.map(|story| Error::new(ErrorKind::TimedOut, story))
    }

    /// True when it is exactly the pieces of one lent read that are in flight, and there is one; says which.
    pub fn only_piece_of(&mut self, id: usize) -> Option<(u64, Piece<P::Ask>)> {
        if self.flying != 1 {
            return None;
        }
        let slot = self.slot(self.latest)?;
        (slot.call == id && slot.piece.ask.kind() == Kind::Read && slot.fresh)
            .then_some((slot.cookie, slot.piece))
    }

    fn enqueue(&mut self, id: usize) {
        if let Some(call) = self.calls.get_mut(id).and_then(Option::as_mut)
            && !call.queued
            && call.has_unsent()
            && !call.is_full()
            && !call.is_lent_write()
        {
            call.queued = true;
            self.queue.push_back(id);
        }
    }

    fn occupy(
        &mut self,
        call: usize,
        piece: Piece<P::Ask>,
        window: &mut Window,
        at: Instant,
    ) -> Option<&mut Slot<P>> {
        window.out(piece.weight(), at);
        self.progress.out(piece.ask.kind());
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
        self.latest = cookie;
        let place = self.slots.get_mut(index)?;
        Some(place.insert(Slot {
            cookie,
            call,
            piece,
            covered: Coverage::default(),
            note: P::Note::default(),
            fresh: true,
            out: at,
            sent: false,
            early: None,
        }))
    }

    fn forget_slots(&mut self) {
        (self.flying, self.early) = (0, 0);
        self.progress.all_back();
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
        self.finished.push_back(Finished::new(finish, transfer, result));
    }
}

/// The thread that was receiving into it panicked.
fn lost_buffer() -> Error {
    Error::new(ErrorKind::Internal, "the buffer of a transfer was lost")
}

/// Has a piece sent again, in halves if it is long, unless that went on for too long.
fn put_off<P: Protocol>(
    call: &mut Call<P>,
    piece: &Piece<P::Ask>,
    error: Error,
    window: &mut Window,
    at: Instant,
) {
    window.put_off(at);
    let since = *call.put_off.get_or_insert(at);
    if call.fault.is_some() || at.saturating_duration_since(since) >= window.patience() {
        return call.fail(error);
    }
    let longest = if piece.ask.kind().moves_data() { window.longest() } else { piece.len.max(1) };
    let mut end = piece.offset + piece.len;
    while end > piece.offset {
        let start = piece.offset.max(end.saturating_sub(longest));
        call.again.push(Piece { offset: start, len: end - start, ..*piece });
        end = start;
    }
}
