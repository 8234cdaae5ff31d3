//! streamOptimized: compressed grains behind markers, written once in sequence and read at random.
//!
//! ```text
//!   header │ descriptor │ marker+grain, marker+grain, … marker+table … │ marker+directory │ marker+footer │ end
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | opening: header or footer, then the answers of an [`Image`] |
//! | `read` | from compressed grains to the caller's bytes |
//! | `work` | a reading thread's buffers and decompressor |
//! | `cache` | a few inflated grains |
//! | `check` `check_walk` `check_mend` | what is damaged, and the tables made again from the grains |
//! | `write` | from packed grains to a file, and a new file without data |
//! | `write_pack` | from grains to packed grains |
//! | `write_crew` | the same on several threads, in order |
//! | `write_image` | a new file as an image that takes data in ascending order |
//!
//! What is allocated is told by the tables alone; a grain's marker is checked when the grain is read. Requests for disjoint
//! ranges may run on several threads at once: cut at multiples of [`Stream::grain_bytes`], no grain is inflated twice.

mod cache;
mod check;
mod check_mend;
mod check_walk;
mod read;
mod work;
pub mod write;
mod write_crew;
mod write_image;
mod write_pack;

use std::ops::Range;
use std::sync::Arc;

use cache::GrainCache;
use work::Pool;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Image;
use crate::format::Mapping;
use crate::format::Pending;
use crate::format::Presence;
use crate::format::bytes::u32_at;
use crate::format::bytes::u64_at;
use crate::format::lookup::Entries;
use crate::format::lookup::Lookup;
use crate::format::lookup::Place;
use crate::format::lookup::Shape;
use crate::format::lookup::TablePlace;
use crate::format::lookup::within;
use crate::format::sparse::Header;
use crate::logging::Log;
use crate::storage::Storage;
use crate::units::SECTOR;

pub use write_image::StreamSink;
pub use write_pack::PackOptions;

/// How a stream file is opened.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Memory for inflated grains, of which parts were read.
    pub cache_bytes: usize,
    /// Where oddities are told.
    pub log: Log,
    /// The file's name for messages.
    pub name: String,
}

/// A streamOptimized file.
#[derive(Debug)]
pub struct Stream {
    lookup: Lookup<StreamEntries>,
    header: Header,
    grain_bytes: usize,
    cache: GrainCache,
    pool: Pool,
}

impl Stream {
    /// Checks header and, where the header refers to it, footer. Tables and grains are read when they are needed.
    pub fn open(storage: Arc<dyn Storage>, options: &StreamOptions) -> Result<Self> {
        Self::open_named(storage, options).context(|| options.name.clone())
    }

    fn open_named(storage: Arc<dyn Storage>, options: &StreamOptions) -> Result<Self> {
        let file = storage.size()?;
        let header = read_header(&*storage, file)?;
        check_overhead(&header, file)?;
        let (directory, spare) = match (header.directory, header.redundant) {
            (Some(directory), spare) => (directory, spare),
            (None, Some(spare)) => {
                options.log.warning(|| {
                    format!(
                        "{}: the grain directory is outside the file; the redundant one is read",
                        options.name
                    )
                });
                (spare, None)
            }
            (None, None) => {
                return Err(Error::new(ErrorKind::NotADisk, "no grain directory inside the file"));
            }
        };
        let shape = Shape {
            capacity: header.capacity_bytes(),
            grain: header.grain_bytes(),
            entries: TABLE_ENTRIES,
            directory,
            spare,
            file,
        };
        let grain_bytes = usize::try_from(shape.grain).map_err(|_| {
            Error::new(ErrorKind::UnsupportedFeature, format!("grains of {} bytes", shape.grain))
        })?;
        let entries = StreamEntries { zero_grains: header.has_zero_grains(), file };
        Ok(Self {
            lookup: Lookup::new(storage, entries, shape, options.log.clone(), options.name.clone())?,
            header,
            grain_bytes,
            cache: GrainCache::new(grain_bytes, options.cache_bytes),
            pool: Pool::new(),
        })
    }

    /// Bytes of a grain: the unit in which the file is inflated.
    pub fn grain_bytes(&self) -> u64 {
        self.lookup.shape().grain
    }

    /// The header, or the footer where it stands in for the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The area of the embedded descriptor and its bytes, the zeros behind the text included.
    pub fn embedded_descriptor(&self) -> Result<Option<(Vec<u8>, Range<u64>)>> {
        let Some(area) = self.header.descriptor.clone() else { return Ok(None) };
        let len = usize::try_from(area.end.saturating_sub(area.start)).unwrap_or(0);
        let mut text = vec![0; len]; // at most 16 MiB, inside the file: the header's reader saw to it
        self.lookup
            .storage()
            .read_at(&mut text, area.start)
            .context(|| format!("{}: embedded descriptor", self.lookup.name()))?;
        Ok(Some((text, area)))
    }

    fn read_only(&self) -> Error {
        let message =
            format!("{}: a streamOptimized file is written once and only read after", self.lookup.name());
        Error::new(ErrorKind::ReadOnly, message)
    }
}

impl Image for Stream {
    fn capacity(&self) -> u64 {
        self.lookup.shape().capacity
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        let (place, run) = self.lookup.merged(offset, max)?;
        let mapping = match place {
            Place::Data(_) => Mapping::Packed,
            Place::Zero => Mapping::Zero,
            Place::Unallocated | Place::Bad => Mapping::Unallocated, // bad ones are errors already
        };
        Ok((mapping, run))
    }

