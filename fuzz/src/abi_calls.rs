//! Target for the C interface: a sequence of calls with good, stale and garbage arguments on scratch disks.
//!
//! `maintain` has the calls that work on whole disks, also on disks with a few wrong bytes.
//!
//! A shadow copy of each disk says what reads must give; every accepted asynchronous call completes exactly once.
//! The interface is declared here by hand, from its reference, so that a changed type shows.
#![allow(unsafe_code, reason = "it is a C program in spirit")]
#![allow(non_snake_case, reason = "the interface's names")]

mod maintain;

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_void;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::ptr::null;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use vixDiskLib as _;

use super::images;
use super::images::SparseSpec;

type Handle = *mut c_void;
type Log = extern "C" fn(*const c_char, *mut c_void);
type Done = extern "C" fn(*mut c_void, u64);

#[repr(C)]
struct Blocks {
    count: u32,
    first: [[u64; 2]; 1],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CreateParams {
    disk_type: u32,
    adapter: u32,
    hardware: u16,
    capacity: u64,
    logical: u32,
    physical: u32,
}

unsafe extern "C" {
    fn VixDiskLib_InitEx(
        major: u32,
        minor: u32,
        log: Option<Log>,
        warn: Option<Log>,
        panic: Option<Log>,
        dir: *const c_char,
        config: *const c_char,
    ) -> u64;
    fn VixDiskLib_Exit();
    fn VixDiskLib_ConnectEx(
        params: *const c_void,
        read_only: c_char,
        snapshot: *const c_char,
        modes: *const c_char,
        out: *mut Handle,
    ) -> u64;
    fn VixDiskLib_Disconnect(connection: Handle) -> u64;
    fn VixDiskLib_AllocateConnectParams() -> *mut c_void;
    fn VixDiskLib_FreeConnectParams(params: *mut c_void);
    fn VixDiskLib_GetConnectParams(connection: Handle, out: *mut *mut c_void) -> u64;
    fn VixDiskLib_Create(
        connection: Handle,
        path: *const c_char,
        params: *const CreateParams,
        progress: *const c_void,
        data: *mut c_void,
    ) -> u64;
    fn VixDiskLib_Open(connection: Handle, path: *const c_char, flags: u32, out: *mut Handle) -> u64;
    fn VixDiskLib_Close(disk: Handle) -> u64;
    fn VixDiskLib_GetInfo(disk: Handle, out: *mut *mut c_void) -> u64;
    fn VixDiskLib_FreeInfo(info: *mut c_void);
    fn VixDiskLib_GetTransportMode(disk: Handle) -> *const c_char;
    fn VixDiskLib_Read(disk: Handle, start: u64, count: u64, buf: *mut u8) -> u64;
    fn VixDiskLib_Write(disk: Handle, start: u64, count: u64, buf: *const u8) -> u64;
    fn VixDiskLib_ReadAsync(
        disk: Handle,
        start: u64,
        count: u64,
        buf: *mut u8,
        done: Option<Done>,
        data: *mut c_void,
    ) -> u64;
    fn VixDiskLib_WriteAsync(
        disk: Handle,
        start: u64,
        count: u64,
        buf: *const u8,
        done: Option<Done>,
        data: *mut c_void,
    ) -> u64;
    fn VixDiskLib_Wait(disk: Handle) -> u64;
    fn VixDiskLib_Flush(disk: Handle) -> u64;
    fn VixDiskLib_QueryAllocatedBlocks(
        disk: Handle,
        start: u64,
        count: u64,
        chunk: u64,
        out: *mut *mut Blocks,
    ) -> u64;
    fn VixDiskLib_FreeBlockList(list: *mut Blocks) -> u64;
    fn VixDiskLib_ReadMetadata(
        disk: Handle,
        key: *const c_char,
        buf: *mut c_char,
        len: usize,
        required: *mut usize,
    ) -> u64;
    fn VixDiskLib_WriteMetadata(disk: Handle, key: *const c_char, value: *const c_char) -> u64;
    fn VixDiskLib_GetMetadataKeys(disk: Handle, keys: *mut c_char, len: usize, required: *mut usize) -> u64;
    fn VixDiskLib_GetErrorText(code: u64, locale: *const c_char) -> *mut c_char;
    fn VixDiskLib_FreeErrorText(text: *mut c_char);
    fn VixDiskLib_Cleanup(params: *const c_void, cleaned: *mut u32, remaining: *mut u32) -> u64;
}

const OK: u64 = 0;
const ASYNC: u64 = 25000;
const READ_ONLY: u32 = 4;
/// The file that is a child of the first one.
const CHILD: usize = 1;

/// Says what is called when `FUZZ_TRACE` is set, for reading a crash.
fn trace(text: impl FnOnce() -> String) {
    if std::env::var_os("FUZZ_TRACE").is_some() {
        eprintln!("{}", text());
    }
}

/// One process has one library: inputs take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A sequence of calls.
pub fn abi_calls(data: &[u8]) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut run = Run::new(data);
    while run.step() {}
    run.end();
}

