//! NFC as the machinery of pipelined clients knows it.

use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nfc::Compression;
use crate::net::nfc::aio::HEADER;
use crate::net::nfc::aio::Header;
use crate::net::nfc::aio::Kind as Frame;
use crate::net::nfc::blocks;
use crate::net::nfc::blocks::Query;
use crate::net::nfc::broken;
use crate::net::nfc::client::Opened;
use crate::net::nfc::client::map;
use crate::net::nfc::client::receive;
use crate::net::nfc::client::receive::Arriving;
use crate::net::nfc::client::route::Route;
use crate::net::nfc::client::session;
use crate::net::nfc::client::session::Session;
use crate::net::nfc::ddb;
use crate::net::nfc::identity::Identity;
use crate::net::nfc::io;
use crate::net::nfc::io::Direction;
use crate::net::nfc::io::Io;
use crate::net::nfc::open;
use crate::net::nfc::pack::Packer;
use crate::net::nfc::refusal::Heard;
use crate::net::nfc::refusal::Refusal;
use crate::net::pipe::Ask;
use crate::net::pipe::Kind;
use crate::net::pipe::Protocol;
use crate::net::pipe::books::Books;
use crate::net::pipe::calls::Call;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::mend;
use crate::net::pipe::outbox::Batch;
use crate::net::pipe::reception::Reception;
use crate::net::stream::Stream;

/// What a question counts for in the window.
const QUESTION: u64 = 16 << 10;

/// A disk of a host.
#[derive(Debug)]
pub struct Nfc {
    pub(super) route: Route,
    pub(super) log: Log,
    pub(super) short_of_memory: std::sync::atomic::AtomicBool,
    capacity: u64,
    sector_size: u32,
    identity: Identity,
    chunk: u64,
}

impl Nfc {
    /// A disk that was opened.
    pub fn new(route: Route, opened: &Opened, chunk: u64, log: Log) -> Nfc {
        let short_of_memory = std::sync::atomic::AtomicBool::new(false);
        let Opened { capacity, sector_size, .. } = *opened;
        let identity = Identity::of(&opened.keys, route.wanted.write);
        Nfc { route, log, short_of_memory, capacity, sector_size, identity, chunk }
    }

    /// Why this is not the disk that was opened first, if it is not.
    fn difference(&self, opened: &Opened) -> Option<Error> {
        let (before, after) = ((self.capacity, self.sector_size), (opened.capacity, opened.sector_size));
        if before != after {
            let what = format!(
                "the disk changed while the connection was lost: {} bytes in sectors of {} before, {} in sectors of {} after",
                before.0, before.1, after.0, after.1
            );
            return Some(Error::new(ErrorKind::CapacityMismatch, what));
        }
        let differs = self.identity.difference(&Identity::of(&opened.keys, self.route.wanted.write))?;
        let what = format!("the disk is another one since the connection was lost: {differs}");
        Some(Error::new(ErrorKind::DiskReplaced, what))
    }

    /// What a connection with this session works with.
    pub fn agreed(&self, session: Session) -> Agreed {
        Agreed { session, compression: self.route.wanted.compression, chunk: self.chunk }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Data.
    Read,
    /// New data.
    Write,
    /// Which chunks are allocated.
    Blocks,
    /// A value of the disk's data base.
    Key,
}

impl Ask for Order {
    fn kind(self) -> Kind {
        match self {
            Order::Read => Kind::Read,
            Order::Write => Kind::Write,
            Order::Blocks | Order::Key => Kind::Other,
        }
    }

    fn weight(self, len: u64) -> u64 {
        match self {
            Order::Read | Order::Write => len.max(512),
            Order::Blocks | Order::Key => QUESTION,
        }
    }

    /// There is no message that makes more stable than an acknowledgement does.
    fn leaves_unstable(self) -> bool {
        false
    }

    fn word(self) -> &'static str {
        match self {
            Order::Read => "read",
            Order::Write => "write",
            Order::Blocks => "map",
            Order::Key => "value",
        }
    }
}

