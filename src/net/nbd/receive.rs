//! One reply, or one chunk of one: received, checked, put where it belongs, entered in the books.
//!
//! Everything that a server says is checked against what it was asked before a byte is moved.

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::Replies;
use crate::net::nbd::protocol::Agreed;
use crate::net::nbd::protocol::Nbd;
use crate::net::nbd::protocol::Order;
use crate::net::nbd::reply;
use crate::net::nbd::reply::ChunkKind;
use crate::net::nbd::reply::Head;
use crate::net::nbd::reply::Parsed;
use crate::net::nbd::reply::Refusal;
use crate::net::nbd::request::Verb;
use crate::net::pipe::calls::Outcome;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::protocol;
use crate::net::pipe::reception::Reception;
use crate::net::pipe::reception::part_of;

/// Most extents of one reply.
const MOST_EXTENTS: usize = 1 << 20;
/// Most errors of one reply: a server may report several places, but not without end.
const MOST_REFUSALS: u32 = 1024;

/// Receives one reply or chunk.
pub fn receive(rx: &mut Reception<'_, '_, Nbd>) -> Result<()> {
    let head = reply::head_of_read(rx.inbox().agreed.replies);
    if rx.foreseen(head, is_whole_read)? {
        return Ok(());
    }
    match rx.unlocked(next_head)? {
        Head::Simple { cookie, errno } => simple(rx, cookie, errno)?,
        Head::Chunk { done: false, kind: ChunkKind::None, .. } => {
            return Err(protocol("a chunk that brings nothing and ends nothing"));
        }
        Head::Chunk { cookie, done: last, kind, length } => {
            chunk(rx, cookie, kind, length).context(|| format!("{kind:?} chunk of {length} bytes"))?;
            if !last {
                return Ok(());
            }
            done(rx, cookie)?;
        }
    }
    rx.reply_ended();
    Ok(())
}

fn simple(rx: &mut Reception<'_, '_, Nbd>, cookie: u64, errno: u32) -> Result<()> {
    let piece = rx.asked(cookie)?.piece;
    if errno != 0 {
        let refusal = Refusal { errno, text: String::new() };
        return refused(rx, cookie, &refusal);
    }
    match piece.ask.verb {
        Verb::Read if rx.inbox().agreed.replies == Replies::Simple => {
            rx.fill(cookie, 0..piece.len, |inbox, bytes| inbox.payload(bytes))?;
            done(rx, cookie)
        }
        Verb::Read | Verb::Status => Err(protocol(format!("a bare reply to the {piece}"))),
        _ => rx.settle(cookie, Outcome::Done),
    }
}

fn chunk(rx: &mut Reception<'_, '_, Nbd>, cookie: u64, kind: ChunkKind, length: u64) -> Result<()> {
    let piece = rx.asked(cookie)?.piece;
    match kind {
        ChunkKind::None => Ok(()),
        ChunkKind::Data => {
            let offset = rx.unlocked(take_u64)?;
            let part = part_of(&piece, offset, length - reply::DATA_OFFSET)?;
            rx.fill(cookie, part, |inbox, bytes| inbox.payload(bytes))
        }
        ChunkKind::Hole => {
            let (offset, len) = rx.unlocked(|inbox| Ok((take_u64(inbox)?, take_u32(inbox)?)))?;
            let part = part_of(&piece, offset, u64::from(len))?;
            rx.fill(cookie, part, |_, bytes| {
                bytes.fill(0);
                Ok(())
            })
        }
        ChunkKind::Status | ChunkKind::StatusExtended if piece.ask.verb == Verb::Status => {
            let extents = rx.unlocked(|inbox| take_extents(inbox, kind, length, &piece))?;
            let note = &mut rx.asked(cookie)?.note;
            if !note.extents.is_empty() {
                return Err(protocol("the extents of a range came twice"));
            }
            note.extents = extents;
            Ok(())
        }
        ChunkKind::Status | ChunkKind::StatusExtended => Err(unasked(&piece)),
        ChunkKind::Error | ChunkKind::ErrorAt | ChunkKind::ErrorOther => {
            let refusal = rx.unlocked(|inbox| take_refusal(inbox, kind, length))?;
            let note = &mut rx.asked(cookie)?.note;
            note.refusal.get_or_insert(refusal);
            note.refusals += 1;
            if note.refusals > MOST_REFUSALS {
                return Err(protocol(format!("more than {MOST_REFUSALS} errors for the {piece}")));
            }
            Ok(())
        }
    }
}

