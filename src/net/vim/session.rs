//! A session with a server: getting in, staying in, leaving.

use std::fmt;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::http::Dial;
use crate::net::http::Door;
use crate::net::http::Hidden;
use crate::net::tls::Tls;
use crate::net::vim::About;
use crate::net::vim::Login;
use crate::net::vim::Moref;
use crate::net::vim::Server;
use crate::net::vim::Times;
use crate::net::vim::call::Call;
use crate::net::vim::call::Written;
use crate::net::vim::content::Content;
use crate::net::vim::cookie;
use crate::net::vim::fault::Refused;
use crate::net::vim::wire::Wire;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;
use crate::secret::Secret;

/// A session with a server. Many threads may use it at once: each call has a connection of its own while it lasts, and no
/// lock is held while a server is waited for, but for the one of logging in again.
///
/// A call that the server answers with `NotAuthenticated` is made once more after a new login, where there is a password
/// for it. Every call ends in the time that [`Times`] gives it. The errors tell the server's words, but none that repeat
/// the password, a cookie or a ticket.
///
/// Dropping it closes the connections; only [`Session::close`] says farewell.
pub struct Session {
    pub(super) wire: Wire,
    pub(super) content: Content,
    pub(super) log: Log,
    login: Login,
    times: Times,
    state: Mutex<State>,
    /// Held by the thread that logs in again, also while it waits for the server.
    login_turn: Mutex<()>,
    /// Where NFC tickets come from, once that is known.
    pub(super) nfc_service: Mutex<Option<Moref>>,
}

struct State {
    cookie: Option<Secret>,
    /// How often a login was made: a call that failed with an older one needs no further login.
    logins: u64,
    is_closed: bool,
    /// The password was refused when logging in again. Trying on would lock the account.
    is_shut_out: bool,
    last_heard: Instant,
}

/// Where it is, and nothing secret.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("host", &self.wire.host()).finish_non_exhaustive()
    }
}

