//! Work on whole disks. Arguments and handles are checked in full before anything is touched.

use std::ffi::c_char;
use std::ffi::c_void;
use std::sync::Arc;

use crate::abi::args;
use crate::abi::fence::connection;
use crate::abi::fence::disk;
use crate::abi::fence::guard;
use crate::abi::fence::not_initialised;
use crate::abi::fence::on_connection;
use crate::abi::fence::on_disk;
use crate::abi::handle::Token;
use crate::abi::process::process;
use crate::abi::types::Bool;
use crate::abi::types::DiskTypeRaw;
use crate::abi::types::VixDiskLibConnection;
use crate::abi::types::VixDiskLibCreateParams;
use crate::abi::types::VixDiskLibHandle;
use crate::abi::types::VixDiskLibProgressFunc;
use crate::abi::types::VixDiskLibSectorType;
use crate::abi::types::VixError;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::session::OpenDisk;
use crate::units::Sectors;

/// [`VixDiskLibDiskType`](crate::abi::types::VixDiskLibDiskType): like the source.
const SAME_TYPE: DiskTypeRaw = 256;

/// Makes a disk on top of `diskHandle` that stores only what differs from it. `diskType` is
/// VIXDISKLIB_DISK_MONOLITHIC_SPARSE or VIXDISKLIB_DISK_SPLIT_SPARSE.
///
/// The parent must not change afterwards: its next write gives it another content id, and the child is refused from then on
/// (VIX_E_DISK_CID_MISMATCH). A compressed disk or a device gives VIX_E_DISK_PARENT_NOTALLOWED.
///
/// # Safety
/// `childPath` is terminated, `progressFunc` is NULL or callable during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_CreateChild(
    diskHandle: VixDiskLibHandle,
    childPath: *const c_char,
    diskType: DiskTypeRaw,
    progressFunc: VixDiskLibProgressFunc,
    progressCallbackData: *mut c_void,
) -> VixError {
    on_disk("VixDiskLib_CreateChild", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let path = unsafe { args::path(childPath, "childPath") }?;
        // SAFETY: as above.
        let mut progress = unsafe { args::progress(progressFunc, progressCallbackData) };
        disk.create_child(path, args::disk_type(diskType)?, &mut progress)
    })
}

/// Deletes a local disk: its descriptor and its extents, not its parents. Children lose their parent.
///
/// A disk that is open for writing gives VIX_E_FILE_ALREADY_LOCKED.
///
/// # Safety
/// `path` is terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Unlink(
    connection: VixDiskLibConnection,
    path: *const c_char,
) -> VixError {
    on_connection("VixDiskLib_Unlink", connection, |connection| {
        // SAFETY: forwarded from this function's contract.
        connection.unlink(unsafe { args::path(path, "path") }?)
    })
}

/// Makes a closed local disk larger. `capacity` is the new size in sectors; less than the present one gives
/// VIX_E_INVALID_ARG. If `updateGeometry` is not 0, the disk gets the geometry of a new one of that size.
///
/// Children, disks that have a child in their folder, and stream-optimised, device and ESXi delta disks give
/// VIX_E_NOT_SUPPORTED; a disk that is open for writing gives VIX_E_FILE_ALREADY_LOCKED.
///
/// # Safety
/// `path` is terminated, `progressFunc` is NULL or callable during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Grow(
    connection: VixDiskLibConnection,
    path: *const c_char,
    capacity: VixDiskLibSectorType,
    updateGeometry: Bool,
    progressFunc: VixDiskLibProgressFunc,
    progressCallbackData: *mut c_void,
) -> VixError {
    on_connection("VixDiskLib_Grow", connection, |connection| {
        // SAFETY: forwarded from this function's contract.
        let path = unsafe { args::path(path, "path") }?;
        // SAFETY: as above.
        let mut progress = unsafe { args::progress(progressFunc, progressCallbackData) };
        connection.grow(path, Sectors(capacity), updateGeometry != 0, &mut progress)
    })
}

