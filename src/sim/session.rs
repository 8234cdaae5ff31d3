//! Sessions: who is logged in, for how long, and what belongs to them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::error::Result;
use crate::secret::Secret;
use crate::sim::clock;
use crate::sim::collector::Collectors;
use crate::sim::random;
use crate::sim::value::Data;
use crate::sim::value::Value;

/// More sessions at once are refused: clients that never log out would fill the memory.
const MOST: usize = 500;
/// How long a clone ticket can be used.
const CLONE_LIFE: Duration = Duration::from_secs(60);

/// A session that is logged in.
#[derive(Debug)]
pub struct Session {
    /// `UserSession.key`.
    pub key: String,
    /// The user.
    pub user: String,
    login: SystemTime,
    address: IpAddr,
    agent: String,
    calls: Mutex<Calls>,
    /// Its views, filters and unfinished answers.
    pub collectors: Collectors,
}

#[derive(Debug)]
struct Calls {
    last: Instant,
    last_time: SystemTime,
    count: i32,
}

/// All sessions by their cookies.
pub struct Sessions {
    life: Mutex<Duration>,
    open: Mutex<HashMap<String, Arc<Session>>>,
    clones: Mutex<HashMap<String, (Instant, String)>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("open", &self.open.lock().len()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// None so far; each lives for `life` without a call.
    pub fn new(life: Duration) -> Sessions {
        Sessions { life: Mutex::new(life), open: Mutex::default(), clones: Mutex::default() }
    }

    /// The session of a cookie, which lives anew.
    pub fn find(&self, cookie: &str) -> Option<Arc<Session>> {
        self.forget_old();
        let session = self.open.lock().get(cookie).cloned()?;
        let mut calls = session.calls.lock();
        (calls.last, calls.last_time) = (Instant::now(), SystemTime::now());
        calls.count = calls.count.saturating_add(1);
        drop(calls);
        Some(session)
    }

    /// Opens a session. Gives its cookie, `None` when there are too many.
    pub fn open(&self, user: &str, address: IpAddr, agent: &str) -> Result<Option<(String, Arc<Session>)>> {
        self.forget_old();
        let (now, time) = (Instant::now(), SystemTime::now());
        let session = Arc::new(Session {
            key: random::uuid()?,
            user: user.to_owned(),
            login: time,
            address,
            agent: agent.chars().take(200).collect(),
            calls: Mutex::new(Calls { last: now, last_time: time, count: 0 }),
            collectors: Collectors::default(),
        });
        let cookie = random::cookie()?;
        let mut open = self.open.lock();
        if open.len() >= MOST {
            return Ok(None);
        }
        open.insert(cookie.clone(), session.clone());
        Ok(Some((cookie, session)))
    }

    /// Ends a session.
    pub fn close(&self, session: &Arc<Session>) {
        self.open.lock().retain(|_, other| !Arc::ptr_eq(other, session));
        session.collectors.close();
    }

    /// Ends all sessions, as a server does that starts anew.
    pub fn close_all(&self) {
        for (_, session) in self.open.lock().drain() {
            session.collectors.close();
        }
    }

    /// How long sessions live without a call from now on.
    pub fn set_life(&self, life: Duration) {
        *self.life.lock() = life;
    }

    /// True for the key of a session that is open.
    pub fn has_key(&self, key: &str) -> bool {
        self.forget_old();
        self.open.lock().values().any(|session| session.key == key)
    }

    /// A ticket with which somebody else gets a session of the same user.
    pub fn clone_ticket(&self, session: &Session) -> Result<String> {
        let ticket = format!("cst-VCT-{}", random::uuid()?);
        let mut clones = self.clones.lock();
        clones.retain(|_, (until, _)| *until > Instant::now());
        if clones.len() < MOST {
            clones.insert(ticket.clone(), (Instant::now() + CLONE_LIFE, session.user.clone()));
        }
        Ok(ticket)
    }

    /// The user of a clone ticket, which is used up.
    pub fn redeem_clone(&self, ticket: &str) -> Option<String> {
        let (until, user) = self.clones.lock().remove(ticket)?;
        (until > Instant::now()).then_some(user)
    }

    fn forget_old(&self) {
        let life = *self.life.lock();
        let mut old = Vec::new();
        self.open.lock().retain(|_, session| {
            let keep = session.calls.lock().last.elapsed() <= life;
            if !keep {
                old.push(session.clone());
            }
            keep
        });
        old.iter().for_each(|session| session.collectors.close());
    }
}

impl Session {
    /// `UserSession`.
    pub fn data(&self) -> Data {
        let calls = self.calls.lock();
        let time = |time: SystemTime| Value::Time(clock::iso(time));
        Data::new("UserSession")
            .with("key", self.key.clone())
            .with("userName", self.user.clone())
            .with("fullName", self.user.clone())
            .with("loginTime", time(self.login))
            .with("lastActiveTime", time(calls.last_time))
            .with("locale", "en")
            .with("messageLocale", "en")
            .with("extensionSession", false)
            .with("ipAddress", self.address.to_string())
            .with("userAgent", self.agent.clone())
            .with("callCount", calls.count)
    }
}

/// True when the password is the right one; how long it takes does not tell how much of it is.
pub fn is_password(right: &Secret, given: &str) -> bool {
    let (right, given) = (right.expose(), given.as_bytes());
    let differ = right.iter().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b));
    right.len() == given.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_nobody_calls() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let (cookie, session) = sessions.open("u", IpAddr::from([127, 0, 0, 1]), "a").unwrap().unwrap();
        assert!(sessions.find(&cookie).is_some() && sessions.has_key(&session.key));
        sessions.set_life(Duration::ZERO);
        std::thread::yield_now();
        assert!(sessions.find(&cookie).is_none());
    }

    #[test]
    fn clone_tickets_serve_once() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let (_, session) = sessions.open("u", IpAddr::from([127, 0, 0, 1]), "a").unwrap().unwrap();
        let ticket = sessions.clone_ticket(&session).unwrap();
        assert_eq!(sessions.redeem_clone(&ticket).as_deref(), Some("u"));
        assert_eq!(sessions.redeem_clone(&ticket), None);
    }

    #[test]
    fn only_the_whole_password_is_right() {
        let right = Secret::from("secret".to_owned());
        assert!(is_password(&right, "secret"));
        for wrong in ["", "secre", "secrets", "Secret"] {
            assert!(!is_password(&right, wrong));
        }
    }
}
