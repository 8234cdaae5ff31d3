//! Making a disk larger.
//!
//! A flat file is made longer, further extents are made beside the old ones, a sparse file with the description inside gets
//! longer directories; the description, replaced last and in one step, makes all of it part of the disk. The last sparse
//! extent of a split disk grows to the end of its last grain only, since its header and the description cannot change at
//! the same time, and a header may be ahead by less than a grain. Further extents follow; behind one that ends inside a
//! grain, QEMU would misread them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::disk::anatomy::Anatomy;
use crate::disk::cid::new_cid;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create;
use crate::format::create::NewFile;
use crate::format::ddb;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentAccess;
use crate::format::descriptor::ExtentKind;
use crate::format::descriptor::ExtentLine;
use crate::format::geometry::Geometry;
use crate::format::sparse;
use crate::format::sparse::Header;
use crate::format::sparse::Sparse;
use crate::format::sparse::SparseOptions;
use crate::format::sparse::header::HEADER_BYTES;
use crate::session::create::make_files;
use crate::session::library::Library;
use crate::session::maintain::children;
use crate::session::maintain::children::children_of;
use crate::session::maintain::held::ExtentFile;
use crate::session::maintain::held::Held;
use crate::storage::Access;
use crate::storage::Storage;
use crate::storage::file_system::FileSystem;
use crate::storage::file_system::NamedFile;
use crate::units::Sectors;

/// Makes the disk at `path` one of `capacity` sectors. `update_geometry`: its database gets the geometry of a new disk of
/// that size.
pub(super) fn grow(
    path: &Path,
    capacity: Sectors,
    update_geometry: bool,
    library: &Library,
    progress: &mut dyn FnMut(u8),
) -> Result<()> {
    create::check_capacity(capacity)?;
    let held = Held::hold(path, library)?;
    held.check_complete()?;
    let growing = Growing { held: &held, capacity, update_geometry, library };
    let before = growing.check()?;
    progress(0);
    if before == capacity {
        if update_geometry {
            let descriptor = growing.described(held.anatomy.descriptor.extents(), false)?;
            children::put(&held, &descriptor)?;
        }
    } else if held.anatomy.embedded.is_some() {
        growing.grow_embedded()?;
    } else {
        growing.grow_extents(capacity.0 - before.0, progress)?;
    }
    progress(100);
    library
        .log()
        .info(|| format!("VixDiskLib: {} grew from {} to {} sectors", path.display(), before.0, capacity.0));
    Ok(())
}

/// Sectors by which the header of an extent may not be ahead of its description.
const AHEAD: u64 = 128;

struct Growing<'a> {
    held: &'a Held,
    capacity: Sectors,
    update_geometry: bool,
    library: &'a Library,
}

