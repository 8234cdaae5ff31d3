//! What a protocol receives with: the receiving end, the books behind their lock, and the buffer of the thread that
//! receives.
//!
//! Everything that a server says is checked against what it was asked before a byte is moved.

use std::ops::Range;
use std::time::Duration;
use std::time::Instant;

use parking_lot::MutexGuard;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::pipe::Ask;
use crate::net::pipe::Kind;
use crate::net::pipe::Protocol;
use crate::net::pipe::books::Books;
use crate::net::pipe::calls::Buffer;
use crate::net::pipe::calls::Outcome;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::calls::Slot;
use crate::net::pipe::connection::Connection;
use crate::net::pipe::connection::State;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::inbox::MOST_AHEAD;
use crate::net::pipe::outbox::within;
use crate::net::pipe::protocol;
use crate::transfer::Transfer;

/// Payloads up to this are small: several replies are received at once, and sending requests for them one by one costs more
/// than they do.
pub const SMALL: u64 = 32 << 10;

/// How often it is looked for requests that are overdue.
const LOOKS: Duration = Duration::from_millis(250);

/// A lent buffer and the call it is for.
pub type LentRead<'a> = Option<(usize, &'a mut [u8])>;

/// One turn of receiving.
pub struct Reception<'r, 'g, P: Protocol> {
    connection: &'r Connection<P>,
    st: &'r mut MutexGuard<'g, State<P>>,
    inbox: &'r mut Inbox<P>,
    lent: LentRead<'r>,
}

/// Where received bytes go.
struct Place {
    cookie: u64,
    call: usize,
    /// In the buffer of the call.
    part: Range<usize>,
    /// The buffer, if it is not lent.
    own: Option<Transfer>,
}

impl<P: Protocol> Connection<P> {
    /// Receives one reply or a part of one. The lock is open meanwhile.
    pub(super) fn receive<'g>(
        &self,
        st: &mut MutexGuard<'g, State<P>>,
        inbox: &mut Inbox<P>,
        lent: LentRead<'_>,
    ) -> Result<()> {
        let flying = st.books.flying as u64;
        let small = st.window.flying() / flying.max(1) <= SMALL;
        inbox.expect_small(small, flying == 1);
        P::receive(&mut Reception { connection: self, st, inbox, lent })
    }
}

impl<P: Protocol> Reception<'_, '_, P> {
    /// The receiving end.
    pub fn inbox(&mut self) -> &mut Inbox<P> {
        self.inbox
    }

    /// The books.
    pub fn books(&mut self) -> &mut Books<P> {
        &mut self.st.books
    }

    /// What the connection is for.
    pub fn protocol(&self) -> &P {
        &self.connection.shared.protocol
    }

    /// Works on the receiving end without the lock.
    pub fn unlocked<T>(&mut self, work: impl FnOnce(&mut Inbox<P>) -> T) -> T {
        let inbox = &mut *self.inbox;
        MutexGuard::unlocked(self.st, || work(inbox))
    }

