//! What C frees: blocks from `malloc`, each made next to the function that frees it.
//!
//! Callers may use plain `free` as well. Info blocks carry their strings behind them in the same block; they are not
//! overwritten when freed, because a known program reads them once more.

use std::ffi::c_char;
use std::ffi::c_void;
use std::ptr;

use crate::abi::types::VixDiskLibBlock;
use crate::abi::types::VixDiskLibBlockList;
use crate::abi::types::VixDiskLibGeometry;
use crate::abi::types::VixDiskLibInfo;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::session::Adapter;
use crate::session::DiskInfo;
use crate::session::Geometry;

fn out_of_memory(bytes: usize) -> Error {
    Error::new(ErrorKind::OutOfMemory, format!("no memory for {bytes} bytes of an answer"))
}

/// A block of zeros for C.
pub fn zeroed(bytes: usize) -> Result<*mut c_void> {
    // SAFETY: any size may be asked for.
    let block = unsafe { libc::calloc(1, bytes) };
    if block.is_null() { Err(out_of_memory(bytes)) } else { Ok(block) }
}

/// Gives a block back; NULL is fine.
///
/// # Safety
/// `block` is NULL or a block of `malloc` that nobody uses any more.
pub unsafe fn free<T>(block: *mut T) {
    // SAFETY: forwarded from this function's contract.
    unsafe { libc::free(block.cast()) };
}

/// A terminated copy of a string, up to its first NUL.
pub fn string(text: &str) -> Result<*mut c_char> {
    let text = until_nul(text);
    let block = zeroed(text.len() + 1)?.cast::<u8>();
    // SAFETY: the block has room for the text and its terminator and is not part of it.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), block, text.len()) };
    Ok(block.cast())
}

fn until_nul(text: &str) -> &[u8] {
    text.as_bytes().split(|&b| b == 0).next().unwrap_or_default()
}

/// An info block with its strings.
pub fn info(disk: &DiskInfo) -> Result<*mut VixDiskLibInfo> {
    let strings = [disk.parent_hint.as_deref().map(until_nul), disk.uuid.as_deref().map(until_nul)];
    let behind: usize = strings.iter().flatten().map(|s| s.len() + 1).sum();
    let block = zeroed(size_of::<VixDiskLibInfo>() + behind)?.cast::<VixDiskLibInfo>();
    // SAFETY: the strings begin where the structure ends, inside the block.
    let mut next = unsafe { block.add(1) }.cast::<u8>();
    let placed = strings.map(|string| {
        let Some(string) = string else { return ptr::null_mut() };
        let begin = next;
        // SAFETY: the block was made as large as all strings and their terminators, which are zeros already.
        unsafe {
            ptr::copy_nonoverlapping(string.as_ptr(), begin, string.len());
            next = begin.add(string.len() + 1);
        }
        begin.cast::<c_char>()
    });
    let info = VixDiskLibInfo {
        biosGeo: geometry(disk.bios_geometry),
        physGeo: geometry(disk.geometry),
        capacity: disk.capacity.0,
        adapterType: adapter(disk.adapter),
        numLinks: i32::try_from(disk.links).unwrap_or(i32::MAX),
        parentFileNameHint: placed[0],
        uuid: placed[1],
        logicalSectorSize: disk.logical_sector_size,
        physicalSectorSize: disk.physical_sector_size,
    };
    // SAFETY: `malloc` aligns for every type, and the block begins with room for the structure.
    unsafe { block.write(info) };
    Ok(block)
}

fn geometry(of: Geometry) -> VixDiskLibGeometry {
    VixDiskLibGeometry { cylinders: of.cylinders, heads: of.heads, sectors: of.sectors }
}

fn adapter(of: Adapter) -> u32 {
    match of {
        Adapter::Ide => 1,
        Adapter::BusLogic => 2,
        Adapter::LsiLogic => 3,
        Adapter::Unknown => 256,
    }
}

/// A list of sector ranges; an empty one is large enough for a caller that looks at its first element.
pub fn block_list(blocks: &[(u64, u64)]) -> Result<*mut VixDiskLibBlockList> {
    let number = u32::try_from(blocks.len())
        .map_err(|_| Error::new(ErrorKind::Internal, format!("{} ranges in one list", blocks.len())))?;
    let beyond_first = blocks.len().saturating_sub(1) * size_of::<VixDiskLibBlock>();
    let list = zeroed(size_of::<VixDiskLibBlockList>() + beyond_first)?.cast::<VixDiskLibBlockList>();
    // SAFETY: the block has room for the head and for all elements behind it, and is aligned for both.
    unsafe {
        (*list).numBlocks = number;
        let first = (&raw mut (*list).blocks).cast::<VixDiskLibBlock>();
        for (i, &(offset, length)) in blocks.iter().enumerate() {
            first.add(i).write(VixDiskLibBlock { offset, length });
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Sectors;
    use std::ffi::CStr;

    #[test]
    fn an_info_block_holds_its_strings() {
        let geometry = Geometry { cylinders: 1, heads: 2, sectors: 3 };
        let mut disk = DiskInfo {
            bios_geometry: geometry,
            geometry,
            capacity: Sectors(77),
            adapter: Adapter::LsiLogic,
            links: u32::MAX,
            parent_hint: Some("parent.vmdk".into()),
            uuid: Some("60 00\0forged".into()),
            logical_sector_size: 512,
            physical_sector_size: 4096,
        };
        let block = info(&disk).unwrap();
        // SAFETY: made just above, freed below.
        unsafe {
            assert_eq!(((*block).capacity, (*block).numLinks, (*block).adapterType), (77, i32::MAX, 3));
            assert_eq!(CStr::from_ptr((*block).parentFileNameHint), c"parent.vmdk");
            assert_eq!(CStr::from_ptr((*block).uuid), c"60 00");
            free(block);
        }
        (disk.parent_hint, disk.uuid) = (None, None);
        let block = info(&disk).unwrap();
        // SAFETY: made just above, freed once.
        unsafe {
            assert!((*block).parentFileNameHint.is_null() && (*block).uuid.is_null());
            free(block);
        }
    }

    #[test]
    fn lists_of_none_one_and_many_hold_what_they_were_given() {
        for number in [0_u64, 1, 2, 1000] {
            let blocks: Vec<(u64, u64)> = (0..number).map(|i| (i * 10, i + 1)).collect();
            let list = block_list(&blocks).unwrap();
            // SAFETY: made just above with that many elements, freed once.
            unsafe {
                assert_eq!(u64::from((*list).numBlocks), number);
                let first = (&raw const (*list).blocks).cast::<VixDiskLibBlock>();
                for i in 0..number {
                    let block = first.add(i as usize).read();
                    assert_eq!((block.offset, block.length), (i * 10, i + 1));
                }
                free(list);
            }
        }
    }
}
