//! A listening TCP socket, for servers that stand in for real ones.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::Duration;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::os;
use crate::net::socket::Socket;
use crate::net::stream::Ready;

/// Where clients arrive.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens; port 0 is any that is free.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let socket = TcpListener::bind(address).context(|| format!("listening on {address}"))?;
        socket.set_nonblocking(true).context(|| "making a listener that does not wait")?;
        let address = socket.local_addr().context(|| "the address of a listener")?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next client. `Ok(None)`: nobody came in time. An error of the kind `Cancelled` is the end of the listener; others
    /// are clients that went away at once, or no descriptors left.
    pub fn accept(&self, until: Instant) -> Result<Option<Socket>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.socket.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).context(|| "making a connection that waits")?;
                    return Socket::accepted(stream).map(Some);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && left.is_zero() => return Ok(None),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => self.wait(left)?,
                // What a listener says that was shut down.
                Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
                    return Err(
                        Error::from_io(e, "no more clients are taken").with_kind(ErrorKind::Cancelled)
                    );
                }
                Err(e) => return Err(Error::from_io(e, "taking a client")),
            }
        }
    }

    /// No more clients: whoever waits for one gets an error.
    pub fn end(&self) {
        os::shutdown(self.socket.as_fd());
    }

    fn wait(&self, time: Duration) -> Result<()> {
        let wanted = Ready { recv: true, send: false };
        os::poll(self.socket.as_fd(), wanted, time).context(|| "waiting for a client").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::net::TcpStream;
    use std::sync::Arc;

    use super::*;

    fn listener() -> Arc<Listener> {
        Arc::new(Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn clients_are_taken_and_waited_for() {
        let listener = listener();
        assert!(listener.accept(Instant::now()).unwrap().is_none());
        let _client = TcpStream::connect(listener.address()).unwrap();
        assert!(listener.accept(soon()).unwrap().is_some());
    }

    #[test]
    fn the_end_wakes_who_waits() {
        let listener = listener();
        let theirs = Arc::clone(&listener);
        let waits = std::thread::spawn(move || theirs.accept(soon()));
        listener.end();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