/// What a connection works with.
#[derive(Clone, Debug, Default)]
pub struct Agreed {
    pub session: Session,
    pub compression: Compression,
    pub chunk: u64,
}

/// What came for a question.
#[derive(Debug, Default)]
pub struct Note {
    /// Rows of chunks that are allocated, as bytes of the disk.
    pub runs: Vec<(u64, u64)>,
    /// The value of a key.
    pub value: Option<String>,
    /// The host refuses to tell.
    pub refusal: Option<Error>,
}

/// What a call has beside data.
#[derive(Debug, Default)]
pub struct Extra {
    /// The key that is asked for.
    key: String,
    /// Its value.
    pub value: Option<String>,
    /// Parts that are allocated, in the order of arrival.
    pub runs: Vec<(u64, u64)>,
    /// The host refuses to tell what is allocated.
    pub refusal: Option<Error>,
}

impl Extra {
    /// Of a call that asks for a key.
    pub fn key(key: &str) -> Result<Extra> {
        // What cannot be asked for is found out here, where there is somebody to tell.
        ddb::Get::encode(1, key, 0, &mut Vec::new()).map_err(|e| e.with_kind(ErrorKind::InvalidArgument))?;
        Ok(Extra { key: key.to_owned(), ..Extra::default() })
    }
}

/// The number of an operation on the wire.
pub fn op_of(cookie: u64) -> u32 {
    (cookie >> 32) as u32
}

/// The request of a piece that reads.
pub fn read_request(agreed: &Agreed, piece: &Piece<Order>) -> Io {
    let total = u32::try_from(piece.len).unwrap_or(u32::MAX); // pieces are at most 32 MiB
    Io::read(agreed.session.handle, agreed.compression, piece.offset, total)
}

impl Protocol for Nfc {
    type Ask = Order;
    type Agreed = Agreed;
    type Note = Note;
    type Extra = Extra;
    type Unpacker = Arriving;
    type Packer = Option<Packer>;

    const NAME: &'static str = "NFC";
    const TAIL: usize = io::HEAD;

    fn label(&self) -> String {
        self.route.label()
    }

    fn dial(&self, until: Instant) -> Result<(Box<dyn Stream>, Agreed)> {
        let keys = self.identity.keys();
        let (stream, session, opened) = self.route.again(&keys, until).map_err(not_made)?;
        match self.difference(&opened) {
            None => Ok((stream, self.agreed(session))),
            Some(other) => {
                stream.shutdown();
                Err(other)
            }
        }
    }

    /// A host that refuses a connection, or a server that gives no ticket at the moment, may think better of it.
    fn is_final(kind: ErrorKind, dialling: bool) -> bool {
        let hopeless = matches!(
            kind,
            ErrorKind::CapacityMismatch
                | ErrorKind::DiskReplaced
                | ErrorKind::MachineNotFound
                | ErrorKind::ObjectNotFound
                | ErrorKind::NotFound
                | ErrorKind::ReadOnly
                | ErrorKind::AccessDenied
                | ErrorKind::Cancelled
        );
        hopeless || mend::is_final(kind) && !(dialling && kind == ErrorKind::Protocol)
    }

    fn first_serial(agreed: &Agreed) -> Option<u32> {
        Some(agreed.session.next)
    }

    fn request(agreed: &Agreed, cookie: u64, piece: &Piece<Order>, extra: &Extra, into: &mut Vec<u8>) {
        let (handle, op) = (agreed.session.handle, op_of(cookie));
        match piece.ask {
            Order::Read | Order::Write => into.extend_from_slice(&read_request(agreed, piece).encode(op)),
            Order::Blocks => map::query(agreed, piece).encode(op, into),
            // A key that cannot be asked for was refused when the call was made.
            Order::Key => drop(ddb::Get::encode(handle, &extra.key, op, into)),
        }
    }

