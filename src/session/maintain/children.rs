//! Links that name another one as their parent. A parent knows nothing of them: they are looked for in the folders where
//! they usually are.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::disk::anatomy::Anatomy;
use crate::error::{Context, Result};
use crate::format::descriptor::Descriptor;
use crate::session::library::Library;
use crate::session::maintain::held::Held;
use crate::storage::Access;
use crate::storage::file::FileStorage;
use crate::storage::names;
use crate::transport::local;

/// The links in `folders` whose parent is `parent` with the content id `cid`. What cannot be read is none.
pub(super) fn children_of(parent: &Path, cid: Option<u32>, folders: &[&Path]) -> Vec<PathBuf> {
    let folders: BTreeSet<&Path> = folders.iter().copied().collect();
    let files = folders.into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut found: Vec<PathBuf> = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_vmdk(path) && path != parent && is_child(path, parent, cid))
        .collect();
    found.sort();
    found
}

fn is_vmdk(path: &Path) -> bool {
    let regular = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    regular && path.extension().is_some_and(|end| end.eq_ignore_ascii_case("vmdk"))
}

fn is_child(path: &Path, parent: &Path, cid: Option<u32>) -> bool {
    let Ok(anatomy) = FileStorage::open(path, Access::READ).and_then(|file| Anatomy::read(&file)) else {
        return false;
    };
    let descriptor = &anatomy.descriptor;
    let (Some(hint), Some(folder)) = (descriptor.parent_hint(), path.parent()) else { return false };
    descriptor.parent_cid().is_some()
        && descriptor.parent_cid() == cid
        && local::parent_of(folder, hint).as_deref() == Some(parent)
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
pub(super) fn remove_all(paths: &BTreeSet<PathBuf>) -> Result<()> {
    let mut removed = Ok(());
    for path in paths {
        removed = removed.and(names::remove(path));
    }
    let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    for folder in folders {
        removed = removed.and(names::flush_folder(folder));
    }
    removed
}