impl Growing<'_> {
    /// The size so far, of a disk that can grow to the size asked for.
    fn check(&self) -> Result<Sectors> {
        let descriptor = &self.held.anatomy.descriptor;
        let refused = |text: &str| Err(Error::new(ErrorKind::NotSupported, text));
        if descriptor.parent_cid().is_some() {
            return refused("a child has the size of its parent and cannot grow");
        }
        if self.held.anatomy.embedded.as_ref().is_some_and(|e| e.header.is_compressed()) {
            return refused("a stream-optimised disk cannot grow");
        }
        let before = descriptor.capacity()?;
        if self.capacity < before {
            let text = format!("the disk has {} sectors and cannot shrink to {}", before.0, self.capacity.0);
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let files = &**self.library.files();
        let children = children_of(files, &self.held.path, descriptor.cid(), &[self.held.folder()])?;
        match children.first() {
            Some(child) if self.capacity > before => {
                refused(&format!("{} is its child and would be of another size", child.display()))
            }
            _ => Ok(before),
        }
    }

    /// The description of the grown disk.
    fn described(&self, extents: &[ExtentLine], new_content: bool) -> Result<Descriptor> {
        let mut descriptor = self.held.anatomy.descriptor.clone();
        descriptor.set_links(extents, None)?;
        if new_content {
            descriptor.set_cid(new_cid(descriptor.cid())?)?;
            descriptor.stop_change_tracking()?;
        }
        if self.update_geometry {
            let adapter = ddb::adapter(descriptor.ddb("adapterType"));
            let geometry = Geometry::for_capacity(self.capacity, adapter);
            for (key, value) in [
                ("geometry.cylinders", geometry.cylinders),
                ("geometry.heads", geometry.heads),
                ("geometry.sectors", geometry.sectors),
            ] {
                descriptor.set_ddb(key, &value.to_string())?;
            }
        }
        Ok(descriptor)
    }

    fn grow_embedded(&self) -> Result<()> {
        let storage = &self.held.storage;
        let mut extents = self.held.anatomy.descriptor.extents().to_vec();
        let [only] = &mut extents[..] else {
            return Err(Error::new(ErrorKind::Corrupt, "an embedded description with several extents"));
        };
        let header = self.orderly_header(storage, only.sectors)?;
        only.sectors = self.capacity;
        let text = self.described(&extents, true)?.to_bytes()?;
        sparse::grow(&**storage, &header, self.capacity, &text).context(|| storage.label())
    }

    /// Compares all tables of a sparse extent of `sectors`, and mends what a crash left behind. The header it has then.
    fn orderly_header(&self, storage: &Arc<dyn Storage>, sectors: Sectors) -> Result<Header> {
        let options = SparseOptions {
            writable: true,
            cache_bytes: self.library.config().grain_table_cache(),
            log: self.library.log().clone(),
            name: storage.label(),
        };
        drop(Sparse::open(storage.clone(), &options)?);
        let mut sector = [0; HEADER_BYTES];
        storage.read_at(&mut sector, 0)?;
        let header = Header::parse(&sector, storage.size()?)?;
        if sectors > header.capacity {
            let message =
                format!("the description says {} sectors, the header {}", sectors.0, header.capacity.0);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(header)
    }

    /// Grows a disk of extents in files of their own by `more` sectors.
    fn grow_extents(&self, more: u64, progress: &mut dyn FnMut(u8)) -> Result<()> {
        let layout = Layout::of(self.held)?;
        let thin = self.held.anatomy.descriptor.ddb("thinProvisioned").and_then(ddb::number) == Some(1);
        let mut extents = self.held.anatomy.descriptor.extents().to_vec();
        let piece = match layout.split {
            Some(_) => {
                let largest = extents.iter().map(|extent| extent.sectors.0).max().unwrap_or(0);
                create::piece_sectors(self.capacity).max(largest)
            }
            None => u64::MAX,
        };
        let mut left = more;
        let mut longer = None;
        if let Some(last) = extents.last_mut() {
            let sparse = last.kind == ExtentKind::Sparse;
            let room =
                if sparse { self.fill_grain(&layout, last.sectors, left)? } else { piece - last.sectors.0 };
            let part = left.min(room);
            last.sectors.0 += part;
            left -= part;
            longer = if sparse { None } else { Some(last.sectors.bytes()?) };
        }
        let files = self.further(&layout, &mut extents, left, piece, thin)?;
        let descriptor = self.described(&extents, true)?;
        let tail =
            longer.map(|len| Tail::lengthen(&**self.library.files(), layout.last, len, thin)).transpose()?;
        let made = make_files(self.library.files(), &files, self.held.folder(), progress)?;
        let put = children::put(self.held, &descriptor);
        // A description that has its name but perhaps not for good names these files too.
        if put.is_ok() || self.is_described(&extents) {
            made.keep();
            tail.into_iter().for_each(Tail::keep);
        }
        put
    }

    /// Makes room for up to `wanted` sectors in the last grain of a sparse extent of `sectors`.
    fn fill_grain(&self, layout: &Layout<'_>, sectors: Sectors, wanted: u64) -> Result<u64> {
        let storage = &layout.last.storage;
        let header = self.orderly_header(storage, sectors)?;
        let room = sectors.0.next_multiple_of(header.grain.0) - sectors.0;
        if room >= AHEAD {
            let message = "its last sparse extent ends inside a grain of an unusual size";
            return Err(Error::new(ErrorKind::NotSupported, message));
        }
        let part = room.min(wanted);
        let capacity = Sectors(sectors.0 + part);
        if capacity > header.capacity {
            sparse::fill_last_grain(&**storage, &header, capacity).context(|| storage.label())?;
        }
        Ok(part)
    }

    fn is_described(&self, extents: &[ExtentLine]) -> bool {
        self.library
            .files()
            .open(&self.held.path, Access::READ)
            .and_then(|file| Anatomy::read(&*file))
            .is_ok_and(|now| now.descriptor.extents() == extents)
    }

    /// Adds extents for `left` sectors; their files.
    fn further(
        &self,
        layout: &Layout<'_>,
        extents: &mut Vec<ExtentLine>,
        mut left: u64,
        piece: u64,
        thin: bool,
    ) -> Result<Vec<NewFile>> {
        let mut files = Vec::new();
        let mut number = extents.len() as u64;
        while left > 0
            && let Some(letter) = layout.split
        {
            number += 1;
            let name = create::split_name(self.held.name()?, letter, number);
            let taken = std::fs::symlink_metadata(self.held.folder().join(&name)).is_ok();
            if taken || extents.iter().any(|extent| extent.name.as_deref() == Some(&name)) {
                continue; // left by a growing that died, or by a disk whose extents are numbered otherwise
            }
            let sectors = Sectors(left.min(piece));
            let (access, offset) = (ExtentAccess::ReadWrite, Sectors(0));
            let extent = ExtentLine { access, sectors, kind: layout.kind, name: Some(name), offset };
            files.push(match layout.kind {
                ExtentKind::Sparse => create::sparse_extent(&extent)?,
                _ => create::flat_file(&extent, !thin)?,
            });
            left -= sectors.0;
            extents.push(extent);
        }
        Ok(files)
    }
}

/// What the extents of a disk that can grow are.
struct Layout<'a> {
    kind: ExtentKind,
    /// The letter in the names of the pieces.
    split: Option<char>,
    last: &'a ExtentFile,
}

