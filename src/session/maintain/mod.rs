//! Work on the files of a closed local disk: deleting, renaming, growing; children and the chains they make.
//!
//! All of it keeps one order: the new state is complete and stable, then one step switches to it, then what is left of the
//! old state goes. Whatever dies in between leaves the old or the new disk, and nothing that looks like one and is none.

mod child;
mod children;
mod grow;
mod held;
mod rename;
mod unlink;

use std::path::Path;

use crate::error::{Context, Result};
use crate::session::connect::Connection;
use crate::session::library::Library;
use crate::units::Sectors;

pub(super) use rename::renamed;

impl Connection {
    /// Deletes one link: its description and its extents. Parents stay, children lose theirs.
    pub fn unlink(&self, path: &Path) -> Result<()> {
        self.check_usable()?;
        unlink::unlink(path, self.library()).context(|| format!("deleting {}", path.display()))
    }

    /// Makes a closed disk larger. `progress` is called with 0..=100 on this thread, 100 last.
    pub fn grow(
        &self,
        path: &Path,
        capacity: Sectors,
        update_geometry: bool,
        progress: &mut dyn FnMut(u8),
    ) -> Result<()> {
        self.check_usable()?;
        grow::grow(path, capacity, update_geometry, self.library(), progress)
            .context(|| format!("growing {}", path.display()))
    }
}

impl Library {
    /// Renames a disk with its extents, within one file system. Children in the folders concerned follow it.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        rename::rename(from, to, self).context(|| format!("renaming {} to {}", from.display(), to.display()))
    }
}
