//! A file system that notes every change of a file, a name or a folder, in order, and fails where it is told to.
//!
//! The files are real ones in one folder; what is noted is enough to make what a power cut would leave of them
//! ([`super::power_cut`]).
#![allow(dead_code)] // each test program uses its part

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::storage::Access;
use vixDiskLib::storage::Identity;
use vixDiskLib::storage::Storage;
use vixDiskLib::storage::file_system::FileSystem;
use vixDiskLib::storage::file_system::Host;
use vixDiskLib::storage::file_system::NamedFile;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    File(usize),
    Folder,
}

/// One change. Folders are paths relative to the recorded one.
#[derive(Clone, Debug)]
pub enum Op {
    Write {
        file: usize,
        at: u64,
        bytes: Vec<u8>,
    },
    Length {
        file: usize,
        len: u64,
    },
    Flush {
        file: usize,
    },
    /// Names of one folder that change in one step.
    Names {
        folder: PathBuf,
        changes: Vec<(OsString, Option<Node>)>,
    },
    FlushNames {
        folder: PathBuf,
    },
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An I/O error, nothing happened.
    Eio,
    /// No space, for calls that need some; others are spared.
    Enospc,
    /// Half of the sectors of a write arrive, then there is no space; other calls are spared.
    Short,
}

impl Fault {
    fn is_for(self, call: Call) -> bool {
        match self {
            Fault::Eio => true,
            Fault::Enospc => matches!(call, Call::Write | Call::Space),
            Fault::Short => call == Call::Write,
        }
    }
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Look,
    Write,
    Space,
    Flush,
    Remove,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    at: usize,
    fault: Fault,
    forever: bool,
}

/// What failed first.
#[derive(Clone, Debug)]
pub struct Struck {
    /// A sentence.
    pub what: String,
    /// Something was to be removed.
    pub removal: bool,
    /// So many changes were made before.
    pub position: usize,
}

#[derive(Debug, Default)]
struct State {
    ops: Vec<Op>,
    /// Which file an inode is.
    ids: HashMap<u64, usize>,
    files: usize,
    /// The calls since the plan was made.
    calls: Vec<Call>,
    plan: Option<Plan>,
    struck: Option<Struck>,
}

impl State {
    fn known(&mut self, inode: u64) -> usize {
        let file = *self.ids.entry(inode).or_insert(self.files);
        self.files = self.files.max(file + 1);
        file
    }
}

/// What not every file system can do.
#[derive(Clone, Copy, Debug)]
pub struct Can {
    /// Files without a name can be made.
    pub unnamed: bool,
    /// Files can have two names.
    pub link: bool,
}

impl Can {
    pub const ALL: Can = Can { unnamed: true, link: true };
}

/// A recorded folder.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Host,
    /// Absolute, without symbolic links.
    root: PathBuf,
    can: Can,
    state: Mutex<State>,
}

impl Recorder {
    /// Records what happens below `root`, where the files `ids` are.
    pub fn new(root: &Path, ids: HashMap<u64, usize>, can: Can) -> Self {
        let state = State { files: ids.len(), ids, ..State::default() };
        Self(Arc::new(Inner { host: Host, root: root.to_owned(), can, state: Mutex::new(state) }))
    }

    /// The call with the number `at` fails, and all after it if `forever`.
    pub fn fail(&self, at: usize, fault: Fault, forever: bool) {
        let mut state = self.0.state.lock().unwrap();
        state.calls.clear();
        state.struck = None;
        state.plan = Some(Plan { at, fault, forever });
    }

    /// No call fails from now on. What failed, if the planned call came.
    pub fn heal(&self) -> Option<Struck> {
        let mut state = self.0.state.lock().unwrap();
        state.plan = None;
        state.struck.take()
    }

    /// The numbers of the calls so far that such a fault may strike.
    pub fn targets(&self, fault: Fault) -> Vec<usize> {
        let calls = &self.0.state.lock().unwrap().calls;
        (0..calls.len()).filter(|&at| fault.is_for(calls[at])).collect()
    }

    pub fn ops(&self) -> Vec<Op> {
        self.0.state.lock().unwrap().ops.clone()
    }

