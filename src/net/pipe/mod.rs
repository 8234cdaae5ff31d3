//! The machinery of a pipelined client: calls of any length are cut into pieces, many of which are in flight on one
//! connection that any number of threads share. It knows no protocol.
//!
//! ```text
//!   a client (net/nbd, net/nfc) plans calls
//!      │
//!   connection   callers, who send and receive for themselves     helpers   threads for started calls
//!      │         reception: a protocol puts what comes in place   mend      losing, making anew, closing
//!   books        what is wanted, what is in flight (calls, coverage, window)
//!      │
//!   inbox, outbox   the two ends of a stream
//! ```
//!
//! What is different from protocol to protocol is told by a [`Protocol`], always through static dispatch.

pub mod books;
pub mod calls;
pub mod connection;
pub mod coverage;
pub mod durability;
mod helpers;
pub mod inbox;
pub mod mend;
pub mod outbox;
pub mod progress;
pub mod reception;
pub mod unaligned;
pub mod window;

use std::fmt::Debug;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::pipe::books::Books;
use crate::net::pipe::calls::Call;
use crate::net::pipe::calls::Piece;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::outbox::Batch;
use crate::net::pipe::reception::Reception;
use crate::net::stream::Stream;

/// What kind of thing is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes come, into the buffer of the call.
    Read,
    /// Bytes go, out of the buffer of the call.
    Write,
    /// What was acknowledged is to be made stable; it has no range.
    Flush,
    /// Anything else about a range.
    Other,
}

impl Kind {
    /// Bytes come or go.
    pub fn moves_data(self) -> bool {
        matches!(self, Kind::Read | Kind::Write)
    }
}

/// What a piece asks for.
pub trait Ask: Copy + Debug + Eq + Send + 'static {
    /// Its kind.
    fn kind(self) -> Kind;

    /// What so many bytes of it count for in the window.
    fn weight(self, len: u64) -> u64;

    /// Once it is acknowledged, there is something that only a flush makes stable.
    fn leaves_unstable(self) -> bool;

    /// A word for messages: `read`.
    fn word(self) -> &'static str;
}

/// A protocol of requests and replies, and one thing at a server that it is spoken about.
pub trait Protocol: Debug + Send + Sync + Sized + 'static {
    /// What pieces ask for.
    type Ask: Ask;
    /// What both ends have to know of the negotiation of a connection.
    type Agreed: Clone + Debug + Default + Send;
    /// What is known of a piece until its last reply.
    type Note: Debug + Default + Send;
    /// What a call carries beside its bytes: words to be sent, answers that came.
    type Extra: Debug + Default + Send;
    /// What the receiving end works with.
    type Unpacker: Default + Send;
    /// What the sending end works with.
    type Packer: Default + Send;

    /// For messages and, in small letters, for the names of threads.
    const NAME: &'static str;
    /// Bytes that are received behind a large payload: the longest head of a reply.
    const TAIL: usize;

    /// Where it leads, for messages.
    fn label(&self) -> String;

    /// Makes a connection again, and fails when it does not lead to the same thing as the first one.
    fn dial(&self, until: Instant) -> Result<(Box<dyn Stream>, Self::Agreed)>;

    /// Trying to connect again would not help. `dialling`: the error is one of connecting, not one of a connection.
    fn is_final(kind: ErrorKind, _dialling: bool) -> bool {
        mend::is_final(kind)
    }

    /// The number of the first request of a connection, where it matters.
    fn first_serial(_agreed: &Self::Agreed) -> Option<u32> {
        None
    }

    /// Appends a request without data.
    fn request(
        agreed: &Self::Agreed,
        cookie: u64,
        piece: &Piece<Self::Ask>,
        extra: &Self::Extra,
        into: &mut Vec<u8>,
    );

    /// Makes a batch of a request with data.
    fn write(
        agreed: &Self::Agreed,
        packer: &mut Self::Packer,
        cookie: u64,
        piece: &Piece<Self::Ask>,
        data: &[u8],
        into: &mut Batch,
    ) -> Result<()>;

    /// Receives one reply or one part of one, checks it against what was asked, and puts it where it belongs.
    fn receive(rx: &mut Reception<'_, '_, Self>) -> Result<()>;

    /// A whole reply is among the bytes that were received and not looked at.
    fn has_whole_reply(agreed: &Self::Agreed, staged: &[u8], books: &mut Books<Self>) -> bool;

    /// A piece is done: what its note says goes to the call.
    fn book(_call: &mut Call<Self>, _piece: &Piece<Self::Ask>, _note: Self::Note) {}

    /// Takes leave, with nothing in flight; `next` would be the number of the next request. The connection ends either way.
    fn farewell(inbox: &Inbox<Self>, next: u32, stream: &dyn Stream, until: Instant);
}

/// The server broke its protocol.
pub fn protocol(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, message)
}
