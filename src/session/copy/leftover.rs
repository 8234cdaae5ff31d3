//! What copies leave behind whose process was killed: their hidden folders, and names that no disk uses.
//!
//! ```text
//!   .vmdk-copy-1234abcd/owner        the name of the target; locked, as disks are, while the copy is made
//!                       owner.lck/
//!                       new/         the files of the copy, also after they have their names outside
//!                       old/         further names for the files that the copy replaces
//! ```
//!
//! A file outside that is the same as its namesake in such a folder is one that this copy made or was about to remove. When
//! the process is gone and the disk at the target does not name the file, nobody does. Two names for one file cannot be
//! mistaken for each other: nothing else is ever removed. Where files have one name only, what is outside stays.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::session::copy::Target;
use crate::session::copy::files::descriptor_at;
use crate::session::copy::files::identity;
use crate::session::library::Library;
use crate::storage::lock::DiskLock;
use crate::storage::names;
use crate::storage::os;

/// How the hidden folders are called.
const PREFIX: &str = ".vmdk-copy-";
/// The file that is locked and that holds the name of the target.
const OWNER: &str = "owner";
/// Its lock.
const OWNER_LOCK: &str = "owner.lck";
/// Where the copy is made.
pub(super) const NEW: &str = "new";
/// What the copy replaces.
pub(super) const OLD: &str = "old";
/// A name for a disk has no more bytes than this.
const LONGEST_NAME: u64 = 255;
/// Times that somebody may take a folder just made for a leftover.
const ATTEMPTS: usize = 8;

/// A hidden folder of a living copy. Dropping it removes it with everything in it.
pub(super) struct Hidden<'a> {
    library: &'a Library,
    pub path: PathBuf,
    lock: DiskLock,
}

impl Hidden<'_> {
    /// Makes one in `folder` for a copy that will be called `name` there.
    pub fn new<'a>(library: &'a Library, folder: &Path, name: &str) -> Result<Hidden<'a>> {
        let mut attempt = 1;
        loop {
            match Hidden::try_new(library, folder, name) {
                // Whoever looks for leftovers between the making and the locking finds nobody's folder.
                Err(e)
                    if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Locked) && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_new<'a>(library: &'a Library, folder: &Path, name: &str) -> Result<Hidden<'a>> {
        let files = library.files();
        let mut random = [0; 4];
        os::random_bytes(&mut random).context(|| "random name")?;
        let path = folder.join(format!("{PREFIX}{:08x}", u32::from_le_bytes(random)));
        files.make_folder(&path)?;
        let fill = || {
            let owner = path.join(OWNER);
            files.create(&owner)?.write_at(name.as_bytes(), 0)?;
            let lock = DiskLock::acquire(&owner, Duration::ZERO, library.log())?;
            files.make_folder(&path.join(NEW))?;
            files.make_folder(&path.join(OLD))?;
            Ok(lock)
        };
        match fill() {
            Ok(lock) => Ok(Hidden { library, path, lock }),
            Err(e) => {
                let _ = names::remove_tree(&**files, &path); // the error at hand is the one to tell
                Err(e)
            }
        }
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if let Err(e) = remove_hidden(self.library, &self.path) {
            let line = format!("{} cannot be removed: {e}", self.path.display());
            self.library.log().warning(|| line);
        }
        self.lock.release();
    }
}

/// Removes such a folder, what tells whose it is last.
fn remove_hidden(library: &Library, path: &Path) -> Result<()> {
    let files = &**library.files();
    for part in [NEW, OLD].map(|name| path.join(name)) {
        if part.exists() {
            names::remove_tree(files, &part)?;
        }
    }
    names::remove_tree(files, path)
}

/// Removes what copies left in the folder of `target`, which is locked if it is there. No copy fails because this does.
pub(super) fn remove_all(target: &Target<'_>, library: &Library) {
    let Some(folder) = target.path.parent() else { return };
    let hidden = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX))
            && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
    };
    let found = library.files().list(folder).unwrap_or_default();
    for path in found.iter().filter(|path| hidden(path)) {
        match remove_leftover(path, folder, target, library) {
            Ok(()) => library.log().info(|| format!("{}: left by a copy that died, removed", path.display())),
            // Its copy is being made, or nobody here can tell.
            Err(e) if e.kind() == ErrorKind::Locked => {}
            Err(e) => library.log().warning(|| format!("{}: left by a copy, stays: {e}", path.display())),
        }
    }
}

