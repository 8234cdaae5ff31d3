//! Arguments from C: checked for NULL and overflow, read without assuming alignment, copied where they must outlive the call.

use std::ffi::OsStr;
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use crate::abi::types::AdapterTypeRaw;
use crate::abi::types::DiskTypeRaw;
use crate::abi::types::VixDiskLibCreateParams;
use crate::abi::types::VixDiskLibProgressFunc;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::session::Adapter;
use crate::session::Connection;
use crate::session::CopySpec;
use crate::session::CreateSpec;
use crate::session::DiskType;
use crate::units::Sectors;

/// Bytes of the longest string that is looked at; one without an end before that is refused.
const LONGEST: usize = 1 << 16;

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, what)
}

/// A place for a result, written only when there is one.
#[derive(Clone, Copy)]
pub struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// Puts the result there.
    pub fn set(self, value: T) {
        // SAFETY: whoever made this promised that the place can be written; alignment is not assumed.
        unsafe { self.0.as_ptr().write_unaligned(value) };
    }
}

/// A place for a result that must be there.
///
/// # Safety
/// `place` is NULL or valid for writes of a `T` until the call returns.
pub unsafe fn out<T>(place: *mut T, name: &str) -> Result<Out<T>> {
    NonNull::new(place).map(Out).ok_or_else(|| invalid(format!("{name} is NULL")))
}

/// Puts `nothing` into the place for a result, if there is one, so that a failure leaves no stale value.
///
/// # Safety
/// As for [`out`].
pub unsafe fn clear<T>(place: *mut T, nothing: T) {
    // SAFETY: forwarded from this function's contract.
    if let Some(place) = unsafe { optional_out(place) } {
        place.set(nothing);
    }
}

/// A place for a result that the caller may do without.
///
/// # Safety
/// As for [`out`].
pub unsafe fn optional_out<T>(place: *mut T) -> Option<Out<T>> {
    NonNull::new(place).map(Out)
}

/// The bytes of a string, `None` for NULL.
///
/// # Safety
/// `text` is NULL or points to a terminated string that does not change while `'a` lasts.
pub unsafe fn bytes<'a>(text: *const c_char, name: &str) -> Result<Option<&'a [u8]>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: looks at most at LONGEST bytes and stops at the terminator that the caller promises.
    let len = unsafe { libc::strnlen(text, LONGEST) };
    if len == LONGEST {
        return Err(invalid(format!("{name} has no end within {LONGEST} bytes")));
    }
    // SAFETY: strnlen has just read these bytes.
    Ok(Some(unsafe { std::slice::from_raw_parts(text.cast(), len) }))
}

/// A string as text, `None` for NULL.
///
/// # Safety
/// As for [`bytes`].
pub unsafe fn text(text: *const c_char, name: &str) -> Result<Option<String>> {
    // SAFETY: forwarded from this function's contract.
    let Some(bytes) = (unsafe { bytes(text, name) })? else { return Ok(None) };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(e) => Err(invalid(format!("{name} is not UTF-8 after byte {}", e.valid_up_to()))),
    }
}

/// A string as text that must be there.
///
/// # Safety
/// As for [`bytes`].
pub unsafe fn required_text(string: *const c_char, name: &str) -> Result<String> {
    // SAFETY: forwarded from this function's contract.
    unsafe { text(string, name) }?.ok_or_else(|| invalid(format!("{name} is NULL")))
}

/// A path that must be there and not be empty. Any bytes will do.
///
/// # Safety
/// As for [`bytes`].
pub unsafe fn path<'a>(path: *const c_char, name: &str) -> Result<&'a Path> {
    // SAFETY: forwarded from this function's contract.
    match unsafe { bytes(path, name) }? {
        None => Err(invalid(format!("{name} is NULL"))),
        Some([]) => Err(invalid(format!("{name} is empty"))),
        Some(bytes) => Ok(Path::new(OsStr::from_bytes(bytes))),
    }
}

/// A path on a connection, which may have a disk that needs none.
///
/// # Safety
/// As for [`bytes`].
pub unsafe fn path_on<'a>(connection: &Connection, string: *const c_char, name: &str) -> Result<&'a Path> {
    // SAFETY: forwarded from this function's contract.
    match unsafe { path(string, name) } {
        Err(_) if connection.has_nameless_disk() => Ok(Path::new("")),
        found => found,
    }
}

/// Length in bytes of a transfer, once it is sure that it can exist in memory and on a disk.
fn transfer(address: usize, start: Sectors, count: Sectors) -> Result<usize> {
    if address == 0 {
        return Err(invalid("the buffer is NULL"));
    }
    let len =
        start.0.checked_add(count.0).and(count.0.checked_mul(512)).and_then(|len| isize::try_from(len).ok());
    match len.map(|len| len as usize) {
        Some(len) if address.checked_add(len).is_some() => Ok(len),
        _ => Err(out_of_range(start, count)),
    }
}

#[cold]
fn out_of_range(start: Sectors, count: Sectors) -> Error {
    Error::new(ErrorKind::OutOfRange, format!("{} sectors at {} lie outside any disk", count.0, start.0))
}

/// A buffer to read sectors into.
///
/// # Safety
/// `buf` is NULL or valid for writes of `count * 512` bytes, and nobody else touches them, for `'a`.
#[inline]
pub unsafe fn out_sectors<'a>(buf: *mut u8, start: Sectors, count: Sectors) -> Result<&'a mut [u8]> {
    let len = transfer(buf.addr(), start, count)?;
    // SAFETY: not NULL, no overflow; the rest is this function's contract.
    Ok(unsafe { std::slice::from_raw_parts_mut(buf, len) })
}

