//! The server: accepts connections until it is dropped.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::ServerConfig;

use crate::error::Context;
use crate::error::Result;
use crate::logging::Log;
use crate::os;
use crate::sim::http::request::Request;
use crate::sim::http::response::Response;
use crate::sim::http::wire::Ended;
use crate::sim::http::wire::Wire;
use crate::threads::Threads;

/// What answers requests.
pub trait Handler: fmt::Debug + Send + Sync {
    /// Answers one.
    fn answer(&self, request: &Request, peer: IpAddr) -> Response;

    /// The server ends: no answer may wait any longer.
    fn end(&self);
}

/// More connections at once are closed at once.
const MOST: usize = 500;
/// How long the end of the server waits for its threads.
const END: Duration = Duration::from_secs(10);

/// A server, which ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    handler: Arc<dyn Handler>,
    config: Arc<ServerConfig>,
    threads: Threads,
    ending: AtomicBool,
    /// The connections, to end them.
    open: Mutex<HashMap<u64, TcpStream>>,
    log: Log,
}

impl Server {
    /// Begins to listen. Nobody is answered before [`Server::serve`].
    pub fn listen(address: SocketAddr) -> Result<TcpListener> {
        TcpListener::bind(address).context(|| format!("listening on {address}"))
    }

    /// Answers what comes to `listener`.
    pub fn serve(
        listener: TcpListener,
        config: Arc<ServerConfig>,
        handler: Arc<dyn Handler>,
        log: Log,
    ) -> Result<Server> {
        let address = listener.local_addr().context(|| "the address of the server")?;
        let threads = Threads::new(os::with_signals_blocked);
        let ending = AtomicBool::new(false);
        let shared = Arc::new(Shared { handler, config, threads, ending, open: Mutex::default(), log });
        let theirs = shared.clone();
        shared.threads.spawn("vix-sim-http", move || accept(&listener, &theirs))?;
        Ok(Server { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection that is open.
    pub fn cut(&self) {
        self.shared.open.lock().values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        self.shared.handler.end();
        self.cut();
        let here = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        // The accepting thread looks at the flag when somebody comes.
        let _ = TcpStream::connect_timeout(&SocketAddr::new(here, self.address.port()), END);
        self.cut();
        self.shared.threads.join_until(Instant::now() + END);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for number in 0.. {
        let accepted = listener.accept();
        if shared.ending.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((stream, peer)) => admit(shared, number, stream, peer.ip()),
            // Out of descriptors, or the peer went again: the next one may fare better.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn admit(shared: &Arc<Shared>, number: u64, stream: TcpStream, peer: IpAddr) {
    let Ok(ours) = stream.try_clone() else { return };
    let mut open = shared.open.lock();
    if open.len() >= MOST {
        return;
    }
    open.insert(number, ours);
    drop(open);
    let theirs = shared.clone();
    let born = shared.threads.spawn("vix-sim-conn", move || {
        let registered = Registered(&theirs, number);
        serve(&theirs, stream, peer);
        drop(registered);
    });
    if born.is_err() {
        shared.open.lock().remove(&number);
    }
}

/// Takes a connection off the list, also when its thread panics.
struct Registered<'a>(&'a Shared, u64);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.open.lock().remove(&self.1);
    }
}

fn serve(shared: &Shared, stream: TcpStream, peer: IpAddr) {
    let Ok(mut wire) = Wire::new(stream, shared.config.clone()) else { return };
    while !shared.ending.load(Ordering::Acquire) {
        let request = match wire.read() {
            Ok(request) => request,
            Err(Ended::Gone) => return,
            Err(Ended::Refused(response)) => {
                shared.log.info(|| format!("vixsim: {peer}: refused, status {}", response.status));
                if wire.write(&response, false).is_ok() {
                    wire.end_in_spite();
                }
                return;
            }
        };
        let mut response = shared.handler.answer(&request, peer);
        response.head_only |= request.method == "HEAD";
        if response.gone {
            return;
        }
        let keep = request.keep && !response.close;
        if wire.write(&response, keep).is_err() {
            return;
        }
        if !keep {
            return wire.end();
        }
    }
}