    /// Counts a call; the error if it is to fail.
    fn call(&self, call: Call, what: impl FnOnce() -> String) -> std::result::Result<(), (Fault, Error)> {
        let mut state = self.0.state.lock().unwrap();
        let number = state.calls.len();
        state.calls.push(call);
        let Some(plan) = state.plan else { return Ok(()) };
        let due = number == plan.at || plan.forever && number > plan.at;
        if !due || !plan.fault.is_for(call) {
            return Ok(());
        }
        let what = what();
        let errno = if plan.fault == Fault::Eio { 5 } else { 28 };
        let struck = Struck { what: what.clone(), removal: call == Call::Remove, position: state.ops.len() };
        state.struck.get_or_insert(struck);
        Err((plan.fault, Error::from_io(std::io::Error::from_raw_os_error(errno), what)))
    }

    fn plain(&self, call: Call, what: &str, path: &Path) -> Result<()> {
        self.call(call, || format!("{what} {}", path.display())).map_err(|(_, error)| error)
    }

    fn note(&self, op: Op) {
        self.0.state.lock().unwrap().ops.push(op);
    }

    /// Folder, relative, and name of a path; `None` outside of what is recorded.
    fn place(&self, path: &Path) -> Option<(PathBuf, OsString)> {
        let folder = path.parent()?.canonicalize().ok()?;
        Some((folder.strip_prefix(&self.0.root).ok()?.to_owned(), path.file_name()?.to_owned()))
    }

    fn note_name(&self, path: &Path, node: Option<Node>) {
        if let Some((folder, name)) = self.place(path) {
            self.note(Op::Names { folder, changes: vec![(name, node)] });
        }
    }

    fn file(&self, inner: Arc<dyn NamedFile>, is_new: bool) -> Recorded {
        let inode = inner.identity().unwrap().1;
        let mut state = self.0.state.lock().unwrap();
        if is_new {
            state.ids.remove(&inode); // the number of a file that is gone may come again
        }
        let file = state.known(inode);
        drop(state);
        Recorded { inner, recorder: self.clone(), file }
    }

    fn node(&self, path: &Path) -> Option<Node> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::symlink_metadata(path).ok()?;
        if meta.is_dir() {
            return Some(Node::Folder);
        }
        Some(Node::File(self.0.state.lock().unwrap().known(meta.ino())))
    }

    fn created(&self, path: &Path, inner: Arc<dyn NamedFile>) -> Arc<dyn NamedFile> {
        let file = self.file(inner, true);
        self.note_name(path, Some(Node::File(file.file)));
        Arc::new(file)
    }
}

