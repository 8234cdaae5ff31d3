//! A disk of an ESXi host as random-access bytes: what the transports use.
//!
//! ```text
//!   client ▸ pipe::Connection ▸ Stream
//!     │        └─ protocol ▸ receive           requests to frames, frames to bytes of a disk
//!     ├─ route ▸ door ▸ session                ticket, authd and its TLS, handshake, the open file
//!     └─ map     which parts are allocated     written: what this client wrote, which hosts may not tell yet
//! ```
//!
//! A host serves one disk on a connection. Calls of any length are cut into operations, many of which are in flight. A
//! connection that is lost is made again with another ticket, which may name another host, and what was in flight is sent
//! again. Offsets and lengths are bytes of any alignment: what the disk's sectors ask for is added here.

mod door;
mod map;
mod protocol;
mod receive;
mod route;
mod session;
mod written;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nfc::Compression;
use crate::net::nfc::client::door::Authd;
pub use crate::net::nfc::client::door::Door;
pub use crate::net::nfc::client::door::Failure;
pub use crate::net::nfc::client::door::Passed;
use crate::net::nfc::client::protocol::Extra;
use crate::net::nfc::client::protocol::Nfc;
use crate::net::nfc::client::protocol::Order;
use crate::net::nfc::client::route::Route;
use crate::net::nfc::client::written::Written;
use crate::net::nfc::ticket::Ticket;
use crate::net::pipe::calls::Plan;
use crate::net::pipe::connection;
use crate::net::pipe::connection::Lent;
use crate::net::pipe::durability::Durability;
use crate::net::pipe::progress;
use crate::net::pipe::unaligned;
use crate::net::pipe::unaligned::Changing;
use crate::net::pipe::window;
use crate::net::tls::TlsSettings;
use crate::threads::Threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// Gives the permission to connect: once for each connection that is made, also after a loss.
pub trait Tickets: Debug + Send + Sync {
    /// A ticket that was not used, before this time.
    fn ticket(&self, until: Instant) -> Result<Ticket>;
}

/// The size and number of the host's transfer buffers; 0 is what hosts are used to, 64 KiB and 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes of one; the most data of one frame.
    pub bytes: u32,
    /// How many.
    pub count: u32,
}

/// A disk of a host.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where tickets come from.
    pub tickets: Arc<dyn Tickets>,
    /// The host to connect to where the ticket names none.
    pub login_host: String,
    /// The port to connect to instead of the ticket's.
    pub nfc_port: Option<u16>,
    /// `[datastore] folder/disk.vmdk`
    pub path: String,
    /// The disk is to be written; the tickets have to permit that.
    pub write: bool,
    /// The data go through a TLS of their own.
    pub ssl: bool,
    /// How data are packed.
    pub compression: Compression,
    /// The host's buffers. More than 16 MiB of them are refused.
    pub buffers: Buffers,
    /// Files and trust. What a ticket says about the host's certificate comes before all of that.
    pub tls: TlsSettings,
    /// The certificate of the data's own TLS need not be one that is known by then.
    pub any_second_certificate: bool,
    /// What the host is told about who this is; [`crate::net::nfc::classic::CLIENT`] is known by all.
    pub client_name: String,
}

/// What is wanted of a host whose door is open.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// See [`Dial::path`].
    pub path: String,
    /// See [`Dial::write`].
    pub write: bool,
    /// See [`Dial::compression`].
    pub compression: Compression,
    /// See [`Dial::buffers`].
    pub buffers: Buffers,
    /// See [`Dial::client_name`].
    pub client_name: String,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time to connect, the ticket and the opening of the disk included.
    pub connect: Duration,
    /// Silence longer than this is a loss of the connection, while only reads are in flight.
    pub read: Duration,
    /// The same while a write is in flight.
    pub write: Duration,
    /// The same while anything else is.
    pub request: Duration,
    /// Time to make up for a loss; zero: a loss is an error at once.
    pub reconnect: Duration,
    /// A host that is short of memory is asked again, for less, for so long.
    pub memory: Duration,
    /// Bytes in flight; 0 finds, or is what the buffers hold where they were configured.
    pub window: u64,
    /// Operations in flight; 0 is 16, or the number of the buffers where that was configured.
    pub requests: u32,
    /// Longest operation in bytes; 0 is 1 MiB, or the size of a buffer where that was configured and is smaller.
    pub piece: u32,
    /// Bytes of a chunk when asking what is allocated; 0 is 64 KiB.
    pub chunk: u32,
}

/// What hosts do by themselves, and vendor's suggestions for the rest.
impl Default for Options {
    fn default() -> Options {
        Options {
            connect: Duration::from_secs(180),
            read: Duration::from_secs(60),
            write: Duration::from_secs(600),
            request: Duration::from_secs(180),
            reconnect: Duration::from_secs(60),
            memory: Duration::from_secs(30),
            window: 0,
            requests: 0,
            piece: 0,
            chunk: 0,
        }
    }
}

