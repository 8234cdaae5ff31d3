//! Disks on file systems of this machine, and the gate for names inside them.
//!
//! A descriptor is data from a stranger. Its extents must lie below its own folder, symbolic links followed; only the device
//! types may name block devices; a setting widens this. Parents may live elsewhere, but whatever is opened as a parent must
//! be a virtual disk itself.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;

use parking_lot::Mutex;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create::check_hint;
use crate::storage::Access;
use crate::storage::Folder;
use crate::storage::Place;
use crate::storage::Storage;
use crate::storage::file::FileStorage;
use crate::storage::names;

/// A folder of this machine as seen by the descriptors in it.
#[derive(Debug)]
pub struct LocalFolder {
    /// Absolute, without symbolic links.
    path: PathBuf,
    /// Extents may lie anywhere.
    open_wide: bool,
    /// The files locked for writing, to be let go when the disk is closed.
    locked: Mutex<Vec<Weak<FileStorage>>>,
}

/// Opens the file at `path` as the start of a chain. With `access.write` it is locked against other writers.
pub fn open_place(path: &Path, access: Access, open_wide: bool) -> Result<(Place, Arc<LocalFolder>)> {
    let storage = Arc::new(FileStorage::open(path, access)?);
    let real = path.canonicalize().context(|| format!("resolving {}", path.display()))?;
    let (Some(folder), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(Error::new(ErrorKind::NameInvalid, format!("{} names no file", path.display())));
    };
    let folder = Arc::new(LocalFolder { path: folder.to_owned(), open_wide, locked: Mutex::default() });
    if access.write {
        folder.lock(&storage)?;
    }
    let place = Place {
        identity: storage.identity()?,
        storage,
        folder: folder.clone(),
        name: name.to_owned(),
        label: path.display().to_string(),
    };
    Ok((place, folder))
}

impl LocalFolder {
    /// Locks a file against other writers until [`LocalFolder::release`].
    fn lock(&self, storage: &Arc<FileStorage>) -> Result<()> {
        storage.lock_exclusively()?;
        self.locked.lock().push(Arc::downgrade(storage));
        Ok(())
    }

    /// Lets go of every lock. Called when a disk is closed, since a call that is just returning may keep its files open a
    /// moment longer.
    pub fn release(&self) {
        self.locked.lock().drain(..).filter_map(|file| file.upgrade()).for_each(|file| file.unlock());
    }

    /// The folder: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where an extent name leads, if this folder lets it.
    pub fn permitted(&self, name: &str, access: Access) -> Result<PathBuf> {
        let path = self.path.join(name);
        let real = path.canonicalize().context(|| format!("extent {}", path.display()))?;
        if self.open_wide || real.starts_with(&self.path) {
            return Ok(real);
        }
        let is_device = || std::fs::metadata(&real).is_ok_and(|meta| meta.file_type().is_block_device());
        if access.device && is_device() {
            return Ok(real);
        }
        Err(Error::new(
            ErrorKind::AccessDenied,
            format!(
                "extent {name:?} leads to {}, outside the descriptor's folder {}; \
                 vixDiskLib.open.extentsOutsideFolder=1 permits it",
                real.display(),
                self.path.display()
            ),
        ))
    }
}

/// Where a parent hint leads that stands in a descriptor of the folder `folder`: the first of its places that exists.
pub fn parent_of(folder: &Path, hint: &str) -> Option<PathBuf> {
    if hint.contains('\0') {
        return None;
    }
    parent_candidates(folder, hint).into_iter().find_map(|path| path.canonicalize().ok())
}

/// How a descriptor in `folder` names its parent: by a relative path if that is in or below the folder. Both paths are
/// absolute and without symbolic links.
pub fn hint_for(folder: &Path, parent: &Path) -> Result<String> {
    let hint = parent.strip_prefix(folder).unwrap_or(parent);
    let text = hint.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Encoding, format!("the path {} is not in UTF-8", parent.display()))
    })?;
    check_hint(text)?;
    Ok(text.to_owned())
}

