//! The check of one link that may be damaged: its descriptor, its extents, and its place in the chain.
//!
//! | extent | checked | mended |
//! |---|---|---|
//! | hosted sparse | header, tables, grains' places | what is not a guess |
//! | stream-optimised | header, footer, tables, every grain | tables and footer, from the grains' markers |
//! | COWD, SESparse | headers, tables, grains' places | nothing: they are their host's |
//! | flat | the file and its length | nothing |
//!
//! The parents are looked at but not changed, and neither is a content id that does not match: whether the parent has
//! changed since the child was made cannot be known, and a chain that is wrong must not look right.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::open::MAX_DESCRIPTOR;
use crate::disk::open::OpenOptions;
use crate::disk::open::names_device;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::u32_at;
use crate::format::bytes::u64_at;
use crate::format::check::CheckOptions;
use crate::format::check::Verdict;
use crate::format::cowd::Cowd;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentAccess;
use crate::format::descriptor::ExtentKind;
use crate::format::descriptor::ExtentLine;
use crate::format::flat::Flat;
use crate::format::sesparse::SeSparse;
use crate::format::sparse;
use crate::format::sparse::header::FLAG_COMPRESSED;
use crate::format::stream::PackOptions;
use crate::format::stream::Stream;
use crate::logging::Log;
use crate::storage::Access;
use crate::storage::Place;
use crate::storage::Storage;
use crate::units::SECTOR;

/// A link that is being checked.
struct Link<'a> {
    place: &'a Place,
    repair: bool,
    log: &'a Log,
}

/// Checks the link at `place`, opened for writing when `repair` is set, which mends what can be mended without guessing.
/// Each fault is a line in `log`. `Err`: the check could not be made.
pub fn check_link(place: &Place, repair: bool, log: &Log) -> Result<Verdict> {
    let link = Link { place, repair, log };
    let size = place.storage.size()?;
    let mut head = [0; SECTOR as usize];
    if size < SECTOR {
        return link.text_file(size);
    }
    place.storage.read_at(&mut head, 0)?;
    match head.get(..4) {
        Some(b"KDMV") => link.embedded(&head, size),
        Some(b"kdmv") => Err(Error::new(ErrorKind::NotADisk, "its writer has not finished it (magic kdmv)")),
        // The delta's descriptor is another file, and so not known here.
        Some(b"COWD") => link.tables(ExtentKind::VmfsSparse, &place.storage, &place.label, true, None),
        Some(b"\xbe\xba\xfe\xca") => {
            link.tables(ExtentKind::SeSparse, &place.storage, &place.label, true, None)
        }
        _ => link.text_file(size),
    }
}

