//! System calls on sockets, each wrapped into something safe. The only place of this room where `unsafe` stands.
#![allow(unsafe_code)]

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::net::stream::Ready;

/// Longest time that a call of [`send`] or [`recv`] waits when it may.
pub const SLICE: Duration = Duration::from_secs(1);

/// The system takes at most this many parts (`UIO_MAXIOV`).
const PARTS: usize = 1024;

/// Turns the `-1` of a system call into its error, and "not now" into `None`.
fn taken(result: isize) -> io::Result<Option<usize>> {
    if let Ok(n) = usize::try_from(result) {
        return Ok(Some(n));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Ok(None),
        _ => Err(error),
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A message header without address and control data.
fn header(parts: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all-zero is a valid value of this structure: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts;
    header.msg_iovlen = count.min(PARTS) as _;
    header
}

/// Sends some of the parts; with `wait` up to [`SLICE`] long. `Ok(None)`: nothing could be taken. Raises no signal.
pub fn send(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>], wait: bool) -> io::Result<Option<usize>> {
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    let message = header(parts.as_ptr().cast_mut().cast(), parts.len());
    // SAFETY: an IoSlice has the layout of an iovec and describes memory that is valid for reads during the call;
    // sendmsg writes neither to the vectors nor through them.
    taken(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) })
}

/// Receives into the parts; with `wait` up to [`SLICE`] long. `Ok(None)`: nothing came. `Ok(Some(0))`: the end.
pub fn recv(fd: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>], wait: bool) -> io::Result<Option<usize>> {
    let flags = libc::MSG_CMSG_CLOEXEC | if wait { 0 } else { libc::MSG_DONTWAIT };
    let mut message = header(parts.as_mut_ptr().cast(), parts.len());
    // SAFETY: an IoSliceMut has the layout of an iovec and describes memory that is valid for writes during the call.
    taken(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })
}

/// Waits for a wanted direction; ends early when interrupted, with neither. A dead connection is ready for all that is
/// wanted.
pub fn poll(fd: BorrowedFd<'_>, wanted: Ready, time: Duration) -> io::Result<Ready> {
    let flag = |on: bool, events: libc::c_short| if on { events } else { 0 };
    let events = flag(wanted.recv, libc::POLLIN) | flag(wanted.send, libc::POLLOUT);
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // Rounded up, so that the last part of a millisecond is not spent in a loop of calls.
    let milliseconds = time.as_nanos().div_ceil(1_000_000).min(60_000) as libc::c_int;
    // SAFETY: one valid structure, and its number.
    match check(unsafe { libc::poll(&raw mut entry, 1, milliseconds) }) {
        Err(e) if e.raw_os_error() != Some(libc::EINTR) => return Err(e),
        Err(_) => return Ok(Ready::default()),
        Ok(_) => {}
    }
    let has = |events: libc::c_short| entry.revents & (events | libc::POLLERR | libc::POLLHUP) != 0;
    Ok(Ready { recv: wanted.recv && has(libc::POLLIN), send: wanted.send && has(libc::POLLOUT) })
}

/// Ends both directions. Fails only where there is nothing left to end.
pub fn shutdown(fd: BorrowedFd<'_>) {
    // SAFETY: plain system call on an open descriptor.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

fn set<T: Copy>(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is valid for reads of the length, which is that of the value.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    check(done).map(drop)
}

fn timeval(time: Duration) -> libc::timeval {
    // Zero would mean for ever.
    let time = time.max(Duration::from_millis(1));
    libc::timeval { tv_sec: time.as_secs().min(3600) as _, tv_usec: time.subsec_micros() as _ }
}

/// Calls that wait, wait no longer than [`SLICE`].
pub fn bound_waits(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, timeval(SLICE))?;
    set(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, timeval(SLICE))
}

/// A dead peer is noticed, and middle boxes do not forget a connection that idles between two backups.
pub fn keep_alive(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, on)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEP_ALIVE_SECONDS)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEP_ALIVE_SECONDS)
}

const KEEP_ALIVE_SECONDS: libc::c_int = 60;

/// Connects to a Unix socket. A server whose queue is full is waited for; `TimedOut` when that takes too long.
pub fn connect_unix(path: &Path, until: Instant) -> io::Result<OwnedFd> {
    let (address, length) = unix_address(path)?;
    // SAFETY: plain system call.
    let raw = check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let borrowed = std::os::fd::AsFd::as_fd(&fd);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        set(borrowed, libc::SOL_SOCKET, libc::SO_SNDTIMEO, timeval(left))?;
        // SAFETY: the address is valid for reads of its length.
        match check(unsafe { libc::connect(raw, (&raw const address).cast(), length) }) {
            Ok(_) => return Ok(fd),
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) if !left.is_zero() => {}
                Some(libc::EINTR | libc::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                _ => return Err(e),
            },
        }
    }
}

fn unix_address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all-zero is a valid value of this structure.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}
