//! One reply, or one chunk of one: received, checked, put where it belongs, entered in the books.
//!
//! Everything that a server says is checked against what it was asked before a byte is moved.

use std::ops::Range;
use std::time::Instant;

use parking_lot::MutexGuard;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::Replies;
use crate::net::nbd::reply;
use crate::net::nbd::reply::ChunkKind;
use crate::net::nbd::reply::Head;
use crate::net::nbd::reply::Parsed;
use crate::net::nbd::reply::Refusal;
use crate::net::nbd::reply::protocol;
use crate::net::nbd::request::Verb;
use crate::net::pipe::calls::Buffer;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::calls::Slot;
use crate::net::pipe::calls::leaves_unstable;
use crate::net::pipe::connection::Connection;
use crate::net::pipe::connection::State;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::inbox::MOST_AHEAD;
use crate::net::pipe::outbox::within;
use crate::transfer::Transfer;

/// Payloads up to this are small: several replies are received at once.
const SMALL: u64 = 32 << 10;
/// Most extents of one reply.
const MOST_EXTENTS: usize = 1 << 20;
/// Most errors of one reply: a server may report several places, but not without end.
const MOST_REFUSALS: u32 = 1024;

/// A lent buffer and the call it is for.
type LentRead<'a> = Option<(usize, &'a mut [u8])>;

/// Where the data of a chunk goes.
struct Place {
    cookie: u64,
    call: usize,
    /// In the buffer of the call.
    part: Range<usize>,
    /// The buffer, if it is not lent.
    own: Option<Transfer>,
}

impl Connection {
    /// Receives one reply or chunk. The lock is open meanwhile.
    pub(in crate::net) fn receive(
        &self,
        st: &mut MutexGuard<'_, State>,
        inbox: &mut Inbox,
        mut lent: LentRead<'_>,
    ) -> Result<()> {
        let flying = st.window.flying() / (st.books.flying as u64).max(1);
        inbox.greedy = flying <= SMALL;
        if inbox.staged().is_empty()
            && let Some((id, buf)) = &mut lent
            && let Some((cookie, piece, start)) = st.foreseen(*id)
            && let Some(ahead) = within(&piece, start).ok().and_then(|part| buf.get_mut(part))
        {
            let head = reply::head_of_read(inbox.replies);
            let filled = MutexGuard::unlocked(st, || receive_foreseen(inbox, head, cookie, &piece, ahead))?;
            if filled {
                inbox.reply_ended();
                return self.data_came(st, cookie, 0..piece.len);
            }
        }
        let head = MutexGuard::unlocked(st, || next_head(inbox))?;
        match head {
            Head::Simple { cookie, errno } => self.simple(st, inbox, lent, cookie, errno)?,
            Head::Chunk { done: false, kind: ChunkKind::None, .. } => {
                return Err(protocol("a chunk that brings nothing and ends nothing"));
            }
            Head::Chunk { cookie, done, kind, length } => {
                let chunk = self.chunk(st, inbox, lent, cookie, kind, length);
                chunk.context(|| format!("{kind:?} chunk of {length} bytes"))?;
                if !done {
                    return Ok(());
                }
                self.done(st, cookie)?;
            }
        }
        inbox.reply_ended();
        Ok(())
    }

    fn simple(
        &self,
        st: &mut MutexGuard<'_, State>,
        inbox: &mut Inbox,
        lent: LentRead<'_>,
        cookie: u64,
        errno: u32,
    ) -> Result<()> {
        let piece = st.asked(cookie)?.piece;
        if errno != 0 {
            let refusal = Refusal { errno, text: String::new() };
            return self.settle(st, cookie, Err(refusal.error().context(about(&piece))));
        }
        match piece.verb {
            Verb::Read if inbox.replies == Replies::Simple => {
                self.data(st, inbox, lent, cookie, 0..piece.len)?;
                self.done(st, cookie)
            }
            Verb::Read | Verb::Status => Err(protocol(format!("a bare reply to the {}", about(&piece)))),
            _ => self.settle(st, cookie, Ok(())),
        }
    }

