//! One connection in its transmission phase, shared by any number of threads.
//!
//! ```text
//!   books    what is wanted, what is in flight            under the lock, never across input or output
//!   inbox    whoever took it out of the state receives    "leads"
//!   outbox   whoever took it out of the state sends
//! ```
//!
//! A thread with a synchronous call sends it and, if nobody leads, leads until its own call is over: replies go straight
//! into its buffer, and no other thread has to be woken for that. Replies to other calls that it meets go into buffers
//! that these own. So a synchronous read that begins while somebody else leads owns a buffer and copies; only the leader
//! ever lends one. Started calls are led by a thread of the connection, born with the first of them (`helpers`).

use std::fmt;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::pipe::Protocol;
use crate::net::pipe::books::Books;
use crate::net::pipe::calls::Buffer;
use crate::net::pipe::calls::Call;
use crate::net::pipe::calls::Cause;
use crate::net::pipe::calls::Plan;
use crate::net::pipe::durability::Durability;
use crate::net::pipe::helpers::Helpers;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::mend;
use crate::net::pipe::outbox::Outbox;
use crate::net::pipe::progress;
use crate::net::pipe::progress::Progress;
use crate::net::pipe::window;
use crate::net::pipe::window::Window;
use crate::net::stream::Patience;
use crate::net::stream::Stream;
use crate::threads;
use crate::threads::Threads;
use crate::transfer::Transfer;

/// How long a sender may wait before it looks whether it is its turn to receive.
pub const TURN: Duration = Duration::from_millis(20);
/// A connection is made by its own thread, which gets so much time to begin with that.
const LATE: Duration = Duration::from_secs(1);
/// A read that cannot lend its buffer copies in portions of this size.
const COPIED: usize = 4 << 20;

/// What every connection of a client shares.
#[derive(Debug)]
pub struct Shared<P> {
    /// Makes connections that lead to the same thing.
    pub protocol: P,
    /// Time to connect.
    pub connect: Duration,
    /// How long silence may last.
    pub patience: progress::Limits,
    /// Time to make up for a loss.
    pub reconnect: Duration,
    /// What may be in flight.
    pub window: window::Limits,
    /// What was acknowledged.
    pub durability: Durability,
    /// For whoever wonders.
    pub log: Log,
    /// Where threads are born.
    pub threads: Arc<Threads>,
}

/// What a connection has to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of started calls that are not over.
    pub started: u64,
    /// Bytes in flight.
    pub flying: u64,
    /// It is more than the connection can carry.
    pub is_saturated: bool,
}

/// One connection.
pub struct Connection<P: Protocol> {
    /// Itself, for its threads.
    pub(super) this: Weak<Connection<P>>,
    pub(in crate::net) shared: Arc<Shared<P>>,
    pub(super) number: u64,
    pub(super) progress: Arc<Progress>,
    pub(in crate::net) state: Mutex<State<P>>,
    /// For whoever waits with a call, for an end, or for the end.
    pub(super) changed: Condvar,
    /// For the thread that leads started calls.
    pub(super) to_read: Condvar,
    /// For the thread that sends what was not taken at once.
    pub(super) to_flush: Condvar,
}

/// Whether requests can be sent.
#[derive(Debug)]
pub enum Link {
    /// They can.
    Up,
    /// Not until the connection is made anew, by whoever leads.
    Down(Cause),
    /// It could not be made. Calls fail for a while, then the next one tries again.
    Failed(Cause, Instant),
    /// It was closed for good.
    Closed,
}

/// What the lock protects.
pub struct State<P: Protocol> {
    pub(super) books: Books<P>,
    pub(super) window: Window,
    /// `None`: somebody leads.
    pub(super) inbox: Option<Box<Inbox<P>>>,
    /// `None`: somebody sends.
    pub(super) outbox: Option<Box<Outbox<P>>>,
    pub(super) link: Link,
    /// Nobody is let in and nothing is sent any more: it is about to be closed.
    pub(super) leaving: bool,
    /// It was up and is not any more, and nobody took notice yet.
    pub(super) lost: bool,
    /// To be shut down when the connection is lost or closed.
    pub(super) stream: Option<Arc<dyn Stream>>,
    /// The stream did not take a batch at once; the flushing thread goes on with it.
    pub(super) blocked: bool,
    /// The leader makes a connection, both ends are at rest.
    pub(super) dialling: bool,
    /// By when an outage must be over, and how often a connection was tried since it began.
    pub(super) outage: Option<(Instant, u32)>,
    /// When the last reply was complete.
    pub(super) replied: Option<Instant>,
    /// When it is looked next whether a request has been without its reply for too long.
    pub(super) looks_at: Instant,
    pub(in crate::net) helpers: Helpers,
}