extern "C" fn quiet(text: *const c_char, _arguments: *mut c_void) {
    // SAFETY: the library passes a terminated text that lives until this returns.
    let text = unsafe { CStr::from_ptr(text) };
    assert!(text.to_bytes().len() < 1000, "a log line too long for callers with small buffers");
}

extern "C" fn must_not_run(text: *const c_char, _arguments: *mut c_void) {
    // SAFETY: as in `quiet`.
    eprintln!("the panic callback was called: {:?}", unsafe { CStr::from_ptr(text) });
    std::process::abort();
}

/// An asynchronous call: how often it completed, and its buffer.
struct Call {
    completed: AtomicU64,
    buf: Vec<u8>,
}

extern "C" fn completed(data: *mut c_void, _result: u64) {
    // SAFETY: `data` is the `Call` that `Run::calls` keeps until every call is over.
    unsafe { &*data.cast::<Call>() }.completed.fetch_add(1, Ordering::SeqCst);
}

/// A file that disks are opened from.
struct File {
    path: CString,
    /// What a reader of a writer's handle must see; `None` where a failed or unfinished write may have been.
    shadow: Vec<Option<u8>>,
    /// The file it is a child of.
    parent: Option<usize>,
    /// It is there.
    exists: bool,
    /// Its bytes were spoilt: anything may come out but a crash, its size included.
    hostile: bool,
    /// What it holds cannot be known: its parent went away or changed.
    vague: bool,
}

impl File {
    fn new(path: CString, shadow: Vec<Option<u8>>) -> Self {
        Self { path, shadow, parent: None, exists: true, hostile: false, vague: false }
    }
}

/// An opened disk.
struct Disk {
    handle: Handle,
    file: usize,
    flags: u32,
    connection: usize,
    is_open: bool,
    /// It is not the disk of its file any more.
    vague: bool,
}

struct Run<'a> {
    data: &'a [u8],
    steps: u32,
    scratch: PathBuf,
    files: Vec<File>,
    connections: Vec<(Handle, bool)>,
    disks: Vec<Disk>,
    calls: Vec<(Box<Call>, bool)>,
    /// What asynchronous writes in flight may still change: what comes after them there is undefined.
    flying: Vec<(usize, Range<usize>)>,
}

