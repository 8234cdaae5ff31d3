//! Opening a chain: every link's descriptor, extents and parent, each checked against its neighbour.

use std::collections::HashSet;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::link::Link;
use crate::disk::link::Piece;
use crate::disk::link::Text;
use crate::disk::link::TextPlace;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::Image;
use crate::format::cowd::Cowd;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentAccess;
use crate::format::descriptor::ExtentKind;
use crate::format::descriptor::ExtentLine;
use crate::format::flat::Flat;
use crate::format::flat::NoAccess;
use crate::format::flat::Zeros;
use crate::format::sesparse::SeSparse;
use crate::format::sparse::Header;
use crate::format::sparse::Sparse;
use crate::format::sparse::SparseOptions;
use crate::format::stream::PackOptions;
use crate::format::stream::Stream;
use crate::format::stream::StreamOptions;
use crate::format::stream::StreamSink;
use crate::logging::Log;
use crate::storage::Access;
use crate::storage::Identity;
use crate::storage::Place;
use crate::storage::Storage;
use crate::units::SECTOR;

/// Descriptors are not read past this size (vmdk.md 2.1: a 62 TB split disk needs less than 1 MiB).
pub(super) const MAX_DESCRIPTOR: u64 = 16 << 20;
/// Links followed before giving up; VMware stops at 32.
pub(super) const MAX_LINKS: usize = 255;
/// The least a link gets of the caches.
const MIN_CACHE: usize = 256 * 1024;

/// How a chain is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The leaf will be written to.
    pub write: bool,
    /// Bypass the host's cache.
    pub direct: bool,
    /// Only the named link.
    pub single_link: bool,
    /// Bytes for grain tables, all links together.
    pub table_cache: usize,
    /// Bytes for inflated grains, all links together.
    pub grain_cache: usize,
    /// How grains of a new stream file are packed.
    pub pack: PackOptions,
    /// Where oddities are told.
    pub log: Log,
}

impl OpenOptions {
    /// The same for each of several extents, which share the caches.
    fn shared_by(&self, extents: usize) -> Self {
        let extents = extents.max(1);
        Self {
            table_cache: self.table_cache / extents,
            grain_cache: self.grain_cache / extents,
            ..self.clone()
        }
    }
}

impl Disk {
    /// Opens the link at `place` and, unless told otherwise, all its parents.
    pub fn open(place: Place, options: &OpenOptions) -> Result<Self> {
        let mut seen = HashSet::from([place.identity]);
        let mut options = options.clone();
        let (write, single_link) = (options.write, options.single_link);
        let leaf = Link::open(place, &options)?;
        let is_child = leaf.0.with_descriptor(|d| d.parent_cid().is_some());
        let mut links = vec![Arc::new(leaf.0)];
        let mut folder = leaf.1;
        options.write = false;
        while !single_link && let Some((hint, cid)) = next_parent(&links)? {
            options.table_cache = (options.table_cache / 2).max(MIN_CACHE);
            options.grain_cache = (options.grain_cache / 2).max(MIN_CACHE);
            if links.len() >= MAX_LINKS {
                return Err(Error::new(ErrorKind::TooManyLinks, format!("more than {MAX_LINKS} links")));
            }
            let child = links.last().map_or_else(String::new, |link| link.label().to_owned());
            let parent = ParentSearch { folder: &*folder, hint: &hint, cid, seen: &seen, options: &options };
            let (link, next, identity) = parent.find().context(|| format!("parent of {child}"))?;
            check_capacity(&links, &link)?;
            seen.insert(identity);
            links.push(Arc::new(link));
            folder = next;
        }
        Disk::new(links, write, is_child)
    }
}

