//! Checking a local disk and mending it; giving unused space back and putting grains in order.

use std::path::Path;

use crate::disk::check::check_link;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::Arrange;
use crate::session::connect::Connection;
use crate::session::open_disk::OpenDisk;
use crate::session::open_disk::take_lock;
use crate::storage::Access;
use crate::transport::local;

impl Connection {
    /// Checks one link: its descriptor, its sparse extents, its parents' content ids. Every fault is a line in the log.
    ///
    /// Without `repair` nothing is changed, and success says that the check was made, whatever it found. With `repair`
    /// success says that nothing is wrong any more; [`ErrorKind::CantRepair`] that something is left that could be mended
    /// only by guessing. A disk that somebody writes to is [`ErrorKind::Locked`]: its tables are changing.
    pub fn check_repair(&self, path: &Path, repair: bool) -> Result<()> {
        self.check_usable()?;
        self.check_local(path, repair).context(|| format!("checking {}", path.display()))
    }

    fn check_local(&self, path: &Path, repair: bool) -> Result<()> {
        let library = self.library();
        let log = library.log();
        let _lock = match take_lock(path, log) {
            // Who cannot make a lock file in the folder can still look.
            Err(e) if !repair && matches!(e.kind(), ErrorKind::AccessDenied | ErrorKind::ReadOnly) => None,
            lock => Some(lock?),
        };
        let access = Access { write: repair, ..Access::READ };
        let (place, folder) =
            local::open_place(library.files(), path, access, library.config().extents_outside_folder())?;
        let verdict = check_link(&place, repair, log);
        folder.release();
        let verdict = verdict?;
        log.info(|| {
            format!(
                "VixDiskLib: checked {}: {} faults found, {} mended.",
                path.display(),
                verdict.found,
                verdict.mended
            )
        });
        match verdict.left() {
            left if repair && left > 0 => {
                let text = format!("{left} of {} faults cannot be mended without guessing", verdict.found);
                Err(Error::new(ErrorKind::CantRepair, text))
            }
            _ => Ok(()),
        }
    }
}

impl OpenDisk {
    /// Gives the space of grains that hold only zeros back. `progress` is called with 0..=100 on this thread, 100 last.
    /// Other calls on the disk meanwhile, also from `progress`, are [`ErrorKind::Busy`].
    pub fn shrink(&self, progress: &mut dyn FnMut(u8)) -> Result<()> {
        self.rearrange(Arrange::Close, progress)
    }

    /// Puts the grains of the disk in order; see [`OpenDisk::shrink`].
    pub fn defragment(&self, progress: &mut dyn FnMut(u8)) -> Result<()> {
        self.rearrange(Arrange::Order, progress)
    }

    fn rearrange(&self, how: Arrange, progress: &mut dyn FnMut(u8)) -> Result<()> {
        self.files()?;
        let freed = self.alone(|disk| disk.rearrange(how, progress))?;
        self.library().log().info(|| format!("VixDiskLib: {} is {freed} bytes shorter.", self.label()));
        Ok(())
    }
}
