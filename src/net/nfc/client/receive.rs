//! One frame: received, checked, put where it belongs, entered in the books.
//!
//! Everything that a host says is checked against what it was asked before a byte is moved. A refusal ends its operation
//! at once; the answer that follows it is swallowed whenever it comes, or not missed.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::Compression;
use crate::net::nfc::aio::HEADER;
use crate::net::nfc::aio::Header;
use crate::net::nfc::aio::Kind as Frame;
use crate::net::nfc::blocks;
use crate::net::nfc::blocks::Query;
use crate::net::nfc::broken;
use crate::net::nfc::client::protocol::Agreed;
use crate::net::nfc::client::protocol::Nfc;
use crate::net::nfc::client::protocol::Order;
use crate::net::nfc::client::protocol::bare_refusal;
use crate::net::nfc::client::protocol::bitmap_behind;
use crate::net::nfc::client::protocol::data_behind;
use crate::net::nfc::client::protocol::op_of;
use crate::net::nfc::client::protocol::read_request;
use crate::net::nfc::ddb;
use crate::net::nfc::io;
use crate::net::nfc::io::Fragments;
use crate::net::nfc::io::Io;
use crate::net::nfc::open;
use crate::net::nfc::pack::Unpacker;
use crate::net::nfc::refusal;
use crate::net::nfc::refusal::Heard;
use crate::net::nfc::refusal::Refusal;
use crate::net::pipe::calls::Outcome;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::reception::Reception;

/// Refused operations whose answers are remembered to be coming.
const MOST_REFUSED: usize = 256;
/// Bytes that are dropped at once.
const DROPPED: usize = 16 << 10;

/// What is known about what comes.
#[derive(Debug, Default)]
pub struct Arriving {
    unpacker: Unpacker,
    packed: Vec<u8>,
    /// Operations that were refused, the latest last.
    refused: VecDeque<u32>,
    /// The last frame was a refusal of a layout that is not known, behind which anything may come.
    odd: bool,
}

impl Arriving {
    /// Operations whose answers may still come.
    fn refuse(&mut self, op: u32) {
        if self.refused.len() >= MOST_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back(op);
    }

    /// Receives packed data and unpacks them.
    fn unpack(inbox: &mut Inbox<Nfc>, fragment: &Io, into: &mut [u8]) -> Result<()> {
        let length = fragment.wire as usize; // bounded when the fragment was checked
        let mut packed = std::mem::take(&mut inbox.unpacker.packed);
        if packed.len() < length {
            packed.resize(length, 0);
        }
        let data = packed.get_mut(..length).unwrap_or_default();
        let done = inbox
            .payload(data)
            .and_then(|()| inbox.unpacker.unpacker.unpack(fragment.compression, data, into));
        inbox.unpacker.packed = packed;
        done
    }
}

/// Receives one frame.
pub fn receive(rx: &mut Reception<'_, '_, Nfc>) -> Result<()> {
    if rx.inbox().agreed.compression == Compression::None && rx.foreseen(io::HEAD, is_whole_read)? {
        return Ok(());
    }
    let header = rx.unlocked(next_header)?;
    let op = header.op;
    if header.kind == Frame::Refusal {
        return refused(rx, header).context(|| format!("refusal of operation {op}"));
    }
    let Some(cookie) = rx.books().cookie_of(op) else {
        return swallow(rx, header).context(|| format!("{:?} of operation {op}", header.kind));
    };
    let piece = rx.asked(cookie)?.piece;
    let answered = match (header.kind, piece.ask) {
        (Frame::Io, Order::Read) => fragment(rx, cookie, &piece),
        (Frame::Io, Order::Write) => acknowledged(rx, cookie),
        (Frame::Blocks, Order::Blocks) => map(rx, cookie, &piece),
        (Frame::DdbGet, Order::Key) => value(rx, cookie),
        (Frame::Other(_), _) => return Err(unknown_message(header)),
        (other, _) => Err(broken(format!("{other:?}, which is no answer"))),
    };
    answered.context(|| format!("answer to the {piece}"))
}

/// The bytes begin with the head of the only fragment of a read, which brings all of it.
fn is_whole_read(agreed: &Agreed, cookie: u64, piece: &Piece<Order>, staged: &[u8]) -> Result<bool> {
    let Some((head, payload)) = staged.split_at_checked(HEADER) else { return Ok(false) };
    let (Ok(header), Ok(io)) = (Header::parse(head), Io::parse(payload)) else { return Ok(false) };
    let request = read_request(agreed, piece);
    let whole = request.fragment(0, request.total);
    let fits = request.total <= agreed.session.buffer;
    Ok(fits && header.kind == Frame::Io && header.op == op_of(cookie) && io == whole)
}

