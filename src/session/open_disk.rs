//! An open disk: reading, writing, allocated blocks, what it is.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::time::Duration;

use bitflags::bitflags;
use parking_lot::Mutex;

use crate::config::Config;
use crate::disk::Disk;
use crate::disk::open::OpenOptions;
use crate::engine::inflight::Gate;
use crate::engine::pool::Completion;
use crate::engine::pool::Job;
use crate::engine::pool::is_completing;
use crate::engine::ticker::Watched;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create::check_hint;
use crate::format::geometry::{Adapter, Geometry};
use crate::format::stream::PackOptions;
use crate::logging::Log;
use crate::os;
use crate::session::chunks::Chunks;
use crate::session::connect::Connection;
use crate::session::library::Library;
use crate::session::metadata;
use crate::storage::Access;
use crate::storage::lock::DiskLock;
use crate::transfer::Transfer;
use crate::transport::Facts;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::Remote;
use crate::transport::local;
use crate::transport::local::LocalFolder;
use crate::units::SECTOR;
use crate::units::Sectors;

bitflags! {
    /// How a disk is opened; unknown bits are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// Bypass the host's cache.
        const UNBUFFERED = 1;
        /// Only the named link, without its parents.
        const SINGLE_LINK = 2;
        /// No writing.
        const READ_ONLY = 4;
        /// Compress on the network with zlib; no effect on local disks.
        const COMPRESSION_ZLIB = 16;
        /// Compress on the network with FastLZ; no effect on local disks.
        const COMPRESSION_FASTLZ = 32;
        /// Do not send zero blocks over the network; no effect on local disks.
        const COMPRESSION_SKIPZ = 64;
        const _ = !0;
    }
}

/// What a disk says about itself.
#[derive(Clone, Debug)]
pub struct DiskInfo {
    /// Geometry the BIOS shows; zeros when the disk does not say.
    pub bios_geometry: Geometry,
    /// The disk's geometry.
    pub geometry: Geometry,
    /// Size of the disk.
    pub capacity: Sectors,
    /// The adapter it was made for.
    pub adapter: Adapter,
    /// Links in the opened chain, 1 for a base disk.
    pub links: u32,
    /// The parent named by the opened link.
    pub parent_hint: Option<String>,
    /// The disk's identity as its database has it.
    pub uuid: Option<String>,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
}

/// Ascending, disjoint, non-empty ranges in sectors: (start, length).
pub type AllocatedBlocks = Vec<(u64, u64)>;

/// A disk opened with its chain. All methods may be called from many threads at once.
#[derive(Debug)]
pub struct OpenDisk {
    library: Arc<Library>,
    disk: Arc<Disk>,
    label: String,
    site: Site,
    /// The connection that closes it, if it is left open.
    home: OnceLock<Weak<Connection>>,
    unbuffered: bool,
    /// The peers of disks that it stands on, since it was attached to them.
    pub(super) under: Mutex<Vec<Peer>>,
    /// Calls that use the disk. Closed by [`OpenDisk::close`].
    pub(super) calls: Gate,
    /// Asynchronous requests that are not complete.
    pub(super) inflight: Arc<Gate>,
}

/// Where a disk is.
#[derive(Debug)]
pub(super) enum Site {
    /// In files of this machine.
    Local(Files),
    /// With a peer.
    Remote(Peer),
}

/// The files of a local disk.
#[derive(Debug)]
pub(super) struct Files {
    /// That of the opened link: absolute, without symbolic links.
    path: PathBuf,
    pub folder: Arc<LocalFolder>,
    /// Held from open to close of a writable disk.
    pub lock: Mutex<Option<DiskLock>>,
}

/// The peer that holds a remote disk.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub line: Arc<dyn Line>,
    pub facts: Option<Arc<dyn Facts>>,
}

/// Counts a call while it runs.
pub(super) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// How long a writer waits for another one to go; VMware's hosted programs wait as long.
const LOCK_WAIT: Duration = Duration::from_millis(3500);
/// Requests from here on are given to another processor while this one does the next.
const WORTH_SHARING: usize = 256 * 1024;
/// Threads that pack one disk: more would pass what one thread can feed and write.
const PACKERS: usize = 8;
/// Most chunks of one query.
const MAX_CHUNKS: u64 = 512 * 1024;
/// Smallest chunk of a query, in sectors.
const MIN_CHUNK: u64 = 128;

