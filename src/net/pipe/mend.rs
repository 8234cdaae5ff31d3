//! Losing a connection, making it anew, giving it up, closing it.
//!
//! A lost connection is made anew by whoever leads, with growing pauses, until [`Shared::reconnect`] has passed since the
//! loss; a reply ends the outage. Then everything that was in flight is sent once more: reading and writing the same
//! bytes twice is harmless; a connection that is lost again before any reply is followed by one with less in flight, because
//! answers may have been under way behind too much. When it cannot be made, every call fails with the cause, and so does each later one for a
//! second; after that the next call makes one attempt. A server that breaks the protocol is given up at once.
//!
//! A flush that was in flight fails if acknowledged writes may be gone, as does the next one if none was.
//!
//! [`Shared::reconnect`]: crate::net::pipe::connection::Shared

use std::time::Duration;
use std::time::Instant;

use parking_lot::MutexGuard;

use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::pipe::Ask;
use crate::net::pipe::Kind;
use crate::net::pipe::Protocol;
use crate::net::pipe::calls::Cause;
use crate::net::pipe::connection::Connection;
use crate::net::pipe::connection::Link;
use crate::net::pipe::connection::State;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::outbox::Outbox;
use crate::net::stream::Stream;
use crate::threads;

/// How long a failure to connect speaks for the next call too.
pub const QUIET: Duration = Duration::from_secs(1);
/// The first pause between two attempts, and the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A server that is left is not waited for when it has been silent for so long.
const LAST_REPLY: Duration = Duration::from_millis(500);
/// An attempt without any time would not be one.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// What calls on a closed connection fail with.
pub fn closed<P: Protocol>() -> Cause {
    let story = format!("the connection to the {} server was closed", P::NAME);
    Cause { kind: ErrorKind::Cancelled, story }
}

impl<P: Protocol> Connection<P> {
    /// The connection is not up, and the caller leads: makes it anew if somebody needs it, or lets everybody know.
    pub(super) fn mend(&self, st: &mut MutexGuard<'_, State<P>>, inbox: &mut Inbox<P>) {
        let Some(mut outbox) = st.outbox.take() else {
            self.changed.wait_for(st, Duration::from_secs(1));
            return;
        };
        inbox.disconnect();
        outbox.disconnect();
        match &st.link {
            Link::Up => {}
            Link::Closed => st.sweep(&closed::<P>()),
            Link::Failed(cause, _) => {
                let cause = cause.clone();
                st.sweep(&cause);
            }
            Link::Down(cause) => {
                let cause = cause.clone();
                self.redial(st, inbox, &mut outbox, cause);
            }
        }
        st.outbox = Some(outbox);
        self.changed.notify_all();
        self.to_read.notify_one();
    }

    fn redial(
        &self,
        st: &mut MutexGuard<'_, State<P>>,
        inbox: &mut Inbox<P>,
        outbox: &mut Outbox<P>,
        mut cause: Cause,
    ) {
        self.take_stock(st, &cause);
        let reconnect = self.shared.reconnect;
        if P::is_final(cause.kind, false) || (reconnect.is_zero() && st.outage.is_none()) {
            return st.give_up(cause);
        }
        st.dialling = true;
        let first = cause.story.clone();
        while matches!(st.link, Link::Down(_)) && st.books.is_wanted() {
            let now = Instant::now();
            let (end, tries) = *st.outage.get_or_insert((now + reconnect, 0));
            if tries > 0 && now >= end {
                st.give_up(cause);
                break;
            }
            if !self.pause(st, tries, end) {
                continue;
            }
            st.outage = Some((end, tries + 1));
            let only_one = tries == 0 && end <= now;
            match self.attempt(st, (!only_one).then_some(end)) {
                Ok((stream, agreed)) if matches!(st.link, Link::Down(_)) => {
                    st.connect(stream, agreed, inbox, outbox);
                    if only_one {
                        st.outage = None; // without a loss in front of it, it says nothing about one that follows
                    }
                    self.shared.log.info(|| format!("{}: connected again", self.shared.protocol.label()));
                }
                Ok(_) => {}
                Err(error) if P::is_final(error.kind(), true) => st.give_up(Cause::of(&error)),
                Err(error) => {
                    cause = Cause::of(&error.context(format!("connecting again after: {first}")));
                }
            }
        }
        st.dialling = false;
        if matches!(st.link, Link::Closed) {
            st.sweep(&closed::<P>());
        }
    }

    /// Everything that was in flight is to be sent again, or fails for good.
    fn take_stock(&self, st: &mut MutexGuard<'_, State<P>>, cause: &Cause) {
        let durability = &self.shared.durability;
        let lost = std::mem::take(&mut st.lost);
        if lost {
            self.shared.log.info(|| format!("{}: {}", self.shared.protocol.label(), cause.story));
            durability.connection_lost(&cause.story);
        }
        st.blocked = false;
        st.books.send_again();
        if lost && st.outage.is_some_and(|(_, tries)| tries > 0) {
            st.window.lost_in_vain();
        }
        st.window.restart();
        if durability.is_lost() {
            st.books.fail(&|| cause.error(), &|call| call.plan.ask.kind() == Kind::Flush);
        }
    }

