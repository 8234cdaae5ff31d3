//! The C interface of the built library behind a thin safe wrapper.
//!
//! Types and signatures are written here from the interface's description, not taken from the library's own Rust types:
//! a wrong type on their side shows as a wrong value here.
#![allow(unsafe_code)] // the one place of the behaviour tests that calls C

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::ptr::null;
use std::ptr::null_mut;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use libloading::Library;

/// Codes the tests name.
pub mod code {
    #![allow(missing_docs)]
    pub const OK: u64 = 0;
    pub const FAIL: u64 = 1;
    pub const INVALID_ARG: u64 = 3;
    pub const FILE_NOT_FOUND: u64 = 4;
    pub const NOT_SUPPORTED: u64 = 6;
    pub const FILE_ERROR: u64 = 7;
    pub const DISK_FULL: u64 = 8;
    pub const FILE_READ_ONLY: u64 = 11;
    pub const ALREADY_EXISTS: u64 = 12;
    pub const ACCESS_ERROR: u64 = 13;
    pub const ALREADY_LOCKED: u64 = 15;
    pub const NAME_INVALID: u64 = 22;
    pub const FILE_TOO_BIG: u64 = 21;
    pub const NAME_TOO_LONG: u64 = 20004;
    pub const BUFFER_TOO_SMALL: u64 = 24;
    pub const INVALID_HANDLE: u64 = 1000;
    pub const END_OF_FILE: u64 = 14005;
    pub const NOINIT: u64 = 16001;
    pub const NEEDS_REPAIR: u64 = 16006;
    pub const OUT_OF_RANGE: u64 = 16007;
    pub const CID_MISMATCH: u64 = 16008;
    pub const UNSUPPORTED_VERSION: u64 = 16011;
    pub const OPEN_PARENT: u64 = 16012;
    pub const DISK_NOT_SUPPORTED: u64 = 16013;
    pub const TOO_MANY_LINKS: u64 = 16028;
    pub const INVALID_CHAIN: u64 = 16030;
    pub const KEY_NOT_FOUND: u64 = 16052;
    pub const INVALID_CONNECTION: u64 = 16054;
    pub const CORRUPT: u64 = 16062;
    pub const INVALID_DISK: u64 = 16063;
    pub const PARTIAL_CHAIN: u64 = 16003;
    pub const CAPACITY_MISMATCH: u64 = 16067;
    pub const PARENT_NOT_ALLOWED: u64 = 16068;
    pub const ATTACH_ROOT_LINK: u64 = 16069;
    pub const ASYNC: u64 = 25000;
}

/// Open flags.
pub mod flags {
    #![allow(missing_docs)]
    pub const READ_WRITE: u32 = 0;
    pub const UNBUFFERED: u32 = 1;
    pub const SINGLE_LINK: u32 = 2;
    pub const READ_ONLY: u32 = 4;
}

/// A kind of disk to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// One growing file.
    Sparse = 1,
    /// One preallocated file.
    Flat = 2,
    /// Growing files of 2 GB.
    SplitSparse = 3,
    /// Preallocated files of 2 GB.
    SplitFlat = 4,
    /// ESX thick.
    VmfsFlat = 5,
    /// Compressed.
    Stream = 6,
    /// ESX thin.
    VmfsThin = 7,
    /// ESX delta.
    VmfsSparse = 8,
}

/// Adapters.
pub mod adapter {
    #![allow(missing_docs)]
    pub const IDE: u32 = 1;
    pub const BUSLOGIC: u32 = 2;
    pub const LSILOGIC: u32 = 3;
    pub const UNKNOWN: u32 = 256;
}

/// Geometry as the interface has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u32,
    /// Heads.
    pub heads: u32,
    /// Sectors per track.
    pub sectors: u32,
}

#[repr(C)]
struct RawInfo {
    bios: Geometry,
    physical: Geometry,
    capacity: u64,
    adapter: u32,
    links: c_int,
    parent: *const c_char,
    uuid: *const c_char,
    logical_sector: u32,
    physical_sector: u32,
}

#[repr(C)]
struct RawBlockList {
    count: u32,
    blocks: [[u64; 2]; 1],
}

#[repr(C)]
struct CreateParams {
    kind: u32,
    adapter: u32,
    hw_version: u16,
    capacity: u64,
    logical_sector: u32,
    physical_sector: u32,
}

