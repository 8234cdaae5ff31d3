//! The child that a snapshot puts on top of a disk.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::cid::new_cid;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::create;
use crate::format::create::ChildSpec;
use crate::format::create::DiskType;
use crate::format::create::NewFile;
use crate::format::create::NewIdentity;
use crate::logging::Log;
use crate::sim::disks::open::How;
use crate::sim::disks::open::OpenFile;
use crate::sim::random;
use crate::storage::file_system::FileSystem;
use crate::storage::file_system::Host;
use crate::storage::names::NewNames;
use crate::transport::local;
use crate::units::SECTOR;
use crate::units::Sectors;

/// Makes a child of the disk `parent` next to `beside` and says where it is. It is called as hosts do it: `name-000001.vmdk`.
pub fn make(parent: &Path, beside: &Path, log: &Log) -> Result<PathBuf> {
    let story = || format!("a child of {}", parent.display());
    let (folder, name) = free_name(beside).context(story)?;
    let open = OpenFile::open(parent, How::Read, log)?;
    let parent_cid = open.disk.check_parent()?;
    open.disk.check_depth(1)?;
    let hint = local::hint_for(&folder, parent)?;
    let identity =
        NewIdentity { cid: new_cid(Some(parent_cid))?, ..NewIdentity::from_random(&random::bytes()?) };
    let capacity = Sectors(open.disk.capacity() / SECTOR);
    let spec = ChildSpec { disk_type: DiskType::MonolithicSparse, capacity, parent_cid, parent_hint: &hint };
    let layout = create::child(&spec, &name, &identity).context(story)?;
    let files: Arc<dyn FileSystem> = Arc::new(Host);
    let mut made = NewNames::on(&files);
    for file in &layout.files {
        let path = folder.join(&file.name);
        write(&*files, file, &path).context(story)?;
        made.add(path);
    }
    files.flush_folder(&folder)?;
    made.keep();
    Ok(folder.join(name))
}

fn write(files: &dyn FileSystem, file: &NewFile, path: &Path) -> Result<()> {
    let storage = files.create(path)?;
    storage.set_len(file.len)?;
    file.pieces.iter().try_for_each(|piece| storage.write_at(&piece.bytes, piece.offset))?;
    storage.flush()
}

/// The folder of `beside`, and the first name with a number that nothing there has.
fn free_name(beside: &Path) -> Result<(PathBuf, String)> {
    let (Some(folder), Some(name)) = (beside.parent(), beside.file_name().and_then(|name| name.to_str()))
    else {
        return Err(Error::new(ErrorKind::NameInvalid, format!("{} names no file", beside.display())));
    };
    let base = create::base_name(name);
    let base = match base.rsplit_once('-') {
        Some((stem, digits)) if digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => base,
    };
    (1..1_000_000)
        .map(|n| format!("{base}-{n:06}.vmdk"))
        .find(|name| std::fs::symlink_metadata(folder.join(name)).is_err())
        .map(|name| (folder.to_owned(), name))
        .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "a million children have taken every name"))
}
