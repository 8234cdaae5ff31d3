//! Initialising the library, ending it, and words for codes.

use std::ffi::c_char;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::abi::args;
use crate::abi::fence::guard;
use crate::abi::fence::guard_value;
use crate::abi::fence::install_panic_hook;
use crate::abi::fence::text_of;
use crate::abi::give;
use crate::abi::log_sink::HostFunctions;
use crate::abi::log_sink::HostSink;
use crate::abi::process::process;
use crate::abi::types::LogFunc;
use crate::abi::types::VixError;
use crate::config::Config;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Level;
use crate::logging::Sink;

/// Newest major interface version whose programs are served.
const NEWEST_MAJOR: u32 = 9;

/// Most bytes of a configuration file that are read.
const LARGEST_CONFIG: u64 = 1 << 20;

/// The line that programs read the version from: `VMware VixDiskLib (<version>) Release build-<digits>`.
const BANNER: &str = concat!("VMware VixDiskLib (", env!("CARGO_PKG_VERSION"), ") Release build-80003");

/// Transports of this build, as C has them; the same as [`crate::session::Library::transport_modes`].
static TRANSPORTS: &std::ffi::CStr = c"file:nbdssl:nbd";

/// Initialises the library. May be called again: each call needs its own VixDiskLib_Exit, the newest functions and
/// configuration count. Call it after `fork`, not before. No thread is started.
///
/// `majorVersion` and `minorVersion` say which interface the program was written for; up to 9 is accepted. `log`, `warn` and
/// `panic` receive messages as `printf` format and arguments, on the thread that makes them, and may each be NULL; without
/// `log`, messages go to a file under `/tmp/vmware-<user>` or `tmpDirectory`. `libDir` is not needed. `configFile` names a
/// file of `name = value` lines, or is NULL; it is read before the function returns.
///
/// # Safety
/// The functions stay callable until the last VixDiskLib_Exit returns. The strings are terminated or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_InitEx(
    majorVersion: u32,
    minorVersion: u32,
    log: LogFunc,
    warn: LogFunc,
    panic: LogFunc,
    libDir: *const c_char,
    configFile: *const c_char,
) -> VixError {
    let _ = libDir; // there is nothing to load from it
    let functions = HostFunctions { log, warn, panic };
    guard("VixDiskLib_InitEx", || {
        // SAFETY: forwarded from this function's contract.
        unsafe { start((majorVersion, minorVersion), functions, configFile) }
    })
}

/// VixDiskLib_InitEx without a configuration file.
///
/// # Safety
/// As for VixDiskLib_InitEx.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Init(
    majorVersion: u32,
    minorVersion: u32,
    log: LogFunc,
    warn: LogFunc,
    panic: LogFunc,
    libDir: *const c_char,
) -> VixError {
    let _ = libDir;
    let functions = HostFunctions { log, warn, panic };
    guard("VixDiskLib_Init", || {
        // SAFETY: forwarded from this function's contract.
        unsafe { start((majorVersion, minorVersion), functions, std::ptr::null()) }
    })
}

/// # Safety
/// `file` is NULL or a terminated string; the functions stay callable until the last Exit.
unsafe fn start(version: (u32, u32), functions: HostFunctions, file: *const c_char) -> Result<()> {
    install_panic_hook();
    if version.0 > NEWEST_MAJOR {
        return Err(refuse(version, functions));
    }
    // SAFETY: forwarded from this function's contract.
    let (config, complaints) = match unsafe { args::bytes(file, "configFile") }? {
        None | Some([]) => (Config::default(), Vec::new()),
        Some(_) => {
            // SAFETY: as above.
            let path = unsafe { args::path(file, "configFile") }?;
            read_config(path)
        }
    };
    let running = process().start(version.0, functions, config);
    running.sink.line(Level::Info, BANNER);
    for complaint in complaints {
        running.sink.line(Level::Warning, &format!("VixDiskLib: configuration: {complaint}"));
    }
    Ok(())
}

/// A program written for a newer interface tries older ones next, so this is not said as an error.
fn refuse((major, minor): (u32, u32), functions: HostFunctions) -> Error {
    if functions.log.is_some() {
        let sink = HostSink::new(functions, &Config::default());
        sink.line(
            Level::Info,
            &format!("VixDiskLib: interface version {major}.{minor} is newer than this library"),
        );
    }
    let why = format!("interface version {major}.{minor} was asked for, the newest here is {NEWEST_MAJOR}");
    Error::new(ErrorKind::NotSupported, why)
}

/// Settings and complaints. A file that cannot be read is a complaint: hosts hand through whatever path a user gave.
fn read_config(path: &Path) -> (Config, Vec<String>) {
    match config_text(path) {
        Ok(text) => {
            let (config, mut complaints) = Config::parse(&text);
            complaints
                .iter_mut()
                .for_each(|complaint| complaint.insert_str(0, &format!("{}: ", path.display())));
            (config, complaints)
        }
        Err(e) => (Config::default(), vec![format!("{e}; the defaults stand")]),
    }
}

fn config_text(path: &Path) -> Result<String> {
    // Opening must not wait for the other end of a pipe.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .context(|| format!("opening {}", path.display()))?;
    if !file.metadata().context(|| format!("looking at {}", path.display()))?.is_file() {
        return Err(Error::new(ErrorKind::NotAFile, format!("{} is not a file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_CONFIG + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("reading {}", path.display()))?;
    if bytes.len() as u64 > LARGEST_CONFIG {
        let why = format!("{} is longer than {LARGEST_CONFIG} bytes", path.display());
        return Err(Error::new(ErrorKind::FileTooBig, why));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Takes one VixDiskLib_InitEx back. The last one closes every disk and connection that is still open, after what was written
/// to them is safe, and ends every thread of the library; no message comes afterwards. Harmless when not initialised.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_Exit() {
    guard("VixDiskLib_Exit", || {
        process().stop();
        Ok(())
    });
}

/// The transports that disks can be reached by, colon separated, best first. Works at any time; not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_ListTransportModes() -> *const c_char {
    TRANSPORTS.as_ptr()
}

/// What a code means, in English. Never NULL unless memory is out; to be freed with VixDiskLib_FreeErrorText. `locale` should
/// be NULL. Works at any time.
///
/// # Safety
/// `locale` is not looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetErrorText(err: VixError, locale: *const c_char) -> *mut c_char {
    let _ = locale;
    guard_value("VixDiskLib_GetErrorText", std::ptr::null_mut(), || give::string(text_of(err)))
}

/// Frees a text of VixDiskLib_GetErrorText. NULL is fine.
///
/// # Safety
/// `errorText` is NULL or came from VixDiskLib_GetErrorText and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeErrorText(errorText: *mut c_char) {
    // SAFETY: forwarded from this function's contract.
    unsafe { give::free(errorText) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Library;

    #[test]
    fn the_list_of_transports_is_that_of_the_library() {
        assert_eq!(TRANSPORTS.to_str().unwrap(), Library::transport_modes());
    }
}
