//! Sessions with servers, one for all connections that would log in alike.
//!
//! A [`Lease`] is a connection's share of a session. The login waits for the first call that needs one, and the last lease
//! takes the session with it. Sessions in use are kept alive by one thread, which exists while there are any.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::logging::Log;
use crate::net::vim::Login;
use crate::net::vim::Server;
use crate::net::vim::Times;
use crate::os;
use crate::threads;
use crate::threads::Threads;
use crate::transport::vsphere::soap::Door;
use crate::transport::vsphere::soap::Soap;

/// Who logs in where.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The server.
    pub server: Server,
    /// The credentials.
    pub login: Login,
    /// How long things may take.
    pub times: Times,
    /// How long a session may be idle; zero: it is not kept alive.
    pub keep_alive: Duration,
}

impl Entrance {
    /// True when a session that was opened so can serve this one.
    fn is_like(&self, other: &Entrance) -> bool {
        let same_login = match (&self.login, &other.login) {
            (Login::User { name, password }, Login::User { name: user, password: word }) => {
                name == user && password.expose() == word.expose()
            }
            (Login::Cookie(cookie), Login::Cookie(other)) => cookie.expose() == other.expose(),
            _ => false,
        };
        same_login && self.server == other.server
    }
}

/// The sessions of one library.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    door: Arc<dyn Door>,
    log: Log,
    known: Mutex<Known>,
    /// Something about the sessions has changed.
    wake: Condvar,
    /// The thread that keeps sessions alive.
    threads: Threads,
}

#[derive(Debug, Default)]
struct Known {
    sessions: Vec<Weak<Shared>>,
    /// The thread exists.
    keeping: bool,
    over: bool,
}

/// A session that several connections share.
#[derive(Debug)]
pub struct Shared {
    entrance: Entrance,
    inner: Arc<Inner>,
    /// Not held while the server is talked to.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Leases.
    users: usize,
    phase: Phase,
    /// Logins that failed, and how the last of them did, for those who waited for it.
    failures: u64,
    failure: Option<(ErrorKind, String)>,
    /// When it was tried last to keep it alive.
    kept: Instant,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Opening,
    Open(Arc<dyn Soap>),
}

/// A share of a session. Dropping the last one logs out, within the time for farewells.
#[derive(Debug)]
pub struct Lease {
    session: Arc<Shared>,
    over: bool,
}

/// Two looks at idle sessions are at least this far apart.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// How long the end waits for the thread that keeps sessions alive. When it is in a call, it ends after that by itself.
const LAST_STEPS: Duration = Duration::from_millis(200);

impl Sessions {
    /// None yet; they will be opened at this door.
    pub fn new(door: Arc<dyn Door>, log: Log) -> Sessions {
        let (known, wake, threads) =
            (Mutex::default(), Condvar::new(), Threads::new(os::with_signals_blocked));
        Sessions(Arc::new(Inner { door, log, known, wake, threads }))
    }

