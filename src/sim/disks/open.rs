//! Opening a disk of this machine, as the library itself does it.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::disk::open::OpenOptions;
use crate::error::Context;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Presence;
use crate::format::stream::PackOptions;
use crate::logging::Log;
use crate::sim::disks::areas::Areas;
use crate::storage::Access;
use crate::storage::file_system::FileSystem;
use crate::storage::file_system::Host;
use crate::storage::lock::DiskLock;
use crate::transport::local;
use crate::transport::local::LocalFolder;

/// A disk that is open.
#[derive(Debug)]
pub struct OpenFile {
    /// The disk.
    pub disk: Disk,
    folder: Option<Arc<LocalFolder>>,
    lock: Option<DiskLock>,
}

/// What a disk is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Reading its whole chain.
    Read,
    /// Writing it, with its whole chain below.
    Write,
    /// Changing the description of the one link.
    Describe,
}

impl OpenFile {
    /// Opens the disk at `path`. A file that is no VMDK and is called `.img` or `.raw` is the disk itself.
    pub fn open(path: &Path, how: How, log: &Log) -> Result<OpenFile> {
        let what = || path.display().to_string();
        let write = how != How::Read;
        std::fs::metadata(path).context(what)?;
        let lock = if write { Some(DiskLock::acquire(path, Duration::ZERO, log)?) } else { None };
        let files: Arc<dyn FileSystem> = Arc::new(Host);
        let access = Access { write, ..Access::READ };
        let (place, folder) = local::open_place(&files, path, access, false)?;
        let (storage, identity) = (place.storage.clone(), place.identity);
        let options = OpenOptions {
            write,
            direct: false,
            single_link: how == How::Describe,
            table_cache: 16 << 20,
            grain_cache: 16 << 20,
            pack: PackOptions::without_threads(1),
            log: log.clone(),
        };
        let disk = match Disk::open(place, &options) {
            Err(e) if e.kind() == ErrorKind::NotADisk && is_raw(path) => Disk::raw(storage, write, identity)?,
            opened => opened.context(what)?,
        };
        Ok(OpenFile { disk, folder: Some(folder), lock })
    }

    /// The files of the chain, leaf first.
    pub fn chain(&self) -> Result<Vec<PathBuf>> {
        let real = |label: &str| PathBuf::from(label).canonicalize().context(|| label.to_owned());
        self.disk.links().iter().map(|link| real(link.label())).collect()
    }

    /// What the leaf holds itself, zeros included: what was written since it was made.
    pub fn own_areas(&self) -> Result<Areas> {
        let mut areas = Areas::default();
        self.own_parts(&mut |start, end, _| areas.add(start..end))?;
        Ok(areas)
    }

    /// Reports the parts that the leaf holds itself, and whether they are data.
    pub fn own_parts(&self, sink: &mut dyn FnMut(u64, u64, bool)) -> Result<()> {
        for piece in self.disk.leaf().pieces() {
            let base = piece.start();
            piece.image().scan(0..piece.end() - base, &mut |part, presence| {
                if presence != Presence::Unallocated {
                    sink(part.start + base, part.end + base, presence == Presence::Data);
                }
            })?;
        }
        Ok(())
    }

    /// What the whole chain holds.
    pub fn allocated(&self) -> Result<Areas> {
        let mut areas = Areas::default();
        self.disk.allocated(0..self.disk.capacity(), &mut |part| areas.add(part))?;
        Ok(areas)
    }

    /// Ends writing: everything stable, the locks given back.
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(folder) = self.folder.take() else { return Ok(()) };
        let finished = if self.disk.is_writable() { self.disk.finish() } else { Ok(()) };
        folder.release();
        if let Some(lock) = self.lock.take() {
            lock.release();
        }
        finished
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let _ = self.end(); // who wants to know calls `finish`
    }
}

fn is_raw(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("img") || end.eq_ignore_ascii_case("raw"))
}
