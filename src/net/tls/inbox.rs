//! Encrypted bytes that came, and among them what was decrypted and not yet taken.

use std::ops::Range;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::tls::record;

/// One system call fetches up to this much: many records, and still within a core's cache.
const SIZE: usize = 256 << 10;

/// A buffer whose records are decrypted where they lie.
pub struct Inbox {
    bytes: Box<[u8]>,
    /// What came and was not looked at.
    waiting: Range<usize>,
    /// What was decrypted and not taken. Lies before `waiting`.
    plain: Range<usize>,
}

impl Inbox {
    /// Empty.
    pub fn new() -> Self {
        Self { bytes: vec![0; SIZE].into_boxed_slice(), waiting: 0..0, plain: 0..0 }
    }

    /// What came and was not looked at.
    pub fn filled(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.waiting.clone()).unwrap_or_default()
    }

    /// So many bytes at the front were looked at.
    pub fn consume(&mut self, n: usize) {
        self.waiting.start = self.waiting.start.saturating_add(n).min(self.waiting.end);
    }

    /// Room for bytes to come. Everything decrypted must have been taken.
    pub fn room(&mut self) -> Result<&mut [u8]> {
        debug_assert!(self.plain.is_empty());
        if self.waiting.start > 0 {
            self.bytes.copy_within(self.waiting.clone(), 0);
            self.waiting = 0..self.waiting.len();
        }
        match self.bytes.get_mut(self.waiting.end..) {
            Some(room) if !room.is_empty() => Ok(room),
            _ => Err(Error::new(
                ErrorKind::Protocol,
                format!("more than {SIZE} bytes without a whole message"),
            )),
        }
    }

    /// So many bytes came into the room.
    pub fn arrived(&mut self, n: usize) {
        self.waiting.end = self.waiting.end.saturating_add(n).min(self.bytes.len());
    }

    /// True when a record is there as a whole, or something that is no record.
    pub fn has_record(&mut self) -> bool {
        !matches!(record::length(self.filled()), Ok(None))
    }

    /// Decrypts the record at the front. `None`: it is not all there. Data become [`Inbox::plain`].
    pub fn open(&mut self, opener: &mut record::Opener) -> Result<Option<record::Opened>> {
        let Some(length) = record::length(self.filled())? else { return Ok(None) };
        let begin = self.waiting.start;
        let opened = opener.open(self.filled().get_mut(..length).unwrap_or_default())?;
        self.consume(length);
        if let record::Opened::Data(place) = &opened {
            self.plain = begin + place.start..begin + place.end;
        }
        Ok(Some(opened))
    }

    /// What was decrypted and not taken.
    pub fn plain(&self) -> &[u8] {
        self.bytes.get(self.plain.clone()).unwrap_or_default()
    }

    /// So many decrypted bytes were taken.
    pub fn take(&mut self, n: usize) {
        self.plain.start = self.plain.start.saturating_add(n).min(self.plain.end);
    }
}