    fn write(
        agreed: &Agreed,
        packer: &mut Option<Packer>,
        cookie: u64,
        piece: &Piece<Order>,
        data: &[u8],
        into: &mut Batch,
    ) -> Result<()> {
        let length = |len: usize| u32::try_from(len).map_err(|_| broken("a write of 4 GiB"));
        let (total, op) = (length(data.len())?, op_of(cookie));
        let packer = packer.get_or_insert_with(|| Packer::new(agreed.compression));
        let buffer = usize::try_from(agreed.session.buffer).unwrap_or(1).max(512);
        for (i, part) in data.chunks(buffer).enumerate() {
            let at = i * buffer;
            let frame =
                Io::write(agreed.session.handle, piece.offset, total, length(at)?, length(part.len())?);
            match packer.pack(part) {
                Some(packed) => {
                    let wire = length(packed.len())?;
                    into.heads.extend_from_slice(&frame.packed(agreed.compression, wire).encode(op));
                    into.heads.extend_from_slice(packed);
                }
                None => {
                    into.heads.extend_from_slice(&frame.encode(op));
                    into.insert(at..at + part.len());
                }
            }
        }
        Ok(())
    }

    fn receive(rx: &mut Reception<'_, '_, Nfc>) -> Result<()> {
        receive::receive(rx)
    }

    fn has_whole_reply(_agreed: &Agreed, staged: &[u8], _books: &mut Books<Nfc>) -> bool {
        let Some(header) = staged.get(..HEADER).and_then(|head| Header::parse(head).ok()) else {
            return false;
        };
        let Some(payload) = staged.get(HEADER..).and_then(|rest| rest.get(..header.size as usize)) else {
            return false;
        };
        let more = match header.kind {
            Frame::Io => Io::parse(payload).map_or(0, |io| u64::from(data_behind(&io))),
            Frame::DdbGet => ddb::value_length(payload).map_or(0, u64::from),
            Frame::Blocks => bitmap_behind(payload).map_or(0, |length| length as u64),
            Frame::Refusal => Heard::parse(payload).map_or(0, |heard| u64::from(heard.follows)),
            _ => 0,
        };
        (staged.len() - HEADER - payload.len()) as u64 >= more
    }

    fn book(call: &mut Call<Nfc>, _piece: &Piece<Order>, note: Note) {
        call.extra.runs.extend(note.runs);
        call.extra.value = note.value;
        if let Some(refusal) = note.refusal {
            call.extra.refusal = Some(refusal);
            call.stop();
        }
    }

    fn farewell(inbox: &Inbox<Nfc>, next: u32, stream: &dyn Stream, until: Instant) {
        let refused = receive::refused_ops(inbox).collect();
        let session = Session { next, refused, ..inbox.agreed.session.clone() };
        let _ = session::farewell(&session, stream, until); // the connection ends either way
    }
}

/// A connection that was lost and that a host or its server would not have again, for a reason that has no kind of its own
/// or is that of requests, too: what is told is the loss.
fn not_made(error: Error) -> Error {
    match error.kind() {
        ErrorKind::ServerFault | ErrorKind::OutOfMemory | ErrorKind::Io => {
            error.with_kind(ErrorKind::ConnectionLost)
        }
        _ => error,
    }
}

/// Bytes of data that follow an answer: those of a read that went well. What follows others has no data, whatever their
/// fields say.
pub fn data_behind(io: &Io) -> u32 {
    if io.direction == Direction::Read && io.handle == 0 { io.wire } else { 0 }
}

/// Bytes of the bitmap that follow an answer.
pub fn bitmap_behind(payload: &[u8]) -> Result<usize> {
    match open::status(payload) {
        0 => blocks::bitmap_length(Query::parse(payload)?.chunks),
        _ => Ok(0),
    }
}

/// A status without a refusal before it.
pub fn bare_refusal(status: u64) -> Refusal {
    Refusal { code: status, text: String::new() }
}
