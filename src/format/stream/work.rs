//! What a thread needs while it inflates grains: compressed bytes, a decompressor, room for one grain.

use std::fmt;

use libdeflater::DecompressionError;
use libdeflater::Decompressor;
use parking_lot::Mutex;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::storage::Storage;

/// Buffers and decompressor of one reading thread. Reused, so that a read allocates nothing.
pub(super) struct Work {
    pub(super) window: Window,
    pub(super) inflater: Inflater,
    /// Room for one inflated grain; empty after it was traded into an empty cache slot.
    pub(super) grain: Vec<u8>,
}

/// Works that are not in use.
pub(super) struct Pool {
    idle: Mutex<Vec<Work>>,
}

/// More idle works than threads that read one file at once.
const IDLE_LIMIT: usize = 8;
/// Windows grow by this, so that they soon fit every read.
const STEP: usize = 64 * 1024;
/// Works with larger buffers than this, from files with huge grains, are not kept.
const IDLE_BYTES: usize = 4 * 1024 * 1024;

impl Pool {
    pub(super) fn new() -> Self {
        Self { idle: Mutex::new(Vec::new()) }
    }

    /// Runs `body` with a work of its own.
    pub(super) fn with<T>(&self, body: impl FnOnce(&mut Work) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().pop();
        let mut work = idle.unwrap_or_else(|| Work {
            window: Window::default(),
            inflater: Inflater::new(),
            grain: Vec::new(),
        });
        let result = body(&mut work);
        if work.window.bytes.len().saturating_add(work.grain.len()) <= IDLE_BYTES {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_LIMIT {
                idle.push(work);
            }
        }
        result
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// A piece of the file as it was read last. The file does not change, so what it holds stays good.
#[derive(Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// How many of `bytes` are of the file.
    len: usize,
    /// Where they start in the file.
    start: u64,
}

impl Window {
    /// True when the `len` bytes at `at` are here.
    pub(super) fn holds(&self, at: u64, len: usize) -> bool {
        self.find(at, len).is_some()
    }

    /// The `len` bytes at `at`, if they are here.
    pub(super) fn find(&self, at: u64, len: usize) -> Option<&[u8]> {
        let first = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let end = first.checked_add(len).filter(|&end| end <= self.len)?;
        self.bytes.get(first..end)
    }

    /// Reads `len` bytes at `at` in place of what was here.
    pub(super) fn fill(&mut self, storage: &dyn Storage, at: u64, len: usize) -> Result<()> {
        if self.bytes.len() < len {
            self.bytes.resize(len.next_multiple_of(STEP), 0);
        }
        self.len = 0;
        let Some(room) = self.bytes.get_mut(..len) else { return Ok(()) };
        storage.read_at(room, at).context(|| format!("{len} bytes of compressed grains at {at:#x}"))?;
        (self.start, self.len) = (at, len);
        Ok(())
    }
}

/// A decompressor for whole zlib streams.
pub(super) struct Inflater(Decompressor);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompressor::new())
    }

    /// Inflates a zlib stream into `out` and says how many bytes it gave; more than `out` holds is an error.
    pub(super) fn inflate(&mut self, packed: &[u8], out: &mut [u8]) -> Result<usize> {
        self.0.zlib_decompress(packed, out).map_err(|e| {
            let message = match e {
                DecompressionError::BadData => "the compressed data is damaged".to_owned(),
                DecompressionError::InsufficientSpace => {
                    format!("the compressed data inflates to more than a grain ({} bytes)", out.len())
                }
            };
            Error::new(ErrorKind::Corrupt, message)
        })
    }
}
