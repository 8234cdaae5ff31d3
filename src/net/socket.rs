//! TCP and Unix sockets as a [`Stream`].
//!
//! The descriptor is a blocking one whose calls wait at most a second each (`SLICE`). A call with more time than
//! that is one blocking system call when the peer keeps up, repeated while it is silent; one with less asks first and then
//! polls for the rest of its time.

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::os;
use crate::net::resolve;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// `tcp host:port`, `tcp [::1]:port` or `unix /path`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp [{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp {host}:{port}"),
            Address::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    label: String,
    /// A call that sends much and may wait ends in time: TCP counts the waits of one call together, a Unix socket counts
    /// each piece of the data anew.
    may_wait_to_send: bool,
}

impl Socket {
    /// Connects. All addresses of a name are tried, each with its share of the time.
    ///
    /// The kind of the error is `ServerNotFound`, `ConnectionRefused` or `TimedOut`, and `AccessDenied` for a Unix socket.
    pub fn connect(address: &Address, until: Instant) -> Result<Socket> {
        let connected = match address {
            Address::Tcp { host, port } => connect_tcp(host, *port, until),
            Address::Unix(path) => connect_unix(path, until),
        };
        connected.context(|| format!("connecting to {address}")).map(|fd| Socket {
            fd,
            label: address.to_string(),
            may_wait_to_send: matches!(address, Address::Tcp { .. }),
        })
    }
}

impl Socket {
    /// A connection that a listener gave.
    pub fn accepted(stream: TcpStream) -> Result<Socket> {
        let peer = stream.peer_addr().context(|| "the address of a connection that was accepted")?;
        let fd = prepared(stream)?;
        Ok(Socket { fd, label: format!("tcp {peer}"), may_wait_to_send: true })
    }
}

fn connect_unix(path: &Path, until: Instant) -> Result<OwnedFd> {
    let fd = os::connect_unix(path, until).map_err(|e| refused(e, "the Unix socket"))?;
    os::bound_waits(fd.as_fd()).context(|| "setting the socket's time limits")?;
    Ok(fd)
}

fn connect_tcp(host: &str, port: u16, until: Instant) -> Result<OwnedFd> {
    let addresses = resolve::addresses(host, port, until)?;
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match connect_one(address, share.max(SHORTEST)) {
            Ok(fd) => return Ok(fd),
            Err(e) => last = Some(e),
        }
    }
    let all = || format!("none of {} addresses could be reached, the last one", addresses.len());
    let last =
        last.unwrap_or_else(|| Error::new(ErrorKind::ServerNotFound, format!("{host} has no address")));
    Err(if addresses.len() > 1 { last.context(all()) } else { last })
}

/// An attempt without any time would not be one.
const SHORTEST: Duration = Duration::from_millis(1);

fn connect_one(address: &SocketAddr, time: Duration) -> Result<OwnedFd> {
    prepared(TcpStream::connect_timeout(address, time).map_err(|e| refused(e, &address.to_string()))?)
}

/// What every connection over TCP is set to.
fn prepared(stream: TcpStream) -> Result<OwnedFd> {
    stream.set_nodelay(true).context(|| "switching off the delay of small segments")?;
    let fd = OwnedFd::from(stream);
    os::bound_waits(fd.as_fd()).context(|| "setting the socket's time limits")?;
    os::keep_alive(fd.as_fd()).context(|| "switching on keep-alive")?;
    Ok(fd)
}

/// Why there is no connection.
fn refused(e: io::Error, whom: &str) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ErrorKind::ConnectionRefused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::TimedOut,
        io::ErrorKind::NotFound
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => ErrorKind::ServerNotFound,
        _ => return Error::from_io(e, whom),
    };
    Error::from_io(e, whom).with_kind(kind)
}

/// What a system call on a connected socket failed with.
fn lost(e: io::Error, doing: &str) -> Error {
    match e.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOBUFS) => Error::from_io(e, doing).with_kind(ErrorKind::OutOfMemory),
        Some(libc::EBADF | libc::EFAULT | libc::EINVAL | libc::EMSGSIZE | libc::ENOTSOCK) => {
            Error::from_io(e, doing).with_kind(ErrorKind::Internal)
        }
        _ => Error::from_io(e, doing).with_kind(ErrorKind::ConnectionLost),
    }
}

impl Socket {
    /// Repeats a call until it got something, or time is up. `call` is told whether it may wait for up to a second.
    fn patiently(
        &self,
        patience: Patience,
        wanted: Ready,
        may_wait: bool,
        mut call: impl FnMut(bool) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        loop {
            let left = match patience {
                Patience::None => Duration::ZERO,
                Patience::Until(until) => until.saturating_duration_since(Instant::now()),
            };
            let waits = may_wait && left >= os::SLICE;
            match call(waits) {
                Ok(None) if left.is_zero() => return Ok(None),
                Ok(None) if !waits => {
                    os::poll(self.fd.as_fd(), wanted, left)?;
                }
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

const TO_SEND: Ready = Ready { recv: false, send: true };
const TO_RECV: Ready = Ready { recv: true, send: false };

impl Stream for Socket {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        self.patiently(patience, TO_SEND, self.may_wait_to_send, |wait| {
            os::send(self.fd.as_fd(), parts, wait)
        })
        .map_err(|e| lost(e, "sending"))
        .context(|| self.label())
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        if parts.iter().all(|part| part.is_empty()) {
            return Err(Error::new(ErrorKind::Internal, "receiving needs room for at least one byte"));
        }
        self.patiently(patience, TO_RECV, true, |wait| os::recv(self.fd.as_fd(), parts, wait))
            .map_err(|e| lost(e, "receiving"))
            .context(|| self.label())
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let ready = os::poll(self.fd.as_fd(), wanted, left)
                .map_err(|e| lost(e, "waiting"))
                .context(|| self.label())?;
            if left.is_zero() || ready != Ready::default() || wanted == Ready::default() {
                return Ok(ready);
            }
        }
    }

    fn shutdown(&self) {
        os::shutdown(self.fd.as_fd());
    }

    fn label(&self) -> String {
        self.label.clone()
    }
}

#[cfg(test)]
mod tests;
