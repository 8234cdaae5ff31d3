//! Copies of whole disks, and what they will take.
//!
//! ```text
//!   target folder/.vmdk-copy-…/   the new disk grows here, complete and stable before anybody can see it
//!        │ extents                get names in the target folder
//!        ▼ descriptor             takes the target's name in one step: from here on the copy exists
//!   target folder/                then what was overwritten goes: its extents last
//! ```
//!
//! Whatever fails before the last step leaves the folder as it was. A process that is killed leaves the old disk, or none,
//! or the new one, and perhaps the hidden folder with further names for the files of both: the next copy into that folder
//! removes them (`leftover`).
//!
//! A copy is a disk of its own: new serial number and content ids, no parent. Geometry, tools version and comment are
//! those of the source; adapter, hardware version and kind are what the caller says, or those of the source.

mod files;
mod leftover;
mod likeness;
mod space;
mod staged;

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::copy;
use crate::disk::copy::Zeros;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create::DiskType;
use crate::format::geometry::Adapter;
use crate::os;
use crate::session::connect::Connection;
use crate::session::copy::files::SourceFiles;
use crate::session::copy::likeness::adopt;
use crate::session::copy::likeness::create_spec;
use crate::session::copy::staged::Staged;
use crate::session::create::create_local;
use crate::session::library::Library;
use crate::session::open_disk::OpenDisk;
use crate::session::open_disk::OpenFlags;
use crate::session::open_disk::pack_options;
use crate::session::open_disk::take_lock;
use crate::threads::SignalShield;

/// What a copy is asked to be. The rest comes from the source.
#[derive(Clone, Copy, Debug)]
pub struct CopySpec {
    /// The kind of disk.
    pub disk_type: DiskType,
    /// The adapter it is for.
    pub adapter: Adapter,
    /// Virtual hardware version, any number.
    pub hardware_version: u16,
}

/// Where a copy goes.
struct Target<'a> {
    path: &'a Path,
    /// Something exists there that may be replaced.
    replaces: bool,
}

impl Connection {
    /// Copies the disk at `source_path` to a new one at `path`, with `None` as one growing file. The copy is flat: a chain
    /// becomes one link. With `overwrite` an existing target is replaced once the copy is complete; else it is
    /// `AlreadyExists`. `progress` is called with ascending numbers up to 100 on this thread.
    pub fn copy_disk(
        &self,
        path: &Path,
        source: &Connection,
        source_path: &Path,
        spec: Option<&CopySpec>,
        overwrite: bool,
        progress: &mut dyn FnMut(u8),
    ) -> Result<()> {
        let library = self.library();
        let story = || format!("copying {} to {}", source_path.display(), path.display());
        let onto_export = self.is_remote(path).context(story)?;
        if onto_export && !overwrite {
            let text = format!("{} exists: an export is always there", path.display());
            return Err(Error::new(ErrorKind::AlreadyExists, text)).context(story);
        }
        let file = if onto_export { None } else { Some(existing(path, overwrite).context(story)?) };
        let disk = source.open_own(source_path, OpenFlags::READ_ONLY).context(story)?;
        let result = match &file {
            None => self.copy_onto_export(&disk, path, progress),
            Some((real, replaces)) => {
                let target = Target { path: real, replaces: *replaces };
                copy_to(library, &disk, source_path, &target, spec, progress)
            }
        };
        let closed = disk.close();
        result.context(story).and(closed)?;
        library.log().info(|| format!("VixDiskLib: copied {} to {}", source_path.display(), path.display()));
        progress(100);
        Ok(())
    }
}

impl Connection {
    /// Copies onto an export, which may be larger. A failure leaves it half written.
    fn copy_onto_export(&self, source: &OpenDisk, path: &Path, progress: &mut dyn FnMut(u8)) -> Result<()> {
        let copy = self.open_own(path, OpenFlags::empty())?;
        let filled =
            copy::overwrite(source.shared_disk(), copy.shared_disk(), os::with_signals_blocked, progress)
                .and_then(|()| copy.flush());
        let closed = copy.close();
        filled.and(closed)
    }
}

/// Whether another thread reads while one writes. On a single processor two threads would only take turns.
fn reader_ahead(library: &Library) -> Option<SignalShield> {
    (pack_options(&library.config()).workers > 0).then_some(os::with_signals_blocked as SignalShield)
}

/// The file that a target path means, and whether it is there already, which only `overwrite` permits.
fn existing(path: &Path, overwrite: bool) -> Result<(PathBuf, bool)> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            let real = folder.canonicalize().context(|| format!("folder {}", folder.display()))?;
            let name = path.file_name().ok_or_else(|| {
                Error::new(ErrorKind::NameInvalid, format!("{} names no file", path.display()))
            })?;
            Ok((real.join(name), false))
        }
        Err(e) => Err(Error::from_io(e, format!("looking for {}", path.display()))),
        Ok(_) if !overwrite => {
            Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display())))
        }
        Ok(_) => {
            let real = path.canonicalize().context(|| format!("resolving {}", path.display()))?;
            match fs::metadata(&real).context(|| real.display().to_string())?.is_file() {
                true => Ok((real, true)),
                false => Err(Error::new(ErrorKind::NotAFile, format!("{} is no file", path.display()))),
            }
        }
    }
}

/// Makes the copy and puts it in its place.
fn copy_to(
    library: &Arc<Library>,
    source: &OpenDisk,
    source_path: &Path,
    target: &Target<'_>,
    spec: Option<&CopySpec>,
    progress: &mut dyn FnMut(u8),
) -> Result<()> {
    let sources = match source.files() {
        Ok(_) => SourceFiles::of(source.disk(), source_path),
        Err(_) => SourceFiles::none(), // it is on a server
    };
    if target.replaces && sources.hold(target.path) {
        let message = format!("{} is a part of the source", target.path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let lock = if target.replaces { Some(take_lock(target.path, library.log())?) } else { None };
    leftover::remove_all(target, library);
    let made = make_copy(library, source, target, spec, progress);
    let result = made.and_then(|staged| staged.install(target, &sources, library));
    if let Some(lock) = lock {
        lock.release();
    }
    result
}

/// Makes the copy in a hidden folder.
fn make_copy<'a>(
    library: &'a Arc<Library>,
    source: &OpenDisk,
    target: &Target<'_>,
    spec: Option<&CopySpec>,
    progress: &mut dyn FnMut(u8),
) -> Result<Staged<'a>> {
    let disk = source.disk();
    let kind = spec.map_or(DiskType::MonolithicSparse, |spec| spec.disk_type);
    let create = create_spec(disk, Some(kind), spec);
    let staged = Staged::new(library, target, kind)?;
    create_local(&staged.disk(), &create, library, &mut |_| ())?;
    let copy = OpenDisk::open_local(library, &staged.disk(), OpenFlags::empty())?;
    let zeros = match kind {
        DiskType::MonolithicFlat | DiskType::SplitFlat | DiskType::VmfsFlat => Zeros::MayStay,
        _ => Zeros::LeaveOut,
    };
    let ahead = reader_ahead(library);
    let filled = adopt(disk, copy.disk(), create.adapter)
        .and_then(|()| copy::copy(source.shared_disk(), copy.disk(), zeros, ahead, progress))
        .and_then(|()| copy.flush());
    let closed = copy.close();
    filled.and(closed)?;
    Ok(staged)
}
