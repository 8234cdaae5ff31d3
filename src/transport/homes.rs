//! A disk that is reached by another way when the one in use is lost for good.
//!
//! ```text
//!   read, write, … ─▶ Homes ─▶ the client of the way in use, which makes up for short losses by itself
//!                       │ lost for good
//!                       └─▶ the next way of the caller's list ─▶ what was under way is done again
//! ```
//!
//! Every way leads to the same disk, so that a request may be done twice: reads change nothing, and a write that is repeated
//! as a whole leaves what it would have left. Ways are never gone back: there is an end to it.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::logging::Log;
use crate::net::nfc::identity::Identity;
use crate::os;
use crate::threads::Threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::blocks::Blocks;
use crate::transport::blocks::Reads;
use crate::transport::choice;
use crate::transport::choice::Way;

/// Where the bytes of a disk come from.
#[derive(Clone, Debug)]
pub struct Home {
    /// The bytes.
    pub blocks: Arc<dyn Blocks>,
    /// The connection to who holds them.
    pub line: Arc<dyn Line>,
    /// What tells the disk from others by the same name, as far as its holder says.
    pub identity: Identity,
}

/// A way to a disk that can be taken later.
pub trait Route: Way<Opened = Home> + Debug + Send + Sync {}

impl<W: Way<Opened = Home> + Debug + Send + Sync> Route for W {}

/// A disk with the ways that lead to it. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Homes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In the caller's order.
    ways: Vec<Arc<dyn Route>>,
    /// Bytes of the disk: another disk by the same name is not it.
    size: u64,
    /// What else tells it from others.
    identity: Identity,
    /// The disk, for messages.
    target: String,
    log: Log,
    /// How long who needs the disk waits while another way is tried.
    patience: Duration,
    threads: Threads,
    /// Never held while anything is read, written or opened.
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Which way is in use.
    at: usize,
    /// Transfers that wait for the next home.
    waiting: Vec<Pending>,
}

#[derive(Debug)]
enum Phase {
    At(Home),
    /// The next ways are being tried.
    Moving,
    /// No way is left.
    Nowhere(ErrorKind, String),
    /// Nobody wants the disk any more.
    Cut,
}

struct Pending {
    transfer: Transfer,
    offset: u64,
    finish: Finish,
}

impl Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// How long the thread of a move is waited for at the end. One that is connecting at that moment ends by itself.
const LAST_STEPS: Duration = Duration::from_millis(100);

/// How long a disk that is locked is asked for again by the next way, and how often.
const HELD: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_millis(50);

/// Faults after which another way may still lead to the disk: the connection is gone and could not be made again, for want
/// of a host, of its answer or of its permission, or because the peer breaks its protocol. What a host says of the disk is
/// none of them, nor is a peer that cannot be trusted.
fn is_lost(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionLost
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostFull
            | ErrorKind::ServerNotFound
            | ErrorKind::TimedOut
            | ErrorKind::HostUnavailable
            | ErrorKind::TicketRefused
            | ErrorKind::Unauthorised
            | ErrorKind::SessionInvalid
            | ErrorKind::Busy
            | ErrorKind::Protocol
    )
}

impl Homes {
    /// A disk that was reached by the way `at` of these.
    pub fn new(
        ways: Vec<Arc<dyn Route>>,
        at: usize,
        home: Home,
        target: String,
        patience: Duration,
        log: Log,
    ) -> Homes {
        let (size, identity) = (home.blocks.size(), home.identity.clone());
        let state = State { phase: Phase::At(home), at, waiting: Vec::new() };
        Homes(Arc::new(Shared {
            ways,
            size,
            identity,
            target,
            log,
            patience,
            threads: Threads::new(os::with_signals_blocked),
            state: Mutex::new(state),
            settled: Condvar::new(),
        }))
    }

    /// The value of a key of the disk's database.
    pub fn key(&self, key: &str) -> Result<Option<String>> {
        self.call(&mut |blocks| blocks.key(key))
    }

    /// Does something, once more with each home that is found when the one before is lost.
    fn call<T>(&self, op: &mut dyn FnMut(&dyn Blocks) -> Result<T>) -> Result<T> {
        loop {
            let (at, blocks) = self.0.home()?;
            match op(&*blocks) {
                Err(e) if self.0.is_left(at, &e) => self.move_from(at, e)?,
                result => return result,
            }
        }
    }

    /// Looks for another home, unless somebody has done or is doing that. `Err`: there is none to look for.
    fn move_from(&self, at: usize, error: Error) -> Result<()> {
        let begun = self.0.begin_move(&mut self.0.state.lock(), at);
        match begun {
            Begun::No => return Err(error),
            Begun::Already => {}
            Begun::By(old) => {
                self.0.finish_move(old, at, &error);
                self.release();
            }
        }
        Ok(())
    }
}

impl Shared {
    /// The home in use and the number of its way; waits while another one is looked for.
    fn home(&self) -> Result<(usize, Arc<dyn Blocks>)> {
        let until = Instant::now() + self.patience;
        let mut state = self.state.lock();
        loop {
            match &state.phase {
                Phase::At(home) => return Ok((state.at, Arc::clone(&home.blocks))),
                Phase::Moving if Instant::now() < until => {
                    self.settled.wait_until(&mut state, until);
                }
                _ => return Err(self.homeless(&state)),
            }
        }
    }

