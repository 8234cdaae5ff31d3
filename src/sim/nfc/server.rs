//! Takes connections, counts them, and ends them all when it is dropped.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use ring::digest::SHA256;
use ring::digest::digest;
use rustls::ServerConfig;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::listen::Listener;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::net::tls::TlsServer;
use crate::os;
use crate::sim::nfc::Grant;
use crate::sim::nfc::House;
use crate::sim::nfc::Knobs;
use crate::sim::nfc::door;
use crate::sim::nfc::greeting::Handshake;
use crate::sim::nfc::intake::Intake;
use crate::sim::nfc::knobs::Excess;
use crate::sim::nfc::line::Line;
use crate::sim::nfc::session;
use crate::threads::Threads;

/// More connections at once, waiting ones included, are closed at once whatever the settings say.
const MOST_CONNECTIONS: usize = 1000;

/// How long the end of a server waits for its threads.
const END: Duration = Duration::from_secs(10);

/// How long the accepting thread waits when the system is out of something.
const BREATH: Duration = Duration::from_millis(10);

/// How long a client that is refused gets to notice it before the connection is reset.
const FAREWELL: Duration = Duration::from_secs(2);

/// authd and NFC on one port. Ends when it is dropped, with every connection.
#[derive(Debug)]
pub struct NfcServer {
    listener: Arc<Listener>,
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// Ends connections of a server for others than its owner.
#[derive(Clone, Debug)]
pub struct Cutter(Weak<Shared>);

impl Cutter {
    /// Ends the connections that a machine's tickets let in.
    pub fn cut_machine(&self, machine: &str) {
        if let Some(shared) = self.0.upgrade() {
            shared.cut_those(|line| line.machine() == Some(machine));
        }
    }
}

/// What all connections of a server share.
#[derive(Debug)]
pub struct Shared {
    /// The rest of the simulator.
    pub house: Arc<dyn House>,
    /// How the server behaves.
    pub knobs: Arc<Knobs>,
    /// The server's end of both TLS.
    pub tls: TlsServer,
    /// SHA-256 of the certificate, as `AA:BB:..`.
    pub thumbprint: String,
    /// Where it tells what happens.
    pub log: Log,
    /// Bytes of operations that are under way.
    pub memory: Arc<AtomicU64>,
    ending: AtomicBool,
    connections: Mutex<Connections>,
    /// A connection ended, or the server does.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// All of them, to end them.
    lines: HashMap<u64, Line>,
    /// Those that are served; the others wait for their turn.
    served: u32,
    /// What tickets were good for, where they may be used again; by their digests, since they are nobody else's business.
    redeemed: HashMap<Vec<u8>, Grant>,
}

impl NfcServer {
    /// Serves on `listen`, with port 0 on any that is free. The certificate is the one of `tls`, and `sha256_thumbprint`
    /// is that of it.
    pub fn start(
        listen: SocketAddr,
        tls: Arc<ServerConfig>,
        sha256_thumbprint: String,
        house: Arc<dyn House>,
        knobs: Arc<Knobs>,
        log: Log,
    ) -> Result<NfcServer> {
        let listener = Arc::new(Listener::bind(listen)?);
        let shared = Arc::new(Shared {
            house,
            knobs,
            tls: TlsServer::new(tls),
            thumbprint: sha256_thumbprint,
            log,
            memory: Arc::default(),
            ending: AtomicBool::new(false),
            connections: Mutex::default(),
            changed: Condvar::new(),
        });
        let threads = Arc::new(Threads::new(os::with_signals_blocked));
        let (door, theirs, crew) = (Arc::clone(&listener), Arc::clone(&shared), Arc::downgrade(&threads));
        threads.spawn("vix-sim-authd", move || {
            while !theirs.is_ending() {
                match door.accept(Instant::now() + Duration::from_secs(1)) {
                    Ok(Some(socket)) => match crew.upgrade() {
                        Some(crew) => admit(&theirs, &crew, socket),
                        None => return,
                    },
                    Ok(None) => {}
                    Err(e) if e.kind() == ErrorKind::Cancelled => return,
                    Err(_) => theirs.pause(BREATH), // the next one may fare better
                }
            }
        })?;
        Ok(NfcServer { listener, shared, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Ends every connection, as a host does that goes down; the next one is taken again.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// What ends its connections for others.
    pub fn cutter(&self) -> Cutter {
        Cutter(Arc::downgrade(&self.shared))
    }

    /// Connections that are served at this moment.
    pub fn served(&self) -> u32 {
        self.shared.connections.lock().served
    }
}

impl Drop for NfcServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        self.listener.end();
        self.shared.cut();
        self.threads.join_until(Instant::now() + END);
    }
}

impl Shared {
    /// The server ends.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Lets time pass, unless the server ends.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut connections = self.connections.lock();
        while !time.is_zero() && !self.is_ending() && Instant::now() < until {
            self.changed.wait_until(&mut connections, until);
        }
    }

