//! The `va_list` record of the platform's C calling convention, without arguments in it.
//!
//! Messages are passed as the format itself with every `%` doubled, so no argument is ever fetched; the record is still one
//! that `vprintf`, `vsnprintf` and `va_copy` accept, because hosts hand it to them. The callee consumes a record: each call
//! gets its own. Layouts: System V x86-64 psABI 3.5.7, AAPCS64 appendix B.

use std::ffi::c_void;
use std::marker::PhantomData;

/// Where a callee that fetches arguments in spite of the rule finds zeros instead of our stack.
#[repr(C, align(16))]
pub struct Slots([u64; 16]);

impl Slots {
    /// Zeros.
    pub const fn new() -> Self {
        Self([0; 16])
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

/// A `va_list` argument is a pointer to this.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
pub struct VaList<'a> {
    gp_offset: u32,
    fp_offset: u32,
    overflow_arg_area: *mut c_void,
    reg_save_area: *mut c_void,
    slots: PhantomData<&'a mut Slots>,
}

#[cfg(target_arch = "x86_64")]
impl<'a> VaList<'a> {
    /// A list whose register part is used up, so that fetches go to `slots`.
    pub fn empty(slots: &'a mut Slots) -> Self {
        Self {
            gp_offset: 48,
            fp_offset: 176,
            overflow_arg_area: std::ptr::from_mut(slots).cast(),
            reg_save_area: std::ptr::null_mut(),
            slots: PhantomData,
        }
    }
}

/// A `va_list` argument is a pointer to this.
#[cfg(target_arch = "aarch64")]
#[repr(C)]
pub struct VaList<'a> {
    stack: *mut c_void,
    gr_top: *mut c_void,
    vr_top: *mut c_void,
    gr_offs: i32,
    vr_offs: i32,
    slots: PhantomData<&'a mut Slots>,
}

#[cfg(target_arch = "aarch64")]
impl<'a> VaList<'a> {
    /// A list whose register part is used up, so that fetches go to `slots`.
    pub fn empty(slots: &'a mut Slots) -> Self {
        Self {
            stack: std::ptr::from_mut(slots).cast(),
            gr_top: std::ptr::null_mut(),
            vr_top: std::ptr::null_mut(),
            gr_offs: 0,
            vr_offs: 0,
            slots: PhantomData,
        }
    }
}

#[cfg(target_arch = "x86_64")]
const _: () = assert!(size_of::<VaList<'static>>() == 24);
#[cfg(target_arch = "aarch64")]
const _: () = assert!(size_of::<VaList<'static>>() == 32);