impl OpenDisk {
    /// Opens the disk at `path` on this machine.
    pub(super) fn open_local(library: &Arc<Library>, path: &Path, flags: OpenFlags) -> Result<Self> {
        let (log, config) = (library.log(), library.config());
        let write = !flags.contains(OpenFlags::READ_ONLY);
        let unbuffered = flags.contains(OpenFlags::UNBUFFERED);
        let lock = if write { Some(take_lock(path, log)?) } else { None };
        let access = Access { write, direct: unbuffered, device: false };
        let (place, folder) =
            local::open_place(library.files(), path, access, config.extents_outside_folder())?;
        let options = OpenOptions {
            write,
            direct: unbuffered,
            single_link: flags.contains(OpenFlags::SINGLE_LINK),
            table_cache: config.grain_table_cache(),
            grain_cache: config.inflated_grain_cache(),
            pack: pack_options(&config),
            log: log.clone(),
        };
        let label = place.label.clone();
        let path = folder.path().join(&place.name);
        let disk = Arc::new(Disk::open(place, &options)?);
        let kind = disk.leaf().with_descriptor(|d| d.create_type().unwrap_or("VMDK").to_owned());
        say_opened(log, &disk, &label, &kind, flags);
        let site = Site::Local(Files { path, folder, lock: Mutex::new(lock) });
        Ok(Self::new(library, disk, label, site, flags))
    }

    /// An open disk of a peer.
    pub(super) fn of_peer(library: &Arc<Library>, remote: Remote, flags: OpenFlags) -> Self {
        say_opened(library.log(), &remote.disk, &remote.label, remote.kind, flags);
        let site = Site::Remote(Peer { line: remote.line, facts: remote.facts });
        Self::new(library, Arc::new(remote.disk), remote.label, site, flags)
    }

    fn new(library: &Arc<Library>, disk: Arc<Disk>, label: String, site: Site, flags: OpenFlags) -> Self {
        Self {
            library: library.clone(),
            disk,
            label,
            site,
            home: OnceLock::new(),
            unbuffered: flags.contains(OpenFlags::UNBUFFERED),
            under: Mutex::default(),
            calls: Gate::default(),
            inflight: Arc::new(Gate::default()),
        }
    }

    /// A writable child keeps its newest table entries back until their data is stable: has them brought out in time.
    pub(super) fn watch_if_needed(self: &Arc<Self>) {
        if self.disk.is_writable() && self.disk.is_child() {
            let watched: Arc<dyn Watched> = self.clone();
            self.library.engine().watch(&watched);
        }
    }