impl Link<'_> {
    fn fault(&self, text: impl AsRef<str>) -> Verdict {
        self.log.warning(|| format!("{}: {}", self.place.label, text.as_ref()));
        Verdict { found: 1, mended: 0 }
    }

    /// A sparse extent that carries its descriptor.
    fn embedded(&self, head: &[u8], size: u64) -> Result<Verdict> {
        let descriptor = descriptor_inside(&*self.place.storage, head, size);
        // As long as it is not known, there may be a parent.
        let has_parent = descriptor.as_ref().map_or(true, |d| d.parent_cid().is_some());
        let sectors = descriptor.as_ref().ok().and_then(|d| match d.extents() {
            [only] => Some(only.sectors.0),
            _ => None,
        });
        let place = self.place;
        let verdict = self.tables(ExtentKind::Sparse, &place.storage, &place.label, has_parent, sectors)?;
        match descriptor {
            Ok(descriptor) => {
                let fixed = verdict.left() > 0 || is_packed(head);
                Ok(verdict.and(self.chain(&descriptor, verdict.left() > 0, fixed)?))
            }
            Err(e) => Ok(verdict.and(self.fault(format!("descriptor: {e}")))),
        }
    }

    fn text_file(&self, size: u64) -> Result<Verdict> {
        if size > MAX_DESCRIPTOR {
            return Err(Error::new(ErrorKind::NotADisk, format!("a descriptor of {size} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.place.storage.read_at(&mut bytes, 0)?;
        let descriptor = Descriptor::parse(&bytes)?;
        let has_parent = descriptor.parent_cid().is_some();
        let mut verdict = Verdict::default();
        for line in descriptor.extents() {
            verdict = verdict.and(match self.extent(&descriptor, line, has_parent) {
                // The other extents are looked at all the same.
                Err(e) if is_damage(e.kind()) => self.fault(format!("{e}")),
                verdict => verdict?,
            });
        }
        let damaged = verdict.left() > 0;
        Ok(verdict.and(self.chain(&descriptor, damaged, damaged)?))
    }

    /// One extent of a text descriptor. That it is missing is a fault, that it cannot be read an error.
    fn extent(&self, descriptor: &Descriptor, line: &ExtentLine, has_parent: bool) -> Result<Verdict> {
        let Some(name) = line.name.as_deref() else { return Ok(Verdict::default()) };
        if line.access == ExtentAccess::NoAccess {
            return Ok(Verdict::default());
        }
        let write = self.repair && line.kind == ExtentKind::Sparse;
        let access = Access { write, direct: false, device: names_device(descriptor, line.kind) };
        let storage = match self.place.folder.extent(name, access) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(self.fault(format!("{e}"))),
            opened => opened?,
        };
        match line.kind {
            ExtentKind::Sparse | ExtentKind::VmfsSparse | ExtentKind::SeSparse => {
                self.tables(line.kind, &storage, name, has_parent, Some(line.sectors.0))
            }
            ExtentKind::Flat | ExtentKind::Vmfs => {
                let alone = descriptor.extents().iter().filter(|other| other.name == line.name).count() == 1;
                self.flat(storage, line, alone && !access.device)
            }
            ExtentKind::Zero | ExtentKind::VmfsRdm | ExtentKind::VmfsRaw => Ok(Verdict::default()),
        }
    }

    /// The length of a flat extent's file, which holds nothing else if it is `alone`.
    fn flat(&self, storage: Arc<dyn Storage>, line: &ExtentLine, alone: bool) -> Result<Verdict> {
        let (label, size) = (storage.label(), storage.size()?);
        let (start, len) = (line.offset.bytes()?, line.sectors.bytes()?);
        match Flat::open(storage, start, len, false) {
            Err(e) if e.kind() == ErrorKind::Io => Err(e),
            Err(e) => Ok(self.fault(format!("{e}"))),
            Ok(_) if alone && size > start.saturating_add(len) => Ok(self.fault(format!(
                "{label}: the file has {size} bytes, the descriptor knows of {len} at {start}: one of them is wrong"
            ))),
            Ok(_) => Ok(Verdict::default()),
        }
    }

    /// An extent whose grains are found through tables.
    fn tables(
        &self,
        kind: ExtentKind,
        storage: &Arc<dyn Storage>,
        name: &str,
        has_parent: bool,
        sectors: Option<u64>,
    ) -> Result<Verdict> {
        let (log, name) = (self.log.clone(), name.to_owned());
        let options = CheckOptions { repair: self.repair, has_parent, sectors, log, name };
        match kind {
            ExtentKind::VmfsSparse => Cowd::check(storage, &options),
            ExtentKind::SeSparse => SeSparse::check(storage, &options),
            _ => {
                let mut head = [0; SECTOR as usize];
                storage.read_at(&mut head, 0)?;
                if is_packed(&head) {
                    Stream::check(storage, &options)
                } else {
                    sparse::check::check(storage, &options)
                }
            }
        }
    }

    /// The content ids, and whether the link opens with all its parents. `damaged`: that it does not is known already.
    /// `fixed`: the descriptor cannot be changed.
    fn chain(&self, descriptor: &Descriptor, damaged: bool, fixed: bool) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        if let (Some(cid), Some(long)) = (descriptor.cid(), descriptor.ddb("longContentID"))
            && long.len() == 32
            && !long.to_ascii_lowercase().ends_with(&format!("{cid:08x}"))
        {
            let fault = self.fault(format!("content id {cid:08x}, but the long content id is {long}"));
            let mended = self.repair && !fixed;
            if mended {
                let disk = Disk::open(self.place_again(), &self.options(true))?;
                disk.leaf().change_descriptor(|descriptor| descriptor.set_cid(cid))?;
            }
            verdict = verdict.and(Verdict { mended: u64::from(mended), ..fault });
        }
        match Disk::open(self.place_again(), &self.options(false)) {
            Ok(_) => Ok(verdict),
            Err(e) if e.kind() == ErrorKind::Io => Err(e),
            Err(_) if damaged => Ok(verdict),
            Err(e) => Ok(verdict.and(self.fault(format!("{e}")))),
        }
    }

    fn place_again(&self) -> Place {
        let Place { storage, folder, name, label, identity } = self.place;
        let (name, label) = (name.clone(), label.clone());
        Place { storage: storage.clone(), folder: folder.clone(), name, label, identity: *identity }
    }

    fn options(&self, write: bool) -> OpenOptions {
        let (direct, single_link, log) = (false, write, Log::none());
        let pack = PackOptions::without_threads(0); // nothing is packed by a check
        OpenOptions { write, direct, single_link, table_cache: 1 << 20, grain_cache: 1 << 20, pack, log }
    }
}

/// True for a sparse file with compressed grains, whatever else its header says.
fn is_packed(head: &[u8]) -> bool {
    u32_at(head, 8, "flags").is_ok_and(|flags| flags & FLAG_COMPRESSED != 0)
}

/// Faults of a file's content, which the check is there to find.
fn is_damage(kind: ErrorKind) -> bool {
    use ErrorKind::{Corrupt, EndOfFile, NotADisk, UnsupportedFeature, UnsupportedVersion};
    matches!(kind, Corrupt | EndOfFile | NotADisk | UnsupportedFeature | UnsupportedVersion)
}

/// The descriptor of a sparse file, wherever its header lets it end.
fn descriptor_inside(storage: &dyn Storage, head: &[u8], size: u64) -> Result<Descriptor> {
    let offset = u64_at(head, 28, "descriptorOffset")?;
    let start = offset.checked_mul(SECTOR).filter(|start| offset > 0 && *start < size);
    let Some(start) = start else {
        return Err(Error::new(ErrorKind::NotADisk, format!("sector {offset} holds no descriptor")));
    };
    let area: Range<u64> = start..size.min(start + MAX_DESCRIPTOR);
    let mut bytes = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)];
    storage.read_at(&mut bytes, area.start)?;
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    Descriptor::parse(&bytes)
}
