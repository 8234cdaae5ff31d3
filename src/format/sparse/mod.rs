//! Hosted sparse extents (`KDMV`): grains found through a directory of tables.
//!
//! ```text
//!   header ── descriptor ── redundant directory + tables ── directory + tables ── grain grain grain …
//!
//!   directory   where each table stands             pages read on demand
//!   tables      where each grain stands             a bounded cache, read without locks
//!   map, scan   what lies behind an offset; what is allocated
//!   verify      the check of all tables before the first write (claims: what is used)
//!   verify_mend the repair after a crash
//!   write       new grains: reserved (space: where), written by the caller,
//!   enter       entered into the tables at once, or later together (publish)
//! ```
//!
//! `compact` moves grains about, [`check`] finds damage of any kind and mends it. The descriptor inside the file is replaced by [`embedded`]. Compressed
//! files share [`Header`] and nothing else.

mod body;
pub mod check;
mod check_entries;
mod check_repair;
mod check_tables;
mod claims;
mod compact;
mod compact_move;
mod compact_slots;
mod directory;
pub mod embedded;
mod enter;
mod frame;
mod grow;
pub mod header;
mod map;
mod publish;
mod scan;
mod space;
mod tables;
mod verify;
mod verify_mend;
mod write;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Image;
use crate::format::Mapping;
use crate::format::Pending;
use crate::format::Presence;
use crate::format::Rearrange;
use crate::format::sparse::body::Body;
use crate::format::sparse::directory::Directory;
use crate::format::sparse::header::HEADER_BYTES;
use crate::format::sparse::space::Space;
use crate::format::sparse::tables::Tables;
use crate::format::sparse::write::Writer;
use crate::logging::Log;
use crate::storage::Storage;

pub use grow::fill_last_grain;
pub use grow::grow;
pub use header::Header;

/// How to open a sparse extent.
#[derive(Clone, Debug)]
pub struct SparseOptions {
    /// Writes will come: the tables are compared and, after a crash, repaired.
    pub writable: bool,
    /// Memory for grain tables.
    pub cache_bytes: usize,
    /// Where lines about damage go.
    pub log: Log,
    /// What to call the file in messages.
    pub name: String,
}

/// What the check of all tables found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The last writer closed the file.
    pub closed: bool,
    /// Grains that only one of the two tables knows; repair keeps them.
    pub kept: u64,
    /// Grains whose data never reached the file; repair removes them.
    pub lost: u64,
    /// Entries that repair changes, all kinds together.
    pub changes: u64,
}

/// A hosted sparse extent with uncompressed grains.
#[derive(Debug)]
pub struct Sparse {
    header: Header,
    body: Body,
    directory: Directory,
    tables: Tables,
    /// Bytes of a grain as a power of two.
    grain_shift: u32,
    /// The table that would make the next miss one in order.
    next_miss: AtomicU32,
    /// Only in a file that is open for writing.
    writer: Option<Writer>,
    /// Bytes of grains that are moved between two flushes.
    move_bytes: u64,
}

impl Sparse {
    /// Opens an extent. For reading, only the header is read.
    pub fn open(storage: Arc<dyn Storage>, options: &SparseOptions) -> Result<Sparse> {
        let body = Body::new(storage, options.name.clone(), options.log.clone())?;
        let mut sector = [0; HEADER_BYTES];
        if body.size() < HEADER_BYTES as u64 {
            let text = format!("{}: a file of {} bytes is no sparse extent", body.name, body.size());
            return Err(Error::new(ErrorKind::NotADisk, text));
        }
        body.storage.read_at(&mut sector, 0).context(|| format!("header of {}", body.name))?;
        let mut header = Header::parse(&sector, body.size()).context(|| body.name.clone())?;
        if header.is_compressed() || header.has_markers() {
            let text = format!("{}: compressed grains in an extent that should have none", body.name);
            return Err(Error::new(ErrorKind::UnsupportedFeature, text));
        }
        if options.writable && header.version <= 2 && embedded::settle(&*body.storage, &header)? {
            body.storage.read_at(&mut sector, 0).context(|| format!("header of {}", body.name))?;
            header = Header::parse(&sector, body.size()).context(|| body.name.clone())?;
        }
        let directory = Directory::new(&header);
        let tables =
            Tables::new(header.tables(), header.grains(), header.grain.0 as u32, options.cache_bytes);
        let grain_shift = header.grain_bytes().trailing_zeros();
        let next_miss = AtomicU32::new(0);
        let move_bytes = (options.cache_bytes as u64).saturating_mul(4);
        let mut sparse =
            Sparse { header, body, directory, tables, grain_shift, next_miss, writer: None, move_bytes };
        if options.writable {
            sparse.writer = Some(sparse.open_writer()?);
        }
        Ok(sparse)
    }

