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
//! or the new one, and perhaps the hidden folder, which may be deleted.
//!
//! A copy is a disk of its own: new serial number and content ids, no parent. Geometry, tools version and comment are
//! those of the source; adapter, hardware version and kind are what the caller says, or those of the source.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::copy;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create;
use crate::format::create::CreateSpec;
use crate::format::create::DiskType;
use crate::format::create::NewIdentity;
use crate::format::ddb;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentKind;
use crate::format::geometry::Adapter;
use crate::session::connect::Connection;
use crate::session::create::create_local;
use crate::session::library::Library;
use crate::session::metadata;
use crate::session::open_disk::OpenDisk;
use crate::session::open_disk::OpenFlags;
use crate::session::open_disk::pack_options;
use crate::session::open_disk::take_lock;
use crate::storage::file_system::FileSystem;
use crate::storage::names;
use crate::storage::names::NewNames;
use crate::storage::os;
use crate::threads::SignalShield;
use crate::units::SECTOR;
use crate::units::Sectors;

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

/// Keys of the database that a copy keeps, besides geometry.
const KEPT: [&str; 3] = ["toolsVersion", "toolsInstallType", "comment"];
/// Keys that a copy keeps when its adapter counts the same way.
const KEPT_GEOMETRY: [&str; 6] = [
    "geometry.cylinders",
    "geometry.heads",
    "geometry.sectors",
    "geometry.biosCylinders",
    "geometry.biosHeads",
    "geometry.biosSectors",
];
/// A longer value may not fit where the new descriptor stands.
const LONGEST_KEPT: usize = 1024;
/// The hardware version of a copy of a disk that names none.
const HARDWARE_VERSION: u16 = 4;
/// File systems give space in pieces of this.
const BLOCK: u64 = 4096;
/// What a file system needs to note where data is, as a part of the data: 12 bytes for 64 KiB, and generously rounded up.
const PIECE_LIST: u64 = 2048;

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
        self.check_usable()?;
        source.check_usable()?;
        let library = self.library();
        let story = || format!("copying {} to {}", source_path.display(), path.display());
        let (real, replaces) = existing(path, overwrite).context(story)?;
        let target = Target { path: &real, replaces };
        let disk =
            OpenDisk::open_local(source.library(), source_path, OpenFlags::READ_ONLY).context(story)?;
        let result = copy_to(library, &disk, source_path, &target, spec, progress).context(story);
        let closed = disk.close();
        result.and(closed)?;
        library.log().info(|| format!("VixDiskLib: copied {} to {}", source_path.display(), path.display()));
        progress(100);
        Ok(())
    }
}

