//! What a connection is to a protocol: bytes that are sent, received and waited for, every wait with an end.

use std::fmt::Debug;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;

/// How long a call may wait for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
}

/// Which directions could go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something can be received: bytes, the end of the stream, or a fault.
    pub recv: bool,
    /// Something can be sent.
    pub send: bool,
}

/// A connected stream. One thread at a time sends and one receives, both may be at it at once; [`Stream::shutdown`] may be
/// called by any thread at any time and ends the waits of the others.
///
/// A lost connection is [`crate::error::ErrorKind::ConnectionLost`]. Nothing here raises a signal.
pub trait Stream: Debug + Send + Sync {
    /// Sends some of the parts, in order, and says how many bytes. `Ok(None)`: nothing could be taken in time.
    ///
    /// A stream that encrypts may have taken bytes that have not left yet: see [`Stream::push`].
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>>;

    /// Sends what was taken and held back. `Ok(false)`: something is left, time is up.
    fn push(&self, _patience: Patience) -> Result<bool> {
        Ok(true)
    }

    /// Receives into the parts, in order, and says how many bytes; 0 is the end of the stream. `Ok(None)`: nothing came in
    /// time.
    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>>;

    /// Waits until a wanted direction can go on or time is up, which is `Ok` with neither. Bytes that were received and
    /// decrypted before count as ready.
    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready>;

    /// Ends both directions at once.
    fn shutdown(&self);

    /// The peer for messages: `tcp 127.0.0.1:10809`.
    fn label(&self) -> String;
}

/// A stream that several have: lent to a layer above and taken back, or watched by a test.
impl<S: Stream + ?Sized> Stream for Arc<S> {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        (**self).send(parts, patience)
    }

    fn push(&self, patience: Patience) -> Result<bool> {
        (**self).push(patience)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        (**self).recv(parts, patience)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        (**self).wait(wanted, until)
    }

    fn shutdown(&self) {
        (**self).shutdown();
    }

    fn label(&self) -> String {
        (**self).label()
    }
}
