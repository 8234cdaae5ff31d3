//! Which files disks are made of, as far as paths can tell.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use crate::disk::Disk;
use crate::format::descriptor::Descriptor;
use crate::storage::Identity;

/// A longer file is no descriptor.
const LONGEST: u64 = 16 << 20;

/// Every file of the chain that is copied.
pub(super) struct SourceFiles {
    paths: HashSet<PathBuf>,
    identities: HashSet<Identity>,
}

impl SourceFiles {
    pub fn of(disk: &Disk, path: &Path) -> SourceFiles {
        let mut paths = HashSet::new();
        for (i, link) in disk.links().iter().enumerate() {
            let path = if i == 0 { path.to_owned() } else { PathBuf::from(link.label()) };
            link.with_descriptor(|descriptor| paths.extend(files_of_link(&path, descriptor)));
        }
        let identities = paths.iter().filter_map(|path| identity(path)).collect();
        SourceFiles { paths, identities }
    }

    /// True for a file of the source, also under another name: a hard link, or another spelling that the file system
    /// takes for the same.
    pub fn hold(&self, path: &Path) -> bool {
        self.paths.contains(path) || identity(path).is_some_and(|file| self.identities.contains(&file))
    }

    /// True for a name by which the source finds one of its files.
    pub fn name(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }
}

/// Which file this is, symbolic links followed.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|meta| Identity(meta.dev(), meta.ino()))
}

/// The files of one link that exist, without symbolic links.
fn files_of_link(path: &Path, descriptor: &Descriptor) -> Vec<PathBuf> {
    let Ok(real) = path.canonicalize() else { return Vec::new() };
    let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
    let extents = descriptor.extents().iter().filter_map(|extent| extent.name.as_deref());
    let extents = extents.filter_map(|name| folder.join(name).canonicalize().ok());
    std::iter::once(real.clone()).chain(extents).collect()
}

/// The descriptor that is all of the file at `path`; `None` for anything else.
pub(super) fn descriptor_at(path: &Path) -> Option<Descriptor> {
    let is_text = fs::metadata(path).is_ok_and(|meta| meta.len() <= LONGEST);
    let bytes = is_text.then(|| fs::read(path).ok()).flatten()?;
    Descriptor::looks_like(&bytes).then(|| Descriptor::parse(&bytes).ok()).flatten()
}

/// The files beside the disk at `path` that are its own: extents, and the list of changed blocks. What is no disk has none.
pub(super) fn files_beside(path: &Path) -> Vec<PathBuf> {
    let Some(descriptor) = descriptor_at(path) else { return Vec::new() };
    let mut files = files_of_link(path, &descriptor);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let tracking = descriptor.change_track_path();
    files.extend(
        tracking
            .filter(|name| !name.contains('/') && name.to_ascii_lowercase().ends_with("-ctk.vmdk"))
            .map(|name| folder.join(name)),
    );
    let beside = |file: &PathBuf| file != path && file.parent() == path.parent();
    files.retain(beside);
    files.retain(|file| fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file()));
    files
}