    fn read_packed(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read(offset, buf)
    }

    fn try_read_packed(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        Ok(self.read_cached(offset, buf)? == buf.len())
    }

    fn packed_unit(&self) -> Option<u64> {
        Some(self.grain_bytes())
    }

    fn prefetch(&self, offset: u64, len: u64) -> Result<()> {
        self.load(offset, len)
    }

    fn scan(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Presence)) -> Result<()> {
        self.lookup.scan(range, sink)
    }

    fn begin_writing(&self) -> Result<()> {
        Err(self.read_only())
    }

    fn prepare(&self, _offset: u64, _len: u64) -> Result<Option<Pending<'_>>> {
        Err(self.read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Entries of a grain table.
const TABLE_ENTRIES: u16 = 512;
/// Footer marker, footer, end-of-stream marker.
const TAIL_BYTES: usize = 3 * SECTOR as usize;
/// Type of the marker before the footer.
const FOOTER_MARKER: u32 = 3;

/// The header that counts: the footer if the first one says that the directory is at the end.
fn read_header(storage: &dyn Storage, file: u64) -> Result<Header> {
    if file < SECTOR {
        return Err(Error::new(ErrorKind::NotADisk, format!("a header has {SECTOR} bytes, the file {file}")));
    }
    let mut raw = [0; SECTOR as usize];
    storage.read_at(&mut raw, 0).context(|| "stream header")?;
    let header = Header::parse(&raw, file)?;
    if !header.is_compressed() {
        return Err(Error::new(
            ErrorKind::NotADisk,
            "the grains are not compressed: no streamOptimized file",
        ));
    }
    if !header.has_markers() {
        let message = "compressed grains without markers are not known";
        return Err(Error::new(ErrorKind::UnsupportedFeature, message));
    }
    if !header.gd_at_end() {
        return Ok(header);
    }
    read_footer(storage, file, &header)
}

/// Refuses a file that ends inside what its header calls metadata: tables there would read as empty.
fn check_overhead(header: &Header, file: u64) -> Result<()> {
    if header.overhead.bytes().is_ok_and(|bytes| bytes <= file) {
        return Ok(());
    }
    let message = format!(
        "the metadata takes {} sectors, the file has {file} bytes: it is cut short",
        header.overhead.0
    );
    Err(Error::new(ErrorKind::NotADisk, message))
}

/// The sector of the footer, if the file ends with one.
fn footer_sector(storage: &dyn Storage, file: u64) -> Result<[u8; SECTOR as usize]> {
    let missing = |what: &str| {
        let message =
            format!("file ends without footer ({what} at its last {TAIL_BYTES} bytes): it is cut short");
        Error::new(ErrorKind::NotADisk, message)
    };
    let mut tail = [0; TAIL_BYTES];
    let at = file.checked_sub(TAIL_BYTES as u64).filter(|&at| at >= SECTOR && file.is_multiple_of(SECTOR));
    let at = at.ok_or_else(|| missing("no room for one"))?;
    storage.read_at(&mut tail, at).context(|| "stream footer")?;
    let (marker, rest) = tail.split_at(SECTOR as usize);
    let (footer, end) = rest.split_at(SECTOR as usize);
    if u32_at(marker, 8, "marker size")? != 0 || u32_at(marker, 12, "marker type")? != FOOTER_MARKER {
        return Err(missing("no footer marker"));
    }
    if !footer.starts_with(&crate::format::sparse::header::MAGIC) {
        return Err(missing("no footer"));
    }
    let stop = (u64_at(end, 0, "marker value")?, u64_at(end, 8, "marker size and type")?);
    if stop != (0, 0) {
        return Err(missing("no end-of-stream marker"));
    }
    footer.first_chunk().copied().ok_or_else(|| missing("no footer"))
}

/// The footer, checked against the header.
fn read_footer(storage: &dyn Storage, file: u64, header: &Header) -> Result<Header> {
    let footer = footer_sector(storage, file)?;
    let mut footer = Header::parse(&footer, file).context(|| "stream footer")?;
    let agree = footer.version == header.version
        && footer.capacity == header.capacity
        && footer.grain == header.grain
        && footer.is_compressed()
        && footer.has_markers()
        && !footer.gd_at_end();
    if !agree {
        let message = format!("footer and header disagree: {footer:?}, {header:?}");
        return Err(Error::new(ErrorKind::NotADisk, message));
    }
    footer.descriptor = footer.descriptor.or_else(|| header.descriptor.clone());
    Ok(footer)
}

/// Sector numbers of tables and of grains' markers.
#[derive(Debug)]
struct StreamEntries {
    /// An entry of 1 is a grain of zeros.
    zero_grains: bool,
    file: u64,
}

impl Entries for StreamEntries {
    const BYTES: usize = 4;

    fn table(&self, entry: u64) -> TablePlace {
        match entry.saturating_mul(SECTOR) {
            0 => TablePlace::Absent,
            at => TablePlace::At(at),
        }
    }

    fn grain(&self, entry: u64, _needed: u64) -> Place {
        match entry.saturating_mul(SECTOR) {
            0 => Place::Unallocated,
            SECTOR if self.zero_grains => Place::Zero,
            at if within(at, read::MARKER_BYTES as u64 + 1, self.file) => Place::Data(at),
            _ => Place::Bad,
        }
    }

    fn fault(&self, entry: u64) -> String {
        format!("table entry {entry:#x}: a marker there passes the end of the file ({} bytes)", self.file)
    }
}