/// The places a parent hint may mean: the path it is, then its last component next to the child.
fn parent_candidates(folder: &Path, hint: &str) -> Vec<PathBuf> {
    let mut found = vec![folder.join(hint)];
    // Descriptors written on Windows separate with backslashes.
    let last = hint.rsplit(['/', '\\']).next().unwrap_or(hint);
    let beside = folder.join(last);
    if !last.is_empty() && !found.contains(&beside) {
        found.push(beside);
    }
    found
}

impl Folder for LocalFolder {
    fn extent(&self, name: &str, access: Access) -> Result<Arc<dyn Storage>> {
        if name.is_empty() || name.contains('\0') {
            return Err(Error::new(ErrorKind::NameInvalid, format!("extent name {name:?}")));
        }
        let storage = Arc::new(FileStorage::open(&self.permitted(name, access)?, access)?);
        if access.write {
            self.lock(&storage)?;
        }
        Ok(storage)
    }

    fn parent(&self, hint: &str, nth: usize) -> Result<Option<Place>> {
        if hint.contains('\0') {
            return Err(Error::new(ErrorKind::NameInvalid, format!("parent hint {hint:?}")));
        }
        match parent_candidates(&self.path, hint).get(nth) {
            Some(path) => open_place(path, Access::READ, self.open_wide).map(|(place, _)| Some(place)),
            None => Ok(None),
        }
    }

    fn replace(&self, name: &OsStr, bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        let path = self.path.join(name);
        let what = || format!("rewriting {}", path.display());
        let before = std::fs::metadata(&path).context(what)?;
        let temporary = names::temporary(&self.path);
        let result = write_aside(&temporary, bytes, &before).and_then(|()| {
            // The lock moves to the file that takes the name, before it has the name.
            let access = Access { write: true, ..Access::READ };
            let storage = Arc::new(FileStorage::open(&temporary, access)?);
            self.lock(&storage)?;
            std::fs::rename(&temporary, &path).context(what)?;
            names::flush_folder(&self.path)?;
            Ok(storage as Arc<dyn Storage>)
        });
        if result.is_err() {
            let _ = std::fs::remove_file(&temporary); // the error at hand is the one to tell
        }
        result.context(what)
    }
}

/// Writes a new file with the mode and owner of the one it will replace, durably.
pub fn write_aside(path: &Path, bytes: &[u8], like: &std::fs::Metadata) -> Result<()> {
    let what = || format!("writing {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).context(what)?;
    file.write_all(bytes).context(what)?;
    file.set_permissions(like.permissions()).context(what)?;
    let made = file.metadata().context(what)?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        // Only root can give files away; for others the new owner is who wrote it, as with any editor.
        let _ = std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()));
    }
    file.sync_all().context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_stay_below_the_folder_of_their_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("vm");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(inside.join("sub/e"), b"x").unwrap();
        std::fs::write(dir.path().join("secret"), b"x").unwrap();
        std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
        let path = inside.canonicalize().unwrap();
        let folder = LocalFolder { path: path.clone(), open_wide: false, locked: Mutex::default() };
        assert!(folder.extent("sub/e", Access::READ).is_ok());
        assert!(folder.extent("sub/../sub/e", Access::READ).is_ok());
        let outside = dir.path().join("secret");
        for name in ["../secret", "link", outside.to_str().unwrap(), "/etc/passwd", "/dev/zero"] {
            let refused = folder.extent(name, Access::READ).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AccessDenied, "{name}: {refused}");
        }
        let device = Access { device: true, ..Access::READ };
        assert_eq!(folder.extent("/etc/passwd", device).unwrap_err().kind(), ErrorKind::AccessDenied);
        assert!(
            LocalFolder { path, open_wide: true, locked: Mutex::default() }
                .extent("../secret", Access::READ)
                .is_ok()
        );
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.vmdk");
        std::fs::write(&path, b"old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let folder = LocalFolder {
            path: dir.path().canonicalize().unwrap(),
            open_wide: false,
            locked: Mutex::default(),
        };
        folder.replace(OsStr::new("d.vmdk"), b"new text").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new text");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
