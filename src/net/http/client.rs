//! Exchanges with one server, over connections that are kept.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::body::Target;
use crate::net::http::connection::Connection;
use crate::net::http::connection::Exchanged;
use crate::net::http::connection::Failed;
use crate::net::http::hidden::Hidden;
use crate::net::http::message::Head;
use crate::net::http::message::Request;
use crate::net::http::wiped::Wiped;
use crate::net::socket::Address;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::net::tls::Tls;

/// Makes connections to one server.
pub trait Dial: Debug + Send + Sync {
    /// A stream on which requests can be sent.
    fn dial(&self, until: Instant) -> Result<Box<dyn Stream>>;

    /// What the server is called in requests: a name or address, with the port where it is not the usual one.
    fn host(&self) -> String;
}

/// A port of a server.
#[derive(Clone, Debug)]
pub struct Door {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How the server proves who it is.
    pub tls: Tls,
}

/// The port that needs not be named.
const USUAL_PORT: u16 = 443;

impl Dial for Door {
    fn dial(&self, until: Instant) -> Result<Box<dyn Stream>> {
        let address = Address::Tcp { host: self.host.clone(), port: self.port };
        let socket = Socket::connect(&address, until)?;
        self.tls.wrap(Box::new(socket), &self.host, until)
    }

    fn host(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == USUAL_PORT { host } else { format!("{host}:{}", self.port) }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub head: Head,
    /// What was collected of its body.
    pub body: Wiped,
    /// The body went to the buffer of the target.
    pub is_filled: bool,
}

impl Answer {
    /// Why an answer with this status is none that can be used.
    pub fn refusal(&self, hidden: &Hidden) -> Error {
        let status = self.head.status;
        let (kind, what) = match status {
            300..=399 => {
                let to = hidden.quote(self.head.text("Location").unwrap_or_default());
                let what = format!("the server redirects with {status} to {to}, which is not followed");
                return Error::new(ErrorKind::Protocol, what);
            }
            401 | 403 | 407 => (ErrorKind::Unauthorised, "the server refuses access"),
            404 | 410 => (ErrorKind::NotFound, "the server has nothing there"),
            408 | 504 => (ErrorKind::TimedOut, "the server or what is behind it took too long"),
            502 | 503 => (ErrorKind::HostUnavailable, "the server is not available, or not yet"),
            _ => (ErrorKind::Protocol, "the server answers what was not expected"),
        };
        let (reason, body) = (hidden.quote(&self.head.reason), hidden.excerpt(self.body.bytes()));
        Error::new(kind, format!("{what}: status {status} {reason}, and it says {body}"))
    }
}

/// Exchanges with one server. Many threads may have one at once, each on a connection of its own.
#[derive(Debug)]
pub struct Client {
    dial: Box<dyn Dial>,
    connect: Duration,
    /// Connections without an exchange, the one used last at the end. Held for moments only.
    idle: Mutex<Vec<Connection>>,
    busy: Mutex<Busy>,
}

/// Exchanges under way. The lock is held for moments only.
#[derive(Debug, Default)]
struct Busy {
    streams: Vec<Arc<dyn Stream>>,
    /// There are to be no more.
    over: bool,
}

/// More connections than that are not kept.
const MOST_IDLE: usize = 8;

/// What is between us and the server may have forgotten a connection that was idle longer.
const LONGEST_IDLE: Duration = Duration::from_secs(45);

impl Client {
    /// Nothing is connected before the first exchange; `connect` is for each connection.
    pub fn new(dial: Box<dyn Dial>, connect: Duration) -> Self {
        Self { dial, connect, idle: Mutex::default(), busy: Mutex::default() }
    }

    /// What the server is called.
    pub fn host(&self) -> String {
        self.dial.host()
    }

    /// One exchange. An answer of any status is `Ok`.
    ///
    /// Where a connection that was kept turns out to be closed before the first byte of an answer, the request is sent
    /// once more, on a new connection: it has to be one that does no harm when the server gets it twice.
    pub fn exchange(&self, request: &Request<'_>, mut target: Target<'_>, until: Instant) -> Result<Answer> {
        let doing = || format!("{request:?} of {}", self.dial.host());
        self.check_open()?;
        if let Some(mut kept) = self.kept() {
            match self.on(&mut kept, request, &mut target, until) {
                Err(failed) if failed.unanswered => self.close(), // the others are no better
                done => return self.done(kept, done.map_err(|failed| failed.error)).context(doing),
            }
        }
        let connect_until = Instant::now().checked_add(self.connect).map_or(until, |end| end.min(until));
        let mut fresh = Connection::new(self.dial.dial(connect_until).context(doing)?);
        let done = self.on(&mut fresh, request, &mut target, until);
        self.done(fresh, done.map_err(|failed| failed.error)).context(doing)
    }

    fn on(
        &self,
        connection: &mut Connection,
        request: &Request<'_>,
        target: &mut Target<'_>,
        until: Instant,
    ) -> Result<Exchanged, Failed> {
        let _under_way = UnderWay::begin(&self.busy, connection.stream())?;
        let done = connection.exchange(request, &self.dial.host(), target, until);
        done.map_err(|failed| match self.check_open() {
            Err(ended) => ended.into(),
            Ok(()) => failed,
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.busy.lock().over { Err(ended()) } else { Ok(()) }
    }

    /// Keeps the connection if it can be used again.
    fn done(&self, connection: Connection, done: Result<Exchanged>) -> Result<Answer> {
        let exchanged = done?;
        if exchanged.keeps {
            let mut idle = self.idle.lock();
            if idle.len() < MOST_IDLE && !self.busy.lock().over {
                idle.push(connection);
            }
        }
        Ok(exchanged.answer)
    }

    /// A connection that was kept and is still good.
    fn kept(&self) -> Option<Connection> {
        loop {
            let connection = self.idle.lock().pop()?;
            if connection.idle_since.elapsed() < LONGEST_IDLE && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Closes the connections that are idle.
    pub fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        for connection in idle {
            connection.shutdown();
        }
    }

    /// Ends the exchanges that are under way, and lets none begin any more: they are `Cancelled`. Who is connecting at that
    /// moment notices it afterwards.
    pub fn end(&self) {
        let streams = {
            let mut busy = self.busy.lock();
            busy.over = true;
            std::mem::take(&mut busy.streams)
        };
        streams.iter().for_each(|stream| stream.shutdown());
        self.close();
    }
}

/// An exchange under way, as long as it lives.
struct UnderWay<'a> {
    busy: &'a Mutex<Busy>,
    stream: Arc<dyn Stream>,
}

impl<'a> UnderWay<'a> {
    fn begin(busy: &'a Mutex<Busy>, stream: &Arc<dyn Stream>) -> Result<Self> {
        let mut list = busy.lock();
        if list.over {
            return Err(ended());
        }
        list.streams.push(Arc::clone(stream));
        drop(list);
        Ok(Self { busy, stream: Arc::clone(stream) })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.busy.lock().streams.retain(|other| !Arc::ptr_eq(other, &self.stream));
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Cancelled, "the connections to the server are being closed")
}

#[cfg(test)]
mod tests;
