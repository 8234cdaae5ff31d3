//! A connection and what it does to disks by their names.

use std::ffi::c_char;
use std::ffi::c_void;
use std::path::Path;
use std::ptr::null_mut;

use super::Vix;
use super::c_path;
use super::code;
use super::disk::Disk;
use super::log_text;
use super::note_progress;
use super::types::CreateParams;
use super::types::Handle;
use super::types::ProgressFn;
use super::types::Spec;

/// A connection; disconnected on drop.
#[derive(Debug)]
pub struct Connection<'v> {
    pub(super) vix: &'v Vix,
    pub(super) handle: Handle,
}

// SAFETY: the interface allows every call from every thread.
unsafe impl Send for Connection<'_> {}
// SAFETY: as above.
unsafe impl Sync for Connection<'_> {}

impl<'v> Connection<'v> {
    /// Opens a disk.
    pub fn open(&self, path: &Path, flags: u32) -> Result<Disk<'v>, u64> {
        let path = c_path(path);
        let mut handle: Handle = std::ptr::dangling_mut();
        let result = call!(
            self.vix,
            "Open",
            fn(Handle, *const c_char, u32, *mut Handle) -> u64,
            self.handle,
            path.as_ptr(),
            flags,
            &raw mut handle
        );
        if result != code::OK {
            assert!(handle.is_null(), "the handle is NULL after a failed Open");
            return Err(result);
        }
        assert!(!handle.is_null(), "the handle is set after a successful Open");
        Ok(Disk { vix: self.vix, handle })
    }

    /// Opens a disk, with the log in the message when that fails.
    #[track_caller]
    pub fn must_open(&self, path: &Path, flags: u32) -> Disk<'v> {
        match self.open(path, flags) {
            Ok(disk) => disk,
            Err(e) => panic!("Open({}, {flags}) = {e}\n{}", path.display(), log_text()),
        }
    }

    /// Creates a disk, with the percentages that were reported.
    pub fn create_watched(&self, path: &Path, spec: Spec) -> (u64, Vec<i32>) {
        let mut seen: Vec<i32> = Vec::new();
        let result = self.create_raw(path, spec, Some(note_progress), (&raw mut seen).cast());
        (result, seen)
    }

    /// Creates a disk without a progress function.
    pub fn create(&self, path: &Path, spec: Spec) -> u64 {
        self.create_raw(path, spec, None, null_mut())
    }

    /// Creates a disk that must succeed.
    #[track_caller]
    pub fn must_create(&self, path: &Path, spec: Spec) {
        let result = self.create(path, spec);
        assert_eq!(result, code::OK, "Create({}, {spec:?})\n{}", path.display(), log_text());
    }

    fn create_raw(&self, path: &Path, spec: Spec, progress: Option<ProgressFn>, data: *mut c_void) -> u64 {
        let path = c_path(path);
        let params = spec.raw();
        call!(
            self.vix,
            "Create",
            fn(Handle, *const c_char, *const CreateParams, Option<ProgressFn>, *mut c_void) -> u64,
            self.handle,
            path.as_ptr(),
            &raw const params,
            progress,
            data
        )
    }

    /// `Disconnect`, with its result.
    pub fn disconnect(self) -> u64 {
        let this = std::mem::ManuallyDrop::new(self);
        this.disconnect_again()
    }

    /// `Disconnect` on a handle that may be gone already.
    pub fn disconnect_again(&self) -> u64 {
        call!(self.vix, "Disconnect", fn(Handle) -> u64, self.handle)
    }

    /// Keeps the connection open to the end of the process.
    pub fn leaked(self) -> &'v Self {
        Box::leak(Box::new(self))
    }

    /// Keeps the connection open past the end of the value.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.disconnect_again();
    }
}
