//! An export as random-access bytes: what the transports use.
//!
//! ```text
//!   client ▸ pipe::Connection(s) ▸ Stream
//!              └─ protocol ▸ request, receive ▸ reply
//! ```
//!
//! A call of any length is split into pieces that the server accepts, and many of them are in flight. A started transfer
//! goes to the connection with the least to do; further connections are made when the server allows it and one is not
//! enough. Offsets and lengths are bytes of any alignment: what the server's smallest block asks for is added here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nbd::BlockSizes;
use crate::net::nbd::Export;
use crate::net::nbd::Replies;
pub use crate::net::nbd::dial::Dial;
pub use crate::net::nbd::dial::Dialler;
use crate::net::nbd::protocol::Agreed;
use crate::net::nbd::protocol::Nbd;
use crate::net::nbd::protocol::Order;
use crate::net::nbd::request;
use crate::net::nbd::request::Verb;
use crate::net::pipe::Protocol;
use crate::net::pipe::calls::Plan;
use crate::net::pipe::connection;
use crate::net::pipe::connection::Lent;
use crate::net::pipe::connection::Load;
use crate::net::pipe::durability::Durability;
use crate::net::pipe::progress;
use crate::net::pipe::unaligned;
use crate::net::pipe::unaligned::Changing;
use crate::net::pipe::window;
use crate::net::stream::Stream;
use crate::threads::Threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::units::align_down;
use crate::units::align_up;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time to connect, negotiation included.
    pub connect: Duration,
    /// Silence longer than this, while something is due, is a loss of the connection. So is a reply that takes longer from
    /// its first byte to its last.
    pub request: Duration,
    /// Time to make up for a loss; zero: a loss is an error at once.
    pub reconnect: Duration,
    /// Connections; 0 finds.
    pub connections: u32,
    /// Bytes in flight on each connection; 0 finds.
    pub window: u64,
    /// Writes will come.
    pub write: bool,
}

/// Longest data of one request. Over loopback, reads of 1 MiB were faster in two pieces than in four.
const STEP: u64 = 512 << 10;
/// Most connections.
const MOST_CONNECTIONS: u32 = 4;
/// What one connection is given before a second one is made. Many bytes in flight are no reason by themselves: over a long
/// round trip one connection carries more than two that take turns on the processors.
const ENOUGH: u64 = 2 << 20;
/// Longest zeroing or trimming in one request with a 32 bit length.
const LONG_STEP: u64 = 1 << 30;

const HAS_READ_ONLY: u16 = 1 << 1;
const HAS_FLUSH: u16 = 1 << 2;
const HAS_FUA: u16 = 1 << 3;
const HAS_TRIM: u16 = 1 << 5;
const HAS_ZERO: u16 = 1 << 6;
const HAS_MULTI: u16 = 1 << 8;
const HAS_FAST_ZERO: u16 = 1 << 11;

type Connection = connection::Connection<Nbd>;
type Shared = connection::Shared<Nbd>;

/// Numbers connections, so that their threads can be told apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A client of one export. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    connections: Vec<Arc<Connection>>,
    changing: Changing,
    write: bool,
    /// Command flags of whatever changes the export.
    stable: u16,
}

impl Client {
    /// Connects to an export.
    pub fn connect(
        dial: impl Dialler + 'static,
        options: &Options,
        log: Log,
        threads: Arc<Threads>,
    ) -> Result<Arc<Client>> {
        let dialler: Arc<dyn Dialler> = Arc::new(dial);
        let (stream, mut export) = dialler.dial(Instant::now() + options.connect)?;
        if options.write && export.flags & HAS_READ_ONLY != 0 {
            stream.shutdown();
            let message = "the server does not let anybody write";
            return Err(Error::new(ErrorKind::ReadOnly, message).context(dialler.label()));
        }
        export.blocks = sane(export.blocks);
        if options.write && export.flags & (HAS_FLUSH | HAS_FUA) == 0 {
            log.warning(|| {
                format!(
                    "{}: the server keeps no promise about a power cut: it has neither flush nor FUA",
                    dialler.label()
                )
            });
        }
        let shared = Arc::new(Shared {
            protocol: Nbd { dialler, export },
            connect: options.connect,
            patience: progress::Limits::all(options.request),
            reconnect: options.reconnect,
            window: window::Limits::of_bytes(options.window),
            durability: Durability::default(),
            log,
            threads,
        });
        Ok(Arc::new(Self::over(shared, stream, options)))
    }

