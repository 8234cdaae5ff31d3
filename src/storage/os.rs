//! System calls on files, each wrapped into something safe.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

/// Turns the `-1` of a system call into its error.
fn check(result: i64) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Reads as `pread` would, but only bytes that are in the page cache. `Ok(None)`: it would have to wait, or the system
/// cannot tell.
pub fn read_cached(file: &File, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    let Ok(offset) = libc::off64_t::try_from(offset) else { return Ok(None) };
    let vec = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: the one vector describes `buf`, which is valid for writes of its length during the call.
    let got = unsafe { libc::preadv2(file.as_raw_fd(), &raw const vec, 1, offset, libc::RWF_NOWAIT) };
    match check(got as i64) {
        Ok(n) => Ok(usize::try_from(n).ok()),
        Err(e) => match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EINTR) => Ok(None),
            _ => Err(e),
        },
    }
}

/// What a lock of an open file description is about. No other program is known to lock there.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// Writing: every byte that a file can have.
    Content,
    /// Where the content stands in the file: readers remember that, and share this lock while they do.
    Arrangement,
}

impl Subject {
    fn lock(self, kind: libc::c_int) -> libc::flock {
        let (l_start, l_len) = match self {
            Subject::Content => (0, 1 << 62),
            Subject::Arrangement => (1 << 62, 1),
        };
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start,
            l_len,
            l_pid: 0,
        }
    }
}

/// Takes the lock for this file alone. `Ok(false)`: somebody else has it or shares it.
pub fn lock_exclusively(file: &File, subject: Subject) -> io::Result<bool> {
    lock(file, subject, libc::F_WRLCK)
}

/// Takes the lock together with others. `Ok(false)`: somebody has it alone.
pub fn lock_shared(file: &File, subject: Subject) -> io::Result<bool> {
    lock(file, subject, libc::F_RDLCK)
}

fn lock(file: &File, subject: Subject, kind: libc::c_int) -> io::Result<bool> {
    let lock = subject.lock(kind);
    // SAFETY: the descriptor is open and `lock` is a valid structure for this command.
    match check(i64::from(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) })) {
        Ok(_) => Ok(true),
        Err(e) => match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            // A file system without locks: the VMware lock has to do.
            Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS) => Ok(true),
            _ => Err(e),
        },
    }
}

/// Gives up a lock.
pub fn unlock(file: &File, subject: Subject) {
    let lock = subject.lock(libc::F_UNLCK);
    // SAFETY: as in `lock`. Unlocking what is not locked does nothing.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
}

/// The next byte at or after `offset` that is data (`data`) or a hole. `Ok(None)`: none up to the end of the file.
/// Moves the file position, which nothing here uses.
pub fn seek_next(file: &File, offset: u64, data: bool) -> io::Result<Option<u64>> {
    let whence = if data { libc::SEEK_DATA } else { libc::SEEK_HOLE };
    let Ok(offset) = libc::off64_t::try_from(offset) else { return Ok(None) };
    // SAFETY: plain system call on an open descriptor.
    match check(unsafe { libc::lseek64(file.as_raw_fd(), offset, whence) }) {
        Ok(at) => Ok(Some(at)),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Size in bytes of a block device.
pub fn device_size(file: &File) -> io::Result<u64> {
    const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
    let mut size = 0u64;
    // SAFETY: this request writes one u64 through the pointer.
    check(i64::from(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as _, &raw mut size) }))?;
    Ok(size)
}

/// Bytes that addresses, offsets and lengths of unbuffered I/O on this file must be multiples of.
pub fn direct_alignment(file: &File) -> u64 {
    const FALLBACK: u64 = 4096;
    let mut out = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an empty path with AT_EMPTY_PATH names the descriptor; `out` is valid for writes.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            out.as_mut_ptr(),
        )
    };
    if done != 0 {
        return FALLBACK;
    }
    // SAFETY: zeroed before and filled by the successful call.
    let out = unsafe { out.assume_init() };
    if out.stx_mask & libc::STATX_DIOALIGN == 0 {
        return FALLBACK;
    }
    let align = u64::from(out.stx_dio_mem_align.max(out.stx_dio_offset_align));
    if align.is_power_of_two() && (512..=65536).contains(&align) { align } else { FALLBACK }
}

