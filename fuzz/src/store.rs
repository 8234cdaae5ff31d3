//! Storages and folders in memory: files with holes, of any claimed length, that count what is asked of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::storage::Access;
use vixDiskLib::storage::Folder;
use vixDiskLib::storage::Identity;
use vixDiskLib::storage::Place;
use vixDiskLib::storage::Storage;

/// Bytes in a page of a [`Holey`] file.
const PAGE: usize = 4096;

/// A writer may make a file this long, no longer: what a real disk full of other things would say too.
const LONGEST: u64 = 1 << 44;

/// A file in memory. Pages that were never written are holes and cost nothing, whatever length it claims.
#[derive(Debug, Default)]
pub struct Holey {
    inner: Mutex<Pages>,
    bytes_read: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Pages {
    len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Holey {
    /// A file with this content; pages of zeros become holes.
    pub fn new(content: &[u8]) -> Arc<Self> {
        let file = Self::default();
        let mut inner = file.inner.lock().unwrap();
        inner.len = content.len() as u64;
        for (index, chunk) in content.chunks(PAGE).enumerate() {
            if chunk.iter().any(|b| *b != 0) {
                inner.write(chunk, (index * PAGE) as u64);
            }
        }
        drop(inner);
        Arc::new(file)
    }

    /// The bytes of a file given whole, or as [`MAGIC`], the length in sectors (u64) and pieces of a sector number (u32)
    /// and 512 bytes, for files that are mostly holes.
    pub fn decode(data: &[u8]) -> Arc<Self> {
        let Some((sectors, pieces)) = data.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<8>())
        else {
            return Self::new(data);
        };
        let file = Self::default();
        let mut inner = file.inner.lock().unwrap();
        inner.len = u64::from_le_bytes(*sectors).min(LONGEST / 512) * 512;
        for piece in pieces.chunks(4 + 512) {
            let Some((sector, content)) = piece.split_first_chunk::<4>() else { break };
            let at = u64::from(u32::from_le_bytes(*sector)) * 512;
            let room = inner.len.saturating_sub(at).min(content.len() as u64) as usize;
            inner.write(&content[..room], at);
        }
        drop(inner);
        Arc::new(file)
    }

    /// The shorter of the two forms that [`Holey::decode`] takes.
    pub fn encode(content: &[u8]) -> Vec<u8> {
        let mut data = [MAGIC, &(content.len().div_ceil(512) as u64).to_le_bytes()].concat();
        for (sector, bytes) in content.chunks(512).enumerate() {
            if bytes.iter().any(|b| *b != 0) {
                data.extend((sector as u32).to_le_bytes());
                data.extend(bytes);
                data.resize(data.len() + 512 - bytes.len(), 0);
            }
        }
        if data.len() < content.len() { data } else { content.to_vec() }
    }

    /// Another file with the same content.
    pub fn copy(&self) -> Arc<Self> {
        let inner = Mutex::new(self.inner.lock().unwrap().clone());
        Arc::new(Self { inner, bytes_read: AtomicU64::new(0) })
    }

    /// How many bytes were read from it, holes included.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        self.inner.lock().unwrap().len
    }

    /// Bytes at a position, `None` past the end. For oracles: is not counted.
    pub fn peek(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let inner = self.inner.lock().unwrap();
        let end = at.checked_add(len as u64)?;
        (end <= inner.len).then(|| {
            let mut buf = vec![0; len];
            inner.read(&mut buf, at);
            buf
        })
    }

    /// Changes bytes, whatever is there.
    pub fn poke(&self, at: u64, bytes: &[u8]) {
        self.inner.lock().unwrap().write(bytes, at);
    }
}

/// What the form with holes begins with.
pub const MAGIC: &[u8] = b"\0pieces\0";

impl Pages {
    fn read(&self, buf: &mut [u8], at: u64) {
        let mut done = 0;
        while done < buf.len() {
            let (page, skip, run) = step(at + done as u64, buf.len() - done);
            match self.pages.get(&page) {
                Some(content) => buf[done..done + run].copy_from_slice(&content[skip..skip + run]),
                None => buf[done..done + run].fill(0),
            }
            done += run;
        }
    }

    fn write(&mut self, buf: &[u8], at: u64) {
        let mut done = 0;
        while done < buf.len() {
            let (page, skip, run) = step(at + done as u64, buf.len() - done);
            let content = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            content[skip..skip + run].copy_from_slice(&buf[done..done + run]);
            done += run;
        }
        self.len = self.len.max(at + buf.len() as u64);
    }
}