/// Gives the space of grains that hold only zeros back: the file becomes shorter. The content stays as it is.
///
/// The disk is open for writing. Other calls on it fail with VIX_E_OBJECT_IS_BUSY meanwhile, also inside `progressFunc`. A
/// disk that has no such grains, or is of a type that has none, is left as it is, and the result is VIX_OK. On a child,
/// zeros that hide data of a parent stay. While somebody else has the disk open, by itself or as a parent, the result is
/// VIX_E_FILE_ALREADY_LOCKED and nothing happens; opening it meanwhile gives the same.
///
/// # Safety
/// `progressFunc` is NULL or callable during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Shrink(
    diskHandle: VixDiskLibHandle,
    progressFunc: VixDiskLibProgressFunc,
    progressCallbackData: *mut c_void,
) -> VixError {
    on_disk("VixDiskLib_Shrink", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let mut progress = unsafe { args::progress(progressFunc, progressCallbackData) };
        disk.shrink(&mut progress)
    })
}

/// Puts the grains of a disk in order, so that reading it in sequence reads its file in sequence.
///
/// The disk is open for writing. Other calls on it fail with VIX_E_OBJECT_IS_BUSY meanwhile, also inside `progressFunc`. A
/// disk of a type that has no grains is left as it is, and the result is VIX_OK. While somebody else has the disk open, by
/// itself or as a parent, the result is VIX_E_FILE_ALREADY_LOCKED and nothing happens; opening it meanwhile gives the same.
///
/// # Safety
/// `progressFunc` is NULL or callable during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Defragment(
    diskHandle: VixDiskLibHandle,
    progressFunc: VixDiskLibProgressFunc,
    progressCallbackData: *mut c_void,
) -> VixError {
    on_disk("VixDiskLib_Defragment", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let mut progress = unsafe { args::progress(progressFunc, progressCallbackData) };
        disk.defragment(&mut progress)
    })
}

/// Renames a local disk and its extents, also to another folder of the same file system. Children in the two folders
/// follow; others lose their parent.
///
/// An existing target gives VIX_E_FILE_ALREADY_EXISTS, a disk that is open for writing VIX_E_FILE_ALREADY_LOCKED, a file
/// system whose files have one name only VIX_E_NOT_SUPPORTED.
///
/// # Safety
/// Both names are terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Rename(
    srcFileName: *const c_char,
    dstFileName: *const c_char,
) -> VixError {
    guard("VixDiskLib_Rename", || {
        // SAFETY: forwarded from this function's contract.
        let (from, to) =
            unsafe { (args::path(srcFileName, "srcFileName")?, args::path(dstFileName, "dstFileName")?) };
        process().running().ok_or_else(not_initialised)?.library.rename(from, to)
    })
}

/// Copies a disk, with its parents as one, to a new disk. `createParams` says what the copy shall be: kind, adapter and
/// hardware version; NULL means one growing file with those of the source. The capacity is that of the source in any case.
/// Grains of zeros take no space in kinds that grow. The copy has an identity of its own.
///
/// An existing target is refused with VIX_E_FILE_ALREADY_EXISTS, or with `overWrite` replaced once the copy is complete.
/// After a failure there is no copy, and what existed is untouched. `progressFunc` is called on this thread, with 100 last.
///
/// Either side may be an export of an NBD server. As a target it is always there, so `overWrite` is needed; it must be as large
/// as the source or larger, `createParams` mean nothing to it, and a failure leaves it half written.
///
/// # Safety
/// The paths are terminated, `createParams` is NULL or a structure of this header, `progressFunc` is NULL or callable during
/// the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Clone(
    dstConnection: VixDiskLibConnection,
    dstPath: *const c_char,
    srcConnection: VixDiskLibConnection,
    srcPath: *const c_char,
    createParams: *const VixDiskLibCreateParams,
    progressFunc: VixDiskLibProgressFunc,
    progressCallbackData: *mut c_void,
    overWrite: Bool,
) -> VixError {
    on_connection("VixDiskLib_Clone", dstConnection, |target| {
        let source = connection(srcConnection)?;
        // SAFETY: forwarded from this function's contract.
        let (to, from, spec, mut progress) = unsafe {
            (
                args::path_on(target, dstPath, "dstPath")?,
                args::path_on(&source, srcPath, "srcPath")?,
                args::copy_spec(createParams)?,
                args::progress(progressFunc, progressCallbackData),
            )
        };
        target.copy_disk(to, &source, from, spec.as_ref(), overWrite != 0, &mut progress)
    })
}

