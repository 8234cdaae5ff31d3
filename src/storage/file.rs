//! A local file or block device.
//!
//! Unbuffered files have two descriptors: one with `O_DIRECT` for whatever is aligned or can be read through an aligned
//! bounce buffer, and a plain one for small unaligned writes (tables, headers), which the kernel keeps coherent with it.

use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::Access;
use crate::storage::Copied;
use crate::storage::Identity;
use crate::storage::LocalFile;
use crate::storage::Storage;
use crate::storage::file_system::NamedFile;
use crate::storage::os;
use crate::storage::os::AlignedBuf;
use crate::storage::transfer;
use crate::units::{align_down, align_up, byte_range};

/// A local file or block device.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
    device: bool,
    direct: Option<Direct>,
    /// How many reads in a row were found in the page cache.
    warm: AtomicU32,
}

/// The unbuffered side of a file.
#[derive(Debug)]
struct Direct {
    file: File,
    align: u64,
    /// Bounce buffers that nobody uses at the moment. Held only to take or give one.
    spare: Mutex<Vec<AlignedBuf>>,
}

/// Reads in a row that must come from the cache before the next ones are taken to; then one of as many asks again.
const TRUST: u32 = 16;
/// Bytes of a bounce buffer.
const BOUNCE: usize = 512 * 1024;
/// Bounce buffers kept per file.
const SPARE: usize = 4;
/// Buffered writes are cut into pieces of this size: larger first writes make later small overwrites several times slower
/// on kernels that back them with large folios, and gain nothing.
const WRITE_PIECE: usize = 128 * 1024;

impl FileStorage {
    /// Opens an existing file. A device is refused unless `access.device`; anything else that is no regular file always.
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        let label = || path.display().to_string();
        // O_NONBLOCK: opening a FIFO must not wait for a writer; it has no effect on files and block devices.
        let file = OpenOptions::new()
            .read(true)
            .write(access.write)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)
            .context(|| format!("opening {}", label()))?;
        let kind = file.metadata().context(label)?.file_type();
        let device = kind.is_block_device();
        if kind.is_dir() {
            return Err(Error::new(ErrorKind::NotAFile, format!("{} is a folder", label())));
        }
        if !(kind.is_file() || device && access.device) {
            let what = if device { "a block device" } else { "not a regular file" };
            return Err(Error::new(ErrorKind::NotAFile, format!("{} is {what}", label())));
        }
        let direct = if access.direct { Direct::open(path, access.write) } else { None };
        Ok(Self { file, path: path.to_owned(), device, direct, warm: AtomicU32::new(0) })
    }

    /// Makes a new, empty file; one that exists already is an error.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .context(|| format!("creating {}", path.display()))?;
        Ok(Self { file, path: path.to_owned(), device: false, direct: None, warm: AtomicU32::new(0) })
    }

    /// Makes a new, empty file with the mode and, as far as that is allowed, the owner of another one.
    pub fn create_like(path: &Path, like: &Metadata) -> Result<Self> {
        let what = || format!("creating {}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_CLOEXEC);
        let file = options.open(path).context(what)?;
        let rights = || -> std::io::Result<()> {
            file.set_permissions(like.permissions())?;
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
                // Only root can give files away; for others the new owner is who wrote it, as with any editor.
                let _ = std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()));
            }
            Ok(())
        };
        if let Err(e) = rights() {
            let _ = std::fs::remove_file(path); // the error at hand is the one to tell
            return Err(Error::from_io(e, what()));
        }
        Ok(Self { file, path: path.to_owned(), device: false, direct: None, warm: AtomicU32::new(0) })
    }

    /// Makes a file that has no name until [`NamedFile::give_name`]: if this process dies before, nothing of it is left.
    /// `path` will be its name. `None` where the file system has no such thing.
    pub fn create_unnamed(path: &Path) -> Option<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = libc::O_TMPFILE | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(folder).ok()?;
        let nameable = Path::new("/proc/self/fd").exists(); // the door to naming it
        nameable.then(|| Self {
            file,
            path: path.to_owned(),
            device: false,
            direct: None,
            warm: AtomicU32::new(0),
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn short(&self, want: usize, offset: u64, source: std::io::Error) -> Error {
        let size = self.size().unwrap_or(0);
        Error::from_io(
            source,
            format!("reading {want} bytes at {offset:#x} of {} ({size} bytes long)", self.label()),
        )
    }
}

impl Direct {
    /// The unbuffered descriptor, `None` where the file system has no such thing.
    fn open(path: &Path, write: bool) -> Option<Self> {
        let flags = libc::O_DIRECT | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path).ok()?;
        let align = os::direct_alignment(&file);
        Some(Self { file, align, spare: Mutex::new(Vec::new()) })
    }

    fn fits(&self, address: usize, len: usize, offset: u64) -> bool {
        let mask = self.align - 1;
        (address as u64 | len as u64 | offset) & mask == 0
    }

    fn bounce(&self) -> Result<AlignedBuf> {
        let spare = self.spare.lock().pop();
        spare
            .or_else(|| AlignedBuf::new(BOUNCE, self.align as usize))
            .ok_or_else(|| Error::new(ErrorKind::OutOfMemory, "no memory for an aligned buffer"))
    }

    fn give_back(&self, buf: AlignedBuf) {
        let mut spare = self.spare.lock();
        if spare.len() < SPARE {
            spare.push(buf);
        }
    }

    /// Reads through a bounce buffer, whose pieces start and end at multiples of the alignment.
    fn read_bounced(&self, buf: &mut [u8], offset: u64) -> Result<(), std::io::Error> {
        let mut bounce = self.bounce().map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        let mut done = 0;
        let result = loop {
            let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) else { break Ok(()) };
            let at = offset + done as u64;
            let start = align_down(at, self.align);
            let skip = (at - start) as usize;
            let want = rest.len().min(bounce.len() - skip);
            let span = align_up((skip + want) as u64, self.align).unwrap_or(0) as usize;
            let Some(window) = bounce.get_mut(..span) else {
                break Err(std::io::ErrorKind::InvalidInput.into());
            };
            match read_up_to(&self.file, window, start, skip + want) {
                Ok(()) => {}
                Err(e) => break Err(e),
            }
            rest[..want].copy_from_slice(&window[skip..skip + want]);
            done += want;
        };
        self.give_back(bounce);
        result
    }

    /// Writes data whose place is aligned but whose memory is not.
    fn write_bounced(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        let mut bounce = self.bounce().map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        let mut at = offset;
        let result = buf.chunks(BOUNCE).try_for_each(|chunk| {
            let window = &mut bounce[..chunk.len()];
            window.copy_from_slice(chunk);
            self.file.write_all_at(window, at)?;
            at += chunk.len() as u64;
            Ok(())
        });
        self.give_back(bounce);
        result
    }
}

