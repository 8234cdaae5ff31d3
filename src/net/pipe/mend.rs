//! Losing a connection, making it anew, giving it up, closing it.
//!
//! A lost connection is made anew by whoever leads, with growing pauses, until [`Shared::reconnect`] has passed since the
//! loss; a reply ends the outage. Then everything that was in flight is sent once more: reading and writing the same
//! bytes twice is harmless. When it cannot be made, every call fails with the cause, and so does each later one for a
//! second; after that the next call makes one attempt. A server that breaks the protocol is given up at once.
//!
//! A flush that was in flight fails if acknowledged writes may be gone, as does the next one if none was.
//!
//! [`Shared::reconnect`]: crate::net::pipe::connection::Shared

use std::time::Duration;
use std::time::Instant;

use parking_lot::MutexGuard;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::Export;
use crate::net::nbd::Replies;
use crate::net::nbd::request::Verb;
use crate::net::pipe::calls::Cause;
use crate::net::pipe::connection::Connection;
use crate::net::pipe::connection::Link;
use crate::net::pipe::connection::State;
use crate::net::pipe::inbox::Inbox;
use crate::net::pipe::outbox::Outbox;
use crate::net::stream::Patience;
use crate::net::stream::Stream;
use crate::threads;

/// How long a failure to connect speaks for the next call too.
pub const QUIET: Duration = Duration::from_secs(1);
/// The first pause between two attempts, and the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An attempt without any time would not be one.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// What calls on a closed connection fail with.
pub fn closed() -> Cause {
    Cause { kind: ErrorKind::Cancelled, story: String::from("the connection to the NBD server was closed") }
}

impl Connection {
    /// The connection is not up, and the caller leads: makes it anew if somebody needs it, or lets everybody know.
    pub(in crate::net) fn mend(&self, st: &mut MutexGuard<'_, State>, inbox: &mut Inbox) {
        let Some(mut outbox) = st.outbox.take() else {
            self.changed.wait_for(st, Duration::from_secs(1));
            return;
        };
        inbox.disconnect();
        outbox.disconnect();
        match &st.link {
            Link::Up => {}
            Link::Closed => st.sweep(&closed()),
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
        st: &mut MutexGuard<'_, State>,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
        mut cause: Cause,
    ) {
        self.take_stock(st, &cause);
        let reconnect = self.shared.reconnect;
        if is_final(cause.kind) || (reconnect.is_zero() && st.outage.is_none()) {
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
            match self.attempt(st, end, tries) {
                Ok((stream, export)) if matches!(st.link, Link::Down(_)) => {
                    st.connect(stream, &export, inbox, outbox);
                    self.shared.log.info(|| format!("{}: connected again", self.shared.dialler.label()));
                }
                Ok(_) => {}
                Err(error) if is_final(error.kind()) => st.give_up(Cause::of(&error)),
                Err(error) => {
                    cause = Cause::of(&error.context(format!("connecting again after: {first}")));
                }
            }
        }
        st.dialling = false;
        if matches!(st.link, Link::Closed) {
            st.sweep(&closed());
        }
    }

    /// Everything that was in flight is to be sent again, or fails for good.
    fn take_stock(&self, st: &mut MutexGuard<'_, State>, cause: &Cause) {
        let durability = &self.shared.durability;
        if std::mem::take(&mut st.lost) {
            self.shared.log.info(|| format!("{}: {}", self.shared.dialler.label(), cause.story));
            durability.connection_lost(&cause.story);
        }
        st.blocked = false;
        st.books.send_again();
        st.window.restart();
        if durability.is_lost() {
            st.books.fail(&|| cause.error(), &|call| call.plan.verb == Verb::Flush);
        }
    }

    /// Waits before an attempt. `false`: something else may be up.
    fn pause(&self, st: &mut MutexGuard<'_, State>, tries: u32, end: Instant) -> bool {
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

    fn attempt(
        &self,
        st: &mut MutexGuard<'_, State>,
        end: Instant,
        tries: u32,
    ) -> Result<(Box<dyn Stream>, Export)> {
        let now = Instant::now();
        let full = now + self.shared.connect;
        let until = if tries == 0 { full } else { full.min(end.max(now + LEAST_TIME)) };
        let (stream, export) = MutexGuard::unlocked(st, || self.shared.dialler.dial(until))?;
        let ours = &self.shared.export;
        if (export.size, export.flags, export.blocks) != (ours.size, ours.flags, ours.blocks) {
            stream.shutdown();
            let message = format!(
                "the export changed while the connection was lost: {} bytes with flags {:#x} and {:?} before, {} bytes with \
                 flags {:#x} and {:?} after",
                ours.size, ours.flags, ours.blocks, export.size, export.flags, export.blocks
            );
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        // What is to be sent again may be longer than 32 bits can say.
        if ours.replies == Replies::Extended && export.replies != Replies::Extended {
            stream.shutdown();
            let message = "the server changed while the connection was lost: it had extended headers";
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        Ok((stream, export))
    }

    /// Refuses what comes, ends every wait. [`Connection::close_by`] is to follow.
    pub fn leave(&self) {
        self.state.lock().leave();
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
                st.sweep(&closed());
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

impl State {
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

    /// Says farewell if that can be done at once, and ends every wait.
    fn leave(&mut self) {
        let up = matches!(self.link, Link::Up);
        self.link = Link::Closed;
        if up
            && self.inbox.is_some()
            && let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.is_idle())
        {
            outbox.gather_leave();
            let _ = outbox.send(&[], Patience::None); // a courtesy; the connection ends either way
            outbox.clear();
        }
        if let Some(stream) = self.stream.take() {
            stream.shutdown();
        }
    }
}

/// Trying again would not help.
fn is_final(kind: ErrorKind) -> bool {
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