/// Page, position in it, and bytes up to its end or `left`.
fn step(at: u64, left: usize) -> (u64, usize, usize) {
    let skip = (at % PAGE as u64) as usize;
    (at / PAGE as u64, skip, left.min(PAGE - skip))
}

impl Storage for Holey {
    fn size(&self) -> Result<u64> {
        Ok(self.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.bytes_read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let inner = self.inner.lock().unwrap();
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= inner.len => {
                inner.read(buf, offset);
                Ok(())
            }
            _ => Err(Error::new(
                ErrorKind::EndOfFile,
                format!("{} bytes at {offset:#x} of {:#x}", buf.len(), inner.len),
            )),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= LONGEST => {
                self.inner.lock().unwrap().write(buf, offset);
                Ok(())
            }
            _ => {
                Err(Error::new(ErrorKind::DiskFull, format!("{} bytes at {offset:#x} do not fit", buf.len())))
            }
        }
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let inner = self.inner.lock().unwrap();
        let range = range.start..range.end.min(inner.len);
        let (first, last) = (range.start / PAGE as u64, range.end.div_ceil(PAGE as u64));
        let pages: Vec<u64> = inner.pages.range(first..last.max(first)).map(|(page, _)| *page).collect();
        drop(inner);
        for page in pages {
            let at = page * PAGE as u64;
            sink(at.max(range.start)..(at + PAGE as u64).min(range.end));
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if len > LONGEST {
            return Err(Error::new(ErrorKind::FileTooBig, format!("{len:#x} bytes do not fit")));
        }
        let mut inner = self.inner.lock().unwrap();
        if len < inner.len {
            let tail = len.div_ceil(PAGE as u64);
            inner.pages.split_off(&tail);
            if let Some(page) = inner.pages.get_mut(&(len / PAGE as u64)) {
                page[(len % PAGE as u64) as usize..].fill(0);
            }
        }
        inner.len = len;
        Ok(())
    }

    fn label(&self) -> String {
        "memory".to_owned()
    }
}

/// A folder of files in memory; names inside images lead to these and to nothing else.
#[derive(Clone, Debug, Default)]
pub struct MemFolder {
    inner: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<String, Arc<Holey>>,
    /// How often each was opened.
    opened: BTreeMap<String, u32>,
}

impl MemFolder {
    /// A folder with these files.
    pub fn new(files: impl IntoIterator<Item = (String, Arc<Holey>)>) -> Self {
        let inner = Names { files: files.into_iter().collect(), opened: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A file of it.
    pub fn file(&self, name: &str) -> Result<Arc<Holey>> {
        match self.inner.lock().unwrap().files.get(name) {
            Some(file) => Ok(file.clone()),
            None => Err(Error::new(ErrorKind::NotFound, format!("no file {name:?} here"))),
        }
    }

    /// The place a file of it is.
    pub fn place(&self, name: &str) -> Result<Place> {
        let storage: Arc<dyn Storage> = self.open(name)?;
        let number = self.inner.lock().unwrap().files.keys().position(|n| n == name).unwrap() as u64;
        let folder: Arc<dyn Folder> = Arc::new(self.clone());
        let identity = Identity(1, number);
        Ok(Place { storage, folder, name: name.into(), label: name.to_owned(), identity })
    }

    fn open(&self, name: &str) -> Result<Arc<Holey>> {
        let file = self.file(name)?;
        *self.inner.lock().unwrap().opened.entry(name.to_owned()).or_default() += 1;
        Ok(file)
    }

    /// Forgets what was opened.
    pub fn forget_opened(&self) {
        self.inner.lock().unwrap().opened.clear();
    }

    /// True when some file was opened more than once: it stands in several places of the disk.
    pub fn has_shared_files(&self) -> bool {
        self.inner.lock().unwrap().opened.values().any(|count| *count > 1)
    }

    /// All files.
    pub fn files(&self) -> Vec<Arc<Holey>> {
        self.inner.lock().unwrap().files.values().cloned().collect()
    }
}

impl Folder for MemFolder {
    fn extent(&self, name: &str, _access: Access) -> Result<Arc<dyn Storage>> {
        Ok(self.open(name)?)
    }

    fn parent(&self, hint: &str, nth: usize) -> Result<Option<Place>> {
        let candidates = [hint, hint.rsplit('/').next().unwrap_or(hint)];
        candidates.get(nth).map(|name| self.place(name)).transpose()
    }

    fn replace(&self, name: &OsStr, bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        let file = Holey::new(bytes);
        let name = name.to_str().ok_or_else(|| Error::new(ErrorKind::NameInvalid, "not a text"))?;
        self.inner.lock().unwrap().files.insert(name.to_owned(), file.clone());
        Ok(file)
    }
}