    /// Says nothing more, and waits for the client to leave.
    pub fn hold(&self, line: &Line) {
        let mut intake = Intake::new(Arc::new(line.clone()));
        let until = Instant::now() + self.knobs.now().idle;
        while !self.is_ending() && matches!(intake.take(1, until), Ok(Some(_))) {}
    }

    /// The host goes into maintenance: every connection ends, and none is taken.
    pub fn maintain(&self) {
        self.knobs.change(|settings| settings.maintenance = true);
        self.cut();
    }

    /// What a ticket permits, which was shown on this connection.
    pub fn redeem(&self, ticket: &str, line: &Line) -> Option<Grant> {
        let known_as = digest(&SHA256, ticket.as_bytes()).as_ref().to_vec();
        // Under the lock: who ends the connections of a machine after its tickets finds this one.
        let mut connections = self.connections.lock();
        let grant = self.house.redeem(ticket);
        let grant = match grant {
            _ if !self.knobs.now().reuse_tickets => grant,
            Some(grant) => {
                connections.redeemed.insert(known_as, grant.clone());
                Some(grant)
            }
            None => connections.redeemed.get(&known_as).cloned(),
        };
        if let Some(grant) = &grant {
            line.is_for(&grant.machine);
        }
        grant
    }

    fn cut(&self) {
        self.cut_those(|_| true);
    }

    fn cut_those(&self, which: impl Fn(&Line) -> bool) {
        let connections = self.connections.lock();
        let lines: Vec<Line> = connections.lines.values().filter(|line| which(line)).cloned().collect();
        drop(connections);
        lines.iter().for_each(Line::shutdown);
        self.changed.notify_all();
    }

    /// Waits for the connection's turn. False: it does not come.
    fn queue_up(&self, turn: &mut Turn<'_>) -> bool {
        let mut connections = self.connections.lock();
        loop {
            let settings = self.knobs.now();
            let full = settings.connections.is_some_and(|limit| connections.served >= limit);
            if self.is_ending() || settings.maintenance || full && settings.excess == Excess::Refuse {
                return false;
            }
            if !full {
                connections.served += 1;
                turn.served = true;
                return true;
            }
            // Knobs may be changed too, which nobody tells.
            self.changed.wait_for(&mut connections, Duration::from_millis(100));
        }
    }
}

/// A connection's place in the books; gives it back when the connection's thread ends, also by a panic.
struct Turn<'a> {
    shared: &'a Shared,
    number: u64,
    served: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut connections = self.shared.connections.lock();
        if let Some(line) = connections.lines.remove(&self.number) {
            line.shutdown();
        }
        if self.served {
            connections.served -= 1;
        }
        drop(connections);
        self.shared.changed.notify_all();
    }
}

/// Gives a connection its thread.
fn admit(shared: &Arc<Shared>, threads: &Arc<Threads>, socket: Socket) {
    let line = Line::new(socket, Arc::clone(&shared.knobs));
    let mut connections = shared.connections.lock();
    if connections.lines.len() >= MOST_CONNECTIONS || shared.is_ending() {
        return;
    }
    let number = connections.next;
    connections.next += 1;
    connections.lines.insert(number, line.clone());
    drop(connections);
    let (theirs, crew) = (Arc::clone(shared), Arc::clone(threads));
    let born = threads.spawn("vix-sim-nfc", move || {
        let mut turn = Turn { shared: &theirs, number, served: false };
        if theirs.queue_up(&mut turn) {
            let ended = serve(&theirs, &crew, &line);
            theirs.log.info(|| match ended {
                Ok(()) => format!("vixsim: nfc: {}: ended", line.label()),
                Err(e) => format!("vixsim: nfc: {}: {e}", line.label()),
            });
        }
    });
    if born.is_err() {
        shared.connections.lock().lines.remove(&number);
    }
}

/// One connection from its first byte to its last.
fn serve(shared: &Arc<Shared>, threads: &Arc<Threads>, line: &Line) -> Result<()> {
    shared.log.info(|| format!("vixsim: nfc: {}: connected", line.label()));
    let Some(entered) = door::enter(shared, line)? else { return Ok(()) };
    let mut intake = Intake::new(Arc::clone(&entered.stream));
    let secure = entered.gate.is_some();
    let mut handshake =
        Handshake { intake: &mut intake, stream: &*entered.stream, secure, knobs: &shared.knobs };
    let shaken = handshake.shake();
    if let Err(e) = shaken {
        linger(line); // a reset would take the refusal away
        return Err(e);
    }
    if let Some(gate) = &entered.gate {
        gate.open();
    }
    session::run(shared, threads, entered, intake)
}

/// Waits a little for the client to leave first.
fn linger(line: &Line) {
    let mut intake = Intake::new(Arc::new(line.clone()));
    let until = Instant::now() + FAREWELL;
    while matches!(intake.take(1, until), Ok(Some(_))) {}
}

/// A connection that ends because somebody wants that.
pub fn on_purpose(what: &str) -> Error {
    Error::new(ErrorKind::Cancelled, format!("{what} on purpose"))
}