/// The hint and content id of the parent that the last link asks for.
fn next_parent(links: &[Arc<Link>]) -> Result<Option<(String, u32)>> {
    let Some(link) = links.last() else { return Ok(None) };
    link.with_descriptor(|descriptor| match (descriptor.parent_cid(), descriptor.parent_hint()) {
        (None, _) => Ok(None),
        (Some(cid), Some(hint)) => Ok(Some((hint.to_owned(), cid))),
        (Some(cid), None) => Err(Error::new(
            ErrorKind::ParentMissing,
            format!("{} has a parent (content id {cid:08x}) but does not say where", link.label()),
        )),
    })
}

fn check_capacity(links: &[Arc<Link>], parent: &Link) -> Result<()> {
    match links.last() {
        Some(child) if child.capacity() != parent.capacity() => Err(Error::new(
            ErrorKind::CapacityMismatch,
            format!(
                "{} has {} sectors, its parent {} has {}",
                child.label(),
                child.capacity() / SECTOR,
                parent.label(),
                parent.capacity() / SECTOR
            ),
        )),
        _ => Ok(()),
    }
}

type FolderRef = Arc<dyn crate::storage::Folder>;

/// The search for one parent among the places its hint may mean.
struct ParentSearch<'a> {
    folder: &'a dyn crate::storage::Folder,
    hint: &'a str,
    cid: u32,
    seen: &'a HashSet<Identity>,
    options: &'a OpenOptions,
}

impl ParentSearch<'_> {
    /// The first candidate that opens and has the right content id; else the most telling error.
    fn find(&self) -> Result<(Link, FolderRef, Identity)> {
        let mut telling: Option<Error> = None;
        for nth in 0.. {
            let found = match self.folder.parent(self.hint, nth) {
                Ok(None) => break,
                Ok(Some(place)) => self.try_place(place),
                Err(e) => Err(match e.kind() {
                    ErrorKind::NotFound => e.with_kind(ErrorKind::ParentMissing),
                    _ => e,
                }),
            };
            match found {
                Ok(link) => return Ok(link),
                Err(e) if telling.as_ref().is_none_or(|t| t.kind() == ErrorKind::ParentMissing) => {
                    telling = Some(e);
                }
                Err(_) => {}
            }
        }
        Err(telling.unwrap_or_else(|| {
            Error::new(ErrorKind::ParentMissing, format!("no place for the hint {:?}", self.hint))
        }))
    }

    fn try_place(&self, place: Place) -> Result<(Link, FolderRef, Identity)> {
        let identity = place.identity;
        if self.seen.contains(&identity) {
            return Err(Error::new(
                ErrorKind::InvalidChain,
                format!("{} stands twice in the chain: its links are parents of each other", place.label),
            ));
        }
        let (link, folder) = Link::open(place, self.options)?;
        let cid = link.with_descriptor(Descriptor::cid);
        if cid != Some(self.cid) {
            return Err(Error::new(
                ErrorKind::CidMismatch,
                format!(
                    "{} has content id {}, the child was made on {:08x}: the parent changed since",
                    link.label(),
                    cid.map_or_else(|| "none".to_owned(), |cid| format!("{cid:08x}")),
                    self.cid
                ),
            ));
        }
        Ok((link, folder, identity))
    }
}

impl Link {
    /// Opens one link.
    fn open(place: Place, options: &OpenOptions) -> Result<(Self, FolderRef)> {
        let label = place.label.clone();
        let folder = place.folder.clone();
        let link = Self::open_unnamed(place, options).context(|| format!("opening {label}"))?;
        Ok((link, folder))
    }

    fn open_unnamed(place: Place, options: &OpenOptions) -> Result<Self> {
        let size = place.storage.size()?;
        let mut head = vec![0; usize::try_from(size.min(SECTOR)).unwrap_or(0)];
        place.storage.read_at(&mut head, 0)?;
        match head.get(..4) {
            Some(b"KDMV") => Self::open_embedded(place, options),
            Some(b"kdmv") => {
                Err(Error::new(ErrorKind::NotADisk, "its writer has not finished it (magic kdmv)"))
            }
            Some(b"COWD" | b"\xbe\xba\xfe\xca") => Err(no_descriptor()),
            _ => Self::open_text(place, &head, size, options),
        }
    }

