//! The names of files in folders: giving a file a second one, taking one away, and when such a change is stable.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::file_system::FileSystem;
use crate::storage::os;

/// Returns when every name made or removed in `folder` before is stable.
pub fn flush_folder(folder: &Path) -> Result<()> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .context(|| format!("making the names in {} durable", folder.display()))
}

/// Gives the file `old` the further name `new`, which must be free. `NotSupported` between file systems and on those
/// whose files have one name only.
pub fn link(old: &Path, new: &Path) -> Result<()> {
    fs::hard_link(old, new).map_err(|e| {
        let alone = matches!(e.raw_os_error(), Some(libc::EXDEV | libc::EOPNOTSUPP | libc::ENOSYS))
            || e.raw_os_error() == Some(libc::EPERM) && !protected(old);
        let fault = Error::from_io(e, format!("giving {} the name {}", old.display(), new.display()));
        if alone { fault.with_kind(ErrorKind::NotSupported) } else { fault }
    })
}

/// Linux refuses names for files that the caller cannot write to; `EPERM` has another reason else.
fn protected(path: &Path) -> bool {
    fs::OpenOptions::new().write(true).open(path).is_err()
}

/// Removes a name. One that is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::from_io(e, format!("removing {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Removes a folder with everything in it, as far as it goes; the first fault is told. Follows no symbolic links.
pub fn remove_tree(files: &dyn FileSystem, folder: &Path) -> Result<()> {
    let mut removed = Ok(());
    for path in files.list(folder)? {
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        removed = removed.and(if is_folder { remove_tree(files, &path) } else { files.remove(&path) });
    }
    removed.and(files.remove_folder(folder))
}

/// A name in `folder` that nobody uses, for a file that gets another one when it is complete. Short, so that it is possible
/// wherever the other one is. Drawn by lot: process numbers repeat, in containers nearly always.
pub fn temporary(folder: &Path) -> Result<PathBuf> {
    let mut lot = [0; 8];
    os::random_bytes(&mut lot).context(|| "random name")?;
    Ok(folder.join(format!(".vmdk-{:016x}.tmp", u64::from_le_bytes(lot))))
}

/// Names that go away again unless kept: those of an operation that may still fail. The last one stands for all of them: it
/// goes first, and only when it is gone for good do the others.
#[derive(Debug)]
pub struct NewNames {
    files: Arc<dyn FileSystem>,
    paths: Vec<PathBuf>,
}

impl NewNames {
    /// None so far.
    pub fn on(files: &Arc<dyn FileSystem>) -> Self {
        Self { files: files.clone(), paths: Vec::new() }
    }

    /// Takes a name into custody.
    pub fn add(&mut self, path: PathBuf) {
        self.paths.push(path);
    }

    /// They stay.
    pub fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for NewNames {
    fn drop(&mut self) {
        let Some((last, others)) = self.paths.split_last() else { return };
        let mut gone = self.files.remove(last);
        if let (Some(folder), false) = (last.parent(), others.is_empty()) {
            gone = gone.and_then(|()| self.files.flush_folder(folder));
        }
        if gone.is_ok() {
            for path in others.iter().rev() {
                let _ = self.files.remove(path); // the error that led here is the one to tell
            }
        }
    }
}
