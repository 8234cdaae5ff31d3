//! Random-access bytes: a local file, a block device, memory.
//!
//! A [`Storage`] knows nothing of formats. All methods may be called from many threads at once; none keeps a lock while
//! it waits for a device. [`Folder`] is the gate for names that stand *inside* images.

#[forbid(unsafe_code)]
pub mod file;
#[forbid(unsafe_code)]
pub mod file_system;
#[forbid(unsafe_code)]
pub mod lock;
#[forbid(unsafe_code)]
pub mod memory;
#[forbid(unsafe_code)]
pub mod names;
pub mod os;
#[forbid(unsafe_code)]
mod transfer;

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// One read of a batch.
#[derive(Debug)]
pub struct ReadOp<'a> {
    /// Filled whole, or the batch fails.
    pub buf: &'a mut [u8],
    /// Where the bytes stand in the storage.
    pub offset: u64,
}

/// Random-access bytes.
pub trait Storage: Debug + Send + Sync {
    /// Current length in bytes.
    fn size(&self) -> Result<u64>;

    /// Fills the whole buffer from `offset`, or fails; bytes past the end are [`ErrorKind::EndOfFile`].
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Fills the whole buffer if that needs no waiting for a device. `Ok(false)`: it would have to wait, the buffer's
    /// content is undefined, nothing else happened.
    fn try_read_at(&self, _buf: &mut [u8], _offset: u64) -> Result<bool> {
        Ok(false)
    }

    /// Fills every buffer, or fails. Storages with latency overlap the reads.
    fn read_batch(&self, reads: &mut [ReadOp<'_>]) -> Result<()> {
        reads.iter_mut().try_for_each(|read| self.read_at(read.buf, read.offset))
    }

    /// Starts a transfer that goes on by itself: `finish` runs exactly once, on any thread, with no lock held; it may run
    /// before this returns. `Some`: this storage does not work that way, nothing was begun.
    fn start(&self, transfer: Transfer, _offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        Some((transfer, finish))
    }

    /// Writes the whole buffer at `offset`, growing the storage if needed. A failure may have written a part.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Returns when everything written before is stable.
    fn flush(&self) -> Result<()>;

    /// Calls `sink` with the ascending, disjoint parts of `range` that may hold something other than zeros.
    /// The default says: all of it.
    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        if range.start < range.end {
            sink(range);
        }
        Ok(())
    }

    /// Cuts or extends to `len` bytes; new bytes read as zeros.
    fn set_len(&self, _len: u64) -> Result<()> {
        Err(Error::new(ErrorKind::NotSupported, format!("{}: cannot change the length", self.label())))
    }

    /// Makes `range` read as zeros by the cheapest means. `Ok(false)`: there is none cheaper than writing zeros, nothing
    /// happened.
    fn zero(&self, _range: Range<u64>) -> Result<bool> {
        Ok(false)
    }

    /// Gives up the content of `range`: until it is written again it reads as anything, or as zeros where
    /// [`Storage::allocated`] says so. `Ok(false)`: there is nothing to be gained, nothing happened.
    fn discard(&self, _range: Range<u64>) -> Result<bool> {
        Ok(false)
    }

    /// Writes what stands in `from` of another storage at `offset`. Storages on the same machine may come to share the
    /// blocks, which the next write to one of them ends; nobody can see that.
    fn copy_from(&self, offset: u64, source: &dyn Storage, from: Range<u64>) -> Result<Copied> {
        transfer::through_memory(self, offset, source, from)
    }

    /// The file that is all of this storage, byte for byte, for the system to copy from.
    fn local_file(&self) -> Option<LocalFile<'_>> {
        None
    }

    /// From now to [`Storage::admit_readers`] nobody else begins to read it, because what is in it moves about. `Locked`:
    /// somebody reads it already. The default is for storages that nobody else can open.
    fn exclude_readers(&self) -> Result<()> {
        Ok(())
    }

    /// Ends [`Storage::exclude_readers`].
    fn admit_readers(&self) {}

    /// A name for messages: the path.
    fn label(&self) -> String;
}

/// A file of this machine, which only this room can do anything with.
#[derive(Clone, Copy, Debug)]
pub struct LocalFile<'a>(&'a File);

/// How [`Storage::copy_from`] went about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Both storages share the blocks.
    Shared,
    /// The system copied at least a part from file to file.
    BySystem,
    /// All of it was read and written.
    ThroughMemory,
}

/// What a storage is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Writes will come.
    pub write: bool,
    /// Bypass the host's cache (`O_DIRECT`); buffers of any alignment are still accepted.
    pub direct: bool,
    /// The name may be that of a block device (device and raw-mapping extents).
    pub device: bool,
}

impl Access {
    /// Reading an ordinary file.
    pub const READ: Access = Access { write: false, direct: false, device: false };
}

/// Tells two opened things apart, to find loops: device and inode of a local file, or something like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(pub u64, pub u64);

/// An opened image file and where names inside it lead.
#[derive(Debug)]
pub struct Place {
    /// The file that was named: a descriptor or a sparse extent.
    pub storage: Arc<dyn Storage>,
    /// The folder that names inside it are relative to.
    pub folder: Arc<dyn Folder>,
    /// Its name in that folder.
    pub name: OsString,
    /// The path for messages.
    pub label: String,
    /// Who it is.
    pub identity: Identity,
}

/// The gate for names found inside an image. Decides what they may lead to; a refusal says why.
pub trait Folder: Debug + Send + Sync {
    /// Opens an extent named in a descriptor of this folder.
    fn extent(&self, name: &str, access: Access) -> Result<Arc<dyn Storage>>;

    /// A descriptor's parent hint may lead to several places, best first: the path itself, the base name next to the
    /// child. Opens the `nth` of them read-only. `Ok(None)`: there is no such candidate.
    fn parent(&self, hint: &str, nth: usize) -> Result<Option<Place>>;

    /// Replaces the content of the file `name` in one step: old or new, never a mixture, durable on return. Keeps the lock
    /// of a writer. Returns the file as it is from now on.
    fn replace(&self, name: &OsStr, _bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        Err(Error::new(ErrorKind::NotSupported, format!("{} cannot be replaced here", name.display())))
    }
}
