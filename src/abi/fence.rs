//! The fence at the border: no panic passes, every fault is said once and becomes a code.

use std::any::Any;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::panic::PanicHookInfo;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Once;

use crate::abi::error::UNLISTED;
use crate::abi::error::VIX_ASYNC;
use crate::abi::error::VIX_E_FAIL;
use crate::abi::error::VIX_OK;
use crate::abi::error::code_of;
use crate::abi::error::entry;
use crate::abi::handle::Found;
use crate::abi::handle::Token;
use crate::abi::process::process;
use crate::abi::types::VixDiskLibConnection;
use crate::abi::types::VixDiskLibHandle;
use crate::abi::types::VixError;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Level;
use crate::logging::Sink;
use crate::session::Connection;
use crate::session::OpenDisk;
use crate::threads;

thread_local! {
    /// Exported functions that this thread is inside of. A plain cell: `atexit` handlers come here.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic of this thread was: the address of a boxed `String`, 0 for none. A number, so that the thread
    /// need not live for it.
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

/// Runs the body of an exported function: panics end here, a fault is reported and becomes its code.
#[inline]
pub fn guard(name: &'static str, body: impl FnOnce() -> Result<()>) -> VixError {
    match caught(body) {
        Ok(Ok(())) => VIX_OK,
        Ok(Err(error)) => report(name, &error),
        Err(payload) => report_panic(name, payload.as_ref()),
    }
}

/// Like [`guard`] for functions that have no code to return.
#[inline]
pub fn guard_value<T>(name: &'static str, otherwise: T, body: impl FnOnce() -> Result<T>) -> T {
    let mut value = otherwise;
    guard(name, || {
        value = body()?;
        Ok(())
    });
    value
}

/// Runs a body on the disk that a handle names. A panic leaves the handle unusable.
#[inline]
pub fn on_disk(
    name: &'static str,
    handle: VixDiskLibHandle,
    body: impl FnOnce(&Arc<OpenDisk>) -> Result<()>,
) -> VixError {
    match caught(|| body(&disk(handle)?)) {
        Ok(Ok(())) => VIX_OK,
        Ok(Err(error)) => report(name, &error),
        Err(payload) => {
            process().disks.mark_broken(Token::of(handle));
            report_panic(name, payload.as_ref())
        }
    }
}

/// Like [`on_disk`] for functions that start something: accepted is not the same as done.
#[inline]
pub fn on_disk_async(
    name: &'static str,
    handle: VixDiskLibHandle,
    body: impl FnOnce(&Arc<OpenDisk>) -> Result<()>,
) -> VixError {
    match on_disk(name, handle, body) {
        VIX_OK => VIX_ASYNC,
        refused => refused,
    }
}

/// Runs a body on the connection that a handle names. A panic leaves the handle unusable.
#[inline]
pub fn on_connection(
    name: &'static str,
    handle: VixDiskLibConnection,
    body: impl FnOnce(&Arc<Connection>) -> Result<()>,
) -> VixError {
    match caught(|| body(&connection(handle)?)) {
        Ok(Ok(())) => VIX_OK,
        Ok(Err(error)) => report(name, &error),
        Err(payload) => {
            process().connections.mark_broken(Token::of(handle));
            report_panic(name, payload.as_ref())
        }
    }
}

/// The disk that a handle names.
#[inline]
pub fn disk(handle: VixDiskLibHandle) -> Result<Arc<OpenDisk>> {
    match process().disks.get(Token::of(handle)) {
        Found::Live(disk) => Ok(disk),
        found => Err(refusal(&found, Token::of(handle), ErrorKind::InvalidHandle)),
    }
}

/// The connection that a handle names.
#[inline]
pub fn connection(handle: VixDiskLibConnection) -> Result<Arc<Connection>> {
    match process().connections.get(Token::of(handle)) {
        Found::Live(connection) => Ok(connection),
        found => Err(refusal(&found, Token::of(handle), ErrorKind::InvalidConnection)),
    }
}

/// Why a handle is of no use.
#[cold]
pub fn refusal<T>(found: &Found<T>, token: Token, kind: ErrorKind) -> Error {
    let process = process();
    if token.is_null() {
        return Error::new(ErrorKind::InvalidArgument, "the handle is NULL");
    }
    match found {
        Found::Broken(_) => Error::new(
            ErrorKind::Internal,
            "an earlier call on this handle met a defect of the library; close it",
        ),
        Found::Closed => {
            Error::new(kind, "the connection of this disk was closed, or it was attached to another one")
        }
        _ if process.running().is_none() && !process.may_see_foreign_handles() => not_initialised(),
        _ => Error::new(kind, "the handle is closed, of another kind, of another process or was never one"),
    }
}

/// The fault of a call that comes too early or too late.
pub fn not_initialised() -> Error {
    Error::new(
        ErrorKind::NotInitialised,
        "VixDiskLib_InitEx was not called, or VixDiskLib_Exit was called since",
    )
}

#[inline]
fn caught<T>(body: impl FnOnce() -> T) -> std::result::Result<T, Box<dyn Any + Send>> {
    // One look for the thread's cell: in a shared object that is a call.
    DEPTH.with(|depth| {
        depth.set(depth.get().wrapping_add(1));
        let outcome = catch_unwind(AssertUnwindSafe(body));
        depth.set(depth.get().wrapping_sub(1));
        outcome
    })
}

/// Says a fault to the host, once, and gives its code.
#[cold]
pub fn report(name: &str, error: &Error) -> VixError {
    let code = code_of(error.kind());
    say(loudness(error.kind()), || format!("VixDiskLib: {name}: {error}. Error {code} ({})", text_of(code)));
    code
}

#[cold]
fn report_panic(name: &str, payload: &(dyn Any + Send)) -> VixError {
    let what = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "no message",
    };
    let place = take_place().unwrap_or_else(|| "an unknown place".to_owned());
    say(Level::Error, || {
        format!("VixDiskLib: {name}: a defect of the library at {place}: {what}. Error 1 ({})", text_of(1))
    });
    VIX_E_FAIL
}

