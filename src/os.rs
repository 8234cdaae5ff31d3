//! What threads of a library inside a foreign process need from the system.
#![allow(unsafe_code)]

use std::ffi::CStr;

/// Runs `body` with all signals blocked in this thread; threads born inside inherit that.
pub fn with_signals_blocked(body: &mut dyn FnMut()) {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are valid for writes; sigfillset initialises `all` before it is read.
    let blocked = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) == 0
    };
    body();
    if blocked {
        // SAFETY: `before` was written by the successful call above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
}

/// Keeps this library's code in memory until the process ends, for a thread that may outlive the last call into it.
/// What cannot be loaded again by its name is a program, which is never unloaded.
pub fn stay_loaded() {
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: any address may be asked for; the structure is read only when the call says that it was written, and its
    // name lives as long as the object does. The handle is not closed: it is what keeps the object.
    unsafe {
        if libc::dladdr((stay_loaded as fn() as *const ()).cast(), found.as_mut_ptr()) != 0 {
            let name = found.assume_init().dli_fname;
            if !name.is_null() && !CStr::from_ptr(name).is_empty() {
                libc::dlopen(name, libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE);
            }
        }
    }
}