    /// Why there is no home.
    fn homeless(&self, state: &State) -> Error {
        match &state.phase {
            Phase::Nowhere(kind, text) => Error::new(*kind, text.clone()),
            Phase::Cut => self.closing(),
            _ => {
                Error::new(ErrorKind::TimedOut, format!("no other way to {} was found in time", self.target))
            }
        }
    }

    fn closing(&self) -> Error {
        Error::new(ErrorKind::Cancelled, format!("{} is being closed", self.target))
    }

    /// True when an error is that of a home that is lost, or that was left meanwhile: its calls end in many ways.
    fn is_left(&self, at: usize, error: &Error) -> bool {
        let moved = || {
            let state = self.state.lock();
            state.at != at || matches!(state.phase, Phase::Moving)
        };
        is_lost(error.kind()) || moved()
    }

    /// The caller finishes what has begun.
    fn begin_move(&self, state: &mut State, at: usize) -> Begun {
        if state.at != at || matches!(state.phase, Phase::Moving) {
            return Begun::Already;
        }
        if at + 1 >= self.ways.len() {
            return Begun::No;
        }
        match std::mem::replace(&mut state.phase, Phase::Moving) {
            Phase::At(home) => Begun::By(home),
            over => {
                state.phase = over;
                Begun::No
            }
        }
    }

    fn finish_move(&self, old: Home, at: usize, error: &Error) {
        let mut settle = Settle { shared: self, at, phase: None };
        self.log.warning(|| format!("{} is lost by {}: {error}", self.target, old.line.mode().name()));
        old.line.cut(); // a host may have locked the disk for it
        drop(old);
        settle.phase = Some(match self.next_home(at, error.kind(), &mut settle.at) {
            Ok(home) => {
                self.log.warning(|| format!("{} goes on by {}", self.target, home.line.mode().name()));
                Phase::At(home)
            }
            Err(last) => {
                Phase::Nowhere(error.kind(), format!("{error}; and no other transport helps: {last}"))
            }
        });
    }

    /// Opens by the first of the ways behind `at` that leads to the same disk.
    fn next_home(&self, at: usize, loss: ErrorKind, taken: &mut usize) -> Result<Home> {
        let mut last = Error::new(ErrorKind::NotSupported, "none is left");
        for (i, way) in self.ways.iter().enumerate().skip(at + 1) {
            if self.has_better(at, loss, i) {
                self.log.info(|| format!("{} by {} would be lost alike", self.target, way.mode().name()));
                continue;
            }
            *taken = i;
            last = match self.open_by(&**way) {
                Ok(home) => match self.difference(&home) {
                    None => return Ok(home),
                    Some(other) => {
                        home.line.cut();
                        other
                    }
                },
                Err(e) => e,
            };
            self.log.info(|| format!("{} is not reached by {}: {last}", self.target, way.mode().name()));
            last = last.context(way.mode().name());
        }
        Err(last)
    }
}

impl Shared {
    /// True when the way `i` is to the host that the way `at` was lost with, which would be waited for once more, and a later
    /// one is not.
    fn has_better(&self, at: usize, loss: ErrorKind, i: usize) -> bool {
        let Some(tried) = self.ways.get(at).map(|way| way.mode()) else { return false };
        let mut need_not_fail =
            self.ways.iter().skip(i).map(|way| choice::need_not_fail(loss, tried, way.mode()));
        need_not_fail.next() == Some(false) && need_not_fail.any(|may| may)
    }

    /// Why this is not the disk that was opened, if it is not.
    fn difference(&self, home: &Home) -> Option<Error> {
        let size = home.blocks.size();
        if size != self.size {
            let text = format!("its disk has {size} bytes instead of {}", self.size);
            return Some(Error::new(ErrorKind::CapacityMismatch, text));
        }
        let text = self.identity.difference(&home.identity)?;
        Some(Error::new(ErrorKind::DiskReplaced, format!("it has not the disk that was opened: {text}")))
    }

    /// Opens by this way. A host may still hold the disk for the connection that was lost, of whose end it hears later.
    fn open_by(&self, way: &dyn Route) -> Result<Home> {
        let until = Instant::now() + HELD;
        loop {
            match way.open() {
                Err(e) if e.kind() == ErrorKind::Locked && Instant::now() < until => {
                    let mut state = self.state.lock();
                    if !matches!(state.phase, Phase::Moving) {
                        return Err(e);
                    }
                    self.settled.wait_for(&mut state, BREATH);
                }
                result => return result,
            }
        }
    }
}

/// What became of the wish to move.
enum Begun {
    /// No way is left.
    No,
    /// Somebody was first.
    Already,
    /// This home was left.
    By(Home),
}