    fn chunk(
        &self,
        st: &mut MutexGuard<'_, State>,
        inbox: &mut Inbox,
        lent: LentRead<'_>,
        cookie: u64,
        kind: ChunkKind,
        length: u64,
    ) -> Result<()> {
        let piece = st.asked(cookie)?.piece;
        match kind {
            ChunkKind::None => Ok(()),
            ChunkKind::Data => {
                let offset = MutexGuard::unlocked(st, || take_u64(inbox))?;
                let part = part_of(&piece, offset, length - reply::DATA_OFFSET)?;
                self.data(st, inbox, lent, cookie, part)
            }
            ChunkKind::Hole => {
                let (offset, len) = MutexGuard::unlocked(st, || Ok((take_u64(inbox)?, take_u32(inbox)?)))?;
                let part = part_of(&piece, offset, u64::from(len))?;
                self.hole(st, lent, cookie, part)
            }
            ChunkKind::Status | ChunkKind::StatusExtended if piece.verb == Verb::Status => {
                let extents = MutexGuard::unlocked(st, || take_extents(inbox, kind, length, &piece))?;
                let slot = st.asked(cookie)?;
                if !slot.extents.is_empty() {
                    return Err(protocol("the extents of a range came twice"));
                }
                slot.extents = extents;
                Ok(())
            }
            ChunkKind::Status | ChunkKind::StatusExtended => Err(unasked(&piece)),
            ChunkKind::Error | ChunkKind::ErrorAt | ChunkKind::ErrorOther => {
                let refusal = MutexGuard::unlocked(st, || take_refusal(inbox, kind, length))?;
                let slot = st.asked(cookie)?;
                slot.refusal.get_or_insert(refusal);
                slot.refusals += 1;
                if slot.refusals > MOST_REFUSALS {
                    return Err(protocol(format!(
                        "more than {MOST_REFUSALS} errors for the {}",
                        about(&piece)
                    )));
                }
                Ok(())
            }
        }
    }

    /// Receives data straight to where it belongs.
    fn data(
        &self,
        st: &mut MutexGuard<'_, State>,
        inbox: &mut Inbox,
        lent: LentRead<'_>,
        cookie: u64,
        part: Range<u64>,
    ) -> Result<()> {
        let mut place = st.place(cookie, part)?;
        let came = MutexGuard::unlocked(st, || inbox.payload(place.bytes(lent)?));
        st.put_back(place);
        came
    }

    fn hole(
        &self,
        st: &mut MutexGuard<'_, State>,
        lent: LentRead<'_>,
        cookie: u64,
        part: Range<u64>,
    ) -> Result<()> {
        let mut place = st.place(cookie, part)?;
        let filled = MutexGuard::unlocked(st, || place.bytes(lent).map(|bytes| bytes.fill(0)));
        st.put_back(place);
        filled
    }

    /// The foreseen data of a read is where it belongs.
    fn data_came(&self, st: &mut MutexGuard<'_, State>, cookie: u64, part: Range<u64>) -> Result<()> {
        let slot = st.asked(cookie)?;
        slot.covered.add(part).map_err(|why| protocol(format!("bytes of a read {why}")))?;
        self.done(st, cookie)
    }

    /// The last chunk came.
    fn done(&self, st: &mut MutexGuard<'_, State>, cookie: u64) -> Result<()> {
        let slot = st.asked(cookie)?;
        let piece = slot.piece;
        let result = match slot.refusal.take() {
            Some(refusal) => Err(refusal.error().context(about(&piece))),
            None if piece.verb == Verb::Read && !slot.covered.is_whole(piece.len) => {
                return Err(protocol(format!("the {} ended before all of it came", about(&piece))));
            }
            None if piece.verb == Verb::Status && slot.extents.is_empty() => {
                return Err(protocol(format!("the {} got no answer", about(&piece))));
            }
            None => Ok(()),
        };
        self.settle(st, cookie, result)
    }