/// Fills `buf` from the system's random source.
pub fn random_bytes(buf: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..)
        && !rest.is_empty()
    {
        // SAFETY: `rest` is valid for writes of its length.
        match check(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) } as i64) {
            Ok(n) => done += n as usize,
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Gives a file that was opened without a name its first one, which must be free.
pub fn name_file(file: &File, path: &Path) -> io::Result<()> {
    let now = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both names are terminated.
    let linked = unsafe {
        libc::linkat(libc::AT_FDCWD, now.as_ptr(), libc::AT_FDCWD, name.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    check(i64::from(linked)).map(drop)
}

/// Reserves space for `range` of the file, which becomes as long as that, without writing. `Ok(false)`: the file system
/// cannot.
pub fn preallocate(file: &File, range: Range<u64>) -> io::Result<bool> {
    let start = libc::off64_t::try_from(range.start).ok();
    let len = range.end.checked_sub(range.start).and_then(|len| libc::off64_t::try_from(len).ok());
    let Some((start, len)) = start.zip(len) else {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    };
    // SAFETY: plain system call on an open descriptor.
    match check(i64::from(unsafe { libc::fallocate64(file.as_raw_fd(), 0, start, len) })) {
        Ok(_) => Ok(true),
        Err(e) => match e.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => Ok(false),
            _ => Err(e),
        },
    }
}

/// Makes `to` of one file share the blocks of `from` of another: all of it or an error. A range that does not end with its
/// file must be made of whole blocks.
pub fn share_blocks(source: &File, from: Range<u64>, target: &File, to: u64) -> io::Result<()> {
    #[repr(C)]
    struct CloneRange {
        fd: i64,
        from: u64,
        len: u64,
        to: u64,
    }
    const FICLONERANGE: libc::c_ulong = 0x4020_940d;
    let len = from.end.saturating_sub(from.start);
    if len == 0 {
        return Ok(()); // the system takes 0 for everything up to the end
    }
    let range = CloneRange { fd: i64::from(source.as_raw_fd()), from: from.start, len, to };
    // SAFETY: this request reads the structure through the pointer.
    check(i64::from(unsafe { libc::ioctl(target.as_raw_fd(), FICLONERANGE as _, &raw const range) }))
        .map(drop)
}

/// Lets the system copy a first part of `from` of one file to `to` of another; says how many bytes, 0 at the end of the file.
pub fn copy_range(source: &File, from: Range<u64>, target: &File, to: u64) -> io::Result<u64> {
    let too_big = || io::Error::from_raw_os_error(libc::EFBIG);
    let mut from_at = libc::off64_t::try_from(from.start).map_err(|_| too_big())?;
    let mut to_at = libc::off64_t::try_from(to).map_err(|_| too_big())?;
    let len = usize::try_from(from.end.saturating_sub(from.start)).unwrap_or(usize::MAX);
    // Through `syscall`, since older C libraries lack the function.
    // SAFETY: both offsets are valid for reads and writes during the call.
    let copied = unsafe {
        libc::syscall(
            libc::SYS_copy_file_range,
            source.as_raw_fd(),
            &raw mut from_at,
            target.as_raw_fd(),
            &raw mut to_at,
            len,
            0 as libc::c_uint,
        )
    };
    check(copied)
}

/// Memory that starts at a multiple of its alignment.
#[derive(Debug)]
pub struct AlignedBuf {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns plain bytes.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// Zeroed memory of `len` bytes (more than 0), `None` when it cannot be had or `align` is not a power of two.
    pub fn new(len: usize, align: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len, align).ok().filter(|l| l.size() > 0)?;
        // SAFETY: the layout has a size above 0.
        let at = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
        Some(Self { at, layout })
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.at.as_ptr(), self.layout) };
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `at` is valid for the layout's size and was zeroed.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.layout.size()) }
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.layout.size()) }
    }
}
