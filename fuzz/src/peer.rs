//! A peer in memory: what it says is written down beforehand, what it hears is kept.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::net::stream::Patience;
use vixDiskLib::net::stream::Ready;
use vixDiskLib::net::stream::Stream;

/// What comes after the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The end of the stream.
    Close,
    /// Nothing, until time is up. It is up at once.
    Silence,
}

/// A stream whose other end has its words written down.
#[derive(Debug)]
pub struct Scripted {
    says: Mutex<Says>,
    heard: Arc<Mutex<Vec<u8>>>,
    /// Bytes given per call.
    portion: usize,
    then: Then,
}

#[derive(Debug)]
struct Says {
    bytes: Vec<u8>,
    at: usize,
    shut: bool,
}

impl Scripted {
    /// Says these bytes, then that.
    pub fn new(says: &[u8], then: Then) -> Self {
        Self {
            says: Mutex::new(Says { bytes: says.to_vec(), at: 0, shut: false }),
            heard: Arc::default(),
            portion: usize::MAX,
            then,
        }
    }

    /// Gives at most so many bytes at a time.
    pub fn in_portions(mut self, portion: usize) -> Self {
        self.portion = portion.max(1);
        self
    }

    /// What it hears, also after the stream is gone.
    pub fn heard(&self) -> Arc<Mutex<Vec<u8>>> {
        self.heard.clone()
    }
}

impl Stream for Scripted {
    fn send(&self, parts: &[IoSlice<'_>], _: Patience) -> Result<Option<usize>> {
        if self.says.lock().unwrap().shut {
            return Err(Error::new(ErrorKind::ConnectionLost, "shut down"));
        }
        let mut heard = self.heard.lock().unwrap();
        parts.iter().for_each(|part| heard.extend(part.iter()));
        Ok(Some(parts.iter().map(|part| part.len()).sum()))
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], _: Patience) -> Result<Option<usize>> {
        let mut says = self.says.lock().unwrap();
        let mut given = 0;
        for part in parts {
            let rest = if says.shut { &[][..] } else { &says.bytes[says.at..] };
            let count = part.len().min(rest.len()).min(self.portion - given);
            part[..count].copy_from_slice(&rest[..count]);
            says.at += count;
            given += count;
        }
        match (given, self.then) {
            (0, Then::Silence) if !says.shut => Ok(None),
            _ => Ok(Some(given)),
        }
    }

    fn wait(&self, wanted: Ready, _: Instant) -> Result<Ready> {
        let says = self.says.lock().unwrap();
        let recv = says.shut || says.at < says.bytes.len() || self.then == Then::Close;
        Ok(Ready { recv: wanted.recv && recv, send: wanted.send })
    }

    fn shutdown(&self) {
        self.says.lock().unwrap().shut = true;
    }

    fn label(&self) -> String {
        "a scripted peer".to_owned()
    }
}