/// What was found when the disk was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the disk.
    pub capacity: u64,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Cylinders, heads and sectors.
    pub geometry: (u32, u32, u32),
    /// Well-known keys of the disk's data base that exist, without the prefix `ddb.`, and their values.
    pub keys: Vec<(String, String)>,
    /// The host that was connected to.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The service of the host, `vpxa-nfcssl` for one.
    pub service: String,
    /// The version of the protocol that is spoken.
    pub version: u32,
    /// `vpxa-nfcssl://[ds] folder/disk.vmdk@host:902`, with the packing in front.
    pub url: String,
}

/// Longest operation, unless told otherwise.
const PIECE: u32 = 1 << 20;
/// Operations in flight, unless told otherwise.
const REQUESTS: u32 = 16;
/// Where finding a window begins.
const FIRST_WINDOW: u64 = 4 << 20;
/// Longest operation that is asked for at all.
const LONGEST_PIECE: u32 = 32 << 20;
/// The memory that buffers may take at a host.
const MOST_BUFFERS: u64 = 16 << 20;
/// How long closing may take.
const CLOSING: Duration = Duration::from_millis(1800);

type Connection = connection::Connection<Nfc>;
type Shared = connection::Shared<Nfc>;

/// Numbers connections, so that their threads can be told apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A client of one disk. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    opened: Opened,
    /// Somebody changes a part of a sector.
    changing: Changing,
    written: Written,
    write: bool,
    step: u64,
    chunk: u64,
    /// The host did not refuse to say what is allocated.
    tells: AtomicBool,
}

impl Client {
    /// Connects to a host and opens a disk.
    ///
    /// The kinds of errors: those of [`Tickets`] and of sockets and TLS; `NotSupported` where the host cannot do what is
    /// asked for, so that another way may; `HostFull` where it takes no connection for the time being; `TicketRefused` where it
    /// takes none of two tickets; `Protocol` where it breaks the protocol; what it says about the disk (`Locked`, `NotFound`,
    /// `ReadOnly`, `AccessDenied`, `OutOfMemory`, `Io`). A connection that is lost on the way is made once more.
    pub fn connect(dial: Dial, options: &Options, log: Log, threads: Arc<Threads>) -> Result<Arc<Client>> {
        let wanted = Wanted {
            path: dial.path.clone(),
            write: dial.write,
            compression: dial.compression,
            buffers: dial.buffers,
            client_name: dial.client_name.clone(),
        };
        let door = Arc::new(Authd::new(dial, log.clone()));
        Self::behind(door, wanted, options, log, threads)
    }

