//! The NBD protocol as the machinery of pipelined clients knows it.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::Export;
use crate::net::nbd::Replies;
use crate::net::nbd::dial::Dialler;
use crate::net::nbd::receive;
use crate::net::nbd::reply;
use crate::net::nbd::reply::Head;
use crate::net::nbd::reply::Parsed;
use crate::net::nbd::reply::Refusal;
use crate::net::nbd::request::FLAG_DF;
use crate::net::nbd::request::FLAG_FUA;
use crate::net::nbd::request::Request;
use crate::net::nbd::request::Verb;
use crate::net::pipe::Ask;
use crate::net::pipe::Kind;
use crate::net::pipe::Protocol;
use crate::net::pipe::books::Books;
use crate::net::pipe::calls::Call;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::outbox::Batch;
use crate::net::pipe::reception::Reception;
use crate::net::stream::Patience;
use crate::net::stream::Stream;

/// What a request without data counts for in the window.
const LIGHT: u64 = 4096;
/// What a question counts for whose answer may be long.
const ANSWER: u64 = 64 << 10;
/// Reads up to this length are asked for in one piece: looking for holes in them costs a server more than it saves (qemu-nbd
/// takes 7 % longer for 4 KiB). Servers must take the flag for up to 64 KiB.
const SHORT_READ: u64 = 4 << 10;
/// Transmission flag: reads may be asked for in one piece.
const HAS_DF: u16 = 1 << 7;
/// With so many extents a call ends before its range does; the rest is another call's.
const ENOUGH_EXTENTS: usize = 1 << 20;

/// An export of a server.
#[derive(Debug)]
pub struct Nbd {
    /// Makes connections.
    pub dialler: Arc<dyn Dialler>,
    /// What the first one found; later ones must find the same.
    pub export: Export,
}

/// A verb and command flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is asked for.
    pub verb: Verb,
    /// Command flags.
    pub flags: u16,
}

impl Ask for Order {
    fn kind(self) -> Kind {
        match self.verb {
            Verb::Read => Kind::Read,
            Verb::Write => Kind::Write,
            Verb::Flush => Kind::Flush,
            _ => Kind::Other,
        }
    }

    fn weight(self, len: u64) -> u64 {
        match self.verb {
            Verb::Read | Verb::Write => len.max(512),
            Verb::Status => ANSWER,
            _ => LIGHT,
        }
    }

    fn leaves_unstable(self) -> bool {
        matches!(self.verb, Verb::Write | Verb::Zero | Verb::Trim) && self.flags & FLAG_FUA == 0
    }

    fn word(self) -> &'static str {
        match self.verb {
            Verb::Read => "read",
            Verb::Write => "write",
            Verb::Leave => "farewell",
            Verb::Flush => "flush",
            Verb::Trim => "trim",
            Verb::Zero => "zeroing",
            Verb::Status => "block status",
        }
    }
}

/// What replies look like on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// Their style.
    pub replies: Replies,
    /// The id of `base:allocation`.
    pub allocation: Option<u32>,
    /// Reads may be asked for in one piece.
    pub in_one_piece: bool,
}

impl Default for Agreed {
    fn default() -> Agreed {
        Agreed { replies: Replies::Simple, allocation: None, in_one_piece: false }
    }
}

impl Agreed {
    /// What the negotiation of an export ended with.
    pub fn of(export: &Export) -> Agreed {
        let in_one_piece = export.replies != Replies::Simple && export.flags & HAS_DF != 0;
        Agreed { replies: export.replies, allocation: export.allocation, in_one_piece }
    }

    fn flags(self, piece: &Piece<Order>) -> u16 {
        let Order { verb, flags } = piece.ask;
        let short = verb == Verb::Read && piece.len <= SHORT_READ;
        if short && self.in_one_piece { flags | FLAG_DF } else { flags }
    }

    fn is_extended(self) -> bool {
        self.replies == Replies::Extended
    }
}

/// What the chunks of a reply said.
#[derive(Debug, Default)]
pub struct Note {
    /// What the server refused so far.
    pub refusal: Option<Refusal>,
    /// How often it refused.
    pub refusals: u32,
    /// The extents of a block status: bytes and flags.
    pub extents: Vec<(u64, u64)>,
}