impl Layout<'_> {
    fn of(held: &Held) -> Result<Layout<'_>> {
        let extents = held.anatomy.descriptor.extents();
        let refused = |text: String| Err(Error::new(ErrorKind::NotSupported, text));
        let (Some(first), Some(Some(last))) = (extents.first(), held.extents.last()) else {
            return refused("the last extent has no file that could grow".into());
        };
        let kind = first.kind;
        let alike = |extent: &ExtentLine| {
            extent.kind == kind && extent.access == ExtentAccess::ReadWrite && extent.offset.0 == 0
        };
        let files: BTreeSet<_> =
            held.extents.iter().flatten().filter_map(|file| file.path.canonicalize().ok()).collect();
        if !extents.iter().all(alike) || files.len() != extents.len() {
            return refused("a disk of different extents cannot grow".into());
        }
        let name = held.anatomy.descriptor.create_type().unwrap_or_default().to_ascii_lowercase();
        let split = name.starts_with("twogbmaxextent") || name.starts_with("2gbmaxextent");
        match (kind, split, extents.len()) {
            (ExtentKind::Sparse, true, _) => Ok(Layout { kind, split: Some('s'), last }),
            (ExtentKind::Flat, true, _) => Ok(Layout { kind, split: Some('f'), last }),
            (ExtentKind::Flat | ExtentKind::Vmfs, false, 1) => Ok(Layout { kind, split: None, last }),
            _ => refused(format!("a disk of type {name:?} with {} extents cannot grow", kind.word())),
        }
    }
}

/// A flat file that is longer than its extent, cut off again unless kept.
struct Tail {
    file: Arc<dyn NamedFile>,
    before: u64,
    keep: bool,
}

impl Tail {
    fn lengthen(files: &dyn FileSystem, extent: &ExtentFile, len: u64, thin: bool) -> Result<Tail> {
        let file = files.open(&extent.path, Access { write: true, ..Access::READ })?;
        let before = extent.storage.size()?;
        if before < extent.end {
            let text =
                format!("{} has {before} bytes, its extent ends at {}", extent.path.display(), extent.end);
            return Err(Error::new(ErrorKind::EndOfFile, text));
        }
        let tail = Tail { file, before, keep: false };
        tail.check_zeros(extent)?;
        if before < len {
            match thin {
                true => tail.file.set_len(len)?,
                false => tail.file.preallocate(before..len, &mut |_| {})?,
            }
        }
        tail.file.flush()?;
        Ok(tail)
    }

    /// What becomes part of the disk must read as zeros; a file may be longer than its extent already.
    fn check_zeros(&self, extent: &ExtentFile) -> Result<()> {
        let mut parts = Vec::new();
        self.file.allocated(extent.end..self.before, &mut |part| parts.push(part))?;
        let mut buf = vec![0; 1 << 20];
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                let len = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(buf.len());
                let window = buf.get_mut(..len).unwrap_or_default();
                self.file.read_at(window, at)?;
                if window.iter().any(|&byte| byte != 0) {
                    let text = format!(
                        "{} holds something behind its extent's end at {}",
                        extent.path.display(),
                        extent.end
                    );
                    return Err(Error::new(ErrorKind::NotSupported, text));
                }
                at += len as u64;
            }
        }
        Ok(())
    }

    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if !self.keep {
            let _ = self.file.set_len(self.before); // the fault that led here is the one to tell
        }
    }
}