/// What a disk says about itself, copied out of the library's block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Geometry the BIOS shows.
    pub bios: Geometry,
    /// The disk's geometry.
    pub physical: Geometry,
    /// Sectors.
    pub capacity: u64,
    /// Adapter.
    pub adapter: u32,
    /// Links in the chain.
    pub links: i32,
    /// The parent's name.
    pub parent: Option<String>,
    /// The uuid.
    pub uuid: Option<String>,
    /// Logical and physical sector size.
    pub sector_sizes: (u32, u32),
}

/// What a disk to create is made of.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The kind.
    pub kind: Kind,
    /// Its size in sectors.
    pub capacity: u64,
    /// The adapter.
    pub adapter: u32,
    /// The hardware version.
    pub hw_version: u16,
    /// Logical and physical sector size; 0 for those who do not say.
    pub sector_sizes: (u32, u32),
}

impl Spec {
    fn raw(self) -> CreateParams {
        CreateParams {
            kind: self.kind as u32,
            adapter: self.adapter,
            hw_version: self.hw_version,
            capacity: self.capacity,
            logical_sector: self.sector_sizes.0,
            physical_sector: self.sector_sizes.1,
        }
    }

    /// A disk as nbdkit makes it by default: BusLogic, version 4.
    pub fn new(kind: Kind, capacity: u64) -> Self {
        Self { kind, capacity, adapter: adapter::BUSLOGIC, hw_version: 4, sector_sizes: (0, 0) }
    }
}

type Handle = *mut c_void;
type LogFn = unsafe extern "C" fn(*const c_char, *mut c_void);
type ProgressFn = unsafe extern "C" fn(*mut c_void, c_int) -> c_char;
type CompletionFn = unsafe extern "C" fn(*mut c_void, u64);

/// The loaded library. Loading is all that happens at first; [`Vix::init`] starts it.
#[derive(Debug)]
pub struct Vix {
    library: Library,
}

unsafe extern "C" {
    fn vsnprintf(buf: *mut c_char, len: usize, format: *const c_char, arguments: *mut c_void) -> c_int;
}

/// Which callback a line came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `log`.
    Log,
    /// `warn`.
    Warn,
    /// `panic`.
    Panic,
}

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

static MUTED: AtomicBool = AtomicBool::new(false);

/// Drops further lines. For a fork child, in which the capture's own lock may be held for ever.
pub fn mute() {
    MUTED.store(true, Ordering::Relaxed);
}

fn keep(level: Level, format: *const c_char, arguments: *mut c_void) {
    let mut buf = vec![0u8; 8192];
    // SAFETY: the library hands a format and a va_list that fit each other; on this machine a va_list parameter is a
    // pointer. The buffer has the length that is passed.
    unsafe { vsnprintf(buf.as_mut_ptr().cast(), buf.len(), format, arguments) };
    let text =
        CStr::from_bytes_until_nul(&buf).expect("vsnprintf ends its text").to_string_lossy().into_owned();
    if !MUTED.load(Ordering::Relaxed) {
        LINES.lock().expect("the log").push((level, text));
    }
}

unsafe extern "C" fn on_log(format: *const c_char, arguments: *mut c_void) {
    keep(Level::Log, format, arguments);
}

unsafe extern "C" fn on_warn(format: *const c_char, arguments: *mut c_void) {
    keep(Level::Warn, format, arguments);
}

unsafe extern "C" fn on_panic(format: *const c_char, arguments: *mut c_void) {
    keep(Level::Panic, format, arguments);
}

/// Everything logged so far in this process.
pub fn log_lines() -> Vec<(Level, String)> {
    LINES.lock().expect("the log").clone()
}

/// Forgets what was logged.
pub fn forget_log() {
    LINES.lock().expect("the log").clear();
}

/// The log as one text.
pub fn log_text() -> String {
    log_lines().into_iter().map(|(level, line)| format!("{level:?}: {line}")).collect()
}

/// The built library: `VIX_LIB`, or next to this test program.
pub fn library_path() -> PathBuf {
    if let Some(path) = std::env::var_os("VIX_LIB") {
        return PathBuf::from(path);
    }
    let program = std::env::current_exe().expect("the path of this program");
    let folder = program.parent().expect("its folder");
    let path = folder.join("libvixDiskLib.so");
    assert!(path.is_file(), "{} is not built", path.display());
    path
}