    /// The same for a host that is reached another way.
    pub fn behind(
        door: Arc<dyn Door>,
        wanted: Wanted,
        options: &Options,
        log: Log,
        threads: Arc<Threads>,
    ) -> Result<Arc<Client>> {
        let buffers = checked(wanted.buffers)?;
        let chunk = if options.chunk == 0 { map::CHUNK } else { u64::from(options.chunk) };
        if !chunk.is_multiple_of(512) {
            let what = format!("chunks of {chunk} bytes, which are no whole sectors");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let write = wanted.write;
        let route = Route::new(door, wanted, log.clone());
        let (stream, agreed, opened) = route.first(Instant::now() + options.connect)?;
        let step = step(options, buffers, opened.sector_size);
        let shared = Arc::new(Shared {
            protocol: Nfc::new(route, &opened, chunk, log.clone()),
            connect: options.connect,
            patience: progress::Limits { read: options.read, write: options.write, other: options.request },
            reconnect: options.reconnect,
            window: limits(options, buffers),
            durability: Durability::default(),
            log,
            threads,
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let agreed = shared.protocol.agreed(agreed);
        let connection = Connection::new(Arc::clone(&shared), number, Some((stream, agreed)));
        Ok(Arc::new(Client {
            shared,
            connection,
            opened,
            changing: Changing::default(),
            written: Written::default(),
            write,
            step,
            chunk,
            tells: AtomicBool::new(true),
        }))
    }

    /// What was found when the disk was opened.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Fills the whole buffer from `offset`, or fails.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = self.inside(offset, buf.len())?;
        if range.is_empty() {
            return Ok(());
        }
        let wide = self.widened(&range);
        if wide == range {
            return self.read_sectors(buf, range.start).context(|| self.label());
        }
        let mut whole = unaligned::room(&wide)?;
        self.read_sectors(&mut whole, wide.start).context(|| self.label())?;
        buf.copy_from_slice(unaligned::part(&mut whole, &wide, &range)?);
        Ok(())
    }

    /// Writes the whole buffer at `offset`, or fails. A failure may have written a part.
    pub fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.may_write()?;
        let range = self.inside(offset, buf.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.written.mark(&range);
        let wide = self.widened(&range);
        if wide == range {
            return self.write_sectors(buf, range.start).context(|| self.label());
        }
        let _claim = self.changing.claim(wide.clone());
        let mut whole = unaligned::room(&wide)?;
        self.read_sectors(&mut whole, wide.start).context(|| self.label())?;
        unaligned::part(&mut whole, &wide, &range)?.copy_from_slice(buf);
        self.write_sectors(&whole, wide.start).context(|| self.label())
    }

    /// Returns when every write that was begun before is acknowledged or has failed. There is no message that asks for
    /// more.
    pub fn flush(&self) -> Result<()> {
        self.connection.settle_writes();
        Ok(())
    }

    /// Starts a transfer: `finish` runs exactly once, on a thread of the connection or, when nothing can be begun, on this
    /// one. `Some`: it does not fit the disk's sectors; nothing was begun.
    pub fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        let writes = matches!(transfer, Transfer::Write(_));
        let range = match self.inside(offset, transfer.len()) {
            Ok(range) if range.is_empty() => {
                finish(transfer, Ok(()));
                return None;
            }
            Ok(range) if self.widened(&range) != range => return Some((transfer, finish)),
            Ok(_) if writes && !self.write => {
                finish(transfer, self.may_write());
                return None;
            }
            Ok(range) => range,
            Err(error) => {
                finish(transfer, Err(error));
                return None;
            }
        };
        if writes {
            self.written.mark(&range);
        }
        let order = if writes { Order::Write } else { Order::Read };
        let plan = Plan::new(order, range.start, range.end, self.step);
        if let Err((transfer, finish, error)) = self.connection.start(plan, transfer, finish) {
            finish(transfer, Err(error.context(self.label())));
        }
        None
    }

    /// The value of a key of the disk's data base, given without the prefix `ddb.`; asked for each time.
    pub fn key(&self, key: &str) -> Result<Option<String>> {
        let extra = Extra::key(key)?;
        let plan = Plan::new(Order::Key, 0, 1, 1);
        let call = self.connection.call_with(plan, Lent::Nothing, extra);
        call.context(|| format!("{}: value of {key:?}", self.label())).map(|call| call.extra.value)
    }

    /// Ends the connection; what is in flight fails. Takes two seconds at most, whatever the host does: a thread that is
    /// making a connection at that moment ends by itself.
    pub fn close(&self) {
        let end = Instant::now() + CLOSING;
        self.connection.leave(end);
        self.connection.close_by(end);
    }

    fn label(&self) -> String {
        self.shared.protocol.route.label()
    }

    fn read_sectors(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        let plan = Plan::new(Order::Read, offset, end, self.step);
        self.connection.call(plan, Lent::Read(buf)).map(|_| ())
    }

    fn write_sectors(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        let plan = Plan::new(Order::Write, offset, end, self.step);
        self.connection.call(plan, Lent::Write(buf)).map(|_| ())
    }

    fn may_write(&self) -> Result<()> {
        if self.write {
            return Ok(());
        }
        Err(Error::new(ErrorKind::ReadOnly, format!("{} was opened for reading", self.label())))
    }

    fn inside(&self, offset: u64, len: usize) -> Result<Range<u64>> {
        let end = offset.saturating_add(len as u64);
        self.inside_range(offset..end)
    }

    fn inside_range(&self, range: Range<u64>) -> Result<Range<u64>> {
        let size = self.opened.capacity;
        if range.start <= range.end && range.end <= size {
            return Ok(range);
        }
        let message = format!("bytes {range:?} of {}, which has {size}", self.label());
        Err(Error::new(ErrorKind::OutOfRange, message))
    }

    /// Whole sectors around a range.
    fn widened(&self, range: &Range<u64>) -> Range<u64> {
        unaligned::widened(range, u64::from(self.opened.sector_size), self.opened.capacity)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// Buffers that may be asked for.
fn checked(buffers: Buffers) -> Result<Buffers> {
    let whole = route::or_usual(buffers);
    let total = u64::from(whole.bytes) * u64::from(whole.count);
    if total <= MOST_BUFFERS && whole.bytes.is_multiple_of(512) {
        return Ok(buffers);
    }
    let what = format!(
        "{} buffers of {} bytes: they must be whole sectors and at most {MOST_BUFFERS} bytes together",
        whole.count, whole.bytes
    );
    Err(Error::new(ErrorKind::InvalidArgument, what))
}

/// The longest operation.
fn step(options: &Options, buffers: Buffers, sector: u32) -> u64 {
    let usual = if buffers.bytes == 0 { PIECE } else { PIECE.min(buffers.bytes) };
    let wanted = if options.piece == 0 { usual } else { options.piece.min(LONGEST_PIECE) };
    u64::from((wanted - wanted % sector).max(sector))
}

/// What may be in flight.
fn limits(options: &Options, buffers: Buffers) -> window::Limits {
    let configured = buffers != Buffers::default();
    let whole = route::or_usual(buffers);
    let bytes = match options.window {
        0 if configured => u64::from(whole.bytes) * u64::from(whole.count),
        window => window,
    };
    let requests = match options.requests {
        0 if buffers.count != 0 => buffers.count,
        0 => REQUESTS,
        requests => requests,
    };
    window::Limits { bytes, least: FIRST_WINDOW, requests, put_off: options.memory }
}
