//! The sending end of a connection. Whoever holds it is the only one who sends.
//!
//! It works on a batch: any number of requests without data, or up to one with data at the end. A batch that the stream
//! does not take at once stays here, and whoever holds the outbox next goes on with it.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::request::Request;
use crate::net::nbd::request::Verb;
use crate::net::pipe::books::Books;
use crate::net::pipe::calls::Buffer;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::window::Window;
use crate::net::stream::Patience;
use crate::net::stream::Stream;
use crate::transfer::Transfer;

/// Most requests of a batch.
const MOST: usize = 64;

/// The data at the end of a batch.
#[derive(Debug)]
enum Body {
    None,
    /// Lent until the end of its transfer.
    Own(&'static [u8]),
    /// A part of what the thread that sends was lent.
    Lent(Range<usize>),
}

/// The sending end.
#[derive(Debug)]
pub struct Outbox {
    stream: Option<Arc<dyn Stream>>,
    extended: bool,
    heads: Vec<u8>,
    body: Body,
    taken: usize,
    /// The requests of the batch.
    pub cookies: Vec<u64>,
}

impl Outbox {
    /// Of a connection that is not up.
    pub fn new() -> Outbox {
        let (heads, cookies) = (Vec::new(), Vec::new());
        Outbox { stream: None, extended: false, heads, body: Body::None, taken: 0, cookies }
    }

    /// The connection is up.
    pub fn connect(&mut self, stream: Arc<dyn Stream>, extended: bool) {
        self.disconnect();
        self.stream = Some(stream);
        self.extended = extended;
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        self.stream = None;
        self.clear();
    }

    /// The batch is done with.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.cookies.clear();
        self.body = Body::None;
        self.taken = 0;
    }

    /// There is no batch.
    pub fn is_idle(&self) -> bool {
        self.heads.is_empty()
    }

    /// Makes a batch of what anybody may send.
    pub fn gather(&mut self, books: &mut Books, window: &mut Window, at: Instant) -> Result<()> {
        while self.cookies.len() < MOST {
            let Some(slot) = books.next_queued(window, at) else { break };
            let (cookie, piece, call) = (slot.cookie, slot.piece, slot.call);
            self.add(cookie, &piece);
            if piece.verb == Verb::Write {
                self.body = Body::Own(own_data(books, call, &piece)?);
                break;
            }
        }
        Ok(())
    }

    /// Makes a batch of the next piece of a write whose data only this thread has.
    pub fn gather_lent(
        &mut self,
        id: usize,
        books: &mut Books,
        window: &mut Window,
        at: Instant,
    ) -> Result<()> {
        let Some(slot) = books.next_of(id, window, at) else { return Ok(()) };
        let (cookie, piece) = (slot.cookie, slot.piece);
        let start = books.call(id).map_or(piece.offset, |call| call.plan.start);
        self.add(cookie, &piece);
        self.body = Body::Lent(within(&piece, start)?);
        Ok(())
    }

    /// Makes a batch of the request to end the connection.
    pub fn gather_leave(&mut self) {
        let leave = Request { verb: Verb::Leave, flags: 0, cookie: 0, offset: 0, length: 0 };
        leave.encode(self.extended, &mut self.heads);
    }

    /// Bytes of the batch that the stream took.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Sends on. `false`: the stream did not take all of it in time.
    pub fn send(&mut self, lent: &[u8], patience: Patience) -> Result<bool> {
        let Some(stream) = &self.stream else {
            return Err(Error::new(ErrorKind::ConnectionLost, "the connection is gone"));
        };
        let body = match &self.body {
            Body::None => &[],
            Body::Own(data) => *data,
            Body::Lent(part) => lent.get(part.clone()).ok_or_else(|| odd("a write without its data"))?,
        };
        loop {
            let heads = self.heads.get(self.taken..).unwrap_or_default();
            let rest = body.get(self.taken.saturating_sub(self.heads.len())..).unwrap_or_default();
            let sent = match (heads.is_empty(), rest.is_empty()) {
                (true, true) => return stream.push(patience),
                (false, true) => stream.send(&[IoSlice::new(heads)], patience)?,
                (true, false) => stream.send(&[IoSlice::new(rest)], patience)?,
                (false, false) => stream.send(&[IoSlice::new(heads), IoSlice::new(rest)], patience)?,
            };
            match sent {
                Some(sent) if sent > 0 && sent <= heads.len() + rest.len() => self.taken += sent,
                Some(sent) => return Err(odd(&format!("a stream that took {sent} bytes"))),
                None => return Ok(false),
            }
        }
    }

    fn add(&mut self, cookie: u64, piece: &Piece) {
        let Piece { verb, flags, offset, len } = *piece;
        Request { verb, flags, cookie, offset, length: len }.encode(self.extended, &mut self.heads);
        self.cookies.push(cookie);
    }
}

/// The data of a piece of a started write.
fn own_data(books: &mut Books, id: usize, piece: &Piece) -> Result<&'static [u8]> {
    let call = books.call(id).ok_or_else(|| odd("a piece without its call"))?;
    let part = within(piece, call.plan.start)?;
    match &call.buffer {
        Buffer::Own(Transfer::Write(data)) => data.get(part).ok_or_else(|| odd("a write without its data")),
        _ => Err(odd("a write without data")),
    }
}

/// Where a piece lies in the buffer of its call.
pub fn within(piece: &Piece, start: u64) -> Result<Range<usize>> {
    let at = piece.offset.checked_sub(start).and_then(|at| usize::try_from(at).ok());
    let range = at.zip(usize::try_from(piece.len).ok()).map(|(at, len)| at..at + len);
    range.ok_or_else(|| odd("a piece outside its call"))
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("{what} was met when sending"))
}