/// Keeps the percentages that an operation reports.
unsafe extern "C" fn note_progress(data: *mut c_void, percent: c_int) -> c_char {
    // SAFETY: the vector that the caller below passes, alive for the call that reports.
    unsafe { (*data.cast::<Vec<i32>>()).push(percent) };
    1
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

macro_rules! call {
    ($vix:expr, $name:literal, fn($($type:ty),*) $(-> $result:ty)?, $($argument:expr),* $(,)?) => {{
        // SAFETY: the signature is that of the interface; the arguments are alive for the call.
        unsafe {
            let function: libloading::Symbol<'_, unsafe extern "C" fn($($type),*) $(-> $result)?> =
                $vix.library.get(concat!("VixDiskLib_", $name)).expect(concat!("the symbol VixDiskLib_", $name));
            function($($argument),*)
        }
    }};
}

impl Vix {
    /// Loads the built library.
    pub fn load() -> Self {
        // SAFETY: the library's constructors have no effects; a test checks that.
        let library = unsafe { Library::new(library_path()) };
        Self { library: library.unwrap_or_else(|e| panic!("loading the library: {e}")) }
    }

    /// One library for the whole process, initialised with log capture, never unloaded.
    pub fn started() -> &'static Vix {
        static STARTED: OnceLock<Vix> = OnceLock::new();
        STARTED.get_or_init(|| {
            let vix = Vix::load();
            assert_eq!(vix.init(), code::OK, "InitEx: {}", log_text());
            vix
        })
    }

    /// `InitEx` as version 6.5 with log capture.
    pub fn init(&self) -> u64 {
        self.init_version(6, 5)
    }

    /// `InitEx` as some version with log capture.
    pub fn init_version(&self, major: u32, minor: u32) -> u64 {
        self.init_with(major, minor, None)
    }

    /// `InitEx` with a configuration file.
    pub fn init_with(&self, major: u32, minor: u32, config: Option<&Path>) -> u64 {
        let config = config.map(c_path);
        call!(
            self,
            "InitEx",
            fn(u32, u32, Option<LogFn>, Option<LogFn>, Option<LogFn>, *const c_char, *const c_char) -> u64,
            major,
            minor,
            Some(on_log),
            Some(on_warn),
            Some(on_panic),
            null(),
            config.as_ref().map_or(null(), |c| c.as_ptr())
        )
    }

    /// `Exit`.
    pub fn exit(&self) {
        call!(self, "Exit", fn(),);
    }

    /// The text of a code; fails when the library gives none.
    pub fn error_text(&self, code: u64) -> String {
        let text = call!(self, "GetErrorText", fn(u64, *const c_char) -> *mut c_char, code, null::<c_char>());
        assert!(!text.is_null(), "GetErrorText({code}) is NULL");
        // SAFETY: a NUL-terminated text until it is freed.
        let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        call!(self, "FreeErrorText", fn(*mut c_char), text);
        copy
    }

    /// The colon separated modes.
    pub fn transport_modes(&self) -> String {
        let text = call!(self, "ListTransportModes", fn() -> *const c_char,);
        // SAFETY: a static text.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// `Rename`.
    pub fn rename(&self, from: &Path, to: &Path) -> u64 {
        let (from, to) = (c_path(from), c_path(to));
        call!(self, "Rename", fn(*const c_char, *const c_char) -> u64, from.as_ptr(), to.as_ptr())
    }

    /// A local connection by `ConnectEx`, as nbdkit asks for it: an allocated, empty structure.
    pub fn connect(&self, read_only: bool) -> Result<Connection<'_>, u64> {
        let params = call!(self, "AllocateConnectParams", fn() -> *mut c_void,);
        assert!(!params.is_null(), "AllocateConnectParams");
        let mut handle: Handle = null_mut();
        let result = call!(
            self,
            "ConnectEx",
            fn(*const c_void, c_char, *const c_char, *const c_char, *mut Handle) -> u64,
            params.cast_const(),
            c_char::from(read_only),
            null::<c_char>(),
            null::<c_char>(),
            &raw mut handle
        );
        call!(self, "FreeConnectParams", fn(*mut c_void), params);
        if result != code::OK {
            assert!(handle.is_null(), "the connection is NULL after a failure");
            return Err(result);
        }
        Ok(Connection { vix: self, handle })
    }

    /// A local connection by `Connect(NULL)`.
    pub fn connect_null(&self) -> Result<Connection<'_>, u64> {
        let mut handle: Handle = null_mut();
        let result =
            call!(self, "Connect", fn(*const c_void, *mut Handle) -> u64, null::<c_void>(), &raw mut handle);
        if result == code::OK { Ok(Connection { vix: self, handle }) } else { Err(result) }
    }

    /// `Cleanup` of local parameters: the two counts.
    pub fn cleanup_null(&self) -> (u64, u32, u32) {
        let (mut cleaned, mut left) = (7u32, 7u32);
        let result = call!(
            self,
            "Cleanup",
            fn(*const c_void, *mut u32, *mut u32) -> u64,
            null::<c_void>(),
            &raw mut cleaned,
            &raw mut left
        );
        (result, cleaned, left)
    }
}