    pub(super) fn enter(&self) -> Result<Inside<'_>> {
        match self.calls.enter() {
            true => Ok(Inside(&self.calls)),
            false if self.calls.is_paused() => Err(self.busy()),
            false => Err(Error::new(ErrorKind::InvalidHandle, format!("{} is closed", self.label))),
        }
    }

    pub(super) fn busy(&self) -> Error {
        Error::new(ErrorKind::Busy, format!("{} is being rearranged", self.label))
    }

    /// Runs work on the disk that nobody else may use meanwhile: other calls are [`ErrorKind::Busy`].
    pub(super) fn alone<T>(&self, work: impl FnOnce(&Disk) -> Result<T>) -> Result<T> {
        let _inside = self.enter()?;
        if is_completing() {
            return Err(Error::new(ErrorKind::Busy, "a completion must not wait for other requests"));
        }
        let Some(_pause) = self.calls.pause() else { return Err(self.busy()) };
        self.inflight.wait_until_empty();
        work(&self.disk)
    }

    /// The library it belongs to.
    pub(super) fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// The disk below, for other threads.
    pub(super) fn shared_disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Where it is.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// The files of a local disk; for verbs that work on nothing else.
    pub(super) fn files(&self) -> Result<&Files> {
        match &self.site {
            Site::Local(files) => Ok(files),
            Site::Remote(_) => Err(Error::new(
                ErrorKind::NotSupportedRemote,
                format!("{} has no files on this machine, which this works on", self.label),
            )),
        }
    }

    /// Refuses a disk that no child can stand on: a bare export has nothing that a child could rely on.
    pub(super) fn check_base(&self) -> Result<()> {
        match self.facts() {
            Some(_) => Ok(()),
            None => self.files().map(|_| ()),
        }
    }

    /// How a child in `folder` names this disk.
    pub(super) fn hint(&self, folder: &Path) -> Result<String> {
        match &self.site {
            Site::Local(files) => local::hint_for(folder, &files.path),
            Site::Remote(_) => {
                let name = self.disk.leaf().label();
                check_hint(name).map(|()| name.to_owned())
            }
        }
    }

    /// Whose it is, once known.
    pub(super) fn set_home(&self, connection: &Arc<Connection>) {
        let _ = self.home.set(Arc::downgrade(connection)); // the first one counts
    }

    /// The connection it was opened on, while that is there.
    pub(super) fn home(&self) -> Option<Arc<Connection>> {
        self.home.get().and_then(Weak::upgrade)
    }

    /// The path it was opened by.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The disk below, for tools of this crate.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Reads whole sectors; `buf.len()` is a multiple of 512. Any part past the end fails with `OutOfRange` and reads
    /// nothing; an empty read at or before the end succeeds.
    pub fn read(&self, start: Sectors, buf: &mut [u8]) -> Result<()> {
        let _inside = self.enter()?;
        self.disk.read(buf, start.bytes()?)
    }

    /// Writes whole sectors. Acknowledged data survives the end of the process, on a child after at most a second.
    pub fn write(&self, start: Sectors, buf: &[u8]) -> Result<()> {
        let _inside = self.enter()?;
        self.disk.write(buf, start.bytes()?)
    }

    /// Starts a read. `Err`: refused, `done` does not run. `Ok`: `done` runs exactly once.
    pub fn read_async(&self, start: Sectors, buf: &'static mut [u8], done: Completion) -> Result<()> {
        let _inside = self.enter()?;
        let offset = start.bytes()?;
        self.disk.check_range(offset, buf.len())?;
        if self.disk.starts_transfers() {
            self.start(self.job(Transfer::Read(buf), offset, done));
            return Ok(());
        }
        let engine = self.library.engine();
        if buf.len() >= WORTH_SHARING {
            if let Some(job) = engine.try_hand_off(self.job(Transfer::Read(buf), offset, done)) {
                job.run_cached_or(|job| engine.submit(job));
            }
            return Ok(());
        }
        // Small cached reads are done here and now; a request of their own would cost a tenth of them.
        match self.disk.try_read_inside(buf, offset) {
            Ok(false) => engine.submit(self.job(Transfer::Read(buf), offset, done)),
            Ok(true) => done.run_inside(&self.inflight, Ok(())),
            Err(e) => done.run_inside(&self.inflight, Err(e)),
        }
        Ok(())
    }

    /// Starts a write; see [`OpenDisk::read_async`].
    pub fn write_async(&self, start: Sectors, buf: &'static [u8], done: Completion) -> Result<()> {
        let _inside = self.enter()?;
        let offset = start.bytes()?;
        self.disk.check_range(offset, buf.len())?;
        if !self.disk.is_writable() {
            return Err(Error::new(ErrorKind::ReadOnly, format!("{} is open read-only", self.label)));
        }
        let job = self.job(Transfer::Write(buf), offset, done);
        match (self.disk.starts_transfers(), self.unbuffered) {
            (true, _) => self.start(job),
            (false, true) => self.library.engine().submit(job),
            (false, false) => job.run(), // into the page cache: a hand-off would cost more than it saves
        }
        Ok(())
    }

    /// Lets the storage below do it; what that does not take waits on a worker.
    fn start(&self, job: Job) {
        if let Some(job) = job.start() {
            self.library.engine().submit(job);
        }
    }

    /// A request that counts as in flight.
    fn job(&self, transfer: Transfer, offset: u64, done: Completion) -> Job {
        self.inflight.enter(); // never closed: who is inside `calls` may submit
        Job::new(self.disk.clone(), self.inflight.clone(), transfer, offset, done)
    }

    /// Returns when every asynchronous request of this disk has completed and its completion has returned. Refused with
    /// `Busy` inside a completion.
    pub fn wait(&self) -> Result<()> {
        let _inside = self.enter()?;
        self.wait_for_requests()
    }

    fn wait_for_requests(&self) -> Result<()> {
        if is_completing() && self.inflight.inside() > 0 {
            return Err(Error::new(ErrorKind::Busy, "waiting inside a completion would wait for itself"));
        }
        self.inflight.wait_until_empty();
        Ok(())
    }

    /// Returns when everything acknowledged is stable.
    pub fn flush(&self) -> Result<()> {
        let _inside = self.enter()?;
        self.disk.flush().context(|| format!("flushing {}", self.label))
    }

    /// What the disk says about itself.
    pub fn info(&self) -> Result<DiskInfo> {
        let _inside = self.enter()?;
        let mut info = metadata::info(&self.disk)?;
        if let Some(facts) = self.facts() {
            let chain = facts.chain();
            (info.links, info.parent_hint) = (chain.links, chain.parent);
            info.geometry = facts.geometry().unwrap_or(info.geometry);
        }
        Ok(info)
    }

    /// What the peer that holds it knows of it.
    fn facts(&self) -> Option<&dyn Facts> {
        match &self.site {
            Site::Remote(peer) => peer.facts.as_deref(),
            Site::Local(_) => None,
        }
    }

    /// The transport it uses.
    pub fn transport_mode(&self) -> &'static str {
        match &self.site {
            Site::Local(_) => Mode::File.name(),
            Site::Remote(peer) => peer.line.mode().name(),
        }
    }

    /// The sectors that may hold data, in units of `chunk` sectors, clipped to `start..start + count` and the capacity.
    /// `count` may pass the end. `chunk` of at least 128, at most 524288 chunks.
    pub fn allocated_blocks(
        &self,
        start: Sectors,
        count: Sectors,
        chunk: Sectors,
    ) -> Result<AllocatedBlocks> {
        let _inside = self.enter()?;
        let capacity = self.disk.capacity() / SECTOR;
        if chunk.0 < MIN_CHUNK || count.0.div_ceil(chunk.0) > MAX_CHUNKS {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} sectors in chunks of {}: at least {MIN_CHUNK} each, at most {MAX_CHUNKS}",
                    count.0, chunk.0
                ),
            ));
        }
        if start.0 >= capacity {
            return Err(Error::new(ErrorKind::OutOfRange, format!("sector {} of {capacity}", start.0)));
        }
        let end = start.0.saturating_add(count.0).min(capacity);
        let mut blocks = Chunks::new(start.0..end, chunk.0);
        self.disk
            .allocated(start.0 * SECTOR..end * SECTOR, &mut |part| blocks.add(&part))
            .context(|| format!("allocated blocks of {}", self.label))?;
        Ok(blocks.found)
    }

    /// The value of a key of the disk database, `KeyNotFound` when there is none.
    pub fn metadata(&self, key: &str) -> Result<String> {
        let _inside = self.enter()?;
        match (metadata::value(&self.disk, key), self.facts()) {
            (Err(unknown), Some(facts)) => facts.key(key)?.ok_or(unknown),
            (value, _) => value,
        }
    }

    /// Adds or replaces a value, durably.
    pub fn set_metadata(&self, key: &str, value: &str) -> Result<()> {
        let _inside = self.enter()?;
        if self.facts().is_some() && self.disk.is_writable() {
            let why =
                format!("{} is served by its host: no call is known that writes to its database", self.label);
            return Err(Error::new(ErrorKind::NotSupported, why));
        }
        metadata::set(&self.disk, key, value)
    }

    /// Every key that [`OpenDisk::metadata`] answers.
    pub fn metadata_keys(&self) -> Result<Vec<String>> {
        let _inside = self.enter()?;
        Ok(metadata::keys(&self.disk))
    }

    /// Ends this one in favour of another one on `disk`, which has the lock from then on and the peers of what it stands on.
    pub(super) fn hand_over(
        &self,
        under: Vec<Peer>,
        disk: impl FnOnce(&Disk) -> Result<Disk>,
    ) -> Result<OpenDisk> {
        let files = self.files()?;
        self.stop_calls()?;
        self.under.lock().extend(under);
        let disk = match disk(&self.disk) {
            Ok(disk) => Arc::new(disk),
            Err(e) => {
                let ended = self.end(files);
                self.under.lock().drain(..).for_each(|peer| peer.line.cut());
                return Err(ended.err().unwrap_or(e));
            }
        };
        let files = Files {
            path: files.path.clone(),
            folder: files.folder.clone(),
            lock: Mutex::new(files.lock.lock().take()),
        };
        Ok(OpenDisk {
            library: self.library.clone(),
            disk,
            label: self.label.clone(),
            site: Site::Local(files),
            home: self.home.clone(),
            unbuffered: self.unbuffered,
            under: Mutex::new(std::mem::take(&mut self.under.lock())),
            calls: Gate::default(),
            inflight: Arc::default(),
        })
    }
}

