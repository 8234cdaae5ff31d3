//! Started calls, and the threads that work on them: one that leads while no synchronous call does, born with the first
//! started call, and one that sends what the stream did not take at once, born when that first happens.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::time::Duration;
use std::time::Instant;

use parking_lot::MutexGuard;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::pipe::Protocol;
use crate::net::pipe::calls::Buffer;
use crate::net::pipe::calls::Call;
use crate::net::pipe::calls::Finished;
use crate::net::pipe::calls::Plan;
use crate::net::pipe::connection::Connection;
use crate::net::pipe::connection::Lead;
use crate::net::pipe::connection::Link;
use crate::net::pipe::connection::State;
use crate::net::pipe::connection::TURN;
use crate::net::pipe::outbox::Outbox;
use crate::net::pipe::reception::SMALL;
use crate::net::stream::Patience;
use crate::threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// Replies that were received together are told together, so many at most.
const TOGETHER: usize = 64;

/// A server answers briskly when its last reply is not older and so many requests are with it.
const BRISK: Duration = Duration::from_micros(40);
const BRISK_FLYING: usize = 4;

/// The threads of a connection.
#[derive(Debug, Default)]
pub struct Helpers {
    /// How many run.
    pub alive: u32,
    reader: u64,
    flusher: u64,
    reader_born: bool,
    flusher_born: bool,
}

impl Helpers {
    /// The thread with this number is the one that leads.
    pub fn is_reader(&self, thread: u64) -> bool {
        thread != 0 && self.reader == thread
    }

    /// The thread with this number is one of them.
    pub fn has(&self, thread: u64) -> bool {
        thread != 0 && (self.reader == thread || self.flusher == thread)
    }
}

impl<P: Protocol> Connection<P> {
    /// Starts a call. What cannot be begun comes back, with the reason.
    pub fn start(
        &self,
        plan: Plan<P::Ask>,
        transfer: Transfer,
        finish: Finish,
    ) -> Result<(), (Transfer, Finish, Error)> {
        let mut st = self.state.lock();
        if let Err(error) = st.admit().and_then(|()| self.reader(&mut st)) {
            return Err((transfer, finish, error));
        }
        let small = plan.end - plan.start <= SMALL;
        st.books.enter(Call::new(plan, Buffer::Own(transfer), Some(finish), P::Extra::default()));
        // Whoever receives sends what is queued: the reader itself when it has told everybody.
        let left_to_others = st.helpers.is_reader(threads::here()) || small && st.is_brisk();
        if !left_to_others {
            self.send_queued(&mut st);
            self.to_read.notify_one();
        }
        Ok(())
    }

    /// Makes the connection without having anything to send. `false`: it is up already, or could not be made just before.
    pub fn warm_up(&self) -> bool {
        let mut st = self.state.lock();
        if st.admit().is_err() || !matches!(st.link, Link::Down(_)) || self.reader(&mut st).is_err() {
            return false;
        }
        st.books.warm_up = true;
        st.outage.get_or_insert((Instant::now(), 0)); // one attempt
        self.to_read.notify_one();
        true
    }

    /// Runs what a started call ends with. Its panic is its own.
    pub(super) fn tell(&self, finished: Finished) {
        if catch_unwind(AssertUnwindSafe(|| finished.tell())).is_err() {
            self.shared.log.warning(|| "the function that ends a transfer panicked");
        }
    }

    /// There is a thread that leads.
    pub(super) fn reader(&self, st: &mut MutexGuard<'_, State<P>>) -> Result<()> {
        if !st.helpers.reader_born {
            let connection = self.this.upgrade().ok_or_else(dropped)?;
            self.shared.threads.spawn(&self.thread_name(""), move || connection.read_on())?;
            st.helpers.reader_born = true;
            st.helpers.alive += 1;
        }
        Ok(())
    }

    fn thread_name(&self, what: &str) -> String {
        format!("vix-{}-{}{what}", P::NAME.to_ascii_lowercase(), self.number)
    }

    pub(super) fn flusher(&self, st: &mut MutexGuard<'_, State<P>>) -> Result<()> {
        if !st.helpers.flusher_born {
            let connection = self.this.upgrade().ok_or_else(dropped)?;
            self.shared.threads.spawn(&self.thread_name("w"), move || connection.flush_on())?;
            st.helpers.flusher_born = true;
            st.helpers.alive += 1;
        }
        Ok(())
    }