/// A connection; disconnected on drop.
#[derive(Debug)]
pub struct Connection<'v> {
    vix: &'v Vix,
    handle: Handle,
}

// SAFETY: the interface allows every call from every thread.
unsafe impl Send for Connection<'_> {}
// SAFETY: as above.
unsafe impl Sync for Connection<'_> {}

impl<'v> Connection<'v> {
    /// Opens a disk.
    pub fn open(&self, path: &Path, flags: u32) -> Result<Disk<'v>, u64> {
        let path = c_path(path);
        let mut handle: Handle = std::ptr::dangling_mut();
        let result = call!(
            self.vix,
            "Open",
            fn(Handle, *const c_char, u32, *mut Handle) -> u64,
            self.handle,
            path.as_ptr(),
            flags,
            &raw mut handle
        );
        if result != code::OK {
            assert!(handle.is_null(), "the handle is NULL after a failed Open");
            return Err(result);
        }
        assert!(!handle.is_null(), "the handle is set after a successful Open");
        Ok(Disk { vix: self.vix, handle })
    }

    /// Opens a disk, with the log in the message when that fails.
    #[track_caller]
    pub fn must_open(&self, path: &Path, flags: u32) -> Disk<'v> {
        match self.open(path, flags) {
            Ok(disk) => disk,
            Err(e) => panic!("Open({}, {flags}) = {e}\n{}", path.display(), log_text()),
        }
    }

    /// Creates a disk, with the percentages that were reported.
    pub fn create_watched(&self, path: &Path, spec: Spec) -> (u64, Vec<i32>) {
        let mut seen: Vec<i32> = Vec::new();
        let result = self.create_raw(path, spec, Some(note_progress), (&raw mut seen).cast());
        (result, seen)
    }

    /// Creates a disk without a progress function.
    pub fn create(&self, path: &Path, spec: Spec) -> u64 {
        self.create_raw(path, spec, None, null_mut())
    }

    /// Creates a disk that must succeed.
    #[track_caller]
    pub fn must_create(&self, path: &Path, spec: Spec) {
        let result = self.create(path, spec);
        assert_eq!(result, code::OK, "Create({}, {spec:?})\n{}", path.display(), log_text());
    }

    fn create_raw(&self, path: &Path, spec: Spec, progress: Option<ProgressFn>, data: *mut c_void) -> u64 {
        let path = c_path(path);
        let params = spec.raw();
        call!(
            self.vix,
            "Create",
            fn(Handle, *const c_char, *const CreateParams, Option<ProgressFn>, *mut c_void) -> u64,
            self.handle,
            path.as_ptr(),
            &raw const params,
            progress,
            data
        )
    }

    /// `Unlink`.
    pub fn unlink(&self, path: &Path) -> u64 {
        let path = c_path(path);
        call!(self.vix, "Unlink", fn(Handle, *const c_char) -> u64, self.handle, path.as_ptr())
    }

    /// `Grow`, with the percentages that were reported.
    pub fn grow(&self, path: &Path, capacity: u64, update_geometry: bool) -> (u64, Vec<i32>) {
        let path = c_path(path);
        let mut seen: Vec<i32> = Vec::new();
        let result = call!(
            self.vix,
            "Grow",
            fn(Handle, *const c_char, u64, c_char, Option<ProgressFn>, *mut c_void) -> u64,
            self.handle,
            path.as_ptr(),
            capacity,
            c_char::from(update_geometry),
            Some(note_progress),
            (&raw mut seen).cast()
        );
        (result, seen)
    }

    /// Clones a disk of `source` to this connection, with the percentages that were reported. Without a specification the
    /// parameters are NULL.
    pub fn clone_disk(
        &self,
        to: &Path,
        source: &Connection<'_>,
        from: &Path,
        spec: Option<Spec>,
        overwrite: bool,
    ) -> (u64, Vec<i32>) {
        let (to, from) = (c_path(to), c_path(from));
        let mut seen: Vec<i32> = Vec::new();
        let progress: (Option<ProgressFn>, *mut c_void) = (Some(note_progress), (&raw mut seen).cast());
        let params = spec.map(Spec::raw);
        let result = self.clone_raw(to.as_ptr(), source, from.as_ptr(), params.as_ref(), progress, overwrite);
        (result, seen)
    }

    /// Clones with NULL for a missing path and for everything that may be NULL.
    pub fn clone_null(&self, to: Option<&Path>, from: Option<&Path>) -> u64 {
        let (to, from) = (to.map(c_path), from.map(c_path));
        let pointer = |path: &Option<CString>| path.as_ref().map_or(null(), |path| path.as_ptr());
        self.clone_raw(pointer(&to), self, pointer(&from), None, (None, null_mut()), false)
    }

    fn clone_raw(
        &self,
        to: *const c_char,
        source: &Connection<'_>,
        from: *const c_char,
        params: Option<&CreateParams>,
        progress: (Option<ProgressFn>, *mut c_void),
        overwrite: bool,
    ) -> u64 {
        type Params = *const CreateParams;
        type Progress = Option<ProgressFn>;
        call!(
            self.vix,
            "Clone",
            fn(Handle, *const c_char, Handle, *const c_char, Params, Progress, *mut c_void, c_char) -> u64,
            self.handle,
            to,
            source.handle,
            from,
            params.map_or(null(), |params| &raw const *params),
            progress.0,
            progress.1,
            c_char::from(overwrite)
        )
    }

    /// `Disconnect`, with its result.
    pub fn disconnect(self) -> u64 {
        let this = std::mem::ManuallyDrop::new(self);
        this.disconnect_again()
    }

    /// `Disconnect` on a handle that may be gone already.
    pub fn disconnect_again(&self) -> u64 {
        call!(self.vix, "Disconnect", fn(Handle) -> u64, self.handle)
    }

    /// Keeps the connection open past the end of the value.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.disconnect_again();
    }
}

