//! Exchanges with the server that has the files.
//!
//! What passes is tried again, all of it until one moment: a session that expired, once; a server that is not available; a
//! connection that was lost. Reading twice does no harm.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::logging::Log;
use crate::net::http::Answer;
use crate::net::http::Client;
use crate::net::http::ContentRange;
use crate::net::http::Dial;
use crate::net::http::Head;
use crate::net::http::Hidden;
use crate::net::http::Method;
use crate::net::http::Request;
use crate::net::http::Target;
use crate::net::http::range::asked_for;
use crate::net::vim::cookie_header;
use crate::secret::Secret;
use crate::transport::https::path::FilePath;
use crate::transport::https::path::Spelling;
use crate::transport::https::path::Spellings;

/// What lets us in: the cookie of a session.
pub trait Pass: Debug + Send + Sync {
    /// The cookie's value.
    fn cookie(&self) -> Result<Secret>;

    /// The cookie to use where `stale` was not taken. `None`: the session of `stale` is good, so that it is no matter of
    /// sessions.
    fn renew(&self, stale: &Secret) -> Result<Option<Secret>>;

    /// What the server must not be quoted with.
    fn hidden(&self) -> Result<Hidden>;
}

/// What there is to know of a server besides how it is reached.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// The path of the datacenter whose datastores are read.
    pub datacenter: String,
    /// How names are spelled where nothing is known yet, and whether the other spelling is tried then.
    pub spelling: Spelling,
    /// The other spelling is tried for a file that is not found.
    pub tries_other: bool,
    /// How long a connection may take, with TLS.
    pub connect: Duration,
    /// How long one read of a file may take, with all that is tried again.
    pub request: Duration,
}

/// A server, as far as the files of its datastores are concerned. Many threads may read at once, each over a connection of
/// its own while it does.
#[derive(Debug)]
pub struct Site {
    http: Client,
    pass: Arc<dyn Pass>,
    options: SiteOptions,
    spellings: Arc<Spellings>,
    log: Log,
    /// Nobody wants anything any more.
    over: Mutex<bool>,
    ended: Condvar,
}

/// How often a lost connection, and a server that is not available, are tried again.
const MOST_LOSSES: u32 = 3;
const MOST_WAITS: u32 = 5;
/// How long is waited before that at first, and at most whatever the server says.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What was tried again of a request.
#[derive(Default)]
struct Tries {
    losses: u32,
    waits: u32,
    renewed: bool,
    /// The spelling that was not taken.
    refused: Option<Spelling>,
}

/// What is wanted of a file.
enum Wanted<'a> {
    /// That it is there, and its length.
    Head,
    /// A part of it, where it has so many bytes.
    Part { buf: &'a mut [u8], at: u64, len: u64 },
    /// Its first byte, for the sake of what is said about it.
    First,
}

impl Site {
    /// A server that is reached like this.
    pub fn new(
        dial: Box<dyn Dial>,
        pass: Arc<dyn Pass>,
        options: SiteOptions,
        spellings: Arc<Spellings>,
        log: Log,
    ) -> Site {
        let http = Client::new(dial, options.connect);
        Site { http, pass, options, spellings, log, over: Mutex::new(false), ended: Condvar::new() }
    }

    /// Its name.
    pub fn host(&self) -> String {
        self.http.host()
    }

    /// Ends what is under way, as `Cancelled`, and lets nothing begin any more.
    pub fn end(&self) {
        *self.over.lock() = true;
        self.ended.notify_all();
        self.http.end();
    }

    /// The length of a file in bytes.
    pub fn length(&self, path: &FilePath) -> Result<u64> {
        let until = self.deadline();
        let answer = self.ask(path, &mut Wanted::Head, until)?;
        if answer.head.status == 200
            && let Some(length) = answer.head.text("Content-Length").and_then(digits)
        {
            return Ok(length);
        }
        if matches!(answer.head.status, 401 | 404) {
            return Err(self.refusal(path, &answer, &(0..1), None));
        }
        // Not every server knows HEAD, and an answer to it has no words.
        let answer = self.ask(path, &mut Wanted::First, until)?;
        match (answer.head.status, ContentRange::of(&answer.head)) {
            (206, Some(ContentRange::Part(Range { start: 0, end: 1 }, Some(total)))) => Ok(total),
            (416, Some(ContentRange::Outside(0))) => Ok(0),
            (200, _) if answer.head.text("Content-Length").and_then(digits) == Some(0) => Ok(0),
            _ => Err(self.refusal(path, &answer, &(0..1), None)),
        }
    }