    /// Sends what is queued as far as the stream takes it at once.
    fn send_queued(&self, st: &mut MutexGuard<'_, State<P>>) {
        while matches!(st.link, Link::Up) && !st.leaving {
            let Some(mut outbox) = st.outbox.take() else { return };
            if !outbox.is_idle() {
                st.outbox = Some(outbox); // somebody goes on with that batch
                return;
            }
            let now = Instant::now();
            let State { books, window, .. } = &mut **st;
            let gathered = outbox.gather(books, window, now);
            if gathered.is_ok() && outbox.is_idle() {
                st.outbox = Some(outbox);
                return;
            }
            let sent = gathered.and_then(|()| MutexGuard::unlocked(st, || outbox.send(&[], Patience::None)));
            match sent {
                Ok(true) => {
                    self.progress.sent(now);
                    self.sent(st, outbox, true);
                }
                Ok(false) => {
                    st.outbox = Some(outbox);
                    st.blocked = true;
                    if let Err(error) = self.flusher(st) {
                        st.lose(&error);
                    }
                    self.to_flush.notify_one();
                    self.changed.notify_all();
                    return;
                }
                Err(error) => {
                    st.lose(&error);
                    self.sent(st, outbox, false);
                }
            }
        }
    }

    /// The life of the thread that leads.
    fn read_on(&self) {
        let mut lead = Lead { connection: self, inbox: None };
        let mut st = self.state.lock();
        st.helpers.reader = threads::here();
        loop {
            if let Some(finished) = st.books.finished.pop_front() {
                MutexGuard::unlocked(&mut st, || self.tell(finished));
                continue;
            }
            if matches!(st.link, Link::Closed) && st.books.started == 0 {
                break;
            }
            let needed = match st.link {
                Link::Up if st.leaving => st.books.is_due(),
                Link::Down(_) if st.leaving => false,
                Link::Down(_) => st.books.is_wanted(),
                _ => st.books.is_awaited(),
            };
            if needed {
                lead.inbox = st.inbox.take();
            }
            if lead.inbox.is_some() {
                self.lead_on(&mut st, &mut lead);
                st.inbox = lead.inbox.take();
                self.changed.notify_all();
            } else {
                self.to_read.wait(&mut st);
            }
        }
        st.helpers.alive -= 1;
        self.changed.notify_all();
    }

    /// Receives until somebody can be told something.
    fn lead_on(&self, st: &mut MutexGuard<'_, State<P>>, lead: &mut Lead<'_, P>) {
        let Some(inbox) = &mut lead.inbox else { return };
        inbox.rest(); // others may have been told something meanwhile
        if !matches!(st.link, Link::Up) {
            return self.mend(st, inbox);
        }
        st.books.warm_up = false;
        self.send_queued(st);
        if !st.books.is_due() {
            if !st.leaving {
                self.to_read.wait_for(st, TURN); // what was queued is being dealt with by another thread
            }
            return;
        }
        while st.books.is_due() && st.books.finished.len() < TOGETHER {
            if let Err(error) = self.receive(st, inbox, None) {
                st.lose(&error);
                self.changed.notify_all();
                return;
            }
            if !st.books.finished.is_empty()
                && !P::has_whole_reply(&inbox.agreed, inbox.staged(), &mut st.books)
            {
                return;
            }
            if st.books.has_queued() {
                self.send_queued(st);
            }
        }
    }

    /// The life of the thread that sends what was not taken at once.
    fn flush_on(&self) {
        let mut st = self.state.lock();
        st.helpers.flusher = threads::here();
        while !matches!(st.link, Link::Closed) {
            if st.inbox.is_none()
                && let Some(finished) = st.books.finished.pop_front()
            {
                MutexGuard::unlocked(&mut st, || self.tell(finished));
                continue;
            }
            if !st.blocked || !matches!(st.link, Link::Up) {
                self.to_flush.wait(&mut st);
                continue;
            }
            let Some(mut outbox) = st.outbox.take() else {
                self.to_flush.wait_for(&mut st, Duration::from_secs(1));
                continue;
            };
            let sent = MutexGuard::unlocked(&mut st, || self.send_patiently(&mut outbox));
            if let Err(error) = &sent {
                st.lose(error);
            }
            self.sent(&mut st, outbox, sent.is_ok());
            self.send_queued(&mut st);
            self.to_read.notify_one();
        }
        st.helpers.alive -= 1;
        self.changed.notify_all();
    }

    fn send_patiently(&self, outbox: &mut Outbox<P>) -> Result<()> {
        let from = Instant::now();
        loop {
            let before = outbox.taken();
            let now = Instant::now();
            if outbox.send(&[], Patience::Until(now + Duration::from_secs(1)))? {
                self.progress.sent(now);
                return Ok(());
            }
            if outbox.taken() > before {
                self.progress.sent(now);
            } else if Instant::now() > self.progress.until(from) {
                return Err(self.progress.timeout());
            }
        }
    }
}

impl<P: Protocol> State<P> {
    /// The next reply is about to come, and with it whoever receives sends what is queued: several requests together, for
    /// which the server wakes up once.
    fn is_brisk(&self) -> bool {
        self.inbox.is_none()
            && self.books.flying >= BRISK_FLYING
            && self.replied.is_some_and(|last| last.elapsed() < BRISK)
    }
}

fn dropped() -> Error {
    Error::new(ErrorKind::Internal, "a connection without owner")
}
