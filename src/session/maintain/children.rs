//! Links that name another one as their parent. A parent knows nothing of them: they are looked for in the folders where
//! they usually are.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::disk::anatomy::Anatomy;
use crate::error::{Context, ErrorKind, Result};
use crate::format::descriptor::Descriptor;
use crate::session::library::Library;
use crate::session::maintain::held::Held;
use crate::storage::Access;
use crate::storage::file_system::FileSystem;
use crate::transport::local;

/// The links in `folders` whose parent is `parent` with the content id `cid`. What is no disk is none, and neither is what
/// the caller may not look at; a failing device is an error, since a child that is overlooked loses its parent.
pub(super) fn children_of(
    files: &dyn FileSystem,
    parent: &Path,
    cid: Option<u32>,
    folders: &[&Path],
) -> Result<Vec<PathBuf>> {
    let folders: BTreeSet<&Path> = folders.iter().copied().collect();
    let mut found = Vec::new();
    for folder in folders {
        for path in readable(files.list(folder))?.unwrap_or_default() {
            if is_vmdk(&path) && path != parent && is_child(files, &path, parent, cid)? {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `None` for what cannot be read or understood, however often one tries.
fn readable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::TooManyFiles | ErrorKind::OutOfMemory) => {
            Err(e)
        }
        Err(_) => Ok(None),
    }
}

fn is_vmdk(path: &Path) -> bool {
    let regular = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    regular && path.extension().is_some_and(|end| end.eq_ignore_ascii_case("vmdk"))
}

fn is_child(files: &dyn FileSystem, path: &Path, parent: &Path, cid: Option<u32>) -> Result<bool> {
    let anatomy = files.open(path, Access::READ).and_then(|file| Anatomy::read(&*file));
    let Some(anatomy) =
        readable(anatomy).context(|| format!("looking for children in {}", path.display()))?
    else {
        return Ok(false);
    };
    let descriptor = &anatomy.descriptor;
    let (Some(hint), Some(folder)) = (descriptor.parent_hint(), path.parent()) else { return Ok(false) };
    Ok(descriptor.parent_cid().is_some()
        && descriptor.parent_cid() == cid
        && local::parent_of(folder, hint).as_deref() == Some(parent))
}

/// A child that will have another hint.
pub(super) struct Follower {
    held: Held,
    before: Descriptor,
    after: Descriptor,
    done: bool,
}

impl Follower {
    /// Locks the child at `path` and works out how it names `parent`.
    pub fn new(path: &Path, parent: &Path, library: &Library) -> Result<Follower> {
        let held = Held::hold(path, library).context(|| format!("child {}", path.display()))?;
        let before = held.anatomy.descriptor.clone();
        let mut after = before.clone();
        let hint = local::hint_for(held.folder(), parent)?;
        after.set_links(before.extents(), Some(&hint)).context(|| format!("child {}", path.display()))?;
        Ok(Follower { held, before, after, done: false })
    }

    /// Makes the child name its parent the new way, durably.
    pub fn follow(&mut self) -> Result<()> {
        self.done = true; // also when it fails half-way
        put(&self.held, &self.after).context(|| format!("child {}", self.held.path.display()))
    }

    /// Makes it name its parent the old way again.
    pub fn turn_back(&mut self, library: &Library) {
        if std::mem::take(&mut self.done)
            && let Err(e) = put(&self.held, &self.before)
        {
            let path = self.held.path.display();
            library.log().warning(|| format!("{path}: its parent hint could not be put back: {e}"));
        }
    }
}

/// Replaces the description of a held link in one step.
pub(super) fn put(held: &Held, descriptor: &Descriptor) -> Result<()> {
    match &held.anatomy.embedded {
        Some(embedded) => Anatomy::rewrite_embedded(&*held.storage, embedded, descriptor),
        None => held.replace_text(&descriptor.to_bytes()?),
    }
}

/// Removes names, all of them even if one of them stays; the first fault is told.
pub(super) fn remove_all(files: &dyn FileSystem, paths: &BTreeSet<PathBuf>) -> Result<()> {
    let mut removed = Ok(());
    for path in paths {
        removed = removed.and(files.remove(path));
    }
    let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    for folder in folders {
        removed = removed.and(files.flush_folder(folder));
    }
    removed
}