    /// A share of the session that logs in like this. Nothing is sent.
    pub fn lease(&self, entrance: Entrance) -> Lease {
        let mut known = self.0.known.lock();
        known.sessions.retain(|session| session.strong_count() > 0);
        let same = known
            .sessions
            .iter()
            .filter_map(Weak::upgrade)
            .find(|session| session.entrance.is_like(&entrance) && session.enter());
        if let Some(session) = same {
            return Lease { session, over: false };
        }
        let state =
            State { users: 1, phase: Phase::Closed, failures: 0, failure: None, kept: Instant::now() };
        let session = Arc::new(Shared {
            entrance,
            inner: Arc::clone(&self.0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        known.sessions.push(Arc::downgrade(&session));
        Lease { session, over: false }
    }

    /// Ends the thread that keeps sessions alive. Leases end by themselves.
    pub fn end(&self) {
        self.0.known.lock().over = true;
        self.0.wake.notify_all();
        if !self.0.threads.join_until(Instant::now() + LAST_STEPS) {
            os::stay_loaded();
        }
    }
}

impl Lease {
    /// What the lease is a share of.
    pub fn session(&self) -> &Arc<Shared> {
        &self.session
    }

    /// Ends the lease, and if it is the last one the session: by `until`, whatever the server does.
    pub fn end_by(mut self, until: Instant) {
        self.over = true;
        let session = &self.session;
        let Some(soap) = session.leave() else { return };
        if Instant::now() + session.entrance.times.farewell <= until {
            session.part(&*soap);
            return;
        }
        let theirs = Arc::clone(session);
        let late = Instant::now() + LEAST_PAUSE;
        let parted = threads::finish_until(
            os::with_signals_blocked,
            os::stay_loaded,
            "vix-logout",
            until.max(late),
            move || theirs.part(&*soap),
        );
        if !matches!(parted, Ok(Some(()))) {
            session.inner.log.info(|| format!("{}: no time was left to log out", session.name()));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.over
            && let Some(soap) = self.session.leave()
        {
            self.session.part(&*soap);
        }
    }
}

impl Shared {
    /// The server's host, for tickets that name none.
    pub fn host(&self) -> &str {
        &self.entrance.server.host
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.entrance.server
    }

    /// How long things may take.
    pub fn times(&self) -> Times {
        self.entrance.times
    }

    /// The server's name and port, for messages.
    pub fn name(&self) -> String {
        format!("{}:{}", self.entrance.server.host, self.entrance.server.port)
    }

    /// The session, logged in. Who comes while somebody else is logging in gets what comes of that.
    pub fn soap(&self) -> Result<Arc<dyn Soap>> {
        let mut state = self.state.lock();
        let failures = state.failures;
        loop {
            match &state.phase {
                Phase::Open(soap) => return Ok(Arc::clone(soap)),
                _ if state.users == 0 => {
                    let what = format!("the connection to {} was closed", self.name());
                    return Err(Error::new(ErrorKind::InvalidConnection, what));
                }
                Phase::Opening => self.changed.wait(&mut state), // an opening has an end: see `Opening`
                Phase::Closed => match &state.failure {
                    Some((kind, text)) if state.failures != failures => {
                        return Err(Error::new(*kind, text.clone()));
                    }
                    _ => break,
                },
            }
        }
        state.phase = Phase::Opening;
        drop(state);
        self.open()
    }

    /// Logs in; the phase says that somebody does.
    fn open(&self) -> Result<Arc<dyn Soap>> {
        let mut opening = Opening { session: self, result: None };
        let Entrance { server, login, times, .. } = &self.entrance;
        let opened = self.inner.door.open(server, login, *times, &self.inner.log);
        match opened.context(|| format!("logging in to {}", self.name())) {
            Ok(soap) => {
                opening.result = Some(Ok(Arc::clone(&soap)));
                drop(opening);
                if self.state.lock().users == 0 {
                    // Everybody left meanwhile, and nobody saw the session.
                    if let Some(soap) = self.leave_unused() {
                        self.part(&*soap);
                    }
                    let what = format!("the connection to {} was closed meanwhile", self.name());
                    return Err(Error::new(ErrorKind::InvalidConnection, what));
                }
                Inner::watch(&self.inner, self.entrance.keep_alive);
                Ok(soap)
            }
            Err(e) => {
                opening.result = Some(Err((e.kind(), e.to_string())));
                drop(opening);
                Err(e)
            }
        }
    }

    /// One more lease, unless the session is being left.
    fn enter(&self) -> bool {
        let mut state = self.state.lock();
        state.users += usize::from(state.users > 0);
        state.users > 0
    }

    /// One lease less. The last one is given the session to part with.
    fn leave(&self) -> Option<Arc<dyn Soap>> {
        {
            let mut state = self.state.lock();
            state.users = state.users.saturating_sub(1);
            if state.users > 0 {
                return None;
            }
        }
        self.leave_unused()
    }

    fn leave_unused(&self) -> Option<Arc<dyn Soap>> {
        let mut state = self.state.lock();
        let soap = match std::mem::replace(&mut state.phase, Phase::Closed) {
            Phase::Open(soap) => Some(soap),
            other => {
                state.phase = other;
                None
            }
        };
        drop(state);
        self.changed.notify_all();
        drop(self.inner.known.lock()); // the thread is not between its look and its sleep
        self.inner.wake.notify_all();
        soap
    }

    fn part(&self, soap: &dyn Soap) {
        match soap.close() {
            Ok(()) => self.inner.log.debug(|| format!("{}: the session is over", self.name())),
            Err(e) => self.inner.log.info(|| format!("{}: logging out: {e}", self.name())),
        }
    }

    /// The session, if it is logged in and kept alive.
    fn kept(&self) -> Option<Arc<dyn Soap>> {
        match &self.state.lock().phase {
            Phase::Open(soap) if !self.entrance.keep_alive.is_zero() => Some(Arc::clone(soap)),
            _ => None,
        }
    }

    /// How long until it has to be kept alive.
    fn due_in(&self, soap: &dyn Soap) -> Duration {
        let idle = soap.idle_for().min(self.state.lock().kept.elapsed());
        self.entrance.keep_alive.saturating_sub(idle)
    }

    fn keep_alive(&self, soap: &dyn Soap) {
        self.state.lock().kept = Instant::now();
        if let Err(e) = soap.keep_alive() {
            self.inner.log.info(|| format!("{}: keeping the session alive: {e}", self.name()));
        }
    }
}

/// Ends the phase of opening, whatever happens.
struct Opening<'a> {
    session: &'a Shared,
    result: Option<std::result::Result<Arc<dyn Soap>, (ErrorKind, String)>>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let defect = || Err((ErrorKind::Internal, "a defect: the login did not end".to_owned()));
        let mut state = self.session.state.lock();
        match self.result.take().unwrap_or_else(defect) {
            Ok(soap) => {
                state.phase = Phase::Open(soap);
                state.failure = None;
                state.kept = Instant::now();
            }
            Err(failure) => {
                state.phase = Phase::Closed;
                state.failures += 1;
                state.failure = Some(failure);
            }
        }
        drop(state);
        self.session.changed.notify_all();
    }
}

/// The thread that keeps sessions alive.
impl Inner {
    /// Sees to it that the thread exists and has seen all sessions.
    fn watch(this: &Arc<Inner>, keep_alive: Duration) {
        if keep_alive.is_zero() {
            return;
        }
        let mut known = this.known.lock();
        if known.over || std::mem::replace(&mut known.keeping, true) {
            drop(known);
            this.wake.notify_all();
            return;
        }
        drop(known);
        let inner = Arc::clone(this);
        if let Err(e) = this.threads.spawn("vix-keepalive", move || inner.keep()) {
            this.known.lock().keeping = false;
            this.log.info(|| format!("sessions are not kept alive: {e}"));
        }
    }

    fn keep(&self) {
        let mut known = self.known.lock();
        loop {
            let open: Vec<_> = known
                .sessions
                .iter()
                .filter_map(Weak::upgrade)
                .filter_map(|session| session.kept().map(|soap| (session, soap)))
                .collect();
            if known.over || open.is_empty() {
                known.keeping = false;
                return;
            }
            let (mut due, mut pause) = (Vec::new(), Duration::MAX);
            for (session, soap) in open {
                match session.due_in(&*soap) {
                    Duration::ZERO => due.push((session, soap)),
                    left => pause = pause.min(left),
                }
            }
            if due.is_empty() {
                self.wake.wait_for(&mut known, pause.max(LEAST_PAUSE));
                continue;
            }
            drop(known);
            due.iter().for_each(|(session, soap)| session.keep_alive(&**soap));
            drop(due);
            known = self.known.lock();
        }
    }
}

#[cfg(test)]
mod tests;