fn next_header(inbox: &mut Inbox<Nfc>) -> Result<Header> {
    inbox.stage_some(HEADER, io::HEAD)?;
    let header = Header::parse(inbox.staged().get(..HEADER).unwrap_or_default());
    if std::mem::take(&mut inbox.unpacker.odd) && header.is_err() {
        let what = "a refusal in a layout that is not known, behind which nothing could be made out";
        return Err(Error::new(ErrorKind::ConnectionLost, what));
    }
    let header = header?;
    inbox.consume(HEADER);
    Ok(header)
}

/// Receives the next bytes, which are few, and works on them.
fn take<T>(inbox: &mut Inbox<Nfc>, count: usize, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    inbox.stage(count)?;
    let taken = read(inbox.staged().get(..count).unwrap_or_default());
    inbox.consume(count);
    taken
}

/// A part of a read, or the news that there will be none.
fn fragment(rx: &mut Reception<'_, '_, Nfc>, cookie: u64, piece: &Piece<Order>) -> Result<()> {
    let io = rx.unlocked(|inbox| take(inbox, io::PAYLOAD, Io::parse))?;
    if io.handle != 0 {
        return refuse(rx, cookie, &bare_refusal(io.handle));
    }
    let (request, buffer) = {
        let agreed = &rx.inbox().agreed;
        (read_request(agreed, piece), agreed.session.buffer)
    };
    let place = Fragments::of_read(&request, buffer).check(&io)?;
    let part = u64::from(place.start)..u64::from(place.end);
    match io.compression {
        Compression::None => rx.fill(cookie, part, |inbox, bytes| inbox.payload(bytes))?,
        _ => rx.fill(cookie, part, |inbox, bytes| Arriving::unpack(inbox, &io, bytes))?,
    }
    if rx.asked(cookie)?.covered.is_whole(piece.len) {
        rx.settle(cookie, Outcome::Done)?;
        rx.reply_ended();
    } else if io.length >= buffer {
        rx.reply_ended(); // it moves; a host that sends only crumbs gets no more time for them
    }
    Ok(())
}

/// A write was done, or not.
fn acknowledged(rx: &mut Reception<'_, '_, Nfc>, cookie: u64) -> Result<()> {
    let io = rx.unlocked(|inbox| take(inbox, io::PAYLOAD, Io::parse))?;
    // Direction and length of these answers are not known to be what is asked for; the status is.
    match io.handle {
        0 => rx.settle(cookie, Outcome::Done)?,
        status => refuse(rx, cookie, &bare_refusal(status))?,
    }
    rx.reply_ended();
    Ok(())
}

/// A bitmap.
fn map(rx: &mut Reception<'_, '_, Nfc>, cookie: u64, piece: &Piece<Order>) -> Result<()> {
    let chunk = rx.inbox().agreed.chunk;
    let asked = piece.len / chunk;
    let (status, length) = rx.unlocked(|inbox| {
        take(inbox, blocks::PAYLOAD, |payload| {
            let (status, length) = (open::status(payload), bitmap_behind(payload)?);
            let chunks = Query::parse(payload)?.chunks;
            if status == 0 && chunks != asked {
                return Err(broken(format!("a map of {chunks} chunks, expected {asked}")));
            }
            Ok((status, length))
        })
    })?;
    if status != 0 {
        return refuse(rx, cookie, &bare_refusal(status));
    }
    let mut runs = Vec::new();
    rx.unlocked(|inbox| {
        take(inbox, length, |bitmap| {
            let at = |chunks: u64| piece.offset + chunks * chunk;
            blocks::runs(bitmap, asked, |run| runs.push((at(run.start), at(run.end))));
            Ok(())
        })
    })?;
    rx.asked(cookie)?.note.runs = runs;
    rx.settle(cookie, Outcome::Done)?;
    rx.reply_ended();
    Ok(())
}

/// A value of the disk's data base.
fn value(rx: &mut Reception<'_, '_, Nfc>, cookie: u64) -> Result<()> {
    let value = rx.unlocked(|inbox| {
        let length = take(inbox, 16, ddb::value_length)? as usize;
        take(inbox, length, ddb::value)
    })?;
    rx.asked(cookie)?.note.value = value;
    rx.settle(cookie, Outcome::Done)?;
    rx.reply_ended();
    Ok(())
}