impl OpenDisk {
    /// Bytes of all files of a copy of this kind, `None` for a copy of the disk's own kind. For kinds that leave zeros out
    /// the data is read, and for stream-optimised disks packed, so that the answer is exact but for what file systems add;
    /// that takes as long as reading or packing takes.
    pub fn space_for_copy(&self, kind: Option<DiskType>) -> Result<u64> {
        let _inside = self.enter()?;
        let source = self.disk();
        let disk_type = kind.unwrap_or_else(|| kind_of(source));
        let spec = create_spec(source, Some(disk_type), None);
        let story = || format!("space for a copy of {}", self.label());
        let layout =
            create::layout(&spec, "copy.vmdk", &NewIdentity::from_random(&[0; 28])).context(story)?;
        let fixed: u64 = layout.files.iter().map(|file| file.len.next_multiple_of(BLOCK)).sum();
        let used = |piece| Ok::<u64, Error>(copy::used_bytes(source).context(story)?.next_multiple_of(piece));
        match disk_type {
            DiskType::MonolithicSparse | DiskType::SplitSparse => Ok(fixed.saturating_add(used(copy::UNIT)?)),
            DiskType::VmfsThin => {
                let used = used(BLOCK)?;
                let fixed = fixed.saturating_sub(spec.capacity.bytes()?.next_multiple_of(BLOCK));
                // A file with holes also has a list of its pieces.
                Ok(fixed.saturating_add(used).saturating_add(used / PIECE_LIST).saturating_add(4 * BLOCK))
            }
            DiskType::StreamOptimized => {
                let packing = pack_options(&self.library().config());
                Ok(copy::packed_size(source, packing).context(story)?.next_multiple_of(BLOCK))
            }
            _ => Ok(fixed),
        }
    }
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
    let sources = files_of_chain(source.disk(), source_path);
    if target.replaces && sources.contains(target.path) {
        let message = format!("{} is a part of the source", target.path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let lock = if target.replaces { Some(take_lock(target.path, library.log())?) } else { None };
    let made = make_copy(library, source, target, spec, progress);
    let result = made.and_then(|staged| staged.install(target, &sources, library));
    if let Some(lock) = lock {
        lock.release();
    }
    result
}

/// Makes the copy in a hidden folder.
fn make_copy(
    library: &Arc<Library>,
    source: &OpenDisk,
    target: &Target<'_>,
    spec: Option<&CopySpec>,
    progress: &mut dyn FnMut(u8),
) -> Result<Staged> {
    let disk = source.disk();
    let kind = spec.map_or(DiskType::MonolithicSparse, |spec| spec.disk_type);
    let create = create_spec(disk, Some(kind), spec);
    let staged = Staged::new(library.files(), target, kind)?;
    create_local(&staged.disk(), &create, library, &mut |_| ())?;
    let copy = OpenDisk::open_local(library, &staged.disk(), OpenFlags::empty())?;
    // On a single processor two threads would only take turns.
    let ahead =
        (pack_options(&library.config()).workers > 0).then_some(os::with_signals_blocked as SignalShield);
    let filled = adopt(disk, copy.disk(), create.adapter)
        .and_then(|()| copy::copy(source.shared_disk(), copy.disk(), ahead, progress))
        .and_then(|()| copy.flush());
    let closed = copy.close();
    filled.and(closed)?;
    Ok(staged)
}

/// The kind of disk that comes closest to one that exists.
fn kind_of(disk: &Disk) -> DiskType {
    disk.leaf().with_descriptor(|descriptor| {
        let thin = descriptor.ddb("thinProvisioned") == Some("1");
        let flat = descriptor.extents().iter().all(|extent| {
            !matches!(extent.kind, ExtentKind::Sparse | ExtentKind::VmfsSparse | ExtentKind::SeSparse)
        });
        match descriptor.create_type().unwrap_or_default().to_ascii_lowercase().as_str() {
            "streamoptimized" => DiskType::StreamOptimized,
            "twogbmaxextentsparse" | "2gbmaxextentsparse" => DiskType::SplitSparse,
            "twogbmaxextentflat" | "2gbmaxextentflat" => DiskType::SplitFlat,
            "vmfsthin" => DiskType::VmfsThin,
            "vmfs" if thin => DiskType::VmfsThin,
            name if flat && name.starts_with("vmfs") => DiskType::VmfsFlat,
            _ if flat => DiskType::MonolithicFlat,
            _ => DiskType::MonolithicSparse,
        }
    })
}

/// What a copy is made as: what the caller says, then what the source says.
fn create_spec(source: &Disk, kind: Option<DiskType>, spec: Option<&CopySpec>) -> CreateSpec {
    let value = |key| metadata::value(source, key).ok();
    let version = || value("virtualHWVersion").as_deref().and_then(ddb::number);
    CreateSpec {
        disk_type: kind.unwrap_or(DiskType::MonolithicSparse),
        adapter: spec.map_or_else(|| ddb::adapter(value("adapterType").as_deref()), |spec| spec.adapter),
        hardware_version: spec.map_or_else(
            || version().and_then(|n| u16::try_from(n).ok()).unwrap_or(HARDWARE_VERSION),
            |spec| spec.hardware_version,
        ),
        capacity: Sectors(source.capacity() / SECTOR),
        logical_sector_size: ddb::sector_size(value("logicalSectorSize").as_deref()),
        physical_sector_size: ddb::sector_size(value("physicalSectorSize").as_deref()),
    }
}

/// Writes what the copy keeps of its source's database.
fn adopt(source: &Disk, copy: &Disk, adapter: Adapter) -> Result<()> {
    let before = ddb::adapter(metadata::value(source, "adapterType").ok().as_deref());
    let same_geometry = (before == Adapter::Ide) == (adapter == Adapter::Ide);
    let geometry = if same_geometry { &KEPT_GEOMETRY[..] } else { &[] };
    let kept: Vec<(&str, String)> = KEPT
        .iter()
        .chain(geometry)
        .filter_map(|key| Some((*key, metadata::value(source, key).ok()?)))
        .filter(|(_, value)| value.len() <= LONGEST_KEPT)
        .collect();
    copy.leaf().change_descriptor(|descriptor| {
        for (key, value) in &kept {
            let _ = descriptor.set_ddb(key, value); // what UTF-8 cannot hold does not make the copy worthless
        }
        Ok(())
    })
}

/// Every file of the chain, as far as paths can tell.
fn files_of_chain(disk: &Disk, path: &Path) -> HashSet<PathBuf> {
    let mut files = HashSet::new();
    for (i, link) in disk.links().iter().enumerate() {
        let path = if i == 0 { path.to_owned() } else { PathBuf::from(link.label()) };
        link.with_descriptor(|descriptor| files.extend(files_of_link(&path, descriptor)));
    }
    files
}

/// The files of one link that exist, without symbolic links.
fn files_of_link(path: &Path, descriptor: &Descriptor) -> Vec<PathBuf> {
    let Ok(real) = path.canonicalize() else { return Vec::new() };
    let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
    let extents = descriptor.extents().iter().filter_map(|extent| extent.name.as_deref());
    let extents = extents.filter_map(|name| folder.join(name).canonicalize().ok());
    std::iter::once(real.clone()).chain(extents).collect()
}

/// The extents of the disk at `path` that are files of their own beside it. What is no disk has none.
fn extents_beside(path: &Path) -> Vec<PathBuf> {
    const LONGEST: u64 = 16 << 20;
    let is_text = fs::metadata(path).is_ok_and(|meta| meta.len() <= LONGEST);
    let Some(bytes) = is_text.then(|| fs::read(path).ok()).flatten() else { return Vec::new() };
    if !Descriptor::looks_like(&bytes) {
        return Vec::new();
    }
    let Ok(descriptor) = Descriptor::parse(&bytes) else { return Vec::new() };
    let beside = |file: &PathBuf| file != path && file.parent() == path.parent();
    let mut files = files_of_link(path, &descriptor);
    files.retain(beside);
    files.retain(|file| fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file()));
    files
}

/// A disk in a hidden folder of its own, which is removed with everything in it when this is dropped.
struct Staged {
    files: Arc<dyn FileSystem>,
    folder: PathBuf,
    /// Its name there: extents are called after it.
    name: String,
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = names::remove_tree(&*self.files, &self.folder); // an error that led here is the one to tell
    }
}

