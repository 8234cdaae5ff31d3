//! The disk data base as C strings.

use std::ffi::c_char;

use crate::abi::args;
use crate::abi::fence::on_disk;
use crate::abi::types::VixDiskLibHandle;
use crate::abi::types::VixError;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;

/// Reads the value of a key. `requiredLen`, if not NULL, becomes the length of the value with its terminator, also when `buf`
/// is NULL or `bufLen` too small, which gives VIX_E_BUFFER_TOOSMALL. A key that does not exist gives
/// VIX_E_DISK_KEY_NOTFOUND.
///
/// # Safety
/// `key` is terminated; `buf` is NULL or valid for writes of `bufLen` bytes; `requiredLen` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ReadMetadata(
    diskHandle: VixDiskLibHandle,
    key: *const c_char,
    buf: *mut c_char,
    bufLen: usize,
    requiredLen: *mut usize,
) -> VixError {
    on_disk("VixDiskLib_ReadMetadata", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let key = unsafe { args::required_text(key, "key") }?;
        let mut value = disk.metadata(&key)?.into_bytes();
        if let Some(nul) = value.iter().position(|&b| b == 0) {
            value.truncate(nul);
        }
        value.push(0);
        // SAFETY: as above.
        unsafe { answer(&value, buf, bufLen, requiredLen) }
    })
}

/// Adds a key or replaces its value. A value can be emptied, a key cannot be removed.
///
/// # Safety
/// `key` and `val` are terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_WriteMetadata(
    diskHandle: VixDiskLibHandle,
    key: *const c_char,
    val: *const c_char,
) -> VixError {
    on_disk("VixDiskLib_WriteMetadata", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let (key, value) = unsafe { (args::required_text(key, "key")?, args::required_text(val, "val")?) };
        disk.set_metadata(&key, &value)
    })
}

/// Lists the keys, each terminated, with one more terminator at the end. `requiredLen`, if not NULL, becomes the length of all
/// that, also when `keys` is NULL or `maxLen` too small, which gives VIX_E_BUFFER_TOOSMALL.
///
/// # Safety
/// `keys` is NULL or valid for writes of `maxLen` bytes; `requiredLen` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetMetadataKeys(
    diskHandle: VixDiskLibHandle,
    keys: *mut c_char,
    maxLen: usize,
    requiredLen: *mut usize,
) -> VixError {
    on_disk("VixDiskLib_GetMetadataKeys", diskHandle, |disk| {
        let mut list = Vec::new();
        for key in disk.metadata_keys()?.iter().filter(|key| !key.is_empty() && !key.contains('\0')) {
            list.extend_from_slice(key.as_bytes());
            list.push(0);
        }
        list.push(0);
        // SAFETY: forwarded from this function's contract.
        unsafe { answer(&list, keys, maxLen, requiredLen) }
    })
}

/// # Safety
/// `buf` is NULL or valid for writes of `room` bytes; `required` is NULL or can be written.
unsafe fn answer(bytes: &[u8], buf: *mut c_char, room: usize, required: *mut usize) -> Result<()> {
    // SAFETY: forwarded from this function's contract.
    if let Some(required) = unsafe { args::optional_out(required) } {
        required.set(bytes.len());
    }
    if buf.is_null() || room < bytes.len() {
        let why = format!("{} bytes are needed, the buffer has {room}", bytes.len());
        return Err(Error::new(ErrorKind::BufferTooSmall, why));
    }
    // SAFETY: not NULL and large enough; our bytes are not part of the caller's buffer.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.cast(), bytes.len()) };
    Ok(())
}