/// A frame that says no. What was asked for ends by it; an answer may follow.
fn refused(rx: &mut Reception<'_, '_, Nfc>, header: Header) -> Result<()> {
    let refusal = rx.unlocked(|inbox| {
        let size = header.size as usize; // bounded with the header
        let heard = take(inbox, size, Heard::parse)?;
        inbox.unpacker.odd = size != refusal::PAYLOAD;
        take(inbox, heard.follows as usize, |text| Ok(heard.with(text)))
    })?;
    let Some(cookie) = rx.books().cookie_of(header.op) else {
        return Err(broken(format!("nothing of that number was asked for: {}", refusal.error())));
    };
    rx.inbox().unpacker.refuse(header.op);
    refuse(rx, cookie, &refusal)
}

fn refuse(rx: &mut Reception<'_, '_, Nfc>, cookie: u64, refusal: &Refusal) -> Result<()> {
    let piece = rx.asked(cookie)?.piece;
    let error = refusal.error().context(piece.to_string());
    let outcome = if refusal.lacks_memory() {
        tell_of_memory(rx.protocol(), refusal);
        let advice =
            "the host has no memory for more: open fewer disks of it at once, or ask for smaller buffers";
        Outcome::PutOff(error.context(advice))
    } else if piece.ask == Order::Blocks {
        rx.asked(cookie)?.note.refusal = Some(error);
        Outcome::Done
    } else {
        Outcome::Refused(error)
    };
    rx.settle(cookie, outcome)?;
    rx.reply_ended();
    Ok(())
}

/// Programs look for this line. It is said once for a client; a host that is short of memory is so many times.
fn tell_of_memory(nfc: &Nfc, refusal: &Refusal) {
    let line = || {
        let Refusal { code, text } = refusal;
        format!("[NFC ERROR] NfcFssrvrProcessErrorMsg: received NFC error {code} from server: {text}")
    };
    match nfc.short_of_memory.swap(true, Ordering::Relaxed) {
        false => nfc.log.warning(line),
        true => nfc.log.debug(line),
    }
}

/// Operations that were refused and whose answers may come: on this connection, or while its disk was opened.
pub fn refused_ops(inbox: &Inbox<Nfc>) -> impl Iterator<Item = u32> {
    inbox.agreed.session.refused.iter().chain(&inbox.unpacker.refused).copied()
}

/// A frame of an operation that is not waited for: the answer to one that was refused.
fn swallow(rx: &mut Reception<'_, '_, Nfc>, header: Header) -> Result<()> {
    if let Frame::Other(_) = header.kind {
        return Err(unknown_message(header));
    }
    if !refused_ops(rx.inbox()).any(|op| op == header.op) {
        return Err(broken("nothing of that number was asked for"));
    }
    let (more, last) = rx.unlocked(|inbox| {
        take(inbox, header.size as usize, |payload| {
            Ok(match header.kind {
                // Fragments may have been under way when the refusal overtook them.
                Frame::Io => Io::parse(payload).map(|io| (data_behind(&io) as usize, io.handle != 0))?,
                Frame::Blocks => (bitmap_behind(payload)?, true),
                Frame::DdbGet => (ddb::value_length(payload)? as usize, true),
                _ => (0, true),
            })
        })
    })?;
    if more > (rx.inbox().agreed.session.buffer + io::MOST_GROWTH) as usize {
        return Err(broken(format!("{more} bytes of data")));
    }
    rx.unlocked(|inbox| drop_bytes(inbox, more))?;
    if last {
        let inbox = rx.inbox();
        inbox.unpacker.refused.retain(|op| *op != header.op);
        inbox.agreed.session.refused.retain(|op| *op != header.op);
    }
    rx.reply_ended();
    Ok(())
}

fn drop_bytes(inbox: &mut Inbox<Nfc>, mut count: usize) -> Result<()> {
    while count > 0 {
        let step = count.min(DROPPED);
        take(inbox, step, |_| Ok(()))?;
        count -= step;
    }
    Ok(())
}

/// Hosts are known to have messages that nobody described: about going over to another host, for one. Another connection
/// may be what they mean.
fn unknown_message(header: Header) -> Error {
    let what = format!("a message of the unknown kind {:?} with {} bytes", header.kind, header.size);
    Error::new(ErrorKind::ConnectionLost, what)
}