/// The request was refused. A server that shuts down says so to every request: the connection is as good as lost, and what
/// is asked for may be had on the next one.
fn refused(rx: &mut Reception<'_, '_, Nbd>, cookie: u64, refusal: &Refusal) -> Result<()> {
    let error = refusal.error().context(rx.asked(cookie)?.piece.to_string());
    if refusal.errno == reply::ESHUTDOWN {
        return Err(error);
    }
    rx.settle(cookie, Outcome::Refused(error))
}

/// The last chunk came.
fn done(rx: &mut Reception<'_, '_, Nbd>, cookie: u64) -> Result<()> {
    let slot = rx.asked(cookie)?;
    let piece = slot.piece;
    let outcome = match slot.note.refusal.take() {
        Some(refusal) => return refused(rx, cookie, &refusal),
        None if piece.ask.verb == Verb::Read && !slot.covered.is_whole(piece.len) => {
            return Err(protocol(format!("the {piece} ended before all of it came")));
        }
        None if piece.ask.verb == Verb::Status && slot.note.extents.is_empty() => {
            return Err(protocol(format!("the {piece} got no answer")));
        }
        None => Outcome::Done,
    };
    rx.settle(cookie, outcome)
}

/// The bytes begin with the head of a reply that brings all of a read and nothing else.
fn is_whole_read(agreed: &Agreed, cookie: u64, piece: &Piece<Order>, staged: &[u8]) -> Result<bool> {
    let Parsed::Head(parsed, used) = reply::parse(agreed.replies, staged)? else { return Ok(false) };
    Ok(match parsed {
        Head::Simple { cookie: of, errno } => agreed.replies == Replies::Simple && of == cookie && errno == 0,
        Head::Chunk { cookie: of, done, kind, length } => {
            of == cookie
                && done
                && kind == ChunkKind::Data
                && length == reply::DATA_OFFSET + piece.len
                && reply::u64_at(staged, used) == Some(piece.offset)
        }
    })
}

fn next_head(inbox: &mut Inbox<Nbd>) -> Result<Head> {
    loop {
        match reply::parse(inbox.agreed.replies, inbox.staged())? {
            Parsed::Need(count) => inbox.stage(count)?,
            Parsed::Head(head, used) => {
                inbox.consume(used);
                return Ok(head);
            }
        }
    }
}

fn take_u32(inbox: &mut Inbox<Nbd>) -> Result<u32> {
    inbox.stage(4)?;
    let value = reply::u32_at(inbox.staged(), 0);
    inbox.consume(4);
    value.ok_or_else(|| Error::new(ErrorKind::Internal, "4 bytes were not staged"))
}

fn take_u64(inbox: &mut Inbox<Nbd>) -> Result<u64> {
    inbox.stage(8)?;
    let value = reply::u64_at(inbox.staged(), 0);
    inbox.consume(8);
    value.ok_or_else(|| Error::new(ErrorKind::Internal, "8 bytes were not staged"))
}

/// The payload of an error chunk, whose length was checked with its head.
fn take_refusal(inbox: &mut Inbox<Nbd>, kind: ChunkKind, length: u64) -> Result<Refusal> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    inbox.stage(length)?;
    let refusal = Refusal::parse(kind, inbox.staged().get(..length).unwrap_or_default());
    inbox.consume(length);
    refusal
}

/// The extents of a block status, neighbours that are alike joined.
fn take_extents(
    inbox: &mut Inbox<Nbd>,
    kind: ChunkKind,
    length: u64,
    piece: &Piece<Order>,
) -> Result<Vec<(u64, u64)>> {
    let wide = kind == ChunkKind::StatusExtended;
    if wide != (inbox.agreed.replies == Replies::Extended) {
        return Err(protocol("extents in the width that was not agreed on"));
    }
    let context = take_u32(inbox)?;
    if Some(context) != inbox.agreed.allocation {
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
            return Err(protocol(format!("{count} extents, one of {len} bytes at {total} of the {}", piece)));
        }
        total = total.saturating_add(len);
        match extents.last_mut() {
            Some(last) if last.1 == flags => last.0 = last.0.saturating_add(len),
            _ => extents.push((len, flags)),
        }
    }
    Ok(extents)
}

fn unasked(piece: &Piece<Order>) -> Error {
    protocol(format!("a chunk that is no answer to the {piece}"))
}
