//! A TCP proxy inside the test: it delays, cuts, stalls, damages and refuses.
//!
//! ```text
//!   client ──▶ reader ──(when it may leave, bytes)──▶ writer ──▶ server      and the same the other way round
//! ```
//!
//! A reader takes what comes at once and a writer lets it go when its time has come, so a delay is latency and nothing
//! else: it costs no throughput.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::net::socket::Address;

use super::servers;

/// What happens to the bytes of one direction. Positions count the bytes of that direction of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane {
    /// Each byte leaves so much later.
    pub latency: Duration,
    /// The connection breaks after so many bytes, both ways.
    pub cut: Option<u64>,
    /// Nothing leaves after so many bytes, and nothing breaks.
    pub stall: Option<u64>,
    /// All bits of the byte at this position are inverted.
    pub flip: Option<u64>,
}

impl Lane {
    /// Breaks after so many bytes.
    pub fn cut_after(bytes: u64) -> Self {
        Self { cut: Some(bytes), ..Self::default() }
    }

    /// Falls silent after so many bytes.
    pub fn stall_after(bytes: u64) -> Self {
        Self { stall: Some(bytes), ..Self::default() }
    }

    /// Delays each byte.
    pub fn late_by(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// It is closed as soon as it is made.
    pub refused: bool,
    /// From the client to the server.
    pub up: Lane,
    /// From the server to the client.
    pub down: Lane,
}

impl Fate {
    /// Half of the round trip each way.
    pub fn round_trip(time: Duration) -> Self {
        Self { up: Lane::late_by(time / 2), down: Lane::late_by(time / 2), ..Self::default() }
    }

    /// Closed at once.
    pub const REFUSED: Fate = Fate { refused: true, up: Lane::NOTHING, down: Lane::NOTHING };
}

impl Lane {
    const NOTHING: Lane = Lane { latency: Duration::ZERO, cut: None, stall: None, flip: None };
}

/// The fate of the n-th connection, counted from 0.
type Oracle = Box<dyn Fn(usize) -> Fate + Send + Sync>;

/// A running proxy. On drop its connections break and its threads end.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: Address,
    fate: Oracle,
    seen: AtomicUsize,
    ending: AtomicBool,
    /// Both ends of each connection, and the threads that serve it.
    pairs: Mutex<Vec<Pair>>,
    /// Wakes what waits for its time; the flag says that the end has come.
    end: (Mutex<bool>, Condvar),
}

struct Pair {
    ends: [End; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a port of its own for a server at `upstream`.
    pub fn new(upstream: Address, fate: impl Fn(usize) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            upstream,
            fate: Box::new(fate),
            seen: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            pairs: Mutex::default(),
            end: Default::default(),
        });
        let for_thread = shared.clone();
        let thread = std::thread::spawn(move || accept(&listener, &for_thread));
        Self { port, shared, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Tcp { host: "127.0.0.1".to_owned(), port: self.port }
    }

    /// The URI of an export behind it.
    pub fn uri(&self, tls: bool, export: &str) -> String {
        servers::uri(&self.address(), tls, export)
    }

