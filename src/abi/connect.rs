//! Connections, their parameters, and what comes before and after them.

use std::ffi::c_char;

use crate::abi::args;
use crate::abi::args::Out;
use crate::abi::fence::guard;
use crate::abi::fence::guard_value;
use crate::abi::fence::not_initialised;
use crate::abi::fence::on_connection;
use crate::abi::fence::refusal;
use crate::abi::fence::say;
use crate::abi::handle::Found;
use crate::abi::handle::Owner;
use crate::abi::handle::Token;
use crate::abi::params;
use crate::abi::process::process;
use crate::abi::types::Bool;
use crate::abi::types::VixDiskLibConnectParams;
use crate::abi::types::VixDiskLibConnection;
use crate::abi::types::VixError;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Level;
use crate::session::ConnectParams;
use crate::session::Library;

/// Makes a connection. The same as VixDiskLib_ConnectEx for reading and writing, without a snapshot, over the default
/// transports.
///
/// # Safety
/// `connectParams` is NULL or a structure of this header with terminated strings; `connection` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Connect(
    connectParams: *const VixDiskLibConnectParams,
    connection: *mut VixDiskLibConnection,
) -> VixError {
    guard("VixDiskLib_Connect", || {
        // SAFETY: forwarded from this function's contract.
        let out = unsafe { args::out(connection, "connection") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: as above.
        unsafe { connect(connectParams, false, None, None, out) }
    })
}

/// Makes a connection. NULL or zeroed `connectParams` mean local disks. All strings are copied before the function returns.
///
/// A `serverName` of the form `nbd://host[:port]`, `nbds://host[:port]`, `nbd+unix:///?socket=/path` or `nbds+unix:///?socket=/path`
/// is an NBD server. The path given to VixDiskLib_Open is the name of an export there, "" its default. Transport `nbdssl`
/// means TLS, and `nbd` none; a name that begins with `nbds` is never reached without. `thumbPrint` is honoured, and `port` where
/// the name has none; `vmxSpec`, `snapshotRef` and credentials may say anything.
///
/// Any other `serverName` is a vCenter or an ESXi host: a name or an address, `host:port`, or `https://host[:port]/sdk`. Nothing
/// is sent before the first call that needs it: a wrong server, thumbprint or login shows in VixDiskLib_Open. Connections that
/// log in alike share one session, which ends with the last of them.
///
/// `snapshotRef` names a snapshot of the virtual machine, NULL or "" none. `transportModes` lists transports in the order in
/// which they are tried, colon separated; NULL or "" means the default. On failure `connection` becomes NULL.
///
/// # Safety
/// `connectParams` is NULL or a structure of this header with terminated strings; the other strings are NULL or terminated;
/// `connection` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ConnectEx(
    connectParams: *const VixDiskLibConnectParams,
    readOnly: Bool,
    snapshotRef: *const c_char,
    transportModes: *const c_char,
    connection: *mut VixDiskLibConnection,
) -> VixError {
    guard("VixDiskLib_ConnectEx", || {
        // SAFETY: forwarded from this function's contract.
        let out = unsafe { args::out(connection, "connection") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: as above.
        let (snapshot, modes) = unsafe {
            (args::text(snapshotRef, "snapshotRef")?, args::text(transportModes, "transportModes")?)
        };
        // SAFETY: as above.
        unsafe { connect(connectParams, readOnly != 0, snapshot, modes, out) }
    })
}

/// # Safety
/// As for [`VixDiskLib_ConnectEx`].
unsafe fn connect(
    params: *const VixDiskLibConnectParams,
    read_only: bool,
    snapshot: Option<String>,
    modes: Option<String>,
    out: Out<VixDiskLibConnection>,
) -> Result<()> {
    let process = process();
    let running = process.running().ok_or_else(not_initialised)?;
    // SAFETY: forwarded from this function's contract.
    let params = unsafe { params::read(params, running.declared_major()) }?;
    let named = |text: Option<String>| text.filter(|text| !text.is_empty());
    let connection = running.library.connect(params, read_only, named(snapshot), named(modes))?;
    let owner = Owner { library: running.number, connection: None };
    let Some(token) = process.connections.insert(connection.clone(), owner) else {
        let _ = connection.close();
        return Err(Error::new(ErrorKind::TooManyFiles, "too many connections are open"));
    };
    // The last Exit may have come between the two lines above; it has not seen the handle then.
    if process.running().is_none_or(|now| now.number != running.number) {
        process.connections.take(token);
        let _ = connection.close();
        return Err(not_initialised());
    }
    out.set(token.to_handle());
    Ok(())
}

/// Closes a connection, and the disks that are still open on it.
///
/// # Safety
/// Any value may be passed; one that is no open connection gives VIX_E_DISK_INVALID_CONNECTION, NULL gives VIX_E_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Disconnect(connection: VixDiskLibConnection) -> VixError {
    guard("VixDiskLib_Disconnect", || {
        let token = Token::of(connection);
        let (connection, broken) = match process().connections.take(token) {
            Found::Live(connection) => (connection, false),
            Found::Broken(connection) => (connection, true),
            found => return Err(refusal(&found, token, ErrorKind::InvalidConnection)),
        };
        let disks = process().disks.close_all_of(token);
        let closed = connection.close();
        drop(disks);
        match broken {
            true => Err(refusal(&Found::Broken(connection), token, ErrorKind::InvalidConnection)),
            false => closed,
        }
    })
}