impl Protocol for Nbd {
    type Ask = Order;
    type Agreed = Agreed;
    type Note = Note;
    /// Answers to block status: offset, bytes, flags; in the order of arrival.
    type Extra = Vec<(u64, u64, u64)>;
    type Unpacker = ();
    type Packer = ();

    const NAME: &'static str = "NBD";
    const TAIL: usize = reply::MOST_HEAD + 8;

    fn label(&self) -> String {
        self.dialler.label()
    }

    fn dial(&self, until: Instant) -> Result<(Box<dyn Stream>, Agreed)> {
        let (stream, export) = self.dialler.dial(until)?;
        match same(&self.export, &export) {
            Ok(()) => Ok((stream, Agreed::of(&export))),
            Err(error) => {
                stream.shutdown();
                Err(error)
            }
        }
    }

    fn request(agreed: &Agreed, cookie: u64, piece: &Piece<Order>, _extra: &Self::Extra, into: &mut Vec<u8>) {
        encode(agreed, cookie, piece, into);
    }

    fn write(
        agreed: &Agreed,
        _packer: &mut (),
        cookie: u64,
        piece: &Piece<Order>,
        data: &[u8],
        into: &mut Batch,
    ) -> Result<()> {
        encode(agreed, cookie, piece, &mut into.heads);
        into.insert(0..data.len());
        Ok(())
    }

    fn receive(rx: &mut Reception<'_, '_, Nbd>) -> Result<()> {
        receive::receive(rx)
    }

    fn has_whole_reply(agreed: &Agreed, staged: &[u8], books: &mut Books<Nbd>) -> bool {
        let Ok(Parsed::Head(head, used)) = reply::parse(agreed.replies, staged) else { return false };
        let length = match head {
            Head::Simple { cookie, errno: 0 } => {
                books.slot(cookie).map_or(0, |slot| match slot.piece.ask.verb {
                    Verb::Read => slot.piece.len,
                    _ => 0,
                })
            }
            Head::Simple { .. } => 0,
            Head::Chunk { length, .. } => length,
        };
        (staged.len() - used) as u64 >= length
    }

    /// Notes what a block status said, and asks on for what it did not reach.
    fn book(call: &mut Call<Nbd>, piece: &Piece<Order>, note: Note) {
        if piece.ask.verb != Verb::Status {
            return;
        }
        let end = piece.offset + piece.len;
        let mut at = piece.offset;
        for (len, flags) in note.extents {
            let stop = end.min(at.saturating_add(len));
            call.extra.push((at, stop - at, flags));
            at = stop;
        }
        if call.extra.len() >= ENOUGH_EXTENTS {
            call.stop();
        } else if at < end && call.fault.is_none() {
            call.again.push(Piece { offset: at, len: end - at, ..*piece });
        }
    }

    fn farewell(inbox: &Inbox<Nbd>, _next: u32, stream: &dyn Stream, _until: Instant) {
        let leave = Request { verb: Verb::Leave, flags: 0, cookie: 0, offset: 0, length: 0 };
        let mut bytes = Vec::new();
        leave.encode(inbox.agreed.is_extended(), &mut bytes);
        let _ = stream.send(&[IoSlice::new(&bytes)], Patience::None); // there is no reply to wait for
        let _ = stream.push(Patience::None);
    }
}

fn encode(agreed: &Agreed, cookie: u64, piece: &Piece<Order>, into: &mut Vec<u8>) {
    let (verb, flags) = (piece.ask.verb, agreed.flags(piece));
    let request = Request { verb, flags, cookie, offset: piece.offset, length: piece.len };
    request.encode(agreed.is_extended(), into);
}

/// What a later connection finds must be what the first one found.
fn same(ours: &Export, export: &Export) -> Result<()> {
    if (export.size, export.flags, export.blocks) != (ours.size, ours.flags, ours.blocks) {
        let message = format!(
            "the export changed while the connection was lost: {} bytes with flags {:#x} and {:?} before, {} bytes with \
             flags {:#x} and {:?} after",
            ours.size, ours.flags, ours.blocks, export.size, export.flags, export.blocks
        );
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    // What is to be sent again may be longer than 32 bits can say.
    if ours.replies == Replies::Extended && export.replies != Replies::Extended {
        let message = "the server changed while the connection was lost: it had extended headers";
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    Ok(())
}