    fn over(shared: Arc<Shared>, stream: Box<dyn Stream>, options: &Options) -> Client {
        let many = if shared.protocol.export.flags & HAS_MULTI == 0 { 1 } else { MOST_CONNECTIONS };
        let count = if options.connections == 0 { useful_connections() } else { options.connections };
        let mut first = Some((stream, Agreed::of(&shared.protocol.export)));
        let connections = (0..count.clamp(1, many)).map(|_| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            Connection::new(Arc::clone(&shared), number, first.take())
        });
        let connections = connections.collect();
        // Where nothing can be flushed, every write has to be stable by itself.
        let stable = match shared.protocol.export.flags & (HAS_FLUSH | HAS_FUA) {
            HAS_FUA => request::FLAG_FUA,
            _ => 0,
        };
        Client { shared, connections, changing: Changing::default(), write: options.write, stable }
    }

    /// What the server said about the export.
    pub fn export(&self) -> &Export {
        &self.shared.protocol.export
    }

    pub(super) fn label(&self) -> String {
        self.shared.protocol.label()
    }

    /// Fills the whole buffer from `offset`, or fails.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = self.inside(offset, buf.len())?;
        if range.is_empty() {
            return Ok(());
        }
        let wide = self.widened(&range);
        if wide == range {
            return self.read_blocks(buf, range.start).context(|| self.label());
        }
        let mut whole = unaligned::room(&wide)?;
        self.read_blocks(&mut whole, wide.start).context(|| self.label())?;
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
        let wide = self.widened(&range);
        if wide == range {
            return self.write_blocks(buf, range.start).context(|| self.label());
        }
        let _claim = self.changing.claim(wide.clone());
        let mut whole = unaligned::room(&wide)?;
        self.read_blocks(&mut whole, wide.start).context(|| self.label())?;
        unaligned::part(&mut whole, &wide, &range)?.copy_from_slice(buf);
        self.write_blocks(&whole, wide.start).context(|| self.label())
    }

    /// Makes a range read as zeros. `Ok(false)`: the server cannot do that faster than by writing zeros, the range holds
    /// what it held or zeros.
    pub fn zero(&self, range: Range<u64>) -> Result<bool> {
        self.may_write()?;
        let range = self.inside_range(range)?;
        if range.is_empty() {
            return Ok(true);
        }
        if self.export().flags & HAS_ZERO == 0 {
            return Ok(false);
        }
        let fast = if self.export().flags & HAS_FAST_ZERO == 0 { 0 } else { request::FLAG_FAST_ZERO };
        let inner = self.narrowed(&range);
        let plan = plan(Verb::Zero, fast | self.stable, inner.start, inner.end, self.long_step());
        match self.idle().call(plan, Lent::Nothing) {
            Err(e) if e.kind() == ErrorKind::NotSupported => return Ok(false),
            zeroed => zeroed.context(|| self.label())?,
        };
        for edge in [range.start..inner.start, inner.end..range.end] {
            let zeros = unaligned::room(&edge)?;
            self.write(&zeros, edge.start)?;
        }
        Ok(true)
    }

    /// Says that the content of a range is not needed any more: the whole blocks in it may read as anything afterwards.
    /// `Ok(false)`: the server does not want to know, nothing happened.
    pub fn trim(&self, range: Range<u64>) -> Result<bool> {
        self.may_write()?;
        let inner = self.narrowed(&self.inside_range(range)?);
        if inner.is_empty() || self.export().flags & HAS_TRIM == 0 {
            return Ok(false);
        }
        let plan = plan(Verb::Trim, self.stable, inner.start, inner.end, self.long_step());
        match self.idle().call(plan, Lent::Nothing) {
            Err(e) if e.kind() == ErrorKind::NotSupported => Ok(false),
            trimmed => trimmed.context(|| self.label()).map(|_| true),
        }
    }

    /// Returns when every write that was acknowledged before is stable, as far as the server promises that at all. A loss
    /// of the connection after unflushed writes is reported here, once.
    pub fn flush(&self) -> Result<()> {
        let durability = &self.shared.durability;
        let mark = durability.mark();
        if self.export().flags & HAS_FLUSH == 0 {
            // Every write was stable when it was acknowledged, or the server promises nothing.
            return durability.flushed(mark).context(|| self.label());
        }
        let flushed = self.idle().call(plan(Verb::Flush, 0, 0, 0, 1), Lent::Nothing);
        let flushed = match flushed {
            Ok(_) => durability.flushed(mark),
            Err(error) => Err(durability.failed(error)),
        };
        flushed.context(|| self.label())
    }

    /// Starts a transfer: `finish` runs exactly once, on a thread of a connection or, when nothing can be begun, on this
    /// one. `Some`: it does not fit the server's blocks; nothing was begun.
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
        let (verb, flags) = if writes { (Verb::Write, self.stable) } else { (Verb::Read, 0) };
        let plan = plan(verb, flags, range.start, range.end, self.step());
        if let Err((transfer, finish, error)) = self.free().start(plan, transfer, finish) {
            finish(transfer, Err(error.context(self.label())));
        }
        None
    }

    /// Ends every connection; what is in flight fails. Takes two seconds at most, whatever the server does: a thread that
    /// is making a connection at that moment ends by itself.
    pub fn close(&self) {
        let end = Instant::now() + CLOSING;
        self.connections.iter().for_each(|connection| connection.leave(end));
        self.connections.iter().for_each(|connection| connection.close_by(end));
    }

    /// For a synchronous call: a connection that nobody uses, or the one with the least in flight.
    pub(super) fn idle(&self) -> &Arc<Connection> {
        match self.connections.as_slice() {
            [only] => only,
            many => many
                .iter()
                .find(|connection| connection.is_idle())
                .unwrap_or_else(|| self.least(|load| load.flying, 1)),
        }
    }

    /// For a started call: the connection with the least to do.
    fn free(&self) -> &Arc<Connection> {
        match self.connections.as_slice() {
            [only] => only,
            _ => self.least(|load| load.started, ENOUGH),
        }
    }

    /// The connection with the least of something. One more is made if even that has `enough` of it, and more to do than it
    /// can.
    fn least(&self, of: impl Fn(Load) -> u64, enough: u64) -> &Arc<Connection> {
        let up = self.connections.iter().filter_map(|c| c.load().map(|load| (load, c)));
        let Some((load, best)) = up.min_by_key(|(load, _)| of(*load)) else { return self.first() };
        if of(load) >= enough && load.is_saturated {
            let _ = self.connections.iter().skip(1).find(|connection| connection.warm_up());
        }
        best
    }

    #[expect(clippy::expect_used, reason = "there is always one")]
    fn first(&self) -> &Arc<Connection> {
        self.connections.first().expect("a client has at least one connection")
    }

    fn read_blocks(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        self.idle().call(plan(Verb::Read, 0, offset, end, self.step()), Lent::Read(buf)).map(|_| ())
    }

    fn write_blocks(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        self.idle()
            .call(plan(Verb::Write, self.stable, offset, end, self.step()), Lent::Write(buf))
            .map(|_| ())
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

    pub(super) fn inside_range(&self, range: Range<u64>) -> Result<Range<u64>> {
        if range.start <= range.end && range.end <= self.export().size {
            return Ok(range);
        }
        let size = self.export().size;
        let message = format!("bytes {range:?} of {}, which has {size}", self.label());
        Err(Error::new(ErrorKind::EndOfFile, message))
    }

    /// Whole blocks around a range.
    pub(super) fn widened(&self, range: &Range<u64>) -> Range<u64> {
        unaligned::widened(range, u64::from(self.export().blocks.minimum), self.export().size)
    }

    /// Whole blocks inside a range.
    fn narrowed(&self, range: &Range<u64>) -> Range<u64> {
        let block = u64::from(self.export().blocks.minimum);
        let start = align_up(range.start, block).unwrap_or(u64::MAX).min(range.end);
        let end = if range.end == self.export().size { range.end } else { align_down(range.end, block) };
        start..end.max(start)
    }

    fn step(&self) -> u64 {
        let BlockSizes { minimum, maximum, .. } = self.export().blocks;
        align_down(STEP.min(u64::from(maximum)), u64::from(minimum)).max(u64::from(minimum))
    }

    fn long_step(&self) -> u64 {
        if self.export().replies == Replies::Extended { u64::MAX } else { LONG_STEP }
    }
}

/// How long closing may take.
const CLOSING: Duration = Duration::from_millis(1800);
impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a server says may be nonsense; the negotiation refuses the worst of it.
fn sane(blocks: BlockSizes) -> BlockSizes {
    let minimum = blocks.minimum.clamp(1, 64 << 10);
    let minimum = if minimum.is_power_of_two() { minimum } else { minimum.next_power_of_two() };
    BlockSizes { minimum, preferred: blocks.preferred, maximum: blocks.maximum.max(minimum) }
}

/// How many connections are worth having: one per processor, for what a server and a client do per byte.
fn useful_connections() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    u32::try_from(processors).unwrap_or(MOST_CONNECTIONS).min(MOST_CONNECTIONS)
}

/// A plan for a whole range.
pub(super) fn plan(verb: Verb, flags: u16, start: u64, end: u64, step: u64) -> Plan<Order> {
    Plan::new(Order { verb, flags }, start, end, step)
}

#[cfg(test)]
#[allow(missing_docs, clippy::cast_possible_truncation)]
mod peer;
#[cfg(test)]
mod tests;