    /// Receives the whole reply to a short read of the thread that receives, if it is all that is in flight: `head` bytes of
    /// which `is_it` says whether they belong to a reply with all the data and nothing else, then the data. `false`: it was
    /// something else, or there is no such read; what came is staged.
    pub fn foreseen(
        &mut self,
        head: usize,
        is_it: impl FnOnce(&P::Agreed, u64, &Piece<P::Ask>, &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        if !self.inbox.staged().is_empty() {
            return Ok(false);
        }
        let Some((id, buf)) = &mut self.lent else { return Ok(false) };
        let Some((cookie, piece, start)) = self.st.foreseen(*id) else { return Ok(false) };
        let Some(ahead) = within(&piece, start).ok().and_then(|part| buf.get_mut(part)) else {
            return Ok(false);
        };
        let inbox = &mut *self.inbox;
        let came = MutexGuard::unlocked(self.st, || {
            let filled = inbox.receive_ahead(head, ahead)?;
            let (came, missing) = ahead.split_at_mut(filled);
            let whole = match inbox.staged().get(..head) {
                Some(bytes) => is_it(&inbox.agreed, cookie, &piece, bytes)?,
                None => false,
            };
            if !whole {
                inbox.put_back(head, came)?;
                return Ok(false);
            }
            inbox.consume(head);
            inbox.payload(missing)?;
            Ok(true)
        })?;
        if !came {
            return Ok(false);
        }
        let slot = self.asked(cookie)?;
        slot.covered.add(0..piece.len).map_err(|why| protocol(format!("bytes of a read {why}")))?;
        self.settle(cookie, Outcome::Done)?;
        self.reply_ended();
        Ok(true)
    }

    /// A reply is complete, the next one has its own time.
    pub fn reply_ended(&mut self) {
        self.inbox.reply_ended();
    }

    /// The request that a reply is for.
    pub fn asked(&mut self, cookie: u64) -> Result<&mut Slot<P>> {
        let slot = self.st.books.slot(cookie).ok_or_else(|| unknown(cookie))?;
        slot.fresh = false;
        Ok(slot)
    }

    /// A part of a read comes: has `fill` put it where it belongs, without the lock.
    pub fn fill(
        &mut self,
        cookie: u64,
        part: Range<u64>,
        fill: impl FnOnce(&mut Inbox<P>, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut place = self.st.place(cookie, part)?;
        let inbox = &mut *self.inbox;
        let lent = self.lent.as_mut().map(|(call, buf)| (*call, &mut **buf));
        let filled = MutexGuard::unlocked(self.st, || fill(inbox, place.bytes(lent)?));
        self.st.put_back(place);
        filled
    }

    /// The last part of a reply came.
    pub fn settle(&mut self, cookie: u64, outcome: Outcome) -> Result<()> {
        let ask = self.asked(cookie)?.piece.ask;
        if matches!(outcome, Outcome::Done) && ask.leaves_unstable() {
            self.connection.shared.durability.acknowledged();
        }
        let State { books, window, .. } = &mut **self.st;
        let now = Instant::now();
        books.settle(cookie, outcome, window, now);
        self.st.outage = None;
        self.st.replied = Some(now);
        self.connection.changed.notify_all();
        self.st.look_for_overdue(now)
    }
}

impl<P: Protocol> State<P> {
    /// From time to time: no request is without its reply for too long. One that is fails, and the connection with it.
    fn look_for_overdue(&mut self, at: Instant) -> Result<()> {
        if at < self.looks_at {
            return Ok(());
        }
        self.looks_at = at + LOOKS;
        self.books.fail_overdue(at).map_or(Ok(()), Err)
    }

    /// The reply that must come next, if it is the data of a lent read that is short enough.
    fn foreseen(&mut self, id: usize) -> Option<(u64, Piece<P::Ask>, u64)> {
        let (cookie, piece) = self.books.only_piece_of(id)?;
        let start = self.books.call(id)?.plan.start;
        (piece.len <= MOST_AHEAD as u64).then_some((cookie, piece, start))
    }

    /// Notes that a part of a piece comes, and finds its place.
    fn place(&mut self, cookie: u64, part: Range<u64>) -> Result<Place> {
        let (slot, call) = self.books.slot_and_call(cookie).ok_or_else(|| unknown(cookie))?;
        slot.fresh = false;
        if slot.piece.ask.kind() != Kind::Read {
            return Err(protocol(format!("data, which is no answer to the {}", slot.piece)));
        }
        let added = slot.covered.add(part.clone());
        added.map_err(|why| protocol(format!("bytes {part:?} of the {} {why}", slot.piece)))?;
        let piece =
            Piece { offset: slot.piece.offset + part.start, len: part.end - part.start, ..slot.piece };
        let part = within(&piece, call.plan.start)?;
        let own = match std::mem::replace(&mut call.buffer, Buffer::Away) {
            Buffer::Own(transfer) => Some(transfer),
            other => {
                call.buffer = other;
                None
            }
        };
        Ok(Place { cookie, call: slot.call, part, own })
    }

    fn put_back(&mut self, place: Place) {
        if let Some(transfer) = place.own
            && let Some((_, call)) = self.books.slot_and_call(place.cookie)
        {
            call.buffer = Buffer::Own(transfer);
        }
    }
}

impl Place {
    fn bytes<'b>(&'b mut self, lent: LentRead<'b>) -> Result<&'b mut [u8]> {
        let whole = match &mut self.own {
            Some(transfer) => transfer.to_fill(),
            None => lent.filter(|(call, _)| *call == self.call).map(|(_, buf)| buf),
        };
        let part = whole.and_then(|buf| buf.get_mut(self.part.clone()));
        part.ok_or_else(|| Error::new(ErrorKind::Internal, "a read has no buffer"))
    }
}

/// The part of a piece that so many bytes at an offset of the whole are for. They have to be some, and all in it.
pub fn part_of<A: Ask>(piece: &Piece<A>, offset: u64, len: u64) -> Result<Range<u64>> {
    let at = offset.checked_sub(piece.offset);
    let part =
        at.and_then(|at| Some(at..at.checked_add(len)?)).filter(|part| part.end <= piece.len && len > 0);
    part.ok_or_else(|| protocol(format!("{len} bytes at {offset:#x} in the reply to the {piece}")))
}

fn unknown(cookie: u64) -> Error {
    protocol(format!("a reply to request {cookie:#x}, which was not made"))
}
