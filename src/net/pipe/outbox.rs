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
use crate::net::pipe::Ask;
use crate::net::pipe::Kind;
use crate::net::pipe::Protocol;
use crate::net::pipe::books::Books;
use crate::net::pipe::calls::Buffer;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::window::Window;
use crate::net::stream::Patience;
use crate::net::stream::Stream;
use crate::transfer::Transfer;

/// Most requests of a batch.
const MOST: usize = 64;

/// Most parts that are handed to a stream at once: the frames of a write with their heads.
const PARTS: usize = 40;

/// What goes over the wire: heads, and between them parts of the data of one write.
#[derive(Debug, Default)]
pub struct Batch {
    /// Heads, and data that was packed.
    pub heads: Vec<u8>,
    /// Where in the heads data is inserted, and which of the data; ascending.
    inserts: Vec<(usize, Range<usize>)>,
}

impl Batch {
    /// A part of the data goes out here.
    pub fn insert(&mut self, data: Range<usize>) {
        self.inserts.push((self.heads.len(), data));
    }

    fn clear(&mut self) {
        self.heads.clear();
        self.inserts.clear();
    }

    /// What is left behind the first `taken` bytes, as far as there is room; says in how many parts and bytes.
    fn rest<'b>(&'b self, data: &'b [u8], taken: usize, into: &mut [IoSlice<'b>; PARTS]) -> (usize, usize) {
        let (mut skip, mut from) = (taken, 0);
        let (mut count, mut bytes) = (0, 0);
        let mut push = |part: &'b [u8]| {
            let left = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            if !left.is_empty()
                && let Some(place) = into.get_mut(count)
            {
                *place = IoSlice::new(left);
                (count, bytes) = (count + 1, bytes + left.len());
            }
        };
        for (at, part) in &self.inserts {
            push(self.heads.get(from..*at).unwrap_or_default());
            push(data.get(part.clone()).unwrap_or_default());
            from = *at;
        }
        push(self.heads.get(from..).unwrap_or_default());
        (count, bytes)
    }
}

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
pub struct Outbox<P: Protocol> {
    stream: Option<Arc<dyn Stream>>,
    agreed: P::Agreed,
    packer: P::Packer,
    batch: Batch,
    body: Body,
    /// The write at the end of the batch, until it is made into bytes: that takes time and no lock.
    unpacked: Option<(u64, Piece<P::Ask>)>,
    taken: usize,
    /// The requests of the batch.
    pub cookies: Vec<u64>,
}

impl<P: Protocol> Outbox<P> {
    /// Of a connection that is not up.
    pub fn new() -> Outbox<P> {
        Outbox {
            stream: None,
            agreed: P::Agreed::default(),
            packer: P::Packer::default(),
            batch: Batch::default(),
            body: Body::None,
            unpacked: None,
            taken: 0,
            cookies: Vec::new(),
        }
    }

    /// The connection is up.
    pub fn connect(&mut self, stream: Arc<dyn Stream>, agreed: P::Agreed) {
        self.disconnect();
        self.stream = Some(stream);
        self.agreed = agreed;
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        self.stream = None;
        self.clear();
    }

    /// The batch is done with.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.cookies.clear();
        self.body = Body::None;
        self.unpacked = None;
        self.taken = 0;
    }

    /// There is no batch.
    pub fn is_idle(&self) -> bool {
        self.cookies.is_empty()
    }

    /// Makes a batch of what anybody may send.
    pub fn gather(&mut self, books: &mut Books<P>, window: &mut Window, at: Instant) -> Result<()> {
        while self.cookies.len() < MOST {
            let Some(slot) = books.next_queued(window, at) else { break };
            let (cookie, piece, id) = (slot.cookie, slot.piece, slot.call);
            self.cookies.push(cookie);
            let call = books.call(id).ok_or_else(|| odd("a piece without its call"))?;
            if piece.ask.kind() == Kind::Write {
                self.body = Body::Own(own_data(&call.buffer, within(&piece, call.plan.start)?)?);
                self.unpacked = Some((cookie, piece));
                break;
            }
            P::request(&self.agreed, cookie, &piece, &call.extra, &mut self.batch.heads);
        }
        Ok(())
    }

    /// Makes a batch of the next piece of a write whose data only this thread has.
    pub fn gather_lent(
        &mut self,
        id: usize,
        books: &mut Books<P>,
        window: &mut Window,
        at: Instant,
    ) -> Result<()> {
        let Some(slot) = books.next_of(id, window, at) else { return Ok(()) };
        let (cookie, piece) = (slot.cookie, slot.piece);
        let start = books.call(id).map_or(piece.offset, |call| call.plan.start);
        self.cookies.push(cookie);
        self.body = Body::Lent(within(&piece, start)?);
        self.unpacked = Some((cookie, piece));
        Ok(())
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
        if let Some((cookie, piece)) = &self.unpacked {
            P::write(&self.agreed, &mut self.packer, *cookie, piece, body, &mut self.batch)?;
            self.unpacked = None;
        }
        loop {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let (count, bytes) = self.batch.rest(body, self.taken, &mut parts);
            let parts = parts.get(..count).unwrap_or_default();
            if parts.is_empty() {
                return stream.push(patience);
            }
            match stream.send(parts, patience)? {
                Some(sent) if sent > 0 && sent <= bytes => self.taken += sent,
                Some(sent) => return Err(odd(&format!("a stream that took {sent} bytes"))),
                None => return Ok(false),
            }
        }
    }
}

/// The data of a piece of a started write.
fn own_data(buffer: &Buffer, part: Range<usize>) -> Result<&'static [u8]> {
    match buffer {
        Buffer::Own(Transfer::Write(data)) => data.get(part).ok_or_else(|| odd("a write without its data")),
        _ => Err(odd("a write without data")),
    }
}

/// Where a piece lies in the buffer of its call.
pub fn within<A: Ask>(piece: &Piece<A>, start: u64) -> Result<Range<usize>> {
    let at = piece.offset.checked_sub(start).and_then(|at| usize::try_from(at).ok());
    let range = at.zip(usize::try_from(piece.len).ok()).map(|(at, len)| at..at + len);
    range.ok_or_else(|| odd("a piece outside its call"))
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("{what} was met when sending"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_on_from_any_byte() {
        let mut batch = Batch::default();
        batch.heads.extend_from_slice(b"ab");
        batch.insert(0..3);
        batch.heads.extend_from_slice(b"c");
        batch.insert(3..5);
        batch.insert(5..5);
        batch.heads.extend_from_slice(b"de");
        let whole = b"ab012c34de";
        for taken in 0..=whole.len() {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let (count, bytes) = batch.rest(b"01234", taken, &mut parts);
            let rest: Vec<u8> = parts[..count].iter().flat_map(|part| part.to_vec()).collect();
            assert_eq!(rest, whole[taken..]);
            assert_eq!(bytes, rest.len());
        }
    }
}