impl<'a> Run<'a> {
    fn new(data: &'a [u8]) -> Self {
        let base =
            if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let scratch = base.join(format!("vix-fuzz-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).unwrap();
        let tiny = images::sparse(&SparseSpec::tiny());
        let capacity = tiny.content.len() as u64 / 512;
        let child = images::sparse(&SparseSpec {
            data: vec![1],
            descriptor: images::child_descriptor(
                "monolithicSparse",
                &format!("RW {capacity} SPARSE \"child.vmdk\""),
                "base.vmdk",
            ),
            ..SparseSpec::tiny()
        });
        let mut child_content = tiny.content.clone();
        child_content[4096..8192].copy_from_slice(&child.content[4096..8192]);
        let flat = images::descriptor(64, "monolithicFlat", "RW 64 FLAT \"flat-flat.vmdk\" 0");
        std::fs::write(scratch.join("flat-flat.vmdk"), vec![7; 64 * 512]).unwrap();
        let files = [
            ("base.vmdk", tiny.file, tiny.content),
            ("child.vmdk", child.file, child_content),
            ("flat.vmdk", flat.into_bytes(), vec![7; 64 * 512]),
        ]
        .map(|(name, bytes, content)| {
            let path = scratch.join(name);
            std::fs::write(&path, bytes).unwrap();
            let path = CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
            File::new(path, content.into_iter().map(Some).collect())
        });
        let mut files = Vec::from(files);
        files[CHILD].parent = Some(0);
        // SAFETY: the callbacks are functions of the interface's types; the paths may be null.
        let code =
            unsafe { VixDiskLib_InitEx(7, 0, Some(quiet), Some(quiet), Some(must_not_run), null(), null()) };
        assert_eq!(code, OK, "InitEx");
        let mut run = Self {
            data,
            steps: 0,
            scratch,
            files,
            connections: Vec::new(),
            disks: Vec::new(),
            calls: Vec::new(),
            flying: Vec::new(),
        };
        run.connect();
        run
    }

    fn byte(&mut self) -> u8 {
        match self.data.split_first() {
            Some((byte, rest)) => {
                self.data = rest;
                *byte
            }
            None => 0,
        }
    }

    /// A number that is often interesting.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small),
            200..=209 => u64::MAX - u64::from(self.byte()),
            210..=219 => 1 << (self.byte() % 64),
            220..=229 => u64::MAX / 512 - 1 + u64::from(self.byte()),
            230..=239 => 128 * u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn step(&mut self) -> bool {
        if self.data.is_empty() || self.steps == 200 {
            return false;
        }
        self.steps += 1;
        match self.byte() % 31 {
            0 | 1 => self.open(),
            2 => self.close(),
            3..=5 => self.read(),
            6..=8 => self.write(),
            9 | 10 => self.call_async(),
            11 => self.wait(),
            12 => self.blocks(),
            13 => self.metadata(),
            14 => self.info(),
            15 => self.connect(),
            16 => self.disconnect(),
            17 => self.create(),
            18 => self.texts(),
            19 => self.flush(),
            whole_disk => self.maintain(whole_disk),
        }
        true
    }

    /// A handle: usually that of a disk, open or not; else garbage. The index of the disk if it is open.
    fn handle(&mut self) -> (Handle, Option<usize>) {
        let choice = self.byte();
        if choice >= 0xf0 || self.disks.is_empty() {
            let garbage = match choice & 7 {
                0 => 0,
                1 => usize::MAX,
                2 => self.connections.first().map_or(1, |(c, _)| *c as usize),
                3 => self.disks.last().map_or(8, |d| d.handle as usize + 1),
                4 => self.disks.last().map_or(8, |d| d.handle as usize ^ 1 << 40),
                _ => self.number() as usize,
            };
            let handle = garbage as Handle;
            let hit = self.disks.iter().position(|d| d.handle == handle && d.is_open);
            return (handle, hit);
        }
        let i = usize::from(choice) % self.disks.len();
        (self.disks[i].handle, self.disks[i].is_open.then_some(i))
    }

    fn connect(&mut self) {
        let mut out: Handle = null_mut();
        let kind = self.byte() % 4;
        let short = [0u64; 9];
        // SAFETY: each form of parameters lives through the call; the short one has the 72 bytes that old callers pass.
        let code = unsafe {
            let allocated = if kind == 1 { VixDiskLib_AllocateConnectParams() } else { null_mut() };
            let params = match kind {
                1 => allocated.cast_const(),
                2 => short.as_ptr().cast(),
                _ => null(),
            };
            let code =
                VixDiskLib_ConnectEx(params, kind as c_char & 1, null(), c"file:nonsense".as_ptr(), &mut out);
            VixDiskLib_FreeConnectParams(allocated);
            code
        };
        assert!((code == OK) != out.is_null(), "a connection and code {code}");
        assert_eq!(code, OK, "a local connection");
        self.connections.push((out, true));
    }

    fn disconnect(&mut self) {
        let i = usize::from(self.byte()) % self.connections.len();
        let (connection, alive) = self.connections[i];
        // SAFETY: any value may be passed.
        let code = unsafe { VixDiskLib_Disconnect(connection) };
        trace(|| format!("Disconnect {i} = {code}"));
        assert_eq!(code == OK, alive, "disconnecting an alive ({alive}) connection gives {code}");
        self.connections[i].1 = false;
        self.disks.iter_mut().filter(|d| d.connection == i).for_each(|d| d.is_open = false);
        self.settled();
    }

    fn open(&mut self) {
        let (c, f) =
            (usize::from(self.byte()) % self.connections.len(), usize::from(self.byte()) % self.files.len());
        let mut flags = match self.byte() {
            odd @ 250.. => u32::from(odd) << 3 | READ_ONLY,
            flags => u32::from(flags) & 7,
        };
        // A second writer waits seconds for the first one to go.
        if self.disks.iter().any(|d| d.is_open && d.file == f && d.flags & READ_ONLY == 0) {
            flags |= READ_ONLY;
        }
        let mut handle: Handle = null_mut();
        // SAFETY: the path is terminated, the place for the handle is valid.
        let code = unsafe {
            VixDiskLib_Open(self.connections[c].0, self.files[f].path.as_ptr(), flags, &mut handle)
        };
        trace(|| format!("Open {c} file {f} flags {flags:#x} = {code}, disk {}", self.disks.len()));
        assert!((code == OK) != handle.is_null(), "a handle and code {code}");
        assert!(code != OK || self.connections[c].1, "opens on a dead connection");
        if code == OK {
            self.disks.push(Disk { handle, file: f, flags, connection: c, is_open: true, vague: false });
        }
    }

    fn close(&mut self) {
        let (handle, open) = self.handle();
        // SAFETY: any value may be passed.
        let code = unsafe { VixDiskLib_Close(handle) };
        trace(|| format!("Close {open:?} = {code}"));
        if let Some(i) = open {
            assert!(code == OK || self.is_hostile(i), "closing an open disk gives {code}");
            self.disks[i].is_open = false;
            self.settled();
        }
    }

    fn capacity(&self, disk: usize) -> u64 {
        self.files[self.disks[disk].file].shadow.len() as u64 / 512
    }

    /// The part of a shadow that `start..start + count` is, when that lies inside the disk.
    fn part(&self, disk: usize, start: u64, count: u64) -> Option<Range<usize>> {
        let end = start.checked_add(count).filter(|end| *end <= self.capacity(disk))?;
        Some(start as usize * 512..end as usize * 512)
    }

    fn read(&mut self) {
        let ((handle, open), start, count) = (self.handle(), self.number(), self.number());
        let count = self.bounded(count);
        let mut buf = vec![0x5a; 64 * 512];
        // SAFETY: no disk has more than 64 sectors, so what may be read fits.
        let code = unsafe { VixDiskLib_Read(handle, start, count, buf.as_mut_ptr()) };
        trace(|| format!("Read {open:?} {start}+{count} = {code}"));
        let Some(i) = open else { return assert_ne!(code, OK, "reads from a dead handle") };
        if self.is_hostile(i) {
            return;
        }
        match self.part(i, start, count) {
            None => {
                assert_ne!(code, OK, "reads past the end");
                assert!(buf.iter().all(|b| *b == 0x5a), "a refused read wrote into the buffer");
            }
            Some(part) if code == OK && self.follows(i) => {
                for (at, (got, want)) in
                    buf.iter().zip(&self.files[self.disks[i].file].shadow[part]).enumerate()
                {
                    assert!(
                        want.is_none_or(|w| w == *got),
                        "byte {at} of a read at {start} is {got:#x}, not {want:?}"
                    );
                }
            }
            Some(_) => assert!(code == OK || !self.follows(i), "a good read gives {code}"),
        }
    }

    /// True when a handle shows what the shadow has: the writer, or a reader while nobody ever wrote.
    fn follows(&self, i: usize) -> bool {
        let disk = &self.disks[i];
        let is_single = disk.flags & 2 != 0;
        let others_write = disk.flags & READ_ONLY != 0
            && self.disks.iter().any(|d| d.flags & READ_ONLY == 0 && d.file == disk.file);
        !(is_single || others_write || disk.vague || self.is_vague(disk.file))
    }

    /// True when nobody knows what a file holds: a parent that was written to makes its child's content undefined.
    fn is_vague(&self, file: usize) -> bool {
        let parent = self.files[file].parent;
        let written = |p: usize| self.disks.iter().any(|d| d.file == p && d.flags & READ_ONLY == 0);
        self.files[file].vague
            || self.files[file].hostile
            || parent.is_some_and(|p| written(p) || self.is_vague(p))
    }

    /// True for a disk whose file has wrong bytes.
    fn is_hostile(&self, i: usize) -> bool {
        self.files[self.disks[i].file].hostile
    }

    /// A number of sectors that a buffer holds where the size of the disk may be any.
    fn bounded(&self, count: u64) -> u64 {
        let hostile = (0..self.disks.len()).any(|i| self.disks[i].is_open && self.is_hostile(i));
        if hostile { count % 65 } else { count }
    }

    fn stamp(&mut self) -> Vec<u8> {
        let seed = self.byte();
        (0..64 * 512u32).map(|i| seed.wrapping_add((i / 512) as u8).wrapping_mul(31) ^ i as u8).collect()
    }

    fn write(&mut self) {
        let ((handle, open), start, count, buf) = (self.handle(), self.number(), self.number(), self.stamp());
        let count = self.bounded(count);
        // SAFETY: no disk has more than 64 sectors, so what may be read from the buffer is there.
        let code = unsafe { VixDiskLib_Write(handle, start, count, buf.as_ptr()) };
        trace(|| format!("Write {open:?} {start}+{count} = {code}"));
        let Some(i) = open else { return assert_ne!(code, OK, "writes to a dead handle") };
        if self.is_hostile(i) {
            return;
        }
        let part = self.part(i, start, count);
        assert!(code != OK || part.is_some(), "writes past the end");
        assert!(
            code != OK || count == 0 || self.disks[i].flags & READ_ONLY == 0,
            "writes to a read-only disk"
        );
        if let Some(part) = part.filter(|_| self.disks[i].flags & READ_ONLY == 0) {
            let file = self.disks[i].file;
            let races =
                |(f, r): &(usize, Range<usize>)| *f == file && r.start < part.end && part.start < r.end;
            let is_sure = code == OK && !self.flying.iter().any(races);
            for (old, new) in self.files[file].shadow[part].iter_mut().zip(&buf) {
                *old = is_sure.then_some(*new);
            }
        }
    }

    fn call_async(&mut self) {
        let ((handle, open), start, count) = (self.handle(), self.number(), self.number());
        let count = self.bounded(count);
        let (writes, buf, no_callback) = (self.byte() % 2 == 1, self.stamp(), self.byte() == 0xff);
        let mut call = Box::new(Call { completed: AtomicU64::new(0), buf });
        let data = (&raw mut *call).cast::<c_void>();
        let done: Option<Done> = if no_callback { None } else { Some(completed) };
        // SAFETY: the call and its buffer live in `self.calls` until the disk is closed; the buffer holds any disk whole.
        let code = unsafe {
            match writes {
                true => VixDiskLib_WriteAsync(handle, start, count, call.buf.as_ptr(), done, data),
                false => VixDiskLib_ReadAsync(handle, start, count, call.buf.as_mut_ptr(), done, data),
            }
        };
        assert_ne!(code, OK, "an asynchronous call never returns plain success");
        trace(|| format!("Async writes {writes} {open:?} {start}+{count} = {code}"));
        assert!(code != ASYNC || (open.is_some() && !no_callback), "accepted without a disk or callback");
        if let Some(part) =
            open.filter(|i| writes && !self.is_hostile(*i)).and_then(|i| self.part(i, start, count))
        {
            let file = self.disks[open.unwrap()].file;
            self.files[file].shadow[part.clone()].fill(None);
            self.flying.push((file, part));
        }
        self.calls.push((call, code == ASYNC));
    }

    fn wait(&mut self) {
        let (handle, open) = self.handle();
        // SAFETY: any value may be passed.
        let code = unsafe { VixDiskLib_Wait(handle) };
        trace(|| format!("Wait {open:?} = {code}"));
        assert_eq!(code == OK, open.is_some(), "waiting gives {code}");
        if open.is_some() && self.disks.iter().filter(|d| d.is_open).count() == 1 {
            self.settled();
        }
    }

    /// When no disk has calls in flight: each accepted one has completed once, each refused one never.
    fn settled(&mut self) {
        if self.disks.iter().filter(|d| d.is_open).count() > 1 {
            return;
        }
        // SAFETY: any value may be passed.
        self.disks
            .iter()
            .filter(|d| d.is_open)
            .for_each(|d| assert_eq!(unsafe { VixDiskLib_Wait(d.handle) }, OK));
        self.flying.clear();
        for (call, accepted) in &self.calls {
            let count = call.completed.load(Ordering::SeqCst);
            assert_eq!(count, u64::from(*accepted), "completions of a call that was accepted: {accepted}");
        }
    }

    fn flush(&mut self) {
        let (handle, open) = self.handle();
        // SAFETY: any value may be passed.
        let code = unsafe { VixDiskLib_Flush(handle) };
        trace(|| format!("Flush {open:?} = {code}"));
        let hostile = open.is_some_and(|i| self.is_hostile(i));
        assert!(hostile || (code == OK) == open.is_some(), "flushing gives {code}");
    }

    fn blocks(&mut self) {
        let ((handle, open), start, count, chunk) =
            (self.handle(), self.number(), self.number(), self.number());
        let mut list: *mut Blocks = null_mut();
        // SAFETY: the place for the list is valid; the list is read within its count and freed once.
        unsafe {
            let code = VixDiskLib_QueryAllocatedBlocks(handle, start, count, chunk, &mut list);
            assert!((code == OK) != list.is_null(), "a list and code {code}");
            if code == OK {
                let i = open.expect("lists the blocks of a dead handle");
                let blocks = std::slice::from_raw_parts(
                    (*list).first.as_ptr().cast::<[u64; 2]>(),
                    (*list).count as usize,
                );
                let mut at = start;
                for [offset, length] in blocks {
                    assert!(*length > 0 && *offset >= at, "blocks out of order");
                    at = offset + length;
                    assert!(at <= self.capacity(i) || self.is_hostile(i), "a block past the end of the disk");
                }
            }
            assert_eq!(VixDiskLib_FreeBlockList(list), OK);
        }
    }

    fn key(&mut self) -> CString {
        let known = [c"uuid", c"adapterType", c"geometry.heads", c"nonsense", c"", c"UUID", c"comment"];
        match self.byte() {
            i @ 0..=199 => known[usize::from(i) % known.len()].to_owned(),
            _ => {
                let len = usize::from(self.byte() % 40);
                CString::new((0..len).map(|_| self.byte().max(1)).collect::<Vec<u8>>()).unwrap()
            }
        }
    }

    fn metadata(&mut self) {
        let ((handle, open), key, value) = (self.handle(), self.key(), self.key());
        let (choice, len) = (self.byte(), usize::from(self.byte()));
        let mut buf = [0x5a_u8; 300];
        let mut required = usize::MAX;
        let text = buf.as_mut_ptr().cast::<c_char>();
        // SAFETY: the buffer is longer than any length passed; keys are terminated.
        let code = unsafe {
            match choice % 3 {
                0 => VixDiskLib_WriteMetadata(handle, key.as_ptr(), value.as_ptr()),
                1 => VixDiskLib_ReadMetadata(handle, key.as_ptr(), text, len, &mut required),
                _ => VixDiskLib_GetMetadataKeys(handle, text, len, &mut required),
            }
        };
        assert!(buf[len..].iter().all(|b| *b == 0x5a), "wrote past the caller's buffer");
        trace(|| format!("Metadata {} {open:?} {key:?} {value:?} = {code}", choice % 3));
        assert!(code != OK || open.is_some(), "metadata of a dead handle");
        if code == OK && choice % 3 != 0 {
            assert!(required <= len && buf[required - 1] == 0, "the text ends inside the buffer");
        }
    }

    fn info(&mut self) {
        let (handle, open) = self.handle();
        let mut info: *mut c_void = null_mut();
        // SAFETY: the place for the block is valid; it is freed once; the mode is a terminated text.
        unsafe {
            let code = VixDiskLib_GetInfo(handle, &mut info);
            assert_eq!(code == OK, open.is_some(), "info gives {code}");
            assert!((code == OK) != info.is_null());
            VixDiskLib_FreeInfo(info);
            let mode = CStr::from_ptr(VixDiskLib_GetTransportMode(handle));
            assert_eq!(mode == c"file", open.is_some(), "mode {mode:?}");
        }
    }

    fn create(&mut self) {
        let c = usize::from(self.byte()) % self.connections.len();
        let params = CreateParams {
            disk_type: u32::from(self.byte() % 9),
            adapter: u32::from(self.byte() % 5),
            hardware: u16::from(self.byte()),
            capacity: u64::from(self.byte() % 64),
            logical: if self.byte() == 0xfe { 4096 } else { 0 },
            physical: u32::from(self.byte()),
        };
        let number = self.byte() % 4;
        let path = self.scratch.join(format!("new{number}.vmdk")).into_os_string().into_encoded_bytes();
        let path = CString::new(path).unwrap();
        // SAFETY: path and parameters live through the call; no progress function is passed.
        let code =
            unsafe { VixDiskLib_Create(self.connections[c].0, path.as_ptr(), &params, null(), null_mut()) };
        assert!(code != OK || self.connections[c].1, "creates on a dead connection");
        trace(|| {
            format!("Create {path:?} of {} sectors, type {} = {code}", params.capacity, params.disk_type)
        });
        if code == OK {
            assert!(params.capacity > 0, "a disk of no sectors");
            assert!(self.files.iter().all(|f| !f.exists || f.path != path), "created over an existing disk");
            self.put(File::new(path, vec![Some(0); params.capacity as usize * 512]));
        }
    }

    fn texts(&mut self) {
        let code = self.number();
        let mut out: *mut c_void = null_mut();
        let (mut cleaned, mut remaining) = (9, 9);
        // SAFETY: texts are terminated and freed once; any connection value may be passed.
        unsafe {
            let text = VixDiskLib_GetErrorText(code, null());
            assert!(!CStr::from_ptr(text).is_empty(), "an empty text for {code}");
            VixDiskLib_FreeErrorText(text);
            let (connection, alive) = self.connections[0];
            let code = VixDiskLib_GetConnectParams(connection, &mut out);
            assert!(code != OK || alive, "parameters of a dead connection");
            VixDiskLib_FreeConnectParams(out);
            assert_eq!(VixDiskLib_Cleanup(null(), &mut cleaned, &mut remaining), OK);
        }
        assert_eq!((cleaned, remaining), (0, 0));
    }

    /// Ends everything; what was written is on the disks.
    fn end(mut self) {
        let close_first = self.steps.is_multiple_of(2);
        for i in 0..self.disks.len() {
            if close_first && self.disks[i].is_open {
                // SAFETY: any value may be passed.
                let code = unsafe { VixDiskLib_Close(self.disks[i].handle) };
                assert!(code == OK || self.is_hostile(i), "closing gives {code}");
                self.disks[i].is_open = false;
            }
        }
        // SAFETY: may be called at any time; disks still open are closed by it.
        unsafe { VixDiskLib_Exit() };
        self.disks.iter_mut().for_each(|d| d.is_open = false);
        self.settled();
        self.reread();
        std::fs::remove_dir_all(&self.scratch).unwrap();
    }

    fn reread(&self) {
        // SAFETY: as in `new`; the buffer holds any disk whole.
        unsafe {
            assert_eq!(
                VixDiskLib_InitEx(7, 0, Some(quiet), Some(quiet), Some(must_not_run), null(), null()),
                OK
            );
            let mut connection: Handle = null_mut();
            assert_eq!(VixDiskLib_ConnectEx(null(), 1, null(), null(), &mut connection), OK);
            for (number, file) in self.files.iter().enumerate() {
                let (mut handle, mut buf) = (null_mut(), vec![0x5a; 64 * 512]);
                if self.is_vague(number) || !file.exists {
                    continue;
                }
                let code = VixDiskLib_Open(connection, file.path.as_ptr(), READ_ONLY, &mut handle);
                assert_eq!(code, OK, "opening {:?} again", file.path);
                let sectors = file.shadow.len() as u64 / 512;
                assert_eq!(VixDiskLib_Read(handle, 0, sectors, buf.as_mut_ptr()), OK, "{:?}", file.path);
                for (at, (want, got)) in file.shadow.iter().zip(&buf).enumerate() {
                    assert!(
                        want.is_none_or(|w| w == *got),
                        "byte {at:#x} of {:?} is {got:#x}, not {want:?}",
                        file.path
                    );
                }
                assert_eq!(VixDiskLib_Close(handle), OK);
            }
            assert_eq!(VixDiskLib_Disconnect(connection), OK);
            VixDiskLib_Exit();
        }
    }
}
