//! Disks on file systems of this machine, and the gate for names inside them.
//!
//! A descriptor is data from a stranger. Its extents must lie below its own folder, symbolic links followed; only the device
//! types may name block devices; a setting widens this. Parents may live elsewhere, but whatever is opened as a parent must
//! be a virtual disk itself.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
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
use crate::storage::file_system::FileSystem;
use crate::storage::file_system::NamedFile;
use crate::storage::names;
use crate::storage::names::NewNames;

/// A folder of this machine as seen by the descriptors in it.
#[derive(Debug)]
pub struct LocalFolder {
    files: Arc<dyn FileSystem>,
    /// Absolute, without symbolic links.
    path: PathBuf,
    /// Extents may lie anywhere.
    open_wide: bool,
    /// The files locked for writing, to be let go when the disk is closed.
    locked: Mutex<Vec<Weak<dyn NamedFile>>>,
}

/// Opens the file at `path` as the start of a chain. With `access.write` it is locked against other writers.
pub fn open_place(
    files: &Arc<dyn FileSystem>,
    path: &Path,
    access: Access,
    open_wide: bool,
) -> Result<(Place, Arc<LocalFolder>)> {
    let storage = files.open(path, access)?;
    let label = path.display().to_string();
    let real = path.canonicalize().context(|| format!("resolving {label}"))?;
    let (Some(folder), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(Error::new(ErrorKind::NameInvalid, format!("{label} names no file")));
    };
    let (files, path) = (files.clone(), folder.to_owned());
    let folder = Arc::new(LocalFolder { files, path, open_wide, locked: Mutex::default() });
    if access.write {
        folder.lock(&storage)?;
    }
    let place = Place {
        identity: storage.identity()?,
        storage,
        folder: folder.clone(),
        name: name.to_owned(),
        label,
    };
    Ok((place, folder))
}

impl LocalFolder {
    /// Locks a file against other writers until [`LocalFolder::release`].
    fn lock(&self, storage: &Arc<dyn NamedFile>) -> Result<()> {
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
        let storage = self.files.open(&self.permitted(name, access)?, access)?;
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
            Some(path) => {
                open_place(&self.files, path, Access::READ, self.open_wide).map(|(place, _)| Some(place))
            }
            None => Ok(None),
        }
    }

    fn replace(&self, name: &OsStr, bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        let path = self.path.join(name);
        let what = || format!("rewriting {}", path.display());
        let before = std::fs::metadata(&path).context(what)?;
        let temporary = names::temporary(&self.path).context(what)?;
        let mut aside = NewNames::on(&self.files);
        aside.add(temporary.clone());
        let replaced = write_aside(&*self.files, &temporary, bytes, &before).and_then(|()| {
            // The lock moves to the file that takes the name, before it has the name.
            let access = Access { write: true, ..Access::READ };
            let storage = self.files.open(&temporary, access)?;
            self.lock(&storage)?;
            self.files.rename(&temporary, &path)?;
            self.files.flush_folder(&self.path)?;
            Ok(storage as Arc<dyn Storage>)
        });
        if replaced.is_ok() {
            aside.keep();
        }
        replaced.context(what)
    }
}

/// Writes a new file with the mode and owner of the one it will replace, durably.
pub fn write_aside(files: &dyn FileSystem, path: &Path, bytes: &[u8], like: &Metadata) -> Result<()> {
    let file = files.create_like(path, like)?;
    file.write_at(bytes, 0)?;
    file.flush_with_rights()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file_system::Host;

    #[test]
    fn extents_stay_below_the_folder_of_their_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("vm");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(inside.join("sub/e"), b"x").unwrap();
        std::fs::write(dir.path().join("secret"), b"x").unwrap();
        std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
        let path = inside.canonicalize().unwrap();
        let files: Arc<dyn FileSystem> = Arc::new(Host);
        let folder = |open_wide| LocalFolder {
            files: files.clone(),
            path: path.clone(),
            open_wide,
            locked: Mutex::default(),
        };
        let (folder, wide) = (folder(false), folder(true));
        assert!(folder.extent("sub/e", Access::READ).is_ok());
        assert!(folder.extent("sub/../sub/e", Access::READ).is_ok());
        let outside = dir.path().join("secret");
        for name in ["../secret", "link", outside.to_str().unwrap(), "/etc/passwd", "/dev/zero"] {
            let refused = folder.extent(name, Access::READ).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AccessDenied, "{name}: {refused}");
        }
        let device = Access { device: true, ..Access::READ };
        assert_eq!(folder.extent("/etc/passwd", device).unwrap_err().kind(), ErrorKind::AccessDenied);
        assert!(wide.extent("../secret", Access::READ).is_ok());
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.vmdk");
        std::fs::write(&path, b"old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let folder = LocalFolder {
            files: Arc::new(Host),
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