/// Waits between repetitions of a call that the server is too busy for.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Session {
    /// Connects and gets in.
    ///
    /// The kinds of errors: those of connecting and of TLS; `Unauthorised` for a wrong user or password;
    /// `SessionInvalid` for a cookie that is not one of a session.
    pub fn open(server: Server, login: Login, times: Times, log: Log) -> Result<Self> {
        let tls = Tls::new(&server.tls, log.clone())?;
        let door = Door { host: server.host, port: server.port, tls };
        Self::open_with(Box::new(door), login, times, log)
    }

    /// The same, over connections that somebody else makes.
    pub fn open_with(dial: Box<dyn Dial>, login: Login, times: Times, log: Log) -> Result<Self> {
        let hidden = Hidden::default();
        match &login {
            Login::User { password, .. } => hidden.keep(password),
            Login::Cookie(cookie) => cookie::given(cookie)?.iter().for_each(|value| hidden.keep(value)),
        }
        let host = dial.host();
        let wire = Wire::new(dial, times.connect, hidden);
        Self::enter(wire, login, times, log).context(|| format!("session with {host}"))
    }

    fn enter(mut wire: Wire, login: Login, times: Times, log: Log) -> Result<Self> {
        let until = after(times.request);
        let version = wire.negotiate(until)?;
        let instance = Moref::new("ServiceInstance", "ServiceInstance");
        let call = Call::new("RetrieveServiceContent", &instance).finish()?;
        let (content, cookie) = wire
            .call(&call, None, until, &mut |response| Content::read(xml::need(response, "returnval")?))
            .map_err(|refused| match refused {
                // Nobody has logged in yet, so that it is not the user who is refused.
                Refused::Error(e) if e.kind() == ErrorKind::Unauthorised => {
                    let what = "what answers there lets nobody ask what it is: it is no vSphere server";
                    Refused::Error(e.with_kind(ErrorKind::ServerNotFound).context(what))
                }
                refused => refused,
            })
            .map_err(|refused| refused.error(call.method, &wire.hidden))?;
        let about = &content.about;
        let quoted = [&about.full_name, &about.api_version].map(|text| wire.hidden.quote(text));
        log.info(|| format!("{} is {} with API {}, spoken is {version}", wire.host(), quoted[0], quoted[1]));
        let state =
            State { cookie, logins: 0, is_closed: false, is_shut_out: false, last_heard: Instant::now() };
        let session = Self {
            wire,
            content,
            log,
            login,
            times,
            state: Mutex::new(state),
            login_turn: Mutex::default(),
            nfc_service: Mutex::default(),
        };
        session.get_in(until)?;
        Ok(session)
    }

    /// The first login.
    fn get_in(&self, until: Instant) -> Result<()> {
        match &self.login {
            Login::User { name, password } => {
                let cookie = self.state.lock().cookie.clone();
                self.log_in(name, password, cookie.as_ref(), until).map_err(|e| match e.kind() {
                    ErrorKind::SessionInvalid => e.with_kind(ErrorKind::Unauthorised),
                    _ => e,
                })
            }
            Login::Cookie(text) => {
                for value in cookie::given(text)? {
                    self.state.lock().cookie = Some(value);
                    match self.is_of_a_session() {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(e) if e.kind() == ErrorKind::SessionInvalid => {}
                        Err(e) => return Err(e),
                    }
                }
                let what = "the server knows no session with the cookie that was given";
                Err(Error::new(ErrorKind::SessionInvalid, what))
            }
        }
    }

    fn log_in(&self, name: &str, password: &Secret, cookie: Option<&Secret>, until: Instant) -> Result<()> {
        let Some(password) = password.expose_text() else {
            return Err(Error::new(ErrorKind::Unauthorised, "the password is not UTF-8"));
        };
        let call = Call::new("Login", &self.content.session_manager)
            .text("userName", name)
            .text("password", password)
            .text("locale", "en_US")
            .finish()?;
        let read = &mut |response: Node<'_>| xml::need(response, "returnval").map(|_| ());
        let done = self.wire.call(&call, cookie, until, read);
        let (_, new) = done.map_err(|refused| {
            refused.error(call.method, &self.wire.hidden).context(format!("logging in as {name:?}"))
        })?;
        let Some(cookie) = new.or_else(|| cookie.cloned()) else {
            return Err(Error::new(ErrorKind::Protocol, "the server gave no cookie for the session"));
        };
        self.log.info(|| format!("logged in to {} as {name:?}", self.wire.host()));
        let mut state = self.state.lock();
        state.cookie = Some(cookie);
        state.logins = state.logins.saturating_add(1);
        state.last_heard = Instant::now();
        Ok(())
    }

    /// Logs in again unless that was done since `logins`. `None`: there is nothing to log in with.
    fn log_in_again(&self, logins: u64, until: Instant) -> Option<Result<()>> {
        let Login::User { name, password } = &self.login else { return None };
        let Some(_turn) = self.login_turn.try_lock_until(until) else {
            return Some(Err(Error::new(ErrorKind::TimedOut, "another login takes too long")));
        };
        let (is_done, is_shut_out) = {
            let state = self.state.lock();
            (state.logins != logins, state.is_shut_out)
        };
        if is_done {
            return Some(Ok(()));
        }
        if is_shut_out {
            let what = "the session is over, and the server refused to let the user in again";
            return Some(Err(Error::new(ErrorKind::Unauthorised, what)));
        }
        self.log.info(|| format!("the session with {} is over, logging in again", self.wire.host()));
        // Without the old cookie: a session that is logged in already refuses to be logged in.
        let done = self.log_in(name, password, None, until).context(|| "logging in again");
        if done.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unauthorised) {
            self.state.lock().is_shut_out = true;
        }
        Some(done)
    }

    /// Makes a call; the answer is read by `read`, which may be called once more after an answer that it refused.
    /// It ends in the usual time, and by `until` if that is earlier.
    pub(super) fn ask<T>(
        &self,
        call: Call,
        until: Option<Instant>,
        read: &mut dyn FnMut(Node<'_>) -> Result<T>,
    ) -> Result<T, Refused> {
        let (call, usual) = (call.finish()?, after(self.times.request));
        let until = until.map_or(usual, |until| until.min(usual));
        let (mut pause, mut had_login) = (FIRST_PAUSE, false);
        loop {
            let logins = self.state.lock().logins;
            match self.once(&call, until, read) {
                Err(refused) if refused.name() == Some("NotAuthenticated") && !had_login => {
                    match self.log_in_again(logins, until) {
                        Some(done) => done?,
                        None => return Err(refused),
                    }
                    had_login = true;
                }
                Err(refused) if refused.name() == Some("TaskInProgress") => {
                    if until.saturating_duration_since(Instant::now()) <= pause {
                        return Err(refused);
                    }
                    std::thread::sleep(pause);
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
                done => return done,
            }
        }
    }

    fn once<T>(
        &self,
        call: &Written,
        until: Instant,
        read: &mut dyn FnMut(Node<'_>) -> Result<T>,
    ) -> Result<T, Refused> {
        let cookie = {
            let state = self.state.lock();
            if state.is_closed {
                return Err(Error::new(ErrorKind::SessionInvalid, "the session was closed").into());
            }
            state.cookie.clone()
        };
        // A cookie that comes with an answer now is of another session, if of any.
        let done = self.wire.call(call, cookie.as_ref(), until, read).map(|(value, _)| value);
        if matches!(done, Ok(_) | Err(Refused::Fault(_))) {
            self.state.lock().last_heard = Instant::now();
        }
        done
    }

    /// The same, with a fault as an error.
    pub(super) fn get<T>(&self, call: Call, read: &mut dyn FnMut(Node<'_>) -> Result<T>) -> Result<T> {
        self.get_by(call, None, read)
    }

    /// The same by `until`, if that is earlier than the usual time.
    pub(super) fn get_by<T>(
        &self,
        call: Call,
        until: Option<Instant>,
        read: &mut dyn FnMut(Node<'_>) -> Result<T>,
    ) -> Result<T> {
        let method = call.method;
        self.ask(call, until, read).map_err(|refused| refused.error(method, &self.wire.hidden))
    }

    /// True when the server knows who is asking.
    fn is_of_a_session(&self) -> Result<bool> {
        let mut is_known = false;
        self.properties(&self.content.session_manager, &["currentSession"], &mut |_, value| {
            is_known = xml::one(value, "userName")?.is_some();
            Ok(())
        })?;
        Ok(is_known)
    }

    /// What the server says about itself.
    pub fn about(&self) -> &About {
        &self.content.about
    }

    /// The value of the session's cookie, as it has to be sent.
    pub fn cookie(&self) -> Secret {
        self.state.lock().cookie.clone().unwrap_or_default()
    }

    /// What follows from the server not taking `stale`, the session's cookie, elsewhere: the cookie of a session that is
    /// good, logged in again if need be. `None`: the server still knows the session of `stale`.
    pub fn renew(&self, stale: &Secret) -> Result<Option<Secret>> {
        let is_stale = |cookie: &Secret| cookie.expose() == stale.expose();
        let logins = self.state.lock().logins;
        if is_stale(&self.cookie()) && !self.is_of_a_session()? {
            match self.log_in_again(logins, after(self.times.request)) {
                Some(done) => done?,
                None => {
                    let what = "the server knows the session of the cookie that was given no more";
                    return Err(Error::new(ErrorKind::SessionInvalid, what));
                }
            }
        }
        Ok(Some(self.cookie()).filter(|cookie| !is_stale(cookie)))
    }

    /// What must not be repeated of what the server says.
    pub fn hidden(&self) -> &Hidden {
        &self.wire.hidden
    }

    /// How long the server has not heard of this session.
    pub fn idle_for(&self) -> Duration {
        self.state.lock().last_heard.elapsed()
    }

    /// Keeps the session from expiring; half an hour without a call is the usual limit. No thread does this by itself.
    pub fn keep_alive(&self) -> Result<()> {
        let instance = Moref::new("ServiceInstance", "ServiceInstance");
        self.get(Call::new("CurrentTime", &instance), &mut |response| {
            xml::need(response, "returnval").map(|_| ())
        })
    }

    /// Logs out, if the session was logged in here, and closes the connections. Nothing happens the second time. Calls of
    /// other threads that are under way end by themselves.
    pub fn close(&self) -> Result<()> {
        let cookie = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.cookie.take()
        };
        let done = match (&self.login, cookie) {
            (Login::User { .. }, Some(cookie)) => self.log_out(&cookie),
            _ => Ok(()),
        };
        self.wire.close();
        done.context(|| format!("leaving the session with {}", self.wire.host()))
    }

    fn log_out(&self, cookie: &Secret) -> Result<()> {
        let call = Call::new("Logout", &self.content.session_manager).finish()?;
        match self.wire.call(&call, Some(cookie), after(self.times.farewell), &mut |_| Ok(())) {
            Ok(_) => Ok(()),
            // It was over before.
            Err(refused) if refused.name() == Some("NotAuthenticated") => Ok(()),
            Err(refused) => Err(refused.error(call.method, &self.wire.hidden)),
        }
    }
}

/// So much from now on; as good as never for what does not fit into the clock.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).or_else(|| now.checked_add(NEVER)).unwrap_or(now)
}

const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);