    fn settle(&self, st: &mut MutexGuard<'_, State>, cookie: u64, result: Result<()>) -> Result<()> {
        let piece = st.asked(cookie)?.piece;
        if result.is_ok() && leaves_unstable(&piece) {
            self.shared.durability.acknowledged();
        }
        let State { books, window, .. } = &mut **st;
        books.settle(cookie, result, window, Instant::now());
        st.outage = None;
        self.changed.notify_all();
        Ok(())
    }
}

impl State {
    /// The request that a reply is for.
    fn asked(&mut self, cookie: u64) -> Result<&mut Slot> {
        self.books.slot(cookie).ok_or_else(|| unknown(cookie))
    }

    /// The reply that must come next, if it is the data of a lent read that is short enough.
    fn foreseen(&mut self, id: usize) -> Option<(u64, Piece, u64)> {
        let (cookie, piece) = self.books.only_piece_of(id)?;
        let start = self.books.call(id)?.plan.start;
        (piece.len <= MOST_AHEAD as u64).then_some((cookie, piece, start))
    }

    /// Notes that a part of a piece comes, and finds its place.
    fn place(&mut self, cookie: u64, part: Range<u64>) -> Result<Place> {
        let (slot, call) = self.books.slot_and_call(cookie).ok_or_else(|| unknown(cookie))?;
        if slot.piece.verb != Verb::Read {
            return Err(unasked(&slot.piece));
        }
        let added = slot.covered.add(part.clone());
        added.map_err(|why| protocol(format!("bytes {part:?} of the {} {why}", about(&slot.piece))))?;
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

    /// A whole reply was received that nobody looked at.
    pub(in crate::net) fn has_whole_reply(&mut self, inbox: &Inbox) -> bool {
        let Ok(Parsed::Head(head, used)) = reply::parse(inbox.replies, inbox.staged()) else { return false };
        let length = match head {
            Head::Simple { cookie, errno: 0 } => {
                self.books.slot(cookie).map_or(0, |slot| match slot.piece.verb {
                    Verb::Read => slot.piece.len,
                    _ => 0,
                })
            }
            Head::Simple { .. } => 0,
            Head::Chunk { length, .. } => length,
        };
        (inbox.staged().len() - used) as u64 >= length
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

/// Receives the reply that is expected. `false`: it was another one, or not all of it; it is staged.
fn receive_foreseen(
    inbox: &mut Inbox,
    head: usize,
    cookie: u64,
    piece: &Piece,
    ahead: &mut [u8],
) -> Result<bool> {
    let filled = inbox.receive_ahead(head, ahead)?;
    let (came, missing) = ahead.split_at_mut(filled);
    if !is_whole_read(inbox, head, cookie, piece)? {
        inbox.put_back(head, came)?;
        return Ok(false);
    }
    inbox.consume(head);
    inbox.payload(missing)?;
    Ok(true)
}

/// The staged bytes begin with the head of a reply that brings all of a read and nothing else.
fn is_whole_read(inbox: &Inbox, head: usize, cookie: u64, piece: &Piece) -> Result<bool> {
    let Some(staged) = inbox.staged().get(..head) else { return Ok(false) };
    let Parsed::Head(parsed, used) = reply::parse(inbox.replies, staged)? else { return Ok(false) };
    Ok(match parsed {
        Head::Simple { cookie: of, errno } => inbox.replies == Replies::Simple && of == cookie && errno == 0,
        Head::Chunk { cookie: of, done, kind, length } => {
            of == cookie
                && done
                && kind == ChunkKind::Data
                && length == reply::DATA_OFFSET + piece.len
                && reply::u64_at(staged, used) == Some(piece.offset)
        }
    })
}

fn next_head(inbox: &mut Inbox) -> Result<Head> {
    loop {
        match reply::parse(inbox.replies, inbox.staged())? {
            Parsed::Need(count) => inbox.stage(count)?,
            Parsed::Head(head, used) => {
                inbox.consume(used);
                return Ok(head);
            }
        }
    }
}

fn take_u32(inbox: &mut Inbox) -> Result<u32> {
    inbox.stage(4)?;
    let value = reply::u32_at(inbox.staged(), 0);
    inbox.consume(4);
    value.ok_or_else(|| Error::new(ErrorKind::Internal, "4 bytes were not staged"))
}

fn take_u64(inbox: &mut Inbox) -> Result<u64> {
    inbox.stage(8)?;
    let value = reply::u64_at(inbox.staged(), 0);
    inbox.consume(8);
    value.ok_or_else(|| Error::new(ErrorKind::Internal, "8 bytes were not staged"))
}

/// The payload of an error chunk, whose length was checked with its head.
fn take_refusal(inbox: &mut Inbox, kind: ChunkKind, length: u64) -> Result<Refusal> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    inbox.stage(length)?;
    let refusal = Refusal::parse(kind, inbox.staged().get(..length).unwrap_or_default());
    inbox.consume(length);
    refusal
}

/// The extents of a block status, neighbours that are alike joined.
fn take_extents(inbox: &mut Inbox, kind: ChunkKind, length: u64, piece: &Piece) -> Result<Vec<(u64, u64)>> {
    let wide = kind == ChunkKind::StatusExtended;
    if wide != (inbox.replies == Replies::Extended) {
        return Err(protocol("extents in the width that was not agreed on"));
    }
    let context = take_u32(inbox)?;
    if Some(context) != inbox.allocation {
        return Err(protocol(format!("extents of context {context}, which was not asked for")));
    }
    let (before, each) = if wide { (8, 16) } else { (4, 8) };
    let count = (length - before) / each;
    if wide && u64::from(take_u32(inbox)?) != count {
        return Err(protocol("the number of extents does not fit the chunk"));
    }
    let mut extents: Vec<(u64, u64)> = Vec::new();
    let mut total = 0_u64;
    for _ in 0..count {
        inbox.stage(if wide { 16 } else { 8 })?;
        let (len, flags) = reply::extent(inbox.staged(), wide).unwrap_or_default();
        inbox.consume(if wide { 16 } else { 8 });
        if len == 0 || total >= piece.len || extents.len() >= MOST_EXTENTS {
            return Err(protocol(format!(
                "{count} extents, one of {len} bytes at {total} of the {}",
                about(piece)
            )));
        }
        total = total.saturating_add(len);
        match extents.last_mut() {
            Some(last) if last.1 == flags => last.0 = last.0.saturating_add(len),
            _ => extents.push((len, flags)),
        }
    }
    Ok(extents)
}

/// The part of a piece that a chunk is for.
fn part_of(piece: &Piece, offset: u64, len: u64) -> Result<Range<u64>> {
    let at = offset.checked_sub(piece.offset);
    let part =
        at.and_then(|at| Some(at..at.checked_add(len)?)).filter(|part| part.end <= piece.len && len > 0);
    part.ok_or_else(|| protocol(format!("{len} bytes at {offset:#x} in the reply to the {}", about(piece))))
}

fn about(piece: &Piece) -> String {
    let verb = match piece.verb {
        Verb::Read => "read",
        Verb::Write => "write",
        Verb::Leave => "farewell",
        Verb::Flush => return String::from("flush"),
        Verb::Trim => "trim",
        Verb::Zero => "zeroing",
        Verb::Status => "block status",
    };
    format!("{verb} of {} bytes at {:#x}", piece.len, piece.offset)
}

fn unknown(cookie: u64) -> Error {
    protocol(format!("a reply to request {cookie:#x}, which was not made"))
}

fn unasked(piece: &Piece) -> Error {
    protocol(format!("a chunk that is no answer to the {}", about(piece)))
}