/// The bytes that a synchronous call lends.
pub enum Lent<'a> {
    /// To be filled.
    Read(&'a mut [u8]),
    /// To be sent.
    Write(&'a [u8]),
    /// Nothing.
    Nothing,
}

impl<P: Protocol> Connection<P> {
    /// A connection over a stream that was negotiated; without one it is made when it is needed.
    pub fn new(
        shared: Arc<Shared<P>>,
        number: u64,
        link: Option<(Box<dyn Stream>, P::Agreed)>,
    ) -> Arc<Connection<P>> {
        let progress = Arc::new(Progress::new(shared.patience));
        let not_tried = Cause { kind: ErrorKind::ConnectionLost, story: String::from("not connected") };
        let state = State {
            books: Books::new(Arc::clone(&progress)),
            window: Window::new(shared.window),
            inbox: Some(Box::new(Inbox::new(Arc::clone(&progress)))),
            outbox: Some(Box::new(Outbox::new())),
            link: Link::Down(not_tried),
            leaving: false,
            lost: false,
            stream: None,
            blocked: false,
            dialling: false,
            outage: None,
            replied: None,
            looks_at: Instant::now(),
            helpers: Helpers::default(),
        };
        let (changed, to_read, to_flush) = (Condvar::new(), Condvar::new(), Condvar::new());
        let state = Mutex::new(state);
        let connection = Arc::new_cyclic(|this| Connection {
            this: this.clone(),
            shared,
            number,
            progress,
            state,
            changed,
            to_read,
            to_flush,
        });
        if let Some((stream, agreed)) = link {
            let mut st = connection.state.lock();
            let (inbox, outbox) = (st.inbox.take(), st.outbox.take());
            if let (Some(mut inbox), Some(mut outbox)) = (inbox, outbox) {
                st.connect(stream, agreed, &mut inbox, &mut outbox);
                (st.inbox, st.outbox) = (Some(inbox), Some(outbox));
            }
        }
        connection
    }

    /// Works a plan off on the calling thread. What comes back is the call, which did not fail.
    pub fn call(&self, plan: Plan<P::Ask>, lent: Lent<'_>) -> Result<Call<P>> {
        self.call_with(plan, lent, P::Extra::default())
    }

    /// The same for a call that carries something beside its bytes, which reads do not.
    pub fn call_with(&self, plan: Plan<P::Ask>, lent: Lent<'_>, extra: P::Extra) -> Result<Call<P>> {
        match lent {
            Lent::Read(buf) => self.read(&plan, buf),
            lent => {
                let buffer = if matches!(lent, Lent::Write(_)) { Buffer::Lent } else { Buffer::None };
                let mut lead = Lead { connection: self, inbox: None };
                let mut st = self.state.lock();
                st.admit()?;
                let id = st.books.enter(Call::new(plan, buffer, None, extra));
                lead.drive(st, id, lent)
            }
        }
    }

    /// Waits until every write that was begun before is over, well or not, and works on them meanwhile if nobody else does.
    pub fn settle_writes(&self) {
        let mut lead = Lead { connection: self, inbox: None };
        let mut st = self.state.lock();
        let mark = st.books.entered();
        lead.work_while(&mut st, usize::MAX, Lent::Nothing, &|books| books.has_writes_before(mark));
        lead.rest(st);
    }

    /// Nobody uses it at the moment.
    pub fn is_idle(&self) -> bool {
        let st = self.state.lock();
        matches!(st.link, Link::Up) && st.inbox.is_some() && st.books.flying == 0
    }

    /// What is asked of it; `None` when it is not up.
    pub fn load(&self) -> Option<Load> {
        let st = self.state.lock();
        let (started, flying) = (st.books.load, st.window.flying());
        let load = Load { started, flying, is_saturated: st.window.is_saturated() };
        matches!(st.link, Link::Up).then_some(load)
    }

    fn read(&self, plan: &Plan<P::Ask>, mut buf: &mut [u8]) -> Result<Call<P>> {
        let mut rest = plan.clone();
        loop {
            let mut lead = Lead { connection: self, inbox: None };
            let mut st = self.state.lock();
            st.admit()?;
            lead.inbox = st.inbox.take();
            if lead.inbox.is_some() {
                let id = st.books.enter(Call::new(rest, Buffer::Lent, None, P::Extra::default()));
                return lead.drive(st, id, Lent::Read(buf));
            }
            drop(st);
            let (head, tail) = buf.split_at_mut(buf.len().min(COPIED));
            let own = Buffer::Own(Transfer::ReadOwned(vec![0; head.len()]));
            let part = Plan { end: rest.start + head.len() as u64, ..rest.clone() };
            let mut st = self.state.lock();
            st.admit()?;
            let id = st.books.enter(Call::new(part.clone(), own, None, P::Extra::default()));
            let call = lead.drive(st, id, Lent::Nothing)?;
            match &call.buffer {
                Buffer::Own(Transfer::ReadOwned(data)) if data.len() == head.len() => {
                    head.copy_from_slice(data);
                }
                _ => return Err(Error::new(ErrorKind::Internal, "a read lost its buffer")),
            }
            if tail.is_empty() {
                return Ok(call);
            }
            (rest.start, rest.next, buf) = (part.end, part.end, tail);
        }
    }
}

impl<P: Protocol> fmt::Debug for Connection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<P: Protocol> State<P> {
    /// Refuses a call that has no chance.
    pub(super) fn admit(&mut self) -> Result<()> {
        match &self.link {
            Link::Closed => Err(mend::closed::<P>().error()),
            _ if self.leaving => Err(mend::closed::<P>().error()),
            Link::Up | Link::Down(_) => Ok(()),
            Link::Failed(cause, at) if at.elapsed() < mend::QUIET => Err(cause.error()),
            Link::Failed(cause, _) => {
                self.link = Link::Down(cause.clone());
                self.outage = Some((Instant::now(), 0));
                Ok(())
            }
        }
    }

    /// Both ends go to a stream.
    pub(super) fn connect(
        &mut self,
        stream: Box<dyn Stream>,
        agreed: P::Agreed,
        inbox: &mut Inbox<P>,
        outbox: &mut Outbox<P>,
    ) {
        let stream: Arc<dyn Stream> = Arc::from(stream);
        if let Some(first) = P::first_serial(&agreed) {
            self.books.restart_serial(first);
        }
        inbox.connect(Arc::clone(&stream), agreed.clone());
        outbox.connect(Arc::clone(&stream), agreed);
        self.stream = Some(stream);
        self.link = Link::Up;
    }

    /// The connection is of no use any more: ends every wait on it.
    pub(super) fn lose(&mut self, error: &Error) {
        if matches!(self.link, Link::Up) {
            self.link = Link::Down(Cause::of(error));
            self.lost = true;
        }
        if let Some(stream) = self.stream.take() {
            stream.shutdown();
        }
    }
}

/// A thread that works on a connection, and may lead. Gives the lead back when it ends, however it ends.
pub struct Lead<'a, P: Protocol> {
    pub(super) connection: &'a Connection<P>,
    pub(super) inbox: Option<Box<Inbox<P>>>,
}