/// Bytes that a copy of the disk would take. `cloneDiskType` VIXDISKLIB_DISK_UNKNOWN means the type of the disk.
///
/// For types that grow, the data of the disk is read to find zeros, and for streamOptimized it is also compressed: the answer
/// is exact and takes as long as that takes.
///
/// # Safety
/// `spaceNeeded` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_SpaceNeededForClone(
    diskHandle: VixDiskLibHandle,
    cloneDiskType: DiskTypeRaw,
    spaceNeeded: *mut u64,
) -> VixError {
    on_disk("VixDiskLib_SpaceNeededForClone", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let place = unsafe { args::out(spaceNeeded, "spaceNeeded") }?;
        let kind = match cloneDiskType {
            SAME_TYPE => None,
            raw => Some(args::disk_type(raw)?),
        };
        place.set(disk.space_for_copy(kind)?);
        Ok(())
    })
}

/// Whether VixDiskLib_Attach would work: VIX_OK, or the code with which it would fail. Both disks stay as they are.
///
/// # Safety
/// Any values may be passed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_IsAttachPossible(
    parent: VixDiskLibHandle,
    child: VixDiskLibHandle,
) -> VixError {
    on_disk("VixDiskLib_IsAttachPossible", parent, |below| {
        check_two(parent, child)?;
        let above = disk(child)?;
        OpenDisk::check_attach(below, &above)
    })
}

/// Puts the chain of `child`, opened with VIXDISKLIB_FLAG_OPEN_SINGLE_LINK, on top of the chain of `parent`.
///
/// Afterwards `child` stands for both together and `parent` for nothing, also after a failure; closing `parent` is still
/// allowed, once. VIX_E_DISK_ATTACH_ROOTLINK: the child has no parent or is open with it. VIX_E_DISK_CAPACITY_MISMATCH,
/// VIX_E_DISK_CID_MISMATCH: it is the child of another disk, or the parent has changed.
///
/// # Safety
/// Any values may be passed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Attach(parent: VixDiskLibHandle, child: VixDiskLibHandle) -> VixError {
    on_disk("VixDiskLib_Attach", parent, |below| {
        check_two(parent, child)?;
        let disks = &process().disks;
        disks.retire(Token::of(parent));
        let joined = match disk(child).and_then(|above| OpenDisk::attach(below, &above)) {
            Ok(joined) => joined,
            Err(e) => {
                let _ = below.close(); // closed already, or the fault at hand is the one to tell
                return Err(e);
            }
        };
        if disks.replace(Token::of(child), Arc::clone(&joined)) {
            return Ok(());
        }
        let _ = joined.close();
        Err(Error::new(ErrorKind::InvalidHandle, "the child was closed meanwhile"))
    })
}

/// A disk cannot stand on itself.
fn check_two(parent: VixDiskLibHandle, child: VixDiskLibHandle) -> Result<()> {
    if Token::of(parent) == Token::of(child) {
        return Err(Error::new(ErrorKind::InvalidArgument, "parent and child are the same disk"));
    }
    Ok(())
}

/// Checks a local disk, and mends it if `repair` is not 0. The report goes to the log, one line for each fault.
///
/// Without `repair`, VIX_OK says that the check was made, not that the disk is sound. With `repair`, VIX_OK says that
/// nothing is wrong any more, and VIX_E_DISK_CANTREPAIR that something is left that could be mended only by guessing.
/// Only the named link is mended; a content id that does not fit its parent is reported and left.
///
/// # Safety
/// `filename` is terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_CheckRepair(
    connection: VixDiskLibConnection,
    filename: *const c_char,
    repair: Bool,
) -> VixError {
    on_connection("VixDiskLib_CheckRepair", connection, |connection| {
        // SAFETY: forwarded from this function's contract.
        let path = unsafe { args::path(filename, "filename") }?;
        connection.check_repair(path, repair != 0)
    })
}
