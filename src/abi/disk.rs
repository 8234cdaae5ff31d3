//! Disks: making, opening, closing, and what they say about themselves.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

use crate::abi::args;
use crate::abi::error::code_of;
use crate::abi::error::entry;
use crate::abi::fence::disk;
use crate::abi::fence::guard;
use crate::abi::fence::guard_value;
use crate::abi::fence::not_initialised;
use crate::abi::fence::on_connection;
use crate::abi::fence::on_disk;
use crate::abi::fence::refusal;
use crate::abi::fence::text_of;
use crate::abi::give;
use crate::abi::handle::Found;
use crate::abi::handle::Owner;
use crate::abi::handle::Token;
use crate::abi::process::process;
use crate::abi::types::VixDiskLibConnection;
use crate::abi::types::VixDiskLibCreateParams;
use crate::abi::types::VixDiskLibHandle;
use crate::abi::types::VixDiskLibInfo;
use crate::abi::types::VixDiskLibProgressFunc;
use crate::abi::types::VixError;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Level;
use crate::logging::Sink;
use crate::session::Connection;
use crate::session::OpenDisk;
use crate::session::OpenFlags;

/// Makes a local disk that reads as zeros. The file must not exist.
///
/// # Safety
/// `path` is terminated, `createParams` is a structure of this header, `progressFunc` is NULL or callable during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Create(
    connection: VixDiskLibConnection,
    path: *const c_char,
    createParams: *const VixDiskLibCreateParams,
    progressFunc: VixDiskLibProgressFunc,
    progressCallbackData: *mut c_void,
) -> VixError {
    on_connection("VixDiskLib_Create", connection, |connection| {
        // SAFETY: forwarded from this function's contract.
        let (path, spec) = unsafe { (args::path(path, "path")?, args::create_spec(createParams)?) };
        // SAFETY: as above.
        let mut progress = unsafe { args::progress(progressFunc, progressCallbackData) };
        connection.create(path, &spec, &mut progress)
    })
}

/// Opens a disk with all its parents. `flags` is a combination of VIXDISKLIB_FLAG_OPEN_*. On failure `diskHandle` becomes
/// NULL.
///
/// # Safety
/// `path` is terminated, `diskHandle` can be written. Any value may be passed as `connection`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Open(
    connection: VixDiskLibConnection,
    path: *const c_char,
    flags: u32,
    diskHandle: *mut VixDiskLibHandle,
) -> VixError {
    // SAFETY: forwarded from this function's contract. Callers copy the place whatever the result is.
    unsafe { args::clear(diskHandle, std::ptr::null_mut()) };
    on_connection("VixDiskLib_Open", connection, |on| {
        // SAFETY: forwarded from this function's contract.
        let out = unsafe { args::out(diskHandle, "diskHandle") }?;
        // SAFETY: as above.
        let path = unsafe { args::path_on(on, path, "path") }?;
        match open(on, Token::of(connection), path, flags) {
            Ok(token) => out.set(token.to_handle()),
            Err(e) => {
                tell_of_failure(path, &e);
                return Err(e);
            }
        }
        Ok(())
    })
}

fn open(connection: &Arc<Connection>, on: Token, path: &Path, flags: u32) -> Result<Token> {
    let flags = OpenFlags::from_bits_retain(flags);
    let compression =
        OpenFlags::COMPRESSION_ZLIB | OpenFlags::COMPRESSION_FASTLZ | OpenFlags::COMPRESSION_SKIPZ;
    if (flags & compression).bits().count_ones() > 1 {
        return Err(Error::new(ErrorKind::InvalidArgument, "flags ask for more than one compression"));
    }
    let process = process();
    let running = process.running().ok_or_else(not_initialised)?;
    let disk = connection.open(path, flags)?;
    let owner = Owner { library: running.number, connection: Some(on) };
    let Some(token) = process.disks.insert(Arc::clone(&disk), owner) else {
        let _ = disk.close();
        return Err(Error::new(ErrorKind::TooManyFiles, "too many disks are open"));
    };
    // A Disconnect or the last Exit may have come meanwhile; it has not seen the handle then.
    let connected = matches!(process.connections.get(on), Found::Live(_) | Found::Broken(_));
    if !connected && !matches!(process.disks.take(token), Found::Nothing) {
        let _ = disk.close();
        return Err(Error::new(
            ErrorKind::InvalidConnection,
            "the connection was closed while the disk was being opened",
        ));
    }
    Ok(token)
}