    /// How many connections were made so far, refused ones included.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// Breaks every connection there is; further ones are accepted.
    pub fn cut_all(&self) {
        for pair in self.shared.pairs.lock().expect("the pairs").iter() {
            pair.ends.iter().for_each(End::shutdown);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        *self.shared.end.0.lock().expect("the end") = true;
        self.shared.end.1.notify_all();
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the one that accepts
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.cut_all();
        let pairs = std::mem::take(&mut *self.shared.pairs.lock().expect("the pairs"));
        for thread in pairs.into_iter().flat_map(|pair| pair.threads) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        let fate = (shared.fate)(shared.seen.fetch_add(1, Ordering::SeqCst));
        let server = if fate.refused { None } else { End::connect(&shared.upstream) };
        let Some(server) = server else { continue };
        let _ = client.set_nodelay(true);
        let client = End::Tcp(client);
        let mut threads = Vec::new();
        threads.extend(carry(&client, &server, fate.up, shared));
        threads.extend(carry(&server, &client, fate.down, shared));
        shared.pairs.lock().expect("the pairs").push(Pair { ends: [client, server], threads });
    }
}

/// Bytes and when they may leave.
type Parcel = (Instant, Vec<u8>);

fn carry(from: &End, to: &End, lane: Lane, shared: &Arc<Shared>) -> [JoinHandle<()>; 2] {
    let (give, take) = mpsc::channel::<Parcel>();
    let mut source = from.again();
    let reader = std::thread::spawn(move || {
        let mut room = vec![0; 256 << 10];
        loop {
            let bytes = match source.read(&mut room) {
                Ok(count @ 1..) => room[..count].to_vec(),
                _ => return,
            };
            if give.send((Instant::now() + lane.latency, bytes)).is_err() {
                return;
            }
        }
    });
    let (back, mut target, shared) = (from.again(), to.again(), shared.clone());
    let writer = std::thread::spawn(move || {
        let mut passed = 0;
        while let Ok((when, mut bytes)) = take.recv() {
            if !shared.sleep_until(when) {
                return;
            }
            let go_on = lane.touch(&mut bytes, &mut passed);
            if target.write_all(&bytes).is_err() {
                break;
            }
            match go_on {
                Go::On => {}
                Go::Silent => {
                    // Whatever comes is taken, so that the sender notices nothing, and is never passed on.
                    while take.recv().is_ok() {}
                    return;
                }
                Go::Break => break,
            }
        }
        // The other direction goes on after an ordinary end, but not after a cut.
        if passed == lane.cut.unwrap_or(u64::MAX) {
            back.shutdown();
            target.shutdown();
        } else {
            target.close_sending();
        }
    });
    [reader, writer]
}

enum Go {
    On,
    Silent,
    Break,
}

impl Lane {
    /// Applies the lane to the bytes from position `passed` on.
    fn touch(&self, bytes: &mut Vec<u8>, passed: &mut u64) -> Go {
        let start = *passed;
        let inside =
            |at: Option<u64>| at.and_then(|at| at.checked_sub(start)).and_then(|n| usize::try_from(n).ok());
        if let Some(byte) = inside(self.flip).and_then(|at| bytes.get_mut(at)) {
            *byte = !*byte;
        }
        let (cut, stall) = (inside(self.cut), inside(self.stall));
        let go = match (cut, stall) {
            (Some(cut), stall) if cut <= bytes.len() && stall.is_none_or(|stall| cut <= stall) => {
                bytes.truncate(cut);
                Go::Break
            }
            (_, Some(stall)) if stall <= bytes.len() => {
                bytes.truncate(stall);
                Go::Silent
            }
            _ => Go::On,
        };
        *passed += bytes.len() as u64;
        go
    }
}

impl Shared {
    /// False when the proxy ends first.
    fn sleep_until(&self, when: Instant) -> bool {
        let mut ended = self.end.0.lock().expect("the end");
        while !*ended {
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            ended = self.end.1.wait_timeout(ended, left).expect("the end").0;
        }
        false
    }
}

/// One side of a connection.
enum End {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl End {
    fn connect(address: &Address) -> Option<Self> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).ok()?;
                let _ = stream.set_nodelay(true);
                Some(End::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).ok().map(End::Unix),
        }
    }

    fn again(&self) -> Self {
        match self {
            End::Tcp(stream) => End::Tcp(stream.try_clone().expect("another descriptor")),
            End::Unix(stream) => End::Unix(stream.try_clone().expect("another descriptor")),
        }
    }

    fn shutdown(&self) {
        let _ = match self {
            End::Tcp(stream) => stream.shutdown(Shutdown::Both),
            End::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn close_sending(&self) {
        let _ = match self {
            End::Tcp(stream) => stream.shutdown(Shutdown::Write),
            End::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl Read for End {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            End::Tcp(stream) => stream.read(buf),
            End::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for End {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            End::Tcp(stream) => stream.write(buf),
            End::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