impl Staged {
    /// An empty folder beside the target.
    fn new(files: &Arc<dyn FileSystem>, target: &Target<'_>, kind: DiskType) -> Result<Staged> {
        let (folder, name) = split(target.path)?;
        let mut random = [0; 4];
        os::random_bytes(&mut random).context(|| "random name")?;
        let hidden = folder.join(format!(".vmdk-copy-{:08x}", u32::from_le_bytes(random)));
        files.make_folder(&hidden)?;
        let mut staged = Staged { files: files.clone(), folder: hidden, name: name.to_owned() };
        let one_file = matches!(kind, DiskType::MonolithicSparse | DiskType::StreamOptimized);
        if target.replaces && !one_file {
            // What is there stays whole until the copy has its name: the extents of the copy need names of their own.
            staged.name = free_name(&**files, folder, name);
        }
        Ok(staged)
    }

    fn disk(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Moves the disk to its place.
    fn install(self, target: &Target<'_>, sources: &HashSet<PathBuf>, library: &Arc<Library>) -> Result<()> {
        let (folder, _) = split(target.path)?;
        let old = if target.replaces { extents_beside(target.path) } else { Vec::new() };
        let mut moved = NewNames::on(&self.files);
        let mut new = Vec::new();
        for path in self.files.list(&self.folder)? {
            let Some(name) = path.file_name() else { continue };
            if *name != *self.name && path.is_file() {
                let place = folder.join(name);
                move_new(&*self.files, &path, &place)?;
                moved.add(place.clone());
                new.push(place);
            }
        }
        self.files.flush_folder(folder)?;
        match target.replaces {
            true => {
                keep_rights(target.path, &self.disk());
                let what = || format!("replacing {}", target.path.display());
                self.files.rename(&self.disk(), target.path).context(what)?;
            }
            false => move_new(&*self.files, &self.disk(), target.path)?,
        }
        moved.keep();
        self.files.flush_folder(folder)?;
        // The copy is there: an old file that stays behind is no reason to call it failed.
        for file in old.iter().filter(|file| !new.contains(file) && !sources.contains(*file)) {
            if let Err(e) = self.files.remove(file) {
                let line = format!("{} of the overwritten disk was not removed: {e}", file.display());
                library.log().warning(|| line);
            }
        }
        Ok(())
    }
}

/// Folder and name of a path; the name as text, since descriptors hold it.
fn split(path: &Path) -> Result<(&Path, &str)> {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(Error::new(
            ErrorKind::NameInvalid,
            format!("{} names no file, or not in UTF-8", path.display()),
        )),
    }
}

/// `name`, or `name` with a number, such that no file in `folder` begins with it and a dash.
fn free_name(files: &dyn FileSystem, folder: &Path, name: &str) -> String {
    let (base, end) = match name.len().checked_sub(5).and_then(|at| name.split_at_checked(at)) {
        Some((base, end)) if end.eq_ignore_ascii_case(".vmdk") => (base, end),
        _ => (name, ""),
    };
    let taken = files.list(folder).unwrap_or_default();
    let name_of = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let taken: Vec<String> = taken.iter().filter_map(name_of).collect();
    let is_free = |base: &String| !taken.iter().any(|name| name.starts_with(&format!("{base}-")));
    let numbered = (1u64..).map(|n| format!("{base}-{n}"));
    let free = std::iter::once(base.to_owned()).chain(numbered).find(is_free);
    free.unwrap_or_else(|| base.to_owned()) + end
}

/// Gives a file a new name that nobody has; an existing one is an error, and the old name stays then.
fn move_new(files: &dyn FileSystem, from: &Path, to: &Path) -> Result<()> {
    match files.link(from, to) {
        Ok(()) => {
            let _ = files.remove(from); // if not now, with its folder
            Ok(())
        }
        // A file system whose files have one name only.
        Err(e) if e.kind() == ErrorKind::NotSupported => match fs::symlink_metadata(to) {
            Ok(_) => Err(e.with_kind(ErrorKind::AlreadyExists).context(format!("{} exists", to.display()))),
            Err(_) => files.rename(from, to),
        },
        Err(e) => Err(e),
    }
}

/// The new file gets the mode of the one it replaces.
fn keep_rights(old: &Path, new: &Path) {
    if let Ok(meta) = fs::metadata(old) {
        let _ = fs::set_permissions(new, meta.permissions()); // as good as it gets on this file system
    }
}
