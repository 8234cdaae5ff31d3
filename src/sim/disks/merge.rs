//! Taking a link out of a chain: what it holds goes into its parent, which takes its place.
//!
//! The parent changes where the child covers it only, so at every moment the content seen through the child is right. The
//! parent keeps its content id until all is copied, and then takes the child's, by which those above know what they stand on.

use std::path::Path;
use std::path::PathBuf;

use crate::disk::Disk;
use crate::disk::anatomy::Anatomy;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::descriptor::Descriptor;
use crate::logging::Log;
use crate::sim::disks::areas::Areas;
use crate::sim::disks::open::How;
use crate::sim::disks::open::OpenFile;
use crate::storage::Access;
use crate::storage::file_system::FileSystem;
use crate::storage::file_system::Host;
use crate::transport::local;

/// What two links held before they became one.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// The upper one.
    pub child: Areas,
    /// The lower one.
    pub parent: Areas,
}

/// Copies at most this much at once.
const STEP: usize = 1 << 20;

/// Merges `child` into `parent`, on which it stands, makes `above`, all that stand on it, stand on the parent, and deletes
/// it. No other child of the parent may exist.
pub fn merge(child: &Path, parent: &Path, above: &[PathBuf], log: &Log) -> Result<Before> {
    let story = || format!("merging {} into {}", child.display(), parent.display());
    let upper = OpenFile::open(child, How::Read, log).context(story)?;
    let Some(cid) = upper.disk.leaf().with_descriptor(Descriptor::cid) else {
        return Err(Error::new(ErrorKind::NotADisk, "a child without content id").context(story()));
    };
    let lower_held = OpenFile::open(parent, How::Read, log).and_then(|open| open.own_areas());
    let lower = OpenFile::open(parent, How::Write, log).context(story)?;
    let before = Before { child: upper.own_areas()?, parent: lower_held? };
    copy(&upper, &lower.disk).context(story)?;
    set_cid(&lower.disk, cid).context(story)?;
    lower.finish().context(story)?;
    drop(upper);
    for other in above {
        stand_on(other, parent, log).context(story)?;
    }
    delete(child).context(story)?;
    Ok(before)
}

/// Writes everything that the leaf of `upper` holds to `lower`.
fn copy(upper: &OpenFile, lower: &Disk) -> Result<()> {
    let Some(old) = lower.leaf().with_descriptor(Descriptor::cid) else {
        return Err(Error::new(ErrorKind::NotADisk, "a parent without content id"));
    };
    let mut parts = Vec::new();
    upper.own_parts(&mut |start, end, _| parts.push((start, end)))?;
    let mut buffer = vec![0; STEP];
    let mut first = true;
    for (start, end) in parts {
        let mut at = start;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(STEP).min(STEP);
            let Some(part) = buffer.get_mut(..len) else { break };
            upper.disk.read(part, at)?;
            lower.write(part, at)?;
            if std::mem::take(&mut first) {
                set_cid(lower, old)?; // the first write gave it another one, which the child would not accept
            }
            at += len as u64;
        }
    }
    lower.flush()
}

fn set_cid(disk: &Disk, cid: u32) -> Result<()> {
    disk.leaf().change_descriptor(|descriptor| descriptor.set_cid(cid))
}

/// Makes the link `path` name `parent` as its parent.
pub fn stand_on(path: &Path, parent: &Path, log: &Log) -> Result<()> {
    let open = OpenFile::open(path, How::Describe, log)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let hint = local::hint_for(folder, parent)?;
    open.disk.leaf().change_descriptor(|descriptor| {
        let extents = descriptor.extents().to_vec();
        descriptor.set_links(&extents, Some(&hint))
    })?;
    open.finish()
}

/// Deletes one link: its description first, without which the rest is no disk.
pub fn delete(path: &Path) -> Result<()> {
    let anatomy = Host.open(path, Access::READ).and_then(|file| Anatomy::read(&*file))?;
    let Some(folder) = path.parent() else {
        return Err(Error::new(ErrorKind::NameInvalid, format!("{} names no file", path.display())));
    };
    Host.remove(path)?;
    if anatomy.embedded.is_none() {
        for extent in anatomy.descriptor.extents().iter().filter_map(|extent| extent.name.as_deref()) {
            let real = folder.join(extent).canonicalize();
            if let Ok(real) = real
                && real.starts_with(folder)
                && real.is_file()
            {
                Host.remove(&real)?;
            }
        }
    }
    Host.flush_folder(folder)
}
