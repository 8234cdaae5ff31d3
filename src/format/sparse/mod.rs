//! Hosted sparse extents.
pub mod header;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Image, Mapping};
use crate::logging::Log;
use crate::storage::Storage;
pub use header::Header;
use std::ops::Range;
use std::sync::Arc;
/// x
#[derive(Debug)]
pub struct Sparse;
/// x
#[derive(Debug)]
pub struct SparseOptions {
    /// x
    pub writable: bool,
    /// x
    pub cache_bytes: usize,
    /// x
    pub log: Log,
    /// x
    pub name: String,
}
impl Sparse {
    /// x
    pub fn open(_s: Arc<dyn Storage>, _o: &SparseOptions) -> Result<Self> {
        Err(Error::new(ErrorKind::NotSupported, "x"))
    }
    /// x
    pub fn embedded_descriptor(&self) -> Result<Option<(Vec<u8>, Range<u64>)>> {
        Ok(None)
    }
}
impl Image for Sparse {
    fn capacity(&self) -> u64 {
        0
    }
    fn map(&self, _o: u64, _m: u64) -> Result<(Mapping<'_>, u64)> {
        Err(Error::new(ErrorKind::NotSupported, "x"))
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
