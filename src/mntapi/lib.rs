//! `libvixMntapi`: the mount interface, which mounts nothing and says so.
//!
//! Some programs are linked against it and use none of its functions, others do without when it fails. A shared object of its
//! own, made from this file and the `va_list` record without any other crate. Its SONAME must be given to the linker:
//!
//! ```text
//! rustc --edition 2024 --crate-type cdylib --crate-name vixMntapi -C opt-level=3 -C strip=symbols \
//!     -C link-arg=-Wl,-soname,libvixMntapi.so.1 -C link-arg=-Wl,-z,defs -C link-arg=-Wl,-Bsymbolic \
//!     -o libvixMntapi.so.1.1.0 src/mntapi/lib.rs
//! ```
#![allow(non_snake_case)] // the interface's names
#![allow(unsafe_code)] // a C interface and nothing else

use std::ffi::CStr;
use std::ffi::c_char;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

#[path = "../abi/va_list.rs"]
mod va_list;

use va_list::Slots;
use va_list::VaList;

/// A code of the error table; 0 is success.
pub type VixError = u64;
/// A truth value.
pub type Bool = c_char;
/// A message function: `printf` format and arguments.
pub type LogFunc = Option<unsafe extern "C" fn(fmt: *const c_char, args: *mut VaList)>;

/// Points to nothing; declared by the disk library.
pub struct VixDiskLibConnectionStruct {
    _never: (),
}
/// Points to nothing; declared by the disk library.
pub struct VixDiskLibHandleStruct {
    _never: (),
}
/// A connection of the disk library.
pub type VixDiskLibConnection = *mut VixDiskLibConnectionStruct;
/// A disk of the disk library.
pub type VixDiskLibHandle = *mut VixDiskLibHandleStruct;

/// Never made.
pub struct VixDiskSetHandleStruct {
    _never: (),
}
/// Never made.
pub struct VixVolumeHandleStruct {
    _never: (),
}
/// A set of disks whose volumes belong together.
pub type VixDiskSetHandle = *mut VixDiskSetHandleStruct;
/// A volume of a set of disks.
pub type VixVolumeHandle = *mut VixVolumeHandleStruct;

/// What a set of disks says about itself. Never made.
pub struct VixDiskSetInfo {
    _never: (),
}
/// What is known about the operating system on a set of disks. Never made.
pub struct VixOsInfo {
    _never: (),
}
/// What a volume says about itself. Never made.
pub struct VixVolumeInfo {
    _never: (),
}

const VIX_E_NOT_SUPPORTED: VixError = 6;

/// The host's `log` function, 0 without one.
static LOG: AtomicUsize = AtomicUsize::new(0);

/// Says which function was called for nothing, and gives its code.
fn refuse(line: &'static CStr) -> VixError {
    let address = LOG.load(Ordering::Acquire);
    // SAFETY: zero is `None`; anything else was stored from a function of exactly this type.
    let log = unsafe { std::mem::transmute::<usize, LogFunc>(address) };
    if let Some(log) = log {
        let mut slots = Slots::new();
        let mut list = VaList::empty(&mut slots);
        // SAFETY: the host promised a function of this type until VixMntapi_Exit; the line holds no conversion.
        unsafe { log(line.as_ptr(), &raw mut list) };
    }
    VIX_E_NOT_SUPPORTED
}

/// A line that names the function.
macro_rules! refuse {
    ($name:literal) => {
        refuse(
            const {
                let line = concat!("VixMntapi: ", $name, ": volumes cannot be mounted by this library\n\0");
                match CStr::from_bytes_with_nul(line.as_bytes()) {
                    Ok(line) => line,
                    Err(_) => panic!("one NUL at the end"),
                }
            },
        )
    };
}

/// Puts NULL where a caller expects a result.
///
/// # Safety
/// `place` is NULL or can be written.
unsafe fn nothing<T>(place: *mut *mut T) {
    if !place.is_null() {
        // SAFETY: forwarded from this function's contract.
        unsafe { place.write_unaligned(std::ptr::null_mut()) };
    }
}

/// Remembers `log` for messages until VixMntapi_Exit, and returns VIX_E_NOT_SUPPORTED.
///
/// # Safety
/// `log` is NULL or callable until VixMntapi_Exit returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixMntapi_Init(
    majorVersion: u32,
    minorVersion: u32,
    log: LogFunc,
    warn: LogFunc,
    panic: LogFunc,
    libDir: *const c_char,
    configFile: *const c_char,
) -> VixError {
    let _ = (majorVersion, minorVersion, warn, panic, libDir, configFile);
    LOG.store(log.map_or(0, |log| log as usize), Ordering::Release);
    refuse!("VixMntapi_Init")
}