    /// A sparse extent that carries its own descriptor.
    fn open_embedded(place: Place, options: &OpenOptions) -> Result<Self> {
        let (image, area) = open_hosted_sparse(place.storage.clone(), options.write, options, &place.label)?;
        let Some((bytes, area)) = area else { return Err(no_descriptor()) };
        let descriptor = Descriptor::parse(&bytes).context(|| "embedded descriptor")?;
        let [extent] = descriptor.extents() else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("embedded descriptor with {} extents, expected 1", descriptor.extents().len()),
            ));
        };
        // The name in the extent line is that of the file when it was made; the file at hand is what counts.
        check_sparse_length(&*image, extent)?;
        if extent.access == ExtentAccess::ReadOnly && options.write {
            return Err(Error::new(ErrorKind::ReadOnly, "its extent is marked RDONLY"));
        }
        let len = extent.sectors.bytes()?.min(image.capacity());
        let text = Text { descriptor, storage: place.storage, place: TextPlace::Embedded(area) };
        Self::new(place.label, place.identity, vec![Piece::new(0, len, image)], text)
    }

    /// A text descriptor with extents in files of their own.
    fn open_text(place: Place, head: &[u8], size: u64, options: &OpenOptions) -> Result<Self> {
        if size > MAX_DESCRIPTOR || head.contains(&0) && head.first() == Some(&0) {
            return Err(Error::new(
                ErrorKind::NotADisk,
                format!("neither a VMDK extent with a descriptor nor a descriptor text ({size} bytes)"),
            ));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        place.storage.read_at(&mut bytes, 0)?;
        let descriptor = Descriptor::parse(&bytes)?;
        let options = &options.shared_by(descriptor.extents().len());
        let mut pieces = Vec::with_capacity(descriptor.extents().len());
        let mut start = 0u64;
        for (i, line) in descriptor.extents().iter().enumerate() {
            let what = || format!("extent {} ({})", i + 1, line.name.as_deref().unwrap_or("without a name"));
            let image = open_extent(&place, &descriptor, line, options).context(what)?;
            let end = line.sectors.bytes().ok().and_then(|len| start.checked_add(len)).ok_or_else(|| {
                Error::new(ErrorKind::NotADisk, format!("{} makes the disk larger than 2^64 bytes", what()))
            })?;
            pieces.push(Piece::new(start, end, image));
            start = end;
        }
        let text_place = TextPlace::File { folder: place.folder, name: place.name };
        Self::new(
            place.label,
            place.identity,
            pieces,
            Text { descriptor, storage: place.storage, place: text_place },
        )
    }
}

fn no_descriptor() -> Error {
    Error::new(
        ErrorKind::NotADisk,
        "an extent without a descriptor of its own: open the descriptor that names it",
    )
}

/// Opens what an extent line names.
fn open_extent(
    place: &Place,
    descriptor: &Descriptor,
    line: &ExtentLine,
    options: &OpenOptions,
) -> Result<Box<dyn Image>> {
    let len = line.sectors.bytes()?;
    if line.access == ExtentAccess::NoAccess {
        return Ok(Box::new(NoAccess::new(len)));
    }
    if line.kind == ExtentKind::Zero {
        return Ok(Box::new(Zeros::new(len)));
    }
    let Some(name) = line.name.as_deref() else {
        return Err(Error::new(ErrorKind::NotADisk, "an extent line without a file name"));
    };
    let write = options.write && line.access == ExtentAccess::ReadWrite;
    let access = Access { write, direct: options.direct, device: names_device(descriptor, line.kind) };
    let storage = place.folder.extent(name, access)?;
    let image: Box<dyn Image> = match line.kind {
        ExtentKind::Flat | ExtentKind::Vmfs | ExtentKind::VmfsRaw => {
            Box::new(Flat::open(storage, line.offset.bytes()?, len, write)?)
        }
        ExtentKind::VmfsRdm => Box::new(open_raw_mapping(storage, line, write)?),
        ExtentKind::VmfsSparse => {
            Box::new(Cowd::open(storage, options.log.clone(), name)?.with_table_cache(options.table_cache))
        }
        ExtentKind::SeSparse => Box::new(
            SeSparse::open(storage, options.log.clone(), name)?.with_table_cache(options.table_cache),
        ),
        ExtentKind::Sparse => open_hosted_sparse(storage, write, options, name)?.0,
        ExtentKind::Zero => Box::new(Zeros::new(len)),
    };
    if matches!(line.kind, ExtentKind::Sparse | ExtentKind::VmfsSparse | ExtentKind::SeSparse) {
        check_sparse_length(&*image, line)?;
    }
    Ok(image)
}

