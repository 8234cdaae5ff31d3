//! One TLS record at a time.
//!
//! A host reads its first TLS record by record, so that nothing of what follows that TLS is swallowed; and of the second
//! one it takes one message of the handshake per record. Each call to receive on a gate gives bytes of one record only,
//! until the gate is opened.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Result;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;
use crate::sim::nfc::line::Line;

/// A connection behind a gate. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    line: Line,
    open: Arc<AtomicBool>,
    record: Arc<Mutex<Record>>,
}

/// The record that is under way.
#[derive(Debug, Default)]
struct Record {
    /// Type, version, length; as much of it as came.
    header: [u8; 5],
    came: usize,
    /// Bytes of its body that are still to come.
    left: usize,
}

impl Gate {
    /// Closed.
    pub fn new(line: Line) -> Self {
        Self { line, open: Arc::default(), record: Arc::default() }
    }

    /// From here on bytes come as they do.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }
}

impl Record {
    /// Bytes until something changes.
    fn wanted(&self) -> usize {
        if self.came < self.header.len() { self.header.len() - self.came } else { self.left }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.came < self.header.len() {
            for (to, from) in self.header.iter_mut().skip(self.came).zip(bytes) {
                *to = *from;
            }
            self.came += bytes.len();
            let [_, _, _, high, low] = self.header;
            self.left = usize::from(u16::from_be_bytes([high, low]));
        } else {
            self.left -= bytes.len();
        }
        if self.came == self.header.len() && self.left == 0 {
            *self = Self::default();
        }
    }
}

impl Stream for Gate {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        self.line.send(parts, patience)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let mut record = self.record.lock();
        let between = record.came == 0;
        if self.open.load(Ordering::Acquire) && between {
            return self.line.recv(parts, patience);
        }
        let wanted = record.wanted();
        let Some(room) = parts.iter_mut().find(|part| !part.is_empty()) else {
            return self.line.recv(parts, patience); // which says that there is no room
        };
        let wanted = wanted.min(room.len());
        let room = room.get_mut(..wanted).unwrap_or_default();
        let received = self.line.recv(&mut [IoSliceMut::new(&mut *room)], patience)?;
        record.take(room.get(..received.unwrap_or(0)).unwrap_or_default());
        Ok(received)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        self.line.wait(wanted, until)
    }

    fn shutdown(&self) {
        self.line.shutdown();
    }

    fn label(&self) -> String {
        self.line.label()
    }
}