/// Two lines that programs and support engineers look for, said whatever the log level is.
fn tell_of_failure(path: &Path, error: &Error) {
    let Some(running) = process().running() else { return };
    let code = code_of(error.kind());
    let (path, text) = (path.display(), text_of(code));
    let symbol = entry(code).map_or("?", |(name, _)| name);
    let failure = format!("Cannot open disk {path}. Error {code} ({text})");
    let line = line!();
    let inner =
        format!("VixDiskLib: VixDiskLib_OpenEx: {failure} (DiskLib error {code}: {symbol}) at {line}.");
    running.sink.line(Level::Info, &inner);
    running.sink.line(Level::Info, &format!("VixDiskLib: VixDiskLib_Open: {failure} at {line}."));
}

/// Closes a disk after what is under way on it. The handle is gone even if an error is returned.
///
/// # Safety
/// Any value may be passed; one that is no open disk gives VIX_E_INVALID_HANDLE, NULL gives VIX_E_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Close(diskHandle: VixDiskLibHandle) -> VixError {
    guard("VixDiskLib_Close", || {
        let token = Token::of(diskHandle);
        if let Found::Live(disk) = process().disks.get(token) {
            disk.check_closable()?; // a refused handle stays good
        }
        match process().disks.take(token) {
            Found::Live(disk) => disk.close(),
            Found::Closed => Ok(()),
            Found::Broken(disk) => {
                disk.close()?;
                Err(refusal(&Found::Broken(disk), token, ErrorKind::InvalidHandle))
            }
            found => Err(refusal(&found, token, ErrorKind::InvalidHandle)),
        }
    })
}

/// What a disk says about itself, in a block to be freed with VixDiskLib_FreeInfo. It outlives the handle.
///
/// # Safety
/// `info` can be written. Any value may be passed as `diskHandle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetInfo(
    diskHandle: VixDiskLibHandle,
    info: *mut *mut VixDiskLibInfo,
) -> VixError {
    // SAFETY: forwarded from this function's contract.
    unsafe { args::clear(info, std::ptr::null_mut()) };
    on_disk("VixDiskLib_GetInfo", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let out = unsafe { args::out(info, "info") }?;
        out.set(give::info(&disk.info()?)?);
        Ok(())
    })
}

/// Frees a block of VixDiskLib_GetInfo. NULL is fine.
///
/// # Safety
/// `info` is NULL or came from VixDiskLib_GetInfo and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeInfo(info: *mut VixDiskLibInfo) {
    // SAFETY: forwarded from this function's contract.
    unsafe { give::free(info) };
}

/// The transport that a disk is reached by. Not to be freed; "" for what is no open disk.
///
/// # Safety
/// Any value may be passed as `diskHandle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetTransportMode(diskHandle: VixDiskLibHandle) -> *const c_char {
    let mode = guard_value("VixDiskLib_GetTransportMode", c"", || Ok(mode_of(&disk(diskHandle)?)));
    mode.as_ptr()
}

fn mode_of(disk: &Arc<OpenDisk>) -> &'static CStr {
    const MODES: [&CStr; 6] = [c"file", c"san", c"hotadd", c"nbdssl", c"nbd", c"https"];
    let mode = disk.transport_mode().as_bytes();
    MODES.into_iter().find(|known| known.to_bytes() == mode).unwrap_or(c"")
}