    /// Fills the buffer from `at` of a file of `len` bytes.
    pub fn fetch(&self, path: &FilePath, len: u64, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at.saturating_add(buf.len() as u64);
        if buf.is_empty() {
            return Ok(());
        }
        let answer = self.ask(path, &mut Wanted::Part { buf, at, len }, self.deadline())?;
        match answer.is_filled {
            true => Ok(()),
            false => Err(self.refusal(path, &answer, &(at..end), Some(len))),
        }
    }

    /// An answer that is not about sessions, spellings or the server's health.
    fn ask(&self, path: &FilePath, wanted: &mut Wanted<'_>, until: Instant) -> Result<Answer> {
        let mut tries = Tries::default();
        let mut cookie = self.pass.cookie()?;
        loop {
            let spelling = self.spelling(&tries);
            let answer = match self.once(path, spelling, &cookie, wanted, until) {
                Err(e) if self.may_pass(&mut tries, e.kind(), until) => {
                    self.log.info(|| format!("{path} is asked for once more: {e}"));
                    continue;
                }
                answer => answer.context(|| format!("reading {path} over HTTPS"))?,
            };
            match answer.head.status {
                401 if !tries.renewed => {
                    tries.renewed = true;
                    match self.pass.renew(&cookie).context(|| format!("reading {path} over HTTPS"))? {
                        Some(other) => cookie = other,
                        None => return Ok(answer),
                    }
                }
                404 if tries.refused.is_none() && self.has_other(path) => tries.refused = Some(spelling),
                502..=504 if self.waits(&mut tries, &answer, until) => {}
                status => {
                    self.learn(path, spelling, status);
                    return Ok(answer);
                }
            }
        }
    }

    fn once(
        &self,
        path: &FilePath,
        spelling: Spelling,
        cookie: &Secret,
        wanted: &mut Wanted<'_>,
        until: Instant,
    ) -> Result<Answer> {
        self.check_open()?;
        let target = path.target(&self.options.datacenter, spelling);
        let cookie = cookie_header(cookie);
        let range = wanted.range().map(|range| asked_for(&range));
        let mut headers: Vec<(&str, &[u8])> = vec![("Cookie", cookie.expose())];
        if let Some(range) = &range {
            headers.push(("Range", range.as_bytes()));
        }
        let method = if range.is_some() { Method::Get } else { Method::Head };
        let request = Request { method, target: &target, headers: &headers, body: &[] };
        match wanted {
            Wanted::Head => self.http.exchange(&request, Target::Collect(0), until),
            Wanted::First => {
                // Filled with the byte or, where it is another answer, not.
                let (mut byte, none) = ([0], |head: &Head| head.status == 206);
                self.http.exchange(&request, Target::Fill(&mut byte, &none), until)
            }
            Wanted::Part { buf, at, len } => {
                let part = *at..at.saturating_add(buf.len() as u64);
                let good = ContentRange::Part(part, Some(*len));
                let is_it =
                    |head: &Head| head.status == 206 && ContentRange::of(head).as_ref() == Some(&good);
                self.http.exchange(&request, Target::Fill(buf, &is_it), until)
            }
        }
    }

    /// Whether a fault is one that passes; waits a little then.
    fn may_pass(&self, tries: &mut Tries, kind: ErrorKind, until: Instant) -> bool {
        if !matches!(kind, ErrorKind::ConnectionLost | ErrorKind::ConnectionRefused) {
            return false;
        }
        tries.losses += 1;
        // The first time it is likely that an idle connection was closed.
        tries.losses <= MOST_LOSSES
            && (tries.losses == 1 || self.pause(FIRST_PAUSE.saturating_mul(tries.losses), until))
    }

