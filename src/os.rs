//! What threads of a library inside a foreign process need from the system, and how a program of this package ends.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

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

/// The signals that ask a program to end, taken off their usual way: they no longer kill it.
#[derive(Debug)]
pub struct EndSignals(OwnedFd);

impl EndSignals {
    /// Blocks `SIGTERM`, `SIGINT` and `SIGHUP` in this thread and in those it starts. For programs, never for the library.
    pub fn watch() -> io::Result<EndSignals> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is initialised by sigemptyset before anything reads it; signalfd gives a descriptor of our own or -1.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        Ok(EndSignals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for one of them, and, if asked, for the end of the standard input.
    pub fn wait(&self, watch_input: bool) -> io::Result<()> {
        let input = if watch_input { libc::STDIN_FILENO } else { -1 };
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        loop {
            let mut polled = [entry(self.0.as_raw_fd()), entry(input)];
            // SAFETY: the array is valid for its two entries; negative descriptors are passed over.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
            if ready < 0 {
                match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => continue,
                    e => return Err(e),
                }
            }
            let [signals, input] = polled;
            if signals.revents != 0 {
                return Ok(());
            }
            if input.revents != 0 {
                let mut bytes = [0u8; 512];
                // SAFETY: the buffer is valid for writes of its length.
                if unsafe { libc::read(input.fd, bytes.as_mut_ptr().cast(), bytes.len()) } <= 0 {
                    return Ok(());
                }
            }
        }
    }
}