impl<P: Protocol> Lead<'_, P> {
    /// Works on until a call is over.
    fn drive<'s>(&mut self, mut st: MutexGuard<'s, State<P>>, id: usize, lent: Lent<'_>) -> Result<Call<P>>
    where
        Self: 's,
    {
        self.work_while(&mut st, id, lent, &|books| books.call(id).is_some_and(|call| !call.is_over()));
        let call = st.books.remove(id);
        self.rest(st);
        let mut call =
            call.ok_or_else(|| Error::new(ErrorKind::Internal, "a call vanished from the books"))?;
        call.fault.take().map_or(Ok(call), Err)
    }

    /// Works on as long as something is so. `lent` is for the call of this thread.
    fn work_while<'s>(
        &mut self,
        st: &mut MutexGuard<'s, State<P>>,
        id: usize,
        mut lent: Lent<'_>,
        unfinished: &dyn Fn(&mut Books<P>) -> bool,
    ) where
        Self: 's,
    {
        let connection = self.connection;
        while unfinished(&mut st.books) {
            if self.inbox.is_none() {
                self.inbox = st.inbox.take();
            }
            if !matches!(st.link, Link::Up) {
                self.wait_for_mending(st);
                continue;
            }
            let step = match self.send(st, id, &mut lent) {
                Ok(false) => self.receive(st, id, &mut lent),
                sent => sent.map(|_| ()),
            };
            if let Err(error) = step {
                st.lose(&error);
                connection.changed.notify_all();
            }
        }
    }

    /// The connection is not up. A new one is made by the thread of the connection, if there can be one: closing ends the
    /// wait of a caller for it at once, however long it takes to connect.
    fn wait_for_mending<'s>(&mut self, st: &mut MutexGuard<'s, State<P>>)
    where
        Self: 's,
    {
        let connection = self.connection;
        let by_itself = st.helpers.is_reader(threads::here());
        if matches!(st.link, Link::Down(_)) && !by_itself && connection.reader(st).is_ok() {
            st.inbox = self.inbox.take().or(st.inbox.take());
            connection.to_read.notify_one();
            let late = connection.changed.wait_for(st, LATE).timed_out();
            if !late || st.dialling || !matches!(st.link, Link::Down(_)) {
                return;
            }
            self.inbox = st.inbox.take(); // that thread is held up in what it tells somebody
        }
        match &mut self.inbox {
            Some(inbox) => connection.mend(st, inbox),
            None => connection.changed.wait(st),
        }
    }

    /// Gives back what it has, and wakes whoever may need it.
    fn rest(&mut self, mut st: MutexGuard<'_, State<P>>) {
        if let Some(mut inbox) = self.inbox.take() {
            inbox.rest();
            st.inbox = Some(inbox);
        }
        if st.books.is_awaited() || !st.books.finished.is_empty() {
            self.connection.to_read.notify_one();
        }
        drop(st);
        self.connection.changed.notify_all();
    }

    /// Sends a batch to its end, if there is one and nobody else sends.
    fn send<'s>(
        &mut self,
        st: &mut MutexGuard<'s, State<P>>,
        id: usize,
        lent: &mut Lent<'_>,
    ) -> Result<bool> {
        let Some(mut outbox) = st.outbox.take() else { return Ok(false) };
        let now = Instant::now();
        if outbox.is_idle() {
            let State { books, window, .. } = &mut **st;
            let gathered = match lent {
                Lent::Write(_) => outbox.gather_lent(id, books, window, now),
                _ => Ok(()),
            };
            let gathered = gathered.and_then(|()| match outbox.is_idle() {
                true => outbox.gather(books, window, now),
                false => Ok(()),
            });
            if gathered.is_err() || outbox.is_idle() {
                st.outbox = Some(outbox);
                return gathered.map(|()| false);
            }
        }
        let sent = MutexGuard::unlocked(st, || self.send_on(&mut outbox, id, lent));
        self.connection.sent(st, outbox, sent.is_ok());
        sent.map(|()| true)
    }

    /// Sends a batch to its end. As long as nobody else receives, what the server sends is received meanwhile: it may be
    /// waiting for that before it takes more.
    fn send_on(&mut self, outbox: &mut Outbox<P>, id: usize, lent: &mut Lent<'_>) -> Result<()> {
        let connection = self.connection;
        let from = Instant::now();
        let mut patience = Patience::None;
        loop {
            let data = if let Lent::Write(data) = lent { *data } else { &[] };
            let before = outbox.taken();
            if outbox.send(data, patience)? {
                connection.progress.sent(from);
                return Ok(());
            }
            if outbox.taken() > before {
                connection.progress.sent(Instant::now());
            } else if Instant::now() > connection.progress.until(from) {
                return Err(connection.progress.timeout());
            }
            if self.inbox.is_none() {
                self.inbox = connection.state.lock().inbox.take();
            }
            patience = match &self.inbox {
                None => Patience::Until(Instant::now() + TURN),
                Some(inbox) => {
                    if !inbox.staged().is_empty() || inbox.wait_for_both()?.recv {
                        self.receive(&mut connection.state.lock(), id, lent)?;
                    }
                    Patience::None
                }
            };
        }
    }

    /// Receives, or waits until the one who does is done.
    fn receive(&mut self, st: &mut MutexGuard<'_, State<P>>, id: usize, lent: &mut Lent<'_>) -> Result<()> {
        let connection = self.connection;
        let Some(inbox) = &mut self.inbox else {
            connection.changed.wait_for(st, Duration::from_secs(1));
            return Ok(());
        };
        if !st.books.is_due() {
            // only a thread that sends can change that
            connection.changed.wait_for(st, TURN);
            return Ok(());
        }
        let lent = match lent {
            Lent::Read(buf) => Some((id, &mut **buf)),
            _ => None,
        };
        connection.receive(st, inbox, lent)?;
        if !st.books.finished.is_empty() {
            connection.to_read.notify_one();
        }
        Ok(())
    }
}

impl<P: Protocol> Drop for Lead<'_, P> {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            let mut st = self.connection.state.lock();
            if std::thread::panicking() {
                st.lose(&Error::new(ErrorKind::Internal, "a thread panicked while it received"));
            }
            st.inbox = Some(inbox);
            drop(st);
            self.connection.changed.notify_all();
            self.connection.to_read.notify_one();
        }
    }
}

impl<P: Protocol> Connection<P> {
    /// The outbox comes back; its batch was sent, or the connection is lost.
    pub(super) fn sent(&self, st: &mut MutexGuard<'_, State<P>>, mut outbox: Box<Outbox<P>>, whole: bool) {
        let now = Instant::now();
        let mut settled = false;
        if whole {
            let State { books, window, .. } = &mut **st;
            for cookie in &outbox.cookies {
                settled |= books.was_sent(*cookie, window, now);
            }
            outbox.clear();
        }
        st.outbox = Some(outbox);
        st.blocked = false;
        self.changed.notify_all();
        if settled {
            self.to_read.notify_one();
            if !st.books.finished.is_empty() && st.inbox.is_none() && self.flusher(st).is_ok() {
                self.to_flush.notify_one(); // the reader may be waiting for something else
            }
        }
    }
}