    /// Whether a server that is not available may be later; waits as long as it says.
    fn waits(&self, tries: &mut Tries, answer: &Answer, until: Instant) -> bool {
        tries.waits += 1;
        let told = answer.head.text("Retry-After").and_then(digits).map(Duration::from_secs);
        let pause = told.unwrap_or(FIRST_PAUSE.saturating_mul(1 << tries.waits.min(8)));
        tries.waits <= MOST_WAITS && self.pause(pause.min(LONGEST_PAUSE), until)
    }

    /// Waits. False: there is no time for it, or nobody wants anything any more.
    fn pause(&self, pause: Duration, until: Instant) -> bool {
        let end = Instant::now() + pause;
        if end >= until {
            return false;
        }
        let mut over = self.over.lock();
        while !*over && !self.ended.wait_until(&mut over, end).timed_out() {}
        !*over
    }

    fn spelling(&self, tries: &Tries) -> Spelling {
        let usual = || self.spellings.known(&self.host()).unwrap_or(self.options.spelling);
        tries.refused.map_or_else(usual, Spelling::other)
    }

    /// Whether another spelling may lead to a file that was not found.
    fn has_other(&self, path: &FilePath) -> bool {
        self.options.tries_other
            && !path.is_plain(&self.options.datacenter)
            && self.spellings.known(&self.host()).is_none()
    }

    /// Remembers the spelling of a file that was found.
    fn learn(&self, path: &FilePath, spelling: Spelling, status: u16) {
        if matches!(status, 200 | 206 | 416) && self.has_other(path) {
            self.log.debug(|| format!("{} wants names encoded {spelling:?}", self.host()));
            self.spellings.learn(&self.host(), spelling);
        }
    }

    fn check_open(&self) -> Result<()> {
        match *self.over.lock() {
            true => Err(Error::new(ErrorKind::Cancelled, "the disk is being closed")),
            false => Ok(()),
        }
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.options.request).unwrap_or_else(|| now + Duration::from_secs(86_400))
    }

    /// Why an answer is none that was wanted. `len`: what the file's length is known to be.
    fn refusal(&self, path: &FilePath, answer: &Answer, asked: &Range<u64>, len: Option<u64>) -> Error {
        let hidden = match self.pass.hidden() {
            Ok(hidden) => hidden,
            Err(e) => return e,
        };
        let error = match (answer.head.status, ContentRange::of(&answer.head)) {
            (200, _) => Error::new(
                ErrorKind::Protocol,
                format!("the server ignores ranges: it sends the whole file where {} was asked for", asked_for(asked)),
            ),
            (206, Some(ContentRange::Part(_, Some(total))) ) | (416, Some(ContentRange::Outside(total)))
                if len.is_some_and(|len| len != total) =>
            {
                let len = len.unwrap_or_default();
                let text = format!("the file has {total} bytes, and had {len} before: somebody writes to it");
                Error::new(ErrorKind::Io, text)
            }
            (206, said) => {
                let said = said.map_or_else(|| "no range that makes sense".to_owned(), |said| format!("{said:?}"));
                let text = format!("the server sends {said} where {} was asked for", asked_for(asked));
                Error::new(ErrorKind::Protocol, text)
            }
            (500, _) | (423, _) => answer.refusal(&hidden).with_kind(ErrorKind::Locked).context(
                "the server cannot open the file; the files that a running machine writes to are locked, those of its \
                 snapshots are not",
            ),
            _ => answer.refusal(&hidden),
        };
        error.context(format!("reading {path} over HTTPS"))
    }
}

impl Wanted<'_> {
    fn range(&self) -> Option<Range<u64>> {
        match self {
            Wanted::Head => None,
            Wanted::First => Some(0..1),
            Wanted::Part { buf, at, .. } => Some(*at..at.saturating_add(buf.len() as u64)),
        }
    }
}

/// A number and nothing else.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
