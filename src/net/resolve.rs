//! Names to addresses, in bounded time.
//!
//! The system's resolver takes as long as it likes (a minute and more when name servers are silent) and cannot be
//! interrupted. So names are looked up on a thread of their own. When time is up, that thread is left behind: it ends by
//! itself, touches nothing of ours, and the library stays in memory for it.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::os;
use crate::threads;

/// More addresses than this are not tried.
const MOST: usize = 16;

/// The addresses of a host, in the system's order of preference; at least one.
pub fn addresses(host: &str, port: u16, until: Instant) -> Result<Vec<SocketAddr>> {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(literal, port)]);
    }
    if host.is_empty() || host.contains('\0') {
        return Err(Error::new(ErrorKind::ServerNotFound, format!("{host:?} cannot be a host's name")));
    }
    let name = host.to_owned();
    let look_up = move || {
        let found = (name.as_str(), port).to_socket_addrs()?;
        Ok::<_, std::io::Error>(found.take(MOST).collect::<Vec<_>>())
    };
    match threads::finish_until(os::with_signals_blocked, os::stay_loaded, "vix-resolve", until, look_up)? {
        None => Err(Error::new(ErrorKind::TimedOut, format!("no address of {host} was found in time"))),
        Some(Ok(found)) if found.is_empty() => {
            Err(Error::new(ErrorKind::ServerNotFound, format!("{host} has no address")))
        }
        Some(Ok(found)) => Ok(found),
        Some(Err(e)) => {
            Err(Error::from_io(e, format!("looking up {host}")).with_kind(ErrorKind::ServerNotFound))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn literals_and_local_names_are_found() {
        assert_eq!(addresses("127.0.0.1", 7, soon()).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(addresses("::1", 7, soon()).unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(
            addresses("localhost", 7, soon()).unwrap().iter().all(|a| a.ip().is_loopback() && a.port() == 7)
        );
    }

    #[test]
    fn impossible_names_are_not_found() {
        for name in ["", "a\0b", "a name with spaces.invalid"] {
            let e = addresses(name, 7, soon()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::ServerNotFound, "{name:?}: {e}");
        }
    }
}
