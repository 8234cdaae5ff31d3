//! Sectors in and out, at once or later, and where there are any.

use std::ffi::c_void;

use crate::abi::args;
use crate::abi::error::VIX_OK;
use crate::abi::fence::on_disk;
use crate::abi::fence::on_disk_async;
use crate::abi::fence::report;
use crate::abi::give;
use crate::abi::types::VIXDISKLIB_MAX_CHUNK_NUMBER;
use crate::abi::types::VIXDISKLIB_MIN_CHUNK_SIZE;
use crate::abi::types::VixDiskLibBlockList;
use crate::abi::types::VixDiskLibCompletionCB;
use crate::abi::types::VixDiskLibHandle;
use crate::abi::types::VixDiskLibSectorType;
use crate::abi::types::VixError;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::session::Completion;
use crate::units::Sectors;

/// Reads `numSectors` sectors from `startSector` into `readBuffer`, which needs no alignment. Any part outside the disk gives
/// VIX_E_DISK_OUTOFRANGE, and nothing is read.
///
/// # Safety
/// `readBuffer` is valid for writes of `numSectors * 512` bytes until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Read(
    diskHandle: VixDiskLibHandle,
    startSector: VixDiskLibSectorType,
    numSectors: VixDiskLibSectorType,
    readBuffer: *mut u8,
) -> VixError {
    on_disk("VixDiskLib_Read", diskHandle, |disk| {
        let (start, count) = (Sectors(startSector), Sectors(numSectors));
        // SAFETY: forwarded from this function's contract.
        disk.read(start, unsafe { args::out_sectors(readBuffer, start, count) }?)
    })
}

/// Writes `numSectors` sectors from `writeBuffer` at `startSector`. Any part outside the disk gives VIX_E_DISK_OUTOFRANGE, and
/// nothing is written. VixDiskLib_Flush makes it durable.
///
/// # Safety
/// `writeBuffer` is valid for reads of `numSectors * 512` bytes until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Write(
    diskHandle: VixDiskLibHandle,
    startSector: VixDiskLibSectorType,
    numSectors: VixDiskLibSectorType,
    writeBuffer: *const u8,
) -> VixError {
    on_disk("VixDiskLib_Write", diskHandle, |disk| {
        let (start, count) = (Sectors(startSector), Sectors(numSectors));
        // SAFETY: forwarded from this function's contract.
        disk.write(start, unsafe { args::in_sectors(writeBuffer, start, count) }?)
    })
}

/// Starts a read and returns VIX_ASYNC. `callback` then runs exactly once, on any thread, possibly before the function
/// returns. With any other result the read was refused and `callback` does not run.
///
/// # Safety
/// `readBuffer` is valid for writes of `numSectors * 512` bytes, and nobody else touches it, until `callback` runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ReadAsync(
    diskHandle: VixDiskLibHandle,
    startSector: VixDiskLibSectorType,
    numSectors: VixDiskLibSectorType,
    readBuffer: *mut u8,
    callback: VixDiskLibCompletionCB,
    cbData: *mut c_void,
) -> VixError {
    on_disk_async("VixDiskLib_ReadAsync", diskHandle, |disk| {
        let (start, count) = (Sectors(startSector), Sectors(numSectors));
        let done = completion(read_done, callback, cbData)?;
        // SAFETY: forwarded from this function's contract; the slice is gone when `done` runs.
        disk.read_async(start, unsafe { args::out_sectors(readBuffer, start, count) }?, done)
    })
}

/// Starts a write and returns VIX_ASYNC; see VixDiskLib_ReadAsync.
///
/// # Safety
/// `writeBuffer` is valid for reads of `numSectors * 512` bytes, and nobody changes it, until `callback` runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_WriteAsync(
    diskHandle: VixDiskLibHandle,
    startSector: VixDiskLibSectorType,
    numSectors: VixDiskLibSectorType,
    writeBuffer: *const u8,
    callback: VixDiskLibCompletionCB,
    cbData: *mut c_void,
) -> VixError {
    on_disk_async("VixDiskLib_WriteAsync", diskHandle, |disk| {
        let (start, count) = (Sectors(startSector), Sectors(numSectors));
        let done = completion(write_done, callback, cbData)?;
        // SAFETY: forwarded from this function's contract; the slice is gone when `done` runs.
        disk.write_async(start, unsafe { args::in_sectors(writeBuffer, start, count) }?, done)
    })
}

