//! Files and their names, every change in one call.
//!
//! What makes, renames, grows or deletes whole disks is only right in a certain order of such calls, and of the flushes
//! between them. All of it goes through this door, so that a file system can stand behind it that notes the order, fails
//! where it is told to, or loses what a power cut would lose. Questions that change nothing (is there such a file, where
//! does a link lead) are asked of the host directly.

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, Result};
use crate::storage::Access;
use crate::storage::Identity;
use crate::storage::Storage;
use crate::storage::file::FileStorage;
use crate::storage::names;

/// A file that has names in folders.
pub trait NamedFile: Storage {
    /// Who this file is, to find loops.
    fn identity(&self) -> Result<Identity>;

    /// Takes the exclusive lock that ends with this storage. `Locked` when somebody else has it.
    fn lock_exclusively(&self) -> Result<()>;

    /// Lets go of the lock before the storage ends.
    fn unlock(&self);

    /// Reserves space for the bytes of `range`, which lies behind the end of the file: it reaches to the end of `range`
    /// afterwards, and they read as zeros. `progress` gets the bytes done so far when it takes long.
    fn preallocate(&self, range: Range<u64>, progress: &mut dyn FnMut(u64)) -> Result<()>;

    /// Gives a file of [`FileSystem::create_unnamed`] its name; an existing one is an error.
    fn give_name(&self) -> Result<()>;

    /// Like [`Storage::flush`], and its owner and mode are stable too.
    fn flush_with_rights(&self) -> Result<()>;
}

/// Where files and their names are. No change of a name is stable before its folder is flushed.
pub trait FileSystem: std::fmt::Debug + Send + Sync {
    /// Opens an existing file. A device is refused unless `access.device`; anything else that is no regular file always.
    fn open(&self, path: &Path, access: Access) -> Result<Arc<dyn NamedFile>>;

    /// Makes a new, empty file; one that exists already is an error.
    fn create(&self, path: &Path) -> Result<Arc<dyn NamedFile>>;

    /// Makes a new, empty file with the mode and, as far as that is allowed, the owner of another one.
    fn create_like(&self, path: &Path, like: &std::fs::Metadata) -> Result<Arc<dyn NamedFile>>;

    /// Makes a file that has no name until [`NamedFile::give_name`]: if this process dies before, nothing of it is left.
    /// `path` will be its name. `None` where there is no such thing.
    fn create_unnamed(&self, path: &Path) -> Option<Arc<dyn NamedFile>>;

    /// Gives the file `old` the further name `new`, which must be free. `NotSupported` between file systems and on those
    /// whose files have one name only.
    fn link(&self, old: &Path, new: &Path) -> Result<()>;

    /// The file `old` gets the name `new` instead, in one step; a file that had it loses it.
    fn rename(&self, old: &Path, new: &Path) -> Result<()>;

    /// Removes the name of a file. One that is not there is no error.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Makes an empty folder; an existing one is an error.
    fn make_folder(&self, path: &Path) -> Result<()>;

    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> Result<()>;

    /// Everything in a folder.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>>;

    /// Returns when every name made or removed in `folder` before is stable.
    fn flush_folder(&self, folder: &Path) -> Result<()>;
}

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

impl FileSystem for Host {
    fn open(&self, path: &Path, access: Access) -> Result<Arc<dyn NamedFile>> {
        Ok(Arc::new(FileStorage::open(path, access)?))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn NamedFile>> {
        Ok(Arc::new(FileStorage::create(path)?))
    }

    fn create_like(&self, path: &Path, like: &std::fs::Metadata) -> Result<Arc<dyn NamedFile>> {
        Ok(Arc::new(FileStorage::create_like(path, like)?))
    }

    fn create_unnamed(&self, path: &Path) -> Option<Arc<dyn NamedFile>> {
        FileStorage::create_unnamed(path).map(|file| Arc::new(file) as Arc<dyn NamedFile>)
    }

    fn link(&self, old: &Path, new: &Path) -> Result<()> {
        names::link(old, new)
    }

    fn rename(&self, old: &Path, new: &Path) -> Result<()> {
        std::fs::rename(old, new).context(|| format!("renaming {} to {}", old.display(), new.display()))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        names::remove(path)
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        std::fs::create_dir(path).context(|| format!("making the folder {}", path.display()))
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        std::fs::remove_dir(path).context(|| format!("removing the folder {}", path.display()))
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
        entries.context(|| format!("listing {}", folder.display()))
    }

    fn flush_folder(&self, folder: &Path) -> Result<()> {
        names::flush_folder(folder)
    }
}