/// Keeps a virtual machine from being moved to another host or datastore by its vCenter while it is backed up, in the name of
/// `identity`, which has at most 50 characters. Call it before the snapshot is made. Nothing to do for local disks and NBD
/// servers.
///
/// VIX_E_OPERATION_DISABLED: somebody with another identity does that already. VIX_E_NOT_SUPPORTED: the server is a host
/// without a vCenter. VIX_E_INVALID_ARG: no machine is named.
///
/// # Safety
/// `connectParams` is NULL or a structure of this header; the strings are terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_PrepareForAccess(
    connectParams: *const VixDiskLibConnectParams,
    identity: *const c_char,
) -> VixError {
    guard("VixDiskLib_PrepareForAccess", || {
        // SAFETY: forwarded from this function's contract.
        unsafe { access(connectParams, identity, Library::hold_machine) }
    })
}

/// Takes VixDiskLib_PrepareForAccess back, also what a program that crashed left behind. Needs no connection. Nothing to do for
/// local disks and NBD servers.
///
/// # Safety
/// As for VixDiskLib_PrepareForAccess.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_EndAccess(
    connectParams: *const VixDiskLibConnectParams,
    identity: *const c_char,
) -> VixError {
    guard("VixDiskLib_EndAccess", || {
        // SAFETY: forwarded from this function's contract.
        unsafe { access(connectParams, identity, Library::release_machine) }
    })
}

/// # Safety
/// As for [`VixDiskLib_PrepareForAccess`].
unsafe fn access(
    params: *const VixDiskLibConnectParams,
    identity: *const c_char,
    act: fn(&Library, &ConnectParams, &str) -> Result<()>,
) -> Result<()> {
    // SAFETY: forwarded from this function's contract.
    let params = unsafe { outside_of_calls(params) }?;
    if !params.has_machines()? {
        return Ok(());
    }
    // SAFETY: as above.
    let identity = unsafe { args::required_text(identity, "identity") }?;
    let running = process().running().ok_or_else(not_initialised)?;
    act(&running.library, &params, &identity)
}

/// Parameters of a call that works before InitEx and after Exit.
///
/// # Safety
/// As for [`params::read`].
unsafe fn outside_of_calls(params: *const VixDiskLibConnectParams) -> Result<ConnectParams> {
    let declared = process().running().map_or(0, |running| running.declared_major());
    // SAFETY: forwarded from this function's contract.
    unsafe { params::read(params, declared) }
}

/// Removes what crashed programs left behind on servers. None of the transports of this build leaves anything there: both
/// numbers become 0. What a crashed program held with VixDiskLib_PrepareForAccess is released by VixDiskLib_EndAccess.
///
/// # Safety
/// `connectParams` is NULL or a structure of this header; the numbers are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Cleanup(
    connectParams: *const VixDiskLibConnectParams,
    numCleanedUp: *mut u32,
    numRemaining: *mut u32,
) -> VixError {
    guard("VixDiskLib_Cleanup", || {
        // SAFETY: forwarded from this function's contract.
        let places = unsafe { [args::optional_out(numCleanedUp), args::optional_out(numRemaining)] };
        places.into_iter().flatten().for_each(|place| place.set(0));
        // SAFETY: as above.
        if unsafe { outside_of_calls(connectParams) }?.has_machines()? {
            let transports = Library::transport_modes();
            say(Level::Info, || {
                format!(
                    "VixDiskLib: VixDiskLib_Cleanup: the transports {transports} leave nothing to clean up"
                )
            });
        }
        Ok(())
    })
}

/// A zeroed structure of connection parameters, NULL when memory is out; to be freed with VixDiskLib_FreeConnectParams.
/// Strings put into it stay the caller's. Works at any time.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_AllocateConnectParams() -> *mut VixDiskLibConnectParams {
    process(); // a fork must find the register in order
    guard_value("VixDiskLib_AllocateConnectParams", std::ptr::null_mut(), params::allocate)
}

/// A copy of what a connection was made with; to be freed with VixDiskLib_FreeConnectParams.
///
/// # Safety
/// `connectParams` can be written. Any value may be passed as `connection`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetConnectParams(
    connection: VixDiskLibConnection,
    connectParams: *mut *mut VixDiskLibConnectParams,
) -> VixError {
    // SAFETY: forwarded from this function's contract.
    unsafe { args::clear(connectParams, std::ptr::null_mut()) };
    on_connection("VixDiskLib_GetConnectParams", connection, |connection| {
        // SAFETY: forwarded from this function's contract.
        let out = unsafe { args::out(connectParams, "connectParams") }?;
        out.set(params::copy(connection.params())?);
        Ok(())
    })
}

/// Frees a structure of VixDiskLib_AllocateConnectParams, without the strings the caller put into it, or of
/// VixDiskLib_GetConnectParams, with its strings. NULL is fine, anything else is left alone. Works at any time.
///
/// # Safety
/// A structure of this library is freed once and not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeConnectParams(connectParams: *mut VixDiskLibConnectParams) {
    guard("VixDiskLib_FreeConnectParams", || {
        if !params::release(connectParams) && !connectParams.is_null() {
            say(Level::Warning, || {
                format!(
                    "VixDiskLib: VixDiskLib_FreeConnectParams: {connectParams:p} is not a structure of this library"
                )
            });
        }
        Ok(())
    });
}
