//! The names of files in folders: giving a file a second one, taking one away, and when such a change is stable.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use crate::error::{Context, Error, ErrorKind, Result};

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

/// A name in `folder` that nobody uses, for a file that gets another one when it is complete. Short, so that it is possible
/// wherever the other one is.
pub fn temporary(folder: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".vmdk-{}-{count}.tmp", std::process::id()))
}

/// Names that go away again unless kept: those of an operation that may still fail.
#[derive(Debug, Default)]
pub struct NewNames {
    paths: Vec<PathBuf>,
}

impl NewNames {
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
        for path in self.paths.iter().rev() {
            let _ = fs::remove_file(path); // the error that led here is the one to tell
        }
    }
}
