//! What a client sends, in the pieces that are asked for.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::authd;
use crate::net::stream::Patience;
use crate::net::stream::Stream;

/// Bytes that are fetched at once. Longer data go past this buffer.
const SIZE: usize = 64 << 10;

/// Bytes of a stream, fetched ahead of what is asked for.
#[derive(Debug)]
pub struct Intake {
    stream: Arc<dyn Stream>,
    bytes: Box<[u8]>,
    /// What came and was not taken is between these.
    begin: usize,
    end: usize,
}

impl Intake {
    /// Nothing has been fetched.
    pub fn new(stream: Arc<dyn Stream>) -> Self {
        Self { stream, bytes: vec![0; SIZE].into_boxed_slice(), begin: 0, end: 0 }
    }

    /// Bytes that were fetched and not taken.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.begin..self.end).unwrap_or_default()
    }

    /// The next `count` bytes, at most a few KiB. `Ok(None)`: the client ended the stream before the first of them.
    pub fn take(&mut self, count: usize, until: Instant) -> Result<Option<&[u8]>> {
        while self.end - self.begin < count {
            if self.fetch(until)? == 0 {
                return if self.waiting().is_empty() { Ok(None) } else { Err(ended()) };
            }
        }
        let begin = self.begin;
        self.begin += count;
        Ok(self.bytes.get(begin..begin + count))
    }

    /// The next bytes, which have to come.
    pub fn expect(&mut self, count: usize, until: Instant) -> Result<&[u8]> {
        self.take(count, until)?.ok_or_else(ended)
    }

    /// The next line, its end included. `Ok(None)`: the client ended the stream.
    pub fn line(&mut self, until: Instant) -> Result<Option<&[u8]>> {
        loop {
            if let Some(length) = authd::line_length(self.waiting())? {
                return self.take(length, until);
            }
            if self.fetch(until)? == 0 {
                return Ok(None);
            }
        }
    }

    /// Fills a buffer with the next bytes.
    pub fn fill(&mut self, into: &mut [u8], until: Instant) -> Result<()> {
        let ready = self.waiting().len().min(into.len());
        let (now, mut later) = into.split_at_mut(ready);
        now.copy_from_slice(self.waiting().get(..ready).unwrap_or_default());
        self.begin += ready;
        while !later.is_empty() {
            let got = self.stream.recv(&mut [IoSliceMut::new(later)], Patience::Until(until))?;
            match got.ok_or_else(late)? {
                0 => return Err(ended()),
                count => later = later.get_mut(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Fetches what is there, at least one byte; 0 is the end.
    fn fetch(&mut self, until: Instant) -> Result<usize> {
        self.bytes.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let got = self.stream.recv(&mut [IoSliceMut::new(room)], Patience::Until(until))?;
        let got = got.ok_or_else(late)?;
        self.end += got;
        Ok(got)
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::ConnectionLost, "the client ended the connection in the middle of a message")
}

fn late() -> Error {
    Error::new(ErrorKind::TimedOut, "the client was silent for too long")
}
