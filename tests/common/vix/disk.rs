//! An open disk: its content, what it says about itself, its end.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ptr::null_mut;

use super::Vix;
use super::code;
use super::log_text;
use super::types::Handle;
use super::types::Info;
use super::types::RawBlockList;
use super::types::RawInfo;

/// An open disk; closed on drop.
#[derive(Debug)]
pub struct Disk<'v> {
    pub(super) vix: &'v Vix,
    pub(super) handle: Handle,
}

// SAFETY: the interface allows every call from every thread.
unsafe impl Send for Disk<'_> {}
// SAFETY: as above.
unsafe impl Sync for Disk<'_> {}

impl Disk<'_> {
    /// Reads whole sectors.
    pub fn read(&self, start: u64, buf: &mut [u8]) -> u64 {
        assert_eq!(buf.len() % 512, 0);
        let count = (buf.len() / 512) as u64;
        call!(
            self.vix,
            "Read",
            fn(Handle, u64, u64, *mut u8) -> u64,
            self.handle,
            start,
            count,
            buf.as_mut_ptr()
        )
    }

    /// Reads sectors that must be readable.
    #[track_caller]
    pub fn must_read(&self, start: u64, count: u64) -> Vec<u8> {
        let mut buf = vec![0xA5u8; (count * 512) as usize];
        let result = self.read(start, &mut buf);
        assert_eq!(result, code::OK, "Read({start}, {count})\n{}", log_text());
        buf
    }

    /// `Read` with a count that has no buffer behind it: for ranges that must be refused.
    pub fn read_refused(&self, start: u64, count: u64) -> u64 {
        let mut buf = [0u8; 512];
        let result = call!(
            self.vix,
            "Read",
            fn(Handle, u64, u64, *mut u8) -> u64,
            self.handle,
            start,
            count,
            buf.as_mut_ptr()
        );
        assert_ne!(result, code::OK, "Read({start}, {count}) must be refused");
        result
    }

    /// Writes whole sectors.
    pub fn write(&self, start: u64, buf: &[u8]) -> u64 {
        assert_eq!(buf.len() % 512, 0);
        let count = (buf.len() / 512) as u64;
        call!(
            self.vix,
            "Write",
            fn(Handle, u64, u64, *const u8) -> u64,
            self.handle,
            start,
            count,
            buf.as_ptr()
        )
    }

    /// Writes sectors that must be writable.
    #[track_caller]
    pub fn must_write(&self, start: u64, buf: &[u8]) {
        let result = self.write(start, buf);
        assert_eq!(result, code::OK, "Write({start}, {} sectors)\n{}", buf.len() / 512, log_text());
    }

    /// `Wait`.
    pub fn wait(&self) -> u64 {
        call!(self.vix, "Wait", fn(Handle) -> u64, self.handle)
    }

    /// `Flush`.
    pub fn flush(&self) -> u64 {
        call!(self.vix, "Flush", fn(Handle) -> u64, self.handle)
    }

    /// What the disk says about itself.
    #[track_caller]
    pub fn info(&self) -> Info {
        let mut raw: *mut RawInfo = null_mut();
        let result =
            call!(self.vix, "GetInfo", fn(Handle, *mut *mut RawInfo) -> u64, self.handle, &raw mut raw);
        assert_eq!(result, code::OK, "GetInfo\n{}", log_text());
        assert!(!raw.is_null(), "GetInfo gives a block");
        let text = |p: *const c_char| {
            // SAFETY: NULL or a NUL-terminated text that lives as long as the block.
            (!p.is_null()).then(|| unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned())
        };
        // SAFETY: a block of the documented layout, alive until it is freed below.
        let info = unsafe { &*raw };
        let copy = Info {
            bios: info.bios,
            physical: info.physical,
            capacity: info.capacity,
            adapter: info.adapter,
            links: info.links,
            parent: text(info.parent),
            uuid: text(info.uuid),
            sector_sizes: (info.logical_sector, info.physical_sector),
        };
        call!(self.vix, "FreeInfo", fn(*mut RawInfo), raw);
        copy
    }

    /// `GetTransportMode`.
    pub fn transport(&self) -> String {
        let text = call!(self.vix, "GetTransportMode", fn(Handle) -> *const c_char, self.handle);
        assert!(!text.is_null(), "GetTransportMode is never NULL");
        // SAFETY: a static text.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// Allocated blocks as `(start, length)`.
    pub fn allocated(&self, start: u64, count: u64, chunk: u64) -> Result<Vec<(u64, u64)>, u64> {
        let mut raw: *mut RawBlockList = std::ptr::dangling_mut();
        let result = call!(
            self.vix,
            "QueryAllocatedBlocks",
            fn(Handle, u64, u64, u64, *mut *mut RawBlockList) -> u64,
            self.handle,
            start,
            count,
            chunk,
            &raw mut raw
        );
        if result != code::OK {
            assert!(raw.is_null(), "the list is NULL after a failed query");
            return Err(result);
        }
        assert!(!raw.is_null(), "an empty answer has a list too");
        // SAFETY: a list with `count` blocks behind its head, alive until it is freed below.
        let blocks = unsafe {
            let count = (*raw).count as usize;
            std::slice::from_raw_parts((&raw const (*raw).blocks).cast::<[u64; 2]>(), count).to_vec()
        };
        let freed = call!(self.vix, "FreeBlockList", fn(*mut RawBlockList) -> u64, raw);
        assert_eq!(freed, code::OK, "FreeBlockList");
        Ok(blocks.into_iter().map(|[start, length]| (start, length)).collect())
    }

    /// Allocated blocks of the whole disk, asked as nbdkit does: in steps of at most 512 Ki chunks, past the end.
    #[track_caller]
    pub fn allocated_all(&self, chunk: u64) -> Vec<(u64, u64)> {
        let capacity = self.info().capacity;
        let step = chunk * 524_288;
        let mut all = Vec::new();
        let mut start = 0;
        while start < capacity {
            let count = (capacity - start).div_ceil(chunk).min(step / chunk) * chunk;
            match self.allocated(start, count, chunk) {
                Ok(list) => all.extend(list),
                Err(e) => panic!("QueryAllocatedBlocks({start}, {count}, {chunk}) = {e}\n{}", log_text()),
            }
            start += count;
        }
        all
    }

    /// `Close`, with its result.
    pub fn close(self) -> u64 {
        let this = std::mem::ManuallyDrop::new(self);
        this.close_again()
    }

    /// `Close` on a handle that may be gone already.
    pub fn close_again(&self) -> u64 {
        call!(self.vix, "Close", fn(Handle) -> u64, self.handle)
    }

    /// Keeps the disk open past the end of the value.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        self.close_again();
    }
}