    /// Checks all tables and changes nothing. Damage that repair does not mend is [`ErrorKind::NeedsRepair`]; its text says
    /// where.
    pub fn check(&self) -> Result<Health> {
        let Sparse { body, directory, .. } = self;
        let mut header = self.header.clone();
        header.unclean = true; // what a crash explains is counted, not refused
        Ok(self.health(&verify::survey(&header, body, directory)?))
    }

    /// Mends what a crash explains, also in a file whose last writer claims to have closed it (not every writer marks a
    /// file as being written). The file must be open in no other way. Says what was mended.
    pub fn repair(storage: Arc<dyn Storage>, options: &SparseOptions) -> Result<Health> {
        let mut sparse = Sparse::open(storage, &SparseOptions { writable: false, ..options.clone() })?;
        let closed = !sparse.header.unclean;
        sparse.header.unclean = true;
        let survey = sparse.survey_and_mend()?;
        Ok(Health { closed, ..sparse.health(&survey) })
    }

    fn health(&self, survey: &verify::Survey) -> Health {
        let changes = survey.fixes.len() + survey.orphans.len();
        Health { closed: !self.header.unclean, kept: survey.kept, lost: survey.lost, changes: changes as u64 }
    }

    /// Checks all tables before the first write, and mends what a crash left behind.
    fn open_writer(&self) -> Result<Writer> {
        let Sparse { header, body, .. } = self;
        let survey = self.survey_and_mend()?;
        let space = Space::new(header.grain_bytes(), survey.end, body.size(), header.grains())?;
        Ok(Writer::new(space, self.tables.limit()))
    }

    fn survey_and_mend(&self) -> Result<verify::Survey> {
        let Sparse { header, body, directory, .. } = self;
        if header.version > 2 {
            let text = format!(
                "{}: version {} of the format is written only in sequence",
                body.name, header.version
            );
            return Err(Error::new(ErrorKind::NotSupported, text));
        }
        let survey = verify::survey(header, body, directory)?;
        if header.unclean {
            verify_mend::mend(&survey, body, directory)?;
            self.mark(false)?;
        }
        Ok(survey)
    }

    /// The header as it was at open.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The area of the embedded descriptor with its padding, and where in the file it stands.
    pub fn embedded_descriptor(&self) -> Result<Option<(Vec<u8>, Range<u64>)>> {
        let Some(range) = self.header.descriptor.clone() else { return Ok(None) };
        let mut bytes = vec![0; (range.end - range.start) as usize]; // at most 16 MiB
        self.body
            .storage
            .read_at(&mut bytes, range.start)
            .context(|| format!("descriptor inside {}", self.body.name))?;
        Ok(Some((bytes, range)))
    }
}

impl Image for Sparse {
    fn capacity(&self) -> u64 {
        self.header.capacity_bytes()
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        self.lookup(offset, max)
    }

    fn scan(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Presence)) -> Result<()> {
        self.list(range, sink)
    }

    fn begin_writing(&self) -> Result<()> {
        self.begin()
    }

    fn check_writable(&self) -> Result<()> {
        self.writer.as_ref().map_or(Ok(()), Writer::check)
    }

    fn prepare(&self, offset: u64, len: u64) -> Result<Option<Pending<'_>>> {
        self.reserve(offset, len)
    }

    fn commit(&self, pending: Pending<'_>, deferred: bool) -> Result<()> {
        self.enter(&pending, deferred)
    }

    fn abandon(&self, pending: Pending<'_>) {
        self.give_up(&pending);
    }

    fn publish(&self) -> Result<()> {
        self.publish_dirty()
    }

    fn has_unpublished(&self) -> bool {
        self.has_dirty()
    }

    fn flush(&self) -> Result<()> {
        self.flush_all()
    }

    fn finish(&self) -> Result<()> {
        self.end()
    }

    fn rearrangeable(&self) -> Option<&dyn Rearrange> {
        self.writer.as_ref().map(|_| self as &dyn Rearrange)
    }
}
