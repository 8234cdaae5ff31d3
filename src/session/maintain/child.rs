//! Disks on top of an open one: a new child, or an open chain put on top of another.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::cid::new_cid;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create;
use crate::format::create::ChildSpec;
use crate::format::create::DiskType;
use crate::format::create::NewIdentity;
use crate::session::create::make_files;
use crate::session::open_disk::OpenDisk;
use crate::storage::os;
use crate::units::SECTOR;
use crate::units::Sectors;

impl OpenDisk {
    /// Makes a disk at `path`, which must not exist, that stores only what differs from this one. It names this one as its
    /// parent by a relative path if that is in or below its folder; a disk of vSphere by its path on its datastore. This disk should not be written to any more: its child
    /// would be refused.
    pub fn create_child(&self, path: &Path, disk_type: DiskType, progress: &mut dyn FnMut(u8)) -> Result<()> {
        let _inside = self.enter()?;
        let story = || format!("making {}, a child of {}", path.display(), self.label());
        self.check_base().context(story)?;
        let disk = self.disk();
        progress(0); // not while others wait
        disk.with_child_in_mind(|cid| self.make_child(path, disk_type, cid)).context(story)?;
        progress(100);
        self.library()
            .log()
            .info(|| format!("VixDiskLib: created {}, a child of {}", path.display(), self.label()));
        Ok(())
    }

    fn make_child(&self, path: &Path, disk_type: DiskType, parent_cid: u32) -> Result<()> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            let message = format!("{} names no file, or not in UTF-8", path.display());
            return Err(Error::new(ErrorKind::NameInvalid, message));
        };
        self.disk().check_depth(1)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize().context(|| format!("folder {}", folder.display()))?;
        let hint = self.hint(&folder)?;
        let capacity = Sectors(self.disk().capacity() / SECTOR);
        let mut random = [0; 28];
        os::random_bytes(&mut random).context(|| "random identity")?;
        let identity = NewIdentity { cid: new_cid(Some(parent_cid))?, ..NewIdentity::from_random(&random) };
        let spec = ChildSpec { disk_type, capacity, parent_cid, parent_hint: &hint };
        let layout = create::child(&spec, name, &identity)?;
        make_files(self.library().files(), &layout.files, &folder, &mut |_| {})?.keep();
        Ok(())
    }

    /// Whether [`OpenDisk::attach`] would work.
    pub fn check_attach(parent: &OpenDisk, child: &OpenDisk) -> Result<()> {
        let (_parent, _child) = (parent.enter()?, child.enter()?);
        parent.check_base().and(child.files().map(|_| ())).context(|| story(parent, child))?;
        parent.disk().check_below(child.disk()).context(|| story(parent, child))
    }

    /// Puts the chain of `child` on top of that of `parent` and gives the disk they are together; both are closed then,
    /// but for the files and the lock of the child. When they do not fit, nothing has happened.
    pub fn attach(parent: &Arc<OpenDisk>, child: &Arc<OpenDisk>) -> Result<Arc<OpenDisk>> {
        OpenDisk::check_attach(parent, child)?;
        let under = parent.lend()?;
        let joined = child
            .hand_over(under, |upper| Disk::stacked(upper, parent.disk()))
            .context(|| story(parent, child))?;
        let joined = Arc::new(joined);
        match child.home() {
            Some(connection) => connection.adopt(&joined)?,
            None => joined.watch_if_needed(),
        }
        let log = joined.library().log();
        log.info(|| format!("VixDiskLib: {} stands on {}", joined.label(), parent.label()));
        Ok(joined)
    }
}

fn story(parent: &OpenDisk, child: &OpenDisk) -> String {
    format!("attaching {} to {}", child.label(), parent.label())
}