impl Watched for OpenDisk {
    fn tick(&self) {
        let Ok(_inside) = self.enter() else { return };
        if let Err(e) = self.disk.publish() {
            self.library
                .log()
                .warning(|| format!("{}: {e}; writing is refused until it is reopened", self.label));
        }
    }
}

/// A line that programs read the host of a disk from.
fn say_opened(log: &Log, disk: &Disk, label: &str, kind: &str, flags: OpenFlags) {
    log.info(|| {
        let (sectors, gb) = (disk.capacity() / SECTOR, disk.capacity() as f64 / f64::from(1 << 30));
        let flags = flags.bits();
        format!("DISKLIB-LINK  : Opened '{label}' (0x{flags:x}): {kind}, {sectors} sectors / {gb:.1} GB.")
    });
}

/// How stream files are packed: on every processor.
pub(super) fn pack_options(config: &Config) -> PackOptions {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if processors == 1 { 0 } else { processors.min(PACKERS) };
    PackOptions { level: config.compression_level(), workers, shield: os::with_signals_blocked }
}

/// Takes the lock that VMware's programs look for.
pub(super) fn take_lock(path: &Path, log: &Log) -> Result<DiskLock> {
    // A lock would be made for a name that leads nowhere, and the reason would be that of the lock.
    std::fs::metadata(path).context(|| path.display().to_string())?;
    DiskLock::acquire(path, LOCK_WAIT, log)
}