/// An open disk; closed on drop.
#[derive(Debug)]
pub struct Disk<'v> {
    vix: &'v Vix,
    handle: Handle,
}

// SAFETY: the interface allows every call from every thread.
unsafe impl Send for Disk<'_> {}
// SAFETY: as above.
unsafe impl Sync for Disk<'_> {}

/// Collects completions of asynchronous requests.
#[derive(Debug, Default)]
pub struct Completions {
    done: Mutex<Vec<(u64, u64)>>,
    changed: Condvar,
}

struct Ticket {
    to: *const Completions,
    id: u64,
}

unsafe extern "C" fn on_completion(data: *mut c_void, result: u64) {
    // SAFETY: made by `submit` with Box::into_raw; a second call for the same request would free it twice, which the
    // sanitising runs and the count in the tests show.
    let ticket = unsafe { Box::from_raw(data.cast::<Ticket>()) };
    // SAFETY: the collector outlives its requests: every test waits before it goes.
    let completions = unsafe { &*ticket.to };
    completions.done.lock().expect("completions").push((ticket.id, result));
    completions.changed.notify_all();
}

impl Completions {
    /// The number of completions so far.
    pub fn count(&self) -> usize {
        self.done.lock().expect("completions").len()
    }

    /// Waits until there are at least `count`.
    pub fn wait_for(&self, count: usize) {
        let mut done = self.done.lock().expect("completions");
        while done.len() < count {
            done = self.changed.wait(done).expect("completions");
        }
    }

    /// Takes what is there: (id, result).
    pub fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.done.lock().expect("completions"))
    }
}