impl FileSystem for Recorder {
    fn open(&self, path: &Path, access: Access) -> Result<Arc<dyn NamedFile>> {
        self.plain(Call::Look, "opening", path)?;
        Ok(Arc::new(self.file(self.0.host.open(path, access)?, false)))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn NamedFile>> {
        self.plain(Call::Space, "creating", path)?;
        Ok(self.created(path, self.0.host.create(path)?))
    }

    fn create_like(&self, path: &Path, like: &Metadata) -> Result<Arc<dyn NamedFile>> {
        self.plain(Call::Space, "creating", path)?;
        Ok(self.created(path, self.0.host.create_like(path, like)?))
    }

    fn create_unnamed(&self, path: &Path) -> Option<Arc<dyn NamedFile>> {
        if !self.0.can.unnamed || self.plain(Call::Space, "making a file for", path).is_err() {
            return None;
        }
        let inner = self.0.host.create_unnamed(path)?;
        Some(Arc::new(self.file(inner, true)))
    }

    fn link(&self, old: &Path, new: &Path) -> Result<()> {
        self.plain(Call::Space, "linking to", new)?;
        if !self.0.can.link {
            return Err(Error::new(ErrorKind::NotSupported, "files have one name here"));
        }
        self.0.host.link(old, new)?;
        self.note_name(new, self.node(new));
        Ok(())
    }

    fn rename(&self, old: &Path, new: &Path) -> Result<()> {
        self.plain(Call::Space, "renaming to", new)?;
        self.0.host.rename(old, new)?;
        let node = self.node(new);
        if let (Some((from, old)), Some((to, new))) = (self.place(old), self.place(new)) {
            if from == to {
                self.note(Op::Names { folder: to, changes: vec![(old, None), (new, node)] });
            } else {
                self.note(Op::Names { folder: to, changes: vec![(new, node)] });
                self.note(Op::Names { folder: from, changes: vec![(old, None)] });
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.plain(Call::Remove, "removing", path)?;
        let was_there = self.node(path).is_some();
        self.0.host.remove(path)?;
        if was_there {
            self.note_name(path, None);
        }
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        self.plain(Call::Space, "making the folder", path)?;
        self.0.host.make_folder(path)?;
        self.note_name(path, Some(Node::Folder));
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        self.plain(Call::Remove, "removing the folder", path)?;
        self.0.host.remove_folder(path)?;
        self.note_name(path, None);
        Ok(())
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        self.plain(Call::Look, "listing", folder)?;
        let mut found = self.0.host.list(folder)?;
        found.sort(); // the same on every run
        Ok(found)
    }

    fn flush_folder(&self, folder: &Path) -> Result<()> {
        self.plain(Call::Flush, "flushing the folder", folder)?;
        self.0.host.flush_folder(folder)?;
        if let Some((folder, _)) = self.place(&folder.join("any")) {
            self.note(Op::FlushNames { folder });
        }
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
struct Recorded {
    inner: Arc<dyn NamedFile>,
    recorder: Recorder,
    file: usize,
}

impl Recorded {
    fn call(&self, call: Call, what: &str) -> Result<()> {
        self.recorder.call(call, || format!("{what} {}", self.inner.label())).map_err(|(_, error)| error)
    }

    fn put(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.inner.write_at(bytes, at)?;
        self.recorder.note(Op::Write { file: self.file, at, bytes: bytes.to_vec() });
        Ok(())
    }
}

impl Storage for Recorded {
    fn size(&self) -> Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.call(Call::Look, "reading")?;
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        match self.recorder.call(Call::Write, || format!("writing at {offset:#x} of {}", self.label())) {
            Ok(()) => self.put(buf, offset),
            Err((Fault::Short, error)) => {
                self.put(&buf[..buf.len() / 2 / 512 * 512], offset)?;
                Err(error)
            }
            Err((_, error)) => Err(error),
        }
    }

    fn flush(&self) -> Result<()> {
        self.call(Call::Flush, "flushing")?;
        self.inner.flush()?;
        self.recorder.note(Op::Flush { file: self.file });
        Ok(())
    }

    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        self.inner.allocated(range, sink)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.call(Call::Space, "setting the length of")?;
        self.inner.set_len(len)?;
        self.recorder.note(Op::Length { file: self.file, len });
        Ok(())
    }

    fn label(&self) -> String {
        self.inner.label()
    }
}

impl NamedFile for Recorded {
    fn identity(&self) -> Result<Identity> {
        self.inner.identity()
    }

    fn lock_exclusively(&self) -> Result<()> {
        self.inner.lock_exclusively()
    }

    fn unlock(&self) {
        self.inner.unlock();
    }

    /// Takes no space: the tests have large files with nothing in them.
    fn preallocate(&self, range: Range<u64>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        self.call(Call::Space, "reserving space for")?;
        if self.inner.size()? < range.end {
            self.inner.set_len(range.end)?;
            self.recorder.note(Op::Length { file: self.file, len: range.end });
        }
        progress(range.end - range.start);
        Ok(())
    }

    fn give_name(&self) -> Result<()> {
        let path = PathBuf::from(self.label());
        self.recorder.plain(Call::Space, "naming", &path)?;
        self.inner.give_name()?;
        self.recorder.note_name(&path, Some(Node::File(self.file)));
        Ok(())
    }

    fn flush_with_rights(&self) -> Result<()> {
        self.call(Call::Flush, "flushing")?;
        self.inner.flush_with_rights()?;
        self.recorder.note(Op::Flush { file: self.file });
        Ok(())
    }
}
