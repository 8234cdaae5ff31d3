//! A file of a datastore as a storage, for reading.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::transport::https::path::FilePath;
use crate::transport::https::site::Site;
use crate::transport::https::windows;
use crate::transport::https::windows::Windows;

/// A file. Its length is that of the moment when it was opened: where the server tells another one later, reading fails.
#[derive(Debug)]
pub struct HttpsFile {
    site: Arc<Site>,
    path: FilePath,
    len: u64,
    windows: Windows,
}

/// The longest part that is asked for at once: what is lost with a connection has to be asked for again.
pub const LONGEST: usize = 1 << 20;

impl HttpsFile {
    /// Asks for its length.
    pub fn open(site: Arc<Site>, path: FilePath) -> Result<HttpsFile> {
        let len = site.length(&path)?;
        Ok(HttpsFile { site, path, len, windows: Windows::default() })
    }

    fn read_only(&self) -> Error {
        Error::new(ErrorKind::ReadOnly, format!("{} is read over HTTPS and cannot be written to", self.path))
    }
}

impl Storage for HttpsFile {
    fn size(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            let text = format!("{} bytes at {offset:#x} of {}, which has {}", buf.len(), self.path, self.len);
            return Err(Error::new(ErrorKind::EndOfFile, text));
        }
        let fetch = |part: &mut [u8], at: u64| self.site.fetch(&self.path, self.len, part, at);
        if buf.len() <= windows::SMALL {
            return self.windows.serve(buf, offset, self.len, &fetch);
        }
        let mut at = offset;
        for part in buf.chunks_mut(LONGEST) {
            fetch(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        Err(self.read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn label(&self) -> String {
        self.path.to_string()
    }
}