    /// Waits before an attempt. `false`: something else may be up.
    fn pause(&self, st: &mut MutexGuard<'_, State<P>>, tries: u32, end: Instant) -> bool {
        let Some(doubled) = tries.checked_sub(1) else { return true };
        let pause = PAUSE.saturating_mul(1 << doubled.min(10)).min(LONGEST_PAUSE);
        let until = (Instant::now() + pause).min(end);
        while matches!(st.link, Link::Down(_)) {
            if self.changed.wait_until(st, until).timed_out() {
                return true;
            }
        }
        false
    }

    /// `end`: that of the outage which it is to make up for.
    fn attempt(
        &self,
        st: &mut MutexGuard<'_, State<P>>,
        end: Option<Instant>,
    ) -> Result<(Box<dyn Stream>, P::Agreed)> {
        let now = Instant::now();
        let full = now + self.shared.connect;
        let until = end.map_or(full, |end| full.min(end.max(now + LEAST_TIME)));
        MutexGuard::unlocked(st, || self.shared.protocol.dial(until))
    }

    /// Lets nobody in any more, and waits for the replies to what the server works on already, unless it is silent. Servers
    /// may not expect a client to be gone by then: nbdkit 1.32 falls over it, for everybody.
    fn drain(&self, st: &mut MutexGuard<'_, State<P>>, end: Instant) {
        st.leaving = true;
        if st.helpers.has(threads::here()) {
            return; // it would wait for itself
        }
        while matches!(st.link, Link::Up) && !st.is_drained() {
            let sent = self.progress.last_sent();
            let until = st.replied.map_or(sent, |replied| replied.max(sent)) + LAST_REPLY;
            if Instant::now() >= until.min(end) {
                return;
            }
            self.changed.wait_until(st, until.min(end));
        }
    }

    /// Refuses what comes, takes leave of the server if it is not silent, ends every wait. [`Connection::close_by`] is to
    /// follow.
    pub fn leave(&self, end: Instant) {
        let mut st = self.state.lock();
        self.drain(&mut st, end);
        let up = matches!(st.link, Link::Up);
        st.link = Link::Closed;
        if up && let Some((inbox, outbox)) = st.ends_at_rest() {
            let next = st.books.next_serial();
            if let Some(stream) = st.stream.clone() {
                MutexGuard::unlocked(&mut st, || P::farewell(&inbox, next, &*stream, end));
            }
            (st.inbox, st.outbox) = (Some(inbox), Some(outbox));
        }
        if let Some(stream) = st.stream.take() {
            stream.shutdown();
        }
        drop(st);
        self.changed.notify_all();
        self.to_read.notify_all();
        self.to_flush.notify_all();
    }

    /// Ends everything in flight and the threads, or gives up waiting for that.
    pub fn close_by(&self, end: Instant) {
        let here = threads::here();
        let mut st = self.state.lock();
        let mut swept = false;
        loop {
            if !swept && (st.dialling || (st.inbox.is_some() && st.outbox.is_some())) {
                st.sweep(&closed::<P>());
                self.changed.notify_all();
                swept = true;
            }
            if let Some(finished) = st.books.finished.pop_front() {
                MutexGuard::unlocked(&mut st, || self.tell(finished));
                continue;
            }
            let mine = u32::from(st.helpers.has(here));
            if swept && (st.helpers.alive <= mine || st.dialling) {
                return; // one that is connecting ends by itself, and finds nothing to do
            }
            if self.changed.wait_until(&mut st, end).timed_out() {
                return;
            }
        }
    }
}

impl<P: Protocol> State<P> {
    /// No connection could be made: everybody fails.
    fn give_up(&mut self, cause: Cause) {
        self.sweep(&cause);
        self.books.warm_up = false;
        self.outage = None;
        self.link = Link::Failed(cause, Instant::now());
    }

    /// Fails every call. Both ends are at rest.
    fn sweep(&mut self, cause: &Cause) {
        self.blocked = false;
        self.books.send_again();
        self.window.restart();
        self.books.fail(&|| cause.error(), &|_| true);
    }

    /// Nothing is in flight, and nobody uses either end.
    fn is_drained(&self) -> bool {
        self.books.flying == 0
            && self.inbox.is_some()
            && self.outbox.as_ref().is_some_and(|outbox| outbox.is_idle())
    }

    /// Both ends, if nothing is in flight and nobody is about to send.
    #[expect(clippy::type_complexity, reason = "two boxes")]
    fn ends_at_rest(&mut self) -> Option<(Box<Inbox<P>>, Box<Outbox<P>>)> {
        let quiet = self.is_drained() && self.inbox.as_ref().is_some_and(|inbox| inbox.staged().is_empty());
        if quiet { self.inbox.take().zip(self.outbox.take()) } else { None }
    }
}

/// What every protocol gives up at once.
pub fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Protocol
            | ErrorKind::Internal
            | ErrorKind::CertificateRefused
            | ErrorKind::Unauthorised
            | ErrorKind::NotSupported
            | ErrorKind::InvalidArgument
    )
}
