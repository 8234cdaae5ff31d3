//! What the library says: its three log functions, kept line by line.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

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

pub(super) unsafe extern "C" fn on_log(format: *const c_char, arguments: *mut c_void) {
    keep(Level::Log, format, arguments);
}

pub(super) unsafe extern "C" fn on_warn(format: *const c_char, arguments: *mut c_void) {
    keep(Level::Warn, format, arguments);
}

pub(super) unsafe extern "C" fn on_panic(format: *const c_char, arguments: *mut c_void) {
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

/// How many lines have this in them.
pub fn logged(part: &str) -> usize {
    log_lines().iter().filter(|(_, line)| line.contains(part)).count()
}