/// The host's function and its argument as two words.
fn completion(
    call: fn([usize; 2], Result<()>),
    callback: VixDiskLibCompletionCB,
    data: *mut c_void,
) -> Result<Completion> {
    match callback {
        Some(callback) => Ok(Completion { call, words: [callback as usize, data.expose_provenance()] }),
        None => Err(Error::new(ErrorKind::InvalidArgument, "the callback is NULL")),
    }
}

fn read_done(words: [usize; 2], outcome: Result<()>) {
    done("VixDiskLib_ReadAsync", words, outcome);
}

fn write_done(words: [usize; 2], outcome: Result<()>) {
    done("VixDiskLib_WriteAsync", words, outcome);
}

fn done(name: &str, [callback, data]: [usize; 2], outcome: Result<()>) {
    let code = outcome.map_or_else(|error| report(name, &error), |()| VIX_OK);
    // SAFETY: the first word was made from a function of exactly this type in `completion`.
    let callback = unsafe { std::mem::transmute::<usize, VixDiskLibCompletionCB>(callback) };
    if let Some(callback) = callback {
        // SAFETY: the host promised that it can be called once with this argument.
        unsafe { callback(std::ptr::with_exposed_provenance_mut(data), code) };
    }
}

/// Makes durable what was written. Call VixDiskLib_Wait first for what was written asynchronously.
///
/// # Safety
/// Any value may be passed as `diskHandle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Flush(diskHandle: VixDiskLibHandle) -> VixError {
    on_disk("VixDiskLib_Flush", diskHandle, |disk| disk.flush())
}

/// Returns when every asynchronous request of the disk is done and its callback has returned. Their results went to the
/// callbacks.
///
/// # Safety
/// Any value may be passed as `diskHandle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Wait(diskHandle: VixDiskLibHandle) -> VixError {
    on_disk("VixDiskLib_Wait", diskHandle, |disk| disk.wait())
}

/// Lists the sectors that may hold data, in units of `chunkSize` sectors (at least VIXDISKLIB_MIN_CHUNK_SIZE), at most
/// VIXDISKLIB_MAX_CHUNK_NUMBER of them. What is not listed reads as zeros. The range may pass the end of the disk. The list is
/// to be freed with VixDiskLib_FreeBlockList; it may be empty.
///
/// # Safety
/// `blockList` can be written. Any value may be passed as `diskHandle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_QueryAllocatedBlocks(
    diskHandle: VixDiskLibHandle,
    startSector: VixDiskLibSectorType,
    numSectors: VixDiskLibSectorType,
    chunkSize: VixDiskLibSectorType,
    blockList: *mut *mut VixDiskLibBlockList,
) -> VixError {
    // SAFETY: forwarded from this function's contract.
    unsafe { args::clear(blockList, std::ptr::null_mut()) };
    on_disk("VixDiskLib_QueryAllocatedBlocks", diskHandle, |disk| {
        // SAFETY: forwarded from this function's contract.
        let out = unsafe { args::out(blockList, "blockList") }?;
        check_chunks(numSectors, chunkSize)?;
        let blocks = disk.allocated_blocks(Sectors(startSector), Sectors(numSectors), Sectors(chunkSize))?;
        out.set(give::block_list(&blocks)?);
        Ok(())
    })
}

fn check_chunks(sectors: u64, chunk: u64) -> Result<()> {
    if chunk < VIXDISKLIB_MIN_CHUNK_SIZE as u64 {
        let why = format!("chunkSize is {chunk}, the smallest is {VIXDISKLIB_MIN_CHUNK_SIZE}");
        return Err(Error::new(ErrorKind::InvalidArgument, why));
    }
    if sectors / chunk > VIXDISKLIB_MAX_CHUNK_NUMBER as u64 {
        let why = format!("{sectors} sectors are more than {VIXDISKLIB_MAX_CHUNK_NUMBER} chunks of {chunk}");
        return Err(Error::new(ErrorKind::InvalidArgument, why));
    }
    Ok(())
}

/// Frees a list of VixDiskLib_QueryAllocatedBlocks. NULL is fine. Returns VIX_OK.
///
/// # Safety
/// `blockList` is NULL or came from VixDiskLib_QueryAllocatedBlocks and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeBlockList(blockList: *mut VixDiskLibBlockList) -> VixError {
    // SAFETY: forwarded from this function's contract.
    unsafe { give::free(blockList) };
    VIX_OK
}
