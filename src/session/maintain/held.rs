//! A closed link whose files nobody else may change meanwhile.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::anatomy::Anatomy;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::descriptor::ExtentLine;
use crate::session::library::Library;
use crate::session::open_disk::take_lock;
use crate::storage::Access;
use crate::storage::Folder;
use crate::storage::Storage;
use crate::storage::lock::DiskLock;
use crate::transport::local;
use crate::transport::local::LocalFolder;
use crate::units::byte_range;

/// A link, locked like one that is open for writing. Dropping it lets go.
#[derive(Debug)]
pub(super) struct Held {
    /// The path the caller gave.
    pub given: PathBuf,
    /// The file behind it: absolute, without symbolic links.
    pub path: PathBuf,
    pub storage: Arc<dyn Storage>,
    pub anatomy: Anatomy,
    /// For each extent the file of its own, if it has one.
    pub extents: Vec<Option<ExtentFile>>,
    /// Why an extent is not there.
    missing: Option<Error>,
    folder: Arc<LocalFolder>,
    lock: DiskLock,
}

/// The file of an extent.
#[derive(Clone, Debug)]
pub(super) struct ExtentFile {
    /// The folder of the description and that name.
    pub path: PathBuf,
    /// Where the extent ends in it, in bytes.
    pub end: u64,
    pub storage: Arc<dyn Storage>,
}

/// The file will be changed.
const WRITE: Access = Access { write: true, direct: false, device: false };

impl Held {
    /// Locks the link at `path`. `Locked` when it is open for writing somewhere.
    pub fn hold(path: &Path, library: &Library) -> Result<Held> {
        let lock = take_lock(path, library.log())?;
        let (place, folder) =
            local::open_place(library.files(), path, WRITE, library.config().extents_outside_folder())?;
        let anatomy = Anatomy::read(&*place.storage)?;
        let mut held = Held {
            given: path.to_owned(),
            path: folder.path().join(&place.name),
            storage: place.storage,
            anatomy,
            extents: Vec::new(),
            missing: None,
            folder,
            lock,
        };
        held.hold_extents()?;
        Ok(held)
    }

    fn hold_extents(&mut self) -> Result<()> {
        if self.anatomy.embedded.is_some() {
            return Ok(());
        }
        // One file may hold several extents; its lock can be taken once.
        let mut known: HashMap<PathBuf, Arc<dyn Storage>> = HashMap::new();
        for line in self.anatomy.descriptor.extents() {
            let what = || format!("extent {}", line.name.as_deref().unwrap_or("without a name"));
            let file = match hold_extent(&self.folder, line, &mut known) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.missing.get_or_insert(e.context(what()));
                    None
                }
                file => file.context(what)?,
            };
            self.extents.push(file);
        }
        Ok(())
    }

    /// Refuses a link whose extents are not all there.
    pub fn check_complete(&self) -> Result<()> {
        match &self.missing {
            Some(e) => Err(Error::new(e.kind(), e.to_string())),
            None => Ok(()),
        }
    }

    /// The folder that its names are relative to.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the text of a description that stands in a file of its own, in one step.
    pub fn replace_text(&self, text: &[u8]) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default(); // a file that was opened has a name
        self.folder.replace(name, text).map(drop)
    }

    /// The name of the description's file. A descriptor can only hold UTF-8 or less.
    pub fn name(&self) -> Result<&str> {
        self.path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::new(ErrorKind::Encoding, format!("the name {} is not in UTF-8", self.path.display()))
        })
    }

    /// The tracking file of this link, if it is an ordinary one next to it.
    pub fn tracking(&self) -> Option<(&str, PathBuf)> {
        let name = self.anatomy.descriptor.change_track_path()?;
        let path = self.folder.path().join(name);
        let ordinary = !name.contains('/')
            && name.to_ascii_lowercase().ends_with("-ctk.vmdk")
            && std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
        ordinary.then_some((name, path))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.folder.release();
        self.lock.release();
    }
}

/// Opens and locks the file of an extent. Devices are left alone: they are no files of the disk.
fn hold_extent(
    folder: &LocalFolder,
    line: &ExtentLine,
    known: &mut HashMap<PathBuf, Arc<dyn Storage>>,
) -> Result<Option<ExtentFile>> {
    let Some(name) = line.name.as_deref() else { return Ok(None) };
    let path = folder.path().join(name);
    let real = folder.permitted(name, Access { device: true, ..WRITE })?;
    if !std::fs::metadata(&real).context(|| real.display().to_string())?.is_file() {
        return Ok(None);
    }
    let storage = match known.get(&real) {
        Some(storage) => storage.clone(),
        None => folder.extent(name, WRITE)?,
    };
    known.insert(real, storage.clone());
    let end = byte_range(line.offset.bytes()?, line.sectors.bytes()?)?.end;
    Ok(Some(ExtentFile { path, end, storage }))
}