/// True for the extents that may stand for a device.
pub(super) fn names_device(descriptor: &Descriptor, kind: ExtentKind) -> bool {
    let device_type = ["fullDevice", "partitionedDevice", "vmfsRaw"]
        .iter()
        .any(|name| descriptor.create_type().is_some_and(|given| given.eq_ignore_ascii_case(name)));
    match kind {
        ExtentKind::VmfsRdm | ExtentKind::VmfsRaw => true,
        ExtentKind::Flat => device_type,
        _ => false,
    }
}

/// A raw device mapping. Off its host the file is either an empty pointer, which leads nowhere, or a copy of the device.
fn open_raw_mapping(storage: Arc<dyn Storage>, line: &ExtentLine, write: bool) -> Result<Flat> {
    let (size, need) = (storage.size()?, line.sectors.bytes()?);
    if size < need {
        return Err(Error::new(
            ErrorKind::NotSupported,
            format!(
                "a raw device mapping of {need} bytes whose file holds {size}: only its host can follow the pointer"
            ),
        ));
    }
    Flat::open(storage, line.offset.bytes()?, need, write)
}

/// A hosted sparse or stream-optimised extent with its embedded descriptor.
#[expect(clippy::type_complexity, reason = "an image and the text inside it")]
fn open_hosted_sparse(
    storage: Arc<dyn Storage>,
    write: bool,
    options: &OpenOptions,
    name: &str,
) -> Result<(Box<dyn Image>, Option<(Vec<u8>, std::ops::Range<u64>)>)> {
    let size = storage.size()?;
    let mut sector = [0; SECTOR as usize];
    if size < SECTOR {
        return Err(Error::new(
            ErrorKind::NotADisk,
            format!("{size} bytes are too short for a sparse extent"),
        ));
    }
    storage.read_at(&mut sector, 0)?;
    if Header::parse(&sector, size)?.is_compressed() {
        let stream_options = StreamOptions {
            cache_bytes: options.grain_cache,
            log: options.log.clone(),
            name: name.to_owned(),
        };
        let stream = Stream::open(storage.clone(), &stream_options)?;
        let text = stream.embedded_descriptor()?;
        if write {
            return Ok((Box::new(StreamSink::open(storage, &stream, options.pack, name)?), text));
        }
        return Ok((Box::new(stream), text));
    }
    let (log, name) = (options.log.clone(), name.to_owned());
    let sparse = Sparse::open(
        storage,
        &SparseOptions { writable: write, cache_bytes: options.table_cache, log, name },
    )?;
    let text = sparse.embedded_descriptor()?;
    Ok((Box::new(sparse), text))
}

/// The extent line and the extent's own header must agree; a header may round up to whole grains.
fn check_sparse_length(image: &dyn Image, line: &ExtentLine) -> Result<()> {
    const SLACK: u64 = 128 * SECTOR;
    let (said, has) = (line.sectors.bytes()?, image.capacity());
    if said <= has && has - said < SLACK {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("the descriptor says {said} bytes, the extent's header {has}: one of them is damaged"),
    ))
}