/// Removes one hidden folder and the names that belong to it. `Locked` when its process may be alive.
fn remove_leftover(path: &Path, folder: &Path, target: &Target<'_>, library: &Library) -> Result<()> {
    let owner = path.join(OWNER);
    if fs::symlink_metadata(&owner).is_err() {
        // It died while the folder was being made or removed: there is nothing in it, or nothing else any more.
        let files = &**library.files();
        let lock_of_owner = |file: &PathBuf| file.file_name().is_some_and(|name| *name == *OWNER_LOCK);
        return match files.list(path)?.iter().all(lock_of_owner) {
            true => names::remove_tree(files, path),
            false => Err(Error::new(ErrorKind::Locked, "a folder that does not say whose it is")),
        };
    }
    let lock = DiskLock::acquire_abandoned(&owner, library.log())?;
    if is_newborn(path, library)? {
        remove_hidden(library, path)?;
        lock.release();
        return Ok(());
    }
    let disk = folder.join(target_name(&owner)?);
    let other = if disk == *target.path || fs::symlink_metadata(&disk).is_err() {
        None
    } else {
        Some(DiskLock::acquire(&disk, Duration::ZERO, library.log())?)
    };
    remove_names(path, folder, &disk, library)?;
    remove_hidden(library, path)?;
    lock.release();
    if let Some(other) = other {
        other.release();
    }
    Ok(())
}

/// True for a folder whose process died before it had written the name of its target: no file was made yet.
fn is_newborn(path: &Path, library: &Library) -> Result<bool> {
    let owner = path.join(OWNER);
    let meta = fs::symlink_metadata(&owner).context(|| owner.display().to_string())?;
    let is_empty = |part: &str| match library.files().list(&path.join(part)) {
        Ok(names) => names.is_empty(),
        Err(e) => e.kind() == ErrorKind::NotFound,
    };
    Ok(meta.is_file() && meta.len() == 0 && [NEW, OLD].into_iter().all(is_empty))
}

/// What the file says that tells whose folder it is in.
fn target_name(owner: &Path) -> Result<String> {
    let meta = fs::symlink_metadata(owner).context(|| owner.display().to_string())?;
    let text = match meta.is_file() && meta.len() <= LONGEST_NAME {
        true => fs::read(owner).context(|| owner.display().to_string())?,
        false => Vec::new(),
    };
    match String::from_utf8(text) {
        Ok(name) if !name.is_empty() && !name.contains('/') && name != "." && name != ".." => Ok(name),
        _ => Err(Error::new(ErrorKind::Corrupt, format!("{} names no disk", owner.display()))),
    }
}

/// Removes the names in `folder` of files that the hidden folder has too and the disk does not name.
fn remove_names(hidden: &Path, folder: &Path, disk: &Path, library: &Library) -> Result<()> {
    let files = library.files();
    let used: Vec<PathBuf> = match descriptor_at(disk) {
        Some(descriptor) => {
            let extents = descriptor.extents().iter().filter_map(|extent| extent.name.as_deref());
            extents.chain(descriptor.change_track_path()).map(|name| folder.join(name)).collect()
        }
        None if fs::symlink_metadata(disk).is_err() || is_whole_disk(disk)? => Vec::new(),
        None => {
            let message = format!("which files {} needs cannot be told", disk.display());
            return Err(Error::new(ErrorKind::Locked, message));
        }
    };
    let mut removed = false;
    for part in [NEW, OLD] {
        for inside in files.list(&hidden.join(part)).unwrap_or_default() {
            let Some(outside) = inside.file_name().map(|name| folder.join(name)) else { continue };
            let plain = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
            if outside != disk
                && !used.contains(&outside)
                && plain(&inside)
                && plain(&outside)
                && identity(&inside) == identity(&outside)
            {
                files.remove(&outside)?;
                removed = true;
            }
        }
    }
    if removed { files.flush_folder(folder) } else { Ok(()) }
}

/// True for a sparse file, which is a disk without further files.
fn is_whole_disk(path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.context(|| path.display().to_string())?;
    Ok(head.eq_ignore_ascii_case(b"KDMV"))
}
