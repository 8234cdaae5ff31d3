//! Bytes in memory: for tests, fuzzing and small things made up on the way.

use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// A growing vector of bytes.
#[derive(Debug)]
pub struct MemoryStorage {
    label: String,
    bytes: RwLock<Vec<u8>>,
}

/// Growth past this is refused, so that a hostile offset cannot eat the machine.
const LIMIT: usize = 1 << 32;

impl MemoryStorage {
    /// A storage that holds `bytes`.
    pub fn new(label: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { label: label.into(), bytes: RwLock::new(bytes) }
    }

    /// A copy of what it holds.
    pub fn snapshot(&self) -> Vec<u8> {
        self.bytes.read().clone()
    }

    fn end(&self, offset: u64, len: usize) -> Result<(usize, usize)> {
        usize::try_from(offset)
            .ok()
            .and_then(|start| Some((start, start.checked_add(len)?)))
            .filter(|(_, end)| *end <= LIMIT)
            .ok_or_else(|| Error::new(ErrorKind::FileTooBig, format!("{}: offset {offset:#x}", self.label)))
    }
}

impl Storage for MemoryStorage {
    fn size(&self) -> Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (start, end) = self.end(offset, buf.len())?;
        match self.bytes.read().get(start..end) {
            Some(from) => {
                buf.copy_from_slice(from);
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::EndOfFile,
                format!("{}: {} bytes at {offset:#x} pass the end", self.label, buf.len()),
            )),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let (start, end) = self.end(offset, buf.len())?;
        let mut bytes = self.bytes.write();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(to) = bytes.get_mut(start..end) {
            to.copy_from_slice(buf);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let (len, _) = self.end(len, 0)?;
        self.bytes.write().resize(len, 0);
        Ok(())
    }

    fn label(&self) -> String {
        self.label.clone()
    }
}
