//! Deleting one link.
//!
//! The description goes first: without it the rest is no disk. The other way round a death in between would leave a disk
//! with holes in it.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Result;
use crate::session::library::Library;
use crate::session::maintain::children;
use crate::session::maintain::held::Held;

/// Deletes the link at `path`. A symbolic link goes with the file it leads to.
pub(super) fn unlink(path: &Path, library: &Library) -> Result<()> {
    let held = Held::hold(path, library)?;
    let mut rest: BTreeSet<PathBuf> = BTreeSet::new();
    for extent in held.extents.iter().flatten() {
        rest.insert(extent.path.canonicalize().unwrap_or_else(|_| extent.path.clone()));
        rest.insert(extent.path.clone());
    }
    rest.extend(held.tracking().map(|(_, path)| path));
    rest.remove(&held.path); // a damaged description may name itself
    library.files().remove(&held.path)?;
    library.files().flush_folder(held.folder())?;
    let is_link = std::fs::symlink_metadata(&held.given).is_ok_and(|meta| meta.is_symlink());
    if is_link {
        rest.insert(held.given.clone());
    }
    children::remove_all(&**library.files(), &rest)?;
    library.log().info(|| format!("VixDiskLib: deleted {} and {} extent files", path.display(), rest.len()));
    Ok(())
}