/// Ends a move whatever happens, so that nobody waits for ever.
struct Settle<'a> {
    shared: &'a Shared,
    at: usize,
    phase: Option<Phase>,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        let defect =
            || Phase::Nowhere(ErrorKind::Internal, "a defect: looking for another way failed".into());
        let phase = self.phase.take().unwrap_or_else(defect);
        let mut state = self.shared.state.lock();
        let unwanted = match state.phase {
            Phase::Cut => Some(phase),
            _ => {
                state.at = self.at;
                state.phase = phase;
                None
            }
        };
        drop(state);
        self.shared.settled.notify_all();
        if let Some(Phase::At(home)) = unwanted {
            home.line.cut();
        }
    }
}

/// Transfers that go on by themselves.
impl Homes {
    fn begin(&self, pending: Pending) -> Option<(Transfer, Finish)> {
        let mut state = self.0.state.lock();
        let (at, blocks) = match &state.phase {
            Phase::At(home) => (state.at, Arc::clone(&home.blocks)),
            Phase::Moving => {
                state.waiting.push(pending);
                return None;
            }
            _ => {
                let error = self.0.homeless(&state);
                drop(state);
                (pending.finish)(pending.transfer, Err(error));
                return None;
            }
        };
        drop(state);
        let Pending { transfer, offset, finish } = pending;
        if at + 1 >= self.0.ways.len() {
            return blocks.start(transfer, offset, finish);
        }
        let slot = Arc::new(Mutex::new(Some(finish)));
        let (homes, theirs) = (self.clone(), Arc::clone(&slot));
        let wrapped: Finish = Box::new(move |transfer, result| {
            let Some(finish) = theirs.lock().take() else { return };
            match result {
                Err(e) if homes.0.is_left(at, &e) => homes.again(at, Pending { transfer, offset, finish }, e),
                result => finish(transfer, result),
            }
        });
        let (transfer, wrapped) = blocks.start(transfer, offset, wrapped)?;
        drop(wrapped);
        let finish = slot.lock().take();
        finish.map(|finish| (transfer, finish))
    }

    /// A transfer was lost with its home. This thread may be one of that home's: it looks for no other.
    fn again(&self, at: usize, pending: Pending, error: Error) {
        let mut state = self.0.state.lock();
        match self.0.begin_move(&mut state, at) {
            Begun::Already => {
                drop(state);
                self.begin_or_refuse(pending, error);
            }
            Begun::No => {
                drop(state);
                (pending.finish)(pending.transfer, Err(error));
            }
            Begun::By(old) => {
                state.waiting.push(pending);
                drop(state);
                let homes = self.clone();
                let moving = move || {
                    homes.0.finish_move(old, at, &error);
                    homes.release();
                };
                if let Err(e) = self.0.threads.spawn("vix-move", moving) {
                    let phase = Phase::Nowhere(e.kind(), format!("looking for another way: {e}"));
                    drop(Settle { shared: &self.0, at, phase: Some(phase) });
                    self.release();
                }
            }
        }
    }

    fn begin_or_refuse(&self, pending: Pending, error: Error) {
        if let Some((transfer, finish)) = self.begin(pending) {
            finish(transfer, Err(error)); // what one way takes the others take, too
        }
    }

    /// Lets those go on that waited.
    fn release(&self) {
        let waiting = std::mem::take(&mut self.0.state.lock().waiting);
        for pending in waiting {
            let lost = Error::new(ErrorKind::ConnectionLost, format!("{} was lost", self.0.target));
            self.begin_or_refuse(pending, lost);
        }
    }
}

impl Blocks for Homes {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.call(&mut |blocks| blocks.read(buf, offset))
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.call(&mut |blocks| blocks.write(buf, offset))
    }

    fn zero(&self, range: Range<u64>) -> Result<bool> {
        self.call(&mut |blocks| blocks.zero(range.clone()))
    }

    fn flush(&self) -> Result<()> {
        self.call(&mut |blocks| blocks.flush())
    }

    fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
        let mut from = range.start;
        self.call(&mut |blocks| {
            blocks.allocation(from..range.end, &mut |part, reads| {
                from = from.max(part.end);
                sink(part, reads);
            })
        })
    }

    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        self.begin(Pending { transfer, offset, finish })
    }

    fn key(&self, key: &str) -> Result<Option<String>> {
        Homes::key(self, key)
    }
}

impl Line for Homes {
    fn mode(&self) -> Mode {
        let state = self.0.state.lock();
        let way = self.0.ways.get(state.at).or(self.0.ways.first());
        way.map_or(Mode::File, |way| way.mode())
    }

    fn cut(&self) {
        let mut state = self.0.state.lock();
        let phase = std::mem::replace(&mut state.phase, Phase::Cut);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.0.settled.notify_all();
        if let Phase::At(home) = &phase {
            home.line.cut();
        }
        for Pending { transfer, finish, .. } in waiting {
            finish(transfer, Err(self.0.closing()));
        }
        if !self.0.threads.join_until(Instant::now() + LAST_STEPS) {
            os::stay_loaded();
        }
    }

    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        let line = match &self.0.state.lock().phase {
            Phase::At(home) => Arc::clone(&home.line),
            _ => return,
        };
        line.probe(answered);
    }
}

#[cfg(test)]
mod tests;
