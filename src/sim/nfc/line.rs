//! One connection: bytes in both directions are counted, and cut where that is wanted.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::socket::Socket;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;
use crate::sim::nfc::knobs::Knobs;
use crate::sim::nfc::knobs::Way;

/// A connection. Clones are the same one, so that TLS can be put on top and taken away again.
#[derive(Clone, Debug)]
pub struct Line(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    socket: Socket,
    knobs: Arc<Knobs>,
    sent: AtomicU64,
    received: AtomicU64,
    /// The machine whose ticket let it in.
    machine: OnceLock<String>,
}

impl Line {
    /// Over this socket.
    pub fn new(socket: Socket, knobs: Arc<Knobs>) -> Self {
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Ends { socket, knobs, sent, received, machine: OnceLock::new() }))
    }

    /// Notes the machine whose ticket let it in.
    pub fn is_for(&self, machine: &str) {
        let _ = self.0.machine.set(machine.to_owned()); // one ticket lets in
    }

    /// The machine whose ticket let it in, if any did.
    pub fn machine(&self) -> Option<&str> {
        self.0.machine.get().map(String::as_str)
    }

    /// How many of these bytes may pass. Ends the connection where none may.
    fn room(&self, way: Way, wanted: usize) -> Result<usize> {
        let count = if way == Way::Sent { &self.0.sent } else { &self.0.received };
        match self.0.knobs.may_pass(way, count.load(Ordering::Relaxed), wanted) {
            Some(room) => Ok(room),
            None => {
                self.0.socket.shutdown();
                Err(Error::new(ErrorKind::ConnectionLost, "cut on purpose"))
            }
        }
    }

    fn note(&self, way: Way, passed: Option<usize>) {
        let count = if way == Way::Sent { &self.0.sent } else { &self.0.received };
        let passed = passed.unwrap_or(0);
        count.fetch_add(passed as u64, Ordering::Relaxed);
        self.0.knobs.has_passed(passed);
    }
}

impl Stream for Line {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        let wanted = parts.iter().map(|part| part.len()).sum();
        let room = self.room(Way::Sent, wanted)?;
        let sent = if room == wanted {
            self.0.socket.send(parts, patience)?
        } else {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).take(room).collect();
            self.0.socket.send(&[IoSlice::new(&all)], patience)?
        };
        self.note(Way::Sent, sent);
        Ok(sent)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let wanted = parts.iter().map(|part| part.len()).sum();
        let room = self.room(Way::Received, wanted)?;
        let received = if room == wanted {
            self.0.socket.recv(parts, patience)?
        } else {
            let first = parts.iter_mut().find(|part| !part.is_empty());
            let first = first.and_then(|part| {
                let room = room.min(part.len());
                part.get_mut(..room)
            });
            self.0.socket.recv(&mut [IoSliceMut::new(first.unwrap_or_default())], patience)?
        };
        self.note(Way::Received, received);
        Ok(received)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        self.0.socket.wait(wanted, until)
    }

    fn shutdown(&self) {
        self.0.socket.shutdown();
    }

    fn label(&self) -> String {
        self.0.socket.label()
    }
}