/// Says a line to the host, if there is one.
pub fn say(level: Level, text: impl FnOnce() -> String) {
    let said = caught(|| {
        if let Some(running) = process().running()
            && running.sink.wants(level)
        {
            running.sink.line(level, &text());
        }
    });
    drop(said); // a panic while reporting is one too many to report
}

/// The text of a code.
pub fn text_of(code: VixError) -> &'static str {
    entry(code).map_or(UNLISTED, |(_, text)| text)
}

/// A question about sizes and a key that is not there are everyday answers; the rest users should see.
fn loudness(kind: ErrorKind) -> Level {
    match kind {
        ErrorKind::BufferTooSmall | ErrorKind::KeyNotFound => Level::Debug,
        _ => Level::Error,
    }
}

/// Keeps the panics of this library off the host's standard error. As part of a Rust program it leaves that program's own
/// panics to the hook that was there.
pub fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 && !threads::here_is_ours() {
                previous(info);
            } else {
                remember(info);
            }
        }));
    });
}

fn remember(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(String::new, ToString::to_string);
    let place = Box::into_raw(Box::new(place)).expose_provenance();
    drop(take_place());
    PLACE.set(place);
}

fn take_place() -> Option<String> {
    let place: *mut String = std::ptr::with_exposed_provenance_mut(PLACE.replace(0));
    if place.is_null() {
        return None;
    }
    // SAFETY: made by `remember` on this thread, and out of the cell now.
    Some(*unsafe { Box::from_raw(place) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_code_1_and_its_place_is_known() {
        install_panic_hook();
        assert_eq!(guard("VixDiskLib_Test", || panic!("on purpose")), VIX_E_FAIL);
        assert_eq!(take_place(), None, "the report took it");
        let payload = caught(|| panic!("on purpose {}", std::hint::black_box(2))).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "on purpose 2");
        assert!(take_place().unwrap().contains("src/abi/fence.rs:"));
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn a_fault_becomes_its_code_and_success_zero() {
        assert_eq!(guard("VixDiskLib_Test", || Ok(())), 0);
        assert_eq!(guard("VixDiskLib_Test", || Err(not_initialised())), 16001);
        assert_eq!(guard_value("VixDiskLib_Test", 7, || Err(not_initialised())), 7);
        assert_eq!(guard_value("VixDiskLib_Test", 7, || Ok(8)), 8);
    }
}
