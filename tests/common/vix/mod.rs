//! The C interface of the built library behind a thin safe wrapper.
//!
//! Types and signatures are written here from the interface's description, not taken from the library's own Rust types:
//! a wrong type on their side shows as a wrong value here.
//!
//! * [`Vix`]: the library and what needs no connection; [`library_path`]: where it is;
//! * `types`: numbers and structures; `log`: what the library said;
//! * `connection`, `disk`: the two handles; `remote`: connections to servers; `requests`: asynchronous reads and writes; `metadata`: the disk data base;
//! * `whole`: work on whole disks.
#![allow(unsafe_code)] // the one place of the behaviour tests that calls C
#![allow(unused_imports, reason = "each test program uses only a part of what is named here")]

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
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use libloading::Library;

/// Calls a function of the library by its name and signature.
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

mod connection;
mod disk;
mod log;
mod metadata;
mod remote;
mod requests;
mod types;
mod whole;

pub use connection::Connection;
pub use disk::Disk;
pub use log::Level;
pub use log::forget_log;
pub use log::log_lines;
pub use log::log_text;
pub use log::logged;
pub use log::mute;
pub use remote::Disks;
pub use remote::Server;
pub use requests::Completions;
pub use types::Geometry;
pub use types::Info;
pub use types::Kind;
pub use types::Spec;
pub use types::adapter;
pub use types::code;
pub use types::flags;

use log::on_log;
use log::on_panic;
use log::on_warn;
use types::Handle;
use types::LogFn;

/// The loaded library. Loading is all that happens at first; [`Vix::init`] starts it.
#[derive(Debug)]
pub struct Vix {
    library: Library,
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
    c_char::from(!UNWILLING.load(Ordering::Relaxed))
}

/// Progress functions answer FALSE: the caller would rather not go on.
pub static UNWILLING: AtomicBool = AtomicBool::new(false);

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
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