/// Reads into `window` until at least `need` bytes are there; the file may end inside the rest.
fn read_up_to(file: &File, window: &mut [u8], offset: u64, need: usize) -> std::io::Result<()> {
    let mut got = 0;
    while got < need {
        match file.read_at(&mut window[got..], offset + got as u64) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Storage for FileStorage {
    fn size(&self) -> Result<u64> {
        if self.device {
            return os::device_size(&self.file).context(|| format!("size of {}", self.label()));
        }
        Ok(self.file.metadata().context(|| self.label())?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let want = buf.len();
        let result = match &self.direct {
            None => self.file.read_exact_at(buf, offset),
            Some(direct) if direct.fits(buf.as_ptr() as usize, want, offset) => {
                direct.file.read_exact_at(buf, offset)
            }
            Some(direct) => direct.read_bounced(buf, offset),
        };
        result.map_err(|e| self.short(want, offset, e))
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        if self.direct.is_some() {
            return Ok(false);
        }
        // A file that was in the cache all the time is asked the dearer question only now and then.
        let warm = self.warm.load(Ordering::Relaxed);
        let (want, trust) = (buf.len(), warm >= TRUST && !warm.is_multiple_of(TRUST));
        let read = match trust {
            true => self.file.read_exact_at(buf, offset).map(|()| true),
            false => os::read_cached(&self.file, buf, offset).map(|got| got == Some(want)),
        };
        self.warm.store(if matches!(read, Ok(true)) { warm.wrapping_add(1) } else { 0 }, Ordering::Relaxed);
        read.map_err(|e| self.short(want, offset, e))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        byte_range(offset, buf.len() as u64)?;
        let result = match &self.direct {
            Some(direct) if direct.fits(buf.as_ptr() as usize, buf.len(), offset) => {
                direct.file.write_all_at(buf, offset)
            }
            Some(direct) if direct.fits(0, buf.len(), offset) => direct.write_bounced(buf, offset),
            _ => {
                let mut at = offset;
                buf.chunks(WRITE_PIECE).try_for_each(|piece| {
                    self.file.write_all_at(piece, at)?;
                    at += piece.len() as u64;
                    Ok(())
                })
            }
        };
        result.context(|| format!("writing {} bytes at {offset:#x} of {}", buf.len(), self.label()))
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().context(|| format!("making {} durable", self.label()))
    }

    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        if self.device {
            sink(range);
            return Ok(());
        }
        let mut at = range.start;
        while at < range.end {
            let Ok(next) = os::seek_next(&self.file, at, true) else {
                sink(at..range.end); // a file system that cannot tell
                return Ok(());
            };
            let Some(start) = next.filter(|start| *start < range.end) else { return Ok(()) };
            let end = os::seek_next(&self.file, start, false).ok().flatten().unwrap_or(range.end);
            let end = end.clamp(start + 1, range.end);
            sink(start..end);
            at = end;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).context(|| format!("setting the length of {} to {len}", self.label()))
    }

    fn copy_from(&self, offset: u64, source: &dyn Storage, from: Range<u64>) -> Result<Copied> {
        match source.local_file() {
            Some(LocalFile(file)) if self.direct.is_none() => {
                transfer::by_system(&(file, &self.file), self, offset, source, from)
            }
            _ => transfer::through_memory(self, offset, source, from),
        }
    }

    fn local_file(&self) -> Option<LocalFile<'_>> {
        Some(LocalFile(&self.file))
    }

    fn label(&self) -> String {
        self.path.display().to_string()
    }
}

impl NamedFile for FileStorage {
    fn give_name(&self) -> Result<()> {
        os::name_file(&self.file, &self.path).context(|| format!("naming {}", self.label()))
    }

    fn identity(&self) -> Result<Identity> {
        let meta = self.file.metadata().context(|| self.label())?;
        Ok(Identity(meta.dev(), meta.ino()))
    }

    fn lock_exclusively(&self) -> Result<()> {
        match os::lock_exclusively(&self.file).context(|| format!("locking {}", self.label()))? {
            true => Ok(()),
            false => {
                Err(Error::new(ErrorKind::Locked, format!("{} is open for writing elsewhere", self.label())))
            }
        }
    }

    fn unlock(&self) {
        os::unlock(&self.file);
    }

    fn preallocate(&self, range: Range<u64>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        if range.is_empty()
            || os::preallocate(&self.file, range.clone())
                .context(|| format!("reserving bytes {range:?} of {}", self.label()))?
        {
            return Ok(());
        }
        // A file system that cannot reserve.
        let zeros = vec![0; WRITE_PIECE];
        let mut at = range.start;
        while at < range.end {
            let part = zeros.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            self.write_at(zeros.get(..part).unwrap_or_default(), at)?;
            at += part as u64;
            progress(at - range.start);
        }
        Ok(())
    }

    fn flush_with_rights(&self) -> Result<()> {
        self.file.sync_all().context(|| format!("making {} durable", self.label()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: Access = Access { write: true, direct: true, device: false };

    /// A file of 20,000 bytes that differ, opened with `access`.
    fn sample(access: Access) -> (tempfile::TempDir, Vec<u8>, FileStorage) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        (dir, bytes, FileStorage::open(&path, access).unwrap())
    }

    #[test]
    fn unbuffered_reads_and_writes_take_any_alignment() {
        let (_dir, mut bytes, file) = sample(DIRECT);
        for (offset, len) in [(0, 20_000), (1, 513), (4096, 4096), (4095, 4098), (19_999, 1), (512, 1536)] {
            let mut buf = vec![0; len + 1];
            file.read_at(&mut buf[1..], offset as u64).unwrap();
            assert_eq!(&buf[1..], &bytes[offset..offset + len], "{len} bytes at {offset}");
        }
        for (offset, len) in [(4096, 8192), (100, 50), (512, 512), (8192, 4096)] {
            let data = vec![offset as u8 + 1; len + 1];
            file.write_at(&data[1..], offset as u64).unwrap();
            bytes[offset..offset + len].copy_from_slice(&data[1..]);
            let mut all = vec![0; bytes.len()];
            file.read_at(&mut all, 0).unwrap();
            assert_eq!(all, bytes, "after {len} bytes at {offset}");
        }
    }

    #[test]
    fn reading_past_the_end_fails() {
        for access in [Access::READ, DIRECT] {
            let (_dir, _bytes, file) = sample(access);
            for offset in [19_990, 20_000, 1 << 40] {
                assert_eq!(file.read_at(&mut [0; 64], offset).unwrap_err().kind(), ErrorKind::EndOfFile);
            }
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FileStorage::open(dir.path(), Access::READ).unwrap_err().kind(), ErrorKind::NotAFile);
        assert_eq!(
            FileStorage::open(Path::new("/dev/zero"), Access::READ).unwrap_err().kind(),
            ErrorKind::NotAFile
        );
        let missing = FileStorage::open(&dir.path().join("none"), Access::READ).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_second_writer_finds_the_file_locked() {
        let (_dir, _bytes, file) = sample(Access { direct: false, ..DIRECT });
        file.lock_exclusively().unwrap();
        let other = FileStorage::open(file.path(), Access { direct: false, ..DIRECT }).unwrap();
        assert_eq!(other.lock_exclusively().unwrap_err().kind(), ErrorKind::Locked);
        drop(file);
        other.lock_exclusively().unwrap();
    }

    #[test]
    fn holes_are_left_out() {
        let (_dir, _bytes, file) = sample(Access { direct: false, ..DIRECT });
        file.set_len(1 << 24).unwrap();
        file.write_at(&[1; 4096], 1 << 20).unwrap();
        let mut found = Vec::new();
        file.allocated(0..1 << 24, &mut |r| found.push(r)).unwrap();
        assert!(found.iter().any(|r| r.contains(&(1 << 20))), "{found:?}");
        assert!(found.iter().map(|r| r.end - r.start).sum::<u64>() < 1 << 22, "{found:?}");
    }
}