/// A buffer of sectors to write.
///
/// # Safety
/// `buf` is NULL or valid for reads of `count * 512` bytes, and nobody changes them, for `'a`.
#[inline]
pub unsafe fn in_sectors<'a>(buf: *const u8, start: Sectors, count: Sectors) -> Result<&'a [u8]> {
    let len = transfer(buf.addr(), start, count)?;
    // SAFETY: not NULL, no overflow; the rest is this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(buf, len) })
}

/// A kind of disk that the header has a name for.
pub fn disk_type(raw: DiskTypeRaw) -> Result<DiskType> {
    Ok(match raw {
        1 => DiskType::MonolithicSparse,
        2 => DiskType::MonolithicFlat,
        3 => DiskType::SplitSparse,
        4 => DiskType::SplitFlat,
        5 => DiskType::VmfsFlat,
        6 => DiskType::StreamOptimized,
        7 => DiskType::VmfsThin,
        8 => DiskType::VmfsSparse,
        _ => return Err(invalid(format!("disk type {raw} is none"))),
    })
}

fn adapter(raw: AdapterTypeRaw) -> Result<Adapter> {
    Ok(match raw {
        1 => Adapter::Ide,
        2 => Adapter::BusLogic,
        3 => Adapter::LsiLogic,
        256 => Adapter::Unknown,
        _ => return Err(invalid(format!("adapter type {raw} is none"))),
    })
}

/// What a caller says about a disk to be made.
///
/// # Safety
/// `params` is NULL or points to a structure of the header, in its present form or in the one without sector sizes followed by
/// at least 8 readable bytes.
pub unsafe fn create_spec(params: *const VixDiskLibCreateParams) -> Result<CreateSpec> {
    if params.is_null() {
        return Err(invalid("the create parameters are NULL"));
    }
    // SAFETY: forwarded from this function's contract; every member is a plain number, and alignment is not assumed.
    let params = unsafe { params.read_unaligned() };
    if params.capacity == 0 {
        return Err(invalid("a disk of 0 sectors cannot be made"));
    }
    // Programs built before these two members existed leave anything there.
    let sizes = [params.logicalSectorSize, params.physicalSectorSize];
    let known = sizes.iter().all(|size| matches!(size, 0 | 512 | 4096));
    let size = |raw: u32| if known && raw == 4096 { 4096 } else { 512 };
    Ok(CreateSpec {
        disk_type: disk_type(params.diskType)?,
        adapter: adapter(params.adapterType)?,
        hardware_version: params.hwVersion,
        capacity: Sectors(params.capacity),
        logical_sector_size: size(params.logicalSectorSize),
        physical_sector_size: size(params.physicalSectorSize),
    })
}

/// What a caller says about a copy to be made, `None` for NULL. Its capacity is that of the source, whatever stands there.
///
/// # Safety
/// As for [`create_spec`].
pub unsafe fn copy_spec(params: *const VixDiskLibCreateParams) -> Result<Option<CopySpec>> {
    if params.is_null() {
        return Ok(None);
    }
    // SAFETY: forwarded from this function's contract; every member is a plain number, and alignment is not assumed.
    let params = unsafe { params.read_unaligned() };
    Ok(Some(CopySpec {
        disk_type: disk_type(params.diskType)?,
        adapter: adapter(params.adapterType)?,
        hardware_version: params.hwVersion,
    }))
}

/// Tells the host how far a long operation is. What the function answers is ignored, as documented.
///
/// # Safety
/// `function` is NULL or can be called with `data` while the result lives.
pub unsafe fn progress(function: VixDiskLibProgressFunc, data: *mut std::ffi::c_void) -> impl FnMut(u8) {
    move |percent| {
        if let Some(function) = function {
            // SAFETY: the host promised a function of this type for the duration of the call.
            unsafe { function(data, i32::from(percent)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(logical: u32, physical: u32) -> CreateSpec {
        let params = VixDiskLibCreateParams {
            diskType: 1,
            adapterType: 3,
            hwVersion: 65535,
            capacity: 1,
            logicalSectorSize: logical,
            physicalSectorSize: physical,
        };
        // SAFETY: a live structure of the present form.
        unsafe { create_spec(&raw const params) }.unwrap()
    }

    #[test]
    fn sector_sizes_that_nobody_set_are_512() {
        for (given, taken) in [
            ((0, 0), (512, 512)),
            ((512, 4096), (512, 4096)),
            ((4096, 4096), (4096, 4096)),
            ((0, 4096), (512, 4096)),
            ((4096, 12345), (512, 512)),
            ((u32::MAX, 7), (512, 512)),
        ] {
            let spec = spec(given.0, given.1);
            assert_eq!((spec.logical_sector_size, spec.physical_sector_size), taken, "{given:?}");
        }
    }

    #[test]
    fn transfers_that_overflow_are_out_of_range() {
        let kind =
            |address, start, count| transfer(address, Sectors(start), Sectors(count)).unwrap_err().kind();
        assert_eq!(kind(0, 0, 1), ErrorKind::InvalidArgument);
        assert_eq!(kind(4096, u64::MAX, 1), ErrorKind::OutOfRange);
        assert_eq!(kind(4096, 0, u64::MAX), ErrorKind::OutOfRange);
        assert_eq!(kind(4096, 0, 1 << 54), ErrorKind::OutOfRange);
        assert_eq!(kind(usize::MAX - 511, 0, 1), ErrorKind::OutOfRange);
        assert_eq!(transfer(4096, Sectors(u64::MAX), Sectors(0)).unwrap(), 0);
    }
}