impl Disk<'_> {
    /// Reads whole sectors.
    pub fn read(&self, start: u64, buf: &mut [u8]) -> u64 {
        assert_eq!(buf.len() % 512, 0);
        let count = (buf.len() / 512) as u64;
        call!(
            self.vix,
            "Read",
            fn(Handle, u64, u64, *mut u8) -> u64,
            self.handle,
            start,
            count,
            buf.as_mut_ptr()
        )
    }

    /// Reads sectors that must be readable.
    #[track_caller]
    pub fn must_read(&self, start: u64, count: u64) -> Vec<u8> {
        let mut buf = vec![0xA5u8; (count * 512) as usize];
        let result = self.read(start, &mut buf);
        assert_eq!(result, code::OK, "Read({start}, {count})\n{}", log_text());
        buf
    }

    /// `Read` with a count that has no buffer behind it: for ranges that must be refused.
    pub fn read_refused(&self, start: u64, count: u64) -> u64 {
        let mut buf = [0u8; 512];
        let result = call!(
            self.vix,
            "Read",
            fn(Handle, u64, u64, *mut u8) -> u64,
            self.handle,
            start,
            count,
            buf.as_mut_ptr()
        );
        assert_ne!(result, code::OK, "Read({start}, {count}) must be refused");
        result
    }

    /// Writes whole sectors.
    pub fn write(&self, start: u64, buf: &[u8]) -> u64 {
        assert_eq!(buf.len() % 512, 0);
        let count = (buf.len() / 512) as u64;
        call!(
            self.vix,
            "Write",
            fn(Handle, u64, u64, *const u8) -> u64,
            self.handle,
            start,
            count,
            buf.as_ptr()
        )
    }

    /// Writes sectors that must be writable.
    #[track_caller]
    pub fn must_write(&self, start: u64, buf: &[u8]) {
        let result = self.write(start, buf);
        assert_eq!(result, code::OK, "Write({start}, {} sectors)\n{}", buf.len() / 512, log_text());
    }

    /// Starts a read into a buffer that the caller keeps alive until the completion; anything but `ASYNC` is a refusal.
    ///
    /// # Safety
    /// `buf` and `completions` stay alive and unmoved until the completion or a refusal.
    pub unsafe fn read_async(
        &self,
        start: u64,
        buf: *mut u8,
        count: u64,
        id: u64,
        completions: &Completions,
    ) -> u64 {
        let ticket = Box::into_raw(Box::new(Ticket { to: completions, id }));
        let result = call!(
            self.vix,
            "ReadAsync",
            fn(Handle, u64, u64, *mut u8, CompletionFn, *mut c_void) -> u64,
            self.handle,
            start,
            count,
            buf,
            on_completion,
            ticket.cast()
        );
        if result != code::ASYNC {
            // SAFETY: refused, so the completion does not run and the ticket is still ours.
            drop(unsafe { Box::from_raw(ticket) });
        }
        result
    }

    /// Starts a write; see [`Disk::read_async`].
    ///
    /// # Safety
    /// As for [`Disk::read_async`].
    pub unsafe fn write_async(
        &self,
        start: u64,
        buf: *const u8,
        count: u64,
        id: u64,
        completions: &Completions,
    ) -> u64 {
        let ticket = Box::into_raw(Box::new(Ticket { to: completions, id }));
        let result = call!(
            self.vix,
            "WriteAsync",
            fn(Handle, u64, u64, *const u8, CompletionFn, *mut c_void) -> u64,
            self.handle,
            start,
            count,
            buf,
            on_completion,
            ticket.cast()
        );
        if result != code::ASYNC {
            // SAFETY: refused, so the completion does not run and the ticket is still ours.
            drop(unsafe { Box::from_raw(ticket) });
        }
        result
    }

    /// Reads pieces `(start, count)` with at most `depth` in flight, each into its place of the result in order;
    /// `misalign` shifts the buffer in memory. The first failing code is the error.
    pub fn read_many(&self, pieces: &[(u64, u64)], depth: usize, misalign: usize) -> Result<Vec<u8>, u64> {
        let total: u64 = pieces.iter().map(|(_, count)| count * 512).sum();
        let mut buf = vec![0xA5u8; total as usize + misalign];
        let base = buf.as_mut_ptr();
        let completions = Completions::default();
        let (mut at, mut submitted, mut refused) = (misalign, 0usize, code::OK);
        for (id, (start, count)) in pieces.iter().enumerate() {
            if submitted >= depth {
                completions.wait_for(submitted + 1 - depth);
            }
            // SAFETY: disjoint pieces of a buffer that lives to the end of this function, which waits for all.
            let result = unsafe { self.read_async(*start, base.add(at), *count, id as u64, &completions) };
            if result != code::ASYNC {
                refused = result;
                break;
            }
            submitted += 1;
            at += (*count * 512) as usize;
        }
        completions.wait_for(submitted);
        let waited = self.wait(); // fails on a handle that went away meanwhile
        let done = completions.take();
        assert_eq!(done.len(), submitted, "each request completes exactly once");
        let mut ids: Vec<u64> = done.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..submitted as u64), "each request completes exactly once");
        if refused != code::OK {
            return Err(refused);
        }
        if waited != code::OK {
            return Err(waited);
        }
        if let Some((_, failed)) = done.iter().find(|(_, result)| *result != code::OK) {
            return Err(*failed);
        }
        buf.drain(..misalign);
        Ok(buf)
    }

    /// `Wait`.
    pub fn wait(&self) -> u64 {
        call!(self.vix, "Wait", fn(Handle) -> u64, self.handle)
    }

    /// `Flush`.
    pub fn flush(&self) -> u64 {
        call!(self.vix, "Flush", fn(Handle) -> u64, self.handle)
    }

    /// What the disk says about itself.
    #[track_caller]
    pub fn info(&self) -> Info {
        let mut raw: *mut RawInfo = null_mut();
        let result =
            call!(self.vix, "GetInfo", fn(Handle, *mut *mut RawInfo) -> u64, self.handle, &raw mut raw);
        assert_eq!(result, code::OK, "GetInfo\n{}", log_text());
        assert!(!raw.is_null(), "GetInfo gives a block");
        let text = |p: *const c_char| {
            // SAFETY: NULL or a NUL-terminated text that lives as long as the block.
            (!p.is_null()).then(|| unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned())
        };
        // SAFETY: a block of the documented layout, alive until it is freed below.
        let info = unsafe { &*raw };
        let copy = Info {
            bios: info.bios,
            physical: info.physical,
            capacity: info.capacity,
            adapter: info.adapter,
            links: info.links,
            parent: text(info.parent),
            uuid: text(info.uuid),
            sector_sizes: (info.logical_sector, info.physical_sector),
        };
        call!(self.vix, "FreeInfo", fn(*mut RawInfo), raw);
        copy
    }

    /// The space that a clone needs; 256 for the type of the disk.
    pub fn space_for_clone(&self, kind: u32) -> Result<u64, u64> {
        let mut space = 0x5555;
        let result = self.space_for_clone_raw(kind, &raw mut space);
        if result == code::OK { Ok(space) } else { Err(result) }
    }

    /// The same with any place for the answer.
    pub fn space_for_clone_raw(&self, kind: u32, space: *mut u64) -> u64 {
        call!(self.vix, "SpaceNeededForClone", fn(Handle, u32, *mut u64) -> u64, self.handle, kind, space)
    }

    /// `CreateChild`, with the percentages that were reported.
    pub fn create_child(&self, path: &Path, kind: Kind) -> (u64, Vec<i32>) {
        let path = c_path(path);
        let mut seen: Vec<i32> = Vec::new();
        let result = call!(
            self.vix,
            "CreateChild",
            fn(Handle, *const c_char, u32, Option<ProgressFn>, *mut c_void) -> u64,
            self.handle,
            path.as_ptr(),
            kind as u32,
            Some(note_progress),
            (&raw mut seen).cast()
        );
        (result, seen)
    }

    /// `IsAttachPossible` with this disk as the parent.
    pub fn is_attach_possible(&self, child: &Disk<'_>) -> u64 {
        call!(self.vix, "IsAttachPossible", fn(Handle, Handle) -> u64, self.handle, child.handle)
    }

    /// `Attach` with this disk as the parent.
    pub fn attach(&self, child: &Disk<'_>) -> u64 {
        call!(self.vix, "Attach", fn(Handle, Handle) -> u64, self.handle, child.handle)
    }

    /// `GetTransportMode`.
    pub fn transport(&self) -> String {
        let text = call!(self.vix, "GetTransportMode", fn(Handle) -> *const c_char, self.handle);
        assert!(!text.is_null(), "GetTransportMode is never NULL");
        // SAFETY: a static text.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// Allocated blocks as `(start, length)`.
    pub fn allocated(&self, start: u64, count: u64, chunk: u64) -> Result<Vec<(u64, u64)>, u64> {
        let mut raw: *mut RawBlockList = std::ptr::dangling_mut();
        let result = call!(
            self.vix,
            "QueryAllocatedBlocks",
            fn(Handle, u64, u64, u64, *mut *mut RawBlockList) -> u64,
            self.handle,
            start,
            count,
            chunk,
            &raw mut raw
        );
        if result != code::OK {
            assert!(raw.is_null(), "the list is NULL after a failed query");
            return Err(result);
        }
        assert!(!raw.is_null(), "an empty answer has a list too");
        // SAFETY: a list with `count` blocks behind its head, alive until it is freed below.
        let blocks = unsafe {
            let count = (*raw).count as usize;
            std::slice::from_raw_parts((&raw const (*raw).blocks).cast::<[u64; 2]>(), count).to_vec()
        };
        let freed = call!(self.vix, "FreeBlockList", fn(*mut RawBlockList) -> u64, raw);
        assert_eq!(freed, code::OK, "FreeBlockList");
        Ok(blocks.into_iter().map(|[start, length]| (start, length)).collect())
    }

    /// Allocated blocks of the whole disk, asked as nbdkit does: in steps of at most 512 Ki chunks, past the end.
    #[track_caller]
    pub fn allocated_all(&self, chunk: u64) -> Vec<(u64, u64)> {
        let capacity = self.info().capacity;
        let step = chunk * 524_288;
        let mut all = Vec::new();
        let mut start = 0;
        while start < capacity {
            let count = (capacity - start).div_ceil(chunk).min(step / chunk) * chunk;
            match self.allocated(start, count, chunk) {
                Ok(list) => all.extend(list),
                Err(e) => panic!("QueryAllocatedBlocks({start}, {count}, {chunk}) = {e}\n{}", log_text()),
            }
            start += count;
        }
        all
    }

    /// `ReadMetadata` into a buffer of `len` bytes (none when 0): the code, the length asked for, the buffer.
    pub fn metadata_raw(&self, key: &str, len: usize) -> (u64, usize, Vec<u8>) {
        let key = CString::new(key).expect("a key");
        let mut buf = vec![0xEEu8; len];
        let mut required = usize::MAX;
        let result = call!(
            self.vix,
            "ReadMetadata",
            fn(Handle, *const c_char, *mut c_char, usize, *mut usize) -> u64,
            self.handle,
            key.as_ptr(),
            if len == 0 { null_mut() } else { buf.as_mut_ptr().cast() },
            len,
            &raw mut required
        );
        (result, required, buf)
    }

    /// The value of a key, asked for as Bareos does: the size, then the value without asking for the size again.
    pub fn metadata(&self, key: &str) -> Result<String, u64> {
        let (result, required, _) = self.metadata_raw(key, 0);
        if result != code::OK && result != code::BUFFER_TOO_SMALL {
            return Err(result);
        }
        let c_key = CString::new(key).expect("a key");
        let mut buf = vec![0u8; required];
        let result = call!(
            self.vix,
            "ReadMetadata",
            fn(Handle, *const c_char, *mut c_char, usize, *mut usize) -> u64,
            self.handle,
            c_key.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
            null_mut()
        );
        if result != code::OK {
            return Err(result);
        }
        let text = CStr::from_bytes_with_nul(&buf).expect("the size counts the closing NUL");
        Ok(text.to_string_lossy().into_owned())
    }

    /// `WriteMetadata`.
    pub fn set_metadata(&self, key: &str, value: &str) -> u64 {
        let (key, value) = (CString::new(key).expect("a key"), CString::new(value).expect("a value"));
        call!(
            self.vix,
            "WriteMetadata",
            fn(Handle, *const c_char, *const c_char) -> u64,
            self.handle,
            key.as_ptr(),
            value.as_ptr()
        )
    }

    /// `GetMetadataKeys` into a buffer of `len` bytes: the code, the length asked for, the buffer.
    pub fn metadata_keys_raw(&self, len: usize) -> (u64, usize, Vec<u8>) {
        let mut buf = vec![0xEEu8; len];
        let mut required = usize::MAX;
        let result = call!(
            self.vix,
            "GetMetadataKeys",
            fn(Handle, *mut c_char, usize, *mut usize) -> u64,
            self.handle,
            if len == 0 { null_mut() } else { buf.as_mut_ptr().cast() },
            len,
            &raw mut required
        );
        (result, required, buf)
    }

    /// Every key.
    #[track_caller]
    pub fn metadata_keys(&self) -> Vec<String> {
        let (result, required, _) = self.metadata_keys_raw(0);
        assert!(result == code::OK || result == code::BUFFER_TOO_SMALL, "GetMetadataKeys = {result}");
        let (result, again, buf) = self.metadata_keys_raw(required);
        assert_eq!((result, again), (code::OK, required), "GetMetadataKeys with the length it asked for");
        assert_eq!(buf.last(), Some(&0), "the list ends with a NUL");
        let mut keys = Vec::new();
        let mut rest = &buf[..];
        while let Some(end) = rest.iter().position(|b| *b == 0) {
            if end == 0 {
                assert_eq!(rest.len(), 1, "the length counts both closing NULs and nothing more");
                break;
            }
            keys.push(String::from_utf8(rest[..end].to_vec()).expect("keys are text"));
            rest = &rest[end + 1..];
        }
        keys
    }

    /// `Close`, with its result.
    pub fn close(self) -> u64 {
        let this = std::mem::ManuallyDrop::new(self);
        this.close_again()
    }

    /// `Close` on a handle that may be gone already.
    pub fn close_again(&self) -> u64 {
        call!(self.vix, "Close", fn(Handle) -> u64, self.handle)
    }

    /// Keeps the disk open past the end of the value.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        self.close_again();
    }
}
