//! Work on whole disks, by their names and on open ones.

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_void;
use std::path::Path;
use std::ptr::null;
use std::ptr::null_mut;

use super::c_path;
use super::code;
use super::connection::Connection;
use super::disk::Disk;
use super::note_progress;
use super::types::CreateParams;
use super::types::Handle;
use super::types::Kind;
use super::types::ProgressFn;
use super::types::Spec;

impl Connection<'_> {
    /// `Unlink`.
    pub fn unlink(&self, path: &Path) -> u64 {
        let path = c_path(path);
        call!(self.vix, "Unlink", fn(Handle, *const c_char) -> u64, self.handle, path.as_ptr())
    }

    /// `Grow`, with the percentages that were reported.
    pub fn grow(&self, path: &Path, capacity: u64, update_geometry: bool) -> (u64, Vec<i32>) {
        let path = c_path(path);
        let mut seen: Vec<i32> = Vec::new();
        let result = call!(
            self.vix,
            "Grow",
            fn(Handle, *const c_char, u64, c_char, Option<ProgressFn>, *mut c_void) -> u64,
            self.handle,
            path.as_ptr(),
            capacity,
            c_char::from(update_geometry),
            Some(note_progress),
            (&raw mut seen).cast()
        );
        (result, seen)
    }

    /// Clones a disk of `source` to this connection, with the percentages that were reported. Without a specification the
    /// parameters are NULL.
    pub fn clone_disk(
        &self,
        to: &Path,
        source: &Connection<'_>,
        from: &Path,
        spec: Option<Spec>,
        overwrite: bool,
    ) -> (u64, Vec<i32>) {
        let (to, from) = (c_path(to), c_path(from));
        let mut seen: Vec<i32> = Vec::new();
        let progress: (Option<ProgressFn>, *mut c_void) = (Some(note_progress), (&raw mut seen).cast());
        let params = spec.map(Spec::raw);
        let result = self.clone_raw(to.as_ptr(), source, from.as_ptr(), params.as_ref(), progress, overwrite);
        (result, seen)
    }

    /// Clones with NULL for a missing path and for everything that may be NULL.
    pub fn clone_null(&self, to: Option<&Path>, from: Option<&Path>) -> u64 {
        let (to, from) = (to.map(c_path), from.map(c_path));
        let pointer = |path: &Option<CString>| path.as_ref().map_or(null(), |path| path.as_ptr());
        self.clone_raw(pointer(&to), self, pointer(&from), None, (None, null_mut()), false)
    }

    fn clone_raw(
        &self,
        to: *const c_char,
        source: &Connection<'_>,
        from: *const c_char,
        params: Option<&CreateParams>,
        progress: (Option<ProgressFn>, *mut c_void),
        overwrite: bool,
    ) -> u64 {
        type Params = *const CreateParams;
        type Progress = Option<ProgressFn>;
        call!(
            self.vix,
            "Clone",
            fn(Handle, *const c_char, Handle, *const c_char, Params, Progress, *mut c_void, c_char) -> u64,
            self.handle,
            to,
            source.handle,
            from,
            params.map_or(null(), |params| &raw const *params),
            progress.0,
            progress.1,
            c_char::from(overwrite)
        )
    }

    /// `CheckRepair`.
    pub fn check_repair(&self, path: &Path, repair: bool) -> u64 {
        let path = c_path(path);
        call!(
            self.vix,
            "CheckRepair",
            fn(Handle, *const c_char, c_char) -> u64,
            self.handle,
            path.as_ptr(),
            c_char::from(repair)
        )
    }
}

impl Disk<'_> {
    /// The space that a clone needs; 256 for the type of the disk.
    pub fn space_for_clone(&self, kind: u32) -> Result<u64, u64> {
        let mut space = 0x5555;
        let result = self.space_for_clone_raw(kind, &raw mut space);
        if result == code::OK { Ok(space) } else { Err(result) }
    }

    /// The same with any place for the answer.
    pub fn space_for_clone_raw(&self, kind: u32, space: *mut u64) -> u64 {
        call!(self.vix, "SpaceNeededForClone", fn(Handle, u32, *mut u64) -> u64, self.handle, kind, space)
    }

    /// `CreateChild`, with the percentages that were reported.
    pub fn create_child(&self, path: &Path, kind: Kind) -> (u64, Vec<i32>) {
        let path = c_path(path);
        let mut seen: Vec<i32> = Vec::new();
        let result = call!(
            self.vix,
            "CreateChild",
            fn(Handle, *const c_char, u32, Option<ProgressFn>, *mut c_void) -> u64,
            self.handle,
            path.as_ptr(),
            kind as u32,
            Some(note_progress),
            (&raw mut seen).cast()
        );
        (result, seen)
    }

    /// `IsAttachPossible` with this disk as the parent.
    pub fn is_attach_possible(&self, child: &Disk<'_>) -> u64 {
        call!(self.vix, "IsAttachPossible", fn(Handle, Handle) -> u64, self.handle, child.handle)
    }

    /// `Attach` with this disk as the parent.
    pub fn attach(&self, child: &Disk<'_>) -> u64 {
        call!(self.vix, "Attach", fn(Handle, Handle) -> u64, self.handle, child.handle)
    }

    /// `Shrink`, with the percentages that were reported.
    pub fn shrink(&self) -> (u64, Vec<i32>) {
        let mut seen: Vec<i32> = Vec::new();
        let data: *mut c_void = (&raw mut seen).cast();
        type Progress = Option<ProgressFn>;
        let result = call!(
            self.vix,
            "Shrink",
            fn(Handle, Progress, *mut c_void) -> u64,
            self.handle,
            Some(note_progress),
            data
        );
        (result, seen)
    }

    /// `Defragment`, with the percentages that were reported.
    pub fn defragment(&self) -> (u64, Vec<i32>) {
        let mut seen: Vec<i32> = Vec::new();
        let data: *mut c_void = (&raw mut seen).cast();
        type Progress = Option<ProgressFn>;
        let result = call!(
            self.vix,
            "Defragment",
            fn(Handle, Progress, *mut c_void) -> u64,
            self.handle,
            Some(note_progress),
            data
        );
        (result, seen)
    }
}