/// Forgets `log`.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_Exit() {
    LOG.store(0, Ordering::Release);
}

/// Returns VIX_E_NOT_SUPPORTED; `diskSet` becomes NULL.
///
/// # Safety
/// `diskSet` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixMntapi_OpenDiskSet(
    diskHandles: *mut VixDiskLibHandle,
    numberOfDisks: usize,
    openMode: u32,
    diskSet: *mut VixDiskSetHandle,
) -> VixError {
    let _ = (diskHandles, numberOfDisks, openMode);
    // SAFETY: forwarded from this function's contract.
    unsafe { nothing(diskSet) };
    refuse!("VixMntapi_OpenDiskSet")
}

/// Returns VIX_E_NOT_SUPPORTED; `handle` becomes NULL.
///
/// # Safety
/// `handle` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixMntapi_OpenDisks(
    connection: VixDiskLibConnection,
    diskNames: *mut *const c_char,
    numberOfDisks: usize,
    openFlags: u32,
    handle: *mut VixDiskSetHandle,
) -> VixError {
    let _ = (connection, diskNames, numberOfDisks, openFlags);
    // SAFETY: forwarded from this function's contract.
    unsafe { nothing(handle) };
    refuse!("VixMntapi_OpenDisks")
}

/// Returns VIX_E_NOT_SUPPORTED; `diskSetInfo` becomes NULL.
///
/// # Safety
/// `diskSetInfo` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixMntapi_GetDiskSetInfo(
    handle: VixDiskSetHandle,
    diskSetInfo: *mut *mut VixDiskSetInfo,
) -> VixError {
    let _ = handle;
    // SAFETY: forwarded from this function's contract.
    unsafe { nothing(diskSetInfo) };
    refuse!("VixMntapi_GetDiskSetInfo")
}

/// Does nothing: there is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_FreeDiskSetInfo(diskSetInfo: *mut VixDiskSetInfo) {
    let _ = diskSetInfo;
}

/// Returns VIX_E_NOT_SUPPORTED.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_CloseDiskSet(diskSet: VixDiskSetHandle) -> VixError {
    let _ = diskSet;
    refuse!("VixMntapi_CloseDiskSet")
}

/// Returns VIX_E_NOT_SUPPORTED; `numberOfVolumes` becomes 0 and `volumeHandles` NULL.
///
/// # Safety
/// `numberOfVolumes` and `volumeHandles` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixMntapi_GetVolumeHandles(
    diskSet: VixDiskSetHandle,
    numberOfVolumes: *mut usize,
    volumeHandles: *mut *mut VixVolumeHandle,
) -> VixError {
    let _ = diskSet;
    // SAFETY: forwarded from this function's contract.
    unsafe { nothing(volumeHandles) };
    if !numberOfVolumes.is_null() {
        // SAFETY: as above.
        unsafe { numberOfVolumes.write_unaligned(0) };
    }
    refuse!("VixMntapi_GetVolumeHandles")
}

/// Does nothing: there is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_FreeVolumeHandles(volumeHandles: *mut VixVolumeHandle) {
    let _ = volumeHandles;
}

/// Returns VIX_E_NOT_SUPPORTED; `info` becomes NULL.
///
/// # Safety
/// `info` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixMntapi_GetOsInfo(
    diskSet: VixDiskSetHandle,
    info: *mut *mut VixOsInfo,
) -> VixError {
    let _ = diskSet;
    // SAFETY: forwarded from this function's contract.
    unsafe { nothing(info) };
    refuse!("VixMntapi_GetOsInfo")
}

/// Does nothing: there is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_FreeOsInfo(info: *mut VixOsInfo) {
    let _ = info;
}

/// Returns VIX_E_NOT_SUPPORTED.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_MountVolume(volumeHandle: VixVolumeHandle, readOnly: Bool) -> VixError {
    let _ = (volumeHandle, readOnly);
    refuse!("VixMntapi_MountVolume")
}

/// Returns VIX_E_NOT_SUPPORTED.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_DismountVolume(volumeHandle: VixVolumeHandle, force: Bool) -> VixError {
    let _ = (volumeHandle, force);
    refuse!("VixMntapi_DismountVolume")
}

/// Returns VIX_E_NOT_SUPPORTED; `info` becomes NULL.
///
/// # Safety
/// `info` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixMntapi_GetVolumeInfo(
    volumeHandle: VixVolumeHandle,
    info: *mut *mut VixVolumeInfo,
) -> VixError {
    let _ = volumeHandle;
    // SAFETY: forwarded from this function's contract.
    unsafe { nothing(info) };
    refuse!("VixMntapi_GetVolumeInfo")
}

/// Does nothing: there is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn VixMntapi_FreeVolumeInfo(info: *mut VixVolumeInfo) {
    let _ = info;
}
